package proxy

import (
	"context"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// badCookies are Cookie lines that prove nothing: damaged (authentik
// CVE-2026-25748 let such requests through), sealed with another key, of another
// format, or planted by a neighbouring host (RFC 6265bis §8.6).
func badCookies(t *testing.T, s *testSite) map[string][]string {
	t.Helper()
	good := s.mint(t, alice())
	name, value, _ := strings.Cut(good, "=")
	other := newTestSite(t, setup{Port: s.host[strings.LastIndexByte(s.host, ':')+1:]}) // another key, the same names
	elsewhere := headerWriter{}
	testenv.Check(t, s.sessions.Write(elsewhere, "other.example.com", s.sessions.Start(alice())))
	forHost, _, _ := strings.Cut(http.Header(elsewhere).Get("Set-Cookie"), ";")
	old := s.sessions.Start(alice())
	old.SignedIn = old.SignedIn.Add(-13 * time.Hour)
	idle := s.sessions.Start(alice())
	idle.SignedIn, idle.Seen = idle.SignedIn.Add(-2*time.Hour), idle.Seen.Add(-61*time.Minute)
	future := s.sessions.Start(alice())
	future.SignedIn, future.Seen = future.SignedIn.Add(time.Hour), future.Seen.Add(time.Hour)
	ended := s.sessions.Start(alice())
	_ = s.sessions.SignOut(context.Background(), headerWriter{}, ended)
	raw, err := base64.URLEncoding.DecodeString(value)
	testenv.Check(t, err)
	flipped := slices.Clone(raw)
	flipped[len(flipped)/2] ^= 1
	begin := headerWriter{}
	_, err = s.sessions.Begin(begin, &http.Request{Header: http.Header{}}, session.Flow{Purpose: purposeLogin})
	testenv.Check(t, err)
	_, flow, _ := strings.Cut(strings.Split(http.Header(begin).Get("Set-Cookie"), ";")[0], "=")
	out := map[string][]string{
		"none": nil, "empty line": {""}, "empty value": {name + "="}, "no equals": {name}, "only others": {"a=b; c=d"},
		"not base64": {name + "=!!!"}, "one byte": {name + "=A"}, "huge": {name + "=" + strings.Repeat("A", 5000)},
		"other key": {other.mint(t, alice())}, "other host": {forHost}, "expired": {s.seal(t, old)},
		"idle":            {s.seal(t, idle)},
		"from the future": {s.seal(t, future)}, "ended": {s.seal(t, ended)},
		"a bit flipped": {name + "=" + base64.URLEncoding.EncodeToString(flipped)},
		"quoted":        {name + `="` + value + `"`}, "twice": {good + "; " + good},
		"twice, one forged":  {name + "=evil; " + good},
		"twice, forged last": {good, name + "=evil"}, "two lines": {good, good},
		"upper-case name":    {strings.ToUpper(name) + "=" + value},
		"twice in two cases": {strings.ToUpper(name) + "=evil; " + good}, "nameless": {"=" + good},
		"blank in name":    {name + " =" + value},
		"the flow's value": {name + "=" + flow}, "__Host- name on http": {"__Host-sallyport=" + value},
		"comma instead of semicolon": {"a=b, " + good},
		"in a value":                 {"a=" + good}, "NUL after": {good + "\x00"},
		"blank in value": {name + "=" + value[:9] + " " + value[9:]},
		"line break":     {good + "%0a"}, "doubled": {good + value}, "other padding": {good + "="},
	}
	for i := 0; i < len(value); i += 7 {
		out[fmt.Sprintf("cut after %d", i)] = []string{name + "=" + value[:i]}
	}
	return out
}

// P1, over the matrix: without a session nothing reaches a protected route.
func TestP01_WithoutASessionNothingReachesTheApp(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	w := s.wire(t)
	agents := [][]string{nil, {"User-Agent: GoogleHC/1.0"}, {"User-Agent: kube-probe/1.30"}, {"User-Agent: " +
		"ELB-HealthChecker/2.0"}, {"User-Agent: Envoy/HC"}, // CVE-2026-34457
		{"Authorization: Bearer x"}, {"Authorization: Basic YWxpY2U6eA=="}, {"Authorization: bearer\tx"},
		// CVE-2022-29226, CVE-2026-0707
		{"X-Forwarded-Uri: /open/"}, {"X-Original-URL: /open/"}, {"X-Rewrite-Url: /open/", "X-Forwarded-Path: /open/"},
		// CVE-2026-40575
		{"X-Forwarded-Host: open.example.com", "X-Forwarded-User: root"}, {"X-HTTP-Method-Override: OPTIONS"},
		{"X-Forwarded-For: 127.0.0.1", "X-Real-Ip: 127.0.0.1"},
		{"X-Middleware-Subrequest: middleware"}} // CVE-2025-29927
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "get", "FOO",
		strings.Repeat("M", 300)}
	cookies := badCookies(t, s)
	ask := func(t *testing.T, method, target string, lines ...string) {
		t.Helper()
		w.tb = t
		if method == "POST" || method == "PUT" || method == "PATCH" {
			lines = append(lines, "Content-Length: 0")
		}
		a := w.do(method, rawRequest(method, target, s.host, lines...))
		if a.status != 401 && a.status != 302 {
			t.Errorf("%s %s with %.200q: answered %d", method, target, lines, a.status)
		}
		if strings.Contains(a.body, "ok") && !strings.Contains(a.body, "<html") && !strings.HasPrefix(a.body, "{") {
			t.Errorf("%s %s: answered %q", method, target, a.body)
		}
	}
	for fault, lines := range cookies {
		t.Run("cookie "+fault, func(t *testing.T) {
			var all []string
			for _, line := range lines {
				all = append(all, "Cookie: "+line)
			}
			for _, target := range []string{"/", "/admin/x", "/x?/open/", "/admin?x=/open/"} { // CVE-2025-54576
				if fault == "NUL after" { // net/http's to refuse
					if a := w.do("GET", rawRequest("GET", target, s.host, all...)); a.status != 400 {
						t.Errorf("answered %d", a.status)
					}
					continue
				}
				ask(t, "GET", target, all...)
				ask(t, "POST", target, append(all, navigate()...)...)
			}
		})
	}
	for _, method := range methods {
		for i, agent := range agents {
			t.Run(fmt.Sprintf("%.20s/agent %d", method, i), func(t *testing.T) {
				ask(t, method, "/admin/x", agent...)
				ask(t, method, "/", append(navigate(), agent...)...)
			})
		}
	}
	if got := s.app.Requests(); len(got) > 0 {
		t.Errorf("%d requests reached the app, first\n%s", len(got), got[0])
	}
	w.tb = t
	// And the matrix can tell: a good cookie passes.
	if a := w.do("GET", rawRequest("GET", "/admin/x", s.host, "Cookie: "+s.mint(t, alice()))); a.status != 200 ||
		len(s.app.Requests()) != 1 {
		t.Errorf("alice gets %d", a.status)
	}
}

