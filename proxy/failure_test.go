package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/upstream"
)

func mustURL(tb testing.TB, raw string) *url.URL {
	tb.Helper()
	u, err := url.Parse(raw)
	testenv.Check(tb, err)
	return u
}

// roundTrip is an app made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// checkFailure: a page for people, JSON for programs, both with the request id
// that the log has.
func checkFailure(t *testing.T, s *testSite, path, cookie string, status int, title, logged string) {
	t.Helper()
	page := s.get(t, path, navigate("Cookie: "+cookie)...)
	id := page.header.Get("X-Request-Id")
	if page.status != status || !strings.Contains(page.body, "<h1>"+title+"</h1>") ||
		!strings.Contains(page.body, "Request id: <code>"+id+"</code>") {
		t.Errorf("%d, want %d %q with %s\n%s", page.status, status, title, id, page.body)
	}
	if line := s.log.event(t, id); !strings.Contains(fmt.Sprint(line["error"]), logged) || line["level"] != "ERROR" {
		t.Errorf("logged %v, want %q", line, logged)
	}
	program := s.get(t, path, "Cookie: "+cookie)
	got := jsonOf(t, program.body)
	if program.status != status || got["error"] != http.StatusText(status) ||
		got["request_id"] != program.header.Get("X-Request-Id") || got["message"] == "" {
		t.Errorf("a program gets %d %s", program.status, program.body)
	}
	if strings.Contains(page.body+program.body, s.app.Addr()) {
		t.Error("the app's address is on the page")
	}
}

func TestAnAppThatDoesNotAnswerIsOneClearPage(t *testing.T) {
	t.Parallel()
	const unreachable = "The app is not answering"
	for name, raw := range map[string]string{
		"breaks the connection": "",
		"speaks no HTTP":        "SSH-2.0-OpenSSH_9.9\r\nConnection: close\r\n\r\n",
		"two lengths": "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\nConnection: " +
			"close\r\n\r\nxx", // RFC 9112 §6.3
		"a negative length": "HTTP/1.1 200 OK\r\nContent-Length: -1\r\nConnection: close\r\n\r\nxx",
		"another encoding":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\nConnection: close\r\n\r\nxx",
		"a header of a MiB": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\nConnection: " +
			"close\r\n\r\n",
		"a header without a name": "HTTP/1.1 200 OK\r\n: x\r\nConnection: close\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestSite(t, setup{})
			s.app.Respond(func([]byte) []byte {
				if raw == "" {
					return nil
				}
				return []byte(raw)
			})
			checkFailure(t, s, "/x", s.mint(t, alice()), 502, unreachable, "")
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		testenv.Check(t, err)
		l.Close()
		s := newTestSite(t, setup{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			r.URL.Host = l.Addr().String()
			return http.DefaultTransport.RoundTrip(r)
		})})
		checkFailure(t, s, "/x", s.mint(t, alice()), 502, unreachable, "connection refused")
		if a := s.get(t, "/open", navigate()...); a.status != 502 || !strings.Contains(a.body, unreachable) {
			t.Errorf("a public route: %d", a.status)
		}
	})
	t.Run("too slow", func(t *testing.T) {
		s := newTestSite(t, setup{Header: 50 * time.Millisecond})
		release := make(chan struct{})
		t.Cleanup(func() { close(release) }) // before the app is closed, which waits for it
		s.app.Respond(func([]byte) []byte { <-release; return nil })
		checkFailure(t, s, "/x", s.mint(t, alice()), 504, "The app is taking too long", "the app did not answer in "+
			"time")
	})
}

