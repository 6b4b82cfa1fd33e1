package command

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// canarySecret is the client secret of every provider here, in words that would
// not come about by themselves.
const canarySecret = "c4nary+client/secret=0123456789abcdef"

// binary is the program in a process of its own, between providers and an app.
type binary struct {
	public, admin string
	providers     map[string]*testenv.Faults
	config        string // file
	output        string // file with all it wrote, to stdout and stderr
	process       *exec.Cmd

	mu   sync.Mutex // guards told
	told strings.Builder
}

// startBinary writes a configuration with providers, each by its id with the
// kind it has and how it is configured, and serves it at log level debug. more are
// further keys of the configuration.
func startBinary(t *testing.T, providers map[string][2]string, key string, more ...string) *binary {
	t.Helper()
	b := &binary{providers: map[string]*testenv.Faults{}}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		defer b.mu.Unlock()
		fmt.Fprintln(&b.told, r.RequestURI, r.Header)
		_, _ = io.WriteString(w, "the app")
	}))
	t.Cleanup(app.Close)
	var err error
	if b.public, err = testenv.UnusedAddress(); err == nil {
		b.admin, err = testenv.UnusedAddress()
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, entries := t.TempDir(), ""
	for id, p := range providers {
		kind, entry := p[0], p[1]
		op := testenv.StartProvider(t, demo.ProviderOptions{ClientID: "sallyport", ClientSecret: canarySecret,
			Kind:         kind,
			RedirectURIs: []string{"http://" + b.public + "/.sallyport/callback/" + id}})
		b.providers[id] = op
		pem, err := op.Provider.PublicPEM()
		if err != nil {
			t.Fatal(err)
		}
		keyFile := filepath.Join(dir, id+".pem")
		write(t, keyFile, pem)
		secret := "env:CANARY_SECRET"
		if kind == demo.Slack {
			secret = `"literal:` + canarySecret + `"`
		}
		entries += "  - {id: " + id + ", client_id: sallyport, client_secret: " + secret + ", " +
			strings.NewReplacer("OP", op.URL, "KEY", keyFile).Replace(entry) + "}\n"
	}
	file := filepath.Join(dir, "config.yaml")
	write(t, file, "version: 1\npublic_url: http://"+b.public+"\nlisten: {http: \""+b.public+"\", admin: \""+b.admin+"\"}\n"+
		"log: {level: debug, format: json}\nsession: {keys: [\"literal:"+key+"\"]}\nproviders:\n"+entries+
		"operators: [{email_domains: [acme.example]}]\n"+
		"routes:\n  - {name: app, path: /, upstream: \""+app.URL+"\", allow: authenticated}\n"+strings.Join(more, "\n"))
	b.config = file
	b.run(t, dir, file)
	return b
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (b *binary) run(t *testing.T, dir, config string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.output = filepath.Join(dir, "output")
	out, err := os.Create(b.output)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	b.process = exec.Command(self, "serve", "-c", config)
	b.process.Env = append(os.Environ(), mainVariable+"=1", "CANARY_SECRET="+canarySecret)
	b.process.Stdout, b.process.Stderr = out, out
	if err := b.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = b.process.Process.Kill() // it has ended, but in a test that failed
		if text, err := os.ReadFile(b.output); t.Failed() && err == nil {
			t.Logf("it wrote, at the end:\n%s", text[max(0, len(text)-3000):])
		}
	})
	testenv.Eventually(t, "the program to be ready",
		func() bool { return testenv.StatusOf("http://"+b.admin+"/readyz") == http.StatusOK })
}

