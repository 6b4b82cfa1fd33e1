package proxy

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/relay"
	"github.com/sallyport-proxy/sallyport/session"
)

// wsRoutes: one route carries WebSockets, one of them also from elsewhere, one none.
func wsRoutes(host string) []authz.Route {
	everybody := authz.Access{Authenticated: true}
	return []authz.Route{
		{Name: "ws", Host: host, Path: "/", Access: everybody, WebSocket: authz.WebSocket{Allowed: true}},
		{Name: "friends", Host: host, Path: "/friends", Access: everybody,
			WebSocket: authz.WebSocket{Allowed: true, Origins: []string{"https://friend.example"}}},
		{Name: "none", Host: host, Path: "/none", Access: everybody},
		{Name: "public", Host: host, Path: "/public", Access: authz.Access{Public: true},
			WebSocket: authz.WebSocket{Allowed: true}},
	}
}

const switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " +
	"websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"

// closeFrame is what ends a WebSocket (RFC 6455 §5.5.1).
func closeFrame(code uint16, reason string) string {
	return string([]byte{0x88, byte(2 + len(reason)), byte(code >> 8), byte(code)}) + reason
}

// wsApp agrees to everything and hands the connection to talk.
func wsApp(more string, talk func(net.Conn, *bufio.Reader)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.ProtoMajor != 1 {
			http.Error(w, "no WebSocket", http.StatusUpgradeRequired)
			return
		}
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, switched+more+"\r\n")
		talk(conn, buf.Reader)
	}
}

