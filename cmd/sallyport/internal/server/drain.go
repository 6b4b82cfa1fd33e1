package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// How long stopping waits for what is under way but cannot be seen yet.
const (
	// quiet is how long nobody may have come before the listener closes: a round
	// trip in one region, so that a handshake under way ends as a connection.
	quiet = 50 * time.Millisecond
	// acceptGrace bounds that where new connections cannot be held off.
	acceptGrace = 500 * time.Millisecond
	// idleGrace is for connections on which nothing has come yet: a request may be on its way.
	idleGrace = 500 * time.Millisecond
	// headGrace is for those on which a head has begun to arrive. net/http waits as long.
	headGrace = 5 * time.Second
)

// drainListener can be stopped without dropping a request. It knows its connections, because net/http alone
// drops requests when it stops: closing a listener resets what waits in its
// queue, and Server.Shutdown closes idle connections at once and lets a request
// that it reads from then on go without an answer.
//
//	finish → hold off new connections; accept what is in the queue; then Accept ends
//	settle → wait until a connection that could still bring a request has brought it
type drainListener struct {
	streamListener
	blockLimit time.Duration  // how long a header block may take in HTTP/2 without TLS; 0: that is not spoken
	proxies    []netip.Prefix // peers whose connections begin with a PROXY header
	proxyLimit time.Duration  // how long that may take
	refusals   *refusals      // who did not keep to that; nil: nobody is told
	grace      time.Duration  // idleGrace

	mu      sync.Mutex // guards what follows
	tracked map[*trackedConn]struct{}
	until   time.Time // when accepting ends at the latest; zero while open
}

// streamListener is a *net.TCPListener or a *socketListener.
type streamListener interface {
	net.Listener
	SetDeadline(time.Time) error
}

// streamConn is what both accept: a *net.TCPConn or a socketConn.
type streamConn interface {
	net.Conn
	io.ReaderFrom // splice
	syscall.Conn
	CloseWrite() error
}

func newDrainListener(l streamListener) *drainListener {
	return &drainListener{streamListener: l, grace: idleGrace, tracked: map[*trackedConn]struct{}{}}
}

// finish lets Accept return http.ErrServerClosed once its queue is empty. On
// Linux new connections are held off meanwhile: their first packet is dropped,
// and when the client repeats it, after a second, it is refused. Elsewhere a
// client that connects in the very instant of closing can see a reset. A unix
// socket is removed from its directory instead.
func (g *drainListener) finish() {
	switch on := g.streamListener.(type) {
	case *net.TCPListener:
		_ = holdOff(on) // a kernel that cannot is as good as another system
	case *socketListener:
		on.remove()
	}
	g.mu.Lock()
	g.until = time.Now().Add(acceptGrace)
	g.mu.Unlock()
	g.extend()
}

// extend gives the next connection time to come, and reports whether there is an end at all.
func (g *drainListener) extend() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.until.IsZero() {
		return false
	}
	deadline := time.Now().Add(quiet / 2)
	if deadline.After(g.until) {
		deadline = g.until
	}
	_ = g.SetDeadline(deadline) // fails only once it is closed
	return true
}

// Accept waits for a connection. Two waits in vain in a row mean that the queue
// is empty: of one, the runtime's timer may have been faster than its poller.
func (g *drainListener) Accept() (net.Conn, error) {
	for vain := 0; ; {
		c, err := g.streamListener.Accept()
		if err == nil {
			g.extend()
			return g.admit(c.(streamConn)), nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || !g.extend() {
			return nil, err
		}
		if vain++; vain == 2 {
			return nil, http.ErrServerClosed
		}
	}
}

func (g *drainListener) admit(c streamConn) *trackedConn {
	v := &trackedConn{streamConn: c, listener: g}
	if g.blockLimit > 0 {
		v.blocks = &headerBlocks{limit: g.blockLimit, expire: func() { _ = v.Close() }}
	}
	if listed(g.proxies, c.RemoteAddr()) {
		v.proxied = newProxyHeader(c, g.proxyLimit, func() { _ = v.Close() }, g.refusals)
	}
	g.mu.Lock()
	g.tracked[v] = struct{}{}
	g.mu.Unlock()
	return v
}

func (g *drainListener) forget(v *trackedConn) {
	g.mu.Lock()
	delete(g.tracked, v)
	g.mu.Unlock()
}

// note is the server's ConnState. It runs twice per request, so it takes no lock.
func (g *drainListener) note(c net.Conn, s http.ConnState) {
	switch over := c.(type) {
	case *tls.Conn:
		c = over.NetConn()
	case *http2Conn:
		c = over.tracked
	}
	v, ok := c.(*trackedConn)
	if !ok || v == nil {
		return
	}
	switch s {
	case http.StateActive:
		v.known.Store(true)
		v.phase.Store(served)
	case http.StateIdle:
		v.phase.Store(silent)
	case http.StateHijacked: // a tunnel: the proxy ends it
		g.forget(v)
	}
}

// settle waits for requests that are on their way: at most idleGrace for
// connections on which nothing has come, at most headGrace for those on which a
// head has begun. In the end it closes those that never said anything; idle ones
// are left to Server.Shutdown. HTTP/2 needs no grace: GOAWAY tells the client
// which requests to repeat elsewhere (RFC 9113 §6.8).
func (g *drainListener) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, headGrace)
	defer cancel()
	grace := time.Now().Add(g.grace)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		over := !time.Now().Before(grace)
		mute, speak := g.waiting(over)
		if speak == 0 && (len(mute) == 0 || over) {
			closeUnknown(mute)
			return
		}
		select {
		case <-ctx.Done():
			closeUnknown(mute)
			return
		case <-tick.C:
		}
	}
}

