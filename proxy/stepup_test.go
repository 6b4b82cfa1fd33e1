package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
)

// stepUpRoutes: one asks for a sign-in of the last quarter of an hour, one for certain
// means, one for both and for admins.
func stepUpRoutes(host string) []authz.Route {
	everybody := authz.Access{Authenticated: true}
	return append(usualRoutes(host),
		authz.Route{Name: "vault", Host: host, Path: "/vault", Access: everybody,
			Proof: identity.Proof{MaxAge: 15 * time.Minute}, WebSocket: authz.WebSocket{Allowed: true}},
		authz.Route{Name: "mfa", Host: host, Path: "/mfa", Access: everybody,
			Proof: identity.Proof{ACR: []string{"mfa", "phr"}}},
		authz.Route{Name: "both", Host: host, Path: "/both",
			Access: authz.Access{Rules: []authz.Rule{{Groups: []string{"admins"}}}},
			Proof:  identity.Proof{MaxAge: time.Hour, ACR: []string{"mfa"}}})
}

// stepUpSite is a site with these routes, at which jonas signed in 17 minutes ago.
func stepUpSite(t *testing.T, change ...func(*setup)) (*testSite, *testenv.Browser) {
	t.Helper()
	o := setup{SignIn: true, Public: "http://app.localhost"}
	o.Routes = stepUpRoutes("app.localhost")
	for _, c := range change {
		c(&o)
	}
	s := newHosts(t, o)
	b := s.browser(t)
	if page := s.signIn(t, b, "/", "jonas"); page.Status != 200 {
		t.Fatalf("the sign-in ends with %d\n%s", page.Status, page.Body)
	}
	s.clock.Advance(17 * time.Minute)
	return s, b
}

// askedFor is the authorization request that a page led to.
func askedFor(t *testing.T, s *testSite, page testenv.Page) url.Values {
	t.Helper()
	if !strings.HasPrefix(page.URL.String(), s.provider.URL) {
		t.Fatalf("ended at %s with %d\n%s", page.URL, page.Status, page.Body)
	}
	return page.URL.Query()
}

// The session stays what it is, and what the provider said of the new sign-in counts for
// the route until it is too old again. A copy of the cookie of before does not get it.
func TestP01_ARouteWithMaxAgeIsForRecentSignIns(t *testing.T) {
	t.Parallel()
	s, b := stepUpSite(t)
	copied, before := s.cookieOf(t, b), s.sessionOf(b)
	reached := len(s.app.Requests())
	page := b.Open(s.url + "/vault/deep?q=1%2F2")
	q := askedFor(t, s, page)
	if q.Get("max_age") != "900" || q.Has("acr_values") || q.Has("prompt") || q.Get("login_hint") != "jonas@acme.example" {
		t.Errorf("asked with %v", q)
	}
	if n := len(s.app.Requests()) - reached; n != 0 {
		t.Errorf("%d requests reached the app before that", n)
	}
	if page := b.Open(s.url + "/"); page.Status != 200 || len(page.Hops) != 1 {
		t.Errorf("another route meanwhile: %d after %d hops", page.Status, len(page.Hops))
	}
	page = b.SignIn(page, "jonas")
	if page.Status != 200 || page.URL.String() != s.url+"/vault/deep?q=1%2F2" {
		t.Fatalf("ended at %s with %d\n%s", page.URL, page.Status, page.Body)
	}
	after := s.sessionOf(b)
	if after == nil || after.Root != before.Root || after.ID != before.ID || !after.Expires.Equal(before.Expires) ||
		!after.Identity.AuthTime.After(before.Identity.AuthTime) {
		t.Errorf("the session is %+v, and was %+v", after, before)
	}
	if a := s.get(t, "/x", copied); a.status != 200 {
		t.Errorf("a copy of the old cookie, elsewhere: %d", a.status)
	}
	if a := s.get(t, "/vault", copied); a.status != 401 {
		t.Errorf("a copy of the old cookie: %d", a.status)
	}
	for range 5 {
		if page := b.Open(s.url + "/vault"); page.Status != 200 || len(page.Hops) != 1 {
			t.Errorf("within the time: %d after %d hops", page.Status, len(page.Hops))
		}
		s.clock.Advance(3 * time.Minute)
	}
	s.clock.Advance(2 * time.Minute)
	askedFor(t, s, b.Open(s.url+"/vault"))
	if got := s.counted(t, "sallyport_step_ups_total", "result", "met"); got != 1 {
		t.Errorf("counted %v", got)
	}
}

// Who signs in because of such a route is asked for what it wants at once, and goes to
// the provider once.
func TestWhoSignsInForSuchARouteSignsInOnce(t *testing.T) {
	t.Parallel()
	s, _ := stepUpSite(t)
	b := s.browser(t)
	s.provider.Set(testenv.Fault{Endpoint: testenv.Token, Claims: testenv.With("acr", "mfa")})
	page := b.Open(s.url + "/both/x")
	if q := askedFor(t, s, page); q.Get("max_age") != "3600" || q.Get("acr_values") != "mfa" {
		t.Errorf("asked with %v", q)
	}
	if page = b.SignIn(page, "jonas"); page.Status != 200 || page.URL.String() != s.url+"/both/x" {
		t.Errorf("ended at %s with %d\n%s", page.URL, page.Status, page.Body)
	}
}

