package login

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

func publicPEM(t *testing.T, p *demo.Provider) string {
	t.Helper()
	text, err := p.PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// pemOf writes a key in the other ways in which partners hand it over.
func pemOf(t *testing.T, key *rsa.PublicKey, kind string) string {
	t.Helper()
	if kind == "RSA PUBLIC KEY" {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: x509.MarshalPKCS1PublicKey(key)}))
	}
	issuer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)} // valid in the year 1, for a moment
	der, err := x509.CreateCertificate(rand.Reader, template, template, key, issuer)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func rsaKeyOf(p *demo.Provider) *rsa.PublicKey {
	key, _ := p.PublicJWKS().Keys[0].Key.(*rsa.PublicKey)
	return key
}

func partnerBase(t *testing.T, w *world) func(*Options) {
	return func(o *Options) {
		o.Type = TypeOIDC
		o.Endpoints = Endpoints{AuthorizationURL: w.op.URL + demo.AuthorizePath, TokenURL: w.op.URL + demo.TokenPath}
		o.PublicKeys = []string{publicPEM(t, w.op.Provider)}
		o.Scopes = []string{"openid", "email", "name"}
		o.EmailDomains = []string{"acme.example"}
		o.Quirks = []string{"no_nonce", "raw_basic_credentials", "assume_email_verified"}
	}
}

func without(quirks []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(quirks), func(q string) bool { return q == name })
}

