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
	personalAccounts = "9188040d-6c67-4c5b-b112-36a304b66dad" // the tenant of all accounts that no organization gave out
)

// What Options.Tenant may say beside a tenant's GUID or domain: any account,
// any of an organization, any personal one.
const (
	TenantCommon        = "common"
	TenantOrganizations = "organizations"
	TenantConsumers     = "consumers"
)

// microsoft is Entra ID. One set of endpoints and keys speaks for every tenant
// there is, so four checks instead of one establish who issued a token, and an
// address is what the tenant's administrator wrote there.
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
	if o.Issuer == microsoftIssuer {
		p.redirectOrigins = []string{"https://login.live.com"} // where personal accounts sign in
	}
	p.subject = microsoftSubject
	p.alsoScopes = []string{m.graphScope()}
	p.wanted, p.needed = nil, nil // Graph is asked instead of userinfo, which tells less
	p.lookup, p.tokenOnlyClaims = m.lookup, tokenOnlyClaims
	p.vouches = microsoftVouches
	p.vouching = nil // by the claims below
	p.orgs = directoryOrg
	p.reads = []Claim{
		{"tid", "ID token", "the person's id, and the tenant that issued it", true},
		{"oid", "ID token", "the person's id", true},
		{"xms_edov, acct, idp", "ID token", "whether the address counts", false},
		{"id, displayName, verifiedDomains", "Graph /organization", "the organization's id, name and primary domain, and whether the address counts", true},
		{"id, displayName, mail, userPrincipalName", "Graph /me", "name, address and user name that the ID token leaves out", true},
	}
	return p
}

// issuerOf is how a tenant calls itself; "{tenantid}" makes it the template.
func (m microsoft) issuerOf(tenant string) string { return m.Issuer + "/" + tenant + "/v2.0" }

func (m microsoft) tenantOf(iss string) (string, bool) {
	rest, ours := strings.CutPrefix(iss, m.Issuer+"/")
	tid, v2 := strings.CutSuffix(rest, "/v2.0")
	return tid, ours && v2 && isGUID(tid)
}

// discovered reports whether the discovery document may name this issuer. The
// document for several tenants has a template in place of an issuer; that of one
// tenant has the tenant's GUID, even if it was asked for by domain.
func (m microsoft) discovered(issuer string) bool {
	switch m.Tenant {
	case TenantCommon, TenantOrganizations:
		return issuer == m.issuerOf("{tenantid}")
	case TenantConsumers:
		return issuer == m.issuerOf(personalAccounts)
	}
	tid, ok := m.tenantOf(issuer)
	return ok && (tid == m.Tenant || !isGUID(m.Tenant))
}

// checkVersion refuses tokens of v1, which have another issuer and other claims.
func (m microsoft) checkVersion(t idToken, _ *metadata) error {
	if ver, _ := t.text("ver"); ver != "2.0" {
		return fail(identity.Rejected, "ID token: ver is not 2.0")
	}
	return nil
}

// checkTenant makes the first three of the four checks that Microsoft demands of
// clients of several tenants. The fourth, that tid is part of the key under which
// a person is known, is microsoftSubject.
func (m microsoft) checkTenant(t idToken, meta *metadata) error {
	iss, _ := t.text("iss")
	tid, _ := t.text("tid")
	if !isGUID(tid) || iss != m.issuerOf(tid) {
		return fail(identity.Rejected, "ID token: tid is not the tenant that issued it")
	}
	if iss != strings.ReplaceAll(meta.issuer, "{tenantid}", tid) {
		return fail(identity.Rejected, "ID token: issued by another tenant than the configured one")
	}
	// Without this, a key that is for one tenant or one kind of account signs
	// for all of them.
	if t.keyIssuer == "" || iss != strings.ReplaceAll(t.keyIssuer, "{tenantid}", tid) {
		return fail(identity.Rejected, "ID token: signed with a key that is not for its issuer")
	}
	if m.Tenant == TenantOrganizations && tid == personalAccounts {
		return fail(identity.Rejected, "ID token: a personal account, and only organizations are admitted")
	}
	if len(m.AllowedTenants) > 0 && !slices.Contains(m.AllowedTenants, tid) {
		return fail(identity.Rejected, "ID token: tid is not one of allowed_tenants")
	}
	return nil
}

