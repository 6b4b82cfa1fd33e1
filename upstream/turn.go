package upstream

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptrace"
	"runtime"
	"sync/atomic"
	"time"
)

// ErrSurplus: what came as the answer was on the connection before the request.
var ErrSurplus = errors.New("the app sent more than its last answer")

// Turn is one request's turn on a connection of HTTP/1. An app that sends more
// than it announced (a body after 204, say) would else answer the next request
// with the rest, and that may be somebody else's: the transport looks for surplus
// when it next reads, and may have lent the connection again by then. The zero
// Turn is ready.
type Turn struct{ conn *turnConn }

// GotConn is for the httptrace.ClientTrace of the request.
func (t *Turn) GotConn(info httptrace.GotConnInfo) {
	t.conn = nil
	if !info.Reused {
		return
	}
	conn := info.Conn
	if over, ok := conn.(*tls.Conn); ok {
		if over.ConnectionState().NegotiatedProtocol == "h2" { // its streams have no turns
			return
		}
		conn = over.NetConn()
	}
	if c, ok := conn.(*turnConn); ok {
		c.state.Store(lent)
		t.conn = c
	}
}

// Begun reports whether something of the request may have been written.
func (t *Turn) Begun() bool { return t.conn == nil || t.conn.state.Load() == written }

// OutOfTurn reports whether the answer that RoundTrip returned is surplus:
// nothing of the request had been written. Then nothing will be, and the
// connection is closed.
func (t *Turn) OutOfTurn() bool {
	c := t.conn
	if c == nil || !c.state.CompareAndSwap(lent, dead) {
		return false
	}
	_ = c.Close()
	return true
}

// The states of a connection within a turn.
const (
	written int32 = iota // something of the request; also before the first turn ends
	lent                 // nothing yet
	dead
)

// turnConn is a connection of HTTP/1 to an app.
type turnConn struct {
	net.Conn
	waiting atomic.Bool // a Read is under way
	state   atomic.Int32
}

// Read implements net.Conn. There is one reader at a time.
func (c *turnConn) Read(p []byte) (int, error) {
	c.waiting.Store(true)
	n, err := c.Conn.Read(p)
	c.waiting.Store(false)
	return n, err
}

// Write implements net.Conn. The first of a turn passes only when the
// transport's reader waits for bytes: then it has looked, and none are left.
func (c *turnConn) Write(p []byte) (int, error) {
	if c.state.Load() != written && (!c.quiet() || !c.state.CompareAndSwap(lent, written)) {
		return 0, ErrSurplus
	}
	return c.Conn.Write(p)
}

// quietPatience is how long the reader may take to look. It takes microseconds.
const quietPatience = time.Second

func (c *turnConn) quiet() bool {
	for range 100 {
		if c.waiting.Load() {
			return true
		}
		runtime.Gosched()
	}
	for begun := time.Now(); time.Since(begun) < quietPatience && c.state.Load() == lent; time.Sleep(50 * time.Microsecond) {
		if c.waiting.Load() {
			return true
		}
	}
	return false
}

// CloseWrite tells the app that nothing more comes; tunnels need it.
func (c *turnConn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}
