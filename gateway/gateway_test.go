package gateway_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/gateway"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

const appToken = "app-token-app-token-app-token-0123456789"

// third is a third party: where its API is, and how its refreshes go.
type third struct {
	origin    string
	issued    atomic.Int64
	refreshes atomic.Int64
	fail      atomic.Pointer[grant.Error]
}

func rules(t testing.TB, texts ...string) (list []grant.Rule) {
	t.Helper()
	for _, text := range texts {
		r, err := grant.ParseRule(text)
		testenv.Check(t, err)
		list = append(list, r)
	}
	return list
}

type connected struct {
	*third
	about grant.About
}

func (c connected) About() grant.About                                        { return c.about }
func (c connected) Origin(grant.Account) string                               { return c.origin }
func (c connected) Issuer() string                                            { return "" }
func (c connected) AuthURL(identity.Handshake, grant.Request) (string, error) { return "", nil }

func (c connected) issue() grant.Tokens {
	n := c.issued.Add(1)
	return grant.Tokens{Access: fmt.Sprintf("canary/access-%d", n), AccessIssued: time.Now(),
		AccessExpires: time.Now().Add(time.Hour), Refresh: fmt.Sprintf("canary-refresh-%d", n)}
}

func (c connected) Redeem(
	_ context.Context, _ url.Values, _ identity.Handshake, r grant.Request,
) (grant.Result, error) {
	account := grant.Account{ID: "1", Name: "ann@calendar.test"}
	return grant.Result{Tokens: c.issue(), Account: account, Scopes: r.Scopes}, nil
}

func (c connected) Refresh(context.Context, grant.Tokens, []string) (grant.Result, error) {
	c.refreshes.Add(1)
	if err := c.fail.Load(); err != nil {
		return grant.Result{}, err
	}
	return grant.Result{Tokens: c.issue()}, nil
}

type events chan observe.Event

func (e events) Observe(_ context.Context, ev *observe.Event) { e <- *ev }

type rig struct {
	testing.TB
	third    *third
	broker   *grant.Broker
	sessions *session.Manager
	signer   *assertion.Signer
	signedIn session.Session
	url      string
	events   events
	log      *bytes.Buffer
	client   http.RoundTripper // of ask
}

var ann = identity.Identity{Provider: "google", Subject: "ann", Email: "ann@acme.test", EmailVerified: true}

func newRig(t testing.TB, origin string, change ...func(*gateway.Options)) *rig {
	t.Helper()
	r, g := newGateway(t, origin, nil, change...)
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	r.url, r.client = s.URL, &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	return r
}

