// Package oauth2 is the connector of third parties that keep to the standard, for `type:
// oauth2`: what is needed to speak with one stands in the configuration.
//
// It owns what a configuration may say about an authorization server, and the order of a
// connection, a refresh and a revocation. What errors mean and how addresses are checked is
// in package connector, how a request is sent in oauth, and what becomes of a grant in
// grant. It keeps nothing. A third party that needs more than this has a folder of its own
// beside this one.
package oauth2

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
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
const Type = "oauth2"

// Options are what a Connector needs, most of it from the configuration.
type Options struct {
	ID                     string
	Name                   string           // for people; "": ID
	ClientID, ClientSecret string           // the secret is "" with Auth oauth.None
	Auth                   oauth.ClientAuth // Basic, BasicRaw, Post or None
	Authorization, Token   string           // endpoints
	Revocation             string           // "": there is none
	// Issuer is what a callback's iss must be; "": it is not compared. With it, the ID token
	// of a connection that asks for the scope openid says whose account it is.
	Issuer  string
	BaseURL string          // the API's origin, perhaps with a path prefix
	Owner   grant.OwnerKind // "": each person's own
	// Accesses are what is offered, the narrowest first. One without Means gets words that
	// follow from its rules.
	Accesses []grant.Access
	// AuthorizationParams are sent along with browsers, such as {"audience": "api"}.
	AuthorizationParams map[string]string
	Forward             []string // further request headers that apps may send
	// Reconnect: a refresh whose answer was lost is not sent once more (`lost_refresh:
	// reconnect`), because the authorization server would end the grant.
	Reconnect bool
	// EndedCodes are error codes of a refresh by which the authorization server says that the
	// grant has ended, beside invalid_grant.
	EndedCodes []string

	OAuth *oauth.Client
	Now   func() time.Time // nil: time.Now
}

// Format implements fmt.Formatter: no verb prints the secret.
func (Options) Format(s fmt.State, _ rune) { io.WriteString(s, "<options of an oauth2 connector>") }

// LogValue implements slog.LogValuer.
func (Options) LogValue() slog.Value { return slog.StringValue("<options of an oauth2 connector>") }

// Connector is a grant.OAuth and a grant.Revoker. It prints as "<oauth2 connector>".
type Connector struct {
	about   grant.About
	request oauth.TokenRequest // what every request has in common
	o       Options
	origin  string
	params  url.Values
	ended   connector.Codes // EndedCodes
}

var (
	_ grant.OAuth   = (*Connector)(nil)
	_ grant.Revoker = (*Connector)(nil)
)

// Format implements fmt.Formatter: no verb prints the secret.
func (Connector) Format(s fmt.State, _ rune) { io.WriteString(s, "<oauth2 connector>") }

