package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/store"
)

// RunGrants runs the contract of grants. fresh returns an empty database.
func RunGrants(t *testing.T, fresh func(t *testing.T) Database) {
	granttest.TestStore(t, func(t *testing.T) granttest.Rows { return grantRows(fresh(t)) })
	t.Run("P15 a result outlives a database that fails", func(t *testing.T) { grantFaults(t, fresh) })
	t.Run("what was disconnected is forgotten when it is replaced", func(t *testing.T) { forgetsGrants(t, fresh(t)) })
	t.Run("P12 grants of the version before go on where they go first", func(t *testing.T) { bindsOld(t, fresh(t)) })
	t.Run("a command reads and ends grants beside replicas", func(t *testing.T) { grantsBriefly(t, fresh(t)) })
}

func grantRows(d Database) granttest.Rows {
	copies := 0
	return granttest.Rows{
		Open: func(t *testing.T) grant.Store { return d.Open(t, store.Options{}).Grants() },
		Advance: func(t *testing.T, by time.Duration) {
			for _, statement := range older(by) {
				d.Exec(t, statement)
			}
		},
		Keep: func(t *testing.T, id string) func(*testing.T) {
			copies++
			table := fmt.Sprint("copy_", copies)
			d.Exec(t, fmt.Sprintf(`create table %s as select * from sallyport_grants where id = '%s'`, table, id))
			return func(t *testing.T) {
				d.Exec(t, fmt.Sprintf(`delete from sallyport_grants where id = '%s'`, id))
				d.Exec(t, `insert into sallyport_grants select * from `+table)
			}
		},
	}
}

// older are the statements that have leases, attempts, notices and claims be so much older.
func older(by time.Duration) []string {
	return []string{fmt.Sprintf(`update sallyport_grant_refreshes set began_ms = began_ms - %[1]d,
		until_ms = until_ms - %[1]d, shown_ms = case when shown > 0 then shown_ms - %[1]d else 0 end`,
		by.Milliseconds()), fmt.Sprintf(`update sallyport_grant_notices set at_ms = at_ms - %[1]d,
		due_ms = due_ms - %[1]d`, by.Milliseconds()), fmt.Sprintf(`update sallyport_once
		set until_ms = until_ms - %d`, by.Milliseconds())}
}

// movable is a connector of an API that may be elsewhere, which counts what is sent there.
type movable struct {
	origin, login string
	shown         *int // how often a refresh token was
}

func (m movable) About() grant.About {
	return grant.About{ID: "things", Name: "Things", ClientID: "client", Owner: grant.OwnedByUser, Offline: true,
		Refresh: m.login, Inject: grant.Injection{Header: "Authorization", Prefix: "Bearer "},
		Accesses: []grant.Access{{Name: "read", Scopes: []string{"read"}}}}
}

func (m movable) Origin(grant.Account) string { return m.origin }
func (m movable) Issuer() string              { return "" }

func (m movable) AuthURL(identity.Handshake, grant.Request) (string, error) {
	return m.login + "/authorize", nil
}

func (m movable) Redeem(context.Context, url.Values, identity.Handshake, grant.Request) (grant.Result, error) {
	return grant.Result{}, errors.New("nobody connects here")
}

func (m movable) Refresh(context.Context, grant.Tokens, []string) (grant.Result, error) {
	*m.shown++
	return grant.Result{Tokens: grant.Tokens{Access: "access-2", Refresh: "refresh-2",
		AccessExpires: time.Now().Add(time.Hour)}}, nil
}

