package proxy

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/authz"
)

// conditionRoutes are open for some methods or addresses. A route whose name begins with
// kept is to keep method overrides.
func conditionRoutes(host string, from []netip.Prefix) []authz.Route {
	get := authz.Conditions{Methods: []string{"GET"}}
	editors := []authz.Rule{{Groups: []string{"admins"}, Methods: []string{"GET", "PUT", "MOVE"}}}
	return []authz.Route{
		{Name: "app", Host: host, Path: "/", Access: authz.Access{Authenticated: true}},
		{Name: "reads", Host: host, Path: "/reads", Access: authz.Access{Public: true, PublicIf: get}},
		{Name: "wiki", Host: host, Path: "/wiki", Access: authz.Access{Public: true, PublicIf: get, Rules: editors},
			WebSocket: authz.WebSocket{Allowed: true}},
		{Name: "kept-wiki", Host: host, Path: "/kept", Access: authz.Access{Public: true, PublicIf: get}},
		{Name: "kept-rule", Host: host, Path: "/rule", Access: authz.Access{Rules: editors}},
		{Name: "kept-open", Host: host, Path: "/open", Access: authz.Access{Public: true}},
		{Name: "office", Host: host, Path: "/office", Access: authz.Access{Public: true,
			PublicIf: authz.Conditions{From: from}}},
		{Name: "lobby", Host: host, Path: "/lobby", Access: authz.Access{Public: true,
			PublicIf: authz.Conditions{From: from}, Authenticated: true}},
	}
}

func conditionSite(t *testing.T, o setup, from ...string) *testSite {
	t.Helper()
	o.Routes = conditionRoutes("127.0.0.1", prefixes(t, from...))
	o.Passes = map[string][]string{}
	for _, r := range o.Routes {
		if strings.HasPrefix(r.Name, "kept") {
			o.Passes[r.Name] = []string{"X-Http-Method", "X-Http-Method-Override", "X-Method-Override"}
		}
	}
	return newTestSite(t, o)
}

// P1: what is public for reading is not public for writing, and a method decides byte
// for byte.
func TestP01_WhatIsPublicForReadingIsNotForWriting(t *testing.T) {
	t.Parallel()
	s := conditionSite(t, setup{}, "192.0.2.0/24")
	w, seen := s.wire(t), 0
	alice, bob := "Cookie: "+s.mint(t, alice()), "Cookie: "+s.mint(t, bob())
	const nobody = "Cookie: a=b"
	own, foreign := "Origin: http://"+s.host, "Origin: https://evil.example"
	handshake := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	for name, tt := range map[string]struct {
		method, path string
		lines        []string
		status       int
	}{
		"nobody reads":                   {"GET", "/reads", []string{nobody}, 200},
		"nobody asks for the header":     {"HEAD", "/reads", []string{nobody}, 200},
		"nobody writes":                  {"POST", "/reads", []string{nobody}, 403},
		"somebody writes":                {"POST", "/reads", []string{alice}, 403},
		"nobody reads in small letters":  {"get", "/reads", []string{nobody}, 403},
		"nobody has a word of their own": {"GETX", "/reads", []string{nobody}, 403},
		"nobody asks for the options":    {"OPTIONS", "/reads", []string{nobody}, 403},
		"nobody asks for a preflight": {
			"OPTIONS", "/reads", []string{foreign, "Access-Control-Request-Method: GET"}, 403},
		"nobody connects":                    {"CONNECT", "/reads", []string{nobody}, 405},
		"nobody traces":                      {"TRACE", "/reads", []string{nobody}, 405},
		"a page is opened":                   {"GET", "/wiki/a", []string{nobody}, 200},
		"a wiki page is written by nobody":   {"PUT", "/wiki/a", []string{nobody}, 401},
		"a wiki page is written by an admin": {"PUT", "/wiki/a", []string{alice}, 200},
		"a wiki page is written by another":  {"PUT", "/wiki/a", []string{bob}, 403},
		"a wiki page is deleted by an admin": {"DELETE", "/wiki/a", []string{alice}, 403},
		"a wiki page is deleted by nobody":   {"DELETE", "/wiki/a", []string{nobody}, 403},
		"a method is named by a header":      {"GET", "/wiki/a", []string{nobody, "X-HTTP-Method-Override: PUT"}, 200},
		"a move within what is theirs":       {"MOVE", "/wiki/a", []string{alice, "Destination: /wiki/b"}, 200},
		"a move to where MOVE is not listed": {"MOVE", "/wiki/a", []string{alice, "Destination: /reads/b"}, 403},
		"a copy is no GET":                   {"COPY", "/reads/a", []string{nobody, "Destination: /reads/b"}, 403},
		"a WebSocket is a GET":               {"GET", "/wiki/a", append([]string{own}, handshake...), 200},
		"but not from another site":          {"GET", "/wiki/a", append([]string{foreign}, handshake...), 403},
		"nor where the route has none":       {"GET", "/reads/a", append([]string{own}, handshake...), 403},
	} {
		t.Run(name, func(t *testing.T) {
			w.tb = t
			a := w.do(tt.method, rawRequest(tt.method, tt.path, s.host, append(tt.lines, "Content-Length: 0")...))
			if a.status != tt.status {
				t.Errorf("answered %d, want %d: %s", a.status, tt.status, a.body)
			}
			if fresh := s.hits(&seen); (len(fresh) == 1) != (tt.status == 200) {
				t.Errorf("%d requests reached the app", len(fresh))
			}
			if tt.status == 403 && a.header.Get("Location")+a.header.Get("WWW-Authenticate") != "" {
				t.Errorf("403 sends people to sign in: %v", a.header)
			}
		})
	}
}

