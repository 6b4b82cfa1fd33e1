package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// The attacks on programs that connect accounts at many third parties, by the names of those
// who described them: cross-app account takeover and request forgery ("Universal Cross-app
// Attacks: Exploiting and Securing OAuth 2.0 in Integration Platforms", USENIX Security 2025),
// and cross-user session fixation, all three in draft-ietf-oauth-security-topics-update. The
// count at the peer that would have gained something is the assertion.

// hostileParty is a third party that somebody set up to get at what people have at another
// one. Its token endpoint takes whatever comes.
type hostileParty struct {
	*httptest.Server
	mu    sync.Mutex
	leads func(url.Values) string // where it sends a browser, by what that came with
	came  int                     // browsers
	codes []string                // that its token endpoint was shown
}

func newHostileParty(t *testing.T) *hostileParty {
	p := &hostileParty{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.came++
		http.Redirect(w, r, p.leads(r.URL.Query()), http.StatusFound)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.codes = append(p.codes, r.FormValue("code"))
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"hostile","token_type":"Bearer","expires_in":60,"refresh_token":"hostile"}`)
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

// attackStory is a program with the connector of an honest third party, jira, and of a hostile
// one, evil. mira is signed in.
type attackStory struct {
	*lendingStory
	evil *hostileParty
}

func startAttack(t *testing.T, keys string) *attackStory {
	evil := newHostileParty(t)
	s := &attackStory{startLending(t, "sqlite:"+filepath.Join(t.TempDir(), "sallyport.db"),
		"  apps:", fmt.Sprintf(`    - {id: evil, type: oauth2, client_id: jira-client, client_secret: "literal:theirs", `+
			`endpoints: {authorization: "%[1]s/authorize", token: "%[1]s/token"}, base_url: %[1]q, `+
			`scopes: {read: [all]}, rules: {read: [GET /*]}%[2]s}`+"\n  apps:", evil.URL,
			strings.ReplaceAll(keys, "EVIL", evil.URL)),
		"connectors: [jira]", "connectors: [jira, evil]"), evil}
	s.there.registered = s.callback("jira")
	return s
}

func (s *attackStory) callback(connector string) string {
	return "http://" + s.public + "/.sallyport/connect/" + connector + "/callback"
}

// agree has the person whose browser it is say yes on our page, and go wherever that leads.
func (s *attackStory) agree(connector string) testenv.Page {
	s.t.Helper()
	page := s.browser.Open("http://" + s.public + "/.sallyport/connect/" + connector + "?app=planner&return_to=%2Fpage")
	return s.browser.Submit(page, "answer", "yes")
}

// failed: the attack ended on a page of ours that leads on to nowhere, nobody redeemed a code,
// and nobody has a grant.
func (s *attackStory) failed(page testenv.Page) {
	s.t.Helper()
	if page.Status < 400 || page.Status > 499 || page.URL.Host != s.public || strings.Contains(page.Body, "<form") ||
		strings.Contains(page.Body, s.evil.URL) {
		s.t.Errorf("it ended at %s with %d\n%s", page.URL, page.Status, page.Body)
	}
	s.nothingGained()
}

func (s *attackStory) nothingGained() {
	s.t.Helper()
	s.evil.mu.Lock()
	codes := s.evil.codes
	s.evil.mu.Unlock()
	s.there.mu.Lock()
	shown := s.there.codesShown
	s.there.mu.Unlock()
	if len(codes) != 0 || len(shown) != 0 {
		s.t.Errorf("the hostile third party was shown %q, the honest one %q", codes, shown)
	}
	if list := s.listed(); len(list) != 0 {
		s.t.Errorf("stored: %+v", list)
	}
	var answer struct {
		Grants []struct{ Connector, Status string }
	}
	if _, body := s.use("GET", "/v1/grants"); json.Unmarshal([]byte(body), &answer) != nil || len(answer.Grants) != 2 {
		s.t.Errorf("the app reads %s", body)
	}
	for _, g := range answer.Grants {
		if g.Status != "not_connected" {
			s.t.Errorf("the app reads that %s is %s", g.Connector, g.Status)
		}
	}
}

// Cross-app OAuth account takeover: a hostile third party sends the browser on to an honest one,
// with our client there, so that the code of the honest one is redeemed at its own token
// endpoint, and it has the account of whoever connected.
func TestP06_COAT_AHostileThirdPartyGetsNoCodeOfAnHonestOne(t *testing.T) {
	for name, tt := range map[string]struct {
		back   string // to whose callback the honest one sends the browser
		keys   string // of the hostile connector
		sloppy bool   // the honest one sends browsers to any redirect URI
		issued int    // codes of the honest one
	}{
		"to the callback of the honest one":                         {back: "jira", issued: 1},
		"to its own, which is not the one that is registered there": {back: "evil"},
		"to its own, and the honest one takes any, but says who it is (RFC 9207)": {back: "evil", sloppy: true,
			keys: `, issuer: "EVIL"`, issued: 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := startAttack(t, tt.keys)
			if s.there.iss = true; tt.sloppy {
				s.there.registered = ""
			}
			s.evil.leads = func(q url.Values) string {
				q.Set("redirect_uri", s.callback(tt.back))
				q.Set("scope", "read:issues")
				return s.there.URL + "/authorize?" + q.Encode()
			}
			page := s.agree("evil")
			if s.evil.came != 1 || s.there.codes != tt.issued {
				t.Fatalf("the attack did not happen: %d came to the hostile one, and the honest one gave out %d codes",
					s.evil.came, s.there.codes)
			}
			if tt.issued > 0 {
				s.failed(page)
			}
			s.nothingGained()

			// A code of its own is redeemed there, so that the count means something.
			s.evil.leads = func(q url.Values) string {
				return s.callback("evil") + "?" + url.Values{"state": q["state"], "code": {"its-own"},
					"iss": {s.evil.URL}}.Encode()
			}
			if page := s.agree("evil"); page.Body != "the planner" || len(s.evil.codes) != 1 || s.evil.codes[0] != "its-own" {
				t.Errorf("its own code: %d, shown %q\n%s", page.Status, s.evil.codes, page.Body)
			}
		})
	}
}

// Cross-app OAuth request forgery: a hostile third party sends the browser back to the callback
// of an honest one, with a code of the attacker's account there, so that the person works with
// the attacker's account and what they write gets into it.
func TestP06_CORF_AHostileThirdPartyConnectsNoAccountOfTheAttacker(t *testing.T) {
	s := startAttack(t, "")
	attacker := func() string { // of the attacker's own browser, which stops there
		req, err := http.NewRequest("GET", s.there.URL+"/authorize?"+url.Values{"redirect_uri": {s.callback("jira")},
			"client_id": {"jira-client"}, "state": {"x"}}.Encode(), nil)
		testenv.Check(t, err)
		res, err := http.DefaultTransport.RoundTrip(req)
		testenv.Check(t, err)
		_ = res.Body.Close()
		u, err := res.Location()
		testenv.Check(t, err)
		return u.Query().Get("code")
	}
	s.evil.leads = func(q url.Values) string {
		return s.callback("jira") + "?" + url.Values{"state": q["state"], "code": {attacker()}}.Encode()
	}
	s.failed(s.agree("evil"))

	// The same where the person is about to connect the honest one in another tab.
	s.there.stays = true
	tab := s.agree("jira")
	s.there.stays = false
	s.failed(s.agree("evil"))
	if s.evil.came != 2 || s.there.codes != 2 {
		t.Fatalf("the attack did not happen: %d, %d", s.evil.came, s.there.codes)
	}

	// The other tab goes on as if nothing had been: it is the person's own account.
	if page := s.browser.Open(tab.URL.String()); page.Body != "the planner" {
		t.Errorf("the other tab: %d\n%s", page.Status, page.Body)
	}
	if got := s.there.codesShown; len(got) != 1 || got[0] != "c4nary-code-3" {
		t.Errorf("the honest one was shown %q", got)
	}
	s.works("what the person connected")
}

// Cross-user OAuth session fixation: an attacker begins to connect an account, and has somebody
// else open the address of the third party, who agrees there or agreed before. The account of
// the one would be a grant of the other.
func TestP06_COSF_NobodyConnectsForWhoSentThemTheAddress(t *testing.T) {
	s := startAttack(t, "")
	mira := s.browser
	s.browser = testenv.NewBrowser(t, nil)
	s.visit("jonas")
	link := s.missing() // of our page, which is for jonas
	s.there.stays = true
	trap := s.agree("jira").URL.String()
	if !strings.HasPrefix(trap, s.there.URL+"/authorize?") {
		t.Fatalf("the attacker is at %s", trap)
	}
	s.there.stays = false
	jonas := s.browser

	s.browser = testenv.NewBrowser(t, nil) // nobody is signed in
	s.failed(s.browser.Open(trap))
	s.browser = mira
	s.visit("")
	s.failed(s.browser.Open(trap))
	s.there.stays = true
	s.agree("jira") // mira is about to connect hers, so that her browser has a flow of its own
	s.there.stays = false
	s.failed(s.browser.Open(trap))
	s.failed(s.browser.Open(link)) // no form, so that nothing can be agreed to
	if s.there.codes != 3 {
		t.Fatalf("the attack did not happen: %d codes", s.there.codes)
	}
	s.browser = jonas
	s.visit("")
	s.nothingGained()

	// In the session that began it counts, and once.
	for range 2 {
		if page := jonas.Open(trap); page.Body != "the planner" {
			t.Errorf("jonas himself: %d\n%s", page.Status, page.Body)
		}
	}
	if got := s.there.codesShown; len(got) != 1 {
		t.Errorf("the honest one was shown %q", got)
	}
	if list := s.listed(); len(list) != 1 || list[0].Person != "sso:jonas" {
		t.Errorf("stored: %+v", list)
	}
}

// State, nonce and PKCE verifier are of one flow in one browser, of a sign-in as of a
// connection: no two flows share one, what is made for the one is none of the other, and what
// came back once is not redeemed again.
func TestP06_EachFlowHasAStateAndAVerifierOfItsOwn(t *testing.T) {
	s := startAttack(t, "")
	s.there.stays = true
	seen := map[string]bool{}
	fresh := func(what string, q url.Values, names ...string) {
		t.Helper()
		for _, name := range names {
			if value := q.Get(name); len(value) < 22 || seen[value] {
				t.Errorf("%s: %s is %q, short or there before", what, name, value)
			}
			seen[q.Get(name)] = true
		}
	}
	var connecting []url.Values
	for range 3 {
		q := s.agree("jira").URL.Query()
		fresh("a connection", q, "state", "code_challenge")
		connecting = append(connecting, q)
	}
	other := testenv.NewBrowser(t, nil)
	var signingIn []url.Values
	for range 3 {
		q := other.Open("http://" + s.public + "/page").URL.Query()
		fresh("a sign-in", q, "state", "code_challenge", "nonce")
		signingIn = append(signingIn, q)
	}
	s.there.stays = false
	signIn := "http://" + s.public + "/.sallyport/callback/sso"
	for name, address := range map[string]string{
		"a sign-in's state for a connection": s.callback("jira") + "?code=c4nary-code-1&state=" +
			url.QueryEscape(signingIn[0].Get("state")),
		"a connection's state at the other connector": s.callback("evil") + "?code=c4nary-code-1&state=" +
			url.QueryEscape(connecting[0].Get("state")),
		"a connection's state for a sign-in": signIn + "?code=c4nary-code-1&state=" +
			url.QueryEscape(connecting[0].Get("state")),
	} {
		for _, b := range []*testenv.Browser{s.browser, other} {
			if page := b.Open(address); page.Status == http.StatusOK && strings.Contains(address, "/connect/") {
				t.Errorf("%s: %d at %s", name, page.Status, page.URL)
			}
			s.nothingGained()
		}
	}
	if cookies := other.Cookies("http://" + s.public + "/.sallyport/account"); len(cookies) != 1 {
		t.Errorf("a browser that nobody signed in with has %d cookies of ours, and not that of its flows", len(cookies))
	}
	back := s.browser.Open(s.there.URL + "/authorize?" + connecting[2].Encode())
	if back.Body != "the planner" || len(s.there.codesShown) != 1 {
		t.Fatalf("in its browser: %d, redeemed %q\n%s", back.Status, s.there.codesShown, back.Body)
	}
	for _, hop := range back.Hops {
		if strings.HasPrefix(hop.URL.Path, "/.sallyport/connect/jira/callback") {
			s.browser.Open(hop.URL.String())
			other.Open(hop.URL.String())
		}
	}
	if len(s.there.codesShown) != 1 {
		t.Errorf("the same code was redeemed again: %q", s.there.codesShown)
	}
}

// A refresh that takes longer than a lock of fixed time would hold (oauth2-proxy #3456) is one
// for all servers: its refresh token is shown once, and whoever waits gets what it brought.
func TestP14_ASlowRefreshIsOneForAllServers(t *testing.T) {
	eachSharedStore(t, func(t *testing.T, address string) {
		s := startLending(t, address)
		s.connect()
		other := &lendingStory{binary: &binary{}, t: t, assertion: s.assertion}
		moved := read(t, s.config)
		for _, at := range []struct{ was, now *string }{{&s.public, &other.binary.public}, {&s.admin, &other.binary.admin},
			{&s.grants, &other.grants}} {
			next, err := testenv.UnusedAddress()
			testenv.Check(t, err)
			moved = strings.ReplaceAll(moved, fmt.Sprintf(": %q", *at.was), fmt.Sprintf(": %q", next))
			*at.now = next
		}
		other.config = filepath.Join(t.TempDir(), "config.yaml")
		write(t, other.config, moved)
		other.binary.run(t, t.TempDir(), other.config)

		held, goOn := make(chan struct{}), make(chan struct{})
		s.there.mu.Lock()
		s.there.access, s.there.held, s.there.goOn = "", held, goOn
		s.there.mu.Unlock()
		var all sync.WaitGroup
		statuses := make(chan int, 20)
		for i := range 20 {
			server := s
			if i%2 == 1 {
				server = other
			}
			all.Go(func() {
				status, _ := server.use("GET", "/gateway/jira/issues")
				statuses <- status
			})
		}
		<-held
		time.Sleep(6 * time.Second) // longer than a renewal of the lease
		close(goOn)
		all.Wait()
		close(statuses)
		for status := range statuses {
			if status != http.StatusOK {
				t.Errorf("who waited got %d", status)
			}
		}
		s.there.mu.Lock()
		shown := s.there.refreshesShown
		s.there.mu.Unlock()
		if shown != 1 {
			t.Errorf("refresh tokens were shown %d times", shown)
		}
	})
}
