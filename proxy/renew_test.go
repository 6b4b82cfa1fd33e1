package proxy

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// renewAt is the address at which a host renews its session and leads back to path.
func renewAt(host, path string) string {
	return "http://" + host + prefix + "/renew?return_to=" + url.QueryEscape(path)
}

// A page that another proxy serves is sent here and back, and has its hour of being idle
// anew. Nothing is asked of the app.
func TestRenewingLeadsBackWithAFreshCookie(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	b := s.browser(t)
	b.Open("http://" + wikiHost + "/")
	for _, host := range []string{appHost, wikiHost} {
		s.clock.Advance(7 * time.Minute)
		before, hits := s.sessionAt(b, host), len(s.app.Requests())
		b.MaxHops = 0
		page := b.Open(renewAt(host, "/deep?a=1%2F2&b=ä#c"))
		b.MaxHops = 10
		after := s.sessionAt(b, host)
		if page.Status != 303 || page.Header.Get("Location") != "http://"+host+"/deep?a=1%2F2&b=ä#c" ||
			len(page.SetCookie) != 1 || !strings.Contains(page.Header.Get("Cache-Control"), "no-store") {
			t.Errorf("%s: %d %v", host, page.Status, page.Header)
		}
		now := s.clock.Now().Add(-time.Second) // a cookie tells whole seconds
		if after == nil || after.ID != before.ID || after.Seen.Before(now) {
			t.Errorf("%s: the session is %+v, and was %+v", host, after, before)
		}
		if len(s.app.Requests()) != hits {
			t.Errorf("%s: the app was asked", host)
		}
		if page = b.Open(renewAt(host, "/deep")); page.Status != 200 || len(page.Hops[0].SetCookie) != 0 {
			t.Errorf("%s: again at once: %s %v", host, way(page), page.Hops[0].Header)
		}
	}
}

// Without a session it leads to the sign-in, and from there to the page.
func TestRenewingWithoutASessionSignsIn(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	b := s.browser(t)
	if got := way(b.Open(renewAt(appHost, "/deep?a=1"))); got != "302 app.localhost/renew?return_to → 302 "+
		"app.localhost/login?return_to → 303 app.localhost/callback/main?code → 200 app.localhost/deep?a" {
		t.Errorf("%s", got)
	}
	if got := way(b.Open(renewAt(wikiHost, "/deep?a=1"))); got != "302 wiki.localhost/renew?return_to → 302 "+
		"wiki.localhost/login?return_to → 303 app.localhost/handoff?want → 303 wiki.localhost/handoff?grant → 200 "+
		"wiki.localhost/deep?a" {
		t.Errorf("%s", got)
	}
	// One that was ended, or has idled out, is none.
	s.clock.Advance(61 * time.Minute)
	if page := b.Open(renewAt(appHost, "/deep")); page.Status != 200 || !strings.Contains(way(page), "callback") {
		t.Errorf("idled out: %s", way(page))
	}
	cookie := cookiesAt(b, appHost)
	b.Submit(b.Open("http://"+appHost+prefix+"/logout"), "", "")
	a := s.get(t, renewAt(appHost, "/deep"), navigate(cookie)...)
	if a.status != 302 || a.header["Set-Cookie"] != nil ||
		a.header.Get("Location") != "http://"+appHost+prefix+"/login?return_to=%2Fdeep" {
		t.Errorf("ended: %d %v", a.status, a.header)
	}
}

// Only a page that is opened renews: what a page fetches by itself must not keep the
// session of somebody who is gone.
func TestOnlyOpeningAPageRenews(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	b := s.browser(t)
	b.Open("http://" + wikiHost + "/")
	s.clock.Advance(7 * time.Minute)
	for _, host := range []string{appHost, wikiHost} {
		cookie, at := cookiesAt(b, host), renewAt(host, "/deep")
		for name, a := range map[string]answer{
			"a fetch":    s.get(t, at, cookie),
			"an image":   s.get(t, at, cookie, "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"),
			"a prefetch": s.get(t, at, navigate(cookie, "Sec-Purpose: prefetch")...),
			"nobody":     s.get(t, at),
		} {
			if a.status != 401 || jsonOf(t, a.body)["error"] != "login_required" || a.header["Set-Cookie"] != nil ||
				!strings.Contains(a.header.Get("Cache-Control"), "no-store") {
				t.Errorf("%s, %s: %d %v %s", host, name, a.status, a.header, a.body)
			}
		}
		for _, method := range []string{"HEAD", "POST", "PUT"} {
			a := s.ask(t, method, at, "", navigate(cookie, "Origin: http://"+host)...)
			if a.status != 405 || a.header["Set-Cookie"] != nil ||
				method != "PUT" && a.header.Get("Allow") != "GET" {
				t.Errorf("%s, %s: %d %v", host, method, a.status, a.header)
			}
		}
	}
}

