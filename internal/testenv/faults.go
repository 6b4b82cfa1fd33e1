package testenv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"

	"github.com/sallyport-proxy/sallyport/internal/demo"
)

// The names of the provider's endpoints.
const (
	Discovery  = "discovery"
	Authorize  = "authorize"
	Token      = "token"
	Userinfo   = "userinfo"
	JWKS       = "jwks"
	EndSession = "end_session"

	Organization = "organization" // of Microsoft's Graph
	Me           = "me"
	Keys         = "keys" // the key set that PagerDuty's key document points to

	// Of the pretend Google, beside authorize, token and jwks:
	Revoke       = "revoke"
	Customer     = "customer"
	FreeBusy     = "freeBusy"
	Events       = "events"
	CalendarList = "calendarList"

	// Of the pretend PagerDuty, beside authorize, token, jwks and keys:
	UsersMe   = "users/me"
	Abilities = "abilities"
	OnCalls   = "oncalls"

	// Of the pretend GitHub, beside authorize and token. Revoke deletes a token there.
	User        = "user"
	UserEmails  = "user/emails"
	Memberships = "user/memberships/orgs"
	Teams       = "user/teams"
)

// Fault says how one endpoint misbehaves. Several fields can be set: they change the
// provider's answer in their order here.
type Fault struct {
	Endpoint string
	Times    int // how many answers have the fault; 0 means all

	Before func(*demo.Provider) // runs first, for example to rotate the keys; nil where it is no provider

	// Instead of asking the provider:
	Stall    bool   // no answer until the client gives up
	Redirect string // a redirect to this address, with Status or 302
	Status   int    // 4xx, 5xx with Body, or with an OAuth error if Body is empty
	Body     string // this body, with Status or 200

	// To the provider's answer:
	Claims func(claims map[string]any) // changes the ID token, which is signed again
	Resign Signer                      // signs the ID token in another way
	JSON   func(answer map[string]any) // changes the JSON, such as discovery or the key set

	// To whatever is sent:
	Header      map[string]string
	ContentType string
	Pad         int  // how many spaces come before the body; it is still valid JSON
	Truncate    bool // half of the body is sent, then the connection breaks
	Lose        bool // nothing is sent: the connection breaks when the answer is there
}

func (f Fault) instead() bool { return f.Redirect != "" || f.Status != 0 || f.Body != "" }

// Faults is a provider, or another handler, that misbehaves in the ways that are set. Without
// any it behaves as what it wraps does. It is safe for concurrent use.
type Faults struct {
	Provider *demo.Provider        // what is wrapped, if it is one
	Calendar *demo.GoogleCalendar  // likewise
	Slack    *demo.SlackWorkspaces // likewise
	OnCall   *demo.OnCall          // likewise
	Outlook  *demo.OutlookCalendar // likewise
	URL      string                // of the server, when one of the functions below started one

	handler http.Handler
	done    chan struct{} // closed when stalled answers must end

	mu       sync.Mutex // guards all below
	faults   []Fault
	left     []int // how often each fault will still happen
	requests map[string][]Request
	answers  map[string][]string
}

var _ http.Handler = (*Faults)(nil)

// NewFaults wraps h: a *demo.Provider, a *demo.GoogleCalendar, or another handler with
// endpoints at the paths of theirs.
func NewFaults(h http.Handler) *Faults {
	f := &Faults{handler: h, done: make(chan struct{}),
		requests: map[string][]Request{}, answers: map[string][]string{}}
	f.Provider, _ = h.(*demo.Provider)
	f.Calendar, _ = h.(*demo.GoogleCalendar)
	f.Slack, _ = h.(*demo.SlackWorkspaces)
	f.OnCall, _ = h.(*demo.OnCall)
	f.Outlook, _ = h.(*demo.OutlookCalendar)
	return f
}

// StartProvider serves a demo provider on loopback until the test ends. The
// Issuer of o is filled in.
func StartProvider(tb TB, o demo.ProviderOptions) *Faults {
	tb.Helper()
	return startFaults(tb, func(origin string) (http.Handler, error) {
		o.Issuer = origin
		return demo.NewProvider(o)
	})
}

// StartCalendar serves a pretend Google on loopback until the test ends. The Origin of o is
// filled in.
func StartCalendar(tb TB, o demo.CalendarOptions) *Faults {
	tb.Helper()
	return startFaults(tb, func(origin string) (http.Handler, error) {
		o.Origin = origin
		return demo.NewGoogleCalendar(o)
	})
}

