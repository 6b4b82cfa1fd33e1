package grant_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
)

// ops is who runs Sallyport, in a process beside the servers.
func (r *rig) ops() *grant.Operator {
	return &grant.Operator{Store: r.store, Keys: r.options.Keys, Connectors: []grant.Connector{r.provider},
		Name: "root", Log: slog.New(slog.NewTextHandler(r.log, nil)), Audit: r.options.Audit}
}

// connectOf connects a grant of somebody else.
func (r *rig) connectOf(who identity.Identity) grant.Kept {
	r.Helper()
	k, err := r.broker.Connect(r.Context(), who, r.ask("a", "freebusy"), nil, identity.Handshake{}, false)
	if err != nil {
		r.Fatal(err)
	}
	return k
}

func person(n int) identity.Identity {
	return identity.Identity{Provider: "corp", Subject: fmt.Sprint("p", n), Org: identity.Org{ID: "acme"}}
}

func (r *rig) ring(keys ...grant.SealingKey) grant.Keyring {
	r.Helper()
	ring, err := grant.NewKeyring(keys)
	if err != nil {
		r.Fatal(err)
	}
	return ring
}

func oldKey() grant.SealingKey {
	k := grant.SealingKey{ID: "k"} // the rig's
	copy(k.Secret[:], "canary-key")
	return k
}

func newKey() grant.SealingKey {
	k := grant.SealingKey{ID: "n", Created: time.Now()}
	copy(k.Secret[:], "canary-new")
	return k
}

func (r *rig) lastEvent() grant.Event {
	r.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) == 0 {
		r.Fatal("nothing was told to the audit")
	}
	e := r.events[len(r.events)-1]
	if !slices.Contains(grant.EventNames(), e.Name) {
		r.Errorf("%s is not in the list of events", e.Name)
	}
	return e
}

func TestP13_AnOperatorSeesGrantsAndNothingThatIsSecret(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		for n := range 5 {
			r.connectOf(person(n))
		}
		r.connect(r.ask("a", "freebusy"))
		used := time.Now()
		r.lend(use("a"))
		time.Sleep(time.Second)
		ops := r.ops()
		ops.Keys = grant.Keyring{} // to look, no key is needed
		var all []grant.Entry
		for f := (grant.Filter{Most: 4}); ; f.After = all[len(all)-1].ID {
			page, err := ops.List(r.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, page...)
			if len(page) < f.Most {
				break
			}
		}
		if len(all) != 6 {
			t.Fatalf("%d of 6 are listed", len(all))
		}
		kept := r.kept()
		e, err := ops.Show(r.Context(), kept.ID)
		if err != nil || e.Connector != "calendar" || e.Owner != key().Owner || e.Status != grant.Active ||
			e.Account.Name != "ann@calendar.test" || e.ConnectedBy != ann.ID() ||
			!e.ConnectedAt.Equal(kept.ConnectedAt) ||
			!slices.Equal(e.Scopes, []string{"busy"}) || len(e.Consents) != 1 || e.Consents[0].App != "a" ||
			!e.UsedAt.Equal(used) || e.KeyID != "k" {
			t.Errorf("%+v, %v", e, err)
		}
		text, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{string(text), fmt.Sprintf("%+v", all)} {
			for _, secret := range []string{"canary", "Sealed", "Wrapped"} {
				if strings.Contains(text, secret) {
					t.Errorf("%s is shown: %s", secret, text)
				}
			}
		}
		for _, id := range []string{"", "x", kept.ID[:10]} {
			if _, err := ops.Show(r.Context(), id); !errors.Is(err, grant.ErrNotFound) {
				t.Errorf("%q: %v", id, err)
			}
		}
	})
}

func TestP12_AnOperatorEndsAGrantForAllReplicasAndAtTheThirdParty(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		k := r.connect(r.ask("a", "freebusy"))
		r.lend(use("a"))
		ended, err := r.ops().Revoke(r.Context(), k.ID, false)
		if err != nil || ended.There != grant.Revoked || ended.ID != k.ID ||
			ended.Account.Name != "ann@calendar.test" || len(ended.Consents) != 1 {
			t.Errorf("%+v, %v", ended, err)
		}
		if n := len(r.provider.revoked); n != 1 || r.provider.revoked[0].Refresh != "canary-refresh-1" {
			t.Errorf("the third party was asked %d times", n)
		}
		r.refused(use("a"), "freebusy", "events")
		if e := r.lastEvent(); e != (grant.Event{Name: grant.EventDisconnected, Connector: "calendar",
			Owner: key().Owner, Operator: "root", Detail: "revoked"}) {
			t.Errorf("%+v", e)
		}
		if _, err := r.ops().Revoke(r.Context(), k.ID, false); !errors.Is(err, grant.ErrNotFound) {
			t.Error("ended twice:", err)
		}
		if len(r.provider.revoked) != 1 {
			t.Error("the third party was asked again")
		}
	})
}

