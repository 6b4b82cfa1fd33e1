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
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/oauth"
	"github.com/sallyport-proxy/sallyport/proxy"
	"github.com/sallyport-proxy/sallyport/session"
)

// Process is what outlives a configuration. To what outlives one in the front door
// (proxy.Process: metrics, streams, sign-ins on their way, whether it is stopping) it
// adds the list of ended sessions, what counts once, the connections to apps and the
// log. It serves by its current Runtime, and is safe for concurrent use.
type Process struct {
	door    *proxy.Process
	ended   session.Ended
	once    session.Once
	calls   *oauth.Metrics
	apps    *apps
	logins  *logins
	log     *slog.Logger
	current atomic.Pointer[Runtime]
}

// NewProcess registers the metrics. Swap gives it a Runtime before it serves. The
// observers are told of each request.
func NewProcess(reg prometheus.Registerer, log *slog.Logger, observers ...observe.Observer) *Process {
	memory := session.NewMemory(nil, endingsMerged(reg, log))
	return &Process{
		door:  proxy.NewProcess(proxy.ProcessOptions{Observers: observers, Log: log, Registerer: reg}),
		ended: memory, once: memory,
		calls: oauth.NewMetrics(reg), apps: newApps(), logins: newLogins(), log: log,
	}
}

// Swap makes rt, which was built by p, the Runtime of all requests from here on.
// Requests that are running finish on the one before, which is returned; nil the
// first time.
func (p *Process) Swap(rt *Runtime) *Runtime {
	old := p.current.Swap(rt)
	p.door.SetCurrent(rt.door)
	if old != nil {
		old.Release()
	}
	return old
}

// ServeHTTP serves a request by the Runtime that is current when it comes.
func (p *Process) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt := p.current.Load()
	for !rt.use() { // it was replaced a moment ago
		rt = p.current.Load()
	}
	defer rt.Release()
	rt.door.ServeHTTP(w, r)
}

// Drain makes every further answer the last one on its connection.
func (p *Process) Drain() { p.door.Drain() }

// CloseTunnels ends all WebSockets and waits until they are gone or ctx is done.
func (p *Process) CloseTunnels(ctx context.Context) { p.door.CloseTunnels(ctx) }

// EndSignIns ends the sign-ins whose browsers have left, and waits likewise.
func (p *Process) EndSignIns(ctx context.Context) { p.door.EndSignIns(ctx) }

// endingsMerged shouts when so many people signed out that the list of who did
// became coarser: others have to sign in again.
func endingsMerged(reg prometheus.Registerer, log *slog.Logger) func(session.Merge) {
	merges := promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "sallyport_session_endings_merged_total",
		Help: "Times that the list of ended sessions was full, so that everybody who had signed in before some moment " +
			"signs in again."})
	return func(m session.Merge) {
		if m.Person != "" {
			log.Warn("somebody signed in and out so often that "+
				"all of their sessions that began at or before this time were ended",
				"user", m.Person, "before", m.Before, "entries", m.Entries)
			return
		}
		merges.Inc()
		log.Error("the list of ended sessions is full: everybody who signed in at or before this time signs in again; "+
			"shorten session.absolute_timeout if this happens often",
			"before", m.Before, "entries", m.Entries)
	}
}
