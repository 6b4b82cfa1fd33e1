package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/relay"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// Upstream is where a route's requests go, with the limits of time and size. The zero
// Upstream is that of a route about which another proxy asks: here nothing is at it.
type Upstream struct {
	// Scheme and Addr make the URL that Transport is given.
	Scheme, Addr string
	Transport    http.RoundTripper
	Host         string // the Host the app sees; "": the one that was asked for
	// Header is how long the app may take to answer a request that it has whole;
	// Idle is how long nothing may move, in either direction. Both are required.
	Header, Idle time.Duration
	MaxBody      int64 // bytes of a request's body; 0: no limit
	// NoVia keeps Via from the app, because some do not compress for a proxy. Loops
	// are then counted in CDN-Loop (RFC 8586).
	NoVia bool
	// SiteHeaders are headers of the app's answers that pass although they are about
	// the whole site, in canonical spelling: Alt-Svc, Nel.
	SiteHeaders []string
}

func (u *Upstream) isNone() bool { return u.Transport == nil && u.Scheme == "" && u.Addr == "" }

// errElsewhere is why a route whose requests another proxy passes on has nothing here.
var errElsewhere = errors.New("the route has no upstream: it is for external authorization only")

// forwarding is the front door's part of an exchange: which headers the app gets,
// which of its answer's headers do not pass, and until when the exchange may go on.
type forwarding struct {
	p        *Proxy
	ev       *event
	client   *relay.Client
	in       *http.Request
	upstream *Upstream
	admitted admission.Answer
	renewed  http.Header // the renewed session cookie, to go with the answer
	ours     [4]string   // values of headers that are always ours
}

var _ relay.Hooks = (*forwarding)(nil)

// forward passes a request to its app and the answer to the client.
func (p *Proxy) forward(c *relay.Client, r *http.Request, ev *event, a *admission.Answer) error {
	x := &forwarding{p: p, ev: ev, client: c, in: r, upstream: &p.upstreams[a.Route.Place()], admitted: *a}
	x.renew()
	outcome, err := p.relay.Exchange(c, r, x.order())
	if outcome.Attempts > 1 {
		p.metrics.retries.WithLabelValues(a.Route.Name).Inc()
	}
	if outcome.CallOver {
		ev.Note = relay.ErrCallOver.Error()
	}
	ev.ended(err)
	switch {
	case err == nil:
		return nil
	case c.Switched(): // the connection is no longer HTTP
		ev.Err = err
		return nil
	case c.Begun(): // fail aborts it
		if errors.Is(err, relay.ErrBrokenOff) {
			ev.Failed = true
			p.metrics.upstream(a.Route.Name, "broken_off")
		}
		return err
	}
	return x.failed(err)
}

// order is where the request goes, and within which limits.
func (x *forwarding) order() relay.Order {
	facts, b := &x.ev.facts, x.upstream
	o := relay.Order{
		Transport: b.Transport, Hooks: x, Header: b.Header, Idle: b.Idle, MaxBody: b.MaxBody,
		NoVia: b.NoVia, SiteHeaders: b.SiteHeaders,
		// The path that was judged, byte for byte. RawPath is what is sent as long as
		// it decodes to Path, so both are set from the one canonical form (P3).
		URL: url.URL{Scheme: b.Scheme, Host: b.Addr, Path: decodePath(facts.Path), RawPath: facts.Path,
			RawQuery: facts.RawQuery, ForceQuery: facts.HasQuery},
		Host: facts.Authority, // and the host that was judged
	}
	if b.Host != "" {
		o.Host = b.Host
	}
	if facts.WebSocket {
		o.WebSocket = x.tunnel
	}
	return o
}

// decodePath is the inverse of the canonical form, which has no bad escapes.
func decodePath(path string) string {
	if strings.IndexByte(path, '%') < 0 {
		return path
	}
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return path
	}
	return decoded
}

// renew prepares a cookie with a later idle timeout, for page navigations only: a
// page that polls the app must not keep alive the session of a person who is gone.
func (x *forwarding) renew() {
	who := x.admitted.Principal
	if who == nil || who.Session == nil || admission.KindOf(x.in) != admission.Navigation {
		return
	}
	s, due := x.p.sessions.Renew(*who.Session)
	if !due {
		return
	}
	scratch := headerWriter{}
	if x.p.sessions.Write(scratch, x.ev.facts.Host, s) == nil {
		x.renewed = http.Header(scratch)
	}
}

// headerWriter catches the headers of a response that is not written yet.
type headerWriter http.Header

func (h headerWriter) Header() http.Header         { return http.Header(h) }
func (h headerWriter) Write(b []byte) (int, error) { return len(b), nil }
func (h headerWriter) WriteHeader(int)             {}