// overtaken is a store in which something happens between an operator's look and what follows.
type overtaken struct {
	*granttest.Store
	meanwhile func()
}

func (s *overtaken) List(ctx context.Context, f grant.Filter) ([]grant.Kept, error) {
	list, err := s.Store.List(ctx, f)
	if f.ID != "" {
		s.meanwhile()
	}
	return list, err
}

// An operator ends the grant that was named. What its person has connected anew meanwhile, with
// another ID, is another one.
func TestP12_AnOperatorEndsTheGrantThatWasNamedAndNoOther(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		k := r.connect(r.ask("a", "freebusy"))
		ops := r.ops()
		ops.Store = &overtaken{r.store, func() {
			if _, err := r.broker.End(r.Context(), ann, "calendar"); err != nil {
				t.Error(err)
			}
			r.connect(r.ask("a", "freebusy"))
		}}
		if ended, err := ops.Revoke(r.Context(), k.ID, false); !errors.Is(err, grant.ErrNotFound) {
			t.Errorf("ended %s, asked for was %s: %v", ended.ID, k.ID, err)
		}
		r.lend(use("a"))
		if n := len(r.provider.revoked); n != 1 || r.provider.revoked[0].Access != "canary-access-1" {
			t.Errorf("%d were ended at the third party", n)
		}
	})
}

func TestP12_AnOperatorIsToldWhatBecameOfAGrantAtTheThirdParty(t *testing.T) {
	gone := func(_ *rig, o *grant.Operator) { o.Connectors = nil }
	mute := func(_ *rig, o *grant.Operator) { o.Connectors = only(o.Connectors) }
	deaf := func(r *rig, _ *grant.Operator) { r.provider.deaf = true }
	keyless := func(r *rig, o *grant.Operator) { o.Keys = r.ring(newKey()) }
	for name, tt := range map[string]struct {
		change func(*rig, *grant.Operator)
		forget bool
		there  grant.Revocation
		asked  int
	}{
		"only forgotten":        {nil, true, grant.NotAsked, 0},
		"no such connector":     {gone, false, grant.NotAsked, 0},
		"it cannot be asked":    {mute, false, grant.NotSupported, 0},
		"it does not answer":    {deaf, false, grant.RevokeFailed, 1},
		"forgotten without key": {keyless, true, grant.NotAsked, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				k := r.connect(r.ask("a", "freebusy"))
				ops := r.ops()
				if tt.change != nil {
					tt.change(r, ops)
				}
				ended, err := ops.Revoke(r.Context(), k.ID, tt.forget)
				if err != nil || ended.There != tt.there || len(r.provider.revoked) != tt.asked {
					t.Errorf("%q, asked %d times, %v", ended.There, len(r.provider.revoked), err)
				}
				if e := r.lastEvent(); e.Detail != string(tt.there) {
					t.Errorf("the audit says %q", e.Detail)
				}
				r.refused(use("a"), "freebusy", "events")
			})
		})
	}
}

// only hides what a connector can do beside connecting.
func only(list []grant.Connector) []grant.Connector {
	return []grant.Connector{struct{ grant.OAuth }{list[0].(grant.OAuth)}}
}

func TestP12_AGrantThatCouldNotBeEndedAtTheThirdPartyForWantOfAKeyIsKept(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		k := r.connect(r.ask("a", "freebusy"))
		ops := r.ops()
		ops.Keys = r.ring(newKey())
		if _, err := ops.Revoke(r.Context(), k.ID, false); !errors.Is(err, grant.ErrKeyUnknown) {
			t.Error(err)
		}
		r.lend(use("a"))
	})
}

