// Package outlook is the connector of Outlook calendars, for `type: outlook_calendar`: when
// people are busy, or their events, both for reading only, through Microsoft Graph.
//
// It owns what is not standard about Microsoft: tenants, what an administrator has to agree
// to, that a refresh token is good for more than what was asked for, and which codes mean
// what (codes.go). What all connectors share is in package connector, how a request is sent
// in oauth, and what becomes of a grant in grant. It keeps nothing.
//
// What it relies on is in Microsoft's documentation:
// https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow,
// https://learn.microsoft.com/entra/identity-platform/v2-admin-consent,
// https://learn.microsoft.com/entra/identity-platform/refresh-tokens and
// https://learn.microsoft.com/graph/api/calendar-getschedule.
package outlook

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
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// Type is the type of such a connector in the configuration.
const Type = "outlook_calendar"

// The names of the accesses. Which of them apps may ask for is the configuration's.
const (
	FreeBusy = "freebusy" // when somebody is busy
	Basic    = "basic"    // their events, without text and attachments
	Events   = "events"   // their events, with all that is in them
)

// The values of Options.Tenant besides a tenant's GUID or domain, as at sign-ins: all
// accounts, those of all organizations, and all personal ones.
const (
	TenantCommon        = "common"
	TenantOrganizations = "organizations"
	TenantConsumers     = "consumers"
)

const (
	authority = "https://login.microsoftonline.com"
	graph     = "https://graph.microsoft.com"
	// personalAccounts is the tenant of all personal accounts.
	personalAccounts = "9188040d-6c67-4c5b-b112-36a304b66dad"
)

// What a connection asks for beside its accesses: whose account it is, what people call it,
// and a token to refresh with.
const (
	scopeOpenID  = "openid"
	scopeProfile = "profile"
	scopeEmail   = "email"
	scopeOffline = "offline_access"
)

// Options are what a Connector needs.
type Options struct {
	connector.Client
	Tenant string // whose accounts: common, organizations, consumers, a GUID or a domain
}

// Connector is a grant.OAuth, a grant.Revoker, a grant.Finish and a grant.Approver. It prints
// as "<outlook_calendar connector>".
type Connector struct {
	about     grant.About
	request   oauth.TokenRequest // what every request has in common
	tenant    string
	authority string
	origin    string
	oauth     *oauth.Client
	now       func() time.Time
}

var (
	_ grant.OAuth    = (*Connector)(nil)
	_ grant.Revoker  = (*Connector)(nil)
	_ grant.Finish   = (*Connector)(nil)
	_ grant.Approver = (*Connector)(nil)
)

// Format implements fmt.Formatter: no verb prints the secret.
func (Connector) Format(s fmt.State, _ rune) { io.WriteString(s, "<outlook_calendar connector>") }

// New returns a Connector. It does no I/O. What is wrong with the configuration is a
// *connector.Fault.
func New(o Options) (*Connector, error) {
	if err := o.Complete(); err != nil {
		return nil, fmt.Errorf("outlook: %w", err)
	}
	switch {
	case o.Tenant == "":
		return nil, connector.FaultAt("tenant",
			errors.New("is required: common, organizations, consumers, or the GUID or domain of one tenant"))
	case strings.Trim(o.Tenant, tenantLetters) != "":
		return nil, connector.FaultAt("tenant",
			errors.New("must be a word, GUID or domain, of small letters, digits, dots and hyphens"))
	}
	accesses, err := accesses()
	if err != nil {
		return nil, err
	}
	c := &Connector{tenant: o.Tenant, authority: cmp.Or(o.Base, authority), origin: cmp.Or(o.Base, graph),
		oauth: o.OAuth, now: o.Now}
	token := c.endpoint(c.tenant, "/oauth2/v2.0/token")
	c.request = o.Request(token, oauth.Post)
	c.about = o.About(Type, "Outlook Calendar", c.authority, token)
	c.about.Accesses, c.about.Onward = accesses, onward(o.Tenant)
	c.about.PageLinks = []string{"@odata.nextLink", "@odata.deltaLink"}
	// A refresh brings a new refresh token, and leaves the old one good.
	c.about.Resend = true
	return c, nil
}

