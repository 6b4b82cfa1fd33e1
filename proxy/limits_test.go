package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// A header that is late, and a call that may take its time. An app of which 504 is
// wanted is held until Sallyport gives it up. How exactly the times are kept is
// TestAWatchEndsExchangesThatAreLateIdleOrOver in relay.
func TestTheWaitForAHeaderEndsInTime(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		o     setup
		lines []string
		want  int
		min   time.Duration
	}{
		{"below a second", setup{Header: 200 * time.Millisecond}, nil, 504, 200 * time.Millisecond},
		{"above a second", setup{Header: 1300 * time.Millisecond}, nil, 504, 1300 * time.Millisecond},
		{"gRPC waits on", setup{Header: 200 * time.Millisecond}, []string{"Content-Type: application/grpc+proto"}, 200,
			700 * time.Millisecond},
		{"gRPC may not be idle", setup{Header: 100 * time.Millisecond, Idle: 300 * time.Millisecond},
			[]string{"Content-Type: application/grpc"}, 504, 300 * time.Millisecond},
		{"something like gRPC", setup{Header: 200 * time.Millisecond}, []string{"Content-Type: application/gr"}, 504,
			200 * time.Millisecond},
		{"an interim 102 moves nothing", setup{Header: 400 * time.Millisecond}, []string{"X-Interim: 102"}, 504,
			400 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.o.App = playApp(t, func(p *appPeer) {
				h := p.head()
				if strings.Contains(h, "X-Interim") {
					p.say("HTTP/1.1 102 Processing\r\n\r\n")
				}
				if tt.want == 504 {
					p.awaitEnd()
					return
				}
				time.Sleep(tt.min)
				p.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			})
			s := newTestSite(t, tt.o)
			begin := time.Now()
			a := s.get(t, "/x", append([]string{"Cookie: " + s.mint(t, alice())}, tt.lines...)...)
			if took := time.Since(begin); a.status != tt.want || took < tt.min {
				t.Errorf("%d after %v, want %d after %v at least", a.status, took, tt.want, tt.min)
			}
		})
	}
}

// An answer that came before the end of the upload is there: the time for it to
// come does not begin with that end.
func TestAnAnswerThatCameEarlyIsNotWaitedForAgain(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, o setup, way string) {
		t.Parallel()
		o.Header = 2 * time.Second
		o.App = serveApp(t, way, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.Copy(io.Discard, r.Body)
			for range 10 { // longer than a poll and the time for a header
				time.Sleep(300 * time.Millisecond)
				_, _ = io.WriteString(w, ".")
				_ = http.NewResponseController(w).Flush()
			}
		})
		s := newTestSite(t, o)
		p := s.stream(t, "POST", "/up", "Cookie: "+s.mint(t, alice()))
		go func() { _, _ = io.WriteString(p, "some") }()
		body := p.begun(t, soon).Body
		if got, err := readWithin(t, body, 5, soon); got != "begun" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		p.Close()
		if got, err := readWithin(t, body, -1, soon); got != strings.Repeat(".", 10) || err != nil {
			t.Errorf("after the upload: %q, %v", got, err)
		}
	})
}

