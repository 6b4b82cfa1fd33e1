package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	yaml "go.yaml.in/yaml/v4"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/identity"
)

var update = flag.Bool("update", false, "rewrite golden files and config.schema.json")

// canary is what stands in every secret place of the test files.
const canary = "hunter2"

const (
	exampleFile = "../../../../config.example.yaml"
	schemaFile  = "../../../../config.schema.json"
)

// valid is a whole file to change pieces of.
const valid = `version: 1
public_url: https://app.example.com
session:
  keys: [file:/run/secrets/session-key]
providers:
  - id: main
    type: oidc
    issuer: https://sso.example.com
    client_id: sallyport
    client_secret: env:CLIENT_SECRET
routes:
  - name: app
    path: /
    upstream: http://127.0.0.1:8080
    allow: authenticated
`

// with replaces pairs of texts in valid.
func with(t testing.TB, pairs ...string) string {
	t.Helper()
	out := valid
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(out, pairs[i]) {
			t.Fatalf("no %q to replace", pairs[i])
		}
		out = strings.Replace(out, pairs[i], pairs[i+1], 1)
	}
	return out
}

func parse(t testing.TB, text string) *Config {
	t.Helper()
	c, faults := Parse("config.yaml", []byte(text))
	if faults != nil {
		t.Fatalf("faults:\n%v", faults)
	}
	return c
}

func files(t testing.TB, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return names
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// golden compares got with a file, or writes it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want := read(t, name); !bytes.Equal(got, want) {
		t.Errorf("%s differs (-update rewrites it)\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}

// P15: a file with a fault gives no configuration at all. P18: no secret in
// what is said about it, and nothing a terminal could obey.
func TestP15_EachFaultIsFoundAndPointedAt(t *testing.T) {
	for _, name := range files(t, "testdata/bad/*.yaml") {
		base := strings.TrimSuffix(filepath.Base(name), ".yaml")
		t.Run(base, func(t *testing.T) {
			data := read(t, name)
			c, faults := Parse(filepath.Base(name), data)
			if c != nil {
				t.Error("a configuration in spite of a fault")
			}
			if len(faults) != 1 {
				t.Errorf("%d faults, want one", len(faults))
			}
			text := faults.Error()
			if strings.Contains(text, canary) {
				t.Error("the secret is shown")
			}
			for _, word := range []string{"yaml.Node", "!!", "config.", "int64", "struct", "string"} {
				if strings.Contains(strings.NewReplacer("config.yaml", "", "string_email_verified", "").Replace(text),
					word) {
					t.Errorf("speaks of %q, which means nothing to an operator", word)
				}
			}
			golden(t, strings.TrimSuffix(name, ".yaml")+".txt", []byte(text+"\n"))
		})
	}
}

func TestGoodFilesPass(t *testing.T) {
	for _, name := range append(files(t, "testdata/good/*.yaml"), exampleFile) {
		if _, faults := Parse(name, read(t, name)); faults != nil {
			t.Errorf("%s:\n%v", name, faults)
		}
	}
}

func TestAllFaultsAreReportedAtOnceInTheOrderOfTheFile(t *testing.T) {
	text := with(t, "version: 1", "version: 7", "keys: [file:/run/secrets/session-key]", "keyz: []",
		"id: main", "id: &x main", "type: oidc", "type: saml\n    type: oidc", "path: /\n", "pth: /\n", "allow: "+
			"authenticated", "allow: [{groups: admins}]") +
		"  - {name: app, path: /b, upstream: http://b, host: b.example.com, allow: authenticated}\nlog: [info]\nstop:\n"
	_, faults := Parse("config.yaml", []byte(text))
	golden(t, "testdata/many-faults.txt", []byte(faults.Error()+"\n"))
	for i := 1; i < len(faults); i++ {
		if faults[i].Line < faults[i-1].Line {
			t.Errorf("fault %d is in line %d, the one before in %d", i, faults[i].Line, faults[i-1].Line)
		}
	}
}

func TestAnEndlessListOfFaultsIsCut(t *testing.T) {
	text := valid
	for i := range 5000 {
		text += fmt.Sprintf("key%d: %d\n", i, i)
	}
	_, faults := Parse("config.yaml", []byte(text))
	if len(faults) != yamltable.MaxFaults || !strings.Contains(faults[yamltable.MaxFaults-1].Message,
		"only the first") {
		t.Errorf("%d faults, the last: %v", len(faults), faults[len(faults)-1])
	}
}

func TestP17_HugeFilesAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"bytes":    strings.Repeat("#", yamltable.MaxFile) + "\n" + valid,
		"one line": "a: {" + strings.Repeat("key: x, ", yamltable.MaxFile/8-8) + "}",
		"brackets": strings.Repeat("[", yamltable.MaxFile-1),
		"keys":     strings.Repeat("key: x\n", yamltable.MaxFile/32),
		"dashes":   strings.Repeat("- ", 9000),
	} {
		if _, faults := Parse("config.yaml", []byte(text)); len(faults) == 0 || len(faults) > yamltable.MaxFaults {
			t.Errorf("%s: %d faults", name, len(faults))
		}
	}
}

