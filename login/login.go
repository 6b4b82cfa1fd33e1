// Package login asks an OpenID provider, or GitHub, who somebody is.
//
// It owns one provider's side of the authorization code flow: the address that
// the browser is sent to, and everything between the callback and an
// identity.Identity. The tokens live for the length of one Redeem; no exported
// type or function here can hold or return one. It never touches a cookie
// (session does) and never decides what somebody may do (authz does). HTTP to
// the provider goes through oauth.
//
// A Provider needs no network until somebody signs in. It then fetches the
// provider's endpoints and keys, keeps them and renews them. While the provider does
// not answer, what is cached is used; afterwards everything works as before.
package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// Provider signs people in at one OpenID provider. It is safe for concurrent
// use and keeps nothing of one sign-in for the next.
type Provider struct {
	id, kind, issuer       string
	baseURL                string // github
	directory              Directory
	orgDetails             func(context.Context, identity.Org) identity.Org // nil: nothing is known
	endpoints              Endpoints
	clientID, clientSecret string
	clientAuth             string
	clientAssertion        func() (string, error)
	tokensOnly             bool // nobody signs in here
	reauthAfter            time.Duration
	pulse                  *pulse
	discoveryCredential    func() (string, error)
	clientKey              *clientKey
	redirectURL            string
	scopes                 []string
	claims                 ClaimNames
	mapped                 []string // the claims that the configuration names
	identityFrom           string
	emailDomains           []string
	signOut                SignOut
	client                 *oauth.Client
	now                    func() time.Time
	log                    *slog.Logger
	dialect                dialect
	quirks                 []Quirk
	configuredKeys         []signingKey // used instead of published ones
	disco                  *discovery
	notices                *notices
	last                   *atomic.Pointer[[]ClaimForm] // the claims of the last sign-in
	unverifiable           string                       // why access tokens cannot be verified; "" if they can be
	noLogouts              string                       // why logout tokens are not taken; "" if they are
}

// New checks o and returns a Provider. It does no I/O.
func New(o Options) (*Provider, error) {
	o = o.complete()
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("provider %q: %w", o.ID, err)
	}
	p := &Provider{
		id: o.ID, kind: o.Type, issuer: o.Issuer, endpoints: o.Endpoints, baseURL: o.BaseURL,
		clientID: o.ClientID, clientSecret: o.ClientSecret, clientAuth: or(o.ClientAuth, ClientAuthAuto),
		redirectURL: o.RedirectURL, signOut: o.SignOut, directory: o.Directory, orgDetails: o.OrgDetails,
		claims: o.Claims.withDefaults(), mapped: o.Claims.all(), identityFrom: or(o.IdentityFrom, FromAuto),
		client: o.Client, now: o.Now, log: o.Log, dialect: newDialect(o), disco: &discovery{},
		notices: &notices{seen: map[string]bool{}}, last: &atomic.Pointer[[]ClaimForm]{},
		unverifiable: o.unverifiable(), noLogouts: o.NoLogoutTokens(),
	}
	p.scopes = p.dialect.scopesFor(o.Scopes)
	for _, q := range o.allowed() {
		p.quirks = append(p.quirks, q.Quirk)
	}
	p.reauthAfter, p.pulse = o.ReauthAfter, &pulse{}
	p.clientAssertion, p.tokensOnly, p.discoveryCredential = o.ClientAssertion, o.tokensOnly(), o.DiscoveryCredential
	if o.ClientAuth == ClientAuthPrivateKey {
		p.clientKey, _ = parseClientKey(o.ClientKey, o.ClientKeyID) // o.check has parsed it without an error
	}
	if err := p.readConfiguredKeys(o); err != nil {
		return nil, fmt.Errorf("provider %q: %w", o.ID, err)
	}
	for _, d := range o.EmailDomains {
		p.emailDomains = append(p.emailDomains, strings.ToLower(d))
	}
	if p.now == nil {
		p.now = time.Now
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.log = p.log.With("provider", p.id)
	if p.client == nil {
		c, err := oauth.NewClient(oauth.Options{Provider: o.ID})
		if err != nil {
			return nil, err
		}
		p.client = c
	}
	if o.configured() {
		p.disco.static = p.staticMetadata()
	}
	for _, q := range p.quirks {
		p.log.Warn("a quirk is allowed", "quirk", q.Name, "weakens", q.Weakens)
	}
	return p, nil
}

// AuthURL returns the address that the browser is sent to. It is made from the
// Options, h and ap only, and never from a parameter of the browser's request: a link
// on another site must not be able to change what we ask the provider for, as it once
// could with mod_auth_openidc.
func (p *Provider) AuthURL(ctx context.Context, h identity.Handshake, ap identity.AuthParams) (string, error) {
	if err := checkHandshake(h); err != nil {
		return "", err
	}
	if h.State == "" {
		return "", fail(identity.Rejected, "the handshake has no state")
	}
	m, err := p.metadata(ctx)
	if err != nil {
		return "", err
	}
	c := oauth2.Config{
		ClientID: p.clientID, RedirectURL: p.redirectURL, Scopes: p.scopes,
		Endpoint: oauth2.Endpoint{AuthURL: m.AuthorizationURL},
	}
	var opts []oauth2.AuthCodeOption
	if !p.dialect.plainOAuth {
		opts = append(opts, oidc.Nonce(h.Nonce))
	}
	// S256 whatever the provider advertises: leaving it out would be a downgrade
	// that a tampered discovery document can ask for (RFC 9700 §2.1.1, CVE-2024-23647).
	if !p.dialect.noPKCE {
		opts = append(opts, oauth2.S256ChallengeOption(h.Verifier))
	}
	add := func(name, value string) {
		if value != "" {
			opts = append(opts, oauth2.SetAuthURLParam(name, value))
		}
	}
	for name := range p.dialect.authParams {
		add(name, p.dialect.authParams.Get(name))
	}
	if p.dialect.plainOAuth {
		for name, value := range githubAuthParams(ap) {
			add(name, value)
		}
		return c.AuthCodeURL(h.State, opts...), nil
	}
	add("prompt", ap.Prompt)
	add("login_hint", ap.LoginHint)
	add("acr_values", ap.ACR)
	if ap.MaxAge > 0 {
		add("max_age", strconv.FormatInt(int64(ap.MaxAge/time.Second), 10))
	}
	return c.AuthCodeURL(h.State, opts...), nil
}