// It leads to pages of its own host and to nothing else, nor to itself: a page that is
// sent here again and again is not led in a circle by us.
func TestP05_RenewingLeadsOnlyToPagesOfItsHost(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	b := s.browser(t)
	b.Open("http://" + wikiHost + "/")
	handOff := s.get(t, "http://"+wikiHost+"/x", navigate()...).header.Get("Location")
	for _, host := range []string{appHost, wikiHost} {
		other := map[string]string{appHost: wikiHost, wikiHost: appHost}[host]
		for _, to := range []string{"", "//evil.example/x", "https://evil.example/", `/\evil.example`, `\\evil.example`,
			"/%5cevil.example", "/%2fevil.example", "javascript:alert(1)", "http://" + other + "/x",
			"http://" + host + ".evil.example/", "http://" + host + "@evil.example/", "/..//evil.example",
			"/\t/evil.example", "/" + strings.Repeat("a", 3000), "/x\r\nSet-Cookie: a=b",
			prefix + "/renew?return_to=/x", prefix + "/logout", prefix + "/login", strings.TrimPrefix(handOff,
				"http://"+appHost)} {
			a := s.get(t, renewAt(host, to), navigate(cookiesAt(b, host))...)
			if a.status != 303 || a.header.Get("Location") != "http://"+host+"/" {
				t.Errorf("%s, %.40q: %d to %q", host, to, a.status, a.header.Get("Location"))
			}
			a = s.get(t, renewAt(host, to), navigate()...)
			if a.status != 302 || a.header.Get("Location") != "http://"+host+prefix+"/login" {
				t.Errorf("%s, %.40q, nobody: %d to %q", host, to, a.status, a.header.Get("Location"))
			}
		}
		a := s.get(t, renewAt(host, "http://"+host+"/x?a=b"), navigate(cookiesAt(b, host))...)
		if a.status != 303 || a.header.Get("Location") != "http://"+host+"/x?a=b" {
			t.Errorf("%s, the whole address: %d to %q", host, a.status, a.header.Get("Location"))
		}
	}
}

// Another host has its session handed over again when it is due, once; a browser that
// does not keep what it is given goes on with what it has.
func TestRenewingHandsTheSessionOverAgain(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	b := s.browser(t)
	b.Open("http://" + wikiHost + "/")
	s.clock.Advance(16 * time.Minute)
	old := b.Cookies("http://" + wikiHost + "/")
	if got := way(b.Open(renewAt(wikiHost, "/deep?a=1"))); got != "302 wiki.localhost/renew?return_to → 303 "+
		"app.localhost/handoff?want → 303 wiki.localhost/handoff?grant → 200 wiki.localhost/deep?a" {
		t.Errorf("%s", got)
	}
	if at := s.sessionAt(b, wikiHost); at == nil || s.clock.Now().Sub(at.Handed) > time.Minute {
		t.Errorf("handed over: %+v", at)
	}
	for range 4 {
		b.SetCookies("http://"+wikiHost+"/", withPath(old)...)
		b.MaxHops = 0
		page := b.Open(renewAt(wikiHost, "/api"))
		to := page.Header.Get("Location")
		if to == "http://"+wikiHost+"/api" {
			return
		}
		b.MaxHops = 1 // up to the answer with the cookie
		b.Open(to)
	}
	t.Error("it never goes on with what it has")
}

