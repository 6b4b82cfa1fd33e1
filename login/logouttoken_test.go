package login

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// logoutClaims are those of a good logout token (OpenID Connect Back-Channel Logout §2.4).
func (w *world) logoutClaims() map[string]any {
	return map[string]any{
		"iss": w.op.URL, "aud": clientID, "sub": "mira", "sid": "s-1", "jti": "j-1", "iat": in(0),
		"exp":    in(2 * time.Minute),
		"events": map[string]any{logoutEvent: map[string]any{}},
	}
}

func logoutJWT() map[string]any { return map[string]any{"typ": "logout+jwt"} }

func (w *world) logouts() *LogoutVerifier {
	w.t.Helper()
	v, err := w.p.LogoutVerifier()
	testenv.Check(w.t, err)
	return v
}

func TestALogoutTokenTellsWhoseSessionsEnd(t *testing.T) {
	w := newWorld(t)
	v := w.logouts()
	with, without := testenv.With, testenv.Without
	good := identity.ProviderLogout{Person: "corp:mira", ProviderSID: "s-1", ID: "j-1",
		Issued: time.Unix(in(0), 0), Until: time.Unix(in(3*time.Minute), 0)}
	everywhere, session := good, good
	everywhere.ProviderSID, session.Person = "", ""
	but := func(change func(*identity.ProviderLogout)) identity.ProviderLogout {
		other := good
		change(&other)
		return other
	}
	for name, row := range map[string]struct {
		bend bend
		want identity.ProviderLogout
	}{
		"oidcc-client-test-rp-backchannel-rpinitlogout": {nil, good},
		"§2.4 sub alone":              {without("sid"), everywhere},
		"§2.4 sid alone":              {without("sub"), session},
		"aud as a list of one":        {with("aud", []string{clientID}), good},
		"§2.4 something in the event": {with("events", map[string]any{logoutEvent: map[string]any{"x": 1}}), good},
		"RFC 8417 §2.2 another event beside it": {with("events",
			map[string]any{logoutEvent: map[string]any{}, "urn:x": map[string]any{}}), good},
		"jti of 255 bytes": {with("jti", strings.Repeat("j", 255)),
			but(func(l *identity.ProviderLogout) { l.ID = strings.Repeat("j", 255) })},
		"a sid that no session can have, and sub": {with("sid", strings.Repeat("s", 257)), everywhere},
		"claims that are nobody's":                {with("trace_id", "x"), good},
		"azp":                                     {with("azp", "another"), good},
		"issued ten minutes ago": {with("iat", in(-10*time.Minute)),
			but(func(l *identity.ProviderLogout) {
				l.Issued, l.Until = time.Unix(in(-10*time.Minute), 0), time.Unix(in(0), 0)
			})},
		"issued a minute from now": {with("iat", in(time.Minute)),
			but(func(l *identity.ProviderLogout) { l.Issued = time.Unix(in(time.Minute), 0) })},
		"expired a minute ago": {with("exp", in(-time.Minute)),
			but(func(l *identity.ProviderLogout) { l.Until = time.Unix(in(0), 0) })},
		"that could be sent for years": {with("exp", in(100_000*time.Hour)),
			but(func(l *identity.ProviderLogout) { l.Until = time.Unix(in(10*time.Minute), 0) })},
	} {
		c := w.logoutClaims()
		if row.bend != nil {
			row.bend(c)
		}
		for _, typ := range []any{"logout+jwt", "JWT", "jwt", "application/logout+jwt", "LOGOUT+JWT", nil} {
			header := map[string]any{}
			if typ != nil {
				header["typ"] = typ
			}
			if got, err := v.Verify(t.Context(), w.signed(header, c)); err != nil || got != row.want {
				t.Errorf("%s, typ %v: %+v, %v; want %+v", name, typ, got, err, row.want)
			}
		}
	}
	if n := w.op.Hits(testenv.JWKS); n != 1 {
		t.Errorf("asked for keys %d times", n)
	}
}

