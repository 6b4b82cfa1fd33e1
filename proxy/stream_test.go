package proxy

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// soon is how long a test waits for what happens at once, on a machine that does much
// else. It is shorter than the limits that newTestSite gives a route by itself, so
// that what waits for one of those is not taken for it.
const soon = 20 * time.Second

// serveApp starts an app that is reached in one of the four ways.
func serveApp(tb testing.TB, way string, app http.HandlerFunc) *upstream.Upstream {
	tb.Helper()
	srv := httptest.NewUnstartedServer(app)
	srv.Config.ErrorLog = quiet()
	var o upstream.Options
	switch way {
	case "h2c":
		srv.Config.Protocols = new(http.Protocols)
		srv.Config.Protocols.SetHTTP1(true)
		srv.Config.Protocols.SetUnencryptedHTTP2(true)
		srv.Start()
		o.URL = mustURL(tb, "h2c://"+srv.Listener.Addr().String())
	case "https":
		srv.EnableHTTP2 = true
		srv.StartTLS()
		o.URL, o.Roots = mustURL(tb, srv.URL), x509.NewCertPool()
		o.Roots.AddCert(srv.Certificate())
	case "unix":
		socket := filepath.Join(tb.TempDir(), "app.sock")
		l, err := net.Listen("unix", socket)
		testenv.Check(tb, err)
		srv.Listener.Close()
		srv.Listener = l
		srv.Start()
		o.URL = mustURL(tb, "unix:"+socket)
	default:
		srv.Start()
		o.URL = mustURL(tb, srv.URL)
	}
	up, err := upstream.New(o)
	testenv.Check(tb, err)
	tb.Cleanup(srv.Close) // runs after the connections to it are dropped
	tb.Cleanup(up.Close)
	return up
}

// playApp is an app whose every connection follows a script. A script ends by
// returning; then the connection is closed.
func playApp(tb testing.TB, script func(*appPeer)) *upstream.Upstream {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Check(tb, err)
	tb.Cleanup(func() { l.Close() })
	go func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				script(&appPeer{Conn: c, in: bufio.NewReader(c), n: n})
			}()
		}
	}()
	up, err := upstream.New(upstream.Options{URL: mustURL(tb, "http://"+l.Addr().String())})
	testenv.Check(tb, err)
	tb.Cleanup(up.Close)
	return up
}

// appPeer is a connection as an app has it.
type appPeer struct {
	net.Conn
	in *bufio.Reader
	n  int // how many connections there were before
}

// head reads a request's line and header; "" if there is none any more.
func (p *appPeer) head() string {
	var out strings.Builder
	for {
		line, err := p.in.ReadString('\n')
		out.WriteString(line)
		if err != nil || line == "\r\n" {
			return out.String()
		}
	}
}

func (p *appPeer) say(text string) { _, _ = io.WriteString(p.Conn, text) }

// awaitEnd says nothing more until the other side has given up.
func (p *appPeer) awaitEnd() { _, _ = io.Copy(io.Discard, p.in) }

// reset ends the connection as a process that dies does.
func (p *appPeer) reset() {
	if c, ok := p.Conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = p.Conn.Close()
}

// pipeline is a request whose body the test writes while it reads the answer.
type pipeline struct {
	*io.PipeWriter
	answer chan result
}

type result struct {
	res *http.Response
	err error
}

func (s *testSite) stream(tb testing.TB, method, path string, headers ...string) *pipeline {
	tb.Helper()
	r, w := io.Pipe()
	req, err := http.NewRequestWithContext(tb.Context(), method, s.url+path, r)
	testenv.Check(tb, err)
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	p := &pipeline{w, make(chan result, 1)}
	go func() {
		res, err := s.transport.RoundTrip(req)
		p.answer <- result{res, err}
	}()
	tb.Cleanup(func() { w.Close() })
	return p
}

// begun waits for the answer's header.
func (p *pipeline) begun(tb testing.TB, within time.Duration) *http.Response {
	tb.Helper()
	select {
	case a := <-p.answer:
		testenv.Check(tb, a.err)
		tb.Cleanup(func() { a.res.Body.Close() })
		return a.res
	case <-time.After(within):
		tb.Fatalf("no answer within %v", within)
		return nil
	}
}

