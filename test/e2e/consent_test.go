package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// remembering is a third party that remembers what somebody agreed to: it sends every
// browser back at once, with a code. So what keeps scripts from an account is our page alone.
type remembering struct {
	*httptest.Server
	mu    sync.Mutex
	asked int // browsers that came
	codes int // that were redeemed
}

func newRemembering(t *testing.T) *remembering {
	r := &remembering{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked++
		q := req.URL.Query()
		http.Redirect(w, req, q.Get("redirect_uri")+"?"+url.Values{"state": q["state"], "code": {"code"}}.Encode(),
			http.StatusFound)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.codes++
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "access-token", "token_type": "Bearer"})
	})
	r.Server = httptest.NewServer(mux)
	t.Cleanup(r.Close)
	return r
}

func (r *remembering) seen() (asked, codes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked, r.codes
}

// grants is what a site lends, to as many apps as there are routes.
func (r *remembering) grants(t *testing.T, routes ...string) string {
	t.Helper()
	key, err := exec.Command(world.binary, "genkey").Output()
	if err != nil {
		t.Fatal(err)
	}
	var apps []string
	for i, route := range routes {
		apps = append(apps, fmt.Sprintf(`{id: app%d, token: "literal:%s%d", routes: [%s], connectors: [things]}`, i,
			strings.Repeat("t", 32), i, route))
	}
	return fmt.Sprintf(`{encryption_keys: ["literal:%s"], apps: [%s], connectors: [{id: things, type: oauth2, `+
		`client_id: c, client_auth: none, endpoints: {authorization: "%[3]s/authorize", token: "%[3]s/token"}, `+
		`base_url: "%[3]s", scopes: {read: [read]}, rules: {read: ["GET /*"]}}]}`, strings.TrimSpace(string(key)),
		strings.Join(apps, ", "), r.URL)
}

// A page of an app, with all that its scripts can do without a person: nothing is stored, and
// the third party is not even asked. Two apps have hosts of their own, and the pages on which
// people agree one without an app (P12). The script is that of one app, and would have a
// person agree for the other.
func TestP12_ScriptsOfAnAppCannotAgreeForSomebody(t *testing.T) {
	t.Parallel()
	there := newRemembering(t)
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s := overTLS(address)
	if s.GrantsAt, err = freeAddress(); err != nil {
		t.Fatal(err)
	}
	lends := there.grants(t, "near", "elsewhere")
	s.Stored, s.Grants = true, func(*provider) string { return lends }
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!DOCTYPE html><title>An app</title><h1>An app</h1>")
	}))
	t.Cleanup(page.Close)
	for name, host := range map[string]string{"near": sibling, "elsewhere": otherSite} {
		s.Routes = append(s.Routes, fmt.Sprintf("{name: %s, host: %s, path: /, upstream: %q, allow: authenticated}", name,
			host, page.URL))
	}
	c := ownCorp(t, s)
	b := newPerson(t)
	for _, host := range []string{sibling, otherSite} {
		evil := "https://" + host + portOf(address) + "/page"
		if host == sibling {
			b.signInAtProvider(evil, "mira")
		} else {
			b.open(evil)
			b.at(evil)
		}
		connect := c.url + "/.sallyport/connect/things?app=app1&return_to=%2F"
		said := b.attack(connect, `(address) => fetch(address, {credentials: 'include'}).then(r => 'read it: ' + r.status,
			e => 'refused: ' + e)`)
		if !strings.HasPrefix(said, "refused") {
			t.Errorf("%s: a script fetched the page: %s", host, said)
		}
		b.attack(connect, `(address) => fetch(address, {method: 'POST', mode: 'no-cors', credentials: 'include',
			headers: {'Content-Type': 'application/x-www-form-urlencoded'}, body: 'answer=yes&form=x'}).then(() => '', String)`)
		said = b.attack(connect, `(address) => new Promise(done => {
			const frame = document.createElement('iframe');
			frame.onload = () => { try { done('read it: ' + frame.contentDocument.body.innerText) }
				catch (e) { done('refused: ' + e) } };
			frame.src = address;
			document.body.append(frame);
		})`)
		if !strings.HasPrefix(said, "refused") && said != "read it: " {
			t.Errorf("%s: a script read the page in a frame: %s", host, said)
		}
		b.attack(connect, `(address) => new Promise(done => {
			const frame = document.createElement('iframe'), form = document.createElement('form');
			frame.name = 'hidden';
			frame.onload = () => done('');
			document.body.append(frame);
			form.method = 'post'; form.action = address; form.target = 'hidden';
			form.innerHTML = '<input name=answer value=yes><input name=form value=x>';
			document.body.append(form);
			form.submit();
		})`)
		b.open(evil)
		b.at(evil)
		eval[bool](b, fmt.Sprintf(`(() => { const form = document.createElement('form');
			form.method = 'post'; form.action = %q;
			form.innerHTML = '<input name=answer value=yes><input name=form value=x>';
			document.body.append(form); form.submit(); return true })()`, connect))
		b.heading("Nothing was connected")
		b.errors.mu.Lock()
		b.errors.list = nil // the browser has complained about each of these
		b.errors.mu.Unlock()
		if asked, codes := there.seen(); asked != 0 || codes != 0 {
			t.Fatalf("%s: %d browsers came to the third party, %d codes were redeemed", host, asked, codes)
		}
	}
	// A person can: the same link, opened and answered.
	b.open(c.url + "/.sallyport/connect/things?app=app1")
	b.press("Go on to things")
	b.heading("Your account")
	if asked, codes := there.seen(); asked != 1 || codes != 1 {
		t.Errorf("a person agreed: %d browsers came to the third party, %d codes were redeemed", asked, codes)
	}
}