// onward is where personal accounts sign in. Whether the authorization endpoint redirects
// there, or its page does, is not in Microsoft's documentation.
func onward(tenant string) []string {
	if tenant == TenantCommon || tenant == TenantConsumers {
		return []string{"https://login.live.com"}
	}
	return nil
}

const tenantLetters = "abcdefghijklmnopqrstuvwxyz0123456789-."

func (c *Connector) endpoint(tenant, path string) string { return c.authority + "/" + tenant + path }

// accesses are what there is, the narrowest first. Which scope is the least that a method
// takes is in the documentation of each: Calendars.ReadBasic for all of these, where it
// leaves out the text of an event, its attachments and its extensions
// (https://learn.microsoft.com/graph/permissions-reference#calendarsreadbasic). What has changed
// in a view since the last time (delta) is what a list of it has. A batch
// (POST /v1.0/$batch) could hold anything, so no rule lets one through.
func accesses() ([]grant.Access, error) {
	lists := []string{"GET /v1.0/me/calendars", "GET /v1.0/me/calendarView", "GET /v1.0/me/calendar/calendarView",
		"GET /v1.0/me/calendars/*/calendarView", "GET /v1.0/me/events", "GET /v1.0/me/calendar/events",
		"GET /v1.0/me/calendars/*/events", "GET /v1.0/me/calendarView/delta",
		"GET /v1.0/me/calendars/*/calendarView/delta"}
	list := []grant.Access{
		{Name: FreeBusy, Means: "see when you and people of your organization are busy, with what you may see there " +
			"of subject and place"},
		{Name: Basic, Means: "read the events of your calendars without their text: what, when, where and with whom"},
		{Name: Events, Means: "read the events of your calendars: what, when, where and with whom, with their text " +
			"and what is attached"},
	}
	scopes := []string{"Calendars.ReadBasic", "Calendars.ReadBasic", "Calendars.Read"}
	texts := [][]string{
		{"POST /v1.0/me/calendar/getSchedule"},
		lists,
		append(slices.Clone(lists), "GET /v1.0/me/events/*"),
	}
	for i := range list {
		list[i].Scopes = []string{scopeOpenID, scopeProfile, scopeEmail, scopeOffline, scopes[i]}
		var err error
		if list[i].Rules, err = connector.Rules(texts[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// About implements grant.Connector. The caller may keep and change what it gets.
func (c *Connector) About() grant.About {
	about := c.about
	about.Accesses = slices.Clone(about.Accesses)
	about.Onward = slices.Clone(about.Onward)
	about.PageLinks = slices.Clone(about.PageLinks)
	return about
}

// Origin implements grant.Connector: it is the same for all accounts. It has no version in
// it, so that the path and the query of an @odata.nextLink can be sent back as they are.
func (c *Connector) Origin(grant.Account) string { return c.origin }

// FinishURL implements grant.Finish: where people see which applications they agreed to.
func (c *Connector) FinishURL(a grant.Account) string {
	if tid, _, _ := strings.Cut(a.ID, "/"); tid == personalAccounts {
		return "https://account.live.com/consent/Manage"
	}
	return "https://myapps.microsoft.com"
}

// ApproveURL implements grant.Approver: where an administrator agrees for a whole tenant
// (https://learn.microsoft.com/entra/identity-platform/v2-admin-consent). It names the
// tenant of the account where that is known, and never common, which is not for this.
// Personal accounts have no administrator.
func (c *Connector) ApproveURL(a grant.Account, r grant.Request) string {
	tenant := c.tenant
	if tid, _, _ := strings.Cut(a.ID, "/"); identity.IsGUID(tid) && c.admits(tid) {
		tenant = tid
	}
	switch tenant {
	case TenantConsumers, personalAccounts:
		return ""
	case TenantCommon:
		tenant = TenantOrganizations
	}
	q := url.Values{"client_id": {c.about.ClientID}, "redirect_uri": {r.RedirectURI},
		"scope": {strings.Join(c.longer(r.Scopes), " ")}}
	return c.endpoint(tenant, "/v2.0/adminconsent?") + q.Encode()
}

// longer spells scopes of Graph with its address in front, as that page wants them.
func (c *Connector) longer(scopes []string) (list []string) {
	for _, scope := range scopes {
		if !isUnsaid(scope) && !strings.Contains(scope, "://") {
			scope = graph + "/" + scope
		}
		list = append(list, scope)
	}
	return list
}

// Issuer implements grant.OAuth: Microsoft's metadata does not say that callbacks have an
// iss. What keeps codes of other authorization servers away is that the redirect URI is this
// connector's own (RFC 9700 §4.4.2.2).
func (c *Connector) Issuer() string { return "" }

// AuthURL implements grant.OAuth. People choose the account each time. They are not made to
// agree again to what they or their administrator agreed to: most may not do that for
// calendars themselves.
func (c *Connector) AuthURL(h identity.Handshake, r grant.Request) (string, error) {
	if h.Nonce == "" {
		return "", errors.New("the nonce is missing")
	}
	return connector.Authorize(c.endpoint(c.tenant, "/oauth2/v2.0/authorize"), c.about.ClientID, h, r,
		url.Values{"nonce": {h.Nonce}, "prompt": {"select_account"}})
}

// Redeem implements grant.OAuth. Whose account it is comes from the ID token: tid and oid
// together never change, and everything else can be edited.
func (c *Connector) Redeem(
	ctx context.Context, callback url.Values, h identity.Handshake, r grant.Request,
) (grant.Result, error) {
	if callback.Has("error") {
		return grant.Result{}, refused(callback)
	}
	code, err := codes().Code(callback)
	if err != nil {
		return grant.Result{}, err
	}
	result, idToken, err := c.exchange(ctx, url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {r.RedirectURI},
		"code_verifier": {h.Verifier}, "scope": {strings.Join(r.Scopes, " ")},
	}, r.Scopes)
	if err != nil {
		return grant.Result{}, err
	}
	if result.Scopes == nil { // RFC 6749 §5.1: as asked
		result.Scopes = slices.Clone(r.Scopes)
	}
	if err := connector.Narrow(connector.Missing(r.Scopes, result.Scopes)); err != nil {
		return grant.Result{}, err
	}
	if result.Account, err = c.account(idToken, connector.IDTokenCheck{Nonce: h.Nonce}); err != nil {
		return grant.Result{}, err
	}
	if r.Offline && result.Tokens.Refresh == "" {
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: connector.NoRefreshToken,
			Err: errors.New("no refresh token came, although offline_access was asked for")}
	}
	return result, nil
}

// account reads whose grant it is. The issuer of an ID token is the tenant that tid names,
// and that has to be one of those that were asked. check says what came before.
func (c *Connector) account(idToken string, check connector.IDTokenCheck) (grant.Account, error) {
	var tid, oid string
	check.ClientID, check.Names = c.about.ClientID, []string{"preferred_username", scopeEmail}
	check.IssuedBy = func(text func(string) string) bool {
		tid, oid = text("tid"), text("oid")
		return identity.IsGUID(tid) && text("iss") == authority+"/"+tid+"/v2.0" && text("ver") == "2.0" && c.admits(tid)
	}
	t, err := check.Read(idToken, c.now())
	if err != nil {
		return grant.Account{}, err
	}
	if !identity.IsGUID(oid) {
		return grant.Account{}, &grant.Error{Class: grant.Lost, Reason: connector.NoAccount,
			Err: errors.New("the ID token has no oid")}
	}
	return grant.Account{ID: tid + "/" + oid, Name: t.Name}, nil
}

// admits reports whether accounts of a tenant may be connected. Which tenant a domain is of
// is not known here; there the token endpoint, which is that tenant's, vouches for it.
func (c *Connector) admits(tid string) bool {
	switch c.tenant {
	case TenantOrganizations:
		return tid != personalAccounts
	case TenantConsumers:
		return tid == personalAccounts
	}
	return !identity.IsGUID(c.tenant) || tid == c.tenant
}

// Refresh implements grant.OAuth. The scopes are sent each time, and none that no access
// needs: a refresh token of Microsoft's is good for all that the person ever agreed to for
// this client, and not only for what was asked for when it was made
// (https://learn.microsoft.com/entra/identity-platform/refresh-tokens). An ID token that
// comes along says whose the grant is then; one that cannot be used says nothing.
func (c *Connector) Refresh(ctx context.Context, t grant.Tokens, granted []string) (grant.Result, error) {
	if t.Refresh == "" {
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: connector.NoRefreshToken,
			Err: errors.New("there is no refresh token")}
	}
	asked := c.needed(granted)
	result, idToken, err := c.exchange(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {t.Refresh},
		"scope": {strings.Join(asked, " ")}}, asked)
	if err != nil || idToken == "" {
		return result, err
	}
	if who, err := c.account(idToken, connector.IDTokenCheck{Refreshed: true}); err == nil {
		result.Account.ID = who.ID
	}
	return result, nil
}

