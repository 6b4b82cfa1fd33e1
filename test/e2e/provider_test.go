package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// provider is npm oidc-provider, run by provider.mjs.
type provider struct {
	Issuer, ClientID, ClientSecret string
	LendingID, LendingSecret       string // the client of what people lend, which gets refresh tokens

	options map[string]any
	process *process
}

// accounts is who can sign in at the provider: sub and claims.
const accounts = `{
	"mira": {"email": "mira@corp.example", "email_verified": true, "name": "Mira Okafor", "preferred_username": "mira", "groups": ["engineering", "ops"]},
	"ines": {"email": "ines@corp.example", "email_verified": true, "name": "Ines Duarte", "groups": ["ops"],
		"orgs": [{"id": "7c", "name": "ACME GmbH"}, {"id": "birch", "name": "Birch Bank", "domain": "birch.example"}, {"id": "acme-us"}]},
	"tom":  {"email": "tom@corp.example", "email_verified": true, "name": "<b onmouseover=\"x\">Tom</b>", "groups": ["sales"]}
}`

// startProvider starts it for one client, and tells: the client learns who signs out
// at the provider.
func startProvider(publicURL string, tells bool) (*provider, error) {
	if _, err := oidcProvider(); err != nil {
		return nil, err
	}
	p := &provider{ClientID: "sallyport-e2e", ClientSecret: "a secret: of 100% +ugly/characters"}
	client := map[string]any{
		"client_id": p.ClientID, "client_secret": p.ClientSecret,
		"redirect_uris": []string{publicURL + "/.sallyport/callback/corp",
			publicURL + "/.sallyport/callback/partner", // and those of cost_test.go
			publicURL + "/oauth2/callback", publicURL + "/oauth2-minimal/callback"},
	}
	if tells {
		client["backchannel_logout_uri"] = publicURL + "/.sallyport/backchannel-logout/corp"
		client["backchannel_logout_session_required"] = true
	}
	p.LendingID, p.LendingSecret = "lending", "another secret: of 100% +ugly/characters"
	lending := map[string]any{"client_id": p.LendingID, "client_secret": p.LendingSecret,
		"grant_types":   []string{"authorization_code", "refresh_token"},
		"redirect_uris": []string{publicURL + "/.sallyport/connect/things/callback"}}
	p.options = map[string]any{"port": 0, "lending": lending, "accounts": json.RawMessage(accounts), "client": client}
	return p, p.start()
}

var issuer = regexp.MustCompile(`issuer (http://127\.0\.0\.1:(\d+))`)

// start begins to serve; again after stop, under the same address.
func (p *provider) start() error {
	options, err := json.Marshal(p.options)
	if err != nil {
		return err
	}
	if p.process, err = start(".", "node", "provider.mjs", string(options)); err != nil {
		return err
	}
	m, err := p.process.says(issuer)
	if err != nil {
		p.process.stop()
		return err
	}
	p.Issuer, p.options["port"] = m[1], json.Number(m[2])
	return nil
}

// restart is start in a test that has stopped it.
func (p *provider) restart(t *testing.T) {
	t.Helper()
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
}

func (p *provider) stop() {
	if p.process != nil {
		p.process.stop()
	}
}

func oidcProvider() (string, error) {
	if _, err := exec.LookPath("node"); err != nil {
		return "", fmt.Errorf("node is %w: install Node.js 22 or later", errMissing)
	}
	return npmPackage("oidc-provider", "package.json")
}

// npmPackage is the path of a file in a package that `npm ci` installs.
func npmPackage(name, file string) (string, error) {
	path := filepath.Join("node_modules", name, filepath.FromSlash(file))
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("npm package %s is %w: run `npm ci` in test/e2e", name, errMissing)
	}
	return path, nil
}

// The packages are pinned, but the lock file names no registry, because others may not be
// able to reach it.
func TestLockFileNamesNoRegistry(t *testing.T) {
	text, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), `"resolved"`) {
		t.Error("package-lock.json has \"resolved\" addresses: run npm install with --omit-lockfile-registry-resolved")
	}
	var lock struct {
		Packages map[string]struct{ Version, Integrity string }
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		t.Fatal(err)
	}
	for name, p := range lock.Packages {
		if name != "" && (p.Version == "" || !strings.HasPrefix(p.Integrity, "sha512-")) {
			t.Errorf("%s has no version or no integrity", name)
		}
	}
	for name, want := range map[string]string{"oidc-provider": "9.13.3", "ws": "8.23.0",
		"@slack/web-api": "8.2.0", "@microsoft/microsoft-graph-client": "3.0.7",
		"@googleapis/calendar": "20.0.1", "emulate": "0.12.2", "@pagerduty/pdjs": "2.2.4", "tsdav": "2.3.4"} {
		if v := lock.Packages["node_modules/"+name].Version; v != want {
			t.Errorf("%s is %q", name, v)
		}
	}
}
