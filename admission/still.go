package admission

import (
	"fmt"

	"github.com/sallyport-proxy/sallyport/authz"
)

// StillAdmits returns why a would not let in a request that another configuration has
// let in for who (nil: nobody): its route is gone, the rules say no, or the session or
// token counts no more. Streams and tunnels are asked about when the configuration has
// changed. The access token itself is not there to be verified again. How recently
// somebody must have proved who they are is counted from when the request came.
func (a *Admission) StillAdmits(f authz.Facts, who *Principal) error {
	route, err := a.lookup(f)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRulesChanged, err)
	}
	if who != nil && route.asksWho(f) {
		if err := a.stillCounts(route, who); err != nil {
			return err
		}
	}
	if v := authz.Decide(a.dated(f), route.Route, who.identity()); v.Outcome != authz.Forward {
		return fmt.Errorf("%w: %s", ErrRulesChanged, v.Reason)
	}
	return nil
}

func (a *Admission) stillCounts(route *Route, who *Principal) error {
	provider := who.Identity.Provider
	switch {
	case who.Session == nil && (route.Tokens == nil || route.Tokens.Provider != provider):
		return fmt.Errorf("%w: the route takes no access tokens of %s any more", ErrRulesChanged, provider)
	case who.Session == nil:
		return nil
	case !a.providers[provider]:
		return ErrNoProvider
	}
	if err := a.sessions.Holds(who.Session); err != nil {
		return err
	}
	return a.Verifiable(route.MaxAge)
}
