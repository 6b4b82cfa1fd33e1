package yamltable

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	yaml "go.yaml.in/yaml/v4"
)

// Shape says what may stand at one place of the file. It reads the place into a
// T and describes itself for the schema, so that the two cannot drift apart.
type Shape[T any] struct {
	Want   string // in words: what a place of this shape must be
	About  string // the same for the reference, where it can say more
	secret bool   // holds a secret, or something below it does
	below  []Key  // the keys below it; their paths begin with "." or "[]"
	// instead is what a text in the place of a mapping was probably meant as; ""
	// if that is not clear. A text of which it is clear is no secret.
	instead func(v string) string
	// meant is what a node of another kind was probably meant as; "" if that is
	// not clear. May be nil.
	meant  func(n *yaml.Node) string
	sample string // of a reference, how one looks; "" for all else
	Schema Schema
	Read   func(w *Walker, at Place, into *T)
}

// Kinds of nodes, for those who read a place by themselves.
const (
	Mapping    = yaml.MappingNode
	Sequence   = yaml.SequenceNode
	ScalarText = yaml.ScalarNode
)

// Place is a value in the file. Nothing keeps a pointer into a *T that read was
// given, except references: so lists have their final size before they are read.
type Place struct {
	Node *yaml.Node
	Path string
}

// Walker reads the tree and collects what is wrong.
type Walker struct {
	src  *source
	keys []Key // of the table
	// elsewhere is what stands here for keys of other programs; see Read.
	elsewhere map[string]string
	sounds    *regexp.Regexp  // names of keys that hold secrets
	plain     map[string]bool // paths of keys that hold none, whatever they sound like: "providers[].endpoints.token"
	faults    Faults
}

// Fault notes that something is wrong at a place.
func (w *Walker) Fault(at Place, format string, args ...any) {
	w.Suggest(at, "", format, args...)
}

// Suggest is Fault with what was probably meant; "" if that is not clear.
func (w *Walker) Suggest(at Place, suggestion, format string, args ...any) {
	if len(w.faults) > MaxFaults {
		return
	}
	f := w.src.fault(nodePos(at.Node), at.Path, format, args...)
	f.Suggestion = suggestion
	w.faults = append(w.faults, f)
}

// FaultAt is Fault at the value of path, or at what would hold it.
func (w *Walker) FaultAt(path, format string, args ...any) {
	w.faults = append(w.faults, w.src.faultAt(path, format, args...))
}

// Take reads a place that must have a value.
func Take[T any](w *Walker, s Shape[T], at Place, into *T) {
	if s.secret && at.Node.Kind == yaml.ScalarNode && (s.instead == nil || s.instead(at.Node.Value) == "") {
		w.src.hide(at.Node)
	}
	switch {
	case at.Node.Kind == yaml.AliasNode, at.Node.Style&yaml.TaggedStyle != 0: // refused before
	case at.Node.Tag == "!!null":
		w.Fault(at, "has no value; must be %s", s.Want)
	default:
		s.Read(w, at, into)
	}
}

// structure refuses what the parser lets through but a reader would not expect,
// in the whole tree. It reports whether the tree can be walked.
func (w *Walker) structure(at Place, depth int) bool {
	n := at.Node
	if depth > maxDepth {
		w.Fault(at, "is nested deeper than %d levels", maxDepth)
		return false
	}
	w.src.starts = append(w.src.starts, nodePos(n))
	if n.Kind == yaml.ScalarNode {
		w.src.scalars = append(w.src.scalars, n)
	}
	switch {
	case n.Kind == yaml.AliasNode:
		w.Fault(at, `aliases (*) are not allowed; write the value out`)
	case n.Anchor != "":
		w.Fault(at, `anchors (&) are not allowed; a text that begins with "&" needs quotes`)
	case n.Style&yaml.TaggedStyle != 0:
		w.Fault(at, `tags (!) are not allowed; a text that begins with "!" needs quotes`)
	}
	ok := true
	switch n.Kind {
	case yaml.SequenceNode:
		for i, item := range n.Content {
			ok = w.structure(Place{item, Index(at.Path, i)}, depth+1) && ok
		}
	case yaml.MappingNode:
		ok = w.mappingStructure(at, depth)
	}
	return ok
}