// StartSlack serves a pretend Slack on loopback until the test ends. The Origin of o is filled
// in. Its endpoints are called as the methods of its API are, but for Authorize and Token.
func StartSlack(tb TB, o demo.SlackOptions) *Faults {
	tb.Helper()
	return startFaults(tb, func(origin string) (http.Handler, error) {
		o.Origin = origin
		return demo.NewSlackWorkspaces(o)
	})
}

// StartOnCall serves a pretend PagerDuty on loopback until the test ends. The Origin of o is
// filled in.
func StartOnCall(tb TB, o demo.OnCallOptions) *Faults {
	tb.Helper()
	return startFaults(tb, func(origin string) (http.Handler, error) {
		o.Origin = origin
		return demo.NewOnCall(o)
	})
}

// StartOutlook serves a pretend Microsoft on loopback until the test ends. The Origin of o is
// filled in.
func StartOutlook(tb TB, o demo.OutlookOptions) *Faults {
	tb.Helper()
	return startFaults(tb, func(origin string) (http.Handler, error) {
		o.Origin = origin
		return demo.NewOutlookCalendar(o)
	})
}

func startFaults(tb TB, handler func(origin string) (http.Handler, error)) *Faults {
	tb.Helper()
	srv := httptest.NewUnstartedServer(nil)
	origin := "http://" + srv.Listener.Addr().String()
	h, err := handler(origin)
	if err != nil {
		tb.Fatalf("start the provider: %v", err)
	}
	f := NewFaults(h)
	f.URL, srv.Config.Handler = origin, f
	srv.Start()
	tb.Cleanup(srv.Close)
	tb.Cleanup(func() { close(f.done) }) // runs before Close, which waits for answers
	return f
}

// Set replaces all faults, so that one line of a test says what is wrong. Without arguments
// it removes all faults.
func (f *Faults) Set(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults, f.left = faults, make([]int, len(faults))
	for i, fault := range faults {
		if f.left[i] = fault.Times; fault.Times == 0 {
			f.left[i] = math.MaxInt
		}
	}
}

// Hits reports how often an endpoint was asked.
func (f *Faults) Hits(endpoint string) int { return len(f.Requests(endpoint)) }

// Requests returns what an endpoint was asked.
func (f *Faults) Requests(endpoint string) []Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Request(nil), f.requests[endpoint]...)
}

// Answers returns the bodies that an endpoint answered with, whole even if the
// connection broke.
func (f *Faults) Answers(endpoint string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.answers[endpoint]...)
}

// endpointOf: some kinds of providers have a tenant before the path of each.
func endpointOf(path string) string {
	if strings.HasPrefix(path, demo.GitHubAPI+demo.GitHubRevokePath) {
		return Revoke
	}
	for end, name := range map[string]string{
		demo.DiscoveryPath: Discovery, demo.AuthorizePath: Authorize, demo.TokenPath: Token,
		demo.UserinfoPath: Userinfo, demo.JWKSPath: JWKS, demo.EndSessionPath: EndSession,
		demo.OrganizationPath: Organization, demo.MePath: Me, demo.KeysPath: Keys,
		demo.GoogleAuthorizePath: Authorize, demo.GoogleCertsPath: JWKS, demo.GoogleRevokePath: Revoke,
		demo.GoogleCustomerPath: Customer,
		demo.FreeBusyPath:       FreeBusy, demo.CalendarListPath: CalendarList, "/events": Events,
		demo.SlackTokenPath: Token, demo.GitHubTokenPath: Token,
		demo.GitHubUserPath: User, demo.GitHubEmailsPath: UserEmails,
		demo.GitHubMembershipsPath: Memberships, demo.GitHubTeamsPath: Teams,
		"/users/me": UsersMe, "/abilities": Abilities, "/oncalls": OnCalls,
	} {
		if strings.HasSuffix(path, end) {
			return name
		}
	}
	if method, ok := strings.CutPrefix(path, demo.SlackAPIPath); ok {
		return method
	}
	return ""
}

