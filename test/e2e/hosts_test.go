package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// manyHosts is a site with two more hosts, of which one is on another domain.
func manyHosts(t *testing.T) (c *corp, near, elsewhere string) {
	t.Helper()
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s := overTLS(address)
	s.Hosts = []string{sibling, otherSite}
	port := portOf(address)
	return ownCorp(t, s), "https://" + sibling + port, "https://" + otherSite + port
}

// One sign-in, three hosts on two domains: deep links arrive whole, each host has a
// cookie of its own, and Back shows pages and no steps in between.
func TestOneSignInForManyHosts(t *testing.T) {
	t.Parallel()
	c, near, elsewhere := manyHosts(t)
	b := newPerson(t)
	deep := elsewhere + "/deep/page?week=47&by=%C3%A4&u=https://x.test/?a=b"
	b.says(b.signInAtProvider(deep, "mira"), "You asked for /deep/page?week=47&by=%C3%A4&u=https://x.test/?a=b",
		"User: corp:mira")
	b.open(near + "/report?x=1")
	b.says(b.at(near+"/report?x=1"), "User: corp:mira")
	for _, host := range []string{c.url, near, elsewhere} {
		cookie := b.cookies(host)[c.cookie]
		if cookie == nil || !cookie.Secure || !cookie.HTTPOnly || strings.HasPrefix(cookie.Domain, ".") {
			t.Errorf("%s: %+v", host, cookie)
		}
	}
	b.back()
	b.says(b.at(deep), "You asked for /deep/page")
	// A link from one domain to the other.
	eval[bool](b, fmt.Sprintf(`(document.body.insertAdjacentHTML('beforeend', '<a id=go href="%s/next?y=2">Go</a>'), true)`, near))
	b.clickUnseen("#go")
	b.says(b.at(near+"/next?y=2"), "User: corp:mira")

	// A page whose cookie is lost is handed a new one without a word.
	b.forget(elsewhere)
	b.open(deep)
	b.says(b.at(deep), "User: corp:mira")

	// Signing out at one host.
	b.open(elsewhere + "/.sallyport/logout")
	b.heading("Do you want to sign out?")
	b.press("Sign out")
	v := b.heading("You are signed out")
	if !strings.HasPrefix(v.URL, c.url+"/.sallyport/logout?provider=corp") {
		t.Errorf("signed out at %s", v.URL)
	}
	for _, host := range []string{c.url, elsewhere} {
		if b.cookies(host)[c.cookie] != nil {
			t.Errorf("the browser still has the cookie of %s", host)
		}
	}
	b.forget(c.provider.Issuer)
	b.open(near + "/new") // not one that the app let the browser keep
	b.heading(atProvider)
}

// With a cookie for the domain one sign-in opens its hosts without another step, and
// signing out on any of them takes the one cookie. The cookie that the public host had of
// its own before is gone.
func TestTwoHostsShareTheCookieOfTheirDomain(t *testing.T) {
	t.Parallel()
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s := overTLS(address)
	s.Hosts, s.CookieDomain = []string{sibling}, "example.test"
	c, near := ownCorp(t, s), "https://"+sibling+portOf(address)
	const shared = "__Secure-sallyport"
	b := newPerson(t)
	b.open(c.url + "/.sallyport/mark.svg")
	ask(b, network.SetCookie, network.SetCookieParams{Name: "__Host-sallyport", Value: "old", URL: c.url, Path: "/",
		Secure: new(true)})
	b.says(b.signInAtProvider(near+"/deep?a=1", "mira"), "You asked for /deep?a=1", "User: corp:mira")
	cookie := b.cookies(near)[shared]
	if cookie == nil || !cookie.Secure || !cookie.HTTPOnly || cookie.Domain != ".example.test" {
		t.Errorf("the session cookie is %+v", cookie)
	}
	b.open(c.url + "/page")
	b.says(b.at(c.url+"/page"), "User: corp:mira")
	at := b.cookies(c.url)
	if at[shared] == nil || cookie == nil || at[shared].Value != cookie.Value {
		t.Errorf("at the public host it is %+v", at[shared])
	}
	if at["__Host-sallyport"] != nil {
		t.Error("the cookie of one host is still there")
	}
	b.open(near + "/.sallyport/logout")
	b.heading("Do you want to sign out?")
	b.press("Sign out")
	b.heading("You are signed out")
	for _, host := range []string{c.url, near} {
		if b.cookies(host)[shared] != nil {
			t.Errorf("the browser still has the cookie at %s", host)
		}
	}
	b.forget(c.provider.Issuer)
	b.open(c.url + "/new")
	b.heading(atProvider)
}

// Signing out where people sign in closes the other hosts, with Back and without.
func TestP10_SigningOutAtThePublicHostClosesTheOthers(t *testing.T) {
	t.Parallel()
	c, near, elsewhere := manyHosts(t)
	b := newPerson(t)
	b.signInAtProvider(elsewhere+"/page", "mira")
	b.open(near + "/page")
	b.at(near + "/page")
	b.open(c.url + "/.sallyport/account")
	b.heading("Your account")
	b.press("Sign out")
	b.heading("You are signed out")
	b.forget(c.provider.Issuer)
	for _, host := range []string{near, elsewhere} {
		b.open(host + "/new")
		b.heading(atProvider)
	}
}

