package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

const badge = "canary-badge-0123"

// ownProgram is the one of test/plugin, a module of its own, and what it runs with.
type ownProgram struct {
	file          string
	config        string
	public, admin string
	grants        string

	mu        sync.Mutex // guards the rest
	assertion string
	asked     []string // of the board: method, path and key
}

// startOwnProgram builds it, as somebody would who has no copy of Sallyport to change.
func startOwnProgram(t *testing.T) *ownProgram {
	t.Helper()
	dir := t.TempDir()
	p := &ownProgram{file: filepath.Join(dir, "own"), config: filepath.Join(dir, "config.yaml")}
	build := exec.Command("go", "build", "-o", p.file, ".")
	build.Dir = root + "/test/plugin"
	build.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	board := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked = append(p.asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("X-Board-Key"))
		switch {
		case r.Header.Get("X-Board-Key") != badge:
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/floor/3/me":
			_, _ = io.WriteString(w, `{"id":"7","name":"Mira at the board"}`)
		default:
			_, _ = io.WriteString(w, "the lift is out of order")
		}
	}))
	t.Cleanup(board.Close)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.assertion = r.Header.Get("X-Sallyport-Assertion")
		_, _ = io.WriteString(w, "the planner")
	}))
	t.Cleanup(app.Close)
	for _, address := range []*string{&p.public, &p.admin, &p.grants} {
		var err error
		*address, err = testenv.UnusedAddress()
		testenv.Check(t, err)
	}
	op := testenv.StartProvider(t, demo.ProviderOptions{ClientID: "sallyport", ClientSecret: canarySecret,
		People: colleagues(), RedirectURIs: []string{"http://" + p.public + "/.sallyport/callback/sso"}})
	key, seal := session.NewKey(time.Now().Add(-time.Hour)), session.NewKey(time.Now().Add(-time.Hour))
	write(t, p.config, fmt.Sprintf(`version: 1
public_url: http://%[1]s
listen: {http: %[1]q, admin: %[2]q, grants: %[3]q}
session: {keys: ["literal:%[4]s"]}
store: "sqlite:%[5]s"
providers: [{id: sso, type: oidc, issuer: %[6]q, client_id: sallyport, client_secret: "literal:%[7]s"}]
routes: [{name: app, path: /, upstream: %[8]q, allow: authenticated}]
grants:
  encryption_keys: ["literal:%[9]s"]
  connectors:
    - {id: board, type: notice_board, base_url: %[10]q, options: {floor: "3"}}
  apps: [{id: planner, token: "literal:%[11]s", routes: [app], connectors: [board]}]
`, p.public, p.admin, p.grants, key.Text(), filepath.Join(dir, "store.db"), op.URL, canarySecret, app.URL, seal.Text(),
		board.URL, lentToken))
	return p
}

// run runs one of its commands.
func (p *ownProgram) run(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.Command(p.file, args...)
	b, _ := cmd.CombinedOutput()
	return string(b), cmd.ProcessState.ExitCode()
}

// A connector that Sallyport does not have is in a program of one's own by a line of Go: the
// configuration may name its type, everything judges and shows it, and people lend with it.
func TestAProgramOfOnesOwnHasAConnectorOfItsOwn(t *testing.T) {
	p := startOwnProgram(t)
	t.Run("commands", func(t *testing.T) { testOwnCommands(t, p) })
	serve := exec.Command(p.file, "serve", "-c", p.config)
	var wrote strings.Builder
	serve.Stdout, serve.Stderr = &wrote, &wrote
	testenv.Check(t, serve.Start())
	defer func() {
		_ = serve.Process.Kill()
		_ = serve.Wait()
		if t.Failed() {
			t.Log(wrote.String())
		}
		if strings.Contains(wrote.String(), badge) {
			t.Error("the key is in the log")
		}
	}()
	testenv.Eventually(t, "the program to be ready",
		func() bool { return testenv.StatusOf("http://"+p.admin+"/readyz") == http.StatusOK })
	testOwnGrant(t, p)
}

func testOwnCommands(t *testing.T, p *ownProgram) {
	if out, code := p.run(t, "check", p.config); code != 0 || !strings.Contains(out, "is valid.") ||
		!strings.Contains(out, "read the notices of your floor") {
		t.Errorf("check: %d\n%s", code, out)
	}
	text := read(t, p.config)
	for what, c := range map[string][3]string{
		"without what it needs": {`options: {floor: "3"}`, `name: Board`, "connectors[0].options.floor: must be the number"},
		"with what is not so":   {`floor: "3"`, `floor: "third"`, "connectors[0].options.floor: must be the number"},
		"with a key of others":  {`options: {floor: "3"}`, "tenant: common", "tenant: has no meaning for type notice_board"},
		"with events it has not": {`floor: "3"}`, `floor: "3"}, signing_secrets: ["env:NOT_SET"]`,
			"signing_secrets: has no meaning for type notice_board, which takes no events"},
		"with a type of nobody's": {"notice_board", "notice_bord", `did you mean "notice_board"?`},
	} {
		bad := filepath.Join(t.TempDir(), "bad.yaml")
		write(t, bad, strings.Replace(text, c[0], c[1], 1))
		if out, code := p.run(t, "check", bad); code != exitConfig || !strings.Contains(out, c[2]) {
			t.Errorf("check %s: %d\n%s", what, code, out)
		}
	}
	var schema any
	out, code := p.run(t, "schema")
	if err := json.Unmarshal([]byte(out), &schema); err != nil || code != 0 || !strings.Contains(out, `"notice_board"`) {
		t.Errorf("schema: %d, %v, without the type", code, err)
	}
	if strings.Contains(string(config.Schema()), "notice_board") {
		t.Error("Sallyport itself has the type")
	}
	if out, code := p.run(t, "permissions", "-c", p.config); code != 0 ||
		!strings.Contains(out, "board (notice_board)") || !strings.Contains(out, "API key") ||
		!strings.Contains(out, "People paste the key on the back of your badge. Apps may read the notices of your floor.") {
		t.Errorf("permissions: %d\n%s", code, out)
	}
	// Sallyport itself knows no such type.
	if _, _, err := loadConfig(p.config); err == nil || !strings.Contains(err.Error(), "type: must be") {
		t.Errorf("Sallyport itself: %v", err)
	}
}

