package outlook_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/outlook"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	tenant  = "0aa0e6f4-5b1c-4a41-9d5c-6f5d1f7c2b11"
	object  = "7d1a3c52-0b0e-4a6e-8a1d-3f2b9c4d5e6f"
	address = "mira@acme.example"
	issuer  = "https://login.microsoftonline.com/"
)

func TestTheContractOfConnectors(t *testing.T) {
	granttest.TestConnector(t, granttest.ThirdParty{
		New: func(t *testing.T, base string, client *oauth.Client) grant.Connector {
			t.Helper()
			c, err := outlook.New(outlook.Options{Client: connector.Client{ID: "outlook", ClientID: "me",
				ClientSecret: granttest.ClientSecret, Base: base, OAuth: client}, Tenant: "organizations"})
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
		Token: "/organizations/oauth2/v2.0/token", Answer: answer,
		Refuse: func(code string) (int, string) {
			if strings.Trim(code, "0123456789") == "" {
				return http.StatusBadRequest, refusal("invalid_grant", code)
			}
			return http.StatusBadRequest, refusal(code, "")
		},
		Account: grant.Account{ID: tenant + "/" + object, Name: address},
		Unsaid:  []string{"openid", "profile", "email", "offline_access"},
		Codes: map[string]grant.Class{
			"50173": grant.Yours, "50076": grant.Yours, "700082": grant.Yours, "interaction_required": grant.Yours,
			"65001": grant.AdminTheir, "90094": grant.AdminTheir, "53003": grant.AdminTheir,
			"7000215": grant.Ours, "7000222": grant.Ours, "700016": grant.Ours, "invalid_resource": grant.Ours,
			"90033": grant.Later, "temporarily_unavailable": grant.Later,
		},
	})
}

// refusal is how Microsoft refuses: a number, in a list and in front of a text.
func refusal(code, number string) string {
	if number == "" {
		return fmt.Sprintf(`{"error":%q,"error_description":"canary-words-of-the-peer"}`, code)
	}
	return fmt.Sprintf(`{"error":%q,"error_description":"AADSTS%s: canary-words-of-the-peer\r\nTrace ID: 0",`+
		`"error_codes":[%s],"timestamp":"2026-11-29 02:02:12Z","trace_id":"0000aaaa-11bb-cccc-dd33-eeeeee333333",`+
		`"correlation_id":"aaaa0000-bb11-2222-33cc-444444dddddd"}`, code, number, number)
}

// answer is how Microsoft answers: with an ID token each time, and scopes in its own
// spelling.
func answer(i granttest.Issue) map[string]any {
	answer := map[string]any{"access_token": i.Access, "token_type": "Bearer", "ext_expires_in": i.Expires,
		"id_token": idToken(claims(i.ClientID, ""))}
	if i.Refresh != "" {
		answer["refresh_token"] = i.Refresh
	}
	if i.Scopes != nil {
		var said []string
		for _, scope := range i.Scopes {
			if strings.HasPrefix(scope, "Calendars.") {
				scope = "https://graph.microsoft.com/" + scope
			}
			said = append(said, scope)
		}
		answer["scope"] = strings.Join(said, " ")
	}
	if i.Expires != 0 {
		answer["expires_in"] = i.Expires
	}
	if i.First {
		answer["id_token"] = idToken(claims(i.ClientID, i.Handshake.Nonce))
	}
	return answer
}

func claims(clientID, nonce string) map[string]any {
	c := map[string]any{"iss": issuer + tenant + "/v2.0", "aud": clientID, "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
		"tid": tenant, "oid": object, "ver": "2.0", "preferred_username": address, "email": "other@elsewhere.example",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	if nonce != "" {
		c["nonce"] = nonce
	}
	return c
}

// idToken is a JWT as it comes from a token endpoint. Its signature is none, because none is
// checked.
func idToken(claims map[string]any) string {
	payload, _ := json.Marshal(claims)
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"1"}`)) + "." +
		base64.RawURLEncoding.EncodeToString(payload) + "." + base64.RawURLEncoding.EncodeToString([]byte("signature"))
}
