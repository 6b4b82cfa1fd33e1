package lane_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// HTTP/2 without TLS begins a connection or never: after a request of HTTP/1.1 it was begun in the
// middle, past the limit for header blocks, which looks at how a connection begins.
func TestP17_HTTP2DoesNotBeginInTheMiddleOfAConnection(t *testing.T) {
	t.Parallel()
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	s := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method) }),
		func(s *http.Server) {
			s.Protocols = &http.Protocols{}
			s.Protocols.SetHTTP1(true)
			s.Protocols.SetUnencryptedHTTP2(true)
		})
	said := func(addr string, parts ...string) string {
		c, err := net.Dial("tcp", addr)
		check(t, err)
		defer c.Close()
		for _, part := range parts {
			send(t, c, part)
			time.Sleep(20 * time.Millisecond) // so that it is read apart
		}
		check(t, c.(*net.TCPConn).CloseWrite())
		check(t, c.SetDeadline(time.Now().Add(20*time.Second)))
		all, err := io.ReadAll(c)
		check(t, err)
		return string(all)
	}
	for _, parts := range [][]string{{get, preface + settings}, {get + preface + settings},
		{get, preface[:3], preface[3:] + settings}} {
		for _, addr := range []string{s.addr, s.bare} {
			answer := said(addr, parts...)
			if first, rest, _ := strings.Cut(answer, "GET"); !strings.HasPrefix(first, "HTTP/1.1 200 ") ||
				!strings.HasPrefix(rest, "HTTP/1.1 ") || !strings.Contains(rest, "\r\nConnection: close\r\n") {
				t.Errorf("%q, lane %t: %q", parts, addr == s.addr, answer)
			}
		}
	}
	for _, addr := range []string{s.addr, s.bare} { // a connection may begin with it
		if answer := said(addr, preface+settings); !strings.HasPrefix(answer, "\x00\x00") {
			t.Errorf("lane %t: %q", addr == s.addr, answer)
		}
	}
}
