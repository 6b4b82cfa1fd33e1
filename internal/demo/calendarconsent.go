package demo

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const scopePrefix = "https://www.googleapis.com/auth/"

// The scopes of the pretend Google that are not for signing in, and what they allow in words.
// https://developers.google.com/workspace/calendar/api/auth
func calendarScopes() []calendarScope {
	return []calendarScope{
		{scopePrefix + "calendar.freebusy", "See when you are free or busy"},
		{scopePrefix + "calendar.events.freebusy", "See when calendars that you can open are free or busy"},
		{scopePrefix + "calendar.calendarlist.readonly", "See which calendars are in your list"},
		{scopePrefix + "calendar.events.owned.readonly", "See the events of the calendars that you own"},
		{scopePrefix + "calendar.events.readonly", "See the events of all your calendars"},
		{scopePrefix + "calendar.readonly", "See everything in all your calendars"},
		{scopePrefix + "calendar.events", "See, make, change and delete events in all your calendars"},
		{scopePrefix + "calendar", "See, change, share and delete all your calendars"},
	}
}

type calendarScope struct{ Name, Means string }

// Short is the name as people read it.
func (s calendarScope) Short() string { return strings.TrimPrefix(s.Name, scopePrefix) }

// calendarRequest is an authorization request that was accepted.
type calendarRequest struct {
	client, redirect, state, nonce, challenge, hint string
	name                                            string          // of the client, for people
	signIn                                          []string        // of the scopes: openid, email, profile
	scopes                                          []calendarScope // the others
	offline                                         bool            // access_type=offline
	consent                                         bool            // prompt=consent
	silent                                          bool            // prompt=none
	merge                                           bool            // include_granted_scopes=true
}

type consentPage struct {
	Client, Origin string
	People         []Person
	Chosen         string // the key of one of them
	SignIn         bool
	Scopes         []calendarScope
	Granular       bool // there is a choice
	Offline        bool
}

// ask shows the page on which a person chooses an account and what it may be used for.
func (g *GoogleCalendar) ask(w http.ResponseWriter, r *http.Request) error {
	q, err := g.readRequest(r)
	if err != nil {
		return g.refuse(w, r, q, err)
	}
	hinted, known := g.find(q.hint)
	if q.silent { // OIDC Core §3.1.2.6: nobody is signed in here
		return g.refuse(w, r, q, &clientError{"interaction_required", "a person has to choose an account"})
	}
	if !known {
		hinted = g.opts.People[0]
	}
	return g.templates.consent(w, consentPage{Client: q.name, Origin: originOf(q.redirect), People: g.opts.People,
		Chosen: hinted.Key, SignIn: len(q.signIn) > 0, Scopes: q.scopes, Granular: len(q.scopes) > 1,
		Offline: q.offline}, append([]string{originOf(q.redirect)}, g.opts.LeadsTo...))
}

// find returns the person whose address or sub is hint.
// https://developers.google.com/identity/openid-connect/openid-connect#authenticationuriparameters
func (g *GoogleCalendar) find(hint string) (Person, bool) {
	i := slices.IndexFunc(g.opts.People, func(p Person) bool {
		return hint != "" && (p.Email == hint || numericID(p.Key) == hint)
	})
	if i < 0 {
		return Person{}, false
	}
	return g.opts.People[i], true
}

// decide handles the form of that page.
func (g *GoogleCalendar) decide(w http.ResponseWriter, r *http.Request) error {
	q, err := g.readRequest(r)
	if err != nil {
		return g.refuse(w, r, q, err)
	}
	if !sentBy(g.opts.Origin, r) {
		return &pageError{http.StatusForbidden, "That form was not sent by this page."}
	}
	if err := r.ParseForm(); err != nil {
		return &pageError{http.StatusBadRequest, "The form could not be read."}
	}
	if r.PostForm.Get("answer") != "allow" {
		return g.refuse(w, r, q, &clientError{"access_denied", "the person said no"})
	}
	i := slices.IndexFunc(g.opts.People, func(p Person) bool { return p.Key == r.PostForm.Get("person") })
	if i < 0 {
		return &pageError{http.StatusBadRequest, "No account was chosen."}
	}
	scope := slices.Clone(q.signIn)
	for _, s := range q.scopes {
		// One scope alone is not a choice: it comes with "allow".
		// https://developers.google.com/identity/protocols/oauth2/resources/granular-permissions
		if len(q.scopes) == 1 || slices.Contains(r.PostForm["scope"], s.Name) {
			scope = append(scope, s.Name)
		}
	}
	if len(scope) == 0 {
		return g.refuse(w, r, q, &clientError{"access_denied", "the person left everything out"})
	}
	return g.back(w, r, q, url.Values{"code": {g.issueCode(q, g.opts.People[i], scope)}})
}