// Each row is one lie in a logout token that is otherwise good and, unless it says so,
// properly signed. Rows of the conformance suite have the names of its modules.
func TestP07_RefusesLogoutTokens(t *testing.T) {
	w := newWorld(t)
	const module = "oidcc-client-test-rp-backchannel-rpinitlogout-"
	with, without := testenv.With, testenv.Without
	type row struct {
		name, says string
		typ        any
		bend       bend
		sign       testenv.Signer
		fails      identity.SignInFailure
	}
	typ := func(name string, typ any) row { return row{name: name, typ: typ, says: "typ is"} }
	lie := func(name, says string, b bend) row { return row{name: name, bend: b, says: says} }
	resign := func(name, says string, s testenv.Signer) row { return row{name: name, sign: s, says: says} }
	skewed := func(name, says string, b bend) row {
		return row{name: name, bend: b, says: says, fails: identity.ClockSkew}
	}
	events := func(raw string) bend { return with("events", json.RawMessage(raw)) }
	rows := []row{
		resign(module+"alg-none", "algorithm", testenv.Unsigned),
		lie(module+"no-event", "events is missing", without("events")),
		lie(module+"with-nonce", "nonce", with("nonce", "n-1")),
		resign(module+"wrong-alg", "algorithm", testenv.SignedHS256([]byte(clientSecret))),
		lie(module+"wrong-aud", "another client", with("aud", "another")),
		lie(module+"wrong-event", "events has no mapping", events(`{"http://schemas.openid.net/event/other":{}}`)),
		lie(module+"wrong-iss", "iss is not", with("iss", "https://evil.example")),

		typ("RFC 8725 §3.11 an access token", "at+jwt"),
		typ("an ID token that says so", "id_token+jwt"),
		typ("RFC 8417 §2.3 another event", "secevent+jwt"),
		typ("typ empty", ""),
		typ("typ null", json.RawMessage("null")),
		typ("typ a number", 5),
		typ("typ a list", []string{"logout+jwt"}),
		typ("typ and more", "logout+jwt; x"), typ("typ with a blank", " logout+jwt"), typ("typ text/jwt", "text/jwt"),

		lie("an ID token", "events is missing", func(c map[string]any) { delete(c, "events"); c["nonce"] = "n-1" }),
		lie("nonce null", "nonce", with("nonce", nil)), lie("nonce empty", "nonce", with("nonce", "")),
		lie("events null", "events is missing", with("events", nil)),
		lie("events a text", "events is missing", with("events", logoutEvent)),
		lie("events a list", "events is missing", with("events", []string{logoutEvent})),
		lie("events empty", "events has no", events(`{}`)),
		lie("the event null", "events has no", events(`{"`+logoutEvent+`":null}`)),
		lie("the event true", "events has no", events(`{"`+logoutEvent+`":true}`)),
		lie("the event a text", "events has no", events(`{"`+logoutEvent+`":"{}"}`)),
		lie("the event a list", "events has no", events(`{"`+logoutEvent+`":[{}]}`)),
		lie("the event twice", "events is missing, or not", events(`{"`+logoutEvent+`":{},"`+logoutEvent+`":{}}`)),
		lie("the event in capitals", "events has no", events(`{"`+strings.ToUpper(logoutEvent)+`":{}}`)),
		lie("the event and a slash", "events has no", events(`{"`+logoutEvent+`/":{}}`)),

		lie("no iss", "iss is not", without("iss")),
		lie("iss with a slash", "iss is not", with("iss", w.op.URL+"/")),
		lie("iss a list", "iss is not", with("iss", []string{w.op.URL})),
		lie("no aud", "another client", without("aud")),
		lie("aud empty list", "another client", with("aud", []string{})),
		lie("aud list with null", "another client", with("aud", []any{clientID, nil})),
		lie("aud a number", "another client", with("aud", 7)),
		lie("second audience", "trusted_audiences", with("aud", []string{clientID, "another"})),
		lie("no exp", "exp is missing", without("exp")),
		lie("exp a text", "exp is missing", with("exp", fmt.Sprint(in(time.Hour)))),
		lie("exp null", "exp is missing", with("exp", nil)),
		lie("no iat", "iat is missing", without("iat")),
		lie("iat a text", "iat is missing", with("iat", "now")),
		lie("nbf a text", "nbf is not", with("nbf", "now")),
		skewed("expired", "expired 1m1s ago", with("exp", in(-61*time.Second))),
		skewed("issued long ago", "issued 10m1s ago", with("iat", in(-10*time.Minute-time.Second))),
		skewed("issued in the future", "issued 1m1s from now", with("iat", in(61*time.Second))),
		skewed("nbf in the future", "not valid for", with("nbf", in(61*time.Second))),
		lie("no jti", "jti is missing", without("jti")),
		lie("jti empty", "jti is missing", with("jti", "")),
		lie("jti a number", "jti is missing", with("jti", 7)),
		lie("jti null", "jti is missing", with("jti", nil)),
		lie("jti of 256 bytes", "jti is missing", with("jti", strings.Repeat("j", 256))),
		lie("neither sub nor sid", "names nobody", without("sub", "sid")),
		lie("sub empty", "sub is missing, or not", with("sub", "")),
		lie("sub null", "sub is missing, or not", with("sub", nil)),
		lie("sub a number", "sub is missing, or not", with("sub", 42)),
		lie("sub a list", "sub is missing, or not", with("sub", []string{"mira"})),
		lie("sub of 256 bytes", "sub is missing, or not", with("sub", strings.Repeat("x", 256))),
		lie("sub with a line break", "sub is missing, or not", with("sub", "mira\nadmin")),
		lie("sid empty", "sid is not", with("sid", "")),
		lie("sid null", "sid is not", with("sid", nil)),
		lie("sid a number", "sid is not", with("sid", 1)),
		lie("a sid that no session can have, and no sub", "names nobody",
			func(c map[string]any) { delete(c, "sub"); c["sid"] = strings.Repeat("s", 257) }),

		resign("alg None", "algorithm", withHeader("alg", "None")),
		resign("no alg", "algorithm", withHeader("alg", nil)),
		resign("alg RS512, not announced", "algorithm", withHeader("alg", "RS512")),
		resign("HS256 with the public key as PEM", "algorithm", testenv.SignedWithPublicKey),
		resign("crit", "critical", withHeader("crit", []string{"exp"})),
		resign("b64 false", "b64", withHeader("b64", false)),
		resign("kid a number", "kid is not", withHeader("kid", 1)),
		resign("no signature", "", mangled(func(tok string) string { return tok[:strings.LastIndex(tok, ".")+1] })),
		resign("five parts", "not three parts", mangled(func(string) string { return "a.b.c.d.e" })),
		resign("a line break inside", "not three parts",
			mangled(func(tok string) string { return tok[:9] + "\n" + tok[9:] })),
		resign("empty", "not three parts", mangled(func(string) string { return "" })),
		resign("JSON serialization", "not three parts", mangled(flattened)),
		lie("longer than 64 KiB", "64 KiB", with("x", strings.Repeat("x", 64<<10))),
		resign("signed by a stranger", "signature is wrong", testenv.SignedByStranger),
		resign("claims changed afterwards", "signature is wrong", mangled(swapped)),
		resign("a key that is not listed", "does not list", testenv.WithKid("unknown")),
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w.t = t
			w.use() // afresh, so that keys may be asked for
			v := w.logouts()
			header, c := logoutJWT(), w.logoutClaims()
			if row.typ != nil {
				header["typ"] = row.typ
			}
			if row.bend != nil {
				row.bend(c)
			}
			token := w.signed(header, c)
			if row.sign != nil {
				header["alg"], header["kid"] = "RS256", w.op.Provider.PublicJWKS().Keys[0].KeyID
				var err error
				token, err = row.sign(w.op.Provider, header, c)
				testenv.Check(t, err)
			}
			if row.fails == "" {
				row.fails = identity.Rejected
			}
			got, err := v.Verify(t.Context(), token)
			if got != (identity.ProviderLogout{}) {
				t.Errorf("%+v came with the error", got)
			}
			if w.failed(err, row.fails); !strings.Contains(err.Error(), row.says) ||
				strings.Contains(err.Error(), "ID token:") {
				t.Errorf("refused for another reason: %v", err)
			}
			for _, part := range strings.Split(token, ".") {
				if len(part) > 12 && strings.Contains(err.Error(), part) {
					t.Errorf("the error holds a part of the token: %v", err)
				}
			}
		})
	}
	w.t = t
	if _, err := w.logouts().Verify(t.Context(), w.signed(logoutJWT(), w.logoutClaims())); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// The other way round: a logout token signs nobody in, and opens no API.
