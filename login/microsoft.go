package login

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// docs/providers/microsoft.md has the sources of what this file rests on.
const (
	microsoftIssuer  = "https://login.microsoftonline.com"
	microsoftGraph   = "https://graph.microsoft.com"
	personalAccounts = "9188040d-6c67-4c5b-b112-36a304b66dad" // the tenant of all personal accounts
)

// The values of Options.Tenant besides a tenant's GUID or domain: all accounts, those of
// all organizations, and all personal ones.
const (
	TenantCommon        = "common"
	TenantOrganizations = "organizations"
	TenantConsumers     = "consumers"
)

// microsoft is Entra ID. All tenants share one set of endpoints and keys, so four checks
// are needed to establish which tenant issued a token. The e-mail address in a token is
// what the tenant's administrator has entered, so it is not trusted without other claims.
type microsoft struct {
	Options
	graph string
}

func newMicrosoft(o Options) dialect {
	m := microsoft{Options: o, graph: or(o.Endpoints.GraphURL, microsoftGraph)}
	p := strict(o)
	p.discoverAt = m.issuerOf(o.Tenant)
	p.discovered = m.discovered
	p.issuedBy = func(iss string) bool { tid, ok := m.tenantOf(iss); return ok && iss == m.issuerOf(tid) }
	p.checks = append(p.checks, m.checkVersion, m.checkTenant)
	p.admits = m.admits
	if o.Issuer == microsoftIssuer {
		p.redirectOrigins = []string{"https://login.live.com"} // where personal accounts sign in
	}
	p.subject = microsoftSubject
	p.alsoScopes = []string{m.graphScope()}
	p.wanted, p.needed = nil, nil // Graph is asked instead of userinfo, which has fewer claims
	p.lookup, p.tokenOnlyClaims = m.lookup, tokenOnlyClaims
	p.vouches = microsoftVouches
	p.vouching = nil // reads lists the claims that microsoftVouches uses
	p.orgs = directoryOrg
	p.reads = []Claim{
		{"tid", "ID token", "the person's id, and the tenant that issued it", true},
		{"oid", "ID token", "the person's id", true},
		{"xms_edov, acct, idp", "ID token", "whether the address counts", false},
		{"id, displayName, verifiedDomains", "Graph /organization",
			"the organization's id, name and primary domain, and whether the address counts", true},
		{"id, displayName, mail, userPrincipalName", "Graph /me",
			"name, address and user name that the ID token leaves out", true},
	}
	return p
}

// issuerOf returns the issuer of a tenant. With "{tenantid}" it is the template that the
// discovery document of several tenants has.
func (m microsoft) issuerOf(tenant string) string { return m.Issuer + "/" + tenant + "/v2.0" }

func (m microsoft) tenantOf(iss string) (string, bool) {
	rest, ours := strings.CutPrefix(iss, m.Issuer+"/")
	tid, v2 := strings.CutSuffix(rest, "/v2.0")
	return tid, ours && v2 && identity.IsGUID(tid)
}

// discovered reports whether the discovery document may name this issuer. The document
// for several tenants has a template in place of an issuer. The document of one tenant has
// the tenant's GUID in its issuer, even if the address has the tenant's domain.
func (m microsoft) discovered(issuer string) bool {
	switch m.Tenant {
	case TenantCommon, TenantOrganizations:
		return issuer == m.issuerOf("{tenantid}")
	case TenantConsumers:
		return issuer == m.issuerOf(personalAccounts)
	}
	tid, ok := m.tenantOf(issuer)
	return ok && (tid == m.Tenant || !identity.IsGUID(m.Tenant))
}

// checkVersion refuses tokens of version 1.0, which have another issuer and other claims.
func (m microsoft) checkVersion(t idToken, _ *metadata) error {
	if ver, _ := t.text("ver"); ver != "2.0" {
		return fail(identity.Rejected, "ID token: ver is not 2.0")
	}
	return nil
}

