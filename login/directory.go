package login

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// Directory says how an administrator of a Workspace lets us read, once, what Google's
// directory says of it. The zero Directory: nobody can.
type Directory struct {
	On          bool
	RedirectURL string // where Google sends them back to; it is not that of sign-ins
	// BaseURL is an origin that answers as Google's API and revocation endpoint; "": Google's own.
	BaseURL string
}

const (
	directoryScope  = "https://www.googleapis.com/auth/admin.directory.customer.readonly"
	directoryOrigin = "https://admin.googleapis.com"
	revokeOrigin    = "https://oauth2.googleapis.com"
	// directoryPath is customers.get of the Directory API for the account's own Workspace. Only
	// the fields that are kept are asked for (docs/providers/google.md has the sources).
	directoryPath  = "/admin/directory/v1/customers/my_customer?fields=id,customerDomain,postalAddress/organizationName"
	revokePath     = "/revoke"
	maxDirectory   = 64 << 10 // bytes of its answer
	maxCustomer    = 64       // bytes of a customer id
	revokeTime     = 5 * time.Second
	directoryClaim = "hd"
)

// directoryConflicts finds what a directory does not go with.
func (o Options) directoryConflicts(add func(wrong bool, key, why string)) {
	if !o.Directory.On {
		return
	}
	add(o.Type != TypeGoogle, "directory", "is for type google")
	add(o.tokensOnly(), "directory", "is for a provider at which people sign in")
	add(o.Claims.OrgID != "" || o.Claims.Orgs != "", "directory",
		"has no meaning where `claims` names the organization: it is not the Workspace then")
}

// DirectoryScopes are the scopes that are requested, with what they give access to. The ID
// token says whose account the access token is of.
func DirectoryScopes() []Scope {
	return []Scope{
		{oidc.ScopeOpenID, "Says whose account it is."},
		{oidc.ScopeEmail, "Has Google say, too, to which Workspace the account belongs; the address is not read."},
		{directoryScope, "Opens the customer id, name and primary domain of the Workspace, and more that is not " +
			"asked for. Only for its administrators."},
	}
}

// DirectoryDomain is the Workspace domain of somebody's own account, of which the directory
// can be read; false: there is none.
func (p *Provider) DirectoryDomain(who identity.Identity) (string, bool) {
	domain, ok := strings.CutPrefix(who.Org.ID, p.id+":")
	return domain, ok && p.directory.On && who.Provider == p.id && hostname.IsDomain(domain)
}

// DirectoryURL returns the address at which an administrator lets us read their directory.
// Nothing that lasts is asked for, and include_granted_scopes is never sent: the token would
// be good for all that the person ever granted to the project.
func (p *Provider) DirectoryURL(ctx context.Context, h identity.Handshake, who identity.Identity) (string, error) {
	if err := checkHandshake(h); err != nil {
		return "", err
	}
	domain, ok := p.DirectoryDomain(who)
	if !ok || h.State == "" {
		return "", fail(identity.Rejected, "there is no directory to read for this person")
	}
	m, err := p.metadata(ctx)
	if err != nil {
		return "", err
	}
	c := oauth2.Config{ClientID: p.clientID, RedirectURL: p.directory.RedirectURL,
		Endpoint: oauth2.Endpoint{AuthURL: m.AuthorizationURL}}
	for _, scope := range DirectoryScopes() {
		c.Scopes = append(c.Scopes, scope.Name)
	}
	return c.AuthCodeURL(h.State, oidc.Nonce(h.Nonce), oauth2.S256ChallengeOption(h.Verifier),
		oauth2.AccessTypeOnline, oauth2.SetAuthURLParam("prompt", "consent"), oauth2.SetAuthURLParam("hd", domain),
		oauth2.SetAuthURLParam("login_hint", or(who.Email, who.Subject))), nil
}

