package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// docs/providers/github.md has the sources.
const (
	githubBase = "https://github.com"

	githubUnverified = "unverified_user_email" // the error of a token request

	githubOrgs   = "memberships" // the claim with what GET /user/memberships/orgs answers
	githubTeams  = "teams"       // GET /user/teams
	githubEmails = "emails"      // GET /user/emails

	// githubOrgsRead is the claim with the organizations that were read out of memberships.
	githubOrgsRead = "sallyport.orgs"
)

// github is the dialect of GitHub and of GitHub Enterprise Server, which speak OAuth 2.0 to
// people and not OpenID Connect: there is no ID token, no nonce and no discovery that counts.
// Who somebody is comes from the REST API, over TLS, with an access token that is revoked
// when all is read.
func github(o Options) dialect {
	p := strict(o)
	p.plainOAuth = true
	p.scopes = []string{"read:org", "user:email"}
	p.clientAuth = oauth.Post // the way that its documentation has
	p.wanted, p.needed = nil, nil
	p.account = func(ctx context.Context, p *Provider, tokens oauth.TokenResponse) (claims, error) {
		return readGitHub(ctx, p, o, tokens)
	}
	p.prepare = func(c claims) (claims, error) { return githubClaims(o, c) }
	p.orgs = githubOrganizations
	p.admits = func(c claims) *excluded { return githubAdmits(o, c) }
	p.reads = []Claim{
		{"id", "GET /user", "the person's id", true},
		{"login", "GET /user", "the user name", true},
		{"name", "GET /user", "the name", true},
		{"email", "GET /user/emails", "the e-mail address, if it is the primary one and verified", true},
		{"primary", "GET /user/emails", "which address counts", false},
		{"verified", "GET /user/emails", "whether the address counts", false},
		{"state", "GET /user/memberships/orgs", "whether a membership counts", false},
		{"organization.id", "GET /user/memberships/orgs", "the ids of the organizations", true},
		{"organization.login", "GET /user/memberships/orgs", "the names of the organizations", true},
	}
	if o.AllowedOrgs != nil {
		p.reads = append(p.reads, Claim{"slug", "GET /user/teams", "the groups, with the organization's login", true},
			Claim{"organization.id", "GET /user/teams", "in which organization a group counts", true})
	}
	return p
}

// githubAPI is the address of the REST API that belongs to a base URL: a host of its own for
// github.com and for enterprises with data residency, a path on a GitHub Enterprise Server.
func githubAPI(base string) string {
	scheme, host, _ := strings.Cut(base, "://")
	if host == "github.com" || strings.HasSuffix(host, ".ghe.com") {
		return scheme + "://api." + host
	}
	return base + "/api/v3"
}

// completeGitHub fills in the addresses. What discovery documents say of GitHub is not for
// signing in (docs/providers/github.md).
func (o Options) completeGitHub() Options {
	o.BaseURL = strings.TrimSuffix(or(o.BaseURL, githubBase), "/")
	o.Issuer = or(o.Issuer, o.BaseURL+"/login/oauth")
	o.Endpoints = Endpoints{AuthorizationURL: o.BaseURL + "/login/oauth/authorize",
		TokenURL: o.BaseURL + "/login/oauth/access_token"}
	return o
}

// githubConflicts finds settings with which GitHub can do nothing. o is as the configuration
// has it, or completed.
func (o Options) githubConflicts(add func(wrong bool, key, why string)) {
	if o.Type != TypeGitHub {
		add(o.BaseURL != "", "base_url", "is for type github")
		add(o.AllowedOrgs != nil, "allowed_orgs", "is for type github")
		return
	}
	const noOpenID = "has no meaning for type github, which speaks no OpenID Connect"
	add(o.Endpoints != Endpoints{} && o.Endpoints != o.completeGitHub().Endpoints, "endpoints",
		"are known for type github; base_url says where a GitHub Enterprise Server is")
	add(o.Claims != ClaimNames{}, "claims", "has no meaning for type github, whose answers have no names to choose")
	add(o.Scopes != nil, "scopes", "are always read:org and user:email for type github")
	add(o.IdentityFrom != "" && o.IdentityFrom != FromAuto, "identity_from", noOpenID)
	add(o.TrustedAudiences != nil, "trusted_audiences", noOpenID)
	add(o.SignOut.ReturnParam != "" || o.SignOut.Params != nil, "logout",
		"cannot be for type github, which has no page where other sites sign people out")
	add(!slices.Contains([]string{"", ClientAuthAuto, ClientAuthPost}, o.ClientAuth), "client_auth",
		"must be auto or post for type github, which takes a client secret in the body only")
}

