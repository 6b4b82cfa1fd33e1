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

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// soon is how long a test waits for what should be there at once.
const soon = 10 * time.Second

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
	tunnels []ended
}

// carried is what goes on as a tunnel.
type carried struct{ *door }

func (c carried) Over() error { return c.caller.Over() }
func (c carried) CloseFrame(error) upstream.CloseFrame {
	return upstream.CloseFrame{Code: 1008, Reason: "signed out"}
}
func (c carried) Ended(why error, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tunnels = append(c.tunnels, ended{why, bytes})
}

// ended is a tunnel that is gone.
type ended struct {
	why   error
	bytes int64
}

// ended waits for the first.
func (d *door) ended(tb testing.TB) (first ended) {
	tb.Helper()
	testenv.Within(tb, soon, "the tunnel ends", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		if len(d.tunnels) > 1 {
			tb.Fatalf("it ended %d times", len(d.tunnels))
		}
		if len(d.tunnels) == 0 {
			return false
		}
		first = d.tunnels[0]
		return true
	})
	return first
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
	testenv.Check(tb, err)
	up, err := upstream.New(upstream.Options{URL: target})
	testenv.Check(tb, err)
	tb.Cleanup(up.Close)
	d := &door{relay: New()}
	d.order = Order{Transport: up, URL: url.URL{Scheme: up.Scheme(), Host: up.Host()}, Host: "app.example",
		Hooks: &d.caller, Header: soon, Idle: soon}
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
	o.URL.Path, o.URL.RawQuery = r.URL.Path, r.URL.RawQuery
	if r.Header.Get("Upgrade") == "websocket" {
		o.WebSocket = func() Tunnel { return carried{d} }
	}
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
	var got []result
	testenv.Within(tb, soon, "the exchange ends", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		got = slices.Clone(d.results)
		return len(got) > n
	})
	return got[n]
}

// dial sends raw text.
func (d *door) dial(tb testing.TB, text string) (net.Conn, *bufio.Reader) {
	tb.Helper()
	conn, err := net.Dial("tcp", d.server.Listener.Addr().String())
	testenv.Check(tb, err)
	tb.Cleanup(func() { conn.Close() })
	testenv.Check(tb, conn.SetDeadline(time.Now().Add(soon)))
	_, err = io.WriteString(conn, text)
	testenv.Check(tb, err)
	return conn, bufio.NewReader(conn)
}

func TestARequestAndItsAnswerPassWithWhatTheCallerChanges(t *testing.T) {
	t.Parallel()
	d := newDoor(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h := w.Header()
		h.Set("X-Seen", fmt.Sprintf("%s %s %s via=%q caller=%q hop=%q %q", r.Host, r.RequestURI, body,
			r.Header.Get("Via"), r.Header.Get("X-Caller"), r.Header.Get("X-Hop"), r.Trailer))
		h.Set("Alt-Svc", `h3=":1"`)
		h.Set("X-Request-Id", "the app's")
		w.WriteHeader(http.StatusEarlyHints)
		h.Set("Trailer", "X-End, Set-Cookie")
		_, _ = io.WriteString(w, "hello")
		h.Set("X-End", "yes")
		h.Set("Set-Cookie", "no=1")
	}), nil)
	_, in := d.dial(t, "POST /a?b HTTP/1.1\r\nHost: x\r\nConnection: X-Hop, X-Caller\r\nX-Hop: 1\r\nX-Caller: "+
		"forged\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Secret, Authorization\r\n\r\n"+
		"2\r\nhi\r\n0\r\nX-Sum: 7\r\nX-Secret: s\r\nAuthorization: a\r\n\r\n")
	res, err := http.ReadResponse(in, nil)
	testenv.Check(t, err)
	h := res.Header
	if res.StatusCode != 103 || h.Get("X-Caller") != "interim" || h["Alt-Svc"] != nil || h["X-Request-Id"] != nil {
		t.Errorf("interim answer %d %v", res.StatusCode, h)
	}
	res, err = http.ReadResponse(in, nil)
	testenv.Check(t, err)
	body, err := io.ReadAll(res.Body)
	testenv.Check(t, err)
	h = res.Header
	want := `app.example /a?b hi via="1.1 sallyport" caller="request" hop="" map["X-Sum":["7"]]`
	if h.Get("X-Seen") != want {
		t.Errorf("the app saw %s, want %s", h.Get("X-Seen"), want)
	}
	if res.StatusCode != 200 || string(body) != "hello" || h.Get("X-Caller") != "answer" || h["Alt-Svc"] != nil ||
		!slices.Equal(h["X-Request-Id"], []string{"id-1"}) || len(res.Trailer) != 1 ||
		res.Trailer.Get("X-End") != "yes" {
		t.Errorf("answered %d %q %v, trailers %v", res.StatusCode, body, h, res.Trailer)
	}
	if got := d.result(t, 0); got.err != nil || got.outcome.Attempts != 1 || got.status != 200 || got.bytes != 5 {
		t.Errorf("outcome %+v", got)
	}
}

