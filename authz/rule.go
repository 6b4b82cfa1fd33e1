package authz

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/identity"
)

// Access says who may have a route. The zero Access admits nobody: nothing is
// reachable by omission.
type Access struct {
	Public        bool       // everybody, and the app is told nothing about them
	PublicIf      Conditions // when it is Public; the rest decides where they do not hold
	Authenticated bool       // everybody who is signed in; the explicit wide choice
	Rules         []Rule     // alternatives
}

// Rule admits people who match every list that is not empty: one of their facts is on
// it. A rule without any list admits nobody.
type Rule struct {
	// Authenticated demands nothing but a sign-in, as Access.Authenticated does for all
	// requests; the Conditions narrow it.
	Authenticated                      bool
	Orgs, Groups, Emails, EmailDomains []string
	// Subjects are people, or programs with tokens, as identity.Identity.ID names them.
	Subjects []string
	// Methods and From are Conditions. A rule that has nothing else admits nobody.
	Methods []string
	From    []netip.Prefix
	// InsecureFlatGroups lets groups count beside an organization although their
	// owner belongs to several: an admin of one is then an admin of each.
	InsecureFlatGroups bool
}

// refusal says why a rule did not admit somebody.
type refusal int

const (
	admitted refusal = iota
	refused
	refusedUnknownGroups // it would need groups, and they are not known
	refusedFlatGroups    // it would need to know in which organization they have the groups
	refusedUnknownOrg    // it would need their organization, which could not be read
	refusedMethod        // it is for them, but not with this method
	refusedAddress       // it is for them, but not from this address
)

func (r Rule) conditions() Conditions { return Conditions{r.Methods, r.From} }

// admitsRequest asks the rule about somebody who makes the request f. Where a condition
// does not hold, nothing else that is missing would help.
func (r Rule) admitsRequest(f Facts, id *identity.Identity, bound bool) refusal {
	unmet, why := r.conditions().unmet(f), r.admits(id, bound)
	switch {
	case unmet == "":
		return why
	case why != admitted:
		return refused
	case unmet == ReasonMethod:
		return refusedMethod
	}
	return refusedAddress
}

// admits asks the rule about somebody. bound: the route is one organization's,
// as if the rule named it.
func (r Rule) admits(id *identity.Identity, bound bool) refusal {
	if r.empty() || !r.hasSubject(id) || !r.hasEmail(id) || !r.hasDomain(id) {
		return refused
	}
	switch {
	case len(r.Orgs) > 0 && id.OrgUnknown:
		return refusedUnknownOrg
	case !r.hasOrg(id):
		return refused
	case len(r.Groups) == 0:
		return admitted
	case id.GroupsUnknown: // id.Groups may be a part of the groups only
		return refusedUnknownGroups
	case !r.hasGroup(id):
		return refused
	case slices.ContainsFunc(r.Groups, func(g string) bool {
		return g != "" && slices.Contains(id.Groups, g) && id.HasInOrg(g)
	}):
		return admitted
	case len(id.Orgs) > 1 && (bound || len(r.Orgs) > 0) && !r.InsecureFlatGroups:
		return refusedFlatGroups
	}
	return admitted
}

func (r Rule) empty() bool {
	return !r.Authenticated && len(r.Groups) == 0 && !r.asksForMoreThanGroups()
}

func (r Rule) asksForMoreThanGroups() bool {
	return len(r.Orgs)+len(r.Emails)+len(r.EmailDomains)+len(r.Subjects) > 0
}

func (r Rule) hasSubject(id *identity.Identity) bool { return oneOf(r.Subjects, id.ID()) }

func (r Rule) hasOrg(id *identity.Identity) bool { return oneOf(r.Orgs, id.Org.ID) }

// hasEmail takes verified addresses only: VerifiedEmail is empty for others.
func (r Rule) hasEmail(id *identity.Identity) bool { return oneOfFold(r.Emails, id.VerifiedEmail()) }

func (r Rule) hasDomain(id *identity.Identity) bool {
	_, domain, _ := strings.Cut(id.VerifiedEmail(), "@")
	return oneOfFold(r.EmailDomains, domain)
}

func (r Rule) hasGroup(id *identity.Identity) bool {
	return len(r.Groups) == 0 || slices.ContainsFunc(r.Groups, func(g string) bool {
		return g != "" && slices.Contains(id.Groups, g)
	})
}

// oneOf reports whether a list is empty or has have on it. An empty fact
// matches nothing, whatever a list says (oauth2-proxy #3365).
func oneOf(list []string, have string) bool {
	return len(list) == 0 || (have != "" && slices.Contains(list, have))
}

// oneOfFold ignores ASCII case, and other than ASCII matches nothing: Unicode's
// case folding makes a k of the Kelvin sign U+212A, so two addresses would be one.
func oneOfFold(list []string, have string) bool {
	return len(list) == 0 || (have != "" && isASCII(have) && slices.ContainsFunc(list, func(s string) bool {
		return isASCII(s) && strings.EqualFold(s, have)
	}))
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}

// String is the access as a sentence's end: "everybody who is signed in".
func (a Access) String() string {
	switch {
	case a.Public && a.PublicIf.none():
		return "everybody, without signing in"
	case a.Public && !a.AsksWho():
		return "everybody, without signing in" + a.PublicIf.String()
	case a.Public:
		rest := a
		rest.Public = false
		return "everybody, without signing in" + a.PublicIf.String() + "; or " + rest.String()
	case a.Authenticated:
		return "everybody who is signed in"
	case len(a.Rules) == 0:
		return "nobody"
	}
	var rules []string
	for _, r := range a.Rules {
		if s := r.describe(); !slices.Contains(rules, s) {
			rules = append(rules, s)
		}
	}
	return strings.Join(rules, "; or ")
}

func (r Rule) describe() string {
	var parts []string
	if len(r.Orgs) > 0 {
		parts = append(parts, "belong to the organization "+orList(r.Orgs))
	}
	if len(r.Groups) > 0 {
		groups := "are in the group " + orList(r.Groups)
		if r.InsecureFlatGroups {
			groups += " (of whichever of their organizations)"
		}
		parts = append(parts, groups)
	}
	if len(r.EmailDomains) > 0 {
		parts = append(parts, "have a verified e-mail address at "+orList(r.EmailDomains))
	}
	if len(r.Emails) > 0 {
		parts = append(parts, "have the verified e-mail address "+orList(r.Emails))
	}
	if len(r.Subjects) > 0 {
		parts = append(parts, "have the id "+orList(r.Subjects))
	}
	switch {
	case len(parts) == 0 && r.Authenticated:
		return "everybody who is signed in" + r.conditions().String()
	case len(parts) == 0:
		return "nobody"
	}
	return "people who " + andList(parts) + r.conditions().String()
}

func orList(items []string) string  { return joinList(items, " or ") }
func andList(items []string) string { return joinList(items, " and ") }

func joinList(items []string, last string) string {
	if len(items) == 1 {
		return items[0]
	}
	return strings.Join(items[:len(items)-1], ", ") + last + items[len(items)-1]
}

// Admits reports whether there are requests with which somebody is let in: what a request
// has to be beside that is not asked. bound is as for a route of one organization, theirs.
func (a Access) Admits(id *identity.Identity, bound bool) bool {
	return a.Authenticated ||
		slices.ContainsFunc(a.Rules, func(r Rule) bool { return r.admits(id, bound) == admitted })
}