// CVE-2026-71324; TRACE would show cookies to scripts.
func TestP01_ConnectTraceAndAsteriskAreRefused(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	cookie := "Cookie: " + s.mint(t, alice())
	for name, tt := range map[string]struct {
		raw  string
		want []int
	}{
		"CONNECT":           {rawRequest("CONNECT", "internal:22", "internal:22", cookie), []int{405}},
		"CONNECT to a path": {rawRequest("CONNECT", "/open", s.host, cookie), []int{405}},
		"CONNECT with a body": {rawRequest("CONNECT", "internal:22", "internal:22", cookie,
			"Content-Length: 3") + "abc", []int{405}},
		"CONNECT with chunks": {rawRequest("CONNECT", "internal:22", "internal:22", cookie, "Transfer-Encoding: "+
			"chunked") + "3\r\nabc\r\n0\r\n\r\n", []int{405}},
		"CONNECT and a request": {rawRequest("CONNECT", "internal:22", "internal:22", cookie) + rawRequest("GET",
			"/smuggled", s.host, cookie), []int{405}},
		"TRACE": {rawRequest("TRACE", "/open", s.host, cookie, "Connection: close"), []int{405}},
		"TRACE with Max-Forwards": {rawRequest("TRACE", "/open", s.host, cookie, "Max-Forwards: 0",
			"Connection: close"), []int{405}},
		"OPTIONS *": {rawRequest("OPTIONS", "*", s.host, cookie, "Connection: close"), []int{400}},
		"GET *":     {rawRequest("GET", "*", s.host, cookie, "Connection: close"), []int{400}},
		"PRI *":     {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{400}},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.talk(t, tt.raw)
			if !slices.Equal(statuses(got), tt.want) {
				t.Errorf("answered %v, want %v", statuses(got), tt.want)
			}
			if tt.want[0] == 405 && got[0].header.Get("Allow") == "" { // RFC 9110 §15.5.6
				t.Error("405 without Allow")
			}
		})
	}
	if got := s.app.Requests(); len(got) > 0 {
		t.Errorf("the app received\n%s", got[0])
	}
}

func TestP01_UnknownAddressesSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Public: "http://app.example.com", Login: fixedLogin{},
		Routes: []authz.Route{{Name: "only", Host: "app.example.com", Path: "/only",
			Access: authz.Access{Authenticated: true}}}})
	w := s.wire(t)
	page := rawRequest("GET", "/x", "app.example.com", navigate()...)
	if a := w.do("GET", page); a.status != 404 || !strings.Contains(a.body, "There is no page at this address.") {
		t.Errorf("unknown path: %d\n%s", a.status, a.body)
	}
	a := w.do("GET", rawRequest("GET", "/only", "evil.example.net", navigate()...))
	if a.status != 404 || !strings.Contains(a.body, "You asked for evil.example.net, and this site is "+
		"http://app.example.com.") {
		t.Errorf("unknown host: %d\n%s", a.status, a.body)
	}
	a = w.do("GET", rawRequest("GET", "/only", "evil.example.net"))
	if got := jsonOf(t, a.body); a.status != 404 || got["error"] != "Not Found" ||
		got["request_id"] != a.header.Get("X-Request-Id") {
		t.Errorf("unknown host, asked by a program: %d %s", a.status, a.body)
	}
	for _, path := range []string{"login", "logout", "account", "session", "callback/main", "logo",
		""} { // own endpoints are on one host only
		if a := w.do("GET", rawRequest("GET", prefix+"/"+path, "evil.example.net", navigate()...)); a.status != 404 ||
			a.header["Set-Cookie"] != nil {
			t.Errorf("%s on another host: %d %v", path, a.status, a.header)
		}
	}
	for _, path := range []string{"", "/", "/nothing", "/login/", "/login/x", "/callback", "/jwks.json/x", "/Login",
		"/logo"} {
		if a := w.do("GET", rawRequest("GET", prefix+path, "app.example.com", navigate()...)); a.status != 404 ||
			!strings.Contains(a.body, "Nothing is here") {
			t.Errorf("%q under the prefix: %d", path, a.status)
		}
	}
	for _, path := range []string{"/login", "/account", "/session", "/jwks.json", "/callback/main"} {
		if a := w.do("POST", rawRequest("POST", prefix+path, "app.example.com", navigate("Content-Length: 0")...)); a.status != 405 || a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("POST %s: %d, Allow %q", path, a.status, a.header.Get("Allow"))
		}
	}
	if n := len(s.app.Requests()); n > 0 {
		t.Errorf("%d requests reached the app", n)
	}
}