// Nobody is asked to prove anything for a route whose rules refuse them.
func TestWhoHasNoAccessIsNotAskedToSignInAgain(t *testing.T) {
	t.Parallel()
	s, _ := stepUpSite(t)
	cookie := "Cookie: " + s.mint(t, bob())
	if a := s.get(t, "/both", navigate(cookie)...); a.status != 403 {
		t.Errorf("a page: %d %v", a.status, a.header)
	}
	// The link of the page, or one on another site, leads to the page, which says so.
	if a := s.get(t, prefix+"/login?return_to=%2Fboth", navigate(cookie)...); a.status != 303 ||
		a.header.Get("Location") != s.url+"/both" {
		t.Errorf("a link: %d %v", a.status, a.header)
	}
}

// Whatever else the provider answers: the app is not reached, the session is as before,
// and nothing begins by itself.
func TestP01_AnAnswerThatProvesNothingOpensNothing(t *testing.T) {
	t.Parallel()
	claim := func(name string, value any) testenv.Fault {
		return testenv.Fault{Endpoint: testenv.Token, Claims: testenv.With(name, value)}
	}
	without := func(name string) testenv.Fault {
		return testenv.Fault{Endpoint: testenv.Token, Claims: testenv.Without(name)}
	}
	for name, tt := range map[string]struct {
		path   string // "": /vault
		code   string // the error it answers with
		fault  testenv.Fault
		ago    time.Duration // when it says that they signed in, if not 0
		person string        // who signs in; "": jonas
		status int           // 0: 403
		says   string
		result string
	}{
		"the sign-in of before": {ago: 17 * time.Minute, result: "unmet",
			says: "at most 15 minutes ago, and Main Street says that yours was 17 minutes ago"},
		"one of last year": {ago: 400*24*time.Hour + time.Minute, result: "unmet", says: "400 days ago"},
		"1970":             {fault: claim("auth_time", 0), result: "unmet", says: "ago"},
		"tomorrow":         {ago: -25*time.Hour - 30*time.Minute, result: "unmet", says: "will be in 25 hours"},
		"no auth_time":     {fault: without("auth_time"), result: "unmet", says: "has to send auth_time"},
		"auth_time null":   {fault: claim("auth_time", nil), result: "unmet", says: "does not tell when"},
		"auth_time a text": {fault: claim("auth_time", "1790000000"), result: "unmet", says: "does not tell when"},
		"auth_time huge":   {fault: claim("auth_time", 1e300), result: "unmet", says: "does not tell when"},
		"somebody else":    {person: "mira", result: "other_person", says: "You signed in as somebody else"},
		"cancelled":        {code: "access_denied", result: "denied", says: "You are still signed in"},
		"no page there":    {code: "login_required", result: "denied", says: "cancelled or refused there"},
		"cannot":           {code: "unmet_authentication_requirements", result: "denied", says: "You did not sign in again"},
		"its own fault":    {code: "server_error", result: "failed", status: 503, says: "not possible right now"},
		"a strange word":   {code: "x_strange", result: "failed", status: 502, says: "Try again"},
		"no token": {fault: testenv.Fault{Endpoint: testenv.Token, Status: 500}, result: "failed", status: 503,
			says: "not answering"},
		"a forged token": {fault: testenv.Fault{Endpoint: testenv.Token, Resign: testenv.SignedByStranger},
			result: "failed", status: 502, says: "could not be trusted"},
		"it breaks off": {fault: testenv.Fault{Endpoint: testenv.Token, Truncate: true}, result: "failed", status: 502,
			says: "You are still signed in as before"},
		"it hangs": {fault: testenv.Fault{Endpoint: testenv.Token, Stall: true}, result: "failed", status: 503,
			says: "not answering"},
		"another acr": {path: "/mfa", fault: claim("acr", "pwd"), result: "unmet",
			says: "“mfa” or “phr”, and Main Street says that you signed in in the way it calls “pwd”"},
		"acr with markup": {path: "/mfa", fault: claim("acr", "<b>mfa</b>"), result: "unmet", says: "&lt;b&gt;mfa"},
		"acr endless": {path: "/mfa", fault: claim("acr", strings.Repeat("ä", 5000)), result: "unmet",
			says: "ää…”"},
		"no acr":          {path: "/mfa", result: "unmet", says: "does not tell how you signed in"},
		"acr empty":       {path: "/mfa", fault: claim("acr", ""), result: "unmet", says: "does not tell how"},
		"acr in a list":   {path: "/mfa", fault: claim("acr", []string{"mfa"}), result: "unmet", says: "does not tell how"},
		"all acr at once": {path: "/mfa", fault: claim("acr", "mfa phr"), result: "unmet", says: "calls “mfa phr”"},
		"acr in capitals": {path: "/mfa", fault: claim("acr", "MFA"), result: "unmet", says: "calls “MFA”"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, b := stepUpSite(t, func(o *setup) {
				if tt.fault.Stall {
					o.Call = 200 * time.Millisecond
				}
			})
			path := tt.path
			if path == "" {
				path = "/vault"
			}
			chooser := b.Open(s.url + path)
			before, cookies := s.sessionOf(b), s.cookieOf(t, b)
			if tt.ago != 0 {
				tt.fault = claim("auth_time", s.clock.Now().Add(-tt.ago).Unix())
			}
			state := askedFor(t, s, chooser).Get("state")
			if tt.fault.Endpoint != "" {
				s.provider.Set(tt.fault)
			}
			reached := len(s.app.Requests())
			person := tt.person
			if person == "" {
				person = "jonas"
			}
			var page testenv.Page
			if tt.code != "" {
				page = b.Open(s.callback("main", url.Values{"state": {state}, "error": {tt.code}, "iss": {s.provider.URL}}))
			} else {
				page = b.SignIn(chooser, person)
			}
			want := tt.status
			if want == 0 {
				want = 403
			}
			if page.Status != want || !strings.HasPrefix(page.URL.Path, prefix+"/callback/") ||
				!strings.Contains(page.Body, tt.says) {
				t.Errorf("ended at %s with %d, want %d and %q\n%s", page.URL, page.Status, want, tt.says, page.Body)
			}
			after := s.sessionOf(b)
			if after == nil || after.ID != before.ID || !after.Identity.AuthTime.Equal(before.Identity.AuthTime) ||
				after.Identity.ACR != before.Identity.ACR || s.cookieOf(t, b) != cookies {
				t.Errorf("the session is %+v, and was %+v", after, before)
			}
			if n := len(s.app.Requests()) - reached; n != 0 {
				t.Errorf("%d requests reached the app", n)
			}
			if a := s.get(t, path, cookies); a.status != 401 {
				t.Errorf("then the route answers %d", a.status)
			}
			if a := s.get(t, "/x", cookies); a.status != 200 {
				t.Errorf("then other routes answer %d", a.status)
			}
			if got := s.counted(t, "sallyport_step_ups_total", "result", tt.result); got != 1 {
				t.Errorf("%s was counted %v times", tt.result, got)
			}
			line := s.log.event(t, page.Header.Get("X-Request-Id"))
			if line["error"] == "" || line["user"] != "main:jonas" {
				t.Errorf("logged %v", line)
			}
			// It can be done right at the next try, which is the person's to begin.
			s.provider.Set(testenv.Fault{Endpoint: testenv.Token, Claims: testenv.With("acr", "phr")})
			if page := b.SignIn(b.Open(s.url+path), "jonas"); page.Status != 200 || page.URL.Path != path {
				t.Errorf("at the next try: %d at %s", page.Status, page.URL)
			}
		})
	}
}

