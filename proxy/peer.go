package proxy

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/sallyport-proxy/sallyport/authz"
)

// peer is where a request comes from, and under which address the client
// asked: as the TCP connection says, or as a proxy on the list of those that are
// trusted says (P4).
type peer struct {
	client, scheme, host string
	// addr is the client's address where we are sure of it, for rules about addresses.
	// client, which is told to apps and the log, is the best that there is.
	addr     netip.Addr
	trusted  bool // the TCP peer is on the list
	forwards bool // client says that it forwards for others, and is not on the list
}

// maxChain bounds how far back a chain of proxies is followed.
const maxChain = 32

// peers are the proxies whose X-Forwarded-{For,Host,Proto} count. scheme is that of
// requests that come from elsewhere.
type peers struct {
	scheme  string
	trusted []netip.Prefix
}

// of says where r comes from. It never reads Forwarded, X-Real-IP and similar
// headers: only X-Forwarded-*, and only from listed peers.
func (ps peers) of(r *http.Request) (peer, error) {
	at := peer{scheme: ps.scheme, host: r.Host}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return at, nil // a unix socket has no address
	}
	addr := from.Addr().Unmap().WithZone("") // prefixes have no zone, and a zone means nothing to an app
	at.client = textOf(from, r.RemoteAddr)
	if !ps.trusts(addr) {
		// Who forwards for others and is not on the list may have been left out of it by
		// mistake: then everybody would have this address. Without a port (0) it is that of
		// a load balancer, which has not said whose connection it passes on.
		if at.forwards = r.Header["X-Forwarded-For"] != nil; !at.forwards && from.Port() != 0 {
			at.addr = addr
		}
		return at, nil
	}
	at.trusted = true
	addr, forwards, sure := ps.client(addr, r.Header["X-Forwarded-For"])
	at.client, at.forwards = addr.String(), forwards
	if sure {
		at.addr = addr
	}
	if host, err := single(r.Header, "X-Forwarded-Host"); err != nil || host != "" {
		at.host = host
		if err != nil {
			return at, err
		}
	}
	scheme, err := single(r.Header, "X-Forwarded-Proto")
	switch scheme {
	case "":
	case "http", "ws": // Traefik names the scheme of a WebSocket's URL (RFC 6455 §3)
		at.scheme = "http"
	case "https", "wss":
		at.scheme = "https"
	default:
		return at, frontError("X-Forwarded-Proto is neither http nor https")
	}
	return at, err
}

// textOf is the address of from, which remote says with a port. There is one way to write
// an address of IPv4, so that it is a part of remote.
func textOf(from netip.AddrPort, remote string) string {
	if from.Addr().Is4() {
		return remote[:strings.LastIndexByte(remote, ':')]
	}
	return from.Addr().Unmap().WithZone("").String()
}

func (ps peers) trusts(addr netip.Addr) bool {
	for _, prefix := range ps.trusted {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// client is the rightmost address of the chain that is not a trusted proxy's: what
// stands to its left was not written by a trusted proxy. forwards reports whether there
// is anything to its left. sure is false if it is only the last proxy whose address
// could be read.
func (ps peers) client(peer netip.Addr, lines []string) (client netip.Addr, forwards, sure bool) {
	chain := strings.Join(lines, ",")
	for range maxChain {
		i := strings.LastIndexByte(chain, ',')
		addr, err := parseHop(chain[i+1:])
		if err != nil {
			return peer, false, false
		}
		if peer = addr; !ps.trusts(addr) || i < 0 {
			return peer, i >= 0, true
		}
		chain = chain[:i]
	}
	return peer, false, false
}

// parseHop reads one address of a chain; some proxies add the port.
func parseHop(s string) (netip.Addr, error) {
	s = strings.Trim(s, " \t")
	if with, err := netip.ParseAddrPort(s); err == nil {
		return with.Addr().Unmap().WithZone(""), nil
	}
	if n := len(s); n > 2 && s[0] == '[' && s[n-1] == ']' && strings.IndexByte(s, ':') > 0 { // IPv6 alone has brackets
		s = s[1 : n-1]
	}
	addr, err := netip.ParseAddr(s)
	return addr.Unmap().WithZone(""), err
}

// single returns the value of a header that may have only one.
func single(h http.Header, name string) (string, error) {
	lines := h[name]
	if len(lines) == 0 {
		return "", nil
	}
	if len(lines) > 1 || strings.ContainsAny(lines[0], ", ") {
		return "", frontError(name + " has several values")
	}
	return lines[0], nil
}

// dotted reports whether host, which may have a port, is written with a dot at
// its end: the same name in DNS, and another site with other cookies to a browser.
func dotted(host string) bool {
	name, _, _ := strings.Cut(host, ":") // an IPv6 address has no dot before its first colon
	return strings.HasSuffix(name, ".")
}

// frontError is a fault of the proxy before us: only the people who run the site
// can mend it.
func frontError(why string) error {
	return &authz.TargetError{Why: why,
		Public: "The proxy before this site does not say clearly which address you asked for.",
		Advice: "Tell the people who run this site. If that is you: " + why +
			"; let that proxy replace what clients send, not add to it."}
}
