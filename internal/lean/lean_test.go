package lean

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// peer is a server of bytes, which counts.
type peer struct {
	net.Listener
	opened, open, got atomic.Int32
}

// listen serves each connection by a function.
func listen(t testing.TB, network string, serve func(p *peer, c net.Conn, in *bufio.Reader)) *peer {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	testenv.Check(t, err)
	t.Cleanup(func() { l.Close() })
	p := &peer{Listener: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.opened.Add(1)
			p.open.Add(1)
			go func() {
				defer p.open.Add(-1)
				defer c.Close()
				serve(p, c, bufio.NewReader(c))
			}()
		}
	}()
	return p
}

// next reads a request, nil at the end.
func (p *peer) next(in *bufio.Reader) *http.Request {
	r, err := http.ReadRequest(in)
	if err != nil {
		return nil
	}
	p.got.Add(1)
	return r
}

// always answers each request with the same bytes.
func always(answer string) func(p *peer, c net.Conn, in *bufio.Reader) {
	return func(p *peer, c net.Conn, in *bufio.Reader) {
		for p.next(in) != nil {
			_, _ = io.WriteString(c, answer)
		}
	}
}

// to returns a Transport for p.
func to(t testing.TB, p *peer, idle time.Duration) *Transport {
	t.Helper()
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, p.Addr().Network(), p.Addr().String())
	}
	transport := New(Options{Idle: idle, MaxIdle: 16, MaxHeader: 8 << 10, Dial: dial})
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func request(ctx context.Context, method, target string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, method, "http://app"+target, nil)
	if err != nil {
		panic(err)
	}
	return r
}

// ask sends a request and reads the answer to its end.
func ask(ctx context.Context, transport *Transport, target string) (status int, text string, err error) {
	res, err := transport.RoundTrip(request(ctx, "GET", target))
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

const (
	good = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	evil = "HTTP/1.1 599 Evil\r\nContent-Length: 4\r\n\r\nevil"
)

func TestOnlyWhatIsPlainIsTaken(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*http.Request)
		want   bool
	}{
		"GET":                   {func(*http.Request) {}, true},
		"HEAD":                  {func(r *http.Request) { r.Method = "HEAD" }, true},
		"no body":               {func(r *http.Request) { r.Body = http.NoBody }, true},
		"IPv6":                  {func(r *http.Request) { r.Host = "[2001:db8::1]:8080" }, true},
		"no method":             {func(r *http.Request) { r.Method = "" }, false},
		"POST":                  {func(r *http.Request) { r.Method = "POST" }, false},
		"get":                   {func(r *http.Request) { r.Method = "get" }, false},
		"OPTIONS":               {func(r *http.Request) { r.Method = "OPTIONS" }, false},
		"a body":                {func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("")) }, false},
		"a length":              {func(r *http.Request) { r.ContentLength = 1 }, false},
		"of unknown length":     {func(r *http.Request) { r.ContentLength = -1 }, false},
		"to be the last":        {func(r *http.Request) { r.Close = true }, false},
		"a coding":              {func(r *http.Request) { r.TransferEncoding = []string{"identity"} }, false},
		"trailers":              {func(r *http.Request) { r.Trailer = http.Header{} }, false},
		"no host":               {func(r *http.Request) { r.Host = "" }, false},
		"a zone":                {func(r *http.Request) { r.Host = "[fe80::1%25en0]" }, false},
		"another alphabet":      {func(r *http.Request) { r.Host = "bücher.example" }, false},
		"opaque":                {func(r *http.Request) { r.URL.Opaque = "//x" }, false},
		"Upgrade":               {func(r *http.Request) { r.Header["Upgrade"] = []string{"h2c"} }, false},
		"an empty Upgrade":      {func(r *http.Request) { r.Header["Upgrade"] = nil }, false},
		"Connection":            {func(r *http.Request) { r.Header["Connection"] = []string{"close"} }, false},
		"Expect":                {func(r *http.Request) { r.Header["Expect"] = []string{"100-continue"} }, false},
		"Content-Length":        {func(r *http.Request) { r.Header["Content-Length"] = []string{"0"} }, false},
		"Transfer-Encoding":     {func(r *http.Request) { r.Header["Transfer-Encoding"] = []string{"chunked"} }, false},
		"announces trailers":    {func(r *http.Request) { r.Header["Trailer"] = []string{"X"} }, false},
		"Host among the fields": {func(r *http.Request) { r.Header["Host"] = []string{"b"} }, false},
	} {
		r := request(t.Context(), "GET", "/")
		if tt.change(r); Takes(r) != tt.want {
			t.Errorf("%s: taken: %v", name, !tt.want)
		}
	}
}

