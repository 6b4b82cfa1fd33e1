package relay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/upstream"
)

// soon is how long a test waits for what should be there at once.
const soon = 10 * time.Second

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// caller is a front door that adds a header to everything.
type caller struct{ isOver atomic.Bool }

func (d *caller) RewriteRequest(h http.Header)  { h.Set("X-Caller", "request") }
func (d *caller) RewriteTrailers(h http.Header) { h.Del("X-Secret") }
func (d *caller) RewriteInterim(h http.Header)  { h.Set("X-Caller", "interim") }
func (d *caller) RewriteAnswer(h http.Header)   { h.Set("X-Caller", "answer") }
func (d *caller) Over() error {
	if d.isOver.Load() {
		return errSignedOut
	}
	return nil
}

// door is a server that passes everything on, and keeps what came of it.
type door struct {
	relay  *Relay
	caller caller
	order  Order
	server *httptest.Server

	mu      sync.Mutex // guards what follows
	results []result
}

type result struct {
	outcome         Outcome
	err             error
	status          int
	bytes           int64
	begun, switched bool
}

// newDoor starts a door before app, which may be nil: then nobody is there.
func newDoor(tb testing.TB, app http.Handler, change func(*Order)) *door {
	tb.Helper()
	address := "http://127.0.0.1:1"
	if app != nil {
		server := httptest.NewUnstartedServer(app)
		server.Config.ErrorLog = nil
		server.Start()
		tb.Cleanup(server.Close)
		address = server.URL
	}
	target, err := url.Parse(address)
	check(tb, err)
	up, err := upstream.New(upstream.Options{URL: target})
	check(tb, err)
	tb.Cleanup(up.Close)
	d := &door{relay: New()}
	d.order = Order{Transport: up, URL: url.URL{Scheme: up.Scheme(), Host: up.Host()}, Host: "app.example", Hooks: &d.caller,
		Header: soon, Idle: soon}
	if change != nil {
		change(&d.order)
	}
	d.server = httptest.NewServer(d)
	tb.Cleanup(d.server.Close)
	return d
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := NewClient(w, r, "id-1", false)
	defer c.Close()
	o := d.order
	o.URL.Path, o.URL.RawQuery, o.WebSocket = r.URL.Path, r.URL.RawQuery, r.Header.Get("Upgrade") == "websocket"
	outcome, err := d.relay.Exchange(c, r, o)
	if err != nil && !c.Begun() {
		c.AnswerWithoutBody(r)
		c.WriteHeader(http.StatusBadGateway)
	}
	d.mu.Lock()
	d.results = append(d.results, result{outcome, err, c.Status(), c.Bytes(), c.Begun(), c.Switched()})
	d.mu.Unlock()
	if err != nil && c.Status() != http.StatusBadGateway {
		panic(http.ErrAbortHandler)
	}
}

// result waits for the n-th, from 0.
func (d *door) result(tb testing.TB, n int) result {
	tb.Helper()
	for deadline := time.Now().Add(soon); ; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		got := slices.Clone(d.results)
		d.mu.Unlock()
		if len(got) > n {
			return got[n]
		}
		if time.Now().After(deadline) {
			tb.Fatal("the exchange goes on")
		}
	}
}

// dial sends raw text.
func (d *door) dial(tb testing.TB, text string) (net.Conn, *bufio.Reader) {
	tb.Helper()
	conn, err := net.Dial("tcp", d.server.Listener.Addr().String())
	check(tb, err)
	tb.Cleanup(func() { conn.Close() })
	check(tb, conn.SetDeadline(time.Now().Add(soon)))
	_, err = io.WriteString(conn, text)
	check(tb, err)
	return conn, bufio.NewReader(conn)
}

