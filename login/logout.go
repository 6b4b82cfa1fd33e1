package login

import (
	"context"
	"net/url"
)

// Logout says how a person signs out at the provider too (OpenID Connect RP-Initiated
// Logout): the browser goes to address with form as its query or, if post is set, posts
// form there. If address is "", the provider has no such endpoint. No ID token is sent,
// so the provider may ask the person first.
//
// returnTo and state may be "". They are sent only if the configuration names the
// parameter for returnTo, because a provider shows an error if that address is not
// registered there.
func (p *Provider) Logout(ctx context.Context, returnTo, state string) (
	address string, form url.Values, post bool, err error,
) {
	if p.signOut.Off {
		return "", nil, false, nil
	}
	address = p.endpoints.EndSessionURL // if configured, it is known even while the provider does not answer
	if address == "" {
		m, err := p.metadata(ctx)
		if err != nil || m.EndSessionURL == "" {
			return "", nil, false, err
		}
		address = m.EndSessionURL
	}
	form = url.Values{"client_id": {p.clientID}} // §2: needed without an id_token_hint
	if name := p.signOut.ReturnParam; name != "" && returnTo != "" {
		form.Set(name, returnTo)
		if state != "" {
			form.Set("state", state)
		}
	}
	for name, value := range p.signOut.Params {
		form.Set(name, value)
	}
	return address, form, p.dialect.logoutByPost, nil
}
