package pagerdutykey_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/pagerdutykey"
	"github.com/sallyport-proxy/sallyport/gateway/gatewaytest"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	userKey    = "u+canaryKc66ryYTWUXY"
	accountKey = "a+canaryKc66ryYTWUXY"
	readKey    = "r+canaryKc66ryYTWUXY"
	europeKey  = "e+canaryKc66ryYTWUXY"
)

var mira = identity.Identity{Provider: "google", Subject: "mira", Email: "mira@acme.example", EmailVerified: true}

func pagerduty(t *testing.T, quirks demo.OnCallQuirks) *testenv.Faults {
	t.Helper()
	return testenv.StartOnCall(t, demo.OnCallOptions{ClientID: "me", ClientSecret: "s3cret", Quirks: quirks,
		Keys: []demo.OnCallKey{{Key: userKey, Person: "jonas"}, {Key: accountKey}, {Key: readKey, ReadOnly: true},
			{Key: europeKey, Person: "tomoko"}}})
}

func keys(t *testing.T, o pagerdutykey.Options) *pagerdutykey.Connector {
	t.Helper()
	client, err := oauth.NewClient(oauth.Options{Provider: "oncall"})
	testenv.Check(t, err)
	t.Cleanup(client.CloseIdleConnections)
	o.ID, o.OAuth = "oncall", client
	c, err := pagerdutykey.New(o)
	testenv.Check(t, err)
	return c
}

func TestOnlyTheTwoRegionsAreKnown(t *testing.T) {
	for region, want := range map[string]string{"": "https://api.pagerduty.com", "us": "https://api.pagerduty.com",
		"eu": "https://api.eu.pagerduty.com"} {
		c := keys(t, pagerdutykey.Options{Region: region})
		if got := c.Origin(grant.Account{Region: "eu"}); got != want || c.About().ClientID != want {
			t.Errorf("%q: keys are sent to %s, and are those of %s", region, got, c.About().ClientID)
		}
	}
	client, err := oauth.NewClient(oauth.Options{Provider: "oncall"})
	testenv.Check(t, err)
	_, err = pagerdutykey.New(pagerdutykey.Options{ID: "oncall", Region: "eu.evil.test", OAuth: client})
	if fault, ok := errors.AsType[*connector.Fault](err); !ok || fault.Key != "region" {
		t.Errorf("another region: %v", err)
	}
}

// "format must be followed precisely": the token is a parameter of its own scheme.
func TestP08_AKeyIsSentInPagerDutysOwnForm(t *testing.T) {
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.RequestURI+" "+r.Header.Get("Authorization")+" "+r.Header.Get("Accept"))
		fmt.Fprint(w, `{"user":{"id":"PIYKDBN","email":"mira@acme.example"}}`)
	}))
	defer srv.Close()
	_, err := keys(t, pagerdutykey.Options{Base: srv.URL}).Accept(t.Context(), " "+userKey+"\n", grant.Request{})
	testenv.Check(t, err)
	const header = " Token token=" + userKey + " application/vnd.pagerduty+json;version=2"
	if want := []string{"GET /users/me" + header, "GET /abilities" + header}; !slices.Equal(asked, want) {
		t.Errorf("asked %q", asked)
	}
	for _, bad := range []string{`a",other="` + userKey, userKey + ",x"} {
		if _, err := keys(t, pagerdutykey.Options{Base: srv.URL}).Accept(t.Context(), bad, grant.Request{}); err == nil {
			t.Errorf("%q is sent", bad)
		}
	}
}

