package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store"
	"github.com/sallyport-proxy/sallyport/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

func TestContract(t *testing.T) { storetest.Run(t, fresh(false)) }

// As through a pooler that keeps no session for LISTEN.
func TestContractWithoutNotifications(t *testing.T) { storetest.Run(t, fresh(true)) }

// fresh returns a new database, which replicas reach through a wire that can be cut.
func fresh(noNotify bool) func(t *testing.T) storetest.Database {
	return func(t *testing.T) storetest.Database {
		server := storetest.NeedServer(t)
		direct := server.Database(t)
		w := storetest.NewWire(t, server.Address)
		where := pretend(t, direct)
		open := func(o store.Options) (*store.Store, error) {
			return Open(t.Context(), strings.Replace(where.address, server.Address, w.Address(), 1),
				Options{Options: o, NoNotify: noNotify})
		}
		d := storetest.Database{TryOpen: open,
			Exec: func(t *testing.T, statement string) {
				t.Helper()
				if statement == storetest.ResetKeys {
					statement = `alter sequence sallyport_ended_seq_seq restart`
				}
				if _, err := raw(t, direct).Exec(statement); err != nil {
					t.Fatal(err)
				}
			},
			Number: func(t *testing.T, question string) (n int64) {
				t.Helper()
				if err := raw(t, direct).QueryRow(question).Scan(&n); err != nil {
					t.Fatal(err)
				}
				return n
			},
			Open: func(t *testing.T, o store.Options) *store.Store {
				t.Helper()
				s, err := open(o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = s.Close() })
				return s
			},
			Faults: []storetest.Fault{
				{Name: "the connection breaks and nobody listens", Break: func(*testing.T) func(*testing.T) {
					w.Set(storetest.Broken)
					return func(*testing.T) { w.Set(storetest.Passing) }
				}},
				{Name: "nothing arrives any more", Break: func(*testing.T) func(*testing.T) {
					w.Set(storetest.Hanging)
					return func(*testing.T) { w.Set(storetest.Passing) }
				}},
				{Name: "the server is killed", Break: func(t *testing.T) func(*testing.T) {
					server.Kill(t)
					return server.Start
				}},
				{Name: "it became read-only", Readable: true, Break: func(t *testing.T) func(*testing.T) {
					readOnly(t, direct, "on")
					return func(t *testing.T) { readOnly(t, direct, "off") }
				}},
				{Name: "a pooler leads its connections to a standby", Break: func(t *testing.T) func(*testing.T) {
					where.set(t, true, 1)
					readOnly(t, direct, "on")
					time.Sleep(pollInterval) // until it was looked once
					return func(t *testing.T) {
						readOnly(t, direct, "off")
						where.set(t, false, 1)
					}
				}},
				{Name: "another program holds the lock and hangs", Readable: true,
					Break: func(t *testing.T) func(*testing.T) {
						tx, err := raw(t, direct).Begin()
						if err != nil {
							t.Fatal(err)
						}
						if _, err := tx.Exec(`select pg_advisory_xact_lock($1)`, int64(lock)); err != nil {
							t.Fatal(err)
						}
						return func(*testing.T) { _ = tx.Rollback() }
					}},
				{Name: "another program has locked the tables", Readable: true,
					Break: func(t *testing.T) func(*testing.T) {
						tx, err := raw(t, direct).Begin()
						if err != nil {
							t.Fatal(err)
						}
						if _, err := tx.Exec(`lock table sallyport_ended, sallyport_once, sallyport_sessions, sallyport_orgs
							in exclusive mode`); err != nil {
							t.Fatal(err)
						}
						return func(*testing.T) { _ = tx.Rollback() }
					}},
			}}
		if noNotify { // they are broken with notifications already
			d.Faults = nil
		}
		return d
	}
}

// elsewhere is a database whose open connections lead to another server, as those of a pooler may:
// what PostgreSQL says of the server itself comes from a table there.
type elsewhere struct{ db, address string }