func (w *Walker) mappingStructure(at Place, depth int) bool {
	ok := true
	seen := map[string]int{}
	for i := 0; i+1 < len(at.Node.Content); i += 2 {
		key, value := at.Node.Content[i], at.Node.Content[i+1]
		here := Place{key, Join(at.Path, key.Value)}
		switch first, dup := seen[key.Value]; {
		case key.Tag == "!!merge":
			w.Fault(here, "merge keys (<<) are not allowed; write the fields out")
		case !IsText(key) && key.Kind != yaml.AliasNode:
			w.Fault(Place{key, at.Path}, "a key must be text, not %s", describe(key, false))
		case dup:
			w.Fault(here, "is already given in line %d", first)
		default:
			seen[key.Value] = key.Line
		}
		if w.sounds.MatchString(key.Value) && !w.plain[anyIndex(here.Path)] {
			w.hideBelow(value)
		}
		ok = w.structure(here, depth+1) && ok
		ok = w.structure(Place{value, here.Path}, depth+1) && ok
	}
	return ok
}

// hideBelow hides all that stands under a key that holds a secret, also under
// one that this release does not know.
func (w *Walker) hideBelow(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		w.src.hide(n)
	}
	for _, c := range n.Content {
		w.hideBelow(c)
	}
}

// IsText reports whether YAML takes the node for a text.
func IsText(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!str" }

// describe names what was found, in words.
func describe(n *yaml.Node, secret bool) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	case secret && IsText(n):
		return "text"
	case secret:
		return "a number, date, true or false"
	case n.Tag == "!!int", n.Tag == "!!float":
		return "the number " + n.Value
	case n.Tag == "!!timestamp":
		return "the date " + n.Value
	case n.Tag == "!!bool":
		return n.Value
	}
	return Quote(n.Value)
}

// Expect reports whether a place has the kind, and notes a fault if it has not.
func (w *Walker) Expect(at Place, kind yaml.Kind, want string, secret bool) bool {
	if at.Node.Kind == kind {
		return true
	}
	if secret {
		w.hideBelow(at.Node)
	}
	w.Fault(at, "must be %s, not %s", want, describe(at.Node, secret))
	return false
}

// Text reads a text. What YAML takes for a number needs quotes: 0123 and 1e3
// are not what they seem.
func (w *Walker) Text(at Place, want string, secret bool) (string, bool) {
	n := at.Node
	if secret {
		w.hideBelow(n)
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag != "!!str" && !secret:
		w.Fault(at, "must be %s, not %s; a text needs quotes: %q", want, describe(n, secret), n.Value)
	case !IsText(n):
		w.Fault(at, "must be %s, not %s", want, describe(n, secret))
	case n.Value == "":
		w.Fault(at, "is empty; must be %s", want)
	case !secret && n.Value != strings.TrimSpace(n.Value):
		w.Fault(at, "begins or ends with a blank")
	case !secret && strings.ContainsFunc(n.Value, unicode.IsControl):
		w.Fault(at, "must be on one line, without control characters")
	default:
		return n.Value, true
	}
	return "", false
}

// Unquoted is a complaint about a text that may hold a password.
type Unquoted struct{ Complaint error }

func (u Unquoted) Error() string { return u.Complaint.Error() }

// Slip is a complaint about a text of which it is clear what was meant.
type Slip struct {
	Complaint error
	Meant     string // "" if only Why helps
	Why       string // follows what was found: "; the units are …"
}

func (s Slip) Error() string { return s.Complaint.Error() }

// Parsed stores what parse makes of v. What parse complains of begins with
// "must" and does not repeat v, which is added where it may be shown.
func Parsed[T any](w *Walker, at Place, v string, into *T, parse func(string) (T, error)) {
	x, err := parse(v)
	var slip Slip
	switch {
	case err == nil:
		*into = x
	case errors.As(err, &slip):
		w.Suggest(at, slip.Meant, "%v, not %s%s", err, Quote(v), slip.Why)
	case errors.As(err, new(Unquoted)):
		w.src.secrets = append(w.src.secrets, at.Node)
		w.Fault(at, "%v", err)
	default:
		w.Fault(at, "%v, not %s", err, Quote(v))
	}
}

// Scalar is one text that parse understands; its complaints are as in parsed.
func Scalar[T any](want string, s Schema, parse func(string) (T, error)) Shape[T] {
	s["type"] = "string"
	return Shape[T]{Want: want, Schema: s, Read: func(w *Walker, at Place, into *T) {
		if v, ok := w.Text(at, want, false); ok {
			Parsed(w, at, v, into, parse)
		}
	}}
}

