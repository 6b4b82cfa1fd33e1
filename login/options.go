package login

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// What Options.Type may say.
const (
	TypeOIDC      = "oidc"
	TypeGoogle    = "google"
	TypeMicrosoft = "microsoft"
	TypePagerDuty = "pagerduty"
	TypeSlack     = "slack"
)

// Types are the kinds of providers.
func Types() []string { return []string{TypeOIDC, TypeGoogle, TypeMicrosoft, TypePagerDuty, TypeSlack} }

// What Options.ClientAuth and Options.IdentityFrom may say.
const (
	ClientAuthAuto  = "auto" // from discovery: basic unless only post is offered; never probed
	ClientAuthBasic = "basic"
	ClientAuthPost  = "post"
	ClientAuthNone  = "none"

	ClientAuthAssertion  = "assertion"       // a JWT that somebody else issues for us, RFC 7523
	ClientAuthPrivateKey = "private_key_jwt" // one that we sign, OIDC Core §9

	FromAuto     = "auto" // userinfo only when a wanted claim is missing in the ID token
	FromIDToken  = "id_token"
	FromUserinfo = "userinfo"
)

// Options describe one provider.
type Options struct {
	ID           string // the provider id in every identity; never reused for another issuer
	Type         string // one of Types; "" means oidc
	Issuer       string // exactly as the provider spells it; "": the vendor's own
	Endpoints    Endpoints
	ClientID     string
	ClientSecret string
	ClientAuth   string // "" means auto

	ClientAssertion func() (string, error) // with assertion: asked for each use, because such tokens are short-lived
	ClientKey       string                 // with private_key_jwt: a private key in PEM
	ClientKeyID     string                 // its kid at the provider; "": none is said

	RedirectURL  string
	Scopes       []string // openid is added if it is missing; none means those that the type needs
	Claims       ClaimNames
	IdentityFrom string // "" means auto
	// TrustedAudiences may stand in the aud of ID tokens beside ClientID (OIDC Core
	// §3.1.3.7 (3)): whoever they are gets tokens that would sign people in here.
	TrustedAudiences []string
	Needs            Needs    // what the configuration decides by
	EmailDomains     []string // if set, addresses elsewhere count as unverified

	SignOut SignOut // at the provider too

	PublicKeys []string // oidc: the provider's keys instead of published ones; PEM, public keys and certificates
	Quirks     []string // oidc: deviations from the standard that it is allowed, of QuirkNames

	HostedDomains  []string // google: only people of these Workspace domains
	Tenant         string   // microsoft: common, organizations, consumers, or a tenant's GUID or domain
	AllowedTenants []string // microsoft, with common or organizations: only people of these, by GUID

	Client *oauth.Client // nil: one with defaults, not measured
	Now    func() time.Time
	Log    *slog.Logger // nil: discard
}

// SignOut is what is particular about signing out at a provider, whose address is
// Endpoints.EndSessionURL or discovery's.
type SignOut struct {
	Off         bool              // it is not offered
	Params      map[string]string // go along
	ReturnParam string            // the parameter with the address of our page, where that is registered; "": not sent
}

// Endpoints are addresses that count instead of what discovery says. With both
// AuthorizationURL and TokenURL there is no discovery.
type Endpoints struct {
	AuthorizationURL, TokenURL, UserinfoURL, JWKSURL, EndSessionURL string

	GraphURL string // microsoft: the origin of Graph, as in a national cloud
}

// ClaimNames says which claim is which. Empty names have defaults: org_id,
// org_name, org_domain, groups, preferred_username, name, email. Orgs, a list of
// ids or of objects {id, name, domain}, has none.
type ClaimNames struct{ OrgID, OrgName, OrgDomain, Orgs, Groups, Username, Name, Email string }

// Conflict is a part of Options that does not go with the rest. Key is its name
// in the configuration.
type Conflict struct{ Key, Why string }

