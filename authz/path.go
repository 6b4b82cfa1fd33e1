package authz

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// oddities are what only some routes take in a path.
type oddities struct{ encoded, notUTF8, doubled bool }

// fault is why a route that takes none of these refuses them.
func (o oddities) fault() error {
	switch {
	case o.encoded:
		return errEncoded
	case o.notUTF8:
		return errNotUTF8
	case o.doubled:
		return errDoubled
	}
	return nil
}

// CanonicalPath is the normal form of a raw path: escapes of unreserved
// characters decoded, hex digits upper case, bytes that RFC 3986 does not allow
// in a path escaped. What two programs could read in two ways is refused: see
// ErrTarget.
func CanonicalPath(raw string) (string, error) {
	path, odd, err := canonicalPath(raw)
	if err == nil {
		err = odd.fault()
	}
	return path, err
}

// canonicalPath is CanonicalPath for routes that take odd paths.
func canonicalPath(raw string) (path string, odd oddities, err error) {
	if raw == "" || raw[0] != '/' {
		return "", odd, errNoPath
	}
	if plainPath(raw) {
		odd.doubled, err = checkSegments(raw)
		return raw, odd, err
	}
	const hex = "0123456789ABCDEF"
	out := make([]byte, 0, len(raw)+16)
	decoded := make([]byte, 0, len(raw)) // only to check that it is UTF-8
	for i := 0; i < len(raw); i++ {
		c, escaped := raw[i], false
		if c == '%' {
			if i+2 >= len(raw) || unhex(raw[i+1]) < 0 || unhex(raw[i+2]) < 0 {
				return "", oddities{}, errEscape
			}
			c, escaped = byte(unhex(raw[i+1])<<4|unhex(raw[i+2])), true
			i += 2
		}
		if err := forbidden(c, escaped); err != nil {
			return "", oddities{}, err
		}
		odd.encoded = odd.encoded || (escaped && strings.IndexByte("/%#?;", c) >= 0)
		decoded = append(decoded, c)
		if isUnreserved(c) || (!escaped && isPathByte(c)) {
			out = append(out, c)
		} else {
			out = append(out, '%', hex[c>>4], hex[c&15])
		}
	}
	if odd.notUTF8 = !utf8.Valid(decoded); odd.notUTF8 && Overlong(decoded) {
		return "", oddities{}, errOverlong
	}
	path = string(out)
	if odd.doubled, err = checkSegments(path); err == nil && odd.encoded {
		err = checkDecoded(path)
	}
	return path, odd, err
}

// Overlong reports whether a careless decoder would read an ASCII character out
// of bytes that are not UTF-8 (RFC 3629 §10). In older encodings the same bytes
// are letters, of which two such hardly ever follow each other.
func Overlong(b []byte) bool {
	for i := 0; i+1 < len(b); i++ {
		next := b[i+1]
		switch c := b[i]; {
		case c == 0xc0 || c == 0xc1: // IIS once took any byte for the second one
			if next < 0xc0 && !isAlnum(next) {
				return true
			}
		case c == 0xe0 && 0x80 <= next && next < 0xa0, c == 0xf0 && 0x80 <= next && next < 0x90,
			c == 0xf8 && 0x80 <= next && next < 0x88, c == 0xfc && 0x80 <= next && next < 0x84:
			return true
		}
	}
	return false
}

// checkDecoded checks what an app sees that decodes the path, once or twice: dot
// segments and controls are refused there too. Empty segments are not: a
// RabbitMQ virtual host is called %2F.
func checkDecoded(path string) error {
	decoded := decodeAll(path)
	for i := 0; i < len(decoded); i++ {
		if c := decoded[i]; c < ' ' || c == 0x7f || c == '\\' {
			return errHidden
		}
	}
	for segment := range strings.SplitSeq(decoded, "/") {
		if isDots(segment) {
			return errHiddenDots
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
// path that two programs must read alike. Dots are looked at once they are
// decoded: an escaped one is the same character (RFC 3986 §6.2.2.2).
func forbidden(c byte, escaped bool) error {
	switch {
	case c < ' ' || c == 0x7f:
		return errControl
	case c == '\\':
		return errBackslash
	case !escaped && c == '#':
		return errHash
	case !escaped && c == '?':
		return errQuestion
	}
	return nil
}

// checkSegments refuses dot segments, and reports empty ones, of which the first
// is refused too: "//admin/x" is a host to many readers (CVE-2026-26205).
func checkSegments(path string) (doubled bool, err error) {
	start := 1
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		segment := path[start:i]
		if segment == "" && i < len(path) {
			if start == 1 {
				return false, errLeadingSlashes
			}
			doubled = true
		}
		start = i + 1
		if strings.IndexByte(segment, '.') < 0 {
			continue
		}
		if name, _ := unescape(segment); isDots(name) {
			return false, errDots
		}
	}
	return doubled, nil
}

// isDots reports whether a segment is "." or "..", also where parameters or
// blanks hide it: some servers drop what follows ";" ("/open/..;/admin"), some
// file systems drop the blank ("/open/..%20/admin").
func isDots(segment string) bool {
	name, _, _ := strings.Cut(segment, ";")
	dots := 0
	for _, r := range name {
		switch {
		case r == '.':
			dots++
		case !unicode.IsSpace(r):
			return false
		}
	}
	return dots == 1 || dots == 2
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
