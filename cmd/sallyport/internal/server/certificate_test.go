package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// followForTest is the certificate of a configuration that names the files, and what it logs.
func followForTest(t *testing.T, f *testenv.TLSFiles) (*Certificate, *bytes.Buffer) {
	t.Helper()
	cfg, faults := config.Parse("c.yaml", []byte("version: 1\npublic_url: https://app.example.com\n"+
		"listen: {https: {address: \":0\", cert: \"file:"+f.Path("tls.crt")+"\", key: \"file:"+f.Path("tls.key")+"\"}, admin: \"\"}\n"+
		"session: {keys: [\"literal:"+session.NewKey(time.Unix(1.7e9, 0)).Text()+"\"]}\n"+
		"providers: [{id: a, type: oidc, issuer: \"https://idp.example\", client_id: a, client_secret: "+
		"\"literal:0123456789abcdef\"}]\nroutes: [{name: app, path: /, upstream: \"http://127.0.0.1:1\", allow: "+
		"authenticated}]\n"))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if _, err := assemble.Resolve(cfg, func(string) (string, bool) { return "", false }); err != nil {
		t.Fatal(err)
	}
	https, root, log := cfg.Listen.HTTPS, os.DirFS("/"), &bytes.Buffer{}
	reread := func() (string, string, error) {
		cert, certErr := https.Cert.Reread(root)
		key, keyErr := https.Key.Reread(root)
		return cert, key, errors.Join(certErr, keyErr)
	}
	c, err := NewCertificate("listen.https", https.Cert.Value(), https.Key.Value(), reread, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return c, log
}

// TestTheCertificateFollowsItsFiles: each step changes the files; the certificate
// that is served and what is logged follow, and nothing is logged twice.
func TestTheCertificateFollowsItsFiles(t *testing.T) {
	day := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	a, b, c := testenv.NewKeyPair(t, "a", day), testenv.NewKeyPair(t, "b", day.AddDate(0, 0, 1)),
		testenv.NewKeyPair(t, "c", day.AddDate(0, 0, 2))
	f := &testenv.TLSFiles{T: t, Dir: t.TempDir()}
	f.Swap(a)
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
		{"Kubernetes swaps links", func() { f.Swap(b) }, "b", taken + "2030-01-02T00:00:00.000Z"},
		{"the same content again", func() { f.Swap(b) }, "b", ""},
		{"the certificate is new, its key not yet", func() { f.Write("tls.crt", c.Cert, 0o600) }, "b",
			kept + `tls: private key does not match public key" not_after=2030-01-02T00:00:00.000Z`},
		{"still", func() {}, "b", ""},
		{"now the key too", func() { f.Write("tls.key", c.Key, 0o600) }, "c", taken + "2030-01-03T00:00:00.000Z"},
		{"half a certificate", func() { f.Write("tls.crt", a.Cert[:len(a.Cert)/2], 0o600) }, "c",
			kept + "tls: failed to find any PEM data in certificate input"},
		{"empty", func() { f.Write("tls.crt", "", 0o600) }, "c", kept + "file " + f.Path("tls.crt") + " is empty"},
		{"gone", func() { f.Must(os.Remove(f.Path("tls.crt"))) }, "c",
			kept + "file " + f.Path("tls.crt") + " does not exist"},
		{"gone still", func() {}, "c", ""},
		{"the old one is back", func() { f.Write("tls.crt", c.Cert, 0o600) }, "c", taken},
		// security: what is refused at the start is refused later.
		{"a key that everybody can read", func() {
			f.Write("tls.crt", a.Cert, 0o600)
			f.Write("tls.key", a.Key,
				0o644)
		}, "c", kept + "everybody on this machine can read file"},
		{"mended", func() { f.Must(os.Chmod(f.Path("tls.key"), 0o600)) }, "a", taken + "2030-01-01T00:00:00.000Z"},
	} {
		log.Reset()
		step.change()
		cert.refresh()
		got, err := cert.Config().GetCertificate(nil)
		if err != nil || got.Leaf.Subject.CommonName != step.serves {
			t.Errorf("%s: it serves %v, %v; want %s", step.name, got.Leaf.Subject, err, step.serves)
		}
		if lines := strings.Count(log.String(), "\n"); !strings.Contains(log.String(), step.says) ||
			(lines > 0) != (step.says != "") || lines > 1 {
			t.Errorf("%s: it says %q, want %q", step.name, log, step.says)
		}
		for _, secret := range []string{a.Key, b.Key, c.Key} {
			if strings.Contains(log.String(), strings.Split(secret, "\n")[1]) {
				t.Errorf("%s: a key is in the log", step.name)
			}
		}
	}
}

