package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func adminForTest(level *slog.LevelVar, log *slog.Logger, probes ...Probe) (http.Handler, *atomic.Bool) {
	ready := &atomic.Bool{}
	return NewAdmin(AdminOptions{Metrics: prometheus.NewRegistry(), Ready: ready, Level: level, Log: log,
		Probes: probes}), ready
}

// TestP18_OnlyThisMachineChangesTheLogLevel: whoever could, could silence the log
// before doing what it would tell of. The peers are those of net/http.
func TestP18_OnlyThisMachineChangesTheLogLevel(t *testing.T) {
	for _, tt := range []struct {
		name, peer, header, body string
		status                   int
	}{
		{"this machine", "127.0.0.1:1", "", "debug", 200},
		{"all of 127/8 is this machine", "127.9.9.9:1", "", "debug\n", 200},
		{"IPv6", "[::1]:1", "", " debug ", 200},
		{"IPv4 in IPv6", "[::ffff:127.0.0.1]:1", "", "debug", 200},
		{"the cluster", "10.0.0.7:1", "", "debug", 403},
		{"the cluster, IPv6", "[fd00::7]:1", "", "debug", 403},
		{"an address in another's clothes", "[::ffff:10.0.0.7]:1", "", "debug", 403},
		{"no address", "@", "", "debug", 403},
		{"a page elsewhere", "127.0.0.1:1", "Origin: https://evil.example", "debug", 403},
		{"a page that rebound its name (DNS rebinding)", "127.0.0.1:1", "Origin: http://evil.example:4181", "debug",
			403},
		{"a sandboxed page", "127.0.0.1:1", "Origin: null", "debug", 403},
		{"an empty Origin", "127.0.0.1:1", "Origin: ", "debug", 403},
		{"a browser, same origin", "127.0.0.1:1", "Sec-Fetch-Site: same-origin", "debug", 403},
		{"a browser's address bar", "127.0.0.1:1", "Sec-Fetch-Site: none", "debug", 403},
		{"a proxy here, such as a route of ours by mistake", "127.0.0.1:1", "Via: 1.1 sallyport", "debug", 403},
		{"a proxy here", "127.0.0.1:1", "X-Forwarded-For: 10.0.0.7", "debug", 403},
		{"a proxy here that knows RFC 7239", "127.0.0.1:1", "Forwarded: for=10.0.0.7", "debug", 403},
		{"no level", "127.0.0.1:1", "", "", 400},
		{"another name", "127.0.0.1:1", "", "trace", 400},
		{"slog's arithmetic", "127.0.0.1:1", "", "error+100", 400},
		{"capitals", "127.0.0.1:1", "", "DEBUG", 400},
		{"64 bytes", "127.0.0.1:1", "", "debug" + strings.Repeat(" ", 59), 200},
		{"65 bytes", "127.0.0.1:1", "", "debug" + strings.Repeat(" ", 60), 413},
	} {
		level := &slog.LevelVar{}
		h, _ := adminForTest(level, slog.New(slog.DiscardHandler))
		r := httptest.NewRequest(http.MethodPut, "http://127.0.0.1:4181/log-level", strings.NewReader(tt.body))
		r.RemoteAddr = tt.peer
		if name, value, ok := strings.Cut(tt.header, ": "); ok {
			r.Header[name] = []string{value}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		want := slog.LevelInfo
		if tt.status == 200 {
			want = slog.LevelDebug
		}
		if w.Code != tt.status || level.Level() != want {
			t.Errorf("%s: status %d, level %s; want %d, %s", tt.name, w.Code, level.Level(), tt.status, want)
		}
	}
}

// TestP18_APageThatReboundItsNameReadsNothing: /metrics tells routes, versions and
// how many people are signed in.
func TestP18_APageThatReboundItsNameReadsNothing(t *testing.T) {
	ask := func(address, path, host string) int {
		req, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	app := httptest.NewServer(http.NotFoundHandler())
	defer app.Close()
	target, err := url.Parse(app.URL)
	if err != nil {
		t.Fatal(err)
	}
	h, ready := adminForTest(&slog.LevelVar{}, slog.New(slog.DiscardHandler), Probe{"/app/healthz", target})
	ready.Store(true)
	l := listenForTest(t)
	srv := NewAdminHTTP(h, slog.New(slog.DiscardHandler))
	defer srv.Close()
	go func() { _ = srv.Serve(l) }()
	address := l.Addr().String()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/log-level", "/app/healthz", "/none"} {
		for _, host := range []string{"evil.example", "evil.example:" + port, "127.0.0.1.evil.example",
			"localhost.evil.example:" + port, "127.1", "0x7f.1"} {
			if got := ask(address, path, host); got != http.StatusMisdirectedRequest {
				t.Errorf("%s as %s: %d", path, host, got)
			}
		}
	}
	for _, host := range []string{"localhost", "LOCALHOST:1", "localhost.:1", "a.localhost", "127.0.0.1",
		"127.0.0.1:4181", "[::1]:4181", "[::1]", "10.0.0.7:4181"} {
		if got := ask(address, "/healthz", host); got != http.StatusOK {
			t.Errorf("as %s: %d", host, got)
		}
	}
	// In a cluster, a scraper asks by the name of a service.
	r := httptest.NewRequest(http.MethodGet, "http://sallyport.apps.svc:4181/healthz", nil)
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey,
		&net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 4181}))
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusOK {
		t.Errorf("in a cluster: %d", w.Code)
	}
}

