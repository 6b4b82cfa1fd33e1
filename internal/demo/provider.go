// Package demo has what Sallyport needs around it: an OpenID provider with a few invented
// people, a Google where they have calendars, and an app that shows what it receives.
//
// `sallyport demo` serves them on loopback, so that people can see a sign-in without an
// account, TLS or DNS. Tests sign in at the same provider. It is as strict as real
// providers are, so that a request that it accepts is accepted by those, too.
//
// It never serves anything but loopback, never keeps a key longer than the process lives,
// and knows nothing of Sallyport but the names of the headers (identity). internal/testenv
// makes it answer wrongly.
package demo

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Paths of the endpoints, below the issuer.
const (
	DiscoveryPath  = "/.well-known/openid-configuration"
	AuthorizePath  = "/authorize"
	TokenPath      = "/token"
	UserinfoPath   = "/userinfo"
	JWKSPath       = "/jwks"
	EndSessionPath = "/end_session"
	MarkPath       = "/demo-mark.svg" // the icon of the browser's tab
)

const (
	codeLife  = 60 * time.Second // RFC 6749 §4.1.2 recommends 10 minutes at most
	tokenLife = 5 * time.Minute
	maxStored = 1000     // codes, and as many access tokens
	maxBody   = 64 << 10 // bytes of a request's body
	maxParam  = 4 << 10  // bytes of one parameter
)

// ProviderOptions configure a provider.
type ProviderOptions struct {
	Issuer                 string // an origin on loopback, such as http://127.0.0.1:4190
	Title                  string // the heading of its pages; "": Demo sign-in
	ClientID, ClientSecret string
	RedirectURIs           []string // compared byte for byte, RFC 9700 §4.1
	PostLogoutURIs         []string // likewise
	LeadsTo                []string // origins that the client sends browsers on to, beside those of RedirectURIs
	People                 []Person // nil: People()
	Kind                   string   // which provider it behaves like; "" is Standard
	Now                    func() time.Time
	Trust                  *ClientTrust // accepted instead of the secret
}

// ClientTrust says with which JWTs the client can authenticate (RFC 7523 §3): its own if
// Issuer and Subject are the client id, otherwise those of a cluster or a cloud.
type ClientTrust struct {
	Key             any // the public key
	Issuer, Subject string
}

// Provider is an http.Handler that speaks OpenID Connect: the code flow with
// PKCE for one confidential client. Serve it under its issuer.
//
//	GET  /.well-known/openid-configuration
//	GET  /authorize     → a page to choose a person, or an answer to prompt=none
//	POST /authorize     → 303 to the client with code, state and iss
//	POST /token         → ID token, access token, refresh token
//	GET  /userinfo      → the same claims
//	GET  /jwks
//	GET  /end_session   → back to the client, or a page
//
// Scopes: email, profile, groups (the claim groups), org (the claims org_id, org_name and
// org_domain; for people of several organizations the claim orgs instead). A refresh token
// is issued but cannot be used.
type Provider struct {
	opts      ProviderOptions
	kind      providerKind
	host      string
	templates *templates
	mux       *http.ServeMux

	mu     sync.Mutex // guards key, sids, codes and access
	key    *signingKey
	sids   map[string]string // the session in which somebody signed in last, by Person.Key
	codes  *codeStore[grant]
	used   *codeStore[bool] // ids of assertions that were used
	access *codeStore[grant]
}

// grant is what a person has agreed to. It is stored by code, and then by access token.
type grant struct {
	person       Person
	redirectURI  string
	challenge    string
	nonce, sid   string
	tenant       string // from the address that the browser was sent to
	scope        []string
	authTime     time.Time
	accessIssued string // of a used code: the access token that was issued for it
	spent        bool
}

var _ http.Handler = (*Provider)(nil)