// P2, P3: where the method was judged the app is told no other one, whatever the route
// keeps and however the header is spelt.
func TestP03_NoHeaderNamesAnotherMethodThanWasJudged(t *testing.T) {
	t.Parallel()
	s := conditionSite(t, setup{}, "192.0.2.0/24")
	w, seen := s.wire(t), 0
	cookie := "Cookie: " + s.mint(t, alice())
	spellings := []string{"X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override", "x-http-method-override",
		"X_HTTP_Method_Override", "X.HTTP.Method.Override", "X-HTTP_Method.Override", "X_METHOD_OVERRIDE",
		"x_http-method",
		"X!Http+Method", "X-Http~Method-Override"}
	for path, wanted := range map[string]bool{"/reads": false, "/kept": false, "/rule": false, "/wiki": false,
		"/open": true} {
		var lines []string
		for _, name := range spellings {
			lines = append(lines, name+": DELETE")
		}
		raw := rawRequest("GET", path, s.host, append(lines, cookie)...)
		if a := w.do("GET", raw); a.status != 200 {
			t.Fatalf("%s: %d %s", path, a.status, a.body)
		}
		var got []string
		for _, request := range s.hits(&seen) {
			for name := range headerOf(request) {
				if strings.Contains(foldName(name), "method") {
					got = append(got, name)
				}
			}
		}
		if wanted != (len(got) > 0) {
			t.Errorf("%s: the app receives %q", path, got)
		}
	}
	chunked := "PUT /wiki/a HTTP/1.1\r\nConnection: close\r\nHost: " + s.host + "\r\n" + cookie +
		"\r\nTransfer-Encoding: chunked\r\n" +
		"Trailer: X-HTTP-Method-Override\r\n\r\n1\r\nx\r\n0\r\nX-HTTP-Method-Override: DELETE\r\n\r\n"
	if a := s.talk(t, chunked); len(a) != 1 || a[0].status != 200 {
		t.Fatalf("%+v", a)
	}
	if got := s.hits(&seen); len(got) != 1 || strings.Contains(string(got[0]), "DELETE") {
		t.Errorf("in the trailers:\n%s", got)
	}
}

