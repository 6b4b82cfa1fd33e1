package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// haproxyGuide is the page whose configurations these tests run, with other addresses, and
// haproxyAction the Lua file that it tells people to use.
const (
	haproxyGuide  = "../../docs/fronts/haproxy.md"
	haproxyAction = "../../deploy/haproxy/sallyport.lua"
)

// runHAProxy starts the guide's HAProxy. edit are pairs: what is not as in the guide besides
// the addresses, and counts first.
func runHAProxy(t *testing.T, at addresses, args []string, edit ...string) *process {
	t.Helper()
	program := need(t, haproxyProgram)
	pem, err := onePEM(need(t, world.cert))
	if err != nil {
		t.Fatal(err)
	}
	action, err := filepath.Abs(haproxyAction)
	if err != nil {
		t.Fatal(err)
	}
	file, cert := filepath.Join(at.dir, "haproxy.cfg"), filepath.Join(at.dir, "app.pem")
	text := guideBlock(t, haproxyGuide, "haproxy", append(edit, "bind :443", "bind "+at.front,
		"/etc/haproxy/app.example.com.pem", cert, "/etc/haproxy/sallyport.lua", action, "127.0.0.1:4180", at.public,
		"127.0.0.1:4182", at.asked, "127.0.0.1:8080", at.app)...)
	text = strings.Replace(text, "global\n", "global\n    log stderr format raw local0 warning\n", 1)
	text = strings.Replace(text, "defaults\n", "defaults\n    log global\n", 1)
	if err := errors.Join(os.WriteFile(cert, pem, 0o600), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	p, err := start(at.dir, program, append(args, "-f", file)...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// inForeground keeps HAProxy one process.
var inForeground = []string{"-db"}

// behindHAProxy is a site whose front is HAProxy, which asks Sallyport, as the guide says;
// where its parts are; and HAProxy.
func behindHAProxy(t *testing.T, args ...string) (c *corp, at addresses, front *process) {
	t.Helper()
	need(t, haproxyProgram)
	c = behindFront(t, haproxyGuide, func(t *testing.T, its addresses) *process {
		at = its
		front = runHAProxy(t, its, args)
		return front
	})
	return c, at, front
}

// Everything that the guide promises of HAProxy, in turn, at one site.
func TestHAProxyAsksAndPassesOnWhatSallyportSays(t *testing.T) {
	t.Parallel()
	c, _, _ := behindHAProxy(t, inForeground...)
	cookie := c.signIn(t, "mira")
	t.Run("signing in", func(t *testing.T) { frontSignsIn(t, c, asSallyportSays()) })
	t.Run("what the app is told", func(t *testing.T) { frontTellsWhatSallyportSays(t, c, true) })
	t.Run("statuses", func(t *testing.T) { frontStatuses(c, cookie).check(t, c) })
	t.Run("ambiguous", func(t *testing.T) { frontRefusesWhatIsAmbiguous(t, c, cookie) })
	t.Run("WebSockets", func(t *testing.T) { frontPassesWebSockets(t, c, cookie) })
	t.Run("other protocols", func(t *testing.T) { frontOpensNoOtherTunnel(t, c, cookie) })
	t.Run("WebSockets in a browser", func(t *testing.T) { frontOpensWebSockets(t, c) })
	t.Run("pages of other sites", func(t *testing.T) { frontAnswersPagesOfOtherSites(t, c, cookie, [2]int{204, 403}) })
	t.Run("over HTTP/2", func(t *testing.T) { haproxyOverHTTP2(t, c, cookie) })
	t.Run("of its own", func(t *testing.T) { haproxyStatuses(c, cookie).check(t, c) })
	t.Run("other names", func(t *testing.T) { haproxyRemovesOtherNames(t, c, cookie) })
	t.Run("without Sallyport", func(t *testing.T) { frontWithoutSallyport(t, c, cookie) })
}

// haproxyOverHTTP2 is what frames of HTTP/2 could change: names of headers, a Cookie in pieces.
func haproxyOverHTTP2(t *testing.T, c *corp, cookie string) {
	b := newPerson(t)
	if v := b.signInAtProvider(c.url+"/form", "mira"); v.Protocol != "h2" {
		t.Errorf("the browser speaks %s", v.Protocol)
	}
	for _, line := range []string{"X-Forwarded-User: evil", "X_Forwarded_User: evil", "X.Forwarded.User: evil"} {
		got := c.curl(t, cookie, "/headers", "", "--http2", "-H", line)
		if got.version != "2" || got.status != "200" || strings.Contains(got.body, "evil") ||
			!strings.Contains(got.body, `"X-Forwarded-User":["corp:mira"]`) {
			t.Errorf("%q: %s %s %s", line, got.version, got.status, got.body)
		}
	}
}

// haproxyStatuses are answers behind HAProxy that other fronts give in other ways.
func haproxyStatuses(c *corp, cookie string) statuses {
	session := "Cookie: " + cookie
	get := func(target string, lines ...string) string { return c.writes("GET", target, lines...) }
	_, host, _ := strings.Cut(c.url, "://")
	return statuses{
		get("/headers"): 401,
		get("/headers", session+"; big="+strings.Repeat("a", 20_000)):              200,
		get("/headers", session+"; big="+strings.Repeat("a", 40_000)):              400,
		get("/headers", "Cookie: a=1", session, "Cookie: b=2"):                     200,
		get("/headers", session, session[:20]+"x"):                                 200,
		get("/headers", session, "Expect: 100-continue"):                           200,
		get("/headers", session, "Upgrade: h2c"):                                   403,
		get("https://" + host + "/open/x"):                                         200,
		get("https://"+host+"/admin", session):                                     403,
		get("/headers", session, "X-A: \xff\x80\t\"b"):                             200,
		get("/headers", session, "X-A: a\x01b"):                                    503, // which Sallyport does not read
		get("/headers", session, "Cookie: a=\xff"):                                 200,
		get("/headers", append(slices.Repeat([]string{"X-A: b"}, 90), session)...): 200,
		c.writes("POST", "/headers", "Content-Length: 1000000"):                    401, // its body does not come
		get("/.sallyport/../admin", session):                                       400, // says Sallyport itself
		get("/.sallyport", session):                                                403,
		c.writes("OPTIONS", "*", session):                                          403,
		c.writes("HEAD", "/headers", session):                                      200,
		c.writes("HEAD", "/headers"):                                               401,
		"GET /headers HTTP/1.0\r\n" + session + "\r\n\r\n":                         403, // no Host
	}
}

// haproxyRemovesOtherNames looks for what a client writes in headers that are not Sallyport's
// own, but by which an app could be led, and at what HAProxy says in three of them.
func haproxyRemovesOtherNames(t *testing.T, c *corp, cookie string) {
	for _, line := range []string{"X-Forwarded-For: evil", "X_Forwarded_For: evil", "X-Forwarded-Host: evil",
		"X.Forwarded.Host: evil", "X-Forwarded-Proto: evil", "X-Forwarded-Prefix: /evil", "X-Original-URL: /evil",
		"X_Original_URL: /evil", "X-Sallyport-Names: evil", "X+Forwarded!User: evil", "Forwarded: for=evil", "X_Real_IP: evil",
		"Client-IP: evil", "X-Client.IP: evil", "Remote-User: evil", "remote_user: evil", "X-Rewrite-URL: /evil",
		"Proxy: evil", "SCRIPT_NAME: /evil", "X-Path-Info: /evil"} {
		for _, target := range []string{"/headers", "/open/headers"} {
			_, told := c.raw(t, c.writes("GET", target, line, "Cookie: a=1", "Cookie: "+cookie, "Cookie: b=2"))
			for seen, values := range told {
				if strings.Contains(strings.Join(values, " "), "evil") {
					t.Errorf("%s %q: the app got %s: %q", target, line, seen, values)
				}
			}
			if told.Get("X-Forwarded-For") != "127.0.0.1" || told.Get("X-Forwarded-Proto") != "https" ||
				told.Get("X-Forwarded-Host") != strings.TrimPrefix(c.url, "https://") ||
				told.Get("Cookie") != "a=1; b=2" {
				t.Errorf("%s %q: the app was told %v", target, line, told)
			}
		}
	}
}

// counted is an app that notes of whom it is told, for each request that reaches it.
type counted struct {
	*httptest.Server
	arrived atomic.Int64
	mu      sync.Mutex // guards users
	users   []string
}

func startCounted(t *testing.T) *counted {
	a := &counted{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.arrived.Add(1)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.users = append(a.users, r.Header.Get("X-Forwarded-User"))
	}))
	t.Cleanup(a.Close)
	return a
}

// liar is asked in Sallyport's place, and answers what the path that it is asked about says.
type liar struct {
	address string
	asked   chan struct{} // one for each question about /hold
	hold    chan struct{} // until it is closed, these are not answered
}

// startLiar takes the answers for paths. over is how it is reached; nil: without TLS.
func startLiar(t *testing.T, over *tls.Config, lies map[string]string) *liar {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if over != nil {
		l = tls.NewListener(l, over)
	}
	t.Cleanup(func() { _ = l.Close() })
	a := &liar{address: l.Addr().String(), asked: make(chan struct{}, 100), hold: make(chan struct{})}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go a.answer(conn, lies)
		}
	}()
	return a
}

