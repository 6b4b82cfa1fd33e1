package command

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store/storetest"
)

const lentToken = "planner-token-planner-token-planner-0"

// thirdParty is an authorization server and an API behind it. Access tokens last a minute;
// each refresh gives new ones, and the tokens before end.
type thirdParty struct {
	*httptest.Server

	mu         sync.Mutex
	codes      int
	refreshes  int
	revoked    []string
	access     string // the only one that the API takes
	refresh    string // the only one that the token endpoint takes
	called     []*http.Request
	challenges []string
	scopes     string // that the newest browser came with
	codesShown []string
	// refreshesShown is how often a refresh token was shown, good or not.
	refreshesShown int
	stays          bool   // who comes stays, and can go on with the address of the page
	registered     string // the only redirect URI that it sends browsers to; "": any
	iss            bool   // callbacks name it (RFC 9207)
	echoes         bool   // a refresh is refused, with the token in the place of the error

	held, goOn chan struct{} // nil, or: a refresh has come, and may be answered
	forgets    bool          // that refresh, in place of an answer; what it gave out before stays good
}

func newThirdParty(t *testing.T) *thirdParty {
	p := &thirdParty{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		q := r.URL.Query()
		switch {
		case p.registered != "" && q.Get("redirect_uri") != p.registered:
			http.Error(w, "another redirect_uri", http.StatusBadRequest)
			return
		case p.stays:
			_, _ = io.WriteString(w, "sign in here")
			return
		}
		p.challenges = append(p.challenges, q.Get("code_challenge"))
		p.scopes = q.Get("scope")
		p.codes++
		back := url.Values{"state": q["state"], "code": {fmt.Sprint("c4nary-code-", p.codes)}}
		if p.iss {
			back.Set("iss", p.URL)
		}
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if code := r.FormValue("code"); code != "" {
			p.codesShown = append(p.codesShown, code)
		} else {
			p.refreshesShown++
		}
		id, secret, _ := r.BasicAuth()
		secret, _ = url.QueryUnescape(secret) // RFC 6749 §2.3.1
		switch {
		case id != "jira-client" || secret != canarySecret:
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"invalid_client"}`)
			return
		case r.FormValue("grant_type") == "refresh_token" && p.echoes:
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error":%q,"error_description":%[1]q}`, r.FormValue("refresh_token"))
			return
		case r.FormValue("grant_type") == "refresh_token" && r.FormValue("refresh_token") == p.refresh:
			p.refreshes++
			if p.held != nil {
				close(p.held)
				<-p.goOn
				p.held = nil
				if p.forgets {
					p.forgets = false
					panic(http.ErrAbortHandler)
				}
			}
		case r.FormValue("code") == fmt.Sprint("c4nary-code-", p.codes):
		default:
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
			return
		}
		n := p.codes*1000 + p.refreshes
		p.access, p.refresh = fmt.Sprint("c4nary-access-", n), fmt.Sprint("c4nary-refresh-", n)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":%q,"refresh_token":%q,"token_type":"Bearer","expires_in":60,"scope":"read:issues"}`,
			p.access, p.refresh)
	})
	mux.HandleFunc("POST /revoke", func(_ http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.revoked = append(p.revoked, r.FormValue("token"))
		p.access, p.refresh = "", ""
	})
	mux.HandleFunc("/v3/", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.called = append(p.called, r.Clone(r.Context()))
		if p.access == "" || r.Header.Get("Authorization") != "Bearer "+p.access {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, "the issues of "+r.URL.Path)
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *thirdParty) calls() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.called)
}

// lendingStory is the program with grants, and an app behind it that uses them.
type lendingStory struct {
	*binary
	t       *testing.T
	there   *thirdParty
	sso     *testenv.Faults
	browser *testenv.Browser
	grants  string // address
	dir     string

	sessionKey, grantKey string // their texts

	mu        sync.Mutex
	assertion string   // of the newest request that reached the app
	told      []string // events that the app has taken
	deaf      bool     // it takes none
}

