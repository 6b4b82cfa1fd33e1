package selftest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const sessionCookie = "__Host-sallyport=0123456789abcdef-secret"

// listen is a free address on which something listens.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func optionsFor(t *testing.T, address string) Options {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return Options{URL: u, Timeout: 20 * time.Second, Names: []string{"X-Forwarded-User", assertionHeader},
		Prefix: "/.sallyport"}
}

// runAgainst runs all cases, and returns the report as people and programs see it, too.
func runAgainst(t *testing.T, o Options) (report *Report, printed string, err error) {
	t.Helper()
	report, err = Run(context.Background(), o)
	if report == nil {
		return nil, "", err
	}
	var b bytes.Buffer
	if err := errors.Join(report.Text(&b), report.JSON(&b)); err != nil {
		t.Fatal(err)
	}
	return report, b.String(), err
}

// faults are the cases that are not ok, by name.
func faults(r *Report) map[string][]Case {
	found := map[string][]Case{}
	for _, c := range r.Cases {
		if c.Result != OK {
			found[c.Name] = append(found[c.Name], c)
		}
	}
	return found
}

// strictFront behaves as a front and Sallyport together should, for the selftest's own
// routes. What a test changes of it is a leak.
type strictFront struct {
	echo    string
	rewrite func(in, out *http.Request) // the last word on what the app gets
	admits  func(*http.Request) bool    // besides what everybody may have
	// resolve is what it makes of a path before it asks; resolved: that is what it passes on.
	resolve  func(string) string
	resolved bool
}

func (f *strictFront) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.RequestURI
	if f.resolve != nil && strings.HasPrefix(path, "/") {
		path = f.resolve(path)
		if f.resolved {
			r.RequestURI = path
		}
	}
	cookie, _ := r.Cookie("__Host-sallyport")
	signedIn := cookie != nil && cookie.String() == sessionCookie && len(r.CookiesNamed("__Host-sallyport")) == 1
	odd := strings.ContainsAny(path, `\;%#`) || strings.Contains(path, "..") || strings.Contains(path, "//") ||
		strings.Contains(path, "/./") || !strings.HasPrefix(path, "/")
	public := strings.HasPrefix(path, Area+"/public/") && r.Method == http.MethodGet
	admitted := public || signedIn || f.admits != nil && f.admits(r)
	origin := r.Header.Get("Origin")
	switch {
	case path == "/.sallyport/jwks.json":
		_, _ = io.WriteString(w, `{"keys":[]}`)
	case strings.HasPrefix(path, "/.sallyport/login"):
		http.Redirect(w, r, "https://sso.example.com/auth?secret="+r.Header.Get("Cookie"), http.StatusFound)
	case odd && f.admits == nil:
		http.Error(w, "ambiguous", http.StatusBadRequest)
	case !strings.HasPrefix(path, Area+"/"):
		http.NotFound(w, r)
	case strings.HasPrefix(path, Area+"/from/") || r.Header.Get("Upgrade") != "" && origin != "http://"+r.Host:
		http.Error(w, "denied", http.StatusForbidden)
	case admitted:
		f.pass(w, r, signedIn)
	case r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate":
		http.Redirect(w, r, "/.sallyport/login?return_to=/", http.StatusFound)
	default:
		http.Error(w, "sign in", http.StatusUnauthorized)
	}
}

// pass sends the request on, with nothing of the client's but its own cookies, and a
// handshake.
func (f *strictFront) pass(w http.ResponseWriter, r *http.Request, signedIn bool) {
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		in, out := p.In, p.Out
		out.URL = &url.URL{Scheme: "http", Host: f.echo, Opaque: r.RequestURI}
		out.Header = http.Header{"User-Agent": {""}, "X-Forwarded-For": nil}
		if v := in.Header.Get("Upgrade"); v == "websocket" {
			out.Header.Set("Upgrade", v)
			out.Header.Set("Connection", "Upgrade")
		}
		for _, c := range in.Cookies() {
			if c.Name == "app" {
				out.Header.Add("Cookie", "app="+c.Value)
			}
		}
		if signedIn {
			out.Header.Set("X-Forwarded-User", "sso:ann")
			out.Header.Set(assertionHeader, "signed."+random(8)+".text")
		}
		if f.rewrite != nil {
			f.rewrite(in, out)
		}
	}, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }}
	proxy.ServeHTTP(w, r)
}

