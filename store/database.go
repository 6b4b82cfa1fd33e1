package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/session"
)

// Database is what the kinds of database differ in. The SQL is one for both.
type Database struct {
	// DB writes. Follow reads what is new and Lists what people ask for: with
	// connections of their own they wait for nothing that writes. They may be left out.
	DB, Follow, Lists *sql.DB
	// Embedded: what cannot be opened cannot be reached later either.
	Embedded bool
	// Bytes and Serial are the types of a column: bytes, and a primary key that
	// counts up and never goes back.
	Bytes, Serial string
	// Last is the question for the last key that was given in the table of cuts.
	Last string
	// Clock is the question for the time in milliseconds; "": this machine's.
	Clock string
	// Copy is the question which of several copies of the database answers, as text, with "" of one
	// that follows another; "": there is one only.
	Copy string
	// Refuses reports whether an error means that the database does not take a value, now or
	// later, while it may take others.
	Refuses func(error) bool
	// Usable says why what is open is not the database any more; nil: it always is.
	Usable func() error
	// Begin prepares a transaction that writes. Until its end no other one of any
	// replica may write cuts, or their order would not be that of their keys.
	Begin func(ctx context.Context, tx *sql.Tx) error
	// Durable prepares a transaction that writes nothing but rows that it locks; nil: there
	// is nothing to prepare.
	Durable func(ctx context.Context, tx *sql.Tx) error
	// RowLock ends a select that locks its rows until the transaction ends; "": a
	// transaction that writes is the only one.
	RowLock string
	// Room keeps room on the disk; nil: that is not ours to do.
	Room *Room
	// Announce tells other replicas, when tx is committed, of the row with this key.
	Announce func(ctx context.Context, tx *sql.Tx, seq int64) error
	// Changed reports whether anybody may have written something since it was asked
	// last; nil: always.
	Changed func(ctx context.Context) (bool, error)
	// Watch calls kick when there is something to read, until ctx ends, and says how
	// often to look all the same. It may be nil.
	Watch func(ctx context.Context, kick func(), every func(time.Duration))
	// Every is how often to look for something new.
	Every time.Duration
}

// schema is what this program writes, readableBy the oldest program that can read
// it: tables change in such a way that the version before can go on for one minor.
const (
	schema     = 6
	readableBy = 1
)

// migrations make the tables, each from those of the one before it. What has been
// released is not changed any more.
var migrations = [schema][]string{{
	`create table sallyport_ended (
		seq {serial},
		kind smallint not null,
		key {bytes} not null,
		whose {bytes},
		below bigint not null,
		before_ms bigint not null,
		until_ms bigint not null,
		created_ms bigint not null,
		unique (kind, key))`,
	`create index sallyport_ended_whose on sallyport_ended (whose)`,
	`create index sallyport_ended_until on sallyport_ended (until_ms)`,
	`create table sallyport_once (value {bytes} primary key, until_ms bigint not null)`,
	`create index sallyport_once_until on sallyport_once (until_ms)`,
}, {
	`create table sallyport_sessions (
		root_hash {bytes} primary key,
		person text not null,
		org text not null,
		orgs text not null,
		provider text not null,
		sid text not null,
		since_ms bigint not null,
		until_ms bigint not null,
		from_ip text not null,
		browser text not null)`,
	`create index sallyport_sessions_person on sallyport_sessions (person, since_ms)`,
	`create index sallyport_sessions_since on sallyport_sessions (since_ms)`,
	`create index sallyport_sessions_until on sallyport_sessions (until_ms)`,
	`create table sallyport_replicas (
		id varchar(64) primary key,
		version text not null,
		absolute_s bigint not null,
		seen_ms bigint not null)`,
}, {
	`create table sallyport_grants (
		id varchar(64) primary key,
		connector text not null,
		owner_kind text not null,
		owner_id text not null,
		account_id text not null,
		account_name text not null,
		region text not null,
		chain text not null,
		client_id text not null,
		access text not null,
		requested text not null,
		scopes text not null,
		offline smallint not null,
		status text not null,
		reason text not null,
		generation bigint not null,
		version bigint not null,
		sealed {bytes} not null,
		wrapped {bytes} not null,
		key_id text not null,
		access_expires_ms bigint not null,
		reconsent_ms bigint not null,
		connected_by text not null,
		connected_ms bigint not null,
		refreshed_ms bigint not null,
		retry_ms bigint not null,
		unique (owner_id, connector, owner_kind))`,
	`create unique index sallyport_grants_chain on sallyport_grants (chain, connector) where chain <> ''`,
	`create index sallyport_grants_account on sallyport_grants (account_id)`,
	`create table sallyport_grant_consents (
		grant_id varchar(64) not null,
		app text not null,
		access text not null,
		offline smallint not null,
		until_ms bigint not null,
		lapses_ms bigint not null,
		agreed_by text not null,
		agreed_ms bigint not null,
		used_ms bigint not null,
		primary key (grant_id, app))`,
	`create index sallyport_grant_consents_by on sallyport_grant_consents (agreed_by)`,
	`create table sallyport_grant_refreshes (
		grant_id varchar(64) primary key,
		generation bigint not null,
		attempt text not null,
		began_ms bigint not null,
		until_ms bigint not null,
		shown integer not null,
		shown_ms bigint not null)`,
}, {
	`create table sallyport_grant_notices (
		seq {serial},
		app text not null,
		kind text not null,
		connector text not null,
		owner_kind text not null,
		owner_id text not null,
		status text not null,
		at_ms bigint not null,
		due_ms bigint not null,
		tries integer not null)`,
	`create index sallyport_grant_notices_app on sallyport_grant_notices (app, seq)`,
}, {
	`create table sallyport_orgs (
		id text primary key,
		customer_id text not null,
		name text not null,
		domain text not null,
		read_by text not null,
		read_ms bigint not null)`,
}, {
	`alter table sallyport_grants add column destinations text not null default ''`,
}}

