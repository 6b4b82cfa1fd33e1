package config

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
)

// elsewhere has references in every place that takes them.
const elsewhere = `version: 1
public_url: env:PUBLIC_URL
listen:
  https: {address: ":4443", cert: file:/tls/tls.crt, key: file:/tls/tls.key}
session:
  keys:
    - dir:/keys
    - env:SESSION_KEY
    - literal:hunter2-literal
providers:
  - id: main
    type: oidc
    issuer: file:/issuer
    client_id: env:CLIENT_ID
    client_secret: file:/run/../secret
routes:
  - name: app
    path: /
    upstream: http://127.0.0.1:8080
    allow: authenticated
pages: {logo: file:/logo.png}
`

func environment(pairs ...string) map[string]string {
	env := map[string]string{"PUBLIC_URL": "https://App.example.com/\n", "SESSION_KEY": "hunter2-env",
		"CLIENT_ID": "client"}
	for i := 0; i < len(pairs); i += 2 {
		env[pairs[i]] = pairs[i+1]
	}
	return env
}

func aFile(mode fs.FileMode, text string) *fstest.MapFile {
	return &fstest.MapFile{Mode: mode, Data: []byte(text)}
}

// disk is a file system with all that elsewhere refers to.
func disk() fstest.MapFS {
	return fstest.MapFS{
		"tls/tls.crt":    aFile(0o644, "CERT\nCHAIN\n"),
		"tls/tls.key":    aFile(0o640, "hunter2-tls\n\n"),
		"keys/b":         aFile(0o600, "hunter2-b\n"),
		"keys/a":         aFile(0o440, "hunter2-a\r\n"),
		"keys/..data/x":  aFile(0o600, "hunter2-hidden"),
		"keys/.swp/deep": aFile(0o600, "hunter2-hidden"),
		"keys/.key":      aFile(0o666, "hunter2-hidden"),
		"issuer":         aFile(0o644, "https://sso.example.com/\n"),
		"secret":         aFile(0o600, "hunter2\n"),
		"logo.png":       aFile(0o644, "PNG"),
	}
}

func resolve(c *Config, env map[string]string, fsys fs.FS) Faults {
	return c.Resolve(func(name string) (string, bool) { v, ok := env[name]; return v, ok }, fsys)
}

func TestReferencesAreReadOnlyByResolve(t *testing.T) {
	c := parse(t, elsewhere)
	if c.PublicURL != nil || c.Providers[0].Issuer != "file:/issuer" || c.Providers[0].ClientSecret.Value() != "" {
		t.Error("values before Resolve")
	}
	for range 2 { // a second time gives the same
		if faults := resolve(c, environment(), disk()); faults != nil {
			t.Fatalf("faults:\n%v", faults)
		}
	}
	p := c.Providers[0]
	for what, pair := range map[string][2]string{
		"public_url":    {c.PublicURL.String(), "https://app.example.com"},
		"host":          {c.Routes[0].Host, "app.example.com"},
		"issuer":        {p.Issuer, "https://sso.example.com/"},
		"client_id":     {p.ClientID, "client"},
		"client_secret": {p.ClientSecret.Value(), "hunter2"},
		"cert":          {c.Listen.HTTPS.Cert.Value(), "CERT\nCHAIN"},
		"key":           {c.Listen.HTTPS.Key.Value(), "hunter2-tls\n"}, // one newline is dropped, not two
		"logo":          {c.Pages.Logo.Value() + c.Pages.LogoType, "PNGimage/png"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %q, want %q", what, pair[0], pair[1])
		}
	}
	var keys []string
	for _, k := range c.Session.KeyTexts {
		keys = append(keys, fmt.Sprintf("%s %s %s", k.Path, k.File, k.Text()))
	}
	want := "session.keys[0] /keys/a hunter2-a|session.keys[0] /keys/b hunter2-b|session.keys[1]  " +
		"hunter2-env|session.keys[2]  hunter2-literal"
	if got := strings.Join(keys, "|"); got != want {
		t.Errorf("keys\n%s, want\n%s", got, want)
	}
	neverShown(t, c)
}

// A secret with more around it than the line break that editors add would be sent with it.
const notOneSecret = "15:20: providers[0].client_secret: the value of file /run/../secret must be a client secret " +
	"in one line: UTF-8 text without a blank, a line break or a byte order mark around it"

func secretIs(text string) func(map[string]string, fstest.MapFS) {
	return func(_ map[string]string, f fstest.MapFS) { f["secret"] = aFile(0o600, text) }
}

