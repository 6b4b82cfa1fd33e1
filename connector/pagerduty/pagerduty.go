// Package pagerduty is the connector of PagerDuty accounts by OAuth, for `type: pagerduty`:
// reading schedules, who is on call and incidents, or changing them.
//
// It owns what is not standard about PagerDuty's authorization server: two kinds of scopes, a
// scope that is not valid and is left out without an error, ID tokens with an API in their
// audience, which is the region, and an end of all tokens that no refresh puts off. What it
// shares with the connector for keys is in pagerdutyapi, what all connectors share in
// connector, how a request is sent in oauth. It keeps nothing.
//
// What it relies on is in PagerDuty's documentation:
// https://developer.pagerduty.com/docs/oauth-functionality,
// https://developer.pagerduty.com/docs/private-apps and
// https://developer.pagerduty.com/docs/pagerduty-openid-token, which are files in
// https://github.com/PagerDuty/developer-docs.
package pagerduty

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/pagerdutyapi"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// Type is the type of such a connector in the configuration.
const Type = "pagerduty"

// The names of the accesses.
const (
	Read  = "read"
	Write = "write" // and read
)

// The values of Options.Scopes: the OAuth functionality of the app at PagerDuty.
const (
	Classic = "classic" // Classic User OAuth: read or write, for people of every account
	Scoped  = "scoped"  // Scoped OAuth: by resource, for people of the app's own account
)

// ScopesWider is the reason of a grant.Error where more was granted than was asked for.
const ScopesWider = "scopes_wider"

const (
	identityOrigin = "https://identity.pagerduty.com"
	// PagerDuty's pages name both issuers: its list of claims the first, its sample tokens
	// the second.
	issuer    = "https://identity.pagerduty.com/global/oauth/anonymous"
	oldIssuer = "https://app.pagerduty.com/global/oauth/anonymous"
	keysPath  = "/global/oauth/anonymous/jwks"
	domain    = ".pagerduty.com"
)

// scopeOpenID comes with all tokens, asked for or not, and opens no API: it does not count.
const scopeOpenID = "openid"

const day = 24 * time.Hour

// lifetimes are those that PagerDuty states for each kind, under "Token Lifetimes". There is
// nothing of the refresh token in its answers. window is the "rolling refresh window", after
// which a person has to agree again whatever was refreshed; that it begins when they agree,
// and is not moved by a refresh, is how that page reads ("continuously … for three years").
type lifetimes struct{ refresh, window time.Duration }

func lifetimesOf(scopes string) lifetimes {
	if scopes == Scoped {
		return lifetimes{30 * day, 365 * day}
	}
	return lifetimes{210 * day, 3 * 365 * day}
}

// codeWithin bounds the request with a code: whatever comes later than that is of no use.
const codeWithin = 20 * time.Second

// nameWithin bounds the request for the account's name, without which it goes too.
const nameWithin = 5 * time.Second

// Options are what a Connector needs.
type Options struct {
	connector.Client
	Scopes string // Classic or Scoped; "": Classic
}

// Connector is a grant.OAuth, a grant.Revoker, a grant.Finish and a grant.Sender. It prints
// as "<pagerduty connector>".
type Connector struct {
	about    grant.About
	request  oauth.TokenRequest // what every request has in common
	scopes   string
	base     string // "": PagerDuty
	identity string
	oauth    *oauth.Client
	now      func() time.Time
}

var (
	_ grant.OAuth   = (*Connector)(nil)
	_ grant.Revoker = (*Connector)(nil)
	_ grant.Finish  = (*Connector)(nil)
	_ grant.Sender  = (*Connector)(nil)
)

// Format implements fmt.Formatter: no verb prints the secret.
func (Connector) Format(s fmt.State, _ rune) { io.WriteString(s, "<pagerduty connector>") }

