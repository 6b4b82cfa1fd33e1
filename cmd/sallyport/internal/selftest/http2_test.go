package selftest

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// overHTTP2 starts a server that speaks HTTP/2 too, and returns a wire to it.
func overHTTP2(t *testing.T, h http.Handler) (wire, *httptest.Server) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	roots := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	return newWire(Options{URL: u, Roots: roots, Timeout: 20 * time.Second}), s
}

func getFields(path string) []field {
	return []field{{":method", "GET"}, {":scheme", "https"}, {":authority", "127.0.0.1"}, {":path", path}}
}

func TestStatusesOverHTTP2AreRead(t *testing.T) {
	w, _ := overHTTP2(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		if err != nil || r.ProtoMajor != 2 {
			t.Errorf("%s %s", r.Proto, r.URL)
		}
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(status)
	}))
	if !w.offersHTTP2(context.Background()) {
		t.Fatal("the server does not offer HTTP/2")
	}
	for _, status := range []int{200, 204, 206, 301, 302, 304, 400, 401, 403, 404, 405, 421, 426, 500, 502, 503, 598,
		967} {
		got, err := w.exchange(context.Background(), request{fields: getFields("/" + strconv.Itoa(status))})
		if err != nil || got.status != status {
			t.Errorf("%d: %d, %v", status, got.status, err)
		}
	}
}

// A field longer than one octet can say arrives as it is.
func TestLongFieldsArriveOverHTTP2(t *testing.T) {
	for _, n := range []int{1, 126, 127, 128, 254, 255, 256, 5000} {
		got := ""
		w, _ := overHTTP2(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = r.Header.Get("X-A")
		}))
		want := strings.Repeat("a", n)
		if _, err := w.exchange(context.Background(),
			request{fields: append(getFields("/"), field{"x-a", want})}); err != nil || got != want {
			t.Errorf("%d: %d arrived, %v", n, len(got), err)
		}
	}
}

// A front may guard one protocol and forget the other.
func TestWhatLeaksOverHTTP2AloneIsALeak(t *testing.T) {
	f := &strictFront{rewrite: func(in, out *http.Request) {
		if v := in.Header.Get("X-Forwarded-User"); in.ProtoMajor == 2 && v != "" {
			out.Header.Set("X-Forwarded-User", v)
		}
	}}
	l := listen(t)
	f.echo = l.Addr().String()
	w, s := overHTTP2(t, f)
	o := optionsFor(t, s.URL)
	o.Echo, o.Roots = l, w.roots
	report, _, err := runAgainst(t, o)
	if err != nil {
		t.Fatal(err)
	}
	found := faults(report)
	if cases := found["http2-spoof"]; len(cases) != 1 || cases[0].Result != Leak || len(found["spoof"]) != 0 {
		t.Errorf("%+v", found)
	}
}

// Frames that are too long, without end or of another protocol, and a stream that is
// ended, are no answer.
func TestPeersThatMisuseHTTP2EndTheRequest(t *testing.T) {
	settings := appendFrame(nil, frameSettings, 0, 0, nil)
	for name, answer := range map[string]func(net.Conn){
		"another protocol": func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") },
		"a long frame":     func(c net.Conn) { _, _ = c.Write([]byte{0xff, 0xff, 0xff, frameHeaders, 4, 0, 0, 0, 1}) },
		"no end": func(c net.Conn) {
			for {
				if _, err := c.Write(appendFrame(nil, framePing, flagAck, 0, make([]byte, 8))); err != nil {
					return
				}
			}
		},
		"a stream that ends": func(c net.Conn) {
			_, _ = c.Write(appendFrame(settings, frameRSTStream, 0, 1, make([]byte, 4)))
		},
		"no status": func(c net.Conn) { _, _ = c.Write(appendFrame(settings, frameHeaders, 4, 1, []byte{0x82})) },
		"nothing":   func(net.Conn) {},
	} {
		w, s := overHTTP2(t, http.NotFoundHandler())
		l, err := tls.Listen("tcp", "127.0.0.1:0",
			&tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			answer(conn)
		}()
		w.address = l.Addr().String()
		if got, err := w.exchange(context.Background(), request{fields: getFields("/")}); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
		_ = l.Close()
	}
}

func FuzzStatusOf(f *testing.F) {
	for _, seed := range []string{"\x88", "\x48\x03302", "\x48\x82\x64\x02", "\x08\x03401", "\x3f\xe1\x1f\x8d",
		"\x20\x88",
		"\x00\x07:status\x03200", "", "\x3f", "\x48", "\x48\x83\xff"} {
		f.Add([]byte(seed), byte(flagEndHeaders))
	}
	f.Fuzz(func(t *testing.T, block []byte, flags byte) {
		if status, err := statusOf(block, flags); err == nil && (status < 100 || status > 999) {
			t.Errorf("%d of %x", status, block)
		}
	})
}
