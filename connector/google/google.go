// Package google is the connector of Google Calendar, for `type: google_calendar`: when
// people are busy, or their events, both for reading only.
//
// It owns what is not standard about Google: what is asked for and how, which codes mean
// what, and that ending one grant there ends all of a person's with the same Google Cloud
// project. What all connectors share is in package connector, how a request is sent in
// oauth, and what becomes of a grant in grant. It keeps nothing.
//
// What it relies on is in Google's documentation:
// https://developers.google.com/identity/protocols/oauth2/web-server and
// https://developers.google.com/workspace/calendar/api/auth.
package google

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// Type is the type of such a connector in the configuration.
const Type = "google_calendar"

// The names of the accesses. Which of them apps may ask for is the configuration's.
const (
	FreeBusy = "freebusy" // when somebody is busy
	Events   = "events"   // their events
)

// The reasons of a grant.Error that only Google has.
const (
	AdminPolicy    = "admin_policy"    // a Workspace administrator does not allow this client
	SessionControl = "session_control" // the organization wants its people to sign in at Google again
	OtherIssuer    = "other_issuer"    // a callback that names another authorization server
)

// What a connection asks for beside its accesses: whose account it is, and what people call
// it.
const (
	scopePrefix = "https://www.googleapis.com/auth/"
	scopeOpenID = "openid"
	scopeEmail  = "email"
)

// issuer is Google's; the second one, in ID tokens only, is what it was once called:
// https://developers.google.com/identity/openid-connect/reference.
const (
	issuer       = "https://accounts.google.com"
	legacyIssuer = "accounts.google.com"
)

// Connector is a grant.OAuth, a grant.Revoker, a grant.Sharer and a grant.Finish. It prints
// as "<google_calendar connector>".
type Connector struct {
	about      grant.About
	request    oauth.TokenRequest // what every request has in common
	authorize  string
	token      string
	revocation string
	origin     string
	oauth      *oauth.Client
	now        func() time.Time
}

var (
	_ grant.OAuth   = (*Connector)(nil)
	_ grant.Revoker = (*Connector)(nil)
	_ grant.Sharer  = (*Connector)(nil)
	_ grant.Finish  = (*Connector)(nil)
)

// Format implements fmt.Formatter: no verb prints the secret.
func (Connector) Format(s fmt.State, _ rune) { io.WriteString(s, "<google_calendar connector>") }

// New returns a Connector. It does no I/O. What is wrong with the configuration is a
// *connector.Fault.
func New(o connector.Client) (*Connector, error) {
	if err := o.Complete(); err != nil {
		return nil, fmt.Errorf("google: %w", err)
	}
	accesses, err := accesses()
	if err != nil {
		return nil, err
	}
	c := &Connector{
		authorize: "https://accounts.google.com/o/oauth2/v2/auth", token: "https://oauth2.googleapis.com/token",
		revocation: "https://oauth2.googleapis.com/revoke", origin: "https://www.googleapis.com",
		oauth: o.OAuth, now: o.Now,
	}
	if o.Base != "" {
		c.authorize, c.token, c.revocation = o.Base+"/o/oauth2/v2/auth", o.Base+"/token", o.Base+"/revoke"
		c.origin = o.Base
	}
	c.request = o.Request(c.token, oauth.Post)
	c.request.Further = []string{refreshLife}
	c.about = o.About(Type, "Google Calendar", c.authorize, c.token)
	c.about.Accesses, c.about.Revoke = accesses, connector.SchemeAndHost(c.revocation)
	// access_token and token are every connector's; key is an API key.
	c.about.TokenQuery = []string{"key", "oauth_token", "bearer_token"}
	// A refresh brings no new refresh token, and leaves the old one good.
	c.about.Resend = true
	return c, nil
}

