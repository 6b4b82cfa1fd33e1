package proxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
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
	trailer http.Header // the outgoing request's, filled when the body has ended
	left    int64       // of max_body; negative: no limit
	eof     atomic.Bool
	broken  atomic.Bool // the client's half failed
	over    atomic.Bool // longer than allowed
	given   atomic.Bool // nobody reads it any more

	mu   sync.Mutex // guards head and gone
	head []byte     // what was read so far, while that is little
	gone bool       // more was read than head keeps
}

// replayable is how much of a body can be sent again on another connection,
// where the first one turned out to be dead before anything was sent. It is what
// the transport buffers before its first write.
const replayable = 4 << 10

var errBodyGone = errors.New("the body cannot be sent again")

func newRequestBody(x *exchange) *requestBody {
	b := &requestBody{x: x, in: x.in.Body, left: -1}
	if x.backend.MaxBody > 0 {
		b.left = x.backend.MaxBody
	}
	if x.in.ContentLength < 0 { // only a body without a length has trailers in HTTP/1
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
	}
	return b
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	if b.given.Load() || b.over.Load() {
		return 0, errBodyGone
	}
	n, err := b.in.Read(p)
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

// again is the body from its beginning, for the transport to send on another
// connection. It asks only if nothing reached the app, or if asking twice does
// no harm.
func (b *requestBody) again() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return nil, errBodyGone
	}
	rest := io.Reader(b)
	if b.ended() {
		rest = http.NoBody
	}
	return io.NopCloser(io.MultiReader(bytes.NewReader(b.head), rest)), nil
}

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
	_ = http.NewResponseController(x.w.ResponseWriter).SetReadDeadline(time.Now().Add(bodyPatience))
	_, _ = io.Copy(io.Discard, b.in)
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
