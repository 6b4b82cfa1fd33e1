package login

import (
	"context"
	"errors"
	"fmt"
	"mime"
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
	doubtAfter    = time.Minute // how old metadata must be to be read again because a token cannot be verified
	firstWait     = time.Second // between attempts while the provider does not answer
	longestWait   = 4 * time.Second
)

// metadata is what a provider says about itself, after it was checked. It is never
// changed once it is made.
type metadata struct {
	Endpoints
	issuer       string // as the document spells it; "" if there is none
	clientAuth   oauth.ClientAuth
	promptNone   bool     // it says that it answers prompt=none
	issParameter bool     // RFC 9207: iss comes with every authorization response
	offered      []string // ways of client authentication, as discovery names them
	clientAlgs   []string // algorithms that the provider accepts for assertions of clients
	keys         *keySet
}

// discovery keeps the latest good metadata, and the latest failure.
type discovery struct {
	static *metadata // from the configuration; then the provider is never asked
	flight singleflight.Group

	mu        sync.Mutex
	good      *metadata
	fetched   time.Time // when good was fetched
	attempted time.Time
	wait      time.Duration // until the next attempt; 0 after a success
	failure   error         // the error of the latest attempt
}

func (d *discovery) current() *metadata {
	if d.static != nil {
		return d.static
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

// doubt has the provider asked again although the good metadata is fresh, if it is not from a moment
// ago, and reports whether that is due.
func (d *discovery) doubt(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !elapsed(now, d.fetched, doubtAfter) {
		return false
	}
	d.fetched = time.Time{}
	return true
}

// elapsed reports whether wait has passed since then. If then is in the future, the
// clock was set back, and the time counts as passed: else we would wait until the clock
// is there again.
func elapsed(now, then time.Time, wait time.Duration) bool {
	d := now.Sub(then)
	return d >= wait || d < 0
}

// metadata returns what the provider said about itself. The first caller asks the
// provider, and callers that come meanwhile wait for the same answer. Callers right after
// a failure get its error. Old metadata is returned, and renewed in the background.
func (p *Provider) metadata(ctx context.Context) (*metadata, error) {
	if p.disco.static != nil {
		return p.disco.static, nil
	}
	good, failure, due := p.disco.state(p.now())
	if !due {
		return good, errUnlessCached(good, failure)
	}
	// Not canceled with the first caller: others may be waiting for the same answer.
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

// verify returns the content of a compact JWS that one of the provider's keys signed. budgetOf says
// which of the budgets of m's keys pays for fetching them once more. Where they do not help, the
// provider may have moved its keys, or begun to sign with another algorithm, and its discovery
// document is read again, once in doubtAfter whoever sent such tokens.
func (p *Provider) verify(ctx context.Context, m *metadata, token string, budgetOf func(*keySet) *budget) (
	signed, error,
) {
	content, err := m.keys.verify(ctx, token, budgetOf(m.keys))
	if err == nil || p.disco.static != nil || m.keys.url == "" {
		return content, err
	}
	if p.disco.doubt(p.now()) {
		background := context.WithoutCancel(ctx) // others may be waiting for the same answer
		select {
		case <-p.disco.flight.DoChan("", func() (any, error) { return p.discover(background) }):
		case <-ctx.Done():
			return signed{}, documentError(ctx.Err())
		}
	}
	if now := p.disco.current(); now.keys != m.keys {
		return now.keys.verify(ctx, token, budgetOf(now.keys))
	}
	return content, err
}

func errUnlessCached(m *metadata, err error) error {
	if m != nil {
		return nil
	}
	return err
}

// discover asks the provider, unless it was asked a moment ago.
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
		return nil, fail(identity.Misconfigured,
			"discovery: configured issuer %q, but the provider calls itself %.300q", p.issuer, issuer)
	}
	announced := func(configured, name string) string {
		if configured != "" {
			return configured
		}
		return found.text(name)
	}
	// Endpoints of the configuration count, and not those of the document.
	e := Endpoints{
		AuthorizationURL: announced(p.endpoints.AuthorizationURL, "authorization_endpoint"),
		TokenURL:         announced(p.endpoints.TokenURL, "token_endpoint"),
		UserinfoURL:      announced(p.endpoints.UserinfoURL, "userinfo_endpoint"),
		JWKSURL:          announced(p.endpoints.JWKSURL, "jwks_uri"),
		EndSessionURL:    announced(p.endpoints.EndSessionURL, "end_session_endpoint"),
	}
	algs := found.list("id_token_signing_alg_values_supported")
	auths := found.list("token_endpoint_auth_methods_supported")
	clientAlgs := found.list("token_endpoint_auth_signing_alg_values_supported")
	pushed := found.flag("require_pushed_authorization_requests")
	signedRequests := found.flag("require_signed_request_object")
	issParameter := found.flag("authorization_response_iss_parameter_supported")
	prompts := found.list("prompt_values_supported")
	if found.err != nil {
		return nil, documentError(unreadable("the discovery document", found.err))
	}
	p.noteAnswer()
	switch {
	case p.tokensOnly: // what it demands of sign-ins
	case pushed: // RFC 9126 §5
		return nil, fail(identity.Misconfigured, "discovery: the provider requires pushed authorization requests "+
			"(PAR, require_pushed_authorization_requests), which are not supported; switch that off there")
	case signedRequests: // RFC 9101 §10.5
		return nil, fail(identity.Misconfigured, "discovery: the provider requires signed requests "+
			"(JAR, require_signed_request_object), which are not supported; switch that off there")
	}
	if p.tokensOnly {
		e = Endpoints{JWKSURL: e.JWKSURL}
	}
	if err := p.checkEndpoints(e); err != nil {
		return nil, err
	}
	auth, err := p.chooseClientAuth(auths)
	if err != nil {
		return nil, err
	}
	if checkEndpoint(p.issuer, e.EndSessionURL) != nil {
		e.EndSessionURL = "" // people can sign in without it
	}
	m := &metadata{
		Endpoints: e, issuer: issuer, clientAuth: auth, offered: auths, clientAlgs: clientAlgs,
		promptNone: slices.Contains(prompts, "none"), issParameter: issParameter,
		keys: p.keySet(e.JWKSURL, algorithms(algs)),
	}
	if old != nil && old.keys != nil && old.keys.url == m.keys.url && slices.Equal(old.keys.algs, m.keys.algs) {
		m.keys = old.keys // keep the cached keys, and what was spent of the rate limit
	}
	return m, nil
}

// staticMetadata returns the metadata of a provider without discovery.
func (p *Provider) staticMetadata() *metadata {
	auth, _ := p.chooseClientAuth(nil) // fails only if a document offers nothing that we support
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
		{"authorization_endpoint", e.AuthorizationURL, !p.tokensOnly},
		{"token_endpoint", e.TokenURL, !p.tokensOnly},
		{"jwks_uri", e.JWKSURL, !p.dialect.userinfoAlone && p.configuredKeys == nil},
		{"userinfo_endpoint", e.UserinfoURL, false},
	} {
		err := checkEndpoint(p.issuer, endpoint.address)
		if err != nil && (endpoint.needed || endpoint.address != "") {
			return fail(identity.Misconfigured, "discovery: %s: %w", endpoint.name, err)
		}
	}
	return nil
}

