package command

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// From the file to the app: each route takes the tokens that it names, by the
// names that it gives to claims, and groups are kept as the file says.
func TestP01_RoutesTakeTheAccessTokensThatTheFileNames(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header["X-Forwarded-User"], r.Header["X-Forwarded-Groups"], r.Header["Authorization"])
	}))
	defer app.Close()
	start := func() *testenv.Faults {
		return testenv.StartProvider(t,
			demo.ProviderOptions{ClientID: "sign-in", ClientSecret: "s",
				RedirectURIs: []string{"http://localhost:4180/"}, Now: time.Now})
	}
	provider, partner := start(), start()
	cfg, _, err := parseConfig("config.yaml", fmt.Appendf(nil, `version: 1
public_url: http://localhost:4180
session: {keys: ["literal:sallyport-key-1 2026-01-02T09:00:00Z AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"]}
providers:
  - {id: sso, type: oidc, issuer: %[1]q, client_id: sign-in, client_secret: "literal:s", email_domains: [a.example]}
  - {id: partner, type: oidc, issuer: %[3]q, client_id: partner-sign-in, client_secret: "literal:s", email_domains: [b.example]}
groups: {keep: [ops, dev]}
routes:
  - {name: one, path: /one, upstream: %[2]q, allow: authenticated, bearer: {provider: sso, audiences: [api-1]}}
  - {name: two, path: /two, upstream: %[2]q, allow: [{groups: [dev]}], bearer: {provider: sso, audiences: [api-2], claims: {groups: roles}, quirks: [any_typ]}}
  - {name: three, path: /three, upstream: %[2]q, allow: authenticated, bearer: {provider: partner, audiences: [api-1]}}
  - {name: open, path: /open, upstream: %[2]q, public: true}
`, provider.URL, app.URL, partner.URL))
	if err != nil {
		t.Fatal(err)
	}
	sec, err := assemble.Resolve(cfg, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	door, err := newFrontDoor(cfg, sec, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(door)
	defer front.Close()
	by := func(p *testenv.Faults, audience, typ string) string {
		signed, err := p.Provider.Sign(map[string]any{"typ": typ},
			map[string]any{"iss": p.URL, "sub": "bot", "aud": audience,
				"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(), "groups": []string{"ops", "hr"},
				"roles": []string{"dev", "hr"}})
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + signed
	}
	token := func(audience, typ string) string { return by(provider, audience, typ) }
	for _, row := range []struct {
		path, auth string
		status     int
		body       string
	}{
		{"/one/x", token("api-1", "at+jwt"), 200, "[sso:bot] [ops] []"},
		{"/two/x", token("api-2", "at+jwt"), 200, "[sso:bot] [dev] []"},
		{"/two/x", token("api-2", "JWT"), 200, "[sso:bot] [dev] []"},
		{"/one/x", token("api-1", "JWT"), 401, ""},
		{"/one/x", token("api-2", "at+jwt"), 401, ""},
		{"/two/x", token("api-1", "at+jwt"), 401, ""},
		{"/two/x", token("sign-in", "JWT"), 401, ""},
		{"/three/x", by(partner, "api-1", "at+jwt"), 200, "[partner:bot] [ops] []"},
		{"/three/x", token("api-1", "at+jwt"), 401, ""},
		{"/one/x", by(partner, "api-1", "at+jwt"), 401, ""},
		{"/open/x", "Bearer x", 200, "[] [] [Bearer x]"},
	} {
		req, err := http.NewRequest("GET", front.URL+row.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "localhost:4180"
		req.Header.Set("Authorization", row.auth)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != row.status ||
			(row.status == 200 && strings.ReplaceAll(string(body), "][", "] [") != row.body) {
			t.Errorf("%s: %d %s, %v", row.path, res.StatusCode, body, err)
		}
	}
}