// newGateway is a rig whose gateway nobody serves yet. The transport reaches the third party;
// nil: the usual one.
func newGateway(t testing.TB, origin string, transport *http.Transport, change ...func(*gateway.Options)) (
	*rig, *gateway.Gateway) {
	t.Helper()
	r := &rig{TB: t, third: &third{origin: origin}, events: make(events, 100), log: &bytes.Buffer{}}
	c := connected{r.third, grant.About{ID: "calendar", Name: "Calendar", ClientID: "client", Owner: grant.OwnedByUser,
		Offline: true, Resend: true, Refresh: "https://login.test", Revoke: "https://login.test", Inject: grant.Injection{Header: "Authorization", Prefix: "Bearer "},
		Forward: []string{"x-goog-fieldmask"}, TokenQuery: []string{"oauth_token"},
		Accesses: []grant.Access{
			{Name: "freebusy", Scopes: []string{"busy"}, Rules: rules(t, "GET /calendars/*/busy", "POST /freeBusy")},
			{Name: "events", Scopes: []string{"events"}, Rules: rules(t, "GET /events/*", "DELETE /events/*")},
		}}}
	k := grant.SealingKey{ID: "k"}
	copy(k.Secret[:], "canary-key")
	ring, err := grant.NewKeyring([]grant.SealingKey{k})
	testenv.Check(t, err)
	r.broker, err = grant.New(grant.Options{Store: granttest.NewStore(nil), Keys: ring,
		Log:    slog.New(slog.NewTextHandler(r.log, nil)),
		Offers: []grant.Offer{{Connector: c, Owner: grant.OwnedByUser, Offered: []string{"freebusy", "events"}}},
		Apps: []grant.App{{ID: "planner", Name: "Planner", Routes: []string{"planner"}, Offline: true,
			Connectors: map[string][]string{"calendar": {"freebusy", "events"}}},
			{ID: "raw", Routes: []string{"raw"}, RawTokens: true,
				Connectors: map[string][]string{"calendar": {"freebusy"}}}},
		Redirect: func(string) string { return "https://sallyport.test/callback" }})
	testenv.Check(t, err)
	t.Cleanup(func() {
		r.broker.Close()
		testenv.Check(t, r.broker.Wait(context.Background()))
	})
	keys, err := session.NewKeyring([]session.Key{session.NewKey(time.Now().Add(-time.Hour))})
	testenv.Check(t, err)
	r.sessions, err = session.New(session.Options{Keys: keys, Secure: true, AbsoluteTimeout: 12 * time.Hour,
		IdleTimeout: time.Hour})
	testenv.Check(t, err)
	r.signer, err = assertion.New(assertion.Options{Issuer: "https://sallyport.test",
		Seeds: [][]byte{bytes.Repeat([]byte{1}, assertion.SeedBytes)}, Signing: func(time.Time) int { return 0 },
		Now: time.Now})
	testenv.Check(t, err)
	r.signedIn = r.sessions.Start(ann)
	public, _ := url.Parse("https://sallyport.test")
	o := gateway.Options{PublicURL: public, Prefix: "/_sallyport/", Broker: r.broker, Assertions: r.signer,
		Sessions: r.sessions, IdleTimeout: time.Hour, Apps: []gateway.App{
			{ID: "planner", Tokens: []string{"old-" + appToken, appToken}, Routes: []string{"planner"},
				Offline: true, Connectors: map[string]*gateway.Connector{
					"calendar": {About: c.about, Accesses: c.about.Accesses}}},
			{ID: "raw", Tokens: []string{"raw-" + appToken}, Routes: []string{"raw"}, RawTokens: true,
				Connectors: map[string]*gateway.Connector{
					"calendar": {About: c.about, Accesses: c.about.Accesses[:1]}}},
			{ID: "other", Tokens: []string{"other-" + appToken}, Routes: []string{"other"}},
		}}
	for _, f := range change {
		f(&o)
	}
	g, err := gateway.New(gateway.NewProcess(gateway.ProcessOptions{Observers: []observe.Observer{r.events,
		observe.Log{Logger: slog.New(slog.NewTextHandler(r.log, nil))}}, Registerer: prometheus.NewRegistry(),
		Transport: transport}), o)
	testenv.Check(t, err)
	return r, g
}

func (r *rig) connect(access ...string) {
	r.Helper()
	r.connectFor(grant.Ask{Connector: "calendar", App: "planner", Access: access})
}

func (r *rig) connectFor(a grant.Ask) {
	r.Helper()
	_, err := r.broker.Connect(r.Context(), ann, a, url.Values{"code": {"c"}},
		identity.Handshake{State: "s", Verifier: "v", Nonce: "n"}, false)
	testenv.Check(r, err)
}

func (r *rig) assertion(route string) string { return r.assertionOf(&ann, route) }

func (r *rig) assertionOf(who *identity.Identity, route string) string {
	r.Helper()
	token, err := r.signer.Sign(assertion.Caller{Key: who.ID(), Identity: who, SID: r.signedIn.SID(),
		End: time.Now().Add(10 * time.Hour)}, route)
	testenv.Check(r, err)
	return token[0]
}

// ask sends a request of the planner for Ann. pairs are further headers; an empty value
// takes one away.
func (r *rig) ask(method, target, body string, pairs ...string) (*http.Response, string) {
	r.Helper()
	res, got, err := r.try(method, target, body, pairs...)
	testenv.Check(r, err)
	return res, got
}

// try is ask where there may be no answer.
func (r *rig) try(method, target, body string, pairs ...string) (*http.Response, string, error) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, r.url, strings.NewReader(body))
	testenv.Check(r, err)
	path, query, _ := strings.Cut(target, "?")
	req.URL.Opaque, req.URL.RawQuery = path, query
	req.Header.Set("Authorization", "Bearer "+appToken)
	req.Header.Set("X-Sallyport-Assertion", r.assertion("planner"))
	for i := 0; i < len(pairs); i += 2 {
		if req.Header.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			req.Header.Del(pairs[i])
		}
	}
	res, err := r.client.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return res, string(b) + " (broken off)", nil
	}
	return res, string(b), nil
}