// Text is any text on one line.
func Text(want string) Shape[string] {
	return Scalar(want, Schema{"minLength": 1}, func(v string) (string, error) { return v, nil })
}

// Pattern is a text of a certain form.
func Pattern(want, form string) Shape[string] {
	re := regexp.MustCompile(form)
	return Scalar(want, Schema{"pattern": form}, func(v string) (string, error) {
		if !re.MatchString(v) {
			return "", fmt.Errorf("must be %s", want)
		}
		return v, nil
	})
}

// OneOf is a text out of a closed list. want may be "".
func OneOf[T ~string](want string, values ...T) Shape[T] {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = string(v)
	}
	if want == "" {
		want = orList(names)
	}
	return Shape[T]{Want: want, Schema: Schema{"enum": names}, Read: func(w *Walker, at Place, into *T) {
		v, ok := at.Node.Value, IsText(at.Node)
		switch {
		case ok && slices.Contains(names, v):
			*into = T(v)
		case ok:
			w.Suggest(at, Nearest(v, names), "must be %s, not %s", want, Quote(v))
		default:
			w.Fault(at, "must be %s, not %s", want, describe(at.Node, false))
		}
	}}
}

// OnlyTrue is `true`: leaving the key out says the opposite.
func OnlyTrue() Shape[bool] {
	return Shape[bool]{Want: "true", Schema: Schema{"const": true}, Read: func(w *Walker, at Place, into *bool) {
		if *into = at.Node.Tag == "!!bool" && at.Node.Value == "true"; !*into {
			w.Fault(at, "must be true or left out, not %s", describe(at.Node, false))
		}
	}}
}

// OnlyFalse is `false`, and reads as true: what it switches off is off.
func OnlyFalse() Shape[bool] {
	return Shape[bool]{Want: "false", Schema: Schema{"const": false}, Read: func(w *Walker, at Place, into *bool) {
		if *into = at.Node.Tag == "!!bool" && at.Node.Value == "false"; !*into {
			w.Fault(at, "must be false or left out, not %s", describe(at.Node, false))
		}
	}}
}

// Number is a whole number in decimal.
func Number(lowest, highest int) Shape[int] {
	want := fmt.Sprintf("a whole number from %d to %d", lowest, highest)
	if lowest == highest {
		want = fmt.Sprintf("the number %d", lowest)
	}
	s := Schema{"type": "integer", "minimum": lowest, "maximum": highest}
	return Shape[int]{Want: want, Schema: s, Read: func(w *Walker, at Place, into *int) {
		v, err := strconv.Atoi(at.Node.Value)
		switch inside := err == nil && lowest <= v && v <= highest; {
		case IsText(at.Node) && inside:
			w.Fault(at, "must be %s, without quotes", want)
			return
		case at.Node.Tag != "!!int" || !inside:
			w.Fault(at, "must be %s, not %s", want, describe(at.Node, false))
			return
		}
		*into = v
	}}
}

