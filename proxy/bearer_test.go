package proxy

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
)

const audience = "https://api.acme.example"

// apiSite is a site with routes for programs: /api for people in admins, /any
// for everybody, /hooks for nobody in particular, and the usual ones besides.
// Access tokens are those of its provider, and really verified.
func apiSite(t *testing.T, change ...func(*setup)) *testSite {
	t.Helper()
	o := setup{SignIn: true, Public: "http://localhost:8080", Bearer: func(s *testSite) admission.TokenVerifier {
		b, err := s.login(t, "main", 0).TokenVerifier(login.BearerOptions{Audiences: []string{audience}})
		testenv.Check(t, err)
		return b
	}}
	o.Routes = append(usualRoutes("localhost"),
		authz.Route{Name: "api", Host: "localhost", Path: "/api",
			Access: authz.Access{Rules: []authz.Rule{{Groups: []string{"admins"}}}}},
		authz.Route{Name: "api-any", Host: "localhost", Path: "/any", Access: authz.Access{Authenticated: true},
			WebSocket: authz.WebSocket{Allowed: true}},
		authz.Route{Name: "api-hooks", Host: "localhost", Path: "/hooks", Access: authz.Access{Public: true}})
	for _, c := range change {
		c(&o)
	}
	return newTestSite(t, o)
}

// aliceClaims are those of alice's access token.
func (s *testSite) aliceClaims() map[string]any {
	now := s.clock.Now()
	return map[string]any{"iss": s.provider.URL, "aud": audience, "sub": "alice-1", "iat": now.Unix(),
		"exp":   now.Add(10 * time.Minute).Unix(),
		"email": "alice@acme.example", "email_verified": true, "name": "Alice Ämter", "preferred_username": "alice",
		"groups": []string{"admins", "on-call"},
		"org_id": "acme", "org_name": "Acme Rockets", "org_domain": "acme.example"}
}

func (s *testSite) token(t testing.TB, bend ...func(map[string]any)) string {
	t.Helper()
	c := s.aliceClaims()
	for _, b := range bend {
		b(c)
	}
	token, err := s.provider.Provider.Sign(map[string]any{"typ": "at+jwt"}, c)
	testenv.Check(t, err)
	return token
}

func (s *testSite) at(path string, lines ...string) string {
	return rawRequest("GET", path, s.host, lines...)
}

// refusedBearer is the whole answer to a bad access token (RFC 6750 §3.1).
func refusedBearer(t *testing.T, name string, a answer) {
	t.Helper()
	body := jsonOf(t, a.body)
	challenge, of, _ := strings.Cut(a.header.Get("Www-Authenticate"), "/.well-known/oauth-protected-resource/")
	if a.status != 401 || challenge != `Bearer error="invalid_token", resource_metadata="http://localhost:8080` ||
		!slices.Contains([]string{`api"`, `any"`}, of) ||
		len(a.header["Www-Authenticate"]) != 1 || body["error"] != "invalid_token" ||
		body["request_id"] != a.header.Get("X-Request-Id") || body["login_url"] != nil || len(body) != 3 ||
		a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" ||
		a.header["Set-Cookie"] != nil || a.header["Location"] != nil {
		t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
	}
}

