package slack_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector/slack"
	"github.com/sallyport-proxy/sallyport/gateway/gatewaytest"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// lending is the gateway in front of a pretend Slack, for an app and a person.
type lending struct {
	*broker
	url, assertion string
}

func startLending(t *testing.T, c *slack.Connector) *lending {
	t.Helper()
	l := &lending{broker: newBroker(t, c)}
	g := gatewaytest.Start(t, gatewaytest.Options{Broker: l.Broker, Connector: c})
	l.url, l.assertion = g.URL, g.Assertion(t, mira)
	return l
}

// answered is what an app gets.
type answered struct {
	status int
	body   string
	header http.Header
}

// ask sends a request of the app: "POST chat.postMessage", a type and a body, and further
// headers.
func (l *lending) ask(t *testing.T, request, kind, body string, header ...string) answered {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	req, err := http.NewRequestWithContext(t.Context(), method, l.url+"/gateway/slack/api/"+path,
		strings.NewReader(body))
	testenv.Check(t, err)
	req.Header.Set("Authorization", "Bearer "+gatewaytest.Token)
	req.Header.Set("X-Sallyport-Assertion", l.assertion)
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	testenv.Check(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	testenv.Check(t, err)
	return answered{res.StatusCode, string(b), res.Header}
}

const form = "application/x-www-form-urlencoded"

// connected is a gateway to a workspace that mira has connected with these accesses.
func connected(t *testing.T, o demo.SlackOptions, access ...string) (*testenv.Faults, *lending) {
	t.Helper()
	f := startSlack(t, o)
	l := startLending(t, workspace(t, f.URL))
	_, err := l.connect(t, mira, "mira", access...)
	testenv.Check(t, err)
	return f, l
}

func TestP12_AnAppReadsConversationsPastTheSecondPageAndPosts(t *testing.T) {
	f, l := connected(t, demo.SlackOptions{}, slack.Read, slack.Post)
	var names []string
	for cursor := "-"; cursor != "" && len(names) < 20; {
		args := url.Values{"limit": {"2"}}
		if cursor != "-" {
			args.Set("cursor", cursor)
		}
		got := l.ask(t, "POST conversations.list", form, args.Encode())
		var page struct {
			OK       bool
			Channels []struct{ Name string }
			Metadata struct {
				Next string `json:"next_cursor"`
			} `json:"response_metadata"`
		}
		if err := json.Unmarshal([]byte(got.body), &page); err != nil || !page.OK {
			t.Fatalf("%d %s", got.status, got.body)
		}
		for _, c := range page.Channels {
			names = append(names, c.Name)
		}
		cursor = page.Metadata.Next
	}
	if fmt.Sprint(names) != "[channel-0 channel-1 channel-2 channel-3 channel-4 channel-5 channel-6]" {
		t.Errorf("the pages have %q", names)
	}
	const plan = `{"channel":"C1","text":"On call: Mira","blocks":[{"type":"section","token":"of the app's own data"}]}`
	for kind, body := range map[string]string{form: "channel=C1&text=On+call%3A+Mira",
		"application/json": plan, "application/json; charset=utf-8": plan} {
		if got := l.ask(t, "POST chat.postMessage", kind, body); !strings.Contains(got.body, `"ok":true`) {
			t.Errorf("%s: %d %s", kind, got.status, got.body)
		}
	}
	if posted := f.Slack.Posted(); len(posted) != 3 || posted[2] != "On call: Mira" {
		t.Errorf("posted is %q", posted)
	}
}

func TestP12_WhatIsNotOfTheAccessDoesNotReachSlack(t *testing.T) {
	f, l := connected(t, demo.SlackOptions{}, slack.Read)
	for request, want := range map[string]int{
		"POST conversations.create":       http.StatusForbidden,
		"POST admin.conversations.search": http.StatusForbidden,
		"POST oauth.v2.access":            http.StatusForbidden,
		"POST apps.uninstall":             http.StatusForbidden,
		"POST auth.revoke":                http.StatusForbidden,
		"POST users.list":                 http.StatusForbidden,
		"POST chat.postMessage/":          http.StatusForbidden,
		"GET chat.postMessage":            http.StatusForbidden,
		"PUT conversations.list":          http.StatusForbidden,
		"POST Conversations.list":         http.StatusForbidden,
		"POST conversations%2elist":       http.StatusForbidden,
		"POST chat.postMessage":           http.StatusConflict, // of a wider access: the person is asked
		"GET conversations.history":       http.StatusConflict,
		"GET reactions.get":               http.StatusConflict,
	} {
		if got := l.ask(t, request, "", ""); got.status != want {
			t.Errorf("%s: %d %s", request, got.status, got.body)
		}
	}
	for _, endpoint := range []string{"conversations.create", "oauth.v2.access", "apps.uninstall", "auth.revoke",
		"users.list", "chat.postMessage", "conversations.list", "conversations.history", "reactions.get"} {
		if n := f.Hits(endpoint); n != 0 {
			t.Errorf("%s was asked %d times", endpoint, n)
		}
	}
}

// Slack takes a token in every place of a request, and before the one in the header.
func TestP12_ATokenOfTheAppsOwnNeverReachesSlack(t *testing.T) {
	f, l := connected(t, demo.SlackOptions{}, slack.Post)
	const multi = "multipart/form-data; boundary=b"
	part := func(header string) string {
		return "--b\r\nContent-Disposition: form-data; " + header + "\r\n\r\nxoxb-evil\r\n--b--\r\n"
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write([]byte("token=xoxb-evil"))
	testenv.Check(t, err)
	testenv.Check(t, z.Close())
	for name, c := range map[string]struct {
		kind, body string
		status     int
		header     []string
	}{
		"form":                {form, "channel=C1&text=x&token=xoxb-evil", 400, nil},
		"form, first":         {form, "token=xoxb-evil&channel=C1", 400, nil},
		"form, twice":         {form, "token=&token=xoxb-evil", 400, nil},
		"form, capitals":      {form, "TOKEN=xoxb-evil", 400, nil},
		"form, escaped":       {form, "%74ok%65n=xoxb-evil", 400, nil},
		"form, blank":         {form, "+token=xoxb-evil", 400, nil},
		"form, list":          {form, "token[]=xoxb-evil", 400, nil},
		"form, member":        {form, "token[a]=xoxb-evil", 400, nil},
		"form, NUL":           {form, "token%00a=xoxb-evil", 400, nil},
		"form, semicolon":     {form, "channel=C1;token=xoxb-evil", 400, nil},
		"form, other charset": {form + "; charset=utf-16", "token=xoxb-evil", 415, nil},
		"form, Latin":         {form + "; charset=iso-8859-1", "token=xoxb-evil", 415, nil},
		"form, compressed":    {form, packed.String(), 415, []string{"Content-Encoding", "gzip"}},
		"form, said to be":    {form, "token=xoxb-evil", 415, []string{"Content-Encoding", "identity, gzip"}},
		"JSON":                {"application/json", `{"channel":"C1","token":"xoxb-evil"}`, 400, nil},
		"JSON, twice":         {"application/json", `{"token":"","token":"xoxb-evil"}`, 400, nil},
		"JSON, escaped":       {"application/json", `{"\u0074oken":"xoxb-evil"}`, 400, nil},
		"JSON, capitals":      {"application/json", `{"Token":"xoxb-evil"}`, 400, nil},
		"JSON, in a list":     {"application/json", `[{"token":"xoxb-evil"}]`, 400, nil},
		"JSON, other charset": {"application/json; charset=utf-16", `{"token":"xoxb-evil"}`, 415, nil},
		"JSON, broken":        {"application/json", `{"token":"xoxb-evil"`, 400, nil},
		"JSON, a relative":    {"application/vnd.slack+json", `{"token":"xoxb-evil"}`, 415, nil},
		"multipart":           {multi, part(`name="token"`), 400, nil},
		"multipart, bare":     {multi, part(`name=token`), 400, nil},
		"multipart, a file":   {multi, part(`name="token"; filename="x"`), 400, nil},
		"multipart, extended": {multi, part(`name*=utf-8''token`), 400, nil},
		"multipart, twice":    {multi, part(`name="a"; name="token"`), 400, nil},
		"multipart, mixed":    {"multipart/mixed; boundary=b", part(`name="token"`), 415, nil},
		"plain text":          {"text/plain", "token=xoxb-evil", 415, nil},
		"plain text, charset": {"text/plain; charset=utf-8", "token=xoxb-evil", 415, nil},
		"octets":              {"application/octet-stream", "token=xoxb-evil", 415, nil},
		"XML":                 {"text/xml", "<token>xoxb-evil</token>", 415, nil},
		"no type":             {"", "token=xoxb-evil", 415, nil},
		"a type that is none": {"form", "token=xoxb-evil", 415, nil},
		"two types":           {form + ", text/plain", "token=xoxb-evil", 415, nil},
	} {
		got := l.ask(t, "POST chat.postMessage", c.kind, c.body, c.header...)
		if got.status != c.status {
			t.Errorf("%s: %d, want %d: %s", name, got.status, c.status, got.body)
		}
	}
	for _, query := range []string{"token=xoxb-evil", "channel=C1&TOKEN=xoxb-evil", "%74oken=xoxb-evil",
		"token[]=xoxb-evil", "a=1;token=xoxb-evil", "access_token=xoxb-evil"} {
		if got := l.ask(t, "POST chat.postMessage?"+query, "", ""); got.status != http.StatusBadRequest {
			t.Errorf("?%s: %d %s", query, got.status, got.body)
		}
	}
	if n := f.Hits("chat.postMessage"); n != 0 {
		t.Errorf("Slack was asked %d times: %q", n, f.Requests("chat.postMessage"))
	}
}

// Slack says with status 200 that it does not take a token. A GET is sent once more with a
// new one, a POST is not.
func TestP14_ARefusedTokenIsRefreshedOnce(t *testing.T) {
	for _, code := range []string{"token_expired", "invalid_auth", "token_revoked"} {
		for request, again := range map[string]int{"GET conversations.list": 2, "POST conversations.list": 1} {
			t.Run(code+" "+request, func(t *testing.T) {
				f, l := connected(t, demo.SlackOptions{}, slack.Read)
				f.Set(testenv.Fault{Endpoint: "conversations.list", Body: `{"ok":false,"error":"` + code + `"}`, Times: 1,
					ContentType: "application/json; charset=utf-8"})
				before := f.Hits(testenv.Token)
				got := l.ask(t, request, "", "")
				if got.status != http.StatusOK || strings.Contains(got.body, code) != (again == 1) {
					t.Errorf("%d %s", got.status, got.body)
				}
				if n := f.Hits("conversations.list"); n != again || f.Hits(testenv.Token)-before != 1 {
					t.Errorf("asked %d times, refreshed %d times", n, f.Hits(testenv.Token)-before)
				}
				got = l.ask(t, request, "", "")
				if !strings.Contains(got.body, `"ok":true`) {
					t.Errorf("the next one: %s", got.body)
				}
			})
		}
	}
}

// Nothing else is an answer about the token.
func TestAnswersThatSayNothingOfTheTokenArePassedOn(t *testing.T) {
	f, l := connected(t, demo.SlackOptions{}, slack.Read)
	before := f.Hits(testenv.Token)
	long := `{"ok":true,"channels":["` + strings.Repeat("x", 100_000) + `"]}`
	longNo := `{"ok":false,"error":"token_expired","x":"` + strings.Repeat("x", 8<<10) + `"}`
	for _, c := range []struct{ body, kind string }{
		{`{"ok":false,"error":"missing_scope","needed":"users:read","provided":"channels:read"}`, "application/json"},
		{`{"ok":false,"error":"ratelimited"}`, "application/json"},
		{`{"ok":true,"error":"token_expired"}`, "application/json"},
		{`{"error":"token_expired"}`, "application/json"},
		{`[{"ok":false,"error":"token_expired"}]`, "application/json"},
		{`{"ok":false,"error":["token_expired"]}`, "application/json"},
		{`{"ok":false,"error":"token_expired"} {}`, "application/json"},
		{`{"ok":false,"error":"token_expired"}`, "text/html"},
		{``, "application/json"},
		{long, "application/json"},
		{longNo, "application/json"},
	} {
		f.Set(testenv.Fault{Endpoint: "conversations.list", Status: 200, Body: c.body + " ", ContentType: c.kind})
		if got := l.ask(t, "GET conversations.list", "", "", "Accept-Encoding", "gzip"); got.body != c.body+" " ||
			got.header.Get("Content-Encoding") != "" {
			t.Errorf("%.60s: it came as %.60s", c.body, got.body)
		}
	}
	if n := f.Hits(testenv.Token) - before; n != 0 {
		t.Errorf("refreshed %d times", n)
	}
	for _, r := range f.Requests("conversations.list") {
		if got := r.Header.Get("Accept-Encoding"); got != "identity" {
			t.Errorf("Slack was asked for %q, which could not be looked at", got)
		}
	}
}

// A token that lasts has ended with some of these answers, and not with one that may be about
// the address that we ask from.
func TestATokenThatLastsEndsWhenSlackSaysSo(t *testing.T) {
	for code, want := range map[string]grant.Status{"invalid_auth": grant.Active, "token_revoked": grant.NeedsReconnect,
		"account_inactive": grant.NeedsReconnect} {
		f, l := connected(t, demo.SlackOptions{NoRotation: true}, slack.Read)
		f.Set(testenv.Fault{Endpoint: "conversations.list", Body: `{"ok":false,"error":"` + code + `"}`,
			ContentType: "application/json"})
		l.ask(t, "GET conversations.list", "", "")
		views, err := l.View(t.Context(), mira)
		if err != nil || len(views) != 1 || views[0].Status != want {
			t.Errorf("%s: %+v, %v", code, views, err)
		}
	}
}

// The app was uninstalled at Slack, or something else, and a refresh is refused for it.
func TestWhatARefusedRefreshMakesOfAGrant(t *testing.T) {
	for code, want := range map[string]grant.Status{"invalid_refresh_token": grant.NeedsReconnect,
		"account_inactive": grant.RevokedUpstream, "bad_client_secret": grant.OperatorError,
		"no_permission": grant.NeedsAdmin, "ratelimited": grant.Degraded} {
		f, l := connected(t, demo.SlackOptions{}, slack.Read)
		f.Slack.EndAccessTokens(f.Slack.Team("mira"))
		f.Set(testenv.Fault{Endpoint: testenv.Token, Body: `{"ok":false,"error":"` + code + `"}`})
		before := f.Hits(testenv.Token)
		got := l.ask(t, "GET conversations.list", "", "")
		if got.status != http.StatusConflict && got.status != http.StatusServiceUnavailable {
			t.Errorf("%s: the app gets %d %s", code, got.status, got.body)
		}
		views, err := l.View(t.Context(), mira)
		if n := f.Hits(testenv.Token) - before; err != nil || len(views) != 1 || views[0].Status != want || n != 1 {
			t.Errorf("%s: %+v, %v, asked %d times", code, views, err, n)
		}
	}
}

// Many ask when the token has ended: there is one refresh, or two where the answer is lost;
// everybody gets an answer, and the chain goes on.
func TestP14_ManyAskAfterATokenHasEnded(t *testing.T) {
	for name, faults := range map[string][]testenv.Fault{"answered": nil,
		"lost": {{Endpoint: testenv.Token, Lose: true, Times: 1}}} {
		t.Run(name, func(t *testing.T) {
			f, l := connected(t, demo.SlackOptions{}, slack.Read)
			team := f.Slack.Team("mira")
			f.Slack.EndAccessTokens(team)
			f.Set(faults...)
			before := f.Hits(testenv.Token)
			var together sync.WaitGroup
			for range 12 {
				together.Go(func() {
					if got := l.ask(t, "GET conversations.list", "", ""); !strings.Contains(got.body, `"ok":true`) {
						t.Errorf("%d %s", got.status, got.body)
					}
				})
			}
			together.Wait()
			if n := f.Hits(testenv.Token) - before; n != 1+len(faults) {
				t.Errorf("%d refreshes", n)
			}
			loan, err := l.lend(t, mira)
			testenv.Check(t, err)
			if code := ask(t, workspace(t, f.URL), loan.Credential(), "auth.test"); code != "" {
				t.Errorf("what is lent: %s", code)
			}
			views, err := l.View(t.Context(), mira)
			if err != nil || len(views) != 1 || views[0].Status != grant.Active {
				t.Errorf("%+v, %v", views, err)
			}
		})
	}
}

// Nothing of the token is in an answer, though Slack would repeat it.
func TestP18_AnAnswerThatRepeatsTheTokenIsBlackened(t *testing.T) {
	f, l := connected(t, demo.SlackOptions{}, slack.Read)
	loan, err := l.lend(t, mira)
	testenv.Check(t, err)
	f.Set(testenv.Fault{Endpoint: "auth.test", Body: `{"ok":true,"token":"` + loan.Credential() + `"}`,
		ContentType: "application/json", Header: map[string]string{"X-Echo": loan.Credential()}})
	got := l.ask(t, "POST auth.test", "", "")
	if strings.Contains(got.body, loan.Credential()) || !strings.Contains(got.body, `{"ok":true,"token":"***`) ||
		got.header.Get("X-Echo") != "" {
		t.Errorf("%s, %v", got.body, got.header)
	}
}
