package login

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	clientID     = "sallyport"
	clientSecret = "c4nary:secret %+/é, longer than 32 bytes"
	callbackURL  = "https://app.example.com/.sallyport/callback/corp"
)

// epoch is the time of the tests at the provider, whose clock stands still.
func epoch() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

// world has a provider, a person who signs in there, and our side.
type world struct {
	t  *testing.T
	op *testenv.Faults
	p  *Provider

	mu    sync.Mutex
	ahead time.Duration // of our clock
	log   bytes.Buffer
}

func newWorld(t *testing.T, edit ...func(*Options)) *world {
	t.Helper()
	return worldOfKind(t, demo.Standard, edit...)
}

// worldOfKind is a world with a provider of this kind.
func worldOfKind(t *testing.T, kind string, edit ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t}
	w.op = testenv.StartProvider(t, demo.ProviderOptions{
		ClientID: clientID, ClientSecret: clientSecret, RedirectURIs: []string{callbackURL}, Now: epoch, Kind: kind,
	})
	w.use(edit...)
	return w
}

// use makes a new Provider on Sallyport's side.
func (w *world) use(edit ...func(*Options)) {
	w.t.Helper()
	o := Options{
		ID: "corp", Issuer: w.op.URL, ClientID: clientID, ClientSecret: clientSecret, RedirectURL: callbackURL,
		Scopes: []string{"openid", "profile", "email", "groups", "org"},
		Now:    w.now, Log: slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, e := range edit {
		e(&o)
	}
	if o.Type == TypeMicrosoft && o.Endpoints.GraphURL == "" {
		o.Endpoints.GraphURL = w.op.URL
	}
	p, err := New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.p = p
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return epoch().Add(w.ahead)
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead += d
}

// Write takes the log.
func (w *world) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(b)
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

func handshake() identity.Handshake {
	return identity.Handshake{State: "state-" + rand.Text(), Nonce: "nonce-" + rand.Text(), Verifier: "c4nary-" +
		rand.Text() + rand.Text()}
}

// authorize goes to the provider and chooses a person there. It returns what
// the provider sends back with the browser.
func (w *world) authorize(person string, h identity.Handshake, ap identity.AuthParams) (url.Values, error) {
	w.t.Helper()
	to, err := w.p.AuthURL(w.t.Context(), h, ap)
	if err != nil {
		return nil, err
	}
	browser := &http.Client{CheckRedirect: func(*http.Request,
		[]*http.Request) error {
		return http.ErrUseLastResponse
	}}
	resp, err := browser.PostForm(to, url.Values{"person": {person}})
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	back, err := resp.Location()
	if err != nil {
		w.t.Fatalf("the provider did not send the browser back: %s", resp.Status)
	}
	return back.Query(), nil
}

// signIn is a whole sign-in.
func (w *world) signIn(person string, ap identity.AuthParams) (identity.Identity, error) {
	w.t.Helper()
	h := handshake()
	callback, err := w.authorize(person, h, ap)
	if err != nil {
		return identity.Identity{}, err
	}
	id, err := w.p.Redeem(w.t.Context(), callback, h, ap)
	if err != nil && !reflect.DeepEqual(id, identity.Identity{}) {
		w.t.Errorf("an identity came with the error: %+v", id)
	}
	return id, err
}

// want asserts that mira signs in.
func (w *world) want() identity.Identity {
	w.t.Helper()
	id, err := w.signIn("mira", identity.AuthParams{})
	if err != nil {
		w.t.Fatalf("sign-in failed: %v", err)
	}
	if id.Subject != "mira" {
		w.t.Fatalf("signed in as %q", id.Subject)
	}
	return id
}

// refuse asserts that mira does not.
func (w *world) refuse(failure identity.SignInFailure) error {
	w.t.Helper()
	_, err := w.signIn("mira", identity.AuthParams{})
	return w.failed(err, failure)
}

func (w *world) failed(err error, failure identity.SignInFailure) error {
	w.t.Helper()
	var e *identity.SignInError
	if !errors.As(err, &e) {
		w.t.Fatalf("got %v, want a *SignInError", err)
	}
	if e.Failure != failure {
		w.t.Errorf("got %v, want %s", e, failure)
	}
	if strings.Contains(err.Error(), "c4nary") {
		w.t.Errorf("the error holds a secret: %v", err)
	}
	return err
}

func TestSignInTellsWhoSomebodyIs(t *testing.T) {
	w := newWorld(t)
	id := w.want()
	if id.AuthTime.IsZero() || id.ProviderSID == "" {
		t.Errorf("no auth_time or sid: %+v", id)
	}
	id.AuthTime, id.ProviderSID = time.Time{}, ""
	want := identity.Identity{
		Provider: "corp", Subject: "mira", Email: "mira@acme.example", EmailVerified: true,
		Name: "Mira Okafor", Username: "mira", Groups: []string{"engineering", "on-call"},
		Org: identity.Org{ID: "corp:acme", Name: "Acme Rockets", Domain: "acme.example", Source: "claim"},
	}
	if !reflect.DeepEqual(id, want) {
		t.Errorf("got  %+v\nwant %+v", id, want)
	}
	if w.op.Hits(testenv.Userinfo) != 0 {
		t.Error("userinfo was asked though the ID token says everything")
	}
}

// RFC 7636, RFC 9700 §2.1.1, CVE-2024-23647: PKCE is not the
// provider's to switch off.
func TestP20_TheAuthorizationRequestIsOurs(t *testing.T) {
	w := newWorld(t)
	w.op.Set(testenv.Fault{Endpoint: testenv.Discovery, JSON: testenv.Without("code_challenge_methods_supported")})
	h := handshake()
	to, err := w.p.AuthURL(t.Context(), h, identity.AuthParams{Prompt: "login", LoginHint: "mira@acme.example",
		ACR: "urn:x urn:y", MaxAge: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	got := u.Query()
	challenge := got.Get("code_challenge")
	got.Del("code_challenge")
	want := url.Values{
		"response_type": {"code"}, "client_id": {clientID}, "redirect_uri": {callbackURL},
		"scope": {"openid profile email groups org"},
		"state": {h.State}, "nonce": {h.Nonce}, "code_challenge_method": {"S256"},
		"prompt": {"login"}, "login_hint": {"mira@acme.example"}, "acr_values": {"urn:x urn:y"}, "max_age": {"300"},
	}
	if !reflect.DeepEqual(got, want) || len(challenge) != 43 || strings.Contains(to, h.Verifier) {
		t.Errorf("got %v", u.Query())
	}
	for _, broken := range []identity.Handshake{{}, {State: h.State, Nonce: h.Nonce},
		{State: h.State, Verifier: h.Verifier}, {Nonce: h.Nonce, Verifier: h.Verifier}} {
		if _, err := w.p.AuthURL(t.Context(), broken, identity.AuthParams{}); err == nil {
			t.Errorf("AuthURL took the handshake %+v", broken)
		}
	}
	if _, err := w.p.Redeem(t.Context(), url.Values{"code": {"x"}}, identity.Handshake{State: h.State},
		identity.AuthParams{}); err == nil {
		t.Error("Redeem took a handshake without nonce")
	}
}

// RFC 6749 §3.1 and §4.1.2.1, OIDC Core §3.1.2.6, RFC 9207, RFC 9700 §4.4.
func TestP06_CallbacksThatAreNotAnAnswerToUsAreRefused(t *testing.T) {
	w := newWorld(t)
	set := func(name string, values ...string) func(url.Values) { return func(q url.Values) { q[name] = values } }
	del := func(names ...string) func(url.Values) {
		return func(q url.Values) {
			for _, name := range names {
				delete(q, name)
			}
		}
	}
	failing := func(code string) func(url.Values) {
		return func(q url.Values) {
			q.Set("error", code)
			q.Set("error_description", "c4nary")
		}
	}
	rows := []struct {
		name string
		bend func(url.Values)
		want identity.SignInFailure
	}{
		{"state of another browser", set("state", "state-x"), identity.Rejected},
		{"no state", del("state"), identity.Rejected},
		{"two codes", set("code", "c4nary", "b"), identity.Rejected},
		{"two states", func(q url.Values) { q.Add("state", q.Get("state")) }, identity.Rejected},
		{"two of something else", set("x", "a", "b"), identity.Rejected},
		{"iss is missing", del("iss"), identity.Rejected},
		{"iss is empty", set("iss", ""), identity.Rejected},
		{"iss is another provider", set("iss", "https://evil.example"), identity.Rejected},
		{"iss with a slash", func(q url.Values) { q.Set("iss", q.Get("iss")+"/") }, identity.Rejected},
		{"an error of another provider",
			func(q url.Values) { q.Set("error", "access_denied"); q.Set("iss", "https://evil.example") },
			identity.Rejected},
		{"no code", del("code"), identity.Rejected},
		{"empty code", set("code", ""), identity.Rejected},
		{"endless code", set("code", strings.Repeat("x", 4<<10+1)), identity.Rejected},
		{"nothing", del("code", "state", "iss"), identity.Rejected},
		{"a code the provider does not know", set("code", "c4nary"), identity.Rejected},
		{"cancelled", failing("access_denied"), identity.Declined},
		{"login_required", failing("login_required"), identity.Interaction},
		{"interaction_required", failing("interaction_required"), identity.Interaction},
		{"consent_required", failing("consent_required"), identity.Interaction},
		{"account_selection_required", failing("account_selection_required"), identity.Interaction},
		{"server_error", failing("server_error"), identity.ProviderFault},
		{"temporarily_unavailable", failing("temporarily_unavailable"), identity.ProviderFault},
		{"keycloak/keycloak#24112", func(q url.Values) {
			q.Set("error", "temporarily_unavailable")
			q.Set("error_description", "authentication_expired")
		}, identity.Expired},
		{"LinkedIn, at the password", failing("user_cancelled_login"), identity.Declined},
		{"LinkedIn and Apple, at the consent", failing("user_cancelled_authorize"), identity.Declined},
		{"unauthorized_client", failing("unauthorized_client"), identity.Misconfigured},
		{"invalid_scope", failing("invalid_scope"), identity.Misconfigured},
		{"an error nobody registered", failing("<script>c4nary</script>"), identity.Misconfigured},
		{"an empty error", failing(""), identity.Misconfigured},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			h := handshake()
			callback, err := w.authorize("mira", h, identity.AuthParams{})
			if err != nil {
				t.Fatal(err)
			}
			row.bend(callback)
			before := w.op.Hits(testenv.Token)
			id, err := w.p.Redeem(t.Context(), callback, h, identity.AuthParams{})
			if w.failed(err, row.want); id.Subject != "" {
				t.Errorf("signed in as %+v", id)
			}
			if row.name != "a code the provider does not know" && w.op.Hits(testenv.Token) != before {
				t.Error("the code was redeemed")
			}
		})
	}
	w.t = t
	w.want() // the rows were refused for their faults only
}

// An error signs nobody in, so the operator reads what it says, not that iss is
// missing. One with somebody else's iss is still somebody else's.
func TestAnErrorIsNamedWithItsCodeItsMeaningAndTheMend(t *testing.T) {
	w := newWorld(t)
	for code, words := range map[string][]string{
		"unauthorized_client":  {"unauthorized_client", "allow it the authorization code flow"},
		"user_cancelled_login": {"user_cancelled_login", "cancelled"},
		"org_internal_only":    {"org_internal_only", "its documentation says what that means"},
		"a c4nary":             {"no plain word"},
		"":                     {"empty error code"},
	} {
		for _, announced := range []bool{true, false} {
			h := handshake()
			callback := url.Values{"state": {h.State}, "error": {code}, "error_description": {"c4nary@example.com"}}
			if !announced {
				callback.Set("iss", w.op.URL)
			}
			_, err := w.p.Redeem(t.Context(), callback, h, identity.AuthParams{})
			for _, word := range words {
				if err == nil || !strings.Contains(err.Error(), word) || strings.Contains(err.Error(), "c4nary") {
					t.Errorf("%q: %v does not say %q", code, err, word)
				}
			}
			if missing := strings.Contains(err.Error(), "without iss"); missing != announced {
				t.Errorf("%q: %v", code, err)
			}
		}
	}
	if n := w.op.Hits(testenv.Token); n != 0 {
		t.Errorf("%d token requests", n)
	}
}

// RFC 9207 §2.4: iss is compared even if it was not announced, but is then not required.
func TestP20_MixUpIsNoticedWithoutAnnouncement(t *testing.T) {
	w := newWorld(t)
	w.op.Set(testenv.Fault{Endpoint: testenv.Discovery,
		JSON: testenv.Without("authorization_response_iss_parameter_supported")})
	for iss, ok := range map[string]bool{"": true, w.op.URL: true, "https://evil.example": false} {
		h := handshake()
		callback, err := w.authorize("mira", h, identity.AuthParams{})
		if err != nil {
			t.Fatal(err)
		}
		if callback.Set("iss", iss); iss == "" {
			callback.Del("iss")
		}
		if _, err := w.p.Redeem(t.Context(), callback, h, identity.AuthParams{}); (err == nil) != ok {
			t.Errorf("iss %q: %v", iss, err)
		}
	}
}

// RFC 9700 §4.5: a code belongs to the browser whose verifier began it.
func TestP06_ACodeOfAnotherBrowserSignsNobodyIn(t *testing.T) {
	w := newWorld(t)
	attacker, victim := handshake(), handshake()
	callback, err := w.authorize("tomoko", attacker, identity.AuthParams{})
	if err != nil {
		t.Fatal(err)
	}
	callback.Set("state", victim.State) // as if the state had been no obstacle
	_, err = w.p.Redeem(t.Context(), callback, victim, identity.AuthParams{})
	w.failed(err, identity.Rejected)
}

// OIDC Discovery §3, §4.3: what a discovery document may say.
func TestP07_DiscoveryThatCannotBeTrustedIsRefused(t *testing.T) {
	w := newWorld(t)
	with := testenv.With
	rows := []struct {
		name  string
		fault testenv.Fault
		want  identity.SignInFailure
	}{
		{"another issuer", testenv.Fault{JSON: with("issuer", "https://evil.example")}, identity.Misconfigured},
		{"a slash more", testenv.Fault{JSON: func(d map[string]any) { d["issuer"] = d["issuer"].(string) + "/" }},
			identity.Misconfigured},
		{"no issuer", testenv.Fault{JSON: testenv.Without("issuer")}, identity.Misconfigured},
		{"token endpoint in cleartext", testenv.Fault{JSON: with("token_endpoint", "http://op.example/token")},
			identity.Misconfigured},
		{"keys in cleartext", testenv.Fault{JSON: with("jwks_uri", "http://op.example/jwks")},
			identity.Misconfigured},
		{"userinfo in cleartext", testenv.Fault{JSON: with("userinfo_endpoint", "http://op.example/me")},
			identity.Misconfigured},
		{"authorization endpoint is a script",
			testenv.Fault{JSON: with("authorization_endpoint", "javascript:alert(1)")}, identity.Misconfigured},
		{"authorization endpoint with a password",
			testenv.Fault{JSON: with("authorization_endpoint", "https://u:p@op.example/")}, identity.Misconfigured},
		{"no token endpoint", testenv.Fault{JSON: testenv.Without("token_endpoint")}, identity.Misconfigured},
		{"no keys", testenv.Fault{JSON: testenv.Without("jwks_uri")}, identity.Misconfigured},
		{"a redirect", testenv.Fault{Redirect: "https://evil.example/"}, identity.Misconfigured},
		{"not there", testenv.Fault{Status: 404}, identity.Misconfigured},
		{"failing", testenv.Fault{Status: 503}, identity.Unavailable},
		{"a page", testenv.Fault{Body: "<html>c4nary"}, identity.Misconfigured},
		{"endless", testenv.Fault{Pad: 2 << 20}, identity.Unavailable},
		{"cut off", testenv.Fault{Truncate: true}, identity.Unavailable},
		{"a member of another type",
			testenv.Fault{JSON: with("authorization_response_iss_parameter_supported", "c4nary")},
			identity.Misconfigured},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w.use()
			row.fault.Endpoint = testenv.Discovery
			w.op.Set(row.fault)
			_, err := w.p.AuthURL(t.Context(), handshake(), identity.AuthParams{})
			w.failed(err, row.want)
			_, err = w.p.Redeem(t.Context(), url.Values{"code": {"c4nary"}}, handshake(), identity.AuthParams{})
			w.failed(err, row.want)
		})
	}
	w.op.Set()
	w.use()
	w.want()
}

