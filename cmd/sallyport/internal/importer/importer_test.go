package importer

import (
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

var update = flag.Bool("update", false, "write what comes out into testdata")

// shapes are the folders of testdata: each has the inputs of one import and what becomes of
// it. testdata/sources.txt says of which public configuration each has the shape.
func shapes(t testing.TB) map[string][]Input {
	t.Helper()
	all := map[string][]Input{}
	files, err := filepath.Glob("testdata/*/*")
	testenv.Check(t, err)
	for _, file := range files {
		if name := filepath.Base(file); !strings.HasPrefix(name, "want.") {
			data, err := os.ReadFile(file)
			testenv.Check(t, err)
			dir := filepath.Base(filepath.Dir(file))
			all[dir] = append(all[dir], Input{Name: name, Data: data})
		}
	}
	if len(all) < 13 {
		t.Fatalf("only %d shapes", len(all))
	}
	return all
}

// At least ten shapes are those of configurations that anybody can look up, and each of the
// others says that it is not.
func TestEveryShapeSaysWhereItIsFrom(t *testing.T) {
	text, err := os.ReadFile("testdata/sources.txt")
	testenv.Check(t, err)
	all, public := shapes(t), 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		f := strings.Fields(line)
		if _, ok := all[f[0]]; !ok {
			t.Errorf("no shape %s, or it is there twice", f[0])
		}
		delete(all, f[0])
		if len(f) < 4 {
			if strings.Join(f[1:], " ") != "our own" {
				t.Errorf("%s is from %q", f[0], f[1:])
			}
			continue
		}
		if strings.Count(f[1], "/") != 1 || len(f[3]) != 40 {
			t.Errorf("%s: want owner/repository, path and commit, not %q", f[0], f[1:])
		}
		public++
	}
	if public < 10 || len(all) > 0 {
		t.Errorf("%d shapes of public configurations; nothing is said of %v", public, slices.Collect(maps.Keys(all)))
	}
}

