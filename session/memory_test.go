package session

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// begun is a session that begins now, with a person of its own.
func begun(root string, c *clock) *Session {
	return &Session{Root: root, SignedIn: c.Now(), end: c.Now().Add(12 * time.Hour)}
}

func end(m *Memory, s *Session) { _ = m.End(context.Background(), cutOf(s, 0)) }

func supersede(m *Memory, s *Session) bool {
	first, err := m.Supersede(context.Background(), cutOf(s, uint64(s.generation)+1))
	return first && err == nil
}

func cutOf(s *Session, below uint64) Cut { return (&Manager{}).cut(s, below) }

func TestMemoryRemembersWhatEnded(t *testing.T) {
	c := newClock()
	m := NewMemory(MemoryOptions{Now: c.Now})
	a, b := begun("a", c), begun("b", c)
	if m.Ended(*a) {
		t.Error("remembers what it was not told")
	}
	next := begun("a", c)
	next.generation = 1
	if !supersede(m, a) || supersede(m, a) || !m.Ended(*a) || m.Ended(*next) || m.Ended(*b) {
		t.Error("superseding ends one session, once")
	}
	end(m, a) // by its oldest session
	last := begun("a", c)
	last.generation = math.MaxUint32
	if !m.Ended(*next) || !m.Ended(*last) || supersede(m, next) || m.Ended(*b) {
		t.Error("ending ends the whole sign-in")
	}
	if end(m, b); !m.Ended(*b) || !m.Ended(*a) {
		t.Error("forgot")
	}
}

// At its bound the list becomes coarser, never shorter: those who signed out stay
// signed out, and some others sign in again, which is told.
func TestP10_NothingEndedComesBackHoweverManySignOut(t *testing.T) {
	c := newClock()
	var cut time.Time
	merges := 0
	m := NewMemory(MemoryOptions{Max: 100, Now: c.Now, Merged: func(got Merge) {
		if merges++; got.Person != "" || got.Entries < 50 || !got.Before.After(cut) || got.Before.After(c.Now()) {
			t.Errorf("merged: %+v", got)
		}
		cut = got.Before
	}})
	var all []*Session
	for i := range 5000 {
		c.Advance(time.Second)
		e := begun(fmt.Sprint(i), c)
		end(m, e)
		if all = append(all, e); m.view.Len() > m.max {
			t.Fatalf("%d entries after %d", m.view.Len(), i)
		}
		if alive := begun("alive", c); m.Ended(*alive) {
			t.Fatalf("somebody who signs in now has ended, after %d", i)
		}
	}
	for i, e := range all {
		if !m.Ended(*e) || supersede(m, e) {
			t.Fatalf("the %dth signs in again", i)
		}
	}
	if merges == 0 || !m.Ended(Session{Root: "x", SignedIn: cut}) ||
		m.Ended(Session{Root: "x", SignedIn: cut.Add(time.Millisecond)}) {
		t.Errorf("%d merges, the last before %s", merges, cut)
	}
	if NewMemory(MemoryOptions{}).max != 131_072 {
		t.Error("the bound is not the one that SECURITY.md states")
	}
}

// 131,250 sign-outs in one life let the first fifty sign in again.
func TestP10_ThoseWhoSignedOutFirstStaySignedOutAtTheRealBound(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	cookies := map[string]bool{}
	for i := range 135_000 {
		who := alice()
		who.Subject = fmt.Sprint(i % 5000)
		s := m.Start(who)
		if i < 50 {
			cookies[pair(write(t, m, testHost, s))] = true
		}
		if err := m.EndSignIn(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			c.Advance(time.Second)
		}
	}
	for cookie := range cookies {
		mustRefuse(t, m, cookie, testHost, ErrEnded)
	}
}

// What has run out goes first: it merges nobody.
func TestP10_ManyFinishedSessionsPushOutNoEndedOne(t *testing.T) {
	c := newClock()
	m := NewMemory(MemoryOptions{Now: c.Now, Merged: func(Merge) { t.Error("merged") }})
	m.max = 100
	first := begun("ended", c)
	end(m, first)
	for i := range 10_000 {
		e := begun(fmt.Sprint(i), c)
		e.end = c.Now().Add(time.Minute)
		end(m, e)
		c.Advance(2 * time.Second)
		if !m.Ended(*first) {
			t.Fatalf("forgotten after %d", i)
		}
	}
}

