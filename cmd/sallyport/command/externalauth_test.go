package command

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/asynclog"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// The whole program: one certificate for those who ask over HTTP and over gRPC, each at an
// address of its own; questions are answered until it stops, and it stops although the
// connections of those who ask stay open.
func TestServeAnswersOtherProxies(t *testing.T) {
	f := &testenv.TLSFiles{T: t, Dir: t.TempDir()}
	f.Swap(testenv.NewKeyPair(t, "asked.example", time.Now().Add(time.Hour)))
	var addresses [3]string
	for i := range addresses {
		var err error
		addresses[i], err = testenv.UnusedAddress()
		testenv.Check(t, err)
	}
	text := strings.NewReplacer("listen: {https: {address:", `listen: {external_auth: {address: "`+addresses[1]+`", grpc: "`+
		addresses[2]+`", peers: [127.0.0.1], cert: "file:`+f.Path("tls.crt")+`", key: "file:`+f.Path("tls.key")+
		`"}, https: {address:`, "version: 1\n", "version: 1\nstop: {drain_delay: 1s}\n").Replace(
		string(httpsConfig(f, addresses[0], "")))
	cfg, _, err := parseConfig("c.yaml", []byte(text))
	testenv.Check(t, err)
	log := asynclog.Open(io.Discard, io.Discard, slog.LevelInfo, "json")
	defer log.Close()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, &console{env: func(string) (string, bool) { return "", false }}, cfg, log) }()

	secure := &tls.Config{InsecureSkipVerify: true} // the certificate is this test's own, and vouched for by nobody
	c, err := grpc.NewClient("passthrough:///"+addresses[2], grpc.WithTransportCredentials(credentials.NewTLS(secure)))
	testenv.Check(t, err)
	defer c.Close()
	health := func() string {
		got, err := grpc_health_v1.NewHealthClient(c).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			return err.Error()
		}
		return got.GetStatus().String()
	}
	testenv.Eventually(t, "it serves", func() bool { return health() == "SERVING" })
	ask := func() string {
		answer, err := authv3.NewAuthorizationClient(c).Check(t.Context(), &authv3.CheckRequest{
			Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
				Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Scheme: "https", Host: "app.example.com", Path: "/x",
					Headers: map[string]string{"accept": "text/html"}}}}})
		if err != nil {
			return err.Error()
		}
		for _, h := range answer.GetDeniedResponse().GetHeaders() {
			if h.GetHeader().GetKey() == "location" {
				return h.GetHeader().GetValue()
			}
		}
		return answer.String()
	}
	const login = "https://app.example.com/.sallyport/login?return_to=%2Fx"
	if got := ask(); got != login {
		t.Errorf("over gRPC: %s", got)
	}
	overHTTP := &http.Client{Transport: &http.Transport{TLSClientConfig: secure}}
	r, err := http.NewRequest("GET", "https://"+addresses[1]+"/verify", nil)
	testenv.Check(t, err)
	r.Header = http.Header{"X-Original-Url": {"https://app.example.com/x"}, "X-Original-Method": {"GET"},
		"Accept": {"text/html"}}
	resp, err := overHTTP.Do(r)
	testenv.Check(t, err)
	_ = resp.Body.Close()
	if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusUnauthorized || got != login {
		t.Errorf("over HTTP: %d %s", resp.StatusCode, got)
	}
	stop()
	testenv.Eventually(t, "it says that it stops", func() bool { return health() == "NOT_SERVING" })
	if got := ask(); got != login {
		t.Errorf("while it stops: %s", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
