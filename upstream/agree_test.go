package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// scripted is an app of bytes. It answers the first request of a connection as one should,
// and the others with the script, after which it hangs up.
type scripted struct {
	*url.URL
	script atomic.Pointer[string]
	got    atomic.Int32
}

func startScripted(tb testing.TB) *scripted {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Check(tb, err)
	tb.Cleanup(func() { l.Close() })
	s := &scripted{URL: &url.URL{Scheme: "http", Host: l.Addr().String()}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s
}

func (s *scripted) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for n := 0; ; n++ {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		s.got.Add(1)
		if n == 0 {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
			if r.Method != http.MethodHead {
				_, _ = io.WriteString(c, "first")
			}
			continue
		}
		_, _ = io.WriteString(c, *s.script.Load())
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, in) // or what was written might not arrive
		return
	}
}

// outcome is all that somebody notices of a request that is answered by the script, and of
// the one after it.
// net/http gives a connection back beside its caller: rest is how long it may take.
func (s *scripted) outcome(t *testing.T, method string, standard bool, rest time.Duration) string {
	up, err := New(Options{URL: s.URL, Standard: standard})
	testenv.Check(t, err)
	defer up.Close()
	var out strings.Builder
	for range 3 {
		time.Sleep(rest)
		before := s.got.Load()
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				fmt.Fprintf(&out, "interim %d %q\n", code, h)
				return nil
			},
		})
		r, err := http.NewRequestWithContext(ctx, method, s.String()+"/", nil)
		testenv.Check(t, err)
		res, err := up.RoundTrip(r)
		fmt.Fprintf(&out, "unreachable %v, timeout %v, arrived %d\n",
			errors.Is(err, ErrUnreachable), errors.Is(err, ErrTimeout), s.got.Load()-before)
		if err != nil {
			continue
		}
		body, broken := "", error(nil)
		if res.StatusCode != http.StatusSwitchingProtocols { // relay refuses it
			b, err := io.ReadAll(res.Body)
			body, broken = string(b), err
		}
		res.Body.Close()
		fmt.Fprintf(&out, "%d %s %q, length %d, body %q, whole %v, trailers %q\n",
			res.StatusCode, res.Proto, res.Header, res.ContentLength, body, broken == nil, res.Trailer)
	}
	return out.String()
}

// A GET is answered in the same way, arrives as often, and leaves as little behind by either
// transport, whatever the app sends.
func FuzzBothTransportsAgree(f *testing.F) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, answer := range []string{
		ok + "Content-Length: 2\r\n\r\nok", ok + "Content-Length: 3\r\n\r\nok", ok + "Content-Length: 1\r\n\r\nok",
		ok + "\r\nok", "", "HTTP/1.1 2", ok, ok + "A: b\r\n", ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\nTrailer: A\r\n\r\n2\r\nok\r\n0\r\nA: b\r\nC: d\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", ok + "Transfer-Encoding: chunked\r\n\r\nx\r\n",
		ok + "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", ok + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
		ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", ok + "Content-Length: -1\r\n\r\n",
		"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nmore", "HTTP/1.1 101 S\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nok", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 99 x\r\n\r\n", "HTTP/1.1 1000 x\r\n\r\n", "HTTP/1.1 200\r\n\r\n", "ICY 200 OK\r\n\r\n",
		ok + "A : b\r\n\r\n", ok + " A: b\r\n\r\n", ok + "A\r\n\r\n", ok + "A: b\r\n c\r\n\r\n", ok + "A: \x00\r\n\r\n",
		ok + "Connection: close\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
		ok + "Content-Length: 2\r\n\r\nok" + ok + "Content-Length: 4\r\n\r\nevil", "\r\n\r\n" + ok + "\r\n", "\x16\x03\x01\x00\x00",
	} {
		f.Add(answer, false)
		f.Add(answer, true)
	}
	s := startScripted(f)
	log.SetOutput(io.Discard) // net/http writes a line there for what nobody asked for
	f.Cleanup(func() { log.SetOutput(os.Stderr) })
	f.Fuzz(func(t *testing.T, answer string, head bool) {
		if len(answer) > 64<<10 {
			return // the limit of a header is not exact
		}
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		s.script.Store(&answer)
		var mine, standard string
		for rest := time.Duration(0); rest < 2*time.Second; rest = 4*rest + time.Millisecond {
			mine, standard = s.outcome(t, method, false, rest), s.outcome(t, method, true, rest)
			if mine == standard {
				return
			}
		}
		t.Errorf("%s, answered with %q\nlean:\n%sstandard:\n%s", method, answer, mine, standard)
	})
}
