package login

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	maxText      = 256 // bytes of a name, a group, an id
	maxGroups    = 1000
	maxOrgs      = 50
	maxEmail     = 254 // RFC 5321 §4.5.3.1
	maxLocalPart = 64
)

func (n ClaimNames) withDefaults() ClaimNames {
	return ClaimNames{
		Orgs: n.Orgs, OrgID: or(n.OrgID, "org_id"), OrgName: or(n.OrgName, "org_name"), OrgDomain: or(n.OrgDomain, "org_domain"),
		Groups: or(n.Groups, "groups"), Username: or(n.Username, "preferred_username"), Name: or(n.Name, "name"), Email: or(n.Email, "email"),
	}
}

// wanted are the claims that somebody will miss: those of a person, and what
// the configuration names.
func (n ClaimNames) wanted() []string {
	d := n.withDefaults()
	names := []string{d.Email, d.Name, d.Username}
	for _, configured := range []string{n.Orgs, n.OrgID, n.OrgName, n.OrgDomain, n.Groups} {
		if configured != "" {
			names = append(names, configured)
		}
	}
	return names
}

// sources are where claims about the person are read, the best first.
func (p *Provider) sources(ctx context.Context, m *metadata, token claims, accessToken string) ([]claims, error) {
	if p.policy.lookup != nil {
		found, err := p.policy.lookup(ctx, p.client, accessToken, token)
		return []claims{token, found}, err
	}
	switch p.identityFrom {
	case FromIDToken:
		return []claims{token}, nil
	case FromUserinfo:
		info, err := p.userinfo(ctx, m, token, accessToken)
		return []claims{info}, err
	}
	missing := slices.ContainsFunc(p.policy.wanted, func(name string) bool { return !token.has(name) && !token.elsewhere(name) })
	if !missing || m.UserinfoURL == "" || accessToken == "" {
		return []claims{token}, nil
	}
	info, err := p.userinfo(ctx, m, token, accessToken)
	return []claims{token, info}, err
}

// userinfo asks for the claims behind the access token. Without an ID token
// (nil) they stand alone.
func (p *Provider) userinfo(ctx context.Context, m *metadata, token claims, accessToken string) (claims, error) {
	if m.UserinfoURL == "" {
		return nil, fail(identity.Misconfigured, "the identity is to come from userinfo, and the provider has none")
	}
	if accessToken == "" {
		return nil, fail(identity.Rejected, "the identity is to come from userinfo, and the provider sent no access token")
	}
	body, head, err := bearerGet(ctx, p.client.HTTPClient("userinfo"), m.UserinfoURL, accessToken)
	if err != nil {
		return nil, failCall(err)
	}
	if kind, _, _ := mime.ParseMediaType(head.Get("Content-Type")); kind == "application/jwt" {
		return nil, fail(identity.Rejected, "userinfo is signed, which is not supported: have the provider send JSON")
	}
	members, err := oauth.Object(body)
	if err != nil {
		return nil, fail(identity.Rejected, "userinfo: %w", err)
	}
	if token == nil {
		return members, p.checkSubject(members, "userinfo")
	}
	// OIDC Core §5.3.2: else it may be about somebody else, and none of it counts.
	want, _ := p.policy.sub(token)
	got, ok := p.policy.sub(members)
	if !ok || subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
		return nil, fail(identity.Rejected, "userinfo: sub is not the ID token's")
	}
	return members, nil
}

// bearerGet reads a document that an access token opens (RFC 6750 §2.1).
func bearerGet(ctx context.Context, client *http.Client, address, accessToken string) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, errors.New("not a URL")
	}
	req.Header.Set("Authorization", "Bearer "+accessToken)
	return getDocument(client, req)
}

