package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// Every page that Sallyport or the demo shows, in light and in dark, as
// axe-core sees it, and on the narrowest phone.
func TestOwnPagesCanBeReadByEverybody(t *testing.T) {
	demo := theDemo(t)
	type stop struct {
		name string
		get  func(*tab)
	}
	signedIn := func(person, url string) func(*tab) {
		return func(b *tab) { b.signIn(url, person) }
	}
	for _, p := range []stop{
		{"chooser", func(b *tab) { b.open(demo.url + "/"); b.atProvider() }},
		{"app", signedIn("mira", demo.url+"/")},
		{"app-second", signedIn("mira", secondHost(demo)+"/")},
		{"app-public", func(b *tab) { b.open(demo.url + "/public"); b.heading("Hello") }},
		{"app-calendar", signedIn("mira", demo.url+"/calendar")},
		{"connect", func(b *tab) {
			b.signIn(demo.url+"/calendar", "sam")
			b.press("Connect a calendar")
			b.heading("Demo app asks to use Google Calendar")
		}},
		{"google", func(b *tab) {
			b.signIn(demo.url+"/calendar", "sam")
			b.press("Connect a calendar")
			b.press("Go on to Google Calendar")
			b.heading("Sallyport demo wants to use an account")
		}},
		{"lent", func(b *tab) {
			b.signIn(demo.url+"/calendar", "jonas")
			b.press("Connect a calendar")
			b.press("Go on to Google Calendar")
			b.heading("Sallyport demo wants to use an account")
			b.press("Allow")
			b.says(b.at(demo.url+"/calendar"), "connected")
			b.press("Let it read the events too")
			b.press("Go on to Google Calendar")
			b.heading("Sallyport demo wants to use an account")
			b.readable() // with boxes
			b.press("Allow")
			b.sees("the events", func(v view) bool { return strings.Contains(v.Text, "Stand-up") })
			b.press("Try to write into it")
			b.sees("the refusal", func(v view) bool { return strings.Contains(v.Text, "403") })
			b.readable()
			b.open(demo.url + "/.sallyport/account")
			b.says(b.heading("Your account"), "Disconnect for all apps")
		}},
		{"account", signedIn("mira", demo.url+"/.sallyport/account")},
		{"account-bare", signedIn("sam", demo.url+"/.sallyport/account")},
		{"denied", signedIn("tomoko", demo.url+"/admin")},
		{"confirm-sign-out", func(b *tab) {
			b.signIn(demo.url+"/", "mira")
			b.open(demo.url + "/.sallyport/logout")
			b.heading("Do you want to sign out?")
		}},
		{"signed-out", func(b *tab) { b.open(demo.url + "/.sallyport/logout"); b.heading("You are signed out") }},
		{"message", func(b *tab) {
			b.open(demo.url + "/")
			b.atProvider()
			b.press("Cancel")
			b.heading("You were not signed in")
		}},
		{"not-found", func(b *tab) { b.open(demo.url + "/.sallyport/nothing"); b.heading("Nothing is here") }},
		{"start-again", func(b *tab) {
			b.open(demo.url + "/.sallyport/callback/demo?code=x&state=y")
			b.heading("Your sign-in was not finished")
		}},
		{"form-lost", func(b *tab) {
			b.open(demo.url + "/public")
			eval[bool](b, `(document.body.insertAdjacentHTML('beforeend', '<form method=post action=/save><input name=a><button id=save>Save</button></form>'), true)`)
			b.click("#save")
			b.heading("You were signed out; your form was not sent")
		}},
	} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			b := newPerson(t)
			p.get(b)
			b.readable()
		})
	}
}

