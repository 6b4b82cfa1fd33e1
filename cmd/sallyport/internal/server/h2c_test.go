package server

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"
)

func serveForTest(t *testing.T, h http.Handler, h2c bool) (address string) {
	t.Helper()
	l := listenForTest(t)
	srv := NewPublicHTTP(h, limitsWith(h2c), slog.New(slog.DiscardHandler))
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

// TestP20_115_UpgradeToH2CIsNeverHonoured, though HTTP/2 without TLS is spoken
// here: the upgrade would open a way past the rules for what follows.
func TestP20_115_UpgradeToH2CIsNeverHonoured(t *testing.T) {
	for _, h2c := range []bool{true, false} {
		c := open(t, dialPlain, serveForTest(t, &echo{}, h2c))
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: "+
			"h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"); err != nil {
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
	srv := NewPublicHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
