package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// The hosts of these tests share the cookie of a domain; people sign in at the first.
const (
	sharedDomain = "site.localhost"
	sharedApp    = "app." + sharedDomain
	sharedWiki   = "wiki." + sharedDomain
	sharedFiles  = "files.deep." + sharedDomain
)

// newSharedHosts is a site over TLS whose hosts lead to one listener.
func newSharedHosts(t *testing.T, o setup, change ...func(*setup)) *testSite {
	t.Helper()
	everybody := authz.Access{Authenticated: true}
	o.TLS, o.Public, o.Domain = true, "https://"+sharedApp, sharedDomain
	o.Routes = []authz.Route{
		{Name: "app", Host: sharedApp, Path: "/", Access: everybody},
		{Name: "wiki", Host: sharedWiki, Path: "/", Access: everybody},
		{Name: "files", Host: sharedFiles, Path: "/", Access: everybody},
	}
	for _, c := range change {
		c(&o)
	}
	s := newTestSite(t, o)
	transport, ok := s.transport.(*http.Transport)
	if !ok {
		t.Fatal("not net/http's transport")
	}
	transport.TLSClientConfig.ServerName = "example.com" // that of the test server's certificate
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if host, _, _ := net.SplitHostPort(addr); strings.HasSuffix(host, ".localhost") {
			addr = s.addr
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	return s
}

// sharedLogin is a provider that sends browsers back at once.
type sharedLogin struct{ fixedLogin }

func (sharedLogin) AuthURL(_ context.Context, h identity.Handshake, _ identity.AuthParams) (string, error) {
	return "https://" + sharedApp + prefix + "/callback/main?code=c&state=" + url.QueryEscape(h.State), nil
}

func sharedIs(who identity.Identity) LoginProvider { return sharedLogin{fixedLogin{who: who}} }

// sharedCookies are the session cookies that a browser sends to a host.
func sharedCookies(b *testenv.Browser, host string) (all []string) {
	for _, c := range b.Cookies("https://" + host + "/") {
		if !strings.HasSuffix(c.Name, "-flow") {
			all = append(all, c.Name+"="+c.Value)
		}
	}
	return all
}

// One sign-in is one cookie, and it opens all hosts of the domain without another
// redirect. A deep link on any of them survives the sign-in.
func TestP09_HostsOfADomainShareOneCookie(t *testing.T) {
	t.Parallel()
	s := newSharedHosts(t, setup{Login: sharedIs(alice())})
	b := s.browser(t)
	page := b.Open("https://" + sharedWiki + "/deep?a=1%2F2")
	if got, want := way(page), "302 wiki.site.localhost/deep?a → 302 app.site.localhost/handoff?want → 303 "+
		"app.site.localhost/callback/main?code → 303 app.site.localhost/handoff?want → 200 "+
		"wiki.site.localhost/deep?a"; got != want {
		t.Errorf("with a sign-in:\n%s\nwant\n%s", got, want)
	}
	for _, hop := range page.Hops {
		for _, c := range hop.SetCookie {
			if strings.HasSuffix(c.Name, "-flow") {
				if !strings.HasPrefix(c.Name, "__Host-") || c.Domain != "" {
					t.Errorf("the flow cookie: %s", c.Raw)
				}
				continue
			}
			if c.MaxAge > 0 && (c.Name != "__Secure-sallyport" || c.Domain != sharedDomain || !c.Secure || !c.HttpOnly ||
				c.Path != "/" || c.SameSite != http.SameSiteLaxMode) {
				t.Errorf("the session cookie: %s", c.Raw)
			}
		}
	}
	hits := len(s.app.Requests())
	for _, host := range []string{sharedApp, sharedFiles, sharedWiki} {
		if got := way(b.Open("https://" + host + "/x")); got != "200 "+host+"/x" {
			t.Errorf("%s", got)
		}
		if all := sharedCookies(b, host); len(all) != 1 || !strings.HasPrefix(all[0], "__Secure-sallyport=") {
			t.Errorf("%s has %d session cookies", host, len(all))
		}
	}
	for _, raw := range s.app.Requests()[hits:] { // P1: no app sees it
		if strings.Contains(string(raw), "__Secure-") {
			t.Errorf("an app was sent our cookie:\n%s", raw)
		}
	}
	// To be at work anywhere is to be at work everywhere; nothing is handed over.
	for range 5 {
		s.clock.Advance(40 * time.Minute)
		if page := b.Open("https://" + sharedFiles + "/x"); len(page.Hops) != 1 || page.Status != 200 {
			t.Fatal(way(page))
		}
	}
	if got := way(b.Open("https://" + sharedApp + "/x")); got != "200 "+sharedApp+"/x" {
		t.Errorf("%s", got)
	}
	if a := s.get(t, "https://"+sharedWiki+"/x"); a.status != 401 {
		t.Errorf("nobody: %d", a.status)
	}
}

// Signing out on any host takes the one cookie, and all hosts are closed.
func TestP10_SigningOutTakesTheCookieOfTheDomain(t *testing.T) {
	t.Parallel()
	s := newSharedHosts(t, setup{Login: sharedIs(alice())})
	for _, from := range []string{sharedWiki, sharedApp} {
		b := s.browser(t)
		b.Open("https://" + from + "/")
		copied := "Cookie: " + sharedCookies(b, from)[0]
		page := b.Submit(b.Open("https://"+from+prefix+"/logout"), "", "")
		if page.Status != 200 || page.URL.Host != sharedApp || !strings.Contains(page.Body, "signed out") {
			t.Errorf("from %s: %s", from, way(page))
		}
		for _, host := range []string{sharedApp, sharedWiki, sharedFiles} {
			if all := sharedCookies(b, host); len(all) != 0 {
				t.Errorf("from %s: %s still has %v", from, host, all)
			}
			if a := s.get(t, "https://"+host+"/x", copied); a.status != 401 {
				t.Errorf("from %s: a copy at %s: %d", from, host, a.status)
			}
		}
	}
}

// A cookie of one host, from before the cookie was for a domain, is no session any more,
// and is gone with the next sign-in or sign-out. A host that plants a second cookie of our
// name signs nobody in, and the page says what is wrong.
func TestP06_OfTwoSessionCookiesNoneIsChosen(t *testing.T) {
	t.Parallel()
	key := session.NewKey(time.Now().Add(-time.Hour))
	before := newTestSite(t, setup{TLS: true, Public: "https://" + sharedApp, Key: key, Login: sharedIs(bob())})
	old := before.mint(t, bob())
	s := newSharedHosts(t, setup{Key: key, Login: sharedIs(alice())})
	if !strings.HasPrefix(old, "__Host-sallyport=") {
		t.Fatal(old)
	}
	if a := s.get(t, "/x", "Cookie: "+old); a.status != 401 {
		t.Errorf("the old cookie: %d", a.status)
	}
	renamed := strings.Replace(old, "__Host-", "__Secure-", 1)
	if a := s.get(t, "/x", "Cookie: "+renamed); a.status != 401 {
		t.Errorf("the old cookie by the new name: %d", a.status)
	}
	name, value, _ := strings.Cut(old, "=")
	b := s.browser(t)
	b.SetCookies(s.url+"/", &http.Cookie{Name: name, Value: value, Path: "/", Secure: true})
	page := b.Open(s.url + "/x")
	if page.Status != 200 || fmt.Sprint(s.told(t)["x-forwarded-user"]) != "[main:alice-1]" {
		t.Errorf("%s: told %v", way(page), s.told(t)["x-forwarded-user"])
	}
	if all := sharedCookies(b, sharedApp); len(all) != 1 || strings.HasPrefix(all[0], name) {
		t.Errorf("after the sign-in there are %d session cookies", len(all))
	}
	both := "Cookie: " + old + "; " + sharedCookies(b, sharedApp)[0]
	if a := s.get(t, "/x", both); a.status != 200 || strings.Contains(fmt.Sprint(s.told(t)), "bob") {
		t.Errorf("both at once: %d, told %v", a.status, s.told(t))
	}

	// A neighbour below the domain plants a session of its own.
	planted := s.mint(t, bob())
	two := "Cookie: " + planted + "; " + sharedCookies(b, sharedApp)[0]
	if a := s.get(t, "/x", two); a.status != 401 {
		t.Errorf("two of one name: %d", a.status)
	}
	_, value, _ = strings.Cut(planted, "=")
	b.SetCookies("https://"+sharedWiki+"/", &http.Cookie{Name: "__Secure-sallyport", Value: value, Path: "/",
		Secure: true}) // for the wiki alone, so that it sees two and the public host one
	b.MaxHops = 20
	page = b.Open("https://" + sharedWiki + "/x")
	if page.Status != 400 || !strings.Contains(page.Body, "Signing in does not stick") ||
		!strings.Contains(page.Body, "The browser sends two session cookies.") {
		t.Errorf("%s\n%s", way(page), page.Body)
	}
	if page = b.Open("https://" + sharedFiles + "/x"); page.Status != 200 {
		t.Errorf("another host: %s", way(page))
	}
}

// An organization that is chosen is the active one on all hosts: they have one session.
func TestAnOrganizationIsChosenForAllHostsOfADomain(t *testing.T) {
	t.Parallel()
	s := newSharedHosts(t, setup{Login: sharedIs(ines()), Orgs: foldedOrgs(t)})
	b := s.browser(t)
	page := b.Open("https://" + sharedWiki + "/deep?a=2")
	if page.URL.Host != sharedApp || !strings.Contains(page.Body, "Choose an organization") {
		t.Fatalf("%s\n%s", way(page), page.Body)
	}
	page = b.Submit(page, "org", "main:birch")
	if page.URL.String() != "https://"+sharedWiki+"/deep?a=2" ||
		fmt.Sprint(s.told(t)["x-forwarded-org-id"]) != "[main:birch]" {
		t.Errorf("%s: told %v", way(page), s.told(t))
	}
	before := "Cookie: " + sharedCookies(b, sharedWiki)[0]
	b.Submit(b.Open("https://"+sharedApp+prefix+"/account"), "org", "acme")
	if page = b.Open("https://" + sharedWiki + "/"); len(page.Hops) != 1 ||
		fmt.Sprint(s.told(t)["x-forwarded-org-id"]) != "[acme]" {
		t.Errorf("%s: told %v", way(page), s.told(t))
	}
	if a := s.get(t, "https://"+sharedWiki+"/", before); a.status != 401 {
		t.Errorf("the session before the switch: %d", a.status)
	}
}

// asksAgain is a provider that is to be asked again, and says at times that it is there.
type asksAgain struct {
	LoginProvider
	leaves atomic.Bool  // it answers the first question of two
	asked  atomic.Int32 // since it leaves
}

func (*asksAgain) ReauthAfter() time.Duration { return 10 * time.Minute }
func (*asksAgain) Discovered() bool           { return true }

func (a *asksAgain) Answering(context.Context) bool { return !a.leaves.Load() || a.asked.Add(1)%2 == 1 }

// The provider is asked again by way of the public host, also for a person who only works
// on another one, who loses there what they no longer have.
func TestP11_AHostOfADomainHasTheProviderAskedAgain(t *testing.T) {
	t.Parallel()
	swap := &swapLogin{}
	swap.use(sharedIs(alice()))
	provider := &asksAgain{LoginProvider: swap}
	s := newSharedHosts(t, setup{Login: provider})
	b := s.browser(t)
	b.Open("https://" + sharedWiki + "/")
	before := "Cookie: " + sharedCookies(b, sharedWiki)[0]
	s.clock.Advance(20 * time.Minute)
	fewer := alice()
	fewer.Groups = nil
	swap.use(sharedIs(fewer))
	if a := s.get(t, "https://"+sharedWiki+"/x", before); a.status != 200 {
		t.Errorf("a fetch: %d", a.status)
	}
	page := b.Open("https://" + sharedWiki + "/deep?a=1")
	if got := way(page); got != "302 wiki.site.localhost/deep?a → 302 app.site.localhost/handoff?want → 303 "+
		"app.site.localhost/callback/main?code → 303 app.site.localhost/handoff?want → 200 wiki.site.localhost/deep?a" {
		t.Errorf("%s", got)
	}
	if strings.Contains(fmt.Sprint(s.told(t)), "admins") {
		t.Errorf("told %v", s.told(t))
	}
	if a := s.get(t, "https://"+sharedWiki+"/x", before); a.status != 401 {
		t.Errorf("a copy of the old cookie: %d", a.status)
	}
	// Where the public host finds the provider gone, the page opens all the same.
	s.clock.Advance(20 * time.Minute)
	provider.leaves.Store(true)
	if got := way(b.Open("https://" + sharedWiki + "/deep")); got != "302 wiki.site.localhost/deep → 303 "+
		"app.site.localhost/handoff?want → 200 wiki.site.localhost/deep" {
		t.Errorf("%s", got)
	}
}
