package lane

import (
	"bytes"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"time"
)

// maxHead is how long the head of a request may be, in bytes. A longer one is net/http's.
const maxHead = 8 << 10

// readHead waits for a whole head. Not whole, it is what has come of a request that is not
// the lane's, or nil where the connection is over.
func (c *conn) readHead() (head []byte, whole bool) {
	searched, lines := 0, 0
	for {
		if end := bytes.Index(c.in[searched:], endOfHead); end >= 0 {
			if n := searched + end + len(endOfHead); n <= c.limit {
				return c.in[:n], true
			}
			return c.in, false
		}
		hasBegun := len(c.in) >= begun || c.first && len(c.in) > 0
		if hasBegun {
			if lines = plainLines(c.in, lines); lines < 0 || !begins(c.in) || len(c.in) >= c.limit {
				return c.in, false
			}
		}
		searched = max(0, len(c.in)-len(endOfHead)+1)
		switch err := c.read(); {
		case err == nil:
		case err == io.EOF && hasBegun:
			return c.in, false // net/http says to the client that its request was cut off
		default:
			return nil, false
		}
	}
}

// begun is how many bytes net/http waits for before it reads a request that is not the first of
// its connection. With fewer, a connection that ends is only closed.
const begun = 4

var endOfHead = []byte("\r\n\r\n")

// begins reports whether in may be the beginning of a request that the lane takes.
func begins(in []byte) bool {
	for _, method := range [...]string{"GET /", "HEAD /"} {
		n := min(len(in), len(method))
		if string(in[:n]) == method[:n] {
			return true
		}
	}
	return false
}

// comesLate reports whether what came would have the server speak HTTP/2, after requests of
// HTTP/1.1: to the server it would be the beginning of a connection, where alone that may stand
// (RFC 9113 §3.4). Whoever has followed the connection since the beginning (the limit for header blocks, a
// stop) takes the connection for one of HTTP/1.1. PRI is nobody's method (RFC 9113 §11.6).
func (c *conn) comesLate() bool {
	spoken := c.lane.server.Protocols
	return !c.first && spoken != nil && spoken.UnencryptedHTTP2() && bytes.HasPrefix(c.in, []byte("PRI "))
}

// tooLate is what net/http says to any other request of HTTP/2.0 within HTTP/1.1.
const tooLate = "HTTP/1.1 505 HTTP Version Not Supported: unsupported protocol version\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" +
	"505 HTTP Version Not Supported: unsupported protocol version"

// plainLines looks at the lines that are complete, from the offset at which those end that it
// has seen, and returns where they end now, -1 if there is one that the lane does not take:
// net/http refuses that at once, and does not wait for the rest of the head.
func plainLines(in []byte, from int) int {
	for {
		end := bytes.IndexByte(in[from:], '\n')
		if end < 0 {
			return from
		}
		line, is := strings.CutSuffix(string(in[from:from+end+1]), "\r\n")
		switch {
		case !is, from == 0 && !strings.HasSuffix(line, " HTTP/1.1"):
			return -1
		case from > 0:
			if _, _, is := cutField(line); !is {
				return -1
			}
		}
		from += end + 1
	}
}

// read adds to what was read, with an error if nothing came in time: within the server's
// limit for idle connections if it is for the first byte of a request, and within that for
// heads from then on. Of the first request on a connection the latter counts from the
// beginning.
func (c *conn) read() error {
	s := c.lane.server
	switch idle := len(c.in) == 0; {
	case idle && !c.first:
		limit := firstOf(s.IdleTimeout, s.ReadTimeout)
		c.limitReading(limit, slack(limit))
	case idle:
		c.limitReading(firstOf(s.ReadHeaderTimeout, s.ReadTimeout), 0)
	case !c.partial && !c.first:
		c.partial = true
		c.limitReading(firstOf(s.ReadHeaderTimeout, s.ReadTimeout), 0)
	}
	if cap(c.in)-len(c.in) < 512 {
		c.in = append(make([]byte, 0, max(bufferSize, 2*cap(c.in))), c.in...)
	}
	n, err := c.net.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	if n > 0 {
		return nil // an error shows again
	}
	return err
}

const bufferSize = 4 << 10

func firstOf(limits ...time.Duration) time.Duration {
	for _, d := range limits {
		if d != 0 {
			return d
		}
	}
	return 0
}

// plain is a request that the lane takes. Nothing of it is used for another one, so that who
// keeps it does no harm.
type plain struct {
	request *http.Request
	url     url.URL
	context requestContext
	values  [16]string // of its header, if they are no more
}

