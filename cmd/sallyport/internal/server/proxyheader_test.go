package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// header2 is a PROXY header of version 2.
func header2(command, family byte, body string) string {
	return string(proxyproto.SIGV2) + string([]byte{command, family, byte(len(body) >> 8), byte(len(body))}) + body
}

const (
	addresses4 = "\xc0\x00\x02\x07\x0a\x00\x00\x01\x30\x39\x01\xbb" // 192.0.2.7:12345 to 10.0.0.1:443
	line4      = "PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n"
)

// withChecksum adds a checksum that is off by as much as told.
func withChecksum(off uint32) string {
	raw := []byte(header2(0x21, 0x11, addresses4+"\x03\x00\x04\x00\x00\x00\x00"))
	binary.BigEndian.PutUint32(raw[len(raw)-4:], crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli))+off)
	return string(raw)
}

// runProxied serves whoever asks their own address, behind proxies.
func runProxied(t *testing.T, proxies []netip.Prefix, pair *tls.Certificate) (address string, stop func(),
	stopped chan error) {
	t.Helper()
	return runProxiedTelling(t, proxies, pair, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
}

// runProxiedTelling is runProxied with what it counts and tells.
func runProxiedTelling(t *testing.T, proxies []netip.Prefix, pair *tls.Certificate, reg prometheus.Registerer,
	log *slog.Logger) (address string, stop func(), stopped chan error) {
	t.Helper()
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto+" "+r.RemoteAddr)
	})
	l := listenForTest(t)
	on := &Listener{on: l, Key: "listen.http", Proxies: proxies, HTTP: NewPublicHTTP(app, limitsWith(pair == nil), log)}
	if pair != nil {
		c := &Certificate{}
		c.current.Store(pair)
		on.HTTP.TLSConfig = c.Config()
	}
	s := &Server{Listeners: []*Listener{on}, StopTimeout: 20 * time.Second, Log: log, Ready: &atomic.Bool{}}
	s.Measure(reg)
	ctx, stop := context.WithCancel(t.Context())
	stopped = make(chan error, 1)
	go func() { stopped <- s.Run(ctx) }()
	return l.Addr().String(), stop, stopped
}

func loopback() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

const question = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

// answerTo is what comes back for some bytes, until the connection is closed.
func answerTo(t *testing.T, address, sent string) string {
	t.Helper()
	c := open(t, dialPlain, address)
	_, _ = io.WriteString(c, sent)
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	got, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q: the connection stays open", sent)
	}
	return string(got)
}