// ReadDirectory turns the callback's parameters into what the directory says of the
// organization of who. A callback can be used once. The access token is ended at Google and
// dropped before it returns, however it ends. Errors are of type *identity.DirectoryError.
//
// Anybody can be administrator of a Workspace of their own and give it any name. What they
// cannot make up is what Google signs: that the account is that of who (sub), and to which
// Workspace it belongs (hd). So both must be what they were at the sign-in, in the ID token
// that came with the access token; and the primary domain in the directory must be that hd,
// because only that domain is part of the organization's id.
func (p *Provider) ReadDirectory(ctx context.Context, callback url.Values, h identity.Handshake,
	who identity.Identity,
) (identity.OrgDetails, error) {
	domain, ok := p.DirectoryDomain(who)
	if !ok {
		return identity.OrgDetails{}, directoryFailure(identity.DirectoryRejected, "this person has no directory")
	}
	m, tokens, err := p.redeemForDirectory(ctx, callback, h)
	if err != nil {
		return identity.OrgDetails{}, directoryError(err)
	}
	defer p.endDirectoryToken(ctx, tokens.AccessToken)
	if !grantsDirectory(tokens.Scope) {
		return identity.OrgDetails{}, directoryFailure(identity.DirectoryNotGranted,
			"the person did not grant the scope")
	}
	token, err := p.verifyIDToken(ctx, m, tokens, h, identity.AuthParams{})
	if err != nil {
		return identity.OrgDetails{}, directoryError(err)
	}
	sub, _ := p.dialect.person(token)
	if subtle.ConstantTimeCompare([]byte(sub), []byte(who.Subject)) != 1 {
		return identity.OrgDetails{}, directoryFailure(identity.DirectoryOtherAccount,
			"another account was chosen at Google than the one that is signed in here")
	}
	if hd, ok := hostedDomain(token); !ok || hd != domain {
		return identity.OrgDetails{}, directoryFailure(identity.DirectoryOtherDomain,
			"the account belongs to another Workspace than at the sign-in: hd is %s", token.quoted(directoryClaim))
	}
	details, err := p.askDirectory(ctx, tokens.AccessToken)
	if err != nil {
		return identity.OrgDetails{}, err
	}
	if details.Domain != domain {
		return identity.OrgDetails{}, directoryFailure(identity.DirectorySecondary,
			"the primary domain of the Workspace is %s, and the account is of %s", quoted(details.Domain), domain)
	}
	details.OrgID, details.ReadBy, details.ReadAt = who.Org.ID, who.ID(), p.now()
	return details, nil
}

func (p *Provider) redeemForDirectory(ctx context.Context, callback url.Values, h identity.Handshake) (
	m *metadata, tokens oauth.TokenResponse, err error) {
	if err := checkHandshake(h); err != nil {
		return nil, tokens, err
	}
	if m, err = p.metadata(ctx); err != nil {
		return nil, tokens, err
	}
	code, err := p.readCallback(callback, h, m)
	if err != nil {
		return nil, tokens, err
	}
	request, err := p.tokenRequest(m, url.Values{"grant_type": {"authorization_code"}, "code": {code},
		"redirect_uri": {p.directory.RedirectURL}, "code_verifier": {h.Verifier}})
	if err != nil {
		return nil, tokens, err
	}
	if tokens, err = p.client.Exchange(ctx, request); err != nil {
		return nil, tokens, p.failExchange(err, m)
	}
	if tokens.AccessToken == "" {
		return nil, tokens, fail(identity.Rejected, "the provider sent no access token")
	}
	return m, tokens, nil
}

// grantsDirectory reports whether the scope was granted: people can untick it. An answer that
// does not tell means as it was asked (RFC 6749 §5.1).
func grantsDirectory(granted string) bool {
	return granted == "" || slices.Contains(strings.Fields(granted), directoryScope)
}

// endDirectoryToken ends a token at Google. Where that fails it still expires within the hour,
// and nobody has it any more.
func (p *Provider) endDirectoryToken(ctx context.Context, token string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTime)
	defer cancel()
	// The endpoint takes the token alone; the secret has no business there.
	err := p.client.Revoke(ctx, oauth.TokenRequest{URL: or(p.directory.BaseURL, revokeOrigin) + revokePath,
		ClientID: p.clientID, Auth: oauth.None, Form: url.Values{"token": {token}}})
	if err != nil {
		p.log.WarnContext(ctx, "the token with which a directory was read could not be ended at Google; it was "+
			"dropped, and expires within an hour", "error", err)
	}
}

// askDirectory asks for the Workspace of the account that the token is of.
func (p *Provider) askDirectory(ctx context.Context, token string) (identity.OrgDetails, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		or(p.directory.BaseURL, directoryOrigin)+directoryPath, nil)
	if err != nil {
		return identity.OrgDetails{}, directoryFailure(identity.DirectoryMisconfigured, "the API's address is no URL")
	}
	req.Header.Set("Authorization", "Bearer "+token) // RFC 6750 §2.1
	req.Header.Set("Accept", "application/json")
	body, err := p.client.WithMaxBody(maxDirectory).Document(req, "directory")
	if err != nil {
		return identity.OrgDetails{}, refusedDirectory(err, body)
	}
	details, err := readCustomer(body)
	if err != nil {
		return identity.OrgDetails{}, &identity.DirectoryError{Reason: identity.DirectoryUnusable, Err: err}
	}
	return details, nil
}

