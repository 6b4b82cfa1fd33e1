package yamltable

import (
	"maps"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// Entry is one key of a mapping that becomes a T.
type Entry[T any] struct {
	name, doc string
	need      bool
	narrows   bool
	def       string // as YAML; "" if there is none
	shape     Shape[T]
}

// Required makes a key one that must be there.
func (k Entry[T]) Required() Entry[T] { k.need = true; return k }

// Narrows makes a key one that says nothing without another: it is not named where at
// least one key is missing.
func (k Entry[T]) Narrows() Entry[T] { k.narrows = true; return k }

// Or gives a key its default, as YAML.
func (k Entry[T]) Or(def string) Entry[T] { k.def = def; return k }

// Field is a key of a mapping: its name, what the reference says of it, what may
// stand there, and its part of a T.
func Field[T, V any](name, doc string, s Shape[V], part func(*T) *V) Entry[T] {
	return Entry[T]{name: name, doc: doc, shape: Within(s, part)}
}

// Object is a mapping with known keys.
type Object[T any] struct {
	Keys []Entry[T]
	// rivals exclude each other.
	Rivals [][]string
	// choices are keys of which exactly one must be there.
	Choices []Choice
	// Conditional is a key that, if a mapping stands there, excludes neither its Rivals nor
	// the rest of its Choice.
	Conditional string
	// some: at least one key must be there.
	Some    bool
	Instead func(v string) string // as in shape
	// check runs when all below the object is well.
	Check func(w *Walker, at Place, v *T)
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
			o.checkPresence(w, at, o.exclusive(at.Node, present), present)
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

// exclusive are those of the keys that are present to which what is said about rivals
// applies.
func (o Object[T]) exclusive(n *yaml.Node, present map[string]*yaml.Node) map[string]*yaml.Node {
	name := present[o.Conditional]
	if i := slices.Index(n.Content, name); name == nil || n.Content[i+1].Kind != yaml.MappingNode {
		return present
	}
	rest := maps.Clone(present)
	delete(rest, o.Conditional)
	return rest
}

func (o Object[T]) checkPresence(w *Walker, at Place, exclusive, present map[string]*yaml.Node) {
	for _, k := range o.Keys {
		if k.need && present[k.name] == nil {
			w.Fault(Place{at.Node, Join(at.Path, k.name)}, "is required. %s", k.doc)
		}
	}
	for _, names := range o.Rivals {
		w.atMostOne(at, names, exclusive)
	}
	for _, c := range o.Choices {
		if w.atMostOne(at, c.Names, exclusive); len(inOrder(c.Names, present)) == 0 {
			w.Fault(at, "%s", c.None)
		}
	}
	if o.Some && len(present) == 0 {
		var names []string
		for _, k := range o.Keys {
			if !k.narrows && !strings.HasPrefix(k.name, "insecure_") {
				names = append(names, k.name)
			}
		}
		w.Fault(at, "is empty; must have at least one of %s", orList(names))
	}
}

// Choice are keys of which exactly one must be there.
type Choice struct {
	Names []string
	None  string // what to say if there is none
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

func (w *Walker) atMostOne(at Place, names []string, present map[string]*yaml.Node) {
	there := inOrder(names, present)
	if len(there) > 1 {
		second := there[1]
		w.Fault(Place{present[second], Join(at.Path, second)}, "cannot stand beside %s; choose one of them", there[0])
	}
}
