package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// steps is a front door that notes when it is told what.
type steps struct {
	drained   atomic.Bool
	atTunnels func(ctx context.Context)
}

func (s *steps) Drain()                           { s.drained.Store(true) }
func (s *steps) CloseTunnels(ctx context.Context) { s.atTunnels(ctx) }
func (s *steps) EndSignIns(context.Context)       {}
func (s *steps) EndRefreshes(context.Context)     {}
func (s *steps) WriteEndings(context.Context)     {}

// TestP16_WhatWasAcceptedIsFinishedWhenItStops: asked to stop, Sallyport says
// "not ready", goes on serving for the drain delay, then refuses new
// connections, lets the request in flight finish, then closes tunnels, and the
// admin listener last.
func TestP16_WhatWasAcceptedIsFinishedWhenItStops(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(entered)
			<-release
		}
		_, _ = io.WriteString(w, "done")
	})
	ready, log := &atomic.Bool{}, slog.New(slog.DiscardHandler)
	public, admin := listenForTest(t), listenForTest(t)
	operators := NewAdmin(AdminOptions{Metrics: prometheus.NewRegistry(), Ready: ready})
	s := &Server{
		Listeners: []*Listener{{on: public, HTTP: NewPublicHTTP(app, usualLimits, log)},
			{on: admin, HTTP: NewAdminHTTP(operators, log), Last: true}},
		DrainDelay: 300 * time.Millisecond, StopTimeout: 10 * time.Second, Log: log, Ready: ready,
	}
	front, finished, tunnels := &steps{}, &atomic.Bool{}, &atomic.Bool{}
	s.Front = front
	front.atTunnels = func(ctx context.Context) {
		tunnels.Store(true)
		if _, bounded := ctx.Deadline(); !bounded || ctx.Err() != nil || !finished.Load() {
			t.Errorf("tunnels are closed with no time (%v) or before requests have finished", ctx.Err())
		}
		if got := testenv.StatusOf("http://" + admin.Addr().String() + "/readyz"); got != http.StatusServiceUnavailable {
			t.Errorf("while tunnels are closed /readyz answers %d", got)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()

	base, adminBase := "http://"+public.Addr().String(), "http://"+admin.Addr().String()
	testenv.Eventually(t, "ready", func() bool { return testenv.StatusOf(adminBase+"/readyz") == http.StatusOK })
	slow := make(chan string, 1)
	go func() { slow <- testenv.BodyOf(base + "/slow") }()
	<-entered

	stop()
	testenv.Eventually(t, "not ready", func() bool { return testenv.StatusOf(adminBase+"/readyz") == http.StatusServiceUnavailable })
	testenv.Eventually(t, "the front door to be told", front.drained.Load)
	if got := testenv.BodyOf(base + "/quick"); got != "done" { // the balancer may not have noticed yet
		t.Errorf("during the drain delay a new request got %q", got)
	}
	if got := testenv.StatusOf(adminBase + "/healthz"); got != http.StatusOK {
		t.Errorf("during the drain delay /healthz answers %d: a kubelet would kill it", got)
	}
	testenv.Eventually(t, "no new connections", func() bool {
		_, err := net.Dial("tcp", public.Addr().String())
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	select {
	case err := <-ended:
		t.Fatalf("it ended with a request in flight: %v", err)
	default:
	}
	finished.Store(true)
	close(release)
	if got := <-slow; got != "done" {
		t.Errorf("the request in flight got %q", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("stopping failed: %v", err)
	}
	if !tunnels.Load() {
		t.Error("tunnels were left open")
	}
}

func TestStoppingSaysWhichRequestsItCutOff(t *testing.T) {
	entered, forever := make(chan struct{}), make(chan struct{})
	app := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { close(entered); <-forever })
	l, log := listenForTest(t), slog.New(slog.DiscardHandler)
	s := &Server{Listeners: []*Listener{{on: l, HTTP: NewPublicHTTP(app, usualLimits, log)}},
		StopTimeout: 50 * time.Millisecond, Log: log, Ready: &atomic.Bool{}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	go testenv.BodyOf("http://" + l.Addr().String())
	<-entered
	stop()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "requests were still running after 50ms") {
		t.Errorf("it said %v", err)
	}
	close(forever)
}

// TestAnIdleConnectionIsKeptAsLongAsConfigured, of HTTP/1.1 and of HTTP/2. The
// two minutes that it was once are less than the 600 s of a cloud's balancer.
func TestAnIdleConnectionIsKeptAsLongAsConfigured(t *testing.T) {
	for name, says := range map[string]string{
		"HTTP/1.1": "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"HTTP/2":   http2Preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limits := limitsWith(true)
			limits.KeepAlive = time.Second
			l := listenForTest(t)
			srv := NewPublicHTTP(&echo{}, limits, slog.New(slog.DiscardHandler))
			defer srv.Close()
			go func() { _ = srv.Serve(l) }()
			c := open(t, dialPlain, l.Addr().String())
			if _, err := io.WriteString(c, says); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_ = c.SetReadDeadline(start.Add(20 * time.Second))
			if _, err := io.Copy(io.Discard, c); err != nil || time.Since(start) < 900*time.Millisecond {
				t.Errorf("it was closed after %s: %v", time.Since(start), err)
			}
		})
	}
}

func TestAListenerSaysWhatIsInTheWay(t *testing.T) {
	taken := listenForTest(t)
	defer taken.Close()
	for address, want := range map[string]string{
		taken.Addr().String(): "another program has it; stop that, or change listen.http",
		"192.0.2.1:4180":      "this machine has no such address; change listen.http",
	} {
		if _, err := Listen(t.Context(), "listen.http", address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", address, err, want)
		}
	}
}

var usualLimits = limitsWith(false)

func limitsWith(h2c bool) Limits {
	return Limits{Header: 64 << 10, KeepAlive: 620 * time.Second, H2C: h2c}
}

func listenForTest(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := Listen(t.Context(), "listen.http", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func scrape(t *testing.T, reg prometheus.Gatherer) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}