// readable checks one page in light, in dark and on a small screen.
func (b *tab) readable() {
	b.t.Helper()
	script := need(b.t, axe)
	for _, dark := range []bool{true, false} {
		b.dark(dark)
		b.screenshot(map[bool]string{false: "light", true: "dark"}[dark])
		checkAxe(b, script, dark)
	}
	checkShape(b)
	b.do(chromedp.EmulateViewport(320, 640))
	if wide := eval[int](b, `document.documentElement.scrollWidth`); wide > 320 {
		b.t.Errorf("at 320 px the page scrolls sideways: it is %d px wide", wide) // WCAG 2.2 §1.4.10
	}
	b.screenshot("narrow")
	b.do(chromedp.ResetViewport())
}

func checkShape(b *tab) {
	b.t.Helper()
	if n := eval[int](b, `document.querySelectorAll('h1').length`); n != 1 {
		b.t.Errorf("%d first headings", n)
	}
	if lang := eval[string](b, `document.documentElement.lang`); lang != "en" {
		b.t.Errorf("the language is %q", lang)
	}
	if n := eval[int](b, `document.querySelectorAll('script').length`); n != 0 {
		b.t.Errorf("%d scripts", n)
	}
	if foreign := eval[[]string](b,
		`performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin))`); len(foreign) != 0 {
		b.t.Errorf("the page loads %v", foreign)
	}
}

type violation struct {
	ID, Impact, Help string
	Nodes            []struct{ HTML, FailureSummary string }
}

func checkAxe(b *tab, script string, dark bool) {
	b.t.Helper()
	eval[bool](b, script+"\n;true")
	for _, v := range eval[[]violation](b, `axe.run(document, {resultTypes: ['violations'], preload: false}).then(r => r.violations.map(v => ({
		ID: v.id, Impact: v.impact, Help: v.help, Nodes: v.nodes.map(n => ({HTML: n.html, FailureSummary: n.failureSummary}))})))`) {
		if v.Impact != "serious" && v.Impact != "critical" {
			b.t.Logf("dark %t: %s (%s): %s", dark, v.ID, v.Impact, v.Help)
			continue
		}
		for _, n := range v.Nodes {
			b.t.Errorf("dark %t: %s (%s): %s\n%s\n%s", dark, v.ID, v.Impact, v.Help, n.HTML, n.FailureSummary)
		}
	}
}

func axe() (string, error) {
	path, err := npmPackage("axe-core", "axe.min.js")
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

func TestP19_OwnPagesCannotBeFramed(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	b := newPerson(t)
	b.signIn(demo.url+"/", "mira")
	for _, path := range []string{"/.sallyport/account", "/.sallyport/logout", "/.sallyport/nothing"} {
		b.open(otherOrigin(t, `<iframe src="`+demo.url+path+`" width="600" height="600"></iframe>`))
		b.heading("Another origin")
		b.expectComplaint("frame")
		frames := b.frames()
		if len(frames) != 2 || !strings.HasPrefix(frames[1].URL, "chrome-error:") ||
			!strings.HasPrefix(frames[1].UnreachableURL, demo.url) {
			t.Errorf("%s: the frame shows %+v", path, frames[1:])
		}
	}
}

// Whatever gets into a page of ours by mistake does not run, and loads nothing.
func TestP19_NoScriptRunsOnOwnPages(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	b := newPerson(t)
	b.signIn(demo.url+"/.sallyport/account", "mira")
	for _, markup := range []string{
		`<img src="x" onerror="window.ran = true">`,
		`<iframe srcdoc="<script>parent.ran = true</script>"></iframe>`,
		`<style>body { display: none }</style>`,
	} {
		eval[bool](b, "(document.body.insertAdjacentHTML('beforeend', `"+markup+"`), true)")
		b.expectComplaint("Content Security Policy")
	}
	eval[bool](b, `(() => { const s = document.createElement('script'); s.textContent = 'window.ran = true'; document.body.append(s); return true })()`)
	b.expectComplaint("Content Security Policy")
	if eval[bool](b, `window.ran === true`) {
		t.Error("a script ran on the account page")
	}
	if eval[string](b, `getComputedStyle(document.body).display`) == "none" {
		t.Error("a style was taken from the markup")
	}
}
