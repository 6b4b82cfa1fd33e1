package selftest

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Report is what became of all cases.
type Report struct {
	Cases []Case `json:"cases"`
	Leaks int    `json:"leaks"`
	// Unseen is what the run could not see, and what it takes.
	Unseen []string `json:"unseen,omitempty"`
}

// Case is one case of a report.
type Case struct {
	Name    string            `json:"name"`
	Request string            `json:"request"`
	Result  Result            `json:"result"`
	Saw     string            `json:"saw"`
	Fix     map[string]string `json:"fix,omitempty"` // the line to add, by front
	front   string            // whose line goes first, if it is known
}

// Well reports whether every case is.
func (r *Report) Well() bool {
	for _, c := range r.Cases {
		if c.Result != OK {
			return false
		}
	}
	return true
}

func (r *Report) add(by *run, p probe, v verdict) {
	c := Case{Name: p.name, Request: by.clean(p.shown), Result: v.result, Saw: by.clean(v.saw), front: by.front}
	if v.result != OK && v.fix != nil {
		c.Fix = map[string]string{}
		for i, front := range fronts {
			c.Fix[front] = v.fix[i]
		}
	}
	if v.result == Leak {
		r.Leaks++
	}
	r.Cases = append(r.Cases, c)
}

// addLeak is add for a case that shows a leak or nothing.
func (r *Report) addLeak(by *run, p probe, v verdict) {
	if v.result == Leak {
		r.add(by, p, v)
	}
}

// clean is a text without the cookie, whoever echoed it, and without signs that a terminal
// would heed.
func (r *run) clean(text string) string {
	for _, secret := range secrets(r.Cookie) {
		text = strings.ReplaceAll(text, secret, "<cookie>")
	}
	text = strings.ReplaceAll(text, r.nonce, "<nonce>")
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || !unicode.IsPrint(c) {
			return '�'
		}
		return c
	}, text)
}

// secrets are the values of a Cookie header that are long enough to be one.
func secrets(cookie string) (found []string) {
	for part := range strings.SplitSeq(cookie, ";") {
		if _, value, _ := strings.Cut(strings.TrimSpace(part), "="); len(value) >= 8 {
			found = append(found, value)
		}
	}
	return found
}

// Text writes a line for each case, what could not be seen, and the sum.
func (r *Report) Text(w io.Writer) error {
	var b strings.Builder
	for _, c := range r.Cases {
		fmt.Fprintf(&b, "%-4s  %s  %s", c.Result, c.Name, c.Request)
		if c.Result != OK {
			fmt.Fprintf(&b, " (%s)  %s", c.Saw, c.advice())
		}
		b.WriteByte('\n')
	}
	for _, unseen := range r.Unseen {
		fmt.Fprintf(&b, "not seen: %s\n", unseen)
	}
	fmt.Fprintf(&b, "%d cases, %d leaks\n", len(r.Cases), r.Leaks)
	_, err := io.WriteString(w, b.String())
	return err
}

// advice is the line to add for each front, that of the front that answers first.
func (c *Case) advice() string {
	var rest []string
	for _, front := range fronts {
		switch line := c.Fix[front]; {
		case line == "":
		case front == c.front:
			rest = append([]string{front + ": " + line}, rest...)
		default:
			rest = append(rest, front+": "+line)
		}
	}
	return strings.Join(rest, " | ")
}

// JSON writes the report for programs.
func (r *Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
