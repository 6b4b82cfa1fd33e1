package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// SourceConfig is the Source of what Organizations say.
const SourceConfig = "config"

// Organization is an organization of the configuration: several ids that
// providers know it by, and whose verified e-mail addresses belong to it.
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
		claim("id", 0, ids, LowerASCII(entry.ID)) // nobody could tell Acme and acme apart
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

// Fold settles to which organizations id belongs, once, before anything is
// decided or told:
//
//   - What a provider asserted becomes the organization it is folded into, or
//     stays itself. A provider can assert ids of its own only: whatever does not
//     begin with its id and a colon is dropped.
//   - Only of somebody whose provider asserted none, a verified e-mail address
//     counts, whole domain for whole domain. An organization that could not be
//     read (OrgUnknown) was asserted, too.
//   - One organization is the active one. Of several it is the one that the
//     provider says, if it does, and Orgs has all; else the person picks, with
//     WithOrg.
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

// foldGroups binds groups to organizations as Fold named them: one counts with
// one of its organizations active only. Somebody who cannot switch keeps the
// groups that count, and no more.
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