// current reports whether the tables are those that this program writes. It waits for
// nobody who writes, so that a replica begins to read also while somebody hangs.
func (s *Store) current(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	has, err := number(ctx, s.d.Follow, "schema")
	if err != nil {
		return false, err
	}
	oldest, err := number(ctx, s.d.Follow, "readable_by")
	if err != nil {
		return false, err
	}
	if oldest > schema {
		return false, fmt.Errorf("%w (schema %d); run a version that knows it", ErrNewer, has)
	}
	return has >= schema, nil
}

// migrate brings the tables to this program's version, all or nothing.
func (s *Store) migrate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	return s.transact(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `create table if not exists sallyport_meta
			(key varchar(64) primary key, value varchar(64) not null)`); err != nil {
			return fmt.Errorf("create the tables: %w", err)
		}
		has, err := number(ctx, tx, "schema")
		if err != nil {
			return err
		}
		oldest, err := number(ctx, tx, "readable_by")
		if err != nil {
			return err
		}
		if oldest > schema {
			return fmt.Errorf("%w (schema %d); run a version that knows it", ErrNewer, has)
		}
		if has >= schema {
			return nil
		}
		types := strings.NewReplacer("{serial}", s.d.Serial, "{bytes}", s.d.Bytes)
		for n := has; n < schema; n++ {
			for _, statement := range migrations[n] {
				if _, err := tx.ExecContext(ctx, types.Replace(statement)); err != nil {
					return fmt.Errorf("migrate to schema %d: %w", n+1, err)
				}
			}
		}
		for key, value := range map[string]int{"schema": schema, "readable_by": readableBy} {
			if _, err := tx.ExecContext(ctx, `insert into sallyport_meta (key, value) values ($1, $2)
				on conflict (key) do update set value = excluded.value`, key, strconv.Itoa(value)); err != nil {
				return fmt.Errorf("write the schema's number: %w", err)
			}
		}
		return nil
	})
}

// querier is a transaction, or a database without one.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func number(ctx context.Context, q querier, key string) (n int, err error) {
	var text string
	err = q.QueryRowContext(ctx, `select value from sallyport_meta where key = $1`, key).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err == nil {
		n, err = strconv.Atoi(text)
	}
	if err != nil {
		return 0, fmt.Errorf("read the schema's number: %w", err)
	}
	return n, nil
}

// beginning prepares a transaction; nil: there is nothing to prepare.
type beginning = func(context.Context, *sql.Tx) error

// transact runs a transaction that writes, and that no other one of any replica overtakes.
func (s *Store) transact(ctx context.Context, do func(*sql.Tx) error) error {
	return s.transactAs(ctx, s.d.Begin, do)
}