// P15: a value that cannot be had is a fault at the reference, never an empty
// secret. P18: what was read is in no fault.
func TestP15_EachReferenceThatCannotBeReadIsAFault(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(env map[string]string, fsys fstest.MapFS)
		want  string
	}{
		"variable missing": {func(e map[string]string, _ fstest.MapFS) { delete(e, "SESSION_KEY") },
			"8:7: session.keys[1]: variable SESSION_KEY is not set"},
		"variable empty": {func(e map[string]string, _ fstest.MapFS) { e["CLIENT_ID"] = "" },
			"14:16: providers[0].client_id: variable CLIENT_ID is empty"},
		"variable blank": {func(e map[string]string, _ fstest.MapFS) { e["SESSION_KEY"] = " \n" },
			"8:7: session.keys[1]: variable SESSION_KEY is empty"},
		"file missing": {func(_ map[string]string, f fstest.MapFS) { delete(f, "secret") },
			"15:20: providers[0].client_secret: file /run/../secret does not exist"},
		"file empty": {func(_ map[string]string, f fstest.MapFS) { f["secret"] = aFile(0o600, "\n") },
			"15:20: providers[0].client_secret: file /run/../secret is empty"},
		"blank behind the secret":           {secretIs("hunter2 \r\n"), notOneSecret},
		"line break behind the secret":      {secretIs("hunter2\n\n"), notOneSecret},
		"byte order mark before the secret": {secretIs("\ufeffhunter2\n"), notOneSecret},
		"secret in UTF-16":                  {secretIs("\xff\xfeh\x00u\x00n\x00t\x00e\x00r\x00\n\x00"), notOneSecret},
		"file for everybody": {func(_ map[string]string, f fstest.MapFS) { f["secret"].Mode = 0o644 },
			"15:20: providers[0].client_secret: everybody on this machine can read file /run/../secret (mode 0644): " +
				"run chmod o-r, or give the Kubernetes volume defaultMode 0440"},
		"TLS key for everybody": {func(_ map[string]string, f fstest.MapFS) { f["tls/tls.key"].Mode = 0o604 },
			"4:59: listen.https.key: everybody on this machine can read file /tls/tls.key (mode 0604): run chmod " +
				"o-r, or give the Kubernetes volume defaultMode 0440"},
		"file is a pipe": {func(_ map[string]string, f fstest.MapFS) { f["secret"].Mode = fs.ModeNamedPipe | 0o600 },
			"15:20: providers[0].client_secret: /run/../secret is not a regular file"},
		"file is a folder": {func(_ map[string]string, f fstest.MapFS) {
			f["secret/x"] = f["secret"]
			delete(f,
				"secret")
		}, "15:20: providers[0].client_secret: /run/../secret is not a regular file"},
		"file huge": {func(_ map[string]string, f fstest.MapFS) {
			f["secret"] = aFile(0o600, strings.Repeat("x", yamltable.MaxFile+1))
		}, "15:20: providers[0].client_secret: file /run/../secret is larger than 1048576 bytes"},
		"folder missing": {func(_ map[string]string, f fstest.MapFS) {
			for name := range f {
				if strings.HasPrefix(name, "keys/") {
					delete(f, name)
				}
			}
		}, "7:7: session.keys[0]: directory /keys does not exist"},
		"folder without files": {func(_ map[string]string,
			f fstest.MapFS) {
			delete(f, "keys/a")
			delete(f, "keys/b")
		}, "7:7: session.keys[0]: directory /keys has no files"},
		"folder holds a folder": {func(_ map[string]string, f fstest.MapFS) {
			f["keys/old/c"] = aFile(0o600,
				"hunter2-c")
		},
			"7:7: session.keys[0]: /keys/old is not a regular file"},
		"folder holds a pipe": {func(_ map[string]string, f fstest.MapFS) {
			f["keys/c"] = aFile(fs.ModeNamedPipe|0o600,
				"")
		},
			"7:7: session.keys[0]: /keys/c is not a regular file"},
		"folder holds an empty file": {func(_ map[string]string, f fstest.MapFS) { f["keys/c"] = aFile(0o600, "") },
			"7:7: session.keys[0]: file /keys/c is empty"},
		"folder is a file": {func(_ map[string]string, f fstest.MapFS) {
			for name := range f {
				if strings.HasPrefix(name, "keys/") {
					delete(f, name)
				}
			}
			f["keys"] = aFile(0o600, "hunter2-a")
		}, "7:7: session.keys[0]: /keys is not a directory; file: names a single file"},
		"folder of another program": {func(_ map[string]string, f fstest.MapFS) {
			for i := range yamltable.MaxDir {
				f[fmt.Sprintf("keys/hunter2-%d", i)] = aFile(0o644, "hunter2")
			}
		}, "7:7: session.keys[0]: directory /keys has more than 100 files"},
		"one of a folder for everybody": {func(_ map[string]string, f fstest.MapFS) { f["keys/b"].Mode = 0o644 },
			"7:7: session.keys[0]: everybody on this machine can read file /keys/b (mode 0644): run chmod o-r, or " +
				"give the Kubernetes volume defaultMode 0440"},
		"value wrong": {func(e map[string]string,
			_ fstest.MapFS) {
			e["PUBLIC_URL"] = "http://hunter2.example.com"
		}, "2:13: public_url: the value of variable " +
			"PUBLIC_URL must be https, because over plain http everybody on the way could take the session cookie " +
			"(http is for localhost and other loopback hosts)"},
		"value with password": {func(_ map[string]string,
			f fstest.MapFS) {
			f["issuer"] = aFile(0o644, "https://x:hunter2@y")
		}, "13:13: providers[0].issuer: the value of " +
			"file /issuer must be a URL without a user or password in it"},
		"value on two lines": {func(e map[string]string, _ fstest.MapFS) { e["CLIENT_ID"] = "a\nhunter2" },
			"14:16: providers[0].client_id: the value of variable CLIENT_ID must be printable ASCII"},
		"value a reference": {func(e map[string]string, _ fstest.MapFS) { e["CLIENT_ID"] = "env:hunter2" },
			"14:16: providers[0].client_id: the value of variable CLIENT_ID must be the client id itself, env:NAME " +
				"or file:/path"},
	} {
		t.Run(name, func(t *testing.T) {
			env, fsys := environment(), disk()
			tc.spoil(env, fsys)
			c := parse(t, elsewhere)
			faults := resolve(c, env, fsys)
			if len(faults) != 1 || faults[0].Error() != "config.yaml:"+tc.want || faults[0].Excerpt == "" {
				t.Errorf("got\n%v\nwant\nconfig.yaml:%s", faults, tc.want)
			}
			if strings.Contains(faults.Error(), canary) {
				t.Errorf("a secret is shown:\n%v", faults)
			}
		})
	}
}