// The service worker of another host passes the steps on.
func TestAHandOffPassesThroughAServiceWorker(t *testing.T) {
	t.Parallel()
	_, near, elsewhere := manyHosts(t)
	for _, host := range []string{near, elsewhere} {
		b := newPerson(t)
		b.signInAtProvider(host+"/first", "mira")
		eval[bool](b, `navigator.serviceWorker.register('/sw.js').then(() => navigator.serviceWorker.ready).then(() => true)`)
		b.until("the worker to take over",
			func() bool { return eval[bool](b, `navigator.serviceWorker.controller !== null`) })
		b.forget(host)
		b.open(host + "/second?a=1")
		b.says(b.at(host+"/second?a=1"), "User: corp:mira")
		if !eval[bool](b, `navigator.serviceWorker.controller !== null`) {
			t.Errorf("%s: the page did not come through the worker", host)
		}
	}
}

// Chromium holds the form of a provider, whose policy names the public host alone, to all
// the redirects that follow, and stops at the one to another host. The guide says so: the
// person is signed in by then, and the page opens when it is asked for again. A policy
// that names the host lets them through at once.
func TestAProviderWhosePolicyNamesThePublicHostAlone(t *testing.T) {
	t.Parallel()
	c, near, elsewhere := manyHosts(t)
	signIn := func(b *tab, page, formAction string) {
		b.open(page)
		b.heading(atProvider)
		eval[bool](b, fmt.Sprintf(`(() => { const policy = document.createElement('meta');
			policy.httpEquiv = 'Content-Security-Policy'; policy.content = "form-action 'self' %s";
			document.head.append(policy);
			return true; })()`, formAction))
		b.click("button[value=mira]")
	}
	b := newPerson(t)
	signIn(b, elsewhere+"/deep?a=1", c.url)
	b.expectComplaint("violates the following Content Security Policy directive: \"form-action")
	b.heading(atProvider)
	if b.cookies(elsewhere)[c.cookie] != nil || b.cookies(c.url)[c.cookie] == nil {
		t.Errorf("signed in there: %t, at the public host: %t", b.cookies(elsewhere)[c.cookie] != nil,
			b.cookies(c.url)[c.cookie] != nil)
	}
	b.open(elsewhere + "/deep?a=1")
	b.says(b.at(elsewhere+"/deep?a=1"), "User: corp:mira")

	b = newPerson(t)
	signIn(b, near+"/deep?a=1", c.url+" "+near)
	b.says(b.at(near+"/deep?a=1"), "User: corp:mira")
}

// catchGrant goes to a page and stops the browser before the last step to it.
func (b *tab) catchGrant(page string) string {
	b.t.Helper()
	ask(b, fetch.Enable, fetch.EnableParams{Patterns: []*fetch.RequestPattern{{URLPattern: "*/.sallyport/handoff?grant=*"}}})
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	e, err := chromedp.Run(ctx, chromedp.WaitEvent(fetch.RequestPaused, nil,
		chromedp.Evaluate[bool](fmt.Sprintf(`(setTimeout(() => location.href = %q, 0), true)`, page))))
	if err != nil {
		b.t.Fatal(err)
	}
	ask(b, fetch.FailRequest, fetch.FailRequestParams{RequestID: e.RequestID, ErrorReason: network.ErrorReasonAborted})
	ask(b, fetch.Disable, cdp.Empty{})
	return e.Request.URL
}

// The address with the session in it, opened in another browser: nobody is signed in,
// and the page says what to do.
func TestP06_AStolenGrantIsGoodForNothingElsewhere(t *testing.T) {
	t.Parallel()
	c, near, elsewhere := manyHosts(t)
	for name, host := range map[string]string{"sibling": near, "elsewhere": elsewhere} {
		mira := newPerson(t)
		mira.signInAtProvider(c.url+"/page", "mira")
		stolen := mira.catchGrant(host + "/secret?a=1")

		fresh := newPerson(t)
		fresh.open(stolen)
		v := fresh.heading("This address is not for this browser")
		fresh.says(v, "Nobody was signed in with it.", "If somebody sent you this address, do not use it")
		if fresh.cookies(host)[c.cookie] != nil {
			t.Errorf("%s: a thief is signed in", name)
		}
		fresh.screenshot("not-for-this-browser-" + name)
		fresh.readable()
		fresh.press("Go to ")
		fresh.heading(atProvider)

		thief := newPerson(t) // who has been there
		thief.open(host + "/mine")
		thief.heading(atProvider)
		thief.open(stolen)
		thief.heading(atProvider) // for a sign-in of their own
		if thief.cookies(host)[c.cookie] != nil {
			t.Errorf("%s: a thief who was there before is signed in", name)
		}

		mira.open(stolen) // it was not used up
		mira.says(mira.at(host+"/secret?a=1"), "User: corp:mira")
	}
}
