// Package slack is the connector of Slack workspaces, for `type: slack`: an app of the
// operator's is installed for a workspace, and apps behind Sallyport act there as its bot.
//
// It owns what is not standard about Slack: scopes with commas between them, no with status
// 200, bot tokens, installations for an organization of workspaces, and which codes mean
// what (codes.go). What all connectors share is in package connector, how a request is sent
// in oauth, and what becomes of a grant in grant. It keeps nothing.
//
// A grant is an organization's and not a person's: whoever installs the app, it is one
// installation, with one chain of tokens. The ID of its account, which is its chain too, is
// AccountID: the team (T…) of a workspace, or the enterprise (E…) where the app is installed
// for all of an organization.
//
// What it relies on is in Slack's documentation:
// https://docs.slack.dev/authentication/installing-with-oauth,
// https://docs.slack.dev/authentication/using-token-rotation,
// https://docs.slack.dev/reference/methods/oauth.v2.access and
// https://api.slack.com/enterprise/apps/reference.
package slack

import (
	"cmp"
	"context"
	"encoding/json"
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
const Type = "slack"

// The names of the accesses. Which of them apps may ask for is the configuration's.
const (
	Read      = "read"      // which conversations there are, and who is in them
	Mentions  = "mentions"  // that somebody mentions the app, which Slack tells by events
	Reactions = "reactions" // which reactions a message has
	Post      = "post"      // messages of the app's own
	React     = "react"     // reactions of the app's own
	History   = "history"   // what people write to the app in direct messages
)

const origin = "https://slack.com"

// Connector is a grant.OAuth, a grant.Revoker, a grant.Finish and a grant.Refuser. It prints
// as "<slack connector>".
type Connector struct {
	about   grant.About
	request oauth.TokenRequest // what every request has in common
	origin  string
	oauth   *oauth.Client
	now     func() time.Time
}

var (
	_ grant.OAuth   = (*Connector)(nil)
	_ grant.Revoker = (*Connector)(nil)
	_ grant.Finish  = (*Connector)(nil)
	_ grant.Refuser = (*Connector)(nil)
)

// Format implements fmt.Formatter: no verb prints the secret.
func (Connector) Format(s fmt.State, _ rune) { io.WriteString(s, "<slack connector>") }

// New returns a Connector. It does no I/O. What is wrong with the configuration is a
// *connector.Fault.
func New(o connector.Client) (*Connector, error) {
	if err := o.Complete(); err != nil {
		return nil, fmt.Errorf("slack: %w", err)
	}
	if o.Owner != grant.OwnedByOrg {
		return nil, connector.FaultAt("owner", errors.New("must be org: "+WhyOrg))
	}
	accesses, err := accesses()
	if err != nil {
		return nil, err
	}
	c := &Connector{origin: cmp.Or(o.Base, origin), oauth: o.OAuth, now: o.Now}
	token := c.origin + "/api/oauth.v2.access"
	c.request = o.Request(token, oauth.Basic)
	c.request.TokenTypes = []string{"bot"} // which Slack takes as a Bearer
	c.request.Further = []string{"team", "enterprise", "is_enterprise_install", "authed_user"}
	c.about = o.About(Type, "Slack", c.origin, token)
	c.about.Accesses, c.about.Revoke = accesses, connector.SchemeAndHost(c.origin)
	// A refresh token is used once, but a repetition is answered for a short time, whose
	// length Slack does not tell. So a lost answer is asked for once more, at once. That
	// makes a second new access token, of which two are good at a time: the one that is
	// lent from then on, and the lost one. The other one ends, which was to be replaced.
	// To ask people again instead would end what a moment later is all right.
	c.about.Resend = true
	// Slack takes text/plain too, and does not say how it reads that.
	c.about.Bodies = []string{"application/x-www-form-urlencoded", "application/json", "multipart/form-data"}
	return c, nil
}

// WhyOrg is why no grant is a person's own.
const WhyOrg = "the app is installed for a workspace and acts there as itself, whoever installed it; managed_by says " +
	"who may"

// accesses are what there is: each of the scopes is in one of them, and what a method needs
// is in its reference (https://docs.slack.dev/reference/methods). The last part of a path is
// the method; Slack reads by POST too, so that the verb says nothing. auth.test, which needs
// no scope, tells the app who it is.
func accesses() ([]grant.Access, error) {
	list := []grant.Access{
		{Name: Read, Scopes: []string{"channels:read", "groups:read", "im:read"},
			Means: "see which channels and conversations there are in the workspace, and who is in them; of private " +
				"ones only those that the bot was added to"},
		{Name: Mentions, Scopes: []string{"app_mentions:read"},
			Means: "be told of messages that mention the bot, with their text"},
		{Name: Reactions, Scopes: []string{"reactions:read"}, Means: "see who reacted to a message, and how"},
		{Name: Post, Scopes: []string{"chat:write"}, Means: "write messages as the bot, and change or delete those"},
		{Name: React, Scopes: []string{"reactions:write"}, Means: "add reactions as the bot, and remove those"},
		{Name: History, Scopes: []string{"im:history"}, Means: "read what people write to the bot in direct messages"},
	}
	reads := map[string]string{
		Read:      "conversations.list conversations.info conversations.members users.conversations",
		Reactions: "reactions.get reactions.list",
		History:   "conversations.history conversations.replies",
	}
	writes := map[string]string{
		Post: "chat.postMessage chat.update chat.delete chat.postEphemeral chat.scheduleMessage " +
			"chat.deleteScheduledMessage",
		React: "reactions.add reactions.remove",
	}
	for i := range list {
		texts := []string{"POST /api/auth.test"}
		for method := range strings.FieldsSeq(reads[list[i].Name]) {
			texts = append(texts, "GET /api/"+method, "POST /api/"+method)
		}
		for method := range strings.FieldsSeq(writes[list[i].Name]) {
			texts = append(texts, "POST /api/"+method)
		}
		var err error
		if list[i].Rules, err = connector.Rules(texts); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// About implements grant.Connector. The caller may keep and change what it gets.
func (c *Connector) About() grant.About {
	about := c.about
	about.Accesses, about.Bodies = slices.Clone(about.Accesses), slices.Clone(about.Bodies)
	return about
}

// Origin implements grant.Connector: it is the same for all workspaces.
func (c *Connector) Origin(grant.Account) string { return c.origin }

// AccountID is the ID of the account of an installation, by what Slack says of it: the
// enterprise where the app was installed for all of an organization, else the team.
func AccountID(team, enterprise string, enterpriseInstall bool) string {
	if enterpriseInstall {
		return enterprise
	}
	return team
}

// FinishURL implements grant.Finish: where a workspace lists the apps that are installed.
// The addresses are those that Slack's pages lead to; its reference does not have them.
func (c *Connector) FinishURL(a grant.Account) string {
	switch {
	case isID(a.ID, 'T'):
		return "https://app.slack.com/apps-manage/" + a.ID + "/integrations/installed"
	case isID(a.ID, 'E'):
		return "https://app.slack.com/manage/" + a.ID + "/integrations"
	}
	return "https://my.slack.com/apps/manage"
}

// isID reports whether id is one of Slack's that begins with kind.
func isID(id string, kind byte) bool {
	return len(id) > 1 && len(id) <= 64 && id[0] == kind &&
		strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == ""
}

// Refused implements grant.Refuser: Slack says so with status 200. invalid_auth may also say
// that we ask from an address that the workspace does not let in. A refresh finds that out;
// a token that lasts does not end by it.
func (c *Connector) Refused(answer []byte, renewable bool) bool {
	var said struct {
		OK    *bool
		Error string
	}
	if json.Unmarshal(answer, &said) != nil || said.OK == nil || *said.OK {
		return false
	}
	switch said.Error {
	case "token_expired", "token_revoked", "account_inactive":
		return true
	case invalidAuth:
		return renewable
	}
	return false
}

// Issuer implements grant.OAuth: Slack's callbacks have no iss. What keeps codes of other
// authorization servers away is that the redirect URI is this connector's own (RFC 9700
// §4.4.2.2).
func (c *Connector) Issuer() string { return "" }

// AuthURL implements grant.OAuth. No challenge is sent (PKCE): Slack takes one only from
// apps that opted in, and to these it gives refresh tokens that end after 30 days. What
// binds the code to us is the secret, and to the browser the state.
func (c *Connector) AuthURL(h identity.Handshake, r grant.Request) (string, error) {
	return connector.Dialect{Separator: ",", NoPKCE: true}.Authorize(c.origin+"/oauth/v2/authorize",
		c.about.ClientID, h, r, nil)
}

// Redeem implements grant.OAuth. Whose account it is comes from the answer. More scopes than
// were asked for are no error: those of earlier installations stay with an app until it is
// uninstalled.
func (c *Connector) Redeem(
	ctx context.Context, callback url.Values, _ identity.Handshake, r grant.Request,
) (grant.Result, error) {
	code, err := codes().Code(callback)
	if err != nil {
		return grant.Result{}, err
	}
	answer, err := c.exchange(ctx, url.Values{"grant_type": {"authorization_code"}, "code": {code},
		"redirect_uri": {r.RedirectURI}})
	if err != nil {
		return grant.Result{}, err
	}
	if answer.AccessToken == "" && answer.Further["authed_user"] != nil {
		return grant.Result{}, &grant.Error{Class: grant.Ours, Reason: NoBotToken,
			Err: errors.New("only a token of the person came, and none of a bot: the app at Slack has no bot scopes")}
	}
	result, err := c.result(answer)
	if err != nil {
		return grant.Result{}, err
	}
	if result.Scopes == nil { // RFC 6749 §5.1: as asked
		result.Scopes = slices.Clone(r.Scopes)
	}
	if err := connector.Narrow(connector.Missing(r.Scopes, result.Scopes)); err != nil {
		return grant.Result{}, err
	}
	if result.Account.ID == "" {
		return grant.Result{}, &grant.Error{Class: grant.Lost, Reason: connector.NoAccount,
			Err: errors.New("the answer names neither a team nor an enterprise")}
	}
	if r.Offline && result.Tokens.Refresh == "" && !result.Tokens.AccessExpires.IsZero() {
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: connector.NoRefreshToken,
			Err: errors.New("no refresh token came, although the access token ends")}
	}
	return result, nil
}

// Refresh implements grant.OAuth. Slack takes no scope there.
func (c *Connector) Refresh(ctx context.Context, t grant.Tokens, _ []string) (grant.Result, error) {
	if t.Refresh == "" {
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: connector.NoRefreshToken,
			Err: errors.New("there is no refresh token")}
	}
	answer, err := c.exchange(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {t.Refresh}})
	if err != nil {
		return grant.Result{}, err
	}
	result, err := c.result(answer)
	result.Account = grant.Account{ID: result.Account.ID}
	return result, err
}

