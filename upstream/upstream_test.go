package upstream

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func mustURL(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func newUpstream(t testing.TB, raw string, change ...func(*Options)) *Upstream {
	t.Helper()
	o := Options{URL: mustURL(t, raw)}
	for _, f := range change {
		f(&o)
	}
	u, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

func get(t testing.TB, u *Upstream, raw string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := u.RoundTrip(r)
	if err == nil {
		t.Cleanup(func() { res.Body.Close() })
	}
	return res, err
}

// listen answers each connection by serve, without reading more than it does.
func listen(t testing.TB, serve func(net.Conn)) string {
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

func TestP15_AddressThatIsNoHostIsRefused(t *testing.T) {
	for _, raw := range []string{
		"", "app", "127.0.0.1", "//127.0.0.1:80", "http:", "http://", "http:///", "http:/x", "http:127.0.0.1",
		"http://:8080", "https://127.0.0.1/x", "h2c://:1", "ftp://127.0.0.1", "unix:", "unix:run/app.sock",
		"unix:///run/../app.sock", "unix://host/run/app.sock", "unix:/",
		"http://user@127.0.0.1", "http://user:pw@127.0.0.1", "http://127.0.0.1/x", "http://127.0.0.1//",
		"http://127.0.0.1?x", "http://127.0.0.1/?x", "http://127.0.0.1#x",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			continue // nobody can pass it on
		}
		if got, err := New(Options{URL: u}); err == nil || got != nil {
			t.Errorf("%q is accepted", raw)
		} else if strings.Contains(err.Error(), "pw") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("no address is accepted")
	}
	for raw, host := range map[string]string{"http://127.0.0.1:8080": "127.0.0.1:8080", "http://app/": "app",
		"HTTP://app.internal:80": "app.internal:80", "http://[::1]:1": "[::1]:1",
		"https://app:443": "app:443", "h2c://app:50051": "app:50051", "unix:/run/app.sock": "unix",
		"unix:///run/app.sock": "unix"} {
		if u := newUpstream(t, raw); u.Host() != host {
			t.Errorf("%q: host %q", raw, u.Host())
		}
	}
}

func TestAppThatIsNotThereIsUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := "http://" + l.Addr().String()
	l.Close()
	u := newUpstream(t, addr)
	if _, err := get(t, u, addr); !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrTimeout) {
		t.Errorf("%v", err)
	}
}

// A connection that takes too long is no slow answer: nobody is there.
func TestConnectingInVainIsUnreachableNotSlow(t *testing.T) {
	err := newUpstream(t, "http://127.0.0.1:1").classify(&net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded})
	if !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

func TestAppThatHangsUpIsUnreachable(t *testing.T) {
	for name, answer := range map[string]string{"nothing": "", "half a line": "HTTP/1.",
		"no HTTP": "220 smtp ready\r\n", "half a header": "HTTP/1.1 200 OK\r\nX: "} {
		addr := listen(t, func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, answer)
		})
		if _, err := get(t, newUpstream(t, addr), addr); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCallersDeadlineIsATimeout(t *testing.T) {
	done := make(chan struct{})
	defer close(done)
	addr := listen(t, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		<-done
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "GET", addr, nil)
	if _, err := newUpstream(t, addr).RoundTrip(r); !errors.Is(err, ErrTimeout) ||
		!errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a deadline of the caller: %v", err)
	}
}

// A person who goes away is no fault of the app.
func TestCallerThatGoesAwayIsNoTimeout(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	defer close(done)
	addr := listen(t, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		cancel()
		<-done
	})
	r, _ := http.NewRequestWithContext(ctx, "GET", addr, nil)
	_, err := newUpstream(t, addr).RoundTrip(r)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrTimeout) || errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
}

