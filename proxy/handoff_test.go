package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// The hosts of these tests: people sign in at the first one.
const (
	appHost   = "app.localhost"
	wikiHost  = "wiki.localhost"
	filesHost = "files.localhost"
)

func hostRoutes() []authz.Route {
	everybody := authz.Access{Authenticated: true}
	return []authz.Route{
		{Name: "app", Host: appHost, Path: "/", Access: everybody},
		{Name: "open", Host: appHost, Path: "/open", Access: authz.Access{Public: true}},
		{Name: "wiki", Host: wikiHost, Path: "/", Access: everybody, WebSocket: authz.WebSocket{Allowed: true}},
		{Name: "bank", Host: wikiHost, Path: "/bank",
			Access: authz.Access{Rules: []authz.Rule{{Orgs: []string{"main:birch"}}}}},
		{Name: "files", Host: filesHost, Path: "/", Access: everybody},
		{Name: "any", Host: "*.any.localhost", Path: "/", Access: everybody},
		{Name: "www", Host: "www.localhost", Path: "/", Access: authz.Access{Public: true}},
		{Name: "tenant", Host: "{org}.tenants.localhost", Orgs: []string{"acme", "cedar"}, Path: "/",
			Access: everybody},
	}
}

// newHosts is a site with several hosts, all of which lead to one listener.
func newHosts(t *testing.T, o setup) *testSite {
	t.Helper()
	o.Public = "http://" + appHost
	if o.Routes == nil {
		o.Routes = hostRoutes()
	}
	s := newTestSite(t, o)
	transport, ok := s.transport.(*http.Transport)
	if !ok {
		t.Fatal("not net/http's transport")
	}
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if host, _, _ := net.SplitHostPort(addr); strings.HasSuffix(strings.TrimSuffix(host, "."), ".localhost") {
			addr = s.addr
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	return s
}

// people sign in as who, at a provider that asks nothing.
func everybodyIs(who identity.Identity) LoginProvider { return backAtOnce{fixedLogin{who: who}} }

// backAtOnce is a provider with a session of its own: it sends browsers back.
type backAtOnce struct{ fixedLogin }

func (backAtOnce) AuthURL(_ context.Context, h identity.Handshake, _ identity.AuthParams) (string, error) {
	return "http://" + appHost + prefix + "/callback/main?code=c&state=" + url.QueryEscape(h.State), nil
}

// way is where a browser was led, without what is sealed in the addresses.
func way(p testenv.Page) string {
	var all []string
	for _, h := range p.Hops {
		query, _, _ := strings.Cut(h.URL.RawQuery, "=")
		if query != "" {
			query = "?" + query
		}
		all = append(all, fmt.Sprintf("%d %s%s%s", h.Status, h.URL.Host, strings.TrimPrefix(h.URL.Path, prefix), query))
	}
	return strings.Join(all, " → ")
}

// sessionAt is what a browser has as a session on a host; nil: none.
func (s *testSite) sessionAt(b *testenv.Browser, host string) *session.Session {
	var line []string
	for _, c := range b.Cookies("http://" + host + "/") {
		line = append(line, c.Name+"="+c.Value)
	}
	got, err := s.sessions.Read(strings.Join(line, "; "), host)
	if err != nil {
		return nil
	}
	return &got
}

// cookiesAt are the cookies of a browser on a host, as a header line.
func cookiesAt(b *testenv.Browser, host string) string {
	var all []string
	for _, c := range b.Cookies("http://" + host + "/") {
		all = append(all, c.Name+"="+c.Value)
	}
	return "Cookie: " + strings.Join(all, "; ")
}

// One sign-in opens all hosts, each with a cookie of its own, and the page that was
// asked for survives all hops, query and all. No app is asked before that.
func TestOneSignInOpensAllHosts(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	b := s.browser(t)
	var hits int
	page := b.Open("http://" + wikiHost + "/deep%2Flink?week=47&by=%C3%A4+b")
	if page.Status != 400 { // an escaped slash is refused, before anybody is asked who they are
		t.Errorf("%s", way(page))
	}
	page = b.Open("http://" + wikiHost + "/deep?week=47&by=%C3%A4+b&u=https://x.example/?a=b")
	if got, want := way(page), "302 wiki.localhost/deep?week → 302 app.localhost/handoff?want → 303 "+
		"app.localhost/callback/main?code → 303 app.localhost/handoff?want → 303 wiki.localhost/handoff?grant → 200 "+
		"wiki.localhost/deep?week"; got != want {
		t.Errorf("with a sign-in:\n%s\nwant\n%s", got, want)
	}
	if page.URL.RawQuery != "week=47&by=%C3%A4+b&u=https://x.example/?a=b" {
		t.Errorf("landed at %s", page.URL)
	}
	if n := len(s.hits(&hits)); n != 1 {
		t.Errorf("the app was asked %d times", n)
	}
	for _, hop := range page.Hops[:len(page.Hops)-1] {
		if cc := hop.Header.Get("Cache-Control"); !strings.Contains(cc, "no-store") {
			t.Errorf("%s may be cached: %q", hop.URL.Path, cc)
		}
		if strings.HasSuffix(hop.URL.Path, "/handoff") && hop.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: Referrer-Policy %q", hop.URL.Path, hop.Header.Get("Referrer-Policy"))
		}
	}
	page = b.Open("http://" + filesHost + "/x")
	if got, want := way(page), "302 files.localhost/x → 303 app.localhost/handoff?want → 303 "+
		"files.localhost/handoff?grant → 200 files.localhost/x"; got != want {
		t.Errorf("without a sign-in:\n%s\nwant\n%s", got, want)
	}
	if got := way(b.Open("http://" + filesHost + "/y")); got != "200 files.localhost/y" {
		t.Errorf("the next page: %s", got)
	}
	if got := way(b.Open("http://a.any.localhost/")); !strings.HasSuffix(got, "→ 200 a.any.localhost/") {
		t.Errorf("a host of a wildcard: %s", got)
	}
	root, wiki, files := s.sessionAt(b, appHost), s.sessionAt(b, wikiHost), s.sessionAt(b, filesHost)
	if root == nil || wiki == nil || files == nil || root.Root != wiki.Root || wiki.Root != files.Root ||
		wiki.ID == files.ID {
		t.Fatalf("app %+v\nwiki %+v\nfiles %+v", root, wiki, files)
	}
	if text := s.log.text(t); strings.Contains(text, "grant=") || strings.Contains(text, "want=") {
		t.Error("the log has what is sealed")
	}
	if a := s.get(t, "http://"+filesHost+"/x", cookiesAt(b, wikiHost)); a.status != 401 {
		t.Errorf("the cookie of one host at another: %d", a.status)
	}
	if a := s.get(t, "http://"+appHost+"/x", cookiesAt(b, wikiHost)); a.status != 401 {
		t.Errorf("the cookie of another host at the public one: %d", a.status)
	}
}

