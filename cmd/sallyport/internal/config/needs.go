package config

import (
	"slices"

	"github.com/sallyport-proxy/sallyport/login"
)

// Needs is what of a person anything here decides by: the rules of routes, who is an
// operator, whose grants they use, and the organizations that others are folded into. What
// apps are merely told is not among it.
func (c *Config) Needs() login.Needs {
	needs := login.Needs{Orgs: len(c.Organizations) > 0 || slices.ContainsFunc(c.Grants.Connectors,
		func(k Connector) bool { return k.Owner == OwnedByOrg })}
	for _, r := range c.Rules() {
		needs.Email = needs.Email || len(r.Emails)+len(r.EmailDomains) > 0
		needs.Groups = needs.Groups || len(r.Groups) > 0
		needs.Orgs = needs.Orgs || len(r.Orgs) > 0
	}
	for _, o := range c.Organizations {
		needs.Email = needs.Email || len(o.Match.EmailDomains) > 0
	}
	return needs
}
