package admission

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

const host = "app.example.com"

// house is an Admission with what it is made of, and a clock that tests move.
type house struct {
	*Admission
	sessions *session.Manager
	ended    *elsewhere
	now      time.Time
}

// elsewhere is a list of what ended that other servers write too. What is known of
// them is as old as age says.
type elsewhere struct {
	*session.Memory
	age time.Duration
}

func (e *elsewhere) Age() time.Duration { return e.age }

func newHouse(tb testing.TB, tokens TokenVerifier) *house {
	tb.Helper()
	h := &house{now: time.Now()}
	clock := func() time.Time { return h.now }
	key := session.NewKey(h.now.Add(-time.Hour))
	ring, err := session.NewKeyring([]session.Key{key})
	testenv.Check(tb, err)
	h.ended = &elsewhere{Memory: session.NewMemory(session.MemoryOptions{Max: 2_000_000, Now: clock})}
	h.sessions, err = session.New(session.Options{Keys: ring, Secure: true, Ended: h.ended,
		AbsoluteTimeout: 12 * time.Hour, IdleTimeout: time.Hour, Now: clock})
	testenv.Check(tb, err)
	signer, err := assertion.New(assertion.Options{Issuer: "https://" + host, Signing: ring.Signing, Now: clock,
		Seeds: [][]byte{key.Derive("assertion signing", assertion.SeedBytes)}})
	testenv.Check(tb, err)
	admins := []authz.Rule{{Groups: []string{"admins"}}}
	table, err := authz.NewTable([]authz.Route{
		{Name: "open", Host: host, Path: "/open", Access: authz.Access{Public: true}},
		{Name: "app", Host: host, Path: "/", Access: authz.Access{Authenticated: true}},
		{Name: "admin", Host: host, Path: "/admin", Access: authz.Access{Rules: admins}},
		{Name: "api", Host: host, Path: "/api", Access: authz.Access{Authenticated: true}},
		{Name: "old", Host: host, Path: "/old", Access: authz.Access{Authenticated: true}},
		{Name: "board", Host: host, Path: "/board", Access: authz.Access{Public: true, Authenticated: true,
			PublicIf: authz.Conditions{Methods: []string{"GET"},
				From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}},
	})
	testenv.Check(tb, err)
	headers := identity.NewHeaders()
	fields, _ := identity.Preset(identity.PresetForwarded)
	set, err := headers.Set(fields)
	testenv.Check(tb, err)
	var routes []Route
	for _, r := range table.Routes() {
		route := Route{Route: r, Headers: set, MaxAge: 5 * time.Minute}
		if r.Name == "admin" {
			route.MaxAge = 2 * time.Second
		}
		if r.Name == "old" {
			route.Headers, err = set.WithBasic(identity.Basic{Claim: identity.ClaimUsername, Password: "shared"})
			testenv.Check(tb, err)
		}
		if r.Name == "api" || r.Name == "board" {
			route.Tokens = &Tokens{TokenVerifier: tokens}
		}
		routes = append(routes, route)
	}
	h.Admission, err = New(Options{PublicHost: host, Prefix: "/.sallyport", Table: table, Routes: routes,
		Headers: headers, Sessions: h.sessions, Providers: []string{"main"}, Assertions: signer, Now: clock})
	testenv.Check(tb, err)
	return h
}

func person(subject string, groups ...string) identity.Identity {
	return identity.Identity{Provider: "main", Subject: subject, Groups: groups}
}

// cookie is what the browser of somebody who has signed in sends.
func (h *house) cookie(tb testing.TB, who identity.Identity) string {
	tb.Helper()
	w := headerWriter{}
	testenv.Check(tb, h.sessions.Write(w, host, h.sessions.Start(who)))
	pair, _, _ := strings.Cut(http.Header(w).Get("Set-Cookie"), ";")
	return pair
}

type headerWriter http.Header

func (h headerWriter) Header() http.Header         { return http.Header(h) }
func (h headerWriter) Write(b []byte) (int, error) { return len(b), nil }
func (h headerWriter) WriteHeader(int)             {}

// ask is a request for target with these header lines.
func (h *house) ask(tb testing.TB, method, target string, lines ...string) (Answer, http.Header, error) {
	tb.Helper()
	facts, err := authz.NewFacts(method, "https", host, target)
	testenv.Check(tb, err)
	header := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		header.Add(name, value)
	}
	ans, err := h.Admit(context.Background(), Request{Facts: facts, Header: header})
	if err == nil && ans.Verdict.Outcome == authz.Forward {
		ans.SetHeaders(header)
	}
	return ans, header, err
}

