package granttest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// Rows are the rows of one store, for the suite.
type Rows struct {
	// Open opens them as one more replica.
	Open func(t *testing.T) grant.Store
	// Advance has leases, attempts and claims be so much older.
	Advance func(t *testing.T, d time.Duration)
	// Keep copies the row of a grant without using a store, and returns what puts it back.
	Keep func(t *testing.T, id string) (putBack func(t *testing.T))
}

// TestStore runs the contract of grant.Store. fresh returns rows of which there are none.
func TestStore(t *testing.T, fresh func(t *testing.T) Rows) {
	for name, test := range map[string]func(*testing.T, Rows){
		"what is connected is read as it was":                           connected,
		"connecting what is there keeps its ID and consents":            connectedAgain,
		"connecting what somebody else changed":                         connectedMeanwhile,
		"of many who connect at once one does":                          connectedAtOnce,
		"P13 what cannot be sealed is not stored":                       sealFails,
		"two owners cannot share a chain":                               chains,
		"a list has pages and filters":                                  lists,
		"a consent replaces that of its app":                            agreed,
		"a consent that is withdrawn is gone":                           withdrawn,
		"what is disconnected leaves a tombstone":                       disconnected,
		"a grant that is moved keeps what it is":                        moved,
		"a grant is not moved onto another":                             movedOnto,
		"a status is set where nobody refreshes":                        statusSet,
		"use is noted and never older":                                  used,
		"a key is wrapped anew where it is still the same":              rewrapped,
		"P13 where a grant may be sent is noted once":                   bound,
		"signing in prolongs offline consents or ends them":             signedIn,
		"P14 of many who lease one holds":                               leasedOnce,
		"P14 a lease lasts while it is renewed":                         leaseRenewed,
		"P14 a lease of before the clock was set back is taken over":    leaseAhead,
		"P14 a result is stored once":                                   committed,
		"P14 a lease that was taken over cannot commit":                 fenced,
		"P14 attempts without an outcome are counted":                   attemptsCounted,
		"P14 a late result counts while nobody has a newer one":         late,
		"P14 a late result of what ended or changed is refused":         lateRefused,
		"P14 a row that went back is not refreshed":                     rolledBack,
		"P14 generations have no gaps under load":                       load,
		"what a refresh may not change stays":                           refreshKeeps,
		"a version grows with what people can see, and with that alone": versions,
		"a call whose context is over changes nothing":                  contextOver,
		"apps are told of each change that is for them, in order":       noticed,
		"a notice is one replica's at a time":                           noticesTaken,
		"a notice that was not taken in time is given up":               noticesForgotten,
		"of many who claim what counts once, one has it":                claimedOnce,
		"a claim that was given back, or is over, is another's":         claimedAgain,
	} {
		t.Run(name, func(t *testing.T) { test(t, fresh(t)) })
	}
}

// tick is a time as stores keep it.
func tick(after time.Duration) time.Time {
	return time.UnixMilli(time.Now().Add(after).UnixMilli()).UTC()
}

func keyOf(connector, person string) grant.Key {
	return grant.Key{Connector: connector, Owner: grant.Owner{Kind: grant.OwnedByUser, ID: person}}
}

// recordOf is a grant with something in every field.
func recordOf(k grant.Key) grant.Record {
	return grant.Record{Key: k,
		Account:  grant.Account{ID: "account-" + k.Owner.ID, Name: "Ännie \"A\" <ann@example.com>", Region: "eu"},
		ClientID: "client", Access: []string{"read", "write"}, Requested: []string{"a", "b c", "d"},
		Scopes: []string{"a", "b c"}, Offline: true, Status: grant.Active,
		AccessExpires: tick(time.Hour), Reconsent: tick(100 * time.Hour), ConnectedBy: "corp:ann",
		ConnectedAt: tick(0), RefreshedAt: tick(0), Destinations: []grant.Destination{
			{Purpose: grant.ToAPI, Origin: "https://api.test", Shipped: "third/eu"},
			{Purpose: grant.ToRefresh, Origin: "https://login.test:8443"}}}
}

func consentOf(app string) grant.Consent {
	return grant.Consent{App: app, Access: []string{"read"}, Offline: true, Until: tick(720 * time.Hour),
		Lapses: tick(700 * time.Hour), By: "corp:ann", At: tick(0)}
}

// seal stands for sealing: the text names what it was sealed for, as additional data does.
func seal(r grant.Record) (grant.Record, error) {
	r.Sealed = fmt.Appendf(nil, "\x00sealed %s %d %s", r.ID, r.Generation, r.Owner.ID)
	r.Wrapped, r.KeyID = []byte("\xffwrapped "+r.ID), "0123456789abcdef"
	return r, nil
}

// connect stores a grant that is not there, with a consent for calendar-app.
func connect(t *testing.T, s grant.Store, k grant.Key) grant.Record {
	t.Helper()
	r, err := s.Connect(t.Context(), recordOf(k), consentOf("calendar-app"), 0, seal)
	testenv.Check(t, err)
	return r
}

func get(t *testing.T, s grant.Store, k grant.Key) grant.Kept {
	t.Helper()
	kept, err := s.Get(t.Context(), k)
	testenv.Check(t, err)
	return kept
}

func lease(t *testing.T, s grant.Store, r grant.Record) grant.Lease {
	t.Helper()
	l, got, err := s.Lease(t.Context(), r.ID, r.Generation)
	testenv.Check(t, err)
	if got.ID != r.ID || got.Generation != r.Generation || !slices.Equal(got.Sealed, r.Sealed) {
		t.Fatalf("leased %+v, want %+v", got, r)
	}
	return l
}

// commit stores a result as a refresh does.
func commit(t *testing.T, s grant.Store, l grant.Lease, r grant.Record) grant.Record {
	t.Helper()
	r, err := s.Commit(t.Context(), l, refreshed(r), seal)
	testenv.Check(t, err)
	return r
}

func refreshed(r grant.Record) grant.Record {
	r.Status, r.Reason, r.RefreshedAt, r.AccessExpires = grant.Active, "", tick(0), tick(2*time.Hour)
	return r
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// same compares with what a failed test can print.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func connected(t *testing.T, rows Rows) {
	a, b := rows.Open(t), rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	_, err := a.Get(t.Context(), k)
	wantErr(t, "nobody connected anything", err, grant.ErrNotFound)
	asked := recordOf(k)
	asked.ID, asked.Generation, asked.Version = "chosen-elsewhere", 77, 77
	var shown grant.Record
	r, err := a.Connect(t.Context(), asked, consentOf("app"), 0, func(r grant.Record) (grant.Record, error) {
		shown = r
		r.ClientID = "what seal changes besides is not kept"
		return seal(r)
	})
	testenv.Check(t, err)
	if r.ID == "" || r.ID == asked.ID || r.Generation == 0 || r.Version == 0 ||
		shown.ID != r.ID || shown.Generation != r.Generation || shown.Key != k {
		t.Errorf("it got %q, generation %d, version %d; seal was shown %q, %d", r.ID, r.Generation, r.Version,
			shown.ID, shown.Generation)
	}
	want := recordOf(k)
	want.ID, want.Generation, want.Version = r.ID, r.Generation, r.Version
	want, _ = seal(want)
	same(t, "what connecting returns", timeless(r), timeless(want))
	kept := get(t, b, k)
	same(t, "what another replica reads", kept.Record, r)
	same(t, "its consents", kept.Consents, []grant.Consent{func() grant.Consent {
		c := consentOf("app")
		c.Until, c.Lapses, c.At = kept.Consents[0].Until, kept.Consents[0].Lapses, kept.Consents[0].At
		return c
	}()})
	if off := time.Until(kept.Consents[0].Until) - 720*time.Hour; off.Abs() > time.Minute {
		t.Errorf("until is off by %s", off)
	}
	// What is empty stays empty, and times that are not there are zero.
	bare := keyOf("calendar", "corp:bob")
	_, err = a.Connect(t.Context(), grant.Record{Key: bare, Status: grant.Active}, grant.Consent{}, 0, seal)
	testenv.Check(t, err)
	kept = get(t, b, bare)
	if kept.Consents != nil || kept.Access != nil || kept.Scopes != nil || !kept.AccessExpires.IsZero() ||
		!kept.RetryAt.IsZero() || kept.Offline {
		t.Errorf("a bare one has %+v", kept)
	}
	// The same id is another owner as an organization, and with another connector.
	org := grant.Key{Connector: "calendar", Owner: grant.Owner{Kind: grant.OwnedByOrg, ID: "corp:ann"}}
	for _, other := range []grant.Key{org, keyOf("mail", "corp:ann"), keyOf("calendar", "corp:Ann"), {}} {
		_, err = b.Get(t.Context(), other)
		wantErr(t, fmt.Sprint(other), err, grant.ErrNotFound)
	}
	if connect(t, b, org).ID == r.ID {
		t.Error("two grants have one ID")
	}
}

