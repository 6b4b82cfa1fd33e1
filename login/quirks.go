package login

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/oauth"
)

// Quirk is a named deviation from the standard that the operator has allowed a provider of
// type oidc. Weakens says in a sentence what is less secure with it.
type Quirk struct{ Name, Weakens string }

// The quirks, in the order in which they are shown.
const (
	quirkNoNonce         = "no_nonce"
	quirkNoPKCE          = "no_pkce"
	quirkUncheckedIssuer = "unchecked_issuer"
	quirkHS256           = "hs256_id_token"
	quirkIgnoreIDToken   = "ignore_id_token"
	quirkNumericSub      = "numeric_sub"
	quirkIDAsSub         = "id_as_sub"
	quirkRawBasic        = "raw_basic_credentials"
	quirkAssumeVerified  = "assume_email_verified"
	quirkStringVerified  = "string_email_verified"
	quirkEndSessionPost  = "end_session_post"
)

// quirk is a Quirk with the change that it makes to the strict dialect.
type quirk struct {
	Quirk
	change func(*dialect)
}

// quirks returns all quirks. docs/providers/oidc.md says which providers need them.
func quirks() []quirk {
	return []quirk{
		{Quirk{quirkNoNonce, "An ID token without nonce is taken: " +
			"only PKCE, if the provider knows it, keeps a stolen code from signing in its thief."},
			func(p *dialect) { p.nonceOptional = true }},
		{Quirk{quirkNoPKCE, "No code challenge is sent: only the nonce keeps a stolen code from signing in its thief."},
			func(p *dialect) { p.noPKCE = true }},
		{Quirk{quirkUncheckedIssuer, "The issuer in an ID token is not compared: " +
			"any token for this client that the configured keys signed counts."},
			func(p *dialect) { p.anyIssuer = true }},
		{Quirk{quirkHS256, "ID tokens are signed with the client secret: anybody who knows the secret can make them."},
			func(p *dialect) { p.secretSigns = true }},
		{Quirk{quirkIgnoreIDToken,
			"The ID token is not looked at: who somebody is rests on the userinfo endpoint, over TLS, alone."},
			func(p *dialect) { p.userinfoAlone = true }},
		{Quirk{quirkNumericSub,
			"A number counts as the id of a person: the number 7 and the text \"7\" are the same one."},
			func(p *dialect) { p.id = claims.textOrNumber }},
		{Quirk{quirkIDAsSub, "Where sub is missing, the claim id names the person; the standard does not promise " +
			"that it stays theirs."},
			func(p *dialect) { p.subNames = []string{"sub", "id"} }},
		{Quirk{quirkRawBasic, "Client id and secret are sent without the encoding that tells a colon in one from the " +
			"colon between them."},
			func(p *dialect) { p.clientAuth = oauth.BasicRaw }},
		{Quirk{quirkAssumeVerified,
			"Addresses in email_domains count as verified where the provider does not say whether they are."},
			func(p *dialect) { p.vouches = email.notDenied }},
		{Quirk{quirkStringVerified, "The text \"true\" in email_verified counts as true."},
			func(p *dialect) { p.isTrue = trueOrString }},
		{Quirk{quirkEndSessionPost,
			"Signing out at the provider is a form that is posted there, not an address to go to."},
			func(p *dialect) { p.logoutByPost = true }},
	}
}

// AllQuirks returns the quirks that Options.Quirks may name.
func AllQuirks() []Quirk {
	var all []Quirk
	for _, q := range quirks() {
		all = append(all, q.Quirk)
	}
	return all
}

// QuirkNames returns the names of AllQuirks.
func QuirkNames() []string {
	var names []string
	for _, q := range quirks() {
		names = append(names, q.Name)
	}
	return names
}

// allowed returns the quirks that are in effect: those that the options name, and
// ignore_id_token if there are no keys to verify an ID token with.
func (o Options) allowed() []quirk {
	return slices.DeleteFunc(quirks(), func(q quirk) bool {
		implied := q.Name == quirkIgnoreIDToken && o.keyless()
		return !implied && !slices.Contains(o.Quirks, q.Name)
	})
}

func (o Options) has(name string) bool {
	return slices.ContainsFunc(o.allowed(), func(q quirk) bool { return q.Name == name })
}

// keyless reports whether there are no keys to verify an ID token with, neither from
// discovery nor from the configuration, and the identity comes from userinfo anyway.
func (o Options) keyless() bool {
	return o.Type == TypeOIDC && o.staticEndpoints() && o.Endpoints.JWKSURL == "" && len(o.PublicKeys) == 0 &&
		!slices.Contains(o.Quirks, quirkHS256) && o.IdentityFrom == FromUserinfo
}

