package granttest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// ClientSecret is the secret that ThirdParty.New gives its connector, where it has one.
const ClientSecret = "canary-secret-of-our-client"

// ThirdParty is a connector and the pretend third party that it speaks with, as far as that
// one differs from the standard.
type ThirdParty struct {
	// New returns the connector. Everything that it asks is below base, and sent by client.
	New func(t *testing.T, base string, client *oauth.Client) grant.Connector
	// Token and Revocation are the paths of the endpoints below base; Revocation is "" where
	// nothing can be ended.
	Token, Revocation string
	// Answer is what the token endpoint answers when it agrees; nil: what RFC 6749 §5.1 says.
	Answer func(Issue) map[string]any
	// Refuse is how it refuses; nil: with status 400 and {"error": code}.
	Refuse func(code string) (status int, body string)
	// Codes are the third party's own codes for a refusal of a refresh.
	Codes map[string]grant.Class
	// Further answers what else a connector asks, such as who the account is, or whether a
	// key works; nil: with status 200 and {}.
	Further http.Handler
	// Account is who the account is after Redeem or Accept.
	Account grant.Account
	// Unsaid are scopes that count as granted where answers do not list them.
	Unsaid []string
	// Covered are scopes that others of all accesses include, so that they are not asked for by
	// name beside those.
	Covered []string
	// NoPKCE: browsers are sent away without a challenge, because the third party takes none.
	NoPKCE bool
	// NoWider: a connection to which more was granted than was asked for is refused.
	NoWider bool
	// Shared: a revocation ends the other grants of an account too, so it is not asked while
	// there are some.
	Shared bool
	// Key is one that works; for connectors that are Keyed. Probes is how many requests it
	// takes to see that; 0: 1.
	Key    string
	Probes int
	// KeyIsAddress: the credential is an address, which people choose; Key is its path.
	KeyIsAddress bool
}

// key is one that works at a pretend third party.
func (p *ThirdParty) key(base string) string {
	if p.KeyIsAddress {
		return base + p.Key
	}
	return p.Key
}

// Issue is what a token endpoint gives out. Members that are zero are left out of the answer.
type Issue struct {
	Base      string // of the pretend third party
	ClientID  string
	Handshake identity.Handshake
	First     bool // for a code, not for a refresh token
	Access    string
	Refresh   string
	Scopes    []string
	Expires   int // in seconds
}

func (p *ThirdParty) answer(i Issue) map[string]any {
	if p.Answer != nil {
		return p.Answer(i)
	}
	answer := map[string]any{"access_token": i.Access, "token_type": "bearer"}
	if i.Refresh != "" {
		answer["refresh_token"] = i.Refresh
	}
	if i.Scopes != nil {
		answer["scope"] = strings.Join(i.Scopes, " ")
	}
	if i.Expires != 0 {
		answer["expires_in"] = i.Expires
	}
	return answer
}

func (p *ThirdParty) refuse(code string) (status int, body string) {
	if p.Refuse != nil {
		return p.Refuse(code)
	}
	return http.StatusBadRequest, fmt.Sprintf(`{"error":%q,"error_description":%q}`, code, canary)
}

// What may never be seen in a text.
const (
	canary   = "canary-words-of-the-peer"
	code     = "canary-authorization-code"
	verifier = "canary-verifier-dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1g"
	state    = "canary-state-of-a-browser"
	nonce    = "canary-nonce-of-a-trip"
	access   = "canary-access-token-1"
	access2  = "canary-access-token-2"
	refresh  = "canary-refresh-token-1"
	refresh2 = "canary-refresh-token-2"
	redirect = "https://sallyport.test/.sallyport/connect/it/callback?a=b%20c&d=%2F"
)

func handshake() identity.Handshake {
	return identity.Handshake{State: state, Nonce: nonce, Verifier: verifier}
}