func problemOf(t testing.TB, res *http.Response, body string) (p struct {
	Type       string   `json:"type"`
	ConnectURL string   `json:"connect_url"`
	Missing    []string `json:"missing"`
	Allowed    []string `json:"allowed"`
},
) {
	t.Helper()
	if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("%d %s: %s", res.StatusCode, got, body)
	}
	testenv.Check(t, json.Unmarshal([]byte(body), &p))
	p.Type = p.Type[strings.LastIndex(p.Type, "/")+1:]
	return p
}

const busy = "/gateway/calendar/calendars/a%40b.test%2F%23x/busy"

func TestP12_AThirdPartyGetsTheAllowedHeadersAndTheCredentialOnly(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	r := newRig(t, peer.URL()+"/v3")
	r.connect("freebusy")
	res, body := r.ask("GET", busy+"?from=1&x=%20", "", "Accept", "application/json", "Cookie", "a=b",
		"User-Agent", "planner/1", "X-Goog-Fieldmask", "id", "X-Forwarded-For", "1.2.3.4", "Traceparent", "00-1-1-00",
		"X-Request-Id", "mine", "X-Custom", "1", "Proxy-Authorization", "Basic eA==", "X-Original-Url", "/other",
		"Via", "1.1 other", "Forwarded", "for=1", "X-Sallyport-User", "x", "Te", "trailers", "Prefer", "a")
	if res.StatusCode != http.StatusOK || body != "ok" {
		t.Fatalf("%d: %s", res.StatusCode, body)
	}
	got := peer.Last(t)
	names := testenv.HeaderNames(got)
	slices.Sort(names)
	want := []string{"Accept", "Accept-Encoding", "Authorization", "Host", "Prefer", "User-Agent", "X-Goog-Fieldmask"}
	if !slices.Equal(names, want) {
		t.Errorf("headers %q, want %q", names, want)
	}
	if line := testenv.RequestLine(got); line != "GET /v3/calendars/a%40b.test%2F%23x/busy?from=1&x=%20 HTTP/1.1" {
		t.Errorf("request line %q", line)
	}
	if got := testenv.HeaderLines(got, "Accept-Encoding"); len(got) != 1 || got[0] != "identity" {
		t.Errorf("what the app did not ask for may be compressed: %q", got)
	}
	lines := testenv.HeaderLines(got, "Authorization")
	if len(lines) != 1 || !strings.HasSuffix(lines[0], "Bearer canary/access-1") {
		t.Errorf("credential %q", lines)
	}
	ev := <-r.events
	if ev.App != "planner" || ev.Connector != "calendar" || ev.Path != "/gateway/calendar/calendars/*/busy" ||
		ev.Door != "gateway" {
		t.Errorf("event %+v", ev)
	}
}

