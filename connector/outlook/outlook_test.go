package outlook_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/outlook"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	clientID = "00001111-aaaa-2222-bbbb-3333cccc4444"
	secret   = "canary~client~secret"
	redirect = "https://sallyport.test/.sallyport/connect/outlook/callback"
	personal = "9188040d-6c67-4c5b-b112-36a304b66dad"
	basic    = "Calendars.ReadBasic"
	read     = "Calendars.Read"
)

func unsaid() []string { return []string{"openid", "profile", "email", "offline_access"} }

func handshake() identity.Handshake {
	return identity.Handshake{State: "st", Nonce: "no", Verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"}
}

func request(scopes ...string) grant.Request {
	return grant.Request{RedirectURI: redirect, Scopes: append(unsaid(), scopes...), Offline: true}
}

func calendar(t *testing.T, base, tenant string) *outlook.Connector {
	t.Helper()
	calls, err := oauth.NewClient(oauth.Options{Provider: "outlook"})
	testenv.Check(t, err)
	t.Cleanup(calls.CloseIdleConnections)
	c, err := outlook.New(outlook.Options{Client: connector.Client{ID: "outlook", ClientID: clientID,
		ClientSecret: secret, Base: base, OAuth: calls}, Tenant: tenant})
	testenv.Check(t, err)
	return c
}

func fails(t *testing.T, what string, err error, class grant.Class, reason string) {
	t.Helper()
	if e, ok := errors.AsType[*grant.Error](err); !ok || e.Class != class || e.Reason != reason {
		t.Errorf("%s: %v, not %s (%s)", what, err, class, reason)
	}
}

// startMicrosoft starts a pretend Microsoft, at which Mira of Acme Rockets has a calendar.
func startMicrosoft(t *testing.T, change ...func(*demo.OutlookOptions)) *testenv.Faults {
	t.Helper()
	o := demo.OutlookOptions{Clients: []demo.CalendarClient{{ID: clientID, Secret: secret,
		RedirectURIs: []string{redirect}}}}
	for _, f := range change {
		f(&o)
	}
	return testenv.StartOutlook(t, o)
}

// browse goes to an address, where Mira agrees if she is asked to, and returns what the browser
// would bring back.
func browse(t *testing.T, address string) url.Values {
	t.Helper()
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := browser.Get(address)
	testenv.Check(t, err)
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		res, err = browser.PostForm(address, url.Values{"person": {"mira"}, "answer": {"allow"}})
		testenv.Check(t, err)
		defer res.Body.Close()
	}
	back, err := res.Location()
	if err != nil || !strings.HasPrefix(back.String(), redirect+"?") {
		t.Fatalf("%s, %v", res.Status, err)
	}
	return back.Query()
}

func connect(t *testing.T, c *outlook.Connector, r grant.Request) (grant.Result, error) {
	t.Helper()
	address, err := c.AuthURL(handshake(), r)
	testenv.Check(t, err)
	return c.Redeem(t.Context(), browse(t, address), handshake(), r)
}

func TestP06_PeopleAreSentToTheirTenantForThatMuchAndNoMore(t *testing.T) {
	for _, tenant := range []string{"common", "organizations", "consumers", tenant, "acme.example"} {
		address, err := calendar(t, "", tenant).AuthURL(handshake(), request(basic))
		testenv.Check(t, err)
		u, err := url.Parse(address)
		testenv.Check(t, err)
		want := url.Values{"response_type": {"code"}, "client_id": {clientID}, "redirect_uri": {redirect},
			"state": {"st"}, "nonce": {"no"}, "prompt": {"select_account"}, "code_challenge_method": {"S256"},
			"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, // of RFC 7636, Appendix B
			"scope":          {"openid profile email offline_access Calendars.ReadBasic"}}
		if u.Query().Encode() != want.Encode() || u.Scheme+"://"+u.Host+u.Path !=
			"https://login.microsoftonline.com/"+tenant+"/oauth2/v2.0/authorize" {
			t.Errorf("%s: %s", tenant, address)
		}
	}
}

