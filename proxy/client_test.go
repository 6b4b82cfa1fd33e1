package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// An answer that announces trailers, has no body and ends when its header is
// about to be sent on: its end and the timer for the header met on the
// connection, and one answer in ten had a chunk that nobody could read.
func TestAnEmptyAnswerWithTrailersArrivesWhole(t *testing.T) {
	t.Parallel()
	const clients, rounds = 30, 40
	s := newSite(t, setup{App: playApp(t, func(p *peer) {
		for n := 0; p.head() != ""; n++ {
			p.say("HTTP/1.1 200 OK\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n")
			time.Sleep(headerPatience + time.Duration(n%10-1)*40*time.Microsecond)
			p.say("0\r\nX-End: yes\r\n\r\n")
		}
	})})
	cookie := "Cookie: " + s.mint(t, alice())
	var all sync.WaitGroup
	for range clients {
		w := s.wire(t)
		w.dial()
		all.Go(func() {
			for i := range rounds {
				if err := askForTrailers(w, rawRequest("GET", "/x", s.host, cookie)); err != nil {
					t.Errorf("answer %d on its connection: %v", i, err)
					return
				}
			}
		})
	}
	all.Wait()
}

func askForTrailers(w *wire, request string) error {
	if _, err := io.WriteString(w.conn, request); err != nil {
		return err
	}
	res, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || len(body) > 0 || res.Trailer.Get("X-End") != "yes" {
		return fmt.Errorf("%d with body %q and trailers %v: %w", res.StatusCode, body, res.Trailer, err)
	}
	return nil
}

// writerDouble is a ResponseWriter that notes what a client does with it. Writing
// takes a moment, or until block is closed.
type writerDouble struct {
	block chan struct{}

	busy    atomic.Int32
	overlap atomic.Bool
	header  http.Header

	mu        sync.Mutex // guards what follows
	wrote     []string
	deadlines []string
}

func (w *writerDouble) Header() http.Header { return w.header }

func (w *writerDouble) do(what string) {
	if w.busy.Add(1) != 1 {
		w.overlap.Store(true)
	}
	defer w.busy.Add(-1)
	if w.block != nil {
		<-w.block
	}
	runtime.Gosched()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrote = append(w.wrote, what)
}

func (w *writerDouble) WriteHeader(status int) { w.do(strconv.Itoa(status) + w.header.Get("X-N")) }
func (w *writerDouble) Write(b []byte) (int, error) {
	w.do(string(b))
	return len(b), nil
}
func (w *writerDouble) FlushError() error { w.do("flush"); return nil }

func (w *writerDouble) deadline(kind string, t time.Time) error {
	if t.IsZero() {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadlines = append(w.deadlines, kind)
	return nil
}
func (w *writerDouble) SetReadDeadline(t time.Time) error  { return w.deadline("read", t) }
func (w *writerDouble) SetWriteDeadline(t time.Time) error { return w.deadline("write", t) }

func (w *writerDouble) seen() (wrote, deadlines []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.wrote), slices.Clone(w.deadlines)
}

func clientOf(w *writerDouble) *client {
	w.header = http.Header{}
	return newClient(w, &http.Request{ProtoMajor: 1}, "id", false)
}

func numbered(n int) http.Header { return http.Header{"X-N": {"#" + strconv.Itoa(n)}} }

// Invariant 1: one write at a time, whoever writes.
func TestWritesToAClientDoNotOverlap(t *testing.T) {
	t.Parallel()
	for range 20 {
		w := &writerDouble{}
		c := clientOf(w)
		var all sync.WaitGroup
		all.Go(func() {
			for n := range 20 {
				_ = c.queueInterim(103, numbered(n))
			}
		})
		all.Go(func() { c.sendContinue(func() bool { return true }) })
		all.Wait()
		c.settle()
		c.WriteHeader(200)
		c.holdHeader()
		for range 3 {
			all.Go(c.sendHeader)
			all.Go(func() { _ = c.writePiece([]byte("piece"), true) })
			all.Go(c.flush)
		}
		all.Wait()
		c.headerDone()
		c.close()
		if w.overlap.Load() {
			t.Fatal("two writes at once")
		}
	}
}

