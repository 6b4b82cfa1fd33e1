package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// lender is an app that is lent what people have at the provider, and asks as itself.
type lender struct {
	t     *testing.T
	at    string // listen.grants
	token string
	tls   *x509.CertPool // what speaks for listen.grants; nil: it is in the clear

	mu        sync.Mutex
	assertion string // of the newest request of a person
}

func (l *lender) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	l.assertion = r.Header.Get("X-Sallyport-Assertion")
	l.mu.Unlock()
	w.Header().Set("Content-Type", "text/html")
	_, _ = io.WriteString(w, "<!DOCTYPE html><title>Planner</title><h1>The planner</h1>")
}

func (l *lender) base() string {
	if l.tls == nil {
		return "http://" + l.at
	}
	return "https://" + l.at
}

func (l *lender) asks(method, path string) (status int, answer map[string]any) {
	l.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, l.base()+path, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	r.Header.Set("X-Sallyport-Assertion", l.assertion)
	l.mu.Unlock()
	r.Header.Set("Authorization", "Bearer "+l.token)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: l.tls}}}
	defer client.CloseIdleConnections()
	res, err := client.Do(r)
	if err != nil {
		l.t.Fatal(err)
	}
	defer res.Body.Close()
	_ = json.NewDecoder(res.Body).Decode(&answer)
	return res.StatusCode, answer
}

// What people have at a provider that nobody here wrote, lent to an app: connected by
// keyboard, refreshed while each refresh token is good for one refresh, kept from writing,
// and ended there too. Its API is the userinfo endpoint.
func TestP12_AnAppIsLentAnAccountAtAProviderNobodyHereWrote(t *testing.T) {
	t.Parallel()
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s := overHTTP(address)
	app := &lender{t: t, token: strings.Repeat("planner-token-", 3)}
	if app.at, err = freeAddress(); err != nil {
		t.Fatal(err)
	}
	page := httptest.NewServer(app)
	t.Cleanup(page.Close)
	key, err := exec.Command(world.binary, "genkey").Output()
	if err != nil {
		t.Fatal(err)
	}
	audit := filepath.Join(t.TempDir(), "audit")
	if s.Admin, err = freeAddress(); err != nil {
		t.Fatal(err)
	}
	s.Stored, s.GrantsAt, s.Log = true, app.at, fmt.Sprintf("{level: debug, format: text, audit: %s}", audit)
	s.Routes = []string{fmt.Sprintf("{name: app, path: /, upstream: %q, allow: authenticated}", page.URL)}
	s.Grants = func(p *provider) string {
		return fmt.Sprintf(`
  encryption_keys: ["literal:%s"]
  apps: [{id: planner, name: Planner, token: "literal:%s", routes: [app], connectors: [things]}]
  connectors:
    - id: things
      name: Things
      type: oauth2
      client_id: %s
      client_secret: "literal:%s"
      endpoints: {authorization: "%[5]s/auth", token: "%[5]s/token", revocation: "%[5]s/token/revocation"}
      issuer: %[5]s
      base_url: %[5]s
      scopes: {read: [openid, things, offline_access]}
      rules: {read: [GET /me]}
      lost_refresh: reconnect
`, strings.TrimSpace(string(key)), app.token, p.LendingID, p.LendingSecret, p.Issuer)
	}
	c := ownCorp(t, s)
	atProvider := func(what string) int {
		text, _ := c.provider.process.out.now()
		return strings.Count(text, what)
	}
	refreshes := func() int { return atProvider("token: refresh_token of lending") }
	b := newPerson(t)
	b.signInAtProvider(c.url+"/page", "mira")
	missing := func() string {
		t.Helper()
		status, answer := app.asks("GET", "/gateway/things/me")
		link, _ := answer["connect_url"].(string)
		if status != http.StatusConflict || link == "" {
			t.Fatalf("%d %v", status, answer)
		}
		return link
	}
	link := missing()

	stranger := newPerson(t)
	stranger.signInAtProvider(c.url+"/page", "ines")
	stranger.open(link)
	stranger.says(stranger.heading("This link is not for you"), "made for somebody else")
	if n := eval[int](stranger, `document.querySelectorAll('form').length`); n != 0 {
		t.Errorf("somebody else sees %d forms", n)
	}

	b.open(c.url + "/page") // the newest request of the app is mira's again
	b.at(c.url + "/page")
	b.open(missing() + "&return_to=" + url.QueryEscape("/page?back"))
	b.heading("Planner asks to use Things")
	b.tabTo("Go on to Things")
	b.do(chromedp.KeyEvent(kb.Enter))
	b.says(b.heading("Lend it?"), "openid things")

	// The way back, in another browser and in another session: nothing is redeemed or stored.
	callback := b.catch(c.url+"/.sallyport/connect/things/callback*", "button")
	nobody := newPerson(t)
	for _, other := range []*tab{stranger, nobody} {
		other.open(callback)
		other.says(other.heading("Nothing was connected here"), "in another browser or in another session")
	}
	if n := atProvider("token: authorization_code of lending"); n != 0 {
		t.Errorf("%d codes were redeemed elsewhere", n)
	}
	missing()
	b.open(callback)
	b.at(c.url + "/page?back")
	b.open(callback) // a repeat
	b.at(c.url + "/page?back")
	if n := atProvider("token: authorization_code of lending"); n != 1 {
		t.Errorf("%d codes were redeemed", n)
	}
	if status, answer := app.asks("GET", "/gateway/things/me"); status != http.StatusOK || answer["sub"] != "mira" {
		t.Fatalf("lent: %d %v", status, answer)
	}
	status, answer := app.asks("POST", "/gateway/things/me")
	if kind, _ := answer["type"].(string); status != http.StatusForbidden || !strings.HasSuffix(kind, "/rule-denied") {
		t.Errorf("a write: %d %v", status, answer)
	}
	if n := atProvider("api: POST"); n != 0 {
		t.Errorf("%d writes arrived at the API", n)
	}
	_, answer = app.asks("POST", "/v1/leases")
	lease, _ := answer["lease"].(string)
	if lease == "" {
		t.Errorf("no lease: %v", answer)
	}
	eventually(t, "two refreshes, each with the token of the one before", func() bool {
		if status, answer := app.asks("GET", "/gateway/things/me"); status != http.StatusOK {
			t.Fatalf("%d %v", status, answer)
		}
		return refreshes() >= 2
	})
	text, _ := c.provider.process.out.now()
	if strings.Contains(text, "token refused") {
		t.Errorf("the provider refused something:\n%s", text)
	}

	b.open(c.url + "/.sallyport/account")
	b.says(b.heading("Your account"), "Things", "Planner")
	b.press("Disconnect for all apps")
	b.heading("Things is disconnected")
	missing()
	eventually(t, "it is over at the provider too", func() bool { return atProvider("grant revoked") > 0 })

	b.open(missing() + "&return_to=" + url.QueryEscape("/page?again"))
	b.press("Go on to Things")
	b.heading("Lend it?")
	b.click("button")
	b.at(c.url + "/page?again")
	if status, answer := app.asks("GET", "/gateway/things/me"); status != http.StatusOK || answer["sub"] != "mira" {
		t.Fatalf("lent again: %d %v", status, answer)
	}
	b.open(c.url + "/.sallyport/account")
	b.heading("Your account")
	html := eval[string](b, `document.documentElement.outerHTML`)
	app.leaksNothing(c, map[string]string{"the account page": html, "audit": contents(t, audit),
		"metrics": body(t, "http://"+s.Admin+"/metrics")}, app.token, lease)
}

