package slack_test

import (
	"context"
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
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/slack"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	clientID = "2141029472.691202649728"
	secret   = "canary-e1b9e11dfcd19c1982d5de12921e17e8c"
	redirect = "https://sallyport.test/.sallyport/connect/slack/callback"
)

// Two people of one organization, and one of another.
var (
	mira   = identity.Identity{Provider: "corp", Subject: "mira", Org: identity.Org{ID: "acme"}}
	jonas  = identity.Identity{Provider: "corp", Subject: "jonas", Org: identity.Org{ID: "acme"}}
	tomoko = identity.Identity{Provider: "corp", Subject: "tomoko", Org: identity.Org{ID: "birch"}}
)

func handshake() identity.Handshake {
	return identity.Handshake{State: "st", Nonce: "no", Verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"}
}

func workspace(t *testing.T, base string) *slack.Connector {
	t.Helper()
	calls, err := oauth.NewClient(oauth.Options{Provider: "slack"})
	testenv.Check(t, err)
	t.Cleanup(calls.CloseIdleConnections)
	c, err := slack.New(connector.Client{ID: "slack", ClientID: clientID, ClientSecret: secret, Owner: grant.OwnedByOrg,
		Base: base, OAuth: calls})
	testenv.Check(t, err)
	return c
}

// startSlack serves the pretend Slack, which was written from Slack's documentation and not
// from the connector.
func startSlack(t *testing.T, o demo.SlackOptions) *testenv.Faults {
	t.Helper()
	o.Clients = []demo.SlackClient{{ID: clientID, Secret: secret, RedirectURIs: []string{redirect}}}
	return testenv.StartSlack(t, o)
}

func request(c grant.Connector, access ...string) grant.Request {
	r := grant.Request{RedirectURI: redirect, Access: access, Offline: true}
	for _, a := range c.About().Accesses {
		if slices.Contains(access, a.Name) {
			r.Scopes = append(r.Scopes, a.Scopes...)
		}
	}
	return r
}

func all() []string {
	return []string{slack.Read, slack.Mentions, slack.Reactions, slack.Post, slack.React, slack.History}
}

func fails(t *testing.T, what string, err error, class grant.Class, reason string) {
	t.Helper()
	if e, ok := errors.AsType[*grant.Error](err); !ok || e.Class != class || e.Reason != reason {
		t.Errorf("%s: %v, not %s (%s)", what, err, class, reason)
	}
}

// browse answers the page at address as person, without some of the scopes, and returns what
// the browser would bring back.
func browse(t *testing.T, address, person string, without ...string) url.Values {
	t.Helper()
	u, err := url.Parse(address)
	testenv.Check(t, err)
	scopes := slices.DeleteFunc(strings.Split(u.Query().Get("scope"), ","),
		func(s string) bool { return slices.Contains(without, s) })
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := browser.PostForm(address, url.Values{"answer": {"allow"}, "person": {person}, "scope": scopes})
	testenv.Check(t, err)
	defer res.Body.Close()
	back, err := res.Location()
	if err != nil || !strings.HasPrefix(back.String(), redirect+"?") {
		body, _ := io.ReadAll(res.Body)
		t.Fatalf("%s, %v: %s", res.Status, err, body)
	}
	if back.Query().Get("state") != handshake().State {
		t.Errorf("the state came back as %q", back.Query().Get("state"))
	}
	return back.Query()
}

func install(t *testing.T, c *slack.Connector, r grant.Request, without ...string) (grant.Result, error) {
	t.Helper()
	address, err := c.AuthURL(handshake(), r)
	testenv.Check(t, err)
	return c.Redeem(t.Context(), browse(t, address, "mira", without...), handshake(), r)
}

// ask calls a method of the API with a token, and returns Slack's error, "" where it is ok.
func ask(t *testing.T, c *slack.Connector, token, method string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", c.Origin(grant.Account{})+"/api/"+method, nil)
	testenv.Check(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	testenv.Check(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	testenv.Check(t, err)
	if res.StatusCode != http.StatusOK {
		t.Errorf("%s has status %d", method, res.StatusCode)
	}
	_, code, _ := strings.Cut(string(body), `"error":"`)
	code, _, _ = strings.Cut(code, `"`)
	return code
}

// The table that the seed prints: eight scopes, each in an access, and none else.
func TestTheAccessesNeedTheEightScopesAndNoOther(t *testing.T) {
	var scopes []string
	for _, a := range workspace(t, "").About().Accesses {
		scopes = append(scopes, a.Scopes...)
	}
	slices.Sort(scopes)
	want := "app_mentions:read channels:read chat:write groups:read im:history im:read reactions:read reactions:write"
	if got := strings.Join(scopes, " "); got != want {
		t.Errorf("they are %s", got)
	}
}

func TestP06_AWorkspaceIsAskedForBotScopesWithCommas(t *testing.T) {
	c := workspace(t, "")
	address, err := c.AuthURL(handshake(), request(c, slack.Read, slack.Post))
	testenv.Check(t, err)
	u, err := url.Parse(address)
	testenv.Check(t, err)
	want := url.Values{"response_type": {"code"}, "client_id": {clientID}, "redirect_uri": {redirect}, "state": {"st"},
		"scope": {"channels:read,groups:read,im:read,chat:write"}}
	if u.Query().Encode() != want.Encode() || u.Scheme+"://"+u.Host+u.Path != "https://slack.com/oauth/v2/authorize" {
		t.Errorf("browsers are sent to %s", address)
	}
}

// What goes over the wire, byte for byte, and once: the secret in the header and nowhere else.
func TestP14_TheRequestsToTheTokenEndpoint(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	c := workspace(t, peer.URL())
	_, _ = c.Redeem(t.Context(), url.Values{"code": {"47.46.a b"}}, handshake(), request(c, slack.Read))
	_, _ = c.Refresh(t.Context(), grant.Tokens{Refresh: "xoxe-1-a/b"}, request(c, slack.Read).Scopes)
	want := []string{
		"code=47.46.a+b&grant_type=authorization_code&redirect_uri=" + url.QueryEscape(redirect),
		"grant_type=refresh_token&refresh_token=xoxe-1-a%2Fb",
	}
	got := peer.Requests()
	if len(got) != len(want) {
		t.Fatalf("it was asked %d times: %q", len(got), got)
	}
	for i, raw := range got {
		head, body, _ := strings.Cut(string(raw), "\r\n\r\n")
		req := &http.Request{Header: http.Header{}}
		for line := range strings.SplitSeq(head, "\r\n") {
			if value, ok := strings.CutPrefix(line, "Authorization: "); ok {
				req.Header.Add("Authorization", value)
			}
		}
		id, pass, ok := req.BasicAuth()
		if !strings.HasPrefix(head, "POST /api/oauth.v2.access HTTP/1.1\r\n") || !ok || id != clientID || pass != secret ||
			body != want[i] {
			t.Errorf("%s\n\n%s\nnot\n%s", head, body, want[i])
		}
	}
}

// Each code of the table, as the token endpoint says it with status 200.
func TestWhatSlacksCodesMean(t *testing.T) {
	var body atomic.Value
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprintf(w, `{"ok":false,"error":%q}`, body.Load())
	}))
	defer srv.Close()
	c := workspace(t, srv.URL)
	for _, tt := range []struct {
		class  grant.Class
		reason string
		codes  string
	}{
		{grant.Yours, connector.GrantRefused, "invalid_code code_already_used code_expired invalid_refresh_token " +
			"token_expired invalid_grant"},
		{grant.Gone, slack.Uninstalled, "token_revoked account_inactive app_uninstalled"},
		{grant.AdminTheir, slack.AdminPolicy, "cannot_install_an_org_installed_app enterprise_is_restricted " +
			"ekm_access_denied no_permission restricted_action team_access_not_granted two_factor_setup_required"},
		{grant.Ours, connector.ClientRefused, "bad_client_secret invalid_client_id client_id_token_mismatch not_authed"},
		{grant.Ours, connector.RequestRefused, "bad_redirect_uri oauth_authorization_url_mismatch invalid_grant_type " +
			"invalid_scope no_scopes invalid_team_for_non_distributed_app preview_feature_not_available " +
			"token_rotation_not_enabled is_bot missing_scope not_allowed_token_type deprecated_endpoint " +
			"method_deprecated unknown_method invalid_arguments invalid_arg_name invalid_array_arg invalid_charset " +
			"invalid_form_data invalid_post_type missing_post_type"},
		{grant.Later, connector.Busy, "ratelimited rate_limited team_added_to_org org_login_required accesslimited " +
			"request_timeout service_unavailable internal_error fatal_error"},
		// It may say that we ask from an address that the workspace does not let in.
		{grant.Later, connector.UnknownCode, "invalid_auth a_new_word"},
	} {
		for code := range strings.FieldsSeq(tt.codes) {
			body.Store(code)
			_, err := c.Refresh(t.Context(), grant.Tokens{Refresh: "r"}, nil)
			fails(t, code, err, tt.class, tt.reason)
			if n := asked.Swap(0); n != 1 {
				t.Errorf("%s: asked %d times", code, n)
			}
		}
	}
	granttest.GuideCodes(t, "../../docs/connectors/slack.md", func(code string) error {
		body.Store(code)
		_, err := c.Refresh(t.Context(), grant.Tokens{Refresh: "r"}, nil)
		return err
	})
	asked.Store(0)
	for code, class := range map[string]grant.Class{"access_denied": grant.Yours, "invalid_scope": grant.Ours,
		"invalid_team_for_non_distributed_app": grant.Ours, "a_new_word": grant.Later} {
		_, err := c.Redeem(t.Context(), url.Values{"error": {code}}, handshake(), request(c, slack.Read))
		if grant.ClassOf(err) != class || asked.Load() != 0 {
			t.Errorf("a callback with %s: %v, asked %d times", code, err, asked.Load())
		}
	}
}

