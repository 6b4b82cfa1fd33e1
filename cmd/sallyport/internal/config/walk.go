package config

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

// shape says what may stand at one place of the file. It reads the place into a
// T and describes itself for the schema, so that the two cannot drift apart.
type shape[T any] struct {
	want   string // in words: what a place of this shape must be
	about  string // the same for the reference, where it can say more
	secret bool   // holds a secret, or something below it does
	below  []Key  // the keys below it; their paths begin with "." or "[]"
	// instead is what a text in the place of a mapping was probably meant as; ""
	// if that is not clear. A text of which it is clear is no secret.
	instead func(v string) string
	// meant is what a node of another kind was probably meant as; "" if that is
	// not clear. May be nil.
	meant  func(n *yaml.Node) string
	sample string // of a reference, how one looks; "" for all else
	schema schema
	read   func(w *walker, at place, into *T)
}

// place is a value in the file. Nothing keeps a pointer into a *T that read was
// given, except references: so lists have their final size before they are read.
type place struct {
	node *yaml.Node
	path string
}

// walker reads the tree and collects what is wrong.
type walker struct {
	src    *source
	keys   []Key           // of the table
	sounds *regexp.Regexp  // names of keys that hold secrets
	plain  map[string]bool // paths of keys that hold none, whatever they sound like: "providers[].endpoints.token"
	faults Faults
}

func (w *walker) fault(at place, format string, args ...any) {
	w.suggest(at, "", format, args...)
}

func (w *walker) suggest(at place, suggestion, format string, args ...any) {
	if len(w.faults) > maxFaults {
		return
	}
	f := w.src.fault(nodePos(at.node), at.path, format, args...)
	f.Suggestion = suggestion
	w.faults = append(w.faults, f)
}

func (w *walker) faultAt(path, format string, args ...any) {
	w.faults = append(w.faults, w.src.faultAt(path, format, args...))
}

// take reads a place that must have a value.
func take[T any](w *walker, s shape[T], at place, into *T) {
	if s.secret && at.node.Kind == yaml.ScalarNode && (s.instead == nil || s.instead(at.node.Value) == "") {
		w.src.hide(at.node)
	}
	switch {
	case at.node.Kind == yaml.AliasNode, at.node.Style&yaml.TaggedStyle != 0: // refused before
	case at.node.Tag == "!!null":
		w.fault(at, "has no value; must be %s", s.want)
	default:
		s.read(w, at, into)
	}
}

// structure refuses what the parser lets through but a reader would not expect,
// in the whole tree. It reports whether the tree can be walked.
func (w *walker) structure(at place, depth int) bool {
	n := at.node
	if depth > maxDepth {
		w.fault(at, "is nested deeper than %d levels", maxDepth)
		return false
	}
	w.src.starts = append(w.src.starts, nodePos(n))
	if n.Kind == yaml.ScalarNode {
		w.src.scalars = append(w.src.scalars, n)
	}
	switch {
	case n.Kind == yaml.AliasNode:
		w.fault(at, `aliases (*) are not allowed; write the value out`)
	case n.Anchor != "":
		w.fault(at, `anchors (&) are not allowed; a text that begins with "&" needs quotes`)
	case n.Style&yaml.TaggedStyle != 0:
		w.fault(at, `tags (!) are not allowed; a text that begins with "!" needs quotes`)
	}
	ok := true
	switch n.Kind {
	case yaml.SequenceNode:
		for i, item := range n.Content {
			ok = w.structure(place{item, index(at.path, i)}, depth+1) && ok
		}
	case yaml.MappingNode:
		ok = w.mappingStructure(at, depth)
	}
	return ok
}