// Where a route takes access tokens, the Authorization header alone decides.
// With a valid session beside it or without, from a page or a program: a bad
// token is refused (RFC 6750 §3.1). Among the bad ones are tokens without aud or
// iss (mod_auth_openidc GHSA-wcvh-g65p-v576 accepted them) and two headers.
func TestP01_ABadTokenIsRefusedEvenWithAValidCookie(t *testing.T) {
	t.Parallel()
	s := apiSite(t)
	good := s.token(t)
	cookie := "Cookie: " + s.mint(t, alice())
	idToken, err := s.provider.Provider.Sign(nil, s.aliceClaims())
	testenv.Check(t, err)
	bent := func(b func(map[string]any)) []string { return []string{"Authorization: Bearer " + s.token(t, b)} }
	forged := func(sign testenv.Signer) []string {
		token, err := sign(s.provider.Provider, map[string]any{"typ": "at+jwt",
			"kid": s.provider.Provider.PublicJWKS().Keys[0].KeyID}, s.aliceClaims())
		testenv.Check(t, err)
		return []string{"Authorization: Bearer " + token}
	}
	rows := map[string][]string{
		"an ID token (RFC 9068 §5)":           {"Authorization: Bearer " + idToken},
		"a nonce (RFC 9068 §5)":               bent(testenv.With("nonce", "n")),
		"for our sign-in (RFC 8725 §2.8)":     bent(testenv.With("aud", []string{audience, devClient})),
		"for another":                         bent(testenv.With("aud", "https://elsewhere.example")),
		"of another issuer":                   bent(testenv.With("iss", "https://evil.example")),
		"expired":                             bent(testenv.With("exp", s.clock.Now().Add(-time.Second).Unix())),
		"not yet":                             bent(testenv.With("nbf", s.clock.Now().Add(2*time.Minute).Unix())),
		"alg none (RFC 8725 §3.1)":            forged(testenv.Unsigned),
		"HS256 with the public key":           forged(testenv.SignedWithPublicKey),
		"signed by a stranger":                forged(testenv.SignedByStranger),
		"opaque":                              {"Authorization: Bearer ya29.opaque"},
		"cut":                                 {"Authorization: Bearer " + good[:len(good)-9]},
		"twice (RFC 9110 §5.3)":               {"Authorization: Bearer " + good, "Authorization: Bearer " + good},
		"good and bad":                        {"Authorization: Bearer " + good, "Authorization: Basic YTpi"},
		"good and empty":                      {"Authorization: Bearer " + good, "Authorization:"},
		"two in one line":                     {"Authorization: Bearer " + good + ", Bearer " + good},
		"a parameter behind it":               {"Authorization: Bearer " + good + " x=y"},
		"Basic":                               {"Authorization: Basic YWxpY2U6cHc="},
		"DPoP":                                {"Authorization: DPoP " + good},
		"no scheme":                           {"Authorization: " + good},
		"only a scheme":                       {"Authorization: Bearer"},
		"nothing":                             {"Authorization:"},
		"a tab for the blank":                 {"Authorization: Bearer\t" + good},
		"a colon for the blank":               {"Authorization: Bearer: " + good},
		"quoted":                              {`Authorization: Bearer "` + good + `"`},
		"a letter beyond ASCII":               {"Authorization: Bearer " + good + "é"},
		"a scheme that begins so":             {"Authorization: Bearerx " + good},
		"as long as a header may be":          {"Authorization: Bearer " + good + strings.Repeat("A", 50<<10)},
		"for nobody":                          bent(testenv.Without("sub")),
		"for somebody with a line break (C8)": bent(testenv.With("sub", "alice\r\nX-Forwarded-User: root")),
	}
	for name, lines := range rows {
		for _, more := range [][]string{nil, {cookie}, navigate(cookie)} {
			a := s.wire(t).do("GET", s.at("/any/x", append(slices.Clone(lines), more...)...))
			refusedBearer(t, name, a)
			ev := s.log.event(t, a.header.Get("X-Request-Id"))
			if ev["decision"] != "deny" || ev["reason"] != "bearer_invalid" || ev["error"] == nil ||
				ev["user"] != nil || ev["level"] != "INFO" {
				t.Errorf("%s: logged %v", name, ev)
			}
		}
	}
	if n := len(s.app.Requests()); n != 0 {
		t.Errorf("%d requests reached the app", n)
	}
	for _, part := range strings.Split(good, ".") {
		if strings.Contains(s.log.text(t), part[:16]) {
			t.Errorf("a part of a token is in the log: %s", part)
		}
	}
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER ", "Bearer   "} { // RFC 9110 §11.1 and §11.4
		if a := s.wire(t).do("GET", s.at("/any/x", "Authorization: "+scheme+good)); a.status != 200 {
			t.Errorf("%q: %d %s", scheme, a.status, a.body)
		}
	}
}

