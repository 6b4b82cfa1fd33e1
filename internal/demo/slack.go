package demo

import (
	"net/http"
	"slices"
)

// slack: Sign in with Slack (docs/providers/slack.md). It says no with status 200, and
// the name of a workspace only when userinfo is asked.
func (s *shape) slack() {
	s.scopes = []string{"openid", "email", "profile"}
	s.refusesScope, s.refusesPKCE, s.namesIssuer = true, true, false // §5.1: an app opts into PKCE; this one did not
	s.lacks = []string{EndSessionPath}
	s.accessPrefix, s.otherPrefix = "xoxp-", "xoxe-"
	s.document = func(p *Provider, _ string) map[string]any {
		iss := p.opts.Issuer
		return map[string]any{
			"issuer": iss, "authorization_endpoint": iss + AuthorizePath, "token_endpoint": iss + TokenPath,
			"userinfo_endpoint": iss + UserinfoPath, "jwks_uri": iss + JWKSPath,
			"scopes_supported": s.scopes, "response_types_supported": []string{"code"}, "response_modes_supported": []string{"form_post"},
			"grant_types_supported": []string{"authorization_code"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"RS256"}, "claims_supported": []string{"sub", "auth_time", "iss"},
			"claims_parameter_supported": false, "request_parameter_supported": false, "request_uri_parameter_supported": true,
			"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic"},
		}
	}
	s.claims = func(_ *Provider, who Person, scope []string) map[string]any {
		team, _ := who.employer()
		user := upperID("U", who.Key, 11)
		c := map[string]any{"sub": user, "https://slack.com/user_id": user, "https://slack.com/team_id": upperID("T", team, 11)}
		if slices.Contains(scope, "email") {
			c["email"], c["email_verified"] = who.Email, who.EmailVerified
		}
		if slices.Contains(scope, "profile") {
			c["name"], c["locale"] = who.Name, "en-US"
		}
		return c
	}
	s.info = func(who Person, claims map[string]any) {
		_, name := who.employer()
		claims["ok"] = true
		claims["https://slack.com/team_name"], claims["https://slack.com/team_domain"] = name, who.subdomain()
	}
	s.idToken = func(_ *Provider, _ grant, claims map[string]any) { delete(claims, "sid") }
	s.answer = func(_ grant, tokens map[string]any) {
		tokens["ok"] = true
		for _, absent := range []string{"refresh_token", "expires_in", "scope"} {
			delete(tokens, absent)
		}
	}
	s.fails = slackFails
}

// slackFails: §5.3, status 200 and ok: false, with names of its own.
func slackFails(e *oauthError) (int, any) {
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
