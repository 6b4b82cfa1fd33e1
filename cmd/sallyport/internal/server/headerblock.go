package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// headerBlocks reads along what a client sends over HTTP/2, and ends a connection
// on which a header block has begun and not ended in time. net/http has no limit
// for that: its timeouts are those of connections without streams, so a client
// that keeps an upload open could hold half a block for ever (RFC 9113 §4.3, and
// the empty CONTINUATION frames of CVE-2024-24549 and its kin).
//
// It looks at the nine bytes before each frame and at nothing else.
type headerBlocks struct {
	limit  time.Duration
	expire func() // ends the connection; may be called from another goroutine

	preface int  // bytes of it that have come
	foreign bool // this is not HTTP/2

	head  [frameHead]byte
	have  int  // bytes of head that have come
	left  int  // bytes of the frame's payload that have not
	ends  bool // the frame ends its block
	open  bool // a block has begun and not ended
	begun int  // blocks that have begun

	timer   *time.Timer // made for the first block that needs one, then used again
	running bool        // the timer runs: a block is open
}

// RFC 9113 §3.4, §4.1, §6.2, §6.10.
const (
	http2Preface      = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHead         = 9
	frameHeaders      = 0x1
	frameContinuation = 0x9
	flagEndHeaders    = 0x4
)

// saw takes the bytes of one read. It is for the one goroutine that reads.
func (h *headerBlocks) saw(p []byte) {
	if h.foreign {
		return
	}
	wasOpen, begun := h.open, h.begun
	h.parse(p)
	switch {
	case h.open && (!wasOpen || h.begun != begun):
		h.start()
	case !h.open && h.running:
		h.stop()
	}
}

// start gives the open block its time. net/http reads the head of a frame and its
// payload apart, so nearly every request comes here: the timer is made once.
func (h *headerBlocks) start() {
	h.running = true
	if h.timer == nil {
		h.timer = time.AfterFunc(h.limit, h.expire)
		return
	}
	h.timer.Reset(h.limit)
}

func (h *headerBlocks) stop() {
	if h.running {
		h.timer.Stop()
		h.running = false
	}
}

func (h *headerBlocks) parse(p []byte) {
	for len(p) > 0 {
		switch {
		case h.preface < len(http2Preface):
			if p[0] != http2Preface[h.preface] {
				h.foreign = true
				return
			}
			h.preface++
			p = p[1:]
		case h.left > 0:
			n := min(h.left, len(p))
			h.left -= n
			p = p[n:]
			h.endFrame()
		default:
			n := copy(h.head[h.have:], p)
			h.have += n
			p = p[n:]
			if h.have == frameHead {
				h.beginFrame()
			}
		}
	}
}

func (h *headerBlocks) beginFrame() {
	h.have = 0
	h.left = int(h.head[0])<<16 | int(h.head[1])<<8 | int(h.head[2])
	kind, ends := h.head[3], h.head[4]&flagEndHeaders != 0
	if kind == frameHeaders {
		h.open = true
		h.begun++
	}
	h.ends = ends && (kind == frameHeaders || kind == frameContinuation)
	h.endFrame()
}

func (h *headerBlocks) endFrame() {
	if h.left == 0 && h.ends {
		h.open, h.ends = false, false
	}
}

// http2OverTLS serves the HTTP/2 connections of a server with TLS. net/http reads
// those itself, so that nobody could read along; a second server takes them
// decrypted, as it would take HTTP/2 without TLS. It has the limits of the first.
type http2OverTLS struct {
	http.Server
	limit time.Duration
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// newHTTP2OverTLS takes HTTP/2 from front, which is not serving yet. It ends with
// front's Shutdown, or with its own Close.
func newHTTP2OverTLS(front *http.Server, addr net.Addr) *http2OverTLS {
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	s := &http2OverTLS{
		Server: http.Server{
			Handler: withTLSState(front.Handler), Protocols: protocols, ConnContext: keepTLSState,
			ReadHeaderTimeout: front.ReadHeaderTimeout, IdleTimeout: front.IdleTimeout,
			ReadTimeout: front.ReadTimeout, WriteTimeout: front.WriteTimeout, MaxHeaderBytes: front.MaxHeaderBytes,
			ErrorLog: front.ErrorLog, HTTP2: front.HTTP2, ConnState: front.ConnState,
			DisableGeneralOptionsHandler: front.DisableGeneralOptionsHandler,
		},
		limit: front.ReadHeaderTimeout, addr: addr, conns: make(chan net.Conn), done: make(chan struct{}),
	}
	front.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){"h2": s.take}
	// Without a limit of its own: front waits for its connections, which end with these.
	front.RegisterOnShutdown(func() { _ = s.Shutdown(context.Background()) })
	go func() { _ = s.Serve(handedOver{s}) }() // ends with Shutdown or Close
	return s
}

type tlsKey struct{}

// keepTLSState keeps what was agreed in the handshake of an http2Conn, and withTLSState puts it
// into Request.TLS, which net/http leaves empty: the connection has no ConnectionState.
func keepTLSState(ctx context.Context, c net.Conn) context.Context {
	conn, ok := c.(*http2Conn)
	if !ok {
		return ctx
	}
	over, ok := conn.Conn.(*tls.Conn)
	if !ok {
		return ctx
	}
	state := over.ConnectionState()
	return context.WithValue(ctx, tlsKey{}, &state)
}

func withTLSState(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS, _ = r.Context().Value(tlsKey{}).(*tls.ConnectionState)
		h.ServeHTTP(w, r)
	})
}

// take hands a connection over. It returns when the connection has ended: then
// the server that accepted it closes it.
func (s *http2OverTLS) take(_ *http.Server, c *tls.Conn, _ http.Handler) {
	conn := &http2Conn{Conn: c, ended: make(chan struct{})}
	// The connection below TLS is closed: c's own Close would wait for a writer.
	conn.blocks = headerBlocks{limit: s.limit, expire: func() { _ = c.NetConn().Close() }}
	conn.tracked, _ = c.NetConn().(*trackedConn)
	select {
	case s.conns <- conn:
	case <-s.done:
		return
	}
	// Only now: a stop waits for connections that are not known to speak HTTP/2, and
	// one that has not been handed over would be closed without a GOAWAY.
	if v := conn.tracked; v != nil {
		v.http2.Store(true)
		v.known.Store(true)
	}
	<-conn.ended
}

// handedOver is the listener of an http2OverTLS.
type handedOver struct{ s *http2OverTLS }

// Accept implements net.Listener.
func (l handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-l.s.conns:
		return c, nil
	case <-l.s.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l handedOver) Close() error {
	l.s.once.Do(func() { close(l.s.done) })
	return nil
}

// Addr implements net.Listener.
func (l handedOver) Addr() net.Addr { return l.s.addr }

// http2Conn is a decrypted connection. It has no ConnectionState: net/http would
// take it for one that must have negotiated HTTP/2, and not look for the preface.
type http2Conn struct {
	net.Conn
	tracked *trackedConn // nil: the listener does not know it
	blocks  headerBlocks
	ended   chan struct{}
	once    sync.Once
}

// Read implements net.Conn.
func (c *http2Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.blocks.saw(b[:n])
	}
	return n, err
}

// Close implements net.Conn.
func (c *http2Conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.ended) })
	return err
}
