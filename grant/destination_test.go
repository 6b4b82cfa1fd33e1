package grant_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
)

// at is the provider as a configuration or a release has it in which addresses are others.
type at struct {
	*provider
	origin, refresh, revoke, shipped string
	client                           string
}

const (
	oldAPI, oldLogin = "https://calendar.test", "https://login.calendar.test"
	evil             = "https://evil.test"
)

func (a at) About() grant.About {
	about := a.provider.About()
	about.Refresh, about.Revoke, about.Shipped = a.refresh, a.revoke, a.shipped
	if a.client != "" {
		about.ClientID = a.client
	}
	return about
}

func (a at) Origin(account grant.Account) string {
	if account.Region == "eu" {
		return strings.Replace(a.origin, "https://", "https://eu.", 1)
	}
	return a.origin
}

func (a at) place(r *rig) *grant.Broker {
	r.options.Offers = []grant.Offer{{Connector: a, Owner: grant.OwnedByUser, Offered: r.options.Offers[0].Offered}}
	return r.another()
}

// A grant is lent, refreshed and ended at the addresses at which it was connected, and at no
// other one that somebody writes into the configuration; nothing that they get is shown there.
// What one release of ours ships after another may be elsewhere.
func TestP12_AGrantGoesOnlyWhereItWasConnected(t *testing.T) {
	here := at{origin: oldAPI + "/v1", refresh: oldLogin, revoke: oldLogin}
	shipped := at{origin: oldAPI, refresh: oldLogin, revoke: oldLogin, shipped: "calendar"}
	for name, tt := range map[string]struct {
		was, now at
		lent     bool
		revoked  bool
		account  grant.Account // "": the provider's
	}{
		"the same":                   {here, here, true, true, grant.Account{}},
		"another path":               {here, at{origin: oldAPI + "/v2", refresh: oldLogin, revoke: oldLogin}, true, true, grant.Account{}},
		"spelled otherwise":          {here, at{origin: "https://Calendar.test:443", refresh: oldLogin, revoke: oldLogin}, true, true, grant.Account{}},
		"another API":                {here, at{origin: evil, refresh: oldLogin, revoke: oldLogin}, false, true, grant.Account{}},
		"another port":               {here, at{origin: oldAPI + ":8443", refresh: oldLogin, revoke: oldLogin}, false, true, grant.Account{}},
		"without TLS":                {here, at{origin: "http://calendar.test", refresh: oldLogin, revoke: oldLogin}, false, true, grant.Account{}},
		"a name that begins like it": {here, at{origin: oldAPI + ".evil.test", refresh: oldLogin, revoke: oldLogin}, false, true, grant.Account{}},
		"the API where tokens are":   {here, at{origin: oldLogin, refresh: oldLogin, revoke: oldLogin}, false, true, grant.Account{}},
		"refreshed elsewhere":        {here, at{origin: oldAPI, refresh: evil, revoke: oldLogin}, false, true, grant.Account{}},
		"refreshed by the API":       {here, at{origin: oldAPI, refresh: oldAPI, revoke: oldLogin}, false, true, grant.Account{}},
		"ended elsewhere":            {here, at{origin: oldAPI, refresh: oldLogin, revoke: evil}, true, false, grant.Account{}},
		"ended by the API":           {here, at{origin: oldAPI, refresh: oldLogin, revoke: oldAPI}, true, false, grant.Account{}},
		"not ended before, and where it is refreshed": {at{origin: oldAPI, refresh: oldLogin}, here, true, true,
			grant.Account{}},
		"not ended before, and elsewhere": {at{origin: oldAPI, refresh: oldLogin},
			at{origin: oldAPI, refresh: oldLogin, revoke: evil}, true, false, grant.Account{}},
		"ended no more": {here, at{origin: oldAPI, refresh: oldLogin}, true, false, grant.Account{}},
		"a release of ours that moves all of it": {shipped,
			at{origin: "https://api.new.test", refresh: "https://login.new.test", revoke: "https://login.new.test",
				shipped: "calendar"}, true, true, grant.Account{}},
		"shipped, and the configuration has an address now": {shipped,
			at{origin: evil, refresh: evil, revoke: evil}, false, false, grant.Account{}},
		"shipped, and the configuration says the same address": {shipped, here, true, true, grant.Account{}},
		"of another third party that is shipped": {shipped,
			at{origin: evil, refresh: evil, revoke: evil, shipped: "mail"}, false, false, grant.Account{}},
		"the configuration's, and shipped elsewhere": {here,
			at{origin: evil, refresh: evil, revoke: evil, shipped: "calendar"}, false, false, grant.Account{}},
		"a region": {shipped, shipped, true, true, grant.Account{ID: "1", Region: "eu"}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				if tt.account.ID != "" {
					r.provider.account = tt.account
				}
				tt.was.provider, tt.now.provider = r.provider, r.provider
				r.broker = tt.was.place(r)
				r.connect(r.ask("a"))
				before := r.lend(use("a"))

				now := tt.now.place(r)
				loan, err := now.Lend(r.Context(), use("a"))
				if (err == nil) != tt.lent {
					r.Errorf("lent: %v", err)
				}
				if err == nil && loan.Credential() != before.Credential() {
					r.Error("another credential is lent")
				}
				if !tt.lent {
					needs(r.T, err, grant.MissingReconnect)
					if _, ok := errors.AsType[*grant.MovedError](err); !ok {
						r.Errorf("it does not say why: %v", err)
					}
				}
				lines, err := now.List(r.Context(), "a", grant.Party{Session: &ann})
				if err != nil || (lines[0].Status == grant.Active) != tt.lent {
					r.Errorf("the app reads %q, %v", lines[0].Status, err)
				}
				views, err := now.View(r.Context(), ann)
				if err != nil || (views[0].Moved == "") != tt.lent || (views[0].Status == grant.Active) != tt.lent {
					r.Errorf("the person reads %q: %q, %v", views[0].Status, views[0].Moved, err)
				}
				time.Sleep(life) // so that it has to be refreshed
				if _, err := now.Lend(r.Context(), use("a")); (err == nil) != tt.lent {
					r.Errorf("after its time: %v", err)
				}
				if want := map[bool]int{true: 1}[tt.lent]; r.provider.calls() != want {
					r.Errorf("the refresh token was shown %d times", r.provider.calls())
				}
				if _, err := r.broker.Lend(r.Context(), use("a")); err != nil {
					r.Errorf("where it was connected: %v", err)
				}
				became, err := now.End(r.Context(), ann, "calendar")
				if err != nil || (became == grant.Revoked) != tt.revoked || (len(r.provider.revoked) == 1) != tt.revoked {
					r.Errorf("ended: %s, %v; a token was shown %d times", became, err, len(r.provider.revoked))
				}
			})
		})
	}
}

