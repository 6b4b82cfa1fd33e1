package reload

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

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

const lends = `version: 1
public_url: http://localhost:4180
listen: {http: "127.0.0.1:4180", grants: "127.0.0.1:4184"}
session: {keys: ["env:KEY"]}
store: sqlite:/s.db
providers: [{id: sso, type: oidc, issuer: "http://localhost:1", client_id: c, client_secret: "env:SECRET"}]
routes: [{name: app, path: /, upstream: "http://127.0.0.1:1", allow: authenticated}]
grants:
  encryption_keys: ["env:GRANT_KEY"]
  connectors: [{id: k, type: api_key, base_url: "http://127.0.0.1:1", probe: GET /me, rules: {read: ["GET /*"]}}]
  apps: [{id: a, token: "env:TOKEN", routes: [app], connectors: [k]}]
`

func resolved(t *testing.T, text, secret string) *config.Config {
	t.Helper()
	c, faults := config.Parse("c.yaml", []byte(text))
	testenv.Check(t, faults.Err())
	env := func(name string) (string, bool) {
		return map[string]string{"KEY": "k", "SECRET": secret,
			"GRANT_KEY": "g", "TOKEN": strings.Repeat("t", 32),
			"STORE_A": "postgres://u:c4nary-a@127.0.0.1/d", "STORE_B": "postgres://v:c4nary-b@127.0.0.1/d",
			"STORE_C": "postgres://u:c4nary-a@127.0.0.2/d"}[name], true
	}
	files := fstest.MapFS{"c": {Data: []byte("certificate")}, "k": {Data: []byte("key"), Mode: 0o600}}
	testenv.Check(t, c.Resolve(env, files).Err())
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

// Each key that cannot change while the process runs is a fault at its place: where it
// is changed, where it is added and where it is left out.
func TestNeedsRestartPointsAtWhatCannotChange(t *testing.T) {
	const secure = `version: 1
public_url: https://app.example
listen: {https: {address: "127.0.0.1:4443", cert: "file:/c", key: "file:/k"}, admin: "127.0.0.1:4181"}
session: {keys: ["env:KEY"]}
providers: [{id: sso, type: oidc, issuer: "http://localhost:1", client_id: c, client_secret: "env:SECRET"}]
routes: [{name: app, path: /, upstream: "http://127.0.0.1:1", allow: authenticated}]
`
	more := func(text string) string { return runs + text + "\n" }
	swap := func(text, old, new string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("nothing to change: %s", old)
		}
		return strings.Replace(text, old, new, 1)
	}
	changed := map[string]bool{}
	for name, tt := range map[string]struct {
		was, is string
		want    []string // place and key of each fault
	}{
		"public_url": {runs, swap(runs, "http://localhost:4180", "http://localhost:4190"), []string{"2:13 public_url"}},
		"public_url, and TLS ends at a balancer": {runs, swap(runs, "http://localhost:4180", "https://app.example"),
			[]string{"2:13 public_url"}},
		"prefix added":    {runs, more("prefix: /.x"), []string{"7:9 prefix"}},
		"prefix left out": {more("prefix: /.x"), runs, []string{"1:1 prefix"}},
		"plain http becomes https": {runs, swap(runs, `{http: "127.0.0.1:4180", adm`,
			`{https: {address: ":443", cert: "file:/c", key: "file:/k"}, adm`), []string{"3:9 listen"}},
		"https becomes plain http": {secure, swap(secure,
			`{https: {address: "127.0.0.1:4443", cert: "file:/c", key: "file:/k"}`, `{http: "127.0.0.1:4180"`),
			[]string{"3:9 listen"}},
		"listen.http": {runs, swap(runs, `http: "127.0.0.1:4180"`, `http: ":4180"`), []string{"3:16 listen.http"}},
		"listen.http.proxy_protocol": {runs, swap(runs, `"127.0.0.1:4180"`,
			`{address: "127.0.0.1:4180", proxy_protocol: [10.0.0.0/8]}`), []string{"3:60 listen.http.proxy_protocol"}},
		"listen.https.address": {secure, swap(secure, "127.0.0.1:4443", "127.0.0.1:4444"),
			[]string{"3:27 listen.https.address"}},
		"listen.https.proxy_protocol": {secure, swap(secure, `key: "file:/k"`,
			`key: "file:/k", proxy_protocol: [10.0.0.0/8]`), []string{"3:94 listen.https.proxy_protocol"}},
		"listen.lane": {runs, swap(runs, ", admin", ", lane: true, admin"), []string{"3:40 listen.lane"}},
		"listen.h2c":  {runs, swap(runs, ", admin", ", h2c: true, admin"), []string{"3:39 listen.h2c"}},
		"listen.keep_alive": {runs, swap(runs, ", admin", ", keep_alive: 60s, admin"),
			[]string{"3:46 listen.keep_alive"}},
		"listen.admin": {runs, swap(runs, `"127.0.0.1:4181"`, `"127.0.0.1:4182"`),
			[]string{"3:41 listen.admin"}},
		"listen.admin off": {runs, swap(runs, `"127.0.0.1:4181"`, `""`), []string{"3:41 listen.admin"}},
		"listen.external_auth on": {runs, swap(runs, ", admin", `, external_auth: "127.0.0.1:4183", admin`),
			[]string{"3:49 listen.external_auth"}},
		"listen.external_auth.grpc": {swap(runs, ", admin", `, external_auth: {grpc: ":1", peers: [10.0.0.1]}, admin`),
			swap(runs, ", admin", `, external_auth: {grpc: ":2", peers: [10.0.0.2]}, admin`),
			[]string{"3:56 listen.external_auth.grpc"}},
		"listen.external_auth.grpc on": {swap(runs, ", admin", `, external_auth: "127.0.0.1:4183", admin`),
			swap(runs, ", admin", `, external_auth: {address: "127.0.0.1:4183", grpc: ":2", peers: [127.0.0.1]}, admin`),
			[]string{"3:83 listen.external_auth.grpc"}},
		"listen.external_auth gets TLS": {swap(runs, ", admin", `, external_auth: {grpc: ":1", peers: [10.0.0.1]}, admin`),
			swap(runs, ", admin", `, external_auth: {grpc: ":1", peers: [10.0.0.1], cert: "file:/c", key: "file:/k"}, admin`),
			[]string{"3:49 listen.external_auth"}},
		"grants.apps: another socket": {swap(lends, `token: "env:TOKEN"`, "socket: {path: /run/a.sock}"),
			swap(lends, `token: "env:TOKEN"`, "socket: {path: /run/b.sock}"), []string{"11:9 grants.apps"}},
		"listen.grants moved": {lends, swap(lends, "127.0.0.1:4184", "127.0.0.1:4185"),
			[]string{"3:42 listen.grants"}},
		"listen.grants gets TLS": {lends, swap(lends, `"127.0.0.1:4184"`,
			`{address: "127.0.0.1:4184", cert: "file:/c", key: "file:/k"}`), []string{"3:42 listen.grants"}},
		"session.cookie_name": {runs, swap(runs, "session: {", "session: {cookie_name: sallyport-two, "),
			[]string{"4:24 session.cookie_name"}},
		"session.cookie_domain added": {secure, swap(secure, "session: {", "session: {cookie_domain: app.example, "),
			[]string{"4:26 session.cookie_domain"}},
		"session.cookie_domain left out": {swap(secure, "session: {", "session: {cookie_domain: app.example, "), secure,
			[]string{"4:10 session.cookie_domain"}},
		"log.format":     {runs, more("log: {format: text}"), []string{"7:15 log.format"}},
		"limits.header":  {runs, more("limits: {header: 16KiB}"), []string{"7:18 limits.header"}},
		"limits.ended":   {runs, more("limits: {ended: 2000}"), []string{"7:17 limits.ended"}},
		"store added":    {runs, more("store: sqlite:/a/c4nary.db"), []string{"7:8 store"}},
		"store left out": {more("store: sqlite:/a/c4nary.db"), runs, []string{"1:1 store"}},
		"store, another file": {more("store: sqlite:/a/c4nary.db"), more("store: sqlite:/b/c4nary.db"),
			[]string{"7:8 store"}},
		"store, another kind": {more("store: sqlite:/a/c4nary.db"), more("store: env:STORE_A"),
			[]string{"7:8 store"}},
		"store, another user and password": {more("store: env:STORE_A"), more("store: env:STORE_B"), nil},
		"store, another server": {more("store: env:STORE_A"), more("store: env:STORE_C"),
			[]string{"7:8 store"}},
		"several at once": {runs, swap(more("store: sqlite:/a/c4nary.db\nprefix: /.x"), ":4181", ":4182"),
			[]string{"3:41 listen.admin", "7:8 store", "8:9 prefix"}},
	} {
		got := resolved(t, tt.is, "s").NeedsRestart(resolved(t, tt.was, "s"))
		var places []string
		for _, f := range got {
			place, rest, _ := strings.Cut(strings.TrimPrefix(f.Error(), "c.yaml:"), ": ")
			key, why, _ := strings.Cut(rest, ": ")
			places = append(places, place+" "+key)
			changed[key] = true
			if !strings.Contains(why, "needs a restart") || f.Excerpt == "" || strings.Contains(f.Error(), "c4nary") {
				t.Errorf("%s: %s\n%s", name, f.Error(), f.Excerpt)
			}
		}
		slices.Sort(places)
		if !slices.Equal(places, tt.want) {
			t.Errorf("%s: %v, want %v", name, places, tt.want)
		}
	}
	source, err := os.ReadFile("../config/reload.go")
	testenv.Check(t, err)
	guide, err := os.ReadFile("../../../../docs/guide.md")
	testenv.Check(t, err)
	row := regexp.MustCompile("(?m)^\\| `public_url`.*needs a restart`.*$").FindString(string(guide))
	fixed := regexp.MustCompile(`(?:fixed|FaultAt)\("([a-z0-9_.]+)"`)
	for _, m := range fixed.FindAllStringSubmatch(string(source), -1) {
		if !strings.Contains(row, "`"+m[1]) {
			t.Errorf("%s cannot change, and the guide's table does not say so", m[1])
		}
		if !changed[m[1]] {
			t.Errorf("%s cannot change, and no case here changes it", m[1])
		}
	}
	was := resolved(t, runs, "s")
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
