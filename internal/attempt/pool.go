package attempt

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Options configure a Transport.
type Options struct {
	Idle    time.Duration // how long a connection is kept for a next request; 0: 4 s
	MaxIdle int           // how many are kept for one peer; 0: 256
}

const (
	// defaultIdle is under the 5 s after which Node and Apache hang up: who sends
	// a request while the other side does so does not know whether it arrived.
	defaultIdle    = 4 * time.Second
	defaultMaxIdle = 256
)

// Transport is an http.RoundTripper with a pool of connections. It is safe for
// concurrent use.
type Transport struct {
	base    *http.Transport // dials; its own pool stays empty
	idle    time.Duration
	maxIdle int

	mu    sync.Mutex // never held while a ClientConn is called: it may call back
	peers map[address]*peer
	sweep *time.Timer // nil while nobody is idle
}

type address struct{ scheme, host string }

// peer is what is known of one address.
type peer struct {
	address
	idle    []*link  // HTTP/1, the one that was used last at the end
	shared  []*link  // HTTP/2; never changed in place
	streams bool     // it speaks HTTP/2: one connection is for all that wait
	dialing *dialing // of HTTP/2
}

// link is a connection to a peer.
type link struct {
	*http.ClientConn
	wire   *wire
	peer   *peer
	shared bool // HTTP/2

	listed bool // in peer.idle; guarded by Transport.mu, as is
	since  time.Time
}

// New returns a Transport that dials as base does, of which it takes a copy.
func New(base *http.Transport, o Options) *Transport {
	t := &Transport{base: base.Clone(), idle: o.Idle, maxIdle: o.MaxIdle, peers: map[address]*peer{}}
	if t.idle <= 0 {
		t.idle = defaultIdle
	}
	if t.maxIdle <= 0 {
		t.maxIdle = defaultMaxIdle
	}
	t.base.IdleConnTimeout = t.idle // of HTTP/2
	dial := base.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	t.base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		w := newWire(c)
		if l, ok := ctx.Value(linkKey{}).(*link); ok {
			l.wire = w
		}
		return w, nil
	}
	return t
}

type linkKey struct{}

func (t *Transport) peer(u *url.URL) (*peer, error) {
	if u == nil || u.Host == "" {
		return nil, errors.New("the request has no address")
	}
	at := address{u.Scheme, u.Host}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[at]
	if p == nil {
		p = &peer{address: at, streams: u.Scheme == "http" && t.onlyHTTP2()}
		t.peers[at] = p
	}
	return p, nil
}

func (t *Transport) onlyHTTP2() bool {
	protocols := t.base.Protocols
	return protocols != nil && protocols.UnencryptedHTTP2() && !protocols.HTTP1()
}

// acquire returns a link that is reserved for one request. fresh asks for a
// connection that nobody has used, where one cannot be shared: others of the
// pool may have ended with the one that failed.
func (t *Transport) acquire(ctx context.Context, p *peer, fresh bool) (hold, error) {
	for rounds := 0; ; rounds++ {
		if l := t.pick(p, fresh); l != nil {
			return hold{l, true}, nil
		}
		if rounds == 2 { // others were quicker, twice
			break
		}
		if joined, err := t.join(ctx, p); err != nil {
			return hold{}, err
		} else if !joined {
			break
		}
	}
	l, err := t.dial(ctx, p)
	return hold{l, false}, err
}

// pick returns a link of the pool that takes one more request.
func (t *Transport) pick(p *peer, fresh bool) *link {
	t.mu.Lock()
	shared := p.shared
	t.mu.Unlock()
	for _, l := range shared {
		if l.Reserve() == nil {
			return l
		}
	}
	for !fresh {
		l := t.pop(p)
		if l == nil {
			break
		}
		if time.Since(l.since) >= t.idle {
			l.Close()
			continue
		}
		if l.Reserve() != nil {
			continue // it has ended, or is in use: then it comes back by itself
		}
		if l.wire.lend(func() bool { return l.Err() != nil }) {
			return l
		}
		l.Close()
	}
	return nil
}

func (t *Transport) pop(p *peer) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	l := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle, l.listed = p.idle[:n-1], false
	return l
}

// dialing is a connection of HTTP/2 that several requests wait for.
type dialing struct {
	done chan struct{}
	err  error
}

