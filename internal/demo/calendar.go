package demo

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Paths of the pretend Google. Google serves them on several hosts: accounts.google.com,
// oauth2.googleapis.com and www.googleapis.com.
// https://developers.google.com/identity/openid-connect/reference
const (
	GoogleAuthorizePath = "/o/oauth2/v2/auth"
	GoogleTokenPath     = "/token"
	GoogleRevokePath    = "/revoke"
	GoogleCertsPath     = "/oauth2/v3/certs"
	CalendarPath        = "/calendar/v3" // the prefix of the three below
	FreeBusyPath        = CalendarPath + "/freeBusy"
	CalendarListPath    = CalendarPath + "/users/me/calendarList"
	EventsPath          = CalendarPath + "/calendars/{id}/events"
)

const (
	accessLife = time.Hour
	// maxRefresh: a further one ends the oldest, without a word.
	// https://developers.google.com/identity/protocols/oauth2#expiration
	maxRefresh = 100
)

// CalendarOptions configure a GoogleCalendar.
type CalendarOptions struct {
	Origin string // on loopback, such as http://127.0.0.1:4191
	Issuer string // iss of ID tokens and of authorization responses; "": Origin
	Title  string // the heading of its pages; "": Pretend Google
	// Clients are all of one Google project: what a person takes back from one of them is
	// taken back from all.
	Clients []CalendarClient
	LeadsTo []string // as ProviderOptions has it
	People  []Person // nil: People()
	// RefreshLife ends refresh tokens after a time, and says so in refresh_token_expires_in, as
	// Google does where a project is in testing (7 days); 0: they do not end by themselves.
	RefreshLife time.Duration
	Now         func() time.Time
}

// CalendarClient is a client of the pretend Google.
type CalendarClient struct {
	ID, Secret   string
	Name         string   // for people; "": the ID
	RedirectURIs []string // compared byte for byte
}

// GoogleCalendar is an http.Handler that behaves as Google does to an app that people lend
// their calendars to: its authorization server, and of its Calendar API what
// `type: google_calendar` and the demo need. Serve it under its Origin.
//
//	GET  /o/oauth2/v2/auth   → a page to choose an account and what it may be used for
//	POST /o/oauth2/v2/auth   → 303 to the client with code, state and iss
//	POST /token              → access token, scope; perhaps a refresh token, an ID token
//	POST /revoke             → everything that the person granted to the project has ended
//	GET  /oauth2/v3/certs
//	POST /calendar/v3/freeBusy
//	GET  /calendar/v3/users/me/calendarList
//	GET  /calendar/v3/calendars/{id}/events
//	POST /calendar/v3/calendars/{id}/events
//
// As at Google, a person may leave out some of several scopes, a refresh token comes only
// with access_type=offline and then only at the first consent or with prompt=consent, and
// refreshing does not change it. The sources are
// https://developers.google.com/identity/protocols/oauth2/web-server and
// https://developers.google.com/workspace/calendar/api/v3/reference; what is written
// nowhere there is kept to what RFC 6749 says. It keeps no session, so the page is shown
// each time.
type GoogleCalendar struct {
	opts      CalendarOptions
	host      string
	templates *templates
	mux       *http.ServeMux
	key       *signingKey

	mu       sync.Mutex // guards all below
	codes    *codeStore[calendarGrant]
	access   *codeStore[calendarGrant]
	refresh  []calendarGrant            // the oldest first
	consents map[string]calendarConsent // by the key of the person
	written  map[string][]calendarEvent // events that were inserted, by the key of the person
}

// calendarGrant is what one code, access token or refresh token stands for.
type calendarGrant struct {
	person    Person
	client    string
	scope     []string
	token     string // of a refresh token
	until     time.Time
	challenge string // these are a code's
	nonce     string
	redirect  string
	offline   bool
}

// calendarConsent is what a person has granted to the project so far.
type calendarConsent struct {
	scope   []string
	offline []string // the clients that had a refresh token
}

var _ http.Handler = (*GoogleCalendar)(nil)