// Browsers apply form-action to redirects too, so the page that asks has to let them go
// where personal accounts sign in.
func TestPersonalAccountsSignInElsewhere(t *testing.T) {
	for of, want := range map[string][]string{"common": {"https://login.live.com"},
		"consumers": {"https://login.live.com"}, "organizations": nil, tenant: nil} {
		if got := calendar(t, "", of).About().Onward; !slices.Equal(got, want) {
			t.Errorf("%s: %q", of, got)
		}
	}
}

// What goes over the wire, byte for byte, and once.
func TestP14_TheRequestsToTheTokenEndpoint(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	c := calendar(t, peer.URL(), "organizations")
	_, _ = c.Redeem(t.Context(), url.Values{"code": {"0.A b"}}, handshake(), request(basic))
	_, _ = c.Refresh(t.Context(), grant.Tokens{Refresh: "0.A/r"}, append(request(basic).Scopes, "User.Read", "Mail.Read"))
	const scope = "scope=openid+profile+email+offline_access+Calendars.ReadBasic"
	const client = "client_id=00001111-aaaa-2222-bbbb-3333cccc4444&client_secret=canary~client~secret&"
	want := []string{
		client + "code=0.A+b&code_verifier=dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk&grant_type=authorization_code&" +
			"redirect_uri=" + url.QueryEscape(redirect) + "&" + scope,
		client + "grant_type=refresh_token&refresh_token=0.A%2Fr&" + scope,
	}
	got := peer.Requests()
	if len(got) != len(want) {
		t.Fatalf("it was asked %d times: %q", len(got), got)
	}
	for i, raw := range got {
		head, body, _ := strings.Cut(string(raw), "\r\n\r\n")
		if !strings.HasPrefix(head, "POST /organizations/oauth2/v2.0/token HTTP/1.1\r\n") ||
			strings.Contains(head, "Authorization") || body != want[i] {
			t.Errorf("%s\n\n%s\nnot\n%s", head, body, want[i])
		}
	}
}

