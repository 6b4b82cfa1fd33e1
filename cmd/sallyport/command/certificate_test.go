package command

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/asynclog"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// httpsConfig has https at one address and the admin listener at another, "" for none.
func httpsConfig(f *testenv.TLSFiles, https, admin string) []byte {
	return []byte("version: 1\npublic_url: https://app.example.com\n" +
		"listen: {https: {address: \"" + https + "\", cert: \"file:" + f.Path("tls.crt") + "\", key: \"file:" +
		f.Path("tls.key") + "\"}, admin: \"" + admin + "\"}\n" +
		"session: {keys: [\"literal:" + session.NewKey(time.Unix(1.7e9, 0)).Text() + "\"]}\n" +
		"providers: [{id: a, type: oidc, issuer: \"https://idp.example\", client_id: a, client_secret: " +
		"\"literal:0123456789abcdef\"}]\n" +
		"routes: [{name: app, path: /, upstream: \"http://127.0.0.1:1\", allow: authenticated}]\n")
}

// TestServeFollowsItsCertificate is the same for the whole program: HTTP/2 on TLS,
// the new certificate at the next look, its end in the metrics, and that of every other listener.
func TestServeFollowsItsCertificate(t *testing.T) {
	t.Parallel() // it has to wait for the next look
	f := &testenv.TLSFiles{T: t, Dir: t.TempDir()}
	f.Swap(testenv.NewKeyPair(t, "old.example", time.Now().Add(time.Hour)))
	public, err := testenv.UnusedAddress()
	f.Must(err)
	admin, err := testenv.UnusedAddress()
	f.Must(err)
	asked := &testenv.TLSFiles{T: t, Dir: t.TempDir()} // by another proxy
	askedUntil := time.Now().Add(30 * time.Minute)
	asked.Swap(testenv.NewKeyPair(t, "asked.example", askedUntil))
	cfg, _, err := parseConfig("c.yaml", bytes.Replace(httpsConfig(f, public, admin), []byte("listen: {"),
		[]byte("listen: {external_auth: {address: \"127.0.0.1:0\", peers: [192.0.2.7], cert: \"file:"+
			asked.Path("tls.crt")+"\", key: \"file:"+asked.Path("tls.key")+"\"}, "), 1))
	f.Must(err)
	log := asynclog.Open(io.Discard, io.Discard, slog.LevelInfo, "json")
	defer log.Close()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, &console{env: func(string) (string, bool) { return "", false }}, cfg, log) }()
	served := func() string {
		c, err := tls.Dial("tcp", public, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		state := c.ConnectionState()
		return state.NegotiatedProtocol + " " + state.PeerCertificates[0].Subject.CommonName
	}
	testenv.Eventually(t, "the first certificate", func() bool { return served() == "h2 old.example" })
	notAfter := time.Now().Add(2 * time.Hour)
	f.Swap(testenv.NewKeyPair(t, "new.example", notAfter))
	testenv.Eventually(t, "the new certificate", func() bool { return served() == "h2 new.example" })
	metrics := testenv.BodyOf("http://" + admin + "/metrics")
	for listener, until := range map[string]time.Time{"listen.https": notAfter, "listen.external_auth": askedUntil} {
		if want := "\nsallyport_tls_certificate_not_after_seconds{listener=\"" + listener + "\"} " +
			strconv.FormatFloat(float64(until.Unix()), 'g', -1, 64) + "\n"; !strings.Contains(metrics, want) {
			t.Errorf("no %q in\n%s", want, metrics)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestCheckSaysWhatClientsHaveAgainstACertificate that works with its key: such a one is served,
// and everybody is refused by their browser.
func TestCheckSaysWhatClientsHaveAgainstACertificate(t *testing.T) {
	for _, tt := range []struct {
		name     string
		notAfter time.Time
		says     string
	}{
		{"app.example.com", time.Now().Add(time.Hour), ""},
		{"app.example.com", time.Now().Add(-time.Hour), "listen.https: the certificate expired at "},
		{"app.example.com", time.Now().AddDate(11, 0, 0), "listen.https: the certificate is valid only from "},
		{"old.example", time.Now().Add(time.Hour), "listen.https: the certificate is not for app.example.com: "},
	} {
		f := &testenv.TLSFiles{T: t, Dir: t.TempDir()}
		f.Swap(testenv.NewKeyPair(t, tt.name, tt.notAfter))
		path := filepath.Join(f.Dir, "c.yaml")
		f.Must(os.WriteFile(path, httpsConfig(f, "127.0.0.1:0", ""), 0o600))
		var stdout, stderr bytes.Buffer
		c := &console{stdout: &stdout, stderr: &stderr, env: func(string) (string, bool) { return "", false }}
		if code := run([]string{"check", "--values", path}, c); code != exitOK {
			t.Errorf("%+v: exit code %d: %s", tt, code, stderr.String())
		}
		if said := stderr.String(); !strings.Contains(said, tt.says) ||
			tt.says == "" && strings.Contains(said, "the certificate") {
			t.Errorf("%+v: %s", tt, said)
		}
	}
}

// TestACertificateOfAnotherKeyIsAFaultAtItsListener, at each of those that have one.
func TestACertificateOfAnotherKeyIsAFaultAtItsListener(t *testing.T) {
	f := &testenv.TLSFiles{T: t, Dir: t.TempDir()}
	pair := testenv.NewKeyPair(t, "app.example.com", time.Now().Add(time.Hour))
	pair.Key = testenv.NewKeyPair(t, "app.example.com", time.Now().Add(time.Hour)).Key
	f.Swap(pair)
	files := "cert: \"file:" + f.Path("tls.crt") + "\", key: \"file:" + f.Path("tls.key") + "\"}"
	for listener, listen := range map[string]string{
		"listen.https":         "https: {address: \"127.0.0.1:0\", " + files,
		"listen.external_auth": "external_auth: {address: \"127.0.0.1:0\", peers: [192.0.2.7], " + files,
	} {
		path := filepath.Join(f.Dir, "c.yaml")
		good := string(httpsConfig(f, "", ""))
		from, to := strings.Index(good, "listen:"), strings.Index(good, "session:")
		f.Must(os.WriteFile(path, []byte(good[:from]+"listen: {"+listen+"}\n"+good[to:]), 0o600))
		var stdout, stderr bytes.Buffer
		c := &console{stdout: &stdout, stderr: &stderr, env: func(string) (string, bool) { return "", false }}
		if code := run([]string{"check", "--values", path}, c); code != exitConfig || !strings.Contains(stderr.String(),
			"c.yaml:3:") || !strings.Contains(stderr.String(), listener+": the certificate and its key do not work") {
			t.Errorf("%s: exit code %d: %s", listener, code, stderr.String())
		}
	}
}