func TestP07_ALogoutTokenIsNoOtherToken(t *testing.T) {
	w := newWorld(t)
	c := w.logoutClaims()
	c["aud"] = api
	if _, _, err := w.bearer(anyTyp).Verify(t.Context(), w.signed(logoutJWT(), c)); err == nil {
		t.Error("it passed for an access token")
	}
	w.op.Set(testenv.Fault{Endpoint: testenv.Token, Claims: func(id map[string]any) {
		for name := range id {
			delete(id, name)
		}
		for name, value := range w.logoutClaims() {
			id[name] = value
		}
	}})
	w.refuse(identity.Rejected)
}

func TestTrustedAudiencesMayStandInALogoutTokenToo(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.TrustedAudiences = []string{"https://api.example"} })
	c := w.logoutClaims()
	c["aud"] = []string{"https://api.example", clientID}
	_, err := w.logouts().Verify(t.Context(), w.signed(logoutJWT(), c))
	testenv.Check(t, err)
}

func TestASubOfALogoutTokenIsReadAsTheOneOfASignIn(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Quirks = []string{quirkNumericSub} })
	c := w.logoutClaims()
	c["sub"] = 42
	got, err := w.logouts().Verify(t.Context(), w.signed(logoutJWT(), c))
	if err != nil || got.Person != "corp:42" {
		t.Errorf("numeric_sub: %+v, %v", got, err)
	}
	w.use(func(o *Options) { o.Quirks = []string{quirkIDAsSub} })
	delete(c, "sub")
	c["id"] = "u-7"
	got, err = w.logouts().Verify(t.Context(), w.signed(logoutJWT(), c))
	if err != nil || got.Person != "corp:u-7" {
		t.Errorf("id_as_sub: %+v, %v", got, err)
	}
}