// P21: what the file leaves out is the safe choice.
func TestP21_Defaults(t *testing.T) {
	c := parse(t, valid)
	p, r := c.Providers[0], c.Routes[0]
	for what, pair := range map[string][2]any{
		"prefix":        {c.Prefix, "/.sallyport"},
		"http":          {c.Listen.HTTP.Address, ":4180"},
		"h2c":           {c.Listen.H2C, false},
		"keep_alive":    {c.Listen.KeepAlive, 620 * time.Second}, // above the 600 s of cloud balancers
		"admin":         {c.Listen.Admin.Address, "127.0.0.1:4181"},
		"probes":        {len(c.Listen.Admin.Probes), 0},
		"trusted":       {len(c.TrustedProxies), 0},
		"absolute":      {c.Session.AbsoluteTimeout, 12 * time.Hour},
		"idle":          {c.Session.IdleTimeout, time.Hour},
		"provider name": {p.Name, "main"},
		"client_auth":   {p.ClientAuth, "auto"},
		"scopes":        {len(p.Scopes), 0}, // those that the type needs
		"identity_from": {p.IdentityFrom, "auto"},
		"host":          {r.Host, "app.example.com"},
		"public":        {r.Public, false},
		"preset":        {r.Headers.Preset, identity.PresetForwarded},
		"upstream":      {r.Upstream.URL.String(), "http://127.0.0.1:8080"},
		"app's host":    {r.Upstream.Host, ""},
		"ca":            {r.Upstream.CA.IsZero(), true},
		"connect":       {r.Upstream.Connect, 5 * time.Second},
		"header":        {r.Upstream.Header, 30 * time.Second},
		"app's idle":    {r.Upstream.Idle, 5 * time.Minute},
		"keep-alive":    {r.Upstream.KeepAlive, 4 * time.Second},
		"websocket":     {r.WebSocket.Allowed, false},
		"encoded":       {r.Encoded, false},
		"max_body":      {r.MaxBody, int64(0)},
		"via":           {r.NoVia, false},
		"site_headers":  {len(r.SiteHeaders), 0},
		"log":           {c.Log, Log{"info", "auto", ""}},
		"stop":          {c.Stop, Stop{0, 30 * time.Second}},
		"revocation":    {c.Session.MaxAge, 5 * time.Minute},
		"of a route":    {r.MaxAge, time.Duration(0)}, // as of the session
		"store":         {c.Store.IsZero(), true},
		"limits":        {c.Limits, Limits{64 << 10, 8 << 10, 256, 1_000_000}},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", what, pair[0], pair[1])
		}
	}
}

