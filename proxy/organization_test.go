package proxy

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/session"
)

// ines works for two organizations; the provider tells of one of them twice.
func ines() identity.Identity {
	return identity.Identity{
		Provider: "main", Subject: "ines-1", Email: "ines@acme.example", EmailVerified: true, Name: "Ines Duarte",
		Orgs: []identity.Org{
			{ID: "main:7c", Name: "ACME GmbH", Domain: "acme.example", Source: "claim"},
			{ID: "main:birch", Name: "Birch Bank", Source: "claim"},
			{ID: "main:acme-us", Name: "Acme US", Domain: "acme.example", Source: "claim"},
		},
		AuthTime: time.Unix(1_700_000_000, 0).UTC(),
	}
}

// picked is ines as a session keeps her, here for one of hers.
func picked(t testing.TB, org string) identity.Identity {
	t.Helper()
	id, ok := foldedOrgs(t).Fold(ines()).WithOrg(org)
	if !ok {
		t.Fatalf("%s is not hers", org)
	}
	return id
}

// foldedOrgs: Acme has two ids at the provider; Birch is not in the configuration.
func foldedOrgs(tb testing.TB) *identity.Organizations {
	tb.Helper()
	orgs, err := identity.NewOrganizations([]identity.Organization{
		{ID: "acme", Name: "Acme Rockets", Domain: "acme.example", OrgIDs: []string{"main:7c", "main:acme-us"},
			EmailDomains: []string{"acme.example"}}})
	testenv.Check(tb, err)
	return orgs
}

// told is what the app got of the last request: the identity headers.
func (s *testSite) told(t testing.TB) map[string][]string {
	t.Helper()
	all := headerOf(s.app.Last(t))
	maps.DeleteFunc(all, func(name string, _ []string) bool {
		return !strings.HasPrefix(name, "x-forwarded-") ||
			slices.Contains([]string{"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"}, name)
	})
	return all
}

func (s *testSite) cookieOf(t testing.TB, b *testenv.Browser) string {
	t.Helper()
	for _, c := range b.Cookies(s.url + "/") {
		if !strings.HasSuffix(c.Name, "-flow") {
			return "Cookie: " + c.Name + "=" + c.Value
		}
	}
	t.Fatal("no session cookie")
	return ""
}

// From the sign-in to the first page for one organization, and on to the other.
func TestP01_WhoBelongsToSeveralOrganizationsPicksOneAndCanSwitch(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: ines()}, Orgs: foldedOrgs(t)})
	b := s.browser(t)
	state := s.begin(t, b, "/deep?week=47&by=team")
	hits := len(s.app.Requests())

	ask := b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {state}}))
	if ask.Status != 200 || ask.URL.Path != prefix+"/organization" ||
		!strings.Contains(ask.Body, "Choose an organization") ||
		!strings.Contains(ask.Body, `<button name="org" value="acme"><bdi>Acme Rockets</bdi> <span class="quiet"><bdi>acme.example</bdi></span></button>
<button name="org" value="main:birch"><bdi>Birch Bank</bdi> <span class="quiet"><bdi>main:birch</bdi></span></button>
</form>`) {
		t.Fatalf("after the sign-in: %s %d\n%s", ask.URL, ask.Status, ask.Body)
	}
	pending := s.sessionOf(b)
	s.checkNothingIsForwarded(t, s.cookieOf(t, b))
	if got := len(s.app.Requests()); got != hits+1 { // the one that asks for a public page
		t.Errorf("the app was asked %d times before an organization was picked", got-hits)
	}

	page := b.Submit(ask, "org", "acme")
	acme := s.sessionOf(b)
	s.checkSwitched(t, page, pending, acme, "/deep?week=47&by=team")
	if got, want := s.told(t), (map[string][]string{
		"x-forwarded-user": {"main:ines-1"}, "x-forwarded-email": {"ines@acme.example"},
		"x-forwarded-name":   {"Ines Duarte"},
		"x-forwarded-org-id": {"acme"}, "x-forwarded-org-name": {"Acme Rockets"},
		"x-forwarded-org-domain": {"acme.example"},
	}); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("for Acme the app is told %v, want %v", got, want)
	}
	if got := fmt.Sprint(s.asserted(t)["org"]); got != "map[domain:acme.example id:acme name:Acme Rockets]" {
		t.Errorf("the assertion says %s", got)
	}
	oldCookie := s.cookieOf(t, b)

	account := b.Open(s.url + prefix + "/account")
	if !strings.Contains(account.Body, "Switch to another of your organizations") ||
		strings.Contains(account.Body, `name="org" value="acme"`) {
		t.Errorf("the account page is\n%s", account.Body)
	}
	page = b.Submit(account, "org", "main:birch")
	birch := s.sessionOf(b)
	s.checkSwitched(t, page, acme, birch, prefix+"/account")
	b.Open(s.url + "/deep")
	if got, want := s.told(t), (map[string][]string{
		"x-forwarded-user": {"main:ines-1"}, "x-forwarded-email": {"ines@acme.example"},
		"x-forwarded-name":   {"Ines Duarte"},
		"x-forwarded-org-id": {"main:birch"}, "x-forwarded-org-name": {"Birch Bank"},
	}); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("for Birch the app is told %v, want %v", got, want)
	}
	if got := fmt.Sprint(s.asserted(t)["org"]); got != "map[id:main:birch name:Birch Bank]" {
		t.Errorf("the assertion says %s", got)
	}
	if a := s.get(t, "/x", oldCookie); a.status != 401 {
		t.Errorf("the session for Acme still gets %d", a.status)
	}
}

