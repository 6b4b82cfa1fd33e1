// Package server owns what a running Sallyport listens on: addresses and their
// connections, the certificate, the limits of net/http, the endpoints for operators
// (admin.go), and stopping without dropping a request (drain.go). What a request
// means is the handler's to say; package proxy is next door for that. It knows
// nothing of the configuration: serve hands it plain values.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Drainable is the front door as far as stopping goes.
type Drainable interface {
	// Drain asks every client to leave: each answer is the last on its connection.
	Drain()
	// CloseTunnels ends WebSockets and waits until they are gone or ctx is done.
	CloseTunnels(ctx context.Context)
	// EndSignIns ends the sign-ins whose browsers have left, and waits likewise.
	EndSignIns(ctx context.Context)
	// EndRefreshes begins nothing more of what is done for apps by itself, and waits until what
	// came of it is kept, or ctx is done.
	EndRefreshes(ctx context.Context)
	// WriteEndings waits until others can know who signed out here, or ctx is done.
	WriteEndings(ctx context.Context)
}

// tunnelGrace is for tunnels to say goodbye, after StopTimeout if need be.
const tunnelGrace = 2 * time.Second

// Server runs a list of listeners and stops them in order (P16):
//
//	not ready, answers say "Connection: close"
//	→ drain delay, everything is served as before
//	→ no new connections; those in the kernel's queue are accepted
//	→ a request on its way over an idle or new connection is waited for (settle)
//	→ requests in flight finish, StopTimeout at most, counted from the end of the drain delay
//	→ tunnels closed → sign-ins that nobody waits for ended
//	→ what came of refreshes of grants is kept, and sign-outs that are not written yet are, in
//	  what is left of StopTimeout
//	→ the listeners that are Last closed
//
// Promised is: a request that reached this machine over a connection that we
// accepted, before we closed that connection, is answered, if the answer takes no
// longer than StopTimeout. A client that dials later is refused. Two things
// cannot be promised. HTTP/1 closes an idle connection without warning
// (RFC 9112 §9.5): a request sent while our FIN is on its way is lost. That FIN
// comes after at least half a second in which nothing came, or right behind an
// answer that had begun before the stop, so could not say that it is the last,
// and outlived the grace. HTTP/2 tells in its GOAWAY which requests were not
// looked at; clients repeat them on another connection, and need somebody there
// who listens (RFC 9113 §8.7).
type Server struct {
	Listeners   []*Listener
	Front       Drainable // nil: knows nothing of stopping
	DrainDelay  time.Duration
	StopTimeout time.Duration
	Log         *slog.Logger
	Ready       *atomic.Bool

	mu sync.Mutex // guards DrainDelay and StopTimeout once Run was called
}

// SetStop changes how the server stops, as long as it has not begun to.
func (s *Server) SetStop(drainDelay, timeout time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.DrainDelay, s.StopTimeout = drainDelay, timeout
}

// Open opens every listener, or none: what is wrong with an address is said
// before anything is served.
func (s *Server) Open(ctx context.Context) error {
	for _, l := range s.Listeners {
		if err := l.open(ctx, s.Log); err != nil {
			for _, opened := range s.Listeners {
				if opened.on != nil {
					_ = opened.on.Close()
				}
			}
			return err
		}
	}
	return nil
}

// Run serves until ctx is done. Open comes first.
func (s *Server) Run(ctx context.Context) error {
	first := make(chan error, len(s.Listeners)) // the errors with which listeners end, in their order in time
	for _, l := range s.Listeners {
		l.serve(first, s.Log)
	}
	s.Ready.Store(true)
	select {
	case err := <-first:
		s.close()
		return err
	case <-ctx.Done():
	}
	return s.stop()
}

