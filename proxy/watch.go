package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-proxy/sallyport/upstream"
)

// Why an exchange was ended by us.
var (
	errSessionOver = errors.New("the session is over")
	errClientSlow  = errors.New("the client sends nothing")
	errAppSilent   = fmt.Errorf("%w: nothing moved any more", upstream.ErrTimeout)
	errNoHeader    = fmt.Errorf("%w: no header", upstream.ErrTimeout)
)

// glance is how often a watch looks: a sign-out ends streams and tunnels within
// this time (P10).
const glance = time.Second

// watch ends an exchange that has no right to go on: the app's header is late,
// nothing moves, or the session behind it is over. One timer does it all; the
// exchange itself only stores the time when something moved.
type watch struct {
	x        *exchange
	cancel   context.CancelCauseFunc
	begun    time.Time
	last     atomic.Int64 // when something moved last, since begun
	headerBy atomic.Int64 // when the header must be there, since begun; 0: not waited for, or wasAnswered

	mu    sync.Mutex // guards timer and over
	timer *time.Timer
	over  bool
}

// wasAnswered stands for a header that is there.
const wasAnswered = -1

func (w *watch) start(x *exchange, cancel context.CancelCauseFunc) {
	w.x, w.cancel, w.begun = x, cancel, time.Now()
	w.mu.Lock() // look may be quick
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(min(glance, x.backend.Idle), w.look)
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
}

// moved notes that a byte was passed on.
func (w *watch) moved() { w.last.Store(int64(time.Since(w.begun))) }

// sent begins the wait for the header: the request is with the app. A gRPC
// server may send its header with its first message, hours later; then the idle
// time alone counts. So it does where the answer came before the request's end.
func (w *watch) sent() {
	w.moved()
	if hasGRPC(w.x.in) {
		return
	}
	limit := w.x.backend.Header
	if !w.headerBy.CompareAndSwap(0, int64(time.Since(w.begun)+limit)) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if limit < glance && !w.over {
		w.timer.Reset(limit)
	}
}

// answered ends the wait for the header.
func (w *watch) answered() {
	w.headerBy.Store(wasAnswered)
	w.moved()
}

// look holds off stop: what it ends must be this exchange and not the next one
// on the same connection.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	if cause := w.verdict(); cause != nil {
		w.end(cause)
		return
	}
	w.timer.Reset(w.next())
}

// next is when to look again: at the nearest limit, but soon.
func (w *watch) next() time.Duration {
	now := time.Since(w.begun)
	at := time.Duration(w.headerBy.Load())
	if at <= 0 {
		at = time.Duration(w.last.Load()) + w.x.backend.Idle
	}
	return max(min(glance, at-now), time.Millisecond)
}

func (w *watch) verdict() error {
	now := time.Since(w.begun)
	if s := w.x.session; s != nil && (!w.x.p.now().Before(s.Expires) || w.x.p.sessions.HasEnded(s.ID)) {
		return errSessionOver
	}
	if by := w.headerBy.Load(); by > 0 { // an app that thinks is not idle
		if now >= time.Duration(by) {
			return errNoHeader
		}
		return nil
	}
	if now-time.Duration(w.last.Load()) < w.x.backend.Idle {
		return nil
	}
	if b := w.x.body; b != nil && b.waiting.Load() && !w.x.w.begun() {
		return errClientSlow
	}
	return errAppSilent
}

// end stops the exchange. A read from the client that is under way is not ended
// by a context; its deadline is. Where no body is left to read there is none: a
// deadline would spoil the connection for the next request. While no answer has
// begun one can still be written, so the writing half is left alone until then.
func (w *watch) end(cause error) {
	w.cancel(cause)
	control := http.NewResponseController(w.x.w.ResponseWriter)
	if b := w.x.body; b != nil && !b.ended() {
		_ = control.SetReadDeadline(time.Now())
	}
	if w.x.w.begun() {
		_ = control.SetWriteDeadline(time.Now())
	}
}

// hasGRPC reports whether r is a gRPC call.
func hasGRPC(r *http.Request) bool {
	const kind = "application/grpc"
	t := r.Header["Content-Type"]
	return len(t) == 1 && len(t[0]) >= len(kind) && t[0][:len(kind)] == kind
}
