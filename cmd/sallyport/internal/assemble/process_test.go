package assemble

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

const (
	publicURL = "http://localhost:4180"
	host      = "localhost"
)

// configuration leads to an app and tells it who asks under a name of its own.
func configuration(t *testing.T, app, header string) (*config.Config, *Secrets) {
	t.Helper()
	cfg, faults := config.Parse("config.yaml", fmt.Appendf(nil, `version: 1
public_url: %s
session: {keys: ["literal:sallyport-key-1 2026-01-02T09:00:00Z AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"]}
providers: [{id: sso, type: oidc, issuer: "http://localhost:1", client_id: c, client_secret: "literal:s", email_domains: [a.example]}]
routes: [{name: app, path: /, upstream: %q, allow: authenticated, websocket: true, headers: {set: {%s: user}}}]
`, publicURL, app, header))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	sec, err := Resolve(cfg, os.LookupEnv)
	testenv.Check(t, err)
	return cfg, sec
}

// namedApp answers with its name if it was told who asks as its configuration has
// it, and as no other one.
func namedApp(t *testing.T, name, header, other string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err != nil || string(body) != strings.Repeat("x", len(body)) {
			http.Error(w, "the body did not arrive whole", http.StatusBadRequest)
			return
		}
		if r.Header[header] == nil || r.Header[other] != nil {
			http.Error(w, fmt.Sprintf("app %s is told %v", name, r.Header), http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, name)
	}))
	t.Cleanup(s.Close)
	return s
}

func newProcess() *Process {
	return NewProcess(prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
}

func (p *Process) build(t *testing.T, app, header string) *Runtime {
	t.Helper()
	cfg, sec := configuration(t, app, header)
	rt, err := p.Build(cfg, sec)
	testenv.Check(t, err)
	return rt
}

// signIn returns the cookie of somebody who has signed in.
func signIn(t *testing.T, rt *Runtime, subject string) string {
	t.Helper()
	w := httptest.NewRecorder()
	who := identity.Identity{Provider: "sso", Subject: subject}
	testenv.Check(t, rt.Sessions().Write(w, host, rt.Sessions().Start(who)))
	pair, _, _ := strings.Cut(w.Header().Get("Set-Cookie"), ";")
	return pair
}

func ask(t testing.TB, client *http.Client, method, address, cookie string, body io.Reader) (int, string) {
	r, err := http.NewRequest(method, address, body)
	testenv.Check(t, err)
	r.Host = host + ":4180"
	r.Header.Set("Cookie", cookie)
	res, err := client.Do(r)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return res.StatusCode, string(text)
}

// A configuration that changes under load: each request is served by one of the
// two, as a whole, and none is lost; what was signed out stays signed out; and
// nothing is left of the configurations that were replaced.
func TestASwapUnderLoadLosesNothingAndRevivesNobody(t *testing.T) {
	a, b := namedApp(t, "a", "X-Of-A", "X-Of-B"), namedApp(t, "b", "X-Of-B", "X-Of-A")
	process := newProcess()
	build := func(i int) *Runtime {
		app, header := a.URL, "X-Of-A"
		if i%2 == 1 {
			app, header = b.URL, "X-Of-B"
		}
		return process.build(t, app, header)
	}
	first := build(0)
	process.Swap(first)
	front := httptest.NewServer(process)
	defer front.Close()
	client := front.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 64

	alice, gone := signIn(t, first, "alice"), signIn(t, first, "gone")
	if status, _ := ask(t, client, "POST", front.URL+"/.sallyport/logout", gone, nil); status != http.StatusSeeOther {
		t.Fatalf("sign-out: %d", status)
	}

	var served, byB atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for i := range 16 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				method, body := "GET", io.Reader(nil)
				if i%4 == 0 {
					method, body = "POST", strings.NewReader(strings.Repeat("x", 64<<10))
				}
				switch status, text := ask(t, client, method, front.URL+"/page", alice, body); {
				case status != http.StatusOK:
					t.Errorf("%s: %d %s", method, status, text)
				case text == "b":
					byB.Add(1)
				}
				served.Add(1)
				if status, text := ask(t, client, "GET", front.URL+"/page", gone, nil); status != http.StatusUnauthorized {
					t.Errorf("somebody who signed out is served: %d %s", status, text)
				}
			}
		})
	}
	var old []*Runtime
	for i := range 40 {
		old = append(old, process.Swap(build(i+1)))
		time.Sleep(5 * time.Millisecond)
	}
	close(stop)
	load.Wait()
	for i, rt := range old {
		select {
		case <-rt.Closed():
		case <-time.After(10 * time.Second):
			t.Fatalf("the runtime of swap %d is not closed: %d uses", i, rt.uses.Load())
		}
	}
	if byB.Load() == 0 || byB.Load() == served.Load() {
		t.Errorf("of %d requests %d were served by the second app: there was no change under load", served.Load(),
			byB.Load())
	}
	if n := len(process.apps.shared); n != 1 {
		t.Errorf("connections to %d apps are kept, and one is in use", n)
	}
}

