package grant_test

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// What goes on with a loan asks whether it may: until the person ends it, or agrees to less
// than the loan had. A store that does not answer ends nothing that has begun.
func TestP12_WhatIsLentIsLentUntilItEnds(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy", "events"))
		both := r.lend(use("a"))
		narrow := both
		narrow.Accesses = both.Accesses[:1]
		lends := func(l grant.Loan, what string, missing ...string) {
			t.Helper()
			err := r.broker.Lends(t.Context(), l)
			required, ok := errors.AsType[*grant.RequiredError](err)
			if len(missing) == 0 && err != nil || len(missing) > 0 && (!ok || !slices.Equal(required.Missing, missing)) {
				t.Errorf("%s: %v", what, err)
			}
		}
		lends(narrow, "as agreed")
		r.store.SetBefore(func(context.Context, string) error { return errors.New("away") })
		lends(narrow, "the store does not answer")
		r.store.SetBefore(nil)
		if err := r.broker.Withdraw(t.Context(), ann, "calendar", "a"); err != nil {
			t.Fatal(err)
		}
		lends(narrow, "the consent has ended", "freebusy", "events")
		r.connect(r.ask("a", "freebusy"))
		lends(narrow, "agreed again")
		lends(both, "an access that nobody agreed to again", "events")
		if _, err := r.broker.End(t.Context(), ann, "calendar"); err != nil {
			t.Fatal(err)
		}
		lends(narrow, "the grant has ended", "freebusy", "events")
	})
}

// What goes on with one account ends where the person has connected another one in its place, or
// ended the grant and connected it again, though the app may use that too. A refresh, and the same
// account once more, end nothing.
func TestP12_WhatIsLentOfOneAccountEndsWithIt(t *testing.T) {
	for name, tt := range map[string]struct {
		was, now grant.Account
		ended    bool // the grant, before it is connected again
		goesOn   bool
	}{
		"another account":                {was: grant.Account{ID: "1"}, now: grant.Account{ID: "2"}},
		"the same account":               {was: grant.Account{ID: "1"}, now: grant.Account{ID: "1"}, goesOn: true},
		"the same account, ended before": {was: grant.Account{ID: "1"}, now: grant.Account{ID: "1"}, ended: true},
		"nobody knows which account":     {},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) { r.provider.account = tt.was }, func(r *rig) {
				r.connect(r.ask("a", "freebusy"))
				l := r.lend(use("a"))
				time.Sleep(life + time.Second)
				r.lend(use("a"))
				if err := r.broker.Lends(r.Context(), l); err != nil || r.provider.calls() != 1 {
					t.Fatalf("after a refresh: %v", err)
				}
				if tt.ended {
					if _, err := r.broker.End(r.Context(), ann, "calendar"); err != nil {
						t.Fatal(err)
					}
				}
				r.provider.account = tt.now
				if _, err := r.broker.Connect(r.Context(), ann, r.ask("a", "freebusy"), url.Values{}, identity.Handshake{},
					true); err != nil {
					t.Fatal(err)
				}
				err := r.broker.Lends(r.Context(), l)
				if tt.goesOn && err != nil || !tt.goesOn && !errors.Is(err, grant.ErrChanged) {
					t.Error(err)
				}
				if err := r.broker.Lends(r.Context(), r.lend(use("a"))); err != nil {
					t.Error("what is lent now:", err)
				}
			})
		})
	}
}

// A third party that hangs holds up those who wait for it, up to a number, and nobody else.
func TestP17_ACrowdAtOneThirdPartyHoldsUpNobodyAtAnother(t *testing.T) {
	inBubble(t, func(r *rig) {
		other := newProvider()
		other.about.ID = "files"
		r.options.Offers = append(r.options.Offers, grant.Offer{Connector: other, Owner: grant.OwnedByUser,
			Offered: []string{"freebusy"}})
		r.options.Apps[1].Connectors["files"] = []string{"freebusy"}
	}, func(r *rig) {
		const most = 256
		r.connect(r.ask("a", "freebusy"))
		_, err := r.broker.Connect(r.Context(), ann, grant.Ask{Connector: "files", App: "b"},
			url.Values{"code": {"c"}}, identity.Handshake{State: "s", Verifier: "v"}, false)
		testenv.Check(r, err)
		time.Sleep(life)
		leave := make(chan struct{})
		r.provider.set(func(context.Context, string) error {
			<-leave
			return nil
		}, nil)
		results := make(chan error, 2*most)
		for range most + 10 {
			go func() {
				_, err := r.broker.Lend(r.Context(), use("a"))
				results <- err
			}()
		}
		synctest.Wait()
		if n := len(results); n != 10 || r.provider.calls() != 1 {
			t.Errorf("%d were sent away, and the third party was asked %d times", n, r.provider.calls())
		}
		files := use("b")
		files.Connector = "files"
		if _, err := r.broker.Lend(r.Context(), files); err != nil {
			t.Error(err)
		}
		close(leave)
		synctest.Wait()
		good := 0
		for range most + 10 {
			if later, is := errors.AsType[*grant.LaterError](<-results); !is {
				good++
			} else if later.After <= 0 {
				t.Error(later)
			}
		}
		if good != most || r.provider.calls() != 1 {
			t.Errorf("%d were lent it, after %d calls", good, r.provider.calls())
		}
	})
}

// A refresh that brings another account's credential is not lent to anybody: the person
// connects again.
func TestP12_ARefreshOfAnotherAccountIsNotLent(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		r.provider.set(nil, func(_ context.Context, got grant.Result) (grant.Result, error) {
			got.Account = grant.Account{ID: "2", Name: "eve@calendar.test"}
			return got, nil
		})
		r.refused(use("a"), grant.MissingReconnect)
		r.refused(use("a"), grant.MissingReconnect)
		if n := r.provider.calls(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if k := r.kept(); k.Status != grant.NeedsReconnect || k.Reason != grant.ReasonOtherAccount || k.Account.ID != "1" {
			t.Errorf("%s %s %+v", k.Status, k.Reason, k.Account)
		}
	})
}

// located is a connector whose grants each have a place, or none and why.
type located struct {
	*provider
	gone *string
}

func (l located) Locate(grant.Tokens) (grant.Place, error) {
	if *l.gone != "" {
		return grant.Place{}, errors.New(*l.gone)
	}
	return grant.Place{Origin: "https://calendar.test"}, nil
}

// An operator who reads the log finds a grant whose host is no longer allowed once, however
// often apps ask for it, and again when it has changed.
func TestAGrantWithoutAPlaceIsToldOfOnce(t *testing.T) {
	gone := ""
	inBubble(t, func(r *rig) {
		r.options.Offers[0].Connector = located{r.provider, &gone}
	}, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		told := func(want int, what string) {
			t.Helper()
			for range 5 {
				if _, err := r.broker.Lend(r.Context(), use("a")); (gone == "") != (err == nil) {
					t.Errorf("%s: %v", what, err)
				} else if gone != "" {
					needs(t, err, grant.MissingReconnect)
				}
			}
			if n := strings.Count(r.log.String(), "not for an address"); n != want {
				t.Errorf("%s: told of %d times, not %d: %s", what, n, want, r.log)
			}
		}
		told(0, "it has a place")
		gone = "another domain"
		told(1, "it has none")
		gone = "not https"
		told(2, "for another reason")
		gone = ""
		told(2, "it has one again")
		gone = "not https"
		told(3, "and none again")
	})
}