// TestANewCertificateIsServedWithoutARestart, to new connections, while an open one goes on.
func TestANewCertificateIsServedWithoutARestart(t *testing.T) {
	f := &testenv.TLSFiles{T: t, Dir: t.TempDir()}
	f.Swap(testenv.NewKeyPair(t, "old.example", time.Now().Add(time.Hour)))
	cert, _ := followForTest(t, f)
	cert.log = slog.New(slog.DiscardHandler)
	reg := prometheus.NewRegistry()
	reg.MustRegister(Certificates{cert})
	ctx, end := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() { cert.Watch(ctx, time.Millisecond); close(watched) }()

	l := listenForTest(t)
	srv := NewPublicHTTP(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_,
			_ = io.WriteString(w, "ok")
	}), usualLimits, cert.log)
	defer srv.Close()
	go func() { _ = srv.Serve(tls.NewListener(l, cert.Config())) }()
	served := func() string {
		c := open(t, overTLS("http/1.1"), l.Addr().String()).(*tls.Conn)
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := served(); got != "old.example" {
		t.Fatalf("it begins with %s", got)
	}
	before := open(t, overTLS("http/1.1"), l.Addr().String())
	notAfter := time.Now().Add(2 * time.Hour).Truncate(time.Second)
	f.Swap(testenv.NewKeyPair(t, "new.example", notAfter))
	testenv.Eventually(t, "the new certificate", func() bool { return served() == "new.example" })
	if _, err := exchange(before, bufio.NewReader(before), "", ""); err != nil &&
		!strings.Contains(err.Error(), "answer") {
		t.Errorf("a connection from before: %v", err)
	}
	want := "sallyport_tls_certificate_not_after_seconds{listener=\"listen.https\"} " + sample(notAfter.Unix())
	if got := scrape(t, reg); !strings.Contains(got, want) {
		t.Errorf("no %q in\n%s", want, got)
	}
	end()
	<-watched
}

// TestOnlyAuthenticatedEncryptionIsOffered: every suite of TLS 1.2 that Go knows is
// offered alone, and so are the versions before it.
func TestOnlyAuthenticatedEncryptionIsOffered(t *testing.T) {
	c := &Certificate{}
	c.current.Store(testenv.NewKeyPair(t, "suites.example", time.Now().Add(time.Hour)).TLS(t))
	l := listenForTest(t)
	srv := NewPublicHTTP(http.NotFoundHandler(), usualLimits, slog.New(slog.DiscardHandler))
	defer srv.Close()
	go func() { _ = srv.Serve(tls.NewListener(l, c.Config())) }()
	agreed := func(version uint16, suites ...uint16) bool {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, MinVersion: version,
			MaxVersion: version, CipherSuites: suites})
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
		want := strings.Contains(suite.Name, "_ECDHE_ECDSA_") &&
			(strings.Contains(suite.Name, "GCM") || strings.Contains(suite.Name, "POLY1305"))
		if want {
			authenticated++
		}
		if got := agreed(tls.VersionTLS12, suite.ID); got != want { // the certificate is of ECDSA
			t.Errorf("%s: agreed %v, want %v", suite.Name, got, want)
		}
	}
	if authenticated != 3 || !agreed(tls.VersionTLS13) || agreed(tls.VersionTLS11) || agreed(tls.VersionTLS10) {
		t.Errorf("%d authenticated suites; TLS 1.3: %v, 1.1: %v, 1.0: %v", authenticated, agreed(tls.VersionTLS13),
			agreed(tls.VersionTLS11), agreed(tls.VersionTLS10))
	}
}