// New returns a Connector. It does no I/O. What is wrong with the configuration is a
// *connector.Fault.
func New(o Options) (*Connector, error) {
	if o.ID == "" || o.OAuth == nil {
		return nil, errors.New("oauth2: an id and a client for requests are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Name = cmp.Or(o.Name, o.ID)
	o.Accesses = slices.Clone(o.Accesses)
	if err := o.check(); err != nil {
		return nil, err
	}
	origin, err := connector.Origin(o.BaseURL)
	if err != nil {
		return nil, connector.FaultAt("base_url", err)
	}
	for i, a := range o.Accesses {
		o.Accesses[i].Means = cmp.Or(a.Means, connector.Means(o.Name, a.Name, a.Rules))
	}
	params := url.Values{}
	for name, value := range o.AuthorizationParams {
		params.Set(name, value)
	}
	authorization, err := url.Parse(o.Authorization)
	if err != nil {
		return nil, connector.FaultAt("endpoints.authorization", errors.New("must be a URL"))
	}
	ended := connector.Codes{}
	for _, code := range o.EndedCodes {
		ended[code] = connector.Meaning{Class: grant.Yours, Reason: connector.GrantRefused}
	}
	return &Connector{
		about: grant.About{
			ID: o.ID, Type: Type, Name: o.Name, ClientID: o.ClientID, Owner: cmp.Or(o.Owner, grant.OwnedByUser),
			Accesses: o.Accesses, Offline: true, Authorize: authorization.Scheme + "://" + authorization.Host,
			Refresh: connector.SchemeAndHost(o.Token), Revoke: connector.SchemeAndHost(o.Revocation),
			Inject: grant.Injection{Header: "Authorization", Prefix: "Bearer "}, // RFC 6750 §2.1
			// Forward is cloned: the caller keeps its own.
			Forward: slices.Clone(o.Forward), Resend: !o.Reconnect,
		},
		request: oauth.TokenRequest{ClientID: o.ClientID, ClientSecret: o.ClientSecret, Auth: o.Auth, Once: true},
		o:       o, origin: origin, params: params, ended: ended,
	}, nil
}

func (o *Options) check() error {
	for _, e := range []struct {
		key, address string
		optional     bool
	}{
		{"endpoints.authorization", o.Authorization, false},
		{"endpoints.token", o.Token, false},
		{"endpoints.revocation", o.Revocation, true},
	} {
		if e.optional && e.address == "" {
			continue
		}
		if err := connector.Endpoint(e.address); err != nil {
			return connector.FaultAt(e.key, err)
		}
	}
	if err := o.checkClient(); err != nil {
		return err
	}
	for name := range o.AuthorizationParams {
		if slices.Contains(reserved[:], name) {
			return connector.FaultAt("authorization_params."+name, errors.New("is set by Sallyport; leave it out"))
		}
	}
	if err := connector.Forwardable(o.Forward); err != nil {
		return connector.FaultAt("forward_headers", err)
	}
	for _, code := range o.EndedCodes {
		switch {
		case code == "" || len(code) > maxCode || strings.Trim(code, codeLetters) != "":
			return connector.FaultAt("ended_codes", errors.New("must be error codes of the authorization server, of "+
				"letters, digits, _, - and dots"))
		case slices.Contains(neverEnd[:], code):
			return connector.FaultAt("ended_codes", fmt.Errorf("must not have %s: it says nothing of one person's "+
				"grant, and would end those of all", code))
		}
	}
	return connector.Accesses(o.Accesses)
}

const (
	maxCode     = 64
	codeLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
)

// neverEnd are codes that are about our client, or about nobody.
var neverEnd = [...]string{"invalid_client", "server_error", "temporarily_unavailable", "slow_down"}

func (o *Options) checkClient() error {
	switch {
	case o.ClientID == "":
		return connector.FaultAt("client_id", errors.New("is required"))
	case o.Auth == oauth.None && o.ClientSecret != "":
		return connector.FaultAt("client_secret", errors.New("is never sent with client_auth: none; leave it out"))
	case o.Auth == oauth.None:
		return nil
	case o.Auth != oauth.Basic && o.Auth != oauth.BasicRaw && o.Auth != oauth.Post:
		return connector.FaultAt("client_auth", errors.New("must be basic, basic_raw, post or none"))
	case o.ClientSecret == "":
		return connector.FaultAt("client_secret", errors.New("is required, unless client_auth is none"))
	case o.Auth == oauth.BasicRaw && strings.Contains(o.ClientID, ":"):
		return connector.FaultAt("client_id", errors.New("must not have a colon with client_auth: basic_raw"))
	}
	return nil
}

// reserved are parameters of an authorization request that follow from the connection
// itself, or by which all of them could be said once more (RFC 9101 §5).
var reserved = [...]string{
	"response_type", "response_mode", "client_id", "client_secret", "redirect_uri", "scope", "state", "nonce",
	"code_challenge", "code_challenge_method", "request", "request_uri",
}

// About implements grant.Connector. The caller may keep and change what it gets.
func (c *Connector) About() grant.About {
	about := c.about
	about.Accesses = slices.Clone(about.Accesses)
	about.Forward = slices.Clone(about.Forward)
	return about
}

// Origin implements grant.Connector: it is the same for all accounts.
func (c *Connector) Origin(grant.Account) string { return c.origin }

// Issuer implements grant.OAuth.
func (c *Connector) Issuer() string { return c.o.Issuer }

// AuthURL implements grant.OAuth.
func (c *Connector) AuthURL(h identity.Handshake, r grant.Request) (string, error) {
	params := c.params
	if c.identifies(r) {
		if h.Nonce == "" {
			return "", errors.New("the nonce is missing")
		}
		params = maps.Clone(params)
		params.Set("nonce", h.Nonce)
	}
	return connector.Authorize(c.o.Authorization, c.about.ClientID, h, r, params)
}

// identifies reports whether an answer to r has an ID token that can be checked.
func (c *Connector) identifies(r grant.Request) bool {
	return c.o.Issuer != "" && slices.Contains(r.Scopes, "openid")
}

// Redeem implements grant.OAuth. Where somebody who is away is to be served, there has to
// be a refresh token, or an access token that does not expire; which parameter or scope
// brings one is the configuration's.
func (c *Connector) Redeem(
	ctx context.Context, callback url.Values, h identity.Handshake, r grant.Request,
) (grant.Result, error) {
	code, err := connector.Codes(nil).Code(callback)
	if err != nil {
		return grant.Result{}, err
	}
	result, idToken, err := c.exchange(ctx, nil, url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {r.RedirectURI},
		"code_verifier": {h.Verifier},
	})
	if err != nil {
		return grant.Result{}, err
	}
	if result.Scopes == nil { // RFC 6749 §5.1: as asked
		result.Scopes = connector.Scopes(strings.Join(r.Scopes, " "))
	}
	if err := connector.Narrow(connector.Missing(r.Scopes, result.Scopes)); err != nil {
		return grant.Result{}, err
	}
	if c.identifies(r) {
		check := connector.IDTokenCheck{Issuers: []string{c.o.Issuer}, ClientID: c.about.ClientID, Nonce: h.Nonce}
		who, err := check.Read(idToken, c.o.Now())
		if err != nil {
			return grant.Result{}, err
		}
		result.Account = grant.Account{ID: who.Subject, Name: who.Name}
	}
	if r.Offline && result.Tokens.Refresh == "" && !result.Tokens.AccessExpires.IsZero() {
		return grant.Result{}, &grant.Error{Class: grant.Ours, Reason: connector.NoRefreshToken,
			Err: errors.New("the access token expires and no refresh token came with it; " +
				"a scope such as offline_access, or authorization_params, may bring one")}
	}
	return result, nil
}

// Refresh implements grant.OAuth. No scope is sent, so that the grant stays as wide as it
// is (RFC 6749 §6). An ID token may come along, and says whose the grant is then.
func (c *Connector) Refresh(ctx context.Context, t grant.Tokens, _ []string) (grant.Result, error) {
	if t.Refresh == "" {
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: connector.NoRefreshToken,
			Err: errors.New("there is no refresh token")}
	}
	result, idToken, err := c.exchange(ctx, c.ended,
		url.Values{"grant_type": {"refresh_token"}, "refresh_token": {t.Refresh}})
	if err != nil {
		return grant.Result{}, err
	}
	if c.o.Issuer != "" && idToken != "" {
		check := connector.IDTokenCheck{Issuers: []string{c.o.Issuer}, ClientID: c.about.ClientID, Refreshed: true}
		if who, err := check.Read(idToken, c.o.Now()); err == nil { // else it tells nothing
			result.Account.ID = who.Subject
		}
	}
	return result, nil
}

