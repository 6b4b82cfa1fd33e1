package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
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
	// partingTime is how long a tunnel that must end has for its goodbye: for the rest of
	// the frame that the app is sending, and for the client's answer to our close frame.
	partingTime = time.Second
)

// Ends are the two sides of a tunnel, which speak WebSocket. Carry closes both.
type Ends struct {
	Client   io.ReadWriteCloser
	Upstream io.ReadWriteCloser
	// Moved is called whenever bytes were read, by two goroutines.
	Moved func()
	// CloseFrame is what the client is told when ctx ends the tunnel, by the cause of that.
	CloseFrame func(cause error) CloseFrame
}

// tunnel is one of Tunnels. Its bytes pass as they come until it must end (part). Then
//
//	the client gets the rest of the app's frame, and a close frame
//	the app gets nothing more of the client's, and a close frame if that can follow what it got
//	→ the client's close frame, or its end, closes both sides
//
// and partingTime closes them whatever has happened by then. Who holds toClient.mu may
// take toUpstream.mu, never the other way round.
type tunnel struct {
	ends                 Ends
	toClient, toUpstream direction
	once                 sync.Once // closes both sides

	parting atomic.Bool // it must end: no new frame passes
	goodbye []byte      // the close frame for the client, guarded by toClient.mu; nil before part has it
	// The client got a close frame, ours or the app's. Changed with both locks held.
	dismissed bool
	// cut: nothing more of the client's goes to the app; whole: what went there is whole
	// frames, none of which closes. Guarded by toUpstream.mu.
	cut, whole bool
}

// direction is one half of a tunnel.
type direction struct {
	to io.WriteCloser

	mu     lock   // held while something is written; guards what follows
	frames frames // how far the sender is
	bytes  int64  // that were passed on
	ended  bool   // the sender has ended, and the receiver knows
}

// lock is a mutex that may be held for long: synctest sees who waits for it.
type lock chan struct{}

func newLock() lock    { return make(lock, 1) }
func (l lock) Lock()   { l <- struct{}{} }
func (l lock) Unlock() { <-l }

// write passes b on, with mu held.
func (d *direction) write(b []byte) error {
	n, err := d.to.Write(b)
	d.bytes += int64(n)
	return err
}

// Carry passes bytes both ways until both sides have ended, one fails, ctx is
// done or the tunnels are closed. It returns the bytes that went to the app and
// to the client.
func (ts *Tunnels) Carry(ctx context.Context, e Ends) (toUpstream, toClient int64, err error) {
	t := &tunnel{ends: e, toClient: direction{to: e.Client, mu: newLock()},
		toUpstream: direction{to: e.Upstream, mu: newLock(), frames: frames{masked: true}}}
	defer t.close()
	if !ts.add(t) {
		return 0, 0, ErrClosed
	}
	defer ts.remove(t)
	defer context.AfterFunc(ctx, func() { t.part(e.CloseFrame(context.Cause(ctx))) })()

	done := make(chan error, 1)
	go func() { done <- t.pass(e.Client, t.sendUpstream, t.clientEnded) }()
	err = t.pass(e.Upstream, t.sendClient, t.upstreamEnded)
	err = errors.Join(err, <-done)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	} else if t.parting.Load() {
		err = ErrClosed
	}
	return t.toUpstream.bytes, t.toClient.bytes, err
}

// pass reads one direction to its end.
func (t *tunnel) pass(from io.Reader, send func([]byte) error, ended func()) error {
	buf := make([]byte, tunnelBuffer)
	for {
		read, readErr := from.Read(buf)
		if read > 0 {
			t.ends.Moved()
			if err := send(buf[:read]); err != nil {
				t.close()
				return err
			}
		}
		if readErr != nil {
			if !errors.Is(readErr, io.EOF) {
				t.close()
				return readErr
			}
			ended()
			return nil
		}
	}
}

// sendClient passes on what the app sent.
func (t *tunnel) sendClient(b []byte) error {
	d := &t.toClient
	d.mu.Lock()
	defer d.mu.Unlock()
	if !t.parting.Load() {
		d.frames.skip(b)
		return d.write(b)
	}
	if d.frames.between() {
		return nil // part says goodbye here
	}
	if err := d.write(b[:d.frames.next(b)]); err != nil {
		return err
	}
	t.dismiss()
	return nil
}

