package command

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/auditfile"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/internal/observe"
)

// auditTimeout bounds how long a stop waits for the audit stream's reader.
const auditTimeout = 2 * time.Second

// auditStream is the audit stream as the configuration has it now: there may be none,
// and it may be replaced while requests are observed.
type auditStream struct {
	console *console
	log     *slog.Logger
	lost    prometheus.Counter
	current atomic.Pointer[openAudit] // nil: there is none
}

// openAudit is a stream to one target.
type openAudit struct {
	*observe.Audit
	out io.Closer
	log *slog.Logger

	mu     sync.RWMutex // held for reading while a line is added
	closed bool
}

// open opens the stream to a target; "" is none. A line that cannot be written is an
// error in the log, with all that it says, and is counted.
func (s *auditStream) open(target string) (*openAudit, error) {
	if target == "" {
		return nil, nil
	}
	out, err := auditfile.Open(target, s.console.stdout, s.console.stderr)
	if err != nil {
		return nil, fmt.Errorf("log.audit: %w", err)
	}
	audit := observe.NewAudit(out, func(r observe.Record, err error) {
		s.lost.Inc()
		s.log.Error("a line of the audit stream was not written", "error", err.Error(), "record", r)
	})
	return &openAudit{Audit: audit, out: out, log: s.log}, nil
}

// replace makes next, which may be nil, the stream, and closes the one before.
func (s *auditStream) replace(next *openAudit) { s.current.Swap(next).close() }

// Observe implements observe.Observer.
func (s *auditStream) Observe(ctx context.Context, e *observe.Event) {
	s.add(func(a *observe.Audit) { a.Observe(ctx, e) })
}

var _ observe.LateObserver = (*auditStream)(nil)

// ObserveLate implements observe.LateObserver.
func (s *auditStream) ObserveLate(ctx context.Context, e *observe.Event) { s.Observe(ctx, e) }

// Operator records what somebody did who runs Sallyport.
func (s *auditStream) Operator(who, detail string) {
	s.add(func(a *observe.Audit) { a.Operator(who, detail) })
}

// Grant records a step in the life of a grant.
func (s *auditStream) Grant(step observe.GrantStep) {
	s.add(func(a *observe.Audit) { a.Grant(step) })
}

// add gives a line to the stream, or to the next one where that was just replaced.
func (s *auditStream) add(line func(*observe.Audit)) {
	for a := s.current.Load(); a != nil && !a.use(line); a = s.current.Load() {
	}
}

func (a *openAudit) use(line func(*observe.Audit)) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.closed {
		return false
	}
	line(a.Audit)
	return true
}

// close writes what waits. It is called after the stream was replaced.
func (a *openAudit) close() {
	if a == nil {
		return
	}
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	if !a.Close(auditTimeout) {
		a.log.Error("the audit stream was not written to its end: its reader is too slow")
	}
	_ = a.out.Close()
}

// briefAudit opens the audit stream for a command beside the processes that serve, before
// it does anything: what could not be recorded is not done. A stream of the process that
// serves is not ours to write to, so that the lines go to our standard error. record writes
// them, once.
func briefAudit(c *console, cfg *config.Config) (record func(...func(*observe.Audit)) error, err error) {
	if cfg.Log.Audit == "" {
		return func(...func(*observe.Audit)) error { return nil }, nil
	}
	target := cfg.Log.Audit
	if target == auditfile.Stdout {
		target = auditfile.Stderr
	}
	out, err := auditfile.OpenBeside(target, c.stdout, c.stderr)
	if err != nil {
		return nil, fmt.Errorf("log.audit: %w; nothing was done", err)
	}
	return func(lines ...func(*observe.Audit)) error {
		var lost error
		audit := observe.NewAudit(out, func(_ observe.Record, err error) { lost = err })
		for _, line := range lines {
			line(audit)
		}
		if !audit.Close(auditTimeout) {
			return fmt.Errorf("log.audit: %s is too slow: not all was written", target)
		}
		_ = out.Close()
		if lost != nil {
			return fmt.Errorf("log.audit: not all was written: %w", lost)
		}
		return nil
	}, nil
}

func auditLost(reg prometheus.Registerer) prometheus.Counter {
	return promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "sallyport_audit_lines_lost_total",
		Help: "Lines of the audit stream that could not be written; each is in the log as an error."})
}
