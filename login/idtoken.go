package login

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"hash"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	leeway = identity.ClockLeeway
	// maxTokenAge is the longest time since iat: five minutes, because Entra ID dates its
	// tokens back by that, and the leeway in both directions.
	maxTokenAge = 7 * time.Minute
	maxSubject  = 255 // OIDC Core §2
)

// verifyIDToken returns the claims of an ID token that passes every check of OIDC Core
// §3.1.3.7. The library verifies the signature, and the checks of the claims are made
// here: go-oidc's verifier accepts an empty sub, a missing iat, a second audience and a
// foreign azp, ignores the case of claim names, and allows no clock skew.
//
// The error of a refused token quotes what was received. If a provider has put a secret
// of this sign-in there, the error does not quote it.
func (p *Provider) verifyIDToken(ctx context.Context, m *metadata, tokens oauth.TokenResponse, h identity.Handshake,
	ap identity.AuthParams,
) (claims, error) {
	if tokens.IDToken == "" {
		return nil, fail(identity.Rejected, "the provider sent no ID token (is scope openid granted?)")
	}
	found, err := p.checkIDToken(ctx, m, tokens, h, ap)
	var e *identity.SignInError
	if !errors.As(err, &e) {
		return found, err
	}
	for _, secret := range []string{
		h.Nonce, h.State, h.Verifier, tokens.AccessToken, tokens.RefreshToken, tokens.IDToken,
	} {
		if secret != "" && strings.Contains(e.Err.Error(), secret) {
			return nil, fail(e.Failure,
				"ID token: refused; its claims or header hold a secret of this sign-in, which is not shown")
		}
	}
	return nil, e
}

