package login

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// dialect holds everything in which providers differ: what is requested from one
// provider, and what its answers must satisfy. strict is the standard. What a vendor
// does differently is in that vendor's file, with the document that says so. The steps
// of a sign-in are the same for all providers; they are in login.go, idtoken.go and
// claims.go, and use the dialect. A zero value means: as the standard has it.
type dialect struct {
	// What is requested.
	scopes          []string   // used if the configuration names none
	alsoScopes      []string   // added to those of the configuration
	authParams      url.Values // added to the authorization request
	noPKCE          bool
	plainOAuth      bool     // OAuth 2.0 without OpenID Connect: no openid, nonce, max_age or acr_values
	redirectOrigins []string // origins to which the authorization endpoint redirects browsers

	// Where the provider is.
	discoverAt string                   // the discovery document is below this address
	discovered func(issuer string) bool // reports whether the document may name this issuer
	clientAuth oauth.ClientAuth         // used if the configuration names none; "": as discovery says

	logoutByPost bool // the end_session endpoint takes a form that is posted, not a GET

	// What is checked.

	userinfoAlone bool                                 // who the person is comes from userinfo alone
	secretSigns   bool                                 // ID tokens are signed with the client secret (HS256)
	jwksRedirect  func(to string) bool                 // may the key document point there? nil: it holds the keys
	issuedBy      func(iss string) bool                // judges the iss of callbacks and of ID tokens
	anyIssuer     bool                                 // an ID token's iss is not compared
	audience      func(aud []string) bool              // judges the aud of ID tokens
	nonceOptional bool                                 // an ID token may have no nonce; one that is there is checked
	checks        []func(t idToken, m *metadata) error // made after those of the standard
	// admits returns why the options do not admit somebody whose claims have passed all
	// checks, and nil if they do. It is about the person: what a provider must not send is
	// for checks. nil: the options admit everybody.
	admits func(c claims) *excluded

	// Who the person is.

	// id reads a claim that is an id.
	id func(c claims, name string) (string, bool)
	// subNames are the claims that can be OIDC's sub; the first that is present counts.
	subNames []string
	// subject makes Identity.Subject from the claims; nil: it is sub.
	subject func(c claims) (string, bool)
	// wanted are the claims for which userinfo is asked if the ID token lacks one of
	// them and identity_from is auto.
	wanted []string
	// needed are those of wanted without which nobody is signed in if userinfo fails.
	needed []string
	// account asks who the person is where there is no ID token; nil: there is one. The
	// tokens are dropped when it returns.
	account func(ctx context.Context, p *Provider, tokens oauth.TokenResponse) (claims, error)
	// prepare makes claims as OpenID Connect has them from those of IdentityFromClaims; nil:
	// they are such.
	prepare func(c claims) (claims, error)
	// lookup is made instead of the userinfo request.
	lookup func(ctx context.Context, client *oauth.Client, accessToken string, token claims) (claims, error)
	// tokenOnlyClaims stands in for lookup where an access token is all there is.
	tokenOnlyClaims func(token claims) claims
	// vouches decides whether an address counts as verified, from the claims vouching.
	vouches  func(e email) bool
	vouching []string
	// isTrue decides whether the value of email_verified means true.
	isTrue func(raw json.RawMessage) bool
	// orgs reads the organizations; nil: they are in the claims that the configuration names.
	orgs func(r reader) (active identity.Org, all []identity.Org, unknown bool)
	// nameless: the provider has neither names nor addresses of people, and none is read.
	nameless bool
	// reads are the claims that Permissions lists besides those that every provider has.
	reads []Claim
}

// idToken is an ID token that is being checked. Its signature has been verified.
type idToken struct {
	claims
	alg, keyIssuer string
}

// email is an address as the provider sent it, with the claims that came with it.
type email struct {
	who         claims   // the verified claims that say who the person is
	sources     []claims // all claims about the person, the best source first
	raw, domain string
	isTrue      func(raw json.RawMessage) bool
}

// newDialect returns the dialect of the provider that o describes.
func newDialect(o Options) dialect {
	var p dialect
	switch o.Type {
	case TypeGoogle:
		p = google(o)
	case TypeMicrosoft:
		p = newMicrosoft(o)
	case TypePagerDuty:
		p = pagerduty(o)
	case TypeSlack:
		p = slack(o)
	case TypeGitHub:
		p = github(o)
	default:
		p = strict(o)
		for _, q := range o.allowed() {
			q.change(&p)
		}
	}
	if o.Claims.OrgID != "" || o.Claims.Orgs != "" {
		p.orgs = nil // the claims that the operator names count, and not the vendor's own
	}
	return p
}

// strict is the dialect of OpenID Connect Core and Discovery, with the advice of
// RFC 9700.
func strict(o Options) dialect {
	return dialect{
		scopes:     []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail},
		discoverAt: o.Issuer,
		discovered: func(issuer string) bool { return issuer == o.Issuer }, // Discovery §4.3: exactly
		issuedBy:   func(iss string) bool { return iss == o.Issuer },       // exactly: case and a final slash count
		audience: func(aud []string) bool { // Core §3.1.3.7 (3): this client, and audiences that the operator trusts
			return !slices.ContainsFunc(aud, func(a string) bool {
				return a != o.ClientID && !slices.Contains(o.TrustedAudiences, a)
			})
		},
		id:       claims.text,
		subNames: []string{"sub"},
		wanted:   o.wanted(), needed: o.needed(),
		vouches: email.assured, vouching: []string{emailVerified}, isTrue: isTrue,
	}
}

// vendorNeeds sets p.needed for a vendor that sends no groups and organizations by
// default: they are needed only if the configuration names claims for them. It returns
// the claims that are wanted for that reason.
func (p *dialect) vendorNeeds(o Options) []string {
	o.Needs.Groups = o.Needs.Groups && o.Claims.Groups != ""
	o.Needs.Orgs = o.Needs.Orgs && (o.Claims.OrgID != "" || o.Claims.Orgs != "")
	p.needed = o.needed()
	return slices.Concat(o.Claims.configured(), p.needed)
}

// scopesFor returns the scopes to request: openid first, where that is known, and none twice.
func (p dialect) scopesFor(configured []string) []string {
	if len(configured) == 0 {
		configured = p.scopes
	}
	var out []string
	if !p.plainOAuth {
		out = append(out, oidc.ScopeOpenID)
	}
	for _, s := range slices.Concat(configured, p.alsoScopes) {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// sub returns the claim sub, which is a text of 1 to 255 bytes (OIDC Core §2).
func (p dialect) sub(c claims) (string, bool) {
	for _, name := range p.subNames {
		if c.has(name) {
			sub, ok := p.id(c, name)
			return sub, ok && printable(sub, maxSubject)
		}
	}
	return "", false
}

// person returns what becomes Identity.Subject.
func (p dialect) person(c claims) (string, bool) {
	if p.subject == nil {
		return p.sub(c)
	}
	subject, ok := p.subject(c)
	return subject, ok && printable(subject, maxSubject)
}

// assured reports whether email_verified says that the address is verified. It speaks
// of the claim email (OIDC Core §5.1), so an address from another claim must be equal to
// that one. The first source that has this address and email_verified decides: an
// email_verified says nothing about the address of another source.
func (e email) assured() bool {
	for _, c := range e.sources {
		if vouched, _ := c.text("email"); vouched == e.raw && c.mentions(emailVerified) {
			return e.isTrue(c[emailVerified])
		}
	}
	return false
}

// isTrue reports whether raw is JSON's true. The text "true" is not.
func isTrue(raw json.RawMessage) bool { return string(raw) == "true" }
