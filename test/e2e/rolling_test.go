package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Two Sallyports behind HAProxy, as the guide sets them up, are stopped and started
// again one after the other while clients of all kinds work: HTTP/1.1 over connections
// that are kept, HTTP/2, uploads, answers that take their time, WebSockets, people who
// sign in and out. Every request is answered, the app gets each of them once, and who
// has signed out stays signed out.
func TestP16_RollingRestartsBehindHAProxyUnderLoad(t *testing.T) {
	stops, atLeast := 5, int64(1000)
	if long() {
		stops, atLeast = 200, 300_000 // 100 of each
	}
	rollingRestarts(t, endingTLS, stops, atLeast)
}

// The same behind a HAProxy that passes connections on, and does not see the requests
// in them: clients are told by Sallyport that it goes away, and connect anew.
func TestP16_RollingRestartsBehindPassedOnConnectionsUnderLoad(t *testing.T) {
	stops, atLeast := 2, int64(500)
	if long() {
		stops, atLeast = 40, 30_000
	}
	rollingRestarts(t, passingOn, stops, atLeast)
}

// The same where HAProxy speaks HTTP/2 to Sallyport, as for gRPC: many requests share a
// connection that is told to end (RFC 9113 §6.8).
func TestP16_RollingRestartsOverHTTP2UnderLoad(t *testing.T) {
	stops, atLeast := 2, int64(500)
	if long() {
		stops, atLeast = 40, 30_000
	}
	rollingRestarts(t, overHTTP2, stops, atLeast)
}

func rollingRestarts(t *testing.T, w way, stops int, atLeast int64) {
	t.Helper()
	app := startLedger(t)
	b := newBalanced(t, w, app.server.URL, edits{})
	l := &rolling{b: b, app: app, cookie: b.signIn(t, "mira"), trust: need(t, world.cert), end: make(chan struct{})}
	halt := sync.OnceFunc(func() { close(l.end); l.clients.Wait() })
	defer halt()
	transport := newTransport(t, http2)
	for range 6 {
		l.clients.Go(l.keep)
		l.clients.Go(func() { l.share(transport) })
	}
	for range 2 {
		l.clients.Go(l.socket)
	}
	eventually(t, "the load", func() bool { return l.answered.Load() >= 100 && l.sockets.Load() >= 2 })

	begun := time.Now()
	var took []time.Duration
	var out []string // sessions that were signed out
	for n := 0; n < stops || l.answered.Load() < atLeast; n++ {
		stop, cookie := l.restart(t, b.replicas[n%2])
		took, out = append(took, stop), append(out, cookie)
		if n%20 == 19 {
			t.Logf("%d stops, %d requests, %d failed", n+1, l.answered.Load(), l.failures())
		}
		if l.failures() > 20 {
			break
		}
	}
	lasted := time.Since(begun)
	halt()
	slices.Sort(took)
	t.Logf("%d stops (%d of each server) in %v: %d requests, %d failed; WebSockets opened %d times, %d of them told "+
		"that the server goes away; from SIGTERM to the end %v to %v, half of them %v at most", len(took), len(took)/2,
		lasted.Round(time.Second), l.answered.Load(), l.failures(), l.sockets.Load(), l.told.Load(), took[0],
		took[len(took)-1], took[len(took)/2])
	for _, cookie := range out {
		for range b.replicas { // one after the other has its turn
			if got := b.status(t, "/get", cookie); got != http.StatusUnauthorized {
				t.Errorf("who signed out before a restart is answered %d after it", got)
			}
		}
	}
	l.audit(t)
}

// restart stops a server as an operator does, and starts it again once it has ended.
// Meanwhile somebody signs in and out; their session is returned.
func (l *rolling) restart(t *testing.T, r *replica) (stop time.Duration, cookie string) {
	t.Helper()
	time.Sleep(mathrand.N(100 * time.Millisecond)) // at any moment of the load
	l.phase.Store("while " + r.name + " stops")
	begun := time.Now()
	if err := r.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	cookie = l.b.signIn(t, "ines")
	select {
	case <-r.process.done:
	case <-time.After(patience):
		t.Fatal("still running")
	}
	stop = time.Since(begun).Round(time.Millisecond)
	if code := r.process.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("%s ends with exit code %d", r.name, code)
	}
	l.phase.Store("while " + r.name + " is away")
	if got := l.b.status(t, "/get", cookie); got != http.StatusOK {
		t.Errorf("who signed in during the stop is answered %d", got)
	}
	l.b.signOut(t, cookie)
	r.start(t)
	l.b.waitFor(t, r, "UP")
	l.phase.Store("while both run")
	return stop, cookie
}

