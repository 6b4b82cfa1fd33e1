package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// webPage is a tab in a browser of any engine.
type webPage interface {
	open(url string) error                      // waits until the page is loaded
	click(css string) error                     // as a finger would
	press(words string) error                   // clicks the link or button with these words on it
	look() (view, error)                        // address, heading and text
	script(expression string, result any) error // runs JavaScript in the page
	cookies() ([]string, error)                 // names of the cookies that the page's host gets
	forget() error                              // deletes the cookies of the page's host
	newTab() (webPage, error)
	close() error
}

// engine is a kind of browser. start gives its first tab; the browser ends with
// the test.
type engine struct {
	name  string
	start func(*testing.T) webPage
}

func engines() []engine {
	return []engine{
		{"Chromium", func(t *testing.T) webPage { return chromiumPage{newPerson(t)} }},
		{"Firefox", startFirefox},
		{"WebKit", startWebKit},
	}
}

// enginePatience is how long one step in a browser may take.
const enginePatience = 30 * time.Second

// reader is somebody who looks at a page, in whatever engine.
type reader struct {
	t *testing.T
	webPage
	losesBack bool // see backTo
}

func (r reader) check(what string, err error) {
	r.t.Helper()
	if err != nil {
		v, lookErr := r.look()
		r.t.Fatalf("%s: %v\nat %s %q, %v:\n%s", what, err, v.URL, v.H1, lookErr, v.Text)
	}
}

func (r reader) goTo(url string)    { r.t.Helper(); r.check("open "+url, r.open(url)) }
func (r reader) tap(css string)     { r.t.Helper(); r.check("click "+css, r.click(css)) }
func (r reader) choose(text string) { r.t.Helper(); r.check("press "+text, r.press(text)) }

func (r reader) back() { r.t.Helper(); r.run(`void setTimeout(() => history.back(), 50)`) }

// backTo goes back to the page at address from one of Sallyport's own. After a
// page with Cross-Origin-Opener-Policy: same-origin WebKitWebDriver answers no
// command any more once the tab goes back, in any way and with pages of any site. There the address is loaded afresh,
// in the same tab: this shows what
// the server and the browser's cache answer, and nothing of the back/forward cache.
func (r reader) backTo(address string) {
	r.t.Helper()
	if r.losesBack {
		r.goTo(address)
		return
	}
	r.back()
}

func (r reader) loseCookies() {
	r.t.Helper()
	r.check("delete cookies", r.forget())
	r.until("the cookies to be gone", func() bool { // WebKit answers before they are
		left, err := r.cookies()
		r.check("look at cookies", err)
		return len(left) == 0
	})
}

func (r reader) run(expression string) {
	r.t.Helper()
	r.check(expression, r.script(expression, nil))
}

// begin starts to load an address and does not wait for it.
func (r reader) begin(url string) { r.t.Helper(); r.run(fmt.Sprintf(`void (location.href = %q)`, url)) }

func (r reader) tab() reader {
	r.t.Helper()
	p, err := r.newTab()
	r.check("open a tab", err)
	return reader{r.t, p, r.losesBack}
}

// until waits for longer than one step may take: now and then WebKit loses what it was asked as
// one page gave way to the next, and says so only when the time of that step is over.
func (r reader) until(what string, holds func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(2 * enginePatience); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.check("wait for "+what, errors.New("in vain"))
		}
	}
}

func (r reader) sees(what string, wanted func(view) bool) view {
	r.t.Helper()
	var v view
	r.until(what, func() bool {
		var err error
		v, err = r.look() // fails while one page gives way to the next
		return err == nil && v.Ready && wanted(v)
	})
	return v
}

func (r reader) heading(h1 string) view {
	r.t.Helper()
	return r.sees("the heading "+h1, func(v view) bool { return v.H1 == h1 })
}

func (r reader) at(url string) view {
	r.t.Helper()
	return r.sees("the address "+url, func(v view) bool { return v.URL == url })
}

func (r reader) reads(v view, words ...string) {
	r.t.Helper()
	for _, w := range words {
		if !strings.Contains(flat(v.Text), flat(w)) {
			r.t.Errorf("%s does not say %q:\n%s", v.URL, w, v.Text)
		}
	}
}

func (r reader) readsNot(v view, words ...string) {
	r.t.Helper()
	for _, w := range words {
		if strings.Contains(flat(v.Text), flat(w)) {
			r.t.Errorf("%s says %q:\n%s", v.URL, w, v.Text)
		}
	}
}

