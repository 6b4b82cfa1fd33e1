package login

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// victim is somebody of another, honest provider, whom this one pretends to know.
const (
	honestIssuer = "https://honest.example"
	victim       = "tomoko"
)

// The tests for clients of PrOfESSOS (Ruhr University Bochum, RUB-NDS/PrOfESSOS,
// rp_test.xml) that are about tokens, keys, userinfo and discovery, by their public names:
// a provider that is evil tries to sign its person mira in as the victim, or with a key that
// it chose. Those about two providers and browsers are in package proxy.
//
// Not here: "Token Substitution - Authorization Code", because c_hash is for the hybrid
// flow, which we do not speak, and "Custom Script 1", which does nothing by itself.
func TestP07_TestsOfPrOfESSOSForClients(t *testing.T) {
	attacker := testenv.NewAttacker(t)
	stranger, set := newKey(t, "stranger"), attacker.URL+"/jwks"
	der, err := x509.MarshalPKIXPublicKey(&stranger.private.PublicKey)
	testenv.Check(t, err)
	x5c := base64.StdEncoding.EncodeToString(der)
	jwk := func(more ...string) map[string]any {
		k := stranger.public()
		for i := 0; i < len(more); i += 2 {
			k[more[i]] = more[i+1]
		}
		return k
	}
	type test struct {
		faults   []testenv.Fault
		userinfo bool                   // says who somebody is
		fails    identity.SignInFailure // "": somebody is signed in
		as       string                 // as whom
	}
	token := func(f testenv.Fault) test {
		f.Endpoint = testenv.Token
		return test{faults: []testenv.Fault{f}, fails: identity.Rejected}
	}
	claims := func(changes ...bend) test {
		return token(testenv.Fault{Claims: func(c map[string]any) {
			for _, change := range changes {
				change(c)
			}
		}})
	}
	info := func(body string) test {
		return test{faults: []testenv.Fault{{Endpoint: testenv.Userinfo, Body: `{"iss":"` + honestIssuer +
			`","name":"T","email":"tomoko@birch.example","preferred_username":"tomoko"` + body + `}`}},
			userinfo: true, fails: identity.Rejected}
	}
	// spoofed is a token that the stranger signed, and whose header says where the key is.
	spoofed := func(header map[string]any, crit ...string) test {
		return token(testenv.Fault{Resign: func(_ *demo.Provider, h, c map[string]any) (string, error) {
			h["kid"] = "stranger"
			maps.Copy(h, header)
			if len(crit) > 0 {
				h["crit"] = crit
			}
			return stranger.sign(t, mustJSON(t, h), mustJSON(t, c)), nil
		}})
	}
	// mac is a token with an HMAC by what everybody can know; the provider announces HS256.
	mac := func(secret func(*rsa.PublicKey) string, changes ...func(string) string) test {
		all := token(testenv.Fault{Resign: confused(func(k *rsa.PublicKey) []byte {
			text := secret(k)
			for _, change := range changes {
				text = change(text)
			}
			return []byte(text)
		})})
		all.faults = append(all.faults, announcesHS256)
		return all
	}
	field := func(name string) test {
		return mac(func(k *rsa.PublicKey) string { return publicFields(k)[name] })
	}
	with, without := testenv.With, testenv.Without
	spoofs := func(t test, as string) test { t.fails, t.as = "", as; return t }

	w := newWorld(t)
	for name, tt := range map[string]test{
		// What counts is the subject at this provider: it is nobody of another one.
		"ID Spoofing 1 - ID Token (sub)":     spoofs(claims(with("sub", victim)), "corp:tomoko"),
		"ID Spoofing 2 - ID Token (sub+iss)": claims(with("sub", victim), with("iss", honestIssuer)),
		"ID Spoofing 3 - ID Token (name+username+email)": spoofs(claims(with("name", "Tomoko Hayashi"),
			with("preferred_username", victim), with("email", "tomoko@birch.example")), "corp:mira"),
		"ID Spoofing 4 - ID Token (sub, no iss)":         claims(with("sub", victim), without("iss")),
		"ID Spoofing 5 - ID Token (sub, empty iss)":      claims(with("sub", victim), with("iss", "")),
		"ID Spoofing 6 - UserInfo (sub+iss)":             info(`,"sub":"tomoko"`),
		"ID Spoofing 7 - UserInfo (name+username+email)": info(``),
		"ID Spoofing 8 - UserInfo (multiple sub)":        info(`,"sub":"mira","sub":"tomoko"`),
		"ID Spoofing 9 - UserInfo (multiple sub)":        info(`,"sub":"tomoko","sub":"mira"`),
		"ID Spoofing 10 - UserInfo (sub array)":          info(`,"sub":["mira","tomoko"]`),
		"ID Spoofing 11 - UserInfo (sub array reverse)":  info(`,"sub":["tomoko","mira"]`),
		"ID Spoofing 12 - ID Token Header": spoofs(token(testenv.Fault{
			Resign: func(p *demo.Provider, _, c map[string]any) (string, error) {
				return p.Sign(map[string]any{"iss": honestIssuer, "sub": victim, "email": "tomoko@birch.example"}, c)
			}}), "corp:mira"),
		"Issuer Confusion": {faults: []testenv.Fault{
			{Endpoint: testenv.Discovery, JSON: with("issuer", honestIssuer)},
			{Endpoint: testenv.Token, Claims: func(c map[string]any) { c["iss"], c["sub"] = honestIssuer, victim }}},
			fails: identity.Misconfigured},

		"Key Confusion 1 - jwk Spoofing":                       spoofed(map[string]any{"jwk": jwk()}),
		"Key Confusion 1.1 - JWK Spoofing (jwk: URI)":          spoofed(map[string]any{"jwk": set}),
		"Key Confusion 2 - jku Spoofing":                       spoofed(map[string]any{"jku": set}),
		"Key Confusion 2.1 - jku returns [untrusted, trusted]": spoofed(map[string]any{"jku": set}, "jku"),
		"Key Confusion 2.2 - jku returns [trusted, untrusted]": spoofed(map[string]any{"jku": set}),
		"Key Confusion 2.3 - jwk contains spoofed jku":         spoofed(map[string]any{"jwk": jwk("jku", set)}, "jwk"),
		"Key Confusion 2.4 - jwk contains spoofed x5u":         spoofed(map[string]any{"jwk": jwk("x5u", set)}, "jwk"),
		"Key Confusion 2.5 - jwk contains spoofed x5c": spoofed(map[string]any{
			"jwk": map[string]any{"kty": "RSA", "kid": "stranger", "x5c": []string{x5c}}}, "jwk"),
		"Key Confusion 3 - x5u Spoofing":                spoofed(map[string]any{"x5u": set}, "x5u"),
		"Key Confusion 4 - x5c Spoofing":                spoofed(map[string]any{"x5c": []string{x5c}}),
		"Key Confusion 4.1 - x5c: [trusted, untrusted]": spoofed(map[string]any{"x5c": []string{"AAAA", x5c}}),
		"Key Confusion 4.2 - x5c: [untrusted, trusted]": spoofed(map[string]any{"x5c": []string{x5c, "AAAA"}}),
		"Key Confusion 5 - kid Spoofing (kid: URI)":     spoofed(map[string]any{"kid": set}, "kid"),
		"Key Confusion 5.1 - kid Spoofing (kid: jwk)":   spoofed(map[string]any{"kid": jwk()}, "kid"),

		"Key Confusion 7.1 - MAC from PKCS1 RSA Key 1":  mac(pkcs1),
		"Key Confusion 7.2 - MAC from PKCS1 RSA Key 2":  mac(pkcs1, bare),
		"Key Confusion 7.3 - MAC from PKCS1 RSA Key 3":  mac(pkcs1, oneLine),
		"Key Confusion 7.4 - MAC from PKCS1 RSA Key 4":  mac(pkcs1, bare, oneLine),
		"Key Confusion 7.5 - MAC from PKCS1 RSA Key 5":  mac(pkcs1, lineMore),
		"Key Confusion 7.6 - MAC from PKCS1 RSA Key 6":  mac(pkcs1, long),
		"Key Confusion 7.7 - MAC from PKCS1 RSA Key 7":  mac(pkcs1, long, bare),
		"Key Confusion 7.8 - MAC from PKCS1 RSA Key 8":  mac(pkcs1, long, strings.TrimSpace),
		"Key Confusion 7.9 - MAC from PKCS1 RSA Key 9":  mac(asn1),
		"Key Confusion 7.10 - MAC from PKCS8 RSA Key 1": mac(pkcs8, bare, oneLine),
		"Key Confusion 7.11 - MAC from PKCS8 RSA Key 2": mac(pkcs8, oneLine),
		"Key Confusion 7.12 - MAC from PKCS8 RSA Key 3": mac(pkcs8, bare),
		"Key Confusion 7.13 - MAC from PKCS8 RSA Key 4": mac(pkcs8, strings.TrimSpace),
		"Key Confusion 7.14 - MAC from PKCS8 RSA Key 5": mac(pkcs8),
		"Key Confusion 9 - MAC using public Exponent":   field("e"),
		"Key Confusion 10 - MAC using RSA Modulus":      field("n"),
		"Key Confusion 11 - MAC using kty JWK field":    field("kty"),
		"Key Confusion 12 - MAC using alg JWK field":    field("alg"),
		"Key Confusion 13 - MAC using JWK JSONString": mac(func(k *rsa.PublicKey) string {
			return mustJSON(t, publicFields(k))
		}),
		"Key Confusion 8 - Spoofed MAC Key": {fails: identity.Rejected, faults: []testenv.Fault{announcesHS256,
			{Endpoint: testenv.Token, Resign: func(p *demo.Provider, h, c map[string]any) (string, error) {
				secret := []byte("a key that the token brings along")
				h["crit"], h["kid"] = []string{"jwk"}, "mac"
				h["jwk"] = map[string]any{"kty": "oct", "kid": "mac", "k": base64.RawURLEncoding.EncodeToString(secret)}
				return testenv.SignedHS256(secret)(p, h, c)
			}}}},

		"Replay Attack 1": {faults: claims(with("exp", in(-24*time.Hour))).faults, fails: identity.ClockSkew},
		"Replay Attack 2": {faults: claims(with("exp", in(-365*24*time.Hour))).faults, fails: identity.ClockSkew},
		"Replay Attack 3": {faults: claims(with("iat", in(24*time.Hour))).faults, fails: identity.ClockSkew},
		"Replay Attack 4": {faults: claims(with("iat", in(365*24*time.Hour))).faults, fails: identity.ClockSkew},
		"Replay Attack 5": claims(with("nonce", "constant")),
		"Replay Attack 6": claims(without("nonce")),

		"Signature Manipulation 1": token(testenv.Fault{Resign: mangled(func(tok string) string {
			return tok[:strings.LastIndex(tok, ".")+1] + strings.Repeat("A", 342)
		})}),
		"Signature Manipulation 2": token(testenv.Fault{Resign: none("none", "AAAA")}),
		"Signature Manipulation 3": token(testenv.Fault{Resign: none("none", "")}),
		"Signature Manipulation 4": token(testenv.Fault{Resign: none("NoNe", "")}),

		"TRC 1": claims(without("aud")),
		"TRC 2": claims(with("aud", "invalid")),
		"TRC 3": claims(with("aud", "client-at-the-honest-provider")),

		"Token Substitution - AccessToken": {faults: claims(with("at_hash", "AAAAAAAAAAAAAAAAAAAAAA")).faults,
			userinfo: true, fails: identity.Rejected},
	} {
		t.Run(name, func(t *testing.T) {
			w.use(func(o *Options) {
				if tt.userinfo {
					o.IdentityFrom = FromUserinfo
				}
			})
			w.op.Set(tt.faults...)
			asked := w.op.Hits(testenv.Userinfo)
			who, err := w.signIn("mira", identity.AuthParams{})
			switch {
			case tt.fails != "":
				w.failed(err, tt.fails)
			case err != nil || who.ID() != tt.as:
				t.Errorf("signed in as %q: %v", who.ID(), err)
			}
			if n := w.op.Hits(testenv.Userinfo) - asked; n != 0 && strings.HasPrefix(name, "Token Substitution") {
				t.Errorf("the access token was used %d times", n)
			}
		})
	}
	if n := len(attacker.Requests()); n != 0 {
		t.Errorf("%d requests to where tokens pointed", n)
	}
	w.use()
	w.op.Set(announcesHS256)
	w.want() // the provider itself is good, whatever it announces
}

