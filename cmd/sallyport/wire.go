package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/oauth"
	"github.com/sallyport-proxy/sallyport/proxy"
	"github.com/sallyport-proxy/sallyport/session"
)

// loadConfig reads and judges a configuration file. It opens no connection and
// looks at no reference; resolve does that.
func loadConfig(path string) (*config.Config, *policy, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, usage("cannot read the configuration: %w (name the file with -c)", err)
	}
	return parseConfig(path, data)
}

func parseConfig(name string, data []byte) (*config.Config, *policy, error) {
	cfg, faults := config.Parse(name, data)
	if len(faults) > 0 {
		return nil, nil, configFaults(faults)
	}
	pol, faults := newPolicy(cfg)
	if len(faults) > 0 {
		return nil, nil, configFaults(faults)
	}
	return cfg, pol, nil
}

// configFaults keeps the faults' own layout: one per paragraph, ready to read.
func configFaults(faults config.Faults) error {
	n := "1 fault"
	if len(faults) > 1 {
		n = strconv.Itoa(len(faults)) + " faults"
	}
	return usage("the configuration has %s\n\n%w", n, faults.Err())
}

// policy is the part of the configuration that decides: it is complete without
// any secret, so that `check` can judge it anywhere.
type policy struct {
	table   *authz.Table
	orgs    *identity.Organizations
	headers *identity.Headers
	sets    map[string]identity.HeaderSet // by route name
	kept    map[string]identity.Kept      // likewise
}

func newPolicy(cfg *config.Config) (*policy, config.Faults) {
	pol := &policy{headers: identity.NewHeaders(), sets: map[string]identity.HeaderSet{}, kept: map[string]identity.Kept{}}
	orgs, faults := newOrganizations(cfg)
	pol.orgs = orgs
	var routes []authz.Route
	for i, r := range cfg.Routes {
		fields, _ := identity.Preset(r.Headers.Preset)
		set, err := pol.headers.Set(overlay(fields, r.Headers.Set))
		if err != nil {
			faults = append(faults, cfg.Fault(fmt.Sprintf("routes[%d].headers", i), "%v", err))
		}
		pol.sets[r.Name] = set
		routes = append(routes, authz.Route{Name: r.Name, Host: routeHost(r), Orgs: orgIDs(cfg), Path: r.Path, Exact: r.Exact, Encoded: r.Encoded, Doubled: r.Doubled,
			Access: access(r), WebSocket: authz.WebSocket(r.WebSocket)})
	}
	faults = append(faults, pol.keepHeaders(cfg)...)
	faults = append(faults, cfg.BearerFaults()...)
	table, err := authz.NewTable(routes)
	pol.table = table
	return pol, append(faults, tableFaults(cfg, err)...)
}

// keepHeaders comes after all sets: what any route sets, none may keep.
func (pol *policy) keepHeaders(cfg *config.Config) (faults config.Faults) {
	for i, r := range cfg.Routes {
		kept, err := pol.headers.Keep(r.Headers.Keep)
		if err == nil && kept.NeedFront() && len(cfg.TrustedProxies) == 0 {
			err = errors.New("keeps what a proxy before Sallyport sets, but trusted_proxies names none: then any client could set it")
		}
		if err != nil {
			faults = append(faults, cfg.Fault(fmt.Sprintf("routes[%d].headers.keep", i), "%v", err))
		}
		pol.kept[r.Name] = kept
	}
	return faults
}

// unknownHost stands in for public_url's host while that is only a reference.
const unknownHost = "public-url.invalid"

func routeHost(r config.Route) string {
	if r.Host == "" {
		return unknownHost
	}
	return r.Host
}

func access(r config.Route) authz.Access {
	a := authz.Access{Public: r.Public, Authenticated: r.Allow.Authenticated}
	a.Rules = rules(r.Allow.Any)
	return a
}

func rules(list []config.Rule) []authz.Rule {
	var out []authz.Rule
	for _, rule := range list {
		out = append(out, authz.Rule(rule))
	}
	return out
}

// overlay puts a route's own headers in the place of the preset's of that name.
func overlay(preset, own []identity.Field) []identity.Field {
	fields := slices.DeleteFunc(slices.Clone(preset), func(p identity.Field) bool {
		return slices.ContainsFunc(own, func(f identity.Field) bool { return http.CanonicalHeaderKey(f.Header) == p.Header })
	})
	return append(fields, own...)
}

