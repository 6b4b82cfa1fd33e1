package sqlite

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/store"
)

// leased is a grant that is being refreshed, in a new file at path; write is the connection
// for writing.
func leased(t *testing.T, path string) (s *store.Grants, write *sql.DB, l grant.Lease, r grant.Record) {
	t.Helper()
	opened, err := openWith(t.Context(), path, store.Options{}, func(db *sql.DB) {
		if write == nil {
			write = db
		}
	})
	testenv.Check(t, err)
	t.Cleanup(func() { _ = opened.Close() })
	s = opened.Grants()
	k := grant.Key{Connector: "calendar", Owner: grant.Owner{Kind: grant.OwnedByUser, ID: "corp:ann"}}
	r, err = s.Connect(t.Context(), grant.Record{Key: k, Status: grant.Active}, grant.Consent{App: "app"}, 0, sealed(1))
	testenv.Check(t, err)
	l, r, err = s.Lease(t.Context(), r.ID, r.Generation)
	testenv.Check(t, err)
	return s, write, l, r
}

// sealed stands for sealing, with a text of so many bytes.
func sealed(n int) grant.Seal {
	return func(r grant.Record) (grant.Record, error) {
		r.Sealed, r.Wrapped, r.KeyID = bytes.Repeat([]byte{0x80}, n), []byte("wrapped"), "key"
		return r, nil
	}
}

// noPages has the database not grow, which it answers as it does where the disk is full.
func noPages(t *testing.T, write *sql.DB) {
	t.Helper()
	var pages int
	testenv.Check(t, write.QueryRow(`pragma page_count`).Scan(&pages))
	_, err := write.Exec(fmt.Sprint(`pragma max_page_count = `, pages))
	testenv.Check(t, err)
}

// A statement that finds no room ends the transaction, so that what followed it would be
// written alone.
func TestP14_AResultThatFindsNoRoomIsNotKeptByHalf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sallyport.db")
	s, write, l, r := leased(t, path)
	noPages(t, write)
	_, err := s.Commit(t.Context(), l, r, sealed(1<<16))
	if !errors.Is(err, grant.ErrUnavailable) || !full(err) {
		t.Fatalf("where there is no room: %v", err)
	}
	kept, err := s.Get(t.Context(), r.Key)
	if err != nil || kept.Generation != l.Generation {
		t.Errorf("generation %d, %v", kept.Generation, err)
	}
	_, err = write.Exec(`pragma max_page_count = 1000000`)
	testenv.Check(t, err)
	next, err := s.Commit(t.Context(), l, r, sealed(1<<16))
	if err != nil || next.Generation != l.Generation+1 {
		t.Errorf("where there is room again: generation %d, %v", next.Generation, err)
	}
}

// What is beside the database is no other user's to read, is given to who ends a refresh
// and to nobody else, and is there again before the next one begins.
func TestP14_TheReserveIsForResultsOfRefreshes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sallyport.db")
	s, write, l, r := leased(t, path)
	reserved := func(what string, want int64) {
		t.Helper()
		info, err := os.Stat(path + ".reserve")
		testenv.Check(t, err)
		if info.Size() != want || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %d bytes, mode %v", what, info.Size(), info.Mode())
		}
	}
	reserved("at first", reserveSize)
	noPages(t, write)
	other := grant.Key{Connector: "mail", Owner: r.Owner}
	_, err := s.Connect(t.Context(), grant.Record{Key: other, Status: grant.Active}, grant.Consent{}, 0, sealed(1<<16))
	if !full(err) {
		t.Errorf("connecting: %v", err)
	}
	reserved("after what can be done again", reserveSize)
	if _, err := s.Commit(t.Context(), l, r, sealed(1<<16)); !full(err) {
		t.Errorf("the result of a refresh: %v", err)
	}
	reserved("after what cannot", 0)
	_, err = write.Exec(`pragma max_page_count = 1000000`)
	testenv.Check(t, err)
	next, err := s.Commit(t.Context(), l, r, sealed(1<<16))
	testenv.Check(t, err)
	_, _, err = s.Lease(t.Context(), next.ID, next.Generation)
	testenv.Check(t, err)
	reserved("for the next refresh", reserveSize)
}

func TestP14_NoRefreshBeginsWithoutTheReserve(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sallyport.db")
	s, _, l, r := leased(t, path)
	next, err := s.Commit(t.Context(), l, r, sealed(1))
	testenv.Check(t, err)
	testenv.Check(t, os.Remove(path+".reserve"))
	testenv.Check(t, os.Mkdir(path+".reserve", 0o700)) // so that it cannot be made
	if _, _, err := s.Lease(t.Context(), next.ID, next.Generation); !errors.Is(err, grant.ErrNoRoom) {
		t.Errorf("without the reserve: %v", err)
	}
	testenv.Check(t, s.SetStatus(t.Context(), next.ID, next.Generation, grant.Degraded, "busy", next.RetryAt))
	testenv.Check(t, os.Remove(path+".reserve"))
	testenv.Eventually(t, "a refresh begins when it can be made", func() bool {
		_, _, err := s.Lease(t.Context(), next.ID, next.Generation)
		return err == nil
	})
}
