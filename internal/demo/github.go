package demo

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Paths of the pretend GitHub, which is at its address as a GitHub Enterprise Server is.
const (
	GitHubPrefix    = "/login/oauth"
	GitHubTokenPath = "/access_token" // below GitHubPrefix
	GitHubAPI       = "/api/v3"

	GitHubUserPath        = "/user" // below GitHubAPI
	GitHubEmailsPath      = "/user/emails"
	GitHubMembershipsPath = "/user/memberships/orgs"
	GitHubTeamsPath       = "/user/teams"
	GitHubRevokePath      = "/applications/"
)

const (
	githubReadOrg = "read:org"
	githubEmail   = "user:email"
)

// github behaves like GitHub for an OAuth app (docs/providers/github.md): OAuth 2.0 without
// OpenID Connect, client credentials in the body, errors with status 200, scopes with commas,
// and an API in pages.
func (k *providerKind) github() {
	k.scopes = []string{githubReadOrg, githubEmail}
	k.plainOAuth, k.refusesScope, k.bodyOnly = true, true, true
	k.prefix, k.issuerPath, k.tokenPath = GitHubPrefix, GitHubPrefix, GitHubTokenPath
	k.without = []string{DiscoveryPath, JWKSPath, UserinfoPath, EndSessionPath}
	k.accessPrefix, k.otherPrefix = "gho_16C7e42F", "ghr_1B4a2e77"
	k.answer = func(g grant, tokens map[string]any) {
		tokens["token_type"], tokens["scope"] = "bearer", strings.Join(g.scope, ",")
		for _, absent := range []string{"refresh_token", "expires_in", "id_token"} {
			delete(tokens, absent)
		}
	}
	k.errorBody = func(e *oauthError) (int, any) {
		code := e.code
		switch code {
		case "invalid_token":
			return http.StatusUnauthorized, map[string]string{"message": "Bad credentials"}
		case "invalid_grant":
			code = "bad_verification_code"
		case "invalid_client":
			code = "incorrect_client_credentials"
		}
		return http.StatusOK, map[string]string{"error": code, "error_description": e.text}
	}
	k.further = (*Provider).githubRoutes
}

func (p *Provider) githubRoutes() {
	for path, l := range map[string]struct {
		scope string
		read  func(Person) []any
	}{
		GitHubEmailsPath:      {githubEmail, Person.githubEmails},
		GitHubMembershipsPath: {githubReadOrg, Person.githubMemberships},
		GitHubTeamsPath:       {githubReadOrg, Person.githubTeams},
	} {
		p.mux.Handle("GET "+GitHubAPI+path, p.githubCall(func(w http.ResponseWriter, r *http.Request, g grant) {
			if !slices.Contains(g.scope, l.scope) {
				githubRefuse(w, http.StatusForbidden, "the token lacks a scope")
				return
			}
			p.githubPage(w, r, l.read(g.person))
		}))
	}
	p.mux.Handle("GET "+GitHubAPI+GitHubUserPath, p.githubCall(func(w http.ResponseWriter, _ *http.Request, g grant) {
		_ = writeJSON(w, http.StatusOK, g.person.githubUser())
	}))
	p.mux.HandleFunc("DELETE "+GitHubAPI+GitHubRevokePath+"{client}/token", p.githubRevoke)
}

// githubCall serves a call for which an access token is needed.
func (p *Provider) githubCall(f func(http.ResponseWriter, *http.Request, grant)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g, err := p.bearer(r)
		switch {
		case r.UserAgent() == "" || r.Header.Get("Accept") != "application/vnd.github+json":
			githubRefuse(w, http.StatusForbidden, "Request forbidden by administrative rules: User-Agent and Accept")
		case err != nil:
			githubRefuse(w, http.StatusUnauthorized, "Bad credentials")
		default:
			f(w, r, g)
		}
	})
}

func githubRefuse(w http.ResponseWriter, status int, why string) {
	_ = writeJSON(w, status, map[string]string{"message": why}) // the client has gone
}

