// Package login asks an OpenID provider who somebody is.
//
// It owns one provider's side of the authorization code flow: the address that
// the browser is sent to, and everything between the callback and an
// identity.Identity. The tokens live for the length of one Redeem; no exported
// type or function here can hold or return one. It never touches a cookie
// (session does) and never decides what somebody may do (authz does). HTTP to
// the provider goes through oauth.
//
// A Provider needs no network until somebody signs in. What it then learns,
// endpoints and keys, it keeps and renews; an outage costs sign-ins while it
// lasts and nothing after.
package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// What Options.ClientAuth and Options.IdentityFrom may say.
const (
	ClientAuthAuto  = "auto" // from discovery: basic unless only post is offered; never probed
	ClientAuthBasic = "basic"
	ClientAuthPost  = "post"
	ClientAuthNone  = "none"

	FromAuto     = "auto" // userinfo only when a wanted claim is missing in the ID token
	FromIDToken  = "id_token"
	FromUserinfo = "userinfo"
)

// Options describe one provider.
type Options struct {
	ID           string // the provider id in every identity; never reused for another issuer
	Issuer       string // exactly as the provider spells it
	ClientID     string
	ClientSecret string
	ClientAuth   string // "" means auto
	RedirectURL  string
	Scopes       []string // openid is added if it is missing; none means openid, profile, email
	Claims       ClaimNames
	IdentityFrom string   // "" means auto
	EmailDomains []string // if set, addresses elsewhere count as unverified

	Client *oauth.Client // nil: one with defaults, not measured
	Now    func() time.Time
	Log    *slog.Logger // nil: discard
}

// ClaimNames says which claim is which. Empty names have defaults: org_id,
// org_name, org_domain, groups, preferred_username, name, email.
type ClaimNames struct{ OrgID, OrgName, OrgDomain, Orgs, Groups, Username, Name, Email string }

// Provider signs people in at one OpenID provider. It is safe for concurrent
// use and keeps nothing of one sign-in for the next.
type Provider struct {
	id, issuer             string
	clientID, clientSecret string
	clientAuth             string
	redirectURL            string
	scopes                 []string
	claims                 ClaimNames
	wanted                 []string // the claims whose absence makes auto ask userinfo
	identityFrom           string
	emailDomains           []string
	client                 *oauth.Client
	now                    func() time.Time
	log                    *slog.Logger
	disco                  discovery
}

// New checks o and returns a Provider. It does no I/O.
func New(o Options) (*Provider, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("provider %q: %w", o.ID, err)
	}
	p := &Provider{
		id: o.ID, issuer: o.Issuer,
		clientID: o.ClientID, clientSecret: o.ClientSecret, clientAuth: or(o.ClientAuth, ClientAuthAuto),
		redirectURL: o.RedirectURL, scopes: scopes(o.Scopes),
		claims: o.Claims.withDefaults(), wanted: o.Claims.wanted(), identityFrom: or(o.IdentityFrom, FromAuto),
		client: o.Client, now: o.Now, log: o.Log,
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
	return p, nil
}

func (o Options) check() error {
	if o.ID == "" || strings.Contains(o.ID, ":") {
		return errors.New("the id must be non-empty and without ':'") // Identity.ID joins with it
	}
	if err := checkURL(o.Issuer); err != nil || strings.ContainsAny(o.Issuer, "?#") {
		return fmt.Errorf("issuer %q: must be an https URL without query or fragment (http only on loopback)", o.Issuer)
	}
	if err := checkURL(o.RedirectURL); err != nil {
		return fmt.Errorf("redirect URL %q: %w", o.RedirectURL, err)
	}
	if o.ClientID == "" {
		return errors.New("the client id is empty")
	}
	switch o.ClientAuth {
	case "", ClientAuthAuto, ClientAuthNone:
	case ClientAuthBasic, ClientAuthPost:
		if o.ClientSecret == "" {
			return fmt.Errorf("client authentication %q needs a client secret", o.ClientAuth)
		}
	default:
		return fmt.Errorf("unknown client authentication %q", o.ClientAuth)
	}
	switch o.IdentityFrom {
	case "", FromAuto, FromIDToken, FromUserinfo:
	default:
		return fmt.Errorf("unknown identity source %q", o.IdentityFrom)
	}
	for _, d := range o.EmailDomains {
		if !isDomain(strings.ToLower(d)) {
			return fmt.Errorf("e-mail domain %q is not a domain", d)
		}
	}
	return nil
}

