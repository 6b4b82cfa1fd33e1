package assemble

import (
	"fmt"
	"log/slog"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
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
	_ admission.TokenVerifier   = (*login.TokenVerifier)(nil)
)

// addProviders makes the providers, and what follows from each.
func (with *Parts) addProviders(cfg *config.Config, metrics *oauth.Metrics, log *slog.Logger) error {
	for _, p := range cfg.Providers {
		client, err := oauth.NewClient(oauth.Options{Provider: p.ID, Roots: p.CA.Authorities(), Metrics: metrics})
		if err != nil {
			return err
		}
		o := ProviderOptions(cfg, p)
		o.Client, o.Log = client, log
		l, err := login.New(o)
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
		with.Permission = append(with.Permission, PermissionOf(l, RedirectURI(cfg, p.ID)))
		with.Providers = append(with.Providers, proxy.Provider{ID: p.ID, Name: name, Login: l, EmailDomains: p.EmailDomains})
	}
	return nil
}

// addTokens adds the routes that take the access tokens of a provider.
func addTokens(to []*admission.Tokens, cfg *config.Config, provider string, l *login.Provider) error {
	for i, r := range cfg.Routes {
		if r.Bearer.Provider != provider {
			continue
		}
		b, err := l.TokenVerifier(cfg.BearerOptions(r))
		if err != nil {
			return fmt.Errorf("route %s: %w", r.Name, err)
		}
		to[i] = &admission.Tokens{TokenVerifier: b, Issuer: b.Issuer()}
	}
	return nil
}

// PermissionOf is the summary of one provider, with the address to register there.
func PermissionOf(l *login.Provider, redirect string) pages.Permission {
	has := l.Permissions()
	p := pages.Permission{Provider: has.Provider, Type: has.Type, Redirect: redirect, Discarded: has.Discarded,
		Received: func() []pages.Term { return received(l) }}
	for _, s := range has.Scopes {
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
