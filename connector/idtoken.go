package connector

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// IDTokenRefused is the reason where there is an ID token, and it is not for this connection.
const IDTokenRefused = "id_token_refused"

// IDTokenCheck is what has to be true of an ID token that came with an answer of the token
// endpoint.
type IDTokenCheck struct {
	// Refreshed: it came with a refresh, so that its nonce, if it has one, is not known here any
	// more (OpenID Connect Core §12.2).
	Refreshed bool

	Issuers  []string // of which iss has to be one
	ClientID string   // what aud has to be, alone
	// Audiences are those of which aud has to have exactly one beside ClientID; nil: it has none.
	Audiences []string
	Nonce     string // that was sent away with the browser
	// NoNonce: the third party's ID tokens have none, so that only PKCE binds the code to the
	// browser. One that is there all the same is of something else.
	NoNonce bool
	// Has are further claims and what each has to be.
	Has map[string]string
	// IssuedBy decides instead of Issuers where the issuer depends on other claims, which
	// text reads: "" for one that is no string.
	IssuedBy func(text func(claim string) string) bool
	Names    []string // of claims by which people know the account, the best first; nil: email
}

func (c IDTokenCheck) names() []string {
	if c.Names != nil {
		return c.Names
	}
	return []string{"email"}
}

func (c IDTokenCheck) issued(text func(claim string) string) bool {
	if c.IssuedBy != nil {
		return c.IssuedBy(text)
	}
	return slices.Contains(c.Issuers, text("iss"))
}

// IDToken is what an ID token says of the account.
type IDToken struct {
	Subject string // never empty
	Name    string // for people to read; "": there is none
	// Audience is the one of IDTokenCheck.Audiences.
	Audience string
}

// Read reads an ID token and checks it.
//
// The signature is not checked: the token came from the token endpoint over TLS, and that
// vouches for its issuer (OpenID Connect Core §3.1.3.7 item 6). So a token that came in
// another way, such as with a browser, must never be given to this method. All the other
// checks of §3.1.3.7 are made; beyond them, aud may have one value only. Errors are of type
// *grant.Error and quote nothing.
func (c IDTokenCheck) Read(raw string, now time.Time) (IDToken, error) {
	if raw == "" {
		return IDToken{}, &grant.Error{Class: grant.Lost, Reason: NoAccount,
			Err: errors.New("the answer has no ID token")}
	}
	t, err := c.read(raw, now)
	if err != nil {
		return IDToken{}, &grant.Error{Class: grant.Lost, Reason: IDTokenRefused, Err: err}
	}
	return t, nil
}

func (c IDTokenCheck) read(raw string, now time.Time) (IDToken, error) {
	claims, err := idTokenClaims(raw)
	if err != nil {
		return IDToken{}, err
	}
	text := func(name string) string {
		var s string
		if json.Unmarshal(claims[name], &s) != nil {
			return ""
		}
		return s
	}
	_, hasAZP := claims["azp"]
	exp, hasExp := date(claims["exp"])
	t, addressed := IDToken{Subject: text("sub")}, false
	t.Audience, addressed = c.audience(claims["aud"])
	switch {
	case !c.issued(text):
		return IDToken{}, errors.New("the ID token is from another issuer")
	case c.ClientID == "" || !addressed:
		return IDToken{}, errors.New("the ID token is not for this client alone")
	case hasAZP && text("azp") != c.ClientID:
		return IDToken{}, errors.New("the ID token was issued to another client")
	case !hasExp || !now.Before(exp):
		return IDToken{}, errors.New("the ID token has expired, or does not say when it does")
	case !c.Refreshed && !c.NoNonce && (c.Nonce == "" || text("nonce") != c.Nonce), c.NoNonce && claims["nonce"] != nil:
		return IDToken{}, errors.New("the ID token is of another connection: its nonce is not the one that was sent")
	case !isSubject(t.Subject):
		return IDToken{}, errors.New("the ID token does not say whose it is")
	}
	for name, want := range c.Has {
		if text(name) != want {
			return IDToken{}, fmt.Errorf("the ID token is not what it has to be: see its %s", name)
		}
	}
	for _, claim := range c.names() {
		if name := text(claim); name != "" && isShown(name) {
			t.Name = name
			break
		}
	}
	return t, nil
}

// idTokenClaims decodes the middle one of the three parts of a signed JWT (RFC 7515 §3.1).
func idTokenClaims(raw string) (map[string]json.RawMessage, error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, errors.New("the ID token is not a signed JWT")
	}
	for _, part := range []string{parts[0], parts[2]} {
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part); part == "" || err != nil {
			return nil, errors.New("the ID token is not a signed JWT")
		}
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return nil, errors.New("the claims of the ID token are not base64url")
	}
	claims, err := oauth.Object(payload)
	if err != nil {
		return nil, errors.New("the claims of the ID token are not one JSON object")
	}
	return claims, nil
}

// audience reads an aud claim, which is a string or a list of strings, and reports whether it
// has this client, alone or with one of Audiences, which it returns.
func (c IDTokenCheck) audience(raw json.RawMessage) (further string, ok bool) {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return "", c.Audiences == nil && one == c.ClientID
	}
	var list []string
	if json.Unmarshal(raw, &list) != nil {
		return "", false
	}
	if c.Audiences == nil {
		return "", len(list) == 1 && list[0] == c.ClientID
	}
	if len(list) != 2 || !slices.Contains(list, c.ClientID) {
		return "", false
	}
	further = list[0]
	if further == c.ClientID {
		further = list[1]
	}
	return further, slices.Contains(c.Audiences, further)
}

// date reads a NumericDate (RFC 7519 §2) within this era.
func date(raw json.RawMessage) (time.Time, bool) {
	const most = 1 << 40
	var n float64
	if raw == nil || json.Unmarshal(raw, &n) != nil || n <= 0 || n > most {
		return time.Time{}, false
	}
	return time.Unix(int64(n), 0), true
}

// isSubject: at most 255 ASCII characters (OpenID Connect Core §2), all visible.
func isSubject(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// isShown: what is shown to people is short and one line.
func isShown(s string) bool {
	return len(s) <= 254 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f && r < 0xa0 })
}