// NewGoogleCalendar makes a GoogleCalendar with a new key. It refuses an origin that is not
// on loopback, as NewProvider does.
func NewGoogleCalendar(o CalendarOptions) (*GoogleCalendar, error) {
	host, err := loopbackOrigin(o.Origin)
	if err != nil {
		return nil, fmt.Errorf("pretend Google: origin %q: %w", o.Origin, err)
	}
	for _, c := range o.Clients {
		if _, err := (ProviderOptions{ClientID: c.ID, ClientSecret: c.Secret, RedirectURIs: c.RedirectURIs}).
			complete(); err != nil {
			return nil, fmt.Errorf("pretend Google: %w", err)
		}
	}
	if o.Issuer == "" {
		o.Issuer = o.Origin
	}
	if o.Title == "" {
		o.Title = "Pretend Google"
	}
	if o.People == nil {
		o.People = People()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	key, err := newSigningKey()
	if err != nil {
		return nil, fmt.Errorf("pretend Google: %w", err)
	}
	templates, err := newTemplates(o.Title)
	if err != nil {
		return nil, fmt.Errorf("pretend Google: %w", err)
	}
	g := &GoogleCalendar{opts: o, host: host, templates: templates, mux: http.NewServeMux(), key: key,
		codes:    newCodeStore[calendarGrant](maxStored, codeLife),
		access:   newCodeStore[calendarGrant](maxStored, accessLife),
		consents: map[string]calendarConsent{}, written: map[string][]calendarEvent{}}
	g.routes()
	return g, nil
}

func (g *GoogleCalendar) routes() {
	page := func(f func(http.ResponseWriter, *http.Request) error) http.Handler {
		return g.templates.page("The pretend Google", f)
	}
	g.mux.Handle("GET "+MarkPath, g.templates.mark())
	g.mux.Handle("GET "+GoogleAuthorizePath, page(g.ask))
	g.mux.Handle("POST "+GoogleAuthorizePath, page(g.decide))
	g.mux.Handle("POST "+GoogleTokenPath, g.endpoint(g.token))
	g.mux.Handle("POST "+GoogleRevokePath, g.endpoint(g.revoke))
	g.mux.Handle("GET "+GoogleCertsPath, g.endpoint(func(w http.ResponseWriter, _ *http.Request) error {
		return writeJSON(w, http.StatusOK, g.keys())
	}))
	for _, m := range g.apiMethods() {
		g.mux.Handle(m.pattern, g.serve(m))
	}
	g.mux.Handle("GET /{$}", page(func(w http.ResponseWriter, _ *http.Request) error {
		return g.templates.message(w, http.StatusOK, "A pretend Google",
			"Open the app instead; it sends you here when you connect a calendar.")
	}))
}

// ServeHTTP refuses every Host but that of the origin, as Provider does.
func (g *GoogleCalendar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Host, g.host) {
		http.Error(w, "The pretend Google answers only as "+g.opts.Origin+".", http.StatusMisdirectedRequest)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	g.mux.ServeHTTP(w, r)
}

// TakeBack is what a person does on the page of their account at Google: all grants of
// theirs to the project end.
// https://developers.google.com/identity/protocols/oauth2/web-server#tokenrevoke
func (g *GoogleCalendar) TakeBack(person string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	of := func(x calendarGrant) bool { return x.person.Key == person }
	g.codes.dropIf(of)
	g.access.dropIf(of)
	g.refresh = slices.DeleteFunc(g.refresh, of)
	delete(g.consents, person)
}

// EndAccessTokens ends all access tokens before their time, and no refresh token.
func (g *GoogleCalendar) EndAccessTokens() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.access.dropIf(func(calendarGrant) bool { return true })
}

// RefreshTokens is how many refresh tokens of a person still work.
func (g *GoogleCalendar) RefreshTokens(person string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, x := range g.refresh {
		if x.person.Key == person && g.lasts(x) {
			n++
		}
	}
	return n
}

// Written is how many events apps have written into a person's calendar.
func (g *GoogleCalendar) Written(person string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.written[person])
}

// Subject is the sub of a person's account.
func (g *GoogleCalendar) Subject(person string) string { return numericID(person) }

// Sign signs claims as Provider.Sign does.
func (g *GoogleCalendar) Sign(header, claims map[string]any) (string, error) {
	return g.key.sign(header, claims)
}

// lasts: the caller does the locking.
func (g *GoogleCalendar) lasts(x calendarGrant) bool {
	return x.until.IsZero() || g.opts.Now().Before(x.until)
}

func (g *GoogleCalendar) client(id string) (CalendarClient, bool) {
	i := slices.IndexFunc(g.opts.Clients, func(c CalendarClient) bool { return c.ID == id })
	if i < 0 {
		return CalendarClient{}, false
	}
	return g.opts.Clients[i], true
}

// endpoint turns an error into the JSON of RFC 6749 §5.2.
func (g *GoogleCalendar) endpoint(f func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := f(w, r)
		if err == nil {
			return
		}
		var o *oauthError
		if !errors.As(err, &o) {
			o = &oauthError{http.StatusInternalServerError, "internal_failure", "the pretend Google failed"}
		}
		// An error means that the client has gone.
		_ = writeJSON(w, o.status, map[string]string{"error": o.code, "error_description": o.text})
	})
}

// back sends the browser to the client. iss is there because Google's discovery document
// says so (authorization_response_iss_parameter_supported, RFC 9207).
func (g *GoogleCalendar) back(w http.ResponseWriter, r *http.Request, q calendarRequest, params url.Values) error {
	params.Set("iss", g.opts.Issuer)
	if q.state != "" {
		params.Set("state", q.state)
	}
	return redirect(w, r, q.redirect, params)
}