// join waits for a connection of HTTP/2 that all may use, and reports whether
// there was one to wait for. It goes on without the request that began it.
func (t *Transport) join(ctx context.Context, p *peer) (bool, error) {
	t.mu.Lock()
	if !p.streams {
		t.mu.Unlock()
		return false, nil
	}
	d := p.dialing
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		p.dialing = d
		go func() {
			l, err := t.dial(context.WithoutCancel(ctx), p)
			if err == nil {
				l.Release()
			}
			t.mu.Lock()
			p.dialing = nil
			t.mu.Unlock()
			d.err = err
			close(d.done)
		}()
	}
	t.mu.Unlock()
	select {
	case <-d.done:
		return true, d.err
	case <-ctx.Done():
		return true, context.Cause(ctx)
	}
}

// dial makes a connection that is reserved for one request.
func (t *Transport) dial(ctx context.Context, p *peer) (*link, error) {
	l := &link{peer: p}
	ctx = httptrace.WithClientTrace(context.WithValue(ctx, linkKey{}, l), &httptrace.ClientTrace{
		TLSHandshakeStart: func() {
			if l.wire != nil {
				l.wire.encrypted()
			}
		},
		TLSHandshakeDone: func(state tls.ConnectionState, err error) { l.shared = err == nil && state.NegotiatedProtocol == "h2" },
	})
	var err error
	if l.ClientConn, err = t.base.NewClientConn(ctx, p.scheme, p.withPort()); err != nil {
		return nil, err
	}
	if l.wire == nil {
		l.Close()
		return nil, errors.New("the connection was not dialed by us")
	}
	l.shared = l.shared || (p.scheme == "http" && t.onlyHTTP2())
	if !l.shared {
		l.wire.state.Store(asked)
	}
	if err := l.Reserve(); err != nil {
		l.Close()
		return nil, err
	}
	if l.shared {
		t.mu.Lock()
		p.streams = true
		p.shared = append(slices.Clone(p.shared), l)
		t.mu.Unlock()
	}
	l.SetStateHook(func(*http.ClientConn) { t.changed(l) })
	return l, nil
}

func (a address) withPort() string {
	u := url.URL{Host: a.host}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[a.scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// changed is called when l takes requests again, or never again.
func (t *Transport) changed(l *link) {
	ended, free := l.Err() != nil, !l.shared && l.Available() > 0
	t.mu.Lock()
	switch {
	case ended:
		t.forget(l)
	case free && !l.listed && len(l.peer.idle) < t.maxIdle:
		l.listed, l.since = true, time.Now()
		l.peer.idle = append(l.peer.idle, l)
		if t.sweep == nil {
			t.sweep = time.AfterFunc(t.idle, t.closeIdle)
		}
		free = false
	case free && l.listed:
		free = false
	}
	t.mu.Unlock()
	if free && !ended { // one too many
		l.Close()
	}
}

func (t *Transport) forget(l *link) {
	same := func(other *link) bool { return other == l }
	if l.shared {
		l.peer.shared = slices.DeleteFunc(slices.Clone(l.peer.shared), same)
	} else if l.listed {
		l.peer.idle, l.listed = slices.DeleteFunc(l.peer.idle, same), false
	}
}

// closeIdle closes what has been idle for its time. HTTP/2 does so by itself.
func (t *Transport) closeIdle() {
	now := time.Now()
	t.mu.Lock()
	over, next := t.takeIdle(func(l *link) bool { return now.Sub(l.since) >= t.idle })
	t.sweep = nil
	if !next.IsZero() {
		t.sweep = time.AfterFunc(max(time.Millisecond, next.Add(t.idle).Sub(now)), t.closeIdle)
	}
	t.mu.Unlock()
	for _, l := range over {
		l.Close()
	}
}

// takeIdle takes the idle links that match, and tells since when the eldest of
// the others is idle.
func (t *Transport) takeIdle(match func(*link) bool) (taken []*link, eldest time.Time) {
	for _, p := range t.peers {
		p.idle = slices.DeleteFunc(p.idle, func(l *link) bool {
			if match(l) {
				l.listed = false
				taken = append(taken, l)
				return true
			}
			if eldest.IsZero() || l.since.Before(eldest) {
				eldest = l.since
			}
			return false
		})
	}
	return taken, eldest
}

// CloseIdleConnections closes what no request uses. A connection of HTTP/2 that
// is in use takes no more requests, and is closed when its time is over.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	over, _ := t.takeIdle(func(*link) bool { return true })
	for _, p := range t.peers {
		over = append(over, p.shared...)
		p.shared = nil
	}
	t.mu.Unlock()
	for _, l := range over {
		if !l.shared || l.InFlight() == 0 {
			l.Close()
		}
	}
}
