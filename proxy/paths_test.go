package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// refusedTargets mean different things to different readers. Each line names the
// product and the weakness that it comes from.
func refusedTargets() map[string][]string {
	return map[string][]string{
		"oathkeeper CVE-2026-33494, dot segments": {"/open/../admin", "/open/./../admin", "/./admin", "/admin/.",
			"/admin/..", "/..", "/.", "/open/..",
			"/open/%2e%2e/admin", "/open/.%2e/admin", "/open/%2E./admin", "/%2e/admin", "/open/..;/admin",
			"/open/..;x=1/admin", "/open/.;/../admin",
			"/open/..%20/admin", "/open/.%20./admin", "/open/%2e%2e;/admin"},
		"Istio CVE-2021-29492, slashes": {"//", "//admin", "/open//admin", "/admin//", "///admin", "/open/..%2fadmin",
			"/open/..%2Fadmin", "/open%2f..%2fadmin",
			"/open%2fx", "/open%2Fx", "/open/..%5cadmin", "/open/..%5Cadmin", "/open\\..\\admin", "/open/..\\admin",
			"\\admin", "/\\admin"},
		"oauth2-proxy CVE-2026-41059, Envoy CVE-2021-32779, fragments": {"/admin#/open", "/open#/../admin", "/open/x#",
			"/admin%23/open/y", "/open?x#y", "/#"},
		"fasthttp GO-2026-4950, encoded twice": {"/%252e%252e/admin", "/open/%252e%252e/admin",
			"/%2561dmin", "/open%252fadmin", "/a%25"},
		"Traefik CVE-2026-40912, matrix parameters": {"/admin;x=1", "/admin;/x", "/;/admin",
			"/%3badmin", "/admin%3Bx=1", "/open;/../admin"},
		"controls": {"/admin%00", "/admin%00.svg", "/admin%0a", "/admin%0D%0AX:%20y", "/admin%7f", "/admin%1b[0m",
			"/ad\tmin", "/ad\x01min", "/ad\x7fmin"},
		"not UTF-8": {"/open/%c0%ae%c0%ae/admin", "/%ff", "/\xff\xfe", "/open/\xc0\xae\xc0\xae/admin", "/%ed%a0%80"},
		"malformed escapes, Authelia CVE-2021-32637": {"/%", "/%zz", "/%4", "/open/%g0", "/%u002e",
			"/open/%%32%65/admin"},
		"encoded question mark": {"/admin%3f", "/open%3F/../admin"},
		"OPA-envoy CVE-2026-26205, no path": {"admin", "*", "?x", "open/../admin", "file:///etc/passwd",
			"javascript:alert(1)", "http:/admin", "http:admin"},
		"pocket-id CVE-2026-28512, a user in the authority": {"http://a@127.0.0.1/admin", "http://127.0.0.1\\@x/admin",
			"http://@/admin", "http:///admin", "https://"},
		"Authelia CVE-2026-48794, case": {"/ADMIN", "/Admin/x", "/aDmin", "/admin.", "/admin%20",
			"/admin%20/x", "/admin./x", "/%41dmin"},
		"raw brackets of Spring and others": {"/open/\\u002e./admin"},
	}
}

// P3: everybody gets 400, and nothing reaches the app.
func TestP03_AmbiguousTargetsAreRefused(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	w, seen := s.wire(t), 0
	for asker, cookie := range map[string]string{"nobody": "a=b", "bob": s.mint(t, bob()),
		"alice, an admin": s.mint(t, alice())} {
		for story, targets := range refusedTargets() {
			for _, target := range targets {
				t.Run(asker+"/"+story+"/"+target, func(t *testing.T) {
					w.tb = t
					a := w.do("GET", rawRequest("GET", target, s.host, "Cookie: "+cookie, "Accept: text/html"))
					if a.status != 400 {
						t.Errorf("answered %d", a.status)
					}
					if fresh := s.hits(&seen); len(fresh) > 0 {
						t.Errorf("the app received %q", testenv.RequestLine(fresh[0]))
					}
					if a.header.Get("X-Request-Id") != "" && !strings.Contains(a.body, "This address cannot be used") {
						t.Errorf("the page says\n%s", a.body)
					}
				})
			}
		}
	}
}