// CVE-2025-31492: the app's words appended to the login answer.
func TestP01_AnswersToStrangersHoldNothingOfTheApp(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	s.app.Respond(reply("X-App: secret-of-the-app\r\n", "secret-of-the-app"))
	for _, lines := range [][]string{nil, navigate()} {
		for _, method := range []string{"GET", "POST", "HEAD", "OPTIONS"} {
			a := s.ask(t, method, "/x", "", lines...)
			if strings.Contains(a.body+fmt.Sprint(a.header), "secret-of-the-app") {
				t.Errorf("%s %v: answered %d %v\n%s", method, lines, a.status, a.header, a.body)
			}
		}
	}
	denied := s.get(t, "/admin", navigate("Cookie: "+s.mint(t, bob()))...)
	if denied.status != 403 || strings.Contains(denied.body, "secret-of-the-app") {
		t.Errorf("denied: %d\n%s", denied.status, denied.body)
	}
	if n := len(s.app.Requests()); n > 0 {
		t.Errorf("%d requests reached the app", n)
	}
}

// The page says what is missing and to whom; the log says more.
func TestP01_WhoIsRefusedLearnsWhy(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Routes: []authz.Route{
		{Name: "secret", Host: "127.0.0.1", Path: "/",
			Access: authz.Access{Rules: []authz.Rule{{Groups: []string{"admins"}},
				{Emails: []string{"root@acme.example"}}}}}}})
	sess := s.sessions.Start(bob())
	cookie := "Cookie: " + s.seal(t, sess)
	a := s.get(t, "/x", navigate(cookie)...)
	for _, words := range []string{"You are signed in as <strong><bdi>Bob</bdi></strong>", "It is for members of a " +
		"group that you are not in.",
		`href="/.sallyport/login?switch=` + switchValue(&sess) + `&amp;return_to=%2Fx"`, `href="/.sallyport/account"`,
		a.header.Get("X-Request-Id")} {
		if a.status != 403 || !strings.Contains(a.body, words) {
			t.Errorf("%d: the page does not say %q:\n%s", a.status, words, a.body)
		}
	}
	if strings.Contains(a.body, "root@acme.example") || strings.Contains(a.body, "admins") {
		t.Error("the page tells of others")
	}
	line := s.log.event(t, a.header.Get("X-Request-Id"))
	if line["decision"] != "deny" || line["reason"] != "no_rule" || line["user"] != "main:bob-1" ||
		!strings.Contains(fmt.Sprint(line["error"]), "root@acme.example") {
		t.Errorf("logged %v", line)
	}
	a = s.get(t, "/x", cookie)
	if got := jsonOf(t, a.body); a.status != 403 || !strings.HasPrefix(fmt.Sprint(got["message"]), "It is for "+
		"members of a group") {
		t.Errorf("a program is told %s", a.body)
	}
}