// stop ends it as an operator would and returns all it wrote.
func (b *binary) stop(t *testing.T) string {
	t.Helper()
	if err := b.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := b.process.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	text, err := os.ReadFile(b.output)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestP08_TheBinaryShowsNothingSecret: sign-ins with every kind of provider, good
// ones and bad ones, then everything that the process wrote, showed and told.
func TestP08_TheBinaryShowsNothingSecret(t *testing.T) {
	key := session.NewKey(time.Unix(1.7e9, 0)).Text()
	b := startBinary(t, map[string][2]string{
		"google":    {demo.Google, "type: google, issuer: OP"},
		"microsoft": {demo.Microsoft, "type: microsoft, issuer: OP, endpoints: {graph: OP}, tenant: common"},
		"pagerduty": {demo.PagerDuty,
			"type: pagerduty, issuer: OP, endpoints: {authorization: OP/authorize, token: OP/token, jwks: OP/jwks}"},
		"slack":  {demo.Slack, "type: slack, issuer: OP"},
		"github": {demo.GitHub, "type: github, base_url: OP"},
		"partner": {demo.Partner,
			"type: oidc, issuer: OP, endpoints: {authorization: OP/authorize, token: OP/token}, public_keys: " +
				"[file:KEY], " +
				"scopes: [openid, email, name], email_domains: [acme.example], quirks: [no_nonce, " +
				"raw_basic_credentials, " +
				"assume_email_verified]"},
		"perscom": {demo.Perscom,
			"type: oidc, issuer: OP, endpoints: {authorization: OP/authorize, token: OP/token, userinfo: " +
				"OP/userinfo, end_session: OP/end_session}, " +
				"scopes: [openid, profile, email, tenant], identity_from: userinfo, claims: {org_id: tenant_sub, " +
				"org_name: tenant_name}, " +
				"email_domains: [acme.example], quirks: [numeric_sub, end_session_post]"},
		"hs256": {demo.Perscom, "type: oidc, issuer: OP, endpoints: {authorization: OP/authorize, token: OP/token, " +
			"userinfo: OP/userinfo}, " +
			"scopes: [openid, profile, email, tenant], email_domains: [acme.example], quirks: [hs256_id_token, " +
			"no_nonce, numeric_sub]"},
	}, key)
	secrets, pages := &testenv.Secrets{}, &strings.Builder{}
	visit := func(page testenv.Page) testenv.Page {
		secrets.OfPage(page)
		for _, hop := range page.Hops {
			if strings.HasPrefix(hop.URL.String(), "http://"+b.public) {
				pages.WriteString(hop.Body)
			}
		}
		return page
	}
	for id, op := range b.providers {
		for _, fault := range []testenv.Fault{
			{}, {Endpoint: testenv.Token, JSON: func(a map[string]any) { a["id_token"] = a["access_token"] }},
			{Endpoint: testenv.Token, JSON: func(a map[string]any) { a["error"] = a["access_token"] }},
			{Endpoint: testenv.Token, Truncate: true},
			{Endpoint: testenv.Token, Status: 400, Body: `{"error":"c4nary-of-a-provider"}`},
			{Endpoint: testenv.Userinfo, Status: 401, Body: "c4nary-of-a-provider"},
			{Endpoint: testenv.Me, Status: 500, Body: "c4nary-of-a-provider"},
		} {
			op.Set(fault)
			browser := testenv.NewBrowser(t, nil)
			page := visit(browser.SignIn(visit(browser.Open("http://"+b.public+"/.sallyport/login?return_to=%2Fdeep&provider="+id)), "mira"))
			if fault.Endpoint == "" && page.Body != "the app" {
				t.Errorf("%s: %d at %s\n%s", id, page.Status, page.URL.Path, page.Body)
			}
			if page.Body == "the app" {
				account := visit(browser.Open("http://" + b.public + "/.sallyport/account"))
				if id != "pagerduty" && !strings.Contains(account.Body, "What providers are asked for") {
					t.Errorf("%s: no operator's account page\n%s", id, account.Body)
				}
				visit(browser.Submit(account, "", ""))
			}
		}
		secrets.OfProvider(op)
	}
	secrets.Add("word of a provider", "c4nary-of-a-provider")
	secrets.Add("client_secret", canarySecret)
	secrets.Add("session key", key[strings.LastIndexByte(key, ' ')+1:])
	metrics := testenv.BodyOf("http://" + b.admin + "/metrics")
	log := b.stop(t)
	if !strings.Contains(log, `"level":"WARN","msg":"a quirk is allowed"`) ||
		!strings.Contains(metrics, `sallyport_logins_total{provider="slack",result="ok"}`) ||
		strings.Contains(metrics, `sallyport_logins_total{provider="slack",result="ok"} 0`) {
		t.Errorf("the log or the metrics are not those of this program:\n%.2000s\n%.2000s", log, metrics)
	}
	for where, text := range map[string]string{"its output": log, "its pages": pages.String(), "its metrics": metrics,
		"what the app was told": b.told.String()} {
		if found := secrets.In(text); found != nil || len(text) < 500 {
			t.Errorf("%s (%d bytes): %v", where, len(text), found)
		}
		if shown := testenv.MarksIn(text); shown != nil || strings.Contains(text, "demo-code-") {
			t.Errorf("%s: %q, with which tokens begin, or a code is seen", where, shown)
		}
	}
}