// Only a page that is opened begins a hand-off.
func TestOnlyOpeningAPageBeginsAHandOff(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	wiki := "http://" + wikiHost
	if a := s.get(t, wiki+"/x"); a.status != 401 || jsonOf(t, a.body)["login_url"] != wiki+prefix+"/login" ||
		a.header["Set-Cookie"] != nil {
		t.Errorf("a program: %d %s", a.status, a.body)
	}
	if a := s.ask(t, "POST", wiki+"/x", "a=b", navigate("Referer: "+wiki+"/form?id=1")...); a.status != 401 ||
		a.header["Set-Cookie"] != nil ||
		!strings.Contains(a.body, wiki+prefix+"/login?return_to=%2Fform%3Fid%3D1") {
		t.Errorf("a form: %d %s", a.status, a.body)
	}
	if a := s.ask(t, "POST", wiki+"/x", "a=b"); a.status != 401 {
		t.Errorf("a program's POST: %d", a.status)
	}
	if a := s.get(t, wiki+prefix+"/login"); a.status != 401 {
		t.Errorf("a program at the sign-in: %d", a.status)
	}
	a := s.get(t, wiki+"/x", navigate()...)
	want := a.header.Get("Location")
	for _, target := range []string{want, wiki + prefix + "/handoff?grant=x", wiki + prefix + "/renew",
		"http://" + appHost + prefix + "/renew"} {
		for _, method := range []string{"HEAD", "POST", "PUT", "DELETE", "OPTIONS"} {
			if a := s.ask(t, method, target, "", navigate()...); a.status != 405 || a.header.Get("Allow") != "GET" {
				t.Errorf("%s %.60s: %d %q", method, target, a.status, a.header.Get("Allow"))
			}
		}
	}
	for _, target := range []string{want, wiki + prefix + "/handoff?grant=x"} {
		if a := s.get(t, target); a.status != 401 || a.header["Set-Cookie"] != nil {
			t.Errorf("a program at %.60s: %d", target, a.status)
		}
	}
	if n := len(s.app.Requests()); n != 0 {
		t.Errorf("the app was asked %d times", n)
	}
}

// grantFor leads a browser that is signed in to the step before it has a session on
// a host, and returns the address of the last one.
func (s *testSite) grantFor(t *testing.T, b *testenv.Browser, host, path string) string {
	t.Helper()
	b.MaxHops = 1
	page := b.Open("http://" + host + path)
	b.MaxHops = 10
	to := page.Header.Get("Location")
	if !strings.Contains(to, host+prefix+"/handoff?grant=") {
		t.Fatalf("%s leads to %q", way(page), to)
	}
	return to
}

// What a thief can do with an address that was stolen on its way: nothing.
func TestP06_AStolenGrantSignsNobodyIn(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	victim := s.browser(t)
	victim.Open("http://" + appHost + "/")
	stolen := s.grantFor(t, victim, wikiHost, "/deep")
	foreign := strings.Replace(stolen, wikiHost, filesHost, 1)
	atPublic := strings.Replace(stolen, wikiHost, appHost, 1)
	hits := len(s.app.Requests())
	grant := stolen[strings.Index(stolen, "grant=")+6:]

	fresh := func() *testenv.Browser { return s.browser(t) }
	usedHere := func() *testenv.Browser { // has the flow cookies of these hosts, and is not signed in
		b := s.browser(t)
		b.MaxHops = 0
		b.Open("http://" + wikiHost + "/")
		b.Open("http://" + filesHost + "/")
		return b
	}
	owner := func() *testenv.Browser { return victim }
	for name, tc := range map[string]struct {
		browser func() *testenv.Browser
		url     string
		hosts   []string
	}{
		"in a browser that was never here": {fresh, stolen, []string{wikiHost}},
		"in a browser that was here":       {usedHere, stolen, []string{wikiHost}},
		"at another host":                  {owner, foreign, []string{filesHost}},
		"at another host, another browser": {usedHere, foreign, []string{filesHost}},
		"at the public host":               {fresh, atPublic, []string{appHost}},
		"changed": {owner, stolen[:len(stolen)-20] + "AAAAAAAAAAAAAAAAAAAA",
			[]string{wikiHost}},
		"cut":     {owner, stolen[:len(stolen)-10], []string{wikiHost}},
		"missing": {owner, "http://" + wikiHost + prefix + "/handoff", []string{wikiHost}},
		"empty": {owner, "http://" + wikiHost + prefix + "/handoff?grant=",
			[]string{wikiHost}},
		"a grant where a want belongs": {owner, "http://" + appHost + prefix + "/handoff?want=" + grant,
			[]string{wikiHost}},
		"at a host of nobody's, by wildcard": {usedHere, strings.Replace(stolen, wikiHost, "a.any.localhost", 1),
			[]string{"a.any.localhost"}},
	} {
		b := tc.browser()
		b.MaxHops = 0
		page := b.Open(tc.url)
		for _, host := range tc.hosts {
			if got := s.sessionAt(b, host); got != nil {
				t.Errorf("%s: %s is signed in at %s", name, got.Identity.ID(), host)
			}
		}
		for _, c := range page.SetCookie {
			if !strings.HasSuffix(c.Name, "-flow") {
				t.Errorf("%s: a session cookie is set", name)
			}
		}
		if name == "in a browser that was here" { // it begins a sign-in of its own
			if page.Status != 302 || !strings.Contains(page.Header.Get("Location"), appHost+prefix+"/handoff?want=") {
				t.Errorf("%s: %d %v", name, page.Status, page.Header)
			}
			continue
		}
		if page.Status != 400 || !strings.Contains(page.Body, "This address is not for this browser") ||
			!strings.Contains(page.Body, `href="http://`+page.URL.Host+`/"`) {
			t.Errorf("%s: %s\n%s", name, way(page), page.Body)
		}
	}
	if n := len(s.app.Requests()) - hits; n != 0 {
		t.Errorf("the app was asked %d times", n)
	}
	// None of that used it up: it is good where it belongs, once.
	victim.MaxHops = 10
	if page := victim.Open(stolen); page.Status != 200 || page.URL.Path != "/deep" {
		t.Errorf("the owner: %s", way(page))
	}
}

