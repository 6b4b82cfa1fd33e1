package proxy

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
)

// LoginProvider is what the front door needs of an identity provider. It has no
// way to hand out a token (P8). Errors are *identity.SignInError.
type LoginProvider interface {
	// AuthURL is where to send the browser. It may have to discover that first.
	AuthURL(ctx context.Context, h identity.Handshake, p identity.AuthParams) (string, error)
	// Redeem turns the callback's parameters into the person who signed in.
	Redeem(
		ctx context.Context, callback url.Values, h identity.Handshake, p identity.AuthParams,
	) (identity.Identity, error)
}

// Provider is a configured LoginProvider.
type Provider struct {
	ID    string // as in callback/{id}
	Name  string // for people
	Login LoginProvider
	// Logouts verifies what it sends when somebody signs out there; nil: it sends nothing.
	Logouts LogoutVerifier
	// EmailDomains are those it may vouch for, lower case; nil: any.
	EmailDomains []string
	// Directory says how the directories of organizations there are read; nil: they are not.
	Directory *Directory
}

// The interfaces that follow are optional abilities of a LoginProvider. The proxy
// asks for each by a type assertion and does without it where it is missing.

// DiscoveryReporter is a LoginProvider that tells whether it has discovered
// already where to send people. If it has, a sign-in begins without waiting.
type DiscoveryReporter interface {
	Discovered() bool
}

// AuthOriginLister is a LoginProvider that lists the origins a browser may pass
// through on its way to the sign-in page. The Content-Security-Policy of pages
// with a form that may lead to the provider has to allow them.
type AuthOriginLister interface {
	AuthOrigins() []string
}

// CallbackErrorReader is a LoginProvider that turns an error code in a callback
// into an error that says what the code means.
type CallbackErrorReader interface {
	CallbackError(code, description string) error
}

// AuthTimeAdviser is a LoginProvider that knows what has to be set there, so that it
// tells when people proved who they are.
type AuthTimeAdviser interface {
	AuthTimeAdvice() string
}

// LogoutProvider is a LoginProvider at which people can sign out too (OpenID
// Connect RP-Initiated Logout 1.0): the browser goes to address with form as its
// query, or posts form there if post is set. An empty address means that the
// provider has no such page. The LoginProvider decides whether returnTo is sent
// along, because it has to be registered at the provider.
type LogoutProvider interface {
	Logout(ctx context.Context, returnTo, state string) (address string, form url.Values, post bool, err error)
}

// providers are those of the configuration, in its order.
type providers []Provider

// find is the provider with an id.
func (ps providers) find(id string) (Provider, bool) {
	for _, provider := range ps {
		if provider.ID == id {
			return provider, true
		}
	}
	return Provider{}, false
}

// choose returns the provider asked for, the only one, or the only one that
// vouches for addresses such as hint.
func (ps providers) choose(id, hint string) (Provider, bool) {
	switch {
	case id != "":
		return ps.find(id)
	case len(ps) == 1:
		return ps[0], true
	}
	_, domain, _ := strings.Cut(hint, "@")
	var vouching []Provider
	for _, provider := range ps {
		if slices.Contains(provider.EmailDomains, strings.ToLower(domain)) {
			vouching = append(vouching, provider)
		}
	}
	if len(vouching) == 1 {
		return vouching[0], true
	}
	return Provider{}, false
}

// choices are what the page with a button for each provider shows.
func (ps providers) choices(returnTo, purpose string) pages.SignIn {
	data := pages.SignIn{ReturnTo: returnTo, Switch: purpose == purposeSwitch}
	for _, provider := range ps {
		data.Providers = append(data.Providers, pages.SignInChoice{ID: provider.ID, Name: provider.Name})
	}
	return data
}

// origins is for pages with a form that leads to a page of an app: for that the provider may have
// to be asked first, and Chromium applies form-action to the redirects that follow.
func (ps providers) origins() []string {
	var origins []string
	for _, provider := range ps {
		if lister, ok := provider.Login.(AuthOriginLister); ok {
			origins = append(origins, lister.AuthOrigins()...)
		}
	}
	return origins
}

// discovered reports whether it is known already where people sign in at provider.
func discovered(provider Provider) bool {
	reporter, ok := provider.Login.(DiscoveryReporter)
	return ok && reporter.Discovered()
}