// A key of the account is told by its answer to /users/me, whose error is a text; one that is
// an object, or says something else, is an error like others.
func TestP15_AnAccountsKeyIsKnownByThe400OfUsersMe(t *testing.T) {
	const account = "The current user cannot be resolved with an Account-Level access token."
	for name, tt := range map[string]struct {
		status int
		body   string
		class  grant.Class // "": it is an account's key
		reason string
	}{
		"a text":                          {400, `{"error":"` + account + `"}`, "", ""},
		"an object":                       {400, `{"error":{"message":"` + account + `","code":2001,"errors":[]}}`, "", ""},
		"another text":                    {400, `{"error":"Invalid Input Provided"}`, grant.Ours, connector.RequestRefused},
		"another object":                  {400, `{"error":{"message":"Invalid Input Provided"}}`, grant.Ours, connector.RequestRefused},
		"no error":                        {400, `account-level`, grant.Ours, connector.RequestRefused},
		"the words with 401":              {401, `{"error":"` + account + `"}`, grant.Yours, connector.KeyRefused},
		"a bad key, as text":              {401, `{"error":"Authentication failed"}`, grant.Yours, connector.KeyRefused},
		"a bad key, as usual":             {401, `{"error":{"message":"x","code":2006}}`, grant.Yours, connector.KeyRefused},
		"forbidden":                       {403, `{"error":{"message":"Access Denied","code":2010}}`, grant.Yours, connector.KeyRefused},
		"the plan":                        {402, `{"error":{"message":"x","code":2012}}`, grant.AdminTheir, pagerdutykey.PlanRefused},
		"too much":                        {429, `{"error":{"message":"Rate Limit Exceeded","code":2020}}`, grant.Later, connector.Busy},
		"too much, and no more than that": {429, ``, grant.Later, connector.Busy},
		"away":                            {503, `<html>`, grant.Later, connector.Busy},
		"not there":                       {404, ``, grant.Ours, connector.WrongEndpoint},
		"a redirect":                      {302, ``, grant.Ours, connector.WrongEndpoint},
		"nobody":                          {200, `{"user":null}`, grant.Later, connector.Garbled},
		"an odd id":                       {200, `{"user":{"id":"a/b","email":"x@y"}}`, grant.Later, connector.Garbled},
		"no JSON":                         {200, `<html>`, grant.Later, connector.Garbled},
	} {
		var abilities atomic.Int32
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/abilities" {
				abilities.Add(1)
				fmt.Fprint(w, `{"abilities":[]}`)
				return
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(tt.status)
			fmt.Fprint(w, tt.body)
		}))
		got, err := keys(t, pagerdutykey.Options{Base: srv.URL}).Accept(t.Context(), accountKey, grant.Request{})
		srv.Close()
		if tt.class == "" {
			if err != nil || got.Account != (grant.Account{Name: "an account's key"}) || abilities.Load() != 1 {
				t.Errorf("%s: %+v, %v", name, got.Account, err)
			}
			continue
		}
		e, ok := errors.AsType[*grant.Error](err)
		if !ok || e.Class != tt.class || e.Reason != tt.reason || abilities.Load() != 0 {
			t.Errorf("%s: %v, not %s (%s)", name, err, tt.class, tt.reason)
		}
		if err != nil && (strings.Contains(err.Error(), accountKey) || strings.Contains(err.Error(), "Rate")) {
			t.Errorf("%s: the text is %q", name, err)
		}
	}
}

// What a key may see is asked for too: one that is good for nothing is not kept.
func TestAKeyThatMaySeeNothingIsNotConnected(t *testing.T) {
	p := pagerduty(t, demo.OnCallQuirks{TextErrors: true})
	p.Set(testenv.Fault{Endpoint: testenv.Abilities, Status: 403, Body: `{"error":"Access Denied"}`})
	_, err := keys(t, pagerdutykey.Options{Base: p.URL}).Accept(t.Context(), userKey, grant.Request{})
	if e, ok := errors.AsType[*grant.Error](err); !ok || e.Class != grant.Yours || p.Hits(testenv.UsersMe) != 1 {
		t.Errorf("%v", err)
	}
}

// lending is the gateway in front of the pretend PagerDuty, for an app.
type lending struct {
	*grant.Broker
	url     string // of the connector
	gateway *gatewaytest.Gateway
}

func lend(t *testing.T, c *pagerdutykey.Connector, owner grant.OwnerKind) *lending {
	t.Helper()
	k := grant.SealingKey{ID: "k"}
	copy(k.Secret[:], "canary-key")
	ring, err := grant.NewKeyring([]grant.SealingKey{k})
	testenv.Check(t, err)
	all := []string{pagerdutykey.Read, pagerdutykey.ReadWrite}
	l := &lending{}
	l.Broker, err = grant.New(grant.Options{Store: granttest.NewStore(nil), Keys: ring,
		Log: slog.New(slog.DiscardHandler),
		Offers: []grant.Offer{{Connector: c, Owner: owner, Offered: all,
			ManagedBy: func(identity.Identity) bool { return true }}},
		Apps: []grant.App{{ID: "planner", Name: "Planner", Routes: []string{"app"}, Offline: true,
			Connectors: map[string][]string{"oncall": all}}},
		Redirect: func(string) string { return "" }})
	testenv.Check(t, err)
	t.Cleanup(func() {
		l.Close()
		testenv.Check(t, l.Wait(context.Background()))
	})
	l.gateway = gatewaytest.Start(t, gatewaytest.Options{Broker: l.Broker, Connector: c, Offline: true})
	l.url = l.gateway.URL + l.gateway.Path
	return l
}

