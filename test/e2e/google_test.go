package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const googleSecret = "canary-secret-of-both-clients"

// emulated is the Google of npm emulate. Google has several hosts, and emulate one: what is
// https://oauth2.googleapis.com/token and /revoke at Google is below /oauth2 there.
type emulated struct {
	*httptest.Server
	origin *url.URL // of emulate itself

	mu     sync.Mutex
	asked  []string // method and path, of all but pages
	tokens []string // that the token endpoint and the API were shown: refresh and access tokens
	over   string   // an access token that the API does not accept any more
}

// startGoogle runs it on the Node.js of npm node, with a person of a Workspace and one without,
// and a client for each of redirects.
func startGoogle(t *testing.T, redirects map[string]string) *emulated {
	t.Helper()
	var clients []any
	for id, redirect := range redirects {
		clients = append(clients, map[string]any{"client_id": id, "client_secret": googleSecret, "name": id,
			"redirect_uris": []string{redirect}})
	}
	address := startEmulate(t, "google", "https://accounts.google.com", map[string]any{
		"users": []any{map[string]string{"email": "zoe@gmail.com", "name": "Zoe Free"},
			map[string]string{"email": "mira@acme.example", "name": "Mira Okafor", "hd": "acme.example"}},
		"oauth_clients": clients,
		"calendars": []any{map[string]any{"id": "primary", "user_email": "mira@acme.example", "primary": true,
			"summary": "mira@acme.example", "selected": true, "time_zone": "UTC"}},
		"calendar_events": []any{map[string]string{"id": "evt1", "user_email": "mira@acme.example",
			"calendar_id": "primary", "summary": "Release", "start_date_time": "2026-11-02T09:00:00.000Z",
			"end_date_time": "2026-11-02T10:00:00.000Z"}},
	})
	g := &emulated{origin: &url.URL{Scheme: "http", Host: address}}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		if r.In.URL.Path == "/token" || r.In.URL.Path == "/revoke" {
			r.Out.URL.Path = "/oauth2" + r.In.URL.Path
		}
		r.SetURL(g.origin)
	}}
	cert := need(t, world.cert)
	pair, err := tls.LoadX509KeyPair(cert.certFile, cert.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	g.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.note(r)
		if g.refuses(r) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	g.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	g.StartTLS()
	t.Cleanup(g.Close)
	g.URL = "https://localhost" + portOf(g.Listener.Addr().String())
	return g
}