// A clock of the provider that is off by less than a minute locks nobody out.
func TestClocksThatDifferByLessThanAMinuteAgree(t *testing.T) {
	t.Parallel()
	for _, off := range []time.Duration{59 * time.Second, -59 * time.Second} {
		s, b := stepUpSite(t)
		page := b.Open(s.url + "/vault")
		s.provider.Set(testenv.Fault{Endpoint: testenv.Token, Claims: testenv.With("auth_time",
			s.clock.Now().Add(off).Unix())})
		if page := b.SignIn(page, "jonas"); page.Status != 200 || len(page.Hops) != 3 {
			t.Errorf("%s: %d after %d hops", off, page.Status, len(page.Hops))
		}
	}
}

// A door whose clock is ahead of ours has sent the browser here. To send it back there at
// once would be a circle, so there is no leeway for whom a door names a route.
func TestWhoADoorSendsToStepUpIsNotSentBackAtOnce(t *testing.T) {
	t.Parallel()
	s, b := stepUpSite(t)
	if page := b.SignIn(b.Open(s.url+"/vault"), "jonas"); page.Status != 200 {
		t.Fatalf("%d\n%s", page.Status, page.Body)
	}
	login := s.url + "/.sallyport/login?return_to=%2Fvault&step_up=vault"
	if page := b.Open(login); page.Status != 200 || page.URL.Path != "/vault" {
		t.Errorf("who has just signed in is sent to %s", page.URL)
	}
	s.clock.Advance(15*time.Minute + 30*time.Second)
	if page := b.Open(s.url + "/vault"); page.Status != 200 || len(page.Hops) != 1 {
		t.Errorf("this door forgives half a minute: %d after %d hops", page.Status, len(page.Hops))
	}
	askedFor(t, s, b.Open(login))
}