// readCustomer reads a Customer resource. A name that would not be one for people is refused
// and not cut: half a name may be another one's.
func readCustomer(body []byte) (d identity.OrgDetails, err error) {
	members, err := oauth.Members(body, "id", "customerDomain", "postalAddress")
	if err != nil {
		return d, fmt.Errorf("the directory's answer: %w", err)
	}
	c := claims(members)
	var ok bool
	if d.CustomerID, ok = c.text("id"); !ok || !isCustomerID(d.CustomerID) {
		return d, fmt.Errorf("the directory's answer has no customer id of letters and digits: it is %s", c.form("id"))
	}
	domain, _ := c.text("customerDomain")
	if d.Domain = identity.LowerASCII(domain); !hostname.IsDomain(d.Domain) {
		return d, fmt.Errorf("the directory's answer has no primary domain: it is %s", c.form("customerDomain"))
	}
	if !c.has("postalAddress") {
		return d, nil
	}
	address, err := oauth.Members(c["postalAddress"], "organizationName")
	if err != nil {
		return d, fmt.Errorf("the directory's answer: postalAddress: %w", err)
	}
	if a := claims(address); a.has("organizationName") {
		d.Name, ok = a.text("organizationName")
		if d.Name = strings.TrimSpace(d.Name); !ok || d.Name != "" && !printable(d.Name, maxText) {
			return d, fmt.Errorf("the organization's name is not a text of at most %d bytes without control "+
				"characters: it is %s", maxText, a.form("organizationName"))
		}
	}
	return d, nil
}

// isCustomerID: Google's are such as C03az79cb.
func isCustomerID(id string) bool {
	return id != "" && len(id) <= maxCustomer && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// refusedDirectory says what an answer of the API that is no success means.
func refusedDirectory(err error, body []byte) error {
	var call *oauth.Error
	if !errors.As(err, &call) {
		return directoryError(err)
	}
	reasons := apiReasons(body)
	has := func(any ...string) bool {
		return slices.ContainsFunc(reasons, func(r string) bool { return slices.Contains(any, r) })
	}
	reason := identity.DirectoryRejected
	switch {
	case call.Kind == oauth.Unavailable, call.Status == http.StatusTooManyRequests,
		has("rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "dailyLimitExceeded"):
		reason = identity.DirectoryUnavailable
	case has("accessNotConfigured", "SERVICE_DISABLED"):
		reason = identity.DirectoryNotEnabled
	case has("insufficientPermissions", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"):
		reason = identity.DirectoryNotGranted
	case call.Status == http.StatusForbidden:
		reason = identity.DirectoryNotAdmin
	}
	return &identity.DirectoryError{Reason: reason, Err: call}
}

// apiReasons are the codes of an error of Google's APIs, in both of its forms: errors[].reason
// and details[].reason. Its texts for people are not read.
func apiReasons(body []byte) (reasons []string) {
	var answer struct {
		Error struct {
			Errors, Details []struct{ Reason string }
		}
	}
	if json.Unmarshal(body, &answer) != nil {
		return nil
	}
	for _, e := range slices.Concat(answer.Error.Errors, answer.Error.Details) {
		reasons = append(reasons, e.Reason)
	}
	return reasons
}

func directoryFailure(r identity.DirectoryReason, format string, args ...any) error {
	return &identity.DirectoryError{Reason: r, Err: fmt.Errorf(format, args...)}
}

// directoryError is what a step that sign-ins have too means here.
func directoryError(err error) error {
	reason := map[identity.SignInFailure]identity.DirectoryReason{
		identity.Declined:      identity.DirectoryDeclined,
		identity.Interaction:   identity.DirectoryDeclined,
		identity.Unavailable:   identity.DirectoryUnavailable,
		identity.ProviderFault: identity.DirectoryUnavailable,
		identity.Expired:       identity.DirectoryUnavailable,
		identity.Misconfigured: identity.DirectoryMisconfigured,
	}[identity.FailureOf(err)]
	return &identity.DirectoryError{Reason: cmp.Or(reason, identity.DirectoryRejected), Err: err}
}