// fetchDocument fetches the discovery document (OIDC Discovery §4). Which issuer it may
// name is checked by the dialect, because Microsoft's documents name another issuer than
// the address they are found under.
func (p *Provider) fetchDocument(ctx context.Context) (*document, error) {
	address := strings.TrimSuffix(p.dialect.discoverAt, "/") + "/.well-known/openid-configuration" // §4.1
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("discovery: the issuer is not a URL")
	}
	if err := p.authenticate(req); err != nil {
		return nil, err
	}
	body, header, err := getDocument(p.client.HTTPClient("discovery"), req)
	if err != nil {
		return nil, noDocument(err)
	}
	found, err := readDocument(body,
		"issuer", "authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "end_session_endpoint",
		"id_token_signing_alg_values_supported", "token_endpoint_auth_methods_supported",
		"token_endpoint_auth_signing_alg_values_supported", "require_pushed_authorization_requests",
		"require_signed_request_object", "authorization_response_iss_parameter_supported",
		"prompt_values_supported")
	if err != nil {
		kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
		return nil, unreadable("the discovery document", fmt.Errorf("%w; it is what %s answered, of type %.60q: %s",
			err, address, kind, wrongIssuer))
	}
	return found, nil
}

const wrongIssuer = "is issuer (or tenant) right?"

// noDocument adds to the error of an answer that was none what is most often the cause.
func noDocument(err error) error {
	var call *oauth.Error
	if !errors.As(err, &call) || call.Kind != oauth.Misconfigured || call.Status < 300 {
		return err
	}
	if call.Err == nil {
		call.Err = errors.New("no discovery document is there")
	}
	call.Err = fmt.Errorf("%w: %s", call.Err, wrongIssuer)
	return err
}

// accepted returns the algorithms that we accept: signatures that a public key verifies,
// and never "none" or HS* (RFC 8725 §2.1, §3.1).
func accepted() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}

// algorithms returns those that the provider announces and we accept. If there are none,
// it is RS256, which every provider must support (OIDC Core §15.1).
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