// timeless is r without the times, which recordOf takes from the clock.
func timeless(r grant.Record) grant.Record {
	r.AccessExpires, r.Reconsent, r.ConnectedAt, r.RefreshedAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return r
}

func connectedAgain(t *testing.T, rows Rows) {
	s := rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	first := connect(t, s, k)
	l := lease(t, s, first)
	again := recordOf(k)
	again.Scopes, again.Status, again.Reason = []string{"a"}, grant.Active, ""
	second, err := s.Connect(t.Context(), again, consentOf("mail-app"), first.Version, seal)
	testenv.Check(t, err)
	if second.ID != first.ID || second.Generation <= first.Generation || second.Version <= first.Version {
		t.Errorf("first %q %d %d, then %q %d %d", first.ID, first.Generation, first.Version,
			second.ID, second.Generation, second.Version)
	}
	kept := get(t, s, k)
	if len(kept.Consents) != 2 || kept.Consents[0].App != "calendar-app" || kept.Consents[1].App != "mail-app" {
		t.Errorf("consents %+v", kept.Consents)
	}
	_, err = s.Renew(t.Context(), l)
	wantErr(t, "renewing the lease of before", err, grant.ErrFenced)
	_, err = s.Commit(t.Context(), l, refreshed(first), seal)
	wantErr(t, "a result for what was there before", err, grant.ErrFenced)
	if l := lease(t, s, second); l.Shown != 0 || !l.Since.IsZero() {
		t.Errorf("the new token was shown %d times before", l.Shown)
	}
}

func connectedMeanwhile(t *testing.T, rows Rows) {
	a, b := rows.Open(t), rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	_, err := a.Connect(t.Context(), recordOf(k), consentOf("app"), 7, seal)
	wantErr(t, "reconnecting what is not there", err, grant.ErrChanged)
	first := connect(t, a, k)
	_, err = b.Connect(t.Context(), recordOf(k), consentOf("other-app"), 0, seal)
	wantErr(t, "connecting what somebody connected meanwhile", err, grant.ErrChanged)
	testenv.Check(t, a.Agree(t.Context(), first.ID, consentOf("another-app"), first.Version))
	_, err = b.Connect(t.Context(), recordOf(k), consentOf("other-app"), first.Version, seal)
	wantErr(t, "reconnecting what has changed", err, grant.ErrChanged)
	kept := get(t, b, k)
	if kept.Generation != first.Generation || len(kept.Consents) != 2 || kept.Consents[0].App == "other-app" {
		t.Errorf("a refused connection left %+v", kept)
	}
}

func connectedAtOnce(t *testing.T, rows Rows) {
	stores := []grant.Store{rows.Open(t), rows.Open(t)}
	k := keyOf("calendar", "corp:ann")
	var won atomic.Int64
	together(12, func(i int) {
		_, err := stores[i%2].Connect(t.Context(), recordOf(k), consentOf(fmt.Sprint("app-", i)), 0, seal)
		if err == nil {
			won.Add(1)
		} else if !errors.Is(err, grant.ErrChanged) {
			t.Errorf("connecting: %v", err)
		}
	})
	if kept := get(t, stores[0], k); won.Load() != 1 || len(kept.Consents) != 1 {
		t.Errorf("%d connected, with %d consents", won.Load(), len(kept.Consents))
	}
}

// together calls do n times at once.
func together(n int, do func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { do(i) })
	}
	all.Wait()
}

func sealFails(t *testing.T, rows Rows) {
	s := rows.Open(t)
	broken := errors.New("no key")
	fails := func(grant.Record) (grant.Record, error) { return grant.Record{}, broken }
	k := keyOf("calendar", "corp:ann")
	_, err := s.Connect(t.Context(), recordOf(k), consentOf("app"), 0, fails)
	wantErr(t, "connect", err, broken)
	_, err = s.Get(t.Context(), k)
	wantErr(t, "nothing was stored", err, grant.ErrNotFound)
	r := connect(t, s, k)
	l := lease(t, s, r)
	_, err = s.Commit(t.Context(), l, refreshed(r), fails)
	wantErr(t, "commit", err, broken)
	_, err = s.Late(t.Context(), l, refreshed(r), fails)
	wantErr(t, "late", err, broken)
	_, err = s.Move(t.Context(), r.Owner, keyOf("", "corp:bob").Owner,
		func(_, becomes grant.Record) (grant.Record, error) { return fails(becomes) })
	if err == nil {
		t.Error("moved without a seal")
	}
	same(t, "the grant", get(t, s, k).Record, r)
	commit(t, s, l, r) // the lease is still there
	_, err = s.Move(t.Context(), r.Owner, keyOf("", "corp:bob").Owner,
		func(_, becomes grant.Record) (grant.Record, error) { return fails(becomes) })
	wantErr(t, "move", err, broken)
	if get(t, s, k).Generation != r.Generation+1 {
		t.Error("it moved")
	}
}