// Over implements relay.Hooks.
func (x *forwarding) Over() error { return x.p.over(x.ev, x.admitted.Principal, x.admitted.Route) }

// over is why what was let in must not go on: streams and tunnels end with the session that
// let the request in (P10), and where a changed configuration would not let it in.
func (p *Proxy) over(ev *event, who *admission.Principal, route *admission.Route) error {
	if who != nil {
		if err := p.admission.Over(who, route); err != nil {
			return err
		}
	}
	now := p.current.Load()
	if now == nil || now == p {
		return nil
	}
	return now.stillServes(ev.facts, who)
}

// stillServes is StillAdmits for a front door that must have an app at the route, too.
func (p *Proxy) stillServes(f authz.Facts, who *admission.Principal) error {
	if r, err := p.table.Lookup(f); err == nil && p.upstreams[r.Place()].isNone() {
		return fmt.Errorf("%w: %w", admission.ErrRulesChanged, errElsewhere)
	}
	return p.admission.StillAdmits(f, who)
}

// RewriteRequest implements relay.Hooks. It removes what was meant only for us and
// sets the headers that only we may set.
func (x *forwarding) RewriteRequest(h http.Header) {
	x.ours = [4]string{x.ev.Client, x.ev.facts.Authority, x.ev.facts.Scheme, x.ev.RequestID}
	h["X-Forwarded-For"], h["X-Forwarded-Host"] = x.ours[0:1:1], x.ours[1:2:2]
	h["X-Forwarded-Proto"], h["X-Request-Id"] = x.ours[2:3:3], x.ours[3:4:4]
	x.admitted.SetHeaders(h)
}

// RewriteTrailers implements relay.Hooks. Identity headers are stripped from
// trailers as from the header: an app that merges both must not find them.
func (x *forwarding) RewriteTrailers(h http.Header) { x.p.headers.Strip(h) }

// RewriteInterim implements relay.Hooks.
func (x *forwarding) RewriteInterim(h http.Header) {
	protectCookies(h)
	delete(h, "Clear-Site-Data")
	x.ev.cors.Clean(h)
}

// RewriteAnswer implements relay.Hooks. It removes what would change our cookies, and
// adds the renewed session cookie.
func (x *forwarding) RewriteAnswer(h http.Header) {
	if h["Clear-Site-Data"] != nil && spareCookies(h) {
		x.ev.Note = "Clear-Site-Data: cookies were spared, ours are among them"
	}
	protectCookies(h)
	x.ev.cors.SetAnswer(h, x.in.Header)
	// The late answer of a session that has ended would undo a switch.
	if x.renewed != nil && !x.p.sessions.HasEnded(x.admitted.Principal.Session) {
		h["Cache-Control"] = []string{cacheRenewed(h["Cache-Control"])}
		for _, other := range [...]string{"Expires", "Pragma", "Cdn-Cache-Control", "Surrogate-Control",
			"X-Accel-Expires"} {
			h.Del(other) // some caches obey these and ignore Cache-Control (RFC 9213 §2.2)
		}
		h["Set-Cookie"] = append(h["Set-Cookie"], x.renewed["Set-Cookie"]...)
	}
}

// cacheRenewed is the Cache-Control of an app's page that brings a renewed cookie: no shared
// cache may keep it, and the browser only with a question before each use. The browser is not
// forbidden to keep it, unless the app says so: with no-store, Firefox forgets what somebody
// types on the page once they leave it, and renewing a session must not cost them that.
func cacheRenewed(lines []string) string {
	if strings.Contains(strings.ToLower(strings.Join(lines, ",")), "no-store") {
		return "private, no-store"
	}
	return "private, no-cache"
}

// protectCookies drops Set-Cookie lines with names of ours: an app must not sign
// anybody in or out.
func protectCookies(h http.Header) {
	lines := h["Set-Cookie"]
	if len(lines) == 0 {
		return
	}
	kept := lines[:0:0]
	for _, line := range lines {
		pair, _, _ := strings.Cut(line, ";")
		if !session.ReservedCookie(strings.TrimLeft(pair, " \t=")) {
			kept = append(kept, line)
		}
	}
	if len(kept) == len(lines) {
		return
	}
	if len(kept) == 0 {
		delete(h, "Set-Cookie")
		return
	}
	h["Set-Cookie"] = kept
}