// TestConnector runs the contract of grant.Connector and of what else the connector is.
func TestConnector(t *testing.T, p ThirdParty) {
	t.Run("about", func(t *testing.T) { testAbout(t, p) })
	c := start(t, p).connector(t)
	_, isOAuth := c.(grant.OAuth)
	_, isKeyed := c.(grant.Keyed)
	if !isOAuth && !isKeyed {
		t.Error("nobody can connect anything with it")
	}
	if isOAuth {
		t.Run("P06 browsers are sent away", func(t *testing.T) { testAuthURL(t, p) })
		t.Run("connecting", func(t *testing.T) { testRedeem(t, p) })
		t.Run("refreshing", func(t *testing.T) { testRefresh(t, p) })
		t.Run("P14 one request whatever the peer does", func(t *testing.T) { testFaults(t, p) })
		t.Run("P14 one request over HTTP/2", func(t *testing.T) { testHTTP2(t, p) })
	}
	if isKeyed {
		t.Run("pasting a key", func(t *testing.T) { testKey(t, p) })
	}
	if _, ok := c.(grant.Revoker); ok {
		t.Run("ending", func(t *testing.T) { testRevoke(t, p) })
	}
}

// request asks for all accesses of a connector.
func request(c grant.Connector) grant.Request {
	r := grant.Request{RedirectURI: redirect, Offline: true}
	for _, a := range c.About().Accesses {
		r.Access = append(r.Access, a.Name)
		for _, scope := range a.Scopes {
			if !slices.Contains(r.Scopes, scope) {
				r.Scopes = append(r.Scopes, scope)
			}
		}
	}
	return r
}

func callback() url.Values { return url.Values{"code": {code}, "state": {state}} }

func shown() grant.Tokens {
	return grant.Tokens{Access: access, Refresh: refresh, AccessIssued: time.Now()}
}

// silent fails if a value can be printed so that a secret is seen.
func silent(t *testing.T, p ThirdParty, values ...any) {
	t.Helper()
	secrets := []string{ClientSecret, canary, code, verifier, state, nonce, access, access2, refresh, refresh2}
	if p.Key != "" {
		secrets = append(secrets, p.Key)
	}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			text := fmt.Sprintf(verb, v)
			for _, secret := range secrets {
				if strings.Contains(text, secret) {
					t.Errorf("a %T prints %q with %s", v, secret, verb)
				}
			}
		}
	}
}

// failure is err as the type that connectors owe, with a class and a reason.
func failure(t *testing.T, p ThirdParty, err error) *grant.Error {
	t.Helper()
	silent(t, p, err)
	e, ok := errors.AsType[*grant.Error](err)
	if !ok || e.Reason == "" {
		t.Errorf("the error has no class or no reason: %v", err)
		return &grant.Error{}
	}
	return e
}

func testAbout(t *testing.T, p ThirdParty) {
	s := start(t, p)
	c := s.connector(t)
	about := c.About()
	if !reflect.DeepEqual(about, c.About()) {
		t.Error("it says another thing each time")
	}
	silent(t, p, c, about)
	if about.Shipped != "" {
		t.Errorf("addresses of the configuration are said to be those of %s itself", about.Shipped)
	}
	if about.ID == "" || about.Type == "" || about.Name == "" || (about.Inject.Header == "") != p.KeyIsAddress {
		t.Errorf("an id, a type, a name or a header is missing: %+v", about)
	}
	if about.Owner != grant.OwnedByUser && about.Owner != grant.OwnedByOrg {
		t.Errorf("it belongs to %q", about.Owner)
	}
	testAccesses(t, about)
	if _, ok := c.(grant.OAuth); ok {
		u, err := url.Parse(about.Authorize)
		if err != nil || u.Host == "" || about.Authorize != u.Scheme+"://"+u.Host {
			t.Errorf("browsers are sent to %q, which is no origin", about.Authorize)
		}
		if about.ClientID == "" {
			t.Error("it has no client")
		}
		if about.Refresh != s.base || p.Revocation != "" && about.Revoke != s.base {
			t.Errorf("refresh tokens are sent to %s, and it says %q and %q", s.base, about.Refresh, about.Revoke)
		}
	} else if about.Authorize != "" || about.ClientID == "" {
		t.Error("it names an authorization server, and has none, or does not say whose its keys are")
	}
	if _, keyed := c.(grant.Keyed); keyed != (about.KeyHint != "") {
		t.Errorf("what has to be pasted is %q", about.KeyHint)
	}
	for _, account := range []grant.Account{{}, p.Account} {
		origin := c.Origin(account)
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || strings.ContainsAny(origin, "?#@") || strings.HasSuffix(origin, "/") {
			t.Errorf("the API is at %q", origin)
		}
	}
	if strings.Contains(c.Origin(grant.Account{ID: "evil.test", Region: "evil.test", Name: "evil.test"}), "evil") {
		t.Error("what an account is called decides where its credential is sent")
	}
	for i := range about.Accesses {
		about.Accesses[i] = grant.Access{}
	}
	if len(about.Accesses) > 0 && c.About().Accesses[0].Name == "" {
		t.Error("who asks what it is can change it")
	}
	if s.alsoAsked() != nil || len(s.asked(t)) != 0 {
		t.Error("it asks the third party what it is")
	}
}

