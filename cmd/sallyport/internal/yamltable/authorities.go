package yamltable

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
)

// CertPool reads PEM of certificates. x509's own reader passes over what it
// cannot read, and an authority that is missing is found out by a handshake.
func CertPool(text string) (*x509.CertPool, error) {
	pool, n := x509.NewCertPool(), 0
	for rest := []byte(text); ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("must be certificates in PEM and nothing else")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("must be certificates in PEM, and one of them cannot be read")
		}
		pool.AddCert(c)
	}
	if n == 0 {
		return nil, errors.New("must be certificates in PEM, and holds none")
	}
	return pool, nil
}

// Authorities are those who may vouch for a peer; nil is whom the system trusts,
// where r is zero.
func (r Ref) Authorities() *x509.CertPool {
	if r.IsZero() {
		return nil
	}
	pool, err := CertPool(r.Value())
	if err != nil {
		return x509.NewCertPool() // not after Resolve, which has judged it; trusts nobody
	}
	return pool
}