func TestAWorkspaceIsConnectedUsedRefreshedAndEnded(t *testing.T) {
	f := startSlack(t, demo.SlackOptions{})
	c := workspace(t, f.URL)
	r := request(c, all()...)
	got, err := install(t, c, r)
	if err != nil {
		t.Fatal(err)
	}
	team := f.Slack.Team("mira")
	if want := (grant.Account{ID: team, Name: "Acme Rockets", Chain: team}); got.Account != want {
		t.Errorf("the account is %+v", got.Account)
	}
	if left := time.Until(got.Tokens.AccessExpires); left > 12*time.Hour || left < 11*time.Hour {
		t.Errorf("the access token ends in %v", left)
	}
	if code := ask(t, c, got.Tokens.Access, "conversations.list"); code != "" {
		t.Errorf("a token whose type is bot, as Bearer: %s", code)
	}
	next, err := c.Refresh(t.Context(), got.Tokens, r.Scopes)
	if err != nil || next.Account != (grant.Account{ID: team}) {
		t.Fatalf("a refresh: %+v, %v", next.Account, err)
	}
	for _, token := range []string{got.Tokens.Access, next.Tokens.Access} {
		if code := ask(t, c, token, "auth.test"); code != "" {
			t.Errorf("two access tokens are good: %s", code)
		}
	}
	if became, err := c.Revoke(t.Context(), next.Tokens, 1); became != grant.SharedThere || err != nil ||
		f.Hits("apps.uninstall") != 0 {
		t.Errorf("beside another grant: %s, %v", became, err)
	}
	if became, err := c.Revoke(t.Context(), next.Tokens, 0); became != grant.Revoked || err != nil {
		t.Errorf("%s, %v", became, err)
	}
	if _, there := f.Slack.Installed(team); there || f.Hits("apps.uninstall") != 1 || f.Hits("auth.revoke") != 0 {
		t.Errorf("still installed: %t", there)
	}
}

