package pagerduty_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/pagerduty"
	"github.com/sallyport-proxy/sallyport/gateway/gatewaytest"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const redirect = "https://sallyport.test/.sallyport/connect/oncall/callback"

var mira = identity.Identity{Provider: "google", Subject: "mira", Email: "mira@elsewhere.example", EmailVerified: true}

func handshake() identity.Handshake {
	return identity.Handshake{State: "st", Nonce: "no", Verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"}
}

// world is the pretend PagerDuty, the connector, the broker and the gateway.
type world struct {
	*testenv.Faults
	*grant.Broker
	connector *pagerduty.Connector
	gateway   string
	assertion string
}

func start(t *testing.T, kind string, quirks demo.OnCallQuirks) *world {
	t.Helper()
	return startAt(t, kind, quirks, time.Now)
}

func startAt(t *testing.T, kind string, quirks demo.OnCallQuirks, now func() time.Time) *world {
	t.Helper()
	w := &world{Faults: testenv.StartOnCall(t, demo.OnCallOptions{ClientID: "me", ClientSecret: "s3cret",
		RedirectURIs: []string{redirect}, Quirks: quirks, Now: now})}
	client, err := oauth.NewClient(oauth.Options{Provider: "oncall"})
	testenv.Check(t, err)
	t.Cleanup(client.CloseIdleConnections)
	w.connector, err = pagerduty.New(pagerduty.Options{Client: connector.Client{ID: "oncall", ClientID: "me",
		ClientSecret: "s3cret", Base: w.URL, OAuth: client, Now: now}, Scopes: kind})
	testenv.Check(t, err)
	k := grant.SealingKey{ID: "k"}
	copy(k.Secret[:], "canary-key")
	ring, err := grant.NewKeyring([]grant.SealingKey{k})
	testenv.Check(t, err)
	all := []string{pagerduty.Read, pagerduty.Write}
	w.Broker, err = grant.New(grant.Options{Store: granttest.NewStore(nil), Keys: ring,
		Log:      slog.New(slog.DiscardHandler),
		Offers:   []grant.Offer{{Connector: w.connector, Owner: grant.OwnedByUser, Offered: all}},
		Apps:     []grant.App{{ID: "planner", Routes: []string{"app"}, Connectors: map[string][]string{"oncall": all}}},
		Redirect: func(string) string { return redirect }})
	testenv.Check(t, err)
	t.Cleanup(func() {
		w.Close()
		testenv.Check(t, w.Wait(context.Background()))
	})
	g := gatewaytest.Start(t, gatewaytest.Options{Broker: w.Broker, Connector: w.connector})
	w.gateway, w.assertion = g.URL+g.Path, g.Assertion(t, mira)
	return w
}

// agree has somebody answer PagerDuty's page, and is what the browser brings back.
func (w *world) agree(t *testing.T, person, access, answer string) (grant.Ask, url.Values) {
	t.Helper()
	ask := grant.Ask{Connector: "oncall", App: "planner", Access: []string{access}}
	p, err := w.Prepare(t.Context(), mira, ask)
	testenv.Check(t, err)
	to, err := w.AuthURL(p, handshake())
	testenv.Check(t, err)
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := browser.PostForm(to, url.Values{"answer": {answer}, "person": {person}})
	testenv.Check(t, err)
	defer res.Body.Close()
	at, err := res.Location()
	if err != nil {
		t.Fatalf("PagerDuty's page answers %s", res.Status)
	}
	return ask, at.Query()
}

func (w *world) connect(t *testing.T, person, access string) (grant.Kept, error) {
	t.Helper()
	ask, callback := w.agree(t, person, access, "allow")
	return w.Connect(t.Context(), mira, ask, callback, handshake(), false)
}

func (w *world) connected(t *testing.T, person, access string) grant.Kept {
	t.Helper()
	kept, err := w.connect(t, person, access)
	testenv.Check(t, err)
	return kept
}

func (w *world) ask(t *testing.T, method, path string) (int, http.Header, string) {
	t.Helper()
	body, kind := "", ""
	if method != http.MethodGet {
		body, kind = "{}", "application/json"
	}
	req, err := http.NewRequestWithContext(t.Context(), method, w.gateway+path, strings.NewReader(body))
	testenv.Check(t, err)
	req.Header = http.Header{"Authorization": {"Bearer " + gatewaytest.Token}, "X-Sallyport-Assertion": {w.assertion},
		"Accept": {"application/vnd.pagerduty+json;version=2"}, "From": {"sam@acme.example"}}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	res, err := http.DefaultClient.Do(req)
	testenv.Check(t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	testenv.Check(t, err)
	return res.StatusCode, res.Header, string(answer)
}

func (w *world) status(t *testing.T) (grant.Status, string) {
	t.Helper()
	views, err := w.View(t.Context(), mira)
	testenv.Check(t, err)
	if len(views) != 1 || views[0].Kept == nil {
		t.Fatalf("%+v", views)
	}
	return views[0].Status, views[0].Kept.Reason
}

func fails(t *testing.T, what string, err error, class grant.Class, reason string, missing ...string) {
	t.Helper()
	e, ok := errors.AsType[*grant.Error](err)
	if !ok || e.Class != class || e.Reason != reason || !slices.Equal(e.Missing, missing) {
		t.Errorf("%s: %v, not %s (%s), missing %q", what, err, class, reason, missing)
	}
}

func TestOnlyBothKindsOfOAuthAreKnown(t *testing.T) {
	client, err := oauth.NewClient(oauth.Options{Provider: "oncall"})
	testenv.Check(t, err)
	for key, o := range map[string]pagerduty.Options{
		"client_id":     {Client: connector.Client{ClientSecret: "s"}},
		"client_secret": {Client: connector.Client{ClientID: "c"}},
		"oauth_kind":    {Client: connector.Client{ClientID: "c", ClientSecret: "s"}, Scopes: "granular"},
	} {
		o.ID, o.OAuth = "x", client
		_, err := pagerduty.New(o)
		if fault, ok := errors.AsType[*connector.Fault](err); !ok || fault.Key != key {
			t.Errorf("want a fault of %s: %v", key, err)
		}
	}
}

// Classic OAuth takes one of two words, and write includes read; Scoped OAuth takes a scope for
// each resource, and PKCE with both.
func TestP06_PeopleAreSentToPagerDutyForThatMuchAndNoMore(t *testing.T) {
	client, err := oauth.NewClient(oauth.Options{Provider: "oncall"})
	testenv.Check(t, err)
	const reads = "oncalls.read schedules.read users.read teams.read escalation_policies.read services.read incidents.read"
	for _, tt := range []struct {
		kind, access, scope string
	}{
		{pagerduty.Classic, pagerduty.Read, "read"}, {pagerduty.Classic, pagerduty.Write, "write"},
		{pagerduty.Classic, "both", "write"}, {"", pagerduty.Read, "read"},
		{pagerduty.Scoped, pagerduty.Read, reads},
		{pagerduty.Scoped, pagerduty.Write, reads + " schedules.write incidents.write"},
	} {
		c, err := pagerduty.New(pagerduty.Options{Client: connector.Client{ID: "oncall", ClientID: "me",
			ClientSecret: "s",
			OAuth:        client}, Scopes: tt.kind})
		testenv.Check(t, err)
		r := grant.Request{RedirectURI: redirect}
		for _, a := range c.About().Accesses {
			if a.Name == tt.access || tt.access == "both" {
				r.Scopes = append(r.Scopes, a.Scopes...)
			}
		}
		address, err := c.AuthURL(handshake(), r)
		testenv.Check(t, err)
		u, err := url.Parse(address)
		testenv.Check(t, err)
		want := url.Values{"response_type": {"code"}, "client_id": {"me"}, "redirect_uri": {redirect}, "state": {"st"},
			"code_challenge_method": {"S256"}, "scope": {tt.scope},
			"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}} // of RFC 7636, Appendix B
		if u.Query().Encode() != want.Encode() ||
			u.Scheme+"://"+u.Host+u.Path != "https://identity.pagerduty.com/oauth/authorize" {
			t.Errorf("%s %s: %s", tt.kind, tt.access, address)
		}
		if about := c.About(); about.Authorize != "https://identity.pagerduty.com" ||
			!slices.Equal(about.Onward, []string{"https://*.pagerduty.com"}) {
			t.Errorf("the page lets browsers go to %s and %s", about.Authorize, about.Onward)
		}
	}
}

// What goes over the wire, byte for byte, and once: the secret is in the body.
func TestP14_TheRequestsToPagerDutysTokenEndpoint(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	client, err := oauth.NewClient(oauth.Options{Provider: "oncall"})
	testenv.Check(t, err)
	t.Cleanup(client.CloseIdleConnections)
	c, err := pagerduty.New(pagerduty.Options{Client: connector.Client{ID: "oncall", ClientID: "me",
		ClientSecret: "s3~cret", Base: peer.URL(),
		OAuth: client}})
	testenv.Check(t, err)
	_, _ = c.Redeem(t.Context(), url.Values{"code": {"a b"}}, handshake(),
		grant.Request{RedirectURI: redirect, Scopes: []string{"read"}})
	_, _ = c.Refresh(t.Context(), grant.Tokens{Refresh: "pdus+_1/r"}, []string{"read"})
	want := []string{"client_id=me&client_secret=s3~cret&code=a+b&" +
		"code_verifier=dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk&grant_type=authorization_code&redirect_uri=" +
		url.QueryEscape(redirect),
		"client_id=me&client_secret=s3~cret&grant_type=refresh_token&refresh_token=pdus%2B_1%2Fr"}
	got := peer.Requests()
	if len(got) != len(want) {
		t.Fatalf("it was asked %d times: %q", len(got), got)
	}
	for i, raw := range got {
		head, body, _ := strings.Cut(string(raw), "\r\n\r\n")
		if !strings.HasPrefix(head, "POST /oauth/token HTTP/1.1\r\n") || strings.Contains(head, "Authorization") ||
			body != want[i] {
			t.Errorf("%s\n\n%s\nnot\n%s", head, body, want[i])
		}
	}
}

// The life of a grant of both kinds: connected, used, refreshed, and ended here alone.
func TestP12_PeopleLendAPagerDutyAccount(t *testing.T) {
	for kind, window := range map[string]time.Duration{pagerduty.Classic: 3 * 365 * 24 * time.Hour,
		pagerduty.Scoped: 365 * 24 * time.Hour} {
		t.Run(kind, func(t *testing.T) {
			w := start(t, kind, demo.OnCallQuirks{Scoped: kind == pagerduty.Scoped})
			kept := w.connected(t, "jonas", pagerduty.Read)
			want := grant.Account{ID: w.OnCall.AccountID("jonas") + "/" + w.OnCall.UserID("jonas"), Region: "us",
				Name: "jonas@acme.example"}
			if kept.Account != want || slices.Contains(kept.Scopes, "openid") {
				t.Errorf("the account is %+v, with %q", kept.Account, kept.Scopes)
			}
			if in := time.Until(kept.Reconsent); in > window || in < window-time.Minute {
				t.Errorf("PagerDuty asks again in %v", in)
			}
			for _, path := range []string{"/oncalls", "/schedules", "/v3/schedules/PX", "/users", "/incidents"} {
				if status, _, body := w.ask(t, "GET", path); status != http.StatusOK {
					t.Errorf("GET %s: %d %s", path, status, body)
				}
			}
			if status, _, body := w.ask(t, "POST", "/schedules/PX/overrides"); status != http.StatusConflict ||
				!strings.Contains(body, `"write"`) {
				t.Errorf("a change that nobody agreed to: %d %s", status, body)
			}
			for _, never := range []string{"GET /users/PX/sessions", "DELETE /schedules/PX", "POST /users"} {
				method, path, _ := strings.Cut(never, " ")
				if status, _, _ := w.ask(t, method, path); status != http.StatusForbidden {
					t.Errorf("%s: %d", never, status)
				}
			}
			again := w.connected(t, "jonas", pagerduty.Write)
			if status, _, body := w.ask(t, "POST", "/schedules/PX/overrides"); status != http.StatusCreated {
				t.Errorf("a change: %d %s (%q)", status, body, again.Scopes)
			}
			became, err := w.End(context.Background(), mira, "oncall")
			if became != grant.NotSupported || err != nil {
				t.Errorf("ended: %s, %v", became, err)
			}
			if got := w.connector.FinishURL(kept.Account); got != "https://app.pagerduty.com" {
				t.Errorf("people finish at %s", got)
			}
			if status, _, _ := w.ask(t, "GET", "/oncalls"); status != http.StatusConflict {
				t.Errorf("afterwards: %d", status)
			}
		})
	}
}

// PagerDuty grants what it knows of a request, and openid with everything.
func TestP12_OpenIDAloneConnectsNothingAndSaysWhatIsMissing(t *testing.T) {
	w := start(t, pagerduty.Scoped, demo.OnCallQuirks{}) // the app there has Classic User OAuth
	_, err := w.connect(t, "mira", pagerduty.Read)
	fails(t, "openid alone", err, grant.Narrow, connector.ScopesMissing, "oncalls.read", "schedules.read", "users.read",
		"teams.read", "escalation_policies.read", "services.read", "incidents.read")
	w = start(t, pagerduty.Classic, demo.OnCallQuirks{Scoped: true}) // and the other way round
	_, err = w.connect(t, "mira", pagerduty.Read)
	fails(t, "the other way round", err, grant.Narrow, connector.ScopesMissing, "read")
	w = start(t, pagerduty.Scoped, demo.OnCallQuirks{Scoped: true})
	w.Set(testenv.Fault{Endpoint: testenv.Token, JSON: func(a map[string]any) {
		a["scope"] = strings.Replace(a["scope"].(string), " teams.read", "", 1)
	}})
	_, err = w.connect(t, "mira", pagerduty.Read)
	fails(t, "one is missing", err, grant.Narrow, connector.ScopesMissing, "teams.read")
	if views, err := w.View(t.Context(), mira); err != nil || len(views) != 1 || views[0].Kept != nil {
		t.Errorf("something is stored: %+v, %v", views, err)
	}
}

// More than was asked for would be kept here without anybody having agreed to it.
func TestP12_MoreThanWasAskedForConnectsNothing(t *testing.T) {
	for kind, scope := range map[string]string{pagerduty.Classic: "openid read write",
		pagerduty.Scoped: "openid read write oncalls.read schedules.read users.read teams.read " +
			"escalation_policies.read services.read incidents.read"} {
		w := start(t, kind, demo.OnCallQuirks{Scoped: kind == pagerduty.Scoped})
		w.Set(testenv.Fault{Endpoint: testenv.Token, JSON: func(a map[string]any) { a["scope"] = scope }})
		_, err := w.connect(t, "mira", pagerduty.Read)
		fails(t, kind, err, grant.Ours, pagerduty.ScopesWider)
	}
	w := start(t, pagerduty.Classic, demo.OnCallQuirks{})
	w.Set(testenv.Fault{Endpoint: testenv.Token, JSON: func(a map[string]any) { a["scope"] = "read write openid" }})
	if _, err := w.connect(t, "mira", pagerduty.Write); err != nil {
		t.Errorf("write includes read, said or not: %v", err)
	}
}

// A code is redeemed in the callback. One that took longer than 30 seconds is over.
func TestP06_ACodeIsOverAfterThirtySeconds(t *testing.T) {
	for age, good := range map[time.Duration]bool{29 * time.Second: true, 31 * time.Second: false} {
		clock := testenv.StandingClock(time.Now())
		w := startAt(t, pagerduty.Classic, demo.OnCallQuirks{}, clock.Now)
		ask, callback := w.agree(t, "mira", pagerduty.Read, "allow")
		clock.Advance(age)
		_, err := w.Connect(t.Context(), mira, ask, callback, handshake(), false)
		if good && err != nil {
			t.Errorf("after %v: %v", age, err)
		}
		if !good {
			fails(t, age.String(), err, grant.Yours, connector.GrantRefused)
		}
		if n := w.Hits(testenv.Token); n != 1 {
			t.Errorf("after %v: the token endpoint was asked %d times", age, n)
		}
	}
}

func TestWhoSaysNoHasConnectedNothing(t *testing.T) {
	w := start(t, pagerduty.Classic, demo.OnCallQuirks{})
	ask, callback := w.agree(t, "mira", pagerduty.Read, "cancel")
	_, err := w.Connect(t.Context(), mira, ask, callback, handshake(), false)
	fails(t, "no", err, grant.Yours, connector.Denied)
	if w.Hits(testenv.Token) != 0 {
		t.Error("the token endpoint was asked")
	}
}

// A refresh token is good once. One that is shown again ends the grant where PagerDuty has it
// so; where an answer was lost, it is shown once more and not a third time.
func TestP14_ARefreshTokenIsReplacedAndALostAnswerIsAskedForOnceMore(t *testing.T) {
	for name, quirks := range map[string]demo.OnCallQuirks{"refused": {}, "ends the grant": {ReuseEnds: true}} {
		t.Run(name, func(t *testing.T) {
			w := start(t, pagerduty.Classic, quirks)
			w.connected(t, "mira", pagerduty.Read)
			w.OnCall.EndAccessTokens()
			if status, _, body := w.ask(t, "GET", "/oncalls"); status != http.StatusOK {
				t.Errorf("refreshed: %d %s", status, body)
			}
			var shown []string
			for _, r := range w.Requests(testenv.Token) {
				form, err := url.ParseQuery(string(r.Body))
				testenv.Check(t, err)
				shown = append(shown, form.Get("refresh_token"))
			}
			_, err := w.connector.Refresh(t.Context(), grant.Tokens{Refresh: shown[1]}, nil)
			fails(t, "the refresh token before", err, grant.Yours, connector.GrantRefused)
			want := http.StatusOK
			if quirks.ReuseEnds {
				want = http.StatusUnauthorized // and the grant is not refreshed twice in a minute
			}
			if status, _, body := w.ask(t, "GET", "/oncalls"); status != want {
				t.Errorf("after it was shown again: %d %s", status, body)
			}
			if n := w.Hits(testenv.Token); n != 3 {
				t.Errorf("the token endpoint was asked %d times", n)
			}
		})
		t.Run(name+", and the answer was lost", func(t *testing.T) {
			w := start(t, pagerduty.Classic, quirks)
			w.connected(t, "mira", pagerduty.Read)
			w.OnCall.EndAccessTokens()
			w.Set(testenv.Fault{Endpoint: testenv.Token, Lose: true, Times: 1})
			status, _, body := w.ask(t, "GET", "/oncalls")
			if status != http.StatusConflict || !strings.Contains(body, "reconnect") {
				t.Errorf("%d %s", status, body)
			}
			if status, reason := w.status(t); status != grant.NeedsReconnect || reason != connector.GrantRefused {
				t.Errorf("%s (%s)", status, reason)
			}
			if n := w.Hits(testenv.Token); n != 3 { // the code, and the refresh token twice
				t.Errorf("the token endpoint was asked %d times", n)
			}
		})
	}
}

// The address of the keys has them, or that of a document that has them, which has to be
// PagerDuty's too.
func TestP06_KeysAreFoundThroughAPointerOrAtOnce(t *testing.T) {
	for name, quirks := range map[string]demo.OnCallQuirks{"a pointer": {}, "the keys": {PlainKeys: true}} {
		w := start(t, pagerduty.Classic, quirks)
		w.connected(t, "mira", pagerduty.Read)
		if got, want := w.Hits(testenv.Keys), 1; w.Hits(testenv.JWKS) != 1 || (got == want) == quirks.PlainKeys {
			t.Errorf("%s: asked %d and %d times", name, w.Hits(testenv.JWKS), got)
		}
	}
	attacker := testenv.NewAttacker(t)
	for name, fault := range map[string]testenv.Fault{
		"a pointer elsewhere": {Endpoint: testenv.JWKS, Body: `{"jwks_uri":"` + attacker.URL + `/keys"}`},
		"a second pointer":    {Endpoint: testenv.Keys, Body: `{"jwks_uri":"/keys"}`},
		"no keys":             {Endpoint: testenv.Keys, Body: `{"keys":[]}`},
		"away":                {Endpoint: testenv.JWKS, Status: 503},
		"a redirect":          {Endpoint: testenv.JWKS, Redirect: attacker.URL},
	} {
		w := start(t, pagerduty.Classic, demo.OnCallQuirks{})
		w.Set(fault)
		_, err := w.connect(t, "mira", pagerduty.Read)
		fails(t, name, err, grant.Later, connector.KeysMissing)
	}
	if asked := attacker.Requests(); asked != nil {
		t.Errorf("somebody else was asked for keys: %+v", asked)
	}
	for name, resign := range map[string]testenv.Signer{"unsigned": testenv.Unsigned,
		"another's key": func(_ *demo.Provider, header, claims map[string]any) (string, error) {
			other, err := demo.NewOnCall(demo.OnCallOptions{Origin: "http://127.0.0.1:1", ClientID: "x", ClientSecret: "y"})
			if err != nil {
				return "", err
			}
			return other.Sign(header, claims)
		}} {
		w := start(t, pagerduty.Classic, demo.OnCallQuirks{})
		w.Set(testenv.Fault{Endpoint: testenv.Token, Resign: resign})
		_, err := w.connect(t, "mira", pagerduty.Read)
		fails(t, name, err, grant.Lost, connector.IDTokenRefused)
	}
}

func TestP06_BothIssuersAndBothFormsOfSubAreTheSameAccount(t *testing.T) {
	for _, quirks := range []demo.OnCallQuirks{{}, {OldIssuer: true}, {SubjectIsEmail: true},
		{OldIssuer: true, SubjectIsEmail: true}} {
		w := start(t, pagerduty.Classic, quirks)
		kept := w.connected(t, "mira", pagerduty.Read)
		if kept.Account.ID != w.OnCall.AccountID("mira")+"/"+w.OnCall.UserID("mira") {
			t.Errorf("%+v: %+v", quirks, kept.Account)
		}
	}
}

// Each claim is broken alone; the token is signed again with PagerDuty's own key.
func TestP06_AnIDTokenOfSomethingElseConnectsNothing(t *testing.T) {
	const us, eu = "https://api.pagerduty.com", "https://api.eu.pagerduty.com"
	for name, change := range map[string]func(map[string]any){
		"another issuer":     testenv.With("iss", "https://identity.pagerduty.com.evil.test/global/oauth/anonymous"),
		"no issuer":          testenv.Without("iss"),
		"no API":             testenv.With("aud", []string{"me"}),
		"both APIs":          testenv.With("aud", []string{"me", us, eu}),
		"another API":        testenv.With("aud", []string{"me", "https://api.pd-staging.com"}),
		"another client":     testenv.With("aud", []string{"other", us}),
		"an API alone":       testenv.With("aud", us),
		"an API twice":       testenv.With("aud", []string{us, us}),
		"another azp":        testenv.With("azp", "other"),
		"no azp":             testenv.Without("azp"),
		"an access token":    testenv.With("purpose", "access"),
		"no purpose":         testenv.Without("purpose"),
		"over":               testenv.With("exp", time.Now().Add(-time.Hour).Unix()),
		"of another sign-in": testenv.With("nonce", "other"),
	} {
		w := start(t, pagerduty.Classic, demo.OnCallQuirks{})
		w.Set(testenv.Fault{Endpoint: testenv.Token, Claims: change})
		_, err := w.connect(t, "mira", pagerduty.Read)
		fails(t, name, err, grant.Lost, connector.IDTokenRefused)
	}
	for name, change := range map[string]func(map[string]any){"no account": testenv.Without("account_id"),
		"an odd account": testenv.With("account_id", "A/B"), "no user": testenv.With("user_id", "")} {
		w := start(t, pagerduty.Classic, demo.OnCallQuirks{})
		w.Set(testenv.Fault{Endpoint: testenv.Token, Claims: change})
		_, err := w.connect(t, "mira", pagerduty.Read)
		fails(t, name, err, grant.Lost, connector.NoAccount)
	}
	w := start(t, pagerduty.Classic, demo.OnCallQuirks{})
	w.Set(testenv.Fault{Endpoint: testenv.Token, JSON: func(a map[string]any) { delete(a, "id_token") }})
	_, err := w.connect(t, "mira", pagerduty.Read)
	fails(t, "none", err, grant.Lost, connector.NoAccount)
}

// The audience says in which region an account is, and its requests go there. What the claim
// region says is a label.
func TestP12_AnAccountOfEuropeIsAskedForInEurope(t *testing.T) {
	w := start(t, pagerduty.Classic, demo.OnCallQuirks{})
	kept := w.connected(t, "tomoko", pagerduty.Read)
	if kept.Account.Region != "eu" || kept.Account.Name != "tomoko@birch.example" ||
		w.connector.Origin(kept.Account) != w.URL+"/eu" {
		t.Errorf("%+v, at %s", kept.Account, w.connector.Origin(kept.Account))
	}
	if status, _, body := w.ask(t, "GET", "/oncalls"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	client, err := oauth.NewClient(oauth.Options{Provider: "oncall"})
	testenv.Check(t, err)
	c, err := pagerduty.New(pagerduty.Options{Client: connector.Client{ID: "x", ClientID: "c", ClientSecret: "s",
		OAuth: client}})
	testenv.Check(t, err)
	for region, want := range map[string]string{"us": "https://api.pagerduty.com", "eu": "https://api.eu.pagerduty.com",
		"": "https://api.pagerduty.com", "UnitedStates": "https://api.pagerduty.com"} {
		if got := c.Origin(grant.Account{Region: region}); got != want {
			t.Errorf("%q: %s", region, got)
		}
	}
}

// A refresh that brings an ID token of another account, user or region is dropped: what it
// brought is somebody else's.
func TestP12_ARefreshOfAnotherAccountOrRegionIsNotLent(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(map[string]any)
		lent   bool
	}{
		"the same":        {testenv.With("sub", "another form"), true},
		"another account": {testenv.With("account_id", "POTHER1"), false},
		"another user":    {testenv.With("user_id", "POTHER1"), false},
		"another region":  {testenv.With("aud", []string{"me", "https://api.eu.pagerduty.com"}), false},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, pagerduty.Classic, demo.OnCallQuirks{RefreshTells: true})
			w.connected(t, "mira", pagerduty.Read)
			w.OnCall.EndAccessTokens()
			w.Set(testenv.Fault{Endpoint: testenv.Token, Claims: tt.change})
			status, _, body := w.ask(t, "GET", "/oncalls")
			if tt.lent != (status == http.StatusOK) {
				t.Errorf("%d %s", status, body)
			}
			if is, reason := w.status(t); !tt.lent && (is != grant.NeedsReconnect || reason != grant.ReasonOtherAccount) {
				t.Errorf("%s (%s)", is, reason)
			}
		})
	}
}

