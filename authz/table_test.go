package authz

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func mustTable(t testing.TB, routes ...Route) *Table {
	t.Helper()
	table, err := NewTable(routes)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

const host = "app.example.com"

// route is a route of host; a path that ends in "$" is exact.
func route(p string) Route {
	r := Route{Name: p, Host: host, Path: p}
	r.Path, r.Exact = strings.CutSuffix(p, "$")
	return r
}

// look is the name of the route for a raw target, "none", or "400".
func look(t testing.TB, table *Table, rawHost, target string) string {
	t.Helper()
	f, err := NewFacts("GET", "https", rawHost, target)
	if err != nil {
		return "400"
	}
	r, err := table.Lookup(f)
	switch {
	case errors.Is(err, ErrTarget):
		if r != nil {
			t.Errorf("%s: %v with a route", target, err)
		}
		return "400"
	case errors.Is(err, ErrNoRoute):
		if r != nil {
			t.Errorf("%s: %v with a route", target, err)
		}
		return "none"
	case err != nil:
		t.Fatal(err)
	}
	return r.Name
}

// Pomerium CVE-2023-33189, GHSA-4mf2: a prefix ends at a segment's end.
func TestP03_PathCoversItsSegmentsAndNothingElse(t *testing.T) {
	table := mustTable(t, route("/admin"), route("/admin/open"), route("/logo.svg$"), route("/docs/$"),
		route("/admin/open/x$"))
	for target, want := range map[string]string{
		"/admin": "/admin", "/admin/": "/admin", "/admin/x": "/admin", "/admin/x/y/z": "/admin", "/admin?x": "/admin",
		"/%61dmin/x":  "/admin",
		"/admin/open": "/admin/open", "/admin/open/": "/admin/open", "/admin/open/y": "/admin/open",
		"/admin/opens": "/admin", "/admin/ope": "/admin", "/admin/open/x": "/admin/open/x$",
		"/admin/open/x/y": "/admin/open",
		"/administrator":  "none", "/admi": "none", "/admin-x": "none", "/admin.": "400", "/": "none",
		"/x/admin":  "none",
		"/logo.svg": "/logo.svg$", "/logo.svg/": "400", "/logo.svg/x": "none", "/logo.svgx": "none",
		"/logo.svg?x": "/logo.svg$", "/logo": "none",
		"/docs/": "/docs/$", "/docs": "400", "/docs/x": "none",
	} {
		if got := look(t, table, host, target); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
	root := mustTable(t, route("/"), route("/$"))
	for target, want := range map[string]string{"/": "/$", "/x": "/", "/x/": "/"} {
		if got := look(t, root, host, target); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
}

// Authelia CVE-2026-48794, oauth2-proxy CVE-2021-21291, Caddy CVE-2026-27588: the
// case of a host name and the boundaries of its labels.
func TestP03_MostSpecificHostDecides(t *testing.T) {
	var routes []Route
	for _, h := range []string{"example.com", "app.example.com", "*.example.com", "*.eu.example.com",
		"*.deep.eu.example.com", "[::1]", "127.0.0.1"} {
		routes = append(routes, Route{Name: h, Host: h, Path: "/"})
	}
	routes = append(routes, Route{Name: "wild admin", Host: "*.example.com", Path: "/admin"},
		Route{Name: "other", Host: "other.example", Path: "/only"})
	slices.Reverse(routes) // order must not matter
	table := mustTable(t, routes...)
	for _, tc := range []struct{ host, want string }{
		{"example.com", "example.com"}, {"app.example.com", "app.example.com"}, {"x.example.com", "wild admin"},
		{"x.y.example.com", "wild admin"}, {"a.eu.example.com", "*.eu.example.com"},
		{"eu.example.com", "wild admin"}, {"a.deep.eu.example.com", "*.deep.eu.example.com"},
		{"deep.eu.example.com", "*.eu.example.com"}, {"a.b.deep.eu.example.com", "*.deep.eu.example.com"},
		{"APP.EXAMPLE.COM", "app.example.com"}, {"a.B.example.com", "wild admin"},
		{"App.Example.Com.:443", "app.example.com"}, {"xn--app-.example.com", "wild admin"},
		{"evilexample.com", "none"}, {"example.com.evil", "none"}, {"app.example.com.evil", "none"},
		{"app-example.com", "none"}, {"exampleXcom", "none"}, {"com", "none"}, {"example", "none"},
		{"xexample.com", "none"}, {"app.examplexcom", "none"},
		{".example.com", "400"}, {"*.example.com", "400"}, {"", "400"}, {"app.example.com,x.example.com", "400"},
		{"[::1]:4180", "[::1]"}, {"[0::1]", "[::1]"}, {"127.0.0.1:80", "127.0.0.1"}, {"127.0.0.2", "none"},
		{"other.example", "none"},
	} {
		if got := look(t, table, tc.host, "/admin/x"); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.host, got, tc.want)
		}
	}
	if !table.Serves("x.example.com") || !table.Serves("app.example.com") || table.Serves("evilexample.com") ||
		table.Serves("*.evil") || table.Serves(".example.com") {
		t.Error("Serves disagrees with Lookup")
	}
}

// Caddy CVE-2026-27588: above a hundred hosts the match became case-sensitive.
func TestP03_ManyHostsInAnyCase(t *testing.T) {
	var routes []Route
	for i := range 300 {
		routes = append(routes, Route{Name: fmt.Sprint(i), Host: fmt.Sprintf("host-%d.example.com", i), Path: "/"})
	}
	table := mustTable(t, routes...)
	for i := range 300 {
		for _, h := range []string{fmt.Sprintf("host-%d.example.com", i), fmt.Sprintf("HOST-%d.Example.COM", i),
			fmt.Sprintf("hOsT-%d.eXAMPLE.com.:8443", i)} {
			if got := look(t, table, h, "/x"); got != fmt.Sprint(i) {
				t.Errorf("%s: %s", h, got)
			}
		}
	}
	if got := look(t, table, "host-300.example.com", "/"); got != "none" {
		t.Errorf("got %s", got)
	}
}

// A path that passes CanonicalPath still gets a 400 where a more lenient reader
// would take it for another route's (Traefik CVE-2026-40912, heimdall
// CVE-2026-42274).
func TestP03_PathThatReadsAsAnotherRoutesIsAmbiguous(t *testing.T) {
	table := mustTable(t, route("/"), route("/admin"), route("/open"), route("/open/private"), route("/Team"),
		route("/key$"), route("/a"), route("/caf%C3%A9"))
	for target, want := range map[string]string{
		"/ADMIN": "400", "/Admin": "400", "/aDmin/x": "400", "/admin;x=1": "400", "/admin;x=1/y": "400",
		"/admin;": "400", "/;/admin": "400", "/;x/admin": "400", "/admin%20": "400", "/admin%20%20/x": "400",
		"/admin.": "400", "/admin..": "400", "/admin.%20.": "400", "/%20/admin": "400", "/.../admin": "400",
		"/admin%20;x":    "400",
		"/open;/private": "400", "/open/PRIVATE": "400", "/open/private.": "400", "/open/private;v=1": "400",
		"/open/%20/private": "400", "/open/;/private": "400", "/open/.../private": "400",
		"/team": "400", "/TEAM/x": "400", "/Team": "/Team", "/Team/X": "/Team", "/key": "/key$", "/KEY": "400",
		"/key/": "400", "/key;x": "400", "/Key.": "400",
		"/%20admin": "400", "/%20admin/x": "400", "/.admin": "400", "/%20.%20admin%20.": "400", "/%C2%A0admin": "400",
		"/admin%E3%80%80/x": "400", "/open/%20private": "400", "/open/.private/x": "400",
		"/admin::$DATA": "400", "/admin:$i30:$INDEX_ALLOCATION/x": "400", "/admin:x": "/", "/(S(x))/admin": "400",
		"/(a(b)S(c))/ADMIN/x": "400", "/(S(x))/(S(x))/admin": "400", "/ad/(S(x))min": "400",
		"/open/(S(x))/private": "400", "/%28S(x))/admin": "400",
		"/(x)/admin": "/", "/admin/(S(x))/y": "/admin", "/x(S(y))/admin": "/", "/(S(x))/y": "/", "/.hidden": "/",
		"/%20x":      "/",
		"/CAF%C3%A9": "400", "/caf%C3%A9": "/caf%C3%A9", "/caf%C3%89": "400", "/caf\xc3\xa9/x": "/caf%C3%A9",
		"/\u212aey": "400",
		// What means one thing to all stays what it is.
		"/x;y=1": "/", "/X": "/", "/open/A;b=c/D.": "/open", "/admin/X.": "/admin", "/admin/;/x": "/admin",
		"/administrator": "/", "/ADMINISTRATOR": "/", "/...": "/", "/admin/...": "/admin", "/open/admin": "/open",
		"/OPENS": "/",
	} {
		if got := look(t, table, host, target); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
}

// Facts that NewFacts did not make find nothing, and end.
func TestP01_LookupWithoutAPathFindsNoRoute(t *testing.T) {
	table := mustTable(t, route("/"))
	for _, f := range []Facts{{}, {Host: host}, {Host: host, Path: "x"}, {Host: host, Path: "*"},
		{Host: "nobody", Path: "/"}, {Path: "/"}} {
		if r, err := table.Lookup(f); r != nil || !errors.Is(err, ErrNoRoute) {
			t.Errorf("%+v: %v %v", f, r, err)
		}
	}
	empty := mustTable(t)
	if got := look(t, empty, host, "/"); got != "none" {
		t.Errorf("an empty table: %s", got)
	}
}

func TestP15_RoutesThatClaimTheSameRequestsAreRefused(t *testing.T) {
	other := func(r Route, h string) Route { r.Host = h; return r }
	for _, tc := range []struct {
		name string
		a, b Route
		ok   bool
	}{
		{"same", route("/a"), route("/a"), false},
		{"root twice", route("/"), route("/"), false},
		{"exact twice", route("/a$"), route("/a$"), false},
		{"other case", route("/a"), route("/A"), false},
		{"a dot at the end", route("/a"), route("/a."), false},
		{"parameters", route("/a"), route("/a;x=1"), false},
		{"a blank at the end", route("/a"), route("/a%20"), false},
		{"a blank before", route("/a"), route("/%20a"), false},
		{"a dot before", route("/a"), route("/.a"), false},
		{"slash at the end", route("/a$"), route("/a/$"), false},
		{"encoded letters differ in case", route("/%C3%A9"), route("/%C3%89"), false},
		{"same on a wildcard", other(route("/a"), "*.example.com"), other(route("/A"), "*.example.com"), false},
		{"exact and below", route("/a"), route("/a$"), true},
		{"one below the other", route("/a"), route("/a/b"), true},
		{"other host", route("/a"), other(route("/a"), "b.example.com"), true},
		{"host and wildcard", route("/a"), other(route("/a"), "*.example.com"), true},
		{"segment and more letters", route("/a"), route("/ab"), true},
	} {
		_, err := NewTable([]Route{tc.a, tc.b})
		var c *ConflictError
		switch {
		case tc.ok && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case !tc.ok && (!errors.As(err, &c) || c.First != 0 || c.Second != 1 ||
			!strings.Contains(err.Error(), tc.a.Name)):
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestP15_FaultyRoutesAreAllNamed(t *testing.T) {
	var routes []Route
	var fields []string
	add := func(field string, r Route) { routes, fields = append(routes, r), append(fields, field) }
	for _, h := range []string{"", "App.example.com", "app.example.com:443", "app.example.com.", "*", "*.",
		"*.*.example.com", "a.*.example.com", "*example.com", "*.Example.com", ".example.com",
		"https://app.example.com", "app.example.com/x", "[0::1]", "bücher.example", "a b"} {
		add("host", Route{Host: h, Path: "/"})
	}
	for _, p := range []string{"", "x", "*", "/a/", "/a//b", "//", "/a/../b", "/.", "/%61", "/a%2fb", "/%c3%a9", "/é",
		"/a b", "/a?b", "/a#b", `/a\b`, "/a%zz", "/a%00", "http://x/a"} {
		add("path", Route{Host: host, Path: p})
	}
	add("path", Route{Host: host, Path: "/%61", Exact: true})
	_, err := NewTable(routes)
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != len(routes) {
		t.Fatalf("%d routes, errors: %v", len(routes), err)
	}
	for i, e := range joined.Unwrap() {
		var r *RouteError
		if !errors.As(e, &r) || r.Route != i || r.Field != fields[i] || r.Why == "" {
			t.Errorf("%d: %v", i, e)
		}
	}
	// The advice must be true: what it says to write is accepted.
	for raw, advice := range map[string]string{"/%61": "/a", "/a/": "/a", "/%c3%a9": "/%C3%A9", "/a b": "/a%20b"} {
		_, err := NewTable([]Route{{Host: host, Path: raw}})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("write %q", advice)) {
			t.Errorf("%q: %v", raw, err)
		}
		if _, err := NewTable([]Route{{Host: host, Path: advice}}); err != nil {
			t.Errorf("%q: %v", advice, err)
		}
	}
}

func TestTableKeepsTheOrderAndItsOwnCopy(t *testing.T) {
	given := []Route{route("/b"), route("/a")}
	table := mustTable(t, given...)
	given[0].Access.Public = true
	got := table.Routes()
	if len(got) != 2 || got[0].Name != "/b" || got[1].Name != "/a" || got[0].Access.Public {
		t.Errorf("%+v", got)
	}
	f, _ := NewFacts("GET", "https", host, "/b/x")
	if r, err := table.Lookup(f); err != nil || r != got[0] {
		t.Errorf("Lookup and Routes disagree: %v", err)
	}
}

// aspSession is what ASP.NET cuts out of a path: CVE-2023-36899.
var aspSession = regexp.MustCompile(`(?i)/\([a-z0-9]\([^/]*?\)\)`)

// readings are what programs behind us make of a path: every combination of
// the liberties that servers take.
func readings(p string) []string {
	segments := func(f func(string) string) func(string) string {
		return func(p string) string {
			parts := strings.Split(p, "/")
			for i := range parts {
				parts[i] = f(parts[i])
			}
			return strings.Join(parts, "/")
		}
	}
	decode := func(p string) string { s, _ := unescape(p); return s }
	liberties := []func(string) string{
		segments(func(s string) string { s, _, _ = strings.Cut(s, ";"); return s }), // Tomcat, before decoding
		decode,
		decode, // twice
		func(p string) string { // a framework that puts a URL together and takes it apart
			if i := strings.IndexAny(p, "?#"); i > 0 {
				return p[:i]
			}
			return p
		},
		segments(func(s string) string { s, _, _ = strings.Cut(s, ";"); return s }),
		func(p string) string { return strings.ReplaceAll(p, `\`, "/") }, // IIS
		segments(strings.TrimSpace),
		func(p string) string { return aspSession.ReplaceAllString(p, "") },
		segments(func(s string) string { // Windows
			if s == "." || s == ".." {
				return s
			}
			s, _, _ = strings.Cut(s, ":$") // a stream of a file
			return strings.TrimRight(s, ". :")
		}),
		func(p string) string { // nginx: merge_slashes
			for strings.Contains(p, "//") {
				p = strings.ReplaceAll(p, "//", "/")
			}
			return p
		},
		path.Clean,
		strings.ToLower,
	}
	seen := map[string]bool{}
	for set := range 1 << len(liberties) {
		r := p
		for i, take := range liberties {
			if set&(1<<i) != 0 {
				r = take(r)
			}
		}
		if !strings.HasPrefix(r, "/") {
			r = "/" + r
		}
		seen[r] = true
	}
	var out []string
	for r := range seen {
		out = append(out, r)
	}
	return out
}

// plainRoute is the route a reader finds: longest prefix of whole segments, an
// exact one only for itself. Upper case is lower for a reader who ignores case.
func plainRoute(routes []Route, p string) string {
	best, found := "", "none"
	for _, r := range routes {
		switch {
		case r.Exact && r.Path == p:
			return r.Name
		case !r.Exact && (r.Path == "/" || p == r.Path || strings.HasPrefix(p, r.Path+"/")) && len(r.Path) > len(best):
			best, found = r.Path, r.Name
		}
	}
	return found
}

// checkReadings fails if a reader behind us takes target for another route than
// the one that was judged.
func checkReadings(t *testing.T, table *Table, routes []Route, target string) bool {
	t.Helper()
	got := look(t, table, host, target)
	if got == "400" {
		return false
	}
	f, err := NewFacts("GET", "https", host, target)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range readings(f.Path) { // what is forwarded
		if as := plainRoute(routes, r); as != got {
			t.Errorf("%q was judged as %s; read as %q it is %s", target, got, r, as)
			return true
		}
	}
	return true
}

var readingRoutes = []Route{route("/"), route("/admin"), route("/open"), route("/open/admin"), route("/open/a/b"),
	route("/key$"), route("/a"), route("/a/key$")}

var readingPieces = []string{
	"/", "/", "/", "admin", "open", "a", "b", "key", "ADMIN", "Open", "A", "%61", "%41", "dmin", ".", "..", "...",
	"%2e", "%2E", ";", ";x", ";/", "..;", "%20", "%20%20", "%3b", "%2f", "%2f", "%3f", "%23", "%5c", `\`, "%25",
	"%252e", "//", "/./", "/../", "..%20", "%C3%A9", "%00", "+", "~", "x", "?q=/admin", "%e2%84%aa", "ey",
	"%3B", "%2E", ":$", "/(S(x))", "(S(y))", "%C2%A0", ";%2f", "%ff", "%e9",
}

func TestP03_NoReaderBehindUsSeesAnotherRoute(t *testing.T) {
	for _, encoded := range []bool{false, true} {
		t.Run(fmt.Sprint("escaped delimiters and doubled slashes pass: ", encoded),
			func(t *testing.T) { checkRandomReadings(t, encodedRoutes(encoded)) })
	}
}

func encodedRoutes(encoded bool) []Route {
	routes := slices.Clone(readingRoutes)
	for i := range routes {
		routes[i].Encoded, routes[i].Doubled = encoded, encoded
	}
	return routes
}

func checkRandomReadings(t *testing.T, routes []Route) {
	t.Helper()
	table := mustTable(t, routes...)
	rnd := rand.New(rand.NewPCG(1, 2)) // the same every time
	passed := 0
	for range 1500 {
		target := "/"
		for range 1 + rnd.IntN(7) {
			target += readingPieces[rnd.IntN(len(readingPieces))]
		}
		if checkReadings(t, table, routes, target) {
			passed++
		}
	}
	t.Logf("%d of 1500 targets were not refused", passed)
	if passed < 100 {
		t.Error("nearly all are refused: this shows nothing")
	}
}

func FuzzLookup(f *testing.F) {
	for _, tc := range pathCases {
		f.Add(tc.raw)
	}
	table, open := mustTable(f, readingRoutes...), mustTable(f, encodedRoutes(true)...)
	f.Fuzz(func(t *testing.T, target string) {
		if len(target) < 200 {
			checkReadings(t, table, readingRoutes, target)
			checkReadings(t, open, encodedRoutes(true), target)
		}
	})
}

func benchTable(b testing.TB) *Table {
	var routes []Route
	for h := range 20 {
		for p := range 10 {
			routes = append(routes, Route{Name: fmt.Sprint(h, p), Host: fmt.Sprintf("h%d.example.com", h),
				Path: fmt.Sprintf("/part-%d/of/it", p)})
		}
		routes = append(routes, Route{Name: fmt.Sprint(h), Host: fmt.Sprintf("h%d.example.com", h), Path: "/"})
	}
	return mustTable(b, routes...)
}

// Every request looks for its route.
func TestLookupOfAPlainPathAllocatesNothing(t *testing.T) {
	table := benchTable(t)
	f, err := NewFacts("GET", "https", "h7.example.com", "/part-3/of/it/assets/app.3f9c2.js")
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if m, err := table.Lookup(f); err != nil || m.Name != "7 3" {
			t.Errorf("%v, %v", m, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	table := benchTable(b)
	for name, target := range map[string]string{"plain": "/part-3/of/it/assets/app.3f9c2.js",
		"lenient": "/part-3/of/it/Assets/App%20File.js"} {
		f, err := NewFacts("GET", "https", "h7.example.com", target)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := table.Lookup(f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
