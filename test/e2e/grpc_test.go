package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// callsVariable holds the target for callInterop.
const callsVariable = "SALLYPORT_E2E_GRPC_CALLS"

// target is a gRPC server, as a client behind Sallyport's front sees it.
type target struct {
	Address, Authority string
	CA                 string // PEM file; "" for no TLS
	Cookie             string
}

// dial connects. The cookie goes with every call, as a gRPC client of an app
// would do it: in the metadata.
func (at target) dial() (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if at.CA != "" {
		pem, err := os.ReadFile(at.CA)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		creds = credentials.NewTLS(&tls.Config{RootCAs: pool})
	}
	with := func(ctx context.Context) context.Context {
		if at.Cookie == "" {
			return ctx
		}
		return metadata.AppendToOutgoingContext(ctx, "cookie", at.Cookie)
	}
	return grpc.NewClient("passthrough:///"+at.Address, grpc.WithTransportCredentials(creds),
		grpc.WithAuthority(at.Authority),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
			invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
			return invoke(with(ctx), method, req, reply, cc, o...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string,
			stream grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(with(ctx), d, cc, method, o...)
		}))
}

// interopCases are grpc-go's own, with their official names.
var interopCases = []struct {
	name string
	call func(context.Context, *grpc.ClientConn, testgrpc.TestServiceClient)
}{
	{"empty_unary", onTest(interop.DoEmptyUnaryCall)},
	{"large_unary", onTest(interop.DoLargeUnaryCall)},
	{"client_streaming", onTest(interop.DoClientStreaming)},
	{"server_streaming", onTest(interop.DoServerStreaming)},
	{"ping_pong", onTest(interop.DoPingPong)},
	{"empty_stream", onTest(interop.DoEmptyStream)},
	{"timeout_on_sleeping_server", onTest(interop.DoTimeoutOnSleepingServer)},
	{"cancel_after_begin", onTest(interop.DoCancelAfterBegin)},
	{"cancel_after_first_response", onTest(interop.DoCancelAfterFirstResponse)},
	{"custom_metadata", onTest(interop.DoCustomMetadata)}, // trailers, -bin among them
	{"status_code_and_message", onTest(interop.DoStatusCodeAndMessage)},
	{"special_status_message", onTest(interop.DoSpecialStatusMessage)},
	{"unimplemented_method", func(ctx context.Context, cc *grpc.ClientConn, _ testgrpc.TestServiceClient) {
		interop.DoUnimplementedMethod(ctx, cc)
	}},
	{"unimplemented_service", func(ctx context.Context, cc *grpc.ClientConn, _ testgrpc.TestServiceClient) {
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(cc))
	}},
}

func onTest(call func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) func(context.Context,
	*grpc.ClientConn, testgrpc.TestServiceClient) {
	return func(ctx context.Context, _ *grpc.ClientConn, c testgrpc.TestServiceClient) { call(ctx, c) }
}

// callInterop makes all the calls to a target, in a process of its own: what
// fails in grpc-go's client ends the process.
func callInterop(text string) {
	var at target
	err := json.Unmarshal([]byte(text), &at)
	var cc *grpc.ClientConn
	if err == nil {
		cc, err = at.dial()
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, c := range interopCases {
		fmt.Println("begin", c.name)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		c.call(ctx, cc, testgrpc.NewTestServiceClient(cc))
		cancel()
		fmt.Println("passed", c.name)
	}
}

// target is how gRPC clients find c under a host's name.
func (c *corp) target(t testing.TB, host, cookie string) target {
	t.Helper()
	scheme, public, _ := strings.Cut(c.url, "://")
	port := portOf(public)
	at := target{Address: "127.0.0.1" + port, Authority: host + port, Cookie: cookie}
	if host == "" {
		at.Authority = public
	}
	if scheme == "https" {
		at.CA = need(t, world.cert).certFile
	}
	return at
}

// grpc-go's interoperability client and server, with Sallyport in between.
func TestGRPCInteropThroughEveryWay(t *testing.T) {
	t.Parallel()
	front, plain := theFront(t), thePlainFront(t)
	for _, row := range []struct {
		name string
		at   target
	}{
		{"session, TLS to h2c", front.target(t, "", front.signIn(t, "mira"))},
		{"session, h2c to https", plain.target(t, "", plain.signIn(t, "mira"))},
		{"public, TLS to h2c", front.target(t, "open-h2c.example.test", "")},
		{"public, TLS to https", front.target(t, "open-https.example.test", "")},
		{"public, h2c to h2c", plain.target(t, "open-h2c.example.test", "")},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			text, err := json.Marshal(row.at)
			if err != nil {
				t.Fatal(err)
			}
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), callsVariable+"="+string(text))
			out, err := cmd.CombinedOutput()
			for _, c := range interopCases {
				if !strings.Contains(string(out), "passed "+c.name+"\n") {
					t.Errorf("%s did not pass", c.name)
				}
			}
			if err != nil || t.Failed() {
				t.Errorf("the client: %v\n%s", err, out)
			}
		})
	}
}

// What Sallyport says itself arrives as a status that gRPC clients know.
func TestGRPCStatusOfRefusals(t *testing.T) {
	t.Parallel()
	c := theFront(t)
	cookie := c.signIn(t, "mira")
	for _, row := range []struct {
		name, cookie, method string
		want                 codes.Code
	}{
		{"no session", "", "/grpc.testing.TestService/EmptyCall", codes.Unauthenticated},
		{"not a session", c.cookie + "=x", "/grpc.testing.TestService/EmptyCall", codes.Unauthenticated},
		{"no rule matches", cookie, "/refused.Service/Call", codes.PermissionDenied},
		{"nobody and no rule", "", "/refused.Service/Call", codes.Unauthenticated},
		{"the app is down", cookie, "/dead.Service/Call", codes.Unavailable},
		{"no route", cookie, "/nowhere.Service/Call", codes.Unimplemented},
		{"signed in", cookie, "/grpc.testing.TestService/EmptyCall", codes.OK},
	} {
		t.Run(row.name, func(t *testing.T) {
			cc, err := c.target(t, "", row.cookie).dial()
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			err = cc.Invoke(ctx, row.method, &testgrpc.Empty{}, &testgrpc.Empty{})
			if got := status.Code(err); got != row.want {
				t.Errorf("%v, not %v: %v", got, row.want, err)
			}
		})
	}
}

// A call that streams ends with the session behind it, and its caller is told.
func TestP10_SignOutEndsStreamingCalls(t *testing.T) {
	t.Parallel()
	c := theFront(t)
	cookie := c.signIn(t, "tom")
	cc, err := c.target(t, "", cookie).dial()
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := testgrpc.NewTestServiceClient(cc).FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 1}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	c.signOut(t, cookie)
	_, err = stream.Recv()
	if took := time.Since(begun); err == nil || err == io.EOF || took > wsLimit {
		t.Errorf("after %v: %v", took, err)
	}
	if s, _ := status.FromError(err); s.Code() == codes.OK || s.Code() == codes.DeadlineExceeded {
		t.Errorf("the caller is told %v", err)
	}
}
