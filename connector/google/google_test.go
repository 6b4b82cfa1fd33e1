package google_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/google"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	clientID = "123456789012-abc.apps.googleusercontent.com"
	secret   = "GOCSPX-canary-client-secret"
	redirect = "https://sallyport.test/.sallyport/connect/calendar/callback"
	openID   = "openid"
	email    = "email"
	longer   = "https://www.googleapis.com/auth/userinfo.email" // how Google spells email in answers
	freebusy = "https://www.googleapis.com/auth/calendar.freebusy"
	events   = "https://www.googleapis.com/auth/calendar.events.readonly"
)

func handshake() identity.Handshake {
	return identity.Handshake{State: "st", Nonce: "no", Verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"}
}

func request(scopes ...string) grant.Request {
	return grant.Request{RedirectURI: redirect, Scopes: append([]string{openID, email}, scopes...), Offline: true}
}

func callback(pairs ...string) url.Values {
	q := url.Values{"code": {"4/0AY0e-g7"}, "state": {"st"}}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Add(pairs[i], pairs[i+1])
	}
	return q
}

// pretend is a small Google: it records each request as it came, and answers as it is told.
type pretend struct {
	mu     sync.Mutex
	got    []string // request line, headers that matter, and the body
	status int
	body   any
	url    string
}

func start(t *testing.T) *pretend {
	t.Helper()
	p := &pretend{status: http.StatusOK}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.got = append(p.got, r.Method+" "+r.RequestURI+"\n"+r.Header.Get("Authorization")+"\n"+
			r.Header.Get("Content-Type")+"\n"+string(raw))
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(p.status)
		_ = json.NewEncoder(w).Encode(p.body)
	}))
	t.Cleanup(srv.Close)
	p.url = srv.URL
	return p
}

func (p *pretend) answers(status int, body any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.body = status, body
}

// asked returns what it got since it was asked last.
func (p *pretend) asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	return got
}

// tokens is a whole answer to a code; change makes it another one.
func tokens(scopes string, change func(answer, claims map[string]any)) map[string]any {
	c := claims(clientID, handshake().Nonce)
	answer := map[string]any{"access_token": "ya29.a0", "expires_in": 3599, "refresh_token": "1//0g",
		"scope": scopes, "token_type": "Bearer"}
	if change != nil {
		change(answer, c)
	}
	if _, own := answer["id_token"]; !own {
		answer["id_token"] = idToken(c)
	}
	return answer
}

func calendar(t *testing.T, base string) *google.Connector {
	t.Helper()
	return calendarOf(t, base, clientID)
}

