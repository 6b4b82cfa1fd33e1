package assemble

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/authz"
)

// newCompat are doors that also answer set-ups made for oauth2-proxy.
func newCompat(tb testing.TB) *doors {
	tb.Helper()
	return newDoorsOf(tb, strings.Replace(doorsConfig, `{external_auth: "127.0.0.1:4182"}`,
		`{external_auth: {address: "127.0.0.1:4182", peers: [127.0.0.0/8], compat: oauth2-proxy}}`, 1))
}

// oauth2Fronts are the ways in which set-ups made for oauth2-proxy ask.
var oauth2Fronts = map[string]func(c doorCase, client []string, query string) *http.Request{
	"nginx": func(c doorCase, client []string, query string) *http.Request {
		return parse("GET", "/oauth2/auth"+query, append(without(client, "X-Forwarded-Uri", "X-Real-Ip", "Host"),
			"Host: "+c.host, "X-Real-IP: 127.0.0.1", "X-Forwarded-Uri: "+c.target)...)
	},
	"ingress-nginx": func(c doorCase, client []string, query string) *http.Request {
		return parse("GET", "/oauth2/auth"+query, append(without(client, "X-Original-Url", "X-Original-Method",
			"X-Real-Ip",
			"X-Forwarded-For", "X-Forwarded-Proto", "X-Auth-Request-Redirect"), "Host: sallyport.auth.svc",
			"X-Original-URL: https://"+c.host+c.target, "X-Original-Method: "+c.method, "X-Real-IP: 127.0.0.1",
			"X-Forwarded-For: 127.0.0.1", "X-Auth-Request-Redirect: "+c.target)...)
	},
	"traefik": func(c doorCase, client []string, query string) *http.Request {
		return parse("GET", "/oauth2/auth"+query, append(without(client, "X-Forwarded-Uri", "X-Forwarded-Method",
			"X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-For", "X-Real-Ip"), "Host: sallyport:4182",
			"X-Forwarded-Uri: "+c.target, "X-Forwarded-Method: "+c.method, "X-Forwarded-Host: "+c.host,
			"X-Forwarded-Proto: https", "X-Real-Ip: 127.0.0.1")...)
	},
}

// P3: a set-up made for oauth2-proxy is told the verdict that /verify is told, and the app
// the same. Where the method counts it is told less, because it does not tell the method.
func TestP03_SetUpsMadeForOAuth2ProxyAreToldTheSame(t *testing.T) {
	d := newCompat(t)
	cases, forwards, agrees := doorCases(), 0, 0
	methodCounts := conditionCases("app.example.com")
	for _, c := range cases {
		want, verified := c.ask(d, "verify")
		want = strings.Replace(want, "step-up navigation", "login navigation", 1) // they differ in Location alone
		asksMethod := c.method == "COPY" || c.method == "MOVE" ||
			slices.ContainsFunc(methodCounts, func(m doorCase) bool { return m.String() == c.String() })
		for front, of := range oauth2Fronts {
			w := httptest.NewRecorder()
			verdict := "deny"
			if r := of(c, c.header(d), ""); r != nil {
				d.process.ServeExternalAuth(w, r)
				verdict = asked(w)
			}
			kind := front == "nginx" && (strings.HasPrefix(want, "login") || strings.HasPrefix(want, "step-up")) &&
				strings.HasPrefix(verdict, "login")
			switch {
			case verdict == want || kind, asksMethod && verdict != "forward":
				agrees++
			case front == "nginx" && (c.method == "TRACE" || c.method == "CONNECT" || c.method == "COPY"):
				continue // nginx refuses two of them itself; a COPY to nowhere does nothing
			case verdict == "forward" || !addsTarget(c):
				t.Errorf("%s: %s is told %s, and /verify %s", c, front, verdict, want)
			}
			if verdict != "forward" {
				if w.Header().Get("Location") != "" || w.Header().Get("Set-Cookie") != "" ||
					w.Header().Get("Gap-Auth") != "" {
					t.Errorf("%s: %s is told %v", c, front, w.Header())
				}
				continue
			}
			forwards++
			for _, name := range strings.Split(verified.Header().Get("X-Sallyport-Names"), ", ") {
				name = http.CanonicalHeaderKey(name)
				got, there := w.Header()[name]
				if !there || len(got) != 1 {
					t.Errorf("%s: %s is told %q as %s", c, front, got, name)
					continue
				}
				if oauth2 := strings.HasPrefix(name, "X-Auth-Request-") || name == "Gap-Auth"; !oauth2 &&
					name != "X-Sallyport-Assertion" && got[0] != verified.Header().Get(name) {
					t.Errorf("%s: %s is told %s: %q, and /verify %q", c, front, name, got, verified.Header().Get(name))
				}
			}
		}
	}
	if forwards < 200 || agrees < 900 {
		t.Errorf("only %d forwards, %d agree", forwards, agrees)
	}
}