func (w *walker) mappingStructure(at place, depth int) bool {
	ok := true
	seen := map[string]int{}
	for i := 0; i+1 < len(at.node.Content); i += 2 {
		key, value := at.node.Content[i], at.node.Content[i+1]
		here := place{key, join(at.path, key.Value)}
		switch first, dup := seen[key.Value]; {
		case key.Tag == "!!merge":
			w.fault(here, "merge keys (<<) are not allowed; write the fields out")
		case !isText(key) && key.Kind != yaml.AliasNode:
			w.fault(place{key, at.path}, "a key must be text, not %s", describe(key, false))
		case dup:
			w.fault(here, "is already given in line %d", first)
		default:
			seen[key.Value] = key.Line
		}
		if w.sounds.MatchString(key.Value) && !w.plain[anyIndex(here.path)] {
			w.hideBelow(value)
		}
		ok = w.structure(here, depth+1) && ok
		ok = w.structure(place{value, here.path}, depth+1) && ok
	}
	return ok
}

// hideBelow hides all that stands under a key that holds a secret, also under
// one that this release does not know.
func (w *walker) hideBelow(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		w.src.hide(n)
	}
	for _, c := range n.Content {
		w.hideBelow(c)
	}
}

func isText(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!str" }

// describe names what was found, in words.
func describe(n *yaml.Node, secret bool) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	case secret && isText(n):
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
	return quote(n.Value)
}

func (w *walker) expect(at place, kind yaml.Kind, want string, secret bool) bool {
	if at.node.Kind == kind {
		return true
	}
	if secret {
		w.hideBelow(at.node)
	}
	w.fault(at, "must be %s, not %s", want, describe(at.node, secret))
	return false
}

// text reads a text. What YAML takes for a number needs quotes: 0123 and 1e3
// are not what they seem.
func (w *walker) text(at place, want string, secret bool) (string, bool) {
	n := at.node
	if secret {
		w.hideBelow(n)
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag != "!!str" && !secret:
		w.fault(at, "must be %s, not %s; a text needs quotes: %q", want, describe(n, secret), n.Value)
	case !isText(n):
		w.fault(at, "must be %s, not %s", want, describe(n, secret))
	case n.Value == "":
		w.fault(at, "is empty; must be %s", want)
	case !secret && n.Value != strings.TrimSpace(n.Value):
		w.fault(at, "begins or ends with a blank")
	case !secret && strings.ContainsFunc(n.Value, unicode.IsControl):
		w.fault(at, "must be on one line, without control characters")
	default:
		return n.Value, true
	}
	return "", false
}

// unquoted is a complaint about a text that may hold a password.
type unquoted struct{ error }

// parsed stores what parse makes of v. What parse complains of begins with
// "must" and does not repeat v, which is added where it may be shown.
func parsed[T any](w *walker, at place, v string, into *T, parse func(string) (T, error)) {
	x, err := parse(v)
	var slip slip
	switch {
	case err == nil:
		*into = x
	case errors.As(err, &slip):
		w.suggest(at, slip.meant, "%v, not %s%s", err, quote(v), slip.why)
	case errors.As(err, new(unquoted)):
		w.src.secrets = append(w.src.secrets, at.node)
		w.fault(at, "%v", err)
	default:
		w.fault(at, "%v, not %s", err, quote(v))
	}
}

// scalar is one text that parse understands; its complaints are as in parsed.
func scalar[T any](want string, s schema, parse func(string) (T, error)) shape[T] {
	s["type"] = "string"
	return shape[T]{want: want, schema: s, read: func(w *walker, at place, into *T) {
		if v, ok := w.text(at, want, false); ok {
			parsed(w, at, v, into, parse)
		}
	}}
}

// text is any text on one line.
func text(want string) shape[string] {
	return scalar(want, schema{"minLength": 1}, func(v string) (string, error) { return v, nil })
}

// pattern is a text of a certain form.
func pattern(want, form string) shape[string] {
	re := regexp.MustCompile(form)
	return scalar(want, schema{"pattern": form}, func(v string) (string, error) {
		if !re.MatchString(v) {
			return "", fmt.Errorf("must be %s", want)
		}
		return v, nil
	})
}

// oneOf is a text out of a closed list. want may be "".
func oneOf[T ~string](want string, values ...T) shape[T] {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = string(v)
	}
	if want == "" {
		want = orList(names)
	}
	return shape[T]{want: want, schema: schema{"enum": names}, read: func(w *walker, at place, into *T) {
		v, ok := at.node.Value, isText(at.node)
		switch {
		case ok && slices.Contains(names, v):
			*into = T(v)
		case ok:
			w.suggest(at, nearest(v, names), "must be %s, not %s", want, quote(v))
		default:
			w.fault(at, "must be %s, not %s", want, describe(at.node, false))
		}
	}}
}

