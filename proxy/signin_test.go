package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// sessionOf reads the session in a browser; nil if there is none.
func (s *testSite) sessionOf(b *testenv.Browser) *session.Session {
	var pairs []string
	for _, c := range b.Cookies(s.url + "/") {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	got, err := s.sessions.Read(strings.Join(pairs, "; "), s.routeHost)
	if err != nil {
		return nil
	}
	return &got
}

// begin opens a deep link and returns the state that came to a fixedLogin.
func (s *testSite) begin(tb testing.TB, b *testenv.Browser, path string) string {
	tb.Helper()
	page := b.Open(s.url + path)
	state := page.URL.Query().Get("state")
	if page.URL.Path != "/open/provider" || state == "" {
		tb.Fatalf("no sign-in was begun; ended at %s with %d\n%s", page.URL, page.Status, page.Body)
	}
	return state
}

func (s *testSite) callback(provider string, q url.Values) string {
	return s.url + prefix + "/callback/" + provider + "?" + q.Encode()
}

func TestP06_SignInEndsWhereItBegan(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		o       setup
		session string
		attrs   []string
	}{
		"http on loopback": {setup{SignIn: true}, "sallyport-dev-", []string{"HttpOnly", "SameSite=Lax", "Path=/"}},
		"https": {setup{SignIn: true, TLS: true}, "__Host-sallyport",
			[]string{"HttpOnly", "SameSite=Lax", "Path=/", "Secure"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestSite(t, tt.o)
			b := s.browser(t)
			const deep = "/reports/2026?team=blue&x=%2F;y"
			page := s.signIn(t, b, deep, "mira")
			if page.URL.String() != s.url+deep || page.Body != "ok" {
				t.Fatalf("ended at %s\n%s", page.URL, page.Body)
			}
			raw := s.app.Last(t)
			if testenv.Target(raw) != deep || !slices.Equal(testenv.HeaderLines(raw, "X-Forwarded-User"),
				[]string{"main:mira"}) ||
				!slices.Equal(testenv.HeaderLines(raw, "X-Forwarded-Org-Id"), []string{"main:acme"}) {
				t.Errorf("the app received\n%s", raw)
			}
			callback := page.Hops[len(page.Hops)-2]
			if callback.Status != http.StatusSeeOther || callback.Header.Get("Cache-Control") != "private, no-store" ||
				len(callback.SetCookie) != 1 {
				t.Errorf("the callback answered %d %v", callback.Status, callback.Header)
			}
			set := callback.Header.Get("Set-Cookie")
			for _, attr := range tt.attrs {
				if !strings.Contains(set+";", "; "+attr+";") {
					t.Errorf("%s lacks %s", set, attr)
				}
			}
			if age := callback.SetCookie[0].MaxAge; age < 43100 || age > 43200 {
				t.Errorf("Max-Age %d, want that of a session of 12 hours", age)
			}
			if !strings.HasPrefix(set, tt.session) || strings.Contains(set, "Domain") || len(set) > 1200 {
				t.Errorf("the session cookie is %s (%d bytes)", set, len(set))
			}
			if s.provider.Hits(testenv.Token) != 1 || len(b.Cookies(s.url)) != 2 {
				t.Errorf("%d token requests, cookies %v", s.provider.Hits(testenv.Token), b.Cookies(s.url))
			}
			if referer := page.Request.Get("Referer"); strings.Contains(referer, "code=") {
				t.Errorf("the code travels on: %s", referer)
			}
		})
	}
}

