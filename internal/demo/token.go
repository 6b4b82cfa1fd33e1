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

// token exchanges a code, once, by the client it was given to.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) error {
	form, err := readTokenForm(r)
	if err != nil {
		return err
	}
	if err := p.authenticateClient(r, form); err != nil {
		return err
	}
	if form.Get("grant_type") != "authorization_code" {
		return refuse("unsupported_grant_type", "only authorization_code is served")
	}
	access := p.shape.accessPrefix + random()
	g, err := p.spend(form, access)
	if err != nil {
		return err
	}
	id, err := p.shape.sign(p, p.idClaims(g, access))
	if err != nil {
		return err
	}
	w.Header().Set("Pragma", "no-cache") // RFC 6749 §5.1
	answer := map[string]any{
		"access_token": access, "token_type": "Bearer", "expires_in": int(tokenLife.Seconds()),
		"refresh_token": p.shape.otherPrefix + random(), "id_token": id, "scope": strings.Join(g.scope, " "),
	}
	p.shape.answer(g, answer)
	return writeJSON(w, http.StatusOK, answer)
}

func readTokenForm(r *http.Request) (url.Values, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, refuse("invalid_request", "the body must be application/x-www-form-urlencoded")
	}
	if r.URL.RawQuery != "" { // RFC 6749 §2.3.1: a secret in a URL ends up in logs
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

// authenticateClient takes the secret from the header or the body, never both.
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
	if p.shape.bodyOnly && r.Header.Get("Authorization") != "" {
		return unknown
	}
	if p.shape.rawBasic && r.Header.Get("Authorization") == "" {
		return unknown
	}
	idOK, secretOK := equal(id, p.opts.ClientID), equal(secret, p.opts.ClientSecret)
	if !idOK || !secretOK {
		return unknown
	}
	return nil
}

// basicCredentials decodes as RFC 6749 §2.3.1 says: form-encoded inside Basic.
func (p *Provider) basicCredentials(r *http.Request) (id, secret string, ok bool) {
	rawID, rawSecret, ok := r.BasicAuth()
	if !ok || p.shape.rawBasic {
		return rawID, rawSecret, ok
	}
	id, errID := url.QueryUnescape(rawID)
	secret, errSecret := url.QueryUnescape(rawSecret)
	return id, secret, errID == nil && errSecret == nil
}

// equal compares in constant time; hashing hides the lengths too.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// spend removes the code from the store for good, whatever comes of it, and
// leaves access in its place. RFC 6749 §4.1.2, §10.5: a code that comes back
// may be stolen, so the token it bought dies with it.
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

// verifies checks PKCE: RFC 7636 §4.1 for the form, §4.6 for the match.
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
	maps.Copy(claims, p.shape.claims(p, g.person, g.scope))
	p.shape.idToken(p, g, claims)
	return claims
}

// userinfo tells the bearer of an access token the same as the ID token did.
func (p *Provider) userinfo(w http.ResponseWriter, r *http.Request) error {
	g, err := p.bearer(r)
	if err != nil {
		return err
	}
	claims := p.shape.claims(p, g.person, g.scope)
	p.shape.info(g.person, claims)
	return writeJSON(w, http.StatusOK, claims)
}

// bearer is what the access token of a request was given for.
func (p *Provider) bearer(r *http.Request) (grant, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	p.mu.Lock()
	defer p.mu.Unlock()
	g, ok := p.access.get(p.opts.Now(), token)
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return grant{}, &oauthError{http.StatusUnauthorized, "invalid_token", "no access token, or one that is not valid here"}
	}
	return *g, nil
}
