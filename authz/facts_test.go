package authz

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

// pathCases are paths that two programs read differently (CVE-2026-33494,
// CVE-2026-42272, CVE-2026-42274, CVE-2019-9901, GO-2026-4950, CVE-2026-0976 and
// others). Each row says what the upstream receives, or "" for a 400.
var pathCases = []struct{ raw, want string }{
	{"/", "/"},
	{"/a/b.html", "/a/b.html"},
	{"/a/", "/a/"},
	{"/a..b/..c/d..", "/a..b/..c/d.."},
	{"/...", "/..."},
	{"/.hidden/.well-known/x", "/.hidden/.well-known/x"},
	{"/-._~!$&'()*+,;=:@", "/-._~!$&'()*+,;=:@"},
	// One spelling for what has only one meaning.
	{"/%61dmin", "/admin"},
	{"/%41%7a%30%2d%5f%7E", "/Az0-_~"},
	{"/key%2Erb", "/key.rb"}, {"/%2egit", "/.git"}, {"/a%2e%2eb", "/a..b"}, {"/%2e%2e%2e", "/..."},
	{"/a%c3%a9b", "/a%C3%A9b"},
	{"/a\xc3\xa9b", "/a%C3%A9b"},
	{"/a%2b%40%3a%21", "/a%2B%40%3A%21"},
	{"/a\"<>^`{|}", "/a%22%3C%3E%5E%60%7B%7C%7D"},
	{"/admin%20", "/admin%20"},
	{"/admin ", "/admin%20"},
	{"/ADMIN", "/ADMIN"},
	{"/admin/", "/admin/"},
	{"/admin;x=1", "/admin;x=1"},
	{"/admin;a=b/", "/admin;a=b/"},
	// Dots.
	{"/open/../admin", ""}, {"/open/%2e%2e/admin", ""}, {"/open/.%2e/admin", ""}, {"/open/%2E./admin", ""},
	{"/open/..%2fadmin", ""}, {"/open/..%2Fadmin", ""},
	{"/open/..%5cadmin", ""}, {"/open/..%5Cadmin", ""}, {`/open/..\admin`, ""}, {`/open\..\admin`, ""},
	{"/open/..;/admin", ""}, {"/open/..;x=1/admin", ""}, {"/open/.;/admin", ""}, {"/open/%2e%2e;/admin", ""},
	{"/./admin", ""}, {"/admin/.", ""}, {"/admin/..", ""}, {"/.", ""}, {"/..", ""}, {"/../", ""}, {"/.;", ""},
	{"/a/..;", ""}, {"/open/..%20/admin", ""}, {"/open/%20../admin", ""}, {"/open/.%20./admin", ""},
	{"/open/..%20;x/admin", ""}, {"/open/.. /admin", ""},
	// Slashes.
	{"/open//admin", ""}, {"//admin", ""}, {"//", ""}, {"///", ""}, {"//admin/secret", ""}, {"//open@x/admin", ""},
	{"/a//", ""}, {`/\admin`, ""}, {`\admin`, ""}, {"/%2fadmin", ""}, {"/a%2fb", ""}, {"/a%2Fb", ""},
	{"/%5cadmin", ""},
	// Encoded twice, badly, or too long.
	{"/%252e%252e/admin", ""}, {"/%2561dmin", ""}, {"/a%25", ""}, {"/a%", ""}, {"/a%2", ""}, {"/a%zz", ""},
	{"/a%2g", ""}, {"/a%-1", ""}, {"/a% 1", ""}, {"/%u002e/", ""},
	{"/open/%c0%ae%c0%ae/admin", ""}, {"/%c0%af", ""}, {"/%e0%80%af", ""}, {"/%ff", ""}, {"/\xff", ""},
	{"/%ed%a0%80", ""}, {"/%c3", ""}, {"/a%c3/%a9", ""}, {"/%f4%90%80%80", ""},
	// What ends or cuts a path for somebody.
	{"/admin%00", ""}, {"/admin%0a", ""}, {"/admin%0d", ""}, {"/admin%09", ""}, {"/admin%1f", ""}, {"/admin%7f", ""},
	{"/admin\x00", ""}, {"/admin\t", ""}, {"/admin\x7f", ""},
	{"/admin%23/open/y", ""}, {"/admin#/open", ""}, {"/admin%3f", ""}, {"/admin%3Fx", ""}, {"/admin?x", ""},
	{"/admin%3bx", ""}, {"/admin%3Bx", ""},
	{`/open/\u002e./`, ""},
	// No path.
	{"", ""}, {"admin", ""}, {"*", ""}, {"./admin", ""}, {"%2fadmin", ""}, {" /admin", ""},
}

