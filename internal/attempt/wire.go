package attempt

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// ErrSurplus: the peer sent more than its last answer. A peer that sends more
// than it announced (a body after 204, say) would else answer the next request
// with the rest, and that may be somebody else's.
var ErrSurplus = errors.New("more came than the last answer")

// The states of a wire.
const (
	open   int32 = iota // dialed, perhaps within a TLS handshake; or HTTP/2, which frames what it carries
	lent                // to a request of which nothing is written yet
	asked               // something of a request was written
	broken              // surplus came
)

// wire is a connection as it was dialed, beneath TLS. For HTTP/1 it keeps
// requests and answers in turn.
type wire struct {
	net.Conn
	state   atomic.Int32
	waiting atomic.Bool // a Read is under way
	heard   atomic.Bool // something came since the wire was lent
	reads   atomic.Uint64

	once  sync.Once
	ended chan struct{} // nothing can be read any more
}

func newWire(c net.Conn) *wire { return &wire{Conn: c, ended: make(chan struct{})} }

func (w *wire) end() { w.once.Do(func() { close(w.ended) }) }

// begun reports whether something of the request may have been written.
func (w *wire) begun() bool {
	s := w.state.Load()
	return s == open || s == asked
}

// lendPatience is how long the reader may take to be done with what came before.
// It takes microseconds.
const lendPatience = time.Second

// lend makes the wire ready for a next request, and reports whether it is: the
// transport's reader waits for bytes, so it has looked at all that had come.
// What comes from here on, and before something is written, is surplus.
func (w *wire) lend(closed func() bool) bool {
	w.heard.Store(false)
	w.state.Store(lent)
	for range 100 {
		if w.waiting.Load() {
			return w.state.Load() == lent
		}
		runtime.Gosched()
	}
	for begun := time.Now(); time.Since(begun) < lendPatience && !closed(); time.Sleep(50 * time.Microsecond) {
		if w.waiting.Load() {
			return w.state.Load() == lent
		}
	}
	return false
}

// Read implements net.Conn. There is one reader at a time.
func (w *wire) Read(p []byte) (int, error) {
	w.waiting.Store(true)
	n, err := w.Conn.Read(p)
	w.waiting.Store(false)
	w.reads.Add(1)
	if n > 0 {
		w.heard.Store(true)
		if w.state.CompareAndSwap(lent, broken) {
			n, err = 0, ErrSurplus
		}
	}
	if err != nil {
		w.end()
	}
	return n, err
}

// Write implements net.Conn.
//
// A peer may answer before it has read a whole body, and hang up: 413 to a large
// upload. net/http takes the failed write for the end of the exchange and closes
// the connection, often before it has read the answer. So the failure is told
// once the reader has had all that came, or the connection was closed, as it is
// when the answer has been passed on or the request's time is over.
func (w *wire) Write(p []byte) (int, error) {
	switch state := w.state.Load(); {
	case state == open:
		return w.Conn.Write(p)
	case state == broken, state == lent && !w.state.CompareAndSwap(lent, asked):
		return 0, ErrSurplus
	}
	n, err := w.Conn.Write(p)
	if err != nil {
		w.awaitReader()
	}
	return n, err
}

// answerPatience is how long a failed write is kept from a reader that neither
// reads nor ends. One that reads comes to an end: the peer has hung up.
const answerPatience = 5 * time.Second

func (w *wire) awaitReader() {
	for before := w.reads.Load(); ; {
		patience := time.NewTimer(answerPatience)
		select {
		case <-w.ended:
			patience.Stop()
			return
		case <-patience.C:
		}
		now := w.reads.Load()
		if now == before {
			return
		}
		before = now
	}
}

// SetWriteDeadline implements net.Conn. The transport sets none; TLS does when it
// closes, for its last word, and then nobody reads any more.
func (w *wire) SetWriteDeadline(t time.Time) error {
	w.end()
	return w.Conn.SetWriteDeadline(t)
}

// Close implements net.Conn.
func (w *wire) Close() error {
	w.end()
	return w.Conn.Close()
}

// CloseWrite tells the peer that nothing more comes; tunnels need it.
func (w *wire) CloseWrite() error {
	half, ok := w.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}
