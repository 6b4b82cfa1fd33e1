package proxy

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// headerSite has one route for every preset, one with names of its own, spelled
// as nobody should (CVE-2026-33433, CVE-2026-54763), and a public one.
func headerSite(t *testing.T, o setup) *testSite {
	t.Helper()
	host := "127.0.0.1"
	o.Fields = map[string][]identity.Field{
		"free": {
			{Header: "x-fwd-user", Claim: identity.ClaimUser},
			{Header: "X_Team.Name", Claim: identity.ClaimGroups, Join: "|"},
			{Header: "X-ORG", Claim: identity.ClaimOrgID},
		},
	}
	o.Routes = []authz.Route{
		{Name: "free", Host: host, Path: "/free", Access: authz.Access{Authenticated: true}},
		{Name: "open", Host: host, Path: "/open", Access: authz.Access{Public: true}},
	}
	for _, preset := range identity.Presets() {
		o.Fields[preset], _ = identity.Preset(preset)
		o.Routes = append(o.Routes, authz.Route{Name: preset, Host: host, Path: "/" + preset,
			Access: authz.Access{Authenticated: true}})
	}
	return newTestSite(t, o)
}

// RFC 9110 §7.6.2: who looks which server answers OPTIONS is told, hop by hop. Of other methods,
// and what is no number, the header is the app's.
func TestAnOptionsRequestGoesAsFarAsItSays(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	for name, tt := range map[string]struct{ method, sent, app string }{ // app "": it is not asked
		"not at all":           {"OPTIONS", "0", ""},
		"with more digits":     {"OPTIONS", "000", ""},
		"to the app":           {"OPTIONS", "1", "0"},
		"further":              {"OPTIONS", "10", "9"},
		"further than we know": {"OPTIONS", "99999999999999999999999", "18446744073709551614"},
		"a word":               {"OPTIONS", "many", "many"},
		"less than nothing":    {"OPTIONS", "-1", "-1"},
		"of another method":    {"GET", "0", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(s.app.Requests())
			got := s.talk(t, rawRequest(tt.method, "/open", s.host, "Max-Forwards: "+tt.sent, "Connection: close"))
			asked := len(s.app.Requests()) - before
			switch {
			case tt.app == "" && (asked != 0 || got[0].status != 204 ||
				!strings.Contains(got[0].header.Get("Allow"), "GET")):
				t.Errorf("%d requests reached the app; answered %d %v", asked, got[0].status, got[0].header)
			case tt.app != "" && (asked != 1 ||
				!strings.Contains(string(s.app.Last(t)), "\r\nMax-Forwards: "+tt.app+"\r\n")):
				t.Errorf("the app got %d: %s", asked, s.app.Last(t))
			}
		})
	}
}

// told is what the app behind each route of headerSite must be told of alice,
// by folded name; written down by hand, not computed.
func told() map[string]map[string]string {
	full := func(p string) map[string]string {
		return map[string]string{
			p + "user": "main:alice-1", p + "email": "alice@acme.example", p + "preferred-username": "alice",
			p + "name": "Alice %C3%84mter", p + "groups": "admins,on-call",
			p + "org-id": "main:acme", p + "org-name": "Acme Rockets", p + "org-domain": "acme.example",
		}
	}
	return map[string]map[string]string{
		"forwarded":    full("x-forwarded-"),
		"auth-request": full("x-auth-request-"),
		"remote": {"remote-user": "main:alice-1", "remote-email": "alice@acme.example",
			"remote-name":   "Alice %C3%84mter",
			"remote-groups": "admins,on-call"},
		"none": {},
		"free": {"x-fwd-user": "main:alice-1", "x-team-name": "admins|on-call", "x-org": "main:acme"},
		"open": {},
	}
}

