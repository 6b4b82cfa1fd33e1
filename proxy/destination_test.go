package proxy

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// davRoutes split one WebDAV app by path. A route whose name begins with other
// leads to another app.
func davRoutes(host string) []authz.Route {
	return []authz.Route{
		{Name: "open", Host: host, Path: "/open", Access: authz.Access{Public: true}},
		{Name: "private", Host: host, Path: "/open/private", Access: authz.Access{Authenticated: true}},
		{Name: "app", Host: host, Path: "/app", Access: authz.Access{Authenticated: true}},
		{Name: "admin", Host: host, Path: "/admin",
			Access: authz.Access{Rules: []authz.Rule{{Groups: []string{"admins"}}}}},
		{Name: "other", Host: host, Path: "/other", Access: authz.Access{Public: true}},
		{Name: "kept", Host: host, Path: "/kept", Access: authz.Access{Public: true}},
	}
}

// davSite is such an app, of which "/kept" keeps all that can be kept.
func davSite(t *testing.T, o setup) *testSite {
	t.Helper()
	o.Routes = davRoutes("127.0.0.1")
	o.Passes = map[string][]string{"kept": {"X-Http-Method-Override", "Destination", "X-Auth-User"}}
	o.Apps = map[string]string{"other": "another"}
	return newTestSite(t, o)
}

// A MOVE acts on two resources. Who may not have the second one must not reach it
// by way of the first.
func TestP03_DestinationIsJudgedLikeTheRequestLine(t *testing.T) {
	t.Parallel()
	s := davSite(t, setup{})
	w, seen := s.wire(t), 0
	const nobody = "a=b"
	bob, alice := s.mint(t, bob()), s.mint(t, alice())
	own := "http://" + s.host
	for name, tt := range map[string]struct {
		cookie, method, target string
		to                     []string
		status                 int
		want                   string // what the app receives of the header
	}{
		"a stranger overwrites what is protected": {nobody, "MOVE", "/open/x", []string{own + "/admin/y"}, 403, ""},
		"the same as a path":                      {nobody, "COPY", "/open/x", []string{"/admin/y"}, 403, ""},
		"in small letters":                        {nobody, "move", "/open/x", []string{"/admin/y"}, 403, ""},
		"escaped":                                 {nobody, "COPY", "/open/x", []string{"/%61dmin/y"}, 403, ""},
		"what a forgiving app would take for it":  {nobody, "COPY", "/open/x", []string{"/ADMIN/y"}, 400, ""},
		"… with blanks": {nobody, "COPY", "/open/x", []string{"/app/%20/../admin"}, 400,
			""},
		"dots": {nobody, "COPY", "/open/x", []string{"/open/../admin/y"}, 400, ""},
		"two headers": {nobody, "COPY", "/open/x", []string{"/open/y", "/admin/y"}, 400,
			""},
		"somebody who is signed in and not let in": {bob, "MOVE", "/app/x", []string{own + "/admin/y"}, 403, ""},
		"somebody who is": {alice, "MOVE", "/app/x", []string{own + "/admin/y"}, 200,
			own + "/admin/y"},
		"from a public route": {alice, "MOVE", "/open/x", []string{"/admin/y"}, 200, "/admin/y"},
		"to a public route":   {bob, "COPY", "/app/x", []string{"/open/y"}, 200, "/open/y"},
		"a stranger within the public part": {nobody, "MOVE", "/open/x", []string{"/open/%79?z"}, 200,
			"/open/y?z"},
		"one form, the judged one": {nobody, "MOVE", "/open/x",
			[]string{"HTTP://" + s.host + "/open/%7ey/é"}, 200, own + "/open/~y/%C3%A9"},
		"another site": {alice, "COPY", "/app/x", []string{"http://other.example/app/y"},
			502, ""},
		"another port": {alice, "COPY", "/app/x", []string{"http://127.0.0.1:1/app/y"},
			502, ""},
		"https instead of http": {alice, "COPY", "/app/x", []string{"https://" + s.host + "/app/y"},
			502, ""},
		"another app":                               {nobody, "COPY", "/open/x", []string{"/other/y"}, 502, ""},
		"an endpoint of ours":                       {alice, "COPY", "/app/x", []string{prefix + "/login"}, 403, ""},
		"no route":                                  {alice, "COPY", "/app/x", []string{"/nowhere"}, 403, ""},
		"the source is protected":                   {nobody, "COPY", "/admin/x", []string{"/open/y"}, 401, ""},
		"a folder with a protected part":            {alice, "MOVE", "/open", []string{"/app/y"}, 403, ""},
		"a folder with a protected part, and slash": {alice, "COPY", "/open/", []string{"/app/y"}, 403, ""},
		"over a folder with a protected part":       {alice, "MOVE", "/app/x", []string{"/open"}, 403, ""},
		"without the header":                        {alice, "MOVE", "/app/x", nil, 200, ""},
		"a folder, without the header":              {alice, "MOVE", "/open", nil, 403, ""},
		"on another method":                         {nobody, "PUT", "/open/x", []string{own + "/admin/y"}, 200, ""},
		"on another method, twice": {nobody, "MKCOL", "/open/x", []string{"/admin/y", "/open/y"}, 200,
			""},
		"kept on another method": {nobody, "PUT", "/kept/x", []string{"/kept/%79"}, 200, "/kept/y"},
		"kept, and judged":       {nobody, "PUT", "/kept/x", []string{"/admin/y"}, 403, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w.tb = t
			lines := []string{"Cookie: " + tt.cookie, "If: </admin/y> (<urn:uuid:1>)", "Depth: infinity"}
			for _, to := range tt.to {
				lines = append(lines, "Destination: "+to)
			}
			a := w.do(tt.method, rawRequest(tt.method, tt.target, s.host, append(lines, "Content-Length: 0")...))
			if a.status != tt.status {
				t.Errorf("answered %d, want %d: %s", a.status, tt.status, a.body)
			}
			fresh := s.hits(&seen)
			if (len(fresh) == 1) != (tt.status == 200) {
				t.Fatalf("%d requests reached the app", len(fresh))
			}
			if len(fresh) == 0 {
				return
			}
			if got := testenv.HeaderLines(fresh[0], "Destination"); strings.Join(got, "|") != tt.want {
				t.Errorf("the app received %q, want %q", got, tt.want)
			}
			// A tagged list only says when to refuse (RFC 4918 §10.4).
			if got := testenv.HeaderLines(fresh[0], "If"); !slices.Equal(got, []string{"</admin/y> (<urn:uuid:1>)"}) {
				t.Errorf("If: %q", got)
			}
		})
	}
	raw := rawRequest("PUT", "/open/x", s.host, "Transfer-Encoding: chunked",
		"Trailer: Destination") + "1\r\nx\r\n0\r\nDestination: /admin/y\r\n\r\n"
	if a := w.do("PUT", raw); a.status != 200 || strings.Contains(string(s.app.Last(t)), "Destination") {
		t.Errorf("after a body: %d\n%s", a.status, s.app.Last(t))
	}
}