// checkTenant makes the first three of the four checks that Microsoft requires of clients
// that admit several tenants. The fourth is that tid is part of a person's id;
// microsoftSubject sees to that.
func (m microsoft) checkTenant(t idToken, meta *metadata) error {
	iss, _ := t.text("iss")
	tid, _ := t.text("tid")
	if !identity.IsGUID(tid) || iss != m.issuerOf(tid) {
		return fail(identity.Rejected, "ID token: tid is not the tenant that issued it")
	}
	if iss != strings.ReplaceAll(meta.issuer, "{tenantid}", tid) {
		return fail(identity.Rejected, "ID token: issued by another tenant than the configured one")
	}
	// Without this check, a key that is for one tenant or one kind of account could sign
	// tokens of all of them.
	if t.keyIssuer == "" || iss != strings.ReplaceAll(t.keyIssuer, "{tenantid}", tid) {
		return fail(identity.Rejected, "ID token: signed with a key that is not for its issuer")
	}
	return nil
}

// admits is about tokens that checkTenant has passed.
func (m microsoft) admits(c claims) *excluded {
	tid, _ := c.text("tid")
	allowed := len(m.AllowedTenants) == 0 || slices.Contains(m.AllowedTenants, tid)
	switch personal := tid == personalAccounts; {
	case personal && (m.Tenant == TenantOrganizations || !allowed):
		return &excluded{why: identity.PersonalAccount,
			words: "a personal account, and only organizations are admitted"}
	case !allowed:
		return &excluded{why: identity.OtherOrganization, words: "tid is not one of allowed_tenants"}
	}
	return nil
}

// microsoftSubject makes the id of a person from tid and oid, which never change and are
// the same in every app. sub differs from app to app, and other claims can be edited.
func microsoftSubject(c claims) (string, bool) {
	tid, _ := c.text("tid")
	oid, _ := c.text("oid")
	return tid + "/" + oid, identity.IsGUID(tid) && identity.IsGUID(oid)
}

// graphScope returns the scope that is needed to ask Graph. In a national cloud, scopes
// begin with the address of that cloud's own Graph.
func (m microsoft) graphScope() string {
	if m.graph == microsoftGraph {
		return "User.Read"
	}
	return m.graph + "/User.Read"
}

// lookup asks Graph twice: about the organization, and about the person. The access token
// is not used after that. Of an organization, User.Read gives access to id, displayName
// and verifiedDomains only. Personal accounts have no organization, so nothing is asked
// about them.
func (m microsoft) lookup(ctx context.Context, client *oauth.Client, accessToken string, token claims) (claims, error) {
	tid, _ := token.text("tid")
	if tid == personalAccounts {
		return claims{}, nil
	}
	if accessToken == "" {
		return nil, fail(identity.Rejected,
			"the provider sent no access token, so its directory cannot be asked (is User.Read granted?)")
	}
	org, err := m.ask(ctx, client, accessToken, "/v1.0/organization?$select=id,displayName,verifiedDomains")
	if err != nil {
		return nil, err
	}
	person, err := m.ask(ctx, client, accessToken, "/v1.0/me?$select=id,displayName,mail,userPrincipalName")
	if err != nil {
		return nil, err
	}
	return readDirectory(org, person, token)
}

// tokenOnlyClaims returns the claims about the organization that are known from an access
// token alone. Such a token is for another API, so Graph cannot be asked with it, but it
// names the tenant, whose id is the organization's.
func tokenOnlyClaims(token claims) claims {
	if tid, _ := token.text("tid"); tid == personalAccounts {
		return claims{}
	}
	return claims{directoryID: token["tid"]}
}

func (m microsoft) ask(ctx context.Context, client *oauth.Client, accessToken, query string) (claims, error) {
	body, _, err := bearerGet(ctx, client.HTTPClient("graph"), m.graph+query, accessToken)
	if err != nil {
		return nil, failCall(err)
	}
	members, err := oauth.Object(body)
	if err != nil {
		return nil, fail(identity.Rejected, "graph: %w", err)
	}
	return members, nil
}

// Names for what Graph says of an organization. No configuration has such names for claims
// of an ID token, so they are not confused with those.
const (
	directoryID      = "organization: id"
	directoryName    = "organization: name"
	directoryDomain  = "organization: primary domain"
	directoryDomains = "organization: verified domains"
)