// transactAs runs a transaction that writes, after begin.
func (s *Store) transactAs(ctx context.Context, begin beginning, do func(*sql.Tx) error) error {
	if err := s.usable(); err != nil {
		return err
	}
	tx, err := s.d.DB.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelDefault})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing to undo after a commit
	if begin != nil {
		if err := begin(ctx, tx); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
	}
	if err := do(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// readNew puts what is new into the view. Rows come in the order in which they
// were committed, so that those that were read are all up to the last one.
func (s *Store) readNew(ctx context.Context) error {
	limit := s.o.Timeout
	if s.last == 0 {
		limit = wholeTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// Of one connection: what it takes to get it is not how long an answer takes.
	conn, err := s.d.Follow.Conn(ctx)
	if err != nil {
		return fmt.Errorf("read ended sessions: %w", err)
	}
	defer conn.Close()
	if s.clock == nil {
		if err := s.measureClock(ctx, conn); err != nil {
			return err
		}
	}
	given, err := s.askLast(ctx, conn)
	if err != nil {
		return fmt.Errorf("read ended sessions: %w", err)
	}
	if given < s.last || s.moved { // an older copy was restored, or another one answers
		s.last, s.moved = 0, false
	}
	rows, err := conn.QueryContext(ctx, `select seq, kind, key, whose, below, before_ms, until_ms
		from sallyport_ended where seq > $1 order by seq`, s.last)
	if err != nil {
		return fmt.Errorf("read ended sessions: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		seq, r, err := scan(rows)
		if err != nil {
			return fmt.Errorf("read ended sessions: %w", err)
		}
		s.view.Add(r)
		s.last = seq
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read ended sessions: %w", err)
	}
	return nil
}

// scan refuses what it cannot read: to leave it out would let somebody in again.
func scan(rows *sql.Rows) (seq int64, r session.Record, err error) {
	var kind, below int64
	var key, whose []byte
	if err := rows.Scan(&seq, &kind, &key, &whose, &below, &r.Before, &r.Until); err != nil {
		return 0, r, err
	}
	r.Kind, r.Below = session.Kind(kind), uint32(below)
	if !r.Kind.Valid() || int64(r.Kind) != kind || int64(r.Below) != below ||
		len(key) != len(r.Key) || len(whose) != 0 && len(whose) != len(r.Whose) {
		return 0, r, fmt.Errorf("row %d is not one that this version knows", seq)
	}
	copy(r.Key[:], key)
	copy(r.Whose[:], whose)
	return seq, r, nil
}

// write keeps r and reports whether it ended something that had not ended. What ended
// of one person becomes one cut when it is too much.
func (s *Store) write(ctx context.Context, r session.Record, person string) (first bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	var merged personMerge
	err = s.transact(ctx, func(tx *sql.Tx) error {
		if r.Kind != session.KindRoot {
			if r, err = s.keepLong(ctx, tx, r); err != nil {
				return err
			}
		} else if r.Below == 0 { // the list says no longer what nobody has
			_, err := tx.ExecContext(ctx, `delete from sallyport_sessions where root_hash = $1`, r.Key[:])
			if err != nil {
				return fmt.Errorf("take the sign-in off the list: %w", err)
			}
		}
		first, merged, err = s.putCut(ctx, tx, r)
		return err
	})
	if err != nil {
		return false, err
	}
	s.reportMerge(merged, person)
	return first, nil
}

// written reports whether the tables say for as long as r does that the sign-in of r is over.
// Where the view knows of it, it is asked for before anything is written: who signs out twice
// must be told as surely as the first time, and does not take the lock that all writers need.
func (s *Store) written(ctx context.Context, r session.Record) bool {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	if s.usable() != nil {
		return false
	}
	var rows int
	err := s.d.Lists.QueryRowContext(ctx, `select count(*) from sallyport_ended where until_ms >= $1 and
		(kind = $2 and key = $3 and (below = 0 or $4 > 0 and below >= $4)
		or kind = $5 and before_ms >= $8 or kind = $6 and key = $7 and before_ms >= $8)`,
		r.Until, int64(session.KindRoot), r.Key[:], int64(r.Below), int64(session.KindAll), int64(session.KindPerson),
		r.Whose[:], r.Before).Scan(&rows)
	return err == nil && rows > 0 // else to write it says what is wrong
}

// personMerge is the cut that was made of too many of one person; without entries there was none.
type personMerge struct {
	session.Merge
	made session.Record
}

// putCut is put, and then mergePerson where the cut is of a person.
func (s *Store) putCut(ctx context.Context, tx *sql.Tx, r session.Record) (
	first bool, merged personMerge, err error) {
	first, known, err := s.put(ctx, tx, r)
	if err != nil {
		return false, personMerge{}, fmt.Errorf("write ended session: %w", err)
	}
	if known || r.Whose == (session.CutKey{}) {
		return first, personMerge{}, nil
	}
	if merged, err = s.mergePerson(ctx, tx, r.Whose); err != nil {
		return false, personMerge{}, fmt.Errorf("merge ended sessions of a person: %w", err)
	}
	return first, merged, nil
}

// reportMerge logs a merge and adds it to the view, once it is committed.
func (s *Store) reportMerge(merged personMerge, person string) {
	if merged.Entries > 0 {
		s.view.Add(merged.made)
		merged.Person = person
		s.o.Merged(merged.Merge)
	}
}

// keepLong has r be kept for as long as what it ends, on whichever replica it began.
func (s *Store) keepLong(ctx context.Context, tx *sql.Tx, r session.Record) (session.Record, error) {
	longest, err := s.longestOf(ctx, tx)
	if err == nil {
		r.Until = max(r.Until, r.Before+(longest+untilMargin).Milliseconds())
	}
	return r, err
}

// put joins r with what is kept of its key.
func (s *Store) put(ctx context.Context, tx *sql.Tx, r session.Record) (news, known bool, err error) {
	old := session.Record{Kind: r.Kind, Key: r.Key}
	var below int64
	err = tx.QueryRowContext(ctx, `select below, before_ms, until_ms from sallyport_ended where kind = $1 and key = $2`,
		int64(r.Kind), r.Key[:]).Scan(&below, &old.Before, &old.Until)
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return false, false, err
	default:
		known, old.Below = true, uint32(below)
		news = r.Wider(old)
		if r = r.Join(old); !news && r.Until == old.Until {
			return false, true, nil
		}
		_, err := tx.ExecContext(ctx, `delete from sallyport_ended where kind = $1 and key = $2`, int64(r.Kind),
			r.Key[:])
		if err != nil {
			return false, false, err
		}
	}
	var whose any
	if r.Whose != (session.CutKey{}) {
		whose = r.Whose[:]
	}
	var seq int64
	err = tx.QueryRowContext(ctx, `
		insert into sallyport_ended (kind, key, whose, below, before_ms, until_ms, created_ms)
		values ($1, $2, $3, $4, $5, $6, $7) returning seq`,
		int64(r.Kind), r.Key[:], whose, int64(r.Below), r.Before, r.Until, s.Now().UnixMilli()).Scan(&seq)
	if err == nil && s.d.Announce != nil {
		err = s.d.Announce(ctx, tx, seq)
	}
	return news || !known, known, err
}

// merge makes one cut of the older half of everything, where it is too much.
// Another replica may have done it. The rows that the cut covers are deleted by
// deleteCovered: to delete half a million of them takes longer than who signs out
// meanwhile would wait.
func (s *Store) merge(ctx context.Context) (m session.Merge, merged bool, err error) {
	const rows = ` from sallyport_ended where kind <> 0 and before_ms >
		(select coalesce(max(before_ms), -1) from sallyport_ended where kind = 0)`
	r := session.Record{Kind: session.KindAll}
	var last int64
	err = s.transact(ctx, func(tx *sql.Tx) error {
		n, err := older(ctx, tx, &r, s.o.Max-s.o.Max/8, rows)
		if err != nil || n == 0 {
			return err
		}
		merged = true
		m = session.Merge{Before: time.UnixMilli(r.Before).UTC(), Entries: n/2 + 1}
		if err := tx.QueryRowContext(ctx, s.d.Last).Scan(&last); err != nil {
			return err
		}
		_, _, err = s.put(ctx, tx, r)
		return err
	})
	if err != nil {
		return m, false, fmt.Errorf("merge ended sessions: %w", err)
	}
	if merged {
		s.view.Add(r)
		s.covered = covered{before: r.Before, last: last}
	}
	return m, merged, nil
}

// mergePerson makes one cut of the older half of a person's sign-ins that ended, and
// sessions at the provider, where they are too many.
func (s *Store) mergePerson(ctx context.Context, tx *sql.Tx, whose session.CutKey) (merged personMerge, err error) {
	const rows = ` from sallyport_ended where whose = $1`
	r := session.Record{Kind: session.KindPerson, Key: whose}
	n, err := older(ctx, tx, &r, session.CrowdMax, rows, whose[:])
	if err != nil || n == 0 {
		return personMerge{}, err
	}
	done, err := tx.ExecContext(ctx, `delete`+rows+` and before_ms <= $2`, whose[:], r.Before)
	if err != nil {
		return personMerge{}, err
	}
	gone, err := done.RowsAffected()
	if err != nil {
		return personMerge{}, err
	}
	_, _, err = s.put(ctx, tx, r)
	return personMerge{session.Merge{Before: time.UnixMilli(r.Before).UTC(), Entries: int(gone)}, r}, err
}

// older has r reach over the older half of rows, and as long as the longest of
// them, and returns how many rows there are; 0 if not more than most.
func older(ctx context.Context, tx *sql.Tx, r *session.Record, most int, rows string, args ...any) (n int, err error) {
	err = tx.QueryRowContext(ctx, `select count(*), coalesce(max(until_ms), 0)`+rows, args...).Scan(&n, &r.Until)
	if err != nil {
		return 0, err
	}
	if n <= most {
		return 0, nil
	}
	median := `select before_ms` + rows + fmt.Sprint(` order by before_ms limit 1 offset `, n/2)
	err = tx.QueryRowContext(ctx, median, args...).Scan(&r.Before)
	return n, err
}

// chunk is how many rows are deleted at a time: others wait for that long.
const chunk = 5000

// deleteCovered deletes some of the rows that a cut of everybody covers.
func (s *Store) deleteCovered(ctx context.Context) (more bool, err error) {
	c := &s.covered
	if c.at >= c.last {
		return false, nil
	}
	err = s.transact(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `delete from sallyport_ended
			where seq > $1 and seq <= $2 and kind <> 0 and before_ms <= $3`, c.at, c.at+chunk, c.before)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("delete what was merged: %w", err)
	}
	c.at += chunk
	return c.at < c.last, nil
}

// consume keeps value, if it is not there.
func (s *Store) consume(ctx context.Context, value [32]byte, until int64) (first bool, err error) {
	err = s.transact(ctx, func(tx *sql.Tx) error {
		first, err = insertOnce(ctx, tx, value, until)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("consume: %w", err)
	}
	return first, nil
}

func insertOnce(ctx context.Context, tx *sql.Tx, value [32]byte, until int64) (first bool, err error) {
	done, err := tx.ExecContext(ctx, `insert into sallyport_once (value, until_ms) values ($1, $2)
		on conflict do nothing`, value[:], until)
	if err != nil {
		return false, err
	}
	n, err := done.RowsAffected()
	return n == 1, err
}

// timeIn is Now, asked for in tx. Until the offset is measured again, Now is wrong by as much as
// this machine's clock was set.
func (s *Store) timeIn(ctx context.Context, tx *sql.Tx) (time.Time, error) {
	if s.d.Clock == "" {
		return s.Now(), nil
	}
	var ms int64
	if err := tx.QueryRowContext(ctx, s.d.Clock).Scan(&ms); err != nil {
		return time.Time{}, fmt.Errorf("ask for the time: %w", err)
	}
	return time.UnixMilli(ms), nil
}

// prune deletes some of what is over in any case, also by a clock that is behind. It says what
// time it is by the clock of the database, which it asks anew: what is deleted too early lets in
// again who has signed out.
func (s *Store) prune(ctx context.Context) (now time.Time, more bool, err error) {
	err = s.transact(ctx, func(tx *sql.Tx) error {
		if now, err = s.timeIn(ctx, tx); err != nil {
			return err
		}
		late := now.Add(-grant.ClocksApart).UnixMilli()
		for _, statement := range [...]string{
			`delete from sallyport_ended where seq in (select seq from sallyport_ended where until_ms < $1 limit $2)`,
			`delete from sallyport_once where value in (select value from sallyport_once where until_ms < $1 limit $2)`,
			`delete from sallyport_sessions where root_hash in
				(select root_hash from sallyport_sessions where until_ms < $1 limit $2)`,
		} {
			done, err := tx.ExecContext(ctx, statement, late, chunk)
			if err != nil {
				return err
			}
			n, err := done.RowsAffected()
			if err != nil {
				return err
			}
			more = more || n == chunk
		}
		return nil
	})
	if err != nil {
		return now, false, fmt.Errorf("delete what is over: %w", err)
	}
	return now, more, nil
}
