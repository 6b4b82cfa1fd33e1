// Package extauthz is the front door for other proxies: they ask whether a request that
// they have may pass, and who it is, and pass it on themselves.
//
//	not a peer           → 403
//	which dialect asks?  → one question, of that dialect's headers only; what is
//	                       missing, twice there or not to be parsed → 403
//	under our prefix?    → 403: the proxy must route it to Sallyport
//	admission.Admit      → Forward: 200 and the complete header set
//	                       Login: 401 or 302, as the dialect can pass it on
//	                       Deny, cannot judge: 403
//
// It owns what each dialect reads (dialect.go; check.go for that of gRPC), what is
// answered to it (answer.go; checkresponse.go), and the paths of oauth2-proxy for proxies
// that were set up for that (compat.go). It
// decides nothing (admission and authz do), sets no cookie, and has no effect but its
// answer. The front door for browsers, to which the prefix of each site leads, is its
// neighbour proxy.
package extauthz

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

// Options configure a Door. All are required but Authorization and Compat.
type Options struct {
	PublicURL *url.URL
	Prefix    string
	Admission *admission.Admission
	Table     *authz.Table // of the routes of Admission
	Headers   *identity.Headers
	Pages     *pages.Pages
	Sessions  *session.Manager // that of Admission
	Peers     []netip.Prefix   // who may ask
	MaxURL    int              // bytes of a request target
	MaxHeader int              // bytes of the header of the request that is asked about
	// Authorization: it is among what is told, because some route takes access tokens
	// or gives its app credentials of ours.
	Authorization bool
	// Compat are the headers for apps behind a proxy that was set up for oauth2-proxy; nil:
	// its paths are not there. Headers has them.
	Compat *identity.HeaderSet
}

// Door answers other proxies as one configuration has it. It is safe for concurrent use.
type Door struct {
	*Process // what outlives the configuration

	signIn    *signIn
	admission *admission.Admission
	headers   *identity.Headers
	pages     *pages.Pages
	sessions  *session.Manager
	peers     []netip.Prefix
	maxURL    int
	maxHeader int
	set       headerSet
	compat    *identity.HeaderSet
}

// New checks the options. It does no I/O.
func New(process *Process, o Options) (*Door, error) {
	if process == nil || o.PublicURL == nil || o.Prefix == "" || o.Admission == nil || o.Table == nil ||
		o.Headers == nil || o.Sessions == nil || o.Pages == nil || len(o.Peers) == 0 ||
		o.MaxURL <= 0 || o.MaxHeader <= 0 {
		return nil, errors.New("extauthz: an option is missing")
	}
	in, err := newSignIn(o.PublicURL, o.Prefix, o.Table)
	if err != nil {
		return nil, fmt.Errorf("extauthz: %w", err)
	}
	return &Door{Process: process, signIn: in, admission: o.Admission, headers: o.Headers, pages: o.Pages,
		sessions: o.Sessions, peers: o.Peers, maxURL: o.MaxURL, maxHeader: o.MaxHeader,
		set: newHeaderSet(o.Headers, o.Authorization), compat: o.Compat}, nil
}

// ServeHTTP answers one question by one of the HTTP dialects, and writes one event about it.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.limitConnection(w, r)
	from, ok := d.peer(r.RemoteAddr)
	if !ok {
		d.strangers.note(from)
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusForbidden)
		return
	}
	dialect := dialectAt(r.RequestURI)
	if d.compat != nil && dialect == nil {
		if path, ok := compatPath(r.RequestURI); ok && path == "auth" {
			dialect = compatDialect
		} else if ok {
			d.leadOn(w, r, path, from)
			return
		}
	}
	if dialect == nil {
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	ev := &event{Event: observe.Event{Start: d.now(), Door: dialect.name, RequestID: observe.NewRequestID(),
		Client: from.String(), Method: r.Method, Route: observe.RouteNone}, header: w.Header()}
	answer := d.answer(r.Context(), ev, dialect, func() (question, error) { return dialect.ask(d, r) })
	answer.writeTo(w, r)
	d.observe(r.Context(), ev, answer)
}

// limitConnection ends the connection with the answer where a body was announced, which
// is never read: net/http would wait for it before it answers. So it does for everybody
// once the process is stopping.
func (d *Door) limitConnection(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 || d.draining.Load() {
		w.Header().Set("Connection", "close")
	}
}

// answer finds the answer to a question that ask reads. It always returns one, and one
// that denies if there is a bug in us.
func (d *Door) answer(
	ctx context.Context, ev *event, by *dialect, ask func() (question, error),
) (a *answer) {
	defer func() {
		if v := recover(); v != nil {
			ev.Decision, ev.Reason, ev.Rule = "", "", 0
			ev.Err, ev.Failed = fmt.Errorf("panic: %v\n%s", v, debug.Stack()), true
			a = newAnswer(http.StatusForbidden, ev.again())
		}
	}()
	q, err := ask()
	if q.client.IsValid() {
		ev.Client = q.client.String()
	}
	ev.Method, ev.Host, ev.Path = q.method, q.facts.Authority, q.facts.Path
	if err == nil {
		err = d.checkTarget(&q, ev)
	} else {
		ev.Decision, ev.Reason = authz.Deny.String(), string(authz.ReasonAmbiguous)
	}
	switch {
	case errors.Is(err, errNoTarget):
		ev.Err = err
		return d.nothingAsked(ev)
	case err != nil:
		ev.Err = err
		return d.deny(ev, &q, err, "")
	}
	return d.judge(ctx, ev, by, &q)
}

