package assertion

import (
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// EventType is the media type of an event, without "application/", and its typ.
const EventType = "secevent+jwt" // RFC 8417 §2.3

// Event is a security event token (RFC 8417). It has neither sub nor exp, so that nobody who
// looks for those takes it for an assertion (§4.6); Verify refuses it for its typ, too.
type Event struct {
	ID       string // the same however often the event is told
	Audience string
	At       time.Time // when it happened
	Kind     string    // a URI
	About    any       // an object for Kind to describe
}

type eventClaims struct {
	Issuer   string           `json:"iss"`
	ID       string           `json:"jti"`
	Audience string           `json:"aud"`
	IssuedAt *jwt.NumericDate `json:"iat"`
	At       *jwt.NumericDate `json:"toe"`
	Events   map[string]any   `json:"events"`
}

// SignEvent signs e with a key of JWKS.
func (s *Signer) SignEvent(e Event) (string, error) {
	now := s.now()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.keys[s.signing(now)]},
		(&jose.SignerOptions{}).WithType(EventType))
	if err != nil {
		return "", fmt.Errorf("sign event: %w", err)
	}
	token, err := jwt.Signed(signer).Claims(eventClaims{Issuer: s.issuer, ID: e.ID, Audience: e.Audience,
		IssuedAt: jwt.NewNumericDate(now), At: jwt.NewNumericDate(e.At),
		Events: map[string]any{e.Kind: e.About}}).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign event: %w", err)
	}
	return token, nil
}