// Each code of the table, as the token endpoint says it and as a callback does.
func TestWhatMicrosoftsCodesMean(t *testing.T) {
	var status atomic.Int64
	var body atomic.Value
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(int(status.Load()))
		_, _ = w.Write([]byte(body.Load().(string)))
	}))
	defer srv.Close()
	c := calendar(t, srv.URL, "common")
	for _, tt := range []struct {
		status        int
		code, numbers string
		class         grant.Class
		reason        string
	}{
		{400, "invalid_grant", "50173 70000 70008 700082 700084 54005", grant.Yours, connector.GrantRefused},
		{400, "invalid_grant", "50055 50058 50072 50074 50076 50078 50079 50085 50089 50097 50132 50133 50144 50158",
			grant.Yours, outlook.SignInAgain},
		{400, "interaction_required", "50076 50079 53000 53001 53002 70043 700020", grant.Yours, outlook.SignInAgain},
		{400, "access_denied", "65004", grant.Yours, connector.Denied},
		{400, "invalid_grant", "65001 90008 90094 90095", grant.AdminTheir, outlook.NotApproved},
		{400, "consent_required", "65001", grant.AdminTheir, outlook.NotApproved},
		{400, "invalid_grant", "50057 50105 500212 500213 53003 530032 530035", grant.AdminTheir, outlook.AdminPolicy},
		{401, "invalid_client", "70002 700025 7000112 7000215 7000218 7000222", grant.Ours, connector.ClientRefused},
		{400, "unauthorized_client", "70001 700011 700016", grant.Ours, connector.ClientRefused},
		{400, "invalid_request", "50011 50194 65005 650057 70004 90002 90124 90130 9002332", grant.Ours,
			connector.RequestRefused},
		{400, "invalid_scope", "28002 28003 70011 700022 700023", grant.Ours, connector.RequestRefused},
		{400, "invalid_grant", "700005", grant.Ours, connector.RequestRefused},
		{400, "invalid_request", "50033 50087 50196 70012 90006 90012 90024 90033 90055 90090 90091", grant.Later,
			connector.Busy},
		// A number that is not known means what the word beside it does.
		{400, "invalid_grant", "1234567", grant.Yours, connector.GrantRefused},
		{401, "invalid_client", "1234567", grant.Ours, connector.ClientRefused},
		{400, "invalid_resource", "1234567", grant.Ours, connector.RequestRefused},
		{400, "temporarily_unavailable", "1234567", grant.Later, connector.Busy},
		{400, "new_word", "1234567", grant.Later, connector.UnknownCode},
		// An answer of a server that is down is that, whatever it says.
		{503, "invalid_grant", "50173", grant.Later, connector.Busy},
		{429, "invalid_grant", "50173", grant.Later, connector.Busy},
	} {
		for number := range strings.FieldsSeq(tt.numbers) {
			what := fmt.Sprintf("%d %s with %s", tt.status, tt.code, number)
			status.Store(int64(tt.status))
			body.Store(refusal(tt.code, number))
			_, err := c.Refresh(t.Context(), grant.Tokens{Refresh: "r"}, request(basic).Scopes)
			fails(t, what, err, tt.class, tt.reason)
			if n := asked.Swap(0); n != 1 {
				t.Errorf("%s: asked %d times", what, n)
			}
			if tt.status > 401 || tt.code == "invalid_grant" && tt.class == grant.Yours {
				continue // a callback has no status
			}
			q := url.Values{"error": {tt.code}, "error_description": {"AADSTS" + number + ": canary"}, "state": {"st"}}
			_, err = c.Redeem(t.Context(), q, handshake(), request(basic))
			fails(t, "a callback, "+what, err, tt.class, tt.reason)
			if n := asked.Load(); n != 0 {
				t.Errorf("a callback, %s: asked %d times", what, n)
			}
		}
	}
	granttest.GuideCodes(t, "../../docs/connectors/outlook_calendar.md", func(code string) error {
		status.Store(http.StatusBadRequest)
		body.Store(refusal(code, "1234567"))
		if code[0] <= '9' {
			body.Store(refusal("invalid_grant", code))
		}
		_, err := c.Refresh(t.Context(), grant.Tokens{Refresh: "r"}, request(basic).Scopes)
		return err
	})
	asked.Store(0)
	for _, odd := range []string{"", "AADSTS", "AADSTS:", "AADSTS90094", "AADSTS90094 x", "x AADSTS90094: y",
		"aadsts90094: x", "AADSTS9009a: x", "AADSTS+90094: x", "AADSTS90094990094: x", "AADSTSaccess_denied: x"} {
		q := url.Values{"error": {"access_denied"}, "error_description": {odd}}
		_, err := c.Redeem(t.Context(), q, handshake(), request(basic))
		fails(t, odd, err, grant.Yours, connector.Denied)
	}
}

