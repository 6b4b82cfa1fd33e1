package apikey_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector/apikey"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// Where an operator makes a connector one of another third party, or gives it the id of one
// that was, the keys that people pasted for the first one are not sent to the second.
func TestP15_AKeyThatWasPastedForOneThirdPartyIsNotSentToAnother(t *testing.T) {
	peer := func() (url string, asked *atomic.Int32) {
		asked = &atomic.Int32{}
		s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
		t.Cleanup(s.Close)
		return s.URL, asked
	}
	first, _ := peer()
	second, asked := peer()
	client, err := oauth.NewClient(oauth.Options{Provider: "oncall"})
	testenv.Check(t, err)
	rule, err := grant.ParseRule("GET /oncalls")
	testenv.Check(t, err)
	k := grant.SealingKey{ID: "k"}
	ring, err := grant.NewKeyring([]grant.SealingKey{k})
	testenv.Check(t, err)
	store := granttest.NewStore(nil)
	broker := func(base string) *grant.Broker {
		c, err := apikey.New(apikey.Options{ID: "oncall", BaseURL: base, Probe: "GET /me", OAuth: client,
			Accesses: []grant.Access{{Name: "read", Rules: []grant.Rule{rule}}}})
		testenv.Check(t, err)
		b, err := grant.New(grant.Options{Store: store, Keys: ring,
			Offers:   []grant.Offer{{Connector: c, Owner: grant.OwnedByUser, Offered: []string{"read"}}},
			Apps:     []grant.App{{ID: "planner", Connectors: map[string][]string{"oncall": {"read"}}}},
			Redirect: func(string) string { return "" }})
		testenv.Check(t, err)
		t.Cleanup(func() {
			b.Close()
			testenv.Check(t, b.Wait(context.Background()))
		})
		return b
	}
	ann := identity.Identity{Provider: "google", Subject: "ann"}
	use := grant.Use{App: "planner", Connector: "oncall", Who: grant.Party{Session: &ann}}
	ask := grant.Ask{Connector: "oncall", App: "planner"}
	_, err = broker(first).ConnectKey(t.Context(), ann, ask, "canary-0123456789", false)
	testenv.Check(t, err)
	moved := broker(first + "/v2")
	if l, err := moved.Lend(t.Context(), use); err != nil || l.Origin != first+"/v2" {
		t.Errorf("another path of the same third party: %s, %v", l.Origin, err)
	}
	other := broker(second)
	if l, err := other.Lend(t.Context(), use); err == nil {
		t.Errorf("the key of %s is lent for %s", first, l.Origin)
	}
	if asked.Load() != 0 {
		t.Errorf("the second was asked %d times", asked.Load())
	}
	_, err = other.ConnectKey(t.Context(), ann, ask, "canary-9876543210", false)
	testenv.Check(t, err)
	if l, err := other.Lend(t.Context(), use); err != nil || l.Credential() != "canary-9876543210" {
		t.Errorf("pasted anew: %v", err)
	}
}