// A program gets what RFC 9470 §3 has, a form its page, and nothing but a page that is
// opened goes to the provider.
func TestP06_OnlyPagesAreSentToStepUp(t *testing.T) {
	t.Parallel()
	s, b := stepUpSite(t)
	cookie := s.cookieOf(t, b)
	login := s.url + prefix + "/login?step_up="
	const vault = `Bearer error="insufficient_user_authentication", error_description="sign in again", max_age="900"`
	for name, tt := range map[string]struct {
		method, path, challenge string
		lines                   []string
	}{
		"a program": {"GET", "/vault/x", vault, []string{"Accept: */*"}},
		"a fetch": {"GET", "/vault/x", vault,
			[]string{"Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Accept: */*"}},
		"a fetch that sends something": {"PUT", "/vault/x", vault,
			[]string{"Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"}},
		"a prefetch": {"GET", "/vault/x", vault, navigate("Sec-Purpose: prefetch")},
		"a picture":  {"GET", "/vault/x", vault, []string{"Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}},
		"HEAD":       {"HEAD", "/vault/x", vault, navigate()},
		"a WebSocket": {"GET", "/vault/ws", vault, []string{"Connection: Upgrade", "Upgrade: websocket",
			"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Origin: " + s.url}},
		"acr": {"GET", "/mfa", `Bearer error="insufficient_user_authentication", ` +
			`error_description="sign in again", acr_values="mfa phr"`, nil},
		"both": {"GET", "/both", `Bearer error="insufficient_user_authentication", ` +
			`error_description="sign in again", acr_values="mfa", max_age="3600"`, nil},
		// The Destination of a COPY is judged like what is asked for.
		"a COPY": {"COPY", "/y", vault, []string{"Destination: /vault/y"}},
	} {
		reached := len(s.app.Requests())
		a := s.ask(t, tt.method, tt.path, "", append(slices.Clone(tt.lines), cookie)...)
		route := strings.SplitN(strings.TrimPrefix(tt.path, "/"), "/", 2)[0]
		if tt.method == "COPY" {
			route = "vault"
		}
		want := tt.challenge + `;Cookie realm="sallyport", form-action="` + login + route + `"`
		if a.status != 401 || strings.Join(a.header["Www-Authenticate"], ";") != want ||
			a.header["Location"] != nil || a.header["Set-Cookie"] != nil || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
		if tt.method != "HEAD" {
			body := jsonOf(t, a.body)
			if body["error"] != "insufficient_user_authentication" || body["login_url"] != login+route {
				t.Errorf("%s: %s", name, a.body)
			}
		}
		if n := len(s.app.Requests()) - reached; n != 0 {
			t.Errorf("%s: %d requests reached the app", name, n)
		}
		line := s.log.event(t, a.header.Get("X-Request-Id"))
		if line["reason"] != "step_up" || line["user"] != "main:jonas" {
			t.Errorf("%s: logged %v", name, line)
		}
	}
	a := s.ask(t, "POST", "/vault/form", "a=b", navigate(cookie, "Origin: "+s.url, "Referer: "+s.url+"/vault/page?x=1",
		"Content-Type: application/x-www-form-urlencoded")...)
	if a.status != 401 || !strings.Contains(a.body, "your form was not sent") ||
		!strings.Contains(a.body, "You need to sign in again for this") || !strings.Contains(a.body,
		prefix+"/login?return_to=%2Fvault%2Fpage%3Fx%3D1&amp;step_up=vault") {
		t.Errorf("a form: %d %s", a.status, a.body)
	}
	a = s.get(t, "/vault/part", cookie, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", "Accept: text/html")
	if a.status != 401 || !strings.Contains(a.body, "this part asks you to do so again") ||
		!strings.Contains(a.body, prefix+"/login?return_to=%2Fvault%2Fpart&amp;step_up=vault") {
		t.Errorf("a frame: %d %s", a.status, a.body)
	}
	if got := s.provider.Hits(testenv.Authorize); got != 2 { // the page and the form of the sign-in
		t.Errorf("the provider's page was asked for %d times", got)
	}
}

// A script of a page that needs nothing got the answer of a route that does; it sends the
// person to login_url, and they are back on the page, with what the route asks for.
func TestTheLoginURLOfAProgramLeadsToAStepUp(t *testing.T) {
	t.Parallel()
	s, b := stepUpSite(t)
	a := s.get(t, "/vault/api", s.cookieOf(t, b), "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty",
		"Referer: "+s.url+"/board?tab=2")
	to, _ := jsonOf(t, a.body)["login_url"].(string)
	page := b.SignIn(b.Open(to), "jonas")
	if page.Status != 200 || page.URL.String() != s.url+"/board?tab=2" {
		t.Fatalf("ended at %s with %d", page.URL, page.Status)
	}
	if a := s.get(t, "/vault/api", s.cookieOf(t, b)); a.status != 200 {
		t.Errorf("then the script gets %d", a.status)
	}
	if page := b.Open(to); page.Status != 200 || page.URL.String() != s.url+"/board?tab=2" {
		t.Errorf("the same address again ends at %s with %d", page.URL, page.Status)
	}
	if page := b.Open(s.url + prefix + "/login?step_up=nothing&return_to=%2Fx"); page.URL.Path != "/x" {
		t.Errorf("a route that is not there: %s", page.URL)
	}
}

// An access token is judged by what it says itself (RFC 9470 §5, RFC 9068 §2.2.1).
func TestP01_AnAccessTokenProvesWhatItSaysItself(t *testing.T) {
	t.Parallel()
	s := apiSite(t, func(o *setup) {
		o.Routes = append(o.Routes, authz.Route{Name: "api-vault", Host: "localhost", Path: "/api-vault",
			Access: authz.Access{Authenticated: true},
			Proof:  identity.Proof{MaxAge: 15 * time.Minute, ACR: []string{"mfa", "phr"}}})
	})
	ago := func(d time.Duration) int64 { return s.clock.Now().Add(-d).Unix() }
	for name, tt := range map[string]struct {
		auth any
		acr  any
		ok   bool
	}{
		"both":             {ago(time.Minute), "phr", true},
		"within leeway":    {ago(15*time.Minute + 50*time.Second), "mfa", true},
		"too long ago":     {ago(17 * time.Minute), "mfa", false},
		"in the future":    {ago(-2 * time.Minute), "mfa", false},
		"no auth_time":     {nil, "mfa", false},
		"auth_time a text": {"now", "mfa", false},
		"digits in a text": {strconv.FormatInt(ago(0), 10), "mfa", false},
		"acr in a list":    {ago(0), []string{"mfa"}, false},
		"no acr":           {ago(0), nil, false},
		"another acr":      {ago(0), "pwd", false},
	} {
		token := s.token(t, testenv.With("auth_time", tt.auth), testenv.With("acr", tt.acr))
		for _, kind := range [][]string{nil, navigate()} { // of a page, too: no program is sent to a sign-in
			a := s.get(t, "http://"+s.addr+"/api-vault", append(kind, "Host: "+s.host, "Authorization: Bearer "+token)...)
			if tt.ok {
				if a.status != 200 {
					t.Errorf("%s: %d %s", name, a.status, a.body)
				}
				continue
			}
			body := jsonOf(t, a.body)
			if a.status != 401 || a.header.Get("Www-Authenticate") != `Bearer error="insufficient_user_authentication", `+
				`error_description="sign in again", acr_values="mfa phr", max_age="900", resource_metadata="`+
				s.url+`/.well-known/oauth-protected-resource/api-vault"` || body["login_url"] != nil ||
				body["error"] != "insufficient_user_authentication" || a.header["Location"] != nil {
				t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
			}
			if line := s.log.event(t, a.header.Get("X-Request-Id")); line["decision"] != "deny" || line["reason"] != "step_up" {
				t.Errorf("%s: logged %v", name, line)
			}
		}
	}
}

// While somebody is away: a sign-out stays one, who signed in instead stays, and a
// callback counts in its browser, once, however often it is asked for.
func TestP06_WhatHappensWhileSomebodyIsAwayToStepUp(t *testing.T) {
	t.Parallel()
	away := func(t *testing.T) (*testSite, *testenv.Browser, string) {
		s, b := stepUpSite(t)
		chooser := b.Open(s.url + "/vault")
		b.MaxHops = 0
		return s, b, b.SignIn(chooser, "jonas").Header.Get("Location")
	}
	t.Run("they sign out", func(t *testing.T) {
		t.Parallel()
		s, b, back := away(t)
		testenv.Check(t, s.sessions.EndSignIn(t.Context(), *s.sessionOf(b)))
		if page := b.Open(back); page.Status != 303 || s.sessionOf(b) != nil {
			t.Errorf("%d, session %v", page.Status, s.sessionOf(b))
		}
	})
	t.Run("somebody else signs in", func(t *testing.T) {
		t.Parallel()
		s, b, back := away(t)
		name, value, _ := strings.Cut(s.mint(t, identity.Identity{Provider: "main", Subject: "mira"}), "=")
		b.SetCookies(s.url, &http.Cookie{Name: name, Value: value, Path: "/"})
		page := b.Open(back)
		if got := s.sessionOf(b); page.Status != 403 || got == nil || got.Identity.Subject != "mira" {
			t.Errorf("%d, session %+v", page.Status, got)
		}
	})
	t.Run("the callback is opened elsewhere", func(t *testing.T) {
		t.Parallel()
		s, b, back := away(t)
		other := s.browser(t)
		if page := s.signIn(t, other, "/", "jonas"); page.Status != 200 {
			t.Fatal(page.Status)
		}
		s.clock.Advance(17 * time.Minute)
		was := s.sessionOf(other)
		other.MaxHops = 0
		other.Open(back)
		if got := s.sessionOf(other); !got.Identity.AuthTime.Equal(was.Identity.AuthTime) {
			t.Errorf("in another browser it changed the session to %+v", got)
		}
		if page := b.Open(back); page.Status != 303 { // 17 minutes are too many for the trip
			t.Errorf("in its own, late: %d", page.Status)
		}
	})
	t.Run("many requests for one callback", func(t *testing.T) {
		t.Parallel()
		s, b, back := away(t)
		redeemed := s.provider.Hits(testenv.Token)
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if page := b.Open(back); page.Status != 303 || page.Header.Get("Location") != s.url+"/vault" {
					t.Errorf("%d %v\n%s", page.Status, page.Header, page.Body)
				}
			})
		}
		all.Wait()
		if n := s.provider.Hits(testenv.Token) - redeemed; n != 1 {
			t.Errorf("%d codes were redeemed", n)
		}
		if page := b.Open(s.url + "/vault"); page.Status != 200 {
			t.Errorf("then the page answers %d", page.Status)
		}
	})
	t.Run("another provider answers", func(t *testing.T) {
		t.Parallel()
		s, b, back := away(t)
		page := b.Open(strings.Replace(back, "/callback/main", "/callback/other", 1))
		if page.Status != 400 || s.sessionOf(b).Identity.AuthTime.After(s.clock.Now().Add(-time.Minute)) {
			t.Errorf("%d\n%s", page.Status, page.Body)
		}
	})
}

