package demo

import (
	"net/http"
	"net/url"
	"testing"
	"time"
)

// ask is a good authorization request with other scopes, and without what is "-".
func ask(scope string, changes ...string) url.Values {
	q := goodRequest()
	q.Set("scope", scope)
	for i := 0; i < len(changes); i += 2 {
		if q.Set(changes[i], changes[i+1]); changes[i+1] == "-" {
			q.Del(changes[i])
		}
	}
	return q
}

// What a real provider refuses, its kind refuses.
func TestKindsRefuseAuthorizationRequestsAsTheRealOnesDo(t *testing.T) {
	for _, row := range []struct {
		name, kind, at string
		q              url.Values
		want           string // the error code; "" if the request is good
	}{
		{"Google", Google, "", ask("openid email profile"), ""},
		{"offline_access", Google, "", ask("openid offline_access"), "invalid_scope"},
		{"no state", Google, "", ask("openid", "state", "-"), "invalid_request"},
		{"Microsoft", Microsoft, "/common/v2.0", ask("openid offline_access"), ""},
		{"a scope of another Graph", Microsoft, "/common/v2.0", ask("openid https://graph.microsoft.us/User.Read"),
			"invalid_scope"},
		{"no nonce", Microsoft, "/common/v2.0", ask("openid", "nonce", "-"), "invalid_request"},
		{"other scopes are passed over", PagerDuty, "", ask("openid email write"), ""},
		{"the nonce is not known", PagerDuty, "", ask("openid", "nonce", "-"), ""},
		{"PKCE is mandatory", PagerDuty, "", ask("openid", "code_challenge", "-"), "invalid_request"},
		{"Slack", Slack, "", ask("openid email", "code_challenge", "-", "code_challenge_method", "-"), ""},
		{"PKCE was not switched on", Slack, "", ask("openid email"), "invalid_request"},
		{"another scope", Slack, "", ask("openid chat:write", "code_challenge", "-"), "invalid_scope"},
		{"GitHub", GitHub, GitHubPrefix, ask("read:org user:email", "nonce", "-"), ""},
		{"GitHub knows no openid", GitHub, GitHubPrefix, ask("openid", "nonce", "-"), "invalid_scope"},
		{"GitHub knows no nonce", GitHub, GitHubPrefix, ask("read:org"), "invalid_request"},
		{"GitHub knows no prompt=none", GitHub, GitHubPrefix, ask("read:org", "nonce", "-", "prompt", "none"),
			"invalid_request"},
		{"GitHub takes S256 only", GitHub, GitHubPrefix, ask("read:org", "nonce", "-", "code_challenge_method", "plain"),
			"invalid_request"},
		{"the partner knows neither nonce nor PKCE", Partner, "",
			ask("openid email name", "nonce", "-", "code_challenge", "-"), ""},
		{"the partner has no profile", Partner, "", ask("openid profile"), "invalid_scope"},
		{"PERSCOM", Perscom, "", ask("openid profile email tenant"), ""},
		{"PERSCOM has no groups", Perscom, "", ask("openid groups"), "invalid_scope"},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := newOPOfKind(t, row.kind)
			res, page := o.do(o.request(http.MethodGet, row.at+AuthorizePath+"?"+row.q.Encode(), nil))
			if row.want == "" {
				if res.StatusCode != http.StatusOK {
					t.Errorf("answered %d: %s", res.StatusCode, page)
				}
				return
			}
			if got := answerOf(t, res).Get("error"); got != row.want {
				t.Errorf("error %q, want %q", got, row.want)
			}
		})
	}
}

// docs/providers/microsoft.md: an account signs in where it belongs.
func TestMicrosoftTenantsAdmitTheirOwn(t *testing.T) {
	o := newOPOfKind(t, Microsoft)
	for _, row := range []struct {
		tenant, person string
		ok             bool
	}{
		{"common", "mira", true}, {"common", "zoe", true}, {"organizations", "mira", true},
		{"organizations", "zoe", false},
		{"consumers", "mira", false}, {"consumers", "zoe", true}, {"acme.example", "mira", true},
		{"acme.example", "tomoko", false},
		{guid("acme"), "mira", true}, {guid("acme"), "zoe", false}, {"nowhere", "mira", false},
	} {
		path := "/" + row.tenant + "/v2.0" + AuthorizePath + "?" + ask("openid").Encode()
		res, _ := o.do(o.request(http.MethodPost, path, url.Values{"person": {row.person}}))
		if ok := res.StatusCode == http.StatusSeeOther; ok != row.ok {
			t.Errorf("%s at %s: %d", row.person, row.tenant, res.StatusCode)
		}
	}
}