func TestConfigurationsOfManyShapesAreImported(t *testing.T) {
	for name, inputs := range shapes(t) {
		t.Run(name, func(t *testing.T) {
			res, err := Import(inputs)
			testenv.Check(t, err)
			var lines strings.Builder
			for _, l := range res.Lines {
				lines.WriteString(l.String() + "\n")
			}
			dir := filepath.Join("testdata", name)
			golden(t, filepath.Join(dir, "want.yaml"), string(res.Config))
			golden(t, filepath.Join(dir, "want.txt"), lines.String())
			starts(t, res.Config)
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		testenv.Check(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	testenv.Check(t, err)
	if got != string(want) {
		t.Errorf("%s differs; it is now\n%s", file, got)
	}
}

// TestP18_NoSecretIsRepeated: each secret of the shapes, and each value of a key that is not
// known, says KEEP-OUT.
func TestP18_NoSecretIsRepeated(t *testing.T) {
	kept := 0
	for name, inputs := range shapes(t) {
		for _, in := range inputs {
			kept += strings.Count(string(in.Data), "KEEP-OUT")
		}
		res, err := Import(inputs)
		testenv.Check(t, err)
		for _, l := range res.Lines {
			if strings.Contains(l.String(), "KEEP") || strings.ContainsAny(l.String(), "\n\x1b\u202e") {
				t.Errorf("%s: %q", name, l.String())
			}
		}
		if strings.Contains(string(res.Config), "KEEP") || strings.Contains(string(res.Config), "S0VFUC1PVVQ") {
			t.Errorf("%s: a secret stands in\n%s", name, res.Config)
		}
	}
	if kept < 20 {
		t.Errorf("only %d secrets in the shapes", kept)
	}
}

// starts assembles a Sallyport of a configuration, with values for all that it refers to.
func starts(t *testing.T, text []byte) {
	t.Helper()
	dir := t.TempDir()
	pair := testenv.NewKeyPair(t, "app.example.com", time.Now().Add(time.Hour))
	body := regexp.MustCompile(`file:(/[^\s,"\]}]+)`).ReplaceAllStringFunc(string(text), func(ref string) string {
		file := filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(ref, "file:"), "/", "_"))
		content := "a-secret"
		switch filepath.Ext(ref) {
		case ".crt":
			content = pair.Cert
		case ".key":
			content = pair.Key
		}
		testenv.Check(t, os.WriteFile(file, []byte(content), 0o600))
		return "file:" + file
	})
	cfg, faults := config.Parse("import.yaml", []byte(body))
	testenv.Check(t, faults.Err())
	_, faults = assemble.NewPolicy(cfg)
	testenv.Check(t, faults.Err())
	sec, err := assemble.Resolve(cfg, func(name string) (string, bool) {
		switch name {
		case sessionKeyVariable:
			return session.NewKey(time.Now().Add(-time.Hour)).Text(), true
		case publicURLVariable:
			return "https://app.example.com", true
		case issuerVariable:
			return "https://sso.example.com", true
		}
		return "some-value", true
	})
	testenv.Check(t, err)
	process := assemble.NewProcess(prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	_, err = process.Build(cfg, sec)
	testenv.Check(t, err)
}

func TestEveryOptionOfOAuth2ProxyHasItsEntry(t *testing.T) {
	text, err := os.ReadFile("testdata/options.txt")
	testenv.Check(t, err)
	var published []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			published = append(published, line)
		}
	}
	for _, name := range published {
		if o, ok := known()[name]; !ok || o.to == "" && o.why == "" || o.to != "" && o.why != "" {
			t.Errorf("%s: what becomes of it?", name)
		}
	}
	for name := range known() {
		if !slices.Contains(published, name) {
			t.Errorf("%s is in the table, and not among what is published", name)
		}
	}
	if len(published) < 150 {
		t.Errorf("only %d options", len(published))
	}
}

// base is a configuration to which tests add.
const base = `provider = "oidc"
oidc_issuer_url = "https://sso.example.com"
client_id = "app"
client_secret = "x"
redirect_url = "https://app.example.com/oauth2/callback"
`

func importText(t *testing.T, texts ...string) (Result, string) {
	t.Helper()
	var inputs []Input
	for i, text := range texts {
		inputs = append(inputs, Input{Name: "in" + string(rune('1'+i)), Data: []byte(text)})
	}
	res, err := Import(inputs)
	testenv.Check(t, err)
	var lines strings.Builder
	for _, l := range res.Lines {
		lines.WriteString(l.String() + "\n")
	}
	return res, lines.String()
}

// TestEveryOptionGetsItsLine, in each of the forms in which it can be written.
func TestEveryOptionGetsItsLine(t *testing.T) {
	forms := []struct {
		key  func(name string, o option) string
		line string
	}{
		{func(_ string, o option) string { return o.file }, "%s = \"%s\"\n"},
		{func(name string, _ option) string { return "--" + name }, "%s=%s\n"},
		{func(_ string, o option) string { return envPrefix + strings.ToUpper(o.file) }, "%s=%s\n"},
	}
	for _, form := range forms {
		var text strings.Builder
		for name, o := range known() {
			value := "some-value"
			if o.kind == boolean {
				value = "true"
			}
			fmt.Fprintf(&text, form.line, form.key(name, o), value)
		}
		_, lines := importText(t, text.String())
		for name, o := range known() {
			if n := strings.Count(lines, ": "+form.key(name, o)+": "); n != 1 {
				t.Errorf("%s has %d lines in\n%s", form.key(name, o), n, lines)
			}
		}
		if strings.Contains(lines, "no option of oauth2-proxy") {
			t.Errorf("something is not known:\n%s", lines)
		}
	}
}

// A variable that is called as the flag is, and not as oauth2-proxy calls it, counts for nothing
// there.
func TestP15_AVariableThatOAuth2ProxyPassesOverOpensNothing(t *testing.T) {
	for _, variable := range []string{"EMAIL_DOMAIN=*", "SKIP_AUTH_ROUTE=^/", "TRUSTED_IP=10.0.0.0/8"} {
		res, lines := importText(t, base+"email_domains = [\"file.example\"]\nupstreams = [\"http://127.0.0.1:1\"]\n",
			envPrefix+variable+"\n")
		if res.Complete() || !strings.Contains(string(res.Config), nobody) ||
			strings.Contains(string(res.Config), "public:") {
			t.Errorf("%s makes\n%s\n%s", variable, res.Config, lines)
		}
	}
}

func TestFlagsCountBeforeVariablesAndVariablesBeforeFiles(t *testing.T) {
	res, lines := importText(t,
		base+"email_domains = [\"file.example\"]\nupstreams = [\"http://127.0.0.1:1\"]\ncookie_expire = \"1h\"\n",
		"--email-domain=flag.example\n--email-domain=more.example\n",
		"OAUTH2_PROXY_EMAIL_DOMAINS=variable.example\nOAUTH2_PROXY_COOKIE_EXPIRE=2h\n")
	for _, want := range []string{"{email_domains: [flag.example, more.example]}", "absolute_timeout: 2h"} {
		if !strings.Contains(string(res.Config), want) {
			t.Errorf("no %s in\n%s", want, res.Config)
		}
	}
	if strings.Contains(string(res.Config), "file.example") || strings.Contains(string(res.Config), "variable.example") {
		t.Errorf("what does not count is there:\n%s", res.Config)
	}
	for _, want := range []string{"in1:6: email_domains: not mapped: in2:1 says it too",
		"in3:1: OAUTH2_PROXY_EMAIL_DOMAINS: not mapped: in2:1 says it too"} {
		if !strings.Contains(lines, want) {
			t.Errorf("no line %q in\n%s", want, lines)
		}
	}
}

// TestWhereARestrictionDoesNotMapNobodyMayPass: what is left out must not open anything.
func TestWhereARestrictionDoesNotMapNobodyMayPass(t *testing.T) {
	for _, more := range []string{
		"email_domains = [\"*.example.com\"]\n",
		"authenticated_emails_file = \"/etc/emails\"\n",
		"email_domains = [\"${DOMAIN}\"]\n",
		"",
		"email_domains = \"*\"\nallowed_groups = [\"*\"]\n",
		"email_domains = \"*\"\nallowed_groups = [\"$GROUP\"]\n",
		"email_domains = \"*\"\nallowed_roles = [\"client:admin\"]\n",
		"email_domains = \"*\"\nallowed_groups = [\"a\"]\nallowed_roles = [\"admin\"]\n",
		"email_domains = \"*\"\ngoogle_groups = [\"admins@example.com\"]\n",
		"email_domains = \"*\"\ngithub_org = \"example\"\n",
		"email_domains = \"*\"\ngithub_users = [\"ann\"]\n",
		"email_domains = \"*\"\ngitlab_projects = [\"a/b\"]\n",
	} {
		res, lines := importText(t, base+"upstreams = \"http://127.0.0.1:1\"\n"+more)
		if !strings.Contains(string(res.Config), nobody) || strings.Contains(string(res.Config), "authenticated") ||
			res.Complete() {
			t.Errorf("%s became\n%s\n%s", more, res.Config, lines)
		}
	}
}

// The people of GitHub itself and of a server of one's own are others, and so are the numbers
// of their organizations.
func TestGitHubIsImportedWithTheServerThatItWas(t *testing.T) {
	const cfg = "provider = \"github\"\nclient_id = \"app\"\nclient_secret = \"x\"\nemail_domains = \"*\"\n" +
		"redirect_url = \"https://app.example.com/oauth2/callback\"\nupstreams = \"http://127.0.0.1:1\"\n"
	for more, want := range map[string]string{
		"": "type: github\n    client_id: app\n",
		"login_url = \"https://github.com/login/oauth/authorize\"\n":            "type: github\n    client_id: app\n",
		"login_url = \"https://git.example.com/login/oauth/authorize\"\n":       "base_url: https://git.example.com\n",
		"login_url = \"https://git.example.com/oauth/authorize\"\n":             nobody,
		"login_url = \"https://git.example.com/x/login/oauth/authorize?a=b\"\n": nobody,
		"login_url = \"$LOGIN\"\n":                                              nobody,
		"allowed_groups = [\"example:ops\"]\n":                                  nobody,
	} {
		res, lines := importText(t, cfg+more)
		text := string(res.Config)
		closed := strings.Contains(text, nobody)
		if !strings.Contains(text, want) || closed != (want == nobody) ||
			!strings.Contains(lines, "X-Forwarded-Groups: refused: is left out") {
			t.Errorf("%s became\n%s\n%s", more, text, lines)
		}
		if !strings.Contains(text, "X-Forwarded-User: {claim: username, encoding: utf8}") {
			t.Errorf("the app is told of another name than the login:\n%s", text)
		}
	}
}

func TestTrustedAddressesAreNotImportedWhileTheProxyIsUnknown(t *testing.T) {
	const cfg = base + "upstreams = \"http://127.0.0.1:1\"\nemail_domains = \"*\"\ntrusted_ips = [\"10.0.0.0/8\"]\n"
	res, _ := importText(t, cfg)
	if !strings.Contains(string(res.Config), "public: {from: [\"10.0.0.0/8\"]}") {
		t.Errorf("not there:\n%s", res.Config)
	}
	res, lines := importText(t, cfg+"reverse_proxy = true\n")
	if strings.Contains(string(res.Config), "10.0.0.0") || res.Complete() {
		t.Errorf("behind a proxy that is not known everybody would pass:\n%s\n%s", res.Config, lines)
	}
	// Whom of X-Forwarded-For the two programs take differs, and so does the header by default.
	const behind = "reverse_proxy = true\ntrusted_proxy_ips = [\"192.0.2.1\"]\n"
	const asked = base + "upstreams = \"static://202\"\nemail_domains = \"*\"\ntrusted_ips = [\"10.0.0.0/8\"]\n"
	for _, text := range []string{
		cfg + behind,
		cfg + behind + "real_client_ip_header = \"X-Forwarded-For\"\n",
		asked,
		asked + behind + "real_client_ip_header = \"X-Forwarded-For\"\n",
	} {
		if res, lines := importText(t, text); strings.Contains(string(res.Config), "10.0.0.0") || res.Complete() {
			t.Errorf("the address of somebody else would count:\n%s\n%s", res.Config, lines)
		}
	}
	res, _ = importText(t, asked+behind)
	if !strings.Contains(string(res.Config), "from: [\"10.0.0.0/8\"]") {
		t.Errorf("not there:\n%s", res.Config)
	}
}

// A GitLab of one's own has other people and groups than gitlab.com.
func TestGitLabOfOnesOwnIsNotGitLabCom(t *testing.T) {
	const cfg = "provider = \"gitlab\"\nclient_id = \"app\"\nemail_domains = \"*\"\ngitlab_groups = \"corp\"\n" +
		"upstreams = \"http://127.0.0.1:1\"\n"
	for more, want := range map[string]string{
		"": "issuer: https://gitlab.com\n",
		"login_url = \"https://git.example.com/oauth/authorize\"\n": "issuer: https://git.example.com\n",
		"redeem_url = \"https://example.com/git/oauth/token\"\n":    "issuer: https://example.com/git\n",
		"login_url = \"https://git.example.com/authorize\"\n":       "issuer: env:SALLYPORT_ISSUER",
		"validate_url = \"https://git.example.com/api/v4/user\"\n":  "issuer: env:SALLYPORT_ISSUER",
		"validate_url = \"https://gitlab.com/api/v4/user\"\n":       "issuer: https://gitlab.com\n",
		"login_url = \"https://git.example.com/oauth/authorize\"\noidc_issuer_url = \"https://a.example\"\n": "issuer: " +
			"https://a.example\n",
	} {
		if res, lines := importText(t, cfg+more); !strings.Contains(string(res.Config), want) {
			t.Errorf("%s became\n%s\n%s", more, res.Config, lines)
		}
	}
}

// oauth2-proxy cuts a text at its commas and keeps the blanks behind them.
func TestABlankAtTheEdgeOfAValueOpensNothing(t *testing.T) {
	res, lines := importText(t, base+"upstreams = \"http://127.0.0.1:1\"\nemail_domains = \"a.example, b.example\"\n"+
		"allowed_groups = \"a, b\"\nskip_auth_routes = [\" ^/x$\", \"^/y$ \", \"POST=^/z$\"]\n")
	for _, other := range []string{"b.example", "/x", "/y", "[a, b]"} {
		if strings.Contains(string(res.Config), other) {
			t.Errorf("%s is there:\n%s\n%s", other, res.Config, lines)
		}
	}
	if !strings.Contains(string(res.Config), "{email_domains: [a.example], groups: [a]}") ||
		!strings.Contains(lines, "path_exact /z (POST only)") || res.Complete() {
		t.Errorf("became\n%s\n%s", res.Config, lines)
	}
}

// What ingress-nginx asks elsewhere has rules of its own, and a role has another name here.
func TestHostsThatAskForSomethingElseStayClosed(t *testing.T) {
	const manifests = "config: {existingSecret: a}\nextraArgs: {provider: keycloak-oidc, redirect-url: " +
		"'https://auth.example.com/oauth2/callback', oidc-issuer-url: 'https://sso.example.com'}\n---\n" +
		"apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a, annotations: " +
		"{nginx.ingress.kubernetes.io/auth-url: '%s'}}\nspec: {rules: [{host: a.example.com}]}\n"
	for address, open := range map[string]bool{
		"https://$host/oauth2/auth":                                 true,
		"http://oauth2-proxy/oauth2/auth?allowed_groups=staff":      true,
		"http://oauth2-proxy/oauth2/auth?allowed_groups=a,role:ops": false,
		"http://oauth2-proxy/other/auth":                            false,
		"http://authelia/api/authz/auth-request":                    false,
	} {
		res, lines := importText(t, fmt.Sprintf(manifests, address))
		_, site, _ := strings.Cut(string(res.Config), "host: a.example.com")
		if strings.Contains(site, nobody) == open || res.Complete() != open {
			t.Errorf("%s became\n%s\n%s", address, res.Config, lines)
		}
	}
}

// As oauth2-proxy does: a flag that is on or off takes its value behind = only.
func TestAFlagThatIsOnTakesNoWordBehindIt(t *testing.T) {
	res, lines := importText(t, "oauth2-proxy --provider=google --email-domain=example.com --reverse-proxy false "+
		"--pass-host-header true --upstream=http://127.0.0.1:1")
	if !res.Complete() || strings.Contains(string(res.Config), nobody) ||
		!strings.Contains(lines, "--reverse-proxy: not mapped: oauth2-proxy believes") ||
		!strings.Contains(lines, "(argument): not mapped: oauth2-proxy passes it over: --reverse-proxy without = is true") {
		t.Errorf("became\n%s\n%s", res.Config, lines)
	}
}

// Each of these says, where it is easily overlooked, something that lets fewer people in.
func TestWhatIsEasilyOverlookedLetsNobodyIn(t *testing.T) {
	const run = "oauth2-proxy --email-domain='*' --upstream=http://127.0.0.1:1 "
	const release = "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: oauth2-proxy}\n"
	const application = "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec: {source: {helm: {"
	for _, text := range []string{
		"config: {provider: oidc, allowedGroups: [staff]}\n",
		"oauth2-proxy: {config: {existingSecret: a}, allowedUsers: [ann]}\n",
		"config: {forceLegacyConfig: false, configFile: 'email_domains = [\"*\"]'}\nalphaConfig: {enabled: true}\n",
		"configuration: {google: {enabled: true, googleGroup: staff@example.com}}\n",
		"configuration: {existingConfigmap: elsewhere}\nextraArgs: [--email-domain=*]\n",
		"extraArgs: []\nconfiguration: {clientID: a}\nextraEnvVarsCM: more\n",
		"extraArgs: {provider: google}\nargs: [--google-group=staff@example.com]\n",
		release + "spec: {valuesFrom: [{kind: ConfigMap, name: more}], values: {extraArgs: {provider: google}}}\n",
		application + "valueFiles: [more.yaml], valuesObject: {extraArgs: {provider: google}}}}}\n",
		application + "parameters: [{name: config.allowed, value: a}], valuesObject: {extraArgs: {provider: google}}}}}\n",
		application + "parameters: [{name: 'extraArgs[0]', value: a}], valuesObject: {extraArgs: {provider: google}}}}}\n",
		run + "--client-id={{ a | b }} --google-group=staff@example.com\n",
		run + "--client-secret=$(cat a | tr -d b) --google-group=staff@example.com\n",
		run + "--client-secret=`cat a | tr -d b` --google-group=staff@example.com\n",
		run + "\"$@\"\n",
		"export OAUTH2_PROXY_GOOGLE_GROUPS=staff@example.com\n" + run + "\n",
		". /etc/more\n" + run + "\n",
		"docker run -e OAUTH2_PROXY_GOOGLE_GROUPS quay.io/" + run + "\n",
		"[Service]\nExecStart=/bin/" + run + "\nEnvironment=\"OAUTH2_PROXY_GOOGLE_GROUPS=staff@example.com\"\n",
		"[Service]\nExecStart=/bin/" + run + "\nEnvironmentFile=-/etc/more\n",
		"services: {a: {image: oauth2-proxy, entrypoint: [oauth2-proxy, --google-group=a@example.com], " +
			"command: ['--email-domain=*']}}\n",
		"services: {a: {image: oauth2-proxy, entrypoint: [/start.sh], command: ['--email-domain=*']}}\n",
		"provider = \"keycloak-oidc\"\noidc_issuer_url = \"https://sso.example.com\"\nemail_domains = \"*\"\n" +
			"allowed_groups = [\"role:staff\"]\n",
		"services: {a: {image: oauth2-proxy, extends: {service: b}, command: ['--email-domain=*']}}\n",
		"services: {a: {image: oauth2-proxy, command: ['--email-domain=*', --google-group: a@example.com]}}\n",
		"extraArgs: [--provider=google, --google-group: a@example.com]\n",
		"command=\"/bin/oauth2-proxy\"\ncommand_args=\"--google-group=a@example.com\"\n",
		"[program:sso]\nenvironment=OAUTH2_PROXY_GOOGLE_GROUPS=\"a@example.com\"\ncommand=/bin/" + run + "\n",
		"services: {oauth2-proxy: {build: ., command: ['--email-domain=*']}}\n",
		"kind: Pod\napiVersion: v1\nspec: {containers: [{name: oauth2-proxy, args: ['--email-domain=*']}]}\n---\n" +
			"kind: Kustomization\napiVersion: kustomize.config.k8s.io/v1beta1\npatches: [{path: a.yaml}]\n",
		"kind: ConfigMap\napiVersion: v1\nmetadata: {name: oauth2-proxy}\ndata: {config: 'google_groups = [\"a@example.com\"]'," +
			" oauth2-proxy.cfg: 'email_domains = [\"*\"]'}\n---\nkind: Pod\napiVersion: v1\n" +
			"spec: {containers: [{name: oauth2-proxy, args: [--config=/etc/config]}]}\n",
		release + "spec: {chart: {spec: {valuesFiles: [a.yaml]}}, values: {extraArgs: {provider: google}}}\n",
		"kind: Pod\napiVersion: v1\nspec: {initContainers: [{name: oauth2-proxy, " +
			"args: ['--email-domain=*', '--google-group=a@example.com']}]}\n",
	} {
		if res, lines := importText(t, text); !strings.Contains(string(res.Config), nobody) || res.Complete() {
			t.Errorf("%s became\n%s\n%s", text, res.Config, lines)
		}
	}
}

// The program's name is that of folders, containers, users and clients, too: what stands around it
// is no command, and the options of the command count.
func TestTheCommandIsFoundAmongWhatHasItsName(t *testing.T) {
	const flags = " --provider=oidc --oidc-issuer-url=https://sso.example.com --allowed-group=staff " +
		"--upstream=http://127.0.0.1:1"
	const domains = "OAUTH2_PROXY_EMAIL_DOMAINS=*"
	const run = "docker run -d --name oauth2-proxy -v /etc/oauth2-proxy:/etc/oauth2-proxy -e " + domains
	for _, text := range []string{
		"[Service]\nWorkingDirectory=/opt/oauth2-proxy\nEnvironment=" + domains + "\nExecStart=/bin/oauth2-proxy" + flags,
		"[Service]\nExecStart=/usr/bin/podman run \\\n  --name web-oauth2-proxy \\\n  -e " + domains +
			" \\\n  -e OAUTH2_PROXY_PROVIDER=oidc \\\n  -e OAUTH2_PROXY_OIDC_ISSUER_URL=https://sso.example.com \\\n" +
			"  -e OAUTH2_PROXY_ALLOWED_GROUPS=staff \\\n  quay.io/oauth2-proxy/oauth2-proxy:latest\nExecStop=/bin/true\n",
		"export " + domains + "\ncd /opt/oauth2-proxy\nexec ./oauth2-proxy" + flags,
		"docker rm -f oauth2-proxy\n" + run + " quay.io/oauth2-proxy/oauth2-proxy:v7" + flags + "\ndocker logs oauth2-proxy",
		run + " quay.io/oauth2-proxy/oauth2-proxy@sha256:aa /bin/oauth2-proxy --cookie-name oauth2-proxy" + flags,
		"[Service]\nEnvironment=" + domains + "\nExecStart=\nExecStart=/bin/oauth2-proxy" + flags,
		"[program:oauth2-proxy]\ncommand=/bin/oauth2-proxy --email-domain=*" + flags + "\nautostart=true\n",
		domains + " sudo -u oauth2-proxy oauth2-proxy" + flags + " > /var/log/oauth2-proxy",
		"client_id = \"oauth2-proxy\"\nprovider = \"oidc\"\noidc_issuer_url = \"https://sso.example.com\"\n" +
			"email_domains = [\"*\"]\nallowed_groups = [\"staff\"]\n",
		"OAUTH2_PROXY_CLIENT_ID=oauth2-proxy\nOAUTH2_PROXY_PROVIDER=oidc\n" +
			"OAUTH2_PROXY_OIDC_ISSUER_URL=https://sso.example.com\nOAUTH2_PROXY_ALLOWED_GROUPS=staff\n" + domains,
		"nameOverride: oauth2-proxy\nextraArgs: {provider: oidc, oidc-issuer-url: 'https://sso.example.com', " +
			"email-domain: '*', allowed-group: staff}\n",
	} {
		res, lines := importText(t, text)
		if !strings.Contains(string(res.Config), "- {groups: [staff]}\n") || !res.Complete() {
			t.Errorf("%s became\n%s\n%s", text, res.Config, lines)
		}
	}
	// An option that is no part of it may be one that a wrapper hands on.
	res, lines := importText(t, "export "+domains+"\nset -- --allowed-group=staff\noauth2-proxy --provider=google\n")
	if !strings.Contains(string(res.Config), nobody) || res.Complete() {
		t.Errorf("became\n%s\n%s", res.Config, lines)
	}
}

func TestAnAppWhoseAddressStandsElsewhereIsNotAnotherProxyThatAsks(t *testing.T) {
	for _, value := range []string{"$UPSTREAM", "http://${HOST_IP}:3000"} {
		res, lines := importText(t, "oauth2-proxy --provider=google --email-domain=a.example --upstream="+value)
		if strings.Contains(string(res.Config), "external_auth") || res.Complete() ||
			!strings.Contains(string(res.Config), "upstream: http://app.invalid\n") ||
			!strings.Contains(lines, "--upstream: refused: its value stands elsewhere") {
			t.Errorf("became\n%s\n%s", res.Config, lines)
		}
	}
}

func TestWhatCannotBeReadIsSaidWithItsLineAndWithoutItsWords(t *testing.T) {
	for text, want := range map[string]string{
		"client_secret = \"KEEP-OUT\n":          "in:1: is not TOML",
		"a = 1\nclient_secret = KEEP-OUT\n":     "in:2: is not TOML",
		"a: b\nsecret: [KEEP-OUT\n":             "in:3: is not YAML",
		"kind: Deployment\n":                    "in:1: is in no form",
		"x":                                     "in:1: is in no form",
		"":                                      "in:1: is in no form",
		"\xff":                                  "in:1: is not UTF-8 text",
		"provider = \"oidc\"\nkey = \"\x00\"\n": "in:2: has a control character",
		"services: {a: {image: oauth2-proxy}, b: {image: oauth2-proxy}}\n":             "in:1: is a second oauth2-proxy",
		"oauth2-proxy --email-domain=a.example &\noauth2-proxy --email-domain='*'\n":   "in:2: is a second oauth2-proxy",
		"OAUTH2_PROXY_PROVIDER: oidc\nOAUTH2_PROXY_CLIENT_ID: oauth2-proxy\n":          "in:1: is in no form",
		"FROM quay.io/oauth2-proxy/oauth2-proxy\nCMD [\"--email-domain=a.example\"]\n": "in:1: is in no form",
		"client_secret = {a = \"KEEP-OUT\"}\n":                                         "in:1: is neither a text",
		"kind: Service\napiVersion: v1\n":                                              "nothing of oauth2-proxy's is configured in in",
	} {
		_, err := Import([]Input{{Name: "in", Data: []byte(text)}})
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "KEEP") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestPatternsThatRoutesCanSay(t *testing.T) {
	for pattern, want := range map[string][]reach{
		"^/health$":          {{text: "/health"}},
		`^/a\.css$`:          {{text: "/a.css"}},
		"^/a/":               {{text: "/a/", below: true}},
		"^/a/.*":             {{text: "/a/", below: true}},
		"^/a/.*$":            {{text: "/a/", below: true}},
		"^/a/.+$":            {{text: "/a/", below: true, more: true}},
		"^/a(/|$)":           {{text: "/a/", below: true}, {text: "/a"}},
		"^/a(/.*)?$":         {{text: "/a"}, {text: "/a/", below: true}},
		"^/(a|b)$":           {{text: "/a"}, {text: "/b"}},
		"^/a/?$":             {{text: "/a"}, {text: "/a/"}},
		"^/[ab]/c$":          {{text: "/a/c"}, {text: "/b/c"}},
		"^(/a$|/b/)":         {{text: "/a"}, {text: "/b/", below: true}},
		"^/":                 {{text: "/", below: true}},
		"/":                  {{text: "/", below: true}},
		".*":                 {{text: "/", below: true}},
		"^.*$":               {{text: "/", below: true}},
		"^/a/b$|^/a/.*|^/a/": {{text: "/a/", below: true}},
		"^/(?:api/)?health$": {{text: "/health"}, {text: "/api/health"}},
	} {
		got, err := openPaths(pattern)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v %v, want %v", pattern, got, err, want)
		}
	}
	for _, pattern := range []string{"^/a", "/a$", "a", "^/a.b$", "(?i)^/a$", "^/a/[^/]+$", `^/a\b`, "^/a|^/b$", "^a$",
		"^$", "(", "^/a$b", "^/.*\\.css$", "^/x{2,}$", "^/[a-z]$", "/.+", "(?m)^/a$", ".*a$", "$",
		"^/(a|b|c|d|e|f|g|h)(a|b|c|d|e|f|g|h|i)$"} {
		if got, err := openPaths(pattern); err == nil {
			t.Errorf("%s: %v", pattern, got)
		}
	}
}