// RFC 8252 §7.3: loopback is no excuse for a provider that is not on it.
func TestP07_AnHTTPSProviderCannotPointAtCleartext(t *testing.T) {
	for address, ok := range map[string]bool{"https://keys.example/": true, "http://127.0.0.1/token": false,
		"http://op.example/": false, "//op.example": false, "": false, "https://op.example/#x": false} {
		if err := checkEndpoint("https://op.example", address); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// RFC 6749 §2.3.1: settled by discovery, never by trying with a live code.
func TestClientAuthenticationIsSettledBeforeTheCodeIsSent(t *testing.T) {
	w := newWorld(t)
	rows := []struct {
		name    string
		offered any
		auth    string
		secret  string
		want    oauth.ClientAuth
	}{
		{"basic and post", []string{"client_secret_post", "client_secret_basic"}, "", clientSecret, oauth.Basic},
		{"nothing announced", nil, "auto", clientSecret, oauth.Basic},
		{"post only", []string{"client_secret_post"}, "auto", clientSecret, oauth.Post},
		{"neither, and the operator knows better", []string{"private_key_jwt"}, "post", clientSecret, oauth.Post},
		{"configured", []string{"client_secret_basic"}, "post", clientSecret, oauth.Post},
		{"configured otherwise", []string{"client_secret_post"}, "basic", clientSecret, oauth.Basic},
		{"no secret", []string{"client_secret_basic"}, "auto", "", oauth.None},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w.use(func(o *Options) { o.ClientAuth, o.ClientSecret = row.auth, row.secret })
			bend := testenv.With("token_endpoint_auth_methods_supported", row.offered)
			if row.offered == nil {
				bend = testenv.Without("token_endpoint_auth_methods_supported")
			}
			w.op.Set(testenv.Fault{Endpoint: testenv.Discovery, JSON: bend})
			before := w.op.Hits(testenv.Token)
			if row.secret == "" {
				w.refuse(identity.Misconfigured) // this provider wants a secret
			} else {
				w.want()
			}
			sent := w.op.Requests(testenv.Token)[before:]
			if len(sent) != 1 {
				t.Fatalf("%d token requests", len(sent))
			}
			form, err := url.ParseQuery(string(sent[0].Body))
			if err != nil {
				t.Fatal(err)
			}
			got := map[bool]oauth.ClientAuth{true: oauth.Post, false: oauth.None}[form.Has("client_secret")]
			if sent[0].Header.Get("Authorization") != "" {
				got = oauth.Basic
			}
			if got != row.want {
				t.Errorf("sent %s, want %s", got, row.want)
			}
			if form.Get("code_verifier") == "" || form.Get("redirect_uri") != callbackURL {
				t.Errorf("form lacks the verifier or the redirect URI")
			}
		})
	}
}