// TestTheLogLevelChangesWithoutARestart, anybody may see it, and each change is
// told by old and new name, whatever the level.
func TestTheLogLevelChangesWithoutARestart(t *testing.T) {
	var out bytes.Buffer
	level := &slog.LevelVar{}
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))
	h, _ := adminForTest(level, log)
	old := "info"
	for _, name := range []string{"debug", "error", "error", "warn", "info"} {
		out.Reset()
		r := httptest.NewRequest(http.MethodPut, "/log-level", strings.NewReader(name))
		r.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK || w.Body.String() != name+"\n" {
			t.Errorf("to %s: %d %q", name, w.Code, w.Body)
		}
		if told := "level=WARN msg=\"log level changed\" from=" + old + " to=" + name; old != name &&
			!strings.Contains(out.String(), told) {
			t.Errorf("the log says %q, want %q", out.String(), told)
		}
		w = httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/log-level", nil)) // from 192.0.2.1
		if w.Code != http.StatusOK || w.Body.String() != name+"\n" {
			t.Errorf("shown to the cluster: %d %q", w.Code, w.Body)
		}
		out.Reset()
		log.Info("x")
		if told := out.Len() > 0; told != (name == "debug" || name == "info") {
			t.Errorf("at %s info is written: %v", name, told)
		}
		old = name
	}
}

