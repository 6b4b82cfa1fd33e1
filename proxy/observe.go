package proxy

import (
	"cmp"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/session"
)

// What stands in the place of a route's name for requests without a route. No
// route can be called so.
const (
	routeOwn  = "_own"
	routeNone = "_none"
)

// event is all that is told about one request: one log line and the metrics
// come from it. No cookie, code, token or query can get in (P18).
type event struct {
	start      time.Time
	requestID  string
	client     string
	facts      authz.Facts
	route      string
	user, org  string
	decision   string
	reason     authz.Reason
	rule       int // which of the route's rules matched, from 1
	sessionErr error
	note       string // what an operator should know of an answer that is fine
	cause      error
}

func (ev *event) decide(decision string, reason authz.Reason) {
	ev.decision, ev.reason = decision, reason
}

func (ev *event) identify(s *session.Session) {
	ev.user, ev.org = s.Identity.ID(), s.Identity.Org.ID
}

// recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	requestID string
	last      bool // no more requests on this connection
	status    int
	bytes     int64
	final     atomic.Bool // status is set: a watch reads this beside the handler
}

// begun reports whether the answer has begun: no other one can follow.
func (rec *recorder) begun() bool { return rec.final.Load() }

// flush sends what was written. An error shows at the next write.
func (rec *recorder) flush() { _ = http.NewResponseController(rec.ResponseWriter).Flush() }

// closeAfter makes this answer the last one on an HTTP/1 connection.
func (rec *recorder) closeAfter(r *http.Request) { rec.last = rec.last || r.ProtoMajor == 1 }

// sign puts our own headers on an answer, again if need be: early hints leave
// none behind.
func (rec *recorder) sign() {
	h := rec.Header()
	if h["X-Request-Id"] == nil {
		h.Set("X-Request-Id", rec.requestID)
	}
	if rec.last {
		h.Set("Connection", "close")
	}
}

// bodyPatience is how long we wait for the rest of a body that nobody will read.
const bodyPatience = 5 * time.Second

// answerPatience is how long a client may take to read an answer of our own.
const answerPatience = 30 * time.Second

// readBy disconnects a client that has not read its answer by then. It counts
// for what net/http writes behind the handler too, and until the next request.
// Without it whoever asks and does not read has a connection, and what fits into
// the kernel's buffer, for ever.
func (rec *recorder) readBy(patience time.Duration) {
	_ = http.NewResponseController(rec.ResponseWriter).SetWriteDeadline(time.Now().Add(patience))
}

// letGo is for answers of our own. A body of the request goes unread, and
// net/http would wait for its end without a limit before it sent the answer. A
// stranger could hold a connection, and our stopping, with one byte (P17).
func (rec *recorder) letGo(r *http.Request) {
	rec.readBy(answerPatience)
	if r.ContentLength == 0 {
		return
	}
	rec.closeAfter(r)
	rec.sign()
	// Not every writer has deadlines (tests' have none); then there is no wait either.
	_ = http.NewResponseController(rec.ResponseWriter).SetReadDeadline(time.Now().Add(bodyPatience))
}

func (rec *recorder) WriteHeader(status int) {
	if status >= 100 && status < 200 {
		keepOurCookies(rec.Header()) // early hints carry headers too
		delete(rec.Header(), "Clear-Site-Data")
		delete(rec.Header(), "X-Request-Id")
	} else {
		rec.sign()
		rec.begin(status)
	}
	rec.ResponseWriter.WriteHeader(status)
}

func (rec *recorder) begin(status int) {
	if rec.status == 0 {
		rec.status = status
		rec.final.Store(true)
	}
}

func (rec *recorder) Write(b []byte) (int, error) {
	rec.begin(http.StatusOK)
	n, err := rec.ResponseWriter.Write(b)
	rec.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController find what lies beneath.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

// observe writes the event. It runs deferred, also when a response is aborted.
func (p *Proxy) observe(ev *event, rec *recorder, r *http.Request) {
	status := rec.status
	if status == 0 {
		status = http.StatusOK
	}
	took := p.now().Sub(ev.start)
	p.metrics.request(ev, r.Method, status, took)
	level := slog.LevelInfo
	if status >= 500 && status != statusClientGone {
		level = slog.LevelError
	}
	if !p.log.Enabled(r.Context(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs,
		slog.String("request_id", ev.requestID), slog.String("method", cut(r.Method, 32)),
		slog.String("host", cut(cmp.Or(ev.facts.Authority, r.Host), 255)), slog.String("path", cut(ev.facts.Path, 1024)),
		slog.Int("status", status), slog.Int64("bytes", rec.bytes),
		slog.Float64("ms", float64(took.Microseconds())/1000),
		slog.String("client", ev.client), slog.String("route", ev.route))
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("decision", ev.decision)
	add("reason", string(ev.reason))
	if ev.rule > 0 {
		attrs = append(attrs, slog.Int("rule", ev.rule))
	}
	add("user", ev.user)
	add("org", ev.org)
	if ev.sessionErr != nil && !errors.Is(ev.sessionErr, session.ErrNone) {
		add("session", ev.sessionErr.Error())
	}
	add("note", ev.note)
	if ev.cause != nil {
		add("error", ev.cause.Error())
	}
	p.log.LogAttrs(r.Context(), level, "request", attrs...)
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// metrics are an interface to operators: names and labels only grow. All labels
// are from closed lists or the configuration (security.md 120).
type metrics struct {
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	decisions *prometheus.CounterVec
	logins    *prometheus.CounterVec
	failures  *prometheus.CounterVec
	retries   *prometheus.CounterVec
	tunnels   prometheus.Gauge
	inFlight  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_http_requests_total",
			Help: "Requests answered, by route, method and status code."}, []string{"route", "method", "code"}),
		durations: f.NewHistogramVec(prometheus.HistogramOpts{Name: "sallyport_http_request_duration_seconds",
			Help:    "Time from a request's header to the end of its answer, by route.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"route"}),
		decisions: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_decisions_total",
			Help: "Verdicts on requests for apps, by front door, outcome and reason."}, []string{"mode", "decision", "reason"}),
		logins: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_logins_total",
			Help: "Sign-ins that came back from a provider or could not be begun, by result."}, []string{"provider", "result"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_upstream_failures_total",
			Help: "Requests that an app did not answer, by route and kind: unreachable, timeout or protocol."}, []string{"route", "kind"}),
		retries: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_upstream_retries_total",
			Help: "Requests that were sent to an app a second time, because it had done nothing with the first or the method is safe, by route."}, []string{"route"}),
		tunnels:  f.NewGauge(prometheus.GaugeOpts{Name: "sallyport_tunnels", Help: "WebSockets that are open."}),
		inFlight: f.NewGauge(prometheus.GaugeOpts{Name: "sallyport_http_requests_in_flight", Help: "Requests that are being answered, WebSockets among them."}),
	}
}

func (m *metrics) upstream(route, kind string) { m.failures.WithLabelValues(route, kind).Inc() }

func (m *metrics) request(ev *event, method string, status int, took time.Duration) {
	m.requests.WithLabelValues(ev.route, knownMethod(method), strconv.Itoa(status)).Inc()
	m.durations.WithLabelValues(ev.route).Observe(took.Seconds())
	if ev.decision != "" {
		m.decisions.WithLabelValues("proxy", ev.decision, string(ev.reason)).Inc()
	}
}

func knownMethod(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return method
	}
	return "other"
}