// tableFaults gives each fault of the table its place in the file.
func tableFaults(cfg *config.Config, err error) config.Faults {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var faults config.Faults
	for _, err := range joined.Unwrap() {
		var route *authz.RouteError
		var conflict *authz.ConflictError
		switch {
		case errors.As(err, &route):
			faults = append(faults, cfg.Fault(routeKey(cfg, route.Route, route.Field), "%s", route.Why))
		case errors.As(err, &conflict):
			faults = append(faults, cfg.Fault(routeKey(cfg, conflict.Second, "path"), "%s", conflict.Why))
		default:
			faults = append(faults, cfg.Fault("routes", "%v", err))
		}
	}
	return faults
}

func routeKey(cfg *config.Config, i int, field string) string {
	if field == "path" && cfg.Routes[i].Exact {
		field = "path_exact"
	}
	return fmt.Sprintf("routes[%d].%s", i, field)
}

// secrets is what resolve learns that the configuration itself does not hold.
type secrets struct{ keys session.Keyring }

// resolve reads every reference and parses what has a form of its own.
func resolve(cfg *config.Config, env func(string) (string, bool)) (*secrets, error) {
	faults := cfg.Resolve(env, os.DirFS("/"))
	if len(faults) > 0 {
		return nil, configFaults(faults)
	}
	var keys []session.Key
	for _, text := range cfg.Session.KeyTexts {
		key, err := session.ParseKey(text.Text())
		if err != nil {
			faults = append(faults, cfg.Fault(text.Path, "%v", err))
			continue
		}
		keys = append(keys, key)
	}
	faults = append(faults, providerFaults(cfg)...)
	if len(faults) > 0 {
		return nil, configFaults(faults)
	}
	ring, err := session.NewKeyring(keys)
	if err != nil {
		return nil, configFaults(config.Faults{cfg.Fault("session.keys", "%v", err)})
	}
	return &secrets{keys: ring}, nil
}

// newFrontDoor assembles everything, bottom to top.
func newFrontDoor(cfg *config.Config, sec *secrets, reg prometheus.Registerer, log *slog.Logger) (*proxy.Proxy, error) {
	with := parts{keys: sec.keys, bearers: map[string]admission.TokenVerifier{}, observers: []observe.Observer{observe.Log{Logger: log}}}
	if err := with.addProviders(cfg, reg, log); err != nil {
		return nil, err
	}
	door, _, err := assemble(cfg, with, reg, log)
	return door, err
}

// parts are what explain has pretend ones of.
type parts struct {
	keys       session.Keyring
	providers  []proxy.Provider
	bearers    map[string]admission.TokenVerifier // by route name
	permission []proxy.Permission
	app        http.RoundTripper // instead of every app
	observers  []observe.Observer
}

func assemble(cfg *config.Config, with parts, reg prometheus.Registerer, log *slog.Logger) (*proxy.Proxy, *session.Manager, error) {
	pol, faults := newPolicy(cfg) // again: hosts may have been references before
	if len(faults) > 0 {
		return nil, nil, configFaults(faults)
	}
	sessions, err := session.New(session.Options{
		Keys: with.keys, Secure: cfg.PublicURL.Scheme == "https", Port: portOf(cfg), Name: cfg.Session.CookieName,
		AbsoluteTimeout: cfg.Session.AbsoluteTimeout, IdleTimeout: cfg.Session.IdleTimeout, KeepGroups: cfg.KeptGroups(),
		Merged: endingsMerged(reg, log),
	})
	if err != nil {
		return nil, nil, err
	}
	assertions, err := newAssertions(cfg, with.keys)
	if err != nil {
		return nil, nil, err
	}
	admit, err := newAdmission(cfg, pol, with, sessions, assertions)
	if err != nil {
		return nil, nil, err
	}
	backends, err := newBackends(cfg, with)
	if err != nil {
		return nil, nil, err
	}
	door, err := proxy.New(proxy.Options{
		PublicURL: cfg.PublicURL, Prefix: cfg.Prefix, Admission: admit, Sessions: sessions, Routes: pol.table, Backends: backends,
		Headers: pol.headers, Assertions: assertions, Providers: with.providers, Orgs: pol.orgs, Branding: branding(cfg),
		Operators: rules(cfg.Operators), Permission: with.permission, KeepCache: cfg.Session.KeepCache,
		Trusted: cfg.TrustedProxies, MaxFlows: cfg.Limits.Flows, MaxURL: int(cfg.Limits.URL), Observers: with.observers, Log: log, Registerer: reg,
	})
	return door, sessions, err
}