// proofLogin is a provider with a session of its own: it sends browsers back at once, and
// says when and how its person proved who they are. It checks what was asked as login
// does.
type proofLogin struct {
	fixedLogin
	clock func() time.Time
	back  string // the origin that it sends browsers back to; "": that of appHost
	mu    sync.Mutex
	asked []identity.AuthParams
	at    time.Time // zero: now
}

func (p *proofLogin) AuthURL(_ context.Context, h identity.Handshake, ap identity.AuthParams) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, ap)
	back := cmp.Or(p.back, "http://"+appHost)
	return back + prefix + "/callback/main?code=c&state=" + url.QueryEscape(h.State), nil
}

func (p *proofLogin) Redeem(_ context.Context, _ url.Values, _ identity.Handshake, ap identity.AuthParams) (
	identity.Identity, error,
) {
	p.mu.Lock()
	defer p.mu.Unlock()
	who := p.who
	if who.AuthTime = p.at; p.at.IsZero() {
		who.AuthTime = p.clock()
	}
	err := identity.Proof{MaxAge: ap.MaxAge, ACR: strings.Fields(ap.ACR)}.Check(who.AuthTime, who.ACR, p.clock())
	if err != nil {
		return identity.Identity{}, &identity.SignInError{Failure: identity.Rejected, Err: err}
	}
	return who, nil
}

