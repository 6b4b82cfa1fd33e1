package login

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

func pagerdutyWorld(t *testing.T) (*world, func(*Options)) {
	t.Helper()
	w := &world{t: t}
	w.op = testenv.StartProvider(t, demo.ProviderOptions{ClientID: clientID, ClientSecret: clientSecret,
		RedirectURIs: []string{callbackURL}, Now: epoch, Kind: demo.PagerDuty})
	base := func(o *Options) {
		o.Type, o.Scopes = TypePagerDuty, nil // the tokens name PagerDuty all the same
		o.Endpoints = Endpoints{AuthorizationURL: w.op.URL + demo.AuthorizePath, TokenURL: w.op.URL + demo.TokenPath,
			JWKSURL: w.op.URL + demo.JWKSPath}
	}
	w.use(base)
	return w, base
}

func TestP07_PagerDuty(t *testing.T) {
	w, base := pagerdutyWorld(t)
	mira := identity.Identity{
		Provider: "corp", Subject: "PM6C63M/PHQ4KV6", ACR: "acr:html-form:unitedstates",
		Org: identity.Org{ID: "corp:PM6C63M", Name: "acme-demo", Domain: "acme-demo.pagerduty.com", Source: "claim"},
	}
	tomoko := identity.Identity{
		Provider: "corp", Subject: "PJFUKFH/PAO3SUP", ACR: "acr:html-form:unitedstates",
		Org: identity.Org{ID: "corp:PJFUKFH", Name: "birch-demo", Domain: "birch-demo.eu.pagerduty.com",
			Source: "claim"},
	}
	with, without := testenv.With, testenv.Without
	const us, eu = "https://api.pagerduty.com", "https://api.eu.pagerduty.com"
	pointer := func(to string) []testenv.Fault {
		return []testenv.Fault{{Endpoint: testenv.JWKS, JSON: with("jwks_uri", to)}}
	}
	refused := func(name, says string, faults []testenv.Fault) fact {
		return fact{name: name, says: says, faults: faults, refuse: identity.Rejected}
	}
	runFacts(t, w, base, []fact{
		{name: "account and user are the key, the account is the organization", want: mira},
		{name: "another region", who: "tomoko", want: tomoko},
		{name: "the old issuer", faults: tokenClaims(with("iss", pagerdutyOldIssuer)), want: mira},
		refused("staging is no issuer in circulation", "iss",
			tokenClaims(with("iss", "https://app.pd-staging.com/global/oauth/anonymous"))),
		refused("an issuer that only begins alike", "iss", tokenClaims(with("iss", pagerdutyIssuer+"/x"))),
		{name: "the old sub is an address", faults: tokenClaims(with("sub", "mira@acme.example")), want: mira},
		{name: "no e-mail, whatever a claim says",
			faults: tokenClaims(func(c map[string]any) { c["email"], c["email_verified"] = "mira@acme.example", true }),
			want:   mira},
		{name: "amr as a list, one day", faults: tokenClaims(with("amr", []string{"pwd"})), want: mira},
		{name: "region is a label", faults: tokenClaims(with("region", "Mars")), want: mira},
		refused("aud without an API", "aud", tokenClaims(with("aud", []string{clientID}))),
		refused("aud as a text", "aud", tokenClaims(with("aud", clientID))),
		refused("aud with two APIs", "aud", tokenClaims(with("aud", []string{us, eu, clientID}))),
		refused("aud with the API alone", "aud", tokenClaims(with("aud", []string{us}))),
		refused("aud with somebody else's API", "aud",
			tokenClaims(with("aud", []string{"https://api.pd-staging.com", clientID}))),
		refused("aud with a third", "aud", tokenClaims(with("aud", []string{us, clientID, "another"}))),
		refused("aud for another client", "aud", tokenClaims(with("aud", []string{us, "another"}))),
		refused("aud twice us", "aud", tokenClaims(with("aud", []string{clientID, clientID}))),
		refused("azp of another", "azp", tokenClaims(with("azp", "another"))),
		refused("no azp", "azp", tokenClaims(without("azp"))),
		refused("an access token", "purpose", tokenClaims(with("purpose", "access"))),
		refused("no purpose", "purpose", tokenClaims(without("purpose"))),
		refused("at_hash of another", "at_hash", tokenClaims(with("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"))),
		refused("no account", "name the person", tokenClaims(without("account_id"))),
		refused("no user", "name the person", tokenClaims(without("user_id"))),
		refused("account with a slash", "name the person", tokenClaims(with("account_id", "A/B"))),
		refused("user is a number", "name the person", tokenClaims(with("user_id", 7))),
		refused("a nonce of another sign-in", "nonce", tokenClaims(with("nonce", "nonce-x"))),
		refused("HS256 with the public key", "algorithm",
			[]testenv.Fault{{Endpoint: testenv.Token, Resign: testenv.SignedWithPublicKey}}),
		refused("signed by a stranger", "signature",
			[]testenv.Fault{{Endpoint: testenv.Token, Resign: testenv.SignedByStranger}}),
		{name: "x5t is not looked at",
			faults: []testenv.Fault{{Endpoint: testenv.Token, Resign: withHeader("x5t", "AAAA")}}, want: mira},
		{name: "keys without a pointer", edit: func(o *Options) { o.Endpoints.JWKSURL = w.op.URL + demo.KeysPath },
			want: mira},
		{name: "a pointer to another host", faults: pointer("https://evil.example/keys"), refuse: identity.Unavailable,
			says: "points away"},
		{name: "a pointer to another port", faults: pointer("http://127.0.0.1:1/keys"), refuse: identity.Unavailable,
			says: "points away"},
		{name: "a pointer to a file", faults: pointer("file:///etc/passwd"), refuse: identity.Unavailable,
			says: "points away"},
		{name: "a second pointer",
			faults: []testenv.Fault{{Endpoint: testenv.Keys, Body: `{"jwks_uri":"` + w.op.URL + `/keys"}`}},
			refuse: identity.Misconfigured, says: "no usable key"},
		{name: "a pointer to an endless document", faults: []testenv.Fault{{Endpoint: testenv.Keys, Pad: 2 << 20}},
			refuse: identity.Unavailable},
		{name: "no ID token, as with a scope that was not granted",
			faults: []testenv.Fault{{Endpoint: testenv.Token, JSON: without("id_token")}}, refuse: identity.Rejected,
			says: "no ID token"},
	})
}