// tokens knows whose each access token is.
type tokens map[string]error

func (t tokens) Verify(_ context.Context, token string) (identity.Identity, time.Time, error) {
	err, ok := t[token]
	if !ok {
		err = errors.New("no token of mine")
	}
	return person("robot"), time.Now().Add(time.Hour), err
}

// What a front door may do follows from outcome, error and header alone.
func TestP01_EachRequestGetsOneAnswer(t *testing.T) {
	h := newHouse(t, tokens{"good": nil, "later": &identity.SignInError{Failure: identity.Unavailable,
		Err: errors.New("away")}})
	ann, root := h.cookie(t, person("ann")), h.cookie(t, person("root", "admins"))
	gone := h.cookie(t, identity.Identity{Provider: "gone", Subject: "x"})
	for name, tt := range map[string]struct {
		method, target string
		lines          []string
		outcome        authz.Outcome
		reason         authz.Reason
		status         int    // of the Refusal; 0: none
		user           string // what the app is told; "": nothing
	}{
		"public": {"GET", "/open/x", nil, authz.Forward, authz.ReasonPublic, 0, ""},
		"public, with a session": {"GET", "/open/x", []string{"Cookie: " + ann}, authz.Forward, authz.ReasonPublic,
			0, ""},
		"nobody": {"GET", "/x", nil, authz.Login, authz.ReasonNoSession, 0, ""},
		"a forged cookie": {"GET", "/x", []string{"Cookie: __Host-sallyport=x"}, authz.Login,
			authz.ReasonNoSession, 0, ""},
		"a provider that is gone": {"GET", "/x", []string{"Cookie: " + gone}, authz.Login, authz.ReasonNoSession, 0,
			""},
		"somebody": {"GET", "/x", []string{"Cookie: " + ann}, authz.Forward,
			authz.ReasonAuthenticated, 0, "main:ann"},
		"not for them": {"GET", "/admin", []string{"Cookie: " + ann}, authz.Deny, authz.ReasonNoRule, 0,
			""},
		"for them": {"GET", "/admin", []string{"Cookie: " + root}, authz.Forward, authz.ReasonRule,
			0, "main:root"},
		"a token": {"GET", "/api", []string{"Authorization: Bearer good"}, authz.Forward,
			authz.ReasonAuthenticated, 0, "main:robot"},
		"a token, scheme in capitals": {"GET", "/api", []string{"Authorization: BEARER  good"}, authz.Forward,
			authz.ReasonAuthenticated, 0, "main:robot"},
		"a bad token beside a cookie": {"GET", "/api", []string{"Authorization: Bearer bad", "Cookie: " + ann},
			authz.Deny, authz.ReasonBearerInvalid, 401, ""},
		"two tokens": {"GET", "/api", []string{"Authorization: Bearer good", "Authorization: Bearer " +
			"good"}, authz.Deny, authz.ReasonBearerInvalid, 401, ""},
		"a token nobody can judge": {"GET", "/api", []string{"Authorization: Bearer later"}, authz.Deny,
			authz.ReasonBearerUnavailable, 503, ""},
		"a session where tokens go": {"GET", "/api", []string{"Cookie: " + ann}, authz.Forward,
			authz.ReasonAuthenticated, 0, "main:ann"},
		"a token where none is taken": {"GET", "/x", []string{"Authorization: Bearer good"}, authz.Login,
			authz.ReasonNoSession, 0, ""},
		"moved to what is not theirs": {"MOVE", "/x", []string{"Cookie: " + ann, "Destination: /admin/y"}, authz.Deny,
			authz.ReasonDestination, 403, ""},
		"moved below our own prefix": {"MOVE", "/x", []string{"Cookie: " + ann, "Destination: /.sallyport/y"},
			authz.Deny, authz.ReasonDestination, 403, ""},
		"another host's": {"MOVE", "/x", []string{"Cookie: " + ann, "Destination: https://x.example/y"},
			authz.Deny, authz.ReasonDestination, 502, ""},
		"what could be another route": {"GET", "/ADMIN", []string{"Cookie: " + root}, authz.Deny, authz.ReasonAmbiguous,
			400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			lines := append(tt.lines, "X-Forwarded-User: mallory", "X_Forwarded_User: mallory",
				"X-Sallyport-Assertion: forged")
			ans, header, err := h.ask(t, tt.method, tt.target, lines...)
			status := 0
			if refusal, ok := errors.AsType[*Refusal](err); ok {
				status = refusal.Status
			} else {
				testenv.Check(t, err)
			}
			if ans.Verdict.Outcome != tt.outcome || ans.Verdict.Reason != tt.reason || status != tt.status {
				t.Errorf("%v %s, status %d (%v)", ans.Verdict.Outcome, ans.Verdict.Reason, status, err)
			}
			if ans.Route == nil {
				return
			}
			if got := header.Get("X-Forwarded-User"); got != tt.user || header.Get("X_Forwarded_User") != "" {
				t.Errorf("the app is told %q: %v", got, header)
			}
			if signed := header.Get(identity.AssertionHeader); (signed != "") != (tt.user != "") || signed == "forged" {
				t.Errorf("the assertion is %q", signed)
			}
		})
	}
}