func chains(t *testing.T, rows Rows) {
	stores := []grant.Store{rows.Open(t), rows.Open(t)}
	s := stores[0]
	chained := func(k grant.Key, chain string) grant.Record {
		r := recordOf(k)
		r.Account.Chain = chain
		return r
	}
	ann, bob := keyOf("helpdesk", "corp:ann"), keyOf("helpdesk", "corp:bob")
	r, err := s.Connect(t.Context(), chained(ann, "workspace-1"), consentOf("app"), 0, seal)
	testenv.Check(t, err)
	_, err = stores[1].Connect(t.Context(), chained(bob, "workspace-1"), consentOf("app"), 0, seal)
	wantErr(t, "another owner's of the same chain", err, grant.ErrChain)
	_, err = s.Get(t.Context(), bob)
	wantErr(t, "which is not stored", err, grant.ErrNotFound)
	r, err = s.Connect(t.Context(), chained(ann, "workspace-1"), consentOf("app"), r.Version, seal)
	if err != nil || r.Account.Chain != "workspace-1" {
		t.Errorf("reconnecting one's own: %v", err)
	}
	other, err := s.Connect(t.Context(), chained(bob, "workspace-2"), consentOf("app"), 0, seal)
	testenv.Check(t, err)
	_, err = s.Connect(t.Context(), chained(bob, "workspace-1"), consentOf("app"), other.Version, seal)
	wantErr(t, "reconnecting to another owner's chain", err, grant.ErrChain)
	_, err = s.Connect(t.Context(), chained(keyOf("other", "corp:bob"), "workspace-1"), consentOf("app"), 0, seal)
	testenv.Check(t, err) // chains are a connector's own
	for _, name := range []string{"corp:cid", "corp:dan"} {
		connect(t, s, keyOf("helpdesk", name)) // no chain is no chain
	}
	_, err = s.Disconnect(t.Context(), get(t, s, ann).ID)
	testenv.Check(t, err)
	_, err = s.Connect(t.Context(), chained(bob, "workspace-1"), consentOf("app"), other.Version, seal)
	testenv.Check(t, err)

	var won atomic.Int64
	together(8, func(i int) {
		k := keyOf("helpdesk", fmt.Sprint("corp:many-", i))
		_, err := stores[i%2].Connect(t.Context(), chained(k, "workspace-3"), consentOf("app"), 0, seal)
		if err == nil {
			won.Add(1)
		} else if !errors.Is(err, grant.ErrChain) {
			t.Errorf("connecting at once: %v", err)
		}
	})
	list, err := s.List(t.Context(), grant.Filter{Connector: "helpdesk", Chain: "workspace-3"})
	if err != nil || won.Load() != 1 || len(list) != 1 {
		t.Errorf("%d connected, %d are listed: %v", won.Load(), len(list), err)
	}
}

func lists(t *testing.T, rows Rows) {
	s := rows.Open(t)
	list := func(f grant.Filter) (ids []string) {
		t.Helper()
		kept, err := s.List(t.Context(), f)
		testenv.Check(t, err)
		for _, k := range kept {
			ids = append(ids, k.ID)
		}
		return ids
	}
	if got := list(grant.Filter{}); len(got) != 0 {
		t.Errorf("an empty store lists %v", got)
	}
	byKey := map[grant.Key]grant.Record{}
	for i := range 11 {
		for _, connector := range []string{"calendar", "mail"} {
			r := connect(t, s, keyOf(connector, fmt.Sprint("corp:", i)))
			byKey[r.Key] = r
			if i%2 == 0 {
				testenv.Check(t, s.Agree(t.Context(), r.ID, consentOf("b-app"), r.Version))
			}
		}
	}
	all := list(grant.Filter{})
	if len(all) != 22 || !slices.IsSorted(all) {
		t.Fatalf("all: %v", all)
	}
	var paged []string
	for f := (grant.Filter{Most: 5}); ; f.After = paged[len(paged)-1] {
		page := list(f)
		if len(page) == 0 {
			break
		}
		if len(page) > 5 {
			t.Fatalf("a page of %d", len(page))
		}
		paged = append(paged, page...)
	}
	same(t, "page by page", paged, all)
	if got := list(grant.Filter{Connector: "mail"}); len(got) != 11 {
		t.Errorf("of one connector: %v", got)
	}
	of := func(name string) grant.Owner { return grant.Owner{Kind: grant.OwnedByUser, ID: name} }
	if got := list(grant.Filter{Owners: []grant.Owner{of("corp:1"), of("corp:3"), of("nobody"),
		{Kind: grant.OwnedByOrg, ID: "corp:5"}}}); len(got) != 4 {
		t.Errorf("of two owners: %v", got)
	}
	if got := list(grant.Filter{Account: "account-corp:7", Connector: "mail"}); len(got) != 1 ||
		got[0] != byKey[keyOf("mail", "corp:7")].ID {
		t.Errorf("of an account: %v", got)
	}
	if got := list(grant.Filter{ID: all[3]}); len(got) != 1 || got[0] != all[3] {
		t.Errorf("by its ID: %v", got)
	}
	if got := list(grant.Filter{ID: all[3][:len(all[3])-1]}); len(got) != 0 {
		t.Errorf("by a part of an ID: %v", got)
	}
	kept, err := s.List(t.Context(), grant.Filter{Owners: []grant.Owner{of("corp:4")}, Connector: "mail"})
	testenv.Check(t, err)
	same(t, "a line is what Get has", kept, []grant.Kept{get(t, s, keyOf("mail", "corp:4"))})
	if len(kept[0].Consents) != 2 || kept[0].Consents[0].App != "b-app" {
		t.Errorf("consents by app: %+v", kept[0].Consents)
	}
	_, err = s.Disconnect(t.Context(), kept[0].ID)
	testenv.Check(t, err)
	if got := list(grant.Filter{}); len(got) != 21 {
		t.Errorf("one that is disconnected is listed: %d", len(got))
	}
	if testing.Short() {
		return
	}
	for i := range 990 {
		connect(t, s, keyOf("many", fmt.Sprint("corp:", i)))
	}
	if got := list(grant.Filter{}); len(got) != 1000 {
		t.Errorf("without Most: %d", len(got))
	}
}

func agreed(t *testing.T, rows Rows) {
	s := rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	r := connect(t, s, k)
	wantErr(t, "no such grant", s.Agree(t.Context(), "none", consentOf("app"), 1), grant.ErrNotFound)
	wantErr(t, "a version of before", s.Agree(t.Context(), r.ID, consentOf("app"), r.Version-1), grant.ErrChanged)
	testenv.Check(t, s.Used(t.Context(), r.ID, "calendar-app", tick(0)))
	usedAt := get(t, s, k).Consents[0].UsedAt
	c := grant.Consent{App: "calendar-app", Access: []string{"write", "read"}, By: "corp:bob", At: tick(0)}
	testenv.Check(t, s.Agree(t.Context(), r.ID, c, r.Version))
	c.UsedAt = usedAt // what was used stays known
	kept := get(t, s, k)
	same(t, "consents", kept.Consents, []grant.Consent{c})
	if kept.Generation != r.Generation || kept.Version <= r.Version {
		t.Errorf("generation %d → %d, version %d → %d", r.Generation, kept.Generation, r.Version, kept.Version)
	}
	var won atomic.Int64
	together(8, func(i int) {
		err := s.Agree(t.Context(), r.ID, consentOf(fmt.Sprint("app-", i)), kept.Version)
		if err == nil {
			won.Add(1)
		} else if !errors.Is(err, grant.ErrChanged) {
			t.Errorf("agreeing at once: %v", err)
		}
	})
	if n := len(get(t, s, k).Consents); won.Load() != 1 || n != 2 {
		t.Errorf("%d agreed to one version, %d consents", won.Load(), n)
	}
}

func withdrawn(t *testing.T, rows Rows) {
	s := rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	r := connect(t, s, k)
	testenv.Check(t, s.Agree(t.Context(), r.ID, consentOf("mail-app"), r.Version))
	l := lease(t, s, r)
	for _, is := range []struct {
		key  grant.Key
		app  string
		want bool
	}{{k, "none", false}, {keyOf("calendar", "corp:bob"), "mail-app", false}, {k, "calendar-app", true},
		{k, "calendar-app", false}, {k, "mail-app", true}} {
		if got, err := s.Withdraw(t.Context(), is.key, is.app); got != is.want || err != nil {
			t.Errorf("%v %s: %v, %v", is.key, is.app, got, err)
		}
	}
	if kept := get(t, s, k); len(kept.Consents) != 0 || kept.Status != grant.Active {
		t.Errorf("left: %+v", kept)
	}
	commit(t, s, l, r) // a refresh under way is not disturbed
}