func testAccesses(t *testing.T, about grant.About) {
	if len(about.Accesses) == 0 {
		t.Error("nothing can be agreed to")
	}
	names := map[string]bool{}
	for _, a := range about.Accesses {
		if a.Name == "" || names[a.Name] {
			t.Errorf("the name %q is empty, or there twice", a.Name)
		}
		names[a.Name] = true
		if a.Means == "" || strings.HasSuffix(a.Means, ".") || strings.ToLower(a.Means[:1]) != a.Means[:1] {
			t.Errorf("%q does not follow on \"the app may\"", a.Means)
		}
		if len(a.Rules) == 0 {
			t.Errorf("%s lets nothing through", a.Name)
		}
		for _, r := range a.Rules {
			if again, err := grant.ParseRule(r.String()); err != nil || again.String() != r.String() {
				t.Errorf("%s has the rule %q: %v", a.Name, r, err)
			}
		}
	}
}

func testAuthURL(t *testing.T, p ThirdParty) {
	s := start(t, p)
	c := s.connector(t).(grant.OAuth)
	r := request(c)
	address, err := c.AuthURL(handshake(), r)
	u, parseErr := url.Parse(address)
	if err != nil || parseErr != nil {
		t.Fatalf("%v, %v", err, parseErr)
	}
	if got := u.Scheme + "://" + u.Host; got != c.About().Authorize {
		t.Errorf("browsers are sent to %s, and the page lets them go to %s", got, c.About().Authorize)
	}
	q := u.Query()
	want := map[string]string{"response_type": "code", "client_id": c.About().ClientID, "state": state,
		"redirect_uri": redirect, "code_challenge_method": "S256",
		"code_challenge": challenge(verifier)}
	if p.NoPKCE {
		delete(want, "code_challenge")
		delete(want, "code_challenge_method")
	}
	for name, value := range want {
		if got := q[name]; len(got) != 1 || got[0] != value {
			t.Errorf("%s is %q, not %q", name, got, value)
		}
	}
	scopes := strings.FieldsFunc(strings.Join(q["scope"], " "), func(r rune) bool { return r == ' ' || r == ',' })
	for _, scope := range r.Scopes {
		if !slices.Contains(scopes, scope) && !slices.Contains(p.Covered, scope) {
			t.Errorf("%s is not asked for", scope)
		}
	}
	if strings.Contains(address, verifier) || strings.Contains(address, ClientSecret) {
		t.Error("the address has the verifier or the secret in it")
	}
	for name, bad := range map[string]identity.Handshake{"state": {Nonce: nonce, Verifier: verifier},
		"verifier": {Nonce: nonce, State: state}} {
		if name == "verifier" && p.NoPKCE {
			continue
		}
		if _, err := c.AuthURL(bad, r); err == nil {
			t.Errorf("a browser is sent away without %s", name)
		}
	}
	if s.alsoAsked() != nil || len(s.asked(t)) != 0 {
		t.Error("the third party was asked")
	}
}