// TestP17_AClientThatSaysNothingIsCut at each stage at which it could stall. The
// time is ReadHeaderTimeout, shortened; net/http has its own for the beginning of
// HTTP/2, 10 s at most. Nothing else would cut it before KeepAlive is over.
func TestP17_AClientThatSaysNothingIsCut(t *testing.T) {
	t.Parallel()
	pair := testenv.NewKeyPair(t, "cut.example", time.Now().Add(time.Hour)).TLS(t)
	for name, tt := range map[string]struct {
		dial  dialFunc
		says  string
		tls   bool
		bound time.Duration // far from the time
	}{
		"nothing":                        {dialPlain, "", false, 8 * time.Second},
		"half a head":                    {dialPlain, "GET / HTTP/1.1\r\nHo", false, 8 * time.Second},
		"half a preface of HTTP/2":       {dialPlain, "PRI * HTTP/2.0\r\n\r\nS", false, 8 * time.Second},
		"no handshake":                   {dialPlain, "", true, 8 * time.Second},
		"half a handshake":               {dialPlain, "\x16\x03\x01\x02\x00\x01", true, 8 * time.Second},
		"a handshake and nothing":        {overTLS("http/1.1"), "", true, 8 * time.Second},
		"a preface and no SETTINGS":      {dialPlain, http2Preface, false, time.Minute},
		"a handshake and no HTTP/2":      {overTLS("h2"), "", true, time.Minute},
		"HTTP/2, a preface, no SETTINGS": {overTLS("h2"), http2Preface, true, time.Minute},
		"a preface and half a SETTINGS":  {dialPlain, http2Preface + "\x00\x00\x06\x04", false, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := listenForTest(t)
			srv := NewPublicHTTP(http.NotFoundHandler(), limitsWith(true), slog.New(slog.DiscardHandler))
			srv.ReadHeaderTimeout = 200 * time.Millisecond
			defer srv.Close()
			var front net.Listener = l
			if tt.tls {
				c := &Certificate{}
				c.current.Store(pair)
				srv.TLSConfig = c.Config()
				front = tls.NewListener(l, srv.TLSConfig)
			}
			go func() { _ = srv.Serve(front) }()
			c := open(t, tt.dial, l.Addr().String())
			if _, err := io.WriteString(c, tt.says); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_ = c.SetReadDeadline(start.Add(tt.bound))
			_, err := io.Copy(io.Discard, c)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("it was not cut within %s", tt.bound)
			} else {
				t.Logf("cut after %s", time.Since(start).Round(10*time.Millisecond))
			}
		})
	}
}

// sample is a value as a metric has it: no more digits than it takes.
func sample(n int64) string { return strconv.FormatFloat(float64(n), 'g', -1, 64) }

// TestACertificateThatClientsRefuseIsWarnedOf at the start and when it comes in place of another.
func TestACertificateThatClientsRefuseIsWarnedOf(t *testing.T) {
	f := &testenv.TLSFiles{T: t, Dir: t.TempDir()}
	f.Swap(testenv.NewKeyPair(t, "a", time.Now().Add(-time.Hour)))
	c, log := followForTest(t, f)
	if want := "level=WARN msg=\"listen.https: the certificate expired at "; !strings.Contains(log.String(), want) {
		t.Errorf("it says %q, want %q", log, want)
	}
	log.Reset()
	f.Swap(testenv.NewKeyPair(t, "a", time.Now().AddDate(11, 0, 0)))
	c.refresh()
	if want := "level=WARN msg=\"listen.https: the certificate is valid only from "; !strings.Contains(log.String(),
		want) {
		t.Errorf("it says %q, want %q", log, want)
	}
	log.Reset()
	f.Swap(testenv.NewKeyPair(t, "a", time.Now().Add(time.Hour)))
	if c.refresh(); strings.Contains(log.String(), "WARN") {
		t.Errorf("one that is valid: %q", log)
	}
}