func TestP13_RekeyBesideServersCanBeStoppedAndGoesOn(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		const grants = 450 // more than are read at a time
		for n := range grants - 1 {
			r.connectOf(person(n))
		}
		r.connect(r.ask("a", "freebusy"))
		both := r.ring(oldKey(), newKey())
		r.options.Keys = both
		server := r.another()
		ops := r.ops()
		became, err := ops.Rekey(r.Context())
		if err != nil || became.Done != 0 || became.Left != 0 || became.Key != "k" || became.Newest != "n" ||
			!became.SealsFrom.Equal(time.Now().Add(10*time.Minute)) {
			t.Errorf("a key that replicas may not know yet: %+v, %v", became, err)
		}
		before := len(r.events)
		time.Sleep(10 * time.Minute)

		var n int
		r.store.SetBefore(func(_ context.Context, method string) error {
			if method != "Rewrap" {
				return nil
			}
			if n++; n > 230 {
				return fmt.Errorf("%w: stopped", grant.ErrUnavailable)
			}
			return nil
		})
		became, err = ops.Rekey(r.Context())
		if !errors.Is(err, grant.ErrUnavailable) || became.Done != 230 {
			t.Errorf("%+v, %v", became, err)
		}
		r.store.SetBefore(nil)
		if _, err := server.Lend(r.Context(), use("a")); err != nil {
			t.Error("halfway:", err)
		}
		became, err = ops.Rekey(r.Context())
		if err != nil || became.Done != grants-230 || became.Left != 0 ||
			became.Keys["n"] != grants || len(became.Keys) != 1 ||
			became.Newest != "" {
			t.Errorf("%+v, %v", became, err)
		}
		if again, err := ops.Rekey(r.Context()); err != nil || again.Done != 0 || again.Keys["n"] != grants {
			t.Errorf("once more: %+v, %v", again, err)
		}
		if len(r.events) != before+2 {
			t.Errorf("%d events of two calls that did something", len(r.events)-before)
		}
		if e := r.lastEvent(); e != (grant.Event{Name: grant.EventRekeyed, Operator: "root", Detail: "n"}) {
			t.Errorf("%+v", e)
		}

		r.options.Keys = r.ring(newKey()) // the old one is taken away
		server = r.another()
		l, err := server.Lend(r.Context(), use("a"))
		if err != nil || l.Credential() != fmt.Sprint("canary-access-", grants) {
			t.Error("without the old key:", err)
		}
		if r.kept().Version != 1 {
			t.Error("rekeying is a change that people can see")
		}
	})
}

func TestP13_WhatCannotBeRekeyedIsLeftAndCounted(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		other := oldKey()
		other.ID, other.Secret[0] = "other", 'X'
		r.options.Keys = r.ring(other)
		r.broker = r.another()
		r.connectOf(person(1))
		ops := r.ops()
		ops.Keys = r.ring(oldKey(), newKey())
		time.Sleep(10 * time.Minute)
		became, err := ops.Rekey(r.Context())
		if err != nil || became.Done != 1 || became.Left != 1 || became.Keys["other"] != 1 || became.Keys["n"] != 1 {
			t.Errorf("%+v, %v", became, err)
		}
		if !strings.Contains(r.log.String(), "key=other") {
			t.Error("the log does not say which key is missing:", r.log)
		}
	})
}

func TestP13_RekeyMeetsARefreshAndAReconnection(t *testing.T) {
	for name, meanwhile := range map[string]func(*rig){
		"refreshed": func(r *rig) {
			time.Sleep(life)
			r.lend(use("a"))
		},
		"connected again": func(r *rig) { r.connect(r.ask("a", "freebusy")) },
		"ended":           func(r *rig) { _, _ = r.broker.End(r.Context(), ann, "calendar") },
		"wrapped by another operator": func(r *rig) {
			if became, err := r.ops().Rekey(r.Context()); err != nil || became.Done != 1 {
				r.Error(became, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.connect(r.ask("a", "freebusy"))
				r.options.Keys = r.ring(oldKey(), newKey())
				r.broker = r.another()
				time.Sleep(10 * time.Minute)
				first := true
				r.store.SetBefore(func(_ context.Context, method string) error {
					if method == "Rewrap" && first {
						first = false
						meanwhile(r)
					}
					return nil
				})
				became, err := r.ops().Rekey(r.Context())
				if err != nil || became.Left != 0 || first {
					t.Errorf("%+v, %v", became, err)
				}
				if name == "ended" {
					return
				}
				r.options.Keys = r.ring(newKey())
				if _, err := r.another().Lend(r.Context(), use("a")); err != nil {
					t.Error("without the old key:", err)
				}
			})
		})
	}
}

// A grant is wrapped with a new key while a server that does not know that key refreshes it. The
// result may be the only good token: it is kept with a key that the server has, and all others have.
func TestP14_AResultIsKeptThoughTheKeyOfItsGrantIsNotKnown(t *testing.T) {
	inBubble(t, func(r *rig) { r.options.Keys = r.ring(oldKey()) }, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		behind := r.broker
		r.options.Keys = r.ring(oldKey(), newKey())
		r.broker = r.another()
		time.Sleep(life)
		r.provider.set(func(context.Context, string) error {
			if became, err := r.ops().Rekey(context.Background()); err != nil || became.Done != 1 {
				t.Error(became, err)
			}
			return nil
		}, nil)
		l, err := behind.Lend(r.Context(), use("a"))
		if err != nil || l.Credential() != "canary-access-2" {
			t.Errorf("the server that is behind: %v", err)
		}
		behind.Close()
		limited, cancel := context.WithTimeout(r.Context(), time.Minute)
		defer cancel()
		if err := behind.Wait(limited); err != nil {
			t.Error(err)
		}
		if l := r.lend(use("a")); l.Credential() != "canary-access-2" || r.provider.calls() != 1 {
			t.Error(l.Credential(), r.provider.calls())
		}
		if became, err := r.ops().Rekey(r.Context()); err != nil || became.Left != 0 {
			t.Errorf("%+v, %v", became, err)
		}
		r.lend(use("a"))
	})
}

