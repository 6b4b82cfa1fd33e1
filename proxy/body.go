package proxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// requestBody is a client's body on its way to an app. It counts, holds the
// limit, notes whose fault an end is, and passes trailers on.
type requestBody struct {
	x       *exchange
	in      io.ReadCloser
	done    <-chan struct{} // closed with the exchange
	trailer http.Header     // the outgoing request's, filled when the body has ended
	left    int64           // of max_body; negative: no limit
	state   atomic.Int32    // one of the constants below

	expected     bool        // the client sends it only when told to: 100 Continue
	appResponded atomic.Bool // the app has begun to answer
	appWantsBody atomic.Bool // the app has said 100

	mu   sync.Mutex // guards head and gone
	head []byte     // what was read so far, while that is little
	gone bool       // more was read than head keeps
}

// The states of a body. From idle and waiting it goes on to one of the others, and
// stays there.
const (
	uploadIdle      int32 = iota // nobody reads it at the moment
	uploadWaiting                // for the client
	uploadEnded                  // whole
	uploadBroken                 // the client's half failed
	uploadTooLarge               // longer than allowed
	uploadAbandoned              // nobody reads it any more
)

// is reports the state.
func (b *requestBody) is(state int32) bool { return b.state.Load() == state }

// enter goes on to a state, unless the body has come to an end before.
func (b *requestBody) enter(state int32) bool {
	for {
		now := b.state.Load()
		if now > uploadWaiting {
			return false
		}
		if b.state.CompareAndSwap(now, state) {
			return true
		}
	}
}

// replayable is how much of a body can be sent again on another connection,
// where the first one turned out to be dead before anything was sent. It is what
// the transport buffers before its first write.
const replayable = 4 << 10

var errBodyGone = errors.New("the body cannot be sent again")

func newRequestBody(x *exchange, done <-chan struct{}) *requestBody {
	b := &requestBody{x: x, in: x.in.Body, done: done, left: -1}
	if x.backend.MaxBody > 0 {
		b.left = x.backend.MaxBody
	}
	if x.in.ContentLength < 0 || x.in.ProtoMajor > 1 { // in HTTP/1 only a body without a length has trailers
		b.trailer = http.Header{}
		for name := range x.in.Trailer {
			if !badTrailer(name) {
				b.trailer[name] = nil
			}
		}
		x.p.headers.Strip(b.trailer)
	}
	if x.in.ProtoMajor == 1 {
		x.client.fullDuplex()
		for _, line := range x.in.Header["Expect"] {
			b.expected = b.expected || (x.in.ProtoMinor > 0 && hasToken(line, "100-continue"))
		}
	}
	return b
}

// listen makes trace tell whether the app wants the body.
func (b *requestBody) listen(trace *httptrace.ClientTrace) {
	if b.expected {
		trace.GotFirstResponseByte = func() { b.appResponded.Store(true) }
		trace.Got100Continue = func() { b.appWantsBody.Store(true) }
	}
}

// wanted reports whether the app may still want the body. An app that answers
// without having said 100 does not, though the transport would send it to keep the
// connection.
func (b *requestBody) wanted() bool {
	return !b.appResponded.Load() || b.appWantsBody.Load() || b.x.client.hadInterims()
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	if state := b.state.Load(); state == uploadAbandoned || state == uploadTooLarge {
		return 0, errBodyGone
	}
	if b.expected {
		if !b.x.client.sendContinue(b.wanted) {
			<-b.done // an error would spoil the answer
			return 0, errBodyGone
		}
		b.expected = false
	}
	b.enter(uploadWaiting)
	n, err := b.in.Read(p)
	b.enter(uploadIdle)
	if n > 0 {
		b.x.watch.moved()
		b.keep(p[:n])
	}
	if b.left >= 0 {
		if b.left -= int64(n); b.left < 0 {
			b.enter(uploadTooLarge)
			return 0, errBodyGone // not io.EOF: what was sent so far must not look whole
		}
	}
	switch {
	case err == io.EOF:
		b.passTrailers()
		b.enter(uploadEnded)
	case err != nil:
		b.enter(uploadBroken)
	}
	return n, err
}

// passTrailers hands on what came after the body. Identity headers are stripped
// like those before it: whoever merges both must not find them.
func (b *requestBody) passTrailers() {
	if b.trailer == nil {
		return
	}
	for name, values := range b.x.in.Trailer {
		if len(values) > 0 && !badTrailer(name) {
			b.trailer[name] = values
		}
	}
	b.x.p.headers.Strip(b.trailer)
}

// Close implements io.Closer. The body itself is closed by the server that owns
// it: a transport closes it between two attempts.
func (b *requestBody) Close() error { return nil }

// keep remembers the beginning of the body.
func (b *requestBody) keep(p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone || len(b.head)+len(p) > replayable {
		b.head, b.gone = nil, true
		return
	}
	b.head = append(b.head, p...)
}

// again is the body from its beginning, for a second attempt: what the first one
// has read must be kept, and nobody may be reading on.
func (b *requestBody) again() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone || (!b.is(uploadIdle) && !b.is(uploadEnded)) {
		return nil, errBodyGone
	}
	rest := io.Reader(b)
	if b.is(uploadEnded) {
		rest = http.NoBody
	}
	return io.NopCloser(io.MultiReader(bytes.NewReader(b.head), rest)), nil
}

// clientSilence is how long a client is silent before it is taken to wait for the end of
// an answer in chunks: that goes out only when nothing is read any more.
const clientSilence = 500 * time.Millisecond

// drainUpload takes in what a client still sends after an early answer, for a while:
// closing with bytes unread resets the connection, and with it goes the answer
// that the client has not read yet (RFC 9112 §9.6).
func (x *exchange) drainUpload() {
	b := x.body
	if b == nil || b.is(uploadEnded) || b.is(uploadBroken) {
		return
	}
	b.enter(uploadAbandoned)
	if x.in.ProtoMajor > 1 {
		return // a stream of its own can be reset alone
	}
	x.client.flush()
	buf := x.p.buffers.Get()
	defer x.p.buffers.Put(buf)
	silence := bodyPatience
	if x.client.Header()["Content-Length"] == nil {
		silence = clientSilence
	}
	for until := time.Now().Add(bodyPatience); time.Now().Before(until); {
		_ = x.client.SetReadDeadline(time.Now().Add(silence))
		if _, err := b.in.Read(buf); err != nil {
			return
		}
	}
}

// sizeWords is a number of bytes for people.
func sizeWords(n int64) string {
	units := [...]string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n >= 1<<10 && n%(1<<10) == 0 && i < len(units)-1 {
		n >>= 10
		i++
	}
	return strconv.FormatInt(n, 10) + " " + units[i]
}
