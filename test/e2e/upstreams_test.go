package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// upstreams are apps, one for each kind of connection that Sallyport can make to one. All tests
// share them; each Sallyport that leads there has the same routes.
type upstreams struct {
	app      map[string]string // upstream by kind: http, https, h2c, unix
	ws       map[string]string // npm ws: http, https, unix
	grpc     map[string]string // grpc-go's interop server: h2c, https
	echo     *process          // the one of ws
	deadAddr string            // nobody listens there
}

func (s *shared) startUpstreams() (*upstreams, error) {
	cert, err := s.cert()
	if err != nil {
		return nil, err
	}
	w := &upstreams{app: map[string]string{}, ws: map[string]string{}, grpc: map[string]string{}}
	if w.deadAddr, err = freeAddress(); err != nil {
		return nil, err
	}
	if err := errors.Join(w.startApps(s, cert), w.startGRPC(s, cert)); err != nil {
		return nil, err
	}
	return w, w.startEcho(s, cert)
}

// secure is the upstream of an app with the test's certificate.
func (c certificate) secure(port string) string {
	return fmt.Sprintf(`{url: "https://127.0.0.1%s", ca: "file:%s", server_name: %s}`, port, c.certFile, publicHost)
}

func (w *upstreams) startApps(s *shared, cert certificate) error {
	var one, two, both http.Protocols
	one.SetHTTP1(true)
	two.SetUnencryptedHTTP2(true)
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	for _, at := range []struct {
		kind, network string
		protocols     *http.Protocols
	}{{"http", "tcp", &one}, {"https", "tcp", &both}, {"h2c", "tcp", &two}, {"unix", "unix", &one}} {
		address := "127.0.0.1:0"
		if at.network == "unix" {
			address = filepath.Join(s.dir, "app.sock")
		}
		l, err := net.Listen(at.network, address)
		if err != nil {
			return err
		}
		srv := &http.Server{Handler: wayApp{}, Protocols: at.protocols}
		s.atEnd(func() { _ = srv.Close() })
		switch at.kind {
		case "https":
			w.app[at.kind] = cert.secure(portOf(l.Addr().String()))
			go func() { _ = srv.ServeTLS(l, cert.certFile, cert.keyFile) }()
			continue
		case "unix":
			w.app[at.kind] = "unix:" + address
		default:
			w.app[at.kind] = at.kind + "://" + l.Addr().String()
		}
		go func() { _ = srv.Serve(l) }()
	}
	return nil
}

func (w *upstreams) startGRPC(s *shared, cert certificate) error {
	creds, err := credentials.NewServerTLSFromFile(cert.certFile, cert.keyFile)
	if err != nil {
		return err
	}
	for kind, options := range map[string][]grpc.ServerOption{"h2c": nil, "https": {grpc.Creds(creds)}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		srv := grpc.NewServer(options...)
		testgrpc.RegisterTestServiceServer(srv, interop.NewTestServer())
		s.atEnd(srv.Stop)
		w.grpc[kind] = "h2c://" + l.Addr().String()
		if kind == "https" {
			w.grpc[kind] = cert.secure(portOf(l.Addr().String()))
		}
		go func() { _ = srv.Serve(l) }()
	}
	return nil
}

var echoing = regexp.MustCompile(`echo (\{.*\})`)

func (w *upstreams) startEcho(s *shared, cert certificate) error {
	if _, err := npmPackage("ws", "package.json"); err != nil {
		return err
	}
	socket := filepath.Join(s.dir, "ws.sock")
	options, err := json.Marshal(map[string]string{"cert": cert.certFile, "key": cert.keyFile, "socket": socket})
	if err != nil {
		return err
	}
	if w.echo, err = start(".", "node", "ws-echo.mjs", string(options)); err != nil {
		return err
	}
	s.atEnd(w.echo.stop)
	m, err := w.echo.says(echoing)
	if err != nil {
		return err
	}
	var ports struct{ HTTP, HTTPS int }
	if err := json.Unmarshal([]byte(m[1]), &ports); err != nil {
		return err
	}
	w.ws["http"], w.ws["unix"] = fmt.Sprintf("http://127.0.0.1:%d", ports.HTTP), "unix:"+socket
	w.ws["https"] = cert.secure(fmt.Sprintf(":%d", ports.HTTPS))
	return nil
}

