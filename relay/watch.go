package relay

import (
	"context"
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

const (
	// sweepInterval is how often all exchanges are looked at, or sooner where a limit
	// is nearer. A client that is gone is noticed within it, if nothing else tells.
	sweepInterval = 200 * time.Millisecond
	// pollInterval is how often it is asked whether what let a request in has ended:
	// streams and tunnels end within this time after it, and a sweepInterval.
	pollInterval = time.Second
)

// watched is what a watch knows of an exchange.
type watched interface {
	// over returns why the exchange must not go on, nil if it may.
	over() error
	// asks is over for what may have to be waited for; nil: there is nothing of the kind.
	asks() func() error
	// gone reports whether nobody is left to read an answer, where nothing else ends
	// the exchange then.
	gone() bool
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

// watch ends an exchange if the upstream's header is late, if nothing moves, if the client
// is gone, or if the session or token that let the request in is over. While the response
// header is outstanding only the header timeout applies, not the idle timeout. The exchange
// only stores the time when something moved; a sweeper looks at it.
type watch struct {
	limits   limits
	watched  watched
	sweeper  *sweeper
	place    int // in the sweeper's list, whose mu guards it; -1 once it is stopped
	begun    time.Time
	last     atomic.Int64 // when something moved last, since begun
	headerBy atomic.Int64 // when the header must be there, since begun; 0: not waited for; wasAnswered: it has come

	mu      sync.Mutex    // guards what follows
	asked   time.Duration // when over was asked last, since begun
	asking  bool          // what asks has returned is being asked
	cause   error         // why the exchange was ended; nil: it was not
	stopped bool
}

// wasAnswered stands for a header that is there.
const wasAnswered = -1

func (w *watch) start(s *sweeper, x watched, l limits) {
	w.sweeper, w.watched, w.limits, w.begun = s, x, l, time.Now()
	s.add(w)
}

// stop returns when the exchange is not being ended, and will not be. It may be called twice.
func (w *watch) stop() {
	w.sweeper.remove(w)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
}

// ended is why the exchange was ended, nil if it was not.
func (w *watch) ended() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cause
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
	if w.headerBy.CompareAndSwap(0, int64(time.Since(w.begun)+limit)) && limit < sweepInterval {
		w.sweeper.soon(limit)
	}
}

// answered ends the wait for the header.
func (w *watch) answered() {
	w.headerBy.Store(wasAnswered)
	w.moved()
}

// isAnswered reports whether answered was called.
func (w *watch) isAnswered() bool { return w.headerBy.Load() == wasAnswered }

// check looks at the exchange, and returns how soon it must do so again. It holds mu
// throughout, so that stop cannot return while the exchange is being ended: else the next
// request on the connection might be hit.
func (w *watch) check() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped || w.cause != nil {
		return sweepInterval
	}
	now := time.Since(w.begun)
	if w.cause = w.verdict(now); w.cause != nil {
		w.watched.end(w.cause)
	}
	return w.next(now)
}

// next is how soon to check again: at the nearest limit.
func (w *watch) next(now time.Duration) time.Duration {
	at := time.Duration(w.headerBy.Load())
	if at <= 0 {
		at = time.Duration(w.last.Load()) + w.limits.Idle
	}
	return max(min(sweepInterval, at-now), time.Millisecond)
}

func (w *watch) verdict(now time.Duration) error {
	if w.watched.gone() {
		return &Error{ErrClientGone, context.Canceled}
	}
	if now-w.asked >= pollInterval {
		w.asked = now
		if cause := w.watched.over(); cause != nil {
			return &Error{ErrOver, cause}
		}
		w.askAside()
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

// askAside asks what may have to be waited for, one question at a time. The sweeper does not wait
// for it: it would look at no other exchange meanwhile. It is called with mu held.
func (w *watch) askAside() {
	ask := w.watched.asks()
	if ask == nil || w.asking {
		return
	}
	w.asking = true
	go func() {
		cause := ask()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asking = false
		if cause != nil && !w.stopped && w.cause == nil {
			w.cause = &Error{ErrOver, cause}
			w.watched.end(w.cause)
		}
	}()
}
