package server

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"
)

// Why a connection is refused for its PROXY header: a label of the metric.
const (
	refusedMissing   = "missing"
	refusedLate      = "late"
	refusedMalformed = "malformed"
	refusedStranger  = "stranger" // its peer is not in proxy_protocol, so it may send none
)

func reasonOf(err error) string {
	switch {
	case errors.Is(err, errNoProxyHeader):
		return refusedMissing
	case errors.Is(err, errProxyHeaderLate):
		return refusedLate
	}
	return refusedMalformed
}

// refusals counts the connections of a listener that were refused for their PROXY
// header, and tells operators of them: for each reason of the first at once, and then
// once in a minute how many there were. A balancer that is set up wrongly does the same
// with each connection.
type refusals struct {
	log      *slog.Logger
	listener string
	count    *prometheus.CounterVec // by reason; nil: they are not counted
	logLimit rateLimit
}

// rateLimit says when to log something that may come often: at once, and then once in a
// minute.
type rateLimit struct {
	mu     sync.Mutex
	logged map[string]logged // by reason
}

type logged struct {
	silent   time.Time // nothing is logged until then
	unlogged int
}

const refusalsEvery = time.Minute

// allow reports whether to log one more, and how many were not logged before it.
func (s *rateLimit) allow(reason string) (unlogged int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, is := time.Now(), s.logged[reason]
	if now.Before(is.silent) {
		is.unlogged++
		s.logged[reason] = is
		return 0, false
	}
	if s.logged == nil {
		s.logged = map[string]logged{}
	}
	s.logged[reason] = logged{silent: now.Add(refusalsEvery)}
	return is.unlogged, true
}

func newRefusals(log *slog.Logger, l *Listener) *refusals {
	return &refusals{log: log, listener: l.label(), count: l.refused}
}

func (r *refusals) refused(peer net.Addr, reason string, err error) {
	if r.count != nil {
		r.count.WithLabelValues(r.listener, reason).Inc()
	}
	unlogged, ok := r.logLimit.allow(reason)
	if !ok {
		return
	}
	message := "a connection was closed: proxy_protocol is set for its peer, which did not keep to it"
	if reason == refusedStranger {
		message = "a connection was refused: it begins with a PROXY header, and its peer is not in proxy_protocol"
	}
	r.log.Warn(message, "listener", r.listener, "peer", peer.String(), "error", err.Error(), "suppressed", unlogged)
}

var errProxyHeaderOfStranger = errors.New("a PROXY header from a peer that is not listed")

// stranger looks at the first bytes of a connection whose peer may send no PROXY header.
// What speaks HTTP or TLS there refuses one, as anything else that it cannot read. This
// only says so in words, because a balancer that is not listed is the commonest fault.
func (r *refusals) stranger(peer net.Addr, first []byte) {
	if bytes.HasPrefix(first, proxyproto.SIGV2) || bytes.HasPrefix(first, []byte("PROXY ")) {
		r.refused(peer, refusedStranger, errProxyHeaderOfStranger)
	}
}

// Measure counts in reg what the listeners refuse, and what their lanes take. It comes before Run.
func (s *Server) Measure(reg prometheus.Registerer) {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_proxy_headers_refused_total",
		Help: "Connections that were refused for their PROXY header, by listener and reason: missing, late or " +
			"malformed from a peer in proxy_protocol, or one from a stranger."}, []string{"listener", "reason"})
	reg.MustRegister(refused, lanes(s.Listeners))
	for _, l := range s.Listeners {
		l.refused = refused
	}
}
