package assemble

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
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
		strings.Contains(w.Body.String(), `provider=cluster`) ||
		!strings.Contains(w.Body.String(), `provider=sso`) { // what a provider that is not there leads to
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

// A configuration that names another file for the token which a provider asks for is in use as
// a whole after a reload: the provider is shown what is in the new file. It went on with the old
// one, whose token somebody may have withdrawn.
func TestP15_AnotherDiscoveryTokenIsShownAfterAReload(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var shown []string
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		shown = append(shown, r.Header.Get("Authorization"))
		http.Error(w, "", http.StatusUnauthorized)
	}))
	defer issuer.Close()
	dir := t.TempDir()
	p := newProcess()
	for _, name := range []string{"one", "two"} {
		file := filepath.Join(dir, name)
		testenv.Check(t, os.WriteFile(file, []byte("eyJhbGciOiJFUzI1NiJ9.e30."+name), 0o600))
		cfg, faults := config.Parse("config.yaml", fmt.Appendf(nil, `version: 1
public_url: %s
session: {keys: ["literal:sallyport-key-1 2026-01-02T09:00:00Z AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"]}
providers:
  - {id: cluster, type: oidc, use: tokens, issuer: %q, discovery_token: "file:%s"}
  - {id: sso, type: oidc, issuer: "http://localhost:1", client_id: c, client_secret: "literal:s"}
routes:
  - {name: jobs, path: /, upstream: "http://127.0.0.1:1", allow: authenticated,
     bearer: {provider: cluster, audiences: [jobs]}}
`, publicURL, strings.Replace(issuer.URL, "127.0.0.1", "localhost", 1), file))
		testenv.Check(t, faults.Err())
		sec, err := Resolve(cfg, os.LookupEnv)
		testenv.Check(t, err)
		rt, err := p.Build(cfg, sec)
		testenv.Check(t, err)
		p.Swap(rt)
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = "localhost:4180"
		r.Header.Set("Authorization", "Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.e30.c2ln")
		p.ServeHTTP(w, r)
		if mu.Lock(); !slices.Contains(shown, "Bearer eyJhbGciOiJFUzI1NiJ9.e30."+name) {
			t.Errorf("with the configuration that names the file %s, the provider was shown %q (%d %s)", name, shown,
				w.Code, w.Body)
		}
		mu.Unlock()
	}
}

// What a provider is made of and %#v shows by its address only says nothing of whether it is
// another one: sumOf leaves each such option out, and counts what it stands for by itself.
func TestP15_NoProviderIsKnownByTheAddressOfAFunction(t *testing.T) {
	t.Parallel()
	var o login.Options
	all := reflect.ValueOf(&o).Elem()
	for i := range all.NumField() {
		switch f := all.Field(i); f.Kind() {
		case reflect.Func:
			f.Set(reflect.MakeFunc(f.Type(), nil))
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
		}
	}
	o = summed(o)
	for i := range all.NumField() {
		switch f := all.Field(i); f.Kind() {
		case reflect.Func, reflect.Pointer, reflect.Interface, reflect.Chan:
			if !f.IsNil() {
				t.Errorf("login.Options.%s is counted by its address", all.Type().Field(i).Name)
			}
		}
	}
}

// P16: what a program of a provider for tokens has been let in for goes on through a reload that
// changes nothing about it, and ends where the route takes no tokens of that provider any more.
// It ended with every reload, because nobody signs in at such a provider.
func TestP16_AStreamOfAProviderForTokensOutlivesAReload(t *testing.T) {
	t.Parallel()
	issuer := newTokenIssuer(t)
	pieces := make(chan string)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for piece := range pieces {
			_, _ = io.WriteString(w, piece)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	defer app.Close()
	defer close(pieces)
	p := newProcess()
	swap := func(takes string) {
		cfg, faults := config.Parse("config.yaml", fmt.Appendf(nil, `version: 1
public_url: %s
session: {keys: ["literal:sallyport-key-1 2026-01-02T09:00:00Z AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"]}
providers:
  - {id: cluster, type: oidc, use: tokens, issuer: "https://cluster.example", public_keys: [%[3]q]}
  - {id: other, type: oidc, use: tokens, issuer: "https://other.example", public_keys: [%[3]q]}
  - {id: sso, type: oidc, issuer: "http://localhost:1", client_id: c, client_secret: "literal:s"}
routes:
  - {name: jobs, path: /, upstream: %[2]q, allow: authenticated, bearer: {provider: %[4]s, audiences: [jobs]}}
  - {name: one, path: /one, upstream: %[2]q, allow: authenticated, bearer: {provider: cluster, audiences: [one]}}
  - {name: two, path: /two, upstream: %[2]q, allow: authenticated, bearer: {provider: other, audiences: [two]}}
`, publicURL, app.URL, "file:"+issuer.file, takes))
		testenv.Check(t, faults.Err())
		sec, err := Resolve(cfg, os.LookupEnv)
		testenv.Check(t, err)
		rt, err := p.Build(cfg, sec)
		testenv.Check(t, err)
		p.Swap(rt)
	}
	swap("cluster")
	front := httptest.NewServer(p)
	defer front.Close()
	r, err := http.NewRequest(http.MethodGet, front.URL, nil)
	testenv.Check(t, err)
	r.Host = host + ":4180"
	r.Header.Set("Authorization", "Bearer "+issuer.token(t, "https://cluster.example", "jobs"))
	go func() { pieces <- "one." }()
	res, err := front.Client().Do(r)
	testenv.Check(t, err)
	defer res.Body.Close()
	reads := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
			t.Fatalf("%d: read %q, %v", res.StatusCode, got, err)
		}
	}
	reads("one.")
	swap("cluster")
	time.Sleep(1500 * time.Millisecond) // longer than it takes to look at a stream again
	pieces <- "two."
	reads("two.")
	swap("other")
	if rest, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("its token is not taken any more, and it ended well, with %q", rest)
	}
}

// tokenIssuer makes access tokens (RFC 9068).
type tokenIssuer struct {
	signer jose.Signer
	file   string // has the public key
}

func newTokenIssuer(t *testing.T) *tokenIssuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testenv.Check(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	testenv.Check(t, err)
	file := filepath.Join(t.TempDir(), "key.pem")
	testenv.Check(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key},
		(&jose.SignerOptions{}).WithType("at+jwt"))
	testenv.Check(t, err)
	return &tokenIssuer{signer, file}
}

func (i *tokenIssuer) token(t *testing.T, issuer, audience string) string {
	t.Helper()
	now := time.Now()
	token, err := jwt.Signed(i.signer).Claims(jwt.Claims{Issuer: issuer, Subject: "robot",
		Audience: jwt.Audience{audience}, ID: "1", IssuedAt: jwt.NewNumericDate(now),
		Expiry: jwt.NewNumericDate(now.Add(time.Hour))}).Serialize()
	testenv.Check(t, err)
	return token
}
