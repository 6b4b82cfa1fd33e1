package login

import (
	"net/url"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// PagerDuty has two issuers. The addresses are from its documentation, and not from its
// discovery document, because that names another issuer than the one it is published under
// (docs/providers/pagerduty.md).
const (
	pagerdutyIssuer    = "https://identity.pagerduty.com/global/oauth/anonymous"
	pagerdutyOldIssuer = "https://app.pagerduty.com/global/oauth/anonymous"
	pagerdutyAuthorize = "https://identity.pagerduty.com/oauth/authorize"
	pagerdutyToken     = "https://identity.pagerduty.com/oauth/token"
	pagerdutyKeys      = "https://identity.pagerduty.com/global/oauth/anonymous/jwks"
)

// pagerduty is the dialect of PagerDuty. Its ID token names the account and the
// user, but has neither a name nor an address, and its audience is a regional API
// as well as this client.
func pagerduty(o Options) dialect {
	p := strict(o)
	p.scopes = []string{"openid"} // PagerDuty adds it to all tokens, and nothing else is needed
	p.clientAuth = oauth.Post     // as in every example of its documentation; Basic was not tried
	p.issuedBy = func(iss string) bool {
		return iss == o.Issuer || iss == pagerdutyIssuer || iss == pagerdutyOldIssuer
	}
	p.jwksRedirect = func(to string) bool { return sameSite(o.Endpoints.JWKSURL, to, ".pagerduty.com") }
	p.audience = func(aud []string) bool {
		_, known := serviceRegion(aud)
		return known && len(aud) == 2 // the other one is this client
	}
	p.nonceOptional = true // its ID tokens have no nonce; PKCE binds the code to the browser
	p.checks = append(p.checks, func(t idToken, _ *metadata) error { return checkPagerDuty(t, o.ClientID) })
	if o.Endpoints.AuthorizationURL == pagerdutyAuthorize {
		p.redirectOrigins = []string{"https://*.pagerduty.com"} // the host of an account that has its own sign-on
	}
	p.subject = pagerdutySubject
	p.wanted, p.needed = nil, nil // there is no userinfo
	p.orgs = pagerdutyAccount
	p.nameless = true // sub used to be an e-mail address, and must not be used as one
	p.reads = []Claim{
		{"account_id", "ID token", "the person's id, and the organization's", true},
		{"user_id", "ID token", "the person's id", true},
		{"subdomain", "ID token", "the organization's name and domain", true},
		{"aud", "ID token", "the region of the organization's domain", true},
	}
	return p
}

// serviceRegion returns what the region of an account adds to its subdomain. The region is
// that of the one API in aud; the claim region is only a label.
func serviceRegion(aud []string) (suffix string, ok bool) {
	us := slices.Contains(aud, "https://api.pagerduty.com")
	eu := slices.Contains(aud, "https://api.eu.pagerduty.com")
	if eu {
		return ".eu.pagerduty.com", !us
	}
	return ".pagerduty.com", us
}

func checkPagerDuty(t idToken, clientID string) error {
	// Core §3.1.3.7 (4): with several audiences azp says which of them is meant.
	if azp, _ := t.text("azp"); azp != clientID {
		return fail(identity.Rejected, "ID token: azp is missing or another client's")
	}
	// Access tokens are JWTs of the same issuer and keys.
	if purpose, _ := t.text("purpose"); purpose != "id" {
		return fail(identity.Rejected, "ID token: purpose is not id")
	}
	return nil
}

// pagerdutySubject makes the id of a person from account_id and user_id. It does not use
// sub, which used to be an e-mail address and is an id now (docs/providers/pagerduty.md).
func pagerdutySubject(c claims) (string, bool) {
	account, _ := c.text("account_id")
	user, _ := c.text("user_id")
	return account + "/" + user, isWord(account) && isWord(user)
}

// isWord reports whether s has letters and digits only. Two such ids that are joined by a
// slash can be read in one way only.
func isWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !('A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9')
	})
}

// pagerdutyAccount returns the account as the organization. Its subdomain is the name that
// people use for it, and the first part of its host name.
func pagerdutyAccount(r reader) (active identity.Org, all []identity.Org, unknown bool) {
	account, _ := r.who.text("account_id") // as in the subject
	org := identity.Org{ID: r.p.id + ":" + account, Name: r.text("subdomain"), Source: "claim"}
	aud, _ := r.who.audience()
	suffix, _ := serviceRegion(aud)
	if domain := org.Name + suffix; hostname.IsDomain(domain) {
		org.Domain = domain
	}
	return org, nil, false
}

// sameSite reports whether one document may point to another: with the same scheme, on the
// same host or on hosts below the vendor's domain.
func sameSite(from, to, below string) bool {
	a, err := url.Parse(from)
	b, wrong := url.Parse(to)
	if err != nil || wrong != nil || checkEndpoint(from, to) != nil || a.Scheme != b.Scheme {
		return false
	}
	ours := func(u *url.URL) bool { return u.Port() == "" && strings.HasSuffix(u.Hostname(), below) }
	return a.Host == b.Host || ours(a) && ours(b)
}
