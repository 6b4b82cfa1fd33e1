package testenv

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// KeyPair is a certificate for one name that signs itself, and its key.
type KeyPair struct{ Cert, Key string }

// NewKeyPair makes one that is valid until notAfter.
func NewKeyPair(t TB, name string, notAfter time.Time) KeyPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("%v", err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		DNSNames: []string{name}, NotBefore: notAfter.AddDate(-10, 0, 0), NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatalf("%v", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatalf("%v", err)
	}
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return KeyPair{encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER)}
}

// TLS returns the pair for crypto/tls.
func (p KeyPair) TLS(t TB) *tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(p.Cert), []byte(p.Key))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return &pair
}

// TLSFiles is a directory like that of a secret in Kubernetes: tls.crt and tls.key are links
// through ..data, which is swapped.
type TLSFiles struct {
	T   TB
	Dir string
	n   int
}

// Path returns the path of a file.
func (f *TLSFiles) Path(name string) string { return filepath.Join(f.Dir, name) }

// Swap replaces the files by a new version, as a kubelet does.
func (f *TLSFiles) Swap(p KeyPair) {
	f.T.Helper()
	f.n++
	version := fmt.Sprintf("..%d", f.n)
	f.Must(os.Mkdir(f.Path(version), 0o755))
	f.Must(os.WriteFile(f.Path(version+"/tls.crt"), []byte(p.Cert), 0o600))
	f.Must(os.WriteFile(f.Path(version+"/tls.key"), []byte(p.Key), 0o600))
	f.Must(os.Symlink(version, f.Path("..new")))
	f.Must(os.Rename(f.Path("..new"), f.Path("..data")))
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink("..data/"+name, f.Path(name)); err != nil && !errors.Is(err, fs.ErrExist) {
			f.T.Fatalf("%v", err)
		}
	}
}

// Write writes text in place of a link or a file, as it is where no links are used.
func (f *TLSFiles) Write(name, text string, mode fs.FileMode) {
	f.T.Helper()
	_ = os.Remove(f.Path(name))
	f.Must(os.WriteFile(f.Path(name), []byte(text), mode))
}

// Must fails the test if there is an error.
func (f *TLSFiles) Must(err error) {
	f.T.Helper()
	if err != nil {
		f.T.Fatalf("%v", err)
	}
}