// pass is what Sallyport answers where a request may pass.
const pass = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Sallyport-Names: x-forwarded-user, x-sallyport-assertion, cookie\r\n" +
	"X-Forwarded-User: corp:mira\r\nX-Sallyport-Assertion:\r\nCookie:\r\n\r\n"

func (a *liar) answer(conn net.Conn, lies map[string]string) {
	defer conn.Close()
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	switch path := r.Header.Get("X-Forwarded-Uri"); path {
	case "/hold":
		a.asked <- struct{}{}
		<-a.hold
	case "/silent":
		_, _ = io.Copy(io.Discard, conn) // until HAProxy gives up
	case "/pass":
		_, _ = io.WriteString(conn, pass)
	case "/reset":
		_ = conn.(*net.TCPConn).SetLinger(0)
	case "/flood-200":
		_, _ = io.WriteString(conn, strings.Replace(pass, "Length: 0", "Length: 104857600", 1))
		flood(conn, 100<<20)
	case "/flood-401":
		_, _ = io.WriteString(conn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 104857600\r\n\r\n")
		flood(conn, 100<<20)
	case "/endless":
		_, _ = io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n")
		flood(conn, 1<<40)
	default:
		_, _ = io.WriteString(conn, lies[path])
	}
}

func flood(to io.Writer, n int) {
	piece := []byte(strings.Repeat("X-Forwarded-User: evil\r\n", 1000))
	for sent := 0; sent < n; sent += len(piece) {
		if _, err := to.Write(piece[:min(len(piece), n-sent)]); err != nil {
			return
		}
	}
}

// behindLiar is a HAProxy of the guide that asks a liar.
func behindLiar(t *testing.T, lies map[string]string, edit ...string) (*corp, *liar, *counted) {
	t.Helper()
	need(t, haproxyProgram)
	return behindPeer(t, startLiar(t, nil, lies), edit...)
}

// behindPeer is behindLiar for a liar that runs.
func behindPeer(t *testing.T, peer *liar, edit ...string) (*corp, *liar, *counted) {
	t.Helper()
	app := startCounted(t)
	dir, err := os.MkdirTemp(world.dir, "haproxy-")
	if err != nil {
		t.Fatal(err)
	}
	at := addresses{front: need(t, freeAddress), public: app.Listener.Addr().String(), asked: peer.address,
		app: app.Listener.Addr().String(), dir: dir}
	p := runHAProxy(t, at, inForeground, edit...)
	t.Cleanup(p.stop)
	p.showIfFailed(t)
	p.listens(t, at.front)
	return &corp{site: &site{url: "https://" + publicHost + portOf(at.front), process: p}}, peer, app
}

// Whatever answers in Sallyport's place, nobody passes but by the answer that says so, and
// after all of it HAProxy still asks.
func TestHAProxyPassesNobodyWhereSallyportMisbehaves(t *testing.T) {
	t.Parallel()
	with := func(edit ...string) string { return readdressed(t, pass, edit...) }
	const names, user, ok, length = "X-Sallyport-Names: ", "x-forwarded-user, ", "200 OK\r\n", "Content-Length: 0\r\n"
	long := strings.Repeat("a", 200_000)
	lies := map[string]string{
		"/no-names":         with(names, "X-Names: "),
		"/empty-names":      with(names, names+"\r\nX-Names: "),
		"/names-twice":      with(names, names+"cookie\r\n"+names),
		"/not-ours":         with(user+"x-sallyport-assertion, cookie", user),
		"/host":             with(user, user+"host, ", length, length+"Host: evil\r\n"),
		"/length":           with(user, user+"content-length, "),
		"/name-not-there":   with(user, user+"x-forwarded-groups, "),
		"/name-is-no-name":  with(user, user+"x-forwarded:user, "),
		"/two-names-in-one": with(user, user+"x_forwarded_user, ", length, length+"X_Forwarded_User: a\r\n"),
		"/value-twice":      with(length, length+"X-Forwarded-User: corp:root\r\n"),
		"/with-a-body":      with(length, "Content-Length: 5\r\n") + "hello",
		"/chunked":          with(length, "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n",
		"/no-length":        with(length, ""),
		"/two-lengths":      with(length, length+"Content-Length: 5\r\n"),
		"/201":              with("200 OK", "201 Created"),
		"/204":              with("200 OK", "204 No Content"),
		"/206":              with("200 OK", "206 Partial Content"),
		"/301":              with("200 OK", "301 Moved Permanently", length, length+"Location: /x\r\n"),
		"/404":              with("200 OK", "404 Not Found"),
		"/500":              with("200 OK", "500 Internal Server Error"),
		"/503":              with("200 OK", "503 Service Unavailable"),
		"/302-to-nowhere":   with("200 OK", "302 Found"),
		"/302-to-two":       with("200 OK", "302 Found", length, length+"Location: /a\r\nLocation: /b\r\n"),
		"/early-hints":      "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + with("200 OK", "500 No"),
		"/switching":        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" + pass,
		"/nothing":          "",
		"/cut":              pass[:len(pass)-20],
		"/401-cut":          "HTTP/1.1 401 Unauthorized\r\nContent-Length: 100\r\n\r\nshort",
		"/garbage":          "SSH-2.0-OpenSSH_9.2\r\n",
		"/http09":           "<h1>hello</h1>",
		"/nul":              with("corp:mira", "corp\x00mira"),
		"/long-header":      with("corp:mira", long),
		"/many-headers":     with(ok, ok+strings.Repeat("X-A: b\r\n", 10_000)),
		"/does-not-fit":     with("corp:mira", long[:50_000]),
		"/large-page":       fmt.Sprintf("HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s", len(long), long),
	}
	c, _, app := behindLiar(t, lies, "tune.lua.maxmem 256", "tune.lua.maxmem 32")
	ask := func(path string) (int, string) {
		resp, _ := c.raw(t, "GET "+path+" HTTP/1.1\r\nHost: "+publicHost+"\r\nX-Forwarded-User: evil\r\n\r\n")
		return resp.StatusCode, resp.Header.Get("Cache-Control")
	}
	paths := append(slices.Collect(maps.Keys(lies)), "/reset", "/silent", "/flood-200", "/flood-401", "/endless")
	var group sync.WaitGroup
	for _, path := range paths {
		group.Go(func() {
			if status, _ := ask(path); status != 503 && !(path == "/large-page" && status == 500) {
				t.Errorf("%s: answered with %d", path, status)
			}
		})
	}
	group.Wait()
	if n := app.arrived.Load(); n != 0 {
		t.Errorf("%d of these requests reached the app", n)
	}
	if status, _ := ask("/pass"); status != 200 || app.arrived.Load() != 1 {
		t.Errorf("what may pass is answered with %d, and the app got %d requests", status, app.arrived.Load())
	}
}

// Over TLS, HAProxy asks nobody whose certificate is of another name, or of an authority that
// it does not know.
func TestHAProxyAsksOverTLS(t *testing.T) {
	t.Parallel()
	need(t, haproxyProgram)
	of := func(name string) (tls.Certificate, string) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true,
			BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		file := filepath.Join(t.TempDir(), "ca.crt")
		if err := errors.Join(err, os.WriteFile(file,
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)); err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
	}
	_, stranger := of("127.0.0.1")
	for _, tt := range []struct {
		name  string
		knows bool
		want  int
	}{{"127.0.0.1", true, 200}, {"127.0.0.1", false, 503}, {"other.example", true, 503}} {
		cert, authority := of(tt.name)
		if !tt.knows {
			authority = stranger
		}
		peer := startLiar(t, &tls.Config{Certificates: []tls.Certificate{cert}}, nil)
		c, _, app := behindPeer(t, peer, "http://127.0.0.1:4182", "https://"+peer.address, "global\n",
			"global\n    httpclient.ssl.ca-file "+authority+"\n")
		resp, _ := c.raw(t, "GET /pass HTTP/1.1\r\nHost: "+publicHost+"\r\nX-Forwarded-User: evil\r\n\r\n")
		if resp.StatusCode != tt.want || (tt.want == 200) != slices.Equal(app.users, []string{"corp:mira"}) {
			t.Errorf("a certificate of %s, known: %v: %s, and the app got %q", tt.name, tt.knows, resp.Status,
				app.users)
		}
	}
}

// A client that leaves while Sallyport is asked has not been let in.
func TestHAProxyPassesNobodyWhoLeavesWhileItAsks(t *testing.T) {
	t.Parallel()
	c, peer, app := behindLiar(t, nil)
	for name, leave := range map[string]func(*tls.Conn){
		"resets": func(conn *tls.Conn) {
			_ = conn.NetConn().(*net.TCPConn).SetLinger(0)
			_ = conn.NetConn().Close()
		},
		"closes":      func(conn *tls.Conn) { _ = conn.Close() },
		"half-closes": func(conn *tls.Conn) { _ = conn.CloseWrite() },
	} {
		conn := c.dialRaw(t).(*tls.Conn)
		fmt.Fprintf(conn, "GET /hold HTTP/1.1\r\nHost: %s\r\nX-Forwarded-User: evil-%s\r\n\r\n", publicHost, name)
		<-peer.asked
		leave(conn)
	}
	// What left is noticed before what comes after it is answered; then the rest is let go.
	for range 20 {
		if resp, _ := c.raw(t, "GET /pass HTTP/1.1\r\nHost: "+publicHost+"\r\n\r\n"); resp.StatusCode != 200 {
			t.Errorf("who stays is answered with %s", resp.Status)
		}
	}
	close(peer.hold)
	for range 20 {
		c.raw(t, "GET /pass HTTP/1.1\r\nHost: "+publicHost+"\r\n\r\n")
	}
	app.mu.Lock()
	defer app.mu.Unlock()
	for _, user := range app.users {
		if user != "corp:mira" {
			t.Errorf("a request reached the app with %q", user)
		}
	}
	if len(app.users) != 40 {
		t.Errorf("%d requests reached the app", len(app.users))
	}
}

// An action that fails is no permission: the guide has a line for it.
func TestHAProxyPassesNobodyWhoseActionFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, body := range map[string]string{"fails": `error("no")`, "has no end": `while true do end`,
		"uses up memory": `local all = {} while true do all[#all+1] = ("a"):rep(1000000)..#all end`} {
		file := filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".lua")
		if err := os.WriteFile(file, []byte(`core.register_action("sallyport", {"http-req"}, function() `+body+
			` end, 1)`), 0o600); err != nil {
			t.Fatal(err)
		}
		c, _, app := behindLiar(t, nil, "/etc/haproxy/sallyport.lua", file, "tune.lua.maxmem 256", "tune.lua.maxmem 64")
		resp, _ := c.raw(t, "GET /x HTTP/1.1\r\nHost: "+publicHost+"\r\nX-Forwarded-User: evil\r\n\r\n")
		if resp.StatusCode != 503 || len(app.users) != 0 {
			t.Errorf("an action that %s: %s, and the app got %q", name, resp.Status, app.users)
		}
	}
}

