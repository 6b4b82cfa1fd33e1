package relay

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-proxy/sallyport/upstream"
)

// Client is the way back to the program that sent a request. It owns the
// http.ResponseWriter: nobody else writes to it, flushes it or sets a deadline.
// Several goroutines do so through it: the handler, the upstream's interim answers,
// the 100 Continue of an upload, the header's timer and the watch. To the handler
// it is an http.ResponseWriter.
//
// The phases only go forward:
//
//	open → settled → answering → closed
//	open → settled → switched → closed
//
// What holds at any time:
//
//  1. Writes and flushes happen one at a time, with writeMu held.
//  2. Nobody who must not wait for a client takes writeMu. The upstream's reader,
//     which over HTTP/2 serves every request that shares the connection, takes only
//     mu to queue an interim answer. The watch takes mu to set a deadline, while the
//     write that it ends may hold writeMu. Nothing is written with mu held.
//  3. Interim answers are written in the phase open only, and those that came
//     before the answer go before it.
//  4. One answer: when its header is written, no other one can follow.
//  5. The watch ends the writing of an upstream's answer only: one of the handler's
//     own, which says why the exchange was ended, can be written in its place.
//  6. Once closed, nothing is written and no deadline is set: it would meet the
//     next request on the connection.
type Client struct {
	w         http.ResponseWriter
	control   http.ResponseController
	protocol  int       // major version of HTTP
	requestID [1]string // the value of X-Request-Id, as a header has it
	last      bool      // no more requests on this connection
	leftover  io.Reader // the request's body, which is not read; nil: it is, or net/http does that

	writeMu     sync.Mutex // held for every write and flush
	status      int        // of the answer; 0: none yet
	bytes       int64      // of its body
	headerSent  bool       // nothing is left for headerTimer to do
	headerTimer *time.Timer

	phase atomic.Int32 // written with mu held

	mu           sync.Mutex // held for moments only, never while something is written
	queued       []interim  // sent by the upstream, and not yet to the client
	unread       int        // bytes of queued
	passedOn     bool       // the answer is the upstream's
	passing      bool       // passInterims is on its way
	sentInterims bool       // the upstream has sent interim answers
}

// The phases of a client.
const (
	phaseOpen      int32 = iota // interim answers may be written
	phaseSettled                // the answer is known: no more interim answers
	phaseAnswering              // its header is written
	phaseSwitched               // the connection is a tunnel's
	phaseClosed                 // the handler returns
)

// NewClient makes the Client of r, whose answers all carry requestID. With last it
// is the last one on its connection, as it is anyway if the connection cannot be
// used again.
func NewClient(w http.ResponseWriter, r *http.Request, requestID string, last bool) *Client {
	c := &Client{w: w, control: *http.NewResponseController(w), protocol: r.ProtoMajor, requestID: [1]string{requestID},
		last: last || lastOnConnection(r)}
	c.setOwnHeaders()
	return c
}

// lastOnConnection reports whether an HTTP/1 connection is closed after r, because a
// proxy before us may see the end of r in another place than net/http does: what it
// takes for the next request would be part of this one. net/http does not tell us
// that a length came with the chunks (RFC 9112 §6.3: close), reads no chunks in
// HTTP/1.0 (RFC 9112 §6.1: close), and what follows CONNECT, or an upgrade that was
// refused, is not a request.
func lastOnConnection(r *http.Request) bool {
	return r.ProtoMajor == 1 &&
		(len(r.TransferEncoding) > 0 || r.ProtoMinor == 0 || r.Method == http.MethodConnect ||
			r.Header["Upgrade"] != nil)
}

// enter goes on to a later phase, and reports whether it was one.
func (c *Client) enter(phase int32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase.Load() >= phase {
		return false
	}
	c.phase.Store(phase)
	return true
}

// Begun reports whether the answer has begun: no other one can follow.
func (c *Client) Begun() bool { return c.phase.Load() >= phaseAnswering }

// Status is the answer's, 0 as long as there is none. It is for the handler's
// goroutine, when Exchange has returned.
func (c *Client) Status() int { return c.status }