func (s *Server) stop() error {
	s.Ready.Store(false)
	if s.Front != nil {
		s.Front.Drain()
	}
	s.mu.Lock()
	drainDelay, timeout := s.DrainDelay, s.StopTimeout
	s.mu.Unlock()
	s.Log.Info("stopping", "drain_delay", drainDelay.String(), "timeout", timeout.String())
	time.Sleep(drainDelay) // the balancer needs to see "not ready"; nothing is refused meanwhile

	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var last []*Listener
	var failed errorList
	var draining sync.WaitGroup
	for _, l := range s.Listeners {
		if l.Last {
			last = append(last, l)
			continue
		}
		draining.Go(func() { failed.add(l.finish(ctx, timeout)) })
	}
	draining.Wait()
	grace, cancelGrace := context.WithTimeout(context.Background(), tunnelGrace)
	defer cancelGrace()
	if s.Front != nil {
		s.Front.CloseTunnels(grace)
		s.Front.EndSignIns(grace)
		left := ctx
		if ctx.Err() != nil {
			left = grace
		}
		s.Front.EndRefreshes(left)
		s.Front.WriteEndings(left)
	}
	for _, l := range last {
		_ = l.HTTP.Shutdown(grace)
	}
	s.close()
	s.Log.Info("stopped")
	return failed.err
}

func (s *Server) close() {
	for _, l := range s.Listeners {
		l.close()
	}
}

// errorList joins what several goroutines add.
type errorList struct {
	mu  sync.Mutex
	err error
}

func (e *errorList) add(err error) {
	e.mu.Lock()
	e.err = errors.Join(e.err, err)
	e.mu.Unlock()
}

// unreadFor is how long a connection of HTTP/2 stays open whose client reads
// nothing. Streams have limits of their own, but share one write.
const unreadFor = 2 * time.Minute

// Limits are what the configuration says of a listener for browsers and programs.
type Limits struct {
	Header    int           // bytes of a request's header
	KeepAlive time.Duration // how long a connection may wait for its next request
	H2C       bool          // also HTTP/2 without TLS, for clients that begin with it
}

// NewPublicHTTP has limits for everything a client decides (P17). There is no
// write timeout: answers may stream for hours; proxy limits how long one waits.
// ReadHeaderTimeout also bounds the TLS handshake. With h2c, HTTP/2 without TLS
// is spoken to clients that begin with it (RFC 9113 §3.3); the upgrade from
// HTTP/1.1 never is: behind a proxy that passes it on, it is a tunnel past that
// proxy's rules (RFC 9113 §3.1 has withdrawn it).
func NewPublicHTTP(h http.Handler, limits Limits, log *slog.Logger) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(limits.H2C)
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       limits.KeepAlive,
		MaxHeaderBytes:    limits.Header,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100, WriteByteTimeout: unreadFor},
		// Otherwise net/http answers "OPTIONS *" by itself, with 200.
		DisableGeneralOptionsHandler: true,
	}
}

// externalAuthHeader is the largest header of a question: that of the request that is
// asked about, and what the proxy adds. It is larger than what is answered for, because
// nginx makes a 500 of the 431 with which net/http would answer.
const externalAuthHeader = 256 << 10

// NewExternalAuthHTTP is for proxies that ask whether a request may pass. They send no
// body, so what one takes for all it has to say is bounded. They speak HTTP/1.1.
func NewExternalAuthHTTP(h http.Handler, keepAlive time.Duration, log *slog.Logger) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler: h, Protocols: protocols, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: keepAlive, MaxHeaderBytes: externalAuthHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), DisableGeneralOptionsHandler: true,
	}
}

// NewExternalAuthGRPC is for proxies that ask the same over gRPC, which is HTTP/2 with TLS
// or by prior knowledge. The times are those of a question. Their number on a connection
// is bounded; Envoy opens another connection where it wants more.
func NewExternalAuthGRPC(h http.Handler, keepAlive time.Duration, log *slog.Logger) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: h, Protocols: protocols, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: keepAlive, MaxHeaderBytes: 16 << 10,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: 250, WriteByteTimeout: 30 * time.Second},
		DisableGeneralOptionsHandler: true,
	}
}

// NewAdminHTTP is for the few who ask the admin listener, and has short limits.
func NewAdminHTTP(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
