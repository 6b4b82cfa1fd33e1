package oauth2_test

import (
	"slices"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector/oauth2"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/oauth"
)

func TestTheContractOfConnectors(t *testing.T) {
	t.Run("with everything", func(t *testing.T) {
		granttest.TestConnector(t, granttest.ThirdParty{
			New: newConnector(oauth2.Options{ClientSecret: granttest.ClientSecret, Auth: oauth.Basic,
				Revocation: "/revoke",
				Accesses: []grant.Access{{Name: "read", Scopes: []string{"a:read", "b:read"}}, {Name: "write",
					Scopes: []string{"a:write"}}}}),
			Token: "/token", Revocation: "/revoke",
		})
	})
	t.Run("a public client, without scopes and revocation", func(t *testing.T) {
		granttest.TestConnector(t, granttest.ThirdParty{
			New:   newConnector(oauth2.Options{Auth: oauth.None, Accesses: []grant.Access{{Name: "all"}}}),
			Token: "/token",
		})
	})
}

// newConnector completes options whose endpoints are paths and whose accesses have no rules.
func newConnector(o oauth2.Options) func(*testing.T, string, *oauth.Client) grant.Connector {
	return func(t *testing.T, base string, client *oauth.Client) grant.Connector {
		t.Helper()
		rule, err := grant.ParseRule("GET /things/*")
		if err != nil {
			t.Fatal(err)
		}
		o := o
		o.ID, o.Name, o.ClientID, o.OAuth = "things", "Things", "me", client
		o.Authorization, o.Token, o.BaseURL = base+"/authorize", base+"/token", base+"/api"
		if o.Revocation != "" {
			o.Revocation = base + o.Revocation
		}
		o.Accesses = slices.Clone(o.Accesses)
		for i := range o.Accesses {
			o.Accesses[i].Rules = []grant.Rule{rule}
		}
		c, err := oauth2.New(o)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}