// Sign-ins that came back: an attacker begins and ends them for free.
func TestP17_MemoryIsBounded(t *testing.T) {
	s := NewTrips()
	if s.max != 65_536 {
		t.Error("the bound is not the one that SECURITY.md states")
	}
	s.max = 100
	for i := range 10_000 {
		if s.Use(Trip{Name: fmt.Sprint(i)}) != nil {
			t.Fatalf("%d is new", i)
		}
		if n := len(s.young) + len(s.old); n > 2*s.max {
			t.Fatalf("%d names after %d", n, i)
		}
		if i >= s.max && s.Use(Trip{Name: fmt.Sprint(i - s.max + 1)}) == nil {
			t.Fatalf("at %d, the name of %d ago is forgotten", i, s.max-1)
		}
	}
}

func TestMemoryIsSafeForConcurrentUse(t *testing.T) {
	c := newClock()
	m, s := NewMemory(MemoryOptions{Now: c.Now}), NewTrips()
	m.max, s.max = 10, 10
	var wg sync.WaitGroup
	var alive, first atomic.Int32
	for range 8 {
		wg.Go(func() {
			for i := range 9 {
				e := begun(fmt.Sprint(i), c)
				if supersede(m, e) {
					alive.Add(1)
				}
				if s.Use(Trip{Name: e.Root}) == nil {
					first.Add(1)
				}
				m.Ended(*e)
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
	thief, err := m.Switch(t.Context(), w, testHost, owner, alice())
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
	signOut(t, m, found)
	mustRefuse(t, m, stolen, testHost, ErrEnded)
	if _, due := m.Renew(thief); due || !m.HasEnded(&thief) {
		t.Error("it can be renewed")
	}
	w = httptest.NewRecorder()
	if _, err := m.Switch(t.Context(), w, testHost, thief, alice()); err != ErrEnded ||
		w.Header()["Set-Cookie"] != nil {
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
			_, err := m.Switch(t.Context(), w, testHost, old, alice())
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

// One account costs nobody else anything, however often it signs in and out.
func TestP10_WhoSignsInAndOutAgainAndAgainSignsOutNobodyElse(t *testing.T) {
	c := newClock()
	var merges []Merge
	m := newManager(t, c, func(o *Options) {
		o.Ended = NewMemory(MemoryOptions{Now: c.Now, Merged: func(got Merge) { merges = append(merges, got) }})
	})
	list := m.ended.(*Memory)
	list.max = 1000
	_, others := signedInAs(t, m, "somebody else")
	m.idle = 12 * time.Hour
	var sessions []string
	for i := range 5000 {
		s, cookie := signedInAs(t, m, "busy")
		sessions = append(sessions, cookie)
		signOut(t, m, s)
		if c.Advance(time.Second); list.view.Len() > CrowdMax+1 {
			t.Fatalf("%d entries after %d", list.view.Len(), i)
		}
	}
	if _, err := m.Read(others, testHost); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	if _, cookie := signedInAs(t, m, "busy"); cookie != "" {
		if _, err := m.Read(cookie, testHost); err != nil {
			t.Errorf("the same person, signed in again: %v", err)
		}
	}
	for i, cookie := range sessions {
		if i%10 == 0 || i > 4800 {
			mustRefuse(t, m, cookie, testHost, ErrEnded)
		}
	}
	if len(merges) < 50 || slices.ContainsFunc(merges,
		func(m Merge) bool { return m.Person != "google:busy" || m.Entries < CrowdMax/2 }) {
		t.Errorf("told of %d merges: %.200v", len(merges), merges)
	}
}

// The same where they sign out at the provider, which says so each time.
func TestP10_WhoSignsOutAtTheProviderAgainAndAgainSignsOutNobodyElse(t *testing.T) {
	c := newClock()
	list := NewMemory(MemoryOptions{Now: c.Now, Max: 1000})
	m := newManager(t, c, func(o *Options) { o.Ended = list })
	others, id := m.Start(alice()), alice()
	id.Subject = "busy"
	for i := range 3000 {
		id.ProviderSID = fmt.Sprint("sid-", i)
		s := m.Start(id)
		c.Advance(time.Second)
		first, err := m.EndFromProvider(t.Context(), id.Provider, identity.ProviderLogout{Person: id.ID(),
			ProviderSID: id.ProviderSID, ID: fmt.Sprint(i), Issued: c.Now(), Until: c.Now().Add(time.Minute)})
		if !first || err != nil || !m.HasEnded(&s) {
			t.Fatalf("sign-out %d: %v %v, over: %v", i, first, err, m.HasEnded(&s))
		}
		if list.view.Len() > CrowdMax+1 {
			t.Fatalf("%d entries after %d", list.view.Len(), i)
		}
	}
	if m.HasEnded(&others) {
		t.Error("somebody else was signed out")
	}
}

// Somebody who has many organizations switches as often as they like.
func TestP10_SwitchingAgainAndAgainTakesOneEntry(t *testing.T) {
	c := newClock()
	m := newManager(t, c, func(o *Options) {
		o.Ended = NewMemory(MemoryOptions{Now: c.Now, Merged: func(Merge) { t.Error("merged") }})
	})
	s, _ := signedIn(t, m)
	for range 5000 {
		var err error
		if s, err = m.Switch(t.Context(), httptest.NewRecorder(), testHost, s, alice()); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.ended.(*Memory).view.Len(); n != 1 {
		t.Errorf("%d entries", n)
	}
}

// The operator makes the timeout shorter, somebody signs out, the operator makes it
// longer again: the cookie of before must not be good again.
func TestP10_ALongerTimeoutBringsNothingEndedBack(t *testing.T) {
	c := newClock()
	list := NewMemory(MemoryOptions{Now: c.Now})
	lasting := func(d time.Duration) *Manager {
		return newManager(t, c, func(o *Options) { o.Ended, o.AbsoluteTimeout, o.IdleTimeout = list, d, 24*time.Hour })
	}
	s, cookie := signedIn(t, lasting(12*time.Hour))
	_, other := signedIn(t, lasting(12*time.Hour))
	read, err := lasting(time.Hour).Read(cookie, testHost)
	if err != nil || !read.Expires.Equal(s.SignedIn.Add(time.Hour)) {
		t.Fatalf("the shorter timeout: %v, until %s", err, read.Expires)
	}
	signOut(t, lasting(time.Hour), read)
	c.Advance(2 * time.Hour)
	list.view.Sweep(c.Now())
	mustRefuse(t, lasting(12*time.Hour), cookie, testHost, ErrEnded)
	mustRefuse(t, lasting(1000*time.Hour), cookie, testHost, ErrEnded)
	c.Advance(11 * time.Hour)
	mustRefuse(t, lasting(1000*time.Hour), other, testHost, ErrExpired)
}

// The clock was an hour ahead when somebody was signed out everywhere, and is right
// again: they can sign in, for as long as everybody.
func TestAClockThatIsSetBackKeepsNobodyFromSigningIn(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	old, oldCookie := signedIn(t, m)
	for _, cut := range []Cut{
		{Person: alice().ID(), Before: c.Now().Add(time.Hour), Until: c.Now().Add(13 * time.Hour)},
		{Org: alice().Org.ID, Before: c.Now().Add(2 * time.Hour), Until: c.Now().Add(14 * time.Hour)},
		{Before: c.Now().Add(3 * time.Hour), Until: c.Now().Add(15 * time.Hour)},
	} {
		if err := m.ended.End(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
		mustRefuse(t, m, oldCookie, testHost, ErrEnded)
		s, cookie := signedIn(t, m)
		if got, err := m.Read(cookie, testHost); err != nil || !got.SignedIn.Equal(cut.Before.Add(time.Millisecond)) ||
			got.Expires.After(old.Expires) {
			t.Fatalf("%+v: %v, signed in %s, until %s", cut, err, got.SignedIn, got.Expires)
		}
		if _, due := m.Renew(s); due {
			t.Error("renewed before its time")
		}
	}
	_, cookie := signedIn(t, m)
	c.Advance(12*time.Hour - time.Second)
	if _, err := m.Read(cookie, testHost); err != nil && err != ErrExpired {
		t.Error(err)
	}
	c.Advance(time.Second)
	mustRefuse(t, m, cookie, testHost, ErrExpired)
}

func TestCutMatchesWhatItNames(t *testing.T) {
	c := newClock()
	at, until := c.Now(), c.Now().Add(12*time.Hour)
	s := Session{Root: "r", SignedIn: at, Identity: alice()}
	s.Identity.ProviderSID = "sid"
	s.Identity.Orgs = []identity.Org{s.Identity.Org, {ID: "birch"}}
	for name, cut := range map[string]Cut{
		"sign-in":           {Root: "r"},
		"switched":          {Root: "r", Below: 1},
		"session there":     {Provider: "google", ProviderSID: "sid", Before: at},
		"person":            {Person: s.Identity.ID(), Before: at},
		"organization":      {Org: s.Identity.Org.ID, Before: at},
		"another of theirs": {Org: "birch", Before: at},
		"everybody":         {Before: at},
	} {
		cut.Until = until
		m := NewMemory(MemoryOptions{Now: c.Now})
		if err := m.End(t.Context(), cut); err != nil || !m.Ended(s) {
			t.Errorf("%s: %v, and not over", name, err)
		}
		later, other := s, s
		later.SignedIn = at.Add(time.Millisecond)
		if later.Root = "q"; m.Ended(later) {
			t.Errorf("%s: ends a later sign-in", name)
		}
		other.Root, other.Identity = "q", identity.Identity{Provider: "p", Subject: "s", ProviderSID: "sid",
			Org: identity.Org{ID: "x"}}
		if got := m.Ended(other); got != (name == "everybody") {
			t.Errorf("%s: somebody else: %v", name, got)
		}
	}
	for name, cut := range map[string]Cut{
		"nothing": {}, "no end": {Root: "r"}, "two": {Root: "r", Org: "o", Until: until},
		"no time":                {Person: "p:s", Until: until},
		"a session nowhere":      {ProviderSID: "s", Before: at, Until: until},
		"all of a provider":      {Provider: "p", Before: at, Until: until},
		"generation of a person": {Person: "p:s", Below: 1, Before: at, Until: until},
	} {
		if err := NewMemory(MemoryOptions{Now: c.Now}).End(t.Context(), cut); !errors.Is(err, ErrCut) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is full refuses: to forget a hand-over would let it count twice.
func TestConsumeCountsOnceAndForgetsNothing(t *testing.T) {
	c := newClock()
	m := NewMemory(MemoryOptions{Now: c.Now})
	m.room = 100
	for i := range 100 {
		for want := range []bool{0: true, 1: false} {
			if first, err := m.Consume(t.Context(), fmt.Sprint("test/", i), c.Now().Add(time.Minute)); err != nil ||
				first != (want == 0) {
				t.Fatalf("%d: %v %v", i, first, err)
			}
		}
	}
	if first, err := m.Consume(t.Context(), "test/more", c.Now().Add(time.Minute)); first || !errors.Is(err, ErrFull) {
		t.Errorf("full: %v %v", first, err)
	}
	c.Advance(2 * time.Minute)
	if first, err := m.Consume(t.Context(), "test/more", c.Now().Add(time.Minute)); !first || err != nil {
		t.Errorf("after a while: %v %v", first, err)
	}
}

// SECURITY.md states the bytes.
func TestP17_ACutTakesFewBytes(t *testing.T) {
	const n = 300_000
	for _, cuts := range []int{n / 2, n * 3 / 4, n} {
		v, before := NewView(n), heap()
		for i := range cuts {
			var r Record
			r.Kind, r.Before, r.Until = KindRoot, int64(i)+1, math.MaxInt32*1000
			binary.BigEndian.PutUint64(r.Whose[:], uint64(i)+1)
			r.Key = rootKey(fmt.Sprint(i))
			v.Add(r)
		}
		per := float64(heap()-before) / float64(cuts)
		t.Logf("%d cuts: %.1f bytes each", cuts, per)
		if per > 96 {
			t.Errorf("%.1f bytes a cut", per)
		}
		runtime.KeepAlive(v)
	}
}

func signedInAs(t testing.TB, m *Manager, subject string) (Session, string) {
	t.Helper()
	who := alice()
	who.Subject = subject
	s := m.Start(who)
	return s, pair(write(t, m, testHost, s))
}

func signOut(t testing.TB, m *Manager, s Session) {
	t.Helper()
	if err := m.SignOut(t.Context(), httptest.NewRecorder(), s); err != nil {
		t.Fatal(err)
	}
}

// What every request of somebody who is signed in pays, with a million cuts of
// sign-ins and some of the other kinds.
func BenchmarkEnded(b *testing.B) {
	const n = 1_000_000
	v := NewView(n)
	until := time.Now().Add(time.Hour).UnixMilli()
	for i := range n {
		v.Add(Record{Kind: KindRoot, Key: rootKey(fmt.Sprint(i)), Whose: personKey(fmt.Sprint(i)), Before: int64(i),
			Until: until})
	}
	s := Session{Root: strings.Repeat("r", 22), SignedIn: time.Now(), Identity: alice()}
	s.Identity.ProviderSID = "sid"
	s.Identity.Orgs = []identity.Org{s.Identity.Org, {ID: "birch"}, {ID: "cedar"}}
	run := func(name string) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if v.Ended(&s) {
					b.Fatal("over")
				}
			}
		})
	}
	run("sign-ins only")
	for i := range 1000 {
		for kind := KindSID; kind < kinds; kind++ {
			v.Add(Record{Kind: kind, Key: hashed("bench", fmt.Sprint(kind, i), ""), Before: int64(i), Until: until})
		}
	}
	run("all kinds")
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			v.Sweep(time.Now())
		}
	})
	run("while it is swept")
	stop.Store(true)
	wg.Wait()
}

// A logout token with sub and sid ends that session of that person; one of another
// person with the same sid, or another session, lives on.
func TestASessionAtTheProviderMayBeMeantOfOnePersonOnly(t *testing.T) {
	c := newClock()
	m := NewMemory(MemoryOptions{Now: c.Now})
	at := c.Now()
	of := func(subject, sid string) Session {
		return Session{Root: subject + sid, SignedIn: at, Identity: identity.Identity{Provider: "p", Subject: subject,
			ProviderSID: sid}}
	}
	cut := Cut{Provider: "p", ProviderSID: "s", Person: "p:alice", Before: at, Until: at.Add(time.Hour)}
	if err := m.End(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	if !m.Ended(of("alice", "s")) {
		t.Error("it is not over")
	}
	for _, other := range []Session{of("bob", "s"), of("alice", "t"), of("alice", ""), of("alice\x00s", "")} {
		if m.Ended(other) {
			t.Errorf("%+v is over too", other.Identity)
		}
	}
	cut.Person = ""
	if err := m.End(t.Context(), cut); err != nil || !m.Ended(of("bob", "s")) || m.Ended(of("alice", "t")) {
		t.Errorf("by sid alone: %v", err)
	}
}

// The value of a message and its cut count together or not at all.
func TestAMessageEndsSessionsOnce(t *testing.T) {
	c := newClock()
	m := NewMemory(MemoryOptions{Now: c.Now})
	until := c.Now().Add(time.Hour)
	s, who := begun("a", c), identity.Identity{Provider: "p", Subject: "alice"}
	s.Identity = who
	cut := Cut{Person: s.Identity.ID(), Before: s.SignedIn, Until: until}
	if first, err := m.EndOnce(t.Context(), Cut{}, "jti/p/1", until); first || !errors.Is(err, ErrCut) {
		t.Errorf("a cut of nothing: %v %v", first, err)
	}
	var n atomic.Int32
	var crowd sync.WaitGroup
	for range 50 {
		crowd.Go(func() {
			if first, err := m.EndOnce(t.Context(), cut, "jti/p/1", until); err != nil {
				t.Error(err)
			} else if first {
				n.Add(1)
			}
		})
	}
	crowd.Wait()
	if n.Load() != 1 || !m.Ended(*s) {
		t.Errorf("%d were first; over: %v", n.Load(), m.Ended(*s))
	}
	c.Advance(time.Second)
	later := begun("b", c)
	later.Identity = who
	cut.Before = later.SignedIn
	if first, err := m.EndOnce(t.Context(), cut, "jti/p/1", until); first || err != nil || m.Ended(*later) {
		t.Errorf("used again: %v %v, over: %v", first, err, m.Ended(*later))
	}
	m.room = 1
	if first, err := m.EndOnce(t.Context(), cut, "jti/p/2", until); first || !errors.Is(err, ErrFull) ||
		!m.Ended(*later) {
		t.Errorf("without room to remember it: %v %v, over: %v", first, err, m.Ended(*later))
	}
}