func TestP03_PathHasOneFormOrIsRefused(t *testing.T) {
	for _, tc := range pathCases {
		got, err := CanonicalPath(tc.raw)
		if tc.want == "" {
			if !errors.Is(err, ErrTarget) {
				t.Errorf("%q → %q, %v", tc.raw, got, err)
			}
			continue
		}
		if err != nil || got != tc.want {
			t.Errorf("%q → %q, %v; want %q", tc.raw, got, err, tc.want)
		}
		if again, err := CanonicalPath(got); err != nil || again != got {
			t.Errorf("%q → %q → %q, %v", tc.raw, got, again, err)
		}
	}
}

// checkCanonical holds what every accepted path must satisfy.
func checkCanonical(t *testing.T, raw, got string) {
	t.Helper()
	if again, err := CanonicalPath(got); err != nil || again != got {
		t.Errorf("%q → %q → %q, %v", raw, got, again, err)
	}
	if !strings.HasPrefix(got, "/") || strings.Contains(got, "//") {
		t.Errorf("%q → %q", raw, got)
	}
	for i := 0; i < len(got); i++ {
		switch c := got[i]; {
		case c == '%':
			if i+2 >= len(got) || strings.Trim(got[i+1:i+3], "0123456789ABCDEF") != "" {
				t.Errorf("%q → %q: escape", raw, got)
			}
		case strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/",
			c) < 0:
			t.Errorf("%q → %q: byte %q", raw, got, c)
		}
	}
	for s := range strings.SplitSeq(got, "/") {
		if s, _, _ = strings.Cut(s, ";"); s == "." || s == ".." {
			t.Errorf("%q → %q: dot segment", raw, got)
		}
	}
	a, err1 := url.PathUnescape(raw)
	b, err2 := url.PathUnescape(got)
	if err1 != nil || err2 != nil || a != b {
		t.Errorf("%q means %q, %q means %q", raw, a, got, b)
	}
	if strings.ContainsAny(b, "\\%#?\x00\r\n") || !utf8.ValidString(b) ||
		strings.Count(b, "/") != strings.Count(got, "/") {
		t.Errorf("%q decodes to %q", got, b)
	}
}

func FuzzCanonicalPath(f *testing.F) {
	for _, tc := range pathCases {
		f.Add(tc.raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if got, err := CanonicalPath(raw); err == nil {
			checkCanonical(t, raw, got)
		} else if !errors.Is(err, ErrTarget) {
			t.Errorf("%q: %v", raw, err)
		}
		got, odd, err := canonicalPath(raw)
		if err != nil {
			return
		}
		if again, more, err := canonicalPath(got); err != nil || again != got || more != odd {
			t.Errorf("%q → %q, %v → %q, %v, %v", raw, got, odd, again, more, err)
		}
		if strings.HasPrefix(got, "//") || strings.ContainsAny(got, "\\?# ") ||
			(!odd.doubled && strings.Contains(got, "//")) {
			t.Errorf("%q → %q, %v", raw, got, odd)
		}
		decoded := decodeAll(got)
		for s := range strings.SplitSeq(decoded, "/") {
			if s, _, _ = strings.Cut(s, ";"); s == "." || s == ".." {
				t.Errorf("%q → %q: a dot segment once it is decoded", raw, got)
			}
		}
		if !odd.notUTF8 && !utf8.ValidString(got) {
			t.Errorf("%q → %q is not UTF-8", raw, got)
		}
	})
}

