// Package egress connects to hosts that the operator did not choose: a person named them, or
// a third party did.
//
// It owns one judgement, which addresses are public, and makes it where nothing can come in
// between: on the address that a socket is about to connect to. So it does not matter how a
// name was spelt, what it resolved to when somebody looked before, or where a redirect led.
// Which hosts need it is the caller's to say; the package knows no names.
package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// ErrNotPublic says that nothing was sent, because the address is not a public one.
var ErrNotPublic = errors.New("the address is not a public one, and the operator has not allowed the host")

// IsPublic reports whether an address is that of one host on the Internet: unicast, and none
// that stands for this machine, a private network, or another address that it carries.
func IsPublic(a netip.Addr) bool {
	if a.Zone() != "" {
		return false
	}
	special := special6()
	if a = a.Unmap(); a.Is4() {
		special = special4()
	} else if !globalUnicast.Contains(a) {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsValid()
}

// globalUnicast is all of IPv6 that is given out (RFC 4291 §2.4, IANA's registry of IPv6 global
// unicast addresses). Outside of it are loopback, link-local and unique local addresses,
// multicast, IPv4 in ::/96, and NAT64 in 64:ff9b::/96 and 64:ff9b:1::/48.
var globalUnicast = netip.MustParsePrefix("2000::/3")

// special4 are those of IANA's special-purpose addresses (RFC 6890 and its registry) that are
// not on the Internet, multicast, and one more.
func special4() []netip.Prefix {
	return prefixes(
		"0.0.0.0/8",        // this network
		"10.0.0.0/8",       // private (RFC 1918)
		"100.64.0.0/10",    // behind a carrier's NAT (RFC 6598)
		"127.0.0.0/8",      // loopback
		"169.254.0.0/16",   // link-local, and the metadata of clouds
		"172.16.0.0/12",    // private
		"192.0.0.0/24",     // of protocols
		"192.0.2.0/24",     // documentation
		"192.88.99.0/24",   // 6to4 relays (RFC 7526)
		"192.168.0.0/16",   // private
		"198.18.0.0/15",    // benchmarks
		"198.51.100.0/24",  // documentation
		"203.0.113.0/24",   // documentation
		"224.0.0.0/4",      // multicast
		"240.0.0.0/4",      // reserved, and broadcast
		"168.63.129.16/32", // Azure's own services, as every virtual machine there sees them
	)
}

// special6 are those within globalUnicast.
func special6() []netip.Prefix {
	return prefixes(
		"2001::/23",     // of protocols: Teredo (RFC 4380) carries IPv4
		"2001:db8::/32", // documentation
		"2002::/16",     // 6to4 (RFC 3056) carries IPv4
		"3fff::/20",     // documentation (RFC 9637)
	)
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// DialContext returns a function that dials as d does, and to public addresses only. What d
// itself has for ControlContext is asked afterwards, its Control never. Errors wrap
// ErrNotPublic.
func DialContext(d net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	after := d.ControlContext
	d.ControlContext = func(ctx context.Context, network, address string, c syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil || !IsPublic(at.Addr()) {
			return fmt.Errorf("connect to %s: %w", address, ErrNotPublic)
		}
		if after != nil {
			return after(ctx, network, address, c)
		}
		return nil
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if network != "tcp" && network != "tcp4" && network != "tcp6" {
			return nil, fmt.Errorf("connect over %s: %w", network, ErrNotPublic)
		}
		return d.DialContext(ctx, network, address)
	}
}

// Guard has a transport connect to public addresses only, within a time. A forward proxy of
// the environment is not used: it would connect instead of us, to what nobody judged.
func Guard(t *http.Transport, within time.Duration) {
	t.Proxy, t.DialTLSContext = nil, nil
	t.DialContext = DialContext(net.Dialer{Timeout: within})
}