// Bytes is how many of the answer's body went to the client. It is for the handler's
// goroutine too.
func (c *Client) Bytes() int64 { return c.bytes }

// Close is for the end of the handler. It waits for a write that is under way.
func (c *Client) Close() {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.headerSent = true
	c.enter(phaseClosed)
}

// Header implements http.ResponseWriter. The header is the handler's, but in the
// phase open the interim answers of an exchange use it.
func (c *Client) Header() http.Header { return c.w.Header() }

// WriteHeader implements http.ResponseWriter, for the answer.
func (c *Client) WriteHeader(status int) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if c.Begun() {
		return
	}
	c.setOwnHeaders()
	c.begin(status)
	c.w.WriteHeader(status)
}

var errClosed = errors.New("the handler of this request has returned")

// Write implements http.ResponseWriter.
func (c *Client) Write(b []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	return c.write(b)
}

func (c *Client) write(b []byte) (int, error) {
	if c.phase.Load() == phaseClosed {
		return 0, errClosed
	}
	c.begin(http.StatusOK)
	n, err := c.w.Write(b)
	c.bytes += int64(n)
	return n, err
}

func (c *Client) begin(status int) {
	if c.enter(phaseAnswering) && c.status == 0 {
		c.status = status
	}
}

// setOwnHeaders puts our own headers on an answer, again if need be: interim
// answers clear the map.
func (c *Client) setOwnHeaders() {
	h := c.w.Header()
	if h["X-Request-Id"] == nil {
		h["X-Request-Id"] = c.requestID[:]
	}
	if c.last {
		h.Set("Connection", "close")
	}
}

// closeAfter makes this answer the last one on an HTTP/1 connection.
func (c *Client) closeAfter() { c.last = c.last || c.protocol == 1 }

// flushDelay is how long a header waits for the first piece of its body, so
// that both are one packet. The first piece of an event stream may come much later.
const flushDelay = 5 * time.Millisecond

// holdHeader lets the header wait for the first piece of the body.
func (c *Client) holdHeader() { c.headerTimer = time.AfterFunc(flushDelay, c.sendHeader) }

func (c *Client) sendHeader() {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if !c.headerSent {
		c.flushLocked()
	}
}

// headerDone makes sure that the timer of holdHeader writes nothing from here on.
func (c *Client) headerDone() {
	c.headerTimer.Stop()
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.headerSent = true
}

// writePiece writes a piece of the body. The last one of a known length goes out
// with the end of the request.
func (c *Client) writePiece(piece []byte, more bool) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.headerSent = true
	if _, err := c.write(piece); err != nil {
		return err
	}
	if more {
		c.flushLocked()
	}
	return nil
}

// flush sends what was written. An error shows at the next write.
func (c *Client) flush() {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.flushLocked()
}

func (c *Client) flushLocked() {
	c.headerSent = true
	if c.phase.Load() != phaseClosed {
		_ = c.control.Flush()
	}
}

// bodyTimeout is how long we wait for the rest of a body that nobody will read.
const bodyTimeout = 5 * time.Second

// answerTimeout is how long a client may take to read an answer of the handler's own.
const answerTimeout = 30 * time.Second

// readWithin disconnects a client that has not read its answer by then. The deadline
// also covers what net/http writes after the handler, until the next request.
// Without it, a client that sends requests and never reads would hold a connection
// and a full kernel buffer for ever.
func (c *Client) readWithin(limit time.Duration) { c.writeBy(time.Now().Add(limit)) }

func (c *Client) writeBy(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase.Load() != phaseClosed {
		_ = c.control.SetWriteDeadline(t)
	}
}

// SetReadDeadline limits the wait for the request's body. Not every writer has
// deadlines (tests' have none).
func (c *Client) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase.Load() == phaseClosed {
		return nil
	}
	return c.control.SetReadDeadline(t)
}

// passAnswer says that the answer to come is the upstream's.
func (c *Client) passAnswer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passedOn = true
}