// Two access tokens of an installation are good at a time. A lost answer makes one that
// nobody has; what is kept afterwards is good, and so is the chain.
func TestALostAnswerIsAskedForOnceMore(t *testing.T) {
	f := startSlack(t, demo.SlackOptions{})
	c := workspace(t, f.URL)
	r := request(c, slack.Read)
	first, err := install(t, c, r)
	testenv.Check(t, err)
	if !c.About().Resend {
		t.Error("it is not asked for again")
	}
	f.Set(testenv.Fault{Endpoint: testenv.Token, Lose: true, Times: 1})
	if _, err := c.Refresh(t.Context(), first.Tokens, r.Scopes); grant.ClassOf(err) != grant.Lost {
		t.Errorf("a lost answer: %v", err)
	}
	again, err := c.Refresh(t.Context(), first.Tokens, r.Scopes)
	testenv.Check(t, err)
	if code := ask(t, c, again.Tokens.Access, "auth.test"); code != "" {
		t.Errorf("the token that came: %s", code)
	}
	if code := ask(t, c, first.Tokens.Access, "auth.test"); code == "" {
		t.Error("three access tokens are good")
	}
	for range 3 { // the chain goes on
		again, err = c.Refresh(t.Context(), again.Tokens, r.Scopes)
		testenv.Check(t, err)
	}
	if active, _ := f.Slack.Installed(f.Slack.Team("mira")); active != 2 {
		t.Errorf("%d access tokens are good", active)
	}
}

