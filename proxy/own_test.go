package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
)

// Only our own pages may sign people out: what other sites cause is refused by
// Origin and Sec-Fetch-Site (gorilla/csrf CVE-2025-24358, Go CVE-2025-47910).
func TestP09_OnlyOurOwnPagesSignPeopleOut(t *testing.T) {
	t.Parallel()
	for _, o := range []setup{{}, {TLS: true}} {
		s := newTestSite(t, o)
		downgraded := strings.Replace(s.url, "https://", "http://", 1)
		if !o.TLS {
			downgraded = strings.Replace(s.url, "http://", "https://", 1)
		}
		for name, lines := range map[string][]string{
			"Origin null":                        {"Origin: null"},
			"Origin of another site":             {"Origin: https://evil.example"},
			"Origin of another scheme":           {"Origin: " + downgraded},
			"Origin of another port":             {"Origin: " + s.url + "0"},
			"Origin without a port":              {"Origin: " + s.url[:strings.LastIndexByte(s.url, ':')]},
			"Origin of a sibling":                {"Origin: " + strings.Replace(s.url, "://", "://evil.", 1)},
			"Origin with a path":                 {"Origin: " + s.url + "/"},
			"Origin with a user":                 {"Origin: " + strings.Replace(s.url, "://", "://a@", 1)},
			"Origin in capitals":                 {"Origin: " + strings.ToUpper(s.url)},
			"empty Origin":                       {"Origin: "},
			"two Origins":                        {"Origin: " + s.url, "Origin: https://evil.example"},
			"no Origin, cross-site":              {"Sec-Fetch-Site: cross-site"},
			"no Origin, same-site":               {"Sec-Fetch-Site: same-site"},
			"no Origin, unknown site":            {"Sec-Fetch-Site: sideways"},
			"our Origin, cross-site":             {"Origin: " + s.url, "Sec-Fetch-Site: cross-site"},
			"our Origin, same-site":              {"Origin: " + s.url, "Sec-Fetch-Site: same-site"},
			"null after a redirect, same-origin": {"Origin: null", "Sec-Fetch-Site: same-origin"},
			// Through a service worker, Firefox gives forms of all sites our Origin.
			"Firefox, a worker, a sibling's form": {"Origin: " + s.url, "Sec-Fetch-Site: same-origin", "Referer: " +
				"http://localhost:1/", worker},
			"Firefox, a worker, a form that hides": {"Origin: " + s.url, "Sec-Fetch-Site: same-origin", worker},
			"WebKit, a worker, a sibling's form": {"Origin: " + s.url, "Sec-Fetch-Site: same-origin", "Referer: " +
				"http://localhost:1/", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: empty", "Accept: text/html"},
			"Firefox, a worker, a lookalike's form": {"Origin: " + s.url, "Sec-Fetch-Site: same-origin",
				"Referer: " + s.url + ".evil.example/", worker},
		} {
			cookie := "Cookie: " + s.mint(t, alice())
			a := s.ask(t, "POST", prefix+"/logout", "", viaWorker(lines, cookie)...)
			if a.status != 403 || a.header["Set-Cookie"] != nil || a.header["Clear-Site-Data"] != nil ||
				!strings.Contains(a.body, "The request to sign out came from another site.") {
				t.Errorf("%s: %d %v\n%s", name, a.status, a.header, a.body)
			}
			if a := s.get(t, "/x", cookie); a.status != 200 {
				t.Errorf("%s: signed out: %d", name, a.status)
			}
		}
		for name, lines := range map[string][]string{
			"our page": {"Origin: " + s.url, "Sec-Fetch-Site: same-origin"}, "an older browser": {"Origin: " + s.url},
			"no browser": nil,
			"typed":      {"Sec-Fetch-Site: none"},
			"our page through a worker": {"Origin: " + s.url, "Referer: " + s.url + "/.sallyport/account",
				"Sec-Fetch-Site: same-origin",
				"Sec-Fetch-Mode: same-origin", "Sec-Fetch-Dest: empty"},
			"a script of the app that sends no Referer": {"Origin: " + s.url, "Sec-Fetch-Site: same-origin",
				"Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"},
		} {
			cookie := "Cookie: " + s.mint(t, alice())
			a := s.ask(t, "POST", prefix+"/logout", "", append(lines, cookie)...)
			want := strings.Split(cookie[len("Cookie: "):], "=")[0] + "=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"
			if o.TLS { // CVE-2025-55162: without Secure a browser keeps a __Host- cookie
				want += "; Secure"
			}
			if a.status != 303 || a.header.Get("Location") != s.url+prefix+"/logout?provider=main" ||
				!slices.Equal(a.header["Set-Cookie"], []string{want}) ||
				(a.header.Get("Clear-Site-Data") == `"cache"`) == strings.Contains(name, "worker") ||
				a.header.Get("Cache-Control") != "private, no-store" {
				t.Errorf("%s: %d %v", name, a.status, a.header)
			}
			if a := s.get(t, "/x", cookie); a.status != 401 { // CVE-2024-21492
				t.Errorf("%s: the old cookie gets %d", name, a.status)
			}
			if line := s.log.event(t, a.header.Get("X-Request-Id")); line["user"] != "main:alice-1" {
				t.Errorf("%s: logged %v", name, line)
			}
		}
	}
}

func TestSigningOutAsksFirstAndLandsOnAPage(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice()}})
	b := s.browser(t)
	state := s.begin(t, b, "/deep")
	b.Open(s.callback("main", map[string][]string{"code": {"c"}, "state": {state}}))
	ask := b.Open(s.url + prefix + "/logout") // a link, an image, a prefetch
	if ask.Status != 200 || !strings.Contains(ask.Body, "Do you want to sign out?") ||
		!strings.Contains(ask.Body, "<strong><bdi>Alice Ämter</bdi></strong>") || s.sessionOf(b) == nil {
		t.Fatalf("%d\n%s", ask.Status, ask.Body)
	}
	gone := b.Submit(ask, "", "")
	if gone.Status != 200 || !strings.Contains(gone.Body, "You are signed out") || s.sessionOf(b) != nil ||
		len(b.Cookies(s.url)) != 1 {
		t.Errorf("%d, cookies %v\n%s", gone.Status, b.Cookies(s.url), gone.Body)
	}
	if again := b.Post(gone, prefix+"/logout", nil); again.Status != 200 ||
		!strings.Contains(again.Body, "You are signed out") {
		t.Errorf("signing out twice: %d", again.Status)
	}
	for fault, lines := range badCookies(t, s) {
		if fault == "NUL after" { // net/http's to refuse
			continue
		}
		var all []string
		for _, line := range lines {
			all = append(all, "Cookie: "+line)
		}
		if a := s.ask(t, "POST", prefix+"/logout", "", all...); a.status != 303 || len(a.header["Set-Cookie"]) != 1 {
			t.Errorf("signing out with a cookie that is %s: %d %v", fault, a.status, a.header)
		}
	}
}