func testOwnGrant(t *testing.T, p *ownProgram) {
	browser := testenv.NewBrowser(t, nil)
	if page := browser.SignIn(browser.Open("http://"+p.public+"/page"), "mira"); page.Body != "the planner" {
		t.Fatalf("the app was not reached: %d\n%s", page.Status, page.Body)
	}
	status, body := p.use(t, "GET", "/gateway/board/notices")
	var problem struct {
		Connect string `json:"connect_url"`
	}
	if err := json.Unmarshal([]byte(body), &problem); err != nil || status != http.StatusConflict {
		t.Fatalf("without a grant: %d %s", status, body)
	}
	page := browser.Open(problem.Connect + "&return_to=%2Fpage")
	if !strings.Contains(page.Body, "read the notices of your floor") ||
		!strings.Contains(page.Body, "the key on the back of your badge") {
		t.Fatalf("the page that asks: %d\n%s", page.Status, page.Body)
	}
	paste := func(key string) testenv.Page {
		return browser.Post(page, "", url.Values{"form": {formSecret(page)}, "answer": {"yes"}, "key": {key}})
	}
	if refused := paste("canary-badge-9999"); refused.Status < 400 || refused.Status >= 500 {
		t.Errorf("a key of nobody: %d\n%s", refused.Status, refused.Body)
	}
	if done := paste(badge); done.Body != "the planner" {
		t.Fatalf("after pasting: %d at %s\n%s", done.Status, done.URL, done.Body)
	}
	p.mu.Lock()
	p.asked = nil
	p.mu.Unlock()
	if status, body := p.use(t, "GET", "/gateway/board/notices/2"); status != 200 || body != "the lift is out of order" {
		t.Errorf("the app reads %d %s", status, body)
	}
	if status, body := p.use(t, "POST", "/gateway/board/notices"); status != http.StatusForbidden {
		t.Errorf("the app writes: %d %s", status, body)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if want := []string{"GET /floor/3/notices/2 " + badge}; !slices.Equal(p.asked, want) {
		t.Errorf("the board was asked %q", p.asked)
	}
	account := browser.Open("http://" + p.public + "/.sallyport/account")
	if !strings.Contains(account.Body, "Mira at the board") {
		t.Errorf("the account page does not say whose key it is:\n%s", account.Body)
	}
}

// use asks the gateway as the app does.
func (p *ownProgram) use(t *testing.T, method, path string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.grants+path, nil)
	testenv.Check(t, err)
	req.Header.Set("Authorization", "Bearer "+lentToken)
	p.mu.Lock()
	req.Header.Set("X-Sallyport-Assertion", p.assertion)
	p.mu.Unlock()
	res, err := http.DefaultClient.Do(req)
	testenv.Check(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	testenv.Check(t, err)
	return res.StatusCode, string(text)
}

// A type that cannot be is refused before anything begins.
func TestATypeOfConnectorsThatThereIsAlreadyIsRefused(t *testing.T) {
	none := func(Settings) (grant.Connector, error) { return nil, nil }
	types := config.Types{}
	testenv.Check(t, WithConnector("notice_board", none)(types))
	for _, name := range []string{"notice_board", "github", "oauth2", "", "Board", "a b", "9"} {
		if err := WithConnector(name, none)(types); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
	if err := WithConnector("other", nil)(types); err == nil {
		t.Error("a type without a constructor was taken")
	}
}

// What makes nothing that people could lend is a fault, and not a crash.
func TestAConstructorThatMakesNothingIsAFault(t *testing.T) {
	types := config.Types{}
	testenv.Check(t, WithConnector("nothing", func(Settings) (grant.Connector, error) { return nil, nil })(types))
	_, _, err := parseConfigOf(types, "c.yaml", []byte(`version: 1
public_url: https://app.example.com
listen: {grants: "127.0.0.1:4184"}
store: sqlite:/s.db
session: {keys: ["env:KEY"]}
providers: [{id: sso, type: oidc, issuer: "https://sso.example.com", client_id: c, client_secret: "env:SECRET"}]
routes: [{name: app, path: /, upstream: "http://127.0.0.1:1", allow: authenticated}]
grants:
  encryption_keys: ["env:GRANT_KEY"]
  connectors: [{id: k, type: nothing}]
  apps: [{id: a, token: "env:TOKEN", routes: [app], connectors: [k]}]
`))
	if err == nil || !strings.Contains(err.Error(), "connectors[0].type: makes nothing that people could connect") {
		t.Errorf("it is %v", err)
	}
}
