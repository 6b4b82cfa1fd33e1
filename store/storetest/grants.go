package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/store"
)

// RunGrants runs the contract of grants. fresh returns an empty database.
func RunGrants(t *testing.T, fresh func(t *testing.T) Database) {
	granttest.TestStore(t, func(t *testing.T) granttest.Rows { return grantRows(fresh(t)) })
	t.Run("P15 a result outlives a database that fails", func(t *testing.T) { grantFaults(t, fresh) })
	t.Run("what was disconnected is forgotten when it is replaced", func(t *testing.T) { forgetsGrants(t, fresh(t)) })
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
	_, err := running.Connect(t.Context(), grant.Record{Key: k, Status: grant.Active}, grant.Consent{App: "a"}, 0, seal)
	testenv.Check(t, err)
	s, err := d.TryOpen(store.Options{Brief: true})
	testenv.Check(t, err)
	command := s.Grants()
	if list, err := command.List(t.Context(), grant.Filter{}); len(list) != 1 || err != nil {
		t.Errorf("a command lists %v: %v", list, err)
	}
	if was, err := command.Disconnect(t.Context(), k); was.Status != grant.Active || err != nil {
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
		_, err := s.Disconnect(t.Context(), r.Key)
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
	_, err = s.Disconnect(t.Context(), first.Key)
	testenv.Check(t, err)
	d.Exec(t, `delete from sallyport_grants`)
	putBack(t)
	if _, _, err := s.Lease(t.Context(), first.ID, first.Generation); !errors.Is(err, grant.ErrRolledBack) {
		t.Errorf("a copy of one that was forgotten: %v", err)
	}
}