// The contract with single-page apps.
func TestTheSessionEndpointTellsWhoIsSignedIn(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	sess := s.sessions.Start(alice())
	a := s.get(t, prefix+"/session", "Cookie: "+s.seal(t, sess), "Sec-Fetch-Mode: cors")
	want := fmt.Sprintf(`{"user":{"id":"main:alice-1","email":"alice@acme.example","name":"Alice Ämter","username":"alice","groups":["admins","on-call"]},`+
		`"org":{"id":"main:acme","name":"Acme Rockets","domain":"acme.example"},"expires_at":%q,"idle_expires_at":%q}`+"\n",
		sess.Expires.Format(time.RFC3339), sess.IdleExpires.Format(time.RFC3339))
	if a.status != 200 || a.body != want || a.header.Get("Content-Type") != "application/json" ||
		a.header.Get("Cache-Control") != "private, no-store" {
		t.Errorf("%d %v\n%s\n%s", a.status, a.header, a.body, want)
	}
	if a.header["Access-Control-Allow-Origin"] != nil {
		t.Error("another site may read it")
	}
	who := bob()
	who.Name, who.Username, who.Email = "", "", "bob@acme.example" // not verified
	a = s.get(t, prefix+"/session", "Cookie: "+s.mint(t, who))
	if got := jsonOf(t, a.body); fmt.Sprint(got["user"]) != "map[id:main:bob-1]" || got["org"] != nil {
		t.Errorf("told %s", a.body)
	}
	checkChallenge(t, s, "GET", s.get(t, prefix+"/session"))
	checkChallenge(t, s, "GET", s.get(t, prefix+"/session", navigate()...)) // JSON for pages too
	if a := s.ask(t, "HEAD", prefix+"/session", "", "Cookie: "+s.mint(t, alice())); a.status != 200 || a.body != "" {
		t.Errorf("HEAD: %d %q", a.status, a.body)
	}
}

