package egress_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/egress"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// CVE-2026-41413 and others: a server that fetches what somebody names reaches what only it
// can reach, by one of the many ways in which such an address is written.
func TestP08_OnlyPublicAddressesArePublic(t *testing.T) {
	for address, want := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "17.248.190.1": true, "100.63.255.255": true, "100.128.0.0": true,
		"172.15.255.255": true, "172.32.0.0": true, "192.0.1.1": true, "223.255.255.255": true, "11.0.0.0": true,
		"2606:4700:4700::1111": true, "2a00:1450:4001:80e::200e": true, "2001:200::1": true, "::ffff:8.8.8.8": true,

		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "10.255.255.255": false, "100.64.0.1": false,
		"100.127.255.255": false, "127.0.0.1": false, "127.255.255.254": false, "169.254.169.254": false,
		"169.254.0.0": false, "172.16.0.1": false, "172.31.255.255": false, "192.0.0.8": false, "192.0.2.1": false,
		"192.88.99.1": false, "192.168.1.1": false, "198.18.0.1": false, "198.19.255.255": false,
		"198.51.100.7": false, "203.0.113.9": false, "224.0.0.1": false, "239.255.255.255": false,
		"240.0.0.1": false, "255.255.255.255": false, "168.63.129.16": false,

		"::": false, "::1": false, "::2": false, "::127.0.0.1": false, "::8.8.8.8": false,
		"::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::ffff:a9fe:a9fe": false, "::ffff:0:8.8.8.8": false,
		"64:ff9b::7f00:1": false, "64:ff9b::8.8.8.8": false, "64:ff9b:1::a00:1": false, "100::1": false,
		"2001::1": false, "2001:0:4136:e378:8000:63bf:3fff:fdd2": false, "2001:10::1": false, "2001:1ff::1": false,
		"2001:db8::1": false, "2002:7f00:1::": false, "2002:808:808::1": false, "3fff::1": false, "4000::1": false,
		"5f00::1": false, "fc00::1": false, "fd00:ec2::254": false, "fe80::1": false, "febf::1": false,
		"fe80::1%eth0": false, "2606:4700:4700::1111%eth0": false, "fec0::1": false, "ff02::1": false,
	} {
		if got := egress.IsPublic(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: public is %v", address, got)
		}
	}
	if egress.IsPublic(netip.Addr{}) {
		t.Error("no address at all is public")
	}
}

// listen counts the connections to a listener at an address of loopback.
func listen(t *testing.T, address string) (at string, got *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got = new(atomic.Int32)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			got.Add(1)
			c.Close()
		}
	}()
	return l.Addr().String(), got
}

func TestP08_NothingIsSentToAnAddressThatIsNotPublic(t *testing.T) {
	at, got := listen(t, "127.0.0.1:0")
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	dial := egress.DialContext(net.Dialer{Timeout: 10 * time.Second})
	for _, host := range []string{"127.0.0.1", "localhost", "127.1", "0", "0.0.0.0", "::ffff:127.0.0.1", "::1", "::",
		"::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "169.254.169.254",
		"10.0.0.1", "224.0.0.1", "fe80::1%lo", "2130706433", "0x7f000001", "0177.0.0.1"} {
		c, err := dial(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err == nil {
			c.Close()
		}
		// Where the resolver takes no such spelling for an address, there is no such host.
		if _, unknown := errors.AsType[*net.DNSError](err); !errors.Is(err, egress.ErrNotPublic) && !unknown {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, network := range []string{"unix", "udp", "ip"} {
		if _, err := dial(t.Context(), network, at); !errors.Is(err, egress.ErrNotPublic) {
			t.Errorf("%s: %v", network, err)
		}
	}
	if n := got.Load(); n != 0 {
		t.Errorf("the listener saw %d connections", n)
	}
	if c, err := net.Dial("tcp", at); err != nil {
		t.Errorf("nobody could have reached the listener: %v", err)
	} else {
		c.Close()
	}
}

var errReached = errors.New("it would have been connected to")

// DNS rebinding: the name is public when somebody looks, and private when it is connected to.
// The peer is 8.8.8.8 for the first request, which is not sent on from here.
func TestP08_ANameThatIsPublicAndThenPrivateIsNotReached(t *testing.T) {
	at, got := listen(t, "127.0.0.1:0")
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	names := testenv.StartDNS(t, "8.8.8.8", "127.0.0.1")
	dial := egress.DialContext(net.Dialer{Timeout: 10 * time.Second, Resolver: names.Resolver(),
		ControlContext: func(context.Context, string, string, syscall.RawConn) error { return errReached }})
	for i, want := range []error{errReached, egress.ErrNotPublic, egress.ErrNotPublic} {
		if _, err := dial(t.Context(), "tcp", "calendar.example.com:"+port); !errors.Is(err, want) {
			t.Errorf("%d: %v, not %v", i, err, want)
		}
	}
	if names.Asked.Load() != 3 || got.Load() != 0 {
		t.Errorf("the name was looked up %d times, the listener saw %d connections", names.Asked.Load(), got.Load())
	}
}

// What a transport was given for TLS or as a proxy would connect past the guard.
func TestP08_AGuardedTransportHasNoOtherWay(t *testing.T) {
	var hits atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer srv.Close()
	here := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", srv.Listener.Addr().String())
	}
	proxy, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DialContext: here, DialTLSContext: here, Proxy: http.ProxyURL(proxy)}
	egress.Guard(tr, 10*time.Second)
	for _, address := range []string{srv.URL, "https://127.0.0.1:1/", "http://localhost:1/"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := tr.RoundTrip(req)
		if err == nil {
			res.Body.Close()
		}
		if !errors.Is(err, egress.ErrNotPublic) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if hits.Load() != 0 {
		t.Errorf("%d requests arrived", hits.Load())
	}
}
