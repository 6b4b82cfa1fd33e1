package yamltable

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v4"
)

const (
	MaxFile  = 1 << 20 // P17: nobody writes a larger one by hand
	MaxDir   = 100     // files of a directory of secrets: more are another directory by mistake
	maxDepth = 32
	maxShown = 4096 // bytes of a line that an excerpt shows at all
)

// source is the file as it was read: what faults point at.
type source struct {
	name    string
	lines   []string
	root    *yaml.Node   // nil if the file is not YAML
	starts  []pos        // where each node begins
	scalars []*yaml.Node // in the order of the file
	secrets []*yaml.Node // what no excerpt may show
	pending []pending    // references that Resolve reads

	marked  []Place  // what the table's owner wants to come back to
	plain   []string // names of keys that hold no secret
	tooLong bool
}

type pos struct{ line, column int }

func comparePos(a, b pos) int {
	return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
}

func nodePos(n *yaml.Node) pos { return pos{max(n.Line, 1), max(n.Column, 1)} }

func newSource(name string, data []byte) *source {
	text := strings.TrimPrefix(string(data), "\ufeff")
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], "\r")
	}
	return &source{name: name, lines: lines, tooLong: len(data) > MaxFile}
}

// fault makes a Fault at p, without its excerpt: what that must hide is only
// known when all has been read.
func (s *source) fault(p pos, path, format string, args ...any) Fault {
	p.line = min(p.line, len(s.lines))
	return Fault{File: s.name, Line: p.line, Column: p.column, Path: path, Message: fmt.Sprintf(format, args...)}
}

// finish puts faults in the order of the file, cuts an endless list, and adds
// the excerpts.
func (s *source) finish(fs Faults) Faults {
	slices.SortStableFunc(fs, func(a, b Fault) int { return comparePos(pos{a.Line, a.Column}, pos{b.Line, b.Column}) })
	if len(fs) > MaxFaults {
		fs = fs[:MaxFaults]
		fs[MaxFaults-1].Message += fmt.Sprintf(" (only the first %d faults are shown)", MaxFaults)
	}
	var hidden map[int][]span
	for i, f := range fs {
		if i == 0 || f.Line != fs[i-1].Line { // a line may have all of them
			hidden = s.hidden(s.around(f.Line))
		}
		fs[i].Excerpt = s.excerpt(f.Line, f.Column, hidden)
	}
	return fs
}

// faultAt makes a Fault at the value of path, or at what would hold it.
func (s *source) faultAt(path, format string, args ...any) Fault {
	n, _ := s.find(path)
	p := pos{1, 1}
	if n != nil {
		p = nodePos(n)
	}
	return s.fault(p, path, format, args...)
}

// find returns the node of path, or the innermost one around it.
func (s *source) find(path string) (n *yaml.Node, exact bool) {
	return findIn(s.root, "", path)
}

func (s *source) has(path string) bool {
	_, exact := s.find(path)
	return exact
}

func findIn(n *yaml.Node, at, path string) (*yaml.Node, bool) {
	if n == nil || at == path {
		return n, n != nil
	}
	leads := func(to string) bool {
		rest, ok := strings.CutPrefix(path, to)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if to := Join(at, n.Content[i].Value); leads(to) {
				return findIn(n.Content[i+1], to, path)
			}
		}
	case yaml.SequenceNode:
		// The path says which entry it is. Trying one after the other would take the square of
		// the length of a list: 10 s for 5,000 routes.
		rest, _ := strings.CutPrefix(path, at+"[")
		number, _, _ := strings.Cut(rest, "]")
		if i, err := strconv.Atoi(number); err == nil && i >= 0 && i < len(n.Content) && leads(Index(at, i)) {
			return findIn(n.Content[i], Index(at, i), path)
		}
	}
	return n, false
}