// startLending starts it with an empty store. edits are pairs of a text of its configuration
// and what stands there instead.
func startLending(t *testing.T, store string, edits ...string) *lendingStory {
	t.Helper()
	s := &lendingStory{binary: &binary{}, t: t, there: newThirdParty(t), dir: t.TempDir()}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.URL.Path == "/told" {
			s.hear(w, r)
			return
		}
		s.assertion = r.Header.Get("X-Sallyport-Assertion")
		_, _ = io.WriteString(w, "the planner")
	}))
	t.Cleanup(app.Close)
	for _, address := range []*string{&s.public, &s.admin, &s.grants} {
		var err error
		*address, err = testenv.UnusedAddress()
		testenv.Check(t, err)
	}
	op := testenv.StartProvider(t, demo.ProviderOptions{ClientID: "sallyport", ClientSecret: canarySecret,
		People:       colleagues(),
		RedirectURIs: []string{"http://" + s.public + "/.sallyport/callback/sso"}})
	s.sso, s.config = op, filepath.Join(s.dir, "config.yaml")
	key, seal := session.NewKey(time.Now().Add(-time.Hour)), session.NewKey(time.Now().Add(-time.Hour))
	text := fmt.Sprintf(`version: 1
public_url: http://%[1]s
listen: {http: %[1]q, admin: %[2]q, grants: %[3]q}
log: {level: debug, format: json, audit: %[4]q}
session: {keys: ["literal:%[5]s"]}
store: %[6]q
providers: [{id: sso, type: oidc, issuer: %[7]q, client_id: sallyport, client_secret: "literal:%[8]s"}]
routes: [{name: app, path: /, upstream: %[9]q, allow: authenticated}]
operators: [{email_domains: [acme.example]}]
grants:
  encryption_keys: ["literal:%[10]s"]
  connectors:
    - id: jira
      type: oauth2
      client_id: jira-client
      client_secret: "literal:%[8]s"
      endpoints: {authorization: "%[11]s/authorize", token: "%[11]s/token", revocation: "%[11]s/revoke"}
      base_url: %[11]s/v3
      scopes: {read: ["read:issues"]}
      rules: {read: [GET /issues, GET /issues/*]}
  apps: [{id: planner, name: Planner, token: "literal:%[12]s", routes: [app], connectors: [jira], offline: true,
          events_url: "%[9]s/told"}]
`, s.public, s.admin, s.grants, filepath.Join(s.dir, "audit"), key.Text(), store, op.URL, canarySecret, app.URL,
		seal.Text(), s.there.URL, lentToken)
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(text, edits[i]) {
			t.Fatalf("the configuration does not have %q", edits[i])
		}
		text = strings.Replace(text, edits[i], edits[i+1], 1)
	}
	write(t, s.config, text)
	s.sessionKey, s.grantKey = key.Text(), seal.Text()
	s.binary.run(t, t.TempDir(), s.config)
	s.browser = testenv.NewBrowser(t, nil)
	s.visit("mira")
	return s
}

// visit opens the app, for somebody who signs in first if need be.
func (s *lendingStory) visit(person string) {
	s.t.Helper()
	page := s.browser.Open("http://" + s.public + "/page")
	if person != "" {
		page = s.browser.SignIn(page, person)
	}
	if page.Body != "the planner" {
		s.t.Fatalf("the app was not reached: %d\n%s", page.Status, page.Body)
	}
}

// hear is the app's place for events. It is called with the lock held.
func (s *lendingStory) hear(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if s.deaf || r.Header.Get("Content-Type") != "application/secevent+jwt" {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	s.told = append(s.told, string(body))
	w.WriteHeader(http.StatusAccepted)
}

// events are what the app was told: the end of the event's kind and the status.
func (s *lendingStory) events() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, token := range s.told {
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
		testenv.Check(s.t, err)
		var claims struct {
			Aud    string
			Events map[string]struct{ Connector, Owner, Status string }
		}
		testenv.Check(s.t, json.Unmarshal(payload, &claims))
		for kind, about := range claims.Events {
			if claims.Aud != "planner" || about.Connector != "jira" || about.Owner != "sso:mira" {
				s.t.Errorf("an event for another: %s", payload)
			}
			list = append(list, filepath.Base(kind)+" "+about.Status)
		}
	}
	return list
}

// use asks the gateway as the app does.
func (s *lendingStory) use(method, path string) (status int, body string) {
	s.t.Helper()
	return s.useBy(http.DefaultClient, method, path)
}

