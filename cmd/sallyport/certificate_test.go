package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/asynclog"
	"github.com/sallyport-proxy/sallyport/session"
)

// pemPair is a certificate for one name that signs itself, and its key.
type pemPair struct{ cert, key string }

func newPair(t *testing.T, name string, notAfter time.Time) pemPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: notAfter.Add(-time.Hour * 24), NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return pemPair{encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER)}
}

func (p pemPair) tls(t *testing.T) *tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(p.cert), []byte(p.key))
	if err != nil {
		t.Fatal(err)
	}
	return &pair
}

// tlsFiles is a directory as Kubernetes mounts a secret: tls.crt and tls.key are
// links through ..data, which is swapped.
type tlsFiles struct {
	t   *testing.T
	dir string
	n   int
}

func (f *tlsFiles) path(name string) string { return filepath.Join(f.dir, name) }

// swap mounts a new version, as a kubelet does.
func (f *tlsFiles) swap(p pemPair) {
	f.t.Helper()
	f.n++
	version := fmt.Sprintf("..%d", f.n)
	f.must(os.Mkdir(f.path(version), 0o755))
	f.must(os.WriteFile(f.path(version+"/tls.crt"), []byte(p.cert), 0o600))
	f.must(os.WriteFile(f.path(version+"/tls.key"), []byte(p.key), 0o600))
	f.must(os.Symlink(version, f.path("..new")))
	f.must(os.Rename(f.path("..new"), f.path("..data")))
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink("..data/"+name, f.path(name)); err != nil && !errors.Is(err, fs.ErrExist) {
			f.t.Fatal(err)
		}
	}
}

// write puts text where a link or a file is, for those who have no links.
func (f *tlsFiles) write(name, text string, mode fs.FileMode) {
	f.t.Helper()
	_ = os.Remove(f.path(name))
	f.must(os.WriteFile(f.path(name), []byte(text), mode))
}

func (f *tlsFiles) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// config has https at one address and the admin listener at another, "" for none.
func (f *tlsFiles) config(https, admin string) []byte {
	return []byte("version: 1\npublic_url: https://app.example.com\n" +
		"listen: {https: {address: \"" + https + "\", cert: \"file:" + f.path("tls.crt") + "\", key: \"file:" + f.path("tls.key") + "\"}, admin: \"" + admin + "\"}\n" +
		"session: {keys: [\"literal:" + session.NewKey(time.Unix(1.7e9, 0)).Text() + "\"]}\n" +
		"providers: [{id: a, type: oidc, issuer: \"https://idp.example\", client_id: a, client_secret: \"literal:0123456789abcdef\"}]\n" +
		"routes: [{name: app, path: /, upstream: \"http://127.0.0.1:1\", allow: authenticated}]\n")
}