// Nothing moves: an answer that has begun breaks off. Something moves, slowly:
// it does not, in either direction.
func TestAnExchangeEndsWhenNothingMoves(t *testing.T) {
	t.Parallel()
	// A client that sends a little every half a second takes longer in all than nothing may
	// move; a busy machine may be late twelve times that.
	const idle, pause, parts = 6 * time.Second, 500 * time.Millisecond, 14
	for tls, way := range map[bool]string{false: "http", true: "h2c"} { // not every way: it takes its time
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			o := setup{TLS: tls, Idle: idle}
			gone := make(chan struct{}, 1)
			o.App = serveApp(t, way, func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).EnableFullDuplex()
				if r.URL.Path == "/down" {
					_, _ = io.Copy(io.Discard, r.Body)
				}
				for range 3 {
					_, _ = io.WriteString(w, "tick")
					_ = http.NewResponseController(w).Flush()
					time.Sleep(300 * time.Millisecond)
				}
				if r.URL.Path == "/down" {
					<-r.Context().Done()
					gone <- struct{}{}
					return
				}
				n, _ := io.Copy(io.Discard, r.Body)
				fmt.Fprintf(w, "%d", n)
			})
			s := newTestSite(t, o)
			cookie := "Cookie: " + s.mint(t, alice())
			p := s.stream(t, "POST", "/down", cookie)
			p.Close()
			body, err := readWithin(t, p.begun(t, soon).Body, -1, 2*soon)
			if body != strings.Repeat("tick", 3) || err == nil {
				t.Errorf("a silent app: %q, %v", body, err)
			}
			select {
			case <-gone:
			case <-time.After(soon):
				t.Error("the app was not told")
			}
			up := s.stream(t, "POST", "/up", cookie)
			go func() {
				for range parts {
					_, _ = io.WriteString(up, "tock")
					time.Sleep(pause)
				}
				up.Close()
			}()
			want := strings.Repeat("tick", 3) + strconv.Itoa(4*parts)
			if body, err := readWithin(t, up.begun(t, soon).Body, -1, 3*soon); body != want || err != nil {
				t.Errorf("a slow client: %q, %v", body, err)
			}
		})
	}
}

// P17: too large is said before the app hears of it where the length is told,
// and else as soon as it shows; the app never takes the part for the whole.
func TestP17_ABodyIsNoLargerThanARouteTakes(t *testing.T) {
	t.Parallel()
	for _, o := range []setup{{}, {TLS: true}} {
		t.Run(fmt.Sprint("TLS ", o.TLS), func(t *testing.T) {
			o.MaxBody = 100 << 10
			s := newTestSite(t, o)
			cookie, seen := "Cookie: "+s.mint(t, alice()), 0
			for _, tt := range []struct {
				name          string
				size          int
				chunked, fits bool
			}{
				{"exactly", 100 << 10, false, true}, {"exactly, in chunks", 100 << 10, true, true},
				{"nothing, in chunks", 0, true, true},
				{"one more", 100<<10 + 1, false, false}, {"one more, in chunks", 100<<10 + 1, true, false},
				{"much more, in chunks", 8 << 20, true, false},
			} {
				t.Run(tt.name, func(t *testing.T) {
					var body io.Reader = strings.NewReader(strings.Repeat("x", tt.size))
					if tt.chunked {
						body = io.MultiReader(body)
					}
					req, err := http.NewRequest("POST", s.url+"/x", body)
					testenv.Check(t, err)
					req.Header.Set("Cookie", strings.TrimPrefix(cookie, "Cookie: "))
					a := s.send(t, req)
					fresh := s.hits(&seen)
					switch {
					case tt.fits && (a.status != 200 || len(fresh) != 1):
						t.Errorf("answered %d, %d requests at the app", a.status, len(fresh))
					case !tt.fits && (a.status != 413 || len(fresh) != 0 || !strings.Contains(a.body, "larger than "+
						"the 100 KiB that this address accepts")):
						t.Errorf("answered %d %s, %d requests at the app", a.status, a.body, len(fresh))
					case !tt.fits && !tt.chunked && len(s.app.Faults()) != 0:
						t.Errorf("the app was asked: %v", s.app.Faults())
					}
				})
			}
		})
	}
}

