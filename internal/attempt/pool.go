package attempt

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options configure a Transport.
type Options struct {
	Idle    time.Duration // how long a connection is kept for a next request; 0: 4 s
	MaxIdle int           // how many are kept for one peer; over HTTP/2: how many there are; 0: 256
	// StreamWait is how long a request waits for a stream of HTTP/2, where the peer
	// takes no more at a time, and how long a connection waits for the peer's first
	// SETTINGS. 0: 5 s.
	StreamWait time.Duration
}

// ErrNoStream: the peer takes no more requests over HTTP/2 (RFC 9113 §5.1.2), and
// did not within the time that a request waits.
var ErrNoStream = errors.New("the peer takes no more requests at a time")

var errNoSettings = errors.New("the peer has not announced its HTTP/2 settings")

const (
	// defaultIdle is under the 5 s after which Node and Apache hang up: who sends
	// a request while the other side does so does not know whether it arrived.
	defaultIdle    = 4 * time.Second
	defaultMaxIdle = 256

	defaultStreamWait = 5 * time.Second
	// streamPoll is how often a waiting request looks by itself: net/http may not tell
	// that a stream has become free if that happens while it tells of another one.
	streamPoll = 25 * time.Millisecond
	// barrenTime is how long a connection of HTTP/2 has to carry and take nothing
	// before it is given up.
	barrenTime = 4 * streamPoll
	// maxOpens is how often one request has connections of HTTP/2 opened.
	maxOpens = 3

	// unreadPerStream is how much of an answer over HTTP/2 is taken in before somebody reads it.
	// net/http's transport takes 4 MiB, and a client that reads nothing can have a hundred streams.
	unreadPerStream = 512 << 10
)

// Transport is an http.RoundTripper with a pool of connections. It is safe for
// concurrent use.
type Transport struct {
	base    *http.Transport // dials; its own pool stays empty
	idle    time.Duration
	maxIdle int
	wait    time.Duration
	greet   time.Duration // how long a connection waits for the peer's first SETTINGS

	mu    sync.Mutex // never held while a ClientConn is called that may call back
	peers map[address]*peer
	sweep *time.Timer // nil while nobody is idle
}

type address struct{ scheme, host string }

// peer is what is known of one address.
type peer struct {
	address
	idle    []*link // HTTP/1, the one that was used last at the end
	shared  []*link // HTTP/2; never changed in place
	streams bool    // its newest connection speaks HTTP/2: one is for all that wait

	// Of HTTP/2.
	waiting int       // requests that wait for a stream
	opening int       // connections that are being opened for them
	limit   int       // streams that the newest connection takes at a time
	change  *change   // the next one
	gaveUp  time.Time // when a request had waited in vain
}

// change is something that requests wait for: a stream is free, or a connection is
// open, or could not be opened.
type change struct {
	done chan struct{}
	err  error
}

// link is a connection to a peer.
type link struct {
	*http.ClientConn
	wire   *wire
	peer   *peer
	shared bool                      // HTTP/2
	limit  int                       // of HTTP/2: streams that it took at a time when it was new
	barren atomic.Pointer[time.Time] // since when it carries and takes nothing; nil: not so

	listed bool // in peer.idle; guarded by Transport.mu, as is
	since  time.Time
}

// New returns a Transport that dials as base does, of which it takes a copy.
func New(base *http.Transport, o Options) *Transport {
	t := &Transport{
		base: base.Clone(), idle: o.Idle, maxIdle: o.MaxIdle, wait: o.StreamWait,
		peers: map[address]*peer{},
	}
	if t.idle <= 0 {
		t.idle = defaultIdle
	}
	if t.maxIdle <= 0 {
		t.maxIdle = defaultMaxIdle
	}
	if t.wait <= 0 {
		t.wait = defaultStreamWait
	}
	t.greet = t.wait
	t.base.IdleConnTimeout = t.idle // of HTTP/2
	if t.base.HTTP2 == nil {
		t.base.HTTP2 = &http.HTTP2Config{}
	}
	t.base.HTTP2.MaxReceiveBufferPerStream = unreadPerStream
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
		p = &peer{address: at, streams: u.Scheme == "http" && t.onlyHTTP2(), change: newChange()}
		t.peers[at] = p
	}
	return p, nil
}

func (t *Transport) onlyHTTP2() bool {
	protocols := t.base.Protocols
	return protocols != nil && protocols.UnencryptedHTTP2() && !protocols.HTTP1()
}

func newChange() *change { return &change{done: make(chan struct{})} }