func (p *proofLogin) says(at time.Time) { p.mu.Lock(); defer p.mu.Unlock(); p.at = at }

func (p *proofLogin) requests() []identity.AuthParams {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

// A browser that does not keep the new cookie goes round a few times, and then gets a page.
func TestP17_ABrowserThatKeepsTheOldCookieDoesNotGoRoundForEver(t *testing.T) {
	t.Parallel()
	provider := &proofLogin{fixedLogin: fixedLogin{who: alice()}}
	s := newHosts(t, setup{Login: provider, Routes: stepUpRoutes(appHost)})
	provider.clock = s.clock.Now
	b := s.browser(t)
	b.Open(s.url + "/")
	old := b.Cookies(s.url)
	s.clock.Advance(17 * time.Minute)
	b.MaxHops = 0
	next, page := s.url+"/vault", testenv.Page{}
	for range 40 {
		if page = b.Open(next); page.Status != 302 && page.Status != 303 {
			break
		}
		next = page.Header.Get("Location")
		b.SetCookies(s.url, old...)
	}
	if page.Status != 400 || !strings.Contains(page.Body, "did not keep the session cookie") {
		t.Errorf("ended with %d\n%s", page.Status, page.Body)
	}
	if n := len(provider.requests()); n > 4 {
		t.Errorf("it was at the provider %d times", n)
	}
}

// A provider that never asks anybody anything: who signs in for the page is there twice,
// reads why that is not enough, and can do everything else.
func TestAProviderThatIgnoresMaxAgeAsksNobodyInACircle(t *testing.T) {
	t.Parallel()
	provider := &proofLogin{fixedLogin: fixedLogin{who: alice()}}
	s := newHosts(t, setup{Login: provider, Routes: stepUpRoutes(appHost)})
	provider.clock = s.clock.Now
	provider.says(s.clock.Now().Add(-30 * time.Hour))
	b := s.browser(t)
	page := b.Open(s.url + "/vault")
	if page.Status != 403 || !strings.Contains(page.Body, "yours was 30 hours ago") || len(provider.requests()) != 2 {
		t.Errorf("%s with %d, after asking %d times\n%s", way(page), page.Status, len(provider.requests()), page.Body)
	}
	if page := b.Open(s.url + "/x"); page.Status != 200 || len(page.Hops) != 1 {
		t.Errorf("another page: %s", way(page))
	}
}

// Thirty tabs that a browser opens again all arrive, each where it wanted.
func TestP06_ThirtyTabsStepUpAtOnce(t *testing.T) {
	t.Parallel()
	s, b := stepUpSite(t)
	var tabs sync.WaitGroup
	start := make(chan struct{})
	for i := range 30 {
		tabs.Go(func() {
			<-start
			deep := fmt.Sprintf("/vault/%d?n=%d", i, i)
			page := b.Open(s.url + deep)
			if strings.HasPrefix(page.URL.String(), s.provider.URL) {
				page = b.SignIn(page, "jonas")
			}
			if page.URL.String() != s.url+deep || page.Status != 200 {
				t.Errorf("tab %d ended at %s with %d\n%s", i, page.URL, page.Status, page.Body)
			}
		})
	}
	close(start)
	tabs.Wait()
}

// With Back to the provider's page, and the form there sent once more, people are where
// they were, whether that is the same answer again or another one.
func TestP06_WhoGoesBackToTheProviderIsWhereTheyWere(t *testing.T) {
	t.Parallel()
	s, b := stepUpSite(t)
	chooser := b.Open(s.url + "/vault/x")
	for range 3 {
		if page := b.SignIn(chooser, "jonas"); page.Status != 200 || page.URL.String() != s.url+"/vault/x" {
			t.Errorf("%d at %s\n%s", page.Status, page.URL, page.Body)
		}
	}
	was := s.sessionOf(b)
	s.clock.Advance(time.Minute)
	if page := b.SignIn(chooser, "mira"); page.Status != 200 || s.sessionOf(b).ID != was.ID ||
		!s.sessionOf(b).Identity.AuthTime.Equal(was.Identity.AuthTime) {
		t.Errorf("as somebody else: %d at %s, session %+v", page.Status, page.URL, s.sessionOf(b))
	}
}

// A link that has somebody step up leads to pages of ours and nowhere else.
func TestP05_AStepUpReturnsToThisSiteOnly(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"https://evil.example/", "//evil.example/", "/\\evil.example", "/%09/evil.example",
		"https://app.localhost@evil.example/", "javascript:alert(1)", "/.sallyport/handoff?want=AAAA"} {
		for _, route := range []string{"vault", "nothing", "vault\x00AAAA"} {
			s, b := stepUpSite(t)
			page := b.Open(s.url + prefix + "/login?step_up=" + url.QueryEscape(route) + "&return_to=" + url.QueryEscape(to))
			if strings.HasPrefix(page.URL.String(), s.provider.URL) {
				page = b.SignIn(page, "jonas")
			}
			if page.URL.Host != "app.localhost" {
				t.Errorf("%q and %q lead to %s", to, route, page.URL)
			}
		}
	}
}