func TestTheAccountPageTellsPeopleWhatIsKnown(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	a := s.get(t, prefix+"/account", navigate("Cookie: "+s.mint(t, alice()))...)
	for _, words := range []string{"Your account", "<bdi>Alice Ämter</bdi>", "<bdi>alice@acme.example</bdi></dd>",
		"<bdi>Main Street</bdi>", "<code>main:alice-1</code>",
		"<bdi>Acme Rockets</bdi>, <bdi>acme.example</bdi>", "<li><bdi>admins</bdi></li><li><bdi>on-call</bdi></li>",
		"in 12 hours", `action="/.sallyport/logout"`} {
		if a.status != 200 || !strings.Contains(a.body, words) {
			t.Errorf("%d: the page does not say %q:\n%s", a.status, words, a.body)
		}
	}
	who := alice()
	who.EmailVerified = false
	a = s.get(t, prefix+"/account", navigate("Cookie: "+s.mint(t, who))...)
	if !strings.Contains(a.body, "not verified: it gives you no access and is not passed on") {
		t.Errorf("the page is\n%s", a.body)
	}
	if a := s.get(t, prefix+"/account", navigate()...); a.status != 302 ||
		a.header.Get("Location") != s.url+prefix+"/login?return_to=%2F.sallyport%2Faccount" {
		t.Errorf("a stranger: %d to %q", a.status, a.header.Get("Location"))
	}
	if a := s.get(t, prefix+"/account"); a.status != 401 {
		t.Errorf("a program: %d", a.status)
	}
	sess := s.sessions.Start(alice())
	s.clock.Advance(10 * time.Minute)
	a = s.get(t, prefix+"/account", navigate("Cookie: "+s.seal(t, sess))...)
	if len(a.header["Set-Cookie"]) != 1 || !strings.Contains(a.header.Get("Cache-Control"), "no-store") {
		t.Errorf("not renewed: %v", a.header)
	}
}

// The app can verify who asked and for which app this was signed; apps behind AWS
// load balancers did not check the signer (the "ALBeast" weakness of 2024).
func TestTheAssertionAtTheAppVerifies(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	cookie := s.mint(t, alice())
	for route, path := range map[string]string{"app": "/x", "admin": "/admin/x"} {
		s.get(t, path, "Cookie: "+cookie, "X-Sallyport-Assertion: forged")
		tokens := testenv.HeaderLines(s.app.Last(t), identity.AssertionHeader)
		if len(tokens) != 1 {
			t.Fatalf("%d assertions", len(tokens))
		}
		var keys jose.JSONWebKeySet
		testenv.Check(t, json.Unmarshal([]byte(s.get(t, prefix+"/jwks.json").body), &keys))
		token, err := jwt.ParseSigned(tokens[0], []jose.SignatureAlgorithm{jose.ES256})
		testenv.Check(t, err)
		claims := map[string]any{}
		testenv.Check(t, token.Claims(keys.Key(token.Headers[0].KeyID)[0].Key, &claims))
		times := claims["exp"].(float64) - claims["iat"].(float64)
		if claims["exp"].(float64) < float64(time.Now().Unix()) || times > 300 {
			t.Errorf("lives for %v s", times)
		}
		checkSession(t, claims)
		delete(claims, "exp")
		delete(claims, "iat")
		want := map[string]any{"iss": s.url, "sub": "main:alice-1", "aud": route, "email": "alice@acme.example",
			"email_verified": true, "name": "Alice Ämter",
			"preferred_username": "alice", "groups": []any{"admins", "on-call"},
			"org": map[string]any{"id": "main:acme", "name": "Acme Rockets", "domain": "acme.example"}}
		if fmt.Sprint(claims) != fmt.Sprint(want) {
			t.Errorf("claims %v, want %v", claims, want)
		}
	}
	s.get(t, "/open", "Cookie: "+cookie)
	if got := testenv.HeaderLines(s.app.Last(t), identity.AssertionHeader); got != nil {
		t.Errorf("a public route got %q", got)
	}
	other := newTestSite(t, setup{})
	s.get(t, "/x", "Cookie: "+cookie)
	token, err := jwt.ParseSigned(testenv.HeaderLines(s.app.Last(t), identity.AssertionHeader)[0],
		[]jose.SignatureAlgorithm{jose.ES256})
	testenv.Check(t, err)
	var keys jose.JSONWebKeySet
	testenv.Check(t, json.Unmarshal([]byte(other.get(t, prefix+"/jwks.json").body), &keys))
	if keys.Keys[0].KeyID == token.Headers[0].KeyID || token.Claims(keys.Keys[0].Key, &map[string]any{}) == nil {
		t.Error("another instance's keys verify it")
	}
}

