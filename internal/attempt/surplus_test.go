package attempt

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

const (
	goodAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	evilAnswer = "HTTP/1.1 599 Evil\r\nContent-Length: 0\r\n\r\n"
)

// pair is a wire whose reader waits, and the peer's end of it. As that of net/http
// the reader ends with what comes unasked, unless it waits for the rest of a record.
func pair(t *testing.T, records bool) (w *wire, peer net.Conn, read chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if peer, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	w = newWire(c)
	w.state.Store(asked)
	t.Cleanup(func() { w.Close(); peer.Close() })
	read = make(chan error, 1)
	go func() {
		for {
			if _, err := w.Read(make([]byte, 512)); err != nil || !records {
				read <- err
				return
			}
		}
	}()
	time.Sleep(10 * time.Millisecond)
	return w, peer, read
}

// The surplus lies in the kernel's buffer, and the reader, which is to take it, has
// had no processor yet: nothing of a request may be written.
func TestP23_SurplusThatNobodyHasReadYetIsSeen(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for name, tt := range map[string]struct {
		surplus func(peer net.Conn) error
		refused bool
	}{
		"an answer": {func(peer net.Conn) error { _, err := io.WriteString(peer, evilAnswer); return err }, true},
		"one byte":  {func(peer net.Conn) error { _, err := io.WriteString(peer, "H"); return err }, true},
		"the end":   {func(peer net.Conn) error { return peer.Close() }, true},
		"nothing":   {func(net.Conn) error { return nil }, false},
	} {
		for _, between := range []string{"before it is lent", "while it is lent"} {
			w, peer, read := pair(t, false)
			closed := func() bool { return len(read) > 0 }
			var lent bool
			if between == "while it is lent" {
				lent = w.lend(closed)
			}
			if err := tt.surplus(peer); err != nil {
				t.Fatal(err)
			}
			if between == "before it is lent" {
				lent = w.lend(closed)
			}
			n, err := 0, ErrSurplus
			if lent {
				n, err = w.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			}
			if refused := errors.Is(err, ErrSurplus) && n == 0; refused != tt.refused {
				t.Errorf("%s, %s: wrote %d, %v", name, between, n, err)
			}
			if tt.refused && lent {
				if w.begun() {
					t.Errorf("%s, %s: counts as written to", name, between)
				}
				select {
				case err := <-read:
					if err == nil { // io.EOF, or ErrSurplus
						t.Errorf("%s, %s: the reader was given the surplus", name, between)
					}
				case <-time.After(5 * time.Second):
					t.Errorf("%s, %s: the reader does not end", name, between)
				}
			}
		}
	}
}

// Part of a TLS record is held back by crypto/tls, which waits for the rest.
func TestP23_HalfARecordIsSurplus(t *testing.T) {
	record := append([]byte{23, 3, 3, 0, 20}, make([]byte, 20)...)
	for _, tt := range []struct {
		sent []byte
		lent bool
	}{
		{record, true}, {append(record[:25:25], record...), true}, {record[:3], false}, {record[:5], false},
		{record[:24], false}, {append(record[:25:25], record[:7]...), false},
	} {
		w, peer, _ := pair(t, true)
		w.followRecords()
		if _, err := peer.Write(tt.sent); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // the reader has taken it
		if got := w.lend(func() bool { return false }); got != tt.lent {
			t.Errorf("after %d bytes: lent %v", len(tt.sent), got)
		}
	}
}

// The same through the whole pool: the second person never gets what the peer sent
// to the first one.
func TestP23_WhatWasSentUnaskedAnswersNobody(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	vouched := httptest.NewTLSServer(nil)
	defer vouched.Close()
	roots := x509.NewCertPool()
	roots.AddCert(vouched.Certificate())
	for _, encrypted := range []bool{false, true} {
		conns, unasked := make(chan net.Conn, 1000), 0
		url := listen(t, func(c net.Conn) {
			if encrypted {
				c = tls.Server(c, &tls.Config{Certificates: vouched.TLS.Certificates, MinVersion: tls.VersionTLS12})
			}
			in := bufio.NewReader(c)
			for {
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				conns <- c
				_, _ = io.WriteString(c, goodAnswer)
			}
		})
		base := &http.Transport{}
		if encrypted {
			base.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
			url = strings.Replace(url, "http:", "https:", 1)
		}
		transport := New(base, Options{})
		t.Cleanup(transport.CloseIdleConnections)
		for i := range 100 {
			if status, err := send(t, transport, "POST", url, "order"); status != 200 {
				t.Fatalf("TLS %v, request %d: answered %d, %v", encrypted, i, status, err)
			}
			c := <-conns
			time.Sleep(200 * time.Microsecond)                       // the reader waits
			if _, err := io.WriteString(c, evilAnswer); err == nil { // else we have closed the connection
				unasked++
			}
		}
		if unasked < 10 {
			t.Errorf("TLS %v: only %d connections were open for what nobody asked for", encrypted, unasked)
		}
	}
}

// BenchmarkKeepAlive is a request and its answer over a connection of the pool.
func BenchmarkKeepAlive(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	transport := New(&http.Transport{}, Options{})
	defer transport.CloseIdleConnections()
	r, _ := http.NewRequestWithContext(b.Context(), "GET", srv.URL, nil)
	b.ReportAllocs()
	for b.Loop() {
		res, err := transport.RoundTrip(r)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}