// The app that is asked for another host finds that host in the header too.
func TestDestinationNamesTheHostThatTheAppIsAskedFor(t *testing.T) {
	t.Parallel()
	s := davSite(t, setup{Bent: func(b *Upstream) { b.Host = "dav.internal" }})
	if a := s.ask(t, "MOVE", "/open/x", "", "Destination: "+s.url+"/open/y"); a.status != 200 {
		t.Fatalf("answered %d: %s", a.status, a.body)
	}
	if got := testenv.HeaderLines(s.app.Last(t), "Destination"); !slices.Equal(got,
		[]string{"http://dav.internal/open/y"}) {
		t.Errorf("the app received %q", got)
	}
}

// A program's token is judged for the second resource too, and is never put
// together with somebody else's session.
func TestP03_DestinationIsJudgedForTheCallerWhoAsks(t *testing.T) {
	t.Parallel()
	host := "127.0.0.1"
	s := newTestSite(t, setup{Bearer: func(*testSite) admission.TokenVerifier { return tokenOf{bob()} },
		Routes: []authz.Route{
			{Name: "api", Host: host, Path: "/api", Access: authz.Access{Authenticated: true}},
			{Name: "api-admin", Host: host, Path: "/api/admin",
				Access: authz.Access{Rules: []authz.Rule{{Groups: []string{"admins"}}}}},
			{Name: "web", Host: host, Path: "/web", Access: authz.Access{Authenticated: true}},
		}})
	alice := "Cookie: " + s.mint(t, alice())
	for _, tt := range []struct {
		to     string
		lines  []string
		status int
	}{
		{"/api/y", nil, 200}, {"/api/admin/y", nil, 403}, {"/api/admin/y", []string{alice}, 403}, {"/web/y", nil, 403},
		{"/web/y", []string{alice}, 403},
		{"/web/y", []string{"Cookie: " + s.mint(t, bob())}, 200},
	} {
		if a := s.ask(t, "COPY", "/api/x", "", append(tt.lines, "Authorization: Bearer t", "Destination: "+tt.to)...); a.status != tt.status {
			t.Errorf("to %s with %d cookies: %d, want %d", tt.to, len(tt.lines), a.status, tt.status)
		}
	}
}