// The app is told who asks exactly as with a session, and the token is not
// passed on.
func TestP02_TheAppSeesThePersonAndNotTheToken(t *testing.T) {
	t.Parallel()
	s := apiSite(t)
	token := s.token(t)
	var raw [2][]byte
	for i, line := range []string{"Authorization: Bearer " + token, "Cookie: " + s.mint(t, alice())} {
		a := s.wire(t).do("POST", rawRequest("POST", "/api/things?q=1", s.host, line, "X-Forwarded-User: root",
			"Content-Length: 0", "Cookie: theirs=1"))
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		raw[i] = s.app.Last(t)
		if ev := s.log.event(t, a.header.Get("X-Request-Id")); ev["user"] != "main:alice-1" ||
			ev["decision"] != "forward" || ev["reason"] != "rule" || ev["org"] != "main:acme" {
			t.Errorf("logged %v", ev)
		}
	}
	byToken, bySession := headerOf(raw[0]), headerOf(raw[1])
	for _, h := range []map[string][]string{byToken, bySession} {
		claims := claimsOf(t, h["x-sallyport-assertion"])
		if claims["sub"] != "main:alice-1" || claims["aud"] != "api" || claims["email"] != "alice@acme.example" ||
			fmt.Sprint(claims["groups"]) != "[admins on-call]" {
			t.Errorf("the assertion says %v", claims)
		}
		for _, theirs := range []string{"x-sallyport-assertion", "x-request-id"} {
			delete(h, theirs)
		}
	}
	if !maps.EqualFunc(byToken, bySession, slices.Equal) || byToken["authorization"] != nil ||
		!slices.Equal(byToken["cookie"], []string{"theirs=1"}) {
		t.Errorf("by token\n%v\nby session\n%v", byToken, bySession)
	}
	for _, part := range strings.Split(token, ".") {
		if bytes.Contains(raw[0], []byte(part)) {
			t.Errorf("the app got %q of the token", part)
		}
	}
}

func claimsOf(t *testing.T, lines []string) map[string]any {
	t.Helper()
	if len(lines) != 1 {
		t.Fatalf("assertions: %q", lines)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(lines[0], ".")[1])
	testenv.Check(t, err)
	var c map[string]any
	testenv.Check(t, json.Unmarshal(payload, &c))
	return c
}

// Where a route takes no access tokens, Authorization is between the client and
// the app, byte for byte; and a token brings nobody anywhere.
func TestAuthorizationIsTheAppsOnOtherRoutes(t *testing.T) {
	t.Parallel()
	s := apiSite(t)
	cookie := "Cookie: " + s.mint(t, alice())
	for _, lines := range [][]string{
		{"Bearer " + s.token(t)}, {"Basic YWxpY2U6cHc="}, {"bearer\tx"}, {"Bearer a", "Basic b"}, {""},
		{`Digest username="a", uri="/x"`}, {"AWS4-HMAC-SHA256 Credential=x,  Signature=y"},
	} {
		var header []string
		for _, l := range lines {
			header = append(header, "Authorization: "+l)
		}
		for _, path := range []string{"/x", "/open/x", "/hooks/x", "/logo.svg"} {
			if a := s.wire(t).do("GET", s.at(path, append(slices.Clone(header), cookie)...)); a.status != 200 {
				t.Errorf("%s with %q: %d", path, lines, a.status)
			}
			if got := testenv.HeaderLines(s.app.Last(t), "Authorization"); !slices.Equal(got, lines) {
				t.Errorf("%s: the app got %q, sent was %q", path, got, lines)
			}
		}
		before := len(s.app.Requests())
		if a := s.wire(t).do("GET", s.at("/x", header...)); a.status != 401 ||
			!strings.HasPrefix(a.header.Get("Www-Authenticate"), "Cookie ") || len(s.app.Requests()) != before {
			t.Errorf("%q without a session: %d %v", lines, a.status, a.header)
		}
	}
	if h := headerOf(func() []byte {
		s.wire(t).do("GET", s.at("/hooks/x", "Authorization: Bearer "+s.token(t)))
		return s.app.Last(t)
	}()); h["x-forwarded-user"] != nil {
		t.Errorf("a public route tells of %q", h["x-forwarded-user"])
	}
}