// behind starts a front, and returns the options to test it.
func behind(t *testing.T, f *strictFront) Options {
	t.Helper()
	l := listen(t)
	f.echo = l.Addr().String()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	o := optionsFor(t, s.URL)
	o.Echo, o.Cookie = l, sessionCookie
	return o
}

func TestAFrontThatLeaksNothingIsWell(t *testing.T) {
	report, printed, err := runAgainst(t, behind(t, &strictFront{}))
	if err != nil {
		t.Fatal(err)
	}
	if found := faults(report); len(found) > 0 || report.Leaks != 0 || !report.Well() || len(report.Cases) < 150 {
		t.Errorf("%d cases, %+v", len(report.Cases), found)
	}
	last := fmt.Sprintf("\n%d cases, 0 leaks\n{", len(report.Cases))
	if !strings.Contains(printed, last) || strings.Contains(printed, "0123456789abcdef") {
		t.Errorf("the report does not end with %q, or has the cookie:\n%s", last, printed)
	}
}

// A page's script that can ask what a front asks reads what is meant for the app: its signed
// assertion, and its cookies that no script may read.
func TestAQuestionThatAnybodyCanAskIsALeak(t *testing.T) {
	for path, asked := range map[string]string{"/verify": "X-Original-Method", "/forward": "X-Forwarded-Method",
		"/envoy/": "X-Forwarded-Proto", "/oauth2/auth": "X-Original-URL"} {
		f := &strictFront{}
		o := behind(t, f)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch cookie, _ := r.Cookie("__Host-sallyport"); {
			case !strings.HasPrefix(r.RequestURI, path):
				f.ServeHTTP(w, r)
			case r.Header.Get(asked) == "":
				w.WriteHeader(http.StatusForbidden)
			case cookie == nil:
				w.WriteHeader(http.StatusUnauthorized)
			default:
				w.Header().Set("X-Sallyport-Names", "x-forwarded-user, cookie")
			}
		}))
		t.Cleanup(s.Close)
		o.URL, _ = url.Parse(s.URL)
		report, _, err := runAgainst(t, o)
		if err != nil {
			t.Fatal(err)
		}
		if found := faults(report); len(found) != 1 || len(found["question-is-not-public-signed-in"]) != 1 {
			t.Errorf("%s: %+v", path, found)
		}
	}
}

// A front may resolve a path before it asks, as Traefik does, if that is what it passes on.
// One that passes on what was sent has asked about something else.
func TestAPathIsNoLeakWhereTheFrontAsksAboutWhatItPassesOn(t *testing.T) {
	clean := func(target string) string {
		target, query, asks := strings.Cut(target, "?")
		if asks {
			return path.Clean(target) + "?" + query
		}
		return path.Clean(target)
	}
	for resolved, leaks := range map[bool]bool{true: false, false: true} {
		report, _, err := runAgainst(t, behind(t, &strictFront{resolve: clean, resolved: resolved}))
		if err != nil {
			t.Fatal(err)
		}
		if found := faults(report)["path"]; (len(found) > 0) != leaks || report.Well() == leaks {
			t.Errorf("passed on as it was asked about: %v: %+v", resolved, found)
		}
		arrived := 0
		for _, c := range report.Cases {
			if c.Name == "path" && c.Result == OK && c.Saw == "reached the app" {
				arrived++
			}
		}
		if resolved && arrived == 0 {
			t.Error("no path was resolved to one that everybody may have")
		}
	}
}