// A grant that was used is used, and one that is late is late. Who has a session on
// the host meanwhile just goes on.
func TestP06_AGrantIsForHalfAMinuteAndForOneUse(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	b := s.browser(t)
	b.Open("http://" + appHost + "/")
	used := s.grantFor(t, b, wikiHost, "/deep?x=1")
	if page := b.Open(used); page.Status != 200 {
		t.Fatal(way(page))
	}
	before := cookiesAt(b, wikiHost)
	if got := way(b.Open(used)); got != "303 wiki.localhost/handoff?grant → 200 wiki.localhost/deep?x" ||
		cookiesAt(b, wikiHost) != before {
		t.Errorf("again, with a session: %s", got)
	}
	s.forget(b, wikiHost)
	if page := b.Open(used); page.Status != 400 || s.sessionAt(b, wikiHost) != nil {
		t.Errorf("again, without one: %s", way(page))
	}

	late := s.grantFor(t, b, filesHost, "/deep")
	s.clock.Advance(30 * time.Second)
	b.MaxHops = 0
	if page := b.Open(late); page.Status != 302 || s.sessionAt(b, filesHost) != nil {
		t.Errorf("late: %s", way(page))
	}
	b.MaxHops = 10
	if got := way(b.Open(late)); got != "302 files.localhost/handoff?grant → 303 app.localhost/handoff?want → 303 "+
		"files.localhost/handoff?grant → 200 files.localhost/deep" {
		t.Errorf("late, it begins again: %s", got)
	}
	if got := way(b.Open(late)); got != "303 files.localhost/handoff?grant → 200 files.localhost/deep" {
		t.Errorf("late, with a session: %s", got)
	}
	// What begins again is not begun again for ever.
	s.forget(b, filesHost)
	b.MaxHops = 2 // late → public host → its second grant, not taken
	page := b.Open(late)
	second := page.Hops[1].Header.Get("Location")
	b.MaxHops = 10
	s.forget(b, filesHost)
	s.clock.Advance(30 * time.Second)
	if page := b.Open(second); page.Status != 400 {
		t.Errorf("the second late one: %s", way(page))
	}

	// A want is good for ten minutes; then there is a button.
	b.MaxHops = 0
	want := b.Open("http://" + filesHost + "/deep").Header.Get("Location")
	s.clock.Advance(10 * time.Minute)
	if page := b.Open(want); page.Status != 400 || !strings.Contains(page.Body, `href="http://`+filesHost+`/deep"`) {
		t.Errorf("a late want: %s\n%s", way(page), page.Body)
	}
}

// forget takes the session cookie of a host from a browser.
func (s *testSite) forget(b *testenv.Browser, host string) {
	for _, c := range b.Cookies("http://" + host + "/") {
		if !strings.HasSuffix(c.Name, "-flow") {
			b.SetCookies("http://"+host+"/", &http.Cookie{Name: c.Name, MaxAge: -1, Path: "/"})
		}
	}
}

// Signing out on any host ends the sign-in on all of them, streams too.
func TestP10_SigningOutOnOneHostSignsOutOnAll(t *testing.T) {
	t.Parallel()
	for _, from := range []string{wikiHost, appHost} {
		s := newHosts(t, setup{Login: everybodyIs(alice())})
		b := s.browser(t)
		for _, host := range []string{wikiHost, filesHost} {
			if page := b.Open("http://" + host + "/"); page.Status != 200 {
				t.Fatal(way(page))
			}
		}
		files, app := cookiesAt(b, filesHost), cookiesAt(b, appHost)
		ask := b.Open("http://" + from + prefix + "/logout")
		csp := ask.Header.Get("Content-Security-Policy")
		if from != appHost && !strings.Contains(csp, "form-action 'self' http://"+appHost+";") {
			t.Errorf("the form may not lead to the public host: %s", csp)
		}
		page := b.Submit(ask, "", "")
		if page.Status != 200 || page.URL.Host != appHost || !strings.Contains(page.Body, "signed out") {
			t.Errorf("from %s: %s\n%s", from, way(page), page.Body)
		}
		for _, host := range []string{from, appHost} {
			for _, c := range b.Cookies("http://" + host + "/") {
				if !strings.HasSuffix(c.Name, "-flow") {
					t.Errorf("from %s: the cookie of %s is still there", from, host)
				}
			}
		}
		if a := s.get(t, "http://"+filesHost+"/x", files); a.status != 401 {
			t.Errorf("from %s: files answers %d", from, a.status)
		}
		if a := s.get(t, "http://"+appHost+"/x", app); a.status != 401 {
			t.Errorf("from %s: app answers %d", from, a.status)
		}
		if got := way(b.Open("http://" + from + prefix + "/logout")); !strings.HasSuffix(got,
			"200 app.localhost/logout") {
			t.Errorf("signed out already, from %s: %s", from, got)
		}
		other := s.ask(t, "POST", "http://"+from+prefix+"/logout", "", "Origin: http://"+filesHost, "Sec-Fetch-Site: "+
			"same-site", files)
		if other.status != 403 {
			t.Errorf("a form of another host signs out: %d", other.status)
		}
	}
}

// A host is handed its session anew after a quarter of an hour, when a page is opened,
// and for nothing else. What the session was used for counts for the public host.
func TestAHandOverIsRepeatedForPagesOnly(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	b := s.browser(t)
	b.Open("http://" + wikiHost + "/")
	s.clock.Advance(14 * time.Minute)
	if got := way(b.Open("http://" + wikiHost + "/a?b=c")); got != "200 wiki.localhost/a?b" {
		t.Errorf("after 14 minutes: %s", got)
	}
	s.clock.Advance(time.Minute)
	cookie := cookiesAt(b, wikiHost)
	for name, a := range map[string]answer{
		"a fetch":       s.get(t, "http://"+wikiHost+"/a", cookie),
		"a HEAD":        s.ask(t, "HEAD", "http://"+wikiHost+"/a", "", navigate(cookie)...),
		"a form":        s.ask(t, "POST", "http://"+wikiHost+"/a", "a=b", navigate(cookie)...),
		"a prefetch":    s.get(t, "http://"+wikiHost+"/a", navigate(cookie, "Sec-Purpose: prefetch")...),
		"GET session":   s.get(t, "http://"+wikiHost+prefix+"/session", cookie),
		"a sign-in":     s.get(t, "http://"+wikiHost+prefix+"/login?return_to=/a", navigate(cookie)...),
		"a public page": s.get(t, "http://www.localhost/a", navigate()...),
	} {
		want := 200
		if name == "a sign-in" {
			want = 303
		}
		if a.status != want || strings.Contains(a.header.Get("Location"), "handoff") {
			t.Errorf("%s: %d to %q", name, a.status, a.header.Get("Location"))
		}
	}
	if got := way(b.Open("http://" + wikiHost + "/a?b=c")); got != "302 wiki.localhost/a?b → 303 "+
		"app.localhost/handoff?want → 303 wiki.localhost/handoff?grant → 200 wiki.localhost/a?b" {
		t.Errorf("after 15 minutes: %s", got)
	}
	if got := way(b.Open("http://" + wikiHost + "/a?b=c")); got != "200 wiki.localhost/a?b" {
		t.Errorf("the next page: %s", got)
	}
	// Five hours on one host, a page every twenty minutes, and nobody signs in again.
	root := s.sessionAt(b, appHost)
	for range 15 {
		s.clock.Advance(20 * time.Minute)
		if page := b.Open("http://" + wikiHost + "/a"); page.Status != 200 || strings.Contains(way(page), "callback") {
			t.Fatal(way(page))
		}
	}
	if now := s.sessionAt(b, appHost); now == nil || now.Root != root.Root {
		t.Errorf("the sign-in is %+v", now)
	}
}

