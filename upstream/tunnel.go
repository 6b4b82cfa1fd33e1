package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Tunnels are the connections on which a protocol was switched: from then on
// both sides send bytes that are no HTTP. http.Server forgets such a connection,
// so they are kept here, to be counted and to be ended. The zero Tunnels is
// ready; it is safe for concurrent use.
type Tunnels struct {
	buffers sync.Pool // of *buffer

	mu     sync.Mutex // guards what follows
	live   map[*Tunnel]struct{}
	closed bool
	empty  chan struct{} // set by Close, closed when the last one is gone
}

// ErrClosed is why a tunnel ends after Close.
var ErrClosed = errors.New("tunnels are closed: the process is stopping")

const (
	// tunnelBuffer is what passes in one piece.
	tunnelBuffer = 4 << 10
	// tunnelLinger is how long one half may go on after the other has ended.
	tunnelLinger = 5 * time.Second
	// partingTime is how long a tunnel that must end has for its goodbye: for the rest of
	// the frame that the app is sending, and for the client's answer to our close frame.
	partingTime = time.Second
)

// Ends are the two sides of a tunnel, which speak WebSocket. The tunnel closes both.
type Ends struct {
	Client   io.ReadWriteCloser
	Upstream io.ReadWriteCloser
	Owner    Owner
}

// Owner is asked and told about its tunnel. Its methods may not wait.
type Owner interface {
	// Moved is called whenever bytes were read, by two goroutines.
	Moved()
	// CloseFrame is what the client is told when End ends the tunnel for cause.
	CloseFrame(cause error) CloseFrame
	// Ended comes last, once: with the bytes that went to the app and to the client,
	// and why the tunnel was ended, nil if its two sides ended it.
	Ended(toUpstream, toClient int64, why error)
}

// Tunnel is one of Tunnels. Its bytes pass as they come until it must end (part). Then
//
//	the client gets the rest of the app's frame, and a close frame
//	the app gets nothing more of the client's, and a close frame if that can follow what it got
//	→ the client's close frame, or its end, closes both sides
//
// and partingTime closes them whatever has happened by then. Who holds toClient.mu may
// take toUpstream.mu, never the other way round.
//
// Most tunnels are idle most of the time, and there may be thousands: one that is idle has
// two goroutines that wait, with the stacks they began with, and no buffer.
type Tunnel struct {
	all                  *Tunnels
	owner                Owner
	toClient, toUpstream direction
	running              atomic.Int32 // directions
	once                 sync.Once    // closes both sides

	why     atomic.Pointer[error] // why it must end: no new frame passes; nil as long as it need not
	goodbye []byte                // the close frame for the client, guarded by toClient.mu; nil before part has it
	// The client got a close frame, ours or the app's. Changed with both locks held.
	dismissed bool
	// cut: nothing more of the client's goes to the app; whole: what went there is whole
	// frames, none of which closes. Guarded by toUpstream.mu.
	cut, whole bool
}

