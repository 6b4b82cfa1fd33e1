package main

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/session"
)

func serveForTest(t *testing.T, h http.Handler, h2c bool) (address string) {
	t.Helper()
	l := listenForTest(t)
	srv := newPublicServer(h, limitsWith(h2c), slog.New(slog.DiscardHandler))
	t.Cleanup(func() { _ = srv.Close() })
	go func() { _ = srv.Serve(l) }()
	return l.Addr().String()
}

// TestHTTP2WithoutTLSOnlyWhereAsked: with h2c both HTTP/2 and HTTP/1.1 are
// answered; without it a client that begins with HTTP/2 gets an error.
func TestHTTP2WithoutTLSOnlyWhereAsked(t *testing.T) {
	for _, h2c := range []bool{true, false} {
		address := serveForTest(t, &echo{}, h2c)
		err := http2Client(false)(address)("hi")
		if (err == nil) != h2c {
			t.Errorf("h2c %v: HTTP/2 by prior knowledge: %v", h2c, err)
		}
		c := open(t, dialPlain, address)
		if _, err := exchange(c, bufio.NewReader(c), "hi", ""); err != nil {
			t.Errorf("h2c %v: HTTP/1.1: %v", h2c, err)
		}
	}
}

// TestAPrefaceWithoutH2CIsOneRefusal: net/http hands the preface to the handler,
// so the front door itself refuses it. What follows is not read as a request.
func TestAPrefaceWithoutH2CIsOneRefusal(t *testing.T) {
	cfg, _, err := parseConfig("c.yaml", []byte("version: 1\npublic_url: https://app.example.com\n"+
		"session: {keys: [\"literal:"+session.NewKey(time.Unix(1.7e9, 0)).Text()+"\"]}\n"+
		"providers: [{id: a, type: oidc, issuer: \"https://idp.example\", client_id: a, client_secret: \"literal:0123456789abcdef\"}]\n"+
		"routes: [{name: app, path: /, upstream: \"http://127.0.0.1:1\", public: true}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	sec, err := assemble.Resolve(cfg, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	door, err := newFrontDoor(cfg, sec, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c := open(t, dialPlain, serveForTest(t, door, false))
	if _, err := io.WriteString(c, http2Preface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	text, err := io.ReadAll(c)
	if got := string(text); errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasPrefix(got, "HTTP/1.1 400 ") ||
		!strings.Contains(got, "\r\nConnection: close\r\n") || strings.Count(got, "HTTP/1.1 ") != 1 {
		t.Errorf("the answer to a preface: %q, %v", got, err)
	}
}

// TestP20_115_UpgradeToH2CIsNeverHonoured, though HTTP/2 without TLS is spoken
// here: the upgrade would open a way past the rules for what follows.
func TestP20_115_UpgradeToH2CIsNeverHonoured(t *testing.T) {
	for _, h2c := range []bool{true, false} {
		c := open(t, dialPlain, serveForTest(t, &echo{}, h2c))
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"+
			"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != http.StatusOK || res.ProtoMajor != 1 || res.Header.Get("Upgrade") != "" {
			t.Errorf("h2c %v: %v, %v", h2c, res, err)
		}
	}
}

// TestP17_AnHTTP2ClientThatReadsNothingIsDisconnected: all streams of its
// connection end, though each could wait for the others.
func TestP17_AnHTTP2ClientThatReadsNothingIsDisconnected(t *testing.T) {
	const streams = 20
	ended := make(chan struct{}, streams)
	piece := make([]byte, 64<<10)
	srv := newPublicServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write(piece)
		}
		ended <- struct{}{}
	}), limitsWith(true), slog.New(slog.DiscardHandler))
	if srv.HTTP2.WriteByteTimeout != unreadFor {
		t.Fatalf("%v", srv.HTTP2.WriteByteTimeout)
	}
	srv.HTTP2.WriteByteTimeout = 300 * time.Millisecond
	l := listenForTest(t)
	t.Cleanup(func() { _ = srv.Close() })
	go func() { _ = srv.Serve(l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(greedyPreface(streams)); err != nil {
		t.Fatal(err)
	}
	for range streams {
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("an answer goes on that nobody reads")
		}
	}
}

// greedyPreface opens streams, and the windows of all as wide as they go.
func greedyPreface(streams int) []byte {
	frame := func(kind, flags byte, stream int, payload ...byte) []byte {
		head := []byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, byte(stream)}
		return append(head, payload...)
	}
	out := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	out = append(out, frame(4, 0, 0, 0, 4, 0x7f, 0xff, 0, 0)...) // SETTINGS_INITIAL_WINDOW_SIZE
	out = append(out, frame(8, 0, 0, 0x7f, 0xff, 0, 0)...)       // WINDOW_UPDATE of the connection
	request := []byte{0x82, 0x86, 0x84, 0x41, 1, 'a'}            // RFC 7541: GET, http, /, :authority a
	for i := range streams {
		out = append(out, frame(1, 5, 2*i+1, request...)...) // HEADERS, END_HEADERS and END_STREAM
	}
	return out
}
