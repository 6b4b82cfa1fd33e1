package server

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// AdminOptions are what the admin listener tells about and may change. Level nil: it may not change that.
type AdminOptions struct {
	Metrics prometheus.Gatherer
	Ready   *atomic.Bool
	// Waits says what is waited for although the process runs, "" if nothing is; it may
	// be nil.
	Waits  func() string
	Level  *slog.LevelVar
	Probes []Probe
	Name   string // of the configured address, "" if it is an IP address
	Log    *slog.Logger
	// Did is told what somebody at an address did who runs Sallyport; nil: nobody is.
	Did func(address, what string)
}

// NewAdmin answers probes and scrapers, on a listener of its own so that no
// public path or User-Agent can ever mean "health check" (CVE-2026-34457).
// Readiness does not depend on the provider: without it, who is signed in stays.
//
//	GET /metrics            Prometheus
//	GET /healthz            the process lives
//	GET /readyz             it takes new requests; not while it stops, or has not read yet what ended
//	GET, PUT /log-level     see levelSwitch
//	GET <path of a probe>   see probe; a path of our own is never a probe
func NewAdmin(o AdminOptions) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		waits := ""
		if o.Waits != nil {
			waits = o.Waits()
		}
		switch {
		case !o.Ready.Load():
			writeText(w, http.StatusServiceUnavailable, "not ready")
		case waits != "":
			writeText(w, http.StatusServiceUnavailable, "not ready: "+waits)
		default:
			writeText(w, http.StatusOK, "ready")
		}
	})
	if o.Level != nil {
		s := &levelSwitch{level: o.Level, log: o.Log, did: o.Did}
		mux.HandleFunc("GET /log-level", s.show)
		mux.HandleFunc("PUT /log-level", s.change)
	}
	return onlyByItsNames(o.Name, withProbes(mux, o.Probes))
}

// onlyByItsNames refuses requests that reached a loopback address under a name
// other than localhost and own. A page anywhere can let its own name resolve to 127.0.0.1
// (DNS rebinding), and the browser of somebody at this machine would then let it
// read the answers. An address as Host is nobody's name. Elsewhere than on
// loopback, scrapers use names that we do not know.
func onlyByItsNames(own string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		if at != nil && at.IP.IsLoopback() && !namesLoopback(r.Host, own) {
			writeText(w, http.StatusMisdirectedRequest, "on this machine, ask for localhost or for an address such "+
				"as 127.0.0.1")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// namesLoopback takes every address, and no Host at all: HTTP/1.0 needs none, and
// a browser always sends one.
func namesLoopback(host, own string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	_, err := netip.ParseAddr(name)
	return err == nil || name == "" || name == strings.ToLower(own) ||
		name == "localhost" || strings.HasSuffix(name, ".localhost") // RFC 6761 §6.3
}

// levelSwitch shows and changes the least that is logged, until the next start.
//
// It can be changed only from this machine (in Kubernetes: from this pod, so
// through `kubectl exec` or `port-forward`, which RBAC guards). The listener is
// often open to the cluster for probes and scrapers, and nobody there may silence
// the log before doing what it would tell of, or fill disks with "debug". Nor may
// a page in a browser on this machine, whatever name it resolved to 127.0.0.1, nor
// anybody through a proxy that runs here, which may be ourselves.
type levelSwitch struct {
	level *slog.LevelVar
	log   *slog.Logger
	did   func(address, what string) // may be nil
	mu    sync.Mutex                 // one change at a time, so that the log tells them in order
}

const maxLevelBody = 64 // bytes

func (s *levelSwitch) show(w http.ResponseWriter, _ *http.Request) {
	writeText(w, http.StatusOK, levelName(s.level.Level()))
}

func (s *levelSwitch) change(w http.ResponseWriter, r *http.Request) {
	if !fromThisMachine(r) {
		writeText(w, http.StatusForbidden, "the log level can be changed only from this machine, "+
			"by a program that talks to this address directly")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLevelBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		writeText(w, http.StatusRequestEntityTooLarge, "the body is one word: debug, info, warn or error")
		return
	}
	level, ok := levelOf(strings.TrimSpace(string(body)))
	if err != nil || !ok {
		writeText(w, http.StatusBadRequest, "the body must be one of: debug, info, warn, error")
		return
	}
	old := s.set(level)
	if s.did != nil {
		s.did(r.RemoteAddr, "log level: "+levelName(old)+" to "+levelName(level))
	}
	writeText(w, http.StatusOK, levelName(level))
}

// set tells of the change while the lower of both levels is in force, so that it
// is told even by a change to "error". It returns the level before.
func (s *levelSwitch) set(level slog.Level) slog.Level {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.level.Level()
	if level < old {
		s.level.Set(level)
	}
	s.log.Warn("log level changed", "from", levelName(old), "to", levelName(level))
	s.level.Set(level)
	return old
}

// fromThisMachine: the peer is a loopback address, no browser (Origin comes with
// every PUT of one; Fetch Standard §3.1) and no proxy.
func fromThisMachine(r *http.Request) bool {
	for _, name := range []string{"Origin", "Sec-Fetch-Site", "Via", "Forwarded", "X-Forwarded-For"} {
		if len(r.Header[http.CanonicalHeaderKey(name)]) > 0 {
			return false
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	peer, err := netip.ParseAddr(host)
	return err == nil && peer.IsLoopback()
}

// levelOf takes the names that the configuration takes, and no others.
func levelOf(name string) (level slog.Level, ok bool) {
	switch name {
	case "debug", "info", "warn", "error":
		return level, level.UnmarshalText([]byte(name)) == nil
	}
	return 0, false
}

func levelName(level slog.Level) string { return strings.ToLower(level.String()) }

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}