// The same from what a provider writes into its ID token.
func TestOrganizationsOfAClaimAreFoldedAndPicked(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true, Orgs: foldedOrgs(t), Claims: login.ClaimNames{Orgs: "tenants"}})
	for name, tc := range map[string]struct {
		tenants any
		choices []string // as sent; nil: nothing to choose
		told    string
	}{
		"several": {[]any{map[string]any{"id": "7c", "name": "ACME GmbH"}, "birch",
			map[string]any{"id": "acme-us"}}, []string{"acme", "main:birch"}, "[main:birch]"},
		"ids that are folded into one": {[]any{"7c", "acme-us"}, nil, "[acme]"},
		"one": {[]any{map[string]any{"id": "birch", "name": "Birch Bank"}}, nil,
			"[main:birch]"},
		"another provider's":   {[]any{"else:7c"}, nil, "[main:else:7c]"},
		"none, and an address": {[]any{}, nil, "[acme]"},
	} {
		s.provider.Set(testenv.Fault{Endpoint: testenv.Token, Claims: func(claims map[string]any) {
			delete(claims, "org_id")
			claims["tenants"] = tc.tenants
		}})
		b := s.browser(t)
		page := s.signIn(t, b, "/deep?x=1", "mira")
		var choices []string
		for _, m := range regexp.MustCompile(`name="org" value="([^"]*)"`).FindAllStringSubmatch(page.Body, -1) {
			choices = append(choices, m[1])
		}
		if !slices.Equal(choices, tc.choices) {
			t.Errorf("%s: to choose from: %q", name, choices)
			continue
		}
		if choices != nil {
			page = b.Submit(page, "org", choices[len(choices)-1])
		}
		if got := fmt.Sprint(s.told(t)["x-forwarded-org-id"]); got != tc.told || page.URL.RequestURI() != "/deep?x=1" {
			t.Errorf("%s: at %s the app is told %s", name, page.URL, got)
		}
	}
}