// readWithin reads n bytes, or to the end if n is negative.
func readWithin(tb testing.TB, r io.Reader, n int, within time.Duration) (string, error) {
	tb.Helper()
	type read struct {
		b   []byte
		err error
	}
	got := make(chan read, 1)
	go func() {
		if n < 0 {
			b, err := io.ReadAll(r)
			got <- read{b, err}
			return
		}
		b := make([]byte, n)
		k, err := io.ReadFull(r, b)
		got <- read{b[:k], err}
	}()
	select {
	case g := <-got:
		return string(g.b), g.err
	case <-time.After(within):
		tb.Errorf("not read within %v", within)
		return "", nil
	}
}

// everyWay runs a test for each protocol in front and each way to the app.
func everyWay(t *testing.T, test func(t *testing.T, front setup, way string)) {
	for _, tls := range []bool{false, true} {
		for _, way := range []string{"http", "https", "h2c", "unix"} {
			t.Run(fmt.Sprintf("%s to %s", map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[tls], way),
				func(t *testing.T) {
					test(t, setup{TLS: tls}, way)
				})
		}
	}
}

// A gRPC server ends a call while the client still has its half open and waits.
func TestAnAnswerEndsThoughTheClientIsStillSending(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, o setup, way string) {
		o.App = serveApp(t, way, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.Header().Set("Trailer", "X-End")
			b := make([]byte, 5)
			_, _ = io.ReadFull(r.Body, b)
			_, _ = w.Write(b)
			w.Header().Set("X-End", "yes")
		})
		s := newTestSite(t, o)
		p := s.stream(t, "POST", "/x", "Cookie: "+s.mint(t, alice()))
		_, err := io.WriteString(p, "hello")
		testenv.Check(t, err)
		res := p.begun(t, soon)
		body, err := readWithin(t, res.Body, -1, soon)
		if body != "hello" || err != nil || res.Trailer.Get("X-End") != "yes" {
			t.Errorf("%q %v, trailer %v", body, err, res.Trailer)
		}
	})
}

// hangUp ends a connection, or a stream of HTTP/2. Over HTTP/1.1 net/http would wait for
// the rest of the request first.
func hangUp(w http.ResponseWriter) {
	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		c.Close()
	}
	panic(http.ErrAbortHandler)
}

// An app that hangs up before it answers is seen to do so by a client that waits for its
// answer before it sends more, and no time limit is waited for.
func TestAnAppThatHangsUpInTheMiddleOfAnUploadIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ sends, interim bool }{
		"nothing sent": {}, "some sent": {sends: true}, "after an interim answer": {sends: true, interim: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			everyWay(t, func(t *testing.T, o setup, way string) {
				t.Parallel()
				o.Header, o.Idle = time.Minute, time.Minute
				var calls atomic.Int32
				o.App = serveApp(t, way, func(w http.ResponseWriter, r *http.Request) {
					calls.Add(1)
					if tt.sends {
						_, _ = io.ReadFull(r.Body, make([]byte, 5))
					}
					if tt.interim {
						w.WriteHeader(http.StatusProcessing)
					}
					hangUp(w)
				})
				s := newTestSite(t, o)
				p := s.stream(t, "POST", "/x", "Cookie: "+s.mint(t, alice()))
				if tt.sends {
					_, err := io.WriteString(p, "hello")
					testenv.Check(t, err)
				}
				if res := p.begun(t, soon); res.StatusCode != 502 {
					t.Errorf("answered %d", res.StatusCode)
				}
				if calls.Load() != 1 {
					t.Errorf("the app was asked %d times", calls.Load())
				}
			})
		})
	}
}

// An app that dies is seen to die also by a client that waits for its answer
// before it sends more.
func TestUpstreamDisconnectMidStreamReachesTheClient(t *testing.T) {
	t.Parallel()
	for _, tls := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS ", tls), func(t *testing.T) {
			s := newTestSite(t, setup{TLS: tls, App: playApp(t, func(p *appPeer) {
				p.head()
				p.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
				_, _ = io.ReadFull(p.in, make([]byte, len("5\r\nhello\r\n")))
				p.reset()
			})})
			p := s.stream(t, "POST", "/x", "Cookie: "+s.mint(t, alice()))
			_, err := io.WriteString(p, "hello")
			testenv.Check(t, err)
			res := p.begun(t, soon)
			if body, err := readWithin(t, res.Body, -1, soon); err == nil || body != "hello" {
				t.Errorf("%q, %v", body, err)
			}
		})
	}
}

