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
	url  string
	algs []jose.SignatureAlgorithm

	client *http.Client
	now    func() time.Time
	log    *slog.Logger
	flight singleflight.Group

	mu        sync.Mutex
	keys      []jose.JSONWebKey // the last good ones
	fetched   time.Time         // when they were
	attempted time.Time
	failure   error // of the latest attempt
}

func (p *Provider) keySet(url string, algs []jose.SignatureAlgorithm) *keySet {
	return &keySet{url: url, algs: algs, client: p.client.HTTPClient("jwks"), now: p.now, log: p.log}
}

// verify returns the payload of a compact JWS that one of the provider's keys
// signed, and the algorithm. What the payload says is not looked at.
func (s *keySet) verify(ctx context.Context, token string) (payload []byte, alg string, err error) {
	head, jws, err := s.parse(token)
	if err != nil {
		return nil, "", err
	}
	if payload, err = s.tryKeys(jws, head); err == nil {
		s.renew(ctx)
		return payload, head.alg, nil
	}
	// The key may be newer than our copy: providers rotate between issue and check.
	if err := s.fetch(ctx); err != nil {
		return nil, "", &identity.SignInError{Failure: identity.Unavailable, Err: err}
	}
	if payload, err = s.tryKeys(jws, head); err != nil {
		return nil, "", err
	}
	return payload, head.alg, nil
}

// header is what we read of a JOSE header. Where keys are said to be found
// (jku, x5u, jwk, x5c) is not for the token to say, and not read.
type header struct{ alg, kid string }

func (s *keySet) parse(token string) (header, *jose.JSONWebSignature, error) {
	refuse := func(why string) (header, *jose.JSONWebSignature, error) {
		return header{}, nil, fail(identity.Rejected, "ID token: %s", why)
	}
	if len(token) > maxToken {
		return refuse("longer than 64 KiB")
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
		return refuse("signed with an algorithm that the provider does not announce or we do not accept")
	}
	if kid, present := members["kid"]; present && json.Unmarshal(kid, &h.kid) != nil {
		return refuse("kid is not a string")
	}
	jws, err := jose.ParseSignedCompact(token, s.algs)
	if err != nil {
		return refuse("not a signed token")
	}
	return h, jws, nil
}

func notCompact(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.')
}

// tryKeys verifies with the keys at hand that the header may mean.
func (s *keySet) tryKeys(jws *jose.JSONWebSignature, h header) ([]byte, error) {
	s.mu.Lock()
	held := s.keys
	s.mu.Unlock()
	var fit []jose.JSONWebKey
	for _, k := range held {
		if (h.kid == "" || k.KeyID == h.kid) && fits(k, h.alg) {
			fit = append(fit, k)
		}
	}
	if h.kid == "" && len(fit) > 1 { // OIDC Core §10.1: then the token must say which
		return nil, fail(identity.Rejected, "ID token: no key id, and several keys of the provider fit")
	}
	for _, k := range fit {
		if payload, err := jws.Verify(k.Key); err == nil {
			return payload, nil
		}
	}
	if len(fit) == 0 {
		return nil, fail(identity.Rejected, "ID token: signed with a key that the provider does not list")
	}
	return nil, fail(identity.Rejected, "ID token: the signature is wrong")
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
func (s *keySet) keep(keys []jose.JSONWebKey, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempted, s.failure = s.now(), err
	if err == nil {
		s.keys, s.fetched = keys, s.attempted
	}
}

func (s *keySet) get(ctx context.Context) ([]jose.JSONWebKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, errors.New("jwks_uri is not a URL")
	}
	body, _, err := getDocument(s.client, req)
	if err != nil {
		return nil, err
	}
	keys := readKeys(body)
	if len(keys) == 0 {
		return nil, errors.New("jwks request: no usable key in the answer")
	}
	return keys, nil
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
func readKeys(set []byte) []jose.JSONWebKey {
	members, err := oauth.Object(set)
	if err != nil {
		return nil
	}
	var raw []json.RawMessage
	if json.Unmarshal(members["keys"], &raw) != nil || len(raw) > maxKeys {
		return nil
	}
	var keys []jose.JSONWebKey
	for _, r := range raw {
		if k, ok := readKey(r); ok {
			keys = append(keys, k)
		}
	}
	return keys
}

func readKey(raw json.RawMessage) (jose.JSONWebKey, bool) {
	var k jose.JSONWebKey
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
	if err != nil || json.Unmarshal(bare, &k) != nil || !k.IsPublic() {
		return k, false
	}
	if rsaKey, ok := k.Key.(*rsa.PublicKey); ok && (rsaKey.N.BitLen() < minRSA || rsaKey.E < 3 || rsaKey.E%2 == 0) {
		return k, false
	}
	return k, k.Use == "" || k.Use == "sig"
}