// An app next door asks for the keys under the address it has for us.
func TestThePublicKeysAreServedOnTheAddressAnAppHas(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Public: "http://app.example.com", Login: fixedLogin{}, Routes: []authz.Route{
		{Name: "app", Host: "app.example.com", Path: "/", Access: authz.Access{Authenticated: true}},
		{Name: "open", Host: "open.example.com", Path: "/", Access: authz.Access{Public: true}},
	}})
	w := s.wire(t)
	for host, want := range map[string]bool{"app.example.com": true, "127.0.0.1:4180": true, "localhost": true,
		"[::1]:4180": true, "sallyport.default.svc": true, "open.example.com": false} {
		a := w.do("GET", rawRequest("GET", prefix+"/jwks.json", host))
		if got := strings.Contains(a.body, `"kty":"EC"`); got != want || a.status != 200 {
			t.Errorf("%s: %d %s", host, a.status, a.body)
		}
		if want && (a.header.Get("Content-Type") != "application/jwk-set+json" ||
			a.header.Get("Cache-Control") != "public, max-age=300" || strings.Contains(a.body, `"d"`)) {
			t.Errorf("%s: %v %s", host, a.header, a.body)
		}
	}
	if a := w.do("HEAD", rawRequest("HEAD", prefix+"/jwks.json", "app.example.com")); a.status != 200 ||
		a.header.Get("X-Request-Id") == "" {
		t.Errorf("HEAD: %d %v", a.status, a.header)
	}
}

func TestP19_TheLogoCannotRun(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Brand: Branding{Name: "Acme", Logo: []byte("<svg/>"), LogoType: "image/svg+xml"}})
	a := s.get(t, prefix+"/logo")
	if a.status != 200 || a.body != "<svg/>" || a.header.Get("Content-Type") != "image/svg+xml" ||
		a.header.Get("X-Content-Type-Options") != "nosniff" ||
		!strings.HasSuffix(a.header.Get("Content-Security-Policy"), "; sandbox") {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if a := s.get(t, prefix+"/logout", navigate()...); !strings.Contains(a.body,
		`<img src="/.sallyport/logo" alt="">`) || !strings.Contains(a.body, "Acme") {
		t.Errorf("the page is\n%s", a.body)
	}
}