// acquire returns a link that is reserved for one request. fresh asks for a
// connection that nobody has used, where one cannot be shared: others of the
// pool may have ended with the one that failed.
func (t *Transport) acquire(ctx context.Context, p *peer, fresh bool) (hold, error) {
	if l := t.pick(p, fresh); l != nil {
		return hold{l, true}, nil
	}
	l, err := t.await(ctx, p, fresh)
	if l != nil || err != nil {
		return hold{l, true}, err
	}
	if l, err = t.dial(ctx, p); l == nil && err == nil { // HTTP/2, and it takes no request yet
		l, err = t.await(ctx, p, fresh)
	}
	return hold{l, false}, err
}

// await waits for a link of a peer that speaks HTTP/2, and has connections opened
// where that helps. It returns no link if the peer speaks HTTP/1: then each request
// opens a connection of its own.
func (t *Transport) await(ctx context.Context, p *peer, fresh bool) (*link, error) {
	began := time.Now()
	t.mu.Lock()
	p.waiting++
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		p.waiting--
		t.mu.Unlock()
	}()
	patience := time.NewTimer(t.wait)
	defer patience.Stop()
	poll := time.NewTicker(streamPoll)
	defer poll.Stop()
	for over, opens := false, 0; ; {
		t.mu.Lock()
		streams, next, opening := p.streams, p.change, p.opening > 0
		t.mu.Unlock()
		if l := t.pick(p, fresh); l != nil || !streams {
			return l, nil
		}
		if over && !opening { // connecting has a time of its own
			t.giveUp(p)
			return nil, ErrNoStream
		}
		// A peer may end each connection as soon as it is open.
		if !over && opens < maxOpens && t.open(ctx, p, began) {
			opens++
		}
		select {
		case <-next.done:
			if next.err != nil {
				return nil, next.err
			}
		case <-poll.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-patience.C:
			over = true
		}
	}
}

