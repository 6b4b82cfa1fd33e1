package login

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	maxToken     = 64 << 10         // before anything is decoded (CVE-2025-27144, CVE-2025-22868)
	maxKeys      = 100              // in one set
	minRSA       = 2048             // bits, NIST SP 800-131A
	keysInterval = 30 * time.Second // in which a budget gets one more fetch
	signInKeys   = 3                // fetches that sign-ins may cause at once
	tokenKeys    = 1                // the same for access tokens, which strangers can make up, and renewals
	firstKeys    = time.Second      // between fetches while there is no key to verify with: waiting would refuse everybody
	keysFresh    = time.Hour        // then looked at again, so that a withdrawn key goes
)

// keySet holds a provider's signing keys. go-oidc's asks the provider again for
// every key id it does not know, takes keys of any strength, and a set that was
// fetched empty replaces a good one.
type keySet struct {
	url  string // "": the keys are given, and all there are
	algs []jose.SignatureAlgorithm
	hop  func(to string) bool // may the document point to another? nil: never

	client *http.Client
	now    func() time.Time
	log    *slog.Logger
	flight singleflight.Group

	mu        sync.Mutex
	keys      []signingKey // the last good ones
	passed    []string     // why others of that set are not used
	version   int          // of keys
	fetched   time.Time    // when they were
	attempted time.Time
	failure   error // of the latest attempt

	signIns, others *budget // for fetches because of a key that is not known
}

// budget is how many fetches one kind of token may cause: most at once, and one
// more for each keysInterval that passes. Whatever spends one has no say in
// another's.
type budget struct {
	name string
	most int
	used int
	from time.Time // when the oldest that counts was taken, or one was given back
}

// take reports whether there is one, and takes it.
func (b *budget) take(now time.Time) bool {
	for b.used > 0 && elapsed(now, b.from, keysInterval) {
		b.used--
		b.from = b.from.Add(keysInterval)
		if now.Before(b.from) { // the clock was set back
			b.used, b.from = 0, now
		}
	}
	if b.used == 0 {
		b.from = now
	}
	if b.used == b.most {
		return false
	}
	b.used++
	return true
}

// signingKey is a key, and for whom it may sign where the provider says so
// (the member issuer, which go-jose drops).
type signingKey struct {
	jose.JSONWebKey
	issuer string
}

// signed is what a good signature vouches for. What the payload says has not
// been looked at.
type signed struct {
	payload             []byte
	alg, typ, keyIssuer string
}

// keySet is that of the address, or of the keys that were given.
func (p *Provider) keySet(url string, algs []jose.SignatureAlgorithm) *keySet {
	if p.given != nil {
		return &keySet{algs: p.givenAlgs(), keys: p.given}
	}
	return &keySet{url: url, algs: algs, hop: p.dialect.jwksRedirect, client: p.client.HTTPClient("jwks"), now: p.now, log: p.log,
		signIns: &budget{name: "sign-ins", most: signInKeys}, others: &budget{name: "others", most: tokenKeys}}
}

// verify opens a compact JWS that one of the provider's keys signed. A key that is
// not known is asked for on the account of from.
func (s *keySet) verify(ctx context.Context, token string, from *budget) (signed, error) {
	head, jws, err := s.parse(token)
	if err != nil {
		return signed{}, err
	}
	version, content, err := s.tryKeys(jws, head)
	switch {
	case s.url == "":
		return content, err
	case err == nil:
		s.renew(ctx)
		return content, nil
	}
	// The key may be newer than our copy: providers rotate between issue and check.
	if err := s.fetch(ctx, from, version); err != nil {
		return signed{}, documentError(err)
	}
	_, content, err = s.tryKeys(jws, head)
	return content, err
}

// header is what we read of a JOSE header. Where keys are said to be found
// (jku, x5u, jwk, x5c) is not for the token to say, and not read.
type header struct{ alg, kid, typ string }

func (s *keySet) parse(token string) (header, *jose.JSONWebSignature, error) {
	refuse := func(why string) (header, *jose.JSONWebSignature, error) {
		return header{}, nil, fail(identity.Rejected, "ID token: %s", why)
	}
	if len(token) > maxToken {
		return refuse("longer than 64 KiB")
	}
	if strings.Count(token, ".") == 4 { // RFC 7516 §3.1
		return refuse("not three parts of base64url but five: encrypted (JWE), which is not supported; have the provider sign tokens and not encrypt them")
	}
	// base64 decoders skip line breaks; a token has none (RFC 7515 §7.1).
	if strings.Count(token, ".") != 2 || strings.ContainsFunc(token, notCompact) {
		return refuse("not three parts of base64url")
	}
	first, _, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil {
		return refuse("the header is not base64url")
	}
	members, err := oauth.Object(raw)
	if err != nil {
		return refuse("the header is not a proper JSON object")
	}
	if _, present := members["crit"]; present { // RFC 7515 §4.1.11: we know no extension
		return refuse("the header names critical extensions")
	}
	if _, present := members["b64"]; present { // RFC 7797 §7: never without crit, never in a JWT
		return refuse("the header has b64")
	}
	var h header
	if json.Unmarshal(members["alg"], &h.alg) != nil || !slices.Contains(s.algs, jose.SignatureAlgorithm(h.alg)) {
		return refuse(s.otherAlgorithm(claims(members)))
	}
	if kid, present := members["kid"]; present && json.Unmarshal(kid, &h.kid) != nil {
		return refuse("kid is not a string")
	}
	_ = json.Unmarshal(members["typ"], &h.typ) // who asks for a type refuses what is none
	jws, err := jose.ParseSignedCompact(token, s.algs)
	if err != nil {
		for _, name := range []string{"x5c", "jwk"} { // which our parser reads although we do not
			if _, present := members[name]; present {
				return refuse("cannot be read: " + name + " in the header may be malformed")
			}
		}
		return refuse("not a signed token")
	}
	return h, jws, nil
}

