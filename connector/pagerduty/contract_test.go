package pagerduty_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/pagerduty"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

func TestTheContractOfConnectors(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	testenv.Check(t, err)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: private, KeyID: "1"}},
		nil)
	testenv.Check(t, err)
	api := http.NewServeMux()
	api.HandleFunc("GET /global/oauth/anonymous/jwks", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &private.PublicKey, KeyID: "1"}}})
	})
	api.HandleFunc("GET /users/me", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"user":{"id":"PIYKDBN","email":"mira@acme.example"}}`)
	})
	idToken := func(i granttest.Issue) string {
		claims, err := json.Marshal(map[string]any{"iss": "https://app.pagerduty.com/global/oauth/anonymous",
			"aud": []string{"https://api.pagerduty.com", i.ClientID}, "azp": i.ClientID, "purpose": "id", "sub": "PIYKDBN",
			"account_id": "PE6RLQ4", "user_id": "PIYKDBN", "amr": "acr:html-form:unitedstates",
			"exp": time.Now().Add(time.Hour).Unix()})
		testenv.Check(t, err)
		jws, err := signer.Sign(claims)
		testenv.Check(t, err)
		token, err := jws.CompactSerialize()
		testenv.Check(t, err)
		return token
	}
	for _, kind := range []string{pagerduty.Classic, pagerduty.Scoped} {
		t.Run(kind, func(t *testing.T) {
			third := granttest.ThirdParty{
				New: func(t *testing.T, base string, client *oauth.Client) grant.Connector {
					t.Helper()
					c, err := pagerduty.New(pagerduty.Options{Client: connector.Client{ID: "oncall", ClientID: "me",
						ClientSecret: granttest.ClientSecret, Base: base, OAuth: client}, Scopes: kind})
					testenv.Check(t, err)
					return c
				},
				Token: "/oauth/token", Further: api, NoWider: true,
				Answer: func(i granttest.Issue) map[string]any {
					answer := map[string]any{"client_info": "prefix_legacy_app", "token_type": "bearer",
						"access_token": i.Access}
					if i.Refresh != "" {
						answer["refresh_token"] = i.Refresh
					}
					if i.Scopes != nil {
						answer["scope"] = strings.Join(append([]string{"openid"}, i.Scopes...), " ")
					}
					if i.Expires != 0 {
						answer["expires_in"] = i.Expires
					}
					if i.First {
						answer["id_token"] = idToken(i)
					}
					return answer
				},
				Account: grant.Account{ID: "PE6RLQ4/PIYKDBN", Name: "mira@acme.example", Region: "us"},
				Codes: map[string]grant.Class{"invalid_grant": grant.Yours, "invalid_client": grant.Ours,
					"invalid_scope": grant.Ours, "server_error": grant.Later},
			}
			if kind == pagerduty.Classic {
				third.Covered = []string{"read"}
			}
			granttest.TestConnector(t, third)
		})
	}
}
