package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/lean"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// exchange is one request on its way to an upstream, and the answer on its way back.
type exchange struct {
	client   *Client
	in       *http.Request
	out      http.Request // what the upstream gets
	order    Order
	upload   *upload // nil if the client sends no body
	answer   answer
	watch    watch
	attempts int
	callTime time.Duration // grpc-timeout; 0: the client has said none

	// Either direct and call, or ctx, trace and cancel, are how it is sent and ended.
	direct direct
	call   lean.Call
	ctx    context.Context // in's, or one of its children
	cancel context.CancelCauseFunc
	trace  httptrace.ClientTrace
}

// direct is a transport that sends some requests in the goroutine that calls it: they are
// ended through a Call and not by their context, which would have to be made for each.
type direct interface {
	Takes(*http.Request) bool
	Do(*http.Request, *lean.Call) (*http.Response, error)
}

// Exchange passes a request to an upstream and the answer to the client. The
// request's header map is changed in place. An error is one of those above, or
// another one that is a fault of ours; then nothing of an answer is out and the
// handler writes one, unless c.Begun: that answer broke off, and the handler must
// abort it (http.ErrAbortHandler). If c.Switched, nothing is left to do: without an error
// a tunnel goes on, and tells Order.WebSocket's Tunnel when it has ended.
func (r *Relay) Exchange(c *Client, in *http.Request, o Order) (Outcome, error) {
	x := &exchange{client: c, in: in, order: o, ctx: in.Context()}
	if err := x.admit(); err != nil {
		return Outcome{}, err
	}
	x.answer = answer{c, in, &x.order, &x.watch, r.buffers}
	x.callTime = callTime(in)
	x.prepare()
	defer x.release()
	x.watch.start(&r.sweeper, x, x.limits()) // it looks at what prepare made
	defer x.watch.stop()

	res, err := x.send()
	outcome := Outcome{Attempts: x.attempts}
	c.Settle()
	if err != nil {
		return outcome, x.failed(x.ended(), err)
	}
	x.watch.answered()
	if res.StatusCode == http.StatusSwitchingProtocols {
		if err = r.switchOver(x, res); err != nil {
			x.release()
			res.Body.Close()
		}
		return outcome, err
	}
	// Over HTTP/2, Close waits for what the client may still send, unless we are done.
	defer func() { x.release(); res.Body.Close() }()
	if res.StatusCode < 200 || res.StatusCode > 999 {
		return outcome, &Error{ErrProtocol, fmt.Errorf("the app answered with %d, which is no status", res.StatusCode)}
	}
	if err := x.answer.pass(res, x.upload.unfinished()); err != nil {
		switch cause := x.ended(); {
		case cause != nil:
			err = cause
		case x.callIsOver():
			outcome.CallOver = true
			SetDeadlineExceeded(c.Header(), http.TrailerPrefix)
			return outcome, nil
		case x.upload != nil && x.upload.is(uploadTooLarge): // and for that the app's connection was closed
			err = ErrTooLarge
		case x.upload != nil && x.upload.is(uploadBroken):
			err = ErrUploadBroken
		}
		return outcome, unquoted(err)
	}
	x.upload.drain(r.buffers)
	return outcome, nil
}

// admit refuses what must not be sent on, before anything is.
func (x *exchange) admit() error {
	if x.order.MaxBody > 0 && x.in.ContentLength > x.order.MaxBody {
		return ErrTooLarge
	}
	if hops := countHops(x.in.Header); hops >= maxHops {
		return &Error{ErrLoop, fmt.Errorf("the request came by %d times", hops)}
	}
	return nil
}

// limits are for the watch. A gRPC server may send its header with its first
// message, hours later; then the idle time alone counts.
func (x *exchange) limits() limits {
	l := limits{Header: x.order.Header, Idle: x.order.Idle}
	if isGRPC(x.in) {
		l.Header = 0
	}
	return l
}

// prepare makes the request that the upstream gets, and chooses the way there. The header
// map is the client's own, changed in place: nobody else has use for what it was.
func (x *exchange) prepare() {
	if x.in.ContentLength != 0 {
		x.open()
		x.upload = newUpload(x.client, x.in, &x.order, &x.watch, x.ctx.Done())
		x.upload.listen(&x.trace)
	}
	x.out = *x.in
	out := &x.out
	out.URL, out.Host = &x.order.URL, x.order.Host
	out.RequestURI = ""
	out.Body, out.GetBody, out.Trailer = nil, nil, nil
	if x.upload != nil {
		out.Body, out.GetBody, out.Trailer = x.upload, x.upload.replay, x.upload.trailer
	} else if x.in.Header["Content-Length"] != nil {
		// The client says that there is nothing, and some servers answer 411 to a
		// DELETE or MKCOL that does not say it. "identity" makes net/http write a
		// length of 0 for any method but GET and HEAD.
		out.Body, out.TransferEncoding = http.NoBody, []string{"identity"}
	}
	x.setHeaders(out.Header)
	out.Close = bindsConnection(out.Header["Authorization"])
	if way, ok := x.order.Transport.(direct); ok && x.upload == nil && way.Takes(out) {
		x.direct, x.call.Caller = way, x
	} else if x.cancel == nil {
		x.open()
	}
}