// addsTarget reports whether a client says itself, in the words of some proxy, what is
// asked for: that makes what is told here a refusal.
func addsTarget(c doorCase) bool {
	return slices.ContainsFunc(c.lines, func(line string) bool {
		name, _, _ := strings.Cut(strings.ToLower(line), ":")
		return slices.Contains([]string{"x-original-url", "x-original-uri", "x-original-method", "x-forwarded-uri",
			"x-forwarded-host", "x-forwarded-method"}, name)
	})
}

// What oauth2-proxy tells a proxy about somebody has its meaning; what nobody has a value
// for is there and empty, or a client's own would stay.
func TestOAuth2ProxysHeadersHaveItsMeaning(t *testing.T) {
	d := newCompat(t)
	for who, want := range map[string][5]string{
		"ann":  {"ann", "ann@example.com", "dev,a%2Cb", "ann", "ann@example.com"},
		"root": {"root", "", "admins", "", "root"},
		"":     {},
	} {
		c := doorCase{method: "GET", host: "app.example.com", target: "/x", who: who,
			lines: []string{"X-Auth-Request-User: evil", "Gap-Auth: evil", "X-Auth-Request-Email: evil"}}
		if who == "" {
			c.target = "/open"
		}
		w := httptest.NewRecorder()
		d.process.ServeExternalAuth(w, oauth2Fronts["nginx"](c, c.header(d), ""))
		for i, name := range []string{"X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups",
			"X-Auth-Request-Preferred-Username", "Gap-Auth"} {
			if got := w.Header()[name]; len(got) != 1 || got[0] != want[i] ||
				!strings.Contains(w.Header().Get("X-Sallyport-Names"), strings.ToLower(name)) {
				t.Errorf("%q: %s is %q, want %q", who, name, got, want[i])
			}
		}
		for _, alias := range []string{"X_Auth_Request_User: evil", "X.Auth.Request.Email: evil", "GAP_Auth: evil"} {
			c.lines = []string{alias}
			for front, of := range oauth2Fronts {
				w := httptest.NewRecorder()
				if d.process.ServeExternalAuth(w, of(c, c.header(d), "")); w.Code != 403 {
					t.Errorf("%s with %s: %d", front, alias, w.Code)
				}
			}
		}
	}
}

// A route that sets a header of oauth2-proxy's names itself has it as it says.
func TestARoutesOwnHeaderStandsBeforeOAuth2Proxys(t *testing.T) {
	d := newDoorsOf(t, strings.NewReplacer(`{external_auth: "127.0.0.1:4182"}`,
		`{external_auth: {address: "127.0.0.1:4182", peers: [127.0.0.0/8], compat: oauth2-proxy}}`,
		`{X-Team: groups}`,
		`{X-Auth-Request-User: user, X-Auth-Request-Preferred-Username: name}`).Replace(doorsConfig))
	for who, want := range map[string]string{"ann": "main:ann Ann %C3%85", "root": "main:root "} {
		c := doorCase{method: "GET", host: "wiki.example.com", target: "/x", who: who}
		w := httptest.NewRecorder()
		d.process.ServeExternalAuth(w, oauth2Fronts["traefik"](c, c.header(d), ""))
		h := w.Header()
		if got := h.Get("X-Auth-Request-User") + " " + h.Get("X-Auth-Request-Preferred-Username"); got != want {
			t.Errorf("%s: %d %q, want %q", who, w.Code, got, want)
		}
	}
}

