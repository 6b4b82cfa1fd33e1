package assemble

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

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
  - {name: jobs, path: /, upstream: "http://127.0.0.1:1", allow: authenticated, bearer: {provider: cluster, audiences: [jobs]}}
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