// The transport must not add Accept-Encoding, follow, decode or drop anything.
func TestRequestAndAnswerPassAsTheyAre(t *testing.T) {
	type seen struct {
		uri, host, body string
		header          http.Header
	}
	var got seen
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = seen{r.RequestURI, r.Host, string(b), r.Header.Clone()}
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(302)
		_, _ = io.WriteString(w, "not really gzip")
	}))
	defer app.Close()
	u := newUpstream(t, app.URL)
	r, err := http.NewRequestWithContext(t.Context(), "POST", app.URL+"/a%20b;c?;x=%zz", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "app.example.com"
	r.Header["User-Agent"] = nil
	r.Header.Set("X-Forwarded-User", "google:1")
	res, err := u.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || string(b) != "not really gzip" || res.StatusCode != 302 ||
		res.Header.Get("Content-Encoding") != "gzip" || res.Uncompressed {
		t.Errorf("%d %q %v %v", res.StatusCode, b, res.Header, err)
	}
	if got.uri != "/a%20b;c?;x=%zz" || got.host != "app.example.com" || got.body != "body" {
		t.Errorf("the app saw %+v", got)
	}
	if _, there := got.header["Accept-Encoding"]; there || len(got.header) != 2 ||
		got.header.Get("X-Forwarded-User") != "google:1" {
		t.Errorf("the app saw %v", got.header)
	}
}

// HTTP_PROXY is about the way out. An app next door must never be asked by way
// of it: the proxy that it names would see identity headers (httpoxy, CVE-2016-5386).
func TestP02_EnvironmentsProxyIsIgnored(t *testing.T) {
	var hits atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { hits.Add(1) }))
	defer proxy.Close()
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	t.Setenv("NO_PROXY", "")
	t.Setenv("no_proxy", "")
	const app = "http://192.0.2.1:81" // TEST-NET-1: nobody is there
	u := newUpstream(t, app, func(o *Options) { o.ConnectTimeout = 50 * time.Millisecond })
	if newTransport(Options{URL: mustURL(t, app)}, new(http.Protocols)).Proxy != nil {
		t.Error("the transport has a proxy")
	}
	if _, err := get(t, u, app); !errors.Is(err, ErrTimeout) && !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("%d requests came by the proxy", n)
	}
}

func TestP17_HugeResponseHeaderIsAnError(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Huge", strings.Repeat("x", 1<<20))
	}))
	defer app.Close()
	if _, err := get(t, newUpstream(t, app.URL), app.URL); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
}

func TestConnectionsAreKeptAndClosed(t *testing.T) {
	var opened atomic.Int32
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_,
			_ = io.WriteString(w, "ok")
	}))
	app.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	app.Start()
	defer app.Close()
	u := newUpstream(t, app.URL)
	ask := func() {
		t.Helper()
		res, err := get(t, u, app.URL)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	for range 5 {
		ask()
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for five requests", n)
	}
	u.Close()
	ask()
	if n := opened.Load(); n != 2 {
		t.Errorf("%d connections after Close", n)
	}
}

// TestAnErrorOfTLSSaysWhatToLookAt: the address of the app, and the key of the configuration.
func TestAnErrorOfTLSSaysWhatToLookAt(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	pool := x509.NewCertPool()
	pool.AddCert(secure.Certificate())
	asSecure := strings.Replace(plain.URL, "http:", "https:", 1)
	for _, tt := range []struct {
		url, says string
		change    func(*Options)
	}{
		{asSecure, asSecure + ": tls: first record does not look like a TLS handshake; the app does not speak TLS " +
			"there: is it http:// in upstream?", func(*Options) {}},
		{secure.URL, "; upstream.ca says who may vouch for it", func(*Options) {}},
		{secure.URL, "; upstream.server_name says which name it has", func(o *Options) {
			o.Roots, o.ServerName = pool, "other.example"
		}},
	} {
		u := newUpstream(t, tt.url, tt.change)
		if _, err := get(t, u, tt.url); !errors.Is(err, ErrUnreachable) || !strings.HasSuffix(err.Error(), tt.says) ||
			!strings.Contains(err.Error(), tt.url) {
			t.Errorf("%s: %v, want %q", tt.url, err, tt.says)
		}
	}
}