func testRedeem(t *testing.T, p ThirdParty) {
	s := start(t, p)
	c := s.connector(t).(grant.OAuth)
	r := request(c)
	connect := func(change func(*Issue)) (grant.Result, error) {
		s.next(func(i *Issue) {
			*i = Issue{Base: i.Base, ClientID: i.ClientID, Handshake: handshake(), First: true, Access: access,
				Refresh: refresh, Scopes: r.Scopes, Expires: 3600}
			change(i)
		})
		got, err := c.Redeem(t.Context(), callback(), handshake(), r)
		silent(t, p, got, err)
		forms := s.asked(t)
		if len(forms) != 1 {
			t.Fatalf("the token endpoint was asked %d times", len(forms))
		}
		f := forms[0]
		if f.Get("grant_type") != "authorization_code" || f.Get("code") != code || f.Get("redirect_uri") != redirect ||
			f.Get("code_verifier") != verifier && !p.NoPKCE {
			t.Error("grant_type, code, redirect_uri or code_verifier is not what it has to be")
		}
		return got, err
	}

	began := time.Now()
	got, err := connect(func(*Issue) {})
	if err != nil {
		t.Fatal(err)
	}
	if got.Tokens.Access != access || got.Tokens.Refresh != refresh {
		t.Error("it returns other tokens than came")
	}
	if e := got.Tokens.AccessExpires; e.Before(began.Add(time.Hour-time.Second)) || e.After(time.Now().Add(time.Hour)) {
		t.Errorf("the access token expires at %v", e)
	}
	if i := got.Tokens.AccessIssued; i.Before(began.Add(-time.Second)) || i.After(time.Now()) {
		t.Errorf("the access token is of %v", i)
	}
	if got.Account != p.Account {
		t.Errorf("the account is %+v", got.Account)
	}
	wantScopes(t, "as asked", got, r.Scopes)

	backwards := slices.Clone(r.Scopes)
	slices.Reverse(backwards)
	got, err = connect(func(i *Issue) { i.Scopes = append(backwards, r.Scopes...) })
	if err != nil {
		t.Errorf("scopes are no set: %v", err)
	}
	wantScopes(t, "another order", got, r.Scopes)

	if p.Unsaid != nil {
		got, err = connect(func(i *Issue) { i.Scopes = without(r.Scopes, p.Unsaid) })
		if err != nil {
			t.Errorf("an answer without %q: %v", p.Unsaid, err)
		}
		wantScopes(t, "not listed, and granted", got, r.Scopes)
	}

	if got, err = connect(func(i *Issue) { i.Scopes = nil }); err != nil {
		t.Errorf("an answer without scopes: %v", err)
	}
	wantScopes(t, "not told, so as asked (RFC 6749 §5.1)", got, r.Scopes)

	wider := append(slices.Clone(r.Scopes), "further.scope")
	switch got, err = connect(func(i *Issue) { i.Scopes = wider }); {
	case p.NoWider && err == nil:
		t.Error("more than was asked for is accepted")
	case !p.NoWider && err != nil:
		t.Errorf("more than was asked for: %v", err)
	case !p.NoWider:
		wantScopes(t, "wider", got, wider)
	}
	if len(r.Scopes) > 0 {
		last := r.Scopes[len(r.Scopes)-1]
		_, err = connect(func(i *Issue) { i.Scopes = append([]string{"other.scope"}, r.Scopes[:len(r.Scopes)-1]...) })
		if e := failure(t, p, err); e.Class != grant.Narrow || !slices.Equal(e.Missing, []string{last}) {
			t.Errorf("%s is missing: %v, missing %q", last, err, e.Missing)
		}
	}
	_, err = connect(func(i *Issue) { i.Refresh = "" })
	if e := failure(t, p, err); e.Class != grant.Yours && e.Class != grant.Ours && e.Class != grant.Narrow {
		t.Errorf("a token that expires, with no other one to follow: %v", err)
	}
	testCallbacks(t, p, s, c)
}

func without(list, these []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(these, s) })
}

