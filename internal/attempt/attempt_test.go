package attempt

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// to returns a Transport for a peer of HTTP/2, with TLS or by prior knowledge.
func to(t *testing.T, p *testenv.HTTP2Peer) *Transport {
	base := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: p.TLS}
	if p.TLS != nil {
		base.Protocols.SetHTTP1(true)
		base.Protocols.SetHTTP2(true)
	} else {
		base.Protocols.SetUnencryptedHTTP2(true)
	}
	transport := New(base, Options{})
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// send sends one request. A body can be had again, as net/http would make use of.
func send(t *testing.T, transport *Transport, method, url, body string) (status int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, in)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", "1")
	res, err := transport.RoundTrip(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// P22: what is asserted is what the peer got, whatever it answers with.
func TestP22_WhatIsNotIdempotentReachesAnHTTP2PeerAtMostOnce(t *testing.T) {
	t.Parallel()
	const protocol, internal, refused = 1, 2, 7
	for name, tt := range map[string]struct {
		answer       func(uint32) []byte
		unsafe, safe int // requests that the peer may get
	}{
		"PROTOCOL_ERROR":             {testenv.Reset(protocol), 1, 2},
		"INTERNAL_ERROR":             {testenv.Reset(internal), 1, 1},
		"REFUSED_STREAM":             {testenv.Reset(refused), 2, 2},
		"GOAWAY below":               {testenv.GoAway(false, 0), 2, 2},
		"GOAWAY below, with a fault": {testenv.GoAway(false, protocol), 2, 2},
		"GOAWAY of later streams":    {testenv.GoAway(true, 2), 1, 1},
		"hangs up":                   {testenv.HangUp, 1, 2},
	} {
		for _, encrypted := range []bool{false, true} {
			for _, request := range []struct{ method, body string }{
				{"POST", "order"}, {"POST", ""}, {"DELETE", ""}, {"PUT", "order"}, {"GET", ""}, {"GET", "question"},
			} {
				title := fmt.Sprintf("%s, TLS %v, %s %q", name, encrypted, request.method, request.body)
				t.Run(title, func(t *testing.T) {
					t.Parallel()
					p := testenv.StartHTTP2Peer(t, encrypted, func(int) func(uint32) []byte { return tt.answer })
					transport := to(t, p)
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					defer cancel()
					go func() { // once the peer had it, there is a while to send it without end
						for p.Got() == 0 && ctx.Err() == nil {
							time.Sleep(time.Millisecond)
						}
						time.Sleep(300 * time.Millisecond)
						cancel()
					}()
					var in io.Reader
					if request.body != "" {
						in = strings.NewReader(request.body)
					}
					r, err := http.NewRequestWithContext(ctx, request.method, p.URL, in)
					if err != nil {
						t.Fatal(err)
					}
					r.Header.Set("Idempotency-Key", "1")
					if res, err := transport.RoundTrip(r); err == nil {
						t.Errorf("answered %d", res.StatusCode)
					}
					time.Sleep(50 * time.Millisecond) // for what should not come
					want := tt.unsafe
					if request.method == "GET" {
						want = tt.safe
					}
					if got := p.Got(); got > want || got == 0 {
						t.Errorf("the peer got it %d times, it may get it %d times", got, want)
					}
				})
			}
		}
	}
}

// What the peer has not looked at is sent once more, whatever the method.
func TestARequestThatThePeerRefusedIsSentOnceMore(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]func(uint32) []byte{
		"REFUSED_STREAM": testenv.Reset(7), "GOAWAY": testenv.GoAway(false, 0),
	} {
		for _, encrypted := range []bool{false, true} {
			for _, body := range []string{"", "order"} {
				for _, before := range []int{0, 1} { // requests that were answered on this connection
					t.Run(fmt.Sprintf("%s, TLS %v, %q, %d before", name, encrypted, body, before), func(t *testing.T) {
						t.Parallel()
						p := testenv.StartHTTP2Peer(t, encrypted, func(n int) func(uint32) []byte {
							if n == before+1 {
								return refusal
							}
							return testenv.Answer200
						})
						transport := to(t, p)
						for range before {
							if status, err := send(t, transport, "GET", p.URL, ""); status != 200 {
								t.Fatal(status, err)
							}
						}
						status, err := send(t, transport, "POST", p.URL, body)
						if status != 200 || p.Got() != before+2 {
							t.Errorf("answered %d, %v; the peer got %d", status, err, p.Got())
						}
					})
				}
			}
		}
	}
}