// Who is redirected, who gets a page and who gets JSON: a sign-in begins only
// when a page is opened. A script that followed the redirect would get the
// provider's page as its data.
func TestP06_OnlyNavigationsAreSentToASignIn(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{}})
	html := "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	mode := func(m, d string) []string { return []string{"Sec-Fetch-Mode: " + m, "Sec-Fetch-Dest: " + d, html} }
	for name, tt := range map[string]struct {
		method string
		lines  []string
		want   string
	}{
		"a page":                          {"GET", mode("navigate", "document"), "redirect"},
		"a page, HEAD":                    {"HEAD", mode("navigate", "document"), "redirect"},
		"a page through a worker":         {"GET", mode("navigate", "empty"), "redirect"},
		"a page through Firefox's worker": {"GET", mode("same-origin", "empty"), "redirect"},
		"a frame":                         {"GET", mode("navigate", "iframe"), "framed"},
		"an old frame":                    {"GET", mode("navigate", "frame"), "framed"},
		"an object":                       {"GET", mode("navigate", "object"), "framed"},
		"an embed":                        {"GET", mode("navigate", "embed"), "framed"},
		"a fenced frame":                  {"GET", mode("navigate", "fencedframe"), "framed"},
		"a page, no Dest":                 {"GET", []string{"Sec-Fetch-Mode: navigate", html}, "redirect"},
		"a page in an Android app": {"GET", append(mode("navigate", "document"), "X-Requested-With: "+
			"com.example.app"), "redirect"},
		"a page, any Accept": {"GET", []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document",
			"Accept: */*"}, "redirect"},
		"an old Android app": {"GET", []string{html, "X-Requested-With: com.example.app"}, "redirect"},
		"another old Android app": {"GET", []string{html, "X-Requested-With: org.Example_2.app9.x"},
			"redirect"},
		"an old browser":                   {"GET", []string{html}, "redirect"},
		"an old browser, xhtml":            {"GET", []string{"Accept: application/xhtml+xml"}, "redirect"},
		"an old browser, capitals":         {"GET", []string{"Accept: TEXT/HTML;q=0.1"}, "redirect"},
		"an old browser, two Accept lines": {"GET", []string{"Accept: image/png", html}, "redirect"},
		"a form":                           {"POST", mode("navigate", "document"), "page"},
		"an old browser's form":            {"POST", []string{html}, "page"},
		"fetch":                            {"GET", mode("cors", "empty"), "json"},
		"fetch, same origin": {"GET", []string{"Sec-Fetch-Mode: same-origin", "Sec-Fetch-Dest: empty",
			"Accept: */*"}, "json"},
		"fetch of HTML": {"GET", mode("cors", "empty"), "json"},
		"fetch of HTML by a library": {"GET", append(mode("same-origin", "empty"), "X-Requested-With: "+
			"XMLHttpRequest"), "json"},
		"a worker's script":        {"GET", mode("same-origin", "serviceworker"), "json"},
		"a shared worker's script": {"GET", mode("same-origin", "sharedworker"), "json"},
		"an object that may be anything": {"GET", []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: object",
			"Accept: */*"}, "json"},
		"a download": {"GET", []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: empty"},
			"nothing"},
		"a download, any Accept": {"GET", []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: empty",
			"Accept: */*"}, "nothing"},
		"a form through a worker":         {"POST", mode("navigate", "empty"), "page"},
		"a form through Firefox's worker": {"POST", mode("same-origin", "empty"), "page"},
		"a form in a frame":               {"POST", mode("navigate", "iframe"), "page"},
		"an image":                        {"GET", mode("no-cors", "image"), "json"},
		"a script":                        {"GET", mode("no-cors", "script"), "json"},
		"a websocket":                     {"GET", mode("websocket", "websocket"), "json"},
		"an old websocket": {"GET", []string{html, "Connection: Upgrade", "Upgrade: websocket"},
			"json"},
		"prefetch": {"GET", append(mode("navigate", "document"), "Sec-Purpose: prefetch"),
			"json"},
		"prerender": {"GET", append(mode("navigate", "document"), "Sec-Purpose: "+
			"prefetch;prerender"), "json"},
		"an older prefetch":            {"GET", append(mode("navigate", "document"), "Purpose: prefetch"), "json"},
		"an older prefetch of Firefox": {"GET", []string{html, "X-Moz: prefetch"}, "json"},
		"a preview of Safari":          {"GET", []string{html, "X-Purpose: preview"}, "json"},
		"a prefetch through a worker": {"GET", append(mode("navigate", "empty"), "Sec-Purpose: prefetch"),
			"json"},
		"a purpose of tomorrow": {"GET", append(mode("navigate", "document"), "Sec-Purpose: guess"),
			"json"},
		"a library of old": {"GET", []string{html, "X-Requested-With: fetch"}, "json"},
		"Flash": {"GET", []string{html, "X-Requested-With: ShockwaveFlash/32.0.0.1"},
			"json"},
		"XHR of old":                        {"GET", []string{html, "X-Requested-With: XMLHttpRequest"}, "json"},
		"curl":                              {"GET", []string{"Accept: */*"}, "json"},
		"no Accept":                         {"GET", nil, "json"},
		"JSON wanted":                       {"GET", []string{"Accept: application/json"}, "json"},
		"html in a parameter only":          {"GET", []string{"Accept: application/json;x=text/html"}, "json"},
		"fetch POST":                        {"POST", mode("cors", "empty"), "json"},
		"PUT":                               {"PUT", mode("navigate", "document"), "json"},
		"DELETE":                            {"DELETE", []string{html}, "json"},
		"OPTIONS":                           {"OPTIONS", []string{html}, "json"},
		"an unknown mode":                   {"GET", mode("teleport", "document"), "json"},
		"a method of one's own, navigating": {"FOO", mode("navigate", "document"), "json"},
	} {
		t.Run(name, func(t *testing.T) {
			const deep = "/deep/link?a=1&b=%2F"
			wantLogin := s.url + prefix + "/login?return_to=%2Fdeep%2Flink%3Fa%3D1%26b%3D%252F"
			a := s.ask(t, tt.method, deep, "", tt.lines...)
			if a.header["Set-Cookie"] != nil {
				t.Errorf("a cookie was set: %v", a.header)
			}
			if !strings.Contains(a.header.Get("Cache-Control"), "no-store") {
				t.Errorf("Cache-Control %q", a.header.Get("Cache-Control"))
			}
			switch tt.want {
			case "redirect":
				if a.status != 302 || a.header.Get("Location") != wantLogin {
					t.Errorf("%d to %q", a.status, a.header.Get("Location"))
				}
			case "page":
				if a.status != 401 || !strings.Contains(a.body, "You were signed out; your form was not sent") {
					t.Errorf("%d\n%s", a.status, a.body)
				}
			case "json":
				checkChallenge(t, s, tt.method, a)
			case "framed":
				checkFramed(t, s, a, wantLogin)
			case "nothing":
				checkNothing(t, a)
			}
			// The sign-in page itself: no flow is begun for what is no navigation.
			if tt.method != "GET" && tt.method != "HEAD" {
				return
			}
			l := s.ask(t, tt.method, strings.TrimPrefix(wantLogin, s.url), "", tt.lines...)
			if begun := l.status == 302 && l.header["Set-Cookie"] != nil; begun != (tt.want == "redirect") {
				t.Errorf("sign-in begun: %v (%d)", begun, l.status)
			}
			switch tt.want {
			case "json":
				checkChallenge(t, s, tt.method, l)
			case "framed":
				checkFramed(t, s, l, wantLogin)
			case "nothing":
				checkNothing(t, l)
			}
		})
	}
	if n := len(s.app.Requests()); n > 0 {
		t.Errorf("%d requests reached the app", n)
	}
}