// New returns a Connector. It does no I/O. What is wrong with the configuration is a
// *connector.Fault.
func New(o Options) (*Connector, error) {
	if err := o.Complete(); err != nil {
		return nil, fmt.Errorf("pagerduty: %w", err)
	}
	o.Scopes = cmp.Or(o.Scopes, Classic)
	if o.Scopes != Classic && o.Scopes != Scoped {
		return nil, connector.FaultAt("oauth_kind", errors.New("must be classic or scoped"))
	}
	accesses, err := accesses(o.Scopes)
	if err != nil {
		return nil, err
	}
	c := &Connector{scopes: o.Scopes, base: o.Base, identity: cmp.Or(o.Base, identityOrigin), oauth: o.OAuth,
		now: o.Now}
	token := c.identity + "/oauth/token"
	c.request = o.Request(token, oauth.Post) // in the body, as in every sample of PagerDuty's page
	c.about = o.About(Type, "PagerDuty", c.identity, token)
	c.about.Accesses, c.about.Forward = accesses, pagerdutyapi.Forward()
	if o.Base == "" {
		// Who has an account with a sign-on of its own is sent there, to the account's host.
		c.about.Onward = []string{"https://*" + domain}
	}
	// A refresh replaces the refresh token, and what showing the old one once more does is
	// in none of PagerDuty's pages. Where the answer was lost the new one is lost too, so
	// that nothing worse can come of trying.
	c.about.Resend = true
	return c, nil
}

// resources are those of which pagerdutyapi.Reads and Writes let something through, as the
// scopes of Scoped OAuth spell them.
func resources() (reads, writes []string) {
	return []string{"oncalls", "schedules", "users", "teams", "escalation_policies", "services", "incidents"},
		[]string{"schedules", "incidents"}
}

// accesses are what there is. Of Classic User OAuth write includes read; of Scoped OAuth it
// does not.
func accesses(scopes string) ([]grant.Access, error) {
	read, write := []string{"read"}, []string{"write"}
	if scopes == Scoped {
		reads, writes := resources()
		read, write = suffixed(reads, ".read"), append(suffixed(reads, ".read"), suffixed(writes, ".write")...)
	}
	readRules, err := connector.Rules(pagerdutyapi.Reads())
	if err != nil {
		return nil, err
	}
	writeRules, err := connector.Rules(pagerdutyapi.Writes())
	if err != nil {
		return nil, err
	}
	return []grant.Access{
		{Name: Read, Scopes: read, Rules: readRules, Means: pagerdutyapi.ReadMeans},
		{Name: Write, Scopes: write, Rules: writeRules, Means: pagerdutyapi.WriteMeans},
	}, nil
}

func suffixed(names []string, suffix string) (list []string) {
	for _, name := range names {
		list = append(list, name+suffix)
	}
	return list
}

// About implements grant.Connector. The caller may keep and change what it gets.
func (c *Connector) About() grant.About {
	about := c.about
	about.Accesses = slices.Clone(about.Accesses)
	about.Onward, about.Forward = slices.Clone(about.Onward), slices.Clone(about.Forward)
	return about
}

// Origin implements grant.Connector: the API of the region that the ID token named.
func (c *Connector) Origin(a grant.Account) string { return pagerdutyapi.Origin(c.base, a.Region) }

// From implements grant.Sender: the address that PagerDuty has of the account's user.
func (c *Connector) From(a grant.Account) string {
	if strings.Contains(a.Name, "@") {
		return a.Name
	}
	return ""
}

// Issuer implements grant.OAuth: PagerDuty's callbacks have no iss. What keeps codes of other
// authorization servers away is that the redirect URI is this connector's own (RFC 9700
// §4.4.2.2).
func (c *Connector) Issuer() string { return "" }

// AuthURL implements grant.OAuth. No nonce is sent, because PagerDuty's ID tokens have none:
// the code is bound to the browser by PKCE.
func (c *Connector) AuthURL(h identity.Handshake, r grant.Request) (string, error) {
	r.Scopes = c.asked(r.Scopes)
	return connector.Authorize(c.identity+"/oauth/authorize", c.about.ClientID, h, r, nil)
}