// Revoke implements grant.Revoker, by RFC 7009. The refresh token goes first: with it, the
// access tokens of its grant end too (§2.1).
func (c *Connector) Revoke(ctx context.Context, t grant.Tokens, _ int) (grant.Revocation, error) {
	if c.o.Revocation == "" {
		return grant.NotSupported, nil
	}
	r := c.request
	r.URL, r.Form = c.o.Revocation, url.Values{"token": {t.Refresh}, "token_type_hint": {"refresh_token"}}
	if t.Refresh == "" {
		r.Form = url.Values{"token": {t.Access}, "token_type_hint": {"access_token"}}
	}
	return connector.Codes(nil).Ended(c.o.OAuth.Revoke(ctx, r))
}

// refreshLife are the names by which authorization servers say how long a refresh token
// lasts. There is no standard for it.
var refreshLife = [...]string{"refresh_token_expires_in", "refresh_expires_in"}

// exchange makes one request to the token endpoint; codes are what its errors mean, beside the
// standard. Scopes of the result are nil where the answer does not tell.
func (c *Connector) exchange(ctx context.Context, codes connector.Codes, form url.Values) (
	result grant.Result, idToken string, err error,
) {
	r := c.request
	r.URL, r.Form, r.Further = c.o.Token, form, refreshLife[:]
	answer, err := c.o.OAuth.Exchange(ctx, r)
	if err != nil {
		return grant.Result{}, "", codes.Failed(err)
	}
	now := c.o.Now()
	tokens, err := connector.Tokens(answer, now)
	if err != nil {
		return grant.Result{}, "", err
	}
	for _, name := range refreshLife {
		if left := seconds(answer.Further[name]); left > 0 && tokens.RefreshExpires.IsZero() {
			tokens.RefreshExpires = now.Add(left)
		}
	}
	return grant.Result{Tokens: tokens, Scopes: c.granted(answer.Scope)}, answer.IDToken, nil
}

// offlineAccess is a wish for a refresh token more than a scope (OIDC Core §11): some
// authorization servers never name it among what they granted, and whether they gave it the
// refresh token tells.
const offlineAccess = "offline_access"

// granted are the scopes that an answer names, and offlineAccess where it is asked for. Some
// authorization servers, GitHub's among them, take scopes with blanks between them and name
// them with commas. A comma may be a part of a scope (RFC 6749 §3.3), so it is one where the
// configuration has such a scope.
func (c *Connector) granted(text string) []string {
	asksFor := func(is func(scope string) bool) bool {
		return slices.ContainsFunc(c.about.Accesses, func(a grant.Access) bool {
			return slices.ContainsFunc(a.Scopes, is)
		})
	}
	if !asksFor(func(scope string) bool { return strings.Contains(scope, ",") }) {
		text = strings.ReplaceAll(text, ",", " ")
	}
	scopes := connector.Scopes(text)
	asked := asksFor(func(scope string) bool { return scope == offlineAccess })
	if scopes == nil || !asked || slices.Contains(scopes, offlineAccess) {
		return scopes
	}
	return slices.Sorted(slices.Values(append(scopes, offlineAccess)))
}

// seconds reads a whole number, also one in a string; anything else, and 0, which Keycloak
// says of a token that does not expire, is not told.
func seconds(raw json.RawMessage) time.Duration {
	n, err := strconv.ParseUint(strings.Trim(string(raw), `"`), 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}