// checkURL accepts absolute https URLs, and http ones on loopback.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("not an absolute URL")
	}
	if u.Scheme == "https" || (u.Scheme == "http" && isLoopback(u.Hostname())) {
		return nil
	}
	return errors.New("must be https (http only on loopback)")
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

func scopes(in []string) []string {
	if len(in) == 0 {
		return []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail}
	}
	out := []string{oidc.ScopeOpenID}
	for _, s := range in {
		if s != oidc.ScopeOpenID {
			out = append(out, s)
		}
	}
	return out
}

// AuthURL is where the browser is sent. Only Options, h and ap go into it;
// nothing that a browser asked for can (security.md 88, C20).
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
		Endpoint: oauth2.Endpoint{AuthURL: m.authURL},
	}
	// S256 whatever the provider advertises: leaving it out would be a downgrade
	// that a tampered discovery document can ask for (RFC 9700 §2.1.1, CVE-2024-23647).
	opts := []oauth2.AuthCodeOption{oidc.Nonce(h.Nonce), oauth2.S256ChallengeOption(h.Verifier)}
	add := func(name, value string) {
		if value != "" {
			opts = append(opts, oauth2.SetAuthURLParam(name, value))
		}
	}
	add("prompt", ap.Prompt)
	add("login_hint", ap.LoginHint)
	add("acr_values", ap.ACR)
	if ap.MaxAge > 0 {
		add("max_age", strconv.FormatInt(int64(ap.MaxAge/time.Second), 10))
	}
	return c.AuthCodeURL(h.State, opts...), nil
}

// checkHandshake refuses an incomplete handshake: an empty nonce would equal an
// absent one.
func checkHandshake(h identity.Handshake) error {
	if h.Nonce == "" || len(h.Verifier) < 43 { // RFC 7636 §4.1
		return fail(identity.Rejected, "the handshake has no nonce or no verifier")
	}
	return nil
}

// Redeem turns the callback's parameters into an identity, once. Errors are of
// type *identity.SignInError. On any error the identity is the zero one.
func (p *Provider) Redeem(ctx context.Context, callback url.Values, h identity.Handshake, ap identity.AuthParams) (identity.Identity, error) {
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
	tokens, err := p.client.Exchange(ctx, oauth.TokenRequest{
		URL: m.tokenURL, ClientID: p.clientID, ClientSecret: p.clientSecret, Auth: m.clientAuth,
		Form: url.Values{
			"grant_type": {"authorization_code"}, "code": {code},
			"redirect_uri": {p.redirectURL}, "code_verifier": {h.Verifier},
		},
	})
	if err != nil {
		return identity.Identity{}, failCall(err)
	}
	token, err := p.verifyIDToken(ctx, m, tokens, h, ap)
	if err != nil {
		return identity.Identity{}, err
	}
	sources, err := p.sources(ctx, m, token, tokens.AccessToken)
	if err != nil {
		return identity.Identity{}, err
	}
	return p.identity(ctx, token, sources), nil
}

// AuthOrigin is the scheme and host that the browser is sent to: of the
// authorization endpoint once it is known, else of the issuer. Pages that start
// a sign-in name it in their form-action.
func (p *Provider) AuthOrigin() string {
	address := p.issuer
	if m := p.disco.current(); m != nil {
		address = m.authURL
	}
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// fail is how every check in this package says no. The text is logged: it must
// not be made from anything secret.
func fail(f identity.SignInFailure, format string, args ...any) error {
	return &identity.SignInError{Failure: f, Err: fmt.Errorf(format, args...)}
}

// failCall classes an error of the back channel.
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