func (c *Connector) exchange(ctx context.Context, form url.Values) (oauth.TokenResponse, error) {
	r := c.request
	r.Form = form
	answer, err := c.oauth.Exchange(ctx, r)
	return answer, codes().Failed(err)
}

// result reads an answer. Scopes are nil where it does not tell, and so is the account's ID.
// A token of the person who installed the app, in authed_user, is not read.
func (c *Connector) result(answer oauth.TokenResponse) (grant.Result, error) {
	tokens, err := connector.Tokens(answer, c.now())
	if err != nil {
		return grant.Result{}, err
	}
	return grant.Result{Tokens: tokens, Account: account(answer.Further),
		Scopes: connector.Scopes(strings.ReplaceAll(answer.Scope, ",", " "))}, nil
}

// account is who the members of an answer are of; zero where they do not say it.
func account(members map[string]json.RawMessage) grant.Account {
	type party struct{ ID, Name string }
	var team, enterprise party
	for name, into := range map[string]*party{"team": &team, "enterprise": &enterprise} {
		if json.Unmarshal(members[name], into) != nil { // also where there is none
			*into = party{}
		}
	}
	whole := string(members["is_enterprise_install"]) == "true"
	id, name := AccountID(team.ID, enterprise.ID, whole), team.Name
	kind := byte('T')
	if whole {
		name, kind = enterprise.Name, 'E'
	}
	if !isID(id, kind) {
		return grant.Account{}
	}
	return grant.Account{ID: id, Name: name, Chain: id}
}
