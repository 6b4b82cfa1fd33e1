package proxy

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

const listedOrigin = "https://shop.example"

// corsSite has routes whose answers pages of listedOrigin may read; of "/own" the app
// says it.
func corsSite(t *testing.T, o setup) *testSite {
	t.Helper()
	const host = "127.0.0.1"
	o.Routes = []authz.Route{
		{Name: "app", Host: host, Path: "/", Access: authz.Access{Authenticated: true}},
		{Name: "admin", Host: host, Path: "/admin",
			Access: authz.Access{Rules: []authz.Rule{{Groups: []string{"admins"}}}}},
		{Name: "open", Host: host, Path: "/open", Access: authz.Access{Public: true}},
		{Name: "own", Host: host, Path: "/own", Access: authz.Access{Public: true}},
	}
	shared := &admission.CORS{Origins: []string{listedOrigin, "http://localhost:3000"},
		Methods: []string{"PUT", "DELETE"},
		Headers: []string{"Content-Type", "Authorization"}, MaxAge: 10 * time.Minute}
	with := *shared
	with.Credentials = true
	o.CORS = map[string]*admission.CORS{"app": shared, "admin": &with, "open": shared}
	return newTestSite(t, o)
}

func corsOf(h http.Header) (lines []string) {
	for name, values := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			lines = append(lines, name+": "+strings.Join(values, " | "))
		}
	}
	slices.Sort(lines)
	return lines
}

// P1: a preflight shows no session, and does not reach a protected app for all that.
func TestP01_PreflightsAreAnsweredHere(t *testing.T) {
	t.Parallel()
	s := corsSite(t, setup{})
	w, seen := s.wire(t), 0
	granted := []string{"Access-Control-Allow-Headers: Content-Type, Authorization",
		"Access-Control-Allow-Methods: PUT, DELETE", "Access-Control-Allow-Origin: " + listedOrigin,
		"Access-Control-Max-Age: 600"}
	withCookies := slices.Insert(slices.Clone(granted), 0, "Access-Control-Allow-Credentials: true")
	const asks, origin = "Access-Control-Request-Method: PUT", "Origin: " + listedOrigin
	for name, tt := range map[string]struct {
		path   string
		lines  []string
		status int
		want   []string
	}{
		"of a protected route":    {"/x", []string{origin, asks}, 204, granted},
		"of one with credentials": {"/admin", []string{origin, asks}, 204, withCookies},
		"of a public route":       {"/open", []string{origin, asks}, 204, granted},
		"of a method not listed, which the browser compares": {
			"/x", []string{origin, "Access-Control-Request-Method: PATCH"},
			204, granted},
		"of a page in another network": {
			"/x", []string{origin, asks, "Access-Control-Request-Private-Network: true"}, 204, granted},
		"of another site":     {"/x", []string{"Origin: https://evil.example", asks}, 204, nil},
		"of a name within":    {"/x", []string{"Origin: https://shop.example.evil.example", asks}, 204, nil},
		"of a sister":         {"/x", []string{"Origin: https://a.shop.example", asks}, 204, nil},
		"in capital letters":  {"/x", []string{"Origin: https://SHOP.example", asks}, 204, nil},
		"of another port":     {"/x", []string{"Origin: https://shop.example:8443", asks}, 204, nil},
		"by http":             {"/x", []string{"Origin: http://shop.example", asks}, 204, nil},
		"of no origin":        {"/x", []string{"Origin: null", asks}, 204, nil},
		"of an empty one":     {"/x", []string{"Origin:", asks}, 204, nil},
		"of two origins":      {"/x", []string{origin, "Origin: https://evil.example", asks}, 204, nil},
		"of one origin twice": {"/x", []string{origin, origin, asks}, 204, nil},
		"of two in one":       {"/x", []string{origin + ", " + listedOrigin, asks}, 204, nil},
		"of a method, twice":  {"/x", []string{origin, asks, asks}, 204, granted},
		"without a method it is none": {
			"/x", []string{origin}, 401, []string{"Access-Control-Allow-Origin: " + listedOrigin}},
		"without an origin, too": {"/x", []string{asks}, 401, nil},
		"where the app answers":  {"/own", []string{origin, asks}, 200, nil},
		"of nothing":             {"//x", []string{origin, asks}, 400, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w.tb = t
			a := w.do("OPTIONS", rawRequest("OPTIONS", tt.path, s.host, tt.lines...))
			if a.status != tt.status || !slices.Equal(corsOf(a.header), tt.want) {
				t.Errorf("%d %q, want %d %q", a.status, corsOf(a.header), tt.status, tt.want)
			}
			if (tt.status == 204 || tt.status == 401) && !slices.Equal(a.header["Vary"], []string{"Origin"}) {
				t.Errorf("Vary %q", a.header["Vary"])
			}
			if fresh := s.hits(&seen); (len(fresh) == 1) != (tt.status == 200) {
				t.Errorf("%d requests reached the app", len(fresh))
			}
			if tt.status == 204 {
				line := s.log.event(t, a.header.Get("X-Request-Id"))
				if line["decision"] != "preflight" || line["reason"] != "preflight" {
					t.Errorf("logged %v", line)
				}
			}
		})
	}
	a := w.do("POST", rawRequest("POST", "/open", s.host, origin, asks, "Content-Length: 0"))
	if fresh := s.hits(&seen); a.status != 200 || len(fresh) != 1 {
		t.Errorf("a POST that names a method: %d, %d requests", a.status, len(fresh))
	}
}

