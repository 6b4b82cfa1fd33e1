// Package storetest is the suite that every kind of store must pass: what ends on one
// replica is over on all, what may be used once is used once, and while a store fails,
// nobody gets in who has signed out.
//
// Only tests link it. It breaks a database only in the ways that the tests of that database
// provide.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store"
)

// Database is a database for the suite.
type Database struct {
	// Open opens it as one more replica, and fails the test if it cannot.
	Open func(t *testing.T, o store.Options) *store.Store
	// TryOpen is Open, but returns the error.
	TryOpen func(o store.Options) (*store.Store, error)
	// Exec runs a statement without using a store.
	Exec func(t *testing.T, statement string)
	// Number runs a query for one number without using a store.
	Number func(t *testing.T, question string) int64
	// Faults are the ways to break it.
	Faults []Fault
}

// Fault is a way to break a database.
type Fault struct {
	Name string
	// Break breaks the database for the replicas that are open, and returns a function
	// that repairs it.
	Break func(t *testing.T) (heal func(t *testing.T))
	// Readable: the database can still be read.
	Readable bool
}

// soon is how long it may take until other replicas know.
const soon = 2 * time.Second

// Run runs the suite. fresh returns an empty database.
func Run(t *testing.T, fresh func(t *testing.T) Database) {
	for name, test := range map[string]func(*testing.T, Database){
		"what ends on one replica is over on the other":       endsEverywhere,
		"a restart forgets nothing":                           restart,
		"sessions of two managers":                            managers,
		"of many who supersede one is first":                  supersedeOnce,
		"of many who consume one is first":                    consumeOnce,
		"a message ends sessions once":                        endOnce,
		"one person's sign-ins become one cut":                signsOutOften,
		"one person's sessions at a provider become one cut":  leavesProviderOften,
		"too many cuts become one":                            tooMany,
		"what is over is deleted":                             pruned,
		"tables of a newer version are refused":               newer,
		"a row that cannot be read stops the view":            unreadable,
		"an older copy that is restored is read whole":        restored,
		"a caller's context bounds its call":                  bounded,
		"the view grows old where nobody can be reached":      func(t *testing.T, d Database) { faults(t, d, fresh) },
		"what was written is not written again":               func(t *testing.T, d Database) { repeats(t, d, fresh) },
		"replicas that open an empty database at once agree":  together,
		"tables of the version before are brought up to date": migrated,
		"the list has who is signed in, on all replicas":      listed,
		"the list leaves out what ended, however":             listLacksEnded,
		"the list is bounded, the newest first":               listBounded,
		"nobody on the list who is over":                      listPruned,
		"too many sign-ins that wait are left out":            listFull,
		"a sign-in that is refused holds up nothing":          listRefused,
		"cuts are kept for the longest timeout of all":        keptForTheLongest,
		"a command ends and lists beside replicas":            briefly,
		"a command makes nothing":                             makesNothing,
		"details of organizations are kept for all replicas":  keepsOrgs,
		"another customer of a domain takes over nothing":     otherCustomer,
		"of many who read an organization all keep the same":  orgsTogether,
	} {
		t.Run(name, func(t *testing.T) { test(t, fresh(t)) })
	}
}

func person(n any) session.Session {
	return session.Session{
		Root:     fmt.Sprintf("root-of-%v-%d", n, time.Now().UnixNano()),
		SignedIn: time.Now().Add(-time.Minute).Truncate(time.Millisecond),
		Identity: identity.Identity{Provider: "p", Subject: fmt.Sprint("person-", n),
			ProviderSID: fmt.Sprint("sid-", n), Org: identity.Org{ID: fmt.Sprint("org-", n)}},
	}
}

func cutOf(s session.Session) session.Cut {
	return session.Cut{Root: s.Root, Person: s.Identity.ID(), Before: s.SignedIn, Until: s.SignedIn.Add(12 * time.Hour)}
}

