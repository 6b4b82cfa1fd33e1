package demo

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Paths of the pretend Outlook. Microsoft serves those of the second line on a host of their
// own, graph.microsoft.com. A tenant is one's GUID or domain, or common, organizations or
// consumers.
// https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow
const (
	OutlookAuthorizePath    = "/{tenant}/oauth2/v2.0/authorize"
	OutlookTokenPath        = "/{tenant}/oauth2/v2.0/token"
	OutlookAdminConsentPath = "/{tenant}/v2.0/adminconsent"

	CalendarViewPath = MePath + "/calendarView"
	GetSchedulePath  = MePath + "/calendar/getSchedule"
)

const (
	outlookAccessLife = 75 * time.Minute // 60 to 90 at Microsoft
	outlookIssuer     = "https://login.microsoftonline.com/"
	outlookScopes     = "https://graph.microsoft.com/" // in front of those of Graph, where Microsoft writes them
	outlookPage       = 10                             // events, where $top says nothing
)

// OutlookOptions configure an OutlookCalendar.
type OutlookOptions struct {
	Origin  string           // on loopback, such as http://127.0.0.1:4194
	Title   string           // the heading of its pages; "": Pretend Microsoft
	Clients []CalendarClient // apps that are registered there
	LeadsTo []string         // as ProviderOptions has it
	People  []Person         // nil: People(). The organization of a person is their tenant
	// AdminOnly: people may not agree to calendars themselves; an administrator does so for all
	// of a tenant, at OutlookAdminConsentPath.
	AdminOnly bool
	Now       func() time.Time
}

// OutlookCalendar is an http.Handler that behaves as Microsoft does to an app that people lend
// their Outlook calendars to: its authorization server, and of Graph what
// `type: outlook_calendar` needs. Serve it under its Origin.
//
//	GET  /{tenant}/oauth2/v2.0/authorize   → a page to choose an account
//	POST /{tenant}/oauth2/v2.0/authorize   → 303 to the client with code and state
//	GET  /{tenant}/v2.0/adminconsent       → 303 to the client: an administrator agreed, for all
//	POST /{tenant}/oauth2/v2.0/token       → access token, scope, ID token; perhaps a refresh token
//	GET  /v1.0/me/calendarView             → events, and the absolute address of the next page
//	POST /v1.0/me/calendar/getSchedule     → when somebody is busy
//
// As at Microsoft, a refresh token is bound to a person and a client and not to scopes, and an
// old one stays good; without a scope a refresh is for all that the person ever agreed to; and
// every refusal has a number. It was written from Microsoft's documentation and not from the
// connector. It keeps no session, so the page is shown each time.
type OutlookCalendar struct {
	opts      OutlookOptions
	host      string
	templates *templates
	mux       *http.ServeMux
	key       *signingKey

	mu       sync.Mutex // guards all below
	codes    *codeStore[outlookGrant]
	redeemed []string // codes that were
	access   *codeStore[outlookGrant]
	refresh  map[string]outlookRefresh
	agreed   map[string][]string // scopes, by the key of the person and the client
	approved map[string][]string // scopes that an administrator agreed to, by client
	forms    []url.Values        // that came to the token endpoint
	asked    []string            // requests that came to Graph
}

// outlookGrant is what a code or an access token stands for.
type outlookGrant struct {
	person                     Person
	client                     string
	scope                      []string
	challenge, nonce, redirect string // of a code
}

type outlookRefresh struct {
	person Person
	client string
	over   bool // the person has another password by now
}

var _ http.Handler = (*OutlookCalendar)(nil)

