package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// runForGRPC is a listener for proxies that ask over gRPC, whose times are short.
func runForGRPC(t *testing.T, h http.HandlerFunc, secure bool) (address string) {
	t.Helper()
	l := listenForTest(t)
	answers := NewExternalAuthGRPC(h, time.Minute, slog.New(slog.DiscardHandler))
	answers.ReadTimeout, answers.WriteTimeout = time.Second, 2*time.Second
	if secure {
		c := &Certificate{}
		c.current.Store(testenv.NewKeyPair(t, "127.0.0.1", time.Now().Add(time.Hour)).TLS(t))
		answers.TLSConfig = c.Config()
		answers.TLSConfig.NextProtos = []string{"h2"}
	}
	s := &Server{Listeners: []*Listener{{on: l, HTTP: answers}}, StopTimeout: time.Second,
		Log: slog.New(slog.DiscardHandler), Ready: &atomic.Bool{}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	return l.Addr().String()
}

// A call whose message does not come, or whose answer is not written, ends: over HTTP/2
// without TLS, and over TLS, where another server has the connection.
func TestP17_ACallHasALimitInTime(t *testing.T) {
	for _, secure := range []bool{false, true} {
		read := make(chan error, 1)
		address := runForGRPC(t, func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			read <- err
		}, secure)
		body, hold := io.Pipe()
		r, err := http.NewRequest("POST", "http://"+address, body)
		if secure {
			r.URL.Scheme = "https"
		}
		testenv.Check(t, err)
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			if resp, err := http2ClientFor(secure).RoundTrip(r); err == nil {
				_ = resp.Body.Close()
			}
		}()
		_, _ = io.WriteString(hold, "begun") // fails on a machine so slow that the time is over
		if err := <-read; err == nil {
			t.Errorf("TLS %v: half a message is a message", secure)
		}
		_ = hold.CloseWithError(errors.New("over"))
		<-asked
	}
}

// http2ClientFor asks with HTTP/2 only. It verifies no certificate: that of the listener is
// made for the test, and vouched for by nobody.
func http2ClientFor(secure bool) http.RoundTripper {
	p := &http.Protocols{}
	p.SetHTTP2(secure)
	p.SetUnencryptedHTTP2(!secure)
	return &http.Transport{Protocols: p, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
}

// HTTP/1.1 is not spoken there, so a proxy that asks at the wrong address gets no answer
// that it could take for one.
func TestHTTP1IsNotSpokenWhereGRPCIs(t *testing.T) {
	address := runForGRPC(t, func(http.ResponseWriter, *http.Request) { t.Error("it is answered") }, false)
	c, err := net.Dial("tcp", address)
	testenv.Check(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "GET /verify HTTP/1.1\r\nHost: a\r\n\r\n")
	testenv.Check(t, err)
	if got, _ := io.ReadAll(c); strings.Contains(string(got), "200") {
		t.Errorf("%q", got)
	}
}

// A connection has no more than 250 calls at once, and says so.
func TestP17_CallsOnAConnectionAreCounted(t *testing.T) {
	address := runForGRPC(t, func(http.ResponseWriter, *http.Request) {}, false)
	c, err := net.Dial("tcp", address)
	testenv.Check(t, err)
	defer c.Close()
	_, err = io.WriteString(c, http2Preface+http2Frame(0x4, 0, 0, "")) // SETTINGS (RFC 9113 §6.5)
	testenv.Check(t, err)
	head := make([]byte, frameHead)
	_, err = io.ReadFull(c, head)
	testenv.Check(t, err)
	settings := make([]byte, int(head[1])<<8|int(head[2]))
	_, err = io.ReadFull(c, settings)
	testenv.Check(t, err)
	const mostStreams = "\x00\x03\x00\x00\x00\xfa" // SETTINGS_MAX_CONCURRENT_STREAMS
	if head[3] != 0x4 || !strings.Contains(string(settings), mostStreams) {
		t.Errorf("%x %x", head, settings)
	}
}
