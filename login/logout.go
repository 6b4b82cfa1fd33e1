package login

import (
	"context"
	"net/url"
)

// Logout says how a person signs out at the provider too (OpenID Connect
// RP-Initiated Logout): the browser goes to address with form as its query, or,
// with post, sends form there. Without an address the provider has no such
// place. There is no token in it, so the provider may ask the person first.
// returnTo goes along where the configuration says in which parameter, because a
// provider shows an error for an address that is not registered there; state
// goes with it. Both may be "".
func (p *Provider) Logout(ctx context.Context, returnTo, state string) (address string, form url.Values, post bool, err error) {
	if p.signOut.Off {
		return "", nil, false, nil
	}
	address = p.endpoints.EndSessionURL // known without asking, also while the provider does not answer
	if address == "" {
		m, err := p.metadata(ctx)
		if err != nil || m.EndSessionURL == "" {
			return "", nil, false, err
		}
		address = m.EndSessionURL
	}
	form = url.Values{"client_id": {p.clientID}} // §2: where no id_token_hint says whose request it is
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