func echo(c net.Conn, in *bufio.Reader) {
	_, _ = io.Copy(c, in)
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

func handshake(path, host string, lines ...string) string {
	return rawRequest("GET", path, host, append([]string{"Connection: keep-alive, Upgrade", "Upgrade: WebSocket",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"}, lines...)...)
}

// wsSite is a site whose usual route carries WebSockets.
func wsSite(t *testing.T, o setup) *testSite {
	t.Helper()
	o.Routes = wsRoutes("127.0.0.1")
	return newTestSite(t, o)
}

// open makes a tunnel, over TLS where the site has it.
func (s *testSite) open(t *testing.T, path string, lines ...string) (*wire, *http.Response) {
	t.Helper()
	w := s.wire(t)
	w.dialSite(s)
	_, err := io.WriteString(w.conn, handshake(path, s.host, lines...))
	testenv.Check(t, err)
	res, err := http.ReadResponse(w.in, nil)
	testenv.Check(t, err)
	return w, res
}

func TestWebSocketsPassOverEveryProtocol(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, o setup, way string) {
		seen := make(chan *http.Request, 1)
		app := wsApp("X-App: yes\r\nSet-Cookie: sallyport-dev-1=evil\r\nSet-Cookie: "+
			"__Host-sallyport=evil\r\nSet-Cookie: app=1\r\nContent-Length: 7\r\nX-Request-Id: theirs\r\n", echo)
		o.App = serveApp(t, way, func(w http.ResponseWriter, r *http.Request) { seen <- r; app(w, r) })
		s := wsSite(t, o)
		cookie := s.mint(t, alice())
		w, res := s.open(t, "/chat?x=1", "Cookie: a=b; "+cookie, "Origin: "+s.url, "Sec-WebSocket-Protocol: v1, v2",
			"X-Forwarded-User: forged")
		if res.StatusCode != 101 || res.Header.Get("Upgrade") != "websocket" ||
			res.Header.Get("Sec-Websocket-Accept") == "" || res.Header.Get("X-App") != "yes" ||
			!slices.Equal(res.Header["Set-Cookie"], []string{"app=1"}) || res.Header["Content-Length"] != nil {
			t.Errorf("answered %d %v", res.StatusCode, res.Header)
		}
		r := <-seen
		if r.Header.Get("Cookie") != "a=b" || !slices.Equal(r.Header["X-Forwarded-User"], []string{"main:alice-1"}) ||
			r.Header.Get("X-Sallyport-Assertion") == "" ||
			r.Header.Get("Sec-Websocket-Protocol") != "v1, v2" || r.RequestURI != "/chat?x=1" ||
			!strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
			t.Errorf("the app saw %s %v", r.RequestURI, r.Header)
		}
		const inFlight = "sallyport_http_requests_in_flight"
		if n := s.tunnels(t); n != 1 || s.gauge(t, inFlight) != 1 {
			t.Errorf("%v tunnels are counted, of %v requests", n, s.gauge(t, inFlight))
		}
		total := 0
		for range 20 {
			size, err := rand.Int(rand.Reader, big.NewInt(200000))
			testenv.Check(t, err)
			frame := make([]byte, size.Int64())
			rand.Read(frame)
			total += len(frame)
			go func() { _, _ = w.conn.Write(frame) }()
			if got, err := readWithin(t, w.in, len(frame), soon); got != string(frame) || err != nil {
				t.Fatalf("%d of %d bytes came back, %v", len(got), len(frame), err)
			}
		}
		if half, ok := w.conn.(interface{ CloseWrite() error }); ok {
			testenv.Check(t, half.CloseWrite())
		}
		if rest, err := readWithin(t, w.in, -1, soon); rest != "" || err != nil {
			t.Errorf("the end: %q, %v", rest, err)
		}
		line := s.log.event(t, res.Header.Get("X-Request-Id"))
		if line["status"] != 101.0 || line["bytes"] != float64(total) || line["note"] != nil || line["error"] != nil ||
			line["level"] != "INFO" || line["method"] != "GET" || line["host"] != s.host {
			t.Errorf("logged %v, want %d bytes", line, total)
		}
		if n := s.tunnels(t); n != 0 {
			t.Errorf("%v tunnels are counted", n)
		}
		testenv.Eventually(t, "nothing is in flight", func() bool { return s.gauge(t, inFlight) == 0 })
	})
}

// A page of another site must not open a WebSocket with this site's cookies (RFC
// 6455 §10.2, nginx-ui CVE-2026-34403).
func TestP01_AWebSocketNeedsASessionAndAnOrigin(t *testing.T) {
	t.Parallel()
	s := wsSite(t, setup{App: serveApp(t, "http", wsApp("", echo))})
	cookie := "Cookie: " + s.mint(t, alice())
	own := "Origin: " + s.url
	for name, tt := range map[string]struct {
		path  string
		lines []string
		want  int
	}{
		"own page":                 {"/x", []string{cookie, own}, 101},
		"a program":                {"/x", []string{cookie}, 101},
		"no session":               {"/x", []string{own}, 401},
		"another page":             {"/x", []string{cookie, "Origin: https://evil.example"}, 403},
		"a page on another scheme": {"/x", []string{cookie, strings.Replace(own, "http:", "https:", 1)}, 403},
		"a page on another port":   {"/x", []string{cookie, own + "1"}, 403},
		"null":                     {"/x", []string{cookie, "Origin: null"}, 403},
		"two Origins":              {"/x", []string{cookie, own, "Origin: https://evil.example"}, 403},
		"own Origin twice":         {"/x", []string{cookie, own, own}, 403},
		"a friend":                 {"/friends/x", []string{cookie, "Origin: https://friend.example"}, 101},
		"a friend, elsewhere":      {"/x", []string{cookie, "Origin: https://friend.example"}, 403},
		"a stranger, at the friends' door": {"/friends/x", []string{cookie, "Origin: https://friend.example.evil"},
			403},
		"a route without":      {"/none/x", []string{cookie, own}, 403},
		"public":               {"/public/x", []string{own}, 101},
		"public, another page": {"/public/x", []string{"Origin: https://evil.example"}, 403},
	} {
		w, res := s.open(t, tt.path, tt.lines...)
		if res.StatusCode != tt.want {
			t.Errorf("%s: %d, want %d", name, res.StatusCode, tt.want)
		}
		w.close()
	}
}

// Bytes behind a handshake are for the app that agreed to it: they are neither
// sent before it agreed nor read here as the next request (RFC 9110 §7.8).
func TestP03_WhatFollowsAHandshakeIsForTheTunnelAlone(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{
		switched + "\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 403 " +
			"Forbidden\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 426 Upgrade Required\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "HTTP/1.1 101 Switching " +
			"Protocols\r\n\r\n",
	} {
		status, _, _ := strings.Cut(answer, "\r\n")
		t.Run(status, func(t *testing.T) {
			early, after := make(chan string, 1), make(chan string, 1)
			s := wsSite(t, setup{App: playApp(t, func(p *appPeer) {
				p.head()
				_ = p.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
				got, _ := io.ReadAll(p.in)
				early <- string(got)
				p.say(answer)
				_ = p.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
				got, _ = io.ReadAll(p.in)
				after <- string(got)
			})})
			inner := rawRequest("GET", "/smuggled", s.host, "Cookie: "+s.mint(t, alice()))
			w := s.wire(t)
			w.dial()
			_, err := io.WriteString(w.conn, handshake("/x", s.host, "Cookie: "+s.mint(t, alice()))+inner)
			testenv.Check(t, err)
			res, err := http.ReadResponse(w.in, nil)
			testenv.Check(t, err)
			if got := <-early; got != "" {
				t.Errorf("before its answer the app got %q", got)
			}
			agreed := answer == switched+"\r\n"
			if got := <-after; (agreed && got != inner) || (!agreed && got != "") {
				t.Errorf("after its answer the app got %q", got)
			}
			if (res.StatusCode == 101) != agreed {
				t.Errorf("answered %d", res.StatusCode)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			if rest, _ := readWithin(t, w.in, -1, soon); rest != "" {
				t.Errorf("and then %q", rest)
			}
		})
	}
}

// Whichever side goes, the other one is told, and nothing is left.
func TestATunnelEndsWithEitherSide(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, o setup, way string) {
		quit, left := make(chan struct{}), make(chan error, 1)
		o.App = serveApp(t, way, wsApp("", func(c net.Conn, in *bufio.Reader) {
			first, _ := in.ReadByte()
			switch first {
			case 'r':
				if tcp, ok := c.(*net.TCPConn); ok {
					_ = tcp.SetLinger(0)
				}
			case 'q':
				<-quit
			default:
				_, err := io.Copy(io.Discard, in)
				left <- err
			}
		}))
		s := wsSite(t, o)
		cookie := "Cookie: " + s.mint(t, alice())
		for _, how := range []string{"reset", "quit"} {
			w, res := s.open(t, "/x", cookie)
			_, err := io.WriteString(w.conn, how)
			testenv.Check(t, err)
			if how == "quit" {
				close(quit)
			}
			_, _ = readWithin(t, w.in, -1, 2*soon)
			w.close()
			s.log.event(t, res.Header.Get("X-Request-Id"))
		}
		w, res := s.open(t, "/x", cookie)
		_, err := io.WriteString(w.conn, "hello")
		testenv.Check(t, err)
		w.close()
		select {
		case <-left:
		case <-time.After(soon):
			t.Error("the app was not told that the client has gone")
		}
		s.log.event(t, res.Header.Get("X-Request-Id"))
		if n := s.tunnels(t); n != 0 {
			t.Errorf("%v tunnels are left", n)
		}
	})
}