// NewOutlookCalendar makes an OutlookCalendar with a new key. It refuses an origin that is not
// on loopback, as NewProvider does.
func NewOutlookCalendar(o OutlookOptions) (*OutlookCalendar, error) {
	host, err := loopbackOrigin(o.Origin)
	if err != nil {
		return nil, fmt.Errorf("pretend Microsoft: origin %q: %w", o.Origin, err)
	}
	for _, c := range o.Clients {
		if _, err := (ProviderOptions{ClientID: c.ID, ClientSecret: c.Secret, RedirectURIs: c.RedirectURIs}).
			complete(); err != nil {
			return nil, fmt.Errorf("pretend Microsoft: %w", err)
		}
	}
	o.Title, o.Clients = cmp.Or(o.Title, "Pretend Microsoft"), slices.Clone(o.Clients)
	if o.People == nil {
		o.People = People()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	key, err := newSigningKey()
	if err != nil {
		return nil, fmt.Errorf("pretend Microsoft: %w", err)
	}
	templates, err := newTemplates(o.Title)
	if err != nil {
		return nil, fmt.Errorf("pretend Microsoft: %w", err)
	}
	c := &OutlookCalendar{opts: o, host: host, templates: templates, mux: http.NewServeMux(), key: key,
		codes:   newCodeStore[outlookGrant](maxStored, codeLife),
		access:  newCodeStore[outlookGrant](maxStored, outlookAccessLife),
		refresh: map[string]outlookRefresh{}, agreed: map[string][]string{}, approved: map[string][]string{}}
	page := func(f func(http.ResponseWriter, *http.Request) error) http.Handler {
		return templates.page("The pretend Microsoft", f)
	}
	login := http.NewServeMux()
	login.Handle("GET "+OutlookAuthorizePath, page(c.ask))
	login.Handle("POST "+OutlookAuthorizePath, page(c.decide))
	login.Handle("GET "+OutlookAdminConsentPath, page(c.approve))
	login.HandleFunc("POST "+OutlookTokenPath, c.token)
	graph := http.NewServeMux()
	graph.HandleFunc("GET "+CalendarViewPath, c.calendarView)
	graph.HandleFunc("POST "+GetSchedulePath, c.getSchedule)
	graph.HandleFunc("/", c.nothing)
	c.mux.Handle("GET "+MarkPath, templates.mark())
	c.mux.Handle("GET /{$}", page(func(w http.ResponseWriter, _ *http.Request) error {
		return templates.message(w, http.StatusOK, "A pretend Microsoft",
			"Open the app instead; it sends you here when you connect a calendar.")
	}))
	// One mux for both would not say which path of a tenant and of Graph comes first.
	c.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1.0/") {
			graph.ServeHTTP(w, r)
			return
		}
		login.ServeHTTP(w, r)
	})
	return c, nil
}

// ServeHTTP refuses every Host but that of the origin, as Provider does.
func (c *OutlookCalendar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Host, c.host) {
		http.Error(w, "The pretend Microsoft answers only as "+c.opts.Origin+".", http.StatusMisdirectedRequest)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	c.mux.ServeHTTP(w, r)
}

// Account is by which tenant and which object Microsoft knows a person.
func (c *OutlookCalendar) Account(person string) (tenant, object string) {
	who, _ := find(c.opts.People, person)
	return who.tenant(), guid(who.Key)
}

// Agree has a person agree to scopes for a client, by whatever way.
func (c *OutlookCalendar) Agree(person, client string, scopes ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := person + " " + client
	c.agreed[key] = union(c.agreed[key], scopes)
}

// TakeBack is what a person does on the page of their account: nothing is agreed to for a
// client any more, but tokens stay.
func (c *OutlookCalendar) TakeBack(person, client string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.agreed, person+" "+client)
}

// ChangePassword ends all refresh tokens of a person, as another password does.
func (c *OutlookCalendar) ChangePassword(person string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for token, r := range c.refresh {
		r.over = r.over || r.person.Key == person
		c.refresh[token] = r
	}
}

// ChangeSecret gives a client another secret, and the old one is over.
func (c *OutlookCalendar) ChangeSecret(client, secret string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.opts.Clients {
		if c.opts.Clients[i].ID == client {
			c.opts.Clients[i].Secret = secret
		}
	}
}

// EndAccessTokens ends all access tokens before their time, and no refresh token.
func (c *OutlookCalendar) EndAccessTokens() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.access.dropIf(func(outlookGrant) bool { return true })
}

