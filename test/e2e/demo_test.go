package e2e

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const chooser = "Who do you want to be?"

// atProvider waits for the page of Demo SSO on which one chooses who to be. The
// demo has two providers: Sallyport's own page, where one chooses between them,
// comes first, but not where the way leads to one of them.
func (b *tab) atProvider() view {
	b.t.Helper()
	v := b.sees("a choice", func(v view) bool { return v.H1 == chooser || v.H1 == "Sign in" })
	if v.H1 == "Sign in" {
		b.press("Sign in with Demo SSO")
	}
	return b.heading(chooser)
}

// signIn goes to url and becomes one of the demo's people.
func (b *tab) signIn(url, person string) view {
	b.t.Helper()
	b.open(url)
	b.atProvider()
	b.click(`button[name=person][value=` + person + `]`)
	return b.at(url)
}

func TestEachPersonSignsInAndTheAppKnowsThem(t *testing.T) {
	demo := theDemo(t)
	for _, who := range []struct {
		key           string
		says, saysNot []string
	}{
		{key: "mira", says: []string{"Hello, Mira Okafor", "Acme Rockets", "acme.example", "engineering", "on-call",
			"mira@acme.example", "demo:mira"}},
		{key: "jonas", says: []string{"Hello, Jonas Lindqvist", "Acme Rockets", "admins", "jonas@acme.example",
			"demo:jonas"}},
		{key: "tomoko", says: []string{"Hello, Tomoko Hayashi", "Birch Bank", "birch.example", "admins",
			"tomoko@birch.example", "demo:tomoko"}},
		{key: "zoe", says: []string{"Hello, Zoë Martín", "Organization none", "Groups none", "zoe@mail.example",
			"demo:zoe"}},
		{key: "sam", says: []string{"Hello, Sam Carver", "Email none that somebody verified", "demo:sam"},
			saysNot: []string{"sam@acme.example"}},
	} {
		t.Run(who.key, func(t *testing.T) {
			t.Parallel()
			b := newPerson(t)
			v := b.signIn(demo.url+"/reports/2026?team=blue", who.key)
			b.says(v, who.says...)
			b.saysNot(v, who.saysNot...)
			b.says(v, "You asked for GET /reports/2026?team=blue",
				"Signed assertion verified",
				"The app checked this itself with the keys at "+demo.url+"/.sallyport/jwks.json",
				"aud app", "sub demo:"+who.key, "X-Forwarded-User demo:"+who.key)
		})
	}
}

func TestAccountPageSaysWhoOneIs(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	mira := newPerson(t)
	v := mira.signIn(demo.url+"/.sallyport/account", "mira")
	mira.says(v, "Name Mira Okafor", "Username mira", "E-mail mira@acme.example", "Signed in with Demo SSO",
		"User id demo:mira",
		"Organization Acme Rockets, acme.example", "Organization id demo:acme", "engineering", "on-call",
		"Signed in", "(now)", "in 12 hours", "in 1 hour", "They never see your password")
	mira.saysNot(v, "not verified")

	sam := newPerson(t)
	v = sam.signIn(demo.url+"/.sallyport/account", "sam")
	sam.says(v, "E-mail sam@acme.example (not verified: it gives you no access and is not passed on)",
		"Organization None", "Groups None that this site uses")
	sam.open(demo.url + "/")
	v = sam.at(demo.url + "/")
	sam.says(v, "Hello, Sam Carver")
	sam.saysNot(v, "sam@acme.example")
}

func TestTwoPeopleInTwoWindowsStayThemselves(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	mira, jonas := newPerson(t), newPerson(t)
	mira.open(demo.url + "/a")
	jonas.open(demo.url + "/b")
	mira.atProvider()
	jonas.atProvider()
	jonas.click("button[value=jonas]")
	mira.click("button[value=mira]")
	mira.says(mira.at(demo.url+"/a"), "Hello, Mira Okafor")
	jonas.says(jonas.at(demo.url+"/b"), "Hello, Jonas Lindqvist")
	for range 2 {
		mira.open(demo.url + "/")
		jonas.open(demo.url + "/")
		mira.says(mira.at(demo.url+"/"), "Hello, Mira Okafor", "X-Forwarded-User demo:mira")
		jonas.says(jonas.at(demo.url+"/"), "Hello, Jonas Lindqvist", "X-Forwarded-User demo:jonas")
	}
}

