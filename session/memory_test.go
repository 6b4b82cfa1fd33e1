package session

import (
	"fmt"
	"math"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func endingOf(root string, c *clock) Ending {
	return Ending{Root: root, SignedIn: c.t, Until: c.t.Add(12 * time.Hour)}
}

func TestMemoryRemembersWhatEnded(t *testing.T) {
	c := newClock()
	m := NewMemory(c.now, nil)
	a, b := endingOf("a", c), endingOf("b", c)
	if m.Ended(a) {
		t.Error("remembers what it was not told")
	}
	next := a
	next.Generation = 1
	if !m.Supersede(a) || m.Supersede(a) || !m.Ended(a) || m.Ended(next) || m.Ended(b) {
		t.Error("superseding ends one session, once")
	}
	m.End(a) // by its oldest session
	if last := (Ending{Root: "a", Generation: math.MaxUint32, SignedIn: c.t, Until: a.Until}); !m.Ended(next) || !m.Ended(last) || m.Supersede(next) || m.Ended(b) {
		t.Error("ending ends the whole sign-in")
	}
	if m.End(b); !m.Ended(b) || !m.Ended(a) {
		t.Error("forgot")
	}
}

// At its bound the list becomes coarser, never shorter: whoever signed out stays
// signed out, and some others sign in again, which is told.
func TestP10_NothingEndedComesBackHoweverManySignOut(t *testing.T) {
	c := newClock()
	var cut time.Time
	merges := 0
	m := NewMemory(c.now, func(before time.Time, entries int) {
		if merges++; entries < 50 || !before.After(cut) || before.After(c.t) {
			t.Errorf("%d entries merged before %s", entries, before)
		}
		cut = before
	})
	m.max = 100
	var all []Ending
	for i := range 5000 {
		c.add(time.Second)
		e := endingOf(fmt.Sprint(i), c)
		m.End(e)
		if all = append(all, e); len(m.entries) > m.max {
			t.Fatalf("%d entries after %d", len(m.entries), i)
		}
		if alive := endingOf("alive", c); m.Ended(alive) {
			t.Fatalf("somebody who signs in now has ended, after %d", i)
		}
	}
	for i, e := range all {
		if !m.Ended(e) || m.Supersede(e) {
			t.Fatalf("the %dth signs in again", i)
		}
	}
	if merges == 0 || !m.Ended(Ending{Root: "x", SignedIn: cut}) || m.Ended(Ending{Root: "x", SignedIn: cut.Add(time.Second)}) {
		t.Errorf("%d merges, the last before %s", merges, cut)
	}
	if NewMemory(nil, nil).max != 131_072 {
		t.Error("the bound is not the one that SECURITY.md states")
	}
}

// 131,250 sign-outs in one life let the first fifty sign in again.
func TestP10_ThoseWhoSignedOutFirstStaySignedOutAtTheRealBound(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	cookies := map[string]bool{}
	for i := range 135_000 {
		s := m.Start(alice())
		if i < 50 {
			cookies[pair(write(t, m, testHost, s))] = true
		}
		m.EndSignIn(s)
		if i%100 == 0 {
			c.add(time.Second)
		}
	}
	for cookie := range cookies {
		mustRefuse(t, m, cookie, testHost, ErrEnded)
	}
}

// What has run out goes first: it merges nobody.
func TestP10_ManyFinishedSessionsPushOutNoEndedOne(t *testing.T) {
	c := newClock()
	m := NewMemory(c.now, func(time.Time, int) { t.Error("merged") })
	m.max = 100
	first := endingOf("ended", c)
	m.End(first)
	for i := range 10_000 {
		e := endingOf(fmt.Sprint(i), c)
		e.Until = c.t.Add(time.Minute)
		m.End(e)
		c.add(2 * time.Second)
		if !m.Ended(first) {
			t.Fatalf("forgotten after %d", i)
		}
	}
}

// Sign-ins that came back: an attacker begins and ends them for free.
func TestP17_MemoryIsBounded(t *testing.T) {
	s := newSpent()
	if s.max != 65_536 {
		t.Error("the bound is not the one that SECURITY.md states")
	}
	s.max = 100
	for i := range 10_000 {
		if !s.take(fmt.Sprint(i)) {
			t.Fatalf("%d is new", i)
		}
		if n := len(s.young) + len(s.old); n > 2*s.max {
			t.Fatalf("%d names after %d", n, i)
		}
		if i >= s.max && s.take(fmt.Sprint(i-s.max+1)) {
			t.Fatalf("at %d, the name of %d ago is forgotten", i, s.max-1)
		}
	}
}

func TestMemoryIsSafeForConcurrentUse(t *testing.T) {
	c := newClock()
	m, s := NewMemory(c.now, nil), newSpent()
	m.max, s.max = 10, 10
	var wg sync.WaitGroup
	var alive, first atomic.Int32
	for range 8 {
		wg.Go(func() {
			for i := range 9 {
				e := endingOf(fmt.Sprint(i), c)
				if m.Supersede(e) {
					alive.Add(1)
				}
				if s.take(e.Root) {
					first.Add(1)
				}
				m.Ended(e)
			}
		})
	}
	wg.Wait()
	if alive.Load() != 9 || first.Load() != 9 {
		t.Errorf("%d were alive, %d names were new, want 9", alive.Load(), first.Load())
	}
}

// A thief switches, the owner signs out with the cookie of before: nothing of the
// sign-in is left, and nothing can follow.
func TestP10_SignOutReachesTheSessionThatAStolenCookieSwitchedTo(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	owner, cookie := signedIn(t, m)
	w := httptest.NewRecorder()
	thief, err := m.Switch(w, testHost, owner, alice())
	if err != nil {
		t.Fatal(err)
	}
	stolen := pair(w.Header().Get("Set-Cookie"))
	if _, err := m.Read(stolen, testHost); err != nil {
		t.Fatalf("the thief's: %v", err)
	}
	found, err := m.Read(cookie, testHost)
	if err != ErrEnded || found.Root != thief.Root {
		t.Fatalf("the owner's: %v", err)
	}
	m.SignOut(httptest.NewRecorder(), found)
	mustRefuse(t, m, stolen, testHost, ErrEnded)
	if _, due := m.Renew(thief); due || !m.HasEnded(&thief) {
		t.Error("it can be renewed")
	}
	w = httptest.NewRecorder()
	if _, err := m.Switch(w, testHost, thief, alice()); err != ErrEnded || w.Header()["Set-Cookie"] != nil {
		t.Errorf("it can be switched: %v", err)
	}
}

func TestP10_OfManySwitchesAtOnceOneCounts(t *testing.T) {
	m := newManager(t, newClock())
	old, _ := signedIn(t, m)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var cookies []string
	for range 200 {
		wg.Go(func() {
			w := httptest.NewRecorder()
			_, err := m.Switch(w, testHost, old, alice())
			if err != nil && (err != ErrEnded || w.Header()["Set-Cookie"] != nil) {
				t.Error(err)
			}
			if set := strings.Join(w.Header()["Set-Cookie"], ""); set != "" {
				mu.Lock()
				defer mu.Unlock()
				cookies = append(cookies, pair(set))
			}
		})
	}
	wg.Wait()
	if len(cookies) != 1 {
		t.Fatalf("%d live sessions", len(cookies))
	}
	if _, err := m.Read(cookies[0], testHost); err != nil {
		t.Error(err)
	}
}
