package demo

import (
	"slices"
	"time"
)

// KeysPath is the path of the key set that PagerDuty's key document points to.
const KeysPath = "/keys"

// Names of PagerDuty itself. They are in the tokens, although the demo's address differs.
const (
	pagerdutyIssuer = "https://identity.pagerduty.com/global/oauth/anonymous"
	pagerdutyAPI    = "https://api.pagerduty.com"
	pagerdutyAPIEU  = "https://api.eu.pagerduty.com"
)

// pagerduty behaves like PagerDuty as an OpenID provider (docs/providers/pagerduty.md).
// Codes are valid for 30 seconds, the key document points to another one that has the
// keys, and an ID token has neither a nonce nor a person's name or address. The account of
// Birch Bank is in the European region.
func (k *providerKind) pagerduty() {
	k.scopes = []string{"openid"} // others are ignored, not refused
	k.without = []string{DiscoveryPath, UserinfoPath, EndSessionPath}
	k.ignoresNonce, k.bodyOnly, k.namesIssuer = true, true, false
	k.codeLife = 30 * time.Second
	k.accessPrefix, k.otherPrefix = "pdus+_0XBPWQQ_", "pdus+_1XBPWQQ_"
	k.keys = func(p *Provider) any { return map[string]any{"jwks_uri": p.opts.Issuer + KeysPath} }
	k.public = map[string]func(*Provider) any{KeysPath: func(p *Provider) any { return p.PublicJWKS() }}
	k.sign = func(p *Provider, claims map[string]any) (string, error) {
		return p.Sign(map[string]any{"typ": nil, "x5t": "_cqnMZZPApAtWy2VmuOV8uG9Tso"}, claims)
	}
	k.claims = func(_ *Provider, who Person, _ []string) map[string]any {
		account, _ := who.employer()
		return map[string]any{
			"sub": upperID("P", who.Key, 7), "user_id": upperID("P", who.Key, 7),
			"account_id": upperID("P", "account "+account, 7),
			"subdomain":  who.subdomain(), "region": "UnitedStates", "purpose": "id",
			"acr": "acr:html-form:unitedstates", "amr": "acr:html-form:unitedstates",
			"delegation_id": "6566027d-7707-428f-8752-3ef971b78d1a", "product_abilities": []string{},
		}
	}
	k.idToken = func(p *Provider, g grant, claims map[string]any) {
		api := pagerdutyAPI
		if g.person.OrgID == "birch" {
			api = pagerdutyAPIEU
		}
		delete(claims, "nonce")
		claims["iss"], claims["azp"], claims["aud"] = pagerdutyIssuer, p.opts.ClientID, []string{api, p.opts.ClientID}
		claims["jti"], claims["nbf"], claims["exp"] = random(), claims["iat"], p.opts.Now().Add(time.Hour).Unix()
	}
	k.answer = func(g grant, tokens map[string]any) {
		tokens["token_type"], tokens["expires_in"], tokens["client_info"] = "bearer", 864000, "prefix_legacy_app"
		if !slices.Contains(g.scope, "openid") {
			delete(tokens, "id_token")
		}
	}
}