func TestP06_TheAccountIsThatOfTheIDTokenAndItsTenant(t *testing.T) {
	const other = "11111111-2222-3333-4444-555555555555"
	var answer atomic.Value
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"token_type":"Bearer","access_token":"EwB","refresh_token":"0.A","expires_in":3600,"id_token":%q}`,
			answer.Load())
	}))
	defer srv.Close()
	redeem := func(of string, change func(map[string]any)) (grant.Result, error) {
		c := claims(clientID, handshake().Nonce)
		change(c)
		answer.Store(idToken(c))
		return calendar(t, srv.URL, of).Redeem(t.Context(), url.Values{"code": {"0.A"}}, handshake(), request(basic))
	}
	at := func(tid string) func(map[string]any) {
		return func(c map[string]any) { c["tid"], c["iss"] = tid, issuer+tid+"/v2.0" }
	}
	for name, tt := range map[string]struct {
		tenant string
		change func(map[string]any)
		want   grant.Account
	}{
		"any tenant":            {"organizations", at(other), grant.Account{ID: other + "/" + object, Name: address}},
		"the tenant":            {tenant, at(tenant), grant.Account{ID: tenant + "/" + object, Name: address}},
		"its domain":            {"acme.example", at(tenant), grant.Account{ID: tenant + "/" + object, Name: address}},
		"a personal account":    {"consumers", at(personal), grant.Account{ID: personal + "/" + object, Name: address}},
		"one of all":            {"common", at(personal), grant.Account{ID: personal + "/" + object, Name: address}},
		"known by address only": {"common", func(c map[string]any) { delete(c, "preferred_username") }, grant.Account{ID: tenant + "/" + object, Name: "other@elsewhere.example"}},
		"known by nothing":      {"common", func(c map[string]any) { delete(c, "preferred_username"); c["email"] = "a b" }, grant.Account{ID: tenant + "/" + object}},
	} {
		if got, err := redeem(tt.tenant, tt.change); err != nil || got.Account != tt.want {
			t.Errorf("%s: %+v, %v", name, got.Account, err)
		}
	}
	for name, tt := range map[string]struct {
		tenant string
		change func(map[string]any)
	}{
		"another tenant":                      {tenant, at(other)},
		"a personal account, where none may":  {"organizations", at(personal)},
		"a tenant, where personal ones may":   {"consumers", at(tenant)},
		"an issuer that is not the tenant's":  {"common", func(c map[string]any) { c["tid"] = other }},
		"no tenant":                           {"common", func(c map[string]any) { delete(c, "tid") }},
		"a tenant that is a path":             {"common", at("a/../" + tenant)},
		"a tenant in capitals":                {"common", at(strings.ToUpper(tenant))},
		"the template":                        {"common", at("{tenantid}")},
		"another cloud":                       {"common", func(c map[string]any) { c["iss"] = "https://login.microsoftonline.us/" + tenant + "/v2.0" }},
		"version 1":                           {"common", func(c map[string]any) { c["ver"] = "1.0" }},
		"no version":                          {"common", func(c map[string]any) { delete(c, "ver") }},
		"another client":                      {"common", func(c map[string]any) { c["aud"] = "other" }},
		"another connection":                  {"common", func(c map[string]any) { c["nonce"] = "other" }},
		"one from a refresh, without a nonce": {"common", func(c map[string]any) { delete(c, "nonce") }},
		"one that is over":                    {"common", func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() }},
	} {
		_, err := redeem(tt.tenant, tt.change)
		fails(t, name, err, grant.Lost, connector.IDTokenRefused)
	}
	for _, odd := range []any{nil, "", 7, "me", strings.ToUpper(object)} {
		_, err := redeem("common", func(c map[string]any) { c["oid"] = odd })
		fails(t, fmt.Sprint("oid ", odd), err, grant.Lost, connector.NoAccount)
	}
}

// What came must be kept, so an ID token that cannot be used fails no refresh.
func TestARefreshSaysWhoseTheGrantIs(t *testing.T) {
	var answer atomic.Value
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"token_type":"Bearer","access_token":"EwB","refresh_token":"0.B","expires_in":3600,"id_token":%q}`,
			answer.Load())
	}))
	defer srv.Close()
	const other = "11111111-2222-3333-4444-555555555555"
	for name, tt := range map[string]struct {
		change func(map[string]any)
		want   string
	}{
		"the same":            {func(map[string]any) {}, tenant + "/" + object},
		"with another nonce":  {func(c map[string]any) { c["nonce"] = "other" }, tenant + "/" + object},
		"another account":     {func(c map[string]any) { c["oid"] = other }, tenant + "/" + other},
		"of another issuer":   {func(c map[string]any) { c["iss"] = "https://evil.test" }, ""},
		"for another client":  {func(c map[string]any) { c["aud"] = "other" }, ""},
		"without an object":   {func(c map[string]any) { delete(c, "oid") }, ""},
		"of a tenant too far": {func(c map[string]any) { c["tid"], c["iss"] = personal, issuer+personal+"/v2.0" }, ""},
	} {
		c := claims(clientID, "")
		tt.change(c)
		answer.Store(idToken(c))
		got, err := calendar(t, srv.URL, "organizations").Refresh(t.Context(), grant.Tokens{Refresh: "0.A"}, unsaid())
		if err != nil || got.Account.ID != tt.want || got.Tokens.Refresh != "0.B" {
			t.Errorf("%s: %+v, %v", name, got.Account, err)
		}
	}
}