// asks makes 64 clients ask for a page until it is the end, each over a connection of its
// own that is kept, and returns how many times they got it since all were connected. Whatever
// else comes is a fault.
func (c *corp) asks(t *testing.T, url, cookie string, end func() bool) int64 {
	t.Helper()
	var got, failed atomic.Int64
	var clients, connected sync.WaitGroup
	connected.Add(64)
	for range 64 {
		client := newClient(t, http1)
		ask := func() bool {
			r, _ := http.NewRequest(http.MethodGet, url+"/headers", nil)
			r.Header.Set("Cookie", cookie)
			resp, err := client.Do(r)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			if err != nil || resp.StatusCode != http.StatusOK {
				failed.Add(1)
				t.Logf("no page: %v %v", resp, err)
				return false
			}
			return true
		}
		clients.Go(func() {
			fine := ask()
			connected.Done()
			connected.Wait()
			for fine && !end() {
				if fine = ask(); fine {
					got.Add(1)
				}
			}
		})
	}
	clients.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d requests failed, %d did not", failed.Load(), got.Load())
	}
	return got.Load()
}

// HAProxy is told to read its configuration again while people work: all of them are asked
// about, and answered.
func TestHAProxyReloadsWhilePeopleWork(t *testing.T) {
	t.Parallel()
	c, _, front := behindHAProxy(t, "-W")
	cookie := c.signIn(t, "mira")
	var over atomic.Bool
	var load sync.WaitGroup
	var n int64
	load.Go(func() { n = c.asks(t, c.url, cookie, over.Load) })
	defer load.Wait()
	defer over.Store(true)
	for done := 1; done <= 3; done++ {
		time.Sleep(300 * time.Millisecond) // at some moment of the load
		var asked time.Time
		eventually(t, "HAProxy to have reloaded", func() bool {
			if time.Since(asked) > 5*time.Second { // its master loses a signal that comes while it executes itself
				asked = time.Now()
				if err := front.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
					t.Fatal(err)
				}
			}
			text, _ := front.out.now()
			return strings.Count(text, "Loading success") > done
		})
	}
	over.Store(true)
	load.Wait()
	t.Logf("%d requests during 3 reloads", n)
}

