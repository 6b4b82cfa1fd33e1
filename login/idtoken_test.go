package login

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

type bend = func(map[string]any)

func in(d time.Duration) int64 { return epoch().Add(d).Unix() }

// OIDC Core §3.1.3.7, RFC 8725, and more than the modules of the OpenID Foundation's
// conformance suite, which conformance_test.go has by name. Every row is one lie in a token that
// is otherwise good and, unless it says so, properly signed.
func TestP07_RefusesIDTokens(t *testing.T) {
	w := newWorld(t)
	with, without := testenv.With, testenv.Without
	claims := func(b bend) testenv.Fault { return testenv.Fault{Claims: b} }
	resign := func(s testenv.Signer) testenv.Fault { return testenv.Fault{Resign: s} }
	rows := []struct {
		name  string
		fault testenv.Fault
		want  identity.SignInFailure
	}{
		{"iss of another", claims(with("iss", "https://evil.example")), identity.Rejected},
		{"iss with a slash", claims(with("iss", w.op.URL+"/")), identity.Rejected},
		{"iss in capitals", claims(with("iss", strings.ToUpper(w.op.URL))), identity.Rejected},
		{"no iss", claims(without("iss")), identity.Rejected},
		{"iss a list", claims(with("iss", []string{w.op.URL})), identity.Rejected},
		{"aud of another", claims(with("aud", "another")), identity.Rejected},
		{"no aud", claims(without("aud")), identity.Rejected},
		{"aud empty list", claims(with("aud", []string{})), identity.Rejected},
		{"aud list of nothing", claims(with("aud", []string{""})), identity.Rejected},
		{"aud number", claims(with("aud", 7)), identity.Rejected},
		{"aud list with null", claims(with("aud", []any{clientID, nil})), identity.Rejected},
		{"second audience", claims(with("aud", []string{clientID, "another"})), identity.Rejected},
		{"aud in capitals", claims(with("aud", strings.ToUpper(clientID))), identity.Rejected},
		{"azp of another", claims(with("azp", "another")), identity.Rejected},
		{"azp number", claims(with("azp", 1)), identity.Rejected},
		{"alg none", resign(testenv.Unsigned), identity.Rejected},
		{"alg None", resign(withHeader("alg", "None")), identity.Rejected},
		{"alg null", resign(withHeader("alg", json.RawMessage("null"))), identity.Rejected},
		{"no alg", resign(withHeader("alg", nil)), identity.Rejected},
		{"HS256 with the client secret", resign(testenv.SignedHS256([]byte(clientSecret))), identity.Rejected},
		{"HS256 with the public key as PEM", resign(testenv.SignedWithPublicKey), identity.Rejected},
		{"HS256 with the public key as DER",
			resign(confused(func(k *rsa.PublicKey) []byte { return x509.MarshalPKCS1PublicKey(k) })),
			identity.Rejected},
		{"HS256 with the modulus", resign(confused(func(k *rsa.PublicKey) []byte { return k.N.Bytes() })),
			identity.Rejected},
		{"HS256 with nothing", resign(testenv.SignedHS256(nil)), identity.Rejected},
		{"an algorithm nobody announced", resign(withHeader("alg", "RS512")), identity.Rejected},
		{"signed by a stranger", resign(testenv.SignedByStranger), identity.Rejected},
		{"signature cut", resign(mangled(func(tok string) string { return tok[:len(tok)-8] })), identity.Rejected},
		{"no signature", resign(mangled(func(tok string) string { return tok[:strings.LastIndex(tok, ".")+1] })),
			identity.Rejected},
		{"claims changed afterwards", resign(mangled(swapped)), identity.Rejected},
		{"no exp", claims(without("exp")), identity.Rejected},
		{"exp a string", claims(with("exp", strconv.FormatInt(in(time.Hour), 10))), identity.Rejected},
		{"exp null", claims(with("exp", nil)), identity.Rejected},
		{"exp negative", claims(with("exp", -1)), identity.Rejected},
		{"exp beyond time", claims(with("exp", json.RawMessage("1e300"))), identity.Rejected},
		{"expired", claims(with("exp", in(-61*time.Second))), identity.ClockSkew},
		{"no iat", claims(without("iat")), identity.Rejected},
		{"iat a string", claims(with("iat", "now")), identity.Rejected},
		{"issued in the future", claims(with("iat", in(61*time.Second))), identity.ClockSkew},
		{"issued long ago", claims(with("iat", in(-7*time.Minute-time.Second))), identity.ClockSkew},
		{"nbf in the future", claims(with("nbf", in(61*time.Second))), identity.ClockSkew},
		{"nbf a string", claims(with("nbf", "now")), identity.Rejected},
		{"nonce of another sign-in", claims(with("nonce", "nonce-x")), identity.Rejected},
		{"no nonce", claims(without("nonce")), identity.Rejected},
		{"empty nonce", claims(with("nonce", "")), identity.Rejected},
		{"nonce null", claims(with("nonce", nil)), identity.Rejected},
		{"nonce a list", claims(func(c map[string]any) { c["nonce"] = []any{c["nonce"]} }), identity.Rejected},
		{"no sub", claims(without("sub")), identity.Rejected},
		{"empty sub", claims(with("sub", "")), identity.Rejected},
		{"sub null", claims(with("sub", nil)), identity.Rejected},
		{"sub a number", claims(with("sub", 42)), identity.Rejected},
		{"sub a list", claims(with("sub", []string{"mira"})), identity.Rejected},
		{"sub of 256 bytes", claims(with("sub", strings.Repeat("x", 256))), identity.Rejected},
		{"sub with a line break", claims(with("sub", "mira\nadmin")), identity.Rejected},
		{"sub with half a character", claims(with("sub", json.RawMessage(`"mira\ud800"`))), identity.Rejected},
		{"at_hash of another token", claims(with("at_hash", "AAAAAAAAAAAAAAAAAAAAAA")), identity.Rejected},
		{"at_hash a number", claims(with("at_hash", 1)), identity.Rejected},
		{"another access token", testenv.Fault{JSON: with("access_token", "demo-at-other")}, identity.Rejected},
		{"crit", resign(withHeader("crit", []string{"exp"})), identity.Rejected},
		{"empty crit", resign(withHeader("crit", []string{})), identity.Rejected},
		{"b64 false", resign(withHeader("b64", false)), identity.Rejected},
		{"kid a number", resign(withHeader("kid", 1)), identity.Rejected},
		{"something behind the token", resign(mangled(func(tok string) string { return tok + ".x" })),
			identity.Rejected},
		{"a line break inside", resign(mangled(func(tok string) string { return tok[:9] + "\n" + tok[9:] })),
			identity.Rejected},
		{"a blank before", resign(mangled(func(tok string) string { return " " + tok })), identity.Rejected},
		{"JSON serialization", resign(mangled(flattened)), identity.Rejected},
		{"five parts", resign(mangled(func(string) string { return "a.b.c.d.e" })), identity.Rejected},
		{"nothing but dots", resign(mangled(func(string) string { return strings.Repeat(".", 500_000) })),
			identity.Rejected},
		{"longer than 64 KiB", claims(with("x", strings.Repeat("x", 64<<10))), identity.Rejected},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			row.fault.Endpoint = testenv.Token
			w.op.Set(row.fault)
			_, err := w.signIn("mira", identity.AuthParams{})
			if got := identity.FailureOf(err); err == nil || got != row.want {
				t.Errorf("got %v, want %s", err, row.want)
			}
		})
	}
	w.op.Set()
	w.want()
}