// After a time limit the connection is of no more use, and says so.
func TestATimeoutDoesNotSpoilTheNextRequest(t *testing.T) {
	t.Parallel()
	// A busy machine needs more than a second for an answer that comes at once.
	s := newTestSite(t, setup{Header: 3 * time.Second, App: playApp(t, func(p *appPeer) {
		for {
			h := p.head()
			if h == "" || strings.HasPrefix(h, "GET /slow") {
				p.head() // until it is closed
				return
			}
			p.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})})
	w, cookie := s.wire(t), "Cookie: "+s.mint(t, alice())
	for range 3 {
		if a := w.do("GET", rawRequest("GET", "/slow", s.host, cookie)); a.status != 504 {
			t.Fatalf("answered %d", a.status)
		}
		if a := w.do("GET", rawRequest("GET", "/x", s.host, cookie)); a.status != 200 || a.body != "ok" {
			t.Fatalf("answered %d %q", a.status, a.body)
		}
	}
}

// Expect: an app that refuses does not get the body, and the client does not
// wait for the end of the answer.
func TestAnAppThatRefusesABodyIsHeardAtOnce(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"with a length": "HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno",
		"in chunks":     "HTTP/1.1 413 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
		"without body":  "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			app := make(chan string, 1)
			s := newTestSite(t, setup{App: playApp(t, func(p *appPeer) {
				p.head()
				p.say(answer)
				rest, _ := io.ReadAll(p.in)
				app <- string(rest)
			})})
			w := s.wire(t)
			w.dial()
			_, err := io.WriteString(w.conn, rawRequest("POST", "/x", s.host, "Cookie: "+s.mint(t, alice()),
				"Expect: 100-continue", "Content-Length: 5"))
			testenv.Check(t, err)
			testenv.Check(t, w.conn.SetReadDeadline(time.Now().Add(soon)))
			res, err := http.ReadResponse(w.in, nil)
			testenv.Check(t, err)
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode < 400 || !res.Close || (res.ContentLength != 0 && string(body) != "no") {
				t.Errorf("answered %d %q %v, close %v", res.StatusCode, body, err, res.Close)
			}
			w.close() // as it was told to
			if rest := <-app; rest != "" {
				t.Errorf("the app got %q", rest)
			}
		})
	}
}

// Who is to blame when an upload stands still: who does not send, or who does
// not take.
func TestAStalledClientGets408AndAStalledApp504(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	// A client that sends, on a busy machine too, is never silent for so long.
	s := newTestSite(t, setup{Idle: 5 * time.Second, App: playApp(t, func(p *appPeer) { p.head(); <-done })})
	cookie, much := "Cookie: "+s.mint(t, alice()), make([]byte, 64<<20)
	for _, tt := range []struct {
		name string
		send func(io.Writer)
		want int
	}{
		{"the client", func(w io.Writer) { _, _ = io.WriteString(w, "some") }, 408},
		{"the app", func(w io.Writer) { _, _ = w.Write(much) }, 504},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := s.wire(t)
			w.dial()
			_, err := io.WriteString(w.conn, rawRequest("POST", "/x", s.host, cookie, "Content-Length: 134217728"))
			testenv.Check(t, err)
			go tt.send(w.conn)
			res, err := http.ReadResponse(w.in, nil)
			testenv.Check(t, err)
			if res.StatusCode != tt.want {
				t.Errorf("answered %d, want %d", res.StatusCode, tt.want)
			}
		})
	}
}

