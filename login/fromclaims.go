package login

import (
	"context"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// IdentityFromClaims returns the identity that a person would have whose ID token had
// these claims, which are a JSON object. It is for trying rules out: nothing is verified,
// and nobody is signed in with the result. Claims that userinfo would add must be in the
// object. Of a Microsoft tenant only the id is known, as with an access token.
func (p *Provider) IdentityFromClaims(ctx context.Context, object []byte) (identity.Identity, error) {
	members, err := oauth.Object(object)
	if err != nil {
		return identity.Identity{}, fail(identity.Rejected, "claims: %w", err)
	}
	who := p.resolvePaths(claims(members))
	if p.dialect.prepare != nil {
		if who, err = p.dialect.prepare(who); err != nil {
			return identity.Identity{}, err
		}
	}
	if _, ok := p.dialect.person(who); !ok {
		return identity.Identity{}, fail(identity.Rejected,
			"the claims do not say who somebody is: no subject that can be read")
	}
	if err := p.checkAdmitted(ctx, who); err != nil {
		return identity.Identity{}, err
	}
	sources := []claims{who}
	if p.dialect.tokenOnlyClaims != nil {
		sources = append(sources, p.dialect.tokenOnlyClaims(who))
	}
	if err := p.checkOrgs(ctx, who, sources); err != nil {
		return identity.Identity{}, err
	}
	return p.identity(ctx, who, sources), nil
}
