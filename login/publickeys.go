package login

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

const minSecret = 32 // bytes; RFC 7518 §3.2: as long as the hash

// takeKeys reads the keys that the options give.
func (p *Provider) takeKeys(o Options) error {
	if p.dialect.secretSigns {
		p.given = []signingKey{{JSONWebKey: jose.JSONWebKey{Key: []byte(o.ClientSecret)}}}
		return nil
	}
	for i, text := range o.PublicKeys {
		keys, err := parsePublicKeys([]byte(text))
		if err != nil {
			return fmt.Errorf("public_keys[%d]: %w", i, err)
		}
		p.given = append(p.given, keys...)
	}
	return nil
}

// givenAlgs: a secret signs HS256 and nothing else, a public key never that.
func (p *Provider) givenAlgs() []jose.SignatureAlgorithm {
	if p.dialect.secretSigns {
		return []jose.SignatureAlgorithm{jose.HS256}
	}
	return accepted()
}

// CheckPublicKeys reports what keeps a text from being PEM of public keys.
func CheckPublicKeys(text string) error {
	_, err := parsePublicKeys([]byte(text))
	return err
}

// parsePublicKeys reads PEM: public keys and certificates, one or several for a
// rollover. Of a certificate only the key counts: the operator vouches for it by
// giving it, not who issued it, nor until when.
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
		return nil, errors.New("must be public keys, and this is a private one: whoever has it signs in as anybody")
	}
	return nil, errors.New("must be public keys or certificates in PEM")
}

// readable leaves out the parser's words, which are about bytes.
func readable[K any](key K, err error) (any, error) {
	if err != nil {
		return nil, errors.New("must be public keys or certificates in PEM, and one of them cannot be read")
	}
	return key, nil
}

// algorithmsOf are those that the key may have signed with.
func algorithmsOf(k signingKey) []jose.SignatureAlgorithm {
	var fit []jose.SignatureAlgorithm
	for _, alg := range accepted() {
		if fits(k.JSONWebKey, string(alg)) {
			fit = append(fit, alg)
		}
	}
	return fit
}
