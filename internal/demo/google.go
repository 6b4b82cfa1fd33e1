package demo

import "slices"

// google: Sign in with Google (docs/providers/google.md). hd is in the ID token of
// people whose account belongs to a Workspace, and in nobody else's.
func (s *shape) google() {
	s.scopes = []string{"openid", "email", "profile"}
	s.refusesScope = true // offline_access among them, §2.1
	s.accessPrefix, s.otherPrefix = "ya29.", "1//0"
	s.document = func(p *Provider, _ string) map[string]any {
		d := p.document()
		delete(d, "end_session_endpoint")
		d["scopes_supported"] = s.scopes
		d["claims_supported"] = []string{"aud", "email", "email_verified", "exp", "family_name", "given_name", "iat", "iss", "name", "picture", "sub"}
		return d
	}
	s.claims = func(_ *Provider, who Person, scope []string) map[string]any {
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
	s.idToken = func(p *Provider, _ grant, claims map[string]any) {
		claims["azp"] = p.opts.ClientID
		delete(claims, "sid")
	}
}