func (s *lendingStory) useBy(client *http.Client, method, path string) (status int, body string) {
	s.t.Helper()
	req, err := http.NewRequest(method, "http://"+s.grants+path, nil)
	testenv.Check(s.t, err)
	if client == http.DefaultClient {
		req.Header.Set("Authorization", "Bearer "+lentToken)
	}
	s.mu.Lock()
	req.Header.Set("X-Sallyport-Assertion", s.assertion)
	s.mu.Unlock()
	res, err := client.Do(req)
	testenv.Check(s.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	testenv.Check(s.t, err)
	return res.StatusCode, string(text)
}

// missing is what an app is told that lacks a grant.
func (s *lendingStory) missing() (connectURL string) {
	s.t.Helper()
	status, body := s.use("GET", "/gateway/jira/issues")
	var problem struct {
		Connect string   `json:"connect_url"`
		Missing []string `json:"missing"`
	}
	if err := json.Unmarshal([]byte(body), &problem); err != nil || status != http.StatusConflict ||
		problem.Connect == "" || len(problem.Missing) == 0 {
		s.t.Fatalf("%d %s", status, body)
	}
	return problem.Connect
}

// connect goes where the app sends somebody, and agrees.
func (s *lendingStory) connect() {
	s.t.Helper()
	page := s.browser.Open(s.missing() + "&return_to=%2Fpage")
	if page.Status != http.StatusOK || !strings.Contains(page.Body, "Planner") {
		s.t.Fatalf("the page that asks: %d\n%s", page.Status, page.Body)
	}
	if page = s.browser.Submit(page, "answer", "yes"); page.Body != "the planner" {
		s.t.Fatalf("after agreeing: %d\n%s", page.Status, page.Body)
	}
}

// formSecret is that of the form on a page that asks.
func formSecret(page testenv.Page) string {
	_, secret, _ := strings.Cut(page.Body, `name="form" value="`)
	secret, _, _ = strings.Cut(secret, `"`)
	return html.UnescapeString(secret)
}

// command runs a command of operators beside the process.
func (s *lendingStory) command(args ...string) (out string) {
	s.t.Helper()
	var stdout, stderr strings.Builder
	code := run(append(args, "-c", s.config), &console{stdout: &stdout, stderr: &stderr,
		env: func(string) (string, bool) { return "", false }})
	if code != exitOK {
		s.t.Fatalf("%q: %d %s", args, code, stderr.String())
	}
	return stdout.String()
}

// disconnect ends the grant for all apps, on the account page.
func (s *lendingStory) disconnect() {
	s.t.Helper()
	page := s.browser.Open("http://" + s.public + "/.sallyport/account")
	if page = s.browser.Post(page, "/.sallyport/disconnect/jira", url.Values{}); page.Status != http.StatusOK {
		s.t.Fatalf("disconnect: %d\n%s", page.Status, page.Body)
	}
}

// A person lends an account to an app, which uses it within what was agreed to; a restart
// loses nothing, and what is ended is over, there too. By the configuration alone, with both
// kinds of store.
func TestP12_PeopleLendAnAccountToAnApp(t *testing.T) {
	eachSharedStore(t, func(t *testing.T, address string) {
		s := startLending(t, address)
		s.connect()
		if status, body := s.use("GET", "/gateway/jira/issues/7"); status != http.StatusOK ||
			body != "the issues of /v3/issues/7" {
			t.Fatalf("%d %s", status, body)
		}
		before := s.there.calls()
		if status, body := s.use("POST", "/gateway/jira/issues"); status != http.StatusForbidden ||
			!strings.Contains(body, "rule-denied") || s.there.calls() != before {
			t.Errorf("what was not agreed to: %d %s, %d calls", status, body, s.there.calls()-before)
		}

		output := s.stop(t)
		s.binary.run(t, t.TempDir(), s.config)
		if status, body := s.use("GET", "/gateway/jira/issues"); status != http.StatusOK {
			t.Fatalf("after a restart: %d %s", status, body)
		}

		s.disconnect()
		s.missing()
		s.there.mu.Lock()
		revoked := strings.Join(s.there.revoked, " ")
		s.there.mu.Unlock()
		if revoked != "c4nary-refresh-1000" {
			t.Errorf("ended there: %q", revoked)
		}
		output += s.stop(t)
		audit, err := os.ReadFile(filepath.Join(s.dir, "audit"))
		testenv.Check(t, err)
		for _, event := range []string{"grant_connected", "grant_disconnected"} {
			line := regexp.MustCompile(`"event":"` + event + `","request_id":"[a-z0-9]{16}","client":"127.0.0.1",` +
				`"user":"sso:mira",.*"connector":"jira"`)
			if !line.Match(audit) {
				t.Errorf("the audit stream lacks %s:\n%s", event, audit)
			}
		}
		if _, leaked, found := strings.Cut(output+string(audit), "c4nary"); found {
			t.Errorf("something secret was written: c4nary%.80s", leaked)
		}
	})
}

// An app is told what became of a grant, also of what happened while nothing ran or while it
// took nothing, once, and in order.
func TestP12_AnAppIsToldWhatBecameOfAGrant(t *testing.T) {
	eachSharedStore(t, func(t *testing.T, address string) {
		s := startLending(t, address)
		s.connect()
		s.works("after connecting")
		setDeaf := func(is bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.deaf = is
		}
		setDeaf(true)
		s.there.mu.Lock()
		s.there.access, s.there.refresh = "", "" // it forgets what it gave out
		s.there.mu.Unlock()
		s.missing() // which it finds out with this request
		s.stop(t)
		setDeaf(false)
		s.binary.run(t, t.TempDir(), s.config)
		want := []string{"needs-reconnect needs_reconnect"}
		wait := func(what string) {
			t.Helper()
			testenv.Within(t, time.Minute, what, func() bool { return len(s.events()) >= len(want) })
			if got := s.events(); !slices.Equal(got, want) {
				t.Fatalf("%s: told %q, want %q", what, got, want)
			}
		}
		wait("after a restart the app is told of the loss")
		s.connect()
		want = append(want, "recovered active")
		wait("it is told that it is connected again")
		s.operated(s.config, "revoke", s.listed()[0].ID)
		want = append(want, "disconnected disconnected")
		wait("it is told what an operator ended with another program")
		s.stop(t)
	})
}

// Whoever ends a grant on one server ends it on all, at once.
func TestP12_AGrantThatIsEndedIsOverOnEveryServer(t *testing.T) {
	address := storetest.NeedServer(t).Database(t)
	s := startLending(t, address)
	s.connect()
	other := &binary{public: s.public}
	text, err := os.ReadFile(s.config)
	testenv.Check(t, err)
	moved := string(text)
	for _, at := range []string{s.public, s.admin, s.grants} {
		next, err := testenv.UnusedAddress()
		testenv.Check(t, err)
		moved = strings.ReplaceAll(moved, fmt.Sprintf(": %q", at), fmt.Sprintf(": %q", next))
		switch at {
		case s.admin:
			other.admin = next
		case s.grants:
			defer func(was string) { s.grants = was }(s.grants)
			s.grants = next
		}
	}
	other.config = filepath.Join(t.TempDir(), "config.yaml")
	write(t, other.config, moved)
	other.run(t, t.TempDir(), other.config)
	if status, body := s.use("GET", "/gateway/jira/issues"); status != http.StatusOK {
		t.Fatalf("at the other server: %d %s", status, body)
	}
	s.disconnect()
	s.missing()
}

// Who connects to the database is changed by a reload, as where a keeper of secrets gives a user of
// its own for some hours; a user whom the database refuses is not taken up, and nothing else of that
// file is.
func TestP15_AnotherUserOfTheDatabaseNeedsNoRestart(t *testing.T) {
	address := storetest.NeedServer(t).Database(t)
	admin, err := sql.Open("pgx", address)
	testenv.Check(t, err)
	defer admin.Close()
	run := func(statement string) {
		t.Helper()
		_, err := admin.Exec(statement)
		testenv.Check(t, err)
	}
	for _, user := range []string{"lease_a", "lease_b"} {
		run(`create role ` + user + ` superuser login`)
		defer run(`drop role ` + user)
		defer run(`reassign owned by ` + user + ` to sallyport`)
	}
	s := startLending(t, strings.Replace(address, "sallyport@", "lease_a@", 1))
	s.connect()
	text, err := os.ReadFile(s.config)
	testenv.Check(t, err)
	reload := func(user, result string) {
		t.Helper()
		write(t, s.config, strings.Replace(string(text), "lease_a@", user+"@", 1))
		testenv.Check(t, s.process.Process.Signal(syscall.SIGHUP))
		s.counted(t, `sallyport_config_reloads_total{result="`+result+`"} 1`)
	}
	reload("nobody", "refused")
	reload("lease_b", "ok")
	run(`alter role lease_a nologin`)
	run(`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'lease_a'`)
	testenv.Eventually(t, "what was lent is lent again", func() bool {
		status, _ := s.use("GET", "/gateway/jira/issues")
		return status == http.StatusOK
	})
	if log := s.stop(t); !strings.Contains(log, `store: is refused, and the old one goes on`) {
		t.Errorf("the log does not say that a user was refused:\n%s", log)
	}
}

// A configuration that is read again is another broker on the same grants: those that it
// still has go on, and an app that it has no more is nobody.
func TestP12_AReloadKeepsWhatWasLent(t *testing.T) {
	s := startLending(t, "sqlite:"+filepath.Join(t.TempDir(), "sallyport.db"))
	s.connect()
	text, err := os.ReadFile(s.config)
	testenv.Check(t, err)
	reload := func(from, to string) {
		t.Helper()
		text = []byte(strings.Replace(string(text), from, to, 1))
		write(t, s.config, string(text))
		testenv.Check(t, s.process.Process.Signal(syscall.SIGHUP))
	}
	reload("name: Planner", "name: Planner Two")
	testenv.Eventually(t, "the account page has the new name", func() bool {
		return strings.Contains(s.browser.Open("http://"+s.public+"/.sallyport/account").Body, "Planner Two")
	})
	if status, body := s.use("GET", "/gateway/jira/issues"); status != http.StatusOK {
		t.Errorf("after a reload: %d %s", status, body)
	}
	reload("literal:"+lentToken, "literal:another-"+lentToken)
	testenv.Eventually(t, "the old token proves nothing", func() bool {
		status, body := s.use("GET", "/gateway/jira/issues")
		return status == http.StatusUnauthorized && strings.Contains(body, "app-unknown")
	})
}

// An app with a socket of its own needs no token, on no other way may it come, and neither
// may another user of the machine.
func TestP12_AnAppWithASocketNeedsNoToken(t *testing.T) {
	s := startLending(t, "sqlite:"+filepath.Join(t.TempDir(), "sallyport.db"))
	s.connect()
	s.stop(t)
	text, err := os.ReadFile(s.config)
	testenv.Check(t, err)
	dir, err := os.MkdirTemp("", "s") // a path of a socket is short
	testenv.Check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "planner.sock")
	write(t, s.config, strings.Replace(string(text), `token: "literal:`+lentToken+`"`,
		fmt.Sprintf("socket: {path: %q, uid: %d}", socket, os.Getuid()), 1))
	s.binary.run(t, t.TempDir(), s.config)
	there := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}
	if status, body := s.useBy(there, "GET", "/gateway/jira/issues"); status != http.StatusOK {
		t.Errorf("on its socket: %d %s", status, body)
	}
	if status, body := s.use("GET", "/gateway/jira/issues"); status != http.StatusUnauthorized {
		t.Errorf("with a token that it has no more: %d %s", status, body)
	}
	s.stop(t)
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the end the socket is there: %v", err)
	}
	write(t, s.config, strings.Replace(string(text), `token: "literal:`+lentToken+`"`,
		fmt.Sprintf("socket: {path: %q, uid: %d}", socket, os.Getuid()+12345), 1))
	s.binary.run(t, t.TempDir(), s.config)
	if os.Getuid() == 0 && runtime.GOOS == "linux" { // root counts only where it is listed
		if _, err := there.Get("http://planner/v1/grants"); err == nil {
			t.Error("another user than the app's got an answer")
		}
	}
}