func end(t *testing.T, s *store.Store, c session.Cut) {
	t.Helper()
	if err := s.End(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func endsEverywhere(t *testing.T, d Database) {
	a, b := d.Open(t, store.Options{}), d.Open(t, store.Options{})
	now := time.Now()
	until := now.Add(12 * time.Hour)
	for name, cut := range map[string]func(s session.Session) session.Cut{
		"sign-in": cutOf,
		"provider session": func(s session.Session) session.Cut {
			return session.Cut{Provider: "p", ProviderSID: s.Identity.ProviderSID, Before: now, Until: until}
		},
		"provider session of a person": func(s session.Session) session.Cut {
			return session.Cut{Provider: "p", ProviderSID: s.Identity.ProviderSID, Person: s.Identity.ID(), Before: now,
				Until: until}
		},
		"person": func(s session.Session) session.Cut {
			return session.Cut{Person: s.Identity.ID(), Before: now, Until: until}
		},
		"organization": func(s session.Session) session.Cut {
			return session.Cut{Org: s.Identity.Org.ID, Before: now, Until: until}
		},
	} {
		s, other := person(name), person(name+" other")
		if a.Ended(s) || b.Ended(s) {
			t.Fatalf("%s: over before it ended", name)
		}
		end(t, a, cut(s))
		began := time.Now()
		if !a.Ended(s) {
			t.Errorf("%s: not over where it ended", name)
		}
		testenv.Within(t, soon, name+" is over on the other replica", func() bool { return b.Ended(s) })
		t.Logf("%s: the other replica knew after %s", name, time.Since(began).Round(time.Millisecond))
		if a.Ended(other) || b.Ended(other) {
			t.Errorf("%s: somebody else is over too", name)
		}
		if s.Root = "signed in again"; name != "sign-in" &&
			(!b.Ended(s) || b.Earliest(s).Sub(now.Truncate(time.Millisecond)) != time.Millisecond) {
			t.Errorf("%s: others of theirs: over %v, again from %s", name, b.Ended(s), b.Earliest(s))
		}
	}
	everybody := person("everybody")
	end(t, b, session.Cut{Before: now, Until: until})
	testenv.Within(t, soon, "everybody is over", func() bool { return a.Ended(everybody) })
	if everybody.SignedIn = now.Add(time.Second); a.Ended(everybody) || b.Ended(everybody) {
		t.Error("who signs in afterwards is over too")
	}
	// Everybody is over before the others are dropped, not after.
	testenv.Within(t, soon, "the cuts that one covers are dropped", func() bool { return a.Len(session.KindRoot) == 0 })
}

func restart(t *testing.T, d Database) {
	a := d.Open(t, store.Options{})
	s := person(1)
	end(t, a, cutOf(s))
	if first, err := a.Consume(t.Context(), "test/1", time.Now().Add(time.Hour)); !first || err != nil {
		t.Fatal(first, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.End(t.Context(), cutOf(person(2))); !errors.Is(err, session.ErrStore) {
		t.Errorf("a closed store: %v", err)
	}
	b := d.Open(t, store.Options{})
	if !b.Ended(s) {
		t.Error("forgot who signed out")
	}
	if first, err := b.Consume(t.Context(), "test/1", time.Now().Add(time.Hour)); first || err != nil {
		t.Errorf("forgot what was consumed: %v %v", first, err)
	}
	if age := time.Since(b.Fresh()); age > soon {
		t.Errorf("the view is %s old", age)
	}
}

func managers(t *testing.T, d Database) {
	ring, err := session.NewKeyring([]session.Key{session.NewKey(time.Now().Add(-time.Hour))})
	if err != nil {
		t.Fatal(err)
	}
	manager := func() *session.Manager {
		m, err := session.New(session.Options{Keys: ring, Secure: true, AbsoluteTimeout: time.Hour,
			IdleTimeout: time.Hour, Ended: d.Open(t, store.Options{})})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	a, b := manager(), manager()
	s := a.Start(person("m").Identity)
	next, err := a.Switch(t.Context(), httptest.NewRecorder(), "h", s, s.Identity)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Within(t, soon, "the old session is over, the next one is not",
		func() bool { return b.HasEnded(&s) && !b.HasEnded(&next) })
	if _, err := b.Switch(t.Context(), httptest.NewRecorder(), "h", s, s.Identity); !errors.Is(err, session.ErrEnded) {
		t.Errorf("switched twice: %v", err)
	}
	if err := b.SignOut(t.Context(), httptest.NewRecorder(), s); err != nil {
		t.Fatal(err)
	}
	testenv.Within(t, soon, "the sign-in is over", func() bool { return a.HasEnded(&next) })

	// A sign-in that is on its way when its person is signed out elsewhere ends with the
	// others; one that begins afterwards does not.
	began := b.Beginning()
	time.Sleep(5 * time.Millisecond) // the sign-out has a later moment
	if err := a.EndPerson(t.Context(), &next); err != nil {
		t.Fatal(err)
	}
	before, _ := b.StartFrom(began, next.Identity)
	after, err := a.StartFrom(a.Beginning(), next.Identity)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Within(t, soon, "what began before it is over", func() bool { return b.HasEnded(&before) })
	if _, err := b.StartFrom(began, next.Identity); !errors.Is(err, session.ErrEnded) {
		t.Errorf("what the replica knows by now does not end it: %v", err)
	}
	if a.HasEnded(&after) || b.HasEnded(&after) {
		t.Error("what began after it is over too")
	}
}

func supersedeOnce(t *testing.T, d Database) {
	replicas := []*store.Store{d.Open(t, store.Options{}), d.Open(t, store.Options{})}
	for round := range 5 {
		s := person(round)
		cut := cutOf(s)
		cut.Below = uint64(round) + 1
		if n := firsts(t, replicas,
			func(r *store.Store) (bool, error) { return r.Supersede(t.Context(), cut) }); n != 1 {
			t.Errorf("round %d: %d were first", round, n)
		}
		if cut.Below++; round%2 == 1 {
			cut.Below = 0 // a sign-out
		}
		if first, err := replicas[1].Supersede(t.Context(), cut); !first || err != nil {
			t.Errorf("round %d: what follows: %v %v", round, first, err)
		}
	}
}

func consumeOnce(t *testing.T, d Database) {
	replicas := []*store.Store{d.Open(t, store.Options{}), d.Open(t, store.Options{})}
	for i := range 10 {
		if n := firsts(t, replicas, func(r *store.Store) (bool, error) {
			return r.Consume(t.Context(), fmt.Sprint("test/", i), time.Now().Add(time.Hour))
		}); n != 1 {
			t.Errorf("%d were first", n)
		}
	}
}

// endOnce: of many replicas that get a message one is first. The others end nothing.
func endOnce(t *testing.T, d Database) {
	a, b := d.Open(t, store.Options{}), d.Open(t, store.Options{})
	of, until := person("message"), time.Now().Add(time.Hour)
	cut := session.Cut{Person: of.Identity.ID(), Before: of.SignedIn, Until: until}
	if n := firsts(t, []*store.Store{a, b}, func(r *store.Store) (bool, error) {
		return r.EndOnce(t.Context(), cut, "jti/p/1", until)
	}); n != 1 {
		t.Errorf("%d were first", n)
	}
	testenv.Within(t, soon, "both replicas know", func() bool { return a.Ended(of) && b.Ended(of) })
	later := of
	later.SignedIn = of.SignedIn.Add(time.Second)
	cut.Before = later.SignedIn
	for _, replica := range []*store.Store{a, b} {
		if first, err := replica.EndOnce(t.Context(), cut, "jti/p/1", until); first || err != nil {
			t.Errorf("the same message again: %v %v", first, err)
		}
		if first, err := replica.Consume(t.Context(), "jti/p/1", until); first || err != nil {
			t.Errorf("its value again: %v %v", first, err)
		}
	}
	if a.Ended(later) || b.Ended(later) {
		t.Error("a message that was used ended another session")
	}
	if first, err := b.EndOnce(t.Context(), cut, "jti/p/2", until); !first || err != nil || !b.Ended(later) {
		t.Errorf("the next message: %v %v, over: %v", first, err, b.Ended(later))
	}
	if first, err := a.EndOnce(t.Context(), session.Cut{}, "jti/p/3", until); first || !errors.Is(err, session.ErrCut) {
		t.Errorf("a cut of nothing: %v %v", first, err)
	}
	if first, err := a.Consume(t.Context(), "jti/p/3", until); !first || err != nil {
		t.Errorf("the message with it was used up: %v %v", first, err)
	}
}

func firsts(t *testing.T, replicas []*store.Store, ask func(*store.Store) (bool, error)) int {
	var n atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			first, err := ask(replicas[i%len(replicas)])
			if err != nil {
				t.Error(err)
			}
			if first {
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return int(n.Load())
}

func signsOutOften(t *testing.T, d Database) {
	onePerson(t, d, session.KindRoot, func(r *store.Store, s session.Session) error {
		return r.End(t.Context(), cutOf(s))
	})
}

// leavesProviderOften: the provider says so each time.
func leavesProviderOften(t *testing.T, d Database) {
	onePerson(t, d, session.KindSID, func(r *store.Store, s session.Session) error {
		id := &s.Identity
		c := session.Cut{Provider: id.Provider, ProviderSID: id.ProviderSID, Person: id.ID(), Before: s.SignedIn,
			Until: s.SignedIn.Add(12 * time.Hour)}
		first, err := r.EndOnce(t.Context(), c, "jti/p/"+id.ProviderSID, c.Until)
		if err == nil && !first {
			err = errors.New("it was used before")
		}
		return err
	})
}

// onePerson ends many sessions of one person, whose cuts are of a kind.
func onePerson(t *testing.T, d Database, kind session.Kind, ends func(*store.Store, session.Session) error) {
	var mu sync.Mutex
	var merges []session.Merge
	o := store.Options{Merged: func(m session.Merge) { mu.Lock(); defer mu.Unlock(); merges = append(merges, m) }}
	a, b := d.Open(t, o), d.Open(t, o)
	bystander, busy := person("bystander"), person("busy")
	var all []session.Session
	for i := range 250 {
		s := busy
		s.Root, s.SignedIn = fmt.Sprint("busy-", i), busy.SignedIn.Add(time.Duration(i)*time.Millisecond)
		s.Identity.ProviderSID = fmt.Sprint("sid-busy-", i)
		all = append(all, s)
		testenv.Check(t, ends([]*store.Store{a, b}[i%2], s))
	}
	for _, r := range []*store.Store{a, b, d.Open(t, store.Options{})} {
		for i, s := range all {
			testenv.Within(t, soon, fmt.Sprint("over: ", i), func() bool { return r.Ended(s) })
		}
		if busy.SignedIn = busy.SignedIn.Add(time.Second); r.Ended(bystander) || r.Ended(busy) {
			t.Error("somebody else, or a later sign-in, is over")
		}
		testenv.Within(t, soon, "few cuts are left",
			func() bool { return r.Len(kind) <= session.CrowdMax+1 })
	}
	mu.Lock()
	defer mu.Unlock()
	if len(merges) == 0 || merges[0].Person != "p:person-busy" {
		t.Errorf("merges: %+v", merges)
	}
}

func tooMany(t *testing.T, d Database) {
	const most = 200
	var merges atomic.Int32
	o := store.Options{Max: most, Merged: func(m session.Merge) {
		if m.Person != "" {
			t.Errorf("merged: %+v", m)
		}
		merges.Add(1)
	}}
	a, b := d.Open(t, o), d.Open(t, o)
	began := time.Now().Add(-time.Minute)
	var all []session.Session
	for i := range 3 * most {
		s := person(i)
		s.SignedIn = began.Add(time.Duration(i) * time.Millisecond)
		all = append(all, s)
		end(t, []*store.Store{a, b}[i%2], cutOf(s))
		if a.Len(session.KindRoot) > 2*most {
			t.Fatalf("%d cuts are kept", a.Len(session.KindRoot))
		}
	}
	testenv.Within(t, 10*time.Second, "there is room", func() bool {
		return merges.Load() > 0 && a.Len(session.KindRoot) < most && b.Len(session.KindRoot) < most
	})
	late := d.Open(t, store.Options{})
	for _, r := range []*store.Store{a, b, late} {
		for i, s := range all {
			testenv.Within(t, soon, fmt.Sprintf("the %dth is over", i), func() bool { return r.Ended(s) })
		}
		if s := person("later"); func() bool { s.SignedIn = time.Now(); return r.Ended(s) }() {
			t.Error("who signs in afterwards is over")
		}
	}
	if late.Len(session.KindRoot) > most+most/2 { // what was written while it was merged is left
		t.Errorf("%d cuts are left", late.Len(session.KindRoot))
	}
}

func pruned(t *testing.T, d Database) {
	a := d.Open(t, store.Options{})
	short, lasting := cutOf(person("short")), person("lasting")
	short.Until = time.Now().Add(-5 * time.Minute)
	end(t, a, short)
	end(t, a, cutOf(lasting))
	if _, err := a.Consume(t.Context(), "test/short", short.Until); err != nil {
		t.Fatal(err)
	}
	b := d.Open(t, store.Options{}) // begins with tidying
	testenv.Within(t, soon, "it is forgotten", func() bool { return b.Len(session.KindRoot) == 1 })
	if !b.Ended(lasting) {
		t.Error("forgot another one")
	}
	testenv.Within(t, soon, "what was consumed long ago takes no room", func() bool {
		return d.Number(t, `select count(*) from sallyport_once`) == 0
	})
	if late := d.Open(t, store.Options{}); late.Len(session.KindRoot) != 1 || !late.Ended(lasting) {
		t.Errorf("%d are kept", late.Len(session.KindRoot))
	}
}

func newer(t *testing.T, d Database) {
	if err := d.Open(t, store.Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	d.Exec(t, `update sallyport_meta set value = '97' where key = 'schema'`)
	if err := d.Open(t, store.Options{}).Close(); err != nil { // readable_by says that this version can read it
		t.Fatal(err)
	}
	d.Exec(t, `update sallyport_meta set value = '96' where key = 'readable_by'`)
	s, err := d.TryOpen(store.Options{})
	if !errors.Is(err, store.ErrNewer) {
		t.Errorf("opened: %v", err)
	}
	if s != nil {
		_ = s.Close()
	}
}

func unreadable(t *testing.T, d Database) {
	a := d.Open(t, store.Options{})
	s := person(1)
	end(t, a, cutOf(s))
	d.Exec(t, `update sallyport_ended set kind = 9, seq = seq + 100`)
	time.Sleep(time.Second)
	fresh := a.Fresh()
	time.Sleep(time.Second)
	if !a.Fresh().Equal(fresh) || !a.Ended(s) {
		t.Errorf("what it cannot read counts as nothing; ended %v", a.Ended(s))
	}
	d.Exec(t, `delete from sallyport_ended`)
	testenv.Within(t, soon, "the view is fresh again", func() bool { return a.Fresh().After(fresh) })
}

// restored deletes all rows and adds one with the key of the first, as if an old backup had
// been restored.
func restored(t *testing.T, d Database) {
	a, b := d.Open(t, store.Options{}), d.Open(t, store.Options{})
	for i := range 20 {
		end(t, a, cutOf(person(i)))
	}
	s := person("last")
	end(t, a, cutOf(s))
	testenv.Within(t, soon, "the other replica knows", func() bool { return b.Ended(s) })
	d.Exec(t, `delete from sallyport_ended`)
	d.Exec(t, ResetKeys)
	fresh := person("of the backup")
	end(t, a, cutOf(fresh))
	testenv.Within(t, 6*time.Second, "the other replica reads it", func() bool { return b.Ended(fresh) })
	if !a.Ended(s) || !b.Ended(s) {
		t.Error("what had ended came back")
	}
}

// ResetKeys stands for the database's own statement with which keys begin at 1 again.
const ResetKeys = "reset keys"

func bounded(t *testing.T, d Database) {
	a := d.Open(t, store.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := person(1)
	if err := a.End(ctx, cutOf(s)); !errors.Is(err, session.ErrStore) || !errors.Is(err, context.Canceled) ||
		!a.Ended(s) {
		t.Errorf("a caller who left: %v, ended %v", err, a.Ended(s))
	}
	if first, err := a.Consume(ctx, "test/x", time.Now().Add(time.Hour)); first || !errors.Is(err, session.ErrStore) {
		t.Errorf("consume: %v %v", first, err)
	}
	late := d.Open(t, store.Options{})
	testenv.Within(t, soon, "it is written all the same", func() bool { return late.Ended(s) })
}

func together(t *testing.T, d Database) {
	var wg sync.WaitGroup
	replicas := make([]*store.Store, 4)
	for i := range replicas {
		wg.Go(func() {
			var err error
			if replicas[i], err = d.TryOpen(store.Options{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, r := range replicas {
		if r != nil {
			t.Cleanup(func() { _ = r.Close() })
			end(t, r, cutOf(person("x")))
		}
	}
}

// faults breaks a database in each way. No session that ended comes back, each call returns
// an error in time, and what could not be written is written later.
func faults(t *testing.T, d Database, fresh func(*testing.T) Database) {
	for i, fault := range d.Faults {
		t.Run(fault.Name, func(t *testing.T) {
			d := fresh(t)
			fault := d.Faults[i]
			a, b := d.Open(t, store.Options{Timeout: time.Second}), d.Open(t, store.Options{Timeout: time.Second})
			before, meanwhile := person("before"), person("meanwhile")
			end(t, a, cutOf(before))
			testenv.Within(t, soon, "the other replica knows", func() bool { return b.Ended(before) })
			listed, unlisted := person("listed"), person("unlisted")
			a.NoteSignIn(entryOf(listed))
			testenv.Within(t, soon, "the sign-in is on the list", func() bool { return lists(t, b, listed) })
			heal := fault.Break(t)
			broken := time.Now()
			if fault.Readable {
				freshWhileAWriteHangs(t, a, b)
				broken = time.Now()
			}
			a.NoteSignIn(entryOf(unlisted))
			if took := time.Since(broken); took > 100*time.Millisecond {
				t.Errorf("a sign-in waited for the list: %s", took)
			}
			limited, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if err := a.End(limited, cutOf(meanwhile)); !errors.Is(err, session.ErrStore) {
				t.Errorf("end: %v", err)
			}
			if first, err := a.Consume(t.Context(), "test/1", time.Now().Add(time.Hour)); first ||
				!errors.Is(err, session.ErrStore) {
				t.Errorf("consume: %v %v", first, err)
			}
			cut := cutOf(person("switch"))
			cut.Below = 1
			if first, err := a.Supersede(t.Context(), cut); first || !errors.Is(err, session.ErrStore) {
				t.Errorf("supersede: %v %v", first, err)
			}
			told, once := person("told"), time.Now().Add(time.Hour)
			message := session.Cut{Person: told.Identity.ID(), Before: told.SignedIn, Until: once}
			if first, err := a.EndOnce(t.Context(), message, "jti/p/1", once); first ||
				!errors.Is(err, session.ErrStore) {
				t.Errorf("a message: %v %v", first, err)
			}
			if !a.Ended(told) {
				t.Error("whom a message signs out is not signed out here")
			}
			if took := time.Since(broken); took > 8*time.Second {
				t.Errorf("four calls took %s", took)
			}
			if !a.Ended(meanwhile) {
				t.Error("who signs out is not signed out here")
			}
			if err := a.KeepOrg(t.Context(), detailsOf("google:acme")); !errors.Is(err, session.ErrStore) {
				t.Errorf("details of an organization: %v", err)
			}
			_, had, err := a.OrgDetails(t.Context(), "google:acme")
			if had || fault.Readable != (err == nil) {
				t.Errorf("details of an organization are there: %v %v", had, err)
			}
			time.Sleep(1500 * time.Millisecond)
			stood := b.Fresh()
			if moved := func() bool { return b.Fresh().After(stood) }; fault.Readable {
				testenv.Within(t, soon, "the view moves on", moved)
			} else if time.Sleep(1200 * time.Millisecond); moved() {
				t.Error("the view moved on, though nobody can read")
			}
			if !a.Ended(before) || !b.Ended(before) {
				t.Error("who had signed out came back")
			}
			list, err := b.Sessions(t.Context(), session.Which{Person: listed.Identity.ID()})
			if fault.Readable && (err != nil || len(list) != 1) || !fault.Readable &&
				!errors.Is(err, session.ErrStore) {
				t.Errorf("the list: %v %v", list, err)
			}
			heal(t)
			testenv.Within(t, 15*time.Second, "the sign-in gets on the list", func() bool {
				list, err := b.Sessions(t.Context(), session.Which{Person: unlisted.Identity.ID()})
				return err == nil && len(list) == 1
			})
			testenv.Within(t, 15*time.Second, "the other replica learns what was to be written", func() bool {
				return b.Ended(meanwhile) && b.Ended(told)
			})
			testenv.Within(t, 5*time.Second, "the views are fresh again", func() bool {
				return time.Since(a.Fresh()) < soon && time.Since(b.Fresh()) < soon
			})
			if first, err := a.EndOnce(t.Context(), message, "jti/p/1", once); !first || err != nil {
				t.Errorf("the message that was sent again: %v %v", first, err)
			}
			if first, err := a.Consume(t.Context(), "test/2", time.Now().Add(time.Hour)); !first || err != nil {
				t.Errorf("consume afterwards: %v %v", first, err)
			}
		})
	}
}

// repeats has a database that can be read take no writes. What changes nothing any more begins
// none: whoever sends an old sign-out or hand-over again and again is in nobody's way.
func repeats(t *testing.T, d Database, fresh func(t *testing.T) Database) {
	for i, fault := range d.Faults {
		if !fault.Readable {
			continue
		}
		t.Run(fault.Name, func(t *testing.T) {
			d := fresh(t)
			a, b := d.Open(t, store.Options{Timeout: time.Second}), d.Open(t, store.Options{Timeout: time.Second})
			out, everywhere, failed := person("out"), person("everywhere"), person("failed")
			until := time.Now().Add(time.Hour)
			message := session.Cut{Person: person("told").Identity.ID(), Before: time.Now(), Until: until}
			end(t, a, cutOf(out))
			end(t, a, session.Cut{Person: everywhere.Identity.ID(), Before: everywhere.SignedIn,
				Until: time.Now().Add(24 * time.Hour)})
			use := func(want bool) {
				t.Helper()
				if first, err := a.Consume(t.Context(), "test/1", until); first != want || err != nil {
					t.Errorf("a hand-over: %t %v", first, err)
				}
				if first, err := a.EndOnce(t.Context(), message, "test/2", until); first != want || err != nil {
					t.Errorf("a message: %t %v", first, err)
				}
			}
			use(true)
			testenv.Within(t, soon, "the other replica knows",
				func() bool { return b.Ended(out) && b.Ended(everywhere) })

			defer d.Faults[i].Break(t)(t)
			use(false)
			for name, s := range map[string]*store.Store{"here": a, "elsewhere": b} {
				for what, who := range map[string]session.Session{"out": out, "out everywhere": everywhere} {
					if err := s.End(t.Context(), cutOf(who)); err != nil {
						t.Errorf("%s, who is signed %s signs out: %v", name, what, err)
					}
				}
			}
			for range 2 {
				if err := a.End(t.Context(), cutOf(failed)); !errors.Is(err, session.ErrStore) {
					t.Errorf("what is not written yet: %v", err)
				}
			}
		})
	}
}