// checkChallenge: RFC 9110 §11.6.1 wants a challenge with a 401; Basic would make
// browsers ask for a password.
func checkChallenge(t *testing.T, s *testSite, method string, a answer) {
	t.Helper()
	if a.status != 401 || a.header["Set-Cookie"] != nil || a.header.Get("Location") != "" {
		t.Errorf("answered %d %v", a.status, a.header)
	}
	challenge := a.header.Get("Www-Authenticate")
	if !strings.HasPrefix(challenge, `Cookie realm="sallyport"`) ||
		strings.Contains(strings.ToLower(challenge), "basic") {
		t.Errorf("challenge %q", challenge)
	}
	if method == "HEAD" {
		return
	}
	got := jsonOf(t, a.body)
	if got["error"] != "login_required" || got["login_url"] != s.url+prefix+"/login" ||
		got["request_id"] != a.header.Get("X-Request-Id") {
		t.Errorf("answered %v", got)
	}
}

// checkFramed: a link that opens the window, in a page that no other site may frame.
func checkFramed(t *testing.T, s *testSite, a answer, login string) {
	t.Helper()
	link := `<a class="button" href="` + html.EscapeString(login) + `" target="_top">`
	if a.status != 401 || !strings.Contains(a.body, link) || a.header["Set-Cookie"] != nil ||
		a.header.Get("Location") != "" {
		t.Errorf("answered %d %v without %s\n%s", a.status, a.header, link, a.body)
	}
	if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "; frame-ancestors 'self' "+s.url+"; ") ||
		a.header.Get("X-Frame-Options") != "SAMEORIGIN" {
		t.Errorf("who may frame it: %s, %s", csp, a.header.Get("X-Frame-Options"))
	}
}

// checkNothing: whatever was saved would be taken for the file.
func checkNothing(t *testing.T, a answer) {
	t.Helper()
	if a.status != 401 || a.body != "" || a.header.Get("Content-Length") != "0" || a.header["Set-Cookie"] != nil ||
		a.header["Content-Type"] != nil {
		t.Errorf("answered %d %v %q", a.status, a.header, a.body)
	}
}

// What three engines were recorded to send, on an app's page, on our own pages
// that need a session, and on the sign-in page itself.
func TestP06_EveryRequestOfARealBrowserGetsWhatItCanUse(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{}})
	const sign, form, json, framed, nothing = "sign-in", "form", "json", "framed", "nothing"
	const foreign = "form of another site"
	want := map[string]map[bool]string{ // by what is done, and whether through a worker
		"an address is typed":               {false: sign},
		"a page is reloaded":                {false: sign},
		"a link is clicked":                 {false: sign},
		"a script sets location":            {false: sign},
		"a form is sent by a click":         {false: form},
		"a form is sent by a script":        {false: form},
		"a frame is loaded":                 {false: framed, true: sign}, // a worker hides the frame
		"an object is loaded":               {false: framed},
		"a script fetches":                  {false: json, true: json},
		"a beacon is sent":                  {false: json},
		"a page is prefetched by a link":    {false: json},
		"a page is prefetched by a rule":    {false: json},
		"a page is prerendered by a rule":   {false: json},
		"a script is preloaded":             {false: json},
		"a file is downloaded by a link":    {false: sign}, // only Chromium tells it from a page
		"a service worker is fetched":       {false: json},
		"a page is opened":                  {true: sign},
		"a form is sent":                    {true: form},
		"an image is loaded":                {true: json},
		"a link of another site is clicked": {false: sign, true: sign},
		"a form of another site is sent":    {false: foreign},
		"a frame of another site is loaded": {false: framed},
	}
	exceptions := map[testenv.Engine]map[string]string{
		testenv.Firefox:  {"an object is loaded": json}, // it would take anything
		testenv.Chromium: {"a file is downloaded by a link": nothing},
	}
	asked := 0
	for _, d := range testenv.Doings() {
		for _, e := range testenv.Engines() {
			h, ok := d.Header(e, s.url)
			if !ok {
				continue
			}
			want := want[d.What][d.Worker]
			if other, ok := exceptions[e][d.What]; ok {
				want = other
			}
			t.Run(fmt.Sprintf("%s/%s/worker=%v", e, d.What, d.Worker), func(t *testing.T) {
				var lines []string
				for name, values := range h {
					lines = append(lines, name+": "+values[0])
				}
				for path, login := range map[string]string{
					"/deep?a=1":                         "/login?return_to=%2Fdeep%3Fa%3D1",
					prefix + "/account":                 "/login?return_to=%2F.sallyport%2Faccount",
					prefix + "/login?return_to=%2Fdeep": "/login?return_to=%2Fdeep",
				} {
					asked++
					own := strings.HasPrefix(path, prefix)
					if own && d.Method == "POST" { // they take no forms
						continue
					}
					a := s.ask(t, d.Method, path, "", lines...)
					switch want {
					case sign:
						begun := a.status == 302 && a.header.Get("Location") == s.url+prefix+login
						if strings.HasPrefix(path, prefix+"/login") {
							begun = a.status == 302 && strings.HasPrefix(a.header.Get("Location"), "/open/provider?") &&
								a.header["Set-Cookie"] != nil
						}
						if !begun {
							t.Errorf("%s: %d %v\n%s", path, a.status, a.header, a.body)
						}
					case form:
						if a.status != 401 || !strings.Contains(a.body, "your form was not sent") {
							t.Errorf("%s: %d\n%s", path, a.status, a.body)
						}
					case foreign:
						if a.status != 401 || !strings.Contains(a.body, "A form of another site was not accepted") {
							t.Errorf("%s: %d\n%s", path, a.status, a.body)
						}
					case json:
						checkChallenge(t, s, d.Method, a)
					case framed:
						checkFramed(t, s, a, s.url+prefix+login)
					case nothing:
						checkNothing(t, a)
					default:
						t.Error("the table says nothing of it")
					}
				}
			})
		}
	}
	if asked < 150 {
		t.Errorf("only %d requests", asked)
	}
}