// A callback that another browser began, or that was used before, or that lacks or
// repeats a parameter, signs nobody in and sends nothing to the provider (RFC 9700
// §4.7; Envoy #29526, and CVE-2023-27496, a crash without a state).
func TestP06_ACallbackCountsOnceAndOnlyInItsBrowser(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice()}})
	other := newTestSite(t, setup{Login: fixedLogin{who: alice()}})
	good := func(b *testenv.Browser) url.Values {
		return url.Values{"code": {"c"}, "state": {s.begin(t, b, "/deep?x=1")}}
	}
	const unknown = "It came back to a browser that has no record of starting it."
	for name, tt := range map[string]struct {
		visit func(b *testenv.Browser) testenv.Page
		words string // of the page with the button; "" if the sign-in begins afresh
	}{
		"no state": {func(b *testenv.Browser) testenv.Page {
			good(b)
			return b.Open(s.callback("main", url.Values{"code": {"c"}}))
		}, unknown},
		"empty state": {func(b *testenv.Browser) testenv.Page {
			good(b)
			return b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {""}}))
		}, unknown},
		"made-up state": {func(b *testenv.Browser) testenv.Page {
			good(b)
			return b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {strings.Repeat("A", 200)}}))
		}, unknown},
		"state of another key": {func(b *testenv.Browser) testenv.Page {
			good(b)
			return b.Open(s.callback("main", url.Values{"code": {"c"},
				"state": {other.begin(t, other.browser(t), "/")}}))
		}, unknown},
		"huge state": {func(b *testenv.Browser) testenv.Page {
			good(b)
			return b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {strings.Repeat("A", 3000)}}))
		}, unknown},
		"a bit flipped": {func(b *testenv.Browser) testenv.Page {
			q := good(b)
			state := []byte(q.Get("state"))
			state[40] ^= 1
			q.Set("state", string(state))
			return b.Open(s.callback("main", q))
		}, unknown},
		"a browser without cookies": {func(b *testenv.Browser) testenv.Page {
			return b.Open(s.callback("main",
				good(s.browser(t))))
		}, unknown},
		"used before": {func(b *testenv.Browser) testenv.Page {
			q := good(b)
			if page := b.Open(s.callback("main", q)); page.URL.String() != s.url+"/deep?x=1" || page.Status != 200 {
				t.Errorf("the first time ends at %s", page.URL)
			}
			b.SetCookies(s.url, &http.Cookie{Name: strings.Split(s.mint(t, bob()), "=")[0], MaxAge: -1})
			return b.Open(s.callback("main", q))
		}, ""},
		"used before, twice": {func(b *testenv.Browser) testenv.Page {
			q := good(b)
			for range 2 {
				b.Open(s.callback("main", q))
				b.SetCookies(s.url, &http.Cookie{Name: strings.Split(s.mint(t, bob()), "=")[0], MaxAge: -1})
				used := q.Get("state")
				q.Set("state", b.Open(s.callback("main", q)).URL.Query().Get("state"))
				if q.Get("state") == "" {
					q.Set("state", used)
				}
			}
			b.Open(s.callback("main", q))
			b.SetCookies(s.url, &http.Cookie{Name: strings.Split(s.mint(t, bob()), "=")[0], MaxAge: -1})
			return b.Open(s.callback("main", q))
		}, "The address of a sign-in works once, and this one was used before."},
		"a browser with a flow of its own": {func(b *testenv.Browser) testenv.Page {
			good(b)
			return b.Open(s.callback("main", good(s.browser(t))))
		}, ""},
		"eleven minutes later": {func(b *testenv.Browser) testenv.Page {
			q := good(b)
			s.clock.Advance(11 * time.Minute)
			return b.Open(s.callback("main", q))
		}, ""},
		"eleven minutes later, twice": {func(b *testenv.Browser) testenv.Page {
			q := good(b)
			s.clock.Advance(11 * time.Minute)
			q.Set("state", b.Open(s.callback("main", q)).URL.Query().Get("state"))
			s.clock.Advance(11 * time.Minute)
			return b.Open(s.callback("main", q))
		}, "It took longer than ten minutes."},
		"another browser's, begun afresh": {func(b *testenv.Browser) testenv.Page {
			good(b)
			third := s.browser(t)
			good(third)
			q := good(s.browser(t))
			for range maxRestarts { // and so on, in turns
				q.Set("state", third.Open(s.callback("main", q)).URL.Query().Get("state"))
				b, third = third, b
			}
			return third.Open(s.callback("main", q))
		}, "It was begun in another browser, or in another tab at the same moment."},
	} {
		t.Run(name, func(t *testing.T) {
			b := s.browser(t)
			page := tt.visit(b)
			if got := s.sessionOf(b); got != nil {
				t.Errorf("signed in as %s", got.Identity.ID())
			}
			if tt.words == "" {
				if page.URL.Path != "/open/provider" || len(page.Hops) != 2 {
					t.Fatalf("ended at %s with %d\n%s", page.URL, page.Status, page.Body)
				}
				page = b.Open(s.callback("main", url.Values{"code": {"c"}, "state": page.URL.Query()["state"]}))
				if page.URL.String() != s.url+"/deep?x=1" || s.sessionOf(b) == nil {
					t.Errorf("begun afresh it ends at %s", page.URL)
				}
				return
			}
			id := page.Header.Get("X-Request-Id")
			for _, words := range []string{"Your sign-in was not finished", tt.words, "To be safe, nobody was signed " +
				"in.", id, `href="` + s.url + `/.sallyport/login`} {
				if page.Status != 400 || !strings.Contains(page.Body, words) {
					t.Errorf("%d: the page does not say %q:\n%s", page.Status, words, page.Body)
				}
			}
			if page.Header["Set-Cookie"] != nil {
				t.Errorf("a cookie was set: %v", page.Header["Set-Cookie"])
			}
			if strings.Contains(page.Body, "http-equiv") || strings.Contains(page.Body, "<script") {
				t.Error("the page goes on by itself")
			}
		})
	}
}

// A browser that lost its flow cookie is shown a button, which leads to the deep
// link as long as the state is good, and to nothing else.
func TestStartAgainLeadsToTheDeepLinkThoughTheFlowCookieIsLost(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice()}, Routes: []authz.Route{
		{Name: "app", Host: "127.0.0.1", Path: "/", Encoded: true, Access: authz.Access{Authenticated: true}},
		{Name: "open", Host: "127.0.0.1", Path: "/open", Access: authz.Access{Public: true}}}})
	const deep = "/deep/%2F/x?q=h%C3%B6he&r=\\"
	state := s.begin(t, s.browser(t), deep)
	callback := s.callback("main", url.Values{"code": {"c"}, "state": {state}})
	b := s.browser(t) // without the cookie
	page := b.Open(callback)
	if page.Status != 400 || page.Header["Set-Cookie"] != nil || len(page.Hops) > 1 || s.sessionOf(b) != nil {
		t.Fatalf("answered %d at %s, %v", page.Status, page.URL, page.Header)
	}
	page = b.Click(page, prefix+"/login?return_to="+url.QueryEscape(deep))
	page = b.Open(s.callback("main", url.Values{"code": {"c"}, "state": page.URL.Query()["state"]}))
	if page.URL.String() != s.url+deep || s.sessionOf(b) == nil {
		t.Errorf("the button leads to %s", page.URL)
	}
	// Somebody who is signed in sees no button, so a state without its cookie leads nowhere.
	a := s.get(t, strings.TrimPrefix(callback, s.url), navigate("Cookie: "+s.mint(t, alice()))...)
	if got := a.header.Get("Location"); got != s.url+"/" {
		t.Errorf("somebody else's callback leads to %q", got)
	}
	s.clock.Advance(11 * time.Minute)
	if page := s.browser(t).Open(callback); page.Status != 400 || strings.Contains(page.Body, "return_to") {
		t.Errorf("after eleven minutes: %d\n%s", page.Status, page.Body)
	}
	w := httptest.NewRecorder()
	h, err := s.sessions.Begin(w, httptest.NewRequest("GET", "/", nil),
		session.Flow{Purpose: "connect", Provider: "main", ReturnTo: "/deep"})
	if err != nil {
		t.Fatal(err)
	}
	if page := s.browser(t).Open(s.callback("main", url.Values{"code": {"c"}, "state": {h.State}})); page.Status != 400 || strings.Contains(page.Body, "return_to") {
		t.Errorf("for another purpose: %d\n%s", page.Status, page.Body)
	}
}