// Closing with bytes unread resets the connection, and what we have answered is lost with it:
// caddy #4558 and fasthttp #1348 are about a 413 that browsers show as an error of the network.
func TestWhyALargeUploadIsRefusedIsReadThoughItGoesOn(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		o       setup
		headers string
		who     bool
		want    int
	}{
		"nobody signed in, a program": {want: 401},
		"nobody signed in, a form": {headers: "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n" +
			"Accept: text/html\r\n", want: 401},
		"too large":      {o: setup{MaxBody: 1000}, who: true, want: 413},
		"no app answers": {o: setup{App: playApp(t, func(*appPeer) {})}, who: true, want: 502},
		"an app hangs up": {o: setup{App: playApp(t, func(p *appPeer) {
			p.head()
			_, _ = io.CopyN(io.Discard, p.in, 50000)
		})}, who: true, want: 502},
	} {
		for _, framing := range []string{
			"Content-Length: 2000000", "Content-Length: 200000\r\nConnection: close", "Transfer-Encoding: chunked",
		} {
			for _, secure := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, TLS %v", name, framing, secure), func(t *testing.T) {
					t.Parallel()
					tt := tt
					tt.o.TLS = secure
					s := newTestSite(t, tt.o)
					if tt.who {
						tt.headers += "Cookie: " + s.mint(t, alice()) + "\r\n"
					}
					w := s.wire(t)
					w.dialSite(s)
					_, err := io.WriteString(w.conn, "POST /x HTTP/1.1\r\nHost: "+s.host+"\r\n"+tt.headers+framing+"\r\n\r\n")
					testenv.Check(t, err)
					sendSlowly(t, w, framing)
					res, err := http.ReadResponse(w.in, nil)
					testenv.Check(t, err)
					_, err = io.ReadAll(res.Body)
					if res.StatusCode != tt.want || err != nil || !res.Close || res.ContentLength < 0 {
						t.Errorf("answered %d, %d bytes, close %v; %v", res.StatusCode, res.ContentLength, res.Close, err)
					}
				})
			}
		}
	}
}

// sendSlowly sends a body for longer than net/http waits by itself, which is half a second.
func sendSlowly(t *testing.T, w *wire, framing string) {
	t.Helper()
	piece := strings.Repeat("x", 100000)
	switch {
	case strings.HasSuffix(framing, "chunked"):
		piece = "186a0\r\n" + piece + "\r\n"
	case strings.HasSuffix(framing, "close"):
		piece = piece[:10000]
	}
	for range 20 {
		time.Sleep(50 * time.Millisecond)
		if _, err := io.WriteString(w.conn, piece); err != nil {
			t.Fatalf("the connection was reset: %v", err)
		}
	}
}

// RFC 9110 §9.2.2: what met a dead connection is sent again if nothing of it was
// sent, or if its method is safe. What a client says of its request (a key) does
// not make the app see it once.
func TestADeadPooledConnectionNeitherFailsARequestNorRepeatsAPOST(t *testing.T) {
	t.Parallel()
	// A connection takes two requests, and answers one; or it hangs up, which is told.
	newShop := func(t *testing.T) (s *testSite, cookie string, lost *atomic.Int32, hungUp chan bool) {
		lost, hungUp = &atomic.Int32{}, make(chan bool, 1)
		s = newTestSite(t, setup{App: playApp(t, func(p *appPeer) {
			h := p.head()
			readBody(p, h)
			p.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			if strings.Contains(h, " /idle ") {
				testenv.Check(t, p.Conn.(*net.TCPConn).CloseWrite())
				if !strings.HasPrefix(h, "GET ") { // whose connections are looked at before they are used
					p.awaitEnd() // the other side has noticed it; sooner, a POST may be lost with it
				}
				hungUp <- true
				return
			}
			if h = p.head(); h != "" {
				readBody(p, h)
				lost.Add(1)
			}
		})})
		return s, "Cookie: " + s.mint(t, alice()), lost, hungUp
	}
	warm := func(method, body string) string { // GET and HEAD without a body have connections of their own
		if method == "GET" && body == "" {
			return method
		}
		return "OPTIONS"
	}
	for method, body := range map[string]string{"POST": "order", "GET": ""} {
		t.Run("closed while idle, "+method, func(t *testing.T) {
			for range 20 {
				s, cookie, lost, hungUp := newShop(t)
				s.ask(t, warm(method, body), "/idle", "", cookie)
				<-hungUp
				if a := s.ask(t, method, "/x", body, cookie); a.status != 200 || lost.Load() != 0 {
					t.Fatalf("answered %d", a.status)
				}
			}
		})
	}
	for _, tt := range []struct {
		name, method, body string
		lines              []string
		want               int
	}{
		{"GET", "GET", "", nil, 200},
		{"GET with a body", "GET", "question", nil, 200},
		{"POST", "POST", "order", nil, 502},
		{"POST without a body", "POST", "", nil, 502},
		{"DELETE", "DELETE", "", nil, 502},
		{"POST with a key", "POST", "order", []string{"Idempotency-Key: 1"}, 502},
		{"DELETE with a key", "DELETE", "", []string{"X-Idempotency-Key: 1"}, 502},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, cookie, lost, _ := newShop(t)
			s.ask(t, warm(tt.method, tt.body), "/warm", "", cookie)
			a := s.ask(t, tt.method, "/x", tt.body, append(tt.lines, cookie)...)
			if a.status != tt.want || lost.Load() != 1 {
				t.Errorf("answered %d, the dead connection took %d; want %d and 1", a.status, lost.Load(), tt.want)
			}
		})
	}
}

