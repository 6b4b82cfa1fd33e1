package importer

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Kinds of providers, as oauth2-proxy calls them.
const (
	kindGoogle   = "google"
	kindOIDC     = "oidc"
	kindKeycloak = "keycloak-oidc"
	kindGitLab   = "gitlab"
	kindGitHub   = "github"
)

// provider maps the identity provider: its type first, on which the rest depends.
func (m *mapping) provider() {
	kind := kindGoogle
	s, there := m.usable("provider")
	switch {
	case s != nil && s.value() != "":
		kind = strings.ToLower(s.value())
	case there && s == nil:
		kind = "" // refused already
	}
	start := func(id, kind, issuer string) {
		m.draft.provider = []entry{{"id", id}, {"type", kind}}
		put(&m.draft.provider, "issuer", issuer)
		put(&m.draft.provider, "client_id", "env:"+clientIDVariable)
		put(&m.draft.provider, "client_secret", "env:"+secretVariable)
	}
	switch kind {
	case kindGoogle:
		start("google", "google", "")
	case "azure", "entra-id":
		start("microsoft", "microsoft", "")
		put(&m.draft.provider, "tenant", "common") // oauth2-proxy's default
	case kindOIDC:
		start("sso", "oidc", m.issuer(""))
	case kindKeycloak, "keycloak":
		start("keycloak", "oidc", m.issuer(m.keycloakIssuer()))
	case "adfs":
		start("adfs", "oidc", m.issuer(""))
	case kindGitLab:
		start("gitlab", "oidc", m.issuer(m.gitlabIssuer()))
	case kindGitHub:
		start("github", "github", "")
		m.githubServer()
	default:
		start("sso", "oidc", "env:"+issuerVariable)
		m.who.closed = true
		if s != nil {
			m.refuse(s, "is no OpenID provider that Sallyport knows: "+issuerVariable+" has to name one")
		}
	}
	if s != nil && !s.judged {
		m.mapped(s, "providers[].type, as "+valueOf(m.draft.provider, "type"))
	}
	m.providerNames()
	m.client()
	if valueOf(m.draft.provider, "type") == "microsoft" {
		m.tenant()
	} else {
		for _, name := range []string{"azure-tenant", "entra-id-allowed-tenant", "entra-id-federated-token-auth"} {
			if s := m.set[name]; s != nil {
				m.not(s, "is for Entra ID")
			}
		}
	}
	m.claims()
	m.endpoints()
	m.scopes(kind)
	m.trust()
	m.again()
}

// keycloakIssuer is the realm in the address where people sign in.
func (m *mapping) keycloakIssuer() string {
	s := m.set["login-url"]
	issuer, _, ok := strings.Cut(s.value(), "/protocol/openid-connect/")
	if !ok || filledIn(issuer) {
		return ""
	}
	m.mapped(s, "providers[].issuer, the realm in it")
	return issuer
}

// gitlabIssuer is GitLab itself, or the server of one's own in the addresses of its endpoints:
// the people and groups of the one are not those of the other.
func (m *mapping) gitlabIssuer() string {
	issuer := "https://gitlab.com"
	for _, n := range []struct{ option, behind string }{{"login-url", "/oauth/authorize"},
		{"redeem-url", "/oauth/token"}, {"validate-url", "/"}} {
		s := m.set[n.option]
		own, at, ok := strings.Cut(s.value(), n.behind)
		switch {
		case s == nil || !s.missing && s.value() == "":
		case n.option == "validate-url":
			if !strings.HasPrefix(s.value(), issuer+"/") {
				return ""
			}
		case !ok || at != "" || s.missing || filledIn(own) || issuer != "https://gitlab.com" && issuer != own:
			return ""
		default:
			issuer = own
		}
	}
	return issuer
}