// What goes wrong at the token endpoint is told apart, once.
func TestTokenEndpointFailuresHaveTheRightName(t *testing.T) {
	w := newWorld(t)
	rows := []struct {
		name  string
		fault testenv.Fault
		want  identity.SignInFailure
	}{
		{"wrong secret", testenv.Fault{Status: 401, Body: `{"error":"invalid_client","error_description":"c4nary"}`},
			identity.Misconfigured},
		{"code refused", testenv.Fault{Status: 400, Body: `{"error":"invalid_grant"}`}, identity.Rejected},
		{"failing", testenv.Fault{Status: 500}, identity.Unavailable},
		{"too many", testenv.Fault{Status: 429}, identity.Unavailable},
		{"a redirect", testenv.Fault{Redirect: "https://evil.example/", Status: 307}, identity.Misconfigured},
		{"a page", testenv.Fault{Body: "<html>c4nary"}, identity.Rejected},
		{"endless", testenv.Fault{Pad: 2 << 20}, identity.Rejected},
		{"cut off", testenv.Fault{Truncate: true}, identity.Rejected},
		{"no ID token", testenv.Fault{JSON: testenv.Without("id_token")}, identity.Rejected},
		{"ID token null", testenv.Fault{JSON: testenv.With("id_token", nil)}, identity.Rejected},
		{"ID token a number", testenv.Fault{JSON: testenv.With("id_token", 1)}, identity.Rejected},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			row.fault.Endpoint = testenv.Token
			w.op.Set(row.fault)
			before := w.op.Hits(testenv.Token)
			w.refuse(row.want)
			if n := w.op.Hits(testenv.Token) - before; n != 1 {
				t.Errorf("%d token requests for one code", n)
			}
		})
	}
	for name, fault := range map[string]testenv.Fault{
		"bearer in lower case": {JSON: testenv.With("token_type", "bearer")},
		"no expires_in":        {JSON: testenv.Without("expires_in")},
		"JSON as text":         {ContentType: "text/plain"},
	} {
		t.Run(name, func(t *testing.T) {
			fault.Endpoint = testenv.Token
			w.op.Set(fault)
			w.want()
		})
	}
}

