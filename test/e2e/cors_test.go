package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// corsApp is an app that knows nothing of CORS but to allow everybody everything, as some
// do. It notes what reaches it.
type corsApp struct {
	*httptest.Server
	mu   sync.Mutex // guards seen
	seen []string
}

func startCORSApp(t *testing.T) *corsApp {
	t.Helper()
	a := &corsApp{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.seen = append(a.seen, r.Method+" "+r.URL.Path)
		a.mu.Unlock()
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<h1>The app</h1><p>%s of %q</p>", r.Method, r.Header.Get("X-Forwarded-User"))
	}))
	t.Cleanup(a.Close)
	return a
}

// news is what reached the app since the last call. A page's picture, which the browser
// fetches in its own time, is none of it.
func (a *corsApp) news() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	news := slices.DeleteFunc(a.seen, func(line string) bool { return strings.HasSuffix(line, "/favicon.ico") })
	a.seen = nil
	return strings.Join(news, ", ")
}

// askWith fetches an address with a header about which browsers ask first, and returns what
// the page may read.
const askWith = `fetch(%q, {method: %q, credentials: %q, headers: {'X-Wanted': 'yes'}})
	.then(async r => r.status + ' ' + (await r.text()).slice(0, 60), () => 'not readable')`

// A page of a listed origin asks and reads with the cookie of the person in front of it,
// where both are of one site; a page that is not listed reads nothing, and neither's
// preflight reaches the app.
func TestPagesOfListedOriginsAskAndRead(t *testing.T) {
	t.Parallel()
	app := startCORSApp(t)
	listed, stranger := otherOrigin(t, ""), otherOrigin(t, "")
	faraway := strings.Replace(otherOrigin(t, ""), "localhost", "127.0.0.1", 1) // another site
	origin := func(page string) string { return strings.TrimSuffix(page, "/") }
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s := overHTTP(address)
	cors := fmt.Sprintf("cors: {origins: [%s, %s], methods: [PUT], headers: [X-Wanted], credentials: true}",
		origin(listed), origin(faraway))
	s.Routes = []string{
		"{name: app, path: /, upstream: " + app.URL + ", allow: authenticated, " + cors + "}",
		"{name: ops, path: /ops, upstream: " + app.URL + ", allow: [{groups: [nobody]}], " + cors + "}",
		"{name: open, path: /open, upstream: " + app.URL + ", public: {methods: [GET]}, " + cors + "}",
		"{name: closed, path: /closed, upstream: " + app.URL + ", allow: authenticated}",
	}
	c := ownCorp(t, s)
	b := newPerson(t)
	b.signInAtProvider(c.url+"/", "mira")
	app.news()
	for _, tt := range []struct {
		page, method, path, cookies string
		reads, arrives              string
	}{
		{listed, "PUT", "/x", "include", `200 <h1>The app</h1><p>PUT of "corp:mira"`, "PUT /x"},
		{listed, "GET", "/x", "omit", `401 {"error":"login_required"`, ""},
		{listed, "PUT", "/ops/x", "include", `403 {"error":"Forbidden"`, ""},
		{listed, "GET", "/open/x", "include", `200 <h1>The app</h1><p>GET of ""`, "GET /open/x"},
		{listed, "PUT", "/open/x", "include", `403 {"error":"Forbidden"`, ""},
		{listed, "DELETE", "/x", "include", "not readable", ""}, // the browser compares with the list
		{listed, "PUT", "/closed/x", "include", "not readable", ""},
		{stranger, "PUT", "/x", "include", "not readable", ""},
		{stranger, "GET", "/open/x", "omit", "not readable", ""},
		{faraway, "PUT", "/x", "include", `401 {"error":"login_required"`, ""}, // without the cookie
		{faraway, "GET", "/open/x", "omit", `200 <h1>The app</h1><p>GET of ""`, "GET /open/x"},
	} {
		b.open(tt.page)
		b.heading("Another origin")
		got := eval[string](b, fmt.Sprintf(askWith, c.url+tt.path, tt.method, tt.cookies))
		if !strings.HasPrefix(got, tt.reads) {
			t.Errorf("%s %s from %s (%s): %s, want %s", tt.method, tt.path, tt.page, tt.cookies, got, tt.reads)
		}
		if news := app.news(); news != tt.arrives {
			t.Errorf("%s %s from %s: the app got %q, want %q", tt.method, tt.path, tt.page, news, tt.arrives)
		}
	}
	// A plain request of another site arrives as ever, and is not readable.
	b.open(stranger)
	plain := fmt.Sprintf(`fetch(%q, {credentials: 'include'}).then(() => 'readable', () => 'not readable')`, c.url+"/x")
	if got, news := eval[string](b, plain), app.news(); got != "not readable" || news != "GET /x" {
		t.Errorf("a plain request: %s, the app got %q", got, news)
	}
	b.errors.mu.Lock()
	b.errors.list = nil // that it could not read some of these
	b.errors.mu.Unlock()
}