// checkNothingIsForwarded holds a session without an organization to what it may do.
func (s *testSite) checkNothingIsForwarded(t *testing.T, cookie string) {
	t.Helper()
	picker := prefix + "/organization?return_to=%2Fx%3Fa%3D1"
	a := s.get(t, "/x?a=1", navigate(cookie)...)
	if a.status != 302 || a.header.Get("Location") != s.url+prefix+"/login?return_to=%2Fx%3Fa%3D1" {
		t.Errorf("a page: %d %v", a.status, a.header)
	}
	a = s.get(t, a.header.Get("Location"), navigate(cookie)...)
	if a.status != 303 || a.header.Get("Location") != s.url+picker || a.header["Set-Cookie"] != nil {
		t.Errorf("sign-in: %d %v", a.status, a.header)
	}
	if line := s.log.event(t, s.get(t, "/admin", navigate(cookie)...).header.Get("X-Request-Id")); line["reason"] != "no_org" || line["user"] != "main:ines-1" || line["org"] != nil {
		t.Errorf("logged %v", line)
	}
	checkChallenge(t, s, "GET", s.get(t, "/x", cookie))
	checkChallenge(t, s, "GET", s.get(t, prefix+"/session", cookie))
	if a := s.ask(t, "POST", "/x", "a=b", navigate(cookie)...); a.status != 401 {
		t.Errorf("a form: %d", a.status)
	}
	if a := s.get(t, prefix+"/account", navigate(cookie)...); a.status != 200 ||
		!strings.Contains(a.body, "None chosen yet") {
		t.Errorf("the account page: %d\n%s", a.status, a.body)
	}
	if a := s.get(t, prefix+"/logout", navigate(cookie)...); a.status != 200 {
		t.Errorf("signing out: %d", a.status)
	}
	if a := s.get(t, "/open", cookie); a.status != 200 || len(s.told(t)) != 0 {
		t.Errorf("a public page: %d, told %v", a.status, s.told(t))
	}
}

// checkSwitched compares two sessions around a switch: another id, the same
// sign-in, and the first one over.
func (s *testSite) checkSwitched(t *testing.T, page testenv.Page, before, after *session.Session, landed string) {
	t.Helper()
	if page.Status != 200 || page.URL.RequestURI() != landed {
		t.Errorf("landed at %s with %d", page.URL, page.Status)
	}
	if h := page.Hops[0]; h.Status != 303 || len(h.SetCookie) != 1 || h.Header.Get("Clear-Site-Data") != `"cache"` ||
		h.Header.Get("Cache-Control") != "private, no-store" {
		t.Errorf("switched with %d %v", h.Status, h.Header)
	}
	if after == nil || after.ID == before.ID || !after.SignedIn.Equal(before.SignedIn) ||
		!after.Expires.Equal(before.Expires) ||
		!after.Identity.AuthTime.Equal(before.Identity.AuthTime) ||
		fmt.Sprint(after.Identity.Orgs) != fmt.Sprint(before.Identity.Orgs) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if _, err := s.sessions.Read(s.seal(t, *before), s.routeHost); err != session.ErrEnded {
		t.Errorf("the session before is not over: %v", err)
	}
}

