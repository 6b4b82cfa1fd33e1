package proxy

import (
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

const asked = 10 * time.Minute // how long sign-ins are believed in these tests

// reauthSite is a site whose provider is asked again after a while, with jonas, who is an
// admin, signed in at it.
func reauthSite(t *testing.T, change ...func(*setup)) (*testSite, *testenv.Browser) {
	t.Helper()
	o := setup{SignIn: true, Reauth: asked}
	for _, c := range change {
		c(&o)
	}
	s := newTestSite(t, o)
	b := s.browser(t)
	if page := s.signIn(t, b, "/admin", "jonas"); page.Status != 200 {
		t.Fatalf("the sign-in ends with %d\n%s", page.Status, page.Body)
	}
	return s, b
}

// due makes it time to ask again, at a provider that has just answered.
func (s *testSite) due(t *testing.T, b *testenv.Browser) {
	t.Helper()
	s.clock.Advance(2 * asked)
	asks := s.provider.Hits(testenv.Discovery)
	if page := b.Open(s.url + "/"); page.Status != 200 || len(page.Hops) != 1 {
		t.Fatalf("before the provider has answered: %d after %d hops", page.Status, len(page.Hops))
	}
	provider := s.proxy.signIns.providers[0].Login.(Reauthenticator)
	testenv.Eventually(t, "the provider to answer", func() bool { return provider.Answering(t.Context()) })
	if got := s.provider.Hits(testenv.Discovery) - asks; got != 1 {
		t.Fatalf("the provider was asked %d times whether it answers", got)
	}
}

// silently is the authorization request that a page led to; it is what the browser went
// through, and nobody was asked anything.
func silently(t *testing.T, s *testSite, page testenv.Page) url.Values {
	t.Helper()
	for _, hop := range page.Hops {
		if strings.HasPrefix(hop.URL.String(), s.provider.URL) {
			if q := hop.URL.Query(); q.Get("prompt") == "none" {
				return q
			}
		}
	}
	t.Fatalf("the provider was not asked silently; ended at %s with %d\n%s", page.URL, page.Status, page.Body)
	return nil
}

// Somebody is taken out of a group at the provider. At the next page after the time has
// come they have lost what the group opened, also in a copy of the cookie; whatever a
// script or form of the page does until then goes on.
func TestP11_AGroupThatIsLostAtTheProviderIsLostAtTheNextPage(t *testing.T) {
	t.Parallel()
	s, b := reauthSite(t)
	copied := s.cookieOf(t, b)
	before := s.sessionOf(b)
	s.due(t, b)
	s.provider.Set(testenv.Fault{Endpoint: testenv.Token, Claims: testenv.With("groups", []string{"engineering"})})
	if a := s.get(t, "/admin/x", copied); a.status != 200 {
		t.Errorf("a fetch: %d", a.status)
	}
	if a := s.ask(t, "POST", "/admin/x", "a=b", navigate(copied, "Content-Type: application/x-www-form-urlencoded", "Origin: "+s.url)...); a.status != 200 {
		t.Errorf("a form: %d", a.status)
	}
	page := b.Open(s.url + "/admin/deep?q=1%2F2")
	q := silently(t, s, page)
	if q.Get("login_hint") != "jonas@acme.example" || q.Has("max_age") {
		t.Errorf("asked with %v", q)
	}
	if page.Status != 403 || page.URL.String() != s.url+"/admin/deep?q=1%2F2" {
		t.Errorf("ended at %s with %d\n%s", page.URL, page.Status, page.Body)
	}
	after := s.sessionOf(b)
	if after == nil || after.Root != before.Root || after.ID == before.ID || after.Checked.IsZero() ||
		!after.Expires.Equal(before.Expires) {
		t.Errorf("the session is %+v, and was %+v", after, before)
	}
	if a := s.get(t, "/admin/x", copied); a.status != 401 {
		t.Errorf("a copy of the old cookie: %d", a.status)
	}
	if page := b.Open(s.url + "/"); page.Status != 200 || len(page.Hops) != 1 {
		t.Errorf("what is still theirs: %d after %d hops", page.Status, len(page.Hops))
	}
	if got := s.counted(t, "sallyport_reauths_total", "result", "changed"); got != 1 {
		t.Errorf("counted %v", got)
	}
}

// Nothing has changed: the session stays what it is, with its copies, and the provider is
// left alone until the time has come again.
func TestAnUnchangedAnswerKeepsTheSession(t *testing.T) {
	t.Parallel()
	s, b := reauthSite(t)
	copied, before := s.cookieOf(t, b), s.sessionOf(b)
	s.due(t, b)
	page := b.Open(s.url + "/admin/deep?q=1")
	silently(t, s, page)
	if page.Status != 200 || page.URL.RequestURI() != "/admin/deep?q=1" {
		t.Fatalf("ended at %s with %d", page.URL, page.Status)
	}
	after := s.sessionOf(b)
	if after == nil || after.ID != before.ID || !after.Checked.After(before.SignedIn) {
		t.Fatalf("the session is %+v, and was %+v", after, before)
	}
	if a := s.get(t, "/x", copied); a.status != 200 {
		t.Errorf("a copy: %d", a.status)
	}
	for range 3 {
		if page := b.Open(s.url + "/"); page.Status != 200 || len(page.Hops) != 1 {
			t.Errorf("%d after %d hops", page.Status, len(page.Hops))
		}
	}
}

// Each answer of the provider, and what becomes of the session.
func TestP06_WhatAProviderAnswersWhenItIsAskedAgain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		code   string // the error it answers with
		fault  testenv.Fault
		person string // who is signed in there now
		status int
		lives  bool
		says   string
		result string
	}{
		"sign in": {code: "login_required", result: "interaction", status: 200, says: "Mira"},
		// its page to sign in
		"interaction":   {code: "interaction_required", result: "interaction", status: 200, says: "Mira"},
		"consent":       {code: "consent_required", result: "interaction", status: 200, says: "Mira"},
		"which account": {code: "account_selection_required", result: "interaction", status: 200, says: "Mira"},
		"denied":        {code: "access_denied", result: "denied", status: 403, says: "You have been signed out"},
		"somebody else": {person: "mira@acme.example", result: "other_person", status: 403,
			says: "You have been signed out"},
		"in a moment":    {code: "temporarily_unavailable", result: "failed", status: 200, lives: true},
		"its own fault":  {code: "server_error", result: "failed", status: 200, lives: true},
		"a strange word": {code: "x_strange", result: "failed", status: 200, lives: true},
		"no token": {fault: testenv.Fault{Endpoint: testenv.Token, Status: 500}, result: "failed", status: 200,
			lives: true},
		"a forged token": {fault: testenv.Fault{Endpoint: testenv.Token, Resign: testenv.SignedByStranger},
			result: "failed", status: 200, lives: true},
		"it breaks off": {fault: testenv.Fault{Endpoint: testenv.Token, Truncate: true}, result: "failed", status: 200,
			lives: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, b := reauthSite(t)
			copied := s.cookieOf(t, b)
			s.due(t, b)
			if tt.fault.Endpoint != "" {
				s.provider.Set(tt.fault)
			}
			b.MaxHops = 0
			away := b.Open(s.url + "/admin/deep?q=1").Header.Get("Location")
			to, err := url.Parse(away)
			testenv.Check(t, err)
			if tt.person != "" {
				q := to.Query()
				q.Set("login_hint", tt.person)
				to.RawQuery = q.Encode()
			}
			back := s.callback("main", url.Values{"state": {to.Query().Get("state")}, "error": {tt.code},
				"iss": {s.provider.URL}})
			if tt.code == "" {
				back = b.Open(to.String()).Header.Get("Location")
			}
			b.MaxHops = 10
			reached := len(s.app.Requests())
			page := b.Open(back)
			if page.Status != tt.status || (s.sessionOf(b) != nil) != tt.lives ||
				!strings.Contains(page.Body, tt.says) {
				t.Errorf("ended at %s with %d, session %v\n%s", page.URL, page.Status, s.sessionOf(b), page.Body)
			}
			if tt.lives && page.URL.RequestURI() != "/admin/deep?q=1" {
				t.Errorf("ended at %s", page.URL)
			}
			if h := page.Hops[0].Header; (h.Get("Clear-Site-Data") == `"cache"`) == tt.lives {
				t.Errorf("what the app let the browser keep: %v", h) // for whoever signs in next
			}
			if a := s.get(t, "/x", copied); (a.status == 200) != tt.lives {
				t.Errorf("a copy of the cookie: %d", a.status)
			}
			if !tt.lives && len(s.app.Requests()) != reached {
				t.Errorf("%d requests reached the app", len(s.app.Requests())-reached)
			}
			if got := s.counted(t, "sallyport_sessions_ended_total", "by", "reauth"); (got == 1) == tt.lives ||
				s.counted(t, "sallyport_sessions_ended_total", "by", "person") != 0 {
				t.Errorf("%v ends were counted", got)
			}
			if got := s.counted(t, "sallyport_reauths_total", "result", tt.result); got != 1 {
				t.Errorf("%s was counted %v times", tt.result, got)
			}
			// The address of the callback is no way to anything a second time.
			again := b.Open(back)
			if (s.sessionOf(b) != nil) != tt.lives || tt.lives && again.URL.RequestURI() != "/admin/deep?q=1" {
				t.Errorf("a second time it ends at %s with %d", again.URL, again.Status)
			}
			if tt.result != "interaction" {
				return
			}
			// The person signs in, and is where they wanted to be.
			if page := b.SignIn(page, "jonas"); page.Status != 200 || page.URL.RequestURI() != "/admin/deep?q=1" {
				t.Errorf("signed in again, they are at %s with %d", page.URL, page.Status)
			}
		})
	}
}

