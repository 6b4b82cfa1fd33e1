// Package yamltable reads a strict YAML file by a table, and says everything that
// is wrong with it at its line.
//
// A table is a Shape: what may stand at a place, in words for people, as a JSON
// Schema for editors, and as the function that reads it, so that the three cannot
// drift apart. The room owns what is strict (no duplicate keys, anchors, tags or
// second documents), faults with their excerpts, what an excerpt must mask, and the
// forms of references to values that stand elsewhere (env:, file:, dir:, literal:).
// It knows no key of any file: names, meanings and what goes together are its
// neighbour's, config.
package yamltable

import (
	"regexp"
	"slices"

	yaml "go.yaml.in/yaml/v4"
)

// Document is a file as it was read. It stays with what was read from it, for
// faults that are found later; printed, it shows nothing.
type Document struct{ sealed[source] }

// Open takes the text of a file; name is for messages.
func Open(name string, data []byte) Document { return Document{seal(newSource(name, data))} }

// Read reads the document into a T by its table. The faults are all that can be
// found without looking anywhere else; cross, which finds what is wrong between
// parts that are each well, is asked only if the document can be walked. elsewhere
// is what stands here for keys of other programs, by their names in lower case
// without "-" and "_".
func Read[T any](d Document, table Shape[T], elsewhere map[string]string, into *T, cross func() Faults) Faults {
	src, keys := d.open(), Keys(table)
	src.plain = plainNames(keys)
	if src.tooLong {
		return src.finish(Faults{src.fault(pos{1, 1}, "", "the file is larger than 1 MiB")})
	}
	root, fault := src.load()
	if fault != nil {
		return src.finish(Faults{*fault})
	}
	src.root = root
	w := &Walker{src: src, sounds: regexp.MustCompile(`(?i)` + secretWords), keys: keys, plain: plainPaths(keys),
		elsewhere: elsewhere}
	sound := w.structure(Place{root, ""}, 1)
	slices.SortFunc(src.starts, comparePos)
	slices.SortStableFunc(src.scalars, func(a, b *yaml.Node) int { return comparePos(nodePos(a), nodePos(b)) })
	if sound {
		Take(w, table, Place{root, ""}, into)
		w.faults = append(w.faults, cross()...)
	}
	return src.finish(w.faults)
}

// Finish puts faults in the order of the file, cuts an endless list, and adds the
// excerpts.
func (d Document) Finish(fs Faults) Faults { return d.open().finish(fs) }

// FaultAt makes a Fault at the value of path, or at what would hold it.
func (d Document) FaultAt(path, format string, args ...any) Fault {
	return d.open().faultAt(path, format, args...)
}

// FaultIn makes a Fault at a place.
func (d Document) FaultIn(at Place, format string, args ...any) Fault {
	return d.open().fault(nodePos(at.Node), at.Path, format, args...)
}

// Has reports whether the file has a value at path.
func (d Document) Has(path string) bool { return d.open().has(path) }

// Marked are the places that Walker.Mark was told of.
func (d Document) Marked() []Place { return d.open().marked }

// Mark remembers a place for Document.Marked.
func (w *Walker) Mark(at Place) { w.src.marked = append(w.src.marked, at) }

// Has reports whether the file has a value at path.
func (w *Walker) Has(path string) bool { return w.src.has(path) }