// An administrator agrees for a tenant, and never for all of them or for personal accounts.
func TestTheLinkForAnAdministrator(t *testing.T) {
	for _, tt := range []struct{ tenant, account, at string }{
		{"organizations", "", "organizations"},
		{"common", "", "organizations"},
		{tenant, "", tenant},
		{"acme.example", "", "acme.example"},
		{"common", tenant + "/" + object, tenant},
		{"consumers", "", ""},
		{"common", personal + "/" + object, ""},
		{"common", "a b?c#d/x", "organizations"}, // of another third party, with the same id
		{tenant, "11111111-2222-3333-4444-555555555555/" + object, tenant},
	} {
		got := calendar(t, "", tt.tenant).ApproveURL(grant.Account{ID: tt.account}, request(basic, read))
		want := "https://login.microsoftonline.com/" + tt.at + "/v2.0/adminconsent?client_id=" + clientID +
			"&redirect_uri=" + url.QueryEscape(redirect) + "&scope=openid+profile+email+offline_access+" +
			"https%3A%2F%2Fgraph.microsoft.com%2FCalendars.ReadBasic+https%3A%2F%2Fgraph.microsoft.com%2FCalendars.Read"
		if tt.at == "" {
			want = ""
		}
		if got != want {
			t.Errorf("%s of %s: %s", tt.account, tt.tenant, got)
		}
	}
}

func TestP12_NothingIsSaidToBeOverThere(t *testing.T) {
	c := calendar(t, "", "common")
	if got, err := c.Revoke(t.Context(), grant.Tokens{Refresh: "0.A", Access: "EwB"}, 0); got != grant.NotSupported ||
		err != nil {
		t.Errorf("%s, %v", got, err)
	}
	for account, want := range map[string]string{"": "https://myapps.microsoft.com",
		tenant + "/" + object:   "https://myapps.microsoft.com",
		personal + "/" + object: "https://account.live.com/consent/Manage"} {
		if got := c.FinishURL(grant.Account{ID: account}); got != want {
			t.Errorf("of %q it is ended at %s", account, got)
		}
	}
}

func TestRulesAreForWhatTheAccessSays(t *testing.T) {
	about := calendar(t, "", "common").About()
	names := []string{outlook.FreeBusy, outlook.Basic, outlook.Events}
	through := func(request string) (by []string) {
		method, path, _ := strings.Cut(request, " ")
		for _, a := range about.Accesses {
			if slices.ContainsFunc(a.Rules, func(r grant.Rule) bool { return r.Match(method, path) }) {
				by = append(by, a.Name)
			}
		}
		return by
	}
	for request, want := range map[string][]string{
		"POST /v1.0/me/calendar/getSchedule":                     names[:1],
		"GET /v1.0/me/calendars":                                 names[1:],
		"GET /v1.0/me/calendarView":                              names[1:],
		"HEAD /v1.0/me/calendarView":                             names[1:],
		"GET /v1.0/me/calendar/calendarView":                     names[1:],
		"GET /v1.0/me/calendars/AAMkAGI2TG93AAA=/events":         names[1:],
		"GET /v1.0/me/calendars/AAMk%2FGI2/calendarView":         names[1:],
		"GET /v1.0/me/calendarView/delta":                        names[1:],
		"GET /v1.0/me/calendars/AAMkAGI2/calendarView/delta":     names[1:],
		"GET /v1.0/me/events":                                    names[1:],
		"GET /v1.0/me/events/AAMkAGI2TG93AAA=":                   names[2:],
		"GET /v1.0/me/events/AAMkAGI2TG93AAA=/attachments":       names[2:],
		"POST /v1.0/$batch":                                      nil,
		"POST /v1.0/%24batch":                                    nil,
		"POST /$batch":                                           nil,
		"GET /beta/me/calendarView":                              nil,
		"GET /v1.0/me":                                           nil,
		"GET /v1.0/me/messages":                                  nil,
		"GET /v1.0/users/bob@acme.example/calendarView":          nil,
		"POST /v1.0/users/bob@acme.example/calendar/getSchedule": nil,
		"POST /v1.0/me/events":                                   nil,
		"PATCH /v1.0/me/events/AAMkAGI2TG93AAA=":                 nil,
		"DELETE /v1.0/me/events/AAMkAGI2TG93AAA=":                nil,
		"POST /v1.0/me/events/AAMkAGI2TG93AAA=/accept":           nil,
		"POST /v1.0/me/calendar/events":                          nil,
		"POST /v1.0/me/sendMail":                                 nil,
		"POST /v1.0/subscriptions":                               nil,
		"GET /v1.0/me/messages/delta":                            nil,
		"GET /v1.0/users/bob@acme.example/calendarView/delta":    nil,
		"GET /V1.0/me/calendarView":                              nil,
	} {
		if got := through(request); !slices.Equal(got, want) {
			t.Errorf("%s passes with %q, not %q", request, got, want)
		}
	}
	for i, scope := range []string{basic, basic, read} {
		if a := about.Accesses[i]; a.Name != names[i] || !slices.Equal(a.Scopes, append(unsaid(), scope)) {
			t.Errorf("%s needs %q", a.Name, a.Scopes)
		}
	}
}