// rolling is the load, and what became of it.
type rolling struct {
	b       *balanced
	app     *ledger
	cookie  string
	trust   certificate
	end     chan struct{}
	clients sync.WaitGroup
	phase   atomic.Value // what happens to the servers, in words

	answered, sockets, told atomic.Int64
	mu                      sync.Mutex // guards what follows
	sent                    []string   // the ids of all requests that were answered
	failed                  []string
}

func (l *rolling) over() bool {
	select {
	case <-l.end:
		return true
	default:
		return false
	}
}

func (l *rolling) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	phase, _ := l.phase.Load().(string)
	l.failed = append(l.failed, time.Now().Format("04:05.000 ")+phase+": "+fmt.Sprintf(format, args...))
}

func (l *rolling) failures() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.failed)
}

// question is a request and what its answer must be.
type question struct {
	id, method, path string
	body             []byte
	chunked, slow    bool // slow: the body takes a second
	answer           string
}

// Kinds of requests: half of them are quick; one in fifty takes a second to be answered,
// and another to be sent.
func (l *rolling) question() question {
	q := question{id: rand.Text(), method: http.MethodGet}
	switch n := mathrand.IntN(50); {
	case n == 0:
		q.path, q.answer = "/slow?id="+q.id, strings.Repeat("piece of "+q.id+"\n", slowPieces)
	case n < 25:
		q.method, q.path, q.chunked, q.slow = http.MethodPost, "/post?id="+q.id, n%2 == 0, n == 2
		q.body = make([]byte, mathrand.IntN(32<<10))
		_, _ = rand.Read(q.body) // it does not fail
		q.answer = fmt.Sprintf("%s: %d bytes", q.id, len(q.body))
	default:
		q.path, q.answer = "/get?id="+q.id, q.id+": 0 bytes"
	}
	return q
}

// judge counts an answer; it tells whether it was right.
func (l *rolling) judge(q question, resp *http.Response) bool {
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK || string(body) != q.answer {
		l.fail("%s %s over %s: %s, %.200q, %v", q.method, q.path, resp.Proto, resp.Status, body, err)
		return false
	}
	l.mu.Lock()
	l.sent = append(l.sent, q.id)
	l.mu.Unlock()
	l.answered.Add(1)
	return true
}

// keep is a client of HTTP/1.1 that keeps its connection and hides nothing: a request
// without an answer is not sent again.
func (l *rolling) keep() {
	for !l.over() {
		conn, err := tls.Dial("tcp", l.b.balancer, &tls.Config{RootCAs: l.trust.pool, ServerName: publicHost})
		if err != nil {
			l.fail("connecting: %v", err)
			return
		}
		l.converse(conn)
		conn.Close()
	}
}

func (l *rolling) converse(conn net.Conn) {
	in := bufio.NewReader(conn)
	for n := 1; n <= 50 && !l.over(); n++ {
		_ = conn.SetDeadline(time.Now().Add(patience))
		q := l.question()
		r, err := l.request(q)
		if err != nil {
			l.fail("%v", err)
			return
		}
		if err := r.Write(conn); err != nil {
			l.fail("sending request %d of a connection, %s %s: %v", n, q.method, q.path, err)
			return
		}
		resp, err := http.ReadResponse(in, r)
		if err != nil {
			l.fail("no answer to request %d of a connection, %s %s: %v", n, q.method, q.path, err)
			return
		}
		if !l.judge(q, resp) || resp.Close {
			return
		}
		time.Sleep(mathrand.N(5 * time.Millisecond))
	}
}