func (g *emulated) note(r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	what := r.Method + " " + r.URL.Path
	switch body, _ := io.ReadAll(r.Body); {
	case r.URL.Path == "/token" || r.URL.Path == "/revoke":
		form, _ := url.ParseQuery(string(body))
		what += " " + form.Get("grant_type")
		for _, name := range []string{"refresh_token", "token"} {
			if form.Has(name) {
				g.tokens = append(g.tokens, form.Get(name))
			}
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
	case strings.HasPrefix(r.URL.Path, "/calendar/"):
		g.tokens = append(g.tokens, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		r.Body = io.NopCloser(strings.NewReader(string(body)))
	default:
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		return
	}
	g.asked = append(g.asked, strings.TrimSpace(what))
}

// refuses is what emulate does not: to it an access token that is over is one of its first
// person.
func (g *emulated) refuses(r *http.Request) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.over != "" && r.Header.Get("Authorization") == "Bearer "+g.over
}

// since returns what was asked, and forgets it, and the newest token that was shown.
func (g *emulated) since() (asked []string, token string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	asked, g.asked = g.asked, nil
	if n := len(g.tokens); n > 0 {
		token = g.tokens[n-1]
	}
	return asked, token
}

// post asks emulate itself.
func (g *emulated) post(t *testing.T, path string, form url.Values) (status int, body string) {
	t.Helper()
	res, err := http.PostForm(g.origin.String()+path, form)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// A Google that nobody here wrote: somebody signs in with it, and lends their calendar by
// another client; an access token that is over is replaced by a refresh; a write does not
// arrive; and disconnecting ends the refresh token there.
func TestP12_SigningInAndLendingACalendarWithAGoogleNobodyHereWrote(t *testing.T) {
	t.Parallel()
	at := need(t, freeAddress)
	public := "http://localhost" + portOf(at)
	google := startGoogle(t, map[string]string{"sign-in": public + "/.sallyport/callback/google",
		"lending": public + "/.sallyport/connect/calendar/callback"})
	app := &lender{t: t, at: need(t, freeAddress), token: strings.Repeat("planner-token-", 3)}
	page := httptest.NewServer(app)
	t.Cleanup(page.Close)
	var keys []any
	for range 2 {
		key, err := exec.Command(world.binary, "genkey").Output()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, strings.TrimSpace(string(key)))
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "sallyport.yaml")
	text := fmt.Sprintf(`version: 1
public_url: %[3]s
listen: {http: "%[4]s", grants: "%[5]s", admin: ""}
session: {keys: ["literal:%[1]s"]}
store: "sqlite:%[6]s"
providers:
  - id: google
    type: google
    client_id: sign-in
    client_secret: "literal:%[7]s"
    client_auth: post   # emulate reads no Authorization header, though it says that it does
    hosted_domains: [acme.example]
    endpoints: {authorization: "%[8]s/o/oauth2/v2/auth", token: "%[8]s/token", jwks: "%[8]s/oauth2/v3/certs"}
routes:
  - {name: app, path: /, upstream: "%[9]s", allow: [{orgs: ["google:acme.example"]}]}
log: {level: info, format: text}
grants:
  encryption_keys: ["literal:%[2]s"]
  apps:
    - id: planner
      name: Planner
      token: "literal:%[10]s"
      routes: [app]
      connectors: [{id: calendar, access: [freebusy, events]}]
  connectors:
    - {id: calendar, type: google_calendar, client_id: lending, client_secret: "literal:%[7]s",
       access: [freebusy, events], base_url: "%[8]s"}
`, append(keys, public, at, app.at, filepath.Join(dir, "store.db"), googleSecret, google.URL, page.URL,
		app.token)...)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := exec.Command(world.binary, "serve", "-c", file)
	serve.Dir, serve.Env = dir, append(os.Environ(), "SSL_CERT_FILE="+need(t, world.cert).certFile)
	p, err := startCommand(serve)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	p.showIfFailed(t)
	site, err := newSite(p, "")
	if err != nil {
		t.Fatal(err)
	}

	choose := func(b *tab, email string) {
		t.Helper()
		b.sees("the page of emulate", func(v view) bool { return strings.Contains(v.Text, "Sign in to Google") })
		b.click(`form:has(input[name=email][value="` + email + `"]) button`)
	}
	stranger := newPerson(t)
	stranger.open(site.url + "/page")
	choose(stranger, "zoe@gmail.com")
	stranger.heading("Your account may not use this site") // hosted_domains has no domain of hers
	b := newPerson(t)
	b.open(site.url + "/page")
	choose(b, "mira@acme.example")
	b.at(site.url + "/page")
	b.heading("The planner")
	google.since()

	b.open(site.url + "/.sallyport/connect/calendar?app=planner&return_to=/page?back")
	b.heading("Planner asks to use Google Calendar")
	b.press("Go on to Google Calendar")
	choose(b, "mira@acme.example")
	b.at(site.url + "/page?back")
	const events = "/gateway/calendar/calendar/v3/calendars/primary/events?timeMin=2026-11-01T00:00:00Z"
	read := func() {
		t.Helper()
		status, answer := app.asks("GET", events)
		if items, _ := answer["items"].([]any); status != http.StatusOK || len(items) != 1 {
			t.Fatalf("%d %v", status, answer)
		}
	}
	read()
	if status, answer := app.asks("POST", "/gateway/calendar/calendar/v3/calendars/primary/events"); status !=
		http.StatusForbidden {
		t.Errorf("a write: %d %v", status, answer)
	}
	asked, access := google.since()
	if !slices.Equal(asked, []string{"POST /token authorization_code", "GET /calendar/v3/calendars/primary/events"}) {
		t.Errorf("it was asked %q", asked)
	}

	google.mu.Lock()
	google.over = access
	google.mu.Unlock()
	read()
	asked, newer := google.since()
	if !slices.Equal(asked, []string{"GET /calendar/v3/calendars/primary/events", "POST /token refresh_token",
		"GET /calendar/v3/calendars/primary/events"}) || newer == access {
		t.Errorf("it was asked %q, and shown %q again", asked, newer)
	}

	b.open(site.url + "/.sallyport/account")
	b.press("Disconnect for all apps")
	b.heading("Google Calendar is disconnected")
	asked, refresh := google.since()
	if !slices.Equal(asked, []string{"POST /revoke"}) {
		t.Errorf("it was asked %q", asked)
	}
	if status, body := google.post(t, "/oauth2/token", url.Values{"grant_type": {"refresh_token"},
		"client_id": {"lending"}, "client_secret": {googleSecret}, "refresh_token": {refresh}}); status !=
		http.StatusBadRequest || !strings.Contains(body, "invalid_grant") {
		t.Errorf("the refresh token is still good: %d %s", status, body)
	}
	if status, answer := app.asks("GET", events); status != http.StatusConflict {
		t.Errorf("afterwards: %d %v", status, answer)
	}
	if log, _ := p.out.now(); strings.Contains(log, googleSecret) || strings.Contains(log, refresh) {
		t.Error("the log has a secret")
	}
}