// What the rows above come close to, and what is allowed.
func TestIDTokensThatAreUnusualButGoodAreTaken(t *testing.T) {
	w := newWorld(t)
	with := testenv.With
	for name, b := range map[string]bend{
		"aud as a list of one (valid-aud-as-array)": with("aud", []string{clientID}),
		"azp is us":           with("azp", clientID),
		"sub of 255 bytes":    with("sub", strings.Repeat("x", 255)),
		"no at_hash":          testenv.Without("at_hash"),
		"aggregated claims":   with("_claim_names", map[string]string{"address": "src1"}),
		"iat a minute ahead":  with("iat", in(time.Minute)),
		"exp a minute ago":    with("exp", in(-time.Minute)),
		"iat with a fraction": with("iat", json.RawMessage(fmt.Sprintf("%d.75", in(0)))),
		"Entra ID dates back": func(c map[string]any) {
			c["iat"], c["nbf"] = in(-5*time.Minute),
				in(-5*time.Minute)
		},
		"nbf null":                      with("nbf", nil),
		"claims nobody knows":           with("zoneinfo", map[string]any{"sub": "evil", "deep": []any{nil}}),
		"names in other case are other": func(c map[string]any) { c["Sub"], c["SUB"], c["Nonce"] = "evil", 1, "evil" },
	} {
		t.Run(name, func(t *testing.T) {
			w.op.Set(testenv.Fault{Endpoint: testenv.Token, Claims: b})
			id, err := w.signIn("mira", identity.AuthParams{})
			if err != nil || (id.Subject != "mira" && len(id.Subject) != 255) {
				t.Errorf("got %+v, %v", id, err)
			}
		})
	}
}