// Both sides may say more than the handshake before they have read the other's.
func TestWhatComesWithTheHandshakeIsThereFirst(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, o setup, way string) {
		for _, size := range []int{1, 5000, 20000} {
			early := strings.Repeat("e", size)
			o.App = serveApp(t, way, func(w http.ResponseWriter, _ *http.Request) {
				conn, in, err := http.NewResponseController(w).Hijack()
				if err != nil {
					panic(err)
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, switched+"\r\n"+early+" of the app, ")
				echo(conn, in.Reader)
			})
			s := wsSite(t, o)
			w := s.wire(t)
			w.dialSite(s)
			_, err := io.WriteString(w.conn, handshake("/x", s.host, "Cookie: "+s.mint(t, alice()))+early)
			testenv.Check(t, err)
			res, err := http.ReadResponse(w.in, nil)
			testenv.Check(t, err)
			if res.StatusCode != 101 {
				t.Fatalf("answered %s", res.Status)
			}
			want := early + " of the app, " + early
			if got, err := readWithin(t, w.in, len(want), soon); got != want || err != nil {
				t.Errorf("%d bytes of %d came, %v", len(got), len(want), err)
			}
			_, err = io.WriteString(w.conn, "later")
			testenv.Check(t, err)
			if got, err := readWithin(t, w.in, 5, soon); got != "later" || err != nil {
				t.Errorf("then %q, %v", got, err)
			}
			w.close()
		}
	})
}

// tunnels is how many an operator sees.
func (s *testSite) tunnels(t *testing.T) float64 {
	t.Helper()
	return s.gauge(t, "sallyport_tunnels")
}

