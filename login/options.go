package login

import (
	"context"
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

// The values of Options.Type.
const (
	TypeOIDC      = "oidc"
	TypeGoogle    = "google"
	TypeMicrosoft = "microsoft"
	TypePagerDuty = "pagerduty"
	TypeSlack     = "slack"
	TypeGitHub    = "github"
)

// Types returns the types of providers.
func Types() []string {
	return []string{TypeOIDC, TypeGoogle, TypeMicrosoft, TypePagerDuty, TypeSlack, TypeGitHub}
}

// The values of Options.ClientAuth and Options.IdentityFrom.
const (
	ClientAuthAuto  = "auto" // as discovery says: basic, unless only post is offered; never tried out
	ClientAuthBasic = "basic"
	ClientAuthPost  = "post"
	ClientAuthNone  = "none"

	ClientAuthAssertion  = "assertion"       // a JWT that somebody else issues for us, RFC 7523
	ClientAuthPrivateKey = "private_key_jwt" // a JWT that we sign, OIDC Core §9

	FromAuto     = "auto" // userinfo is asked only if the ID token lacks a wanted claim
	FromIDToken  = "id_token"
	FromUserinfo = "userinfo"
)

// Options describe one provider.
type Options struct {
	ID           string // the provider's id in every identity; it must never be given to another issuer
	Type         string // one of Types; "" means oidc
	Use          string // UseSignIn or UseTokens; "" means the first
	Issuer       string // exactly as the provider spells it; "": the known one of the vendor
	Endpoints    Endpoints
	ClientID     string
	ClientSecret string
	ClientAuth   string // "" means auto

	ClientAssertion func() (string, error) // for assertion: called for each use, because such tokens expire soon
	ClientKey       string                 // for private_key_jwt: a private key in PEM
	ClientKeyID     string                 // the key's id (kid) at the provider; "": none is sent

	RedirectURL  string
	Scopes       []string // openid is added if it is missing; nil means those that the type needs
	Claims       ClaimNames
	IdentityFrom string // "" means auto
	// TrustedAudiences may stand in the aud of ID tokens beside ClientID (OIDC Core
	// §3.1.3.7 (3)). They receive tokens with which people can be signed in here.
	TrustedAudiences []string
	Needs            Needs    // the facts that the configuration uses for decisions
	EmailDomains     []string // if set, addresses of other domains count as unverified

	SignOut SignOut // how a sign-out ends the session at the provider too

	// ReauthAfter is how long a sign-in is believed before the provider is asked again
	// without the person; NoReauth: for as long as the session lasts; 0: see
	// Provider.ReauthAfter.
	ReauthAfter time.Duration

	// DiscoveryCredential is sent for the discovery document and the keys; with UseTokens. It is
	// asked for each time, because such tokens are short-lived.
	DiscoveryCredential func() (string, error)

	PublicKeys []string // oidc: keys or certificates in PEM, used instead of the keys that the provider publishes
	Quirks     []string // oidc: allowed deviations from the standard, of QuirkNames

	HostedDomains  []string // google: only people of these Workspace domains are admitted
	Tenant         string   // microsoft: common, organizations, consumers, or a tenant's GUID or domain
	AllowedTenants []string // microsoft, with common or organizations: only people of these (GUIDs) are admitted
	BaseURL        string   // github: the origin of a GitHub Enterprise Server; "": github.com
	AllowedOrgs    []string // github: only members of these (numbers) are admitted, and only these count

	Directory Directory // google: how the directory of an organization can be read
	// OrgDetails adds to an organization what its directory said; google. nil: nothing is known.
	OrgDetails func(context.Context, identity.Org) identity.Org

	Client *oauth.Client // nil: one with default settings and without metrics
	Now    func() time.Time
	Log    *slog.Logger // nil: nothing is logged
}

// SignOut says how to sign out at a provider. The address is Endpoints.EndSessionURL or
// comes from discovery.
type SignOut struct {
	Off         bool              // signing out at the provider is not offered
	Params      map[string]string // parameters that are added
	ReturnParam string            // the parameter for the registered address of our page; "": not sent
}

// Endpoints are addresses that are used instead of those of discovery. With both
// AuthorizationURL and TokenURL the discovery document is not fetched.
type Endpoints struct {
	AuthorizationURL, TokenURL, UserinfoURL, JWKSURL, EndSessionURL string

	GraphURL string // microsoft: the origin of Graph, as in a national cloud
}

// ClaimNames are the names of the claims that are read. Empty names have defaults: org_id,
// org_name, org_domain, groups, preferred_username, name, email. Orgs, a list of ids or of
// objects {id, name, domain}, has no default.
type ClaimNames struct{ OrgID, OrgName, OrgDomain, Orgs, Groups, Username, Name, Email string }

// Conflict is an option that does not go with the others. Key is its name in the
// configuration.
type Conflict struct{ Key, Why string }

// Conflicts finds options that do not go together. Of most values it only looks whether
// they are set, so references to secrets need not be resolved yet. New refuses options
// that have conflicts.
func (o Options) Conflicts() []Conflict {
	given := o
	o = o.complete()
	var found []Conflict
	add := func(wrong bool, key, why string) {
		if wrong {
			found = append(found, Conflict{key, why})
		}
	}
	add(o.Issuer == "" && !(o.has(quirkUncheckedIssuer) && o.staticEndpoints()), "issuer",
		"is required, exactly as the provider writes it")
	add(o.has(quirkIgnoreIDToken) && o.TrustedAudiences != nil, "trusted_audiences",
		"has no meaning where the ID token is not looked at")
	if t := sharedTenant(o.Issuer); o.Type == TypeOIDC && t != "" {
		add(true, "issuer", "is not in Microsoft's tokens, which name the tenant of each account; "+
			"write `type: microsoft` and `tenant: "+t+"` instead")
	}
	add(o.SignOut.Off && o.has(quirkEndSessionPost), "logout", "is false, so the quirk end_session_post has no meaning")
	o.useConflicts(add)
	if !o.tokensOnly() {
		o.clientAuthConflicts(add)
		o.quirkConflicts(add)
	}
	o.vendorConflicts(add)
	given.githubConflicts(add)
	return found
}

// sharedTenant returns the word that stands for many tenants in an issuer of Microsoft's
// public or national clouds; "" if there is none.
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

// vendorConflicts finds settings of one vendor that are used with the type of another.
func (o Options) vendorConflicts(add func(wrong bool, key, why string)) {
	add(o.HostedDomains != nil && o.Type != TypeGoogle, "hosted_domains", "is for type google")
	o.directoryConflicts(add)
	add(o.Tenant != "" && o.Type != TypeMicrosoft, "tenant", "is for type microsoft")
	add(o.AllowedTenants != nil && o.Type != TypeMicrosoft, "allowed_tenants", "is for type microsoft")
	add(o.Endpoints.GraphURL != "" && o.Type != TypeMicrosoft, "endpoints.graph", "is for type microsoft")
	add(o.Type == TypePagerDuty && o.TrustedAudiences != nil, "trusted_audiences",
		"is not for type pagerduty, whose tokens are for its own API and nobody else")
	add(o.Type == TypePagerDuty && o.IdentityFrom == FromUserinfo, "identity_from",
		"cannot be userinfo: PagerDuty has none")
	if o.Type == TypeMicrosoft {
		several := o.Tenant == TenantCommon || o.Tenant == TenantOrganizations
		add(o.Tenant == "", "tenant",
			"is required: common, organizations, consumers, or the GUID or domain of one tenant")
		add(o.AllowedTenants != nil && !several, "allowed_tenants",
			"has a meaning with `tenant: common` and `tenant: organizations` only")
		add(o.IdentityFrom == FromUserinfo, "identity_from",
			"cannot be userinfo: type microsoft reads the ID token and asks Graph")
		add(o.staticEndpoints(), "endpoints", "authorization and token cannot both be given: "+
			"type microsoft needs the discovery document, which names the issuer")
	}
}

// complete fills in the addresses that are known for the type.
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
	case TypeGitHub:
		return o.completeGitHub()
	}
	return o
}