// What was meant for Sallyport alone does not reach the app.
func TestP02_OurCookiesAndTokensAreNotPassedOn(t *testing.T) {
	h := newHouse(t, tokens{"good": nil})
	ann := h.cookie(t, person("ann"))
	_, header, err := h.ask(t, "GET", "/api", "Cookie: a=b; "+ann, "Cookie: c=d", "Authorization: Bearer good")
	testenv.Check(t, err)
	if got := strings.Join(header["Cookie"], "; "); got != "a=b; c=d" || header["Authorization"] != nil {
		t.Errorf("the app receives %v", header)
	}
	_, header, err = h.ask(t, "GET", "/open", "Authorization: Basic app's")
	testenv.Check(t, err)
	if header.Get("Authorization") != "Basic app's" {
		t.Errorf("a public app does not receive its own credentials: %v", header)
	}
}

// The password is ours: neither the client's own nor nothing may stand in its place.
func TestP02_AnAppThatKnowsOnlyBasicNeverSeesAClientsOwn(t *testing.T) {
	h := newHouse(t, nil)
	named, nameless := person("ann"), person("bob")
	named.Username, nameless.Username = "ann", "root:x"
	for who, c := range map[*identity.Identity]string{&named: "Basic YW5uOnNoYXJlZA==", &nameless: ""} {
		cookie := "Cookie: " + h.cookie(t, *who)
		for _, lines := range [][]string{{cookie}, {cookie, "Authorization: Basic cm9vdDpzaGFyZWQ="}} {
			_, header, err := h.ask(t, "GET", "/old", lines...)
			testenv.Check(t, err)
			if got := strings.Join(header["Authorization"], "; "); got != c {
				t.Errorf("%s: the app receives %q", who.Username, got)
			}
		}
	}
}