// A response that breaks off must not look whole, to the client nor to who runs the site: its
// status is 200 by then.
func TestUpstreamDisconnectMidAnswerAbortsTheClientsAnswer(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{
		"with a length": "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nConnection: close\r\n\r\n",
		"in chunks":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n186A0\r\n",
	} {
		for _, o := range []setup{{}, {TLS: true}} {
			t.Run(fmt.Sprint(name, ", TLS ", o.TLS), func(t *testing.T) {
				s := newTestSite(t, o)
				s.app.Respond(func([]byte) []byte { return []byte(head + strings.Repeat("x", 50000)) })
				req, err := http.NewRequest("GET", s.url+"/x", nil)
				testenv.Check(t, err)
				req.Header.Set("Cookie", s.mint(t, alice()))
				res, err := s.transport.RoundTrip(req)
				testenv.Check(t, err)
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				if err == nil || len(body) >= 100000 {
					t.Errorf("%d bytes looked whole", len(body))
				}
				if line := s.log.event(t, res.Header.Get("X-Request-Id")); line["error"] != "read from the app: "+
					"unexpected EOF" || line["status"] != 200.0 || line["level"] != "ERROR" {
					t.Errorf("logged %v", line)
				}
				if got := s.counted(t, "sallyport_upstream_failures_total", "kind", "broken_off"); got != 1 {
					t.Errorf("counted %v times", got)
				}
			})
		}
	}
}

// One request's bug is that request's 500, and the process lives.
func TestAPanicIsOne500(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		switch r.URL.Path {
		case "/panic":
			panic("a bug")
		case "/late":
			return &http.Response{StatusCode: 200, Header: http.Header{},
				Body: io.NopCloser(io.MultiReader(strings.NewReader("half"), panicReader{}))}, nil
		}
		return nil, errors.New("no app")
	})})
	cookie := s.mint(t, alice())
	checkFailure(t, s, "/panic", cookie, 500, "Something went wrong", "panic: a bug")
	checkFailure(t, s, "/panic", cookie, 500, "Something went wrong", "failure_test.go") // with the place
	w := s.wire(t)
	w.dial()
	_, err := io.WriteString(w.conn, rawRequest("GET", "/late", s.host, "Cookie: "+cookie))
	testenv.Check(t, err)
	res, err := http.ReadResponse(w.in, nil)
	testenv.Check(t, err)
	if body, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("half an answer looked whole: %q", body)
	}
	if line := s.log.event(t, res.Header.Get("X-Request-Id")); !strings.Contains(fmt.Sprint(line["error"]),
		"panic: in the middle") {
		t.Errorf("logged %v", line)
	}
	checkFailure(t, s, "/x", cookie, 502, "The app is not answering", "no app")
}

type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("in the middle") }

