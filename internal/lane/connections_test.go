package lane_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/lane"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// requests are whole ones, most of which the lane does not take.
var requests = []string{
	get,
	"HEAD /h HTTP/1.1\r\nHost: a:80\r\nConnection: keep-alive\r\n\r\n",
	"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
	"PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: late\r\n\r\n",
	"GET /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
	"GET /l HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
	"GET /o HTTP/1.0\r\n\r\n",
	"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"GET /long HTTP/1.1\r\nHost: a\r\nCookie: " + strings.Repeat("a=b; ", 1500) + "\r\n\r\n",
}

// vocabulary is what connections of FuzzConnections are made of. Its order is what the kept
// inputs mean: new words come last.
var vocabulary = append(requests[:len(requests):len(requests)],
	"GET ", "HEAD ", "POST ", "get ", "/", "/a%2f..;b", "?c=%zz", "//x", "#f", " HTTP/1.1", " HTTP/1.1\r\n",
	" HTTP/1.0\r\n", " HTTP/2.0\r\n", "\r\n", "\n", "\r", " ", "\t", ":", "\r\n\r\n", "\x00", "\xff", "Host: a\r\n",
	"Host:\r\n", "host : a\r\n", "Host: a/b\r\n", "Host: [::1]:8\r\n", "Host: a b\r\n", "Content-Length: 0\r\n",
	"Content-Length: 5\r\n", "Content-Length: +5\r\n", "content-length: 5, 5\r\n", "Transfer-Encoding: chunked\r\n",
	"Transfer-Encoding : chunked\r\n", "Transfer-Encoding: identity\r\n", "TE: trailers\r\n", "Trailer: X-T\r\n",
	"Upgrade: websocket\r\n", "Upgrade: h2c\r\n", "HTTP2-Settings: AAMAAABk\r\n", "Connection: upgrade\r\n",
	"Connection: Keep-Alive\r\n", "Connection: keep-alive, x-a\r\n", "Proxy-Connection: keep-alive\r\n",
	"Expect: 100-continue\r\n", "Pragma: no-cache\r\n", "Cache-Control: max-age=0\r\n", "X-A: 1\r\n", "x-a:  2\t\r\n",
	"X_A: 3\r\n", " folded\r\n", "X-B: \x01\r\n", "X-C: \xc3\xa9\r\n", ": none\r\n", "no colon\r\n",
	"5\r\nhello\r\n", "0\r\n\r\n", "5;x=y\r\n", "hello",
)

// raw is where bytes of a program begin that stand for characters.
const raw = 0x80

// program is what spells words.
func program(tb testing.TB, words ...string) (program []byte) {
	tb.Helper()
	for _, word := range words {
		at := slices.Index(vocabulary, word)
		if at < 0 {
			tb.Fatalf("%q is no word", word)
		}
		program = append(program, byte(at))
	}
	return program
}

// spell has the words of a program, and characters.
func spell(program []byte) string {
	var b strings.Builder
	for _, c := range program {
		switch {
		case c >= raw:
			b.WriteByte(c - raw)
		case int(c) < len(vocabulary):
			b.WriteString(vocabulary[c])
		}
	}
	return b.String()
}

// FuzzConnections sends the same to both, and ends: whatever comes of it, in whatever pieces it
// is read, is answered with the same bytes, by a handler that has seen the same.
func FuzzConnections(f *testing.F) {
	for _, word := range vocabulary {
		f.Add(program(f, get, word, get), uint16(0))
		f.Add(program(f, "GET ", "/", " HTTP/1.1\r\n", "Host: a\r\n", word, "\r\n", get), uint16(7))
		f.Add(program(f, "POST ", "/", " HTTP/1.1\r\n", "Host: a\r\n", "Content-Length: 5\r\n", word, "\r\n",
			"hello", get), uint16(1))
	}
	for _, request := range requests { // cut off
		cut := program(f, get)
		for _, c := range []byte(request[:min(len(request)/2, 90)]) {
			cut = append(cut, c+raw)
		}
		f.Add(cut, uint16(3))
	}
	s, most := newAlikes(f)
	f.Fuzz(func(t *testing.T, program []byte, piece uint16) {
		text := spell(program)
		if len(text) > 60<<10 {
			return
		}
		most.Store(int32(piece))
		alike(t, s, text, int(piece))
	})
}

