package e2e

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/network"
)

const atProvider = "Sign in at the provider"

// signInAtProvider goes to url and becomes one of the provider's people.
func (b *tab) signInAtProvider(url, person string) view {
	b.t.Helper()
	b.open(url)
	b.heading(atProvider)
	b.click("button[value=" + person + "]")
	return b.at(url)
}

// The provider puts nothing but the sub into its ID token: all that the app is
// told came from userinfo.
func TestSignInAtAProviderNobodyHereWrote(t *testing.T) {
	t.Parallel()
	c := theCorp(t)
	mira := newPerson(t)
	v := mira.signInAtProvider(c.url+"/reports/2026?team=blue", "mira")
	mira.says(v, "You asked for /reports/2026?team=blue", "User: corp:mira", "Name: Mira Okafor",
		"Email: mira@corp.example", "Groups: engineering,ops")
	mira.open(c.url + "/ops")
	mira.says(mira.at(c.url+"/ops"), "User: corp:mira")
	mira.open(c.url + "/.sallyport/account")
	mira.says(mira.heading("Your account"), "Signed in with Corp Login", "E-mail mira@corp.example")

	// A name is text, whatever it looks like.
	tom := newPerson(t)
	tom.signInAtProvider(c.url+"/", "tom")
	tom.open(c.url + "/ops")
	v = tom.heading("You have no access to this page")
	tom.says(v, `You are signed in as <b onmouseover="x">Tom</b> (tom@corp.example)`)
	tom.open(c.url + "/.sallyport/account")
	tom.says(tom.heading("Your account"), `Name <b onmouseover="x">Tom</b>`)

	// The provider says no, and that is said again in our words.
	nobody := newPerson(t)
	nobody.open(c.url + "/x")
	nobody.heading(atProvider)
	nobody.press("Cancel")
	v = nobody.heading("You were not signed in")
	nobody.says(v, "Corp Login says that the sign-in was cancelled or refused there.")
	nobody.saysNot(v, "End-User aborted interaction")
	nobody.press("Try again")
	nobody.heading(atProvider)
}

func TestP02_ScriptCannotNameSomebodyElse(t *testing.T) {
	t.Parallel()
	c := theCorp(t)
	b := newPerson(t)
	b.signInAtProvider(c.url+"/", "tom")
	got := eval[string](b, `fetch('/headers', {headers: {'X-Forwarded-User': 'corp:mira', 'X_Forwarded_User': 'corp:mira', 'x-forwarded-user': 'corp:mira',
		'X-Forwarded-Groups': 'ops', 'X-Sallyport-Assertion': 'x'}}).then(r => r.text())`)
	if !strings.Contains(got, "corp:tom") || strings.Contains(got, "corp:mira") || strings.Contains(got, "ops") {
		t.Errorf("the app was told %s", got)
	}
}

// As the browser keeps them, over real TLS: a __Host- cookie belongs to one
// host, is sent over https only, and no script reads it.
func TestP09_CookiesAsTheBrowserSeesThem(t *testing.T) {
	t.Parallel()
	c := theSecureCorp(t)
	b := newPerson(t)
	v := b.signInAtProvider(c.url+"/deep?x=1", "mira")
	if v.Protocol != "h2" {
		t.Errorf("the browser speaks %q, not HTTP/2", v.Protocol)
	}
	cookies := b.cookies(c.url)
	for _, name := range []string{"__Host-sallyport", "__Host-sallyport-flow"} {
		k := cookies[name]
		switch {
		case k == nil:
			t.Errorf("the browser has no %s: %v", name, cookies)
		case k.Domain != publicHost || k.Path != "/" || !k.Secure || !k.HTTPOnly ||
			k.SameSite != network.CookieSameSiteLax ||
			k.Session != (name == "__Host-sallyport-flow"): // the flow cookie goes when the browser is closed
			t.Errorf("%s: %+v", name, k) // a Domain attribute would show as ".app.example.test"
		}
	}
	if names := b.sallyportCookies(); len(names) != 2 {
		t.Errorf("Sallyport's cookies: %v", names)
	}
	if got := eval[string](b, `document.cookie`); got != "app=own" {
		t.Errorf("scripts read %q", got)
	}
	eval[bool](b, `(document.cookie = '__Host-sallyport=planted; Path=/; Secure', true)`)
	eval[bool](b, `(document.cookie = '__Host-sallyport=; Path=/; Secure; Max-Age=0', true)`)
	if now := b.cookies(c.url)["__Host-sallyport"]; now == nil || now.Value != cookies["__Host-sallyport"].Value {
		t.Error("a script of the app changed the session cookie")
	}
	b.open(c.url + "/again")
	b.says(b.at(c.url+"/again"), "User: corp:mira")
	if !c.app.sawCookie("app=own") || c.app.sawCookie("sallyport") {
		t.Error("the app got Sallyport's cookies, or not its own")
	}
}

