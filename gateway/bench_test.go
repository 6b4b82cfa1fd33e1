package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// BenchmarkGateway compares a request of an app with the same one sent to the third party
// itself, and through a bare httputil.ReverseProxy: what matters is the ratio within a run.
func BenchmarkGateway(b *testing.B) {
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"busy":[]}`)
	}))
	b.Cleanup(peer.Close)
	at, err := url.Parse(peer.URL)
	testenv.Check(b, err)
	bare := httptest.NewServer(httputil.NewSingleHostReverseProxy(at))
	b.Cleanup(bare.Close)
	accounts := startCluster(b)
	r := newClusterRig(b, accounts, peer.URL)
	go func() {
		for range r.events { // nobody looks at them here
			continue
		}
	}()
	assertion := r.assertion("planner")
	for _, c := range []struct{ name, url, token string }{
		{"direct", peer.URL + "/calendars/a/busy", appToken},
		{"ReverseProxy", bare.URL + "/calendars/a/busy", appToken},
		{"gateway", r.url + "/gateway/calendar/calendars/a/busy", appToken},
		{"gateway, access token", r.url + "/gateway/calendar/calendars/a/busy", accounts.token()},
	} {
		b.Run(c.name, func(b *testing.B) {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
			b.Cleanup(client.CloseIdleConnections)
			for b.Loop() {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, c.url, nil)
				testenv.Check(b, err)
				req.Header.Set("Authorization", "Bearer "+c.token)
				req.Header.Set("X-Sallyport-Assertion", assertion)
				res, err := client.Do(req)
				testenv.Check(b, err)
				_, err = io.Copy(io.Discard, res.Body)
				testenv.Check(b, err)
				if _ = res.Body.Close(); res.StatusCode != http.StatusOK {
					b.Fatal(res.Status)
				}
			}
		})
	}
}
