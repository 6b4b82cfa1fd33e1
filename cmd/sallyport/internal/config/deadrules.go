package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/login"
)

// DeadRules finds what nobody can match, as far as the file tells: such a rule
// keeps out whom it was written for.
func (c *Config) DeadRules() []Fault {
	var found []Fault
	for _, r := range c.Rules() {
		found = append(found, c.deadEntries(r.Path, r.Rule)...)
	}
	return found
}

func (c *Config) deadEntries(at string, rule Rule) []Fault {
	var found []Fault
	for _, list := range []struct {
		name    string
		entries []string
		dead    func(string) string
	}{
		{"orgs", rule.Orgs, c.DeadOrg}, {"groups", rule.Groups, c.deadGroup}, {"emails", rule.Emails, c.deadEmail},
		{"email_domains", rule.EmailDomains, c.deadDomain}, {"subjects", rule.Subjects, c.deadSubject},
	} {
		for i, entry := range list.entries {
			if why := list.dead(entry); why != "" {
				found = append(found, c.Fault(fmt.Sprintf("%s.%s[%d]", at, list.name, i), "matches nobody: %s", why))
			}
		}
	}
	return found
}

// DeadOrg is why nobody can be in an organization of this id; "": somebody may be. An id with
// a colon is what a provider gives, and one without is of the configuration.
func (c *Config) DeadOrg(org string) string {
	id, _, given := strings.Cut(org, ":")
	switch {
	case given && !slices.ContainsFunc(c.Providers, func(p Provider) bool { return p.ID == id }):
		return "no provider has the id " + id + yamltable.ThereIs(c.ProviderIDs())
	case !given && !slices.ContainsFunc(c.Organizations, func(o Organization) bool { return o.ID == id }):
		return "no organization has this id; ids of providers begin with theirs, as in " + c.Providers[0].ID + ":" + id
	}
	return ""
}

func (c *Config) deadSubject(subject string) string {
	id, _, whole := strings.Cut(subject, ":")
	if !whole {
		return "ids begin with that of the provider, as in " + c.Providers[0].ID + ":" + subject
	}
	if !slices.ContainsFunc(c.Providers, func(p Provider) bool { return p.ID == id }) {
		return "no provider has the id " + id + yamltable.ThereIs(c.ProviderIDs())
	}
	return ""
}

func (c *Config) deadGroup(group string) string {
	if kept := c.KeptGroups(); kept == nil || slices.Contains(kept, group) {
		return ""
	}
	return "sessions do not keep this group, see groups.keep"
}

func (c *Config) deadEmail(email string) string {
	_, domain, _ := strings.Cut(strings.ToLower(email), "@")
	return c.deadDomain(domain)
}

// deadDomain: a provider that is not bounded may vouch for any domain.
func (c *Config) deadDomain(domain string) string {
	for _, p := range c.Providers {
		if p.EmailDomains == nil && p.Use != login.UseTokens || slices.Contains(p.EmailDomains, domain) {
			return ""
		}
	}
	return "no provider may vouch for an address at " + domain + ", see email_domains of the providers"
}
