package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// SourceConfig is the Source of what Organizations say.
const SourceConfig = "config"

// Organization is an organization of the configuration: the ids that providers have
// for it, and the domains of e-mail addresses that belong to it.
type Organization struct {
	ID           string // without a colon, so that it is never a provider's
	Name, Domain string // what apps and people are told; Domain may be empty
	OrgIDs       []string
	EmailDomains []string
}

// OrganizationError is a fault in one Organization.
type OrganizationError struct {
	Organization int    // its place in the list
	Field        string // "id", "org_ids" or "email_domains"
	Index        int    // in a Field that is a list
	Why          string
}

func (e *OrganizationError) Error() string { return e.Why }

// Organizations says to which organization somebody belongs. A nil one folds
// nothing. It is immutable and safe for concurrent use.
type Organizations struct{ byID, byDomain map[string]Org }

// NewOrganizations checks list. All faults are returned at once, joined; each is
// an *OrganizationError.
func NewOrganizations(list []Organization) (*Organizations, error) {
	o := &Organizations{byID: map[string]Org{}, byDomain: map[string]Org{}}
	ids := map[string]Org{}
	var faults []error
	for i, entry := range list {
		org := Org{ID: entry.ID, Name: entry.Name, Domain: entry.Domain, Source: SourceConfig}
		claim := func(field string, index int, owners map[string]Org, key string) {
			if why := taken(owners, key, field); why != "" {
				faults = append(faults, &OrganizationError{i, field, index, why})
			}
			owners[key] = org
		}
		if entry.ID == "" || strings.Contains(entry.ID, ":") {
			faults = append(faults, &OrganizationError{i, "id", 0,
				"must not be empty or have a colon, which only the ids of providers have"})
		}
		claim("id", 0, ids, LowerASCII(entry.ID)) // people could not tell Acme from acme
		for n, id := range entry.OrgIDs {
			claim("org_ids", n, o.byID, id)
		}
		for n, domain := range entry.EmailDomains {
			claim("email_domains", n, o.byDomain, LowerASCII(domain))
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return o, nil
}

// taken says why key cannot be given once more; "" if it can.
func taken(owners map[string]Org, key, field string) string {
	first, ok := owners[key]
	switch {
	case !ok:
		return ""
	case field == "id":
		return fmt.Sprintf("is already that of the organization %s; capitals make no difference", first.Name)
	}
	return fmt.Sprintf("is already given to the organization %s; nobody could tell which one is meant", first.ID)
}

// Find is the organization with an id of the configuration.
func (o *Organizations) Find(id string) (Org, bool) {
	if o == nil {
		return Org{}, false
	}
	for _, known := range [...]map[string]Org{o.byID, o.byDomain} {
		for _, org := range known {
			if org.ID == id {
				return org, true
			}
		}
	}
	return Org{}, false
}

// Fold settles to which organizations id belongs. It is called once, before anything
// is decided and before an app is told:
//
//   - An organization that a provider asserted becomes the configured one that has
//     its id, or stays as it is. A provider can assert ids of its own only: one that
//     does not begin with the provider's id and a colon is dropped.
//   - If the provider asserted none, the domain of a verified e-mail address counts;
//     it must be equal, not a subdomain. An organization that could not be read
//     (OrgUnknown) counts as asserted.
//   - If the provider named the active organization, Org is that one and Orgs lists
//     all. Otherwise, if there are several, Org is zero and the person must choose
//     (WithOrg).
func (o *Organizations) Fold(id Identity) Identity {
	if id.OrgUnknown {
		id.Org, id.Orgs, id.OrgGroups = Org{}, nil, nil
		return id
	}
	var orgs []Org
	var active Org
	asserted := false
	for i, org := range append([]Org{id.Org}, id.Orgs...) {
		asserted = asserted || org.ID != ""
		if rest, own := strings.CutPrefix(org.ID, id.Provider+":"); !own || rest == "" {
			continue
		}
		if org = o.ofID(org); i == 0 {
			active = org
		}
		if !slices.ContainsFunc(orgs, func(have Org) bool { return have.ID == org.ID }) {
			orgs = append(orgs, org)
		}
	}
	if org, ok := o.ofEmail(id.VerifiedEmail()); ok && !asserted {
		orgs = []Org{org}
	}
	id.Org, id.Orgs = Org{}, nil
	switch {
	case len(orgs) == 1:
		id.Org = orgs[0]
	case len(orgs) > 1:
		id.Org, id.Orgs = active, orgs
	}
	return o.foldGroups(id)
}

// foldGroups binds groups to the organizations that Fold made: a group counts only
// while one of its organizations is active. A person who cannot switch keeps only
// the groups that count.
func (o *Organizations) foldGroups(id Identity) Identity {
	if len(id.OrgGroups) == 0 {
		return id
	}
	var bound []OrgGroup
	for _, b := range id.OrgGroups {
		if rest, own := strings.CutPrefix(b.Org, id.Provider+":"); own && rest != "" {
			b.Org = o.ofID(Org{ID: b.Org}).ID
			bound = append(bound, b)
		}
	}
	id.OrgGroups = bound
	id.Groups = id.groupsIn(id.Org.ID)
	id.OrgGroups = slices.DeleteFunc(bound, func(b OrgGroup) bool {
		return !slices.ContainsFunc(id.Orgs, func(org Org) bool { return org.ID == b.Org })
	})
	if len(id.OrgGroups) == 0 {
		id.OrgGroups = nil
	}
	return id
}

func (o *Organizations) ofID(org Org) Org {
	if o == nil {
		return org
	}
	if folded, ok := o.byID[org.ID]; ok {
		return folded
	}
	return org
}

func (o *Organizations) ofEmail(address string) (Org, bool) {
	local, domain, _ := strings.Cut(address, "@")
	if o == nil || local == "" {
		return Org{}, false
	}
	org, ok := o.byDomain[LowerASCII(domain)]
	return org, ok
}

// LowerASCII is s with its ASCII letters in lower case. Other letters are left as
// they are: strings.ToLower makes a k of the Kelvin sign U+212A.
func LowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
