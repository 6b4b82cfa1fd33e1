package proxy

import (
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/proxy/pages"
)

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

// origins is for pages with a form that leads to a provider: Chromium
// applies form-action to the redirects that follow.
func (ps providers) origins() []string {
	var origins []string
	for _, provider := range ps {
		if o, ok := provider.Login.(interface{ AuthOrigins() []string }); ok {
			origins = append(origins, o.AuthOrigins()...)
		}
	}
	return origins
}

// knowsMetadata is a LoginProvider that tells whether it knows already where to
// send people. Then nobody waits for it to begin a sign-in.
type knowsMetadata interface {
	Discovered() bool
}

// discovered reports whether provider need not be asked where people sign in.
func discovered(provider Provider) bool {
	knows, ok := provider.Login.(knowsMetadata)
	return ok && knows.Discovered()
}
