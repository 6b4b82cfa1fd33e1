// Package assertion signs the identity assertion: a short-lived JWT that tells
// an app who is asking, so that the app need not trust the network between.
//
// It owns the signing keys, which are derived from the session keys (no extra
// secret, the same on all replicas, the same overlap when they rotate), the
// JWKS that apps verify with, what it signed and opened lately, because one signature
// per session, route and minute is enough, the check of an assertion that an app
// shows to Sallyport, and the tokens that tell apps of events, with the same keys.
// It never decides what somebody may do: apps and authz do. Plain identity headers
// live in identity.
package assertion

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/recent"
)

const (
	// Lifetime is how long an assertion is good from the minute it was made in.
	Lifetime = 5 * time.Minute
	// SeedBytes is what a key is made from: 8 bytes more than the curve's order,
	// so that reducing leaves no bias worth naming (FIPS 186-5 §A.2.1).
	SeedBytes = 40
	// cacheBytes bounds the assertions that are kept, those that were signed and those
	// that were shown: 16 MiB are some 14,000 of a kilobyte each.
	cacheBytes = 16 << 20
	entryBytes = 128 // what one costs beyond the bytes of its strings, about
)

// Options configure a Signer. All but Now are required.
type Options struct {
	Issuer string
	// Seeds are SeedBytes each, derived from the session keys, in their order.
	Seeds [][]byte
	// Signing tells which seed's key signs now. It is asked once per signature.
	Signing func(now time.Time) int
	Now     func() time.Time
}

// Signer makes assertions. It is safe for concurrent use.
type Signer struct {
	issuer  string
	keys    []jose.JSONWebKey           // private, of all seeds
	signers []jose.Signer               // of assertions
	public  map[string]*ecdsa.PublicKey // by key id, of all seeds
	signing func(time.Time) int
	now     func() time.Time
	jwks    []byte
	signed  *recent.Cache[cacheKey, cached]
	opened  *recent.Cache[string, *claims] // by the token, whose signature was found to be ours
}

type cacheKey struct{ caller, audience string }

type cached struct {
	minute int64
	value  []string
}

// Forget drops the assertions that s remembers. It makes and opens them as before.
func (s *Signer) Forget() {
	s.signed.Clear()
	s.opened.Clear()
}

// New derives the keys and renders the JWKS.
func New(o Options) (*Signer, error) {
	if o.Issuer == "" || len(o.Seeds) == 0 || o.Signing == nil {
		return nil, errors.New("assertion: issuer, seeds and signing are required")
	}
	s := &Signer{issuer: o.Issuer, signing: o.Signing, now: o.Now, public: map[string]*ecdsa.PublicKey{},
		signed: recent.New[cacheKey, cached](cacheBytes), opened: recent.New[string, *claims](cacheBytes)}
	if s.now == nil {
		s.now = time.Now
	}
	var public jose.JSONWebKeySet
	for _, seed := range o.Seeds {
		key, err := keyFrom(seed)
		if err != nil {
			return nil, err
		}
		kid, err := thumbprint(key)
		if err != nil {
			return nil, err
		}
		private := jose.JSONWebKey{Key: key, KeyID: kid}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private},
			(&jose.SignerOptions{}).WithType("JWT"))
		if err != nil {
			return nil, fmt.Errorf("assertion: make signer: %w", err)
		}
		s.keys, s.signers = append(s.keys, private), append(s.signers, signer)
		s.public[kid] = &key.PublicKey
		public.Keys = append(public.Keys,
			jose.JSONWebKey{Key: key.Public(), KeyID: kid, Algorithm: string(jose.ES256), Use: "sig"})
	}
	jwks, err := json.Marshal(public)
	if err != nil {
		return nil, fmt.Errorf("assertion: render JWKS: %w", err)
	}
	s.jwks = jwks
	return s, nil
}

// keyFrom makes the P-256 key d = seed mod (n-1) + 1 (FIPS 186-5 §A.2.1).
func keyFrom(seed []byte) (*ecdsa.PrivateKey, error) {
	if len(seed) != SeedBytes {
		return nil, fmt.Errorf("assertion: a seed has %d bytes, not %d", SeedBytes, len(seed))
	}
	one := big.NewInt(1)
	order := new(big.Int).Sub(elliptic.P256().Params().N, one)
	d := new(big.Int).SetBytes(seed)
	d.Mod(d, order).Add(d, one)
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d.FillBytes(make([]byte, 32)))
	if err != nil {
		return nil, fmt.Errorf("assertion: make key: %w", err)
	}
	return key, nil
}