func TestTheExampleMeansWhatItSays(t *testing.T) {
	c := parse(t, string(read(t, exampleFile)))
	if got := c.PublicURL.String(); got != "https://app.example.com" {
		t.Errorf("public_url %q", got)
	}
	admin, packages, api, logo := c.Routes[1], c.Routes[2], c.Routes[3], c.Routes[4]
	if len(admin.Allow.Any) != 4 || fmt.Sprint(admin.Allow.Any[3].Subjects) != "[sso:248289761001]" ||
		admin.Allow.Authenticated || fmt.Sprint(admin.Allow.Any[0].Orgs) != "[acme "+
		"partner:42]" {
		t.Errorf("rules of admin: %+v", admin.Allow)
	}
	want := []identity.Field{
		{Header: "X-Team", Claim: identity.ClaimGroups, Join: ",", Encoding: identity.EncodePercent},
		{Header: "X-Roles", Claim: identity.ClaimGroups, Join: "|", Encoding: identity.EncodePercent},
	}
	if !reflect.DeepEqual(admin.Headers.Set, want) {
		t.Errorf("headers of admin: %+v", admin.Headers.Set)
	}
	if b := api.Bearer; b.Provider != "sso" || !slices.Equal(b.Audiences, []string{"https://app.example.com/api"}) ||
		b.Claims.Groups != "roles" || c.Groups.Keep != KeepNeeded {
		t.Errorf("api: %+v, groups: %+v", b, c.Groups)
	}
	if !logo.Public || !logo.Exact || logo.Path != "/logo.svg" || logo.Upstream.URL.Host != "127.0.0.1:8080" {
		t.Errorf("logo: %+v", logo)
	}
	if !c.Routes[0].Allow.Authenticated || c.Routes[0].Exact {
		t.Errorf("app: %+v", c.Routes[0])
	}
	acme := Organization{ID: "acme", Name: "Acme Rockets", Domain: "example.com",
		Match: OrganizationMatch{OrgIDs: []string{"sso:7c21", "partner:7"}, EmailDomains: []string{"example.com"}}}
	if !reflect.DeepEqual(c.Organizations, []Organization{acme}) {
		t.Errorf("organizations: %+v", c.Organizations)
	}
	if up := packages.Upstream; up.URL.String() != "https://packages.internal:8443" ||
		up.Host != "packages.example.com" ||
		up.CA.String() != "file:/etc/sallyport/internal-ca.pem" || up.ServerName != "packages.internal" ||
		up.Idle != 5*time.Minute {
		t.Errorf("upstream of packages: %+v", up)
	}
	if !packages.WebSocket.Allowed || len(packages.WebSocket.Origins) != 2 || !packages.Encoded ||
		packages.MaxBody != 2<<30 || packages.Proof.MaxAge != 12*time.Hour {
		t.Errorf("packages: %+v", packages)
	}
	if claims := c.Providers[1].Claims; claims.OrgID != "tenant_id" || claims.Groups != "roles" || claims.Email != "" {
		t.Errorf("claims: %+v", claims)
	}
}

// Every key of the table has its line in the example, also those behind "#".
func TestTheExampleShowsEveryKey(t *testing.T) {
	example := string(read(t, exampleFile))
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(path, x)
			}
		case map[string]any:
			properties, _ := v["properties"].(map[string]any)
			for name, p := range properties {
				if !strings.Contains(example, name+":") {
					t.Errorf("%s%s is missing", path, name)
				}
				if p.(map[string]any)["description"] == "" {
					t.Errorf("%s%s has no description", path, name)
				}
				walk(path+name+".", p)
			}
			walk(path, v["items"])
			walk(path, v["anyOf"])
			walk(path, v["additionalProperties"])
		}
	}
	walk("", schema)
}

