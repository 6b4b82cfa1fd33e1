package yamltable

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// Unquoted is a complaint about a text that may hold a password.
type Unquoted struct{ Complaint error }

func (u Unquoted) Error() string { return u.Complaint.Error() }

// Slip is a complaint about a text of which it is clear what was meant.
type Slip struct {
	Complaint error
	Meant     string // "" if only Why helps
	Why       string // follows what was found: "; the units are …"
}

func (s Slip) Error() string { return s.Complaint.Error() }

// Parsed stores what parse makes of v. What parse complains of begins with
// "must" and does not repeat v, which is added where it may be shown.
func Parsed[T any](w *Walker, at Place, v string, into *T, parse func(string) (T, error)) {
	x, err := parse(v)
	var slip Slip
	switch {
	case err == nil:
		*into = x
	case errors.As(err, &slip):
		w.Suggest(at, slip.Meant, "%v, not %s%s", err, Quote(v), slip.Why)
	case errors.As(err, new(Unquoted)):
		w.src.secrets = append(w.src.secrets, at.Node)
		w.Fault(at, "%v", err)
	default:
		w.Fault(at, "%v, not %s", err, Quote(v))
	}
}

// Scalar is one text that parse understands; its complaints are as in parsed.
func Scalar[T any](want string, s Schema, parse func(string) (T, error)) Shape[T] {
	s["type"] = "string"
	return Shape[T]{Want: want, Schema: s, Read: func(w *Walker, at Place, into *T) {
		if v, ok := w.Text(at, want, false); ok {
			Parsed(w, at, v, into, parse)
		}
	}}
}

// Text is any text on one line.
func Text(want string) Shape[string] {
	return Scalar(want, Schema{"minLength": 1}, func(v string) (string, error) { return v, nil })
}

// Pattern is a text of a certain form.
func Pattern(want, form string) Shape[string] {
	re := regexp.MustCompile(form)
	return Scalar(want, Schema{"pattern": form}, func(v string) (string, error) {
		if !re.MatchString(v) {
			return "", fmt.Errorf("must be %s", want)
		}
		return v, nil
	})
}

// OneOf is a text out of a closed list. want may be "".
func OneOf[T ~string](want string, values ...T) Shape[T] {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = string(v)
	}
	if want == "" {
		want = orList(names)
	}
	return Shape[T]{Want: want, Schema: Schema{"enum": names}, Read: func(w *Walker, at Place, into *T) {
		v, ok := at.Node.Value, IsText(at.Node)
		switch {
		case ok && slices.Contains(names, v):
			*into = T(v)
		case ok:
			w.Suggest(at, Nearest(v, names), "must be %s, not %s", want, Quote(v))
		default:
			w.Fault(at, "must be %s, not %s", want, describe(at.Node, false))
		}
	}}
}

// OnlyTrue is `true`: leaving the key out says the opposite.
func OnlyTrue() Shape[bool] {
	return Shape[bool]{Want: "true", Schema: Schema{"const": true}, Read: func(w *Walker, at Place, into *bool) {
		if *into = isBool(at.Node, "true"); !*into {
			w.Suggest(at, boolMeant(at.Node, "true"), "must be true or left out, not %s", describe(at.Node, false))
		}
	}}
}

// OnlyFalse is `false`, and reads as true: what it switches off is off.
func OnlyFalse() Shape[bool] {
	return Shape[bool]{Want: "false", Schema: Schema{"const": false}, Read: func(w *Walker, at Place, into *bool) {
		if *into = isBool(at.Node, "false"); !*into {
			w.Suggest(at, boolMeant(at.Node, "false"), "must be false or left out, not %s", describe(at.Node, false))
		}
	}}
}

// TrueOrFalse is `true` or `false`.
func TrueOrFalse() Shape[bool] {
	return Shape[bool]{Want: "true or false", Schema: Schema{"type": "boolean"},
		Read: func(w *Walker, at Place, into *bool) {
			if *into = isBool(at.Node, "true"); !*into && !isBool(at.Node, "false") {
				w.Suggest(at, boolMeant(at.Node, "true", "false"), "must be true or false, not %s",
					describe(at.Node, false))
			}
		}}
}

func isBool(n *yaml.Node, value string) bool { return n.Tag == "!!bool" && n.Value == value }

// boolMeant is the one of values that a word stands for elsewhere (YAML 1.1); "" if it is none of them.
func boolMeant(n *yaml.Node, values ...string) string {
	if n.Kind != yaml.ScalarNode {
		return ""
	}
	meant := ""
	switch strings.ToLower(n.Value) {
	case "true", "yes", "on":
		meant = "true"
	case "false", "no", "off":
		meant = "false"
	}
	if !slices.Contains(values, meant) {
		return ""
	}
	return meant
}

// Number is a whole number in decimal.
func Number(lowest, highest int) Shape[int] {
	want := fmt.Sprintf("a whole number from %d to %d", lowest, highest)
	if lowest == highest {
		want = fmt.Sprintf("the number %d", lowest)
	}
	s := Schema{"type": "integer", "minimum": lowest, "maximum": highest}
	return Shape[int]{Want: want, Schema: s, Read: func(w *Walker, at Place, into *int) {
		v, err := strconv.Atoi(at.Node.Value)
		switch inside := err == nil && lowest <= v && v <= highest; {
		case IsText(at.Node) && inside:
			w.Fault(at, "must be %s, without quotes", want)
			return
		case at.Node.Tag != "!!int" || !inside:
			w.Fault(at, "must be %s, not %s", want, describe(at.Node, false))
			return
		}
		*into = v
	}}
}