// direction is one half of a tunnel.
type direction struct {
	from source
	to   io.WriteCloser
	err  error // with which it ended; for its goroutine, and at the end

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

// New makes a tunnel, which passes nothing before Carry.
func (ts *Tunnels) New(e Ends) *Tunnel {
	client, fromClient := ts.open(e.Client)
	app, fromApp := ts.open(e.Upstream)
	return &Tunnel{
		all: ts, owner: e.Owner,
		toClient:   direction{from: fromApp, to: client, mu: newLock()},
		toUpstream: direction{from: fromClient, to: app, mu: newLock(), frames: frames{masked: true}},
	}
}

// Carry passes bytes both ways until both sides have ended, one fails, or End or
// Tunnels.Close ends it, and does not wait for that. It is called once. Nothing of the
// caller's goroutine, whose stack may be large, is needed any more.
func (t *Tunnel) Carry() {
	if !t.all.add(t) {
		t.close()
		t.owner.Ended(0, 0, ErrClosed)
		return
	}
	t.running.Store(2)
	go t.run(&t.toClient)
	go t.run(&t.toUpstream)
}

// End ends the tunnel, and says why: to the client in a close frame, and to the owner. It
// does not wait.
func (t *Tunnel) End(cause error) { go t.part(cause, t.owner.CloseFrame(cause)) }

// run is a goroutine of the tunnel.
func (t *Tunnel) run(d *direction) {
	defer t.ran(d)
	d.err = t.pass(d)
}

// ran is called at the end of run. A bug of ours ends one tunnel, and not the process.
func (t *Tunnel) ran(d *direction) {
	if v := recover(); v != nil {
		d.err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		t.close()
	}
	if t.running.Add(-1) > 0 {
		return
	}
	defer t.all.remove(t) // last: Close waits until the owner knows
	t.close()
	err := errors.Join(t.toClient.err, t.toUpstream.err)
	if why := t.why.Load(); why != nil {
		err = *why
	}
	t.owner.Ended(t.toUpstream.bytes, t.toClient.bytes, err)
}

// pass passes one direction on to its end.
func (t *Tunnel) pass(d *direction) error {
	for {
		b, n, readErr := d.from.read()
		if n > 0 {
			t.owner.Moved()
			err := t.send(d, b[:n])
			d.from.done(b)
			if err != nil {
				t.close()
				return err
			}
		}
		if readErr != nil {
			if !errors.Is(readErr, io.EOF) {
				t.close()
				return readErr
			}
			t.senderEnded(d)
			return nil
		}
	}
}

func (t *Tunnel) send(d *direction, b []byte) error {
	if d == &t.toClient {
		return t.sendClient(b)
	}
	return t.sendUpstream(b)
}

func (t *Tunnel) senderEnded(d *direction) {
	if d == &t.toClient {
		t.upstreamEnded()
	} else {
		t.clientEnded()
	}
}

// parts reports whether the tunnel must end.
func (t *Tunnel) parts() bool { return t.why.Load() != nil }

// sendClient passes on what the app sent.
func (t *Tunnel) sendClient(b []byte) error {
	d := &t.toClient
	d.mu.Lock()
	defer d.mu.Unlock()
	if !t.parts() {
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
func (t *Tunnel) sendUpstream(b []byte) error {
	d := &t.toUpstream
	d.mu.Lock()
	defer d.mu.Unlock()
	if !t.parts() {
		d.frames.skip(b)
		return d.write(b)
	}
	t.cutUpstream()
	d.frames.skip(b)
	t.closeIfAnswered()
	return nil
}

// upstreamEnded is called at the end of what the app sends.
func (t *Tunnel) upstreamEnded() {
	d := &t.toClient
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !t.parts():
		t.finish(d)
	case !d.frames.between():
		go t.drop() // the frame will never be whole
	}
}

// clientEnded is called at the end of what the client sends.
func (t *Tunnel) clientEnded() {
	d := &t.toUpstream
	d.mu.Lock()
	defer d.mu.Unlock()
	if !t.parts() {
		t.finish(d)
		return
	}
	t.cutUpstream()
	d.ended = true
	t.closeIfAnswered()
}

// finish tells the receiver of d, which may still have something to say (a WebSocket's
// answer to a close frame), that nothing more comes.
func (t *Tunnel) finish(d *direction) {
	d.ended = true
	half, ok := d.to.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		t.close()
		return
	}
	time.AfterFunc(tunnelLinger, t.close)
}

// part ends the tunnel because of cause, with f for the client.
func (t *Tunnel) part(cause error, f CloseFrame) {
	if !t.why.CompareAndSwap(nil, &cause) {
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
func (t *Tunnel) dismiss() {
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
func (t *Tunnel) cutUpstream() {
	if d := &t.toUpstream; !t.cut {
		t.cut, t.whole = true, d.frames.between() && !d.frames.closed && !d.ended
	}
}

// closeIfAnswered is called with toUpstream.mu held. It closes the tunnel once the
// client has said goodbye too: the server closes first (RFC 6455 §7.1.1).
func (t *Tunnel) closeIfAnswered() {
	if d := &t.toUpstream; t.dismissed && (d.frames.closed || d.ended) {
		go t.close()
	}
}

// drop ends both sides at once: to close TLS politely can take 5 s if the client does
// not read.
func (t *Tunnel) drop() {
	if over, ok := t.toClient.to.(interface{ NetConn() net.Conn }); ok {
		_ = over.NetConn().Close()
	}
	t.close()
}

// close ends both sides.
func (t *Tunnel) close() {
	t.once.Do(func() {
		_ = t.toClient.to.Close()
		_ = t.toUpstream.to.Close()
	})
}

func (ts *Tunnels) add(t *Tunnel) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closed {
		return false
	}
	if ts.live == nil {
		ts.live = map[*Tunnel]struct{}{}
	}
	ts.live[t] = struct{}{}
	return true
}

func (ts *Tunnels) remove(t *Tunnel) {
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
		go t.part(ErrClosed, CloseFrame{CloseGoingAway, "the server is stopping"})
	}
	ts.mu.Unlock()
	if gone != nil {
		select {
		case <-gone:
		case <-ctx.Done():
		}
	}
}
