package relay

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

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

func clientOf(w *writerDouble) *Client {
	w.header = http.Header{}
	return NewClient(w, &http.Request{ProtoMajor: 1}, "id", false)
}

func numbered(n int) http.Header { return http.Header{"X-N": {"#" + strconv.Itoa(n)}} }

// Invariant 1: one write at a time.
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
		c.Settle()
		c.WriteHeader(200)
		c.holdHeader()
		all.Go(func() { _, _ = c.Write([]byte("piece")) }) // the timer may come meanwhile
		all.Go(c.sendHeader)
		all.Wait()
		for range 3 {
			all.Go(c.sendHeader)
			all.Go(func() { _ = c.writePiece([]byte("piece"), true) })
			all.Go(c.flush)
		}
		all.Wait()
		c.headerDone()
		c.Close()
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
	c.Close()
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
			c.Settle()
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
		testenv.Check(t, c.queueInterim(103, numbered(n)))
		want = append(want, "103#"+strconv.Itoa(n))
	}
	c.Settle()
	testenv.Check(t, c.queueInterim(103, numbered(10)))
	if c.sendContinue(func() bool { return true }) {
		t.Error("100 was said after the answer was known")
	}
	c.WriteHeader(200)
	testenv.Check(t, c.queueInterim(103, numbered(11)))
	c.Close()
	if wrote, _ := w.seen(); !slices.Equal(wrote, append(want, "200")) {
		t.Errorf("wrote %v", wrote)
	}
}

// Invariant 4: once an answer has begun there is no other.
func TestAnAnswerThatHasBegunIsTheOnlyOne(t *testing.T) {
	t.Parallel()
	w := &writerDouble{}
	c := clientOf(w)
	if c.Begun() || c.Status() != 0 {
		t.Errorf("begun before it began, with %d", c.Status())
	}
	c.WriteHeader(200)
	c.WriteHeader(504)
	_, err := c.Write([]byte("page"))
	testenv.Check(t, err)
	if wrote, _ := w.seen(); !slices.Equal(wrote, []string{"200", "page"}) {
		t.Errorf("wrote %v", wrote)
	}
	if !c.Begun() || c.Status() != 200 || c.Bytes() != 4 {
		t.Errorf("begun %v, %d with %d bytes", c.Begun(), c.Status(), c.Bytes())
	}
}

// Invariant 5: the watch ends what an upstream answers, and not the page that says
// why the exchange was ended.
func TestAPageThatSaysWhyAnExchangeWasEndedIsNotCutOff(t *testing.T) {
	t.Parallel()
	w := &writerDouble{}
	c := clientOf(w)
	c.cutOff(true)
	c.WriteHeader(504)
	c.cutOff(false)
	if _, deadlines := w.seen(); !slices.Equal(deadlines, []string{"read"}) {
		t.Errorf("the page is cut off: %v", deadlines)
	}
	c.passAnswer()
	c.cutOff(false)
	if _, deadlines := w.seen(); !slices.Equal(deadlines, []string{"read", "write"}) {
		t.Errorf("the upstream's answer goes on: %v", deadlines)
	}
}

// Invariant 6: the next request on the connection meets nothing of this one.
func TestNothingIsWrittenOnceTheHandlerHasReturned(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]func(*Client){
		"an interim answer":     func(c *Client) { _ = c.queueInterim(103, numbered(2)); c.passInterims() },
		"100 Continue":          func(c *Client) { c.sendContinue(func() bool { return true }) },
		"the header's timer":    func(c *Client) { c.sendHeader() },
		"a header":              func(c *Client) { c.WriteHeader(200) },
		"a body":                func(c *Client) { _, _ = c.Write([]byte("late")) },
		"a piece of a body":     func(c *Client) { _ = c.writePiece([]byte("late"), true) },
		"a flush":               func(c *Client) { c.flush() },
		"the watch":             func(c *Client) { c.passAnswer(); c.cutOff(true) },
		"a deadline to read by": func(c *Client) { _ = c.SetReadDeadline(time.Now()) },
		"a deadline to write":   func(c *Client) { c.readWithin(time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			w := &writerDouble{}
			c := clientOf(w)
			testenv.Check(t, c.queueInterim(103, numbered(1)))
			c.Settle()
			c.Close()
			wrote, deadlines := w.seen()
			late(c)
			if after, set := w.seen(); len(after) != len(wrote) || len(set) != len(deadlines) {
				t.Errorf("wrote %v after %v, deadlines %v after %v", after, wrote, set, deadlines)
			}
			if c.Status() != 0 {
				t.Errorf("answered %d", c.Status())
			}
		})
	}
}

