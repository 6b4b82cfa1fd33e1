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
