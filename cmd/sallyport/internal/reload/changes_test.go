package reload

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

const runs = `version: 1
public_url: http://localhost:4180
listen: {http: "127.0.0.1:4180", admin: "127.0.0.1:4181"}
session: {keys: ["env:KEY"]}
providers: [{id: sso, type: oidc, issuer: "http://localhost:1", client_id: c, client_secret: "env:SECRET"}]
routes: [{name: app, path: /, upstream: "http://127.0.0.1:1", allow: authenticated}]
`

func resolved(t *testing.T, text, secret string) *config.Config {
	t.Helper()
	c, faults := config.Parse("c.yaml", []byte(text))
	testenv.Check(t, faults.Err())
	env := func(name string) (string, bool) { return map[string]string{"KEY": "k", "SECRET": secret}[name], true }
	testenv.Check(t, c.Resolve(env, os.DirFS("/")).Err())
	return c
}

// What a reload says has changed is what a reader of both files would say: values and
// what they refer to, neither comments nor layout.
func TestChangedNamesTheKeysThatDiffer(t *testing.T) {
	was := resolved(t, runs, "s")
	for _, tt := range []struct {
		name, text, secret string
		want               []string
	}{
		{"nothing", runs, "s", nil},
		{"a comment", "# why\n" + strings.Replace(runs, "version: 1", "version:   1 # the first", 1), "s", nil},
		{"the order", "routes: [{name: app, path: /, upstream: \"http://127.0.0.1:1\", allow: authenticated}]\n" +
			runs[:strings.Index(runs, "routes")], "s", nil},
		{"a rule", strings.Replace(runs, "allow: authenticated", "public: true", 1), "s", []string{"routes"}},
		{"a secret", runs, "another", []string{"providers"}},
		{"new keys", runs + "prefix: /.x\nlog: {level: warn}\n", "s", []string{"log", "prefix"}},
		{"a type", strings.Replace(runs, "name: app", "name: \"app\"", 1), "s", nil},
	} {
		is := resolved(t, tt.text, tt.secret)
		if got := is.Changed(was); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v", tt.name, got)
		}
		if got := was.Changed(is); !slices.Equal(got, tt.want) {
			t.Errorf("%s, the other way round: %v", tt.name, got)
		}
	}
}

// What cannot change while the process runs is a fault at its place.
func TestNeedsRestartPointsAtWhatCannotChange(t *testing.T) {
	was := resolved(t, runs, "s")
	for old, tt := range map[string]struct{ new, at string }{
		"http://localhost:4180":  {"http://localhost:4190", "c.yaml:2:13: public_url: "},
		`http: "127.0.0.1:4180"`: {`http: ":4180"`, "c.yaml:3:16: listen.http: "},
		`"127.0.0.1:4180"`: {`{address: "127.0.0.1:4180", proxy_protocol: [10.0.0.0/8]}`, "c.yaml:3:60: " +
			"listen.http.proxy_protocol: "},
		`admin: "127.0.0.1:4181"`: {`admin: ""`, "c.yaml:3:41: listen.admin: "},
		`, admin: "127.0.0.1:4181"`: {`, h2c: true, keep_alive: 60s, admin: "127.0.0.1:4181"`, "c.yaml:3:39: " +
			"listen.h2c: "},
		`session: {`: {`session: {cookie_name: sallyport-two, `, "c.yaml:4:24: " +
			"session.cookie_name: "},
		"version: 1\n": {"version: 1\nprefix: /.x\n", "c.yaml:2:9: prefix: "},
		"version: 1":   {"version: 1\nlog: {format: text}", "c.yaml:2:15: log.format: "},
		"routes: ":     {"limits: {header: 16KiB}\nroutes: ", "c.yaml:6:18: limits.header: "},
		`{http: "127.0.0.1:4180", adm`: {`{https: {address: ":443", cert: "file:/c", key: "file:/k"}, adm`,
			"c.yaml:3:9: listen: "},
	} {
		is, faults := config.Parse("c.yaml", []byte(strings.Replace(runs, old, tt.new, 1)))
		testenv.Check(t, faults.Err())
		got := is.NeedsRestart(was)
		if len(got) == 0 || !strings.HasPrefix(got[0].Error(), tt.at) ||
			!strings.Contains(got[0].Error(), "needs a restart") || got[0].Excerpt == "" {
			t.Errorf("%s: %v", tt.new, got)
		}
	}
	for _, same := range []string{"pages: {name: New}", "log: {level: debug}", "stop: {timeout: 1s}", "limits: {url: " +
		"2KiB, flows: 1}", "reload: {watch: false, debounce: 2s}",
		"trusted_proxies: [10.0.0.0/8]", "log: {audit: stdout}"} {
		if got := resolved(t, runs+same+"\n", "other").NeedsRestart(was); len(got) != 0 {
			t.Errorf("%s: %v", same, got)
		}
	}
}

func TestReloadKeysAreJudged(t *testing.T) {
	if c := resolved(t, runs, "s"); !c.Reload.Watch || c.Reload.Debounce.String() != "1s" {
		t.Errorf("without the key: %+v", c.Reload)
	}
	for _, bad := range []string{"{watch: yes}", "{watch: \"true\"}", "{debounce: 1ms}", "{debounce: 1h}"} {
		if _, faults := config.Parse("c.yaml", []byte(runs+"reload: "+bad+"\n")); len(faults) != 1 {
			t.Errorf("%s: %v", bad, faults)
		}
	}
}
