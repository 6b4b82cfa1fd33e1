package demo

import (
	"crypto/rsa"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	calendarBack = "http://127.0.0.1:4180/.sallyport/connect/calendar/callback"
	freebusy     = scopePrefix + "calendar.freebusy"
	calendars    = scopePrefix + "calendar.calendarlist.readonly"
)

// pretend is a pretend Google behind a real server, with a clock that tests move. Its two
// clients, "one" and "two", are of the same project.
type pretend struct {
	t *testing.T
	*GoogleCalendar
	url    string
	now    time.Time
	client *http.Client
}

func newPretend(t *testing.T, change ...func(*CalendarOptions)) *pretend {
	t.Helper()
	p := &pretend{t: t, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.ServeHTTP(w, r)
	}))
	p.url = "http://" + srv.Listener.Addr().String()
	o := CalendarOptions{Origin: p.url, Now: func() time.Time { return p.now }, Clients: []CalendarClient{
		{ID: "one", Secret: testSecret, RedirectURIs: []string{calendarBack}},
		{ID: "two", Name: "The second", Secret: testSecret, RedirectURIs: []string{calendarBack}}}}
	for _, f := range change {
		f(&o)
	}
	var err error
	if p.GoogleCalendar, err = NewGoogleCalendar(o); err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(srv.Close)
	p.client = srv.Client()
	p.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return p
}

// query is an authorization request of client one for scope, with changes; "-" removes.
func query(scope string, changes ...string) url.Values {
	q := url.Values{"client_id": {"one"}, "redirect_uri": {calendarBack}, "response_type": {"code"}, "scope": {scope},
		"state": {"st&te"}, "nonce": {"n0nce"}, "access_type": {"offline"},
		"code_challenge": {challenge(testVerifier)}, "code_challenge_method": {"S256"}}
	for i := 0; i < len(changes); i += 2 {
		if q.Set(changes[i], changes[i+1]); changes[i+1] == "-" {
			q.Del(changes[i])
		}
	}
	return q
}

func (p *pretend) send(method, path, contentType, body string, header ...string) (*http.Response, string) {
	p.t.Helper()
	req, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return res, string(raw)
}

func (p *pretend) post(path string, form url.Values) (int, map[string]any) {
	p.t.Helper()
	res, body := p.send("POST", path, "application/x-www-form-urlencoded", form.Encode())
	return res.StatusCode, p.object(body)
}

func (p *pretend) object(body string) map[string]any {
	p.t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		p.t.Fatalf("%v: %s", err, body)
	}
	return v
}

// answer sends the form of the page and returns what came back to the client.
func (p *pretend) answer(q url.Values, form url.Values) url.Values {
	p.t.Helper()
	res, body := p.send("POST", GoogleAuthorizePath+"?"+q.Encode(), "application/x-www-form-urlencoded", form.Encode())
	to, err := res.Location()
	if err != nil || res.StatusCode != http.StatusSeeOther || !strings.HasPrefix(to.String(), calendarBack+"?") {
		p.t.Fatalf("%d to %v (%v): %s", res.StatusCode, to, err, body)
	}
	return to.Query()
}

// allow is that form with all scopes of q.
func allow(person string, q url.Values) url.Values {
	return url.Values{"person": {person}, "answer": {"allow"}, "scope": strings.Fields(q.Get("scope"))}
}

func codeForm(q url.Values, code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {calendarBack},
		"code_verifier": {testVerifier}, "client_id": {q.Get("client_id")}, "client_secret": {testSecret}}
}

func refreshForm(client string, token any) url.Values {
	text, _ := token.(string)
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {text}, "client_id": {client},
		"client_secret": {testSecret}}
}

// connect has a person agree to all of q, and redeems the code.
func (p *pretend) connect(person string, q url.Values) map[string]any {
	p.t.Helper()
	status, tokens := p.post(GoogleTokenPath, codeForm(q, p.answer(q, allow(person, q)).Get("code")))
	if status != http.StatusOK {
		p.t.Fatalf("%d %v", status, tokens)
	}
	return tokens
}

