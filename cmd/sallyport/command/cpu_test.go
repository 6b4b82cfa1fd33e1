package command

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// bareVariable makes a process of this test what Sallyport is compared with below: with
// "address upstream" the standard library's proxy, with "address " a handler that answers
// with an empty 200, over HTTP/2 with an empty message of gRPC.
const bareVariable = "SALLYPORT_TEST_BARE_PROXY"

// runBare serves as a bare httputil.ReverseProxy or handler, if the environment says so.
func runBare() {
	address, to, ok := strings.Cut(os.Getenv(bareVariable), " ")
	if !ok {
		return
	}
	u, err := url.Parse(to)
	switch {
	case to == "":
		var protocols http.Protocols
		protocols.SetHTTP1(true)
		protocols.SetUnencryptedHTTP2(true)
		err = (&http.Server{Addr: address, Protocols: &protocols, Handler: http.HandlerFunc(answerEmpty)}).ListenAndServe()
	case err == nil:
		transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
		rp := &httputil.ReverseProxy{Transport: transport,
			Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u); r.SetXForwarded() }}
		err = http.ListenAndServe(address, rp)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func answerEmpty(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 2 {
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	_, _ = w.Write(make([]byte, 5)) // the prefix of a message without a byte
	w.Header().Set("Grpc-Status", "0")
}

// BenchmarkCPUPerRequest compares the CPU time, user and system, that two
// processes of their own spend on the same requests: Sallyport, which recognises
// a signed-in person, tells the app, writes the log and counts; and the standard
// library's proxy, which does nothing of that. Both are asked in turn, over 64 connections.
func BenchmarkCPUPerRequest(b *testing.B) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		b.Skip("needs /proc for the CPU time of another process")
	}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "hello")
	}))
	b.Cleanup(app.Close)
	bare, err := testenv.UnusedAddress()
	fatal(b, err)
	barePID := launch(b, []string{bareVariable + "=" + bare + " " + app.URL})
	listening(b, bare)
	for _, transport := range []string{"lean", "standard"} {
		b.Run(transport, func(b *testing.B) {
			public, cookie, pid := launchSallyport(b, "{url: "+strconv.Quote(app.URL)+", transport: "+transport+"}")
			listening(b, public)
			ask := "GET /reports/2026?team=blue HTTP/1.1\r\nHost: " + public + "\r\nCookie: theme=dark; " + cookie +
				browserHeader
			compare(b, conversation{public, ask, "hello", 64}, pid, conversation{bare, ask, "hello", 64}, barePID)
		})
	}
}

// BenchmarkCPUPerCheck compares the CPU time of a check that another proxy asks for, with
// somebody who is signed in, with that of a handler that does nothing: in processes of
// their own, with 64 connections. The ratio of checks per second is the inverse.
func BenchmarkCPUPerCheck(b *testing.B) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		b.Skip("needs /proc for the CPU time of another process")
	}
	bare, err := testenv.UnusedAddress()
	fatal(b, err)
	barePID := launch(b, []string{bareVariable + "=" + bare + " "})
	asked, err := testenv.UnusedAddress()
	fatal(b, err)
	public, cookie, pid := launchSallyport(b, "'http://127.0.0.1:1'", "external_auth: "+strconv.Quote(asked))
	listening(b, bare)
	listening(b, asked)
	ask := "GET /verify HTTP/1.1\r\nHost: s\r\nX-Original-URL: http://" + public + "/reports/2026?team=blue\r\n" +
		"X-Original-Method: GET\r\nX-Forwarded-For: 192.0.2.9\r\nCookie: theme=dark; " + cookie + browserHeader
	compare(b, conversation{asked, ask, "", 64}, pid, conversation{bare, ask, "", 64}, barePID)
}

// BenchmarkCPUPerCheckOverGRPC is BenchmarkCPUPerCheck for checks over gRPC: both are asked by
// grpc-go, over 8 connections with 8 calls each.
func BenchmarkCPUPerCheckOverGRPC(b *testing.B) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		b.Skip("needs /proc for the CPU time of another process")
	}
	bare, err := testenv.UnusedAddress()
	fatal(b, err)
	barePID := launch(b, []string{bareVariable + "=" + bare + " "})
	asked, err := testenv.UnusedAddress()
	fatal(b, err)
	public, cookie, pid := launchSallyport(b, "'http://127.0.0.1:1'",
		"external_auth: {grpc: "+strconv.Quote(asked)+", peers: [127.0.0.1]}")
	listening(b, bare)
	listening(b, asked)
	headers := map[string]string{":method": "GET", ":path": "/reports/2026?team=blue", ":scheme": "http",
		":authority": public, "x-forwarded-proto": "http", "cookie": "theme=dark; " + cookie}
	for line := range strings.SplitSeq(strings.TrimSpace(browserHeader), "\r\n") {
		name, value, _ := strings.Cut(line, ": ")
		headers[strings.ToLower(name)] = value
	}
	check := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "192.0.2.9"}}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/reports/2026?team=blue", Host: public, Scheme: "http", Protocol: "HTTP/1.1",
			Headers: headers}}}}
	compare(b, newCalls(b, asked, check, true), pid, newCalls(b, bare, check, false), barePID)
}

// calls are checks over connections that are kept.
type calls struct {
	clients []authv3.AuthorizationClient
	check   *authv3.CheckRequest
	passes  bool // what is asked about is to pass
}

