package command

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// keyedSite is a Sallyport that follows a directory of keys, with a provider and an app.
type keyedSite struct {
	*follower
	keys string
}

// startKeyed serves with the keys that are in a directory.
func startKeyed(t *testing.T, keys string) keyedSite {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "the app")
	}))
	t.Cleanup(app.Close)
	f := newFollower(t, filepath.Join(t.TempDir(), "config.yaml"))
	provider := testenv.StartProvider(t, demo.ProviderOptions{ClientID: "sallyport", ClientSecret: canarySecret,
		RedirectURIs: []string{"http://" + f.public + "/.sallyport/callback/sso"}})
	write(t, f.file, "version: 1\npublic_url: http://"+f.public+"\nlisten: {http: \""+f.public+"\", admin: \""+f.admin+"\"}\n"+
		"reload: {debounce: 100ms}\nsession: {keys: [\"dir:"+keys+"\"]}\nproviders:\n"+
		"  - {id: sso, type: oidc, issuer: \""+provider.URL+"\", client_id: sallyport, client_secret: \"literal:"+canarySecret+"\"}\n"+
		"routes:\n  - {name: app, path: /, upstream: \""+app.URL+"\", allow: authenticated}\n")
	f.start()
	return keyedSite{f, keys}
}

func keyAged(age time.Duration) string { return session.NewKey(time.Now().Add(-age)).Text() }

// signIn returns the browser of somebody who has just signed in.
func (s keyedSite) signIn() *testenv.Browser {
	s.t.Helper()
	browser := testenv.NewBrowser(s.t, nil)
	if page := browser.SignIn(browser.Open("http://"+s.public+"/"), "mira"); page.Body != "the app" {
		s.t.Fatalf("not signed in: %d at %s:\n%s", page.Status, page.URL, page.Body)
	}
	return browser
}

// isSignedIn reports whether the app is reached without another sign-in.
func (s keyedSite) isSignedIn(browser *testenv.Browser) bool {
	s.t.Helper()
	page := browser.Open("http://" + s.public + "/page")
	return page.Body == "the app" && len(page.Hops) == 1
}

// published are the ids of the keys that apps verify assertions with.
func (s keyedSite) published() (kids []string) {
	s.t.Helper()
	var set struct{ Keys []struct{ Kid string } }
	testenv.Check(s.t, json.Unmarshal([]byte(testenv.BodyOf("http://"+s.public+"/.sallyport/jwks.json")), &set))
	for _, key := range set.Keys {
		kids = append(kids, key.Kid)
	}
	return kids
}

// genkey adds a key as an operator does, and returns its file.
func (s keyedSite) genkey() string {
	s.t.Helper()
	var out bytes.Buffer
	c := &console{stdout: &out, stderr: &out, env: os.LookupEnv}
	code := run([]string{"genkey", "--into", s.keys}, c)
	path, rest, _ := strings.Cut(out.String(), " ")
	if code != exitOK || !strings.HasPrefix(rest, "signs from ") {
		s.t.Fatalf("exit code %d: %s", code, &out)
	}
	return path
}

// From `genkey --into` to the old key's end, in a process that runs all the time.
func TestKeysAreChangedWhileSallyportRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := filepath.Join(dir, "old")
	write(t, old, keyAged(time.Hour))
	s := startKeyed(t, dir)
	alice := s.signIn()
	before := s.published()

	s.genkey()
	s.awaits(generation, 2)
	bob := s.signIn()
	both := s.published()
	if len(both) != 2 || both[0] != before[0] {
		t.Errorf("published are %v, and before %v", both, before)
	}
	if !s.isSignedIn(alice) || !s.isSignedIn(bob) {
		t.Error("somebody was signed out by a key that was added")
	}

	// What is no key changes nothing, and its text is not told.
	note := filepath.Join(dir, "note")
	write(t, note, "canary-of-a-note")
	s.awaits(successful, 0)
	if !s.isSignedIn(alice) || len(s.published()) != 2 {
		t.Error("a file that is no key changed something")
	}
	testenv.Eventually(t, "the file to be named", func() bool {
		return strings.Contains(s.log.String(), "prints one: file "+note)
	})
	testenv.Check(t, os.Remove(note))
	s.awaits(successful, 1)

	late := testenv.NewBrowser(t, nil)
	atProvider := late.Open("http://" + s.public + "/")
	testenv.Check(t, os.Remove(old))
	s.awaits(generation, 3)
	if s.isSignedIn(alice) || s.isSignedIn(bob) {
		t.Error("a cookie of the removed key is good") // the new one was not ten minutes old when bob came
	}
	if after := s.published(); len(after) != 1 || after[0] != both[1] {
		t.Errorf("published are %v, and before %v", after, both)
	}
	if page := late.SignIn(atProvider, "mira"); !strings.Contains(page.Body, "Start again") {
		t.Errorf("a sign-in of the removed key leads to %d at %s:\n%s", page.Status, page.URL, page.Body)
	}
	if !s.isSignedIn(s.signIn()) {
		t.Error("the key that is left does not sign")
	}

	// The last key is not given up: what runs goes on.
	entries, err := os.ReadDir(dir)
	testenv.Check(t, err)
	carol := s.signIn()
	testenv.Check(t, os.Remove(filepath.Join(dir, entries[0].Name())))
	s.awaits(successful, 0)
	if !s.isSignedIn(carol) {
		t.Error("without any key somebody was signed out")
	}
	if strings.Contains(s.log.String(), "canary-of") {
		t.Error("the log shows what was in a file")
	}
}

// A Secret of Kubernetes gets another key, and loses the first: the kubelet swaps one
// link, and then adds and removes links of its own.
func TestKeysInAKubernetesVolumeAreFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	holds := func(version string, keys map[string]string) {
		t.Helper()
		testenv.Check(t, os.Mkdir(filepath.Join(dir, version), 0o755))
		for name, text := range keys {
			write(t, filepath.Join(dir, version, name), text)
		}
		testenv.Check(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
		testenv.Check(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		entries, err := os.ReadDir(dir)
		testenv.Check(t, err)
		for name := range keys {
			if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); !os.IsExist(err) {
				testenv.Check(t, err)
			}
		}
		for _, e := range entries {
			if _, still := keys[e.Name()]; !still && !strings.HasPrefix(e.Name(), "..") {
				testenv.Check(t, os.Remove(filepath.Join(dir, e.Name())))
			}
		}
	}
	first, second := keyAged(time.Hour), keyAged(30*time.Minute)
	holds("..1", map[string]string{"key-1": first})
	s := startKeyed(t, dir)
	alice := s.signIn()
	holds("..2", map[string]string{"key-1": first, "key-2": second})
	s.awaits(generation, 2)
	bob := s.signIn()
	if !s.isSignedIn(alice) || len(s.published()) != 2 {
		t.Errorf("with the second key, published are %v", s.published())
	}
	holds("..3", map[string]string{"key-2": second})
	s.awaits(generation, 3)
	if s.isSignedIn(alice) || !s.isSignedIn(bob) || len(s.published()) != 1 {
		t.Errorf("without the first key, published are %v", s.published())
	}
}
