package lane

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// seeds are heads that clients send, and some that are nearly so.
var seeds = []string{
	"GET /a?b=c HTTP/1.1\r\nHost: app.example\r\n\r\n",
	"HEAD / HTTP/1.1\r\nHost: a:80\r\nConnection: keep-alive\r\n\r\n",
	"GET /%2e%2E/a;b=c,d/*'()!@$&+=:?x=%zz&?y HTTP/1.1\r\nHost: [::1]:80\r\nUser-Agent:  a b\t\r\n\r\n",
	"GET //a//b HTTP/1.1\r\nHost: a\r\nx-b: 1\r\nX-B: 2\r\nx_b: 3\r\nCookie: a=b; c=d\r\ncookie: e=f\r\n\r\n",
	"GET /a? HTTP/1.1\r\nHost: a\r\nPragma: no-cache\r\nPragma: x\r\nEmpty:\r\n\r\n",
	"GET /?a?b#c HTTP/1.1\r\nhost: a\r\nPragma: no-cache\r\nCache-Control: max-age=0\r\n\r\n",
	"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\nB: \xff\x80\r\n\r\n",
	"GET /a\"<>[]{}|\\^` HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip, deflate, br\r\nIf-None-Match: \"x\"\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
}

// Whatever the lane takes is what net/http's server would have given its handler, field for
// field, and is followed by the same bytes.
func FuzzWhatTheLaneTakes(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
		f.Add([]byte(s + seeds[0]))
		f.Add([]byte(strings.ReplaceAll(s, "\r\n", "\n")))
		f.Add([]byte(strings.Replace(s, "\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 1)))
	}
	l := unserved()
	f.Fuzz(func(t *testing.T, raw []byte) { takes(t, l, raw) })
}

// unserved is a Lane that only reads.
func unserved() *Lane {
	l := New(&http.Server{}, nil)
	l.base = context.Background()
	return l
}

// takes reports whether the lane takes raw, and fails where net/http reads something else then.
func takes(t *testing.T, l *Lane, raw []byte) bool {
	t.Helper()
	c := &conn{lane: l, net: still{}, limit: maxHead, in: raw}
	head, whole := c.readHead()
	if !whole {
		if !bytes.Equal(head, raw) && head != nil {
			t.Fatalf("of %q %q is handed over", raw, head)
		}
		return false
	}
	mine := c.parse(head)
	if mine == nil {
		return false
	}
	in := bufio.NewReader(bytes.NewReader(raw))
	theirs, err := http.ReadRequest(in)
	if err != nil {
		t.Fatalf("net/http refuses %q: %v", raw, err)
	}
	if problem := refusedByServer(theirs); problem != "" {
		t.Fatalf("net/http's server refuses %q: %s", raw, problem)
	}
	theirs.Header.Del("Host")
	same(t, raw, mine.request, theirs)
	rest, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rest, raw[len(head):]) {
		t.Fatalf("after %q come %q and %q", head, raw[len(head):], rest)
	}
	return true
}

// What fuzzing finds by chance, in full for heads that are nearly a good one: each byte in each
// place, put in, instead of the one there, or that one left out; and any two bytes that mean
// something in any two places. Two bytes of any kind, side by side, with SALLYPORT_CAMPAIGN=1.
func TestP03_HeadsThatAreNearlyGoodAreReadAlike(t *testing.T) {
	l := unserved()
	tried, taken := 0, 0
	try := func(parts ...string) {
		tried++
		if takes(t, l, []byte(strings.Join(parts, ""))) {
			taken++
		}
	}
	for _, good := range seeds {
		for i := range len(good) {
			before, at, after := good[:i], good[i:i+1], good[i+1:]
			try(before, after)
			for b := range 256 {
				put := string([]byte{byte(b)})
				try(before, put, at, after)
				try(before, put, after)
			}
		}
	}
	short := "GET /a?b HTTP/1.1\r\nHost: a:1\r\nC:d\r\n\r\n"
	const meaning = "\r\n\t :/?#%@[\x00\x7f\x80H"
	for i := range len(short) {
		for j := i + 1; j <= len(short); j++ {
			for _, b := range []byte(meaning) {
				for _, c := range []byte(meaning) {
					one, other := string([]byte{b}), string([]byte{c})
					try(short[:i], one, short[i:j], other, short[j:])
					try(short[:i], one, short[i+1:j], other, short[min(j+1, len(short)):])
				}
			}
		}
	}
	if os.Getenv("SALLYPORT_CAMPAIGN") != "" {
		for i := range len(short) {
			for pair := range 1 << 16 {
				put := string([]byte{byte(pair >> 8), byte(pair)})
				try(short[:i], put, short[i:])
				try(short[:i], put, short[min(i+2, len(short)):])
			}
		}
	}
	t.Logf("of %d the lane takes %d", tried, taken)
	if taken < 50_000 || taken > tried/2 {
		t.Errorf("of %d the lane takes %d", tried, taken)
	}
}

// These say more of a message or its connection, whatever else is there (RFC 9110 §7.6.1).
func TestP03_FieldsOfAConnectionAreNotTheLanes(t *testing.T) {
	l := unserved()
	for line, is := range map[string]bool{"Content-Length: 0": false, "Transfer-Encoding: identity": false,
		"Upgrade: websocket": false, "Expect: 100-continue": false, "Trailer: X": false, "TE: trailers": false,
		"HTTP2-Settings: AAMAAABk": false, "Proxy-Connection: keep-alive": false, "Connection: close": false,
		"Connection: X": false, "Connection: keep-alive, X": false, "Connection:": false, "Host: a": false,
		"Connection: Keep-Alive": true, "X-Host: a": true} {
		for _, line := range []string{line, strings.ToLower(line), strings.ToUpper(line)} {
			for _, head := range []string{"Host: a\r\n" + line, line + "\r\nHost: a"} {
				if got := takes(t, l, []byte("GET / HTTP/1.1\r\n"+head+"\r\n\r\n")); got != is {
					t.Errorf("%q is taken: %t", head, got)
				}
			}
		}
	}
}

// A browser's request, and what a proxy adds to it.
func TestAHeaderHasRoomForWhatAHandlerAdds(t *testing.T) {
	l := unserved()
	c := &conn{lane: l, net: still{}, limit: maxHead}
	head := []byte("GET /reports HTTP/1.1\r\nHost: app.example\r\nUser-Agent: a\r\nAccept: */*\r\n" +
		"Accept-Language: en\r\nAccept-Encoding: gzip\r\nCookie: a=b\r\nSec-Fetch-Mode: cors\r\n" +
		"Sec-Fetch-Dest: empty\r\nSec-Fetch-Site: none\r\n\r\n")
	names, value := strings.Split("ABCDEFGHIJKL", ""), []string{"x"}
	read := func() http.Header { return c.parse(head).request.Header }
	read()
	alone := testing.AllocsPerRun(100, func() { read() })
	added := testing.AllocsPerRun(100, func() {
		h := read()
		for _, name := range names {
			h[name] = value
		}
	})
	if alone > 7 || added != alone {
		t.Errorf("%v allocations, and %v with what is added", alone, added)
	}
}

// still is a connection from which nothing more comes.
type still struct{ Conn }

func (still) Read([]byte) (int, error)        { return 0, io.EOF }
func (still) SetReadDeadline(time.Time) error { return nil }
func (still) RemoteAddr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }
func (still) LocalAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 2} }