// otherAlgorithm says what is wrong with alg, and what takes it if anything does.
func (s *keySet) otherAlgorithm(head claims) string {
	var known []string
	for _, a := range s.algs {
		known = append(known, string(a))
	}
	help := ""
	if alg, _ := head.text("alg"); alg == string(jose.HS256) {
		help = "; the quirk " + quirkHS256 + " takes HS256 with the client secret"
	}
	return "signed with an algorithm that the provider does not announce or we do not accept: alg is " + head.quoted("alg") +
		", accepted are " + strings.Join(known, ", ") + help
}

func notCompact(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.')
}

// tryKeys verifies with the keys at hand that the header may mean, and says of
// which version they are.
func (s *keySet) tryKeys(jws *jose.JSONWebSignature, h header) (int, signed, error) {
	s.mu.Lock()
	held, version, passed := s.keys, s.version, s.passed
	s.mu.Unlock()
	content, err := s.tryThese(held, passed, jws, h)
	return version, content, err
}

func (s *keySet) tryThese(held []signingKey, passed []string, jws *jose.JSONWebSignature, h header) (signed, error) {
	given := s.url == "" // keys that came without names
	var fit []signingKey
	for _, k := range held {
		if (given || h.kid == "" || k.KeyID == h.kid) && fits(k.JSONWebKey, h.alg) {
			fit = append(fit, k)
		}
	}
	if h.kid == "" && len(fit) > 1 && !given { // OIDC Core §10.1: then the token must say which
		return signed{}, fail(identity.Rejected, "ID token: no key id (kid), and %d keys of the provider fit", len(fit))
	}
	for _, k := range fit {
		if payload, err := jws.Verify(k.Key); err == nil {
			return signed{payload, h.alg, h.typ, k.issuer}, nil
		}
	}
	if len(fit) == 0 {
		return signed{}, fail(identity.Rejected, "ID token: signed with a key that the provider does not list: kid is %s, alg is %s%s", quoted(h.kid), h.alg, alsoPassed(passed))
	}
	return signed{}, fail(identity.Rejected, "ID token: the signature is wrong (alg %s, kid %s): the key at hand is not the one that signed it", h.alg, quoted(h.kid))
}

// fits reports whether k can have made a signature of alg: an RSA key must
// never be tried as anything else (RFC 8725 §2.1, §3.1).
func fits(k jose.JSONWebKey, alg string) bool {
	if k.Algorithm != "" && k.Algorithm != alg {
		return false
	}
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		return alg[:2] == "RS" || alg[:2] == "PS"
	case *ecdsa.PublicKey: // RFC 7518 §3.4: one curve for each
		return alg == map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[key.Curve.Params().BitSize]
	case ed25519.PublicKey:
		return alg == string(jose.EdDSA)
	case []byte: // never out of a key set: readKey takes public keys only
		return alg == string(jose.HS256)
	}
	return false
}

// renew looks at the keys again once they are old, without waiting for it.
func (s *keySet) renew(ctx context.Context) {
	s.mu.Lock()
	old := elapsed(s.now(), s.fetched, keysFresh)
	s.mu.Unlock()
	if old {
		s.start(ctx, s.others, s.heldVersion())
	}
}

func (s *keySet) heldVersion() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// fetch gets keys that are newer than version, unless the budget is spent. It
// returns the failure of the latest attempt.
func (s *keySet) fetch(ctx context.Context, from *budget, version int) error {
	select {
	case r := <-s.start(ctx, from, version):
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *keySet) start(ctx context.Context, from *budget, version int) <-chan singleflight.Result {
	background := context.WithoutCancel(ctx) // others may be waiting for the same answer
	return s.flight.DoChan(from.name, func() (any, error) {
		if ask, failure := s.mayAsk(from, version); !ask {
			return nil, failure
		}
		keys, passed, err := s.get(background)
		s.keep(keys, passed, err)
		if err != nil {
			s.log.WarnContext(background, "fetching the provider's keys failed", "error", err)
		}
		return nil, err
	})
}

// mayAsk reports whether the provider is to be asked; else the failure of the
// latest attempt.
func (s *keySet) mayAsk(from *budget, version int) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.version != version: // they came meanwhile
		return false, nil
	case len(s.keys) == 0:
		return elapsed(s.now(), s.attempted, firstKeys), s.failure
	}
	return from.take(s.now()), s.failure
}

