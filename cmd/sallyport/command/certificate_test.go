package command

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
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
// the new certificate at the next look, its end in the metrics.
func TestServeFollowsItsCertificate(t *testing.T) {
	t.Parallel() // it has to wait for the next look
	f := &testenv.TLSFiles{T: t, Dir: t.TempDir()}
	f.Swap(testenv.NewKeyPair(t, "old.example", time.Now().Add(time.Hour)))
	public, err := testenv.UnusedAddress()
	f.Must(err)
	admin, err := testenv.UnusedAddress()
	f.Must(err)
	cfg, _, err := parseConfig("c.yaml", httpsConfig(f, public, admin))
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
	if want := "\nsallyport_tls_certificate_not_after_seconds " + strconv.FormatFloat(float64(notAfter.Unix()), 'g', -1,
		64) + "\n"; !strings.Contains(metrics, want) {
		t.Errorf("no %q in\n%s", want, metrics)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
