package login

import (
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
)

// explain reads claims as a sign-in does.
func TestClaimsAreReadAsASignInReadsThem(t *testing.T) {
	o := Options{ID: "corp", Type: TypeOIDC, Issuer: "https://sso.example.com", ClientID: "a", ClientSecret: "b",
		RedirectURL: "https://app.example.com/cb",
		Claims:      ClaimNames{OrgID: "tenant", Orgs: "memberships"}, EmailDomains: []string{"acme.example"}}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	id, err := p.IdentityFromClaims(t.Context(),
		[]byte(`{"sub":"1","email":"ann@acme.example","email_verified":true,"groups":["staff"],"tenant":"acme"}`))
	if err != nil || id.ID() != "corp:1" || id.VerifiedEmail() != "ann@acme.example" || id.Org.ID != "corp:acme" ||
		len(id.Groups) != 1 {
		t.Errorf("%+v, %v", id, err)
	}
	if id, err := p.IdentityFromClaims(t.Context(),
		[]byte(`{"sub":"1","email":"ann@birch.example","email_verified":true}`)); err != nil ||
		id.VerifiedEmail() != "" {
		t.Errorf("an address it may not vouch for: %+v, %v", id, err)
	}
	for _, bad := range []string{``, `[]`, `null`, `{}`, `{"sub":""}`, `{"sub":1}`, `{"sub":"1","sub":"2"}`,
		`{"sub":"1","memberships":"acme"}`, `{"sub":"1"} x`} {
		if id, err := p.IdentityFromClaims(t.Context(), []byte(bad)); identity.FailureOf(err) != identity.Rejected ||
			id.ID() != ":" {
			t.Errorf("%q: %+v, %v", bad, id, err)
		}
	}
}

// Every type reads claims of its own without what it would be asked for besides.
func TestClaimsOfEveryTypeAreRead(t *testing.T) {
	const object = `{"sub":"1","oid":"3c38aafb-0579-dafe-18bb-584dce2786cc","tid":"822b33ad-87c1-48a0-a20a-5ba7cd5ebcaa","hd":"acme.example",
		"email":"ann@acme.example","email_verified":true,"name":"Ann","https://slack.com/team_id":"T1","https://slack.com/user_id":"U1"}`
	for _, o := range []Options{{Type: TypeOIDC, Issuer: "https://sso.example.com"}, {Type: TypeGoogle},
		{Type: TypeMicrosoft, Tenant: TenantOrganizations}, {Type: TypeSlack}, {Type: TypePagerDuty}} {
		o.ID, o.ClientID, o.ClientSecret, o.RedirectURL = "corp", "a", "b", "https://app.example.com/cb"
		p, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		id, err := p.IdentityFromClaims(t.Context(), []byte(object))
		if o.Type == TypePagerDuty { // its subject is two claims that nobody else has
			if identity.FailureOf(err) != identity.Rejected {
				t.Errorf("%s: %+v, %v", o.Type, id, err)
			}
			continue
		}
		want := map[string]string{TypeOIDC: "", TypeGoogle: "corp:acme.example",
			TypeMicrosoft: "corp:822b33ad-87c1-48a0-a20a-5ba7cd5ebcaa", TypeSlack: "corp:T1"}[o.Type]
		if err != nil || id.Subject == "" || id.Org.ID != want {
			t.Errorf("%s: %+v, %v", o.Type, id, err)
		}
	}
}
