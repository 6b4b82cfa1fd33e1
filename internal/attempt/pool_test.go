package attempt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// A peer that takes one stream at a time gets as many connections as it may have, and
// every request gets its answer.
func TestP17_APeerThatTakesOneStreamAtATimeGetsABoundedNumberOfConnections(t *testing.T) {
	t.Parallel()
	const most, people, each = 4, 24, 4
	for _, way := range []string{"h2c", "h2"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			var got, opened atomic.Int32
			srv, transport := serve(t, way, func(s *httptest.Server) {
				s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1}
				s.Config.ConnState = func(_ net.Conn, s http.ConnState) {
					if s == http.StateNew {
						opened.Add(1)
					}
				}
			}, func(http.ResponseWriter, *http.Request) {
				got.Add(1)
				time.Sleep(time.Millisecond)
			})
			transport.maxIdle, transport.wait = most, time.Minute
			if status, err := send(t, transport, "GET", srv.URL, ""); status != 200 {
				t.Fatal(status, err)
			}
			var all sync.WaitGroup
			for range people {
				all.Go(func() {
					for range each {
						if status, err := send(t, transport, "POST", srv.URL, "order"); status != 200 {
							t.Errorf("answered %d, %v", status, err)
						}
					}
				})
			}
			all.Wait()
			if n := got.Load(); n != people*each+1 {
				t.Errorf("%d requests, and the peer got %d", people*each+1, n)
			}
			if n := opened.Load(); n > most {
				t.Errorf("%d connections, and %d are allowed", n, most)
			}
		})
	}
}

// A peer that takes no stream gets one connection at a time, and those who wait are
// told in time.
func TestP17_APeerThatTakesNoStreamHoldsNobodyForEver(t *testing.T) {
	t.Parallel()
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", encrypted), func(t *testing.T) {
			t.Parallel()
			p := testenv.StartHTTP2PeerWithLimit(t, encrypted, 0,
				func(int) func(uint32) []byte { return testenv.Answer200 })
			transport := to(t, p)
			for _, people := range []int{1, 20} {
				// On a busy machine the first may have given up before the last one comes,
				// who then opens a connection by right: so they try again, and wait longer.
				for transport.wait = 250 * time.Millisecond; ; transport.wait *= 2 {
					before := p.Connections()
					if together := waitInVain(t, transport, p.URL, people); !together && people > 1 {
						continue
					}
					if n := p.Connections(); n != before+1 || p.Got() != 0 {
						t.Errorf("%d waited together: %d connections, %d requests", people, n-before, p.Got())
					}
					break
				}
			}
		})
	}
}

// waitInVain sends as many requests as there are people at once, and reports whether all
// of them waited before the first one gave up.
func waitInVain(t *testing.T, transport *Transport, target string, people int) (together bool) {
	t.Helper()
	address, err := url.Parse(target)
	testenv.Check(t, err)
	known, err := transport.peer(address)
	testenv.Check(t, err)
	began, ended := time.Now(), make(chan struct{})
	var all sync.WaitGroup
	for range people {
		all.Go(func() {
			if status, err := send(t, transport, "POST", target, "order"); !errors.Is(err, ErrNoStream) {
				t.Errorf("answered %d, %v", status, err)
			}
		})
	}
	go func() { all.Wait(); close(ended) }()
	for {
		transport.mu.Lock()
		together = together || known.waiting == people && known.gaveUp.Before(began)
		transport.mu.Unlock()
		select {
		case <-ended:
			return together
		case <-time.After(time.Millisecond):
		}
	}
}

// Who has waited while others waited in vain opens no connection in place of the one
// that those took away, even if it looked at the peer a moment before they did.
func TestP17_WhoWaitedWithOthersOpensNothingAfterThem(t *testing.T) {
	t.Parallel()
	p := testenv.StartHTTP2PeerWithLimit(t, false, 0, func(int) func(uint32) []byte { return testenv.Answer200 })
	transport := to(t, p)
	transport.wait = 50 * time.Millisecond
	began := time.Now()
	if _, err := send(t, transport, "GET", p.URL, ""); !errors.Is(err, ErrNoStream) { // and waits in vain
		t.Fatal(err)
	}
	address, err := url.Parse(p.URL)
	testenv.Check(t, err)
	known, err := transport.peer(address)
	testenv.Check(t, err)
	if transport.open(t.Context(), known, began) {
		t.Error("who has waited meanwhile opens another connection")
	}
	if !transport.open(t.Context(), known, time.Now()) {
		t.Error("the next request opens none")
	}
}