// Conflicts judges the choices in o, not the values: of a value it only asks
// whether there is one, so that references need not be resolved yet. New
// refuses options that have conflicts.
func (o Options) Conflicts() []Conflict {
	o = o.complete()
	var found []Conflict
	add := func(wrong bool, key, why string) {
		if wrong {
			found = append(found, Conflict{key, why})
		}
	}
	add(o.Issuer == "" && !(o.has(quirkUncheckedIssuer) && o.staticEndpoints()), "issuer", "is required, exactly as the provider writes it")
	add(o.has(quirkIgnoreIDToken) && o.TrustedAudiences != nil, "trusted_audiences", "has no meaning where the ID token is not looked at")
	if t := sharedTenant(o.Issuer); o.Type == TypeOIDC && t != "" {
		add(true, "issuer", "is not in Microsoft's tokens, which name the tenant of each account; write `type: microsoft` and `tenant: "+t+"` instead")
	}
	add(o.SignOut.Off && o.has(quirkEndSessionPost), "logout", "is false, so the quirk end_session_post has no meaning")
	o.clientAuthConflicts(add)
	o.quirkConflicts(add)
	o.vendorConflicts(add)
	return found
}

// sharedTenant is the word that stands for many tenants in an issuer of
// Microsoft's, public or national; else "".
func sharedTenant(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return ""
	}
	host := strings.ToLower(u.Hostname())
	tenant, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if !strings.HasPrefix(host, "login.microsoftonline.") && host != "sts.windows.net" && host != "login.windows.net" &&
		host != "login.partner.microsoftonline.cn" && host != "login.chinacloudapi.cn" {
		return ""
	}
	switch tenant = strings.ToLower(tenant); tenant {
	case TenantCommon, TenantOrganizations, TenantConsumers:
		return tenant
	case "{tenantid}", "%7btenantid%7d":
		return TenantCommon
	}
	return ""
}

// vendorConflicts keeps what is particular about one vendor to its type.
func (o Options) vendorConflicts(add func(wrong bool, key, why string)) {
	add(o.HostedDomains != nil && o.Type != TypeGoogle, "hosted_domains", "is for type google")
	add(o.Tenant != "" && o.Type != TypeMicrosoft, "tenant", "is for type microsoft")
	add(o.AllowedTenants != nil && o.Type != TypeMicrosoft, "allowed_tenants", "is for type microsoft")
	add(o.Endpoints.GraphURL != "" && o.Type != TypeMicrosoft, "endpoints.graph", "is for type microsoft")
	add(o.Type == TypePagerDuty && o.TrustedAudiences != nil, "trusted_audiences", "is not for type pagerduty, whose tokens are for its own API and nobody else")
	add(o.Type == TypePagerDuty && o.IdentityFrom == FromUserinfo, "identity_from", "cannot be userinfo: PagerDuty has none")
	if o.Type == TypeMicrosoft {
		several := o.Tenant == TenantCommon || o.Tenant == TenantOrganizations
		add(o.Tenant == "", "tenant", "is required: common, organizations, consumers, or the GUID or domain of one tenant")
		add(o.AllowedTenants != nil && !several, "allowed_tenants", "has a meaning with `tenant: common` and `tenant: organizations` only")
		add(o.IdentityFrom == FromUserinfo, "identity_from", "cannot be userinfo: type microsoft reads the ID token and asks Graph")
		add(o.staticEndpoints(), "endpoints", "authorization and token cannot both be given: type microsoft needs the discovery document, which names the issuer")
	}
}

// complete fills in what the type knows.
func (o Options) complete() Options {
	if o.Type == "" {
		o.Type = TypeOIDC
	}
	switch o.Type {
	case TypeGoogle:
		o.Issuer = or(o.Issuer, googleIssuer)
	case TypeMicrosoft:
		o.Issuer = or(o.Issuer, microsoftIssuer)
	case TypePagerDuty:
		o.Issuer = or(o.Issuer, pagerdutyIssuer)
		o.Endpoints.AuthorizationURL = or(o.Endpoints.AuthorizationURL, pagerdutyAuthorize)
		o.Endpoints.TokenURL = or(o.Endpoints.TokenURL, pagerdutyToken)
		o.Endpoints.JWKSURL = or(o.Endpoints.JWKSURL, pagerdutyKeys)
	case TypeSlack:
		o.Issuer = or(o.Issuer, slackIssuer)
	}
	return o
}

// staticEndpoints: what discovery could say is said, and the document would count
// for nothing.
func (o Options) staticEndpoints() bool {
	return o.Endpoints.AuthorizationURL != "" && o.Endpoints.TokenURL != ""
}