// docs/providers/microsoft.md: what a token opens depends on what was granted, and to whom.
func TestGraphTellsWhatWasGranted(t *testing.T) {
	o := newOPOfKind(t, Microsoft)
	read := func(person, scope, path string) int {
		res, _ := o.do(o.request(http.MethodPost, "/common/v2.0"+AuthorizePath+"?"+ask("openid "+scope).Encode(),
			url.Values{"person": {person}}))
		req := o.request(http.MethodPost, "/common/v2.0"+TokenPath, goodExchange(answerOf(t, res).Get("code")))
		req.SetBasicAuth(url.QueryEscape("demo client"), url.QueryEscape(testSecret))
		_, tokens := o.json(req)
		if _, refresh := tokens["refresh_token"]; refresh {
			t.Error("a refresh token without offline_access")
		}
		req = o.request(http.MethodGet, path, nil)
		access, _ := tokens["access_token"].(string)
		req.Header.Set("Authorization", "Bearer "+access)
		status, _ := o.json(req)
		return status
	}
	graph := o.url + userRead
	for _, row := range []struct {
		person, scope, path string
		want                int
	}{
		{"mira", graph, OrganizationPath, 200}, {"mira", graph, MePath, 200}, {"zoe", graph, MePath, 200},
		{"mira", "email", OrganizationPath, 403}, {"mira", "email", MePath, 403}, {"zoe", graph, OrganizationPath, 403},
	} {
		if got := read(row.person, row.scope, row.path); got != row.want {
			t.Errorf("%s with %s at %s: %d", row.person, row.scope, row.path, got)
		}
	}
	if status, _ := o.json(o.request(http.MethodGet, MePath, nil)); status != 401 {
		t.Errorf("without a token: %d", status)
	}
}

// How a client proves itself, and how it is told no.
func TestKindsTakeCredentialsAsTheRealOnesDo(t *testing.T) {
	encoded := func(r *http.Request) { r.SetBasicAuth(url.QueryEscape("demo client"), url.QueryEscape(testSecret)) }
	raw := func(r *http.Request) { r.SetBasicAuth("demo client", testSecret) }
	none := func(*http.Request) {}
	inBody := url.Values{"client_id": {"demo client"}, "client_secret": {testSecret}}
	for _, row := range []struct {
		name, kind string
		header     func(*http.Request)
		body       url.Values
		status     int
		error      string
	}{
		{"raw", Partner, raw, nil, 200, ""},
		{"form-encoded", Partner, encoded, nil, 401, "invalid_client"},
		{"in the body", Partner, none, inBody, 401, "invalid_client"},
		{"in the body", PagerDuty, none, inBody, 200, ""},
		{"Basic is untested", PagerDuty, encoded, nil, 401, "invalid_client"},
		{"Basic", Slack, encoded, nil, 200, ""},
		{"no with status 200", Slack, raw, nil, 200, "bad_client_secret"},
		{"PERSCOM Basic", Perscom, encoded, nil, 200, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := newOPOfKind(t, row.kind)
			q := ask("openid")
			if row.kind == Slack {
				q.Del("code_challenge")
			}
			form := goodExchange(o.code(q, "mira"))
			for name, v := range row.body {
				form[name] = v
			}
			req := o.request(http.MethodPost, TokenPath, form)
			row.header(req)
			status, answer := o.json(req)
			if code, _ := answer["error"].(string); status != row.status || code != row.error ||
				(code != "") != (answer["id_token"] == nil) {
				t.Errorf("%d %v", status, answer)
			}
		})
	}
}

// docs/providers/pagerduty.md: a code lives for 30 seconds.
func TestPagerDutyCodesAreShort(t *testing.T) {
	for wait, want := range map[time.Duration]int{29 * time.Second: 200, 30 * time.Second: 400} {
		o := newOPOfKind(t, PagerDuty)
		form := goodExchange(o.code(ask("openid"), "mira"))
		form.Set("client_id", "demo client")
		form.Set("client_secret", testSecret)
		o.now = o.now.Add(wait)
		if status, answer := o.json(o.request(http.MethodPost, TokenPath, form)); status != want {
			t.Errorf("after %s: %d %v", wait, status, answer)
		}
	}
}

func TestKindsHaveOnlyTheEndpointsOfTheRealOnes(t *testing.T) {
	for _, row := range []struct {
		kind, method, path string
		want               int
	}{
		{Partner, "GET", DiscoveryPath, 404}, {Partner, "GET", JWKSPath, 404}, {Partner, "GET", UserinfoPath, 404},
		{Partner, "GET", EndSessionPath, 404},
		{PagerDuty, "GET", DiscoveryPath, 404}, {PagerDuty, "GET", UserinfoPath, 404},
		{PagerDuty, "GET", JWKSPath, 200}, {PagerDuty, "GET", KeysPath, 200},
		{Perscom, "GET", JWKSPath, 404}, {Perscom, "GET", EndSessionPath, 405}, {Perscom, "POST", EndSessionPath, 200},
		{Slack, "GET", EndSessionPath, 404}, {Google, "GET", KeysPath, 404}, {Google, "GET", MePath, 404},
		{Microsoft, "GET", DiscoveryPath, 404}, {Microsoft, "GET", "/common/v2.0" + DiscoveryPath, 200},
	} {
		o := newOPOfKind(t, row.kind)
		if res, _ := o.do(o.request(row.method, row.path, nil)); res.StatusCode != row.want {
			t.Errorf("%s: %s %s answers %d, want %d", row.kind, row.method, row.path, res.StatusCode, row.want)
		}
	}
	o := newOPOfKind(t, Perscom)
	_, document := o.json(o.request(http.MethodGet, DiscoveryPath, nil))
	if document["issuer"] != "http://localhost" || document["jwks_uri"] != nil {
		t.Errorf("PERSCOM is not as it was given: %v", document)
	}
	if _, err := NewProvider(ProviderOptions{Issuer: "http://127.0.0.1:1", ClientID: "x", ClientSecret: "y",
		Kind: "entra"}); err == nil {
		t.Error("a kind that does not exist was made")
	}
}
