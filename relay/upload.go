package relay

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// upload is a client's body on its way to an upstream. It counts, holds the limit,
// notes whose fault an end is, and passes trailers on.
type upload struct {
	client  *Client
	request *http.Request
	body    io.ReadCloser // of request
	watch   *watch
	hooks   Hooks
	done    <-chan struct{} // closed with the exchange
	trailer http.Header     // the outgoing request's, filled when the body has ended
	left    int64           // of the order's MaxBody; negative: no limit
	state   atomic.Int32    // one of the constants below

	expected  bool         // the client sends it only when told to: 100 Continue
	responded atomic.Bool  // the upstream has begun to answer, perhaps with a 1xx
	asked     atomic.Bool  // the upstream has said 100
	hungUp    atomic.Bool  // the upstream has hung up, and the client was still there
	attempts  atomic.Int32 // after the first one

	mu   sync.Mutex // guards head and gone
	head []byte     // what was read so far, while that is little
	gone bool       // more was read than head keeps
}

// The states of an upload. From idle and waiting it goes on to one of the others,
// which are final.
const (
	uploadIdle      int32 = iota // nobody reads it at the moment
	uploadWaiting                // for the client
	uploadEnded                  // whole
	uploadBroken                 // the client's half failed
	uploadTooLarge               // longer than allowed
	uploadAbandoned              // nobody reads it any more
)

// is reports the state.
func (u *upload) is(state int32) bool { return u.state.Load() == state }

// enter goes on to a state, unless a final one was reached before.
func (u *upload) enter(state int32) bool {
	for {
		now := u.state.Load()
		if now > uploadWaiting {
			return false
		}
		if u.state.CompareAndSwap(now, state) {
			return true
		}
	}
}

// replayable is how many bytes of a body can be sent again on another connection,
// where the first one turned out to be dead before anything was sent. It is what
// the transport buffers before its first write.
const replayable = 4 << 10

var (
	errBodyGone = errors.New("the body cannot be sent again")
	errHungUp   = errors.New("the app has hung up in the middle of the body")
)

// newUpload makes the upload of a request with a body. The watch is started before
// anything is read.
func newUpload(c *Client, in *http.Request, o *Order, w *watch, done <-chan struct{}) *upload {
	u := &upload{client: c, request: in, body: in.Body, watch: w, hooks: o.Hooks, done: done, left: -1}
	if o.MaxBody > 0 {
		u.left = o.MaxBody
	}
	if in.ContentLength < 0 || in.ProtoMajor > 1 { // in HTTP/1 only a body without a length has trailers
		u.trailer = http.Header{}
		for name := range in.Trailer {
			if !badTrailer(name) {
				u.trailer[name] = nil
			}
		}
		u.hooks.RewriteTrailers(u.trailer)
	}
	if in.ProtoMajor == 1 {
		c.fullDuplex()
		for _, line := range in.Header["Expect"] {
			u.expected = u.expected || (in.ProtoMinor > 0 && hasToken(line, "100-continue"))
		}
	}
	return u
}

// listen makes trace tell whether the upstream wants the body.
func (u *upload) listen(trace *httptrace.ClientTrace) {
	trace.GotFirstResponseByte = func() { u.responded.Store(true) }
	if u.expected {
		trace.Got100Continue = func() { u.asked.Store(true) }
	}
}

// wanted reports whether the upstream may still want the body. One that answers
// without having said 100 does not, though the transport would send it to keep the
// connection.
func (u *upload) wanted() bool {
	return !u.responded.Load() || u.asked.Load() || u.client.hadInterims()
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	if state := u.state.Load(); state == uploadAbandoned || state == uploadTooLarge {
		return 0, errBodyGone
	}
	if u.expected {
		if !u.client.sendContinue(u.wanted) {
			<-u.done // after an error the transport would discard the answer it is reading
			return 0, errBodyGone
		}
		u.expected = false
	}
	u.enter(uploadWaiting)
	n, err := u.body.Read(p)
	if u.enter(uploadIdle); u.is(uploadAbandoned) {
		return 0, errHungUp
	}
	if n > 0 {
		u.watch.moved()
		u.keep(p[:n])
	}
	if u.left >= 0 {
		if u.left -= int64(n); u.left < 0 {
			u.enter(uploadTooLarge)
			return 0, errBodyGone // not io.EOF: what was sent so far must not look whole
		}
	}
	switch {
	case err == io.EOF:
		u.passTrailers()
		u.enter(uploadEnded)
	case err != nil:
		u.enter(uploadBroken)
	}
	return n, err
}

// passTrailers passes on what came after the body. The hooks rewrite it too, because
// some apps merge trailers into the header.
func (u *upload) passTrailers() {
	if u.trailer == nil {
		return
	}
	for name, values := range u.request.Trailer {
		if len(values) > 0 && !badTrailer(name) {
			u.trailer[name] = values
		}
	}
	u.hooks.RewriteTrailers(u.trailer)
}

// desertedAfter is how long a body is still read from the client after the transport has
// closed it. It closes it for two reasons: because of an early answer, which it returns at
// once, or because the upstream has hung up, and then it waits for the read to end.
const desertedAfter = time.Second

// Close implements io.Closer. The body itself is closed by the server that owns it:
// another attempt may follow.
func (u *upload) Close() error {
	if u.state.Load() > uploadWaiting {
		return nil
	}
	if u.is(uploadWaiting) && !u.responded.Load() {
		u.desert()
		return nil
	}
	attempt := u.attempts.Load()
	time.AfterFunc(desertedAfter, func() {
		select {
		case <-u.done:
			return
		default:
		}
		if u.attempts.Load() == attempt && !u.watch.isAnswered() {
			u.desert()
		}
	})
	return nil
}

// desert ends a read that is under way: the client may send nothing until it has an
// answer, and would wait until nobody's time is left.
func (u *upload) desert() {
	select {
	case <-u.done: // the client may have gone, and the transport closes what is left
	default:
		u.hungUp.Store(true)
	}
	if u.enter(uploadAbandoned) {
		_ = u.client.SetReadDeadline(time.Now())
	}
}

// deserted reports whether the upstream hung up in the middle of the body. The read that
// desert ends looks to net/http's server as if the client had gone: the context of the
// request ends with it.
func (u *upload) deserted() bool { return u != nil && u.hungUp.Load() && u.is(uploadAbandoned) }

// keep remembers the beginning of the body.
func (u *upload) keep(p []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone || len(u.head)+len(p) > replayable {
		u.head, u.gone = nil, true
		return
	}
	u.head = append(u.head, p...)
}

// replay is the body from its beginning, for a second attempt: what the first one
// has read must be kept, and nobody may be reading on.
func (u *upload) replay() (io.ReadCloser, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone || (!u.is(uploadIdle) && !u.is(uploadEnded)) {
		return nil, errBodyGone
	}
	u.attempts.Add(1)
	rest := io.Reader(u)
	if u.is(uploadEnded) {
		rest = http.NoBody
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(u.head), rest), u}, nil
}

// drain takes in what a client still sends after an early answer, for a while.
func (u *upload) drain(buffers *bufferPool) {
	if u == nil || u.is(uploadEnded) || u.is(uploadBroken) {
		return
	}
	u.enter(uploadAbandoned)
	if u.request.ProtoMajor > 1 {
		return // a stream of its own can be reset alone
	}
	u.client.drain(u.body, buffers)
}

// unfinished reports whether some of the body may still be on its way.
func (u *upload) unfinished() bool { return u != nil && !u.is(uploadEnded) }
