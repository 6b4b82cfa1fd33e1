package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store"
)

func entryOf(s session.Session) session.Entry {
	s.Expires = s.SignedIn.Add(12 * time.Hour)
	return s.Entry("192.0.2.7", "Firefox on Linux")
}

// sids of a list, in its order.
func sids(t *testing.T, s *store.Store, which session.Which) (list []string) {
	t.Helper()
	entries, err := s.Sessions(t.Context(), which)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.SID)
	}
	return list
}

func lists(t *testing.T, s *store.Store, who session.Session) bool {
	t.Helper()
	return slices.Contains(sids(t, s, session.Which{Person: who.Identity.ID()}), who.SID())
}

func listed(t *testing.T, d Database) {
	a, b := d.Open(t, store.Options{}), d.Open(t, store.Options{})
	s, other := person("ann"), person("bob")
	s.Identity.Orgs = []identity.Org{s.Identity.Org, {ID: `odd "%_!\' org`}, {ID: "beta"}}
	want := entryOf(s)
	a.NoteSignIn(want)
	if !lists(t, a, s) {
		t.Error("where somebody signed in the list has it at once")
	}
	a.NoteSignIn(entryOf(other))
	testenv.Within(t, soon, "the other replica lists it", func() bool { return lists(t, b, s) && lists(t, b, other) })
	got, err := b.Sessions(t.Context(), session.Which{Person: s.Identity.ID()})
	if err != nil || len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	for org, n := range map[string]int{s.Identity.Org.ID: 1, `odd "%_!\' org`: 1, "beta": 1, "bet": 0, "BETA": 0,
		"%": 0, "": 2} {
		if got := sids(t, b, session.Which{Org: org}); len(got) != n {
			t.Errorf("of organization %q: %d, want %d", org, len(got), n)
		}
	}
	if got := sids(t, b, session.Which{Person: other.Identity.ID(), Org: "beta"}); len(got) != 0 {
		t.Errorf("a member of another organization: %v", got)
	}
	if !lists(t, d.Open(t, store.Options{}), s) {
		t.Error("a restart lost it")
	}
	// What no database can keep as it is must not keep others off the list.
	odd := person("odd\x00\xff")
	a.NoteSignIn(entryOf(odd))
	last := person("last")
	a.NoteSignIn(entryOf(last))
	a.NoteSignIn(session.Entry{SID: "none", Until: time.Now().Add(time.Hour)})
	testenv.Within(t, soon, "who came after an odd name is listed", func() bool { return lists(t, b, last) })
}