// A sign-out and the end of a token count at once, also in the middle of a stream.
func TestP10_APrincipalIsOverWhenItsSessionOrTokenEnds(t *testing.T) {
	h := newHouse(t, tokens{"good": nil})
	ann := h.cookie(t, person("ann"))
	byCookie, _, err := h.ask(t, "GET", "/x", "Cookie: "+ann)
	testenv.Check(t, err)
	byToken, _, err := h.ask(t, "GET", "/api", "Authorization: Bearer good")
	testenv.Check(t, err)
	over := func(ans Answer) error { return h.Over(ans.Principal, ans.Route) }
	if over(byCookie) != nil || over(byToken) != nil {
		t.Fatal("over before its end")
	}
	next := headerWriter{}
	_, err = h.sessions.Switch(t.Context(), next, host, *byCookie.Principal.Session, person("ann"))
	testenv.Check(t, err)
	if err := over(byCookie); err != ErrSwitched {
		t.Errorf("a session of another organization: %v", err)
	}
	testenv.Check(t, h.sessions.EndSignIn(t.Context(), *byCookie.Principal.Session))
	if err := over(byCookie); err != ErrEnded {
		t.Errorf("a signed-out session: %v", err)
	}
	h.now = h.now.Add(2 * time.Hour)
	if err := over(byToken); err != ErrExpired {
		t.Errorf("an expired token: %v", err)
	}
}

// What the configuration no longer has signs nobody in, and what it let in is over.
func TestP10_ASessionIsOverWithItsProvider(t *testing.T) {
	h := newHouse(t, nil)
	ans, _, err := h.ask(t, "GET", "/x", "Cookie: "+h.cookie(t, person("ann")))
	testenv.Check(t, err)
	h.providers = map[string]bool{"other": true}
	if err := h.Over(ans.Principal, ans.Route); err != ErrNoProvider {
		t.Errorf("%v", err)
	}
}

// While nobody can tell who signed out elsewhere, a route closes as strictly as it
// was told to: not by asking people to sign in, and not to programs with a token.
func TestP10_ASessionThatMayHaveEndedElsewhereIsRefusedAsStrictlyAsTheRouteSays(t *testing.T) {
	h := newHouse(t, tokens{"good": nil})
	ann := "Cookie: " + h.cookie(t, person("ann", "admins"))
	for _, tt := range []struct {
		age    time.Duration
		target string
		line   string
		want   int // 0: it passes
	}{
		{0, "/admin", ann, 0},
		{2 * time.Second, "/admin", ann, 0},
		{3 * time.Second, "/admin", ann, http.StatusServiceUnavailable},
		{3 * time.Second, "/x", ann, 0},
		{3 * time.Second, "/api", ann, 0},
		{5*time.Minute + 1, "/x", ann, http.StatusServiceUnavailable},
		{math.MaxInt64, "/api", ann, http.StatusServiceUnavailable},
		{math.MaxInt64, "/api", "Authorization: Bearer good", 0},
		{math.MaxInt64, "/open", ann, 0},
	} {
		h.ended.age = tt.age
		ans, _, err := h.ask(t, "GET", tt.target, tt.line)
		refusal, ok := errors.AsType[*Refusal](err)
		switch {
		case !ok && (err != nil || tt.want != 0 || ans.Verdict.Outcome != authz.Forward):
			t.Errorf("%s after %s: %v, %v", tt.target, tt.age, ans.Verdict, err)
		case ok && (refusal.Status != tt.want || refusal.Reason != authz.ReasonUnverifiable ||
			refusal.RetryAfter != 5 ||
			ans.Verdict.Outcome != authz.Deny || ans.Principal == nil):
			t.Errorf("%s after %s: %+v, %v", tt.target, tt.age, refusal, ans.Verdict)
		}
	}
	h.ended.age = math.MaxInt64
	if ans, _, err := h.ask(t, "GET", "/admin"); err != nil || ans.Verdict.Outcome != authz.Login {
		t.Errorf("who has no session cannot sign in: %v, %v", ans.Verdict, err)
	}
}

