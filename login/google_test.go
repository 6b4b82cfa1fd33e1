package login

import (
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

func TestP07_Google(t *testing.T) {
	w := worldOfKind(t, demo.Google)
	base := func(o *Options) { o.Type, o.Scopes = TypeGoogle, nil }
	mira := identity.Identity{
		Provider: "corp", Subject: "104339406236076858110", Name: "Mira Okafor", Email: "mira@acme.example",
		EmailVerified: true,
		Org: identity.Org{ID: "corp:acme.example", Name: "acme.example", Domain: "acme.example",
			Source: "claim"},
	}
	alone := changed(mira, func(id *identity.Identity) { id.Org = identity.Org{} })
	orgUnknown := func(id *identity.Identity) { id.EmailVerified, id.OrgUnknown = false, true }
	unverified := func(id *identity.Identity) { id.EmailVerified = false }
	only := func(domains ...string) func(*Options) { return func(o *Options) { o.HostedDomains = domains } }
	with, without := testenv.With, testenv.Without
	bare := strings.TrimPrefix(w.op.URL, "http://")

	runFacts(t, w, base, []fact{
		{name: "hd is the organization", want: mira},
		{name: "iss without a scheme is the same provider", faults: tokenClaims(with("iss", bare)), want: mira},
		{name: "iss with another scheme", faults: tokenClaims(with("iss", "https://"+bare)), refuse: identity.Rejected},
		{name: "iss of another", faults: tokenClaims(with("iss", "accounts.google.com.evil.example")),
			refuse: identity.Rejected},
		{name: "hd in capitals is the same domain", faults: tokenClaims(with("hd", "ACME.example")), want: mira},
		{name: "no hd, no organization, and an address that may have changed hands", faults: tokenClaims(without("hd")),
			want: changed(alone, unverified)},
		{name: "gmail.com is Google's own",
			faults: tokenClaims(func(c map[string]any) { delete(c, "hd"); c["email"] = "mira@gmail.com" }),
			want:   changed(alone, func(id *identity.Identity) { id.Email = "mira@gmail.com" })},
		{name: "a name that only ends like gmail.com",
			faults: tokenClaims(func(c map[string]any) { delete(c, "hd"); c["email"] = "mira@evilgmail.com" }),
			want: changed(alone, func(id *identity.Identity) {
				id.Email, id.EmailVerified = "mira@evilgmail.com",
					false
			})},
		{name: "gmail.com, not verified",
			faults: tokenClaims(func(c map[string]any) {
				delete(c, "hd")
				c["email"],
					c["email_verified"] = "mira@gmail.com", false
			}),
			want: changed(alone, func(id *identity.Identity) { id.Email, id.EmailVerified = "mira@gmail.com", false })},
		{name: "hd and not verified", faults: tokenClaims(with("email_verified", false)),
			want: changed(mira, unverified)},
		{name: "an empty hd is none", faults: tokenClaims(with("hd", "")), want: changed(alone, unverified)},
		{name: "hd that is no domain", faults: tokenClaims(with("hd", "acme.example/../x")),
			want: changed(alone, orgUnknown)},
		{name: "hd a list", faults: tokenClaims(with("hd", []string{"acme.example"})),
			want: changed(alone, orgUnknown)},
		{name: "hosted_domains admits its own", edit: only("acme.example", "birch.example"), want: mira},
		{name: "hosted_domains, hd in capitals", edit: only("acme.example"),
			faults: tokenClaims(with("hd", "Acme.Example")), want: mira},
		{name: "hosted_domains refuses another Workspace", edit: only("acme.example"), who: "tomoko",
			refuse: identity.NotAdmitted},
		{name: "hosted_domains refuses a consumer account on an address of the domain", edit: only("acme.example"),
			faults: tokenClaims(without("hd")), refuse: identity.NotAdmitted},
		{name: "hosted_domains refuses what only ends alike", edit: only("acme.example"),
			faults: tokenClaims(with("hd", "evilacme.example")), refuse: identity.NotAdmitted},
		{name: "hosted_domains refuses a domain below", edit: only("acme.example"),
			faults: tokenClaims(with("hd", "x.acme.example")), refuse: identity.NotAdmitted},
		{name: "hosted_domains, and an empty hd", edit: only("acme.example"), faults: tokenClaims(with("hd", "")),
			refuse: identity.NotAdmitted, says: "no hd"},
		{name: "hosted_domains, and an hd that is no domain", edit: only("acme.example"),
			faults: tokenClaims(with("hd", "acme.example/../x")), refuse: identity.Rejected, says: "hd cannot be read"},
		{name: "hosted_domains, and an hd that is a list", edit: only("acme.example"),
			faults: tokenClaims(with("hd", []string{"acme.example"})), refuse: identity.Rejected,
			says: "hd cannot be read"},
		{name: "hosted_domains never excuses a token of another sign-in", edit: only("acme.example"), who: "tomoko",
			faults: tokenClaims(with("nonce", "another")), refuse: identity.Rejected, says: "nonce"},
		{name: "email_domains still bounds what counts",
			edit: func(o *Options) { o.EmailDomains = []string{"birch.example"} }, want: changed(mira, unverified)},
		{name: "an organization that the operator names", edit: func(o *Options) { o.Claims.OrgID = "sub" },
			want: changed(mira, func(id *identity.Identity) {
				id.Org = identity.Org{ID: "corp:" + id.Subject,
					Source: "claim"}
			})},
		{name: "the hd of userinfo is no token's", edit: func(o *Options) { o.IdentityFrom = FromUserinfo },
			faults: append(tokenClaims(without("hd")),
				testenv.Fault{Endpoint: testenv.Userinfo, JSON: with("hd", "evil.example")}),
			want: changed(alone, unverified)},
		{name: "no nonce", faults: tokenClaims(without("nonce")), refuse: identity.Rejected},
		{name: "HS256 with the public key",
			faults: []testenv.Fault{{Endpoint: testenv.Token, Resign: testenv.SignedWithPublicKey}},
			refuse: identity.Rejected},
	})
	w.use(base)
	w.op.Set()
	before := w.op.Hits(testenv.Userinfo)
	if _, err := w.signIn("mira", identity.AuthParams{}); err != nil || w.op.Hits(testenv.Userinfo) != before {
		t.Errorf("%v; or userinfo was asked for what Google does not have", err)
	}
}

// The parameter hd is a hint to Google's page and proves nothing
// (docs/providers/google.md).
func TestGoogleIsToldWhichDomainToOffer(t *testing.T) {
	w := worldOfKind(t, demo.Google)
	for _, row := range []struct {
		domains []string
		want    string
	}{{nil, ""}, {[]string{"acme.example"}, "acme.example"}, {[]string{"acme.example", "birch.example"}, "*"}} {
		w.use(func(o *Options) { o.Type, o.Scopes, o.HostedDomains = TypeGoogle, nil, row.domains })
		q := w.authQuery(identity.AuthParams{})
		if q.Get("hd") != row.want || q.Has("hd") != (row.want != "") || q.Get("scope") != "openid profile email" {
			t.Errorf("%v: %v", row.domains, q)
		}
	}
}

func TestGoogleNeedsNoIssuer(t *testing.T) {
	p, err := New(Options{ID: "google", Type: TypeGoogle, ClientID: "x", ClientSecret: "y", RedirectURL: callbackURL})
	if err != nil || p.AuthOrigins()[0] != "https://accounts.google.com" ||
		!p.dialect.issuedBy("accounts.google.com") || p.dialect.issuedBy("http://accounts.google.com") {
		t.Errorf("%v, %+v", err, p)
	}
}
