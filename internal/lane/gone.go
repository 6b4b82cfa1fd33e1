package lane

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// know makes what all requests of the connection have in common. It comes with the first
// whole head: the address of the client may stand in a PROXY header, which is read by then.
func (c *conn) know() {
	c.remote = c.net.RemoteAddr().String()
	c.ctx = c.lane.base
	if connected := c.lane.server.ConnContext; connected != nil {
		c.ctx = connected(c.ctx, c.net)
	}
	c.ctx = context.WithValue(c.ctx, http.LocalAddrContextKey, c.net.LocalAddr())
}

// requestContext is over when its handler has returned, or the client is gone, or when what the
// server has made for the connection is (BaseContext, ConnContext). Few who have
// one wait for that: so it looks when it is asked, and has somebody look all the time, as
// net/http's does, only once a wait begins (Done).
type requestContext struct {
	conn *conn

	mu      sync.Mutex      // guards what follows
	err     error           // why it is over; nil: it is not
	waited  context.Context // what Done is of; nil: nobody has asked
	cancel  context.CancelFunc
	watched chan struct{} // closed when nobody looks any more
}

// Deadline implements context.Context.
func (r *requestContext) Deadline() (time.Time, bool) { return r.conn.ctx.Deadline() }

// Done implements context.Context.
func (r *requestContext) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waited == nil {
		r.waited, r.cancel = context.WithCancel(r.conn.ctx)
		if r.err != nil {
			r.cancel()
			return r.waited.Done()
		}
		r.watched = make(chan struct{})
		c := r.conn
		c.readBy = time.Time{}
		_ = c.net.SetReadDeadline(c.readBy)
		go r.watch()
	}
	return r.waited.Done()
}

// Err implements context.Context.
func (r *requestContext) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.conn.ctx.Err(); err != nil {
		r.finish(err)
	} else if r.err == nil && r.conn.socket.gone() {
		r.finish(context.Canceled)
	}
	return r.err
}

// Value implements context.Context. Once somebody waits, a context made of this one finds
// the one that it waits for, and needs no goroutine.
func (r *requestContext) Value(key any) any {
	r.mu.Lock()
	ctx := r.waited
	r.mu.Unlock()
	if ctx == nil {
		ctx = r.conn.ctx
	}
	return ctx.Value(key)
}

// finish is with mu held.
func (r *requestContext) finish(err error) {
	if r.err == nil {
		r.err = err
	}
	if r.cancel != nil {
		r.cancel()
	}
}

// watch ends the context when the client is gone. Where more has come from it, that cannot
// be seen.
func (r *requestContext) watch() {
	defer close(r.watched)
	if r.conn.socket.awaitGone() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.finish(context.Canceled)
	}
}

// fail ends the context of a client to whom nothing can be written.
func (r *requestContext) fail() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finish(context.Canceled)
}

// end is for the end of the handler. Nobody looks at the connection when it returns.
func (r *requestContext) end() {
	r.mu.Lock()
	r.finish(context.Canceled)
	watched := r.watched
	r.mu.Unlock()
	if watched == nil {
		return
	}
	c := r.conn
	c.readBy = time.Unix(1, 0)
	_ = c.net.SetReadDeadline(c.readBy)
	<-watched
}