// Without the header everything is as without access tokens, but that a program
// is told of both ways (RFC 6750 §3, RFC 9110 §11.6.1).
func TestASessionIsReadOnTokenRoutesWithoutAToken(t *testing.T) {
	t.Parallel()
	s := apiSite(t)
	if a := s.wire(t).do("GET", s.at("/api/x", "Cookie: "+s.mint(t, alice()))); a.status != 200 {
		t.Errorf("with a session: %d", a.status)
	}
	a := s.wire(t).do("GET", s.at("/api/x"))
	if c := a.header["Www-Authenticate"]; a.status != 401 || len(c) != 2 ||
		!strings.HasPrefix(c[0], `Bearer realm="sallyport", `) ||
		!strings.HasPrefix(c[1], `Cookie realm="sallyport"`) || jsonOf(t, a.body)["error"] != "login_required" {
		t.Errorf("a program: %d %v %s", a.status, a.header, a.body)
	}
	if a := s.wire(t).do("GET", s.at("/api/x", navigate()...)); a.status != 302 ||
		!strings.HasPrefix(a.header.Get("Location"), s.url+prefix+"/login") {
		t.Errorf("a page: %d %v", a.status, a.header)
	}
	// A preflight carries neither (Fetch §4.8): it is answered like anybody.
	preflight := rawRequest("OPTIONS", "/api/x", s.host, "Origin: https://elsewhere.example",
		"Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization")
	if a := s.wire(t).do("OPTIONS", preflight); a.status != 401 || a.header["Access-Control-Allow-Origin"] != nil {
		t.Errorf("a preflight: %d %v", a.status, a.header)
	}
	if n := len(s.app.Requests()); n != 1 {
		t.Errorf("%d requests reached the app", n)
	}
}

// The rules are the same, and who is refused is not sent to sign in.
func TestP01_RulesHoldForTokensToo(t *testing.T) {
	t.Parallel()
	s := apiSite(t)
	for name, row := range map[string]struct {
		bend   func(map[string]any)
		reason string
	}{
		"in no group":         {testenv.With("groups", []string{"staff"}), "no_rule"},
		"groups not told":     {testenv.With("_claim_names", map[string]any{"groups": "src"}), "groups_unknown"},
		"groups not readable": {testenv.With("groups", 7), "groups_unknown"},
	} {
		a := s.wire(t).do("GET", s.at("/api/x", "Authorization: Bearer "+s.token(t, row.bend),
			"Cookie: "+s.mint(t, alice())))
		body := jsonOf(t, a.body)
		if a.status != 403 || body["error"] != "Forbidden" || a.header["Set-Cookie"] != nil ||
			a.header["Www-Authenticate"] != nil {
			t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
		}
		if ev := s.log.event(t, a.header.Get("X-Request-Id")); ev["decision"] != "deny" || ev["reason"] != row.reason ||
			ev["user"] != "main:alice-1" {
			t.Errorf("%s: logged %v", name, ev)
		}
	}
	ws := []string{"Connection: Upgrade", "Upgrade: websocket", "Authorization: Bearer " + s.token(t),
		"Origin: https://evil.example"}
	if a := s.wire(t).do("GET", s.at("/any/ws", ws...)); a.status != 403 {
		t.Errorf("a WebSocket from a page of another site: %d", a.status)
	}
	if n := len(s.app.Requests()); n != 0 {
		t.Errorf("%d requests reached the app", n)
	}
}

