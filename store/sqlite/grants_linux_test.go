package sqlite

import (
	"database/sql"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/store"
	"github.com/sallyport-proxy/sallyport/store/storetest"
)

// TestWorker is a process of the tests below.
func TestWorker(t *testing.T) { storetest.Worker(t, openAs(t)) }

func openAs(t *testing.T) func(address, name string) (*store.Store, error) {
	return func(address, _ string) (*store.Store, error) { return Open(t.Context(), address, store.Options{}) }
}

// shared is a new file for several processes.
func shared(t *testing.T) storetest.Shared {
	path := filepath.Join(t.TempDir(), "sallyport.db")
	db := sync.OnceValue(func() *sql.DB { return raw(t, path) })
	return storetest.Shared{Address: path, Open: openAs(t),
		Exec: func(t *testing.T, statement string) {
			t.Helper()
			_, err := db().Exec(statement)
			testenv.Check(t, err)
		},
		Gone: func(*testing.T, string) {}, // its locks went with it
	}
}

func TestP14_WhatWasLentOutlivesProcessesThatAreKilled(t *testing.T) {
	s := shared(t)
	storetest.KilledProcesses(t, s)
	var faults int
	err := raw(t, s.Address).QueryRow(`select count(*) from pragma_integrity_check
		where integrity_check <> 'ok'`).Scan(&faults)
	if err != nil || faults != 0 {
		t.Errorf("%d faults in the file, %v", faults, err)
	}
}

func TestP14_ProcessesAndClientsTogetherRefreshOnce(t *testing.T) {
	storetest.RotatedTogether(t, shared(t))
}

func TestP14_AHolderThatWasStoppedHasTheOnlyGoodToken(t *testing.T) {
	storetest.StoppedHolder(t, shared(t))
}