// What is taken is sent byte for byte as net/http sends it, or refused where it refuses.
func FuzzTheHeadIsWhatNetHTTPSends(f *testing.F) {
	f.Add("GET", "/a/b", "q=1", "app:80", "Accept", "*/*", "X-B", "1", false)
	f.Add("HEAD", "/a%2Fb", "", "[::1]", "User-Agent", "", "A", " x\t", true)
	f.Add("GET", "", "a b", "h", "User-Agent", "x", "user-agent", "y", false)
	f.Add("GET", "/\x01", "", "h", "X", "a\r\nY: b", "Z", "\x00", false)
	f.Add("GET", "//x", "\x7f", "h", "X:", "a", "", "b", false)
	f.Fuzz(func(t *testing.T, method, path, query, host, n1, v1, n2, v2 string, force bool) {
		r := &http.Request{Method: method, Host: host, Header: http.Header{n1: {v1, v2}, n2: {v2}}}
		r.URL = request(t.Context(), "GET", "/").URL
		r.URL.Path, r.URL.RawQuery, r.URL.ForceQuery = path, query, force
		if r.Header["User-Agent"] == nil {
			r.Header["User-Agent"] = nil // else net/http names itself
		}
		if !Takes(r) {
			return
		}
		want := &recorder{whole: make(chan struct{})}
		dial := func(context.Context, string, string) (net.Conn, error) { return want, nil }
		wire := &http.Transport{DisableCompression: true, DialContext: dial}
		defer wire.CloseIdleConnections()
		_, err := wire.RoundTrip(r)
		sent := want.sent()
		var h head
		switch mine := h.write(r); {
		case strings.Contains(query, " "):
			if mine == nil {
				t.Errorf("sends %q, which has a space too many", h.bytes)
			}
		case mine != nil && sent != "":
			t.Errorf("refused with %v, and net/http sends %q", mine, sent)
		case mine == nil && sent == "":
			t.Errorf("sends %q, and net/http answers %v", h.bytes, err)
		case mine == nil && sent != string(h.bytes):
			t.Errorf("sends %q, and net/http %q", h.bytes, sent)
		}
	})
}

// recorder keeps the head of a request, and ends then.
type recorder struct {
	net.Conn // nil: the rest is not called
	mu       sync.Mutex
	bytes    bytes.Buffer
	once     sync.Once
	whole    chan struct{}
}

func (r *recorder) sent() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes.String()
}

// Write implements net.Conn.
func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes.Write(p); bytes.HasSuffix(r.bytes.Bytes(), []byte("\r\n\r\n")) {
		r.once.Do(func() { close(r.whole) })
	}
	return len(p), nil
}

// Read implements net.Conn.
func (r *recorder) Read([]byte) (int, error) { <-r.whole; return 0, io.EOF }

// Close implements net.Conn.
func (r *recorder) Close() error { r.once.Do(func() { close(r.whole) }); return nil }

func TestAConnectionIsUsedAgain(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"a length": good, "nothing": "HTTP/1.1 204 No Content\r\n\r\n",
		"chunks":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"trailers":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n",
		"not modified": "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
		"interim":      "HTTP/1.1 103 Early Hints\r\n\r\n" + good,
		"HTTP/1.0":     "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
	} {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(name+", "+network, func(t *testing.T) {
				p := listen(t, network, always(answer))
				transport := to(t, p, time.Minute)
				for range 3 {
					status, text, err := ask(t.Context(), transport, "/")
					if err != nil || status/100 == 5 || len(text)%2 != 0 {
						t.Fatal(status, text, err)
					}
				}
				if p.opened.Load() != 1 || p.got.Load() != 3 {
					t.Errorf("%d connections, %d requests", p.opened.Load(), p.got.Load())
				}
			})
		}
	}
}