func organizations(r *rig) {
	r.options.Offers[0].Owner = grant.OwnedByOrg
	r.options.Offers[0].ManagedBy = func(who identity.Identity) bool { return true }
}

func inOrg(who identity.Identity, org string) identity.Identity {
	who.Org = identity.Org{ID: org}
	return who
}

func TestP13_AMovedGrantIsSealedForItsNewOwner(t *testing.T) {
	inBubble(t, organizations, func(r *rig) {
		k := r.connect(r.ask("a", "freebusy"))
		n, err := r.ops().Move(r.Context(), "acme", "globex")
		if err != nil || n != 1 {
			t.Fatal(n, err)
		}
		r.refused(use("a"), "freebusy", "events") // acme has none any more
		moved := use("a")
		there := inOrg(ann, "globex")
		moved.Who.Session = &there
		if l := r.lend(moved); l.Credential() != "canary-access-1" {
			t.Error("another credential is lent")
		}
		time.Sleep(life)
		if l := r.lend(moved); l.Credential() != "canary-access-2" || r.provider.most() != 1 {
			t.Error("it is not refreshed after a move")
		}
		now, err := r.ops().Show(r.Context(), k.ID)
		if err != nil || now.Owner != (grant.Owner{Kind: grant.OwnedByOrg, ID: "globex"}) || len(now.Consents) != 1 {
			t.Errorf("%+v, %v", now, err)
		}
		if e := r.lastEvent(); e != (grant.Event{Name: grant.EventMoved, Connector: "calendar", Owner: now.Owner,
			Operator: "root", Detail: "acme"}) {
			t.Errorf("%+v", e)
		}
		if n, err := r.ops().Move(r.Context(), "acme", "globex"); n != 0 || err != nil {
			t.Error("moved again:", n, err)
		}
	})
}

func TestP13_AMoveNeverReplacesAGrant(t *testing.T) {
	inBubble(t, organizations, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.connectOf(inOrg(ann, "globex"))
		events := len(r.events)
		_, err := r.ops().Move(r.Context(), "acme", "globex")
		if !errors.Is(err, grant.ErrOccupied) || !strings.Contains(err.Error(), "calendar") {
			t.Error(err)
		}
		r.lend(use("a"))
		for _, pair := range [][2]string{{"", "globex"}, {"acme", ""}, {"acme", "acme"}} {
			if _, err := r.ops().Move(r.Context(), pair[0], pair[1]); err == nil {
				t.Error("moved", pair)
			}
		}
		if len(r.events) != events || len(r.provider.revoked) != 0 {
			t.Error("something happened nevertheless")
		}
	})
}

func TestP13_AMoveWaitsForARefreshAndCanBeGivenUp(t *testing.T) {
	inBubble(t, organizations, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.provider.set(func(context.Context, string) error { time.Sleep(5 * time.Second); return nil }, nil)
		time.Sleep(life)
		go func() { _, _ = r.broker.Lend(context.Background(), use("a")) }()
		time.Sleep(time.Second)
		brief, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if _, err := r.ops().Move(brief, "acme", "globex"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if n, err := r.ops().Move(r.Context(), "acme", "globex"); n != 1 || err != nil {
			t.Error(n, err)
		}
		if len(r.provider.revoked) != 0 {
			t.Error("the result of the refresh was revoked")
		}
	})
}

func TestP13_AGrantThatCannotBeOpenedIsNotMoved(t *testing.T) {
	inBubble(t, organizations, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		ops := r.ops()
		ops.Keys = r.ring(newKey())
		if _, err := ops.Move(r.Context(), "acme", "globex"); !errors.Is(err, grant.ErrKeyUnknown) {
			t.Error(err)
		}
		r.lend(use("a"))
	})
}

func TestP13_ARowOfBeforeAMoveIsNoticed(t *testing.T) {
	inBubble(t, organizations, func(r *rig) {
		k := r.connect(r.ask("a", "freebusy"))
		putBack := r.store.Keep(k.ID)
		if n, err := r.ops().Move(r.Context(), "acme", "globex"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		putBack()
		time.Sleep(life)
		r.refused(use("a"), grant.MissingReconnect)
		if e, err := r.ops().Show(r.Context(), k.ID); err != nil || e.Reason != grant.ReasonRolledBack ||
			r.provider.calls() != 0 {
			t.Errorf("%+v, %v; the token was shown %d times", e, err, r.provider.calls())
		}
	})
}
