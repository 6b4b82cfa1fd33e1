package yamltable

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Fault is one thing that is wrong with the file, and where.
type Fault struct {
	File         string
	Line, Column int    // from 1; columns count characters
	Path         string // "routes[2].upstrem"; "" for the file as a whole
	Message      string
	Suggestion   string // what was probably meant
	Excerpt      string // the line with its neighbours and a caret, secrets masked
}

func (f Fault) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", f.File, f.Line, f.Column)
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Message)
	if f.Suggestion != "" {
		if strings.ContainsAny(f.Suggestion, "{[") { // a piece of YAML
			fmt.Fprintf(&b, " (did you mean `%s`?)", f.Suggestion)
		} else {
			fmt.Fprintf(&b, " (did you mean %q?)", f.Suggestion)
		}
	}
	return b.String()
}

// Faults are all that is wrong with the file, in its order. An empty Faults is
// not a nil error: return Err.
type Faults []Fault

// Err is nil if there are none.
func (fs Faults) Err() error {
	if len(fs) == 0 {
		return nil
	}
	return fs
}

func (fs Faults) Error() string {
	var b strings.Builder
	for i, f := range fs {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(f.Error() + "\n" + f.Excerpt)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// MaxFaults bounds what one file can make us print.
const MaxFaults = 100

// around are the first and the last line of an excerpt at a line.
func (s *source) around(line int) (first, last int) { return max(line-1, 1), min(line+1, len(s.lines)) }

// excerpt shows line and its neighbours with a caret under column; hidden is what not to show
// of them.
func (s *source) excerpt(line, column int, hidden map[int][]span) string {
	first, last := s.around(line)
	var b strings.Builder
	for n := first; n <= last; n++ {
		if n != line {
			text, _ := render(s.lines[n-1], hidden[n], 1)
			b.WriteString(strings.TrimRight(fmt.Sprintf("%6d | %s", n, text), " ") + "\n")
			continue
		}
		text, caret := render(s.lines[n-1], hidden[n], column)
		fmt.Fprintf(&b, "%6d | %s\n%6s | %s^\n", n, text, "", strings.Repeat(" ", caret-1))
	}
	return b.String()
}

// maxWidth is how much of a long line is shown.
const maxWidth = 110

// render replaces the hidden spans of a line and whatever a terminal could take
// for a command (P18). It returns where column is afterwards.
func render(line string, hidden []span, column int) (string, int) {
	runes := []rune(line)
	column = min(column, len(runes)+1)
	var out []rune
	caret := 1
	for i := 0; i < len(runes); i++ {
		if i+1 == column {
			caret = len(out) + 1
		}
		if at := slices.IndexFunc(hidden, func(h span) bool { return h.from <= i+1 && i+1 < h.to }); at >= 0 {
			if i+1 <= column && column < hidden[at].to {
				caret = len(out) + 1
			}
			out = append(out, []rune(masked)...)
			i = min(hidden[at].to-1, len(runes)) - 1
			continue
		}
		out = append(out, printable(runes[i]))
	}
	if column > len(runes) {
		caret = len(out) + 1
	}
	return window(out, caret)
}

func printable(r rune) rune {
	switch {
	case r == '\t':
		return ' '
	case !unicode.IsPrint(r):
		return '·'
	}
	return r
}

// window cuts a long line to the part around the caret.
func window(line []rune, caret int) (string, int) {
	from := 0
	if caret > maxWidth {
		from = caret - maxWidth/2
	}
	out, end := line[from:], ""
	if len(out) > maxWidth {
		out, end = out[:maxWidth], "…"
	}
	if from > 0 {
		return "…" + string(out) + end, caret - from + 1
	}
	return string(out) + end, caret
}