// identity builds the person from checked claims, an ID token's or userinfo's,
// and the sources. What is odd is left out and noted; what would be dangerous
// was refused before.
func (p *Provider) identity(ctx context.Context, who claims, sources []claims) identity.Identity {
	r := reader{p, ctx, who, sources}
	id := identity.Identity{
		Provider:    p.id,
		ACR:         r.in(who).text("acr"),
		ProviderSID: r.in(who).text("sid"),
	}
	id.Subject, _ = p.policy.person(who)
	id.Org, id.Orgs = r.orgs()
	if !p.policy.nameless {
		id.Name, id.Username = r.text(p.claims.Name), r.text(p.claims.Username)
		id.Email, id.EmailVerified = r.email()
	}
	id.Groups, id.GroupsUnknown = r.groups()
	id.AuthTime, _ = who.time("auth_time")
	return id
}

// reader reads claims of several sources, and notes what it leaves out.
type reader struct {
	p       *Provider
	ctx     context.Context
	who     claims // those that were checked
	sources []claims
}

func (r reader) in(c claims) reader { return reader{r.p, r.ctx, r.who, []claims{c}} }

// from is the first source that has the claim.
func (r reader) from(name string) (claims, bool) {
	for _, c := range r.sources {
		if c.has(name) {
			return c, true
		}
	}
	return nil, false
}

func (r reader) dropped(name, why string) {
	r.p.log.DebugContext(r.ctx, "claim left out", "claim", name, "why", why)
}

func (r reader) text(name string) string { return r.read(name, claims.text) }

// id is text, or what the policy takes for an id.
func (r reader) id(name string) string { return r.read(name, r.p.policy.id) }

func (r reader) read(name string, as func(claims, string) (string, bool)) string {
	c, ok := r.from(name)
	if !ok {
		return ""
	}
	s, ok := as(c, name)
	if !ok || (s != "" && !printable(s, maxText)) {
		r.dropped(name, "not a string of at most 256 bytes without control characters")
		return ""
	}
	return s
}

func (r reader) orgs() (active identity.Org, all []identity.Org) {
	if r.p.policy.orgs != nil {
		return r.p.policy.orgs(r)
	}
	return r.claimedOrgs()
}

// claimedOrgs reads the active organization, and all of them where the
// configuration names a claim for that. Where none is said to be active, the
// only one is; of several the person chooses.
func (r reader) claimedOrgs() (active identity.Org, all []identity.Org) {
	active, _ = r.org(r.p.claims, r.sources...)
	all = r.listedOrgs()
	if active.ID != "" && all != nil && !slices.ContainsFunc(all, func(o identity.Org) bool { return o.ID == active.ID }) {
		all = append([]identity.Org{active}, all...)
	}
	switch {
	case len(all) > 1:
		return active, all
	case len(all) == 1:
		return all[0], nil
	}
	return active, nil
}

// org reads one organization. Without an id there is none, whatever it is called.
func (r reader) org(names ClaimNames, in ...claims) (identity.Org, bool) {
	r.sources = in
	id := r.id(names.OrgID)
	if id == "" {
		return identity.Org{}, false
	}
	domain := strings.ToLower(r.text(names.OrgDomain))
	if domain != "" && !isDomain(domain) {
		r.dropped(names.OrgDomain, "not a domain")
		domain = ""
	}
	return identity.Org{ID: r.p.id + ":" + id, Name: r.text(names.OrgName), Domain: domain, Source: "claim"}, true
}

// listedOrgs reads a list of ids, or of objects {id, name, domain}, or nothing
// of it: see checkOrgs.
func (r reader) listedOrgs() []identity.Org {
	orgs, err := r.readOrgs()
	if err != nil {
		return nil
	}
	return orgs
}

// checkOrgs refuses a list of organizations that cannot be read whole. Without
// the part that is odd, somebody could pass for a member of another organization
// alone, or of none, and be folded by e-mail.
func (p *Provider) checkOrgs(ctx context.Context, sources []claims) error {
	if p.policy.orgs != nil {
		return nil
	}
	if _, err := (reader{p: p, ctx: ctx, sources: sources}).readOrgs(); err != nil {
		return fail(identity.Rejected, "claim %s: %w", p.claims.Orgs, err)
	}
	return nil
}