// newAdmission makes the one answer that all front doors share.
func newAdmission(cfg *config.Config, pol *policy, with parts, sessions *session.Manager, signer *assertion.Signer) (*admission.Admission, error) {
	host, err := authz.CanonicalHost(cfg.PublicURL.Host)
	if err != nil {
		return nil, fmt.Errorf("public_url: %w", err)
	}
	o := admission.Options{
		PublicHost: host, Prefix: cfg.Prefix, Routes: pol.table, Settings: map[string]admission.Settings{}, Headers: pol.headers,
		Sessions: sessions, Orgs: pol.orgs, Assertions: signer,
	}
	for _, p := range with.providers {
		o.Providers = append(o.Providers, p.ID)
	}
	for _, r := range cfg.Routes {
		o.Settings[r.Name] = admission.Settings{Headers: pol.sets[r.Name], Keep: pol.kept[r.Name], Tokens: with.bearers[r.Name],
			App: r.Upstream.URL.String() + " " + r.Upstream.Host, Host: r.Upstream.Host}
	}
	return admission.New(o)
}

// endingsMerged shouts when so many people signed out that the list of who did
// became coarser: others have to sign in again.
func endingsMerged(reg prometheus.Registerer, log *slog.Logger) func(session.Merge) {
	merges := promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "sallyport_session_endings_merged_total",
		Help: "Times that the list of ended sessions was full, so that everybody who had signed in before some moment signs in again."})
	return func(m session.Merge) {
		if m.Person != "" {
			log.Warn("somebody signed in and out so often that all who signed in as they did at or before this time sign in again",
				"user", m.Person, "before", m.Before, "entries", m.Entries)
			return
		}
		merges.Inc()
		log.Error("the list of ended sessions is full: everybody who signed in at or before this time signs in again; shorten session.absolute_timeout if this happens often",
			"before", m.Before, "entries", m.Entries)
	}
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

// providerFaults judges what can be judged of providers without asking them,
// once all values are there.
func providerFaults(cfg *config.Config) config.Faults {
	var faults config.Faults
	for i, p := range cfg.Providers {
		if _, err := login.New(providerOptions(cfg, p)); err != nil {
			faults = append(faults, cfg.Fault(fmt.Sprintf("providers[%d]", i), "%v", err))
		}
	}
	return faults
}

func providerOptions(cfg *config.Config, p config.Provider) login.Options {
	o := p.Options()
	o.Needs = cfg.Needs()
	o.RedirectURL = redirectURI(cfg, p.ID)
	if o.ClientAssertion != nil { // such a token lives for minutes, and whoever issues it puts the next into the file
		o.ClientAssertion = func() (string, error) { return p.ClientAssertion.Reread(os.DirFS("/")) }
	}
	return o
}

// redirectURI is what is to be registered at a provider.
func redirectURI(cfg *config.Config, provider string) string {
	return ownAddress(cfg, "/callback/"+provider)
}

// logoutURI is to be registered too, where a provider sends people back to it.
func logoutURI(cfg *config.Config) string { return ownAddress(cfg, "/logout") }

func ownAddress(cfg *config.Config, path string) string {
	public := "<public_url>" // as long as that is only a reference
	if cfg.PublicURL != nil {
		public = cfg.PublicURL.String()
	}
	return public + cfg.Prefix + path
}

// addProviders makes the providers, and what follows from each.
func (with *parts) addProviders(cfg *config.Config, reg prometheus.Registerer, log *slog.Logger) error {
	metrics := oauth.NewMetrics(reg)
	for _, p := range cfg.Providers {
		client, err := oauth.NewClient(oauth.Options{Provider: p.ID, Roots: p.CA.Authorities(), Metrics: metrics})
		if err != nil {
			return err
		}
		o := providerOptions(cfg, p)
		o.Client, o.Log = client, log
		l, err := login.New(o)
		if err != nil {
			return err
		}
		name := p.Name
		if name == "" {
			name = p.ID
		}
		if err := addBearers(with.bearers, cfg, p.ID, l); err != nil {
			return err
		}
		with.permission = append(with.permission, permissionOf(l, redirectURI(cfg, p.ID)))
		with.providers = append(with.providers, proxy.Provider{ID: p.ID, Name: name, Login: l, EmailDomains: p.EmailDomains})
	}
	return nil
}

// addBearers adds the routes that take the access tokens of a provider.
func addBearers(to map[string]admission.TokenVerifier, cfg *config.Config, provider string, l *login.Provider) error {
	for _, r := range cfg.Routes {
		if r.Bearer.Provider != provider {
			continue
		}
		b, err := l.Bearer(cfg.BearerOptions(r))
		if err != nil {
			return fmt.Errorf("route %s: %w", r.Name, err)
		}
		to[r.Name] = b
	}
	return nil
}

func branding(cfg *config.Config) proxy.Branding {
	b := proxy.Branding{Name: cfg.Pages.Name}
	if logo := cfg.Pages.Logo.Value(); logo != "" {
		b.Logo, b.LogoType = []byte(logo), cfg.Pages.LogoType
	}
	return b
}

func logLevel(name string) slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(name)) // the configuration allows only its names
	return level
}
