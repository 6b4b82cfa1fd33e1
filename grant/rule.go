package grant

import (
	"errors"
	"strings"
)

// Rule lets one method through to the paths that a template matches: "GET /rest/*".
type Rule struct {
	Method   string
	Template string
	segments []string // oneSegment for a name in braces
	open     bool     // the last segment is "*", which is one or more
}

const methodLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

// oneSegment stands in Rule.segments for exactly one segment.
const oneSegment = "{}"

// ParseRule reads "METHOD /path". In the path, "*" as a whole segment is one segment of a
// request, and as the last one it is one or more, with a slash behind them or without. A name
// in braces, "{id}", is exactly one segment wherever it stands, as in paths of OpenAPI, and
// one for every reader of it (isOne). There are no dots, escapes, empty segments or other signs
// that two programs could read in two ways. Only at the end there may be a slash more: it is
// for requests that have it too.
func ParseRule(text string) (Rule, error) {
	method, path, ok := strings.Cut(text, " ")
	if !ok || method == "" || strings.Trim(method, methodLetters) != "" {
		return Rule{}, errors.New("must be a method in capitals, a blank and a path, as in GET /rest/*")
	}
	if !strings.HasPrefix(path, "/") {
		return Rule{}, errors.New("the path must begin with a slash")
	}
	r := Rule{Method: method, Template: path, segments: strings.Split(path[1:], "/")}
	for i, s := range r.segments {
		switch {
		case s == "*":
			r.open = i == len(r.segments)-1
		case s == "" && i < len(r.segments)-1:
			return Rule{}, errors.New("the path has an empty segment")
		case s == "." || s == "..":
			return Rule{}, errors.New("the path has a dot segment")
		case strings.Contains(s, "*"):
			return Rule{}, errors.New("* stands for a whole segment")
		case strings.ContainsAny(s, "{}"):
			name, end := strings.CutSuffix(s, "}")
			name, begin := strings.CutPrefix(name, "{")
			if !begin || !end || name == "" || strings.Trim(name, nameLetters) != "" {
				return Rule{}, errors.New("{id} stands for a whole segment, with letters, digits, - and _ in it")
			}
			r.segments[i] = oneSegment
		case strings.Trim(s, templateLetters) != "":
			return Rule{}, errors.New("the path may have letters, digits and " + templateSigns + " only, no escapes")
		}
	}
	return r, nil
}

const (
	alphanumeric    = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	nameLetters     = alphanumeric + "-_"
	templateSigns   = "-_~.:@!$&'()+,;="
	templateLetters = alphanumeric + templateSigns
)

func (r Rule) String() string { return r.Method + " " + r.Template }

// Match reports whether the rule lets a request through. escaped is the path as it is
// sent, with its escapes: segments are compared one by one, so that a "%2F" in one never
// becomes a border. GET covers HEAD. "/a" and "/a/" are two paths: some third parties serve
// the one and not the other.
func (r Rule) Match(method, escaped string) bool {
	if method != r.Method && !(method == "HEAD" && r.Method == "GET") {
		return false
	}
	path, ok := strings.CutPrefix(escaped, "/")
	if !ok {
		return false
	}
	segments := strings.Split(path, "/")
	if last := len(segments) - 1; r.open && last > 0 && segments[last] == "" {
		segments = segments[:last]
	}
	if len(segments) < len(r.segments) || len(segments) > len(r.segments) && !r.open {
		return false
	}
	for i, s := range segments {
		switch want := r.segments[min(i, len(r.segments)-1)]; {
		case s == "" && (want != "" || i < len(segments)-1):
			return false // an empty segment is none, but after a slash at the end
		case want == oneSegment:
			if !isOne(s) {
				return false
			}
		case want != "*" && want != s:
			return false
		}
	}
	return true
}

// isOne reports whether an escaped segment is one for a reader too that decodes it, perhaps
// twice, before it looks for slashes, or that cuts it at a ";" (RFC 3986 §3.3): what is below a
// thing must not pass as the thing itself.
func isOne(segment string) bool {
	if segment == "." || segment == ".." || strings.ContainsAny(segment, `/\;`) {
		return false
	}
	for i := 0; i < len(segment); i++ {
		if segment[i] != '%' {
			continue
		}
		if i+2 >= len(segment) {
			return false
		}
		switch strings.ToUpper(segment[i+1 : i+3]) {
		case "25", "2E", "2F", "3B", "5C": // % . / ; \
			return false
		}
	}
	return true
}
