package demo

import (
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// maxAssertion is the longest time that an assertion may still be valid.
const maxAssertion = time.Hour

func assertionAlgs() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.PS256, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}
}

// checkAssertion authenticates the client by a JWT (RFC 7523 §3), which can be used once. A
// secret must not come with it. The audience must be our issuer alone.
func (p *Provider) checkAssertion(r *http.Request, form url.Values) error {
	refuse := &oauthError{http.StatusUnauthorized, "invalid_client", "no assertion that proves this client"}
	if r.Header.Get("Authorization") != "" || form.Has("client_secret") {
		return refuse
	}
	if form.Has("client_id") && form.Get("client_id") != p.opts.ClientID ||
		form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		return refuse
	}
	jws, err := jose.ParseSignedCompact(form.Get("client_assertion"), assertionAlgs())
	if err != nil {
		return refuse
	}
	payload, err := jws.Verify(p.opts.Trust.Key)
	if err != nil {
		return refuse
	}
	var c struct {
		Iss, Sub, Jti string
		Aud           string // a list is refused, because others could be in it
		Exp           int64
	}
	now := p.opts.Now()
	if json.Unmarshal(payload, &c) != nil || c.Iss != p.opts.Trust.Issuer || c.Sub != p.opts.Trust.Subject ||
		c.Aud != p.opts.Issuer {
		return refuse
	}
	if left := time.Unix(c.Exp, 0).Sub(now); left <= 0 || left > maxAssertion {
		return refuse
	}
	if c.Iss != p.opts.ClientID { // the token of a cluster or cloud may be used until it expires
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, again := p.used.get(now, c.Jti); again || c.Jti == "" { // OIDC Core §9: jti is required, and used once
		return refuse
	}
	p.used.put(now, c.Jti, true)
	return nil
}