// sendUpstream passes on what the client sent.
func (t *tunnel) sendUpstream(b []byte) error {
	d := &t.toUpstream
	d.mu.Lock()
	defer d.mu.Unlock()
	if !t.parting.Load() {
		d.frames.skip(b)
		return d.write(b)
	}
	t.cutUpstream()
	d.frames.skip(b)
	t.closeIfAnswered()
	return nil
}

// upstreamEnded is called at the end of what the app sends.
func (t *tunnel) upstreamEnded() {
	d := &t.toClient
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !t.parting.Load():
		t.finish(d)
	case !d.frames.between():
		go t.drop() // the frame will never be whole
	}
}

// clientEnded is called at the end of what the client sends.
func (t *tunnel) clientEnded() {
	d := &t.toUpstream
	d.mu.Lock()
	defer d.mu.Unlock()
	if !t.parting.Load() {
		t.finish(d)
		return
	}
	t.cutUpstream()
	d.ended = true
	t.closeIfAnswered()
}

// finish tells the receiver of d, which may still have something to say (a WebSocket's
// answer to a close frame), that nothing more comes.
func (t *tunnel) finish(d *direction) {
	d.ended = true
	half, ok := d.to.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		t.close()
		return
	}
	time.AfterFunc(tunnelLinger, t.close)
}

// part ends the tunnel, with f for the client.
func (t *tunnel) part(f CloseFrame) {
	if !t.parting.CompareAndSwap(false, true) {
		return
	}
	time.AfterFunc(partingTime, t.drop)
	d := &t.toClient
	d.mu.Lock() // waits for a write to a client that does not read, at most partingTime
	defer d.mu.Unlock()
	t.goodbye = f.forClient()
	t.dismiss()
}

// dismiss says goodbye to the client once that can follow what it got, and then to the
// app: an app that hears of it first may leave in the middle of its frame. It is called
// with toClient.mu held.
func (t *tunnel) dismiss() {
	d := &t.toClient
	switch {
	case t.goodbye == nil || t.dismissed:
		return
	case d.frames.lost || d.ended:
		go t.drop()
		return
	case !d.frames.between():
		return
	case !d.frames.closed: // the app may have closed it already
		if _, err := d.to.Write(t.goodbye); err != nil {
			go t.drop()
			return
		}
	}
	t.toUpstream.mu.Lock()
	defer t.toUpstream.mu.Unlock()
	t.dismissed = true
	t.cutUpstream()
	if t.whole { // the app reads what it reads when a page is closed
		_, _ = t.toUpstream.to.Write(CloseFrame{Code: CloseGoingAway}.forServer())
	}
	t.closeIfAnswered()
}

// cutUpstream is called before anything of the client's is kept from the app, with
// toUpstream.mu held.
func (t *tunnel) cutUpstream() {
	if d := &t.toUpstream; !t.cut {
		t.cut, t.whole = true, d.frames.between() && !d.frames.closed && !d.ended
	}
}

// closeIfAnswered is called with toUpstream.mu held. It closes the tunnel once the
// client has said goodbye too: the server closes first (RFC 6455 §7.1.1).
func (t *tunnel) closeIfAnswered() {
	if d := &t.toUpstream; t.dismissed && (d.frames.closed || d.ended) {
		go t.close()
	}
}

// drop ends both sides at once: to close TLS politely can take 5 s if the client does
// not read.
func (t *tunnel) drop() {
	if b, ok := t.ends.Client.(*Buffered); ok {
		b.drop()
	}
	t.close()
}

// close ends both sides.
func (t *tunnel) close() {
	t.once.Do(func() {
		_ = t.ends.Client.Close()
		_ = t.ends.Upstream.Close()
	})
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

// Close ends all tunnels with CloseGoingAway, refuses new ones, and waits until they are
// gone or ctx is done.
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
		go t.part(CloseFrame{CloseGoingAway, "the server is stopping"})
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

// drop closes the connection at once, without a word of TLS.
func (b *Buffered) drop() {
	if over, ok := b.Conn.(interface{ NetConn() net.Conn }); ok {
		_ = over.NetConn().Close()
	}
}