// What an app says before its answer and what we say for the client to send its
// body are written by two of us.
func TestInterimAnswersDoNotMix(t *testing.T) {
	t.Parallel()
	const hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
	s := newTestSite(t, setup{App: playApp(t, func(p *appPeer) {
		for p.head() != "" {
			p.say("HTTP/1.1 100 Continue\r\n\r\n" + strings.Repeat(hints, 3))
			_, _ = io.ReadFull(p.in, make([]byte, 5))
			p.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})})
	cookie := "Cookie: " + s.mint(t, alice())
	for range 20 {
		w := s.wire(t)
		w.dial()
		_, err := io.WriteString(w.conn, rawRequest("POST", "/x", s.host, cookie, "Expect: 100-continue",
			"Content-Length: 5", "Connection: close"))
		testenv.Check(t, err)
		hundred, hint := 0, 0
		for {
			res, err := http.ReadResponse(w.in, nil)
			testenv.Check(t, err)
			switch res.StatusCode {
			case 100:
				if hundred++; hundred == 1 {
					_, err = io.WriteString(w.conn, "hello")
					testenv.Check(t, err)
				}
				continue
			case 103:
				hint++
				continue
			}
			if res.StatusCode != 200 || hundred != 1 || hint != 3 {
				t.Fatalf("%d after %d × 100 and %d × 103", res.StatusCode, hundred, hint)
			}
			break
		}
		w.close()
	}
}

// A status that is none is no answer, and not a bug of ours.
func TestAnInvalidStatusOfTheAppIs502(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	s.app.Respond(func([]byte) []byte {
		return []byte("HTTP/1.1 099 Odd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	})
	checkFailure(t, s, "/x", s.mint(t, alice()), 502, "The app is not answering", "status")
}

// quiet keeps servers from writing about connections that break, as they shall.
func quiet() *log.Logger { return slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug) }

// RFC 9113 §8.6: a client of HTTP/1.1 that never asked for it must not be told
// that the protocol is another one now.
func TestP03_AnAppCannotSwitchProtocolsWithinHTTP2(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Check(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); switchInHTTP2(c) }()
		}
	}()
	up, err := upstream.New(upstream.Options{URL: mustURL(t, "h2c://"+l.Addr().String())})
	testenv.Check(t, err)
	t.Cleanup(up.Close)
	s := newTestSite(t, setup{App: up})
	a := s.wire(t).do("GET", rawRequest("GET", "/x", s.host, "Cookie: "+s.mint(t, alice())))
	if a.status != 502 {
		t.Errorf("answered %d %v", a.status, a.header)
	}
}

// switchInHTTP2 answers the first stream with 101 and then with 200.
func switchInHTTP2(c net.Conn) {
	var out bytes.Buffer
	writeFrame(&out, 4, 0, 0, nil) // SETTINGS
	for i, status := range []string{"101", "200"} {
		var block bytes.Buffer
		block.WriteByte(0)
		writeHPACK(&block, ":status")
		writeHPACK(&block, status)
		writeFrame(&out, 1, 4|byte(i), 1, block.Bytes()) // HEADERS, END_HEADERS, END_STREAM with the last
	}
	in := bufio.NewReader(c)
	_, _ = in.Discard(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	for {
		var head [9]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		_, _ = in.Discard(int(head[0])<<16 | int(head[1])<<8 | int(head[2]))
		if head[3] == 1 { // HEADERS: the request
			_, _ = c.Write(out.Bytes())
		}
	}
}

// A header, and each event, arrives though the app sends nothing more until it has.
// That it is not held back for a while either is TestWhatArrivesIsWrittenAtOnce in relay.
func TestEventsArriveAsTheyAreSent(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, o setup, way string) {
		next := make(chan string)
		o.App = serveApp(t, way, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_ = http.NewResponseController(w).Flush()
			for event := range next {
				_, _ = io.WriteString(w, event)
				_ = http.NewResponseController(w).Flush()
			}
		})
		s := newTestSite(t, o)
		p := s.stream(t, "GET", "/events", "Cookie: "+s.mint(t, alice()))
		p.Close()
		res := p.begun(t, soon)
		for i := range 5 {
			event := fmt.Sprintf("data: %d\n\n", i)
			next <- event
			got, err := readWithin(t, res.Body, len(event), soon)
			if got != event || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		}
		close(next)
		if rest, err := readWithin(t, res.Body, -1, soon); rest != "" || err != nil {
			t.Errorf("the end: %q, %v", rest, err)
		}
	})
}