// Index adds the index of a list's entry to a path.
func Index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// Join adds a key to a path; a key that is no plain word is quoted and cut.
func Join(path, key string) string {
	if key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" ||
		len(key) > 64 {
		return path + "[" + Quote(key) + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// load parses the text into its one document, or says why it cannot.
func (s *source) load() (*yaml.Node, *Fault) {
	if f := s.checkText(); f != nil {
		return nil, f
	}
	loader, err := yaml.NewLoader(bytes.NewReader([]byte(strings.Join(s.lines, "\n") + "\n")))
	if err != nil {
		return nil, s.syntaxFault(err)
	}
	var doc, second yaml.Node
	if err := loader.Load(&doc); errors.Is(err, io.EOF) || (err == nil && len(doc.Content) == 0) {
		return nil, new(s.fault(pos{1, 1}, "", "the file is empty"))
	} else if err != nil {
		return nil, s.syntaxFault(err)
	}
	if err := loader.Load(&second); err == nil {
		return nil, new(s.fault(nodePos(&second), "", "a second document begins here; the file must be one document"))
	} else if !errors.Is(err, io.EOF) {
		return nil, s.syntaxFault(err)
	}
	return doc.Content[0], nil
}

// checkText refuses what a reader could not see, before YAML gives it meaning:
// the parser names no place for it, and counts some of it as line breaks.
func (s *source) checkText() *Fault {
	for i, line := range s.lines {
		column := 0
		for at, r := range line {
			column++
			if r == utf8.RuneError {
				if _, size := utf8.DecodeRuneInString(line[at:]); size == 1 {
					return new(s.fault(pos{i + 1, column}, "", "the file is not UTF-8 text"))
				}
			}
			if (unicode.IsControl(r) && r != '\t') || r == '\u2028' || r == '\u2029' || r == '\ufeff' {
				return new(s.fault(pos{i + 1, column}, "", "an invisible control character (%U)", r))
			}
		}
	}
	return nil
}

// syntaxFault tells where the file stops being YAML. Of the parser's words only
// those are repeated that cannot hold a piece of the file.
func (s *source) syntaxFault(err error) *Fault {
	var le *yaml.LoadError
	if !errors.As(err, &le) {
		return new(s.fault(pos{1, 1}, "", "not YAML"))
	}
	p := pos{max(le.Mark.Line, 1), max(le.Mark.Column, 1)}
	blank := s.oddBlank(max(le.ContextMark.Line, p.line-1, 1), p.line)
	switch {
	case strings.HasPrefix(le.Message, "unknown anchor"):
		return new(s.fault(p, "", `aliases (*) are not allowed; a text that begins with "*" needs quotes`))
	case le.Message == "found unexpected end of stream" && le.ContextMark.Line > 0:
		begins := pos{le.ContextMark.Line, max(le.ContextMark.Column, 1)}
		return new(s.fault(begins, "", "not YAML: what begins here has no end"))
	case s.runeAt(p) == '\t':
		return new(s.fault(p, "", "not YAML: a tab cannot indent; use spaces"))
	case blank != pos{}:
		return new(s.fault(blank, "", "not YAML: a blank of another kind (%U) stands here, as text from a web page or "+
			"a chat has it; type a plain one", s.runeAt(blank)))
	case le.Message == "mapping values are not allowed in this context":
		return new(s.fault(p, "", `not YAML: a key cannot stand here; check the indentation, `+
			`and put a text with ": " in quotes`))
	case le.Stage != "scanner" && le.Stage != "parser" && le.Stage != "reader":
		return new(s.fault(p, "", "not YAML"))
	}
	context := ""
	if le.ContextMsg != "" && le.ContextMark.Line > 0 && le.ContextMark.Line != p.line {
		context = fmt.Sprintf(" (%s that begins at line %d)", le.ContextMsg, le.ContextMark.Line)
	}
	return new(s.fault(p, "", "not YAML: %s%s", le.Message, context))
}

// oddBlank finds what looks like a blank in the lines from first to last and is none to
// YAML, such as a no-break space; the zero pos if there is none.
func (s *source) oddBlank(first, last int) pos {
	for n := first; n <= min(last, len(s.lines)); n++ {
		column := 0
		for _, r := range s.lines[n-1] {
			column++
			if r > unicode.MaxASCII && unicode.IsSpace(r) {
				return pos{n, column}
			}
		}
	}
	return pos{}
}

func (s *source) runeAt(p pos) rune {
	if p.line <= len(s.lines) {
		if line := []rune(s.lines[p.line-1]); p.column <= len(line) {
			return line[p.column-1]
		}
	}
	return 0
}

// What stands for a secret.
const masked = "<secret>"

// span is a part of one line, in characters from 1; to is excluded.
type span struct{ from, to int }

// hide keeps a value out of every excerpt, unless it only names where a secret is.
func (s *source) hide(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		if form, _, complaint := SplitRef(n.Value); complaint == "" && form != "literal" {
			return
		}
		if MeantReference(n.Value) != "" {
			return
		}
	}
	s.secrets = append(s.secrets, n)
}

// hidden returns what not to show of the lines from first to last. It errs on
// the side of hiding.
func (s *source) hidden(first, last int) map[int][]span {
	out := map[int][]span{}
	if s.root == nil {
		s.hideRoughly(out, first, last)
	}
	for _, n := range s.secrets {
		s.hideNode(out, n, first, last)
	}
	for n := first; n <= last; n++ {
		line := s.lines[n-1]
		if len(line) > maxShown {
			out[n] = []span{{1, len(line) + 1}}
			continue
		}
		for _, part := range s.parts(n) {
			for _, secret := range secretSpans(line[part.from:part.to]) {
				out[n] = append(out[n], span{utf8.RuneCountInString(line[:part.from+secret.from]) + 1,
					utf8.RuneCountInString(line[:part.from+secret.to]) + 1})
			}
		}
		out[n] = merge(out[n])
	}
	return out
}

// parts divides a line, in bytes from 0, into the texts that stand there as they
// are and what is between them: where the end of a text is known, what looks like
// a secret in it ends there too, and the rest of the line is shown.
func (s *source) parts(n int) []span {
	line := s.lines[n-1]
	var parts []span
	done := 0
	at, _ := slices.BinarySearchFunc(s.scalars, n, func(node *yaml.Node, n int) int {
		return cmp.Compare(node.Line, n)
	})
	for ; at < len(s.scalars) && s.scalars[at].Line == n; at++ {
		node := s.scalars[at]
		text, ok := literally(line, node.Column, node)
		if !ok {
			continue
		}
		from, to := len(cut(line, text.from)), len(cut(line, text.to))
		if from < done {
			continue
		}
		if quoted := line[from] == '"' || line[from] == '\''; quoted && to-from > 1 {
			from, to = from+1, to-1
		}
		parts = append(parts, span{done, from}, span{from, to})
		done = to
	}
	return append(parts, span{done, len(line)})
}

// secretLooks tell by its look what is secret wherever it stands, in their
// second group: literal secrets, users and passwords in URLs, secrets in
// comments, and those glued to their key (`client_secret:abc`).
func secretLooks() []*regexp.Regexp {
	return []*regexp.Regexp{
		regexp.MustCompile(`(literal:)(\S.*)()`),
		regexp.MustCompile(`(://)(\S+)(@)`),
		regexp.MustCompile(`([\w.+-]:)([^\s/@]\S*)(@)`),
		regexp.MustCompile(`(?i)((?:` + secretWords + `)[\w-]*["']?[:=])([^\s:=].*)()`),
		regexp.MustCompile(`(?i)(#.*(?:` + secretWords + `)[\w-]*["']?\s*[:=]\s*)(\S.*)()`),
	}
}

// secretSpans returns what of text looks secret, in bytes from 0, in order and apart from each
// other. The port of a URL is not glued to a key, as in http://keycloak:8080.
func secretSpans(text string) []span {
	port := regexp.MustCompile(`(://[\w.-]+):([0-9]{1,5}(?:[/?#"'\s,\]}]|$))`)
	text = port.ReplaceAllString(text, "${1}/${2}") // as long as it was
	var out []span
	for _, look := range secretLooks() {
		for _, m := range look.FindAllStringSubmatchIndex(text, -1) {
			out = append(out, span{m[4], m[5]})
		}
	}
	return merge(out)
}

// secretWords are found in the names of keys that hold secrets, also in names
// that this release does not know.
const secretWords = `secr|passw|pwd|token|key|cred|cookie|priv`

func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(a.from-b.from, b.to-a.to) })
	var out []span
	for _, sp := range spans {
		if n := len(out); n > 0 && sp.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, sp.to)
		} else {
			out = append(out, sp)
		}
	}
	return out
}