// An exchange keeps the configuration that it began with, however long it takes.
func TestAnExchangeKeepsItsRuntime(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first ")
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-finish
		_, _ = io.WriteString(w, "last")
	}))
	defer slow.Close()
	next := namedApp(t, "next", "X-Next", "X-Slow")
	process := newProcess()
	before := process.build(t, slow.URL, "X-Slow")
	process.Swap(before)
	front := httptest.NewServer(process)
	defer front.Close()
	cookie := signIn(t, before, "alice")
	answer := make(chan string)
	go func() {
		_, text := ask(t, front.Client(), "GET", front.URL+"/", cookie, nil)
		answer <- text
	}()
	<-begun
	process.Swap(process.build(t, next.URL, "X-Next"))
	if _, text := ask(t, front.Client(), "GET", front.URL+"/", cookie, nil); text != "next" {
		t.Errorf("a request after the swap is answered %q", text)
	}
	select {
	case <-before.Closed():
		t.Error("closed while an exchange used it")
	default:
	}
	close(finish)
	if text := <-answer; text != "first last" {
		t.Errorf("the exchange that was on its way is answered %q", text)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	select {
	case <-before.Closed():
	case <-ctx.Done():
		t.Error("not closed after its last exchange")
	}
}

// So does a WebSocket, whose handler has returned long before its end.
func TestAWebSocketKeepsItsRuntime(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, buffered)
	}))
	defer app.Close()
	process := newProcess()
	before := process.build(t, app.URL, "X-Before")
	process.Swap(before)
	front := httptest.NewServer(process)
	defer front.Close()
	conn, err := net.Dial("tcp", front.Listener.Addr().String())
	testenv.Check(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: localhost:4180\r\nCookie: %s\r\nConnection: Upgrade\r\n"+
		"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		signIn(t, before, "alice"))
	testenv.Check(t, err)
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	testenv.Check(t, err)
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("answered %s", res.Status)
	}
	testenv.Eventually(t, "the handler has returned", func() bool { return before.uses.Load() == 2 })
	process.Swap(process.build(t, app.URL, "X-Next"))
	echo := make([]byte, 5)
	_, err = io.WriteString(conn, "hello")
	testenv.Check(t, err)
	if _, err := io.ReadFull(in, echo); err != nil || string(echo) != "hello" {
		t.Errorf("%q came back, %v", echo, err)
	}
	select {
	case <-before.Closed():
		t.Error("closed while a WebSocket used it")
	default:
	}
	conn.Close()
	testenv.Eventually(t, "the configuration is closed", func() bool {
		select {
		case <-before.Closed():
			return true
		default:
			return false
		}
	})
}

// A Runtime that is built and not used leaves nothing behind.
func TestAReleasedRuntimeLeavesNothing(t *testing.T) {
	process := newProcess()
	rt := process.build(t, "http://127.0.0.1:1", "X-A")
	rt.Release()
	<-rt.Closed()
	if n := len(process.apps.shared); n != 0 {
		t.Errorf("connections to %d apps are kept", n)
	}
}

// A WebSocket that outlives reloads keeps a configuration each, and not what was remembered of
// everybody who came then: that is tens of megabytes where many people are signed in, and secrets
// may be replaced every hour.
func TestAWebSocketKeepsNoMemoryOfOthers(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer app.Close()
	process := newProcess()
	first := process.build(t, app.URL, "X-Of")
	process.Swap(first)
	front := httptest.NewServer(process)
	defer front.Close()
	cookies := make([]string, 1500)
	for i := range cookies {
		cookies[i] = signIn(t, first, fmt.Sprint("person-", i))
	}
	used := func() int {
		for _, cookie := range cookies {
			if status, text := ask(t, front.Client(), "GET", front.URL+"/", cookie, nil); status != http.StatusOK {
				t.Fatalf("%d %s", status, text)
			}
		}
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := used()
	after := before
	for range 4 {
		held := process.pin()
		defer held.Release()
		process.Swap(process.build(t, app.URL, "X-Of"))
		after = used()
	}
	if after > 2*before {
		t.Errorf("%d KiB are in use, and %d KiB with a WebSocket of each of four configurations before", before>>10,
			after>>10)
	}
}