// The HTTP/1 peer answers one request of a connection, and reads the next one or
// does not before it hangs up. In the latter case its hanging up has reached this
// machine before the next request is sent. Were it still on its way, the request would
// be written, and nobody could tell whether it was read (RFC 9112 §9.3.1): then POST
// gets an error, rightly.
func TestP22_WhatIsNotIdempotentReachesAnHTTP1PeerAtMostOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		method, body string
		reads        bool
		want         int // requests that the peer reads
		status       int
	}{
		{"POST", "order", true, 1, 0}, {"POST", "", true, 1, 0},
		{"DELETE", "", true, 1, 0}, {"PUT", "order", true, 1, 0},
		{"GET", "", true, 2, 200}, {"GET", "question", true, 2, 200}, {"HEAD", "", true, 2, 200},
		{"POST", "order", false, 1, 200}, {"DELETE", "", false, 1, 200},
	} {
		for _, encrypted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %q, read: %v, TLS %v", tt.method, tt.body, tt.reads, encrypted), func(t *testing.T) {
				t.Parallel()
				var got, conns atomic.Int32
				vouched := httptest.NewTLSServer(nil)
				defer vouched.Close()
				url := listen(t, func(c net.Conn) {
					if encrypted {
						c = tls.Server(c, &tls.Config{
							Certificates: vouched.TLS.Certificates, MinVersion: tls.VersionTLS12,
						})
						defer c.Close()
					}
					first := conns.Add(1) == 1
					in := bufio.NewReader(c)
					for n := 0; ; n++ {
						if first && n == 1 && !tt.reads {
							return
						}
						r, err := http.ReadRequest(in)
						if err != nil {
							return
						}
						_, _ = io.Copy(io.Discard, r.Body)
						got.Add(1)
						if first && n == 1 {
							return
						}
						_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					}
				})
				base := &http.Transport{}
				if encrypted {
					roots := x509.NewCertPool()
					roots.AddCert(vouched.Certificate())
					base.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
					url = strings.Replace(url, "http:", "https:", 1)
				}
				transport := New(base, Options{})
				t.Cleanup(transport.CloseIdleConnections)
				if status, err := send(t, transport, "GET", url, ""); status != 200 {
					t.Fatal(status, err)
				}
				if !tt.reads {
					awaitEnd(t, transport)
				}
				status, err := send(t, transport, tt.method, url, tt.body)
				if n := int(got.Load()) - 1; status != tt.status || n != tt.want {
					t.Errorf("answered %d, %v, the peer got it %d times; want %d, %d",
						status, err, n, tt.status, tt.want)
				}
			})
		}
	}
}

// awaitEnd waits until the end of the connections that are in the pool has arrived,
// whether it has been read or waits in the socket still.
func awaitEnd(t *testing.T, transport *Transport) {
	t.Helper()
	arrived := func() bool {
		transport.mu.Lock()
		var idle, shared []*link
		for _, p := range transport.peers {
			idle, shared = append(idle, p.idle...), append(shared, p.shared...)
		}
		transport.mu.Unlock()
		for _, l := range shared { // GOAWAY ends it for what may come
			if l.Err() == nil {
				return false
			}
		}
		for _, l := range idle {
			l.wire.mu.Lock()
			pending := l.wire.pending()
			l.wire.mu.Unlock()
			if !pending && l.Err() == nil {
				return false
			}
		}
		return true
	}
	testenv.Eventually(t, "the peer hangs up", arrived)
}

