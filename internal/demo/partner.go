package demo

import (
	"slices"
	"time"
)

// partner: a partner's SSO with two endpoints and a key handed over by hand
// (docs/providers/oidc.md). It knows neither nonce nor PKCE, reads Basic
// credentials as they are, and gives out an access token that has expired.
func (s *shape) partner() {
	s.scopes = []string{"openid", "email", "name"}
	s.refusesScope = true
	s.lacks = []string{DiscoveryPath, JWKSPath, UserinfoPath, EndSessionPath}
	s.ignoresNonce, s.ignoresPKCE, s.rawBasic, s.namesIssuer = true, true, true, false
	s.claims = func(_ *Provider, who Person, scope []string) map[string]any {
		c := map[string]any{"sub": who.Key}
		if slices.Contains(scope, "email") {
			c["email"] = who.Email
		}
		if slices.Contains(scope, "name") {
			c["name"] = who.Name
		}
		return c
	}
	s.idToken = func(_ *Provider, _ grant, claims map[string]any) { onlyRequired(claims) }
	s.answer = func(_ grant, tokens map[string]any) {
		tokens["expires_in"] = -int(time.Hour.Seconds())
		delete(tokens, "refresh_token")
		delete(tokens, "scope")
	}
}

// onlyRequired leaves an ID token what every one must have, and nothing more.
func onlyRequired(claims map[string]any) {
	for _, name := range []string{"nonce", "at_hash", "auth_time", "sid"} {
		delete(claims, name)
	}
}
