// Package proxy is the front door for browsers: it turns a request into facts,
// facts into a verdict, and a verdict into an answer.
//
//	any request      → method and target sane?    no → 400, 405, 414
//	                 → under the prefix?         yes → own endpoint (own.go lists them)
//	                 → admission: route, identity headers stripped, session or
//	                   access token read, verdict
//	Forward          → identity headers set, our cookies removed → upstream
//	Login            → page: 302 to login · framed page, form: 401 page · program: 401 JSON
//	Deny             → 403 with one public sentence; the reason goes to the log
//	Preflight        → 204, with what pages of other sites may send
//
// It owns Sallyport's own endpoints, and what is changed in the headers of requests
// and answers that pass. It decides nothing (admission and authz do), opens no
// cookie (session does) and moves no bytes of apps (relay does). It has no way to
// hold a provider's token: the interface of login hands out none.
package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/relay"
	"github.com/sallyport-proxy/sallyport/session"
)

// Branding is what our pages show of the operator.
type Branding struct {
	Name     string
	Logo     []byte // nil: none
	LogoType string // image/svg+xml or image/png
}

// Options configure a Proxy. All are required but Branding, Orgs, Operators,
// Permission, Durable, KeepCache, Trusted, Listing, MaxAge, Lender, OrgKeeper, Webhooks and Holder.
type Options struct {
	PublicURL  *url.URL
	Prefix     string
	Admission  *admission.Admission // of the same routes, headers and sessions
	Sessions   *session.Manager
	Table      *authz.Table
	Upstreams  []Upstream // of the routes, in the order of Table
	Headers    *identity.Headers
	Assertions *assertion.Signer
	Providers  []Provider
	Once       session.Once            // what counts once, for all replicas and configurations
	Orgs       *identity.Organizations // nil: none are folded
	Branding   Branding
	Operators  []authz.Rule // who sees Permissions on their account page
	Permission []pages.Permission
	Durable    bool            // what ends sessions is kept in a store
	KeepCache  bool            // signing out and switching organizations leave the browser's cache alone
	Trusted    []netip.Prefix  // proxies whose X-Forwarded-{For,Host,Proto} count
	Listing    session.Listing // of the sign-ins; nil: there is none
	MaxFlows   int             // sign-ins that may wait for providers at one time, in equal shares
	MaxURL     int             // bytes of a request target
	MaxHeader  int             // bytes of a request's header, with the request line; the server has to take more
	// MaxAge is admission.Route's, for own endpoints that answer for a session.
	MaxAge time.Duration
	Lender Lender // keeps what people lend to apps; nil: nothing is lent
	// OrgKeeper keeps what directories say of organizations; nil: none is read.
	OrgKeeper OrgKeeper
	// Webhooks takes signed events of third parties; nil: none are taken.
	Webhooks Webhooks
	// Holder keeps what belongs to the Proxy as long as a WebSocket goes on, whose handler has
	// returned; nil: it is kept anyway.
	Holder Holder
}

// Holder keeps what belongs to a Proxy. Hold is called while a request is served, and
// Release once for each Hold.
type Holder interface {
	Hold()
	Release()
}

// everHeld is a Holder for a Proxy whose parts are never closed.
type everHeld struct{}

func (everHeld) Hold()    {}
func (everHeld) Release() {}

// Proxy is an http.Handler for one public site as one configuration has it. It is
// safe for concurrent use.
type Proxy struct {
	*Process // what outlives the configuration

	site      *site
	peers     peers
	admission *admission.Admission
	sessions  *session.Manager
	table     *authz.Table
	upstreams []Upstream // by a route's place in table
	headers   *identity.Headers
	own       mounted
	signIns   *signIns
	handOffs  *handOffs
	pages     *pages.Pages
	maxURL    int
	maxHeader int
	holder    Holder
}

// New checks the options and parses the pages. It does no I/O.
func New(process *Process, o Options) (*Proxy, error) {
	if process == nil || o.PublicURL == nil || o.Admission == nil || o.Sessions == nil || o.Table == nil ||
		o.Headers == nil || o.Assertions == nil || o.Once == nil ||
		len(o.Providers) == 0 || o.MaxFlows <= 0 || o.MaxURL <= 0 || o.MaxHeader <= 0 {
		return nil, errors.New("proxy: an option is missing")
	}
	at, err := newSite(o.PublicURL, o.Prefix, o.Table)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	p := &Proxy{
		Process: process, site: at, peers: peers{scheme: at.scheme, trusted: o.Trusted}, admission: o.Admission,
		sessions: o.Sessions, table: o.Table, upstreams: slices.Clone(o.Upstreams), headers: o.Headers,
		maxURL: o.MaxURL, maxHeader: o.MaxHeader, holder: o.Holder,
	}
	if p.holder == nil {
		p.holder = everHeld{}
	}
	routes := o.Table.Routes()
	if len(routes) != len(p.upstreams) {
		return nil, fmt.Errorf("proxy: %d routes have %d upstreams", len(routes), len(p.upstreams))
	}
	for i, b := range p.upstreams {
		if b.isNone() {
			continue
		}
		if b.Transport == nil || b.Scheme == "" || b.Addr == "" || b.Header <= 0 || b.Idle <= 0 {
			return nil, fmt.Errorf("proxy: the upstream of route %s is not complete", routes[i].Name)
		}
	}
	logo := ""
	if o.Branding.Logo != nil {
		logo = at.path("logo")
	}
	if p.pages, err = pages.New(pages.Options{Name: o.Branding.Name, LogoURL: logo, Prefix: o.Prefix}); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	all, err := p.endpoints(&o)
	if err != nil {
		return nil, err
	}
	p.own = mount(all)
	p.handOffs.own = p.own
	return p, nil
}