// bindsOld has the table of grants be that of schema 5, with a grant of then in it.
func bindsOld(t *testing.T, d Database) {
	key := grant.SealingKey{ID: "key"}
	ring, err := grant.NewKeyring([]grant.SealingKey{key})
	testenv.Check(t, err)
	s := d.Open(t, store.Options{})
	now := time.Now()
	_, err = s.Grants().Connect(t.Context(), grant.Record{Key: grant.Key{Connector: "things",
		Owner: grant.Owner{Kind: grant.OwnedByUser, ID: "p:ann"}}, ClientID: "client", Access: []string{"read"},
		Scopes: []string{"read"}, Status: grant.Active, ConnectedAt: now, RefreshedAt: now},
		grant.Consent{App: "app", Access: []string{"read"}, By: "p:ann", At: now}, 0,
		func(r grant.Record) (grant.Record, error) {
			return ring.Seal(r, grant.Tokens{Access: "access-1", Refresh: "refresh-1", AccessIssued: now,
				AccessExpires: now.Add(time.Hour)})
		})
	testenv.Check(t, err)
	testenv.Check(t, s.Close())
	d.Exec(t, `alter table sallyport_grants drop column destinations`)
	d.Exec(t, `update sallyport_meta set value = '5' where key = 'schema'`)

	open := func(m movable) *grant.Broker {
		b, err := grant.New(grant.Options{Store: d.Open(t, store.Options{}).Grants(), Keys: ring,
			Offers:   []grant.Offer{{Connector: m, Owner: grant.OwnedByUser, Offered: []string{"read"}}},
			Apps:     []grant.App{{ID: "app", Connectors: map[string][]string{"things": {"read"}}}},
			Redirect: func(string) string { return "https://sallyport.test/callback" }})
		testenv.Check(t, err)
		t.Cleanup(func() {
			b.Close()
			testenv.Check(t, b.Wait(context.Background()))
		})
		return b
	}
	use := grant.Use{App: "app", Connector: "things", Who: grant.Party{Session: &identity.Identity{Provider: "p",
		Subject: "ann"}}}
	shown, elsewhere := 0, 0
	there := open(movable{"https://api.test/v1", "https://login.test", &shown})
	loan, err := there.Lend(t.Context(), use)
	testenv.Check(t, err)
	if loan.Credential() != "access-1" || loan.Origin != "https://api.test/v1" {
		t.Fatalf("lent for %s", loan.Origin)
	}
	const noted = `select count(*) from sallyport_grants where destinations like '%"api https://api.test"%'`
	if n := d.Number(t, noted); n != 1 {
		t.Errorf("it is noted in %d rows where it may be sent", n)
	}
	for _, m := range []movable{{"https://evil.test/v1", "https://login.test", &elsewhere},
		{"https://api.test/v1", "https://evil.test", &elsewhere}} {
		b := open(m)
		if _, err = b.Lend(t.Context(), use); !moved(err) {
			t.Errorf("at %s and %s: %v", m.origin, m.login, err)
		}
	}
	loan, err = there.Rejected(t.Context(), loan) // so that it is refreshed
	if err != nil || loan.Credential() != "access-2" || shown != 1 || elsewhere != 0 {
		t.Errorf("%v, shown %d times, elsewhere %d times", err, shown, elsewhere)
	}

	// A replica of the version before seals nothing of it when it refreshes; the row still has it.
	rows := d.Open(t, store.Options{}).Grants()
	kept, err := rows.Get(t.Context(), grant.Key{Connector: "things", Owner: grant.Owner{Kind: grant.OwnedByUser,
		ID: "p:ann"}})
	testenv.Check(t, err)
	lease, record, err := rows.Lease(t.Context(), kept.ID, kept.Generation)
	testenv.Check(t, err)
	_, err = rows.Commit(t.Context(), lease, record, func(r grant.Record) (grant.Record, error) {
		return ring.Seal(r, grant.Tokens{Access: "access-3", Refresh: "refresh-3", AccessIssued: now,
			AccessExpires: now.Add(time.Hour)})
	})
	testenv.Check(t, err)
	if loan, err = there.Lend(t.Context(), use); err != nil || loan.Credential() != "access-3" {
		t.Errorf("refreshed by the version before: %v", err)
	}
	other := open(movable{"https://evil.test", "https://login.test", &elsewhere})
	if _, err := other.Lend(t.Context(), use); !moved(err) {
		t.Errorf("refreshed by the version before, and elsewhere: %v", err)
	}
}

// moved reports whether err says that a grant was connected elsewhere.
func moved(err error) bool {
	required, ok := errors.AsType[*grant.RequiredError](err)
	elsewhere, too := errors.AsType[*grant.MovedError](err)
	return ok && too && required.Status == grant.NeedsReconnect && elsewhere.To == "https://evil.test"
}

// grantFaults has refreshes end while the database fails: a result is kept or it is known
// that it is not, and it can be stored when the database works again.
func grantFaults(t *testing.T, fresh func(t *testing.T) Database) {
	for i, fault := range fresh(t).Faults {
		t.Run(fault.Name, func(t *testing.T) {
			d := fresh(t)
			s := d.Open(t, store.Options{Timeout: time.Second}).Grants()
			seal := func(r grant.Record) (grant.Record, error) {
				r.Sealed, r.Wrapped, r.KeyID = fmt.Appendf(nil, "sealed %d", r.Generation), []byte("wrapped"), "key"
				return r, nil
			}
			k := grant.Key{Connector: "calendar", Owner: grant.Owner{Kind: grant.OwnedByUser, ID: "corp:ann"}}
			r := grant.Record{Key: k, Status: grant.Active}
			r, err := s.Connect(t.Context(), r, grant.Consent{App: "a"}, 0, seal)
			testenv.Check(t, err)
			l, r, err := s.Lease(t.Context(), r.ID, r.Generation)
			testenv.Check(t, err)
			heal := d.Faults[i].Break(t)
			_, err = s.Commit(t.Context(), l, r, seal)
			t.Logf("commit: %v", err)
			if err != nil && !errors.Is(err, grant.ErrUnavailable) {
				t.Errorf("commit: %v", err)
			}
			failed := err != nil
			kept, err := s.Get(t.Context(), k)
			if err != nil && !errors.Is(err, grant.ErrUnavailable) {
				t.Errorf("get: %v", err)
			}
			if d.Faults[i].Readable && err != nil {
				t.Errorf("it can be read: %v", err)
			}
			if err == nil && (kept.Generation == l.Generation) != failed {
				t.Errorf("commit failed %v, and generation %d became %d", failed, l.Generation, kept.Generation)
			}
			heal(t)
			testenv.Eventually(t, "what could not be stored can be", func() bool {
				if !failed {
					return true
				}
				_, err := s.Late(t.Context(), l, r, seal)
				return err == nil || errors.Is(err, grant.ErrFenced) // its answer had been lost
			})
			testenv.Eventually(t, "it can be read again", func() bool {
				kept, err = s.Get(t.Context(), k)
				return err == nil
			})
			if kept.Generation != l.Generation+1 || string(kept.Sealed) != fmt.Sprintf("sealed %d", kept.Generation) {
				t.Errorf("generation %d, %q", kept.Generation, kept.Sealed)
			}
		})
	}
}

