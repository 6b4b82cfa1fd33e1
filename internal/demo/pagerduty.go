package demo

import (
	"slices"
	"time"
)

// KeysPath is where PagerDuty's key document points to.
const KeysPath = "/keys"

// PagerDuty's own names, which its tokens have wherever it is played.
const (
	pagerdutyIssuer = "https://identity.pagerduty.com/global/oauth/anonymous"
	pagerdutyAPI    = "https://api.pagerduty.com"
	pagerdutyAPIEU  = "https://api.eu.pagerduty.com"
)

// pagerduty: PagerDuty as an OpenID provider (docs/providers/pagerduty.md). Codes
// live for 30 seconds, keys are one pointer away, and an ID token has neither
// nonce nor anything that a person would recognise. Birch Bank's account is in
// the European region.
func (s *shape) pagerduty() {
	s.scopes = []string{"openid"} // §4.1: others are passed over, not refused
	s.lacks = []string{DiscoveryPath, UserinfoPath, EndSessionPath}
	s.ignoresNonce, s.bodyOnly, s.namesIssuer = true, true, false
	s.codeLife = 30 * time.Second
	s.accessPrefix, s.otherPrefix = "pdus+_0XBPWQQ_", "pdus+_1XBPWQQ_"
	s.keys = func(p *Provider) any { return map[string]any{"jwks_uri": p.opts.Issuer + KeysPath} }
	s.open = map[string]func(*Provider) any{KeysPath: func(p *Provider) any { return p.PublicJWKS() }}
	s.sign = func(p *Provider, claims map[string]any) (string, error) {
		return p.Sign(map[string]any{"typ": nil, "x5t": "_cqnMZZPApAtWy2VmuOV8uG9Tso"}, claims)
	}
	s.claims = func(_ *Provider, who Person, _ []string) map[string]any {
		account, _ := who.employer()
		return map[string]any{
			"sub": upperID("P", who.Key, 7), "user_id": upperID("P", who.Key, 7), "account_id": upperID("P", "account "+account, 7),
			"subdomain": who.subdomain(), "region": "UnitedStates", "purpose": "id",
			"acr": "acr:html-form:unitedstates", "amr": "acr:html-form:unitedstates",
			"delegation_id": "6566027d-7707-428f-8752-3ef971b78d1a", "product_abilities": []string{},
		}
	}
	s.idToken = func(p *Provider, g grant, claims map[string]any) {
		api := pagerdutyAPI
		if g.person.OrgID == "birch" {
			api = pagerdutyAPIEU
		}
		delete(claims, "nonce")
		claims["iss"], claims["azp"], claims["aud"] = pagerdutyIssuer, p.opts.ClientID, []string{api, p.opts.ClientID}
		claims["jti"], claims["nbf"], claims["exp"] = random(), claims["iat"], p.opts.Now().Add(time.Hour).Unix()
	}
	s.answer = func(g grant, tokens map[string]any) {
		tokens["token_type"], tokens["expires_in"], tokens["client_info"] = "bearer", 864000, "prefix_legacy_app"
		if !slices.Contains(g.scope, "openid") {
			delete(tokens, "id_token")
		}
	}
}