func TestP12_WhatCannotBeJudgedNeverArrives(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	r := newRig(t, peer.URL())
	r.connect("freebusy")
	const post = "/gateway/calendar/freeBusy"
	asJSON := []string{"Content-Type", "application/json"}
	form, large := "application/x-www-form-urlencoded", strings.Repeat("x", 1<<20+1)
	for name, c := range map[string]struct {
		method, target, body string
		status               int
		header               []string
	}{
		"dots":            {"GET", "/gateway/calendar/calendars/../busy", "", 400, nil},
		"encoded dots":    {"GET", "/gateway/calendar/calendars/%2e%2E/busy", "", 400, nil},
		"dots twice":      {"GET", "/gateway/calendar/calendars/%252e%252e/busy", "", 400, nil},
		"dots in one":     {"GET", "/gateway/calendar/calendars/a%2f..%2fb/busy", "", 400, nil},
		"beside a sign":   {"GET", "/gateway/calendar/calendars/%252e%252e%252f%25/busy", "", 400, nil},
		"dots and blank":  {"GET", "/gateway/calendar/calendars/..%20/busy", "", 400, nil},
		"path parameter":  {"GET", "/gateway/calendar/calendars/..;a/busy", "", 400, nil},
		"overlong dots":   {"GET", "/gateway/calendar/calendars/%c0%ae%c0%ae/busy", "", 400, nil},
		"overlong slash":  {"GET", "/gateway/calendar/calendars/a%25c0%25afb/busy", "", 400, nil},
		"empty segment":   {"GET", "/gateway/calendar/calendars//busy", "", 400, nil},
		"slash at end":    {"GET", "/gateway/calendar/calendars/a/busy/", "", 403, nil},
		"two at the end":  {"GET", "/gateway/calendar/calendars/a/busy//", "", 400, nil},
		"backslash":       {"GET", "/gateway/calendar/calendars/a%5cb/busy", "", 400, nil},
		"control":         {"GET", "/gateway/calendar/calendars/a%0ab/busy", "", 400, nil},
		"other template":  {"GET", "/gateway/calendar/calendars/a/other", "", 403, nil},
		"other method":    {"PUT", "/gateway/calendar/calendars/a/busy", "", 403, nil},
		"spelled so":      {"GET", "/gateway/calendar/calendars/a/bus%79", "", 403, nil},
		"no connector":    {"GET", "/gateway/slack/x", "", 404, nil},
		"query token":     {"GET", busy + "?ACCESS%5Ftoken=x", "", 400, nil},
		"after semicolon": {"GET", busy + "?a=1;token=x", "", 400, nil},
		"own name":        {"GET", busy + "?oauth_token=x", "", 400, nil},
		"query method":    {"GET", busy + "?_method=DELETE", "", 400, nil},
		"override":        {"GET", busy, "", 400, []string{"X-HTTP-Method-Override", "DELETE"}},
		"form token":      {"POST", post, "a=b&tok%65n=x", 400, []string{"Content-Type", form}},
		"json token":      {"POST", post, `{"a":{"token":1},"Access_token":1}`, 400, asJSON},
		"escaped name":    {"POST", post, `{"a":[1],"\u0074oken":1}`, 400, asJSON},
		"folded name":     {"POST", post, `{"acceſſ_token":1}`, 400, asJSON},
		"broken json":     {"POST", post, `{"a":1}{"token":1}`, 400, asJSON},
		"multipart token": {"POST", "/gateway/calendar/freeBusy",
			"--b\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\nx\r\n--b--\r\n", 400,
			[]string{"Content-Type", "multipart/form-data; boundary=b"}},
		"batch":        {"POST", post, "--b--", 415, []string{"Content-Type", "multipart/mixed; boundary=b"}},
		"no type":      {"POST", post, "token=x", 415, nil},
		"encoded body": {"POST", post, "x", 415, []string{"Content-Type", form, "Content-Encoding", "gzip"}},
		"large body":   {"POST", post, large, 413, []string{"Content-Type", form}},
	} {
		res, body := r.ask(c.method, c.target, c.body, c.header...)
		if problemOf(t, res, body); res.StatusCode != c.status {
			t.Errorf("%s: %d, want %d: %s", name, res.StatusCode, c.status, body)
		}
	}
	if n := len(peer.Requests()); n != 0 {
		t.Errorf("%d requests arrived: %q", n, peer.Requests())
	}
	const theirs = `{"items":[{"id":"x","token":"theirs"}]}`
	res, body := r.ask("POST", post, theirs, asJSON...)
	if res.StatusCode != 200 || string(testenv.Body(peer.Last(t))) != theirs {
		t.Errorf("a body that may pass: %d %s", res.StatusCode, body)
	}
}

