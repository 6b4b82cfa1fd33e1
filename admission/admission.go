// Package admission answers the same questions for every front door: which route a
// request is for, who asks, whether they may, and what the app is told.
//
// It owns the order of these steps: look the route up, strip what only Sallyport
// may write, find out who asks (by session cookie or access token), decide, judge
// the Destination of a COPY or MOVE, render the headers and sign the assertion.
// It also owns how a request tells what kind of program waits for the answer, and what
// pages of other sites may do.
//
// It writes no response and knows no pages: a front door turns an Answer or a
// Refusal into bytes. What may pass is decided by authz, cookies are opened by
// session, and tokens are verified by login, which arrives as an interface.
package admission

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/recent"
	"github.com/sallyport-proxy/sallyport/session"
)

// Route is a route of the table, with what there is to know about it besides its
// rules.
type Route struct {
	*authz.Route
	Headers identity.HeaderSet // what the app is told
	Keep    identity.Kept      // what passes of the headers that are stripped
	// App names the program behind the route: a COPY or MOVE goes from one route to
	// another only within one. "": another proxy passes the requests on, perhaps to any.
	App string
	// AppHost is the Host that the app sees; "": the one that was asked for.
	AppHost string
	// MaxAge is how old what is known of sessions that ended elsewhere may be where a
	// session is to be let in; 0: that is not asked. Access tokens and public routes need
	// nothing of the kind.
	MaxAge time.Duration
	// Tokens are the access tokens that the route takes where an Authorization
	// header is sent; nil: it takes none, and Authorization is the app's.
	Tokens *Tokens
	// CORS says what pages of other sites may do; nil: that is the app's to say.
	CORS *CORS
}

// Options configure an Admission. All are required but Orgs (nil: none are folded)
// and Now (nil: time.Now).
type Options struct {
	PublicHost string // canonical
	Prefix     string
	Table      *authz.Table
	Routes     []Route // those of Table, in its order
	Headers    *identity.Headers
	Sessions   *session.Manager
	Providers  []string // ids; sessions of other providers do not count
	Orgs       *identity.Organizations
	Assertions *assertion.Signer
	Now        func() time.Time
}

// Admission answers for one configuration. It is safe for concurrent use.
type Admission struct {
	publicHost string
	prefix     string
	table      *authz.Table
	routes     []Route // by their place in table
	headers    *identity.Headers
	sessions   *session.Manager
	providers  map[string]bool
	orgs       *identity.Organizations
	assertions *assertion.Signer
	rendered   *recent.Cache[renderKey, identity.Rendered]
	now        func() time.Time
}

// New checks the options. It does no I/O.
func New(o Options) (*Admission, error) {
	if o.PublicHost == "" || o.Prefix == "" || o.Table == nil || o.Headers == nil || o.Sessions == nil ||
		o.Assertions == nil || len(o.Providers) == 0 {
		return nil, errors.New("admission: an option is missing")
	}
	a := &Admission{
		publicHost: o.PublicHost, prefix: o.Prefix, table: o.Table, routes: slices.Clone(o.Routes),
		headers: o.Headers, sessions: o.Sessions, providers: map[string]bool{}, orgs: o.Orgs,
		assertions: o.Assertions, rendered: recent.New[renderKey, identity.Rendered](renderedBytes), now: o.Now,
	}
	if a.now == nil {
		a.now = time.Now
	}
	for _, id := range o.Providers {
		a.providers[id] = true
	}
	for i := range a.routes {
		if r := &a.routes[i]; r.Route != nil && r.Access.AsksMethod() {
			r.Keep = r.Keep.WithoutOverrides() // else a client could name another method than is judged
		}
	}
	if !slices.EqualFunc(a.routes, a.table.Routes(), func(r Route, of *authz.Route) bool { return r.Route == of }) {
		return nil, errors.New("admission: the routes are not those of the table")
	}
	return a, nil
}

// Forget drops what a remembers of the headers that it rendered. It answers as before.
func (a *Admission) Forget() { a.rendered.Clear() }

// lookup finds the route of a request.
func (a *Admission) lookup(f authz.Facts) (*Route, error) {
	r, err := a.table.Lookup(f)
	if err != nil {
		return nil, err
	}
	return &a.routes[r.Place()], nil
}

// dated is f with the time at which it came, which is now if the front door does not
// say.
func (a *Admission) dated(f authz.Facts) authz.Facts {
	if f.At.IsZero() {
		f.At = a.now()
	}
	return f
}

// Request is what a front door knows of a request.
type Request struct {
	// Facts are those of the request. Client among them is for the front door to set, if
	// it knows one address of which it is sure: else rules about addresses deny.
	Facts authz.Facts
	// Header is the request's. Admit removes from it what only Sallyport may write,
	// and writes Destination in the form that was judged.
	Header http.Header
	// Trusted: it came from a proxy whose word counts, so that a route may keep some
	// of the headers that are stripped.
	Trusted bool
	// MaxHeaders are the bytes that the app may be told about a person; 0: no limit. Of
	// somebody about whom there is more to tell, the groups count as not known.
	MaxHeaders int
}