// Duration is a time between two bounds.
func Duration(lowest, highest time.Duration) Shape[time.Duration] {
	const form = `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	re := regexp.MustCompile(form)
	want := "a duration such as 90s or 12h"
	d := scalarBut(want, Schema{"pattern": form}, func(v string) (time.Duration, error) {
		d, err := time.ParseDuration(v)
		if err != nil || !re.MatchString(v) {
			return 0, errors.New("must be " + want + " (the units are h, m, s and ms" + withUnit(v) + ")")
		}
		if d < lowest || d > highest {
			return 0, fmt.Errorf("must be from %s to %s", Short(lowest), Short(highest))
		}
		return d, nil
	})
	read := d.Read
	d.Read = func(w *Walker, at Place, into *time.Duration) {
		if hint := withUnit(at.Node.Value); hint != "" && at.Node.Kind == yaml.ScalarNode && !IsText(at.Node) {
			w.Fault(at, "must be %s (the units are h, m, s and ms%s), not %s", want, hint, describe(at.Node, false))
			return
		}
		read(w, at, into)
	}
	return d
}

// withUnit is what somebody meant who wrote a bare number or days, if that is clear.
func withUnit(v string) string {
	if days, ok := strings.CutSuffix(v, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= 365 {
			return fmt.Sprintf("; %dd is %dh", n, 24*n)
		}
	}
	if n, err := strconv.Atoi(v); err == nil && n > 0 {
		return fmt.Sprintf("; %d seconds are %ds", n, n)
	}
	return ""
}

// Short writes 720h0m0s as 720h.
func Short(d time.Duration) string {
	v := d.String()
	if strings.HasSuffix(v, "m0s") {
		v = strings.TrimSuffix(v, "0s")
	}
	if strings.HasSuffix(v, "h0m") {
		v = strings.TrimSuffix(v, "0m")
	}
	return v
}

// SizeBetween is a number of bytes between two bounds.
func SizeBetween(lowest, highest int64) Shape[int64] {
	const form = `^[0-9]{1,9}(B|KiB|MiB|GiB)$`
	re := regexp.MustCompile(form)
	want := "a size such as 512B, 64KiB or 1MiB"
	return scalarBut(want, Schema{"pattern": form}, func(v string) (int64, error) {
		if !re.MatchString(v) {
			return 0, errors.New("must be " + want)
		}
		digits := strings.TrimRight(v, "BKiMG")
		n, _ := strconv.ParseInt(digits, 10, 64) // the form allows nine digits
		switch v[len(digits):] {
		case "KiB":
			n <<= 10
		case "MiB":
			n <<= 20
		case "GiB":
			n <<= 30
		}
		if n < lowest || n > highest {
			return 0, fmt.Errorf("must be from %s to %s", Size(lowest), Size(highest))
		}
		return n, nil
	})
}

// Size is a number of bytes as the file has it: 64KiB for 65536.
func Size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB"}
	for ; n >= 1024 && n%1024 == 0 && len(units) > 1; n /= 1024 {
		units = units[1:]
	}
	return strconv.FormatInt(n, 10) + units[0]
}

// scalarBut is scalar for a text that a number is easily written for: it does
// not advise quotes.
func scalarBut[T any](want string, s Schema, parse func(string) (T, error)) Shape[T] {
	inner := Scalar(want, s, parse)
	return Shape[T]{Want: want, Schema: s, Read: func(w *Walker, at Place, into *T) {
		if !IsText(at.Node) {
			w.Fault(at, "must be %s, not %s", want, describe(at.Node, false))
			return
		}
		inner.Read(w, at, into)
	}}
}

// List is at least lowest places of one shape.
func List[T any](item Shape[T], lowest int) Shape[[]T] {
	s := Schema{"type": "array", "items": item.Schema, "minItems": lowest}
	about := "a list of: " + item.describe()
	if item.Want == "a mapping" {
		about = "a list of mappings"
	}
	meant := func(n *yaml.Node) string { return listFor(item, n) }
	return Shape[[]T]{Want: "a list", About: about, secret: item.secret, below: prefixed("[]", item.below), meant: meant,
		Schema: s, Read: func(w *Walker, at Place, into *[]T) {
			if listed := listFor(item, at.Node); listed != "" {
				w.Suggest(at, listed, "must be a list, not %s", describe(at.Node, false))
				return
			}
			want := "a list"
			if item.sample != "" {
				want = "a list such as [" + item.sample + "]"
			}
			if !w.Expect(at, yaml.SequenceNode, want, item.secret) {
				return
			}
			if len(at.Node.Content) < lowest {
				w.Fault(at, "must be a list with at least %d entry, not an empty one", lowest)
			}
			*into = make([]T, len(at.Node.Content))
			for i, n := range at.Node.Content {
				Take(w, item, Place{n, Index(at.Path, i)}, &(*into)[i])
			}
		}}
}

// listFor is the list of the one entry that stands in its place; "" if that is
// not clear, or if it may hold a secret.
func listFor[T any](item Shape[T], n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode && item.Want == "a mapping" && !item.secret:
		return ListOf(inline(n, item.below))
	case item.sample != "" && IsText(n):
		if meant := MeantReference(n.Value); meant != "" {
			return ListOf(meant)
		}
		if isReference(n.Value) && !strings.ContainsAny(n.Value, ", []{}\"'#\n") && len(n.Value) <= 60 {
			return ListOf(n.Value)
		}
		return ""
	case item.secret:
		return ""
	}
	return asList(n)
}

// inline is a mapping of known keys on one line, if its values are plain texts or
// lists of them; else "".
func inline(n *yaml.Node, known []Key) string {
	var fields []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i].Value, n.Content[i+1]
		if !slices.ContainsFunc(known, func(k Key) bool { return k.Path == "."+name }) {
			return ""
		}
		texts := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			texts = value.Content
		}
		var values []string
		for _, t := range texts {
			if t.Kind != yaml.ScalarNode || t.Value == "" || strings.ContainsAny(t.Value, ",[]{}\"'#\n*") ||
				strings.ContainsAny(t.Value[:1], "&!|>%@`-?") {
				return ""
			}
			v := t.Value
			if strings.Contains(v, ":") {
				v = strconv.Quote(v)
			}
			values = append(values, v)
		}
		written := strings.Join(values, ", ")
		if value.Kind == yaml.SequenceNode {
			written = "[" + written + "]"
		}
		fields = append(fields, name+": "+written)
	}
	if line := strings.Join(fields, ", "); line != "" && len(line) <= 60 {
		return "{" + line + "}"
	}
	return ""
}