// A clock that is a minute off is accepted; for ten minutes the error names the skew.
func TestClockSkewIsForgivenOrNamed(t *testing.T) {
	rows := []struct {
		ahead time.Duration
		says  string
	}{
		{time.Minute, ""}, {-time.Minute, ""},
		{10 * time.Minute, "expired 5m0s ago: our clock is ahead"},
		{-10 * time.Minute, "issued 10m0s from now: our clock is behind"},
	}
	for _, row := range rows {
		w := newWorld(t)
		w.pass(row.ahead)
		_, err := w.signIn("mira", identity.AuthParams{})
		if row.says == "" {
			if err != nil {
				t.Errorf("%s ahead: %v", row.ahead, err)
			}
			continue
		}
		if identity.FailureOf(err) != identity.ClockSkew || !strings.Contains(fmt.Sprint(err), row.says) {
			t.Errorf("%s ahead: got %v, want it to say %q", row.ahead, err, row.says)
		}
	}
}

// OIDC Core §3.1.2.1: what was asked for (max_age, acr_values) is checked in the answer.
func TestMaxAgeAndACRAreCheckedInTheAnswer(t *testing.T) {
	w := newWorld(t)
	rows := []struct {
		name string
		ask  identity.AuthParams
		b    bend
		ok   bool
	}{
		{"fresh", identity.AuthParams{MaxAge: time.Minute}, nil, true},
		{"old", identity.AuthParams{MaxAge: time.Minute}, testenv.With("auth_time", in(-2*time.Minute-time.Second)),
			false},
		{"no auth_time", identity.AuthParams{MaxAge: time.Minute}, testenv.Without("auth_time"), false},
		{"auth_time a string", identity.AuthParams{MaxAge: time.Minute}, testenv.With("auth_time", "now"), false},
		{"auth_time tomorrow", identity.AuthParams{MaxAge: time.Minute}, testenv.With("auth_time", in(24*time.Hour)),
			false},
		{"old, but nobody asked", identity.AuthParams{}, testenv.With("auth_time", in(-100*time.Hour)), true},
		{"the acr asked for", identity.AuthParams{ACR: "low mfa"}, testenv.With("acr", "mfa"), true},
		{"another acr", identity.AuthParams{ACR: "low mfa"}, testenv.With("acr", "password"), false},
		{"both as one", identity.AuthParams{ACR: "low mfa"}, testenv.With("acr", "low mfa"), false},
		{"no acr", identity.AuthParams{ACR: "mfa"}, nil, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w.op.Set()
			if row.b != nil {
				w.op.Set(testenv.Fault{Endpoint: testenv.Token, Claims: row.b})
			}
			id, err := w.signIn("mira", row.ask)
			if (err == nil) != row.ok {
				t.Errorf("got %v", err)
			}
			if row.ask.ACR != "" && row.ok && id.ACR != "mfa" {
				t.Errorf("ACR is %q", id.ACR)
			}
		})
	}
}

// RFC 8725 §3.10: where keys are found is not for the token to say.
func TestP20_KeysThatATokenBringsAlongAreIgnored(t *testing.T) {
	w := newWorld(t)
	attacker := testenv.NewAttacker(t)
	stranger := newKey(t, "stranger")
	jwk := stranger.public()
	for name, extra := range map[string]map[string]any{
		"jwk":                     {"jwk": jwk},
		"jwk under our kid":       {"jwk": jwk, "kid": w.op.Provider.PublicJWKS().Keys[0].KeyID},
		"jku":                     {"jku": attacker.URL, "kid": "stranger"},
		"x5u":                     {"x5u": attacker.URL, "kid": "stranger"},
		"kid is a URL":            {"kid": attacker.URL},
		"kid is a path":           {"kid": "../../../../dev/null"},
		"kid is SQL":              {"kid": "x' OR 1=1 --"},
		"x5c":                     {"x5c": []string{base64.StdEncoding.EncodeToString([]byte("x"))}},
		"an HMAC key in a header": {"jwk": map[string]any{"kty": "oct", "k": "AAAA"}, "alg": "HS256"},
	} {
		t.Run(name, func(t *testing.T) {
			w.op.Set(testenv.Fault{Endpoint: testenv.Token,
				Resign: func(_ *demo.Provider, header, claims map[string]any) (string, error) {
					maps.Copy(header, extra)
					return stranger.sign(t, mustJSON(t, header), mustJSON(t, claims)), nil
				}})
			if _, err := w.signIn("mira", identity.AuthParams{}); identity.FailureOf(err) != identity.Rejected ||
				err == nil {
				t.Errorf("got %v", err)
			}
		})
	}
	if n := len(attacker.Requests()); n != 0 {
		t.Errorf("%d requests to where the token pointed", n)
	}
}

