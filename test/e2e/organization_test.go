package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const whichOrg = "Choose an organization"

// Ines belongs to two organizations, one of which the provider knows under two
// ids. No script runs: a form and its buttons are all there is.
func TestPickingAnOrganizationAndSwitching(t *testing.T) {
	t.Parallel()
	s := overHTTP(need(t, freeAddress))
	s.Organizations = true
	c := ownCorp(t, s)
	b := newPerson(t)
	b.open(c.url + "/reports?week=47&by=team")
	b.heading(atProvider)
	b.click("button[value=ines]")
	v := b.heading(whichOrg)
	b.says(v, "You are signed in as Ines Duarte and belong to several organizations.", "Acme Rockets acme.example",
		"Birch Bank birch.example")
	b.saysNot(v, "ACME GmbH", "acme-us")
	b.readable()
	pending := b.cookies(c.url)[c.cookie].Value
	if status, _ := asProgram(t, c.url+"/reports", c.cookie+"="+pending); status != 401 {
		t.Errorf("before an organization is picked, the app answers %d", status)
	}

	// With the keyboard alone: the first thing to reach is the first organization.
	b.do(chromedp.KeyEvent(kb.Tab))
	if got := eval[string](b, `document.activeElement.value`); got != "acme" {
		t.Errorf("the first stop of the Tab key is %q", got)
	}
	b.do(chromedp.KeyEvent(kb.Enter))
	b.says(b.at(c.url+"/reports?week=47&by=team"), "Org-Id: acme", "Org-Name: Acme Rockets", "Org-Domain: acme.example",
		"User: corp:ines")
	acme, since := b.cookies(c.url)[c.cookie].Value, time.Now()

	b.open(c.url + "/bank")
	v = b.heading("You have no access to this page")
	b.says(v, "for Acme Rockets.", "Another of your organizations has access")
	b.readable()
	b.open(c.url + "/.sallyport/organization?return_to=%2Freports")
	b.says(b.heading(whichOrg), "At the moment you see what Acme Rockets may see.", "Stay with Acme Rockets")
	b.readable()

	b.press("Stay with Acme Rockets")
	b.at(c.url + "/reports")
	b.press("Account")
	v = b.heading("Your account")
	b.says(v, "Organization Acme Rockets, acme.example", "Switch to another of your organizations")
	b.readable()
	b.until("a second to pass, before which nobody switches", func() bool { return time.Since(since) > time.Second })
	b.press("Birch Bank")
	b.sees("the account for Birch", func(v view) bool {
		return v.H1 == "Your account" && strings.Contains(flat(v.Text), "Organization Birch Bank, birch.example")
	})
	b.open(c.url + "/reports?week=47&by=team") // which the app told the browser to keep
	v = b.at(c.url + "/reports?week=47&by=team")
	b.says(v, "Org-Id: corp:birch", "Org-Name: Birch Bank", "Org-Domain: birch.example")
	b.saysNot(v, "Acme")
	b.open(c.url + "/bank")
	b.says(b.at(c.url+"/bank"), "Org-Id: corp:birch")
	for name, old := range map[string]string{"without an organization": pending, "for Acme": acme} {
		if status, _ := asProgram(t, c.url+"/reports", c.cookie+"="+old); status != 401 {
			t.Errorf("the session %s still gets %d", name, status)
		}
	}
}

// Mira belongs to none, and is asked nothing.
func TestWhoBelongsToNoOrganizationIsNotAsked(t *testing.T) {
	t.Parallel()
	s := overHTTP(need(t, freeAddress))
	s.Organizations = true
	c := ownCorp(t, s)
	mira := newPerson(t)
	mira.says(mira.signInAtProvider(c.url+"/deep", "mira"), "User: corp:mira", "Org-Id:")
}