// Whoever connects again where the address is another one now lends what they get there, and
// what was lent before is not shown there, also where it is another account.
func TestP12_WhoConnectsAgainAfterAnAddressChangedLendsWhatIsNew(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		here := at{provider: r.provider, origin: oldAPI, refresh: oldLogin, revoke: oldLogin}
		r.broker = here.place(r)
		first := r.connect(r.ask("a"))
		old := r.lend(use("a")).Credential()
		there := at{provider: r.provider, origin: evil, refresh: evil, revoke: evil}
		r.broker = there.place(r)
		p, err := r.broker.Prepare(r.Context(), ann, r.ask("a"))
		if err != nil || !p.Trip {
			r.Fatalf("the third party need not be asked: %v", err)
		}
		if err := r.broker.Agree(r.Context(), ann, p); err == nil {
			r.Error("agreeing is enough")
		}
		r.provider.account = grant.Account{ID: "2"}
		again, err := r.broker.Connect(r.Context(), ann, r.ask("a"), url.Values{}, identity.Handshake{}, true)
		if err != nil || again.ID != first.ID {
			r.Fatal(err)
		}
		if got := r.lend(use("a")); got.Credential() == old || got.Origin != evil {
			r.Errorf("lent for %s", got.Origin)
		}
		if r.provider.calls() != 0 || len(r.provider.revoked) != 0 {
			r.Errorf("the old refresh token was shown %d times, and %d times to be ended", r.provider.calls(),
				len(r.provider.revoked))
		}
		if _, err := here.place(r).Lend(r.Context(), use("a")); err == nil {
			r.Error("what was connected there is lent where it was before")
		}
	})
}