// readDirectory turns Graph's answers into claims, which are used where the ID token has
// none. Both answers must be about the person and the tenant of the ID token, as OIDC Core
// §5.3.2 requires of userinfo.
func readDirectory(answer, person, token claims) (claims, error) {
	var list []json.RawMessage
	if json.Unmarshal(answer["value"], &list) != nil || len(list) != 1 {
		return nil, fail(identity.Rejected, "graph: not exactly one organization")
	}
	members, err := oauth.Object(list[0])
	if err != nil {
		return nil, fail(identity.Rejected, "graph: organization: %w", err)
	}
	org := claims(members)
	if !sameText(org, "id", token, "tid") {
		return nil, fail(identity.Rejected, "graph: the organization is not the ID token's")
	}
	if !sameText(person, "id", token, "oid") {
		return nil, fail(identity.Rejected, "graph: the person is not the ID token's")
	}
	primary, all := verifiedDomains(org["verifiedDomains"])
	found := claims{
		directoryID: org["id"], directoryName: org["displayName"],
		"name": person["displayName"], "email": person["mail"], "preferred_username": person["userPrincipalName"],
	}
	found[directoryDomain], _ = json.Marshal(primary)
	found[directoryDomains], _ = json.Marshal(all)
	return found, nil
}

func sameText(a claims, in string, b claims, as string) bool {
	x, ok := a.text(in)
	y, _ := b.text(as)
	return ok && x == y
}

// verifiedDomains returns the domains that Microsoft has verified. The primary one is the
// one that Graph marks as the default.
func verifiedDomains(raw json.RawMessage) (primary string, all []string) {
	var list []struct {
		Name      string `json:"name"`
		IsDefault bool   `json:"isDefault"`
	}
	if json.Unmarshal(raw, &list) != nil {
		return "", nil
	}
	for _, d := range list {
		name := identity.LowerASCII(d.Name)
		if !hostname.IsDomain(name) {
			continue
		}
		all = append(all, name)
		if d.IsDefault {
			primary = name
		}
	}
	return primary, all
}

// microsoftVouches reports whether an address counts as verified. An administrator of a
// tenant can write any address into the directory (nOAuth, docs/providers/microsoft.md).
// So it counts only if Entra says that the owner of its domain has been verified
// (xms_edov), or if the domain is one of the tenant and the person is not a guest there.
func microsoftVouches(e email) bool {
	token, directory := e.who, e.sources[1]
	if vouched, ok := token.text("email"); ok && vouched == e.raw && truthy(token["xms_edov"]) {
		return true
	}
	own, err := texts(directory[directoryDomains])
	return err == nil && slices.Contains(own, e.domain) && !guest(token, directory)
}

// truthy reports whether xms_edov means true. It has been seen as true, "true", 1 and "1".
func truthy(raw json.RawMessage) bool {
	return slices.Contains([]string{`true`, `"true"`, `1`, `"1"`}, string(raw))
}

// guest reports whether the account belongs to another directory: acct is not 0, or idp
// differs from iss, or the user name is one that the directory made for a guest (#EXT#).
func guest(token, directory claims) bool {
	if token.has("acct") && string(token["acct"]) != "0" && string(token["acct"]) != `"0"` {
		return true
	}
	if token.has("idp") && !sameText(token, "idp", token, "iss") {
		return true
	}
	name, ok := directory.text("preferred_username")
	return strings.Contains(strings.ToUpper(name), "#EXT#") || !ok && directory.has("preferred_username")
}

// directoryOrg returns the organization that Graph described.
func directoryOrg(r reader) (active identity.Org, all []identity.Org, unknown bool) {
	d := r.in(r.sources[1])
	if d.text(directoryID) == "" {
		return identity.Org{}, nil, r.unknownOrg(directoryID, r.sources[1].has(directoryID))
	}
	return identity.Org{
		ID: r.p.id + ":" + d.text(directoryID), Name: d.text(directoryName),
		Domain: d.text(directoryDomain), Source: "directory",
	}, nil, false
}