// Both halves at once: neither waits for the end of the other.
func TestClientAndAppCanStreamAtTheSameTime(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, o setup, way string) {
		o.App = serveApp(t, way, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			_ = http.NewResponseController(w).Flush()
			in := bufio.NewReader(r.Body)
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				_, _ = io.WriteString(w, "> "+line)
				_ = http.NewResponseController(w).Flush()
			}
		})
		s := newTestSite(t, o)
		p := s.stream(t, "POST", "/talk", "Cookie: "+s.mint(t, alice()))
		var res *http.Response
		for i := range 20 {
			line := fmt.Sprintf("%d%s\n", i, strings.Repeat("x", i*500))
			_, err := io.WriteString(p, line)
			testenv.Check(t, err)
			if res == nil {
				res = p.begun(t, soon)
			}
			if got, err := readWithin(t, res.Body, len(line)+2, soon); got != "> "+line || err != nil {
				t.Fatalf("%.40q, %v", got, err)
			}
		}
		p.Close()
		if rest, err := readWithin(t, res.Body, -1, soon); rest != "" || err != nil {
			t.Errorf("the end: %q, %v", rest, err)
		}
	})
}

// An app may refuse an upload before it has it: the whole answer arrives while
// the client still sends.
func TestAnEarlyAnswerArrivesWhole(t *testing.T) {
	t.Parallel()
	answer := strings.Repeat("no. ", 10000)
	everyWay(t, func(t *testing.T, o setup, way string) {
		o.App = serveApp(t, way, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			_, _ = io.ReadFull(r.Body, make([]byte, 1000))
			w.WriteHeader(413)
			_, _ = io.WriteString(w, answer)
		})
		s := newTestSite(t, o)
		cookie := "Cookie: " + s.mint(t, alice())
		var res *http.Response
		if o.TLS {
			p := s.stream(t, "POST", "/up", cookie)
			go sendForLong(p, func(b []byte) []byte { return b })
			res = p.begun(t, soon)
		} else {
			// In HTTP/1.1 the end of the answer comes with that of the connection. net/http's client drops what
			// it has not read by then if it was about to send; one that reads on gets all of it.
			w := s.wire(t)
			w.dial()
			_, err := io.WriteString(w.conn, rawRequest("POST", "/up", s.host, cookie, "Transfer-Encoding: chunked"))
			testenv.Check(t, err)
			go sendForLong(w.conn, func(b []byte) []byte { return fmt.Appendf(nil, "%x\r\n%s\r\n", len(b), b) })
			res, err = http.ReadResponse(w.in, nil)
			testenv.Check(t, err)
		}
		got, err := readWithin(t, res.Body, -1, 2*soon)
		if res.StatusCode != 413 || got != answer || err != nil {
			t.Errorf("%d with %d bytes, %v", res.StatusCode, len(got), err)
		}
	})
}