// What a browser asked for is what it is led back to, byte for byte.
func TestDeepLinksComeBackAsTheyWereAskedFor(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice()}, Routes: []authz.Route{
		{Name: "app", Host: "127.0.0.1", Path: "/", Encoded: true, Doubled: true,
			Access: authz.Access{Authenticated: true}}}})
	for _, deep := range []string{"/deep?x=\\", "/deep?x=a\\b&y=%5C", "/deep?q=h\u00f6he", "/deep?q=100%",
		"/deep/%2F/x", "/deep/%2F", "/deep/a%2Fb", "/deep//x", "/deep/h%F6he"} {
		begun := s.get(t, deep, navigate()...)
		for range 2 { // our own page, then the provider's
			if begun.status/100 != 3 {
				t.Fatalf("%q: %d", deep, begun.status)
			}
			u, err := url.Parse(begun.header.Get("Location"))
			if err != nil {
				t.Fatal(err)
			}
			if state := u.Query().Get("state"); state != "" {
				pair, _, _ := strings.Cut(begun.header.Get("Set-Cookie"), ";")
				back := s.get(t, prefix+"/callback/main?code=c&state="+state, navigate("Cookie: "+pair)...)
				if got := back.header.Get("Location"); got != s.url+deep {
					t.Errorf("%q comes back as %q", deep, got)
				}
				break
			}
			begun = s.get(t, u.RequestURI(), navigate()...)
		}
	}
}

func TestP06_AProgramNeverBeginsAFlowAfresh(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice()}})
	b := s.browser(t)
	s.begin(t, b, "/")
	state := s.begin(t, s.browser(t), "/")
	cookie := b.Cookies(s.url)[0]
	a := s.get(t, prefix+"/callback/main?code=c&state="+state, "Cookie: "+cookie.String(), "Sec-Fetch-Mode: cors")
	if a.status != 400 || a.header["Set-Cookie"] != nil || jsonOf(t,
		a.body)["request_id"] != a.header.Get("X-Request-Id") {
		t.Errorf("answered %d %v %s", a.status, a.header, a.body)
	}
}

// The states of a thousand sign-ins cannot be predicted and never repeat: Envoy's
// state was a timestamp (Envoy #35232, #36276).
func TestP06_StatesAreNeverTheSame(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{}})
	seen := map[string]bool{}
	var cookie string
	for range 1000 {
		lines := navigate()
		if cookie != "" {
			lines = navigate("Cookie: " + cookie)
		}
		a := s.get(t, prefix+"/login", lines...)
		cookie, _, _ = strings.Cut(a.header.Get("Set-Cookie"), ";")
		to, err := url.Parse(a.header.Get("Location"))
		testenv.Check(t, err)
		state := to.Query().Get("state")
		if len(state) < 100 || seen[state] || seen[state[:30]] {
			t.Fatalf("state %q", state)
		}
		seen[state], seen[state[:30]] = true, true
	}
}

func TestP06_ARepeatedCallbackChangesNothing(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true})
	b := s.browser(t)
	page := s.signIn(t, b, "/deep?x=1", "mira")
	callback := page.Hops[len(page.Hops)-2].URL.String()
	before := fmt.Sprint(b.Cookies(s.url))
	for range 3 {
		again := b.Open(callback)
		if again.URL.String() != s.url+"/deep?x=1" || again.Status != 200 || again.Hops[0].Header["Set-Cookie"] != nil {
			t.Errorf("ended at %s, set %v", again.URL, again.Hops[0].Header["Set-Cookie"])
		}
	}
	if after := fmt.Sprint(b.Cookies(s.url)); after != before || s.provider.Hits(testenv.Token) != 1 {
		t.Errorf("cookies went from %s to %s; %d token requests", before, after, s.provider.Hits(testenv.Token))
	}
}

