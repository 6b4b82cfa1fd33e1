package login

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

const api = "https://api.acme.example"

// accessClaims are those of a good access token (RFC 9068 §2.2).
func (w *world) accessClaims() map[string]any {
	return map[string]any{
		"iss": w.op.URL, "aud": api, "sub": "mira", "client_id": "cli", "jti": "1", "iat": in(-time.Minute),
		"exp":   in(10 * time.Minute),
		"email": "mira@acme.example", "email_verified": true, "name": "Mira Novak", "preferred_username": "mira",
		"groups": []string{"admins", "staff"}, "org_id": "acme", "org_name": "Acme Rockets",
		"org_domain": "acme.example",
	}
}

func atJWT() map[string]any { return map[string]any{"typ": "at+jwt"} }

// signed returns a token that the provider's current key has signed.
func (w *world) signed(header, claims map[string]any) string {
	w.t.Helper()
	token, err := w.op.Provider.Sign(header, claims)
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

func (w *world) bearer(edit ...func(*BearerOptions)) *TokenVerifier {
	w.t.Helper()
	o := BearerOptions{Audiences: []string{"https://other.example", api}, ClientIDs: []string{"another-sign-in"}}
	for _, e := range edit {
		e(&o)
	}
	b, err := w.p.TokenVerifier(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func anyTyp(o *BearerOptions) { o.Quirks = []string{"any_typ"} }

func TestAccessTokenTellsWhoAsksAndUntilWhen(t *testing.T) {
	w := newWorld(t)
	b := w.bearer()
	want := identity.Identity{
		Provider: "corp", Subject: "mira", Email: "mira@acme.example", EmailVerified: true, Name: "Mira Novak",
		Username: "mira",
		Groups:   []string{"admins", "staff"},
		Org:      identity.Org{ID: "corp:acme", Name: "Acme Rockets", Domain: "acme.example", Source: "claim"},
	}
	token := w.signed(atJWT(), w.accessClaims())
	for range 3 {
		id, expires, err := b.Verify(t.Context(), token)
		if err != nil || !reflect.DeepEqual(id, want) || expires.Unix() != in(10*time.Minute) {
			t.Fatalf("%+v until %v, %v", id, expires, err)
		}
	}
	if w.op.Hits(testenv.JWKS) != 1 || w.op.Hits(testenv.Userinfo) != 0 {
		t.Errorf("asked for keys %d times, for userinfo %d times", w.op.Hits(testenv.JWKS), w.op.Hits(testenv.Userinfo))
	}
}

// The same keys, the same discovery, the same clock and the same people as at
// sign-in: what differs is which tokens are access tokens. Each row is one lie
// in a token that is otherwise good and, unless it says so, properly signed.
func TestP07_RefusesAccessTokens(t *testing.T) {
	w := newWorld(t)
	strict, lax := w.bearer(), w.bearer(anyTyp)
	with, without := testenv.With, testenv.Without
	type row struct {
		name  string
		typ   any
		bend  bend
		sign  testenv.Signer
		both  bool // the quirk any_typ changes nothing
		says  string
		fails identity.SignInFailure
	}
	typ := func(name string, typ any) row { return row{name: name, typ: typ, says: "typ is not at+jwt"} }
	lie := func(name, says string, b bend) row { return row{name: name, bend: b, both: true, says: says} }
	resign := func(name, says string, s testenv.Signer) row { return row{name: name, sign: s, both: true, says: says} }
	skewed := func(name, says string, b bend) row {
		return row{name: name, bend: b, both: true, says: says, fails: identity.ClockSkew}
	}
	rows := []row{
		typ("RFC 9068 §4 typ JWT", "JWT"), typ("RFC 9068 §4 no typ", nil), typ("RFC 9068 §4 typ empty", ""),
		typ("RFC 9068 §4 typ null", json.RawMessage("null")),
		typ("RFC 8725 §3.11 typ logout+jwt", "logout+jwt"), typ("RFC 8725 §3.11 typ secevent+jwt", "secevent+jwt"),
		typ("typ a list", []string{"at+jwt"}),
		typ("typ at+jwt and more", "at+jwt; x"), typ("typ with a blank", " at+jwt"),
		typ("typ text/at+jwt", "text/at+jwt"), typ("typ in wide letters", "ａt+jwt"),

		lie("RFC 9068 §5 nonce", "nonce", with("nonce", "n-1")),
		lie("RFC 9068 §5 nonce of another kind", "nonce", with("nonce", 0)),
		lie("RFC 9068 §5 at_hash", "at_hash", with("at_hash", "AAAAAAAAAAAAAAAAAAAAAA")),
		lie("OIDC §3.3.2.11 c_hash", "c_hash", with("c_hash", "AAAAAAAAAAAAAAAAAAAAAA")),
		lie("RFC 8417 events", "events",
			with("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}})),

		lie("RFC 9449 §7.2 bound to a key", "cnf.jkt", with("cnf", map[string]any{"jkt": "x"})),
		lie("RFC 8705 §3 bound to a certificate", "cnf.x5t#S256", with("cnf", map[string]any{"x5t#S256": "x"})),
		lie("RFC 7800 §3.1 bound in another way", "bound", with("cnf", map[string]any{"jwk": map[string]any{}})),
		lie("RFC 7800 §3.1 bound to nothing", "bound", with("cnf", map[string]any{})),
		lie("RFC 7800 cnf cannot be read", "bound", with("cnf", "x")),
		lie("aud of another", "another audience", with("aud", "https://api.other.example")),
		lie("no aud", "another audience", without("aud")),
		lie("aud empty list", "another audience", with("aud", []string{})),
		lie("aud list with null", "another audience", with("aud", []any{api, nil})),
		lie("aud a number", "another audience", with("aud", 7)),
		lie("aud a mapping", "another audience", with("aud", map[string]any{api: true})),
		lie("aud in capitals", "another audience", with("aud", strings.ToUpper(api))),
		lie("aud and a slash", "another audience", with("aud", api+"/")),
		lie("aud a part", "another audience", with("aud", api[:10])),
		lie("aud in a text", "another audience", with("aud", api+" x")),
		lie("RFC 8725 §2.8 aud is our client", "client of a sign-in", with("aud", []string{api, clientID})),
		lie("RFC 8725 §2.8 aud is only our client", "another audience", with("aud", clientID)),
		lie("RFC 8725 §2.8 aud is the client of another sign-in", "client of a sign-in",
			with("aud", []string{"another-sign-in", api})),
		lie("RFC 9068 §4 iss of another", "iss is not", with("iss", "https://evil.example")),
		lie("RFC 9068 §4 no iss", "iss is not", without("iss")),
		lie("iss with a slash", "iss is not", with("iss", w.op.URL+"/")),
		lie("iss a list", "iss is not", with("iss", []string{w.op.URL})),
		lie("no sub", "sub is missing", without("sub")), lie("empty sub", "sub is missing", with("sub", "")),
		lie("sub a number", "sub is missing", with("sub", 42)),
		lie("sub null", "sub is missing", with("sub", nil)),
		lie("sub with a line break", "sub is missing", with("sub", "mira\nadmin")),
		lie("sub of 256 bytes", "sub is missing", with("sub", strings.Repeat("x", 256))),

		lie("no exp", "exp is missing", without("exp")),
		lie("exp a string", "exp is missing", with("exp", fmt.Sprint(in(time.Hour)))),
		lie("no iat", "iat is missing", without("iat")), lie("nbf a string", "nbf is not", with("nbf", "now")),
		skewed("expired", "expired 10m0s ago", with("exp", in(-10*time.Minute))),
		skewed("expired just now", "expired", with("exp", in(0))),
		skewed("issued in the future", "was issued 1m1s from now", with("iat", in(61*time.Second))),
		skewed("nbf in the future", "not valid for another 1m1s", with("nbf", in(61*time.Second))),

		resign("RFC 8725 §3.1 alg none", "algorithm", testenv.Unsigned),
		resign("alg None", "algorithm", withHeader("alg", "None")),
		resign("no alg", "algorithm", withHeader("alg", nil)),
		resign("HS256 with the public key as PEM", "algorithm", testenv.SignedWithPublicKey),
		resign("RFC 9068 §2.1 HS256 with the client secret", "algorithm",
			testenv.SignedHS256([]byte(clientSecret))),
		resign("HS256 with the public key as DER", "algorithm",
			confused(func(k *rsa.PublicKey) []byte { return x509.MarshalPKCS1PublicKey(k) })),
		resign("an algorithm nobody announced", "algorithm", withHeader("alg", "RS512")),
		resign("signed by a stranger", "signature is wrong", testenv.SignedByStranger),
		resign("claims changed afterwards", "signature is wrong", mangled(swapped)),
		resign("signature cut", "", mangled(func(tok string) string { return tok[:len(tok)-8] })),
		resign("no signature", "",
			mangled(func(tok string) string { return tok[:strings.LastIndex(tok, ".")+1] })),
		resign("kid a path", "key that the provider does not list", withHeader("kid", "../../../dev/null")),
		resign("kid a number", "kid is not", withHeader("kid", 1)),
		resign("kid an injection", "key that the provider does not list", withHeader("kid", "' OR '1'='1")),
		resign("crit", "critical", withHeader("crit", []string{"exp"})),
		resign("b64 false", "b64", withHeader("b64", false)),
		resign("five parts", "not three parts", mangled(func(string) string { return "a.b.c.d.e" })),
		resign("something behind the token", "not three parts",
			mangled(func(tok string) string { return tok + ".x" })),
		resign("opaque", "not three parts", mangled(func(string) string { return "ya29.a0ARrdaM-opaque" })),
		resign("empty", "not three parts", mangled(func(string) string { return "" })),
		resign("a line break inside", "not three parts",
			mangled(func(tok string) string { return tok[:9] + "\n" + tok[9:] })),
		resign("a blank before", "not three parts", mangled(func(tok string) string { return " " + tok })),
		resign("NUL inside", "not three parts", mangled(func(tok string) string { return tok + "\x00" })),
		resign("nothing but dots", "64 KiB", mangled(func(string) string { return strings.Repeat(".", 500_000) })),
		lie("longer than 64 KiB", "64 KiB", with("x", strings.Repeat("x", 64<<10))),
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w.t = t
			header, c := atJWT(), w.accessClaims()
			if row.says == "typ is not at+jwt" {
				header["typ"] = row.typ
			}
			if row.bend != nil {
				row.bend(c)
			}
			token := w.signed(header, c)
			if row.sign != nil {
				header["alg"], header["kid"] = "RS256", w.op.Provider.PublicJWKS().Keys[0].KeyID
				var err error
				if token, err = row.sign(w.op.Provider, header, c); err != nil {
					t.Fatal(err)
				}
			}
			if row.fails == "" {
				row.fails = identity.Rejected
			}
			id, expires, err := strict.Verify(t.Context(), token)
			if !reflect.DeepEqual(id, identity.Identity{}) || !expires.IsZero() {
				t.Errorf("%+v until %v came with the error", id, expires)
			}
			if w.failed(err, row.fails); !strings.Contains(err.Error(), row.says) ||
				strings.Contains(err.Error(), "ID token:") {
				t.Errorf("refused for another reason: %v", err)
			}
			if len(token) > 0 && strings.Contains(err.Error(), token[:min(len(token), 12)]) {
				t.Errorf("the error holds a part of the token: %v", err)
			}
			if _, _, err = lax.Verify(t.Context(), token); (err != nil) != row.both {
				t.Errorf("with any_typ: %v", err)
			}
		})
	}
	w.t = t
	if _, _, err := strict.Verify(t.Context(), w.signed(atJWT(), w.accessClaims())); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// What the rows above come close to, and what is allowed.
func TestAccessTokensThatAreUnusualButGoodAreTaken(t *testing.T) {
	w := newWorld(t)
	b := w.bearer()
	with := testenv.With
	for name, change := range map[string]bend{
		"RFC 9068 §2.2 aud a list":                 with("aud", []string{"https://elsewhere.example", api}),
		"RFC 9068 §2.2 azp and client_id of a CLI": with("azp", "cli"),
		"issued hours ago":                         with("iat", in(-20*time.Hour)),
		"no jti":                                   testenv.Without("jti"),
		"iat within the leeway":                    with("iat", in(59*time.Second)),
		"nbf within the leeway":                    with("nbf", in(59*time.Second)),
		"no nonce in as many words":                with("nonce", nil),
		"not a person": testenv.Without("email", "email_verified", "name",
			"preferred_username", "groups", "org_id"),
	} {
		c := w.accessClaims()
		change(c)
		if _, _, err := b.Verify(t.Context(), w.signed(atJWT(), c)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, typ := range []string{"AT+JWT", "application/at+jwt", "Application/At+Jwt"} { // RFC 7515 §4.1.9
		if _, _, err := b.Verify(t.Context(), w.signed(map[string]any{"typ": typ}, w.accessClaims())); err != nil {
			t.Errorf("typ %s: %v", typ, err)
		}
	}
}

// RFC 9068 §5, GHSA-wcvh-g65p-v576: the ID token of a real sign-in is from the same
// issuer, with the same keys, about the same person. It is refused on every route, also
// with any_typ, and even under a header that says at+jwt.
func TestP07_AnIDTokenNeverPassesForAnAccessToken(t *testing.T) {
	w := newWorld(t)
	var seen []map[string]any
	w.op.Set(testenv.Fault{Endpoint: testenv.Token,
		Claims: func(c map[string]any) { seen = append(seen, maps.Clone(c)) }})
	w.want()
	if len(seen) != 1 || seen[0]["nonce"] == nil || seen[0]["aud"] != clientID {
		t.Fatalf("the ID token is another than thought: %v", seen)
	}
	for _, typ := range []string{"JWT", "at+jwt"} {
		for name, b := range map[string]*TokenVerifier{"strict": w.bearer(), "any_typ": w.bearer(anyTyp)} {
			if _, _, err := b.Verify(t.Context(), w.signed(map[string]any{"typ": typ}, seen[0])); err == nil {
				t.Errorf("%s takes an ID token with typ %s", name, typ)
			}
		}
	}
	// It is refused without nonce and at_hash, too: then because of its audience.
	bare := maps.Clone(seen[0])
	testenv.Without("nonce", "at_hash")(bare)
	_, _, err := w.bearer(anyTyp).Verify(t.Context(), w.signed(nil, bare))
	w.failed(err, identity.Rejected)
}

// RFC 8725 §3.10, CVE-2026-41413: an address of keys that the token names is not
// asked.
func TestP07_AnAccessTokenDoesNotChooseItsKeys(t *testing.T) {
	w := newWorld(t)
	stranger := testenv.StartProvider(t, demo.ProviderOptions{ClientID: clientID, ClientSecret: clientSecret,
		RedirectURIs: []string{callbackURL}, Now: epoch})
	set, err := json.Marshal(stranger.Provider.PublicJWKS())
	if err != nil {
		t.Fatal(err)
	}
	var keys struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(set, &keys); err != nil {
		t.Fatal(err)
	}
	for name, header := range map[string]map[string]any{
		"jku": {"jku": stranger.URL + demo.JWKSPath},
		"x5u": {"x5u": stranger.URL + demo.JWKSPath},
		"jwk": {"jwk": keys.Keys[0]},
	} {
		header["typ"], header["kid"] = "at+jwt", w.op.Provider.PublicJWKS().Keys[0].KeyID
		token, err := stranger.Provider.Sign(header, w.accessClaims())
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = w.bearer().Verify(t.Context(), token)
		w.failed(err, identity.Rejected)
		if n := stranger.Hits(testenv.JWKS); n != 0 {
			t.Errorf("%s: the stranger was asked %d times", name, n)
		}
	}
}

// A good token is checked again each time that it is shown.
func TestP01_AnAccessTokenThatIsRememberedStillExpires(t *testing.T) {
	w := newWorld(t)
	b := w.bearer()
	token := w.signed(atJWT(), w.accessClaims())
	for _, step := range []struct {
		pass time.Duration
		good bool
	}{{0, true}, {9*time.Minute + 59*time.Second, true}, {time.Second, false}, {time.Hour, false}} {
		w.pass(step.pass)
		id, _, err := b.Verify(t.Context(), token)
		if (err == nil) != step.good || (id.Subject != "") != step.good {
			t.Errorf("after another %s: %+v, %v", step.pass, id, err)
		}
	}
}

// When the provider withdraws a key, the tokens that it signed are refused, also those
// that are cached.
func TestP07_ARememberedTokenDoesNotOutliveItsKey(t *testing.T) {
	w := newWorld(t)
	b := w.bearer()
	c := w.accessClaims()
	c["exp"] = in(10 * time.Hour)
	token := w.signed(atJWT(), c)
	if _, _, err := b.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if err := w.op.Provider.RotateKeys(); err != nil {
		t.Fatal(err)
	}
	w.pass(keysFresh)
	if _, _, err := b.Verify(t.Context(), w.signed(atJWT(), c)); err != nil { // fetches the new keys
		t.Fatal(err)
	}
	_, _, err := b.Verify(t.Context(), token)
	w.failed(err, identity.Rejected)
}

// If a token cannot be checked, it is not called bad: the caller should try again.
func TestAProviderThatIsDownLeavesTokensUnjudged(t *testing.T) {
	w := newWorld(t)
	b := w.bearer()
	token := w.signed(atJWT(), w.accessClaims())
	w.op.Set(testenv.Fault{Endpoint: testenv.JWKS, Status: 503})
	_, _, err := b.Verify(t.Context(), token)
	w.failed(err, identity.Unavailable)
	w.op.Set()
	w.pass(2 * time.Second)
	if _, _, err := b.Verify(t.Context(), token); err != nil {
		t.Errorf("when it is back: %v", err)
	}
	w.op.Set(testenv.Fault{Endpoint: testenv.JWKS, Status: 503},
		testenv.Fault{Endpoint: testenv.Discovery, Status: 503})
	if _, _, err := b.Verify(t.Context(), w.signed(atJWT(), w.accessClaims())); err != nil {
		t.Errorf("keys are there, and it is down: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := w.bearer().Verify(gone, w.signed(atJWT(), w.accessClaims())); err != nil {
		t.Errorf("who leaves asks nobody: %v", err)
	}
}

// The claims of an access token go the way of those of an ID token: their names
// are the provider's unless the route has others, and an address counts as far
// as the provider may vouch for it.
func TestP07_ClaimsOfAccessTokensAreMappedAsThoseOfSignIns(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Claims = ClaimNames{Groups: "roles", Username: "login"}
		o.EmailDomains = []string{"acme.example"}
	})
	c := w.accessClaims()
	c["roles"], c["scp_groups"], c["login"], c["tid"] = []string{"r1"}, []string{"g1"}, "mira-n", "t-7"
	read := func(edit ...func(*BearerOptions)) identity.Identity {
		id, _, err := w.bearer(edit...).Verify(t.Context(), w.signed(atJWT(), c))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	if id := read(); !reflect.DeepEqual(id.Groups, []string{"r1"}) || id.Username != "mira-n" ||
		id.Org.ID != "corp:acme" || !id.EmailVerified {
		t.Errorf("as at sign-in: %+v", id)
	}
	id := read(func(o *BearerOptions) { o.Claims = ClaimNames{Groups: "scp_groups", OrgID: "tid"} })
	if !reflect.DeepEqual(id.Groups, []string{"g1"}) || id.Username != "mira-n" || id.Org.ID != "corp:t-7" {
		t.Errorf("with names of its own: %+v", id)
	}
	if again := read(); !reflect.DeepEqual(again.Groups, []string{"r1"}) {
		t.Errorf("the names of one route became those of another: %+v", again)
	}
	c["memberships"] = []any{"a", nil} // as at sign-in: a part of the list could stand for another organization
	_, _, err := w.bearer(func(o *BearerOptions) { o.Claims = ClaimNames{Orgs: "memberships"} }).Verify(t.Context(),
		w.signed(atJWT(), c))
	w.failed(err, identity.Rejected)
	c["memberships"] = []any{"a", "b"}
	if id := read(func(o *BearerOptions) {
		o.Claims = ClaimNames{Orgs: "memberships",
			OrgID: "none"}
	}); id.Org.ID != "" || len(id.Orgs) != 2 || id.Orgs[1].ID != "corp:b" {
		t.Errorf("of several organizations: %+v", id)
	}
	c["email"] = "mira@elsewhere.example"
	if id := read(); id.EmailVerified {
		t.Error("an address outside email_domains counts as verified")
	}
	c["groups"], c["roles"] = nil, "not\na group"
	if id := read(); !id.GroupsUnknown || id.Groups != nil {
		t.Errorf("odd groups are not unknown: %+v", id)
	}
}

// docs/providers/microsoft.md: a token for an API of ours is not for Graph, so
// the tenant is known by its id and nothing else.
func TestP07_MicrosoftsAccessTokensAreHeldToTheirTenant(t *testing.T) {
	w := worldOfKind(t, demo.Microsoft)
	w.use(func(o *Options) { o.Type, o.Issuer, o.Tenant, o.Scopes = TypeMicrosoft, w.op.URL, "organizations", nil })
	var c map[string]any
	w.op.Set(testenv.Fault{Endpoint: testenv.Token, Claims: func(id map[string]any) { c = maps.Clone(id) }})
	who, err := w.signIn("mira", identity.AuthParams{})
	if err != nil {
		t.Fatal(err)
	}
	testenv.Without("nonce", "at_hash")(c)
	c["aud"], c["exp"] = api, in(time.Hour)
	asked := w.op.Hits(testenv.Organization) + w.op.Hits(testenv.Me)
	id, _, err := w.bearer(anyTyp).Verify(t.Context(), w.signed(nil, c)) // Entra ID says typ JWT
	if err != nil {
		t.Fatal(err)
	}
	if id.ID() != who.ID() || id.Org.ID != who.Org.ID || id.Org.Name != "" {
		t.Errorf("got %+v, signed in was %+v", id, who)
	}
	if n := w.op.Hits(testenv.Organization) + w.op.Hits(testenv.Me); n != asked {
		t.Errorf("Graph was asked %d times about an access token", n-asked)
	}
	c["tid"] = "11111111-1111-4111-8111-111111111111"
	_, _, err = w.bearer(anyTyp).Verify(t.Context(), w.signed(nil, c))
	w.failed(err, identity.Rejected)
	c["tid"], c["ver"] = nil, "1.0"
	_, _, err = w.bearer(anyTyp).Verify(t.Context(), w.signed(nil, c))
	w.failed(err, identity.Rejected)
}

func TestP21_BearerOptionsThatWouldMixUpTokensAreRefused(t *testing.T) {
	w := newWorld(t)
	for name, o := range map[string]BearerOptions{
		"no audience":                    {},
		"an empty audience":              {Audiences: []string{api, ""}},
		"the client id of a sign-in":     {Audiences: []string{"x"}, ClientIDs: []string{"y", "x"}},
		"a quirk nobody knows":           {Audiences: []string{api}, Quirks: []string{"no_signature"}},
		"a quirk of sign-ins":            {Audiences: []string{api}, Quirks: []string{"numeric_sub"}},
		"the client id of this provider": {Audiences: []string{api, clientID}},
	} {
		if b, err := w.p.TokenVerifier(o); err == nil || b != nil {
			t.Errorf("%s: taken", name)
		}
	}
	base := Options{ID: "corp", Issuer: w.op.URL, ClientID: clientID, ClientSecret: strings.Repeat("s", 32),
		RedirectURL: callbackURL}
	full := Endpoints{AuthorizationURL: w.op.URL, TokenURL: w.op.URL, UserinfoURL: w.op.URL}
	for name, edit := range map[string]func(*Options){
		"google":             func(o *Options) { o.Type, o.Issuer = TypeGoogle, "" },
		"HS256":              func(o *Options) { o.Quirks = []string{"hs256_id_token"} },
		"no keys":            func(o *Options) { o.Endpoints, o.IdentityFrom = full, FromUserinfo },
		"keys are not asked": func(o *Options) { o.IdentityFrom, o.Quirks = FromUserinfo, []string{"ignore_id_token"} },
		"any issuer":         func(o *Options) { o.Quirks = []string{"unchecked_issuer", "hs256_id_token"} },
	} {
		o := base
		edit(&o)
		p, err := New(o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := p.TokenVerifier(BearerOptions{Audiences: []string{api}}); err == nil {
			t.Errorf("%s: taken", name)
		}
		if found := o.BearerConflicts(BearerOptions{Audiences: []string{api}}); len(found) != 1 ||
			found[0].Key != "provider" {
			t.Errorf("%s: conflicts %v", name, found)
		}
	}
	if found := base.BearerConflicts(BearerOptions{Audiences: []string{api, "b"},
		ClientIDs: []string{"", "b"}}); len(found) != 1 || found[0].Key != "audiences" {
		t.Errorf("conflicts %v", found)
	}
	w.bearer(anyTyp)
	if !strings.Contains(w.logged(), `"quirk":"any_typ"`) || !strings.Contains(w.logged(), `"level":"WARN"`) {
		t.Errorf("the quirk is not logged:\n%s", w.logged())
	}
	w.bearer(anyTyp) // as after a reload
	w.bearer(anyTyp, func(o *BearerOptions) { o.Audiences = []string{"another"} })
	if n := strings.Count(w.logged(), `"quirk":"any_typ"`); n != 2 {
		t.Errorf("two audiences, and the quirk is logged %d times", n)
	}
}

// CVE-2026-33544: callers at the same time never get each other's identity.
func TestP20_AccessTokensThatAreReadAtOnceAreNotMixedUp(t *testing.T) {
	w := newWorld(t)
	b := w.bearer()
	var crowd sync.WaitGroup
	for i := range 50 {
		c := w.accessClaims()
		c["sub"], c["groups"] = fmt.Sprint("p", i), []string{fmt.Sprint("g", i)}
		token := w.signed(atJWT(), c)
		crowd.Go(func() {
			for range 20 {
				id, _, err := b.Verify(t.Context(), token)
				if err != nil || id.Subject != fmt.Sprint("p", i) || id.Groups[0] != fmt.Sprint("g", i) {
					t.Errorf("p%d is %+v, %v", i, id, err)
				}
			}
		})
	}
	crowd.Wait()
	if n := w.op.Hits(testenv.JWKS); n != 1 {
		t.Errorf("keys were fetched %d times", n)
	}
}

// FuzzBearer: nobody gets in with a token that the key has not signed.
func FuzzBearer(f *testing.F) {
	w := &world{}
	op := testenv.StartProvider(f, demo.ProviderOptions{ClientID: clientID, ClientSecret: clientSecret,
		RedirectURIs: []string{callbackURL}, Now: epoch})
	p, err := New(Options{ID: "corp", Issuer: op.URL, ClientID: clientID, ClientSecret: clientSecret,
		RedirectURL: callbackURL, Now: w.now})
	if err != nil {
		f.Fatal(err)
	}
	b, err := p.TokenVerifier(BearerOptions{Audiences: []string{api}, Quirks: []string{"any_typ"}})
	if err != nil {
		f.Fatal(err)
	}
	w.op = op
	good, err := op.Provider.Sign(atJWT(), w.accessClaims())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[:strings.LastIndex(good, ".")+1])
	f.Add("")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "..")
	f.Fuzz(func(t *testing.T, token string) {
		id, _, err := b.Verify(t.Context(), token)
		if (err == nil) != (token == good) || (err != nil && id.Subject != "") {
			t.Errorf("%q: %+v, %v", token, id, err)
		}
	})
}

func BenchmarkBearerAgain(b *testing.B) {
	w := &world{}
	w.op = testenv.StartProvider(b, demo.ProviderOptions{ClientID: clientID, ClientSecret: clientSecret,
		RedirectURIs: []string{callbackURL}, Now: epoch})
	p, err := New(Options{ID: "corp", Issuer: w.op.URL, ClientID: clientID, ClientSecret: clientSecret,
		RedirectURL: callbackURL, Now: w.now})
	if err != nil {
		b.Fatal(err)
	}
	bearer, err := p.TokenVerifier(BearerOptions{Audiences: []string{api}})
	if err != nil {
		b.Fatal(err)
	}
	token, err := w.op.Provider.Sign(atJWT(), w.accessClaims())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := bearer.Verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
