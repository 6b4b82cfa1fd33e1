package assertion

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/sallyport-proxy/sallyport/identity"
)

// What can be wrong with an assertion that somebody shows. All but ErrExpired mean
// that it was not made here, not for this audience, or was changed.
var (
	ErrMalformed = errors.New("assertion: not an assertion of Sallyport's form")
	ErrKey       = errors.New("assertion: signed with a key that is not in use")
	ErrSignature = errors.New("assertion: the signature is wrong")
	ErrIssuer    = errors.New("assertion: from another issuer")
	ErrAudience  = errors.New("assertion: for another audience")
	ErrNotYet    = errors.New("assertion: not valid yet")
	ErrExpired   = errors.New("assertion: expired")
)

const (
	// maxToken bounds what Verify reads. A request header of net/http could be 1 MiB.
	maxToken = 64 << 10
	// clockSkew is how far the clock of the replica that signed may be ahead. There is
	// none for the end: an app has a new assertion with the next request.
	clockSkew = time.Minute
)

// Verified is what an assertion says, after it was checked.
type Verified struct {
	Subject  string // Identity.ID of the person
	Org      string // id of the active organization; "": none
	Audience string
	SID      string // the session's; "": it rests on an access token
	// SessionEnd is when the session ends at the latest; zero without a session.
	SessionEnd        time.Time
	IssuedAt, Expires time.Time
	// Identity is the person as far as the assertion tells; an address that was not
	// verified is not in it.
	Identity identity.Identity
}

// Verify checks an assertion that one of these replicas signed for one of the
// audiences. Everything must be exactly as Sign writes it: ES256, type JWT, a key
// that is listed now, our issuer, one audience, a life of at most Lifetime that
// has begun and not ended. Nothing can be relaxed. Errors wrap one of those above,
// and quote nothing of the token.
func (s *Signer) Verify(token string, audiences ...string) (Verified, error) {
	c, err := s.open(token)
	if err != nil {
		return Verified{}, err
	}
	if err := s.judge(c, audiences); err != nil {
		return Verified{}, err
	}
	v := Verified{
		Subject: c.Subject, Audience: c.Audience, SID: c.SID, IssuedAt: c.IssuedAt.Time(), Expires: c.Expires.Time(),
	}
	if c.SessionEnd != nil {
		v.SessionEnd = c.SessionEnd.Time()
	}
	if c.Org != nil {
		v.Org = c.Org.ID
	}
	v.Identity = c.identity()
	return v, nil
}

// identity is who the claims are about.
func (c *claims) identity() identity.Identity {
	provider, subject, _ := strings.Cut(c.Subject, ":")
	id := identity.Identity{Provider: provider, Subject: subject, Name: c.Name, Username: c.Username,
		Groups: slices.Clone(c.Groups), GroupsUnknown: c.Unknown}
	if c.Verified {
		id.Email, id.EmailVerified = c.Email, true
	}
	if c.Org != nil {
		id.Org = identity.Org{ID: c.Org.ID, Name: c.Org.Name, Domain: c.Org.Domain}
	}
	return id
}

// open checks form and signature; an app shows the same assertion with each of its requests,
// and its signature is checked once. The key is chosen by its id among our own and
// the algorithm is fixed, so that a token cannot choose how it is verified (RFC
// 8725 §3.1).
func (s *Signer) open(token string) (*claims, error) {
	if c, ok := s.opened.Get(token); ok {
		return c, nil
	}
	if len(token) > maxToken || !canonical(token) {
		return nil, ErrMalformed
	}
	tok, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil || len(tok.Headers) != 1 {
		return nil, ErrMalformed
	}
	head := tok.Headers[0]
	typ, _ := head.ExtraHeaders[jose.HeaderType].(string)
	if typ != "JWT" || len(head.ExtraHeaders) != 1 || head.JSONWebKey != nil || head.Nonce != "" {
		return nil, ErrMalformed
	}
	key, ok := s.public[head.KeyID]
	if !ok {
		return nil, ErrKey
	}
	var c claims
	switch err := tok.Claims(key, &c); {
	case errors.Is(err, jose.ErrCryptoFailure):
		return nil, ErrSignature
	case err != nil:
		return nil, ErrMalformed
	}
	s.opened.Put(token, &c, 2*len(token)+entryBytes)
	return &c, nil
}

// canonical reports whether token is three parts of base64url without padding,
// line breaks or bits that nobody reads: one assertion has one spelling.
func canonical(token string) bool {
	if strings.ContainsAny(token, "\r\n") { // encoding/base64 skips them
		return false
	}
	parts := strings.Split(token, ".")
	for _, part := range parts {
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part); err != nil || part == "" {
			return false
		}
	}
	return len(parts) == 3
}

// judge checks the claims of a token whose signature is ours.
func (s *Signer) judge(c *claims, audiences []string) error {
	now := s.now()
	switch {
	case c.Subject == "" || c.Audience == "" || c.IssuedAt == nil || c.Expires == nil:
		return ErrMalformed
	case (c.SID == "") != (c.SessionEnd == nil):
		return ErrMalformed
	case c.Issuer != s.issuer:
		return ErrIssuer
	case !slices.Contains(audiences, c.Audience):
		return ErrAudience
	case c.Expires.Time().Sub(c.IssuedAt.Time()) > Lifetime:
		return ErrMalformed
	case !now.Before(c.Expires.Time()):
		return ErrExpired
	case c.IssuedAt.Time().After(now.Add(clockSkew)),
		c.NotBefore != nil && c.NotBefore.Time().After(now.Add(clockSkew)):
		return ErrNotYet
	}
	return nil
}
