package session

import (
	"net/url"
	"strings"
)

// ReturnTo is the rule for where a browser may be sent after a sign-in: to a
// path of this site, which origin (scheme://host, as configured) is put before
// when it is used. Anything else becomes "/".
//
// Decades of open redirects live in what browsers make of odd addresses
// ("//evil", "/\evil", "/%09/evil", "/.//evil": security.md 66-70), so this says what
// may pass and nothing else: printable ASCII without a backslash, no empty and
// no dot segments, no path under prefix but the account page: a sign-in must
// not return to itself or to a sign-out. All of that also holds of the path
// once it is decoded.
func ReturnTo(raw, origin, prefix string) string {
	raw = strings.TrimPrefix(raw, origin)
	if len(raw) > MaxReturnTo || !strings.HasPrefix(raw, "/") {
		return "/"
	}
	for i := 0; i < len(raw); i++ {
		if c := raw[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return "/"
		}
	}
	path, err := url.PathUnescape(raw[:cutPath(raw)])
	if err != nil || strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
		return "/"
	}
	if !plainSegments(path) || (under(path, prefix) && path != prefix+"/account") {
		return "/"
	}
	return raw
}

// cutPath is the length of the path in raw.
func cutPath(raw string) int {
	if i := strings.IndexAny(raw, "?#"); i >= 0 {
		return i
	}
	return len(raw)
}

func plainSegments(path string) bool {
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		if s == "" && i < len(segments)-1 {
			return false
		}
		if s == "." || s == ".." {
			return false
		}
	}
	return true
}

func under(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}