func (r reader) readOrgs() ([]identity.Org, error) {
	name := r.p.claims.Orgs
	c, ok := r.from(name)
	if name == "" || !ok {
		return nil, nil
	}
	var list []json.RawMessage
	if json.Unmarshal(c[name], &list) != nil || len(list) > maxOrgs {
		return nil, errors.New("not a list of at most 50 organizations")
	}
	var orgs []identity.Org
	for _, raw := range list {
		one, err := oauth.Object(raw)
		if err != nil {
			one = claims{"id": raw}
		}
		org, ok := r.org(ClaimNames{OrgID: "id", OrgName: "name", OrgDomain: "domain"}, one)
		if !ok {
			return nil, errors.New("an organization without an id that can be read")
		}
		if !slices.ContainsFunc(orgs, func(o identity.Org) bool { return o.ID == org.ID }) {
			orgs = append(orgs, org)
		}
	}
	return orgs, nil
}

// email takes address and verification from the same source: one source must
// not vouch for another's address.
func (r reader) email() (address string, verified bool) {
	name := r.p.claims.Email
	c, ok := r.from(name)
	if !ok {
		return "", false
	}
	raw, ok := c.text(name)
	local, domain, valid := splitEmail(raw)
	if !ok || !valid {
		if raw != "" || !ok {
			r.dropped(name, "not a plain e-mail address")
		}
		return "", false
	}
	allowed := len(r.p.emailDomains) == 0 || slices.Contains(r.p.emailDomains, domain)
	return local + "@" + domain, allowed && r.p.policy.vouches(email{source: c, who: r.who, sources: r.sources, raw: raw, domain: domain})
}

// groups are unknown, not none, when the provider keeps them elsewhere (OIDC
// Core §5.6.2; Entra ID does beyond 200) or sends something else than groups.
func (r reader) groups() (groups []string, unknown bool) {
	name := r.p.claims.Groups
	c, ok := r.from(name)
	if !ok {
		elsewhere := slices.ContainsFunc(r.sources, func(c claims) bool { return c.elsewhere(name) })
		if elsewhere {
			r.dropped(name, "the provider keeps it elsewhere")
		}
		return nil, elsewhere
	}
	groups, err := readGroups(c, name)
	if err != nil {
		r.dropped(name, err.Error())
		return nil, true
	}
	return groups, c.elsewhere(name)
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
	if len(list) > maxGroups {
		return nil, errors.New("more than 1000 groups")
	}
	for _, g := range list {
		if !printable(g, maxText) {
			return nil, errors.New("a group that is longer than 256 bytes or has control characters")
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	return list, nil
}

// elsewhere reports whether the claim is an aggregated or distributed one.
func (c claims) elsewhere(name string) bool {
	var names map[string]json.RawMessage
	if json.Unmarshal(c["_claim_names"], &names) != nil {
		return false
	}
	_, ok := names[name]
	return ok
}

// printable reports whether s is 1 to most bytes of text without control
// characters. U+FFFD stands for what could not be decoded: two different values
// would become one.
func printable(s string, most int) bool {
	return s != "" && len(s) <= most && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError })
}

// splitEmail takes one plain ASCII address apart, the domain in lower case.
// Everything that two readers could read differently is refused: a second @,
// quoting, comments, look-alike letters (security.md 105, CVE-2026-40574).
func splitEmail(s string) (local, domain string, ok bool) {
	if len(s) > maxEmail || strings.Count(s, "@") != 1 {
		return "", "", false
	}
	local, domain, _ = strings.Cut(s, "@")
	domain = identity.LowerASCII(domain)
	if local == "" || len(local) > maxLocalPart || strings.ContainsFunc(local, notLocalPart) || !isDomain(domain) {
		return "", "", false
	}
	return local, domain, true
}

// notLocalPart: RFC 5322 §3.2.3, atext and dots.
func notLocalPart(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),:;<>@[\]`, r)
}

// isDomain reports whether s is a lower-case DNS name of letters, digits and hyphens.
func isDomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, func(r rune) bool { return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-') }) {
			return false
		}
	}
	return true
}
