package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// exchange is one request on its way to an app, and its answer on the way back.
// It is ours and not httputil.ReverseProxy's, because that loses request
// trailers and what it cannot parse of a query, copies every header to change
// five, and has no say in when a stream must end.
type exchange struct {
	p        *Proxy
	ev       *event
	client   *client
	in       *http.Request
	route    *authz.Route
	backend  *Backend
	admitted *admission.Answer
	body     *requestBody // nil if the client sends none
	watch    watch
	cancel   context.CancelCauseFunc
	attempts int
	renewed  http.Header // the renewed session cookie, to go with the answer
	ours     [4]string   // values of headers that are always ours
}

// forward passes a request to its app and the answer to the client. Nothing of
// either body is kept: what arrives is sent on at once.
func (p *Proxy) forward(c *client, r *http.Request, ev *event, a *admission.Answer) error {
	x := &exchange{p: p, ev: ev, client: c, in: r, route: a.Route, backend: p.backends[a.Route], admitted: a}
	if err := x.admit(); err != nil {
		return err
	}
	x.renew()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	x.cancel = cancel
	out := x.request(ctx)
	x.watch.start(x, x.limits()) // it looks at what request made
	defer x.watch.stop()

	res, err := x.backend.Transport.RoundTrip(out)
	if x.attempts > 1 {
		x.p.metrics.retries.WithLabelValues(x.route.Name).Inc()
	}
	x.client.settle()
	if err != nil {
		return x.failed(ctx, err)
	}
	// Over HTTP/2, Close waits for what the client may still send, unless we are done.
	defer func() { cancel(nil); res.Body.Close() }()
	x.watch.answered()
	if res.StatusCode == http.StatusSwitchingProtocols {
		return x.tunnel(ctx, res)
	}
	if res.StatusCode < 200 || res.StatusCode > 999 {
		x.p.metrics.upstream(x.route.Name, "protocol")
		return &failure{Status: http.StatusBadGateway, Cause: fmt.Errorf("the app answered with %d, which is no status", res.StatusCode)}
	}
	x.answer(ctx, res)
	x.drainUpload()
	return nil
}

// limits are for the watch. A gRPC server may send its header with its first
// message, hours later; then the idle time alone counts.
func (x *exchange) limits() limits {
	l := limits{Header: x.backend.Header, Idle: x.backend.Idle}
	if hasGRPC(x.in) {
		l.Header = 0
	}
	return l
}

// hasGRPC reports whether r is a gRPC call.
func hasGRPC(r *http.Request) bool {
	const kind = "application/grpc"
	t := r.Header["Content-Type"]
	return len(t) == 1 && len(t[0]) >= len(kind) && t[0][:len(kind)] == kind
}

// sessionOver implements watched.
func (x *exchange) sessionOver() bool {
	who := x.admitted.Principal
	return who != nil && x.p.admission.Over(who)
}

// waitsForClient implements watched.
func (x *exchange) waitsForClient() bool {
	return x.body != nil && x.body.is(uploadWaiting) && !x.client.begun()
}

// end implements watched. A read from the client that is under way is not ended by
// a context; its deadline is.
func (x *exchange) end(cause error) {
	x.cancel(cause)
	x.client.cutOff(x.body != nil && !x.body.is(uploadEnded))
}

// maxHops is how often a request may pass through here. A route that leads back
// to us would go round until something breaks.
const maxHops = 8

// admit refuses what must not be sent on, before anything is.
func (x *exchange) admit() error {
	if x.backend.MaxBody > 0 && x.in.ContentLength > x.backend.MaxBody {
		return x.tooLarge()
	}
	hops := 0
	for _, name := range [...]string{"Via", loopHeader} {
		for _, line := range x.in.Header[name] {
			hops += strings.Count(line, viaName)
		}
	}
	if hops >= maxHops {
		return &failure{Status: http.StatusLoopDetected, Cause: fmt.Errorf("the request came by %d times: a route leads back here", hops),
			Title: "This address leads in a circle", Sentence: "The request came back here again and again.",
			Advice: "Tell the people who run this site, and give them the request id."}
	}
	return nil
}

func (x *exchange) tooLarge() error {
	return &failure{Status: http.StatusRequestEntityTooLarge, Cause: fmt.Errorf("the body is larger than max_body, %d bytes", x.backend.MaxBody),
		Title: "This is too large", Sentence: "What was sent is larger than the " + sizeWords(x.backend.MaxBody) + " that this address accepts.",
		Advice: "Send something smaller, or in parts."}
}