func TestP12_OnlyAProvedAppForAProvedPerson(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	r := newRig(t, peer.URL())
	r.connect("freebusy")
	const as, au, le, pe = "X-Sallyport-Assertion", "Authorization", "X-Sallyport-Lease", "X-Sallyport-Person"
	res, body := r.ask("POST", "/v1/leases", "")
	var lease struct {
		Lease string `json:"lease"`
	}
	if testenv.Check(t, json.Unmarshal([]byte(body), &lease)); res.StatusCode != 201 || lease.Lease == "" {
		t.Fatalf("%d: %s", res.StatusCode, body)
	}
	basic := base64.StdEncoding.EncodeToString([]byte(lease.Lease + ":" + appToken))
	ended := func() {
		testenv.Check(t, r.sessions.EndSignIn(t.Context(), r.signedIn))
	}
	for _, c := range []struct {
		name   string
		status int
		kind   string
		header []string
	}{
		{"the older token", 200, "", []string{au, "Bearer old-" + appToken}},
		{"no app", 401, "app-unknown", []string{au, ""}},
		{"another token", 401, "app-unknown", []string{au, "Bearer x" + appToken}},
		{"nobody", 401, "person-unknown", []string{as, ""}},
		{"of another route", 401, "person-unknown", []string{as, r.assertion("other")}},
		{"a lease", 200, "", []string{as, "", le, lease.Lease}},
		{"a lease in the bearer", 200, "", []string{as, "", au, "Bearer " + appToken + "~" + lease.Lease}},
		{"a lease in Basic", 200, "", []string{as, "", au, "Basic " + basic}},
		{"another app's lease", 401, "person-unknown",
			[]string{as, "", au, "Bearer other-" + appToken, le, lease.Lease}},
		{"a changed lease", 401, "person-unknown", []string{as, "", le, "A" + lease.Lease}},
		{"two people", 400, "bad-request", []string{le, lease.Lease}},
		{"a name without an offline consent", 409, "grant-required", []string{as, "", pe, "google:ann"}},
		{"an app that may not name", 401, "person-unknown",
			[]string{as, "", au, "Bearer other-" + appToken, pe, "google:ann"}},
	} {
		res, body := r.ask("GET", busy, "", c.header...)
		if res.StatusCode != c.status {
			t.Errorf("%s: %d, want %d: %s", c.name, res.StatusCode, c.status, body)
		} else if c.kind != "" && problemOf(t, res, body).Type != c.kind {
			t.Errorf("%s: %s", c.name, body)
		}
	}
	for says, header := range map[string][]string{
		"X-Sallyport-Assertion": {as, ""}, "X-Sallyport-Lease": {as, "", le, "A" + lease.Lease},
		"without offline": {as, "", au, "Bearer other-" + appToken, pe, "google:ann"},
		"org:ID":          {as, "", pe, "ann"},
	} {
		if _, body := r.ask("GET", busy, "", header...); !strings.Contains(string(body), says) {
			t.Errorf("who is to learn of %q reads %s", says, body)
		}
	}
	if _, body := r.ask("GET", busy, "", as, "", pe, "google:ann"); !strings.Contains(string(body), "&app=") {
		t.Errorf("an address that nobody can copy: %s", body)
	}
	ended()
	before := len(peer.Requests())
	for name, header := range map[string][]string{"assertion": nil, "lease": {as, "", le, lease.Lease}} {
		res, body := r.ask("GET", busy, "", header...)
		if res.StatusCode != 401 || problemOf(t, res, body).Type != "person-unknown" {
			t.Errorf("the %s of a session that has ended: %d %s", name, res.StatusCode, body)
		}
	}
	if n := len(peer.Requests()); n != before {
		t.Errorf("%d requests of somebody who has left", n-before)
	}
}

func TestP12_WhatIsMissingIsNamedWithALink(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	r := newRig(t, peer.URL())
	res, body := r.ask("GET", busy, "")
	p := problemOf(t, res, body)
	u, err := url.Parse(p.ConnectURL)
	testenv.Check(t, err)
	person, err := r.sessions.OpenPerson(u.Query().Get("for"))
	if res.StatusCode != 409 || p.Type != "grant-required" || u.Host != "sallyport.test" || err != nil ||
		person != ann.ID() ||
		u.Path != "/_sallyport/connect/calendar" || u.Query().Get("app") != "planner" {
		t.Fatalf("%d: %s (%v)", res.StatusCode, body, err)
	}
	if got := u.Query()["access"]; !slices.Equal(got, []string{"freebusy"}) || !slices.Equal(p.Missing, got) {
		t.Errorf("more than the request needs is asked for: %v, missing %v", got, p.Missing)
	}
	res, body = r.ask("GET", "/gateway/calendar/events/1", "")
	if p = problemOf(t, res, body); !slices.Equal(p.Missing, []string{"events"}) {
		t.Errorf("missing %v", p.Missing)
	}
	r.connect("freebusy")
	res, body = r.ask("GET", "/gateway/calendar/events/1", "")
	p = problemOf(t, res, body)
	u, _ = url.Parse(p.ConnectURL)
	if res.StatusCode != 409 || !slices.Equal(p.Missing, []string{"events"}) ||
		!slices.Equal(u.Query()["access"], []string{"freebusy", "events"}) {
		t.Errorf("a wider access: %d %s", res.StatusCode, body)
	}
	if n := len(peer.Requests()); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	res, body = r.ask("GET", "/v1/grants", "")
	var list struct {
		Grants []map[string]any `json:"grants"`
	}
	testenv.Check(t, json.Unmarshal([]byte(body), &list))
	if res.StatusCode != 200 || len(list.Grants) != 1 || list.Grants[0]["status"] != "active" ||
		fmt.Sprint(list.Grants[0]["access"]) != "[freebusy]" || strings.Contains(body, "canary") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	res, body = r.ask("POST", "/v1/token", `{"connector":"calendar"}`, "Content-Type", "application/json")
	if res.StatusCode != 403 || strings.Contains(body, "canary") {
		t.Errorf("a token: %d %s", res.StatusCode, body)
	}
}