// A provider that does not answer in time costs that sign-in and no more.
func TestAStalledProviderEndsAtTheDeadline(t *testing.T) {
	client, err := oauth.NewClient(oauth.Options{Provider: "corp", Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	for _, endpoint := range []string{testenv.Discovery, testenv.JWKS, testenv.Token, testenv.Userinfo} {
		w.use(func(o *Options) { o.Client, o.IdentityFrom = client, FromUserinfo })
		w.op.Set(testenv.Fault{Endpoint: endpoint, Stall: true})
		w.refuse(identity.Unavailable)
		w.op.Set()
		w.pass(31 * time.Second)
		w.want()
	}
}

// Sallyport can start before the provider, and needs no restart when the provider is there.
func TestAProviderThatIsDownHealsByItself(t *testing.T) {
	w := newWorld(t)
	w.op.Set(testenv.Fault{Endpoint: testenv.Discovery, Status: 503})
	for range 50 {
		w.refuse(identity.Unavailable)
	}
	if n := w.op.Hits(testenv.Discovery); n != 1 {
		t.Errorf("%d discovery requests within a second", n)
	}
	for range 60 { // a minute of somebody trying every second
		w.pass(time.Second)
		w.refuse(identity.Unavailable)
	}
	if n := w.op.Hits(testenv.Discovery); n < 10 || n > 61 {
		t.Errorf("%d discovery requests in a minute", n)
	}
	w.op.Set()
	w.pass(4 * time.Second) // the first sign-in at most 5 s after it is back
	w.want()
	if got := w.p.AuthOrigins()[0]; got != w.op.URL {
		t.Errorf("AuthOrigin is %s", got)
	}
}

func TestManyPeopleAtOnceAskDiscoveryOnce(t *testing.T) {
	w := newWorld(t)
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			if _, err := w.p.AuthURL(context.Background(), handshake(), identity.AuthParams{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := w.op.Hits(testenv.Discovery); n != 1 {
		t.Errorf("%d discovery requests", n)
	}
}

// The browser that came first may leave; the others get their answer.
func TestABrowserThatLeavesSpoilsNothing(t *testing.T) {
	w := newWorld(t)
	gone, leave := context.WithCancel(context.Background())
	leave()
	_, err := w.p.AuthURL(gone, handshake(), identity.AuthParams{})
	if err != nil { // it may have been quick
		w.failed(err, identity.Unavailable)
	}
	w.want()
	if n := w.op.Hits(testenv.Discovery); n != 1 {
		t.Errorf("%d discovery requests", n)
	}
}

// Old metadata is renewed in the background of a sign-in, and kept if that fails.
func TestMetadataIsRenewedAfterADay(t *testing.T) {
	w := newWorld(t)
	w.want()
	keys := w.p.disco.current().keys
	w.pass(25 * time.Hour)
	w.op.Set(testenv.Fault{Endpoint: testenv.Discovery, Status: 500})
	for range 3 {
		if _, err := w.p.AuthURL(t.Context(), handshake(), identity.AuthParams{}); err != nil {
			t.Fatalf("an outage of discovery stopped a sign-in: %v", err)
		}
	}
	w.settle()
	if n := w.op.Hits(testenv.Discovery); n != 2 {
		t.Errorf("%d discovery requests, want 2", n)
	}
	w.op.Set(testenv.Fault{Endpoint: testenv.Discovery,
		JSON: testenv.With("authorization_endpoint", "https://login.example/authorize")})
	w.pass(time.Minute)
	if _, err := w.p.AuthURL(t.Context(), handshake(), identity.AuthParams{}); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if got := w.p.AuthOrigins()[0]; got != "https://login.example" {
		t.Errorf("AuthOrigin is %s after the provider moved", got)
	}
	if w.p.disco.current().keys != keys {
		t.Error("the keys, and their rate limit, were forgotten with the old metadata")
	}
}

// settle waits for renewals that go on in the background, by joining them.
func (w *world) settle() {
	<-w.p.disco.flight.DoChan("", func() (any, error) { return nil, nil })
	if m := w.p.disco.current(); m != nil && m.keys != nil && m.keys.others != nil {
		<-m.keys.flight.DoChan(m.keys.others.name, func() (any, error) { return nil, nil })
	}
}

func TestAuthOriginIsKnownBeforeTheProviderAnswers(t *testing.T) {
	p, err := New(Options{ID: "corp", Issuer: "https://op.example/realms/x", ClientID: "x", RedirectURL: callbackURL})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.AuthOrigins()[0]; got != "https://op.example" {
		t.Errorf("AuthOrigin is %s", got)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := Options{ID: "corp", Issuer: "https://op.example", ClientID: "x", ClientSecret: "y",
		RedirectURL: callbackURL}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	rows := map[string]func(*Options){
		"no id":                      func(o *Options) { o.ID = "" },
		"an id with a colon":         func(o *Options) { o.ID = "a:b" },
		"no issuer":                  func(o *Options) { o.Issuer = "" },
		"issuer in cleartext":        func(o *Options) { o.Issuer = "http://op.example" },
		"issuer looks like loopback": func(o *Options) { o.Issuer = "http://localhost.example" },
		"issuer with a query":        func(o *Options) { o.Issuer += "?x" },
		"issuer with a fragment":     func(o *Options) { o.Issuer += "#" },
		"issuer with a password":     func(o *Options) { o.Issuer = "https://a:b@op.example" },
		"redirect in cleartext":      func(o *Options) { o.RedirectURL = "http://app.example.com/cb" },
		"no redirect":                func(o *Options) { o.RedirectURL = "" },
		"no client id":               func(o *Options) { o.ClientID = "" },
		"basic without a secret":     func(o *Options) { o.ClientAuth, o.ClientSecret = "basic", "" },
		"unknown client auth":        func(o *Options) { o.ClientAuth = "guess" },
		"unknown identity source":    func(o *Options) { o.IdentityFrom = "both" },
		"a domain with an @":         func(o *Options) { o.EmailDomains = []string{"@acme.example"} },
	}
	for name, bend := range rows {
		o := good
		bend(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// CVE-2026-33544: nothing of one sign-in is kept for the next.
func TestP20_PeopleWhoSignInAtOnceAreNotMixedUp(t *testing.T) {
	w := newWorld(t)
	people := []string{"mira", "jonas", "tomoko", "zoe", "sam"}
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			person := people[i%len(people)]
			id, err := w.signIn(person, identity.AuthParams{})
			if err != nil || id.Subject != person || !strings.HasPrefix(id.Email, person+"@") {
				t.Errorf("%s became %+v, %v", person, id, err)
			}
		})
	}
	all.Wait()
}

// P8, P18: everything secret carries a mark; no log line and no error shows it.
func TestP18_NothingSecretIsLoggedOrInAnError(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.IdentityFrom = FromUserinfo })
	faults := []testenv.Fault{
		{},
		// iss, aud, azp and kid are said: they are about the token
		{Endpoint: testenv.Token, Claims: testenv.With("nonce", "c4nary")},
		{Endpoint: testenv.Token, Claims: testenv.With("at_hash", "c4nary")},
		{Endpoint: testenv.Token, Claims: testenv.With("sub", []string{"c4nary"})},
		{Endpoint: testenv.Token, Resign: testenv.SignedByStranger},
		{Endpoint: testenv.Token, JSON: testenv.With("id_token", "c4nary")},
		{Endpoint: testenv.Token, JSON: testenv.With("token_type", "c4nary")},
		{Endpoint: testenv.Token, Status: 400, Body: `{"error":"c4nary","error_description":"c4nary"}`},
		{Endpoint: testenv.Token, Status: 500, Body: `c4nary`},
		{Endpoint: testenv.Token, Body: `c4nary`},
		{Endpoint: testenv.Token, Truncate: true},
		{Endpoint: testenv.Token, Redirect: "https://c4nary.example/"},
		{Endpoint: testenv.Userinfo, Status: 401, Body: `c4nary`},
		{Endpoint: testenv.Userinfo, Body: `c4nary`},
		{Endpoint: testenv.Userinfo, JSON: testenv.With("sub", "c4nary")},
		{Endpoint: testenv.Userinfo, JSON: testenv.With("groups", []any{"c4nary", 1})},
		{Endpoint: testenv.Userinfo, JSON: testenv.With("email", "c4nary@@x")},
		{Endpoint: testenv.Userinfo, ContentType: "application/jwt"},
		{Endpoint: testenv.JWKS, Status: 500, Body: "c4nary"},
		{Endpoint: testenv.JWKS, Body: `{"keys":["c4nary"]}`},
		{Endpoint: testenv.Discovery, Status: 500, Body: "c4nary"},
		{Endpoint: testenv.Discovery, Body: "c4nary"},
	}
	marks := []string{"c4nary", "demo-code-", "demo-at-", "demo-rt-", "eyJ", "state-", "nonce-"}
	for _, fault := range faults {
		w.use(func(o *Options) { o.IdentityFrom = FromUserinfo })
		w.op.Set(fault)
		_, err := w.signIn("mira", identity.AuthParams{})
		if err == nil && fault.Endpoint != "" && fault.Endpoint != testenv.Userinfo {
			t.Errorf("%+v: signed in", fault)
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			for _, mark := range marks {
				if strings.Contains(e.Error(), mark) {
					t.Errorf("%+v: the error shows %q: %v", fault, mark, e)
				}
			}
		}
	}
	w.settle()
	for _, mark := range marks {
		if strings.Contains(w.logged(), mark) {
			t.Errorf("the log shows %q:\n%s", mark, w.logged())
		}
	}
	if !strings.Contains(w.logged(), `"claim":"groups"`) || !strings.Contains(w.logged(), "discovery failed") {
		t.Errorf("the log does not show what was left out:\n%s", w.logged())
	}
	if slices.ContainsFunc(w.op.Requests(testenv.Userinfo),
		func(r testenv.Request) bool { return strings.Contains(r.Target, "demo-at-") }) {
		t.Error("an access token went into a URL") // RFC 6750 §5.3
	}
}