// The end of the window is that of the consent, and no refresh moves it.
func TestTheDayOnWhichPagerDutyAsksAgainStays(t *testing.T) {
	w := start(t, pagerduty.Classic, demo.OnCallQuirks{})
	kept := w.connected(t, "mira", pagerduty.Read)
	w.OnCall.EndAccessTokens()
	if status, _, body := w.ask(t, "GET", "/oncalls"); status != http.StatusOK || w.Hits(testenv.Token) != 2 {
		t.Fatalf("%d %s", status, body)
	}
	views, err := w.View(t.Context(), mira)
	if err != nil || len(views) != 1 || !views[0].Kept.Reconsent.Equal(kept.Reconsent) {
		t.Errorf("%+v, %v", views, err)
	}
}

// From is the address that PagerDuty has of the user, whatever the app says; where it is not
// known, the one that the person's provider vouched for.
func TestP12_FromIsTheUserOfTheAccount(t *testing.T) {
	for name, tt := range map[string]struct {
		fault testenv.Fault
		from  string
	}{
		"as PagerDuty has it": {testenv.Fault{}, "jonas@acme.example"},
		"it does not tell": {testenv.Fault{Endpoint: testenv.UsersMe, Status: 403, Body: `{"error":"no"}`},
			mira.Email},
		"it is limited": {testenv.Fault{Endpoint: testenv.UsersMe, Status: 429, Body: `{}`}, mira.Email},
		"it is of somebody else": {testenv.Fault{Endpoint: testenv.UsersMe,
			Body: `{"user":{"id":"PX","email":"x@y.test"}}`}, mira.Email},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, pagerduty.Classic, demo.OnCallQuirks{})
			w.Set(tt.fault)
			kept := w.connected(t, "jonas", pagerduty.Write)
			if status, _, body := w.ask(t, "PUT", "/incidents/PX"); status != http.StatusOK {
				t.Errorf("%d %s", status, body)
			}
			if changes := w.OnCall.Changes(); len(changes) != 1 || changes[0].From != tt.from {
				t.Errorf("PagerDuty was told %+v (%+v)", changes, kept.Account)
			}
		})
	}
}

