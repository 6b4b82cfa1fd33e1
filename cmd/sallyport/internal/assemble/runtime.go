package assemble

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/extauthz"
	"github.com/sallyport-proxy/sallyport/gateway"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/proxy"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

// Parts are what `explain` has pretend ones of.
type Parts struct {
	Keys       session.Keyring
	Providers  []proxy.Provider
	Tokens     []*admission.Tokens // of the routes, in their order; nil: it takes none
	Permission []pages.Permission
	App        http.RoundTripper // instead of every app
	lent       *lending          // nil: nothing is
	logins     map[string]*login.Provider
}

// Runtime is what follows from one configuration: routes and rules, sessions and
// their keys, providers, pages, and the ways to the apps. It is closed when it is
// the process's no longer and its last exchange has ended.
type Runtime struct {
	door     *proxy.Proxy
	asked    *extauthz.Door   // nil: no other proxy may ask
	lent     *gateway.Gateway // nil: nothing is lent to apps
	sessions *session.Manager
	absolute time.Duration // for which sessions last that begin in it
	lending  *lending      // nil: nothing is lent
	memories []memory
	close    func()
	closed   chan struct{}
	uses     atomic.Int64 // exchanges, and one more until it is replaced
}

// Sessions are those that this configuration reads and writes.
func (rt *Runtime) Sessions() *session.Manager { return rt.sessions }

// Closed is closed when nothing uses rt any more.
func (rt *Runtime) Closed() <-chan struct{} { return rt.closed }

