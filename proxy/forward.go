package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// exchange is one request on its way to an app and back.
type exchange struct {
	p         *Proxy
	ev        *event
	route     *authz.Route
	backend   Backend
	session   *session.Session // nil on public routes
	body      *clientBody      // nil if the client sends none
	assertion string
	renewed   http.Header // the renewed session cookie, to go with the answer
	err       error
}

func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, ev *event, route *authz.Route, s *session.Session) error {
	x := &exchange{p: p, ev: ev, route: route, backend: p.backends[route], session: s}
	if s != nil {
		var err error
		if x.assertion, err = p.assertions.Sign(s.ID, &s.Identity, route.Name); err != nil {
			return &failure{Status: http.StatusInternalServerError, Cause: err}
		}
		x.renew(r)
		// What streams must not outlive the session that may see it (P11).
		ctx, cancel := context.WithTimeout(r.Context(), s.Expires.Sub(p.now()))
		defer cancel()
		r = r.WithContext(ctx)
	}
	// Tunnels are not forwarded in this release. Without the header an app
	// answers in plain HTTP; h2c would have been a way around us (security.md 115).
	r.Header.Del("Upgrade")
	r.Header.Del("Http2-Settings")
	if r.ContentLength != 0 {
		x.body = &clientBody{ReadCloser: r.Body}
		r.Body = x.body
	}
	rp := httputil.ReverseProxy{
		// Rewrite, never Director: there a client's "Connection: X-Forwarded-User"
		// would delete what we set (CVE-2021-33197, CVE-2026-29054).
		Rewrite: x.rewrite, ModifyResponse: x.answer, ErrorHandler: x.fail,
		Transport: x.backend.Transport, FlushInterval: -1, BufferPool: p.buffers, ErrorLog: p.copyLog,
	}
	rp.ServeHTTP(w, r)
	return x.err
}

// renew prepares a cookie with a later idle timeout, for page navigations only:
// a page that polls the app must not keep a session alive that nobody looks at.
func (x *exchange) renew(r *http.Request) {
	if whoAsks(r) != navigation {
		return
	}
	s, due := x.p.sessions.Renew(*x.session)
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

// rewrite runs after ReverseProxy has removed hop-by-hop headers, those named
// in Connection among them. What is set here, the app receives.
func (x *exchange) rewrite(pr *httputil.ProxyRequest) {
	out, facts := pr.Out, &x.ev.facts
	out.URL.Scheme, out.URL.Host = "http", x.backend.Host
	// The path that was judged, byte for byte. RawPath is what is sent as long as
	// it decodes to Path, so both are set from the one canonical form (P3).
	out.URL.RawPath = facts.Path
	out.URL.Path = decodePath(facts.Path)
	// ReverseProxy has dropped what it could not parse from the query ("a;b", "%zz").
	out.URL.RawQuery, out.URL.ForceQuery = facts.RawQuery, facts.HasQuery
	out.URL.Opaque = ""
	out.Host = x.host(pr.In.Host) // and the host that was judged
	out.Trailer = nil             // identity headers could come in trailers

	h := out.Header
	setCookies(h, session.StripCookies(h["Cookie"]))
	h.Set("X-Forwarded-For", x.ev.client)
	h.Set("X-Forwarded-Host", out.Host)
	h.Set("X-Forwarded-Proto", x.p.scheme)
	h.Set("X-Request-Id", x.ev.requestID)
	h.Add("Via", strings.TrimPrefix(pr.In.Proto, "HTTP/")+" sallyport") // RFC 9110 §7.6.3
	if x.session != nil {
		x.backend.Headers.Set(h, &x.session.Identity)
		h.Set(identity.AssertionHeader, x.assertion)
	}
}

// host is the canonical host with the port that the client named: in another
// spelling an app could take it for another of its sites (CVE-2026-48794).
func (x *exchange) host(asked string) string {
	host := x.ev.facts.Host
	if asked == host {
		return host
	}
	_, port, err := net.SplitHostPort(asked)
	if err != nil || port == "" {
		return host
	}
	return host + ":" + port
}

func setCookies(h http.Header, lines []string) {
	if len(lines) == 0 {
		delete(h, "Cookie")
		return
	}
	h["Cookie"] = lines
}

// decodePath is the inverse of the canonical form, which has no bad escapes.
func decodePath(path string) string {
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return path
	}
	return decoded
}

// answer keeps the app from our cookies and adds a renewed one of ours.
func (x *exchange) answer(res *http.Response) error {
	keepOurCookies(res.Header)
	res.Header.Del("X-Request-Id") // ours is set already
	if x.renewed != nil {
		res.Header["Cache-Control"] = x.renewed["Cache-Control"]
		for _, other := range [...]string{"Expires", "Pragma", "Cdn-Cache-Control", "Surrogate-Control", "X-Accel-Expires"} {
			res.Header.Del(other) // caches that know these heed nothing else (RFC 9213 §2.2)
		}
		res.Header["Set-Cookie"] = append(res.Header["Set-Cookie"], x.renewed["Set-Cookie"]...)
	}
	return nil
}

// keepOurCookies drops Set-Cookie lines for names of ours: an app must neither
// sign anybody in nor out (security.md 121).
func keepOurCookies(h http.Header) {
	if h["Clear-Site-Data"] != nil {
		spareCookies(h)
	}
	lines := h["Set-Cookie"]
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
// with the app's; the app can still let its own expire by name.
func spareCookies(h http.Header) {
	var kept []string
	for directive := range strings.SplitSeq(strings.Join(h["Clear-Site-Data"], ","), ",") {
		switch directive = strings.Trim(directive, " \t"); strings.ToLower(directive) {
		case "", `"cookies"`:
		case `"*"`:
			kept = append(kept, `"cache"`, `"storage"`, `"executionContexts"`)
		default:
			kept = append(kept, directive)
		}
	}
	if len(kept) == 0 {
		delete(h, "Clear-Site-Data")
		return
	}
	h["Clear-Site-Data"] = []string{strings.Join(kept, ", ")}
}

// fail remembers why the app did not answer; forward returns it.
func (x *exchange) fail(_ http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, upstream.ErrTimeout):
		x.err = &failure{Status: http.StatusGatewayTimeout, Cause: err}
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		x.err = &failure{Status: statusClientGone, Cause: err}
	case x.body != nil && x.body.broken.Load():
		x.err = &failure{Status: http.StatusBadRequest, Cause: err, Title: "This did not arrive whole",
			Sentence: "What was sent broke off, or could not be read.", Advice: "Go back and send it again."}
	default:
		x.err = &failure{Status: http.StatusBadGateway, Cause: unquoted(err)}
	}
}

// unquoted keeps out of the log what parsers quote of an app's answer: it may be
// somebody's cookie (P18).
func unquoted(err error) error {
	text, _, quotes := strings.Cut(err.Error(), `"`)
	if !quotes {
		return err
	}
	return errors.New(text + "…")
}

// clientBody notes that the client's half of an exchange failed, which is not
// the app's fault.
type clientBody struct {
	io.ReadCloser
	broken atomic.Bool
}

func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.broken.Store(true)
	}
	return n, err
}

// bufferPool lends the buffers that bodies are copied through.
type bufferPool struct{ pool sync.Pool }

const bufferSize = 32 << 10

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

func (b *bufferPool) Get() []byte {
	buf, _ := b.pool.Get().(*[bufferSize]byte)
	return buf[:]
}

func (b *bufferPool) Put(buf []byte) {
	if len(buf) == bufferSize {
		b.pool.Put((*[bufferSize]byte)(buf))
	}
}