// checkTarget refuses what no route can answer for.
func (d *Door) checkTarget(q *question, ev *event) error {
	if d.admission.Reserved(q.facts) || q.ownCompat {
		ev.Route, ev.Decision, ev.Reason = observe.RouteOwn, authz.Deny.String(), string(authz.ReasonOwnEndpoint)
		return fmt.Errorf("%s is Sallyport's own: exempt it from the check, and route it to Sallyport", q.facts.Path)
	}
	return nil
}

// judge asks admission, and turns what it says into an answer.
func (d *Door) judge(ctx context.Context, ev *event, by *dialect, q *question) *answer {
	if q.facts.WebSocket && d.signIn.isPageOf(q.facts, q.facts.Origin) {
		q.facts.Origin = q.facts.OwnOrigin()
	}
	admitted, err := d.admission.Admit(ctx,
		admission.Request{Facts: q.facts, Header: q.header, MaxHeaders: by.mostTold()})
	if err == nil && len(q.demands) > 0 {
		admitted.Narrow(q.facts, q.demands)
	}
	note(ev, &admitted)
	if err == nil && admitted.Verdict.Outcome == authz.Forward {
		if refusal := checkPassed(q, by, admitted.Route); refusal != nil {
			ev.Decision, ev.Reason = authz.Deny.String(), string(refusal.Reason)
			err = refusal
		}
	}
	var answer *answer
	switch {
	case admitted.Verdict.StepUp != nil:
		answer = d.askToStepUp(ev, by, q, &admitted)
	case err != nil:
		ev.Err = err
		answer = d.refused(ev, by, q, &admitted, err)
	default:
		answer = d.carryOut(ev, by, q, &admitted)
	}
	if route := admitted.Route; route != nil && answer.status != http.StatusNoContent &&
		(by.answersCORS || answer.status != http.StatusOK) {
		route.CORS.SetAnswer(answer.header, q.header)
	}
	return answer
}

// carryOut turns a verdict into an answer.
func (d *Door) carryOut(ev *event, by *dialect, q *question, a *admission.Answer) *answer {
	switch a.Verdict.Outcome {
	case authz.Forward:
		if to := d.renewal(q, a.Principal); to != "" {
			ev.Note = "sent to renew the session"
			return d.redirect(ev, by, to)
		}
		return d.forward(ev, by, q, a)
	case authz.Login:
		return d.askToSignIn(ev, by, q, a)
	case authz.Preflight:
		if by.answersCORS {
			answer := newAnswer(http.StatusNoContent, ev)
			a.Route.CORS.SetPreflight(answer.header, q.header)
			return answer
		}
		ev.Err = errPreflight
	default:
		ev.Err = errors.New(a.Verdict.Detail)
	}
	return d.deny(ev, q, ev.Err, a.Verdict.Public)
}

var errPreflight = errors.New("a preflight: the proxy has to answer it itself, because it takes every 2xx for a pass")

// checkPassed refuses what the front door for browsers passes on changed, and a proxy that
// asks would not.
func checkPassed(q *question, by *dialect, route *admission.Route) *admission.Refusal {
	switch {
	case authz.NamesDestination(q.method) && q.header[identity.DestinationHeader] == nil:
		return &admission.Refusal{Status: http.StatusForbidden, Reason: authz.ReasonDestination, Err: errNoDestination}
	case len(q.overrides) > 0 && !by.strips && route.Access.AsksMethod():
		return &admission.Refusal{Status: http.StatusForbidden, Reason: authz.ReasonMethod, Err: errOverride}
	}
	return nil
}

var (
	errNoDestination = errors.New("a COPY or MOVE without its Destination: the proxy has to pass that header on")
	errOverride      = errors.New("a header names another method than the one that the route asks for")
)

// refused answers what is no verdict of a rule. Whatever it is, it is no status of the
// 5xx class: fronts can be told to let those pass (Envoy: failure_mode_allow).
func (d *Door) refused(ev *event, by *dialect, q *question, a *admission.Answer, err error) *answer {
	refusal, ok := errors.AsType[*admission.Refusal](err)
	switch {
	case ok && refusal.Reason == authz.ReasonBearerInvalid:
		return d.unauthorizedBearer(ev, q, a.Route)
	case ok:
		ev.Failed = refusal.Status >= http.StatusInternalServerError && refusal.Reason != authz.ReasonDestination
		return d.deny(ev, q, err, refusal.Public)
	}
	ev.Failed = true
	return d.deny(ev, q, err, "")
}

// note fills in what was found out about who asks for what.
func note(ev *event, a *admission.Answer) {
	if a.Route != nil {
		ev.Route = a.Route.Name
	}
	if a.Principal != nil {
		ev.User, ev.Org = a.Principal.Identity.ID(), a.Principal.Identity.Org.ID
	}
	if a.Verdict.Reason != "" {
		ev.Decision, ev.Reason = a.Verdict.Outcome.String(), string(a.Verdict.Reason)
		ev.Rule = a.Verdict.Rule
	}
	ev.Session = sessionFault(a.SessionErr)
}
