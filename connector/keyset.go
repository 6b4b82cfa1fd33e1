package connector

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// KeysMissing is the reason where the keys of the third party could not be fetched.
const KeysMissing = "keys_missing"

// minRSA is the shortest key that counts, in bits (NIST SP 800-131A).
const minRSA = 2048

// KeySet is where a third party publishes the keys with which it signs ID tokens. An ID token
// of a token endpoint needs no signature (OpenID Connect Core §3.1.3.7 item 6), so it is for
// third parties whose documentation wants it checked.
type KeySet struct {
	URL string
	// Redirect reports whether the keys may be at an address that the document names as
	// jwks_uri instead of keys; there they have to be. nil: never.
	Redirect func(to string) bool
}

// Verify fetches the keys and checks that one of them signed an ID token, with RS256. What the
// header of the token says of keys, other than which, is not used. Errors are of type
// *grant.Error and quote nothing.
func (k KeySet) Verify(ctx context.Context, client *oauth.Client, idToken string) error {
	keys, err := k.fetch(ctx, client)
	if err != nil {
		return &grant.Error{Class: grant.Later, Reason: KeysMissing, Err: err}
	}
	refused := &grant.Error{Class: grant.Lost, Reason: IDTokenRefused,
		Err: errors.New("no key of the third party signed the ID token")}
	jws, err := jose.ParseSignedCompact(idToken, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil || len(jws.Signatures) != 1 {
		return refused
	}
	for _, key := range keys {
		rsaKey, ok := key.Key.(*rsa.PublicKey)
		if !ok || rsaKey.N.BitLen() < minRSA || key.KeyID != jws.Signatures[0].Header.KeyID ||
			key.Use != "" && key.Use != "sig" {
			continue
		}
		if _, err := jws.Verify(rsaKey); err == nil {
			return nil
		}
	}
	return refused
}

func (k KeySet) fetch(ctx context.Context, client *oauth.Client) ([]jose.JSONWebKey, error) {
	document, err := readKeyDocument(ctx, client, k.URL)
	if err != nil {
		return nil, err
	}
	var next string
	if k.Redirect != nil && document["keys"] == nil && json.Unmarshal(document["jwks_uri"], &next) == nil {
		if !k.Redirect(next) {
			return nil, errors.New("the document of the keys points away from the third party")
		}
		if document, err = readKeyDocument(ctx, client, next); err != nil {
			return nil, err
		}
	}
	var list []json.RawMessage
	if json.Unmarshal(document["keys"], &list) != nil || len(list) == 0 {
		return nil, errors.New("the document of the keys has none")
	}
	var keys []jose.JSONWebKey
	for _, raw := range list {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) == nil { // others are of kinds that are not known (RFC 7517 §5)
			keys = append(keys, key)
		}
	}
	return keys, nil
}

func readKeyDocument(ctx context.Context, client *oauth.Client, address string) (map[string]json.RawMessage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("the address of the keys is none")
	}
	req.Header.Set("Accept", "application/json")
	body, err := client.Document(req, "jwks")
	if err != nil {
		return nil, err
	}
	return oauth.Members(body, "keys", "jwks_uri")
}

// SameSite reports whether a document at one origin may point to an address: on the same
// origin, or over https on hosts below a domain that the origin is below too, such as
// ".example.com".
func SameSite(origin, to, below string) bool {
	a, err := url.Parse(origin)
	b, wrong := url.Parse(to)
	if err != nil || wrong != nil || b.User != nil || b.Fragment != "" {
		return false
	}
	ours := func(u *url.URL) bool {
		return u.Scheme == "https" && u.Port() == "" && strings.HasSuffix(u.Host, below)
	}
	return a.Host != "" && a.Scheme == b.Scheme && a.Host == b.Host || ours(a) && ours(b)
}
