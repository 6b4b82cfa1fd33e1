package assemble

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

const slackSecret = "8f742231b10e8888abcd99yyyzzz85a5"

// eventApp is an app that gets events, and what it answers with.
type eventApp struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	got    []string // header and body
	told   []string // what Sallyport tells itself
}

func newEventApp(t *testing.T) *eventApp {
	t.Helper()
	a := &eventApp{status: http.StatusOK}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		a.mu.Lock()
		defer a.mu.Unlock()
		text := fmt.Sprintf("%s|%s|%s", r.Header.Get("X-Sallyport-Connector"), r.Header.Get("X-Slack-Signature"), body)
		if r.Header.Get("Content-Type") == "application/secevent+jwt" {
			a.told = append(a.told, text)
			return
		}
		a.got = append(a.got, text)
		w.WriteHeader(a.status)
	}))
	t.Cleanup(a.Close)
	return a
}

// events are those that came since the last call, after which the app answers with status.
func (a *eventApp) events(status int) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	got := a.got
	a.got, a.status = nil, status
	return got
}

// eventConfig lends to an app that gets events.
func eventConfig(t *testing.T, store, app, secrets string) (*config.Config, *Secrets) {
	t.Helper()
	cfg, faults := config.Parse("config.yaml", fmt.Appendf(nil, `version: 1
public_url: %[1]s
listen: {grants: "127.0.0.1:4184"}
session: {keys: ["literal:sallyport-key-1 2026-01-02T09:00:00Z AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"]}
store: %[2]q
providers: [{id: sso, type: oidc, issuer: "http://localhost:1", client_id: c, client_secret: "literal:s"}]
routes: [{name: app, path: /, upstream: %[3]q, allow: authenticated}]
grants:
  encryption_keys: ["literal:sallyport-key-1 2026-01-02T09:00:00Z IAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"]
  connectors:
    - {id: chat, type: slack, client_id: "214.69", client_secret: "literal:s", owner: org, access: [read, mentions],
       managed_by: [{emails: [a@a.example]}]%[4]s}
    - {id: oncall, type: pagerduty_key, region: us%[4]s}
    - {id: pager, type: pagerduty, client_id: c, client_secret: "literal:s"%[4]s}
  apps:
    - {id: planner, token: "literal:0123456789012345678901234567890123456789", routes: [app], events_url: %[5]q,
       connectors: [{id: chat, access: [mentions]}, {id: oncall, access: [read]}, {id: pager, access: [read]}]}
`, publicURL, store, app, secrets, app+"/events"))
	testenv.Check(t, faults.Err())
	sec, err := Resolve(cfg, os.LookupEnv)
	testenv.Check(t, err)
	return cfg, sec
}

// eventReplica is one process of several that take events of Slack.
func eventReplica(t *testing.T, store, app, secrets string) (*Process, *config.Config, string) {
	t.Helper()
	cfg, sec := eventConfig(t, store, app, secrets)
	p := NewProcess(prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	testenv.Check(t, p.Open(t.Context(), cfg, "test"))
	t.Cleanup(func() { testenv.Check(t, p.Close()) })
	rt, err := p.Build(cfg, sec)
	testenv.Check(t, err)
	p.Swap(rt)
	t.Cleanup(func() { p.EndRefreshes(t.Context()) })
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	return p, cfg, server.URL
}

// slackSends sends a message as Slack does, and returns the answer.
func slackSends(t *testing.T, to, secret, body string) (int, string) {
	t.Helper()
	at := fmt.Sprint(time.Now().Unix())
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "v0:%s:%s", at, body)
	return sendEvent(t, to, "chat", body, "X-Slack-Request-Timestamp", at, "X-Slack-Signature",
		"v0="+hex.EncodeToString(mac.Sum(nil)))
}