// P22: an app of HTTP/2 gets what is not idempotent once. What it refused unread
// is sent once more, which is counted.
func TestP22_AnOrderReachesAnAppAtMostOnce(t *testing.T) {
	t.Parallel()
	const protocol, refused = 1, 7
	for _, tt := range []struct {
		name         string
		answer       func(n int) func(uint32) []byte
		method, body string
		want, status int
	}{
		{"PROTOCOL_ERROR", always(testenv.Reset(protocol)), "POST", "order", 1, 502},
		{"PROTOCOL_ERROR", always(testenv.Reset(protocol)), "POST", "", 1, 502},
		{"PROTOCOL_ERROR", always(testenv.Reset(protocol)), "DELETE", "", 1, 502},
		{"PROTOCOL_ERROR", always(testenv.Reset(protocol)), "GET", "", 2, 502},
		{"REFUSED_STREAM", always(testenv.Reset(refused)), "POST", "order", 2, 502},
		{"GOAWAY", always(testenv.GoAway(false, 0)), "POST", "", 2, 502},
		{"REFUSED_STREAM once", once(testenv.Reset(refused)), "POST", "order", 2, 200},
		{"REFUSED_STREAM once", once(testenv.Reset(refused)), "DELETE", "", 2, 200},
		{"GOAWAY once", once(testenv.GoAway(false, 0)), "POST", "order", 2, 200},
	} {
		for _, tls := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, %s %q, TLS %v", tt.name, tt.method, tt.body, tls), func(t *testing.T) {
				t.Parallel()
				app := testenv.StartHTTP2Peer(t, tls, tt.answer)
				o := upstream.Options{URL: mustURL(t, strings.Replace(app.URL, "http:", "h2c:", 1))}
				if tls {
					o.Roots = app.TLS.RootCAs
				}
				up, err := upstream.New(o)
				testenv.Check(t, err)
				t.Cleanup(up.Close)
				s := newTestSite(t, setup{App: up})
				a := s.ask(t, tt.method, "/x", tt.body, "Idempotency-Key: 1", "Cookie: "+s.mint(t, alice()))
				time.Sleep(20 * time.Millisecond) // for what should not come
				if a.status != tt.status || app.Got() != tt.want {
					t.Errorf("answered %d, the app got it %d times; want %d and %d", a.status, app.Got(), tt.status,
						tt.want)
				}
				if n := testutil.ToFloat64(s.proxy.metrics.retries.WithLabelValues("app")); int(n) != tt.want-1 {
					t.Errorf("%v retries are counted", n)
				}
			})
		}
	}
}