// On another host the public one does it. The other hosts, and what they have open, are
// not disturbed; where the public host has proved enough nobody is asked.
func TestAStepUpOnAnotherHostIsMadeAtThePublicOne(t *testing.T) {
	t.Parallel()
	provider := &proofLogin{fixedLogin: fixedLogin{who: alice()}}
	routes := append(hostRoutes(), authz.Route{Name: "vault", Host: wikiHost, Path: "/vault",
		Access: authz.Access{Authenticated: true}, Proof: identity.Proof{MaxAge: 15 * time.Minute}},
		authz.Route{Name: "safe", Host: filesHost, Path: "/safe",
			Access: authz.Access{Authenticated: true}, Proof: identity.Proof{MaxAge: 15 * time.Minute}},
		authz.Route{Name: "till", Host: "{org}.tenants.localhost", Orgs: []string{"acme", "cedar"}, Path: "/till",
			Access: authz.Access{Authenticated: true}, Proof: identity.Proof{MaxAge: 15 * time.Minute}})
	orgs, err := identity.NewOrganizations([]identity.Organization{{ID: "acme", OrgIDs: []string{"main:acme"}}})
	testenv.Check(t, err)
	s := newHosts(t, setup{Login: provider, Routes: routes, Orgs: orgs})
	provider.clock = s.clock.Now
	b := s.browser(t)
	b.Open("http://" + wikiHost + "/")
	b.Open("http://" + filesHost + "/")
	s.clock.Advance(17 * time.Minute)
	b.Open("http://" + filesHost + "/") // handed over anew
	other := cookiesAt(b, filesHost)
	asked := len(provider.requests())

	page := b.Open("http://" + wikiHost + "/vault/x?q=1")
	if got, want := way(page), "302 wiki.localhost/vault/x?q → 302 wiki.localhost/login?return_to → "+
		"302 app.localhost/handoff?want → 303 app.localhost/callback/main?code → 303 app.localhost/handoff?want → "+
		"303 wiki.localhost/handoff?grant → 200 wiki.localhost/vault/x?q"; got != want {
		t.Errorf("went\n%s\nwant\n%s", got, want)
	}
	if got := provider.requests(); len(got) != asked+1 || got[asked].MaxAge != 15*time.Minute ||
		got[asked].LoginHint != "alice@acme.example" {
		t.Errorf("asked %+v", got[asked:])
	}
	if a := s.get(t, "http://"+filesHost+"/x", other); a.status != 200 {
		t.Errorf("another host, with the cookie of before: %d", a.status)
	}
	// The next host gets what the public one has.
	page = b.Open("http://" + filesHost + "/safe")
	if page.Status != 200 || len(provider.requests()) != asked+1 {
		t.Errorf("%s, and the provider was asked %d times", way(page), len(provider.requests())-asked)
	}
	page = b.Open("http://acme.tenants.localhost/till")
	if page.Status != 200 || len(provider.requests()) != asked+1 {
		t.Errorf("%s, and the provider was asked %d times", way(page), len(provider.requests())-asked)
	}
	// Half a day later on an organization's own host, a script first.
	s.clock.Advance(17 * time.Minute)
	a := s.get(t, "http://acme.tenants.localhost/till", cookiesAt(b, "acme.tenants.localhost"))
	to, _ := jsonOf(t, a.body)["login_url"].(string)
	if a.status != 401 || to != "http://acme.tenants.localhost"+prefix+"/login?step_up=till" {
		t.Fatalf("a script: %d %s", a.status, a.body)
	}
	if page := b.Open(to); page.Status != 200 || page.URL.Host != "acme.tenants.localhost" {
		t.Errorf("%s", way(page))
	}
	if got := provider.requests(); len(got) != asked+2 {
		t.Errorf("the provider was asked %d times", len(got)-asked)
	}
	if a := s.get(t, "http://acme.tenants.localhost/till", cookiesAt(b, "acme.tenants.localhost")); a.status != 200 {
		t.Errorf("then the script gets %d", a.status)
	}
	// A door that only knows where people sign in sends them there, with the page.
	s.clock.Advance(17 * time.Minute)
	page = b.Open("http://" + wikiHost + prefix + "/login?return_to=%2Fvault%2Fy")
	if page.Status != 200 || page.URL.Path != "/vault/y" || len(provider.requests()) != asked+3 {
		t.Errorf("without the name of the route: %s", way(page))
	}
	asked++
	// One that proves nothing: a page, and no circle over the hosts.
	s.clock.Advance(17 * time.Minute)
	provider.says(s.clock.Now().Add(-150 * time.Minute))
	page = b.Open("http://" + wikiHost + "/vault")
	if page.Status != 403 || page.URL.Host != appHost || !strings.Contains(page.Body, "yours was 150 minutes ago") {
		t.Errorf("%s\n%s", way(page), page.Body)
	}
	if got := provider.requests(); len(got) != asked+3 {
		t.Errorf("the provider was asked %d times", len(got)-asked)
	}
}

// Hosts that share the cookie of a domain step up for all of them.
func TestAStepUpCountsForAllHostsOfADomain(t *testing.T) {
	t.Parallel()
	provider := &proofLogin{fixedLogin: fixedLogin{who: alice()}, back: "https://" + sharedApp}
	asksForRecent := func(o *setup) {
		for _, host := range []string{sharedWiki, sharedFiles} {
			o.Routes = append(o.Routes, authz.Route{Name: host[:4] + "-vault", Host: host, Path: "/vault",
				Access: authz.Access{Authenticated: true}, Proof: identity.Proof{MaxAge: 15 * time.Minute}})
		}
	}
	s := newSharedHosts(t, setup{Login: provider}, asksForRecent)
	provider.clock = s.clock.Now
	b := s.browser(t)
	b.Open("https://" + sharedWiki + "/")
	s.clock.Advance(17 * time.Minute)
	for _, host := range []string{sharedWiki, sharedFiles} {
		page := b.Open("https://" + host + "/vault?x=1")
		if page.Status != 200 || page.URL.String() != "https://"+host+"/vault?x=1" {
			t.Errorf("%s", way(page))
		}
	}
	if n := len(provider.requests()); n != 2 { // the sign-in and one more
		t.Errorf("the provider was asked %d times", n)
	}
}

