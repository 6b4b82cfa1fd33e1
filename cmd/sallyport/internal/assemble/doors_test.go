package assemble

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/proxy"
	"github.com/sallyport-proxy/sallyport/session"
)

// What the doors are asked about: a site with every kind of route.
const doorsConfig = `version: 1
public_url: https://app.example.com
listen: {external_auth: "127.0.0.1:4182"}
session: {keys: [file:/run/secrets/session-key]}
providers:
  - {id: main, type: oidc, issuer: https://sso.example.com, client_id: sallyport, client_secret: env:SECRET}
routes:
  - {name: app, path: /, upstream: "http://127.0.0.1:1", allow: authenticated, websocket: {origins: ["https://chat.example.com"]}}
  - {name: open, path: /open, upstream: "http://127.0.0.1:1", public: true}
  - {name: health, path: /health, upstream: "http://127.0.0.1:1", public: {methods: [GET], from: [127.0.0.0/8]}}
  - {name: shared, path: /shared, upstream: "http://127.0.0.1:1", allow: authenticated,
     cors: {origins: ["https://shop.example"], methods: [PUT], credentials: true}}
  - {name: docs, path: /docs, upstream: "http://127.0.0.1:1", public: {methods: [GET]}, allow: [{groups: [admins]}]}
  - {name: logo, path_exact: /logo.svg, upstream: "http://127.0.0.1:1", public: true}
  - {name: admin, path: /admin, upstream: "http://127.0.0.1:1", allow: [{groups: [admins]}]}
  - {name: api, path: /api, upstream: "http://127.0.0.1:1", allow: authenticated,
     bearer: {provider: main, audiences: [api]}}
  - {name: old, path: /old, upstream: "http://127.0.0.1:1", allow: authenticated,
     headers: {basic: {account: reader, password: "literal:shared-by-all"}}}
  - {name: dav, path: /dav, upstream: "http://127.0.0.1:2", allow: authenticated}
  - {name: vault, path: /dav/vault, upstream: "http://127.0.0.1:2", allow: [{groups: [admins]}]}
  - {name: git, path: /git, upstream: "http://127.0.0.1:1", allow: authenticated, encoded: forward}
  - {name: twice, path: /twice, upstream: "http://127.0.0.1:1", allow: authenticated, doubled_slashes: forward}
  - {name: wiki, host: wiki.example.com, path: /, upstream: "http://127.0.0.1:3", allow: authenticated,
     headers: {preset: remote, set: {X-Team: groups}}}
  - {name: payroll, path: /payroll, upstream: "http://127.0.0.1:1", allow: authenticated, max_age: 15m, websocket: true,
     cors: {origins: ["https://shop.example"], methods: [PUT], credentials: true}}
  - {name: notes, path: /notes, upstream: "http://127.0.0.1:1", public: {methods: [GET]}, allow: authenticated, max_age: 15m}
  - {name: keys, path: /keys, upstream: "http://127.0.0.1:1", allow: [{groups: [admins]}], acr: [mfa, phr]}
  - {name: safe, path: /dav/safe, upstream: "http://127.0.0.1:2", allow: authenticated, max_age: 15m}
  - {name: ledger, path: /api/ledger, upstream: "http://127.0.0.1:1", allow: authenticated, max_age: 15m,
     bearer: {provider: main, audiences: [api]}}
  - {name: diary, host: wiki.example.com, path: /diary, upstream: "http://127.0.0.1:3", allow: authenticated, max_age: 15m,
     headers: {preset: remote, set: {X-Team: groups}}}
  - {name: static, host: static.example.com, path: /, upstream: "http://127.0.0.1:4", public: true}
  - {name: deep, host: "*.deep.example.com", path: /, upstream: "http://127.0.0.1:4", public: true}
`

// doors are a Sallyport whose front doors can be asked.
type doors struct {
	process *Process
	cookies map[string]string // by person and host
	seen    http.Header       // what the app got of the last request; nil: it got none
	names   []string          // of the headers that proxies set, in lower case
}

func newDoors(tb testing.TB) *doors {
	tb.Helper()
	return newDoorsOf(tb, doorsConfig)
}

func newDoorsOf(tb testing.TB, text string) *doors {
	tb.Helper()
	cfg, faults := config.Parse("c.yaml", []byte(text))
	testenv.Check(tb, faults.Err())
	key := session.NewKey(time.Now().Add(-time.Hour))
	ring, err := session.NewKeyring([]session.Key{key})
	testenv.Check(tb, err)
	d := &doors{cookies: map[string]string{}}
	d.process = NewProcess(prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	tokens := make([]*admission.Tokens, len(cfg.Routes))
	for i, r := range cfg.Routes {
		if r.Bearer.Provider != "" {
			tokens[i] = &admission.Tokens{TokenVerifier: oneToken{}, Issuer: "https://sso.example.com"}
		}
	}
	rt, err := d.process.BuildOf(cfg, Parts{Keys: ring, Tokens: tokens, App: d,
		Providers: []proxy.Provider{{ID: "main", Name: "main", Login: noLogin{}}}})
	testenv.Check(tb, err)
	d.process.Swap(rt)
	for _, host := range []string{"app.example.com", "wiki.example.com", "static.example.com"} {
		for name, who := range people {
			s := rt.Sessions().Start(who)
			if name == "idle" {
				s.SignedIn, s.Seen = s.SignedIn.Add(-40*time.Minute), s.Seen.Add(-40*time.Minute)
			}
			if host != "app.example.com" {
				s.Handed = s.SignedIn
			}
			w := httptest.NewRecorder()
			testenv.Check(tb, rt.Sessions().Write(w, host, s))
			d.cookies[name+" "+host], _, _ = strings.Cut(w.Header().Get("Set-Cookie"), ";")
		}
	}
	_, open := doorCase{method: "GET", host: "app.example.com", target: "/open"}.ask(d, "verify")
	d.names = strings.Split(open.Header().Get("X-Sallyport-Names"), ", ")
	return d
}

var people = map[string]identity.Identity{
	"ann": {Provider: "main", Subject: "ann", Email: "ann@example.com", EmailVerified: true, Name: "Ann Å",
		Username: "ann", Groups: []string{"dev", "a,b"}, Org: identity.Org{ID: "acme", Name: "Acme, Inc."}},
	"idle":   {Provider: "main", Subject: "idle"},
	"root":   {Provider: "main", Subject: "root", Groups: []string{"admins"}},
	"lost":   {Provider: "main", Subject: "lost", GroupsUnknown: true},
	"leaver": {Provider: "gone", Subject: "leaver"},
	"recent": {Provider: "main", Subject: "recent", AuthTime: time.Now(), ACR: "mfa", Groups: []string{"admins"}},
	"old": {Provider: "main", Subject: "old", AuthTime: time.Now().Add(-time.Hour), ACR: "pwd",
		Groups: []string{"admins"}},
	"future": {Provider: "main", Subject: "future", AuthTime: time.Now().Add(time.Hour)},
}

// RoundTrip is the app.
func (d *doors) RoundTrip(r *http.Request) (*http.Response, error) {
	d.seen = r.Header.Clone()
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	return &http.Response{StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: http.NoBody, Request: r}, nil
}

type oneToken struct{}

func (oneToken) Verify(_ context.Context, token string) (identity.Identity, time.Time, error) {
	switch token {
	case "good":
		return identity.Identity{Provider: "main", Subject: "robot", Groups: []string{"bots"}},
			time.Now().Add(time.Hour), nil
	case "recent":
		now := time.Now()
		return identity.Identity{Provider: "main", Subject: "robot", AuthTime: now}, now.Add(time.Hour), nil
	case "many":
		groups := make([]string, 400)
		for i := range groups {
			groups[i] = fmt.Sprintf("%044d", i)
		}
		return identity.Identity{Provider: "main", Subject: "many", Groups: groups}, time.Now().Add(time.Hour), nil
	case "later":
		return identity.Identity{}, time.Time{}, &identity.SignInError{Failure: identity.Unavailable,
			Err: errors.New("away")}
	}
	return identity.Identity{}, time.Time{}, errors.New("no token of mine")
}

type noLogin struct{ proxy.LoginProvider }

// doorCase is a request, and what each door says of it.
type doorCase struct {
	method, host, target string
	who                  string   // whose session cookie is sent; "": nobody's
	lines                []string // further header lines
	want                 string   // forward, login|step-up navigation|form|program, step-up token, bearer, deny
	asked                string   // the same where another proxy asks; "": as at the front door
	// stripped: what is refused to a proxy that asks over HTTP, gRPC has removed.
	stripped bool
}

// wantOf is the verdict that a dialect is to give.
func (c doorCase) wantOf(dialect string) string {
	if c.asked == "" || c.stripped && dialect == "grpc" {
		return c.want
	}
	return c.asked
}

func (c doorCase) String() string {
	return fmt.Sprintf("%s %s%s %s %q", c.method, c.host, c.target, c.who, c.lines)
}

// header are the lines that the client sends, but for its Host.
func (c doorCase) header(d *doors) []string {
	lines := slices.Clone(c.lines)
	if c.who != "" {
		lines = append(lines, "Cookie: a=1; "+d.cookies[c.who+" "+c.host]+"; z=2")
	}
	return lines
}

// parse is a request as net/http reads it; nil if it reads none, and answers 400 itself.
func parse(method, target string, lines ...string) *http.Request {
	raw := method + " " + target + " HTTP/1.1\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		return nil
	}
	r.RemoteAddr = "127.0.0.1:5"
	return r.WithContext(context.Background())
}