// P23: no connection is lent on which something of an earlier answer may be left.
func TestP23_AConnectionIsNotUsedAgainAfterWhatMayBeLeftOnIt(t *testing.T) {
	t.Parallel()
	const whole = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for name, tt := range map[string]struct {
		answer string
		read   int // bytes of the body, then Close; -1: all of them
		fails  bool
	}{
		"surplus":                  {whole + evil, -1, false},
		"one byte of surplus":      {whole + "H", -1, false},
		"surplus after chunks":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil, -1, false},
		"a body after 204":         {"HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nevil", -1, false},
		"a body after 304":         {"HTTP/1.1 304 No\r\nContent-Length: 4\r\n\r\nevil", -1, false},
		"Connection: close":        {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", -1, false},
		"HTTP/1.0":                 {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", -1, false},
		"a switch of protocols":    {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", -1, false},
		"a body that is not read":  {whole, 0, false},
		"a body that is half read": {whole, 1, false},
		"an answer that is none":   {"HELLO\r\n\r\n", -1, true},
		"chunks that are none":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", -1, true},
		"two lengths":              {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", -1, true},
		"a long header":            {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 9<<10) + "\r\n\r\n", -1, true},
		"interim answers for ever": {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 50), -1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := listen(t, "tcp", always(tt.answer))
			transport := to(t, p, time.Minute)
			for n := range int32(3) {
				res, err := transport.RoundTrip(request(t.Context(), "GET", "/"))
				if err == nil && tt.read >= 0 {
					_, err = io.ReadFull(res.Body, make([]byte, tt.read))
					testenv.Check(t, res.Body.Close())
					if _, late := res.Body.Read(make([]byte, 1)); late == nil || late == io.EOF {
						t.Error("a body that was closed can be read")
					}
				} else if err == nil {
					_, err = io.ReadAll(res.Body)
				}
				if (err != nil) != tt.fails {
					t.Fatalf("error: %v", err)
				}
				if p.opened.Load() != n+1 || p.got.Load() != n+1 {
					t.Fatalf("%d requests: %d connections, %d arrived", n+1, p.opened.Load(), p.got.Load())
				}
			}
			testenv.Eventually(t, "all connections are closed", func() bool { return p.open.Load() == 0 })
		})
	}
}

// P23: what comes later, while nobody asks, answers nobody either.
func TestP23_WhatAPeerSendsMeanwhileAnswersNobody(t *testing.T) {
	t.Parallel()
	sent := make(chan bool)
	p := listen(t, "tcp", func(p *peer, c net.Conn, in *bufio.Reader) {
		for p.next(in) != nil {
			_, _ = io.WriteString(c, good)
			<-sent // the answer was read, and the connection is in the pool
			_, _ = io.WriteString(c, evil)
			sent <- true
		}
	})
	transport := to(t, p, time.Minute)
	for range 100 {
		if status, text, err := ask(t.Context(), transport, "/"); status != 200 || text != "ok" || err != nil {
			t.Fatal(status, text, err)
		}
		sent <- true
		<-sent
	}
	if p.opened.Load() != 100 {
		t.Errorf("%d connections for 100 requests", p.opened.Load())
	}
}

// A pool full of connections that the peer has closed is no fault that anybody sees.
func TestAPoolOfClosedConnectionsFailsNothing(t *testing.T) {
	t.Parallel()
	const warm = 12
	var all sync.WaitGroup
	all.Add(warm)
	leave := make(chan struct{})
	p := listen(t, "tcp", func(p *peer, c net.Conn, in *bufio.Reader) {
		if p.opened.Load() > warm {
			always(good)(p, c, in)
			return
		}
		p.next(in)
		all.Done()
		all.Wait()
		_, _ = io.WriteString(c, good)
		<-leave
	})
	transport := to(t, p, time.Minute)
	var asked sync.WaitGroup
	for range warm {
		asked.Go(func() { _, _, _ = ask(t.Context(), transport, "/") })
	}
	asked.Wait()
	close(leave)
	testenv.Eventually(t, "the peer has hung up", func() bool { return p.open.Load() == 0 })
	if status, _, err := ask(t.Context(), transport, "/"); status != 200 || p.got.Load() != warm+1 {
		t.Errorf("answered %d, %v; the peer got %d", status, err, p.got.Load())
	}
}