func calendarOf(t *testing.T, base, client string) *google.Connector {
	t.Helper()
	calls, err := oauth.NewClient(oauth.Options{Provider: "calendar"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(calls.CloseIdleConnections)
	c, err := google.New(connector.Client{ID: "calendar", ClientID: client, ClientSecret: secret, Base: base,
		OAuth: calls})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fails(t *testing.T, what string, err error, class grant.Class, reason string) {
	t.Helper()
	if e, ok := errors.AsType[*grant.Error](err); !ok || e.Class != class || e.Reason != reason {
		t.Errorf("%s: %v, not %s (%s)", what, err, class, reason)
	}
}

func TestP06_PeopleAreSentToGoogleForThatMuchAndNoMore(t *testing.T) {
	c := calendar(t, "")
	for name, tt := range map[string]struct {
		change func(*grant.Request)
		want   map[string]string
	}{
		"to be refreshed": {func(*grant.Request) {}, map[string]string{"access_type": "offline",
			"prompt": "select_account consent"}},
		"again": {func(r *grant.Request) { r.LoginHint = address }, map[string]string{"access_type": "offline",
			"prompt": "select_account consent", "login_hint": address}},
		"while the person is there": {func(r *grant.Request) { r.Offline = false }, map[string]string{
			"access_type": "online", "prompt": "select_account"}},
	} {
		r := request(freebusy)
		tt.change(&r)
		text, err := c.AuthURL(handshake(), r)
		if err != nil {
			t.Fatal(err)
		}
		endpoint, query, _ := strings.Cut(text, "?")
		if endpoint != "https://accounts.google.com/o/oauth2/v2/auth" {
			t.Errorf("%s: people are sent to %s", name, endpoint)
		}
		want := url.Values{"response_type": {"code"}, "client_id": {clientID}, "redirect_uri": {redirect},
			"state": {"st"}, "nonce": {"no"}, "code_challenge_method": {"S256"},
			"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, // RFC 7636 appendix B
			"scope":          {openID + " " + email + " " + freebusy}}
		for key, value := range tt.want {
			want.Set(key, value)
		}
		if got, err := url.ParseQuery(query); err != nil || got.Encode() != want.Encode() {
			t.Errorf("%s: sent with\n%s, not\n%s; %v", name, got.Encode(), want.Encode(), err)
		}
	}
	if _, err := c.AuthURL(identity.Handshake{State: "st", Verifier: "v"}, request(freebusy)); err == nil {
		t.Error("people are sent away without a nonce")
	}
}

// What is sent to Google is written down here byte for byte.
func TestP14_EachRequestToGoogleIsSentOnceAndSaysThatMuch(t *testing.T) {
	p := start(t)
	c := calendar(t, p.url)
	post := func(path, form string) []string {
		return []string{"POST " + path + "\n\napplication/x-www-form-urlencoded\n" + form}
	}
	client := "client_id=" + clientID + "&client_secret=" + secret
	p.answers(200, tokens(openID+" "+longer+" "+freebusy, nil))
	if _, err := c.Redeem(t.Context(), callback("iss", "https://accounts.google.com"), handshake(),
		request(freebusy)); err != nil {
		t.Error(err)
	}
	want := post("/token", client+"&code=4%2F0AY0e-g7&code_verifier="+handshake().Verifier+
		"&grant_type=authorization_code&redirect_uri="+url.QueryEscape(redirect))
	if got := p.asked(); !slices.Equal(got, want) {
		t.Errorf("for a code: %q", got)
	}
	if _, err := c.Refresh(t.Context(), grant.Tokens{Refresh: "1//0g"}, []string{freebusy}); err != nil {
		t.Error(err)
	}
	want = post("/token", client+"&grant_type=refresh_token&refresh_token=1%2F%2F0g")
	if got := p.asked(); !slices.Equal(got, want) {
		t.Errorf("for a refresh token: %q", got)
	}
	if became, err := c.Revoke(t.Context(), grant.Tokens{Access: "ya29.a0", Refresh: "1//0g"}, 0); became !=
		grant.Revoked {
		t.Errorf("%s, %v", became, err)
	}
	if got := p.asked(); !slices.Equal(got, post("/revoke", "client_id="+clientID+"&token=1%2F%2F0g")) {
		t.Errorf("for the end: %q", got)
	}
}

// A revocation at Google ends all that a person granted to the project.
func TestEndingOneGrantDoesNotEndTheOthersOfTheAccount(t *testing.T) {
	p := start(t)
	c := calendar(t, p.url)
	became, err := c.Revoke(t.Context(), grant.Tokens{Refresh: "1//0g"}, 1)
	if got := p.asked(); became != grant.SharedThere || err != nil || got != nil {
		t.Errorf("%s, %v, asked %q", became, err, got)
	}
	if u, err := url.Parse(c.FinishURL(grant.Account{})); err != nil || u.Host != "myaccount.google.com" {
		t.Errorf("it is ended by hand at %v, %v", u, err)
	}
	// Nor does a connection that came to nothing.
	p.answers(200, tokens(openID+" "+longer, nil))
	if _, err := c.Redeem(t.Context(), callback(), handshake(), request(freebusy)); err == nil {
		t.Error("it came to something")
	}
	if got := p.asked(); len(got) != 1 || !strings.HasPrefix(got[0], "POST /token\n") {
		t.Errorf("asked %q", got)
	}
}

func TestClientsOfOneProjectShareTheirEnd(t *testing.T) {
	c := calendar(t, "")
	for other, want := range map[string]bool{
		clientID: true,
		"123456789012-other.apps.googleusercontent.com":  true,
		"223456789012-abc.apps.googleusercontent.com":    false,
		"12345678901-abc.apps.googleusercontent.com":     false,
		"123456789012-abc.apps.googleusercontent.com.at": false,
		"123456789012": false,
		"":             false,
	} {
		if c.Shares(clientID, other) != want || c.Shares(other, clientID) != want {
			t.Errorf("with %q: %v", other, !want)
		}
	}
	for _, odd := range []string{"", "me", "-abc.apps.googleusercontent.com", "x-abc.apps.googleusercontent.com"} {
		if c.Shares(odd, odd) {
			t.Errorf("%q is of no project that can be known", odd)
		}
	}
}

// People may untick each scope, and Google spells some of them in its own way.
func TestWhatWasGrantedIsWhatGoogleSays(t *testing.T) {
	p := start(t)
	c := calendar(t, p.url)
	r := request(freebusy, events)
	for said, want := range map[string][]string{
		openID + " " + longer + " " + freebusy + " " + events: {openID, email, freebusy, events},
		events + " email " + freebusy + " openid":             {openID, email, freebusy, events},
		"email openid https://www.googleapis.com/auth/userinfo.profile profile " + events + " " + freebusy +
			" https://www.googleapis.com/auth/drive " + longer: {openID, email, freebusy, events,
			"https://www.googleapis.com/auth/drive", "profile"},
	} {
		p.answers(200, tokens(said, nil))
		got, err := c.Redeem(t.Context(), callback(), handshake(), r)
		if slices.Sort(want); err != nil || !slices.Equal(got.Scopes, want) {
			t.Errorf("%q: %q, %v", said, got.Scopes, err)
		}
	}
	for said, missing := range map[string][]string{
		openID + " email " + freebusy:                       {events},
		openID + " " + events + " " + longer:                {freebusy},
		"openid " + longer:                                  {freebusy, events},
		freebusy + " " + events + " " + openID:              {email},
		openID + " email " + freebusy + " " + events + "2":  {events},
		openID + " email " + freebusy + "," + events:        {freebusy, events},
		openID + " email " + freebusy + " calendar.events.": {events},
	} {
		p.answers(200, tokens(said, nil))
		_, err := c.Redeem(t.Context(), callback(), handshake(), r)
		e, _ := errors.AsType[*grant.Error](err)
		if e == nil || e.Class != grant.Narrow || !slices.Equal(e.Missing, missing) {
			t.Errorf("%q: %v", said, err)
		}
	}
	// The refresh of a grant whose owner took something back says so.
	p.answers(200, map[string]any{"access_token": "ya29.a1", "expires_in": 3599, "scope": "openid " + longer,
		"token_type": "Bearer"})
	got, err := c.Refresh(t.Context(), grant.Tokens{Refresh: "1//0g"}, r.Scopes)
	if err != nil || !slices.Equal(got.Scopes, []string{email, openID}) {
		t.Errorf("after a refresh: %q, %v", got.Scopes, err)
	}
}

func TestTheAccountIsThatOfTheIDToken(t *testing.T) {
	p := start(t)
	c := calendar(t, p.url)
	all := openID + " " + longer + " " + freebusy
	redeem := func(change func(answer, claims map[string]any)) (grant.Result, error) {
		p.answers(200, tokens(all, change))
		got, err := c.Redeem(t.Context(), callback(), handshake(), request(freebusy))
		if n := len(p.asked()); n != 1 {
			t.Errorf("Google was asked %d times", n)
		}
		return got, err
	}
	got, err := redeem(func(_, c map[string]any) { c["iss"] = "accounts.google.com" })
	if err != nil || got.Account != (grant.Account{ID: subject, Name: address}) {
		t.Errorf("by Google's old name: %+v, %v", got.Account, err)
	}
	for name, change := range map[string]func(answer, claims map[string]any){
		"another's nonce":    func(_, c map[string]any) { c["nonce"] = "other" },
		"no nonce":           func(_, c map[string]any) { delete(c, "nonce") },
		"another client":     func(_, c map[string]any) { c["aud"] = "other" },
		"another issuer":     func(_, c map[string]any) { c["iss"] = "https://accounts.google.com.evil.test" },
		"an insecure issuer": func(_, c map[string]any) { c["iss"] = "http://accounts.google.com" },
		"over":               func(_, c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() },
		"no token but words": func(a, _ map[string]any) { a["id_token"] = "words" },
	} {
		_, err := redeem(change)
		fails(t, name, err, grant.Lost, connector.IDTokenRefused)
	}
	_, err = redeem(func(a, _ map[string]any) { a["id_token"] = "" })
	fails(t, "none", err, grant.Lost, connector.NoAccount)
}

func TestWithoutARefreshTokenNothingIsConnected(t *testing.T) {
	p := start(t)
	c := calendar(t, p.url)
	all := openID + " " + longer + " " + freebusy
	p.answers(200, tokens(all, func(a, _ map[string]any) { delete(a, "refresh_token") }))
	_, err := c.Redeem(t.Context(), callback(), handshake(), request(freebusy))
	fails(t, "to be refreshed", err, grant.Yours, connector.NoRefreshToken)

	r := request(freebusy)
	r.Offline = false
	got, err := c.Redeem(t.Context(), callback(), handshake(), r)
	if err != nil || got.Tokens.Refresh != "" || got.Tokens.AccessExpires.IsZero() {
		t.Errorf("while the person is there: %v", err)
	}
}

// Access that a person gave for a time ends whatever we do, and a project that is in testing
// gives no other.
func TestGoogleSaysWhenThePersonIsAskedAgain(t *testing.T) {
	p := start(t)
	c := calendar(t, p.url)
	week := func(a, _ map[string]any) { a["refresh_token_expires_in"] = 604799 }
	p.answers(200, tokens(openID+" "+longer+" "+freebusy, week))
	within := func(at time.Time) bool {
		left := time.Until(at)
		return left > 604799*time.Second-time.Hour && left <= 604799*time.Second
	}
	got, err := c.Redeem(t.Context(), callback(), handshake(), request(freebusy))
	if err != nil || !within(got.Tokens.RefreshExpires) || !within(got.Tokens.Reconsent) {
		t.Errorf("until %v, %v, %v", got.Tokens.RefreshExpires, got.Tokens.Reconsent, err)
	}
	for _, odd := range []any{nil, 0, -1, "x", 1e30, map[string]any{}} {
		p.answers(200, tokens(openID+" "+longer+" "+freebusy,
			func(a, _ map[string]any) { a["refresh_token_expires_in"] = odd }))
		got, err := c.Redeem(t.Context(), callback(), handshake(), request(freebusy))
		if err != nil || !got.Tokens.RefreshExpires.IsZero() || !got.Tokens.Reconsent.IsZero() {
			t.Errorf("%v: until %v, %v", odd, got.Tokens.RefreshExpires, err)
		}
	}
}

func TestWhatGooglesCodesMean(t *testing.T) {
	p := start(t)
	c := calendar(t, p.url)
	for _, tt := range []struct {
		status int
		body   map[string]any
		class  grant.Class
		reason string
	}{
		{400, map[string]any{"error": "invalid_grant", "error_description": "Token has been expired or revoked."},
			grant.Yours, connector.GrantRefused},
		{400, map[string]any{"error": "invalid_grant", "error_subtype": "invalid_rapt"}, grant.Yours, google.SessionControl},
		{400, map[string]any{"error": "invalid_grant", "error_subtype": "rapt_required"}, grant.Yours, google.SessionControl},
		{400, map[string]any{"error": "admin_policy_enforced"}, grant.AdminTheir, google.AdminPolicy},
		{401, map[string]any{"error": "invalid_client"}, grant.Ours, connector.ClientRefused},
		{401, map[string]any{"error": "deleted_client"}, grant.Ours, connector.ClientRefused},
		{401, map[string]any{"error": "disabled_client"}, grant.Ours, connector.ClientRefused},
		{401, map[string]any{"error": "unauthorized_client"}, grant.Ours, connector.RequestRefused},
		{403, map[string]any{"error": "org_internal"}, grant.Ours, connector.ClientRefused},
		{400, map[string]any{"error": "redirect_uri_mismatch"}, grant.Ours, connector.RequestRefused},
		{400, map[string]any{"error": "internal_failure"}, grant.Later, connector.Busy},
		{429, map[string]any{"error": "invalid_grant"}, grant.Later, connector.Busy},
		{503, map[string]any{"error": map[string]any{"code": 503}}, grant.Later, connector.Busy},
		{403, map[string]any{"error": map[string]any{"code": 403, "status": "PERMISSION_DENIED"}}, grant.Later,
			connector.UnknownCode},
	} {
		p.answers(tt.status, tt.body)
		_, err := c.Refresh(t.Context(), grant.Tokens{Refresh: "1//0g"}, nil)
		fails(t, fmt.Sprint(tt.body), err, tt.class, tt.reason)
		if n := len(p.asked()); n != 1 {
			t.Errorf("%v: Google was asked %d times", tt.body, n)
		}
	}
	granttest.GuideCodes(t, "../../docs/connectors/google_calendar.md", func(code string) error {
		p.answers(http.StatusBadRequest, map[string]any{"error": code})
		_, err := c.Refresh(t.Context(), grant.Tokens{Refresh: "1//0g"}, nil)
		p.asked()
		return err
	})
	for code, class := range map[string]grant.Class{"access_denied": grant.Yours,
		"admin_policy_enforced": grant.AdminTheir, "org_internal": grant.Ours, "invalid_scope": grant.Ours} {
		for _, iss := range []url.Values{{}, {"iss": {"https://accounts.google.com"}}} {
			q := url.Values{"error": {code}, "state": {"st"}}
			if iss.Has("iss") {
				q["iss"] = iss["iss"]
			}
			_, err := c.Redeem(t.Context(), q, handshake(), request(freebusy))
			if grant.ClassOf(err) != class || p.asked() != nil {
				t.Errorf("a callback with %s: %v", code, err)
			}
		}
	}
}

func TestP06_ACallbackOfAnotherServerIsNotRedeemed(t *testing.T) {
	p := start(t)
	c := calendar(t, p.url)
	for name, q := range map[string]url.Values{
		"another":       callback("iss", "https://evil.test"),
		"none":          callback("iss", ""),
		"the old name":  callback("iss", "accounts.google.com"),
		"two":           callback("iss", "https://accounts.google.com", "iss", "https://evil.test"),
		"with an error": {"error": {"access_denied"}, "iss": {"https://evil.test"}},
	} {
		_, err := c.Redeem(t.Context(), q, handshake(), request(freebusy))
		fails(t, name, err, grant.Ours, google.OtherIssuer)
		if got := p.asked(); !errors.Is(err, grant.ErrIssuer) || got != nil {
			t.Errorf("%s: %v; Google was asked %q", name, err, got)
		}
	}
}

func TestRulesAreForWhatTheScopeAllows(t *testing.T) {
	about := calendar(t, "").About()
	if len(about.Accesses) != 2 || about.Accesses[0].Name != google.FreeBusy || about.Accesses[1].Name != google.Events {
		t.Fatalf("offered are %+v", about.Accesses)
	}
	through := func(access int, request string) bool {
		method, path, _ := strings.Cut(request, " ")
		return slices.ContainsFunc(about.Accesses[access].Rules, func(r grant.Rule) bool { return r.Match(method, path) })
	}
	const of = "/calendar/v3/calendars/"
	for _, tt := range []struct {
		request          string
		freebusy, events bool
	}{
		{"POST /calendar/v3/freeBusy", true, false},
		{"GET /calendar/v3/freeBusy", false, false},
		{"POST /calendar/v3/freebusy", false, false},
		{"GET " + of + "primary/events", false, true},
		{"HEAD " + of + "primary/events", false, true},
		{"GET " + of + "mira%40example.com/events", false, true},
		{"GET " + of + "en.german%23holiday%40group.v.calendar.google.com/events", false, true},
		{"GET " + of + "en.german%23holiday%40group.v.calendar.google.com/events/5k1_20261102", false, true},
		{"GET " + of + "primary/events/5k1/instances", false, true},
		{"GET " + of + "a%2Fevents", false, false},
		{"GET " + of + "primary", false, false},
		{"GET " + of + "primary/acl", false, false},
		{"GET /calendar/v3/users/me/calendarList", false, false},
		{"POST " + of + "primary/events", false, false},
		{"POST " + of + "primary/events/watch", false, false},
		{"POST " + of + "primary/events/quickAdd", false, false},
		{"PUT " + of + "primary/events/5k1", false, false},
		{"PATCH " + of + "primary/events/5k1", false, false},
		{"DELETE " + of + "primary/events/5k1", false, false},
		{"POST /batch/calendar/v3", false, false},
		{"GET /drive/v3/files", false, false},
	} {
		if through(0, tt.request) != tt.freebusy || through(1, tt.request) != tt.events {
			t.Errorf("%s: freebusy %v, events %v", tt.request, through(0, tt.request), through(1, tt.request))
		}
	}
	for i, scope := range []string{freebusy, events} {
		if got := about.Accesses[i].Scopes; !slices.Equal(got, []string{openID, email, scope}) {
			t.Errorf("%s needs %q", about.Accesses[i].Name, got)
		}
	}
	if !slices.Contains(about.TokenQuery, "key") || !about.Offline || !about.Resend {
		t.Errorf("about %+v", about)
	}
}

func TestAConfigurationThatCannotWorkIsRefusedWithItsKey(t *testing.T) {
	client, err := oauth.NewClient(oauth.Options{Provider: "calendar"})
	if err != nil {
		t.Fatal(err)
	}
	for key, changes := range map[string][]func(*connector.Client){
		"client_id":     {func(o *connector.Client) { o.ClientID = "" }},
		"client_secret": {func(o *connector.Client) { o.ClientSecret = "" }},
		"": {
			func(o *connector.Client) { o.ID = "" },
			func(o *connector.Client) { o.OAuth = nil },
			func(o *connector.Client) { o.Base = "http://google.test" },
		},
	} {
		for i, change := range changes {
			o := connector.Client{ID: "calendar", ClientID: clientID, ClientSecret: secret, OAuth: client}
			change(&o)
			_, err := google.New(o)
			fault, _ := errors.AsType[*connector.Fault](err)
			if err == nil || (fault != nil) != (key != "") || fault != nil && fault.Key != key {
				t.Errorf("%s, %d: %v", key, i, err)
			} else if strings.Contains(err.Error(), secret) {
				t.Errorf("the text is %q", err)
			}
		}
	}
}

func TestP08_AClientSecretDoesNotPrint(t *testing.T) {
	c := calendar(t, "")
	o := connector.Client{ID: "calendar", ClientID: clientID, ClientSecret: secret}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		for _, v := range []any{o, &o, c, *c, c.About()} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, secret) ||
				strings.Contains(text, fmt.Sprintf("%x", secret)) {
				t.Errorf("%s of a %T prints %s", verb, v, text)
			}
		}
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "options", o, "connector", c)
	if strings.Contains(log.String(), secret) {
		t.Errorf("a log says %s", log.String())
	}
}

// Who gives up waits no longer, and it was sent once.
func TestP14_WhoGivesUpHasAskedOnce(t *testing.T) {
	var mu sync.Mutex
	n := 0
	arrived, release := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		n++
		mu.Unlock()
		close(arrived)
		<-release
	}))
	defer srv.Close()
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err := calendar(t, srv.URL).Refresh(ctx, grant.Tokens{Refresh: "1//0g"}, nil)
	fails(t, "given up", err, grant.Lost, connector.NoAnswer)
	mu.Lock()
	defer mu.Unlock()
	if n != 1 {
		t.Errorf("Google was asked %d times", n)
	}
}
