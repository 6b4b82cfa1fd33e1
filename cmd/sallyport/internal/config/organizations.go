package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
)

// Organization folds what providers call an organization, and verified e-mail
// domains, into one. Whether two of them claim the same, identity knows.
type Organization struct {
	ID, Name, Domain string
	Match            OrganizationMatch
}

// OrganizationMatch says who belongs to an Organization.
type OrganizationMatch struct{ OrgIDs, EmailDomains []string }

const (
	// orgIDPattern has no colon: ids with one are a provider's.
	orgIDPattern = `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`
	// providerOrgPattern is the id of an organization at a provider.
	providerOrgPattern = `^[a-z0-9][a-z0-9-]{0,31}:.+$`
	// labelPattern is what can stand for {org} in a host (RFC 1123 §2.1).
	labelPattern = `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`
	orgHost      = "{org}."
)

func organizationsShape() yamltable.Shape[[]Organization] {
	match := yamltable.Object[OrganizationMatch]{Some: true, Keys: []yamltable.Entry[OrganizationMatch]{
		yamltable.Field("org_ids", "What providers call it: the provider's id, a colon, and the id there. This goes "+
			"before email_domains.",
			yamltable.List(providerOrg(), 1),
			func(m *OrganizationMatch) *[]string { return &m.OrgIDs }),
		yamltable.Field("email_domains", "Whoever has a verified address in one of these domains belongs to it, "+
			"unless their provider names an organization.",
			yamltable.List(domain(), 1), func(m *OrganizationMatch) *[]string { return &m.EmailDomains }),
	}}.Shape()
	return yamltable.List(yamltable.Object[Organization]{Keys: []yamltable.Entry[Organization]{
		yamltable.Field("id", "Its id in rules, headers and the assertion. It never changes, and has no colon.",
			yamltable.Pattern("an id of letters, digits, \".\", \"_\" and \"-\", without a colon",
				orgIDPattern), func(o *Organization) *string { return &o.ID }).Required(),
		yamltable.Field("name", "What people and apps are told.", yamltable.Text("a name for people"),
			func(o *Organization) *string { return &o.Name }).Required(),
		yamltable.Field("domain", "Its primary domain, for apps. It lets nobody in.", domain(),
			func(o *Organization) *string { return &o.Domain }),
		yamltable.Field("match", "Who belongs to it.", match,
			func(o *Organization) *OrganizationMatch { return &o.Match }).Required(),
	}}.Shape(), 1)
}

// providerOrg is the id of an organization at a provider.
func providerOrg() yamltable.Shape[string] {
	want := "an id such as \"google:example.com\": a provider's id, a colon, and the id there"
	form, whole := regexp.MustCompile(providerOrgPattern), exact(want)
	return yamltable.Shape[string]{Want: want, Schema: yamltable.Schema{"type": "string",
		"pattern": providerOrgPattern},
		Read: func(w *yamltable.Walker, at yamltable.Place, into *string) {
			if yamltable.IsText(at.Node) && at.Node.Value != "" && !form.MatchString(at.Node.Value) {
				w.Fault(at, "must be %s, not %s", want, yamltable.Quote(at.Node.Value))
				return
			}
			whole.Read(w, at, into)
		}}
}

func flatGroupsKey() yamltable.Entry[Rule] {
	return yamltable.Field("insecure_flat_groups", "Groups count beside orgs although a provider tells of several "+
		"organizations and not in which one somebody is in the group: "+
		"an admin of one is an admin of each of theirs.", yamltable.OnlyTrue(),
		func(r *Rule) *bool { return &r.InsecureFlatGroups })
}

// checkOrganizations finds what organizations, providers, rules and hosts make
// of each other.
func (c *Config) checkOrganizations() Faults {
	return slices.Concat(c.checkOrgProviders(), c.checkOrgHosts(), c.checkFoldedRules(), c.checkFlatGroups())
}

func (c *Config) checkOrgProviders() Faults {
	var faults Faults
	ids := c.ProviderIDs()
	for i, o := range c.Organizations {
		for n, id := range o.Match.OrgIDs {
			if provider, _, ok := strings.Cut(id, ":"); ok && !slices.Contains(ids, provider) {
				nearest, others := yamltable.Meant(provider, ids)
				f := c.doc.FaultAt(yamltable.Index(yamltable.Index("organizations", i)+".match.org_ids", n),
					"there is no provider %q, so nobody can belong to this%s", provider, others)
				f.Suggestion = nearest
				faults = append(faults, f)
			}
		}
	}
	return faults
}