// NewProvider makes a provider with new keys. It refuses an issuer that is not on
// loopback, because everybody can sign in here as anybody.
func NewProvider(o ProviderOptions) (*Provider, error) {
	host, err := loopbackOrigin(o.Issuer)
	if err != nil {
		return nil, fmt.Errorf("demo provider: issuer %q: %w", o.Issuer, err)
	}
	if o, err = o.complete(); err != nil {
		return nil, fmt.Errorf("demo provider: %w", err)
	}
	key, err := newSigningKey()
	if err != nil {
		return nil, fmt.Errorf("demo provider: %w", err)
	}
	templates, err := newTemplates(o.Title)
	if err != nil {
		return nil, fmt.Errorf("demo provider: %w", err)
	}
	kind, err := newProviderKind(o)
	if err != nil {
		return nil, fmt.Errorf("demo provider: %w", err)
	}
	p := &Provider{
		opts: o, kind: kind, host: host, templates: templates, mux: http.NewServeMux(), key: key,
		sids:   map[string]string{},
		codes:  newCodeStore[grant](maxStored, kind.codeLife),
		used:   newCodeStore[bool](maxStored, maxAssertion),
		access: newCodeStore[grant](maxStored, tokenLife),
	}
	p.routes()
	return p, nil
}

// loopbackOrigin returns the host of an origin that only this machine can reach.
func loopbackOrigin(issuer string) (string, error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return "", err
	}
	if (u.Scheme != "http" && u.Scheme != "https") || issuer != u.Scheme+"://"+u.Host {
		return "", errors.New("not an origin (scheme://host:port)")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", errors.New("not on loopback")
	}
	return u.Host, nil
}

func (o ProviderOptions) complete() (ProviderOptions, error) {
	if o.ClientID == "" || o.ClientSecret == "" {
		return o, errors.New("a client id and a secret are required")
	}
	for _, uri := range slices.Concat(o.RedirectURIs, o.PostLogoutURIs) {
		// The host is written into a Content-Security-Policy, where ; and , are separators.
		u, err := url.Parse(uri)
		if err != nil || u.Host == "" || strings.ContainsAny(u.Host, ";,'") || strings.Contains(uri, "#") {
			return o, fmt.Errorf("%q is not an absolute URL without fragment", uri)
		}
	}
	if o.Title == "" {
		o.Title = "Demo sign-in"
	}
	if o.People == nil {
		o.People = People()
	}
	seen := map[string]bool{}
	for _, person := range o.People {
		if person.Key == "" || seen[person.Key] {
			return o, fmt.Errorf("person %q needs a key of their own", person.Name)
		}
		seen[person.Key] = true
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o, nil
}

func (p *Provider) routes() {
	page := func(f func(http.ResponseWriter, *http.Request) error) http.Handler {
		return p.templates.page("The demo provider", f)
	}
	for _, e := range []struct {
		methods, path string
		handler       http.Handler
	}{
		{"GET", DiscoveryPath, p.endpoint(p.discovery)},
		{"GET", JWKSPath, p.endpoint(p.jwks)},
		{"GET", MarkPath, p.templates.mark()},
		{"GET", AuthorizePath, page(p.authorize)},
		{"POST", AuthorizePath, page(p.choose)},
		{"POST", p.kind.tokenPath, p.endpoint(p.token)},
		{"GET POST", UserinfoPath, p.endpoint(p.userinfo)},
		{p.logoutMethods(), EndSessionPath, page(p.endSession)},
	} {
		for method := range strings.FieldsSeq(e.methods) {
			if !slices.Contains(p.kind.without, e.path) {
				p.mux.Handle(method+" "+p.kind.prefix+e.path, e.handler)
			}
		}
	}
	p.kind.further(p)
	p.mux.Handle("GET /{$}", page(p.home))
	for path, read := range p.kind.public {
		p.mux.Handle("GET "+path, p.endpoint(func(w http.ResponseWriter, _ *http.Request) error {
			return writeJSON(w, http.StatusOK, read(p))
		}))
	}
	for path, read := range p.kind.protected {
		p.mux.Handle("GET "+path, p.endpoint(p.withAccessToken(read)))
	}
}

func (p *Provider) logoutMethods() string {
	if p.kind.logoutByPost {
		return "POST"
	}
	return "GET POST"
}

// withAccessToken serves a document that an access token is needed for.
func (p *Provider) withAccessToken(
	read func(*Provider, grant) (any, error),
) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		g, err := p.bearer(r)
		if err != nil {
			return err
		}
		v, err := read(p, g)
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, v)
	}
}