// changing is a file system in which something happens when a file is opened.
type changing struct {
	fs.FS
	opened func(name string)
}

func (c changing) Open(name string) (fs.File, error) {
	c.opened(name)
	return c.FS.Open(name)
}

// A key that is removed while the others are read is no fault: nobody would read
// them again until the next change.
func TestKeyThatIsRemovedWhileKeysAreReadIsNoFault(t *testing.T) {
	files := disk()
	c := parse(t, elsewhere)
	faults := resolve(c, environment(), changing{files, func(name string) {
		if name == "keys/a" {
			delete(files, "keys/b")
		}
	}})
	if faults != nil {
		t.Fatalf("faults:\n%v", faults)
	}
	if k := c.Session.KeyTexts; len(k) != 3 || k[0].File != "/keys/a" {
		t.Errorf("keys %v", k)
	}
}

// A directory in which names come and go all the time ends the reading too.
func TestDirectoryThatNeverStandsStillIsReadInTheEnd(t *testing.T) {
	files, n := disk(), 0
	faults := resolve(parse(t, elsewhere), environment(), changing{files, func(name string) {
		if name == "keys/a" {
			n++
			files[fmt.Sprintf("keys/c%d", n)] = aFile(0o600, "hunter2-c")
		}
	}})
	if faults != nil || n > 10 {
		t.Errorf("after %d times: %v", n, faults)
	}
}

func TestResolveReportsAllFaultsAtOnce(t *testing.T) {
	faults := resolve(parse(t, elsewhere), nil, fstest.MapFS{})
	if len(faults) != 9 {
		t.Errorf("%d faults, want 9:\n%v", len(faults), faults)
	}
}

func TestProtectedHostsAreCheckedOnceThePublicURLIsKnown(t *testing.T) {
	text := strings.Replace(elsewhere, "    path: /\n", "    path: /\n    host: other.example.com\n", 1)
	plain := environment("PUBLIC_URL", "http://localhost:4180")
	if faults := resolve(parse(t, text), plain, disk()); len(faults) != 1 || faults[0].Path != "routes[0].host" ||
		!strings.Contains(faults[0].Message, "must be a loopback host") {
		t.Errorf("got %v", faults)
	}
	for _, public := range []string{"https://app.example.com", "https://other.example.com"} {
		if faults := resolve(parse(t, text), environment("PUBLIC_URL", public), disk()); faults != nil {
			t.Errorf("%s: got %v", public, faults)
		}
	}
}

// A Kubernetes secret is a folder of links into a folder of links.
func TestLinksAreFollowedAsKubernetesMountsThem(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "keys", "..2026"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "keys", "..2026", "one"), []byte("first"), 0o400))
	must(os.WriteFile(filepath.Join(dir, "keys", "..2026", "two"), []byte("second"), 0o404))
	must(os.Symlink("..2026", filepath.Join(dir, "keys", "..data")))
	must(os.Symlink("..data/one", filepath.Join(dir, "keys", "one")))
	c := parse(t, with(t, "file:/run/secrets/session-key", "dir:"+dir+"/keys/", "env:CLIENT_SECRET",
		"file:"+dir+"/keys/one"))
	env := func(string) (string, bool) { return "", false }
	if faults := c.Resolve(env, os.DirFS("/")); faults != nil {
		t.Fatalf("faults:\n%v", faults)
	}
	if k := c.Session.KeyTexts; len(k) != 1 || k[0].Text() != "first" ||
		c.Providers[0].ClientSecret.Value() != "first" {
		t.Errorf("keys %v", k)
	}
	must(os.Symlink("..data/two", filepath.Join(dir, "keys", "two")))
	must(os.Symlink("gone", filepath.Join(dir, "keys", "three")))
	if faults := c.Resolve(env, os.DirFS("/")); len(faults) != 2 {
		t.Errorf("a readable and a missing target: %v", faults)
	}
}