// checkOrgHosts holds ids that stand for {org} to what a host's label can be.
func (c *Config) checkOrgHosts() Faults {
	var faults Faults
	src := c.doc
	user := -1
	for i, r := range c.Routes {
		if !strings.HasPrefix(r.Host, orgHost) {
			continue
		}
		user = i
		if !src.Has("organizations") {
			faults = append(faults, src.FaultAt(yamltable.Index("routes", i)+".host",
				"has a host for each of the organizations, and there are none: add `organizations:`"))
		}
	}
	label := regexp.MustCompile(labelPattern)
	for i, o := range c.Organizations {
		if user >= 0 && o.ID != "" && !label.MatchString(o.ID) {
			faults = append(faults, src.FaultAt(yamltable.Index("organizations", i)+".id",
				"stands for {org} in %s.host, so it must be a label of a host: lower-case letters, digits and -, not "+
					"%s", yamltable.Index("routes", user), yamltable.Quote(o.ID)))
		}
	}
	return faults
}

// checkFoldedRules: after folding nobody has the provider's id any more.
func (c *Config) checkFoldedRules() Faults {
	var faults Faults
	folded := map[string]string{}
	for _, o := range c.Organizations {
		for _, id := range o.Match.OrgIDs {
			folded[id] = o.ID
		}
	}
	for _, r := range c.Rules() {
		for k, id := range r.Orgs {
			if into := folded[id]; into != "" {
				faults = append(faults, c.doc.FaultAt(yamltable.Index(r.Path+".orgs", k),
					"is folded into %s, so this never matches; write %s", into, into))
			}
		}
	}
	return faults
}

// checkFlatGroups refuses rules that would let the admin of one organization be
// the admin of another: a provider that tells of several organizations does not
// tell in which of them somebody has a group.
func (c *Config) checkFlatGroups() Faults {
	var faults Faults
	for _, r := range c.Rules() {
		provider := c.flatGroups(r)
		switch {
		case provider != "" && !r.InsecureFlatGroups:
			faults = append(faults, c.doc.FaultAt(r.Path+".groups",
				"provider %s tells of several organizations (claims.orgs), and not in which of them somebody is in a "+
					"group; leave out groups or orgs, or accept it with `insecure_flat_groups: true`", provider))
		case provider == "" && r.InsecureFlatGroups:
			faults = append(faults, c.doc.FaultAt(r.Path+".insecure_flat_groups",
				"has no meaning here: no provider gives several of these organizations, and groups, to one person"))
		}
	}
	return faults
}

// flatGroups is the id of a provider whose people can have several organizations
// and match a rule that asks for an organization and a group; else "".
func (c *Config) flatGroups(r PlacedRule) string {
	if len(r.Groups) == 0 {
		return ""
	}
	orgs := r.Orgs
	if r.bound { // the host asks for one, whichever it is
		for _, o := range c.Organizations {
			orgs = append(slices.Clip(orgs), o.ID)
		}
	}
	for _, p := range c.Providers {
		if p.Claims.Orgs != "" && r.any && len(r.Orgs) == 0 {
			return p.ID
		}
		if p.Claims.Orgs != "" && slices.ContainsFunc(orgs, func(id string) bool { return c.canGive(p.ID, id) }) {
			return p.ID
		}
	}
	return ""
}

// ForEachOrg reports whether the route's host names an organization.
func (r Route) ForEachOrg() bool { return strings.HasPrefix(r.Host, orgHost) }

// canGive reports whether provider can assert the organization id.
func (c *Config) canGive(provider, id string) bool {
	if strings.Contains(id, ":") {
		return strings.HasPrefix(id, provider+":")
	}
	return slices.ContainsFunc(c.Organizations, func(o Organization) bool {
		return o.ID == id && slices.ContainsFunc(o.Match.OrgIDs, func(theirs string) bool {
			return strings.HasPrefix(theirs,
				provider+":")
		})
	})
}

// flatGroupWarnings say what insecure_flat_groups lets happen.
func (c *Config) flatGroupWarnings() Faults {
	var warnings Faults
	for _, r := range c.Rules() {
		if r.InsecureFlatGroups {
			warnings = append(warnings, c.doc.FaultAt(r.Path+".insecure_flat_groups",
				"whoever is in one of these groups in any of their organizations is in it for this rule"))
		}
	}
	return warnings
}