func TestP01_WhoMayNotReadsWhyAndCanComeBackAsSomebodyElse(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	b := newPerson(t)
	b.open(demo.url + "/admin")
	b.atProvider()
	b.click("button[value=tomoko]")
	v := b.heading("You have no access to this page")
	if v.URL != demo.url+"/admin" || v.Status != 403 {
		t.Errorf("refused at %s with %d", v.URL, v.Status)
	}
	b.says(v, "You are signed in as Tomoko Hayashi (tomoko@birch.example) for Birch Bank.",
		"What is missing", "It is for another organization than Birch Bank.", "Request id:")
	b.saysNot(v, "Hello")
	b.press("Sign in as someone else")
	b.atProvider()
	b.click("button[value=jonas]")
	b.sees("the app as Jonas", func(v view) bool { return strings.Contains(v.Text, "Hello, Jonas Lindqvist") })
	b.open(demo.url + "/admin")
	v = b.at(demo.url + "/admin")
	b.says(v, "Hello, Jonas Lindqvist", "Only the people that the admin rule names get this far.")
}

// The page that asks for a recent sign-in says so to the provider.
func TestTheDemosPayrollAsksForARecentSignIn(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	b := newPerson(t)
	b.open(demo.url + "/payroll")
	if v := b.atProvider(); !strings.Contains(v.URL, "&max_age=60&") {
		t.Errorf("asked at %s", v.URL)
	}
	b.click("button[value=mira]")
	b.says(b.at(demo.url+"/payroll"), "Hello, Mira Okafor", "Only people who signed in within the last minute")
}

// secondHost is the demo by its other name.
func secondHost(demo *site) string { return strings.Replace(demo.url, "localhost", "127.0.0.1", 1) }

// Who is signed in follows a link to another host and is signed in there too, without
// typing anything. Signing out there signs out on both.
func TestTheDemosSecondHostNeedsNoSecondSignIn(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	second := secondHost(demo)
	b := newPerson(t)
	b.signIn(demo.url+"/", "mira")
	b.press("Second host")
	v := b.at(second + "/")
	b.says(v, "Hello, Mira Okafor", "Second host", "came here without signing in again", "demo:mira",
		"Signed assertion verified")
	b.saysNot(v, demo.cookie)
	first, other := b.cookies(demo.url)[demo.cookie], b.cookies(second)[demo.cookie]
	if first == nil || other == nil || first.Value == other.Value {
		t.Errorf("the cookies of the two hosts: %+v, %+v", first, other)
	}
	b.press("First host")
	b.says(b.at(demo.url+"/"), "Hello, Mira Okafor")
	b.open(second + "/reports/2026?team=blue")
	b.says(b.at(second+"/reports/2026?team=blue"), "You asked for GET /reports/2026?team=blue")
	b.press("Sign out")
	if v = b.heading("You are signed out"); !strings.HasPrefix(v.URL, demo.url) {
		t.Errorf("signed out at %s", v.URL)
	}
	for _, host := range []string{demo.url, second} {
		if b.cookies(host)[demo.cookie] != nil {
			t.Errorf("the browser still has the cookie of %s", host)
		}
	}

	fresh := newPerson(t) // who begins at the second host
	fresh.says(fresh.signIn(second+"/reports/2026?team=blue", "jonas"), "Hello, Jonas Lindqvist")
}

// Somebody who is signed in twice sees both on the account page, and ends the other one.
func TestInTheDemoOneEndsASessionOfAnotherBrowser(t *testing.T) {
	t.Parallel()
	demo := ownDemo(t) // in the shared one Mira may have more sessions
	laptop, phone := newPerson(t), newPerson(t)
	phone.signIn(demo.url+"/", "mira")
	laptop.signIn(demo.url+"/.sallyport/account", "mira")
	endButton := `ul.sessions li:not(:has(.this)) button`
	laptop.until("the other session to be listed", func() bool {
		laptop.open(demo.url + "/.sallyport/account")
		laptop.heading("Your account")
		return eval[int](laptop, "document.querySelectorAll(`"+endButton+"`).length") == 1
	})
	laptop.click(endButton)
	laptop.sees("one session", func(v view) bool { return strings.Count(v.Text, "End this session") == 1 })
	phone.open(demo.url + "/new")
	phone.atProvider()
	laptop.open(demo.url + "/")
	laptop.says(laptop.at(demo.url+"/"), "Hello, Mira Okafor")
}