func disconnected(t *testing.T, rows Rows) {
	a, b := rows.Open(t), rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	for _, id := range []string{"", "x"} {
		_, err := a.Disconnect(t.Context(), id)
		wantErr(t, "what is not there", err, grant.ErrNotFound)
	}
	r := connect(t, a, k)
	l := lease(t, a, r)
	before := get(t, a, k)
	was, err := b.Disconnect(t.Context(), r.ID)
	testenv.Check(t, err)
	same(t, "what it was", was, before)
	_, err = a.Get(t.Context(), k)
	wantErr(t, "get", err, grant.ErrNotFound)
	_, err = a.Disconnect(t.Context(), r.ID)
	wantErr(t, "twice", err, grant.ErrNotFound)
	_, _, err = a.Lease(t.Context(), r.ID, r.Generation)
	wantErr(t, "lease", err, grant.ErrNotFound)
	wantErr(t, "agree", a.Agree(t.Context(), r.ID, consentOf("app"), r.Version), grant.ErrNotFound)
	wantErr(t, "status", a.SetStatus(t.Context(), r.ID, r.Generation, grant.Active, "", time.Time{}), grant.ErrNotFound)
	wantErr(t, "rewrap", a.Rewrap(t.Context(), r, []byte("w"), "k"), grant.ErrNotFound)
	testenv.Check(t, a.Used(t.Context(), r.ID, "calendar-app", tick(0)))
	_, err = a.Renew(t.Context(), l)
	wantErr(t, "renew", err, grant.ErrFenced)
	_, err = a.Commit(t.Context(), l, refreshed(r), seal)
	wantErr(t, "commit", err, grant.ErrFenced)
	_, err = a.Late(t.Context(), l, refreshed(r), seal)
	wantErr(t, "late", err, grant.ErrFenced)
	wantErr(t, "abandon", a.Abandon(t.Context(), l, false, "", "", time.Time{}), grant.ErrFenced)

	again := connect(t, b, k)
	if again.ID == r.ID || again.Version <= was.Version || again.Generation <= was.Generation {
		t.Errorf("connected anew as %q %d %d, was %q %d %d", again.ID, again.Generation, again.Version, r.ID,
			was.Generation, was.Version)
	}
	_, err = b.Disconnect(t.Context(), r.ID)
	wantErr(t, "the one of before, where another is now", err, grant.ErrNotFound)
	if kept := get(t, a, k); len(kept.Consents) != 1 {
		t.Errorf("consents of before are back: %+v", kept.Consents)
	}
	_, err = a.Late(t.Context(), l, refreshed(r), seal)
	wantErr(t, "late, for what was connected anew", err, grant.ErrFenced)
}

func moved(t *testing.T, rows Rows) {
	a, b := rows.Open(t), rows.Open(t)
	from, to := keyOf("calendar", "corp:old"), keyOf("calendar", "corp:new")
	first, second := connect(t, a, from), connect(t, a, keyOf("mail", "corp:old"))
	connect(t, a, keyOf("notes", "corp:new"))                 // theirs, of another connector
	_, err := a.Disconnect(t.Context(), connect(t, a, to).ID) // a tombstone is not in the way
	testenv.Check(t, err)
	shown := map[string]grant.Owner{}
	putBack := rows.Keep(t, first.ID)
	n, err := b.Move(t.Context(), from.Owner, to.Owner, func(was, becomes grant.Record) (grant.Record, error) {
		shown[was.ID] = was.Owner
		return seal(becomes)
	})
	if n != 2 || err != nil {
		t.Fatalf("moved %d: %v", n, err)
	}
	same(t, "reseal gets them as they were", shown, map[string]grant.Owner{first.ID: from.Owner, second.ID: from.Owner})
	_, err = a.Get(t.Context(), from)
	wantErr(t, "where it was", err, grant.ErrNotFound)
	kept := get(t, a, to)
	want := first
	want.Owner, want.Version, want.Generation = to.Owner, kept.Version, first.Generation+1
	want, _ = seal(want)
	same(t, "where it is", kept.Record, want)
	if kept.Version <= first.Version || len(kept.Consents) != 1 {
		t.Errorf("version %d → %d, consents %+v", first.Version, kept.Version, kept.Consents)
	}
	if n, err := a.Move(t.Context(), from.Owner, to.Owner, reseal); n != 0 || err != nil {
		t.Errorf("moved again: %d, %v", n, err)
	}
	commit(t, a, lease(t, a, kept.Record), kept.Record)
	putBack(t)
	_, _, err = a.Lease(t.Context(), first.ID, first.Generation)
	wantErr(t, "its row of before, put back", err, grant.ErrRolledBack)
	_, err = a.Disconnect(t.Context(), first.ID)
	testenv.Check(t, err)
	connect(t, a, from) // its place is free

	k := keyOf("files", "corp:old")
	r := connect(t, a, k)
	testenv.Check(t, a.Abandon(t.Context(), lease(t, a, r), false, "", "", time.Time{}))
	n, err = b.Move(t.Context(), k.Owner, grant.Owner{Kind: grant.OwnedByOrg, ID: "acme"}, reseal)
	if n == 0 || err != nil {
		t.Fatalf("moved %d: %v", n, err)
	}
	k.Owner = grant.Owner{Kind: grant.OwnedByOrg, ID: "acme"}
	if l := lease(t, a, get(t, a, k).Record); l.Shown != 1 || l.Since.IsZero() {
		t.Errorf("after a move the refresh token was shown %d times, since %v", l.Shown, l.Since)
	}
}

func reseal(_, becomes grant.Record) (grant.Record, error) { return seal(becomes) }

func movedOnto(t *testing.T, rows Rows) {
	s := rows.Open(t)
	from, to := keyOf("calendar", "corp:old"), keyOf("calendar", "corp:new")
	alone := keyOf("mail", "corp:old")
	connect(t, s, from)
	connect(t, s, alone)
	connect(t, s, to)
	_, err := s.Move(t.Context(), from.Owner, to.Owner, reseal)
	wantErr(t, "onto one that is there", err, grant.ErrChanged)
	get(t, s, from)
	get(t, s, alone) // all or none
	_, err = s.Disconnect(t.Context(), get(t, s, to).ID)
	testenv.Check(t, err)
	r := get(t, s, from).Record
	l := lease(t, s, r)
	_, err = s.Move(t.Context(), from.Owner, to.Owner, reseal)
	wantErr(t, "while one is being refreshed", err, grant.ErrHeld)
	get(t, s, alone)
	commit(t, s, l, r)
	if n, err := s.Move(t.Context(), from.Owner, to.Owner, reseal); n != 2 || err != nil {
		t.Errorf("afterwards: %d, %v", n, err)
	}
}

