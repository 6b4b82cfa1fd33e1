package extauthz

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
)

// question is what a proxy asks about, whatever the dialect.
type question struct {
	method string
	facts  authz.Facts
	header http.Header // of the request that is asked about, as far as it is read
	client netip.Addr  // whose request it is; the zero Addr: not known
	// overrides are headers that name another method than is judged, and toRemove those that
	// an app could take for ours, or for a proxy's, as they are spelt; of a dialect that can
	// have them removed.
	overrides, toRemove []string
	// demands are asked for by the proxy on top of what the route asks for.
	demands []authz.Rule
	// ownCompat: it is about a path of compat itself.
	ownCompat bool
}

// dialect is one way in which proxies ask.
type dialect struct {
	name string
	// read is what the dialect says of the request line, and from whom the request is; nil
	// if it is no dialect of HTTP.
	read func(*http.Request) (line, error)
	// redirects: what is answered to a navigation reaches the browser. If not, the proxy
	// takes Location out of a 401 (nginx makes 500 of a redirect).
	redirects bool
	// leads: a 401 has a Location, for the proxy to send a page to.
	leads bool
	// removes: a header of the answer names those that the proxy is to remove.
	removes bool
	// strips: the proxy can be told to remove what it has seen of a client's header.
	strips bool
	// answersCORS: only 200 is a pass, so that a preflight can be answered with 204, and
	// the answer to what passes can say what pages of other sites may do.
	answersCORS bool
}

// line is the request line as a dialect tells it, unchecked.
type line struct {
	method, scheme, host, target, client string
	// protocol is what a CONNECT of HTTP/2 asks for (RFC 8441 §4); "" if nothing.
	protocol string
	// unsure: client may be a proxy of the client's. It is for the log, and for no rule.
	unsure bool
	// joined: what the header has several lines of may arrive as one, with commas between.
	joined bool
}

// The dialects, and what each of them reads besides what forwarded has.
//
//	           method              scheme, host           target                  client
//	/verify    X-Original-Method   of X-Original-URL      X-Original-URL          X-Forwarded-For
//	/forward   X-Forwarded-Method  X-Forwarded-Proto,     X-Forwarded-Uri         X-Forwarded-For
//	                               X-Forwarded-Host
//	/envoy/…   of the request      X-Forwarded-Proto,     what follows /envoy     X-Envoy-External-Address
//	                               Host                   in the request's
//	gRPC       its attributes (check.go), and the header X-Forwarded-Proto
var (
	verifyDialect  = &dialect{name: "verify", read: readVerify, leads: true}
	forwardDialect = &dialect{name: "forward", read: readForward, redirects: true}
	envoyDialect   = &dialect{name: "envoy", read: readEnvoy, redirects: true, removes: true, answersCORS: true}
	grpcDialect    = &dialect{name: "grpc", redirects: true, strips: true, answersCORS: true}
)

const envoyPath = "/envoy"

// dialectAt is the dialect of a request target; nil: there is none. The query of the
// endpoints has no meaning: Caddy and Envoy append the client's (CVE-2026-41059).
func dialectAt(target string) *dialect {
	path, _, _ := strings.Cut(target, "?")
	switch {
	case path == "/verify":
		return verifyDialect
	case path == "/forward":
		return forwardDialect
	case strings.HasPrefix(path, envoyPath): // what follows is whatever the client has sent
		return envoyDialect
	}
	return nil
}

// readVerify is for nginx's auth_request, and ingress-nginx.
func readVerify(r *http.Request) (l line, err error) {
	if l.method, err = single(r.Header, "X-Original-Method"); err != nil {
		return l, err
	}
	l.client = optional(r.Header, "X-Forwarded-For")
	return l, l.readAddress(r.Header)
}

// readAddress reads scheme, host and target out of X-Original-URL.
func (l *line) readAddress(h http.Header) error {
	address, err := one(h, "X-Original-Url")
	if err != nil {
		return err
	}
	var rest string
	var ok bool
	if l.scheme, rest, ok = strings.Cut(address, "://"); !ok {
		return errors.New("X-Original-URL is not absolute")
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		return errors.New("X-Original-URL has no path")
	}
	l.host, l.target = rest[:end], rest[end:]
	return nil
}

