package authz

import (
	"strings"
	"unicode"
)

// The lenient reading is what the most lenient program behind us could take a path
// for. A path whose lenient readings lead to another route than the path
// itself is refused: see Table.Lookup.

// leadsElsewhere reports whether a program could read path as that of another route
// of s than r.
func (s *site) leadsElsewhere(path string, r *Route) bool {
	if isLenient(path) { // the usual case, worth no allocation
		return s.lenient.find(path) != r
	}
	decoded := decodeAll(path)
	if s.lenient.find(lenientPath(decoded)) != r {
		return true
	}
	if strings.IndexByte(decoded, ';') >= 0 {
		// A program that removes parameters before it unescapes slashes sees fewer
		// segments; one that removes them first of all sees no "#" or "?" in them.
		if strings.Count(decoded, "/") > strings.Count(path, "/") &&
			s.lenient.find(lenientPath(cutParameters(path))) != r ||
			strings.ContainsAny(decoded, "?#") && s.lenient.find(lenientPath(cutParameters(decoded))) != r {
			return true
		}
	}
	without, clear := dropSessionIDs(decoded)
	return !clear || (without != decoded && s.lenient.find(lenientPath(without)) != r)
}

// lenientPath is path decoded, in lower case, backslashes as slashes, dots
// resolved, slashes merged, and every segment cut to its lenientSegment.
func lenientPath(path string) string {
	if isLenient(path) {
		return path
	}
	path = decodeAll(path)
	if i := strings.IndexAny(path, "?#"); i > 0 { // escaped ones, where a route lets them pass
		path = path[:i]
	}
	var kept []string
	for s := range strings.SplitSeq(strings.ReplaceAll(path, `\`, "/"), "/") {
		switch s = lenientSegment(s); s {
		case "":
		case "..":
			kept = kept[:max(len(kept)-1, 0)]
		default:
			kept = append(kept, s)
		}
	}
	return "/" + strings.Join(kept, "/")
}

// lenientSegment drops parameters, the stream of a Windows file ("admin::$DATA",
// CVE-2010-2731), and blanks and dots at both ends: Windows drops those at the end,
// and programs that trim text drop the blanks at the beginning too.
func lenientSegment(s string) string {
	s, _, _ = strings.Cut(s, ";")
	if i := strings.Index(s, ":$"); i >= 0 {
		s = strings.TrimRight(s[:i], ":")
	}
	if s == ".." {
		return s
	}
	return strings.ToLower(strings.TrimFunc(s, func(r rune) bool { return r == '.' || unicode.IsSpace(r) }))
}

// cutParameters removes the parameters of each segment, where segments are what
// stands between slashes that are not escaped.
func cutParameters(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(decodeAll(s), ";")
	}
	return strings.Join(segments, "/")
}

// dropSessionIDs takes out the segments that ASP.NET takes for a session's id and
// removes before it looks for a page: "/(S(x))/admin" is /admin. It reports false
// where more follows in such a segment, as in "/ad/(S(x))min", which was read as
// /admin (CVE-2023-36899).
func dropSessionIDs(path string) (string, bool) {
	for {
		start := sessionID(path)
		if start < 0 {
			return path, true
		}
		end := start + strings.Index(path[start:], "))") + 2
		if end < len(path) && path[end] != '/' {
			return path, false
		}
		path = path[:start] + path[end:]
	}
}

// sessionID is where in path a segment begins, with its slash, that begins as an
// id of ASP.NET does; -1 if none does.
func sessionID(path string) int {
	for from := 0; ; {
		i := strings.Index(path[from:], "/(")
		if i < 0 {
			return -1
		}
		i += from
		if rest := path[i+2:]; len(rest) > 1 && isAlnum(rest[0]) && rest[1] == '(' && strings.Contains(rest, "))") {
			return i
		}
		from = i + 1
	}
}

// decodeAll decodes until nothing changes, because some programs decode twice.
func decodeAll(path string) string {
	for range 3 {
		decoded, changed := unescape(path)
		if path = decoded; !changed {
			break
		}
	}
	return path
}

// isLenient reports that path is its own lenient reading: the usual case, worth
// no allocation.
func isLenient(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	for i := 1; i < len(path); i++ {
		switch c := path[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '~':
		case c == '/' || c == '.':
			if i == len(path)-1 || path[i-1] == '/' || path[i+1] == '/' {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, false
	}
	out, changed := make([]byte, 0, len(s)), false
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0 {
			out = append(out, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
			i, changed = i+2, true
			continue
		}
		out = append(out, s[i])
	}
	return string(out), changed
}