// Scopes are what an access token is good for.
func (c *OutlookCalendar) Scopes(access string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g, ok := c.access.get(c.opts.Now(), access); ok {
		return slices.Clone(g.scope)
	}
	return nil
}

// Forms are what the token endpoint was sent.
func (c *OutlookCalendar) Forms() []url.Values { return locked(&c.mu, &c.forms) }

// Asked are the requests that came to Graph: a method, a blank and a target.
func (c *OutlookCalendar) Asked() []string { return locked(&c.mu, &c.asked) }

func locked[T any](mu *sync.Mutex, list *[]T) []T {
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(*list)
}

// client is that of an id. The caller does the locking.
func (c *OutlookCalendar) client(id string) (CalendarClient, bool) {
	i := slices.IndexFunc(c.opts.Clients, func(c CalendarClient) bool { return c.ID == id })
	if i < 0 {
		return CalendarClient{}, false
	}
	return c.opts.Clients[i], true
}

// outlookRequest is an authorization request that was accepted.
type outlookRequest struct {
	client                            CalendarClient
	tenant, redirect                  string
	state, nonce, challenge, selected string
	scope                             []string
}

// readRequest checks an authorization request. What is wrong is shown there, and nobody is
// sent back.
func (c *OutlookCalendar) readRequest(r *http.Request) (outlookRequest, error) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return outlookRequest{}, &pageError{http.StatusBadRequest, "The request's query is malformed."}
	}
	for name := range v {
		if _, err := single(v, name); err != nil {
			return outlookRequest{}, &pageError{http.StatusBadRequest, "A parameter is too long, or there twice."}
		}
	}
	c.mu.Lock()
	client, known := c.client(v.Get("client_id"))
	c.mu.Unlock()
	q := outlookRequest{client: client, tenant: r.PathValue("tenant"), redirect: v.Get("redirect_uri"),
		state: v.Get("state"), nonce: v.Get("nonce"), challenge: v.Get("code_challenge"), selected: v.Get("login_hint"),
		scope: shortScopes(v.Get("scope"))}
	switch {
	case !known:
		return q, &pageError{http.StatusBadRequest, "AADSTS700016: this application is not known here."}
	case !slices.Contains(client.RedirectURIs, q.redirect):
		return q, &pageError{http.StatusBadRequest, "AADSTS50011: the redirect URI is not one of the application's."}
	case v.Get("response_type") != "code" || v.Get("code_challenge_method") != "S256" || !isChallenge(q.challenge),
		q.nonce == "", len(q.scope) == 0:
		return q, &pageError{http.StatusBadRequest, "AADSTS900144: a parameter is missing."}
	}
	return q, nil
}

// shortScopes are scopes without what Microsoft may write in front of Graph's.
func shortScopes(text string) (list []string) {
	for s := range strings.FieldsSeq(text) {
		list = append(list, strings.TrimPrefix(s, outlookScopes))
	}
	return list
}

func isCalendarScope(scope string) bool { return strings.HasPrefix(scope, "Calendars.") }

// calendarMeanings are what scopes allow, in words.
// https://learn.microsoft.com/graph/permissions-reference
func calendarMeanings() map[string]string {
	return map[string]string{"Calendars.ReadBasic": "See your calendars, without the bodies of events",
		"Calendars.Read": "See your calendars", "Calendars.ReadWrite": "See and change your calendars"}
}

// ask shows the page on which a person chooses an account. There is no choice of scopes.
func (c *OutlookCalendar) ask(w http.ResponseWriter, r *http.Request) error {
	q, err := c.readRequest(r)
	if err != nil {
		return err
	}
	chosen, known := find(c.opts.People, q.selected)
	if !known {
		chosen = c.opts.People[0]
	}
	var scopes []calendarScope
	for _, s := range q.scope {
		if isCalendarScope(s) {
			scopes = append(scopes, calendarScope{s, cmp.Or(calendarMeanings()[s], s)})
		}
	}
	return c.templates.consent(w, consentPage{Client: cmp.Or(q.client.Name, q.client.ID), Origin: originOf(q.redirect),
		People: c.opts.People, Chosen: chosen.Key, SignIn: slices.Contains(q.scope, "openid"), Scopes: scopes,
		Offline: slices.Contains(q.scope, "offline_access")}, append([]string{originOf(q.redirect)}, c.opts.LeadsTo...))
}