func listLacksEnded(t *testing.T, d Database) {
	a, b := d.Open(t, store.Options{}), d.Open(t, store.Options{})
	now, until := time.Now(), time.Now().Add(12*time.Hour)
	for name, cut := range map[string]func(s session.Session) session.Cut{
		"sign-in": cutOf,
		"sid":     func(s session.Session) session.Cut { return session.Cut{SID: s.SID(), Until: until} },
		"line of the list": func(s session.Session) session.Cut {
			e := entryOf(s)
			return e.Cut(now)
		},
		"provider session": func(s session.Session) session.Cut {
			return session.Cut{Provider: "p", ProviderSID: s.Identity.ProviderSID, Before: now, Until: until}
		},
		"person": func(s session.Session) session.Cut {
			return session.Cut{Person: s.Identity.ID(), Before: now, Until: until}
		},
		"organization": func(s session.Session) session.Cut {
			return session.Cut{Org: s.Identity.Org.ID, Before: now, Until: until}
		},
		"organization that was not active": func(s session.Session) session.Cut {
			return session.Cut{Org: s.Identity.Orgs[0].ID, Before: now, Until: until}
		},
	} {
		s, other := person(name), person(name+" other")
		s.Identity.Orgs = []identity.Org{{ID: "passive " + name}, s.Identity.Org}
		a.NoteSignIn(entryOf(s))
		a.NoteSignIn(entryOf(other))
		testenv.Within(t, soon, name+": both are listed", func() bool { return lists(t, b, s) && lists(t, b, other) })
		switched := session.Cut{Root: s.Root, Below: 1, Person: s.Identity.ID(), Before: s.SignedIn, Until: until}
		if first, err := a.Supersede(t.Context(), switched); !first || err != nil {
			t.Fatal(first, err)
		}
		time.Sleep(400 * time.Millisecond) // until b may know
		if !lists(t, a, s) || !lists(t, b, s) {
			t.Errorf("%s: to switch the organization took the sign-in off the list", name)
		}
		end(t, b, cut(s))
		if lists(t, b, s) || !b.Ended(s) {
			t.Errorf("%s: listed where it ended; ended %v", name, b.Ended(s))
		}
		testenv.Within(t, soon, name+": no replica lists it", func() bool { return !lists(t, a, s) && a.Ended(s) })
		if !lists(t, a, other) || a.Ended(other) {
			t.Errorf("%s: somebody else is gone too", name)
		}
		a.NoteSignIn(entryOf(s)) // a row that had waited
		testenv.Within(t, soon, name+": it is not on the list again",
			func() bool { return !lists(t, a, s) && !lists(t, b, s) })
	}
	everybody := person("everybody")
	a.NoteSignIn(entryOf(everybody))
	end(t, b, session.Cut{Before: now, Until: until})
	testenv.Within(t, soon, "nobody is listed", func() bool { return len(sids(t, a, session.Which{})) == 0 })
	for _, malformed := range []string{"x", "AAAAAAAAAAAAAAAAAAAAAA=", "AAAAAAAAAAAAAAAAAAAAA!",
		"AAAAAAAAAAAAAAAAAAAAAB", "AAAA\nAAAAAAAAAAAAAAAAAA"} {
		if err := a.End(t.Context(), session.Cut{SID: malformed, Until: until}); !errors.Is(err, session.ErrCut) {
			t.Errorf("sid %q: %v", malformed, err)
		}
	}
}

func listBounded(t *testing.T, d Database) {
	a, b := d.Open(t, store.Options{}), d.Open(t, store.Options{})
	busy := person("busy")
	var want []string
	for i := range 130 {
		s := busy
		s.Root, s.SignedIn = fmt.Sprint(busy.Root, i), busy.SignedIn.Add(time.Duration(i)*time.Millisecond)
		a.NoteSignIn(entryOf(s))
		want = append(want, s.SID())
	}
	slices.Reverse(want)
	who := session.Which{Person: busy.Identity.ID()}
	if got := sids(t, a, who); !slices.Equal(got, want[:50]) { // some may still wait
		t.Errorf("where they began: %d, want the newest 50", len(got))
	}
	who.Most = 1000
	testenv.Within(t, soon, "all are written", func() bool { return len(sids(t, b, who)) == 130 })
	if got := sids(t, b, who); !slices.Equal(got, want) {
		t.Errorf("not the newest first: %v", got)
	}
	// The newest have ended by a cut that the rows do not tell of.
	d.Exec(t, `update sallyport_sessions set sid = 'gone' where since_ms >= `+
		fmt.Sprint(busy.SignedIn.Add(10*time.Millisecond).UnixMilli()))
	end(t, a, session.Cut{Provider: "p", ProviderSID: "gone", Before: time.Now(), Until: time.Now().Add(time.Hour)})
	who.Most = 5
	testenv.Within(t, soon, "the newest that have not ended",
		func() bool { return slices.Equal(sids(t, b, who), want[120:125]) })
}