// Login CSRF (RFC 9700 §4.7): the attacker begins to sign in, does not open the
// callback, and has the victim open it.
func TestP06_AnAttackersCallbackSignsNobodyIn(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true})
	stolen := func() string {
		attacker := s.browser(t)
		page := attacker.Open(s.url + "/attackers/path")
		attacker.MaxHops = 0
		to := attacker.SignIn(page, "sam").Header.Get("Location")
		if !strings.HasPrefix(to, s.url+prefix+"/callback/main?") {
			t.Fatalf("the provider leads to %q", to)
		}
		return to
	}
	t.Run("a fresh browser", func(t *testing.T) {
		victim := s.browser(t)
		if page := victim.Open(stolen()); page.Status != 400 || s.sessionOf(victim) != nil ||
			len(victim.Cookies(s.url)) != 0 {
			t.Errorf("%d, cookies %v", page.Status, victim.Cookies(s.url))
		}
	})
	t.Run("a browser that is signing in", func(t *testing.T) {
		victim := s.browser(t)
		victim.Open(s.url + "/")
		page := victim.Open(stolen())
		if s.sessionOf(victim) != nil || !strings.HasPrefix(page.URL.String(), s.provider.URL) {
			t.Fatalf("ended at %s", page.URL)
		}
		victim.SignIn(page, "mira") // this sign-in is the victim's own
		if got := s.sessionOf(victim); got == nil || got.Identity.Subject != "mira" {
			t.Errorf("signed in: %v", got)
		}
	})
	t.Run("a browser that is signed in", func(t *testing.T) {
		victim := s.browser(t)
		s.signIn(t, victim, "/", "mira")
		before := fmt.Sprint(victim.Cookies(s.url))
		victim.Open(stolen())
		if got := s.sessionOf(victim); got == nil || got.Identity.Subject != "mira" ||
			fmt.Sprint(victim.Cookies(s.url)) != before {
			t.Errorf("signed in: %v", got)
		}
	})
	if n := s.provider.Hits(testenv.Token); n != 2 {
		t.Errorf("%d codes were redeemed, want mira's two", n)
	}
}

// RFC 9700 §4.4: one provider's answer at another's callback.
func TestP06_ProvidersCannotBeMixedUp(t *testing.T) {
	t.Parallel()
	redeemed := 0
	count := func(context.Context) error { redeemed++; return nil }
	s := newTestSite(t, setup{Login: fixedLogin{who: alice(), redeem: count},
		Second: &Provider{ID: "other", Name: "Other Street", Login: fixedLogin{who: bob(), redeem: count}}})
	for _, tt := range []struct{ begun, answered string }{{"main", "other"}, {"other", "main"}, {"main", "nobody"},
		{"main", ""}, {"main", "main/other"}} {
		b := s.browser(t)
		chooser := b.Open(s.url + "/deep")
		if !strings.Contains(chooser.Body, "Sign in with <bdi>Main Street</bdi>") ||
			!strings.Contains(chooser.Body, "Sign in with <bdi>Other Street</bdi>") {
			t.Fatalf("the chooser is\n%s", chooser.Body)
		}
		state := b.Choose(chooser, "provider", tt.begun).URL.Query().Get("state")
		page := b.Open(s.callback(tt.answered, url.Values{"code": {"c"}, "state": {state}}))
		if page.Status != 400 || s.sessionOf(b) != nil || redeemed != 0 ||
			!strings.Contains(page.Body, "The answer came from another provider than the one it was begun with.") {
			t.Errorf("%v: %d, redeemed %d\n%s", tt, page.Status, redeemed, page.Body)
		}
	}
	b := s.browser(t)
	state := b.Choose(b.Open(s.url+"/deep"), "provider", "other").URL.Query().Get("state")
	if page := b.Open(s.callback("other", url.Values{"code": {"c"}, "state": {state}})); page.URL.Path != "/deep" ||
		s.sessionOf(b).Identity.Subject != "bob-1" {
		t.Errorf("ended at %s", page.URL)
	}
	if page := b.Open(s.url + prefix + "/login?provider=nobody"); page.URL.Path != "/" {
		t.Errorf("signed in already, and led to %s", page.URL)
	}
	if page := s.browser(t).Open(s.url + prefix + "/login?provider=nobody"); !strings.Contains(page.Body,
		"Sign in with <bdi>Main Street</bdi>") {
		t.Errorf("an unknown provider: %d\n%s", page.Status, page.Body)
	}
}

// CVE-2023-27496, RFC 6749 §3.1: every subset, empty and twice.
func TestP06_OddCallbackParametersSignNobodyIn(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true})
	b := s.browser(t)
	names := []string{"code", "state", "error", "iss"}
	for n := range 4 * 4 * 4 * 4 {
		page := b.Open(s.url + "/deep")
		good := map[string]string{"code": "guess", "state": page.URL.Query().Get("state"), "error": "access_denied",
			"iss": s.provider.URL}
		q, n := url.Values{}, n
		for _, name := range names {
			switch n % 4 {
			case 1:
				q[name] = []string{good[name]}
			case 2:
				q[name] = []string{""}
			case 3:
				q[name] = []string{good[name], good[name]}
			}
			n /= 4
		}
		page = b.Open(s.callback("main", q))
		if s.sessionOf(b) != nil || page.Header["Set-Cookie"] != nil {
			t.Fatalf("%v: signed in, or a cookie was set: %v", q, page.Header)
		}
		if (page.Status != 400 && page.Status != 403 && page.Status != 502) || len(page.Hops) != 1 ||
			!strings.Contains(page.Body, page.Header.Get("X-Request-Id")) {
			t.Errorf("%v: answered %d after %d hops\n%s", q, page.Status, len(page.Hops), page.Body)
		}
		line := s.log.event(t, page.Header.Get("X-Request-Id"))
		if line["error"] == nil {
			t.Errorf("%v: logged without a reason: %v", q, line)
		}
	}
	for _, query := range []string{"", "?", "?&", "?=", "?;", "?%zz", "?code", "?state=a;b", "?code=%00&state=%0a",
		"?" + strings.Repeat("a=b&", 1000)} {
		if page := b.Open(s.url + prefix + "/callback/main" + query); page.Status != 400 || s.sessionOf(b) != nil {
			t.Errorf("%.20q: answered %d", query, page.Status)
		}
	}
	if got := s.provider.Requests(testenv.Token); len(got) != 1 { // the one subset that is a whole callback: code, state and iss
		t.Errorf("%d codes were redeemed", len(got))
	}
}