func closeUnknown(mute []*trackedConn) {
	for _, v := range mute {
		if !v.known.Load() {
			_ = v.Close()
		}
	}
}

// waiting lists the silent connections and counts those with half a head. Asked
// to look closely, it also finds bytes that nobody has read yet.
func (g *drainListener) waiting(closely bool) (mute []*trackedConn, speaking int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for v := range g.tracked {
		switch phase := v.phase.Load(); {
		case phase == served || v.http2.Load():
		case phase == speaks || closely && hasUnread(v.streamConn):
			speaking++
		default:
			mute = append(mute, v)
		}
	}
	return mute, speaking
}

// The phases of a connection between two requests.
const (
	silent int32 = iota // nothing has come since it was opened or last answered
	speaks              // bytes have come, but no whole head
	served              // a request is being answered
)

// trackedConn is a connection that tells whether something came.
type trackedConn struct {
	streamConn
	listener     *drainListener
	phase        atomic.Int32
	known, http2 atomic.Bool   // it has brought a request or a preface; of HTTP/2
	blocks       *headerBlocks // nil: not watched here
	proxied      *proxyHeader  // nil: the peer is not one that sends it
	unread       []byte        // was read, and is read again first
	headBy       time.Time     // the next read deadline at the latest; zero: it is as it is set
}

// Unread implements lane.Conn.
func (v *trackedConn) Unread(p []byte, by time.Time) { v.unread, v.headBy = p, by }

// SetReadDeadline implements net.Conn. Of a connection that was handed over, the time of a head
// that has begun goes on: net/http would begin to count.
func (v *trackedConn) SetReadDeadline(t time.Time) error {
	if by := v.headBy; !by.IsZero() {
		v.headBy = time.Time{}
		if by.Before(t) || t.IsZero() {
			t = by
		}
	}
	return v.streamConn.SetReadDeadline(t)
}

// RemoteAddr is the client, as a PROXY header names it, or the peer.
func (v *trackedConn) RemoteAddr() net.Addr {
	if v.proxied == nil || v.proxied.await() != nil {
		return v.streamConn.RemoteAddr()
	}
	return v.proxied.client
}

func (v *trackedConn) Read(b []byte) (int, error) {
	if len(v.unread) > 0 {
		n := copy(b, v.unread)
		if v.unread = v.unread[n:]; len(v.unread) == 0 {
			v.unread = nil // a WebSocket would keep the buffer for hours
		}
		return n, nil
	}
	if v.proxied != nil {
		if err := v.proxied.await(); err != nil {
			return 0, err
		}
	}
	n, err := v.streamConn.Read(b)
	if n > 0 && v.phase.Load() == silent {
		v.phase.CompareAndSwap(silent, speaks)
		if v.proxied == nil && v.listener.refusals != nil && !v.known.Load() {
			v.listener.refusals.stranger(v.streamConn.RemoteAddr(), b[:n])
		}
		if !v.known.Load() && bytes.HasPrefix(b[:n], []byte("PRI * HTTP/2.0\r\n")) {
			v.http2.Store(true)
		}
	}
	if v.blocks != nil && n > 0 {
		v.blocks.saw(b[:n])
	}
	return n, err
}

func (v *trackedConn) Close() error {
	v.listener.forget(v)
	return v.streamConn.Close()
}
