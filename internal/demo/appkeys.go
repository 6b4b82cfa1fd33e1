package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// assertionKeys verifies the assertion as a careful app would, with the key set of
// Sallyport, which it keeps for a minute.
type assertionKeys struct {
	url, issuer string
	now         func() time.Time
	client      *http.Client

	mu      sync.Mutex // guards set and fetched
	set     jose.JSONWebKeySet
	fetched time.Time
}

const (
	keysFresh = time.Minute     // after which the key set is fetched again
	keysAgain = 5 * time.Second // the same, if a key is missing
	keysLimit = 64 << 10        // bytes
)

func newAssertionKeys(o AppOptions) *assertionKeys {
	return &assertionKeys{url: o.JWKSURL, issuer: o.Issuer, now: o.Now, client: &http.Client{
		Timeout:       3 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// verify returns the claims of an assertion, or a sentence for the page that says why it is
// not valid.
func (k *assertionKeys) verify(ctx context.Context, raw string) (claims map[string]any, why string) {
	if raw == "" {
		return nil, "No assertion came with this request."
	}
	// RFC 8725 §3.1: the algorithm is ours to choose, and not the token's.
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil || len(jws.Signatures) != 1 {
		return nil, "What came is not a token signed with ES256."
	}
	key, why := k.key(ctx, jws.Signatures[0].Header.KeyID)
	if why != "" {
		return nil, why
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return nil, "The signature does not match, so somebody else wrote it or changed it."
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	if err := d.Decode(&claims); err != nil {
		return nil, "The signed content can't be read."
	}
	if why := k.stale(claims); why != "" {
		return nil, why
	}
	return claims, ""
}

// stale says what is wrong with the issuer or the time of signed claims.
func (k *assertionKeys) stale(claims map[string]any) (why string) {
	if claims["iss"] != k.issuer {
		return fmt.Sprintf("It was issued by %v, not by %s.", claims["iss"], k.issuer)
	}
	exp, _ := claims["exp"].(json.Number)
	sec, err := exp.Int64()
	if err != nil {
		return "It does not say until when it holds."
	}
	if until := time.Unix(sec, 0); !k.now().Before(until) {
		return fmt.Sprintf("It was good until %s only.", until.UTC().Format("2 Jan 2006, 15:04:05 MST"))
	}
	return ""
}

// key returns the key with the id kid. If the set is old or does not have the key, it is
// fetched again, by one request at a time; others wait.
func (k *assertionKeys) key(ctx context.Context, kid string) (key jose.JSONWebKey, why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	age, found := k.now().Sub(k.fetched), k.set.Key(kid)
	if age > keysFresh || (len(found) == 0 && age > keysAgain) {
		set, err := k.fetch(ctx)
		if err != nil {
			return key, fmt.Sprintf("The keys could not be fetched from %s: %v.", k.url, err)
		}
		k.set, k.fetched = set, k.now()
		found = set.Key(kid)
	}
	if len(found) != 1 {
		return key, fmt.Sprintf("It was signed with a key named %q, which is not at %s.", kid, k.url)
	}
	return found[0], ""
}

func (k *assertionKeys) fetch(ctx context.Context) (set jose.JSONWebKeySet, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, nil)
	if err != nil {
		return set, err
	}
	res, err := k.client.Do(req)
	if err != nil {
		return set, err
	}
	defer res.Body.Close() // only read
	body, err := io.ReadAll(io.LimitReader(res.Body, keysLimit))
	if err != nil {
		return set, err
	}
	if res.StatusCode != http.StatusOK {
		return set, fmt.Errorf("the answer was %s", res.Status)
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return set, errors.New("the answer was no key set")
	}
	return set, nil
}