// throughProxy is what the front door for browsers makes of a request.
func (c doorCase) throughProxy(d *doors) (verdict string, told http.Header) {
	r := parse(c.method, c.target, append([]string{"Host: " + c.host}, c.header(d)...)...)
	if r == nil {
		return "deny", nil
	}
	d.seen = nil
	w := httptest.NewRecorder()
	d.process.ServeHTTP(w, r)
	switch {
	case d.seen != nil:
		return "forward", d.seen
	case asksToStepUp(w):
		return steppingUp(w), nil
	case w.Code == 302 && strings.Contains(w.Header().Get("Location"), "/.sallyport/"):
		return "login navigation", nil
	case w.Code == 401 && strings.Contains(w.Header().Get("WWW-Authenticate"), `error="invalid_token"`):
		return "bearer", nil
	case w.Code == 401 && strings.Contains(w.Body.String(), `"login_required"`):
		return "login program", nil
	case w.Code == 401 && strings.Contains(w.Body.String(), "form"):
		return "login form", nil
	case w.Code >= 400:
		return "deny", nil
	}
	return fmt.Sprint(w.Code, " ", w.Header()), nil
}

// A front is a proxy that asks: it overwrites the headers of its dialect, drops those of
// the connection, and passes the rest on (facts of nginx, Traefik, Caddy and Envoy).
var fronts = map[string]func(c doorCase, client []string) *http.Request{
	"verify": func(c doorCase, client []string) *http.Request {
		return parse("GET", "/verify", append(without(client, "X-Original-Url", "X-Original-Method", "X-Forwarded-For"),
			"Host: sallyport", "X-Original-URL: https://"+c.host+c.target, "X-Original-Method: "+c.method,
			"X-Forwarded-For: 127.0.0.1")...)
	},
	"forward": func(c doorCase, client []string) *http.Request {
		return parse("HEAD", "/forward?allowed_groups=evil", append(without(client, "X-Forwarded-Uri",
			"X-Forwarded-Method", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-For"),
			"Host: sallyport", "X-Forwarded-Uri: "+c.target, "X-Forwarded-Method: "+c.method,
			"X-Forwarded-Host: "+c.host, "X-Forwarded-Proto: https", "X-Forwarded-For: 127.0.0.1")...)
	},
	"envoy": func(c doorCase, client []string) *http.Request {
		return parse(c.method, "/envoy"+c.target, append(without(client, "X-Forwarded-Proto", "X-Envoy-External-Address"),
			"Host: "+c.host, "X-Forwarded-Proto: https", "X-Envoy-External-Address: 127.0.0.1")...)
	},
}

// without leaves out the lines with these names, and those of the connection.
func without(lines []string, names ...string) []string {
	names = append(names, "Connection", "Content-Length", "Transfer-Encoding")
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		name, _, _ := strings.Cut(line, ":")
		return slices.Contains(names, http.CanonicalHeaderKey(name))
	})
}

// dialects are all in which other proxies ask.
func dialects() []string { return append(slices.Sorted(maps.Keys(fronts)), "grpc") }

// ask is what another proxy is told by a dialect.
func (c doorCase) ask(d *doors, dialect string) (verdict string, w *httptest.ResponseRecorder) {
	if dialect == "grpc" {
		return c.askGRPC(d, true)
	}
	w = httptest.NewRecorder()
	r := fronts[dialect](c, c.header(d))
	if r == nil {
		return "deny", w
	}
	d.process.ServeExternalAuth(w, r)
	return asked(w), w
}

func asked(w *httptest.ResponseRecorder) string {
	asker := w.Header().Get("X-Sallyport-Asker")
	switch {
	case w.Code == 200:
		return "forward"
	case asksToStepUp(w):
		return steppingUp(w)
	case w.Code == 401 && strings.Contains(w.Header().Get("WWW-Authenticate"), `error="invalid_token"`):
		return "bearer"
	case w.Code == 401 && asker != "", w.Code == 302 && asker == "navigation":
		return "login " + asker
	case w.Code == 403:
		return "deny"
	}
	return fmt.Sprint(w.Code, " ", w.Header())
}

