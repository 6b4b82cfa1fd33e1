package command

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// TestP08_EveryProviderSignsInFromItsConfiguration goes from the file to what
// the app is told, once for each kind of provider, and then looks for tokens in
// all that was written: cookies, pages, headers and the log.
func TestP08_EveryProviderSignsInFromItsConfiguration(t *testing.T) {
	const secret = "+/=0123456789:0123456789abcdefgh" // 32 bytes, with letters that encodings disagree on
	acmeAtGitHub := strconv.FormatInt(demo.GitHubID("acme"), 10)
	rows := []struct {
		name, kind, config string // of the provider; OP is its address, KEY the file with its key
		user, email, org   string // what the app is told of mira
	}{
		{"google", demo.Google, "type: google, issuer: OP, hosted_domains: [acme.example]",
			"p:104339406236076858110", "mira@acme.example", "p:acme.example|acme.example|acme.example"},
		{"microsoft", demo.Microsoft, "type: microsoft, issuer: OP, endpoints: {graph: OP}, tenant: common",
			"p:822b33ad-87c1-48a0-a20a-5ba7cd5ebcaa/3c38aafb-0579-dafe-18bb-584dce2786cc", "mira@acme.example",
			"p:822b33ad-87c1-48a0-a20a-5ba7cd5ebcaa|Acme Rockets|acme.example"},
		{"pagerduty", demo.PagerDuty,
			"type: pagerduty, issuer: OP, endpoints: {authorization: OP/authorize, token: OP/token, jwks: OP/jwks}",
			"p:PM6C63M/PHQ4KV6", "", "p:PM6C63M|acme-demo|acme-demo.pagerduty.com"},
		{"slack", demo.Slack, "type: slack, issuer: OP",
			"p:TQIVTHLMHYF/UHQ4KV6YFPH", "mira@acme.example", "p:TQIVTHLMHYF|Acme Rockets|acme-demo.slack.com"},
		{"github", demo.GitHub, "type: github, base_url: OP, allowed_orgs: [\"" + acmeAtGitHub + "\"]",
			"p:" + strconv.FormatInt(demo.GitHubID("mira"), 10), "mira@acme.example", "p:" + acmeAtGitHub + "|acme|"},
		{"seed 002", demo.Partner,
			"type: oidc, issuer: OP, endpoints: {authorization: OP/authorize, token: OP/token}, public_keys: " +
				"[file:KEY], " +
				"scopes: [openid, email, name], email_domains: [acme.example], quirks: [no_nonce, " +
				"raw_basic_credentials, " +
				"assume_email_verified]",
			"p:mira", "mira@acme.example", "||"},
		{"seed 003", demo.Perscom,
			"type: oidc, issuer: OP, endpoints: {authorization: OP/authorize, token: OP/token, userinfo: " +
				"OP/userinfo, end_session: OP/end_session}, " +
				"scopes: [openid, profile, email, tenant], identity_from: userinfo, claims: {org_id: tenant_sub, " +
				"org_name: tenant_name}, " +
				"email_domains: [acme.example], quirks: [numeric_sub, end_session_post]",
			"p:1", "mira@acme.example", "p:1|Acme Rockets|"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var log bytes.Buffer
			var told http.Header
			app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				told = r.Header.Clone()
				_, _ = io.WriteString(w, "the app")
			}))
			defer app.Close()
			front := httptest.NewUnstartedServer(nil)
			defer front.Close()
			public := "http://" + front.Listener.Addr().String()
			op := testenv.StartProvider(t, demo.ProviderOptions{ClientID: "sallyport", ClientSecret: secret,
				RedirectURIs: []string{public + "/.sallyport/callback/p"}, Kind: row.kind})
			key := filepath.Join(t.TempDir(), "key.pem")
			text, err := op.Provider.PublicPEM()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(key, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			file := "version: 1\npublic_url: " + public + "\nsession: {keys: [\"literal:" +
				session.NewKey(time.Unix(1.7e9, 0)).Text() + "\"]}\n" +
				"providers:\n  - {id: p, client_id: sallyport, client_secret: env:SECRET, " +
				strings.NewReplacer("OP", op.URL, "KEY", key).Replace(row.config) + "}\n" +
				"routes:\n  - {name: app, path: /, upstream: \"" + app.URL + "\", allow: authenticated}\n"
			cfg, _, err := parseConfig("config.yaml", []byte(file))
			if err != nil {
				t.Fatal(err)
			}
			sec, err := assemble.Resolve(cfg, func(name string) (string, bool) { return secret, name == "SECRET" })
			if err != nil {
				t.Fatal(err)
			}
			door, err := newFrontDoor(cfg, sec, prometheus.NewRegistry(), slog.New(slog.NewJSONHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			front.Config.Handler = door
			front.Start()

			browser := testenv.NewBrowser(t, nil)
			page := browser.SignIn(browser.Open(public+"/"), "mira")
			if page.Body != "the app" {
				t.Fatalf("%d at %s:\n%s\n%s", page.Status, page.URL, page.Body, &log)
			}
			org := strings.Join([]string{told.Get("X-Forwarded-Org-Id"), told.Get("X-Forwarded-Org-Name"),
				told.Get("X-Forwarded-Org-Domain")}, "|")
			if got := told.Get("X-Forwarded-User"); got != row.user || told.Get("X-Forwarded-Email") != row.email ||
				org != row.org {
				t.Errorf("the app was told %q, %q, %q", got, told.Get("X-Forwarded-Email"), org)
			}
			seen := log.String() + page.Body
			for _, hop := range page.Hops {
				if strings.HasPrefix(hop.URL.String(), public) {
					seen += hop.Body + strings.Join(hop.Header.Values("Set-Cookie"), " ") + hop.Header.Get("Location")
				}
			}
			for _, values := range told {
				seen += strings.Join(values, " ")
			}
			for _, mark := range append(testenv.Marks(row.kind), secret) {
				if strings.Contains(seen, mark) {
					t.Errorf("%q is seen", mark)
				}
			}
		})
	}
}