// Invariant 2: the app's reader and the watch do not wait for a client.
func TestNobodyWaitsForAClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	w := &writerDouble{block: make(chan struct{})}
	c := clientOf(w)
	c.passAnswer()
	go c.WriteHeader(200)
	for w.busy.Load() == 0 {
		runtime.Gosched()
	}
	free := make(chan struct{})
	go func() {
		defer close(free)
		_ = c.queueInterim(103, numbered(1))
		c.cutOff(true)
	}()
	select {
	case <-free:
	case <-time.After(soon):
		t.Error("waits for the write")
	}
	if _, deadlines := w.seen(); !slices.Equal(deadlines, []string{"read", "write"}) {
		t.Errorf("the write goes on: %v", deadlines)
	}
	close(w.block)
	c.close()
}

// Interim answers have no limit in number, but those that nobody reads have.
func TestP17_UnreadInterimAnswersAreBounded(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]http.Header{"many": {}, "large": {"Link": {strings.Repeat("x", 200<<10)}}} {
		t.Run(name, func(t *testing.T) {
			w := &writerDouble{block: make(chan struct{})}
			c := clientOf(w)
			var err error
			n := 0
			for ; err == nil && n < 1000; n++ {
				err = c.queueInterim(103, header.Clone())
			}
			if err == nil || n > maxUnreadInterims+2 || (name == "large" && n > 8) {
				t.Errorf("%d were taken", n)
			}
			close(w.block)
			c.settle()
			if wrote, _ := w.seen(); len(wrote) != n-1 {
				t.Errorf("%d of %d were passed on", len(wrote), n-1)
			}
		})
	}
}

// Invariant 3: interim answers go before the answer, in their order, and none
// comes later.
func TestInterimAnswersGoBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	w := &writerDouble{}
	c := clientOf(w)
	var want []string
	for n := range 10 {
		check(t, c.queueInterim(103, numbered(n)))
		want = append(want, "103#"+strconv.Itoa(n))
	}
	c.settle()
	check(t, c.queueInterim(103, numbered(10)))
	if c.sendContinue(func() bool { return true }) {
		t.Error("100 was said after the answer was known")
	}
	c.WriteHeader(200)
	check(t, c.queueInterim(103, numbered(11)))
	c.close()
	if wrote, _ := w.seen(); !slices.Equal(wrote, append(want, "200")) {
		t.Errorf("wrote %v", wrote)
	}
}

// Invariants 4 and 5: once an answer has begun there is no other, and only then
// does the watch end what is written.
func TestAnAnswerOfOursCanBeWrittenUntilOneHasBegun(t *testing.T) {
	t.Parallel()
	w := &writerDouble{}
	c := clientOf(w)
	c.cutOff(true)
	if _, deadlines := w.seen(); !slices.Equal(deadlines, []string{"read"}) || c.begun() {
		t.Errorf("before an answer: %v, begun %v", deadlines, c.begun())
	}
	c.WriteHeader(504)
	_, _ = c.Write([]byte("page"))
	c.cutOff(false)
	if _, deadlines := w.seen(); len(deadlines) != 1 {
		t.Errorf("the page that says why is cut off: %v", deadlines)
	}
	c.passAnswer()
	c.cutOff(false)
	if _, deadlines := w.seen(); !slices.Equal(deadlines, []string{"read", "write"}) || !c.begun() || c.status != 504 || c.bytes != 4 {
		t.Errorf("with an answer: %v, begun %v, %d with %d bytes", deadlines, c.begun(), c.status, c.bytes)
	}
}

// Invariant 6: the next request on the connection meets nothing of this one.
func TestNothingIsWrittenOnceTheHandlerHasReturned(t *testing.T) {
	t.Parallel()
	w := &writerDouble{}
	c := clientOf(w)
	check(t, c.queueInterim(103, numbered(1)))
	c.close()
	before, _ := w.seen()
	check(t, c.queueInterim(103, numbered(2)))
	c.passInterims()
	c.sendHeader()
	c.cutOff(true)
	c.readWithin(time.Second)
	check(t, c.SetReadDeadline(time.Now()))
	wrote, deadlines := w.seen()
	if len(wrote) != len(before) || len(deadlines) > len(before) { // one deadline for each interim answer before
		t.Errorf("wrote %v, deadlines %v; %v before", wrote, deadlines, before)
	}
}

