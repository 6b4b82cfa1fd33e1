package testenv

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/sallyport-proxy/sallyport/internal/demo"
)

// Signer makes an ID token from the header and the claims of a good one.
type Signer func(p *demo.Provider, header, claims map[string]any) (string, error)

// SignedAgain signs with the current key, as the provider would.
func SignedAgain(p *demo.Provider, header, claims map[string]any) (string, error) {
	delete(header, "kid") // Sign knows the current one
	return p.Sign(header, claims)
}

// Unsigned makes a token with alg: none (RFC 8725 §3.1).
func Unsigned(_ *demo.Provider, header, claims map[string]any) (string, error) {
	header["alg"] = "none"
	return assemble(header, claims, func(string) ([]byte, error) { return nil, nil })
}

// SignedWithPublicKey signs with HS256. The secret is the public key in PEM, which everybody
// knows (RFC 8725 §2.1).
func SignedWithPublicKey(p *demo.Provider, header, claims map[string]any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(p.PublicJWKS().Keys[0].Key)
	if err != nil {
		return "", fmt.Errorf("encode the public key: %w", err)
	}
	return SignedHS256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))(p, header, claims)
}

// SignedHS256 signs with a shared secret, such as the client's.
func SignedHS256(secret []byte) Signer {
	return func(_ *demo.Provider, header, claims map[string]any) (string, error) {
		header["alg"] = "HS256"
		return assemble(header, claims, func(signed string) ([]byte, error) {
			mac := hmac.New(sha256.New, secret)
			mac.Write([]byte(signed))
			return mac.Sum(nil), nil
		})
	}
}

// SignedByStranger signs with another key, under the key id of the current one.
func SignedByStranger(_ *demo.Provider, header, claims map[string]any) (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	return assemble(header, claims, func(signed string) ([]byte, error) {
		digest := sha256.Sum256([]byte(signed))
		return rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
	})
}

// WithKid signs with the current key under another key id; "" leaves the key id out.
func WithKid(kid string) Signer {
	return func(p *demo.Provider, header, claims map[string]any) (string, error) {
		if header["kid"] = kid; kid == "" {
			header["kid"] = nil
		}
		return p.Sign(header, claims)
	}
}

// MoreKeys changes a key set: two other keys, RSA and EC, come before the provider's.
func MoreKeys(set map[string]any) {
	keys, _ := set["keys"].([]any)
	set["keys"] = append([]any{strangerRSA(), strangerEC()}, keys...)
}

// NamelessKeys changes a key set: no key has a key id.
func NamelessKeys(set map[string]any) {
	keys, _ := set["keys"].([]any)
	for _, key := range keys {
		if k, ok := key.(map[string]any); ok {
			delete(k, "kid")
		}
	}
}

// The strangers are the example keys of RFC 7517, appendix A.1.
func strangerRSA() map[string]any {
	return map[string]any{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "stranger-rsa", "e": "AQAB",
		"n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWK" +
			"RXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMic" +
			"AtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3" +
			"XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}
}

func strangerEC() map[string]any {
	return map[string]any{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "stranger-ec",
		"x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}
}

func assemble(header, claims map[string]any, sign func(string) ([]byte, error)) (string, error) {
	h, err := json.Marshal(header)
	if err != nil {
		return "", fmt.Errorf("encode the header: %w", err)
	}
	c, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode the claims: %w", err)
	}
	signed := b64(h) + "." + b64(c)
	sig, err := sign(signed)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return signed + "." + b64(sig), nil
}

func parseJWT(token string) (header, claims map[string]any, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, nil, errors.New("the answer holds no ID token")
	}
	for i, into := range []*map[string]any{&header, &claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			return nil, nil, fmt.Errorf("decode the ID token: %w", err)
		}
		if err := decode(raw, into); err != nil {
			return nil, nil, fmt.Errorf("decode the ID token: %w", err)
		}
	}
	return header, claims, nil
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