func (p *pretend) call(method, path string, token any, body string) (*http.Response, map[string]any) {
	p.t.Helper()
	text, _ := token.(string)
	res, raw := p.send(method, path, "application/json", body, "Authorization", "Bearer "+text)
	return res, p.object(raw)
}

const day = `{"timeMin":"2026-11-23T00:00:00Z","timeMax":"2026-11-24T00:00:00Z","items":[{"id":"primary"}]}`

// developers.google.com/identity/protocols/oauth2/web-server#exchange-authorization-code
func TestTheAnswerOfGooglesTokenEndpoint(t *testing.T) {
	p := newPretend(t)
	q := query("openid email "+freebusy, "prompt", "consent")
	back := p.answer(q, allow("mira", q))
	if back.Get("state") != "st&te" || back.Get("iss") != p.url || len(back.Get("code")) > 256 {
		t.Errorf("the client is told %v", back)
	}
	status, tokens := p.post(GoogleTokenPath, codeForm(q, back.Get("code")))
	access, _ := tokens["access_token"].(string)
	refresh, _ := tokens["refresh_token"].(string)
	if status != 200 || !strings.HasPrefix(access, "ya29.") || !strings.HasPrefix(refresh, "1//0") ||
		tokens["token_type"] != "Bearer" || tokens["expires_in"] != 3599.0 ||
		tokens["refresh_token_expires_in"] != nil {
		t.Errorf("%d %v", status, tokens)
	}
	// Another order, and a longer name: a client has to compare sets.
	if want := freebusy + " " + scopePrefix + "userinfo.email openid"; tokens["scope"] != want {
		t.Errorf("scope %q, want %q", tokens["scope"], want)
	}

	id, _ := tokens["id_token"].(string)
	signed, err := jose.ParseSignedCompact(id, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	res, certs := p.send("GET", GoogleCertsPath, "", "")
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(certs), &set); err != nil || res.StatusCode != 200 || len(set.Keys) != 1 {
		t.Fatalf("%d %s", res.StatusCode, certs)
	}
	key, _ := set.Keys[0].Key.(*rsa.PublicKey)
	raw, err := signed.Verify(key)
	if err != nil || signed.Signatures[0].Header.KeyID != set.Keys[0].KeyID {
		t.Fatalf("the ID token is not signed with the key of the set: %v", err)
	}
	claims := p.object(string(raw))
	want := map[string]any{"iss": p.url, "aud": "one", "azp": "one", "sub": p.Subject("mira"), "nonce": "n0nce",
		"email": "mira@acme.example", "email_verified": true, "hd": "acme.example",
		"iat": float64(p.now.Unix()), "exp": float64(p.now.Unix() + 3600), "at_hash": claims["at_hash"]}
	if !reflect.DeepEqual(claims, want) {
		t.Errorf("claims %v, want %v", claims, want)
	}
	if p.connect("zoe", query(freebusy))["id_token"] != nil {
		t.Error("an ID token without the scope openid")
	}
}

// https://developers.google.com/identity/protocols/oauth2/web-server#offline
func TestGoogleGivesARefreshTokenOnlyWhereOneIsDue(t *testing.T) {
	p := newPretend(t)
	for i, row := range []struct {
		name, person string
		changes      []string
		want         bool
	}{
		{"online", "mira", []string{"access_type", "online"}, false},
		{"neither offline nor online", "mira", []string{"access_type", "-"}, false},
		{"the first time", "mira", nil, true},
		{"the second time", "mira", nil, false},
		{"asked on purpose", "mira", []string{"prompt", "select_account consent"}, true},
		{"another person", "jonas", nil, true},
		{"another client", "mira", []string{"client_id", "two"}, true},
		{"and again", "mira", []string{"client_id", "two"}, false},
	} {
		tokens := p.connect(row.person, query(freebusy, row.changes...))
		if _, ok := tokens["refresh_token"]; ok != row.want {
			t.Errorf("%d, %s: a refresh token %t, want %t", i, row.name, ok, row.want)
		}
	}
	p.TakeBack("mira")
	if p.connect("mira", query(freebusy))["refresh_token"] == nil {
		t.Error("after everything was taken back it is the first consent again")
	}
}