// P19 over the real server: every answer of ours, to everybody.
func TestP19_OwnAnswersCannotBeFramedOrCached(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{}, Second: &Provider{ID: "other", Name: "Other", Login: fixedLogin{}}})
	s.app.Respond(func([]byte) []byte { return nil })
	cookie := "Cookie: " + s.mint(t, alice())
	nobody := "Cookie: " + s.mint(t, bob())
	for name, a := range map[string]answer{
		"chooser": s.get(t, prefix+"/login", navigate()...), "account": s.get(t, prefix+"/account",
			navigate(cookie)...), "signed out": s.get(t, prefix+"/logout", navigate()...),
		"organization": s.get(t, prefix+"/organization", navigate("Cookie: "+s.mint(t, picked(t, "acme")))...),
		"sign out?":    s.get(t, prefix+"/logout", navigate(cookie)...), "callback": s.get(t, prefix+"/callback/main",
			navigate()...), "denied": s.get(t, "/admin", navigate(nobody)...),
		"400": s.get(t, "/a%2fb", navigate()...), "404": s.get(t, prefix+"/x", navigate()...),
		"405":  s.ask(t, "POST", prefix+"/login", "", navigate()...),
		"form": s.ask(t, "POST", "/x", "", navigate()...), "502": s.get(t, "/x", navigate(cookie)...),
		"session": s.get(t, prefix+"/session"), "401": s.get(t, "/x"),
		"403": s.get(t, "/admin", nobody), "502 for a program": s.get(t, "/x", cookie),
	} {
		h := a.header
		if !strings.Contains(h.Get("Cache-Control"), "no-store") || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", name, a.status, h)
		}
		if strings.HasPrefix(h.Get("Content-Type"), "text/html") && (h.Get("X-Frame-Options") != "DENY" ||
			!strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") ||
			!strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none'; ")) {
			t.Errorf("%s: %d %v", name, a.status, h)
		}
	}
}

func changeUpstream(o *Options, change func(*Upstream)) {
	change(&o.Upstreams[1])
}