// The partner without discovery, as docs/providers/oidc.md configures it.
func TestP07_APartnerWithoutDiscovery(t *testing.T) {
	w := &world{t: t}
	w.op = testenv.StartProvider(t, demo.ProviderOptions{ClientID: clientID, ClientSecret: clientSecret,
		RedirectURIs: []string{callbackURL}, Now: epoch, Kind: demo.Partner})
	base := partnerBase(t, w)
	mira := identity.Identity{Provider: "corp", Subject: "mira", Name: "Mira Okafor", Email: "mira@acme.example",
		EmailVerified: true}
	unverified := changed(mira, func(id *identity.Identity) { id.EmailVerified = false })
	lacking := func(quirk string) func(*Options) { return func(o *Options) { o.Quirks = without(o.Quirks, quirk) } }
	answer := func(b bend) []testenv.Fault { return []testenv.Fault{{Endpoint: testenv.Token, JSON: b}} }
	resign := func(s testenv.Signer) []testenv.Fault { return []testenv.Fault{{Endpoint: testenv.Token, Resign: s}} }
	stranger := newKey(t, "x")
	with := testenv.With
	keys := func(texts ...string) func(*Options) { return func(o *Options) { o.PublicKeys = texts } }
	own, strange := rsaKeyOf(w.op.Provider), &stranger.private.PublicKey

	runFacts(t, w, base, []fact{
		{name: "the partner as it is", want: mira},
		{name: "access token empty", faults: answer(with("access_token", "")), want: mira},
		{name: "access token null", faults: answer(with("access_token", nil)), want: mira},
		{name: "access token absent", faults: answer(testenv.Without("access_token")), want: mira},
		{name: "expires_in 0", faults: answer(with("expires_in", 0)), want: mira},
		{name: "expires_in absent", faults: answer(testenv.Without("expires_in")), want: mira},
		{name: "expires_in a fraction", faults: answer(with("expires_in", json.RawMessage("-1.0"))), want: mira},
		{name: "JSON as text/plain", faults: []testenv.Fault{{Endpoint: testenv.Token, ContentType: "text/plain"}},
			want: mira},
		{name: "JSON as a form",
			faults: []testenv.Fault{{Endpoint: testenv.Token, ContentType: "application/x-www-form-urlencoded"}},
			want:   mira},
		{name: "the key as RSA PUBLIC KEY", edit: keys(pemOf(t, own, "RSA PUBLIC KEY")), want: mira},
		{name: "the key in a certificate, whose dates are not ours to judge", edit: keys(pemOf(t, own, "CERTIFICATE")),
			want: mira},
		{name: "rollover: the old key and the new",
			edit: keys(pemOf(t, strange, "CERTIFICATE"), publicPEM(t, w.op.Provider)), want: mira},
		{name: "rollover: both in one file",
			edit: keys("old:\n" + pemOf(t, strange, "CERTIFICATE") + "\nnew:\n" + publicPEM(t, w.op.Provider)),
			want: mira},
		{name: "kid is nobody's business", faults: resign(testenv.WithKid("whatever")), want: mira},
		{name: "another key", edit: keys(pemOf(t, strange, "RSA PUBLIC KEY")), refuse: identity.Rejected,
			says: "signature"},
		{name: "signed by a stranger", faults: resign(testenv.SignedByStranger), refuse: identity.Rejected,
			says: "signature"},
		{name: "not signed", faults: resign(testenv.Unsigned), refuse: identity.Rejected},
		{name: "HS256 with the PEM that was handed over",
			faults: resign(testenv.SignedHS256([]byte(publicPEM(t, w.op.Provider)))), refuse: identity.Rejected,
			says: "algorithm"},
		{name: "HS256 with the client secret", faults: resign(testenv.SignedHS256([]byte(clientSecret))),
			refuse: identity.Rejected, says: "algorithm"},
		{name: "no_nonce: one that is there is compared", faults: tokenClaims(with("nonce", "nonce-of-another")),
			refuse: identity.Rejected, says: "nonce"},
		{name: "no_nonce: an empty one is no absent one", faults: tokenClaims(with("nonce", "")),
			refuse: identity.Rejected, says: "nonce"},
		{name: "without no_nonce", edit: lacking("no_nonce"), refuse: identity.Rejected, says: "nonce"},
		{name: "without raw_basic_credentials", edit: lacking("raw_basic_credentials"), refuse: identity.Misconfigured,
			says: "invalid_client"},
		{name: "without assume_email_verified", edit: lacking("assume_email_verified"), want: unverified},
		{name: "assume_email_verified believes a no", faults: tokenClaims(with("email_verified", false)),
			want: unverified},
		{name: "assume_email_verified believes nothing strange", faults: tokenClaims(with("email_verified", "yes")),
			want: unverified},
		{name: "assume_email_verified ends at email_domains", faults: tokenClaims(with("email", "mira@birch.example")),
			want: changed(unverified, func(id *identity.Identity) { id.Email = "mira@birch.example" })},
		{name: "another issuer", faults: tokenClaims(with("iss", "https://evil.example")),
			refuse: identity.Rejected, says: "iss"},
		{name: "the issuer was not told",
			edit:   func(o *Options) { o.Issuer, o.Quirks = "", append(slices.Clone(o.Quirks), "unchecked_issuer") },
			faults: tokenClaims(with("iss", "partner-sso")), want: mira},
		{name: "there is no issuer at all",
			edit:   func(o *Options) { o.Issuer, o.Quirks = "", append(slices.Clone(o.Quirks), "unchecked_issuer") },
			faults: tokenClaims(testenv.Without("iss")), want: mira},
		{name: "unchecked_issuer changes nothing about the audience",
			edit:   func(o *Options) { o.Quirks = append(slices.Clone(o.Quirks), "unchecked_issuer") },
			faults: tokenClaims(with("aud", "another")), refuse: identity.Rejected, says: "aud"},
		{name: "a number is no sub", faults: tokenClaims(with("sub", 7)), refuse: identity.Rejected, says: "sub"},
	})
	if n := w.op.Hits(testenv.Discovery) + w.op.Hits(testenv.JWKS) + w.op.Hits(testenv.Userinfo); n != 0 {
		t.Errorf("%d requests for documents that a partner does not have", n)
	}
}