// https://developers.google.com/identity/protocols/oauth2/web-server#offline: the sample of a
// refresh has no refresh token.
func TestGoogleDoesNotRotateRefreshTokens(t *testing.T) {
	p := newPretend(t)
	refresh := p.connect("mira", query("openid "+freebusy))["refresh_token"]
	seen := map[any]bool{}
	for range 3 {
		p.now = p.now.Add(time.Hour)
		status, tokens := p.post(GoogleTokenPath, refreshForm("one", refresh))
		access := tokens["access_token"]
		if status != 200 || tokens["refresh_token"] != nil || seen[access] || tokens["scope"] != freebusy+" openid" {
			t.Fatalf("%d %v", status, tokens)
		}
		seen[access] = true
		if res, _ := p.call("POST", FreeBusyPath, access, day); res.StatusCode != 200 {
			t.Errorf("the new access token: %d", res.StatusCode)
		}
	}
}

func TestGooglesHundredAndFirstRefreshTokenEndsTheOldest(t *testing.T) {
	p := newPretend(t)
	other := p.connect("jonas", query(freebusy))["refresh_token"]
	second := p.connect("mira", query(freebusy, "client_id", "two"))["refresh_token"]
	var all []any
	for range maxRefresh + 1 {
		all = append(all, p.connect("mira", query(freebusy, "prompt", "consent"))["refresh_token"])
	}
	for i, want := range map[int]int{0: 400, 1: 200, maxRefresh: 200} {
		if status, answer := p.post(GoogleTokenPath, refreshForm("one", all[i])); status != want {
			t.Errorf("token %d: %d %v", i+1, status, answer)
		}
	}
	for client, token := range map[string]any{"one": other, "two": second} {
		if status, _ := p.post(GoogleTokenPath, refreshForm(client, token)); status != 200 {
			t.Errorf("the token of another person, or of another client: %d", status)
		}
	}
}

