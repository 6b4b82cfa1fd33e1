package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// focused is what the keyboard would press.
func (b *tab) focused() string {
	b.t.Helper()
	return eval[string](b, `document.activeElement.getAttribute('aria-label') || document.activeElement.innerText`)
}

// tabTo presses Tab until the control whose name begins so has the focus, and looks
// whether that can be seen.
func (b *tab) tabTo(name string) {
	b.t.Helper()
	for range 40 {
		b.do(chromedp.KeyEvent(kb.Tab))
		if strings.HasPrefix(b.focused(), name) {
			if eval[bool](b, `getComputedStyle(document.activeElement).outlineStyle === 'none'`) {
				b.t.Errorf("nobody sees that %q has the focus", name) // WCAG 2.2 §2.4.7
			}
			return
		}
	}
	b.t.Fatalf("the keyboard does not come to %q; it is at %q", name, b.focused())
}

// The list of one's own sessions can be read by everybody, also on a narrow phone, and
// used with the keyboard alone: to end another session, and to sign out everywhere.
func TestP10_TheListOfOnesSessionsNeedsNoMouseAndNoWideScreen(t *testing.T) {
	t.Parallel()
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s := overHTTP(address)
	s.Stored = true
	c := ownCorp(t, s)
	b, other, third := newPerson(t), newPerson(t), newPerson(t)
	for _, p := range []*tab{other, third, b} {
		p.signInAtProvider(c.url+"/", "mira")
	}
	cookies := map[*tab]string{}
	for _, p := range []*tab{other, third, b} {
		cookies[p] = c.cookie + "=" + p.cookies(c.url)[c.cookie].Value
	}
	lives := func(p *tab) bool { // the provider would sign them in again without a word
		status, _ := asProgram(t, c.url+"/.sallyport/session", cookies[p])
		return status == http.StatusOK
	}
	account := c.url + "/.sallyport/account"
	lines := func(v view) int { return strings.Count(v.Text, "End this session") }
	b.until("the list has all three", func() bool {
		b.open(account)
		return lines(b.heading("Your account")) == 3
	})
	v := b.heading("Your account")
	b.says(v, "Where you are signed in", "Chrome on Linux", "this browser", "from 127.0.0.1", "Sign out everywhere")
	b.readable()
	b.open(account)
	names := eval[[]string](b, `[...document.querySelectorAll('button[name=session]')].map(e => e.ariaLabel)`)
	for _, name := range names {
		if !strings.HasPrefix(name, "End this session: Chrome on Linux") || !strings.Contains(name, "signed in ") {
			t.Errorf("a screen reader says %q", name)
		}
	}

	b.tabTo("End this session: Chrome on Linux, signed in") // not that of this browser
	b.do(chromedp.KeyEvent(kb.Enter))
	v = b.sees("the list without it", func(v view) bool { return v.H1 == "Your account" && lines(v) == 2 })
	if v.Hash != "#sessions" {
		t.Errorf("the list is not in view: %s", v.URL)
	}
	if lives(other) == lives(third) {
		t.Errorf("are the others signed in? %v, %v", lives(other), lives(third))
	}

	b.tabTo("Sign out everywhere")
	b.do(chromedp.KeyEvent(kb.Enter))
	b.says(b.heading("You are signed out everywhere"), "in this browser or in any other")
	b.readable()
	if lives(b) || lives(other) || lives(third) {
		t.Error("somebody is still signed in")
	}
}
