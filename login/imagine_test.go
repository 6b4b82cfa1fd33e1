package login

import (
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
)

// explain reads claims as a sign-in does.
func TestClaimsAreReadAsASignInReadsThem(t *testing.T) {
	o := Options{ID: "corp", Type: TypeOIDC, Issuer: "https://sso.example.com", ClientID: "a", ClientSecret: "b", RedirectURL: "https://app.example.com/cb",
		Claims: ClaimNames{OrgID: "tenant", Orgs: "memberships"}, EmailDomains: []string{"acme.example"}}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	id, err := p.Imagine(t.Context(), []byte(`{"sub":"1","email":"ann@acme.example","email_verified":true,"groups":["staff"],"tenant":"acme"}`))
	if err != nil || id.ID() != "corp:1" || id.VerifiedEmail() != "ann@acme.example" || id.Org.ID != "corp:acme" || len(id.Groups) != 1 {
		t.Errorf("%+v, %v", id, err)
	}
	if id, err := p.Imagine(t.Context(), []byte(`{"sub":"1","email":"ann@birch.example","email_verified":true}`)); err != nil || id.VerifiedEmail() != "" {
		t.Errorf("an address it may not vouch for: %+v, %v", id, err)
	}
	for _, bad := range []string{``, `[]`, `null`, `{}`, `{"sub":""}`, `{"sub":1}`, `{"sub":"1","sub":"2"}`, `{"sub":"1","memberships":"acme"}`, `{"sub":"1"} x`} {
		if id, err := p.Imagine(t.Context(), []byte(bad)); identity.FailureOf(err) != identity.Rejected || id.ID() != ":" {
			t.Errorf("%q: %+v, %v", bad, id, err)
		}
	}
}
