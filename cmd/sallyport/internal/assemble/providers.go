package assemble

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/oauth"
	"github.com/sallyport-proxy/sallyport/proxy"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
)

// login.Provider has every optional ability of a proxy.LoginProvider, and what
// reads its access tokens is what admission asks for.
var (
	_ proxy.LoginProvider       = (*login.Provider)(nil)
	_ proxy.DiscoveryReporter   = (*login.Provider)(nil)
	_ proxy.AuthOriginLister    = (*login.Provider)(nil)
	_ proxy.CallbackErrorReader = (*login.Provider)(nil)
	_ proxy.LogoutProvider      = (*login.Provider)(nil)
	_ proxy.Reauthenticator     = (*login.Provider)(nil)
	_ proxy.LogoutVerifier      = (*login.LogoutVerifier)(nil)
	_ admission.TokenVerifier   = (*login.TokenVerifier)(nil)
)

// logins are the providers in use. One whose part of the configuration did not change
// stays the same through a reload, with what it has learned: nothing is asked anew.
type logins struct {
	mu     sync.Mutex // guards shared
	shared map[[sha256.Size]byte]*sharedLogin
}

type sharedLogin struct {
	*login.Provider
	client *oauth.Client
	users  int // Runtimes
}

func newLogins() *logins { return &logins{shared: map[[sha256.Size]byte]*sharedLogin{}} }

// use counts a Runtime as a user of a provider, and adds that to used.
func (all *logins) use(cfg *config.Config, p config.Provider, metrics *oauth.Metrics, log *slog.Logger,
	details func(context.Context, identity.Org) identity.Org, used map[[sha256.Size]byte]*sharedLogin) (
	*login.Provider, error) {
	o := ProviderOptions(cfg, p)
	key := sumOf(o, p)
	all.mu.Lock()
	defer all.mu.Unlock()
	l := all.shared[key]
	if l == nil {
		client, err := oauth.NewClient(oauth.Options{Provider: p.ID, Roots: p.CA.Authorities(), Metrics: metrics})
		if err != nil {
			return nil, err
		}
		o.Client, o.Log, o.OrgDetails = client, log, details
		made, err := login.New(o)
		if err != nil {
			return nil, err
		}
		l = &sharedLogin{Provider: made, client: client}
		all.shared[key] = l
	}
	l.users++
	used[key] = l
	return l.Provider, nil
}

// release gives up what one Runtime used.
func (all *logins) release(used map[[sha256.Size]byte]*sharedLogin) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for key, l := range used {
		if l.users--; l.users == 0 {
			delete(all.shared, key)
			l.client.CloseIdleConnections()
		}
	}
}

// sumOf is of all that a provider is made of. Of files that are read again for each use only
// the paths count.
func sumOf(o login.Options, p config.Provider) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%#v %q %q %q", summed(o), p.CA.Value(), p.ClientAssertion.Path(),
		p.DiscoveryToken.Path()))
}

// summed is o without what %#v shows by its address only, which is the same for all functions
// that are made in one place.
func summed(o login.Options) login.Options {
	o.ClientAssertion, o.DiscoveryCredential = nil, nil
	o.Client, o.Now, o.Log, o.OrgDetails = nil, nil, nil, nil
	return o
}

// addProviders makes the providers, and what follows from each. Calling release gives
// them up.
func (with *Parts) addProviders(cfg *config.Config, p *Process) (release func(), err error) {
	used := map[[sha256.Size]byte]*sharedLogin{}
	release = sync.OnceFunc(func() { p.logins.release(used) })
	if err := with.useProviders(cfg, p, used); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

func (with *Parts) useProviders(cfg *config.Config, process *Process,
	used map[[sha256.Size]byte]*sharedLogin) error {
	for _, p := range cfg.Providers {
		l, err := process.logins.use(cfg, p, process.calls, process.log, process.details, used)
		if err != nil {
			return err
		}
		name := p.Name
		if name == "" {
			name = p.ID
		}
		if err := addTokens(with.Tokens, cfg, p.ID, l); err != nil {
			return err
		}
		with.logins[p.ID] = l
		if p.Use == login.UseTokens {
			continue
		}
		with.Permission = append(with.Permission, PermissionOf(l, RedirectURI(cfg, p.ID)))
		if !p.Directory.IsZero() {
			with.Permission = append(with.Permission, DirectoryPermission(cfg, p))
		}
		provider := proxy.Provider{ID: p.ID, Name: name, Login: l, EmailDomains: p.EmailDomains}
		if TakesLogouts(cfg, p) {
			if provider.Logouts, err = l.LogoutVerifier(); err != nil {
				return err
			}
		}
		if !p.Directory.IsZero() {
			provider.Directory = NewDirectory(p, l)
		}
		with.Providers = append(with.Providers, provider)
	}
	return nil
}

// TakesLogouts reports whether a provider may say that somebody signed out there.
func TakesLogouts(cfg *config.Config, p config.Provider) bool {
	return !cfg.Store.IsZero() && !p.NoBackchannelLogout && p.Use != login.UseTokens &&
		p.Options().NoLogoutTokens() == ""
}

// addTokens adds the routes that take the access tokens of a provider.
func addTokens(to []*admission.Tokens, cfg *config.Config, provider string, l *login.Provider) error {
	for i, r := range cfg.Routes {
		if r.Bearer.Provider != provider {
			continue
		}
		b, err := l.TokenVerifier(cfg.BearerOptions(r.Bearer))
		if err != nil {
			return fmt.Errorf("route %s: %w", r.Name, err)
		}
		to[i] = &admission.Tokens{TokenVerifier: b, Provider: provider, Issuer: b.Issuer()}
	}
	return nil
}

// PermissionOf is the summary of one provider, with the address to register there.
func PermissionOf(l *login.Provider, redirect string) pages.Permission {
	has := l.Permissions()
	p := pages.Permission{Action: pages.SignsIn, Provider: has.Provider, Type: has.Type, Redirect: redirect,
		Discarded: has.Discarded, Note: "All tokens are thrown away once it is known who signed in.",
		Received: func() []pages.Term { return received(l) }}
	for _, s := range has.Scopes {
		p.Offline = p.Offline || s.Name == "offline_access" // OpenID Connect Core 1.0 §11
		p.Scopes = append(p.Scopes, pages.Term{Name: s.Name, Means: s.Opens})
	}
	for _, c := range has.Claims {
		t := pages.Term{Name: c.Name, Means: c.For + " (" + c.From + ")"}
		if c.Kept {
			p.Kept = append(p.Kept, t)
		} else {
			p.Checked = append(p.Checked, t)
		}
	}
	for _, q := range has.Quirks {
		p.Quirks = append(p.Quirks, pages.Term{Name: q.Name, Means: q.Weakens})
	}
	return p
}

// received is what a provider sent at the last sign-in, without the values.
func received(l *login.Provider) []pages.Term {
	var terms []pages.Term
	for _, c := range l.LastClaims() {
		terms = append(terms, pages.Term{Name: c.Name, Means: c.Form + " (" + c.From + ")"})
	}
	return terms
}