// sendEvent sends a message with headers, given as names and values.
func sendEvent(t *testing.T, to, connector, body string, headers ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequest("POST", to+"/.sallyport/webhooks/"+connector, strings.NewReader(body))
	testenv.Check(t, err)
	r.Host = host + ":4180"
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	testenv.Check(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	testenv.Check(t, err)
	return res.StatusCode, string(text)
}

func slackEvent(id, event string, at time.Time) string {
	return fmt.Sprintf(`{"token":"x", "team_id":"T1","api_app_id":"A1","event":%s,"type":"event_callback",`+
		`"event_id":%q,"event_time":%d}`, event, id, at.Unix())
}

// From the configuration to the app: two replicas take events of Slack, each of which the app
// gets once, and mark what was uninstalled there, of which the app is told.
func TestEventsOfSlackFromTheConfigurationToTheApp(t *testing.T) {
	eachStore(t, func(t *testing.T, address string) {
		app := newEventApp(t)
		const secrets = `, signing_secrets: ["literal:0123456789abcdef-older", "literal:` + slackSecret + `"]`
		p, cfg, a := eventReplica(t, address, app.URL, secrets)
		_, _, b := eventReplica(t, address, app.URL, secrets)
		if got, want := WebhookURI(cfg, cfg.Grants.Connectors[0]), publicURL+"/.sallyport/webhooks/chat"; got != want {
			t.Errorf("the address to enter at Slack is %s, want %s", got, want)
		}
		if status, text := slackSends(t, a, slackSecret, `{"type":"url_verification","challenge":"3eZbrw1a"}`); status !=
			200 || text != "3eZbrw1a" {
			t.Errorf("Slack's question: %d %q", status, text)
		}
		mention := slackEvent("Ev1", `{"type":"app_mention"}`, time.Now())
		if status, _ := slackSends(t, a, slackSecret, mention); status != 200 || app.events(200) != nil {
			t.Errorf("before anybody has connected it: %d", status)
		}
		key := grant.Key{Connector: "chat", Owner: grant.Owner{Kind: grant.OwnedByOrg, ID: "acme"}}
		_, err := p.store.Grants().Connect(t.Context(), grant.Record{Key: key, Account: grant.Account{ID: "T1", Chain: "T1"},
			ClientID: "214.69", Scopes: []string{"app_mentions:read"}, Status: grant.Active,
			RefreshedAt: time.Now().Add(-30 * time.Second)}, grant.Consent{App: "planner", Access: []string{"mentions"}}, 0,
			func(r grant.Record) (grant.Record, error) { return r, nil })
		testenv.Check(t, err)

		if status, _ := slackSends(t, a, "another secret", mention); status != 401 || app.events(500) != nil {
			t.Errorf("not signed: %d", status)
		}
		if status, _ := slackSends(t, a, slackSecret, mention); status != 503 || len(app.events(200)) != 1 {
			t.Errorf("the app is ill: %d", status)
		}
		statuses := make([]int, 4)
		var all sync.WaitGroup
		for i := range statuses {
			all.Go(func() { statuses[i], _ = slackSends(t, []string{a, b}[i%2], slackSecret, mention) })
		}
		all.Wait()
		if got := app.events(200); len(got) != 1 || !strings.HasPrefix(got[0], "chat|v0=") ||
			!strings.HasSuffix(got[0], "|"+mention) || !slices.Equal(statuses, []int{200, 200, 200, 200}) {
			t.Errorf("at both replicas: %v, the app got %q", statuses, got)
		}
		if status, _ := slackSends(t, b, slackSecret, slackEvent("Ev2", `{"type":"reaction_added"}`,
			time.Now())); status != 200 || app.events(200) != nil {
			t.Errorf("of another access: %d", status)
		}

		for i, event := range []string{`{"type":"tokens_revoked","tokens":{"bot":["U1"]}}`, `{"type":"app_uninstalled"}`,
			`{"type":"app_uninstalled"}`} {
			status, _ := slackSends(t, []string{a, b}[i%2], slackSecret, slackEvent(fmt.Sprint("Ev1", i), event, time.Now()))
			kept, err := p.store.Grants().Get(t.Context(), key)
			testenv.Check(t, err)
			if want := []grant.Status{grant.Active, grant.RevokedUpstream, grant.RevokedUpstream}[i]; status != 200 ||
				kept.Status != want {
				t.Errorf("%s: %d, it is %s", event, status, kept.Status)
			}
		}
		testenv.Eventually(t, "the app is told that the grant needs a person", func() bool {
			app.mu.Lock()
			defer app.mu.Unlock()
			return len(app.told) > 0
		})
		app.mu.Lock()
		defer app.mu.Unlock()
		if len(app.told) != 1 || !strings.HasPrefix(app.told[0], "||") || app.got != nil {
			t.Errorf("told %q, and got %q", app.told, app.got)
		}
	})
}

// A webhook of PagerDuty arrives once, whichever of its signatures counts, and not when it is
// sent again days later.
func TestWebhooksOfPagerDutyReachTheirAppOnce(t *testing.T) {
	app := newEventApp(t)
	p, _, at := eventReplica(t, "sqlite:"+filepath.Join(t.TempDir(), "sallyport.db"), app.URL,
		`, signing_secrets: ["literal:0123456789abcdef-pagerduty"]`)
	for connector, client := range map[string]string{"oncall": "https://api.pagerduty.com", "pager": "c"} {
		key := grant.Key{Connector: connector, Owner: grant.Owner{Kind: grant.OwnedByUser, ID: "sso:1"}}
		_, err := p.store.Grants().Connect(t.Context(), grant.Record{Key: key, ClientID: client,
			Account: grant.Account{ID: "PLH1HKV"}, Status: grant.Active}, grant.Consent{App: "planner",
			Access: []string{"read"}}, 0, func(r grant.Record) (grant.Record, error) { return r, nil })
		testenv.Check(t, err)
	}
	send := func(connector, id string, happened time.Time) int {
		t.Helper()
		body := fmt.Sprintf(`{"event":{"id":%q,"event_type":"incident.triggered","resource_type":"incident",`+
			`"occurred_at":%q,"data":{"id":"PGR0VU2","type":"incident"}}}`, id, happened.Format(time.RFC3339))
		mac := hmac.New(sha256.New, []byte("0123456789abcdef-pagerduty"))
		io.WriteString(mac, body)
		status, _ := sendEvent(t, at, connector, body, "X-PagerDuty-Signature", "v1="+strings.Repeat("0", 64)+",v1="+
			hex.EncodeToString(mac.Sum(nil)))
		return status
	}
	for _, tt := range []struct {
		id           string
		ago          time.Duration
		status, gets int
	}{{"01A", 0, 200, 1}, {"01A", 0, 200, 0}, {"01B", 71 * time.Hour, 200, 1}, {"01C", 73 * time.Hour, 401, 0}} {
		for _, connector := range []string{"oncall", "pager"} {
			status := send(connector, tt.id, time.Now().Add(-tt.ago))
			if got := app.events(200); status != tt.status || len(got) != tt.gets ||
				len(got) > 0 && !strings.HasPrefix(got[0], connector+"||{\"event\":{\"id\":\""+tt.id) {
				t.Errorf("%s, %s, %v ago: %d, the app got %q", connector, tt.id, tt.ago, status, got)
			}
		}
	}
}

// Without signing secrets nothing is taken: the address is as any other that is not there.
func TestP21_WithoutSigningSecretsNoEventsAreTaken(t *testing.T) {
	_, cfg, at := eventReplica(t, "sqlite:"+filepath.Join(t.TempDir(), "sallyport.db"), newEventApp(t).URL, "")
	if status, _ := slackSends(t, at, "", `{"type":"url_verification","challenge":"3eZbrw1a"}`); status != 404 ||
		WebhookURI(cfg, cfg.Grants.Connectors[0]) != "" {
		t.Errorf("taken: %d", status)
	}
}

// An app that moves is told at its new address only, and at once, also while somebody's WebSocket
// keeps the configuration from before.
func TestAnAppThatMovesIsToldWhereItIsNow(t *testing.T) {
	before, after := newEventApp(t), newEventApp(t)
	address := "sqlite:" + filepath.Join(t.TempDir(), "sallyport.db")
	p, _, _ := eventReplica(t, address, before.URL, "")
	old := p.pin() // as a WebSocket does
	defer old.Release()
	cfg, sec := eventConfig(t, address, after.URL, "")
	next, err := p.Build(cfg, sec)
	testenv.Check(t, err)
	p.Swap(next)
	for i := range 6 {
		id := fmt.Sprint("sso:", i)
		kept, err := p.store.Grants().Connect(t.Context(), grant.Record{ClientID: "https://api.pagerduty.com",
			Key:    grant.Key{Connector: "oncall", Owner: grant.Owner{Kind: grant.OwnedByUser, ID: id}},
			Status: grant.Active}, grant.Consent{App: "planner", Access: []string{"read"}}, 0,
			func(r grant.Record) (grant.Record, error) { return r, nil })
		testenv.Check(t, err)
		testenv.Check(t, p.store.Grants().SetStatus(t.Context(), kept.ID, kept.Generation, grant.NeedsReconnect,
			"x", time.Time{}))
		testenv.Eventually(t, "it is told", func() bool { return before.toldSoFar()+after.toldSoFar() > i })
	}
	if n := before.toldSoFar(); n > 0 {
		t.Errorf("%d of 6 notices went to where the app was before", n)
	}
}

func (a *eventApp) toldSoFar() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.told)
}