func TestPublicURLIsReadAsBrowsersWriteIt(t *testing.T) {
	for in, want := range map[string]string{
		"https://App.Example.com/":     "https://app.example.com",
		"https://app.example.com:443":  "https://app.example.com",
		"https://app.example.com:8443": "https://app.example.com:8443",
		"http://localhost:4180":        "http://localhost:4180",
		"http://app.localhost":         "http://app.localhost",
		"http://127.8.9.1:80":          "http://127.8.9.1",
		"http://[0:0:0:0:0:0:0:1]:80":  "http://[::1]",
	} {
		if c := parse(t, with(t, "https://app.example.com", in)); c.PublicURL.String() != want {
			t.Errorf("%s is read as %s, want %s", in, c.PublicURL, want)
		}
	}
	for _, in := range []string{"http://127.0.0.1.example.com", "http://localhost.example.com",
		"http://[::ffff:127.0.0.1]", "http://[fe80::1%25lo]",
		"http://2130706433", "http://notlocalhost", "http://128.0.0.1", "https:app.example.com", "//app.example.com",
		"https://", "https://a_b c", "https://app.example.com.",
		"https://app.example.com:", "https://app.example.com:0", "https://app.example.com#",
		"https://app.example.com/%2e", "ftp://app.example.com"} {
		if _, faults := Parse("config.yaml", []byte(with(t, "https://app.example.com", "'"+in+"'"))); len(faults) != 1 {
			t.Errorf("%s: %d faults, want one", in, len(faults))
		}
	}
}