// keep takes new keys. Those that are held stay if there are none to take:
// a short outage at the provider must not end sign-ins.
func (s *keySet) keep(keys []signingKey, passed []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempted, s.failure = s.now(), err
	if err == nil {
		s.keys, s.passed, s.fetched = keys, passed, s.attempted
		s.version++
	}
}

// get returns the keys, and why others in the set are not used.
func (s *keySet) get(ctx context.Context) (keys []signingKey, passed []string, err error) {
	set, err := s.read(ctx, s.url)
	if err != nil {
		return nil, nil, err
	}
	if next := set.text("jwks_uri"); next != "" && s.hop != nil && !set.has("keys") { // where a document sends us that has no keys itself
		if !s.hop(next) {
			return nil, nil, errors.New("jwks request: the answer points away from the provider")
		}
		if set, err = s.read(ctx, next); err != nil {
			return nil, nil, err
		}
	}
	keys, passed, err = readKeys(set)
	switch {
	case err != nil:
		return nil, nil, unreadable("the key set", err)
	case len(keys) == 0:
		return nil, nil, unreadable("the key set", fmt.Errorf("no usable key in the answer%s", alsoPassed(passed)))
	}
	return keys, passed, nil
}

func (s *keySet) read(ctx context.Context, address string) (*document, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("jwks_uri is not a URL")
	}
	body, _, err := getDocument(s.client, req)
	if err != nil {
		return nil, err
	}
	set, err := readDocument(body, "keys", "jwks_uri")
	if err != nil {
		return nil, unreadable("the key set", err)
	}
	return set, nil
}

// getDocument reads what oauth's client has capped and classed already.
func getDocument(client *http.Client, req *http.Request) ([]byte, http.Header, error) {
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		var call *oauth.Error
		if errors.As(err, &call) {
			return nil, nil, call // without the library's words around it
		}
		return nil, nil, errors.New("the request could not be made")
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, errors.New("the answer could not be read")
	}
	return body, resp.Header, nil
}

const maxPassed = 3 // keys of which it is said why they are not used

// readKeys returns the public signing keys of a JWK set that are good enough.
// The others are passed over, as RFC 7517 §5 wants it, with the reason.
func readKeys(set *document) (keys []signingKey, passed []string, err error) {
	raw := set.values("keys")
	switch {
	case set.err != nil:
		return nil, nil, set.err
	case len(raw) > maxKeys:
		return nil, nil, fmt.Errorf("keys has %d of them, and must have at most %d", len(raw), maxKeys)
	}
	for i, r := range raw {
		k, err := readKey(r)
		switch {
		case err == nil:
			keys = append(keys, k)
		case len(passed) < maxPassed:
			passed = append(passed, fmt.Sprintf("keys[%d]: %v", i, err))
		}
	}
	return keys, passed, nil
}

// alsoPassed tells of the keys that are not used.
func alsoPassed(reasons []string) string {
	if len(reasons) == 0 {
		return ""
	}
	return "; not used: " + strings.Join(reasons, "; ")
}

// readKey reads the members that say what a key is and what it is for. Who vouches
// for it (x5c and its like) is not looked at: the key is what we trust.
func readKey(raw json.RawMessage) (signingKey, error) {
	var k signingKey
	refuse := func(why string) (signingKey, error) { return signingKey{}, errors.New(why) }
	d, err := readDocument(raw, "kty", "kid", "use", "key_ops", "alg", "n", "e", "crv", "x", "y", "issuer", "d", "k")
	if err != nil {
		return signingKey{}, err
	}
	for _, name := range []string{"kty", "kid", "alg", "crv"} {
		d.text(name)
	}
	use, ops := d.text("use"), d.list("key_ops")
	if k.issuer, _ = claims(d.members).text("issuer"); d.err != nil {
		return signingKey{}, d.err
	}
	switch {
	case d.has("d") || d.has("k"):
		return refuse("it is a private or secret key")
	case use != "" && use != "sig":
		return refuse("it is not for signatures (use)")
	case d.has("key_ops") && !slices.Contains(ops, "verify"):
		return refuse("it is not for signatures (key_ops)")
	}
	delete(d.members, "issuer")
	bare, err := json.Marshal(d.members)
	if err != nil || json.Unmarshal(bare, &k.JSONWebKey) != nil || !k.IsPublic() {
		return refuse("it is of a kind that is not known here, or malformed")
	}
	if weak(k.Key) {
		return refuse("it is too weak")
	}
	return k, nil
}

func weak(key any) bool {
	k, isRSA := key.(*rsa.PublicKey)
	return isRSA && (k.N.BitLen() < minRSA || k.E < 3 || k.E%2 == 0)
}