// P3: what is legal arrives byte for byte. ReverseProxy on its own empties a
// query with ";" or a bad escape, and url.URL rewrites what it thinks it knows.
func TestP03_UnusualTargetsArriveByteForByte(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	w, cookie := s.wire(t), s.mint(t, alice())
	targets := []string{
		"/", "/?", "/??", "/?&", "/?=", "/?&&a", "/?a=1&a=2", "/?a;b", "/?a=1;b=2", "/?%zz", "/?%", "/?a=%", "/?%2F%2f",
		"/?..", "/?/../admin", "/?//x",
		"/?a=%00", "/?+", "/?%20+", "/?a=b?c=d", "/?[]=1", "/?a[b]=c", "/?{\"a\":1}", "/?<x>", "/?\"", "/?'", "/?`",
		"/?|^", "/?\\", "/?é", "/?\xff", "/?日本",
		"/x?http://evil/", "/x?" + strings.Repeat("a=b&", 1500), "/a/b/c/", "/a.b", "/.a", "/a..b", "/...", "/..a",
		"/a../b", "/a;b=c", "/;a", "/a;b;c/d;e",
		"/!$&'()*+,;=:@", "/a:b", "/@x", "/a=b", "/a,b", "/a+b", "/~user", "/_x-y.z", "/%20", "/a%20b", "/%22",
		"/%3C%3E", "/%5B%5D", "/%7B%7D", "/%7C",
		"/%C3%A9", "/%E6%97%A5", "/%F0%9F%A6%8A", "/caf%C3%A9/x?y", "/admin/x", "/administrator", "/adminx", "/admin-x",
		"/opens", "/open/x?y=/admin",
		"/.sallyportX", "/.sallyport-x/login", "/" + strings.Repeat("x", 4000),
		"/" + strings.Repeat("a/", 2000) + "b?" + strings.Repeat("q", 3000),
		"/logo.svgx", "/logo.svg?v=1", "/index.php/x", "/*", "/a*", "/robots.txt", "/.well-known/x", "/a%20/b",
	}
	for _, target := range targets {
		t.Run(fmt.Sprintf("%.60s", target), func(t *testing.T) {
			w.tb = t
			for _, method := range []string{"GET", "POST"} {
				raw := rawRequest(method, target, s.host, "Cookie: "+cookie, "Content-Length: 0")
				if a := w.do(method, raw); a.status != 200 {
					t.Fatalf("answered %d: %s", a.status, a.body)
				}
				if got := testenv.RequestLine(s.app.Last(t)); got != method+" "+target+" HTTP/1.1" {
					t.Errorf("the app received %q", got)
				}
			}
		})
	}
}

// Where two spellings mean the same, the app receives the normal form that was judged.
func TestP03_SpellingsOfOnePathArriveAsOne(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	w, alice, bob := s.wire(t), s.mint(t, alice()), s.mint(t, bob())
	for target, want := range map[string]string{
		"/%61dmin/x": "/admin/x", "/adm%69n": "/admin", "/%61%64%6d%69%6e": "/admin", "/admin/%7euser": "/admin/~user",
		"/admin/%e6%97%a5": "/admin/%E6%97%A5", "/admin/日": "/admin/%E6%97%A5", "/admin/a\"b<c>": "/admin/a%22b%3Cc%3E",
		"/admin/{x}|^`": "/admin/%7Bx%7D%7C%5E%60",
		"/admin/%2d%5f": "/admin/-_", "/admin/[x]": "/admin/%5Bx%5D",
		"http://" + s.host + "/admin/x?y": "/admin/x?y", "HTTP://" + s.host + "/admin": "/admin",
	} {
		t.Run(target, func(t *testing.T) {
			w.tb = t
			if a := w.do("GET", rawRequest("GET", target, s.host, "Cookie: "+alice)); a.status != 200 {
				t.Fatalf("an admin gets %d", a.status)
			}
			if got := testenv.Target(s.app.Last(t)); got != want {
				t.Errorf("the app received %q, want %q", got, want)
			}
			before := len(s.app.Requests())
			if a := w.do("GET", rawRequest("GET", target, s.host, "Cookie: "+bob)); a.status != 403 ||
				len(s.app.Requests()) != before {
				t.Errorf("somebody else gets %d", a.status)
			}
		})
	}
}

