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
	maxToken     = 64 << 10         // bytes, checked before anything is decoded (CVE-2025-27144, CVE-2025-22868)
	maxKeys      = 100              // in one set
	minRSA       = 2048             // bits, NIST SP 800-131A
	keysInterval = 30 * time.Second // after which a budget gets one more fetch
	signInKeys   = 3                // fetches that sign-ins may cause at once
	tokenKeys    = 1                // the same for renewals and for access tokens, which anybody can make up
	eventKeys    = 1                // the same for events, which anybody can make up too
	firstKeys    = time.Second      // between fetches while there is no key at all, and everybody is refused
	keysFresh    = time.Hour        // after which keys are fetched again, so that withdrawn ones stop counting
)

// keySet holds a provider's signing keys. It is used instead of go-oidc's key set, which
// asks the provider again for every unknown key id, accepts keys of any strength, and
// replaces good keys by an empty set.
type keySet struct {
	url  string // "": the keys are configured, and never fetched
	algs []jose.SignatureAlgorithm
	// redirect reports whether the document may point to another one; nil: never.
	redirect func(to string) bool

	client       *http.Client
	authenticate func(*http.Request) error
	now          func() time.Time
	log          *slog.Logger
	flight       singleflight.Group

	mu        sync.Mutex
	keys      []signingKey // the last good ones
	skipped   []string     // why other keys of that set are not used
	version   int          // how often keys was replaced
	fetched   time.Time    // when keys was fetched
	attempted time.Time
	failure   error // the error of the latest attempt

	signIns, others, events *budget // of fetches that are made because a token's key is not known
}

// budget limits the fetches that one kind of token causes: most at once, and one more
// for each keysInterval that passes. Each kind has its own budget, so access tokens that
// somebody made up cannot use up the fetches that sign-ins need.
type budget struct {
	name string
	most int
	used int
	from time.Time // when the oldest fetch that counts was made, or a fetch stopped counting

	// sentAgain: senders send such tokens again if they could not be checked. So none is
	// refused for its signature as long as there may be newer keys that were not fetched.
	sentAgain bool
}

// take reports whether one more fetch may be made, and counts it.
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

// signingKey is a key with the issuer that it may sign for, if the provider names one (in
// the member issuer, which go-jose drops).
type signingKey struct {
	jose.JSONWebKey
	issuer string
}

// signed is the content of a token whose signature is good. The payload has not been
// checked yet.
type signed struct {
	payload             []byte
	alg, typ, keyIssuer string
	typed               bool // the header has a typ, even one that is not text
}

// keySet makes the key set of an address, or of the configured keys if there are any.
func (p *Provider) keySet(url string, algs []jose.SignatureAlgorithm) *keySet {
	if p.configuredKeys != nil {
		return &keySet{algs: p.configuredAlgs(), keys: p.configuredKeys}
	}
	return &keySet{
		url: url, algs: algs, redirect: p.dialect.jwksRedirect,
		client: p.client.HTTPClient("jwks"), authenticate: p.authenticate, now: p.now, log: p.log,
		signIns: &budget{name: "sign-ins", most: signInKeys},
		others:  &budget{name: "others", most: tokenKeys},
		events:  &budget{name: "events", most: eventKeys, sentAgain: true},
	}
}

// verify returns the content of a compact JWS that one of the provider's keys signed. If
// the key is not known, keys are fetched once more, and the budget from pays for that.
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
	// The provider may have begun to use a new key since we fetched its keys.
	newer, err := s.fetch(ctx, from, version)
	if err != nil {
		return signed{}, documentError(err)
	}
	_, content, err = s.tryKeys(jws, head)
	if err != nil && !newer && from.sentAgain {
		return signed{}, notYet(err)
	}
	return content, err
}

// notYet makes a refusal one of which more is known when keys may be fetched again.
func notYet(err error) error {
	var e *identity.SignInError
	if errors.As(err, &e) {
		err = e.Err
	}
	return fail(identity.Unavailable,
		"%w; the provider's keys were fetched a moment ago, and are not fetched again yet", err)
}

