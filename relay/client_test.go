package relay

import (
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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
		c.Settle()
		c.WriteHeader(200)
		c.holdHeader()
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
		check(t, c.queueInterim(103, numbered(n)))
		want = append(want, "103#"+strconv.Itoa(n))
	}
	c.Settle()
	check(t, c.queueInterim(103, numbered(10)))
	if c.sendContinue(func() bool { return true }) {
		t.Error("100 was said after the answer was known")
	}
	c.WriteHeader(200)
	check(t, c.queueInterim(103, numbered(11)))
	c.Close()
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
	if _, deadlines := w.seen(); !slices.Equal(deadlines, []string{"read"}) || c.Begun() {
		t.Errorf("before an answer: %v, begun %v", deadlines, c.Begun())
	}
	c.WriteHeader(504)
	_, _ = c.Write([]byte("page"))
	c.cutOff(false)
	if _, deadlines := w.seen(); len(deadlines) != 1 {
		t.Errorf("the page that says why is cut off: %v", deadlines)
	}
	c.passAnswer()
	c.cutOff(false)
	if _, deadlines := w.seen(); !slices.Equal(deadlines, []string{"read", "write"}) || !c.Begun() || c.Status() != 504 || c.Bytes() != 4 {
		t.Errorf("with an answer: %v, begun %v, %d with %d bytes", deadlines, c.Begun(), c.Status(), c.Bytes())
	}
}

// Invariant 6: the next request on the connection meets nothing of this one.
func TestNothingIsWrittenOnceTheHandlerHasReturned(t *testing.T) {
	t.Parallel()
	w := &writerDouble{}
	c := clientOf(w)
	check(t, c.queueInterim(103, numbered(1)))
	c.Close()
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