// Somebody who belongs to several organizations chooses one, reads why it does
// not open a page, and is offered the one that does.
func TestSomebodyOfTwoOrganizationsChoosesAndSwitches(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	b := newPerson(t)
	b.open(demo.url + "/hospital")
	b.heading("Sign in")
	b.press("Sign in with Ledger & Co")
	b.heading(chooser)
	b.click("button[value=ines]")
	b.heading("Choose an organization")
	b.press("Maple School maple.example")
	v := b.heading("You have no access to this page")
	b.says(v, "You are signed in as Ines Duarte (ines@ledger.example) for Maple School.",
		"It is for another organization than Maple School.", "Another of your organizations has access")
	b.press("Larch Hospital larch.example")
	b.says(b.heading("Hello, Ines Duarte"), "Organization Larch Hospital", "X-Forwarded-Org-Id ledger:larch")
	b.open(demo.url + "/.sallyport/account")
	v = b.heading("Your account")
	b.says(v, "Organization Larch Hospital, larch.example", "Switch to another of your organizations", "Maple School")
	b.press("Back to Sallyport demo")
	b.says(b.at(demo.url+"/"), "Hello, Ines Duarte")
}

// To sign in as someone else and then to think better of it must not leave the
// first person signed in: somebody else may be sitting there now.
func TestSigningInAsSomeoneElseAndCancellingLeavesNobodySignedIn(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	b := newPerson(t)
	b.open(demo.url + "/admin")
	b.atProvider()
	b.click("button[value=tomoko]")
	b.heading("You have no access to this page")
	b.press("Sign in as someone else")
	b.atProvider()
	b.press("Cancel")
	b.heading("You were not signed in")
	if _, there := b.cookies(demo.url)[demo.cookie]; there {
		t.Error("the first person's session is still in the browser")
	}
}

func TestP01_PublicPageNamesNobody(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	b := newPerson(t)
	b.open(demo.url + "/public")
	b.says(b.at(demo.url+"/public"), "This request named nobody.")
	b.signIn(demo.url+"/", "mira")
	b.open(demo.url + "/public")
	v := b.at(demo.url + "/public")
	b.says(v, "This request named nobody.")
	b.saysNot(v, "Mira", "mira", "X-Forwarded-User", "X-Sallyport-Assertion", demo.cookie)
}

func TestCancelAtTheProviderIsExplainedAndCanBeTriedAgain(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	b := newPerson(t)
	b.open(demo.url + "/reports/2026?team=blue")
	b.atProvider()
	b.press("Cancel")
	v := b.heading("You were not signed in")
	b.says(v, "Demo SSO says that the sign-in was cancelled or refused there.", "Request id:")
	b.press("Try again")
	b.atProvider()
	b.click("button[value=mira]")
	b.says(b.at(demo.url+"/reports/2026?team=blue"), "Hello, Mira Okafor")
}

func TestP05_SignInReturnsToThisSiteOnly(t *testing.T) {
	demo := theDemo(t)
	for name, to := range map[string]string{
		"another site": "https://evil.example.test/", "no scheme": "//evil.example.test",
		"backslash": `/%5Cevil.example.test`,
		"tab":       "/%09/evil.example.test", "user info": "@evil.example.test", "sign-out": "/.sallyport/logout",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newPerson(t)
			b.open(demo.url + "/.sallyport/login?return_to=" + to)
			b.atProvider()
			b.click("button[value=mira]")
			b.says(b.at(demo.url+"/"), "Hello, Mira Okafor")
			// And with a session, where nobody has to choose any more.
			b.open(demo.url + "/public")
			b.open(demo.url + "/.sallyport/login?return_to=" + to)
			b.says(b.at(demo.url+"/"), "Hello, Mira Okafor")
		})
	}
}