// decide handles the form of that page.
func (c *OutlookCalendar) decide(w http.ResponseWriter, r *http.Request) error {
	q, err := c.readRequest(r)
	if err != nil {
		return err
	}
	if !sentBy(c.opts.Origin, r) {
		return &pageError{http.StatusForbidden, "That form was not sent by this page."}
	}
	if err := r.ParseForm(); err != nil {
		return &pageError{http.StatusBadRequest, "The form could not be read."}
	}
	who, ok := find(c.opts.People, r.PostForm.Get("person"))
	switch {
	case !ok:
		return &pageError{http.StatusBadRequest, "No account was chosen."}
	case !admitsTenant(q.tenant, who):
		return &pageError{http.StatusForbidden, "AADSTS50020: this account is none of the tenant."}
	}
	back := url.Values{"state": {q.state}, "session_state": {"7"}}
	if r.PostForm.Get("answer") != "allow" {
		back.Set("error", "access_denied")
		back.Set("error_description", "AADSTS65004: User declined to consent to access the app.\r\nTrace ID: 1")
		return redirect(w, r, q.redirect, back)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	approved := c.approved[q.client.ID]
	if c.opts.AdminOnly && slices.ContainsFunc(q.scope, func(s string) bool {
		return isCalendarScope(s) && !slices.Contains(approved, s)
	}) {
		back.Set("error", "access_denied")
		back.Set("error_description", "AADSTS90094: The grant requires admin permission.\r\nTrace ID: 1")
		return redirect(w, r, q.redirect, back)
	}
	code, key := "0.A"+random(), who.Key+" "+q.client.ID
	c.agreed[key] = union(c.agreed[key], q.scope)
	c.codes.put(c.opts.Now(), code, outlookGrant{person: who, client: q.client.ID, scope: q.scope,
		challenge: q.challenge, nonce: q.nonce, redirect: q.redirect})
	back.Set("code", code)
	return redirect(w, r, q.redirect, back)
}

// approve is an administrator of the first person's tenant who agrees for all of it. There is
// no such thing for all tenants at once.
// https://learn.microsoft.com/entra/identity-platform/v2-admin-consent
func (c *OutlookCalendar) approve(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	tenant := r.PathValue("tenant")
	c.mu.Lock()
	defer c.mu.Unlock()
	client, known := c.client(q.Get("client_id"))
	scopes := shortScopes(q.Get("scope"))
	if !known || !slices.Contains(client.RedirectURIs, q.Get("redirect_uri")) || tenant == "common" ||
		tenant == "consumers" || !strings.Contains(q.Get("scope"), outlookScopes) {
		return &pageError{http.StatusBadRequest, "AADSTS50011: nobody can agree to that."}
	}
	c.approved[client.ID] = union(c.approved[client.ID], scopes)
	return redirect(w, r, q.Get("redirect_uri"), url.Values{"admin_consent": {"True"},
		"tenant": {c.opts.People[0].tenant()}, "state": q["state"]})
}

// entraError is how the token endpoint refuses: with a number, in a list and in front of a
// text.
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes
type entraError struct {
	status int
	code   string
	number int
}

func (e *entraError) Error() string { return fmt.Sprintf("%s (%d)", e.code, e.number) }

func invalidGrant(number int) error {
	return &entraError{http.StatusBadRequest, "invalid_grant", number}
}

func (c *OutlookCalendar) token(w http.ResponseWriter, r *http.Request) {
	answer, err := c.issue(r)
	if err == nil {
		_ = writeJSON(w, http.StatusOK, answer) // the client has gone
		return
	}
	e, ok := errors.AsType[*entraError](err)
	if !ok {
		e = &entraError{http.StatusBadRequest, "invalid_request", 900144}
	}
	_ = writeJSON(w, e.status, map[string]any{"error": e.code, "error_codes": []int{e.number},
		"error_description": fmt.Sprintf("AADSTS%d: It is refused.\r\nTrace ID: 0", e.number),
		"timestamp":         c.opts.Now().UTC().Format("2006-01-02 15:04:05Z"), "trace_id": guid("trace"),
		"correlation_id": guid("correlation")})
}

// issue redeems a code or a refresh token.
func (c *OutlookCalendar) issue(r *http.Request) (map[string]any, error) {
	form, err := readTokenForm(r)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forms = append(c.forms, form)
	client, known := c.client(form.Get("client_id"))
	if !known || !equal(form.Get("client_secret"), client.Secret) {
		return nil, &entraError{http.StatusUnauthorized, "invalid_client", 7000215}
	}
	var g outlookGrant
	switch form.Get("grant_type") {
	case "authorization_code":
		g, err = c.redeem(client, form)
	case "refresh_token":
		g, err = c.refreshed(client, form.Get("refresh_token"))
	default:
		err = &entraError{http.StatusBadRequest, "unsupported_grant_type", 70003}
	}
	if err != nil {
		return nil, err
	}
	agreed := c.agreed[g.person.Key+" "+client.ID]
	if g.scope = shortScopes(form.Get("scope")); len(g.scope) == 0 {
		g.scope = agreed
	}
	if slices.ContainsFunc(g.scope, func(s string) bool { return !slices.Contains(agreed, s) }) {
		return nil, invalidGrant(65001)
	}
	return c.answer(g)
}

// redeem uses a code up. The caller does the locking.
func (c *OutlookCalendar) redeem(client CalendarClient, form url.Values) (outlookGrant, error) {
	code := form.Get("code")
	if slices.Contains(c.redeemed, code) {
		return outlookGrant{}, invalidGrant(54005)
	}
	kept, ok := c.codes.get(c.opts.Now(), code)
	if !ok || kept.client != client.ID || kept.redirect != form.Get("redirect_uri") {
		return outlookGrant{}, invalidGrant(70008)
	}
	if !verifies(form.Get("code_verifier"), kept.challenge) {
		return outlookGrant{}, invalidGrant(501481)
	}
	g := *kept
	c.codes.drop(code)
	c.redeemed = append(c.redeemed, code)
	return g, nil
}

// refreshed is whom a refresh token is of. The caller does the locking.
func (c *OutlookCalendar) refreshed(client CalendarClient, token string) (outlookGrant, error) {
	switch r, known := c.refresh[token]; {
	case !known || r.client != client.ID:
		return outlookGrant{}, invalidGrant(9002313)
	case r.over:
		return outlookGrant{}, invalidGrant(50173)
	default:
		return outlookGrant{person: r.person, client: client.ID}, nil
	}
}

// answer issues tokens. The caller does the locking.
func (c *OutlookCalendar) answer(g outlookGrant) (map[string]any, error) {
	now, life := c.opts.Now(), int(outlookAccessLife.Seconds())-1
	access := "EwB" + random()
	c.access.put(now, access, g)
	tenant := g.person.tenant()
	claims := map[string]any{"iss": outlookIssuer + tenant + "/v2.0", "aud": g.client, "tid": tenant, "ver": "2.0",
		"sub": guid("pairwise " + g.person.Key), "oid": guid(g.person.Key), "preferred_username": g.person.Email,
		"name": g.person.Name, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	if g.nonce != "" {
		claims["nonce"] = g.nonce
	}
	id, err := c.key.sign(nil, claims)
	if err != nil {
		return nil, err
	}
	var said []string
	for _, s := range g.scope {
		if isCalendarScope(s) {
			s = outlookScopes + s
		}
		if s != "offline_access" {
			said = append(said, s)
		}
	}
	answer := map[string]any{"token_type": "Bearer", "access_token": access, "expires_in": life,
		"ext_expires_in": life, "id_token": id, "scope": strings.Join(said, " ")}
	if slices.Contains(g.scope, "offline_access") {
		token := "0.A" + random() // the old one stays good
		c.refresh[token] = outlookRefresh{person: g.person, client: g.client}
		answer["refresh_token"] = token
	}
	return answer, nil
}