// An app that answers before it has read an upload, and hangs up, has answered.
func TestARefusalOfALargeUploadArrivesEachTime(t *testing.T) {
	t.Parallel()
	const size = 20 << 20
	s := newTestSite(t, setup{App: playApp(t, func(p *appPeer) {
		p.head()
		p.say("HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large") // what was not read makes the end a reset
	})})
	head := fmt.Sprintf("POST /x HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nContent-Length: %d\r\n\r\n", s.host,
		s.mint(t, alice()), size)
	for i := range 80 {
		conn, err := net.Dial("tcp", s.addr)
		testenv.Check(t, err)
		go func() {
			if _, err := io.WriteString(conn, head); err == nil {
				_, _ = io.Copy(conn, bytes.NewReader(make([]byte, size)))
			}
		}()
		_ = conn.SetReadDeadline(time.Now().Add(4 * soon))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || res.StatusCode != 413 {
			t.Errorf("upload %d: %v, %v", i, res, err)
		} else if b, err := io.ReadAll(res.Body); string(b) != "too large" || err != nil {
			t.Errorf("upload %d: %q, %v", i, b, err)
		}
		conn.Close()
	}
}

// A second attempt has what is left of the route's time, and none of its own: that
// its time began with the first shows TestASecondAttemptTakesNoTimeOfItsOwn in relay.
func TestASecondAttemptHasNoTimeOfItsOwn(t *testing.T) {
	t.Parallel()
	const limit, first = 3 * time.Second, 2 * time.Second
	app := testenv.StartHTTP2Peer(t, false, func(n int) func(uint32) []byte {
		if n > 1 {
			return func(uint32) []byte { return []byte{} } // says nothing
		}
		time.Sleep(first)
		return testenv.Reset(7)
	})
	up, err := upstream.New(upstream.Options{URL: mustURL(t, strings.Replace(app.URL, "http:", "h2c:", 1))})
	testenv.Check(t, err)
	t.Cleanup(up.Close)
	s := newTestSite(t, setup{App: up, Header: limit})
	a := s.ask(t, "POST", "/x", "order", "Cookie: "+s.mint(t, alice()))
	if a.status != 504 || app.Got() != 2 {
		t.Errorf("answered %d, the app got it %d times", a.status, app.Got())
	}
}

// The same of apps that a server library speaks for, over every way.
func TestARefusalOfALargeUploadArrivesOverEveryProtocol(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, o setup, way string) {
		o.App = serveApp(t, way, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			w.WriteHeader(413)
			_, _ = io.WriteString(w, "too large")
		})
		s := newTestSite(t, o)
		cookie := s.mint(t, alice())
		for i := range 10 {
			body := &refusable{left: 20 << 20}
			req, err := http.NewRequest("POST", s.url+"/x", body)
			testenv.Check(t, err)
			req.ContentLength = body.left
			req.Header.Set("Cookie", cookie)
			if a := s.send(t, req); a.status != 413 || a.body != "too large" {
				t.Errorf("upload %d is answered with %d %.80s", i, a.status, a.body)
			}
		}
	})
}

// refusable is a body of zeros that comes in pieces, slowly enough for an answer
// to overtake it.
type refusable struct{ left int64 }

func (r *refusable) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(100 * time.Microsecond)
	n := min(int64(len(p)), r.left)
	r.left -= n
	return int(n), nil
}

func always(frames func(uint32) []byte) func(int) func(uint32) []byte {
	return func(int) func(uint32) []byte { return frames }
}

func once(frames func(uint32) []byte) func(int) func(uint32) []byte {
	return func(n int) func(uint32) []byte {
		if n == 1 {
			return frames
		}
		return testenv.Answer200
	}
}

// readBody reads a body with a length.
func readBody(p *appPeer, head string) string {
	var n int
	for _, line := range testenv.HeaderLines([]byte(head), "Content-Length") {
		_, _ = fmt.Sscan(line, &n)
	}
	b := make([]byte, n)
	_, _ = io.ReadFull(p.in, b)
	return string(b)
}