func TestWhoseLogoutTokensAreNotTaken(t *testing.T) {
	for name, o := range map[string]Options{
		"google":                  {Type: TypeGoogle},
		"microsoft":               {Type: TypeMicrosoft, Tenant: TenantCommon},
		"slack":                   {Type: TypeSlack},
		"pagerduty":               {Type: TypePagerDuty},
		"hs256_id_token":          {Issuer: "https://op.example", Quirks: []string{quirkHS256}},
		"quirk " + "unchecked":    {Issuer: "https://op.example", Quirks: []string{quirkUncheckedIssuer}},
		"without keys to look at": {Issuer: "https://op.example", Quirks: []string{quirkIgnoreIDToken}},
	} {
		if o.NoLogoutTokens() == "" {
			t.Errorf("%s: they would be", name)
		}
	}
	w := newWorld(t, func(o *Options) { o.Quirks = []string{quirkHS256} })
	if _, err := w.p.LogoutVerifier(); err == nil || !strings.Contains(err.Error(), "client secret") {
		t.Errorf("a verifier by a shared secret: %v", err)
	}
}

// Whoever sends logout tokens that nobody signed must not keep the provider's own from
// being checked: while the keys may not be asked for again, those of a new key are told
// to come again, and not refused.
func TestP17_MadeUpLogoutTokensCostOneFetchAndNoLogout(t *testing.T) {
	w := newWorld(t)
	v := w.logouts()
	good := w.signed(logoutJWT(), w.logoutClaims())
	_, err := v.Verify(t.Context(), good)
	testenv.Check(t, err)
	before := w.op.Hits(testenv.JWKS)
	for i := range 300 {
		token := w.signed(map[string]any{"kid": rand.Text()}, w.logoutClaims())
		want := identity.Unavailable
		if i == 0 {
			want = identity.Rejected // the keys were asked for, and it is not among them
		}
		_, err := v.Verify(t.Context(), token)
		w.failed(err, want)
	}
	if n := w.op.Hits(testenv.JWKS) - before; n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
	_, err = v.Verify(t.Context(), good)
	testenv.Check(t, err)
	w.want() // sign-ins have a budget of their own

	testenv.Check(t, w.op.Provider.RotateKeys())
	rotated := w.signed(logoutJWT(), w.logoutClaims())
	_, err = v.Verify(t.Context(), rotated)
	w.failed(err, identity.Unavailable)
	w.pass(31 * time.Second)
	_, err = v.Verify(t.Context(), rotated)
	testenv.Check(t, err)
}

