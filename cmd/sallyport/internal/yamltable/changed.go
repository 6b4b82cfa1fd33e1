package yamltable

import (
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// Files are the paths that the document's references name: those of files and of
// directories.
func (d Document) Files() []string {
	var paths []string
	for _, p := range d.open().pending {
		if p.ref.form == FormFile || p.ref.form == FormDir {
			paths = append(paths, p.ref.arg)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// Changed are the keys at the top of either document whose values differ, or what
// the references below them stand for. Comments and layout do not count.
func (d Document) Changed(before Document) []string {
	now, was := d.open().sums(), before.open().sums()
	var keys []string
	for key, sum := range now {
		if was[key] != sum {
			keys = append(keys, key)
		}
	}
	for key := range was {
		if _, still := now[key]; !still {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// sums are of what stands at each key at the top, and of what it refers to.
func (s *source) sums() map[string][sha256.Size]byte {
	sums := map[string][sha256.Size]byte{}
	if s.root == nil || s.root.Kind != yaml.MappingNode {
		return sums
	}
	for i := 0; i+1 < len(s.root.Content); i += 2 {
		key, h := s.root.Content[i].Value, sha256.New()
		writeNode(h, s.root.Content[i+1])
		for _, p := range s.pending {
			rest, below := strings.CutPrefix(p.path, key)
			if !below || (rest != "" && rest[0] != '.' && rest[0] != '[') {
				continue
			}
			for _, l := range p.ref.loaded {
				fmt.Fprintf(h, "%q %q %q\n", p.path, l.file, l.value)
			}
		}
		sums[key] = [sha256.Size]byte(h.Sum(nil))
	}
	return sums
}

func writeNode(w io.Writer, n *yaml.Node) {
	fmt.Fprintf(w, "%d %q %q %d\n", n.Kind, n.ShortTag(), n.Value, len(n.Content))
	for _, below := range n.Content {
		writeNode(w, below)
	}
}
