package reload

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	successful, timestamp, generation prometheus.Gauge
	reloads                           *prometheus.CounterVec
}

// Measure registers the metrics of a Loop, as NewLoop does.
func Measure(reg prometheus.Registerer) { newMetrics(reg) }

func newMetrics(reg prometheus.Registerer) *metrics {
	with := promauto.With(reg)
	m := &metrics{
		successful: with.NewGauge(prometheus.GaugeOpts{Name: "sallyport_config_last_reload_successful",
			Help: "Whether the configuration that was read last is the one in use: 1 or 0."}),
		timestamp: with.NewGauge(prometheus.GaugeOpts{Name: "sallyport_config_last_reload_timestamp_seconds",
			Help: "When the configuration in use was last read, in seconds since 1970."}),
		generation: with.NewGauge(prometheus.GaugeOpts{Name: "sallyport_config_generation",
			Help: "How many configurations this process has used, with the one in use."}),
		reloads: with.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_config_reloads_total",
			Help: "Times that the configuration was read again, by result: ok, refused or unchanged."},
			[]string{"result"}),
	}
	for _, result := range []string{"ok", "refused", "unchanged"} {
		m.reloads.WithLabelValues(result)
	}
	return m
}

func (m *metrics) result(result string) { m.reloads.WithLabelValues(result).Inc() }

// applied: a configuration has come into use.
func (m *metrics) applied(generation int) {
	m.successful.Set(1)
	m.timestamp.SetToCurrentTime()
	m.generation.Set(float64(generation))
}

// unchanged: what is there is what is in use, perhaps again.
func (m *metrics) unchanged() {
	m.successful.Set(1)
	m.timestamp.SetToCurrentTime()
	m.result("unchanged")
}

func (m *metrics) refused() {
	m.successful.Set(0)
	m.result("refused")
}