func TestALogoutTokenOfAProviderThatIsDownCanComeAgain(t *testing.T) {
	w := newWorld(t)
	v := w.logouts()
	token := w.signed(logoutJWT(), w.logoutClaims())
	for _, endpoint := range []string{testenv.Discovery, testenv.JWKS} {
		w.op.Set(testenv.Fault{Endpoint: endpoint, Status: 500})
		_, err := v.Verify(t.Context(), token)
		w.failed(err, identity.Unavailable)
		w.op.Set()
		w.pass(31 * time.Second)
	}
	_, err := v.Verify(t.Context(), token)
	testenv.Check(t, err)
}

func TestP20_LogoutTokensThatAreReadAtOnceAreNotMixedUp(t *testing.T) {
	w := newWorld(t)
	v := w.logouts()
	var crowd sync.WaitGroup
	for i := range 30 {
		c := w.logoutClaims()
		c["sub"], c["sid"], c["jti"] = fmt.Sprint("p", i), fmt.Sprint("s", i), fmt.Sprint("j", i)
		token := w.signed(logoutJWT(), c)
		crowd.Go(func() {
			got, err := v.Verify(t.Context(), token)
			if err != nil || got.Person != fmt.Sprint("corp:p", i) || got.ProviderSID != fmt.Sprint("s", i) ||
				got.ID != fmt.Sprint("j", i) {
				t.Errorf("p%d is %+v, %v", i, got, err)
			}
		})
	}
	crowd.Wait()
	if n := w.op.Hits(testenv.JWKS); n != 1 {
		t.Errorf("keys were fetched %d times", n)
	}
}

// FuzzLogoutToken: whatever is sent, without the key nobody is signed out; and whatever
// a provider signs, what is taken names somebody, once.
func FuzzLogoutToken(f *testing.F) {
	w := &world{}
	w.op = testenv.StartProvider(f, demo.ProviderOptions{ClientID: clientID, ClientSecret: clientSecret,
		RedirectURIs: []string{callbackURL}, Now: epoch})
	p, err := New(Options{ID: "corp", Issuer: w.op.URL, ClientID: clientID, ClientSecret: clientSecret,
		RedirectURL: callbackURL, Now: w.now})
	testenv.Check(f, err)
	v, err := p.LogoutVerifier()
	testenv.Check(f, err)
	good, err := w.op.Provider.Sign(logoutJWT(), w.logoutClaims())
	testenv.Check(f, err)
	f.Add(good[:strings.LastIndex(good, ".")+1], "logout+jwt", `{}`, "mira", "s-1")
	f.Add("", "", `{"http://schemas.openid.net/event/backchannel-logout":{}}`, "", "s")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))+"..", "JWT", `[]`, "\x00", "")
	f.Fuzz(func(t *testing.T, token, typ, events, sub, sid string) {
		got, err := v.Verify(t.Context(), token)
		if (err == nil) != (token == good) || err != nil && got != (identity.ProviderLogout{}) {
			t.Errorf("%q: %+v, %v", token, got, err)
		}
		if !json.Valid([]byte(events)) {
			return
		}
		c := w.logoutClaims()
		c["events"], c["sub"], c["sid"] = json.RawMessage(events), sub, sid
		signed, err := w.op.Provider.Sign(map[string]any{"typ": typ}, c)
		if err != nil {
			return
		}
		got, err = v.Verify(t.Context(), signed)
		if err != nil && got != (identity.ProviderLogout{}) ||
			err == nil && (got.ID != "j-1" || got.Person == "" || !strings.Contains(events, "{")) {
			t.Errorf("typ %q events %q sub %q sid %q: %+v, %v", typ, events, sub, sid, got, err)
		}
	})
}