// Only our own pages may choose an organization: what other sites cause is
// refused by Origin and Sec-Fetch-Site (gorilla/csrf CVE-2025-24358, Go
// CVE-2025-47910).
func TestP09_OnlyOurOwnPagesSwitchTheOrganization(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	cookie := "Cookie: " + s.mint(t, picked(t, "acme"))
	post := "Content-Type: application/x-www-form-urlencoded"
	for name, lines := range map[string][]string{
		"Origin null":                        {"Origin: null"},
		"Origin of another site":             {"Origin: https://evil.example"},
		"Origin of another scheme":           {"Origin: " + strings.Replace(s.url, "http://", "https://", 1)},
		"Origin of another port":             {"Origin: " + s.url + "0"},
		"two Origins":                        {"Origin: " + s.url, "Origin: https://evil.example"},
		"no Origin, cross-site":              {"Sec-Fetch-Site: cross-site"},
		"no Origin, same-site":               {"Sec-Fetch-Site: same-site"},
		"our Origin, cross-site":             {"Origin: " + s.url, "Sec-Fetch-Site: cross-site"},
		"null after a redirect, same-origin": {"Origin: null", "Sec-Fetch-Site: same-origin"},
	} {
		a := s.ask(t, "POST", prefix+"/organization", "org=main%3Abirch",
			append(lines, cookie, post, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")...)
		if a.status != 403 || a.header["Set-Cookie"] != nil || !strings.Contains(a.body, "The request to switch the "+
			"organization came from another site.") {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
	}
	for _, path := range []string{"?org=main%3Abirch", "?org=main%3Abirch&return_to=%2F"} { // a link cannot either
		if a := s.get(t, prefix+"/organization"+path, navigate(cookie)...); a.status != 200 ||
			a.header["Set-Cookie"] != nil {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
	}
	s.get(t, "/x", cookie)
	if got := s.told(t)["x-forwarded-org-id"]; fmt.Sprint(got) != "[acme]" {
		t.Errorf("switched to %v", got)
	}
}

func TestP01_NobodySwitchesToAnOrganizationThatIsNotTheirs(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	cookie := "Cookie: " + s.mint(t, picked(t, "acme"))
	long := strings.Repeat("a", maxOrgForm)
	for form, want := range map[string]int{
		"org=cedar": 403, "org=main%3A7c": 403, "org=ACME": 403, "org=": 403, "org=acme%00": 403,
		"org=main%3Abirch+": 403,
		"":                  400, "return_to=%2Fx": 400, "org=acme&org=main%3Abirch": 400,
		"org=acme&return_to=%2F&return_to=%2Fx": 400,
		"org=%zz":                               400, "org=acme;x": 400, "org=main%3Abirch&x=" + long: 400,
	} {
		a := s.ask(t, "POST", prefix+"/organization", form, cookie, "Content-Type: application/x-www-form-urlencoded")
		if a.status != want || a.header["Set-Cookie"] != nil {
			t.Errorf("%.40s: %d %v", form, a.status, a.header["Set-Cookie"])
		}
	}
	for kind, body := range map[string]string{"application/json": `{"org":"main:birch"}`,
		"text/plain": "org=main:birch", "multipart/form-data; boundary=x": "--x\r\nContent-Disposition: form-data; " +
			"name=\"org\"\r\n\r\nmain:birch\r\n--x--\r\n"} {
		if a := s.ask(t, "POST", prefix+"/organization", body, cookie, "Content-Type: "+kind); a.status != 400 ||
			a.header["Set-Cookie"] != nil {
			t.Errorf("%s: %d", kind, a.status)
		}
	}
	if a := s.ask(t, "PUT", prefix+"/organization", "org=acme", cookie); a.status != 405 {
		t.Errorf("PUT: %d", a.status)
	}
	if a := s.get(t, "/x", cookie); a.status != 200 || fmt.Sprint(s.told(t)["x-forwarded-org-id"]) != "[acme]" {
		t.Errorf("%d, told %v", a.status, s.told(t))
	}
}

// P5: the choice leads back to where somebody wanted to go, and nowhere else.
func TestP05_TheChoiceOfAnOrganizationLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	for to, want := range map[string]string{
		"/deep?a=1&b=%2F#x": "/deep?a=1&b=%2F#x", s.url + "/deep": "/deep", prefix + "/account": prefix + "/account",
		"": "/", "https://evil.example/": "/", "//evil.example": "/", `/\evil.example`: "/", "/%09/evil.example": "/",
		"/.//evil.example":    "/",
		"javascript:alert(1)": "/", prefix + "/logout": "/", prefix + "/organization": "/",
		"/a\r\nSet-Cookie: x=y": "/", "/" + strings.Repeat("a", session.MaxReturnTo): "/",
	} {
		form := url.Values{"org": {"main:birch"}, "return_to": {to}}
		cookie := "Cookie: " + s.mint(t, picked(t, "acme"))
		a := s.ask(t, "POST", prefix+"/organization", form.Encode(), cookie, "Content-Type: "+
			"application/x-www-form-urlencoded")
		if a.status != 303 || a.header.Get("Location") != s.url+want || len(a.header["Set-Cookie"]) != 1 {
			t.Errorf("%.60q: %d to %q", to, a.status, a.header.Get("Location"))
		}
		query := prefix + "/organization?return_to=" + url.QueryEscape(to)
		if a := s.get(t, query, navigate("Cookie: "+s.mint(t, alice()))...); a.status != 303 ||
			a.header.Get("Location") != s.url+want {
			t.Errorf("%.60q, with nothing to choose: %d to %q", to, a.status, a.header.Get("Location"))
		}
		login := prefix + "/login?return_to=" + url.QueryEscape(want)
		if want == "/" {
			login = prefix + "/login"
		}
		// A session that has ended meanwhile is begun anew, with the same end.
		if a := s.get(t, query, navigate()...); a.status != 303 || a.header.Get("Location") != s.url+login {
			t.Errorf("%.60q, without a session: %d to %q", to, a.status, a.header.Get("Location"))
		}
		if a := s.ask(t, "POST", prefix+"/organization", form.Encode(), "Content-Type: "+
			"application/x-www-form-urlencoded"); a.status != 303 || a.header.Get("Location") != s.url+login {
			t.Errorf("%.60q, sent without a session: %d to %q", to, a.status, a.header.Get("Location"))
		}
	}
}

// P11: switching is no way to stay signed in.
func TestP11_SwitchingDoesNotProlongASession(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	start := s.sessions.Start(picked(t, "acme"))
	cookie := s.seal(t, start)
	for range 23 {
		s.clock.Advance(30 * time.Minute)
		org := "acme"
		if s.get(t, "/x", "Cookie: "+cookie); fmt.Sprint(s.told(t)["x-forwarded-org-id"]) == "[acme]" {
			org = "main:birch"
		}
		a := s.ask(t, "POST", prefix+"/organization", url.Values{"org": {org}}.Encode(), "Cookie: "+cookie,
			"Content-Type: application/x-www-form-urlencoded")
		if a.status != 303 {
			t.Fatalf("%s: %d", org, a.status)
		}
		cookie, _, _ = strings.Cut(a.header.Get("Set-Cookie"), ";")
		got, err := s.sessions.Read(cookie, s.routeHost)
		testenv.Check(t, err)
		if !got.Expires.Equal(start.Expires) {
			t.Fatalf("lasts until %s, not %s", got.Expires, start.Expires)
		}
	}
	s.clock.Advance(30 * time.Minute)
	if a := s.get(t, "/x", "Cookie: "+cookie); a.status != 401 {
		t.Errorf("after the absolute timeout: %d", a.status)
	}
}

// A thief with the cookie of a person with two organizations switches and gets a
// session of their own. The owner's sign-out ends that session too, and so does the
// owner's next sign-in.
func TestP10_SignOutReachesWhoeverSwitchedWithAStolenCookie(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(s *testSite, b *testenv.Browser){
		"the owner signs out": func(s *testSite, b *testenv.Browser) {
			b.Post(b.Open(s.url+prefix+"/logout"),
				prefix+"/logout", nil)
		},
		"the owner is sent to sign in": func(s *testSite, b *testenv.Browser) {
			b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {s.begin(t, b, "/deep")}}))
		},
	} {
		s := newTestSite(t, setup{Login: fixedLogin{who: alice()}})
		b := s.browser(t)
		cookie, value, _ := strings.Cut(s.mint(t, picked(t, "acme")), "=")
		b.SetCookies(s.url, &http.Cookie{Name: cookie, Value: value, Path: "/"})
		a := s.ask(t, "POST", prefix+"/organization", "org=main%3Abirch", s.cookieOf(t, b), "Content-Type: "+
			"application/x-www-form-urlencoded")
		stolen, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
		if a := s.get(t, "/x", "Cookie: "+stolen); a.status != 200 {
			t.Fatalf("%s: the thief gets %d", name, a.status)
		}
		end(s, b)
		if a := s.get(t, "/x", "Cookie: "+stolen); a.status != 401 {
			t.Errorf("%s: the thief still gets %d", name, a.status)
		}
	}
}