// asked are the scopes as a request has them: of Classic User OAuth one, read or write.
func (c *Connector) asked(scopes []string) []string {
	if c.scopes == Classic && slices.Contains(scopes, "write") {
		return []string{"write"}
	}
	return scopes
}

// Redeem implements grant.OAuth. A code is good for 30 seconds, so it is redeemed before
// anything else is asked, and nothing waits before that.
func (c *Connector) Redeem(
	ctx context.Context, callback url.Values, h identity.Handshake, r grant.Request,
) (grant.Result, error) {
	code, err := connector.Codes{}.Code(callback)
	if err != nil {
		return grant.Result{}, err
	}
	redeeming, cancel := context.WithTimeout(ctx, codeWithin)
	defer cancel()
	result, idToken, err := c.exchange(redeeming, url.Values{"grant_type": {"authorization_code"}, "code": {code},
		"redirect_uri": {r.RedirectURI}, "code_verifier": {h.Verifier}})
	if err != nil {
		return grant.Result{}, err
	}
	if err := c.checkScopes(r.Scopes, &result); err != nil {
		return grant.Result{}, err
	}
	if result.Tokens.Refresh == "" {
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: connector.NoRefreshToken,
			Err: errors.New("no refresh token came")}
	}
	if result.Account, err = c.account(idToken, false); err != nil {
		return grant.Result{}, err
	}
	if err := c.checkSignature(ctx, idToken); err != nil {
		return grant.Result{}, err
	}
	result.Tokens.Reconsent = c.now().Add(lifetimesOf(c.scopes).window)
	result.Account.Name = cmp.Or(c.nameOf(ctx, result), result.Account.Name)
	return result, nil
}

// checkScopes holds what was granted to what was asked for. PagerDuty leaves out a scope that
// is not valid without an error, down to openid alone. More than was asked for is refused too:
// apps have rules, but what is kept here would be worth more than the person agreed to.
func (c *Connector) checkScopes(asked []string, result *grant.Result) error {
	if result.Scopes == nil { // RFC 6749 §5.1: as asked
		result.Scopes = slices.Clone(asked)
	}
	if err := connector.Narrow(connector.Missing(asked, result.Scopes)); err != nil {
		return err
	}
	known := append([]string{"read"}, asked...) // which write includes
	if c.scopes == Scoped || !slices.Contains(asked, "write") {
		known = asked
	}
	if len(connector.Missing(result.Scopes, known)) > 0 {
		return &grant.Error{Class: grant.Ours, Reason: ScopesWider,
			Err: errors.New("more was granted than was asked for")}
	}
	return nil
}

// account reads whose grant it is: account_id and user_id, which are ids within PagerDuty and
// within the account. sub was an address once and is the user's id now, so nothing rests on it.
func (c *Connector) account(idToken string, refreshed bool) (grant.Account, error) {
	var account, user string
	t, err := connector.IDTokenCheck{Refreshed: refreshed, NoNonce: true, ClientID: c.about.ClientID,
		IssuedBy: func(text func(string) string) bool {
			account, user = text("account_id"), text("user_id")
			return text("iss") == issuer || text("iss") == oldIssuer
		},
		Audiences: []string{pagerdutyapi.OriginUS, pagerdutyapi.OriginEU},
		// An access token is a JWT of the same issuer and the same keys.
		Has: map[string]string{"azp": c.about.ClientID, "purpose": "id"},
	}.Read(idToken, c.now())
	if err != nil {
		return grant.Account{}, err
	}
	if !pagerdutyapi.IsID(account) || !pagerdutyapi.IsID(user) {
		return grant.Account{}, &grant.Error{Class: grant.Lost, Reason: connector.NoAccount,
			Err: errors.New("the ID token does not say whose it is, as account_id and user_id")}
	}
	a := grant.Account{ID: account + "/" + user, Region: pagerdutyapi.US, Name: user}
	if t.Audience == pagerdutyapi.OriginEU {
		a.Region = pagerdutyapi.EU
	}
	return a, nil
}

