package demo

import (
	"net/http"
	"slices"
)

// slack behaves like Sign in with Slack (docs/providers/slack.md). It answers errors with
// status 200, and names the workspace in userinfo only.
func (k *providerKind) slack() {
	k.scopes = []string{"openid", "email", "profile"}
	// An app at Slack can choose PKCE; this one has not.
	k.refusesScope, k.refusesPKCE, k.namesIssuer = true, true, false
	k.without = []string{EndSessionPath}
	k.accessPrefix, k.otherPrefix = "xoxp-", "xoxe-"
	k.document = func(p *Provider, _ string) map[string]any {
		iss := p.opts.Issuer
		return map[string]any{
			"issuer": iss, "authorization_endpoint": iss + AuthorizePath, "token_endpoint": iss + TokenPath,
			"userinfo_endpoint": iss + UserinfoPath, "jwks_uri": iss + JWKSPath,
			"scopes_supported": k.scopes, "response_types_supported": []string{"code"},
			"response_modes_supported": []string{"form_post"},
			"grant_types_supported":    []string{"authorization_code"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"RS256"},
			"claims_supported":                      []string{"sub", "auth_time", "iss"},
			"claims_parameter_supported":            false, "request_parameter_supported": false,
			"request_uri_parameter_supported":       true,
			"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic"},
		}
	}
	k.claims = func(_ *Provider, who Person, scope []string) map[string]any {
		team, _ := who.employer()
		user := upperID("U", who.Key, 11)
		c := map[string]any{
			"sub": user, "https://slack.com/user_id": user, "https://slack.com/team_id": upperID("T", team, 11),
		}
		if slices.Contains(scope, "email") {
			c["email"], c["email_verified"] = who.Email, who.EmailVerified
		}
		if slices.Contains(scope, "profile") {
			c["name"], c["locale"] = who.Name, "en-US"
		}
		return c
	}
	k.info = func(who Person, claims map[string]any) {
		_, name := who.employer()
		claims["ok"] = true
		claims["https://slack.com/team_name"], claims["https://slack.com/team_domain"] = name, who.subdomain()
	}
	k.idToken = func(_ *Provider, _ grant, claims map[string]any) { delete(claims, "sid") }
	k.answer = func(_ grant, tokens map[string]any) {
		tokens["ok"] = true
		for _, absent := range []string{"refresh_token", "expires_in", "scope"} {
			delete(tokens, absent)
		}
	}
	k.errorBody = slackError
}

// slackError makes an error as Slack sends it: with status 200, ok: false and error codes of
// its own.
func slackError(e *oauthError) (int, any) {
	code := e.code
	switch code {
	case "invalid_grant":
		code = "invalid_code"
	case "invalid_client":
		code = "bad_client_secret"
	case "invalid_token":
		code = "invalid_auth"
	}
	return http.StatusOK, map[string]any{"ok": false, "error": code}
}