func (g *GoogleCalendar) issueCode(q calendarRequest, who Person, scope []string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	code, had := "4/0"+random(), g.consents[who.Key]
	consent := calendarConsent{scope: union(had.scope, scope), offline: had.offline}
	if q.merge {
		scope = consent.scope
	}
	// Offline stays only if a refresh token is due: at the first consent to this client, or
	// where the person was asked on purpose.
	offline := q.offline && (q.consent || !slices.Contains(had.offline, q.client))
	g.consents[who.Key] = consent
	now := g.opts.Now()
	g.codes.put(now, code, calendarGrant{person: who, client: q.client, scope: scope, challenge: q.challenge,
		nonce: q.nonce, redirect: q.redirect, offline: offline})
	return code
}

func union(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

// refuse sends a *clientError to the client and passes others on.
func (g *GoogleCalendar) refuse(w http.ResponseWriter, r *http.Request, q calendarRequest, err error) error {
	var c *clientError
	if !errors.As(err, &c) {
		return err
	}
	return g.back(w, r, q, url.Values{"error": {c.code}})
}

// readRequest checks an authorization request. After a *pageError the browser must not be
// redirected; after a *clientError it may be.
func (g *GoogleCalendar) readRequest(r *http.Request) (calendarRequest, error) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return calendarRequest{}, &pageError{http.StatusBadRequest, "The request's query is malformed."}
	}
	for name := range v {
		if _, err := single(v, name); err != nil {
			return calendarRequest{}, &pageError{http.StatusBadRequest, "A parameter is too long, or there twice."}
		}
	}
	q := calendarRequest{client: v.Get("client_id"), redirect: v.Get("redirect_uri"), state: v.Get("state"),
		nonce: v.Get("nonce"), challenge: v.Get("code_challenge"), hint: v.Get("login_hint"),
		offline: v.Get("access_type") == "offline", merge: v.Get("include_granted_scopes") == "true"}
	client, ok := g.client(q.client)
	q.name = cmp.Or(client.Name, client.ID)
	switch {
	case !ok:
		return q, &pageError{http.StatusUnauthorized, "This client is not known here (invalid_client)."}
	case !slices.Contains(client.RedirectURIs, q.redirect):
		return q, &pageError{http.StatusBadRequest,
			"The client asked to return to an address that is not registered for it (redirect_uri_mismatch)."}
	}
	for prompt := range strings.FieldsSeq(v.Get("prompt")) {
		switch prompt {
		case "consent":
			q.consent = true
		case "none":
			q.silent = true
		case "select_account":
		default:
			return q, &pageError{http.StatusBadRequest, "This prompt is not known here (invalid_request)."}
		}
	}
	switch {
	case v.Get("response_type") != "code":
		return q, &pageError{http.StatusBadRequest, "Only response_type=code is served here (invalid_request)."}
	case q.silent && q.consent:
		return q, &pageError{http.StatusBadRequest, "prompt=none stands alone (invalid_request)."}
	case q.challenge != "" && (v.Get("code_challenge_method") != "S256" || !isChallenge(q.challenge)):
		return q, &pageError{http.StatusBadRequest, "The code challenge is malformed (invalid_request)."}
	}
	return q, q.readScopes(v.Get("scope"))
}

func (q *calendarRequest) readScopes(asked string) error {
	known := calendarScopes()
	for name := range strings.FieldsSeq(asked) {
		i := slices.IndexFunc(known, func(s calendarScope) bool { return s.Name == name })
		switch {
		case slices.Contains([]string{"openid", "email", "profile", scopePrefix + "userinfo.email",
			scopePrefix + "userinfo.profile"}, name):
			q.signIn = append(q.signIn, strings.TrimPrefix(name, scopePrefix+"userinfo."))
		case i >= 0:
			q.scopes = append(q.scopes, known[i])
		default: // offline_access, too
			return &pageError{http.StatusBadRequest, "A scope is not known here (invalid_scope)."}
		}
	}
	if len(q.signIn)+len(q.scopes) == 0 {
		return &pageError{http.StatusBadRequest, "No scope was asked for (invalid_request)."}
	}
	return nil
}
