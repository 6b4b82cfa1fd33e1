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

// An operator writes a header that the third party does not read, or a probe that the key may not
// see, and mends it. What people lent works again without them, however it is found out; and a key
// that is refused rightly is asked about once with a configuration, however often apps come.
func TestP12_KeysOutliveAMistakeInTheConfiguration(t *testing.T) {
	var asked, dead atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch {
		case r.Header.Get("X-Key") != "canary-0123456789" || dead.Load() > 0:
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path != "/me":
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer s.Close()
	client, err := oauth.NewClient(oauth.Options{Provider: "oncall"})
	testenv.Check(t, err)
	rule, err := grant.ParseRule("GET /oncalls")
	testenv.Check(t, err)
	ring, err := grant.NewKeyring([]grant.SealingKey{{ID: "k"}})
	testenv.Check(t, err)
	store := granttest.NewStore(nil)
	broker := func(header, probe string) *grant.Broker {
		c, err := apikey.New(apikey.Options{ID: "oncall", BaseURL: s.URL, Header: header, Format: "%s", Probe: probe,
			OAuth: client, Accesses: []grant.Access{{Name: "read", Rules: []grant.Rule{rule}}}})
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
	right := func() *grant.Broker { return broker("X-Key", "GET /me") }
	ann := identity.Identity{Provider: "google", Subject: "ann"}
	use := grant.Use{App: "planner", Connector: "oncall", Who: grant.Party{Session: &ann}}
	_, err = right().ConnectKey(t.Context(), ann, grant.Ask{Connector: "oncall", App: "planner"}, "canary-0123456789",
		false)
	testenv.Check(t, err)
	status := func() grant.Status {
		k, err := store.Get(t.Context(), grant.Key{Connector: "oncall",
			Owner: grant.Owner{Kind: grant.OwnedByUser, ID: ann.ID()}})
		testenv.Check(t, err)
		return k.Status
	}
	refuse := func(b *grant.Broker) {
		t.Helper()
		l, err := b.Lend(t.Context(), use)
		testenv.Check(t, err)
		if _, err := b.Rejected(t.Context(), l); err == nil || status() != grant.NeedsReconnect {
			t.Fatalf("refused by the API and by the probe: %v, %s", err, status())
		}
		before := asked.Load()
		if _, err := b.Lend(t.Context(), use); err == nil || asked.Load() != before {
			t.Fatalf("the same mistake: %v, asked %d times more", err, asked.Load()-before)
		}
	}
	finds := map[string]func(*grant.Broker){
		"an app uses it": func(b *grant.Broker) { _, _ = b.Lend(t.Context(), use) },
		"an app asks how it is": func(b *grant.Broker) {
			_, err := b.List(t.Context(), "planner", use.Who)
			testenv.Check(t, err)
		},
		"the person looks": func(b *grant.Broker) { b.Look(t.Context(), ann) },
	}
	for name, find := range finds {
		for _, wrong := range [][2]string{{"X-Kye", "GET /me"}, {"X-Key", "GET /admin"}} {
			refuse(broker(wrong[0], wrong[1]))
			mended := right()
			find(mended)
			testenv.Eventually(t, name+": it works again", func() bool { return status() == grant.Active })
			if l, err := mended.Lend(t.Context(), use); err != nil || l.Credential() != "canary-0123456789" {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// A replica that has the mistake still refuses it once more, after one that has it no more.
	other := right()
	refuse(broker("X-Kye", "GET /me"))
	if _, err := other.Lend(t.Context(), use); err != nil {
		t.Errorf("beside a replica with the mistake: %v", err)
	}
	dead.Store(1)
	refuse(right())
	next := right()
	before := asked.Load()
	for range 5 {
		if _, err := next.Lend(t.Context(), use); err == nil {
			t.Error("a key that is refused is lent")
		}
	}
	if n := asked.Load() - before; n != 1 {
		t.Errorf("a key that is over was asked about %d times", n)
	}
}