// Pages are those that people are shown here. Other front doors show the same ones.
func (p *Proxy) Pages() *pages.Pages { return p.pages }

// ServeHTTP answers one request, and writes one event about it.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ev := &event{Event: observe.Event{Start: p.now(), RequestID: observe.NewRequestID(), Route: observe.RouteNone}}
	c := relay.NewClient(w, r, ev.RequestID, p.draining.Load())
	p.metrics.inFlight.Inc()
	defer p.finish(ev, c, r)
	defer c.Close()
	defer p.recoverPanic(ev, c, r)
	if err := p.serve(c, r, ev); err != nil {
		p.fail(c, r, ev, err)
	}
	p.relay.TakeIn(c)
}

// recoverPanic turns a bug of ours into one 500. http.ErrAbortHandler is no bug
// but the way to end a response that cannot be completed.
func (p *Proxy) recoverPanic(ev *event, c *relay.Client, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		if ev.Err == nil {
			ev.Err = errors.New("response aborted")
		}
		panic(v)
	}
	ev.Err, ev.Failed = fmt.Errorf("panic: %v\n%s", v, debug.Stack()), true
	c.Settle()
	if c.Begun() {
		panic(http.ErrAbortHandler)
	}
	p.fail(c, r, ev, &failure{Status: http.StatusInternalServerError, Cause: ev.Err})
}

const usualMethods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

func (p *Proxy) serve(w *relay.Client, r *http.Request, ev *event) error {
	at, err := p.peers.of(r)
	ev.Client, ev.trusted, ev.forwards = at.client, at.trusted, at.forwards
	// CONNECT with a body desynchronised shared connections in another proxy
	// (CVE-2026-71324), and TRACE would echo our headers to scripts.
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return &failure{Status: http.StatusMethodNotAllowed, Allow: usualMethods,
			Cause: errors.New("method refused")}
	}
	if len(r.RequestURI) > p.maxURL {
		return &failure{Status: http.StatusRequestURITooLong, Cause: errors.New("target too long")}
	}
	if n := headerSize(r); n > p.maxHeader {
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close") // as net/http does above its own limit
		}
		return &failure{Status: http.StatusRequestHeaderFieldsTooLarge,
			Cause: fmt.Errorf("the header has %d bytes, most of them in %s, and limits.header is %d", n,
				largestField(r), p.maxHeader)}
	}
	var facts authz.Facts
	if err == nil {
		facts, err = authz.NewFacts(r.Method, at.scheme, at.host, r.RequestURI)
	}
	if err == nil && r.ProtoMajor > 1 {
		err = malformed(relay.CheckHTTP2(w, r, p.site.scheme))
	}
	if err != nil {
		ev.decide("deny", authz.ReasonAmbiguous)
		f := &failure{Status: http.StatusBadRequest, Cause: err}
		_ = errors.As(err, &f) // err may be a failure with words of its own
		return f
	}
	facts.Client, facts.At = at.addr, ev.Start
	admission.NoteWebSocket(&facts, r)
	ev.facts, ev.dotted = facts, dotted(at.host)
	if path, ok := p.admission.OwnPath(facts); ok {
		ev.Route = observe.RouteOwn
		w.AnswerWithoutBody(r)
		return p.serveOwn(w, r, ev, path, p.siteOf(ev))
	}
	if route := p.admission.Resource(facts); route != nil {
		ev.Route = observe.RouteOwn
		w.AnswerWithoutBody(r)
		return p.serveResource(w, r, ev, route)
	}
	return p.serveRoute(w, r, ev)
}