func TestP10_OfTwoHundredChoicesAtOnceOneSessionIsLeft(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	cookie := "Cookie: " + s.mint(t, foldedOrgs(t).Fold(ines()))
	var all sync.WaitGroup
	var mu sync.Mutex
	var alive []string
	for range 200 {
		all.Go(func() {
			a := s.ask(t, "POST", prefix+"/organization", "org=main%3Abirch&return_to=%2Fdeep", cookie,
				"Content-Type: application/x-www-form-urlencoded")
			set, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
			if a.status != 303 || (set == "") != (a.header.Get("Location") == s.url+prefix+"/login?return_to=%2Fdeep") {
				t.Errorf("%d to %s", a.status, a.header.Get("Location"))
			}
			if set != "" {
				mu.Lock()
				defer mu.Unlock()
				alive = append(alive, set)
			}
		})
	}
	all.Wait()
	if len(alive) != 1 {
		t.Fatalf("%d sessions are left", len(alive))
	}
	if a := s.get(t, "/x", "Cookie: "+alive[0]); a.status != 200 {
		t.Errorf("and it gets %d", a.status)
	}
}

// A page that was slow to come must not bring the cookie of before the switch.
func TestALateAnswerDoesNotUndoASwitchOfTheOrganization(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	arrived, release := make(chan struct{}), make(chan struct{})
	s.app.Respond(func(request []byte) []byte {
		if testenv.Target(request) == "/slow" {
			close(arrived)
			<-release
		}
		return reply("", "ok")(request)
	})
	cookie := "Cookie: " + s.mint(t, picked(t, "acme"))
	s.clock.Advance(10 * time.Minute) // so that a renewal is due
	if a := s.get(t, "/x", navigate(cookie)...); len(a.header["Set-Cookie"]) != 1 {
		t.Fatalf("no renewal is due: %v", a.header)
	}
	slow := make(chan answer)
	go func() { slow <- s.get(t, "/slow", navigate(cookie)...) }()
	<-arrived
	a := s.ask(t, "POST", prefix+"/organization", url.Values{"org": {"main:birch"}}.Encode(), cookie, "Content-Type: "+
		"application/x-www-form-urlencoded")
	if a.status != 303 {
		t.Errorf("switched with %d", a.status)
	}
	close(release)
	if late := <-slow; late.status != 200 || late.header["Set-Cookie"] != nil {
		t.Errorf("the late answer: %d %v", late.status, late.header)
	}
}