// What the app says to pages of other sites does not count, whoever is refused.
func TestPagesOfOtherSitesReadWhatTheRouteSays(t *testing.T) {
	t.Parallel()
	s := corsSite(t, setup{})
	s.app.Respond(reply("Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n"+
		"access-control-allow-private-network: true\r\nAccess-Control-Expose-Headers: *\r\nVary: Accept\r\n", "ok"))
	w := s.wire(t)
	alice, bob := "Cookie: "+s.mint(t, alice()), "Cookie: "+s.mint(t, bob())
	const origin, foreign = "Origin: " + listedOrigin, "Origin: https://evil.example"
	allowed := "Access-Control-Allow-Origin: " + listedOrigin
	credentials := "Access-Control-Allow-Credentials: true"
	for name, tt := range map[string]struct {
		path   string
		lines  []string
		status int
		want   []string
		vary   string
	}{
		"an answer": {"/x", []string{origin, alice}, 200, []string{allowed}, "Accept Origin"},
		"with cookies": {
			"/admin", []string{origin, alice}, 200, []string{credentials, allowed}, "Accept Origin"},
		"a public one":                      {"/open", []string{origin}, 200, []string{allowed}, "Accept Origin"},
		"to another site":                   {"/x", []string{foreign, alice}, 200, nil, "Accept Origin"},
		"to two sites":                      {"/x", []string{origin, foreign, alice}, 200, nil, "Accept Origin"},
		"to a page of ours":                 {"/x", []string{alice}, 200, nil, "Accept Origin"},
		"nobody is signed in":               {"/x", []string{origin}, 401, []string{allowed}, "Origin"},
		"nobody is signed in, another site": {"/x", []string{foreign}, 401, nil, "Origin"},
		"somebody else": {
			"/admin", []string{origin, bob}, 403, []string{credentials, allowed}, "Origin"},
		"somebody else, another site": {"/admin", []string{foreign, bob}, 403, nil, "Origin"},
	} {
		t.Run(name, func(t *testing.T) {
			w.tb = t
			a := w.do("GET", rawRequest("GET", tt.path, s.host, tt.lines...))
			if a.status != tt.status || !slices.Equal(corsOf(a.header), tt.want) {
				t.Errorf("%d %q, want %d %q", a.status, corsOf(a.header), tt.status, tt.want)
			}
			if got := strings.Join(a.header["Vary"], " "); got != tt.vary {
				t.Errorf("Vary %q, want %q", got, tt.vary)
			}
		})
	}
	a := w.do("GET", rawRequest("GET", "/own", s.host, foreign))
	if got := a.header.Get("Access-Control-Allow-Origin"); got != "*" || a.header.Get("Vary") != "Accept" {
		t.Errorf("where the app says it: %q, Vary %q", got, a.header["Vary"])
	}
}

// An app that does not answer, and hints that it sends before: a page can tell a fault
// from a refusal of its browser.
func TestPagesOfOtherSitesReadFaults(t *testing.T) {
	t.Parallel()
	s := corsSite(t, setup{})
	s.app.Respond(func([]byte) []byte {
		return []byte("HTTP/1.1 103 Early Hints\r\nAccess-Control-Allow-Origin: *\r\nLink: </a>; rel=preload\r\n\r\n" +
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVary: origin\r\n\r\nok")
	})
	got := s.talk(t, rawRequest("GET", "/open", s.host, "Origin: https://evil.example", "Connection: close"))
	if len(got) == 0 || slices.ContainsFunc(got, func(a answer) bool { return corsOf(a.header) != nil }) {
		t.Errorf("%+v", got)
	}
	if last := got[len(got)-1]; !slices.Equal(last.header["Vary"], []string{"origin"}) {
		t.Errorf("Vary %q is said twice", last.header["Vary"])
	}
	s.app.Respond(func([]byte) []byte { return []byte("nonsense\r\n\r\n") })
	a := s.get(t, "/open", "Origin: "+listedOrigin)
	if a.status != 502 || a.header.Get("Access-Control-Allow-Origin") != listedOrigin {
		t.Errorf("%d %v", a.status, a.header)
	}
}

// The verdict of admission is for every front door: one that cannot answer a preflight
// must not take it for something to pass on.
func TestP01_APreflightIsNeverForwarded(t *testing.T) {
	t.Parallel()
	s := corsSite(t, setup{})
	facts, err := authz.NewFacts("OPTIONS", "http", s.host, "/open")
	testenv.Check(t, err)
	h := http.Header{"Origin": {listedOrigin}, "Access-Control-Request-Method": {"PUT"}}
	a, err := s.proxy.admission.Admit(t.Context(), admission.Request{Facts: facts, Header: h})
	testenv.Check(t, err)
	if a.Verdict.Outcome != authz.Preflight || a.Principal != nil {
		t.Errorf("%+v", a)
	}
}