// spareCookies takes from Clear-Site-Data what would clear our cookies together
// with the app's, and reports whether it did; the app can still let its own
// expire by name.
func spareCookies(h http.Header) (spared bool) {
	var kept []string
	for directive := range strings.SplitSeq(strings.Join(h["Clear-Site-Data"], ","), ",") {
		switch directive = strings.Trim(directive, " \t"); strings.ToLower(directive) {
		case "":
		case `"cookies"`:
			spared = true
		case `"*"`:
			kept, spared = append(kept, `"cache"`, `"storage"`, `"executionContexts"`), true
		default:
			kept = append(kept, directive)
		}
	}
	if len(kept) == 0 {
		delete(h, "Clear-Site-Data")
		return spared
	}
	h["Clear-Site-Data"] = []string{strings.Join(kept, ", ")}
	return spared
}

// failed is why there is no answer from the app, in words for the person. The order
// of the cases matters: to the transport, an upload that breaks off looks like a
// fault of the app.
func (x *forwarding) failed(err error) error {
	switch {
	case errors.Is(err, relay.ErrTooLarge):
		return x.tooLarge()
	case errors.Is(err, relay.ErrLoop):
		return &failure{Status: http.StatusLoopDetected, Cause: fmt.Errorf("%w: a route leads back here", err),
			Title: "This address leads in a circle", Sentence: "The request came back here again and again.",
			Advice: "Tell the people who run this site, and give them the request id."}
	case errors.Is(err, relay.ErrClientSlow):
		return &failure{Status: http.StatusRequestTimeout, Cause: err, Title: "This did not arrive in time",
			Sentence: "What was sent stopped before its end.", Advice: "Go back and send it again."}
	case errors.Is(err, admission.ErrRulesChanged):
		return &failure{Status: http.StatusForbidden, Cause: err, Title: "The rules of this site have changed",
			Sentence: "They changed while the app was still at work, and you may not open this any more.",
			Advice:   "Look whether the app has done what you asked for."}
	case errors.Is(err, admission.ErrUnverifiable):
		return unverifiable(err)
	case errors.Is(err, relay.ErrOver) && x.admitted.Principal.Session == nil:
		return x.p.unauthorizedBearer(x.client, x.in, x.ev, x.admitted.Route, err)
	case errors.Is(err, relay.ErrOver):
		return &failure{Status: http.StatusUnauthorized, Cause: err, Title: "You were signed out",
			Sentence: "Your session ended while the app was still at work.",
			Advice:   "Sign in again, and look whether the app has done it."}
	case errors.Is(err, upstream.ErrClosed):
		return &failure{Status: http.StatusServiceUnavailable, Cause: err, RetryAfter: 1}
	case errors.Is(err, relay.ErrProtocol):
		return x.noAnswer(http.StatusBadGateway, "protocol", err)
	case errors.Is(err, upstream.ErrTimeout):
		return x.noAnswer(http.StatusGatewayTimeout, "timeout", err)
	case errors.Is(err, relay.ErrClientGone):
		return &failure{Status: statusClientGone, Cause: err}
	case errors.Is(err, relay.ErrCallOver):
		x.endCall()
		return nil
	case errors.Is(err, relay.ErrUploadBroken):
		return &failure{Status: http.StatusBadRequest, Cause: err, Title: "This did not arrive whole",
			Sentence: "What was sent broke off, or could not be read.", Advice: "Go back and send it again."}
	case errors.Is(err, upstream.ErrUnreachable):
		return x.noAnswer(http.StatusBadGateway, "unreachable", err)
	}
	return &failure{Status: http.StatusInternalServerError, Cause: err}
}

// endCall answers a gRPC call whose own time was over before the app said anything, as a
// gRPC server would ("gRPC over HTTP2", Trailers-Only).
func (x *forwarding) endCall() {
	x.ev.Note = relay.ErrCallOver.Error()
	x.client.AnswerWithoutBody(x.in)
	h := x.client.Header()
	h["Content-Type"] = []string{"application/grpc"}
	relay.SetDeadlineExceeded(h, "")
	x.client.WriteHeader(http.StatusOK)
}

// noAnswer is a failure of the app; it is counted.
func (x *forwarding) noAnswer(status int, kind string, cause error) error {
	x.p.metrics.upstream(x.admitted.Route.Name, kind)
	return &failure{Status: status, Cause: cause}
}

func (x *forwarding) tooLarge() error {
	limit := x.upstream.MaxBody
	return &failure{Status: http.StatusRequestEntityTooLarge,
		Cause: fmt.Errorf("the body is larger than max_body, %d bytes", limit), Title: "This is too large",
		Sentence: "What was sent is larger than the " + sizeWords(limit) + " that this address accepts.",
		Advice:   "Send something smaller, or in parts."}
}

// sizeWords is a number of bytes for people.
func sizeWords(n int64) string {
	units := [...]string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n >= 1<<10 && n%(1<<10) == 0 && i < len(units)-1 {
		n >>= 10
		i++
	}
	return strconv.FormatInt(n, 10) + " " + units[i]
}