func listPruned(t *testing.T, d Database) {
	a := d.Open(t, store.Options{})
	short, lasting := entryOf(person("short")), person("lasting")
	a.NoteSignIn(short)
	a.NoteSignIn(entryOf(lasting))
	if err := a.Close(); err != nil { // what waited is written
		t.Fatal(err)
	}
	d.Exec(t, fmt.Sprintf(`update sallyport_sessions set until_ms = %d where person = '%s'`,
		time.Now().Add(-5*time.Minute).UnixMilli(), short.Person))
	b := d.Open(t, store.Options{}) // begins with tidying
	if got := sids(t, b, session.Which{}); len(got) != 1 || got[0] != lasting.SID() {
		t.Errorf("listed: %v", got)
	}
	time.Sleep(time.Second)
	d.Exec(t, fmt.Sprintf(`update sallyport_sessions set until_ms = %d`, time.Now().Add(time.Hour).UnixMilli()))
	if got := sids(t, b, session.Which{}); len(got) != 1 {
		t.Errorf("%d rows are kept", len(got))
	}
}

// listRefused has the database refuse one sign-in for good. What waits behind it is written all
// the same: the others, that the replica is there, and what is to be deleted.
func listRefused(t *testing.T, d Database) {
	if err := d.Open(t, store.Options{}).Close(); err != nil { // makes the tables
		t.Fatal(err)
	}
	d.Exec(t, `alter table sallyport_sessions add column of_operator text check (person <> 'p:person-refused')`)
	d.Exec(t, `insert into sallyport_once (value, until_ms) values ('over', 1)`)
	a := d.Open(t, store.Options{Absolute: time.Hour})
	before, refused, after := person("before"), person("refused"), person("after")
	for _, s := range []session.Session{before, refused, refused, after} {
		a.NoteSignIn(entryOf(s))
	}
	testenv.Within(t, soon, "the others are written", func() bool {
		return d.Number(t, `select count(*) from sallyport_sessions`) == 2
	})
	testenv.Within(t, soon, "the replica is known", func() bool {
		return d.Number(t, `select count(*) from sallyport_replicas`) == 1
	})
	testenv.Within(t, soon, "what is over is deleted", func() bool {
		return d.Number(t, `select count(*) from sallyport_once`) == 0
	})
	if lists(t, a, refused) || !lists(t, a, after) || a.Dropped() != 2 || !a.Writable() {
		t.Errorf("the refused one is listed (%t), the other is not (%t), %d are said to be missing, writable: %t",
			lists(t, a, refused), !lists(t, a, after), a.Dropped(), a.Writable())
	}
}

func listFull(t *testing.T, d Database) {
	a := d.Open(t, store.Options{})
	before := person("before")
	a.NoteSignIn(entryOf(before))
	d.Exec(t, `alter table sallyport_sessions rename to sallyport_sessions_away`)
	for i := range 1200 {
		a.NoteSignIn(entryOf(person(i)))
	}
	if n := a.Dropped(); n < 200 || n > 201 {
		t.Errorf("%d were dropped", n)
	}
	if _, err := a.Sessions(t.Context(), session.Which{}); !errors.Is(err, session.ErrStore) {
		t.Errorf("a list that cannot be read: %v", err)
	}
	if first, err := a.Consume(t.Context(), "test/meanwhile", time.Now().Add(time.Hour)); !first || err != nil {
		t.Errorf("a list that fails keeps others from writing: %v %v", first, err)
	}
	d.Exec(t, `alter table sallyport_sessions_away rename to sallyport_sessions`)
	testenv.Eventually(t, "the rest is written", func() bool {
		time.Sleep(100 * time.Millisecond)
		return d.Number(t, `select count(*) from sallyport_sessions`) >= 1000
	})
}

