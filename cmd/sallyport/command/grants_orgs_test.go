package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// colleagues are people beside those of the demo: one more of each organization, of whom
// only ben may use what is lent.
func colleagues() []demo.Person {
	return append(demo.People(),
		demo.Person{Key: "olga", Name: "Olga", Username: "olga", Email: "olga@acme.example", EmailVerified: true,
			Groups: []string{"sales"}, OrgID: "acme", OrgName: "Acme Rockets", OrgDomain: "acme.example"},
		demo.Person{Key: "ben", Name: "Ben", Username: "ben", Email: "ben@birch.example", EmailVerified: true,
			Groups: []string{"on-call"}, OrgID: "birch", OrgName: "Birch Bank", OrgDomain: "birch.example"},
		demo.PartnerPeople()[0])
}

// accounts is a third party where each connection is another account. It counts.
type accounts struct {
	*httptest.Server

	mu       sync.Mutex
	asked    int // browsers that came
	redeemed int
	refused  int
	revoked  []string
	calls    map[string]int // of the API, by account
	holds    bool           // a browser that comes stays
	callback string         // where it would have gone
}

func newAccounts(t *testing.T) *accounts {
	a := &accounts{calls: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.asked++
		q := r.URL.Query()
		a.callback = q.Get("redirect_uri") + "?" + url.Values{"state": q["state"],
			"code": {fmt.Sprint("code-", a.asked)}}.Encode()
		if !a.holds {
			http.Redirect(w, r, a.callback, http.StatusFound)
		}
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		n, ok := strings.CutPrefix(r.FormValue("code"), "code-")
		if !ok {
			a.refused++
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		a.redeemed++
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"access-of-%[1]s","refresh_token":"refresh-of-%[1]s","token_type":"Bearer",`+
			`"expires_in":3600,"scope":"read:things"}`, n)
	})
	mux.HandleFunc("POST /revoke", func(_ http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.revoked = append(a.revoked, r.FormValue("token"))
	})
	mux.HandleFunc("GET /v1/things", func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		n, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer access-of-")
		if !ok {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		a.calls[n]++
		_, _ = io.WriteString(w, "things of account "+n)
	})
	a.Server = httptest.NewServer(mux)
	t.Cleanup(a.Close)
	return a
}

// saw is what the third party has seen: browsers, codes, refreshes, calls for the first and
// the second account, and what was ended.
func (a *accounts) saw() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprintf("%d came, %d redeemed, %d refused, %d and %d calls, ended %v", a.asked, a.redeemed, a.refused,
		a.calls["1"], a.calls["2"], a.revoked)
}

// orgStory is the program with people of two organizations, Acme and Birch, and one account
// that is an organization's.
type orgStory struct {
	*lendingStory
	there    *accounts
	browsers map[string]*testenv.Browser
}

func startOrgs(t *testing.T, store string, edits ...string) *orgStory {
	t.Helper()
	there := newAccounts(t)
	s := startLending(t, store, append([]string{
		"{id: sso, type: oidc,", "{id: sso, type: oidc, scopes: [openid, profile, email, groups, org]," +
			" claims: {org_id: org_id, org_name: org_name, org_domain: org_domain},",
		"    - id: jira\n", fmt.Sprintf(`    - id: team
      name: Team Things
      type: oauth2
      client_id: team-client
      client_secret: "literal:%[1]s"
      endpoints: {authorization: "%[2]s/authorize", token: "%[2]s/token", revocation: "%[2]s/revoke"}
      base_url: %[2]s/v1
      scopes: {read: ["read:things"]}
      rules: {read: [GET /things]}
      owner: org
      managed_by: [{groups: [admins]}]
      usable_by: [{groups: [on-call]}]
    - id: jira
`, canarySecret, there.URL),
		"connectors: [jira]", "connectors: [team]"}, edits...)...)
	return &orgStory{s, there, map[string]*testenv.Browser{"mira": s.browser}}
}

// become has somebody else sit at the browser, and the app see them.
func (s *orgStory) become(person string) {
	s.t.Helper()
	if b, ok := s.browsers[person]; ok {
		s.browser = b
		s.visit("")
		return
	}
	s.browser = testenv.NewBrowser(s.t, nil)
	s.browsers[person] = s.browser
	s.visit(person)
}

// gets sees what the app gets for somebody: the text, or the name of the problem.
func (s *orgStory) gets(person string, want int, text string) {
	s.t.Helper()
	s.become(person)
	if status, body := s.use("GET", "/gateway/team/things"); status != want || !strings.Contains(body, text) {
		s.t.Errorf("the app gets %d %s for %s, and not %d %s", status, body, person, want, text)
	}
}

// listed is what the app is told of the connector for somebody.
func (s *orgStory) listed(person string) (status, all string) {
	s.t.Helper()
	s.become(person)
	code, body := s.use("GET", "/v1/grants")
	var list struct {
		Grants []struct{ Connector, Status string }
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || code != http.StatusOK || len(list.Grants) != 1 {
		s.t.Fatalf("%d %s", code, body)
	}
	return list.Grants[0].Status, body
}

const connectTeam = "/.sallyport/connect/team?app=planner&return_to=%2Fpage"

func (s *orgStory) opens(person, target string) testenv.Page {
	s.t.Helper()
	s.become(person)
	if strings.HasPrefix(target, "/") {
		target = "http://" + s.public + target
	}
	return s.browser.Open(target)
}

// connects is somebody who opens the page that asks and agrees.
func (s *orgStory) connects(person, org string) {
	s.t.Helper()
	page := s.opens(person, connectTeam)
	if page.Status != http.StatusOK || !strings.Contains(page.Body, org) {
		s.t.Fatalf("the page that asks %s: %d\n%s", person, page.Status, page.Body)
	}
	if page = s.browser.Submit(page, "answer", "yes"); page.Body != "the planner" {
		s.t.Fatalf("after %s agreed: %d\n%s", person, page.Status, page.Body)
	}
}

// ends is somebody who sends what the buttons of the account page send.
func (s *orgStory) ends(person string, form url.Values) int {
	s.t.Helper()
	page := s.opens(person, "/.sallyport/account")
	return s.browser.Post(page, "/.sallyport/disconnect/team", form).Status
}

func (s *orgStory) sees(want string) {
	s.t.Helper()
	if got := s.there.saw(); got != want {
		s.t.Errorf("the third party saw: %s\nand not: %s", got, want)
	}
}

// An organization's grant is connected and ended by its managers, used for those whom the
// configuration lets use it, and nothing to another organization, whoever asks there: not to
// its members, not to its managers, who have the same groups, and not with a link that was
// made for somebody of the first. It goes where an operator moves it.
func TestP12_AnOrganizationsGrantIsNothingToAnotherOrganization(t *testing.T) {
	eachSharedStore(t, func(t *testing.T, address string) {
		s := startOrgs(t, address)

		// A member of Acme cannot connect it, neither by the page nor without it.
		s.gets("mira", http.StatusConflict, "grant-required")
		miras := s.link()
		for _, target := range []string{connectTeam, miras} {
			page := s.opens("mira", target)
			if page.Status != http.StatusForbidden || strings.Contains(page.Body, `name="answer"`) {
				t.Errorf("a member opens %s: %d\n%s", target, page.Status, page.Body)
			}
			page = s.browser.Post(page, "", url.Values{"answer": {"yes"}, "form": {"guessed"}})
			if page.Status != http.StatusForbidden {
				t.Errorf("a member agrees without a form: %d\n%s", page.Status, page.Body)
			}
		}
		s.sees("0 came, 0 redeemed, 0 refused, 0 and 0 calls, ended []")

		s.connects("jonas", "Acme Rockets")
		s.gets("mira", http.StatusOK, "things of account 1")
		s.gets("jonas", http.StatusForbidden, "not-allowed") // he manages it, and is not on call
		s.gets("olga", http.StatusForbidden, "not-allowed")
		s.gets("zoe", http.StatusForbidden, "not-allowed") // she has no organization
		if page := s.opens("olga", "/.sallyport/account"); strings.Contains(page.Body, "connect/team") ||
			strings.Contains(page.Body, "jonas") {
			t.Errorf("who may neither use nor end it sees it:\n%s", page.Body)
		}
		s.sees("1 came, 1 redeemed, 0 refused, 1 and 0 calls, ended []")

		// For Birch there is nothing.
		for _, person := range []string{"ben", "tomoko"} {
			s.gets(person, http.StatusConflict, "grant-required")
			if status, all := s.listed(person); status != "not_connected" || strings.Contains(all, "jonas") {
				t.Errorf("the app is told for %s: %s", person, all)
			}
			page := s.opens(person, "/.sallyport/account")
			if strings.Contains(page.Body, "jonas") || strings.Contains(page.Body, "Acme") ||
				strings.Contains(page.Body, "read:things") || !strings.Contains(page.Body, "It is not connected.") {
				t.Errorf("the account page of %s:\n%s", person, page.Body)
			}
			page = s.opens(person, miras)
			if page.Status < 400 || page.Status > 499 || strings.Contains(page.Body, "<form") {
				t.Errorf("%s opens the link of somebody of Acme: %d\n%s", person, page.Status, page.Body)
			}
		}
		if page := s.opens("ben", connectTeam); page.Status != http.StatusForbidden {
			t.Errorf("a member of Birch opens the page that asks: %d", page.Status)
		}
		page := s.opens("tomoko", connectTeam)
		if page.Status != http.StatusOK || !strings.Contains(page.Body, "Birch Bank") ||
			strings.Contains(page.Body, "Acme") || strings.Contains(page.Body, "jonas") {
			t.Errorf("the manager of Birch opens the page that asks: %d\n%s", page.Status, page.Body)
		}

		// Who does not manage it cannot end it, nor can who manages another organization's.
		for _, person := range []string{"mira", "olga", "zoe", "ben"} {
			for _, form := range []url.Values{{}, {"app": {"planner"}}} {
				if got := s.ends(person, form); got != http.StatusForbidden {
					t.Errorf("%s ends it: %d", person, got)
				}
			}
		}
		s.ends("tomoko", url.Values{"app": {"planner"}}) // there is nothing to stop
		if got := s.ends("tomoko", url.Values{}); got != http.StatusNotFound {
			t.Errorf("the manager of Birch ends what Birch does not have: %d", got)
		}
		s.gets("mira", http.StatusOK, "things of account 1")
		s.sees("1 came, 1 redeemed, 0 refused, 2 and 0 calls, ended []")

		// The organizations have one each. What Birch ends is Birch's.
		s.connects("tomoko", "Birch Bank")
		s.gets("ben", http.StatusOK, "things of account 2")
		s.gets("mira", http.StatusOK, "things of account 1")
		if got := s.ends("tomoko", url.Values{}); got != http.StatusOK {
			t.Errorf("the manager of Birch ends it: %d", got)
		}
		s.gets("ben", http.StatusConflict, "grant-required")
		s.gets("mira", http.StatusOK, "things of account 1")
		s.sees("2 came, 2 redeemed, 0 refused, 4 and 1 calls, ended [refresh-of-2]")

		// An operator moves it to Birch: the third party is not asked for anything.
		if out := s.command("grants", "move", "--from", "sso:acme", "--to", "sso:birch"); !strings.HasSuffix(
			strings.TrimSpace(out), ": 1") {
			t.Errorf("moved: %s", out)
		}
		testenv.Within(t, 2*time.Second, "the app has it for Birch", func() bool {
			s.become("ben")
			status, _ := s.use("GET", "/gateway/team/things")
			return status == http.StatusOK
		})
		s.gets("mira", http.StatusConflict, "grant-required")
		if got := s.ends("jonas", url.Values{}); got != http.StatusNotFound {
			t.Errorf("the manager of Acme ends what is Birch's now: %d", got)
		}
		s.sees("2 came, 2 redeemed, 0 refused, 5 and 1 calls, ended [refresh-of-2]")
		if got := s.ends("tomoko", url.Values{}); got != http.StatusOK {
			t.Errorf("the manager of Birch ends it: %d", got)
		}
		s.gets("ben", http.StatusConflict, "grant-required")
		s.sees("2 came, 2 redeemed, 0 refused, 5 and 1 calls, ended [refresh-of-2 refresh-of-1]")
	})
}

// link is where the app would send somebody.
func (s *orgStory) link() string {
	s.t.Helper()
	_, body := s.use("GET", "/gateway/team/things")
	var problem struct {
		Connect string `json:"connect_url"`
	}
	if err := json.Unmarshal([]byte(body), &problem); err != nil || problem.Connect == "" {
		s.t.Fatal(body)
	}
	return problem.Connect
}

// On the day on which the configuration gives an organization another id nobody has its
// grant, until an operator moves it; then it works as before, without asking anybody.
func TestP12_AnOrganizationsGrantFollowsItsNewID(t *testing.T) {
	s := startOrgs(t, "sqlite:"+filepath.Join(t.TempDir(), "sallyport.db"))
	s.connects("jonas", "Acme Rockets")
	s.gets("mira", http.StatusOK, "things of account 1")
	text, err := os.ReadFile(s.config)
	testenv.Check(t, err)
	write(t, s.config, strings.Replace(string(text), "routes: [{", "organizations:\n  - {id: acme, name: Acme, match: "+
		"{org_ids: [\"sso:acme\"]}}\nroutes: [{", 1))
	testenv.Check(t, s.process.Process.Signal(syscall.SIGHUP))
	testenv.Eventually(t, "who signs in belongs to the organization of the new id", func() bool {
		delete(s.browsers, "mira")
		s.become("mira")
		status, _ := s.use("GET", "/gateway/team/things")
		return status == http.StatusConflict
	})
	s.gets("ben", http.StatusConflict, "grant-required")
	calls := s.there.calls["1"]
	s.command("grants", "move", "--from", "sso:acme", "--to", "acme")
	s.gets("mira", http.StatusOK, "things of account 1")
	s.gets("ben", http.StatusConflict, "grant-required")
	s.sees(fmt.Sprintf("1 came, 1 redeemed, 0 refused, %d and 0 calls, ended []", calls+1))
}

// Somebody who works for two organizations and switches leaves the grant of the first behind,
// with whatever was under way for it: a lease that was made before proves nobody, and
// neither a page that asked for the one, nor a way back from the third party that began
// there, connects anything for the other.
func TestP12_SwitchingTheOrganizationLeavesItsGrantBehind(t *testing.T) {
	s := startOrgs(t, "sqlite:"+filepath.Join(t.TempDir(), "sallyport.db"),
		"org_domain: org_domain}", "org_domain: org_domain, orgs: orgs}",
		"managed_by: [{groups: [admins]}]", "managed_by: [{emails: [ines@ledger.example]}]",
		"      usable_by: [{groups: [on-call]}]\n", "")
	s.browser = testenv.NewBrowser(t, nil)
	s.browsers["ines"] = s.browser
	page := s.browser.SignIn(s.browser.Open("http://"+s.public+"/page"), "ines")
	if page = s.browser.Submit(page, "org", "sso:larch"); page.Body != "the planner" {
		t.Fatalf("ines is at Larch Hospital: %d\n%s", page.Status, page.Body)
	}
	s.connects("ines", "Larch Hospital")
	s.gets("ines", http.StatusOK, "things of account 1")
	switches := func(org string) {
		t.Helper()
		account := s.opens("ines", "/.sallyport/account")
		s.browser.Submit(account, "org", org)
		s.become("ines")
	}
	var lease struct{ Lease string }
	if _, body := s.use("POST", "/v1/leases"); json.Unmarshal([]byte(body), &lease) != nil || lease.Lease == "" {
		t.Fatalf("no lease: %s", body)
	}
	asks := s.opens("ines", connectTeam)
	switches("sso:maple")
	req, err := http.NewRequest("GET", "http://"+s.grants+"/gateway/team/things", nil)
	testenv.Check(t, err)
	req.Header.Set("Authorization", "Bearer "+lentToken)
	req.Header.Set("X-Sallyport-Lease", lease.Lease)
	res, err := http.DefaultClient.Do(req)
	testenv.Check(t, err)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("with the lease of Larch: %d", res.StatusCode)
	}
	s.gets("ines", http.StatusConflict, "grant-required")
	if status, all := s.listed("ines"); status != "not_connected" {
		t.Errorf("for Maple School: %s", all)
	}
	if page := s.browser.Submit(asks, "answer", "yes"); page.Body == "the planner" {
		t.Errorf("the page that asked for Larch connected something for Maple: %d", page.Status)
	}
	s.sees("1 came, 1 redeemed, 0 refused, 1 and 0 calls, ended []")

	s.there.mu.Lock()
	s.there.holds = true
	s.there.mu.Unlock()
	page = s.opens("ines", connectTeam)
	s.browser.Submit(page, "answer", "yes")
	switches("sso:larch")
	s.there.mu.Lock()
	callback := s.there.callback
	s.there.mu.Unlock()
	if page = s.opens("ines", callback); page.Status != http.StatusBadRequest ||
		!strings.Contains(page.Body, "Nothing was connected here") {
		t.Errorf("the way back of what began for Maple: %d\n%s", page.Status, page.Body)
	}
	s.gets("ines", http.StatusOK, "things of account 1")
	switches("sso:maple")
	s.gets("ines", http.StatusConflict, "grant-required")
	s.sees("2 came, 1 redeemed, 0 refused, 2 and 0 calls, ended []")
}