func newCalls(b *testing.B, address string, check *authv3.CheckRequest, passes bool) calls {
	b.Helper()
	c := calls{check: check, passes: passes}
	for range 8 {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		fatal(b, err)
		b.Cleanup(func() { _ = conn.Close() })
		c.clients = append(c.clients, authv3.NewAuthorizationClient(conn))
	}
	return c
}

func (c calls) run(b *testing.B, n int) {
	b.Helper()
	var wg sync.WaitGroup
	errs := make([]error, 8*len(c.clients))
	for i := range errs {
		wg.Go(func() {
			for range n / len(errs) {
				answer, err := c.clients[i%len(c.clients)].Check(b.Context(), c.check)
				if err == nil && c.passes && answer.GetOkResponse() == nil {
					err = fmt.Errorf("answered %v", answer)
				}
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	fatal(b, errors.Join(errs...))
}

// compare asks two processes in turn and reports the CPU time of each.
func compare(b *testing.B, us asker, pid int, them asker, barePID int) {
	b.Helper()
	const round = 3200
	them.run(b, round) // warm
	us.run(b, round)
	var ours, theirs time.Duration
	rounds := 0
	for b.Loop() {
		theirs += spent(b, barePID, func() { them.run(b, round) })
		ours += spent(b, pid, func() { us.run(b, round) })
		rounds++
	}
	requests := float64(rounds * round)
	b.ReportMetric(float64(ours.Microseconds())/requests, "sallyport-µs/request")
	b.ReportMetric(float64(theirs.Microseconds())/requests, "bare-µs/request")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
	b.ReportMetric(0, "ns/op")
}

// launch runs this test's binary with more environment until b ends.
func launch(b *testing.B, env []string, args ...string) int {
	b.Helper()
	self, err := os.Executable()
	fatal(b, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), env...)
	fatal(b, cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// mainVariable makes a process of this test the program itself.
const mainVariable = "SALLYPORT_TEST_MAIN"

// launchSallyport serves one route to upstream, as YAML has it; listen has more keys of that name.
func launchSallyport(b *testing.B, upstream string, listen ...string) (address, cookie string, pid int) {
	b.Helper()
	address, err := testenv.UnusedAddress()
	fatal(b, err)
	key := session.NewKey(time.Now().Add(-time.Hour))
	file := filepath.Join(b.TempDir(), "config.yaml")
	fatal(b, os.WriteFile(file, fmt.Appendf(nil, `version: 1
public_url: http://%[1]s
log: {format: json}
listen: {http: "%[1]s", admin: ""%[4]s}
session: {keys: ["literal:%[2]s"]}
providers: [{id: sso, type: oidc, issuer: "https://127.0.0.1:1", client_id: x, client_secret: "literal:secret-of-a-test"}]
routes: [{name: app, path: /, upstream: %[3]s, allow: [{groups: [staff]}]}]
`, address, key.Text(), upstream, strings.Join(append([]string{""}, listen...), ", ")), 0o600))
	ring, err := session.NewKeyring([]session.Key{key})
	fatal(b, err)
	_, port, err := net.SplitHostPort(address)
	fatal(b, err)
	m, err := session.New(session.Options{Keys: ring, Port: port, AbsoluteTimeout: 12 * time.Hour,
		IdleTimeout: time.Hour})
	fatal(b, err)
	w := httptest.NewRecorder()
	fatal(b, m.Write(w, "127.0.0.1",
		m.Start(identity.Identity{Provider: "sso", Subject: "ann", Email: "ann@acme.example", EmailVerified: true,
			Name: "Ann", Groups: []string{"staff", "on-call", "platform"},
			Org: identity.Org{ID: "sso:acme", Name: "Acme", Source: "claim"}})))
	cookie, _, _ = strings.Cut(w.Header().Get("Set-Cookie"), ";")
	return address, cookie, launch(b, []string{mainVariable + "=1"}, "serve", "-c", file)
}

func listening(b *testing.B, address string) {
	b.Helper()
	testenv.Eventually(b, "somebody listens on "+address, func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

// browserHeader is the rest of a browser's header.
const browserHeader = "\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
	"Accept: */*\r\nAccept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n" +
	"Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Site: same-origin\r\n\r\n"

// asker sends n requests, and wants the right answer to each.
type asker interface{ run(b *testing.B, n int) }

// conversation is one request that is sent again and again over some connections, on each
// the next when the last is answered.
type conversation struct {
	address, request, body string
	connections            int
}

// run sends n requests.
func (c conversation) run(b *testing.B, n int) {
	b.Helper()
	var wg sync.WaitGroup
	errs := make([]error, c.connections)
	for i := range errs {
		wg.Go(func() { errs[i] = c.converse(n / len(errs)) })
	}
	wg.Wait()
	fatal(b, errors.Join(errs...))
}

func (c conversation) converse(n int) error {
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for range n {
		if _, err := io.WriteString(conn, c.request); err != nil {
			return err
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 || string(body) != c.body {
			return fmt.Errorf("answered %s %q, %w", res.Status, body, err)
		}
	}
	return nil
}

// spent is the CPU time of process pid during f.
func spent(b *testing.B, pid int, f func()) time.Duration {
	b.Helper()
	before := cpuTime(b, pid)
	f()
	return cpuTime(b, pid) - before
}

// cpuTime is user and system time: proc(5), fields 14 and 15 of stat, in
// hundredths of a second.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fatal(b, err)
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		fatal(b, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func fatal(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
