package grant_test

import (
	"context"
	"errors"
	"testing"
)

// What goes on with a loan asks whether it may: until the person ends it, or agrees to less
// than the loan had. A store that does not answer ends nothing that has begun.
func TestP12_WhatIsLentIsLentUntilItEnds(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy", "events"))
		both := r.lend(use("a"))
		narrow := both
		narrow.Accesses = both.Accesses[:1]
		lends := func(want bool, what string) {
			t.Helper()
			if got := r.broker.Lends(t.Context(), narrow); got != want {
				t.Errorf("%s: %v", what, got)
			}
		}
		lends(true, "as agreed")
		r.store.SetBefore(func(context.Context, string) error { return errors.New("away") })
		lends(true, "the store does not answer")
		r.store.SetBefore(nil)
		if err := r.broker.Withdraw(t.Context(), ann, "calendar", "a"); err != nil {
			t.Fatal(err)
		}
		lends(false, "the consent has ended")
		r.connect(r.ask("a", "freebusy"))
		lends(true, "agreed again")
		if r.broker.Lends(t.Context(), both) {
			t.Error("it is lent with an access that nobody agreed to again")
		}
		if _, err := r.broker.End(t.Context(), ann, "calendar"); err != nil {
			t.Fatal(err)
		}
		lends(false, "the grant has ended")
	})
}