// A peer that hangs up on everything is asked twice at most, also with many
// connections in the pool that would have to die one by one.
func TestASafeRequestIsSentTwiceAtMost(t *testing.T) {
	t.Parallel()
	const warm = 8
	var got atomic.Int32
	var deaf atomic.Bool
	url := listen(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			if deaf.Load() {
				got.Add(1)
				return
			}
			time.Sleep(20 * time.Millisecond)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	transport := New(&http.Transport{}, Options{})
	t.Cleanup(transport.CloseIdleConnections)
	var all sync.WaitGroup
	for range warm {
		all.Go(func() { _, _ = send(t, transport, "GET", url, "") })
	}
	all.Wait()
	deaf.Store(true)
	if status, err := send(t, transport, "GET", url, ""); err == nil || got.Load() != 2 {
		t.Errorf("answered %d, the peer got it %d times", status, got.Load())
	}
}

// One peer, many at once: every request is answered once, over every protocol.
func TestManyAtOnceShareThePool(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"http", "https", "h2c", "h2"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			var got, opened atomic.Int32
			srv, transport := serve(t, way, func(s *httptest.Server) {
				s.Config.ConnState = func(_ net.Conn, s http.ConnState) {
					if s == http.StateNew {
						opened.Add(1)
					}
				}
			}, func(w http.ResponseWriter, r *http.Request) {
				got.Add(1)
				b, _ := io.ReadAll(r.Body)
				_, _ = w.Write(b)
			})
			var all sync.WaitGroup
			const people, each = 16, 40
			for i := range people {
				all.Go(func() {
					for j := range each {
						want := fmt.Sprint(i, " ", j)
						r, _ := http.NewRequestWithContext(t.Context(), "POST", srv.URL, strings.NewReader(want))
						res, err := transport.RoundTrip(r)
						if err != nil {
							t.Error(err)
							return
						}
						b, err := io.ReadAll(res.Body)
						res.Body.Close()
						if string(b) != want || err != nil {
							t.Errorf("got %q, %v, want %q", b, err, want)
						}
					}
				})
			}
			all.Wait()
			if n := got.Load(); n != people*each {
				t.Errorf("%d requests, and the peer got %d", people*each, n)
			}
			if n := opened.Load(); n > 2*people {
				t.Errorf("%d connections for %d at once", n, people)
			}
		})
	}
}

// serve starts a server of net/http that speaks as way says, and a Transport for it.
func serve(t *testing.T, way string, change func(*httptest.Server), app http.HandlerFunc) (
	*httptest.Server, *Transport) {
	t.Helper()
	srv := httptest.NewUnstartedServer(app)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	change(srv)
	base := &http.Transport{Protocols: new(http.Protocols)}
	switch way {
	case "http":
		srv.Start()
		base.Protocols.SetHTTP1(true)
	case "h2c":
		srv.Config.Protocols = new(http.Protocols)
		srv.Config.Protocols.SetUnencryptedHTTP2(true)
		srv.Start()
		base.Protocols.SetUnencryptedHTTP2(true)
	default:
		srv.EnableHTTP2 = way == "h2"
		srv.StartTLS()
		base.TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		base.TLSClientConfig.NextProtos = nil
		base.Protocols.SetHTTP1(true)
		base.Protocols.SetHTTP2(true)
	}
	t.Cleanup(srv.Close)
	transport := New(base, Options{})
	t.Cleanup(transport.CloseIdleConnections)
	return srv, transport
}

// P22 among connections that end all the time: idle ones after a moment, others in
// the middle of a request. The orders come when the idle ones end, so that any of them
// may be lost, but none is done twice.
func TestP22_AnOrderArrivesOnceWhileConnectionsEnd(t *testing.T) {
	t.Parallel()
	const idle, rounds = 50 * time.Millisecond, 40
	for _, way := range []string{"http", "https", "h2c", "h2"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			p := takeOrders(t, way, idle, rounds)
			for round := range rounds {
				p.round(t, round, func() {
					time.Sleep(idle - 5*time.Millisecond + time.Duration(rand.IntN(10000))*time.Microsecond)
				})
			}
		})
	}
}

// When all connections have ended, the peer is ready to serve every order: those that it
// does not break off are answered. It lets a connection idle for so long that a busy
// machine has sent what it has to send by then.
func TestP22_OrdersAfterTheEndOfAllConnectionsAreAnswered(t *testing.T) {
	t.Parallel()
	const idle, rounds = 2 * time.Second, 3
	for _, way := range []string{"http", "https", "h2c", "h2"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			p := takeOrders(t, way, idle, rounds)
			for round := range rounds {
				awaitEnd(t, p.transport)
				p.round(t, round, func() {})
				if n := p.answered.Swap(0) + p.brokenOff.Swap(0); n != orderers {
					t.Errorf("round %d: %d of %d were answered or broken off", round, n, orderers)
				}
			}
		})
	}
}

// orders is a peer that takes orders by number, and breaks one in ten off.
type orders struct {
	transport           *Transport
	url                 string
	rounds              int
	got                 []atomic.Int32 // by number
	answered, brokenOff atomic.Int32
}

const orderers = 8 // send one order each in a round