// Reads the target that the app received in every way in which an app could read
// it. No reading may belong to a route that the request was not judged by: that is
// what went wrong in oathkeeper CVE-2026-33494 and heimdall CVE-2026-42274.
func TestP03_TheAppCannotReadAnotherRouteOutOfATarget(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	w := s.wire(t)
	rng := rand.New(rand.NewPCG(3, 36))
	type person struct {
		cookie string
		may    map[string]bool
	}
	people := []person{
		{"x=y", map[string]bool{"open": true, "logo": true}},
		{s.mint(t, bob()), map[string]bool{"open": true, "logo": true, "app": true}},
		{s.mint(t, alice()), map[string]bool{"open": true, "logo": true, "app": true, "admin": true}},
	}
	forwarded, refused, seen := 0, 0, 0
	for range 2400 {
		target := mutateTarget(rng)
		for i, who := range people {
			a := w.do("GET", rawRequest("GET", target, s.host, "Cookie: "+who.cookie))
			fresh := s.hits(&seen)
			if len(fresh) == 0 {
				refused++
				continue
			}
			forwarded++
			got := testenv.Target(fresh[0])
			for _, reading := range readings(got) {
				if route := routeOf(reading); !who.may[route] {
					t.Errorf("person %d asked for %q; the app received %q, which can be read as %q of route %s", i,
						target, got, reading, route)
				}
			}
			if a.status != 200 || len(fresh) != 1 {
				t.Errorf("%q: answered %d after %d requests to the app", target, a.status, len(fresh))
			}
			if judged := s.log.event(t, a.header.Get("X-Request-Id"))["route"]; judged != routeOf(pathOf(got)) {
				t.Errorf("%q was judged as %v; the app received %q", target, judged, got)
			}
			if again, err := authz.CanonicalPath(pathOf(got)); err != nil || again != pathOf(got) {
				t.Errorf("%q: what the app received is not in normal form: %q", target, got)
			}
		}
	}
	t.Logf("%d forwarded, %d refused", forwarded, refused)
	if forwarded < 500 || refused < 500 {
		t.Errorf("the corpus is lopsided: %d forwarded, %d refused", forwarded, refused)
	}
}

// mutateTarget puts a few odd pieces into a path that means something.
func mutateTarget(rng *rand.Rand) string {
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	bases := []string{"/open/x", "/open", "/admin", "/admin/users", "/a/b", "/logo.svg", "/", "/open/admin",
		"/open/x/../admin", "/admin/open"}
	pieces := []string{"%2e", "%2E", "%2f", "%2F", "%5c", "\\", "//", "/./", "/../", "..", ".", ";", ";x=1", "..;/",
		"%00", "%20", " ", "%25", "%252e", "%3f", "?", "#", "%23",
		"admin", "ADMIN", "open", "/", "%61", "%c0%ae", "\xc0\xae", "é", "%e9", "&", "+", "~", "%7e", ":", "@", "*",
		"%", "%zz", "x", "%09", "\t", "'", "\"", "<", "|", "{", "ſ", "K", "ı", "．", "／"}
	b := pick(bases)
	for range 1 + rng.IntN(3) {
		at := rng.IntN(len(b) + 1)
		switch piece := pick(pieces); rng.IntN(5) {
		case 0: // instead of a byte
			if at < len(b) {
				b = b[:at] + piece + b[at+1:]
			}
		case 1: // a byte in another spelling
			if at < len(b) {
				b = b[:at] + fmt.Sprintf("%%%02x", b[at]) + b[at+1:]
			}
		default:
			b = b[:at] + piece + b[at:]
		}
	}
	return strings.NewReplacer(" ", "%20", "\t", "%09").Replace(b) // those would be net/http's to refuse
}

func pathOf(target string) string {
	path, _, _ := strings.Cut(target, "?")
	return path
}

// readings are what servers, frameworks and file systems make of a path: all
// that up to five steps, in any order and also repeated, can read out of it.
func readings(target string) []string {
	cut := func(sep string) func(string) string {
		return func(p string) string { before, _, _ := strings.Cut(p, sep); return before }
	}
	segments := func(f func(string) string) func(string) string {
		return func(p string) string {
			parts := strings.Split(p, "/")
			for i := range parts {
				parts[i] = f(parts[i])
			}
			return strings.Join(parts, "/")
		}
	}
	steps := []func(string) string{
		func(p string) string {
			if d, err := url.PathUnescape(p); err == nil {
				return d
			}
			return p
		},
		strings.ToLower, resolveDots, cut("\x00"), cut("#"), cut("?"),
		func(p string) string { return strings.ReplaceAll(p, "\\", "/") },
		func(p string) string { return strings.ReplaceAll(p, "//", "/") },
		segments(cut(";")), // matrix parameters
		segments(func(s string) string { // Windows, and some CDNs
			if strings.Trim(s, ".") == "" {
				return s
			}
			return strings.TrimRight(s, " .")
		}),
	}
	out := []string{pathOf(target)}
	for depth, from := 0, 0; depth < 5 && from < len(out); depth++ {
		for end := len(out); from < end; from++ {
			for _, step := range steps {
				if p := step(out[from]); !slices.Contains(out, p) {
					out = append(out, p)
				}
			}
		}
	}
	return out
}