// P22: what was sent on a connection that broke off is sent once more if the connection was
// used before, on a new one, and never a third time.
func TestP22_AGetIsSentTwiceAtMost(t *testing.T) {
	t.Parallel()
	const warm = 8
	var deaf, half atomic.Bool
	var all sync.WaitGroup
	all.Add(warm)
	p := listen(t, "tcp", func(p *peer, c net.Conn, in *bufio.Reader) {
		for n := 0; p.next(in) != nil; n++ {
			if deaf.Load() {
				if half.Load() {
					_, _ = io.WriteString(c, "HTTP/1.1 2")
				}
				return
			}
			if n == 0 {
				all.Done()
				all.Wait()
			}
			_, _ = io.WriteString(c, good)
		}
	})
	transport := to(t, p, time.Minute)
	var asked sync.WaitGroup
	for range warm {
		asked.Go(func() { _, _, _ = ask(t.Context(), transport, "/") })
	}
	asked.Wait()
	deaf.Store(true)
	half.Store(true)
	if status, _, err := ask(t.Context(), transport, "/"); err == nil || p.got.Load() != warm+1 {
		t.Errorf("after a part of an answer: %d, the peer got it %d times", status, p.got.Load()-warm)
	}
	half.Store(false)
	before := p.got.Load()
	reused := []bool{}
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { reused = append(reused, i.Reused) },
	})
	if status, _, err := ask(ctx, transport, "/"); err == nil || p.got.Load() != before+2 {
		t.Errorf("answered %d, the peer got it %d times", status, p.got.Load()-before)
	}
	if fmt.Sprint(reused) != "[true false]" {
		t.Errorf("connections that were used before: %v", reused)
	}
	transport.CloseIdleConnections()
	before = p.got.Load()
	if status, _, err := ask(t.Context(), transport, "/"); err == nil || p.got.Load() != before+1 {
		t.Errorf("on a new connection: answered %d, the peer got it %d times", status, p.got.Load()-before)
	}
}

func TestARequestEndsWithItsContext(t *testing.T) {
	t.Parallel()
	why := errors.New("the session ended")
	for name, answer := range map[string]string{
		"no answer": "", "half a header": "HTTP/1.1 200 OK\r\nA: ",
		"half a body": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := listen(t, "tcp", always(answer))
			transport := to(t, p, time.Minute)
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
			if _, _, err := ask(ctx, transport, "/"); !errors.Is(err, why) {
				t.Errorf("ended with %v", err)
			}
			testenv.Eventually(t, "the connection is closed", func() bool { return p.open.Load() == 0 })
			if _, _, err := ask(ctx, transport, "/"); !errors.Is(err, why) || p.got.Load() > 1 {
				t.Errorf("a request whose context has ended: %v, the peer got %d", err, p.got.Load())
			}
		})
	}
}

// Who refuses before it has read the request, and hangs up, has answered.
func TestAnAnswerThatCameEarlyIsRead(t *testing.T) {
	t.Parallel()
	p := listen(t, "tcp", func(_ *peer, c net.Conn, _ *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 503 Later\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	transport := to(t, p, time.Minute)
	for range 50 {
		if status, text, err := ask(t.Context(), transport, "/"); status != 503 || text != "no" || err != nil {
			t.Fatal(status, text, err)
		}
	}
}

func TestInterimAnswersArePassedOnAndTrailersAreRead(t *testing.T) {
	t.Parallel()
	p := listen(t, "tcp", always("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"+
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n"))
	transport := to(t, p, time.Minute)
	var interims []string
	refuse := errors.New("too many")
	var limit int
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			if interims = append(interims, fmt.Sprint(code, h)); len(interims) == limit {
				return refuse
			}
			return nil
		}})
	res, err := transport.RoundTrip(request(ctx, "GET", "/"))
	testenv.Check(t, err)
	b, err := io.ReadAll(res.Body)
	if string(b) != "ok" || err != nil || res.Trailer.Get("A") != "b" ||
		strings.Join(interims, " ") != "103 map[Link:[</a>]] 102 map[]" {
		t.Errorf("%q, %v, trailers %v, interim answers %q", b, err, res.Trailer, interims)
	}
	limit = 3
	if _, err := transport.RoundTrip(request(ctx, "GET", "/")); !errors.Is(err, refuse) {
		t.Errorf("refused interim answers: %v", err)
	}
}

func TestConnectionsThatAreIdleAreClosedInTime(t *testing.T) {
	t.Parallel()
	p := listen(t, "tcp", func(p *peer, c net.Conn, in *bufio.Reader) {
		for p.next(in) != nil {
			time.Sleep(time.Millisecond)
			_, _ = io.WriteString(c, good)
		}
	})
	transport := to(t, p, 100*time.Millisecond)
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			if status, _, err := ask(t.Context(), transport, "/"); status != 200 {
				t.Error(status, err)
			}
		})
	}
	all.Wait()
	transport.mu.Lock()
	kept := len(transport.idle)
	transport.mu.Unlock()
	if kept > 16 {
		t.Errorf("%d connections are kept", kept)
	}
	testenv.Eventually(t, "all connections are closed", func() bool { return p.open.Load() == 0 })
	if status, _, err := ask(t.Context(), transport, "/"); status != 200 {
		t.Error(status, err)
	}
	transport.CloseIdleConnections()
	testenv.Eventually(t, "all connections are closed", func() bool { return p.open.Load() == 0 })
}