// githubServer is the server of one's own in the address where people sign in. Where that is
// not known, nobody may pass: the people of GitHub itself are others.
func (m *mapping) githubServer() {
	s, there := m.usable("login-url")
	if s == nil || s.value() == "" {
		m.who.closed = m.who.closed || there && s == nil
		return
	}
	base, ok := strings.CutSuffix(s.value(), "/login/oauth/authorize")
	why := "is no address where people sign in at GitHub: name the server in providers[].base_url"
	if ok {
		why = m.tryPut("base_url", yamlText(base))
	}
	switch {
	case ok && base == "https://github.com":
		put(&m.draft.provider, "base_url", "")
		m.mapped(s, alwaysSo)
	case why != "":
		m.refuse(s, why)
		m.who.closed = true
	default:
		m.mapped(s, "providers[].base_url")
	}
}

// issuer is that of the provider, or a reference to it.
func (m *mapping) issuer(other string) string {
	s := m.set["oidc-issuer-url"]
	if s == nil {
		if other == "" {
			m.absent("oidc-issuer-url", Refused, "is not there: "+issuerVariable+" has to name the issuer")
			return "env:" + issuerVariable
		}
		return yamlText(other)
	}
	if name, ok := m.reference(s); ok {
		m.mapped(s, "providers[].issuer")
		return "env:" + name
	}
	if s, _ = m.usable("oidc-issuer-url"); s == nil {
		return "env:" + issuerVariable
	}
	v := yamlText(s.value())
	why := m.wrong(func(d *draft) { put(&d.provider, "issuer", v) })
	if looksLikeRef(s.value()) {
		why = "must be an absolute URL"
	}
	if why != "" {
		m.refuse(s, why)
		return "env:" + issuerVariable
	}
	m.mapped(s, "providers[].issuer")
	return v
}

// reference is the variable in which the value of a setting stands, where it is no text here.
func (m *mapping) reference(s *setting) (string, bool) {
	if s.missing && variableName.MatchString(s.variable) {
		return s.variable, true
	}
	return variableOf(s.value())
}

