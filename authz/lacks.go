package authz

import (
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/identity"
)

// lacks is one sentence for a person whom no rule admits: what they lack for the
// rule that comes closest. It says only what the person knows already or could act
// on. It never names other organizations, domains or
// addresses, and it names a group only to people who fulfil the rest of a rule
// that asks for more than a group, or of a host that is their organization's
// (bound): they belong there.
func (a Access) lacks(f Facts, id *identity.Identity, bound bool) string {
	if len(a.Rules) == 0 {
		return "It is open to nobody."
	}
	rules := slices.DeleteFunc(slices.Clone(a.Rules), func(r Rule) bool { return r.conditions().unmet(f) != "" })
	if len(rules) == 0 {
		rules = a.Rules
	}
	nearest := slices.MinFunc(rules, func(x, y Rule) int { return x.distance(id) - y.distance(id) })
	return nearest.lacks(id, bound)
}

// distance is larger the less a person can do about what they lack: they can be
// added to a group, but cannot get somebody else's e-mail address.
func (r Rule) distance(id *identity.Identity) int {
	n := 0
	for _, missing := range []struct {
		is   bool
		cost int
	}{
		{!r.hasOrg(id), 2}, {!r.hasDomain(id), 2}, {!r.hasEmail(id), 4}, {!r.hasSubject(id), 4}, {!r.hasGroup(id), 1},
		{r.empty(), 100},
	} {
		if missing.is {
			n += missing.cost
		}
	}
	return n
}

func (r Rule) lacks(id *identity.Identity, bound bool) string {
	switch {
	case r.empty():
		return "It is open to nobody."
	case !r.hasOrg(id) && id.Org.ID == "":
		return "It is for members of an organization, and you are here for none."
	case !r.hasOrg(id):
		return "It is for another organization than " + orgWord(id.Org) + "."
	case (!r.hasDomain(id) || !r.hasEmail(id)) && id.VerifiedEmail() == "":
		return "It needs a verified e-mail address, and your account here has none."
	case !r.hasDomain(id):
		_, domain, _ := strings.Cut(id.VerifiedEmail(), "@")
		return "It is for e-mail addresses of another domain than yours, " + domain + "."
	case !r.hasEmail(id):
		return "It is for people on a list of e-mail addresses, and yours is not on it."
	case !r.hasSubject(id):
		return "It is for people on a list, and you are not on it."
	case !bound && !r.asksForMoreThanGroups():
		return "It is for members of a group that you are not in."
	case len(r.Groups) == 1:
		return "It is for members of the group " + r.Groups[0] + ", and you are not in it."
	}
	return "It is for members of the groups " + orList(r.Groups) + ", and you are in none of them."
}

// orgWord is what people call an organization.
func orgWord(o identity.Org) string {
	for _, name := range []string{o.Name, o.Domain} {
		if name != "" {
			return name
		}
	}
	return "the one that you are here for"
}