// hideNode hides n in the lines from first to last: exactly, where it stands on
// one line as it is, else all up to where the next node begins.
func (s *source) hideNode(out map[int][]span, n *yaml.Node, first, last int) {
	from := nodePos(n)
	if from.line > last {
		return
	}
	line := s.lines[from.line-1]
	if exact, ok := literally(line, from.column, n); ok {
		out[from.line] = append(out[from.line], exact)
		return
	}
	to := s.after(n)
	if to.line == from.line {
		out[from.line] = append(out[from.line], span{from.column, to.column})
		return
	}
	out[from.line] = append(out[from.line], span{from.column, len(line) + 1})
	for i := max(from.line+1, first); i < min(to.line, last+1); i++ {
		s.hideLine(out, i)
	}
	if first <= to.line && to.line <= last {
		before := cut(s.lines[to.line-1], to.column)
		if strings.Trim(before, " -?:,[]{}") != "" { // the end of n, not only what frames the next node
			out[to.line] = append(out[to.line], span{1, to.column})
		}
	}
}

// literally finds n in its line, if it stands there as its value is.
func literally(line string, column int, n *yaml.Node) (span, bool) {
	if n.Kind != yaml.ScalarNode || n.Value == "" || len(line) > maxShown {
		return span{}, false
	}
	rest := line[len(cut(line, column)):]
	for _, q := range []string{"", `"`, "'"} {
		if strings.HasPrefix(rest, q+n.Value+q) {
			return span{column, column + utf8.RuneCountInString(q+n.Value+q)}, true
		}
	}
	return span{}, false
}

