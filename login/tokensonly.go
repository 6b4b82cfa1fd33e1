package login

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// What Options.Use may say.
const (
	UseSignIn = "sign_in"
	UseTokens = "tokens"
)

// tokensOnly: programs come with tokens of the provider, and nobody signs in there.
// Kubernetes is one for its service accounts: it publishes keys, and has no page for
// people.
func (o Options) tokensOnly() bool { return o.Use == UseTokens }

// useConflicts keeps what is for signing in from a provider that is not.
func (o Options) useConflicts(add func(wrong bool, key, why string)) {
	if !o.tokensOnly() {
		add(o.DiscoveryCredential != nil, "discovery_token", "has a meaning with `use: tokens` only")
		return
	}
	const signIn = "has a meaning for signing in only, and `use: tokens` says that nobody signs in here"
	for _, c := range [...]struct {
		key   string
		given bool
	}{
		{"client_secret", o.ClientSecret != ""},
		{"client_auth", o.ClientAuth != "" && o.ClientAuth != ClientAuthAuto},
		{"client_assertion", o.ClientAssertion != nil},
		{"client_key", o.ClientKey != ""}, {"client_key_id", o.ClientKeyID != ""},
		{"scopes", o.Scopes != nil}, {"reauth_after", o.ReauthAfter != 0},
		{"identity_from", o.IdentityFrom != "" && o.IdentityFrom != FromAuto},
		{"trusted_audiences", o.TrustedAudiences != nil}, {"quirks", o.Quirks != nil},
		{"logout", o.SignOut.Off || o.SignOut.ReturnParam != "" || o.SignOut.Params != nil},
		{"endpoints.authorization", o.Endpoints.AuthorizationURL != ""},
		{"endpoints.token", o.Endpoints.TokenURL != ""},
		{"endpoints.userinfo", o.Endpoints.UserinfoURL != ""},
		{"endpoints.end_session", o.Endpoints.EndSessionURL != ""},
	} {
		add(c.given, c.key, signIn)
	}
	add(o.Type != TypeOIDC, "use", "is tokens, which is for type oidc")
	add(o.PublicKeys != nil && o.DiscoveryCredential != nil, "discovery_token",
		"is never sent, because public_keys are given; leave one of them out")
}

// configured reports whether what is needed of the provider is in the configuration,
// so that nobody asks for its discovery document.
func (o Options) configured() bool {
	return o.staticEndpoints() || o.tokensOnly() && (o.Endpoints.JWKSURL != "" || o.PublicKeys != nil)
}

// authenticate adds the token that the provider asks for before it shows its discovery
// document and its keys. It is sent to the origins that the configuration names and to no
// other, whatever a document says.
func (p *Provider) authenticate(r *http.Request) error {
	if p.discoveryCredential == nil || !slices.Contains([]string{originOf(p.issuer), originOf(p.endpoints.JWKSURL)},
		originOf(r.URL.String())) {
		return nil
	}
	token, err := p.discoveryCredential()
	if err != nil {
		return fmt.Errorf("discovery_token: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return nil
}

// originOf is the scheme, host and port of an address that was checked; "" for none.
func originOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