// open makes what a request is ended by, and told of, that does not go the direct way.
func (x *exchange) open() {
	x.trace.GotConn = func(httptrace.GotConnInfo) { x.attempts++ }
	x.trace.Got1xxResponse = x.answer.interim
	x.trace.WroteRequest = func(info httptrace.WroteRequestInfo) { x.Sent(info.Err) }
	x.ctx, x.cancel = context.WithCancelCause(x.in.Context())
}

// release ends whatever was made for the exchange. It may be called twice.
func (x *exchange) release() {
	if x.cancel != nil {
		x.cancel(nil)
	}
}

func (x *exchange) send() (*http.Response, error) {
	if x.direct != nil {
		return x.direct.Do(&x.out, &x.call)
	}
	return x.order.Transport.RoundTrip(x.out.WithContext(httptrace.WithClientTrace(x.ctx, &x.trace)))
}

// Connected implements lean.Caller.
func (x *exchange) Connected(net.Conn, bool) { x.attempts++ }

// Sent implements lean.Caller.
func (x *exchange) Sent(err error) {
	if err == nil {
		x.watch.sent()
	}
}

// Interim implements lean.Caller.
func (x *exchange) Interim(code int, header textproto.MIMEHeader) error {
	return x.answer.interim(code, header)
}

// setHeaders takes out what was meant for this hop alone before the caller writes
// what only it may write: a client's "Connection: X-Forwarded-User" must not delete
// that (CVE-2021-33197, CVE-2026-29054).
func (x *exchange) setHeaders(h http.Header) {
	dropHopByHop(h)
	if x.order.WebSocket != nil {
		setWebSocket(h)
	}
	if h["User-Agent"] == nil {
		h["User-Agent"] = nil // else the transport names itself
	}
	if n, says := forwards(x.in); says && n > 0 {
		h["Max-Forwards"] = []string{strconv.FormatUint(n-1, 10)}
	}
	countThisHop(h, x.in.Proto, x.order.NoVia)
	x.order.Hooks.RewriteRequest(h)
}

// failed is why there is no answer from the upstream. Cause is why the exchange was
// ended, if it was, and err the transport's.
func (x *exchange) failed(cause, err error) error {
	if errors.Is(err, context.Canceled) && x.upload.deserted() {
		err = errHungUp
	}
	switch {
	case x.upload != nil && x.upload.is(uploadTooLarge):
		return ErrTooLarge
	case errors.Is(cause, ErrClientSlow), errors.Is(cause, ErrOver):
		return cause
	case errors.Is(cause, upstream.ErrTimeout), errors.Is(err, upstream.ErrTimeout):
		return &Error{upstream.ErrTimeout, errors.Join(cause, unquoted(err))}
	case errors.Is(cause, ErrClientGone):
		return cause
	case errors.Is(err, context.Canceled) && x.in.Context().Err() != nil:
		return &Error{ErrClientGone, unquoted(err)}
	case x.callIsOver():
		return &Error{ErrCallOver, unquoted(err)}
	case x.upload != nil && x.upload.is(uploadBroken):
		return &Error{ErrUploadBroken, unquoted(err)}
	}
	return &Error{upstream.ErrUnreachable, unquoted(err)}
}

// ended is why the exchange was ended, nil if it was not.
func (x *exchange) ended() error {
	if x.direct != nil {
		if cause := x.watch.ended(); cause != nil {
			return cause
		}
	}
	return context.Cause(x.ctx)
}

// over implements watched.
func (x *exchange) over() error { return x.order.Hooks.Over() }

// asks implements watched.
func (x *exchange) asks() func() error {
	if hooks, ok := x.order.Hooks.(Asker); ok {
		return hooks.StillAllowed
	}
	return nil
}

// gone implements watched: on the other way the context ends it.
func (x *exchange) gone() bool { return x.direct != nil && x.in.Context().Err() != nil }

// waitsForClient implements watched.
func (x *exchange) waitsForClient() bool {
	return x.upload != nil && x.upload.is(uploadWaiting) && !x.client.Begun()
}

// end implements watched. Ending what is sent does not end a read from the client that is
// under way; a deadline does.
func (x *exchange) end(cause error) {
	if x.direct != nil {
		x.call.End(cause)
	} else {
		x.cancel(cause)
	}
	x.client.cutOff(x.upload.unfinished())
}
