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
	leeway     = time.Minute     // between the provider's clock and ours
	oldest     = 7 * time.Minute // since iat: five, because Entra ID dates its tokens back by that, and the leeway at both ends
	maxSubject = 255             // OIDC Core §2
)

// verifyIDToken returns the claims of an ID token that passed every check of
// OIDC Core §3.1.3.7. The checks are ours, on a library-verified signature:
// go-oidc's verifier takes an empty sub, a missing iat, a second audience and a
// foreign azp, folds the case of claim names, and allows no clock skew.
//
// A refusal says what came. Where a provider puts a secret of the sign-in there,
// it does not.
func (p *Provider) verifyIDToken(ctx context.Context, m *metadata, tokens oauth.TokenResponse, h identity.Handshake, ap identity.AuthParams) (claims, error) {
	if tokens.IDToken == "" {
		return nil, fail(identity.Rejected, "the provider sent no ID token (is scope openid granted?)")
	}
	found, err := p.openIDToken(ctx, m, tokens, h, ap)
	var e *identity.SignInError
	if !errors.As(err, &e) {
		return found, err
	}
	for _, secret := range []string{h.Nonce, h.State, h.Verifier, tokens.AccessToken, tokens.RefreshToken, tokens.IDToken} {
		if secret != "" && strings.Contains(e.Err.Error(), secret) {
			return nil, fail(e.Failure, "ID token: refused; what stands in its claims or header is a secret of this sign-in, and is not shown")
		}
	}
	return nil, e
}

func (p *Provider) openIDToken(ctx context.Context, m *metadata, tokens oauth.TokenResponse, h identity.Handshake, ap identity.AuthParams) (claims, error) {
	content, err := m.keys.verify(ctx, tokens.IDToken, m.keys.signIns)
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
		func() error { return p.checkAsked(t.claims, ap) },
		func() error { return p.checkFurther(t, m) },
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return t.claims, nil
}

// checkParties: whose token it is, for whom, and about whom.
func (p *Provider) checkParties(c claims) error {
	if iss, _ := c.text("iss"); !p.dialect.anyIssuer && !p.dialect.issuedBy(iss) {
		return fail(identity.Rejected, "ID token: iss is not the configured issuer %s, it is %s; write `issuer` exactly as the provider does", quoted(p.issuer), c.quoted("iss"))
	}
	audience, ok := c.audience()
	if !ok || !slices.Contains(audience, p.clientID) {
		return fail(identity.Rejected, "ID token: made for another client: aud is %s, and client_id is %s", c.quoted("aud"), quoted(p.clientID))
	}
	if !p.dialect.audience(audience) {
		return fail(identity.Rejected, "ID token: made for others as well: aud is %s beside this client; where they may be, list them in `trusted_audiences`",
			quoted(slices.DeleteFunc(audience, func(a string) bool { return a == p.clientID })...))
	}
	return p.checkAuthorizedParty(c, audience)
}

// checkAuthorizedParty: OIDC Core §3.1.3.7 (4) and (5). Where a token is for
// several, only azp says which of them asked for it.
func (p *Provider) checkAuthorizedParty(c claims, audience []string) error {
	azp, _ := c.text("azp")
	switch {
	case azp == p.clientID, !c.has("azp") && len(audience) == 1:
		return p.checkSubject(c, "ID token")
	case !c.has("azp"):
		return fail(identity.Rejected, "ID token: aud is %s, and no azp says which of them it was issued to; it must be the client_id, %s", c.quoted("aud"), quoted(p.clientID))
	}
	return fail(identity.Rejected, "ID token: issued to another client: azp is %s, and client_id is %s", c.quoted("azp"), quoted(p.clientID))
}

// checkSubject: nobody is signed in without a name that stays.
func (p *Provider) checkSubject(c claims, where string) error {
	if _, ok := p.dialect.sub(c); !ok {
		return fail(identity.Rejected, "%s: sub is missing, or not a string of 1 to %d bytes: it is %s%s", where, maxSubject, c.form("sub"), p.subjectHelp(c))
	}
	if _, ok := p.dialect.person(c); !ok {
		return fail(identity.Rejected, "%s: the claims that name the person are missing, or in another form", where)
	}
	return nil
}

// subjectHelp names the quirk that takes what came instead of a proper sub.
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

// checkFurther is what the standard leaves to the provider.
func (p *Provider) checkFurther(t idToken, m *metadata) error {
	for _, check := range p.dialect.checks {
		if err := check(t, m); err != nil {
			return err
		}
	}
	return nil
}