func statusSet(t *testing.T, rows Rows) {
	s := rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	r := connect(t, s, k)
	set := func(generation int64) error {
		return s.SetStatus(t.Context(), r.ID, generation, grant.Degraded, "busy", tick(time.Minute))
	}
	wantErr(t, "another generation", set(r.Generation+1), grant.ErrChanged)
	wantErr(t, "none", s.SetStatus(t.Context(), "none", 1, grant.Degraded, "busy", time.Time{}), grant.ErrNotFound)
	l := lease(t, s, r)
	wantErr(t, "leased", set(r.Generation), grant.ErrHeld)
	same(t, "nothing changed", get(t, s, k).Record, r)
	testenv.Check(t, s.Abandon(t.Context(), l, true, "", "", time.Time{}))
	testenv.Check(t, set(r.Generation))
	kept := get(t, s, k)
	if kept.Status != grant.Degraded || kept.Reason != "busy" || kept.RetryAt.IsZero() || kept.Version <= r.Version ||
		kept.Generation != r.Generation {
		t.Errorf("set: %+v", kept.Record)
	}
	lease(t, s, kept.Record)
	rows.Advance(t, grant.LeaseTime+time.Second)
	testenv.Check(t, s.SetStatus(t.Context(), r.ID, r.Generation, grant.NeedsReconnect, "lost_response", time.Time{}))
	if kept = get(t, s, k); kept.Status != grant.NeedsReconnect || !kept.RetryAt.IsZero() {
		t.Errorf("given up after a lease that ran out: %+v", kept.Record)
	}
}

func used(t *testing.T, rows Rows) {
	s := rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	r := connect(t, s, k)
	at := tick(0)
	for _, is := range []struct{ at, want time.Time }{{at, at}, {at.Add(-time.Hour), at},
		{at.Add(time.Hour), at.Add(time.Hour)}} {
		testenv.Check(t, s.Used(t.Context(), r.ID, "calendar-app", is.at))
		if got := get(t, s, k).Consents[0].UsedAt; !got.Equal(is.want) {
			t.Errorf("used %s, noted %s", is.at, got)
		}
	}
	testenv.Check(t, s.Used(t.Context(), r.ID, "none", at))
	testenv.Check(t, s.Used(t.Context(), "none", "calendar-app", at))
	if n := len(get(t, s, k).Consents); n != 1 {
		t.Errorf("use made %d consents", n)
	}
}

func rewrapped(t *testing.T, rows Rows) {
	s := rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	r := connect(t, s, k)
	l := lease(t, s, r)
	testenv.Check(t, s.Rewrap(t.Context(), r, []byte("anew"), "fedcba9876543210"))
	want := r
	want.Wrapped, want.KeyID = []byte("anew"), "fedcba9876543210"
	same(t, "nothing else", get(t, s, k).Record, want)
	wantErr(t, "what is another key by now", s.Rewrap(t.Context(), r, []byte("lost"), "k"), grant.ErrChanged)
	stale := want
	stale.Wrapped = []byte("of before a refresh, with the same key")
	wantErr(t, "what is wrapped otherwise", s.Rewrap(t.Context(), stale, []byte("lost"), "k"), grant.ErrChanged)
	same(t, "which changed nothing", get(t, s, k).Record, want)
	commit(t, s, l, want) // rewrapping disturbs no refresh
	none := r
	none.ID = "none"
	wantErr(t, "none", s.Rewrap(t.Context(), none, []byte("w"), "k"), grant.ErrNotFound)
}

// bound: a grant from before it was noted where it may be sent has that noted once, by one of
// all replicas, and keeps it.
func bound(t *testing.T, rows Rows) {
	a, b := rows.Open(t), rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	old := recordOf(k)
	old.Destinations = nil
	r, err := a.Connect(t.Context(), old, consentOf("calendar-app"), 0, seal)
	testenv.Check(t, err)
	same(t, "a grant from before", get(t, b, k).Destinations, []grant.Destination(nil))
	want, other := r, r
	want.Sealed, want.Destinations = []byte("\x00sealed with it"), recordOf(k).Destinations
	other.Sealed, other.Destinations = []byte("\x00sealed with another"), want.Destinations[:1]
	l := lease(t, a, r) // who refreshes it meanwhile is not disturbed
	testenv.Check(t, a.Bind(t.Context(), r, want))
	same(t, "nothing else", get(t, b, k).Record, want)
	wantErr(t, "a second time", b.Bind(t.Context(), r, other), grant.ErrChanged)
	wantErr(t, "what has it", b.Bind(t.Context(), want, other), grant.ErrChanged)
	same(t, "which changed nothing", get(t, a, k).Record, want)
	next := commit(t, a, l, r)
	same(t, "after a refresh", get(t, b, k).Destinations, want.Destinations)
	wantErr(t, "after a refresh", b.Bind(t.Context(), next, other), grant.ErrChanged)
	wantErr(t, "none", a.Bind(t.Context(), grant.Record{ID: "none"}, want), grant.ErrNotFound)

	// Of two who connect and note at once, the one who connects wins.
	newer, err := a.Connect(t.Context(), old, consentOf("calendar-app"), get(t, a, k).Version, seal)
	testenv.Check(t, err)
	wantErr(t, "of the connection before", b.Bind(t.Context(), r, want), grant.ErrChanged)
	testenv.Check(t, b.Bind(t.Context(), newer, want))
}

func signedIn(t *testing.T, rows Rows) {
	s := rows.Open(t)
	ann, bob := keyOf("calendar", "corp:ann"), keyOf("calendar", "corp:bob")
	org := grant.Key{Connector: "mail", Owner: grant.Owner{Kind: grant.OwnedByOrg, ID: "acme"}}
	for _, k := range []grant.Key{ann, bob, org} {
		r := connect(t, s, k) // calendar-app, offline, by ann
		for _, c := range []grant.Consent{
			{App: "ends", Offline: true, By: "corp:ann", At: tick(0), Lapses: tick(time.Hour), Until: tick(time.Hour)},
			{App: "online", By: "corp:ann", At: tick(0)},
			{App: "of-bob", Offline: true, By: "corp:bob", At: tick(0), Lapses: tick(time.Hour)},
		} {
			testenv.Check(t, s.Agree(t.Context(), r.ID, c, get(t, s, r.Key).Version))
		}
	}
	untouched := get(t, s, bob)
	lapses := tick(720 * time.Hour)
	asked := map[string]int{}
	ended, err := s.SignedIn(t.Context(), "corp:ann", lapses, func(k grant.Key, c grant.Consent) bool {
		asked[c.App]++
		if c.By != "corp:ann" || !c.Offline || c.At.IsZero() || k.Connector == "" {
			t.Errorf("asked about %v %+v", k, c)
		}
		return c.App != "ends" || k == bob
	})
	testenv.Check(t, err)
	same(t, "asked", asked, map[string]int{"calendar-app": 3, "ends": 3})
	slices.SortFunc(ended, func(a, b grant.Ending) int { return len(a.Connector) - len(b.Connector) })
	same(t, "ended", ended, []grant.Ending{{Key: org, App: "ends"}, {Key: ann, App: "ends"}})
	for _, k := range []grant.Key{ann, org} {
		kept := get(t, s, k)
		c, there := kept.Consent("ends") // what the app may do for people who are there stays
		if !there || c.Offline || !c.Until.IsZero() || !c.Lapses.IsZero() || c.At.IsZero() ||
			len(kept.Consents) != 4 {
			t.Errorf("%v has %+v", k, kept.Consents)
		}
		if kept.Version != untouched.Version+1 {
			t.Errorf("%v: version %d", k, kept.Version)
		}
	}
	kept := get(t, s, bob)
	for _, was := range untouched.Consents {
		if was.Offline && was.By == "corp:ann" {
			was.Lapses = lapses
		}
		c, _ := kept.Consent(was.App)
		same(t, "consent of "+was.App, c, was)
	}
	if kept.Version != untouched.Version {
		t.Error("to prolong is no change for people")
	}
	ended, err = s.SignedIn(t.Context(), "corp:nobody", lapses, func(grant.Key, grant.Consent) bool { return false })
	if len(ended) != 0 || err != nil {
		t.Errorf("somebody else: %v, %v", ended, err)
	}
}