func pretend(t *testing.T, direct string) elsewhere {
	t.Helper()
	for _, statement := range []string{`create schema elsewhere`,
		`create table elsewhere.server (standby boolean not null, started timestamptz not null)`,
		`insert into elsewhere.server values (false, to_timestamp(1))`,
		`create function elsewhere.pg_is_in_recovery() returns boolean language sql as
			'select standby from elsewhere.server'`,
		`create function elsewhere.pg_postmaster_start_time() returns timestamptz language sql as
			'select started from elsewhere.server'`} {
		_, err := raw(t, direct).Exec(statement)
		testenv.Check(t, err)
	}
	return elsewhere{direct, direct + "&search_path=public,elsewhere,pg_catalog"}
}

func (e elsewhere) set(t *testing.T, standby bool, started int) {
	t.Helper()
	_, err := raw(t, e.db).Exec(`update elsewhere.server set standby = $1, started = to_timestamp($2::bigint)`, standby,
		started)
	testenv.Check(t, err)
}

// readOnly has all transactions of all connections refuse to write, as after a
// failover to a standby.
func readOnly(t *testing.T, address, value string) {
	t.Helper()
	db := raw(t, address)
	for _, statement := range []string{`alter system set default_transaction_read_only = ` + value,
		`select pg_reload_conf()`} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(500 * time.Millisecond) // until all connections have heard of it
}

