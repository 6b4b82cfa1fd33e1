package demo

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// token redeems a code, once, for the client that it was issued to.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) error {
	form, err := readTokenForm(r)
	if err != nil {
		return err
	}
	if err := p.authenticateClient(r, form); err != nil {
		return err
	}
	if p.kind.plainOAuth && r.Header.Get("Accept") != "application/json" { // GitHub would answer with a form
		return refuse("invalid_request", "the answer is JSON for who accepts JSON")
	}
	if form.Get("grant_type") != "authorization_code" {
		return refuse("unsupported_grant_type", "only authorization_code is served")
	}
	access := p.kind.accessPrefix + random()
	g, err := p.spend(form, access)
	if err != nil {
		return err
	}
	id, err := p.kind.sign(p, p.idClaims(g, access))
	if err != nil {
		return err
	}
	w.Header().Set("Pragma", "no-cache") // RFC 6749 §5.1
	answer := map[string]any{
		"access_token": access, "token_type": "Bearer", "expires_in": int(tokenLife.Seconds()),
		"refresh_token": p.kind.otherPrefix + random(), "id_token": id, "scope": strings.Join(g.scope, " "),
	}
	p.kind.answer(g, answer)
	return writeJSON(w, http.StatusOK, answer)
}

func readTokenForm(r *http.Request) (url.Values, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, refuse("invalid_request", "the body must be application/x-www-form-urlencoded")
	}
	if r.URL.RawQuery != "" { // RFC 6749 §2.3.1: secrets in URLs are written to logs
		return nil, refuse("invalid_request", "parameters belong in the body")
	}
	if err := r.ParseForm(); err != nil {
		return nil, refuse("invalid_request", "the body can't be read")
	}
	for name := range r.PostForm {
		if _, err := single(r.PostForm, name); err != nil {
			return nil, refuse("invalid_request", err.Error())
		}
	}
	return r.PostForm, nil
}

// authenticateClient checks the secret, which is in the header or in the body, not in both.
func (p *Provider) authenticateClient(r *http.Request, form url.Values) error {
	if p.opts.Trust != nil {
		return p.checkAssertion(r, form)
	}
	unknown := &oauthError{http.StatusUnauthorized, "invalid_client", "unknown client, or a wrong secret"}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if r.Header.Get("Authorization") != "" {
		basicID, basicSecret, ok := p.basicCredentials(r)
		if !ok {
			return unknown
		}
		if form.Has("client_secret") || (form.Has("client_id") && id != basicID) { // RFC 6749 §2.3
			return refuse("invalid_request", "more than one way of client authentication")
		}
		id, secret = basicID, basicSecret
	}
	if p.kind.bodyOnly && r.Header.Get("Authorization") != "" {
		return unknown
	}
	if p.kind.rawBasic && r.Header.Get("Authorization") == "" {
		return unknown
	}
	idOK, secretOK := equal(id, p.opts.ClientID), equal(secret, p.opts.ClientSecret)
	if !idOK || !secretOK {
		return unknown
	}
	return nil
}

// basicCredentials decodes Basic credentials, which are form-encoded (RFC 6749 §2.3.1).
func (p *Provider) basicCredentials(r *http.Request) (id, secret string, ok bool) {
	rawID, rawSecret, ok := r.BasicAuth()
	if !ok || p.kind.rawBasic {
		return rawID, rawSecret, ok
	}
	id, errID := url.QueryUnescape(rawID)
	secret, errSecret := url.QueryUnescape(rawSecret)
	return id, secret, errID == nil && errSecret == nil
}

// equal compares in constant time. Comparing hashes does not reveal the lengths either.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// spend uses a code up, even if the request is then refused, and stores its grant for the
// access token. A code that is used again may have been stolen, so the access token that
// was issued for it is revoked (RFC 6749 §4.1.2, §10.5).
func (p *Provider) spend(form url.Values, access string) (grant, error) {
	now := p.opts.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	kept, ok := p.codes.get(now, form.Get("code"))
	if !ok {
		return grant{}, refuse("invalid_grant", "the code is unknown or expired")
	}
	if kept.spent {
		p.access.drop(kept.accessIssued)
		return grant{}, refuse("invalid_grant", "the code was used before")
	}
	kept.spent = true
	if form.Get("redirect_uri") != kept.redirectURI { // RFC 6749 §4.1.3
		return grant{}, refuse("invalid_grant", "redirect_uri differs from the request's")
	}
	if kept.challenge != "" && !verifies(form.Get("code_verifier"), kept.challenge) {
		return grant{}, refuse("invalid_grant", "code_verifier does not match")
	}
	kept.accessIssued = access
	p.access.put(now, access, *kept)
	return *kept, nil
}

// verifies reports whether a PKCE verifier is well-formed (RFC 7636 §4.1) and matches the
// challenge (§4.6).
func verifies(verifier, challenge string) bool {
	if len(verifier) < 43 || len(verifier) > 128 || strings.Trim(verifier, unreserved) != "" {
		return false
	}
	sum := sha256.Sum256([]byte(verifier))
	return equal(base64.RawURLEncoding.EncodeToString(sum[:]), challenge)
}

func (p *Provider) idClaims(g grant, access string) map[string]any {
	now, half := p.opts.Now(), sha256.Sum256([]byte(access))
	claims := map[string]any{
		"iss": p.opts.Issuer, "aud": p.opts.ClientID, "nonce": g.nonce, "sid": g.sid,
		"iat": now.Unix(), "exp": now.Add(tokenLife).Unix(), "auth_time": g.authTime.Unix(),
		"at_hash": base64.RawURLEncoding.EncodeToString(half[:len(half)/2]), // OIDC Core §3.1.3.6
	}
	maps.Copy(claims, p.kind.claims(p, g.person, g.scope))
	p.kind.idToken(p, g, claims)
	return claims
}

// userinfo answers with the same claims about the person as the ID token.
func (p *Provider) userinfo(w http.ResponseWriter, r *http.Request) error {
	g, err := p.bearer(r)
	if err != nil {
		return err
	}
	claims := p.kind.claims(p, g.person, g.scope)
	p.kind.info(g.person, claims)
	return writeJSON(w, http.StatusOK, claims)
}

// bearer returns the grant of the access token in a request.
func (p *Provider) bearer(r *http.Request) (grant, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	p.mu.Lock()
	defer p.mu.Unlock()
	g, ok := p.access.get(p.opts.Now(), token)
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return grant{}, &oauthError{http.StatusUnauthorized, "invalid_token",
			"no access token, or one that is not valid here"}
	}
	return *g, nil
}
