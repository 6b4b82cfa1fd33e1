// Package lane answers plain requests (GET and HEAD over HTTP/1.1, without a body and
// without anything unusual in the header) in one goroutine for each connection, and hands
// every other connection to net/http's server, which goes on with it to its end.
//
// net/http's server makes a context for each request and a goroutine that reads along to
// see whether the client is gone, and it copies and sorts the header of the answer. A
// proxy that only passes a GET on pays more for that than for all it does itself.
//
// What must hold is that both read a request in the same way. So the lane takes little
// (parse says what), and nothing of a connection is consumed before a whole head was
// taken: what it does not take goes to net/http with every byte that came. It has no
// opinion on malformed requests, but for one, which net/http would misunderstand without
// the requests before it (comesLate). FuzzWhatTheLaneTakes compares it with net/http field for
// field, FuzzAnswers the answers of both, and FuzzConnections all that comes back on whole
// connections; TestP03_HeadsThatAreNearlyGoodAreReadAlike, TestAnyTwoStepsAnswerAlike and
// TestP03_AnyTwoWordsAreReadAlike do so in full for what is short.
//
// It serves connections without TLS, through which it can look at the socket (Supported).
// It knows nothing of routes, people or tokens; cmd/sallyport/internal/server opens the
// listeners, and internal/lean is the same thought for the way to an app.
package lane

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is a connection that can be handed over: bytes that were read are put back.
type Conn interface {
	net.Conn
	// Unread has the next reads return p again before anything else. It keeps p. The next read
	// deadline that is set is by at the latest, if by is a time.
	Unread(p []byte, by time.Time)
}

// Lane is in front of an http.Server, whose handler, limits, contexts and hooks
// (ConnState) it uses. The server must not be changed once Serve was called; what is
// changed by its methods (SetKeepAlivesEnabled) is not seen. Of a connection that is handed
// over, ConnState is told StateNew again, and ConnContext is asked again.
//
//	accept → head read ─ plain ─→ handler → answer → the next head
//	                  └─ not ──→ Unread → the server
type Lane struct {
	server *http.Server
	from   net.Listener
	base   context.Context
	others chan net.Conn // for the server
	done   chan struct{} // the server takes no more of them
	once   sync.Once     // closes done

	answered, handed atomic.Uint64
	closing          atomic.Bool
	date             atomic.Pointer[dated]

	mu    sync.Mutex // guards conns, and that nothing is added to them when closing
	conns map[*conn]struct{}
}

// New returns a Lane for the connections of from, each of which is a Conn.
func New(server *http.Server, from net.Listener) *Lane {
	return &Lane{server: server, from: from, others: make(chan net.Conn), done: make(chan struct{}),
		conns: map[*conn]struct{}{}}
}

// Serve accepts until the listener has an error that does not pass, which it returns, and
// closes the listener. After Shutdown or Close that is http.ErrServerClosed.
// It begins the server's own Serve, which ends with the server's Shutdown or Close.
func (l *Lane) Serve() error {
	defer l.from.Close()
	l.base = context.Background()
	if l.server.BaseContext != nil {
		l.base = l.server.BaseContext(l.from)
	}
	l.base = context.WithValue(l.base, http.ServerContextKey, l.server)
	go func() { _ = l.server.Serve(others{l}) }()
	for wait := time.Duration(0); ; {
		accepted, err := l.from.Accept()
		switch {
		case err == nil:
			wait = 0
			if c := l.admit(accepted); c != nil {
				go l.serve(c)
			}
		case l.closing.Load():
			return http.ErrServerClosed
		case passes(err):
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			l.logf("lane: %v; it accepts again in %v", err, wait)
			time.Sleep(wait)
		default:
			return err
		}
	}
}

// passes reports whether accepting may go well again: the process has run out of files, or a
// client was gone before it was accepted. net/http asks the same; that Temporary is deprecated
// is for other errors than those of accept (accept(2), Error handling).
func passes(err error) bool {
	var of interface{ Temporary() bool }
	return errors.As(err, &of) && of.Temporary()
}