// parse returns the request of a whole head, nil if it is not the lane's: a GET or HEAD of a
// path, in HTTP/1.1, with one host, lines that end with CRLF and are not folded, names and
// values of ordinary bytes, and none of the fields by which a message says more of itself or
// its connection (RFC 9110 §7.6.1, RFC 9112 §6).
func (c *conn) parse(raw []byte) *plain {
	head := string(raw)
	line, rest, _ := strings.Cut(head, "\r\n")
	method, line, _ := strings.Cut(line, " ")
	target, proto, _ := strings.Cut(line, " ")
	if method != http.MethodGet && method != http.MethodHead || proto != "HTTP/1.1" {
		return nil
	}
	p := &plain{}
	if !p.setTarget(target) {
		return nil
	}
	header, host := readFields(rest, p.values[:0])
	if header == nil {
		return nil
	}
	if c.ctx == nil {
		c.know()
	}
	p.context.conn = c
	r := http.Request{Method: method, URL: &p.url, Proto: proto, ProtoMajor: 1, ProtoMinor: 1, Header: header,
		Body: http.NoBody, Host: host, RemoteAddr: c.remote, RequestURI: target}
	p.request = r.WithContext(&p.context) // a copy
	return p
}

// setTarget takes a path with or without a query.
func (p *plain) setTarget(target string) bool {
	if target == "" || target[0] != '/' {
		return false
	}
	for i := range len(target) {
		if target[i] <= ' ' || target[i] >= 0x7f {
			return false
		}
	}
	if path, query, asks := strings.Cut(target, "?"); simple(path) {
		p.url.Path, p.url.RawQuery, p.url.ForceQuery = path, query, asks && query == ""
		return true
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return false
	}
	p.url = *u
	return true
}

// simple reports whether path is one that net/url has nothing to say of.
func simple(path string) bool {
	for i := range len(path) {
		switch c := path[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '/', c == '.', c == '-', c == '_', c == '~':
		default:
			return false
		}
	}
	return true
}

// added is how many fields a handler adds to a request's header, about: those who pass it on
// to an app say who asks, and from where. A map that has to grow costs more than one with room.
const added = 12

// readFields reads the lines of a header, the empty one at its end included. Its values are put
// into values, if they have room there. A nil header is of one that is not the lane's.
func readFields(lines string, values []string) (header http.Header, host string) {
	n := strings.Count(lines, "\n") - 1
	if n < 1 {
		return nil, ""
	}
	header = make(http.Header, n+added)
	if cap(values) < n {
		values = make([]string, 0, n)
	}
	for lines != "\r\n" {
		line, rest, _ := strings.Cut(lines, "\r\n")
		name, value, is := cutField(line)
		if !is {
			return nil, ""
		}
		lines = rest
		name = textproto.CanonicalMIMEHeaderKey(name)
		switch name {
		case "Host":
			if host != "" || !isHost(value) {
				return nil, ""
			}
			host = value
			continue
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return nil, ""
			}
		case "Content-Length", "Expect", "Http2-Settings", "Proxy-Connection", "Te", "Trailer",
			"Transfer-Encoding", "Upgrade":
			return nil, ""
		}
		if earlier, again := header[name]; again {
			header[name] = append(earlier, value)
			continue
		}
		values = append(values, value)
		header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	if host == "" {
		return nil, ""
	}
	// As net/http reads it (RFC 9111 §5.4).
	if pragma := header["Pragma"]; len(pragma) > 0 && pragma[0] == "no-cache" && header["Cache-Control"] == nil {
		header["Cache-Control"] = []string{"no-cache"}
	}
	return header, host
}

// cutField takes a line apart, without its end.
func cutField(line string) (name, value string, ok bool) {
	name, value, is := strings.Cut(line, ":")
	value = strings.Trim(value, " \t")
	return name, value, is && isToken(name) && isValue(value)
}

// isToken is RFC 9110 §5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if !isTokenChar(s[i]) {
			return false
		}
	}
	return s != ""
}

func isTokenChar(c byte) bool {
	const (
		digits  = (1<<10 - 1) << '0'
		letters = (1<<26-1)<<'A' | (1<<26-1)<<'a'
		marks   = 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.' | 1<<'^' |
			1<<'_' | 1<<'`' | 1<<'|' | 1<<'~'
		all = digits | letters | marks
	)
	return (uint64(1)<<c)&(all&(1<<64-1))|(uint64(1)<<(c-64))&(all>>64) != 0
}

// isValue is RFC 9110 §5.5.
func isValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isHost reports whether s is a name or address with or without a port, of ordinary bytes.
func isHost(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return s != ""
}
