// Package authz is the verdict: which route a request is for, and whether the
// person who asks may have it.
//
// It owns the canonical form of host and path, the table of routes with their
// rules, and Decide, one pure function that every front door and `explain`
// share, so that they cannot disagree. It does no I/O, reads no header and
// writes no response: proxy turns a request into Facts and a Verdict into
// bytes. Who somebody is comes from session.
package authz

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// Facts are all that a verdict may depend on besides the session. Query and
// fragment are not for deciding (CVE-2025-54576): RawQuery is here because it
// is forwarded with the rest, byte for byte.
type Facts struct {
	Method, Scheme string
	Host           string // lower case, no port, no trailing dot
	Authority      string // Host with the port that was asked for, if one was
	Path           string // canonical: the bytes that are judged and forwarded
	// Encoded tells that Path has an escaped "/", "%", "#" or "?", which only
	// routes that say so accept.
	Encoded  bool
	RawQuery string // without the "?"; HasQuery tells "" from none
	HasQuery bool
	// WebSocket tells that the request asks for one, and Origin where its page is
	// from; several Origin headers come joined, and match nothing. A front door
	// sets both.
	WebSocket bool
	Origin    string
}

// origin is the origin of pages that come from this address: browsers leave the
// scheme's own port out (RFC 6454 §6.2).
func (f Facts) origin() string {
	own := ":80"
	if f.Scheme == "https" {
		own = ":443"
	}
	return f.Scheme + "://" + strings.TrimSuffix(f.Authority, own)
}

// ErrTarget marks a request target that means different things to different
// readers, or nothing. It is answered with 400, never repaired: "fix and
// continue" is how matcher and forwarder come to disagree (security.md D6).
var ErrTarget = errors.New("ambiguous request target")

func targetError(why string) error { return fmt.Errorf("%w: %s", ErrTarget, why) }

// NewFacts reads a request line as it came: requestURI is the raw target, host
// the Host field or, for an absolute target, what net/http took from that. It
// never uses url.Parse, which takes "//admin/x" for a host (CVE-2026-26205).
func NewFacts(method, scheme, host, requestURI string) (Facts, error) {
	target, err := originForm(requestURI)
	if err != nil {
		return Facts{}, err
	}
	rawPath, query, hasQuery := strings.Cut(target, "?")
	path, encoded, err := canonicalPath(rawPath)
	if err != nil {
		return Facts{}, err
	}
	if err := checkQuery(query); err != nil {
		return Facts{}, err
	}
	canonical, err := CanonicalHost(host)
	if err != nil {
		return Facts{}, err
	}
	return Facts{Method: method, Scheme: scheme, Host: canonical, Authority: authority(canonical, host), Path: path, Encoded: encoded,
		RawQuery: query, HasQuery: hasQuery}, nil
}

// authority is the canonical host with the port of asked: in another spelling
// an app could take it for another of its sites (CVE-2026-48794).
func authority(host, asked string) string {
	i := strings.LastIndexByte(asked, ':')
	if i < 0 || i == len(asked)-1 || strings.IndexByte(asked[i:], ']') >= 0 {
		return host
	}
	if asked[:i] == host {
		return asked
	}
	return host + asked[i:]
}

