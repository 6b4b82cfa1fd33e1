package slack_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/slack"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

func TestTheContractOfConnectors(t *testing.T) {
	granttest.TestConnector(t, granttest.ThirdParty{
		New: func(t *testing.T, base string, client *oauth.Client) grant.Connector {
			t.Helper()
			c, err := slack.New(connector.Client{ID: "slack", ClientID: "me", ClientSecret: granttest.ClientSecret,
				Owner: grant.OwnedByOrg, Base: base, OAuth: client})
			testenv.Check(t, err)
			return c
		},
		Token: "/api/oauth.v2.access", Answer: answer, NoPKCE: true,
		Refuse: func(code string) (int, string) {
			return http.StatusOK, fmt.Sprintf(`{"ok":false,"error":%q,"warning":"canary-words-of-the-peer"}`, code)
		},
		Account: grant.Account{ID: "T9TK3CUKW", Name: "Acme", Chain: "T9TK3CUKW"},
		Codes: map[string]grant.Class{
			"invalid_refresh_token": grant.Yours, "token_revoked": grant.Gone, "account_inactive": grant.Gone,
			"bad_client_secret": grant.Ours, "invalid_client_id": grant.Ours, "ratelimited": grant.Later,
			"team_added_to_org": grant.Later, "cannot_install_an_org_installed_app": grant.AdminTheir,
			"invalid_auth": grant.Later,
		},
	})
}

// answer is how Slack answers: with the installation, and the person who did it.
func answer(i granttest.Issue) map[string]any {
	a := map[string]any{"ok": true, "app_id": "A0KRD7HC3", "access_token": i.Access, "token_type": "bot",
		"bot_user_id": "U0KRQLJ9H", "team": map[string]any{"id": "T9TK3CUKW", "name": "Acme"}, "enterprise": nil,
		"is_enterprise_install": false, "authed_user": map[string]any{"id": "U1234"}}
	if i.Refresh != "" {
		a["refresh_token"] = i.Refresh
	}
	if i.Scopes != nil {
		a["scope"] = strings.Join(i.Scopes, ",")
	}
	if i.Expires != 0 {
		a["expires_in"] = i.Expires
	}
	return a
}