// asList is a list of the one text that stands in its place; "" for all else.
func asList(n *yaml.Node) string {
	if !IsText(n) || n.Value == "" || len(n.Value) > 60 || strings.ContainsAny(n.Value, ",[]{}\"'#:\n") {
		return ""
	}
	return "[" + strings.Join(strings.Fields(n.Value), ", ") + "]"
}

func isReference(v string) bool {
	form, _, complaint := SplitRef(v)
	return complaint == "" && form != FormLiteral
}

// Either is a for a scalar, b for the other kind of node.
func Either[T any](want string, a Shape[T], other yaml.Kind, b Shape[T]) Shape[T] {
	s := Schema{"anyOf": []any{a.Schema, b.Schema}}
	return Shape[T]{Want: want, secret: a.secret || b.secret, below: slices.Concat(a.below, b.below), Schema: s,
		Read: func(w *Walker, at Place, into *T) {
			if at.Node.Kind == yaml.ScalarNode {
				a.Read(w, at, into)
			} else if at.Node.Kind != other && b.meant != nil && b.meant(at.Node) != "" {
				w.Suggest(at, b.meant(at.Node), "must be %s, not %s", want, describe(at.Node, false))
			} else if w.Expect(at, other, want, a.secret || b.secret) {
				b.Read(w, at, into)
			}
		}}
}

// Within reads a V into its place in a T.
func Within[T, V any](s Shape[V], part func(*T) *V) Shape[T] {
	return Shape[T]{Want: s.Want, About: s.About, secret: s.secret, below: s.below, instead: s.instead, meant: s.meant,
		Schema: s.Schema,
		Read:   func(w *Walker, at Place, into *T) { s.Read(w, at, part(into)) }}
}

// Entry is one key of a mapping that becomes a T.
type Entry[T any] struct {
	name, doc string
	need      bool
	def       string // as YAML; "" if there is none
	shape     Shape[T]
}

// Field is a key of a mapping: its name, what the reference says of it, what may
// stand there, and its part of a T.
func Field[T, V any](name, doc string, s Shape[V], part func(*T) *V) Entry[T] {
	return Entry[T]{name: name, doc: doc, shape: Within(s, part)}
}

// Required makes a key one that must be there.
func (k Entry[T]) Required() Entry[T] { k.need = true; return k }

// Or gives a key its default, as YAML.
func (k Entry[T]) Or(def string) Entry[T] { k.def = def; return k }

// Object is a mapping with known keys.
type Object[T any] struct {
	Keys []Entry[T]
	// rivals exclude each other.
	Rivals [][]string
	// choices are keys of which exactly one must be there.
	Choices []Choice
	// some: at least one key must be there.
	Some    bool
	Instead func(v string) string // as in shape
	// check runs when all below the object is well.
	Check func(w *Walker, at Place, v *T)
}

// Choice are keys of which exactly one must be there.
type Choice struct {
	Names []string
	None  string // what to say if there is none
}

// Shape is the mapping as a shape.
func (o Object[T]) Shape() Shape[T] {
	secret := slices.ContainsFunc(o.Keys, func(k Entry[T]) bool { return k.shape.secret })
	return Shape[T]{Want: "a mapping", secret: secret, below: o.below(), instead: o.Instead, Schema: o.schema(),
		Read: func(w *Walker, at Place, into *T) {
			if o.Instead != nil && at.Node.Kind == yaml.ScalarNode && o.Instead(at.Node.Value) != "" {
				w.Suggest(at, o.Instead(at.Node.Value), "must be a mapping, not %s", describe(at.Node, false))
				return
			}
			if !w.Expect(at, yaml.MappingNode, "a mapping", secret) {
				return
			}
			before := len(w.faults)
			present := o.readKeys(w, at, into)
			o.checkPresence(w, at, present)
			if o.Check != nil && len(w.faults) == before {
				o.Check(w, at, into)
			}
		}}
}

