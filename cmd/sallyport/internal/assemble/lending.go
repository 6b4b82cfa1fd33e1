package assemble

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/apikey"
	"github.com/sallyport-proxy/sallyport/connector/caldav"
	"github.com/sallyport-proxy/sallyport/connector/google"
	"github.com/sallyport-proxy/sallyport/connector/ics"
	"github.com/sallyport-proxy/sallyport/connector/oauth2"
	"github.com/sallyport-proxy/sallyport/connector/outlook"
	"github.com/sallyport-proxy/sallyport/connector/pagerduty"
	"github.com/sallyport-proxy/sallyport/connector/pagerdutykey"
	"github.com/sallyport-proxy/sallyport/connector/slack"
	"github.com/sallyport-proxy/sallyport/gateway"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/oauth"
	"github.com/sallyport-proxy/sallyport/proxy"
	"github.com/sallyport-proxy/sallyport/session"
)

// ConnectorTypes are the connectors that there are. One more is a folder below connector,
// a line here, and its keys in config.
func ConnectorTypes() config.Types {
	types := config.Types{
		google.Type:       newGoogle,
		outlook.Type:      newOutlook,
		pagerduty.Type:    newPagerDuty,
		pagerdutykey.Type: newPagerDutyKey,
		slack.Type:        newSlack,
		caldav.Type:       newCalDAV,
		ics.Type:          newICS,
		oauth2.Type:       newOAuth2,
		apikey.Type:       newAPIKey,
	}
	for _, k := range apikey.All() {
		types[k.Type] = newKnownKey(k)
	}
	return types
}

// registered is our client at a third party, of the connectors that know it.
func registered(k config.Connector, client *oauth.Client) connector.Client {
	return connector.Client{ID: k.ID, Name: k.Name, ClientID: k.ClientID, ClientSecret: secretOf(k.ClientSecret),
		Owner: grant.OwnerKind(k.Owner), Base: k.BaseURL, OAuth: client}
}

func newGoogle(k config.Connector, client *oauth.Client) (grant.Connector, error) {
	return google.New(registered(k, client))
}

func newOutlook(k config.Connector, client *oauth.Client) (grant.Connector, error) {
	return outlook.New(outlook.Options{Client: registered(k, client), Tenant: k.Tenant})
}

func newPagerDuty(k config.Connector, client *oauth.Client) (grant.Connector, error) {
	return pagerduty.New(pagerduty.Options{Client: registered(k, client), Scopes: k.OAuthKind})
}

func newPagerDutyKey(k config.Connector, client *oauth.Client) (grant.Connector, error) {
	return pagerdutykey.New(pagerdutykey.Options{ID: k.ID, Name: k.Name, Region: k.Region,
		Owner: grant.OwnerKind(k.Owner), Base: k.BaseURL, OAuth: client})
}

func newSlack(k config.Connector, client *oauth.Client) (grant.Connector, error) {
	return slack.New(registered(k, client))
}

func newCalDAV(k config.Connector, client *oauth.Client) (grant.Connector, error) {
	return caldav.New(caldav.Options{ID: k.ID, Name: k.Name, BaseURL: k.BaseURL, Owner: grant.OwnerKind(k.Owner),
		AllowHosts: k.AllowHosts, KeyHint: k.KeyHint, KeyURL: k.KeyURL, OAuth: client})
}

func newICS(k config.Connector, client *oauth.Client) (grant.Connector, error) {
	return ics.New(ics.Options{ID: k.ID, Name: k.Name, Owner: grant.OwnerKind(k.Owner), AllowHosts: k.AllowHosts,
		OAuth: client})
}

