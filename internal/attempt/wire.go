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

// ErrSurplus: the peer sent more than its last answer. If a peer sends more than it
// announced (a body after 204, say), the rest would otherwise be taken for the answer to
// the next request, which may be another person's.
var ErrSurplus = errors.New("more came than the last answer")

// The states of a wire.
const (
	unchecked int32 = iota // dialed, perhaps within a TLS handshake, or HTTP/2, whose frames need no check
	lent                   // reserved for a request of which nothing is written yet
	asked                  // something of a request was written
	broken                 // surplus was received
)

// wire is a connection as it was dialed, below TLS. For HTTP/1 it makes sure that what is
// received after a request is sent is the answer to that request.
//
// Bytes are read from the socket and the state is changed under one lock. So with the lock
// held it is known of each byte whether it was received before the state or after it.
type wire struct {
	net.Conn
	raw syscall.RawConn // nil: there is no access to the socket, see read

	mu      sync.Mutex // never held while anything waits
	state   atomic.Int32
	waiting bool        // the reader asks for bytes, and has used all it had but part of a record
	records records     // where the TLS records end in what was read
	heard   atomic.Bool // something was received since the wire was lent
	reads   atomic.Uint64
	call    socketCall

	writes atomic.Int64  // how many writes there were in TLS handshakes and of HTTP/2
	wrote  chan struct{} // receives a value at such a write; it has room for one

	once  sync.Once
	ended chan struct{} // nothing can be read any more
	onEnd atomic.Pointer[func()]
}

func newWire(c net.Conn) *wire {
	w := &wire{Conn: c, raw: socket(c), wrote: make(chan struct{}, 1), ended: make(chan struct{})}
	w.call.take, w.call.peek = w.take, w.peek
	return w
}

func (w *wire) end() {
	w.once.Do(func() {
		close(w.ended)
		if f := w.onEnd.Load(); f != nil {
			(*f)()
		}
	})
}

// atEnd has f called when nothing can be read any more, at once if that is so already,
// until atEnd(nil). It may be called twice, and not wait.
func (w *wire) atEnd(f func()) {
	if f == nil {
		w.onEnd.Store(nil)
		return
	}
	w.onEnd.Store(&f)
	select {
	case <-w.ended:
		f()
	default:
	}
}

// begun reports whether something of the request may have been written.
func (w *wire) begun() bool {
	s := w.state.Load()
	return s == unchecked || s == asked
}

// followRecords is called when TLS begins: all that is received from here on is TLS records.
func (w *wire) followRecords() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records.followed = true
}

// lendPatience is how long lend waits until the reader has used what it received before.
// Usually that takes microseconds.
const lendPatience = time.Second

// lend makes the wire ready for another request, and reports whether it is ready: the
// transport's reader has used all bytes that it read and asks for more. Then who had the wire
// before has its answer too: net/http calls a connection free while somebody may still give
// up, which ends it. Bytes that are read from here on, before a request is written, are surplus.
func (w *wire) lend(closed func() bool) bool {
	w.mu.Lock()
	w.heard.Store(false)
	w.state.Store(lent)
	w.mu.Unlock()
	for range 100 {
		if done, ok := w.readerDone(); done {
			return ok
		}
		runtime.Gosched()
	}
	for begun := time.Now(); time.Since(begun) < lendPatience && !closed(); time.Sleep(50 * time.Microsecond) {
		if done, ok := w.readerDone(); done {
			return ok
		}
	}
	return false
}

// readerDone reports whether the reader waits for bytes and, if so, whether nothing is left
// over. Part of a TLS record is surplus, too, although the reader returns nothing of it
// before the rest is received.
func (w *wire) readerDone() (waits, ok bool) {
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

// took is called with the lock held after n bytes of p were read. It returns what the reader
// gets: surplus is withheld from it.
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

// ask changes the state from lent to asked, unless surplus has been read or is in the socket,
// and reports whether something may be written. The end of the connection is surplus too:
// the request is then sent over another one.
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
// A peer may answer before it has read a whole body, and close the connection: 413 to a
// large upload, for example. After a failed write net/http closes the connection, often
// before it has read the answer. So Write does not return the failure before the reader has
// received everything, or the connection was closed, as it is when the answer has been
// passed on or the request's time is over.
func (w *wire) Write(p []byte) (int, error) {
	switch state := w.state.Load(); {
	case state == unchecked:
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

// answerPatience is how long a failed write waits for a reader that neither reads nor ends. A
// reader that does read comes to an end, because the peer has closed the connection.
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

// SetWriteDeadline implements net.Conn. The transport sets no deadline. TLS sets one for the
// message with which it closes, and nothing is read after that.
func (w *wire) SetWriteDeadline(t time.Time) error {
	w.end()
	return w.Conn.SetWriteDeadline(t)
}

// Close implements net.Conn.
func (w *wire) Close() error {
	w.end()
	return w.Conn.Close()
}

// CloseWrite tells the peer that nothing more will be sent. Tunnels need it.
func (w *wire) CloseWrite() error {
	half, ok := w.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}
