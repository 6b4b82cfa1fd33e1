package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
)

// deadRules finds what nobody can match, as far as the file tells: such a rule
// keeps out whom it was written for.
func deadRules(cfg *config.Config) []config.Fault {
	var found []config.Fault
	for _, r := range cfg.Rules() {
		found = append(found, deadEntries(cfg, r.Path, r.Rule)...)
	}
	return found
}

func deadEntries(cfg *config.Config, at string, rule config.Rule) []config.Fault {
	var found []config.Fault
	for _, list := range []struct {
		name    string
		entries []string
		dead    func(*config.Config, string) string
	}{
		{"orgs", rule.Orgs, deadOrg}, {"groups", rule.Groups, deadGroup}, {"emails", rule.Emails, deadEmail}, {"email_domains", rule.EmailDomains, deadDomain},
	} {
		for i, entry := range list.entries {
			if why := list.dead(cfg, entry); why != "" {
				found = append(found, cfg.Fault(fmt.Sprintf("%s.%s[%d]", at, list.name, i), "matches nobody: %s", why))
			}
		}
	}
	return found
}

// deadOrg: an id with a colon is what a provider gives, and one without is of
// the configuration.
func deadOrg(cfg *config.Config, org string) string {
	id, _, given := strings.Cut(org, ":")
	switch {
	case given && !slices.ContainsFunc(cfg.Providers, func(p config.Provider) bool { return p.ID == id }):
		return "no provider has the id " + id
	case !given && !slices.ContainsFunc(cfg.Organizations, func(o config.Organization) bool { return o.ID == id }):
		return "no organization has this id; ids of providers begin with theirs, as in " + cfg.Providers[0].ID + ":" + id
	}
	return ""
}

func deadGroup(cfg *config.Config, group string) string {
	if kept := cfg.KeptGroups(); kept == nil || slices.Contains(kept, group) {
		return ""
	}
	return "sessions do not keep this group, see groups.keep"
}

func deadEmail(cfg *config.Config, email string) string {
	_, domain, _ := strings.Cut(strings.ToLower(email), "@")
	return deadDomain(cfg, domain)
}

// deadDomain: a provider that is not bounded may vouch for any domain.
func deadDomain(cfg *config.Config, domain string) string {
	for _, p := range cfg.Providers {
		if p.EmailDomains == nil || slices.Contains(p.EmailDomains, domain) {
			return ""
		}
	}
	return "no provider may vouch for an address at " + domain + ", see email_domains of the providers"
}

// keepsGroups says what sessions keep where that is not everything.
func keepsGroups(kept []string) string {
	if len(kept) == 0 {
		return "Of a person's groups, none is kept."
	}
	return "Of a person's groups, only these are kept: " + strings.Join(slices.Compact(slices.Sorted(slices.Values(kept))), ", ") + "."
}
