package granttest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

func TestStoreInMemory(t *testing.T) {
	granttest.TestStore(t, func(*testing.T) granttest.Rows {
		clock := testenv.NewClock()
		s := granttest.NewStore(clock.Now)
		return granttest.Rows{
			Open:    func(*testing.T) grant.Store { return s },
			Advance: func(_ *testing.T, d time.Duration) { clock.Advance(d) },
			Keep: func(_ *testing.T, id string) func(*testing.T) {
				putBack := s.Keep(id)
				return func(*testing.T) { putBack() }
			},
		}
	})
}

func TestP15_AStoreInMemoryFailsAsItIsTold(t *testing.T) {
	s := granttest.NewStore(nil)
	k := grant.Key{Connector: "c", Owner: grant.Owner{Kind: grant.OwnedByUser, ID: "p"}}
	seal := func(r grant.Record) (grant.Record, error) { return r, nil }
	r, err := s.Connect(t.Context(), grant.Record{Key: k, Status: grant.Active}, grant.Consent{App: "a"}, 0, seal)
	testenv.Check(t, err)
	s.SetNoRoom(true)
	if _, _, err := s.Lease(t.Context(), r.ID, r.Generation); !errors.Is(err, grant.ErrNoRoom) {
		t.Errorf("no room: %v", err)
	}
	s.SetNoRoom(false)
	l, _, err := s.Lease(t.Context(), r.ID, r.Generation)
	testenv.Check(t, err)
	s.SetUnavailable(true)
	if _, err := s.Commit(t.Context(), l, r, seal); !errors.Is(err, grant.ErrUnavailable) {
		t.Errorf("unavailable: %v", err)
	}
	s.SetUnavailable(false)
	refused := errors.New("refused")
	s.SetBefore(func(_ context.Context, method string) error {
		if method == "Commit" {
			return refused
		}
		return nil
	})
	if _, err := s.Commit(t.Context(), l, r, seal); !errors.Is(err, refused) {
		t.Errorf("before: %v", err)
	}
	if _, err := s.Get(t.Context(), k); err != nil {
		t.Errorf("another method: %v", err)
	}
	s.SetBefore(nil)
	if _, err := s.Commit(t.Context(), l, r, seal); err != nil {
		t.Errorf("mended: %v", err)
	}
}
