package relay

import (
	"errors"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

// hopByHop is RFC 9110 §7.6.1, with what came before it.
var hopByHop = [...]string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings"}

// dropHopByHop removes what is about one connection only, and what Connection
// names. "TE: trailers" stays: gRPC servers refuse calls without it.
func dropHopByHop(h http.Header) {
	trailers := false
	for _, line := range h["Te"] {
		trailers = trailers || hasToken(line, "trailers")
	}
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
	if trailers {
		h["Te"] = []string{"trailers"}
	}
}

// hasToken reports whether token is in the list that line is, without its
// parameters and without case.
func hasToken(line, token string) bool {
	for item := range strings.SplitSeq(line, ",") {
		item, _, _ = strings.Cut(item, ";")
		if strings.EqualFold(textproto.TrimString(item), token) {
			return true
		}
	}
	return false
}

// setWebSocket says that a header is about a switch to WebSocket (RFC 6455 §4).
func setWebSocket(h http.Header) {
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
}

const (
	viaName    = "sallyport"
	loopHeader = "Cdn-Loop" // RFC 8586: counts where Via must not
	// maxHops is how often a request may pass through here. A route that leads back
	// to us would go round until something breaks (RFC 9110 §7.6.3).
	maxHops = 8
)

// countHops is how often a request has passed through here.
func countHops(h http.Header) int {
	hops := 0
	for _, name := range [...]string{"Via", loopHeader} {
		for _, line := range h[name] {
			hops += strings.Count(line, viaName)
		}
	}
	return hops
}

// countThisHop notes that a request of protocol, such as HTTP/1.1, passes through.
func countThisHop(h http.Header, protocol string, noVia bool) {
	if noVia {
		delete(h, "Via")
		h[loopHeader] = append(h[loopHeader], viaName)
		return
	}
	if via := viaAlone[protocol]; via != nil && len(h["Via"]) == 0 {
		h["Via"] = via
		return
	}
	h["Via"] = append(h["Via"], viaEntry(protocol))
}

// forwards is to how many servers more an OPTIONS request is to go (RFC 9110 §7.6.2); false: as far
// as it can.
func forwards(r *http.Request) (n uint64, says bool) {
	if r.Method != http.MethodOptions { // nearly all requests
		return 0, false
	}
	lines := r.Header["Max-Forwards"]
	if len(lines) != 1 {
		return 0, false
	}
	n, err := strconv.ParseUint(lines[0], 10, 64)
	return n, err == nil || errors.Is(err, strconv.ErrRange) // then n is the largest that we know
}

// GoesNoFurther reports whether a request must be answered here, because it is to go to no other
// server.
func GoesNoFurther(r *http.Request) bool {
	n, says := forwards(r)
	return says && n == 0
}

// viaEntry is what Via says of this hop (RFC 9110 §7.6.3).
func viaEntry(protocol string) string {
	return strings.TrimPrefix(protocol, "HTTP/") + " " + viaName
}

// viaAlone are the values of Via where no hop was before this one, which requests share.
var viaAlone = map[string][]string{"HTTP/1.1": {"1.1 " + viaName}, "HTTP/2.0": {"2.0 " + viaName}}

// bindsConnection reports whether the upstream may take all that follows on its
// connection for this person's, as with NTLM and Negotiate (RFC 4559 §6). Such a
// connection is closed after the request and not pooled, so that no other person's
// request goes out on it.
func bindsConnection(authorization []string) bool {
	for _, line := range authorization {
		scheme, _, _ := strings.Cut(strings.TrimLeft(line, " \t"), " ")
		if strings.EqualFold(scheme, "NTLM") || strings.EqualFold(scheme, "Negotiate") {
			return true
		}
	}
	return false
}

// siteHeaders are those of an answer by which one upstream speaks for the whole
// site, the front door's own addresses among them. They are dropped unless an order
// keeps them: Alt-Svc sends browsers to another server (RFC 7838), past us;
// NEL makes them report the site's addresses, those of a sign-in among them, to a
// server that the upstream names; key pins are about a connection that ends here
// (RFC 7469). Strict-Transport-Security is none of these: it only narrows.
var siteHeaders = [...]string{"Alt-Svc", "Alternate-Protocol", "Nel", "Public-Key-Pins", "Public-Key-Pins-Report-Only"}

// dropSiteHeaders drops them, but for those to keep.
func dropSiteHeaders(h http.Header, keep []string) {
	for _, name := range siteHeaders {
		if h[name] != nil && !slices.Contains(keep, name) {
			delete(h, name)
		}
	}
}

// badTrailer reports whether a field must not come after a message: those that
// frame it, route it or carry credentials (RFC 9110 §6.5.1). A reader that merges
// trailers into the header would believe them.
func badTrailer(name string) bool {
	switch name {
	case "Content-Length", "Content-Type", "Content-Encoding", "Content-Range", "Host", "Authorization", "Cookie",
		"Set-Cookie", "Clear-Site-Data", "Cache-Control", "Destination", "Expect", "Location", "Max-Forwards", "Range",
		"Via", "X-Request-Id":
		return true
	}
	return slices.Contains(hopByHop[:], name) || slices.Contains(siteHeaders[:], name)
}