// An answer that goes on ends soon after the person has ended what it rests on, and not when
// they connect once more.
func TestP12_AStreamEndsWithTheConsent(t *testing.T) {
	gone := make(chan struct{})
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		defer close(gone)
		for req.Context().Err() == nil {
			_, _ = io.WriteString(w, "more")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		}
	}))
	defer peer.Close()
	r := newRig(t, peer.URL)
	r.connect("freebusy", "events")
	done := make(chan string, 1)
	go func() {
		_, body := r.ask("GET", busy, "")
		done <- body
	}()
	time.Sleep(1500 * time.Millisecond)
	r.connect("freebusy", "events") // once more
	select {
	case <-done:
		t.Fatal("it ended, and the consent is there")
	case <-time.After(2500 * time.Millisecond):
	}
	testenv.Check(t, r.broker.Withdraw(t.Context(), ann, "calendar", "planner"))
	select {
	case body := <-done:
		if !strings.HasPrefix(body, "more") || !strings.HasSuffix(body, "(broken off)") {
			t.Errorf("%q", body)
		}
	case <-time.After(time.Minute):
		t.Fatal("it goes on after the consent has ended")
	}
	<-gone
}

func TestP08_AnEchoedCredentialDoesNotComeBack(t *testing.T) {
	const secret = "canary/access-1"
	parts := []string{"a " + secret[:4], secret[4:] + ` b "canary\`, `/access-1" ` + "canary%2Fac",
		"cess-1 and can", "ary"}
	want := "a *************** b \"****************\" ***************** and canary"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Check(t, err)
	peer := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("X-Echo", "Bearer "+secret)
		w.Header().Set("X-Ratelimit-Remaining", "7")
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Cache-Control", "public")
		w.Header().Set("Location", "https://elsewhere.test/")
		w.Header().Set("Trailer", "X-Later")
		w.WriteHeader(http.StatusFound)
		for _, p := range parts {
			_, _ = io.WriteString(w, p)
			_ = http.NewResponseController(w).Flush()
		}
		w.Header().Set("X-Later", secret)
	})}
	go func() { _ = peer.Serve(l) }()
	t.Cleanup(func() { _ = peer.Close() })
	r := newRig(t, "http://"+l.Addr().String())
	r.connect("freebusy")
	res, body := r.ask("GET", busy, "")
	if body != want {
		t.Errorf("body\n%s, want\n%s", body, want)
	}
	h := res.Header
	if res.StatusCode != http.StatusFound || h.Get("X-Echo")+h.Get("Set-Cookie")+res.Trailer.Get("X-Later") != "" ||
		h.Get("X-Ratelimit-Remaining") != "7" || h.Get("Cache-Control") != "private, no-store" || h.Get("Vary") == "" ||
		h.Get("Location") == "" {
		t.Errorf("%d %v, trailers %v", res.StatusCode, h, res.Trailer)
	}
	if strings.Contains(r.log.String(), "canary") {
		t.Errorf("the log has a credential: %s", r.log)
	}
}