// accesses are what there is, the narrowest first. calendar.freebusy is good for freeBusy
// alone; the similar calendar.events.freebusy would also open lists of events
// (https://developers.google.com/workspace/calendar/api/v3/reference/freebusy/query). Of
// events, the last rule is for one event and for its instances.
func accesses() ([]grant.Access, error) {
	list := []grant.Access{
		{Name: FreeBusy, Means: "see when you are busy, but not with what"},
		{Name: Events, Means: "read the events of your calendars: what, when, where and with whom"},
	}
	scopes := []string{"calendar.freebusy", "calendar.events.readonly"}
	texts := [][]string{
		{"POST /calendar/v3/freeBusy"},
		{"GET /calendar/v3/calendars/*/events", "GET /calendar/v3/calendars/*/events/*"},
	}
	for i := range list {
		list[i].Scopes = []string{scopeOpenID, scopeEmail, scopePrefix + scopes[i]}
		var err error
		if list[i].Rules, err = connector.Rules(texts[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// codes are Google's own, of the token endpoint and of callbacks; invalid_grant,
// invalid_client and unauthorized_client mean what the standard says. The sub-codes of
// invalid_grant are those that Google's libraries know:
// https://github.com/googleapis/google-auth-library-python, google/oauth2/reauth.py.
func codes() connector.Codes {
	return connector.Codes{
		"admin_policy_enforced": {Class: grant.AdminTheir, Reason: AdminPolicy},
		"access_not_configured": {Class: grant.AdminTheir, Reason: AdminPolicy}, // Workspace for Education
		"invalid_rapt":          {Class: grant.Yours, Reason: SessionControl},
		"rapt_required":         {Class: grant.Yours, Reason: SessionControl},
		"deleted_client":        {Class: grant.Ours, Reason: connector.ClientRefused},
		"disabled_client":       {Class: grant.Ours, Reason: connector.ClientRefused},
		"org_internal":          {Class: grant.Ours, Reason: connector.ClientRefused}, // for its own organization only
		"redirect_uri_mismatch": {Class: grant.Ours, Reason: connector.RequestRefused},
		"internal_failure":      {Class: grant.Later, Reason: connector.Busy},
	}
}

// About implements grant.Connector. The caller may keep and change what it gets.
func (c *Connector) About() grant.About {
	about := c.about
	about.Accesses = slices.Clone(about.Accesses)
	about.TokenQuery = slices.Clone(about.TokenQuery)
	return about
}

// Origin implements grant.Connector: it is the same for all accounts.
func (c *Connector) Origin(grant.Account) string { return c.origin }

// FinishURL implements grant.Finish.
func (c *Connector) FinishURL(grant.Account) string {
	return "https://myaccount.google.com/connections"
}

// Issuer implements grant.OAuth. Redeem compares iss itself: Google sends it with codes, and
// does not say whether it does with errors, which are to be reported as what they are. What
// keeps codes of other authorization servers away where it is missing is that the redirect
// URI is this connector's own (RFC 9700 §4.4.2.2).
func (c *Connector) Issuer() string { return "" }

// AuthURL implements grant.OAuth. Google gives out a refresh token only with access_type, and
// but for the first time only where the person is asked again; so prompt has consent in it
// where one is needed. include_granted_scopes is never sent: the grant would become as wide
// as all that the person ever granted to the project.
func (c *Connector) AuthURL(h identity.Handshake, r grant.Request) (string, error) {
	if h.Nonce == "" {
		return "", errors.New("the nonce is missing")
	}
	further := url.Values{"nonce": {h.Nonce}, "access_type": {"online"}, "prompt": {"select_account"}}
	if r.Offline {
		further.Set("access_type", "offline")
		further.Set("prompt", "select_account consent")
	}
	if r.LoginHint != "" {
		further.Set("login_hint", r.LoginHint)
	}
	return connector.Authorize(c.authorize, c.about.ClientID, h, r, further)
}

// Redeem implements grant.OAuth. Whose account it is comes from the ID token. People may
// untick each scope, so that what was granted is compared; where it is too little, the tokens
// are dropped and not ended, which would end the person's other grants too.
func (c *Connector) Redeem(
	ctx context.Context, callback url.Values, h identity.Handshake, r grant.Request,
) (grant.Result, error) {
	if iss, ok := callback["iss"]; ok && !slices.Equal(iss, []string{issuer}) {
		return grant.Result{}, &grant.Error{Class: grant.Ours, Reason: OtherIssuer, Err: grant.ErrIssuer}
	}
	code, err := codes().Code(callback)
	if err != nil {
		return grant.Result{}, err
	}
	result, idToken, err := c.exchange(ctx, url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {r.RedirectURI},
		"code_verifier": {h.Verifier},
	})
	if err != nil {
		return grant.Result{}, err
	}
	if result.Scopes == nil { // RFC 6749 §5.1: as asked
		result.Scopes = scopes(strings.Join(r.Scopes, " "))
	}
	if err := connector.Narrow(connector.Missing(r.Scopes, result.Scopes)); err != nil {
		return grant.Result{}, err
	}
	check := connector.IDTokenCheck{Issuers: []string{issuer, legacyIssuer}, ClientID: c.about.ClientID, Nonce: h.Nonce}
	who, err := check.Read(idToken, c.now())
	if err != nil {
		return grant.Result{}, err
	}
	if r.Offline && result.Tokens.Refresh == "" {
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: connector.NoRefreshToken,
			Err: errors.New("no refresh token came, although the person was asked for consent")}
	}
	result.Account = grant.Account{ID: who.Subject, Name: who.Name}
	return result, nil
}

// Refresh implements grant.OAuth. No scope is sent, so that the grant stays as wide as it is
// (RFC 6749 §6). An ID token that comes along is not read: it has no nonce, and the refresh
// token says whose the grant is.
func (c *Connector) Refresh(ctx context.Context, t grant.Tokens, _ []string) (grant.Result, error) {
	if t.Refresh == "" {
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: connector.NoRefreshToken,
			Err: errors.New("there is no refresh token")}
	}
	result, _, err := c.exchange(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {t.Refresh}})
	return result, err
}