// Nobody is sent to a provider that may not answer, and who does not come back from one is
// not sent there again.
func TestP17_AProviderThatIsDownKeepsNobody(t *testing.T) {
	t.Parallel()
	s, b := reauthSite(t)
	s.clock.Advance(2 * asked)
	s.provider.Set(testenv.Fault{Endpoint: testenv.Discovery, Status: 503})
	for range 5 {
		if page := b.Open(s.url + "/"); page.Status != 200 || len(page.Hops) != 1 {
			t.Fatalf("%d after %d hops", page.Status, len(page.Hops))
		}
		s.clock.Advance(time.Second)
	}
	if got := s.provider.Hits(testenv.Authorize); got != 2 { // the sign-in's page and its form
		t.Errorf("the provider's page was asked for %d times", got)
	}
	s.provider.Set()
	s.clock.Advance(time.Minute)
	provider := s.proxy.signIns.providers[0].Login.(Reauthenticator)
	testenv.Eventually(t, "the provider to answer", func() bool {
		s.clock.Advance(time.Second)
		return provider.Answering(t.Context())
	})
	b.MaxHops = 0
	if page := b.Open(s.url + "/"); page.Status != 302 || !strings.HasPrefix(page.Header.Get("Location"),
		s.provider.URL) {
		t.Fatalf("once it answers: %d %v", page.Status, page.Header)
	}
	for range 3 { // the person pressed Stop, or Back
		if page := b.Open(s.url + "/"); page.Status != 200 {
			t.Fatalf("who came back without an answer gets %d", page.Status)
		}
	}
}

