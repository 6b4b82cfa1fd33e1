package demo

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

type signingKey struct {
	private *rsa.PrivateKey
	public  jose.JSONWebKey
}

func newSigningKey() (*signingKey, error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	public := jose.JSONWebKey{Key: &private.PublicKey, Use: "sig", Algorithm: string(jose.RS256)}
	print, err := public.Thumbprint(crypto.SHA256) // RFC 7638: a new key gets a new kid
	if err != nil {
		return nil, fmt.Errorf("name the signing key: %w", err)
	}
	public.KeyID = base64.RawURLEncoding.EncodeToString(print)
	return &signingKey{private, public}, nil
}

// Sign returns a JWT that the current key has signed with RS256, whatever header says. The
// entries of header replace those of {"alg":"RS256","typ":"JWT","kid":…}; a nil value
// removes an entry. Tests make faulty tokens with it.
func (p *Provider) Sign(header, claims map[string]any) (string, error) {
	return p.currentKey().sign(header, claims)
}

func (key *signingKey) sign(header, claims map[string]any) (string, error) {
	h := map[string]any{"alg": "RS256", "typ": "JWT", "kid": key.public.KeyID}
	for k, v := range header {
		if h[k] = v; v == nil {
			delete(h, k)
		}
	}
	rawHeader, err := json.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("encode the token header: %w", err)
	}
	rawClaims, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode the claims: %w", err)
	}
	signed := base64.RawURLEncoding.EncodeToString(rawHeader) + "." + base64.RawURLEncoding.EncodeToString(rawClaims)
	digest := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(nil, key.private, crypto.SHA256, digest[:])
	if err != nil {
		return "", fmt.Errorf("sign the token: %w", err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}

// RotateKeys makes a new key that signs from now on. The old one is removed from the JWKS
// at once; real providers keep it for a while.
func (p *Provider) RotateKeys() error {
	key, err := newSigningKey()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key = key
	return nil
}

// PublicJWKS returns what the jwks endpoint serves.
func (p *Provider) PublicJWKS() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{p.currentKey().public}}
}

// PublicPEM returns the current public key as a partner would hand it over.
func (p *Provider) PublicPEM() (string, error) {
	der, err := x509.MarshalPKIXPublicKey(&p.currentKey().private.PublicKey)
	if err != nil {
		return "", fmt.Errorf("encode the public key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

func (p *Provider) currentKey() *signingKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key
}