// P4: a rule about addresses takes the connection's, or that which a listed proxy names,
// and where neither is sure, none.
func TestP04_AnAddressThatIsNotSureFulfilsNoRule(t *testing.T) {
	t.Parallel()
	const here, far = "127.0.0.0/8", "192.0.2.0/24"
	for name, tt := range map[string]struct {
		trusted []string
		from    string // of the rule
		lines   []string
		open    bool
	}{
		"the connection's":         {nil, here, nil, true},
		"not the connection's":     {nil, far, nil, false},
		"a stranger names another": {nil, far, []string{"X-Forwarded-For: 192.0.2.1"}, false},
		"other headers name another": {
			[]string{here}, far, []string{"X-Real-IP: 192.0.2.1", "Forwarded: for=192.0.2.1"}, false},
		"a proxy that is not listed asks for others": {nil, here, []string{"X-Forwarded-For: 192.0.2.1"}, false},
		"with an empty name, too":                    {nil, here, []string{"X-Forwarded-For:"}, false},
		"a listed proxy": {
			[]string{here}, far, []string{"X-Forwarded-For: 192.0.2.1"}, true},
		"a listed proxy, with a port": {
			[]string{here}, far, []string{"X-Forwarded-For: 192.0.2.1:4000"}, true},
		"a listed proxy, mapped": {
			[]string{here}, far, []string{"X-Forwarded-For: ::ffff:192.0.2.1"}, true},
		"a listed proxy, after what a client wrote": {
			[]string{here}, far, []string{"X-Forwarded-For: 192.0.2.1, 198.51.100.1"}, false},
		"the right one of two": {
			[]string{here}, far, []string{"X-Forwarded-For: 198.51.100.1, 192.0.2.1"}, true},
		"the right line of two": {
			[]string{here}, far, []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 198.51.100.1"}, false},
		"a listed proxy that names nobody": {[]string{here}, here, nil, false},
		"a listed proxy that says unknown": {
			[]string{here}, here, []string{"X-Forwarded-For: unknown"}, false},
		"a listed proxy with something broken": {
			[]string{here}, here, []string{"X-Forwarded-For: 192.0.2.1, 999.1.1.1"}, false},
		"a listed proxy with a blank for a comma": {
			[]string{here}, far, []string{"X-Forwarded-For: 198.51.100.1 192.0.2.1"}, false},
		"a client among the listed": {
			[]string{here}, here, []string{"X-Forwarded-For: 127.0.0.9"}, true},
		"more proxies than are followed": {[]string{here}, here,
			[]string{"X-Forwarded-For: " + strings.Repeat("127.0.0.1,", maxChain) + "127.0.0.1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := conditionSite(t, setup{Trusted: prefixes(t, tt.trusted...)}, tt.from)
			w := s.wire(t)
			for path, refused := range map[string]int{"/office": 403, "/lobby": 401} {
				want := refused
				if tt.open {
					want = 200
				}
				a := w.do("GET", rawRequest("GET", path, s.host, tt.lines...))
				if a.status != want {
					t.Errorf("%s: %d, want %d: %s", path, a.status, want, a.body)
				}
				if a.status != 403 || tt.from == far {
					continue
				}
				line := s.log.event(t, a.header.Get("X-Request-Id"))
				if note, _ := line["note"].(string); !strings.Contains(note, "trusted_proxies") {
					t.Errorf("%s: the log does not tell why: %v", path, line)
				}
			}
		})
	}
}

// A load balancer that does not say for whom it opened a connection is not the client.
func TestP04_AConnectionWithoutAPortIsNobodys(t *testing.T) {
	t.Parallel()
	for remote, sure := range map[string]bool{"127.0.0.1:4000": true, "127.0.0.1:0": false, "@": false, "": false,
		"[::ffff:127.0.0.1]:4000": true} {
		at, err := peers{}.of(&http.Request{RemoteAddr: remote})
		if err != nil || at.addr.IsValid() != sure || sure && at.addr != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("%q: %v, %v", remote, at.addr, err)
		}
	}
}

// P1: with what a rule lets in, a session is as good as without one: the app is told of
// nobody, and nobody's session is refused or renewed there.
func TestP01_WhatIsPublicForNowTellsTheAppNothing(t *testing.T) {
	t.Parallel()
	s := conditionSite(t, setup{}, "192.0.2.0/24")
	w, seen := s.wire(t), 0
	cookie := "Cookie: " + s.mint(t, alice())
	for method, told := range map[string]bool{"GET": false, "PUT": true} {
		a := w.do(method, rawRequest(method, "/wiki/a", s.host, cookie, "Content-Length: 0"))
		fresh := s.hits(&seen)
		if a.status != 200 || len(fresh) != 1 {
			t.Fatalf("%s: %d, %d requests", method, a.status, len(fresh))
		}
		if is := strings.Contains(string(fresh[0]), "\nX-Forwarded-User: "); is != told {
			t.Errorf("%s: told %v\n%s", method, is, fresh[0])
		}
		if strings.Contains(string(fresh[0]), "sallyport=") {
			t.Errorf("%s: our cookie reached the app", method)
		}
	}
}