func newOAuth2(k config.Connector, client *oauth.Client) (grant.Connector, error) {
	var accesses []grant.Access
	for _, s := range k.Scopes {
		accesses = append(accesses, grant.Access{Name: s.Name, Scopes: s.List, Rules: lendRules(k, s.Name)})
	}
	return oauth2.New(oauth2.Options{
		ID: k.ID, Name: k.Name, ClientID: k.ClientID, ClientSecret: secretOf(k.ClientSecret),
		Auth:          oauth.ClientAuth(cmp.Or(k.ClientAuth, string(oauth.Basic))),
		Authorization: k.Endpoints.Authorization, Token: k.Endpoints.Token, Revocation: k.Endpoints.Revocation,
		Issuer: k.Issuer, BaseURL: k.BaseURL, Owner: grant.OwnerKind(k.Owner), Accesses: accesses,
		AuthorizationParams: k.AuthorizationParams, Forward: k.ForwardHeaders, Reconnect: k.NoResend,
		EndedCodes: k.EndedCodes, OAuth: client})
}

func newAPIKey(k config.Connector, client *oauth.Client) (grant.Connector, error) {
	var accesses []grant.Access
	for _, r := range k.Rules {
		accesses = append(accesses, grant.Access{Name: r.Name, Rules: lendRules(k, r.Name)})
	}
	return apikey.New(apikey.Options{ID: k.ID, Name: k.Name, BaseURL: k.BaseURL, Header: k.Inject.Header,
		Format: k.Inject.Format, Basic: k.Inject.Basic, Headers: k.Headers, Probe: k.Probe,
		Owner: grant.OwnerKind(k.Owner), Accesses: accesses,
		Forward: k.ForwardHeaders, KeyHint: k.KeyHint, KeyURL: k.KeyURL, OAuth: client})
}

// newKnownKey makes connectors of a third party of which apikey knows how it takes keys.
func newKnownKey(of apikey.Known) config.NewConnector {
	return func(k config.Connector, client *oauth.Client) (grant.Connector, error) {
		return of.New(apikey.Options{ID: k.ID, Name: k.Name, BaseURL: k.BaseURL, Headers: k.Headers,
			Owner: grant.OwnerKind(k.Owner), OAuth: client})
	}
}

// lendRules are the rules of an access. config has judged them.
func lendRules(k config.Connector, access string) (rules []grant.Rule) {
	for _, text := range k.RulesOf(access) {
		if rule, err := grant.ParseRule(text); err == nil {
			rules = append(rules, rule)
		}
	}
	return rules
}

// unresolved stands in for a value that is only a reference yet.
const unresolved = "unresolved"

// SecretOf is the secret of a connector's client, or what stands in for it; "": it has none.
func SecretOf(k config.Connector) string { return secretOf(k.ClientSecret) }

func secretOf(r config.Ref) string {
	if r.IsZero() {
		return ""
	}
	return cmp.Or(r.Value(), unresolved)
}

// connectors makes those of a configuration. It does no I/O.
func connectors(cfg *config.Config, metrics *oauth.Metrics) (made []grant.Connector, faults config.Faults) {
	types := ConnectorTypes()
	maps.Copy(types, cfg.FurtherTypes())
	for i, k := range cfg.Grants.Connectors {
		where := yamltable.Index("grants.connectors", i)
		client, err := oauth.NewClient(oauth.Options{Provider: k.ID, Metrics: metrics})
		var c grant.Connector
		if err == nil {
			c, err = types[k.Type](k, client)
		}
		if fault, ok := errors.AsType[*connector.Fault](err); ok {
			faults = append(faults, cfg.Fault(where+"."+fault.Key, "%v", fault.Err))
			continue
		}
		if err != nil {
			faults = append(faults, cfg.Fault(where, "%v", err))
			continue
		}
		if err := usable(c, k); err != nil {
			faults = append(faults, cfg.Fault(where+".type", "%v", err))
			continue
		}
		if _, takes := c.(grant.WebhookReceiver); !takes && len(k.SigningSecrets) > 0 {
			faults = append(faults, cfg.Fault(where+".signing_secrets",
				"has no meaning for type %s, which takes no events; leave it out", k.Type))
			continue
		}
		faults = append(faults, accessFaults(cfg, i, c)...)
		made = append(made, c)
	}
	return made, faults
}

