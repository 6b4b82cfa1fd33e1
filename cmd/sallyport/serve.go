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

// server runs the public and the admin listener and stops them in order:
// not ready → drain delay → no new connections, requests in flight finish → closed.
type server struct {
	public, admin *http.Server
	drainDelay    time.Duration
	stopTimeout   time.Duration
	log           *slog.Logger
	ready         *atomic.Bool
}

// run serves until ctx is done. The listeners are open already: whatever can be
// wrong with an address has been said before anything was served.
func (s *server) run(ctx context.Context, public net.Listener, admin net.Listener) error {
	failed := make(chan error, 2)
	serve := func(srv *http.Server, l net.Listener) {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
	}
	go serve(s.public, public)
	if admin != nil {
		go serve(s.admin, admin)
	}
	s.ready.Store(true)
	select {
	case err := <-failed:
		s.close()
		return err
	case <-ctx.Done():
	}
	return s.stop(admin != nil)
}

func (s *server) stop(hasAdmin bool) error {
	s.ready.Store(false)
	s.log.Info("stopping", "drain_delay", s.drainDelay.String(), "timeout", s.stopTimeout.String())
	time.Sleep(s.drainDelay) // the balancer needs to see "not ready"; nothing is refused meanwhile
	ctx, cancel := context.WithTimeout(context.Background(), s.stopTimeout)
	defer cancel()
	err := s.public.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("stop: requests were still running after %s: %w", s.stopTimeout, err)
	}
	if hasAdmin { // last, so that probes and metrics answer to the end
		err = errors.Join(err, s.admin.Shutdown(ctx))
	}
	s.close()
	s.log.Info("stopped")
	return err
}

func (s *server) close() {
	_ = s.public.Close()
	_ = s.admin.Close()
}

// newPublicServer has limits for everything a client decides (P17). There is no
// write timeout: answers may stream for hours.
func newPublicServer(h http.Handler, maxHeader int, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100},
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
func listen(ctx context.Context, key, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err == nil {
		return l, nil
	}
	switch {
	case isAddrInUse(err):
		return nil, fmt.Errorf("cannot listen on %s: another program has it; stop that, or change %s", address, key)
	case isPermission(err):
		return nil, fmt.Errorf("cannot listen on %s: no permission; ports below 1024 need a privilege, or change %s", address, key)
	}
	return nil, fmt.Errorf("cannot listen on %s (%s): %w", address, key, err)
}

// withTLS wraps l for HTTP/2 and HTTP/1.1 over TLS 1.2 or later.
func withTLS(srv *http.Server, l net.Listener, cert tls.Certificate) net.Listener {
	srv.TLSConfig = &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"},
	}
	return tls.NewListener(l, srv.TLSConfig)
}