// followForTest is the certificate of a configuration that names the files, and what it logs.
func followForTest(t *testing.T, f *tlsFiles) (*certificate, *bytes.Buffer) {
	t.Helper()
	cfg, _, err := parseConfig("c.yaml", f.config(":0", ""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := assemble.Resolve(cfg, func(string) (string, bool) { return "", false }); err != nil {
		t.Fatal(err)
	}
	log := &bytes.Buffer{}
	c, err := newCertificate(cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return c, log
}

// TestTheCertificateFollowsItsFiles: each step changes the files; the certificate
// that is served and what is logged follow, and nothing is logged twice.
func TestTheCertificateFollowsItsFiles(t *testing.T) {
	day := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	a, b, c := newPair(t, "a", day), newPair(t, "b", day.AddDate(0, 0, 1)), newPair(t, "c", day.AddDate(0, 0, 2))
	f := &tlsFiles{t: t, dir: t.TempDir()}
	f.swap(a)
	cert, log := followForTest(t, f)
	const kept = `level=WARN msg="listen.https: the new certificate or key does not work; the old one stays in use" error="`
	const taken = `level=INFO msg="listen.https: a new certificate is in use" not_after=`
	for _, step := range []struct {
		name   string
		change func()
		serves string
		says   string // "" for nothing
	}{
		{"nothing has changed", func() {}, "a", ""},
		{"Kubernetes swaps links", func() { f.swap(b) }, "b", taken + "2030-01-02T00:00:00.000Z"},
		{"the same content again", func() { f.swap(b) }, "b", ""},
		{"the certificate is new, its key not yet", func() { f.write("tls.crt", c.cert, 0o600) }, "b", kept + `tls: private key does not match public key" not_after=2030-01-02T00:00:00.000Z`},
		{"still", func() {}, "b", ""},
		{"now the key too", func() { f.write("tls.key", c.key, 0o600) }, "c", taken + "2030-01-03T00:00:00.000Z"},
		{"half a certificate", func() { f.write("tls.crt", a.cert[:len(a.cert)/2], 0o600) }, "c", kept + "tls: failed to find any PEM data in certificate input"},
		{"empty", func() { f.write("tls.crt", "", 0o600) }, "c", kept + "file " + f.path("tls.crt") + " is empty"},
		{"gone", func() { f.must(os.Remove(f.path("tls.crt"))) }, "c", kept + "file " + f.path("tls.crt") + " does not exist"},
		{"gone still", func() {}, "c", ""},
		{"the old one is back", func() { f.write("tls.crt", c.cert, 0o600) }, "c", taken},
		// security: what is refused at the start is refused later.
		{"a key that everybody can read", func() { f.write("tls.crt", a.cert, 0o600); f.write("tls.key", a.key, 0o644) }, "c", kept + "everybody on this machine can read file"},
		{"mended", func() { f.must(os.Chmod(f.path("tls.key"), 0o600)) }, "a", taken + "2030-01-01T00:00:00.000Z"},
	} {
		log.Reset()
		step.change()
		cert.refresh()
		got, err := cert.config().GetCertificate(nil)
		if err != nil || got.Leaf.Subject.CommonName != step.serves {
			t.Errorf("%s: it serves %v, %v; want %s", step.name, got.Leaf.Subject, err, step.serves)
		}
		if lines := strings.Count(log.String(), "\n"); !strings.Contains(log.String(), step.says) || (lines > 0) != (step.says != "") || lines > 1 {
			t.Errorf("%s: it says %q, want %q", step.name, log, step.says)
		}
		for _, secret := range []string{a.key, b.key, c.key} {
			if strings.Contains(log.String(), strings.Split(secret, "\n")[1]) {
				t.Errorf("%s: a key is in the log", step.name)
			}
		}
	}
}

// TestANewCertificateIsServedWithoutARestart, to new connections, while an open one goes on.
func TestANewCertificateIsServedWithoutARestart(t *testing.T) {
	f := &tlsFiles{t: t, dir: t.TempDir()}
	f.swap(newPair(t, "old.example", time.Now().Add(time.Hour)))
	cert, _ := followForTest(t, f)
	cert.log = slog.New(slog.DiscardHandler)
	reg := prometheus.NewRegistry()
	cert.measure(reg)
	ctx, end := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() { cert.watch(ctx, time.Millisecond); close(watched) }()

	l := listenForTest(t)
	srv := newPublicServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }), usualLimits, cert.log)
	defer srv.Close()
	go func() { _ = srv.Serve(tls.NewListener(l, cert.config())) }()
	served := func() string {
		c := open(t, overTLS("http/1.1"), l.Addr().String()).(*tls.Conn)
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := served(); got != "old.example" {
		t.Fatalf("it begins with %s", got)
	}
	before := open(t, overTLS("http/1.1"), l.Addr().String())
	notAfter := time.Now().Add(2 * time.Hour).Truncate(time.Second)
	f.swap(newPair(t, "new.example", notAfter))
	waitFor(t, "the new certificate", func() bool { return served() == "new.example" })
	if _, err := exchange(before, bufio.NewReader(before), "", ""); err != nil && !strings.Contains(err.Error(), "answer") {
		t.Errorf("a connection from before: %v", err)
	}
	if got, want := scrape(t, reg), "sallyport_tls_certificate_not_after_seconds "+sample(notAfter.Unix()); !strings.Contains(got, want) {
		t.Errorf("no %q in\n%s", want, got)
	}
	end()
	<-watched
}

// TestServeFollowsItsCertificate is the same for the whole program: HTTP/2 on TLS,
// the new certificate at the next look, its end in the metrics.
func TestServeFollowsItsCertificate(t *testing.T) {
	t.Parallel() // it has to wait for the next look
	f := &tlsFiles{t: t, dir: t.TempDir()}
	f.swap(newPair(t, "old.example", time.Now().Add(time.Hour)))
	public, err := unusedAddress()
	f.must(err)
	admin, err := unusedAddress()
	f.must(err)
	cfg, _, err := parseConfig("c.yaml", f.config(public, admin))
	f.must(err)
	log := asynclog.Open(io.Discard, io.Discard, slog.LevelInfo, "json")
	defer log.Close()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, cfg, func(string) (string, bool) { return "", false }, log) }()
	served := func() string {
		c, err := overTLS("h2")(public)
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		state := c.(*tls.Conn).ConnectionState()
		return state.NegotiatedProtocol + " " + state.PeerCertificates[0].Subject.CommonName
	}
	waitFor(t, "the first certificate", func() bool { return served() == "h2 old.example" })
	notAfter := time.Now().Add(2 * time.Hour)
	f.swap(newPair(t, "new.example", notAfter))
	waitFor(t, "the new certificate", func() bool { return served() == "h2 new.example" })
	metrics := body("http://" + admin + "/metrics")
	if want := "\nsallyport_tls_certificate_not_after_seconds " + sample(notAfter.Unix()) + "\n"; !strings.Contains(metrics, want) {
		t.Errorf("no %q in\n%s", want, metrics)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestOnlyAuthenticatedEncryptionIsOffered: every suite of TLS 1.2 that Go knows is
// offered alone, and so are the versions before it.
func TestOnlyAuthenticatedEncryptionIsOffered(t *testing.T) {
	c := &certificate{}
	c.current.Store(newPair(t, "suites.example", time.Now().Add(time.Hour)).tls(t))
	l := listenForTest(t)
	srv := newPublicServer(http.NotFoundHandler(), usualLimits, slog.New(slog.DiscardHandler))
	defer srv.Close()
	go func() { _ = srv.Serve(tls.NewListener(l, c.config())) }()
	agreed := func(version uint16, suites ...uint16) bool {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, CipherSuites: suites})
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}
	authenticated := 0
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if !slices.Contains(suite.SupportedVersions, tls.VersionTLS12) {
			continue
		}
		want := strings.Contains(suite.Name, "_ECDHE_ECDSA_") && (strings.Contains(suite.Name, "GCM") || strings.Contains(suite.Name, "POLY1305"))
		if want {
			authenticated++
		}
		if got := agreed(tls.VersionTLS12, suite.ID); got != want { // the certificate is of ECDSA
			t.Errorf("%s: agreed %v, want %v", suite.Name, got, want)
		}
	}
	if authenticated != 3 || !agreed(tls.VersionTLS13) || agreed(tls.VersionTLS11) || agreed(tls.VersionTLS10) {
		t.Errorf("%d authenticated suites; TLS 1.3: %v, 1.1: %v, 1.0: %v", authenticated, agreed(tls.VersionTLS13), agreed(tls.VersionTLS11), agreed(tls.VersionTLS10))
	}
}