// Answer is what becomes of a request.
type Answer struct {
	Route     *Route     // nil: there is none
	Principal *Principal // nil: nobody, or nobody was asked for
	Verdict   authz.Verdict
	// SessionErr is why no session was read, where one was looked for.
	SessionErr error
	// TakesToken: the route takes an access token where an Authorization header is
	// sent, else a session.
	TakesToken bool

	headers   identity.Rendered
	assertion []string // the value of its header
}

// Refusal is why a request is not answered by its route, where that is not the
// verdict of a rule. Empty words mean that those of the status will do.
type Refusal struct {
	Status                int // of HTTP
	Reason                authz.Reason
	Title, Public, Advice string
	RetryAfter            int // seconds; 0: not said
	Err                   error
	StepUp                *authz.Route // as in authz.Verdict
}

func (r *Refusal) Error() string { return r.Err.Error() }

func (r *Refusal) Unwrap() error { return r.Err }

// Admit answers for r. Its error is a *Refusal, or else a fault of ours. With an
// error the Answer is for the log only, and its Verdict denies.
//
// The caller may forward r only where the error is nil and the Verdict's Outcome
// is authz.Forward, after SetHeaders. Where it is authz.Preflight, a front door that can
// answer browsers itself does so with Route.CORS and 204, and another one refuses.
func (a *Admission) Admit(ctx context.Context, r Request) (Answer, error) {
	r.Facts = a.dated(r.Facts)
	route, err := a.lookup(r.Facts)
	if err != nil {
		return refuse(Answer{}, noRoute(err))
	}
	// Before anything can be forwarded, on public routes too (CVE-2026-30851).
	a.headers.StripBut(r.Header, route.Keep.From(r.Trusted))
	if route.CORS.isPreflight(r.Facts, r.Header) {
		asks := authz.Verdict{Outcome: authz.Preflight, Reason: authz.ReasonPreflight}
		return Answer{Route: route, Verdict: asks}, nil
	}
	ans := Answer{Route: route, TakesToken: route.Tokens != nil && route.asksWho(r.Facts)}
	if ans.Principal, err = a.principal(ctx, r.Header, r.Facts, route); err != nil {
		if refusal, ok := errors.AsType[*Refusal](err); ok {
			return refuse(ans, refusal)
		}
		ans.SessionErr = err
	}
	ans.Verdict = authz.Decide(r.Facts, route.Route, ans.Principal.identity())
	if ans.Verdict.Outcome == authz.Login && ans.Principal.byToken() {
		ans.Verdict.Outcome = authz.Deny // a program cannot be sent to a sign-in
	}
	if ans.Verdict.Outcome != authz.Forward {
		return ans, nil
	}
	if refusal := a.judgeDestination(ctx, r, &ans); refusal != nil {
		return refuse(ans, refusal)
	}
	if err := a.renderHeaders(&ans, r.MaxHeaders); err != nil {
		ans.Verdict = authz.Verdict{}
		return ans, err
	}
	return ans, nil
}

// Narrow denies who was let in and does not fulfil further rules, each of which is one more
// demand of the front door on top of the route's.
func (ans *Answer) Narrow(f authz.Facts, further []authz.Rule) {
	if ans.Route != nil {
		ans.Verdict = authz.Narrow(ans.Verdict, f, ans.Route.Route, ans.Principal.identity(), further)
	}
}

func noRoute(err error) *Refusal {
	if errors.Is(err, authz.ErrTarget) {
		return &Refusal{Status: http.StatusBadRequest, Reason: authz.ReasonAmbiguous, Err: err}
	}
	return &Refusal{Status: http.StatusNotFound, Reason: authz.ReasonNoRoute, Err: err}
}

// refuse returns ans with the denying verdict that r stands for, and r as the error.
func refuse(ans Answer, r *Refusal) (Answer, error) {
	ans.Verdict = authz.Verdict{Outcome: authz.Deny, Reason: r.Reason, Detail: r.Error(), Public: r.Public,
		StepUp: r.StepUp}
	return ans, r
}

// OwnPath reports whether an address is one of Sallyport's own, and what follows
// the prefix in it. They are on the public host and on those for which people sign
// in; the public keys are also where no route is: an app next door asks for those
// under the address it has for us, such as 127.0.0.1.
func (a *Admission) OwnPath(f authz.Facts) (string, bool) {
	rest, ok := a.belowPrefix(f)
	if !ok {
		return "", false
	}
	return rest, f.Host == a.publicHost || a.table.SignsIn(f.Host) || (rest == "jwks.json" && !a.table.Serves(f.Host))
}

// Reserved reports whether Sallyport itself answers an address, on this host or on
// another, so that no app can have it.
func (a *Admission) Reserved(f authz.Facts) bool {
	_, below := a.belowPrefix(f)
	return below || a.Resource(f) != nil
}

// belowPrefix returns what follows the prefix in the path of f, if it is there.
func (a *Admission) belowPrefix(f authz.Facts) (string, bool) {
	rest, ok := strings.CutPrefix(f.Path, a.prefix)
	if !ok || (rest != "" && rest[0] != '/') {
		return "", false
	}
	return strings.TrimPrefix(rest, "/"), true
}