// become chooses one of the demo's people, from wherever a sign-in has led.
func (r reader) become(person string) {
	r.t.Helper()
	r.atDemoProvider()
	r.tap("button[value=" + person + "]")
}

func (r reader) atDemoProvider() view {
	r.t.Helper()
	v := r.sees("a choice", func(v view) bool { return v.H1 == chooser || v.H1 == "Sign in" })
	if v.H1 == "Sign in" {
		r.choose("Sign in with Demo SSO")
	}
	return r.heading(chooser)
}

// atCorp signs somebody in at the provider of the corp site.
func (r reader) atCorp(url, person string) view {
	r.t.Helper()
	r.goTo(url)
	r.heading(atProvider)
	r.tap("button[value=" + person + "]")
	return r.at(url)
}

// afresh makes the browser one that has never been here.
func (r reader) afresh(urls ...string) {
	r.t.Helper()
	for _, u := range urls {
		r.goTo(u)
		r.loseCookies()
	}
}

// What people do most, in each of the engines that they have. The tests in
// the other files drive Chromium only.
func TestMainStoriesInEachEngine(t *testing.T) {
	demo := theDemo(t)
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) { // one after the other: two browsers at once are slow on two cores
			first := e.start(t)
			story := func(name string, tell func(r reader)) {
				t.Run(name, func(t *testing.T) {
					r := reader{t, first, e.name == "WebKit"}
					r.afresh(demo.url + "/.sallyport/nothing")
					tell(r)
				})
			}
			story("a deep link survives the sign-in", func(r reader) { deepLink(r, demo) })
			story("ten tabs each arrive where they wanted", func(r reader) { tenTabs(r, demo) })
			story("Back after sign-out shows nothing", func(r reader) { signOutAndBack(r, demo) })
			story("who is refused comes back as somebody else", func(r reader) { refusal(r, demo) })
			story("a form that was lost is not lost", func(r reader) { formLost(r, theCorp(r.t)) })
			// it stays: the last story
			story("through a service worker", func(r reader) { serviceWorker(r, theCorp(r.t)) })
		})
	}
}

func deepLink(r reader, demo *site) {
	link := demo.url + "/reports/2026?team=blue&x=a%20b"
	r.goTo(link)
	r.become("mira")
	r.reads(r.at(link), "Hello, Mira Okafor", "demo:mira", "Signed assertion verified")
	r.goTo(demo.url + "/.sallyport/account")
	r.reads(r.heading("Your account"), "Mira Okafor", "mira@acme.example")
}

// All tabs begin a sign-in at the same time, as when a browser restores them.
func tenTabs(r reader, demo *site) {
	link := func(i int) string { return fmt.Sprintf("%s/reports/%d?tab=%d", demo.url, 2000+i, i) }
	tabs := []reader{r}
	for len(tabs) < 10 {
		tab := r.tab()
		defer tab.close() //nolint:errcheck // the browser ends soon
		tabs = append(tabs, tab)
	}
	for i, tab := range tabs {
		tab.begin(fmt.Sprintf("%s/.sallyport/login?provider=demo&return_to=%%2Freports%%2F%d%%3Ftab%%3D%d", demo.url,
			2000+i, i))
	}
	for _, tab := range tabs {
		tab.heading(chooser)
	}
	for i, tab := range tabs {
		before := tab.heading(chooser).URL
		tab.tap("button[value=mira]")
		v := tab.sees("an answer",
			func(v view) bool { return v.URL != before && (v.H1 == chooser || v.URL == link(i)) })
		if v.H1 == chooser && i == 0 { // another tab had overwritten its flow cookie: it begins once more
			tab.tap("button[value=mira]")
		}
		tab.reads(tab.at(link(i)), "Hello, Mira Okafor")
	}
	names, err := r.cookies()
	r.check("read cookies", err)
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, demo.cookie) })
	if len(names) != 2 {
		r.t.Errorf("the cookies are %v, not one for the session and one for sign-ins", names)
	}
}