// What is sent a second time is what was to be sent the first time.
func TestASecondAttemptSendsTheSameBody(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 4095, 4096, 4097, 100000} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprint(size, chunked), func(t *testing.T) {
				got := make(chan string, 2)
				s := newTestSite(t, setup{App: playApp(t, func(p *appPeer) {
					if p.n == 0 {
						p.head()
						p.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
						if req, err := http.ReadRequest(p.in); err == nil { // unread, it would be reset, and not closed
							_, _ = io.Copy(io.Discard, req.Body)
						}
						return
					}
					req, err := http.ReadRequest(p.in)
					if err != nil {
						return
					}
					b, err := io.ReadAll(req.Body)
					got <- fmt.Sprint(string(b), err)
					p.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				})})
				cookie := s.mint(t, alice())
				s.get(t, "/warm", "Cookie: "+cookie)
				want := strings.Repeat("abcdefg", size/7+1)[:size]
				var body io.Reader = strings.NewReader(want)
				if chunked {
					body = io.MultiReader(body)
				}
				req, err := http.NewRequest("GET", s.url+"/x", body)
				testenv.Check(t, err)
				req.Header.Set("Cookie", cookie)
				a := s.send(t, req)
				switch {
				case a.status == 200:
					if g := <-got; g != want+"<nil>" {
						t.Errorf("the app got %d bytes: %.50s", len(g), g)
					}
				case a.status != 502 || size <= replayable:
					t.Errorf("answered %d", a.status)
				}
			})
		}
	}
}

// RFC 9110 §7.6.3: Via is there so that loops are found.
func TestP17_ARouteThatLeadsBackHereEnds(t *testing.T) {
	t.Parallel()
	var s *testSite
	var rounds atomic.Int32
	s = newTestSite(t, setup{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		rounds.Add(1)
		r.URL.Host = s.addr
		return http.DefaultTransport.RoundTrip(r)
	})})
	a := s.get(t, "/open/x", navigate()...)
	if a.status != 508 || !strings.Contains(a.body, "This address leads in a circle") || rounds.Load() != maxHops {
		t.Errorf("%d after %d rounds\n%s", a.status, rounds.Load(), a.body)
	}
}

// The same where Via is kept from the app, and dropped on the way.
func TestP17_ARouteWithoutViaThatLeadsBackHereEnds(t *testing.T) {
	t.Parallel()
	var s *testSite
	var rounds atomic.Int32
	s = newTestSite(t, setup{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		rounds.Add(1)
		if via := r.Header["Via"]; via != nil {
			t.Errorf("the app is told Via: %q", via)
		}
		r.URL.Host = s.addr
		return http.DefaultTransport.RoundTrip(r)
	}), Bent: func(b *Upstream) { b.NoVia = true }})
	a := s.get(t, "/open/x", navigate("Via: 1.1 cdn")...)
	if a.status != 508 || rounds.Load() != maxHops {
		t.Errorf("%d after %d rounds\n%s", a.status, rounds.Load(), a.body)
	}
}

// P17: whatever goes wrong, nothing is left of it.
func TestP17_AStormLeavesNothingBehind(t *testing.T) {
	for _, tls := range []bool{false, true} {
		for _, way := range []string{"http", "h2c"} {
			t.Run(fmt.Sprint("TLS ", tls, " to ", way), func(t *testing.T) {
				before := runtime.NumGoroutine()
				app := serveApp(t, way, stormyApp)
				s := newTestSite(t, setup{TLS: tls, App: app, MaxBody: 1 << 20, Header: 300 * time.Millisecond,
					Idle: 2 * time.Second, Routes: wsRoutes("127.0.0.1")})
				cookie := s.mint(t, alice())
				var all sync.WaitGroup
				slots := make(chan struct{}, 20)
				for i := range 125 {
					slots <- struct{}{}
					all.Go(func() {
						defer func() { <-slots }()
						weather(s, cookie,
							rand.New(rand.NewPCG(uint64(i), 7)))
					})
				}
				all.Wait()
				s.close()
				app.Close()
				s.transport.(*http.Transport).CloseIdleConnections()
				waitForGoroutines(t, before+3) // the app's server accepts, and its provider's clients wait
				testenv.Within(t, 2*soon, "no exchange is left",
					func() bool { // net/http does not wait for the handlers of HTTP/2
						return testutil.ToFloat64(s.proxy.metrics.inFlight) == 0
					})
				if n := s.tunnels(t); n != 0 {
					t.Errorf("%v tunnels are left", n)
				}
				if text := s.log.text(t); strings.Contains(text, "panic:") {
					t.Errorf("a bug:\n%.2000s", text[strings.Index(text, "panic:"):])
				}
			})
		}
	}
}

