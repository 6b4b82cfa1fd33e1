// Package gateway is the listener through which apps use what people lent them.
//
//	who is the app?       its token, an access token of a
//	                      provider, or its own unix socket     → else 401 app-unknown
//	for whom does it ask? an assertion, a lease, or a name     → else 401 person-unknown
//	/v1/…                 the grants it has, leases, and tokens for the few that may
//	/gateway/C/path       the rules of the loan                → else 409 or 403
//	                      the credential goes in, the request goes to C's origin, and
//	                      the answer comes back without the credential
//
// It owns what apps send and read: who they are (caller.go), which addresses and bodies may
// be passed on (target.go, body.go), the way to a third party and back (forward.go), that no
// credential comes back (redact.go), where the next page is (links.go), our own addresses
// (own.go, openapi.json), problems (problem.go), and how apps are told what became of grants
// (notify.go). It never knows how a grant is kept or refreshed, which is package grant's, nor
// moves bytes, which is relay's. Browsers never come here: their pages are in proxy.
package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/attempt"
	"github.com/sallyport-proxy/sallyport/internal/egress"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/relay"
	"github.com/sallyport-proxy/sallyport/session"
)

// Broker is what lends. *grant.Broker is one.
type Broker interface {
	Lend(context.Context, grant.Use) (grant.Loan, error)
	Rejected(context.Context, grant.Loan) (grant.Loan, error)
	Lends(context.Context, grant.Loan) error
	List(ctx context.Context, app string, who grant.Party) ([]grant.Line, error)
	ByManager(connector string, who grant.Party) bool
}

// Connector is a third party as an app is configured for it.
type Connector struct {
	About    grant.About
	Accesses []grant.Access // those of About that the app is configured for

	tokens  []string // names of parameters for a credential, in lower case
	forward []string // header names beside passing, in canonical spelling
}

// AccessTokens are those that prove an app: of an issuer, and of one of Subjects. Each request
// of the app asks the verifier, which should remember good ones.
type AccessTokens struct {
	TokenVerifier
	Issuer   string   // the claim iss
	Subjects []string // the claim sub
}

// TokenVerifier judges access tokens of an issuer.
type TokenVerifier interface {
	// Verify returns whom the token is about, and when it ends. Errors are
	// *identity.SignInError; Unavailable and Misconfigured say that it could not be judged.
	Verify(ctx context.Context, token string) (identity.Identity, time.Time, error)
}

// App is a program that uses grants. It prints as "<app>", because it has tokens.
type App struct {
	ID string
	// Tokens prove the app; several while they are rotated, none where it has a socket.
	Tokens []string
	// AccessTokens of a provider prove the app too; nil: none do.
	AccessTokens       *AccessTokens
	Routes             []string // whose assertions name people to it
	Connectors         map[string]*Connector
	Offline, RawTokens bool
}

// Format implements fmt.Formatter: no verb prints a token.
func (App) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte("<app>")) }

func (a *App) accesses(connector string) []string {
	var names []string
	if c := a.Connectors[connector]; c != nil {
		for _, access := range c.Accesses {
			names = append(names, access.Name)
		}
	}
	return names
}

// Options configure a Gateway. All are required.
type Options struct {
	PublicURL   *url.URL // where people connect
	Prefix      string   // of Sallyport's own addresses there: "/_sallyport/"
	Broker      Broker
	Apps        []App
	Assertions  *assertion.Signer
	Sessions    *session.Manager
	IdleTimeout time.Duration // of sessions, and so of leases
}

// Gateway answers apps as one configuration has it. It is safe for concurrent use.
type Gateway struct {
	*Process // what outlives the configuration

	o       Options
	connect string // the address before a connector's id
	apps    map[string]*App
	tokens  []appToken
	room    map[string]chan struct{} // by app: one for each request that is answered now
	long    map[string]chan struct{} // by app: one for each long answer that is in memory as a whole
	// subjects are the apps that access tokens may prove, by what these have to say.
	subjects map[subjectOf]*App
}

type appToken struct {
	digest [sha256.Size]byte
	app    *App
}

// perApp is how many requests of one app are answered at a time.
const perApp = 256

