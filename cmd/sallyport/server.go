package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// drainable is the front door as far as stopping goes.
type drainable interface {
	// Drain asks every client to leave: each answer is the last on its connection.
	Drain()
	// CloseTunnels ends WebSockets and waits until they are gone or ctx is done.
	CloseTunnels(ctx context.Context)
	// EndSignIns ends the sign-ins whose browsers have left, and waits likewise.
	EndSignIns(ctx context.Context)
}

// tunnelGrace is for tunnels to say goodbye, after stop.timeout if need be.
const tunnelGrace = 2 * time.Second

// server runs the public and the admin listener and stops them in order (P16):
//
//	not ready, answers say "Connection: close"
//	→ drain delay, everything is served as before
//	→ no new connections; those in the kernel's queue are accepted
//	→ a request on its way over an idle or new connection is waited for (settle)
//	→ requests in flight finish, stop.timeout at most, counted from the end of the drain delay
//	→ tunnels closed → sign-ins that nobody waits for ended → admin closed
//
// Promised is: a request that reached this machine over a connection that we
// accepted, before we closed that connection, is answered, if the answer takes no
// longer than stop.timeout. A client that dials later is refused. Two things
// cannot be promised. HTTP/1 closes an idle connection without warning
// (RFC 9112 §9.5): a request sent while our FIN is on its way is lost. That FIN
// comes after at least half a second in which nothing came, or right behind an
// answer that had begun before the stop, so could not say that it is the last,
// and outlived the grace. HTTP/2 tells in its GOAWAY which requests were not
// looked at; clients repeat them on another connection, and need somebody there
// who listens (RFC 9113 §8.7).
type server struct {
	public, admin *http.Server
	http2         *http2OverTLS // nil without TLS
	front         drainable     // nil: knows nothing of stopping
	drainDelay    time.Duration
	stopTimeout   time.Duration
	log           *slog.Logger
	ready         *atomic.Bool
}

// run serves until ctx is done. The listeners are open already: whatever can be
// wrong with an address has been said before anything was served.
func (s *server) run(ctx context.Context, public *net.TCPListener, admin net.Listener) error {
	gate := newGate(public)
	var front net.Listener = gate
	s.public.ConnState = gate.note
	switch {
	case s.public.TLSConfig != nil:
		front = tls.NewListener(gate, s.public.TLSConfig)
		s.http2 = newHTTP2OverTLS(s.public, gate.Addr())
	case s.public.Protocols.UnencryptedHTTP2():
		gate.blockLimit = s.public.ReadHeaderTimeout
	}
	publicEnded, adminEnded := serveAsync(s.public, front), make(<-chan error)
	if admin != nil {
		adminEnded = serveAsync(s.admin, admin)
	}
	s.ready.Store(true)
	select {
	case err := <-publicEnded:
		s.close()
		return err
	case err := <-adminEnded:
		s.close()
		return err
	case <-ctx.Done():
	}
	return s.stop(gate, publicEnded)
}

// serveAsync tells why srv stopped serving l; nil if it was asked to.
func serveAsync(srv *http.Server, l net.Listener) <-chan error {
	ended := make(chan error, 1)
	go func() {
		err := srv.Serve(l)
		if errors.Is(err, http.ErrServerClosed) {
			ended <- nil
			return
		}
		ended <- fmt.Errorf("serve %s: %w", l.Addr(), err)
	}()
	return ended
}

func (s *server) stop(gate *gate, publicEnded <-chan error) error {
	s.ready.Store(false)
	if s.front != nil {
		s.front.Drain()
	}
	s.log.Info("stopping", "drain_delay", s.drainDelay.String(), "timeout", s.stopTimeout.String())
	time.Sleep(s.drainDelay) // the balancer needs to see "not ready"; nothing is refused meanwhile

	ctx, cancel := context.WithTimeout(context.Background(), s.stopTimeout)
	defer cancel()
	gate.finish()
	err := <-publicEnded
	gate.settle(ctx)
	if late := s.public.Shutdown(ctx); late != nil {
		err = errors.Join(err, fmt.Errorf("stop: requests were still running after %s: %w", s.stopTimeout, late))
	}
	last, cancelLast := context.WithTimeout(context.Background(), tunnelGrace)
	defer cancelLast()
	if s.front != nil {
		s.front.CloseTunnels(last)
		s.front.EndSignIns(last)
	}
	_ = s.admin.Shutdown(last) // last, so that probes and metrics answer to the end
	s.close()
	s.log.Info("stopped")
	return err
}

func (s *server) close() {
	_ = s.public.Close()
	if s.http2 != nil {
		_ = s.http2.Close()
	}
	_ = s.admin.Close()
}

// unreadFor is how long a connection of HTTP/2 stays open whose client reads
// nothing. Streams have limits of their own, but share one write.
const unreadFor = 2 * time.Minute

// publicLimits are what the configuration says of the public listener.
type publicLimits struct {
	header    int           // bytes of a request's header
	keepAlive time.Duration // how long a connection may wait for its next request
	h2c       bool
}

// newPublicServer has limits for everything a client decides (P17). There is no
// write timeout: answers may stream for hours; proxy limits how long one waits.
// ReadHeaderTimeout also bounds the TLS handshake. With h2c, HTTP/2 without TLS
// is spoken to clients that begin with it (RFC 9113 §3.3); the upgrade from
// HTTP/1.1 never is: it smuggles requests past whoever stands in front
// (security.md 115).
func newPublicServer(h http.Handler, limits publicLimits, log *slog.Logger) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(limits.h2c)
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       limits.keepAlive,
		MaxHeaderBytes:    limits.header,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100, WriteByteTimeout: unreadFor},
		// Otherwise net/http answers "OPTIONS *" by itself, with 200.
		DisableGeneralOptionsHandler: true,
	}
}

func newAdminServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// listen opens an address and says, in words, what is in the way.
func listen(ctx context.Context, key, address string) (*net.TCPListener, error) {
	lc := &net.ListenConfig{}
	lc.SetMultipathTCP(false) // its sockets take no filter (holdOff), and one path is enough here
	l, err := lc.Listen(ctx, "tcp", address)
	if err == nil {
		return l.(*net.TCPListener), nil
	}
	switch {
	case isAddrInUse(err):
		return nil, fmt.Errorf("cannot listen on %s: another program has it; stop that, or change %s", address, key)
	case isPermission(err):
		return nil, fmt.Errorf("cannot listen on %s: no permission; ports below 1024 need a privilege, or change %s",
			address, key)
	}
	return nil, fmt.Errorf("cannot listen on %s (%s): %w", address, key, err)
}