// Errors of the API are texts or objects, and the app gets them as they are.
func TestErrorsOfTheAPIAreTextsOrObjects(t *testing.T) {
	for want, quirks := range map[string]demo.OnCallQuirks{
		`{"error":"Access Denied"}`: {TextErrors: true},
		`{"error":{"code":2010,"errors":["Access Denied"],"message":"Access Denied"}}`: {},
	} {
		w := start(t, pagerduty.Classic, quirks)
		w.connected(t, "mira", pagerduty.Write)
		w.Set(testenv.Fault{Endpoint: testenv.OnCalls, Status: 403, Body: want})
		if status, _, body := w.ask(t, "GET", "/oncalls"); status != http.StatusForbidden || body != want {
			t.Errorf("%d %s", status, body)
		}
	}
}

func TestPagerDutys429WithoutHeadersIsPassedOn(t *testing.T) {
	w := start(t, pagerduty.Classic, demo.OnCallQuirks{})
	w.connected(t, "mira", pagerduty.Read)
	w.Set(testenv.Fault{Endpoint: testenv.OnCalls, Status: 429, Body: `{}`})
	status, h, _ := w.ask(t, "GET", "/oncalls")
	if status != http.StatusTooManyRequests || h.Get("Retry-After") != "" || w.Hits(testenv.OnCalls) != 1 {
		t.Errorf("%d %v, asked %d times", status, h, w.Hits(testenv.OnCalls))
	}
	w = start(t, pagerduty.Classic, demo.OnCallQuirks{})
	w.connected(t, "mira", pagerduty.Read)
	w.OnCall.EndAccessTokens()
	w.Set(testenv.Fault{Endpoint: testenv.Token, Status: 429, Body: `{}`})
	if status, h, _ := w.ask(t, "GET", "/oncalls"); status != http.StatusServiceUnavailable || h.Get("Retry-After") == "" {
		t.Errorf("of the token endpoint: %d %v", status, h)
	}
	if is, reason := w.status(t); is != grant.Degraded || reason != connector.Busy {
		t.Errorf("%s (%s)", is, reason)
	}
}