// New checks the options. It does no I/O.
func New(process *Process, o Options) (*Gateway, error) {
	if process == nil || o.PublicURL == nil || o.Prefix == "" || o.Broker == nil || o.Assertions == nil ||
		o.Sessions == nil || o.IdleTimeout <= 0 {
		return nil, errors.New("gateway: an option is missing")
	}
	connect := o.PublicURL.Scheme + "://" + o.PublicURL.Host + strings.TrimSuffix(o.Prefix, "/") + "/connect/"
	g := &Gateway{Process: process, o: o, connect: connect, apps: map[string]*App{},
		subjects: map[subjectOf]*App{}, room: map[string]chan struct{}{}, long: map[string]chan struct{}{}}
	seen := map[[sha256.Size]byte]bool{}
	for i := range o.Apps {
		app := &o.Apps[i]
		if app.ID == "" || g.apps[app.ID] != nil {
			return nil, errors.New("gateway: an app has no id, or that of another one")
		}
		g.apps[app.ID], g.room[app.ID], g.long[app.ID] = app, make(chan struct{}, perApp), make(chan struct{}, mostLong)
		for _, token := range app.Tokens {
			digest := sha256.Sum256([]byte(token))
			if token == "" || seen[digest] {
				return nil, fmt.Errorf("gateway: a token of app %s is empty, or another one's too", app.ID)
			}
			seen[digest] = true
			g.tokens = append(g.tokens, appToken{digest, app})
		}
		if err := g.addSubjects(app); err != nil {
			return nil, err
		}
		for _, c := range app.Connectors {
			c.tokens, c.forward = append([]string{"access_token", "token"}, c.About.TokenQuery...), nil
			for _, name := range c.About.Forward {
				c.forward = append(c.forward, http.CanonicalHeaderKey(name))
			}
		}
	}
	return g, nil
}

// addSubjects adds whose access tokens prove an app. A token proves one app.
func (g *Gateway) addSubjects(app *App) error {
	if app.AccessTokens == nil {
		return nil
	}
	for _, subject := range app.AccessTokens.Subjects {
		of := subjectOf{app.AccessTokens.Issuer, subject}
		if of.Issuer == "" || of.Subject == "" || g.subjects[of] != nil {
			return fmt.Errorf("gateway: an access token of app %s is of nobody, or of another one's subject", app.ID)
		}
		g.subjects[of] = app
	}
	return nil
}

// ProcessOptions configure a Process. All may be left out.
type ProcessOptions struct {
	Observers  []observe.Observer // of each request
	Registerer prometheus.Registerer
	Now        func() time.Time
	// Transport reaches third parties; nil: as oauth does, by the proxies of the environment
	// and with the authorities of the system. Hosts that the operator did not choose are
	// reached as package egress has it, whatever its proxy and its way to dial are.
	Transport *http.Transport
}

// Process is the part of the gateway that outlives a configuration. It is safe for
// concurrent use.
type Process struct {
	observers []observe.Observer
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	now       func() time.Time
	relay     *relay.Relay
	transport http.RoundTripper
	guarded   http.RoundTripper // for hosts that the operator did not choose
	draining  atomic.Bool
}

const (
	dialWithin        = 10 * time.Second
	maxResponseHeader = 256 << 10
)

// NewProcess registers the metrics. It does no I/O.
func NewProcess(o ProcessOptions) *Process {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Transport == nil {
		o.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment,
			DialContext: (&net.Dialer{Timeout: dialWithin}).DialContext, TLSHandshakeTimeout: dialWithin,
			ForceAttemptHTTP2: true, MaxResponseHeaderBytes: maxResponseHeader, DisableCompression: true}
	}
	guarded := o.Transport.Clone()
	egress.Guard(guarded, dialWithin)
	f := promauto.With(o.Registerer)
	return &Process{observers: o.Observers, now: o.Now, relay: relay.New(),
		transport: attempt.New(o.Transport, attempt.Options{}), guarded: attempt.New(guarded, attempt.Options{}),
		requests: f.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_gateway_requests_total",
			Help: "Requests of apps for what people lent them, by app, connector and outcome: answered, broken_off " +
				"or the name of a problem."}, []string{"app", "connector", "outcome"}),
		durations: f.NewHistogramVec(prometheus.HistogramOpts{Name: "sallyport_gateway_duration_seconds",
			Help:    "Time that a request of an app took to answer, by connector.",
			Buckets: []float64{.001, .005, .01, .05, .1, .25, .5, 1, 5, 15, 60}}, []string{"connector"})}
}