// TestP04_ProxyHeadersFromListedPeersNameTheClient, whatever form they have, and what
// is no whole header is closed without an answer.
func TestP04_ProxyHeadersFromListedPeersNameTheClient(t *testing.T) {
	// Where no client is named the balancer is not taken for one: it has no port.
	const own, named, closed = "HTTP/1.1 127.0.0.1:0", "HTTP/1.1 192.0.2.7:12345", ""
	address, _, _ := runProxied(t, loopback(), nil)
	for name, tt := range map[string]struct{ header, want string }{
		"version 1": {line4, named},
		"version 1, IPv6": {"PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n", "HTTP/1.1 " +
			"[2001:db8::7]:12345"},
		"version 1, IPv4 in IPv6":      {"PROXY TCP6 ::ffff:192.0.2.7 ::1 12345 443\r\n", named},
		"version 1, UNKNOWN":           {"PROXY UNKNOWN\r\n", own},
		"version 1, UNKNOWN with more": {"PROXY UNKNOWN 2001:db8::7 ::1 1 2\r\n", own},
		"version 2":                    {header2(0x21, 0x11, addresses4), named},
		"version 2, IPv6": {header2(0x21, 0x21,
			string(netip.MustParseAddr("2001:db8::7").AsSlice())+strings.Repeat("\x00", 16)+"\x30\x39\x01\xbb"),
			"HTTP/1.1 [2001:db8::7]:12345"},
		"version 2, LOCAL":              {header2(0x20, 0x00, ""), own},
		"version 2, LOCAL with address": {header2(0x20, 0x11, addresses4), own},
		"version 2, no family":          {header2(0x21, 0x00, ""), own},
		"version 2, Unix socket":        {header2(0x21, 0x31, strings.Repeat("\x00", 216)), own},
		"version 2, checksum":           {withChecksum(0), named},
		"version 2, other TLVs":         {header2(0x21, 0x11, addresses4+"\x04\x00\x01x\xea\x00\x00"), named},
		"version 2, 4 KiB": {header2(0x21, 0x11,
			addresses4+"\x04\x0f\xe1"+strings.Repeat("x", 4096-16-12-3)), named},

		"none":                        {"", closed},
		"version 1, an address less":  {"PROXY TCP4 192.0.2.7 12345 443\r\n", closed},
		"version 1, a name":           {"PROXY TCP4 localhost 10.0.0.1 1 2\r\n", closed},
		"version 1, a port too high":  {"PROXY TCP4 192.0.2.7 10.0.0.1 70000 443\r\n", closed},
		"version 1, no end":           {"PROXY TCP4 " + strings.Repeat("1", 200), closed},
		"version 1, without CR":       {"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\n", closed},
		"version 2, wrong checksum":   {withChecksum(1), closed},
		"version 2, half a TLV":       {header2(0x21, 0x11, addresses4+"\x04\x00\x09x"), closed},
		"version 2, half an address":  {header2(0x21, 0x11, addresses4[:8]), closed},
		"version 2, datagrams":        {header2(0x21, 0x12, addresses4), closed},
		"version 2, another command":  {header2(0x22, 0x11, addresses4), closed},
		"version 2, another family":   {header2(0x21, 0x41, addresses4), closed},
		"version 2, 64 KiB announced": {string(proxyproto.SIGV2) + "\x21\x11\xff\xff" + addresses4, closed},
		"version 2, one byte too long": {header2(0x21, 0x11,
			addresses4+"\x04\x0f\xe2"+strings.Repeat("x", 4097-16-12-3)), closed},
	} {
		got := answerTo(t, address, tt.header+question)
		if tt.want == closed && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	for name, header := range map[string]string{"two headers": line4 + line4,
		"both versions": header2(0x21, 0x11, addresses4) + line4} {
		if got := answerTo(t, address, header+question); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%s: %q", name, got)
		}
	}
	c := open(t, dialPlain, address).(*net.TCPConn)
	_, _ = io.WriteString(c, line4[:20])
	_ = c.CloseWrite()
	if got, _ := io.ReadAll(c); len(got) > 0 {
		t.Errorf("half a header and the end: %q", got)
	}
}

// TestP04_AProxyHeaderOfAStrangerNamesNobody: what is not on the list is not heard.
func TestP04_AProxyHeaderOfAStrangerNamesNobody(t *testing.T) {
	pair := testenv.NewKeyPair(t, "a.example", time.Now().Add(time.Hour)).TLS(t)
	for _, proxies := range [][]netip.Prefix{nil, {netip.MustParsePrefix("10.0.0.0/8")}} {
		plain, _, _ := runProxied(t, proxies, nil)
		secure, _, _ := runProxied(t, proxies, pair)
		for _, header := range []string{line4, "PROXY UNKNOWN\r\n", header2(0x21, 0x11, addresses4),
			header2(0x20, 0, "")} {
			if got := answerTo(t, plain, header+question); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
				t.Errorf("%q: %q", header, got)
			}
			if got := answerTo(t, secure, header+question); strings.Contains(got, "200") {
				t.Errorf("over TLS, %q: %q", header, got)
			}
		}
		if got := answerTo(t, plain, question); !strings.Contains(got, "HTTP/1.1 127.0.0.1:") {
			t.Errorf("without a header: %q", got)
		}
	}
}