// forgeable are names that only a proxy may write: identity, of every preset and
// route, and what proxies tell each other.
func forgeable() []string {
	names := []string{
		"x-sallyport-assertion", "x-sallyport-anything", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
		"x-forwarded-port",
		"x-forwarded-prefix", "x-forwarded-server", "x-forwarded-ssl", "x-forwarded-uri", "x-forwarded-method",
		"x-forwarded-access-token",
		"x-forwarded-client-cert", "forwarded", "x-real-ip", "true-client-ip", "x-original-url", "x-original-uri",
		"x-original-method",
		"x-original-host", "x-rewrite-url", "x-envoy-original-path", "x-envoy-external-address",
		"x-auth-request-access-token",
		"remote-addr", "proxy", "cf-connecting-ip", "x-remote-user", "x-webauth-user", "client-cert",
		"client-cert-chain", "ssl-client-cert",
		"x-forwarded-roles", // nobody's yet
		"x-http-method-override", "x-vouch-user", "x-pomerium-jwt-assertion", "oidc-claim-sub", "x-auth-user",
		"x-ms-client-principal-id", "sm-user",
	}
	for _, headers := range told() {
		names = slices.AppendSeq(names, maps.Keys(headers))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// spellings are ways to write a name that some app folds back (CVE-2025-64484,
// CVE-2026-39858, CVE-2026-52845).
func spellings() map[string]func(string) string {
	seps := func(cycle string) func(string) string {
		return func(name string) string {
			n := -1
			return strings.Map(func(r rune) rune {
				if r != '-' {
					return r
				}
				n++
				return rune(cycle[n%len(cycle)])
			}, name)
		}
	}
	alternate := func(name string) string {
		b := []byte(name)
		for i := 0; i < len(b); i += 2 {
			b[i] = strings.ToUpper(string(b[i]))[0]
		}
		return string(b)
	}
	return map[string]func(string) string{
		"canonical":         http.CanonicalHeaderKey,
		"lower case":        strings.ToLower,
		"upper case":        strings.ToUpper,
		"alternating case":  alternate,
		"underscores":       seps("_"),
		"UNDERSCORES":       func(n string) string { return strings.ToUpper(seps("_")(n)) },
		"dots":              seps("."),
		"dash, underscore":  seps("-_"),
		"underscore, dash":  seps("_-"),
		"dot, dash":         func(n string) string { return alternate(seps(".-")(n)) },
		"underscore, dot":   seps("_."),
		"other token bytes": seps("!+"),
	}
}

func rawRequest(method, target, host string, lines ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

// ours is everything an app may receive besides what it is told of a person.
func ours(s *testSite, signedIn bool) map[string]string {
	want := map[string]string{"host": s.host, "x-forwarded-for": "127.0.0.1", "x-forwarded-host": s.host,
		"x-forwarded-proto": "http",
		"via":               "1.1 sallyport", "x-request-id": "*"}
	if signedIn {
		want["x-sallyport-assertion"] = "*"
	}
	return want
}

// checkTold compares the whole head that reached the app.
func checkTold(t *testing.T, raw []byte, want ...map[string]string) {
	t.Helper()
	all := map[string]string{}
	for _, w := range want {
		maps.Copy(all, w)
	}
	got := headerOf(raw)
	for name, value := range all {
		switch {
		case len(got[name]) != 1:
			t.Errorf("%s arrived as %q, want one %q", name, got[name], value)
		case value != "*" && got[name][0] != value:
			t.Errorf("%s is %q, want %q", name, got[name][0], value)
		}
	}
	for name, values := range got {
		if _, expected := all[name]; !expected {
			t.Errorf("%s: %q arrived and should not have", name, values)
		}
	}
	if strings.Contains(string(raw), "forged") {
		t.Errorf("a forged value arrived:\n%s", raw)
	}
}

// Identity headers and forwarding headers that a client sends, in every spelling
// that reached an app elsewhere: oauth2-proxy CVE-2026-40575, CVE-2025-64484;
// Traefik CVE-2026-39858, CVE-2026-54763, CVE-2026-35051, CVE-2026-29054; Caddy
// CVE-2026-30851, CVE-2026-52845; oathkeeper CVE-2026-33495; httpoxy
// (CVE-2016-5386).
func TestP02_ForgedIdentityHeadersNeverArrive(t *testing.T) {
	t.Parallel()
	s := headerSite(t, setup{})
	w, cookie := s.wire(t), s.mint(t, alice())
	names := forgeable()
	seen := 0
	for spelling, spell := range spellings() {
		var forged []string
		for i, name := range names {
			forged = append(forged, fmt.Sprintf("%s: forged-%d", spell(name), i),
				fmt.Sprintf("%s:forged again", spell(name)))
		}
		for route, headers := range told() {
			for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "DELETE"} {
				t.Run(strings.Join([]string{spelling, route, method}, "/"), func(t *testing.T) {
					w.tb = t
					lines := append([]string{"Cookie: " + cookie}, forged...)
					own := ours(s, route != "open")
					if method == "POST" {
						lines, own["content-length"] = append(lines, "Content-Length: 0"), "0"
					}
					if a := w.do(method, rawRequest(method, "/"+route+"/x", s.host, lines...)); a.status != 200 {
						t.Fatalf("answered %d", a.status)
					}
					fresh := s.hits(&seen)
					if len(fresh) != 1 {
						t.Fatalf("%d requests reached the app", len(fresh))
					}
					checkTold(t, fresh[0], own, headers)
				})
			}
		}
	}
}

// CVE-2021-33197, GHSA-w9mr-28mw-j8hg, CVE-2024-45410, CVE-2026-29054: what a
// Connection header names is removed, but never what we set.
func TestP02_ConnectionHeadersCannotTakeOurHeadersAway(t *testing.T) {
	t.Parallel()
	s := headerSite(t, setup{})
	w, cookie := s.wire(t), s.mint(t, alice())
	all := strings.Join(forgeable(), ", ") + ", via, x-request-id, x-sallyport-assertion, host"
	seen := 0
	for name, lines := range map[string][]string{
		"one line":           {"Connection: " + all},
		"upper case":         {"CONNECTION: " + strings.ToUpper(all)},
		"after keep-alive":   {"Connection: keep-alive, " + all},
		"first line empty":   {"Connection: ", "Connection: " + all},
		"first line a comma": {"Connection: ,", "connection: " + all},
		"three lines":        {"Connection: keep-alive", "Connection: ", "Connection: " + all},
		"one line per name": strings.Split("Connection: "+strings.ReplaceAll(all, ", ", "\nConnection: "),
			"\n"),
		"with forged values":        {"Connection: " + all, "X-Forwarded-User: forged", "Remote-User: forged"},
		"underscores":               {"Connection: " + strings.ReplaceAll(all, "-", "_")},
		"Proxy-Connection and more": {"Proxy-Connection: " + all, "Keep-Alive: " + all, "Connection: " + all},
	} {
		for route, headers := range told() {
			t.Run(name+"/"+route, func(t *testing.T) {
				w.tb = t
				if a := w.do("GET", rawRequest("GET", "/"+route, s.host, append([]string{"Cookie: " + cookie}, lines...)...)); a.status != 200 {
					t.Fatalf("answered %d", a.status)
				}
				fresh := s.hits(&seen)
				if len(fresh) != 1 {
					t.Fatalf("%d requests reached the app", len(fresh))
				}
				checkTold(t, fresh[0], ours(s, route != "open"), headers)
			})
		}
	}
}

// A header is no less a header for coming after the body (RFC 9110 §6.5.1).
func TestP02_ForgedTrailersNeverArrive(t *testing.T) {
	t.Parallel()
	s := headerSite(t, setup{})
	w, cookie := s.wire(t), s.mint(t, alice())
	for route := range told() {
		raw := rawRequest("POST", "/"+route, s.host, "Cookie: "+cookie, "Transfer-Encoding: chunked", "TE: trailers",
			"Trailer: X-Forwarded-User, X_Forwarded_Email, X-Fwd-User, Remote-User, X-Checksum") +
			"5\r\nhello\r\n0\r\nX-Forwarded-User: forged\r\nX_Forwarded_Email: forged\r\nx-fwd-user: " +
			"forged\r\nRemote-User: forged\r\nX-Forwarded-Groups: forged\r\nX-Sallyport-Assertion: " +
			"forged\r\nAuthorization: forged\r\nCookie: forged\r\nX-Checksum: kept\r\n\r\n"
		if a := w.do("POST", raw); a.status != 200 {
			t.Fatalf("%s: answered %d", route, a.status)
		}
		got := s.app.Last(t)
		if strings.Contains(string(got), "forged") || !strings.Contains(string(got), "hello") {
			t.Errorf("%s: the app received\n%s", route, got)
		}
		if announced := testenv.HeaderLines(got, "Trailer"); !slices.Equal(announced, []string{"X-Checksum"}) ||
			!strings.HasSuffix(string(got), "0\r\nX-Checksum: kept\r\n\r\n") {
			t.Errorf("%s: %q were announced, the app received\n%s", route, announced, got)
		}
	}
}

func TestP02_ForgedIdentityHeadersNeverArriveOverHTTP2(t *testing.T) {
	t.Parallel()
	s := headerSite(t, setup{TLS: true})
	cookie := s.mint(t, alice())
	if !strings.HasPrefix(cookie, "__Host-sallyport=") {
		t.Fatalf("cookie %q", cookie)
	}
	names, seen := forgeable(), 0
	for spelling, spell := range spellings() {
		for route, headers := range told() {
			t.Run(spelling+"/"+route, func(t *testing.T) {
				lines := []string{"Cookie: " + cookie}
				for _, name := range names {
					lines = append(lines, strings.ToLower(spell(name))+": forged",
						strings.ToLower(spell(name))+": forged twice")
				}
				a := s.get(t, "/"+route, append(lines, "User-Agent: x")...)
				if a.status != 200 || a.proto != "HTTP/2.0" {
					t.Fatalf("answered %s %d", a.proto, a.status)
				}
				fresh := s.hits(&seen)
				if len(fresh) != 1 {
					t.Fatalf("%d requests reached the app", len(fresh))
				}
				own := ours(s, route != "open")
				own["x-forwarded-proto"], own["via"], own["user-agent"] = "https", "2.0 sallyport", "x"
				checkTold(t, fresh[0], own, headers)
			})
		}
	}
}

// A person without groups, organization or verified address must not get a
// client's (CVE-2026-30851).
func TestP02_WhatAPersonLacksIsAbsent(t *testing.T) {
	t.Parallel()
	s := headerSite(t, setup{})
	who := bob()
	who.Name, who.Username, who.Email = "", "", "alice@acme.example" // and not verified
	w, cookie := s.wire(t), s.mint(t, who)
	for route, user := range map[string]map[string]string{
		"forwarded": {"x-forwarded-user": "main:bob-1"}, "auth-request": {"x-auth-request-user": "main:bob-1"},
		"remote": {"remote-user": "main:bob-1"}, "free": {"x-fwd-user": "main:bob-1"}, "none": {}, "open": {},
	} {
		lines := []string{"Cookie: " + cookie}
		for _, name := range forgeable() {
			lines = append(lines, name+": forged")
		}
		if a := w.do("GET", rawRequest("GET", "/"+route, s.host, lines...)); a.status != 200 {
			t.Fatalf("answered %d", a.status)
		}
		checkTold(t, s.app.Last(t), ours(s, route != "open"), user)
	}
}

// Whatever a person or group is called, its header is one line of ASCII and can be
// decoded again. Envoy CVE-2023-27493 passed such values on unescaped.
func TestP02_OddNamesNeverSplitAHeader(t *testing.T) {
	t.Parallel()
	s := headerSite(t, setup{})
	w := s.wire(t)
	values := map[string]string{
		"CR LF": "a\r\nX-Forwarded-User: main:root", "lone LF": "a\nb", "lone CR": "a\rb", "NUL": "a\x00b",
		"DEL": "a\x7fb", "ESC": "a\x1b[31mb",
		"NEL": "a\u0085b", "line separator": "a\u2028b", "right to left": "a\u202eb", "accent": "José", "emoji": "🦊",
		"percent":       "100%25",
		"blanks around": "  a  ", "tab": "\ta", "colon": "a: b", "quotes": `a"b`, "encoded word": "=?utf-8?q?a?=",
		"comma": "a,admins",
		"pipe":  "a|admins", "long": strings.Repeat("ä", 120), "BOM": "\ufeffa", "only a blank": " ",
	}
	for name, v := range values {
		t.Run(name, func(t *testing.T) {
			w.tb = t
			who := alice()
			who.Subject, who.Name, who.Username, who.Groups = "s"+v, v, v, []string{v, "x"}
			who.Org.ID, who.Org.Name = "main:"+v, v
			cookie := s.mint(t, who)
			for route, want := range told() {
				if route == "open" {
					continue
				}
				if a := w.do("GET", rawRequest("GET", "/"+route, s.host, "Cookie: "+cookie)); a.status != 200 {
					t.Fatalf("%s: answered %d", route, a.status)
				}
				raw := s.app.Last(t)
				own := ours(s, true)
				for header := range want {
					own[header] = "*"
				}
				checkTold(t, raw, own)
				for header, values := range headerOf(raw) {
					if strings.ContainsFunc(values[0], func(r rune) bool { return r < 0x20 || r > 0x7e }) {
						t.Errorf("%s: %s is not printable ASCII: %q", route, header, values[0])
					}
				}
				switch route {
				case "forwarded":
					checkReads(t, raw, "X-Forwarded-Name", v)
					checkReads(t, raw, "X-Forwarded-User", "main:s"+v)
					checkGroups(t, raw, "X-Forwarded-Groups", ",", v)
				case "free":
					checkGroups(t, raw, "X_team.name", "|", v)
				}
			}
		})
	}
}

func checkReads(t *testing.T, raw []byte, header, want string) {
	t.Helper()
	lines := testenv.HeaderLines(raw, header)
	if len(lines) != 1 {
		t.Errorf("%s: %q", header, lines)
		return
	}
	if got, err := url.PathUnescape(lines[0]); got != want && lines[0] != want {
		t.Errorf("%s: %q reads as %q (%v), want %q", header, lines[0], got, err, want)
	}
}

// checkGroups: the app splits and decodes, and must find the two groups.
func checkGroups(t *testing.T, raw []byte, header, join, first string) {
	t.Helper()
	lines := testenv.HeaderLines(raw, header)
	if len(lines) != 1 {
		t.Errorf("%s: %q in\n%s", header, lines, raw)
		return
	}
	parts := strings.Split(lines[0], join)
	if len(parts) != 2 || parts[1] != "x" {
		t.Errorf("%s: %q is not two groups", header, lines[0])
		return
	}
	if got, err := url.PathUnescape(parts[0]); got != first && parts[0] != first {
		t.Errorf("%s: the first group reads as %q (%v), want %q", header, got, err, first)
	}
}

// Too much to fit into a cookie is a failed sign-in with a page, not a session
// with a part of somebody in it.
func TestP17_AnIdentityTooLargeForACookieIsAPage(t *testing.T) {
	t.Parallel()
	who := alice()
	who.Name = strings.Repeat("x", 8<<10)
	s := newTestSite(t, setup{Login: fixedLogin{who: who}})
	b := s.browser(t)
	state := b.Open(s.url + "/deep?x=1")
	page := b.Open(s.url + prefix + "/callback/main?code=c&state=" + url.QueryEscape(state.URL.Query().Get("state")))
	if page.Status != http.StatusBadGateway || !strings.Contains(page.Body, "could not be trusted") {
		t.Errorf("answered %d\n%s", page.Status, page.Body)
	}
	if len(b.Cookies(s.url)) != 1 {
		t.Errorf("kept %v", b.Cookies(s.url))
	}

	who = alice()
	who.Groups = nil
	for i := range 500 {
		who.Groups = append(who.Groups, fmt.Sprintf("group-%d", i))
	}
	if a := s.get(t, "/x", "Cookie: "+s.mint(t, who)); a.status != 200 {
		t.Fatalf("answered %d", a.status)
	}
	if got := testenv.HeaderLines(s.app.Last(t), "X-Forwarded-Groups"); got != nil {
		t.Errorf("a cut list of groups arrived: %q", got)
	}
	if a := s.get(t, "/admin", navigate("Cookie: "+s.mint(t, who))...); a.status != 403 ||
		!strings.Contains(a.body, "more groups than your session here can hold") {
		t.Errorf("unknown groups: %d\n%s", a.status, a.body)
	}
}

// An app with Windows authentication believes a connection once somebody has
// proved who they are on it. Nobody else's request may use that connection.
func TestP02_NTLMConnectionIsNotReusedForAnotherUser(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"NTLM", "Negotiate", "negotiate"} {
		app := playApp(t, func(p *appPeer) {
			known := "nobody"
			for {
				h := p.head()
				if h == "" {
					return
				}
				if _, rest, ok := strings.Cut(h, "Authorization: "+scheme+" "); ok {
					known, _, _ = strings.Cut(rest, "\r\n")
				}
				p.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(known), known))
			}
		})
		s := newTestSite(t, setup{App: app})
		hers, his := "Cookie: "+s.mint(t, alice()), "Cookie: "+s.mint(t, bob())
		for range 3 {
			if a := s.get(t, "/x", his); a.body != "nobody" {
				t.Errorf("%s: bob is taken for %q", scheme, a.body)
			}
			if a := s.get(t, "/x", hers, "Authorization: "+scheme+" alice"); a.body != "alice" {
				t.Errorf("%s: alice is taken for %q", scheme, a.body)
			}
		}
	}
}