// With a session, an address too long to come back to is not lost: its page is served, and
// the hand-over that is due waits for another one. To sign in for it leads to the first page
// of its host, as at the public host.
func TestALongAddressIsNotLostToAHandOver(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	longest := "/deep?q=" + strings.Repeat("x", session.MaxReturnTo-len("/deep?q="))
	b := s.browser(t)
	if page := b.Open("http://" + wikiHost + longest + "y"); page.Status != 200 || page.URL.RequestURI() != "/" {
		t.Fatalf("to sign in for one: %s", way(page))
	}
	if page := b.Open("http://" + wikiHost + longest + "y"); page.Status != 200 || len(page.Hops) != 1 {
		t.Errorf("with a session: %s", way(page))
	}
	s.clock.Advance(16 * time.Minute)
	if page := b.Open("http://" + wikiHost + longest + "y"); page.Status != 200 || len(page.Hops) != 1 {
		t.Errorf("while a hand-over is due: %s", way(page))
	}
	if page := b.Open("http://" + wikiHost + longest); page.Status != 200 || page.URL.RequestURI() != longest ||
		len(page.Hops) != 4 {
		t.Errorf("one that can be returned to: %s", way(page))
	}
	b = s.browser(t)
	if page := b.Open("http://" + wikiHost + longest); page.Status != 200 || page.URL.RequestURI() != longest {
		t.Errorf("to sign in for that one: %s", way(page))
	}
}

// A page that polls /session keeps the cookie of its host alive, and the next page
// that is opened there takes the public host along, although it has idled out.
func TestTheUseOfAnotherHostKeepsTheSignIn(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	b := s.browser(t)
	b.Open("http://" + wikiHost + "/")
	for range 4 {
		s.clock.Advance(25 * time.Minute)
		a := s.get(t, "http://"+wikiHost+prefix+"/session", cookiesAt(b, wikiHost))
		if a.status != 200 || a.header.Get("Set-Cookie") == "" {
			t.Fatalf("%d %v", a.status, a.header)
		}
		b.SetCookies("http://"+wikiHost+"/", (&http.Response{Header: a.header}).Cookies()...)
	}
	if s.sessionAt(b, appHost) != nil {
		t.Fatal("the public host has not idled out")
	}
	hits := len(s.app.Requests())
	page := b.Open("http://" + wikiHost + "/a")
	if strings.Contains(way(page), "callback") || page.Status != 200 || len(s.app.Requests()) != hits+1 ||
		s.sessionAt(b, appHost) == nil {
		t.Errorf("%s", way(page))
	}
	// Without that it idles out: nobody used any host.
	s.clock.Advance(61 * time.Minute)
	if got := way(b.Open("http://" + wikiHost + "/a")); !strings.Contains(got, "callback") {
		t.Errorf("after an hour: %s", got)
	}
}

// The public host learns of the use of another one when a page is opened there, every 15
// minutes at most. Who opens a third host may be sent to the provider meanwhile, as the guide says.
func TestTheUseOfAnotherHostIsKnownLate(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	for used, signsIn := range map[time.Duration]bool{14 * time.Minute: true, 16 * time.Minute: false} {
		b := s.browser(t)
		b.Open("http://" + wikiHost + "/")
		s.clock.Advance(used)
		b.Open("http://" + wikiHost + "/b")
		s.clock.Advance(59 * time.Minute)
		if got := way(b.Open("http://" + filesHost + "/a")); strings.Contains(got, "callback") != signsIn {
			t.Errorf("wiki was used %s after the sign-in: %s", used, got)
		}
	}
}

// tenants is a browser of ines, who belongs to Acme and to Birch.
func tenants(t *testing.T) (*testSite, *testenv.Browser) {
	t.Helper()
	s := newHosts(t, setup{Login: everybodyIs(ines()), Orgs: foldedOrgs(t)})
	return s, s.browser(t)
}

// On the host of an organization that organization is the active one, without a
// choice, and nowhere else.
func TestP01_AnOrganizationsHostIsForThatOrganization(t *testing.T) {
	t.Parallel()
	s, b := tenants(t)
	page := b.Open("http://acme.tenants.localhost/deep?a=1")
	if page.Status != 200 || page.URL.RequestURI() != "/deep?a=1" ||
		fmt.Sprint(s.told(t)["x-forwarded-org-id"]) != "[acme]" {
		t.Fatalf("%s: told %v", way(page), s.told(t))
	}
	if root := s.sessionAt(b, appHost); !root.Identity.MustPick() {
		t.Errorf("at the public host she is here for %+v", root.Identity.Org)
	}
	// Where the name says nothing she chooses, and comes back.
	page = b.Open("http://" + wikiHost + "/deep?a=2")
	if page.URL.Host != appHost || !strings.Contains(page.Body, "Choose an organization") {
		t.Fatalf("%s\n%s", way(page), page.Body)
	}
	if csp := page.Header.Get("Content-Security-Policy"); !strings.Contains(csp,
		"form-action 'self' http://"+wikiHost+";") {
		t.Errorf("the choice may not lead there: %s", csp)
	}
	page = b.Submit(page, "org", "main:birch")
	if page.Status != 200 || page.URL.String() != "http://wiki.localhost/deep?a=2" ||
		fmt.Sprint(s.told(t)["x-forwarded-org-id"]) != "[main:birch]" {
		t.Errorf("%s: told %v", way(page), s.told(t))
	}
	if page = b.Open("http://acme.tenants.localhost/"); len(page.Hops) != 1 ||
		fmt.Sprint(s.told(t)["x-forwarded-org-id"]) != "[acme]" {
		t.Errorf("%s: told %v", way(page), s.told(t))
	}
	// A switch at the public host is one on the hosts that follow it.
	wiki := cookiesAt(b, wikiHost)
	account := b.Open("http://" + appHost + prefix + "/account")
	b.Submit(account, "org", "acme")
	if a := s.get(t, "http://"+wikiHost+"/", wiki); a.status != 401 {
		t.Errorf("the wiki still takes her for Birch: %d", a.status)
	}
	if page = b.Open("http://" + wikiHost + "/"); page.Status != 200 ||
		fmt.Sprint(s.told(t)["x-forwarded-org-id"]) != "[acme]" {
		t.Errorf("%s: told %v", way(page), s.told(t))
	}
	if page = b.Open("http://acme.tenants.localhost/"); len(page.Hops) != 1 {
		t.Errorf("the host of Acme was closed by that: %s", way(page))
	}
}