// Headers that choose another method or path, or say who somebody is, are no
// client's to send; a route can keep those of a proxy that is trusted.
func TestP02_HeadersOfOtherProxiesPassOnlyWhereARouteKeepsThem(t *testing.T) {
	t.Parallel()
	names := []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL",
		"Script-Name", "SCRIPT_NAME", "X-Middleware-Subrequest", "X-Sendfile-Type",
		"Cf-Access-Authenticated-User-Email", "X-MS-CLIENT-PRINCIPAL", "X-MS-CLIENT-PRINCIPAL-NAME",
		"X-Pomerium-Claim-Email", "X-Vouch-User", "OIDC_CLAIM_email", "X-Auth-User", "X-Auth-Username",
		"X-Auth-Email", "X-Auth-Name", "X-Auth-Groups", "X-Auth-Roles",
		"X-Authenticated-UserId", "X-Consumer-Username", "Impersonate-User", "Impersonate-Extra-Scopes",
		"WL-Proxy-Client-Cert", "X-ARR-ClientCert", "SM_USER", "iv-user", "Proxy-Client-IP",
		"X-Appengine-User-Is-Admin", "X-Auth_User"}
	for _, trusted := range []bool{false, true} {
		o := setup{}
		if trusted {
			o.Trusted = prefixes(t, "127.0.0.0/8")
		}
		s := davSite(t, o)
		w := s.wire(t)
		for route, want := range map[string][]string{
			"/open": {"X-Auth-Key", "X-Auth-Token"},
			"/kept": {"X-Auth-Key", "X-Auth-Token", "X-Http-Method-Override"},
		} {
			if trusted && route == "/kept" {
				want = append(want, "X-Auth-User")
			}
			lines := []string{"X-Auth-Token: forged", "X-Auth-Key: forged"}
			for _, name := range names {
				lines = append(lines, name+": forged")
			}
			if a := w.do("GET", rawRequest("GET", route, s.host, lines...)); a.status != 200 {
				t.Fatalf("answered %d", a.status)
			}
			raw := s.app.Last(t)
			for _, name := range want {
				if got := testenv.HeaderLines(raw, name); !slices.Equal(got, []string{"forged"}) {
					t.Errorf("%s, trusted %v: %s is %q", route, trusted, name, got)
				}
			}
			if n := strings.Count(string(raw), "forged"); n != len(want) {
				t.Errorf("%s, trusted %v: %d forged headers arrived, want %d:\n%s", route, trusted, n, len(want), raw)
			}
		}
	}
	if _, err := identity.NewHeaders().Keep([]string{"X-Rewrite-URL"}); err == nil {
		t.Error("a rewrite header can be kept")
	}
}

// Each cause of a 400 has its own sentence.
func TestRefusedAddressesSayWhichRuleTheyBroke(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Trusted: prefixes(t, "127.0.0.0/8")})
	w := s.wire(t)
	for target, words := range map[string]string{"/ADMIN": "Capital letters count here",
		"/x//y": "two slashes in a row", "/%ff": "not written in UTF-8", "/x%2Fy": "escaped /",
		"/open/../x": "nothing but dots"} {
		a := w.do("GET", rawRequest("GET", target, s.host, "Accept: text/html"))
		if a.status != 400 || !strings.Contains(a.body, words) ||
			(strings.Contains(a.body, "slashes in a row") && target != "/x//y") {
			t.Errorf("%s: %d\n%s", target, a.status, a.body)
		}
	}
	for _, line := range []string{"X-Forwarded-Host: a, b", "X-Forwarded-Proto: https, http"} {
		if a := w.do("GET", rawRequest("GET", "/x", s.host, "Accept: text/html", line)); a.status != 400 ||
			!strings.Contains(a.body, "The proxy before this site") || strings.Contains(a.body, "slashes") {
			t.Errorf("%s: %d\n%s", line, a.status, a.body)
		}
	}
}

// tokenOf takes every token for somebody's.
type tokenOf struct{ who identity.Identity }

func (b tokenOf) Verify(context.Context, string) (identity.Identity, time.Time, error) {
	return b.who, time.Now().Add(time.Hour), nil
}