// RFC 8725 §2.4, RFC 8259 §4: JSON that two readers read differently. The provider's own
// key signed all of it.
func TestP20_AmbiguousClaimsAreRefused(t *testing.T) {
	w := newWorld(t)
	key := newKey(t, "k1")
	for name, rewrite := range map[string]func(string) string{
		"sub twice":            func(c string) string { return c[:len(c)-1] + `,"sub":"admin"}` },
		"sub twice, escaped":   func(c string) string { return c[:len(c)-1] + `,"\u0073ub":"admin"}` },
		"email_verified twice": func(c string) string { return c[:len(c)-1] + `,"email_verified":true}` },
		"two objects":          func(c string) string { return c + `{"sub":"admin"}` },
		"a list":               func(c string) string { return "[" + c + "]" },
		"not UTF-8":            func(c string) string { return c[:len(c)-1] + ",\"x\":\"\xff\"}" },
		"cut off":              func(c string) string { return c[:len(c)-1] },
		"empty":                func(string) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			w.use()
			w.op.Set(key.served(), testenv.Fault{Endpoint: testenv.Token,
				Resign: func(_ *demo.Provider, _, claims map[string]any) (string, error) {
					return key.sign(t, `{"alg":"RS256","kid":"k1"}`, rewrite(mustJSON(t, claims))), nil
				}})
			w.refuse(identity.Rejected)
		})
	}
	w.use()
	w.op.Set(key.served(), testenv.Fault{Endpoint: testenv.Token,
		Resign: func(_ *demo.Provider, _, claims map[string]any) (string, error) {
			return key.sign(t, `{"alg":"RS256","kid":"k1"}`, mustJSON(t, claims)), nil
		}})
	w.want()
}

// The conformance modules kid-absent-*, discovery-jwks-uri-keys.
func TestKeysAreChosenByNameOrOnlyFit(t *testing.T) {
	rows := []struct {
		name   string
		faults []testenv.Fault
		ok     bool
	}{
		{"kid absent, single key", []testenv.Fault{{Endpoint: testenv.Token, Resign: testenv.WithKid("")}}, true},
		{"kid absent, the others are of another kind or use",
			[]testenv.Fault{{Endpoint: testenv.Token, Resign: testenv.WithKid("")},
				{Endpoint: testenv.JWKS, JSON: func(set map[string]any) {
					testenv.MoreKeys(set)
					set["keys"].([]any)[0].(map[string]any)["use"] = "enc"
				}}}, true},
		{"kid absent, multiple keys", []testenv.Fault{{Endpoint: testenv.Token, Resign: testenv.WithKid("")},
			{Endpoint: testenv.JWKS, JSON: testenv.MoreKeys}}, false},
		{"kid present, keys without", []testenv.Fault{{Endpoint: testenv.JWKS, JSON: testenv.NamelessKeys}}, false},
		{"kid among several", []testenv.Fault{{Endpoint: testenv.JWKS, JSON: testenv.MoreKeys}}, true},
		{"kid twice, one is a stranger's", []testenv.Fault{{Endpoint: testenv.JWKS, JSON: func(set map[string]any) {
			testenv.MoreKeys(set)
			keys := set["keys"].([]any)
			keys[0].(map[string]any)["kid"] = keys[2].(map[string]any)["kid"]
		}}}, true},
		{"the key is for encryption",
			[]testenv.Fault{{Endpoint: testenv.JWKS, JSON: eachKey(testenv.With("use", "enc"))}}, false},
		{"the key is for another algorithm",
			[]testenv.Fault{{Endpoint: testenv.JWKS, JSON: eachKey(testenv.With("alg", "PS256"))}}, false},
		{"use and alg are not said",
			[]testenv.Fault{{Endpoint: testenv.JWKS, JSON: eachKey(testenv.Without("use", "alg"))}}, true},
		{"a certificate chain that is broken",
			[]testenv.Fault{{Endpoint: testenv.JWKS, JSON: eachKey(testenv.With("x5c", []string{"AAAA"}))}}, true},
	}
	w := newWorld(t)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w.use()
			w.op.Set(row.faults...)
			if _, err := w.signIn("mira", identity.AuthParams{}); (err == nil) != row.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func eachKey(b bend) bend {
	return func(set map[string]any) {
		for _, k := range set["keys"].([]any) {
			b(k.(map[string]any))
		}
	}
}

// RFC 7517 §4: what a key set may hold and we never use.
func TestP20_WeakAndForeignKeysAreNotUsed(t *testing.T) {
	good := newKey(t, "k").public()
	edit := func(b bend) string {
		k := maps.Clone(good)
		b(k)
		return mustJSON(t, k)
	}
	small := base64.RawURLEncoding.EncodeToString(new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 1024),
		big.NewInt(1)).Bytes())
	for name, key := range map[string]string{
		"oct":                    `{"kty":"oct","k":"AAAA","kid":"k"}`,
		"RSA of 1024 bits":       edit(testenv.With("n", small)),
		"e is 1":                 edit(testenv.With("e", "AQ")),
		"e is even":              edit(testenv.With("e", "AQAC")),
		"no e":                   edit(testenv.Without("e")),
		"use enc":                edit(testenv.With("use", "enc")),
		"use is a list":          edit(testenv.With("use", []string{"sig"})),
		"key_ops without verify": edit(testenv.With("key_ops", []string{"sign"})),
		"key_ops is a string":    edit(testenv.With("key_ops", "verify")),
		"private":                edit(testenv.With("d", "AQAB")),
		"kty unknown":            edit(testenv.With("kty", "XYZ")),
		"off the curve":          `{"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}`,
		"n twice":                `{"kty":"RSA","e":"AQAB","n":"AQAB","n":"AQAB"}`,
		"not an object":          `7`,
		"null":                   `null`,
	} {
		if got := usableKeys([]byte(`{"keys":[` + key + `]}`)); len(got) != 0 {
			t.Errorf("%s: taken: %v", name, got)
		}
		if got := usableKeys([]byte(`{"keys":[` + key + `,` + mustJSON(t, good) + `]}`)); len(got) != 1 {
			t.Errorf("%s: the good key beside it was lost", name)
		}
	}
	many := strings.Repeat(mustJSON(t, good)+",", 101)
	for _, set := range []string{``, `[]`, `{}`, `{"keys":[]}`, `{"keys":{}}`, `{"keys":null}`,
		`{"keys":[` + strings.TrimSuffix(many, ",") + `]}`} {
		if got := usableKeys([]byte(set)); len(got) != 0 {
			t.Errorf("%.40s: %d keys", set, len(got))
		}
	}
}

