package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// What the configuration says of the way to an app is what happens on it.
func TestKeysOfTheWayToAnApp(t *testing.T) {
	t.Parallel()
	w := need(t, world.upstreams)
	address, admin := need(t, freeAddress), need(t, freeAddress)
	s := overHTTP(address)
	s.Trusted = "[127.0.0.1]"
	s.Admin = fmt.Sprintf(`{address: "%s", app_probes: {/app/up: "%s/x/seen", /app/down: "http://%s/"}}`, admin,
		w.app["http"], w.deadAddr)
	s.Routes = []string{
		fmt.Sprintf("{name: plain, path: /plain, upstream: %s, public: true}", w.app["http"]),
		fmt.Sprintf("{name: encoded, path: /encoded, upstream: %s, public: true, encoded: forward}", w.app["http"]),
		fmt.Sprintf("{name: small, path: /small, upstream: %s, public: true, max_body: 1KiB}", w.app["http"]),
		fmt.Sprintf("{name: named, path: /named, upstream: {url: %s, host: inner.example.test}, public: true}",
			w.app["http"]),
		fmt.Sprintf("{name: hasty, path: /hasty, upstream: {url: %s, timeouts: {header: 300ms}}, public: true}",
			w.app["http"]),
	}
	c := ownCorp(t, s)
	_, host, _ := strings.Cut(c.url, "://")
	for _, row := range []struct {
		name, method, path string
		body               io.Reader
		header             http.Header
		status             int
		want               seen // of the app; zero: it is not asked
	}{
		{"as it comes", "GET", "/plain/seen", nil, nil, 200, seen{"/plain/seen", host, "127.0.0.1", "http", host}},
		{"an escaped slash", "GET", "/plain/seen/a%2Fb", nil, nil, 400, seen{}},
		{"an escaped slash where it passes", "GET", "/encoded/seen/a%2Fb", nil, nil, 200,
			seen{"/encoded/seen/a%2Fb", host, "127.0.0.1", "http", host}},
		{"a host of the app's own", "GET", "/named/seen", nil, nil, 200,
			seen{"/named/seen", "inner.example.test", "127.0.0.1", "http", host}},
		{"a body of the largest size", "POST", "/small/seen", strings.NewReader(strings.Repeat("x", 1024)), nil, 200,
			seen{"/small/seen", host, "127.0.0.1", "http", host}},
		{"a larger one", "POST", "/small/seen", strings.NewReader(strings.Repeat("x", 1025)), nil, 413, seen{}},
		{"a larger one of unknown length", "POST", "/small/up",
			io.MultiReader(strings.NewReader(strings.Repeat("x", 1025))), nil, 413, seen{}},
		{"an app that is late", "GET", "/hasty/wait?for=2s", nil, nil, 504, seen{}},
		{"a trusted proxy", "GET", "/plain/seen", nil,
			http.Header{"X-Forwarded-For": {"198.51.100.7, 203.0.113.9"}, "X-Forwarded-Proto": {"https"}}, 200,
			seen{"/plain/seen", host, "203.0.113.9", "https", host}},
	} {
		t.Run(row.name, func(t *testing.T) {
			r, err := http.NewRequest(row.method, c.url+row.path, row.body)
			if err != nil {
				t.Fatal(err)
			}
			for name, values := range row.header {
				r.Header[name] = values
			}
			resp, err := newClient(t, http1).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var got seen
			err = json.NewDecoder(resp.Body).Decode(&got)
			if resp.StatusCode != row.status || err != nil || got != row.want {
				t.Errorf("%d %+v, %v", resp.StatusCode, got, err)
			}
		})
	}
	for path, want := range map[string]int{"/app/up": 200, "/app/down": 503, "/app/other": 404, "/readyz": 200} {
		resp, err := newClient(t, http1).Get("http://" + admin + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s answers %d, not %d", path, resp.StatusCode, want)
		}
	}
}

// Nobody is trusted who is not named.
func TestP04_ForwardedFactsOfStrangersDoNotCount(t *testing.T) {
	t.Parallel()
	c := thePlainFront(t)
	_, host, _ := strings.Cut(c.url, "://")
	r, err := http.NewRequest(http.MethodGet, c.url+"/open-http/seen", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"X-Forwarded-For": {"203.0.113.9"}, "X-Forwarded-Proto": {"https"},
		"X-Forwarded-Host": {"evil.example"}, "Forwarded": {"for=203.0.113.9"}}
	resp, err := newClient(t, http1).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got seen
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil ||
		got != (seen{"/open-http/seen", host, "127.0.0.1", "http", host}) {
		t.Errorf("the app saw %+v, %v", got, err)
	}
}