func TestWhatAFrontLetsThroughIsALeak(t *testing.T) {
	header := func(name string) func(in, out *http.Request) {
		return func(in, out *http.Request) {
			if v := in.Header[http.CanonicalHeaderKey(name)]; v != nil {
				out.Header[http.CanonicalHeaderKey(name)] = v
			}
		}
	}
	for name, tt := range map[string]struct {
		front *strictFront
		leak  string // the name of a case
		line  string // in the advice for nginx
	}{
		"an identity header": {&strictFront{rewrite: header("X-Forwarded-User")}, "spoof",
			"proxy_set_header X-Forwarded-User"},
		"an assertion": {&strictFront{rewrite: header(assertionHeader)}, "spoof",
			"proxy_set_header X-Sallyport-Assertion"},
		"another spelling": {&strictFront{rewrite: header("X_Forwarded_User")}, "spoof-underscores",
			"underscores_in_headers off;"},
		"a path for the app": {&strictFront{rewrite: header("X-Original-URL")}, "spoof",
			"proxy_set_header X-Original-URL"},
		"a client's address": {&strictFront{rewrite: header("X-Real-IP")}, "spoof", "proxy_set_header X-Real-IP"},
		"another method": {&strictFront{rewrite: header("X-HTTP-Method-Override")}, "method-override",
			"proxy_set_header X-HTTP-Method-Override"},
		"another protocol": {&strictFront{rewrite: func(in, out *http.Request) {
			header("Upgrade")(in, out)
			header("Connection")(in, out)
		}}, "other-protocol", "map $http_upgrade $connection_upgrade"},
		"Sallyport's cookies": {&strictFront{rewrite: header("Cookie")}, "session-cookie",
			"proxy_set_header Cookie $cookies;"},
		"the cookie of a session": {&strictFront{rewrite: header("Cookie")}, "signed-in",
			"proxy_set_header Cookie $cookies;"},
		"what Connection names": {&strictFront{rewrite: func(in, out *http.Request) {
			for name := range strings.SplitSeq(in.Header.Get("Connection"), ", ") {
				out.Header.Del(name)
			}
		}}, "signed-in-named-by-connection", "proxy_set_header X-Forwarded-User"},
		"everything": {&strictFront{admits: func(*http.Request) bool { return true }}, "nobody",
			"auth_request /_sallyport;"},
		"what a header names": {&strictFront{admits: func(r *http.Request) bool {
			return strings.Contains(r.Header.Get("X-Original-Url"), "/public/")
		}}, "question-header", "proxy_set_header X-Original-URL"},
		"a method that a header names": {&strictFront{admits: func(r *http.Request) bool {
			return strings.Contains(r.RequestURI, "/public/") && r.Header.Get("X-Original-Method") == "GET"
		}}, "method-of-a-rule", "proxy_set_header X-Original-Method"},
		"paths by their beginning": {&strictFront{admits: func(r *http.Request) bool {
			return strings.HasPrefix(r.RequestURI, Area+"/public")
		}}, "path", "X-Original-URL $scheme://$http_host$request_uri;"},
	} {
		t.Run(name, func(t *testing.T) {
			report, printed, err := runAgainst(t, behind(t, tt.front))
			if err != nil {
				t.Fatal(err)
			}
			var advice []string
			for _, c := range faults(report)[tt.leak] {
				if c.Result == Leak {
					advice = append(advice, c.Fix["nginx"])
				}
			}
			if !strings.Contains(strings.Join(advice, "\n"), tt.line) || report.Leaks == 0 || report.Well() {
				t.Errorf("%d leaks; of %s: %q", report.Leaks, tt.leak, advice)
			}
			if strings.Contains(printed, "0123456789abcdef") {
				t.Error("the report has the cookie")
			}
		})
	}
}

