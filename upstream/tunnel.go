package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Tunnels are the connections on which a protocol was switched: from then on
// both sides send bytes that are no HTTP. http.Server forgets such a connection,
// so they are kept here, to be counted and to be ended. The zero Tunnels is
// ready; it is safe for concurrent use.
type Tunnels struct {
	mu     sync.Mutex
	live   map[*tunnel]struct{}
	closed bool
	empty  chan struct{} // set by Close, closed when the last one is gone
}

// ErrClosed is Carry's after Close.
var ErrClosed = errors.New("tunnels are closed: the process is stopping")

const (
	// tunnelBuffer is small because most tunnels are idle: two for each.
	tunnelBuffer = 4 << 10
	// tunnelLinger is how long one half may go on after the other has ended.
	tunnelLinger = 5 * time.Second
)

// Ends are the two sides of a tunnel. Carry closes both.
type Ends struct {
	Client   io.ReadWriteCloser
	Upstream io.ReadWriteCloser
	// Moved is called whenever bytes were read, by two goroutines.
	Moved func()
}

type tunnel struct {
	ends Ends
	once sync.Once
}

func (t *tunnel) close() {
	t.once.Do(func() {
		_ = t.ends.Client.Close()
		_ = t.ends.Upstream.Close()
	})
}

// Carry passes bytes both ways until both sides have ended, one fails, ctx is
// done or the tunnels are closed. It returns the bytes that went to the app and
// to the client.
func (ts *Tunnels) Carry(ctx context.Context, e Ends) (toUpstream, toClient int64, err error) {
	t := &tunnel{ends: e}
	defer t.close()
	if !ts.add(t) {
		return 0, 0, ErrClosed
	}
	defer ts.remove(t)
	defer context.AfterFunc(ctx, t.close)()

	done := make(chan error, 1)
	go func() {
		var err error
		toUpstream, err = t.pass(e.Upstream, e.Client)
		done <- err
	}()
	toClient, err = t.pass(e.Client, e.Upstream)
	err = errors.Join(err, <-done)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return toUpstream, toClient, err
}

// pass copies one direction to its end and tells the receiver, which may still
// have something to say (a WebSocket's answer to a close frame).
func (t *tunnel) pass(to io.WriteCloser, from io.Reader) (n int64, err error) {
	buf := make([]byte, tunnelBuffer)
	for {
		read, readErr := from.Read(buf)
		if read > 0 {
			t.ends.Moved()
			wrote, err := to.Write(buf[:read])
			n += int64(wrote)
			if err != nil {
				t.close()
				return n, err
			}
		}
		if readErr != nil {
			if !errors.Is(readErr, io.EOF) {
				t.close()
				return n, readErr
			}
			t.finish(to)
			return n, nil
		}
	}
}

func (t *tunnel) finish(to io.WriteCloser) {
	half, ok := to.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		t.close()
		return
	}
	time.AfterFunc(tunnelLinger, t.close)
}

func (ts *Tunnels) add(t *tunnel) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closed {
		return false
	}
	if ts.live == nil {
		ts.live = map[*tunnel]struct{}{}
	}
	ts.live[t] = struct{}{}
	return true
}

func (ts *Tunnels) remove(t *tunnel) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.live, t)
	if len(ts.live) == 0 && ts.empty != nil {
		close(ts.empty)
		ts.empty = nil
	}
}

// Len is how many there are.
func (ts *Tunnels) Len() int {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return len(ts.live)
}

// Closed reports that Close was called: a new tunnel would not be carried.
func (ts *Tunnels) Closed() bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.closed
}

// Close ends all tunnels, refuses new ones, and waits until they are gone or ctx
// is done.
func (ts *Tunnels) Close(ctx context.Context) {
	ts.mu.Lock()
	ts.closed = true
	var gone chan struct{}
	if len(ts.live) > 0 {
		if ts.empty == nil {
			ts.empty = make(chan struct{})
		}
		gone = ts.empty
	}
	for t := range ts.live {
		go t.close() // a TLS close may wait for its peer
	}
	ts.mu.Unlock()
	if gone != nil {
		select {
		case <-gone:
		case <-ctx.Done():
		}
	}
}

// Buffered is c with bytes that were read from it before.
type Buffered struct {
	net.Conn
	Head []byte
}

func (b *Buffered) Read(p []byte) (int, error) {
	if len(b.Head) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.Head)
	if b.Head = b.Head[n:]; len(b.Head) == 0 {
		b.Head = nil
	}
	return n, nil
}

// CloseWrite tells the peer that nothing more comes.
func (b *Buffered) CloseWrite() error {
	half, ok := b.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}