// microsoftSubject: tid and oid never change and name the same person in every
// app. sub differs from app to app, and everything else can be edited.
func microsoftSubject(c claims) (string, bool) {
	tid, _ := c.text("tid")
	oid, _ := c.text("oid")
	return tid + "/" + oid, isGUID(tid) && isGUID(oid)
}

// graphScope is the scope that opens Graph. The scopes of a national cloud name
// its own Graph.
func (m microsoft) graphScope() string {
	if m.graph == microsoftGraph {
		return "User.Read"
	}
	return m.graph + "/User.Read"
}

// lookup asks Graph twice, with the access token that ends here: what the
// organization is called, and what the directory says of the person. Of an
// organization, User.Read opens id, displayName and verifiedDomains only. Personal
// accounts have no organization, so nothing is asked about them.
func (m microsoft) lookup(ctx context.Context, client *oauth.Client, accessToken string, token claims) (claims, error) {
	tid, _ := token.text("tid")
	if tid == personalAccounts {
		return claims{}, nil
	}
	if accessToken == "" {
		return nil, fail(identity.Rejected, "the provider sent no access token, so its directory cannot be asked (is User.Read granted?)")
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

// tokenOnlyClaims are those of the directory that an access token alone has. A
// token for another API does not open Graph, but it names the tenant, whose id is
// the organization's.
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

// The claims of an organization as Graph describes it. No configuration names
// them, so nothing takes them for those of an ID token.
const (
	directoryID      = "organization: id"
	directoryName    = "organization: name"
	directoryDomain  = "organization: primary domain"
	directoryDomains = "organization: verified domains"
)

// readDirectory turns Graph's answers into claims that stand second to those of
// the ID token. Both must be about the person and the tenant of the ID token, as
// OIDC Core §5.3.2 has it for userinfo.
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

// verifiedDomains returns the domains that Microsoft verified. The default one is
// the primary.
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

// microsoftVouches: a tenant's administrator can write any address into the
// directory (nOAuth, docs/providers/microsoft.md). It counts if Entra says that the owner of its domain was asked
// (xms_edov), or if the domain is the tenant's own and the person no guest.
func microsoftVouches(e email) bool {
	token, directory := e.who, e.sources[1]
	if vouched, ok := token.text("email"); ok && vouched == e.raw && truthy(token["xms_edov"]) {
		return true
	}
	own, err := texts(directory[directoryDomains])
	return err == nil && slices.Contains(own, e.domain) && !guest(token, directory)
}

// truthy: xms_edov has been seen as true, "true", 1 and "1".
func truthy(raw json.RawMessage) bool {
	return slices.Contains([]string{`true`, `"true"`, `1`, `"1"`}, string(raw))
}

// guest reports whether the person comes from another directory: acct is not 0,
// idp is there and differs from iss, or the user name is one that the directory
// made for a guest (#EXT#). One of these is enough.
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

// directoryOrg is the organization as Graph described it.
func directoryOrg(r reader) (active identity.Org, all []identity.Org, unknown bool) {
	d := r.in(r.sources[1])
	if d.text(directoryID) == "" {
		return identity.Org{}, nil, r.unknownOrg(directoryID, r.sources[1].has(directoryID))
	}
	return identity.Org{ID: r.p.id + ":" + d.text(directoryID), Name: d.text(directoryName), Domain: d.text(directoryDomain), Source: "directory"}, nil, false
}

// isGUID takes lower case only, so that one tenant has one spelling.
func isGUID(s string) bool {
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
