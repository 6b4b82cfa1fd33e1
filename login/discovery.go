package login

import (
	"context"
	"errors"
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
	metadataFresh = 24 * time.Hour
	firstWait     = time.Second // between attempts at a provider that does not answer
	longestWait   = 4 * time.Second
)

// metadata is what a provider says about itself, checked. It is never changed
// once made.
type metadata struct {
	Endpoints
	issuer       string // as the document spells it; "" if there is none
	clientAuth   oauth.ClientAuth
	issParameter bool     // RFC 9207: iss comes with every authorization response
	offered      []string // ways of client authentication, as discovery names them
	clientAlgs   []string // for assertions that a client signs
	keys         *keySet
}

// discovery keeps the latest good metadata and the memory of failures.
type discovery struct {
	given  *metadata // known without asking; then nobody is asked
	flight singleflight.Group

	mu        sync.Mutex
	good      *metadata
	fetched   time.Time // when good was
	attempted time.Time
	wait      time.Duration // after attempted; 0 after a success
	failure   error         // of the latest attempt
}

func (d *discovery) current() *metadata {
	if d.given != nil {
		return d.given
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.good
}

// state returns the latest good metadata, the latest failure, and whether the
// provider is to be asked now.
func (d *discovery) state(now time.Time) (*metadata, error, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	due := elapsed(now, d.attempted, d.wait) && (d.good == nil || elapsed(now, d.fetched, metadataFresh))
	return d.good, d.failure, due
}

func (d *discovery) keep(now time.Time, m *metadata, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attempted, d.failure = now, err
	if err != nil {
		d.wait = min(max(firstWait, 2*d.wait), longestWait)
		return
	}
	d.good, d.fetched, d.wait = m, now, 0
}

// elapsed reports whether wait has passed since then. A clock that was set
// back counts as passed: it must not stop us for as long as it was wrong.
func elapsed(now, then time.Time, wait time.Duration) bool {
	d := now.Sub(then)
	return d >= wait || d < 0
}

// metadata returns what the provider said about itself. The first caller asks;
// those who come meanwhile wait for the same answer; those who come right after
// a failure are told of it. Old metadata is renewed behind a caller's back.
func (p *Provider) metadata(ctx context.Context) (*metadata, error) {
	if p.disco.given != nil {
		return p.disco.given, nil
	}
	good, failure, due := p.disco.state(p.now())
	if !due {
		return good, errUnlessCached(good, failure)
	}
	// Detached: the one browser that happened to ask may leave, others wait on.
	background := context.WithoutCancel(ctx)
	answer := p.disco.flight.DoChan("", func() (any, error) { return p.discover(background) })
	if good != nil {
		return good, nil
	}
	select {
	case r := <-answer:
		m, _ := r.Val.(*metadata)
		return m, r.Err
	case <-ctx.Done():
		return nil, &identity.SignInError{Failure: identity.Unavailable, Err: ctx.Err()}
	}
}

func errUnlessCached(m *metadata, err error) error {
	if m != nil {
		return nil
	}
	return err
}

// discover asks the provider, unless somebody did a moment ago.
func (p *Provider) discover(ctx context.Context) (*metadata, error) {
	good, failure, due := p.disco.state(p.now())
	if !due {
		return good, errUnlessCached(good, failure)
	}
	m, err := p.fetchMetadata(ctx, good)
	p.disco.keep(p.now(), m, err)
	if err != nil {
		p.log.WarnContext(ctx, "discovery failed", "error", err, "kept", good != nil)
		return good, errUnlessCached(good, err)
	}
	return m, nil
}

func (p *Provider) fetchMetadata(ctx context.Context, old *metadata) (*metadata, error) {
	found, err := p.fetchDocument(ctx)
	if err != nil {
		return nil, documentError(err)
	}
	issuer := found.text("issuer")
	if !p.dialect.discovered(issuer) && found.err == nil {
		return nil, fail(identity.Misconfigured, "discovery: configured issuer %q, but the provider calls itself %.300q", p.issuer, issuer)
	}
	announced := func(configured, name string) string {
		if configured != "" {
			return configured
		}
		return found.text(name)
	}
	// What is configured is left to nobody else.
	e := Endpoints{
		AuthorizationURL: announced(p.endpoints.AuthorizationURL, "authorization_endpoint"),
		TokenURL:         announced(p.endpoints.TokenURL, "token_endpoint"),
		UserinfoURL:      announced(p.endpoints.UserinfoURL, "userinfo_endpoint"),
		JWKSURL:          announced(p.endpoints.JWKSURL, "jwks_uri"),
		EndSessionURL:    announced(p.endpoints.EndSessionURL, "end_session_endpoint"),
	}
	algs, auths := found.list("id_token_signing_alg_values_supported"), found.list("token_endpoint_auth_methods_supported")
	clientAlgs := found.list("token_endpoint_auth_signing_alg_values_supported")
	pushed, signedRequests := found.flag("require_pushed_authorization_requests"), found.flag("require_signed_request_object")
	issParameter := found.flag("authorization_response_iss_parameter_supported")
	if found.err != nil {
		return nil, documentError(unreadable("the discovery document", found.err))
	}
	switch {
	case pushed: // RFC 9126 §5
		return nil, fail(identity.Misconfigured, "discovery: the provider requires pushed authorization requests (PAR, require_pushed_authorization_requests), which are not supported; switch that off there")
	case signedRequests: // RFC 9101 §10.5
		return nil, fail(identity.Misconfigured, "discovery: the provider requires signed requests (JAR, require_signed_request_object), which are not supported; switch that off there")
	}
	if err := p.checkEndpoints(e); err != nil {
		return nil, err
	}
	auth, err := p.chooseClientAuth(auths)
	if err != nil {
		return nil, err
	}
	if checkEndpoint(p.issuer, e.EndSessionURL) != nil {
		e.EndSessionURL = "" // no reason to keep people from signing in
	}
	m := &metadata{
		Endpoints: e, issuer: issuer, clientAuth: auth, offered: auths, clientAlgs: clientAlgs, issParameter: issParameter,
		keys: p.keySet(e.JWKSURL, algorithms(algs)),
	}
	if old != nil && old.keys != nil && old.keys.url == m.keys.url && slices.Equal(old.keys.algs, m.keys.algs) {
		m.keys = old.keys // with what it knows, and with its rate limit
	}
	return m, nil
}

// givenMetadata is that of a provider without discovery.
func (p *Provider) givenMetadata() *metadata {
	auth, _ := p.chooseClientAuth(nil) // fails for what a document offers only
	return &metadata{
		Endpoints: p.endpoints, clientAuth: auth,
		keys: p.keySet(p.endpoints.JWKSURL, accepted()),
	}
}

func (p *Provider) checkEndpoints(e Endpoints) error {
	for _, endpoint := range []struct {
		name, address string
		needed        bool
	}{
		{"authorization_endpoint", e.AuthorizationURL, true}, {"token_endpoint", e.TokenURL, true}, {"jwks_uri", e.JWKSURL, !p.dialect.userinfoAlone && p.given == nil},
		{"userinfo_endpoint", e.UserinfoURL, false},
	} {
		if err := checkEndpoint(p.issuer, endpoint.address); err != nil && (endpoint.needed || endpoint.address != "") {
			return fail(identity.Misconfigured, "discovery: %s: %w", endpoint.name, err)
		}
	}
	return nil
}

// fetchDocument gets the discovery document (OIDC Discovery §4). Which issuer it
// may name is for the dialect to say: Microsoft's documents are not below theirs.
func (p *Provider) fetchDocument(ctx context.Context) (*document, error) {
	address := strings.TrimSuffix(p.dialect.discoverAt, "/") + "/.well-known/openid-configuration" // §4.1
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("discovery: the issuer is not a URL")
	}
	body, _, err := getDocument(p.client.HTTPClient("discovery"), req)
	if err != nil {
		return nil, err
	}
	found, err := readDocument(body, "issuer", "authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "end_session_endpoint",
		"id_token_signing_alg_values_supported", "token_endpoint_auth_methods_supported", "token_endpoint_auth_signing_alg_values_supported",
		"require_pushed_authorization_requests", "require_signed_request_object", "authorization_response_iss_parameter_supported")
	if err != nil {
		return nil, unreadable("the discovery document", err)
	}
	return found, nil
}

// accepted are the algorithms we accept: signatures with a public key, never
// "none", never HS* (RFC 8725 §2.1, §3.1).
func accepted() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}

// algorithms are those that the provider announces and we accept. RS256 if that
// leaves none: every provider must have it (OIDC Core §15.1).
func algorithms(announced []string) []jose.SignatureAlgorithm {
	var out []jose.SignatureAlgorithm
	for _, a := range accepted() {
		if slices.Contains(announced, string(a)) {
			out = append(out, a)
		}
	}
	if out == nil {
		return []jose.SignatureAlgorithm{jose.RS256}
	}
	return out
}
