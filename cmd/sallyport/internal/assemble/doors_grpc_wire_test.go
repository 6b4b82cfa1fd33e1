package assemble

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/server"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/proxy"
	"github.com/sallyport-proxy/sallyport/session"
)

// listeningGRPC is a client of the listener for proxies that ask over gRPC.
func listeningGRPC(tb testing.TB, d *doors) *grpc.ClientConn {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Check(tb, err)
	s := server.NewExternalAuthGRPC(http.HandlerFunc(d.process.ServeExternalAuthGRPC), time.Minute,
		slog.New(slog.DiscardHandler))
	go func() { _ = s.Serve(l) }()
	tb.Cleanup(func() { _ = s.Close() })
	c, err := grpc.NewClient("passthrough:///"+l.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	testenv.Check(tb, err)
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// checkFor is a question of ann about a target.
func checkFor(d *doors, target string, lines ...string) *authv3.CheckRequest {
	c := doorCase{method: "GET", host: "app.example.com", target: target, who: "ann", lines: lines}
	r := parse(c.method, c.target, append([]string{"Host: " + c.host}, c.header(d)...)...)
	r.RequestURI = target
	return checkOf(envoyHeader(r), true)
}

// A client that nobody here wrote is understood, and understands.
func TestEnvoyIsAnsweredOverGRPC(t *testing.T) {
	d := newDoors(t)
	c := listeningGRPC(t, d)
	ask := authv3.NewAuthorizationClient(c)
	ok, err := ask.Check(t.Context(), checkFor(d, "/x"))
	testenv.Check(t, err)
	if !slices.ContainsFunc(mutate(nil, ok.GetOkResponse().GetHeaders()), func(l envoyLine) bool {
		return l == envoyLine{"x-forwarded-user", "main:ann"}
	}) {
		t.Errorf("%v", ok)
	}
	denied, err := ask.Check(t.Context(), checkFor(d, "/admin"))
	if err != nil || denied.GetStatus().GetCode() != int32(codes.PermissionDenied) ||
		denied.GetDeniedResponse().GetStatus().GetCode() != 403 {
		t.Errorf("%v, %v", denied, err)
	}
	healthy, err := grpc_health_v1.NewHealthClient(c).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || healthy.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", healthy, err)
	}
	watch, err := grpc_health_v1.NewHealthClient(c).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	testenv.Check(t, err)
	if _, err := watch.Recv(); status.Code(err) != codes.Unimplemented {
		t.Errorf("Watch: %v", err)
	}
}

// What a client's header makes of a message is never a failed call: with
// failure_mode_allow that would let the request pass.
func TestP01_HostileMessagesAreDeniedOverTheWire(t *testing.T) {
	d := newDoors(t)
	c := listeningGRPC(t, d)
	ask := authv3.NewAuthorizationClient(c)
	many := make([]string, 100_000)
	for i := range many {
		many[i] = "A:"
	}
	for name, tt := range map[string]struct {
		check   *authv3.CheckRequest
		options []grpc.CallOption
	}{
		"100,000 headers": {check: checkFor(d, "/open", many...)},
		"a huge header":   {check: checkFor(d, "/open", "X-A: "+strings.Repeat("a", 300<<10))},
		"a huge body":     {check: withBody(checkFor(d, "/open"), 2<<20)},
		"a huge path":     {check: checkFor(d, "/open/"+strings.Repeat("a", 300<<10))},
		"compressed":      {checkFor(d, "/open"), []grpc.CallOption{grpc.UseCompressor(gzip.Name)}},
	} {
		answer, err := ask.Check(t.Context(), tt.check, tt.options...)
		if err != nil || answer.GetDeniedResponse().GetStatus().GetCode() != 403 {
			t.Errorf("%s: %v, %v", name, answer, err)
		}
	}
	answer, err := ask.Check(t.Context(), withBody(checkFor(d, "/open"), 100<<10))
	if err != nil || answer.GetOkResponse() == nil {
		t.Errorf("a body that the proxy sends along: %v, %v", answer, err)
	}
}

func withBody(check *authv3.CheckRequest, n int) *authv3.CheckRequest {
	check.Attributes.Request.Http.RawBody = make([]byte, n)
	return check
}

// A map has one value of each name: what had several lines is one that Envoy has joined.
// It gets the same verdict, or is refused.
func TestP03_JoinedHeadersAgreeWithLines(t *testing.T) {
	d := newDoors(t)
	for _, c := range doorCases() {
		want, _ := c.askGRPC(d, true)
		got, w := c.askGRPC(d, false)
		if got == "forward" && want == "deny" && w.Header().Get("Authorization") == "a,b" {
			continue // the app is told one, too
		}
		if got != want && got != "deny" && got != "bearer" && (c.who != "ann" || got != "login program") {
			t.Errorf("%s: %s as a map, %s as lines", c, got, want)
		}
		if got == "forward" && c.who == "ann" &&
			w.Header().Get("X-Forwarded-User")+w.Header().Get("Remote-User") == "main:root" {
			t.Errorf("%s: somebody else", c)
		}
	}
}

// heldTokens are verified when the context of the question ends.
type heldTokens struct{ begun, ended chan struct{} }

func (h heldTokens) Verify(ctx context.Context, _ string) (identity.Identity, time.Time, error) {
	h.begun <- struct{}{}
	<-ctx.Done()
	h.ended <- struct{}{}
	return identity.Identity{}, time.Time{}, &identity.SignInError{Failure: identity.Unavailable, Err: ctx.Err()}
}

// holdTokens has all tokens wait.
func (d *doors) holdTokens(tb testing.TB) heldTokens {
	tb.Helper()
	held := heldTokens{make(chan struct{}, 1000), make(chan struct{}, 1000)}
	cfg, faults := config.Parse("c.yaml", []byte(doorsConfig))
	testenv.Check(tb, faults.Err())
	ring, err := session.NewKeyring([]session.Key{session.NewKey(time.Now().Add(-time.Hour))})
	testenv.Check(tb, err)
	tokens := make([]*admission.Tokens, len(cfg.Routes))
	for i, r := range cfg.Routes {
		if r.Bearer.Provider != "" {
			tokens[i] = &admission.Tokens{TokenVerifier: held, Issuer: "https://sso.example.com"}
		}
	}
	rt, err := d.process.BuildOf(cfg, Parts{Keys: ring, Tokens: tokens, App: d,
		Providers: []proxy.Provider{{ID: "main", Name: "main", Login: noLogin{}}}})
	testenv.Check(tb, err)
	d.process.Swap(rt)
	return held
}

// Who no longer waits for an answer is not worked for: neither past the time that the call
// was given, nor after the caller has gone.
func TestAQuestionEndsWithItsCall(t *testing.T) {
	d := newDoors(t)
	held := d.holdTokens(t)
	ask := authv3.NewAuthorizationClient(listeningGRPC(t, d))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	answer, err := ask.Check(ctx, checkFor(d, "/api", "Authorization: Bearer x"))
	if status.Code(err) != codes.DeadlineExceeded && answer.GetDeniedResponse().GetStatus().GetCode() != 403 {
		t.Errorf("%v, %v", answer, err)
	}
	<-held.begun
	<-held.ended
	ctx, leave := context.WithCancel(t.Context())
	var gone sync.WaitGroup
	gone.Go(func() { _, _ = ask.Check(ctx, checkFor(d, "/api", "Authorization: Bearer x")) })
	<-held.begun
	leave()
	<-held.ended
	gone.Wait()
}

// Calls that wait, and calls whose message never comes, keep no other from its answer; of
// one connection there are no more at once than the listener says.
func TestP17_CallsThatHangAreAlone(t *testing.T) {
	d := newDoors(t)
	held := d.holdTokens(t)
	slow := authv3.NewAuthorizationClient(listeningGRPC(t, d))
	c := listeningGRPC(t, d)
	ctx, leave := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer leave()
	const most = 250
	for range most + 50 {
		all.Go(func() { _, _ = slow.Check(ctx, checkFor(d, "/api", "Authorization: Bearer x")) })
	}
	for range most {
		<-held.begun
	}
	for range 100 {
		stream, err := c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true},
			authv3.Authorization_Check_FullMethodName)
		testenv.Check(t, err)
		defer func() { _ = stream.CloseSend() }()
	}
	answer, err := authv3.NewAuthorizationClient(c).Check(t.Context(), checkFor(d, "/open"))
	if err != nil || answer.GetOkResponse() == nil {
		t.Errorf("%v, %v", answer, err)
	}
	if n := len(held.begun); n > 0 {
		t.Errorf("%d more than %d wait at once", n, most)
	}
}

