package yamltable

import (
	"maps"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// Entry is one key of a mapping that becomes a T.
type Entry[T any] struct {
	*entry
	read func(w *Walker, at Place, into *T)
}

// entry is what is told of a key, whatever the mapping becomes.
type entry struct {
	name, doc string
	need      bool
	narrows   bool
	def       string // as YAML; "" if there is none
	shape     traits
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
	return Entry[T]{&entry{name: name, doc: doc, shape: s.traits()}, within(s.Read, part)}
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
	// Unknown advises those who write a key that there is not; "" if nothing is clear. It may be
	// nil, and comes before what is known of all keys.
	Unknown func(key string) string
	// check runs when all below the object is well.
	Check func(w *Walker, at Place, v *T)
}

// Shape is the mapping as a shape.
func (o Object[T]) Shape() Shape[T] {
	m := &mapping{rivals: o.Rivals, choices: o.Choices, conditional: o.Conditional, some: o.Some, instead: o.Instead,
		strange: o.Unknown}
	for _, k := range o.Keys {
		m.keys = append(m.keys, k.entry)
		m.secret = m.secret || k.shape.secret
	}
	return Shape[T]{Want: "a mapping", secret: m.secret, below: m.below(), instead: o.Instead, Schema: m.schema(),
		Read: func(w *Walker, at Place, into *T) {
			whole := m.read(w, at, func(k int, at Place) { o.Keys[k].read(w, at, into) })
			if whole && o.Check != nil {
				o.Check(w, at, into)
			}
		}}
}

// mapping is an Object, whatever it becomes: what is here is compiled once, and not for each.
type mapping struct {
	keys        []*entry
	rivals      [][]string
	choices     []Choice
	conditional string
	some        bool
	instead     func(v string) string
	strange     func(key string) string // Object.Unknown
	secret      bool                    // there is a secret below it
}

// read reads what stands at a place, key by key, and reports whether nothing is wrong with it.
func (m *mapping) read(w *Walker, at Place, key func(k int, at Place)) bool {
	if m.instead != nil && at.Node.Kind == yaml.ScalarNode && m.instead(at.Node.Value) != "" {
		w.Suggest(at, m.instead(at.Node.Value), "must be a mapping, not %s", describe(at.Node, false))
		return false
	}
	if !w.Expect(at, yaml.MappingNode, "a mapping", m.secret) {
		return false
	}
	before := len(w.faults)
	present := m.readKeys(w, at, key)
	m.checkPresence(w, at, m.exclusive(at.Node, present), present)
	return len(w.faults) == before
}

// readKeys reads what is there, then the defaults of what is not.
func (m *mapping) readKeys(w *Walker, at Place, key func(k int, at Place)) map[string]*yaml.Node {
	present := map[string]*yaml.Node{}
	for i := 0; i+1 < len(at.Node.Content); i += 2 {
		name, value := at.Node.Content[i], at.Node.Content[i+1]
		if !IsText(name) || present[name.Value] != nil {
			continue // refused before
		}
		present[name.Value] = name
		here := Place{value, Join(at.Path, name.Value)}
		k := slices.IndexFunc(m.keys, func(k *entry) bool { return k.name == name.Value })
		if k < 0 {
			m.unknown(w, Place{name, here.Path}, value)
		} else if m.keys[k].shape.admits(w, here) {
			key(k, here)
		}
	}
	for i, k := range m.keys {
		if present[k.name] == nil && k.def != "" && !m.rivalPresent(k.name, present) {
			key(i, Place{Default(k.def), Join(at.Path, k.name)})
		}
	}
	return present
}

func (m *mapping) names() []string {
	names := make([]string, len(m.keys))
	for i, k := range m.keys {
		names[i] = k.name
	}
	return names
}

func (m *mapping) unknown(w *Walker, at Place, value *yaml.Node) {
	meant := Nearest(at.Node.Value, m.names())
	if slices.ContainsFunc(m.keys, func(k *entry) bool { return k.name == meant && k.shape.secret }) {
		w.hideBelow(value)
	}
	if m.strange != nil && meant == "" {
		if advice := m.strange(at.Node.Value); advice != "" {
			w.Fault(at, "unknown field; %s", advice)
			return
		}
	}
	advice, meant := w.unknownField(at, meant)
	w.Suggest(at, meant, "unknown field%s", advice)
}

func (m *mapping) rivalPresent(name string, present map[string]*yaml.Node) bool {
	return slices.ContainsFunc(m.rivals, func(names []string) bool {
		return slices.Contains(names, name) && len(inOrder(names, present)) > 0
	})
}

// exclusive are those of the keys that are present to which what is said about rivals
// applies.
func (m *mapping) exclusive(n *yaml.Node, present map[string]*yaml.Node) map[string]*yaml.Node {
	name := present[m.conditional]
	if i := slices.Index(n.Content, name); name == nil || n.Content[i+1].Kind != yaml.MappingNode {
		return present
	}
	rest := maps.Clone(present)
	delete(rest, m.conditional)
	return rest
}

func (m *mapping) checkPresence(w *Walker, at Place, exclusive, present map[string]*yaml.Node) {
	for _, k := range m.keys {
		if k.need && present[k.name] == nil {
			w.Fault(Place{at.Node, Join(at.Path, k.name)}, "is required. %s", k.doc)
		}
	}
	for _, names := range m.rivals {
		w.atMostOne(at, names, exclusive)
	}
	for _, c := range m.choices {
		if w.atMostOne(at, c.Names, exclusive); len(inOrder(c.Names, present)) == 0 {
			w.Fault(at, "%s", c.None)
		}
	}
	if m.some && len(present) == 0 {
		var names []string
		for _, k := range m.keys {
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