// leaksNothing looks for what is secret where it has no business to be: in the log, the files
// of the store, and other texts. Secrets are what the provider handed out, and those of the app.
func (l *lender) leaksNothing(c *corp, texts map[string]string, secrets ...string) {
	l.t.Helper()
	log, _ := c.process.out.now()
	texts["log"] = log
	files, err := filepath.Glob(filepath.Join(c.process.cmd.Dir, "ended.db*"))
	if err != nil || len(files) < 2 { // the database and what is not yet in it
		l.t.Errorf("the store has the files %v: %v", files, err)
	}
	for _, name := range files {
		texts[filepath.Base(name)] = contents(l.t, name)
	}
	// What is there, so that the search can be seen to find something.
	for where, what := range map[string]string{"log": "connect/things", "the account page": "Things", "audit": "things",
		"metrics": "sallyport_", "ended.db-wal": "things"} {
		if !strings.Contains(texts[where], what) {
			l.t.Errorf("%s does not have %q", where, what)
		}
	}
	out, _ := c.provider.process.out.now()
	issued := 0
	for line := range strings.Lines(out) {
		if secret, ok := strings.CutPrefix(line, "secret "); ok {
			secrets = append(secrets, strings.TrimSpace(secret))
			issued++
		}
	}
	if issued < 9 { // two sign-ins, two connections, two refreshes at least
		l.t.Errorf("the provider handed out %d secrets", issued)
	}
	for where, text := range texts {
		for i, secret := range secrets {
			if strings.Contains(text, secret) {
				l.t.Errorf("%s has secret %d, %.6s…", where, i, secret)
			}
		}
	}
}

func contents(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func body(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