// thumbprint is the key id: RFC 7638.
func thumbprint(key *ecdsa.PrivateKey) (string, error) {
	sum, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("assertion: key id: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// JWKS is the set of public keys, of all session keys, as JSON. Do not change it.
func (s *Signer) JWKS() []byte { return s.jwks }

// claims are what an app may rely on. Unverified addresses are left out. SID and
// SessionEnd are there only where the caller has a session.
type claims struct {
	Issuer     string           `json:"iss"`
	Subject    string           `json:"sub"`
	Audience   string           `json:"aud"`
	IssuedAt   *jwt.NumericDate `json:"iat"`
	NotBefore  *jwt.NumericDate `json:"nbf,omitempty"` // is not written; Verify obeys it
	Expires    *jwt.NumericDate `json:"exp"`
	SID        string           `json:"sid,omitempty"`
	SessionEnd *jwt.NumericDate `json:"session_end,omitempty"`
	Email      string           `json:"email,omitempty"`
	Verified   bool             `json:"email_verified,omitempty"`
	Name       string           `json:"name,omitempty"`
	Username   string           `json:"preferred_username,omitempty"`
	Groups     []string         `json:"groups,omitempty"`
	Unknown    bool             `json:"groups_unknown,omitempty"`
	Org        *orgClaim        `json:"org,omitempty"`
}

type orgClaim struct {
	ID     string `json:"id"`
	Name   string `json:"name,omitempty"`
	Domain string `json:"domain,omitempty"`
}

// Caller is who an assertion is about.
type Caller struct {
	// Key stands for one identity and one end, such as the id of a session: what is
	// kept is kept under it.
	Key      string
	Identity *identity.Identity
	// SID names the session to apps, see session.Session.SID. "": there is none, as
	// with an access token.
	SID string
	// Since is when the sign-in was; zero: not known. No assertion says that it is older: what
	// ended before does not end what rests on it.
	Since time.Time
	// End is when the session or the token ends, whatever happens until then.
	End time.Time
}

// Sign returns the assertion about a caller for an audience (the route's name),
// good until Lifetime is over, or until what it rests on ends. Within a minute the
// same arguments give the same token. It is the one value of a header, which callers
// share: they do not change it.
func (s *Signer) Sign(about Caller, audience string) ([]string, error) {
	now := s.now()
	key, minute := cacheKey{about.Key, audience}, now.Unix()/60
	if c, ok := s.signed.Get(key); ok && c.minute == minute {
		return c.value, nil
	}
	issued := time.Unix(minute*60, 0)
	if since := about.Since.Truncate(time.Second); since.After(issued) && !since.After(now) {
		issued = since
	}
	token, err := s.sign(about, audience, issued, now)
	if err != nil {
		return nil, fmt.Errorf("sign assertion: %w", err)
	}
	value := []string{token}
	s.signed.Put(key, cached{minute, value}, len(about.Key)+len(audience)+len(token)+entryBytes)
	return value, nil
}

func (s *Signer) sign(about Caller, audience string, issued, now time.Time) (string, error) {
	id, until := about.Identity, about.End
	if most := issued.Add(Lifetime); most.Before(until) {
		until = most
	}
	c := claims{
		Issuer: s.issuer, Subject: id.ID(), Audience: audience,
		IssuedAt: jwt.NewNumericDate(issued), Expires: jwt.NewNumericDate(until),
		Email: id.VerifiedEmail(), Verified: id.VerifiedEmail() != "",
		Name: id.Name, Username: id.Username, Groups: id.Groups, Unknown: id.GroupsUnknown,
	}
	if about.SID != "" {
		c.SID, c.SessionEnd = about.SID, jwt.NewNumericDate(about.End)
	}
	if id.Org.ID != "" {
		c.Org = &orgClaim{ID: id.Org.ID, Name: id.Org.Name, Domain: id.Org.Domain}
	}
	return jwt.Signed(s.signers[s.signing(now)]).Claims(c).Serialize()
}