// Thirty tabs of one browser race for the first cookie, and a cookie for each
// would end in headers that no server accepts (oauth2-proxy #2615).
func TestP06_ThirtyTabsSignInAtOnce(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true})
	b := s.browser(t)
	var tabs sync.WaitGroup
	var stopped atomic.Int32
	start := make(chan struct{})
	for i := range 30 {
		tabs.Go(func() {
			<-start
			deep := fmt.Sprintf("/tab/%d?n=%d", i, i)
			page := b.Open(s.url + deep)
			for range 2 * (1 + maxRestarts) {
				switch {
				case strings.HasPrefix(page.URL.String(),
					s.provider.URL): // a tab that lost the race is asked once more
					page = b.SignIn(page, "mira")
				case page.Status == http.StatusBadRequest: // and if it loses again and again, there is a button
					stopped.Add(1)
					page = b.Click(page, prefix+"/login?return_to="+url.QueryEscape(deep))
				}
			}
			if page.URL.String() != s.url+deep || page.Status != 200 {
				t.Errorf("tab %d ended at %s with %d\n%s", i, page.URL, page.Status, page.Body)
			}
		})
	}
	close(start)
	tabs.Wait()
	if got := b.Cookies(s.url); len(got) != 2 {
		t.Errorf("thirty tabs left %d cookies", len(got))
	}
	if n := stopped.Load(); n > 2 { // one tab, in one of hundreds of runs
		t.Errorf("%d of thirty tabs needed the button", n)
	}
}

// Session fixation: a session id that was planted before the sign-in is not
// valid after it (zitadel CVE-2024-28197).
func TestP06_TheSessionIsFreshAtEverySignIn(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice()}})
	b := s.browser(t)
	ended := s.sessions.Start(bob())
	_ = s.sessions.SignOut(context.Background(), headerWriter{}, ended)
	name, value, _ := strings.Cut(s.seal(t, ended), "=")
	ids := map[string]bool{ended.ID: true}
	b.SetCookies(s.url, &http.Cookie{Name: name, Value: value, Path: "/"})
	for range 3 {
		state := s.begin(t, b, "/")
		b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {state}}))
		got := s.sessionOf(b)
		if got == nil || ids[got.ID] || got.Identity.Subject != "alice-1" {
			t.Fatalf("signed in: %+v", got)
		}
		ids[got.ID] = true
		account := b.Open(s.url + prefix + "/account")
		b.Submit(account, "", "")
	}
}

// CVE-2026-34454: to sign in as somebody else, the first one must be gone; and a
// link of somebody else's must not be able to do that. Browsers are not asked
// where the link was: through a service worker, Firefox and WebKit call every link
// one of the same origin, and WebKit sends the worker's address as the Referer.
func TestP06_SwitchingEndsTheFirstSession(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice()}})
	first, other := s.sessions.Start(bob()), s.sessions.Start(bob())
	cookie := "Cookie: " + s.seal(t, first)
	link := func(value string) string { return prefix + "/login?switch=" + value + "&return_to=%2Fdeep" }
	for name, value := range map[string]string{
		"a value that all know": "1", "none": "", "another session's": switchValue(&other),
		"of no session": switchValue(&session.Session{}),
		"in capitals":   strings.ToUpper(switchValue(&first)), "a part": switchValue(&first)[:31],
		"two": switchValue(&other) + "&switch=" + switchValue(&first),
	} {
		for _, lines := range [][]string{
			navigate(cookie),
			{cookie, "Accept: text/html", "Referer: " + s.url + "/admin"},
			{cookie, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: cross-site", "Referer: " +
				"https://evil.example/"},
			{cookie, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: same-origin",
				"Referer: " + s.url + "/admin"},
			{cookie, "Sec-Fetch-Mode: same-origin", "Sec-Fetch-Dest: empty", "Sec-Fetch-Site: same-origin",
				"Accept: text/html"}, // Firefox
			{cookie, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: empty", "Sec-Fetch-Site: same-origin",
				"Accept: text/html", "Referer: " + s.url + "/sw.js"}, // WebKit
		} {
			if a := s.get(t, link(value), lines...); a.status != 303 || a.header.Get("Location") != s.url+"/deep" ||
				a.header["Set-Cookie"] != nil {
				t.Errorf("%s, %q: %d to %q, set %q", name, lines[1:], a.status, a.header.Get("Location"),
					a.header["Set-Cookie"])
			}
		}
	}
	if a := s.get(t, "/x", cookie); a.status != 200 {
		t.Fatalf("bob is gone already: %d", a.status)
	}
	ours := link(switchValue(&first))
	if a := s.get(t, ours, cookie, "Sec-Fetch-Mode: cors", "Sec-Fetch-Site: same-origin"); a.status != 401 {
		t.Errorf("a script: %d", a.status)
	}
	a := s.get(t, ours, cookie, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: same-origin")
	set := fmt.Sprint(a.header["Set-Cookie"])
	if a.status != 302 || !strings.Contains(a.header.Get("Location"), "prompt=select_account") ||
		!strings.Contains(set, "=; Path=/; Max-Age=0") {
		t.Errorf("%d to %q, set %s", a.status, a.header.Get("Location"), set)
	}
	if a := s.get(t, "/x", cookie); a.status != 401 { // also where the browser kept the cookie
		t.Errorf("bob's cookie still works: %d", a.status)
	}
	if line := s.log.event(t, a.header.Get("X-Request-Id")); line["user"] != "main:bob-1" {
		t.Errorf("logged %v", line)
	}
	second := "Cookie: " + s.seal(t, other)
	if a := s.get(t, link(switchValue(&other)), second, "Sec-Fetch-Mode: same-origin", "Sec-Fetch-Dest: empty", "Accept: text/html"); a.status != 302 {
		t.Errorf("our own link, through a service worker: %d", a.status)
	}
}