func resolveDots(p string) string {
	var kept []string
	for _, s := range strings.Split(p, "/") {
		switch s {
		case ".":
		case "..":
			kept = kept[:max(len(kept)-1, 0)]
		default:
			kept = append(kept, s)
		}
	}
	return "/" + strings.TrimPrefix(strings.Join(kept, "/"), "/")
}

// routeOf is usualRoutes, written down once more.
func routeOf(path string) string {
	switch {
	case path == "/admin" || strings.HasPrefix(path, "/admin/"):
		return "admin"
	case path == "/open" || strings.HasPrefix(path, "/open/"):
		return "open"
	case path == "/logo.svg":
		return "logo"
	}
	return "app"
}

// CVE-2026-27588, CVE-2026-48794: one name, one verdict, however it is spelled;
// and the app receives the name that was judged.
func TestP03_HostSpellingsHaveOneVerdictAndArriveAsOne(t *testing.T) {
	t.Parallel()
	routes := []authz.Route{
		{Name: "app", Host: "app.example.com", Path: "/", Access: authz.Access{Authenticated: true}},
		{Name: "open", Host: "open.example.com", Path: "/", Access: authz.Access{Public: true}},
		{Name: "wild", Host: "*.example.com", Path: "/", Access: authz.Access{Public: true}},
	}
	s := newTestSite(t, setup{Public: "http://app.example.com", Routes: routes, Login: fixedLogin{}})
	w, seen := s.wire(t), 0
	for host, want := range map[string]string{
		"app.example.com": "302", "APP.example.com": "302", "app.example.com.": "302", "App.Example.Com.:80": "302",
		"app.example.com:8443": "302",
		"open.example.com":     "open.example.com", "OPEN.EXAMPLE.COM": "open.example.com",
		"open.example.com.":     "open.example.com",
		"Open.example.com:8080": "open.example.com:8080", "x.example.com": "x.example.com",
		"X.Y.example.com": "x.y.example.com", "open.example.com:": "open.example.com",
		"example.com": "404", "evilexample.com": "404", "app.example.com.evil": "404", "exampleXcom": "404",
		"127.0.0.1": "404", "[::1]": "404", "localhost": "404",
		"app.example.com..": "400", ".example.com": "400", "app..example.com": "400", "app.example.com:x": "400",
		"app.example.com:99999999": "400",
		"app.example.com@evil":     "400", "a;for=1.2.3.4": "400", "a,b": "400", "[::1": "400", "[fe80::1%eth0]": "400",
		"": "400", "app.example.com/x": "400",
		"app.example.com?x": "400", "ａpp.example.com": "400", "app.ex\xe2\x84\xaaample.com": "400",
		strings.Repeat("a", 64) + ".example.com": "400", "a b": "400", "a\tb": "400",
	} {
		t.Run(host, func(t *testing.T) {
			w.tb = t
			a := w.do("GET", rawRequest("GET", "/x", host, "Accept: text/html"))
			got, fresh := fmt.Sprint(a.status), s.hits(&seen)
			if len(fresh) == 1 {
				got = strings.Join(headerOf(fresh[0])["host"], " ")
				if forwarded := headerOf(fresh[0])["x-forwarded-host"]; !slices.Equal(forwarded, []string{got}) {
					t.Errorf("X-Forwarded-Host %q", forwarded)
				}
			}
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if want == "404" && utf8.ValidString(host) && !strings.Contains(a.body, "This address is not served here") {
				t.Errorf("the page says\n%s", a.body)
			}
		})
	}
	// The target overrides Host (RFC 9112 §3.2.2), for the verdict and for the app.
	if a := w.do("GET", rawRequest("GET", "http://open.example.com/x", "app.example.com")); a.status != 200 {
		t.Errorf("absolute form: %d", a.status)
	}
	if got := headerOf(s.app.Last(t))["host"]; !slices.Equal(got, []string{"open.example.com"}) {
		t.Errorf("Host at the app is %q", got)
	}
	if a := w.do("GET", rawRequest("GET", "http://app.example.com/x", "open.example.com", "Accept: text/html")); a.status != 302 {
		t.Errorf("absolute form: %d", a.status)
	}
}