// stormyApp behaves as its path says.
func stormyApp(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	switch r.URL.Path {
	case "/echo":
		_ = control.EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	case "/early":
		w.WriteHeader(413)
		_, _ = io.WriteString(w, "no")
	case "/dies":
		_, _ = io.WriteString(w, "half")
		_ = control.Flush()
		panic(http.ErrAbortHandler)
	case "/dies at once":
		panic(http.ErrAbortHandler)
	case "/late":
		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
		}
	case "/stream":
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1000)); err != nil || control.Flush() != nil {
				return
			}
		}
	case "/ws":
		wsApp("", echo)(w, r)
	}
}

// weather is one exchange; the client may break off anywhere.
func weather(s *testSite, cookie string, r *rand.Rand) {
	paths := []string{"/echo", "/early", "/dies", "/dies%20at%20once", "/late", "/stream", "/nothing", "/ws"}
	path := paths[r.IntN(len(paths))]
	if path == "/ws" && strings.HasPrefix(s.url, "http:") {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, handshake("/ws", s.host, "Cookie: "+cookie)+"data")
		_, _ = conn.Read(make([]byte, r.IntN(300)+1))
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(400)+1)*time.Millisecond)
	defer cancel()
	var body io.Reader
	switch r.IntN(4) {
	case 0:
		body = strings.NewReader(strings.Repeat("x", r.IntN(2<<20)))
	case 1:
		body = io.MultiReader(strings.NewReader(strings.Repeat("x", r.IntN(2<<20))))
	case 2:
		body = iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("breaks off")))
	}
	req, err := http.NewRequestWithContext(ctx, []string{"GET", "POST", "PUT"}[r.IntN(3)], s.url+path, body)
	if err != nil {
		return
	}
	req.Header.Set("Cookie", cookie)
	if r.IntN(3) == 0 {
		req.Header.Set("Expect", "100-continue")
	}
	res, err := s.transport.RoundTrip(req)
	if err != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, res.Body, int64(r.IntN(100000)))
	res.Body.Close()
}

// All requests for an app share one connection of HTTP/2. A client that asks for
// something with hints and does not read them must not hold it up.
func TestP17_AClientThatDoesNotReadHintsHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	hint := strings.Repeat("x", 60_000)
	app := serveApp(t, "h2c", func(w http.ResponseWriter, r *http.Request) {
		for range 16 * strings.Count(r.URL.Path, "/hints") {
			w.Header()["Link"] = []string{hint}
			w.WriteHeader(http.StatusEarlyHints)
		}
		_, _ = io.WriteString(w, "ok")
	})
	s := newTestSite(t, setup{App: app})
	cookie := "Cookie: " + s.mint(t, alice())
	w := s.wire(t)
	w.dial()
	testenv.Check(t, w.conn.(*net.TCPConn).SetReadBuffer(4<<10))
	_, err := fmt.Fprintf(w.conn, strings.Repeat("GET /hints HTTP/1.1\r\nHost: %[1]s\r\n%[2]s\r\n\r\n", 8), s.host,
		cookie)
	testenv.Check(t, err)
	// The hints fill the kernel's buffers; from then until bodyTimeout is over
	// their writer waits. Who waited with it would not be answered meanwhile.
	ended := regexp.MustCompile(`"path":"/hints".*"ms":([5-9]\d\d\d|\d{5})`)
	var answered [][2]time.Time // from when to when others were asking
	gaveUp := time.Now().Add(12 * bodyTimeout)
	for ; !ended.MatchString(s.log.text(t)); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(gaveUp) {
			t.Fatal("the request of the client that does not read goes on")
		}
		begin := time.Now()
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/x", nil)
		testenv.Check(t, err)
		r.Header.Set("Cookie", strings.TrimPrefix(cookie, "Cookie: "))
		if a := s.send(t, r); a.status != 200 || a.body != "ok" {
			t.Fatalf("%d %q", a.status, a.body)
		}
		answered = append(answered, [2]time.Time{begin, time.Now()})
	}
	waited, meanwhile := s.log.timeOf(t, ended).Add(-bodyTimeout), 0
	for _, a := range answered {
		if a[0].After(waited) && a[1].Before(waited.Add(bodyTimeout)) {
			meanwhile++
		}
	}
	if meanwhile < 3 {
		t.Errorf("while it waited somebody else was answered %d times", meanwhile)
	}
}