func TestARequestAndItsAnswerPassWithWhatTheCallerChanges(t *testing.T) {
	t.Parallel()
	d := newDoor(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", fmt.Sprintf("%s %s %s via=%q caller=%q hop=%q %q", r.Host, r.RequestURI, body, r.Header.Get("Via"), r.Header.Get("X-Caller"),
			r.Header.Get("X-Hop"), r.Trailer))
		w.Header().Set("Alt-Svc", `h3=":1"`)
		w.Header().Set("X-Request-Id", "the app's")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "X-End, Set-Cookie")
		_, _ = io.WriteString(w, "hello")
		w.Header().Set("X-End", "yes")
		w.Header().Set("Set-Cookie", "no=1")
	}), nil)
	_, in := d.dial(t, "POST /a?b HTTP/1.1\r\nHost: x\r\nConnection: X-Hop, X-Caller\r\nX-Hop: 1\r\nX-Caller: forged\r\nTransfer-Encoding: chunked\r\n"+
		"Trailer: X-Sum, X-Secret, Authorization\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\nX-Secret: s\r\nAuthorization: a\r\n\r\n")
	hints, err := http.ReadResponse(in, nil)
	check(t, err)
	if hints.StatusCode != 103 || hints.Header.Get("X-Caller") != "interim" || hints.Header["Alt-Svc"] != nil || hints.Header["X-Request-Id"] != nil {
		t.Errorf("interim answer %d %v", hints.StatusCode, hints.Header)
	}
	res, err := http.ReadResponse(in, nil)
	check(t, err)
	body, err := io.ReadAll(res.Body)
	check(t, err)
	if want := `app.example /a?b hi via="1.1 sallyport" caller="request" hop="" map["X-Sum":["7"]]`; res.Header.Get("X-Seen") != want {
		t.Errorf("the app saw %s, want %s", res.Header.Get("X-Seen"), want)
	}
	if res.StatusCode != 200 || string(body) != "hello" || res.Header.Get("X-Caller") != "answer" || res.Header["Alt-Svc"] != nil ||
		!slices.Equal(res.Header["X-Request-Id"], []string{"id-1"}) || res.Trailer.Get("X-End") != "yes" || res.Trailer["Set-Cookie"] != nil {
		t.Errorf("answered %d %q %v, trailers %v", res.StatusCode, body, res.Header, res.Trailer)
	}
	if got := d.result(t, 0); got.err != nil || got.outcome.Attempts != 1 || got.status != 200 || got.bytes != 5 {
		t.Errorf("outcome %+v", got)
	}
}

// Callers tell people what went wrong by these errors.
func TestEachWayInWhichAnExchangeFailsHasItsError(t *testing.T) {
	t.Parallel()
	ok := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	silent := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	raw := func(answer string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, answer)
				_ = conn.Close()
			}
		})
	}
	const get, post = "GET / HTTP/1.1\r\nHost: x\r\n", "POST / HTTP/1.1\r\nHost: x\r\n"
	short := func(o *Order) { o.Idle = 100 * time.Millisecond }
	for name, tt := range map[string]struct {
		app     http.Handler
		change  func(*Order)
		request string
		do      func(*door, net.Conn)
		want    error
		text    string
	}{
		"a body that is announced as too large":    {app: ok, change: func(o *Order) { o.MaxBody = 3 }, request: post + "Content-Length: 4\r\n\r\nbody", want: ErrTooLarge},
		"a body that turns out to be too large":    {app: ok, change: func(o *Order) { o.MaxBody = 3 }, request: post + "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", want: ErrTooLarge},
		"a body that is no chunk":                  {app: ok, request: post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", want: ErrUploadBroken},
		"a client that sends nothing":              {app: ok, change: short, request: post + "Content-Length: 4\r\n\r\nbo", want: ErrClientSlow},
		"a circle":                                 {app: ok, request: get + strings.Repeat("Via: 1.1 sallyport\r\n", 5) + strings.Repeat("CDN-Loop: sallyport\r\n", 3) + "\r\n", want: ErrLoop, text: "8 times"},
		"nobody is there":                          {request: get + "\r\n", want: upstream.ErrUnreachable},
		"no answer in time":                        {app: silent, change: func(o *Order) { o.Header = 50 * time.Millisecond }, request: get + "\r\n", want: upstream.ErrTimeout, text: "no header"},
		"a client that has gone":                   {app: silent, request: get + "\r\n", do: func(_ *door, c net.Conn) { time.Sleep(50 * time.Millisecond); c.Close() }, want: ErrClientGone},
		"a right that has ended":                   {app: silent, request: get + "\r\n", do: func(d *door, _ net.Conn) { d.caller.isOver.Store(true) }, want: ErrOver, text: "signed out"},
		"a status that is none":                    {app: raw("HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n"), request: get + "\r\n", want: ErrProtocol},
		"a switch that nobody asked for":           {app: raw("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), request: get + "\r\n", want: ErrProtocol},
		"a switch to something else":               {app: raw("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"), request: get + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", want: ErrProtocol},
		"a switch when the process is stopping":    {app: raw("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), request: get + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", do: nil, want: upstream.ErrClosed},
		"an answer that nobody can read, a secret": {app: raw("HTTP/1.1 200 OK\r\nSet-Cookie \"secret\"\r\n\r\n"), request: get + "\r\n", want: upstream.ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDoor(t, tt.app, tt.change)
			if errors.Is(tt.want, upstream.ErrClosed) {
				d.relay.CloseTunnels(t.Context())
			}
			conn, in := d.dial(t, tt.request)
			if tt.do != nil {
				tt.do(d, conn)
			}
			got := d.result(t, 0)
			if !errors.Is(got.err, tt.want) || !strings.Contains(got.err.Error(), tt.text) || strings.Contains(got.err.Error(), "secret") {
				t.Errorf("failed with %v, want %v", got.err, tt.want)
			}
			if errors.Is(tt.want, ErrClientGone) {
				return
			}
			if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != 502 {
				t.Errorf("the handler's answer: %v, %v", res, err)
			}
		})
	}
}

// An answer that broke off must not look whole, and the caller must know that it
// cannot answer any more.
func TestAnAnswerThatBreaksOffIsBrokenForTheClient(t *testing.T) {
	t.Parallel()
	for name, length := range map[string]string{"of known length": "Content-Length: 10", "in chunks": "Transfer-Encoding: chunked"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDoor(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err == nil {
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+length+"\r\n\r\n5\r\nhello")
					_ = conn.Close()
				}
			}), nil)
			res, err := http.Get(d.server.URL)
			check(t, err)
			defer res.Body.Close()
			if _, err := io.ReadAll(res.Body); err == nil {
				t.Error("it looks whole")
			}
			if got := d.result(t, 0); got.err == nil || !got.begun || got.status != 200 {
				t.Errorf("outcome %+v", got)
			}
		})
	}
}