// Where a line of a good head belongs, and after a whole request.
func TestP03_AnyTwoWordsAreReadAlike(t *testing.T) {
	t.Parallel()
	s, _ := newAlikes(t)
	eachOfAnyTwo(t, vocabulary, func(t *testing.T, text string) {
		alike(t, s, "GET /w HTTP/1.1\r\nHost: a\r\n"+text+"\r\n"+get, 0)
		alike(t, s, get+text+get, 0)
	})
}

// newAlikes starts a site whose handler tells all, and has what it reads in pieces of most bytes.
func newAlikes(tb testing.TB) (s *site, most *atomic.Int32) {
	tb.Helper()
	most = &atomic.Int32{}
	return newSiteOn(tb, func(l testenv.Unreading) net.Listener { return inPieces{l, most} }, http.HandlerFunc(tellAll),
		func(srv *http.Server) { srv.ReadTimeout = 10 * time.Second }), most
}

// alike fails where both do not answer text with the same.
func alike(t *testing.T, s *site, text string, piece int) {
	t.Helper()
	if mine, theirs := whole(t, s.addr, text), whole(t, s.bare, text); mine != theirs {
		t.Errorf("%q in pieces of %d, by the lane:\n%s\nby net/http:\n%s", text, piece, mine, theirs)
	}
}

// tellAll answers with all that a handler is told, in one piece.
func tellAll(w http.ResponseWriter, r *http.Request) {
	var told bytes.Buffer
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(&told, "%s %q %q %q %q %t %s %q %d %v %t\n", r.Method, r.RequestURI, r.URL.Path, r.URL.RawPath,
		r.URL.RawQuery, r.URL.ForceQuery, r.Proto, r.Host, r.ContentLength, r.TransferEncoding, r.Close)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		fmt.Fprintf(&told, "%q: %q\n", name, r.Header[name])
	}
	fmt.Fprintf(&told, "%q %v %q\n\n", body, err, r.Trailer)
	w.Header()["Date"] = nil
	_, _ = w.Write(told.Bytes())
}

// whole is all that comes back for text, at whose end the client ends its side.
func whole(t *testing.T, addr, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	check(t, err)
	defer c.Close()
	check(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	_, _ = io.WriteString(c, text) // the server may have closed already
	_ = c.(*net.TCPConn).CloseWrite()
	said, err := io.ReadAll(c)
	if timeout, is := err.(net.Error); is && timeout.Timeout() {
		t.Fatalf("%q: no end in time, after %q", text, said)
	}
	return dateLess(string(said))
}

// inPieces accepts connections of which at most so many bytes are read at a time; 0: as they come.
type inPieces struct {
	testenv.Unreading
	most *atomic.Int32
}

// Accept implements net.Listener.
func (l inPieces) Accept() (net.Conn, error) {
	c, err := l.Unreading.Accept()
	if err != nil {
		return nil, err
	}
	return piecewise{c.(lane.Conn), l.most}, nil
}

type piecewise struct {
	lane.Conn
	most *atomic.Int32
}

// Read implements net.Conn.
func (c piecewise) Read(p []byte) (int, error) {
	if most := int(c.most.Load()); most > 0 && len(p) > most {
		p = p[:most]
	}
	return c.Conn.Read(p)
}

// Close implements net.Conn. What was not read would have the kernel reset the connection, and
// take from the client what it was answered.
func (c piecewise) Close() error {
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.Copy(io.Discard, c.Conn)
	return c.Conn.Close()
}

// SyscallConn implements syscall.Conn.
func (c piecewise) SyscallConn() (syscall.RawConn, error) { return c.Conn.(syscall.Conn).SyscallConn() }