// sendForLong sends much at first, and then a little for as long as it can: it never
// pauses for so long that somebody may give it up, and leaves the processor to those who
// answer.
func sendForLong(to io.Writer, frame func([]byte) []byte) {
	for size := 1 << 20; ; size = 1 << 10 {
		if _, err := to.Write(frame(make([]byte, size))); err != nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// The same on the wire of HTTP/1.1, to its end: nothing after the answer, and no
// reset that takes it away.
func TestAnEarlyAnswerEndsTheConnection(t *testing.T) {
	t.Parallel()
	for _, framing := range []string{"Content-Length: 100000000", "Transfer-Encoding: chunked"} {
		t.Run(framing, func(t *testing.T) {
			broke := make(chan error, 1)
			s := newTestSite(t, setup{App: playApp(t, func(p *appPeer) {
				p.head()
				_, _ = io.CopyN(io.Discard, p.in, 1000)
				p.say("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
				all, err := io.ReadAll(p.in)
				if err == nil && bytes.HasSuffix(all, []byte("0\r\n\r\n")) {
					err = errors.New("well formed")
				} else {
					err = nil
				}
				broke <- err
			})})
			w := s.wire(t)
			w.dial()
			_, err := io.WriteString(w.conn, rawRequest("POST", "/up", s.host, "Cookie: "+s.mint(t, alice()), framing))
			testenv.Check(t, err)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for range 40 {
					piece := strings.Repeat("x", 64<<10)
					if strings.HasPrefix(framing, "Transfer") {
						piece = fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece)
					}
					if _, err := io.WriteString(w.conn, piece); err != nil {
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			}()
			<-sent // the client looks for an answer only now
			res, err := http.ReadResponse(w.in, nil)
			testenv.Check(t, err)
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != 413 || string(body) != "no" || !res.Close {
				t.Errorf("answered %d %q, %v", res.StatusCode, body, err)
			}
			w.close()
			testenv.Check(t, <-broke)
		})
	}
}

// An app that never says 100 gets the body all the same (RFC 9110 §10.1.1).
func TestAnAppThatKnowsNoExpectationsGetsItsBody(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{App: playApp(t, func(p *appPeer) {
		h := p.head()
		body := readBody(p, h)
		p.say("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
	})})
	w := s.wire(t)
	w.dial()
	_, err := io.WriteString(w.conn, rawRequest("POST", "/x", s.host, "Cookie: "+s.mint(t, alice()),
		"Expect: 100-continue", "Content-Length: 5", "Connection: close"))
	testenv.Check(t, err)
	res, err := http.ReadResponse(w.in, nil)
	testenv.Check(t, err)
	if res.StatusCode != 100 {
		t.Fatalf("answered %d", res.StatusCode)
	}
	_, err = io.WriteString(w.conn, "hello")
	testenv.Check(t, err)
	if got := w.rest(); len(got) != 1 || got[0].body != "hello" {
		t.Errorf("answered %v", got)
	}
}

// A client that does not read holds back the app, not the answer in memory.
func TestP17_ASlowReaderHoldsBackTheApp(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, o setup, way string) {
		var sent atomic.Int64
		o.App = serveApp(t, way, func(w http.ResponseWriter, r *http.Request) {
			piece := make([]byte, 64<<10)
			for r.Context().Err() == nil {
				n, err := w.Write(piece)
				if err != nil {
					return
				}
				sent.Add(int64(n))
			}
		})
		s := newTestSite(t, o)
		p := s.stream(t, "GET", "/endless", "Cookie: "+s.mint(t, alice()))
		p.Close()
		res := p.begun(t, soon)
		for last := int64(-1); sent.Load() != last; time.Sleep(150 * time.Millisecond) {
			if last = sent.Load(); last > 64<<20 {
				t.Fatalf("the app could send %d MiB to nobody", last>>20)
			}
		}
		res.Body.Close()
	})
}

// Nobody is left to answer: the app is told at once.
func TestAnAppIsToldThatItsClientIsGone(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, o setup, way string) {
		asked, told := make(chan struct{}, 1), make(chan struct{}, 1)
		o.App = serveApp(t, way, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/answered" {
				_ = http.NewResponseController(w).Flush()
			}
			asked <- struct{}{}
			<-r.Context().Done()
			told <- struct{}{}
		})
		s := newTestSite(t, o)
		for _, path := range []string{"/waiting", "/answered"} {
			ctx, leave := context.WithCancel(t.Context())
			req, err := http.NewRequestWithContext(ctx, "GET", s.url+path, nil)
			testenv.Check(t, err)
			req.Header.Set("Cookie", s.mint(t, alice()))
			go func() {
				if res, err := s.transport.RoundTrip(req); err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			}()
			<-asked
			leave()
			select {
			case <-told:
			case <-time.After(soon):
				t.Errorf("%s: the app works on for nobody", path)
			}
		}
	})
}

// P10: signing out ends what is under way, and only that person's.
func TestP10_SigningOutEndsAStream(t *testing.T) {
	t.Parallel()
	for _, o := range []setup{{}, {TLS: true}} {
		t.Run(fmt.Sprint("TLS ", o.TLS), func(t *testing.T) {
			o.App = serveApp(t, "http", func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					_, _ = io.WriteString(w, ".")
					_ = http.NewResponseController(w).Flush()
					time.Sleep(20 * time.Millisecond)
				}
			})
			s := newTestSite(t, o)
			mine, others := "Cookie: "+s.mint(t, alice()), "Cookie: "+s.mint(t, alice())
			a, b := s.stream(t, "GET", "/stream", mine), s.stream(t, "GET", "/stream", others)
			a.Close()
			b.Close()
			resA, resB := a.begun(t, soon), b.begun(t, soon)
			if out := s.ask(t, "POST", prefix+"/logout", "", mine, "Origin: "+s.url); out.status >= 400 {
				t.Fatalf("signing out: %d", out.status)
			}
			if _, err := readWithin(t, resA.Body, -1, soon); err == nil {
				t.Error("the stream looks whole, or goes on")
			}
			if got, err := readWithin(t, resB.Body, 110, 2*soon); err != nil {
				t.Errorf("a stranger's stream ended after %d bytes: %v", len(got), err)
			}
		})
	}
}