// P23: people share a few connections, and break off as they like, while the peer sends
// in pieces and hangs up as it likes: every answer is that of who asked.
func TestP23_PeopleShareConnectionsAndNobodyGetsTheAnswerOfAnother(t *testing.T) {
	t.Parallel()
	const people, atOnce = 500, 8
	total := 20_000
	if os.Getenv("SALLYPORT_CAMPAIGN") != "" {
		total = 1_000_000
	}
	p := listen(t, "tcp", func(p *peer, c net.Conn, in *bufio.Reader) {
		for {
			r := p.next(in)
			if r == nil {
				return
			}
			who := r.Header.Get("Who")
			text := strings.Repeat(who+" ", 1+rand.IntN(600))
			answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nWho: %s\r\nContent-Length: %d\r\n\r\n%s", who, len(text), text)
			if rand.IntN(2) == 0 {
				answer = fmt.Sprintf("HTTP/1.1 200 OK\r\nWho: %s\r\nTransfer-Encoding: chunked\r\n\r\n"+
					"%x\r\n%s\r\n0\r\n\r\n", who, len(text), text)
			}
			leave := rand.IntN(20) == 0
			switch rand.IntN(40) {
			case 0:
				answer, leave = answer[:rand.IntN(len(answer))], true
			case 1:
				answer += answer // what nobody asked for
			}
			for answer != "" {
				n := min(len(answer), 1+rand.IntN(2000))
				if _, err := io.WriteString(c, answer[:n]); err != nil {
					return
				}
				if answer = answer[n:]; rand.IntN(50) == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			if leave {
				return
			}
		}
	})
	transport := to(t, p, time.Minute)
	slots := make(chan struct{}, atOnce)
	var next, whole, aborted atomic.Int64
	var all sync.WaitGroup
	for person := range people {
		all.Go(func() {
			who := fmt.Sprintf("person-%d", person)
			for next.Add(1) <= int64(total) {
				slots <- struct{}{}
				text, err := askAs(t, transport, who)
				<-slots
				if err != nil {
					aborted.Add(1)
				} else {
					whole.Add(1)
				}
				rest := strings.ReplaceAll(text, who+" ", "")
				if !strings.HasPrefix(who+" ", rest) || err == nil && rest != "" {
					t.Errorf("%s reads %q, %v", who, rest, err)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d whole answers, %d ended early, %d connections", whole.Load(), aborted.Load(), p.opened.Load())
	if whole.Load() < int64(total)/2 || aborted.Load() == 0 || int64(p.opened.Load()) > int64(total)/2 {
		t.Error("the crowd does not do what it should: break off sometimes, and share connections")
	}
}

// askAs asks for who, and may break off at any time, or when it is too late: the end of a
// request must not meet the next one on its connection.
func askAs(t *testing.T, transport *Transport, who string) (string, error) {
	ctx, cancel := context.WithCancel(t.Context())
	call := &Call{Caller: &traced{}}
	end, send := cancel, transport.RoundTrip
	if rand.IntN(2) == 0 {
		defer cancel()
		end = func() { call.End(context.Canceled) }
		send = func(r *http.Request) (*http.Response, error) { return transport.Do(r, call) }
	}
	if rand.IntN(5) == 0 {
		time.AfterFunc(time.Duration(rand.IntN(1000))*time.Microsecond, end)
	}
	r := request(ctx, "GET", "/")
	r.Header.Set("Who", who)
	res, err := send(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if got := res.Header.Get("Who"); got != who {
		t.Errorf("%s gets the answer of %s", who, got)
	}
	if rand.IntN(10) == 0 {
		b := make([]byte, rand.IntN(100))
		n, err := io.ReadFull(res.Body, b)
		return string(b[:n]), errors.Join(err, errors.New("broke off"))
	}
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

// A request that is ended returns the cause, at whatever it is, and once it is over the
// connection is the next one's.
func TestARequestEndsWithItsCall(t *testing.T) {
	t.Parallel()
	why, later := errors.New("the session ended"), errors.New("the client is gone")
	do := func(t *testing.T, transport *Transport, call *Call) error {
		t.Helper()
		res, err := transport.Do(request(t.Context(), "GET", "/"), call)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		_, err = io.ReadAll(res.Body)
		return err
	}
	t.Run("before it is sent", func(t *testing.T) {
		t.Parallel()
		p := listen(t, "tcp", always(good))
		transport := to(t, p, time.Minute)
		for range 2 { // without a connection, and with one in the pool
			call := &Call{Caller: &traced{}}
			call.End(why)
			call.End(later)
			before := p.got.Load()
			if err := do(t, transport, call); !errors.Is(err, why) || p.got.Load() != before {
				t.Errorf("ended with %v, the peer got %d", err, p.got.Load()-before)
			}
			_, _, err := ask(t.Context(), transport, "/")
			testenv.Check(t, err)
		}
	})
	t.Run("while it connects", func(t *testing.T) {
		t.Parallel()
		dials := make(chan struct{})
		transport := New(Options{Idle: time.Minute, MaxIdle: 16, MaxHeader: 8 << 10,
			Dial: func(ctx context.Context) (net.Conn, error) { close(dials); <-ctx.Done(); return nil, ctx.Err() }})
		call := &Call{Caller: &traced{}}
		go func() { <-dials; call.End(why) }()
		if err := do(t, transport, call); !errors.Is(err, why) {
			t.Errorf("ended with %v", err)
		}
	})
	for name, answer := range map[string]string{
		"without an answer": "", "in a header": "HTTP/1.1 200 OK\r\nA: ",
		"in a body": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := listen(t, "tcp", always(answer))
			call := &Call{Caller: &traced{}}
			time.AfterFunc(20*time.Millisecond, func() { call.End(why) })
			if err := do(t, to(t, p, time.Minute), call); !errors.Is(err, why) {
				t.Errorf("ended with %v", err)
			}
			testenv.Eventually(t, "the connection is closed", func() bool { return p.open.Load() == 0 })
		})
	}
	t.Run("when it is over", func(t *testing.T) {
		t.Parallel()
		p := listen(t, "tcp", always(good))
		transport := to(t, p, time.Minute)
		for range 10 {
			call := &Call{Caller: &traced{}}
			testenv.Check(t, do(t, transport, call))
			call.End(why)
		}
		if p.opened.Load() != 1 || p.got.Load() != 10 {
			t.Errorf("%d requests over %d connections", p.got.Load(), p.opened.Load())
		}
	})
}

// What says that it is there can be read without waiting for the peer.
func TestABodyIsReadyOnlyIfItCanBeReadAtOnce(t *testing.T) {
	t.Parallel()
	for arrived, want := range map[string]bool{
		"Content-Length: 2\r\n\r\n": false, "Content-Length: 2\r\n\r\no": true,
		"Transfer-Encoding: chunked\r\n\r\n": false, "Transfer-Encoding: chunked\r\n\r\n2": false,
		"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n":    false,
		"Transfer-Encoding: chunked\r\n\r\n2\r\no":       false,
		"Transfer-Encoding: chunked\r\n\r\n0\r\nA: b":    false,
		"Connection: close\r\n\r\n":                      false,
		"Connection: close\r\n\r\nx":                     true,
		"Connection: close\r\nX: 2\r\n\r\nuntil the end": true,
	} {
		p := listen(t, "tcp", always("HTTP/1.1 200 OK\r\n"+arrived))
		call := &Call{Caller: &traced{}}
		res, err := to(t, p, time.Minute).Do(request(t.Context(), "GET", "/"), call)
		testenv.Check(t, err)
		b, _ := res.Body.(*body)
		if got := b.Ready(); got != want {
			t.Errorf("%q is ready: %t", arrived, got)
		}
		if want {
			time.AfterFunc(10*time.Second, func() { call.End(errors.New("it waits")) })
			if n, err := res.Body.Read(make([]byte, 9)); n == 0 || err != nil {
				t.Errorf("%q: read %d, %v", arrived, n, err)
			}
		}
		res.Body.Close()
	}
}

// BenchmarkKeepAlive is a request and its answer over a connection of the pool.
func BenchmarkKeepAlive(b *testing.B) {
	p := listen(b, "tcp", always(good))
	transport := to(b, p, time.Minute)
	r := request(b.Context(), "GET", "/")
	b.ReportAllocs()
	for b.Loop() {
		res, err := transport.RoundTrip(r)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
	}
}