// RFC 7518 §3: every announced algorithm works with its own kind of key only.
func TestAlgorithmsAreTheAnnouncedOnesThatWeAccept(t *testing.T) {
	all := []string{"none", "HS256", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
		"EdDSA", "ES256K"}
	if got := algorithms(all); len(got) != 10 || slices.Contains(got, jose.HS256) {
		t.Errorf("accepted: %v", got)
	}
	for _, announced := range [][]string{nil, {"none"}, {"HS256"}} {
		if got := algorithms(announced); len(got) != 1 || got[0] != jose.RS256 {
			t.Errorf("%v: %v", announced, got)
		}
	}
	w := newWorld(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec := func(c elliptic.Curve) *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	signers := map[jose.SignatureAlgorithm]crypto.Signer{
		jose.RS256: rsaKey, jose.RS384: rsaKey, jose.RS512: rsaKey, jose.PS256: rsaKey, jose.PS384: rsaKey,
		jose.PS512: rsaKey,
		jose.ES256: ec(elliptic.P256()), jose.ES384: ec(elliptic.P384()), jose.ES512: ec(elliptic.P521()),
		jose.EdDSA: edKey,
	}
	for alg, key := range signers {
		set := mustJSON(t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k"}}})
		faults := []testenv.Fault{
			{Endpoint: testenv.JWKS, Body: set},
			{Endpoint: testenv.Token, Resign: signedWith(alg, key)},
		}
		w.use()
		w.op.Set(append(faults, testenv.Fault{Endpoint: testenv.Discovery,
			JSON: testenv.With("id_token_signing_alg_values_supported", all)})...)
		if _, err := w.signIn("mira", identity.AuthParams{}); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		w.use()
		w.op.Set(append(faults, testenv.Fault{Endpoint: testenv.Discovery,
			JSON: testenv.Without("id_token_signing_alg_values_supported")})...)
		if _, err := w.signIn("mira", identity.AuthParams{}); (err == nil) != (alg == jose.RS256) {
			t.Errorf("%s without announcement: %v", alg, err)
		}
		for other, otherKey := range signers {
			if kindOf(other) != kindOf(alg) && fits(jose.JSONWebKey{Key: otherKey.Public()}, string(alg)) {
				t.Errorf("a key for %s is tried for %s", other, alg)
			}
		}
	}
}

// kindOf is the kind of key an algorithm needs.
func kindOf(alg jose.SignatureAlgorithm) string {
	if strings.HasPrefix(string(alg), "RS") || strings.HasPrefix(string(alg), "PS") {
		return "RSA"
	}
	return string(alg)
}

// signedWith signs and binds the access token as alg wants it.
func signedWith(alg jose.SignatureAlgorithm, key crypto.Signer) testenv.Signer {
	return func(_ *demo.Provider, _, claims map[string]any) (string, error) {
		delete(claims, "at_hash")
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil)
		if err != nil {
			return "", err
		}
		payload, err := json.Marshal(claims)
		if err != nil {
			return "", err
		}
		jws, err := signer.Sign(payload)
		if err != nil {
			return "", err
		}
		return jws.CompactSerialize()
	}
}

// OIDC Core §3.1.3.6.
func TestAtHashIsHalfOfTheAlgorithmsHash(t *testing.T) {
	for alg, want := range map[string]int{"RS256": 16, "ES384": 24, "PS512": 32, "EdDSA": 32} {
		raw, err := base64.RawURLEncoding.DecodeString(halfHash(alg, "token"))
		if err != nil || len(raw) != want {
			t.Errorf("%s: %d bytes, %v", alg, len(raw), err)
		}
	}
	// OIDC Core appendix A.3.
	if got := halfHash("RS256", "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"); got != "77QmUPtjPfzWtF2AnpK9RQ" {
		t.Errorf("at_hash is %s", got)
	}
}

// OIDC Core §10.1.1: rotated before signing, and between issue and check.
func TestKeyRotationEndsNoSignIn(t *testing.T) {
	w := newWorld(t)
	w.want()
	for range 3 {
		w.pass(31 * time.Second)
		w.op.Set(testenv.Fault{Endpoint: testenv.Token, Times: 1, Before: func(p *demo.Provider) {
			if err := p.RotateKeys(); err != nil {
				t.Error(err)
			}
		}})
		w.want()
	}
	if n := w.op.Hits(testenv.JWKS); n != 4 {
		t.Errorf("%d fetches of the keys, want 4", n)
	}
	// A provider that does not name its keys rotates too.
	w.pass(31 * time.Second)
	w.op.Set(testenv.Fault{Endpoint: testenv.Token, Resign: testenv.WithKid(""), Before: func(p *demo.Provider) {
		if err := p.RotateKeys(); err != nil {
			t.Error(err)
		}
	}})
	w.want()
}

// Tokens with unknown keys do not make us ask the provider again and again.
func TestP17_RandomKeyIDsCostOneFetchPerHalfMinute(t *testing.T) {
	for _, keys := range []testenv.Fault{{Endpoint: testenv.JWKS}, {Endpoint: testenv.JWKS, Status: 500}} {
		w := newWorld(t)
		w.want()
		w.op.Set(keys)
		w.pass(31 * time.Second)
		set := w.p.disco.current().keys
		before := w.op.Hits(testenv.JWKS)
		for i := range 1000 {
			token, err := w.op.Provider.Sign(map[string]any{"kid": rand.Text()}, map[string]any{"sub": "x"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := set.verify(t.Context(), token, set.others); err == nil {
				t.Fatal("a token of an unknown key was taken")
			}
			if i == 500 {
				w.pass(29 * time.Second)
			}
		}
		if n := w.op.Hits(testenv.JWKS) - before; n != 1 {
			t.Errorf("%d fetches within 30 s", n)
		}
		w.pass(31 * time.Second)
		w.op.Set()
		w.want()
	}
}

// A provider whose keys failed once, before anybody signed in, is asked again
// after a second: until there is a key, waiting only refuses people.
func TestTheFirstFetchOfTheKeysIsSoonRepeated(t *testing.T) {
	w := newWorld(t)
	w.op.Set(testenv.Fault{Endpoint: testenv.JWKS, Status: 500})
	w.refuse(identity.Unavailable)
	w.refuse(identity.Unavailable)
	if n := w.op.Hits(testenv.JWKS); n != 1 {
		t.Errorf("%d fetches within a second", n)
	}
	w.op.Set()
	w.pass(time.Second)
	w.want()
}

// Good keys stay in use while the provider serves none that can be used.
func TestLastGoodKeysAreKept(t *testing.T) {
	w := newWorld(t)
	w.want()
	for _, body := range []string{`{"keys":[]}`, `{}`, `garbage`, `{"keys":[{"kty":"oct","k":"AAAA"}]}`, ""} {
		// what came cannot be read
		fault, want := testenv.Fault{Endpoint: testenv.JWKS, Body: body}, identity.Misconfigured
		if body == "" {
			want, fault = identity.Unavailable, testenv.Fault{Endpoint: testenv.JWKS, Status: 503}
		}
		w.op.Set(fault)
		set := w.p.disco.current().keys
		w.pass(2 * time.Minute) // our clock and the provider's part, so ask the keys alone
		token, err := w.op.Provider.Sign(nil, map[string]any{"sub": "x"})
		if err != nil {
			t.Fatal(err)
		}
		before := w.op.Hits(testenv.JWKS)
		unknown, err := w.op.Provider.Sign(map[string]any{"kid": "unknown"}, map[string]any{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := set.verify(t.Context(), unknown, set.others); identity.FailureOf(err) != want {
			t.Errorf("%q: unknown key while the keys cannot be had: %v", body, err)
		}
		if w.op.Hits(testenv.JWKS) != before+1 {
			t.Errorf("%q: not fetched", body)
		}
		if _, err := set.verify(t.Context(), token, set.others); err != nil {
			t.Errorf("%q: %v", body, err)
		}
	}
}

// A key that the provider withdrew is gone after an hour and one sign-in.
func TestWithdrawnKeysAreForgotten(t *testing.T) {
	w := newWorld(t)
	w.want()
	set := w.p.disco.current().keys
	token, err := w.op.Provider.Sign(nil, map[string]any{"sub": "x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.op.Provider.RotateKeys(); err != nil {
		t.Fatal(err)
	}
	w.pass(61 * time.Minute)
	set.verify(t.Context(), token, set.others)
	w.settle()
	if _, err := set.verify(t.Context(), token, set.others); identity.FailureOf(err) != identity.Rejected ||
		err == nil {
		t.Errorf("a withdrawn key still counts: %v", err)
	}
}

// key is somebody's signing key.
type key struct {
	private *rsa.PrivateKey
	kid     string
}

func newKey(t *testing.T, kid string) key {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key{k, kid}
}

func (k key) public() map[string]any {
	return map[string]any{"kty": "RSA", "kid": k.kid, "use": "sig", "e": "AQAB",
		"n": base64.RawURLEncoding.EncodeToString(k.private.N.Bytes())}
}

func (k key) served() testenv.Fault {
	set, err := json.Marshal(map[string]any{"keys": []any{k.public()}})
	if err != nil {
		return testenv.Fault{}
	}
	return testenv.Fault{Endpoint: testenv.JWKS, Body: string(set)}
}

func (k key) sign(t *testing.T, header, claims string) string {
	t.Helper()
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(claims))
	digest := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(nil, k.private, crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// withHeader signs with the provider's key under a changed header.
func withHeader(name string, value any) testenv.Signer {
	return func(p *demo.Provider, h, claims map[string]any) (string, error) {
		return p.Sign(map[string]any{name: value}, claims)
	}
}

func mangled(f func(string) string) testenv.Signer {
	return func(p *demo.Provider, h, claims map[string]any) (string, error) {
		token, err := p.Sign(nil, claims)
		return f(token), err
	}
}

func confused(secret func(*rsa.PublicKey) []byte) testenv.Signer {
	return func(p *demo.Provider, h, claims map[string]any) (string, error) {
		public, ok := p.PublicJWKS().Keys[0].Key.(*rsa.PublicKey)
		if !ok {
			return "", errors.New("the provider's key is not RSA")
		}
		return testenv.SignedHS256(secret(public))(p, h, claims)
	}
}

// swapped puts other claims between header and signature.
func swapped(token string) string {
	parts := strings.Split(token, ".")
	raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
	parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(raw), `"mira"`, `"admin"`, 1)))
	return strings.Join(parts, ".")
}

func flattened(token string) string {
	parts := strings.Split(token, ".")
	return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2])
}

// usableKeys are those of a set that we use.
func usableKeys(set []byte) []signingKey {
	d, err := readDocument(set, "keys")
	if err != nil {
		return nil
	}
	keys, _, _ := readKeys(d)
	return keys
}

// Somebody just signed in, then the provider rotates its keys: those who sign in
// next are not refused until half a minute is over. Access tokens, which anybody
// can make up, have no part in that.
func TestSigningInGoesOnWhenKeysRotateRightAfterAFetch(t *testing.T) {
	w := newWorld(t)
	rotate := testenv.Fault{Endpoint: testenv.Token, Times: 1, Before: func(p *demo.Provider) {
		if err := p.RotateKeys(); err != nil {
			t.Error(err)
		}
	}}
	w.want()
	set := w.p.disco.current().keys
	for range 5 { // strangers
		token, err := w.op.Provider.Sign(map[string]any{"kid": rand.Text()}, map[string]any{"sub": "x"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := set.verify(t.Context(), token, set.others); err == nil {
			t.Fatal("a token of an unknown key was taken")
		}
	}
	if n := w.op.Hits(testenv.JWKS); n != 2 {
		t.Errorf("%d fetches, want the first and one for all access tokens", n)
	}
	for range 3 {
		w.pass(time.Second)
		w.op.Set(rotate)
		w.want()
		w.want() // with the key that is known now
	}
	w.op.Set(rotate)
	w.refuse(identity.Rejected) // the fourth in so short a time
	if n := w.op.Hits(testenv.JWKS); n != 5 {
		t.Errorf("%d fetches, want 5", n)
	}
	w.op.Set()
	w.pass(31 * time.Second) // one more is there
	w.want()
	w.op.Set(rotate)
	w.refuse(identity.Rejected)
}

// What a provider publishes in a form that cannot be read is said so, with the
// place. null is absent, and nobody judges what is not used.
func TestDocumentsThatCannotBeReadAreNamedWithThePlace(t *testing.T) {
	w := newWorld(t)
	key, err := json.Marshal(w.op.Provider.PublicJWKS().Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	with := func(more string) string { return `{"keys":[` + strings.TrimSuffix(string(key), "}") + more + `}]}` }
	changed := func(from, to string) string { return strings.Replace(with(""), from, to, 1) }
	discovery := func(b bend) testenv.Fault { return testenv.Fault{Endpoint: testenv.Discovery, JSON: b} }
	jwks := func(body string) testenv.Fault { return testenv.Fault{Endpoint: testenv.JWKS, Body: body} }
	document := `{"issuer":"` + w.op.URL + `","authorization_endpoint":"` + w.op.URL +
		`/authorize","token_endpoint":"` + w.op.URL + `/token","jwks_uri":"` + w.op.URL + `/jwks"`
	body := func(text string) testenv.Fault { return testenv.Fault{Endpoint: testenv.Discovery, Body: text} }
	for _, row := range []struct {
		name  string
		fault testenv.Fault
		says  string // "": mira signs in
	}{
		{"discovery as it should be", body(document + `}`), ""},
		{"discovery with a BOM", body("\ufeff" + document + `}`),
			"the discovery document cannot be read: begins with a byte order mark"},
		{"discovery with a member twice", body(document + `,"issuer":"https://evil.example"}`),
			"the discovery document cannot be read: issuer comes twice, the second time at byte"},
		{"discovery with a member twice that is not used",
			body(document + `,"claims_supported":[],"claims_supported":7}`), ""},
		{"discovery that ends early", body(document), "not one JSON object, at byte"},
		{"discovery with more behind it", body(document + `}}`), "something follows the JSON object, at byte"},
		{"discovery in Latin-1", body(document + ",\"x\":\"\xe9\"}"), "not UTF-8, at byte"},
		{"a page", body("<html>c4nary"), "the discovery document cannot be read: not one JSON object"},
		{"discovery with a text for a list",
			discovery(testenv.With("token_endpoint_auth_methods_supported", "client_secret_basic")),
			"token_endpoint_auth_methods_supported is text of 19 bytes, and must be a list of texts"},
		{"discovery with a list for a text", discovery(testenv.With("jwks_uri", []string{"x"})),
			"jwks_uri is list of 1 text, and must be a text"},
		{"discovery with null", discovery(func(d map[string]any) {
			d["token_endpoint_auth_methods_supported"], d["end_session_endpoint"] = nil, nil
		}), ""},
		{"discovery with nonsense where it is not used", discovery(func(d map[string]any) {
			d["scopes_supported"], d["device_authorization_endpoint"], d["claims_supported"] = "openid", 7,
				map[string]any{}
		}), ""},
		{"keys with a BOM", jwks("\ufeff" + with("")), "the key set cannot be read: begins with a byte order mark"},
		{"keys twice", jwks(`{"keys":[],` + with("")[1:]),
			"the key set cannot be read: keys comes twice, the second time at byte 17"},
		{"keys in a text", jwks(`{"keys":"x"}`), "keys is text of 1 byte, and must be a list"},
		{"key_ops null", jwks(with(`,"key_ops":null`)), ""},
		{"all null that may be left out",
			jwks(`{"keys":[` + strings.TrimSuffix(string(key), "}") +
				`,"x5c":null,"x5t":null,"key_ops":null,"issuer":null}],"jwks_uri":null}`), ""},
		{"use null", jwks(changed(`"use":"sig"`, `"use":null`)), ""},
		{"alg null", jwks(changed(`"alg":"RS256"`, `"alg":null`)), ""},
		{"key_ops a text", jwks(with(`,"key_ops":"verify"`)),
			"no usable key in the answer; not used: keys[0]: key_ops is text of 6 bytes, and must be a list of texts"},
		{"kid a number", jwks(changed(`"kid":"`, `"kid":7,"was":"`)),
			"keys[0]: kid is whole number, and must be a text"},
		{"a member of the key twice", jwks(with(`,"kty":"oct"`)), "keys[0]: kty comes twice"},
		{"one that is not used twice", jwks(with(`,"x5t":"A","x5t":7`)), ""},
		{"nonsense in what is not used", jwks(with(`,"x5c":"AAAA","x5u":7,"ext":"yes","nbf":{}`)), ""},
		{"a private key", jwks(with(`,"d":"AQAB"`)), "keys[0]: it is a private or secret key"},
		{"beside a key that can be read", jwks(`{"keys":[` + string(key) + `,{"kty":7},null,"x"]}`), ""},
		{"the right one beside it",
			jwks(`{"keys":[` + mustJSON(t, newKey(t, "k").public()) + `,` + strings.TrimSuffix(string(key), "}") +
				`,"key_ops":"verify"}]}`),
			"does not list: kid is"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w.use()
			w.op.Set(row.fault)
			_, err := w.signIn("mira", identity.AuthParams{})
			switch {
			case row.says == "" && err != nil:
				t.Errorf("got %v", err)
			case row.says == "":
			case err == nil || !strings.Contains(err.Error(), row.says) || strings.Contains(err.Error(), "c4nary"):
				t.Errorf("got %v, want %q", err, row.says)
			case identity.FailureOf(err) == identity.Unavailable:
				t.Errorf("people are told that the provider does not answer: %v", err)
			}
		})
	}
}