// Past the time in which a repetition is answered, a refresh token that was used is refused,
// and the person has to connect again.
func TestARefreshTokenIsUsedOnceAndAMomentMore(t *testing.T) {
	var later atomic.Int64
	f := startSlack(t, demo.SlackOptions{Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) }})
	c := workspace(t, f.URL)
	first, err := install(t, c, request(c, slack.Read))
	testenv.Check(t, err)
	for _, after := range []time.Duration{0, 10 * time.Second} {
		later.Store(int64(after))
		if _, err := c.Refresh(t.Context(), first.Tokens, nil); err != nil {
			t.Errorf("%v after the first time: %v", after, err)
		}
	}
	later.Store(int64(10 * time.Minute))
	_, err = c.Refresh(t.Context(), first.Tokens, nil)
	fails(t, "ten minutes after", err, grant.Yours, connector.GrantRefused)
}

func TestAnInstallationForAnOrganizationOfWorkspaces(t *testing.T) {
	f := startSlack(t, demo.SlackOptions{WholeOrganization: true})
	c := workspace(t, f.URL)
	got, err := install(t, c, request(c, slack.Read))
	id := f.Slack.Team("mira")
	if err != nil || got.Account != (grant.Account{ID: id, Name: "Acme Rockets", Chain: id}) || id[0] != 'E' {
		t.Errorf("%+v, %v", got.Account, err)
	}
	if got := c.FinishURL(got.Account); got != "https://app.slack.com/manage/"+id+"/integrations" {
		t.Errorf("it is finished at %s", got)
	}
}