// usable judges what a constructor made: those of further types are not ours.
func usable(c grant.Connector, k config.Connector) error {
	_, oauth := c.(grant.OAuth)
	_, keyed := c.(grant.Keyed)
	if !oauth && !keyed {
		return fmt.Errorf("makes nothing that people could connect (%s)", k.Type)
	}
	if about := c.About(); oauth && about.Refresh == "" {
		return fmt.Errorf("makes a connector that does not say where its refresh tokens are sent (%s)", k.Type)
	} else if about.ID != k.ID || len(about.Accesses) == 0 {
		return fmt.Errorf("makes a connector with another id, or without accesses (%s)", k.Type)
	}
	return nil
}

// Connectors makes those of a configuration for commands, in its order. Where a reference is
// not resolved they can say what they would do, and not do it. Its error is config.Faults.
func Connectors(cfg *config.Config) ([]grant.Connector, error) {
	made, faults := unresolvedConnectors(cfg)
	if len(faults) > 0 {
		return nil, faults
	}
	return made, nil
}

// unresolvedConnectors makes connectors of which secrets, and what else is a reference, may
// not be known yet.
func unresolvedConnectors(cfg *config.Config) ([]grant.Connector, config.Faults) {
	known := *cfg
	known.Grants.Connectors = slices.Clone(cfg.Grants.Connectors)
	for i := range known.Grants.Connectors {
		k := &known.Grants.Connectors[i]
		k.ClientID = cmp.Or(k.ClientID, unresolved)
	}
	return connectors(&known, nil)
}

// accessFaults are those of names that only the type of a connector knows.
func accessFaults(cfg *config.Config, i int, c grant.Connector) (faults config.Faults) {
	k, has := cfg.Grants.Connectors[i], accessNames(c)
	where := yamltable.Index("grants.connectors", i)
	fault := func(path, name, why string, known []string) {
		f := cfg.Fault(path, "%s %s", why, strings.Join(known, ", "))
		f.Suggestion = yamltable.Nearest(name, known)
		faults = append(faults, f)
	}
	for n, name := range k.Access {
		if !slices.Contains(has, name) {
			fault(yamltable.Index(where+".access", n), name, "is none of", has)
		}
	}
	offers := offered(k, c)
	for a, app := range cfg.Grants.Apps {
		for n, use := range app.Connectors {
			for m, name := range use.Access {
				if use.ID == k.ID && k.Offered() == nil && !slices.Contains(offers, name) {
					fault(fmt.Sprintf("grants.apps[%d].connectors[%d].access[%d]", a, n, m), name,
						"is not offered by "+k.ID+", which offers", offers)
				}
			}
		}
	}
	return faults
}

func accessNames(c grant.Connector) (names []string) {
	for _, a := range c.About().Accesses {
		names = append(names, a.Name)
	}
	return names
}

// offered are the accesses that apps may be configured for. Where the file does not say it,
// that is the narrowest.
func offered(k config.Connector, c grant.Connector) []string {
	if named := k.Offered(); named != nil {
		return named
	}
	return accessNames(c)[:1]
}

// lending is what people lend, as one configuration has it.
type lending struct {
	*grant.Broker
	apps     []gateway.App
	notifier *gateway.Notifier
}