// P3: whoever carries the request, there is one verdict, and the app is told the same.
func TestP03_AllFrontDoorsAgree(t *testing.T) {
	d := newDoors(t)
	cases := doorCases()
	if len(cases) < 300 {
		t.Errorf("only %d cases", len(cases))
	}
	for _, c := range cases {
		verdict, told := c.throughProxy(d)
		if verdict != c.want {
			t.Errorf("%s: the front door says %s, want %s", c, verdict, c.want)
		}
		for _, dialect := range dialects() {
			got, w := c.ask(d, dialect)
			if want := c.wantOf(dialect); got != want {
				t.Errorf("%s: %s says %s, want %s", c, dialect, got, want)
				continue
			}
			if got == "forward" && told != nil {
				sameHeaders(t, c, dialect, told, w.Header())
			}
			for _, name := range w.Header()["App-Has"] {
				if c.stripped && told[http.CanonicalHeaderKey(name)] == nil &&
					!slices.Contains(others, http.CanonicalHeaderKey(name)) {
					t.Errorf("%s: the app is told %s, which the front door removes", c, name)
				}
			}
			if w.Header().Get("Set-Cookie") != "" || w.Code != http.StatusOK && w.Code < 300 {
				t.Errorf("%s: %s: %d %v", c, dialect, w.Code, w.Header())
			}
		}
	}
}

// The annotation of ingress-nginx's guide is where a page is led whose session is to be renewed,
// too: ingress-nginx passes no Location on. Its session must not end while it is in use.
func TestTheGuideOfIngressNginxRenewsSessions(t *testing.T) {
	guide, err := os.ReadFile("../../../../docs/fronts/ingress-nginx.md")
	testenv.Check(t, err)
	m := regexp.MustCompile(`/auth-signin: https://([^/]+)(\S+)\$escaped_request_uri\n`).FindSubmatch(guide)
	if m == nil {
		t.Fatal("there is no auth-signin")
	}
	d, host := newDoors(t), string(m[1])
	ask := func(lines ...string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		d.process.ServeHTTP(w, parse("GET", string(m[2])+"%2Fx%3Fy%3D1",
			append(slices.Concat(lines, page), "Host: "+host)...))
		return w
	}
	c := doorCase{method: "GET", host: host, target: "/x?y=1", who: "idle", lines: page}
	if got, w := c.ask(d, "verify"); got != "login navigation" ||
		!strings.Contains(w.Header().Get("Location"), "/renew?") {
		t.Fatalf("%s %v", got, w.Header())
	}
	w := ask("Cookie: " + d.cookies["idle "+host])
	if to := w.Header().Get("Location"); to != "https://"+host+"/x?y=1" || w.Header().Get("Set-Cookie") == "" {
		t.Errorf("to %q with the cookie %q", to, w.Header().Get("Set-Cookie"))
	}
	if to := ask().Header().Get("Location"); to != "https://"+host+"/.sallyport/login?return_to=%2Fx%3Fy%3D1" {
		t.Errorf("nobody is led to %q", to)
	}
}

// timeless is what an assertion says, but for the times: it is signed anew each minute, which
// may have passed between two questions.
func timeless(t *testing.T, jwt string) string {
	t.Helper()
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return jwt
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	testenv.Check(t, err)
	claims := map[string]any{}
	testenv.Check(t, json.Unmarshal(payload, &claims))
	delete(claims, "iat")
	delete(claims, "exp")
	text, err := json.Marshal(claims)
	testenv.Check(t, err)
	return parts[0] + "." + string(text)
}

// sameHeaders checks that the app is told by the answer what it is told by the front door.
func sameHeaders(t *testing.T, c doorCase, dialect string, told, answer http.Header) {
	t.Helper()
	names := strings.Split(answer.Get("X-Sallyport-Names"), ", ")
	if len(names) < 8 {
		t.Errorf("%s: %s names %q", c, dialect, names)
	}
	var gone []string
	for _, name := range names {
		name = http.CanonicalHeaderKey(name)
		lines := answer[name]
		if len(lines) != 1 {
			t.Errorf("%s: %s has %d lines of %s", c, dialect, len(lines), name)
			continue
		}
		if lines[0] == "" {
			gone = append(gone, strings.ToLower(name))
		}
		got, want := lines[0], strings.Join(told[name], "; ")
		if name == identity.AssertionHeader {
			got, want = timeless(t, got), timeless(t, want)
		}
		if got != want {
			t.Errorf("%s: %s says %s: %q, and the front door %q", c, dialect, name, got, want)
		}
	}
	if c.stripped {
		name, _, _ := strings.Cut(c.lines[0], ":")
		gone = append(gone, strings.ToLower(name))
	}
	if removed := answer.Get("X-Envoy-Auth-Headers-To-Remove"); dialect == "envoy" &&
		removed != strings.Join(gone, ",") {
		t.Errorf("%s: envoy is to remove %q, want %q", c, removed, gone)
	}
	for name := range told { // and there is nothing that the app would be told besides
		known := slices.Contains(names, strings.ToLower(name)) || slices.Contains(others, name)
		if !known && !slices.ContainsFunc(c.lines, func(l string) bool {
			return strings.HasPrefix(strings.ToLower(l), strings.ToLower(name)+":")
		}) {
			t.Errorf("%s: the app is told %s, which the proxy does not know of", c, name)
		}
	}
}

// others are headers that a proxy writes itself.
var others = []string{"Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Request-Id", "Cdn-Loop",
	"User-Agent"}