// docs/providers/oidc.md: "if the partner cannot say what stands in iss, leave
// issuer out and add unchecked_issuer". Then there is nothing to compare the iss
// of a callback with; where there is an issuer it is compared all the same.
func TestAPartnerWhoseIssuerWasNotToldSignsPeopleInWithIssInTheCallback(t *testing.T) {
	w := &world{t: t}
	w.op = testenv.StartProvider(t, demo.ProviderOptions{ClientID: clientID, ClientSecret: clientSecret,
		RedirectURIs: []string{callbackURL}, Now: epoch})
	for _, tt := range []struct {
		name, issuer, iss string
		quirk             bool
		good              bool
	}{
		{"as the guide says", "", "partner-sso", true, true},
		{"and without iss", "", "", true, true},
		{"issuer is known: its own", w.op.URL, w.op.URL, true, true},
		{"issuer is known: another's", w.op.URL, "https://evil.example", true, false},
		{"without the quirk: another's", w.op.URL, "https://evil.example", false, false},
	} {
		w.use(func(o *Options) {
			o.Issuer = tt.issuer
			o.Endpoints = Endpoints{AuthorizationURL: w.op.URL + demo.AuthorizePath, TokenURL: w.op.URL +
				demo.TokenPath, UserinfoURL: w.op.URL + demo.UserinfoPath}
			o.PublicKeys = []string{publicPEM(t, w.op.Provider)}
			if tt.quirk {
				o.Quirks = []string{"unchecked_issuer"}
			}
		})
		h := handshake()
		callback, err := w.authorize("mira", h, identity.AuthParams{})
		if err != nil {
			t.Fatal(err)
		}
		if callback.Set("iss", tt.iss); tt.iss == "" {
			callback.Del("iss")
		}
		id, err := w.p.Redeem(t.Context(), callback, h, identity.AuthParams{})
		if good := err == nil && id.Subject == "mira"; good != tt.good {
			t.Errorf("%s: %+v, %v", tt.name, id, err)
		}
	}
}

// A partner may return only a code in its callback: without state nothing binds it
// to a browser (RFC 6749 §10.12).
func TestP06_AProviderThatDoesNotEchoStateIsRefused(t *testing.T) {
	w := &world{t: t}
	w.op = testenv.StartProvider(t, demo.ProviderOptions{ClientID: clientID, ClientSecret: clientSecret,
		RedirectURIs: []string{callbackURL}, Now: epoch, Kind: demo.Partner})
	w.use(partnerBase(t, w))
	h := handshake()
	callback, err := w.authorize("mira", h, identity.AuthParams{})
	if err != nil {
		t.Fatal(err)
	}
	callback.Del("state")
	_, err = w.p.Redeem(t.Context(), callback, h, identity.AuthParams{})
	w.failed(err, identity.Rejected)
	if w.op.Hits(testenv.Token) != 0 {
		t.Error("the code was redeemed")
	}
}

