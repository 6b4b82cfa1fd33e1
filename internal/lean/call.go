package lean

import (
	"net"
	"net/textproto"
	"sync"
)

// Caller is told of a request on its way, in the goroutine of Do.
type Caller interface {
	// Connected is called for each attempt, before anything is written.
	Connected(conn net.Conn, reused bool)
	// Sent is called when the request was written, or could not be.
	Sent(error)
	// Interim takes an interim answer. Its error ends the request.
	Interim(code int, header textproto.MIMEHeader) error
}

// Call is one request on its way, which another goroutine may end. The zero Call with a
// Caller can be given to Do, once.
//
// A connection is held by at most one Call, from before something is written to it until
// its answer was read to the end. End reaches the connection only while it is held, under
// mu, so that it cannot meet the request that is next on it.
type Call struct {
	Caller Caller

	mu     sync.Mutex
	cause  error  // why it was ended; nil: it was not
	cancel func() // ends connecting; nil: that is over
	conn   *conn  // what is being read or written; nil: nothing is
}

// End makes Do, or a read of the answer's body, return cause. Where all has been read it
// does nothing, and only the first cause counts. It may be called by any goroutine and
// does not wait.
func (c *Call) End(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return
	}
	c.cause = cause
	if c.cancel != nil {
		c.cancel()
	}
	if c.conn != nil {
		c.conn.abort()
	}
}

// Cause is why the call was ended, nil if it was not.
func (c *Call) Cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// because is the cause if there is one, else err.
func (c *Call) because(err error) error {
	if cause := c.Cause(); cause != nil {
		return cause
	}
	return err
}

// connect notes how connecting is ended. An error is the cause.
func (c *Call) connect(cancel func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel = cancel
	return c.cause
}

// take holds conn. After an error, which is the cause, conn was closed.
func (c *Call) take(conn *conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		conn.Close()
		return c.cause
	}
	c.conn, c.cancel = conn, nil
	return nil
}

// leave lets go of the connection, and reports whether the call was ended while it was held.
func (c *Call) leave() (ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = nil
	return c.cause != nil
}