// raw is an app that says one thing and closes.
func raw(answer string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		}
	})
}

// Callers tell people what went wrong by these errors.
func TestEachWayInWhichAnExchangeFailsHasItsError(t *testing.T) {
	t.Parallel()
	ok := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	silent := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	const (
		get      = "GET / HTTP/1.1\r\nHost: x\r\n"
		post     = "POST / HTTP/1.1\r\nHost: x\r\n"
		chunks   = post + "Transfer-Encoding: chunked\r\n\r\n"
		upgrade  = get + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
		switched = "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: "
	)
	circle := strings.Repeat("Via: 1.1 sallyport\r\n", 5) + strings.Repeat("CDN-Loop: sallyport\r\n", 3)
	small := func(o *Order) { o.MaxBody = 3 }
	leave := func(_ *door, c net.Conn) { time.Sleep(50 * time.Millisecond); c.Close() }
	for name, tt := range map[string]struct {
		app     http.Handler
		change  func(*Order)
		request string
		do      func(*door, net.Conn)
		want    error
		text    string
	}{
		"announced as too large": {app: ok, change: small, request: post + "Content-Length: 4\r\n\r\nbody",
			want: ErrTooLarge},
		"found to be too large": {app: ok, change: small, request: chunks + "4\r\nbody\r\n0\r\n\r\n",
			want: ErrTooLarge},
		"no chunk": {app: ok, request: chunks + "zz\r\n", want: ErrUploadBroken},
		// Within the limit the app has to be reached, too.
		"a client that sends nothing": {app: ok, change: func(o *Order) { o.Idle = time.Second },
			request: post + "Content-Length: 4\r\n\r\nbo", want: ErrClientSlow},
		"a circle":        {app: ok, request: get + circle + "\r\n", want: ErrLoop, text: "8 times"},
		"nobody is there": {request: get + "\r\n", want: upstream.ErrUnreachable},
		"no answer in time": {app: silent, change: func(o *Order) { o.Header = 50 * time.Millisecond },
			request: get + "\r\n", want: upstream.ErrTimeout, text: "no header"},
		"nothing moves": {app: silent, change: func(o *Order) { o.Header, o.Idle = 0, 50*time.Millisecond },
			request: get + "\r\n", want: upstream.ErrTimeout, text: "nothing moved"},
		"a client that has gone": {app: silent, request: get + "\r\n", do: leave, want: ErrClientGone},
		"a right that has ended": {app: silent, request: get + "\r\n",
			do: func(d *door, _ net.Conn) { d.caller.isOver.Store(true) }, want: ErrOver, text: "signed out"},
		"a status that is none": {app: raw("HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n"), request: get + "\r\n",
			want: ErrProtocol},
		"a switch that nobody asked for": {app: raw(switched + "websocket\r\n\r\n"), request: get + "\r\n",
			want: ErrProtocol},
		"a switch to something else": {app: raw(switched + "h2c\r\n\r\n"), request: upgrade, want: ErrProtocol},
		"a switch when the process stops": {app: raw(switched + "websocket\r\n\r\n"), request: upgrade,
			want: upstream.ErrClosed},
		"an answer that cannot be read": {app: raw("HTTP/1.1 200 OK\r\nSet-Cookie \"secret\"\r\n\r\n"),
			request: get + "\r\n", want: upstream.ErrUnreachable},
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
			if !errors.Is(got.err, tt.want) {
				t.Fatalf("failed with %v, want %v", got.err, tt.want)
			}
			if text := got.err.Error(); !strings.Contains(text, tt.text) || strings.Contains(text, "secret") {
				t.Errorf("failed with %q, want something about %q", text, tt.text)
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
	for name, length := range map[string]string{
		"of known length": "Content-Length: 10",
		"in chunks":       "Transfer-Encoding: chunked",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDoor(t, raw("HTTP/1.1 200 OK\r\n"+length+"\r\n\r\n5\r\nhello"), nil)
			res, err := http.Get(d.server.URL)
			testenv.Check(t, err)
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

// Frames as servers and clients write them (RFC 6455 §5.2).
const (
	pong       = "\x81\x04pong"
	maskedPing = "\x81\x84\x00\x00\x00\x00ping"
	maskedBye  = "\x88\x82\x00\x00\x00\x00\x03\xe8"
)

func TestATunnelIsCountedAndItsClientIsToldWhyItEnds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		idle time.Duration
		over bool
		want string
		why  error
	}{
		"the right to it is over": {soon, true, "\x88\x0c\x03\xf0signed out", ErrOver},
		"nothing moves": {300 * time.Millisecond, false, "\x88\x1f\x03\xe9nothing was sent for too long",
			upstream.ErrTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			atApp := make(chan string, 1)
			d := newDoor(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				conn, buffered, err := http.NewResponseController(w).Hijack()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
					"X-Request-Id: forged\r\n\r\n")
				got := make([]byte, len(maskedPing))
				_, _ = io.ReadFull(buffered, got)
				_, _ = io.WriteString(conn, pong)
				rest, _ := io.ReadAll(buffered)
				atApp <- string(got) + string(rest)
			}), func(o *Order) { o.Idle = tt.idle })
			conn, in := d.dial(t, "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			res, err := http.ReadResponse(in, nil)
			testenv.Check(t, err)
			h := res.Header
			if res.StatusCode != 101 || h.Get("X-Caller") != "answer" ||
				!slices.Equal(h["X-Request-Id"], []string{"id-1"}) {
				t.Errorf("answered %d %v", res.StatusCode, h)
			}
			_, err = io.WriteString(conn, maskedPing)
			testenv.Check(t, err)
			echo := make([]byte, len(pong))
			if _, err := io.ReadFull(in, echo); err != nil || string(echo) != pong || d.relay.OpenTunnels() != 1 {
				t.Errorf("%q came back, %v, of %d tunnels", echo, err, d.relay.OpenTunnels())
			}
			if got := d.result(t, 0); got.err != nil || !got.switched || got.status != 101 {
				t.Errorf("while the tunnel goes on, the outcome is %+v", got)
			}
			d.caller.isOver.Store(tt.over)
			told := make([]byte, len(tt.want))
			if _, err := io.ReadFull(in, told); err != nil || string(told) != tt.want {
				t.Errorf("the client is told %q, %v", told, err)
			}
			_, err = io.WriteString(conn, maskedBye)
			testenv.Check(t, err)
			if _, err := in.ReadByte(); err == nil {
				t.Error("the tunnel goes on")
			}
			if got := d.ended(t); !errors.Is(got.why, tt.why) || got.bytes != int64(len(pong)) ||
				d.relay.OpenTunnels() != 0 {
				t.Errorf("ended %+v, %d tunnels", got, d.relay.OpenTunnels())
			}
			// A close frame of two bytes, masked, and nothing of the client's goodbye.
			if got := <-atApp; !strings.HasPrefix(got, maskedPing+"\x88\x82") || len(got) != len(maskedPing)+8 {
				t.Errorf("the app got %q", got)
			}
		})
	}
}