// What codes of the token endpoint mean for a grant, and those that come with a browser.
func TestWhatPagerDutysCodesMean(t *testing.T) {
	for code, want := range map[string]struct {
		class  grant.Class
		reason string
	}{
		"invalid_grant":           {grant.Yours, connector.GrantRefused},
		"access_denied":           {grant.Yours, connector.Denied},
		"invalid_client":          {grant.Ours, connector.ClientRefused},
		"unauthorized_client":     {grant.Ours, connector.RequestRefused},
		"invalid_request":         {grant.Ours, connector.RequestRefused},
		"invalid_scope":           {grant.Ours, connector.RequestRefused},
		"unsupported_grant_type":  {grant.Ours, connector.RequestRefused},
		"server_error":            {grant.Later, connector.Busy},
		"temporarily_unavailable": {grant.Later, connector.Busy},
		"something_new":           {grant.Later, connector.UnknownCode},
	} {
		w := start(t, pagerduty.Classic, demo.OnCallQuirks{})
		w.Set(testenv.Fault{Endpoint: testenv.Token, Status: 400, Body: `{"error":"` + code + `"}`})
		_, err := w.connector.Refresh(t.Context(), grant.Tokens{Refresh: "r"}, nil)
		fails(t, code, err, want.class, want.reason)
		_, err = w.connector.Redeem(t.Context(), url.Values{"error": {code}}, handshake(), grant.Request{})
		fails(t, code+" in a callback", err, want.class, want.reason)
	}
	w := start(t, pagerduty.Classic, demo.OnCallQuirks{})
	granttest.GuideCodes(t, "../../docs/connectors/pagerduty.md", func(code string) error {
		w.Set(testenv.Fault{Endpoint: testenv.Token, Status: 400, Body: `{"error":"` + code + `"}`})
		_, err := w.connector.Refresh(t.Context(), grant.Tokens{Refresh: "r"}, nil)
		return err
	})
}