// connect pastes a key for the app.
func (l *lending) connect(t *testing.T, who identity.Identity, key, access string) grant.Kept {
	t.Helper()
	kept, err := l.ConnectKey(t.Context(), who, grant.Ask{Connector: "oncall", App: "planner",
		Access: []string{access}, Offline: true}, key, false)
	testenv.Check(t, err)
	return kept
}

// as is the header by which the app names somebody who is there.
func (l *lending) as(t *testing.T, who identity.Identity) http.Header {
	t.Helper()
	return http.Header{"X-Sallyport-Assertion": {l.gateway.Assertion(t, who)}}
}

func (l *lending) ask(t *testing.T, h http.Header, method, path, body string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, l.url+path, strings.NewReader(body))
	testenv.Check(t, err)
	req.Header = h.Clone()
	req.Header.Set("Authorization", "Bearer "+gatewaytest.Token)
	req.Header.Set("Accept", "application/vnd.pagerduty+json;version=2")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	testenv.Check(t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	testenv.Check(t, err)
	return res.StatusCode, res.Header, string(answer)
}

// The key could write; what the person lent is reading. The person reads that where they
// agree.
func TestP12_AKeyThatMayWriteOnlyReadsThroughTheGateway(t *testing.T) {
	p := pagerduty(t, demo.OnCallQuirks{})
	c := keys(t, pagerdutykey.Options{Base: p.URL})
	l := lend(t, c, grant.OwnedByUser)
	l.connect(t, mira, userKey, pagerdutykey.Read)
	who := l.as(t, mira)
	for _, path := range []string{"/oncalls", "/schedules", "/schedules/PX/overrides", "/v3/schedules",
		"/v3/schedules/PX/rotations", "/users", "/users/me", "/users/PX", "/teams", "/escalation_policies/PX", "/services",
		"/incidents/PX/notes"} {
		if status, _, body := l.ask(t, who, "GET", path, ""); status != http.StatusOK {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
	}
	for _, change := range []string{"POST /schedules/PX/overrides", "PUT /incidents/PX", "POST /v3/schedules"} {
		method, path, _ := strings.Cut(change, " ")
		if status, _, body := l.ask(t, who, method, path, `{}`); status != http.StatusConflict ||
			!strings.Contains(body, `"read_write"`) {
			t.Errorf("%s: %d %s", change, status, body)
		}
	}
	for _, never := range []string{"DELETE /schedules/PX", "DELETE /users/PX", "POST /users",
		"GET /users/PX/sessions", "GET /users/PX%2Fsessions", "GET /users/PX%252Fsessions", "GET /users/PX;sessions",
		"GET /users/PX%3Bsessions", "GET /users/PX/", "GET /oauth_delegations", "POST /abilities", "PUT /services/PX"} {
		method, path, _ := strings.Cut(never, " ")
		if status, _, body := l.ask(t, who, method, path, ""); status != http.StatusForbidden ||
			!strings.Contains(body, "rule-denied") {
			t.Errorf("%s: %d %s", never, status, body)
		}
	}
	if changes := p.OnCall.Changes(); changes != nil {
		t.Errorf("PagerDuty was changed: %+v", changes)
	}
	if means := c.About().Accesses[0].Means; !strings.Contains(means, "change nothing, even if the key could") {
		t.Errorf("the person reads that the app may %q", means)
	}
}

// A read-only key that is lent for writing: what it cannot do PagerDuty says, not we.
func TestAReadOnlyKeyIsRefusedByPagerDutyItself(t *testing.T) {
	p := pagerduty(t, demo.OnCallQuirks{})
	l := lend(t, keys(t, pagerdutykey.Options{Base: p.URL}), grant.OwnedByUser)
	l.connect(t, mira, readKey, pagerdutykey.ReadWrite)
	status, _, body := l.ask(t, l.as(t, mira), "POST", "/schedules/PX/overrides", `{}`)
	if status != http.StatusForbidden || !strings.Contains(body, "Access Denied") {
		t.Errorf("%d %s", status, body)
	}
}

// Who makes a change is the user whose key it is; with a key of the account the person who
// asks, by an address that their provider vouched for. What the app says there counts for
// nothing, and reading tells nobody's address.
func TestP12_FromIsThePersonAndNeverTheAppsWord(t *testing.T) {
	unverified := mira
	unverified.EmailVerified = false
	odd := mira
	odd.Email = "mira@acme.example\u00e9"
	for name, tt := range map[string]struct {
		key    string
		who    identity.Identity
		header func(l *lending) http.Header // nil: an assertion
		status int
		from   string
	}{
		"a user's key":            {userKey, mira, nil, 201, "jonas@acme.example"},
		"an account's key":        {accountKey, mira, nil, 201, "mira@acme.example"},
		"nobody vouched for it":   {accountKey, unverified, nil, 400, ""},
		"it cannot be in headers": {accountKey, odd, nil, 400, ""},
		"the person is away": {accountKey, mira, func(*lending) http.Header {
			return http.Header{"X-Sallyport-Person": {"google:mira"}}
		}, 400, ""},
		"the person is away, and the key is theirs": {userKey, mira, func(*lending) http.Header {
			return http.Header{"X-Sallyport-Person": {"google:mira"}}
		}, 201, "jonas@acme.example"},
	} {
		t.Run(name, func(t *testing.T) {
			p := pagerduty(t, demo.OnCallQuirks{})
			l := lend(t, keys(t, pagerdutykey.Options{Base: p.URL}), grant.OwnedByUser)
			l.connect(t, tt.who, tt.key, pagerdutykey.ReadWrite)
			h := l.as(t, tt.who)
			if tt.header != nil {
				h = tt.header(l)
			}
			h["From"] = []string{"sam@acme.example"}
			status, _, body := l.ask(t, h, "POST", "/schedules/PX/overrides", `{}`)
			if status != tt.status {
				t.Errorf("%d %s", status, body)
			}
			changes := p.OnCall.Changes()
			if tt.status == 201 && (len(changes) != 1 || changes[0].From != tt.from) ||
				tt.status != 201 && changes != nil {
				t.Errorf("PagerDuty was told %+v, not %q", changes, tt.from)
			}
			if status, _, body := l.ask(t, h, "GET", "/oncalls", ""); status != 200 {
				t.Errorf("reading: %d %s", status, body)
			}
			for _, r := range p.Requests(testenv.OnCalls) {
				if from := r.Header["From"]; from != nil {
					t.Errorf("reading says %q", from)
				}
			}
		})
	}
}

// The key of an organization is one for all; each change is of the person who made it.
func TestP12_ChangesWithAnOrganizationsKeyAreOfThePersonWhoMadeThem(t *testing.T) {
	p := pagerduty(t, demo.OnCallQuirks{})
	l := lend(t, keys(t, pagerdutykey.Options{Base: p.URL}), grant.OwnedByOrg)
	acme := identity.Org{ID: "acme"}
	jonas := identity.Identity{Provider: "google", Subject: "jonas", Email: "jonas@acme.example", EmailVerified: true,
		Org: acme}
	of := mira
	of.Org = acme
	l.connect(t, jonas, accountKey, pagerdutykey.ReadWrite)
	for _, who := range []identity.Identity{jonas, of} {
		if status, _, body := l.ask(t, l.as(t, who), "PUT", "/incidents/PX", `{}`); status != 200 {
			t.Errorf("%d %s", status, body)
		}
	}
	changes := p.OnCall.Changes()
	if len(changes) != 2 || changes[0].From != jonas.Email || changes[1].From != mira.Email {
		t.Errorf("%+v", changes)
	}
}

// A 429 may come without the headers that say for how long: the answer is the app's, as it is.
func TestA429WithoutHeadersIsPassedOnAsItIs(t *testing.T) {
	p := pagerduty(t, demo.OnCallQuirks{})
	l := lend(t, keys(t, pagerdutykey.Options{Base: p.URL}), grant.OwnedByUser)
	l.connect(t, mira, userKey, pagerdutykey.Read)
	const limited = `{"error":{"message":"Rate Limit Exceeded","code":2020}}`
	p.Set(testenv.Fault{Endpoint: testenv.OnCalls, Status: 429, Body: limited})
	status, h, body := l.ask(t, l.as(t, mira), "GET", "/oncalls", "")
	if status != 429 || body != limited || h.Get("Retry-After") != "" || p.Hits(testenv.OnCalls) != 1 {
		t.Errorf("%d %v %s, asked %d times", status, h, body, p.Hits(testenv.OnCalls))
	}
	p.Set(testenv.Fault{Endpoint: testenv.OnCalls, Status: 429, Body: limited,
		Header: map[string]string{"Ratelimit-Reset": "20", "Ratelimit-Remaining": "0"}})
	if _, h, _ = l.ask(t, l.as(t, mira), "GET", "/oncalls", ""); h.Get("Ratelimit-Reset") != "20" {
		t.Errorf("what PagerDuty says of its limit is lost: %v", h)
	}
}

// A key that was deleted at PagerDuty is found out by its probe; one that is good stays,
// whatever an address answers.
func TestP15_AKeyThatWasDeletedNeedsAnother(t *testing.T) {
	for name, tt := range map[string]struct {
		fault  testenv.Fault
		status grant.Status
	}{
		"deleted":      {testenv.Fault{Endpoint: testenv.UsersMe, Status: 401, Body: `{"error":"x"}`}, grant.NeedsReconnect},
		"still good":   {testenv.Fault{Endpoint: testenv.Abilities, Header: map[string]string{"X": "1"}}, grant.Active},
		"rate limited": {testenv.Fault{Endpoint: testenv.UsersMe, Status: 429, Body: `{}`}, grant.Active},
	} {
		t.Run(name, func(t *testing.T) {
			p := pagerduty(t, demo.OnCallQuirks{})
			l := lend(t, keys(t, pagerdutykey.Options{Base: p.URL}), grant.OwnedByUser)
			l.connect(t, mira, userKey, pagerdutykey.Read)
			p.Set(testenv.Fault{Endpoint: testenv.OnCalls, Status: 401, Body: `{"error":"no"}`}, tt.fault)
			_, _, _ = l.ask(t, l.as(t, mira), "GET", "/oncalls", "")
			views, err := l.View(t.Context(), mira)
			if err != nil || len(views) != 1 || views[0].Status != tt.status {
				t.Errorf("%+v, %v", views, err)
			}
		})
	}
}

// A key is sent to the API of the configured region and to no other: one of the other
// region is refused there.
func TestP15_AKeyIsTriedInOneRegionOnly(t *testing.T) {
	p := pagerduty(t, demo.OnCallQuirks{})
	_, err := keys(t, pagerdutykey.Options{Base: p.URL}).Accept(t.Context(), europeKey, grant.Request{})
	if e, ok := errors.AsType[*grant.Error](err); !ok || e.Class != grant.Yours || p.Hits(testenv.UsersMe) != 1 {
		t.Errorf("a key of Europe in the US: %v, asked %d times", err, p.Hits(testenv.UsersMe))
	}
	c := keys(t, pagerdutykey.Options{Base: p.URL, Region: "eu"})
	got, err := c.Accept(t.Context(), europeKey, grant.Request{})
	if err != nil || got.Account != (grant.Account{ID: p.OnCall.UserID("tomoko"), Name: "tomoko@birch.example"}) {
		t.Errorf("%+v, %v", got.Account, err)
	}
}

// Nothing can end a key from here, and the page says where people do.
func TestP12_DisconnectingSaysWhereTheKeyIsDeleted(t *testing.T) {
	p := pagerduty(t, demo.OnCallQuirks{})
	c := keys(t, pagerdutykey.Options{Base: p.URL})
	l := lend(t, c, grant.OwnedByUser)
	l.connect(t, mira, userKey, pagerdutykey.Read)
	if became, err := l.End(context.Background(), mira, "oncall"); became != grant.NotSupported || err != nil {
		t.Errorf("%s, %v", became, err)
	}
	if got := c.FinishURL(grant.Account{}); got != "https://support.pagerduty.com/main/docs/api-access-keys" {
		t.Error(got)
	}
	if status, _, _ := l.ask(t, l.as(t, mira), "GET", "/oncalls", ""); status != http.StatusConflict {
		t.Errorf("afterwards: %d", status)
	}
}
