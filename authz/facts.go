// Package authz is the verdict: which route a request is for, and whether the
// person who asks may have it.
//
// It owns the canonical form of host and path, the table of routes with their
// rules, and Decide, one pure function that every front door and `explain`
// share, so that they cannot disagree. It does no I/O, reads no header and
// writes no response: proxy turns a request into Facts and a Verdict into
// bytes. Who somebody is, front doors find out (session, login).
package authz

import (
	"net/netip"
	"strings"
	"time"
)

// Facts are all that a verdict may depend on besides the session. Query and
// fragment are not for deciding (CVE-2025-54576): RawQuery is here because it
// is forwarded with the rest, byte for byte.
type Facts struct {
	Method, Scheme string // Method "": not known, and fulfils no condition
	Host           string // lower case, no port, no trailing dot
	Authority      string // Host with the port that was asked for, if one was
	Path           string // canonical: the bytes that are judged and forwarded
	// Encoded tells that Path has an escaped "/", "%", "#", "?" or ";", NotUTF8 that
	// its letters are of another encoding, Doubled that it has two slashes in a row.
	// Only routes that say so accept these.
	Encoded, NotUTF8, Doubled bool

	RawQuery string // without the "?"; HasQuery tells "" from none
	HasQuery bool
	// WebSocket tells that the request asks for one, and Origin where its page is
	// from; several Origin headers come joined, and match nothing. A front door
	// sets both.
	WebSocket bool
	Origin    string
	// Client is the address that the request comes from, as far as a front door knows
	// it. The zero Addr is not known, and fulfils no condition.
	Client netip.Addr
	// At is when the request came. What a route asks to be recent is counted from
	// there, so a stream is not over because it has become old.
	At time.Time
}

// Target is the path and query, as a browser has them.
func (f Facts) Target() string {
	if f.HasQuery {
		return f.Path + "?" + f.RawQuery
	}
	return f.Path
}

// OwnOrigin is the origin of pages that come from this address: browsers leave the
// scheme's own port out (RFC 6454 §6.2).
func (f Facts) OwnOrigin() string {
	own := ":80"
	if f.Scheme == "https" {
		own = ":443"
	}
	return f.Scheme + "://" + strings.TrimSuffix(f.Authority, own)
}

// NewFacts reads a request line as it came: requestURI is the raw target, host
// the Host field or, for an absolute target, what net/http took from that. It
// never uses url.Parse, which takes "//admin/x" for a host (CVE-2026-26205).
func NewFacts(method, scheme, host, requestURI string) (Facts, error) {
	target, err := originForm(requestURI)
	if err != nil {
		return Facts{}, err
	}
	rawPath, query, hasQuery := strings.Cut(target, "?")
	path, odd, err := canonicalPath(rawPath)
	if err != nil {
		return Facts{}, err
	}
	if err := checkQuery(query); err != nil {
		return Facts{}, err
	}
	canonical, err := CanonicalHost(host)
	if err != nil {
		return Facts{}, err
	}
	return Facts{Method: method, Scheme: scheme, Host: canonical, Authority: authority(canonical, host),
		Path: path, Encoded: odd.encoded, NotUTF8: odd.notUTF8, Doubled: odd.doubled,
		RawQuery: query, HasQuery: hasQuery}, nil
}

// authority is the canonical host with the port of asked: in another spelling
// an app could take it for another of its sites (CVE-2026-48794).
func authority(host, asked string) string {
	i := strings.LastIndexByte(asked, ':')
	if i < 0 || i == len(asked)-1 || strings.IndexByte(asked[i:], ']') >= 0 {
		return host
	}
	if asked[:i] == host {
		return asked
	}
	return host + asked[i:]
}

// originForm turns an absolute target (RFC 9112 §3.2.2) into path and query.
func originForm(target string) (string, error) {
	if strings.HasPrefix(target, "/") {
		return target, nil
	}
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || (!strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https")) {
		return "", errNoPath
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	if end == 0 || strings.ContainsAny(rest[:end], `@\`) { // empty: RFC 9110 §4.2.1
		return "", errAuthority
	}
	if end == len(rest) || rest[end] != '/' {
		return "/" + rest[end:], nil
	}
	return rest[end:], nil
}

// checkQuery lets a query pass as it is or not at all.
func checkQuery(q string) error {
	for i := 0; i < len(q); i++ {
		if c := q[i]; c <= ' ' || c == 0x7f || c == '#' {
			return errQuery
		}
	}
	return nil
}

// CanonicalHost is host in lower case without port and trailing dot. Two
// spellings of one name must not have two verdicts (CVE-2026-48794).
func CanonicalHost(host string) (string, error) {
	name := host
	if strings.HasPrefix(name, "[") {
		end := strings.IndexByte(name, ']')
		if end < 0 || !validPort(name[end+1:]) {
			return "", errHost
		}
		addr, err := netip.ParseAddr(name[1:end])
		if err != nil || !addr.Is6() || addr.Zone() != "" { // brackets are for IPv6: CVE-2025-47912
			return "", errHost
		}
		return "[" + addr.String() + "]", nil
	}
	if i := strings.IndexByte(name, ':'); i >= 0 {
		if !validPort(name[i:]) {
			return "", errHost
		}
		name = name[:i]
	}
	name = strings.TrimSuffix(name, ".")
	if !validDNSName(name) { // before ToLower, which makes a k of the Kelvin sign
		return "", errHost
	}
	return strings.ToLower(name), nil
}

func validPort(s string) bool {
	if s == "" {
		return true
	}
	if s[0] != ':' || len(s) > 6 {
		return false
	}
	return strings.Trim(s[1:], "0123456789") == ""
}

// validDNSName accepts letters, digits, "-" and "_" in labels. Names with other
// letters come as xn-- labels, which are ASCII.
func validDNSName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := 0; i < len(label); i++ {
			c := label[i]
			if !isAlnum(c) && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}
