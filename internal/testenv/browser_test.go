package testenv

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/demo"
)

func TestBrowserSignsInAcrossTwoServers(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	app := "http://" + srv.Listener.Addr().String()
	f := StartProvider(t, demo.ProviderOptions{ClientID: "c", ClientSecret: "s",
		RedirectURIs: []string{app + "/callback"}})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "flow", Value: "1", Path: "/"})
		q := url.Values{"client_id": {"c"}, "redirect_uri": {app + "/callback"}, "response_type": {"code"},
			"scope": {"openid"},
			"state": {"s"}, "nonce": {"n"}, "code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"},
			"code_challenge_method": {"S256"}}
		http.Redirect(w, r, f.URL+demo.AuthorizePath+"?"+q.Encode(), http.StatusFound)
	})
	mux.HandleFunc("GET /callback", func(w http.ResponseWriter, r *http.Request) {
		if c, err := r.Cookie("flow"); err != nil || c.Value != "1" || r.URL.Query().Get("code") == "" {
			http.Error(w, "who are you?", http.StatusForbidden)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "2", Path: "/"})
		http.Redirect(w, r, "/home", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /home", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "welcome") })
	srv.Config.Handler = mux
	srv.Start()
	t.Cleanup(srv.Close)

	b := NewBrowser(t, nil)
	page := b.Open(app + "/")
	if len(page.Hops) != 2 || page.Status != http.StatusOK || page.URL.Path != demo.AuthorizePath {
		t.Fatalf("landed on %s (%d) after %d hops", page.URL, page.Status, len(page.Hops))
	}
	if set := page.Hops[0].SetCookie; len(set) != 1 || set[0].Name != "flow" {
		t.Errorf("first hop set %v", set)
	}
	page = b.SignIn(page, "jonas")
	if page.Body != "welcome" || len(page.Hops) != 3 {
		t.Fatalf("landed on %s: %s", page.URL, page.Body)
	}
	if got := page.Hops[0].Request.Get("Sec-Fetch-Site"); got != "same-origin" {
		t.Errorf("the provider's own form says %s", got)
	}
	if got := page.Hops[1].Request.Get("Sec-Fetch-Site"); got != "same-site" {
		t.Errorf("coming back from another port says %s", got)
	}
	if got := b.Cookies(app + "/"); len(got) != 2 {
		t.Errorf("kept %v", got)
	}
}

func TestBrowserTellsWhereANavigationComesFrom(t *testing.T) {
	var seen []http.Header
	var other *httptest.Server
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { seen = append(seen, r.Header) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/back", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter,
		r *http.Request) {
		http.Redirect(w, r, "/loop", http.StatusFound)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	other = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, srv.URL+"/again", http.StatusTemporaryRedirect)
	}))
	t.Cleanup(other.Close)

	b := NewBrowser(t, nil)
	page := b.Open(srv.URL + "/")
	b.Click(page, "/next")
	b.Post(page, "/form", url.Values{"a": {"b"}})
	b.Post(page, "/away", url.Values{"a": {"b"}})
	for i, want := range []struct{ site, origin string }{
		{"none", ""}, {"same-origin", ""}, {"same-origin", srv.URL}, {"same-site", "null"},
	} {
		if got := seen[i].Get("Sec-Fetch-Site"); got != want.site || seen[i].Get("Origin") != want.origin {
			t.Errorf("request %d says %q from %q, want %v", i, got, seen[i].Get("Origin"), want)
		}
	}
	b.MaxHops = 3
	if page := b.Open(srv.URL + "/loop"); page.Status != http.StatusFound || len(page.Hops) != 4 {
		t.Errorf("gave up after %d hops with %d", len(page.Hops), page.Status)
	}
}

func TestBrowserPressesButtons(t *testing.T) {
	var got url.Values
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `<form method="POST" action="/go?a=1&amp;b=2"><input type="hidden" name="token" value="&quot;x&quot;">
				<input name="typed" value="no"><button name="do" value="it">Do it</button></form>`)
			return
		}
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		got = r.Form
	}))
	t.Cleanup(srv.Close)
	b := NewBrowser(t, nil)
	b.Submit(b.Open(srv.URL), "do", "it")
	if want := (url.Values{"a": {"1"}, "b": {"2"}, "token": {`"x"`}, "do": {"it"}}); got.Encode() != want.Encode() {
		t.Errorf("sent %v, want %v", got, want)
	}
}

// The stand-in says the same as the real browsers that were recorded.
func TestBrowserSpeaksLikeARealOne(t *testing.T) {
	seen := make(chan http.Header, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen <- r.Header }))
	t.Cleanup(srv.Close)
	for _, e := range Engines() {
		recorded := func(what string, worker bool) http.Header {
			for _, d := range Doings() {
				if h, ok := d.Header(e, srv.URL); ok && d.What == what && d.Worker == worker {
					return h
				}
			}
			t.Fatalf("%s: nothing recorded for %s", e, what)
			return nil
		}
		for _, tt := range []struct {
			what          string
			worker, frame bool
			do            func(*Browser, Page)
		}{
			{"an address is typed", false, false, func(b *Browser, _ Page) { b.Open(srv.URL) }},
			{"a link is clicked", false, false, func(b *Browser, p Page) { b.Click(p, "/x") }},
			{"a frame is loaded", false, true, func(b *Browser, p Page) { b.Click(p, "/x") }},
			{"a form is sent by a click", false, false,
				func(b *Browser, p Page) { b.Post(p, "/x", url.Values{"a": {"b"}}) }},
			{"a page is opened", true, false, func(b *Browser, p Page) { b.Click(p, "/x") }},
			{"a frame is loaded", true, true, func(b *Browser, p Page) { b.Click(p, "/x") }},
			{"a form is sent", true, false, func(b *Browser, p Page) { b.Post(p, "/x", url.Values{"a": {"b"}}) }},
		} {
			b := NewBrowser(t, nil)
			b.Engine = e
			page := b.Open(srv.URL + "/")
			<-seen
			b.Frame = tt.frame
			if tt.worker {
				b.Worker = srv.URL
			}
			tt.do(b, page)
			got, want := <-seen, recorded(tt.what, tt.worker)
			for _, name := range []string{"Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Fetch-User",
				"Accept", "Origin"} {
				if got.Get(name) != want.Get(name) {
					t.Errorf("%s, %s (worker %v): %s is %q, of a real one %q", e, tt.what, tt.worker, name,
						got.Get(name), want.Get(name))
				}
			}
		}
	}
}