// What a proxy need not change passes unchanged, both ways (RFC 9110 §7.7);
// hop-by-hop fields do not pass (RFC 9110 §7.6.1).
func TestWhatIsNotOursPassesUntouched(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	s.app.Respond(func(raw []byte) []byte {
		return []byte("HTTP/1.1 207 Odd\r\nContent-Length: 4\r\nContent-Encoding: gzip\r\nETag: W/\"x\"\r\nX-A: " +
			"1\r\nX-A: 2\r\nWWW-Authenticate: Basic realm=\"app\"\r\nConnection: x-hop, keep-alive\r\nX-Hop: " +
			"gone\r\nKeep-Alive: timeout=5\r\nLocation: //elsewhere/\r\nServer: app\r\nVary: Cookie\r\nX-Request-Id: " +
			"theirs\r\nCache-Control: public\r\n\r\n\x1f\x8b\x00x")
	})
	raw := rawRequest("PROPPATCH", "/x", s.host, "Cookie: a=b; "+s.mint(t, alice()), "Authorization: Basic YTpi",
		"Accept-Encoding: br", "Range: bytes=0-1", "If-None-Match: \"x\"",
		"X-A: 1", "x-b: lower", "X-A: 2", "Origin: https://evil.example", "Referer: https://evil.example/",
		"Content-Type: text/x", "Content-Length: 3", "Via: 1.0 front", "X-Request-Id: forged",
		"X-Empty:", "User-Agent: me", "Connection: keep-alive, x-hop", "X-Hop: gone", "Priority: u=1", "DNT: 1") + "abc"
	w := s.wire(t)
	a := w.do("PROPPATCH", raw)
	if a.status != 207 || a.body != "\x1f\x8b\x00x" {
		t.Errorf("%d %q", a.status, a.body)
	}
	for name, want := range map[string][]string{
		"Content-Encoding": {"gzip"}, "Etag": {`W/"x"`}, "X-A": {"1", "2"}, "Www-Authenticate": {`Basic realm="app"`},
		"Location": {"//elsewhere/"}, "Server": {"app"}, "Vary": {"Cookie"},
		"Cache-Control": {"public"}, "X-Hop": nil, "Keep-Alive": nil,
	} {
		if got := a.header[name]; !slices.Equal(got, want) {
			t.Errorf("the browser gets %s: %q, want %q", name, got, want)
		}
	}
	if id := a.header["X-Request-Id"]; len(id) != 1 || id[0] == "theirs" || id[0] == "forged" {
		t.Errorf("X-Request-Id: %q", id)
	}
	got := headerOf(s.app.Last(t))
	for name, want := range map[string][]string{
		"authorization": {"Basic YTpi"}, "accept-encoding": {"br"}, "range": {"bytes=0-1"}, "if-none-match": {`"x"`},
		"x-a": {"1", "2"}, "x-b": {"lower"},
		"origin": {"https://evil.example"}, "referer": {"https://evil.example/"}, "content-type": {"text/x"},
		"content-length": {"3"}, "via": {"1.0 front", "1.1 sallyport"}, "x-empty": {""},
		"user-agent": {"me"}, "cookie": {"a=b"}, "priority": {"u=1"}, "dnt": {"1"}, "x-hop": nil, "connection": nil,
		"x-request-id":    a.header["X-Request-Id"],
		"x-forwarded-for": {"127.0.0.1"}, "x-forwarded-host": {s.host}, "x-forwarded-proto": {"http"},
	} {
		if !slices.Equal(got[name], want) {
			t.Errorf("the app gets %s: %q, want %q", name, got[name], want)
		}
	}
	if body := testenv.Body(s.app.Last(t)); string(body) != "abc" ||
		!strings.HasPrefix(string(s.app.Last(t)), "PROPPATCH /x ") {
		t.Errorf("the app gets %q", s.app.Last(t))
	}
	// Nobody's user agent, encoding or type is made up.
	w.do("GET", rawRequest("GET", "/x", s.host, "Cookie: "+s.mint(t, bob())))
	for _, name := range []string{"user-agent", "accept-encoding", "accept", "content-type", "content-length"} {
		if got := headerOf(s.app.Last(t))[name]; got != nil {
			t.Errorf("made up for the app: %s: %q", name, got)
		}
	}
}

// Events arrive as they are sent, in both directions: no part waits for the next.
func TestAnswersStream(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Trailer", "X-Sum")
		for text := range next {
			_, _ = io.WriteString(w, text)
			_ = http.NewResponseController(w).Flush()
		}
		w.Header().Set("X-Sum", "42")
	}))
	t.Cleanup(app.Close)
	s := newTestSite(t, setup{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		r.URL.Host = mustURL(t, app.URL).Host
		return http.DefaultTransport.RoundTrip(r)
	})})
	req, err := http.NewRequest("GET", s.url+"/x", nil)
	testenv.Check(t, err)
	req.Header.Set("Cookie", s.mint(t, alice()))
	go func() { next <- "first" }()
	res, err := s.transport.RoundTrip(req)
	testenv.Check(t, err)
	defer res.Body.Close()
	buf := make([]byte, 64)
	for _, want := range []string{"first", "second"} {
		if want == "second" {
			next <- want // sent only after the first was read here
		}
		n, err := res.Body.Read(buf)
		if string(buf[:n]) != want {
			t.Fatalf("read %q, %v", buf[:n], err)
		}
	}
	close(next)
	if _, err := io.ReadAll(res.Body); err != nil || res.Trailer.Get("X-Sum") != "42" {
		t.Errorf("the end: %v, trailer %v", err, res.Trailer)
	}
}

// A request that is not idempotent is not repeated (RFC 9110 §9.2.2).
func TestAnUnsafeRequestIsSentOnce(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	cookie := s.mint(t, alice())
	s.get(t, "/warm", "Cookie: "+cookie) // the connection is in the pool
	s.app.Respond(func([]byte) []byte { return nil })
	if a := s.ask(t, "POST", "/order", "body", "Cookie: "+cookie); a.status != 502 {
		t.Errorf("answered %d", a.status)
	}
	if n := len(s.app.Requests()); n != 2 {
		t.Errorf("the app received %d requests, want the first and one order", n)
	}
}