// checkSignature fetches the keys with each connection, as PagerDuty's page wants it ("fetch
// on each use"). Its address of the keys has them, or that of a document that has them, which
// has to be PagerDuty's too.
func (c *Connector) checkSignature(ctx context.Context, idToken string) error {
	keys := connector.KeySet{URL: c.identity + keysPath, Redirect: func(to string) bool {
		return connector.SameSite(c.identity, to, domain)
	}}
	return keys.Verify(ctx, c.oauth, idToken)
}

// nameOf is the address of the user, by which people know the account and which From takes. A
// grant without it is a grant all the same; then it is "".
func (c *Connector) nameOf(ctx context.Context, r grant.Result) string {
	ctx, cancel := context.WithTimeout(ctx, nameWithin)
	defer cancel()
	user, err := pagerdutyapi.Me(ctx, c.oauth, c.Origin(r.Account), c.about.Inject.Prefix+r.Tokens.Access)
	if _, id, _ := strings.Cut(r.Account.ID, "/"); err != nil || user.ID != id {
		return ""
	}
	return user.Email
}

// Refresh implements grant.OAuth. PagerDuty's sample answer has no ID token; one that comes
// along says whose the grant is then, and one that cannot be used says nothing.
func (c *Connector) Refresh(ctx context.Context, t grant.Tokens, _ []string) (grant.Result, error) {
	if t.Refresh == "" {
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: connector.NoRefreshToken,
			Err: errors.New("there is no refresh token")}
	}
	result, idToken, err := c.exchange(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {t.Refresh}})
	if err != nil || idToken == "" {
		return result, err
	}
	if who, err := c.account(idToken, true); err == nil {
		result.Account = grant.Account{ID: who.ID, Region: who.Region}
	}
	return result, nil
}

// Revoke implements grant.Revoker. PagerDuty documents no endpoint that ends a token for the
// client that has it.
func (c *Connector) Revoke(context.Context, grant.Tokens, int) (grant.Revocation, error) {
	return grant.NotSupported, nil
}

// FinishURL implements grant.Finish: where people sign in. The applications that they
// authorized are in their profile, under User Settings.
func (c *Connector) FinishURL(grant.Account) string { return "https://app" + domain }

// exchange makes one request to the token endpoint. Scopes of the result are nil where the
// answer does not tell.
func (c *Connector) exchange(ctx context.Context, form url.Values) (
	result grant.Result, idToken string, err error,
) {
	r := c.request
	r.Form = form
	answer, err := c.oauth.Exchange(ctx, r)
	if err != nil {
		return grant.Result{}, "", connector.Codes{}.Failed(err)
	}
	tokens, err := connector.Tokens(answer, c.now())
	if err != nil {
		return grant.Result{}, "", err
	}
	if tokens.Refresh != "" {
		tokens.RefreshExpires = c.now().Add(lifetimesOf(c.scopes).refresh)
	}
	return grant.Result{Tokens: tokens, Scopes: c.granted(answer.Scope)}, answer.IDToken, nil
}

// granted are the scopes of an answer, without openid; nil where it does not tell. Where
// openid is all that came it is not nil, so that nothing counts as granted.
func (c *Connector) granted(text string) []string {
	list := connector.Scopes(text)
	if list == nil {
		return nil
	}
	list = slices.DeleteFunc(list, func(s string) bool { return s == scopeOpenID })
	if c.scopes == Classic && slices.Contains(list, "write") && !slices.Contains(list, "read") {
		list = append(list, "read")
	}
	slices.Sort(list)
	return list
}
