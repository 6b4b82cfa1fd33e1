package demo

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// The kinds of providers: the standard one of the demo, and those that behave like the
// provider of a vendor or partner, and are as strict as that one is.
const (
	Standard  = ""
	Google    = "google"
	Microsoft = "microsoft"
	PagerDuty = "pagerduty"
	Slack     = "slack"
	GitHub    = "github"
	Partner   = "partner" // a partner without discovery
	Perscom   = "perscom" // PERSCOM
)

// providerKind is what one kind of provider does differently from the standard one. Nil and
// zero mean: as the standard one does.
type providerKind struct {
	scopes       []string // the scopes that it knows
	refusesScope bool     // it refuses unknown scopes instead of ignoring them
	ignoresNonce bool     // it does not know nonce, so it neither requires nor returns it
	ignoresPKCE  bool     // it does not know PKCE
	without      []string // the paths of endpoints that it does not have
	bodyOnly     bool     // client credentials are accepted in the body only
	rawBasic     bool     // client credentials are accepted in Basic only, without form encoding
	logoutByPost bool     // end_session accepts POST only
	refusesPKCE  bool     // it knows PKCE, but not for this client, which did not choose it
	namesIssuer  bool     // iss is in authorization responses (RFC 9207)
	codeLife     time.Duration
	accessPrefix string // the first characters of its access tokens
	otherPrefix  string // the first characters of its refresh tokens

	plainOAuth bool   // OAuth 2.0 without OpenID Connect: no openid, nonce or prompt=none
	tokenPath  string // instead of TokenPath
	issuerPath string // what follows the address in iss
	// further adds endpoints of its own.
	further func(p *Provider)

	// prefix is the path before that of each endpoint: "", or "/{tenant}/…".
	prefix string
	// document makes the discovery document.
	document func(p *Provider, tenant string) map[string]any
	// admits reports whether a person may sign in at a tenant.
	admits func(tenant string, person Person) bool
	// keys makes the key set.
	keys func(p *Provider) any
	// answer changes the answer of the token endpoint.
	answer func(g grant, tokens map[string]any)
	// errorBody makes the error that the token endpoint and userinfo answer.
	errorBody func(e *oauthError) (status int, body any)
	// public are further documents that everybody may read, by path.
	public map[string]func(p *Provider) any
	// protected are further documents for which an access token is needed, by path.
	protected map[string]func(p *Provider, g grant) (any, error)
	// claims makes the claims about a person.
	claims func(p *Provider, person Person, scope []string) map[string]any
	// info changes the claims that userinfo answers.
	info func(who Person, claims map[string]any)
	// sign signs an ID token.
	sign func(p *Provider, claims map[string]any) (string, error)
	// idToken changes the claims of an ID token.
	idToken func(p *Provider, g grant, claims map[string]any)
}

func newProviderKind(o ProviderOptions) (providerKind, error) {
	k := providerKind{
		namesIssuer:  true,
		tokenPath:    TokenPath,
		further:      func(*Provider) {},
		codeLife:     codeLife,
		scopes:       []string{"openid", "email", "profile", "groups", "org"},
		accessPrefix: "demo-at-", otherPrefix: "demo-rt-", // recognisable, so that tests find leaked tokens
		document: func(p *Provider, _ string) map[string]any { return p.document() },
		admits:   func(string, Person) bool { return true },
		keys:     func(p *Provider) any { return p.PublicJWKS() },
		info:     func(Person, map[string]any) {},
		errorBody: func(e *oauthError) (int, any) {
			return e.status, map[string]string{"error": e.code, "error_description": e.text}
		},
		sign:    func(p *Provider, claims map[string]any) (string, error) { return p.Sign(nil, claims) },
		answer:  func(grant, map[string]any) {},
		claims:  func(_ *Provider, who Person, scope []string) map[string]any { return who.claims(scope) },
		idToken: func(*Provider, grant, map[string]any) {},
	}
	switch o.Kind {
	case Standard:
	case Google:
		k.google()
	case Microsoft:
		k.microsoft(o.Issuer)
	case PagerDuty:
		k.pagerduty()
	case Slack:
		k.slack()
	case GitHub:
		k.github()
	case Partner:
		k.partner()
	case Perscom:
		k.perscom()
	default:
		return k, fmt.Errorf("there is no kind %q", o.Kind)
	}
	return k, nil
}

// granted returns those of the requested scopes that are granted.
func (k providerKind) granted(asked []string) ([]string, error) {
	var known []string
	for _, scope := range asked {
		switch {
		case slices.Contains(k.scopes, scope):
			known = append(known, scope)
		case k.refusesScope:
			return nil, &clientError{"invalid_scope", "a scope is not known here"}
		}
	}
	return known, nil
}

// upperID makes an id of the form that PagerDuty and Slack use.
func upperID(letter, of string, length int) string {
	sum := sha256.Sum256([]byte(of))
	return letter + base32.StdEncoding.EncodeToString(sum[:])[:length-1]
}

// employer is the person's organization. At vendors where everybody has an organization,
// a person without one gets one of their own.
func (p Person) employer() (key, name string) {
	if p.OrgID == "" {
		return p.Key, p.Name
	}
	return p.OrgID, p.OrgName
}

// subdomain is the name of the person's organization in addresses.
func (p Person) subdomain() string {
	key, _ := p.employer()
	return key + "-demo"
}

// numericID makes a long number as text. It is always the same for the same name.
func numericID(of string) string {
	sum := sha256.Sum256([]byte(of))
	return "1" + fmt.Sprintf("%020d", binary.BigEndian.Uint64(sum[:]))
}