// https://developers.google.com/identity/protocols/oauth2/web-server#tokenrevoke: revoking
// removes all that was granted to the project, for all of its clients.
func TestGoogleRevokesForTheWholeProject(t *testing.T) {
	for _, by := range []string{"access_token", "refresh_token"} {
		p := newPretend(t)
		one, two := p.connect("mira", query(freebusy)), p.connect("mira", query(freebusy, "client_id", "two"))
		q := query(freebusy, "prompt", "consent")
		late := p.answer(q, allow("mira", q)).Get("code")
		jonas := p.connect("jonas", query(freebusy))
		token, _ := one[by].(string)
		if status, answer := p.post(GoogleRevokePath, url.Values{"token": {token}}); status != 200 {
			t.Fatalf("%s: %d %v", by, status, answer)
		}
		for client, tokens := range map[string]map[string]any{"one": one, "two": two} {
			if res, _ := p.call("POST", FreeBusyPath, tokens["access_token"], day); res.StatusCode != 401 {
				t.Errorf("by the %s: the access token of client %s: %d", by, client, res.StatusCode)
			}
			status, answer := p.post(GoogleTokenPath, refreshForm(client, tokens["refresh_token"]))
			want := map[string]any{"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
			if status != 400 || !reflect.DeepEqual(answer, want) {
				t.Errorf("by the %s: the refresh token of client %s: %d %v", by, client, status, answer)
			}
		}
		if status, _ := p.post(GoogleTokenPath, codeForm(q, late)); status != 400 {
			t.Errorf("a code that was on its way: %d", status)
		}
		if res, _ := p.call("POST", FreeBusyPath, jonas["access_token"], day); res.StatusCode != 200 {
			t.Errorf("the token of another person: %d", res.StatusCode)
		}
		if status, answer := p.post(GoogleRevokePath, url.Values{"token": {token}}); status != 400 ||
			answer["error"] == nil {
			t.Errorf("a second time: %d %v", status, answer)
		}
		if p.RefreshTokens("mira") != 0 || p.RefreshTokens("jonas") != 1 {
			t.Errorf("refresh tokens left: %d, %d", p.RefreshTokens("mira"), p.RefreshTokens("jonas"))
		}
	}
}

// https://developers.google.com/identity/protocols/oauth2/resources/granular-permissions
func TestPeopleLeaveOutScopesAtGoogle(t *testing.T) {
	both := freebusy + " " + calendars
	some := func(scopes ...string) url.Values {
		return url.Values{"person": {"mira"}, "answer": {"allow"}, "scope": scopes}
	}
	p := newPretend(t)
	for _, row := range []struct {
		name, asked string
		form        url.Values
		want        string // scopes, or an error
	}{
		{"one of two", both, some(calendars), calendars},
		{"what was not asked for", both, some(calendars, scopePrefix+"calendar"), calendars},
		{"none of two", both, some(), "access_denied"},
		{"a single one is no choice", freebusy, some(), freebusy},
		{"long names", "openid " + scopePrefix + "userinfo.email " + freebusy, some(freebusy),
			freebusy + " " + scopePrefix + "userinfo.email openid"},
		{"signing in is no choice", "openid email " + both, some(freebusy),
			freebusy + " " + scopePrefix + "userinfo.email openid"},
		{"no", both, url.Values{"person": {"mira"}, "answer": {"cancel"}, "scope": {freebusy}}, "access_denied"},
	} {
		q := query(row.asked)
		back := p.answer(q, row.form)
		if back.Get("state") != "st&te" || back.Get("iss") != p.url {
			t.Errorf("%s: %v", row.name, back)
		}
		got := back.Get("error")
		if code := back.Get("code"); code != "" {
			_, tokens := p.post(GoogleTokenPath, codeForm(q, code))
			got, _ = tokens["scope"].(string)
		}
		if got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

// https://developers.google.com/identity/protocols/oauth2/web-server#incrementalAuth
func TestGoogleMergesScopesOnlyWhereItIsAsked(t *testing.T) {
	p := newPretend(t)
	p.connect("mira", query(freebusy, "client_id", "two"))
	if got := p.connect("mira", query(calendars))["scope"]; got != calendars {
		t.Errorf("not asked: %q", got)
	}
	if got := p.connect("mira", query(calendars, "include_granted_scopes", "true"))["scope"]; got !=
		calendars+" "+freebusy {
		t.Errorf("asked: %q", got)
	}
}

func TestGooglesTokenEndpointSaysNo(t *testing.T) {
	p := newPretend(t)
	for _, row := range []struct {
		name        string
		change      func(url.Values)
		status      int
		code, about string
	}{
		{"another code", func(v url.Values) { v.Set("code", "4/0x") }, 400, "invalid_grant", "Bad Request"},
		{"no code at all", func(v url.Values) { v.Set("code", "x") }, 400, "invalid_grant", "Malformed auth code."},
		{"another address", func(v url.Values) { v.Set("redirect_uri", calendarBack+"/") }, 400,
			"redirect_uri_mismatch", "Bad Request"},
		{"no verifier", func(v url.Values) { v.Del("code_verifier") }, 400, "invalid_grant", "Missing code verifier."},
		{"another verifier", func(v url.Values) { v.Set("code_verifier", strings.Repeat("x", 43)) }, 400,
			"invalid_grant", "Invalid code verifier."},
		{"another client's code", func(v url.Values) { v.Set("client_id", "two") }, 400, "invalid_grant",
			"Bad Request"},
		{"an unknown client", func(v url.Values) { v.Set("client_id", "three") }, 401, "invalid_client",
			"The OAuth client was not found."},
		{"a wrong secret", func(v url.Values) { v.Set("client_secret", "x") }, 401, "invalid_client", "Unauthorized"},
		{"another grant", func(v url.Values) { v.Set("grant_type", "password") }, 400, "unsupported_grant_type",
			"Invalid grant_type: password"},
	} {
		q := query(freebusy)
		form := codeForm(q, p.answer(q, allow("mira", q)).Get("code"))
		row.change(form)
		status, answer := p.post(GoogleTokenPath, form)
		if want := map[string]any{"error": row.code, "error_description": row.about}; status != row.status ||
			!reflect.DeepEqual(answer, want) {
			t.Errorf("%s: %d %v", row.name, status, answer)
		}
	}

	q := query(freebusy)
	form := codeForm(q, p.answer(q, allow("mira", q)).Get("code"))
	for i, want := range []int{200, 400} {
		if status, answer := p.post(GoogleTokenPath, form); status != want {
			t.Errorf("code, use %d: %d %v", i+1, status, answer)
		}
	}
	late := codeForm(q, p.answer(q, allow("mira", q)).Get("code"))
	p.now = p.now.Add(codeLife)
	if status, _ := p.post(GoogleTokenPath, late); status != 400 {
		t.Errorf("a late code: %d", status)
	}
	refresh := p.connect("jonas", q)["refresh_token"]
	if status, answer := p.post(GoogleTokenPath, refreshForm("two", refresh)); status != 400 ||
		answer["error"] != "invalid_grant" {
		t.Errorf("the refresh token of another client: %d %v", status, answer)
	}
	if res, _ := p.send("POST", GoogleTokenPath, "application/json", `{}`); res.StatusCode != 400 {
		t.Errorf("a body that is no form: %d", res.StatusCode)
	}
}

// What is wrong with a request is shown at Google, not told to the client.
func TestGooglesPageSaysNo(t *testing.T) {
	p := newPretend(t)
	for _, row := range []struct {
		name    string
		changes []string
		status  int
		says    string
	}{
		{"an unknown client", []string{"client_id", "three"}, 401, "invalid_client"},
		{"another address", []string{"redirect_uri", calendarBack + "/"}, 400, "redirect_uri_mismatch"},
		{"another scope", []string{"scope", freebusy + " " + scopePrefix + "nothing"}, 400, "invalid_scope"},
		{"offline_access", []string{"scope", "openid offline_access"}, 400, "invalid_scope"},
		{"no scope", []string{"scope", "-"}, 400, "invalid_request"},
		{"a token at once", []string{"response_type", "token"}, 400, "invalid_request"},
		{"a plain challenge", []string{"code_challenge_method", "plain"}, 400, "invalid_request"},
		{"prompt", []string{"prompt", "login"}, 400, "invalid_request"},
		{"good", nil, 200, "Whose account?"},
		{"without PKCE", []string{"code_challenge", "-", "code_challenge_method", "-"}, 200, "Whose account?"},
	} {
		res, body := p.send("GET", GoogleAuthorizePath+"?"+query(freebusy, row.changes...).Encode(), "", "")
		if res.StatusCode != row.status || !strings.Contains(body, row.says) {
			t.Errorf("%s: %d %s", row.name, res.StatusCode, body)
		}
	}
	res, _ := p.send("GET", GoogleAuthorizePath+"?"+query(freebusy, "prompt", "none").Encode(), "", "")
	if to := res.Header.Get("Location"); !strings.HasPrefix(to, calendarBack+"?error=interaction_required&") {
		t.Errorf("prompt=none: %d to %q", res.StatusCode, to)
	}
	for name, value := range map[string]string{"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"} {
		q := query(freebusy)
		res, _ := p.send("POST", GoogleAuthorizePath+"?"+q.Encode(), "application/x-www-form-urlencoded",
			allow("mira", q).Encode(), name, value)
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("a form with %s: %s: %d", name, value, res.StatusCode)
		}
	}
}

// The page works without scripts: everything is a form with names, and the account that was
// hinted at is chosen.
func TestGooglesPageIsAPlainForm(t *testing.T) {
	p := newPretend(t)
	page := func(q url.Values) (*http.Response, string) {
		return p.send("GET", GoogleAuthorizePath+"?"+q.Encode(), "", "")
	}
	if _, body := page(query(freebusy, "client_id", "two")); !strings.Contains(body, "The second") {
		t.Errorf("the page does not name the client: %s", body)
	}
	res, body := page(query("openid "+freebusy+" "+calendars, "login_hint", "jonas@acme.example"))
	for _, want := range []string{
		`name="person" value="jonas" checked autofocus`, `name="scope" value="` + freebusy + `" checked`,
		`name="scope" value="` + calendars + `" checked`, `name="answer" value="allow"`, "until you take it back",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s: %s", want, body)
		}
	}
	if csp := res.Header.Get("Content-Security-Policy"); strings.Contains(body, "<script") ||
		!strings.Contains(csp, "form-action 'self' http://127.0.0.1:4180") {
		t.Errorf("the policy: %s", csp)
	}
	if _, body = page(query(freebusy, "access_type", "online", "login_hint", p.Subject("zoe"))); strings.Contains(body,
		`type="checkbox"`) || !strings.Contains(body, `value="zoe" checked`) ||
		!strings.Contains(body, "for one hour") {
		t.Errorf("one scope: %s", body)
	}
}

// https://developers.google.com/workspace/calendar/api/v3/reference/freebusy/query
func TestGoogleFreeBusy(t *testing.T) {
	p := newPretend(t)
	token := p.connect("mira", query(freebusy))["access_token"]
	res, got := p.call("POST", FreeBusyPath, token, `{"timeMin":"2026-11-23T01:00:00+01:00",
		"timeMax":"2026-11-24T00:00:00Z","timeZone":"UTC",
		"items":[{"id":"primary"},{"id":"mira@acme.example"},{"id":"jonas@acme.example"}]}`)
	if res.StatusCode != 200 || got["kind"] != "calendar#freeBusy" || got["timeMin"] != "2026-11-23T00:00:00Z" ||
		got["timeMax"] != "2026-11-24T00:00:00Z" {
		t.Errorf("%d %v", res.StatusCode, got)
	}
	all, _ := got["calendars"].(map[string]any)
	own, _ := all["primary"].(map[string]any)
	busy, _ := own["busy"].([]any)
	for _, span := range busy {
		s, _ := span.(map[string]any)
		from, errFrom := time.Parse(time.RFC3339, s["start"].(string))
		to, errTo := time.Parse(time.RFC3339, s["end"].(string))
		if errFrom != nil || errTo != nil || !from.Before(to) || len(s) != 2 {
			t.Errorf("a busy time %v", s)
		}
	}
	if len(busy) != 3 || own["errors"] != nil || !reflect.DeepEqual(all["mira@acme.example"], own) {
		t.Errorf("the own calendar, under both names: %v", all)
	}
	want := map[string]any{"errors": []any{map[string]any{"domain": "global", "reason": "notFound"}}, "busy": []any{}}
	if !reflect.DeepEqual(all["jonas@acme.example"], want) {
		t.Errorf("a calendar that is not theirs: %v", all["jonas@acme.example"])
	}

	for body, reason := range map[string]string{
		`{`: "parseError", `{"timeMax":"2026-11-24T00:00:00Z"}`: "required",
		`{"timeMin":"2026-11-23","timeMax":"2026-11-24T00:00:00Z"}`:           "badRequest",
		`{"timeMin":"2026-11-24T00:00:00Z","timeMax":"2026-11-24T00:00:00Z"}`: "timeRangeEmpty",
	} {
		res, got := p.call("POST", FreeBusyPath, token, body)
		if res.StatusCode != 400 || reasonOf(got) != reason {
			t.Errorf("%s: %d %v", body, res.StatusCode, got)
		}
	}
}

// reasonOf is the reason of the first error in an error of the API.
func reasonOf(body map[string]any) string {
	e, _ := body["error"].(map[string]any)
	list, _ := e["errors"].([]any)
	if len(list) == 0 {
		return ""
	}
	first, _ := list[0].(map[string]any)
	reason, _ := first["reason"].(string)
	return reason
}

func TestGoogleShowsEventsOfCalendarsWithEscapesInTheirIDs(t *testing.T) {
	p := newPretend(t)
	token := p.connect("zoe", query(scopePrefix+"calendar.readonly"))["access_token"]
	res, list := p.call("GET", CalendarListPath, token, "")
	var ids []any
	for _, entry := range list["items"].([]any) {
		e, _ := entry.(map[string]any)
		if ids = append(ids, e["id"]); e["kind"] != "calendar#calendarListEntry" {
			t.Errorf("an entry %v", e)
		}
	}
	if res.StatusCode != 200 || list["kind"] != "calendar#calendarList" ||
		!reflect.DeepEqual(ids, []any{"zoe@mail.example", HolidayCalendar}) {
		t.Errorf("%d %v", res.StatusCode, list)
	}

	const at = CalendarPath + "/calendars/"
	const times = "?timeMin=2026-12-31T00%3A00%3A00Z&timeMax=2027-01-02T00%3A00%3A00Z"
	for path, want := range map[string]int{
		"primary/events" + times: 6, "zoe%40mail.example/events" + times: 6, "zoe@mail.example/events" + times: 6,
		"en.usa%23holiday%40group.v.calendar.google.com/events" + times: 1,
	} {
		res, got := p.call("GET", at+path, token, "")
		items, _ := got["items"].([]any)
		if res.StatusCode != 200 || got["kind"] != "calendar#events" || len(items) != want {
			t.Fatalf("%s: %d, %d events, want %d: %v", path, res.StatusCode, len(items), want, got)
		}
		e, _ := items[0].(map[string]any)
		start, _ := e["start"].(map[string]any)
		if e["kind"] != "calendar#event" || e["status"] != "confirmed" || e["summary"] == "" ||
			(start["dateTime"] == nil) == (start["date"] == nil) {
			t.Errorf("%s: an event %v", path, e)
		}
	}
	for _, path := range []string{"mira%40acme.example/events", "en.usa/events", "primary/acl", "primary"} {
		res, got := p.call("GET", at+path, token, "")
		want := map[string]any{"error": map[string]any{"code": 404.0, "message": "Not Found", "errors": []any{
			map[string]any{"domain": "global", "reason": "notFound", "message": "Not Found"}}}}
		if res.StatusCode != 404 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %d %v", path, res.StatusCode, got)
		}
	}
	owned := p.connect("zoe", query(scopePrefix+"calendar.events.owned.readonly"))["access_token"]
	for path, want := range map[string]int{"primary": 200, "en.usa%23holiday%40group.v.calendar.google.com": 404} {
		if res, _ := p.call("GET", at+path+"/events", owned, ""); res.StatusCode != want {
			t.Errorf("with the events of owned calendars, %s: %d", path, res.StatusCode)
		}
	}
}

