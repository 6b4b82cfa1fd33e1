package yamltable

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	yaml "go.yaml.in/yaml/v4"
)

// Shape says what may stand at one place of the file. It reads the place into a
// T and describes itself for the schema, so that the two cannot drift apart.
type Shape[T any] struct {
	Want   string // in words: what a place of this shape must be
	About  string // the same for the reference, where it can say more
	secret bool   // holds a secret, or something below it does
	// plainText: a text in its place is read as one that is no secret, whatever a mapping or
	// list there may hold.
	plainText bool
	// guarded: holds no secret as it should be, but what is no reference there may be one, such
	// as a private key in the place of a public one.
	guarded bool
	below   []Key // the keys below it; their paths begin with "." or "[]"
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

// traits are what a Shape says of itself, whatever it reads.
type traits struct {
	want, about       string
	secret, plainText bool
	below             []Key
	instead           func(v string) string
	schema            Schema
}

func (s Shape[T]) traits() traits {
	return traits{s.Want, s.About, s.secret, s.plainText, s.below, s.instead, s.Schema}
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
	if s.traits().admits(w, at) {
		s.Read(w, at, into)
	}
}

// admits reports whether there is something to read at a place, and hides it if it may be a
// secret.
func (t traits) admits(w *Walker, at Place) bool {
	if t.secret && !t.plainText && at.Node.Kind == yaml.ScalarNode &&
		(t.instead == nil || t.instead(at.Node.Value) == "") {
		w.src.hide(at.Node)
	}
	switch {
	case at.Node.Kind == yaml.AliasNode, at.Node.Style&yaml.TaggedStyle != 0: // refused before
		return false
	case at.Node.Tag == "!!null":
		w.Fault(at, "has no value; must be %s", t.want)
		return false
	}
	return true
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

// Either is a for a scalar, b for the other kind of node.
func Either[T any](want string, a Shape[T], other yaml.Kind, b Shape[T]) Shape[T] {
	s := Schema{"anyOf": []any{a.Schema, b.Schema}}
	secret, guarded := a.secret || b.secret, a.guarded || b.guarded
	return Shape[T]{Want: want, secret: secret, plainText: !a.secret, guarded: guarded,
		below: slices.Concat(a.below, b.below), Schema: s, Read: func(w *Walker, at Place, into *T) {
			if at.Node.Kind == yaml.ScalarNode {
				a.Read(w, at, into)
			} else if at.Node.Kind != other && b.meant != nil && b.meant(at.Node) != "" {
				w.Suggest(at, b.meant(at.Node), "must be %s, not %s", want, describe(at.Node, false))
			} else if w.Expect(at, other, want, secret || guarded) {
				b.Read(w, at, into)
			}
		}}
}

// Within reads a V into its place in a T.
func Within[T, V any](s Shape[V], part func(*T) *V) Shape[T] {
	return Shape[T]{Want: s.Want, About: s.About, secret: s.secret, plainText: s.plainText, guarded: s.guarded,
		below: s.below, instead: s.instead, meant: s.meant, Schema: s.Schema, Read: within(s.Read, part)}
}

func within[T, V any](read func(*Walker, Place, *V), part func(*T) *V) func(*Walker, Place, *T) {
	return func(w *Walker, at Place, into *T) { read(w, at, part(into)) }
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