func (f *Faults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	endpoint := endpointOf(r.URL.Path)
	req, err := record(r)
	if err != nil {
		return // the client broke off
	}
	answer := httptest.NewRecorder()
	faults := f.begin(endpoint, req)
	for _, fault := range faults {
		if fault.Before != nil {
			fault.Before(f.Provider)
		}
		if fault.Stall {
			f.stall(r)
			panic(http.ErrAbortHandler) // net/http's way to break a connection
		}
	}
	if !insteadOfProvider(answer, faults) {
		f.handler.ServeHTTP(answer, r)
	}
	if err := f.bend(answer, faults); err != nil {
		http.Error(w, "testenv: "+err.Error(), http.StatusNotImplemented) // a fault that makes no sense here
		return
	}
	f.mu.Lock()
	f.answers[endpoint] = append(f.answers[endpoint], answer.Body.String())
	f.mu.Unlock()
	send(w, answer, faults)
}

// begin counts the request and takes the faults that apply to it.
func (f *Faults) begin(endpoint string, req Request) []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests[endpoint] = append(f.requests[endpoint], req)
	var out []Fault
	for i, fault := range f.faults {
		if fault.Endpoint == endpoint && f.left[i] > 0 {
			f.left[i]--
			out = append(out, fault)
		}
	}
	return out
}

func (f *Faults) stall(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-f.done:
	}
}

func insteadOfProvider(w *httptest.ResponseRecorder, faults []Fault) bool {
	for _, fault := range faults {
		if !fault.instead() {
			continue
		}
		status, body := fault.Status, fault.Body
		if fault.Redirect != "" {
			w.Header().Set("Location", fault.Redirect)
			if status == 0 {
				status = http.StatusFound
			}
		}
		if body == "" && status >= 400 {
			body = `{"error":"temporarily_unavailable","error_description":"a fault"}`
		}
		if status == 0 {
			status = http.StatusOK
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		w.Body.WriteString(body)
		return true
	}
	return false
}

// bend changes the JSON of a successful answer.
func (f *Faults) bend(answer *httptest.ResponseRecorder, faults []Fault) error {
	for _, fault := range faults {
		if fault.Claims == nil && fault.Resign == nil && fault.JSON == nil {
			continue
		}
		if answer.Code != http.StatusOK {
			return nil // the provider refused, so there is nothing to change
		}
		var v map[string]any
		if err := decode(answer.Body.Bytes(), &v); err != nil {
			return fmt.Errorf("the answer of %s is no JSON object: %w", fault.Endpoint, err)
		}
		if err := f.bendToken(v, fault); err != nil {
			return err
		}
		if fault.JSON != nil {
			fault.JSON(v)
		}
		body, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode the bent answer: %w", err)
		}
		answer.Body = bytes.NewBuffer(body)
	}
	return nil
}

func (f *Faults) bendToken(answer map[string]any, fault Fault) error {
	if fault.Claims == nil && fault.Resign == nil {
		return nil
	}
	token, _ := answer["id_token"].(string)
	header, claims, err := parseJWT(token)
	if err != nil {
		return err
	}
	if fault.Claims != nil {
		fault.Claims(claims)
	}
	switch signs, ok := f.handler.(interface {
		Sign(header, claims map[string]any) (string, error)
	}); {
	case fault.Resign != nil:
		answer["id_token"], err = fault.Resign(f.Provider, header, claims)
	case ok:
		delete(header, "kid") // Sign knows the current one
		answer["id_token"], err = signs.Sign(header, claims)
	default:
		err = errors.New("the handler signs nothing")
	}
	return err
}

// decode keeps numbers as they are written.
func decode(raw []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return d.Decode(v)
}

func send(w http.ResponseWriter, answer *httptest.ResponseRecorder, faults []Fault) {
	h, body, truncate := w.Header(), answer.Body.Bytes(), false
	maps.Copy(h, answer.Header())
	for _, fault := range faults {
		if fault.Lose {
			panic(http.ErrAbortHandler) // net/http's way to break a connection
		}
		for name, v := range fault.Header {
			h.Set(name, v)
		}
		if fault.ContentType != "" {
			h.Set("Content-Type", fault.ContentType)
		}
		if fault.Pad > 0 {
			body = append(bytes.Repeat([]byte(" "), fault.Pad), body...)
		}
		truncate = truncate || fault.Truncate
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(answer.Code)
	if !truncate {
		_, _ = io.Copy(w, bytes.NewReader(body)) // a client that stops reading is what some tests want
		return
	}
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler) // net/http's way to break a connection
}

// With returns a function that sets one member.
func With(name string, value any) func(map[string]any) {
	return func(m map[string]any) { m[name] = value }
}

// Without returns a function that removes members.
func Without(names ...string) func(map[string]any) {
	return func(m map[string]any) {
		for _, name := range names {
			delete(m, name)
		}
	}
}