// Nothing that a link says gets into the request to the provider: its scopes,
// prompt, client and redirect address come from the configuration only.
func TestP06_LinksCannotBendTheRequestToTheProvider(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true})
	bend := "&scope=admin&prompt=none&client_id=evil&redirect_uri=https%3A%2F%2Fevil.example&response_type=token&login_hint=x&max_age=0&acr_values=0&state=s&nonce=n&request=x&code_challenge=x&claims=x&issuer=x"
	a := s.get(t, prefix+"/login?return_to=%2Fdeep"+bend, navigate()...)
	to, err := url.Parse(a.header.Get("Location"))
	testenv.Check(t, err)
	q := to.Query()
	want := url.Values{"client_id": {devClient}, "redirect_uri": {s.url + prefix + "/callback/main"},
		"response_type": {"code"},
		"scope":         {"openid profile email groups org"}, "code_challenge_method": {"S256"}}
	for _, secret := range []string{"state", "nonce", "code_challenge"} {
		if len(q[secret]) != 1 || len(q.Get(secret)) < 43 {
			t.Errorf("%s is %q", secret, q[secret])
		}
		q.Del(secret)
	}
	if a.status != 302 || q.Encode() != want.Encode() || !strings.HasPrefix(to.String(),
		s.provider.URL+demo.AuthorizePath+"?") {
		t.Errorf("%d to %s", a.status, to)
	}
}

