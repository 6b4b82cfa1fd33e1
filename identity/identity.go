// Package identity is the ground floor: who somebody is, which organization
// they belong to, and the names under which an app is told so.
//
// It owns the types that every other package passes along (Identity, Org,
// Handshake), the list of header names that only Sallyport may write, and the
// closed list of ways in which a sign-in can fail. It never does I/O, holds no
// provider token, and imports nothing but the standard library. Sessions are
// kept next door in session; the question "may they?" is answered in authz.
package identity

import (
	"cmp"
	"slices"
	"time"
)

// Org is an organization somebody belongs to.
type Org struct {
	// ID never changes once given: "<provider id>:<id there>", or an id from
	// the configuration, which has no colon.
	ID string
	// Name is for people; Domain is the primary DNS domain. Either may be empty.
	Name, Domain string
	// Source says where the facts come from: "claim", "directory" or "config".
	Source string
}

// OrgGroup is a group that somebody has in one organization.
type OrgGroup struct{ Org, Group string }

// Identity is a signed-in person. The key is (Provider, Subject): an e-mail
// address is never one, because addresses change hands (OIDC Core §5.7).
type Identity struct {
	Provider string // the configured provider id
	Subject  string // stable at that provider; 1 to 255 bytes

	Email string
	// EmailVerified is true only if the provider said so and may vouch for the
	// address. An unverified address matches no rule and is sent in no header.
	EmailVerified bool

	Name, Username string

	Groups []string
	// GroupsUnknown does not mean "none": rules about groups deny, and say so. Either
	// the provider did not tell the groups, or (GroupsDropped) there were more than
	// fit into the session cookie. GroupsDropped implies GroupsUnknown.
	GroupsUnknown, GroupsDropped bool

	// OrgGroups are groups that the person has in one organization only. If they have
	// several organizations, Groups has the groups of the active one; see WithOrg.
	OrgGroups []OrgGroup

	Org  Org   // the active organization; the zero Org if there is none, or none is picked
	Orgs []Org // all of them, where there are several
	// OrgUnknown does not mean "none": the provider named an organization in a form that
	// could not be read. Org and Orgs are then empty, no e-mail address is folded
	// into an organization, and rules about organizations deny, and say so.
	OrgUnknown bool

	AuthTime    time.Time // when the person proved who they are; may be zero
	ACR         string    // how, in the provider's words
	ProviderSID string    // the provider's name for its session, for logout calls
}

// ID is the person's key across providers: "<provider>:<subject>".
func (i Identity) ID() string { return i.Provider + ":" + i.Subject }

// VerifiedEmail is the address if the provider vouched for it, else "".
func (i Identity) VerifiedEmail() string {
	if !i.EmailVerified {
		return ""
	}
	return i.Email
}

// DisplayName is the best thing to call the person.
func (i Identity) DisplayName() string {
	return cmp.Or(i.Name, i.Username, i.VerifiedEmail(), i.ID())
}

// DisplayName is the best thing to call the organization.
func (o Org) DisplayName() string { return cmp.Or(o.Name, o.ID) }

// MustPick reports whether the person belongs to several organizations and has not
// chosen one yet. Until then no route admits them.
func (i Identity) MustPick() bool { return i.Org.ID == "" && len(i.Orgs) > 0 }

// WithOrg is i with another of their organizations active. It reports false if
// id is none of them.
func (i Identity) WithOrg(id string) (Identity, bool) {
	n := slices.IndexFunc(i.Orgs, func(o Org) bool { return o.ID == id })
	if n < 0 || id == "" {
		return i, false
	}
	i.Org = i.Orgs[n]
	i.Groups = i.groupsIn(id)
	return i, true
}

// groupsIn are the groups that count while the organization org is active.
func (i Identity) groupsIn(org string) []string {
	if len(i.OrgGroups) == 0 {
		return i.Groups
	}
	groups := slices.DeleteFunc(slices.Clone(i.Groups), func(g string) bool { return !i.flat(g) })
	for _, b := range i.OrgGroups {
		if org != "" && b.Org == org && !slices.Contains(groups, b.Group) {
			groups = append(groups, b.Group)
		}
	}
	return groups
}

// flat reports whether it is not known in which organization a group is.
func (i Identity) flat(group string) bool {
	return !slices.ContainsFunc(i.OrgGroups, func(b OrgGroup) bool { return b.Group == group })
}

// HasInOrg reports whether group is known to be one of the active organization.
func (i Identity) HasInOrg(group string) bool {
	return i.Org.ID != "" && slices.Contains(i.OrgGroups, OrgGroup{i.Org.ID, group})
}

// IsGUID reports whether s is a GUID in lower case: a tenant of Microsoft's must have one spelling
// only.
func IsGUID(s string) bool {
	const form = "00000000-0000-0000-0000-000000000000"
	if len(s) != len(form) {
		return false
	}
	for i := range len(s) {
		hyphen, digit := form[i] == '-', '0' <= s[i] && s[i] <= '9' || 'a' <= s[i] && s[i] <= 'f'
		if hyphen != (s[i] == '-') || hyphen == digit {
			return false
		}
	}
	return true
}