// webSocketAt opens a WebSocket on a host, as a page of b there would.
func (s *testSite) webSocketAt(t *testing.T, b *testenv.Browser, host string) *wire {
	t.Helper()
	w := s.wire(t)
	w.dial()
	_, err := io.WriteString(w.conn, handshake("/chat", host, cookiesAt(b, host)))
	testenv.Check(t, err)
	if res, err := http.ReadResponse(w.in, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("the WebSocket: %v, %v", res, err)
	}
	return w
}

// To open the host of an organization changes nothing on other hosts: what is open there
// stays open, for the organization that was chosen.
func TestAnOrganizationsHostClosesNothingOnOtherHosts(t *testing.T) {
	t.Parallel()
	app := serveApp(t, "http", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			wsApp("", echo)(w, r)
			return
		}
		_, _ = io.WriteString(w, "ok")
	})
	s := newHosts(t, setup{Login: everybodyIs(ines()), Orgs: foldedOrgs(t), App: app})
	b := s.browser(t)
	if page := b.Submit(b.Open("http://"+wikiHost+"/"), "org", "main:birch"); page.Status != 200 {
		t.Fatal(way(page))
	}
	root, wiki := s.sessionAt(b, appHost), s.sessionAt(b, wikiHost)
	chat := s.webSocketAt(t, b, wikiHost)
	stranger := s.browser(t)
	stranger.Submit(stranger.Open("http://"+wikiHost+"/"), "org", "acme")
	later := s.webSocketAt(t, stranger, wikiHost)
	if page := b.Open("http://acme.tenants.localhost/"); page.Status != 200 {
		t.Fatal(way(page))
	}
	acme := s.sessionAt(b, "acme.tenants.localhost")
	if now := s.sessionAt(b, appHost); now.ID != root.ID || now.Identity.Org.ID != "main:birch" ||
		acme.Identity.Org.ID != "acme" || acme.Root != root.Root || acme.ID == wiki.ID {
		t.Errorf("at the public host %+v, at the organization's %+v", now, acme)
	}
	if page := b.Open("http://" + wikiHost + "/"); page.Status != 200 || len(page.Hops) != 1 {
		t.Errorf("the wiki: %s", way(page))
	}
	// By the time that a later end of another session has closed its own.
	testenv.Check(t, s.sessions.EndSignIn(t.Context(), *s.sessionAt(stranger, wikiHost)))
	if got, _ := readWithin(t, later.in, -1, soon); !strings.Contains(got, "\x03\xf0") {
		t.Errorf("the stranger's WebSocket says %q", got)
	}
	_, err := io.WriteString(chat.conn, "still here")
	testenv.Check(t, err)
	if got, err := readWithin(t, chat.in, 10, soon); got != "still here" || err != nil {
		t.Errorf("the WebSocket: %q, %v", got, err)
	}
}

func TestP01_WhoDoesNotBelongToAHostsOrganizationIsTold(t *testing.T) {
	t.Parallel()
	s, b := tenants(t)
	page := b.Open("http://cedar.tenants.localhost/deep")
	if page.Status != 403 || page.URL.Host != appHost || s.sessionAt(b, "cedar.tenants.localhost") != nil ||
		len(s.app.Requests()) != 0 {
		t.Fatalf("%s", way(page))
	}
	for _, words := range []string{"cedar.tenants.localhost is for cedar, and your account does not belong to it.",
		`href="http://acme.tenants.localhost/"><bdi>Acme Rockets</bdi>`, "Sign in as someone else"} {
		if !strings.Contains(page.Body, words) {
			t.Errorf("the page does not say %q:\n%s", words, page.Body)
		}
	}
	if strings.Contains(page.Body, "birch.tenants") { // it has no host
		t.Errorf("the page names a host that there is not:\n%s", page.Body)
	}
	if page = b.Click(page, "http://acme.tenants.localhost/"); page.Status != 200 {
		t.Errorf("her own: %s", way(page))
	}
	if page = b.Open("http://nobody.tenants.localhost/"); page.Status != 404 {
		t.Errorf("a host of no organization: %s", way(page))
	}
}

// Refused on another host, people find the way to another organization or account.
func TestARefusalOnAnotherHostLeadsOn(t *testing.T) {
	t.Parallel()
	s, b := tenants(t)
	b.Submit(b.Open("http://"+wikiHost+"/"), "org", "acme")
	refused := b.Open("http://" + wikiHost + "/bank?a=1")
	if refused.Status != 403 || !strings.Contains(refused.Body, "Choose another of your organizations") {
		t.Fatalf("%s\n%s", way(refused), refused.Body)
	}
	page := b.Click(refused, prefix+"/organization?return_to=%2Fbank%3Fa%3D1")
	page = b.Submit(page, "org", "main:birch")
	if page.Status != 200 || page.URL.String() != "http://wiki.localhost/bank?a=1" {
		t.Errorf("%s", way(page))
	}
	if got := way(b.Open("http://" + wikiHost + prefix + "/account")); got != "303 wiki.localhost/account → 200 "+
		"app.localhost/account" {
		t.Errorf("the account: %s", got)
	}
	// As somebody else: the first one is gone, on all hosts.
	old, app := s.sessionAt(b, wikiHost), cookiesAt(b, appHost)
	page = b.Open("http://" + wikiHost + prefix + "/login?return_to=%2Fnext&switch=" + switchValue(old))
	if now := s.sessionAt(b, wikiHost); !strings.Contains(way(page), "callback") || now != nil && now.Root == old.Root {
		t.Errorf("%s", way(page))
	}
	if a := s.get(t, "http://"+appHost+"/x", app); a.status != 401 {
		t.Errorf("the first one is still there: %d", a.status)
	}
	if a := s.get(t, "http://"+wikiHost+prefix+"/login?switch=00", navigate(cookiesAt(b, appHost))...); a.status != 302 {
		t.Errorf("a link of another site: %d", a.status)
	}
}