func (s *testSite) gauge(t *testing.T, name string) float64 {
	t.Helper()
	families, err := s.metrics.Gather()
	testenv.Check(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// P10, P11: tunnels end with the session, and with the process.
func TestP10_SigningOutEndsAWebSocket(t *testing.T) {
	t.Parallel()
	s := wsSite(t, setup{App: serveApp(t, "http", wsApp("", echo))})
	mine := "Cookie: " + s.mint(t, alice())
	late := s.sessions.Start(alice())
	late.SignedIn = late.SignedIn.Add(time.Minute - 12*time.Hour)
	a, _ := s.open(t, "/x", mine)
	b, _ := s.open(t, "/x", "Cookie: "+s.mint(t, alice()))
	c, _ := s.open(t, "/x", "Cookie: "+s.seal(t, late))
	if out := s.ask(t, "POST", prefix+"/logout", "", mine, "Origin: "+s.url); out.status >= 400 {
		t.Fatalf("signing out: %d", out.status)
	}
	if got, _ := readWithin(t, a.in, -1, soon); got != closeFrame(1008, "signed out") {
		t.Errorf("signed out, it says %q", got)
	}
	s.clock.Advance(time.Minute)
	if got, _ := readWithin(t, c.in, -1, soon); got != closeFrame(1008, "signed in too long ago") {
		t.Errorf("expired, it says %q", got)
	}
	_, err := io.WriteString(b.conn, "still here")
	testenv.Check(t, err)
	if got, err := readWithin(t, b.in, 10, soon); got != "still here" || err != nil {
		t.Errorf("a stranger's: %q, %v", got, err)
	}
}

// A page can tell whether to sign in again, or to come back later.
func TestP10_AWebSocketIsToldWhyItEnds(t *testing.T) {
	t.Parallel()
	for why, want := range map[error]struct {
		reason string
		code   uint16
	}{
		admission.ErrExpired:      {"expired", 1008},
		session.ErrExpired:        {"expired", 1008},
		admission.ErrEnded:        {"ended", 1008},
		session.ErrEnded:          {"ended", 1008},
		admission.ErrNoProvider:   {"ended", 1008},
		session.ErrOutdated:       {"ended", 1008},
		admission.ErrSwitched:     {"switched", 1008},
		admission.ErrRulesChanged: {"rules", 1008},
		admission.ErrUnverifiable: {"unverifiable", 1013},
	} {
		got := endingOf(&relay.Error{Kind: relay.ErrOver, Cause: fmt.Errorf("%w: of alice", why)})
		if got.reason != want.reason || got.frame.Code != want.code {
			t.Errorf("%v: %+v", why, got)
		}
		const mostBytes = 123 // RFC 6455 §5.5
		if text := got.frame.Reason; text == "" || len(text) > mostBytes || strings.Contains(text, "alice") {
			t.Errorf("%v: the client reads %q", why, text)
		}
	}
}

func TestStoppingEndsTunnelsAndRefusesNewOnes(t *testing.T) {
	t.Parallel()
	s := wsSite(t, setup{App: serveApp(t, "http", wsApp("", echo))})
	cookie := "Cookie: " + s.mint(t, alice())
	var all []*wire
	for range 10 {
		w, _ := s.open(t, "/x", cookie)
		all = append(all, w)
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	s.proxy.CloseTunnels(ctx)
	if ctx.Err() != nil {
		t.Error("tunnels are left")
	}
	testenv.Within(t, soon, "no tunnel is counted",
		func() bool { return s.tunnels(t) == 0 }) // their handlers return a moment later
	for _, w := range all {
		if got, _ := readWithin(t, w.in, -1, soon); got != closeFrame(1001, "the server is stopping") {
			t.Errorf("it says %q", got)
		}
	}
	w, res := s.open(t, "/x", cookie)
	_, _ = io.WriteString(w.conn, "hello")
	if got, _ := readWithin(t, w.in, -1, soon); strings.Contains(got, "hello") {
		t.Errorf("a new tunnel was carried: %d %q", res.StatusCode, got)
	}
	if res.StatusCode == 101 {
		t.Error("a new tunnel was promised")
	}
}

// A tunnel that is gone leaves no goroutine.
func TestP17_TunnelsLeaveNothingBehind(t *testing.T) {
	s := wsSite(t, setup{App: serveApp(t, "http", wsApp("", echo))})
	cookie := "Cookie: " + s.mint(t, alice())
	before := runtime.NumGoroutine()
	for i := range 50 {
		w, _ := s.open(t, "/x", cookie)
		if i%2 == 0 {
			_, _ = io.WriteString(w.conn, "hello")
		}
		w.close()
	}
	waitForGoroutines(t, before)
}

// waitForGoroutines fails if there are more than before and a few that come and go.
func waitForGoroutines(t *testing.T, before int) {
	t.Helper()
	const spare = 3
	gone := false
	defer func() {
		if !gone {
			buf := make([]byte, 1<<20)
			t.Logf("%d goroutines, there were %d\n%.6000s", runtime.NumGoroutine(), before,
				buf[:runtime.Stack(buf, true)])
		}
	}()
	testenv.Eventually(t, "the goroutines of before and no more", func() bool {
		gone = runtime.NumGoroutine() <= before+spare
		return gone
	})
}
