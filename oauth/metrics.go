package oauth

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics measures the calls of all Clients of a process.
type Metrics struct {
	duration *prometheus.HistogramVec
	retries  *prometheus.CounterVec
}

// NewMetrics registers sallyport_provider_request_duration_seconds and
// sallyport_provider_retries_total. Call it once per registry; a nil registry
// registers nothing.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	return &Metrics{duration: f.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "sallyport_provider_request_duration_seconds",
		Help:    "How long calls to providers took, whatever their outcome.",
		Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
	}, []string{"provider", "call"}), retries: f.NewCounterVec(prometheus.CounterOpts{
		Name: "sallyport_provider_retries_total",
		Help: "Calls to providers that were sent a second time, because the provider had done nothing with the first " +
			"or they only read.",
	}, []string{"provider", "call"})}
}

func (m *Metrics) retried(provider, call string) {
	if m != nil {
		m.retries.WithLabelValues(provider, call).Inc()
	}
}

func (m *Metrics) observe(provider, call string, start time.Time) {
	if m != nil {
		m.duration.WithLabelValues(provider, call).Observe(time.Since(start).Seconds())
	}
}