// What does not come from the echo has shown nothing, and what could not be looked at is
// said to be so.
func TestAnAnswerThatIsNotTheEchosIsNoPass(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, strings.NewReader(r.RequestURI)) // with the nonce of the request
	}))
	defer s.Close()
	o := optionsFor(t, s.URL)
	o.Echo = listen(t)
	report, printed, err := runAgainst(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if found := faults(report); len(found[controlPublic]) != 1 || report.Leaks != 0 || report.Well() ||
		len(found["page-is-sent-to-sign-in"]) != 1 {
		t.Errorf("%+v", found)
	}
	if !strings.Contains(printed, "not seen: which headers, paths and cookies reach the app (no request reached") {
		t.Errorf("it does not say what could not be seen:\n%s", printed)
	}
}

func TestWithoutAnEchoItIsSaidWhatCannotBeSeen(t *testing.T) {
	s := httptest.NewServer(&strictFront{})
	defer s.Close()
	o := optionsFor(t, s.URL+Area+"/x")
	report, printed, err := runAgainst(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if found := faults(report); len(found) > 0 || len(report.Unseen) != 4 ||
		!strings.Contains(printed, "reach the app (--echo ADDR)") {
		t.Errorf("%+v\n%s", found, printed)
	}
}

// peer answers each connection in a way of its own, and counts them.
func peer(t *testing.T, answer func(net.Conn)) (address string, count *atomic.Int64) {
	t.Helper()
	l, count := listen(t), &atomic.Int64{}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			go func() {
				defer conn.Close()
				answer(conn)
			}()
		}
	}()
	return "http://" + l.Addr().String(), count
}

func TestAFrontThatHangsEndsTheRun(t *testing.T) {
	address, count := peer(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	o := optionsFor(t, address)
	o.Timeout = 50 * time.Millisecond
	if _, err := Run(context.Background(), o); !errors.Is(err, errSilent) {
		t.Errorf("the run ended with %v", err)
	}
	if n := count.Load(); n > 1+silences+atOnce {
		t.Errorf("%d connections to a front that hangs", n)
	}
}

func TestAFrontThatDripsEndsTheRun(t *testing.T) {
	address, _ := peer(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX-A: ")
		for {
			if _, err := io.WriteString(conn, "a"); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // shorter than the timeout: each read of the run finds something
		}
	})
	o := optionsFor(t, address)
	o.Timeout = 100 * time.Millisecond
	if _, err := Run(context.Background(), o); !errors.Is(err, errSilent) {
		t.Errorf("the run ended with %v", err)
	}
}

func TestAFrontThatBreaksOffIsNotWell(t *testing.T) {
	address, _ := peer(t, func(conn net.Conn) {
		_, _ = bufio.NewReader(conn).ReadString('\n')
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Le")
	})
	o := optionsFor(t, address)
	o.Echo, o.Cookie = listen(t), sessionCookie
	report, _, err := runAgainst(t, o)
	if err != nil || report.Well() || report.Leaks != 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

// An answer of 100 MB, in the header or after it, is read to no more than its beginning.
func TestOfAnEndlessAnswerTheBeginningIsRead(t *testing.T) {
	for name, begin := range map[string]string{"header": "HTTP/1.1 200 OK\r\nX-A: ", "body": "HTTP/1.1 200 OK\r\n\r\n",
		"interim answers": "HTTP/1.1 103 Early Hints\r\n\r\n"} {
		var most atomic.Int64
		address, _ := peer(t, func(conn net.Conn) {
			_ = conn.(*net.TCPConn).SetWriteBuffer(1 << 16)
			if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
				return
			}
			piece, sent := strings.Repeat(begin, 1+(1<<16)/len(begin)), int64(0)
			if name != "interim answers" {
				piece = strings.Repeat("a", 1<<16)
				_, _ = io.WriteString(conn, begin)
			}
			for sent < 100<<20 {
				n, err := io.WriteString(conn, piece)
				if sent += int64(n); err != nil {
					break
				}
			}
			most.Store(max(most.Load(), sent))
		})
		o := optionsFor(t, address)
		report, _, err := runAgainst(t, o)
		if err != nil || report.Well() {
			t.Errorf("%s: %v", name, err)
		}
		if n := most.Load(); n > 50<<20 { // the rest is what the kernel holds
			t.Errorf("%s: %d bytes were taken", name, n)
		}
	}
}