func TestATunnelIsCountedAndEndsWithTheRightToIt(t *testing.T) {
	t.Parallel()
	d := newDoor(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Request-Id: forged\r\n\r\n")
		_, _ = io.Copy(conn, buffered)
	}), nil)
	conn, in := d.dial(t, "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	res, err := http.ReadResponse(in, nil)
	check(t, err)
	if res.StatusCode != 101 || res.Header.Get("X-Caller") != "answer" || !slices.Equal(res.Header["X-Request-Id"], []string{"id-1"}) {
		t.Errorf("answered %d %v", res.StatusCode, res.Header)
	}
	_, err = io.WriteString(conn, "ping")
	check(t, err)
	echo := make([]byte, 4)
	if _, err := io.ReadFull(in, echo); err != nil || string(echo) != "ping" || d.relay.OpenTunnels() != 1 {
		t.Errorf("%q came back, %v, of %d tunnels", echo, err, d.relay.OpenTunnels())
	}
	d.caller.isOver.Store(true)
	if _, err := in.ReadByte(); err == nil {
		t.Error("the tunnel goes on")
	}
	got := d.result(t, 0)
	if !errors.Is(got.outcome.Tunnel, ErrOver) || got.err != nil || !got.switched || got.status != 101 || got.bytes != 4 || d.relay.OpenTunnels() != 0 {
		t.Errorf("outcome %+v, %d tunnels", got, d.relay.OpenTunnels())
	}
}

// What one person's NTLM handshake leaves on a connection must be nobody else's
// (RFC 4559 §6).
func TestAConnectionThatIsBoundToAPersonIsNotReused(t *testing.T) {
	t.Parallel()
	for authorization, want := range map[string]bool{"NTLM abc": true, "negotiate abc": true, "Basic abc": false} {
		var connections sync.Map
		d := newDoor(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { connections.Store(r.RemoteAddr, true) }), nil)
		for n := range 3 {
			r, err := http.NewRequestWithContext(t.Context(), "GET", d.server.URL, nil)
			check(t, err)
			r.Header.Set("Authorization", authorization)
			res, err := http.DefaultClient.Do(r)
			check(t, err)
			res.Body.Close()
			d.result(t, n)
		}
		count := 0
		connections.Range(func(any, any) bool { count++; return true })
		if (count == 3) != want {
			t.Errorf("%s: %d connections", authorization, count)
		}
	}
}

// A check of an exchange that has just ended must not end the next one on its
// connection; in HTTP/2 there is nothing left to look at.
func TestALateCheckEndsNothing(t *testing.T) {
	t.Parallel()
	looking, answered := make(chan struct{}), make(chan struct{})
	deadlines := &deadlineWriter{ResponseWriter: httptest.NewRecorder()}
	x := &exchange{client: NewClient(deadlines, httptest.NewRequest("GET", "/", nil), "id", false), cancel: func(error) {},
		order: Order{Hooks: &slowCaller{looking: looking, answered: answered}}}
	x.client.passAnswer()
	x.client.begin(200)
	x.watch.start(x, limits{Header: time.Hour, Idle: time.Hour})
	go x.watch.check()
	<-looking
	stopped := make(chan struct{})
	go func() { x.watch.stop(); close(stopped) }()
	select {
	case <-stopped: // nothing waits: whatever follows comes too late
		close(answered)
		time.Sleep(50 * time.Millisecond)
		t.Errorf("the exchange was over, and %d deadlines were set after it", deadlines.set.Load())
	case <-time.After(50 * time.Millisecond):
		close(answered)
		<-stopped
	}
}

// slowCaller takes its time to say that an exchange is over.
type slowCaller struct {
	caller
	looking, answered chan struct{}
}

func (d *slowCaller) Over() error { close(d.looking); <-d.answered; return errSignedOut }

// deadlineWriter counts the deadlines it is given.
type deadlineWriter struct {
	http.ResponseWriter
	set atomic.Int32
}

func (d *deadlineWriter) SetReadDeadline(time.Time) error  { d.set.Add(1); return nil }
func (d *deadlineWriter) SetWriteDeadline(time.Time) error { d.set.Add(1); return nil }