// readForward is for Traefik, Caddy and HAProxy.
func readForward(r *http.Request) (l line, err error) {
	for _, from := range [...]struct {
		to   *string
		name string
	}{{&l.method, "X-Forwarded-Method"}, {&l.scheme, "X-Forwarded-Proto"}, {&l.host, "X-Forwarded-Host"}} {
		if *from.to, err = single(r.Header, from.name); err != nil {
			return l, err
		}
	}
	l.target, err = one(r.Header, "X-Forwarded-Uri")
	l.client = optional(r.Header, "X-Forwarded-For")
	return l, err
}

// readEnvoy is for Envoy's ext_authz over HTTP, and what is built on it.
func readEnvoy(r *http.Request) (l line, err error) {
	l.method, l.host, l.target = r.Method, r.Host, strings.TrimPrefix(r.RequestURI, envoyPath)
	l.joined = true // without encode_raw_headers
	l.scheme, err = single(r.Header, "X-Forwarded-Proto")
	if r.Header["X-Envoy-Internal"] == nil {
		l.client = optional(r.Header, "X-Envoy-External-Address")
	} // else that is the client's own word: Envoy writes it for whom it does not count as internal
	return l, err
}

// ask reads a question by a dialect of HTTP.
func (by *dialect) ask(d *Door, r *http.Request) (question, error) {
	if by == compatDialect {
		return d.askCompat(r)
	}
	l, err := by.read(r)
	if err != nil {
		return question{method: l.method}, err
	}
	return by.question(d, l, r.Header)
}

// question is the strict reading of a request, the same for all dialects.
func (by *dialect) question(d *Door, l line, header http.Header) (question, error) {
	q := question{method: l.method, client: parseClient(l.client)}
	var err error
	if q.facts, err = l.facts(d.maxURL); err != nil {
		return q, err
	}
	if !l.unsure {
		q.facts.Client = q.client
	}
	if err = d.readHeader(&q, header, by.strips); err != nil {
		return q, err
	}
	if l.joined && strings.Contains(q.header.Get(identity.DestinationHeader), ",") {
		return q, errJoinedDestination
	}
	if hasBlank(q.header.Get(identity.DestinationHeader)) {
		return q, errBlankDestination
	}
	if upgradesElsewhere(q.header) {
		return q, errUpgrade
	}
	noteWebSocket(&q, l.protocol)
	return q, nil
}

// errUpgrade: proxies pass on whatever a client wants to change to, and from the app's consent
// on all that both say. Over h2c that is further requests, about which nobody is asked, with
// the identity that the client writes (h2csmuggler).
var errUpgrade = errors.New("an Upgrade to something else than a WebSocket")

// errJoinedDestination: two addresses would be judged as one path, and the app has both.
var errJoinedDestination = errors.New("the Destination has a comma, and may be two: Envoy has joined them")

// errBlankDestination: the proxy passes on what was sent, not what was judged, which has %20.
var errBlankDestination = errors.New("the Destination has a blank")

// facts are the strict reading of a request line, the same for all dialects.
func (l line) facts(maxURL int) (authz.Facts, error) {
	switch {
	case !identity.IsToken(l.method):
		return authz.Facts{}, errors.New("the method is not one")
	case l.method == http.MethodConnect || l.method == http.MethodTrace:
		return authz.Facts{}, errors.New("method refused")
	case !strings.HasPrefix(l.target, "/"):
		return authz.Facts{}, fmt.Errorf("%w: it does not begin with a slash", authz.ErrTarget)
	case len(l.target) > maxURL:
		return authz.Facts{}, errors.New("target too long")
	case strings.ContainsAny(l.host, `@\,/ `) || l.host == "":
		return authz.Facts{}, errors.New("the host is not one")
	case hasBlank(l.target):
		return authz.Facts{}, fmt.Errorf("%w: a blank", authz.ErrTarget)
	}
	scheme, err := schemeOf(l.scheme)
	if err != nil {
		return authz.Facts{}, err
	}
	return authz.NewFacts(l.method, scheme, l.host, l.target)
}

// schemeOf takes the schemes of WebSockets for those of their handshakes: Traefik names
// them so (RFC 6455 §3).
func schemeOf(v string) (string, error) {
	switch v {
	case "http", "ws":
		return "http", nil
	case "https", "wss":
		return "https", nil
	}
	return "", errors.New("the scheme is neither http nor https")
}

// hasBlank reports whether s has a sign that no request target has on the wire.
func hasBlank(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}