// cutOff ends the writing of an upstream's answer, and the reading of the body if
// that goes on. Where nothing is left to read, a read deadline would spoil the
// connection for the next request. A tunnel ends by itself.
func (c *Client) cutOff(reading bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if phase := c.phase.Load(); phase >= phaseSwitched {
		return
	}
	if reading {
		_ = c.control.SetReadDeadline(time.Now())
	}
	if c.passedOn {
		_ = c.control.SetWriteDeadline(time.Now())
	}
}

// AnswerWithoutBody prepares for an answer of the handler's own. The request's body
// is not read, and net/http would wait for its end without a limit before it sends
// the answer: a stranger could hold a connection, and delay our stop, with one byte.
func (c *Client) AnswerWithoutBody(r *http.Request) {
	c.readWithin(answerTimeout)
	if r.ContentLength == 0 {
		return
	}
	c.closeAfter()
	c.setOwnHeaders()
	_ = c.SetReadDeadline(time.Now().Add(bodyTimeout))
	if c.protocol == 1 && (r.ContentLength < 0 || r.ContentLength > readByServer || r.Close) {
		c.leftover = r.Body
	}
}

// readByServer is how much of a body net/http reads by itself after an answer. Where more is to
// come, it reads nothing, and closes half a second later. Where the client has asked to close, as
// nginx does of those behind it, it reads nothing, and closes at once.
const readByServer = 256 << 10

// TakeIn is for the end of the handler, after AnswerWithoutBody and the answer. It takes in what
// the client still sends.
func (r *Relay) TakeIn(c *Client) {
	if c.leftover != nil && c.phase.Load() == phaseAnswering {
		c.drain(c.leftover, r.buffers)
	}
}

// clientSilence is how long a client may send nothing before we assume that it waits
// for the end of a chunked answer, which is written only after the last read.
const clientSilence = 500 * time.Millisecond

// drain takes in what a client of HTTP/1 still sends after an answer, for a while: closing
// with bytes unread resets the connection, and with it goes the answer that the client
// has not read yet (RFC 9112 §9.6).
func (c *Client) drain(body io.Reader, buffers *bufferPool) {
	c.flush()
	buf := buffers.Get()
	defer buffers.Put(buf)
	silence := bodyTimeout
	if c.Header()["Content-Length"] == nil {
		silence = clientSilence
	}
	for until := time.Now().Add(bodyTimeout); time.Now().Before(until); {
		by := time.Now().Add(silence)
		_ = c.SetReadDeadline(by)
		if _, err := body.Read(buf); err != nil {
			if err != io.EOF && time.Now().Before(by) {
				c.linger(until, buf)
			}
			return
		}
	}
}

// linger takes in what a client still sends where it cannot be read as the body any more: of
// chunks net/http reads nothing after an error, not even after the end of a deadline. The
// connection is ours then, and closed, after what RFC 9112 §9.6 asks of a server.
func (c *Client) linger(until time.Time, buf []byte) {
	conn, ok := c.takeAnswered()
	if !ok {
		return
	}
	defer conn.Close()
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = conn.SetReadDeadline(until)
	for {
		if _, err := conn.Read(buf); err != nil {
			return
		}
	}
}

// takeAnswered takes the connection from net/http, if the client has the whole answer: the end of
// one without a length comes from net/http.
func (c *Client) takeAnswered() (net.Conn, bool) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if c.phase.Load() != phaseAnswering || c.Header().Get("Content-Length") != strconv.FormatInt(c.bytes, 10) {
		return nil, false
	}
	conn, _, err := c.control.Hijack()
	if err != nil {
		return nil, false
	}
	c.enter(phaseClosed)
	return conn, true
}

// fullDuplex keeps net/http from swallowing the rest of a body before an early
// answer.
func (c *Client) fullDuplex() { _ = c.control.EnableFullDuplex() }

// interim is a 1xx of the upstream, ready to be sent on.
type interim struct {
	code   int
	header http.Header
	size   int
}

// The limits of interim answers that wait for the client to read. Their total number
// has no limit: an upstream may send them for as long as it works (RFC 9110 §15.2).
const (
	maxUnreadInterims     = 64
	maxUnreadInterimBytes = 1 << 20
)