// The parameters of a proxy's address narrow, and never let in by themselves.
func TestParametersOfAnAddressNarrow(t *testing.T) {
	d := newCompat(t)
	for _, tt := range []struct {
		who, target, query string
		status             int
	}{
		{"ann", "/x", "?allowed_groups=dev", 200},
		{"ann", "/x", "?allowed_groups=ops,dev", 200},
		{"ann", "/x", "?allowed_groups=ops", 403},
		{"ann", "/x", "?allowed_groups=dev&allowed_groups=ops", 403},
		{"ann", "/x", "?allowed_groups=dev&allowed_emails=ANN@example.com", 200},
		{"ann", "/x", "?allowed_groups=dev&allowed_emails=bob@example.com", 403},
		{"ann", "/x", "?allowed_email_domains=example.org,Example.com", 200},
		{"ann", "/x", "?allowed_email_domains=ample.com", 403},
		{"ann", "/x", "?allowed_groups=", 403},
		{"ann", "/x", "?allowed_groups=dev&page=2", 403},
		{"ann", "/x", "?allowed_users=ann", 403},
		{"ann", "/admin", "?allowed_groups=dev", 403},
		{"root", "/admin", "?allowed_groups=admins", 200},
		{"root", "/x", "?allowed_email_domains=example.com", 403},
		{"lost", "/x", "?allowed_groups=dev", 403},
		{"", "/x", "?allowed_groups=dev", 401},
		{"", "/open", "", 200},
		{"", "/open", "?allowed_groups=dev", 403},
		{"ann", "/open", "?allowed_groups=dev", 403},
		{"ann", "/oauth2/auth", "", 403},
		{"ann", "/oauth2/sign_in", "", 403},
		{"ann", "/oauth2/token", "", 200},
		{"ann", "/.sallyport/session", "", 403},
	} {
		c := doorCase{method: "GET", host: "app.example.com", target: tt.target, who: tt.who}
		for front, of := range oauth2Fronts {
			w := httptest.NewRecorder()
			d.process.ServeExternalAuth(w, of(c, c.header(d), tt.query))
			if w.Code != tt.status {
				t.Errorf("%q asks %s%s by %s: %d, want %d", tt.who, tt.target, tt.query, front, w.Code, tt.status)
			}
		}
	}
}