var (
	page  = []string{"Accept: text/html,*/*", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}
	fetch = []string{"Accept: */*", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"}
)

// doorCases are the requests. What each means stands with it.
func doorCases() []doorCase {
	const app = "app.example.com"
	return slices.Concat(pathCases(app), kindCases(app), methodCases(app), hostCases(), cookieCases(app),
		bearerCases(app), headerCases(app), webSocketCases(app), destinationCases(app), conditionCases(app),
		stepUpCases(app))
}

// pathCases are one path each, for nobody, ann and root.
func pathCases(host string) (all []doorCase) {
	const no, open, closed, mine = "deny deny deny", "forward forward forward", "login forward forward",
		"login deny forward"
	for target, want := range map[string]string{
		"/": closed, "/x": closed, "/x?y=1&z=%20": closed, "/?": closed, "/x,y": closed, "/a;b": closed, "/x%20y": closed,
		"/%61dmin": "login deny forward", "/administrator": closed, "/admin": mine, "/admin/": mine, "/admin/x": mine,
		"/admin?x=/open/": mine, "/x?/open": closed, "/open": open, "/open/": open, "/open/x": open, "/open?x": open,
		"/logo.svg": open, "/logo.svg/x": closed, "/logo%2Esvg": open, "/LOGO.SVG": no, "/Open": no, "/ADMIN": no,
		"/admin;x=1": no, "/open/../admin": no, "/open/%2e%2e/admin": no, "/open/.%2E/admin": no,
		"/open/..%2fadmin": no, "/open/..%5cadmin": no, "/open/..;/admin": no, "/open//admin": no, "//admin": no,
		"//app.example.com/admin": no, "/./admin": no, "/admin/.": no, "/admin%00": no, "/admin%20": no,
		"/admin%0a": no, "/%2561dmin": no, "/admin%23/open": no, "/admin%3f": no, "/open/%c0%ae%c0%ae/admin": no,
		"/open%2f..%2fadmin": no, "/x%2fy": no, "/x%zz": no, "/x%": no, "/x\\y": no, "/x%5Cy": no, "/open\\..\\admin": no,
		"/git/a%2fb": closed, "/git/a%2F..%2Fb": no, "/git/%2e%2e/admin": no, "/git/%e9": closed, "/x/%e9": no,
		"/twice//x": closed, "/twice///x": closed, "/x//y": no, "//twice": no, "/twice/..//x": no, "/api": closed,
		"/api/x": closed, "/dav/": closed, "/dav/vault": mine, "/dav/vault/x": mine, "/dav/Vault": no,
		"/dav/vault%2fx": no, "/.well-known/acme": closed, "/.sallyportx": closed, "/x/.sallyport/login": closed,
		"/" + strings.Repeat("a", 8200): no, "/?" + strings.Repeat("a", 8200): no,
		"/" + strings.Repeat("a", 8000): closed, "/é": closed, "/%C3%A9": closed, "/x?é": closed, "/x?a=b#c": no,
		"/x#/open": no, "/open/x?a,b": open, "/x?http://other.example/": closed,
		"http://other.example/open": no, "x": no, "*": no, "": no,
		"https:///admin": no, "/open/;/../admin": no, "/open/%3b/../admin": no,
		"/open;/../admin": no, "/open/x/..": no, "/%2e/admin": no, "/%2e%2e/admin": no, "/%2F/admin": no, "/%2fadmin": no,
		"/%5cadmin": no, "/admin%5c": no, "/admin/%2e": no, "/admin%09": no, "/admin%0d": no, "/admin%7f": no, "/%20/admin": no,
		"/open/%00/../admin": no, "/open%00/admin": no, "/admin%2500": no, "/%25%61dmin": no, "/admin%c0%af": no,
		"/open/%uff0e%uff0e/admin": no, "/\\admin": no, "/open?/../admin": open, "/admin?/../open": mine,
		"/admin%2F..%2Fopen": no, "/admin;/../open": no, "/admin/..;/open": no, "/admin\x00": no, "/admin\x01": no,
		"/admin x": no, "/admin\tx": no, "/ /admin": no, "/git/%2f%2fadmin": closed, "/git/..%2f..%2fadmin": no,
		"/git/%252e%252e/admin": no, "/twice//../admin": no, "/twice/%2f/admin": no, "/?%00": closed, "/x?%0d%0aa:b": closed,
	} {
		wants := strings.Fields(want)
		for i, who := range []string{"", "ann", "root"} {
			c := doorCase{method: "GET", host: host, target: target, who: who, lines: fetch, want: wants[i]}
			if c.want == "login" {
				c.want = "login program"
			}
			all = append(all, c)
		}
	}
	// An absolute target is one of a request line (RFC 9112 §3.2.2), and no proxy asks with it.
	const absolute = "https://app.example.com/admin"
	return append(all, doorCase{method: "GET", host: host, target: absolute, lines: fetch, want: "login program",
		asked: "deny"}, doorCase{method: "GET", host: host, target: absolute, who: "ann", want: "deny"},
		doorCase{method: "GET", host: host, target: absolute, who: "root", want: "forward", asked: "deny"})
}

// kindCases are who waits for the answer, without a session.
func kindCases(host string) (all []doorCase) {
	for _, c := range []struct {
		method string
		lines  []string
		want   string
	}{
		{"GET", page, "login navigation"},
		{"HEAD", page, "login navigation"},
		{"POST", page, "login form"},
		{"PUT", page, "login program"},
		{"GET", fetch, "login program"},
		{"GET", nil, "login program"},
		{"GET", []string{"Accept: text/html"}, "login navigation"},
		{"POST", []string{"Accept: text/html"}, "login form"},
		{"GET", []string{"Accept: text/html", "X-Requested-With: XMLHttpRequest"}, "login program"},
		{"GET", []string{"Accept: text/html", "X-Requested-With: com.example.app"}, "login navigation"},
		{"GET", append([]string{"Sec-Purpose: prefetch"}, page...), "login program"},
		{"GET", append([]string{"Purpose: prefetch"}, page...), "login program"},
		{"GET", append([]string{"X-Moz: prefetch"}, page...), "login program"},
		{"GET", append([]string{"X-Purpose: preview"}, page...), "login program"},
		{"GET", []string{"Accept: image/*", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}, "login program"},
		{"GET", []string{"Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: empty"}, "login navigation"},
		{"GET", []string{"Accept: */*", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: empty"}, "login program"},
		{"OPTIONS", fetch, "login program"},
	} {
		if c.want == "login program" && c.lines != nil && strings.HasSuffix(strings.Join(c.lines, " "), "Dest: empty") &&
			c.lines[1] == "Sec-Fetch-Mode: navigate" {
			continue // a download: it has no body by which to tell it at the front door
		}
		all = append(all, doorCase{method: c.method, host: host, target: "/x?y=1", lines: c.lines, want: c.want})
	}
	return all
}

func methodCases(host string) (all []doorCase) {
	for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT", "FOO",
		"get", "Head", "M-SEARCH", strings.Repeat("X", 300)} {
		all = append(all, doorCase{method: m, host: host, target: "/x", who: "ann", want: "forward"},
			doorCase{method: m, host: host, target: "/open", want: "forward"},
			doorCase{method: m, host: host, target: "/admin", who: "ann", want: "deny"},
			doorCase{method: m, host: host, target: "/admin", who: "lost", want: "deny"})
	}
	for _, m := range []string{"TRACE", "CONNECT"} {
		all = append(all, doorCase{method: m, host: host, target: "/open", want: "deny"})
	}
	return all
}

func hostCases() (all []doorCase) {
	for host, want := range map[string]string{
		"app.example.com": "login program", "APP.example.COM": "login program", "app.example.com.": "login program",
		"app.example.com:443": "login program", "app.example.com:8443": "login program",
		"wiki.example.com": "login program", "Wiki.Example.com": "login program", "static.example.com": "forward",
		"static.example.com:80": "forward", "a.deep.example.com": "forward", "a.b.deep.example.com": "forward",
		"deep.example.com": "deny", "evildeep.example.com": "deny", "other.example.com": "deny",
		"app.example.com.evil": "deny", "app.example.com@evil": "deny", "evil@app.example.com": "deny",
		"app.example.com:x": "deny", "app..example.com": "deny", "[::1": "deny", "[::1]": "deny", "127.0.0.1": "deny",
		"app.example.com\\x": "deny", "app_example.com": "deny",
		"xn--app-.example.com": "deny", "a.deep.example.com:123456": "deny",
	} {
		all = append(all, doorCase{method: "GET", host: host, target: "/x", lines: fetch, want: want})
	}
	return append(all,
		doorCase{method: "GET", host: "wiki.example.com", target: "/x", who: "ann", want: "forward"},
		doorCase{method: "GET", host: "wiki.example.com", target: "/x", who: "ann", lines: page, want: "forward"},
		doorCase{method: "GET", host: "wiki.example.com", target: "/x", lines: page, want: "login navigation"},
		doorCase{method: "GET", host: "static.example.com", target: "/x", who: "ann", want: "forward"})
}

func cookieCases(host string) (all []doorCase) {
	for _, lines := range [][]string{
		{"Cookie: __Host-sallyport=x"}, {"Cookie: __Host-sallyport="}, {"Cookie: __Host-sallyport"}, {"Cookie: a=1"},
		{"Cookie: ="}, {"Cookie: ;;;"}, {"Cookie: a=1", "Cookie: b=2"}, {"Cookie: sallyport=x"},
		{"Cookie: __host-sallyport=x"}, {"Cookie: =__Host-sallyport=x"}, {"Cookie: " + strings.Repeat("a", 8000)},
		{"Authorization: Bearer good"}, {"Authorization: Basic YTpi"}, {"X-Forwarded-User: main:root"},
		{"X-Sallyport-Assertion: x"}, {"Remote-User: root"}, {"User-Agent: kube-probe/1.30"},
		{"User-Agent: GoogleHC/1.0"},
	} {
		all = append(all, doorCase{method: "GET", host: host, target: "/x", lines: lines, want: "login program"},
			doorCase{method: "GET", host: host, target: "/open", lines: lines, want: "forward"})
	}
	return append(all,
		doorCase{method: "GET", host: host, target: "/x", who: "leaver", want: "login program"},
		doorCase{method: "GET", host: host, target: "/x", who: "ann", lines: []string{"Cookie: b=2"}, want: "forward"},
		doorCase{method: "GET", host: host, target: "/x", who: "ann",
			lines: []string{"Cookie: __Host-sallyport=x"}, want: "login program"}) // two sessions are none
}

func bearerCases(host string) (all []doorCase) {
	for line, want := range map[string]string{
		"Bearer good": "forward", "bearer good": "forward", "BEARER  good": "forward", "Bearer bad": "bearer",
		"Bearer": "bearer", "Basic YTpi": "bearer", "Bearer\tgood": "bearer", "good": "bearer", "Bearer later": "deny",
	} {
		all = append(all,
			doorCase{method: "GET", host: host, target: "/api/x", lines: []string{"Authorization: " + line}, want: want},
			doorCase{method: "POST", host: host, target: "/api/x", who: "ann",
				lines: []string{"Authorization: " + line}, want: want},
			doorCase{method: "GET", host: host, target: "/x", who: "ann", lines: []string{"Authorization: " + line},
				want: "forward"})
	}
	for _, lines := range [][]string{nil, {"Authorization: Basic YTpi"}} {
		all = append(all,
			doorCase{method: "GET", host: host, target: "/old", who: "ann", lines: lines, want: "forward"},
			doorCase{method: "GET", host: host, target: "/old", lines: lines, want: "login program"})
	}
	return append(all, doorCase{method: "GET", host: host, target: "/api", who: "ann", want: "forward"},
		doorCase{method: "GET", host: host, target: "/api", lines: page, want: "login navigation"},
		doorCase{method: "GET", host: host, target: "/api", want: "login program"},
		doorCase{method: "GET", host: host, target: "/api", want: "bearer", asked: "deny",
			lines: []string{"Authorization: Bearer good", "Authorization: Bearer good"}},
		doorCase{method: "GET", host: host, target: "/x", who: "ann", want: "forward", asked: "deny",
			lines: []string{"Authorization: a", "Authorization: b"}})
}

// headerCases are headers that a client must not write. The front door removes them; the
// exact names are overwritten by the proxy that asks, and who cannot be is refused.
func headerCases(host string) (all []doorCase) {
	for _, name := range []string{"X-Forwarded-User", "x-forwarded-user", "X-Forwarded-Groups", "X-Forwarded-Email",
		"X-Forwarded-Org-Id", "X-Sallyport-Assertion", "X-Team", "Remote-User", "Remote-Groups"} {
		all = append(all, doorCase{method: "GET", host: host, target: "/x", who: "ann", want: "forward",
			lines: []string{name + ": admins"}},
			doorCase{method: "GET", host: host, target: "/open", want: "forward", lines: []string{name + ": admins"}})
	}
	for _, name := range []string{"X_Forwarded_User", "X-Forwarded_User", "x_forwarded-groups", "X.Forwarded.Email",
		"X-Forwarded.Org_Id", "X_Sallyport_Assertion", "X_Team", "X.Team", "Remote_User", "Remote.Groups",
		"X_Forwarded_Proto", "X_Forwarded_Host", "X-Original_Url", "X_Original_Method", "X.Forwarded.Uri",
		"X+Forwarded!User"} {
		all = append(all, doorCase{method: "GET", host: host, target: "/x", who: "ann", want: "forward", asked: "deny",
			stripped: true, lines: []string{name + ": admins"}},
			doorCase{method: "GET", host: host, target: "/open", want: "forward", asked: "deny", stripped: true,
				lines: []string{name + ": admins"}})
	}
	// By these some apps let a proxy tell them address, host or path, in the place of what was
	// judged, or who somebody is. Envoy is told to remove them.
	for _, name := range []string{"X-Original-URL", "X-Original-Method", "X-Rewrite-URL", "X-Forwarded-Uri",
		"X-Forwarded-Prefix", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Path", "Forwarded",
		"X-Middleware-Subrequest", "Proxy", "Script-Name", "X-Auth-Request-User"} {
		all = append(all, doorCase{method: "GET", host: host, target: "/x", who: "ann", want: "forward", stripped: true,
			lines: []string{name + ": evil"}},
			doorCase{method: "GET", host: host, target: "/open", want: "forward", stripped: true,
				lines: []string{name + ": evil"}})
	}
	for _, line := range []string{"X-Original-URL: https://app.example.com/open", "X-Original-Uri: /open",
		"X-Rewrite-Url: /open", "X-Forwarded-Uri: /open", "X-Forwarded-Host: static.example.com",
		"X-Forwarded-Path: /open", "X-Forwarded-Method: OPTIONS", "X-Original-Method: OPTIONS",
		"X-Forwarded-Proto: http", "Forwarded: host=static.example.com", "X-HTTP-Method-Override: OPTIONS",
		"X-Envoy-Original-Path: /open", "X-Auth-Request-Redirect: /open", "X-Forwarded-Prefix: /open",
		"X-Middleware-Subrequest: 1", "Proxy: http://evil"} {
		all = append(all, doorCase{method: "GET", host: host, target: "/admin", who: "ann", want: "deny",
			lines: []string{line}},
			doorCase{method: "GET", host: host, target: "/admin", want: "login program", lines: []string{line}})
	}
	return all
}

func webSocketCases(host string) []doorCase {
	shake := func(origin ...string) []string {
		lines := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
		for _, o := range origin {
			lines = append(lines, "Origin: "+o)
		}
		return lines
	}
	own, chat := "https://app.example.com", "https://chat.example.com"
	other := []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"}
	return []doorCase{
		{method: "GET", host: host, target: "/x", who: "ann", lines: other, want: "forward", asked: "deny"},
		{method: "GET", host: host, target: "/open", lines: other, want: "forward", asked: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake(own), want: "forward"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake(chat), want: "forward"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake("https://evil.example"), want: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake("http://app.example.com"), want: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake("null"), want: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake(own, own), want: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake(own + "/"), want: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake(own + "."), want: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake(own + ".evil.example"), want: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake(own + ":8443"), want: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake(own + "@evil.example"), want: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake(own + ", https://evil.example"), want: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake("wss://app.example.com"), want: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake("https://wiki.example.com"), want: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake(""), want: "forward", asked: "deny"},
		{method: "GET", host: "wiki.example.com", target: "/x", who: "ann", lines: shake(own), want: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake(own, "https://evil.example"), want: "deny"},
		{method: "GET", host: host, target: "/x", lines: shake(own), want: "login program"},
		{method: "GET", host: host, target: "/admin", who: "root", lines: shake(own), want: "deny"},
		{method: "GET", host: host, target: "/open", lines: shake(own), want: "deny"},
		// Without an Origin it may be a browser's whose proxy lost the header.
		{method: "GET", host: host, target: "/x", who: "ann", lines: shake(), want: "forward", asked: "deny"},
		// What remains of a handshake on its way through some proxies is one here.
		{method: "GET", host: host, target: "/x", who: "ann", lines: []string{"Origin: https://evil.example",
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, want: "forward", asked: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: []string{"Origin: https://evil.example",
			"Sec-WebSocket-Version: 13"}, want: "forward", asked: "deny"},
		{method: "GET", host: host, target: "/x", who: "ann", lines: []string{"Origin: " + own,
			"Sec-WebSocket-Version: 13"}, want: "forward"},
	}
}

func destinationCases(host string) []doorCase {
	to := func(v string) []string { return []string{"Destination: " + v} }
	return []doorCase{
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("/dav/b"), want: "forward"},
		{method: "MOVE", host: host, target: "/dav/a", who: "ann", lines: to("https://app.example.com/dav/b"),
			want: "forward"},
		{method: "MOVE", host: host, target: "/dav/a", who: "ann", lines: to("/dav/vault/b"), want: "deny"},
		{method: "MOVE", host: host, target: "/dav/a", who: "ann", lines: to("/dav/vault"), want: "deny"},
		{method: "MOVE", host: host, target: "/dav/a", who: "root", lines: to("/dav/vault/b"), want: "forward"},
		{method: "MOVE", host: host, target: "/dav", who: "ann", lines: to("/dav/b"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("/other"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("https://evil.example/dav/b"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("//evil.example/dav/b"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("/dav/../admin"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("/.sallyport/logout"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("/dav/%76ault/b"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("/dav/b/../vault/c"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("/dav/b/%2e%2e/vault/c"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("/dav/b/..%2fvault/c"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("/dav//vault/c"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("/dav/..;/vault/c"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("/dav/Vault/c"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to(`/dav\vault\c`), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("/dav/b#/../vault"), want: "deny"},
		// The front door passes on "/dav/b%20c", and another proxy what the client wrote.
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("/dav/b c"), want: "forward", asked: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("dav/b"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to(""), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("https://app.example.com@evil.example/dav/b"),
			want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("https://ann@app.example.com/dav/b"),
			want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("https://wiki.example.com/dav/b"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: to("file:///dav/b"), want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: append(to("/dav/b"), to("/dav/c")...),
			want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", who: "ann", lines: append(to("/dav/b"), to("/dav/vault/c")...),
			want: "deny"},
		{method: "COPY", host: host, target: "/dav/a", lines: to("/dav/b"), want: "login program"},
		// An app knows what to say of that; a proxy may have lost the header.
		{method: "COPY", host: host, target: "/dav/a", who: "ann", want: "forward", asked: "deny"},
	}
}

// conditionCases are about routes that are open for some requests only. A header that
// names another method is removed at the front door, and refused where it cannot be.
func conditionCases(host string) []doorCase {
	override := []string{"X-HTTP-Method-Override: DELETE"}
	return []doorCase{
		{method: "GET", host: host, target: "/health", want: "forward"},
		{method: "HEAD", host: host, target: "/health", want: "forward"},
		{method: "get", host: host, target: "/health", want: "deny"},
		{method: "POST", host: host, target: "/health", want: "deny"},
		{method: "GET", host: host, target: "/docs", want: "forward"},
		{method: "GET", host: host, target: "/docs", who: "ann", want: "forward"},
		{method: "POST", host: host, target: "/docs", want: "login program"},
		{method: "POST", host: host, target: "/docs", who: "ann", want: "deny"},
		{method: "POST", host: host, target: "/docs", who: "root", want: "forward"},
		{method: "GET", host: host, target: "/docs", lines: override, want: "forward", asked: "deny", stripped: true},
		{method: "GET", host: host, target: "/docs", lines: []string{"X_Http.Method: DELETE"}, want: "forward",
			asked: "deny", stripped: true},
		{method: "GET", host: host, target: "/x", who: "ann", lines: override, want: "forward"},
		// What is public for reading asks nobody, and of those who write what the route asks.
		{method: "GET", host: host, target: "/notes", lines: page, want: "forward"},
		{method: "GET", host: host, target: "/notes", who: "old", lines: page, want: "forward"},
		{method: "POST", host: host, target: "/notes", lines: page, want: "login form"},
		{method: "POST", host: host, target: "/notes", who: "old", lines: page, want: "step-up form"},
		{method: "POST", host: host, target: "/notes", who: "recent", lines: page, want: "forward"},
	}
}

// A rule about addresses counts the one address that a dialect has, and no other.
func TestP04_ConditionsCountTheAddressOfTheDialect(t *testing.T) {
	d := newDoors(t)
	c := doorCase{method: "GET", host: "app.example.com", target: "/health"}
	for dialect, name := range map[string]string{"verify": "X-Forwarded-For", "forward": "X-Forwarded-For",
		"envoy": "X-Envoy-External-Address"} {
		for value, want := range map[string]string{"127.0.0.1": "forward", "::ffff:127.0.0.9": "forward",
			"192.0.2.9": "deny", "127.0.0.1, 192.0.2.9": "deny", "": "deny", "localhost": "deny"} {
			r := fronts[dialect](c, nil)
			r.Header.Set(name, value)
			w := httptest.NewRecorder()
			d.process.ServeExternalAuth(w, r)
			if got := asked(w); got != want {
				t.Errorf("%s from %q: %s, want %s", dialect, value, got, want)
			}
		}
	}
}

// Sallyport's own addresses are never an app's, whoever asks.
func TestOwnAddressesAreRefusedToProxiesThatAsk(t *testing.T) {
	d := newDoors(t)
	for _, host := range []string{"app.example.com", "wiki.example.com", "static.example.com"} {
		for _, target := range []string{"/.sallyport", "/.sallyport/login", "/.sallyport/session", "/.sallyport/x",
			"/%2esallyport/jwks.json", "/.sallyport/jwks.json"} {
			c := doorCase{method: "GET", host: host, target: target, who: "ann"}
			for _, dialect := range dialects() {
				if got, _ := c.ask(d, dialect); got != "deny" {
					t.Errorf("%s: %s says %s", c, dialect, got)
				}
			}
		}
	}
	c := doorCase{method: "GET", host: "app.example.com", target: "/.well-known/oauth-protected-resource/api"}
	if got, _ := c.ask(d, "verify"); got != "deny" {
		t.Errorf("%s: %s", c, got)
	}
}

// What a 401 of each dialect says, so that the proxy can send people to sign in, and
// programs not.
func TestEachDialectIsToldWhereToSignIn(t *testing.T) {
	d := newDoors(t)
	const login = "https://app.example.com/.sallyport/login"
	for _, tt := range []struct {
		dialect, method, host, target string
		lines                         []string
		status                        int
		location, challenge, body     string
	}{
		{"verify", "GET", "app.example.com", "/x?a=1&b", page, 401, login + "?return_to=%2Fx%3Fa%3D1%26b", "", ""},
		{"forward", "GET", "app.example.com", "/x?a=1&b", page, 302, login + "?return_to=%2Fx%3Fa%3D1%26b", "", ""},
		{"envoy", "GET", "app.example.com", "/x", page, 302, login + "?return_to=%2Fx", "", ""},
		{"grpc", "GET", "app.example.com", "/x?a=1&b", page, 302, login + "?return_to=%2Fx%3Fa%3D1%26b", "", ""},
		{"grpc", "POST", "app.example.com", "/x", page, 401, "", login, "form"},
		{"grpc", "GET", "app.example.com", "/x", fetch, 401, "", login, `"login_url":"` + login + `"`},
		{"envoy", "GET", "app.example.com", "/" + strings.Repeat("x", 2000), page, 302, login, "", ""},
		{"forward", "GET", "app.example.com:8443", "/x", page, 302, login + "?return_to=%2Fx", "", ""},
		{"forward", "GET", "wiki.example.com", "/x", page, 302,
			"https://wiki.example.com/.sallyport/login?return_to=%2Fx", "", ""},
		{"verify", "POST", "app.example.com", "/x", append([]string{"Referer: https://app.example.com/form?1"}, page...),
			401, login + "?return_to=%2Fform%3F1", login + "?return_to=%2Fform%3F1", "form"},
		{"envoy", "POST", "app.example.com", "/x", page, 401, "", login, "form"},
		{"envoy", "POST", "app.example.com", "/x", append([]string{"Sec-Fetch-Site: cross-site"}, page...), 401, "",
			login, "A form of another site was not accepted"},
		{"verify", "GET", "app.example.com", "/x", fetch, 401, login, login, `"login_url":"` + login + `"`},
		{"envoy", "GET", "app.example.com", "/x", append([]string{"Referer: https://evil.example/"}, fetch...), 401, "",
			login, `"login_url":"` + login + `"`},
		{"envoy", "GET", "app.example.com", "/x", []string{"Accept: text/html", "Sec-Fetch-Mode: navigate",
			"Sec-Fetch-Dest: iframe"}, 401, "", login, "window"},
	} {
		c := doorCase{method: tt.method, host: tt.host, target: tt.target, lines: tt.lines}
		_, w := c.ask(d, tt.dialect)
		h := w.Header()
		challenge := ""
		if tt.challenge != "" {
			challenge = `Cookie realm="sallyport", form-action="` + tt.challenge + `"`
		}
		if w.Code != tt.status || h.Get("Location") != tt.location || h.Get("WWW-Authenticate") != challenge ||
			!strings.Contains(w.Body.String(), tt.body) || h.Get("Cache-Control") != "no-store" ||
			h.Get("X-Request-Id") == "" {
			t.Errorf("%s %s: %d %v\n%s", tt.dialect, c, w.Code, h, w.Body)
		}
	}
}

// Who may ask is what the configuration says now.
func TestTheListOfPeersFollowsAReload(t *testing.T) {
	d := newDoors(t)
	c := doorCase{method: "GET", host: "app.example.com", target: "/open"}
	if got, _ := c.ask(d, "verify"); got != "forward" {
		t.Fatal(got)
	}
	text := strings.NewReplacer(`"127.0.0.1:4182"`, `{address: "127.0.0.1:4182", peers: [192.0.2.1]}`).Replace(doorsConfig)
	cfg, faults := config.Parse("c.yaml", []byte(text))
	testenv.Check(t, faults.Err())
	ring, err := session.NewKeyring([]session.Key{session.NewKey(time.Now().Add(-time.Hour))})
	testenv.Check(t, err)
	rt, err := d.process.BuildOf(cfg, Parts{Keys: ring, Tokens: make([]*admission.Tokens, len(cfg.Routes)), App: d,
		Providers: []proxy.Provider{{ID: "main", Name: "main", Login: noLogin{}}}})
	testenv.Check(t, err)
	d.process.Swap(rt)
	got, w := c.ask(d, "verify")
	if got != "deny" || w.Body.Len() > 0 || w.Header().Get("X-Sallyport-Names") != "" {
		t.Errorf("%s %v", got, slices.Collect(maps.Keys(w.Header())))
	}
}

// A route without an app is for proxies that ask: at the front door nothing is there, also
// for who may have it, and a stream that an earlier configuration let in ends.
func TestP01_ARouteWithoutAnAppHasNothingAtTheFrontDoor(t *testing.T) {
	d := newDoors(t)
	cfg, faults := config.Parse("c.yaml", []byte(strings.ReplaceAll(doorsConfig,
		`path: /, upstream: "http://127.0.0.1:1"`, `path: /`)))
	testenv.Check(t, faults.Err())
	key := session.NewKey(time.Now().Add(-time.Hour))
	ring, err := session.NewKeyring([]session.Key{key})
	testenv.Check(t, err)
	rt, err := d.process.BuildOf(cfg, Parts{Keys: ring, Tokens: make([]*admission.Tokens, len(cfg.Routes)),
		Providers: []proxy.Provider{{ID: "main", Name: "main", Login: noLogin{}}}})
	testenv.Check(t, err)
	d.process.Swap(rt)
	w := httptest.NewRecorder()
	testenv.Check(t, rt.Sessions().Write(w, "app.example.com", rt.Sessions().Start(people["ann"])))
	d.cookies["ann app.example.com"], _, _ = strings.Cut(w.Header().Get("Set-Cookie"), ";")
	for _, who := range []string{"", "ann"} {
		c := doorCase{method: "GET", host: "app.example.com", target: "/x", who: who}
		r := parse(c.method, c.target, append([]string{"Host: " + c.host}, c.header(d)...)...)
		w := httptest.NewRecorder()
		d.process.ServeHTTP(w, r)
		if w.Code != http.StatusNotFound || w.Header().Get("Location") != "" {
			t.Errorf("%q at the front door: %d", who, w.Code)
		}
		want := "login program"
		if who != "" {
			want = "forward"
		}
		if got, _ := c.ask(d, "verify"); got != want {
			t.Errorf("%q who asks: %s", who, got)
		}
	}
}

// Of somebody with more groups than a proxy's buffer holds, none is told, and the rest is.
func TestP17_WhatAnAppIsToldThroughAnotherProxyIsBounded(t *testing.T) {
	d := newDoors(t)
	c := doorCase{method: "GET", host: "app.example.com", target: "/api", lines: []string{"Authorization: Bearer many"}}
	verdict, told := c.throughProxy(d)
	if verdict != "forward" || len(told.Get("X-Forwarded-Groups")) < 16<<10 {
		t.Fatalf("%s: %d bytes of groups", verdict, len(told.Get("X-Forwarded-Groups")))
	}
	for _, dialect := range dialects() {
		got, w := c.ask(d, dialect)
		if got != "forward" || w.Header().Get("X-Forwarded-User") != "main:many" ||
			w.Header().Get("X-Forwarded-Groups") != "" || len(w.Header().Get("X-Sallyport-Assertion")) > 2<<10 {
			t.Errorf("%s: %s, %.80q", dialect, got, w.Header())
		}
	}
}

// Behind a proxy that asks no cookie reaches the browser, so past half of the idle time a
// page is sent to renew it, and another host's to have it handed over: once in a minute, so
// that a browser which keeps the old cookie is in no circle; and never what is no page.
func TestAPageIsSentToRenewItsSession(t *testing.T) {
	for _, dialect := range dialects() {
		d := newDoors(t)
		c := doorCase{method: "GET", host: "app.example.com", target: "/x?y", who: "idle", lines: fetch}
		if got, _ := c.ask(d, dialect); got != "forward" {
			t.Errorf("%s: a program is told %s", dialect, got)
		}
		c.method, c.lines = "POST", page
		if got, _ := c.ask(d, dialect); got != "forward" {
			t.Errorf("%s: a form is told %s", dialect, got)
		}
		c.method = "GET"
		got, w := c.ask(d, dialect)
		if to := w.Header().Get("Location"); got != "login navigation" ||
			to != "https://app.example.com/.sallyport/renew?return_to=%2Fx%3Fy" || w.Header().Get("X-Forwarded-User") != "" {
			t.Errorf("%s: a page is told %s, %s", dialect, got, to)
		}
		if got, _ := c.ask(d, dialect); got != "forward" {
			t.Errorf("%s: the browser that comes back with the old cookie is told %s", dialect, got)
		}
		c.who = "ann"
		if got, _ := c.ask(d, dialect); got != "forward" {
			t.Errorf("%s: a new session is told %s", dialect, got)
		}
		c.host, c.who = "wiki.example.com", "idle" // handed over 40 minutes ago
		if _, w := c.ask(d, dialect); w.Header().Get("Location") !=
			"https://wiki.example.com/.sallyport/renew?return_to=%2Fx%3Fy" {
			t.Errorf("%s: another host's page is told %v", dialect, w.Header())
		}
	}
}

// Where TLS ends before the proxy that asks, the proxy names http. Sessions are renewed all the
// same, at the address that people have.
func TestAPageIsSentToRenewItsSessionWhereTLSEndsBeforeTheProxy(t *testing.T) {
	for _, dialect := range []string{"verify", "forward", "envoy"} {
		d := newDoors(t)
		c := doorCase{method: "GET", host: "app.example.com", target: "/x?y", who: "idle", lines: page}
		r := fronts[dialect](c, c.header(d))
		if dialect == "verify" {
			r.Header.Set("X-Original-URL", "http://app.example.com/x?y")
		} else {
			r.Header.Set("X-Forwarded-Proto", "http")
		}
		w := httptest.NewRecorder()
		d.process.ServeExternalAuth(w, r)
		const want = "https://app.example.com/.sallyport/renew?return_to=%2Fx%3Fy"
		if got := asked(w); got != "login navigation" || w.Header().Get("Location") != want {
			t.Errorf("%s: a page is told %s, %s", dialect, got, w.Header().Get("Location"))
		}
	}
}

// And WebSockets open: the page that opens one has the address that people have. ingress-nginx
// names http then, and no line of its configuration changes that.
func TestAPageOpensWebSocketsWhereTLSEndsBeforeTheProxy(t *testing.T) {
	d := newDoors(t)
	for origin, want := range map[string]string{"https://app.example.com": "forward",
		"http://app.example.com": "forward", "https://wiki.example.com": "deny", "https://app.example.com:8443": "deny",
		"https://app.example.com.evil.example": "deny", "https://evil.example": "deny", "null": "deny"} {
		c := doorCase{method: "GET", host: "app.example.com", target: "/x?y", who: "ann", lines: []string{
			"Upgrade: websocket", "Sec-WebSocket-Version: 13", "Origin: " + origin}}
		for dialect, front := range fronts {
			r := front(c, c.header(d))
			if dialect == "verify" {
				r.Header.Set("X-Original-URL", "http://app.example.com/x?y")
			} else {
				r.Header.Set("X-Forwarded-Proto", "http")
			}
			w := httptest.NewRecorder()
			d.process.ServeExternalAuth(w, r)
			if got := asked(w); got != want {
				t.Errorf("%s: a page of %s is told %s, want %s", dialect, origin, got, want)
			}
		}
	}
}

// A preflight never reaches an app, and only a proxy that does not take 204 for a pass
// gets the answer to it. What refuses a page of a listed origin can be read by it.
func TestPreflightsAreAnsweredWhereTheyCanBe(t *testing.T) {
	d := newDoors(t)
	shop := []string{"Origin: https://shop.example", "Access-Control-Request-Method: PUT"}
	for dialect, status := range map[string]int{"verify": 403, "forward": 403, "envoy": 204, "grpc": 204} {
		_, w := doorCase{method: "OPTIONS", host: "app.example.com", target: "/shared", lines: shop}.ask(d, dialect)
		if methods := w.Header().Get("Access-Control-Allow-Methods"); w.Code != status || (methods == "PUT") != (status == 204) {
			t.Errorf("%s: %d %v", dialect, w.Code, w.Header())
		}
		_, w = doorCase{method: "GET", host: "app.example.com", target: "/shared", lines: append(shop[:1:1], fetch...)}.ask(d, dialect)
		if w.Code != 401 || w.Header().Get("Access-Control-Allow-Origin") != "https://shop.example" ||
			w.Header().Get("Vary") != "Origin" {
			t.Errorf("%s without a session: %d %v", dialect, w.Code, w.Header())
		}
		_, w = doorCase{method: "GET", host: "app.example.com", target: "/shared", who: "ann", lines: shop[:1]}.ask(d, dialect)
		said := w.Header().Get("Access-Control-Allow-Origin")
		if w.Code != 200 || (said != "") != (dialect == "envoy" || dialect == "grpc") {
			t.Errorf("%s with a session: %d %v", dialect, w.Code, w.Header())
		}
	}
}