func leasedOnce(t *testing.T, rows Rows) {
	stores := []grant.Store{rows.Open(t), rows.Open(t), rows.Open(t)}
	r := connect(t, stores[0], keyOf("calendar", "corp:ann"))
	other := connect(t, stores[0], keyOf("calendar", "corp:bob"))
	_, _, err := stores[0].Lease(t.Context(), "none", 1)
	wantErr(t, "none", err, grant.ErrNotFound)
	_, _, err = stores[0].Lease(t.Context(), r.ID, r.Generation+1)
	wantErr(t, "another generation", err, grant.ErrChanged)
	var mu sync.Mutex
	var held []grant.Lease
	together(18, func(i int) {
		s := stores[i%3]
		l, _, err := s.Lease(t.Context(), r.ID, r.Generation)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			held = append(held, l)
			return
		}
		wantErr(t, "of many", err, grant.ErrHeld)
		if left := l.Until.Sub(s.Now()); left <= 0 || left > grant.LeaseTime+time.Second {
			t.Errorf("held for another %s", left)
		}
	})
	if len(held) != 1 {
		t.Fatalf("%d hold it", len(held))
	}
	l := held[0]
	if left := l.Until.Sub(stores[0].Now()); l.ID != r.ID || l.Attempt == "" || l.Generation != r.Generation ||
		l.Shown != 0 || !l.Since.IsZero() || left <= 0 || left > grant.LeaseTime+time.Second {
		t.Errorf("leased %+v, which lasts %s", l, left)
	}
	lease(t, stores[1], other) // another grant is another lease
}

func leaseRenewed(t *testing.T, rows Rows) {
	a, b := rows.Open(t), rows.Open(t)
	r := connect(t, a, keyOf("calendar", "corp:ann"))
	l := lease(t, a, r)
	for range 3 {
		rows.Advance(t, grant.LeaseTime-5*time.Second)
		renewed, err := a.Renew(t.Context(), l)
		testenv.Check(t, err)
		if left := renewed.Until.Sub(a.Now()); left < grant.LeaseTime-2*time.Second || renewed.Attempt != l.Attempt {
			t.Errorf("renewed for %s", left)
		}
		_, _, err = b.Lease(t.Context(), r.ID, r.Generation)
		wantErr(t, "while it is renewed", err, grant.ErrHeld)
		l = renewed
	}
	strange := l
	strange.Attempt = "not-its-holder"
	_, err := b.Renew(t.Context(), strange)
	wantErr(t, "somebody else's", err, grant.ErrFenced)
	strange.Attempt = ""
	_, err = b.Renew(t.Context(), strange)
	wantErr(t, "nobody's", err, grant.ErrFenced)
	rows.Advance(t, grant.LeaseTime+time.Second)
	_, err = a.Renew(t.Context(), l)
	wantErr(t, "one that is over", err, grant.ErrFenced)
	lease(t, b, r)
	_, err = a.Renew(t.Context(), l)
	wantErr(t, "one that was taken over", err, grant.ErrFenced)
}

// leaseAhead has the clock of the store set back by a day while two grants are leased. The holder
// that lives goes on, and the other one is taken over.
func leaseAhead(t *testing.T, rows Rows) {
	a, b := rows.Open(t), rows.Open(t)
	killed, lives := connect(t, a, keyOf("calendar", "corp:ann")), connect(t, a, keyOf("calendar", "corp:bob"))
	lease(t, a, killed)
	l := lease(t, a, lives)
	rows.Advance(t, -24*time.Hour)
	renewed, err := a.Renew(t.Context(), l)
	testenv.Check(t, err)
	if left := renewed.Until.Sub(a.Now()); left <= 0 || left > grant.LeaseTime+time.Second {
		t.Errorf("renewed for %s", left)
	}
	_, _, err = b.Lease(t.Context(), lives.ID, lives.Generation)
	wantErr(t, "of a holder that lives", err, grant.ErrHeld)
	if next := lease(t, b, killed); next.Shown != 1 {
		t.Errorf("taken over, and shown %d times before", next.Shown)
	}
	_, err = a.Commit(t.Context(), renewed, refreshed(lives), seal)
	testenv.Check(t, err)
}

func committed(t *testing.T, rows Rows) {
	a, b := rows.Open(t), rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	r := connect(t, a, k)
	l := lease(t, a, r)
	result := refreshed(r)
	result.Scopes = []string{"a"}
	var shown grant.Record
	next, err := a.Commit(t.Context(), l, result, func(r grant.Record) (grant.Record, error) {
		shown = r
		return seal(r)
	})
	testenv.Check(t, err)
	want := result
	want.Generation, want.Version = r.Generation+1, next.Version
	want, _ = seal(want)
	same(t, "what commit returns", next, want)
	if next.Version <= r.Version || shown.Generation != next.Generation || shown.Key != k {
		t.Errorf("version %d → %d; seal was shown %d, %v", r.Version, next.Version, shown.Generation, shown.Key)
	}
	kept := get(t, b, k)
	same(t, "what another replica reads", kept.Record, next)
	if len(kept.Consents) != 1 {
		t.Errorf("consents %+v", kept.Consents)
	}
	_, err = a.Commit(t.Context(), l, result, seal)
	wantErr(t, "commit once more", err, grant.ErrFenced)
	_, err = a.Late(t.Context(), l, result, seal)
	wantErr(t, "late after commit", err, grant.ErrFenced)
	wantErr(t, "abandon after commit", a.Abandon(t.Context(), l, false, grant.NeedsReconnect, "x", time.Time{}),
		grant.ErrFenced)
	_, err = a.Renew(t.Context(), l)
	wantErr(t, "renew after commit", err, grant.ErrFenced)
	_, _, err = b.Lease(t.Context(), r.ID, r.Generation)
	wantErr(t, "lease for the token that was used up", err, grant.ErrChanged)
	same(t, "none of this changed anything", get(t, b, k).Record, next)
	if l := lease(t, b, next); l.Shown != 0 {
		t.Errorf("the next token was shown %d times", l.Shown)
	}
}

func fenced(t *testing.T, rows Rows) {
	a, b := rows.Open(t), rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	r := connect(t, a, k)
	stopped := lease(t, a, r)
	rows.Advance(t, grant.LeaseTime+time.Second)
	_, err := a.Commit(t.Context(), stopped, refreshed(r), seal)
	wantErr(t, "commit where the lease is over", err, grant.ErrFenced)
	wantErr(t, "abandon where the lease is over",
		a.Abandon(t.Context(), stopped, true, grant.NeedsReconnect, "x", time.Time{}), grant.ErrFenced)
	l := lease(t, b, r)
	_, err = a.Commit(t.Context(), stopped, refreshed(r), seal)
	wantErr(t, "commit where it was taken over", err, grant.ErrFenced)
	wantErr(t, "abandon where it was taken over",
		a.Abandon(t.Context(), stopped, false, grant.NeedsReconnect, "x", time.Time{}), grant.ErrFenced)
	same(t, "nothing was stored", get(t, b, k).Record, r)
	commit(t, b, l, r)
}