// TestAProviderWhoseCertificateIsFromAnAuthorityOfItsOwn signs in over https
// that nobody but the provider's `ca` vouches for: every call of ours does.
func TestAProviderWhoseCertificateIsFromAnAuthorityOfItsOwn(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
		r *http.Request) {
		_, _ = io.WriteString(w, "the app")
	}))
	defer app.Close()
	provider := httptest.NewUnstartedServer(nil)
	provider.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	defer provider.Close()
	issuer := "https://" + provider.Listener.Addr().String()
	for _, trusted := range []bool{true, false} {
		front := httptest.NewUnstartedServer(nil)
		defer front.Close()
		public := "http://" + front.Listener.Addr().String()
		op, err := demo.NewProvider(demo.ProviderOptions{Issuer: issuer, ClientID: "sallyport", ClientSecret: "s",
			RedirectURIs: []string{public + "/.sallyport/callback/p"}})
		if err != nil {
			t.Fatal(err)
		}
		faults := testenv.NewFaults(op)
		if trusted {
			provider.Config.Handler = faults
			provider.StartTLS()
		}
		ca := filepath.Join(t.TempDir(), "ca.pem")
		certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: provider.Certificate().Raw})
		if err := os.WriteFile(ca, certificate, 0o644); err != nil {
			t.Fatal(err)
		}
		file := "version: 1\npublic_url: " + public + "\nsession: {keys: [\"literal:" +
			session.NewKey(time.Unix(1.7e9, 0)).Text() + "\"]}\n" +
			"providers:\n  - {id: p, type: oidc, issuer: \"" + issuer + "\", ca: \"file:" + ca +
			"\", client_id: sallyport, client_secret: \"literal:s\", identity_from: userinfo}\n" +
			"routes:\n  - {name: app, path: /, upstream: \"" + app.URL + "\", allow: authenticated}\n"
		if !trusted {
			file = strings.Replace(file, "ca: \"file:"+ca+"\", ", "", 1)
		}
		var log bytes.Buffer
		cfg, _, err := parseConfig("config.yaml", []byte(file))
		if err != nil {
			t.Fatal(err)
		}
		sec, err := assemble.Resolve(cfg, func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(err)
		}
		door, err := newFrontDoor(cfg, sec, prometheus.NewRegistry(), slog.New(slog.NewJSONHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		front.Config.Handler = door
		front.Start()
		browser := testenv.NewBrowser(t, provider.Client().Transport)
		page := browser.Open(public + "/")
		if !trusted {
			if page.Status != http.StatusServiceUnavailable ||
				!strings.Contains(log.String(), "ca of the provider says who may vouch for it") {
				t.Errorf("without ca: %d\n%s", page.Status, &log)
			}
			continue
		}
		if page = browser.SignIn(page, "mira"); page.Body != "the app" {
			t.Fatalf("%d at %s:\n%s\n%s", page.Status, page.URL, page.Body, &log)
		}
		for _, call := range []string{testenv.Discovery, testenv.Token, testenv.JWKS, testenv.Userinfo} {
			if faults.Hits(call) != 1 {
				t.Errorf("%s was asked %d times", call, faults.Hits(call))
			}
		}
	}
}

