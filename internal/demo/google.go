package demo

import "slices"

// google behaves like Sign in with Google (docs/providers/google.md). The claim hd is in the
// ID tokens of people whose account belongs to a Workspace, and in no others.
func (k *providerKind) google() {
	k.scopes = []string{"openid", "email", "profile"}
	k.directory()
	k.refusesScope = true // offline_access is refused, too
	k.accessPrefix, k.otherPrefix = "ya29.", "1//0"
	k.document = func(p *Provider, _ string) map[string]any {
		d := p.document()
		delete(d, "end_session_endpoint")
		d["scopes_supported"] = []string{"openid", "email", "profile"}
		d["claims_supported"] = []string{"aud", "email", "email_verified", "exp", "family_name", "given_name",
			"iat", "iss", "name", "picture", "sub"}
		return d
	}
	k.claims = func(_ *Provider, who Person, scope []string) map[string]any {
		c := map[string]any{"sub": numericID(who.Key)}
		if slices.Contains(scope, "email") {
			c["email"], c["email_verified"] = who.Email, who.EmailVerified
		}
		if slices.Contains(scope, "profile") {
			c["name"], c["picture"] = who.Name, "https://lh3.googleusercontent.com/a/"+who.Key
		}
		if who.OrgDomain != "" {
			c["hd"] = who.OrgDomain
		}
		return c
	}
	k.idToken = func(p *Provider, _ grant, claims map[string]any) {
		claims["azp"] = p.opts.ClientID
		delete(claims, "sid")
	}
}
