package importer

import (
	"errors"
	"io"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// file is a YAML file while it is read.
type file struct {
	*sources
	name   string
	before int // lines of the input that stand before it
	nodes  int // that were looked at
}

// maxNodes bounds what a file with many aliases can make us look at.
const maxNodes = 200_000

var errTooLarge = errors.New("too many nodes")

// readYAML reads each document of a file: an alpha configuration, values of the Helm chart,
// manifests of Kubernetes, a compose file, or a list of arguments.
func (s *sources) readYAML(name, body string) error {
	return s.readDocuments(&file{sources: s, name: name}, body)
}

func (s *sources) readDocuments(f *file, body string) error {
	loader, err := yaml.NewLoader(strings.NewReader(body))
	if err != nil {
		return f.notYAML(err)
	}
	found := false
	for n := 0; ; n++ {
		var doc yaml.Node
		if err := loader.Load(&doc); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return f.notYAML(err)
		}
		if n == 1000 {
			return fault{f.name, f.line(&doc), "has more than 1000 documents"}
		}
		if len(doc.Content) == 0 {
			continue
		}
		known, err := f.document(doc.Content[0])
		if errors.Is(err, errTooLarge) {
			return fault{f.name, 1, "has too many values, or aliases that lead to too many"}
		} else if err != nil {
			return err
		}
		found = found || known
	}
	if !found {
		return fault{f.name, f.before + 1, "is in no form that oauth2-proxy's configuration has: flags, variables, " +
			"TOML, alpha YAML, values of the Helm chart, manifests or a compose file"}
	}
	return nil
}

func (f *file) notYAML(err error) error {
	line := 1
	if bad, ok := errors.AsType[*yaml.LoadError](err); ok {
		line = max(bad.Mark.Line, 1)
	}
	return fault{f.name, f.before + line, "is not YAML (a template is to be rendered first)"}
}

func (f *file) line(n *yaml.Node) int { return f.before + max(n.Line, 1) }

// pair is a key of a mapping and its value.
type pair struct {
	key   string
	at    *yaml.Node
	value *yaml.Node
}

// real follows an alias.
func (f *file) real(n *yaml.Node) *yaml.Node {
	if f.nodes++; f.nodes > maxNodes {
		return nil
	}
	for range 8 {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

// pairs are the keys of a mapping in their order, those that it merges (<<) among them.
func (f *file) pairs(n *yaml.Node) []pair { return f.pairsBelow(n, 0) }

func (f *file) pairsBelow(n *yaml.Node, depth int) []pair {
	n = f.real(n)
	if n == nil || n.Kind != yaml.MappingNode || depth > 4 {
		return nil
	}
	var all []pair
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := f.real(n.Content[i]), f.real(n.Content[i+1])
		switch {
		case key == nil || value == nil:
		case key.Value == "<<" && key.Kind == yaml.ScalarNode:
			own := all
			for _, p := range f.pairsBelow(value, depth+1) {
				if !slices.ContainsFunc(own, func(o pair) bool { return o.key == p.key }) {
					all = append(all, p)
				}
			}
		case key.Kind == yaml.ScalarNode:
			all = append(all, pair{key.Value, n.Content[i], value})
		}
	}
	return all
}

// get is the value of a key below a path; keys are compared as oauth2-proxy's decoder does.
func (f *file) get(n *yaml.Node, path ...string) *yaml.Node {
	for _, key := range path {
		var found *yaml.Node
		for _, p := range f.pairs(n) {
			if strings.EqualFold(p.key, key) {
				found = p.value
			}
		}
		if n = found; n == nil {
			return nil
		}
	}
	return n
}

// items are the entries of a list.
func (f *file) items(n *yaml.Node) []*yaml.Node {
	n = f.real(n)
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	all := make([]*yaml.Node, 0, len(n.Content))
	for _, item := range n.Content {
		if item = f.real(item); item != nil {
			all = append(all, item)
		}
	}
	return all
}

// scalar is a value that is one text, number, or true or false.
func scalar(n *yaml.Node) (string, bool) {
	if n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return "", false
	}
	return n.Value, true
}

// texts is a value as a list of texts: one, or several.
func (f *file) texts(n *yaml.Node) ([]string, bool) {
	if v, ok := scalar(f.real(n)); ok {
		return []string{v}, true
	}
	var all []string
	for _, item := range f.items(n) {
		v, ok := scalar(item)
		if !ok {
			return nil, false
		}
		all = append(all, v)
	}
	return all, len(all) > 0
}

func (f *file) has(n *yaml.Node, keys ...string) bool {
	return slices.ContainsFunc(f.pairs(n), func(p pair) bool { return slices.Contains(keys, p.key) })
}

// document reads one document, if it is of a form that is known.
func (f *file) document(root *yaml.Node) (bool, error) {
	root = f.real(root)
	known := true
	var err error
	switch {
	case root == nil:
	case root.Kind == yaml.SequenceNode:
		var all []word
		for _, item := range f.items(root) {
			v, ok := scalar(item)
			if !ok {
				return false, nil
			}
			all = append(all, word{text: v, line: f.line(item)})
		}
		known = slices.ContainsFunc(all, func(w word) bool { return flagLine.MatchString(w.text) })
		if known {
			f.addFlags(f.name, withoutProgram(all))
		}
	case f.has(root, "kind") && f.has(root, "apiVersion"):
		err = f.manifest(root)
	case f.get(root, "services") != nil && f.get(root, "config") == nil:
		err = f.compose(root)
	case f.has(root, "public_url", "routes"): // one of ours
		known = false
	case f.has(root, "providers", "upstreamConfig", "injectRequestHeaders", "injectResponseHeaders"):
		f.alphaConfig(root, "")
	case f.has(root, chartKeys()...):
		err = f.chartValues(root)
	case f.has(root, "args", "command", "env"):
		err = f.container(root)
	default:
		known = false
		for _, p := range f.pairs(root) { // a chart of which oauth2-proxy's is a part
			if isProxyName(p.key) && p.value.Kind == yaml.MappingNode {
				known, err = true, f.chartValues(p.value)
			}
		}
	}
	if f.nodes > maxNodes {
		err = errTooLarge
	}
	return known, err
}

func isProxyName(s string) bool {
	s = strings.ToLower(s)
	return strings.Contains(s, "oauth2-proxy") || strings.Contains(s, "oauth2_proxy") ||
		strings.Contains(s, "oauth2proxy")
}

// withoutProgram leaves out what stands before the flags: the program itself.
func withoutProgram(all []word) []word {
	for i, w := range all {
		switch base := w.text[strings.LastIndex(w.text, "/")+1:]; {
		case flagLine.MatchString(w.text):
			return all[i:]
		case !isProxyName(w.text) && !slices.Contains([]string{"--", "exec", "tini", "dumb-init"}, base):
			return all
		}
	}
	return nil
}

// embedded is a file within a file: where a block of text stands literally, lines are known.
func (f *file) embedded(n *yaml.Node) (body string, before int) {
	if n.Style&yaml.LiteralStyle != 0 {
		return n.Value, f.line(n)
	}
	return n.Value, f.line(n) - 1
}