// A scope opens what Google's reference says, and nothing else.
func TestGooglesScopesOpenTheirMethods(t *testing.T) {
	const insert = `{"summary":"x","start":{"dateTime":"2026-11-23T08:00:00Z"},
		"end":{"dateTime":"2026-11-23T09:00:00Z"}}`
	methods := []struct{ name, method, path, body string }{
		{"Freebusy.Query", "POST", FreeBusyPath, day},
		{"CalendarList.List", "GET", CalendarListPath, ""},
		{"Events.List", "GET", CalendarPath + "/calendars/primary/events", ""},
		{"Events.Insert", "POST", CalendarPath + "/calendars/primary/events", insert},
	}
	p := newPretend(t)
	for scope, opens := range map[string][]string{
		"calendar.freebusy":              {"Freebusy.Query"},
		"calendar.events.freebusy":       {"Freebusy.Query"},
		"calendar.calendarlist.readonly": {"CalendarList.List"},
		"calendar.events.owned.readonly": {"Events.List"},
		"calendar.events.readonly":       {"Events.List"},
		"calendar.readonly":              {"Freebusy.Query", "CalendarList.List", "Events.List"},
		"calendar.events":                {"Events.List", "Events.Insert"},
		"calendar":                       {"Freebusy.Query", "CalendarList.List", "Events.List", "Events.Insert"},
	} {
		before := p.Written("mira")
		token := p.connect("mira", query(scopePrefix+scope))["access_token"]
		for _, m := range methods {
			res, got := p.call(m.method, m.path, token, m.body)
			if slices.Contains(opens, m.name) {
				if res.StatusCode != 200 {
					t.Errorf("%s with %s: %d %v", m.name, scope, res.StatusCode, got)
				}
				continue
			}
			// As github.com/analogdotnow/Analog/issues/296 shows one.
			want := map[string]any{"error": map[string]any{
				"code": 403.0, "message": "Request had insufficient authentication scopes.",
				"status": "PERMISSION_DENIED",
				"errors": []any{map[string]any{"message": "Insufficient Permission", "domain": "global",
					"reason": "insufficientPermissions"}},
				"details": []any{map[string]any{
					"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
					"domain": "googleapis.com", "metadata": map[string]any{
						"service": "calendar-json.googleapis.com", "method": "calendar.v3." + m.name}}}}}
			if res.StatusCode != 403 || !reflect.DeepEqual(got, want) ||
				!strings.Contains(res.Header.Get("WWW-Authenticate"), `error="insufficient_scope"`) {
				t.Errorf("%s with %s: %d %v", m.name, scope, res.StatusCode, got)
			}
		}
		if want := map[bool]int{true: 1}[slices.Contains(opens, "Events.Insert")]; p.Written("mira") != before+want {
			t.Errorf("%d events written with %s", p.Written("mira")-before, scope)
		}
	}
}