// checkTimes: is it now, by both clocks, and was it made for this sign-in?
func (p *Provider) checkTimes(c claims) error {
	if err := p.checkValidity(c); err != nil {
		return err
	}
	iat, _ := c.time("iat")
	if age := p.now().Sub(iat).Round(time.Second); age > oldest {
		return skew("was issued %s ago: our clock is ahead of the provider's", age)
	}
	return nil
}

// checkValidity: is it now, by both clocks?
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
		return skew("was issued %s from now: our clock is behind the provider's", iat.Sub(now).Round(time.Second))
	case ok && nbf.After(now.Add(leeway)):
		return skew("is not valid for another %s: our clock is behind the provider's", nbf.Sub(now).Round(time.Second))
	case now.After(exp.Add(leeway)):
		return skew("expired %s ago: our clock is ahead of the provider's", now.Sub(exp).Round(time.Second))
	}
	return nil
}

func skew(what string, offset time.Duration) error {
	return fail(identity.ClockSkew, "ID token: "+what+", or the token is not fresh", offset)
}

// checkBinding: is it this browser's sign-in, and are the tokens a pair?
func (p *Provider) checkBinding(t idToken, accessToken string, h identity.Handshake) error {
	nonce, ok := t.text("nonce")
	absent := p.dialect.nonceOptional && !t.has("nonce")
	if !absent && !t.has("nonce") {
		help := ""
		if p.kind == TypeOIDC {
			help = "; a provider that does not know nonce needs the quirk " + quirkNoNonce
		}
		return fail(identity.Rejected, "ID token: nonce is missing%s", help)
	}
	if !absent && (!ok || subtle.ConstantTimeCompare([]byte(nonce), []byte(h.Nonce)) != 1) {
		return fail(identity.Rejected, "ID token: nonce is not this sign-in's")
	}
	if !t.has("at_hash") || accessToken == "" {
		return nil
	}
	if got, _ := t.text("at_hash"); subtle.ConstantTimeCompare([]byte(got), []byte(halfHash(t.alg, accessToken))) != 1 {
		return fail(identity.Rejected, "ID token: at_hash does not match the access token")
	}
	return nil
}

// halfHash is at_hash of OIDC Core §3.1.3.6: the left half of the hash that
// belongs to the ID token's algorithm.
func halfHash(alg, accessToken string) string {
	var h hash.Hash
	switch {
	case strings.HasSuffix(alg, "256"):
		h = sha256.New()
	case strings.HasSuffix(alg, "384"):
		h = sha512.New384()
	default: // …512, and EdDSA with Ed25519, which is SHA-512 inside
		h = sha512.New()
	}
	h.Write([]byte(accessToken))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:h.Size()/2])
}

// checkAsked: did the provider do what this sign-in asked for? A browser can
// take a parameter out of the address (OIDC Core §3.1.2.1).
func (p *Provider) checkAsked(c claims, ap identity.AuthParams) error {
	if ap.MaxAge > 0 {
		at, ok := c.time("auth_time")
		if !ok {
			return fail(identity.Rejected, "ID token: auth_time is %s, and max_age was asked for", c.form("auth_time"))
		}
		if age := p.now().Sub(at); age > ap.MaxAge+leeway || age < -leeway {
			return fail(identity.Rejected, "ID token: the person signed in %s ago, asked for was at most %s", age.Round(time.Second), ap.MaxAge)
		}
	}
	if ap.ACR != "" {
		acr, ok := c.text("acr")
		if !ok || !slices.Contains(strings.Fields(ap.ACR), acr) {
			return fail(identity.Rejected, "ID token: acr is not one that was asked for: it is %s, asked for was %s", c.quoted("acr"), quoted(ap.ACR))
		}
	}
	return nil
}

// claims are the members of an ID token or a userinfo answer.
type claims map[string]json.RawMessage

// has reports whether a claim is there; null is as good as absent.
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

// quoted shows a claim that is about the token and not about the person, for a
// message: aud and its like, and nothing that is not text.
func (c claims) quoted(name string) string {
	if s, ok := c.text(name); ok {
		return quoted(s)
	}
	if list, err := texts(c[name]); err == nil {
		return "[" + quoted(list...) + "]"
	}
	return c.form(name)
}

// quoted bounds what a message takes over from elsewhere.
func quoted(list ...string) string {
	const most, longest = 5, 200
	var out []string
	for i, s := range list {
		if i == most {
			out = append(out, "…")
			break
		}
		if len(s) > longest {
			s = s[:longest] + "…"
		}
		out = append(out, strconv.QuoteToASCII(s))
	}
	return strings.Join(out, ", ")
}

// texts reads a list of strings and nothing else: a null in it would pass for "".
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
