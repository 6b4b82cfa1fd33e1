package yamltable

import (
	"slices"
	"strings"
)

// unknownField says where a key that is not known here belongs. meant is the key
// beside it of which it is a slip, if there is one.
func (w *Walker) unknownField(at Place, meant string) (advice, suggestion string) {
	name := at.Node.Value
	if meant != "" {
		return "", meant
	}
	if here := w.elsewhere[OneWord(name)]; here != "" {
		if _, beside := cutLast(at.Path); slices.ContainsFunc(w.keys,
			func(k Key) bool { return anyIndex(beside+here) == k.Path }) {
			return "", here
		}
		return "; what you want is " + here, ""
	}
	var elsewhere []string
	for _, k := range w.keys {
		if k.Name() == name && len(elsewhere) < 3 {
			elsewhere = append(elsewhere, k.Path)
		}
	}
	if elsewhere != nil {
		return "; it belongs at " + orList(elsewhere), ""
	}
	return "", ""
}

// OneWord is a key without what divides its words.
func OneWord(name string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
}

// cutLast divides a path before its last key: "routes[0]." and "pth".
func cutLast(path string) (last, before string) {
	i := strings.LastIndexByte(path, '.')
	return path[i+1:], path[:i+1]
}