// Open redirects (CVE-2020-5233, CVE-2020-11053, CVE-2019-14857, CVE-2026-28512
// and others): none of these addresses leads a browser to another site.
func TestP05_NothingReturnsElsewhere(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice()}})
	cookie := s.mint(t, alice())
	hostile := []string{
		"https://evil.example", "http://evil.example/", "//evil.example", "///evil.example", "////evil.example",
		"/\\evil.example", "\\\\evil.example", "\\/evil.example",
		"/\\/evil.example", "/\\\\evil.example", "/%5cevil.example", "/%5C%5Cevil.example", "/%2fevil.example",
		"/%2F%2Fevil.example", "/%09/evil.example", "/\t/evil.example",
		"/%0a/evil.example", "/%0d%0a/evil.example", "/\n/evil.example", "/\r\n/evil.example", "/ /evil.example",
		"/%20//evil.example", "/.//evil.example", "/./evil.example//",
		"/..//evil.example", "/../evil.example", "/a/../..//evil.example", "/a/..//evil.example",
		"/%2e%2e//evil.example", "/;/evil.example//", "/;@evil.example", "//;@evil.example",
		"@evil.example", ".evil.example", ":80@evil.example", s.url + "@evil.example", s.url + ".evil.example",
		s.url + "\\@evil.example", s.url + "//evil.example", s.url + ":80@evil.example/",
		"https://evil.example#" + s.url, "https://evil.example?" + s.url, "https://evil.example\\" + s.host,
		"http:evil.example", "https:/evil.example", "http:///evil.example",
		"javascript:alert(1)", "JaVaScRiPt:alert(1)", " javascript:alert(1)", "data:text/html,x", "vbscript:x",
		"file:///etc/passwd", "blob:x", "/javascript:alert(1)//..//",
		"/\u2028/evil.example", "/\u3000/evil.example", "／／evil.example", "/／evil.example", "\u0000//evil.example",
		"/%00/evil.example", "/x\x7f", "/%ff", "/é",
		"?//evil.example", "#//evil.example", "", " ", "x", "evil.example", "/" + strings.Repeat("x", 3000), "/%",
		"/%zz", "/a//b", "/a/./b", "/a/..;/b",
		prefix + "/logout", prefix + "/login", prefix + "/callback/main?code=x", prefix, prefix + "/",
		"/%2esallyport/logout", "/.sallyport%2flogout", s.url + prefix + "/logout",
		"/x%0d%0aSet-Cookie:%20a=b", "/x\r\nSet-Cookie: a=b", "http://" + "127.0.0.1" + "/x", "//" + s.host + "/x",
		"https://" + s.host + "/x",
	}
	legal := map[string]string{"/": "/", "/x": "/x", "/x?y=//z#w": "/x?y=//z#w", s.url + "/x?y": "/x?y",
		prefix + "/account": prefix + "/account", "/a/b/": "/a/b/",
		"/%C3%A9?%20": "/%C3%A9?%20", "/.sallyportX": "/.sallyportX"}
	inside := func(t *testing.T, raw, location string) {
		t.Helper()
		rest, ok := strings.CutPrefix(location, s.url+"/")
		address, _, _ := strings.Cut(location, "?")
		odd := strings.ContainsFunc(location, func(r rune) bool { return r <= ' ' || r == 0x7f }) ||
			strings.Contains(address, `\`)
		if !ok || odd || strings.HasPrefix(rest, "/") || (strings.HasPrefix(rest, prefix[1:]) &&
			rest != prefix[1:]+"/account" && raw != "/.sallyportX") {
			t.Errorf("%q leads to %q", raw, location)
		}
		if want, isLegal := legal[raw]; isLegal && location != s.url+want {
			t.Errorf("%q leads to %q, want %q", raw, location, want)
		}
	}
	for _, raw := range slices.AppendSeq(hostile, maps.Keys(legal)) {
		login := prefix + "/login?return_to=" + url.QueryEscape(raw)
		if len(login) > 8000 {
			continue
		}
		a := s.get(t, login, navigate("Cookie: "+cookie, "X-Forwarded-Host: evil.example", "X-Forwarded-Prefix: "+
			"//evil.example", "X-Forwarded-Proto: javascript")...)
		if a.status != 303 {
			t.Errorf("%q: answered %d", raw, a.status)
		}
		inside(t, raw, a.header.Get("Location"))
		b := s.browser(t)
		page := b.Open(s.url + login)
		b.MaxHops = 0
		page = b.Open(s.callback("main", url.Values{"code": {"c"}, "state": page.URL.Query()["state"]}))
		inside(t, raw, page.Header.Get("Location"))
	}
	for _, name := range []string{"rd", "redirect", "redirect_uri", "next", "url", "target_link_uri",
		"post_logout_redirect_uri", "login_uri"} {
		a := s.get(t, prefix+"/login?"+name+"=%2Felsewhere", navigate("Cookie: "+cookie)...)
		if a.header.Get("Location") != s.url+"/" {
			t.Errorf("%s leads to %q", name, a.header.Get("Location"))
		}
	}
	a := s.ask(t, "POST", prefix+"/logout?return_to=https%3A%2F%2Fevil.example&post_logout_redirect_uri=https%3A%2F%2Fevil.example", "", "Cookie: "+cookie)
	if a.header.Get("Location") != s.url+prefix+"/logout?provider=main" {
		t.Errorf("sign-out leads to %q", a.header.Get("Location"))
	}
}

// bentJar is a browser's connection that does something to the session cookie.
type bentJar struct {
	next http.RoundTripper
	set  func(name, value string) string // of Set-Cookie: the value kept, or "" for none
	send func(name, value string) string // of Cookie: the pairs sent instead
	name string
}

func (b bentJar) RoundTrip(r *http.Request) (*http.Response, error) {
	if c, err := r.Cookie(b.name); err == nil && b.send != nil {
		r = r.Clone(r.Context())
		r.Header.Set("Cookie", r.Header.Get("Cookie")+"; "+b.send(c.Name, c.Value))
	}
	res, err := b.next.RoundTrip(r)
	if err != nil || b.set == nil {
		return res, err
	}
	for i, line := range res.Header["Set-Cookie"] {
		pair, attrs, _ := strings.Cut(line, ";")
		if name, value, _ := strings.Cut(pair, "="); name == b.name {
			res.Header["Set-Cookie"][i] = name + "=" + b.set(name, value) + ";" + attrs
		}
	}
	return res, nil
}

// A redirect loop ends in a diagnosis, within four rounds, and can be tried again.
func TestALoopEndsInAPageThatNamesItsCause(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{TLS: true, Login: fixedLogin{who: alice(), url: "/.sallyport/callback/main?code=c"}})
	old := s.sessions.Start(alice())
	old.SignedIn, old.Seen = old.SignedIn.Add(-13*time.Hour), old.Seen.Add(-13*time.Hour)
	_, expired, _ := strings.Cut(s.seal(t, old), "=")
	copied := newTestSite(t, setup{TLS: true, Public: s.url, Key: s.key, Keep: []string{"admins"}})
	_, outdated, _ := strings.Cut(copied.mint(t, alice()), "=")
	for name, tt := range map[string]struct {
		jar   bentJar
		words []string
	}{
		"the browser drops it": {bentJar{set: func(_, _ string) string { return "" }},
			[]string{"The browser did not keep the session cookie. It may block cookies, or a proxy in between may " +
				"remove them.",
				"The page may be open over plain http: the cookie is only kept over https."}},
		"another copy's key": {bentJar{set: func(_, v string) string { return v[:30] + "AAAA" + v[34:] }},
			[]string{"The session cookie was made with a key this server does not have."}},
		"two cookies": {bentJar{send: func(n, _ string) string { return n + "=planted" }},
			[]string{"The browser sends two session cookies."}},
		"over at once": {bentJar{set: func(_, _ string) string { return expired }},
			[]string{"The session was over as soon as it began: the clock of this server, or session.idle_timeout " +
				"and session.absolute_timeout, may be wrong."}},
		"another copy's groups": {bentJar{set: func(_, _ string) string { return outdated }},
			[]string{"The session was begun where other groups are kept. If several copies of this server run, they " +
				"must share groups.keep and the rules of their routes."}},
		"ended at once": {bentJar{set: func(_, v string) string {
			got, err := s.sessions.Read("__Host-sallyport="+v, s.routeHost)
			testenv.Check(t, err)
			_ = s.sessions.SignOut(context.Background(), headerWriter{}, got)
			return v
		}}, []string{"The session was ended right after it began."}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.jar.next, tt.jar.name = s.transport, "__Host-sallyport"
			b := testenv.NewBrowser(t, tt.jar)
			b.MaxHops = 40
			page := b.Open(s.url + "/deep?x=1")
			for round := range 2 {
				rounds := 0
				for _, hop := range page.Hops {
					if strings.HasSuffix(hop.URL.Path, "/callback/main") {
						rounds++
					}
				}
				if page.Status != 400 || rounds < 2 || rounds > 4 {
					t.Fatalf("ended at %s with %d after %d rounds\n%s", page.URL, page.Status, rounds, page.Body)
				}
				for _, words := range append(tt.words, "Signing in does not stick", s.url,
					page.Header.Get("X-Request-Id")) {
					if !strings.Contains(page.Body, words) {
						t.Errorf("round %d: the page does not say %q:\n%s", round, words, page.Body)
					}
				}
				if line := s.log.event(t, page.Header.Get("X-Request-Id")); !strings.HasPrefix(fmt.Sprint(line["error"]), "sign-in loop: ") {
					t.Errorf("logged %v", line)
				}
				page = b.Click(page, prefix+"/login?return_to=%2Fdeep%3Fx%3D1") // "Try once more"
			}
		})
	}
}

func TestALoopIsForgottenAfterAMinute(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice()}})
	b := s.browser(t)
	for i := range 12 {
		state := s.begin(t, b, "/deep") // fails on the loop's page
		b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {state}}))
		b.SetCookies(s.url, &http.Cookie{Name: strings.Split(s.mint(t, bob()), "=")[0], MaxAge: -1})
		if i%2 == 1 {
			s.clock.Advance(61 * time.Second)
		}
	}
}

// Who tries the demo signs in as one and the other within a minute.
func TestSigningInAndOutIsNoLoop(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice()}})
	b := s.browser(t)
	for range 8 {
		state := s.begin(t, b, "/deep")
		b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {state}}))
		b.Submit(b.Open(s.url+prefix+"/account"), "", "")
		if s.sessionOf(b) != nil {
			t.Fatal("still signed in")
		}
	}
}

// A slow provider must not fill the memory with people who wait for it.
func TestP17_SignInsThatWaitAreBounded(t *testing.T) {
	t.Parallel()
	waiting, release := make(chan struct{}), make(chan struct{})
	s := newTestSite(t, setup{Flows: 1, Login: fixedLogin{who: alice(), redeem: func(context.Context) error {
		waiting <- struct{}{}
		<-release
		return nil
	}}})
	slow, quick := s.browser(t), s.browser(t)
	state := s.begin(t, slow, "/deep")
	var done sync.WaitGroup
	done.Go(func() {
		if page := slow.Open(s.callback("main", url.Values{"code": {"c"}, "state": {state}})); page.URL.Path != "/deep" {
			t.Errorf("the slow one ended at %s", page.URL)
		}
	})
	<-waiting
	page := quick.Open(s.url + "/deep")
	if page.Status != 503 || page.Header.Get("Retry-After") != "5" || !strings.Contains(page.Body, "Too many people "+
		"are signing in") {
		t.Errorf("%d, Retry-After %q\n%s", page.Status, page.Header.Get("Retry-After"), page.Body)
	}
	if a := s.get(t, "/x", "Cookie: "+s.mint(t, bob())); a.status != 200 {
		t.Errorf("somebody who is signed in gets %d", a.status)
	}
	close(release)
	done.Wait()
	s.begin(t, quick, "/deep")
}

// P8: nothing that proxy knows of a provider can hold a token. The interface is
// the proof; this keeps it so.
func TestP08_TheLoginInterfaceHandsOutAnIdentityAndNothingElse(t *testing.T) {
	var l LoginProvider = fixedLogin{}
	var _ interface {
		AuthURL(context.Context, identity.Handshake, identity.AuthParams) (string, error)
		Redeem(context.Context, url.Values, identity.Handshake, identity.AuthParams) (identity.Identity, error)
	} = l
}

// A provider that does not know select_account is asked with login instead, once.
func TestSwitchingWorksAtProvidersThatDoNotKnowSelectAccount(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice(),
		err: &identity.SignInError{Failure: identity.Misconfigured, Err: errors.New("refused")}}})
	b := s.browser(t)
	page := b.Open(s.url + prefix + "/login?switch=1&return_to=%2Fdeep")
	if got := page.URL.Query().Get("prompt"); got != "select_account" {
		t.Fatalf("asked with prompt %q", got)
	}
	refuse := func(page testenv.Page) testenv.Page {
		return b.Open(s.callback("main", url.Values{"error": {"invalid_request"}, "state": page.URL.Query()["state"]}))
	}
	page = refuse(page)
	if got := page.URL.Query().Get("prompt"); got != "login" || page.URL.Path != "/open/provider" {
		t.Fatalf("after the refusal: %s", page.URL)
	}
	if page = refuse(page); page.Status != 502 || len(page.Hops) != 1 {
		t.Errorf("refused again: %d after %d hops", page.Status, len(page.Hops))
	}
	page = refuse(b.Open(s.url + prefix + "/login")) // not a switch: nothing to try
	if page.Status != 502 || len(page.Hops) != 1 {
		t.Errorf("refused without a switch: %d after %d hops", page.Status, len(page.Hops))
	}
}

// Which of two states would count? Neither (RFC 6749 §3.1).
func TestP06_ACallbackWithTwoStatesIsRefused(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice()}})
	b := s.browser(t)
	state := s.begin(t, b, "/deep")
	if page := b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {state, state}})); page.Status != 400 ||
		s.sessionOf(b) != nil {
		t.Errorf("answered %d", page.Status)
	}
}
