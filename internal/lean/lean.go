// Package lean sends requests without a body to one peer over HTTP/1.1, and reads the
// answers, in the goroutine of the caller.
//
// net/http's Transport gives each connection two goroutines of its own, and every
// request wakes both and waits for them: under load that costs more than all that a
// proxy does with a GET. Here a request is one write, and its answer is parsed, by
// net/http's own parser, where it is waited for. That is only right where nothing has
// to happen at the same time: so requests with a body, upgrades, TLS and HTTP/2 are
// not taken (Takes), and internal/attempt sends them. The package knows nothing of
// routes, people or tokens.
//
// What must never happen is that an answer reaches somebody else than who asked. A
// connection carries one request at a time; it is lent again only after the whole answer
// was read, with nothing behind it in the buffer, if nobody has begun to end it; and
// before a request is written it is looked at once more: where anything is in the socket,
// the end of the connection included, it is closed.
package lean

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"sync"
	"time"
)

// Options configure a Transport.
type Options struct {
	// Dial connects to the peer. It is required, and bounds its own time.
	Dial    func(context.Context) (net.Conn, error)
	Idle    time.Duration // how long a connection is kept for a next request; required
	MaxIdle int           // how many are kept; required
	// MaxHeader bounds the header of an answer, and of each interim one, in bytes. Required.
	MaxHeader int64
}

// Transport is an http.RoundTripper for the requests that it Takes, with a pool of
// connections to its peer. It is safe for concurrent use.
type Transport struct {
	options Options
	heads   sync.Pool // *head

	mu    sync.Mutex
	idle  []*conn     // the one that was used last at the end
	sweep *time.Timer // nil while none is to be closed
}

// New returns a Transport. It does not connect.
func New(o Options) *Transport { return &Transport{options: o} }

// errTooLong is of an answer's header.
var errTooLong = errors.New("the header of the answer is too long")

// Do sends r, which t must take (Takes), and returns the header of the answer and a body
// that must be closed. It does not look at r's context, but for connecting: what ends the
// request is call.End, whose cause is the error then. Call is of this request alone.
//
// There are two attempts at most on which something is written: the methods are safe
// (RFC 9110 §9.2.1), and the second one follows where a connection that was used before
// broke off without a byte of an answer (RFC 9112 §9.3.1). The answer's body must not be
// read and closed at the same time.
func (t *Transport) Do(r *http.Request, call *Call) (*http.Response, error) {
	h := t.head()
	defer t.heads.Put(h)
	if err := h.write(r); err != nil {
		return nil, err
	}
	for fresh := false; ; {
		c, err := t.acquire(r.Context(), call, fresh)
		if err != nil {
			return nil, call.because(err)
		}
		res, err := c.exchange(r, h.bytes, call)
		if err == nil {
			return res, nil
		}
		call.leave()
		c.Close()
		switch {
		case call.Cause() != nil:
			return nil, call.Cause()
		case !c.used || c.heard || isTimeout(err):
			return nil, err
		case c.begun: // others of the pool may have ended with this one
			fresh = true
		}
	}
}

// RoundTrip implements http.RoundTripper: it is Do with a Call that ends with r's context,
// for its cause. The trace's GotConn is called for each attempt, WroteRequest and
// Got1xxResponse as net/http does.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	traced := &traced{trace: httptrace.ContextClientTrace(ctx)}
	traced.call.Caller = traced
	stop := context.AfterFunc(ctx, func() { traced.call.End(context.Cause(ctx)) })
	res, err := t.Do(r, &traced.call)
	if err != nil {
		stop()
		return nil, err
	}
	if res.Body == http.NoBody {
		stop()
		return res, nil
	}
	if b, ok := res.Body.(*body); ok {
		b.over = stop
	}
	return res, nil
}

// traced tells a trace of a request.
type traced struct {
	call  Call
	trace *httptrace.ClientTrace // nil: nobody looks

	interims int
}