// staticEndpoints reports whether the configuration names the endpoints, so that the
// discovery document is not needed.
func (o Options) staticEndpoints() bool {
	return o.Endpoints.AuthorizationURL != "" && o.Endpoints.TokenURL != ""
}

func (o Options) check() error {
	if o.ID == "" || strings.Contains(o.ID, ":") {
		return errors.New("the id must be non-empty and without ':'") // Identity.ID is joined with ':'
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
	if o.tokensOnly() {
		return nil // it has none
	}
	if o.ClientID == "" {
		return errors.New("the client id is empty")
	}
	if slices.Contains(o.TrustedAudiences, o.ClientID) || slices.Contains(o.TrustedAudiences, "") {
		return errors.New("trusted_audiences are others than the client itself")
	}
	if o.has(quirkHS256) && len(o.ClientSecret) < minSecret {
		return fmt.Errorf("quirks have hs256_id_token, which needs a client secret of at least %d bytes "+
			"(RFC 7518 §3.2)", minSecret)
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
	for _, id := range o.AllowedOrgs {
		if err := checkGitHubOrg(id); err != nil {
			return fmt.Errorf("allowed_orgs: %w", err)
		}
	}
	for _, t := range o.AllowedTenants {
		if !identity.IsGUID(t) {
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
		return fmt.Errorf("issuer %q: must be an https URL without query or fragment (http only on loopback)",
			o.Issuer)
	}
	if err := checkURL(o.RedirectURL); err != nil && !o.tokensOnly() {
		return fmt.Errorf("redirect URL %q: %w", o.RedirectURL, err)
	}
	if err := checkURL(o.Directory.RedirectURL); o.Directory.On && err != nil {
		return fmt.Errorf("redirect URL of the directory %q: %w", o.Directory.RedirectURL, err)
	}
	if base := o.Directory.BaseURL; base != "" && (checkURL(base) != nil || originOf(base) != base) {
		return fmt.Errorf("directory.base_url %q: must be an https URL without path (http only on loopback)", base)
	}
	if o.Type == TypeGitHub {
		if err := checkURL(o.BaseURL); err != nil || originOf(o.BaseURL) != o.BaseURL {
			return fmt.Errorf("base_url %q: must be an https URL without path (http only on loopback)", o.BaseURL)
		}
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
		"authorization": e.AuthorizationURL, "token": e.TokenURL, "userinfo": e.UserinfoURL,
		"jwks": e.JWKSURL, "end_session": e.EndSessionURL, "graph": e.GraphURL,
	}
}

// checkEndpoint refuses an http endpoint of a provider whose issuer is https: no code and
// no secret must be sent to it in clear text (RFC 6749 §3.1, §3.2).
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

// checkURL accepts absolute https URLs, and http URLs of this machine (loopback).
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
