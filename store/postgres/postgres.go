// Package postgres opens a store in a PostgreSQL database, for replicas on several
// machines.
//
// It owns the driver, the connections and LISTEN. The tables, and everything that
// is done with them, are package store's; a file on one machine is store/sqlite's.
package postgres

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/sallyport-proxy/sallyport/store"
)

const (
	// channel is what replicas tell each other on that there is something to read.
	channel = "sallyport"
	// lock is held by who writes cuts or migrates: one at a time in a database.
	lock = 0x73616c6c79 // "sally"
	// pollInterval is how often to read where notifications arrive: they only make it quick.
	// Fresh, which says how old the view is, moves with it.
	pollInterval = time.Second
	// pollWithoutNotify is how often to read where they do not, as through a pooler.
	pollWithoutNotify = 250 * time.Millisecond
	// testTime is how long a notification of our own may take.
	testTime = time.Second
	// again is the pause before LISTEN is tried once more, and seldom where it is taken, and nothing
	// arrives: each try leaves a LISTEN at one of a pooler's connections, and is two more for it.
	again  = time.Second
	seldom = time.Minute
	// proveAgain is how often a connection that listens proves that it still does.
	proveAgain = 30 * time.Second
)

// Options configure a store in PostgreSQL.
type Options struct {
	store.Options
	// Connections bounds how many there are, that which listens aside; 0: 4, at least
	// 2. One of them only reads what is new, and from 3 on half of all answer who asks, so
	// that these wait for no writer. Those that write mostly wait for one another anyway.
	Connections int
	// NoNotify reads at intervals only.
	NoNotify bool
}

// Open is NewAccess and Access.Open.
func Open(ctx context.Context, address string, o Options) (*store.Store, error) {
	a, err := NewAccess(address, nil)
	if err != nil {
		return nil, err
	}
	return a.Open(ctx, o)
}

// Open connects to the database. If it cannot be reached, the store goes on trying, and its Fresh
// is zero until then.
func (a *Access) Open(ctx context.Context, o Options) (*store.Store, error) {
	if o.Connections <= 0 {
		o.Connections = 4
	}
	asking := 0
	if o.Connections > 2 {
		asking = o.Connections / 2
	}
	d := store.Database{
		DB:     a.pool(max(o.Connections-1-asking, 1)),
		Follow: a.pool(1, stdlib.OptionShouldPing(pingUnused)),
		Bytes:  "bytea", Serial: "bigserial primary key",
		Every: pollWithoutNotify,
		Last:  `select last_value from sallyport_ended_seq_seq`,
		Clock: `select (extract(epoch from clock_timestamp()) * 1000)::bigint`,
		Copy: `select case when pg_is_in_recovery() then '' else
			(extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint::text end`,
		Begin:   begin,
		Durable: durable, RowLock: `for update`, Refuses: refuses,
		Announce: func(ctx context.Context, tx *sql.Tx, seq int64) error {
			_, err := tx.ExecContext(ctx, `select pg_notify($1, $2)`, channel, fmt.Sprint("ended ", seq))
			return err
		},
	}
	if asking > 0 {
		d.Lists = a.pool(asking)
	}
	if !o.NoNotify && !o.Brief {
		d.Watch = a.watch
	}
	s, err := store.New(ctx, d, o.Options)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

// pingUnused has a connection that follows be tried before it is used only where it was not used for
// some looks: each look would otherwise take a round trip more.
func pingUnused(_ context.Context, p stdlib.ShouldPingParams) bool {
	return p.IdleDuration > 3*pollInterval
}

// refuses reports whether an error is about a value: it cannot be read as what it should be
// (class 22 of SQLSTATE), a constraint does not allow it (23), or it is too large (54).
func refuses(err error) bool {
	said, ok := errors.AsType[*pgconn.PgError](err)
	return ok && len(said.Code) == 5 && slices.Contains([]string{"22", "23", "54"}, said.Code[:2])
}

// primaryOnly refuses standbys, also where one stands first in the address or answers at its
// only one. What a standby has is as old as it happens to be, and while the primary cannot
// reach it, that is without a bound: whoever signed out elsewhere would not have here, and the
// view would count as fresh (PostgreSQL, "Hot Standby").
func primaryOnly(config *pgx.ConnConfig) {
	asked := config.ValidateConnect // by target_session_attrs
	config.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		err := pgconn.ValidateConnectTargetSessionAttrsPrimary(ctx, conn)
		if err != nil || asked == nil {
			return err
		}
		return asked(ctx, conn)
	}
}

// durability makes what is written durable before the commit is told, even where the
// server's default is otherwise, and ends the transaction of a client that hangs.
const durability = `set_config('idle_in_transaction_session_timeout', '10s', true),
	set_config('synchronous_commit', case when current_setting('synchronous_commit') in ('off', 'local') then 'on'
		else current_setting('synchronous_commit') end, true)`

// durable begins what writes rows that it locks.
func durable(ctx context.Context, tx *sql.Tx) error { return prepare(ctx, tx, `select `+durability) }

// begin also takes the lock that keys are given under, until they can be seen. It waits
// for the lock in a statement of its own, because a statement sees only what had been
// committed when it began.
func begin(ctx context.Context, tx *sql.Tx) error {
	return prepare(ctx, tx, `select pg_advisory_xact_lock($1), `+durability, int64(lock))
}

func prepare(ctx context.Context, tx *sql.Tx, statement string, args ...any) error {
	if _, err := tx.ExecContext(ctx, `set transaction isolation level read committed`); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, statement, args...)
	return err
}

// watch listens until ctx ends, and connects again when that fails.
func (a *Access) watch(ctx context.Context, kick func(), every func(time.Duration)) {
	for ctx.Err() == nil {
		pause := again
		if deaf := a.listen(ctx, kick, every); deaf {
			pause = seldom
		}
		every(pollWithoutNotify)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// listen returns when the connection no longer brings notifications; deaf: it was made, and never
// brought one, which a pooler is why. What one says is not trusted: it only has the tables read.
func (a *Access) listen(ctx context.Context, kick func(), every func(time.Duration)) (deaf bool) {
	limited, cancel := context.WithTimeout(ctx, reachTime(a.config.Load()))
	defer cancel()
	conn, err := a.connect(limited)
	if err != nil {
		return false
	}
	defer func() {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(limited)
	}()
	if _, err := conn.Exec(limited, `listen `+channel); err != nil {
		return false
	}
	for deaf = true; a.prove(ctx, conn, kick); deaf = false {
		every(pollInterval)
		limited, cancel := context.WithTimeout(ctx, proveAgain)
		for {
			if _, err := conn.WaitForNotification(limited); err != nil {
				break
			}
			kick()
		}
		cancel()
		if ctx.Err() != nil || conn.IsClosed() {
			return false
		}
	}
	return deaf
}

// prove sends a notification over another connection, as another replica would, and
// reports whether it arrives.
func (a *Access) prove(ctx context.Context, conn *pgx.Conn, kick func()) bool {
	limited, cancel := context.WithTimeout(ctx, testTime+reachTime(a.config.Load()))
	defer cancel()
	other, err := a.connect(limited)
	if err != nil {
		return false
	}
	defer func() { _ = other.Close(limited) }()
	text := "test " + rand.Text()
	if _, err := other.Exec(limited, `select pg_notify($1, $2)`, channel, text); err != nil {
		return false
	}
	limited, cancel = context.WithTimeout(ctx, testTime)
	defer cancel()
	for {
		n, err := conn.WaitForNotification(limited)
		if err != nil {
			return false
		}
		kick()
		if n.Payload == text {
			return true
		}
	}
}