// An organization is the same however somebody comes: folded as at a sign-in. A
// program cannot be asked to choose one of several: its token must say.
func TestP01_OrganizationsOfTokensAreFoldedAndNeverPicked(t *testing.T) {
	t.Parallel()
	s := apiSite(t, func(o *setup) { o.Orgs, o.Claims = foldedOrgs(t), login.ClaimNames{Orgs: "memberships"} })
	one := s.token(t, testenv.With("org_id", "7c"))
	if a := s.wire(t).do("GET", s.at("/any/x", "Authorization: Bearer "+one)); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if got := headerOf(s.app.Last(t))["x-forwarded-org-id"]; !slices.Equal(got, []string{"acme"}) {
		t.Errorf("the organization is %q", got)
	}
	several := s.token(t, testenv.Without("org_id"), testenv.With("memberships", []string{"7c", "other"}),
		testenv.With("email", "alice@mail.example"))
	a := s.wire(t).do("GET", s.at("/any/x", navigate("Authorization: Bearer "+several)...))
	if a.status != 403 || a.header["Location"] != nil || a.header["Set-Cookie"] != nil || len(s.app.Requests()) != 1 {
		t.Errorf("several: %d %v", a.status, a.header)
	}
	if ev := s.log.event(t, a.header.Get("X-Request-Id")); ev["decision"] != "deny" || ev["reason"] != "no_org" {
		t.Errorf("logged %v", ev)
	}
}

