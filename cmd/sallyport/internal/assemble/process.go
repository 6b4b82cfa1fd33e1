// Package assemble makes a running Sallyport of a configuration, bottom to top.
//
// It owns the split between the Process, what outlives a configuration, and the
// Runtime, what follows from one: the Process holds one Runtime at a time behind
// one pointer, and each exchange keeps the one that it began with. It also owns
// what of a configuration can be judged without its secrets (Policy), and how
// secrets become keys. It reads no file by itself, but for those that the
// configuration names; commands, listeners and signals are its neighbours'.
package assemble

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/extauthz"
	"github.com/sallyport-proxy/sallyport/gateway"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/oauth"
	"github.com/sallyport-proxy/sallyport/proxy"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store"
	"github.com/sallyport-proxy/sallyport/store/postgres"
)

// Process is what outlives a configuration. To what outlives one in the front door
// (proxy.Process: metrics, streams, sign-ins on their way, whether it is stopping) it
// adds the list of ended sessions, what counts once, the connections to apps and the
// log. It serves by its current Runtime, and is safe for concurrent use.
type Process struct {
	door    *proxy.Process
	asked   *extauthz.Process
	ended   ended
	now     func() time.Time                                 // of all replicas that share the store
	store   *store.Store                                     // nil: there is none
	access  *postgres.Access                                 // nil: the store is on this machine
	details func(context.Context, identity.Org) identity.Org // nil: there is no store
	merged  func(session.Merge)
	calls   *oauth.Metrics
	apps    *apps
	logins  *logins

	gateway     *gateway.Process
	refreshes   *grant.Metrics
	brokers     brokers
	auditGrants func(observe.GrantStep) // nil: nobody is told

	log     *slog.Logger
	current atomic.Pointer[Runtime]
}

// ended is what ended before its time, and what counted once.
type ended interface {
	session.Ended
	session.Once
	// Len is how many cuts of a kind are known.
	Len(session.Kind) int
}

// NewProcess registers the metrics. Open gives it the store, where there is one, and
// Swap a Runtime, before it serves. The observers are told of each request.
func NewProcess(reg prometheus.Registerer, log *slog.Logger, observers ...observe.Observer) *Process {
	door := proxy.NewProcess(proxy.ProcessOptions{Observers: observers, Log: log, Registerer: reg})
	p := &Process{
		door: door, merged: endingsMerged(reg, log), now: time.Now,
		calls: oauth.NewMetrics(reg), apps: newApps(), logins: newLogins(), log: log,
	}
	p.asked = extauthz.NewProcess(extauthz.ProcessOptions{Observers: append(slices.Clone(observers),
		door.Decisions()), Log: log, Registerer: reg, Waits: p.Waits})
	p.gateway = gateway.NewProcess(gateway.ProcessOptions{Observers: observers, Registerer: reg})
	p.refreshes, p.brokers.open = grant.NewMetrics(reg), map[*grant.Broker]bool{}
	p.ended = session.NewMemory(session.MemoryOptions{Merged: p.merged})
	p.measureEnded(reg)
	return p
}

// AuditGrants has the audit stream told of each step in the life of a grant. It comes before
// Build.
func (p *Process) AuditGrants(tell func(observe.GrantStep)) { p.auditGrants = tell }

// Open has p keep what ended where cfg says, whose references are resolved: in its
// store, or else in memory, up to the bound of cfg. It comes before Build, and Close
// at the end. version is this program's, and stands in the store for who looks into it.
// Another configuration changes at most how the store is reached (ChangeStore): another store
// needs a restart.
func (p *Process) Open(ctx context.Context, cfg *config.Config, version string) error {
	s, access, err := openStore(ctx, cfg, store.Options{Merged: p.merged, Log: p.log,
		Absolute: cfg.Session.AbsoluteTimeout, Version: version})
	if err != nil {
		return err
	}
	if s == nil {
		p.ended = session.NewMemory(session.MemoryOptions{Max: cfg.Limits.Ended, Merged: p.merged})
		return nil
	}
	p.ended, p.store, p.access, p.now = s, s, access, s.Now
	p.details = newOrgDetails(s, p.log).of
	return nil
}

// Close closes the store, once nothing is served any more.
func (p *Process) Close() error {
	if p.store == nil {
		return nil
	}
	return p.store.Close()
}

// Waits says what p waits for before it can serve people with a session; "" if for
// nothing. Once it has all read what ended it waits no more: while the store is away,
// what each route asks of it decides.
func (p *Process) Waits() string {
	if p.store != nil && p.store.Fresh().IsZero() {
		return "the store has not been read yet"
	}
	return ""
}

// Swap makes rt, which was built by p, the Runtime of all requests from here on.
// Requests that are running finish on the one before, which is returned; nil the
// first time.
func (p *Process) Swap(rt *Runtime) *Runtime {
	old := p.current.Swap(rt)
	if p.store != nil {
		p.store.SetAbsolute(rt.absolute)
	}
	p.door.SetCurrent(rt.door)
	if old != nil {
		old.retire()
		old.Release()
	}
	return old
}

// ServeHTTP serves a request by the Runtime that is current when it comes.
func (p *Process) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt := p.pin()
	defer rt.Release()
	rt.door.ServeHTTP(w, r)
}

// ServeExternalAuth answers another proxy in the same way. Where the configuration has no
// listener for that, it does not come here.
func (p *Process) ServeExternalAuth(w http.ResponseWriter, r *http.Request) {
	rt := p.pin()
	defer rt.Release()
	rt.asked.ServeHTTP(w, r)
}

// ServeExternalAuthGRPC is the same for a proxy that asks over gRPC.
func (p *Process) ServeExternalAuthGRPC(w http.ResponseWriter, r *http.Request) {
	rt := p.pin()
	defer rt.Release()
	rt.asked.ServeGRPC(w, r)
}

// ServeGrants answers apps that ask for what people lent, likewise. Where the configuration
// has no listener for that, it does not come here.
func (p *Process) ServeGrants(w http.ResponseWriter, r *http.Request) {
	rt := p.pin()
	defer rt.Release()
	if rt.lent == nil { // grants were taken out of the configuration, and the listener stays
		http.NotFound(w, r)
		return
	}
	rt.lent.ServeHTTP(w, r)
}

// pin takes hold of the current Runtime. The caller releases it.
func (p *Process) pin() *Runtime {
	for {
		if rt := p.current.Load(); rt.use() { // else it was replaced a moment ago
			return rt
		}
	}
}

// Drain makes every further answer the last one on its connection.
func (p *Process) Drain() {
	p.door.Drain()
	p.asked.Drain()
	p.gateway.Drain()
}

// CloseTunnels ends all WebSockets and waits until they are gone or ctx is done.
func (p *Process) CloseTunnels(ctx context.Context) { p.door.CloseTunnels(ctx) }

// EndSignIns ends the sign-ins whose browsers have left, and waits likewise.
func (p *Process) EndSignIns(ctx context.Context) { p.door.EndSignIns(ctx) }

// WriteEndings waits until the store knows who signed out here, or ctx is done.
func (p *Process) WriteEndings(ctx context.Context) {
	if p.store != nil {
		p.store.WriteEndings(ctx)
	}
}
