// Package hostname is the grammar of host names: what a domain is, and which
// names are this machine.
//
// It owns no policy. Who reads a configuration and who uses it ask the same two
// functions, so that `check` accepts exactly what runs. What a Host header may
// be is authz's to say, because there a verdict hangs on it.
package hostname

import (
	"net/netip"
	"strings"
)

// DomainPattern is IsDomain as a regular expression, for schemas. It knows no
// limit on the whole length.
const DomainPattern = `^` + label + `(\.` + label + `)*$`

const label = `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`

// IsDomain reports whether s is a DNS name in lower case, of letters, digits and
// hyphens (RFC 1123 §2.1), as behind the @ of an address.
func IsDomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, func(r rune) bool {
				return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-')
			}) {
			return false
		}
	}
	return true
}

// Within reports whether host, in lower case, is domain or a name below it.
func Within(host, domain string) bool {
	above, ok := strings.CutSuffix(host, domain)
	return ok && (above == "" || above[len(above)-1] == '.')
}

// IsLoopback reports whether host, a name or an address without a port, cannot
// be another machine. The names are those of RFC 6761 §6.3.
func IsLoopback(host string) bool {
	if IsLocalhost(host) {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Zone() == "" && addr.IsLoopback() && !addr.Is4In6()
}

// IsLocalhost reports whether host is "localhost" or a name below it. Whoever
// connects to one must not ask DNS for it: only then it is this machine.
func IsLocalhost(host string) bool {
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