// checkHandshake refuses an incomplete handshake: an empty nonce would be equal to
// the missing nonce of an ID token.
func checkHandshake(h identity.Handshake) error {
	if h.Nonce == "" || len(h.Verifier) < 43 { // RFC 7636 §4.1
		return fail(identity.Rejected, "the handshake has no nonce or no verifier")
	}
	return nil
}

// Redeem turns the callback's parameters into an identity. A callback can be redeemed
// once. Errors are of type *identity.SignInError, and come with the zero identity.
func (p *Provider) Redeem(ctx context.Context, callback url.Values, h identity.Handshake,
	ap identity.AuthParams,
) (identity.Identity, error) {
	if err := checkHandshake(h); err != nil {
		return identity.Identity{}, err
	}
	m, err := p.metadata(ctx)
	if err != nil {
		return identity.Identity{}, err
	}
	code, err := p.readCallback(callback, h, m)
	if err != nil {
		return identity.Identity{}, err
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {p.redirectURL}}
	if !p.dialect.noPKCE {
		form.Set("code_verifier", h.Verifier)
	}
	request, err := p.tokenRequest(m, form)
	if err != nil {
		return identity.Identity{}, err
	}
	tokens, err := p.client.Exchange(ctx, request)
	if err != nil {
		return identity.Identity{}, p.failExchange(err, m)
	}
	p.noteAnswer()
	who, sources, err := p.verifiedClaims(ctx, m, tokens, h, ap)
	if err != nil {
		return identity.Identity{}, err
	}
	if err := p.checkOrgs(ctx, who, sources); err != nil {
		return identity.Identity{}, err
	}
	reader{p, ctx, who, sources}.remember()
	return p.identity(ctx, who, sources), nil
}

// verifiedClaims returns the claims that say who the person is, and all sources from
// which something may be read about the person. The tokens are not used after this.
func (p *Provider) verifiedClaims(ctx context.Context, m *metadata, tokens oauth.TokenResponse, h identity.Handshake,
	ap identity.AuthParams,
) (who claims, sources []claims, err error) {
	if p.dialect.account != nil {
		if who, err = p.dialect.account(ctx, p, tokens); err == nil {
			err = p.checkRequested(who, ap)
		}
		if err == nil {
			err = p.checkAdmitted(ctx, who)
		}
		return who, []claims{who}, err
	}
	if p.dialect.userinfoAlone {
		if who, err = p.userinfo(ctx, m, nil, tokens.AccessToken); err == nil {
			err = p.checkRequested(who, ap)
		}
		return who, []claims{who}, err
	}
	if who, err = p.verifyIDToken(ctx, m, tokens, h, ap); err != nil {
		return nil, nil, err
	}
	who = p.resolvePaths(who)
	if err = p.checkAdmitted(ctx, who); err != nil { // before anybody else is asked about the person
		return nil, nil, err
	}
	sources, err = p.sources(ctx, m, who, tokens.AccessToken)
	return who, sources, err
}

// Discovered reports whether AuthURL can answer without asking the provider: the
// authorization endpoint is configured, or discovery has found it. An old discovery
// document is renewed in the background, so sign-ins do not wait for that.
func (p *Provider) Discovered() bool { return p.disco.current() != nil }

// AuthOrigins returns the origins that the browser is sent to: the origin of the
// authorization endpoint (until it is known, that of the issuer), and the origins to
// which a vendor redirects the browser at once. Pages with a form from which a sign-in may
// follow list them in the form-action of their Content-Security-Policy.
func (p *Provider) AuthOrigins() []string {
	address := or(p.endpoints.AuthorizationURL, p.issuer)
	if m := p.disco.current(); m != nil {
		address = m.AuthorizationURL
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil
	}
	return append([]string{u.Scheme + "://" + u.Host}, p.dialect.redirectOrigins...)
}

// fail makes the error of every check in this package. The text is logged, so it must
// not contain anything secret.
func fail(f identity.SignInFailure, format string, args ...any) error {
	return &identity.SignInError{Failure: f, Err: fmt.Errorf(format, args...)}
}

// failCall makes a sign-in error from an error of a request to the provider.
func failCall(err error) error {
	var e *oauth.Error
	if !errors.As(err, &e) {
		return fail(identity.Rejected, "the provider's answer could not be used")
	}
	failure := identity.Rejected
	switch e.Kind {
	case oauth.Unavailable:
		failure = identity.Unavailable
	case oauth.Misconfigured:
		failure = identity.Misconfigured
	}
	return &identity.SignInError{Failure: failure, Err: e}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