// readGitHub asks GitHub who somebody is. Each call is made once and no redirect is followed.
// The token is revoked in the end, whatever became of the calls.
func readGitHub(ctx context.Context, p *Provider, o Options, tokens oauth.TokenResponse) (claims, error) {
	if tokens.AccessToken == "" || !printable(tokens.AccessToken, maxToken) {
		return nil, fail(identity.Rejected, "the token answer has no access token")
	}
	api := githubCalls{p: p, base: githubAPI(p.baseURL), token: tokens.AccessToken}
	defer api.revoke(ctx)
	if err := githubScopes(tokens); err != nil {
		return nil, err
	}
	who, err := api.object(ctx, "/user")
	if err != nil {
		return nil, err
	}
	lists := []struct{ claim, path, query string }{
		{githubEmails, "/user/emails", ""},
		{githubOrgs, "/user/memberships/orgs", "state=active&"},
	}
	if o.AllowedOrgs != nil {
		lists = append(lists, struct{ claim, path, query string }{githubTeams, "/user/teams", ""})
	}
	for _, l := range lists {
		list, err := api.list(ctx, l.path, l.query)
		if err != nil {
			return nil, err
		}
		if who[l.claim], err = json.Marshal(list); err != nil {
			return nil, fail(identity.Rejected, "%s: what came is not JSON", l.path)
		}
	}
	return githubClaims(o, who)
}

// githubScopes refuses a token with which memberships and addresses could not be read whole.
// A person can grant less than was asked for, and a token of a GitHub App has no scopes.
func githubScopes(tokens oauth.TokenResponse) error {
	granted := strings.FieldsFunc(tokens.Scope, func(r rune) bool { return r == ',' || r == ' ' })
	if len(granted) == 0 {
		return fail(identity.Misconfigured, "the token has no scopes: type github is for an OAuth app, "+
			"and not for a GitHub App")
	}
	for _, need := range [...]struct {
		asked string
		wider []string // GitHub leaves out a scope that a wider one includes
	}{
		{"read:org", []string{"write:org", "admin:org"}},
		{"user:email", []string{"user"}},
	} {
		if !slices.ContainsFunc(append(need.wider, need.asked),
			func(s string) bool { return slices.Contains(granted, s) }) {
			return fail(identity.Declined, "the person did not grant %s", need.asked)
		}
	}
	return nil
}

// githubClaims makes claims as OpenID Connect has them from the answers of the API: the
// members of GET /user, with those of the other calls as emails, memberships and teams.
// What cannot be read ends the sign-in: left out, the person would seem to belong to fewer
// organizations.
func githubClaims(o Options, c claims) (claims, error) {
	id, ok := githubNumber(c["id"])
	if !ok {
		return nil, fail(identity.Rejected, "GET /user: id is %s, and must be a number", c.form("id"))
	}
	out := claims{"sub": quoteJSON(id)}
	for from, to := range map[string]string{"login": "preferred_username", "name": "name"} {
		if c.has(from) {
			out[to] = c[from]
		}
	}
	if err := out.addGitHubEmail(c); err != nil {
		return nil, err
	}
	orgs, err := readGitHubOrgs(o, c)
	if err != nil {
		return nil, err
	}
	groups, err := readGitHubTeams(c, orgs)
	if err != nil {
		return nil, err
	}
	if out[githubOrgsRead], err = json.Marshal(orgs); err != nil {
		return nil, err
	}
	if len(groups) > 0 {
		out["groups"], err = json.Marshal(groups)
	}
	return out, err
}

// addGitHubEmail takes the primary address, if it is verified. The member email of GET /user is
// what somebody shows in public, and is not looked at.
func (c claims) addGitHubEmail(from claims) error {
	list, err := from.objects(githubEmails)
	if err != nil {
		return err
	}
	for _, one := range list {
		address, ok := one.text("email")
		if !ok {
			return fail(identity.Rejected, "%s: email is %s, and must be a text", githubEmails, one.form("email"))
		}
		if isTrue(one["primary"]) && isTrue(one["verified"]) {
			c["email"], c[emailVerified] = quoteJSON(address), json.RawMessage("true")
			return nil
		}
	}
	return nil
}