func TestWhoIsRefusedForOneOrganizationIsOfferedTheOther(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: ines()}, Orgs: foldedOrgs(t), Routes: []authz.Route{
		{Name: "app", Host: "127.0.0.1", Path: "/", Access: authz.Access{Authenticated: true}},
		{Name: "bank", Host: "127.0.0.1", Path: "/bank",
			Access: authz.Access{Rules: []authz.Rule{{Orgs: []string{"main:birch"}}}}},
		{Name: "open", Host: "127.0.0.1", Path: "/open", Access: authz.Access{Public: true}}}})
	b := s.browser(t)
	ask := b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {s.begin(t, b, "/bank/vault?a=1")}}))
	refused := b.Submit(ask, "org", "acme")
	if refused.Status != 403 || !strings.Contains(refused.Body, "for <strong><bdi>Acme Rockets</bdi></strong>.") ||
		!strings.Contains(refused.Body, "Another of your organizations has access") {
		t.Fatalf("%d\n%s", refused.Status, refused.Body)
	}
	page := b.Submit(refused, "org", "main:birch")
	if page.Status != 200 || page.URL.RequestURI() != "/bank/vault?a=1" ||
		fmt.Sprint(s.told(t)["x-forwarded-org-id"]) != "[main:birch]" {
		t.Errorf("%s: %d, told %v", page.URL, page.Status, s.told(t))
	}
	other := bob() // who has only one, or none
	other.Org = identity.Org{ID: "main:cedar", Name: "Cedar"}
	if a := s.get(t, "/bank", navigate("Cookie: "+s.mint(t, other))...); a.status != 403 ||
		strings.Contains(a.body, "name=\"org\"") || strings.Contains(a.body, "another of your organizations") {
		t.Errorf("%d\n%s", a.status, a.body)
	}
}