func attemptsCounted(t *testing.T, rows Rows) {
	s := rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	r := connect(t, s, k)
	expect := func(l grant.Lease, shown int, age time.Duration) {
		t.Helper()
		if l.Shown != shown || l.Since.IsZero() != (shown == 0) {
			t.Errorf("shown %d times since %s, want %d", l.Shown, l.Since, shown)
		}
		if got := s.Now().Sub(l.Since); shown > 0 && (got < age || got > age+30*time.Second) {
			t.Errorf("the oldest attempt began %s ago, want %s", got, age)
		}
	}
	l := lease(t, s, r)
	expect(l, 0, 0)
	testenv.Check(t, s.Abandon(t.Context(), l, true, "", "", time.Time{})) // the token was not used up
	same(t, "a status is left", get(t, s, k).Record, r)
	l = lease(t, s, r)
	expect(l, 0, 0)
	rows.Advance(t, 10*time.Second)
	testenv.Check(t, s.Abandon(t.Context(), l, false, grant.Degraded, "lost_response", tick(time.Second)))
	if kept := get(t, s, k); kept.Status != grant.Degraded || kept.Reason != "lost_response" || kept.RetryAt.IsZero() ||
		kept.Generation != r.Generation || kept.Version <= r.Version {
		t.Errorf("abandoned: %+v", kept.Record)
	}
	l = lease(t, s, r)
	expect(l, 1, 10*time.Second)
	testenv.Check(t, s.Abandon(t.Context(), l, true, "", "", time.Time{})) // what was lost stays lost
	l = lease(t, s, r)
	expect(l, 1, 10*time.Second)
	rows.Advance(t, grant.LeaseTime+10*time.Second) // a holder that was killed
	l = lease(t, s, r)
	expect(l, 2, grant.LeaseTime+20*time.Second)
	next := commit(t, s, l, r)
	expect(lease(t, s, next), 0, 0)
}

func late(t *testing.T, rows Rows) {
	a, b := rows.Open(t), rows.Open(t)
	// stopped is a grant whose holder did not come back in time.
	stopped := func(name string) (grant.Key, grant.Record, grant.Lease) {
		k := keyOf("calendar", name)
		r := connect(t, a, k)
		l := lease(t, a, r)
		rows.Advance(t, 45*time.Second)
		return k, r, l
	}
	accepted := func(what string, k grant.Key, r grant.Record, l grant.Lease) grant.Record {
		t.Helper()
		next, err := a.Late(t.Context(), l, refreshed(r), seal)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return r
		}
		kept := get(t, b, k)
		same(t, what, kept.Record, next)
		if kept.Status != grant.Active || kept.Generation != r.Generation+1 || len(kept.Consents) != 1 {
			t.Errorf("%s: %+v", what, kept)
		}
		return next
	}
	k, r, l := stopped("nobody-else")
	next := accepted("nobody has taken over", k, r, l)
	_, err := a.Late(t.Context(), l, refreshed(r), seal)
	wantErr(t, "twice", err, grant.ErrFenced)
	if l := lease(t, b, next); l.Shown != 0 {
		t.Errorf("the token of a late result was shown %d times", l.Shown)
	}

	k, r, l = stopped("taken-over")
	second := lease(t, b, r)
	accepted("while somebody has taken over", k, r, l)
	_, err = b.Renew(t.Context(), second)
	wantErr(t, "who had taken over renews", err, grant.ErrFenced)
	_, err = b.Commit(t.Context(), second, refreshed(r), seal)
	wantErr(t, "who had taken over commits", err, grant.ErrFenced)
	_, err = b.Late(t.Context(), second, refreshed(r), seal)
	wantErr(t, "who had taken over is late", err, grant.ErrFenced)

	k, r, l = stopped("given-up")
	second = lease(t, b, r)
	testenv.Check(t, b.Abandon(t.Context(), second, false, grant.NeedsReconnect, "lost_response", time.Time{}))
	accepted("it was given up", k, r, l)

	k, r, l = stopped("status-set")
	testenv.Check(t, b.SetStatus(t.Context(), r.ID, r.Generation, grant.NeedsReconnect, "lost_response", time.Time{}))
	testenv.Check(t, b.Rewrap(t.Context(), r, []byte("anew"), "another-key"))
	accepted("its row was changed, but not its token", k, r, l)

	k, r, l = stopped("still-held")
	rows.Advance(t, -45*time.Second)
	accepted("its lease goes on, which it did not know", k, r, l)
}

func lateRefused(t *testing.T, rows Rows) {
	a, b := rows.Open(t), rows.Open(t)
	for name, meanwhile := range map[string]func(t *testing.T, r grant.Record){
		"somebody else has refreshed it": func(t *testing.T, r grant.Record) { commit(t, b, lease(t, b, r), r) },
		"it was disconnected": func(t *testing.T, r grant.Record) {
			_, err := b.Disconnect(t.Context(), r.ID)
			testenv.Check(t, err)
		},
		"it was connected anew": func(t *testing.T, r grant.Record) {
			_, err := b.Connect(t.Context(), recordOf(r.Key), consentOf("app"), r.Version, seal)
			testenv.Check(t, err)
		},
		"it was disconnected and connected": func(t *testing.T, r grant.Record) {
			_, err := b.Disconnect(t.Context(), r.ID)
			testenv.Check(t, err)
			connect(t, b, r.Key)
		},
		"it was moved": func(t *testing.T, r grant.Record) {
			to := grant.Owner{Kind: grant.OwnedByUser, ID: "moved-" + r.ID}
			n, err := b.Move(t.Context(), r.Owner, to, reseal)
			if n != 1 || err != nil {
				t.Fatal(n, err)
			}
		},
	} {
		r := connect(t, a, keyOf("calendar", name))
		l := lease(t, a, r)
		rows.Advance(t, 45*time.Second)
		meanwhile(t, r)
		before, err := a.List(t.Context(), grant.Filter{})
		testenv.Check(t, err)
		for range 2 {
			_, err = a.Late(t.Context(), l, refreshed(r), seal)
			wantErr(t, name, err, grant.ErrFenced)
		}
		after, err := a.List(t.Context(), grant.Filter{})
		testenv.Check(t, err)
		same(t, name, after, before)
	}
}

