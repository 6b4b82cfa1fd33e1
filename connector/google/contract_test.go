package google_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/google"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	subject = "110169484474386276334"
	address = "mira@example.com"
)

func TestTheContractOfConnectors(t *testing.T) {
	granttest.TestConnector(t, granttest.ThirdParty{
		New: func(t *testing.T, base string, client *oauth.Client) grant.Connector {
			t.Helper()
			c, err := google.New(connector.Client{ID: "calendar", ClientID: "me", ClientSecret: granttest.ClientSecret,
				Base: base, OAuth: client})
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
		Token: "/token", Revocation: "/revoke", Answer: answer, Shared: true,
		Account: grant.Account{ID: subject, Name: address},
		Codes: map[string]grant.Class{
			"admin_policy_enforced": grant.AdminTheir, "access_not_configured": grant.AdminTheir,
			"deleted_client": grant.Ours, "disabled_client": grant.Ours, "org_internal": grant.Ours,
			"unauthorized_client": grant.Ours, "redirect_uri_mismatch": grant.Ours,
			"internal_failure": grant.Later, "invalid_scope": grant.Ours,
		},
	})
}

// answer is how Google answers: with an ID token, its own spelling of scopes, and no new
// refresh token after a refresh unless the test wants one.
func answer(i granttest.Issue) map[string]any {
	answer := map[string]any{"access_token": i.Access, "token_type": "Bearer"}
	if i.Refresh != "" {
		answer["refresh_token"] = i.Refresh
	}
	if i.Scopes != nil {
		answer["scope"] = strings.Join(i.Scopes, " ")
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
	return map[string]any{"iss": "https://accounts.google.com", "aud": clientID, "azp": clientID, "sub": subject,
		"email": address, "email_verified": true, "nonce": nonce,
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
}

// idToken is a JWT as it comes from a token endpoint. Its signature is none, because none is
// checked.
func idToken(claims map[string]any) string {
	payload, _ := json.Marshal(claims)
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"1"}`)) + "." +
		base64.RawURLEncoding.EncodeToString(payload) + "." + base64.RawURLEncoding.EncodeToString([]byte("signature"))
}