// What one person's NTLM handshake leaves on a connection must be nobody else's
// (RFC 4559 §6), whether the client or the caller wrote it.
func TestAConnectionThatIsBoundToAPersonIsNotReused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		authorization, injected string
		bound                   bool
	}{
		"NTLM":                  {authorization: "NTLM abc", bound: true},
		"Negotiate":             {authorization: "negotiate abc", bound: true},
		"Negotiate from within": {authorization: "Basic abc", injected: "Negotiate abc", bound: true},
		"Basic":                 {authorization: "Basic abc"},
		"Bearer from within":    {authorization: "NTLM abc", injected: "Bearer abc"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var connections sync.Map
			d := newDoor(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				connections.Store(r.RemoteAddr, true)
			}), func(o *Order) { o.Hooks = &injector{authorization: tt.injected} })
			for n := range 3 {
				r, err := http.NewRequestWithContext(t.Context(), "GET", d.server.URL, nil)
				testenv.Check(t, err)
				r.Header.Set("Authorization", tt.authorization)
				res, err := http.DefaultClient.Do(r)
				testenv.Check(t, err)
				res.Body.Close()
				d.result(t, n)
			}
			count := 0
			connections.Range(func(any, any) bool { count++; return true })
			if (count == 3) != tt.bound {
				t.Errorf("%d connections", count)
			}
		})
	}
}

// injector writes credentials of its own.
type injector struct {
	caller
	authorization string
}

func (i *injector) RewriteRequest(h http.Header) {
	if i.authorization != "" {
		h.Set("Authorization", i.authorization)
	}
}

// A client of HTTP/1.1 that announces nothing sends nothing: a length of 0 stays.
func TestContentLengthZeroIsPassedOn(t *testing.T) {
	t.Parallel()
	d := newDoor(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Length", strings.Join(r.Header["Content-Length"], ","))
	}), nil)
	for length, want := range map[string]string{"Content-Length: 0\r\n": "0", "": ""} {
		_, in := d.dial(t, "DELETE / HTTP/1.1\r\nHost: x\r\n"+length+"\r\n")
		res, err := http.ReadResponse(in, nil)
		testenv.Check(t, err)
		if got := res.Header.Get("X-Length"); got != want {
			t.Errorf("%q became %q", length, got)
		}
	}
}

// A check of an exchange that has just ended must not end the next one on its
// connection; in HTTP/2 there is nothing left to look at.
func TestAWatchEndsNothingAfterTheExchange(t *testing.T) {
	t.Parallel()
	looking, answered := make(chan struct{}), make(chan struct{})
	deadlines := &deadlineWriter{ResponseWriter: httptest.NewRecorder()}
	x := &exchange{client: NewClient(deadlines, httptest.NewRequest("GET", "/", nil), "id", false),
		cancel: func(error) {}, order: Order{Hooks: &slowCaller{looking: looking, answered: answered}}}
	x.client.passAnswer()
	x.client.begin(200)
	x.watch.start(&sweeper{}, x, limits{Header: time.Hour, Idle: time.Hour})
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