// announcesHS256 is a provider that says that it signs with what it shares with clients.
var announcesHS256 = testenv.Fault{Endpoint: testenv.Discovery,
	JSON: testenv.With("id_token_signing_alg_values_supported", []string{"RS256", "HS256"})}

// pkcs1 and pkcs8 are the provider's public key in PEM, asn1 is what PEM encodes.
func pkcs1(k *rsa.PublicKey) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(k)}))
}

func asn1(k *rsa.PublicKey) string { return string(x509.MarshalPKCS1PublicKey(k)) }

func pkcs8(k *rsa.PublicKey) string {
	der, _ := x509.MarshalPKIXPublicKey(k) // of an RSA key it does not fail
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// bare is PEM without its first and last line, oneLine without line breaks, and long with
// one line between its first and last.
func bare(text string) string {
	lines := strings.SplitAfter(strings.TrimSpace(text), "\n")
	return strings.Join(lines[1:len(lines)-1], "")
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "") }

func lineMore(text string) string { return text + "\n" }

func long(text string) string {
	lines := strings.SplitAfter(text, "\n")
	return lines[0] + oneLine(bare(text)) + "\n" + lines[len(lines)-2]
}

func publicFields(k *rsa.PublicKey) map[string]string {
	return map[string]string{"kty": "RSA", "alg": "RS256", "e": "AQAB",
		"n": base64.RawURLEncoding.EncodeToString(k.N.Bytes())}
}

// none is a token that says that it needs no signature.
func none(alg, signature string) testenv.Signer {
	return func(_ *demo.Provider, header, claims map[string]any) (string, error) {
		header["alg"] = alg
		h, err1 := json.Marshal(header)
		c, err2 := json.Marshal(claims)
		b64 := base64.RawURLEncoding
		return b64.EncodeToString(h) + "." + b64.EncodeToString(c) + "." + signature, errors.Join(err1, err2)
	}
}
