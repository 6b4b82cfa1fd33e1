package login

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
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
	keysInterval = 30 * time.Second // at most one fetch in this time, whatever its outcome
	firstKeys    = time.Second      // the same while there is none to verify with: waiting would refuse everybody
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
	fetched   time.Time    // when they were
	attempted time.Time
	failure   error // of the latest attempt
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
	return &keySet{url: url, algs: algs, hop: p.policy.keyHop, client: p.client.HTTPClient("jwks"), now: p.now, log: p.log}
}

// verify opens a compact JWS that one of the provider's keys signed.
func (s *keySet) verify(ctx context.Context, token string) (signed, error) {
	head, jws, err := s.parse(token)
	if err != nil {
		return signed{}, err
	}
	content, err := s.tryKeys(jws, head)
	switch {
	case s.url == "":
		return content, err
	case err == nil:
		s.renew(ctx)
		return content, nil
	}
	// The key may be newer than our copy: providers rotate between issue and check.
	if err := s.fetch(ctx); err != nil {
		return signed{}, &identity.SignInError{Failure: identity.Unavailable, Err: err}
	}
	return s.tryKeys(jws, head)
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

// tryKeys verifies with the keys at hand that the header may mean.
func (s *keySet) tryKeys(jws *jose.JSONWebSignature, h header) (signed, error) {
	s.mu.Lock()
	held := s.keys
	s.mu.Unlock()
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
		return signed{}, fail(identity.Rejected, "ID token: signed with a key that the provider does not list: kid is %s, alg is %s", quoted(h.kid), h.alg)
	}
	return signed{}, fail(identity.Rejected, "ID token: the signature is wrong (alg %s, kid %s): the key at hand is not the one that signed it", h.alg, quoted(h.kid))
}

// fits reports whether k can have made a signature of alg: an RSA key must
// never be tried as anything else (security.md 98, 102).
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
		s.start(ctx)
	}
}

// fetch gets the keys, unless that was tried a moment ago. It returns the
// failure of the latest attempt.
func (s *keySet) fetch(ctx context.Context) error {
	select {
	case r := <-s.start(ctx):
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *keySet) start(ctx context.Context) <-chan singleflight.Result {
	background := context.WithoutCancel(ctx) // others may be waiting for the same answer
	return s.flight.DoChan("", func() (any, error) {
		s.mu.Lock()
		interval := keysInterval
		if len(s.keys) == 0 {
			interval = firstKeys
		}
		again, failure := elapsed(s.now(), s.attempted, interval), s.failure
		s.mu.Unlock()
		if !again {
			return nil, failure
		}
		keys, err := s.get(background)
		s.keep(keys, err)
		if err != nil {
			s.log.WarnContext(background, "fetching the provider's keys failed", "error", err)
		}
		return nil, err
	})
}

// keep takes new keys. Those that are held stay if there are none to take:
// a provider's bad minute must not end sign-ins (security.md R8).
func (s *keySet) keep(keys []signingKey, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempted, s.failure = s.now(), err
	if err == nil {
		s.keys, s.fetched = keys, s.attempted
	}
}

func (s *keySet) get(ctx context.Context) ([]signingKey, error) {
	body, err := s.read(ctx, s.url)
	if err != nil {
		return nil, err
	}
	if next := pointer(body); next != "" && s.hop != nil {
		if !s.hop(next) {
			return nil, errors.New("jwks request: the answer points away from the provider")
		}
		if body, err = s.read(ctx, next); err != nil {
			return nil, err
		}
	}
	keys := readKeys(body)
	if len(keys) == 0 {
		return nil, errors.New("jwks request: no usable key in the answer")
	}
	return keys, nil
}

func (s *keySet) read(ctx context.Context, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("jwks_uri is not a URL")
	}
	body, _, err := getDocument(s.client, req)
	return body, err
}

// pointer is where a document sends us that has no keys itself.
func pointer(document []byte) string {
	members, err := oauth.Object(document)
	if _, set := members["keys"]; err != nil || set {
		return ""
	}
	next, _ := claims(members).text("jwks_uri")
	return next
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

// readKeys returns the public signing keys of a JWK set that are good enough.
// The others are passed over, as RFC 7517 §5 wants it.
func readKeys(set []byte) []signingKey {
	members, err := oauth.Object(set)
	if err != nil {
		return nil
	}
	var raw []json.RawMessage
	if json.Unmarshal(members["keys"], &raw) != nil || len(raw) > maxKeys {
		return nil
	}
	var keys []signingKey
	for _, r := range raw {
		if k, ok := readKey(r); ok {
			keys = append(keys, k)
		}
	}
	return keys
}

func readKey(raw json.RawMessage) (signingKey, bool) {
	var k signingKey
	members, err := oauth.Object(raw)
	if err != nil {
		return k, false
	}
	if ops, present := members["key_ops"]; present {
		var names []string
		if json.Unmarshal(ops, &names) != nil || !slices.Contains(names, "verify") {
			return k, false
		}
	}
	for _, certificate := range []string{"x5c", "x5u", "x5t", "x5t#S256"} {
		delete(members, certificate) // the key is what we trust, not who vouched for it
	}
	bare, err := json.Marshal(members)
	if err != nil || json.Unmarshal(bare, &k.JSONWebKey) != nil || !k.IsPublic() || weak(k.Key) {
		return k, false
	}
	k.issuer, _ = claims(members).text("issuer")
	return k, k.Use == "" || k.Use == "sig"
}

func weak(key any) bool {
	k, isRSA := key.(*rsa.PublicKey)
	return isRSA && (k.N.BitLen() < minRSA || k.E < 3 || k.E%2 == 0)
}