// attack runs a script of the page with an address, and returns what it says.
func (b *tab) attack(address, script string) string {
	b.t.Helper()
	return eval[string](b, fmt.Sprintf("(%s)(%q)", script, address))
}

// ownAppPage is what an app on the host of public_url can serve: pages, one of which stays with
// the windows that it opens, and service workers.
func ownAppPage(w http.ResponseWriter, r *http.Request) {
	const begin = `self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', e => e.waitUntil(self.clients.claim()));
`
	switch r.URL.Path {
	case "/worker.js":
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = io.WriteString(w, begin+`self.addEventListener('fetch', e => e.respondWith(fetch(e.request)));`)
		return
	case "/stays":
		w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
	}
	w.Header().Set("Content-Type", "text/html")
	_, _ = io.WriteString(w, "<!DOCTYPE html><title>An app</title><h1>An app</h1>")
}

// The one app is on the host of public_url. What its scripts fetch, frame or send is refused, and
// the windows that they open are out of their reach. An app that is after it can stay with these
// windows, by the header with which our own pages leave others, and press the button: P12 says
// so. That ends the test, and shows that what is counted can be seen.
func TestP12_ScriptsOfTheOnlyAppHaveToPressTheButtonItself(t *testing.T) {
	t.Parallel()
	there := newRemembering(t)
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s := overTLS(address)
	if s.GrantsAt, err = freeAddress(); err != nil {
		t.Fatal(err)
	}
	lends := there.grants(t, "app")
	s.Stored, s.Grants = true, func(*provider) string { return lends }
	page := httptest.NewServer(http.HandlerFunc(ownAppPage))
	t.Cleanup(page.Close)
	s.Routes = []string{fmt.Sprintf("{name: app, path: /, upstream: %q, allow: authenticated}", page.URL)}
	c := ownCorp(t, s)
	b := newPerson(t)
	b.signInAtProvider(c.url+"/page", "mira")
	connect := c.url + "/.sallyport/connect/things?app=app0&return_to=%2Fdone"
	const answer = `Object.assign(document.createElement('form'), {method: 'post', action: address, target: 'there',
		innerHTML: '<input name=answer value=yes><input name=form value=x>'})`
	// A frame or window shows about:blank, which may be read, until it has gone where it was sent.
	// What would follow, at the third party, has a second.
	const arrives = `const sleep = time => new Promise(done => setTimeout(done, time));
		for (let n = 0; n < 150; n++) {
			await sleep(100);
			try { if (shown().URL !== 'about:blank' && shown().readyState === 'complete') break } catch (e) { break }
		}
		await sleep(1000);`
	for _, attack := range []struct{ name, from, script, says string }{
		{"fetch", "/page", `const a = await fetch(address, {headers: {Accept: 'text/html'}});
			return a.status + ' ' + (await a.text()).includes('<form')`, "403 false"},
		{"fetch of the own origin", "/page", `const a = await fetch(address, {mode: 'same-origin',
			headers: {Accept: 'text/html'}});
			return a.status + ' ' + (await a.text()).includes('<form')`, "403 false"},
		{"answer by fetch", "/page", `const a = await fetch(address, {method: 'POST', body: 'answer=yes&form=x',
			headers: {'Content-Type': 'application/x-www-form-urlencoded', Accept: 'text/html'}}); return '' + a.status`, "403"},
		{"frame", "/page", `const f = document.createElement('iframe'); f.src = address;
			document.body.append(f); const shown = () => f.contentDocument; ` + arrives + `
			return f.contentDocument ? 'read it' : 'refused'`, "refused"},
		{"answer in a frame", "/page", `const f = document.createElement('iframe'), form = ` + answer + `;
			f.name = 'there'; document.body.append(f, form); form.submit();
			const shown = () => f.contentDocument; ` + arrives + `
			return f.contentDocument ? 'read it' : 'refused'`, "refused"},
		{"window", "/page", `const w = open(address, 'there'), shown = () => w.document; ` + arrives + `
			try { return 'read it: ' + w.document.URL } catch (e) { return e.name }`, "SecurityError"},
		{"answer in a window", "/page", `const w = open('', 'there'), form = ` + answer + `;
			document.body.append(form); form.submit(); const shown = () => w.document; ` + arrives + `
			try { return 'read it: ' + w.document.URL } catch (e) { return e.name }`, "SecurityError"},
		{"answer without the page's secret, in a window that it stays with", "/stays", `const w = open('', 'there'),
			form = ` + answer + `, shown = () => w.document; document.body.append(form); form.submit(); ` + arrives + `
			const said = w.document.body.innerText; w.close(); return '' + said.includes('Please look at this again')`, "true"},
	} {
		b.open(c.url + attack.from)
		b.at(c.url + attack.from)
		if said := b.clickOfScript(connect, attack.script); said != attack.says {
			t.Errorf("%s: %q, not %q", attack.name, said, attack.says)
		}
		if asked, codes := there.seen(); asked != 0 || codes != 0 {
			t.Fatalf("%s: %d browsers came to the third party, %d codes were redeemed", attack.name, asked, codes)
		}
	}
	b.open(c.url + "/page")
	b.at(c.url + "/page")
	eval[bool](b, `navigator.serviceWorker.register('/worker.js').then(() => navigator.serviceWorker.ready).
		then(() => true)`)
	b.until("the worker to take over", func() bool { return eval[bool](b, `navigator.serviceWorker.controller !== null`) })
	b.open(connect)
	b.heading("Open this page by itself")
	b.open(c.url + "/page")
	b.at(c.url + "/page")
	eval[bool](b, `navigator.serviceWorker.getRegistrations().
		then(all => Promise.all(all.map(r => r.unregister()))).then(() => true)`)
	if asked, codes := there.seen(); asked != 0 || codes != 0 {
		t.Fatalf("worker: %d browsers came to the third party, %d codes were redeemed", asked, codes)
	}
	b.errors.mu.Lock()
	b.errors.list = nil // the browser has complained about the frames
	b.errors.mu.Unlock()

	b.open(c.url + "/stays")
	b.at(c.url + "/stays")
	b.clickOfScript(connect, `const w = open(address, 'there'), shown = () => w.document; `+arrives+`
		w.document.querySelector('button[value=yes]').click(); return ''`)
	b.until("what P12 concedes", func() bool { asked, codes := there.seen(); return asked == 1 && codes == 1 })
}

// clickOfScript runs a script with an address when somebody clicks in the page, as browsers want
// it of scripts that open windows, and returns what it returns.
func (b *tab) clickOfScript(address, script string) string {
	b.t.Helper()
	eval[bool](b, fmt.Sprintf(`(() => {
		const run = async (address) => { %s };
		const button = document.createElement('button');
		button.id = 'attack';
		button.textContent = 'Go on';
		button.onclick = () => { run(%q).catch(e => 'failed: ' + e).then(said => window.said = {said}) };
		document.body.prepend(button);
		return true })()`, script, address))
	b.click("#attack")
	b.until("the script to end", func() bool { return eval[bool](b, `window.said !== undefined`) })
	return eval[string](b, `window.said.said`)
}
