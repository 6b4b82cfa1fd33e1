package login

import (
	"context"
	"net/url"
)

// Logout says how a person signs out at the provider too (OpenID Connect
// RP-Initiated Logout): the browser goes to address with form as its query, or,
// with post, sends form there. Without an address the provider has no such
// place. There is no token in it, so the provider may ask the person first.
// returnTo must be registered there; it and state may be "".
func (p *Provider) Logout(ctx context.Context, returnTo, state string) (address string, form url.Values, post bool, err error) {
	m, err := p.metadata(ctx)
	if err != nil || m.EndSessionURL == "" {
		return "", nil, false, err
	}
	form = url.Values{"client_id": {p.clientID}} // §2: where no id_token_hint says whose request it is
	if returnTo != "" {
		form.Set("post_logout_redirect_uri", returnTo)
		if state != "" {
			form.Set("state", state)
		}
	}
	return m.EndSessionURL, form, p.policy.logoutByPost, nil
}
