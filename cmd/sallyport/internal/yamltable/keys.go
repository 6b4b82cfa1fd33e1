package yamltable

import (
	"cmp"
	"slices"
	"strings"
)

// Key is one key of a table, for the reference and for advice about keys in
// the wrong place.
type Key struct {
	Path     string // "providers[].endpoints.token"
	Type     string // what it must be, in words
	Default  string // as YAML; "" if it has none
	Required bool
	OneOf    []string // the keys beside it, itself among them, of which exactly one must be there
	Doc      string
	secret   bool // it holds a secret, or something below it does
}

// Keys are all keys of a table, in its order.
func Keys[T any](table Shape[T]) []Key {
	keys := slices.Clone(table.below)
	for i := range keys {
		keys[i].Path = strings.TrimPrefix(keys[i].Path, ".")
	}
	return keys
}

// describe is what a place of this shape must be, for the reference.
func (t traits) describe() string { return cmp.Or(t.about, t.want) }

// below lists the keys of an object, each followed by the keys below it.
func (m *mapping) below() []Key {
	var keys []Key
	for _, k := range m.keys {
		self := Key{Path: "." + k.name, Type: k.shape.describe(), Default: k.def, Required: k.need, Doc: k.doc,
			secret: k.shape.secret}
		for _, c := range m.choices {
			if slices.Contains(c.Names, k.name) {
				self.OneOf = c.Names
			}
		}
		keys = append(keys, self)
		keys = append(keys, prefixed(self.Path, k.shape.below)...)
	}
	return keys
}

func prefixed(prefix string, keys []Key) []Key {
	out := slices.Clone(keys)
	for i := range out {
		out[i].Path = prefix + out[i].Path
	}
	return out
}

// plainPaths are the paths of all keys that hold no secret.
func plainPaths(keys []Key) map[string]bool {
	plain := map[string]bool{}
	for _, k := range keys {
		if !k.secret {
			plain[k.Path] = true
		}
	}
	return plain
}

// plainNames are the names of keys that hold no secret, wherever they stand.
func plainNames(keys []Key) []string {
	var names []string
	for _, k := range keys {
		if !k.secret {
			names = append(names, k.Name())
		}
	}
	return names
}

// Name is the key without the path to it.
func (k Key) Name() string { return k.Path[strings.LastIndexByte(k.Path, '.')+1:] }

// anyIndex is a path as Keys has it: "routes[2].path" is "routes[].path".
func anyIndex(path string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(path, "[")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		out.WriteByte('[')
		path = strings.TrimLeft(after, "0123456789")
	}
}
