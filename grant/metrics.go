package grant

import "github.com/prometheus/client_golang/prometheus"

// Names of an Event.
const (
	EventConnected    = "grant_connected"    // a grant was connected, or connected again
	EventAgreed       = "grant_agreed"       // an app may use a grant that was there
	EventWithdrawn    = "grant_withdrawn"    // an app may not use a grant any more, or not while the person is away
	EventDisconnected = "grant_disconnected" // a grant ended; the detail says what became of it at the third party
	EventFailing      = "grant_failing"      // a grant cannot be used, or not be refreshed; the detail says why
	EventRecovered    = "grant_recovered"    // it can be again
	EventRekeyed      = "grants_rekeyed"     // grants were wrapped anew; the detail is the id of the key that seals
	EventMoved        = "grant_moved"        // an organization's grant is another's now; the detail is whose it was
)

// EventNames are all that an Event may have.
func EventNames() []string {
	return []string{EventConnected, EventAgreed, EventWithdrawn, EventDisconnected, EventFailing, EventRecovered,
		EventRekeyed, EventMoved}
}

// Metrics count what brokers do. They outlive a configuration.
type Metrics struct {
	refreshes, connects, notices, events *prometheus.CounterVec
	waiting                              *prometheus.GaugeVec
}

// NewMetrics registers the metrics of all brokers of a process.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_grant_refreshes_total",
			Help: "Refreshes of grants, by connector and outcome: ok, late or fenced (a result that came when the " +
				"lease was over: kept, or dropped), or the class of the failure."}, []string{"connector", "outcome"}),
		connects: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_grant_connects_total",
			Help: "People who came back from a third party or pasted a key, by connector and outcome: kept, " +
				"refused, or the class of the failure."}, []string{"connector", "outcome"}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sallyport_grant_results_unsaved",
			Help: "Results of refreshes that are in memory only because the store cannot be written. Do not stop the " +
				"process while there are any."}, []string{"connector"}),
	}
	m.notices = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_grant_notices_total",
		Help: "Notices to apps of what became of grants, by app and outcome: told, refused, failed (and tried " +
			"again) or lost (not taken within a day)."}, []string{"app", "outcome"})
	m.events = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_grant_events_total",
		Help: "Signed events of third parties, by connector and outcome: answered, ended (grants that are over " +
			"there are marked), relayed to apps, repeated, nobody (no app has a consent), failed (and has to come " +
			"again) or refused."}, []string{"connector", "outcome"})
	reg.MustRegister(m.refreshes, m.connects, m.waiting, m.notices, m.events)
	return m
}

func (m *Metrics) refreshed(connector, outcome string) {
	if m != nil {
		m.refreshes.WithLabelValues(connector, outcome).Inc()
	}
}

func (m *Metrics) connected(connector, outcome string) {
	if m != nil {
		m.connects.WithLabelValues(connector, outcome).Inc()
	}
}

func (m *Metrics) noticed(app, outcome string) { m.noticesEnded(app, outcome, 1) }

func (m *Metrics) noticesEnded(app, outcome string, n int) {
	if m != nil {
		m.notices.WithLabelValues(app, outcome).Add(float64(n))
	}
}

func (m *Metrics) received(connector, outcome string) {
	if m != nil {
		m.events.WithLabelValues(connector, outcome).Inc()
	}
}

// expect has what an alert asks for there from the start.
func (m *Metrics) expect(connector string) {
	if m != nil {
		m.waiting.WithLabelValues(connector)
	}
}

// unsaved counts a result that waits, or that waits no longer, where that has changed.
func (m *Metrics) unsaved(connector string, changed, waits bool) {
	switch {
	case m == nil || !changed:
	case waits:
		m.waiting.WithLabelValues(connector).Inc()
	default:
		m.waiting.WithLabelValues(connector).Dec()
	}
}