// share is a client of HTTP/2, over a connection with others.
func (l *rolling) share(transport http.RoundTripper) {
	for !l.over() {
		q := l.question()
		r, err := l.request(q)
		if err != nil {
			l.fail("%v", err)
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		resp, err := transport.RoundTrip(r.WithContext(ctx))
		if err != nil {
			l.fail("%s %s over HTTP/2: %v", q.method, q.path, err)
		} else {
			l.judge(q, resp)
		}
		cancel()
		time.Sleep(mathrand.N(5 * time.Millisecond))
	}
}

// request can be sent once more by a client of HTTP/2 that was told that the server did
// not look at it (RFC 9113 §6.8).
func (l *rolling) request(q question) (*http.Request, error) {
	r, err := http.NewRequest(q.method, l.b.url+q.path, bytes.NewReader(q.body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Cookie", l.cookie)
	if q.chunked {
		r.ContentLength = -1
	}
	if q.slow {
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(&slowBody{rest: q.body}), nil }
		r.Body, err = r.GetBody()
	}
	return r, err
}

// slowBody takes slowPieces times slowPause to be read.
type slowBody struct {
	rest []byte
	n    int // pieces that were read
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.n++; b.n <= slowPieces {
		time.Sleep(slowPause)
		p = p[:min(len(p), 100)]
	} else if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// audit says what went wrong, at the clients and at the app.
func (l *rolling) audit(t *testing.T) {
	t.Helper()
	if len(l.failed) > 0 {
		t.Errorf("%d requests failed:\n%s", len(l.failed), strings.Join(l.failed[:min(20, len(l.failed))], "\n"))
	}
	l.app.mu.Lock()
	defer l.app.mu.Unlock()
	for _, id := range l.sent {
		if n := l.app.arrived[id]; n != 1 {
			t.Errorf("request %s was answered, and reached the app %d times", id, n)
		}
	}
	if extra := len(l.app.arrived) - len(l.sent); extra > len(l.failed) {
		t.Errorf("%d requests reached the app that no client knows of", extra)
	}
	if l.told.Load() == 0 {
		t.Error("no WebSocket was told that its server goes away")
	}
}

// ledger is an app that counts what arrives.
type ledger struct {
	server  *httptest.Server
	mu      sync.Mutex // guards arrived
	arrived map[string]int
}

// Slow are ten pieces with a tenth of a second between them.
const (
	slowPieces = 10
	slowPause  = 100 * time.Millisecond
)

func startLedger(t *testing.T) *ledger {
	a := &ledger{arrived: map[string]int{}}
	a.server = httptest.NewServer(a)
	t.Cleanup(a.server.Close)
	return a
}

func (a *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "" {
		echoFrames(w)
		return
	}
	id := r.URL.Query().Get("id")
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	if id != "" { // one that a client of the load has made
		a.arrived[id]++
	}
	a.mu.Unlock()
	if r.URL.Path != "/slow" {
		fmt.Fprintf(w, "%s: %d bytes", id, n)
		return
	}
	for range slowPieces {
		fmt.Fprintf(w, "piece of %s\n", id)
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		time.Sleep(slowPause)
	}
}

// Frames of WebSockets (RFC 6455 §5.2), as short as these tests need them.
const (
	finalText  = 0x81
	finalClose = 0x88
	masked     = 0x80
	goingAway  = 1001 // §7.4.1
)

// readFrame returns the first byte of a short frame and what it carries.
func readFrame(in io.Reader) (byte, []byte, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(in, head); err != nil {
		return 0, nil, err
	}
	length, mask := int(head[1]&^masked), 0
	if head[1]&masked != 0 {
		mask = 4
	}
	rest := make([]byte, mask+length)
	if _, err := io.ReadFull(in, rest); err != nil {
		return 0, nil, err
	}
	for i := range length {
		if mask > 0 {
			rest[mask+i] ^= rest[i%mask]
		}
	}
	return head[0], rest[mask:], nil
}

// echoFrames is an app's side of a WebSocket.
func echoFrames(w http.ResponseWriter) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
	for {
		kind, payload, err := readFrame(buf)
		if err != nil {
			return
		}
		if _, err := conn.Write(append([]byte{kind, byte(len(payload))}, payload...)); err != nil || kind == finalClose {
			return
		}
	}
}

// socket is a client with a WebSocket on which it says something now and then. It
// connects anew when that ends, as pages do.
func (l *rolling) socket() {
	for !l.over() {
		conn, err := tls.Dial("tcp", l.b.balancer, &tls.Config{RootCAs: l.trust.pool, ServerName: publicHost})
		if err != nil {
			l.fail("connecting for a WebSocket: %v", err)
			return
		}
		l.talk(conn)
		conn.Close()
	}
}

func (l *rolling) talk(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(conn)
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nCookie: %s\r\nConnection: Upgrade\r\n"+
		"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		strings.TrimPrefix(l.b.url, "https://"), l.b.url, l.cookie)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		l.fail("a WebSocket is not opened: %v %v", resp, err)
		return
	}
	l.sockets.Add(1)
	for !l.over() {
		_ = conn.SetDeadline(time.Now().Add(patience))
		text := rand.Text()[:8]
		frame := append([]byte{finalText, masked | byte(len(text)), 0, 0, 0, 0}, text...) // a mask of zeros
		if _, err := conn.Write(frame); err != nil {
			l.fail("a WebSocket ends without a word: %v", err)
			return
		}
		kind, payload, err := readFrame(in)
		switch {
		case err == nil && kind == finalText && string(payload) == text:
			time.Sleep(mathrand.N(50 * time.Millisecond))
		case err == nil && kind == finalClose && len(payload) >= 2 && binary.BigEndian.Uint16(payload) == goingAway:
			l.told.Add(1)
			_, _ = conn.Write(append([]byte{finalClose, masked | 2, 0, 0, 0, 0}, payload[:2]...))
			return
		default:
			l.fail("a WebSocket: %#x %q %v", kind, payload, err)
			return
		}
	}
}
