package demo

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Paths of the pretend Slack. The methods of its API are below SlackAPIPath.
const (
	SlackAuthorizePath = "/oauth/v2/authorize"
	SlackAPIPath       = "/api/"
	SlackTokenPath     = SlackAPIPath + "oauth.v2.access"
)

const (
	slackAccessLife = 12 * time.Hour
	slackGrace      = time.Minute // Slack does not tell how long it is
	slackActive     = 2           // access tokens that are good at a time
)

// SlackOptions configure a SlackWorkspaces.
type SlackOptions struct {
	Origin  string // on loopback, such as http://127.0.0.1:4193
	Title   string // the heading of its pages; "": Pretend Slack
	Clients []SlackClient
	LeadsTo []string // as ProviderOptions has it
	People  []Person // nil: People(). The organization of a person is their workspace
	// Optional are scopes that a person may leave out, as the app's manifest says.
	Optional []string
	// NoRotation: access tokens do not end, and there are no refresh tokens.
	NoRotation bool
	// WholeOrganization: the app is installed for an organization of workspaces.
	WholeOrganization bool
	// OnlyPerson: no token of a bot is given out, only one of the person.
	OnlyPerson bool
	// KeepsApps: apps.uninstall refuses tokens of bots.
	KeepsApps bool
	Now       func() time.Time
}

// SlackClient is an app of the pretend Slack.
type SlackClient struct {
	ID, Secret   string
	Name         string   // for people; "": the ID
	RedirectURIs []string // compared byte for byte
}

// SlackWorkspaces is an http.Handler that behaves as Slack does to an app that is installed
// for workspaces: its authorization server, and of its Web API what `type: slack` and the
// demo need. Serve it under its Origin.
//
//	GET  /oauth/v2/authorize    → a page to choose who installs the app, and for which scopes
//	POST /oauth/v2/authorize    → 303 to the client with code and state
//	POST /api/oauth.v2.access   → a token of the app's bot, perhaps one to refresh with
//	GET, POST /api/METHOD       → {"ok": true, …} or {"ok": false, "error": …}, with status 200
//
// As at Slack, an answer that says no has status 200; the type of a token is "bot"; scopes
// have commas between them, and stay with an installation until it is removed; two access
// tokens of an installation are good at a time, a further one ends the oldest; a refresh
// token is used once, and for a moment more. The sources are
// https://docs.slack.dev/authentication/using-token-rotation and
// https://docs.slack.dev/reference/methods. It keeps no session, so the page is shown each
// time.
type SlackWorkspaces struct {
	opts      SlackOptions
	host      string
	templates *templates
	mux       *http.ServeMux

	mu        sync.Mutex // guards all below
	codes     *codeStore[slackCode]
	installed []*slackInstallation
	posted    []string
}

// slackCode is what a code stands for.
type slackCode struct {
	person           Person
	client, redirect string
	scope            []string
}

// slackInstallation is an app in a workspace, or in all of an organization.
type slackInstallation struct {
	client   string
	id, name string // of the team, or of the enterprise
	whole    bool   // of the enterprise
	scope    []string
	access   []slackToken         // the oldest first
	refresh  map[string]time.Time // refresh tokens, and when they were used; zero: not yet
}

// slackToken is an access token.
type slackToken struct {
	text  string
	until time.Time // zero: it does not end
}

var _ http.Handler = (*SlackWorkspaces)(nil)

// NewSlackWorkspaces makes a SlackWorkspaces. It refuses an origin that is not on loopback,
// as NewProvider does.
func NewSlackWorkspaces(o SlackOptions) (*SlackWorkspaces, error) {
	host, err := loopbackOrigin(o.Origin)
	if err != nil {
		return nil, fmt.Errorf("pretend Slack: origin %q: %w", o.Origin, err)
	}
	for _, c := range o.Clients {
		if _, err := (ProviderOptions{ClientID: c.ID, ClientSecret: c.Secret, RedirectURIs: c.RedirectURIs}).
			complete(); err != nil {
			return nil, fmt.Errorf("pretend Slack: %w", err)
		}
	}
	o.Title = cmp.Or(o.Title, "Pretend Slack")
	if o.People == nil {
		o.People = People()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	templates, err := newTemplates(o.Title)
	if err != nil {
		return nil, fmt.Errorf("pretend Slack: %w", err)
	}
	s := &SlackWorkspaces{opts: o, host: host, templates: templates, mux: http.NewServeMux(),
		codes: newCodeStore[slackCode](maxStored, codeLife)}
	page := func(f func(http.ResponseWriter, *http.Request) error) http.Handler {
		return templates.page("The pretend Slack", f)
	}
	s.mux.Handle("GET "+MarkPath, templates.mark())
	s.mux.Handle("GET "+SlackAuthorizePath, page(s.ask))
	s.mux.Handle("POST "+SlackAuthorizePath, page(s.decide))
	s.mux.HandleFunc("POST "+SlackTokenPath, s.token)
	s.mux.HandleFunc(SlackAPIPath+"{method}", s.call)
	s.mux.Handle("GET /{$}", page(func(w http.ResponseWriter, _ *http.Request) error {
		return templates.message(w, http.StatusOK, "A pretend Slack",
			"Open the app instead; it sends you here when you connect a workspace.")
	}))
	return s, nil
}

// ServeHTTP refuses every Host but that of the origin, as Provider does.
func (s *SlackWorkspaces) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Host, s.host) {
		http.Error(w, "The pretend Slack answers only as "+s.opts.Origin+".", http.StatusMisdirectedRequest)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	s.mux.ServeHTTP(w, r)
}

// Rotate switches token rotation on, as an app's settings do. Tokens that do not end stay good.
func (s *SlackWorkspaces) Rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.NoRotation = false
}

