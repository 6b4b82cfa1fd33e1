package assemble

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// keyDirectory is what session.keys names with dir:.
type keyDirectory struct {
	t    *testing.T
	path string
}

func (d keyDirectory) put(name string, key session.Key) {
	d.t.Helper()
	testenv.Check(d.t, os.WriteFile(filepath.Join(d.path, name), []byte(key.Text()+"\n"), 0o600))
}

func (d keyDirectory) remove(name string) {
	d.t.Helper()
	testenv.Check(d.t, os.Remove(filepath.Join(d.path, name)))
}

// configuration leads to an app.
func (d keyDirectory) configuration(app string) *config.Config {
	d.t.Helper()
	cfg, faults := config.Parse("config.yaml", fmt.Appendf(nil, `version: 1
public_url: %s
session: {keys: [%q]}
providers: [{id: sso, type: oidc, issuer: "http://localhost:1", client_id: c, client_secret: "literal:s"}]
routes: [{name: app, path: /, upstream: %q, allow: authenticated}]
`, publicURL, "dir:"+d.path, app))
	testenv.Check(d.t, faults.Err())
	return cfg
}

// reload reads the configuration, and with it the directory, and swaps.
func (d keyDirectory) reload(process *Process, app string) *Runtime {
	d.t.Helper()
	cfg := d.configuration(app)
	sec, err := Resolve(cfg, os.LookupEnv)
	testenv.Check(d.t, err)
	rt, err := process.Build(cfg, sec)
	testenv.Check(d.t, err)
	process.Swap(rt)
	return rt
}

// A key comes, signs once it is old enough, and the one before it goes: what an
// app, a browser and an operator see of it.
func TestKeysThatComeAndGoInADirectory(t *testing.T) {
	dir := keyDirectory{t, t.TempDir()}
	now := time.Now()
	oldest, next := session.NewKey(now.Add(-time.Hour)), session.NewKey(now.Add(-20*time.Minute))
	young := session.NewKey(now)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Sallyport-Assertion"))
	}))
	defer app.Close()
	process := newProcess()
	dir.put("zz", oldest)
	rt := dir.reload(process, app.URL)
	front := httptest.NewServer(process)
	defer front.Close()
	client := front.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

	published := func() (kids []string) {
		t.Helper()
		status, text := ask(t, client, "GET", front.URL+"/.sallyport/jwks.json", "", nil)
		var set jose.JSONWebKeySet
		if err := json.Unmarshal([]byte(text), &set); err != nil || status != http.StatusOK {
			t.Fatalf("JWKS: %d %v", status, err)
		}
		for _, k := range set.Keys {
			kids = append(kids, k.KeyID)
		}
		return kids
	}
	signer := func(cookie string) string {
		t.Helper()
		status, text := ask(t, client, "GET", front.URL+"/page", cookie, nil)
		token, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil || status != http.StatusOK {
			t.Fatalf("the app was asked: %d %v", status, err)
		}
		return token.Signatures[0].Header.KeyID
	}
	refused := func(cookie string) {
		t.Helper()
		if status, _ := ask(t, client, "GET", front.URL+"/page", cookie, nil); status != http.StatusUnauthorized {
			t.Errorf("a cookie of a removed key: %d", status)
		}
	}

	ofOldest := signIn(t, rt, "alice")
	first := signer(ofOldest)
	if kids := published(); !slices.Equal(kids, []string{first}) {
		t.Fatalf("published: %v", kids)
	}

	dir.put("aa", next)
	dir.put("mm", young)
	rt = dir.reload(process, app.URL)
	ofNext := signIn(t, rt, "bob")
	second := signer(ofNext)
	kids := published()
	if len(kids) != 3 || kids[0] != first || kids[1] != second {
		t.Errorf("published: %v, the first key is %s and the one that signs %s", kids, first, second)
	}
	if signer(ofOldest) != second {
		t.Error("an assertion for a cookie of the old key is not signed by the new one")
	}

	dir.remove("zz")
	dir.reload(process, app.URL)
	refused(ofOldest)
	if signer(ofNext) != second || !slices.Equal(published(), kids[1:]) {
		t.Errorf("published: %v", published())
	}

	dir.remove("aa") // the key that is left is young, and signs at once
	rt = dir.reload(process, app.URL)
	refused(ofNext)
	if signer(signIn(t, rt, "carol")) != kids[2] || !slices.Equal(published(), kids[2:]) {
		t.Errorf("published: %v", published())
	}
}