// readKeys reads what is there, then the defaults of what is not.
func (o Object[T]) readKeys(w *Walker, at Place, into *T) map[string]*yaml.Node {
	present := map[string]*yaml.Node{}
	for i := 0; i+1 < len(at.Node.Content); i += 2 {
		name, value := at.Node.Content[i], at.Node.Content[i+1]
		if !IsText(name) || present[name.Value] != nil {
			continue // refused before
		}
		present[name.Value] = name
		here := Join(at.Path, name.Value)
		k := slices.IndexFunc(o.Keys, func(k Entry[T]) bool { return k.name == name.Value })
		if k < 0 {
			o.unknown(w, Place{name, here}, value)
			continue
		}
		Take(w, o.Keys[k].shape, Place{value, here}, into)
	}
	for _, k := range o.Keys {
		if present[k.name] == nil && k.def != "" && !o.rivalPresent(k.name, present) {
			k.shape.Read(w, Place{Default(k.def), Join(at.Path, k.name)}, into)
		}
	}
	return present
}

func (o Object[T]) names() []string {
	names := make([]string, len(o.Keys))
	for i, k := range o.Keys {
		names[i] = k.name
	}
	return names
}

func (o Object[T]) unknown(w *Walker, at Place, value *yaml.Node) {
	meant := Nearest(at.Node.Value, o.names())
	if slices.ContainsFunc(o.Keys, func(k Entry[T]) bool { return k.name == meant && k.shape.secret }) {
		w.hideBelow(value)
	}
	advice, meant := w.unknownField(at, meant)
	w.Suggest(at, meant, "unknown field%s", advice)
}

func (o Object[T]) rivalPresent(name string, present map[string]*yaml.Node) bool {
	return slices.ContainsFunc(o.Rivals, func(names []string) bool {
		return slices.Contains(names, name) && len(inOrder(names, present)) > 0
	})
}

func (o Object[T]) checkPresence(w *Walker, at Place, present map[string]*yaml.Node) {
	for _, k := range o.Keys {
		if k.need && present[k.name] == nil {
			w.Fault(Place{at.Node, Join(at.Path, k.name)}, "is required. %s", k.doc)
		}
	}
	for _, names := range o.Rivals {
		w.atMostOne(at, names, present)
	}
	for _, c := range o.Choices {
		if w.atMostOne(at, c.Names, present) == 0 {
			w.Fault(at, "%s", c.None)
		}
	}
	if o.Some && len(present) == 0 {
		names := slices.DeleteFunc(o.names(), func(name string) bool { return strings.HasPrefix(name, "insecure_") })
		w.Fault(at, "is empty; must have at least one of %s", orList(names))
	}
}

func (w *Walker) atMostOne(at Place, names []string, present map[string]*yaml.Node) int {
	there := inOrder(names, present)
	if len(there) > 1 {
		second := there[1]
		w.Fault(Place{present[second], Join(at.Path, second)}, "cannot stand beside %s; choose one of them", there[0])
	}
	return len(there)
}

// inOrder returns those names that are present, as the file has them.
func inOrder(names []string, present map[string]*yaml.Node) []string {
	var there []string
	for _, name := range names {
		if present[name] != nil {
			there = append(there, name)
		}
	}
	slices.SortFunc(there, func(a, b string) int { return comparePos(nodePos(present[a]), nodePos(present[b])) })
	return there
}

// Default reads a default of the table; a test reads them all.
func Default(def string) *yaml.Node {
	var doc yaml.Node
	if err := yaml.Load([]byte(def), &doc); err != nil || len(doc.Content) == 0 {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	}
	return doc.Content[0]
}

// QuotedList is OrList of quoted names.
func QuotedList(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = strconv.Quote(n)
	}
	return orList(quoted)
}

// orList writes a, b or c.
func orList(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// ListOf is the list of one entry; "" of none.
func ListOf(entry string) string {
	if entry == "" {
		return ""
	}
	return "[" + entry + "]"
}
