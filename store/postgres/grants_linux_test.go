package postgres

import (
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/store"
	"github.com/sallyport-proxy/sallyport/store/storetest"
)

// TestWorker is a process of the tests below.
func TestWorker(t *testing.T) { storetest.Worker(t, openAs(t)) }

// openAs gives the connections of a process its name.
func openAs(t *testing.T) func(address, name string) (*store.Store, error) {
	return func(address, name string) (*store.Store, error) {
		return Open(t.Context(), address+"&application_name="+name, Options{})
	}
}

// shared is a new database for several processes.
func shared(t *testing.T) storetest.Shared {
	address := storetest.NeedServer(t).Database(t)
	db := raw(t, address)
	return storetest.Shared{Address: address, Open: openAs(t),
		Exec: func(t *testing.T, statement string) {
			t.Helper()
			_, err := db.Exec(statement)
			testenv.Check(t, err)
		},
		Gone: func(t *testing.T, name string) { // the server goes on with what it was told
			t.Helper()
			testenv.Within(t, time.Minute, "the server has noticed that "+name+" is gone", func() bool {
				var n int
				err := db.QueryRow(`select count(*) from pg_stat_activity where application_name = $1`, name).Scan(&n)
				testenv.Check(t, err)
				return n == 0
			})
		},
	}
}

func TestP14_WhatWasLentOutlivesProcessesThatAreKilled(t *testing.T) {
	storetest.KilledProcesses(t, shared(t))
}

func TestP14_ProcessesAndClientsTogetherRefreshOnce(t *testing.T) {
	storetest.RotatedTogether(t, shared(t))
}

func TestP14_AHolderThatWasStoppedHasTheOnlyGoodToken(t *testing.T) {
	storetest.StoppedHolder(t, shared(t))
}