func (o Options) check() error {
	if o.ID == "" || strings.Contains(o.ID, ":") {
		return errors.New("the id must be non-empty and without ':'") // Identity.ID joins with it
	}
	if !slices.Contains(Types(), o.Type) {
		return fmt.Errorf("unknown type %q", o.Type)
	}
	for _, c := range o.Conflicts() {
		return fmt.Errorf("%s %s", c.Key, c.Why)
	}
	for _, check := range []func() error{o.checkAddresses, o.checkClient, o.checkNames} {
		if err := check(); err != nil {
			return err
		}
	}
	switch o.IdentityFrom {
	case "", FromAuto, FromIDToken, FromUserinfo:
		return nil
	}
	return fmt.Errorf("unknown identity source %q", o.IdentityFrom)
}

func (o Options) checkClient() error {
	if o.ClientID == "" {
		return errors.New("the client id is empty")
	}
	if slices.Contains(o.TrustedAudiences, o.ClientID) || slices.Contains(o.TrustedAudiences, "") {
		return errors.New("trusted_audiences are others than the client itself")
	}
	if o.has(quirkHS256) && len(o.ClientSecret) < minSecret {
		return fmt.Errorf("quirks have hs256_id_token, which needs a client secret of at least %d bytes (RFC 7518 §3.2)", minSecret)
	}
	if o.has(quirkRawBasic) && strings.Contains(o.ClientID, ":") {
		return errors.New("quirks have raw_basic_credentials, which cannot send a client id with a colon")
	}
	switch o.ClientAuth {
	case "", ClientAuthAuto, ClientAuthNone, ClientAuthAssertion:
		return nil
	case ClientAuthPrivateKey:
		return CheckClientKey(o.ClientKey)
	case ClientAuthBasic, ClientAuthPost:
		if o.ClientSecret == "" {
			return fmt.Errorf("client authentication %q needs a client secret", o.ClientAuth)
		}
		return nil
	}
	return fmt.Errorf("unknown client authentication %q", o.ClientAuth)
}

func (o Options) checkNames() error {
	for _, t := range o.AllowedTenants {
		if !isGUID(t) {
			return fmt.Errorf("allowed tenant %q is not a GUID in lower case", t)
		}
	}
	if t := o.Tenant; t != identity.LowerASCII(t) || strings.ContainsAny(t, "/{}?#%") {
		return fmt.Errorf("tenant %q is not a word, GUID or domain in lower case", t)
	}
	for _, d := range slices.Concat(o.EmailDomains, o.HostedDomains) {
		if !hostname.IsDomain(strings.ToLower(d)) {
			return fmt.Errorf("e-mail or hosted domain %q is not a domain", d)
		}
	}
	return nil
}

func (o Options) checkAddresses() error {
	if err := checkURL(o.Issuer); o.Issuer != "" && err != nil || strings.ContainsAny(o.Issuer, "?#") {
		return fmt.Errorf("issuer %q: must be an https URL without query or fragment (http only on loopback)", o.Issuer)
	}
	if err := checkURL(o.RedirectURL); err != nil {
		return fmt.Errorf("redirect URL %q: %w", o.RedirectURL, err)
	}
	for name, address := range o.Endpoints.named() {
		if err := checkEndpoint(o.Issuer, address); address != "" && err != nil {
			return fmt.Errorf("endpoints.%s %q: %w", name, address, err)
		}
	}
	return nil
}

func (e Endpoints) named() map[string]string {
	return map[string]string{
		"authorization": e.AuthorizationURL, "token": e.TokenURL, "userinfo": e.UserinfoURL, "jwks": e.JWKSURL, "end_session": e.EndSessionURL,
		"graph": e.GraphURL,
	}
}

// checkEndpoint demands https of a provider that is reached by https: a code or
// a secret must not be sent in clear text to one of its endpoints (RFC 6749 §3.1,
// §3.2).
func checkEndpoint(issuer, address string) error {
	if err := checkURL(address); err != nil {
		return err
	}
	if scheme(issuer) == "https" && scheme(address) != "https" {
		return errors.New("must be https as the issuer is")
	}
	return nil
}

func scheme(address string) string {
	before, _, _ := strings.Cut(address, ":")
	return strings.ToLower(before)
}

// checkURL accepts absolute https URLs, and http ones on loopback.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("not an absolute URL")
	}
	if u.Scheme == "https" || (u.Scheme == "http" && hostname.IsLoopback(u.Hostname())) {
		return nil
	}
	return errors.New("must be https (http only on loopback)")
}