// onlyTrue is `true`: leaving the key out says the opposite.
func onlyTrue() shape[bool] {
	return shape[bool]{want: "true", schema: schema{"const": true}, read: func(w *walker, at place, into *bool) {
		if *into = at.node.Tag == "!!bool" && at.node.Value == "true"; !*into {
			w.fault(at, "must be true or left out, not %s", describe(at.node, false))
		}
	}}
}

// onlyFalse is `false`, and reads as true: what it switches off is off.
func onlyFalse() shape[bool] {
	return shape[bool]{want: "false", schema: schema{"const": false}, read: func(w *walker, at place, into *bool) {
		if *into = at.node.Tag == "!!bool" && at.node.Value == "false"; !*into {
			w.fault(at, "must be false or left out, not %s", describe(at.node, false))
		}
	}}
}

// number is a whole number in decimal.
func number(lowest, highest int) shape[int] {
	want := fmt.Sprintf("a whole number from %d to %d", lowest, highest)
	if lowest == highest {
		want = fmt.Sprintf("the number %d", lowest)
	}
	s := schema{"type": "integer", "minimum": lowest, "maximum": highest}
	return shape[int]{want: want, schema: s, read: func(w *walker, at place, into *int) {
		v, err := strconv.Atoi(at.node.Value)
		switch inside := err == nil && lowest <= v && v <= highest; {
		case isText(at.node) && inside:
			w.fault(at, "must be %s, without quotes", want)
			return
		case at.node.Tag != "!!int" || !inside:
			w.fault(at, "must be %s, not %s", want, describe(at.node, false))
			return
		}
		*into = v
	}}
}

