package session

import (
	"net/url"
	"strings"
)

// ReturnTo is the rule for where a browser may be sent after a sign-in: to a
// path of this site, which origin (scheme://host, as configured) is put before
// when it is used. Anything else becomes "/".
//
// The address must begin, as browsers read it (URL Standard), with one "/" that is
// not followed by a second slash of either kind, escaped or not: then it is a path
// of this origin. Browsers delete tabs and line breaks from an address before they
// read it, so it may have no control characters. Dot segments are refused because
// resolving them could change how the address begins. A path under prefix, except
// the account page's, is refused because a sign-in must not return to itself or to a
// sign-out. All of that also holds for the decoded path. The rest comes back byte
// for byte, since the app was asked for it: escaped slashes, and all that a browser sends unescaped in a query.
func ReturnTo(raw, origin, prefix string) string {
	raw = strings.TrimPrefix(raw, origin)
	if len(raw) > MaxReturnTo || strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return "/"
	}
	escaped := raw[:cutPath(raw)]
	path, err := url.PathUnescape(escaped)
	hasControl := strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f })
	if err != nil || strings.Contains(escaped, `\`) || hasControl {
		return "/"
	}
	path = strings.ReplaceAll(path, `\`, "/") // as browsers read it
	if !strings.HasPrefix(escaped, "/") || strings.HasPrefix(path, "//") || hasDots(path) {
		return "/"
	}
	if under(path, prefix) && path != prefix+"/account" {
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

// hasDots reports whether path has a segment that is "." or "..".
func hasDots(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

func under(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}
