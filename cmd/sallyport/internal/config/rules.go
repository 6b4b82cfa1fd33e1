package config

import (
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
)

// PlacedRule is a rule and its place in the file, for Config.Fault.
type PlacedRule struct {
	Rule
	Path  string
	bound bool // to the organization that its host names, or whose grant it is about
	any   bool // and that can be any organization of any provider
}

// Rules are all rules of the file. What judges rules asks here, so that none is left
// out.
func (c *Config) Rules() []PlacedRule {
	var rules []PlacedRule
	for i, r := range c.Routes {
		for j, rule := range r.Allow.Any {
			rules = append(rules, PlacedRule{rule, yamltable.Index(yamltable.Index("routes", i)+".allow", j),
				r.ForEachOrg(), false})
		}
	}
	for i, rule := range c.Operators {
		rules = append(rules, PlacedRule{Rule: rule, Path: yamltable.Index("operators", i)})
	}
	for i, k := range c.Grants.Connectors {
		where := yamltable.Index("grants.connectors", i)
		for j, rule := range k.ManagedBy {
			rules = append(rules, PlacedRule{rule, yamltable.Index(where+".managed_by", j), true, true})
		}
		for j, rule := range k.UsableBy {
			rules = append(rules, PlacedRule{rule, yamltable.Index(where+".usable_by", j), true, true})
		}
	}
	return rules
}

// bareGroupWarnings: a group is whatever any provider says.
func (c *Config) bareGroupWarnings() Faults {
	var warnings Faults
	for _, r := range c.Rules() {
		more := len(r.Orgs) + len(r.EmailDomains) + len(r.Emails) + len(r.Subjects)
		if len(c.Providers) > 1 && len(r.Groups) > 0 && more == 0 && !r.bound {
			warnings = append(warnings, c.doc.FaultAt(r.Path,
				"each of the providers can put people into these groups; add orgs or email_domains to say whose"))
		}
	}
	return warnings
}