// Counts are how many requests were answered here, and how many connections were handed to
// the server.
func (l *Lane) Counts() (answered, handed uint64) { return l.answered.Load(), l.handed.Load() }

// Shutdown closes the listener and what waits for a request, and then waits for answers that are
// on their way, each the last on its connection, until ctx is done.
func (l *Lane) Shutdown(ctx context.Context) error {
	l.end()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for l.endWaiting() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// end has Serve return, and nothing be admitted any more.
func (l *Lane) end() {
	l.mu.Lock()
	l.closing.Store(true)
	l.mu.Unlock()
	_ = l.from.Close()
}

// endWaiting closes what waits, and returns how many are left.
func (l *Lane) endWaiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if c.enter(waiting, ended) {
			_ = c.net.Close()
			delete(l.conns, c)
		}
	}
	return len(l.conns)
}

// Close closes the listener, and all connections that were not handed over.
func (l *Lane) Close() {
	l.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.net.Close()
	}
}

// others is the listener of the server.
type others struct{ l *Lane }

// Accept implements net.Listener.
func (o others) Accept() (net.Conn, error) {
	select {
	case c := <-o.l.others:
		return c, nil
	case <-o.l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (o others) Close() error {
	o.l.once.Do(func() { close(o.l.done) })
	return nil
}

// Addr implements net.Listener.
func (o others) Addr() net.Addr { return o.l.from.Addr() }

// The states of a conn.
const (
	waiting   int32 = iota // for a whole head
	answering              // a request
	ended                  // closed, or the server's
)

// conn is a connection, for the one goroutine that serves it; enter alone is called by others.
type conn struct {
	lane   *Lane
	net    Conn
	socket socket
	ctx    context.Context // what all its requests know
	remote string
	state  atomic.Int32

	in      []byte      // what was read and not taken
	limit   int         // of a head
	readBy  time.Time   // the read deadline; zero: none
	headBy  time.Time   // when the head must be there that was not whole; zero: its time has not begun
	writeBy time.Time   // the write deadline that the server's limit has set
	renewed atomic.Bool // the handler has set the write deadline
	first   bool        // no request was taken yet
	partial bool        // a head has begun, and its time
	answer  answer
	now     *requestContext // of the request that is being answered
}

func (c *conn) enter(from, to int32) bool { return c.state.CompareAndSwap(from, to) }

// admit makes a conn of what was accepted, nil if it is closed already. A stop knows of it from
// then on, before its goroutine runs (golang/go #34163).
func (l *Lane) admit(accepted net.Conn) *conn {
	on, ok := accepted.(Conn)
	if !ok {
		_ = accepted.Close()
		l.logf("lane: %T cannot be handed over", accepted)
		return nil
	}
	c := &conn{lane: l, net: on, socket: newSocket(on), first: true, limit: maxHead}
	if most := l.server.MaxHeaderBytes; most > 0 {
		c.limit = min(c.limit, most)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing.Load() {
		_ = on.Close()
		return nil
	}
	l.conns[c] = struct{}{}
	return c
}

// serve is the goroutine of c. Whatever ends it, the connection does not stay behind: a handler
// panics or ends its goroutine (runtime.Goexit), or a hook of the server panics.
func (l *Lane) serve(c *conn) {
	over := true
	defer func() {
		if v := recover(); v != nil && v != http.ErrAbortHandler {
			l.logf("http: panic serving %v: %v\n%s", c.remote, v, debug.Stack())
		}
		if over {
			c.answer.breakOff()
			_ = c.net.Close()
		}
		l.mu.Lock()
		delete(l.conns, c)
		l.mu.Unlock()
		if over {
			l.setState(c.net, http.StateClosed)
		}
	}()
	l.setState(c.net, http.StateNew)
	if over = c.serve(); over {
		return
	}
	l.handed.Add(1)
	_ = c.net.SetDeadline(time.Time{}) // of what was answered here
	c.net.Unread(c.in, c.headBy)
	select {
	case l.others <- c.net:
	case <-l.done:
		over = true
	}
}

// setState calls the server's hook.
func (l *Lane) setState(c net.Conn, s http.ConnState) {
	if hook := l.server.ConnState; hook != nil {
		hook(c, s)
	}
}

func (l *Lane) logf(format string, args ...any) {
	if to := l.server.ErrorLog; to != nil {
		to.Printf(format, args...)
		return
	}
	log.Printf(format, args...)
}

// serve answers requests until one is not plain, and reports whether the connection is over
// instead.
func (c *conn) serve() (over bool) {
	for c.socket.ok() {
		head, whole := c.readHead()
		if head == nil {
			return true
		}
		var r *plain
		if whole {
			r = c.parse(head)
		} else if c.first || c.partial {
			c.headBy = c.readBy
		}
		if r == nil {
			break
		}
		if !c.enter(waiting, answering) {
			return true
		}
		c.in = c.in[:copy(c.in, c.in[len(head):])]
		c.first, c.partial = false, false
		c.lane.setState(c.net, http.StateActive)
		if !c.handle(r) {
			return true
		}
		c.lane.setState(c.net, http.StateIdle)
		c.state.Store(waiting)
		if c.lane.closing.Load() {
			return true
		}
	}
	if c.comesLate() {
		_ = c.net.SetWriteDeadline(time.Now().Add(coarse))
		_, _ = io.WriteString(c.net, tooLate)
		return true
	}
	return !c.enter(waiting, ended)
}

// handle has the handler answer r, and reports whether the connection can be used again.
func (c *conn) handle(r *plain) (again bool) {
	c.lane.answered.Add(1)
	c.limitWriting()
	a := &c.answer
	a.begin(c, r.request.Method == http.MethodHead)
	c.now = &r.context
	defer r.context.end()
	c.lane.server.Handler.ServeHTTP(a, r.request)
	r.context.end() // before what is left is written, as net/http does
	again = a.finish()
	c.letGo()
	return again
}

// letGo keeps nothing of a request and its answer while the connection waits, which may be for
// minutes: an app's header and a client's cookies are many times what a connection takes.
func (c *conn) letGo() {
	c.now = nil
	if a := &c.answer; len(a.header) > manyFields {
		a.header, a.names = http.Header{}, nil
	} else {
		clear(a.header)
	}
	if len(c.in) == 0 && cap(c.in) > bufferSize {
		c.in = nil
	}
}

// manyFields are more than the header of an answer has as a rule.
const manyFields = 32

// coarse is how much later than its time a deadline may be that is set for each request: setting
// one costs more than a look at the clock. It is not earlier: who keeps a connection for next
// requests, such as a load balancer, counts on the time that it has here.
const coarse = time.Second

func slack(limit time.Duration) time.Duration { return min(coarse, limit/8) }

// limitWriting gives the answer the server's time, and takes back what the last handler set.
func (c *conn) limitWriting() {
	limit, renewed := c.lane.server.WriteTimeout, c.renewed.Swap(false)
	if limit <= 0 {
		if renewed {
			_ = c.net.SetWriteDeadline(time.Time{}) // a write will tell
		}
		return
	}
	if by := time.Now().Add(limit); renewed || c.writeBy.Before(by) {
		c.writeBy = by.Add(slack(limit))
		_ = c.net.SetWriteDeadline(c.writeBy)
	}
}

// limitReading sets when the wait for bytes ends, or so much later; a limit of 0 or less: never.
func (c *conn) limitReading(limit, later time.Duration) {
	if limit <= 0 {
		if !c.readBy.IsZero() {
			c.readBy = time.Time{}
			_ = c.net.SetReadDeadline(c.readBy)
		}
		return
	}
	by := time.Now().Add(limit)
	if c.readBy.Before(by) || c.readBy.Sub(by) > later {
		c.readBy = by.Add(later)
		_ = c.net.SetReadDeadline(c.readBy)
	}
}
