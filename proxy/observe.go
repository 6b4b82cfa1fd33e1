package proxy

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/relay"
	"github.com/sallyport-proxy/sallyport/session"
)

// event collects what is found out about a request while it is answered. At the end
// the observers get it.
type event struct {
	observe.Event
	trusted    bool            // the TCP peer is a proxy whose word counts
	cors       *admission.CORS // of the route; nil: the app says it
	forwards   bool            // Client is not on the list of proxies, and says that it forwards for others
	facts      authz.Facts
	dotted     bool // the host was asked for with a dot at its end
	sessionErr error
	clientGone bool // nobody is left to read an answer
	tunnelled  bool // the request goes on as a tunnel, which tells at its end
}

func (ev *event) decide(decision string, reason authz.Reason) {
	ev.Decision, ev.Reason = decision, string(reason)
}

// ended notes why a request that was let in was ended before its time: changed rules refuse it,
// as they would if it came now. Who ends sessions is told where they do.
func (ev *event) ended(why error) {
	if errors.Is(why, admission.ErrRulesChanged) {
		ev.decide(authz.Deny.String(), authz.ReasonRulesChanged)
		ev.Rule = 0
	}
}

func (ev *event) identify(id *identity.Identity) {
	ev.User, ev.Org = id.ID(), id.Org.ID
}

// admitted notes what was answered to a request for an app.
func (ev *event) admitted(a *admission.Answer) {
	if a.Route != nil {
		ev.Route = a.Route.Name
	}
	if a.Principal != nil {
		ev.identify(a.Principal.Identity)
	}
	ev.sessionErr = a.SessionErr
	if a.Verdict.Reason == "" {
		return // a fault of ours came before a verdict was complete
	}
	ev.decide(a.Verdict.Outcome.String(), a.Verdict.Reason)
	ev.Rule = a.Verdict.Rule
}

// answered is what an event does not hold: what was asked for, and what was answered.
type answered struct {
	method, host string
	status       int
	bytes        int64
}

// finish is the end of a request that is not a tunnel now. It runs deferred, also when a
// response is aborted.
func (p *Proxy) finish(ev *event, c *relay.Client, r *http.Request) {
	if ev.tunnelled {
		return
	}
	defer p.metrics.inFlight.Dec()
	p.observe(r.Context(), ev, answered{r.Method, r.Host, cmp.Or(c.Status(), http.StatusOK), c.Bytes()})
}

// observe tells the observers.
func (p *Proxy) observe(ctx context.Context, ev *event, a answered) {
	e := &ev.Event
	e.Took, e.Door, e.Method, e.Path = p.now().Sub(ev.Start), observe.DoorProxy, a.method, ev.facts.Path
	e.Host, e.Status, e.Bytes = cmp.Or(ev.facts.Authority, a.host), a.status, a.bytes
	if ev.clientGone {
		e.Status = statusClientGone
	}
	if !errors.Is(ev.sessionErr, session.ErrNone) {
		e.Session = ev.sessionErr
	}
	e.Failed = e.Failed || e.Status >= 500
	p.metrics.request(e)
	for _, o := range p.observers {
		o.Observe(ctx, e)
	}
}

// metrics are an interface to operators: names and labels only grow. All labels
// are from closed lists or the configuration.
type metrics struct {
	requests    *prometheus.CounterVec
	durations   *prometheus.HistogramVec
	decisions   *prometheus.CounterVec
	logins      *prometheus.CounterVec
	reauths     *prometheus.CounterVec
	handOffs    *prometheus.CounterVec
	stepUps     *prometheus.CounterVec
	directories *prometheus.CounterVec
	failures    *prometheus.CounterVec
	retries     *prometheus.CounterVec
	tunnelled   *prometheus.HistogramVec
	ended       *prometheus.CounterVec
	closed      *prometheus.CounterVec
	inFlight    prometheus.Gauge

	answers  handles[answerLabels, answerMetrics]
	verdicts handles[verdictLabels, prometheus.Counter]
}

// answerLabels are of an answer, and verdictLabels of a verdict.
type (
	answerLabels struct {
		route, method string
		status        int
	}
	verdictLabels struct{ mode, decision, reason string }
)

// answerMetrics are those of one kind of answer.
type answerMetrics struct {
	count prometheus.Counter
	took  prometheus.Observer
}