// Without compat nothing of it is there, and what is below /oauth2/ is an app's.
func TestWithoutCompatThePathsOfOAuth2ProxyAreNotThere(t *testing.T) {
	for _, target := range []string{"/oauth2/auth", "/oauth2/start?rd=/x", "/oauth2/sign_in", "/oauth2/sign_out",
		"/oauth2/userinfo", "/oauth2/callback"} {
		for d, want := range map[*doors]bool{newDoors(t): false, newCompat(t): true} {
			w := httptest.NewRecorder()
			d.process.ServeExternalAuth(w, parse("GET", target, "Host: app.example.com"))
			if (w.Code != 404) != want {
				t.Errorf("%s: %d, compat %v", target, w.Code, want)
			}
		}
	}
	d := newCompat(t)
	for _, target := range []string{"/oauth2", "/oauth2/", "/oauth2/authx", "/oauth2/auth/", "/OAuth2/auth",
		"/oauth2//auth",
		"/oauth2/%61uth", "/oauth2/static/x.css", "/ping", "/"} {
		w := httptest.NewRecorder()
		d.process.ServeExternalAuth(w, parse("GET", target, "Host: app.example.com", "X-Forwarded-Uri: /open"))
		if w.Code != 404 {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
	w := httptest.NewRecorder()
	r := parse("GET", "/oauth2/start", "Host: app.example.com")
	r.RemoteAddr = "192.0.2.1:5"
	if d.process.ServeExternalAuth(w, r); w.Code != http.StatusForbidden || w.Header().Get("Location") != "" {
		t.Errorf("a stranger: %d", w.Code)
	}
}

// The paths for browsers lead to Sallyport's own, on the host that was asked, and set no
// cookie. What a proxy shows with another status still offers the sign-in.
func TestThePathsForBrowsersLeadToOurs(t *testing.T) {
	d := newCompat(t)
	const app, wiki = "https://app.example.com/.sallyport/", "https://wiki.example.com/.sallyport/"
	for _, tt := range []struct {
		method, host, target string
		status               int
		want                 string
	}{
		{"GET", "app.example.com", "/oauth2/start?rd=%2Fx%3Fa", 302, app + "renew?return_to=%2Fx%3Fa"},
		{"HEAD", "app.example.com", "/oauth2/sign_in?rd=/x", 302, app + "renew?return_to=%2Fx"},
		{"POST", "app.example.com", "/oauth2/sign_in", 303, app + "renew"},
		{"GET", "wiki.example.com", "/oauth2/start?rd=/x", 302, wiki + "renew?return_to=%2Fx"},
		{"GET", "app.example.com", "/oauth2/start?rd=https://wiki.example.com/x", 302, wiki + "renew?return_to=%2Fx"},
		{"GET", "app.example.com", "/oauth2/start?rd=https://static.example.com/x", 302, app + "renew"},
		{"GET", "app.example.com", "/oauth2/sign_out?rd=https://wiki.example.com/", 302, app + "logout"},
		{"GET", "wiki.example.com", "/oauth2/userinfo", 302, wiki + "session"},
		{"GET", "app.example.com", "/oauth2/callback?code=x&state=y", 302, app + "login"},
		{"GET", "evil.example", "/oauth2/callback", 302, app + "login"},
	} {
		w := httptest.NewRecorder()
		d.process.ServeExternalAuth(w, parse(tt.method, tt.target, "Host: "+tt.host))
		if w.Code != tt.status || w.Header().Get("Location") != tt.want || w.Header().Get("Set-Cookie") != "" ||
			w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s%s: %d %v", tt.method, tt.host, tt.target, w.Code, w.Header())
		}
		offers := strings.Contains(w.Body.String(), `href="`+tt.want+`"`)
		if page := strings.Contains(tt.want, "renew") && tt.method != "HEAD"; offers != page {
			t.Errorf("%s: the page offers the sign-in: %v", tt.target, offers)
		}
	}
}

// A session that is to be renewed is 401 for a page, which its proxy sends to sign_in:
// that leads to renew and back, and not to a new sign-in.
func TestAPageBehindASetUpMadeForOAuth2ProxyRenewsItsSession(t *testing.T) {
	for front, of := range oauth2Fronts {
		d := newCompat(t)
		c := doorCase{method: "GET", host: "app.example.com", target: "/x?y", who: "idle"}
		ask := func(lines ...string) *httptest.ResponseRecorder {
			c.lines = lines
			w := httptest.NewRecorder()
			d.process.ServeExternalAuth(w, of(c, c.header(d), ""))
			return w
		}
		if w := ask(fetch...); w.Code != 200 {
			t.Errorf("%s: a program is told %d", front, w.Code)
		}
		if front == "nginx" { // the others tell that it is a POST
			if w := ask(append([]string{"Content-Type: application/x-www-form-urlencoded"},
				page...)...); w.Code != 200 {
				t.Errorf("%s: a form is told %d", front, w.Code)
			}
		}
		if w := ask(page...); w.Code != 401 || w.Header().Get("Location") != "" {
			t.Errorf("%s: a page is told %d %v", front, w.Code, w.Header())
		}
		if w := ask(page...); w.Code != 200 {
			t.Errorf("%s: the browser that comes back with the old cookie is told %d", front, w.Code)
		}
	}
}

// What a client says of the method lets it have nothing.
func TestP04_AClaimedMethodFulfilsNoCondition(t *testing.T) {
	d := newCompat(t)
	for _, method := range []string{"GET", "HEAD", ""} {
		c := doorCase{method: "POST", host: "app.example.com", target: "/docs"}
		r := oauth2Fronts["nginx"](c, nil, "")
		if method != "" {
			r.Header.Set("X-Original-Method", method)
			r.Header.Set("X-Forwarded-Method", method)
		}
		w := httptest.NewRecorder()
		if d.process.ServeExternalAuth(w, r); w.Code != http.StatusUnauthorized {
			t.Errorf("%q: %d", method, w.Code)
		}
	}
	if v := authz.Narrow(authz.Verdict{}, authz.Facts{}, &authz.Route{},
		nil, []authz.Rule{{}}); v.Outcome != authz.Deny {
		t.Errorf("%+v", v)
	}
}