// A peer that ends each connection as soon as it has announced its settings is not
// connected to without end.
func TestP17_APeerThatEndsEachConnectionIsNotConnectedToWithoutEnd(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	url := listen(t, func(c net.Conn) {
		opened.Add(1)
		_, _ = c.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // SETTINGS
		_, _ = io.ReadFull(c, make([]byte, 100))          // the preface, and the answer to them
		_, _ = c.Write([]byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	})
	base := &http.Transport{Protocols: new(http.Protocols)}
	base.Protocols.SetUnencryptedHTTP2(true)
	transport := New(base, Options{StreamWait: 300 * time.Millisecond})
	t.Cleanup(transport.CloseIdleConnections)
	status, err := send(t, transport, "GET", url, "")
	if n := opened.Load(); err == nil || n < 1 || n > 2*maxOpens {
		t.Errorf("answered %d, %v; %d connections", status, err, n)
	}
}

// A connection to which nobody could give a request is not kept for ever.
func TestAConnectionThatTakesNoStreamIsClosed(t *testing.T) {
	t.Parallel()
	p := testenv.StartHTTP2PeerWithLimit(t, false, 0, func(int) func(uint32) []byte { return testenv.Answer200 })
	transport := to(t, p)
	transport.wait, transport.idle = 50*time.Millisecond, 50*time.Millisecond
	if _, err := send(t, transport, "GET", p.URL, ""); !errors.Is(err, ErrNoStream) {
		t.Fatal(err)
	}
	testenv.Eventually(t, "all connections are closed", func() bool { return p.Open() == 0 })
}

// An app that spoke HTTP/2 and was replaced by one that does not: each request opens
// its own connection at once, and none waits for the handshake of another one.
func TestAnAppThatSpeaksHTTP2NoLongerIsServedAsAnyOther(t *testing.T) {
	t.Parallel()
	const people = 4
	var old atomic.Bool // HTTP/1 only
	var handshakes atomic.Int32
	together := make(chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	srv.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if !old.Load() {
			return nil, nil
		}
		switch n := handshakes.Add(1); {
		case n == 1: // of the first request after the change
		case n == people+1:
			close(together)
		default:
			select {
			case <-together:
			case <-time.After(2 * time.Second):
				t.Error("the handshakes are made one after the other")
			}
		}
		one := srv.TLS.Clone()
		one.GetConfigForClient, one.NextProtos = nil, []string{"http/1.1"}
		return one, nil
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	base := &http.Transport{Protocols: new(http.Protocols)}
	base.Protocols.SetHTTP1(true)
	base.Protocols.SetHTTP2(true)
	base.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	transport := New(base, Options{})
	t.Cleanup(transport.CloseIdleConnections)
	if status, err := send(t, transport, "GET", srv.URL, ""); status != 200 {
		t.Fatal(status, err)
	}
	old.Store(true)
	transport.CloseIdleConnections()
	if status, err := send(t, transport, "GET", srv.URL, ""); status != 200 {
		t.Fatal(status, err)
	}
	transport.CloseIdleConnections()
	var all sync.WaitGroup
	for range people {
		all.Go(func() {
			if status, err := send(t, transport, "POST", srv.URL, "order"); status != 200 {
				t.Errorf("answered %d, %v", status, err)
			}
		})
	}
	all.Wait()
	if n := handshakes.Load(); n != people+1 {
		t.Errorf("%d connections for %d requests", n, people+1)
	}
}

// net/http tells that a connection is free again, and is interrupted right after the
// pool has taken it back: another request uses it meanwhile. The connection is in the
// pool afterwards: it serves the next request, and is closed with the others.
func TestNoConnectionIsLostWhereTheProcessorIsTakenAway(t *testing.T) {
	t.Parallel()
	var opened, open atomic.Int32
	srv, transport := serve(t, "http", func(s *httptest.Server) {
		s.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				opened.Add(1)
				open.Add(1)
			case http.StateClosed:
				open.Add(-1)
			}
		}
	}, func(http.ResponseWriter, *http.Request) {})
	request := func() {
		if status, err := send(t, transport, "GET", srv.URL, ""); status != 200 {
			t.Error(status, err)
		}
	}
	request()
	transport.mu.Lock()
	var l *link
	for _, p := range transport.peers {
		l = p.idle[0]
	}
	transport.mu.Unlock()
	interrupted, resumed, refused := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var once sync.Once
	l.SetStateHook(func(*http.ClientConn) {
		transport.changed(l)
		once.Do(func() { close(interrupted); <-resumed })
	})
	go func() {
		defer close(refused)
		r, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
		r.Header["X"] = []string{"a\nb"}
		if _, err := transport.RoundTrip(r); err == nil {
			t.Error("a header of two lines was sent")
		}
	}()
	<-interrupted
	request()
	close(resumed)
	<-refused
	request()
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for one request at a time", n)
	}
	transport.CloseIdleConnections()
	testenv.Eventually(t, "all connections are closed", func() bool { return open.Load() == 0 })
}