// Revoke implements grant.Revoker. One revocation ends all that the person ever granted to
// any client of the project, so that it is asked only where nothing else is kept of it:
// https://developers.google.com/identity/protocols/oauth2/web-server#tokenrevoke.
func (c *Connector) Revoke(ctx context.Context, t grant.Tokens, siblings int) (grant.Revocation, error) {
	if siblings > 0 {
		return grant.SharedThere, nil
	}
	// The endpoint takes the token alone; the secret has no business there.
	r := oauth.TokenRequest{URL: c.revocation, ClientID: c.about.ClientID, Auth: oauth.None, Once: true,
		Form: url.Values{"token": {cmp.Or(t.Refresh, t.Access)}}}
	return codes().Ended(c.oauth.Revoke(ctx, r))
}

// Shares implements grant.Sharer: clients of one project. Google writes the project's number
// in front of the client id, 123456789012-abc.apps.googleusercontent.com. That is what ids look
// like, and no promise; one that looks otherwise shares nothing.
func (c *Connector) Shares(clientID, other string) bool { return SameProject(clientID, other) }

// SameProject reports whether two clients are known to be of one project.
func SameProject(clientID, other string) bool {
	project := projectOf(clientID)
	return project != "" && project == projectOf(other)
}

func projectOf(clientID string) string {
	project, rest, _ := strings.Cut(clientID, "-")
	if !strings.HasSuffix(rest, ".apps.googleusercontent.com") || strings.Trim(project, "0123456789") != "" {
		return ""
	}
	return project
}

// refreshLife says how long a refresh token lasts, where the person granted access for a time
// only, or the project is one for testing.
const refreshLife = "refresh_token_expires_in"

// exchange makes one request to the token endpoint. Scopes of the result are nil where the
// answer does not tell.
func (c *Connector) exchange(ctx context.Context, form url.Values) (result grant.Result, idToken string, err error) {
	r := c.request
	r.Form = form
	answer, err := c.oauth.Exchange(ctx, r)
	if err != nil {
		return grant.Result{}, "", codes().Failed(err)
	}
	now := c.now()
	tokens, err := connector.Tokens(answer, now)
	if err != nil {
		return grant.Result{}, "", err
	}
	if left := seconds(answer.Further[refreshLife]); left > 0 { // then the person is asked again
		tokens.RefreshExpires = now.Add(left)
		tokens.Reconsent = tokens.RefreshExpires
	}
	return grant.Result{Tokens: tokens, Scopes: scopes(answer.Scope)}, answer.IDToken, nil
}

// scopes splits what Google says was granted. It spells email and profile in a longer way
// there than they are asked for.
func scopes(text string) []string {
	list := connector.Scopes(text)
	for i, scope := range list {
		switch name := strings.TrimPrefix(scope, scopePrefix); name {
		case "userinfo.email", "userinfo.profile":
			list[i] = strings.TrimPrefix(name, "userinfo.")
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// seconds reads a whole number; anything else is not told.
func seconds(raw json.RawMessage) time.Duration {
	n, err := strconv.ParseUint(string(raw), 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}