// Drain makes every further answer the last one on its connection.
func (p *Process) Drain() { p.draining.Store(true) }

// Door is the name of this front door in events.
const Door = "gateway"

// ServeHTTP answers one request of an app, and writes one event about it.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ev := &observe.Event{Start: g.now(), Door: Door, RequestID: observe.NewRequestID(), Client: clientOf(r),
		Method: r.Method, Route: observe.RouteOwn}
	w.Header().Set("X-Request-Id", ev.RequestID)
	if g.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	r = r.WithContext(grant.WithCaller(r.Context(), grant.Caller{RequestID: ev.RequestID, Client: ev.Client}))
	err := g.answer(w, r, ev)
	outcome := "answered"
	broken, isBroken := errors.AsType[*brokenOff](err)
	switch p, _ := errors.AsType[*problem](err); {
	case p != nil:
		p.write(w, r, ev.RequestID)
		outcome = p.name
		ev.Status, ev.Err, ev.Reason = p.Status, p, p.name
		ev.Failed = p.Status >= http.StatusInternalServerError && p.name != tryLater
		if p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden {
			ev.Decision = "deny"
		}
	case isBroken:
		outcome, ev.Err = "broken_off", broken
	}
	g.observe(r.Context(), ev, outcome)
	if isBroken {
		panic(http.ErrAbortHandler) // a short answer must never look complete (RFC 9112 §8)
	}
}

func clientOf(r *http.Request) string {
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return at.Addr().Unmap().String()
	}
	return "unix"
}

func (g *Gateway) observe(ctx context.Context, ev *observe.Event, outcome string) {
	ev.Took = g.now().Sub(ev.Start)
	g.requests.WithLabelValues(ev.App, ev.Connector, outcome).Inc()
	g.durations.WithLabelValues(ev.Connector).Observe(ev.Took.Seconds())
	for _, o := range g.observers {
		o.Observe(ctx, ev)
	}
}

// answer answers, or returns a *problem that says why not, or a *brokenOff.
func (g *Gateway) answer(w http.ResponseWriter, r *http.Request, ev *observe.Event) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicked(v, ev, false)
		}
	}()
	if r.ProtoMajor == 2 {
		if err := relay.CheckHTTP2(w, r, "https"); err != nil {
			return plainBad(err)
		}
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	at, own := endpoints[path]
	if own {
		ev.Path = path
		if r.Method != at.method {
			w.Header().Set("Allow", at.method)
			return newProblem(http.StatusMethodNotAllowed, badMethod, "No such method here", "")
		}
		if at.method == http.MethodGet && r.ContentLength != 0 {
			return plainBad(errors.New("nothing is asked for here with a body"))
		}
		if at.open {
			return at.answer(g, w, r, ev, nil)
		}
	}
	app, lease, err := g.app(r)
	if err != nil {
		return callerProblem(err)
	}
	ev.App = app.ID
	select {
	case g.room[app.ID] <- struct{}{}:
		defer func() { <-g.room[app.ID] }()
	default:
		return laterProblem(errors.New("the app has too many requests at a time"))
	}
	c, err := g.caller(r, app, lease)
	if err != nil {
		return callerProblem(err)
	}
	ev.User, ev.Org = c.person(), c.org()
	if own {
		return at.answer(g, w, r, ev, c)
	}
	return g.lend(w, r, ev, c)
}

// panicked turns a bug of ours into one 500, or breaks off the answer that had begun.
func panicked(v any, ev *observe.Event, begun bool) error {
	cause := fmt.Errorf("panic: %v\n%s", v, debug.Stack())
	if begun {
		ev.Failed = true
		return &brokenOff{cause}
	}
	return faultProblem(cause)
}