// Its own endpoints, and no others, are on another host.
func TestTheEndpointsOfAnotherHost(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	b := s.browser(t)
	b.Open("http://" + wikiHost + "/")
	hits := len(s.app.Requests())
	cookie := cookiesAt(b, wikiHost)
	for path, want := range map[string]int{
		"login": 303, "handoff": 400, "logout": 200, "session": 200, "renew": 303, "jwks.json": 200, "mark.svg": 200, "account": 303,
		"organization":  303,
		"callback/main": 404, "connect/x": 404, "backchannel-logout/main": 404, "nothing": 404, "": 404,
	} {
		if a := s.get(t, "http://"+wikiHost+prefix+"/"+path, navigate(cookie)...); a.status != want {
			t.Errorf("%s: %d, want %d", path, a.status, want)
		}
	}
	if a := s.ask(t, "POST", "http://"+wikiHost+prefix+"/organization", "org=x", cookie, "Origin: http://"+wikiHost); a.status != 405 {
		t.Errorf("a choice there: %d", a.status)
	}
	if n := len(s.app.Requests()) - hits; n != 0 {
		t.Errorf("the app was asked %d times for what is ours", n)
	}
	// A host of public routes only stays the app's.
	if a := s.get(t, "http://www.localhost"+prefix+"/login"); a.status != 200 || len(s.app.Requests()) != hits+1 {
		t.Errorf("a public host: %d", a.status)
	}
	b = s.browser(t)
	if got := way(b.Open("http://" + wikiHost + "./deep")); !strings.HasPrefix(got, "302 wiki.localhost./deep → 302 "+
		"wiki.localhost/login?return_to → 302 app") ||
		!strings.HasSuffix(got, "→ 200 wiki.localhost/deep") {
		t.Errorf("with a dot at its end: %s", got)
	}
}

// A frame is handed its session like a page; where nobody is signed in it has a link
// that signs in with the whole window.
func TestAFrameIsHandedItsSession(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	b := s.browser(t)
	b.Frame = true
	page := b.Open("http://" + wikiHost + "/deep")
	if page.Status != 401 || page.URL.Host != appHost || !strings.Contains(page.Body, `target="_top"`) {
		t.Fatalf("%s\n%s", way(page), page.Body)
	}
	if csp := page.Header.Get("Content-Security-Policy"); !strings.Contains(csp,
		"frame-ancestors 'self' http://"+appHost+" http://"+wikiHost+";") {
		t.Errorf("who may frame it: %s", csp)
	}
	b.Frame = false
	b.Open("http://" + appHost + "/")
	b.Frame = true
	if got := way(b.Open("http://" + wikiHost + "/deep")); !strings.HasSuffix(got, "200 wiki.localhost/deep") {
		t.Errorf("signed in: %s", got)
	}
}

// lostStore is a list of what counts once that cannot be reached.
type lostStore struct{}

func (lostStore) Consume(context.Context, string, time.Time) (bool, error) {
	return false, fmt.Errorf("%w: connection refused", session.ErrStore)
}

func TestAHandOffWaitsForItsStore(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice()), Once: lostStore{}})
	b := s.browser(t)
	page := b.Open("http://" + wikiHost + "/deep")
	if page.Status != 503 || page.Header.Get("Retry-After") != "5" || s.sessionAt(b, wikiHost) != nil ||
		len(s.app.Requests()) != 0 {
		t.Errorf("%s %v", way(page), page.Header)
	}
	if got := s.counted(t, "sallyport_handoffs_total", "result", "store"); got != 1 {
		t.Errorf("counted %v", got)
	}
	if page := b.Open("http://" + appHost + "/deep"); page.Status != 200 {
		t.Errorf("the public host needs no store for that: %s", way(page))
	}
}

// Of two processes that share what counts once, one takes a grant.
func TestP06_AGrantIsUsedOnceOnAllReplicas(t *testing.T) {
	t.Parallel()
	once := session.NewMemory(session.MemoryOptions{})
	key := session.NewKey(time.Now().Add(-time.Hour))
	first := newHosts(t, setup{Login: everybodyIs(alice()), Once: once, Key: key})
	second := newHosts(t, setup{Login: everybodyIs(alice()), Once: once, Key: key})
	b := first.browser(t)
	b.Open("http://" + appHost + "/")
	to := first.grantFor(t, b, wikiHost, "/deep")
	cookie := cookiesAt(b, wikiHost)
	if a := second.get(t, to, navigate(cookie)...); a.status != 303 ||
		a.header.Get("Location") != "http://wiki.localhost/deep" {
		t.Errorf("the one: %d %v", a.status, a.header)
	}
	if a := first.get(t, to, navigate(cookie)...); a.status != 400 {
		t.Errorf("the other: %d %v", a.status, a.header)
	}
}

// A browser that keeps no session cookie on a host is not led in a circle.
func TestAHandOffThatDoesNotStickEndsWithAPage(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	b := s.browser(t)
	b.Open("http://" + appHost + "/")
	var page testenv.Page
	b.MaxHops = 2 // up to the answer with the cookie
	for range 4 {
		page = b.Open("http://" + wikiHost + "/deep")
		s.forget(b, wikiHost)
	}
	b.MaxHops = 10
	if page.Status != 400 || !strings.Contains(page.Body, "Signing in does not stick") ||
		!strings.Contains(page.Body, `href="http://wiki.localhost`+prefix+`/login?return_to=%2Fdeep"`) {
		t.Errorf("%s\n%s", way(page), page.Body)
	}
	if page = b.Open("http://" + wikiHost + "/deep"); page.Status != 200 { // and may try again
		t.Errorf("%s", way(page))
	}
	for range 5 { // who signs in on several hosts is in no circle
		for _, host := range []string{wikiHost, filesHost, "a.any.localhost"} {
			if page = b.Open("http://" + host + "/"); page.Status != 200 {
				t.Errorf("%s", way(page))
			}
		}
	}
}