// newLending makes what lends, if the configuration has that, and p a store.
func (p *Process) newLending(cfg *config.Config, sec *Secrets, logins map[string]*login.Provider) (*lending, error) {
	if !cfg.Grants.On() || p.store == nil {
		return nil, nil
	}
	made, faults := connectors(cfg, p.calls)
	if len(faults) > 0 {
		return nil, faults
	}
	offers := map[string]*grant.Offer{}
	o := grant.Options{Store: p.store.Grants(), Keys: sec.GrantKeys.Keyring, Log: p.log, Metrics: p.refreshes,
		Audit: p.auditGrant, Redirect: func(id string) string { return ConnectURI(cfg, id) },
		Ended: func(person, org string, at time.Time) bool {
			return session.EndedAfter(p.ended, person, org, at)
		}}
	for i, k := range cfg.Grants.Connectors {
		offer := grant.Offer{Connector: made[i], Owner: grant.OwnerKind(k.Owner), Offered: offered(k, made[i])}
		for _, secret := range k.SigningSecrets {
			offer.SigningSecrets = append(offer.SigningSecrets, secret.Value())
		}
		if k.Owner == config.OwnedByOrg {
			offer.ManagedBy = admittedBy(k.ManagedBy)
			if k.UsableBy != nil {
				offer.UsableBy = admittedBy(k.UsableBy)
			}
		}
		o.Offers = append(o.Offers, offer)
		offers[k.ID] = &offer
	}
	signer, err := newAssertions(cfg, sec.Keys)
	if err != nil {
		return nil, err
	}
	notifier := newNotifier(cfg, signer)
	o.Notify, o.Relay = notifier.Notify, notifier.Relay
	var apps []gateway.App
	for _, a := range cfg.Grants.Apps {
		app, at := newApp(cfg, a, offers)
		if at.AccessTokens, err = accessTokens(cfg, a, logins); err != nil {
			return nil, fmt.Errorf("app %s: %w", a.ID, err)
		}
		o.Apps, apps = append(o.Apps, app), append(apps, at)
	}
	broker, err := grant.New(o)
	if err != nil {
		return nil, err
	}
	l := &lending{broker, apps, notifier}
	p.brokers.add(l)
	return l, nil
}

// webhooks takes the signed events of third parties; nil: no connector has any.
func (l *lending) webhooks(cfg *config.Config) proxy.Webhooks {
	if l == nil || !slices.ContainsFunc(cfg.Grants.Connectors, func(k config.Connector) bool {
		return l.Receives(k.ID)
	}) {
		return nil
	}
	return l.Broker
}

// WebhookURI is what is to be entered at the third party of a connector that has signed
// events; "" of others.
func WebhookURI(cfg *config.Config, k config.Connector) string {
	if len(k.SigningSecrets) == 0 {
		return ""
	}
	return ownAddress(cfg, "/webhooks/"+k.ID)
}

// newNotifier tells apps of what became of grants, those that have an address for it.
func newNotifier(cfg *config.Config, signer *assertion.Signer) *gateway.Notifier {
	to := map[string]*url.URL{}
	for _, a := range cfg.Grants.Apps {
		if a.EventsURL != nil {
			to[a.ID] = a.EventsURL
		}
	}
	return gateway.NewNotifier(signer, to)
}

// newApp is an app as the broker and as the gateway know it.
func newApp(cfg *config.Config, a config.App, offers map[string]*grant.Offer) (grant.App, gateway.App) {
	app := grant.App{ID: a.ID, Name: cmp.Or(a.Name, a.ID), Routes: a.Routes, Connectors: map[string][]string{},
		Offline: a.Offline, RawTokens: a.RawTokens, Told: a.EventsURL != nil, Admits: admittedToAny(cfg, a.Routes)}
	at := gateway.App{ID: a.ID, Routes: a.Routes, Connectors: map[string]*gateway.Connector{}, Offline: a.Offline,
		RawTokens: a.RawTokens}
	for _, token := range a.Tokens {
		at.Tokens = append(at.Tokens, token.Value())
	}
	for _, use := range a.Connectors {
		offer := offers[use.ID]
		c := &gateway.Connector{About: offer.Connector.About()}
		app.Connectors[use.ID], c.Accesses = mayAsk(use, offer.Offered, c.About)
		at.Connectors[use.ID] = c
	}
	return app, at
}

