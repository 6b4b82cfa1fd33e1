package assertion

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

const issuer = "https://app.example.com"

func newClock() *testenv.Clock {
	return testenv.StandingClock(time.Date(2026, 11, 22, 9, 0, 30, 0, time.UTC))
}

func seed(b byte) []byte               { return bytes.Repeat([]byte{b}, SeedBytes) }
func always(i int) func(time.Time) int { return func(time.Time) int { return i } }

// forever is the end of what does not end.
var forever = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func newSigner(t testing.TB, c *testenv.Clock, change ...func(*Options)) *Signer {
	t.Helper()
	o := Options{Issuer: issuer, Seeds: [][]byte{seed(1)}, Signing: always(0), Now: c.Now}
	for _, f := range change {
		f(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func alice() *identity.Identity {
	return &identity.Identity{
		Provider: "google", Subject: "1101", Email: "alice@acme.test", EmailVerified: true, Name: "Alice",
		Username: "al",
		Groups:   []string{"oncall", "a,b"},
		Org:      identity.Org{ID: "acme", Name: "Acme", Domain: "acme.test", Source: "config"},
		Orgs:     []identity.Org{{ID: "acme"}, {ID: "beta"}}, ACR: "phr", ProviderSID: "sid-secret",
		AuthTime: time.Unix(1, 0),
	}
}

func sign(t testing.TB, s *Signer, session, audience string, id *identity.Identity) string {
	t.Helper()
	token, err := s.Sign(Caller{Key: session, Identity: id, End: forever}, audience)
	if err != nil {
		t.Fatal(err)
	}
	return token[0]
}

func keys(t testing.TB, s *Signer) *jose.JSONWebKeySet {
	t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(s.JWKS(), &set); err != nil {
		t.Fatal(err)
	}
	return &set
}

// verify does what an app does: pick the key by kid, allow ES256 only.
func verify(t testing.TB, s *Signer, token string) (map[string]any, string) {
	t.Helper()
	tok, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	kid := tok.Headers[0].KeyID
	found := keys(t, s).Key(kid)
	if len(found) != 1 {
		t.Fatalf("%d keys have the id %q", len(found), kid)
	}
	claims := map[string]any{}
	if err := tok.Claims(found[0].Key, &claims); err != nil {
		t.Fatal(err)
	}
	return claims, kid
}

// Who, for whom, from whom, until when: apps behind AWS's load balancer that did
// not compare the issuer took anybody's tokens (ALBeast, 2024).
func TestP02_AssertionTellsExactlyThis(t *testing.T) {
	c := newClock()
	s := newSigner(t, c)
	minute := float64(c.Now().Truncate(time.Minute).Unix())
	full := map[string]any{
		"iss": issuer, "sub": "google:1101", "aud": "app", "iat": minute, "exp": minute + 300,
		"email": "alice@acme.test", "email_verified": true, "name": "Alice", "preferred_username": "al",
		"groups": []any{"oncall", "a,b"}, "org": map[string]any{"id": "acme", "name": "Acme", "domain": "acme.test"},
	}
	least := map[string]any{"iss": issuer, "sub": "p:s", "aud": "app", "iat": minute, "exp": minute + 300}
	plus := func(m map[string]any, k string, v any) map[string]any { m = maps.Clone(m); m[k] = v; return m }
	unverified := alice()
	unverified.EmailVerified = false
	withoutEmail := maps.Clone(full)
	delete(withoutEmail, "email")
	delete(withoutEmail, "email_verified")
	for name, tc := range map[string]struct {
		id   *identity.Identity
		want map[string]any
	}{
		"alice":            {alice(), full},
		"unverified email": {unverified, withoutEmail},
		"least":            {&identity.Identity{Provider: "p", Subject: "s"}, least},
		"verified nothing": {&identity.Identity{Provider: "p", Subject: "s", EmailVerified: true}, least},
		"groups unknown": {&identity.Identity{Provider: "p", Subject: "s", GroupsUnknown: true},
			plus(least, "groups_unknown", true)},
		"org without name": {&identity.Identity{Provider: "p", Subject: "s", Org: identity.Org{ID: "o"}},
			plus(least, "org", map[string]any{"id": "o"})},
		"org without id": {&identity.Identity{Provider: "p", Subject: "s", Org: identity.Org{Name: "O"}}, least},
		"odd text": {&identity.Identity{Provider: "p", Subject: "s", Name: "a\r\n\"\u2028<é😀"},
			plus(least, "name", "a\r\n\"\u2028<é😀")},
	} {
		token := sign(t, s, name, "app", tc.id)
		claims, _ := verify(t, s, token)
		got, _ := json.Marshal(claims)
		want, _ := json.Marshal(tc.want)
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
		if strings.Trim(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
			t.Errorf("%s: no header value: %q", name, token)
		}
	}
}

func TestP02_AssertionIsSignedByES256AndNothingElse(t *testing.T) {
	s := newSigner(t, newClock())
	token := sign(t, s, "s", "app", alice())
	parts := strings.Split(token, ".")
	head, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil || len(parts) != 3 {
		t.Fatal(err)
	}
	var header map[string]string
	if err := json.Unmarshal(head, &header); err != nil || len(header) != 3 || header["alg"] != "ES256" ||
		header["typ"] != "JWT" || header["kid"] == "" {
		t.Errorf("header %s", head)
	}
	for _, alg := range []jose.SignatureAlgorithm{jose.HS256, jose.RS256, jose.ES384, jose.EdDSA} {
		if _, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{alg}); err == nil {
			t.Errorf("reads as %s", alg)
		}
	}
	// Another instance's key, or a byte that changed, does not verify.
	other := keys(t, newSigner(t, newClock(), func(o *Options) { o.Seeds = [][]byte{seed(9)} })).Keys[0]
	for i := range parts[1] {
		b := []byte(parts[1])
		if b[i]++; i == len(b)-1 {
			continue // bits that base64 does not use
		}
		tok, err := jwt.ParseSigned(parts[0]+"."+string(b)+"."+parts[2], []jose.SignatureAlgorithm{jose.ES256})
		if err == nil && tok.Claims(keys(t, s).Keys[0].Key, &map[string]any{}) == nil {
			t.Fatalf("byte %d changed, and it still verifies", i)
		}
	}
	tok, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil || tok.Claims(other.Key, &map[string]any{}) == nil {
		t.Errorf("verifies with another instance's key: %v", err)
	}
}

func TestJWKSListsPublicKeysByTheirThumbprints(t *testing.T) {
	s := newSigner(t, newClock(), func(o *Options) { o.Seeds = [][]byte{seed(1), seed(2), seed(3)} })
	set := keys(t, s)
	if len(set.Keys) != 3 {
		t.Fatalf("%d keys", len(set.Keys))
	}
	seen := map[string]bool{}
	for _, k := range set.Keys {
		sum, err := k.Thumbprint(crypto.SHA256) // RFC 7638
		if err != nil || k.KeyID != base64.RawURLEncoding.EncodeToString(sum) || seen[k.KeyID] {
			t.Errorf("kid %q: %v", k.KeyID, err)
		}
		seen[k.KeyID] = true
		if !k.IsPublic() || k.Algorithm != "ES256" || k.Use != "sig" {
			t.Errorf("key %+v", k)
		}
	}
	var raw struct{ Keys []map[string]string }
	if err := json.Unmarshal(s.JWKS(), &raw); err != nil {
		t.Fatal(err)
	}
	for _, k := range raw.Keys {
		if got := slices.Sorted(maps.Keys(k)); !slices.Equal(got,
			[]string{"alg", "crv", "kid", "kty", "use", "x", "y"}) {
			t.Errorf("fields %q", got)
		}
	}
}

func TestReplicasWithTheSameSecretsAgree(t *testing.T) {
	c := newClock()
	a, b := newSigner(t, c), newSigner(t, c)
	if !bytes.Equal(a.JWKS(), b.JWKS()) {
		t.Error("two JWKS of one seed")
	}
	claims, _ := verify(t, b, sign(t, a, "s", "app", alice()))
	if claims["sub"] != "google:1101" {
		t.Errorf("%v", claims)
	}
	if bytes.Equal(a.JWKS(), newSigner(t, c, func(o *Options) { o.Seeds = [][]byte{seed(2)} }).JWKS()) {
		t.Error("one JWKS of two seeds")
	}
}

// While both keys are listed, an app with either JWKS verifies both.
func TestRotationOverlaps(t *testing.T) {
	c := newClock()
	turn := c.Now().Add(10 * time.Minute)
	old := newSigner(t, c)
	both := newSigner(t, c, func(o *Options) {
		o.Seeds = [][]byte{seed(1), seed(2)}
		o.Signing = func(now time.Time) int {
			if now.Before(turn) {
				return 0
			}
			return 1
		}
	})
	before := sign(t, both, "s", "app", alice())
	_, oldKid := verify(t, old, before)
	c.Advance(9*time.Minute + 59*time.Second)
	if _, kid := verify(t, both, sign(t, both, "s", "app", alice())); kid != oldKid {
		t.Error("the new key signs too early")
	}
	c.Advance(31 * time.Second) // and into the next minute
	_, newKid := verify(t, both, sign(t, both, "s", "app", alice()))
	if newKid == oldKid {
		t.Error("the new key does not sign")
	}
	if _, kid := verify(t, both, before); kid != oldKid {
		t.Error("what was signed before does not verify any more")
	}
	if len(keys(t, old).Key(newKid)) != 0 || len(keys(t, both).Keys) != 2 {
		t.Error("the sets are not what they should be")
	}
}

func TestAssertionIsSignedOncePerSessionRouteAndMinute(t *testing.T) {
	c := newClock()
	s := newSigner(t, c)
	token := sign(t, s, "s", "app", alice())
	c.Advance(29 * time.Second)
	if sign(t, s, "s", "app", alice()) != token {
		t.Error("signed twice in a minute")
	}
	if sign(t, s, "s", "other", alice()) == token || sign(t, s, "s2", "app", alice()) == token {
		t.Error("one token for two")
	}
	// Boundaries between session and audience must not blur.
	if sign(t, s, "sa", "pp", alice()) == sign(t, s, "s", "app", alice()) {
		t.Error("session and audience blur")
	}
	c.Advance(time.Second)
	next := sign(t, s, "s", "app", alice())
	if next == token {
		t.Error("the same token in the next minute")
	}
	c.Advance(-time.Minute) // a clock that steps back must not get one from the future
	claims, _ := verify(t, s, sign(t, s, "s", "app", alice()))
	if claims["iat"].(float64) > float64(c.Now().Unix()) {
		t.Errorf("from the future: %v", claims)
	}
}

func TestP11_AssertionLivesFiveMinutesAtMost(t *testing.T) {
	c := newClock()
	s := newSigner(t, c)
	for range 120 {
		claims, _ := verify(t, s, sign(t, s, "s", "app", alice()))
		iat, exp, now := claims["iat"].(float64), claims["exp"].(float64), float64(c.Now().Unix())
		if exp-iat > 300 || exp-now > 300 || exp-now < 240 || iat > now {
			t.Fatalf("at %v: iat %v exp %v", now, iat, exp)
		}
		c.Advance(7 * time.Second)
	}
}

// Whatever people are called and however many there are: what is kept of them
// stays within the stated bytes.
func TestP17_AssertionsThatAreKeptAreBounded(t *testing.T) {
	s, id := newSigner(t, newClock()), alice()
	for i := range 120 {
		id.Groups = append(id.Groups, fmt.Sprintf("6f9619ff-8b86-d011-b42d-00cf4fc9%04x", i))
	}
	before := heap()
	for i := range 3000 {
		sign(t, s, fmt.Sprint(i), "app", id)
	}
	grown := heap() - before
	t.Logf("%d assertions of %d bytes: %d KiB", 3000, len(sign(t, s, "0", "app", id)), grown>>10)
	if grown > cacheBytes*5/4 {
		t.Errorf("%d bytes are kept, and %d are stated", grown, cacheBytes)
	}
	token := sign(t, s, "2999", "app", id)
	if grown < cacheBytes/2 || token != sign(t, s, "2999", "app", id) {
		t.Errorf("only %d bytes are kept", grown)
	}
}

func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// RFC 9068 §5, P1: what rests on an access token ends with it, and so does what
// rests on a session.
func TestP01_AnAssertionDoesNotOutliveWhatItRestsOn(t *testing.T) {
	c := newClock() // half past a minute
	s, minute := newSigner(t, c), c.Now().Truncate(time.Minute)
	for name, row := range map[string]struct{ until, want time.Time }{
		"later":         {minute.Add(5*time.Minute + time.Second), minute.Add(5 * time.Minute)},
		"just then":     {minute.Add(5 * time.Minute), minute.Add(5 * time.Minute)},
		"a little less": {minute.Add(5*time.Minute - time.Second), minute.Add(5*time.Minute - time.Second)},
		"this minute":   {minute.Add(31 * time.Second), minute.Add(31 * time.Second)},
	} {
		token, err := s.Sign(Caller{Key: name, Identity: alice(), End: row.until}, "app")
		if err != nil {
			t.Fatal(err)
		}
		if claims, _ := verify(t, s, token[0]); claims["exp"] != float64(row.want.Unix()) ||
			claims["iat"] != float64(minute.Unix()) {
			t.Errorf("%s: iat %v, exp %v", name, claims["iat"], claims["exp"])
		}
	}
}

func TestSignerIsSafeForConcurrentUse(t *testing.T) {
	s := newSigner(t, newClock())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			id := &identity.Identity{Provider: "p", Subject: fmt.Sprint(i % 4)}
			for range 20 {
				token, err := s.Sign(Caller{Key: id.Subject, Identity: id, End: forever}, "app")
				if err != nil {
					t.Error(err)
					return
				}
				if claims, _ := verify(t, s, token[0]); claims["sub"] != id.ID() {
					t.Errorf("%v for %s", claims["sub"], id.ID())
				}
			}
		})
	}
	wg.Wait()
}

