package login

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

const minSecret = 32 // bytes; RFC 7518 §3.2: at least as long as the hash

// readConfiguredKeys reads the keys that the configuration has for this provider.
func (p *Provider) readConfiguredKeys(o Options) error {
	if p.dialect.secretSigns {
		p.configuredKeys = []signingKey{{JSONWebKey: jose.JSONWebKey{Key: []byte(o.ClientSecret)}}}
		return nil
	}
	for i, text := range o.PublicKeys {
		keys, err := parsePublicKeys([]byte(text))
		if err != nil {
			return fmt.Errorf("public_keys[%d]: %w", i, err)
		}
		p.configuredKeys = append(p.configuredKeys, keys...)
	}
	return nil
}

// configuredAlgs returns the algorithms that go with the configured keys. A client secret is
// for HS256 only, and a public key must never be used with it.
func (p *Provider) configuredAlgs() []jose.SignatureAlgorithm {
	if p.dialect.secretSigns {
		return []jose.SignatureAlgorithm{jose.HS256}
	}
	return accepted()
}

// CheckPublicKeys reports why a text is not public keys in PEM.
func CheckPublicKeys(text string) error {
	_, err := parsePublicKeys([]byte(text))
	return err
}

// parsePublicKeys reads PEM with public keys and certificates; there are several while a
// provider changes its key. Of a certificate only the key is used. Its issuer and its end
// are not checked: the key is trusted because the operator has configured it.
func parsePublicKeys(text []byte) ([]signingKey, error) {
	var keys []signingKey
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		key, err := publicKey(block)
		if err != nil {
			return nil, err
		}
		k := signingKey{JSONWebKey: jose.JSONWebKey{Key: key}}
		if weak(key) || len(algorithmsOf(k)) == 0 {
			return nil, errors.New("must be RSA keys of at least 2048 bits, or keys on P-256, P-384, P-521 or Ed25519")
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("must be public keys or certificates in PEM")
	}
	return keys, nil
}

func publicKey(block *pem.Block) (any, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return readable(x509.ParsePKIXPublicKey(block.Bytes))
	case "RSA PUBLIC KEY":
		return readable(x509.ParsePKCS1PublicKey(block.Bytes))
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return readable[any](nil, err)
		}
		return c.PublicKey, nil
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("must be public keys, and this is a private one: " +
			"anybody who has it can sign in as anybody")
	}
	return nil, errors.New("must be public keys or certificates in PEM")
}

// readable replaces the parser's error, which speaks of ASN.1, by a plain one.
func readable[K any](key K, err error) (any, error) {
	if err != nil {
		return nil, errors.New("must be public keys or certificates in PEM, and one of them cannot be read")
	}
	return key, nil
}

// algorithmsOf returns the algorithms that the key can be used with.
func algorithmsOf(k signingKey) []jose.SignatureAlgorithm {
	var fit []jose.SignatureAlgorithm
	for _, alg := range accepted() {
		if fits(k.JSONWebKey, string(alg)) {
			fit = append(fit, alg)
		}
	}
	return fit
}