var errUnreadInterims = errors.New("more interim answers than the client reads")

// queueInterim takes an interim answer to be passed on. It never waits.
func (c *Client) queueInterim(code int, header http.Header) error {
	next := interim{code, header, headerSize(header)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sentInterims = true
	if c.phase.Load() != phaseOpen {
		return nil
	}
	if len(c.queued) == maxUnreadInterims || c.unread+next.size > maxUnreadInterimBytes {
		return errUnreadInterims
	}
	c.queued, c.unread = append(c.queued, next), c.unread+next.size
	if !c.passing {
		c.passing = true
		go c.passInterims()
	}
	return nil
}

// nextInterim takes the oldest from the queue.
func (c *Client) nextInterim() (interim, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queued) == 0 || c.phase.Load() != phaseOpen {
		c.queued, c.passing = nil, false
		return interim{}, false
	}
	next := c.queued[0]
	c.queued, c.unread = c.queued[1:], c.unread-next.size
	return next, true
}

func (c *Client) passInterims() {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.passQueued()
}

// passQueued is called with writeMu held.
func (c *Client) passQueued() {
	for next, ok := c.nextInterim(); ok; next, ok = c.nextInterim() {
		c.writeInterim(next.code, next.header)
	}
}

// Settle ends the phase of interim answers. Those that came before the answer go before it.
// It holds writeMu throughout: else sendContinue could come between, and go on writing, and
// clearing the header, when the header is the handler's.
func (c *Client) Settle() {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.passQueued()
	c.enter(phaseSettled)
}

// sendContinue tells the client to send its body, and reports whether it did.
// net/http would do that at the first read, perhaps while an interim answer is
// written, and the bytes of both would mix.
func (c *Client) sendContinue(wanted func() bool) bool {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if c.phase.Load() != phaseOpen || !wanted() {
		return false
	}
	c.writeInterim(http.StatusContinue, nil)
	return true
}

// hadInterims reports whether the upstream has sent interim answers.
func (c *Client) hadInterims() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sentInterims
}

// writeInterim has a deadline of its own: the watch leaves writing alone until
// the answer begins. A client that does not read meanwhile is disconnected.
func (c *Client) writeInterim(code int, header http.Header) {
	c.readWithin(bodyTimeout)
	h := c.w.Header()
	clear(h)
	for name, values := range header {
		h[name] = values
	}
	c.w.WriteHeader(code)
	clear(h)
	c.writeBy(time.Time{})
}

// headerSize is about what a header takes in memory.
func headerSize(h http.Header) int {
	size := 0
	for name, values := range h {
		size += len(name)
		for _, v := range values {
			size += len(v) + 32
		}
	}
	return size
}

// switchProtocols writes the 101 and hands out the connection, for a tunnel that
// closes it. net/http is out of the way then.
func (c *Client) switchProtocols(h http.Header) (*upstream.Buffered, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	conn, buffered, err := c.control.Hijack()
	if err != nil {
		return nil, err
	}
	c.enter(phaseSwitched)
	c.status = http.StatusSwitchingProtocols
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	early = append([]byte(nil), early...) // the reader's buffer is let go
	h["X-Request-Id"] = c.requestID[:]
	_ = conn.SetWriteDeadline(time.Now().Add(bodyTimeout))
	if err := writeSwitch(buffered, h); err != nil {
		conn.Close()
		return nil, err
	}
	_ = conn.SetWriteDeadline(time.Time{})
	return &upstream.Buffered{Conn: conn, Head: early}, nil
}

// Switched reports whether the connection is a tunnel's, and no longer net/http's.
func (c *Client) Switched() bool { return c.phase.Load() == phaseSwitched }

func writeSwitch(w interface {
	io.Writer
	Flush() error
}, h http.Header) error {
	if _, err := io.WriteString(w, "HTTP/1.1 101 Switching Protocols\r\n"); err != nil {
		return err
	}
	if err := h.Write(w); err != nil {
		return err
	}
	if _, err := io.WriteString(w, "\r\n"); err != nil {
		return err
	}
	return w.Flush()
}