// providerNames maps how the provider is called.
func (m *mapping) providerNames() {
	if s, _ := m.usable("alpha-provider-id"); s != nil {
		if !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`).MatchString(s.value()) {
			m.not(s, "an id has lower-case letters, digits and - here: "+valueOf(m.draft.provider, "id"))
		} else if why := m.tryPut("id", yamlText(s.value())); why != "" {
			m.not(s, why)
		} else {
			m.mapped(s, "providers[].id")
		}
	}
	if s, _ := m.usable("provider-display-name"); s != nil {
		if why := m.tryPut("name", yamlText(s.value())); why != "" {
			m.not(s, why)
		} else {
			m.mapped(s, "providers[].name")
		}
	}
}

// client maps who we are at the provider. A secret never stands in the result.
func (m *mapping) client() {
	if s := m.set["client-id"]; s == nil {
		m.absent("client-id", NotMapped, "is not there: "+clientIDVariable+" has to hold it")
	} else if name, ok := m.reference(s); ok {
		put(&m.draft.provider, "client_id", "env:"+name)
		m.mapped(s, "providers[].client_id")
	} else if s, _ := m.usable("client-id"); s != nil {
		why := m.wrong(func(d *draft) { put(&d.provider, "client_id", yamlText(s.value())) })
		if why != "" || looksLikeRef(s.value()) {
			m.refuse(s, "is no client id: "+clientIDVariable+" has to hold it")
		} else {
			put(&m.draft.provider, "client_id", yamlText(s.value()))
			m.mapped(s, "providers[].client_id")
		}
	}
	m.clientSecret()
}

func (m *mapping) clientSecret() {
	file, _ := m.usable("client-secret-file")
	s := m.set["client-secret"]
	const to = "providers[].client_secret"
	switch {
	case s != nil && (s.missing || s.value() != ""):
		name, elsewhere := m.reference(s)
		if !elsewhere && s.variable != "" {
			name, elsewhere = s.variable, true
		}
		if elsewhere {
			put(&m.draft.provider, "client_secret", "env:"+name)
			m.mapped(s, to+", the variable "+name)
		} else {
			m.mapped(s, to+": put it into the variable "+secretVariable+"; it is not repeated here")
		}
		if file != nil {
			m.not(file, "client-secret stands beside it, and counts")
		}
	case file != nil && absolute(file.value()):
		put(&m.draft.provider, "client_secret", yamlText("file:"+file.value()))
		m.mapped(file, to)
	case file != nil:
		m.not(file, "is no absolute path: put the secret into the variable "+secretVariable)
	default:
		if s != nil {
			m.mapped(s, to+", the variable "+secretVariable)
			return
		}
		if on, _ := m.usable("entra-id-federated-token-auth"); on.value() != "true" {
			m.absent("client-secret", NotMapped, "is not there: "+secretVariable+" has to hold it")
		}
	}
}

// tenant maps whose people Entra ID signs in.
func (m *mapping) tenant() {
	if s, _ := m.usable("azure-tenant"); s != nil {
		if why := m.tryPut("tenant", yamlText(strings.ToLower(s.value()))); why != "" {
			m.refuse(s, "providers[].tenant "+why)
			m.who.closed = true
		} else {
			m.mapped(s, "providers[].tenant")
		}
	} else if m.set["azure-tenant"] != nil {
		m.who.closed = true
	}
	if s, there := m.usable("oidc-issuer-url"); s != nil {
		tenant := tenantOf(s.value())
		if why := m.tryPut("tenant", yamlText(tenant)); tenant == "" || why != "" {
			m.refuse(s, "names no tenant of Entra ID: write it into providers[].tenant")
			m.who.closed = true
		} else {
			m.mapped(s, "providers[].tenant")
		}
	} else if there {
		m.who.closed = true
	}
	var allowed []string
	m.parts("entra-id-allowed-tenant", func(_ *setting, v string) (Verdict, string) {
		v = strings.ToLower(v)
		if why := m.wrong(func(d *draft) { put(&d.provider, "allowed_tenants", yamlList([]string{v})) }); why != "" {
			return Refused, "providers[].allowed_tenants " + why
		}
		allowed = append(allowed, v)
		return Mapped, "providers[].allowed_tenants"
	})
	if len(allowed) > 0 {
		put(&m.draft.provider, "allowed_tenants", yamlList(allowed))
	} else if m.set["entra-id-allowed-tenant"] != nil {
		m.who.closed = true
	}
	if s, _ := m.usable("entra-id-federated-token-auth"); s != nil && m.flag("entra-id-federated-token-auth", false) {
		const token = "file:/var/run/secrets/azure/tokens/azure-identity-token"
		try := func(d *draft) {
			put(&d.provider, "client_secret", "")
			put(&d.provider, "client_auth", "assertion")
			put(&d.provider, "client_assertion", token)
		}
		if why := m.wrong(try); why != "" {
			m.refuse(s, why)
		} else {
			try(&m.draft)
			m.mapped(s, "providers[].client_auth and client_assertion")
		}
	}
	if s := m.set["insecure-oidc-skip-issuer-verification"]; s != nil && !s.missing {
		m.mapped(s, "nothing: type microsoft compares the issuer with that of each tenant")
	}
}

// tenantOf is the tenant in the issuer of Entra ID.
func tenantOf(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return ""
	}
	first, rest, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	switch {
	case u.Host == "login.microsoftonline.com" && (rest == "v2.0" || rest == "v2.0/" || rest == ""):
		return strings.ToLower(first)
	case u.Host == "sts.windows.net" && rest == "":
		return strings.ToLower(first)
	}
	return ""
}

// claims maps the names of claims.
func (m *mapping) claims() {
	var claims []entry
	add := func(option, key, usual string) {
		s, _ := m.usable(option)
		if s == nil {
			return
		}
		if s.value() == usual || s.value() == "" {
			m.mapped(s, alwaysSo)
			return
		}
		with := append(slices.Clone(claims), entry{key, yamlText(s.value())})
		if why := m.tryPut("claims", yamlMapping(with)); why != "" {
			m.refuse(s, "providers[].claims."+key+" "+why)
			return
		}
		claims = with
		m.mapped(s, "providers[].claims."+key)
	}
	add("oidc-groups-claim", "groups", "groups")
	add("oidc-email-claim", "email", "email")
	if s := m.set["user-id-claim"]; s != nil && valueOf(claims, "email") != "" {
		m.not(s, "oidc-email-claim stands beside it, and counts")
	}
	if s := m.set["user-id-claim"]; s != nil && !s.judged {
		add("user-id-claim", "email", "email") // what it means since version 7
	}
	m.roles(&claims)
}

// roles maps those of Keycloak: of a realm, where no groups are asked for beside them.
func (m *mapping) roles(claims *[]entry) {
	s, there := m.usable("allowed-role")
	if s == nil {
		m.who.closed = m.who.closed || there
		return
	}
	why := ""
	switch {
	case m.set[optAllowedGroup] != nil || m.set["keycloak-group"] != nil || valueOf(*claims, "groups") != "":
		why = "groups and roles are in two claims, and Sallyport reads groups from one: have the provider put both " +
			"into one claim, and name it in providers[].claims.groups"
	case slices.ContainsFunc(s.values, func(v string) bool { return strings.Contains(v, ":") }):
		why = "roles of a client are in resource_access.<client>.roles: name that claim in " +
			"providers[].claims.groups, and the role in allow"
	default:
		why = m.tryPut("claims", yamlMapping(append(slices.Clone(*claims), entry{"groups", "realm_access.roles"})))
	}
	if why != "" {
		m.refuse(s, why)
		m.who.closed = true
		return
	}
	m.groups = append(m.groups, s.values...)
	m.mapped(s, "routes[].allow.groups, from the claim realm_access.roles, which the realm has to put into the ID "+
		"token or userinfo; apps are told the role without role: before it")
}

// endpoints maps addresses, which oauth2-proxy uses only without discovery.
func (m *mapping) endpoints() {
	names := []struct{ option, key string }{{"login-url", "authorization"}, {"redeem-url", "token"},
		{"profile-url", "userinfo"}, {"oidc-jwks-url", "jwks"}}
	skips := m.flag("skip-oidc-discovery", false)
	var list []entry
	for _, n := range names {
		s := m.set[n.option]
		switch {
		case s == nil || s.judged:
		case valueOf(m.draft.provider, "type") != "oidc":
			m.not(s, "the type of the provider knows its addresses")
		case !skips:
			m.not(s, "the discovery document says it, for oauth2-proxy too")
		default:
			if s, _ = m.usable(n.option); s == nil || s.value() == "" {
				continue
			}
			if looksLikeRef(s.value()) {
				m.refuse(s, "is no URL")
				continue
			}
			list = append(list, entry{n.key, yamlText(s.value())})
		}
	}
	m.publicKeys()
	for len(list) > 0 {
		d := m.draft.clone()
		d.routes = trial(route{})
		put(&d.provider, "endpoints", yamlMapping(list))
		faults := d.faults()
		if len(faults) == 0 {
			m.draft.provider = d.provider
			break
		}
		_, key, _ := strings.Cut(faults[0].Path, ".endpoints.")
		left := slices.DeleteFunc(slices.Clone(list), func(e entry) bool { return key == "" || e.key == key })
		for _, n := range names {
			if s := m.set[n.option]; s != nil && valueOf(list, n.key) != "" && valueOf(left, n.key) == "" {
				m.refuse(s, "providers[].endpoints: "+faults[0].Message)
			}
		}
		if len(left) == len(list) {
			left = nil
		}
		list = left
	}
	for _, n := range names {
		if s := m.set[n.option]; s != nil && !s.judged && valueOf(list, n.key) != "" {
			m.mapped(s, "providers[].endpoints."+n.key)
		}
	}
	if s := m.set["skip-oidc-discovery"]; s != nil && skips {
		if len(list) == 0 {
			m.not(s, "no addresses stand beside it, so the discovery document is read")
		} else {
			m.mapped(s, "providers[].endpoints")
		}
	}
}

func (m *mapping) publicKeys() {
	var files []string
	m.parts("oidc-public-key-file", func(_ *setting, v string) (Verdict, string) {
		ref := "file:" + v
		if why := m.wrong(func(d *draft) { put(&d.provider, "public_keys", yamlList([]string{ref})) }); why != "" {
			return Refused, "providers[].public_keys " + why
		}
		files = append(files, ref)
		return Mapped, "providers[].public_keys"
	})
	if len(files) > 0 {
		put(&m.draft.provider, "public_keys", yamlList(files))
	}
}

// scopes maps what is asked for, for a provider that has no type of its own.
func (m *mapping) scopes(kind string) {
	s, _ := m.usable("scope")
	if valueOf(m.draft.provider, "type") != "oidc" {
		if s != nil {
			m.not(s, "the type of the provider knows what to ask for")
		}
		return
	}
	if s == nil || s.value() == "" {
		if kind == kindOIDC && m.set[optAllowedGroup] != nil { // as oauth2-proxy does
			_ = m.tryPut("scopes", yamlList([]string{"openid", "email", "profile", "groups"}))
		}
		return
	}
	text := "providers[].scopes"
	list := strings.FieldsFunc(s.value(), func(r rune) bool { return r == ' ' || r == '+' || r == ',' })
	if slices.Contains(list, "offline_access") {
		list = slices.DeleteFunc(list, func(v string) bool { return v == "offline_access" })
		text += ", without offline_access: no refresh token is kept"
	}
	if !slices.Contains(list, "openid") {
		list = append([]string{"openid"}, list...)
		text += ", and openid"
	}
	if why := m.tryPut("scopes", yamlList(list)); why != "" {
		m.not(s, why)
		return
	}
	m.mapped(s, text)
}

// trust maps who vouches for the provider, and for whom its tokens may be besides.
func (m *mapping) trust() {
	if s, _ := m.usable("provider-ca-file"); s != nil {
		files := slices.DeleteFunc(slices.Clone(s.values), func(v string) bool { return v == "" })
		switch {
		case len(files) == 0:
			m.mapped(s, "nothing, as it is empty")
		case len(files) > 1:
			m.refuse(s, "providers[].ca is one file: put all certificates into it")
		default:
			if why := m.tryPut("ca", yamlText("file:"+files[0])); why != "" {
				m.refuse(s, "providers[].ca "+why)
			} else {
				m.mapped(s, "providers[].ca")
			}
		}
	}
	var audiences []string
	m.parts("oidc-extra-audience", func(_ *setting, v string) (Verdict, string) {
		with := append(slices.Clone(audiences), v)
		if why := m.tryPut("trusted_audiences", yamlList(with)); why != "" {
			return Refused, "providers[].trusted_audiences " + why
		}
		audiences = with
		return Mapped, "providers[].trusted_audiences; a token must still name this client"
	})
	if s, _ := m.usable("skip-claims-from-profile-url"); s != nil && m.flag("skip-claims-from-profile-url", false) {
		if why := m.tryPut("identity_from", "id_token"); why != "" {
			m.not(s, why)
		} else {
			m.mapped(s, "providers[].identity_from")
		}
	}
}

// again maps how often the provider is asked again.
func (m *mapping) again() {
	s, _ := m.usable("cookie-refresh")
	if s == nil || s.value() == "" {
		return
	}
	if s.value() == "0" || s.value() == "0s" {
		m.not(s, "the provider is asked again where it can be: providers[].reauth_after, `never` switches it off")
		return
	}
	if why := m.tryPut("reauth_after", yamlText(s.value())); why != "" {
		m.not(s, "providers[].reauth_after "+why)
		return
	}
	m.mapped(s, "providers[].reauth_after")
}