// githubOrg is an organization in which a person is an active member, and in which they count.
type githubOrg struct {
	ID   string `json:"id"`
	Name string `json:"name"` // the login, for people: it can become another organization's
}

func readGitHubOrgs(o Options, c claims) ([]githubOrg, error) {
	list, err := c.objects(githubOrgs)
	if err != nil {
		return nil, err
	}
	var orgs []githubOrg
	for _, one := range list {
		state, ok := one.text("state")
		if !ok {
			return nil, fail(identity.Rejected, "%s: state is %s, and must be a text", githubOrgs, one.form("state"))
		}
		org, err := one.githubOrg(githubOrgs)
		if err != nil {
			return nil, err
		}
		known := slices.ContainsFunc(orgs, func(known githubOrg) bool { return known.ID == org.ID })
		if state == "active" && !known && (o.AllowedOrgs == nil || slices.Contains(o.AllowedOrgs, org.ID)) {
			orgs = append(orgs, org)
		}
	}
	return orgs, nil
}

// githubAdmits is about the claims that githubClaims makes.
func githubAdmits(o Options, c claims) *excluded {
	var orgs []githubOrg
	_ = json.Unmarshal(c[githubOrgsRead], &orgs) // written by githubClaims
	groups, _ := oauth.Object(c["groups"])
	switch {
	case len(orgs) == 0 && o.AllowedOrgs != nil:
		return &excluded{why: identity.NoMember, words: "the person is no active member of any of allowed_orgs, " +
			"or these do not let the OAuth app see it (Third-party Access of the organization)"}
	case len(orgs) > maxOrgs:
		return &excluded{why: identity.TooManyMemberships,
			words: fmt.Sprintf("more than %d organizations: allowed_orgs keeps those that matter", maxOrgs)}
	case len(groups) > maxGroups:
		return &excluded{why: identity.TooManyMemberships, words: fmt.Sprintf("more than %d teams", maxGroups)}
	}
	return nil
}

// readGitHubTeams returns the teams as groupsOfObject reads them: each group with the ids of
// the organizations in which it counts. Teams of other organizations than orgs are left out:
// anybody can make an organization, and teams in it.
func readGitHubTeams(c claims, orgs []githubOrg) (map[string]map[string]string, error) {
	list, err := c.objects(githubTeams)
	if err != nil {
		return nil, err
	}
	groups := map[string]map[string]string{}
	for _, one := range list {
		org, err := one.githubOrg(githubTeams)
		if err != nil {
			return nil, err
		}
		slug, ok := one.text("slug")
		if !ok || !printable(slug, maxText) || strings.Contains(slug, "/") {
			return nil, fail(identity.Rejected, "%s: slug is %s, and must be a text without a slash",
				githubTeams, one.form("slug"))
		}
		if !slices.ContainsFunc(orgs, func(known githubOrg) bool { return known.ID == org.ID }) {
			continue
		}
		group := org.Name + "/" + slug
		if groups[group] == nil {
			groups[group] = map[string]string{}
		}
		groups[group][org.ID] = org.Name
	}
	return groups, nil
}

// githubOrg reads the member organization of a membership or a team.
func (c claims) githubOrg(where string) (githubOrg, error) {
	members, err := oauth.Object(c["organization"])
	if err != nil {
		return githubOrg{}, fail(identity.Rejected, "%s: organization is %s, and must be an object",
			where, c.form("organization"))
	}
	org := claims(members)
	id, ok := githubNumber(org["id"])
	if !ok {
		return githubOrg{}, fail(identity.Rejected, "%s: organization.id is %s, and must be a number",
			where, org.form("id"))
	}
	login, ok := org.text("login")
	if !ok || !printable(login, maxText) || strings.Contains(login, "/") {
		return githubOrg{}, fail(identity.Rejected, "%s: organization.login is %s, and must be a text without a slash",
			where, org.form("login"))
	}
	return githubOrg{ID: id, Name: login}, nil
}

// objects reads a claim that is a list of objects; absent, it is an empty one.
func (c claims) objects(name string) ([]claims, error) {
	if _, ok := c[name]; !ok {
		return nil, nil
	}
	var raws []json.RawMessage
	if json.Unmarshal(c[name], &raws) != nil || raws == nil {
		return nil, fail(identity.Rejected, "%s is %s, and must be a list", name, c.form(name))
	}
	var list []claims
	for _, raw := range raws {
		members, err := oauth.Object(raw)
		if err != nil {
			return nil, fail(identity.Rejected, "%s: an entry is %s, and must be an object", name, formOf(raw))
		}
		list = append(list, members)
	}
	return list, nil
}