// Quirks returns the quirks that this provider is allowed.
func (p *Provider) Quirks() []Quirk { return slices.Clone(p.quirks) }

// quirkConflicts finds combinations with which it would not be proved who the person is, or
// for which browser a code was issued.
func (o Options) quirkConflicts(add func(wrong bool, key, why string)) {
	remote := o.Endpoints.JWKSURL != "" || !o.staticEndpoints()
	fixed := len(o.PublicKeys) > 0 || o.has(quirkHS256)
	for _, name := range o.Quirks {
		add(!slices.Contains(QuirkNames(), name), "quirks", "has "+name+", which is not the name of a quirk")
	}
	add(len(o.Quirks) > 0 && o.Type != TypeOIDC, "quirks",
		"are for type oidc; what is particular about a vendor its own type knows")
	add(len(o.PublicKeys) > 0 && o.Type != TypeOIDC, "public_keys",
		"are for type oidc; vendors publish their keys and change them")
	add(len(o.PublicKeys) > 0 && o.Endpoints.JWKSURL != "", "public_keys",
		"cannot stand beside endpoints.jwks: which of them would count?")
	add(!remote && !fixed && !o.has(quirkIgnoreIDToken) && o.Type != TypeMicrosoft && o.Type != TypeGitHub, "endpoints",
		"leave nothing to check an ID token with: add jwks, public_keys, "+
			"or `identity_from: userinfo` with endpoints.userinfo")
	if o.Type != TypeOIDC {
		return
	}
	add(o.staticEndpoints() && o.IdentityFrom == FromUserinfo && o.Endpoints.UserinfoURL == "", "identity_from",
		"is userinfo, but without discovery endpoints.userinfo must say where that is")
	// With neither nonce nor PKCE, a thief of a code is signed in as its owner (RFC 9700
	// §4.5). A provider that does not know PKCE ignores it (RFC 6749 §3.1), so there is no
	// need to leave it out.
	add(o.has(quirkNoPKCE) && (o.has(quirkNoNonce) || o.has(quirkIgnoreIDToken)), "quirks",
		"have no_pkce where no nonce is checked: nothing would bind a code to the browser that asked; "+
			"leave no_pkce out, a provider passes over what it does not know")
	add(o.has(quirkIgnoreIDToken) && o.IdentityFrom != FromUserinfo, "quirks",
		"have ignore_id_token, so only userinfo can say who somebody is: write `identity_from: userinfo`")
	add(slices.Contains(o.Quirks, quirkIgnoreIDToken) && (fixed || o.Endpoints.JWKSURL != ""), "quirks",
		"have ignore_id_token although there are keys to check it with; leave one of them out")
	add(o.has(quirkUncheckedIssuer) && !fixed, "quirks",
		"have unchecked_issuer, which needs keys that are this provider's alone: public_keys, or hs256_id_token")
	add(o.has(quirkHS256) && (len(o.PublicKeys) > 0 || o.Endpoints.JWKSURL != ""), "quirks",
		"have hs256_id_token beside public keys: a public key must never be taken for a secret")
	add(o.has(quirkHS256) && o.ClientSecret == "", "quirks", "have hs256_id_token, which needs a client secret")
	add(o.has(quirkRawBasic) && !slices.Contains([]string{"", ClientAuthAuto, ClientAuthBasic}, o.ClientAuth),
		"client_auth",
		"does not go with the quirk raw_basic_credentials, which sends the secret in an Authorization header")
	add(o.has(quirkAssumeVerified) && len(o.EmailDomains) == 0, "quirks",
		"have assume_email_verified, which needs email_domains: else the provider could claim anybody's address")
	add(o.has(quirkEndSessionPost) && o.staticEndpoints() && o.Endpoints.EndSessionURL == "", "quirks",
		"have end_session_post, but without discovery endpoints.end_session must say where that is")
}

// notDenied reports whether the address is verified, or no source says whether it is.
func (e email) notDenied() bool {
	return e.assured() || !slices.ContainsFunc(e.sources, func(c claims) bool { return c.mentions(emailVerified) })
}

// trueOrString accepts true, and the text "true" in exactly these letters.
func trueOrString(raw json.RawMessage) bool { return isTrue(raw) || string(raw) == `"true"` }

// textOrNumber reads an id that is text or a number. A number must be whole and in plain
// decimal notation, so that two different numbers never become the same text.
func (c claims) textOrNumber(name string) (string, bool) {
	if s, ok := c.text(name); ok {
		return s, true
	}
	raw := string(c[name])
	return raw, wholeNumber(c[name])
}

func wholeNumber(raw json.RawMessage) bool {
	s := string(raw)
	return s != "" && len(s) <= 20 && strings.Trim(s, "0123456789") == "" && (s == "0" || s[0] != '0')
}