// open opens connections of HTTP/2 for the requests that wait, as many as they need
// by what the newest one took. It goes on without the request that began it. Where a
// connection takes no request at all, the next one would not either (RFC 9113 §6.5.2
// has a limit of 0 for a short time): there is nothing to open, nor for a request that
// has waited since began while another one waited in vain. It reports whether there was.
func (t *Transport) open(ctx context.Context, p *peer, began time.Time) (opens bool) {
	t.mu.Lock()
	shared := p.shared
	t.mu.Unlock()
	for _, l := range shared {
		if l.limit == 0 && l.InFlight() == 0 && l.Err() == nil {
			return false
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.gaveUp.After(began) { // with this lock held: giveUp takes the connection away that is looked at above
		return false
	}
	limit := p.limit
	if len(p.shared) == 0 { // nothing is known of the peer, or no longer
		limit = math.MaxInt32
	}
	for p.opening == 0 || p.opening*max(1, limit) < p.waiting {
		if len(p.shared)+p.opening >= t.maxIdle {
			return opens
		}
		opens = true
		p.opening++
		go func() {
			l, err := t.dial(context.WithoutCancel(ctx), p)
			if l != nil {
				l.Release()
				t.changed(l) // see there
			}
			t.mu.Lock()
			p.opening--
			t.announce(p, err)
			t.mu.Unlock()
		}()
	}
	return opens
}

// announce wakes the requests that wait. It is called with the lock held.
func (t *Transport) announce(p *peer, err error) {
	was := p.change
	p.change = newChange()
	was.err = err
	close(was.done)
}

// giveUp forgets the connections that take no request and carry none, so that the
// next request opens another one. Those that have waited meanwhile do not: many
// requests that wait together are told together, and open nothing one by one.
func (t *Transport) giveUp(p *peer) {
	t.mu.Lock()
	shared := p.shared
	p.gaveUp = time.Now()
	t.mu.Unlock()
	for _, l := range shared {
		if l.Available() == 0 && l.InFlight() == 0 {
			t.retire(l)
		}
	}
}

// retire takes a connection of HTTP/2 out of the pool, and closes it once it has
// carried nothing for its time: who has just reserved a stream keeps it. net/http
// does not do so by itself after a request has waited for a stream in vain.
func (t *Transport) retire(l *link) {
	t.mu.Lock()
	known := slices.Contains(l.peer.shared, l)
	t.forget(l)
	t.mu.Unlock()
	if known {
		t.closeLater(l)
	}
}

func (t *Transport) closeLater(l *link) {
	time.AfterFunc(t.idle, func() {
		switch {
		case l.Err() != nil:
		case l.InFlight() == 0:
			l.Close()
		default:
			t.closeLater(l)
		}
	})
}

// pick returns a link of the pool that takes one more request.
func (t *Transport) pick(p *peer, fresh bool) *link {
	t.mu.Lock()
	shared := p.shared
	t.mu.Unlock()
	for _, l := range shared {
		if l.Reserve() == nil {
			if l.barren.Load() != nil {
				l.barren.Store(nil)
			}
			return l
		}
		if l.limit > 0 && l.InFlight() == 0 && l.Available() == 0 && l.staysBarren() {
			t.retire(l) // idle for too long, or its peer takes nothing any more
		}
	}
	for !fresh {
		l, since := t.pop(p)
		if l == nil {
			break
		}
		if l.Reserve() != nil {
			continue // it has ended, or is in use: then it comes back by itself
		}
		if time.Since(since) < t.idle && l.wire.lend(func() bool { return l.Err() != nil }) {
			return l
		}
		l.Close()
	}
	return nil
}

// staysBarren reports whether l was found to carry and take nothing a while ago too.
// Once proves nothing: between the questions somebody may have come or gone, and a
// connection that works would be taken out of the count of those that there may be.
func (l *link) staysBarren() bool {
	since := l.barren.Load()
	if since == nil {
		now := time.Now()
		l.barren.CompareAndSwap(nil, &now)
		return false
	}
	return time.Since(*since) > barrenTime
}

func (t *Transport) pop(p *peer) (l *link, since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil, since
	}
	l = p.idle[n-1]
	p.idle[n-1] = nil
	p.idle, l.listed = p.idle[:n-1], false
	return l, l.since
}

// dial makes a connection that is reserved for one request. It returns no link if
// that speaks HTTP/2 and takes no request yet; then it is in the pool.
func (t *Transport) dial(ctx context.Context, p *peer) (*link, error) {
	l := &link{peer: p}
	var before int64 // writes of the handshake
	ctx = httptrace.WithClientTrace(context.WithValue(ctx, linkKey{}, l), &httptrace.ClientTrace{
		TLSHandshakeStart: func() {
			if l.wire != nil {
				l.wire.followRecords()
			}
		},
		TLSHandshakeDone: func(state tls.ConnectionState, err error) {
			l.shared = err == nil && state.NegotiatedProtocol == "h2"
			if l.wire != nil {
				before = l.wire.writes.Load()
			}
		},
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
	} else if err := t.greeted(ctx, l, before); err != nil {
		l.Close()
		return nil, err
	}
	l.limit = l.Available()
	t.mu.Lock()
	p.streams = l.shared
	if l.shared {
		p.limit = l.limit
	}
	t.mu.Unlock()
	err = l.Reserve()
	if err != nil && (!l.shared || l.limit > 0) {
		l.Close()
		return nil, err
	}
	if l.shared {
		t.mu.Lock()
		p.shared = append(slices.Clone(p.shared), l)
		t.mu.Unlock()
	}
	l.SetStateHook(func(*http.ClientConn) { t.changed(l) })
	if err != nil {
		return nil, nil
	}
	return l, nil
}

// greeted waits for the first SETTINGS of the peer. Until they are there net/http
// takes 100 streams for granted; where the peer takes fewer, requests would wait
// within net/http, without a bound and tied to this connection. It answers them with
// the second thing that it writes after the handshake; the first is its preface.
func (t *Transport) greeted(ctx context.Context, l *link, before int64) error {
	patience := time.NewTimer(t.greet)
	defer patience.Stop()
	for l.wire.writes.Load() < before+2 {
		select {
		case <-l.wire.wrote:
		case <-l.wire.ended:
			return errNoSettings
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-patience.C:
			return errNoSettings
		}
	}
	return nil
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
//
// While net/http runs its hook, which is this, it does not see what changes: if the
// hook has put l into the pool, and l is taken, used and given back before the hook
// has returned, nobody is told. That cannot happen where the reader of l runs the hook:
// until it returns there is no other answer. Where one of us runs it, who released l or
// sent a request that net/http refused, it is called once more afterwards; else l
// would be lost, and open for ever.
func (t *Transport) changed(l *link) {
	ended := l.Err() != nil
	t.mu.Lock()
	free := !l.shared && l.Available() > 0
	if l.shared && l.peer.waiting > 0 {
		t.announce(l.peer, nil)
	}
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
	closeUnused(over)
}

// closeUnused closes what no request uses. Who has taken a link from the pool a moment
// ago may have reserved it: then it comes back by itself.
func closeUnused(links []*link) {
	for _, l := range links {
		if l.Reserve() == nil {
			l.Close()
		}
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
	var shared []*link
	for _, p := range t.peers {
		shared = append(shared, p.shared...)
		p.shared = nil
	}
	t.mu.Unlock()
	closeUnused(over)
	for _, l := range shared {
		if l.InFlight() == 0 {
			l.Close()
		}
	}
}