// ServeHTTP refuses every Host but the issuer's. Otherwise a site that rebinds its DNS name
// to loopback could sign people in here.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Host, p.host) {
		http.Error(w, "The demo provider answers only as "+p.opts.Issuer+".", http.StatusMisdirectedRequest)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	p.mux.ServeHTTP(w, r)
}

func (p *Provider) discovery(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, http.StatusOK, p.kind.document(p, r.PathValue("tenant")))
}

func (p *Provider) document() map[string]any {
	iss := p.opts.Issuer
	doc := map[string]any{
		"issuer":                                         iss,
		"authorization_endpoint":                         iss + AuthorizePath,
		"token_endpoint":                                 iss + TokenPath,
		"userinfo_endpoint":                              iss + UserinfoPath,
		"jwks_uri":                                       iss + JWKSPath,
		"end_session_endpoint":                           iss + EndSessionPath,
		"response_types_supported":                       []string{"code"},
		"response_modes_supported":                       []string{"query"},
		"grant_types_supported":                          []string{"authorization_code"},
		"subject_types_supported":                        []string{"public"},
		"id_token_signing_alg_values_supported":          []string{"RS256"},
		"token_endpoint_auth_methods_supported":          []string{"client_secret_basic", "client_secret_post"},
		"code_challenge_methods_supported":               []string{"S256"},
		"scopes_supported":                               []string{"openid", "email", "profile", "groups", "org"},
		"prompt_values_supported":                        []string{"none", "login", "consent", "select_account"},
		"authorization_response_iss_parameter_supported": true, // RFC 9207
		"request_parameter_supported":                    false,
		"request_uri_parameter_supported":                false,
		"claims_supported": []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash", "sid",
			"email", "email_verified", "name", "preferred_username", "groups",
			"org_id", "org_name", "org_domain", "orgs"},
	}
	if p.opts.Trust != nil {
		doc["token_endpoint_auth_methods_supported"] = []string{"private_key_jwt"}
		doc["token_endpoint_auth_signing_alg_values_supported"] = assertionAlgs()
	}
	return doc
}

func (p *Provider) jwks(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, p.kind.keys(p))
}

func (p *Provider) home(w http.ResponseWriter, _ *http.Request) error {
	return p.templates.message(w, http.StatusOK, "A pretend identity provider",
		"Open the app instead; it sends you here when you sign in.")
}

// endpoint turns an error into the JSON of RFC 6749 §5.2, or into that of the kind.
func (p *Provider) endpoint(f func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := f(w, r)
		if err == nil {
			return
		}
		var o *oauthError
		if !errors.As(err, &o) {
			o = &oauthError{http.StatusInternalServerError, "server_error", "the demo provider failed"}
		}
		if o.challenge() != "" {
			w.Header().Set("WWW-Authenticate", o.challenge())
		}
		status, body := p.kind.errorBody(o)
		_ = writeJSON(w, status, body) // the client has gone
	})
}

// oauthError is the error that a client gets from the token endpoint and the like.
type oauthError struct {
	status     int
	code, text string
}

func (e *oauthError) Error() string { return e.code + ": " + e.text }

func (e *oauthError) challenge() string {
	switch e.code {
	case "invalid_client": // RFC 6749 §5.2
		return `Basic realm="demo", charset="UTF-8"`
	case "invalid_token": // RFC 6750 §3
		return `Bearer realm="demo", error="invalid_token"`
	}
	return ""
}

func refuse(code, text string) error { return &oauthError{http.StatusBadRequest, code, text} }

func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store") // RFC 6749 §5.1
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, err = w.Write(body)
	return err
}

// single returns the value of name. It is an error if name is there twice (RFC 6749 §3.1)
// or the value is too long.
func single(v url.Values, name string) (string, error) {
	if len(v[name]) > 1 {
		return "", fmt.Errorf("%s is there more than once", name)
	}
	if len(v.Get(name)) > maxParam {
		return "", fmt.Errorf("%s is too long", name)
	}
	return v.Get(name), nil
}

func random() string { return rand.Text() + rand.Text() }