// originForm turns an absolute target (RFC 9112 §3.2.2) into path and query.
func originForm(target string) (string, error) {
	if strings.HasPrefix(target, "/") {
		return target, nil
	}
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || (!strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https")) {
		return "", targetError("it does not begin with a slash")
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	if end == 0 || strings.ContainsAny(rest[:end], `@\`) { // empty: RFC 9110 §4.2.1
		return "", targetError("no host, or a user or backslash in it")
	}
	if end == len(rest) || rest[end] != '/' {
		return "/" + rest[end:], nil
	}
	return rest[end:], nil
}

// checkQuery lets a query pass as it is or not at all.
func checkQuery(q string) error {
	for i := 0; i < len(q); i++ {
		if c := q[i]; c <= ' ' || c == 0x7f || c == '#' {
			return targetError("a control, blank or # in its query")
		}
	}
	return nil
}

// CanonicalHost is host in lower case without port and trailing dot. Two
// spellings of one name must not have two verdicts (CVE-2026-48794).
func CanonicalHost(host string) (string, error) {
	name := host
	if strings.HasPrefix(name, "[") {
		end := strings.IndexByte(name, ']')
		if end < 0 || !validPort(name[end+1:]) {
			return "", targetError("malformed host")
		}
		addr, err := netip.ParseAddr(name[1:end])
		if err != nil || !addr.Is6() || addr.Zone() != "" { // brackets are for IPv6: CVE-2025-47912
			return "", targetError("malformed host")
		}
		return "[" + addr.String() + "]", nil
	}
	if i := strings.IndexByte(name, ':'); i >= 0 {
		if !validPort(name[i:]) {
			return "", targetError("malformed host")
		}
		name = name[:i]
	}
	name = strings.TrimSuffix(name, ".")
	if !validDNSName(name) { // before ToLower, which makes a k of the Kelvin sign
		return "", targetError("malformed host")
	}
	return strings.ToLower(name), nil
}

func validPort(s string) bool {
	if s == "" {
		return true
	}
	if s[0] != ':' || len(s) > 6 {
		return false
	}
	return strings.Trim(s[1:], "0123456789") == ""
}

// validDNSName accepts letters, digits, "-" and "_" in labels. Names with other
// letters come as xn-- labels, which are ASCII.
func validDNSName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := 0; i < len(label); i++ {
			c := label[i]
			if !isAlnum(c) && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// CanonicalPath is the normal form of a raw path: escapes of unreserved
// characters decoded, hex digits upper case, bytes that RFC 3986 does not allow
// in a path escaped. What more than one reader could read in more than one way
// is refused: see ErrTarget.
func CanonicalPath(raw string) (string, error) {
	path, encoded, err := canonicalPath(raw)
	if err == nil && encoded {
		err = errEncoded
	}
	return path, err
}

var errEncoded = targetError("an escaped /, %, # or ?")

// canonicalPath is CanonicalPath for routes that take escaped delimiters.
func canonicalPath(raw string) (path string, encoded bool, err error) {
	if raw == "" || raw[0] != '/' {
		return "", false, targetError("its path does not begin with a slash")
	}
	if plainPath(raw) {
		return raw, false, checkSegments(raw)
	}
	const hex = "0123456789ABCDEF"
	out := make([]byte, 0, len(raw)+16)
	decoded := make([]byte, 0, len(raw)) // only to check that it is UTF-8
	for i := 0; i < len(raw); i++ {
		c, escaped := raw[i], false
		if c == '%' {
			if i+2 >= len(raw) || unhex(raw[i+1]) < 0 || unhex(raw[i+2]) < 0 {
				return "", false, targetError("malformed escape")
			}
			c, escaped = byte(unhex(raw[i+1])<<4|unhex(raw[i+2])), true
			i += 2
		}
		if why := forbidden(c, escaped); why != "" {
			return "", false, targetError(why)
		}
		encoded = encoded || (escaped && strings.IndexByte("/%#?", c) >= 0)
		decoded = append(decoded, c)
		if isUnreserved(c) || (!escaped && isPathByte(c)) {
			out = append(out, c)
		} else {
			out = append(out, '%', hex[c>>4], hex[c&15])
		}
	}
	if !utf8.Valid(decoded) {
		return "", false, targetError("its path is not UTF-8")
	}
	path = string(out)
	if err := checkSegments(path); err != nil || !encoded {
		return path, false, err
	}
	return path, true, checkDecoded(path)
}

// checkDecoded looks at what an app sees that decodes the path, once or twice:
// dot segments and controls are refused there too. Empty segments are not: a
// RabbitMQ virtual host is called %2F.
func checkDecoded(path string) error {
	decoded := decodeAll(path)
	for i := 0; i < len(decoded); i++ {
		if c := decoded[i]; c < ' ' || c == 0x7f || c == '\\' {
			return targetError("a control or backslash, escaped twice")
		}
	}
	for segment := range strings.SplitSeq(decoded, "/") {
		name, _, _ := strings.Cut(segment, ";")
		if name = strings.ReplaceAll(name, " ", ""); name == "." || name == ".." {
			return targetError("a dot segment behind an escaped slash")
		}
	}
	return nil
}

// plainPath reports whether every byte stands for itself.
func plainPath(p string) bool {
	for i := 0; i < len(p); i++ {
		if !isPathByte(p[i]) {
			return false
		}
	}
	return true
}

// forbidden says why a byte, written as itself or as an escape, cannot be in a
// path that two programs must read alike; "" if it can.
func forbidden(c byte, escaped bool) string {
	switch {
	case c < ' ' || c == 0x7f:
		return "a control character"
	case c == '\\':
		return "a backslash"
	case escaped && strings.IndexByte(".;", c) >= 0:
		return "an escaped " + string(c)
	case !escaped && (c == '#' || c == '?'):
		return "a " + string(c)
	}
	return ""
}

// checkSegments refuses empty segments, and dot segments also where matrix
// parameters or blanks hide them ("/open/..;/admin": some servers drop what
// follows ";"; "/open/..%20/admin": some file systems drop the blank).
func checkSegments(path string) error {
	start := 1
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		segment := path[start:i]
		start = i + 1
		if segment == "" && i < len(path) {
			return targetError("an empty segment")
		}
		name, _, _ := strings.Cut(segment, ";")
		if name = strings.ReplaceAll(name, "%20", ""); name == "." || name == ".." {
			return targetError("a dot segment")
		}
	}
	return nil
}

// lenientPath is how the most forgiving reader behind us could read path:
// decoded, backslashes as slashes, parameters dropped, dots resolved, slashes
// merged, in lower case, blanks and dots at the ends of segments cut.
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
		s, _, _ = strings.Cut(s, ";")
		switch {
		case s == "..":
			kept = kept[:max(len(kept)-1, 0)]
			continue
		case strings.Trim(s, ". \t") == "":
			continue
		}
		kept = append(kept, strings.ToLower(strings.TrimRight(s, ". \t")))
	}
	return "/" + strings.Join(kept, "/")
}

// decodeAll decodes until nothing changes: twice encoded is decoded twice by somebody.
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
	return path != ""
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

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isUnreserved is RFC 3986 §2.3.
func isUnreserved(c byte) bool { return isAlnum(c) || c == '-' || c == '.' || c == '_' || c == '~' }

// isPathByte is what may stand unescaped in a path: pchar and "/" (RFC 3986 §3.3).
func isPathByte(c byte) bool {
	return isUnreserved(c) || strings.IndexByte("/!$&'()*+,;=:@", c) >= 0
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