// What is behind # never reaches a server. It survives because browsers carry
// it over redirects whose Location has none (Fetch §4.4), through the provider
// and back. With a form in between it is the provider's page that must not lose
// it; this one does not, others may.
func TestFragmentOfADeepLinkSurvives(t *testing.T) {
	t.Parallel()
	c := theCorp(t)
	b := newPerson(t)
	b.signInAtProvider(c.url+"/", "mira")
	b.press("Account")
	b.heading("Your account")
	b.press("Sign out")
	b.heading("You are signed out")
	b.open(c.url + "/docs?page=2#section-3")
	v := b.sees("the deep link", func(v view) bool { return v.Path == "/docs?page=2" })
	b.says(v, "User: corp:mira")
	if v.URL != c.url+"/docs?page=2#section-3" {
		t.Errorf("arrived at %s", v.URL)
	}

	fresh := newPerson(t)
	fresh.open(c.url + "/docs?page=2#section-3")
	fresh.heading(atProvider)
	fresh.click("button[value=mira]")
	fresh.at(c.url + "/docs?page=2#section-3")
}

// Somebody else signs in although the provider remembers the first. This one
// does not know prompt=select_account, which OpenID Connect leaves to providers.
func TestSigningInAsSomeoneElseAtAProviderThatRemembers(t *testing.T) {
	t.Parallel()
	c := theCorp(t)
	b := newPerson(t)
	b.signInAtProvider(c.url+"/", "tom")
	b.open(c.url + "/mine")
	b.says(b.at(c.url+"/mine"), "User: corp:tom")
	b.open(c.url + "/ops")
	b.heading("You have no access to this page")
	b.press("Sign in as someone else")
	b.heading(atProvider)
	b.click("button[value=mira]")
	b.sees("the app as Mira", func(v view) bool { return strings.Contains(v.Text, "User: corp:mira") })
	// The app let the browser keep the page that it showed to Tom (private, max-age=600).
	b.open(c.url + "/mine")
	b.says(b.at(c.url+"/mine"), "User: corp:mira")
}

// With several providers the choice between them comes in the middle; that the
// person wanted to be somebody else must not be forgotten there.
func TestSigningInAsSomeoneElseThroughTheChooser(t *testing.T) {
	t.Parallel()
	s := overHTTP(need(t, freeAddress))
	s.TwoProviders = true
	c := ownCorp(t, s)
	b := newPerson(t)
	b.open(c.url + "/ops")
	b.heading("Sign in")
	b.press("Sign in with Corp Login")
	b.heading(atProvider)
	b.click("button[value=tom]")
	b.heading("You have no access to this page")
	b.press("Sign in as someone else")
	b.heading("Sign in")
	b.press("Sign in with Corp Login")
	v := b.sees("an answer", func(v view) bool { return v.H1 == atProvider || v.H1 == "The app" })
	if v.H1 != atProvider {
		t.Fatalf("instead of a choice there is %s:\n%s", v.URL, v.Text)
	}
	b.click("button[value=mira]")
	b.sees("the app as Mira", func(v view) bool { return strings.Contains(v.Text, "User: corp:mira") })
}

// Whoever is signed in goes on while the provider is away. Sallyport asks for
// keys at most twice a minute: the first sign-in comes before t.Parallel, so
// that this time passes while other tests run.
func TestProviderThatIsDownOrChangesItsKeys(t *testing.T) {
	c := ownCorp(t, overHTTP(need(t, freeAddress)))
	early, late := newPerson(t), newPerson(t)
	early.signInAtProvider(c.url+"/", "mira")
	t.Parallel()

	c.provider.stop()
	early.open(c.url + "/still")
	early.says(early.at(c.url+"/still"), "User: corp:mira")

	c.provider.restart(t) // with other keys, and it remembers nobody
	late.until("a sign-in with the new keys", func() bool {
		late.open(c.url + "/late?x=1")
		v := late.sees("an answer", func(v view) bool { return v.H1 != "" })
		if v.H1 == atProvider { // which remembers her from then on
			late.click("button[value=mira]")
			v = late.sees("an answer", func(v view) bool { return v.H1 != "" && v.H1 != atProvider })
		}
		return v.URL == c.url+"/late?x=1"
	})
	late.says(late.at(c.url+"/late?x=1"), "User: corp:mira")
	early.open(c.url + "/still")
	early.says(early.at(c.url+"/still"), "User: corp:mira")
}

