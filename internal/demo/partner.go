package demo

import (
	"slices"
	"time"
)

// partner behaves like the single sign-on of a partner that has only two endpoints, and a
// key that is handed over by hand (docs/providers/oidc.md). It knows neither nonce nor
// PKCE, reads Basic credentials without decoding them, and issues an access token that has
// expired already.
func (k *providerKind) partner() {
	k.scopes = []string{"openid", "email", "name"}
	k.refusesScope = true
	k.without = []string{DiscoveryPath, JWKSPath, UserinfoPath, EndSessionPath}
	k.ignoresNonce, k.ignoresPKCE, k.rawBasic, k.namesIssuer = true, true, true, false
	k.claims = func(_ *Provider, who Person, scope []string) map[string]any {
		c := map[string]any{"sub": who.Key}
		if slices.Contains(scope, "email") {
			c["email"] = who.Email
		}
		if slices.Contains(scope, "name") {
			c["name"] = who.Name
		}
		return c
	}
	k.idToken = func(_ *Provider, _ grant, claims map[string]any) { onlyRequired(claims) }
	k.answer = func(_ grant, tokens map[string]any) {
		tokens["expires_in"] = -int(time.Hour.Seconds())
		delete(tokens, "refresh_token")
		delete(tokens, "scope")
	}
}

// onlyRequired removes the claims that an ID token need not have.
func onlyRequired(claims map[string]any) {
	for _, name := range []string{"nonce", "at_hash", "auth_time", "sid"} {
		delete(claims, name)
	}
}
