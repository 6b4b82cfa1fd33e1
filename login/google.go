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

// google is the dialect of Google. It differs from the standard in three things: Google
// has two issuers, an address counts as verified under conditions of its own, and the
// organization is the claim hd.
func google(o Options) dialect {
	p := strict(o)
	// Google's reference: "accounts.google.com is also returned for legacy implementations".
	_, bare, _ := strings.Cut(o.Issuer, "://")
	p.issuedBy = func(iss string) bool { return iss == o.Issuer || iss == bare }
	// Without preferred_username, which Google does not have in userinfo either.
	p.wanted = append(p.vendorNeeds(o), "email", emailVerified, "name")
	p.vouches = googleVouches
	p.orgs = googleOrg
	p.vouching = []string{"email_verified", "hd"}
	p.reads = []Claim{{"hd", "ID token", "the organization: its id, name and domain", true}}
	if len(o.HostedDomains) == 0 {
		return p
	}
	// The parameter only tells Google's page which accounts to show ("*": those of any
	// Workspace). It protects nothing, so the claim is checked below.
	p.authParams = url.Values{"hd": {"*"}}
	if len(o.HostedDomains) == 1 {
		p.authParams = url.Values{"hd": {o.HostedDomains[0]}}
	}
	p.checks = append(p.checks, func(t idToken, _ *metadata) error {
		if _, ok := hostedDomain(t.claims); !ok && namesDomain(t.claims) {
			return fail(identity.Rejected, "ID token: hd cannot be read, and hosted_domains needs it: it is %s",
				t.form("hd"))
		}
		return nil
	})
	p.admits = func(c claims) *excluded {
		hd, ok := hostedDomain(c)
		switch {
		case !ok:
			return &excluded{why: identity.PersonalAccount, words: "no hd, and hosted_domains is set"}
		case !slices.ContainsFunc(o.HostedDomains, func(d string) bool { return strings.EqualFold(d, hd) }):
			return &excluded{identity.OtherOrganization, hd, "hd is not one of hosted_domains"}
		}
		return nil
	}
	return p
}

// namesDomain reports whether there is an hd, in whatever form.
func namesDomain(c claims) bool { return c.mentions("hd") && string(c["hd"]) != `""` }

// hostedDomain returns the Workspace domain of the person's account.
func hostedDomain(c claims) (string, bool) {
	hd, _ := c.text("hd")
	hd = identity.LowerASCII(hd)
	return hd, hostname.IsDomain(hd)
}

// googleVouches reports whether an address counts as verified. Google is authoritative
// for gmail.com and for accounts of a Workspace (docs/providers/google.md). Any other
// address was verified once, when the account was made, and may belong to another person
// by now.
func googleVouches(e email) bool {
	_, hosted := hostedDomain(e.who)
	return e.assured() && (hosted || e.domain == "gmail.com")
}

// googleOrg uses hd as the id, the name and the domain of the organization, because a
// sign-in says nothing else about it (docs/providers/google.md). Of the name and the domain
// the directory may have said more, to an administrator (directory.go); the id stays.
func googleOrg(r reader) (active identity.Org, all []identity.Org, unknown bool) {
	hd, ok := hostedDomain(r.who)
	if !ok {
		return identity.Org{}, nil, r.unknownOrg("hd", namesDomain(r.who))
	}
	active = identity.Org{ID: r.p.id + ":" + hd, Name: hd, Domain: hd, Source: "claim"}
	if r.p.orgDetails != nil {
		active = r.p.orgDetails(r.ctx, active)
	}
	return active, nil, false
}