// Whose installation it is must be said; a name alone does not do.
func TestAnAnswerThatDoesNotSayWhose(t *testing.T) {
	var parties atomic.Value
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"ok":true,"token_type":"bot","access_token":"xoxe.xoxb-1","refresh_token":"xoxe-1",`+
			`"expires_in":43200%s}`, parties.Load())
	}))
	defer srv.Close()
	c := workspace(t, srv.URL)
	const acme, starship = `{"id":"T1AB","name":"Acme"}`, `{"id":"E1XX","name":"Starship"}`
	for text, want := range map[string]string{
		`,"team":` + acme: "T1AB",
		`,"team":` + acme + `,"enterprise":null,"is_enterprise_install":false`:             "T1AB",
		`,"team":` + acme + `,"enterprise":` + starship + `,"is_enterprise_install":false`: "T1AB",
		`,"team":null,"enterprise":` + starship + `,"is_enterprise_install":true`:          "E1XX",
		`,"team":null,"enterprise":` + starship + `,"is_enterprise_install":false`:         "",
		`,"team":null`: "", ``: "", `,"team":{"name":"Acme"}`: "", `,"team":"T1AB"`: "", `,"team":[]`: "",
		`,"team":{"id":"T1/../x"}`: "", `,"team":{"id":"E1XX"}`: "", `,"team":{"id":7}`: "", `,"team":{"id":"T"}`: "",
		`,"team":` + acme + `,"is_enterprise_install":true`: "",
	} {
		parties.Store(text)
		got, err := c.Redeem(t.Context(), url.Values{"code": {"c"}}, handshake(), request(c, slack.Read))
		if want == "" {
			fails(t, text, err, grant.Lost, connector.NoAccount)
		} else if err != nil || got.Account.ID != want || got.Account.Chain != want {
			t.Errorf("%s: %+v, %v", text, got.Account, err)
		}
		// What came must be kept, so this fails no refresh.
		got, err = c.Refresh(t.Context(), grant.Tokens{Refresh: "r"}, nil)
		if err != nil || got.Account.ID != want || got.Tokens.Refresh != "xoxe-1" {
			t.Errorf("a refresh, %s: %+v, %v", text, got.Account, err)
		}
	}
}

// Scopes that the app's manifest calls optional may be left out there.
func TestAnOptionalScopeThatWasLeftOut(t *testing.T) {
	f := startSlack(t, demo.SlackOptions{Optional: []string{"im:history", "reactions:write"}})
	c := workspace(t, f.URL)
	_, err := install(t, c, request(c, slack.Post, slack.History, slack.React), "im:history", "reactions:write")
	fails(t, "left out", err, grant.Narrow, connector.ScopesMissing)
	if e, _ := errors.AsType[*grant.Error](err); e != nil && fmt.Sprint(e.Missing) != "[reactions:write im:history]" &&
		fmt.Sprint(e.Missing) != "[im:history reactions:write]" {
		t.Errorf("missing is %q", e.Missing)
	}
	// An access that does not need them can be connected.
	if got, err := install(t, c, request(c, slack.Post), "im:history"); err != nil || !slices.Equal(got.Scopes,
		[]string{"chat:write"}) {
		t.Errorf("%q, %v", got.Scopes, err)
	}
}

// Scopes of an installation stay with it: a later one is as wide.
func TestAnInstallationKeepsScopesOfEarlierOnes(t *testing.T) {
	f := startSlack(t, demo.SlackOptions{})
	c := workspace(t, f.URL)
	_, err := install(t, c, request(c, slack.Post))
	testenv.Check(t, err)
	got, err := install(t, c, request(c, slack.React))
	if err != nil || !slices.Equal(got.Scopes, []string{"chat:write", "reactions:write"}) {
		t.Errorf("%q, %v", got.Scopes, err)
	}
}

func TestATokenThatDoesNotEnd(t *testing.T) {
	f := startSlack(t, demo.SlackOptions{NoRotation: true})
	c := workspace(t, f.URL)
	got, err := install(t, c, request(c, slack.Read))
	if err != nil || got.Tokens.Refresh != "" || !got.Tokens.AccessExpires.IsZero() {
		t.Fatalf("%v", err)
	}
	if code := ask(t, c, got.Tokens.Access, "auth.test"); code != "" {
		t.Error(code)
	}
	if became, err := c.Revoke(t.Context(), got.Tokens, 0); became != grant.Revoked || err != nil {
		t.Errorf("%s, %v", became, err)
	}
}

// An app that was connected before its token rotation was switched on goes on with the token
// that does not end, and has tokens that end once it is connected again.
func TestAnInstallationRotatesOnceItIsConnectedAgain(t *testing.T) {
	f := startSlack(t, demo.SlackOptions{NoRotation: true})
	c := workspace(t, f.URL)
	lasting, err := install(t, c, request(c, slack.Read))
	testenv.Check(t, err)
	f.Slack.Rotate()
	if code := ask(t, c, lasting.Tokens.Access, "auth.test"); code != "" {
		t.Errorf("the token that does not end: %s", code)
	}
	got, err := install(t, c, request(c, slack.Read))
	if err != nil || got.Tokens.Refresh == "" || got.Tokens.AccessExpires.IsZero() || got.Account != lasting.Account {
		t.Fatalf("connected again: %+v, %v", got.Account, err)
	}
	next, err := c.Refresh(t.Context(), got.Tokens, nil)
	testenv.Check(t, err)
	if code := ask(t, c, next.Tokens.Access, "auth.test"); code != "" {
		t.Errorf("after a refresh: %s", code)
	}
}

// Without bot scopes Slack gives out a token of the person, which is not what was asked for.
func TestOnlyATokenOfThePersonIsAFailure(t *testing.T) {
	f := startSlack(t, demo.SlackOptions{OnlyPerson: true})
	c := workspace(t, f.URL)
	got, err := install(t, c, request(c, slack.Read))
	fails(t, "only the person's", err, grant.Ours, slack.NoBotToken)
	if got.Tokens.Access != "" || strings.Contains(err.Error(), "xoxp-") {
		t.Error("the person's token is kept or shown")
	}
}

// What becomes of an installation that is ended here, as Slack lets it.
func TestP12_DisconnectingSaysWhatEndedAtSlack(t *testing.T) {
	for name, tt := range map[string]struct {
		o         demo.SlackOptions
		before    func(*testenv.Faults, string)
		want      grant.Revocation
		installed bool
		asked     string // how often: uninstall, refresh, revoke
	}{
		"an access token that has ended": {demo.SlackOptions{},
			func(f *testenv.Faults, team string) { f.Slack.EndAccessTokens(team) }, grant.Revoked, false, "2 1 0"},
		"uninstalled there before": {demo.SlackOptions{},
			func(f *testenv.Faults, team string) { f.Slack.Uninstall(team) }, grant.NotSupported, false, "1 1 0"},
		"apps are not uninstalled by bots": {demo.SlackOptions{KeepsApps: true},
			func(*testenv.Faults, string) {}, grant.NotSupported, true, "1 0 2"},
		"the same, and it does not end": {demo.SlackOptions{KeepsApps: true, NoRotation: true},
			func(*testenv.Faults, string) {}, grant.Revoked, true, "1 0 1"},
		"Slack is away": {demo.SlackOptions{}, func(f *testenv.Faults, _ string) {
			f.Set(testenv.Fault{Endpoint: "apps.uninstall", Status: 503})
		}, grant.RevokeFailed, true, "1 0 0"},
		"too often": {demo.SlackOptions{}, func(f *testenv.Faults, _ string) {
			f.Set(testenv.Fault{Endpoint: "apps.uninstall", Body: `{"ok":false,"error":"ratelimited"}`})
		}, grant.RevokeFailed, true, "1 0 0"},
		"an answer that says nothing": {demo.SlackOptions{}, func(f *testenv.Faults, _ string) {
			f.Set(testenv.Fault{Endpoint: "apps.uninstall", Body: `{}`})
		}, grant.RevokeFailed, true, "1 0 0"},
		"the account is no more": {demo.SlackOptions{}, func(f *testenv.Faults, _ string) {
			f.Set(testenv.Fault{Endpoint: "apps.uninstall", Body: `{"ok":false,"error":"account_inactive"}`})
		}, grant.Revoked, true, "1 0 0"},
	} {
		t.Run(name, func(t *testing.T) {
			f := startSlack(t, tt.o)
			c := workspace(t, f.URL)
			got, err := install(t, c, request(c, slack.Read))
			testenv.Check(t, err)
			team := f.Slack.Team("mira")
			tt.before(f, team)
			before := f.Hits(testenv.Token)
			became, err := c.Revoke(t.Context(), got.Tokens, 0)
			if became != tt.want || (err != nil) != (tt.want == grant.RevokeFailed) {
				t.Errorf("%s, %v", became, err)
			}
			asked := fmt.Sprint(f.Hits("apps.uninstall"), f.Hits(testenv.Token)-before, f.Hits("auth.revoke"))
			if active, there := f.Slack.Installed(team); there != tt.installed || asked != tt.asked ||
				tt.o.KeepsApps && active != 0 {
				t.Errorf("installed %t with %d tokens, asked %s", there, active, asked)
			}
		})
	}
	c := workspace(t, "")
	for id, want := range map[string]string{
		"T9TK3CUKW": "https://app.slack.com/apps-manage/T9TK3CUKW/integrations/installed",
		"":          "https://my.slack.com/apps/manage", "T1/../../x?y#z": "https://my.slack.com/apps/manage",
	} {
		if got := c.FinishURL(grant.Account{ID: id}); got != want {
			t.Errorf("%s is finished at %s", id, got)
		}
	}
}

func TestWhatIsMissingInTheConfiguration(t *testing.T) {
	calls, err := oauth.NewClient(oauth.Options{Provider: "slack"})
	testenv.Check(t, err)
	for key, o := range map[string]connector.Client{
		"client_id":     {ClientSecret: secret, Owner: grant.OwnedByOrg},
		"client_secret": {ClientID: clientID, Owner: grant.OwnedByOrg},
		"owner":         {ClientID: clientID, ClientSecret: secret, Owner: grant.OwnedByUser},
	} {
		o.ID, o.OAuth = "slack", calls
		_, err := slack.New(o)
		if fault, ok := errors.AsType[*connector.Fault](err); !ok || fault.Key != key {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// broker is a Broker with the connector, for an app of everything.
type broker struct {
	*grant.Broker
	store *granttest.Store
	log   *lines
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newBroker(t *testing.T, c *slack.Connector) *broker {
	t.Helper()
	k := grant.SealingKey{ID: "k"}
	copy(k.Secret[:], "canary-key")
	ring, err := grant.NewKeyring([]grant.SealingKey{k})
	testenv.Check(t, err)
	b := &broker{store: granttest.NewStore(nil), log: &lines{}}
	b.Broker, err = grant.New(grant.Options{Store: b.store, Keys: ring, Log: slog.New(slog.NewTextHandler(b.log, nil)),
		Offers: []grant.Offer{{Connector: c, Owner: grant.OwnedByOrg, Offered: all(),
			ManagedBy: func(identity.Identity) bool { return true }}},
		Apps: []grant.App{{ID: "planner", Name: "Planner", Routes: []string{"app"},
			Connectors: map[string][]string{"slack": all()}}},
		Redirect: func(string) string { return redirect }})
	testenv.Check(t, err)
	t.Cleanup(func() {
		b.Close()
		testenv.Check(t, b.Wait(context.Background()))
	})
	return b
}

// connect has somebody install the app, who is person at Slack.
func (b *broker) connect(t *testing.T, who identity.Identity, person string, access ...string) (grant.Kept, error) {
	t.Helper()
	ask := grant.Ask{Connector: "slack", App: "planner", Access: access}
	p, err := b.Prepare(t.Context(), who, ask)
	testenv.Check(t, err)
	address, err := b.AuthURL(p, handshake())
	testenv.Check(t, err)
	return b.Connect(t.Context(), who, ask, browse(t, address, person), handshake(), false)
}

func (b *broker) lend(t *testing.T, who identity.Identity) (grant.Loan, error) {
	t.Helper()
	return b.Lend(t.Context(), grant.Use{App: "planner", Connector: "slack", Who: grant.Party{Session: &who}})
}

// Whoever of an organization installs it, there is one chain of tokens, and the newest is
// what is lent.
func TestP14_TwoPeopleWhoConnectOneWorkspaceShareOneGrant(t *testing.T) {
	f := startSlack(t, demo.SlackOptions{})
	c := workspace(t, f.URL)
	b := newBroker(t, c)
	first, err := b.connect(t, mira, "mira", slack.Read)
	testenv.Check(t, err)
	second, err := b.connect(t, jonas, "jonas", slack.Read, slack.Post)
	testenv.Check(t, err)
	if first.ID != second.ID || second.Account.ID != f.Slack.Team("jonas") {
		t.Errorf("two grants: %s, %s of %+v", first.ID, second.ID, second.Account)
	}
	for range 4 { // further than two tokens
		loan, err := b.lend(t, mira)
		testenv.Check(t, err)
		if code := ask(t, c, loan.Credential(), "auth.test"); code != "" {
			t.Errorf("what is lent: %s", code)
		}
		if _, err := b.connect(t, jonas, "jonas", slack.Read, slack.Post, slack.React); err != nil {
			t.Fatal(err)
		}
	}
	if became, err := b.End(t.Context(), jonas, "slack"); became != grant.Revoked || err != nil {
		t.Errorf("%s, %v", became, err)
	}
	if _, there := f.Slack.Installed(f.Slack.Team("mira")); there {
		t.Error("it is still installed")
	}
}

// A second organization that connects the workspace of the first gets nothing, and the first
// keeps what it has.
func TestP14_AWorkspaceOfAnotherOrganizationIsNotTakenOver(t *testing.T) {
	f := startSlack(t, demo.SlackOptions{})
	c := workspace(t, f.URL)
	b := newBroker(t, c)
	_, err := b.connect(t, mira, "mira", slack.Read)
	testenv.Check(t, err)
	if _, err := b.connect(t, tomoko, "mira", slack.Read); !errors.Is(err, grant.ErrChain) {
		t.Errorf("another organization: %v", err)
	}
	if f.Hits("apps.uninstall")+f.Hits("auth.revoke") != 0 {
		t.Error("the first one's was ended")
	}
	loan, err := b.lend(t, jonas)
	testenv.Check(t, err)
	if code := ask(t, c, loan.Credential(), "auth.test"); code != "" {
		t.Errorf("the first one's: %s", code)
	}
}

// What an installation had before is granted again: it is told, and nothing of it is lent.
func TestMoreThanWasAskedForIsToldAndNotLent(t *testing.T) {
	f := startSlack(t, demo.SlackOptions{})
	c := workspace(t, f.URL)
	_, err := install(t, c, request(c, slack.React))
	testenv.Check(t, err)
	b := newBroker(t, c)
	kept, err := b.connect(t, mira, "mira", slack.Post)
	if err != nil || !slices.Contains(kept.Scopes, "reactions:write") {
		t.Fatalf("%q, %v", kept.Scopes, err)
	}
	if log := b.log.String(); !strings.Contains(log, "connector=slack excess=[reactions:write]") {
		t.Errorf("the log has %s", log)
	}
	loan, err := b.lend(t, mira)
	if err != nil || len(loan.Accesses) != 1 || loan.Accesses[0].Name != slack.Post {
		t.Errorf("lent is %+v, %v", loan.Accesses, err)
	}
}

// Another workspace by mistake: the person is asked, and nothing of the first is lost.
func TestAnotherWorkspaceIsAskedAboutFirst(t *testing.T) {
	f := startSlack(t, demo.SlackOptions{})
	c := workspace(t, f.URL)
	b := newBroker(t, c)
	_, err := b.connect(t, mira, "mira", slack.Read)
	testenv.Check(t, err)
	_, err = b.connect(t, mira, "tomoko", slack.Read, slack.Post)
	if other, ok := errors.AsType[*grant.OtherAccountError](err); !ok || other == nil {
		t.Fatalf("another workspace: %v", err)
	}
	if _, there := f.Slack.Installed(f.Slack.Team("tomoko")); there {
		t.Error("the app stays where it was not wanted")
	}
	if _, there := f.Slack.Installed(f.Slack.Team("mira")); !there {
		t.Error("the first one has ended")
	}
	if _, err := b.lend(t, mira); err != nil {
		t.Error(err)
	}
}