// Who can write to the database cannot have a credential sent elsewhere: what is in the row
// beside what is sealed makes nothing wider.
func TestP13_TheRowDoesNotSayWhereACredentialGoes(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.broker = at{provider: r.provider, origin: oldAPI, refresh: oldLogin, revoke: oldLogin}.place(r)
		k := r.connect(r.ask("a"))
		forged := k.Record
		forged.Destinations = nil
		for _, origin := range []string{evil, oldAPI} {
			forged.Destinations = append(forged.Destinations, grant.Destination{Purpose: grant.ToAPI, Origin: origin},
				grant.Destination{Purpose: grant.ToRefresh, Origin: origin}, grant.Destination{Purpose: grant.ToRevoke, Origin: origin})
		}
		if _, err := r.store.Connect(r.Context(), forged, grant.Consent{}, k.Version,
			func(becomes grant.Record) (grant.Record, error) {
				tokens, err := r.options.Keys.Open(k.Record)
				if err != nil {
					return grant.Record{}, err
				}
				becomes, err = r.options.Keys.Seal(becomes, tokens)
				becomes.Destinations = forged.Destinations
				return becomes, err
			}); err != nil {
			r.Fatal(err)
		}
		b := at{provider: r.provider, origin: evil, refresh: evil, revoke: evil}.place(r)
		if loan, err := b.Lend(r.Context(), use("a")); err == nil {
			r.Errorf("lent for %s", loan.Origin)
		}
		if became, err := b.End(r.Context(), ann, "calendar"); err != nil || became != grant.NotSupported {
			r.Errorf("ended: %s, %v", became, err)
		}
		if r.provider.calls() != 0 || len(r.provider.revoked) != 0 {
			r.Error("a token was shown elsewhere")
		}
	})
}

// A grant from before it was noted where it may be sent need not be used for that: the sweep
// notes it, with the addresses of the configuration.
func TestP12_TheSweepNotesWhereOldGrantsMayBeSent(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.broker = at{provider: r.provider, origin: oldAPI, refresh: oldLogin, revoke: oldLogin}.place(r)
		k := r.connect(r.ask("a"))
		if _, err := r.store.Connect(r.Context(), k.Record, grant.Consent{}, k.Version,
			func(becomes grant.Record) (grant.Record, error) {
				tokens, err := r.options.Keys.Open(k.Record)
				if err != nil {
					return grant.Record{}, err
				}
				tokens.Destinations, becomes.Destinations = nil, nil
				return r.options.Keys.Seal(becomes, tokens)
			}); err != nil {
			r.Fatal(err)
		}
		if old := r.kept(); len(old.Destinations) != 0 {
			r.Fatalf("it is not one of before: %v", old.Destinations)
		}
		time.Sleep(15 * time.Minute)
		if now := r.kept(); len(now.Destinations) != 2 { // it may be ended where it is refreshed
			r.Errorf("after a sweep: %v", now.Destinations)
		}
		if _, err := (at{provider: r.provider, origin: evil, refresh: evil}).place(r).Lend(r.Context(), use("a")); err == nil {
			r.Error("it is lent elsewhere")
		}
	})
}

// The third party of a key that people paste is its client; where a release of ours moves what
// it ships, it stays the same one.
func TestP12_AKeyGoesOnWhereOurOwnAddressIsMoved(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.broker = keyAt{at{provider: r.provider, origin: oldAPI, shipped: "calendar", client: oldAPI}}.place(r)
		if _, err := r.broker.ConnectKey(r.Context(), ann, r.ask("a"), "canary-key", false); err != nil {
			r.Fatal(err)
		}
		moved := keyAt{at{provider: r.provider, origin: "https://new.test", shipped: "calendar", client: "https://new.test"}}
		if loan, err := moved.place(r).Lend(r.Context(), use("a")); err != nil || loan.Origin != "https://new.test" {
			r.Errorf("moved by a release: %v", err)
		}
		other := keyAt{at{provider: r.provider, origin: evil, client: evil}}
		if _, err := other.place(r).Lend(r.Context(), use("a")); err == nil {
			r.Error("moved by the configuration, and lent")
		}
	})
}

// keyAt is a connector of keys.
type keyAt struct{ at at }

func (k keyAt) About() grant.About {
	about := k.at.About()
	about.Revoke, about.Refresh, about.KeyHint = "", "", "a key"
	for i := range about.Accesses {
		about.Accesses[i].Scopes = nil
	}
	return about
}

func (k keyAt) Origin(a grant.Account) string { return k.at.Origin(a) }

func (k keyAt) Accept(_ context.Context, key string, _ grant.Request) (grant.Result, error) {
	return grant.Result{Tokens: grant.Tokens{Access: key}}, nil
}

func (k keyAt) place(r *rig) *grant.Broker {
	r.options.Offers = []grant.Offer{{Connector: k, Owner: grant.OwnedByUser, Offered: r.options.Offers[0].Offered}}
	return r.another()
}