// A client that asks and asks and never reads is disconnected, though each answer is
// small enough to be out of our hands before it is sent.
func TestP17_AClientThatNeverReadsIsDisconnected(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Idle: time.Second})
	s.app.Respond(reply("", strings.Repeat("x", 3000)))
	w := s.wire(t)
	w.dial()
	testenv.Check(t, w.conn.(*net.TCPConn).SetReadBuffer(4<<10))
	// A thousand answers and more fill the buffers; on a busy machine they take their time.
	testenv.Check(t, w.conn.SetDeadline(time.Now().Add(2*time.Minute)))
	var err error
	for err == nil { // the kernel's buffers are full at some time, and later reset
		_, err = fmt.Fprintf(w.conn, "GET /open HTTP/1.1\r\nHost: %s\r\n\r\n", s.host)
	}
	if os.IsTimeout(err) {
		t.Error("the connection stays open")
	}
}

// Over HTTP/2 a client says how much it takes, and one that takes nothing ends with its
// stream, however short the answer is.
func TestP17_AnHTTP2ClientThatTakesNothingLosesItsStream(t *testing.T) {
	t.Parallel()
	for _, size := range []int{2, 3000, 30000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			s := newTestSite(t, setup{H2C: true, Idle: time.Second})
			s.app.Respond(reply("", strings.Repeat("x", size)))
			w := s.wire(t)
			w.dial()
			out := bytes.NewBufferString("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
			writeFrame(out, 4, 0, 0, []byte{0, 4, 0, 0, 0, 0}) // SETTINGS_INITIAL_WINDOW_SIZE: 0
			out.Write(testenv.Header2(true, ":method", "GET", ":scheme", "http", ":authority", s.host,
				":path", "/open")(1))
			_, err := w.conn.Write(out.Bytes())
			testenv.Check(t, err)
			for kind := byte(0); kind != 3; { // RST_STREAM
				var head [9]byte
				if _, err := io.ReadFull(w.in, head[:]); err != nil {
					t.Fatalf("the stream goes on: %v", err)
				}
				kind = head[3]
				_, err := w.in.Discard(int(head[0])<<16 | int(head[1])<<8 | int(head[2]))
				testenv.Check(t, err)
			}
		})
	}
}

// Our own answers have a limit of their own.
func TestP17_AClientThatDoesNotReadOurOwnAnswerIsDisconnected(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	for _, path := range []string{prefix + "/login", prefix + "/jwks.json", "/", "//", "/nowhere"} {
		w := &slowReader{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest("GET", s.url+path, nil)
		r.RequestURI = path
		s.proxy.ServeHTTP(w, r)
		if left := time.Until(w.deadline); left <= 0 || left > answerTimeout {
			t.Errorf("%s: %d, to be read within %v", path, w.Code, left)
		}
	}
}

// slowReader keeps the deadline that its client would miss.
type slowReader struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (w *slowReader) SetWriteDeadline(by time.Time) error { w.deadline = by; return nil }