func TestAFrontThatLeadsElsewhereIsNotFollowed(t *testing.T) {
	var followed atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	defer elsewhere.Close()
	s := httptest.NewServer(http.RedirectHandler(elsewhere.URL+"/login", http.StatusFound))
	defer s.Close()
	o := optionsFor(t, s.URL)
	o.Cookie = sessionCookie
	report, printed, err := runAgainst(t, o)
	if err != nil {
		t.Fatal(err)
	}
	found := faults(report)["page-is-sent-to-sign-in"]
	if len(found) != 1 || !strings.Contains(found[0].Saw, "leads elsewhere") || followed.Load() != 0 {
		t.Errorf("%+v; %d requests followed", found, followed.Load())
	}
	if strings.Contains(printed, "0123456789abcdef") {
		t.Errorf("the report has the cookie:\n%s", printed)
	}
}

// What peers say is printed without the cookie, and without signs that terminals heed.
func TestWhatPeersSayIsPrintedWithoutHarm(t *testing.T) {
	r := &run{Options: Options{Cookie: "a=1; " + sessionCookie}, nonce: "0123"}
	got := r.clean("\x1b[31m" + sessionCookie + "\u202e\r\n/0123-1-")
	if got != "�[31m__Host-sallyport=<cookie>���/<nonce>-1-" {
		t.Errorf("%q", got)
	}
}

// A front of an unknown authority is sent nothing, above all no cookie.
func TestAnUnknownCertificateEndsTheRunBeforeTheCookie(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // that it fails is the test
	s.StartTLS()
	defer s.Close()
	o := optionsFor(t, s.URL)
	o.Cookie = sessionCookie
	_, err := Run(context.Background(), o)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "--ca") || asked.Load() != 0 {
		t.Errorf("%v; %d requests", err, asked.Load())
	}
	o.Roots = x509.NewCertPool()
	o.Roots.AddCert(s.Certificate())
	if report, err := Run(context.Background(), o); err != nil || report.Well() || asked.Load() == 0 {
		t.Errorf("with its authority: %v", err)
	}
}

// A front that stops passing requests on in the middle would make everything after look
// well: nothing arrives any more.
func TestAFrontThatStopsPassingOnIsNoticed(t *testing.T) {
	f := &strictFront{}
	var n atomic.Int64
	l := listen(t)
	f.echo = l.Addr().String()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) > 40 {
			http.Error(w, "blocked", http.StatusForbidden)
			return
		}
		f.ServeHTTP(w, r)
	}))
	defer s.Close()
	o := optionsFor(t, s.URL)
	o.Echo = l
	report, _, err := runAgainst(t, o)
	if err != nil || len(faults(report)["still-there"]) != 1 {
		t.Errorf("%v", err)
	}
}

// The echo answers its own requests only, and is gone with the run.
func TestTheEchoAnswersNobodyElse(t *testing.T) {
	l := listen(t)
	e := startEcho(l, "0123456789", 5*time.Second)
	ask := func(target string) string {
		t.Helper()
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "POST "+target+" HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	own := ask(Area + "/0123456789-1-")
	if !strings.HasPrefix(own, "HTTP/1.1 200 ") || !strings.Contains(own, e.proof) {
		t.Errorf("its own: %q", own)
	}
	for _, target := range []string{"/", Area, Area + "/", Area + "/another-1-"} {
		if got := ask(target); !strings.HasPrefix(got, "HTTP/1.1 404 ") || strings.Contains(got, e.proof) {
			t.Errorf("%s: %q", target, got)
		}
	}
	if n := len(e.arrivals("0123456789-1-")); n != 1 {
		t.Errorf("%d arrivals", n)
	}
	held, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	e.stop() // does not wait for a connection on which nothing comes
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the echo goes on after the run")
	}
}