func TestProviderThatIsDownIsSaidInWordsAndHeals(t *testing.T) {
	t.Parallel()
	c := ownCorp(t, overHTTP(need(t, freeAddress)))
	c.provider.stop() // before anybody asked it anything
	b := newPerson(t)
	b.open(c.url + "/deep?x=1")
	v := b.heading("Signing in is not possible right now")
	b.says(v, "Corp Login is not answering. If you are signed in already, you stay signed in.",
		"Nothing is wrong with your account.")
	if v.Status != 503 {
		t.Errorf("status %d", v.Status)
	}
	b.readable()
	c.provider.restart(t)
	b.until("the provider to be found again", func() bool {
		b.press("Try again")
		v := b.sees("an answer", func(v view) bool { return v.H1 != "" })
		return v.H1 == atProvider
	})
	b.click("button[value=mira]")
	b.says(b.at(c.url+"/deep?x=1"), "User: corp:mira")

	// It goes away while somebody is there: what came of it is said when they are back.
	late := newPerson(t)
	late.open(c.url + "/late")
	late.heading(atProvider)
	callback := late.catchCallback(c.site, "button[value=tom]")
	c.provider.stop()
	late.open(callback)
	late.says(late.heading("Signing in is not possible right now"), "Corp Login is not answering.")
	b.open(c.url + "/still")
	b.says(b.at(c.url+"/still"), "User: corp:mira")
}

// A provider may send people on at once to another one, on a host that nothing here knows of:
// Keycloak does for a company's own. Chromium holds the form-action of a page to all redirects
// that follow a form of it, and would stay on the page without a word.
func TestTheChooserLeadsToAProviderThatSendsPeopleOn(t *testing.T) {
	t.Parallel()
	var provider atomic.Value
	sendOn := func(to func() string) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", to()+"?"+r.URL.RawQuery)
			w.WriteHeader(http.StatusSeeOther)
		}))
		t.Cleanup(s.Close)
		return s
	}
	company := sendOn(func() string { return provider.Load().(string) })
	broker := sendOn(func() string { return company.URL + "/sso" })
	s := overHTTP(need(t, freeAddress))
	s.TwoProviders, s.Broker = true, broker.URL
	c := ownCorp(t, s)
	provider.Store(c.provider.Issuer + "/auth")
	b := newPerson(t)
	b.open(c.url + "/deep?x=1&y=a%20b")
	b.heading("Sign in")
	b.press("Sign in with Partner Login")
	b.heading(atProvider)
	b.click("button[value=mira]")
	b.says(b.at(c.url+"/deep?x=1&y=a%20b"), "User: partner:mira")
}

func TestPeopleChooseBetweenTwoProviders(t *testing.T) {
	t.Parallel()
	s := overHTTP(need(t, freeAddress))
	s.TwoProviders = true
	c := ownCorp(t, s)
	b := newPerson(t)
	b.open(c.url + "/deep?x=1")
	v := b.heading("Sign in")
	b.says(v, "Sign in with Corp Login", "Sign in with Partner Login")
	b.readable()
	b.press("Sign in with Partner Login")
	b.heading(atProvider)
	b.click("button[value=mira]")
	v = b.at(c.url + "/deep?x=1")
	b.says(v, "User: partner:mira", "Name: Mira Okafor")
	b.saysNot(v, "mira@corp.example") // not for this provider to vouch for
	b.open(c.url + "/.sallyport/logout")
	b.heading("Do you want to sign out?")
	b.press("Sign out")
	b.press("Sign in again")
	b.heading("Sign in")
	b.press("Sign in with Corp Login") // which remembers her: back without a stop
	b.sees("the app as Mira of Corp", func(v view) bool { return strings.Contains(v.Text, "User: corp:mira") })
}