// cut returns the part of line before column.
func cut(line string, column int) string {
	n := 1
	for i := range line {
		if n == column {
			return line[:i]
		}
		n++
	}
	return line
}

func (s *source) hideLine(out map[int][]span, line int) {
	text := s.lines[line-1]
	if indent := len(text) - len(strings.TrimLeft(text, " ")); indent < len(text) {
		out[line] = append(out[line], span{indent + 1, utf8.RuneCountInString(text) + 1})
	}
}

// after returns where the node that follows n and all below it begins.
func (s *source) after(n *yaml.Node) pos {
	for len(n.Content) > 0 {
		n = n.Content[len(n.Content)-1]
	}
	here := nodePos(n)
	i, found := slices.BinarySearchFunc(s.starts, here, comparePos)
	for found && i < len(s.starts) && s.starts[i] == here {
		i++
	}
	if i < len(s.starts) {
		return s.starts[i]
	}
	return pos{len(s.lines) + 1, 1}
}

// hideRoughly is for a file that is not YAML, where nobody knows what belongs
// to what: of a line only a key is shown, what stands behind it only if the key
// is known to hold no secret, or if it is a reference.
func (s *source) hideRoughly(out map[int][]span, first, last int) {
	keyAndRest := regexp.MustCompile(`^(\s*(?:- )*([A-Za-z_]+):)(?:\s+(.*))?$`)
	sounds := regexp.MustCompile(`(?i)` + secretWords)
	reference := regexp.MustCompile(`^[\["' ]*(` + formPattern(FormEnv) + `|(file|dir):/[^\s,"']*)[\]"' ]*$`)
	url := regexp.MustCompile(`^["']?https?://[^\s@?#"']+["']?$`)
	for n := first; n <= last; n++ {
		line := s.lines[n-1]
		m := keyAndRest.FindStringSubmatch(line)
		switch {
		case strings.Trim(line, " -.") == "" || strings.HasPrefix(strings.TrimSpace(line), "#"):
		case m == nil:
			s.hideLine(out, n)
		case slices.Contains(s.plain, m[2]) && (!sounds.MatchString(m[2]) || url.MatchString(m[3])):
		case !reference.MatchString(m[3]):
			begin := utf8.RuneCountInString(line[:len(line)-len(m[3])])
			out[n] = append(out[n], span{begin + 1, utf8.RuneCountInString(line) + 1})
		}
	}
}

// Quote shows a piece of the file in a message: on one line, short, without
// the secrets that can be told by their look.
func Quote(v string) string {
	for _, secret := range slices.Backward(secretSpans(v)) {
		v = v[:secret.from] + masked + v[secret.to:]
	}
	if runes := []rune(v); len(runes) > 60 {
		v = string(runes[:60]) + "…"
	}
	return strconv.Quote(v)
}