// TestP17_AClientThatSaysNothingIsCut at each stage at which it could stall. The
// time is ReadHeaderTimeout, shortened.
func TestP17_AClientThatSaysNothingIsCut(t *testing.T) {
	t.Parallel()
	pair := newPair(t, "cut.example", time.Now().Add(time.Hour)).tls(t)
	for name, tt := range map[string]struct {
		dial  dialFunc
		says  string
		tls   bool
		bound time.Duration
	}{
		"nothing":                        {dialPlain, "", false, time.Second},
		"half a head":                    {dialPlain, "GET / HTTP/1.1\r\nHo", false, time.Second},
		"half a preface of HTTP/2":       {dialPlain, "PRI * HTTP/2.0\r\n\r\nS", false, time.Second},
		"no handshake":                   {dialPlain, "", true, time.Second},
		"half a handshake":               {dialPlain, "\x16\x03\x01\x02\x00\x01", true, time.Second},
		"a handshake and nothing":        {overTLS("http/1.1"), "", true, time.Second},
		"a preface and no SETTINGS":      {dialPlain, http2Preface, false, 4 * time.Second},
		"a handshake and no HTTP/2":      {overTLS("h2"), "", true, 12 * time.Second},
		"HTTP/2, a preface, no SETTINGS": {overTLS("h2"), http2Preface, true, 4 * time.Second},
		"a preface and half a SETTINGS":  {dialPlain, http2Preface + "\x00\x00\x06\x04", false, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := listenForTest(t)
			srv := newPublicServer(http.NotFoundHandler(), limitsWith(true), slog.New(slog.DiscardHandler))
			srv.ReadHeaderTimeout = 200 * time.Millisecond
			defer srv.Close()
			var front net.Listener = l
			if tt.tls {
				c := &certificate{}
				c.current.Store(pair)
				srv.TLSConfig = c.config()
				front = tls.NewListener(l, srv.TLSConfig)
			}
			go func() { _ = srv.Serve(front) }()
			c := open(t, tt.dial, l.Addr().String())
			if _, err := io.WriteString(c, tt.says); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_ = c.SetReadDeadline(start.Add(30 * time.Second))
			_, err := io.Copy(io.Discard, c)
			if took := time.Since(start); errors.Is(err, os.ErrDeadlineExceeded) || took > tt.bound {
				t.Errorf("it was cut after %s: %v", took, err)
			} else {
				t.Logf("cut after %s", took.Round(10*time.Millisecond))
			}
		})
	}
}

// sample is a value as a metric has it: no more digits than it takes.
func sample(n int64) string { return strconv.FormatFloat(float64(n), 'g', -1, 64) }