// refusedByServer is what net/http's server checks after ReadRequest, as its conn.readRequest
// and conn.serve do.
func refusedByServer(r *http.Request) string {
	switch {
	case r.ProtoMajor != 1 || r.ProtoMinor != 1:
		return "version"
	case r.Host == "" || strings.ContainsAny(r.Host, "/\\@ \t\"<>#?"):
		return "host"
	case r.Header.Get("Expect") != "":
		return "expect"
	}
	for name, values := range r.Header {
		if strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune("()<>@,;:\\\"/[]?={}", c) }) {
			return "name"
		}
		for _, v := range values {
			if strings.ContainsFunc(v, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
				return "value"
			}
		}
	}
	return ""
}

func same(t *testing.T, raw []byte, mine, theirs *http.Request) {
	t.Helper()
	type fields struct {
		Method, Proto, Host, RequestURI string
		URL                             url.URL
		Major, Minor                    int
		Header                          http.Header
		Length                          int64
		Encoding                        []string
		Close, NoBody                   bool
		Trailer                         http.Header
	}
	of := func(r *http.Request) fields {
		return fields{r.Method, r.Proto, r.Host, r.RequestURI, *r.URL, r.ProtoMajor, r.ProtoMinor, r.Header,
			r.ContentLength, r.TransferEncoding, r.Close, r.Body == http.NoBody, r.Trailer}
	}
	if a, b := of(mine), of(theirs); !reflect.DeepEqual(a, b) {
		t.Fatalf("%q is read as\n%+v, by net/http as\n%+v", raw, a, b)
	}
}

// A head is as long as it may be, or the server's, however it comes.
func TestALongHeadIsNotTheLanes(t *testing.T) {
	t.Parallel()
	for _, n := range []int{maxHead, maxHead + 1, 2 * maxHead} {
		raw := []byte("GET / HTTP/1.1\r\nHost: a\r\nX: ")
		raw = append(raw, bytes.Repeat([]byte("x"), n-len(raw)-4)...)
		c := &conn{net: still{}, limit: maxHead, in: append(raw, "\r\n\r\n"...)}
		if head, whole := c.readHead(); whole != (n <= maxHead) || len(head) != n {
			t.Errorf("of %d bytes %d are one head: %t", n, len(head), whole)
		}
	}
}