// HTTP/2 has trailers behind a body of known length too.
func TestTrailersFollowABodyOfKnownLength(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"h2c", "https"} {
		got := make(chan http.Header, 1)
		s := newTestSite(t, setup{TLS: true, App: serveApp(t, way, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			got <- r.Trailer
		})})
		req, err := http.NewRequest("POST", s.url+"/x", strings.NewReader("hello"))
		testenv.Check(t, err)
		req.Header.Set("Cookie", s.mint(t, alice()))
		req.Trailer = http.Header{"X-Sum": {"1"}, "X-Forwarded-User": {"forged"}}
		s.send(t, req)
		if trailer := <-got; len(trailer) != 1 || trailer.Get("X-Sum") != "1" {
			t.Errorf("%s: the app got %v", way, trailer)
		}
	}
}

// gRPC servers reset a call whose time is over, and the client may hear of it before its
// own timer fires. That is DEADLINE_EXCEEDED, not an app that is down.
func TestACallThatTheAppEndsAtItsDeadlineIsDeadlineExceeded(t *testing.T) {
	t.Parallel()
	const over, down, broken = "4 the time given to this call is over", "502", "broken off"
	for name, tt := range map[string]struct {
		timeout, kind string
		wait          time.Duration
		says          bool // before it resets the stream
		want          string
	}{
		"before the answer":          {timeout: "100m", wait: 150 * time.Millisecond, want: over},
		"in the middle of it":        {timeout: "100m", wait: 150 * time.Millisecond, says: true, want: over},
		"long before its time":       {timeout: "30S", want: down},
		"long before, in the middle": {timeout: "30S", says: true, want: broken},
		"no time given":              {wait: 150 * time.Millisecond, want: down},
		"not gRPC":                   {timeout: "100m", kind: "text/plain", wait: 150 * time.Millisecond, want: down},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTestSite(t, setup{TLS: true, App: serveApp(t, "h2c", func(w http.ResponseWriter, _ *http.Request) {
				if tt.says {
					_, _ = io.WriteString(w, "hello")
					_ = http.NewResponseController(w).Flush()
				}
				time.Sleep(tt.wait)
				hangUp(w)
			})})
			p := s.stream(t, "POST", "/x", "Cookie: "+s.mint(t, alice()), "Te: trailers",
				"Content-Type: "+cmp.Or(tt.kind, "application/grpc"), "Grpc-Timeout: "+cmp.Or(tt.timeout, "never"))
			res := p.begun(t, soon)
			body, err := readWithin(t, res.Body, -1, soon)
			h := res.Header
			if tt.says {
				h = res.Trailer
			}
			got := h.Get("Grpc-Status") + " " + h.Get("Grpc-Message")
			switch {
			case err != nil:
				got = broken
			case res.StatusCode != 200:
				got = strconv.Itoa(res.StatusCode)
			}
			if got != tt.want || tt.says && body != "hello" {
				t.Errorf("%q, want %q; answer %d %v, body %q", got, tt.want, res.StatusCode, res.Header, body)
			}
			if !tt.says && tt.want == over && res.Header.Get("Content-Type") != "application/grpc" {
				t.Errorf("Content-Type %q", res.Header.Get("Content-Type"))
			}
		})
	}
}

// An app that says again and again that it is at work is not silent.
func TestInterimAnswersResetTheIdleTimeout(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Idle: 5 * time.Second, App: playApp(t, func(p *appPeer) {
		p.head()
		for range 14 {
			time.Sleep(400 * time.Millisecond)
			p.say("HTTP/1.1 102 Processing\r\n\r\n")
		}
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})})
	if a := s.get(t, "/x", "Cookie: "+s.mint(t, alice())); a.status != 200 || a.body != "ok" {
		t.Errorf("answered %d", a.status)
	}
}