// header is what we read of a JOSE header. A token must not say which key verifies it, so
// jku, x5u, jwk and x5c are not used.
type header struct {
	alg, kid, typ string
	typed         bool // there is a typ
}

func (s *keySet) parse(token string) (header, *jose.JSONWebSignature, error) {
	refuse := func(why string) (header, *jose.JSONWebSignature, error) {
		return header{}, nil, fail(identity.Rejected, "ID token: %s", why)
	}
	if len(token) > maxToken {
		return refuse("longer than 64 KiB")
	}
	if strings.Count(token, ".") == 4 { // RFC 7516 §3.1
		return refuse("not three parts of base64url but five: encrypted (JWE), which is not supported; " +
			"have the provider sign tokens and not encrypt them")
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
	_, h.typed = members["typ"]
	_ = json.Unmarshal(members["typ"], &h.typ) // "" if it is not text; the caller compares it
	jws, err := jose.ParseSignedCompact(token, s.algs)
	if err != nil {
		for _, name := range []string{"x5c", "jwk"} { // go-jose parses these, although we do not use them
			if _, present := members[name]; present {
				return refuse("cannot be read: " + name + " in the header may be malformed")
			}
		}
		return refuse("not a signed token")
	}
	return h, jws, nil
}

// otherAlgorithm says that alg is not accepted, and names the quirk that would accept it.
func (s *keySet) otherAlgorithm(head claims) string {
	var known []string
	for _, a := range s.algs {
		known = append(known, string(a))
	}
	help := ""
	if alg, _ := head.text("alg"); alg == string(jose.HS256) {
		help = "; the quirk " + quirkHS256 + " takes HS256 with the client secret"
	}
	return "signed with an algorithm that the provider does not announce or we do not accept: alg is " +
		head.quoted("alg") + ", accepted are " + strings.Join(known, ", ") + help
}

func notCompact(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.')
}

// tryKeys verifies with those cached keys that the header may mean. It also returns the
// version of these keys.
func (s *keySet) tryKeys(jws *jose.JSONWebSignature, h header) (int, signed, error) {
	s.mu.Lock()
	keys, version, skipped := s.keys, s.version, s.skipped
	s.mu.Unlock()
	content, err := s.verifyWith(keys, skipped, jws, h)
	return version, content, err
}

func (s *keySet) verifyWith(keys []signingKey, skipped []string, jws *jose.JSONWebSignature, h header) (signed, error) {
	configured := s.url == "" // configured keys have no key id
	var fit []signingKey
	for _, k := range keys {
		if (configured || h.kid == "" || k.KeyID == h.kid) && fits(k.JSONWebKey, h.alg) {
			fit = append(fit, k)
		}
	}
	if h.kid == "" && len(fit) > 1 && !configured { // OIDC Core §10.1: then the token must say which
		return signed{}, fail(identity.Rejected, "ID token: no key id (kid), and %d keys of the provider fit", len(fit))
	}
	for _, k := range fit {
		if payload, err := jws.Verify(k.Key); err == nil {
			return signed{payload, h.alg, h.typ, k.issuer, h.typed}, nil
		}
	}
	if len(fit) == 0 {
		return signed{}, fail(identity.Rejected,
			"ID token: signed with a key that the provider does not list: kid is %s, alg is %s%s",
			quoted(h.kid), h.alg, skippedKeys(skipped))
	}
	return signed{}, fail(identity.Rejected, "ID token: the signature is wrong (alg %s, kid %s): "+
		"the key at hand is not the one that signed it", h.alg, quoted(h.kid))
}

// fits reports whether k can have made a signature of alg. A key must never be used with
// an algorithm of another kind (RFC 8725 §2.1, §3.1).
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
	case []byte: // the client secret; readKey accepts only public keys from a key set
		return alg == string(jose.HS256)
	}
	return false
}

// renew fetches the keys in the background if they are old.
func (s *keySet) renew(ctx context.Context) {
	s.mu.Lock()
	old := elapsed(s.now(), s.fetched, keysFresh)
	s.mu.Unlock()
	if old {
		s.start(ctx, s.others, s.currentVersion())
	}
}