func raw(t *testing.T, address string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", address+"&default_query_exec_mode=simple_protocol")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// The server's default may lose what was committed a moment ago; ours may not.
func TestWhatWasToldIsDurableWhateverTheDefault(t *testing.T) {
	server := storetest.NeedServer(t)
	direct := server.Database(t)
	for _, is := range []struct{ set, want string }{{"off", "on"}, {"local", "on"}, {"remote_apply", "remote_apply"}} {
		db, err := sql.Open("pgx", direct+"&synchronous_commit="+is.set)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := begin(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
		if err := tx.QueryRow(`show synchronous_commit`).Scan(&got); err != nil || got != is.want {
			t.Errorf("%s became %s: %v", is.set, got, err)
		}
		_ = tx.Rollback()
	}
}

// A server that is not there yet is waited for: until then nothing is known.
func TestAServerThatIsNotThereYet(t *testing.T) {
	server := storetest.NeedServer(t)
	w := storetest.NewWire(t, server.Address)
	w.Set(storetest.Broken)
	s, err := Open(t.Context(), strings.Replace(server.Database(t), server.Address, w.Address(), 1), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Fresh().IsZero() {
		t.Error("it is fresh")
	}
	w.Set(storetest.Passing)
	testenv.Within(t, 10*time.Second, "the database is found", func() bool { return !s.Fresh().IsZero() })
	if err := s.End(t.Context(), session.Cut{Root: "r", Before: time.Now(), Until: time.Now().Add(time.Hour)}); err != nil {
		t.Error(err)
	}
}

// Who holds the lock of those that write, and hangs, holds up these and nobody who asks: what
// is lent is asked for at every loan.
func TestP17_WhoHoldsTheLockHoldsUpNobodyWhoAsks(t *testing.T) {
	direct := storetest.NeedServer(t).Database(t)
	s, err := Open(t.Context(), direct, Options{})
	testenv.Check(t, err)
	defer s.Close()
	tx, err := raw(t, direct).Begin()
	testenv.Check(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.Exec(`select pg_advisory_xact_lock($1)`, int64(lock))
	testenv.Check(t, err)
	var writers sync.WaitGroup
	defer writers.Wait()
	waiting, leave := context.WithCancel(t.Context())
	defer leave()
	for i := range 20 {
		writers.Go(func() { _, _ = s.Consume(waiting, fmt.Sprint("test/", i), time.Now().Add(time.Hour)) })
	}
	time.Sleep(500 * time.Millisecond) // until they have the connections that they get
	began := time.Now()
	whose := grant.Owner{Kind: grant.OwnedByUser, ID: "p:1"}
	_, err = s.Grants().Get(t.Context(), grant.Key{Connector: "c", Owner: whose})
	if !errors.Is(err, grant.ErrNotFound) {
		t.Errorf("a grant: %v", err)
	}
	if _, err := s.Sessions(t.Context(), session.Which{}); err != nil {
		t.Errorf("the list: %v", err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %s", took)
	}
}

// A standby learns of sign-outs when its primary tells it, and perhaps never. It is passed over
// where it stands first in the address, and where nothing else answers, nothing is fresh.
func TestP10_AStandbyIsNotTakenForTheDatabase(t *testing.T) {
	server := storetest.NeedServer(t)
	direct := server.Database(t)
	open := func(address string) *store.Store {
		t.Helper()
		s, err := Open(t.Context(), address, Options{})
		testenv.Check(t, err)
		return s
	}
	standby := server.Standby(t, direct, func(address string) { testenv.Check(t, open(address).Close()) })
	a := open(direct)
	defer a.Close()
	b := open(strings.Replace(direct, server.Address, standby+","+server.Address, 1))
	defer b.Close()
	lone := open(strings.Replace(direct, server.Address, standby, 1))
	defer lone.Close()
	for name, of := range map[string]struct{ here, there *store.Store }{"there": {a, b}, "here": {b, a}} {
		s := session.Session{Root: name, SignedIn: time.Now()}
		testenv.Check(t, of.here.End(t.Context(), session.Cut{Root: name, Before: s.SignedIn,
			Until: s.SignedIn.Add(time.Hour)}))
		testenv.Within(t, 2*time.Second, name+" it is known who signed out", func() bool { return of.there.Ended(s) })
	}
	if fresh := lone.Fresh(); !fresh.IsZero() {
		t.Errorf("what a standby alone knows counts as fresh at %s", fresh)
	}
}

// A machine that lost its power says nothing at all, and goes on to stand first in the address.
func TestP10_AServerThatSaysNothingLeavesTimeForTheNext(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // which is asked, and does not answer
	testenv.Check(t, err)
	defer silent.Close()
	server := storetest.NeedServer(t)
	direct := server.Database(t)
	name := strings.Replace(direct, server.Address, "db.test:1", 1)
	for _, address := range []string{name,
		strings.Replace(direct, server.Address, silent.Addr().String()+","+server.Address, 1),
		strings.Replace(direct, server.Address, silent.Addr().String()+","+server.Address, 1) + "&connect_timeout=10"} {
		began := time.Now()
		a, err := NewAccess(address, nil)
		testenv.Check(t, err)
		if address == name { // which has an address that does not answer, and one that does
			a.config.Load().LookupFunc = func(context.Context, string) ([]string, error) {
				return []string{silent.Addr().String(), server.Address}, nil
			}
		}
		s, err := a.Open(t.Context(), Options{})
		testenv.Check(t, err)
		defer s.Close()
		if took := time.Since(began); s.Fresh().IsZero() || took > 10*time.Second {
			t.Errorf("it is opened after %s, and fresh: %v", took, !s.Fresh().IsZero())
		}
		out := session.Cut{Root: "out", Before: time.Now(), Until: time.Now().Add(time.Hour)}
		if err := s.End(t.Context(), out); err != nil {
			t.Errorf("a sign-out: %v", err)
		}
		whose := grant.Owner{Kind: grant.OwnedByUser, ID: "p:1"}
		if _, err := s.Grants().Get(t.Context(), grant.Key{Connector: "c", Owner: whose}); !errors.Is(err,
			grant.ErrNotFound) {
			t.Errorf("a grant: %v", err)
		}
		if _, err := s.Sessions(t.Context(), session.Which{}); err != nil {
			t.Errorf("the list: %v", err)
		}
	}
}

// Behind a pooler the standby of a primary that was lost takes its place without a connection of
// ours breaking. It may have lost what was written last, and have given the same keys once more.
func TestP10_ASignOutIsKnownAfterAPoolerChangedTheServer(t *testing.T) {
	direct := storetest.NeedServer(t).Database(t)
	where := pretend(t, direct)
	s, err := Open(t.Context(), where.address, Options{})
	testenv.Check(t, err)
	defer s.Close()
	lost, next := session.Session{Root: "lost", SignedIn: time.Now()}, session.Session{Root: "next", SignedIn: time.Now()}
	cut := func(of session.Session) session.Cut {
		return session.Cut{Root: of.Root, Before: of.SignedIn, Until: of.SignedIn.Add(time.Hour)}
	}
	testenv.Check(t, s.End(t.Context(), cut(lost)))
	fresh := s.Fresh()
	testenv.Within(t, 5*time.Second, "it is read", func() bool { return s.Fresh().After(fresh.Add(time.Second)) })
	record, err := cut(next).Record(time.Now())
	testenv.Check(t, err)
	tx, err := raw(t, direct).Begin()
	testenv.Check(t, err)
	_, err = tx.Exec(`update sallyport_ended set key = $1`, record.Key[:])
	testenv.Check(t, err)
	_, err = tx.Exec(`update elsewhere.server set started = to_timestamp(2)`)
	testenv.Check(t, err)
	testenv.Check(t, tx.Commit())
	testenv.Within(t, 2*time.Second, "who signed out there is out here", func() bool { return s.Ended(next) })
	if !s.Ended(lost) {
		t.Error("what the other server has lost is forgotten here")
	}
}

func TestAnAddressThatIsNone(t *testing.T) {
	if s, err := Open(t.Context(), "postgres://u:secret-4711@[::1", Options{}); err == nil || s != nil ||
		strings.Contains(err.Error(), "4711") {
		t.Errorf("%v", err)
	}
}

// The clock of the database counts, not this machine's.
func TestTheClockIsTheDatabases(t *testing.T) {
	server := storetest.NeedServer(t)
	s, err := Open(t.Context(), server.Database(t),
		Options{Options: store.Options{Now: func() time.Time { return time.Now().Add(-time.Hour) }}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if off := time.Until(s.Now()); off.Abs() > time.Second || (s.Offset()-time.Hour).Abs() > time.Second {
		t.Errorf("off by %s, offset %s", off, s.Offset())
	}
}

// The clock of a machine that was asleep is set when it wakes. Until the database is asked for
// the time again, what this process takes for now is wrong by as much: nothing may be deleted
// by that which is not over.
func TestP10_AClockThatIsSetForwardForgetsNobody(t *testing.T) {
	server := storetest.NeedServer(t)
	direct := server.Database(t)
	wire := storetest.NewWire(t, server.Address)
	var ahead atomic.Int64
	s, err := Open(t.Context(), strings.Replace(direct, server.Address, wire.Address(), 1),
		Options{Options: store.Options{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}})
	testenv.Check(t, err)
	defer s.Close()
	out := session.Session{Root: "out", SignedIn: time.Now()}
	end := func(root string, until time.Duration) {
		t.Helper()
		testenv.Check(t, s.End(t.Context(),
			session.Cut{Root: root, Before: out.SignedIn, Until: time.Now().Add(until)}))
	}
	end(out.Root, 12*time.Hour)
	wire.Slow("clock_timestamp", 3*time.Second)
	ahead.Store(int64(48 * time.Hour))
	end("over", -5*time.Minute)
	db := raw(t, direct)
	count := func(which string) (n int) {
		t.Helper()
		testenv.Check(t, db.QueryRow(`select count(*) from sallyport_ended where until_ms `+which+
			` extract(epoch from now()) * 1000`).Scan(&n))
		return n
	}
	testenv.Within(t, 15*time.Second, "what is over is deleted", func() bool { return count("<") == 0 })
	if n := count(">"); n != 1 || !s.Ended(out) {
		t.Errorf("of who has signed out %d cuts are left; out: %v", n, s.Ended(out))
	}
}

// An answer that was long on its way says little of when it was given: half of two seconds
// would go into leases, and into what is lent as good.
func TestASlowAnswerDoesNotMoveTheClock(t *testing.T) {
	server := storetest.NeedServer(t)
	wire := storetest.NewWire(t, server.Address)
	wire.Slow("clock_timestamp", 2*time.Second)
	s, err := Open(t.Context(), strings.Replace(server.Database(t), server.Address, wire.Address(), 1), Options{})
	testenv.Check(t, err)
	defer s.Close()
	if !wire.Slowed() {
		t.Fatal("the clock was not asked for")
	}
	if off := s.Offset().Abs(); off > 500*time.Millisecond {
		t.Errorf("the clocks are one, and said to be %s apart", off)
	}
}

// Replicas whose clocks are minutes apart give each notice to one of them, in time; and one whose
// clock is set far ahead, until it asks for the time again, gives up none that is not old.
func TestP12_NoticesGoByTheClockOfTheDatabase(t *testing.T) {
	server := storetest.NeedServer(t)
	address := server.Database(t)
	open := func(apart *atomic.Int64) *store.Grants {
		now := func() time.Time { return time.Now().Add(time.Duration(apart.Load())) }
		s, err := Open(t.Context(), address, Options{Options: store.Options{Now: now}})
		testenv.Check(t, err)
		t.Cleanup(func() { _ = s.Close() })
		return s.Grants()
	}
	var before, after atomic.Int64
	before.Store(int64(-5 * time.Minute))
	after.Store(int64(5 * time.Minute))
	slow, fast := open(&before), open(&after)
	lose := func(s *store.Grants, whose string) {
		t.Helper()
		r, err := s.Connect(t.Context(), grant.Record{Key: grant.Key{Connector: "calendar",
			Owner: grant.Owner{Kind: grant.OwnedByUser, ID: whose}}, Status: grant.Active}, grant.Consent{App: "a"}, 0,
			func(r grant.Record) (grant.Record, error) { return r, nil })
		testenv.Check(t, err)
		_, err = s.Disconnect(t.Context(), r.ID)
		testenv.Check(t, err)
	}
	given := func(s *store.Grants, want int) []grant.Notice {
		t.Helper()
		list, err := s.Notices(t.Context(), "a", 50)
		if err != nil || len(list) != want {
			t.Errorf("%d are given, want %d: %v", len(list), want, err)
		}
		return list
	}
	for _, pair := range [][2]*store.Grants{{slow, fast}, {fast, slow}} {
		lose(pair[0], "sso:ann")
		lose(pair[1], "sso:bob")
		list := given(pair[0], 2)
		given(pair[1], 0)
		for _, n := range list {
			if off := time.Since(n.At).Abs(); off > time.Minute {
				t.Errorf("what has just happened is told with a time that is %s off", off)
			}
			testenv.Check(t, pair[0].Noticed(t.Context(), n))
		}
		given(pair[1], 0)
	}
	lose(slow, "sso:cid")
	after.Store(int64(48 * time.Hour))
	lost, err := fast.ForgetNotices(t.Context(), grant.NoticeLife)
	if err != nil || len(lost) != 0 {
		t.Errorf("given up, when a clock was set ahead: %v, %v", lost, err)
	}
	given(slow, 1)
}

// Who signed in while the server's clock was ahead, and is signed out everywhere from another
// server, is out: when somebody signed in says the database's clock, a second after this one's
// was set at the latest.
func TestP10_WhoSignsInAfterTheClockWasSetForwardIsSignedOutToo(t *testing.T) {
	address := storetest.NeedServer(t).Database(t)
	var ahead atomic.Int64
	open := func(now func() time.Time) *store.Store {
		s, err := Open(t.Context(), address, Options{Options: store.Options{Now: now}})
		testenv.Check(t, err)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	a := open(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	b := open(nil)
	time.Sleep(time.Second)
	ahead.Store(int64(5 * time.Second)) // less than what the view may age by before it is read anyway
	time.Sleep(2 * time.Second)
	who := session.Session{Root: "root", SignedIn: a.Now(), Identity: identity.Identity{Provider: "p", Subject: "ann"}}
	time.Sleep(100 * time.Millisecond)
	testenv.Check(t, b.End(t.Context(), session.Cut{Person: who.Identity.ID(), Before: b.Now(),
		Until: b.Now().Add(time.Hour)}))
	testenv.Within(t, 2*time.Second, "the session is over where it began", func() bool { return a.Ended(who) })
}

// A strict route asks that what is known is no more than two seconds old: a database far away
// is no reason to close it.
func TestTheViewIsFreshWithADatabaseFarAway(t *testing.T) {
	server := storetest.NeedServer(t)
	wire := storetest.NewWire(t, server.Address)
	s, err := Open(t.Context(), strings.Replace(server.Database(t), server.Address, wire.Address(), 1), Options{})
	testenv.Check(t, err)
	defer s.Close()
	time.Sleep(3 * time.Second) // notifications have proved to arrive
	wire.Lag(125 * time.Millisecond)
	time.Sleep(2 * time.Second)
	oldest := time.Duration(0)
	for began := time.Now(); time.Since(began) < 12*time.Second; time.Sleep(5 * time.Millisecond) {
		oldest = max(oldest, s.Age())
	}
	if t.Logf("with a round trip of 250 ms the view was %s old at most", oldest); oldest > 2*time.Second {
		t.Error("strict routes would have refused")
	}
}

func TestContractOfGrants(t *testing.T) { storetest.RunGrants(t, fresh(false)) }

func TestWhatAGrantTakes(t *testing.T) {
	storetest.SizeOfGrants(t, func(t *testing.T) (*store.Store, func() int64) {
		address := storetest.NeedServer(t).Database(t)
		s, err := Open(t.Context(), address, Options{})
		testenv.Check(t, err)
		t.Cleanup(func() { _ = s.Close() })
		db := raw(t, address)
		return s, func() (bytes int64) {
			t.Helper()
			testenv.Check(t, db.QueryRow(`select sum(pg_total_relation_size(oid)) from pg_class
				where relkind = 'r' and relname like 'sallyport_grant%'`).Scan(&bytes))
			return bytes
		}
	})
}

// What one replica holds no other one takes because its machine's clock was set forward and the
// database has not been asked for the time since: a refresh token that is shown twice at once
// may end the connection, and an app would be told the same twice.
func TestP14_AClockThatIsSetForwardTakesNothingFromItsHolder(t *testing.T) {
	server := storetest.NeedServer(t)
	address := server.Database(t)
	wire := storetest.NewWire(t, server.Address)
	var ahead atomic.Int64
	open := func(address string, now func() time.Time) *store.Grants {
		s, err := Open(t.Context(), address, Options{Options: store.Options{Now: now}})
		testenv.Check(t, err)
		t.Cleanup(func() { _ = s.Close() })
		return s.Grants()
	}
	holder := open(address, nil)
	other := open(strings.Replace(address, server.Address, wire.Address(), 1),
		func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	kept, err := holder.Connect(t.Context(), grant.Record{Key: grant.Key{Connector: "things",
		Owner: grant.Owner{Kind: grant.OwnedByUser, ID: "p:ann"}}, Status: grant.Active},
		grant.Consent{App: "app", By: "p:ann"}, 0,
		func(r grant.Record) (grant.Record, error) { return r, nil })
	testenv.Check(t, err)
	lease, _, err := holder.Lease(t.Context(), kept.ID, kept.Generation)
	testenv.Check(t, err)
	until := holder.Now().Add(grant.CallTime)
	_, err = holder.Claim(t.Context(), "event", until)
	testenv.Check(t, err)

	wire.Slow("clock_timestamp", 3*time.Second)
	ahead.Store(int64(grant.LeaseTime + time.Second))
	if _, _, err := other.Lease(t.Context(), kept.ID, kept.Generation); !errors.Is(err, grant.ErrHeld) {
		t.Errorf("another replica may show the refresh token too: %v", err)
	}
	if _, err := other.Claim(t.Context(), "event", until); !errors.Is(err, grant.ErrHeld) {
		t.Errorf("another replica may hand on the event too: %v", err)
	}
	if _, err := holder.Renew(t.Context(), lease); err != nil {
		t.Errorf("the holder: %v", err)
	}
}