func TestP15_NewRefusesWhatIsMissing(t *testing.T) {
	ok := Options{Issuer: issuer, Seeds: [][]byte{seed(1)}, Signing: always(0)}
	if _, err := New(ok); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"no issuer":  func(o *Options) { o.Issuer = "" },
		"no seeds":   func(o *Options) { o.Seeds = nil },
		"no signing": func(o *Options) { o.Signing = nil },
		"short seed": func(o *Options) { o.Seeds = [][]byte{seed(1), seed(2)[:32]} },
		"long seed":  func(o *Options) { o.Seeds = [][]byte{append(seed(1), 0)} },
		"empty seed": func(o *Options) { o.Seeds = [][]byte{nil} },
	} {
		o := ok
		change(&o)
		if s, err := New(o); err == nil || s != nil {
			t.Error(name)
		}
	}
}

// The ends of the range: no seed may make an impossible key.
func TestEverySeedMakesAKey(t *testing.T) {
	for _, b := range []byte{0, 1, 127, 128, 255} {
		s := newSigner(t, newClock(), func(o *Options) { o.Seeds = [][]byte{seed(b)} })
		verify(t, s, sign(t, s, "s", "app", alice()))
	}
}

func BenchmarkSignCached(b *testing.B) {
	s, id := newSigner(b, newClock()), alice()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Sign(Caller{Key: "session", Identity: id, End: forever}, "app"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSignAnew(b *testing.B) {
	c := newClock()
	s, id := newSigner(b, c), alice()
	b.ReportAllocs()
	for b.Loop() {
		c.Advance(time.Minute)
		if _, err := s.Sign(Caller{Key: "session", Identity: id, End: forever}, "app"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSignCachedParallel(b *testing.B) {
	s, id := newSigner(b, newClock()), alice()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Sign(Caller{Key: "session", Identity: id, End: forever}, "app"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What somebody ended before they signed in again must not count against them: no assertion
// says that it is older than the sign-in.
func TestAnAssertionIsNotOlderThanTheSignIn(t *testing.T) {
	c := newClock() // half past a minute
	minute := c.Now().Truncate(time.Minute)
	s := newSigner(t, c)
	for name, row := range map[string]struct{ since, want time.Time }{
		"not known":          {time.Time{}, minute},
		"before this minute": {minute.Add(-time.Second), minute},
		"in this minute":     {minute.Add(20*time.Second + 700*time.Millisecond), minute.Add(20 * time.Second)},
		"later, as another server's clock has it": {c.Now().Add(2 * time.Second), minute},
	} {
		token, err := s.Sign(Caller{Key: name, Identity: alice(), SID: "x", Since: row.since, End: forever}, "app")
		if err != nil {
			t.Fatal(err)
		}
		if claims, _ := verify(t, s, token[0]); claims["iat"] != float64(row.want.Unix()) {
			t.Errorf("%s: iat %v, want %v", name, claims["iat"], row.want.Unix())
		}
	}
}