// leadsOn reports the first address on the way from a form of page that Chromium would not go to:
// it holds the page's form-action to all redirects that follow.
func leadsOn(t *testing.T, page, to testenv.Page) {
	t.Helper()
	_, sources, _ := strings.Cut(page.Header.Get("Content-Security-Policy"), "form-action ")
	sources, _, _ = strings.Cut(sources, ";")
	for _, hop := range to.Hops {
		origin := hop.URL.Scheme + "://" + hop.URL.Host
		if origin != page.URL.Scheme+"://"+page.URL.Host && !slices.Contains(strings.Fields(sources), origin) {
			t.Errorf("%s: %s; from a form whose action may be %s", page.URL, way(to), sources)
			return
		}
	}
}

// The page behind a choice may ask for another sign-in, or the provider may be due to be asked
// again: then the form leads to the provider.
func TestAChoiceOfAnOrganizationLeadsOnToTheProvider(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true, Orgs: foldedOrgs(t), Routes: []authz.Route{
		{Name: "app", Host: "127.0.0.1", Path: "/", Access: authz.Access{Authenticated: true}},
		{Name: "vault", Host: "127.0.0.1", Path: "/vault", Proof: identity.Proof{MaxAge: 15 * time.Minute},
			Access: authz.Access{Rules: []authz.Rule{{Orgs: []string{"main:birch"}}}}}}})
	for from, status := range map[string]int{"/vault": 403, prefix + "/organization?return_to=%2Fvault": 200} {
		b := s.browser(t)
		name, value, _ := strings.Cut(s.mint(t, picked(t, "acme")), "=")
		b.SetCookies(s.url, &http.Cookie{Name: name, Value: value})
		page := b.Open(s.url + from)
		if page.Status != status {
			t.Fatalf("%s: %d\n%s", from, page.Status, page.Body)
		}
		to := b.Submit(page, "org", "main:birch")
		if !strings.HasPrefix(to.URL.String(), s.provider.URL) {
			t.Fatalf("%s: %s", from, way(to))
		}
		leadsOn(t, page, to)
	}
}

// The part of hosts for organizations that works on one public host: `check`
// refuses protected routes of others until sessions reach several hosts.
func TestP01_AnOrganizationsHostRefusesOthers(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Public: "http://acme.example.com", Login: fixedLogin{}, Routes: []authz.Route{
		{Name: "tenant", Host: "{org}.example.com", Orgs: []string{"acme", "cedar"}, Path: "/",
			Access: authz.Access{Authenticated: true}}}})
	stranger := bob()
	stranger.Org = identity.Org{ID: "main:acme", Name: "Acme"} // not the one of the configuration
	for _, tc := range []struct {
		name   string
		who    identity.Identity
		status int
		says   []string
	}{
		{"active", picked(t, "acme"), 200, nil},
		{"theirs", picked(t, "main:birch"), 403, []string{"This address is for Acme Rockets, and you are here for " +
			"another organization.", `<button name="org" value="acme"><bdi>Acme Rockets</bdi>`}},
		{"not theirs", stranger, 403, []string{"This address is another organization&#39;s, and your account does " +
			"not belong to it."}},
		{"of none", bob(), 403, []string{"This address is another organization&#39;s, and your account does not " +
			"belong to it."}},
	} {
		before := len(s.app.Requests())
		a := s.ask(t, "GET", "http://"+s.addr+"/x", "", navigate("Host: acme.example.com",
			"Cookie: "+s.mint(t, tc.who))...)
		if a.status != tc.status || (tc.status == 403) != (len(s.app.Requests()) == before) {
			t.Errorf("%s: %d", tc.name, a.status)
		}
		for _, words := range tc.says {
			if !strings.Contains(a.body, words) {
				t.Errorf("%s: the page does not say %q:\n%s", tc.name, words, a.body)
			}
		}
		if offered := strings.Contains(a.body, `name="org"`); offered != (tc.name == "theirs") {
			t.Errorf("%s: offered a switch: %t", tc.name, offered)
		}
	}
	// Of another organization's host the cookie is not good, and of nobody's there is nothing.
	for host, want := range map[string]int{"cedar.example.com": 401, "nobody.example.com": 404,
		"x.acme.example.com": 404} {
		if a := s.ask(t, "GET", "http://"+s.addr+"/x", "", "Host: "+host, "Cookie: "+s.mint(t, picked(t, "acme"))); a.status != want {
			t.Errorf("%s: %d, want %d", host, a.status, want)
		}
	}
}

