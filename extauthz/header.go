package extauthz

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/identity"
)

// one is the value of a header that must be there, once. A second line, or an empty one,
// is refused: which of two counts, two programs can see differently (CVE-2021-32777).
func one(h http.Header, name string) (string, error) {
	switch lines := h[name]; {
	case len(lines) == 0 || lines[0] == "":
		return "", fmt.Errorf("the proxy sends no %s", name)
	case len(lines) > 1:
		return "", fmt.Errorf("there are several %s", name)
	default:
		return lines[0], nil
	}
}

// single is one where the value itself cannot be a list either.
func single(h http.Header, name string) (string, error) {
	v, err := one(h, name)
	if err == nil && strings.ContainsAny(v, ", \t") {
		return "", fmt.Errorf("%s has several values", name)
	}
	return v, err
}

// optional is single for a header that may be missing or useless: then nothing is known.
func optional(h http.Header, name string) string {
	v, _ := single(h, name)
	return v
}

// parseClient is the zero Addr for what is no single address.
func parseClient(v string) netip.Addr {
	addr, err := netip.ParseAddr(v)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}
	}
	return addr.Unmap()
}

var (
	errHeaderTooLong = errors.New("the header of the request is larger than limits.header")
	errTwoLines      = errors.New("there are several Authorization headers")
)

// readHeader leaves in a request's header, which is q's from now on, what is read of it by any
// dialect. It refuses a request with a header that an app could take for one of ours, unless
// the answer can remove it.
func (d *Door) readHeader(q *question, h http.Header, strips bool) error {
	size := 0
	for name, lines := range h {
		for _, line := range lines {
			size += len(name) + len(line) + len(": \r\n")
		}
		switch {
		case d.headers.IsAlias(name) && strips:
			q.toRemove = append(q.toRemove, strings.ToLower(name))
		case d.headers.IsAlias(name):
			return fmt.Errorf("a header that an app could take for another: %q", name)
		case isRead(name):
			continue
		case identity.IsMethodOverride(name):
			q.overrides = append(q.overrides, strings.ToLower(name))
		case d.headers.OnlyProxies(name) && !slices.Contains(envoysOwn[:], name):
			q.toRemove = append(q.toRemove, strings.ToLower(name))
		}
		delete(h, name)
	}
	switch {
	case size > d.maxHeader:
		return errHeaderTooLong
	case len(h["Authorization"]) > 1:
		return errTwoLines
	}
	q.header = h
	return nil
}

// envoysOwn are headers that Envoy writes, or cleans, before it asks. What else there is of
// the names by which proxies tell apps who somebody is, and address, host, path or method of
// a request, is the client's.
var envoysOwn = [...]string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Client-Cert"}

// What is read of a request's header, besides what the dialects read themselves. The guide
// for Envoy lists it.
var (
	readNames = [...]string{"Cookie", "Authorization", "Accept", "Sec-Purpose", "Purpose", "X-Purpose", "X-Moz",
		"X-Requested-With", "Referer", "Origin", "Upgrade", "Http2-Settings", "Destination"}
	readPrefixes = [...]string{"Sec-Fetch-", "Sec-Websocket-", "Access-Control-Request-"}
)

// isRead reports whether a header says something about the request. Whatever else there is
// counts for nothing.
func isRead(name string) bool {
	return slices.Contains(readNames[:], name) || slices.ContainsFunc(readPrefixes[:], func(begin string) bool {
		return strings.HasPrefix(name, begin)
	})
}

// upgradesElsewhere reports whether a request asks to go on in another protocol than that of
// WebSockets, or in one of several (RFC 9110 §7.8). Of h2c HTTP2-Settings tells, too (RFC 7540
// §3.2.1): ingress-nginx drops Upgrade on the way to the check, and passes it on to the app.
func upgradesElsewhere(h http.Header) bool {
	if h["Http2-Settings"] != nil {
		return true
	}
	for _, line := range h["Upgrade"] {
		for protocol := range strings.SplitSeq(line, ",") {
			if protocol = strings.Trim(protocol, " \t"); protocol != "" && !strings.EqualFold(protocol, "websocket") {
				return true
			}
		}
	}
	return false
}

// noteWebSocket notes in the facts whether the request asks to speak WebSocket. Any sign
// of that counts: nginx drops Upgrade on the way to the check, HAProxy's client has no
// Connection, and HTTP/2 has a protocol of its own (RFC 8441 §4). A request without
// an Origin is refused as one from a page of another site: whether it was a browser's,
// only the proxy knows.
func noteWebSocket(q *question, protocol string) {
	h := q.header
	asks := strings.EqualFold(protocol, "websocket") || h["Sec-Websocket-Version"] != nil ||
		h["Sec-Websocket-Key"] != nil
	for _, line := range h["Upgrade"] {
		asks = asks || strings.Contains(strings.ToLower(line), "websocket")
	}
	if !asks {
		return
	}
	h["Upgrade"] = []string{"websocket"} // it is no page that waits for the answer
	q.facts.WebSocket, q.facts.Origin = true, strings.Join(h["Origin"], ", ")
	if q.facts.Origin == "" {
		q.facts.Origin = "none"
	}
}