// Who leaves in the middle of an answer, is signed out meanwhile, or breaks off an upload whose
// answer has begun, is no fault of the app.
func TestWhatTheClientEndsIsNoFailureOfTheApp(t *testing.T) {
	t.Parallel()
	began := make(chan struct{}, 10)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		testenv.Check(t, control.EnableFullDuplex())
		_, _ = io.WriteString(w, "half")
		testenv.Check(t, control.Flush())
		began <- struct{}{}
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	t.Cleanup(app.Close)
	appURL, err := url.Parse(app.URL)
	testenv.Check(t, err)
	for _, o := range []setup{{}, {TLS: true}} {
		for name, end := range map[string]func(*testSite, session.Session, context.CancelFunc, *io.PipeWriter){
			"leaves": func(_ *testSite, _ session.Session, leave context.CancelFunc, _ *io.PipeWriter) { leave() },
			"is signed out": func(s *testSite, who session.Session, _ context.CancelFunc, _ *io.PipeWriter) {
				testenv.Check(t, s.sessions.SignOut(context.Background(), headerWriter{}, who))
			},
			"breaks off": func(_ *testSite, _ session.Session, _ context.CancelFunc, body *io.PipeWriter) {
				_ = body.CloseWithError(errors.New("the disk is gone"))
			},
			"sends too much": func(_ *testSite, _ session.Session, _ context.CancelFunc, body *io.PipeWriter) {
				go func() { _, _ = body.Write(make([]byte, 100)) }()
			},
		} {
			t.Run(fmt.Sprint(name, ", TLS ", o.TLS), func(t *testing.T) {
				o := o
				o.MaxBody = 10
				if o.App, err = upstream.New(upstream.Options{URL: appURL}); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(o.App.Close)
				s := newTestSite(t, o)
				who := s.sessions.Start(alice())
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				body, write := io.Pipe()
				method, sent := "GET", io.Reader(nil)
				if name == "breaks off" || name == "sends too much" {
					method, sent = "POST", body
				}
				req, err := http.NewRequestWithContext(ctx, method, s.url+"/x", sent)
				testenv.Check(t, err)
				req.Header.Set("Cookie", s.seal(t, who))
				res, err := s.transport.RoundTrip(req)
				testenv.Check(t, err)
				defer res.Body.Close()
				receive(t, began)
				end(s, who, leave, write)
				line := s.log.event(t, res.Header.Get("X-Request-Id"))
				if n := s.counted(t, "sallyport_upstream_failures_total", "kind", "broken_off"); n != 0 ||
					line["level"] != "INFO" || line["error"] == nil ||
					(line["error"] == "the body is larger than allowed") != (name == "sends too much") {
					t.Errorf("counted %v times; logged %v", n, line)
				}
			})
		}
	}
}

// An upload that turns to garbage once the app has begun to answer is the client's fault, and the
// log says so, and not that the connection to the app was closed for it.
func TestAGarbledUploadIsNoFailureOfTheApp(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		testenv.Check(t, control.EnableFullDuplex())
		_, _ = io.WriteString(w, "half")
		testenv.Check(t, control.Flush())
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	t.Cleanup(app.Close)
	appURL, err := url.Parse(app.URL)
	testenv.Check(t, err)
	up, err := upstream.New(upstream.Options{URL: appURL})
	testenv.Check(t, err)
	t.Cleanup(up.Close)
	s := newTestSite(t, setup{App: up})
	conn, err := net.Dial("tcp", s.addr)
	testenv.Check(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "POST /open HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", s.host)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	testenv.Check(t, err)
	fmt.Fprint(conn, "zz\r\nhello\r\n")
	line := s.log.event(t, res.Header.Get("X-Request-Id"))
	if n := s.counted(t, "sallyport_upstream_failures_total", "kind", "broken_off"); n != 0 ||
		line["level"] != "INFO" || line["error"] != "the body broke off" {
		t.Errorf("counted %v times; logged %v", n, line)
	}
}