func rolledBack(t *testing.T, rows Rows) {
	s := rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	r := connect(t, s, k)
	putBack := rows.Keep(t, r.ID)
	next := commit(t, s, lease(t, s, r), r)
	l := lease(t, s, next)
	rows.Advance(t, 45*time.Second)
	putBack(t)
	_, _, err := s.Lease(t.Context(), r.ID, r.Generation)
	wantErr(t, "an older row", err, grant.ErrRolledBack)
	_, err = s.Late(t.Context(), l, refreshed(next), seal)
	wantErr(t, "a result for the newer row", err, grant.ErrFenced)
	// To connect it again heals it, and no generation is given twice.
	again, err := s.Connect(t.Context(), recordOf(k), consentOf("app"), get(t, s, k).Version, seal)
	testenv.Check(t, err)
	if again.Generation <= next.Generation {
		t.Errorf("generation %d was given before: %d", again.Generation, next.Generation)
	}
	putBack = rows.Keep(t, r.ID)
	commit(t, s, lease(t, s, again), again)
	if _, err = s.Disconnect(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	putBack(t) // of what was disconnected
	_, _, err = s.Lease(t.Context(), again.ID, again.Generation)
	wantErr(t, "what was disconnected came back", err, grant.ErrRolledBack)
}

// load has many refresh one grant at once, with holders that go without a word.
func load(t *testing.T, rows Rows) {
	stores := []grant.Store{rows.Open(t), rows.Open(t), rows.Open(t)}
	k := keyOf("calendar", "corp:ann")
	first := connect(t, stores[0], k)
	const want = 20
	var commits atomic.Int64
	used := sync.Map{} // a generation may be used up once
	together(9, func(i int) {
		s := stores[i%3]
		for commits.Load() < want {
			kept, err := s.Get(t.Context(), k)
			if err != nil {
				t.Errorf("get: %v", err)
				return
			}
			l, r, err := s.Lease(t.Context(), kept.ID, kept.Generation)
			if errors.Is(err, grant.ErrHeld) || errors.Is(err, grant.ErrChanged) {
				time.Sleep(time.Millisecond)
				continue
			}
			if err != nil {
				t.Errorf("lease: %v", err)
				return
			}
			if _, twice := used.LoadOrStore(l.Generation, true); twice {
				t.Errorf("generation %d was shown twice", l.Generation)
			}
			if _, err := s.Renew(t.Context(), l); err != nil {
				t.Errorf("renew: %v", err)
			}
			if _, err = s.Commit(t.Context(), l, refreshed(r), seal); err != nil {
				t.Errorf("commit: %v", err)
			}
			commits.Add(1)
		}
	})
	if kept := get(t, stores[0], k); kept.Generation != first.Generation+commits.Load() {
		t.Errorf("%d commits, generation %d → %d", commits.Load(), first.Generation, kept.Generation)
	}
}

func refreshKeeps(t *testing.T, rows Rows) {
	s := rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	r := connect(t, s, k)
	l := lease(t, s, r)
	result := refreshed(r)
	result.Account, result.ClientID, result.ConnectedBy = grant.Account{ID: "other", Chain: "c"}, "other", "corp:bob"
	result.Access, result.Requested, result.Offline, result.ConnectedAt = nil, nil, false, time.Time{}
	result.Version, result.Generation = 900, 900
	next, err := s.Commit(t.Context(), l, result, seal)
	testenv.Check(t, err)
	want := refreshed(r)
	want.RefreshedAt, want.AccessExpires = result.RefreshedAt, result.AccessExpires
	want.Generation, want.Version = r.Generation+1, next.Version
	want, _ = seal(want)
	same(t, "after a refresh", next, want)
	same(t, "as it is kept", get(t, s, k).Record, want)
	l = lease(t, s, next)
	strange := refreshed(next)
	strange.Owner.ID = "corp:mallory"
	_, err = s.Commit(t.Context(), l, strange, seal)
	wantErr(t, "a result for another owner", err, grant.ErrFenced)
}

func versions(t *testing.T, rows Rows) {
	s := rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	r := connect(t, s, k)
	was := r.Version
	grows := func(what string, want bool) {
		t.Helper()
		now := get(t, s, k).Version
		if (now > was) != want || now < was {
			t.Errorf("%s: version %d → %d", what, was, now)
		}
		was = now
	}
	testenv.Check(t, s.Used(t.Context(), r.ID, "calendar-app", tick(0)))
	grows("used", false)
	testenv.Check(t, s.Rewrap(t.Context(), r, r.Wrapped, "another"))
	grows("rewrap", false)
	if err := s.Bind(t.Context(), r, r); !errors.Is(err, grant.ErrChanged) {
		t.Errorf("where it may be sent is known: %v", err)
	}
	grows("bind", false)
	l := lease(t, s, r)
	grows("lease", false)
	l, err := s.Renew(t.Context(), l)
	testenv.Check(t, err)
	grows("renew", false)
	testenv.Check(t, s.Abandon(t.Context(), l, true, "", "", time.Time{}))
	grows("abandon as it was", false)
	l = lease(t, s, r)
	testenv.Check(t, s.Abandon(t.Context(), l, true, grant.Degraded, "busy", time.Time{}))
	grows("abandon with a status", true)
	testenv.Check(t, s.SetStatus(t.Context(), r.ID, r.Generation, grant.Active, "", time.Time{}))
	grows("status", true)
	testenv.Check(t, s.Agree(t.Context(), r.ID, consentOf("b"), was))
	grows("agree", true)
	_, err = s.Withdraw(t.Context(), k, "none")
	testenv.Check(t, err)
	grows("withdraw what is not there", false)
	_, err = s.Withdraw(t.Context(), k, "b")
	testenv.Check(t, err)
	grows("withdraw", true)
	commit(t, s, lease(t, s, r), r)
	grows("commit", true)
}

func contextOver(t *testing.T, rows Rows) {
	s := rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	r := connect(t, s, k)
	l := lease(t, s, r)
	other := connect(t, s, keyOf("calendar", "corp:bob"))
	before, err := s.List(t.Context(), grant.Filter{})
	testenv.Check(t, err)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"Get":  func() error { _, err := s.Get(over, k); return err },
		"List": func() error { _, err := s.List(over, grant.Filter{}); return err },
		"Connect": func() error {
			_, err := s.Connect(over, recordOf(keyOf("c", "p")), consentOf("app"), 0, seal)
			return err
		},
		"Agree":      func() error { return s.Agree(over, r.ID, consentOf("b"), r.Version) },
		"Withdraw":   func() error { _, err := s.Withdraw(over, k, "calendar-app"); return err },
		"Disconnect": func() error { _, err := s.Disconnect(over, r.ID); return err },
		"Move":       func() error { _, err := s.Move(over, other.Owner, grant.Owner{ID: "x"}, reseal); return err },
		"SetStatus": func() error {
			return s.SetStatus(over, other.ID, other.Generation, grant.Degraded, "x", time.Time{})
		},
		"Used":   func() error { return s.Used(over, r.ID, "calendar-app", tick(0)) },
		"Rewrap": func() error { return s.Rewrap(over, r, []byte("w"), "k") },
		"Bind":   func() error { return s.Bind(over, r, r) },
		"SignedIn": func() error {
			_, err := s.SignedIn(over, "corp:ann", tick(0), func(grant.Key, grant.Consent) bool { return false })
			return err
		},
		"Lease":   func() error { _, _, err := s.Lease(over, other.ID, other.Generation); return err },
		"Renew":   func() error { _, err := s.Renew(over, l); return err },
		"Commit":  func() error { _, err := s.Commit(over, l, refreshed(r), seal); return err },
		"Late":    func() error { _, err := s.Late(over, l, refreshed(r), seal); return err },
		"Abandon": func() error { return s.Abandon(over, l, false, grant.NeedsReconnect, "x", time.Time{}) },
		"Notices": func() error { _, err := s.Notices(over, "calendar-app", 1); return err },
		"Noticed": func() error { return s.Noticed(over, grant.Notice{ID: 1}) },
		"NoticesLater": func() error {
			return s.NoticesLater(over, grant.Notice{ID: 1, App: "calendar-app"}, true, tick(0))
		},
		"Claim":         func() error { _, err := s.Claim(over, "test/1", tick(time.Hour)); return err },
		"Taken":         func() error { return s.Taken(over, "test/1", tick(time.Hour), tick(time.Hour)) },
		"Unclaim":       func() error { return s.Unclaim(over, "test/1", tick(time.Hour)) },
		"ForgetNotices": func() error { _, err := s.ForgetNotices(over, time.Hour); return err },
	} {
		wantErr(t, name, call(), grant.ErrUnavailable)
	}
	after, err := s.List(t.Context(), grant.Filter{})
	testenv.Check(t, err)
	same(t, "what is kept", after, before)
	lease(t, s, other)
	commit(t, s, l, r)
	claimed(t, s, "test/1", tick(time.Hour), "mine")
}