func (p *Proxy) serveRoute(w *relay.Client, r *http.Request, ev *event) error {
	answer, err := p.admission.Admit(r.Context(),
		admission.Request{Facts: ev.facts, Header: r.Header, Trusted: ev.trusted})
	if answer.Route != nil && p.upstreams[answer.Route.Place()].isNone() {
		ev.decide(authz.Deny.String(), authz.ReasonNoRoute)
		return p.noRoute(ev, errElsewhere)
	}
	ev.admitted(&answer)
	if answer.Verdict.Reason == authz.ReasonAddress && !ev.facts.Client.IsValid() {
		ev.Note = "it is not sure who the client is, see trusted_proxies and proxy_protocol"
	}
	if answer.Route != nil {
		ev.cors = answer.Route.CORS
		ev.cors.SetAnswer(w.Header(), r.Header) // for what we answer ourselves, 401 and 403 among it
	}
	if refusal, ok := errors.AsType[*admission.Refusal](err); ok {
		return p.refused(w, r, ev, &answer, refusal)
	}
	if err != nil {
		return err
	}
	at := p.siteOf(ev)
	if answer.Verdict.StepUp != nil {
		w.AnswerWithoutBody(r)
		return at.askToStepUp(w, r, ev, &answer)
	}
	if answer.Route.Proof.Asks() && answer.Verdict.Outcome == authz.Forward {
		p.stepUps.sessionKept(p.sessions.BrowserID(r))
	}
	here := "" // the address of a page that is opened with a session
	if who := answer.Principal; who != nil && who.Session != nil && opensPage(r) {
		here = ev.facts.Target()
		if provider, due := p.signIns.reauthDue(r, ev, who.Session, here); due {
			w.AnswerWithoutBody(r)
			return p.signIns.leaveForReauth(w, r, ev, provider, who.Session, here)
		}
	}
	verdict := &answer.Verdict
	switch verdict.Outcome {
	case authz.Forward:
		if who := answer.Principal; at.public != nil && here != "" && p.handOffs.due(r, ev, at, who.Session, here) {
			w.AnswerWithoutBody(r)
			return p.handOffs.again(w, r, at, who.Session, at.returnHere(ev, r))
		}
		if relay.GoesNoFurther(r) {
			w.AnswerWithoutBody(r)
			ev.Note = "it was answered here: Max-Forwards is 0"
			w.Header().Set("Allow", usualMethods)
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		return p.forward(w, r, ev, &answer)
	case authz.Login:
		w.AnswerWithoutBody(r)
		if answer.TakesToken {
			w.Header().Add("WWW-Authenticate", answer.Route.Challenge(ev.facts, ""))
		}
		if at.public != nil && admission.KindOf(r) == admission.Navigation {
			return p.handOffs.begin(w, r, ev, at, session.Want{ReturnTo: at.returnHere(ev, r)}, answer.SessionErr)
		}
		return at.askToSignIn(w, r, ev)
	case authz.Preflight:
		w.AnswerWithoutBody(r)
		ev.cors.SetPreflight(w.Header(), r.Header)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	f := &failure{Status: http.StatusForbidden, Cause: errors.New(verdict.Detail), Sentence: verdict.Public}
	if who := answer.Principal; who != nil && who.Session != nil {
		f.Session, f.SwitchTo = who.Session, authz.SwitchTo(ev.facts, answer.Route.Route, who.Identity)
	}
	return f
}

// refused turns a refusal into an answer.
func (p *Proxy) refused(w *relay.Client, r *http.Request, ev *event, a *admission.Answer,
	refusal *admission.Refusal) error {
	switch refusal.Reason {
	case authz.ReasonNoRoute:
		return p.noRoute(ev, refusal.Err)
	case authz.ReasonStepUp:
		w.AnswerWithoutBody(r)
		return p.siteOf(ev).askToStepUp(w, r, ev, a)
	case authz.ReasonBearerInvalid:
		return p.unauthorizedBearer(w, r, ev, a.Route, refusal.Err)
	}
	code := ""
	if refusal.Reason == authz.ReasonUnverifiable {
		code = string(refusal.Reason)
	}
	return &failure{Status: refusal.Status, Cause: refusal.Err, RetryAfter: refusal.RetryAfter, Code: code,
		Title: refusal.Title, Sentence: refusal.Public, Advice: refusal.Advice}
}

// siteOf is the site by the name that was asked for, or the one where people sign in
// if nobody signs in for that name.
func (p *Proxy) siteOf(ev *event) *site {
	if host := ev.facts.Host; host != p.site.host && p.table.SignsIn(host) {
		return p.site.at(host)
	}
	return p.site
}

func (p *Proxy) noRoute(ev *event, err error) error {
	if !p.table.Serves(ev.facts.Host) && ev.facts.Host != p.site.host {
		return &failure{Status: http.StatusNotFound, Cause: fmt.Errorf("host %q is not served", ev.facts.Host),
			Title:    "This address is not served here",
			Sentence: "You asked for " + ev.facts.Host + ", and this site is " + p.site.origin + ".",
			Advice: "If you followed a link or typed the address, use the other one. " +
				"If you run this site, see public_url and the hosts of its routes."}
	}
	return &failure{Status: http.StatusNotFound, Cause: err}
}
