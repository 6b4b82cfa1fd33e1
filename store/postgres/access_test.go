package postgres

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store"
	"github.com/sallyport-proxy/sallyport/store/storetest"
)

// Passwords of databases are replaced, and with some keepers of secrets so are users, every few
// hours, while the store is open. What is refused changes nothing.
func TestWhoConnectsCanChangeWhileTheStoreIsOpen(t *testing.T) {
	server := storetest.NeedServer(t)
	address := server.Database(t)
	admin := raw(t, address)
	run := func(statement string) {
		t.Helper()
		_, err := admin.Exec(statement)
		testenv.Check(t, err)
	}
	as := func(user string) string { return strings.Replace(address, "sallyport@", user+"@", 1) }
	for _, user := range []string{"rotated_a", "rotated_b"} {
		run(`create role ` + user + ` superuser login`)
		t.Cleanup(func() {
			run(`reassign owned by ` + user + ` to sallyport`)
			run(`drop role ` + user)
		})
	}
	a, err := NewAccess(as("rotated_a"), nil)
	testenv.Check(t, err)
	s, err := a.Open(t.Context(), Options{})
	testenv.Check(t, err)
	defer func() { _ = s.Close() }()
	connections := func(user string) (n int) {
		t.Helper()
		testenv.Check(t, admin.QueryRow(`select count(*) from pg_stat_activity where datname = current_database() and
			usename = $1`, user).Scan(&n))
		return n
	}
	if _, err := a.Change(t.Context(), as("nobody"), nil); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("who may not connect: %v", err)
	}
	run(`alter role rotated_b nologin`)
	if _, err := a.Change(t.Context(), as("rotated_b"), nil); err == nil {
		t.Error("a role that may not log in is taken")
	}
	run(`alter role rotated_b login`)
	take, err := a.Change(t.Context(), as("rotated_b"), nil)
	testenv.Check(t, err)
	testenv.Within(t, 5*time.Second, "nothing but the trial has used it", func() bool {
		return connections("rotated_b") == 0
	})
	take()
	run(`alter role rotated_a nologin`)
	run(`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'rotated_a'`)
	closed := time.Now()
	out := session.Session{Root: "out", SignedIn: time.Now()}
	testenv.Within(t, 10*time.Second, "it is written again", func() bool {
		return s.End(t.Context(), session.Cut{Root: out.Root, Before: out.SignedIn,
			Until: time.Now().Add(time.Hour)}) == nil
	})
	testenv.Within(t, 10*time.Second, "it is read again", func() bool { return s.Fresh().After(closed) })
	if before, now := connections("rotated_a"), connections("rotated_b"); before != 0 || now < 2 {
		t.Errorf("%d connections of the old user, %d of the new one", before, now)
	}
	if first, err := s.Consume(t.Context(), "x", time.Now().Add(time.Hour)); err != nil || !first {
		t.Errorf("%v %v", first, err)
	}
}

// The connection that was closed is told first, and is not what has to be mended.
func TestTheLogSaysWhyTheDatabaseIsAway(t *testing.T) {
	address := storetest.NeedServer(t).Database(t)
	admin := raw(t, address)
	run := func(statement string) {
		t.Helper()
		_, err := admin.Exec(statement)
		testenv.Check(t, err)
	}
	run(`create role shut_out superuser login`)
	t.Cleanup(func() {
		run(`reassign owned by shut_out to sallyport`)
		run(`drop role shut_out`)
	})
	var mu sync.Mutex
	var text strings.Builder
	said := func(what string) int {
		mu.Lock()
		defer mu.Unlock()
		return strings.Count(text.String(), what)
	}
	s, err := Open(t.Context(), strings.Replace(address, "sallyport@", "shut_out@", 1),
		Options{NoNotify: true, Options: store.Options{Log: slog.New(slog.NewTextHandler(writer(func(p []byte) {
			mu.Lock()
			defer mu.Unlock()
			text.Write(p)
		}), nil))}})
	testenv.Check(t, err)
	defer func() { _ = s.Close() }()
	run(`alter role shut_out nologin`)
	run(`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'shut_out'`)
	testenv.Eventually(t, "the log has what the database answers to who reads", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for line := range strings.Lines(text.String()) {
			if strings.Contains(line, "the store fails") && strings.Contains(line, "is not permitted to log in") {
				return true
			}
		}
		return false
	})
	fails := said("the store fails")
	time.Sleep(3 * time.Second) // a dozen looks, of which another one may have failed in another way
	if n := said("the store fails"); n > fails+1 {
		t.Errorf("it is told %d times more", n-fails)
	}
	run(`alter role shut_out login`)
	testenv.Eventually(t, "it is told that it works again", func() bool { return said("the store works again") == 1 })
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

// A database that does not answer says nothing against a new password: it is in use once it does.
func TestADatabaseThatIsAwayRefusesNobody(t *testing.T) {
	const away = "postgres://a:old@127.0.0.1:1/d?sslmode=disable&connect_timeout=2"
	a, err := NewAccess(away, nil)
	testenv.Check(t, err)
	take, err := a.Change(t.Context(), strings.Replace(away, "old", "new", 1), nil)
	testenv.Check(t, err)
	take()
	if now := a.config.Load().Password; now != "new" {
		t.Errorf("it would connect with %q", now)
	}
}

func TestTheSameDatabase(t *testing.T) {
	parse := func(v string) Address {
		a, err := ParseAddress(v)
		testenv.Check(t, err)
		return a
	}
	const was = "postgres://ann:one@db.example:5432,other.example/d?sslmode=verify-full&application_name=x"
	for v, same := range map[string]bool{
		was: true,
		"postgres://bob:two@db.example:5432,other.example/d?application_name=x&sslmode=verify-full": true,
		"postgresql://db.example:5432,other.example/d?application_name=x&user=bob&password=two":     false,
		"postgres://ann:one@db.example:5432/d?sslmode=verify-full&application_name=x":               false,
		"postgres://ann:one@db.example:5432,other.example/e?sslmode=verify-full&application_name=x": false,
		"postgres://ann:one@db.example:5432,other.example/d?sslmode=require&application_name=x":     false,
	} {
		if parse(v).SameDatabase(parse(was)) != same {
			t.Errorf("%s: want %v", v, same)
		}
	}
}