// Close must not overtake a write: the handler returns behind it, and net/http
// sends what follows on the same connection.
func TestClosingWaitsForAWriteThatIsUnderWay(t *testing.T) {
	t.Parallel()
	w := &writerDouble{block: make(chan struct{})}
	c := clientOf(w)
	go c.WriteHeader(200)
	for w.busy.Load() == 0 {
		runtime.Gosched()
	}
	closed := make(chan struct{})
	go func() { c.Close(); close(closed) }()
	select {
	case <-closed:
		t.Error("closed in the middle of a write")
	case <-time.After(20 * time.Millisecond):
	}
	close(w.block)
	<-closed
}

// Interim answers clear the header map, and what is ours must be there again.
func TestInterimAnswersLeaveNothingInTheAnswer(t *testing.T) {
	t.Parallel()
	w := &writerDouble{header: http.Header{}}
	c := NewClient(w, &http.Request{ProtoMajor: 1}, "id", true)
	testenv.Check(t, c.queueInterim(103, http.Header{"Link": {"</a>"}}))
	c.Settle()
	c.WriteHeader(200)
	if h := w.header; h["Link"] != nil || h.Get("X-Request-Id") != "id" || h.Get("Connection") != "close" {
		t.Errorf("answered with %v", h)
	}
}

// A proxy before us may see the end of these requests elsewhere than net/http does.
func TestAConnectionWhoseRequestsEndInTwoWaysIsClosed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		r    http.Request
		last bool
	}{
		"an ordinary one": {http.Request{ProtoMajor: 1, ProtoMinor: 1}, false},
		"in chunks":       {http.Request{ProtoMajor: 1, ProtoMinor: 1, TransferEncoding: []string{"chunked"}}, true},
		"HTTP/1.0":        {http.Request{ProtoMajor: 1}, true},
		"CONNECT":         {http.Request{ProtoMajor: 1, ProtoMinor: 1, Method: "CONNECT"}, true},
		"an upgrade":      {http.Request{ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Upgrade": {"h2c"}}}, true},
		"HTTP/2": {http.Request{ProtoMajor: 2, Method: "CONNECT", TransferEncoding: []string{"chunked"}},
			false},
	} {
		w := httptest.NewRecorder()
		NewClient(w, &tt.r, "id", false).WriteHeader(200)
		if got := w.Header().Get("Connection") == "close"; got != tt.last {
			t.Errorf("%s: last on its connection: %v", name, got)
		}
	}
}

// Invariant 3: whoever has settled a client has its header for itself. An app that says 103, 100
// and 200 at once has the body asked for while its answer comes: a 100 that was still being
// written then cleared the header of the answer, or met it in the map, which ends the process.
func TestP23_NothingInterimIsWrittenOnceTheAnswerIsKnown(t *testing.T) {
	for range 300 {
		w := &hookedWriter{header: http.Header{}}
		c := NewClient(w, &http.Request{ProtoMajor: 1}, "id", false)
		var others sync.WaitGroup
		var settled atomic.Bool
		w.on = func(status int) {
			if status != http.StatusEarlyHints {
				time.Sleep(50 * time.Microsecond)
				return
			}
			others.Go(func() { c.sendContinue(func() bool { return true }) })
			others.Go(func() { // as the watch does, and the app's reader
				for !settled.Load() {
					if c.mu.TryLock() {
						for began := time.Now(); time.Since(began) < 20*time.Microsecond; {
						}
						c.mu.Unlock()
					}
				}
			})
			time.Sleep(time.Millisecond)
		}
		c.queued, c.passing = []interim{{code: http.StatusEarlyHints}}, true
		c.Settle()
		began, ended := w.began.Load(), w.ended.Load()
		settled.Store(true)
		others.Wait()
		if w.began.Load() != began || ended != began {
			t.Fatal("a 100 was being written after the client was settled")
		}
	}
}

// hookedWriter is a ResponseWriter that counts headers.
type hookedWriter struct {
	header       http.Header
	on           func(status int)
	began, ended atomic.Int32
}

func (w *hookedWriter) Header() http.Header { return w.header }

func (w *hookedWriter) WriteHeader(status int) {
	w.began.Add(1)
	w.on(status)
	w.ended.Add(1)
}

func (w *hookedWriter) Write(b []byte) (int, error)      { return len(b), nil }
func (w *hookedWriter) SetWriteDeadline(time.Time) error { return nil }