func grantsBriefly(t *testing.T, d Database) {
	running := d.Open(t, store.Options{}).Grants()
	seal := func(r grant.Record) (grant.Record, error) { return r, nil }
	k := grant.Key{Connector: "calendar", Owner: grant.Owner{Kind: grant.OwnedByUser, ID: "corp:ann"}}
	r, err := running.Connect(t.Context(), grant.Record{Key: k, Status: grant.Active}, grant.Consent{App: "a"}, 0, seal)
	testenv.Check(t, err)
	s, err := d.TryOpen(store.Options{Brief: true})
	testenv.Check(t, err)
	command := s.Grants()
	if list, err := command.List(t.Context(), grant.Filter{}); len(list) != 1 || err != nil {
		t.Errorf("a command lists %v: %v", list, err)
	}
	if was, err := command.Disconnect(t.Context(), r.ID); was.Status != grant.Active || err != nil {
		t.Errorf("a command ends %v: %v", was, err)
	}
	testenv.Check(t, s.Close())
	if _, err := running.Get(t.Context(), k); !errors.Is(err, grant.ErrNotFound) {
		t.Errorf("the running process: %v", err)
	}
	if _, err := command.Get(t.Context(), k); !errors.Is(err, grant.ErrUnavailable) {
		t.Errorf("a closed store: %v", err)
	}
}

// forgetsGrants connects and ends one grant again and again, and moves another onto its
// tombstone: there is never more than one row of each table for one owner's grant.
func forgetsGrants(t *testing.T, d Database) {
	s := d.Open(t, store.Options{}).Grants()
	seal := func(r grant.Record) (grant.Record, error) {
		r.Sealed, r.Wrapped, r.KeyID = []byte("sealed"), []byte("wrapped"), "key"
		return r, nil
	}
	org := func(id string) grant.Owner { return grant.Owner{Kind: grant.OwnedByOrg, ID: id} }
	connect := func(id string) grant.Record {
		t.Helper()
		r := grant.Record{Key: grant.Key{Connector: "calendar", Owner: org(id)}, Status: grant.Active}
		r, err := s.Connect(t.Context(), r, grant.Consent{App: "a"}, 0, seal)
		testenv.Check(t, err)
		return r
	}
	rows := func(when string, want int64) {
		t.Helper()
		for _, table := range [...]string{"sallyport_grants", "sallyport_grant_refreshes"} {
			if n := d.Number(t, `select count(*) from `+table); n != want {
				t.Errorf("%s: %d rows in %s, want %d", when, n, table, want)
			}
		}
	}
	var first grant.Record
	var putBack func(*testing.T)
	for i := range 4 {
		r := connect("acme")
		if i == 0 {
			first, putBack = r, grantRows(d).Keep(t, r.ID)
		}
		_, err := s.Disconnect(t.Context(), r.ID)
		testenv.Check(t, err)
	}
	rows("connected and ended again and again", 1)
	connect("globex")
	rows("with another one", 2)
	n, err := s.Move(t.Context(), org("globex"), org("acme"),
		func(_, becomes grant.Record) (grant.Record, error) { return seal(becomes) })
	if err != nil || n != 1 {
		t.Fatal(n, err)
	}
	rows("moved onto a tombstone", 1)
	last, err := s.Get(t.Context(), first.Key)
	testenv.Check(t, err)
	_, err = s.Disconnect(t.Context(), last.ID)
	testenv.Check(t, err)
	d.Exec(t, `delete from sallyport_grants`)
	putBack(t)
	if _, _, err := s.Lease(t.Context(), first.ID, first.Generation); !errors.Is(err, grant.ErrRolledBack) {
		t.Errorf("a copy of one that was forgotten: %v", err)
	}
}