func newMetrics(reg prometheus.Registerer, openTunnels func() int) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "sallyport_tunnels", Help: "WebSockets that are open."},
		func() float64 { return float64(openTunnels()) })
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_http_requests_total",
			Help: "Requests answered, by route, method and status code."}, []string{"route", "method", "code"}),
		durations: f.NewHistogramVec(prometheus.HistogramOpts{Name: "sallyport_http_request_duration_seconds",
			Help:    "Time from a request's header to the end of its answer, by route; without WebSockets.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"route"}),
		decisions: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_decisions_total",
			Help: "Verdicts on requests for apps, by front door, outcome and reason."},
			[]string{"mode", "decision", "reason"}),
		logins: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_logins_total",
			Help: "Sign-ins that came back from a provider or could not be begun, by result."},
			[]string{"provider", "result"}),
		reauths: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_reauths_total",
			Help: "Times that a provider was asked again who somebody is, by result: same, changed, interaction, " +
				"denied, other_person or failed."}, []string{"provider", "result"}),
		handOffs: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_handoffs_total",
			Help: "Sessions that another host than that of public_url was to be given, by result: ok, late, used, " +
				"other_browser, forged, ended, not_theirs or store."}, []string{"result"}),
		stepUps: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_step_ups_total",
			Help: "Times that somebody came back from a provider who had to prove again who they are for a route, by " +
				"result: met, unmet, denied, other_person or failed."}, []string{"provider", "result"}),
		directories: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_directory_reads_total",
			Help: "Times that an administrator came back from a provider whose directory was to be read once, by " +
				"result: read, store, or the reason for which it was not read."}, []string{"provider", "result"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_upstream_failures_total",
			Help: "Requests that an app did not answer, or not to the end, by route and kind: unreachable, timeout, " +
				"protocol or broken_off."},
			[]string{"route", "kind"}),
		retries: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_upstream_retries_total",
			Help: "Requests that were sent to an app a second time, because it had done nothing with the first " +
				"or the method is safe, by route."}, []string{"route"}),
		tunnelled: f.NewHistogramVec(prometheus.HistogramOpts{Name: "sallyport_tunnel_duration_seconds",
			Help:    "Time from a WebSocket's handshake to its end, by route.",
			Buckets: []float64{1, 10, 60, 300, 1800, 3600, 4 * 3600, 12 * 3600}}, []string{"route"}),
		ended: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_sessions_ended_total",
			Help: "Times that sessions were ended before their time, by what was named (root is one sign-in, sid a " +
				"session at the provider) and by whom: person, provider, operator or reauth."}, []string{"kind", "by"}),
		closed: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_tunnels_closed_total",
			Help: "WebSockets that were closed because what let them in is over: ended, expired, switched (to " +
				"another organization), unverifiable (the store has not been read for too long), or rules (the " +
				"configuration changed)."}, []string{"reason"}),
		inFlight: f.NewGauge(prometheus.GaugeOpts{Name: "sallyport_http_requests_in_flight",
			Help: "Requests that are being answered, WebSockets among them."}),
	}
}

// resultOK is the result of a sign-in that did not fail.
const resultOK = "ok"

// expect begins to count the sign-ins at a provider from nought. Of a counter that was not there
// before, rate and increase of Prometheus do not see the first event.
func (m *metrics) expect(provider string) {
	m.logins.WithLabelValues(provider, resultOK)
	for _, failure := range identity.SignInFailures() {
		m.logins.WithLabelValues(provider, string(failure))
	}
}

func (m *metrics) upstream(route, kind string) { m.failures.WithLabelValues(route, kind).Inc() }

func (m *metrics) request(e *observe.Event) {
	kind := m.answers.get(answerLabels{e.Route, knownMethod(e.Method), e.Status}, m.answer)
	kind.count.Inc()
	kind.took.Observe(e.Took.Seconds())
	m.decided(e)
}

func (m *metrics) answer(l answerLabels) answerMetrics {
	durations := m.durations
	if l.status == http.StatusSwitchingProtocols { // how long a WebSocket is open says nothing about the app's speed
		durations = m.tunnelled
	}
	return answerMetrics{m.requests.WithLabelValues(l.route, l.method, strconv.Itoa(l.status)),
		durations.WithLabelValues(l.route)}
}

func (m *metrics) decided(e *observe.Event) {
	if e.Decision != "" {
		m.verdicts.get(verdictLabels{e.Door, e.Decision, e.Reason}, m.verdict).Inc()
	}
}

func (m *metrics) verdict(l verdictLabels) prometheus.Counter {
	return m.decisions.WithLabelValues(l.mode, l.decision, l.reason)
}

// Decisions observes the requests of another front door: it counts their verdicts beside
// those of this one.
func (p *Process) Decisions() observe.Observer { return decisions{p.metrics} }

type decisions struct{ *metrics }

// Observe implements observe.Observer.
func (d decisions) Observe(_ context.Context, e *observe.Event) { d.decided(e) }

// tunnelClosed counts a tunnel if it was closed because what let it in is over.
func (m *metrics) tunnelClosed(why error) {
	if errors.Is(why, relay.ErrOver) {
		m.closed.WithLabelValues(endingOf(why).reason).Inc()
	}
}

func knownMethod(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return method
	}
	return "other"
}