// TestAProxyHeaderComesBeforeTLSAndHTTP2 and names the client there too.
func TestAProxyHeaderComesBeforeTLSAndHTTP2(t *testing.T) {
	pair := testenv.NewKeyPair(t, "a.example", time.Now().Add(time.Hour)).TLS(t)
	for name, tt := range map[string]struct {
		pair    *tls.Certificate
		http1   bool
		begins  string
		address string
	}{
		"https":             {pair, true, "https://", "HTTP/1.1 192.0.2.7:12345"},
		"HTTP/2":            {pair, false, "https://", "HTTP/2.0 192.0.2.7:12345"},
		"HTTP/2 and no TLS": {nil, false, "http://", "HTTP/2.0 192.0.2.7:12345"},
	} {
		t.Run(name, func(t *testing.T) {
			address, _, _ := runProxied(t, loopback(), tt.pair)
			protocols := &http.Protocols{}
			protocols.SetHTTP1(tt.http1)
			protocols.SetHTTP2(!tt.http1 && tt.pair != nil)
			protocols.SetUnencryptedHTTP2(!tt.http1 && tt.pair == nil)
			client := &http.Client{Transport: &http.Transport{Protocols: protocols,
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
				DialContext: func(context.Context, string, string) (net.Conn, error) {
					c, err := net.Dial("tcp", address)
					if err == nil {
						_, err = io.WriteString(c, line4)
					}
					return c, err
				}}}
			defer client.CloseIdleConnections()
			res, err := client.Get(tt.begins + address)
			testenv.Check(t, err)
			defer res.Body.Close()
			if got, _ := io.ReadAll(res.Body); string(got) != tt.address {
				t.Errorf("it was asked by %q", got)
			}
		})
	}
}

// TestP17_StalledProxyHeadersHoldUpNobody: a hundred peers say nothing, or begin a
// header and say no more; another is answered, and a stop closes them all.
func TestP17_StalledProxyHeadersHoldUpNobody(t *testing.T) {
	address, stop, stopped := runProxied(t, loopback(), nil)
	var stalled []net.Conn
	for i := range 100 {
		c := open(t, dialPlain, address)
		_, _ = io.WriteString(c, line4[:i%30])
		stalled = append(stalled, c)
	}
	if got := answerTo(t, address, line4+question); !strings.Contains(got, "192.0.2.7:12345") {
		t.Errorf("behind them: %q", got)
	}
	stop()
	for _, c := range stalled {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if got, err := io.ReadAll(c); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a stalled peer got %q, %v", got, err)
		}
	}
	testenv.Check(t, <-stopped)
}