// net/http calls a connection free a moment before it hands an answer without a body over. Who
// gives up in that moment ends the connection, and nobody else's request is on it yet.
func TestWhoGivesUpEndsNobodyElsesRequest(t *testing.T) {
	t.Parallel()
	var arrived atomic.Int32
	srv, transport := serve(t, "http", func(*httptest.Server) {}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stays" {
			arrived.Add(1)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	post := func(ctx context.Context, path string) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+path, strings.NewReader("x"))
		testenv.Check(t, err)
		res, err := transport.RoundTrip(r)
		if err == nil {
			err = res.Body.Close()
		}
		return err
	}
	testenv.Check(t, post(t.Context(), "/first"))
	idle := func() (n int, l *link) {
		transport.mu.Lock()
		defer transport.mu.Unlock()
		for _, p := range transport.peers {
			for _, l = range p.idle {
				n++
			}
		}
		return n, l
	}
	_, l := idle()
	free, resumed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	l.SetStateHook(func(*http.ClientConn) {
		transport.changed(l)
		once.Do(func() { close(free); <-resumed })
	})
	leaving, leave := context.WithCancel(t.Context())
	left, stayed := make(chan error, 1), make(chan error, 1)
	go func() { left <- post(leaving, "/leaves") }()
	<-free
	go func() { stayed <- post(t.Context(), "/stays") }()
	testenv.Eventually(t, "the other request has found the connection", func() bool { n, _ := idle(); return n == 0 })
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up: %v", err)
	}
	close(resumed)
	if err := <-stayed; err != nil || arrived.Load() != 1 {
		t.Errorf("who stays: %v, and %d requests arrived", err, arrived.Load())
	}
}

// Who reads an answer holds it back: of one that nobody reads, a bounded part is in memory.
// golang/go #56315 and envoy #6727 are about proxies that kept megabytes for each.
func TestP17_OfAnAnswerThatNobodyReadsLittleIsKept(t *testing.T) {
	t.Parallel()
	const piece = 64 << 10
	for _, way := range []string{"h2c", "h2"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int64
			srv, transport := serve(t, way, func(*httptest.Server) {}, func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					n, err := w.Write(make([]byte, piece))
					if err != nil {
						return
					}
					sent.Add(int64(n))
				}
			})
			r, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
			testenv.Check(t, err)
			res, err := transport.RoundTrip(r)
			testenv.Check(t, err)
			defer res.Body.Close()
			testenv.Eventually(t, "as much is sent as is taken in", func() bool {
				return sent.Load() >= unreadPerStream-piece
			})
			for range 20 { // it stays so
				time.Sleep(5 * time.Millisecond)
				if n := sent.Load(); n > unreadPerStream+2*piece {
					t.Fatalf("%d KiB were sent to nobody", n>>10)
				}
			}
		})
	}
}