// TestAppProbes: each row is an app and what a kubelet is told of it.
func TestAppProbes(t *testing.T) {
	var asked atomic.Int64
	var mu sync.Mutex // guards seen
	var seen *http.Request
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		mu.Lock()
		seen = r
		mu.Unlock()
		w.Header().Set("X-Secret", "canary")
		w.Header().Set("Set-Cookie", "a=canary")
		switch r.URL.Path {
		case "/ok":
			_, _ = io.WriteString(w, "fine")
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
		case "/redirect":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "no database")
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat([]byte("x"), 4096)); err != nil {
					return
				}
			}
		case "/slow":
			<-r.Context().Done()
		case "/rude":
			panic(http.ErrAbortHandler)
		}
	}))
	defer app.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	t.Setenv("HTTP_PROXY", app.URL) // it would call any app healthy; net/http never uses it for loopback addresses
	at := func(path string) *url.URL { u, _ := url.Parse(app.URL + path); return u }
	dead, _ := url.Parse(gone.URL)
	var probes []Probe
	for _, path := range []string{"/ok", "/empty", "/redirect", "/broken", "/endless", "/slow", "/rude"} {
		probes = append(probes, Probe{Path: "/app" + path, Target: at(path)})
	}
	probes = append(probes, Probe{Path: "/app/dead", Target: dead},
		Probe{Path: "/app/far", Target: &url.URL{Scheme: "http", Host: "app.invalid", Path: "/ok"}},
		Probe{Path: "/readyz", Target: at("/ok")}, Probe{Path: "/log-level", Target: at("/ok")})
	h, ready := adminForTest(&slog.LevelVar{}, slog.New(slog.DiscardHandler), probes...)

	for _, tt := range []struct {
		method, path string
		status       int
		body         string // its beginning
	}{
		{"GET", "/app/ok", 200, "the app answered 200\nfine\n"},
		{"GET", "/app/ok?x=1", 200, "the app answered 200\nfine\n"},
		{"HEAD", "/app/ok", 200, ""},
		{"GET", "/app/empty", 200, "the app answered 204\n"},
		{"GET", "/app/redirect", 200, "the app answered 302\n"}, // as a kubelet reads it
		{"GET", "/app/broken", 503, "the app answered 500\nno database"},
		{"GET", "/app/endless", 200, "the app answered 200\n" + strings.Repeat("x", 1024) + "\n"},
		{"GET", "/app/slow", 503, "the app did not answer: "},
		{"GET", "/app/rude", 503, "the app did not answer: EOF"},
		{"GET", "/app/dead", 503, "the app did not answer: dial tcp "},
		{"GET", "/app/far", 503, "the app did not answer: "},
		{"POST", "/app/ok", 405, "a probe is asked with GET"},
		{"GET", "/app/other", 404, ""},
		{"GET", "/app/ok/", 404, ""},
		{"GET", "/readyz", 503, "not ready\n"}, // our own paths stay ours
		{"GET", "/log-level", 200, "info\n"},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			before := asked.Load()
			r := httptest.NewRequest(tt.method, tt.path, nil)
			r.Header.Set("Cookie", "a=canary")
			r.Header.Set("Authorization", "Bearer canary")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r) // also where the app would go on, or not begin, for as long as it is asked
			if w.Code != tt.status || !strings.HasPrefix(w.Body.String(), tt.body) ||
				(tt.method != "HEAD" && w.Body.Len() > 1100) {
				t.Errorf("%d %q", w.Code, w.Body)
			}
			if dump := fmt.Sprint(w.Header()); strings.Contains(dump, "canary") ||
				w.Header().Get("Content-Type") == "text/html" {
				t.Errorf("headers of the app came out: %s", dump)
			}
			if tt.status == 405 || tt.status == 404 {
				if asked.Load() != before {
					t.Error("the app was asked")
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if seen != nil && (len(seen.Header) != 1 && !(len(seen.Header) == 2 &&
				seen.Header.Get("Connection") == "close") || seen.URL.RawQuery != "" || seen.Method != "GET") {
				t.Errorf("the app was asked %s %s with %v", seen.Method, seen.URL, seen.Header)
			}
		})
	}
	if ready.Load() {
		t.Error("probes changed readiness")
	}
}

// TestManyAsksOfAProbeAreOne: the cluster cannot press on an app through us, and
// nobody is refused for being one too many.
func TestManyAsksOfAProbeAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, refused atomic.Int64
		let := make(chan struct{})
		h := probeForTest(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			<-let
			return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody, Request: r}, nil
		})
		var callers sync.WaitGroup
		for range 50 {
			callers.Go(func() {
				w := httptest.NewRecorder()
				if h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/app", nil)); w.Code != http.StatusOK {
					refused.Add(1)
				}
			})
		}
		synctest.Wait() // until all wait for the answer
		close(let)
		callers.Wait()
		if asked.Load() != 1 || refused.Load() > 0 {
			t.Errorf("50 callers: the app was asked %d times, %d were refused", asked.Load(), refused.Load())
		}
	})
}

// A kubelet is told in time that an app hangs.
func TestAProbeDoesNotWaitForAnAppThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := probeForTest(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		w, began := httptest.NewRecorder(), time.Now()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/app", nil))
		if took := time.Since(began); w.Code != http.StatusServiceUnavailable || took != probeTimeout {
			t.Errorf("%d %q after %v", w.Code, w.Body, took)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// probeForTest asks app where /app is asked for.
func probeForTest(app roundTrip) http.Handler {
	target := &url.URL{Scheme: "http", Host: "app.example", Path: "/"}
	return newProber(app).serve(http.NewServeMux(), []Probe{{Path: "/app", Target: target}})
}