func takeOrders(t *testing.T, way string, idle time.Duration, rounds int) *orders {
	t.Helper()
	p := &orders{rounds: rounds, got: make([]atomic.Int32, orderers*rounds)}
	impatient := func(s *httptest.Server) { s.Config.IdleTimeout = idle }
	srv, transport := serve(t, way, impatient, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		id, _ := strconv.Atoi(string(b))
		p.got[id].Add(1)
		if rand.IntN(10) == 0 {
			p.brokenOff.Add(1)
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(b)
	})
	p.transport, p.url = transport, srv.URL
	return p
}

// round sends an order for each orderer, after wait.
func (p *orders) round(t *testing.T, round int, wait func()) {
	var all sync.WaitGroup
	for i := range orderers {
		all.Go(func() {
			wait()
			id := i*p.rounds + round
			status, err := send(t, p.transport, "POST", p.url, strconv.Itoa(id))
			n := p.got[id].Load()
			if n > 1 || (err == nil && (n != 1 || status != 200)) {
				t.Errorf("the order arrived %d times and was answered with %d, %v", n, status, err)
			}
			if err == nil {
				p.answered.Add(1)
			}
		})
	}
	all.Wait()
}

func TestConnectionsThatAreIdleAreClosedInTime(t *testing.T) {
	t.Parallel()
	var opened, closed atomic.Int32
	url := listen(t, func(c net.Conn) {
		opened.Add(1)
		defer closed.Add(1)
		in := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	reused := -1
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if i.Reused {
			reused++
		}
	}})
	ask := func(transport *Transport) {
		r, _ := http.NewRequestWithContext(ctx, "GET", url, nil)
		if _, err := transport.RoundTrip(r); err != nil {
			t.Fatal(err)
		}
	}
	patient := New(&http.Transport{}, Options{Idle: time.Minute})
	t.Cleanup(patient.CloseIdleConnections)
	for range 3 {
		ask(patient)
	}
	if opened.Load() != 1 || reused != 1 {
		t.Errorf("%d connections, reused %d", opened.Load(), reused)
	}
	ask(New(&http.Transport{}, Options{Idle: 50 * time.Millisecond}))
	testenv.Within(t, 5*time.Second, "its connection is closed, and the other one is not",
		func() bool { return opened.Load() == 2 && closed.Load() == 1 })
}

// Surplus is neither an answer nor a reason to fail: nothing of the next request
// was written, so it goes over a connection of its own.
func TestSurplusIsNobodysAnswer(t *testing.T) {
	t.Parallel()
	const good, evil = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 599 Evil\r\nContent-Length: 0\r\n\r\n"
	url := listen(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(c, good+evil)
		}
	})
	transport := New(&http.Transport{}, Options{})
	t.Cleanup(transport.CloseIdleConnections)
	for i := range 200 {
		if status, err := send(t, transport, "POST", url, "order"); status != 200 {
			t.Fatalf("request %d: answered %d, %v", i, status, err)
		}
	}
}

// A peer that answers and hangs up while it is still being sent to has answered.
func TestAnAnswerThatArrivedIsReadWhateverBecameOfTheUpload(t *testing.T) {
	t.Parallel()
	const text = "HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large"
	url := listen(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		_, _ = io.WriteString(c, text) // and closes with bytes unread: a reset
	})
	transport := New(&http.Transport{}, Options{})
	t.Cleanup(transport.CloseIdleConnections)
	for i := range 80 {
		r, _ := http.NewRequestWithContext(t.Context(), "POST", url, io.LimitReader(endless{}, 20<<20))
		r.ContentLength = 20 << 20
		res, err := transport.RoundTrip(r)
		if err != nil {
			t.Errorf("upload %d: %v", i, err)
			continue
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 413 || string(b) != "too large" || err != nil {
			t.Errorf("upload %d: %d %q %v", i, res.StatusCode, b, err)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestACancelledRequestEndsAtOnce(t *testing.T) {
	t.Parallel()
	silent := func(uint32) []byte { return []byte{} }
	p := testenv.StartHTTP2Peer(t, false, func(int) func(uint32) []byte { return silent })
	transport := to(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, "GET", p.URL, nil)
	ended := make(chan error, 1)
	go func() {
		_, err := transport.RoundTrip(r)
		ended <- err
	}()
	testenv.Eventually(t, "the peer has the request", func() bool { return p.Got() == 1 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || p.Got() != 1 {
		t.Errorf("%v, the peer got %d", err, p.Got())
	}
}

// listen serves each connection by a function, and returns the address.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c) }()
		}
	}()
	return "http://" + l.Addr().String()
}