func TestP14_ARefusedCredentialIsRefreshedOnceAndOnlyReadsAreRepeated(t *testing.T) {
	for _, c := range []struct {
		method, target string
		calls, status  int
	}{{"GET", busy, 2, 200}, {"DELETE", "/gateway/calendar/events/1", 1, 401}} {
		peer := testenv.NewRawUpstream(t)
		peer.Respond(func(request []byte) []byte {
			if bytes.Contains(request, []byte("canary/access-1\r\n")) {
				return []byte("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
			}
			return []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		})
		r := newRig(t, peer.URL())
		r.connect("freebusy", "events")
		res, body := r.ask(c.method, c.target, "")
		n, m := len(peer.Requests()), r.third.refreshes.Load()
		if res.StatusCode != c.status || n != c.calls || m != 1 {
			t.Errorf("%s: %d, %d calls, %d refreshes: %s", c.method, res.StatusCode, n, m, body)
		}
	}
}

func TestP14_ARefreshThatFailsSaysWhoCanHelp(t *testing.T) {
	for name, c := range map[string]struct {
		err    grant.Error
		status int
	}{
		"invalid_grant": {grant.Error{Class: grant.Yours, Reason: "invalid_grant", Err: errors.New("x")}, 409},
		"busy":          {grant.Error{Class: grant.Later, Reason: "busy", Err: errors.New("x")}, 503},
		"our client":    {grant.Error{Class: grant.Ours, Reason: "invalid_client", Err: errors.New("x")}, 503},
	} {
		peer := testenv.NewRawUpstream(t)
		peer.Respond(func([]byte) []byte { return []byte("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n") })
		r := newRig(t, peer.URL())
		r.connect("freebusy")
		r.third.fail.Store(&c.err)
		res, body := r.ask("GET", busy, "")
		p := problemOf(t, res, body)
		if res.StatusCode != c.status || c.status == 503 && res.Header.Get("Retry-After") == "" ||
			c.status == 409 && !slices.Equal(p.Missing, []string{"reconnect"}) || len(peer.Requests()) != 1 {
			t.Errorf("%s: %d %v %s", name, res.StatusCode, res.Header, body)
		}
	}
}

func TestP15_AThirdPartyThatBreaksOffOrLies(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		status int
	}{
		"breaks off": {"", 502},
		"no HTTP":    {"SSH-2.0\r\n\r\n", 502},
		"a switch":   {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", 502},
	} {
		peer := testenv.NewRawUpstream(t)
		peer.Respond(func([]byte) []byte {
			if c.answer == "" {
				return nil
			}
			return []byte(c.answer)
		})
		r := newRig(t, peer.URL())
		r.connect("freebusy", "events")
		res, body := r.ask("DELETE", "/gateway/calendar/events/1", "")
		problemOf(t, res, body)
		if res.StatusCode != c.status || len(peer.Requests()) != 1 {
			t.Errorf("%s: %d, %d requests: %s", name, res.StatusCode, len(peer.Requests()), body)
		}
	}
	gone, err := testenv.UnusedAddress()
	testenv.Check(t, err)
	r := newRig(t, "http://"+gone)
	r.connect("freebusy")
	if res, body := r.ask("GET", busy, ""); res.StatusCode != 502 {
		t.Errorf("nobody there: %d %s", res.StatusCode, body)
	}
	peer := testenv.NewRawUpstream(t)
	peer.Respond(func([]byte) []byte {
		return []byte("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nshort")
	})
	r = newRig(t, peer.URL())
	r.connect("freebusy")
	if _, body := r.ask("GET", busy, ""); !strings.HasSuffix(body, "(broken off)") {
		t.Errorf("a short answer looks whole: %q", body)
	}
}

func TestP12_WhoIsAwayIsActedForOnlyWithAnOfflineConsent(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	r := newRig(t, peer.URL())
	r.connectFor(grant.Ask{Connector: "calendar", App: "planner", Access: []string{"freebusy"}, Offline: true})
	for person, status := range map[string]int{"google:ann": 200, "google:bob": 409, "org:acme": 403, "ann": 401} {
		res, body := r.ask("GET", busy, "", "X-Sallyport-Assertion", "", "X-Sallyport-Person", person)
		if res.StatusCode != status {
			t.Errorf("%s: %d, want %d: %s", person, res.StatusCode, status, body)
		}
		if status == 403 && !strings.Contains(body, "X-Sallyport-Person: PROVIDER:SUBJECT") {
			t.Errorf("%s: it does not say whom to name: %s", person, body)
		}
	}
	if n := len(peer.Requests()); n != 1 {
		t.Errorf("%d requests arrived, want one", n)
	}
}

func TestP12_ATokenItselfOnlyForAnAppWithRawTokens(t *testing.T) {
	r := newRig(t, "http://127.0.0.1:1")
	r.connectFor(grant.Ask{Connector: "calendar", App: "raw", Access: []string{"freebusy"}})
	header := []string{"Authorization", "Bearer raw-" + appToken, "X-Sallyport-Assertion", r.assertion("raw"),
		"Content-Type", "application/json"}
	res, body := r.ask("POST", "/v1/token", `{"connector":"calendar"}`, header...)
	var got struct {
		AccessToken string   `json:"access_token"`
		TokenType   string   `json:"token_type"`
		Scopes      []string `json:"scopes"`
	}
	testenv.Check(t, json.Unmarshal([]byte(body), &got))
	if res.StatusCode != 200 || got.AccessToken != "canary/access-1" || got.TokenType != "Bearer" ||
		!slices.Equal(got.Scopes, []string{"busy"}) || res.Header.Get("Cache-Control") != "private, no-store" {
		t.Errorf("%d: %v %+v", res.StatusCode, res.Header, got.Scopes)
	}
	res, body = r.ask("POST", "/v1/token", `{"connector":"calendar"}`, "Content-Type", "application/json")
	if res.StatusCode != 403 || strings.Contains(body, "canary") {
		t.Errorf("without raw_tokens: %d", res.StatusCode)
	}
}

// An app that gives up frees what it held, and the third party is not asked again.
func TestP17_AThirdPartyThatHangsIsAskedOnce(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	arrived, leave := make(chan struct{}, 9), make(chan struct{})
	peer.Respond(func([]byte) []byte {
		arrived <- struct{}{}
		<-leave
		return nil
	})
	defer close(leave)
	r := newRig(t, peer.URL())
	r.connect("freebusy")
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+busy, nil)
	testenv.Check(t, err)
	req.Header.Set("Authorization", "Bearer "+appToken)
	req.Header.Set("X-Sallyport-Assertion", r.assertion("planner"))
	done := make(chan error, 1)
	go func() {
		res, err := http.DefaultTransport.RoundTrip(req)
		if err == nil {
			_ = res.Body.Close()
		}
		done <- err
	}()
	<-arrived
	cancel()
	if err := <-done; err == nil {
		t.Error("there is an answer")
	}
	if ev := <-r.events; ev.Err == nil || len(peer.Requests()) != 1 {
		t.Errorf("%d requests, event %+v", len(peer.Requests()), ev)
	}
}

