package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// The button is a form of a page with our own Referrer-Policy. With another one
// browsers send "Origin: null", and the check against other sites would refuse.
func TestP10_SignOutTakesTheSessionFromTheBrowserAndFromTheServer(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	b := newPerson(t)
	b.signIn(demo.url+"/", "mira")
	b.press("Your account")
	b.heading("Your account")
	old := b.cookies(demo.url)[demo.cookie]
	if old == nil {
		t.Fatal("there is no session cookie")
	}
	b.press("Sign out")
	v := b.heading("You are signed out")
	b.says(v, "This browser is no longer signed in here.", "On a shared computer?")
	if v.URL != demo.url+"/.sallyport/logout?provider=demo" {
		t.Errorf("signed out at %s", v.URL)
	}
	if c, there := b.cookies(demo.url)[demo.cookie]; there {
		t.Errorf("the browser still has the cookie %s", c.Name)
	}
	if status, body := asProgram(t, demo.url+"/.sallyport/session",
		demo.cookie+"="+old.Value); status != http.StatusUnauthorized || strings.Contains(body, "mira") {
		t.Errorf("the old cookie still gets %d %s", status, body)
	}
	for range 2 { // the account page, then the app
		before := b.entry()
		b.back()
		v = b.sees("the page before", func(v view) bool { return b.entry() != before && v.Ready })
		b.saysNot(v, "Your account", "Hello", "demo:mira")
		if v.H1 != "Sign in" { // Back asks anew, and nobody is signed in
			t.Errorf("Back leads to %s %q", v.URL, v.H1)
		}
	}
}

// entry is where in its history the tab is.
func (b *tab) entry() string {
	r, err := chromedp.Run(b.ctx, chromedp.NavigationEntries())
	if err != nil {
		return ""
	}
	return fmt.Sprint(r.CurrentIndex, len(r.Entries), r.Entries[r.CurrentIndex].URL)
}

// forget deletes a site's cookies.
func (b *tab) forget(url string) {
	b.t.Helper()
	for name := range b.cookies(url) {
		ask(b, network.DeleteCookies, network.DeleteCookiesParams{Name: name, URL: url})
	}
}

// An app that lets its pages be kept: sign-out empties the cache, so that Back
// shows nothing of it.
func TestP10_BackAfterSignOutShowsNothingOfACachedApp(t *testing.T) {
	t.Parallel()
	c := theSecureCorp(t)
	b := newPerson(t)
	b.signInAtProvider(c.url+"/report", "mira")
	b.press("Account")
	b.heading("Your account")
	b.press("Sign out")
	b.heading("You are signed out")
	b.forget(c.provider.Issuer) // or Back would sign her in again, without a word
	for range 2 {
		before := b.entry()
		b.back()
		v := b.sees("the page before", func(v view) bool { return b.entry() != before && v.Ready })
		b.saysNot(v, "User: corp:mira", "Mira Okafor")
		if v.H1 != atProvider {
			t.Errorf("Back leads to %s %q", v.URL, v.H1)
		}
	}
}

func TestSignOutByLinkAsksFirst(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	b := newPerson(t)
	b.signIn(demo.url+"/", "mira")
	b.open(demo.url + "/.sallyport/logout")
	v := b.heading("Do you want to sign out?")
	b.says(v, "You are signed in as Mira Okafor.")
	b.press("Stay signed in")
	b.heading("Your account")
	b.open(demo.url + "/.sallyport/logout")
	b.heading("Do you want to sign out?")
	b.press("Sign out")
	b.heading("You are signed out")
	b.press("Sign in again")
	b.atProvider()
}

// Another port of the same host is the same site for cookies, so SameSite does
// not help here: the Origin does.
func TestP19_PageOfAnotherOriginCannotSignPeopleOut(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	b := newPerson(t)
	b.signIn(demo.url+"/", "mira")
	b.open(otherOrigin(t, `<form method="post" action="`+demo.url+`/.sallyport/logout"><button>Win a prize</button></form>`))
	b.press("Win a prize")
	v := b.heading("You were not signed out")
	b.says(v, "The request to sign out came from another site.")
	b.open(demo.url + "/")
	b.says(b.at(demo.url+"/"), "Hello, Mira Okafor")
}

// "Sign in as someone else" signs out first. That is for our own pages: an
// address that came by mail, or that another site links to, changes nothing.
func TestAddressFromElsewhereCannotSwitchPeople(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	b := newPerson(t)
	b.signIn(demo.url+"/", "mira")
	address := demo.url + "/.sallyport/login?switch=1"
	b.open(otherOrigin(t, `<a href="`+address+`">Win a prize</a>`))
	b.press("Win a prize")
	b.says(b.at(demo.url+"/"), "Hello, Mira Okafor")
	b.open(address) // as from a mail, or typed
	b.says(b.sees("an answer", func(v view) bool { return v.H1 == chooser || v.URL == demo.url+"/" }),
		"Hello, Mira Okafor")
}

// otherOrigin serves a page at an origin of its own and returns its address.
func otherOrigin(t *testing.T, body string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, `<!doctype html><html lang="en"><title>Other</title><h1>Another origin</h1>`+body)
	}))
	t.Cleanup(srv.Close)
	return "http://localhost" + portOf(srv.Listener.Addr().String()) + "/"
}

// asProgram asks url as no browser would, with a cookie of our choice.
func asProgram(t *testing.T, url, cookie string) (int, string) {
	t.Helper()
	cert := need(t, world.cert)
	client := &http.Client{
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: cert.pool}, DisableKeepAlives: true},
	}
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", cookie)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
