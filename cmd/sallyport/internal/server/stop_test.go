package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// echo is a front door that answers with what it was sent.
type echo struct {
	draining, tunnelsClosed atomic.Bool
	answered                atomic.Int64
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
	e.answered.Add(1)
}

func (e *echo) Drain()                       { e.draining.Store(true) }
func (e *echo) CloseTunnels(context.Context) { e.tunnelsClosed.Store(true) }
func (e *echo) EndSignIns(context.Context)   {}
func (e *echo) EndRefreshes(context.Context) {}
func (e *echo) WriteEndings(context.Context) {}

// stoppable is a server in front of an echo, and how to stop it.
type stoppable struct {
	*echo
	server  *Server
	address string
	stop    context.CancelFunc
	ended   chan error
}

func runForTest(t *testing.T, l streamListener, pair *tls.Certificate, drainDelay time.Duration) *stoppable {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s := &stoppable{echo: &echo{}, address: l.Addr().String(), ended: make(chan error, 1)}
	srv := &Server{Listeners: []*Listener{{on: l, HTTP: NewPublicHTTP(s.echo, limitsWith(true), log),
		Lane: testenv.InLane()}},
		Front: s.echo, DrainDelay: drainDelay, StopTimeout: 20 * time.Second, Log: log, Ready: &atomic.Bool{}}
	s.server = srv
	if pair != nil {
		c := &Certificate{}
		c.current.Store(pair)
		srv.Listeners[0].HTTP.TLSConfig = c.Config()
	}
	ctx, stop := context.WithCancel(t.Context())
	s.stop = stop
	go func() { s.ended <- srv.Run(ctx) }()
	return s
}

func (s *stoppable) wait(t *testing.T) {
	t.Helper()
	select {
	case err := <-s.ended:
		if err != nil {
			t.Errorf("stopping failed: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not stop")
	}
	if !s.tunnelsClosed.Load() {
		t.Error("tunnels were left open")
	}
}

// TestP16_UnderLoadNothingAcceptedIsDropped: clients of every kind ask as fast as
// they can while Sallyport stops. Each request over a connection that was neither
// told to close nor refused must be answered. The requests are POSTs with clients
// that repeat nothing, but for those of HTTP/2 that GOAWAY hands back.
func TestP16_UnderLoadNothingAcceptedIsDropped(t *testing.T) {
	if holdOff(listenForTest(t)) != nil {
		t.Skip("this system cannot hold off new connections, so one may be reset as the listener closes")
	}
	pair := testenv.NewKeyPair(t, "load.example", time.Now().Add(time.Hour)).TLS(t)
	for _, drain := range []time.Duration{0, 300 * time.Millisecond} {
		for name, tt := range map[string]struct {
			tls    *tls.Certificate
			client func(address string) func(string) error
		}{
			"HTTP/1.1 keep-alive":         {nil, keepAlive(nil)},
			"HTTP/1.1 keep-alive on TLS":  {pair, keepAlive(overTLS("http/1.1"))},
			"a connection per request":    {nil, once(nil)},
			"a TLS handshake per request": {pair, once(overTLS("http/1.1"))},
			"HTTP/2":                      {pair, http2Client(true)},
			"HTTP/2 without TLS":          {nil, http2Client(false)},
		} {
			t.Run(fmt.Sprintf("%s, drain delay %s", name, drain), func(t *testing.T) {
				t.Parallel()
				s := runForTest(t, listenForTest(t), tt.tls, drain)
				var asked, told atomic.Int64
				var clients sync.WaitGroup
				for i := range 8 {
					clients.Go(func() {
						ask := tt.client(s.address)
						for n := 0; ; n++ {
							text := fmt.Sprintf("%d of %d", n, i)
							err := ask(text)
							if errors.Is(err, syscall.ECONNREFUSED) {
								return
							}
							if err != nil {
								t.Errorf("request %s: %v", text, err)
								return
							}
							if asked.Add(1); s.draining.Load() {
								told.Add(1)
							}
						}
					})
				}
				testenv.Eventually(t, "load", func() bool { return asked.Load() > 50 })
				s.stop()
				s.wait(t)
				clients.Wait()
				if got, want := s.answered.Load(), asked.Load(); got != want {
					t.Errorf("%d requests were answered, %d answers arrived", got, want)
				}
				t.Logf("%d requests, %d of them while stopping", asked.Load(), told.Load())
			})
		}
	}
}

type dialFunc func(address string) (net.Conn, error)

func dialPlain(address string) (net.Conn, error) {
	return net.DialTimeout("tcp", address, 5*time.Second)
}

func overTLS(protocol string) dialFunc {
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}
	return func(address string) (net.Conn, error) {
		c, err := dialPlain(address)
		if err != nil {
			return nil, err
		}
		over := tls.Client(c, config)
		if err := over.Handshake(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		return over, nil
	}
}

// keepAlive asks over one connection as long as it may.
func keepAlive(dial dialFunc) func(string) func(string) error {
	if dial == nil {
		dial = dialPlain
	}
	return func(address string) func(string) error {
		var c net.Conn
		var in *bufio.Reader
		return func(text string) (err error) {
			if c == nil {
				if c, err = dial(address); err != nil {
					return err
				}
				in = bufio.NewReader(c)
			}
			last, err := exchange(c, in, text, "")
			if last || err != nil {
				_ = c.Close()
				c = nil
			}
			return err
		}
	}
}

// once asks over a connection of its own each time.
func once(dial dialFunc) func(string) func(string) error {
	if dial == nil {
		dial = dialPlain
	}
	return func(address string) func(string) error {
		return func(text string) error {
			c, err := dial(address)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = exchange(c, bufio.NewReader(c), text, "Connection: close\r\n")
			return err
		}
	}
}

// exchange sends one request and tells whether its answer is the last here.
func exchange(c net.Conn, in *bufio.Reader, text, header string) (last bool, err error) {
	if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n%s", header, len(text), text); err != nil {
		return false, err
	}
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		return false, fmt.Errorf("no answer: %w", err)
	}
	got, err := io.ReadAll(res.Body)
	if err == nil && string(got) != text {
		err = fmt.Errorf("answer %q", got)
	}
	return res.Close, err
}

