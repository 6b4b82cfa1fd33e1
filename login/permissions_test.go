package login

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files")

// The summary for each type, as a document that somebody can read: it changes
// only with what a provider is asked for and with what is read.
func TestPermissionsSayWhatIsAskedReadKeptAndDiscarded(t *testing.T) {
	const a = "https://sso.partner.example/"
	var out strings.Builder
	for _, o := range []Options{
		{Type: TypeGoogle, HostedDomains: []string{"example.com"}},
		{Type: TypeMicrosoft, Tenant: TenantOrganizations},
		{Type: TypePagerDuty},
		{Type: TypeSlack},
		{Type: TypeGitHub, AllowedOrgs: []string{"9919"}},
		{Type: TypeOIDC, Issuer: a, Scopes: []string{"openid", "profile", "email", "groups"},
			Claims: ClaimNames{Orgs: "memberships"}},
		{Type: TypeOIDC, Issuer: a, Scopes: []string{"openid", "tenant"}, IdentityFrom: FromUserinfo,
			Endpoints: Endpoints{AuthorizationURL: a, TokenURL: a, UserinfoURL: a},
			Quirks:    []string{"numeric_sub", "id_as_sub"}},
	} {
		o.ID, o.ClientID, o.ClientSecret, o.RedirectURL = o.Type, "x", "y", callbackURL
		p, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		sum := p.Permissions()
		fmt.Fprintf(&out, "%s (%s)\n", sum.Provider, sum.Type)
		for _, s := range sum.Scopes {
			fmt.Fprintf(&out, "  asks %-10s %s\n", s.Name, s.Opens)
		}
		for _, c := range sum.Claims {
			fmt.Fprintf(&out, "  reads %s (%s): %s, kept: %v\n", c.Name, c.From, c.For, c.Kept)
		}
		for _, d := range sum.Discarded {
			fmt.Fprintf(&out, "  discards %s\n", d)
		}
		for _, q := range sum.Quirks {
			fmt.Fprintf(&out, "  quirk %s: %s\n", q.Name, q.Weakens)
		}
	}
	const golden = "testdata/permissions.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || out.String() != string(want) {
		t.Errorf("%v; -update rewrites %s\n%s", err, golden, out.String())
	}
}