// keptForTheLongest has a sign-out everywhere outlast every session that it ends.
func keptForTheLongest(t *testing.T, d Database) {
	until := func(kind session.Kind) time.Duration {
		t.Helper()
		last := d.Number(t, fmt.Sprintf(`select max(until_ms) from sallyport_ended where kind = %d`, kind))
		return time.Until(time.UnixMilli(last))
	}
	near := func(what string, got, want time.Duration) {
		t.Helper()
		if (got - want).Abs() > time.Minute {
			t.Errorf("%s: kept for %s, want %s", what, got, want)
		}
	}
	const margin = 2 * time.Minute
	long := d.Open(t, store.Options{Absolute: 100 * time.Hour, Version: "1"})
	short := d.Open(t, store.Options{Absolute: time.Hour, Version: "1"})
	replicas := func() int64 { return d.Number(t, `select count(*) from sallyport_replicas`) }
	testenv.Within(t, soon, "both say that they are there", func() bool { return replicas() == 2 })
	who := person("1")
	cut := session.Cut{Person: who.Identity.ID(), Before: time.Now(), Until: time.Now().Add(time.Minute)}
	end(t, short, cut)
	near("another replica's timeout", until(session.KindPerson), 100*time.Hour+margin)
	near("a sign-in by its sid, which lasts as long as it says", func() time.Duration {
		end(t, short, session.Cut{SID: who.SID(), Until: time.Now().Add(3 * time.Hour)})
		return until(session.KindRoot)
	}(), 3*time.Hour)
	// One that has stopped counts while its cookies could come back.
	if err := long.Close(); err != nil {
		t.Fatal(err)
	}
	d.Exec(t, fmt.Sprintf(`update sallyport_replicas set seen_ms = %d where absolute_s = 360000`,
		time.Now().Add(-90*time.Hour).UnixMilli()))
	end(t, short, session.Cut{Org: "o", Before: time.Now(), Until: time.Now().Add(time.Minute)})
	near("one that stopped 90 hours ago", until(session.KindOrg), 100*time.Hour+margin)
	d.Exec(t, fmt.Sprintf(`update sallyport_replicas set seen_ms = %d where absolute_s = 360000`,
		time.Now().Add(-101*time.Hour).UnixMilli()))
	end(t, short, session.Cut{Provider: "p", ProviderSID: "s", Before: time.Now(), Until: time.Now().Add(time.Minute)})
	near("one whose sessions are all over", until(session.KindSID), time.Hour+margin)
	// A timeout that becomes shorter goes on to count; both become one row when the
	// longer one is over.
	short.SetAbsolute(30 * time.Minute)
	testenv.Within(t, soon, "the row of before, with the timeout of before, is still there", func() bool {
		return d.Number(t, `select count(*) from sallyport_replicas where absolute_s in (3600, 1800)`) == 2
	})
	testenv.Within(t, soon, "the row that says nothing any more is gone", func() bool { return replicas() == 2 })
	late := d.Open(t, store.Options{Absolute: 30 * time.Minute})
	near("until, after the timeout became shorter", time.Until(late.Until(time.Now())), time.Hour+margin)
}

func briefly(t *testing.T, d Database) {
	running := d.Open(t, store.Options{Absolute: 100 * time.Hour})
	s, other := person("ann"), person("bob")
	running.NoteSignIn(entryOf(s))
	running.NoteSignIn(entryOf(other))
	gone := person("gone")
	end(t, running, cutOf(gone))
	testenv.Within(t, soon, "it is there",
		func() bool { return d.Number(t, `select count(*) from sallyport_replicas`) == 1 })
	command, err := d.TryOpen(store.Options{Brief: true})
	if err != nil {
		t.Fatal(err)
	}
	testenv.Within(t, soon, "a command lists them", func() bool {
		return lists(t, command, s) &&
			lists(t, command, other)
	})
	if until := time.Until(command.Until(time.Now())); until < 100*time.Hour {
		t.Errorf("a command knows the replicas' timeouts: %s", until)
	}
	end(t, command, session.Cut{Person: s.Identity.ID(), Before: time.Now(), Until: command.Until(time.Now())})
	if lists(t, command, s) || !lists(t, command, other) {
		t.Error("a command that ended somebody lists them, or nobody else any more")
	}
	if err := command.Close(); err != nil {
		t.Fatal(err)
	}
	testenv.Within(t, soon, "the running process knows", func() bool {
		return running.Ended(s) &&
			!running.Ended(other)
	})
	if n := d.Number(t, `select count(*) from sallyport_replicas`); n != 1 {
		t.Errorf("%d replicas: a command is none", n)
	}
}