// TestWhoSignsOutAtTheProviderComesBackToAPageOfOurs goes there and back, where
// the page is registered and the configuration says so; without that the strict
// provider would show an error.
func TestWhoSignsOutAtTheProviderComesBackToAPageOfOurs(t *testing.T) {
	for config, want := range map[string]string{
		"logout: {return_param: post_logout_redirect_uri}": "FRONT/.sallyport/logout",
		"name: p": "OP/end_session",
		"logout: {params: {post_logout_redirect_uri: \"https://elsewhere.example/\"}}": "400 OP/end_session",
		"logout: false": "",
	} {
		front := httptest.NewUnstartedServer(nil)
		defer front.Close()
		public := "http://" + front.Listener.Addr().String()
		op := testenv.StartProvider(t, demo.ProviderOptions{ClientID: "sallyport", ClientSecret: "s",
			RedirectURIs:   []string{public + "/.sallyport/callback/p"},
			PostLogoutURIs: []string{public + "/.sallyport/logout"}})
		cfg, _, err := parseConfig("config.yaml",
			[]byte("version: 1\npublic_url: "+public+"\nsession: {keys: [\"literal:"+session.NewKey(time.Unix(1.7e9,
				0)).Text()+"\"]}\n"+
				"providers:\n  - {id: p, type: oidc, issuer: \""+op.URL+"\", client_id: sallyport, client_secret: "+
				"\"literal:s\", "+config+"}\n"+
				"routes:\n  - {name: app, path: /, upstream: \"http://127.0.0.1:1\", allow: authenticated}\n"))
		if err != nil {
			t.Fatal(err)
		}
		sec, err := assemble.Resolve(cfg, func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(err)
		}
		door, err := newFrontDoor(cfg, sec, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		front.Config.Handler = door
		front.Start()
		browser := testenv.NewBrowser(t, nil)
		page := browser.Open(public + "/.sallyport/logout?provider=p")
		link := regexp.MustCompile(`<a class="button plain" href="([^"]+)">Sign out of p too`).FindStringSubmatch(page.Body)
		if (link != nil) != (want != "") {
			t.Errorf("%s: offered %q", config, link)
		}
		if link == nil {
			continue
		}
		page = browser.Open(html.UnescapeString(link[1]))
		got, _, _ := strings.Cut(page.URL.String(), "?")
		if page.Status != http.StatusOK {
			got = strconv.Itoa(page.Status) + " " + got
		}
		if got = strings.NewReplacer(public, "FRONT", op.URL, "OP").Replace(got); got != want {
			t.Errorf("%s: ended at %s", config, got)
		}
	}
}

// TestWorkloadIdentityNeedsNoSecretInTheConfiguration: a token in a file proves
// the client, and the file is read again for each sign-in, as Kubernetes renews it.
func TestWorkloadIdentityNeedsNoSecretInTheConfiguration(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
		r *http.Request) {
		_, _ = io.WriteString(w, "the app")
	}))
	defer app.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key.pem"),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	for config, trust := range map[string]demo.ClientTrust{
		"client_auth: assertion, client_assertion: \"file:DIR/token\"": {Key: key.Public(),
			Issuer: "https://cluster.example", Subject: "system:serviceaccount:web:sallyport"},
		"client_auth: private_key_jwt, client_key: \"file:DIR/key.pem\", client_key_id: k-1": {Key: key.Public(),
			Issuer: "sallyport", Subject: "sallyport"},
	} {
		front := httptest.NewUnstartedServer(nil)
		defer front.Close()
		public := "http://" + front.Listener.Addr().String()
		op := testenv.StartProvider(t, demo.ProviderOptions{ClientID: "sallyport", ClientSecret: "s", Trust: &trust,
			RedirectURIs: []string{public + "/.sallyport/callback/p"}})
		issue := func(life time.Duration) {
			signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
			if err != nil {
				t.Fatal(err)
			}
			jws, err := signer.Sign(fmt.Appendf(nil, `{"iss":%q,"sub":%q,"aud":%q,"exp":%d}`, trust.Issuer,
				trust.Subject, op.URL, time.Now().Add(life).Unix()))
			if err != nil {
				t.Fatal(err)
			}
			token, err := jws.CompactSerialize()
			if err != nil {
				t.Fatal(err)
			}
			// as the kubelet writes them
			if err := os.WriteFile(filepath.Join(dir, "token"), []byte(token+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		issue(-time.Minute)
		cfg, _, err := parseConfig("config.yaml",
			[]byte("version: 1\npublic_url: "+public+"\nsession: {keys: [\"literal:"+session.NewKey(time.Unix(1.7e9,
				0)).Text()+"\"]}\n"+
				"providers:\n  - {id: p, type: oidc, "+
				"issuer: \""+op.URL+"\", client_id: sallyport, "+strings.ReplaceAll(config, "DIR", dir)+"}\n"+
				"routes:\n  - {name: app, path: /, upstream: \""+app.URL+"\", allow: authenticated}\n"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := summarize(cfg); err != nil {
			t.Errorf("permissions, without secrets: %v", err)
		}
		sec, err := assemble.Resolve(cfg, func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		door, err := newFrontDoor(cfg, sec, prometheus.NewRegistry(), slog.New(slog.NewJSONHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		front.Config.Handler = door
		front.Start()
		issue(time.Minute)
		browser := testenv.NewBrowser(t, nil)
		if page := browser.SignIn(browser.Open(public+"/"), "mira"); page.Body != "the app" {
			t.Errorf("%s: %d at %s:\n%s", config, page.Status, page.URL, &log)
		}
	}
}