func http2Client(overTLS bool) func(string) func(string) error {
	return func(address string) func(string) error {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
			Protocols: &http.Protocols{}}
		transport.Protocols.SetHTTP2(overTLS)
		transport.Protocols.SetUnencryptedHTTP2(!overTLS)
		scheme := map[bool]string{true: "https://", false: "http://"}[overTLS]
		return func(text string) error {
			res, err := transport.RoundTrip(newPost(scheme+address, text))
			if err != nil {
				return err
			}
			defer res.Body.Close()
			got, err := io.ReadAll(res.Body)
			if err == nil && (string(got) != text || res.ProtoMajor != 2) {
				err = fmt.Errorf("answer %q over %s", got, res.Proto)
			}
			return err
		}
	}
}

func newPost(url, text string) *http.Request {
	r, err := http.NewRequest(http.MethodPost, url, strings.NewReader(text))
	if err != nil {
		panic(err)
	}
	return r
}

// TestP16_WhatTheKernelAcceptedIsServed: connections that wait in the listener's
// queue when it stops were accepted as far as their clients know.
func TestP16_WhatTheKernelAcceptedIsServed(t *testing.T) {
	l := listenForTest(t)
	var waiting []net.Conn
	for range 100 {
		c, err := dialPlain(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"); err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, c)
	}
	s := runForTest(t, l, nil, 0)
	s.stop() // before it has accepted anything
	for i, c := range waiting {
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if res.StatusCode != http.StatusOK {
			t.Errorf("connection %d: %s", i, res.Status)
		}
	}
	s.wait(t)
}

// TestP16_ARequestOnItsWayIsAnswered: after new connections are refused, requests
// still come over connections that are open: an idle one, one that has not said
// anything yet, and one on which half a head has come.
func TestP16_ARequestOnItsWayIsAnswered(t *testing.T) {
	pair := testenv.NewKeyPair(t, "stop.example", time.Now().Add(time.Hour)).TLS(t)
	for name, tt := range map[string]struct {
		tls  *tls.Certificate
		dial dialFunc
	}{"plain": {nil, dialPlain}, "on TLS": {pair, overTLS("http/1.1")}} {
		t.Run(name, func(t *testing.T) {
			s := runForTest(t, listenForTest(t), tt.tls, 0)
			testenv.Eventually(t, "it serves", s.server.Ready.Load)
			s.server.Listeners[0].drain.grace = headGrace // on a busy machine half a second is short
			dial := func() (net.Conn, *bufio.Reader) {
				c := open(t, tt.dial, s.address)
				return c, bufio.NewReader(c)
			}
			idle, idleIn := dial()
			if last, err := exchange(idle, idleIn, "first", ""); last || err != nil {
				t.Fatalf("last %v: %v", last, err)
			}
			fresh, freshIn := dial()
			half, halfIn := dial()
			if _, err := io.WriteString(half, "POST / HTTP/1.1\r\nHo"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond) // so that the half has been read
			s.stop()
			time.Sleep(idleGrace) // from here on a plain Shutdown has closed them all
			for name, send := range map[string]func() (bool, error){
				"idle": func() (bool, error) { return exchange(idle, idleIn, "second", "") },
				"new":  func() (bool, error) { return exchange(fresh, freshIn, "first", "") },
			} {
				if last, err := send(); !last || err != nil {
					t.Errorf("%s connection: told to close %v: %v", name, last, err)
				}
			}
			time.Sleep(idleGrace) // nobody but the half is waited for any more
			if _, err := io.WriteString(half, "st: a\r\nContent-Length: 2\r\n\r\nhi"); err != nil {
				t.Fatal(err)
			}
			if res, err := http.ReadResponse(halfIn, nil); err != nil || !res.Close || res.StatusCode != http.StatusOK {
				t.Errorf("a head that came in two parts: %v, %v", res, err)
			}
			s.wait(t)
			if _, err := dialPlain(s.address); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a client that comes later: %v", err)
			}
		})
	}
}