// checkIDToken verifies the signature, reads the claims and checks them.
func (p *Provider) checkIDToken(ctx context.Context, m *metadata, tokens oauth.TokenResponse, h identity.Handshake,
	ap identity.AuthParams,
) (claims, error) {
	content, err := p.verify(ctx, m, tokens.IDToken, func(s *keySet) *budget { return s.signIns })
	if err != nil {
		return nil, err
	}
	members, err := oauth.Object(content.payload)
	if err != nil {
		return nil, fail(identity.Rejected, "ID token: claims: %w", err)
	}
	t := idToken{members, content.alg, content.keyIssuer}
	for _, check := range []func() error{
		func() error { return p.checkParties(t.claims) },
		func() error { return p.checkTimes(t.claims) },
		func() error { return p.checkBinding(t, tokens.AccessToken, h) },
		func() error { return p.checkRequested(t.claims, ap) },
		func() error { return p.checkFurther(t, m) },
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return t.claims, nil
}

// checkParties checks who issued the token, for which client, and about which person.
func (p *Provider) checkParties(c claims) error {
	if err := p.checkIssuedFor(c); err != nil {
		return err
	}
	audience, _ := c.audience()
	if err := p.checkAuthorizedParty(c, audience); err != nil {
		return err
	}
	return p.checkSubject(c, "ID token")
}

// checkIssuedFor checks who issued the token, and for which client.
func (p *Provider) checkIssuedFor(c claims) error {
	if iss, _ := c.text("iss"); !p.dialect.anyIssuer && !p.dialect.issuedBy(iss) {
		return fail(identity.Rejected, "ID token: iss is not the configured issuer %s, it is %s; "+
			"write `issuer` exactly as the provider does", quoted(p.issuer), c.quoted("iss"))
	}
	audience, ok := c.audience()
	if !ok || !slices.Contains(audience, p.clientID) {
		return fail(identity.Rejected, "ID token: made for another client: aud is %s, and client_id is %s",
			c.quoted("aud"), quoted(p.clientID))
	}
	if !p.dialect.audience(audience) {
		return fail(identity.Rejected, "ID token: made for others as well: aud is %s beside this client; "+
			"where they may be, list them in `trusted_audiences`",
			quoted(slices.DeleteFunc(audience, func(a string) bool { return a == p.clientID })...))
	}
	return nil
}

// checkAuthorizedParty makes the checks (4) and (5) of OIDC Core §3.1.3.7. If a token
// is for several audiences, only azp says which of them asked for it.
func (p *Provider) checkAuthorizedParty(c claims, audience []string) error {
	azp, _ := c.text("azp")
	switch {
	case azp == p.clientID, !c.has("azp") && len(audience) == 1:
		return nil
	case !c.has("azp"):
		return fail(identity.Rejected, "ID token: aud is %s, and no azp says which of them it was issued to; "+
			"it must be the client_id, %s", c.quoted("aud"), quoted(p.clientID))
	}
	return fail(identity.Rejected, "ID token: issued to another client: azp is %s, and client_id is %s",
		c.quoted("azp"), quoted(p.clientID))
}

// checkSubject checks that the claims hold an id of the person that never changes.
// Without one nobody is signed in.
func (p *Provider) checkSubject(c claims, where string) error {
	if _, ok := p.dialect.sub(c); !ok {
		return fail(identity.Rejected, "%s: sub is missing, or not a string of 1 to %d bytes: it is %s%s",
			where, maxSubject, c.form("sub"), p.subjectHelp(c))
	}
	if _, ok := p.dialect.person(c); !ok {
		return fail(identity.Rejected, "%s: the claims that name the person are missing, or in another form", where)
	}
	return nil
}

// subjectHelp names the quirk that accepts what the provider sent instead of a proper sub.
func (p *Provider) subjectHelp(c claims) string {
	switch {
	case p.kind != TypeOIDC:
		return ""
	case wholeNumber(c["sub"]):
		return "; the quirk " + quirkNumericSub + " takes numbers"
	case !c.has("sub") && c.has("id"):
		return "; the quirk " + quirkIDAsSub + " takes id instead"
	}
	return ""
}

// checkFurther makes the checks of the dialect, which the standard does not have.
func (p *Provider) checkFurther(t idToken, m *metadata) error {
	for _, check := range p.dialect.checks {
		if err := check(t, m); err != nil {
			return err
		}
	}
	return nil
}

// checkTimes checks that the token is valid now and was issued a moment ago, for this
// sign-in.
func (p *Provider) checkTimes(c claims) error {
	if err := p.checkValidity(c); err != nil {
		return err
	}
	iat, _ := c.time("iat")
	if age := p.now().Sub(iat).Round(time.Second); age > maxTokenAge {
		return skewError("was issued %s ago: our clock is ahead of the provider's", age)
	}
	return nil
}

// checkValidity checks that the token is valid now, allowing for a difference of clocks.
func (p *Provider) checkValidity(c claims) error {
	now := p.now()
	exp, ok := c.time("exp")
	if !ok {
		return fail(identity.Rejected, "ID token: exp is missing or not a number: it is %s", c.form("exp"))
	}
	iat, ok := c.time("iat")
	if !ok {
		return fail(identity.Rejected, "ID token: iat is missing or not a number: it is %s", c.form("iat"))
	}
	nbf, ok := c.time("nbf")
	if !ok && c.has("nbf") {
		return fail(identity.Rejected, "ID token: nbf is not a number: it is %s", c.form("nbf"))
	}
	switch {
	case iat.After(now.Add(leeway)):
		return skewError("was issued %s from now: our clock is behind the provider's", iat.Sub(now).Round(time.Second))
	case ok && nbf.After(now.Add(leeway)):
		return skewError("is not valid for another %s: our clock is behind the provider's",
			nbf.Sub(now).Round(time.Second))
	case now.After(exp.Add(leeway)):
		return skewError("expired %s ago: our clock is ahead of the provider's", now.Sub(exp).Round(time.Second))
	}
	return nil
}

func skewError(what string, offset time.Duration) error {
	return fail(identity.ClockSkew, "ID token: "+what+", or the token is not fresh", offset)
}

// checkBinding checks that the token belongs to this browser's sign-in, and that the
// access token came with it.
func (p *Provider) checkBinding(t idToken, accessToken string, h identity.Handshake) error {
	nonce, ok := t.text("nonce")
	switch {
	case !t.has("nonce") && p.dialect.nonceOptional:
	case !t.has("nonce"):
		help := ""
		if p.kind == TypeOIDC {
			help = "; a provider that does not know nonce needs the quirk " + quirkNoNonce
		}
		return fail(identity.Rejected, "ID token: nonce is missing%s", help)
	case !ok || subtle.ConstantTimeCompare([]byte(nonce), []byte(h.Nonce)) != 1:
		return fail(identity.Rejected, "ID token: nonce is not this sign-in's")
	}
	if !t.has("at_hash") || accessToken == "" {
		return nil
	}
	got, _ := t.text("at_hash")
	if subtle.ConstantTimeCompare([]byte(got), []byte(halfHash(t.alg, accessToken))) != 1 {
		return fail(identity.Rejected, "ID token: at_hash does not match the access token")
	}
	return nil
}

// halfHash returns the at_hash of an access token (OIDC Core §3.1.3.6): the left half of
// its hash, with the hash function of the ID token's signature algorithm.
func halfHash(alg, accessToken string) string {
	var h hash.Hash
	switch {
	case strings.HasSuffix(alg, "256"):
		h = sha256.New()
	case strings.HasSuffix(alg, "384"):
		h = sha512.New384()
	default: // …512, and EdDSA with Ed25519, which uses SHA-512
		h = sha512.New()
	}
	h.Write([]byte(accessToken))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:h.Size()/2])
}