func makesNothing(t *testing.T, d Database) {
	if s, err := d.TryOpen(store.Options{Brief: true}); !errors.Is(err, store.ErrNoTables) {
		t.Errorf("an empty database: %v", err)
		if err == nil {
			_ = s.Close()
		}
	}
	if err := d.Open(t, store.Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	d.Exec(t, `update sallyport_meta set value = '1' where key = 'schema'`)
	if s, err := d.TryOpen(store.Options{Brief: true}); !errors.Is(err, store.ErrNoTables) {
		t.Errorf("tables of an older version: %v", err)
		if err == nil {
			_ = s.Close()
		}
	}
}

// laterTables are those of schema 3 to 5.
var laterTables = []string{"sallyport_grants", "sallyport_grant_consents", "sallyport_grant_refreshes",
	"sallyport_grant_notices", "sallyport_orgs"}

// migrated has the tables be those of schema 2, and then of schema 1, with a row in them.
func migrated(t *testing.T, d Database) {
	a := d.Open(t, store.Options{})
	s := person("1")
	end(t, a, cutOf(s))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for _, table := range laterTables {
		d.Exec(t, `drop table `+table)
	}
	d.Exec(t, `update sallyport_meta set value = '2' where key = 'schema'`)
	if a = d.Open(t, store.Options{}); !a.Ended(s) {
		t.Error("the rows of schema 2 are lost")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for _, table := range laterTables {
		d.Exec(t, `drop table `+table)
	}
	for _, statement := range []string{`drop table sallyport_sessions`, `drop table sallyport_replicas`,
		`update sallyport_meta set value = '1' where key = 'schema'`} {
		d.Exec(t, statement)
	}
	b := d.Open(t, store.Options{})
	if !b.Ended(s) {
		t.Error("the rows of before are lost")
	}
	b.NoteSignIn(entryOf(person("2")))
	testenv.Within(t, soon, "the new table is written",
		func() bool { return d.Number(t, `select count(*) from sallyport_sessions`) == 1 })
	if n := d.Number(t, `select count(*) from sallyport_meta where key = 'readable_by' and value = '1'`); n != 1 {
		t.Error("the version before may go on to run")
	}
	testenv.Check(t, b.KeepOrg(t.Context(), detailsOf("google:acme")))
}

// freshWhileAWriteHangs has one write after the other hang, and all that wait: the
// views of this replica and of another one go on all the same.
func freshWhileAWriteHangs(t *testing.T, a, b *store.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			cut := cutOf(person(fmt.Sprint("hanging ", i)))
			cut.Until = time.Now().Add(time.Minute)
			for range 6 { // more than there are connections
				go func() { _, _ = a.Consume(ctx, "test/hangs", cut.Until) }()
			}
			if err := a.End(ctx, cut); err == nil {
				t.Error("it was written")
			}
			if err := ctx.Err(); err == nil {
				time.Sleep(20 * time.Millisecond)
			}
		}
	}()
	oldest := time.Duration(0)
	for began := time.Now(); time.Since(began) < 5*time.Second; time.Sleep(10 * time.Millisecond) {
		for name, r := range map[string]*store.Store{"where it hangs": a, "elsewhere": b} {
			age := time.Since(r.Fresh())
			if oldest = max(oldest, age); age > soon {
				t.Errorf("%s the view is %s old", name, age)
				began = time.Time{}
			}
		}
	}
	t.Logf("the oldest view while writes hung: %s", oldest.Round(time.Millisecond))
	cancel()
	<-done
}
