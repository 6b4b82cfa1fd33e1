package proxy

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/relay"
)

// ProcessOptions configure a Process. Registerer may be nil (no metrics), Log too
// (silent), and Now (time.Now).
type ProcessOptions struct {
	Observers  []observe.Observer // of each request
	Log        *slog.Logger       // of what is not about one request
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Process is the part of the front door that outlives a configuration: metrics and
// log, streams and tunnels, the sign-ins that are on their way, and whether the
// process is stopping. All Proxies of a process share one, so that a change of the
// configuration neither disconnects anybody nor counts anything twice. It is safe for
// concurrent use.
type Process struct {
	relay     *relay.Relay
	redeemed  *redemptions
	loops     *loops // of sign-ins
	handOffs  *loops // likewise, by browser and host
	stepUps   *loops // likewise
	observers []observe.Observer
	log       *slog.Logger
	metrics   *metrics
	now       func() time.Time
	draining  atomic.Bool
	current   atomic.Pointer[Proxy] // nil before SetCurrent

	mu    sync.Mutex // guards slots
	slots map[string]*slots
}

// NewProcess registers the metrics. It does no I/O.
func NewProcess(o ProcessOptions) *Process {
	p := &Process{relay: relay.New(), observers: o.Observers, log: o.Log, now: o.Now, slots: map[string]*slots{}}
	if p.now == nil {
		p.now = time.Now
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.metrics = newMetrics(o.Registerer, p.relay.OpenTunnels)
	p.loops, p.handOffs, p.stepUps = newLoops(p.now), newLoops(p.now), newLoops(p.now)
	p.redeemed = newRedemptions(p.now)
	return p
}

// slotsOf are the slots of a provider, by its id.
func (p *Process) slotsOf(provider string) *slots {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.slots[provider]
	if s == nil {
		s = &slots{held: map[string]int{}}
		p.slots[provider] = s
	}
	return s
}

// SetCurrent says which Proxy serves new requests. Streams and tunnels that another
// one has let in go on as long as this one would let them in too.
func (p *Process) SetCurrent(now *Proxy) {
	for _, provider := range now.signIns.providers {
		p.metrics.expect(provider.ID)
	}
	p.current.Store(now)
}

// Drain makes every further answer the last one on its connection, so that
// clients move elsewhere before the listener closes. On HTTP/2, net/http makes a
// GOAWAY of the header that says so.
func (p *Process) Drain() { p.draining.Store(true) }

// CloseTunnels ends all WebSockets and waits until they are gone or ctx is done.
// http.Server.Shutdown neither closes nor waits for them.
func (p *Process) CloseTunnels(ctx context.Context) { p.relay.CloseTunnels(ctx) }

// EndSignIns ends the sign-ins whose browsers have left, once nothing is served
// any more, and waits until they are gone or ctx is done.
func (p *Process) EndSignIns(ctx context.Context) { p.redeemed.end(ctx) }