// githubPage answers one page of a list, and says in Link whether there is a next one.
func (p *Provider) githubPage(w http.ResponseWriter, r *http.Request, all []any) {
	q := r.URL.Query()
	per, wrong := strconv.Atoi(q.Get("per_page"))
	page, err := strconv.Atoi(q.Get("page"))
	if err != nil || wrong != nil || per < 1 || per > 100 || page < 1 {
		githubRefuse(w, http.StatusUnprocessableEntity, "per_page must be 1 to 100, and page from 1 on")
		return
	}
	if state := q.Get("state"); state != "" {
		all = slices.DeleteFunc(all, func(one any) bool { return one.(map[string]any)["state"] != state })
	}
	first, last := min((page-1)*per, len(all)), min(page*per, len(all))
	if last < len(all) {
		q.Set("page", strconv.Itoa(page+1))
		w.Header().Set("Link", fmt.Sprintf("<%s%s?%s>; rel=\"next\", <%s%s?page=%d>; rel=\"last\"",
			p.opts.Issuer, r.URL.Path, q.Encode(), p.opts.Issuer, r.URL.Path, (len(all)+per-1)/per))
	}
	_ = writeJSON(w, http.StatusOK, append([]any{}, all[first:last]...))
}

// githubRevoke deletes a token for its app, which proves itself by Basic.
func (p *Provider) githubRevoke(w http.ResponseWriter, r *http.Request) {
	id, secret, ok := r.BasicAuth()
	var body struct {
		AccessToken string `json:"access_token"`
	}
	switch {
	case !ok || !equal(id, p.opts.ClientID) || !equal(secret, p.opts.ClientSecret) || r.PathValue("client") != id:
		githubRefuse(w, http.StatusUnauthorized, "Bad credentials")
		return
	case json.NewDecoder(r.Body).Decode(&body) != nil:
		githubRefuse(w, http.StatusBadRequest, "Problems parsing JSON")
		return
	}
	p.mu.Lock()
	_, known := p.access.get(p.opts.Now(), body.AccessToken)
	p.access.drop(body.AccessToken)
	p.mu.Unlock()
	if !known {
		githubRefuse(w, http.StatusUnprocessableEntity, "Validation Failed")
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// GitHubID is the number of a person or an organization at the pretend GitHub.
func GitHubID(of string) int64 {
	sum := sha256.Sum256([]byte("github " + of))
	return int64(binary.BigEndian.Uint32(sum[:])) + 1
}

func (p Person) githubUser() map[string]any {
	return map[string]any{"id": GitHubID(p.Key), "login": p.Username, "name": p.Name, "type": "User",
		"email": "public-" + p.Key + "@mail.example"} // what a profile shows, and nobody verified
}

func (p Person) githubEmails() []any {
	return []any{
		map[string]any{"email": "old-" + p.Key + "@mail.example", "primary": false, "verified": true},
		map[string]any{"email": p.Email, "primary": true, "verified": p.EmailVerified, "visibility": "private"},
	}
}

// githubOrgs are the logins of the person's organizations.
func (p Person) githubOrgs() []string {
	var logins []string
	if p.OrgID != "" {
		logins = append(logins, p.OrgID)
	}
	for _, o := range p.Orgs {
		logins = append(logins, o.ID)
	}
	return logins
}

func githubOrg(login string) map[string]any {
	return map[string]any{"id": GitHubID(login), "login": login, "description": "Of the demo"}
}

// githubMemberships has an invitation that nobody has accepted besides.
func (p Person) githubMemberships() []any {
	list := []any{map[string]any{"state": "pending", "role": "member", "organization": githubOrg("invited")}}
	for _, login := range p.githubOrgs() {
		list = append(list, map[string]any{"state": "active", "role": "member", "organization": githubOrg(login)})
	}
	return list
}

// githubTeams are the person's groups in each of their organizations.
func (p Person) githubTeams() []any {
	var list []any
	for _, login := range p.githubOrgs() {
		for _, group := range p.Groups {
			list = append(list, map[string]any{"id": GitHubID(login + "/" + group), "slug": group, "name": group,
				"organization": githubOrg(login)})
		}
	}
	return list
}