func TestAConfigurationThatCannotWorkIsRefusedWithItsKey(t *testing.T) {
	client, err := oauth.NewClient(oauth.Options{Provider: "outlook"})
	testenv.Check(t, err)
	for key, changes := range map[string][]func(*outlook.Options){
		"client_id":     {func(o *outlook.Options) { o.ClientID = "" }},
		"client_secret": {func(o *outlook.Options) { o.ClientSecret = "" }},
		"tenant": {
			func(o *outlook.Options) { o.Tenant = "" },
			func(o *outlook.Options) { o.Tenant = "a/b" },
			func(o *outlook.Options) { o.Tenant = "Organizations" },
			func(o *outlook.Options) { o.Tenant = "{tenantid}" },
		},
		"": {
			func(o *outlook.Options) { o.ID = "" },
			func(o *outlook.Options) { o.OAuth = nil },
			func(o *outlook.Options) { o.Base = "http://microsoft.test" },
		},
	} {
		for i, change := range changes {
			o := outlook.Options{Client: connector.Client{ID: "outlook", ClientID: clientID, ClientSecret: secret,
				OAuth: client}, Tenant: "common"}
			change(&o)
			_, err := outlook.New(o)
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
	c := calendar(t, "", "common")
	o := outlook.Options{Client: connector.Client{ID: "outlook", ClientID: clientID, ClientSecret: secret},
		Tenant: "common"}
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

// The newest refresh token is the one that is kept, although the older ones stay good: those
// end after 90 days, counted from when they were made.
func TestACalendarIsConnectedAndRefreshedForNoMoreThanItNeeds(t *testing.T) {
	p := startMicrosoft(t)
	c := calendar(t, p.URL, "organizations")
	tenant, object := p.Outlook.Account("mira")
	// What the person agreed to for something else, with the same client.
	p.Outlook.Agree("mira", clientID, "Mail.Read")
	got, err := connect(t, c, request(basic))
	want := append(unsaid(), basic)
	slices.Sort(want)
	if err != nil || !slices.Equal(got.Scopes, want) || got.Account.ID != tenant+"/"+object {
		t.Fatalf("%+v with %q, %v", got.Account, got.Scopes, err)
	}
	tokens, seen := got.Tokens, map[string]bool{got.Tokens.Refresh: true}
	for range 3 {
		next, err := c.Refresh(t.Context(), tokens, append(slices.Clone(want), "Mail.Read"))
		if err != nil || !slices.Equal(next.Scopes, want) || seen[next.Tokens.Refresh] || next.Tokens.Refresh == "" {
			t.Fatalf("a refresh: %q, %v", next.Scopes, err)
		}
		seen[next.Tokens.Refresh] = true
		if scopes := p.Outlook.Scopes(next.Tokens.Access); len(scopes) == 0 || slices.Contains(scopes, "Mail.Read") {
			t.Errorf("the access token is good for %q", scopes)
		}
		tokens = next.Tokens
	}
	// An answer that was lost: the old one is shown once more, and that is no theft.
	if _, err := c.Refresh(t.Context(), got.Tokens, want); err != nil || !c.About().Resend {
		t.Errorf("the first refresh token: %v", err)
	}
	if _, err := c.Refresh(t.Context(), tokens, []string{"Mail.Read"}); err != nil {
		t.Errorf("with no scope that an access needs: %v", err)
	}
	forms := p.Outlook.Forms()
	if got := forms[len(forms)-1].Get("scope"); got != strings.Join(append(unsaid(), basic), " ") {
		t.Errorf("then %q is asked for", got)
	}
}

// broker is a Broker with the connector, an app that may ask for all of it, and a person.
type broker struct {
	*grant.Broker
	store *granttest.Store
}

var mira = identity.Identity{Provider: "microsoft", Subject: "mira"}

func newBroker(t *testing.T, c *outlook.Connector) *broker {
	t.Helper()
	k := grant.SealingKey{ID: "k"}
	copy(k.Secret[:], "canary-key")
	ring, err := grant.NewKeyring([]grant.SealingKey{k})
	testenv.Check(t, err)
	b := &broker{store: granttest.NewStore(nil)}
	all := []string{outlook.FreeBusy, outlook.Basic, outlook.Events}
	b.Broker, err = grant.New(grant.Options{Store: b.store, Keys: ring, Log: slog.New(slog.DiscardHandler),
		Offers: []grant.Offer{{Connector: c, Owner: grant.OwnedByUser, Offered: all}},
		Apps: []grant.App{{ID: "planner", Name: "Planner", Routes: []string{"app"},
			Connectors: map[string][]string{"outlook": all}}},
		Redirect: func(string) string { return redirect }})
	testenv.Check(t, err)
	t.Cleanup(func() {
		b.Close()
		testenv.Check(t, b.Wait(context.Background()))
	})
	return b
}

func (b *broker) connect(t *testing.T, access string) (grant.Kept, error) {
	t.Helper()
	ask := grant.Ask{Connector: "outlook", App: "planner", Access: []string{access}}
	p, err := b.Prepare(t.Context(), mira, ask)
	testenv.Check(t, err)
	address, err := b.AuthURL(p, handshake())
	testenv.Check(t, err)
	return b.Connect(t.Context(), mira, ask, browse(t, address), handshake(), false)
}

// People may not agree to calendars themselves: the link that they get leads an
// administrator to where that is done, and afterwards they can connect.
func TestP12_AnAdministratorAgreesAndThenPeopleConnect(t *testing.T) {
	p := startMicrosoft(t, func(o *demo.OutlookOptions) { o.AdminOnly = true })
	tenant, _ := p.Outlook.Account("mira")
	b := newBroker(t, calendar(t, p.URL, "common"))
	_, err := b.connect(t, outlook.FreeBusy)
	fails(t, "before", err, grant.AdminTheir, outlook.NotApproved)
	e, ok := errors.AsType[*grant.Error](err)
	if !ok || !strings.HasPrefix(e.ApproveURL, p.URL+"/organizations/v2.0/adminconsent?") {
		t.Fatalf("%v, and the link is %+v", err, e)
	}
	if back := browse(t, e.ApproveURL); back.Get("admin_consent") != "True" || back.Has("code") {
		t.Errorf("the administrator comes back with %v", back)
	}
	kept, err := b.connect(t, outlook.FreeBusy)
	if err != nil || kept.Status != grant.Active {
		t.Fatalf("afterwards: %v", err)
	}
	// What is wider is asked for with a link of its own, at the tenant that is known by now.
	_, err = b.connect(t, outlook.Events)
	e, _ = errors.AsType[*grant.Error](err)
	if e == nil || !strings.HasPrefix(e.ApproveURL, p.URL+"/"+tenant+"/v2.0/adminconsent?") ||
		!strings.Contains(e.ApproveURL, "Calendars.Read&") && !strings.HasSuffix(e.ApproveURL, "Calendars.Read") {
		t.Errorf("wider: %+v", e)
	}
	if views, err := b.View(t.Context(), mira); err != nil || len(views) != 1 || views[0].Status != grant.Active ||
		views[0].ApproveURL != "" {
		t.Errorf("the narrow one: %+v, %v", views, err)
	}
}