// A resumable upload says how far it is with 104, a long COPY that it is at work
// with 102, for as long as it takes.
func TestALongRequestMayHaveManyInterimAnswers(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, o setup, way string) {
		t.Parallel()
		const many = 200
		o.App = serveApp(t, way, func(w http.ResponseWriter, r *http.Request) {
			for range many {
				w.WriteHeader(104)
				time.Sleep(2 * time.Millisecond)
			}
			_, _ = io.WriteString(w, "ok")
		})
		s := newSite(t, o)
		got := 0
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error { got++; return nil }})
		r, err := http.NewRequestWithContext(ctx, "PUT", s.url+"/x", nil)
		check(t, err)
		r.Header.Set("Cookie", s.mint(t, alice()))
		if a := s.send(t, r); a.status != 200 || a.body != "ok" || got != many {
			t.Errorf("answered %d after %d of %d interim answers", a.status, got, many)
		}
	})
}

// One app must not send browsers to another server, past us, or have the site's
// addresses reported: neither in its answer nor before it, nor with a 101.
func TestAnAppCannotLeadBrowsersPastSallyport(t *testing.T) {
	t.Parallel()
	const site = "Alt-Svc: h3=\":8443\"\r\nAlternate-Protocol: 443:quic\r\nNEL: {}\r\nPublic-Key-Pins: x\r\nPublic-Key-Pins-Report-Only: x\r\n" +
		"Strict-Transport-Security: max-age=1\r\nLink: </a>\r\n"
	for name, tt := range map[string]struct {
		keep, want []string
	}{
		"by default":          {nil, []string{"Link", "Strict-Transport-Security"}},
		"where a route wants": {[]string{"Alt-Svc", "Nel"}, []string{"Alt-Svc", "Link", "Nel", "Strict-Transport-Security"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := setup{Bent: func(b *Backend) { b.SiteHeaders = tt.keep }, App: playApp(t, func(p *peer) {
				for h := p.head(); h != ""; h = p.head() {
					if strings.Contains(h, "Sec-WebSocket-Key") {
						p.say(switched + site + "\r\n")
						return
					}
					p.say("HTTP/1.1 103 Early\r\n" + site + "\r\nHTTP/1.1 200 OK\r\n" + site + "Trailer: Alt-Svc\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nAlt-Svc: h3\r\n\r\n")
				}
			})}
			s := wsSite(t, o)
			seen := func(where string, h http.Header) {
				var got []string
				for _, name := range []string{"Alt-Svc", "Alternate-Protocol", "Link", "Nel", "Public-Key-Pins", "Public-Key-Pins-Report-Only", "Strict-Transport-Security"} {
					if h[name] != nil {
						got = append(got, name)
					}
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("%s has %v, want %v", where, got, tt.want)
				}
			}
			cookie := "Cookie: " + s.mint(t, alice())
			w := s.wire(t)
			w.dial()
			_, err := io.WriteString(w.conn, rawRequest("GET", "/x", s.host, cookie))
			check(t, err)
			for _, where := range []string{"the interim answer", "the answer"} {
				res, err := http.ReadResponse(w.in, nil)
				check(t, err)
				seen(where, res.Header)
				_, err = io.Copy(io.Discard, res.Body)
				check(t, err)
				if res.Trailer["Alt-Svc"] != nil {
					t.Errorf("trailers %v", res.Trailer)
				}
			}
			_, res := s.open(t, "/x", cookie)
			seen("the 101", res.Header)
		})
	}
}

// How long people talk is not how long an app takes.
func TestAWebSocketIsNoLongRequest(t *testing.T) {
	t.Parallel()
	s := wsSite(t, setup{App: serveApp(t, "http", wsApp("", echo))})
	w, res := s.open(t, "/x", "Cookie: "+s.mint(t, alice()))
	w.close()
	s.log.event(t, res.Header.Get("X-Request-Id"))
	if n := testutil.CollectAndCount(s.metrics, "sallyport_http_request_duration_seconds"); n != 0 {
		t.Errorf("%d series of request durations", n)
	}
	if n := testutil.CollectAndCount(s.metrics, "sallyport_tunnel_duration_seconds"); n != 1 {
		t.Errorf("%d series of tunnel durations", n)
	}
}
