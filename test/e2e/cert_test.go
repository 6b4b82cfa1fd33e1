package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// publicHost is a name that the browser resolves to loopback.
const publicHost = "app.example.test"

// Two more such names, on the same domain and on another one.
const (
	sibling   = "files.example.test"
	otherSite = "wiki.other.test"
)

// certificate is a self-signed one for publicHost, its neighbours and localhost. Nothing is told to ignore
// certificate errors: the browser trusts this one key, by its hash.
type certificate struct {
	certFile, keyFile string
	spki              string // base64 of the SHA-256 of the public key
	pool              *x509.CertPool
}

func newCertificate(dir string) (certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: publicHost},
		DNSNames:  []string{publicHost, "*.example.test", otherSite, "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return certificate{}, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return certificate{}, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return certificate{}, err
	}
	sum := sha256.Sum256(parsed.RawSubjectPublicKeyInfo)
	c := certificate{
		certFile: filepath.Join(dir, "tls.crt"), keyFile: filepath.Join(dir, "tls.key"),
		spki: base64.StdEncoding.EncodeToString(sum[:]), pool: x509.NewCertPool(),
	}
	c.pool.AddCert(parsed)
	if err := os.WriteFile(c.certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		0o600); err != nil {
		return certificate{}, err
	}
	return c, os.WriteFile(c.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600)
}