// duration is a time between two bounds.
func duration(lowest, highest time.Duration) shape[time.Duration] {
	const form = `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	re := regexp.MustCompile(form)
	want := "a duration such as 90s or 12h"
	d := scalarBut(want, schema{"pattern": form}, func(v string) (time.Duration, error) {
		d, err := time.ParseDuration(v)
		if err != nil || !re.MatchString(v) {
			return 0, errors.New("must be " + want + " (the units are h, m, s and ms" + withUnit(v) + ")")
		}
		if d < lowest || d > highest {
			return 0, fmt.Errorf("must be from %s to %s", short(lowest), short(highest))
		}
		return d, nil
	})
	read := d.read
	d.read = func(w *walker, at place, into *time.Duration) {
		if hint := withUnit(at.node.Value); hint != "" && at.node.Kind == yaml.ScalarNode && !isText(at.node) {
			w.fault(at, "must be %s (the units are h, m, s and ms%s), not %s", want, hint, describe(at.node, false))
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

// short writes 720h0m0s as 720h.
func short(d time.Duration) string {
	v := d.String()
	if strings.HasSuffix(v, "m0s") {
		v = strings.TrimSuffix(v, "0s")
	}
	if strings.HasSuffix(v, "h0m") {
		v = strings.TrimSuffix(v, "0m")
	}
	return v
}

// size is a number of bytes between two bounds.
func size(lowest, highest int64) shape[int64] {
	const form = `^[0-9]{1,9}(B|KiB|MiB|GiB)$`
	re := regexp.MustCompile(form)
	want := "a size such as 512B, 64KiB or 1MiB"
	return scalarBut(want, schema{"pattern": form}, func(v string) (int64, error) {
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
func scalarBut[T any](want string, s schema, parse func(string) (T, error)) shape[T] {
	inner := scalar(want, s, parse)
	return shape[T]{want: want, schema: s, read: func(w *walker, at place, into *T) {
		if !isText(at.node) {
			w.fault(at, "must be %s, not %s", want, describe(at.node, false))
			return
		}
		inner.read(w, at, into)
	}}
}

// list is at least lowest places of one shape.
func list[T any](item shape[T], lowest int) shape[[]T] {
	s := schema{"type": "array", "items": item.schema, "minItems": lowest}
	about := "a list of: " + item.describe()
	if item.want == "a mapping" {
		about = "a list of mappings"
	}
	meant := func(n *yaml.Node) string { return listFor(item, n) }
	return shape[[]T]{want: "a list", about: about, secret: item.secret, below: prefixed("[]", item.below), meant: meant,
		schema: s, read: func(w *walker, at place, into *[]T) {
			if listed := listFor(item, at.node); listed != "" {
				w.suggest(at, listed, "must be a list, not %s", describe(at.node, false))
				return
			}
			want := "a list"
			if item.sample != "" {
				want = "a list such as [" + item.sample + "]"
			}
			if !w.expect(at, yaml.SequenceNode, want, item.secret) {
				return
			}
			if len(at.node.Content) < lowest {
				w.fault(at, "must be a list with at least %d entry, not an empty one", lowest)
			}
			*into = make([]T, len(at.node.Content))
			for i, n := range at.node.Content {
				take(w, item, place{n, index(at.path, i)}, &(*into)[i])
			}
		}}
}

// listFor is the list of the one entry that stands in its place; "" if that is
// not clear, or if it may hold a secret.
func listFor[T any](item shape[T], n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode && item.want == "a mapping" && !item.secret:
		return listOf(inline(n, item.below))
	case item.sample != "" && isText(n):
		if meant := meantReference(n.Value); meant != "" {
			return listOf(meant)
		}
		if isReference(n.Value) && !strings.ContainsAny(n.Value, ", []{}\"'#\n") && len(n.Value) <= 60 {
			return listOf(n.Value)
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
	if !isText(n) || n.Value == "" || len(n.Value) > 60 || strings.ContainsAny(n.Value, ",[]{}\"'#:\n") {
		return ""
	}
	return "[" + strings.Join(strings.Fields(n.Value), ", ") + "]"
}

func isReference(v string) bool {
	form, _, complaint := splitRef(v)
	return complaint == "" && form != formLiteral
}

// either is a for a scalar, b for the other kind of node.
func either[T any](want string, a shape[T], other yaml.Kind, b shape[T]) shape[T] {
	s := schema{"anyOf": []any{a.schema, b.schema}}
	return shape[T]{want: want, secret: a.secret || b.secret, below: slices.Concat(a.below, b.below), schema: s, read: func(w *walker, at place, into *T) {
		if at.node.Kind == yaml.ScalarNode {
			a.read(w, at, into)
		} else if at.node.Kind != other && b.meant != nil && b.meant(at.node) != "" {
			w.suggest(at, b.meant(at.node), "must be %s, not %s", want, describe(at.node, false))
		} else if w.expect(at, other, want, a.secret || b.secret) {
			b.read(w, at, into)
		}
	}}
}

// within reads a V into its place in a T.
func within[T, V any](s shape[V], part func(*T) *V) shape[T] {
	return shape[T]{want: s.want, about: s.about, secret: s.secret, below: s.below, instead: s.instead, meant: s.meant, schema: s.schema,
		read: func(w *walker, at place, into *T) { s.read(w, at, part(into)) }}
}

// key is one key of a mapping that becomes a T.
type key[T any] struct {
	name, doc string
	need      bool
	def       string // as YAML; "" if there is none
	shape     shape[T]
}

func field[T, V any](name, doc string, s shape[V], part func(*T) *V) key[T] {
	return key[T]{name: name, doc: doc, shape: within(s, part)}
}

func (k key[T]) required() key[T]     { k.need = true; return k }
func (k key[T]) or(def string) key[T] { k.def = def; return k }

// object is a mapping with known keys.
type object[T any] struct {
	keys []key[T]
	// rivals exclude each other.
	rivals [][]string
	// choices are keys of which exactly one must be there.
	choices []choice
	// some: at least one key must be there.
	some    bool
	instead func(v string) string // as in shape
	// check runs when all below the object is well.
	check func(w *walker, at place, v *T)
}

type choice struct {
	names []string
	none  string // what to say if there is none
}

func (o object[T]) shape() shape[T] {
	secret := slices.ContainsFunc(o.keys, func(k key[T]) bool { return k.shape.secret })
	return shape[T]{want: "a mapping", secret: secret, below: o.below(), instead: o.instead, schema: o.schema(), read: func(w *walker, at place, into *T) {
		if o.instead != nil && at.node.Kind == yaml.ScalarNode && o.instead(at.node.Value) != "" {
			w.suggest(at, o.instead(at.node.Value), "must be a mapping, not %s", describe(at.node, false))
			return
		}
		if !w.expect(at, yaml.MappingNode, "a mapping", secret) {
			return
		}
		before := len(w.faults)
		present := o.readKeys(w, at, into)
		o.checkPresence(w, at, present)
		if o.check != nil && len(w.faults) == before {
			o.check(w, at, into)
		}
	}}
}

// readKeys reads what is there, then the defaults of what is not.
func (o object[T]) readKeys(w *walker, at place, into *T) map[string]*yaml.Node {
	present := map[string]*yaml.Node{}
	for i := 0; i+1 < len(at.node.Content); i += 2 {
		name, value := at.node.Content[i], at.node.Content[i+1]
		if !isText(name) || present[name.Value] != nil {
			continue // refused before
		}
		present[name.Value] = name
		here := join(at.path, name.Value)
		k := slices.IndexFunc(o.keys, func(k key[T]) bool { return k.name == name.Value })
		if k < 0 {
			o.unknown(w, place{name, here}, value)
			continue
		}
		take(w, o.keys[k].shape, place{value, here}, into)
	}
	for _, k := range o.keys {
		if present[k.name] == nil && k.def != "" && !o.rivalPresent(k.name, present) {
			k.shape.read(w, place{parseDefault(k.def), join(at.path, k.name)}, into)
		}
	}
	return present
}

func (o object[T]) names() []string {
	names := make([]string, len(o.keys))
	for i, k := range o.keys {
		names[i] = k.name
	}
	return names
}

func (o object[T]) unknown(w *walker, at place, value *yaml.Node) {
	meant := nearest(at.node.Value, o.names())
	if slices.ContainsFunc(o.keys, func(k key[T]) bool { return k.name == meant && k.shape.secret }) {
		w.hideBelow(value)
	}
	advice, meant := w.unknownField(at, meant)
	w.suggest(at, meant, "unknown field%s", advice)
}

func (o object[T]) rivalPresent(name string, present map[string]*yaml.Node) bool {
	return slices.ContainsFunc(o.rivals, func(names []string) bool {
		return slices.Contains(names, name) && len(inOrder(names, present)) > 0
	})
}

func (o object[T]) checkPresence(w *walker, at place, present map[string]*yaml.Node) {
	for _, k := range o.keys {
		if k.need && present[k.name] == nil {
			w.fault(place{at.node, join(at.path, k.name)}, "is required. %s", k.doc)
		}
	}
	for _, names := range o.rivals {
		w.atMostOne(at, names, present)
	}
	for _, c := range o.choices {
		if w.atMostOne(at, c.names, present) == 0 {
			w.fault(at, "%s", c.none)
		}
	}
	if o.some && len(present) == 0 {
		names := slices.DeleteFunc(o.names(), func(name string) bool { return strings.HasPrefix(name, "insecure_") })
		w.fault(at, "is empty; must have at least one of %s", orList(names))
	}
}

func (w *walker) atMostOne(at place, names []string, present map[string]*yaml.Node) int {
	there := inOrder(names, present)
	if len(there) > 1 {
		second := there[1]
		w.fault(place{present[second], join(at.path, second)}, "cannot stand beside %s; choose one of them", there[0])
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

// parseDefault reads a default of the table; a test reads them all.
func parseDefault(def string) *yaml.Node {
	var doc yaml.Node
	if err := yaml.Load([]byte(def), &doc); err != nil || len(doc.Content) == 0 {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	}
	return doc.Content[0]
}

func quotedList(names []string) string {
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