// What New asks for, it asks for before it serves (P21).
func TestAnIncompleteFrontDoorDoesNotOpen(t *testing.T) {
	t.Parallel()
	var whole Options
	newTestSite(t, setup{Tuned: func(o *Options) { whole = *o }})
	for name, bend := range map[string]func(*Options){
		"no public URL": func(o *Options) { o.PublicURL = nil }, "no admission": func(o *Options) { o.Admission = nil },
		"no sessions": func(o *Options) { o.Sessions = nil }, "no routes": func(o *Options) { o.Table = nil },
		"no headers": func(o *Options) { o.Headers = nil }, "no assertions": func(o *Options) { o.Assertions = nil },
		"no providers": func(o *Options) { o.Providers = nil },
		"no flows":     func(o *Options) { o.MaxFlows = 0 }, "no URL limit": func(o *Options) { o.MaxURL = 0 },
		"no header limit":             func(o *Options) { o.MaxHeader = 0 },
		"a route without an upstream": func(o *Options) { o.Upstreams = o.Upstreams[1:] },
		"an upstream without a transport": func(o *Options) {
			changeUpstream(o,
				func(u *Upstream) { u.Transport = nil })
		},
		"an upstream without an address": func(o *Options) { changeUpstream(o, func(u *Upstream) { u.Addr = "" }) },
		"an upstream without a scheme": func(o *Options) {
			changeUpstream(o,
				func(u *Upstream) { u.Scheme = "" })
		},
		"an upstream that may take for ever": func(o *Options) {
			changeUpstream(o,
				func(u *Upstream) { u.Header = 0 })
		},
		"an upstream that may hang for ever": func(o *Options) { changeUpstream(o, func(u *Upstream) { u.Idle = 0 }) },
		"a public URL that is none":          func(o *Options) { o.PublicURL = mustURL(t, "https://a_b..c") },
		"a prefix that is none":              func(o *Options) { o.Prefix = "//x" },
	} {
		o := whole
		o.Upstreams = slices.Clone(whole.Upstreams)
		bend(&o)
		if _, err := New(NewProcess(ProcessOptions{}), o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(NewProcess(ProcessOptions{}), whole); err != nil {
		t.Errorf("the whole one is refused: %v", err)
	}
}

// What providers are asked for is for those who run the site, and nobody else.
func TestOnlyOperatorsReadWhatProvidersAreAskedFor(t *testing.T) {
	t.Parallel()
	permission := []pages.Permission{{Provider: "main", Type: "oidc",
		Scopes:    []pages.Term{{Name: "tenant", Means: "Opens the tenant."}},
		Discarded: []string{"the access token"},
		Received: func() []pages.Term {
			return []pages.Term{{Name: "realm_access", Means: "object with 1 member (ID token)"}}
		}}}
	s := newTestSite(t, setup{Tuned: func(o *Options) { o.Permission = permission }})
	read := func(who identity.Identity) bool {
		a := s.get(t, prefix+"/account", navigate("Cookie: "+s.mint(t, who))...)
		if a.status != 200 {
			t.Fatalf("answered %d", a.status)
		}
		return strings.Contains(a.body, "What providers are asked for") &&
			strings.Contains(a.body, "Opens the tenant.") &&
			strings.Contains(a.body, "<code>realm_access</code>: object with 1 member (ID token)")
	}
	if read(alice()) {
		t.Error("without operators somebody is one")
	}
	s = newTestSite(t, setup{Tuned: func(o *Options) {
		o.Permission, o.Operators = permission, []authz.Rule{{Groups: []string{"admins"}}}
	}})
	unknown := alice()
	unknown.Groups, unknown.GroupsUnknown = nil, true
	if !read(alice()) || read(bob()) || read(unknown) {
		t.Errorf("operator %v, somebody %v, groups unknown %v", read(alice()), read(bob()), read(unknown))
	}
}

// When a provider is taken out of the configuration, its sessions no longer count.
func TestP11_SessionsEndWithTheirProvider(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	who := alice()
	who.Provider = "gone"
	cookie := "Cookie: " + s.mint(t, who)
	a := s.get(t, "/x", cookie)
	if a.status != 401 || len(s.app.Requests()) != 0 {
		t.Errorf("answered %d, %d requests reached the app", a.status, len(s.app.Requests()))
	}
	if line := s.log.event(t, a.header.Get("X-Request-Id")); line["session"] != admission.ErrNoProvider.Error() ||
		line["user"] != nil {
		t.Errorf("logged %v", line)
	}
	if a := s.get(t, prefix+"/session", cookie); a.status != 401 {
		t.Errorf("own pages: %d", a.status)
	}
}

// hinting notes what it is asked with.
type hinting struct {
	fixedLogin
	hint string
}

func (h *hinting) AuthURL(_ context.Context, _ identity.Handshake, p identity.AuthParams) (string, error) {
	h.hint = p.LoginHint
	return "https://sso.example.com/", nil
}

// An app that knows the address saves people the choice; what is no address, or
// nobody's, leads to the choice.
func TestAnAddressChoosesTheProviderThatVouchesForIt(t *testing.T) {
	t.Parallel()
	first, second := &hinting{}, &hinting{}
	s := newTestSite(t, setup{Login: first, Second: &Provider{ID: "other", Name: "Other", Login: second,
		EmailDomains: []string{"birch.example"}},
		Tuned: func(o *Options) { o.Providers[0].EmailDomains = []string{"acme.example"} }})
	for hint, want := range map[string]string{
		"ann@acme.example": "main", "Bo@BIRCH.example": "other", "cy@cedar.example": "", "": "", "acme.example": "",
		"@acme.example":                  "",
		"ann@acme.example@birch.example": "", "ann@acme.example&prompt=none": "", "a b@acme.example": "",
		"ann@acme.example\r\nx": "", "\"a\"@acme.example": "",
		strings.Repeat("a", 250) + "@acme.example": "",
	} {
		first.hint, second.hint = "", ""
		a := s.get(t, prefix+"/login?login_hint="+url.QueryEscape(hint), navigate()...)
		got := map[bool]string{first.hint != "": "main", second.hint != "": "other"}[true]
		if got != want || (a.status == 302) != (want != "") || (want != "" && first.hint+second.hint != hint) {
			t.Errorf("%q: %d, asked %q %q", hint, a.status, first.hint, second.hint)
		}
	}
	if a := s.get(t, prefix+"/login?provider=other&login_hint=ann%40acme.example", navigate()...); a.status != 302 ||
		second.hint != "ann@acme.example" {
		t.Errorf("a provider and a hint: %d %q", a.status, second.hint)
	}
}

// worker stands for the two headers that Firefox sends when a service worker
// passes a page on.
const worker = "(through a worker, in Firefox)"

func viaWorker(lines []string, more ...string) []string {
	out := slices.Clone(more)
	mode := []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}
	for _, line := range lines {
		switch {
		case line == worker:
			mode = []string{"Sec-Fetch-Mode: same-origin", "Sec-Fetch-Dest: empty"}
		case strings.HasPrefix(line, "Sec-Fetch-Mode:") || strings.HasPrefix(line, "Sec-Fetch-Dest:"):
			mode = nil
			fallthrough
		default:
			out = append(out, line)
		}
	}
	return append(out, mode...)
}

// Browsers send no session cookie with a form of another site, not even through a
// service worker, where Firefox and WebKit say that the form is our own.
func TestP10_FormWithoutTheCookieTakesNoneAway(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	a := s.ask(t, "POST", prefix+"/logout", "", "Origin: "+s.url, "Referer: "+s.url+"/sw.js", "Sec-Fetch-Site: "+
		"same-origin",
		"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: empty")
	if a.status != 303 || a.header["Set-Cookie"] != nil || a.header["Clear-Site-Data"] != nil {
		t.Errorf("%d %v", a.status, a.header)
	}
}

// A site whose apps let nothing personal be kept spares its people the seconds
// that clearing a large cache takes.
func TestSigningOutLeavesTheCacheAloneWhereItIsToldTo(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Tuned: func(o *Options) { o.KeepCache = true }})
	a := s.ask(t, "POST", prefix+"/logout", "", "Origin: "+s.url, "Sec-Fetch-Site: same-origin",
		"Cookie: "+s.mint(t, alice()))
	if a.status != 303 || a.header["Clear-Site-Data"] != nil {
		t.Errorf("%d %v", a.status, a.header)
	}
}

