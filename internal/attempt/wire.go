package attempt

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
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
//
// Bytes are taken from the socket and the state is changed under one lock. So
// whoever holds it knows of each byte whether it came before the state or after it.
type wire struct {
	net.Conn
	raw syscall.RawConn // nil: the socket cannot be reached, see read

	mu      sync.Mutex // never held while anything waits
	state   atomic.Int32
	waiting bool        // the reader asks for bytes, and has used all it had but part of a record
	records records     // of TLS, in what was read
	heard   atomic.Bool // something came since the wire was lent
	reads   atomic.Uint64
	taking  taking

	writes atomic.Int64  // of TLS handshakes and HTTP/2
	wrote  chan struct{} // has one of them; it has room for one

	once  sync.Once
	ended chan struct{} // nothing can be read any more
}

func newWire(c net.Conn) *wire {
	w := &wire{Conn: c, raw: socket(c), wrote: make(chan struct{}, 1), ended: make(chan struct{})}
	w.taking.take, w.taking.peek = w.take, w.peek
	return w
}

func (w *wire) end() { w.once.Do(func() { close(w.ended) }) }

// begun reports whether something of the request may have been written.
func (w *wire) begun() bool {
	s := w.state.Load()
	return s == open || s == asked
}

// encrypted says that what comes from here on are records of TLS.
func (w *wire) encrypted() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records.followed = true
}

// lendPatience is how long the reader may take to be done with what came before.
// It takes microseconds.
const lendPatience = time.Second

// lend makes the wire ready for a next request, and reports whether it is: the
// transport's reader has used all bytes that it took and asks for more. What it
// takes from here on, and before something is written, is surplus.
func (w *wire) lend(closed func() bool) bool {
	w.mu.Lock()
	w.heard.Store(false)
	w.state.Store(lent)
	w.mu.Unlock()
	for range 100 {
		if done, ok := w.clean(); done {
			return ok
		}
		runtime.Gosched()
	}
	for begun := time.Now(); time.Since(begun) < lendPatience && !closed(); time.Sleep(50 * time.Microsecond) {
		if done, ok := w.clean(); done {
			return ok
		}
	}
	return false
}

// clean reports whether the reader waits, and if so, whether nothing is left over.
// Part of a record is surplus that the reader holds back until the rest comes.
func (w *wire) clean() (waits, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting, w.state.Load() == lent && w.records.whole()
}

// Read implements net.Conn. There is one reader at a time.
func (w *wire) Read(p []byte) (int, error) {
	w.mu.Lock()
	w.waiting = true
	w.mu.Unlock()
	n, err := w.read(p)
	w.reads.Add(1)
	if err != nil {
		w.end()
	}
	return n, err
}

// took notes, under the lock, that n bytes of p were read, and says what the reader
// is told: surplus is kept from it.
func (w *wire) took(p []byte, n int, err error) (int, error) {
	w.waiting = false
	if n > 0 {
		w.heard.Store(true)
		w.records.follow(p[:n])
	}
	state := w.state.Load()
	if state == broken || n > 0 && state == lent {
		w.state.Store(broken)
		return 0, ErrSurplus
	}
	return n, err
}

// ask changes the state from lent to asked, unless surplus has been read or waits
// in the socket, and reports whether something may be written. The end of the
// connection is surplus too: the request goes over another one.
func (w *wire) ask() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state.Load() == lent {
		if !w.waiting || !w.records.whole() || w.pending() {
			w.state.Store(broken)
		} else {
			w.state.Store(asked)
		}
	}
	return w.state.Load() != broken
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
		n, err := w.Conn.Write(p)
		w.writes.Add(1)
		select {
		case w.wrote <- struct{}{}:
		default:
		}
		return n, err
	case state != asked && !w.ask():
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