// Which of many files is wrong, and never what is in it.
func TestFileThatIsNoKeyIsNamedAndNotShown(t *testing.T) {
	dir := keyDirectory{t, t.TempDir()}
	key := session.NewKey(time.Now())
	dir.put("a", key)
	for name, tc := range map[string]struct{ text, want string }{
		"a password": {"hunter2-hunter2-hunter2", "not a session key: `sallyport genkey` prints one: file " +
			dir.path + "/b"},
		"half a key":  {key.Text()[:60], "base64url): file " + dir.path + "/b"},
		"two keys":    {key.Text() + "\n" + key.Text(), "prints one: file " + dir.path + "/b"},
		"a key twice": {key.Text(), "the same session key is in " + dir.path + "/a and in " + dir.path + "/b"},
	} {
		t.Run(name, func(t *testing.T) {
			testenv.Check(t, os.WriteFile(filepath.Join(dir.path, "b"), []byte(tc.text), 0o600))
			_, err := Resolve(dir.configuration("http://127.0.0.1:1"), os.LookupEnv)
			if err == nil || !strings.Contains(err.Error(), "session.keys[0]: ") ||
				!strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v\nwant %s", err, tc.want)
			}
			secret := strings.Fields(key.Text())[2][:20]
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), secret) {
				t.Errorf("shown: %v", err)
			}
		})
	}
}

// A key that is another certificate's is found by `check --values` at each listener, with its
// place in the file: that of two was found by the start alone, and a reload did not say where.
func TestP15_AKeyOfAnotherCertificateIsPointedAt(t *testing.T) {
	t.Parallel()
	until := time.Now().Add(time.Hour)
	dir := testenv.TLSFiles{T: t, Dir: t.TempDir()}
	one := testenv.NewKeyPair(t, "a.example", until)
	dir.Write("cert", one.Cert, 0o600)
	dir.Write("own", one.Key, 0o600)
	dir.Write("other", testenv.NewKeyPair(t, "a.example", until).Key, 0o600)
	const lending = `grants:
  encryption_keys: ["literal:sallyport-key-1 2026-01-02T09:00:00Z ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8"]
  connectors: [{id: k, type: google_calendar, client_id: c, client_secret: "literal:s"}]
  apps: [{id: a, token: "literal:0123456789abcdef0123456789abcdef", routes: [app], connectors: [k]}]
store: sqlite:/s.db
`
	for listener, tt := range map[string]struct{ keys, rest string }{
		"https":         {`address: "127.0.0.1:4443"`, ""},
		"external_auth": {`address: "127.0.0.1:4182", peers: ["127.0.0.1"]`, ""},
		"grants":        {`address: "127.0.0.1:4184"`, lending},
	} {
		resolve := func(key string) error {
			cfg, faults := config.Parse("config.yaml", fmt.Appendf(nil, `version: 1
public_url: https://a.example
listen: {%s: {%s, cert: "file:%s", key: "file:%s"}}
session: {keys: ["literal:sallyport-key-1 2026-01-02T09:00:00Z AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"]}
providers: [{id: sso, type: oidc, issuer: "http://localhost:1", client_id: c, client_secret: "literal:s"}]
routes: [{name: app, path: /, upstream: "http://127.0.0.1:1", allow: authenticated}]
%s`, listener, tt.keys, dir.Path("cert"), dir.Path(key), tt.rest))
			testenv.Check(t, faults.Err())
			_, err := Resolve(cfg, os.LookupEnv)
			return err
		}
		testenv.Check(t, resolve("own"))
		want := fmt.Sprintf("config.yaml:3:%d: listen.%s: ", len("listen: {: ")+len(listener)+1, listener) +
			"the certificate and its key do not work together"
		if err := resolve("other"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", listener, err)
		}
	}
}
