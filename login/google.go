package login

import (
	"net/url"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

// docs/providers/google.md has the sources.
const googleIssuer = "https://accounts.google.com"

// google is strict but for its two names. What is particular is how little an
// address is worth, and that the organization is one claim.
func google(o Options) dialect {
	p := strict(o)
	// Google's reference: "accounts.google.com is also returned for legacy implementations".
	_, bare, _ := strings.Cut(o.Issuer, "://")
	p.issuedBy = func(iss string) bool { return iss == o.Issuer || iss == bare }
	p.wanted = append(p.vendorNeeds(o), "email", emailVerified, "name") // Google has no preferred_username to ask userinfo for
	p.vouches = googleVouches
	p.orgs = googleOrg
	p.vouching = []string{"email_verified", "hd"}
	p.reads = []Claim{{"hd", "ID token", "the organization: its id, name and domain", true}}
	if len(o.HostedDomains) == 0 {
		return p
	}
	// The parameter is a hint for Google's page, "*" for any Workspace
	// account. Only the claim counts.
	p.authParams = url.Values{"hd": {"*"}}
	if len(o.HostedDomains) == 1 {
		p.authParams = url.Values{"hd": {o.HostedDomains[0]}}
	}
	p.checks = append(p.checks, func(t idToken, _ *metadata) error {
		if hd, ok := hostedDomain(t.claims); !ok || !slices.ContainsFunc(o.HostedDomains, func(d string) bool { return strings.EqualFold(d, hd) }) {
			return fail(identity.Rejected, "ID token: hd is not one of hosted_domains")
		}
		return nil
	})
	return p
}

// hostedDomain is the Workspace domain of the person's account.
func hostedDomain(c claims) (string, bool) {
	hd, _ := c.text("hd")
	hd = identity.LowerASCII(hd)
	return hd, hostname.IsDomain(hd)
}

// googleVouches: Google is authoritative for gmail.com and for accounts of a
// Workspace (docs/providers/google.md). Any other address was verified once, when the account was
// made, and may have changed hands since.
func googleVouches(e email) bool {
	_, hosted := hostedDomain(e.who)
	return e.assured() && (hosted || e.domain == "gmail.com")
}

// googleOrg makes hd the id, the name and the domain of the organization, because
// a sign-in tells nothing else about it (docs/providers/google.md).
func googleOrg(r reader) (active identity.Org, all []identity.Org, unknown bool) {
	hd, ok := hostedDomain(r.who)
	if !ok {
		return identity.Org{}, nil, r.unknownOrg("hd", r.who.mentions("hd") && string(r.who["hd"]) != `""`)
	}
	return identity.Org{ID: r.p.id + ":" + hd, Name: hd, Domain: hd, Source: "claim"}, nil, false
}