// Authelia CVE-2026-48794, Caddy CVE-2026-27588, heimdall CVE-2026-42273, Go
// CVE-2025-47912: one host has one name and one verdict.
func TestP03_HostHasOneFormOrIsRefused(t *testing.T) {
	for _, tc := range []struct{ raw, want string }{
		{"app.example.com", "app.example.com"},
		{"APP.example.com", "app.example.com"}, {"app.EXAMPLE.com", "app.example.com"},
		{"app.example.COM", "app.example.com"}, {"a.B.example.com", "a.b.example.com"},
		{"app.example.com.", "app.example.com"}, {"app.example.com:443", "app.example.com"}, {"app.example.com:8080",
			"app.example.com"}, {"APP.Example.Com.:443", "app.example.com"}, {"app.example.com:", "app.example.com"},
		{"localhost", "localhost"}, {"127.0.0.1:4180", "127.0.0.1"}, {"[::1]", "[::1]"}, {"[::1]:4180", "[::1]"},
		{"[0:0::1]", "[::1]"}, {"[2001:DB8::A]", "[2001:db8::a]"}, {"[::ffff:127.0.0.1]", "[::ffff:127.0.0.1]"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"}, {"XN--BCHER-KVA.example", "xn--bcher-kva.example"},
		{"xn--app-.example.com", "xn--app-.example.com"}, {"my_app.internal", "my_app.internal"},
		{strings.Repeat("a", 63) + ".example", strings.Repeat("a", 63) + ".example"},

		{"", ""}, {".", ""}, {"..", ""}, {":80", ""}, {".example.com", ""}, {"a..b", ""}, {"app.example.com..", ""},
		{"-.", "-"},
		{"[::1", ""}, {"[::1]x", ""}, {"[::1]:x", ""}, {"[::1]:80:80", ""}, {"[fe80::1%25eth0]", ""},
		{"[fe80::1%eth0]", ""}, {"[]", ""}, {"[127.0.0.1]", ""}, {"[app.example.com]", ""}, {"::1", ""},
		{"2001:db8::a", ""}, {"x[::1]", ""},
		{"app.example.com:x", ""}, {"app.example.com:80:80", ""}, {"app.example.com:123456", ""},
		{"app.example.com:-1", ""}, {"app.example.com:+80", ""}, {"app.example.com: 80", ""},
		{"app example.com", ""}, {" app.example.com", ""}, {"app.example.com ", ""}, {"app.example.com\t", ""},
		{"app.example.com\x00", ""}, {"app.example.com\r\n", ""}, {"app.example.com,evil.example", ""},
		{"a;for=1.2.3.4", ""},
		{"app.example.com/x", ""}, {"app.example.com?x", ""}, {"app.example.com#x", ""}, {`app.example.com\x`, ""},
		{"user@app.example.com", ""}, {"app.example.com@evil.example", ""}, {"app%2eexample.com", ""},
		{"*.example.com", ""}, {"*", ""}, {"http://app.example.com", ""},
		{"bücher.example", ""}, {"\uff41pp.example.com", ""}, {"\u212Aiosk.example", ""}, {"app。example.com", ""},
		{"app.example.com\u200b", ""}, {"\xff.example", ""}, {"\u0130.example", ""},
		{strings.Repeat("a", 64) + ".example", ""}, {strings.Repeat("a.", 127) + "ab", ""},
		{strings.Repeat("a", 1<<20), ""},
	} {
		got, err := CanonicalHost(tc.raw)
		if got != tc.want || (tc.want == "") != errors.Is(err, ErrTarget) {
			t.Errorf("%.60q → %q, %v; want %q", tc.raw, got, err, tc.want)
		}
		if err == nil {
			if again, err := CanonicalHost(got); err != nil || again != got {
				t.Errorf("%q → %q → %q", tc.raw, got, again)
			}
		}
	}
}

// OPA-envoy CVE-2026-26205, Traefik CVE-2023-47106, Envoy CVE-2021-32779,
// grpc-go CVE-2026-33186: url.Parse reads such targets in several ways, so the
// target is not given to it.
func TestP03_RequestTargetIsReadOneWayOrRefused(t *testing.T) {
	const host = "app.example.com"
	for _, tc := range []struct {
		target, path, query string // path "" for a 400
		hasQuery            bool
	}{
		{"/", "/", "", false},
		{"/a?", "/a", "", true},
		{"/a?b=c&d=%2e%2e/", "/a", "b=c&d=%2e%2e/", true},
		{"/a?b?c=d", "/a", "b?c=d", true},
		{"/a?;x;%zz", "/a", ";x;%zz", true}, // ReverseProxy would empty it
		{"/admin?x=/open/", "/admin", "x=/open/", true},
		{"/a?\xc3\xa9", "/a", "\xc3\xa9", true},
		{"http://app.example.com/a?b", "/a", "b", true},
		{"HTTP://app.example.com/%61", "/a", "", false},
		{"https://app.example.com", "/", "", false},
		{"https://app.example.com?x", "/", "x", true},
		{"https://app.example.com:8443/a", "/a", "", false},
		{"/a:b", "/a:b", "", false},

		{"", "", "", false}, {"*", "", "", false}, {"admin", "", "", false}, {"?x", "", "", false},
		{"#", "", "", false}, {"app.example.com:443", "", "", false}, {"app.example.com/a", "", "", false},
		{"//admin/secret", "", "", false}, {"//open@x/admin", "", "", false}, {"//", "", "", false},
		{"///a", "", "", false}, {`/\a`, "", "", false},
		{"/admin#/open", "", "", false}, {"/a?b#c", "", "", false}, {"/#", "", "", false},
		{"https://app.example.com#/a", "", "", false}, {"https://app.example.com/a#b", "", "", false},
		{"http://user@app.example.com/a", "", "", false}, {"http://user:pw@app.example.com/", "", "", false},
		{"http://open@app.example.com", "", "", false}, {`http://app.example.com\@evil/`, "", "", false},
		{"http:///a", "", "", false}, {"http://", "", "", false}, {"http://?x", "", "", false},
		{"http:/a", "", "", false}, {"http:a", "", "", false}, {"ftp://app.example.com/a", "", "", false},
		{"ws://app.example.com/a", "", "", false}, {"javascript://app.example.com/a", "", "", false},
		{"://app.example.com/a", "", "", false}, {" http://app.example.com/a", "", "", false},
		{"http://app.example.com//a", "", "", false}, {"http://app.example.com/../a", "", "", false},
		{"/a?b c", "", "", false}, {"/a?b\tc", "", "", false}, {"/a?b\r\nX: y", "", "", false}, {"/a?b\x00", "", "",
			false}, {"/a?b\x7f", "", "", false}, {"/a\x01?b", "", "", false}, {"/a/../b?c", "", "", false},
	} {
		f, err := NewFacts("GET", "https", host, tc.target)
		if tc.path == "" {
			if !errors.Is(err, ErrTarget) || f != (Facts{}) {
				t.Errorf("%q → %+v, %v", tc.target, f, err)
			}
			continue
		}
		want := Facts{Method: "GET", Scheme: "https", Host: host, Authority: host, Path: tc.path, RawQuery: tc.query,
			HasQuery: tc.hasQuery}
		if err != nil || f != want {
			t.Errorf("%q → %+v, %v", tc.target, f, err)
		}
	}
	if _, err := NewFacts("GET", "https", "app.example.com, evil.example", "/"); !errors.Is(err, ErrTarget) {
		t.Errorf("two hosts: %v", err)
	}
	f, err := NewFacts("pOsT", "http", "App.Example.Com.:8080", "/")
	if err != nil || f.Method != "pOsT" || f.Scheme != "http" || f.Host != "app.example.com" ||
		f.Authority != "app.example.com:8080" {
		t.Errorf("%+v, %v", f, err)
	}
	for asked, want := range map[string]string{"[::1]": "[::1]", "[::1]:80": "[::1]:80", "[0:0::1]:80": "[::1]:80",
		"APP.": "app", "app:": "app", "app.:1": "app:1"} {
		if f, err := NewFacts("GET", "http", asked, "/"); err != nil || f.Authority != want {
			t.Errorf("%q → %q, %v", asked, f.Authority, err)
		}
	}
}

// What GitLab, RabbitMQ, CalDAV servers and npm registries need passes as it
// came, where a route says so, and so do letters of other encodings; what hides a
// dot segment or a control behind an escape never does.
func TestP03_EscapedDelimitersPassOnlyWhereARouteSaysSo(t *testing.T) {
	closed := mustTable(t, Route{Name: "app", Host: host, Path: "/", Doubled: true})
	open := mustTable(t, Route{Name: "app", Host: host, Path: "/", Encoded: true},
		Route{Name: "admin", Host: host, Path: "/admin"},
		Route{Name: "key", Host: host, Path: "/key", Exact: true})
	for _, tc := range []struct{ target, path string }{
		{"/api/v4/projects/group%2fproject", "/api/v4/projects/group%2Fproject"},
		{"/files/app%2Fmodels%2Fkey%2Erb", "/files/app%2Fmodels%2Fkey.rb"},
		{"/ann/calendar/b%3Bc.ics", "/ann/calendar/b%3Bc.ics"},
		{"/a%2fb%3bc", "/a%2Fb%3Bc"},
		{"/caf%e9", "/caf%E9"}, {"/caf\xe9/x", "/caf%E9/x"}, {"/%ff", "/%FF"},
		{"/%cf%f0%e8%e2%e5%f2", "/%CF%F0%E8%E2%E5%F2"}, {"/%c0%ed%ed%e0", "/%C0%ED%ED%E0"},
		{"/api/queues/%2F/name", "/api/queues/%2F/name"},
		{"/api/queues/%2f%2f", "/api/queues/%2F%2F"},
		{"/@scope%2Fname", "/@scope%2Fname"},
		{"/wiki/100%25", "/wiki/100%25"},
		{"/wiki/What%3F", "/wiki/What%3F"},
		{"/wiki/C%23", "/wiki/C%23"},
		{"/a%252fb", "/a%252fb"},
		{"/v1..2%2Fx", "/v1..2%2Fx"},
		// An app that decodes first would see a way around a route.
		{"/a/..%2Fadmin", ""}, {"/a%2F..%2Fadmin", ""}, {"/a%2F..", ""}, {"/..%2F", ""}, {"/%2F..", ""},
		{"/a%2F.%2Fb", ""}, {"/a%252F..%252Fadmin", ""}, {"/a%2F%252e%252e/admin", ""},
		{"/a%2F..;x/admin", ""}, {"/a%2F..%20/b", ""}, {"/a/..%3B/admin", ""}, {"/a/..%3Bx/b", ""}, {"/a%2F%2e%2e", ""},
		{"/a/%2e%2e%3b/b", ""}, {"/a/..%253bx/b", ""}, {"/a/..%C2%A0/admin", ""},
		{"/x%2F%2e%2e%2Fadmin", ""}, {"/x%2f%5cadmin", ""}, {"/x%2f%255cadmin", ""}, {"/%2500", ""}, {"/%250a", ""},
		{"/a%2f%00", ""},
		// Bytes that a careless decoder of UTF-8 takes for a dot, slash or letter.
		{"/open/%c0%ae%c0%ae/admin", ""}, {"/%c0%afadmin", ""}, {"/%c1%a1dmin", ""}, {"/%e0%80%afadmin", ""},
		{"/%f0%80%80%af", ""}, {"/x/%c0.%c0./admin", ""}, {"/%c0%2fadmin", ""}, {"/%f8%80%80%80%af", ""},
		{"/%fc%80%80%80%80%af", ""},
		// A more forgiving reader would see another route.
		{"/admin%2Fx", ""}, {"/%2Fadmin", ""}, {"/ADMIN%2fx", ""}, {"/admin%3Fx", ""}, {"/admin%23", ""},
		{"/%2561dmin", ""}, {"/x%2f%2fy/..%2f", ""},
		{"/admin%3Bx", ""}, {"/admin%3bx/y", ""}, {"/%3b/admin", ""}, {"/admin%253Bx", ""}, {"/key;%2Fx", ""},
		{"/key%3B%2Fx", ""}, {"/ADMIN/%ff", ""},
		{"/admin/a%2Fb", ""}, {"/admin/%ff", ""}, {"/admin/a%3Bb", ""}, // this route does not say so
	} {
		f, err := NewFacts("GET", "https", host, tc.target)
		if tc.path == "" {
			if err == nil {
				_, err = open.Lookup(f)
			}
			if !errors.Is(err, ErrTarget) {
				t.Errorf("%q: %v", tc.target, err)
			}
			continue
		}
		if err != nil || f.Path != tc.path || !(f.Encoded || f.NotUTF8) {
			t.Errorf("%q → %+v, %v", tc.target, f, err)
			continue
		}
		if r, err := open.Lookup(f); err != nil || r.Name != "app" {
			t.Errorf("%q: %v, %v", tc.target, r, err)
		}
		if r, err := closed.Lookup(f); r != nil || !errors.Is(err, ErrTarget) {
			t.Errorf("%q where no route says so: %v, %v", tc.target, r, err)
		}
		if _, err := CanonicalPath(tc.target); !errors.Is(err, ErrTarget) {
			t.Errorf("%q: %v", tc.target, err)
		}
	}
}

// Which letters of a route bytes of an unknown encoding are, nobody can tell:
// IIS takes %E9 for é, as other encodings have it.
func TestP03_LettersThatAreNotUTF8CannotBeARoutes(t *testing.T) {
	table := mustTable(t, Route{Name: "app", Host: host, Path: "/", Encoded: true},
		Route{Name: "café", Host: host, Path: "/caf%C3%A9"})
	for target, want := range map[string]string{"/caf%e9": "400", "/x/%ff": "400", "/caf%c3%a9": "café",
		"/th%c3%a9": "app"} {
		if got := look(t, table, host, target); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
}

// Old apps have addresses with doubled slashes. They pass where a route says so,
// and lead nowhere else for those who merge them; never at the beginning.
func TestP03_DoubledSlashesPassOnlyWhereARouteSaysSo(t *testing.T) {
	closed := mustTable(t, route("/"))
	open := mustTable(t, Route{Name: "app", Host: host, Path: "/", Doubled: true}, route("/admin"),
		route("/open/private"))
	for target, want := range map[string]string{
		"/a//b": "app", "/a/b//": "app", "/a///b": "app", "/open//x": "app", "/a//b?c=//d": "app",
		"//": "400", "//a": "400", "//a/b": "400", "///": "400", "//evil.example/x": "400", `/\a`: "400",
		"/%2f/a":         "400",
		"/open//private": "400", "/open//private/x": "400", "/open///private": "400", "/open/%20//private": "400",
		"/a//../admin": "400", "/admin//x": "400", "/admin//": "400", "/ADMIN//x": "400",
	} {
		if got := look(t, open, host, target); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
		if got := look(t, closed, host, target); got != "400" {
			t.Errorf("%s where no route says so: %s", target, got)
		}
	}
}

// Each rule has words of its own, and names the key that helps.
func TestEachRefusedTargetSaysWhichRuleItBroke(t *testing.T) {
	table := mustTable(t, route("/"), route("/admin"))
	for target, words := range map[string]string{
		"/ADMIN": "capital letters", "/admin;x": "capital letters", "/a//b": "two slashes in a row|doubled_slashes",
		"//a":     "begins with two slashes",
		"/a/../b": "nothing but dots", "/a/%2e%2e/b": "nothing but dots", "/a%2Fb": "escaped /|encoded",
		"/a%3Bc": "escaped /|encoded", "/%ff": "not written in UTF-8|encoded", "/%c0%af": "forbidden",
		`/a\b`: "backslash", "/a%5Cb": "backslash", "/a%00": "cannot be seen", "/a%zz": "not followed by two digits",
		"/a#b": "behind #", "/a?b#c": "question mark", "*": "no path",
	} {
		f, err := NewFacts("GET", "https", host, target)
		if err == nil {
			_, err = table.Lookup(f)
		}
		var e *TargetError
		if !errors.As(err, &e) || !errors.Is(err, ErrTarget) {
			t.Errorf("%q: %v", target, err)
			continue
		}
		for word := range strings.SplitSeq(words, "|") {
			if !strings.Contains(e.Public+" "+e.Advice, word) {
				t.Errorf("%q: %q; %q", target, e.Public, e.Advice)
			}
		}
		if doubled := strings.Contains(e.Public+e.Advice, "two slashes"); doubled != strings.Contains(target, "//") {
			t.Errorf("%q: %q", target, e.Public)
		}
	}
}

// Most targets are written in the canonical way, and are kept as they are.
func TestReadingACanonicalTargetAllocatesNothing(t *testing.T) {
	for _, target := range []string{"/", "/assets/app.3f9c2.js?v=1", "/a/b/c?q=%2F..%2f"} {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := NewFacts("GET", "https", "app.example.com", target); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", target, n)
		}
	}
}

func BenchmarkNewFacts(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewFacts("GET", "https", "app.example.com", "/assets/app.3f9c2.js?v=1"); err != nil {
			b.Fatal(err)
		}
	}
}