func signOutAndBack(r reader, demo *site) {
	r.goTo(demo.url + "/report")
	r.become("mira")
	r.at(demo.url + "/report")
	r.choose("Your account")
	r.heading("Your account")
	r.choose("Sign out")
	v := r.heading("You are signed out")
	if v.URL != demo.url+"/.sallyport/logout?provider=demo" {
		r.t.Errorf("signed out at %s", v.URL)
	}
	names, err := r.cookies()
	r.check("read cookies", err)
	if slices.Contains(names, demo.cookie) {
		r.t.Error("the browser still has the session cookie")
	}
	for _, page := range []string{"/.sallyport/account", "/report"} {
		before := v
		r.backTo(demo.url + page)
		v = r.sees("what is at "+page+" now", func(v view) bool { return v.H1 != "" && v.URL != before.URL })
		r.readsNot(v, "Your account", "Hello", "demo:mira", "Mira Okafor")
		if v.H1 != "Sign in" {
			r.t.Errorf("Back to %s leads to %s %q", page, v.URL, v.H1)
		}
	}
}

func refusal(r reader, demo *site) {
	r.goTo(demo.url + "/admin")
	r.become("tomoko")
	v := r.heading("You have no access to this page")
	r.reads(v, "You are signed in as Tomoko Hayashi (tomoko@birch.example)", "Request id:")
	if v.URL != demo.url+"/admin" {
		r.t.Errorf("refused at %s", v.URL)
	}
	r.choose("Sign in as someone else")
	r.become("jonas")
	r.reads(r.at(demo.url+"/admin"), "Hello, Jonas Lindqvist")
}

// The page says: sign in in another tab, go back one page, look at what you
// typed, and send it again. This holds where the app lets its page be kept.
func formLost(r reader, c *corp) {
	r.afresh(c.provider.Issuer + "/nothing")
	r.atCorp(c.url+"/form", "mira")
	r.run(`void (document.querySelector('#note').value = 'an hour of work')`)
	r.loseCookies()
	r.tap("#save")
	v := r.heading("You were signed out; your form was not sent")
	r.reads(v, "what you typed is probably still in this tab")

	other := r.tab()
	defer other.close() //nolint:errcheck // the browser ends soon
	other.goTo(c.url + "/form")
	if v := other.sees("an answer", func(v view) bool { return v.H1 != "" }); v.H1 == atProvider {
		other.tap("button[value=mira]")
	}
	other.heading("A form")

	r.back()
	// WebKit sometimes says of a page from its back/forward cache that it is still loading.
	r.until("the heading A form", func() bool {
		v, err := r.look()
		return err == nil && v.H1 == "A form"
	})
	var typed string
	r.check("read the form", r.script(`document.querySelector('#note').value`, &typed))
	if typed != "an hour of work" {
		r.t.Errorf("the form holds %q after Back", typed)
	}
	// chromedp finds nothing in a page that comes from the back/forward cache
	r.run(`document.querySelector('#save').click()`)
	r.reads(r.heading("Saved"), "POST: an hour of work", "Origin: "+c.url)
}

// fetchMetadata is what the app received with a page, at /headers.
func (r reader) fetchMetadata() map[string]string {
	r.t.Helper()
	v := r.sees("headers", func(v view) bool {
		return strings.HasPrefix(v.Path, "/headers") &&
			strings.Contains(v.Text, "{")
	})
	var header map[string][]string
	r.check("read "+v.Text, json.Unmarshal([]byte(v.Text), &header))
	out := map[string]string{}
	for _, name := range []string{"Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Fetch-User", "Origin",
		"Referer", "X-Forwarded-User"} {
		if line := header[name]; line != nil {
			out[name] = strings.Join(line, ", ")
		}
	}
	return out
}