// githubNumber reads an id: a whole number from 1 on that fits in 64 bits, as its digits. It
// never goes through a float, in which two large numbers are one.
func githubNumber(raw json.RawMessage) (string, bool) {
	if !wholeNumber(raw) {
		return "", false
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	return string(raw), err == nil && n > 0
}

func quoteJSON(s string) json.RawMessage {
	raw, _ := json.Marshal(s) // a text can always be encoded
	return raw
}

// githubOrganizations returns what readGitHubOrgs has read. If there are several, the person
// chooses: GitHub does not say for which one somebody signs in.
func githubOrganizations(r reader) (active identity.Org, all []identity.Org, unknown bool) {
	var orgs []githubOrg
	if json.Unmarshal(r.who[githubOrgsRead], &orgs) != nil {
		return identity.Org{}, nil, true
	}
	for _, o := range orgs {
		all = append(all, r.org(o.ID, o.Name, ""))
	}
	if len(all) == 1 {
		return all[0], nil, false
	}
	return identity.Org{}, all, false
}

// githubAuthParams are the parameters of GitHub's own that stand for those of OpenID Connect:
// the account picker, and whose account it is if that is a login.
func githubAuthParams(ap identity.AuthParams) map[string]string {
	params := map[string]string{}
	if ap.Prompt == "login" || ap.Prompt == "select_account" {
		params["prompt"] = "select_account"
	}
	if ap.LoginHint != "" && !strings.Contains(ap.LoginHint, "@") {
		params["login"] = ap.LoginHint
	}
	return params
}

// errNotAnswered is why GitHub's API did not tell what was asked.
var errNotAnswered = errors.New("not answered")

// githubError classes an answer that is no success.
func githubError(req *http.Request, call string, resp *http.Response, body []byte) error {
	e := &oauth.Error{Kind: oauth.Misconfigured, Call: call, URL: req.URL.Scheme + "://" + req.URL.Host + req.URL.Path,
		Status: resp.StatusCode, Sent: oauth.Answered, Err: errNotAnswered}
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		e.Err = errors.New("a redirect, and redirects are not followed; see base_url")
	case resp.StatusCode >= 500, resp.StatusCode == http.StatusRequestTimeout:
		e.Kind = oauth.Unavailable
	case limited(resp, body):
		e.Kind, e.Err = oauth.Unavailable, errors.New("GitHub's rate limit is reached")
	case resp.StatusCode == http.StatusUnauthorized:
		e.Kind, e.Err = oauth.Rejected, errors.New("GitHub does not take the token that it has just issued")
	case resp.StatusCode == http.StatusForbidden:
		e.Err = errors.New("GitHub does not let the OAuth app read this")
	case resp.StatusCode == http.StatusNotFound:
		e.Err = errors.New("nothing is there; see base_url")
	}
	return failCall(e)
}

// limited reports whether an answer is that of a rate limit, which GitHub tells with 403 or
// 429 and, where it is a secondary one, perhaps in words only.
func limited(resp *http.Response, body []byte) bool {
	return resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusForbidden &&
		(resp.Header.Get("X-Ratelimit-Remaining") == "0" || resp.Header.Get("Retry-After") != "" ||
			strings.Contains(string(body), "secondary rate limit"))
}

// githubHelp says what an operator can do about an error code of GitHub's own.
func githubHelp(code string) string {
	return map[string]string{
		"incorrect_client_credentials": "see client_id and client_secret",
		"redirect_uri_mismatch": "the callback URL of the OAuth app must be the redirect URI, " +
			"which sallyport check prints",
		"bad_verification_code": "the code is too old, spent, or another app's",
		githubUnverified:        "the person has to verify their primary address at GitHub",
	}[code]
}

// checkGitHubOrg reports why a text is not the id of an organization at GitHub.
func checkGitHubOrg(text string) error {
	if _, ok := githubNumber(json.RawMessage(text)); !ok {
		return fmt.Errorf("%q is not the number of an organization: "+
			"`curl https://api.github.com/orgs/LOGIN` has it as id", text)
	}
	return nil
}