// TestP17_AProxyHeaderHasALimitInTime that no single byte prolongs.
func TestP17_AProxyHeaderHasALimitInTime(t *testing.T) {
	on := &Listener{on: listenForTest(t), Proxies: loopback(),
		HTTP: NewPublicHTTP(http.NotFoundHandler(), limitsWith(false), slog.New(slog.DiscardHandler))}
	defer on.on.Close()
	reg := prometheus.NewRegistry()
	(&Server{Listeners: []*Listener{on}}).Measure(reg)
	var told bytes.Buffer
	from := on.drained(slog.New(slog.NewTextHandler(&told, nil)))
	if on.drain.proxyLimit != 5*time.Second {
		t.Errorf("a header may take %s", on.drain.proxyLimit)
	}
	on.drain.proxyLimit = 200 * time.Millisecond
	c := open(t, dialPlain, on.Addr().String())
	accepted, err := from.Accept()
	testenv.Check(t, err)
	go func() { // until it fails
		for {
			if _, err := io.WriteString(c, line4[:1]); err != nil {
				return
			}
			for i := 1; i < len(line4)-2; i++ {
				if _, err := io.WriteString(c, line4[i:i+1]); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}()
	if n, err := accepted.Read(make([]byte, 1)); n != 0 || !errors.Is(err, errProxyHeaderLate) {
		t.Errorf("it reads %d bytes, %v", n, err)
	}
	if !strings.Contains(told.String(), "no whole PROXY header within 5s") {
		t.Errorf("operators read %q", &told)
	}
	if got := refusedBy(t, reg); got[refusedLate] != 1 || len(got) != 1 {
		t.Errorf("counted are %v", got)
	}
}

// refusedBy is how many connections of a listener were refused, by reason.
func refusedBy(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	testenv.Check(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" {
					got[l.GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
	}
	return got
}

// TestRefusedProxyHeadersAreCounted, each by its reason, and the first of each reason is
// told: over plain http and before TLS, from a peer on the list and from a stranger.
func TestRefusedProxyHeadersAreCounted(t *testing.T) {
	pair := testenv.NewKeyPair(t, "a.example", time.Now().Add(time.Hour)).TLS(t)
	for name, tls := range map[string]*tls.Certificate{"http": nil, "https": pair} {
		for _, tt := range []struct {
			listed bool
			sent   []string
			want   map[string]float64
			told   string
		}{
			{true, []string{question, question, "x"}, map[string]float64{refusedMissing: 3}, "did not keep to it"},
			{true, []string{"PROXY TCP4 nobody\r\n", withChecksum(1)}, map[string]float64{refusedMalformed: 2},
				"did not keep to it"},
			{true, []string{line4, "PROXY UNKNOWN\r\n", header2(0x20, 0, "")}, map[string]float64{}, ""},
			{false, []string{line4, header2(0x21, 0x11, addresses4)}, map[string]float64{refusedStranger: 2},
				"not in proxy_protocol"},
			{false, []string{question, "PROXYS are no header"}, map[string]float64{}, ""},
		} {
			var proxies []netip.Prefix
			if tt.listed {
				proxies = loopback()
			}
			reg, told := prometheus.NewRegistry(), &bytes.Buffer{}
			address, stop, stopped := runProxiedTelling(t, proxies, tls, reg, slog.New(slog.NewTextHandler(told, nil)))
			for _, sent := range tt.sent {
				c := open(t, dialPlain, address).(*net.TCPConn)
				_, _ = io.WriteString(c, sent)
				_ = c.CloseWrite()
				_, _ = io.ReadAll(c) // until it is closed
			}
			stop()
			testenv.Check(t, <-stopped)
			if got := refusedBy(t, reg); !maps.Equal(got, tt.want) {
				t.Errorf("%s, listed %v, %q: counted are %v", name, tt.listed, tt.sent, got)
			}
			warned := strings.Count(told.String(), "level=WARN")
			if warned != len(tt.want) || !strings.Contains(told.String(), tt.told) {
				t.Errorf("%s, listed %v, %q: operators read\n%s", name, tt.listed, tt.sent, told)
			}
		}
	}
}

// FuzzProxyHeader: whatever a peer sends, no more is taken than a header's bytes, and
// what is accepted is an address or none.
func FuzzProxyHeader(f *testing.F) {
	for _, seed := range []string{line4, "PROXY UNKNOWN\r\n", header2(0x21, 0x11, addresses4), withChecksum(0),
		withChecksum(1),
		header2(0x20, 0, ""), header2(0x21, 0x31, strings.Repeat("a", 216)), header2(0x21, 0, "\x04\x00\x00")} {
		f.Add([]byte(seed + question))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		in := bytes.NewReader(sent)
		raw, err := readProxyHeader(in)
		if len(raw) > proxyHeaderSize || len(raw)+in.Len() != len(sent) || !bytes.HasPrefix(sent, raw) {
			t.Fatalf("it took %d bytes of %d", len(raw), len(sent))
		}
		if err != nil {
			return
		}
		client, err := parseProxyHeader(raw)
		if client.IsValid() && (err != nil || client.Addr().Is4In6() || client.Addr().Zone() != "") {
			t.Fatalf("%v, %v", client, err)
		}
		if !bytes.HasPrefix(sent, raw) {
			t.Fatal("the bytes were changed")
		}
		if err == nil && raw[0] == proxyproto.SIGV1[0] {
			if _, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(raw))); err != nil {
				t.Fatal(err)
			}
		}
	})
}
