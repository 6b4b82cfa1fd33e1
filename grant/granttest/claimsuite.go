package granttest

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// claimed is what Claim is to answer: that the caller has it, "held" or "taken".
func claimed(t *testing.T, s grant.Store, value string, until time.Time, want string) {
	t.Helper()
	taken, err := s.Claim(t.Context(), value, until)
	got := "mine"
	switch {
	case taken && err == nil:
		got = "taken"
	case errors.Is(err, grant.ErrHeld) && !taken:
		got = "held"
	case err != nil:
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("%s: %s, want %s", value, got, want)
	}
}

// claimedOnce has replicas claim the same again and again, until one has noted that it is
// done.
func claimedOnce(t *testing.T, rows Rows) {
	replicas := []grant.Store{rows.Open(t), rows.Open(t)}
	var all sync.WaitGroup
	var holders, most, mine, taken atomic.Int32
	for i := range 8 {
		all.Go(func() {
			s := replicas[i%len(replicas)]
			for n := 0; taken.Load() < 8 && n < 10_000; n++ {
				until := s.Now().Add(time.Minute)
				took, err := s.Claim(t.Context(), "test/1", until)
				switch {
				case took:
					taken.Add(1)
					return
				case errors.Is(err, grant.ErrHeld):
					time.Sleep(time.Millisecond)
					continue
				case err != nil:
					t.Error(err)
					return
				}
				most.Store(max(most.Load(), holders.Add(1)))
				if mine.Add(1) < 4 {
					holders.Add(-1)
					err = s.Unclaim(t.Context(), "test/1", until)
				} else {
					holders.Add(-1)
					err = s.Taken(t.Context(), "test/1", until, tick(time.Hour))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if most.Load() != 1 || mine.Load() != 4 || taken.Load() != 8 {
		t.Errorf("%d had it at one time, it was had %d times, and %d know that it was taken", most.Load(), mine.Load(),
			taken.Load())
	}
	claimed(t, replicas[0], "test/2", replicas[0].Now().Add(time.Minute), "mine")
}

func claimedAgain(t *testing.T, rows Rows) {
	a, b := rows.Open(t), rows.Open(t)
	first := a.Now().Add(5 * time.Second)
	claimed(t, a, "test/1", first, "mine")
	claimed(t, b, "test/1", first, "held")
	claimed(t, a, "test/1", first, "held") // also for who has it
	testenv.Check(t, a.Unclaim(t.Context(), "test/1", first.Add(time.Second)))
	claimed(t, b, "test/1", first, "held") // another claim's end
	testenv.Check(t, a.Unclaim(t.Context(), "test/1", first))
	second := b.Now().Add(5 * time.Second)
	claimed(t, b, "test/1", second, "mine")

	rows.Advance(t, 6*time.Second) // b was killed
	third := a.Now().Add(20 * time.Second)
	claimed(t, a, "test/1", third, "mine")
	testenv.Check(t, b.Unclaim(t.Context(), "test/1", second)) // or was only slow
	claimed(t, b, "test/1", b.Now().Add(5*time.Second), "held")
	// Slow as it was, it did hand it on.
	testenv.Check(t, b.Taken(t.Context(), "test/1", second, tick(time.Hour)))
	testenv.Check(t, a.Unclaim(t.Context(), "test/1", third))
	for range 2 {
		for _, s := range []grant.Store{a, b} {
			claimed(t, s, "test/1", s.Now().Add(5*time.Second), "taken")
		}
	}
	fourth := a.Now().Add(5 * time.Second)
	claimed(t, a, "test/2", fourth, "mine")
	for range 2 { // an answer got lost
		testenv.Check(t, a.Taken(t.Context(), "test/2", fourth, tick(time.Hour)))
	}
	claimed(t, b, "test/2", fourth, "taken")
	fifth := a.Now().Add(5 * time.Second)
	claimed(t, a, "test/3", fifth, "mine")
	rows.Advance(t, -24*time.Hour) // a was killed, and the clock was set back
	claimed(t, b, "test/3", b.Now().Add(5*time.Second), "mine")
	claimed(t, a, "test/3", a.Now().Add(5*time.Second), "held")
}
