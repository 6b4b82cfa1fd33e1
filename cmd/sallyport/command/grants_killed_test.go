package command

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store"
	"github.com/sallyport-proxy/sallyport/store/sqlite"
)

const webhookSecret = "canary-secret-of-the-webhooks"

// holdingApp is an app that gets events, and holds its answer to the first attempt at some.
type holdingApp struct {
	*httptest.Server
	mu      sync.Mutex
	holds   map[string]bool // these, until whoever asks has gone
	holding int             // of them it does now
	taken   map[string]int  // events that it has answered with 200
}

func newHoldingApp(t *testing.T, holds ...string) *holdingApp {
	t.Helper()
	a := &holdingApp{holds: map[string]bool{}, taken: map[string]int{}}
	for _, id := range holds {
		a.holds[id] = true
	}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, id, _ := strings.Cut(string(body), `"id":"`)
		id, _, _ = strings.Cut(id, `"`)
		a.mu.Lock()
		if a.holds[id] {
			delete(a.holds, id)
			a.holding++
			a.mu.Unlock()
			<-r.Context().Done()
			a.mu.Lock()
			a.holding--
			a.mu.Unlock()
			return
		}
		defer a.mu.Unlock()
		a.taken[id]++
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *holdingApp) times(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.taken[id]
}

// startWebhooks serves a connector whose events app gets, with a grant of it in a store of SQLite.
func startWebhooks(t *testing.T, app string) *binary {
	t.Helper()
	b, dir := &binary{}, t.TempDir()
	var grants string
	for _, address := range []*string{&b.public, &b.admin, &grants} {
		var err error
		*address, err = testenv.UnusedAddress()
		testenv.Check(t, err)
	}
	file := filepath.Join(dir, "sallyport.db")
	key, seal := session.NewKey(time.Now().Add(-time.Hour)), session.NewKey(time.Now().Add(-time.Hour))
	b.config = filepath.Join(dir, "config.yaml")
	write(t, b.config, fmt.Sprintf(`version: 1
public_url: http://%[1]s
listen: {http: %[1]q, admin: %[2]q, grants: %[3]q}
log: {level: debug, format: json}
session: {keys: ["literal:%[4]s"]}
store: "sqlite:%[5]s"
providers: [{id: sso, type: oidc, issuer: "http://localhost:1", client_id: c, client_secret: "literal:s"}]
routes: [{name: app, path: /, upstream: %[6]q, allow: authenticated}]
grants:
  encryption_keys: ["literal:%[7]s"]
  connectors: [{id: oncall, type: pagerduty_key, region: us, signing_secrets: ["literal:%[8]s"]}]
  apps: [{id: planner, token: "literal:%[9]s", routes: [app], connectors: [oncall], events_url: "%[6]s/events"}]
`, b.public, b.admin, grants, key.Text(), file, app, seal.Text(), webhookSecret, lentToken))
	s, err := sqlite.Open(t.Context(), file, store.Options{Absolute: time.Hour})
	testenv.Check(t, err)
	defer s.Close()
	_, err = s.Grants().Connect(t.Context(), grant.Record{Key: grant.Key{Connector: "oncall",
		Owner: grant.Owner{Kind: grant.OwnedByUser, ID: "sso:mira"}}, ClientID: "https://api.pagerduty.com",
		Account: grant.Account{ID: "PLH1HKV"}, Status: grant.Active},
		grant.Consent{App: "planner", Access: []string{"read"}}, 0,
		func(r grant.Record) (grant.Record, error) { return r, nil })
	testenv.Check(t, err)
	b.run(t, t.TempDir(), b.config)
	return b
}

// webhook sends an event as PagerDuty does, and is the status of the answer; 0: there was none.
func (b *binary) webhook(id string) int {
	body := fmt.Sprintf(`{"event":{"id":%q,"event_type":"incident.triggered","occurred_at":%q}}`, id,
		time.Now().UTC().Format(time.RFC3339))
	mac := hmac.New(sha256.New, []byte(webhookSecret))
	_, _ = io.WriteString(mac, body)
	r, err := http.NewRequest("POST", "http://"+b.public+"/.sallyport/webhooks/oncall", strings.NewReader(body))
	if err != nil {
		return 0
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-PagerDuty-Signature", "v1="+hex.EncodeToString(mac.Sum(nil)))
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}

// The process is killed while an app holds its answers to some events and takes others. What
// the third party was not told to be taken it sends again, and after a restart each of these is
// taken by the app. Nothing is used up before the app has it: with each 200 the app has had the
// event, and what comes again after that goes to nobody.
func TestP12_AProcessThatIsKilledWhileItRelaysLosesNoEvent(t *testing.T) {
	const events, senders = 40, 8
	name := func(i int) string { return fmt.Sprintf("Ev%02d", i) }
	app := newHoldingApp(t, name(2), name(9), name(17))
	b := startWebhooks(t, app.URL)

	var mu sync.Mutex
	tried, accepted := map[string]int{}, map[string]bool{}
	next, broken := 0, 0
	var all sync.WaitGroup
	for range senders {
		all.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= events {
					return
				}
				id := name(i)
				for status := 0; status != http.StatusOK && t.Context().Err() == nil; {
					status = b.webhook(id)
					if status == http.StatusOK && app.times(id) == 0 {
						t.Errorf("%s is called taken, and the app does not have it", id)
					}
					mu.Lock()
					tried[id]++
					accepted[id] = status == http.StatusOK
					if status == 0 {
						broken++
					}
					mu.Unlock()
					if status != http.StatusOK {
						time.Sleep(50 * time.Millisecond) // a third party waits longer
					}
				}
			}
		})
	}
	testenv.Eventually(t, "the app holds one answer, and has taken others", func() bool {
		app.mu.Lock()
		defer app.mu.Unlock()
		return app.holding > 0 && len(app.taken) > 0
	})
	testenv.Check(t, b.process.Process.Kill())
	_ = b.process.Wait()
	b.run(t, t.TempDir(), b.config)
	all.Wait()

	mu.Lock()
	defer mu.Unlock()
	more := 0
	for i := range events {
		id := name(i)
		if !accepted[id] || app.times(id) == 0 {
			t.Errorf("%s is lost: sent %d times, taken %d times", id, tried[id], app.times(id))
		}
		// An app has an event twice only where the process was killed before it could note it.
		more += app.times(id) - 1
	}
	if broken == 0 || more > senders {
		t.Errorf("%d attempts broke off, and the app took %d events once more", broken, more)
	}
	for i := range events {
		before := app.times(name(i))
		if status := b.webhook(name(i)); status != http.StatusOK || app.times(name(i)) != before {
			t.Errorf("%s comes again: %d, and the app had it %d times more", name(i), status, app.times(name(i))-before)
		}
	}
	t.Logf("%d attempts broke off, %d events came to the app twice", broken, more)
}
