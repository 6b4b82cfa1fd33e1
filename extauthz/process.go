package extauthz

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/session"
)

// ProcessOptions configure a Process. Registerer may be nil (no metrics), Log too
// (silent), Now (time.Now) and Waits (for nothing).
type ProcessOptions struct {
	Observers  []observe.Observer // of each question
	Log        *slog.Logger       // of what is not about one question
	Registerer prometheus.Registerer
	Now        func() time.Time
	// Waits says what must come before questions can be answered; "": nothing.
	Waits func() string
}

// Process is the part of this front door that outlives a configuration. It is safe for
// concurrent use.
type Process struct {
	observers []observe.Observer
	durations *prometheus.HistogramVec
	strangers *strangers
	renewals  renewals
	now       func() time.Time
	waits     func() string
	decoding  places
	draining  atomic.Bool
}

// NewProcess registers the metrics. It does no I/O.
func NewProcess(o ProcessOptions) *Process {
	p := &Process{observers: o.Observers, now: o.Now, waits: o.Waits, decoding: make(places, maxDecoding)}
	if p.now == nil {
		p.now = time.Now
	}
	if p.waits == nil {
		p.waits = func() string { return "" }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := promauto.With(o.Registerer)
	p.durations = f.NewHistogramVec(prometheus.HistogramOpts{Name: "sallyport_external_auth_duration_seconds",
		Help:    "Time that a question of another proxy took to answer, by dialect.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .05, .25, 1, 5, 15}}, []string{"mode"})
	p.strangers = &strangers{log: o.Log, now: p.now, told: map[netip.Addr]time.Time{},
		refused: f.NewCounter(prometheus.CounterOpts{Name: "sallyport_external_auth_strangers_total",
			Help: "Questions of those who are not among listen.external_auth.peers, all refused."})}
	return p
}

// Drain makes every further answer the last one on its connection.
func (p *Process) Drain() { p.draining.Store(true) }

// observe tells the observers of a question and its answer.
func (p *Process) observe(ctx context.Context, ev *event, a *answer) {
	ev.Took = p.now().Sub(ev.Start)
	ev.Status, ev.Bytes = a.status, int64(a.body.Len())
	p.durations.WithLabelValues(ev.Door).Observe(ev.Took.Seconds())
	for _, o := range p.observers {
		o.Observe(ctx, &ev.Event)
	}
}

// sessionFault is why a session cookie does not count; nil where there is none.
func sessionFault(err error) error {
	if errors.Is(err, session.ErrNone) {
		return nil
	}
	return err
}

// strangers are those who asked and may not. The log names each of them once a minute.
type strangers struct {
	log     *slog.Logger
	refused prometheus.Counter
	now     func() time.Time

	mu   sync.Mutex // guards told
	told map[netip.Addr]time.Time
}

// maxStrangers bounds how many are remembered. Beyond, all are told of again.
const maxStrangers = 1024

func (s *strangers) note(from netip.Addr) {
	s.refused.Inc()
	if s.due(from) {
		s.log.Warn("somebody who is not among listen.external_auth.peers asked, and was refused",
			"client", from.String())
	}
}

func (s *strangers) due(from netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if last, ok := s.told[from]; ok && now.Sub(last) < time.Minute {
		return false
	}
	if len(s.told) >= maxStrangers {
		clear(s.told)
	}
	s.told[from] = now
	return true
}

// peer is who asks, and whether they may. An IPv4 address is one however it is written
// (CVE-2024-24790); an address that cannot be read is nobody's.
func (d *Door) peer(remote string) (netip.Addr, bool) {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}, false
	}
	addr := at.Addr().Unmap().WithZone("")
	for _, prefix := range d.peers {
		if prefix.Contains(addr) {
			return addr, true
		}
	}
	return addr, false
}