// So it does where TLS ends before the proxy in front, which then names http, as ingress-nginx
// behind a load balancer does. Otherwise the host's session would never be confirmed again: not
// at the public host, and not at the provider (reauth_after). Browsers send a session cookie of
// an https site over https only, so whoever has one is there.
func TestP11_ASessionIsHandedOverAgainWhereTLSEndsBefore(t *testing.T) {
	t.Parallel()
	for _, domain := range []string{"", "site.localhost"} {
		host, public := "wiki.site.localhost", "app.site.localhost"
		everybody := authz.Access{Authenticated: true}
		s := newTestSite(t, setup{Public: "https://" + public, Domain: domain,
			Login: &asksAgain{LoginProvider: everybodyIs(alice())},
			Routes: []authz.Route{{Name: "app", Host: public, Path: "/", Access: everybody},
				{Name: "wiki", Host: host, Path: "/", Access: everybody}},
			Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
		here := s.sessions.Start(alice())
		if domain == "" {
			here = s.sessions.HandedOver(here, host)
		}
		h := headerWriter{}
		testenv.Check(t, s.sessions.Write(h, host, here))
		cookie, _, _ := strings.Cut(http.Header(h).Get("Set-Cookie"), ";")
		s.clock.Advance(16 * time.Minute)
		for _, path := range []string{prefix + "/renew?return_to=%2Fdeep", "/deep"} {
			a := s.get(t, "http://"+s.addr+path, navigate("Host: "+host, "X-Forwarded-Proto: http", "Cookie: "+cookie)...)
			if to := a.header.Get("Location"); !strings.HasPrefix(to, "https://"+public+prefix+"/handoff?want=") {
				t.Errorf("cookies of the domain %q, %s: %d to %q", domain, path, a.status, to)
			}
		}
	}
}

func withPath(all []*http.Cookie) (out []*http.Cookie) {
	for _, c := range all {
		out = append(out, &http.Cookie{Name: c.Name, Value: c.Value, Path: "/"})
	}
	return out
}

// What opening a page does otherwise, this does for pages that another proxy serves: the
// provider is asked again whether the sign-in still holds.
func TestRenewingAsksTheProviderAgain(t *testing.T) {
	t.Parallel()
	s, b := reauthSite(t)
	before := s.sessionOf(b)
	s.due(t, b)
	page := b.Open(s.url + prefix + "/renew?return_to=%2Fadmin%2Fdeep%3Fq%3D1")
	silently(t, s, page)
	if page.Status != 200 || page.URL.RequestURI() != "/admin/deep?q=1" {
		t.Errorf("ended at %s with %d", page.URL, page.Status)
	}
	if after := s.sessionOf(b); after == nil || after.ID != before.ID || !after.Checked.After(before.SignedIn) {
		t.Errorf("the session is %+v, and was %+v", after, before)
	}
	// A provider that cannot say keeps nobody: the next renewal is one.
	s.due(t, b)
	s.provider.Set(testenv.Fault{Endpoint: testenv.Token, Status: 500})
	if page = b.Open(s.url + prefix + "/renew?return_to=%2Fadmin"); page.Status != 200 || page.URL.Path != "/admin" {
		t.Errorf("ended at %s with %d", page.URL, page.Status)
	}
	if page = b.Open(s.url + prefix + "/renew?return_to=%2Fadmin"); page.Status != 200 || len(page.Hops) != 2 {
		t.Errorf("the next one: %s", way(page))
	}
}

// A proxy that does not pass on what a page is missing sends it here all the same: it is
// led to what is missing, and not back to where it is missing.
func TestRenewingLeadsToWhatIsMissing(t *testing.T) {
	t.Parallel()
	s, b := stepUpSite(t)
	page := b.Open(renewAt(appHost, "/vault/x?q=1"))
	if q := askedFor(t, s, page); q.Get("max_age") != "900" {
		t.Errorf("asked with %v", q)
	}
	if page = b.SignIn(page, "jonas"); page.Status != 200 || page.URL.Path != "/vault/x" {
		t.Errorf("%s", way(page))
	}
	if page = b.Open(renewAt(appHost, "/vault/x")); page.Status != 200 || len(page.Hops) != 2 {
		t.Errorf("with all that is asked for: %s", way(page))
	}
	several := newHosts(t, setup{Login: everybodyIs(ines()), Orgs: foldedOrgs(t)})
	b = several.browser(t)
	if page = b.Open(renewAt(appHost, "/deep")); page.URL.Path != prefix+"/organization" {
		t.Errorf("who has to choose an organization: %s", way(page))
	}
	if page = b.Open(renewAt(appHost, "/deep")); page.URL.Path != prefix+"/organization" {
		t.Errorf("and has not: %s", way(page))
	}
}
