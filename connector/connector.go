// Package connector has what connectors of all kinds share: what is known of our client at a
// third party, what a failed call to an authorization server means for a grant, how scopes are
// compared, and the parameters with which browsers are sent away.
//
// Each third party has a folder of its own below, with what is not standard about it. This
// package knows no third party by name, makes no request (that is oauth's), and keeps
// nothing (that is grant's).
package connector

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// Dialect is what an authorization endpoint wants otherwise than the standard. The zero value
// is the standard.
type Dialect struct {
	Separator string // between scopes; "": a blank (RFC 6749 §3.3)
	// NoPKCE: no challenge is sent, because the third party takes none from such a client.
	NoPKCE bool
}

// Authorize is Dialect.Authorize of the standard.
func Authorize(endpoint, clientID string, h identity.Handshake, r grant.Request, further url.Values) (string, error) {
	return Dialect{}.Authorize(endpoint, clientID, h, r, further)
}

// Authorize is the address that a browser is sent to for an authorization code, with state
// and PKCE (RFC 6749 §4.1.1, RFC 7636 §4.3). further is added; it may say nothing about
// what is written here. The query that endpoint has stays in front.
func (d Dialect) Authorize(endpoint, clientID string, h identity.Handshake, r grant.Request, further url.Values) (
	string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Fragment != "" {
		return "", errors.New("the authorization endpoint is not an absolute URL")
	}
	if h.State == "" || h.Verifier == "" || r.RedirectURI == "" {
		return "", errors.New("state, verifier or redirect URI is missing")
	}
	q := url.Values{
		"response_type": {"code"},
		"client_id":     {clientID},
		"redirect_uri":  {r.RedirectURI},
		"state":         {h.State},
	}
	if !d.NoPKCE {
		q.Set("code_challenge", Challenge(h.Verifier))
		q.Set("code_challenge_method", "S256")
	}
	if len(r.Scopes) > 0 {
		q.Set("scope", strings.Join(r.Scopes, cmp.Or(d.Separator, " ")))
	}
	for name, values := range further {
		if !q.Has(name) {
			q[name] = values
		}
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += q.Encode()
	return u.String(), nil
}

// Challenge is the code_challenge of a verifier with S256 (RFC 7636 §4.2).
func Challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Code reads the authorization code of a callback. A callback without exactly one is an
// error of the class Ours or, where the third party says so, of who can do something.
func (c Codes) Code(callback url.Values) (string, error) {
	if callback.Has("error") {
		return "", c.Refused(callback.Get("error"))
	}
	if code := callback["code"]; len(code) == 1 && code[0] != "" {
		return code[0], nil
	}
	return "", &grant.Error{Class: grant.Ours, Reason: Garbled, Err: errors.New("the callback has no code")}
}

// Tokens makes a credential of an answer of the token endpoint that came just now.
func Tokens(t oauth.TokenResponse, now time.Time) (grant.Tokens, error) {
	if t.AccessToken == "" {
		return grant.Tokens{}, &grant.Error{Class: grant.Lost, Reason: Garbled,
			Err: errors.New("the answer has no access token")}
	}
	out := grant.Tokens{Access: t.AccessToken, AccessIssued: now, Refresh: t.RefreshToken}
	if t.ExpiresIn != 0 {
		out.AccessExpires = now.Add(t.ExpiresIn)
	}
	return out, nil
}

// What of the scopes that a third party names is kept and shown to people.
const (
	mostScopes = 500
	longScope  = 1024 // bytes
)

// Scopes splits the text of a scope parameter or member (RFC 6749 §3.3). It is nil where
// the text is empty, so that "nobody said" stays apart from what was said. What no request could
// name is left out, and so is what is beyond the first mostScopes.
func Scopes(text string) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	scopes := slices.DeleteFunc(strings.Fields(text), func(s string) bool {
		return len(s) > longScope || strings.ContainsFunc(s, notInScope)
	})
	slices.Sort(scopes)
	scopes = slices.Compact(scopes)
	return slices.Clone(scopes[:min(len(scopes), mostScopes)])
}

// Missing are those of want that are not in granted, in the order of want. Scopes are
// sets: their order and how often one comes means nothing.
func Missing(want, granted []string) []string {
	var missing []string
	for _, scope := range want {
		if !slices.Contains(granted, scope) && !slices.Contains(missing, scope) {
			missing = append(missing, scope)
		}
	}
	return missing
}

// Narrow is the error of a connection to which too little was granted; nil where nothing
// is missing.
func Narrow(missing []string) error {
	if len(missing) == 0 {
		return nil
	}
	return &grant.Error{Class: grant.Narrow, Reason: ScopesMissing, Missing: missing,
		Err: errors.New("not every scope that was asked for was granted")}
}