// needed are those of granted that an access needs. Where there is none, it is what the
// narrowest access needs: a request without a scope would be for all of them.
func (c *Connector) needed(granted []string) (needed []string) {
	for _, a := range c.about.Accesses {
		for _, scope := range a.Scopes {
			if slices.Contains(granted, scope) && !slices.Contains(needed, scope) {
				needed = append(needed, scope)
			}
		}
	}
	if needed == nil {
		return c.about.Accesses[0].Scopes
	}
	return needed
}

// Revoke implements grant.Revoker. Microsoft has no endpoint that ends a token or a consent
// for the client that has it; the person, or an administrator, does that there.
func (c *Connector) Revoke(context.Context, grant.Tokens, int) (grant.Revocation, error) {
	return grant.NotSupported, nil
}

// exchange makes one request to the token endpoint. Scopes of the result are nil where the
// answer does not tell.
func (c *Connector) exchange(ctx context.Context, form url.Values, asked []string) (
	result grant.Result, idToken string, err error,
) {
	r := c.request
	r.Form = form
	answer, err := c.oauth.Exchange(ctx, r)
	if err != nil {
		return grant.Result{}, "", codes().Failed(err)
	}
	tokens, err := connector.Tokens(answer, c.now())
	if err != nil {
		return grant.Result{}, "", err
	}
	return grant.Result{Tokens: tokens, Scopes: c.scopes(answer.Scope, asked)}, answer.IDToken, nil
}

// scopes splits what Microsoft says was granted. It may spell a scope of Graph with Graph's
// address in front, and in other letters than it was asked for. It need not list the scopes
// of OpenID Connect: they open no API, and what they ask for is there or not (an ID token, a
// refresh token), so those that were asked for count as granted.
func (c *Connector) scopes(text string, asked []string) []string {
	list := connector.Scopes(text)
	if list == nil {
		return nil
	}
	for i, scope := range list {
		if rest, ok := strings.CutPrefix(identity.LowerASCII(scope), graph+"/"); ok {
			scope = scope[len(scope)-len(rest):]
		}
		list[i] = c.spelled(scope)
	}
	for _, scope := range asked {
		if isUnsaid(scope) {
			list = append(list, scope)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// spelled is a scope as the accesses spell it.
func (c *Connector) spelled(scope string) string {
	for _, a := range c.about.Accesses {
		for _, known := range a.Scopes {
			if strings.EqualFold(known, scope) {
				return known
			}
		}
	}
	return scope
}

func isUnsaid(scope string) bool {
	return scope == scopeOpenID || scope == scopeProfile || scope == scopeEmail || scope == scopeOffline
}
