package command

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/server"
	"github.com/sallyport-proxy/sallyport/session"
)

// TestAPrefaceWithoutH2CIsOneRefusal: net/http hands the preface to the handler,
// so the front door itself refuses it. What follows is not read as a request.
func TestAPrefaceWithoutH2CIsOneRefusal(t *testing.T) {
	cfg, _, err := parseConfig("c.yaml", []byte("version: 1\npublic_url: https://app.example.com\n"+
		"session: {keys: [\"literal:"+session.NewKey(time.Unix(1.7e9, 0)).Text()+"\"]}\n"+
		"providers: [{id: a, type: oidc, issuer: \"https://idp.example\", client_id: a, client_secret: "+
		"\"literal:0123456789abcdef\"}]\n"+
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := server.NewPublicHTTP(door, server.Limits{Header: 64 << 10, KeepAlive: time.Minute},
		slog.New(slog.DiscardHandler))
	t.Cleanup(func() { _ = srv.Close() })
	go func() { _ = srv.Serve(l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" // RFC 9113 §3.4
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