// What the question costs, as clients see it: the same HAProxy with it and without, in turns.
func TestHAProxyWithAndWithoutTheQuestion(t *testing.T) {
	t.Parallel()
	rounds, turn := 1, time.Second
	if long() {
		rounds, turn = 5, 3*time.Second
	}
	c, at, _ := behindHAProxy(t, inForeground...)
	cookie := c.signIn(t, "mira")
	at.front, at.dir = need(t, freeAddress), t.TempDir()
	p := runHAProxy(t, at, inForeground, "    http-request lua.sallyport http://127.0.0.1:4182/forward if !own\n", "",
		"    http-request deny deny_status 503 if !own !{ var(txn.sallyport) -m str passed }\n", "")
	t.Cleanup(p.stop)
	p.listens(t, at.front)
	var with, without int64
	within := func() func() bool {
		begun := sync.OnceValue(time.Now)
		return func() bool { return time.Since(begun()) > turn }
	}
	for range rounds {
		with += c.asks(t, c.url, cookie, within())
		without += c.asks(t, "https://"+publicHost+portOf(at.front), cookie, within())
	}
	seconds := (time.Duration(rounds) * turn).Seconds()
	t.Logf("64 connections: %.0f requests/s with the question, %.0f without: %.0f%%", float64(with)/seconds,
		float64(without)/seconds, 100*float64(with)/float64(without))
}