// A service worker that passes every request on makes browsers say something
// else of a page, and Firefox even of where a link was.
func serviceWorker(r reader, c *corp) {
	r.afresh(c.provider.Issuer+"/nothing", c.url+"/.sallyport/nothing")
	r.atCorp(c.url+"/first", "mira")
	r.run(`void navigator.serviceWorker.register('/sw.js')`)
	controlled := func() bool {
		var yes bool
		return r.script(`navigator.serviceWorker.controller !== null`, &yes) == nil && yes
	}
	r.until("the worker to take over", controlled)

	r.goTo(c.url + "/form")
	r.run(`void (document.querySelector('form').action = '/headers')`)
	r.tap("#save")
	own := r.fetchMetadata()
	r.t.Logf("a form of the app: %v", own)
	if own["Origin"] != c.url || own["X-Forwarded-User"] != "corp:mira" {
		r.t.Errorf("a form of the app arrives as %v", own)
	}

	// Another origin of the same site (of localhost), which gets the cookie sent
	// along, and another site.
	sibling := otherOrigin(r.t, fmt.Sprintf(`<p><a href="%[1]s/headers">Headers</a>
<p><a href="%[1]s/.sallyport/login?switch=1">Win a prize</a>
<p><a href="%[1]s/.sallyport/login?switch=1" rel="noreferrer">Win a secret prize</a>
<form method="post" action="%[1]s/.sallyport/logout"><button>Sign out</button></form>
<form method="post" action="%[1]s/.sallyport/logout" rel="noreferrer"><button>Sign out secretly</button></form>`, c.url))
	stillThere := func(what string) {
		r.goTo(c.url + "/still")
		v := r.sees("an answer", func(v view) bool { return v.H1 != "" })
		if !strings.Contains(v.Text, "User: corp:mira") {
			r.t.Fatalf("%s signed her out: %s\n%s", what, v.URL, v.Text)
		}
	}
	for _, from := range []string{sibling, strings.Replace(sibling, "localhost", "127.0.0.1", 1)} {
		r.goTo(from)
		r.choose("Headers")
		r.t.Logf("a link at %s: %v", from, r.fetchMetadata())
		for _, words := range []string{"Win a prize", "Win a secret prize", "Sign out", "Sign out secretly"} {
			if words == "Sign out secretly" && from == sibling {
				continue // SECURITY.md: in WebKit this one looks like our own in every way
			}
			r.goTo(from)
			r.choose(words)
			r.sees("an answer", func(v view) bool { return v.URL != from && v.H1 != "" })
			stillThere(words + " at " + from)
		}
	}

	// What our own pages do goes through the worker too.
	r.goTo(c.url + "/.sallyport/account")
	r.heading("Your account")
	r.choose("Sign out")
	r.heading("You are signed out")
	r.afresh(c.provider.Issuer + "/nothing") // or she would be signed in again, without a word
	r.atCorp(c.url+"/deep?a=1", "tom")
	r.goTo(c.url + "/ops")
	r.heading("You have no access to this page")
	r.choose("Sign in as someone else")
	r.heading(atProvider)
	r.tap("button[value=mira]")
	r.reads(r.at(c.url+"/ops"), "User: corp:mira")
	if !controlled() {
		r.t.Error("the page did not come through the worker")
	}

	r.goTo(c.url + "/form")
	r.loseCookies()
	r.tap("#save")
	r.heading("You were signed out; your form was not sent")
}

// startGroup starts a browser in a group of its own, which is killed as a whole
// when the test ends: browsers are many processes. It finds no home but ours.
func startGroup(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	home := t.TempDir()
	runtime := filepath.Join(home, "run")
	if err := os.Mkdir(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), append(cmd.Env, "HOME="+home, "TMPDIR="+home, "XDG_RUNTIME_DIR="+runtime,
		"XDG_CONFIG_HOME="+home+"/config", "XDG_CACHE_HOME="+home+"/cache", "XDG_DATA_HOME="+home+"/data")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // children that live on must not hold its output open
	p, err := startCommand(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // the group may have ended already
		<-p.done
	})
	p.showIfFailed(t)
	return p
}

// find returns the program of the first name that there is.
func find(what, install string, names ...string) (string, error) {
	for _, name := range names {
		if matches, _ := filepath.Glob(name); len(matches) > 0 {
			return matches[0], nil
		}
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is %w: install %s", what, errMissing, install)
}

// chromiumPage is a tab of the Chromium that all other tests use.
type chromiumPage struct{ b *tab }

func (p chromiumPage) open(url string) error    { p.b.open(url); return nil }
func (p chromiumPage) click(css string) error   { p.b.click(css); return nil }
func (p chromiumPage) press(words string) error { p.b.press(words); return nil }
func (p chromiumPage) look() (view, error)      { return p.b.look() }
func (p chromiumPage) newTab() (webPage, error) { return chromiumPage{p.b.another()}, nil }
func (p chromiumPage) close() error             { return nil } // with the person
func (p chromiumPage) origin() string           { return eval[string](p.b, `location.origin`) }
func (p chromiumPage) forget() error            { p.b.forget(p.origin()); return nil }
func (p chromiumPage) cookies() (n []string, _ error) {
	for name := range p.b.cookies(p.origin()) {
		n = append(n, name)
	}
	return n, nil
}

func (p chromiumPage) script(expression string, result any) error {
	raw := eval[[]byte](p.b, expression)
	if result == nil {
		return nil
	}
	return json.Unmarshal(raw, result)
}
