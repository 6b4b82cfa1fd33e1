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
	eof     atomic.Bool
	broken  atomic.Bool // the client's half failed
	over    atomic.Bool // longer than allowed
	given   atomic.Bool // nobody reads it any more
	waiting atomic.Bool // for the client

	expected bool        // the client sends it only when told to: 100 Continue
	spoken   atomic.Bool // the app has begun to answer
	wanted   atomic.Bool // the app has said 100

	mu   sync.Mutex // guards head and gone
	head []byte     // what was read so far, while that is little
	gone bool       // more was read than head keeps
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
		// Else net/http would swallow the rest of a body before an early answer.
		_ = http.NewResponseController(x.w.ResponseWriter).EnableFullDuplex()
		for _, line := range x.in.Header["Expect"] {
			b.expected = b.expected || (x.in.ProtoMinor > 0 && hasToken(line, "100-continue"))
		}
	}
	return b
}

// listen makes trace tell whether the app wants the body.
func (b *requestBody) listen(trace *httptrace.ClientTrace) {
	if b.expected {
		trace.GotFirstResponseByte = func() { b.spoken.Store(true) }
		trace.Got100Continue = func() { b.wanted.Store(true) }
	}
}

// ask tells the client to send the body, and reports whether it may. net/http
// would do that at the first read, perhaps while we pass on an interim answer,
// and the bytes of both would mix. An app that answers without having said 100
// has no use for the body, though the transport would send it to keep the
// connection.
func (b *requestBody) ask() bool {
	x := b.x
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.final || (b.spoken.Load() && !b.wanted.Load() && x.interims.Load() == 0) {
		return false
	}
	x.writeInterim(http.StatusContinue, nil)
	return true
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	if b.given.Load() || b.over.Load() {
		return 0, errBodyGone
	}
	if b.expected {
		if !b.ask() {
			<-b.done // an error would spoil the answer
			return 0, errBodyGone
		}
		b.expected = false
	}
	b.waiting.Store(true)
	n, err := b.in.Read(p)
	b.waiting.Store(false)
	if n > 0 {
		b.x.watch.moved()
		b.keep(p[:n])
	}
	if b.left >= 0 {
		if b.left -= int64(n); b.left < 0 {
			b.over.Store(true)
			return 0, errBodyGone // not io.EOF: what was sent so far must not look whole
		}
	}
	switch {
	case err == io.EOF:
		b.passTrailers()
		b.eof.Store(true)
	case err != nil:
		b.broken.Store(true)
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

func (b *requestBody) ended() bool { return b.eof.Load() }

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
	if b.gone || b.broken.Load() || b.over.Load() || b.waiting.Load() {
		return nil, errBodyGone
	}
	rest := io.Reader(b)
	if b.ended() {
		rest = http.NoBody
	}
	return io.NopCloser(io.MultiReader(bytes.NewReader(b.head), rest)), nil
}

// lull is how long a client is silent before it is taken to wait for the end of
// an answer in chunks: that goes out only when nothing is read any more.
const lull = 500 * time.Millisecond

// linger takes in what a client still sends after an early answer, for a while:
// closing with bytes unread resets the connection, and with it goes the answer
// that the client has not read yet (RFC 9112 §9.6).
func (x *exchange) linger() {
	b := x.body
	if b == nil || b.ended() || b.broken.Load() {
		return
	}
	b.given.Store(true)
	if x.in.ProtoMajor > 1 {
		return // a stream of its own can be reset alone
	}
	x.w.flush()
	control := http.NewResponseController(x.w.ResponseWriter)
	buf := x.p.buffers.Get()
	defer x.p.buffers.Put(buf)
	silence := bodyPatience
	if x.w.Header()["Content-Length"] == nil {
		silence = lull
	}
	for until := time.Now().Add(bodyPatience); time.Now().Before(until); {
		_ = control.SetReadDeadline(time.Now().Add(silence))
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