// What is folded at the sign-in is what rules, headers and the assertion see.
func TestP01_OrganizationsAreFoldedAtTheSignIn(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*identity.Identity)
		want   string // as headers
	}{
		"by id": {func(id *identity.Identity) {
			id.Org = identity.Org{ID: "main:7c", Name: "Told", Domain: "told.example"}
		}, "acme, Acme Rockets, acme.example"},
		"by verified e-mail": {func(id *identity.Identity) { id.Org = identity.Org{} }, "acme, Acme Rockets, " +
			"acme.example"},
		"by unverified": {func(id *identity.Identity) { id.Org, id.EmailVerified = identity.Org{}, false },
			", , "},
		"id before e-mail": {func(id *identity.Identity) { id.Org = identity.Org{ID: "main:other", Name: "Other"} },
			"main:other, Other, "},
		"another provider's": {func(id *identity.Identity) { id.Org = identity.Org{ID: "else:7c", Name: "Acme"} },
			", , "},
		"the configuration's": {func(id *identity.Identity) { id.Org = identity.Org{ID: "acme", Name: "Acme"} },
			", , "},
	} {
		who := alice()
		tc.change(&who)
		s := newTestSite(t, setup{Login: fixedLogin{who: who}, Orgs: foldedOrgs(t)})
		b := s.browser(t)
		page := b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {s.begin(t, b, "/deep")}}))
		got := s.told(t)
		line := func(name string) string { return strings.Join(got["x-forwarded-org-"+name], "|") }
		if all := line("id") + ", " + line("name") + ", " + line("domain"); page.Status != 200 || all != tc.want {
			t.Errorf("%s: %d, told %q, want %q", name, page.Status, all, tc.want)
		}
		org, _ := s.asserted(t)["org"].(map[string]any)
		if id, _ := org["id"].(string); id != line("id") {
			t.Errorf("%s: the assertion says %v", name, org)
		}
		if sess := s.sessionOf(b); strings.HasPrefix(tc.want,
			"acme,") != (sess.Identity.Org.Source == identity.SourceConfig) {
			t.Errorf("%s: the session has %+v", name, sess.Identity.Org)
		}
	}
}

func TestP17_MoreOrganizationsThanACookieHoldsAreRefusedInWords(t *testing.T) {
	t.Parallel()
	who := ines()
	for i := range 200 {
		who.Orgs = append(who.Orgs, identity.Org{ID: fmt.Sprintf("main:tenant-%d", i), Name: fmt.Sprintf("The tenant "+
			"%d of two hundred", i), Source: "claim"})
	}
	s := newTestSite(t, setup{Login: fixedLogin{who: who}})
	b := s.browser(t)
	page := b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {s.begin(t, b, "/deep")}}))
	if page.Status != http.StatusForbidden || !strings.Contains(page.Body, "You belong to too many organizations") ||
		s.sessionOf(b) != nil {
		t.Errorf("%d\n%s", page.Status, page.Body)
	}
}