// An app acts for somebody who is away only where they agreed to that, and no longer than an
// operator lets their sign-ins last: with these it ends, on every server, and does not come
// back by signing in again.
func TestP12_UseWhileAwayEndsWithThePersonsSessions(t *testing.T) {
	eachSharedStore(t, func(t *testing.T, address string) {
		s := startLending(t, address)
		away := func() (status int, body string) {
			t.Helper()
			req, err := http.NewRequest("GET", "http://"+s.grants+"/gateway/jira/issues", nil)
			testenv.Check(t, err)
			req.Header.Set("Authorization", "Bearer "+lentToken)
			req.Header.Set("X-Sallyport-Person", "sso:mira")
			res, err := http.DefaultClient.Do(req)
			testenv.Check(t, err)
			defer res.Body.Close()
			text, err := io.ReadAll(res.Body)
			testenv.Check(t, err)
			return res.StatusCode, string(text)
		}
		s.connect()
		if status, body := away(); status != http.StatusConflict || !strings.Contains(body, `"offline"`) {
			t.Fatalf("nobody agreed to that: %d %s", status, body)
		}
		page := s.browser.Open("http://" + s.public + "/.sallyport/connect/jira?app=planner&return_to=%2Fpage")
		form := url.Values{"answer": {"yes"}, "offline": {"1"}, "days": {"90"}, "form": {formSecret(page)}}
		if page = s.browser.Post(page, "", form); page.Body != "the planner" {
			t.Fatalf("agreed: %d\n%s", page.Status, page.Body)
		}
		if status, body := away(); status != http.StatusOK {
			t.Fatalf("while mira is away: %d %s", status, body)
		}
		s.command("sessions", "end", "--person", "sso:mira")
		testenv.Within(t, 2*time.Second, "use while away ends", func() bool {
			status, body := away()
			return status == http.StatusConflict && strings.Contains(body, `"offline"`)
		})
		ended := time.Now()
		testenv.Eventually(t, "the next second, by which assertions tell who signed in afterwards",
			func() bool { return time.Now().Unix() > ended.Unix() })
		s.browser = testenv.NewBrowser(t, nil)
		s.visit("mira")
		if status, body := s.use("GET", "/gateway/jira/issues"); status != http.StatusOK {
			t.Errorf("mira is back, and what is not for her absence went on: %d %s", status, body)
		}
		if status, body := away(); status != http.StatusConflict {
			t.Errorf("use while away came back by a sign-in: %d %s", status, body)
		}
	})
}

