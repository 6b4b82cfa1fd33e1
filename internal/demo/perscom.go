package demo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
)

// perscom behaves like a Laravel application that is an OpenID provider
// (deschutesdesigngroupllc/perscom-app; docs/providers/oidc.md). Its discovery document
// names localhost, and no keys, because ID tokens are signed with the client secret. Ids
// are numbers, and a sign-out must be a POST.
func (k *providerKind) perscom() {
	k.scopes = []string{"openid", "profile", "email", "tenant"}
	k.refusesScope = true
	k.without = []string{JWKSPath}
	k.ignoresNonce, k.namesIssuer, k.logoutByPost = true, false, true
	k.document = func(*Provider, string) map[string]any {
		const iss = "http://localhost"
		return map[string]any{ // exactly as the application's seed has it
			"issuer": iss, "authorization_endpoint": iss + "/oauth/authorize", "token_endpoint": iss + "/oauth/token",
			"userinfo_endpoint": iss + "/oauth/userinfo", "end_session_endpoint": iss + "/oauth/logout",
			"grant_types_supported":                 []string{"authorization_code", "implicit", "refresh_token"},
			"subject_types_supported":               []string{"public"},
			"id_token_signing_alg_values_supported": []string{"RS256"},
			"scopes_supported":                      []string{"openid", "profile", "email"},
			"token_endpoint_auth_methods_supported": []string{"client_secret_basic", "client_secret_post"},
			"claims_supported":                      []string{"jti", "iat", "nbf", "exp", "sub", "scopes"},
		}
	}
	k.claims = perscomClaims
	k.idToken = func(_ *Provider, _ grant, claims map[string]any) {
		onlyRequired(claims)
		claims["sub"] = fmt.Sprint(claims["sub"]) // the signing library accepts text only
	}
	k.sign = (*Provider).signWithSecret
}

func perscomClaims(p *Provider, who Person, scope []string) map[string]any {
	c := map[string]any{"sub": 1 + slices.IndexFunc(p.opts.People, func(x Person) bool { return x.Key == who.Key })}
	if slices.Contains(scope, "email") {
		c["email"], c["email_verified"] = who.Email, who.EmailVerified
	}
	if slices.Contains(scope, "profile") {
		c["name"], c["preferred_username"] = who.Name, who.Email
		c["picture"] = "https://perscom.s3.amazonaws.com/tenant1/" + who.Key + ".jpg"
	}
	if slices.Contains(scope, "tenant") && who.OrgID != "" {
		c["tenant_name"] = who.OrgName
		c["tenant_sub"] = 1 + slices.IndexFunc(p.opts.People, func(x Person) bool { return x.OrgID == who.OrgID })
	}
	return c
}

// signWithSecret makes an HS256 token, as the open-source code of PERSCOM does.
func (p *Provider) signWithSecret(claims map[string]any) (string, error) {
	raw, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode the claims: %w", err)
	}
	signed := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"JWT","alg":"HS256"}`)) + "." +
		base64.RawURLEncoding.EncodeToString(raw)
	mac := hmac.New(sha256.New, []byte(p.opts.ClientSecret))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), nil
}
