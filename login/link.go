package login

import (
	"errors"
	"strings"
)

var errNotList = errors.New("not one JSON list")

// nextLink returns the target of the link with the relation "next" in the values of the header
// Link (RFC 8288 §3). There is one more page if a value names that relation in any form, and
// one that cannot be read must not be taken for the last page: then the target is "".
func nextLink(values []string) (target string, more bool) {
	for _, value := range values {
		links, closed := splitOutside(value, ',')
		if !closed {
			return "", true
		}
		for _, link := range links {
			parts, _ := splitOutside(link, ';')
			address := strings.TrimSpace(parts[0])
			for _, param := range parts[1:] {
				name, rel, _ := strings.Cut(param, "=")
				if !strings.EqualFold(strings.TrimSpace(name), "rel") || !isNext(rel) {
					continue
				}
				if more || !strings.HasPrefix(address, "<") || !strings.HasSuffix(address, ">") {
					return "", true
				}
				target, more = address[1:len(address)-1], true
			}
		}
	}
	return target, more
}

// isNext reports whether a value of rel has the relation next among its words.
func isNext(rel string) bool {
	for _, word := range strings.Fields(strings.Trim(strings.TrimSpace(rel), `"`)) {
		if strings.EqualFold(word, "next") {
			return true
		}
	}
	return false
}

// splitOutside splits at sep where that is neither between < and > nor in quotes. closed
// reports whether both of them end.
func splitOutside(s string, sep byte) (parts []string, closed bool) {
	start := 0
	quoted, inside := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"' && !inside:
			quoted = !quoted
		case quoted:
		case c == '<':
			inside = true
		case c == '>':
			inside = false
		case c == sep && !inside:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:]), !quoted && !inside
}
