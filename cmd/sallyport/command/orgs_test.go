package command

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// From the file to what apps are told: an administrator whom it names has their organization
// read, whoever signs in from then on has its name, an operator lists and forgets it, and no
// token of Google's is in anything that was written.
func TestP08_AnAdministratorNamesTheirOrganization(t *testing.T) {
	told := map[string]string{} // the organization of whoever opened /<person>
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told[strings.Trim(r.URL.Path, "/")] = r.Header.Get("X-Forwarded-Org-Id") + "|" +
			r.Header.Get("X-Forwarded-Org-Name")
		_, _ = io.WriteString(w, "the app")
	}))
	t.Cleanup(app.Close)
	b, dir := &binary{}, t.TempDir()
	for _, address := range []*string{&b.public, &b.admin} {
		var err error
		*address, err = testenv.UnusedAddress()
		testenv.Check(t, err)
	}
	public := "http://" + b.public
	google := testenv.StartProvider(t, demo.ProviderOptions{ClientID: "sallyport", ClientSecret: canarySecret,
		Kind: demo.Google, RedirectURIs: []string{public + "/.sallyport/callback/google",
			public + "/.sallyport/directory/google/callback"}})
	b.config = filepath.Join(dir, "config.yaml")
	write(t, b.config, fmt.Sprintf(`version: 1
public_url: %[1]s
listen: {http: %[2]q, admin: %[3]q}
log: {level: debug, format: json, audit: "%[4]s/audit"}
session: {keys: ["literal:%[5]s"]}
store: "sqlite:%[4]s/sallyport.db"
providers:
  - id: google
    type: google
    issuer: %[6]s
    client_id: sallyport
    client_secret: "literal:%[7]s"
    directory: {managed_by: [jonas@acme.example], base_url: %[6]q}
routes: [{name: app, path: /, upstream: %[8]q, allow: authenticated}]
`, public, b.public, b.admin, dir, session.NewKey(time.Now().Add(-time.Hour)).Text(), google.URL, canarySecret,
		app.URL))
	command := func(want int, args ...string) string {
		t.Helper()
		var stdout, stderr strings.Builder
		code := run(append(args, "-c", b.config), &console{stdout: &stdout, stderr: &stderr,
			env: func(string) (string, bool) { return "", false }})
		if code != want {
			t.Fatalf("%q: %d %s", args, code, stderr.String())
		}
		return stdout.String() + stderr.String()
	}
	logs := t.TempDir()
	b.run(t, logs, b.config)
	enter := func(person string) (*testenv.Browser, testenv.Page) {
		t.Helper()
		browser := testenv.NewBrowser(t, nil)
		page := browser.SignIn(browser.Open(public+"/"+person), person)
		if page.Body != "the app" {
			t.Fatalf("%s: %d at %s\n%s", person, page.Status, page.URL, page.Body)
		}
		return browser, page
	}
	jonas, _ := enter("jonas")
	account := jonas.Open(public + "/.sallyport/account")
	m := regexp.MustCompile(`name="form" value="([^"]*)">Read your organization`).FindStringSubmatch(account.Body)
	if m == nil {
		t.Fatalf("no button:\n%s", account.Body)
	}
	account = jonas.SignIn(jonas.Submit(account, "form", html.UnescapeString(m[1])), "jonas")
	if account.Status != 200 || !strings.Contains(account.Body, "Acme Rockets") {
		t.Fatalf("read: %d at %s\n%s", account.Status, account.URL, account.Body)
	}
	enter("mira")
	enter("tomoko")
	for person, want := range map[string]string{"jonas": "google:acme.example|acme.example",
		"mira": "google:acme.example|Acme Rockets", "tomoko": "google:birch.example|birch.example"} {
		if told[person] != want {
			t.Errorf("the app is told %q of %s, want %q", told[person], person, want)
		}
	}
	var listed struct{ Orgs []listedOrg }
	testenv.Check(t, json.Unmarshal([]byte(command(exitOK, "orgs", "list", "--format", "json")), &listed))
	if len(listed.Orgs) != 1 || listed.Orgs[0].Org != "google:acme.example" || listed.Orgs[0].Name != "Acme Rockets" ||
		listed.Orgs[0].Domain != "acme.example" || !strings.HasPrefix(listed.Orgs[0].Customer, "c") ||
		!strings.HasPrefix(listed.Orgs[0].By, "google:1") {
		t.Errorf("listed %+v", listed)
	}
	if got := command(exitOK, "orgs", "list"); !strings.HasPrefix(got, "ORG ") ||
		!strings.Contains(got, "google:acme.example  Acme Rockets  acme.example  "+listed.Orgs[0].Customer) {
		t.Errorf("listed %s", got)
	}
	command(exitConfig, "orgs", "forget", "google:birch.example")
	command(exitConfig, "orgs", "forget")
	command(exitConfig, "orgs", "list", "--format", "yaml")
	if got := command(exitOK, "orgs", "forget", "google:acme.example"); !strings.HasPrefix(got, "forgotten: ") {
		t.Errorf("forget says %s", got)
	}
	if enter("mira"); told["mira"] != "google:acme.example|acme.example" {
		t.Errorf("once it is forgotten the app is told %q", told["mira"])
	}
	if got := command(exitOK, "permissions"); !strings.Contains(got,
		"read the organization's details  google  openid ") ||
		!strings.Contains(got, "https://www.googleapis.com/auth/admin.directory.customer.readonly") ||
		!strings.Contains(got, public+"/.sallyport/directory/google/callback") {
		t.Errorf("permissions says %s", got)
	}
	if got := command(exitOK, "check"); !strings.Contains(got, "The redirect URI for its directory, to register there too: "+
		public+"/.sallyport/directory/google/callback\n") {
		t.Errorf("check says %s", got)
	}
	b.stop(t)
	seen := ""
	for _, pattern := range []string{dir + "/*", logs + "/*"} {
		files, err := filepath.Glob(pattern)
		testenv.Check(t, err)
		for _, name := range files {
			text, err := os.ReadFile(name)
			testenv.Check(t, err)
			if name != b.config {
				seen += string(text)
			}
		}
	}
	for _, event := range []string{`"event":"directory_read"`, "forgot what a directory said of google:acme.example"} {
		if strings.Count(seen, event) != 1 {
			t.Errorf("%s is there %d times", event, strings.Count(seen, event))
		}
	}
	for _, secret := range []string{"ya29.", "1//0", canarySecret} {
		if strings.Contains(seen, secret) {
			t.Errorf("%s was written", secret)
		}
	}
	if customer, revoked := google.Hits(testenv.Customer), google.Hits(testenv.Revoke); customer != 1 || revoked != 1 {
		t.Errorf("the directory was asked %d times, and %d tokens were ended", customer, revoked)
	}
}