// A service worker that passes everything on is the first that people write.
func TestPeopleSignInThroughAServiceWorker(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true})
	for _, e := range testenv.Engines() {
		b := s.browser(t)
		b.Engine, b.Worker = e, s.url
		page := s.signIn(t, b, "/deep?a=1", "mira")
		if page.URL.String() != s.url+"/deep?a=1" || page.Body != "ok" {
			t.Errorf("%s: ended at %s with %d\n%s", e, page.URL, page.Status, page.Body)
			continue
		}
		for path, words := range map[string]string{"/account": "Your account", "/logout": "Do you want to sign out?",
			"/nothing": "Nothing is here"} {
			if page := b.Click(page, prefix+path); !strings.Contains(page.Body, words) {
				t.Errorf("%s: %s answers %d %s", e, path, page.Status, page.Body)
			}
		}
		s.clock.Advance(7 * time.Minute) // opening pages keeps a session alive
		if page := b.Click(page, "/x"); len(page.SetCookie) != 1 {
			t.Errorf("%s: opening a page did not renew the session", e)
		}
		if page := b.Post(b.Click(page, prefix+"/account"), prefix+"/logout", url.Values{}); !strings.Contains(page.Body, "You are signed out") {
			t.Errorf("%s: signing out ended at %s with %d", e, page.URL, page.Status)
		}
		if page := b.Post(page, "/save", url.Values{"a": {"b"}}); page.Status != 401 ||
			!strings.Contains(page.Body, "your form was not sent") {
			t.Errorf("%s: a form without a session: %d %s", e, page.Status, page.Body)
		}
	}
}

// Somebody who is signed in sends a form from another site, such as the answer of a SAML
// provider: the browser leaves our cookie out. They were not signed out, and to sign in and
// send it again would lead to the same page.
func TestAFormOfAnotherSiteIsNotCalledSignedOut(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	form := func(site string, more ...string) answer {
		return s.ask(t, "POST", "/saml/acs", "", append(more, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document",
			"Sec-Fetch-Site: "+site, "Accept: text/html", "Referer: https://sso.elsewhere.example/done")...)
	}
	a := form("cross-site", "Origin: https://sso.elsewhere.example")
	if a.status != 401 || strings.Contains(a.body, "signed out") || strings.Contains(a.body, "new tab") ||
		!strings.Contains(a.body, "A form of another site was not accepted") ||
		!strings.Contains(a.body, `href="`+s.url+prefix+`/login"`) {
		t.Errorf("%d\n%s", a.status, a.body)
	}
	if line := s.log.event(t, a.header.Get("X-Request-Id")); !strings.Contains(fmt.Sprint(line["error"]), "SameSite") {
		t.Errorf("the log says %+v", line)
	}
	for _, site := range []string{"same-origin", "same-site", "none"} { // of these the cookie comes along
		if a := form(site); !strings.Contains(a.body, "You were signed out; your form was not sent") {
			t.Errorf("%s: %d\n%s", site, a.status, a.body)
		}
	}
	if n := len(s.app.Requests()); n > 0 {
		t.Errorf("%d requests reached the app", n)
	}
}

// A frame is too small for a sign-in, and what is around it may be typed in.
func TestFramedPageLeadsOutOfItsFrameToSignIn(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true})
	frame := func(path string, more ...string) answer {
		return s.get(t, path, append([]string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe",
			"Accept: text/html"}, more...)...)
	}
	login := s.url + prefix + "/login?return_to="
	checkFramed(t, s, frame("/part"), login+"%2Fpart")
	checkFramed(t, s, frame("/part", "Referer: "+s.url+"/board?x=1"), login+"%2Fboard%3Fx%3D1")
	checkFramed(t, s, frame("/part", "Referer: https://elsewhere.example/board"), login+"%2Fpart")
	checkFramed(t, s, frame(prefix+"/login?return_to=%2Fpart"), login+"%2Fpart")
	checkFramed(t, s, frame(prefix+"/account"), login+"%2F.sallyport%2Faccount")
	checkFramed(t, s, frame(prefix+"/callback/main?code=c&state=unknown"), s.url+prefix+"/login")
	a := s.ask(t, "POST", "/part", "", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", "Accept: text/html")
	if !strings.Contains(a.body, "your form was not sent") ||
		!strings.Contains(a.header.Get("Content-Security-Policy"), "frame-ancestors 'self' "+s.url+";") {
		t.Errorf("a form in a frame: %d %v\n%s", a.status, a.header, a.body)
	}
	// What knows somebody, or has buttons, is not shown in a frame.
	cookie := "Cookie: " + s.mint(t, bob())
	for _, path := range []string{"/admin", prefix + "/account", prefix + "/logout", prefix + "/nothing"} {
		if a := frame(path, cookie); !strings.Contains(a.header.Get("Content-Security-Policy"),
			"frame-ancestors 'none'") || a.header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
	}
	if a := frame("/part", cookie); a.status != 200 || a.body != "ok" {
		t.Errorf("with a session: %d %s", a.status, a.body)
	}
}