// hanging is a broker whose store answers nothing for as long as it is asked.
type hanging struct{ gateway.Broker }

// Lends is as grant.Broker's, which does not end what goes on for a store that cannot be read.
func (h hanging) Lends(ctx context.Context, _ grant.Loan) error {
	<-ctx.Done()
	return nil
}

// P10: while the database hangs, answers that go on end in time with their sessions. Each of them
// was asked about after the other, and kept all that came later waiting for a second.
func TestP10_AStoreThatHangsDelaysNoEndOfAStream(t *testing.T) {
	t.Parallel()
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		for req.Context().Err() == nil {
			_, _ = io.WriteString(w, "more")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		}
	}))
	defer peer.Close()
	r := newRig(t, peer.URL, func(o *gateway.Options) { o.Broker = hanging{o.Broker} })
	r.connect("freebusy")
	streams, stop := context.WithCancel(t.Context())
	defer stop()
	stream := func(proof string) (ended chan struct{}) {
		req, err := http.NewRequestWithContext(streams, http.MethodGet, r.url+busy, nil)
		testenv.Check(t, err)
		req.Header.Set("Authorization", "Bearer "+appToken)
		req.Header.Set("X-Sallyport-Assertion", proof)
		res, err := r.client.RoundTrip(req)
		testenv.Check(t, err)
		if res.StatusCode != http.StatusOK {
			t.Fatalf("a stream: %d", res.StatusCode)
		}
		ended = make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			close(ended)
		}()
		return ended
	}
	for range 15 {
		stream(r.assertion("planner"))
	}
	elsewhere := r.sessions.Start(ann)
	proof, err := r.signer.Sign(assertion.Caller{Key: elsewhere.ID, Identity: &ann, SID: elsewhere.SID(),
		End: time.Now().Add(time.Hour)}, "planner")
	testenv.Check(t, err)
	other := stream(proof[0])
	time.Sleep(1500 * time.Millisecond)
	testenv.Check(t, r.sessions.EndSignIn(t.Context(), elsewhere))
	begun := time.Now()
	select {
	case <-other:
	case <-time.After(30 * time.Second):
	}
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("it ended %v after its session", took.Round(time.Second))
	}
}
