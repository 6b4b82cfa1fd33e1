package demo

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// token redeems a code, or a refresh token.
func (g *GoogleCalendar) token(w http.ResponseWriter, r *http.Request) error {
	form, err := readTokenForm(r)
	if err != nil {
		return err
	}
	client, err := g.authenticate(r, form)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	answer := map[string]any{}
	var grant calendarGrant
	switch form.Get("grant_type") {
	case "authorization_code":
		if grant, err = g.redeem(client, form); err != nil {
			return err
		}
		if grant.offline {
			answer["refresh_token"] = g.issueRefresh(grant)
		}
	case "refresh_token":
		if grant, err = g.refreshed(client, form.Get("refresh_token")); err != nil {
			return err
		}
	default:
		return refuse("unsupported_grant_type", "Invalid grant_type: "+form.Get("grant_type"))
	}
	access := "ya29." + random()
	g.access.put(g.opts.Now(), access, grant)
	answer["access_token"], answer["token_type"] = access, "Bearer"
	answer["expires_in"] = int(accessLife.Seconds()) - 1 // the samples of Google's pages have 3599 and 3920
	answer["scope"] = strings.Join(grantedNames(grant.scope), " ")
	if !grant.until.IsZero() {
		answer["refresh_token_expires_in"] = int(grant.until.Sub(g.opts.Now()).Seconds())
	}
	if slices.Contains(grant.scope, "openid") && form.Get("grant_type") == "authorization_code" {
		if answer["id_token"], err = g.key.sign(nil, g.idClaims(grant, access)); err != nil {
			return err
		}
	}
	return writeJSON(w, http.StatusOK, answer)
}

// authenticate checks the secret, in the body or in the header.
func (g *GoogleCalendar) authenticate(r *http.Request, form url.Values) (CalendarClient, error) {
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if basicID, basicSecret, ok := r.BasicAuth(); ok {
		id, _ = url.QueryUnescape(basicID) // what cannot be decoded is not known
		secret, _ = url.QueryUnescape(basicSecret)
	}
	client, ok := g.client(id)
	switch {
	case !ok:
		return client, &oauthError{http.StatusUnauthorized, "invalid_client", "The OAuth client was not found."}
	case !equal(secret, client.Secret):
		return client, &oauthError{http.StatusUnauthorized, "invalid_client", "Unauthorized"}
	}
	return client, nil
}

// redeem uses a code up, even if the request is then refused. The caller does the locking.
func (g *GoogleCalendar) redeem(client CalendarClient, form url.Values) (calendarGrant, error) {
	code := form.Get("code")
	kept, ok := g.codes.get(g.opts.Now(), code)
	if !ok {
		if !strings.HasPrefix(code, "4/") {
			return calendarGrant{}, refuse("invalid_grant", "Malformed auth code.")
		}
		return calendarGrant{}, refuse("invalid_grant", "Bad Request")
	}
	grant := *kept
	g.codes.drop(code)
	switch {
	case grant.client != client.ID:
		return grant, refuse("invalid_grant", "Bad Request")
	case form.Get("redirect_uri") != grant.redirect: // RFC 6749 §4.1.3
		return grant, refuse("redirect_uri_mismatch", "Bad Request")
	case grant.challenge != "" && !form.Has("code_verifier"):
		return grant, refuse("invalid_grant", "Missing code verifier.")
	case grant.challenge != "" && !verifies(form.Get("code_verifier"), grant.challenge):
		return grant, refuse("invalid_grant", "Invalid code verifier.")
	}
	if grant.offline && g.opts.RefreshLife > 0 {
		grant.until = g.opts.Now().Add(g.opts.RefreshLife)
	}
	return grant, nil
}

// issueRefresh stores a refresh token. The caller does the locking.
func (g *GoogleCalendar) issueRefresh(grant calendarGrant) string {
	same := func(x calendarGrant) bool { return x.person.Key == grant.person.Key && x.client == grant.client }
	n := 0
	for _, x := range g.refresh {
		if same(x) {
			n++
		}
	}
	if n >= maxRefresh {
		oldest := slices.IndexFunc(g.refresh, same)
		g.refresh = slices.Delete(g.refresh, oldest, oldest+1)
	}
	grant.token = "1//0" + random()
	g.refresh = append(g.refresh, grant)
	consent := g.consents[grant.person.Key]
	consent.offline = union(consent.offline, []string{grant.client})
	g.consents[grant.person.Key] = consent
	return grant.token
}

// refreshed finds a refresh token, which stays what it is. The caller does the locking.
func (g *GoogleCalendar) refreshed(client CalendarClient, token string) (calendarGrant, error) {
	for _, x := range g.refresh {
		if x.client == client.ID && equal(x.token, token) && g.lasts(x) {
			return x, nil
		}
	}
	return calendarGrant{}, refuse("invalid_grant", "Token has been expired or revoked.")
}

// grantedNames spells scopes as Google's answers do: two of the short names come back long,
// and not in the order of the request.
func grantedNames(scope []string) []string {
	var out []string
	for _, s := range scope {
		switch s {
		case "email", "profile":
			s = scopePrefix + "userinfo." + s
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// idClaims: https://developers.google.com/identity/openid-connect/openid-connect#an-id-tokens-payload
func (g *GoogleCalendar) idClaims(grant calendarGrant, access string) map[string]any {
	now, half := g.opts.Now(), sha256.Sum256([]byte(access))
	claims := map[string]any{
		"iss": g.opts.Issuer, "azp": grant.client, "aud": grant.client, "sub": numericID(grant.person.Key),
		"iat": now.Unix(), "exp": now.Add(accessLife).Unix(),
		"at_hash": base64.RawURLEncoding.EncodeToString(half[:len(half)/2]),
	}
	if grant.nonce != "" {
		claims["nonce"] = grant.nonce
	}
	if slices.Contains(grant.scope, "email") {
		claims["email"], claims["email_verified"] = grant.person.Email, grant.person.EmailVerified
	}
	if slices.Contains(grant.scope, "profile") {
		claims["name"] = grant.person.Name
	}
	if grant.person.OrgDomain != "" {
		claims["hd"] = grant.person.OrgDomain
	}
	return claims
}

func (g *GoogleCalendar) keys() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{g.key.public}}
}

// revoke ends everything that the person has granted to the project, by any of its tokens.
// No client has to prove itself. The token may be in the query, as in Google's example.
// https://developers.google.com/identity/protocols/oauth2/web-server#tokenrevoke
func (g *GoogleCalendar) revoke(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return refuse("invalid_request", "Bad Request")
	}
	token := r.Form.Get("token")
	if token == "" {
		return refuse("invalid_request", "Bad Request")
	}
	person, ok := g.owner(token)
	if !ok {
		return refuse("invalid_token", "Token expired or revoked")
	}
	g.TakeBack(person)
	return writeJSON(w, http.StatusOK, struct{}{})
}

// owner is the key of the person whose token it is.
func (g *GoogleCalendar) owner(token string) (string, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if x, ok := g.access.get(g.opts.Now(), token); ok {
		return x.person.Key, true
	}
	for _, x := range g.refresh {
		if equal(x.token, token) && g.lasts(x) {
			return x.person.Key, true
		}
	}
	return "", false
}