// renew prepares a cookie with a later idle timeout, for page navigations only:
// a page that polls the app must not keep a session alive that nobody looks at.
func (x *exchange) renew() {
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

// request is what the app gets. The header map is the client's own, changed in
// place: nobody else has use for what it was.
func (x *exchange) request(ctx context.Context) *http.Request {
	facts := &x.ev.facts
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { x.attempts++ }, Got1xxResponse: x.relayInterim, WroteRequest: func(info httptrace.WroteRequestInfo) {
		if info.Err == nil {
			x.watch.sent()
		}
	}}
	if x.in.ContentLength != 0 {
		x.body = newRequestBody(x, ctx.Done())
		x.body.listen(trace)
	}
	out := x.in.WithContext(httptrace.WithClientTrace(ctx, trace))
	// The path that was judged, byte for byte. RawPath is what is sent as long as
	// it decodes to Path, so both are set from the one canonical form (P3).
	out.URL = &url.URL{Scheme: x.backend.Scheme, Host: x.backend.Addr, Path: decodePath(facts.Path), RawPath: facts.Path,
		RawQuery: facts.RawQuery, ForceQuery: facts.HasQuery}
	out.Host = facts.Authority // and the host that was judged
	if x.backend.Host != "" {
		out.Host = x.backend.Host
	}
	out.RequestURI, out.Close = "", bindsConnection(x.in.Header["Authorization"])
	out.Body, out.GetBody, out.Trailer = nil, nil, nil
	if x.body != nil {
		out.Body, out.GetBody, out.Trailer = x.body, x.body.again, x.body.trailer
	} else if x.in.Header["Content-Length"] != nil {
		// The client says that there is nothing, and some servers answer 411 to a
		// DELETE or MKCOL that does not say it. "identity" makes net/http write a
		// length of 0 for any method but GET and HEAD.
		out.Body, out.TransferEncoding = http.NoBody, []string{"identity"}
	}
	x.setHeaders(out.Header)
	return out
}

// bindsConnection reports whether the app may take all that follows on its
// connection for this person's, as NTLM and Negotiate have it (RFC 4559 §6). The
// connection is then nobody else's: closed, and not pooled.
func bindsConnection(authorization []string) bool {
	for _, line := range authorization {
		scheme, _, _ := strings.Cut(strings.TrimLeft(line, " \t"), " ")
		if strings.EqualFold(scheme, "NTLM") || strings.EqualFold(scheme, "Negotiate") {
			return true
		}
	}
	return false
}

const (
	viaName    = "sallyport"
	loopHeader = "Cdn-Loop" // RFC 8586: counts where Via must not
)

// setHeaders takes out what was meant for us alone and then writes what only we
// may write, in this order: a client's "Connection: X-Forwarded-User" must not
// delete what we set (CVE-2021-33197, CVE-2026-29054).
func (x *exchange) setHeaders(h http.Header) {
	dropHopByHop(h)
	if x.ev.facts.WebSocket {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	}
	if h["User-Agent"] == nil {
		h["User-Agent"] = nil // else the transport names itself
	}
	x.ours = [4]string{x.ev.client, x.ev.facts.Authority, x.ev.facts.Scheme, x.ev.requestID}
	h["X-Forwarded-For"], h["X-Forwarded-Host"] = x.ours[0:1:1], x.ours[1:2:2]
	h["X-Forwarded-Proto"], h["X-Request-Id"] = x.ours[2:3:3], x.ours[3:4:4]
	if x.backend.NoVia {
		delete(h, "Via")
		h[loopHeader] = append(h[loopHeader], viaName)
	} else {
		h["Via"] = append(h["Via"], strings.TrimPrefix(x.in.Proto, "HTTP/")+" "+viaName) // RFC 9110 §7.6.3
	}
	x.admitted.SetHeaders(h)
}

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

// failed is why there is no answer from the app, in words for who waits.
func (x *exchange) failed(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case x.body != nil && x.body.is(uploadTooLarge):
		return x.tooLarge()
	case errors.Is(cause, errClientSlow):
		return &failure{Status: http.StatusRequestTimeout, Cause: cause, Title: "This did not arrive in time",
			Sentence: "What was sent stopped before its end.", Advice: "Go back and send it again."}
	case errors.Is(cause, errSessionOver) && x.admitted.Principal.Session == nil:
		return x.p.unauthorizedBearer(x.client, x.in, x.ev, cause)
	case errors.Is(cause, errSessionOver):
		return &failure{Status: http.StatusUnauthorized, Cause: cause, Title: "You were signed out",
			Sentence: "Your session ended while the app was still at work.", Advice: "Sign in again, and look whether the app has done it."}
	case errors.Is(cause, upstream.ErrTimeout), errors.Is(err, upstream.ErrTimeout):
		x.p.metrics.upstream(x.route.Name, "timeout")
		return &failure{Status: http.StatusGatewayTimeout, Cause: errors.Join(cause, unquoted(err))}
	case errors.Is(err, context.Canceled) && x.in.Context().Err() != nil:
		return &failure{Status: statusClientGone, Cause: unquoted(err)}
	case x.body != nil && x.body.is(uploadBroken):
		return &failure{Status: http.StatusBadRequest, Cause: unquoted(err), Title: "This did not arrive whole",
			Sentence: "What was sent broke off, or could not be read.", Advice: "Go back and send it again."}
	}
	x.p.metrics.upstream(x.route.Name, "unreachable")
	return &failure{Status: http.StatusBadGateway, Cause: unquoted(err)}
}

// unquoted keeps out of the log what parsers quote of a message: it may be
// somebody's cookie (P18).
func unquoted(err error) error {
	text, _, quotes := strings.Cut(err.Error(), `"`)
	if !quotes {
		return err
	}
	return errors.New(text + "…")
}