// What was let in closes by the same rule while it lasts.
func TestP10_AStreamOfAStrictRouteIsOverWhileNobodyCanTell(t *testing.T) {
	h := newHouse(t, nil)
	ann := "Cookie: " + h.cookie(t, person("ann", "admins"))
	strict, _, err := h.ask(t, "GET", "/admin", ann)
	testenv.Check(t, err)
	lenient, _, err := h.ask(t, "GET", "/x", ann)
	testenv.Check(t, err)
	h.ended.age = 3 * time.Second
	if err := h.Over(strict.Principal, strict.Route); err != ErrUnverifiable {
		t.Errorf("strict: %v", err)
	}
	if err := h.Over(lenient.Principal, lenient.Route); err != nil {
		t.Errorf("stale: %v", err)
	}
}

// A copy is put into a strict route only while that is open.
func TestP10_ACopyIntoAStrictRouteIsRefusedWhileNobodyCanTell(t *testing.T) {
	h := newHouse(t, nil)
	h.ended.age = 3 * time.Second
	_, _, err := h.ask(t, "COPY", "/x", "Cookie: "+h.cookie(t, person("ann", "admins")), "Destination: /admin/x")
	if refusal, ok := errors.AsType[*Refusal](err); !ok || refusal.Status != http.StatusServiceUnavailable {
		t.Errorf("%v", err)
	}
}

// Two tokens of one person may carry different claims: nothing that was made for
// one is used for the other.
func TestP02_EachTokenHasItsOwnKey(t *testing.T) {
	h := newHouse(t, tokens{"one": nil, "two": nil})
	one, _, err := h.ask(t, "GET", "/api", "Authorization: Bearer one")
	testenv.Check(t, err)
	two, _, err := h.ask(t, "GET", "/api", "Authorization: Bearer two")
	testenv.Check(t, err)
	if one.Principal.Key == two.Principal.Key {
		t.Error("two tokens have one key")
	}
}

func TestAnIncompleteAdmissionIsRefused(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("accepted")
	}
	h := newHouse(t, nil)
	_, err := New(Options{PublicHost: host, Prefix: "/p", Routes: h.routes, Headers: h.headers, Sessions: h.sessions,
		Providers: []string{"main"}, Assertions: h.assertions})
	if err == nil {
		t.Error("routes without settings are accepted")
	}
}

// Somebody who has been here before: the session, the principal, its key as text and what is
// missing of a proof are made for each request, and nothing else is.
func TestAdmittingSomebodyWhoIsKnownAllocatesLittle(t *testing.T) {
	h := newHouse(t, nil)
	facts, err := authz.NewFacts("GET", "https", host, "/x")
	testenv.Check(t, err)
	header := http.Header{"Cookie": {h.cookie(t, person("ann"))}}
	if n := testing.AllocsPerRun(100, func() {
		ans, err := h.Admit(t.Context(), Request{Facts: facts, Header: header})
		if err != nil || ans.Verdict.Outcome != authz.Forward {
			t.Errorf("%v, %v", ans.Verdict, err)
		}
	}); n > 4 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdmit(b *testing.B) { benchmarkAdmit(b, 0) }

// A signed-in request with as many sign-ins of others ended, and some persons.
func BenchmarkAdmitWithEnded(b *testing.B) {
	for _, n := range []int{0, 1000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkAdmit(b, n) })
	}
}

func benchmarkAdmit(b *testing.B, ended int) {
	h := newHouse(b, nil)
	for i := range ended {
		cut := session.Cut{Root: fmt.Sprint("root-", i), Before: h.now, Until: h.now.Add(time.Hour)}
		if i%10 == 0 {
			cut = session.Cut{Person: fmt.Sprint("main:person-", i), Before: h.now, Until: h.now.Add(time.Hour)}
		}
		testenv.Check(b, h.ended.End(b.Context(), cut))
	}
	facts, err := authz.NewFacts("GET", "https", host, "/x")
	testenv.Check(b, err)
	header := http.Header{"Cookie": {h.cookie(b, person("ann"))}}
	b.ReportAllocs()
	for b.Loop() {
		if ans, err := h.Admit(context.Background(), Request{Facts: facts, Header: header}); err != nil ||
			ans.Verdict.Outcome != authz.Forward {
			b.Fatal(err)
		}
	}
}