// testCallbacks: what comes back with a browser without a code, or with more, asks nobody
// for anything.
func testCallbacks(t *testing.T, p ThirdParty, s *peer, c grant.OAuth) {
	for name, tt := range map[string]struct {
		callback url.Values
		class    grant.Class // "": any but Lost and Unsent, which would be tried again
	}{
		"denied":           {url.Values{"error": {"access_denied"}, "error_description": {canary}}, grant.Yours},
		"denied, and code": {url.Values{"error": {"access_denied"}, "code": {code}}, grant.Yours},
		"busy":             {url.Values{"error": {"temporarily_unavailable"}}, grant.Later},
		"our request":      {url.Values{"error": {"invalid_scope"}}, grant.Ours},
		"unheard of":       {url.Values{"error": {canary}}, ""},
		"no code":          {url.Values{"state": {state}}, ""},
		"two codes":        {url.Values{"code": {code, code + "2"}}, ""},
	} {
		_, err := c.Redeem(t.Context(), tt.callback, handshake(), request(c))
		e := failure(t, p, err)
		if tt.class != "" && e.Class != tt.class || e.Class == grant.Lost || e.Class == grant.Unsent {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(s.asked(t)); n != 0 {
			t.Errorf("%s: the token endpoint was asked %d times", name, n)
		}
	}
}

func wantScopes(t *testing.T, what string, got grant.Result, want []string) {
	t.Helper()
	a, b := slices.Sorted(slices.Values(got.Scopes)), slices.Sorted(slices.Values(want))
	if !slices.Equal(a, slices.Compact(b)) {
		t.Errorf("%s: the scopes are %q", what, got.Scopes)
	}
}

func testRefresh(t *testing.T, p ThirdParty) {
	s := start(t, p)
	c := s.connector(t).(grant.OAuth)
	r := request(c)
	once := func(change func(*Issue)) grant.Result {
		t.Helper()
		s.next(func(i *Issue) {
			*i = Issue{Base: i.Base, ClientID: i.ClientID, Access: access2, Refresh: refresh2, Scopes: r.Scopes,
				Expires: 3600}
			change(i)
		})
		got, err := c.Refresh(t.Context(), shown(), r.Scopes)
		silent(t, p, got, err)
		if err != nil {
			t.Errorf("the tokens of an answer are lost: %v", err)
		}
		forms := s.asked(t)
		if len(forms) != 1 || forms[0].Get("grant_type") != "refresh_token" ||
			forms[0].Get("refresh_token") != refresh {
			t.Errorf("the token endpoint was asked %d times", len(forms))
		}
		if got.Tokens.Access != access2 || got.Tokens.AccessExpires.IsZero() {
			t.Error("it does not return the access token that came")
		}
		return got
	}
	if got := once(func(*Issue) {}); got.Tokens.Refresh != refresh2 {
		t.Error("it does not return the refresh token that came")
	}
	if got := once(func(i *Issue) { i.Refresh = "" }); got.Tokens.Refresh != "" {
		t.Error("it returns a refresh token, and none came")
	}
	if got := once(func(i *Issue) { i.Scopes = nil }); got.Scopes != nil {
		t.Errorf("nobody told of scopes, and they are %q", got.Scopes)
	}
	// A refresh token may have been used up by now, so that what came must be kept.
	got := once(func(i *Issue) { i.Scopes = []string{"other.scope"} })
	wantScopes(t, "told with a refresh", got, append([]string{"other.scope"}, p.Unsaid...))

	var together sync.WaitGroup
	for range 8 {
		together.Go(func() {
			if _, err := c.Refresh(t.Context(), shown(), r.Scopes); err != nil {
				t.Errorf("beside others: %v", err)
			}
		})
	}
	together.Wait()
	if n := len(s.asked(t)); n != 8 {
		t.Errorf("eight refreshes ask %d times", n)
	}
	if _, err := c.Refresh(t.Context(), grant.Tokens{Access: access}, nil); err == nil {
		t.Error("there is no refresh token, and it succeeds")
	} else if s.asked(t) != nil {
		t.Error("there is no refresh token, and the token endpoint is asked")
	}
}

// fault is how a peer fails, and what that means.
type fault struct {
	name  string
	serve func(*peer) http.HandlerFunc
	class grant.Class
}

func faults(p ThirdParty) []fault {
	refusal := func(code string) func(*peer) http.HandlerFunc {
		status, body := p.refuse(code)
		return says(status, body)
	}
	list := []fault{
		{"hangs", hangs, grant.Lost},
		{"trickles", trickles, grant.Lost},
		{"resets the connection", breaksOff(true), grant.Lost},
		{"closes the connection", breaksOff(false), grant.Lost},
		{"is cut off", says(200, `{"access_token":"`+access2, "Content-Length", "900"), grant.Lost},
		{"speaks something else", says(200, canary), grant.Lost},
		{"says nothing", says(200, ""), grant.Lost},
		{"has no token", says(200, `{"token_type":"bearer"}`), grant.Lost},
		{"is read in two ways", says(200, `{"access_token":"a","access_token":"`+access2+`"}`), grant.Lost},
		{"has no end", endless, grant.Lost},
		{"redirects", says(307, "", "Location", "/elsewhere/"+canary), grant.Ours},
		{"refuses the token", refusal("invalid_grant"), grant.Yours},
		{"refuses it with status 200", says(200, `{"ok":false,"error":"invalid_grant"}`), grant.Yours},
		{"refuses us", says(401, `{"error":"invalid_client","error_description":"`+canary+`"}`), grant.Ours},
		{"refuses us with status 400", says(400, `{"error":"invalid_client"}`), grant.Ours},
		{"refuses us with status 200", says(200, `{"ok":false,"error":"invalid_client"}`), grant.Ours},
		{"refuses our request", says(400, `{"error":"unauthorized_client"}`), grant.Ours},
		{"asks for patience", says(429, `{"error":"invalid_grant"}`, "Retry-After", "7"), grant.Later},
		{"is away for a while", says(503, `{"error":"invalid_grant"}`, "Retry-After", "7"), grant.Later},
		{"fails", says(500, "<html>"+canary), grant.Later},
		{"uses a word nobody knows", says(400, `{"error":"`+canary+`"}`), grant.Later},
		{"is a firewall", says(403, "<html>"+canary), grant.Later},
	}
	for _, code := range slices.Sorted(maps.Keys(p.Codes)) {
		list = append(list, fault{"says " + code, refusal(code), p.Codes[code]})
	}
	return list
}

func testFaults(t *testing.T, p ThirdParty) {
	for _, f := range faults(p) {
		t.Run(f.name, func(t *testing.T) {
			s := start(t, p)
			c := s.connector(t).(grant.OAuth)
			r := request(c)
			for call, do := range map[string]func(context.Context) (grant.Result, error){
				"Redeem": func(ctx context.Context) (grant.Result, error) {
					return c.Redeem(ctx, callback(), handshake(), r)
				},
				"Refresh": func(ctx context.Context) (grant.Result, error) { return c.Refresh(ctx, shown(), r.Scopes) },
			} {
				ctx, cancel := context.WithCancel(t.Context())
				s.answers(f.serve, cancel)
				got, err := do(ctx)
				cancel()
				silent(t, p, got)
				e := failure(t, p, err)
				_, own := p.Codes[strings.TrimPrefix(f.name, "says ")]
				if e.Class != f.class && (!own || call == "Refresh") {
					t.Errorf("%s: %v, not %s", call, err, f.class)
				}
				if strings.Contains(f.name, "while") || strings.Contains(f.name, "patience") {
					if e.RetryAfter != 7*time.Second {
						t.Errorf("%s: it may be tried again in %v", call, e.RetryAfter)
					}
				}
				if n, further := len(s.asked(t)), s.alsoAsked(); n != 1 || further != nil {
					t.Errorf("%s: the token endpoint was asked %d times, and then %q", call, n, further)
				}
			}
		})
	}
	t.Run("nobody is there", func(t *testing.T) { testNobody(t, p) })
	t.Run("hangs up on a connection that was good", func(t *testing.T) {
		s := start(t, p)
		c := s.connector(t).(grant.OAuth)
		s.next(func(i *Issue) { i.First = false })
		if _, err := c.Refresh(t.Context(), shown(), nil); err != nil {
			t.Fatal(err)
		}
		s.answers(breaksOff(true), nil)
		_, err := c.Refresh(t.Context(), shown(), nil)
		if n := len(s.asked(t)); failure(t, p, err).Class != grant.Lost || n != 2 {
			t.Errorf("%v, asked %d times in all", err, n)
		}
	})
}

// testNobody: what never left can be sent again at once.
func testNobody(t *testing.T, p ThirdParty) {
	s := start(t, p)
	c := s.connector(t).(grant.OAuth)
	address, err := testenv.UnusedAddress()
	testenv.Check(t, err)
	client, err := oauth.NewClient(oauth.Options{Provider: "it"})
	testenv.Check(t, err)
	lonely := p.New(t, "http://"+address, client).(grant.OAuth)
	if _, err := lonely.Refresh(t.Context(), shown(), nil); failure(t, p, err).Class != grant.Unsent {
		t.Errorf("nobody is there: %v", err)
	}
	secure := httptest.NewTLSServer(s) // nobody vouches for its certificate
	t.Cleanup(secure.Close)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger := p.New(t, secure.URL, client).(grant.OAuth)
	_, err = stranger.Refresh(t.Context(), shown(), nil)
	if n := len(s.asked(t)); failure(t, p, err).Class != grant.Unsent || n != 0 {
		t.Errorf("a stranger is there: %v, asked %d times", err, n)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Refresh(gone, shown(), nil)
	if n := len(s.asked(t)); failure(t, p, err).Class == grant.Yours || n != 0 {
		t.Errorf("the caller is gone: %v, asked %d times", err, n)
	}
}

// testHTTP2: net/http's own transport would send again what a peer resets, and without end.
func testHTTP2(t *testing.T, p ThirdParty) {
	for name, frames := range map[string]func(uint32) []byte{
		"REFUSED_STREAM": testenv.Reset(7), "PROTOCOL_ERROR": testenv.Reset(1), "INTERNAL_ERROR": testenv.Reset(2),
		"GOAWAY before it": testenv.GoAway(false, 0), "GOAWAY after it": testenv.GoAway(true, 0),
		"hangs up": testenv.HangUp, "200 and nothing": testenv.Answer200,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h2 := testenv.StartHTTP2Peer(t, true, func(int) func(uint32) []byte { return frames })
			client, err := oauth.NewClient(oauth.Options{Provider: "it", Timeout: 2 * time.Second,
				Transport: &http.Transport{TLSClientConfig: h2.TLS, ForceAttemptHTTP2: true}})
			testenv.Check(t, err)
			c := p.New(t, h2.URL, client).(grant.OAuth)
			_, err = c.Refresh(t.Context(), shown(), nil)
			if e := failure(t, p, err); e.Class != grant.Lost || h2.Got() != 1 {
				t.Errorf("%v; the peer got the refresh token %d times", err, h2.Got())
			}
		})
	}
}

