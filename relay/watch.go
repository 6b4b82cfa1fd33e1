package relay

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-proxy/sallyport/upstream"
)

// Why a watch ended an exchange, besides ErrClientSlow and ErrOver.
var (
	errSilent   = fmt.Errorf("%w: nothing moved any more", upstream.ErrTimeout)
	errNoHeader = fmt.Errorf("%w: no header", upstream.ErrTimeout)
)

// pollInterval is how often a watch looks at its exchange: what let the request in
// may end, and streams and tunnels end within this time after it.
const pollInterval = time.Second

// watched is what a watch knows of an exchange.
type watched interface {
	// over returns why the exchange must not go on, nil if it may.
	over() error
	// waitsForClient reports whether it is the client's turn: its body is being
	// read, and no answer has begun.
	waitsForClient() bool
	// end stops the exchange.
	end(cause error)
}

// limits are how long an exchange may take.
type limits struct {
	Header time.Duration // for the upstream's header, once the request was sent; 0: no limit
	Idle   time.Duration // without a byte in either direction
}

// watch ends an exchange if the upstream's header is late, if nothing moves, or if
// the session or token that let the request in is over. While the response header is
// outstanding only the header timeout applies, not the idle timeout. There is one
// timer; the exchange only stores the time when something moved.
type watch struct {
	limits   limits
	watched  watched
	begun    time.Time
	last     atomic.Int64 // when something moved last, since begun
	headerBy atomic.Int64 // when the header must be there, since begun; 0: not waited for; wasAnswered: it has come

	mu      sync.Mutex // guards timer and stopped
	timer   *time.Timer
	stopped bool
}

// wasAnswered stands for a header that is there.
const wasAnswered = -1

func (w *watch) start(x watched, l limits) {
	w.watched, w.limits, w.begun = x, l, time.Now()
	w.mu.Lock() // check may be quick
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(min(pollInterval, l.Idle), w.check)
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}

// moved notes that a byte was passed on.
func (w *watch) moved() { w.last.Store(int64(time.Since(w.begun))) }

// sent begins the wait for the header: the upstream has the whole request. Where
// the answer came before the request's end, nothing is waited for.
func (w *watch) sent() {
	w.moved()
	limit := w.limits.Header
	if limit == 0 {
		return
	}
	if !w.headerBy.CompareAndSwap(0, int64(time.Since(w.begun)+limit)) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if limit < pollInterval && !w.stopped {
		w.timer.Reset(limit)
	}
}

// answered ends the wait for the header.
func (w *watch) answered() {
	w.headerBy.Store(wasAnswered)
	w.moved()
}

// isAnswered reports whether answered was called.
func (w *watch) isAnswered() bool { return w.headerBy.Load() == wasAnswered }

// check looks at the exchange. It holds mu throughout, so that stop cannot return
// while the exchange is being ended: else the next request on the connection might
// be hit.
func (w *watch) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	if cause := w.verdict(); cause != nil {
		w.watched.end(cause)
		return
	}
	w.timer.Reset(w.next())
}

// next is when to check again: at the nearest limit, but soon.
func (w *watch) next() time.Duration {
	now := time.Since(w.begun)
	at := time.Duration(w.headerBy.Load())
	if at <= 0 {
		at = time.Duration(w.last.Load()) + w.limits.Idle
	}
	return max(min(pollInterval, at-now), time.Millisecond)
}

func (w *watch) verdict() error {
	now := time.Since(w.begun)
	if cause := w.watched.over(); cause != nil {
		return &Error{ErrOver, cause}
	}
	if by := w.headerBy.Load(); by > 0 { // an upstream at work is not idle
		if now >= time.Duration(by) {
			return errNoHeader
		}
		return nil
	}
	if now-time.Duration(w.last.Load()) < w.limits.Idle {
		return nil
	}
	if w.watched.waitsForClient() {
		return ErrClientSlow
	}
	return errSilent
}
