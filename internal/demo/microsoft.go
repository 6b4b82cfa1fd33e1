package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Paths of the part of Microsoft's Graph that is served.
const (
	OrganizationPath = "/v1.0/organization"
	MePath           = "/v1.0/me"
)

const (
	personalTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"
	userRead       = "/User.Read"
)

// microsoft behaves like Entra ID with Graph (docs/providers/microsoft.md). People without
// an organization have personal accounts. The path of each endpoint begins with a tenant:
// common, organizations, consumers, or one tenant's GUID or domain.
func (k *providerKind) microsoft(graph string) {
	k.prefix = "/{tenant}/v2.0"
	k.scopes = []string{"openid", "email", "profile", "offline_access", graph + userRead} // as in a national cloud
	k.refusesScope = true
	k.accessPrefix, k.otherPrefix = "EwBgA8l6", "0.AXoAvz"
	k.admits = admitsTenant
	k.document = func(p *Provider, tenant string) map[string]any {
		d := p.document()
		d["issuer"] = p.tenantIssuer(templateFor(p.opts.People, tenant))
		for _, name := range []string{
			"authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "end_session_endpoint",
		} {
			path := d[name].(string)[len(p.opts.Issuer):]
			d[name] = p.opts.Issuer + "/" + tenant + "/v2.0" + path
		}
		delete(d, "authorization_response_iss_parameter_supported")
		delete(d, "code_challenge_methods_supported") // like the real one, which knows PKCE but does not say so
		d["token_endpoint_auth_methods_supported"] = []string{
			"client_secret_post", "private_key_jwt", "client_secret_basic",
		}
		d["scopes_supported"] = []string{"openid", "profile", "email", "offline_access"}
		return d
	}
	k.namesIssuer = false
	k.keys = func(p *Provider) any { return withIssuer(p) }
	k.claims = microsoftClaims
	k.idToken = microsoftIDToken
	k.answer = func(g grant, tokens map[string]any) {
		if !slices.Contains(g.scope, "offline_access") {
			delete(tokens, "refresh_token")
		}
	}
	k.protected = map[string]func(*Provider, grant) (any, error){OrganizationPath: organization, MePath: me}
}

func (p *Provider) tenantIssuer(tenant string) string { return p.opts.Issuer + "/" + tenant + "/v2.0" }

func (p Person) tenant() string {
	if p.OrgID == "" {
		return personalTenant
	}
	return guid(p.OrgID)
}

// templateFor returns the tenant that the issuer in the document for tenant has.
func templateFor(people []Person, tenant string) string {
	switch tenant {
	case "common", "organizations":
		return "{tenantid}"
	case "consumers":
		return personalTenant
	}
	for _, p := range people {
		if p.OrgDomain == tenant {
			return p.tenant()
		}
	}
	return tenant
}

func admitsTenant(tenant string, who Person) bool {
	switch tenant {
	case "common":
		return true
	case "organizations":
		return who.OrgID != ""
	case "consumers":
		return who.OrgID == ""
	}
	return tenant == who.tenant() || tenant == who.OrgDomain
}

// withIssuer makes a key set whose keys say which issuer they sign for.
func withIssuer(p *Provider) any {
	var keys []map[string]any
	for _, k := range p.PublicJWKS().Keys {
		var members map[string]any
		raw, err := json.Marshal(k)
		if err != nil || json.Unmarshal(raw, &members) != nil {
			continue
		}
		members["issuer"] = p.tenantIssuer("{tenantid}")
		keys = append(keys, members)
	}
	return map[string]any{"keys": keys}
}

// microsoftClaims makes the claims about a person. The address is the one that an
// administrator has entered, and there is no email_verified.
func microsoftClaims(_ *Provider, who Person, scope []string) map[string]any {
	c := map[string]any{"sub": guid("pairwise " + who.Key)}
	if slices.Contains(scope, "email") {
		c["email"] = who.Email
	}
	if slices.Contains(scope, "profile") {
		c["oid"], c["name"], c["preferred_username"] = guid(who.Key), who.Name, who.Email
	}
	return c
}

func microsoftIDToken(p *Provider, g grant, claims map[string]any) {
	tid := g.person.tenant()
	dated := p.opts.Now().Add(-5 * time.Minute).Unix()
	claims["iss"], claims["tid"], claims["ver"] = p.tenantIssuer(tid), tid, "2.0"
	claims["iat"], claims["nbf"] = dated, dated
	for _, absent := range []string{"at_hash", "auth_time", "sid"} {
		delete(claims, absent)
	}
	switch groups := g.person.Groups; {
	case len(groups) > 200: // too many for the token
		claims["_claim_names"] = map[string]string{"groups": "src1"}
		claims["_claim_sources"] = map[string]any{"src1": map[string]string{
			"endpoint": "https://graph.windows.net/" + tid + "/users/" + guid(g.person.Key) + "/getMemberObjects"}}
	case len(groups) > 0:
		var ids []string
		for _, group := range groups {
			ids = append(ids, guid(group))
		}
		claims["groups"] = ids
	}
}

func organization(_ *Provider, g grant) (any, error) {
	if err := mayRead(g); err != nil {
		return nil, err
	}
	if g.person.OrgID == "" {
		return nil, &oauthError{http.StatusForbidden, "Authorization_RequestDenied",
			"personal accounts have no organization"}
	}
	domain := func(name string, isDefault bool) map[string]any {
		return map[string]any{
			"name": name, "type": "Managed", "capabilities": "Email, OfficeCommunicationsOnline",
			"isDefault": isDefault, "isInitial": !isDefault,
		}
	}
	return map[string]any{
		"@odata.context": "https://graph.microsoft.com/v1.0/$metadata#organization(id,displayName,verifiedDomains)",
		"value": []any{map[string]any{
			"id": g.person.tenant(), "displayName": g.person.OrgName,
			"verifiedDomains": []any{
				domain(g.person.OrgID+".onmicrosoft.com", false), domain(g.person.OrgDomain, true),
			},
		}},
	}, nil
}

func me(_ *Provider, g grant) (any, error) {
	if err := mayRead(g); err != nil {
		return nil, err
	}
	return map[string]any{
		"@odata.context": "https://graph.microsoft.com/v1.0/$metadata" +
			"#users(id,displayName,mail,userPrincipalName)/$entity",
		"id": guid(g.person.Key), "displayName": g.person.Name,
		"mail": g.person.Email, "userPrincipalName": g.person.Email,
	}, nil
}

func mayRead(g grant) error {
	if !slices.ContainsFunc(g.scope, func(s string) bool { return strings.HasSuffix(s, userRead) }) {
		return &oauthError{http.StatusForbidden, "Authorization_RequestDenied", "User.Read was not granted"}
	}
	return nil
}

// guid makes a GUID. It is always the same for the same name.
func guid(of string) string {
	sum := sha256.Sum256([]byte(of))
	h := hex.EncodeToString(sum[:16])
	return fmt.Sprintf("%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:])
}