// accessTokens are those of a provider that prove an app; nil: none do.
func accessTokens(cfg *config.Config, a config.App, logins map[string]*login.Provider) (*gateway.AccessTokens, error) {
	at := slices.IndexFunc(cfg.Providers, func(p config.Provider) bool { return p.ID == a.Bearer.Provider })
	if at < 0 {
		return nil, nil
	}
	verifier, err := logins[a.Bearer.Provider].TokenVerifier(cfg.BearerOptions(a.Bearer.Bearer))
	if err != nil {
		return nil, err
	}
	return &gateway.AccessTokens{TokenVerifier: verifier, Issuer: cfg.Providers[at].Issuer,
		Subjects: a.Bearer.Subjects}, nil
}

// admittedBy judges people as belonging to the organization whose grant it is.
func admittedBy(list []config.Rule) func(identity.Identity) bool {
	access := authz.Access{Rules: rules(list)}
	return func(who identity.Identity) bool { return access.Admits(&who, true) }
}

// admittedToAny reports whether one of the routes would let somebody in, whatever they ask
// for there.
func admittedToAny(cfg *config.Config, names []string) func(identity.Identity) bool {
	var accesses []authz.Access
	var bound []bool
	for _, r := range cfg.Routes {
		if slices.Contains(names, r.Name) {
			accesses, bound = append(accesses, access(r)), append(bound, r.ForEachOrg())
		}
	}
	return func(who identity.Identity) bool {
		for i, a := range accesses {
			if a.Admits(&who, bound[i]) {
				return true
			}
		}
		return false
	}
}

// newGateway makes the front door for apps.
func (p *Process) newGateway(cfg *config.Config, l *lending, signer *assertion.Signer,
	sessions *session.Manager) (*gateway.Gateway, error) {
	if l == nil {
		return nil, nil
	}
	return gateway.New(p.gateway, gateway.Options{PublicURL: cfg.PublicURL, Prefix: cfg.Prefix, Broker: l.Broker,
		Apps: l.apps, Assertions: signer, Sessions: sessions, IdleTimeout: cfg.Session.IdleTimeout})
}

// brokers are those that may have refreshes under way: of all Runtimes, until they have
// ended.
type brokers struct {
	mu   sync.Mutex // guards open
	open map[*grant.Broker]bool
}

func (b *brokers) add(l *lending) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[l.Broker] = true
}

// close has a broker begin no further refresh, and forgets it when the last one has ended.
func (b *brokers) close(l *lending) {
	l.Close()
	go func() {
		_ = l.Wait(context.Background()) // which has no end
		l.notifier.Close()
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.open, l.Broker)
	}()
}

// EndRefreshes begins no further refresh of what people lent, and waits for those that are
// under way until their results are kept, or ctx is done.
func (p *Process) EndRefreshes(ctx context.Context) {
	p.brokers.mu.Lock()
	open := slices.Collect(maps.Keys(p.brokers.open))
	p.brokers.mu.Unlock()
	for _, b := range open {
		b.Close()
	}
	for _, b := range open {
		if err := b.Wait(ctx); err != nil {
			p.log.Error("stopped with refreshes of grants under way: their results may be lost", "error", err)
		}
	}
}

// ConnectURI is what is to be registered at the third party of a connector.
func ConnectURI(cfg *config.Config, id string) string {
	return ownAddress(cfg, "/connect/"+id+"/callback")
}

// auditGrant tells the audit stream of a step in the life of a grant.
func (p *Process) auditGrant(e grant.Event) {
	if p.auditGrants != nil {
		p.auditGrants(GrantStep(e))
	}
}

// GrantStep is what the audit stream is told of a step in the life of a grant.
func GrantStep(e grant.Event) observe.GrantStep {
	step := observe.GrantStep{Event: e.Name, User: e.By, App: e.App, Connector: e.Connector, RequestID: e.RequestID,
		Client: cmp.Or(e.Operator, e.Client), Detail: e.Detail}
	switch {
	case e.Owner.Kind == grant.OwnedByOrg:
		step.Org = e.Owner.ID
	case e.By == "": // an operator did it, or nobody: whose the grant is
		step.User = e.Owner.ID
	}
	return step
}
