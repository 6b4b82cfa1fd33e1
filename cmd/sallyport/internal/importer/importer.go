// Package importer turns the configuration of oauth2-proxy into one of ours.
//
// It owns the table of oauth2-proxy's options (options), the readers of the forms in which
// people keep them, and what each becomes here. Whatever cannot be said exactly is left out
// and reported; nothing is ever opened wider than it was, and where a restriction cannot be
// said nobody may pass. Secrets become references to where they stand, and appear in no line.
// It reads what it is handed and nothing else. What a valid configuration is, its neighbours
// config and assemble say: each value is tried with them before it is written, and so is the
// whole.
package importer

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Input is a file to be imported.
type Input struct {
	Name string // for lines and errors
	Data []byte
	Env  bool // it holds variables of the environment, whatever it looks like
}

// Result is what became of the inputs.
type Result struct {
	Config []byte // our configuration, which is valid
	Lines  []Line // in the order of the inputs
}

// Complete reports whether everything mapped that has to do with security.
func (r Result) Complete() bool {
	return !slices.ContainsFunc(r.Lines, func(l Line) bool { return l.Verdict == Refused })
}

// Verdict says what became of a key.
type Verdict int

// The verdicts. Refused is what has to do with security and did not map.
const (
	Mapped Verdict = iota
	NotMapped
	Refused
)

// Line tells what became of one key.
type Line struct {
	File    string
	Line    int
	Key     string // as the file has it
	Verdict Verdict
	Text    string // what it is mapped to, or why it is not
}

func (l Line) String() string {
	lead := [...]string{"mapped to ", "not mapped: ", "refused: "}[l.Verdict]
	return fmt.Sprintf("%s:%d: %s: %s%s", printable(l.File), l.Line, printable(l.Key), lead, printable(l.Text))
}

// printable keeps what a terminal could take for a command out of a line, and a line a line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '·'
	}, s)
}

// maxInput is larger than any file that somebody writes by hand.
const maxInput = 1 << 20

// fault is an input that cannot be read. It never repeats what the file says there.
type fault struct {
	file string
	line int
	why  string
}

func (f fault) Error() string { return fmt.Sprintf("%s:%d: %s", printable(f.file), f.line, f.why) }

// Import reads the inputs and makes one configuration of them. The error is for what cannot
// be read as any form of oauth2-proxy's configuration; it quotes nothing of it.
func Import(inputs []Input) (Result, error) {
	s := &sources{}
	for _, in := range inputs {
		if len(in.Data) > maxInput {
			return Result{}, fault{in.Name, 1, "is larger than 1 MiB"}
		}
		if err := s.read(in); err != nil {
			return Result{}, err
		}
	}
	if len(s.settings) == 0 && len(s.ingresses) == 0 {
		return Result{}, errors.New("nothing of oauth2-proxy's is configured in " + names(inputs))
	}
	if max(len(s.upstreams), len(s.headers), len(s.ingresses), len(s.hosts)) > maxValues ||
		len(s.settings) > 10*maxValues {
		return Result{}, errors.New("more is configured than one oauth2-proxy can have in " + names(inputs))
	}
	m := &mapping{sources: s, home: Line{File: inputs[0].Name, Line: 1}}
	config, err := m.run()
	if err != nil {
		return Result{}, err
	}
	order := map[string]int{}
	for i, in := range inputs {
		order[in.Name] = i
	}
	slices.SortStableFunc(m.lines, func(a, b Line) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Key, b.Key), cmp.Compare(a.Text, b.Text))
	})
	return Result{Config: config, Lines: slices.Compact(m.lines)}, nil
}

func names(inputs []Input) string {
	var all []string
	for _, in := range inputs {
		all = append(all, printable(path.Base(in.Name)))
	}
	return strings.Join(all, ", ")
}

// quote shows a short value that is no secret.
func quote(v string) string {
	if runes := []rune(v); len(runes) > 80 {
		v = string(runes[:80]) + "…"
	}
	return strconv.Quote(v)
}