// Thirty tabs that are opened at once agree on a cookie in the end, and all land where
// they wanted to.
func TestTabsThatAreOpenedAtOnceAllArrive(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{Login: everybodyIs(alice())})
	b := s.browser(t)
	b.Open("http://" + appHost + "/")
	b.MaxHops = 0
	tabs := make([]string, 30)
	for i := range tabs { // each is asked for before another one's answer is there
		other := s.browser(t)
		other.MaxHops = 0
		page := other.Open(fmt.Sprintf("http://%s/tab/%d", wikiHost, i))
		tabs[i] = page.Header.Get("Location")
		b.SetCookies("http://"+wikiHost+"/", page.SetCookie...)
	}
	b.MaxHops = 10
	for i, next := range tabs {
		if page := b.Open(next); page.Status != 200 || page.URL.Path != fmt.Sprintf("/tab/%d", i) {
			t.Errorf("tab %d: %s", i, way(page))
		}
	}
}

// R answers only hosts of the configuration that runs, and leads nowhere else.
func TestP05_AHandOffLeadsOnlyToHostsOfRoutes(t *testing.T) {
	t.Parallel()
	key := session.NewKey(time.Now().Add(-time.Hour))
	before := newHosts(t, setup{Login: everybodyIs(alice()), Key: key})
	after := newHosts(t, setup{Login: everybodyIs(alice()), Key: key,
		Routes: slices.DeleteFunc(hostRoutes(), func(r authz.Route) bool { return r.Host == wikiHost })})
	want := before.get(t, "http://"+wikiHost+"/x", navigate()...).header.Get("Location")
	b := after.browser(t)
	b.Open("http://" + appHost + "/")
	if page := b.Open(want); page.Status != 400 || page.Header.Get("Location") != "" {
		t.Errorf("%s", way(page))
	}
	if page := b.Open("http://" + wikiHost + "/x"); page.Status != 404 {
		t.Errorf("%s", way(page))
	}
	for _, to := range []string{"//evil.example/x", "https://evil.example/", `/\evil.example`, prefix + "/logout"} {
		page := b.Open("http://" + filesHost + prefix + "/login?return_to=" + url.QueryEscape(to))
		if page.URL.String() != "http://"+filesHost+"/" {
			t.Errorf("%q leads to %s", to, page.URL)
		}
	}
	for _, sealed := range []string{"", "x", "%00", strings.Repeat("A", 3000),
		want[strings.Index(want, "want=")+5:] + "&want=x"} {
		page := b.Open("http://" + appHost + prefix + "/login?return_to=" + url.QueryEscape(prefix+"/handoff?want="+sealed))
		if page.URL.Host != appHost {
			t.Errorf("%.40q leads to %s", sealed, page.URL)
		}
	}
}

// With several providers people choose, and come back to the host that they wanted.
func TestTheChoiceOfAProviderLeadsBackToTheHost(t *testing.T) {
	t.Parallel()
	second := Provider{ID: "other", Name: "Other", Login: everybodyIs(bob())}
	s := newHosts(t, setup{Login: everybodyIs(alice()), Second: &second})
	b := s.browser(t)
	page := b.Open("http://" + wikiHost + "/deep?" + strings.Repeat("q", 900))
	if page.Status != 200 || page.URL.Host != appHost {
		t.Fatalf("%s", way(page))
	}
	if page = b.Choose(page, "provider", "main"); page.Status != 200 || page.URL.Host != wikiHost ||
		len(page.URL.RawQuery) != 900 {
		t.Errorf("%s", way(page))
	}
	b = s.browser(t)
	if page = b.Open("http://" + wikiHost + prefix + "/login?provider=main&return_to=%2Fx"); page.URL.String() != "http://wiki.localhost/x" {
		t.Errorf("an app that chooses: %s", way(page))
	}
}

var errNotSignedIn = errors.New("nobody signs in here")

// A sign-in that fails offers to try again, and that leads to the host too.
func TestAFailedSignInForAnotherHostIsTriedAgain(t *testing.T) {
	t.Parallel()
	login := backAtOnce{fixedLogin{err: &identity.SignInError{Failure: identity.Unavailable, Err: errNotSignedIn}}}
	swap := &swapLogin{}
	swap.use(login)
	s := newHosts(t, setup{Login: swap})
	b := s.browser(t)
	page := b.Open("http://" + wikiHost + "/deep")
	if page.Status != 503 {
		t.Fatalf("%s", way(page))
	}
	swap.use(everybodyIs(alice()))
	at := strings.Index(page.Body, prefix+"/login?return_to=")
	if at < 0 {
		t.Fatal(page.Body)
	}
	href, _, _ := strings.Cut(page.Body[at:], `"`)
	if page = b.Click(page, href); page.Status != 200 || page.URL.String() != "http://wiki.localhost/deep" {
		t.Errorf("%s", way(page))
	}
}

// The provider is asked again, without the person, on the way of a hand-off too: who
// only works on another host loses what they no longer have.
func TestAHandOffAsksTheProviderAgain(t *testing.T) {
	t.Parallel()
	s := newHosts(t, setup{SignIn: true, Reauth: asked})
	b := s.browser(t)
	page := b.SignIn(b.Open("http://"+wikiHost+"/deep?a=1"), "jonas")
	if page.Status != 200 || page.URL.String() != "http://wiki.localhost/deep?a=1" {
		t.Fatal(way(page))
	}
	s.due(t, b)
	s.provider.Set(testenv.Fault{Endpoint: testenv.Token, Claims: testenv.With("groups", []string{"engineering"})})
	page = b.Open("http://" + wikiHost + "/deep?q=1%2F2")
	silently(t, s, page)
	if page.Status != 200 || page.URL.String() != "http://wiki.localhost/deep?q=1%2F2" ||
		strings.Contains(fmt.Sprint(s.told(t)), "admins") {
		t.Errorf("%s: told %v", way(page), s.told(t))
	}
}