func (s *keySet) currentVersion() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// fetch gets keys that are newer than version, unless the budget is spent, and
// reports whether there are newer ones now. It returns the failure of the latest
// attempt.
func (s *keySet) fetch(ctx context.Context, from *budget, version int) (newer bool, err error) {
	select {
	case r := <-s.start(ctx, from, version):
		newer, _ = r.Val.(bool)
		return newer, r.Err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (s *keySet) start(ctx context.Context, from *budget, version int) <-chan singleflight.Result {
	background := context.WithoutCancel(ctx) // others may be waiting for the same answer
	return s.flight.DoChan(from.name, func() (any, error) {
		if may, failure := s.mayFetch(from, version); !may {
			return s.currentVersion() != version, failure
		}
		keys, skipped, err := s.get(background)
		s.keep(keys, skipped, err)
		if err != nil {
			s.log.WarnContext(background, "fetching the provider's keys failed", "error", err)
		}
		return err == nil, err
	})
}

// mayFetch reports whether keys may be fetched now. It also returns the error of the
// latest attempt.
func (s *keySet) mayFetch(from *budget, version int) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.version != version: // they have been fetched in the meantime
		return false, nil
	case len(s.keys) == 0:
		return elapsed(s.now(), s.attempted, firstKeys), s.failure
	}
	return from.take(s.now()), s.failure
}

// keep stores new keys. After an error the old ones stay, so that sign-ins go on during a
// short outage of the provider.
func (s *keySet) keep(keys []signingKey, skipped []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempted, s.failure = s.now(), err
	if err == nil {
		s.keys, s.skipped, s.fetched = keys, skipped, s.attempted
		s.version++
	}
}

// get fetches the keys, and returns why other keys of the set are not used.
func (s *keySet) get(ctx context.Context) (keys []signingKey, skipped []string, err error) {
	set, err := s.read(ctx, s.url)
	if err != nil {
		return nil, nil, err
	}
	// PagerDuty's document has no keys but the address of another one that has them.
	if next := set.text("jwks_uri"); next != "" && s.redirect != nil && !set.has("keys") {
		if !s.redirect(next) {
			return nil, nil, errors.New("jwks request: the answer points away from the provider")
		}
		if set, err = s.read(ctx, next); err != nil {
			return nil, nil, err
		}
	}
	keys, skipped, err = readKeys(set)
	switch {
	case err != nil:
		return nil, nil, unreadable("the key set", err)
	case len(keys) == 0:
		return nil, nil, unreadable("the key set", fmt.Errorf("no usable key in the answer%s", skippedKeys(skipped)))
	}
	return keys, skipped, nil
}

func (s *keySet) read(ctx context.Context, address string) (*document, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("jwks_uri is not a URL")
	}
	if err := s.authenticate(req); err != nil {
		return nil, err
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

// getDocument sends req and reads the answer, whose size oauth's client limits. Errors are
// that client's.
func getDocument(client *http.Client, req *http.Request) ([]byte, http.Header, error) {
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		var call *oauth.Error
		if errors.As(err, &call) {
			return nil, nil, call // without the text that net/http puts around it
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

const maxSkipped = 3 // unused keys for which an error says why

// readKeys returns the public signing keys of a JWK set that can be used. The others are
// skipped, as RFC 7517 §5 has it, and it is returned why.
func readKeys(set *document) (keys []signingKey, skipped []string, err error) {
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
		case len(skipped) < maxSkipped:
			skipped = append(skipped, fmt.Sprintf("keys[%d]: %v", i, err))
		}
	}
	return keys, skipped, nil
}

// skippedKeys says for an error message which keys of the set are not used.
func skippedKeys(reasons []string) string {
	if len(reasons) == 0 {
		return ""
	}
	return "; not used: " + strings.Join(reasons, "; ")
}

// readKey reads the members that say what a key is and what it may be used for. Its
// certificates (x5c and similar) are not read: we trust the key because the provider
// published it.
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