// Connected implements Caller.
func (t *traced) Connected(conn net.Conn, reused bool) {
	if t.trace != nil && t.trace.GotConn != nil {
		t.trace.GotConn(httptrace.GotConnInfo{Conn: conn, Reused: reused})
	}
}

// Sent implements Caller.
func (t *traced) Sent(err error) {
	if t.trace != nil && t.trace.WroteRequest != nil {
		t.trace.WroteRequest(httptrace.WroteRequestInfo{Err: err})
	}
}

// Interim implements Caller.
func (t *traced) Interim(code int, header textproto.MIMEHeader) error {
	if t.trace != nil && t.trace.Got1xxResponse != nil {
		return t.trace.Got1xxResponse(code, header)
	}
	if t.interims++; t.interims > maxInterims {
		return errInterims
	}
	return nil
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

func (t *Transport) head() *head {
	if h, ok := t.heads.Get().(*head); ok {
		return h
	}
	return new(head)
}

// acquire returns a connection that nobody else has, and that call.End ends from here on.
// Fresh asks for one that was not used.
func (t *Transport) acquire(ctx context.Context, call *Call, fresh bool) (*conn, error) {
	for !fresh {
		c := t.pop()
		if c == nil {
			break
		}
		if time.Since(c.since) < t.options.Idle && c.quiet() {
			return c, call.take(c)
		}
		c.Close()
	}
	return t.dial(ctx, call)
}

func (t *Transport) dial(ctx context.Context, call *Call) (*conn, error) {
	dialing, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := call.connect(cancel); err != nil {
		return nil, err
	}
	dialed, err := t.options.Dial(dialing)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
		if dialed != nil {
			dialed.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	c := newConn(t, dialed)
	return c, call.take(c)
}

func (t *Transport) pop() *conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.idle)
	if n == 0 {
		return nil
	}
	c := t.idle[n-1]
	t.idle[n-1] = nil
	t.idle = t.idle[:n-1]
	return c
}

// put gives back a connection that has nothing left to read.
func (t *Transport) put(c *conn) {
	c.used, c.since = true, time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.idle) >= t.options.MaxIdle {
		c.Close()
		return
	}
	t.idle = append(t.idle, c)
	if t.sweep == nil {
		t.sweep = time.AfterFunc(t.options.Idle, t.closeOld)
	}
}

// closeOld closes what has been idle for its time. The eldest are at the beginning.
func (t *Transport) closeOld() {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for n < len(t.idle) && time.Since(t.idle[n].since) >= t.options.Idle {
		t.idle[n].Close()
		n++
	}
	t.drop(n)
	t.sweep = nil
	if len(t.idle) > 0 {
		next := t.options.Idle - time.Since(t.idle[0].since)
		t.sweep = time.AfterFunc(max(time.Millisecond, next), t.closeOld)
	}
}

// CloseIdleConnections closes what no request uses.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.idle {
		c.Close()
	}
	t.drop(len(t.idle))
}

// drop forgets the first n of those that are idle.
func (t *Transport) drop(n int) {
	left := copy(t.idle, t.idle[n:])
	clear(t.idle[left:])
	t.idle = t.idle[:left]
}

// conn is a connection to the peer. One goroutine uses it at a time; abort alone is called
// by others, through the Call that holds it.
type conn struct {
	net.Conn
	t      *Transport
	socket socket
	in     *bufio.Reader

	used  bool      // for an earlier request
	since time.Time // when it came back to the pool

	// Of the request that is being sent:
	begun bool  // something was written
	heard bool  // something of an answer was read
	left  int64 // bytes of the answer's header that may still be read
}

const bufferSize = 4 << 10 // as net/http has it, whose parser bounds trailers by it

func newConn(t *Transport, dialed net.Conn) *conn {
	c := &conn{Conn: dialed, t: t, socket: newSocket(dialed)}
	c.in = bufio.NewReaderSize(c, bufferSize)
	return c
}

// abort ends what is being read or written.
func (c *conn) abort() { _ = c.SetDeadline(time.Unix(1, 0)) }