// TestStoppingIsNotHeldUp by connections that want nothing: idle or never used,
// on HTTP/1 or HTTP/2: their clients keep them open until it is over.
func TestStoppingIsNotHeldUp(t *testing.T) {
	pair := testenv.NewKeyPair(t, "stop.example", time.Now().Add(time.Hour)).TLS(t)
	for name, tt := range map[string]struct {
		tls *tls.Certificate
		use func(t *testing.T, address string)
	}{
		"never used": {nil, func(t *testing.T, address string) { open(t, dialPlain, address) }},
		"idle": {nil, func(t *testing.T, address string) {
			c := open(t, dialPlain, address)
			if _, err := exchange(c, bufio.NewReader(c), "x", ""); err != nil {
				t.Error(err)
			}
		}},
		"idle HTTP/2": {pair, func(t *testing.T, address string) {
			if err := http2Client(true)(address)("x"); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := runForTest(t, listenForTest(t), tt.tls, 0)
			tt.use(t, s.address)
			s.stop()
			s.wait(t)
		})
	}
}

// What is waited for, and for how long: nobody who wants nothing costs more than
// idleGrace, and who has begun a head no more than headGrace.
func TestStoppingWaitsNoLongerThanItMust(t *testing.T) {
	l := listenForTest(t)
	defer l.Close()
	newTracked := func(g *drainListener) *trackedConn {
		open(t, dialPlain, l.Addr().String())
		c, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return &trackedConn{streamConn: c, listener: g}
	}
	for name, tt := range map[string]struct {
		become func(*trackedConn)
		want   time.Duration
	}{
		"nobody":               {nil, 0},
		"never used":           {func(*trackedConn) {}, idleGrace},
		"idle":                 {func(v *trackedConn) { v.known.Store(true) }, idleGrace},
		"HTTP/2":               {func(v *trackedConn) { v.http2.Store(true) }, 0},
		"a request is running": {func(v *trackedConn) { v.phase.Store(served) }, 0},
		"half a head":          {func(v *trackedConn) { v.phase.Store(speaks) }, headGrace},
	} {
		t.Run(name, func(t *testing.T) {
			g := newDrainListener(nil)
			if tt.become != nil {
				v := newTracked(g)
				tt.become(v)
				g.tracked[v] = struct{}{}
			}
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				g.settle(t.Context())
				if took := time.Since(began); took != tt.want {
					t.Errorf("it took %s, want %s", took, tt.want)
				}
			})
		})
	}
}

func open(t *testing.T, dial dialFunc, address string) net.Conn {
	t.Helper()
	c, err := dial(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// tracked is a connection that a drainListener has accepted, and its client.
func tracked(t *testing.T) (c *trackedConn, client net.Conn) {
	t.Helper()
	l := listenForTest(t)
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	testenv.Check(t, err)
	t.Cleanup(func() { _ = client.Close() })
	accepted, err := newDrainListener(l).Accept()
	testenv.Check(t, err)
	t.Cleanup(func() { _ = accepted.Close() })
	return accepted.(*trackedConn), client
}

// What is put back is read again once, and then takes no memory: a WebSocket is open for hours.
func TestWhatIsPutBackIsReadOnceAndLetGo(t *testing.T) {
	c, client := tracked(t)
	c.Unread([]byte("read before, "), time.Time{})
	_, err := io.WriteString(client, "and then")
	testenv.Check(t, err)
	got := make([]byte, len("read before, and then"))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "read before, and then" || c.unread != nil {
		t.Errorf("read %q, %v, and keeps %d bytes", got, err, cap(c.unread))
	}
}

// A head that has begun to arrive has no more time when it is put back, and what comes after it has.
func TestP17_TheTimeOfAHeadThatIsPutBackGoesOn(t *testing.T) {
	c, client := tracked(t)
	c.Unread([]byte("GET "), time.Now().Add(50*time.Millisecond))
	testenv.Check(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	if got, err := io.ReadAll(c); !errors.Is(err, os.ErrDeadlineExceeded) || string(got) != "GET " {
		t.Errorf("%q %v", got, err)
	}
	testenv.Check(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err := io.WriteString(client, "more")
	testenv.Check(t, err)
	if got, err := c.Read(make([]byte, 4)); err != nil || got != 4 {
		t.Errorf("%d bytes, %v", got, err)
	}
}