// A download that fails is seen to fail, whatever the reason.
func TestDownloadThatFailsLeavesNoFileOfOurs(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	s.app.Respond(func([]byte) []byte { return nil })
	download := []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: empty", "Sec-Fetch-Site: same-origin"}
	cookie := "Cookie: " + s.mint(t, bob())
	for name, tt := range map[string]struct {
		path   string
		lines  []string
		status int
	}{
		"no session": {"/x", download, 401}, "not allowed": {"/admin", append(download, cookie), 403},
		"the app is gone":  {"/x", append(download, cookie), 502},
		"no such endpoint": {prefix + "/nothing", download, 404},
		"ambiguous":        {"/a%2fb", append(download, cookie), 400},
	} {
		if a := s.get(t, tt.path, tt.lines...); a.status != tt.status || a.body != "" ||
			a.header["Content-Type"] != nil || !strings.Contains(a.header.Get("Cache-Control"), "no-store") {
			t.Errorf("%s: %d %v %q", name, a.status, a.header, a.body)
		}
	}
}

// app.example.com and app.example.com. are one name in DNS and two sites to a
// browser, as are http and https: a sign-in begins where its cookie will be
// when the provider sends the browser back.
func TestP06_SignInBeginsAtThePublicURLWhereverItWasAskedFor(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Public: "https://app.example.com", Login: fixedLogin{},
		Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Routes: []authz.Route{{Name: "all", Host: "app.example.com", Path: "/",
			Access: authz.Access{Authenticated: true}}}})
	const origin = "https://app.example.com"
	here := "http://" + s.addr // what the address of another machine would be
	for name, seen := range map[string][]string{
		"by http":           {"Host: app.example.com", "X-Forwarded-Proto: http"},
		"with a dot":        {"Host: app.example.com.", "X-Forwarded-Proto: https"},
		"with dot and port": {"Host: app.example.com.:443"},
		"by a proxy":        {"X-Forwarded-Host: app.example.com.", "X-Forwarded-Proto: https"},
	} {
		a := s.get(t, here+"/deep?a=1", navigate(seen...)...)
		if want := origin + prefix + "/login?return_to=%2Fdeep%3Fa%3D1"; a.status != 302 ||
			a.header.Get("Location") != want || a.header["Set-Cookie"] != nil {
			t.Errorf("%s: %d %v, want to %s", name, a.status, a.header, want)
		}
		a = s.ask(t, "POST", here+"/deep", "", navigate(seen...)...)
		if !strings.Contains(a.body, `href="`+origin+prefix+`/login"`) {
			t.Errorf("%s: a form is sent to sign in elsewhere:\n%s", name, a.body)
		}
	}
	for _, path := range []string{"/login?return_to=%2Fdeep", "/account", "/logout", "/organization",
		"/callback/main?code=c&state=s"} {
		a := s.get(t, here+prefix+path, navigate("Host: app.example.com.")...)
		if a.status != 302 || a.header.Get("Location") != origin+prefix+path || a.header["Set-Cookie"] != nil {
			t.Errorf("with a dot, %s: %d %v", path, a.status, a.header)
		}
		if a := s.get(t, here+prefix+path, navigate("Host: app.example.com")...); a.header.Get("Location") == origin+prefix+path {
			t.Errorf("without a dot, %s leads to itself", path)
		}
	}
}

// The page that a program was on is where its person returns to; another site's is not.
func TestP05_ProgramsSendPeopleBackToTheirPage(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	for referer, want := range map[string]string{
		s.url + "/page?x=1#part": "/login?return_to=%2Fpage%3Fx%3D1%23part", s.url + "/": "/login", s.url: "/login",
		"https://evil.example/page": "/login", s.url + ".evil.example/page": "/login",
		s.url + "@evil.example/":   "/login",
		s.url + prefix + "/logout": "/login", "/page": "/login?return_to=%2Fpage", "//evil.example/": "/login",
		s.url + "//evil.example/":               "/login",
		s.url + "/" + strings.Repeat("x", 2000): "/login",
		s.url + "/sw.js":                        "/login", s.url + "/sw.js?v=3": "/login",
		s.url + "/a/Worker.MJS#x": "/login", s.url + "/site.css": "/login",
		s.url + "/sw.js/page":      "/login?return_to=%2Fsw.js%2Fpage",
		s.url + "/page?file=sw.js": "/login?return_to=%2Fpage%3Ffile%3Dsw.js",
	} {
		a := s.get(t, "/x", "Sec-Fetch-Mode: cors", "Referer: "+referer)
		if got := jsonOf(t, a.body)["login_url"]; got != s.url+prefix+want {
			t.Errorf("from %q: %v, want %s", referer, got, want)
		}
	}
}

