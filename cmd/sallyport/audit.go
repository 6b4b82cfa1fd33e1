package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/auditfile"
	"github.com/sallyport-proxy/sallyport/internal/observe"
)

// auditTimeout bounds how long a stop waits for the audit stream's reader.
const auditTimeout = 2 * time.Second

// openAudit opens the audit stream, if there is to be one. A line that cannot be
// written is an error in the log, with all that it says, and is counted.
func openAudit(c *console, target string, reg prometheus.Registerer, log *slog.Logger) (*observe.Audit, func(), error) {
	if target == "" {
		return nil, func() {}, nil
	}
	out, err := auditfile.Open(target, c.stdout, c.stderr)
	if err != nil {
		return nil, nil, fmt.Errorf("log.audit: %w", err)
	}
	lost := auditLost(reg)
	audit := observe.NewAudit(out, func(r observe.Record, err error) {
		lost.Inc()
		log.Error("a line of the audit stream was not written", "error", err.Error(), "record", r)
	})
	return audit, func() {
		if !audit.Close(auditTimeout) {
			log.Error("the audit stream was not written to its end: its reader is too slow")
		}
		_ = out.Close()
	}, nil
}

func auditLost(reg prometheus.Registerer) prometheus.Counter {
	return promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "sallyport_audit_lines_lost_total",
		Help: "Lines of the audit stream that could not be written; each is in the log as an error."})
}