func testRevoke(t *testing.T, p ThirdParty) {
	s := start(t, p)
	c := s.connector(t).(grant.Revoker)
	ended := func() []url.Values {
		s.mu.Lock()
		defer s.mu.Unlock()
		forms := s.ends
		s.ends = nil
		return forms
	}
	if p.Revocation == "" {
		if got, err := c.Revoke(t.Context(), shown(), 0); got == grant.Revoked {
			t.Errorf("nothing can be ended there, and it is: %v", err)
		}
		return
	}
	for _, tt := range []struct {
		name  string
		serve func(*peer) http.HandlerFunc
		want  grant.Revocation
	}{
		{"done", nil, grant.Revoked},
		{"done, and the answer is cut off", says(200, "x", "Content-Length", "9"), grant.Revoked},
		{"it was over", says(400, `{"error":"invalid_token"}`), grant.Revoked},
		{"not for such tokens", says(400, `{"error":"unsupported_token_type"}`), grant.NotSupported},
		{"refuses us", says(401, `{"error":"invalid_client"}`), grant.RevokeFailed},
		{"is away", says(503, canary), grant.RevokeFailed},
		{"redirects", says(302, "", "Location", "/elsewhere"), grant.RevokeFailed},
		{"hangs up", breaksOff(true), grant.RevokeFailed},
	} {
		s.answers(tt.serve, nil)
		got, err := c.Revoke(t.Context(), shown(), 0)
		silent(t, p, got, err)
		if got != tt.want || (err != nil) != (tt.want == grant.RevokeFailed) {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
		if forms := ended(); len(forms) != 1 || forms[0].Get("token") != refresh {
			t.Errorf("%s: asked %d times, or not with the refresh token", tt.name, len(forms))
		}
	}
	s.answers(nil, nil)
	got, err := c.Revoke(t.Context(), shown(), 1)
	if forms := ended(); p.Shared && (got != grant.SharedThere || forms != nil) || !p.Shared && got != grant.Revoked {
		t.Errorf("beside another grant: %q, %v, asked %d times", got, err, len(forms))
	}
	// A grant that has no refresh token is ended by its access token.
	if _, err := c.Revoke(t.Context(), grant.Tokens{Access: access}, 0); err != nil {
		t.Errorf("without a refresh token: %v", err)
	} else if forms := ended(); len(forms) != 1 || forms[0].Get("token") != access {
		t.Errorf("without a refresh token: asked %d times", len(forms))
	}
}

func testKey(t *testing.T, p ThirdParty) {
	s := start(t, p)
	c := s.connector(t).(grant.Keyed)
	accept := func(ctx context.Context, key string) (grant.Result, int, error) {
		t.Helper()
		got, err := c.Accept(ctx, key, request(c))
		silent(t, p, got, err)
		n := len(s.alsoAsked())
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.keys != nil {
			t.Errorf("the key is in the address or the body of %q", s.keys)
		}
		return got, n, err
	}
	key := p.key(s.base)
	got, n, err := accept(t.Context(), key)
	if err != nil || got.Tokens.Access != key || got.Tokens.AccessIssued.IsZero() || got.Tokens.Refresh != "" {
		t.Errorf("a key that works: %v", err)
	}
	if got.Account != p.Account || n != max(p.Probes, 1) {
		t.Errorf("the account is %+v; asked %d times", got.Account, n)
	}
	if got, _, err := accept(t.Context(), " "+key+"\r\n"); err != nil || got.Tokens.Access != key {
		t.Errorf("with white space around it, as copied: %v", err)
	}
	for _, bad := range []string{"", " ", key + " " + key, key + "\r\nX-Other: 1", key + "\x00", key + "é",
		key + "\u2028" + key, key + strings.Repeat("k", 1<<16)} {
		if _, n, err := accept(t.Context(), bad); failure(t, p, err).Class != grant.Yours || n != 0 {
			t.Errorf("%.40q cannot be a key: %v, asked %d times", bad, err, n)
		}
	}
	wrong := grant.Ours // who has to put an address right where nothing is
	if p.KeyIsAddress {
		wrong = grant.Yours
	}
	for _, tt := range []struct {
		name  string
		serve func(*peer) http.HandlerFunc
		class grant.Class
	}{
		{"refuses it", says(401, canary), grant.Yours},
		{"forbids it", says(403, canary), grant.Yours},
		{"asks for patience", says(429, "", "Retry-After", "7"), grant.Later},
		{"is away", says(503, canary, "Retry-After", "7"), grant.Later},
		{"hangs", hangs, grant.Later},
		{"resets the connection", breaksOff(true), grant.Later},
		{"redirects", says(302, "", "Location", "/elsewhere/"+canary), wrong},
		{"knows no such page", says(404, canary), wrong},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		s.answers(tt.serve, cancel)
		_, n, err := accept(ctx, key)
		cancel()
		// A request that changes nothing may be sent a second time where the connection broke.
		if failure(t, p, err).Class != tt.class || n < 1 || n > 2*max(p.Probes, 1) {
			t.Errorf("%s: %v, asked %d times", tt.name, err, n)
		}
	}
}

// challenge is made here once more, so that a wrong one is not compared with itself.
func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