// Without a session the answer does not wait for the upload (RFC 9110 §10.1.1:
// a final answer may take the place of 100 Continue).
func TestP01_AnUploadOfAStrangerIsRefusedUnread(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	got := s.talk(t, rawRequest("POST", "/upload", s.host, "Expect: 100-continue", "Content-Length: 1000000"))
	if !slices.Equal(statuses(got), []int{401}) {
		t.Errorf("answered %v", statuses(got))
	}
	got = s.talk(t, rawRequest("POST", "/upload", s.host, "Expect: something-else", "Content-Length: 0",
		"Cookie: "+s.mint(t, alice()), "Connection: close"))
	if !slices.Equal(statuses(got), []int{417}) {
		t.Errorf("an expectation nobody can meet: %v", statuses(got))
	}
	if n := len(s.app.Requests()); n > 0 {
		t.Errorf("%d requests reached the app", n)
	}
	// With a session the app decides whether it wants the body.
	s.app.Respond(func(raw []byte) []byte { return reply("", string(testenv.Body(raw)))(raw) })
	w := s.wire(t)
	w.dial()
	_, err := fmt.Fprint(w.conn, rawRequest("POST", "/upload", s.host, "Expect: 100-continue", "Content-Length: 5",
		"Cookie: "+s.mint(t, alice()), "Connection: close"))
	testenv.Check(t, err)
	line, err := w.in.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("%q %v", line, err)
	}
	_, err = fmt.Fprint(w.conn, "hello")
	testenv.Check(t, err)
	if _, err := w.in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if got := w.rest(); len(got) != 1 || got[0].body != "hello" {
		t.Errorf("answered %v", got)
	}
}

// A cookie that was made for one host is not valid for another.
func TestP01_ASessionIsForOneHost(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Public: "http://app.example.com", Login: fixedLogin{}, Routes: []authz.Route{
		{Name: "app", Host: "app.example.com", Path: "/", Access: authz.Access{Authenticated: true}},
		{Name: "other", Host: "other.example.com", Path: "/", Access: authz.Access{Authenticated: true}},
	}})
	w, cookie := s.wire(t), "Cookie: "+s.mint(t, alice())
	for host, want := range map[string]int{"app.example.com": 200, "APP.example.com:80": 200,
		"other.example.com": 401} {
		if a := w.do("GET", rawRequest("GET", "/x", host, cookie)); a.status != want {
			t.Errorf("%s: %d, want %d", host, a.status, want)
		}
	}
	if n := len(s.app.Requests()); n != 2 {
		t.Errorf("%d requests reached the app", n)
	}
}

// A body that never ends must not hold an answer of ours, nor the connection
// for ever: net/http waits for it, without a limit, before it answers.
func TestP17_AStrangersEndlessBodyDelaysNoAnswer(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	for _, path := range []string{"/secret", prefix + "/logout", prefix + "/nothing", "/a//b"} {
		w := s.wire(t)
		w.dial()
		_, err := fmt.Fprint(w.conn, rawRequest("POST", path, s.host, "Content-Length: 10")+"x")
		testenv.Check(t, err)
		testenv.Check(t, w.conn.SetReadDeadline(time.Now().Add(3*time.Second)))
		if line, err := w.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 ") {
			t.Errorf("%s: %q %v", path, line, err)
		}
		if path != "/secret" {
			continue
		}
		testenv.Check(t, w.conn.SetReadDeadline(time.Now().Add(4*bodyTimeout)))
		if _, err := io.Copy(io.Discard, w.in); err != nil {
			t.Errorf("%s: the connection stays open: %v", path, err)
		}
	}
}

// Half-closed, a client still reads: what it gets must not look like success.
func TestAClientThatGoesAwayIsNotTold200(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	asked := make(chan struct{})
	release := make(chan struct{})
	s.app.Respond(func([]byte) []byte { close(asked); <-release; return nil })
	t.Cleanup(func() { close(release) })
	w := s.wire(t)
	w.dial()
	_, err := fmt.Fprint(w.conn, rawRequest("GET", "/open/x", s.host))
	testenv.Check(t, err)
	<-asked
	half, ok := w.conn.(*net.TCPConn)
	if !ok {
		t.Fatal("not TCP")
	}
	testenv.Check(t, half.CloseWrite())
	testenv.Check(t, w.conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	if got, err := io.ReadAll(w.in); err != nil || len(got) > 0 {
		t.Errorf("told %q, %v", got, err)
	}
}

// What is streamed to somebody ends when their session does.
func TestP11_AStreamEndsWithItsSession(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	s.app.Respond(func([]byte) []byte { return []byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc") })
	late := s.sessions.Start(alice())
	late.SignedIn = late.SignedIn.Add(time.Minute - 12*time.Hour)
	w := s.wire(t)
	w.dial()
	_, err := fmt.Fprint(w.conn, rawRequest("GET", "/stream", s.host, "Cookie: "+s.seal(t, late)))
	testenv.Check(t, err)
	testenv.Check(t, w.conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	begun, err := w.in.ReadString('a')
	for err == nil && !strings.HasSuffix(begun, "\r\n\r\na") {
		var more string
		more, err = w.in.ReadString('a')
		begun += more
	}
	testenv.Check(t, err)
	s.clock.Advance(time.Minute)
	rest, err := io.ReadAll(w.in)
	if err != nil || !strings.HasPrefix(begun, "HTTP/1.1 200 ") || string(rest) != "bc" {
		t.Errorf("the stream began with %q and ended with %q, %v", begun, rest, err)
	}
}

// The address of a sign-in is for one browser and one use, whether or not the
// answer sets a cookie, so no cache may keep it (RFC 9111 §5.2.2.5).
func TestP19_TheWayToASignInIsNotCached(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true})
	b := s.browser(t)
	for range 2 { // the second time the flow cookie is there
		page := b.Open(s.url + "/deep")
		for _, hop := range page.Hops {
			if strings.HasPrefix(hop.URL.String(), s.url) &&
				!strings.Contains(hop.Header.Get("Cache-Control"), "no-store") {
				t.Errorf("%s may be cached: %q", hop.URL, hop.Header.Get("Cache-Control"))
			}
		}
	}
}
