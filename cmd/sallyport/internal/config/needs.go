package config

import (
	"slices"

	"github.com/sallyport-proxy/sallyport/login"
)

// Needs is what of a person anything here decides by: the rules of routes, who
// is an operator, and the organizations that others are folded into. What apps
// are merely told is not among it.
func (c *Config) Needs() login.Needs {
	needs := login.Needs{Orgs: len(c.Organizations) > 0}
	rules := slices.Clone(c.Operators)
	for _, r := range c.Routes {
		rules = append(rules, r.Allow.Any...)
	}
	for _, r := range rules {
		needs.Email = needs.Email || len(r.Emails)+len(r.EmailDomains) > 0
		needs.Groups = needs.Groups || len(r.Groups) > 0
		needs.Orgs = needs.Orgs || len(r.Orgs) > 0
	}
	for _, o := range c.Organizations {
		needs.Email = needs.Email || len(o.Match.EmailDomains) > 0
	}
	return needs
}
