package lean

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
)

// Takes reports whether r may be sent by a Transport: a GET or HEAD without a body, of
// which all is as usual. NTLM and Negotiate are the caller's to know: it sets Close.
func Takes(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if r.Body != nil && r.Body != http.NoBody || r.ContentLength != 0 || r.Close ||
		r.TransferEncoding != nil || r.Trailer != nil || r.URL.Opaque != "" || !plain(r.Host) {
		return false
	}
	for _, name := range framing {
		if _, there := r.Header[name]; there {
			return false
		}
	}
	return true
}

// framing are the fields by which a message says more of itself or its connection than
// that it has no body.
var framing = [...]string{"Connection", "Content-Length", "Expect", "Host", "Trailer", "Transfer-Encoding", "Upgrade"}

// plain reports whether host is one that net/http would send as it is.
func plain(host string) bool {
	for i := range len(host) {
		switch c := host[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return host != ""
}

// head is the header of a request as it is sent, byte for byte what net/http sends.
type head struct {
	bytes []byte
	names []string
}

// keep bounds the memory that a head holds between two requests.
const keep = 16 << 10

// write makes the head of r. Of User-Agent the first value alone is sent, and none is
// added. An error says that the request must not be sent: it has bytes that would end a
// line, or are none of HTTP (RFC 9110 §5.5).
func (h *head) write(r *http.Request) error {
	if cap(h.bytes) > keep {
		h.bytes = nil
	}
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	if !clean(path) || !clean(r.URL.RawQuery) {
		return errors.New("a space or a control character in the address of the request")
	}
	b := append(h.bytes[:0], r.Method...)
	b = append(append(b, ' '), path...)
	if r.URL.ForceQuery || r.URL.RawQuery != "" {
		b = append(append(b, '?'), r.URL.RawQuery...)
	}
	b = append(append(append(b, " HTTP/1.1\r\nHost: "...), r.Host...), "\r\n"...)
	var err error
	if agent := r.Header["User-Agent"]; len(agent) > 0 && agent[0] != "" {
		b, err = field(b, "User-Agent", agent[0])
	}
	h.names = h.names[:0]
	for name := range r.Header {
		if name != "User-Agent" {
			h.names = append(h.names, name)
		}
	}
	slices.Sort(h.names)
	for _, name := range h.names {
		for _, value := range r.Header[name] {
			if err == nil {
				b, err = field(b, name, value)
			}
		}
	}
	h.bytes = append(b, "\r\n"...)
	clear(h.names) // or the pool would keep alive what they are parts of
	return err
}

// clean reports whether there is no space and no control character in s.
func clean(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// field appends one line. The error quotes no value.
func field(b []byte, name, value string) ([]byte, error) {
	if name == "" {
		return b, errors.New("a field without a name")
	}
	for i := range len(name) {
		if !token(name[i]) {
			return b, fmt.Errorf("%q is no name of a field", name)
		}
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return b, fmt.Errorf("a control character in %s", name)
		}
	}
	b = append(append(b, name...), ": "...)
	return append(append(b, textproto.TrimString(value)...), "\r\n"...), nil
}

// token is tchar of RFC 9110 §5.6.2.
func token(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
		return true
	}
	return false
}