// A frame, a fetch, a prefetch, HEAD and a download cannot go to the provider and come back.
func TestOnlyPagesAreSentToTheProviderAgain(t *testing.T) {
	t.Parallel()
	s, b := reauthSite(t)
	s.due(t, b)
	cookie := s.cookieOf(t, b)
	for name, lines := range map[string][]string{
		"a fetch":    {cookie, "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Accept: */*"},
		"a frame":    {cookie, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", "Accept: text/html"},
		"a picture":  {cookie, "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image", "Accept: image/avif"},
		"a prefetch": navigate(cookie, "Sec-Purpose: prefetch"),
		"a program":  {cookie, "Accept: */*"},
	} {
		if a := s.get(t, "/x", lines...); a.status != 200 {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
	}
	if a := s.ask(t, "HEAD", "/x", "", navigate(cookie)...); a.status != 200 {
		t.Errorf("HEAD: %d", a.status)
	}
	long := "/" + strings.Repeat("x", 1100)
	if a := s.get(t, long, navigate(cookie)...); a.status != 200 {
		t.Errorf("an address too long to return to: %d", a.status)
	}
	if a := s.get(t, "/open", navigate(cookie)...); a.status != 200 {
		t.Errorf("a public page: %d", a.status)
	}
	if a := s.get(t, "/x", navigate(cookie)...); a.status != 302 {
		t.Errorf("a page: %d", a.status)
	}
}

// Many tabs come back at once, and one callback is asked for again and again: the person
// stays signed in, and each code is redeemed once.
func TestP06_ManyTabsThatAreSentThereAgainStaySignedIn(t *testing.T) {
	t.Parallel()
	s, b := reauthSite(t)
	s.due(t, b)
	const tabs = 5
	b.MaxHops = 0
	cookie := s.cookieOf(t, b)
	var callbacks []string
	for range tabs { // each tab left before the answer to another had noted it
		a := s.get(t, "/x", navigate(cookie+"; "+s.flowCookieOf(b))...)
		callbacks = append(callbacks, b.Open(a.header.Get("Location")).Header.Get("Location"))
	}
	redeemed := s.provider.Hits(testenv.Token)
	var all sync.WaitGroup
	for _, back := range callbacks {
		for range 2 {
			all.Go(func() {
				if page := b.Open(back); page.Status != 303 || page.Header.Get("Location") != s.url+"/x" {
					t.Errorf("%d %v\n%s", page.Status, page.Header, page.Body)
				}
			})
		}
	}
	all.Wait()
	if got := s.provider.Hits(testenv.Token) - redeemed; got != tabs {
		t.Errorf("%d codes were redeemed for %d tabs", got, tabs)
	}
	if s.sessionOf(b) == nil {
		t.Error("nobody is signed in")
	}
}

// A sign-out while the browser was away is not undone by what it brings back.
func TestP10_WhatEndedWhileTheBrowserWasAwayStaysEnded(t *testing.T) {
	t.Parallel()
	s, b := reauthSite(t)
	s.due(t, b)
	b.MaxHops = 0
	back := b.Open(b.Open(s.url + "/x").Header.Get("Location")).Header.Get("Location")
	testenv.Check(t, s.sessions.EndSignIn(t.Context(), *s.sessionOf(b)))
	if page := b.Open(back); page.Status != 303 || s.sessionOf(b) != nil {
		t.Errorf("%d, session %v", page.Status, s.sessionOf(b))
	}
	if got := s.provider.Hits(testenv.Token); got != 1 {
		t.Errorf("%d codes were redeemed", got)
	}
}

// Organizations: the one that somebody is here for stays while it is theirs, and nobody is
// put into another one silently.
func TestTheOrganizationStaysWhileItIsTheirs(t *testing.T) {
	t.Parallel()
	before := identity.Identity{Provider: "main", Subject: "1", Org: identity.Org{ID: "b"},
		Orgs: []identity.Org{{ID: "a"}, {ID: "b"}}}
	same := identity.Identity{Provider: "main", Subject: "1", Orgs: []identity.Org{{ID: "b"}, {ID: "a"}}}
	if got := withOrgOf(same, before); got.Org.ID != "b" {
		t.Errorf("here for %q", got.Org.ID)
	}
	lost := identity.Identity{Provider: "main", Subject: "1", Orgs: []identity.Org{{ID: "a"}, {ID: "c"}}}
	if got := withOrgOf(lost, before); got.Org.ID != "" || !got.MustPick() {
		t.Errorf("here for %q", got.Org.ID)
	}
}

// flowCookieOf is what ties trips to a browser, as "name=value".
func (s *testSite) flowCookieOf(b *testenv.Browser) string {
	for _, c := range b.Cookies(s.url + "/") {
		if strings.HasSuffix(c.Name, "-flow") {
			return c.Name + "=" + c.Value
		}
	}
	return ""
}

// counted is the sum of a counter where a label has a value.
func (s *testSite) counted(tb testing.TB, name, label, value string) (sum float64) {
	tb.Helper()
	families, err := s.metrics.Gather()
	testenv.Check(tb, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if family.GetName() == name && l.GetName() == label && l.GetValue() == value {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}

// A provider is asked again, the browser leaves, and then the answer comes to nothing: operator
// and auditor read why, and the session goes on.
func TestAnAnswerThatNobodyWaitsForIsLoggedAndAudited(t *testing.T) {
	t.Parallel()
	s, b := reauthSite(t)
	s.due(t, b)
	records := s.audited(t)
	fault, asked, release := held()
	s.provider.Set(fault, testenv.Fault{Endpoint: testenv.Token, Status: 503})
	b.MaxHops = 0
	away := b.Open(s.url + "/admin").Header.Get("Location")
	v := pendingCallback{s, b, b.Open(away).Header.Get("Location")}
	v.leaves(t, asked)
	close(release)
	testenv.Eventually(t, "it is counted", func() bool {
		return s.counted(t, "sallyport_reauths_total", "result", "failed") == 1
	})
	all := records()
	if len(all) != 1 || all[0].Event != "reauth" || !strings.HasPrefix(all[0].User, "main:") ||
		all[0].Status != statusClientGone || !strings.Contains(all[0].Detail, "status 503") {
		t.Errorf("the audit stream has %+v", all)
	}
	if text := s.log.text(t); !strings.Contains(text, `"action":"reauth","error":"`) || s.sessionOf(b) == nil {
		t.Errorf("session %v, logged\n%s", s.sessionOf(b), text)
	}
}
