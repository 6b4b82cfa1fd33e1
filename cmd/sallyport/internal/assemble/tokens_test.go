package assemble

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// Nobody signs in at a provider that is for tokens: with one other provider there is no
// page to choose one, and nothing answers where its callback would be.
func TestAProviderForTokensIsOnNoSignInPage(t *testing.T) {
	t.Parallel()
	cfg, faults := config.Parse("config.yaml", fmt.Appendf(nil, `version: 1
public_url: %s
session: {keys: ["literal:sallyport-key-1 2026-01-02T09:00:00Z AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"]}
providers:
  - {id: cluster, type: oidc, use: tokens, issuer: "http://localhost:1"}
  - {id: sso, type: oidc, issuer: "http://localhost:1", client_id: c, client_secret: "literal:s",
     endpoints: {authorization: "http://localhost:1/a", token: "http://localhost:1/t", jwks: "http://localhost:1/k"}}
routes:
  - {name: app, path: /, upstream: "http://127.0.0.1:1", allow: authenticated}
  - {name: jobs, path: /jobs, upstream: "http://127.0.0.1:1", allow: authenticated, bearer: {provider: cluster, audiences: [jobs]}}
`, publicURL))
	testenv.Check(t, faults.Err())
	sec, err := Resolve(cfg, os.LookupEnv)
	testenv.Check(t, err)
	p := newProcess()
	rt, err := p.Build(cfg, sec)
	testenv.Check(t, err)
	p.Swap(rt)
	get := func(path string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil)
		r.Host = "localhost:4180"
		r.Header.Set("Accept", "text/html")
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Sec-Fetch-Dest", "document")
		p.ServeHTTP(w, r)
		return w
	}
	if w := get("/.sallyport/login"); w.Code != 302 || !strings.HasPrefix(w.Header().Get("Location"),
		"http://localhost:1/a?") {
		t.Errorf("sign-in: %d %v", w.Code, w.Header())
	}
	if w := get("/.sallyport/login?provider=cluster"); w.Code != 200 ||
		strings.Contains(w.Body.String(), `value="cluster"`) ||
		!strings.Contains(w.Body.String(), `value="sso"`) { // what a provider that is not there leads to
		t.Errorf("the page to choose a provider: %d\n%s", w.Code, w.Body)
	}
	if w := get("/.sallyport/callback/cluster?code=x&state=y"); w.Code != 400 || w.Header().Get("Location") != "" {
		t.Errorf("callback: %d %v", w.Code, w.Header())
	}
	want := `"authorization_servers":["http://localhost:1"]`
	if w := get("/.well-known/oauth-protected-resource/jobs"); w.Code != 200 ||
		!strings.Contains(w.Body.String(), want) {
		t.Errorf("metadata: %d %s", w.Code, w.Body)
	}
}