// The public host's session has idled out while another host was in use: it counts, and
// whoever comes back from the provider is not sent there again.
func TestAStepUpFromAHostInUseDoesNotEndInACircle(t *testing.T) {
	t.Parallel()
	provider := &proofLogin{fixedLogin: fixedLogin{who: alice()}}
	routes := append(hostRoutes(), authz.Route{Name: "vault", Host: wikiHost, Path: "/vault",
		Access: authz.Access{Authenticated: true}, Proof: identity.Proof{MaxAge: 15 * time.Minute}})
	s := newHosts(t, setup{Login: provider, Routes: routes})
	provider.clock = s.clock.Now
	b := s.browser(t)
	b.Open("http://" + wikiHost + "/")
	root := s.sessionAt(b, wikiHost).Root
	s.clock.Advance(50 * time.Minute)
	wiki := *s.sessionAt(b, wikiHost) // in use there, by a script that renews it
	renewed, due := s.sessions.Renew(wiki)
	h := headerWriter{}
	testenv.Check(t, s.sessions.Write(h, wikiHost, renewed))
	pair, _, _ := strings.Cut(http.Header(h).Get("Set-Cookie"), ";")
	name, value, _ := strings.Cut(pair, "=")
	b.SetCookies("http://"+wikiHost, &http.Cookie{Name: name, Value: value, Path: "/"})
	s.clock.Advance(20 * time.Minute)
	if !due || s.sessionAt(b, appHost) != nil {
		t.Fatal("the public host's session has not idled out")
	}
	asked := len(provider.requests())
	page := b.Open("http://" + wikiHost + "/vault")
	if got := s.sessionAt(b, wikiHost); page.Status != 200 || got == nil || got.Root != root {
		t.Errorf("%s, session %+v", way(page), got)
	}
	if n := len(provider.requests()) - asked; n != 1 {
		t.Errorf("the provider was asked %d times", n)
	}
}

// People of several providers go back to the one that they signed in with.
func TestAStepUpIsMadeAtTheProviderOfTheSession(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Routes: stepUpRoutes(appHost),
		Second: &Provider{ID: "other", Name: "Other", Login: fixedLogin{url: "http://other.example/auth"}}})
	carol := identity.Identity{Provider: "other", Subject: "carol", AuthTime: s.clock.Now().Add(-time.Hour)}
	a := s.get(t, "/vault", navigate("Cookie: "+s.mint(t, carol))...)
	a = s.get(t, a.header.Get("Location"), navigate("Cookie: "+s.mint(t, carol))...)
	if to := a.header.Get("Location"); a.status != 302 || !strings.HasPrefix(to, "http://other.example/auth?") {
		t.Errorf("%d to %s", a.status, to)
	}
}

// What is open stays open when the sign-in has become too old for its route; only a new
// handshake is refused.
func TestAnOpenStreamIsNotOverBecauseItsSignInIsOld(t *testing.T) {
	t.Parallel()
	s, _ := stepUpSite(t)
	route, err := s.proxy.table.Lookup(authz.Facts{Host: "app.localhost", Path: "/vault"})
	testenv.Check(t, err)
	sess := s.sessions.Start(identity.Identity{Provider: "main", Subject: "jonas", AuthTime: s.clock.Now()})
	who := &admission.Principal{Identity: &sess.Identity, Session: &sess, Expires: sess.Expires}
	began := authz.Facts{Method: "GET", Scheme: "http", Host: "app.localhost", Path: "/vault", At: s.clock.Now()}
	s.clock.Advance(3 * time.Hour)
	if err := s.proxy.admission.StillAdmits(began, who); err != nil {
		t.Errorf("after a reload: %v", err)
	}
	if err := s.proxy.admission.Over(who, &admission.Route{Route: route}); err != nil {
		t.Errorf("as time goes by: %v", err)
	}
	began.At = s.clock.Now()
	if err := s.proxy.admission.StillAdmits(began, who); !errors.Is(err, admission.ErrRulesChanged) {
		t.Errorf("one that would begin now: %v", err)
	}
}

// The page says which setting of the provider to change.
func TestThePageNamesTheSettingOfTheProvider(t *testing.T) {
	t.Parallel()
	for _, p := range []LoginProvider{&login.Provider{}} {
		if adviser, ok := p.(AuthTimeAdviser); !ok || !strings.Contains(adviser.AuthTimeAdvice(), "auth_time") {
			t.Errorf("%T gives no advice", p)
		}
	}
	for d, want := range map[time.Duration]string{
		time.Minute: "1 minute", 15 * time.Minute: "15 minutes", 90 * time.Minute: "90 minutes", time.Hour: "1 hour",
		25 * time.Hour: "25 hours", 48 * time.Hour: "2 days", 0: "a moment", 61 * time.Second: "61 seconds",
		100*24*time.Hour + time.Second: "100 days",
	} {
		if got := inWords(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}
