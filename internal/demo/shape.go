package demo

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// The shapes of a provider: the standard one of the demo, and those of vendors
// and partners, as strict as the real ones are.
const (
	Standard  = ""
	Google    = "google"
	Microsoft = "microsoft"
	PagerDuty = "pagerduty"
	Slack     = "slack"
	Partner   = "partner" // a partner without discovery
	Perscom   = "perscom" // PERSCOM
)

// shape is what one kind of provider does otherwise than the standard one. Nil
// and zero mean: as the standard has it.
type shape struct {
	scopes       []string // that it knows
	refusesScope bool     // those it does not know, instead of passing over them
	ignoresNonce bool     // does not know the parameter, so it is neither demanded nor echoed
	ignoresPKCE  bool     // likewise
	lacks        []string // endpoints that are not there, by path
	bodyOnly     bool     // credentials come in the body and nowhere else
	rawBasic     bool     // credentials come in Basic and nowhere else, without form encoding
	logoutByPost bool     // end_session is not to be opened as a page
	refusesPKCE  bool     // knows the parameter, and this client did not opt into it
	namesIssuer  bool     // in answers through the browser, RFC 9207
	codeLife     time.Duration
	accessPrefix string // of its access tokens
	otherPrefix  string // of its refresh tokens

	below    string                                                          // of all endpoints: "", or "/{tenant}"
	document func(p *Provider, tenant string) map[string]any                 // of discovery
	admits   func(tenant string, person Person) bool                         // may somebody sign in there?
	keys     func(p *Provider) any                                           // the key set
	answer   func(g grant, tokens map[string]any)                            // bends the answer of the token endpoint
	fails    func(e *oauthError) (status int, body any)                      // how the token endpoint and userinfo say no
	open     map[string]func(p *Provider) any                                // what else everybody may read, by path
	more     map[string]func(p *Provider, g grant) (any, error)              // what else an access token opens, by path
	claims   func(p *Provider, person Person, scope []string) map[string]any // about a person
	info     func(who Person, claims map[string]any)                         // bends what userinfo says
	sign     func(p *Provider, claims map[string]any) (string, error)        // an ID token
	idToken  func(p *Provider, g grant, claims map[string]any)               // bends the ID token's claims
}

func newShape(o ProviderOptions) (shape, error) {
	s := shape{
		namesIssuer:  true,
		codeLife:     codeLife,
		scopes:       []string{"openid", "email", "profile", "groups", "org"},
		accessPrefix: "demo-at-", otherPrefix: "demo-rt-", // recognisable, so that tests can look for leaks
		document: func(p *Provider, _ string) map[string]any { return p.document() },
		admits:   func(string, Person) bool { return true },
		keys:     func(p *Provider) any { return p.PublicJWKS() },
		info:     func(Person, map[string]any) {},
		fails: func(e *oauthError) (int, any) {
			return e.status, map[string]string{"error": e.code, "error_description": e.text}
		},
		sign:    func(p *Provider, claims map[string]any) (string, error) { return p.Sign(nil, claims) },
		answer:  func(grant, map[string]any) {},
		claims:  func(_ *Provider, who Person, scope []string) map[string]any { return who.claims(scope) },
		idToken: func(*Provider, grant, map[string]any) {},
	}
	switch o.Shape {
	case Standard:
	case Google:
		s.google()
	case Microsoft:
		s.microsoft(o.Issuer)
	case PagerDuty:
		s.pagerduty()
	case Slack:
		s.slack()
	case Partner:
		s.partner()
	case Perscom:
		s.perscom()
	default:
		return s, fmt.Errorf("there is no shape %q", o.Shape)
	}
	return s, nil
}

// granted are the scopes that count of those asked for.
func (s shape) granted(asked []string) ([]string, error) {
	var known []string
	for _, scope := range asked {
		switch {
		case slices.Contains(s.scopes, scope):
			known = append(known, scope)
		case s.refusesScope:
			return nil, &clientError{"invalid_scope", "a scope is not known here"}
		}
	}
	return known, nil
}

// upperID is an id as PagerDuty and Slack give them.
func upperID(letter, of string, length int) string {
	sum := sha256.Sum256([]byte(of))
	return letter + base32.StdEncoding.EncodeToString(sum[:])[:length-1]
}

// employer is the organization somebody is of; vendors that know nobody without
// one give a person one of their own.
func (p Person) employer() (key, name string) {
	if p.OrgID == "" {
		return p.Key, p.Name
	}
	return p.OrgID, p.OrgName
}

// subdomain is how an organization is called in addresses.
func (p Person) subdomain() string {
	key, _ := p.employer()
	return key + "-demo"
}

// numericID is a long number as a string, always the same for the same name.
func numericID(of string) string {
	sum := sha256.Sum256([]byte(of))
	return "1" + fmt.Sprintf("%020d", binary.BigEndian.Uint64(sum[:]))
}
