package e2e

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const whatIsAsked = "What providers are asked for"

// Two providers, and nothing but the keyboard from the deep link to the app. Then
// what the account page says to the person, to an operator, and to nobody else.
func TestChoosingAProviderWithTheKeyboardAndWhatTheAccountPageSays(t *testing.T) {
	t.Parallel()
	s := overHTTP(need(t, freeAddress))
	s.TwoProviders, s.Organizations, s.Operators = true, true, "[{emails: [ines@corp.example]}]"
	c := ownCorp(t, s)
	b := newPerson(t)
	b.open(c.url + "/deep?x=1")
	v := b.heading("Sign in")
	b.says(v, "Sign in to see the page you asked for.", "Sign in with Corp Login", "Sign in with Partner Login")
	for _, want := range []string{"corp", "partner"} {
		b.do(chromedp.KeyEvent(kb.Tab))
		if got := eval[string](b, `new URL(document.activeElement.href).searchParams.get("provider")`); got != want {
			t.Errorf("the Tab key leads to %q, not to %q", got, want)
		}
	}
	b.open(c.url + "/deep?x=1")
	b.heading("Sign in")
	b.do(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter))
	b.heading(atProvider)
	eval[bool](b, `(document.querySelector('button[value=ines]').focus(), true)`) // that page is not ours
	b.do(chromedp.KeyEvent(kb.Enter))
	b.heading(whichOrg)
	b.do(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter))
	b.says(b.at(c.url+"/deep?x=1"), "User: corp:ines", "Org-Id: acme", "Org-Name: Acme Rockets")

	b.open(c.url + "/.sallyport/account")
	v = b.heading("Your account")
	b.says(v, "Name Ines Duarte", "E-mail ines@corp.example", "Signed in with Corp Login", "User id corp:ines",
		"Organization Acme Rockets, acme.example", "Organization id acme",
		whatIsAsked, "You see this because you run this site.", "corp (oidc, to sign in)",
		"partner (oidc, to sign in)",
		"orgs: all organizations (ID token, else userinfo)", "Thrown away the access token, the refresh token")
	b.saysNot(v, "not verified", c.provider.ClientSecret)
	b.readable()

	// The other provider does not vouch for the address, so this is no operator.
	for _, row := range []struct{ provider, person, says string }{
		{"Corp Login", "tom", "Signed in with Corp Login"},
		{"Partner Login", "ines", "Signed in with Partner Login"},
	} {
		other := newPerson(t)
		other.open(c.url + "/.sallyport/login?return_to=%2Fdeep")
		other.heading("Sign in")
		other.press("Sign in with " + row.provider)
		other.heading(atProvider)
		other.click("button[value=" + row.person + "]")
		other.at(c.url + "/deep")
		other.open(c.url + "/.sallyport/account")
		v = other.heading("Your account")
		other.says(v, row.says, "Organization None")
		other.saysNot(v, whatIsAsked, "Thrown away", "Acme")
	}
}

// Who leaves a shared computer signs out at the provider too: there it is asked,
// and then the provider remembers nobody.
func TestP10_SigningOutOfTheProviderToo(t *testing.T) {
	t.Parallel()
	s := overHTTP(need(t, freeAddress))
	s.TwoProviders = true
	c := ownCorp(t, s)
	b := newPerson(t)
	b.open(c.url + "/deep")
	b.heading("Sign in")
	b.press("Sign in with Corp Login")
	b.heading(atProvider)
	b.click("button[value=mira]")
	b.at(c.url + "/deep")
	b.press("Account")
	b.heading("Your account")
	b.press("Sign out")
	v := b.heading("You are signed out")
	b.says(v, "Sign out of Corp Login too")
	b.saysNot(v, "Partner Login")
	b.readable()

	// Without it, Corp Login would let the next person in as Mira.
	b.press("Sign out of Corp Login too")
	v = b.sees("the provider's own question", func(v view) bool {
		return strings.HasPrefix(v.URL, c.provider.Issuer+"/session/end?client_id="+c.provider.ClientID)
	})
	b.saysNot(v, "User: corp:mira")
	b.press("Yes, sign me out")
	b.sees("the provider's own goodbye",
		func(v view) bool { return strings.HasPrefix(v.URL, c.provider.Issuer+"/session/end/success") })
	b.open(c.url + "/deep")
	b.heading("Sign in")
	b.press("Sign in with Corp Login")
	b.heading(atProvider) // and not the app as Mira
}