// What is asked, and how the code is redeemed.
func TestPagerDutyIsAskedForNoMoreThanItHas(t *testing.T) {
	w, base := pagerdutyWorld(t)
	q := w.authQuery(identity.AuthParams{})
	if q.Get("scope") != "openid" || q.Get("code_challenge_method") != "S256" || q.Get("nonce") == "" {
		t.Errorf("%v", q)
	}
	if _, err := w.signIn("mira", identity.AuthParams{}); err != nil {
		t.Fatal(err)
	}
	sent := w.op.Requests(testenv.Token)[0]
	form, err := url.ParseQuery(string(sent.Body))
	if err != nil || sent.Header.Get("Authorization") != "" || form.Get("client_secret") != clientSecret ||
		form.Get("code_verifier") == "" {
		t.Errorf("%v, %v", err, sent.Header)
	}
	if n := w.op.Hits(testenv.Discovery) + w.op.Hits(testenv.Userinfo); n != 0 {
		t.Errorf("%d requests for what PagerDuty does not have", n)
	}
	// Keys are kept: once for the pointer, once for the set, and never for each sign-in.
	w.use(base)
	for range 3 {
		if _, err := w.signIn("mira", identity.AuthParams{}); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := w.op.Hits(testenv.JWKS), w.op.Hits(testenv.Keys); a != 2 || b != 2 {
		t.Errorf("pointer asked %d times, keys %d times, for two starts", a, b)
	}
	// PagerDuty may rotate its keys at any time.
	w.pass(31 * time.Second)
	if err := w.op.Provider.RotateKeys(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.signIn("mira", identity.AuthParams{}); err != nil {
		t.Error(err)
	}
}

func TestPagerDutyNeedsNoAddresses(t *testing.T) {
	p, err := New(Options{ID: "pd", Type: TypePagerDuty, ClientID: "x", ClientSecret: "y", RedirectURL: callbackURL})
	if err != nil || p.AuthOrigins()[0] != "https://identity.pagerduty.com" ||
		!slices.Equal(p.scopes, []string{"openid"}) {
		t.Fatalf("%v, %+v", err, p)
	}
	m, err := p.metadata(t.Context())
	if err != nil || !strings.HasSuffix(m.keys.url, "/global/oauth/anonymous/jwks") ||
		m.TokenURL != "https://identity.pagerduty.com/oauth/token" {
		t.Errorf("%v, %+v", err, m)
	}
	for to, ok := range map[string]bool{
		"https://identity.pagerduty.com/keys": true, "https://app.pagerduty.com/keys": true,
		"http://identity.pagerduty.com/keys":  false,
		"https://pagerduty.com.evil.example/": false, "https://evilpagerduty.com/": false,
		"https://identity.pagerduty.com:8443/": false,
		"https://u:p@identity.pagerduty.com/":  false, "//identity.pagerduty.com/": false, "": false,
	} {
		if m.keys.redirect(to) != ok {
			t.Errorf("hop to %q: %v", to, !ok)
		}
	}
	if _, err := New(Options{ID: "pd", Type: TypePagerDuty, ClientID: "x", ClientSecret: "y", RedirectURL: callbackURL,
		IdentityFrom: FromUserinfo}); err == nil {
		t.Error("userinfo was taken")
	}
}
