package slack_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/connector/slack"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

const (
	signingSecret = "canary-8f742231b10e8888abcd99yyyzzz85a5"
	uninstalled   = `{"type":"app_uninstalled"}`
	revoked       = `{"type":"tokens_revoked","tokens":{"oauth":["U1"],"bot":["U2"]}}`
)

// endpoint is a broker where the pretend Slack can tell it of events. What is relayed is
// counted.
func endpoint(t *testing.T, c *slack.Connector) (*broker, demo.SlackEndpoint, *[]string) {
	t.Helper()
	ring, err := grant.NewKeyring([]grant.SealingKey{{ID: "k", Secret: [32]byte{1}}})
	testenv.Check(t, err)
	relayed := &[]string{}
	b := &broker{store: granttest.NewStore(nil)}
	b.Broker, err = grant.New(grant.Options{Store: b.store, Keys: ring, Log: slog.New(slog.DiscardHandler),
		Offers: []grant.Offer{{Connector: c, Owner: grant.OwnedByOrg, Offered: all(), SigningSecrets: []string{signingSecret},
			ManagedBy: func(identity.Identity) bool { return true }}},
		Apps: []grant.App{{ID: "planner", Name: "Planner", Told: true,
			Connectors: map[string][]string{"slack": all()}}},
		Relay: func(_ context.Context, _ string, e grant.Relayed) error {
			*relayed = append(*relayed, e.Header.Get("X-Slack-Retry-Num"))
			if len(*relayed) < 3 {
				return errors.New("the app is ill")
			}
			return nil
		},
		Redirect: func(string) string { return redirect }})
	testenv.Check(t, err)
	t.Cleanup(b.Close)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		testenv.Check(t, err)
		received, err := b.Receive(r.Context(), "slack", r.Header, body)
		if _, again := errors.AsType[*grant.LaterError](err); again {
			w.WriteHeader(http.StatusServiceUnavailable)
		} else if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = w.Write(received.Answer)
	}))
	t.Cleanup(s.Close)
	return b, demo.SlackEndpoint{URL: s.URL, Secret: signingSecret}, relayed
}

// A workspace, or an organization, that uninstalls the app is told of by two events, in
// either order; one that is late is not about the app that was installed again meanwhile.
func TestWhatIsUninstalledAtSlackIsKnownBeforeAnybodyAsks(t *testing.T) {
	for _, whole := range []bool{false, true} {
		for _, order := range [][]string{{uninstalled, revoked}, {revoked, uninstalled}} {
			f := startSlack(t, demo.SlackOptions{WholeOrganization: whole})
			b, to, _ := endpoint(t, workspace(t, f.URL))
			_, err := b.connect(t, mira, "mira", slack.Read)
			testenv.Check(t, err)
			team := f.Slack.Team("mira")
			f.Slack.Uninstall(team)
			at := time.Now().Add(2 * time.Second) // Slack tells whole seconds
			for range 2 {
				for _, event := range order {
					statuses, err := f.Slack.Tell(t.Context(), to, team, demo.SlackEvent{At: at, Event: event})
					if err != nil || !slices.Equal(statuses, []int{200}) {
						t.Errorf("%s: %v %v", event, statuses, err)
					}
				}
				_, err = b.lend(t, mira)
				if required, ok := errors.AsType[*grant.RequiredError](err); !ok || required.Status != grant.RevokedUpstream {
					t.Errorf("whole organization %v, %v: %v", whole, order, err)
				}
			}
			asked := len(f.Requests(testenv.Token))
			_, err = b.connect(t, mira, "mira", slack.Read)
			testenv.Check(t, err)
			for _, event := range order {
				_, err := f.Slack.Tell(t.Context(), to, team, demo.SlackEvent{ID: "Ev2", At: at.Add(-time.Minute), Event: event})
				testenv.Check(t, err)
			}
			if _, err := b.lend(t, mira); err != nil {
				t.Errorf("installed again: %v", err)
			}
			if now := len(f.Requests(testenv.Token)); now != asked+1 {
				t.Errorf("Slack was asked for tokens %d times, want once, to connect", now-asked)
			}
		}
	}
}

// Slack asks its question, sends again what an app did not take, and what nobody can have
// signed gets nowhere.
func TestSlackSendsAgainWhatAnAppDidNotTake(t *testing.T) {
	f := startSlack(t, demo.SlackOptions{})
	b, to, relayed := endpoint(t, workspace(t, f.URL))
	status, answer, err := f.Slack.Challenge(t.Context(), to)
	if err != nil || status != 200 || len(answer) != 40 {
		t.Errorf("its question: %d %q %v", status, answer, err)
	}
	_, err = b.connect(t, mira, "mira", slack.Mentions)
	testenv.Check(t, err)
	mention := demo.SlackEvent{At: time.Now(), Event: `{"type":"app_mention"}`}
	statuses, err := f.Slack.Tell(t.Context(), to, f.Slack.Team("mira"), mention)
	if err != nil || !slices.Equal(statuses, []int{503, 503, 200}) || fmt.Sprint(*relayed) != "[ 1 2]" {
		t.Errorf("%v %v, the app got %q", statuses, err, *relayed)
	}
	statuses, err = f.Slack.Tell(t.Context(), to, f.Slack.Team("mira"), mention)
	if err != nil || !slices.Equal(statuses, []int{200}) || len(*relayed) != 3 {
		t.Errorf("once more: %v %v, the app got %q", statuses, err, *relayed)
	}
	to.Secret = "another"
	statuses, err = f.Slack.Tell(t.Context(), to, f.Slack.Team("mira"), demo.SlackEvent{At: time.Now(), Event: uninstalled})
	if _, lent := b.lend(t, mira); err != nil || lent != nil || slices.Contains(statuses, 200) {
		t.Errorf("not signed: %v %v %v", statuses, err, lent)
	}
}