// While it stops, clients are asked to leave, and what they ask meanwhile is answered.
func TestP16_CallsAreAnsweredWhileItStops(t *testing.T) {
	d := newDoors(t)
	c := listeningGRPC(t, d)
	ask := authv3.NewAuthorizationClient(c)
	d.process.Drain()
	for i := range 20 {
		answer, err := ask.Check(t.Context(), checkFor(d, "/x"))
		if err != nil || answer.GetOkResponse() == nil {
			t.Fatalf("%d: %v, %v", i, answer, err)
		}
	}
	health, err := grpc_health_v1.NewHealthClient(c).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || health.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("%v, %v", health, err)
	}
}

// BenchmarkExternalAuthGRPC is BenchmarkExternalAuth over gRPC, with grpc-go as the client.
func BenchmarkExternalAuthGRPC(b *testing.B) {
	d := newDoors(b)
	c := listeningGRPC(b, d)
	ask, health := authv3.NewAuthorizationClient(c), grpc_health_v1.NewHealthClient(c)
	check := checkFor(d, "/x", "User-Agent: Mozilla/5.0", "Accept: */*")
	for name, do := range map[string]func() error{
		"signed in": func() error { _, err := ask.Check(b.Context(), check); return err },
		"bare": func() error {
			_, err := health.Check(b.Context(), &grpc_health_v1.HealthCheckRequest{})
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := do(); err != nil {
					b.Fatal(fmt.Errorf("%s: %w", name, err))
				}
			}
		})
	}
}