// Who signs out and in again, as people do who try the demo, is in no loop: the
// session was there each time.
func TestSigningInAsFivePeopleInARowIsNoLoop(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	b := newPerson(t)
	for _, person := range []string{"mira", "jonas", "tomoko", "zoe", "sam"} {
		v := b.signIn(demo.url+"/", person)
		b.says(v, "demo:"+person)
		b.press("Sign out")
		b.heading("You are signed out")
	}
}

// A person lends the app a calendar, looks at it, sees that the app cannot write into it, and
// takes it back: with the keyboard alone.
func TestLendingACalendarNeedsNoMouse(t *testing.T) {
	t.Parallel()
	demo := ownDemo(t)
	b := newPerson(t)
	b.signIn(demo.url+"/calendar", "mira")
	enter := func(name string) {
		t.Helper()
		b.tabTo(name)
		b.do(chromedp.KeyEvent(kb.Enter))
	}
	shows := func(words ...string) view {
		t.Helper()
		return b.sees(strings.Join(words, ", "), func(v view) bool {
			for _, want := range words {
				if !strings.Contains(v.Text, want) {
					return false
				}
			}
			return v.URL == demo.url+"/calendar"
		})
	}
	shows("Your busy hours", "not connected", "You have not lent this app a calendar yet")
	enter("Connect a calendar")
	b.heading("Demo app asks to use Google Calendar")
	enter("Go on to Google Calendar")
	v := b.heading("Sallyport demo wants to use an account")
	b.says(v, "Pretend Google", "Whose account?", "See when you are free or busy")
	enter("Allow") // the first account is chosen
	v = shows("mira@acme.example", "to 09:", "UTC", "the app has never seen one")
	b.saysNot(v, "not connected", "ya29.")
	b.saysNot(v, "Stand-up")
	enter("Let it read the events too")
	b.heading("Demo app asks to use Google Calendar")
	enter("Go on to Google Calendar")
	b.heading("Sallyport demo wants to use an account")
	enter("Allow") // the account is the one that is connected, and all boxes are ticked
	shows("mira@acme.example", "Stand-up")
	enter("Try to write into it")
	shows("403", "POST /calendar/v3/freeBusy", "mira@acme.example")
	enter("Disconnect on your account page")
	b.says(b.heading("Your account"), "Google Calendar", "Demo app")
	enter("Disconnect for all apps: Google Calendar")
	b.sees("that it is over", func(v view) bool { return !strings.Contains(v.Text, "Disconnect for all apps") })
	b.open(demo.url + "/calendar")
	shows("not connected")
}

// A newcomer connects a calendar, PagerDuty and Slack, posts the plan, and sees that the
// schedule stays: with the keyboard alone.
func TestPlanningWithThreeThirdPartiesNeedsNoMouse(t *testing.T) {
	t.Parallel()
	demo := ownDemo(t)
	b := newPerson(t)
	b.signIn(demo.url+"/plan", "mira")
	enter := func(name string) {
		t.Helper()
		b.tabTo(name)
		b.do(chromedp.KeyEvent(kb.Enter))
	}
	shows := func(words ...string) {
		t.Helper()
		b.sees(strings.Join(words, ", "), func(v view) bool {
			for _, want := range words {
				if !strings.Contains(v.Text, want) {
					return false
				}
			}
			return v.URL == demo.url+"/plan"
		})
	}
	for i, party := range []struct{ link, third string }{
		{"Calendar", "Google Calendar"}, {"PagerDuty", "PagerDuty"}, {"Slack", "Slack"},
	} {
		if shows("Connect " + party.link); i == 0 {
			b.readable()
		}
		enter("Connect " + party.link)
		b.heading("Demo app asks to use " + party.third)
		enter("Go on to " + party.third)
		b.sees("the page of "+party.third, func(v view) bool { return !strings.HasPrefix(v.URL, demo.url) })
		enter("Allow")
	}
	shows("Mira Okafor", "Jonas Lindqvist", "you are busy")
	b.readable()
	enter("Post the plan to Slack")
	shows("posted to #channel-0")
	enter("Try to delete the schedule")
	shows("403", "GET /schedules")
	enter("Disconnect on your account page")
	b.says(b.heading("Your account"), "Google Calendar", "PagerDuty", "Slack")
	b.screenshot("account")
}