// A partner announces a new key; both are given for a while, then one.
func TestStaticKeysRollOver(t *testing.T) {
	w := &world{t: t}
	w.op = testenv.StartProvider(t, demo.ProviderOptions{ClientID: clientID, ClientSecret: clientSecret,
		RedirectURIs: []string{callbackURL}, Now: epoch, Kind: demo.Partner})
	before := publicPEM(t, w.op.Provider)
	base := partnerBase(t, w)
	sign := func(keys ...string) error {
		w.use(base, func(o *Options) { o.PublicKeys = keys })
		_, err := w.signIn("mira", identity.AuthParams{})
		return err
	}
	if err := sign(before); err != nil {
		t.Error(err)
	}
	if err := w.op.Provider.RotateKeys(); err != nil {
		t.Fatal(err)
	}
	after := publicPEM(t, w.op.Provider)
	for name, row := range map[string]struct {
		keys []string
		ok   bool
	}{"old": {[]string{before}, false}, "both": {[]string{before, after}, true}, "new": {[]string{after}, true}} {
		if err := sign(row.keys...); (err == nil) != row.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func perscomBase(w *world) func(*Options) {
	return func(o *Options) {
		o.Type = TypeOIDC
		o.Endpoints = Endpoints{
			AuthorizationURL: w.op.URL + demo.AuthorizePath, TokenURL: w.op.URL + demo.TokenPath,
			UserinfoURL: w.op.URL + demo.UserinfoPath, EndSessionURL: w.op.URL + demo.EndSessionPath,
		}
		o.Scopes = []string{"openid", "profile", "email", "tenant"}
		o.IdentityFrom = FromUserinfo
		o.Claims = ClaimNames{OrgID: "tenant_sub", OrgName: "tenant_name"}
		o.EmailDomains = []string{"acme.example"}
		o.Quirks = []string{"numeric_sub", "end_session_post"}
	}
}

// The application that speaks of localhost, as docs/providers/oidc.md configures it.
func TestP07_AnApplicationThatSpeaksOfLocalhost(t *testing.T) {
	w := worldOfKind(t, demo.Perscom)
	base := perscomBase(w)
	mira := identity.Identity{
		Provider: "corp", Subject: "1", Name: "Mira Okafor", Username: "mira@acme.example", Email: "mira@acme.example",
		EmailVerified: true,
		Org:           identity.Org{ID: "corp:1", Name: "Acme Rockets", Source: "claim"},
	}
	info := func(b bend) []testenv.Fault { return []testenv.Fault{{Endpoint: testenv.Userinfo, JSON: b}} }
	token := func(b bend) []testenv.Fault { return []testenv.Fault{{Endpoint: testenv.Token, JSON: b}} }
	allow := func(names ...string) func(*Options) {
		return func(o *Options) { o.Quirks = append(slices.Clone(o.Quirks), names...) }
	}
	secret := allow("hs256_id_token", "no_nonce")
	with := testenv.With
	facts := []fact{
		{name: "PERSCOM as it is", want: mira},
		{name: "PERSCOM somebody else", who: "tomoko", want: identity.Identity{
			Provider: "corp", Subject: "3", Name: "Tomoko Hayashi", Username: "tomoko@birch.example",
			Email: "tomoko@birch.example",
			Org:   identity.Org{ID: "corp:3", Name: "Birch Bank", Source: "claim"},
		}},
		{name: "sub as a text is the same person", faults: info(with("sub", "1")), want: mira},
		{name: "id instead of sub", edit: allow("id_as_sub"),
			faults: info(func(c map[string]any) { c["id"] = c["sub"]; delete(c, "sub") }), want: mira},
		{name: "sub goes before id", edit: allow("id_as_sub"), faults: info(with("id", 99)), want: mira},
		{name: "id instead of sub, not allowed",
			faults: info(func(c map[string]any) { c["id"] = c["sub"]; delete(c, "sub") }), refuse: identity.Rejected,
			says: "sub"},
		{name: "numbers are not allowed", edit: func(o *Options) { o.Quirks = nil }, refuse: identity.Rejected,
			says: "sub"},
		{name: "tenant as a text is the same organization", faults: info(with("tenant_sub", "1")), want: mira},
		{name: "tenant is half a number", faults: info(with("tenant_sub", 1.5)),
			want: changed(mira, func(id *identity.Identity) { id.Org, id.OrgUnknown = identity.Org{}, true })},
		{name: "no tenant", who: "zoe", want: identity.Identity{Provider: "corp", Subject: "4", Name: "Zoë Martín",
			Username: "zoe@mail.example", Email: "zoe@mail.example"}},
		{name: "whatever the ID token says", faults: token(with("id_token", "eyJ.not.one")), want: mira},
		{name: "no ID token", faults: token(testenv.Without("id_token")), want: mira},
		{name: "an ID token about somebody else, whose claims nobody takes",
			faults: tokenClaims(func(c map[string]any) {
				c["sub"], c["email"], c["tenant_sub"] = "2", "jonas@acme.example", 9
			}), want: mira},
		{name: "no access token", faults: token(testenv.Without("access_token")), refuse: identity.Rejected,
			says: "no access token"},
		{name: "userinfo refuses", faults: []testenv.Fault{{Endpoint: testenv.Userinfo, Status: 401}},
			refuse: identity.Misconfigured},
		{name: "userinfo is down", faults: []testenv.Fault{{Endpoint: testenv.Userinfo, Status: 503}},
			refuse: identity.Unavailable},
		{name: "userinfo says a name twice",
			faults: []testenv.Fault{{Endpoint: testenv.Userinfo, Body: `{"sub":1,"sub":2}`}},
			refuse: identity.Rejected},

		{name: "HS256 with the client secret", edit: secret, want: mira},
		{name: "HS256, the ID token is enough", edit: func(o *Options) { secret(o); o.IdentityFrom = FromIDToken },
			want: mira},
		{name: "HS256: userinfo is about another", edit: secret, faults: info(with("sub", 2)),
			refuse: identity.Rejected, says: "userinfo: sub"},
		{name: "HS256: another secret", edit: secret,
			faults: []testenv.Fault{{Endpoint: testenv.Token,
				Resign: testenv.SignedHS256([]byte(strings.Repeat("x", 40)))}}, refuse: identity.Rejected,
			says: "signature"},
		{name: "HS256: no secret", edit: secret,
			faults: []testenv.Fault{{Endpoint: testenv.Token, Resign: testenv.SignedHS256(nil)}},
			refuse: identity.Rejected},
		{name: "HS256: not signed", edit: secret,
			faults: []testenv.Fault{{Endpoint: testenv.Token, Resign: testenv.Unsigned}}, refuse: identity.Rejected,
			says: "algorithm"},
		{name: "HS256: RS256", edit: secret,
			faults: []testenv.Fault{{Endpoint: testenv.Token,
				Resign: func(p *demo.Provider, _, c map[string]any) (string, error) { return p.Sign(nil, c) }}},
			refuse: identity.Rejected, says: "algorithm"},
		{name: "HS256 with the public key", edit: secret,
			faults: []testenv.Fault{{Endpoint: testenv.Token, Resign: testenv.SignedWithPublicKey}},
			refuse: identity.Rejected, says: "signature"},
	}
	for _, sub := range []string{`1.0`, `-1`, `1e0`, `true`, `null`, `""`, `[1]`, `{"sub":1}`,
		`123456789012345678901`} {
		facts = append(facts, fact{name: "sub " + sub, faults: info(with("sub", json.RawMessage(sub))),
			refuse: identity.Rejected, says: "sub"})
	}
	runFacts(t, w, base, facts)
	if n := w.op.Hits(testenv.Discovery) + w.op.Hits(testenv.JWKS); n != 0 {
		t.Errorf("%d requests for documents that speak of localhost", n)
	}
	// auth_time cannot be had, so what asks for it is refused.
	w.op.Set()
	w.use(base)
	_, err := w.signIn("mira", identity.AuthParams{ACR: "mfa"})
	w.failed(err, identity.Rejected)
}

// P21: what an operator allowed is named, in the log and in Quirks; what
// follows from having no keys too.
func TestP21_QuirksAreNamedAndLogged(t *testing.T) {
	w := worldOfKind(t, demo.Perscom)
	if got := w.p.Quirks(); got != nil || strings.Contains(w.logged(), "quirk") {
		t.Errorf("quirks of a strict provider: %v", got)
	}
	w.use(perscomBase(w))
	var names []string
	for _, q := range w.p.Quirks() {
		names = append(names, q.Name)
		if !strings.HasSuffix(q.Weakens, ".") || strings.Count(w.logged(), `"quirk":"`+q.Name+`"`) != 1 ||
			!strings.Contains(w.logged(), `"level":"WARN"`) {
			t.Errorf("%s: %q, log:\n%s", q.Name, q.Weakens, w.logged())
		}
	}
	if !slices.Equal(names, []string{"ignore_id_token", "numeric_sub", "end_session_post"}) {
		t.Errorf("quirks %v", names)
	}
	if !slices.Contains(QuirkNames(), "no_pkce") || len(QuirkNames()) != 11 {
		t.Errorf("names %v", QuirkNames())
	}
}

func TestNoPKCESendsNone(t *testing.T) {
	w := &world{t: t}
	w.op = testenv.StartProvider(t, demo.ProviderOptions{ClientID: clientID, ClientSecret: clientSecret,
		RedirectURIs: []string{callbackURL}, Now: epoch, Kind: demo.Partner})
	base := partnerBase(t, w)
	for _, quirks := range [][]string{{"raw_basic_credentials"}, {"raw_basic_credentials", "no_pkce"}} {
		w.use(base, func(o *Options) { o.Quirks = quirks })
		q := w.authQuery(identity.AuthParams{})
		before := w.op.Hits(testenv.Token)
		w.refuse(identity.Rejected) // this provider echoes no nonce
		form, err := url.ParseQuery(string(w.op.Requests(testenv.Token)[before].Body))
		if err != nil {
			t.Fatal(err)
		}
		sent := len(quirks) == 1
		if q.Has("code_challenge") != sent || q.Has("code_challenge_method") != sent ||
			form.Has("code_verifier") != sent || !q.Has("nonce") {
			t.Errorf("%v: %v, %v", quirks, q, form)
		}
	}
}

// With options that would not prove who signs in, New fails.
func TestP21_CombinationsThatProveNothingAreRefused(t *testing.T) {
	const a = "https://sso.example/"
	given := Endpoints{AuthorizationURL: a, TokenURL: a}
	full := Endpoints{AuthorizationURL: a, TokenURL: a, UserinfoURL: a, JWKSURL: a}
	key := []string{"a key"}
	with := func(e Endpoints, f func(*Endpoints)) Endpoints { f(&e); return e }
	noKeys := with(full, func(e *Endpoints) { e.JWKSURL = "" })
	rows := []struct {
		name string
		o    Options
		key  string // of the conflict; "" if it is fine
	}{
		{"discovery", Options{}, ""},
		{"no issuer", Options{Issuer: "-"}, "issuer"},
		{"no discovery, published keys", Options{Endpoints: full}, ""},
		{"no discovery, given keys", Options{Endpoints: given, PublicKeys: key}, ""},
		{"no discovery, no keys", Options{Endpoints: given}, "endpoints"},
		{"no discovery, no keys, the ID token decides", Options{Endpoints: noKeys, IdentityFrom: FromIDToken},
			"endpoints"},
		{"no discovery, no keys, userinfo decides", Options{Endpoints: noKeys, IdentityFrom: FromUserinfo}, ""},
		{"no discovery, no keys, no userinfo", Options{Endpoints: given, IdentityFrom: FromUserinfo}, "identity_from"},
		{"given keys beside published ones", Options{Endpoints: full, PublicKeys: key}, "public_keys"},
		{"given keys instead of discovered ones", Options{PublicKeys: key}, ""},
		{"a quirk nobody knows", Options{Quirks: []string{"skip_everything"}}, "quirks"},
		{"no_nonce", Options{Quirks: []string{"no_nonce"}}, ""},
		{"no_pkce", Options{Quirks: []string{"no_pkce"}}, ""},
		{"neither nonce nor PKCE", Options{Quirks: []string{"no_nonce", "no_pkce"}}, "quirks"},
		{"neither ID token nor PKCE",
			Options{Endpoints: noKeys, IdentityFrom: FromUserinfo, Quirks: []string{"no_pkce"}}, "quirks"},
		{"ID token ignored, and it decides", Options{Quirks: []string{"ignore_id_token"}}, "quirks"},
		{"ID token ignored, and either decides", Options{IdentityFrom: FromAuto, Quirks: []string{"ignore_id_token"}},
			"quirks"},
		{"ID token ignored, userinfo decides", Options{IdentityFrom: FromUserinfo, Quirks: []string{"ignore_id_token"}},
			""},
		{"ID token ignored though there are keys",
			Options{IdentityFrom: FromUserinfo, PublicKeys: key, Quirks: []string{"ignore_id_token"}}, "quirks"},
		{"any issuer, published keys", Options{Quirks: []string{"unchecked_issuer"}}, "quirks"},
		{"any issuer, given keys", Options{PublicKeys: key, Quirks: []string{"unchecked_issuer"}}, ""},
		{"any issuer, client secret", Options{Quirks: []string{"unchecked_issuer", "hs256_id_token"}}, ""},
		{"no issuer, but discovery", Options{Issuer: "-", PublicKeys: key, Quirks: []string{"unchecked_issuer"}},
			"issuer"},
		{"no issuer, no discovery",
			Options{Issuer: "-", Endpoints: given, PublicKeys: key, Quirks: []string{"unchecked_issuer"}}, ""},
		{"HS256 beside given keys", Options{PublicKeys: key, Quirks: []string{"hs256_id_token"}}, "quirks"},
		{"HS256 beside published keys", Options{Endpoints: full, Quirks: []string{"hs256_id_token"}}, "quirks"},
		{"HS256 without a secret", Options{ClientSecret: "-", ClientAuth: "none", Quirks: []string{"hs256_id_token"}},
			"quirks"},
		{"raw credentials in the body", Options{ClientAuth: "post", Quirks: []string{"raw_basic_credentials"}},
			"client_auth"},
		{"raw credentials", Options{ClientAuth: "basic", Quirks: []string{"raw_basic_credentials"}}, ""},
		{"verified for the whole world", Options{Quirks: []string{"assume_email_verified"}}, "quirks"},
		{"verified for one domain",
			Options{EmailDomains: []string{"a.example"}, Quirks: []string{"assume_email_verified"}}, ""},
		{"POST to nowhere", Options{Endpoints: full, Quirks: []string{"end_session_post"}}, "quirks"},
		{"a quirk for a vendor", Options{Type: TypeGoogle, Quirks: []string{"no_nonce"}}, "quirks"},
		{"a vendor without discovery and keys", Options{Type: TypeGoogle, Endpoints: given}, "endpoints"},
		{"a vendor without discovery", Options{Type: TypeSlack, Endpoints: full}, ""},
		{"keys for a vendor", Options{Type: TypeGoogle, PublicKeys: key}, "public_keys"},
	}
	for _, row := range rows {
		o := row.o
		o.Issuer, o.ClientSecret = map[string]string{"": a, "-": ""}[o.Issuer],
			map[string]string{"": "x", "-": ""}[o.ClientSecret]
		var keys []string
		for _, c := range o.Conflicts() {
			keys = append(keys, c.Key)
		}
		var want []string
		if row.key != "" {
			want = []string{row.key}
		}
		if !reflect.DeepEqual(keys, want) {
			t.Errorf("%s: conflicts %v, want %v", row.name, o.Conflicts(), want)
		}
	}
	for name, o := range map[string]Options{
		"a short secret":           {ClientSecret: strings.Repeat("x", 31), Quirks: []string{"hs256_id_token"}},
		"a colon in the client id": {ClientID: "a:b", Quirks: []string{"raw_basic_credentials"}},
		"no key at all":            {PublicKeys: []string{"a key"}},
		"an endpoint in cleartext": {Endpoints: Endpoints{UserinfoURL: "http://127.0.0.1/"}},
	} {
		o.ID, o.Issuer, o.RedirectURL, o.ClientID = "x", a, callbackURL, or(o.ClientID, "x")
		if _, err := New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestPublicKeysAreJudged(t *testing.T) {
	k := newKey(t, "k").private
	der := func(kind string, bytes []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}))
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	tiny := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}
	for name, row := range map[string]struct{ text, says string }{
		"a public key":          {pemOf(t, &k.PublicKey, "RSA PUBLIC KEY"), ""},
		"a certificate":         {pemOf(t, &k.PublicKey, "CERTIFICATE"), ""},
		"a private key":         {der("PRIVATE KEY", pkcs8), "private"},
		"an old private key":    {der("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k)), "private"},
		"a private key besides": {pemOf(t, &k.PublicKey, "RSA PUBLIC KEY") + der("PRIVATE KEY", pkcs8), "private"},
		"a short key":           {der("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(tiny)), "2048"},
		"not PEM":               {"ssh-rsa AAAA", "PEM"},
		"nothing":               {"", "PEM"},
		"another thing":         {der("CERTIFICATE REQUEST", []byte("x")), "PEM"},
		"broken":                {der("PUBLIC KEY", []byte("x")), "cannot be read"},
	} {
		err := CheckPublicKeys(row.text)
		if (err == nil) != (row.says == "") || (err != nil && !strings.Contains(err.Error(), row.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A callback of one provider is refused by every other provider, of any kind.
func TestP20_MixUpBetweenTwoProvidersIsRefused(t *testing.T) {
	worlds := map[string]*world{}
	for _, kind := range []string{demo.Standard, demo.Google, demo.Partner} {
		w := worldOfKind(t, kind)
		switch kind {
		case demo.Google:
			w.use(func(o *Options) { o.Type, o.Scopes = TypeGoogle, nil })
		case demo.Partner:
			w.use(partnerBase(t, w))
		}
		worlds[kind] = w
	}
	for from, there := range worlds {
		for to, here := range worlds {
			h := handshake()
			callback, err := there.authorize("mira", h, identity.AuthParams{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = here.p.Redeem(t.Context(), callback, h, identity.AuthParams{})
			if from == to {
				if err != nil {
					t.Errorf("%q at home: %v", from, err)
				}
				continue
			}
			here.failed(err, identity.Rejected)
		}
	}
}

// The list of organizations, of which a person chooses.
func TestSeveralOrganizationsAreListed(t *testing.T) {
	w := newWorld(t)
	acme, birch := identity.Org{ID: "corp:acme", Name: "Acme", Domain: "acme.example", Source: "claim"},
		identity.Org{ID: "corp:birch", Source: "claim"}
	active := identity.Org{ID: "corp:acme", Name: "Acme Rockets", Domain: "acme.example", Source: "claim"}
	rows := []struct {
		name   string
		value  any
		noOrg  bool // org_id says nothing
		active identity.Org
		all    []identity.Org
	}{
		{"objects", []any{map[string]any{"id": "acme", "name": "Acme", "domain": "ACME.example"},
			map[string]any{"id": "birch"}}, true, identity.Org{}, []identity.Org{acme, birch}},
		{"ids", []any{"acme", "birch"}, true, identity.Org{},
			[]identity.Org{{ID: "corp:acme", Source: "claim"}, birch}},
		{"one", []any{"birch"}, true, birch, nil},
		{"a whole number", []any{"birch", 7}, true, identity.Org{},
			[]identity.Org{birch, {ID: "corp:7", Source: "claim"}}},
		{"one twice", []any{"birch", map[string]any{"id": "birch"}}, true, birch, nil},
		{"none", []any{}, true, identity.Org{}, nil},
		{"the provider says which is active", []any{"acme", "birch"}, false, active,
			[]identity.Org{{ID: "corp:acme", Source: "claim"}, birch}},
		{"the active one is not in the list", []any{"birch"}, false, active, []identity.Org{active, birch}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w.t = t
			w.use(func(o *Options) { o.Claims.Orgs = "memberships" })
			id := w.person(func(c map[string]any) {
				if c["memberships"] = row.value; row.noOrg {
					delete(c, "org_id")
				}
			})
			if id.Org != row.active || !reflect.DeepEqual(id.Orgs, row.all) {
				t.Errorf("got %+v, %+v", id.Org, id.Orgs)
			}
		})
	}
	// If half of the list were ignored, the person would belong to the other half alone.
	for name, value := range map[string]any{
		"half a number": []any{"acme", 1.5}, "nothing": []any{nil}, "an empty one": []any{""},
		"a list in it": []any{[]any{"x"}}, "no id": []any{map[string]any{"name": "x"}},
		"two lines": []any{"a\nb", "birch"}, "too many": slices.Repeat([]any{"x"}, 51), "a text": "acme",
		"an object": map[string]any{"acme": true},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.use(func(o *Options) { o.Claims.Orgs = "memberships" })
			w.op.Set(testenv.Fault{Endpoint: testenv.Token,
				Claims: func(c map[string]any) { c["memberships"] = value }})
			failure := identity.Rejected
			if name == "too many" { // that is about the person, and not a list that nobody can read
				failure = identity.NotAdmitted
			}
			_, err := w.signIn("mira", identity.AuthParams{})
			w.failed(err, failure)
		})
	}
}