// quiet reports whether the peer has sent nothing since the last answer. The end of the
// connection is something, too.
func (c *conn) quiet() bool { return c.in.Buffered() == 0 && !c.socket.pending() }

// Read implements io.Reader for the buffer.
func (c *conn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooLong
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	c.heard = c.heard || n > 0
	return n, err
}

// exchange writes a request and reads the header of its answer. After an error the
// caller closes the connection.
func (c *conn) exchange(r *http.Request, head []byte, call *Call) (*http.Response, error) {
	c.begun, c.heard = false, false
	call.Caller.Connected(c.Conn, c.used)
	n, sent := c.Write(head)
	c.begun = n > 0
	call.Caller.Sent(sent)
	// A peer that refuses early may have answered before it hung up.
	res, err := c.answer(r, call)
	if err != nil {
		if sent != nil {
			err = sent
		}
		return nil, err
	}
	b := &body{whole: res.Body, c: c, call: call, last: sent != nil || res.Close || res.StatusCode < 200,
		chunked: res.ContentLength < 0 && len(res.TransferEncoding) > 0}
	if res.Body == http.NoBody {
		b.done()
		return res, nil
	}
	res.Body = b
	return res, nil
}

// answer reads headers until one is not interim. A 101 is no interim answer here: nobody
// has asked for another protocol.
func (c *conn) answer(r *http.Request, call *Call) (*http.Response, error) {
	for {
		c.left = c.t.options.MaxHeader
		res, err := http.ReadResponse(c.in, r)
		if err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		if res.StatusCode >= 200 || res.StatusCode < 100 || res.StatusCode == http.StatusSwitchingProtocols {
			c.left = unlimited
			return res, nil
		}
		if err := call.Caller.Interim(res.StatusCode, textproto.MIMEHeader(res.Header)); err != nil {
			return nil, err
		}
	}
}

const (
	unlimited = 1<<63 - 1
	// maxInterims is net/http's bound, for callers that do not look at them.
	maxInterims = 5
)

var errInterims = errors.New("the peer sends interim answers without end")

// body is the body of an answer. The connection goes back to the pool with its last byte.
type body struct {
	whole   io.ReadCloser // http.ReadResponse's
	c       *conn         // nil: it was given back or closed
	call    *Call
	over    func() bool // called once nothing can be ended any more; nil: nobody waits for it
	last    bool        // nothing may follow on the connection
	chunked bool
	err     error // of a read after the end
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.c == nil {
		return 0, b.err
	}
	n, err := b.whole.Read(p)
	if err == nil {
		return n, nil
	}
	if err == io.EOF {
		b.done()
	} else {
		err = b.call.because(err)
		b.broken()
	}
	b.err = err
	return n, err
}

// Ready reports whether the next Read finds something without waiting for the peer, false
// where that is not sure.
func (b *body) Ready() bool {
	if b.c == nil {
		return true
	}
	there, _ := b.c.in.Peek(b.c.in.Buffered())
	if !b.chunked {
		return len(there) > 0
	}
	// net/http's reader waits for the whole of a chunk.
	line, rest, _ := bytes.Cut(there, []byte("\r\n"))
	size, err := strconv.ParseUint(string(line), 16, 16)
	return err == nil && size > 0 && uint64(len(rest)) >= size
}

// Close implements io.Closer. A body that was not read to its end takes its connection
// with it: what is left of it would be in the way.
func (b *body) Close() error {
	if b.c != nil {
		b.broken()
		b.err = http.ErrBodyReadAfterClose
	}
	return nil
}

// done is called once the answer was read to its end. Where the call has been ended, its
// deadline would meet the next request.
func (b *body) done() {
	c := b.c
	b.c = nil
	ended := b.leave()
	if !ended && !b.last && c.in.Buffered() == 0 {
		c.t.put(c)
		return
	}
	c.Close()
}

func (b *body) broken() {
	b.leave()
	b.c.Close()
	b.c = nil
}

func (b *body) leave() (ended bool) {
	if b.over != nil {
		b.over()
	}
	return b.call.leave()
}
