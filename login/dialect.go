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

// dialect is what one provider is held to, and the only place that knows.
// strict is the standard; what a vendor does otherwise is in the vendor's file,
// each with the fact it rests on. The story of a sign-in is told once, in
// login.go, idtoken.go and claims.go, and asks here. Zero values are strict.
type dialect struct {
	// What is asked for.
	scopes          []string   // where the configuration names none
	alsoScopes      []string   // whatever the configuration names
	authParams      url.Values // ride along with the authorization request
	noPKCE          bool
	redirectOrigins []string // origins to which the authorization endpoint redirects browsers

	// Where the provider is.
	discoverAt string                   // the discovery document is below this address
	discovered func(issuer string) bool // may the document name this issuer?
	clientAuth oauth.ClientAuth         // where the configuration names none; "": as discovery says

	logoutByPost bool // end_session wants a form, not a visit

	// What is checked. issuedBy judges the iss of callbacks and of ID tokens;
	// checks come after those of the standard.
	userinfoAlone bool                 // then userinfo alone says who it is
	secretSigns   bool                 // ID tokens are HS256 with the client secret
	jwksRedirect  func(to string) bool // may the key document point there? nil: it holds the keys
	issuedBy      func(iss string) bool
	anyIssuer     bool // in ID tokens, where keys and channel are this provider's alone
	audience      func(aud []string) bool
	nonceOptional bool // checked where it is
	checks        []func(t idToken, m *metadata) error

	// Who it is. id reads a claim that is an id; the first of subNames that is
	// there is OIDC's sub; subject makes Identity.Subject of the same claims.
	// vouches decides whether an address counts as verified.
	id              func(c claims, name string) (string, bool)
	subNames        []string
	subject         func(c claims) (string, bool)                                                                     // nil: it is sub
	wanted          []string                                                                                          // claims whose absence makes auto ask userinfo
	needed          []string                                                                                          // those of them without which nobody is signed in if userinfo fails
	lookup          func(ctx context.Context, client *oauth.Client, accessToken string, token claims) (claims, error) // instead of userinfo
	tokenOnlyClaims func(token claims) claims                                                                         // what an access token tells where there is a lookup
	vouches         func(e email) bool
	vouching        []string                                                               // the claims that vouches looks at
	isTrue          func(raw json.RawMessage) bool                                         // of email_verified
	orgs            func(r reader) (active identity.Org, all []identity.Org, unknown bool) // nil: as the claims say that the configuration names
	nameless        bool                                                                   // it has neither names nor addresses, and none is read
	reads           []Claim                                                                // what Permissions tells beside the claims that every provider has
}

// idToken is an ID token whose signature is good, while it is being checked.
type idToken struct {
	claims
	alg, keyIssuer string
}

// email is an address as a provider tells it, and where it says so.
type email struct {
	who         claims   // those that were checked
	sources     []claims // all there are
	raw, domain string
	isTrue      func(raw json.RawMessage) bool
}

// newDialect is the one place where the type of a provider is looked at.
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
	default:
		p = strict(o)
		for _, q := range o.allowed() {
			q.change(&p)
		}
	}
	if o.Claims.OrgID != "" || o.Claims.Orgs != "" {
		p.orgs = nil // what the operator names goes before what the vendor has
	}
	return p
}

// strict holds a provider to OpenID Connect Core and Discovery, and to what
// RFC 9700 made of them.
func strict(o Options) dialect {
	return dialect{
		scopes:     []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail},
		discoverAt: o.Issuer,
		discovered: func(issuer string) bool { return issuer == o.Issuer }, // Discovery §4.3: exactly
		issuedBy:   func(iss string) bool { return iss == o.Issuer },       // no folding, no slash forgiven
		audience: func(aud []string) bool { // Core §3.1.3.7 (3): us, and nobody whom the operator does not trust
			return !slices.ContainsFunc(aud, func(a string) bool { return a != o.ClientID && !slices.Contains(o.TrustedAudiences, a) })
		},
		id:       claims.text,
		subNames: []string{"sub"},
		wanted:   o.wanted(), needed: o.needed(),
		vouches: email.assured, vouching: []string{emailVerified}, isTrue: isTrue,
	}
}

// vendorNeeds settles what is needed of a vendor that has no claims for groups
// and organizations of its own accord: those that the configuration names.
func (p *dialect) vendorNeeds(o Options) []string {
	o.Needs.Groups = o.Needs.Groups && o.Claims.Groups != ""
	o.Needs.Orgs = o.Needs.Orgs && (o.Claims.OrgID != "" || o.Claims.Orgs != "")
	p.needed = o.needed()
	return slices.Concat(o.Claims.configured(), p.needed)
}

// scopesFor is what to ask for: openid first, nothing twice.
func (p dialect) scopesFor(configured []string) []string {
	if len(configured) == 0 {
		configured = p.scopes
	}
	out := []string{oidc.ScopeOpenID}
	for _, s := range slices.Concat(configured, p.alsoScopes) {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// sub: Core §2, a text of 1 to 255 bytes.
func (p dialect) sub(c claims) (string, bool) {
	for _, name := range p.subNames {
		if c.has(name) {
			sub, ok := p.id(c, name)
			return sub, ok && printable(sub, maxSubject)
		}
	}
	return "", false
}

// person is what Identity.Subject becomes.
func (p dialect) person(c claims) (string, bool) {
	if p.subject == nil {
		return p.sub(c)
	}
	subject, ok := p.subject(c)
	return subject, ok && printable(subject, maxSubject)
}

// assured: email_verified is about the claim email (Core §5.1), and about
// another claim only where that says the same. The first source that says
// something about this address decides; one must not vouch for another's.
func (e email) assured() bool {
	for _, c := range e.sources {
		if vouched, _ := c.text("email"); vouched == e.raw && c.mentions(emailVerified) {
			return e.isTrue(c[emailVerified])
		}
	}
	return false
}

// isTrue is JSON's true and nothing that looks like it.
func isTrue(raw json.RawMessage) bool { return string(raw) == "true" }
