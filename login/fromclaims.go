package login

import (
	"context"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// IdentityFromClaims is who somebody would be whose ID token, checked, had these claims: a
// JSON object. It is for asking about rules; nothing is checked, so nobody is
// signed in with it. What userinfo would tell has to be among the claims; a
// Microsoft tenant is known by its id alone, as where only an access token is there.
func (p *Provider) IdentityFromClaims(ctx context.Context, object []byte) (identity.Identity, error) {
	members, err := oauth.Object(object)
	if err != nil {
		return identity.Identity{}, fail(identity.Rejected, "claims: %w", err)
	}
	who := p.follow(claims(members))
	if _, ok := p.dialect.person(who); !ok {
		return identity.Identity{}, fail(identity.Rejected, "the claims do not say who somebody is: no subject that can be read")
	}
	sources := []claims{who}
	if p.dialect.tokenOnlyClaims != nil {
		sources = append(sources, p.dialect.tokenOnlyClaims(who))
	}
	if err := p.checkOrgs(ctx, sources); err != nil {
		return identity.Identity{}, err
	}
	return p.identity(ctx, who, sources), nil
}
