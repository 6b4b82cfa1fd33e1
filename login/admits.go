package login

import (
	"context"
	"errors"

	"github.com/sallyport-proxy/sallyport/identity"
)

// excluded is why the options of a provider do not admit somebody.
type excluded struct {
	why    identity.Exclusion
	domain string // of the organization of their account, where that is the reason and is known
	words  string // for the log
}

// checkAdmitted refuses somebody, of whom the provider has proved who they are, if the options
// admit only others. It comes after all that could mean that the provider is not to be believed.
func (p *Provider) checkAdmitted(ctx context.Context, who claims) error {
	if p.dialect.admits == nil {
		return nil
	}
	if e := p.dialect.admits(who); e != nil {
		return p.notAdmitted(ctx, who, e)
	}
	return nil
}

func (p *Provider) notAdmitted(ctx context.Context, who claims, e *excluded) error {
	r := reader{p, ctx, who, []claims{who}}
	id := identity.Identity{Provider: p.id, Org: identity.Org{Domain: e.domain}}
	id.Subject, _ = p.dialect.person(who)
	if !p.dialect.nameless {
		id.Name, id.Username = r.text(p.claims.Name), r.text(p.claims.Username)
		id.Email, _ = r.address()
	}
	return &identity.SignInError{Failure: identity.NotAdmitted,
		Err: &identity.NotAdmittedError{Who: id, Why: e.why, Err: errors.New(e.words)}}
}