// checkRequested checks that the provider did what this sign-in requested with max_age
// and acr_values: the person could have removed a parameter from the address in the
// browser (OIDC Core §3.1.2.1). The error wraps an *identity.UnprovenError.
func (p *Provider) checkRequested(c claims, ap identity.AuthParams) error {
	at, _ := c.time("auth_time")
	acr, _ := c.text("acr")
	asked := identity.Proof{MaxAge: ap.MaxAge, ACR: strings.Fields(ap.ACR)}
	if err := asked.Check(at, acr, p.now()); err != nil {
		return fail(identity.Rejected, "ID token: %w", err)
	}
	return nil
}

// claims are the members of an ID token or a userinfo answer.
type claims map[string]json.RawMessage

// has reports whether a claim is there. A claim that is null counts as absent.
func (c claims) has(name string) bool {
	raw, ok := c[name]
	return ok && string(raw) != "null"
}

func (c claims) text(name string) (string, bool) {
	var s *string
	if json.Unmarshal(c[name], &s) != nil || s == nil {
		return "", false
	}
	return *s, true
}

// time reads a NumericDate of RFC 7519 §2: a number, possibly with a fraction.
func (c claims) time(name string) (time.Time, bool) {
	n, err := strconv.ParseFloat(string(c[name]), 64)
	const year9999 = 253402300799
	if err != nil || !(n >= 0 && n <= year9999) {
		return time.Time{}, false
	}
	return time.Unix(int64(n), 0), true
}

func (c claims) audience() ([]string, bool) {
	if s, ok := c.text("aud"); ok {
		return []string{s}, true
	}
	list, err := texts(c["aud"])
	return list, err == nil
}

// quoted quotes a claim for an error message. It is for claims that are about the token
// (such as aud) and not about the person. Of a claim that is not text, only the type is
// given.
func (c claims) quoted(name string) string {
	if s, ok := c.text(name); ok {
		return quoted(s)
	}
	if list, err := texts(c[name]); err == nil {
		return "[" + quoted(list...) + "]"
	}
	return c.form(name)
}

// quoted quotes text from elsewhere for an error message, with a limit on its length.
func quoted(list ...string) string {
	const most, longest = 5, 200
	var out []string
	for i, s := range list {
		if i == most {
			out = append(out, "…")
			break
		}
		out = append(out, strconv.QuoteToASCII(identity.CutText(s, longest)))
	}
	return strings.Join(out, ", ")
}

// texts reads a list of strings. A null in it is refused, because encoding/json would
// read it as "".
func texts(raw json.RawMessage) ([]string, error) {
	var list []*string
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, errors.New("not a list of strings")
	}
	out := make([]string, len(list))
	for i, s := range list {
		if s == nil {
			return nil, errors.New("null in a list of strings")
		}
		out[i] = *s
	}
	return out, nil
}
