package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// orgs reads the organizations that the person belongs to. unknown means that the provider
// named one in a form that cannot be read. That must not be taken for "none", because then
// the organization could be found by e-mail address instead.
func (r reader) orgs() (active identity.Org, all []identity.Org, unknown bool) {
	if r.p.dialect.orgs != nil {
		active, all, unknown = r.p.dialect.orgs(r)
	} else {
		active, all, unknown = r.claimedOrgs()
	}
	if unknown {
		return identity.Org{}, nil, true
	}
	return active, all, false
}

// claimedOrgs reads the active organization, and all organizations if the configuration
// names a claim for them. If no organization is said to be active and there is only one,
// that one is active. If there are several, the person chooses.
func (r reader) claimedOrgs() (active identity.Org, all []identity.Org, unknown bool) {
	active, unknown = r.activeOrg()
	all, err := r.readOrgs()
	switch {
	case unknown, err != nil:
		return identity.Org{}, nil, true
	case active.ID != "" && all != nil &&
		!slices.ContainsFunc(all, func(o identity.Org) bool { return o.ID == active.ID }):
		all = append([]identity.Org{active}, all...)
	}
	switch {
	case len(all) > 1:
		return active, all, false
	case len(all) == 1:
		return all[0], nil, false
	}
	return active, nil, false
}

// activeOrg reads the organization for which the person has signed in.
func (r reader) activeOrg() (org identity.Org, unknown bool) {
	name := r.p.claims.OrgID
	c, ok := r.from(name)
	if !ok {
		return identity.Org{}, r.unknownOrg(name, r.elsewhere(name))
	}
	raw := c[name]
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil && len(list) <= 1 {
		if len(list) == 0 {
			return identity.Org{}, false
		}
		raw = list[0]
	} else if text, ok := c.text(name); ok && text == "" {
		return identity.Org{}, false
	}
	id, ok := readOrgID(raw)
	if !ok {
		return identity.Org{}, r.unknownOrg(name, true)
	}
	return r.org(id, r.text(r.p.claims.OrgName), r.text(r.p.claims.OrgDomain)), false
}

// readOrgID reads a text, or a whole number as its digits.
func readOrgID(raw json.RawMessage) (string, bool) {
	id, ok := claims{"id": raw}.textOrNumber("id")
	return id, ok && printable(id, maxText)
}

// unknownOrg logs once why the organization of a person is not known. It returns is.
func (r reader) unknownOrg(name string, is bool) bool {
	if is {
		r.p.notices.once(name, func() {
			r.p.log.WarnContext(r.ctx, "the claim with the organization's id cannot be read, "+
				"so rules about organizations refuse and no address is folded; "+
				"it must be a text of at most 256 bytes, a whole number, or a list of one of them "+
				"(`claims.orgs` takes several)", "claim", name, "received", r.received(name))
		})
	}
	return is
}

func (r reader) org(id, name, domain string) identity.Org {
	domain = identity.LowerASCII(domain)
	if domain != "" && !hostname.IsDomain(domain) {
		r.dropped("the domain of an organization", "not a domain")
		domain = ""
	}
	return identity.Org{ID: r.p.id + ":" + id, Name: name, Domain: domain, Source: "claim"}
}

// checkOrgs refuses a list of organizations if any part of it cannot be read. If that part
// were ignored, the person would seem to belong to fewer organizations: to another one
// only, or to none, and then one could be found by e-mail address.
func (p *Provider) checkOrgs(ctx context.Context, who claims, sources []claims) error {
	if p.dialect.orgs != nil {
		return nil
	}
	r := reader{p: p, ctx: ctx, sources: sources}
	switch _, err := r.readOrgs(); {
	case errors.Is(err, errTooManyOrgs):
		return p.notAdmitted(ctx, who, &excluded{why: identity.TooManyMemberships,
			words: fmt.Sprintf("claim %s: %v", p.claims.Orgs, err)})
	case err != nil && !errors.Is(err, errElsewhere):
		return fail(identity.Rejected, "claim %s: %w; received: %s", p.claims.Orgs, err, r.received(p.claims.Orgs))
	}
	return nil
}

var (
	errElsewhere   = errors.New("the provider keeps it elsewhere")
	errTooManyOrgs = fmt.Errorf("more than %d organizations", maxOrgs)
)

// readOrgs reads all organizations: a list of ids, a list of objects {id, name, domain}, or
// an object whose values are such objects.
func (r reader) readOrgs() ([]identity.Org, error) {
	name := r.p.claims.Orgs
	c, ok := r.from(name)
	switch {
	case name == "":
		return nil, nil
	case !ok && r.unknownOrg(name, r.elsewhere(name)):
		return nil, errElsewhere
	case !ok:
		return nil, nil
	}
	list, err := listOrgs(c[name])
	if err != nil {
		return nil, err
	}
	if len(list) > maxOrgs {
		return nil, errTooManyOrgs
	}
	var orgs []identity.Org
	for _, one := range list {
		id, ok := readOrgID(one["id"])
		if !ok {
			return nil, errors.New("an organization without an id that can be read")
		}
		in := r.in(one)
		org := r.org(id, in.text("name"), in.text("domain"))
		if !slices.ContainsFunc(orgs, func(o identity.Org) bool { return o.ID == org.ID }) {
			orgs = append(orgs, org)
		}
	}
	return orgs, nil
}

// listOrgs turns each form in which providers send organizations into a list of claims.
func listOrgs(raw json.RawMessage) ([]claims, error) {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return mappedOrgs(raw)
	}
	var out []claims
	for _, raw := range list {
		one, err := oauth.Object(raw)
		if err != nil {
			one = claims{"id": raw}
		}
		out = append(out, one)
	}
	return out, nil
}

// mappedOrgs reads an object whose values are organizations, as Keycloak sends it:
// {"acme": {"id": "42c3…"}}. The key is the name of the organization. If no organization
// has an id, the key is the id as well. If only some have one, the object is refused,
// because the key of one organization could be the id of another.
func mappedOrgs(raw json.RawMessage) ([]claims, error) {
	members, err := oauth.Object(raw)
	if err != nil {
		return nil, errors.New("not a list of at most 50 organizations, and no object of them")
	}
	var out []claims
	withID := 0
	for _, key := range slices.Sorted(maps.Keys(members)) {
		one, err := oauth.Object(members[key])
		if err != nil {
			return nil, errors.New("an object whose values are not all objects")
		}
		name, _ := json.Marshal(key)
		org := claims{"id": name, "name": name, "domain": one["domain"]}
		if claims(one).has("name") {
			org["name"] = one["name"]
		}
		if claims(one).has("id") {
			org["id"] = one["id"]
			withID++
		}
		out = append(out, org)
	}
	if withID != 0 && withID != len(out) {
		return nil, errors.New("an object in which only some organizations have an id")
	}
	return out, nil
}

func (r reader) elsewhere(name string) bool {
	return slices.ContainsFunc(r.sources, func(c claims) bool { return c.elsewhere(name) })
}

// received says for the log in which form a claim was received, from each source. It never
// says what is in the claim.
func (r reader) received(name string) string {
	var forms []string
	for _, c := range r.sources {
		if c.mentions(name) {
			forms = append(forms, c.form(name))
		}
	}
	if forms == nil {
		return "nothing"
	}
	return strings.Join(forms, ", ")
}