// https://developers.google.com/workspace/calendar/api/guides/errors#401_invalid_credentials
func TestGooglesAPIRefusesTokensThatAreNotGood(t *testing.T) {
	p := newPretend(t)
	tokens := p.connect("mira", query(freebusy))
	access, _ := tokens["access_token"].(string)
	refused := func(name string, res *http.Response, body string) {
		t.Helper()
		e, _ := p.object(body)["error"].(map[string]any)
		want := []any{map[string]any{"domain": "global", "reason": "authError", "message": "Invalid Credentials",
			"locationType": "header", "location": "Authorization"}}
		if res.StatusCode != 401 || e["code"] != 401.0 || !reflect.DeepEqual(e["errors"], want) ||
			!strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
	try := func(name, path string, header ...string) {
		t.Helper()
		res, body := p.send("POST", path, "application/json", day, header...)
		refused(name, res, body)
	}
	try("none", FreeBusyPath)
	try("in the query", FreeBusyPath+"?access_token="+access)
	try("a refresh token", FreeBusyPath, "Authorization", "Bearer "+tokens["refresh_token"].(string))
	try("Basic", FreeBusyPath, "Authorization", "Basic "+access)
	p.now = p.now.Add(accessLife)
	try("an old one", FreeBusyPath, "Authorization", "Bearer "+access)

	_, tokens = p.post(GoogleTokenPath, refreshForm("one", tokens["refresh_token"]))
	access, _ = tokens["access_token"].(string)
	if res, _ := p.call("POST", FreeBusyPath, access, day); res.StatusCode != 200 {
		t.Errorf("a new one: %d", res.StatusCode)
	}
	p.EndAccessTokens()
	try("one that was ended early", FreeBusyPath, "Authorization", "Bearer "+access)
	if p.RefreshTokens("mira") != 1 {
		t.Error("the refresh token ended with the access tokens")
	}
}

// https://developers.google.com/identity/protocols/oauth2#expiration: projects in testing.
func TestGooglesRefreshTokensOfAProjectInTestingEnd(t *testing.T) {
	p := newPretend(t, func(o *CalendarOptions) { o.RefreshLife = 7 * 24 * time.Hour })
	tokens := p.connect("mira", query(freebusy))
	if tokens["refresh_token_expires_in"] != 604800.0 {
		t.Errorf("it says %v", tokens["refresh_token_expires_in"])
	}
	for wait, want := range map[time.Duration]int{0: 200, 7*24*time.Hour - time.Second: 200, 7 * 24 * time.Hour: 400} {
		start := p.now
		p.now = start.Add(wait)
		if status, answer := p.post(GoogleTokenPath, refreshForm("one", tokens["refresh_token"])); status != want {
			t.Errorf("after %s: %d %v", wait, status, answer)
		}
		p.now = start
	}
}

func TestThePretendGoogleIsOnThisMachineOnly(t *testing.T) {
	for _, origin := range []string{"http://192.0.2.1:80", "https://accounts.google.com", "http://127.0.0.1:1/x", ""} {
		if _, err := NewGoogleCalendar(CalendarOptions{Origin: origin}); err == nil {
			t.Errorf("it would be at %q", origin)
		}
	}
	p := newPretend(t)
	req, err := http.NewRequest("GET", p.url+GoogleCertsPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "rebound.example"
	res, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("under another name: %d", res.StatusCode)
	}
}