// routes lead to all of them: to the app below /http, /https, /h2c and /unix for
// people who are signed in and below /open-http and so on for everybody; to ws
// below /ws-http and so on; to gRPC services with their own names. calls is the
// kind of the gRPC server on the public host.
func (w *upstreams) routes(calls string) []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for kind, at := range w.app {
		add("{name: %s, path: /%[1]s, upstream: %s, allow: authenticated, websocket: true}", kind, at)
		add("{name: open-%s, path: /open-%[1]s, upstream: %s, public: true, websocket: true}", kind, at)
	}
	for kind, at := range w.ws {
		add("{name: ws-%s, path: /ws-%[1]s, upstream: %s, allow: authenticated, websocket: true}", kind, at)
		add("{name: open-ws-%s, path: /open-ws-%[1]s, upstream: %s, public: true, websocket: true}", kind, at)
	}
	for name, service := range map[string]string{"calls": "TestService", "unknown": "UnimplementedService"} {
		add("{name: %s, path: /grpc.testing.%s, upstream: %s, allow: authenticated}", name, service, w.grpc[calls])
		for kind, at := range w.grpc {
			add("{name: open-%s-%s, host: open-%[2]s.example.test, path: /grpc.testing.%s, upstream: %s, public: true}",
				name, kind, service, at)
		}
	}
	add("{name: refused, path: /refused.Service, upstream: %s, allow: [{groups: [nobody]}]}", w.grpc[calls])
	add(`{name: dead, path: /dead.Service, upstream: "http://%s", allow: authenticated}`, w.deadAddr)
	return out
}

// newFront is a Sallyport of one's own with all these routes.
func newFront(over func(string) setup, calls string) (*corp, error) {
	w, err := world.upstreams()
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s := over(address)
	s.Routes = w.routes(calls)
	return newCorp(s)
}

// ownFront is newFront for tests that measure or break things.
func ownFront(t *testing.T, over func(string) setup) *corp {
	t.Helper()
	c := need(t, func() (*corp, error) { return newFront(over, "h2c") })
	t.Cleanup(c.stop)
	c.showIfFailed(t)
	return c
}

// overH2C is overHTTP that takes HTTP/2 by prior knowledge, too.
func overH2C(address string) setup {
	s := overHTTP(address)
	s.H2C = true
	return s
}

func (s *shared) startFront(over func(string) setup, calls string) func() (*corp, error) {
	return func() (*corp, error) {
		c, err := newFront(over, calls)
		if err == nil {
			s.atEnd(c.stop)
		}
		return c, err
	}
}

// theFront speaks TLS, thePlainFront h2c. All tests share them that only look.
func theFront(t *testing.T) *corp      { t.Helper(); return shareCorp(t, world.front) }
func thePlainFront(t *testing.T) *corp { t.Helper(); return shareCorp(t, world.plainFront) }

// wayApp is what the Go apps answer. The first segment of the path is how the
// request came here.
type wayApp struct{}

func (wayApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch path {
	case "up":
		takeIn(w, r)
	case "down":
		n, err := strconv.ParseInt(r.FormValue("bytes"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		giveOut(w, n)
	case "file": // a fixed one, of which parts can be asked for
		http.ServeContent(w, r, "file.txt", time.Unix(1_700_000_000, 0), strings.NewReader(file()))
	case "packed":
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Vary", "Accept-Encoding")
		_, _ = w.Write(packed(file()))
	case "events":
		events(w, r)
	case "wait":
		d, _ := time.ParseDuration(r.FormValue("for"))
		time.Sleep(d)
		_, _ = io.WriteString(w, "waited")
	case "tunnel":
		holdTunnel(w)
	case "seen", "seen/a/b": // the latter is what net/http makes of an escaped slash
		_ = json.NewEncoder(w).Encode(seen{r.RequestURI, r.Host, r.Header.Get("X-Forwarded-For"),
			r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Forwarded-Host")})
	default:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, `<!doctype html><html lang="en"><title>App</title><h1>The app</h1><p>%s %s`, r.Proto,
			r.Header.Get("X-Forwarded-User"))
	}
}

// seen is what the app was asked, and for whom.
type seen struct{ URI, Host, For, Proto, ForwardedHost string }

// sum is what arrived.
type sum struct {
	Bytes  int64
	SHA256 string
	Proto  string // as the app saw it
}

func takeIn(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	n, err := io.Copy(h, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(sum{n, hex.EncodeToString(h.Sum(nil)), r.Proto})
}

// giveOut writes n bytes and, as a trailer, what they should add up to.
func giveOut(w http.ResponseWriter, n int64) {
	w.Header().Set("Trailer", "X-Sum")
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, h), noise(n)); err == nil {
		w.Header().Set("X-Sum", hex.EncodeToString(h.Sum(nil)))
	}
}

// noise is n bytes that do not repeat and cannot be packed.
func noise(n int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1, 2, 3}), n) }

var file = sync.OnceValue(func() string {
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
})

func packed(text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, text) // memory does not fail
	_ = z.Close()
	return b.Bytes()
}

// events sends the header at once, and then, every so often, the time.
func events(w http.ResponseWriter, r *http.Request) {
	every, _ := time.ParseDuration(r.FormValue("every"))
	n, _ := strconv.Atoi(r.FormValue("n"))
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	if control.Flush() != nil {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := range n {
		select {
		case <-tick.C:
			fmt.Fprintf(w, "id: %d\ndata: %d\n\n", i, time.Now().UnixMilli())
		case <-r.Context().Done():
			return
		}
		if control.Flush() != nil {
			return
		}
	}
}

// holdTunnel agrees to speak WebSocket and then says nothing.
func holdTunnel(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_, _ = io.Copy(io.Discard, conn)
}
