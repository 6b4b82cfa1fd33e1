// Package relay moves bytes between a client and an upstream: one exchange is a
// request on its way there and its answer on the way back, interim answers,
// trailers and tunnels included.
//
// It owns HTTP's framing and hops: the fields that are about one connection, Via
// and the count of loops, which trailers may pass, when a connection may be used
// again, and every time limit of an exchange. Nothing of either body is kept: what
// arrives is sent on at once. It never knows who asks, whether they may or what an
// error looks like: front doors decide before an exchange, change its headers and
// say when it must end through Hooks, and answer its errors in words of their own.
// Its neighbour below is upstream, which owns the connections.
//
// It is not httputil.ReverseProxy, because that loses request trailers and what it
// cannot parse of a query, copies every header to change five, and has no say in
// when a stream must end.
//
// The files, each readable after those before it: relay.go (the words), fields.go
// (of headers), http2.go (requests that are malformed), client.go (the only writer;
// its comment has the invariants), sweeper.go and watch.go (time limits), call.go (gRPC), upload.go, answer.go,
// tunnel.go, exchange.go (all of it together).
package relay

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-proxy/sallyport/upstream"
)

// Relay is what all exchanges of a process share. It is safe for concurrent use.
type Relay struct {
	tunnels upstream.Tunnels
	open    atomic.Int64 // tunnels, from the answer to the upgrade on
	buffers *bufferPool
	sweeper sweeper
}

// New makes a Relay.
func New() *Relay { return &Relay{buffers: newBufferPool()} }

// OpenTunnels is how many tunnels there are.
func (r *Relay) OpenTunnels() int { return int(r.open.Load()) }

// CloseTunnels ends all tunnels, refuses new ones, and waits until they are gone or
// ctx is done. http.Server.Shutdown neither closes nor waits for them.
func (r *Relay) CloseTunnels(ctx context.Context) { r.tunnels.Close(ctx) }

// Order says where a request goes, and within which limits.
type Order struct {
	Transport http.RoundTripper
	URL       url.URL // has the Scheme and Host that Transport wants
	Host      string  // of the request
	Hooks     Hooks
	// Header is how long the upstream may take to answer a request that it has
	// whole, 0 for no limit; Idle is how long nothing may move, in either direction.
	Header, Idle time.Duration
	MaxBody      int64 // bytes of the request's body; 0: no limit
	// WebSocket says that the client asks to speak WebSocket (RFC 6455 §4.1), and that
	// it may. Every other upgrade is ignored. It is called once the app has agreed and
	// the client knows, and returns what the tunnel asks from there on in place of Hooks.
	WebSocket func() Tunnel // nil: it may not
	// NoVia keeps Via from the upstream, because some do not compress for a proxy.
	// Loops are then counted in CDN-Loop (RFC 8586).
	NoVia bool
	// SiteHeaders are those of the upstream's answers that pass although they speak
	// for the whole site, in canonical spelling: Alt-Svc, Nel.
	SiteHeaders []string
}

// Hooks are what the caller has to say of an exchange. All but Over change a header
// from which everything that is about one connection was taken. Each may be called
// from another goroutine than Exchange's, RewriteInterim and Over while the others
// run, and none may wait.
type Hooks interface {
	// RewriteRequest changes the header of the request. It has the last word.
	RewriteRequest(http.Header)
	// RewriteTrailers changes the request's trailers: first the announced names,
	// without values, and then all of them.
	RewriteTrailers(http.Header)
	// RewriteInterim changes the header of a 1xx answer.
	RewriteInterim(http.Header)
	// RewriteAnswer changes the header of the answer, be it a 101.
	RewriteAnswer(http.Header)
	// Over returns why the exchange must end now, nil if it may go on. It is asked
	// about once a second.
	Over() error
}

// Asker are Hooks that also have to ask somebody, such as a store, whether an exchange may go on.
type Asker interface {
	// StillAllowed is as Over, and may wait for a moment. It is asked in a goroutine of its own,
	// once at a time, and perhaps at the end of the exchange, when its answer counts for nothing.
	StillAllowed() error
}

// Tunnel is what the caller has to say of a connection that has become a tunnel. The exchange
// is over then, and its handler returns: nothing of request or answer should be kept for it.
// Neither method may wait.
type Tunnel interface {
	// Over is that of Hooks.
	Over() error
	// CloseFrame is what the client reads when Over has ended the tunnel, by why.
	CloseFrame(why error) upstream.CloseFrame
	// Ended is called when the tunnel is gone, once, from a goroutine of its own: with the
	// bytes that went to the client, and why it was ended, if its two sides did not simply end it.
	Ended(why error, bytes int64)
}

// Outcome is what is to be told of an exchange besides its error; the Client knows
// the status and the bytes.
type Outcome struct {
	Attempts int  // on how many connections the request was sent
	CallOver bool // as ErrCallOver, but an answer had begun: its trailers tell the client
}

// Why an exchange has no answer. Upstream's own errors are among them: ErrTimeout,
// ErrUnreachable (also if nothing else is known) and ErrClosed.
var (
	ErrTooLarge     = errors.New("the body is larger than allowed")
	ErrUploadBroken = errors.New("the body broke off")
	ErrClientSlow   = errors.New("the client sends nothing")
	ErrClientGone   = errors.New("the client is gone")
	ErrOver         = errors.New("the exchange must not go on") // Hooks.Over has said so
	ErrProtocol     = errors.New("the answer is not HTTP")
	ErrLoop         = errors.New("the request has come by too often")
	ErrBrokenOff    = errors.New("the app broke off its answer")       // which had begun
	ErrCallOver     = errors.New("the time given to the call is over") // grpc-timeout
)

// Error is a cause with its kind, one of those above. Its text is the cause's
// alone, in which nothing is quoted of any message, so that it can be logged.
type Error struct{ Kind, Cause error }

// Error implements error.
func (e *Error) Error() string { return e.Cause.Error() }

// Unwrap lets errors.Is find both.
func (e *Error) Unwrap() []error { return []error{e.Kind, e.Cause} }

// unquoted cuts off what parsers quote of a message: it may be somebody's cookie,
// which no log may hold.
func unquoted(err error) error {
	text, _, quotes := strings.Cut(err.Error(), `"`)
	if !quotes {
		return err
	}
	return errors.New(text + "…")
}

// bufferPool lends the buffers that bodies are copied through.
type bufferPool struct{ pool sync.Pool }

const bufferSize = 32 << 10

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

func (b *bufferPool) Get() []byte {
	buf, _ := b.pool.Get().(*[bufferSize]byte)
	return buf[:]
}

func (b *bufferPool) Put(buf []byte) {
	if len(buf) == bufferSize {
		b.pool.Put((*[bufferSize]byte)(buf))
	}
}
