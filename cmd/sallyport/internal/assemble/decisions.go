package assemble

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sallyport-proxy/sallyport/internal/observe"
)

// decisions counts the verdicts of all front doors.
type decisions struct{ *prometheus.CounterVec }

func newDecisions(reg prometheus.Registerer) decisions {
	return decisions{promauto.With(reg).NewCounterVec(prometheus.CounterOpts{Name: "sallyport_decisions_total",
		Help: "Verdicts on requests for apps, by front door, outcome and reason."},
		[]string{"mode", "decision", "reason"})}
}

// Observe implements observe.Observer.
func (d decisions) Observe(_ context.Context, e *observe.Event) {
	if e.Decision != "" {
		d.WithLabelValues(e.Door, e.Decision, e.Reason).Inc()
	}
}