func TestDidYouMean(t *testing.T) {
	names := []string{"upstream", "path", "path_exact", "public", "id", "idle_timeout"}
	for word, want := range map[string]string{
		"upstrem": "upstream", "upstraem": "upstream", "Upstream": "upstream", "path-exact": "path_exact",
		"pth":     "path",
		"publick": "public", "idle_timout": "idle_timeout", "ID": "id", "zebra": "", "x": "", "": "",
		strings.Repeat("upstream", 9): "",
	} {
		if got := yamltable.Nearest(word, names); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

func TestNeighboursPointAtTheirFaults(t *testing.T) {
	c := parse(t, with(t, "    path: /\n", "    path: /../x\n"))
	for path, line := range map[string]int{"routes[0].path": 13, "routes[0].host": 12, "routes[0]": 12,
		"session.keys[0]": 4, "listen.http": 1, "nowhere[7].x": 1, "": 1} {
		if f := c.Fault(path, "is %s", "odd"); f.Line != line || f.Path != path || f.Message != "is odd" ||
			f.Excerpt == "" {
			t.Errorf("%q: %+v, want line %d", path, f, line)
		}
	}
	want := "config.yaml:13:11: routes[0].path: has a dot segment"
	if got := c.Fault("routes[0].path", "has a dot segment").Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDefaultsAreThemselvesValid(t *testing.T) {
	c := parse(t, valid) // reads every default that is not below a key it leaves out
	if c.Providers[0].IdentityFrom == "" {
		t.Error("no identity_from")
	}
	var schema any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	var check func(path string, v any)
	check = func(path string, v any) {
		m, ok := v.(map[string]any)
		if !ok {
			return
		}
		if def, has := m["default"]; has {
			delete(m, "default")
			compiled := compile(t, m)
			if err := compiled.Validate(def); err != nil {
				t.Errorf("%s: default %v: %v", path, def, err)
			}
		}
		for k, x := range m {
			check(path+"/"+k, x)
		}
	}
	check("", schema)
}

func compile(t testing.TB, doc any) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := compiler.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ownSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	return compile(t, doc)
}

// asJSON is a YAML file as an editor's schema check sees it.
func asJSON(data []byte) (any, error) {
	var v any
	if err := yaml.Load(data, &v); err != nil {
		return nil, err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(text))
}

func TestSchemaIsCommitted(t *testing.T) {
	golden(t, schemaFile, Schema())
	for range 5 {
		if !bytes.Equal(Schema(), Schema()) {
			t.Fatal("the schema changes from call to call")
		}
	}
}

func TestSchemaAcceptsWhatIsGood(t *testing.T) {
	schema := ownSchema(t)
	for _, name := range append(files(t, "testdata/good/*.yaml"), exampleFile) {
		doc, err := asJSON(read(t, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := schema.Validate(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A schema knows the shape of values, not what they mean to one another: what
// it misses is listed here, so that nothing else can slip out of it.
func TestSchemaRefusesWhatIsBad(t *testing.T) {
	beyond := map[string]bool{}
	for _, name := range strings.Fields(`organization-provider-unknown
		organization-label organization-host-without organization-host-plain
		organization-folded-in-rule organization-flat-groups organization-flat-groups-of-provider
		organization-flat-groups-needless organization-flat-groups-alone anchor tag merge-key key-is-number
		blank-at-end two-lines control-character duration-out-of-bounds size-out-of-bounds public-url-http
		public-url-port issuer-http session-idle-longer session-idle-short provider-id-twice provider-vouches-for-all
		client-secret-missing client-secret-of-public-client client-id-dir client-id-env-name scopes-without-openid
		route-name-twice upstream-host-missing host-plain host-wildcard-plain limits-url-hosts header-join-of-one
		url-longer-than-header listen-h2c-beside-https listen-same-address listen-same-as-default client-id-variable
		proxy-protocol-host-bits trusted-proxies-host-bits
		trusted-proxies-everybody trusted-proxies-mapped upstream-unix-slashes upstream-unix-long
		upstream-unix-password upstream-host-port upstream-host-ipv6 upstream-ca-of-http upstream-server-name-of-unix
		upstream-server-name-address upstream-timeout-connect max-body-zero websocket-origin-http
		client-assertion-missing client-assertion-needless client-key-missing client-key-beside-secret
		provider-ca-of-http provider-logout-twice provider-logout-token provider-issuer-missing hosted-domains-of-oidc
		github-base-url-path github-basic github-claims github-endpoints github-max-age github-quirks github-scopes
		github-teams-of-anybody
		endpoint-http pagerduty-userinfo quirks-prove-nothing quirks-of-vendor endpoints-without-keys tenant-missing
		tenant-of-oidc allowed-tenants-of-one microsoft-userinfo bearer-provider-unknown bearer-audience-of-sign-in
		bearer-audience-trusted bearer-of-google bearer-without-keys store-ca-of-sqlite store-ca-unverified
		store-database-as-file store-password store-password-parameter store-sslmode-prefer revocation-without-store
		revocation-short public-if-from-all public-if-from-all-ipv6 public-if-from-host-bits public-if-from-mapped
		public-if-bearer-without-allow cors-origin-http cors-max-age route-upstream-missing
		headers-authorization headers-basic-bearer headers-basic-colon headers-basic-public
		route-without-upstream-forwards external-auth-not-loopback external-auth-peers-all external-auth-peers-mapped
		external-auth-key-alone external-auth-cert-alone external-auth-compat-prefix
		cookie-domain-address cookie-domain-like-a-parent cookie-domain-no-parent cookie-domain-org
		cookie-domain-other-host cookie-domain-plain cookie-domain-suffix cookie-domain-top
		cookie-domain-wildcard max-age-short
		grants-access-without-rules grants-key-for-oauth2 grants-listener-alone grants-listener-open
		grants-listener-open-mapping grants-manager-without-org grants-no-such-access grants-no-such-connector
		grants-no-such-route grants-org-flat-groups grants-org-without-manager grants-plain-http grants-public-route
		grants-google-elsewhere grants-google-scopes grants-google-secret grants-google-tenant
		grants-outlook-elsewhere grants-outlook-tenant grants-signing-secrets grants-slack-owner
		grants-caldav-keys grants-caldav-without-server grants-ics-keys
		grants-pagerduty-key-elsewhere grants-pagerduty-with-region
		grants-known-elsewhere grants-known-headers grants-known-rules grants-known-without-site
		grants-rule-dots grants-rules-without-scopes grants-session-key grants-stranger-on-public-host
		grants-twice grants-two-apps grants-two-apps-wildcard
		grants-bearer-of-sign-in grants-bearer-provider-unknown grants-bearer-subject-of-two
		grants-bearer-subject-pattern grants-bearer-subject-slash grants-bearer-subject-twice
		grants-bearer-subject-with-provider grants-provider-org
		grants-which-access grants-without-listener grants-without-store`) {
		beyond[name] = true
	}
	schema := ownSchema(t)
	for _, name := range files(t, "testdata/bad/*.yaml") {
		base := strings.TrimSuffix(filepath.Base(name), ".yaml")
		doc, err := asJSON(read(t, name))
		if err != nil {
			continue // not even YAML
		}
		if refused := schema.Validate(doc) != nil; refused == beyond[base] {
			t.Errorf("%s: refused by the schema: %v", base, refused)
		}
	}
}

// P18: a secret is in no fault, whatever is wrong around it, and in no print of
// the configuration.
func TestP18_SecretsAreNeverShown(t *testing.T) {
	places := map[string]string{
		"session key":       with(t, "[file:/run/secrets/session-key]", "[literal:hunter2]"),
		"bare session key":  with(t, "[file:/run/secrets/session-key]", "[hunter2, 'hunter2']"),
		"keys as text":      with(t, "[file:/run/secrets/session-key]", "hunter2"),
		"keys as mapping":   with(t, "[file:/run/secrets/session-key]", "{a: hunter2, hunter2: b}"),
		"session as text":   with(t, "session:\n  keys: [file:/run/secrets/session-key]", "session: hunter2"),
		"session as list":   with(t, "session:\n  keys: [file:/run/secrets/session-key]", "session:\n  - hunter2"),
		"client secret":     with(t, "env:CLIENT_SECRET", "literal:hunter2"),
		"bare":              with(t, "env:CLIENT_SECRET", "hunter2"),
		"quoted":            with(t, "env:CLIENT_SECRET", `"hunter2"`),
		"escaped":           with(t, "env:CLIENT_SECRET", `"\x68unter2 hunter2"`),
		"block":             with(t, "env:CLIENT_SECRET", "|\n      hunter2\n      hunter2\n\n      hunter2"),
		"plain, two lines":  with(t, "env:CLIENT_SECRET", "a\n      hunter2"),
		"quoted, two lines": with(t, "env:CLIENT_SECRET", "\"a\n      hunter2\" # hunter2"),
		"wrong form":        with(t, "env:CLIENT_SECRET", "evn:hunter2"),
		"relative file":     with(t, "env:CLIENT_SECRET", "file:hunter2"),
		"bad variable":      with(t, "env:CLIENT_SECRET", "'env:hunter2 hunter2'"),
		"anchor":            with(t, "env:CLIENT_SECRET", "&hunter2 hunter2"),
		"alias":             with(t, "env:CLIENT_SECRET", "*hunter2"),
		"tag":               with(t, "env:CLIENT_SECRET", "!hunter2 hunter2"),
		"list":              with(t, "env:CLIENT_SECRET", "[hunter2]"),
		"mapping":           with(t, "env:CLIENT_SECRET", "{hunter2: hunter2}"),
		"twice":             with(t, "env:CLIENT_SECRET", "env:A\n    client_secret: hunter2"),
		"misspelt key":      with(t, "client_secret: env:CLIENT_SECRET", "client_scret: hunter2"),
		"unknown key":       with(t, "client_secret: env:CLIENT_SECRET", "password: hunter2"),
		"glued to its key":  with(t, "client_secret: env:CLIENT_SECRET", "client_secret:hunter2"),
		"= for :":           with(t, "client_secret: env:CLIENT_SECRET", "client_secret=hunter2"),
		"commented out":     with(t, "client_secret: env:CLIENT_SECRET", "# client_secret: hunter2"),
		"in the comment":    with(t, "env:CLIENT_SECRET", "env:CLIENT SECRET # literal:hunter2"),
		"in a flow":         valid + "x: {client_secret: \"hunter2\n   hunter2\", y: [1,\n   2]}\n",
		"public_url":        with(t, "https://app.example.com", "https://ann:hunter2@app.example.com"),
		"issuer":            with(t, "https://sso.example.com", "https://hunter2@sso.example.com/?"),
		"beside a port":     with(t, "https://sso.example.com", "http://keycloak:8080/x # client_secret: hunter2"),
		"user of a port":    with(t, "https://sso.example.com", "http://token:80@keycloak:8080/hunter2@x"),
		"no port":           with(t, "https://sso.example.com", "http://key:8080hunter2"),
		"password, no host": with(t, "https://sso.example.com", "http://tokens:8080/?secret=hunter2"),
		"issuer in text":    with(t, "https://sso.example.com", "ann:hunter2@sso.example.com"),
		"upstream":          with(t, "http://127.0.0.1:8080", "https://ann:hunter2@127.0.0.1"),
		"h2c upstream":      with(t, "http://127.0.0.1:8080", "h2c://ann:hunter2@127.0.0.1"),
		"socket":            with(t, "http://127.0.0.1:8080", "unix:/ann:hunter2@x"),
		"upstream's url":    with(t, "http://127.0.0.1:8080", "{host: x, url: 'https://ann:hunter2@127.0.0.1'}"),
		"probe":             valid + "listen: {admin: {address: ':1', app_probes: {/a: 'http://ann:hunter2@b'}}}\n",
		"origin":            valid + "    websocket: {origins: ['https://ann:hunter2@b']}\n",
		"store":             valid + "store: postgres://ann:hunter2@db/s\n",
		"store by its url":  valid + "store: {url: 'postgres://db/s?password=hunter2', ca: x}\n",
		"other store":       valid + "store: 'redis://:hunter2@db'\n",
		"store in words":    valid + "store: host=db password=hunter2\n",
		"client id":         with(t, "client_id: sallyport", "client_id: literal:hunter2"),
		"TLS key":           valid + "listen: {https: {address: ':1', cert: file:/a, key: hunter2}}\n",
		"TLS key as PEM": valid + "listen:\n  https:\n    address: ':1'\n    cert: file:/a\n    key: |\n      " +
			"-----BEGIN KEY-----\n      hunter2\n",
		"listen as text": valid + "listen: hunter2\n",
		"JSON": `{"version": 1, "session": {"keys":
["hunter2",
"hunter2"]}, "x": 1}`,
	}
	// What breaks the syntax somewhere else, or puts a fault beside the secret.
	around := map[string]func(string) string{
		"":         func(s string) string { return s },
		"unclosed": func(s string) string { return s + "pages: {name: \"\n" },
		"tab":      func(s string) string { return s + "pages:\n\tname: x\n" },
		"two docs": func(s string) string { return s + "---\na: b\n" },
		"control":  func(s string) string { return strings.ReplaceAll(s, "sallyport\n", "sally\x1bport\n") },
		"bad before": func(s string) string {
			return strings.ReplaceAll(s, "client_id: sallyport",
				"client_idd: sallyport")
		},
		"bad after": func(s string) string { return strings.ReplaceAll(s, "routes:\n", "  rotues: 1\nroutes:\n") },
		"open bracket": func(s string) string {
			return strings.ReplaceAll(s, "client_id: sallyport",
				"client_id: [sallyport")
		},
		"open quote":  func(s string) string { return strings.ReplaceAll(s, "version: 1", "version: \"1") },
		"bad version": func(s string) string { return strings.ReplaceAll(s, "version: 1", "version: 1a") },
		"bad id":      func(s string) string { return strings.ReplaceAll(s, "id: main", "id: Main") },
		"one key more": func(s string) string {
			return strings.ReplaceAll(s, "session:\n", "session:\n  key: "+
				"hunter2\n")
		},
	}
	for place, text := range places {
		for what, change := range around {
			c, faults := Parse("config.yaml", []byte(change(text)))
			if text := faults.Error(); strings.Contains(text, canary) {
				t.Errorf("%s, %s: a fault shows it:\n%s", place, what, text)
			}
			if c != nil {
				neverShown(t, c)
			}
		}
	}
}

// neverShown prints c in every way fmt, json and slog know.
func neverShown(t *testing.T, c *Config) {
	t.Helper()
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "c", c, "keys", c.Session.Keys, "texts", c.Session.KeyTexts,
		"secret", c.Providers[0].ClientSecret)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "c", c, "secret", c.Providers[0].ClientSecret)
	shown := []string{string(asJSON), log.String(), fmt.Sprint(c.Warnings()),
		c.Fault("session.keys[0]", "x").Excerpt, c.Fault("providers[0].client_secret", "x").Excerpt}
	nested := struct{ hidden Config }{*c} // fmt calls no methods below an unexported field
	for _, v := range []any{*c, c, nested, c.Providers, c.Session, c.Session.Keys, c.Session.KeyTexts, c.Listen,
		c.Providers[0].ClientSecret} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			shown = append(shown, fmt.Sprintf(verb, v))
		}
	}
	for _, text := range shown {
		if strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) {
			t.Errorf("shown: %s", text)
		}
	}
}

func TestP21_SecretsInTheFileAreWarnedOf(t *testing.T) {
	c := parse(t, with(t, "env:CLIENT_SECRET", "literal:hunter2"))
	w := c.Warnings()
	if len(w) != 1 || w[0].Line != 10 || w[0].Path != "providers[0].client_secret" {
		t.Errorf("warnings: %v", w)
	}
	if w := parse(t, valid).Warnings(); len(w) != 0 {
		t.Errorf("warnings without a reason: %v", w)
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/*.yaml", exampleFile} {
		for _, name := range files(f, pattern) {
			f.Add(read(f, name))
		}
	}
	schema := ownSchema(f)
	f.Add([]byte("\f"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, faults := Parse("config.yaml", data)
		if (c == nil) != (len(faults) > 0) {
			t.Fatalf("config %v, %d faults", c != nil, len(faults))
		}
		for _, fault := range faults {
			if fault.Line < 1 || fault.Column < 1 || fault.Message == "" ||
				strings.ContainsAny(fault.Error(), "\n\r\x1b") {
				t.Errorf("%+q", fault)
			}
			if !strings.Contains(fault.Excerpt, "^\n") || strings.ContainsAny(fault.Excerpt, "\r\x1b\x00") {
				t.Errorf("excerpt %q", fault.Excerpt)
			}
		}
		if c == nil {
			return
		}
		for i, r := range c.Routes {
			if why := wrongWay(r); why != "" {
				t.Errorf("route %d: %s: %+v", i, why, r)
			}
			allowed := r.Allow.Authenticated || len(r.Allow.Any) > 0
			if always := len(r.PublicIf.Methods)+len(r.PublicIf.From) == 0; r.Public && always && allowed ||
				!r.Public && !(always && allowed) {
				t.Errorf("route %d: public %v, allow %+v", i, r.Public, r.Allow)
			}
		}
		if doc, err := asJSON(data); err != nil {
			t.Errorf("the parser itself refuses it: %v", err)
		} else if err := schema.Validate(doc); err != nil {
			t.Errorf("the schema refuses it: %v", err)
		}
	})
}

// P18, whatever stands behind a secret: what is added may break the file, or
// turn the secret into something else.
func FuzzP18_SecretsStayHidden(f *testing.F) {
	for _, after := range []string{"", "\n", "\"", "\n   x", ": x", " # x", "\n- x", "\n\tx", "@x\n[", "\n  pages: {",
		", x: y}", "\x00", "\n---\n", " &x *x !x", "\n    client_secret: x", "\r\n? x"} {
		f.Add(after)
	}
	f.Fuzz(func(t *testing.T, after string) {
		for _, before := range []string{"client_secret: ", "client_secret: \"", "client_secret: literal:",
			"client_secret: |\n      ", "client_secret: [", "client_scret: ", "client_secret:"} {
			text, rest, _ := strings.Cut(valid, "client_secret: env:CLIENT_SECRET")
			_, faults := Parse("config.yaml", []byte(text+before+canary+after+rest))
			if text := faults.Error(); strings.Count(text, canary) > strings.Count(after, canary) {
				t.Errorf("%q, %q: a fault shows it:\n%s", before, after, text)
			}
		}
	})
}
