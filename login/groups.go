package login

import (
	"errors"
	"maps"
	"slices"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// groups reads the groups of a person. bound are those that the person has in one
// organization only. unknown means that the person may have groups that cannot be read:
// the provider keeps them elsewhere (OIDC Core §5.6.2; Entra ID does so with more than
// 200), or the claim has a form that is not known here.
func (r reader) groups() (groups []string, bound []identity.OrgGroup, unknown bool) {
	name := r.p.claims.Groups
	c, ok := r.from(name)
	if !ok {
		if r.elsewhere(name) {
			r.dropped(name, "the provider keeps it elsewhere")
			return nil, nil, true
		}
		return nil, nil, false
	}
	var err error
	if members, wrong := oauth.Object(c[name]); wrong == nil {
		groups, bound, err = r.groupsOfObject(members)
	} else {
		groups, err = readGroups(c, name)
	}
	if err != nil {
		r.dropped(name, err.Error())
		return nil, nil, true
	}
	return groups, bound, c.elsewhere(name)
}

func readGroups(c claims, name string) ([]string, error) {
	var list []string
	if one, ok := c.text(name); ok {
		list = []string{one}
	} else {
		var err error
		if list, err = texts(c[name]); err != nil {
			return nil, err
		}
	}
	list = slices.DeleteFunc(list, func(g string) bool { return g == "" })
	if err := checkGroups(list); err != nil || len(list) == 0 {
		return nil, err
	}
	return list, nil
}

func checkGroups(list []string) error {
	if len(list) > maxGroups {
		return errors.New("more than 1000 groups")
	}
	for _, g := range list {
		if !printable(g, maxText) {
			return errors.New("a group that is longer than 256 bytes or has control characters")
		}
	}
	return nil
}

// groupsOfObject reads an object whose keys are the groups. Each value is an object whose
// keys are the ids of the organizations in which the person has the group, as in
// Zitadel's roles: {"admin": {"2839…": "acme.zitadel.cloud"}}. If it is empty, the group
// is not limited to organizations. Any other value is refused, because it could mean that
// the person does not have the group.
func (r reader) groupsOfObject(members claims) (groups []string, bound []identity.OrgGroup, err error) {
	for _, group := range slices.Sorted(maps.Keys(members)) {
		orgs, wrong := oauth.Object(members[group])
		if wrong != nil {
			return nil, nil, errors.New("an object whose values are not all objects that name organizations")
		}
		if len(orgs) == 0 {
			groups = append(groups, group)
		}
		for _, org := range slices.Sorted(maps.Keys(orgs)) {
			if !printable(org, maxText) {
				return nil, nil, errors.New("a group in an organization whose id is empty, " +
					"longer than 256 bytes or has control characters")
			}
			bound = append(bound, identity.OrgGroup{Org: r.p.id + ":" + org, Group: group})
		}
	}
	if len(groups)+len(bound) > maxGroups {
		return nil, nil, errors.New("more than 1000 groups")
	}
	return groups, bound, checkGroups(slices.Collect(maps.Keys(members)))
}
