package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

func noLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// runGrantsAddress is the listener for apps at an address, without or with TLS.
func runGrantsAddress(t *testing.T, h http.HandlerFunc, secure bool, header time.Duration) (address string) {
	t.Helper()
	g := Grants{Key: "listen.grants", Address: "127.0.0.1:0", KeepAlive: time.Minute, Handler: h}
	if secure {
		g.Certificate = &Certificate{}
		g.Certificate.current.Store(testenv.NewKeyPair(t, "127.0.0.1", time.Now().Add(time.Hour)).TLS(t))
	}
	s := &Server{Listeners: g.Listeners(noLog()), StopTimeout: 10 * time.Second, Log: noLog(), Ready: &atomic.Bool{}}
	l := s.Listeners[0]
	if header != 0 {
		l.HTTP.ReadHeaderTimeout = header
	}
	testenv.Check(t, s.Open(t.Context()))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// HTTP/1.1 is spoken everywhere, HTTP/2 with TLS only.
func TestGrantsAreServedWithAndWithoutTLS(t *testing.T) {
	for _, secure := range []bool{false, true} {
		address := runGrantsAddress(t, (&echo{}).ServeHTTP, secure, 0)
		dial := dialPlain
		if secure {
			dial = overTLS("http/1.1")
		}
		c := open(t, dial, address)
		if _, err := exchange(c, bufio.NewReader(c), "hi", ""); err != nil {
			t.Errorf("TLS %v: HTTP/1.1: %v", secure, err)
		}
		if err := http2Client(secure)(address)("hi"); (err == nil) != secure {
			t.Errorf("TLS %v: HTTP/2: %v", secure, err)
		}
	}
}

// A body has the time that it takes, and the size that the gateway allows; a header has
// neither: more than 64 KiB are refused, and half of one is not waited for.
func TestP17_AnAppsHeaderHasLimitsAndItsBodyHasTime(t *testing.T) {
	const headerTime = time.Second
	address := runGrantsAddress(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n, err)
	}, false, headerTime)
	c := open(t, dialPlain, address)
	const half = 2 << 20
	_, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", 2*half,
		strings.Repeat("x", half))
	testenv.Check(t, err)
	time.Sleep(2 * headerTime)
	_, err = io.WriteString(c, strings.Repeat("x", half))
	testenv.Check(t, err)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	testenv.Check(t, err)
	if got, _ := io.ReadAll(res.Body); string(got) != fmt.Sprint(2*half, nil) {
		t.Errorf("of the body came %q", got)
	}
	for header, want := range map[string]int{strings.Repeat("x", 50<<10): 200, strings.Repeat("x", 80<<10): 431} {
		r, err := http.NewRequest(http.MethodGet, "http://"+address, nil)
		testenv.Check(t, err)
		r.Header.Set("X-Long", header)
		res, err := http.DefaultTransport.RoundTrip(r)
		testenv.Check(t, err)
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("a header of %d bytes: %d, want %d", len(header), res.StatusCode, want)
		}
	}
	slow := open(t, dialPlain, address)
	_, err = io.WriteString(slow, "GET / HTTP/1.1\r\nHo")
	testenv.Check(t, err)
	_ = slow.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.Copy(io.Discard, slow); err != nil {
		t.Errorf("half a header is waited for: %v", err)
	}
}
