package proxy

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// benchApp is one app for both benchmarks.
func benchApp(b *testing.B) *url.URL {
	b.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "hello")
	}))
	b.Cleanup(app.Close)
	return mustURL(b, app.URL)
}

// benchRequest is what a browser sends.
func benchRequest(host, cookie string) *http.Request {
	r := httptest.NewRequest("GET", "/reports/2026?team=blue", nil)
	r.Host, r.RequestURI = host, "/reports/2026?team=blue"
	r.Header = http.Header{
		"User-Agent":      {"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
		"Accept":          {"text/html,application/xhtml+xml,*/*;q=0.8"},
		"Accept-Language": {"en-GB,en;q=0.5"}, "Accept-Encoding": {"gzip, deflate, br"}, "Sec-Fetch-Mode": {"navigate"},
		"Sec-Fetch-Dest": {"document"},
		"Sec-Fetch-Site": {"same-origin"}, "Cookie": {"theme=dark; " + cookie}, "Referer": {"http://127.0.0.1/"},
	}
	return r
}

func runBench(b *testing.B, h http.Handler, host, cookie string) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, benchRequest(host, cookie))
		if w.Code != 200 || w.Body.Len() != 5 {
			b.Fatalf("answered %d %s", w.Code, w.Body)
		}
	}
}

// discardLog writes the request log as serve does, to nowhere.
func discardLog() []observe.Observer {
	return []observe.Observer{observe.Log{Logger: slog.New(slog.NewJSONHandler(io.Discard, nil))}}
}

// BenchmarkForwardSignedIn is everything Sallyport does for a signed-in request,
// log and metrics included, with an app on loopback behind it.
func BenchmarkForwardSignedIn(b *testing.B) {
	app := benchApp(b)
	up, err := upstream.New(upstream.Options{URL: app})
	testenv.Check(b, err)
	b.Cleanup(up.Close)
	s := newTestSite(b, setup{Transport: up})
	for i := range s.proxy.upstreams {
		s.proxy.upstreams[i].Addr = app.Host
	}
	s.proxy.observers = discardLog()
	runBench(b, s.proxy, s.host, s.mint(b, alice()))
}

// BenchmarkBareReverseProxy is the standard library's proxy on its own.
func BenchmarkBareReverseProxy(b *testing.B) {
	app := benchApp(b)
	up, err := upstream.New(upstream.Options{URL: app})
	testenv.Check(b, err)
	b.Cleanup(up.Close)
	bare := &httputil.ReverseProxy{Transport: up, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(app); r.SetXForwarded() }}
	runBench(b, bare, "127.0.0.1", "sallyport-dev-80="+strings.Repeat("x", 600))
}

// canned answers at once: what is left is the proxies themselves.
type canned struct{}

func (canned) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/plain"}},
		Body: io.NopCloser(strings.NewReader("hello"))}, nil
}

func BenchmarkForwardSignedInInMemory(b *testing.B) {
	s := newTestSite(b, setup{Transport: canned{}})
	s.proxy.observers = discardLog()
	runBench(b, s.proxy, s.host, s.mint(b, alice()))
}

func BenchmarkBareReverseProxyInMemory(b *testing.B) {
	app := mustURL(b, "http://app")
	bare := &httputil.ReverseProxy{Transport: canned{}, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(app); r.SetXForwarded() }}
	runBench(b, bare, "127.0.0.1", "sallyport-dev-80="+strings.Repeat("x", 600))
}
