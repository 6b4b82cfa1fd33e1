package pagerdutykey_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector/pagerdutykey"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/oauth"
)

func TestTheContractOfConnectors(t *testing.T) {
	for name, tt := range map[string]struct {
		user    http.HandlerFunc
		account grant.Account
	}{
		"a user's key": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"user":{"id":"PIYKDBN","name":"Mira","email":"mira@acme.example"}}`)
		}, grant.Account{ID: "PIYKDBN", Name: "mira@acme.example"}},
		"an account's key": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"The current user cannot be resolved with an account-level access token."}`)
		}, grant.Account{Name: "an account's key"}},
	} {
		t.Run(name, func(t *testing.T) {
			api := http.NewServeMux()
			api.HandleFunc("GET /users/me", tt.user)
			api.HandleFunc("GET /abilities", func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, `{"abilities":[]}`)
			})
			granttest.TestConnector(t, granttest.ThirdParty{
				New: func(t *testing.T, base string, client *oauth.Client) grant.Connector {
					t.Helper()
					c, err := pagerdutykey.New(pagerdutykey.Options{ID: "oncall", Base: base, OAuth: client})
					if err != nil {
						t.Fatal(err)
					}
					return c
				},
				Key: "y_NbAkKc66ryYTWUXYEu", Probes: 2, Account: tt.account, Further: api,
			})
		})
	}
}