// use counts an exchange, unless rt is closed already.
func (rt *Runtime) use() bool {
	for {
		n := rt.uses.Load()
		if n == 0 {
			return false
		}
		if rt.uses.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Hold counts one use more, for who has one.
func (rt *Runtime) Hold() { rt.uses.Add(1) }

// memory remembers what was worked out for earlier requests.
type memory interface{ Forget() }

// retire ends what rt does unasked, and what it remembers for requests that come to another one
// from here on. A WebSocket may hold rt for days: apps must not be told by what was configured
// then, and what it takes of memory would come once more with each reload.
func (rt *Runtime) retire() {
	if rt.lending != nil {
		rt.lending.Retire()
	}
	for _, m := range rt.memories {
		m.Forget()
	}
}

// memories are those of access tokens.
func (with *Parts) memories() (all []memory) {
	for _, t := range with.Tokens {
		if t != nil {
			all = appendMemory(all, t.TokenVerifier)
		}
	}
	if with.lent == nil {
		return all
	}
	for _, app := range with.lent.apps {
		if app.AccessTokens != nil {
			all = appendMemory(all, app.AccessTokens.TokenVerifier)
		}
	}
	return all
}

// appendMemory leaves out pretend verifiers.
func appendMemory(all []memory, verifier any) []memory {
	if m, ok := verifier.(memory); ok {
		return append(all, m)
	}
	return all
}

// Release drops one use of rt: that of an exchange, or the one that Build gave to its
// caller, which Swap takes over. The last one closes it.
func (rt *Runtime) Release() {
	if rt.uses.Add(-1) == 0 {
		rt.close()
		close(rt.closed)
	}
}

// Build makes a Runtime of a configuration whose references are resolved. It
// opens no connection. An error that is config.Faults is the configuration's.
func (p *Process) Build(cfg *config.Config, sec *Secrets) (*Runtime, error) {
	with := Parts{Keys: sec.Keys, Tokens: make([]*admission.Tokens, len(cfg.Routes)),
		logins: map[string]*login.Provider{}}
	release, err := with.addProviders(cfg, p)
	if err != nil {
		return nil, err
	}
	with.Permission = append(with.Permission, ConnectorPermissions(cfg)...)
	if with.lent, err = p.newLending(cfg, sec, with.logins); err != nil {
		release()
		return nil, err
	}
	if with.lent != nil {
		releaseProviders := release
		release = func() { p.brokers.close(with.lent); releaseProviders() }
	}
	rt, err := p.BuildOf(cfg, with)
	if err != nil {
		release()
		return nil, err
	}
	closeApps := rt.close
	rt.close = func() { closeApps(); release() }
	return rt, nil
}

// BuildOf is Build of parts that are given.
func (p *Process) BuildOf(cfg *config.Config, with Parts) (*Runtime, error) {
	pol, faults := NewPolicy(cfg) // again: hosts may have been references before
	if len(faults) > 0 {
		return nil, faults
	}
	sessions, err := session.New(session.Options{
		Keys: with.Keys, Secure: cfg.PublicURL.Scheme == "https", Port: portOf(cfg), Name: cfg.Session.CookieName,
		Domain: cfg.Session.CookieDomain, KeepGroups: cfg.KeptGroups(), KeepACR: cfg.ACR(),
		AbsoluteTimeout: cfg.Session.AbsoluteTimeout, IdleTimeout: cfg.Session.IdleTimeout,
		Ended: p.ended, Now: p.now,
	})
	if err != nil {
		return nil, err
	}
	assertions, err := newAssertions(cfg, with.Keys)
	if err != nil {
		return nil, err
	}
	admit, err := p.newAdmission(cfg, pol, with, sessions, assertions)
	if err != nil {
		return nil, err
	}
	upstreams, release, err := p.apps.upstreams(cfg, with.App)
	if err != nil {
		return nil, err
	}
	rt := &Runtime{sessions: sessions, absolute: cfg.Session.AbsoluteTimeout, close: release,
		closed: make(chan struct{})}
	rt.lending, rt.memories = with.lent, append(with.memories(), sessions, assertions, admit)
	rt.uses.Store(1)
	var lender proxy.Lender
	if with.lent != nil {
		lender = with.lent
	}
	rt.door, err = proxy.New(p.door, proxy.Options{
		PublicURL: cfg.PublicURL, Prefix: cfg.Prefix, Admission: admit, Sessions: sessions,
		Table: pol.Table, Upstreams: upstreams,
		Headers: pol.headers, Assertions: assertions, Providers: with.Providers, Once: p.ended,
		Orgs: pol.orgs, Branding: branding(cfg),
		Operators: rules(cfg.Operators), Permission: with.Permission, KeepCache: cfg.Session.KeepCache,
		Trusted: cfg.TrustedProxies, MaxFlows: cfg.Limits.Flows, MaxURL: int(cfg.Limits.URL),
		MaxHeader: int(cfg.Limits.Header),
		MaxAge:    p.maxAge(cfg.Session.MaxAge), Durable: p.store != nil, Listing: p.listing(),
		Lender: lender, OrgKeeper: p.orgKeeper(), Webhooks: with.lent.webhooks(cfg), Holder: rt,
	})
	if err == nil {
		rt.asked, err = p.newExternalAuth(cfg, pol, admit, sessions, rt.door.Pages())
	}
	if err == nil {
		rt.lent, err = p.newGateway(cfg, with.lent, assertions, sessions)
	}
	if err != nil {
		rt.Release()
		return nil, err
	}
	return rt, nil
}

// newExternalAuth makes the front door for other proxies, if the configuration has one.
func (p *Process) newExternalAuth(cfg *config.Config, pol *Policy, admit *admission.Admission,
	sessions *session.Manager, own *pages.Pages) (*extauthz.Door, error) {
	if !cfg.Listen.ExternalAuth.On() {
		return nil, nil
	}
	return extauthz.New(p.asked, extauthz.Options{
		PublicURL: cfg.PublicURL, Prefix: cfg.Prefix, Admission: admit, Table: pol.Table, Headers: pol.headers,
		Pages: own, Sessions: sessions, Peers: cfg.Listen.ExternalAuth.Peers, MaxURL: int(cfg.Limits.URL),
		MaxHeader: int(cfg.Limits.Header), Compat: pol.compat,
		Authorization: slices.ContainsFunc(cfg.Routes, func(r config.Route) bool {
			return r.Bearer.Provider != "" || !r.Headers.Basic.IsZero()
		}),
	})
}

// newAdmission makes the one answer that all front doors share.
func (p *Process) newAdmission(cfg *config.Config, pol *Policy, with Parts, sessions *session.Manager,
	signer *assertion.Signer) (*admission.Admission, error) {
	host, err := authz.CanonicalHost(cfg.PublicURL.Host)
	if err != nil {
		return nil, fmt.Errorf("public_url: %w", err)
	}
	o := admission.Options{
		PublicHost: host, Prefix: cfg.Prefix, Table: pol.Table, Routes: pol.routes, Headers: pol.headers,
		Sessions: sessions, Orgs: pol.orgs, Assertions: signer, Now: p.now,
	}
	for _, provider := range with.Providers {
		o.Providers = append(o.Providers, provider.ID)
	}
	for i := range o.Routes {
		o.Routes[i].Tokens = with.Tokens[i]
		o.Routes[i].MaxAge = p.maxAge(cmp.Or(cfg.Routes[i].MaxAge, cfg.Session.MaxAge))
	}
	return admission.New(o)
}

// maxAge is what is asked of the store, where there is one.
func (p *Process) maxAge(d time.Duration) time.Duration {
	if p.store == nil {
		return 0
	}
	return d
}

// listing is the list of sign-ins, where there is a store.
func (p *Process) listing() session.Listing {
	if p.store == nil {
		return nil
	}
	return p.store
}

// portOf tells apart the cookies of several instances on one loopback host:
// cookies do not belong to a port.
func portOf(cfg *config.Config) string {
	if port := cfg.PublicURL.Port(); port != "" {
		return port
	}
	return "80"
}

func newAssertions(cfg *config.Config, ring session.Keyring) (*assertion.Signer, error) {
	var seeds [][]byte
	for _, k := range ring.All() {
		seeds = append(seeds, k.Derive("assertion signing", assertion.SeedBytes))
	}
	return assertion.New(assertion.Options{Issuer: cfg.PublicURL.String(), Seeds: seeds, Signing: ring.Signing})
}

func branding(cfg *config.Config) proxy.Branding {
	b := proxy.Branding{Name: cfg.Pages.Name}
	if logo := cfg.Pages.Logo.Value(); logo != "" {
		b.Logo, b.LogoType = []byte(logo), cfg.Pages.LogoType
	}
	return b
}