// A process that is told to stop while a refresh is under way keeps what comes of it, also
// where nobody waits for it any more: the token before is good no more.
func TestP14_AStopKeepsTheResultOfARefresh(t *testing.T) {
	eachSharedStore(t, func(t *testing.T, address string) {
		s := startLending(t, address)
		s.connect()
		for refreshes, waits := range []bool{true, false} {
			held, goOn := make(chan struct{}), make(chan struct{})
			s.there.mu.Lock()
			s.there.access = "" // so that it is refreshed
			s.there.held, s.there.goOn = held, goOn
			s.there.mu.Unlock()
			client := &http.Client{Transport: &http.Transport{}}
			req, err := http.NewRequest("GET", "http://"+s.grants+"/gateway/jira/issues", nil)
			testenv.Check(t, err)
			req.Header.Set("Authorization", "Bearer "+lentToken)
			req.Header.Set("X-Sallyport-Assertion", s.assertion)
			ctx, leave := context.WithCancel(t.Context())
			used := make(chan int, 1)
			go func() {
				res, err := client.Do(req.WithContext(ctx))
				if err != nil {
					used <- 0
					return
				}
				_ = res.Body.Close()
				used <- res.StatusCode
			}()
			<-held
			if !waits {
				leave()
				<-used
			}
			testenv.Check(t, s.process.Process.Signal(syscall.SIGTERM))
			testenv.Eventually(t, "it is stopping", func() bool {
				text, err := os.ReadFile(s.output)
				return err == nil && strings.Contains(string(text), `"msg":"stopping"`)
			})
			close(goOn)
			if err := s.process.Wait(); err != nil {
				t.Errorf("it ended with %v", err)
			}
			if waits && <-used != http.StatusOK {
				t.Error("who waited for the refresh was not answered")
			}
			leave()
			s.binary.run(t, t.TempDir(), s.config)
			if status, body := s.use("GET", "/gateway/jira/issues"); status != http.StatusOK {
				t.Errorf("after the restart: %d %s", status, body)
			}
			s.there.mu.Lock()
			if s.there.refreshes != refreshes+1 {
				t.Errorf("%d refreshes", s.there.refreshes)
			}
			s.there.mu.Unlock()
		}
	})
}
