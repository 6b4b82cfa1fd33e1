package e2e

import (
	"context"
	"fmt"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

const manyTabs = 30

// openAll opens a deep link in each of many fresh tabs, all at once.
func openAll(first *tab, link func(int) string) []*tab {
	first.t.Helper()
	tabs := []*tab{first}
	for len(tabs) < manyTabs {
		tabs = append(tabs, first.behind())
	}
	inEach(tabs, func(i int, b *tab) { b.open(link(i)) })
	return tabs
}

// inEach uses all tabs at the same time.
func inEach(tabs []*tab, f func(int, *tab)) {
	var all sync.WaitGroup
	for i, b := range tabs {
		all.Go(func() { f(i, &tab{aside{b.t}, b.ctx, b.errors}) })
	}
	all.Wait()
}

// aside is a test as seen from a goroutine of its own, which is all that its
// Fatalf may end.
type aside struct{ testing.TB }

func (a aside) Fatalf(format string, args ...any) {
	a.Helper()
	a.Errorf(format, args...)
	runtime.Goexit()
}

// sallyportCookies counts what Sallyport keeps in this browser.
func (b *tab) sallyportCookies() (names []string) {
	b.t.Helper()
	for _, c := range b.allCookies() {
		if strings.Contains(c.Name, "sallyport") {
			names = append(names, c.Name)
		}
	}
	return names
}

// A browser that restores its windows opens all tabs at once, and each of them
// begins a sign-in. The person signs in once; the others then just go on.
func TestP06_ThirtyTabsAtOnceEachArriveWhereTheyWanted(t *testing.T) {
	demo := theDemo(t)
	link := func(i int) string { return fmt.Sprintf("%s/reports/%d?tab=%d", demo.url, 2000+i, i) }
	first := newPerson(t)
	tabs := openAll(first, link)
	inEach(tabs, func(i int, b *tab) { b.atProvider() })
	if names := first.sallyportCookies(); len(names) != 1 {
		t.Errorf("thirty sign-ins cost the cookies %v", names)
	}
	// The first tab to come back may be one whose flow cookie another tab has
	// overwritten: then it is sent to the provider again, once.
	before := first.atProvider().URL
	first.clickUnseen("button[value=mira]")
	v := first.sees("an answer", func(v view) bool { return v.URL != before && (v.H1 == chooser || v.URL == link(0)) })
	if v.H1 == chooser {
		first.clickUnseen("button[value=mira]")
	}
	first.at(link(0))
	inEach(tabs[1:], func(i int, b *tab) {
		b.clickUnseen("button[value=mira]")
		b.says(b.at(link(i+1)), "Hello, Mira Okafor")
	})
	if names := first.sallyportCookies(); len(names) != 2 {
		t.Errorf("the cookies are %v, not one for the session and one for sign-ins", names)
	}
}

// A tab that was left open at the provider, after a sign-in in another tab, leads to the
// page that it was opened for, and does not change who is signed in.
func TestP06_LateTabChangesNothing(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	early := newPerson(t)
	late := early.another()
	early.open(demo.url + "/early")
	early.atProvider()
	late.open(demo.url + "/late?x=1")
	late.atProvider()
	early.click("button[value=mira]")
	early.at(demo.url + "/early")
	late.click("button[value=jonas]")
	late.says(late.at(demo.url+"/late?x=1"), "Hello, Mira Okafor")
}

// catchCallback presses a provider's button and stops the browser on its way
// back, as somebody does who wants to give the address to another.
func (b *tab) catchCallback(site *site, button string) string {
	b.t.Helper()
	return b.catch(site.url+"/.sallyport/callback/*", button)
}

// catch presses a button and stops the browser on its way to an address of a pattern.
func (b *tab) catch(pattern, button string) string {
	b.t.Helper()
	ask(b, fetch.Enable, fetch.EnableParams{Patterns: []*fetch.RequestPattern{{URLPattern: pattern}}})
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	e, err := chromedp.Run(ctx, chromedp.WaitEvent(fetch.RequestPaused, nil, chromedp.Click(chromedp.CSS(button))))
	if err != nil {
		b.t.Fatal(err)
	}
	ask(b, fetch.FailRequest, fetch.FailRequestParams{RequestID: e.RequestID, ErrorReason: network.ErrorReasonAborted})
	ask(b, fetch.Disable, cdp.Empty{})
	return e.Request.URL
}

// Login CSRF: a person who opens another person's callback address must not be signed in as
// that person (RFC 6749 §10.12).
func TestP06_CallbackFromAnotherBrowserSignsNobodyIn(t *testing.T) {
	t.Parallel()
	demo := theDemo(t)
	stranger := newPerson(t)
	stranger.open(demo.url + "/reports/2026?team=blue")
	stranger.atProvider()
	callback := stranger.catchCallback(demo, "button[value=mira]")
	if _, there := stranger.cookies(demo.url)[demo.cookie]; there {
		t.Fatal("the callback was not caught")
	}
	if u, err := url.Parse(callback); err != nil || u.Query().Get("code") == "" {
		t.Fatalf("no code in %s: %v", callback, err)
	}

	fresh := newPerson(t)
	fresh.open(callback)
	v := fresh.heading("Your sign-in was not finished")
	fresh.says(v, "It came back to a browser that has no record of starting it.", "Somebody sent you the link.")

	begun := newPerson(t)
	begun.open(demo.url + "/mine")
	begun.atProvider()
	begun.open(callback)
	begun.atProvider() // afresh, and never as Mira

	jonas := newPerson(t)
	jonas.signIn(demo.url+"/", "jonas")
	jonas.open(callback)
	jonas.says(jonas.at(demo.url+"/reports/2026?team=blue"), "Hello, Jonas Lindqvist")

	for _, b := range []*tab{fresh, begun} {
		if _, there := b.cookies(demo.url)[demo.cookie]; there {
			t.Error("somebody else's callback made a session")
		}
	}
	stranger.open(callback)
	stranger.says(stranger.at(demo.url+"/reports/2026?team=blue"), "Hello, Mira Okafor")
}