// A group is lost at the provider, which is asked again while the person is at another
// host. On the host of their organization, where no switch ends the session, it ends all
// the same, with its copies and what is open; the next page there has what is left.
func TestP11_ALostGroupReachesTheHostOfAnOrganizationAtOnce(t *testing.T) {
	t.Parallel()
	everybody := authz.Access{Authenticated: true}
	app := serveApp(t, "http", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			wsApp("", echo)(w, r)
			return
		}
		_, _ = io.WriteString(w, "ok")
	})
	orgs, err := identity.NewOrganizations([]identity.Organization{{ID: "acme", OrgIDs: []string{"main:acme"}}})
	testenv.Check(t, err)
	s := newHosts(t, setup{SignIn: true, Reauth: asked, Orgs: orgs, App: app, Routes: append(hostRoutes(),
		authz.Route{Name: "chat", Host: "{org}.tenants.localhost", Orgs: []string{"acme"}, Path: "/chat",
			Access: everybody, WebSocket: authz.WebSocket{Allowed: true}},
		authz.Route{Name: "admin", Host: "{org}.tenants.localhost", Orgs: []string{"acme"}, Path: "/admin",
			Access: authz.Access{Rules: []authz.Rule{{Groups: []string{"admins"}}}}})})
	b := s.browser(t)
	const acme = "acme.tenants.localhost"
	if page := b.SignIn(b.Open("http://"+acme+"/admin/a"), "jonas"); page.Status != 200 || page.URL.Host != acme {
		t.Fatal(way(page))
	}
	s.due(t, b)
	copied := cookiesAt(b, acme)
	chat := s.webSocketAt(t, b, acme)
	if a := s.get(t, "http://"+acme+"/admin/x", copied); a.status != 200 {
		t.Fatalf("a fetch before: %d", a.status)
	}

	s.provider.Set(testenv.Fault{Endpoint: testenv.Token, Claims: testenv.With("groups", []string{"engineering"})})
	silently(t, s, b.Open("http://"+appHost+"/deep"))
	for _, path := range []string{"/admin/x", "/x"} {
		if a := s.get(t, "http://"+acme+path, copied); a.status != 401 {
			t.Errorf("a copy of the old cookie at %s: %d", path, a.status)
		}
	}
	if got, _ := readWithin(t, chat.in, -1, soon); !strings.HasPrefix(got, "\x88") || !strings.Contains(got, "\x03\xf0") {
		t.Errorf("the WebSocket says %q", got)
	}
	if page := b.Open("http://" + acme + "/admin/b"); page.Status != 403 || page.URL.Path != "/admin/b" {
		t.Errorf("what the group opened: %s", way(page))
	}
	if got := way(b.Open("http://" + acme + "/x")); got != "200 "+acme+"/x" {
		t.Errorf("what is left: %s", got)
	}
}

// How hand-offs went is counted, and the audit stream says who was given a session on
// which host, and who tried in vain.
func TestHandOffsAreCountedAndAudited(t *testing.T) {
	t.Parallel()
	s, b := tenants(t)
	var stream bytes.Buffer
	audit := observe.NewAudit(&stream, func(r observe.Record, err error) { t.Errorf("lost %v: %v", r, err) })
	s.proxy.observers = append(s.proxy.observers, audit)
	const acme = "acme.tenants.localhost"
	want := map[string]float64{}
	counts := func(result string) {
		t.Helper()
		want[result]++
		for _, name := range []string{"ok", "late", "used", "other_browser", "forged", "ended", "not_theirs", "store"} {
			if got := s.counted(t, "sallyport_handoffs_total", "result", name); got != want[name] {
				t.Errorf("after %s: %s is counted %v times, want %v", result, name, got, want[name])
			}
		}
	}
	b.Open("http://" + acme + "/deep")
	counts("ok")
	b.Open("http://cedar.tenants.localhost/deep")
	counts("not_theirs")
	s.forget(b, acme)
	used := s.grantFor(t, b, acme, "/x")
	s.browser(t).Open(used)
	counts("other_browser")
	b.MaxHops = 0
	b.Open(used + "A")
	counts("forged")
	b.Open(used)
	counts("ok")
	b.Open(used)
	counts("used")
	b.MaxHops = 10
	s.forget(b, acme)
	late := s.grantFor(t, b, acme, "/x")
	b.MaxHops = 0
	s.clock.Advance(30 * time.Second)
	b.Open(late)
	counts("late")
	audit.Close(time.Second)
	var got []string
	for dec := json.NewDecoder(&stream); ; {
		var r observe.Record
		if dec.Decode(&r) != nil {
			break
		}
		if r.Event == string(observe.HandOff) {
			got = append(got, fmt.Sprintf("%s %s %d %s", r.Host, r.User, r.Status, r.Detail))
		}
	}
	const ines = "main:ines-1"
	if wanted := []string{
		acme + " " + ines + " 303 ",
		appHost + " " + ines + ` 403 cedar.tenants.localhost is for the organization "cedar", and ` + ines +
			" does not belong to it",
		acme + "  400 a session of " + ines + " was not taken, other_browser: hand-off: this browser did not begin a " +
			"sign-in here",
		acme + "  400 hand-off: the grant is not for this host, or not ours",
		acme + " " + ines + " 303 ",
		acme + " " + ines + " 303 a session of " + ines + " was not taken, used",
		acme + "  302 a session of " + ines + " was not taken, late",
	}; !slices.Equal(got, wanted) {
		t.Errorf("audited %q\nwant    %q", got, wanted)
	}
}

// Each host has a cache of its own, which only an answer of that host can clear: where somebody else
// is given a session there than before, or the same person for another organization.
func TestP10_AHostForgetsThePagesOfWhoWasThereBefore(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before, who identity.Identity
		cleared     bool
	}{
		"somebody else":        {alice(), bob(), true},
		"the same person":      {bob(), bob(), false},
		"another organization": {picked(t, "acme"), picked(t, "main:birch"), true},
	} {
		s := newHosts(t, setup{Login: everybodyIs(tt.who)})
		h := headerWriter{}
		testenv.Check(t, s.sessions.Write(h, "wiki.localhost", s.sessions.Start(tt.before)))
		pair, _, _ := strings.Cut(http.Header(h).Get("Set-Cookie"), ";")
		cookie, value, _ := strings.Cut(pair, "=")
		b := s.browser(t)
		b.SetCookies("http://"+wikiHost, &http.Cookie{Name: cookie, Value: value})
		s.clock.Advance(61 * time.Minute)
		page := b.Open("http://" + wikiHost + "/deep")
		taken := slices.IndexFunc(page.Hops, func(hop testenv.Hop) bool {
			return hop.URL.Host == wikiHost && hop.URL.Path == prefix+"/handoff"
		})
		if page.Status != 200 || taken < 0 {
			t.Fatalf("%s: %s", name, way(page))
		}
		if got := page.Hops[taken].Header.Get("Clear-Site-Data"); (got == `"cache"`) != tt.cleared {
			t.Errorf("%s: Clear-Site-Data %q", name, got)
		}
	}
}