// A pipelined or huge target must not reach anything (P17).
func TestP17_TargetsHaveALimit(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	cookie := s.mint(t, alice())
	path := "/" + strings.Repeat("x", 8<<10-1)
	if a := s.get(t, path, "Cookie: "+cookie); a.status != 200 {
		t.Errorf("8 KiB: %d", a.status)
	}
	seen := 1
	if a := s.get(t, path+"x", navigate("Cookie: "+cookie)...); a.status != 414 ||
		!strings.Contains(a.body, "This address is too long") {
		t.Errorf("8 KiB and a byte: %d\n%s", a.status, a.body)
	}
	if a := s.get(t, "/", "X-Large: "+strings.Repeat("x", 80<<10)); a.status != 431 {
		t.Errorf("80 KiB of header: %d", a.status)
	}
	if fresh := s.hits(&seen); len(fresh) > 0 {
		t.Errorf("%d requests reached the app", len(fresh))
	}
}

// Who has too many cookies reads a page with an id and what to do, a program the same as JSON, and
// the log names the field: over HTTP/1.1 and over HTTP/2, up to the last byte that is allowed.
func TestP17_AHeaderThatIsTooLongIsAnsweredWithAPage(t *testing.T) {
	t.Parallel()
	for _, h2 := range []bool{false, true} {
		s := newTestSite(t, setup{TLS: h2})
		client := &http.Client{Transport: s.transport}
		ask := func(length int, accept string) (*http.Response, string) {
			t.Helper()
			req, err := http.NewRequest("GET", s.url+"/open", nil)
			testenv.Check(t, err)
			req.Header.Set("User-Agent", "x")
			req.Header.Set("Accept", accept)
			if accept == "text/html" {
				req.Header.Set("Sec-Fetch-Mode", "navigate")
				req.Header.Set("Sec-Fetch-Dest", "document")
			}
			req.Header.Set("Cookie", "")
			req.Header.Set("Cookie", strings.Repeat("c", length-headerSize(asServed(req))))
			res, err := client.Do(req)
			testenv.Check(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			testenv.Check(t, err)
			return res, string(body)
		}
		if res, body := ask(64<<10, "*/*"); res.StatusCode != 200 {
			t.Errorf("HTTP/2 %t, 64 KiB: %d %s", h2, res.StatusCode, body)
		}
		res, body := ask(64<<10+1, "text/html")
		id := res.Header.Get("X-Request-Id")
		if res.StatusCode != 431 || !strings.Contains(body, "Your browser sends too much") ||
			!strings.Contains(body, "Delete the cookies of this site") || !strings.Contains(body, id) {
			t.Errorf("HTTP/2 %t, a byte more: %d\n%s", h2, res.StatusCode, body)
		}
		logged := s.log.event(t, id)
		if want := "the header has 65537 bytes, most of them in Cookie, and limits.header is 65536"; logged["error"] !=
			want || logged["status"] != 431.0 {
			t.Errorf("HTTP/2 %t: logged %v", h2, logged)
		}
		if res, body := ask(100<<10, "application/json"); res.StatusCode != 431 ||
			!strings.Contains(body, `"error":"Request Header Fields Too Large"`) {
			t.Errorf("HTTP/2 %t, 100 KiB: %d\n%s", h2, res.StatusCode, body)
		}
		if n := len(s.app.Requests()); n != 1 {
			t.Errorf("HTTP/2 %t: the app was asked %d times", h2, n)
		}
	}
}

// asServed is a request as a server has it.
func asServed(r *http.Request) *http.Request {
	served := r.Clone(r.Context())
	served.RequestURI = r.URL.RequestURI()
	return served
}

// A deep link that is legal but long must still lead to a sign-in.
func TestP17_ALongDeepLinkLeadsToASignIn(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice()}})
	for _, path := range []string{"/" + strings.Repeat("x", 8000), "/?" + strings.Repeat("%3D", 2600),
		"/" + strings.Repeat("a/", 500) + "?" + strings.Repeat("&", 24), "/" + strings.Repeat("&", 3000)} {
		page := s.browser(t).Open(s.url + path)
		if page.Status != 200 || page.URL.Path != "/open/provider" {
			t.Errorf("%.20s… of %d bytes ends at %.80s with %d", path, len(path), page.URL, page.Status)
		}
	}
}