// What an app let the browser keep of one person must not be shown to the next one who uses it, nor
// what is of one organization to somebody who is here for another.
func TestP10_PagesOfWhoWasHereBeforeLeaveTheBrowser(t *testing.T) {
	t.Parallel()
	another := picked(t, "main:birch")
	for name, tt := range map[string]struct {
		before  *identity.Identity
		who     identity.Identity
		after   time.Duration // between the two
		keep    bool
		cleared bool
	}{
		"somebody else, once the session has idled out": {new(alice()), bob(), 61 * time.Minute, false, true},
		"somebody else, where the cache is left alone":  {new(alice()), bob(), 61 * time.Minute, true, false},
		"the same person": {new(alice()), alice(), 61 * time.Minute, false, false},
		"the same person, for another organization": {new(picked(t, "acme")), another, 61 * time.Minute, false, true},
		"the same person, who is asked for which":   {new(picked(t, "acme")), ines(), 61 * time.Minute, false, false},
		"a browser of which nothing is known":       {nil, bob(), 0, false, false},
	} {
		s := newTestSite(t, setup{Login: fixedLogin{who: tt.who},
			Tuned: func(o *Options) { o.KeepCache = tt.keep }})
		b := s.browser(t)
		if tt.before != nil {
			cookie, value, _ := strings.Cut(s.mint(t, *tt.before), "=")
			b.SetCookies(s.url, &http.Cookie{Name: cookie, Value: value})
		}
		s.clock.Advance(tt.after)
		state := s.begin(t, b, "/deep")
		h := b.Open(s.callback("main", map[string][]string{"code": {"c"}, "state": {state}})).Hops[0]
		if h.Status != 303 || (h.Header.Get("Clear-Site-Data") == `"cache"`) != tt.cleared {
			t.Errorf("%s: %d %v", name, h.Status, h.Header)
		}
	}
	s := newTestSite(t, setup{})
	sess := s.sessions.Start(alice())
	a := s.get(t, prefix+"/login?switch="+switchValue(&sess), navigate("Cookie: "+s.seal(t, sess))...)
	if a.header.Get("Clear-Site-Data") != `"cache"` {
		t.Errorf("to sign in as somebody else: %d %v", a.status, a.header)
	}
}
