package yamltable

import (
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// List is at least lowest places of one shape.
func List[T any](item Shape[T], lowest int) Shape[[]T] {
	s := Schema{"type": "array", "items": item.Schema, "minItems": lowest}
	about := "a list of: " + item.traits().describe()
	if item.Want == "a mapping" {
		about = "a list of mappings"
	}
	meant := func(n *yaml.Node) string { return listFor(item, n) }
	return Shape[[]T]{Want: "a list", About: about, secret: item.secret, guarded: item.guarded,
		below: prefixed("[]", item.below), meant: meant, Schema: s, Read: func(w *Walker, at Place, into *[]T) {
			if listed := listFor(item, at.Node); listed != "" {
				w.Suggest(at, listed, "must be a list, not %s", describe(at.Node, false))
				return
			}
			want := "a list"
			if item.sample != "" {
				want = "a list such as [" + item.sample + "]"
			}
			if at.Node.Kind == yaml.MappingNode && item.Want == "a mapping" {
				if item.secret || item.guarded {
					w.hideBelow(at.Node)
				}
				w.Fault(at, "must be %s, not a mapping; each entry of a list begins with a dash", want)
				return
			}
			if !w.Expect(at, yaml.SequenceNode, want, item.secret || item.guarded) {
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
	case item.secret, item.Want == "a mapping":
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

// ListOf is the list of one entry; "" of none.
func ListOf(entry string) string {
	if entry == "" {
		return ""
	}
	return "[" + entry + "]"
}