// P9: a token makes no session: nothing is set, and nothing of ours is opened.
func TestP09_ATokenNeverBecomesACookie(t *testing.T) {
	t.Parallel()
	s := apiSite(t)
	s.app.Respond(reply("Set-Cookie: theirs=1\r\n", "ok"))
	cookie := "Cookie: " + s.mint(t, alice())
	s.clock.Advance(30 * time.Minute) // a session would be renewed
	bearer := "Authorization: Bearer " + s.token(t)
	for _, lines := range [][]string{{bearer}, navigate(bearer), navigate(bearer, cookie)} {
		if a := s.wire(t).do("GET", s.at("/any/x", lines...)); a.status != 200 ||
			!slices.Equal(a.header["Set-Cookie"], []string{"theirs=1"}) {
			t.Errorf("%d %v", a.status, a.header)
		}
	}
	for path, status := range map[string]int{"/session": 401, "/account": 401, "/login": 401} {
		a := s.wire(t).do("GET", s.at(prefix+path, bearer))
		if c := a.header["Www-Authenticate"]; a.status != status || len(c) != 1 ||
			!strings.HasPrefix(c[0], "Cookie ") || a.header["Set-Cookie"] != nil {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
	}
	if a := s.wire(t).do("GET", s.at(prefix+"/session", bearer, cookie)); a.status != 200 {
		t.Errorf("our own endpoint with a session and a token: %d", a.status)
	}
}

// RFC 9068 §5: two tokens of one person are two. What was made for one is not
// told to the app for the other, and ends with its own.
func TestP01_TwoTokensOfOnePersonDoNotMix(t *testing.T) {
	t.Parallel()
	s := apiSite(t)
	ends := func(in time.Duration) int64 { return s.clock.Now().Add(in).Unix() }
	type seen struct {
		groups string
		exp    int64
	}
	want := map[string]seen{}
	for i := range 4 {
		exp, group := ends(time.Duration(i+1)*time.Minute+time.Second), fmt.Sprint("g", i)
		want[s.token(t, testenv.With("groups", []string{group}), testenv.With("exp", exp))] = seen{group, exp}
	}
	for range 3 {
		for token, w := range want {
			if a := s.wire(t).do("GET", s.at("/any/x", "Authorization: Bearer "+token)); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			h := headerOf(s.app.Last(t))
			c := claimsOf(t, h["x-sallyport-assertion"])
			if got := (seen{strings.Join(h["x-forwarded-groups"], "|"), w.exp}); got != w ||
				fmt.Sprint(c["groups"]) != "["+w.groups+"]" || int64(c["exp"].(float64)) > w.exp {
				t.Errorf("told %v, the assertion %v; want %v", got, c, w)
			}
		}
	}
}

// A provider that is down makes no token bad: programs are to try again.
func TestATokenThatCannotBeCheckedGets503(t *testing.T) {
	t.Parallel()
	s := apiSite(t)
	s.provider.Set(testenv.Fault{Endpoint: testenv.Discovery, Status: 503})
	a := s.wire(t).do("GET", s.at("/any/x", "Authorization: Bearer "+s.token(t), "Cookie: "+s.mint(t, alice())))
	if a.status != 503 || a.header.Get("Retry-After") != "5" || a.header["Www-Authenticate"] != nil ||
		len(s.app.Requests()) != 0 {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if ev := s.log.event(t, a.header.Get("X-Request-Id")); ev["decision"] != "deny" ||
		ev["reason"] != "bearer_unavailable" {
		t.Errorf("logged %v", ev)
	}
}

// P17: a token is a header, and headers have a limit.
func TestP17_AnEndlessTokenIsNotRead(t *testing.T) {
	t.Parallel()
	s := apiSite(t)
	if a := s.wire(t).do("GET", s.at("/any/x", "Authorization: Bearer "+strings.Repeat("A", 80<<10))); a.status != 431 {
		t.Errorf("answered %d", a.status)
	}
	for name, c := range map[string]string{"NUL": "\x00", "escape": "\x1b[31m", "DEL": "\x7f"} {
		if a := s.wire(t).do("GET", s.at("/any/x", "Authorization: Bearer a"+c+"b")); a.status != 400 &&
			a.status != 401 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	if n := len(s.app.Requests()); n != 0 {
		t.Errorf("%d requests reached the app", n)
	}
}

// P1: what a token opened ends when it does: a stream breaks off, a WebSocket is
// closed, and an app that has not answered yet is not waited for.
func TestP01_StreamsEndWithTheirToken(t *testing.T) {
	t.Parallel()
	s := apiSite(t)
	bearer := "Authorization: Bearer " + s.token(t)

	s.app.Respond(func([]byte) []byte { return []byte("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun") })
	stream := s.wire(t)
	stream.dial()
	send := func(w *wire, raw string) {
		if _, err := io.WriteString(w.conn, raw); err != nil {
			t.Fatal(err)
		}
	}
	send(stream, s.at("/any/stream", bearer))
	res, err := http.ReadResponse(stream.in, nil)
	testenv.Check(t, err)
	if _, err := io.ReadFull(res.Body, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}

	s.app.Respond(func([]byte) []byte {
		return []byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	})
	socket := s.wire(t)
	socket.dial()
	send(socket, s.at("/any/ws", bearer, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: "+
		"dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"))
	if res, err := http.ReadResponse(socket.in, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("%v, %v", res, err)
	}

	release := make(chan struct{})
	defer close(release)
	s.app.Respond(func([]byte) []byte { <-release; return nil })
	slow := s.wire(t)
	slow.dial()
	send(slow, s.at("/any/slow", bearer))

	time.Sleep(1500 * time.Millisecond) // more than a poll: nothing ends before its time
	testenv.Check(t, socket.conn.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
	if _, err := socket.in.ReadByte(); !isTimeout(err) {
		t.Fatalf("the WebSocket ended early: %v", err)
	}
	testenv.Check(t, socket.conn.SetReadDeadline(time.Now().Add(20*time.Second)))

	s.clock.Advance(10 * time.Minute)
	if _, err := io.ReadAll(res.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stream ended with %v", err)
	}
	if got, _ := readWithin(t, socket.in, -1, soon); got != closeFrame(1008, "signed in too long ago") {
		t.Errorf("the WebSocket ended with %q", got)
	}
	late, err := http.ReadResponse(slow.in, nil)
	testenv.Check(t, err)
	body, err := io.ReadAll(late.Body)
	testenv.Check(t, err)
	refusedBearer(t, "an app that is slow", answer{late.StatusCode, late.Proto, late.Header, string(body)})
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// Groups that sessions do not keep are not told of programs either.
func TestProgramsAreInTheGroupsThatAreKept(t *testing.T) {
	t.Parallel()
	s := apiSite(t, func(o *setup) { o.Keep = []string{"admins"} })
	for _, line := range []string{"Authorization: Bearer " + s.token(t), "Cookie: " + s.mint(t, alice())} {
		if a := s.wire(t).do("GET", s.at("/api/x", line)); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
		h := headerOf(s.app.Last(t))
		if g := h["x-forwarded-groups"]; !slices.Equal(g, []string{"admins"}) ||
			fmt.Sprint(claimsOf(t, h["x-sallyport-assertion"])["groups"]) != "[admins]" {
			t.Errorf("told %q", g)
		}
	}
}

// P11: where other groups are kept than at the sign-in, a page signs in again
// and a program is told to.
func TestP11_AnOutdatedSessionSignsInAgain(t *testing.T) {
	t.Parallel()
	key := newTestSite(t, setup{}).key
	before := newTestSite(t, setup{Public: "http://localhost:8080", Key: key})
	after := newTestSite(t, setup{Public: "http://localhost:8080", Key: key, Keep: []string{"admins"},
		Login: fixedLogin{who: alice()}})
	cookie := "Cookie: " + before.mint(t, alice())
	if a := after.wire(t).do("GET", after.at("/x", navigate(cookie)...)); a.status != 302 ||
		!strings.HasPrefix(a.header.Get("Location"), after.url+prefix+"/login?return_to=") {
		t.Errorf("a page: %d %v", a.status, a.header)
	}
	a := after.wire(t).do("GET", after.at("/x", cookie))
	if a.status != 401 || jsonOf(t, a.body)["error"] != "login_required" {
		t.Errorf("a program: %d %s", a.status, a.body)
	}
	if ev := after.log.event(t, a.header.Get("X-Request-Id")); ev["reason"] != "no_session" || ev["session"] == nil {
		t.Errorf("logged %v", ev)
	}
	if a := after.wire(t).do("GET", after.at(prefix+"/login", navigate(cookie)...)); a.status != 302 ||
		!strings.HasPrefix(a.header.Get("Location"), "/open/provider?") {
		t.Errorf("the sign-in: %d %v", a.status, a.header)
	}
}

// CVE-2026-33544, P20: fifty people, by token and by session at once, through
// the same connections: each is told of as themselves.
func TestP20_ManyProgramsAtOnceAreThemselves(t *testing.T) {
	t.Parallel()
	s := apiSite(t)
	s.app.Respond(func(raw []byte) []byte {
		h := headerOf(raw)
		return reply("", strings.Join(h["x-forwarded-user"], "|")+" "+strings.Join(h["x-forwarded-groups"],
			"|")+" "+strings.Join(h["x-sallyport-assertion"], "|"))(raw)
	})
	var crowd sync.WaitGroup
	for i := range 50 {
		group := fmt.Sprint("g", i)
		who := alice()
		who.Subject, who.Groups = fmt.Sprint("s-", i), []string{"session-" + group}
		lines := []string{"Bearer " + s.token(t, testenv.With("sub", who.Subject),
			testenv.With("groups", []string{"token-" + group})), s.mint(t, who)}
		crowd.Go(func() {
			for n := range 16 {
				req, err := http.NewRequest("GET", "http://"+s.addr+"/any/x", nil)
				if err != nil {
					t.Error(err)
					return
				}
				req.Host = s.host
				kind := []string{"token-", "session-"}[n%2]
				req.Header.Set([]string{"Authorization", "Cookie"}[n%2], lines[n%2])
				a := s.send(t, req)
				parts := strings.Split(a.body, " ")
				if a.status != 200 || len(parts) != 3 || parts[0] != "main:"+who.Subject || parts[1] != kind+group {
					t.Errorf("%s of %s: %d %.80s", kind, who.Subject, a.status, a.body)
				} else if c := claimsOf(t, parts[2:]); c["sub"] != "main:"+who.Subject ||
					fmt.Sprint(c["groups"]) != "["+kind+group+"]" {
					t.Errorf("%s of %s: the assertion says %v", kind, who.Subject, c)
				}
			}
		})
	}
	crowd.Wait()
}

// P8: the front door hands a token in, and there is no way for one to come out.
func TestP08_TheBearerInterfaceTakesATokenAndHandsOutAnIdentity(t *testing.T) {
	var _ admission.TokenVerifier = (*login.TokenVerifier)(nil)
	verifier := reflect.TypeFor[admission.TokenVerifier]()
	want := reflect.TypeFor[func(context.Context, string) (identity.Identity, time.Time, error)]()
	if verifier.NumMethod() != 1 || verifier.Method(0).Type != want {
		t.Errorf("%v has %d methods, the first %v", verifier, verifier.NumMethod(), verifier.Method(0).Type)
	}
}

// A program that has no token finds out where to get one (RFC 9728): the answer to
// its first request says where to read it, and what stands there names the route
// and the provider. It is public, and nothing of it comes from the app.
func TestAProgramFindsOutWhoIssuesTokensForARoute(t *testing.T) {
	t.Parallel()
	s := apiSite(t)
	ask := func(method, path string, lines ...string) answer {
		return s.wire(t).do(method, rawRequest(method, path, s.host, lines...))
	}
	const known = "/.well-known/oauth-protected-resource"
	a := ask("GET", "/api/jobs")
	if got := a.header["Www-Authenticate"]; a.status != 401 ||
		got[0] != `Bearer realm="sallyport", resource_metadata="http://localhost:8080`+known+`/api"` {
		t.Fatalf("%d %q", a.status, got)
	}
	want := `{"resource":"http://localhost:8080/api","authorization_servers":["` + s.provider.URL + `"],"bearer_methods_supported":["header"]}` + "\n"
	for _, path := range []string{known + "/api", known + "/api/jobs"} {
		a = ask("GET", path, "Cookie: "+s.mint(t, alice()), "Origin: https://inspector.example")
		if a.status != 200 || a.body != want || a.header.Get("Content-Type") != "application/json" ||
			a.header["Set-Cookie"] != nil ||
			a.header.Get("Access-Control-Allow-Origin") != "*" ||
			a.header.Get("Cache-Control") != "public, max-age=300" {
			t.Errorf("%s: %d %v %s", path, a.status, a.header, a.body)
		}
	}
	if a = ask("HEAD", known+"/api"); a.status != 200 || a.body != "" {
		t.Errorf("HEAD: %d %q", a.status, a.body)
	}
	if a = ask("POST", known+"/api", "Content-Length: 0"); a.status != 405 || a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d %v", a.status, a.header)
	}
	if n := len(s.app.Requests()); n != 0 {
		t.Errorf("%d requests reached the app", n)
	}
	// Where nothing takes tokens, the address is the app's, behind the sign-in.
	for _, path := range []string{known, known + "/", known + "/admin", known + "/hooks", known + "x/api"} {
		if a = ask("GET", path); a.status != 401 || strings.Contains(a.body, "authorization_servers") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		if a = ask("GET", path, "Cookie: "+s.mint(t, alice())); a.status != 200 ||
			a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s, signed in: %d %v", path, a.status, a.header)
		}
	}
}

// An operator who has a route for these addresses answers there.
func TestAnOperatorsOwnMetadataGoesBeforeOurs(t *testing.T) {
	t.Parallel()
	s := apiSite(t, func(o *setup) {
		o.Routes = append(o.Routes, authz.Route{Name: "known", Host: "localhost", Path: "/.well-known",
			Access: authz.Access{Public: true}})
	})
	if a := s.wire(t).do("GET", s.at("/.well-known/oauth-protected-resource/api")); a.status != 200 ||
		len(s.app.Requests()) != 1 {
		t.Errorf("%d, the app has got %d requests", a.status, len(s.app.Requests()))
	}
}