// Team is the id of a person's workspace, or of its organization with WholeOrganization.
func (s *SlackWorkspaces) Team(person string) string {
	who, _ := find(s.opts.People, person)
	return s.team(who)
}

func (s *SlackWorkspaces) team(who Person) string {
	key, _ := who.employer()
	if s.opts.WholeOrganization {
		return upperID("E", key, 11)
	}
	return upperID("T", key, 11)
}

// Uninstall is what an administrator does on the workspace's page of apps: all tokens end.
func (s *SlackWorkspaces) Uninstall(team string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.installed = slices.DeleteFunc(s.installed, func(i *slackInstallation) bool { return i.id == team })
}

// EndAccessTokens ends the access tokens of a team before their time, and no refresh token.
func (s *SlackWorkspaces) EndAccessTokens(team string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.installed {
		for n := range i.access {
			if i.id == team {
				i.access[n].until = s.opts.Now()
			}
		}
	}
}

// Installed reports whether an app is installed in a team, and how many access tokens of it
// are good.
func (s *SlackWorkspaces) Installed(team string) (active int, installed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.installed {
		if i.id == team {
			installed = true
			for _, token := range i.access {
				if s.lasts(token) {
					active++
				}
			}
		}
	}
	return active, installed
}

// Posted are the texts of messages that were posted, the oldest first.
func (s *SlackWorkspaces) Posted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.posted)
}

// lasts: the caller does the locking.
func (s *SlackWorkspaces) lasts(t slackToken) bool {
	return t.until.IsZero() || s.opts.Now().Before(t.until)
}

// slackRequest is an authorization request that was accepted.
type slackRequest struct {
	client          SlackClient
	redirect, state string
	scope           []string
}

// readRequest checks an authorization request. Its errors are *pageError: Slack shows such.
func (s *SlackWorkspaces) readRequest(r *http.Request) (slackRequest, error) {
	bad := func(text string) (slackRequest, error) {
		return slackRequest{}, &pageError{http.StatusBadRequest, text}
	}
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return bad("The request's query is malformed.")
	}
	for name := range v {
		if _, err := single(v, name); err != nil {
			return bad("A parameter is too long, or there twice.")
		}
	}
	n := slices.IndexFunc(s.opts.Clients, func(c SlackClient) bool { return c.ID == v.Get("client_id") })
	if n < 0 {
		return bad("This app is not known here (invalid_client_id).")
	}
	q := slackRequest{client: s.opts.Clients[n], redirect: v.Get("redirect_uri"), state: v.Get("state"),
		scope: strings.Split(v.Get("scope"), ",")}
	switch known := slackScopes(); {
	case !slices.Contains(q.client.RedirectURIs, q.redirect):
		return bad("The app asked to return to an address that is not registered for it (bad_redirect_uri).")
	case v.Has("code_challenge"):
		return bad("This app has not opted in to PKCE.")
	case slices.ContainsFunc(q.scope, func(name string) bool { return known[name] == "" }):
		return bad("A scope is not known here (invalid_scope).")
	}
	return q, nil
}

// slackScopes are the scopes of bots that the pretend Slack knows, and what they allow in
// words. https://docs.slack.dev/reference/scopes
func slackScopes() map[string]string {
	return map[string]string{
		"app_mentions:read": "See messages that mention it",
		"channels:read":     "See which public channels there are",
		"groups:read":       "See the private channels that it was added to",
		"im:read":           "See the direct messages that it was sent, not what is in them",
		"im:history":        "Read the direct messages that it was sent",
		"chat:write":        "Write messages",
		"reactions:read":    "See reactions to messages",
		"reactions:write":   "Add and remove reactions of its own",
	}
}

// ask shows the page on which somebody installs the app.
func (s *SlackWorkspaces) ask(w http.ResponseWriter, r *http.Request) error {
	q, err := s.readRequest(r)
	if err != nil {
		return err
	}
	var scopes []calendarScope
	for _, name := range q.scope {
		scopes = append(scopes, calendarScope{name, slackScopes()[name]})
	}
	return s.templates.consent(w, consentPage{Client: cmp.Or(q.client.Name, q.client.ID), Origin: originOf(q.redirect),
		People: s.opts.People, Chosen: s.opts.People[0].Key, Scopes: scopes, Granular: len(s.opts.Optional) > 0,
		Offline: true}, append([]string{originOf(q.redirect)}, s.opts.LeadsTo...))
}

// decide handles the form of that page.
func (s *SlackWorkspaces) decide(w http.ResponseWriter, r *http.Request) error {
	q, err := s.readRequest(r)
	if err != nil {
		return err
	}
	if !sentBy(s.opts.Origin, r) {
		return &pageError{http.StatusForbidden, "That form was not sent by this page."}
	}
	if err := r.ParseForm(); err != nil {
		return &pageError{http.StatusBadRequest, "The form could not be read."}
	}
	back := url.Values{"state": {q.state}}
	if r.PostForm.Get("answer") != "allow" {
		back.Set("error", "access_denied")
		return redirect(w, r, q.redirect, back)
	}
	who, ok := find(s.opts.People, r.PostForm.Get("person"))
	if !ok {
		return &pageError{http.StatusBadRequest, "Nobody was chosen."}
	}
	scope := slices.DeleteFunc(slices.Clone(q.scope), func(name string) bool {
		return slices.Contains(s.opts.Optional, name) && !slices.Contains(r.PostForm["scope"], name)
	})
	code := numericID(random()) + "." + numericID(random()) + "." + random()
	s.mu.Lock()
	s.codes.put(s.opts.Now(), code, slackCode{who, q.client.ID, q.redirect, scope})
	s.mu.Unlock()
	back.Set("code", code)
	return redirect(w, r, q.redirect, back)
}
