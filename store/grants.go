package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
)

// Grants is a grant.Store in the same database. Each change is a transaction of its own,
// which begins with the lock of the grant's row. It never waits for who writes cuts, except
// where a grant is connected or moved: that has to do with other rows, too.
type Grants struct{ s *Store }

var _ grant.Store = (*Grants)(nil)

// Room is how a database on a disk of this machine keeps room for what must not be lost.
type Room struct {
	// Hold makes sure that the reserve is there.
	Hold func() error
	// Release gives the reserve away.
	Release func() error
	// Compact has the database use what it has, before it asks for more.
	Compact func(ctx context.Context) error
	// Full reports whether an error means that the disk is full.
	Full func(error) bool
}

// defaultGrants is how many grants List returns unless it is asked for another number.
const defaultGrants = 1000

// Grants returns the store of grants, and reserves room for the results of refreshes
// where the database is on a disk of this machine.
func (s *Store) Grants() *Grants {
	if s.d.Room != nil && !s.o.Brief {
		if err := s.d.Room.Hold(); err != nil {
			s.o.Log.Error("there is no room to keep the results of refreshes, so that no grant is refreshed: make room",
				"error", err)
		}
	}
	return &Grants{s}
}

// Now is the time of the database's clock.
func (g *Grants) Now() time.Time { return timeOf(g.s.Now().UnixMilli()) }

// refusal is an answer to the caller, not a failure of the database.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// answered tells what the caller is to know of err.
func answered(err error) error {
	var r refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &r):
		return r.error
	}
	return fmt.Errorf("%w: %w", grant.ErrUnavailable, err)
}

// change runs a transaction. Where the disk is full it is run once more in the room that
// the database has left over, and if it is urgent, in the reserve. do must return at the
// first statement that fails: SQLite may have ended the transaction with it, and what
// followed would be kept by itself.
func (g *Grants) change(ctx context.Context, begin beginning, urgent bool,
	do func(context.Context, *sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, g.s.o.Timeout)
	defer cancel()
	run := func() error {
		return g.s.transactAs(ctx, begin, func(tx *sql.Tx) error { return do(ctx, tx) })
	}
	err := run()
	room := g.s.d.Room
	if err == nil || room == nil || !room.Full(err) {
		return err
	}
	err = errors.Join(err, room.Compact(ctx))
	again := run()
	if urgent && room.Full(again) {
		// Compacting may need room itself, and leaves more than it takes.
		err = errors.Join(err, again, room.Release(), room.Compact(ctx))
		again = run()
	}
	if again != nil {
		return errors.Join(err, again)
	}
	return nil
}

// state is what the table of refreshes has of a grant.
type state struct {
	newest       int64  // the newest generation that was ever committed
	attempt      string // of the lease; "": there is none, nor was there one without an outcome
	began, until int64
	shown        int
	shownSince   int64
}

// row is a grant that a transaction has locked.
type row struct {
	grant.Record
	state
	// now is when it was read, by the clock of the database, which was asked with it: a lease
	// is not over for a replica whose own clock was just set forward.
	now time.Time
}

const grantColumns = `g.id, g.connector, g.owner_kind, g.owner_id, g.account_id, g.account_name, g.region, g.chain,
	g.client_id, g.access, g.requested, g.scopes, g.offline, g.status, g.reason, g.generation, g.version,
	g.sealed, g.wrapped, g.key_id, g.access_expires_ms, g.reconsent_ms, g.connected_by, g.connected_ms,
	g.refreshed_ms, g.retry_ms, g.destinations`

// grantScan are the places for grantColumns, and what completes the Record afterwards.
func grantScan(r *grant.Record) (places []any, complete func() error) {
	var access, requested, scopes, destinations string
	var offline, expires, reconsent, connected, refreshed, retry int64
	return []any{&r.ID, &r.Connector, &r.Owner.Kind, &r.Owner.ID, &r.Account.ID, &r.Account.Name, &r.Account.Region,
			&r.Account.Chain, &r.ClientID, &access, &requested, &scopes, &offline, &r.Status, &r.Reason, &r.Generation,
			&r.Version, &r.Sealed, &r.Wrapped, &r.KeyID, &expires, &reconsent, &r.ConnectedBy, &connected, &refreshed,
			&retry, &destinations}, func() error {
			r.Offline = offline != 0
			r.AccessExpires, r.Reconsent, r.ConnectedAt = timeOf(expires), timeOf(reconsent), timeOf(connected)
			r.RefreshedAt, r.RetryAt = timeOf(refreshed), timeOf(retry)
			return errors.Join(listOf(access, &r.Access), listOf(requested, &r.Requested), listOf(scopes, &r.Scopes),
				listOf(destinations, &r.Destinations))
		}
}

// lockByID locks a grant that is not disconnected, and reads it. Where rows are locked one
// by one, reading is a statement of its own: one sees what was committed when it began,
// which is before it waited.
func (g *Grants) lockByID(ctx context.Context, tx *sql.Tx, id string) (*row, error) {
	return g.lock(ctx, tx, `g.id = $1`, id)
}

func (g *Grants) lockByKey(ctx context.Context, tx *sql.Tx, k grant.Key) (*row, error) {
	return g.lock(ctx, tx, byKey, keyArgs(k)...)
}

func (g *Grants) lock(ctx context.Context, tx *sql.Tx, where string, args ...any) (*row, error) {
	r, err := g.lockAny(ctx, tx, where, args...)
	if err == nil && (r == nil || r.Status == grant.Disconnected) {
		return nil, refusal{grant.ErrNotFound}
	}
	return r, err
}

// lockAny also returns tombstones, and nil where there is nothing.
func (g *Grants) lockAny(ctx context.Context, tx *sql.Tx, where string, args ...any) (*row, error) {
	if g.s.d.RowLock != "" {
		var id string
		err := tx.QueryRowContext(ctx, `select g.id from sallyport_grants g where `+where+` `+g.s.d.RowLock,
			args...).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) { // a row that comes to be meanwhile would not be locked
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("lock the grant: %w", err)
		}
	}
	var r row
	places, complete := grantScan(&r.Record)
	var now int64
	clock := `0`
	if g.s.d.Clock != "" {
		clock = `(` + g.s.d.Clock + `)`
	}
	places = append(places, &r.newest, &r.attempt, &r.began, &r.until, &r.shown, &r.shownSince, &now)
	err := tx.QueryRowContext(ctx, `select `+grantColumns+`, coalesce(f.generation, 0), coalesce(f.attempt, ''),
		coalesce(f.began_ms, 0), coalesce(f.until_ms, 0), coalesce(f.shown, 0), coalesce(f.shown_ms, 0), `+clock+`
		from sallyport_grants g left join sallyport_grant_refreshes f on f.grant_id = g.id
		where `+where, args...).Scan(places...)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err == nil {
		err = complete()
	}
	if err != nil {
		return nil, fmt.Errorf("read the grant: %w", err)
	}
	if r.now = time.UnixMilli(now); g.s.d.Clock == "" {
		r.now = g.s.Now()
	}
	return &r, nil
}

// byKey is where keyArgs are found.
const byKey = `g.connector = $1 and g.owner_kind = $2 and g.owner_id = $3`

func keyArgs(k grant.Key) []any { return []any{k.Connector, string(k.Owner.Kind), k.Owner.ID} }

// putGrant writes all of a Record.
func putGrant(ctx context.Context, tx *sql.Tx, r grant.Record) error {
	_, err := tx.ExecContext(ctx, `insert into sallyport_grants (id, connector, owner_kind, owner_id, account_id,
		account_name, region, chain, client_id, access, requested, scopes, offline, status, reason, generation, version,
		sealed, wrapped, key_id, access_expires_ms, reconsent_ms, connected_by, connected_ms, refreshed_ms, retry_ms,
		destinations)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
			$23, $24, $25, $26, $27)
		on conflict (id) do update set owner_kind = excluded.owner_kind, owner_id = excluded.owner_id,
			account_id = excluded.account_id, account_name = excluded.account_name, region = excluded.region,
			chain = excluded.chain, client_id = excluded.client_id, access = excluded.access,
			requested = excluded.requested, scopes = excluded.scopes, offline = excluded.offline,
			status = excluded.status, reason = excluded.reason, generation = excluded.generation,
			version = excluded.version, sealed = excluded.sealed, wrapped = excluded.wrapped, key_id = excluded.key_id,
			access_expires_ms = excluded.access_expires_ms, reconsent_ms = excluded.reconsent_ms,
			connected_by = excluded.connected_by, connected_ms = excluded.connected_ms,
			refreshed_ms = excluded.refreshed_ms, retry_ms = excluded.retry_ms, destinations = excluded.destinations`,
		r.ID, r.Connector, string(r.Owner.Kind), r.Owner.ID, r.Account.ID, r.Account.Name, r.Account.Region,
		r.Account.Chain, r.ClientID, listText(r.Access), listText(r.Requested), listText(r.Scopes), flag(r.Offline),
		string(r.Status), r.Reason, r.Generation, r.Version, filled(r.Sealed), filled(r.Wrapped), r.KeyID,
		msOf(r.AccessExpires), msOf(r.Reconsent), r.ConnectedBy, msOf(r.ConnectedAt), msOf(r.RefreshedAt),
		msOf(r.RetryAt), listText(r.Destinations))
	if err != nil {
		return fmt.Errorf("write the grant: %w", err)
	}
	return nil
}

// putNewest writes a Record of a generation that is new, and ends the lease.
func putNewest(ctx context.Context, tx *sql.Tx, r grant.Record) error {
	if err := putGrant(ctx, tx, r); err != nil {
		return err
	}
	return putState(ctx, tx, r.ID, state{newest: r.Generation})
}

// filled is never nil, which would be no value.
func filled(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func putState(ctx context.Context, tx *sql.Tx, id string, s state) error {
	_, err := tx.ExecContext(ctx, `insert into sallyport_grant_refreshes
		(grant_id, generation, attempt, began_ms, until_ms, shown, shown_ms) values ($1, $2, $3, $4, $5, $6, $7)
		on conflict (grant_id) do update set generation = excluded.generation, attempt = excluded.attempt,
			began_ms = excluded.began_ms, until_ms = excluded.until_ms, shown = excluded.shown,
			shown_ms = excluded.shown_ms`,
		id, s.newest, s.attempt, s.began, s.until, s.shown, s.shownSince)
	if err != nil {
		return fmt.Errorf("write the lease: %w", err)
	}
	return nil
}

// putConsent writes a consent in the place of the one that its app has.
func putConsent(ctx context.Context, tx *sql.Tx, id string, c grant.Consent) error {
	if c.App == "" {
		return nil
	}
	_, err := tx.ExecContext(ctx, `insert into sallyport_grant_consents
		(grant_id, app, access, offline, until_ms, lapses_ms, agreed_by, agreed_ms, used_ms)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		on conflict (grant_id, app) do update set access = excluded.access, offline = excluded.offline,
			until_ms = excluded.until_ms, lapses_ms = excluded.lapses_ms, agreed_by = excluded.agreed_by,
			agreed_ms = excluded.agreed_ms, used_ms = case when sallyport_grant_consents.used_ms > excluded.used_ms
				then sallyport_grant_consents.used_ms else excluded.used_ms end`,
		id, c.App, listText(c.Access), flag(c.Offline), msOf(c.Until), msOf(c.Lapses), c.By, msOf(c.At), msOf(c.UsedAt))
	if err != nil {
		return fmt.Errorf("write the consent: %w", err)
	}
	return nil
}

// deleteConsent reports whether there was one.
func deleteConsent(ctx context.Context, tx *sql.Tx, id, app string) (bool, error) {
	done, err := tx.ExecContext(ctx, `delete from sallyport_grant_consents where grant_id = $1 and app = $2`, id, app)
	if err != nil {
		return false, fmt.Errorf("delete the consent: %w", err)
	}
	n, err := done.RowsAffected()
	return n > 0, err
}

// grow counts a change of r that people can see.
func grow(ctx context.Context, tx *sql.Tx, r *row) error {
	_, err := tx.ExecContext(ctx, `update sallyport_grants set version = $1 where id = $2`, r.Version+1, r.ID)
	if err != nil {
		return fmt.Errorf("write the grant: %w", err)
	}
	return nil
}

// Get implements grant.Store.
func (g *Grants) Get(ctx context.Context, k grant.Key) (grant.Kept, error) {
	if keepable(k.Connector, k.Owner.ID) != nil {
		return grant.Kept{}, grant.ErrNotFound
	}
	list, err := g.read(ctx, g.preparedByKey, keyArgs(k))
	if err != nil {
		return grant.Kept{}, err
	}
	if len(list) == 0 {
		return grant.Kept{}, grant.ErrNotFound
	}
	return list[0], nil
}

// List implements grant.Store.
func (g *Grants) List(ctx context.Context, f grant.Filter) ([]grant.Kept, error) {
	if f.Most <= 0 {
		f.Most = defaultGrants
	}
	var args []any
	arg := func(v any) string {
		args = append(args, v)
		return fmt.Sprint("$", len(args))
	}
	where := []string{`id > ` + arg(f.After)}
	for column, value := range map[string]string{"id": f.ID, "connector": f.Connector, "chain": f.Chain,
		"account_id": f.Account} {
		if value != "" {
			where = append(where, column+` = `+arg(value))
		}
	}
	var owners []string
	for _, o := range f.Owners {
		owners = append(owners, `owner_kind = `+arg(string(o.Kind))+` and owner_id = `+arg(o.ID))
	}
	if owners != nil {
		where = append(where, `(`+strings.Join(owners, ` or `)+`)`)
	}
	text := kept(strings.Join(where, ` and `) + ` order by id limit ` + fmt.Sprint(f.Most))
	return g.read(ctx, func(ctx context.Context, args ...any) (*sql.Rows, error) {
		return g.s.d.Lists.QueryContext(ctx, text, args...)
	}, args)
}

// kept is the question for grants with their consents.
func kept(where string) string {
	return `select ` + grantColumns + `, coalesce(c.app, ''), coalesce(c.access, ''),
		coalesce(c.offline, 0), coalesce(c.until_ms, 0), coalesce(c.lapses_ms, 0), coalesce(c.agreed_by, ''),
		coalesce(c.agreed_ms, 0), coalesce(c.used_ms, 0)
		from (select * from sallyport_grants g where status <> 'disconnected' and ` + where + `) g
		left join sallyport_grant_consents c on c.grant_id = g.id order by g.id`
}

// preparedByKey asks for one grant, as every loan does. SQLite takes longer to read the
// question than to answer it; what speaks to servers keeps such statements by itself.
func (g *Grants) preparedByKey(ctx context.Context, args ...any) (*sql.Rows, error) {
	if !g.s.d.Embedded {
		return g.s.d.Lists.QueryContext(ctx, kept(byKey), args...)
	}
	statement := g.s.grantBy.Load()
	if statement == nil {
		made, err := g.s.d.Lists.PrepareContext(ctx, kept(byKey))
		if err != nil {
			return nil, fmt.Errorf("prepare: %w", err)
		}
		if g.s.grantBy.CompareAndSwap(nil, made) {
			statement = made
		} else {
			statement = g.s.grantBy.Load()
			_ = made.Close()
		}
	}
	return statement.QueryContext(ctx, args...)
}

// read reads grants with their consents in one statement, so that they belong together.
// It waits for nobody who writes.
func (g *Grants) read(ctx context.Context, ask func(context.Context, ...any) (*sql.Rows, error), args []any) (
	[]grant.Kept, error) {
	ctx, cancel := context.WithTimeout(ctx, g.s.o.Timeout)
	defer cancel()
	if err := g.s.usable(); err != nil {
		return nil, answered(err)
	}
	rows, err := ask(ctx, args...)
	if err != nil {
		return nil, answered(fmt.Errorf("read grants: %w", err))
	}
	defer rows.Close()
	var list []grant.Kept
	for rows.Next() {
		var r grant.Record
		var c consentRow
		places, complete := grantScan(&r)
		err := rows.Scan(append(places, c.places()...)...)
		if err = errors.Join(err, complete(), c.complete()); err != nil {
			return nil, answered(fmt.Errorf("read grants: %w", err))
		}
		if len(list) == 0 || list[len(list)-1].ID != r.ID {
			list = append(list, grant.Kept{Record: r})
		}
		if last := &list[len(list)-1]; c.App != "" {
			last.Consents = append(last.Consents, c.Consent)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, answered(fmt.Errorf("read grants: %w", err))
	}
	for i := range list {
		slices.SortFunc(list[i].Consents, func(a, b grant.Consent) int { return cmp.Compare(a.App, b.App) })
	}
	return list, nil
}

// consentRow is a consent while it is read.
type consentRow struct {
	grant.Consent
	access                             string
	offline, until, lapses, at, usedAt int64
}

func (c *consentRow) places() []any {
	return []any{&c.App, &c.access, &c.offline, &c.until, &c.lapses, &c.By, &c.at, &c.usedAt}
}

func (c *consentRow) complete() error {
	c.Offline = c.offline != 0
	c.Until, c.Lapses, c.At, c.UsedAt = timeOf(c.until), timeOf(c.lapses), timeOf(c.at), timeOf(c.usedAt)
	return listOf(c.access, &c.Access)
}

// Connect implements grant.Store.
func (g *Grants) Connect(ctx context.Context, r grant.Record, c grant.Consent, was int64, seal grant.Seal) (
	grant.Record, error) {
	if err := keepable(r.Connector, r.Owner.ID, c.App, c.By, r.ConnectedBy); err != nil {
		return grant.Record{}, err
	}
	r = plainRecord(r)
	err := g.change(ctx, g.s.d.Begin, false, func(ctx context.Context, tx *sql.Tx) error {
		there, err := g.lockAny(ctx, tx, byKey, keyArgs(r.Key)...)
		if err != nil {
			return err
		}
		if err := free(ctx, tx, r); err != nil {
			return err
		}
		live := there != nil && there.Status != grant.Disconnected
		switch {
		case live && there.Version != was, !live && was != 0:
			return refusal{grant.ErrChanged}
		case live:
			r.ID, r.Version, r.Generation = there.ID, there.Version+1, max(there.Generation, there.newest)+1
		case there != nil:
			r.ID, r.Version, r.Generation = rand.Text(), there.Version+1, there.Generation+1
			if err := deleteTombstone(ctx, tx, there.ID); err != nil {
				return err
			}
		default:
			r.ID, r.Version, r.Generation = rand.Text(), 1, 1
		}
		sealed, err := seal(r)
		if err != nil {
			return refusal{err}
		}
		r = withSealed(r, sealed)
		if err := putNewest(ctx, tx, r); err != nil {
			return err
		}
		if live {
			if err := g.notice(ctx, tx, there, r.Status); err != nil {
				return err
			}
		}
		return putConsent(ctx, tx, r.ID, c)
	})
	if err != nil {
		return grant.Record{}, answered(err)
	}
	return asKept(r), nil
}

// deleteTombstone deletes all that there is of a grant that was disconnected. A copy of its
// row that comes back is one of which no generation was ever committed.
func deleteTombstone(ctx context.Context, tx *sql.Tx, id string) error {
	for _, statement := range [...]string{`delete from sallyport_grants where id = $1`,
		`delete from sallyport_grant_refreshes where grant_id = $1`} {
		if _, err := tx.ExecContext(ctx, statement, id); err != nil {
			return fmt.Errorf("delete the tombstone: %w", err)
		}
	}
	return nil
}

// free refuses a chain that another owner has.
func free(ctx context.Context, tx *sql.Tx, r grant.Record) error {
	if r.Account.Chain == "" {
		return nil
	}
	var others int
	err := tx.QueryRowContext(ctx, `select count(*) from sallyport_grants where connector = $1 and chain = $2
		and not (owner_kind = $3 and owner_id = $4)`,
		r.Connector, r.Account.Chain, string(r.Owner.Kind), r.Owner.ID).Scan(&others)
	if err != nil {
		return fmt.Errorf("look for the account: %w", err)
	}
	if others > 0 {
		return refusal{grant.ErrChain}
	}
	return nil
}

func withSealed(r, sealed grant.Record) grant.Record {
	r.Sealed, r.Wrapped, r.KeyID = sealed.Sealed, sealed.Wrapped, sealed.KeyID
	r.Destinations = sealed.Destinations
	return r
}

// Agree implements grant.Store.
func (g *Grants) Agree(ctx context.Context, id string, c grant.Consent, was int64) error {
	if err := keepable(c.App, c.By); err != nil {
		return err
	}
	return answered(g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		r, err := g.lockByID(ctx, tx, id)
		if err != nil {
			return err
		}
		if r.Version != was {
			return refusal{grant.ErrChanged}
		}
		if err := putConsent(ctx, tx, id, c); err != nil {
			return err
		}
		return grow(ctx, tx, r)
	}))
}

// Withdraw implements grant.Store.
func (g *Grants) Withdraw(ctx context.Context, k grant.Key, app string) (was bool, err error) {
	err = g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		was = false
		r, err := g.lockByKey(ctx, tx, k)
		if err != nil {
			return err
		}
		if was, err = deleteConsent(ctx, tx, r.ID, app); err != nil || !was {
			return err
		}
		if err := g.noticeOne(ctx, tx, r, app); err != nil {
			return err
		}
		return grow(ctx, tx, r)
	})
	if err = answered(err); errors.Is(err, grant.ErrNotFound) {
		return false, nil
	}
	return was && err == nil, err
}

// Disconnect implements grant.Store.
func (g *Grants) Disconnect(ctx context.Context, id string) (was grant.Kept, err error) {
	err = g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		r, err := g.lockByID(ctx, tx, id)
		if err != nil {
			return err
		}
		was = grant.Kept{Record: r.Record}
		if was.Consents, err = consents(ctx, tx, r.ID); err != nil {
			return err
		}
		if err := g.notice(ctx, tx, r, grant.Disconnected); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `delete from sallyport_grant_consents where grant_id = $1`, r.ID); err != nil {
			return fmt.Errorf("delete the consents: %w", err)
		}
		tombstone := grant.Record{ID: r.ID, Key: r.Key, Status: grant.Disconnected, Version: r.Version + 1,
			Generation: max(r.newest, r.Generation) + 1} // a copy of the row that comes back is older
		return putNewest(ctx, tx, tombstone)
	})
	if err != nil {
		return grant.Kept{}, answered(err)
	}
	return was, nil
}

// consents of a grant that is locked, by app.
func consents(ctx context.Context, tx *sql.Tx, id string) (list []grant.Consent, err error) {
	rows, err := tx.QueryContext(ctx, `select app, access, offline, until_ms, lapses_ms, agreed_by, agreed_ms, used_ms
		from sallyport_grant_consents where grant_id = $1`, id)
	if err != nil {
		return nil, fmt.Errorf("read the consents: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var c consentRow
		if err := errors.Join(rows.Scan(c.places()...), c.complete()); err != nil {
			return nil, fmt.Errorf("read the consents: %w", err)
		}
		list = append(list, c.Consent)
	}
	slices.SortFunc(list, func(a, b grant.Consent) int { return cmp.Compare(a.App, b.App) })
	return list, rows.Err()
}

// Move implements grant.Store.
func (g *Grants) Move(ctx context.Context, from, to grant.Owner,
	reseal func(was, becomes grant.Record) (grant.Record, error)) (n int, err error) {
	if err := keepable(to.ID); err != nil {
		return 0, err
	}
	if from == to {
		return 0, nil
	}
	err = g.change(ctx, g.s.d.Begin, false, func(ctx context.Context, tx *sql.Tx) error {
		n = 0
		ids, err := texts(ctx, tx, `select id from sallyport_grants
			where owner_kind = $1 and owner_id = $2 and status <> 'disconnected' order by id`,
			string(from.Kind), from.ID)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := g.moveOne(ctx, tx, id, to, reseal); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	if err != nil {
		return 0, answered(err)
	}
	return n, nil
}

func (g *Grants) moveOne(ctx context.Context, tx *sql.Tx, id string, to grant.Owner,
	reseal func(was, becomes grant.Record) (grant.Record, error)) error {
	r, err := g.lockByID(ctx, tx, id)
	if err != nil {
		return err
	}
	if r.leased() {
		return refusal{grant.ErrHeld}
	}
	key := grant.Key{Connector: r.Connector, Owner: to}
	there, err := g.lockAny(ctx, tx, byKey, keyArgs(key)...)
	switch {
	case err != nil:
		return err
	case there != nil && there.Status != grant.Disconnected:
		return refusal{grant.ErrChanged}
	case there != nil:
		if err := deleteTombstone(ctx, tx, there.ID); err != nil {
			return err
		}
	}
	next := r.Record
	next.Key = key
	next.Version++
	next.Generation = max(r.Generation, r.newest) + 1
	sealed, err := reseal(r.Record, next)
	if err != nil {
		return refusal{err}
	}
	if err := putGrant(ctx, tx, withSealed(next, sealed)); err != nil {
		return err
	}
	r.newest = next.Generation
	return putState(ctx, tx, id, r.state)
}

// texts reads one column.
func texts(ctx context.Context, tx *sql.Tx, query string, args ...any) (list []string, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read grants: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, fmt.Errorf("read grants: %w", err)
		}
		list = append(list, text)
	}
	return list, rows.Err()
}

// leased reports whether somebody may show the refresh token of r now.
func (r *row) leased() bool {
	return r.attempt != "" && r.until > r.now.UnixMilli() && !grant.Lease{Until: timeOf(r.until)}.IsAhead(r.now)
}

// SetStatus implements grant.Store.
func (g *Grants) SetStatus(ctx context.Context, id string, generation int64, status grant.Status, reason string,
	retryAt time.Time) error {
	return answered(g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		r, err := g.lockByID(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case r.Generation != generation:
			return refusal{grant.ErrChanged}
		case r.leased():
			return refusal{grant.ErrHeld}
		}
		return g.setStatus(ctx, tx, r, status, reason, retryAt)
	}))
}

func (g *Grants) setStatus(ctx context.Context, tx *sql.Tx, r *row, s grant.Status, reason string,
	retryAt time.Time) error {
	_, err := tx.ExecContext(ctx, `update sallyport_grants set status = $1, reason = $2, retry_ms = $3, version = $4
		where id = $5`, string(s), plain(reason), msOf(retryAt), r.Version+1, r.ID)
	if err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return g.notice(ctx, tx, r, s)
}

// Used implements grant.Store.
func (g *Grants) Used(ctx context.Context, id, app string, at time.Time) error {
	return answered(g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `update sallyport_grant_consents set used_ms = $1
			where grant_id = $2 and app = $3 and used_ms < $1`, msOf(at), id, app)
		if err != nil {
			return fmt.Errorf("note the use: %w", err)
		}
		return nil
	}))
}

// Rewrap implements grant.Store.
func (g *Grants) Rewrap(ctx context.Context, was grant.Record, wrapped []byte, keyID string) error {
	return answered(g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		r, err := g.lockByID(ctx, tx, was.ID)
		if err != nil {
			return err
		}
		if r.KeyID != was.KeyID || !bytes.Equal(r.Wrapped, was.Wrapped) {
			return refusal{grant.ErrChanged}
		}
		_, err = tx.ExecContext(ctx, `update sallyport_grants set wrapped = $1, key_id = $2 where id = $3`,
			filled(wrapped), keyID, was.ID)
		if err != nil {
			return fmt.Errorf("write the key: %w", err)
		}
		return nil
	}))
}

// Bind implements grant.Store.
func (g *Grants) Bind(ctx context.Context, was, bound grant.Record) error {
	return answered(g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		r, err := g.lockByID(ctx, tx, was.ID)
		if err != nil {
			return err
		}
		if r.Generation != was.Generation || !bytes.Equal(r.Sealed, was.Sealed) || len(r.Destinations) > 0 {
			return refusal{grant.ErrChanged}
		}
		_, err = tx.ExecContext(ctx, `update sallyport_grants set sealed = $1, destinations = $2 where id = $3`,
			filled(bound.Sealed), listText(bound.Destinations), was.ID)
		if err != nil {
			return fmt.Errorf("note where a grant may be sent: %w", err)
		}
		return nil
	}))
}

// SignedIn implements grant.Store. Most people have no offline consent, so that it looks
// before it locks anything.
func (g *Grants) SignedIn(ctx context.Context, person string, lapses time.Time,
	keep func(grant.Key, grant.Consent) bool) (ended []grant.Ending, err error) {
	const offline = `select distinct grant_id from sallyport_grant_consents where agreed_by = $1 and offline = 1`
	limited, cancel := context.WithTimeout(ctx, g.s.o.Timeout)
	defer cancel()
	if err := g.s.usable(); err != nil {
		return nil, answered(err)
	}
	var some string
	err = g.s.d.Lists.QueryRowContext(limited, offline+` limit 1`, person).Scan(&some)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, answered(fmt.Errorf("look for offline consents: %w", err))
	}
	err = g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		ended = nil
		ids, err := texts(ctx, tx, offline+` order by grant_id`, person)
		if err != nil {
			return err
		}
		for _, id := range ids { // in one order, so that two transactions do not wait for each other
			gone, err := g.signedIn(ctx, tx, id, person, lapses, keep)
			if err != nil {
				return err
			}
			ended = append(ended, gone...)
		}
		return nil
	})
	if err != nil {
		return nil, answered(err)
	}
	return ended, nil
}

// signedIn goes through the consents of one grant.
func (g *Grants) signedIn(ctx context.Context, tx *sql.Tx, id, person string, lapses time.Time,
	keep func(grant.Key, grant.Consent) bool) (ended []grant.Ending, err error) {
	r, err := g.lockByID(ctx, tx, id)
	if errors.Is(err, grant.ErrNotFound) { // it was disconnected meanwhile
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := consents(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		if !c.Offline || c.By != person {
			continue
		}
		if keep(r.Key, c) {
			_, err = tx.ExecContext(ctx, `update sallyport_grant_consents set lapses_ms = $1
				where grant_id = $2 and app = $3`, msOf(lapses), id, c.App)
		} else {
			ended = append(ended, grant.Ending{Key: r.Key, App: c.App})
			c.Offline, c.Until, c.Lapses = false, time.Time{}, time.Time{}
			err = putConsent(ctx, tx, id, c)
		}
		if err != nil {
			return nil, fmt.Errorf("write the consent: %w", err)
		}
	}
	if len(ended) > 0 {
		err = grow(ctx, tx, r)
	}
	return ended, err
}

// Lease implements grant.Store.
func (g *Grants) Lease(ctx context.Context, id string, generation int64) (l grant.Lease, was grant.Record, err error) {
	room := g.s.d.Room
	if room != nil {
		if err := room.Hold(); err != nil {
			return l, was, fmt.Errorf("%w: %w", grant.ErrNoRoom, err)
		}
	}
	err = g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		l = grant.Lease{}
		r, err := g.lockByID(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case r.Generation != r.newest:
			return refusal{grant.ErrRolledBack}
		case r.Generation != generation:
			return refusal{grant.ErrChanged}
		case r.leased():
			l.Until = timeOf(r.until)
			return refusal{grant.ErrHeld}
		}
		r.countAttempt() // of a holder that went without a word
		r.attempt, r.began, r.until = rand.Text(), r.now.UnixMilli(), r.now.Add(grant.LeaseTime).UnixMilli()
		l = grant.Lease{ID: id, Attempt: r.attempt, Generation: generation, Shown: r.shown,
			Since: timeOf(r.shownSince), Until: timeOf(r.until)}
		was = r.Record
		return putState(ctx, tx, id, r.state)
	})
	switch {
	case err == nil:
		return l, was, nil
	case room != nil && room.Full(err):
		return grant.Lease{}, grant.Record{}, fmt.Errorf("%w: %w", grant.ErrNoRoom, err)
	}
	return l, grant.Record{}, answered(err)
}

// countAttempt ends a lease whose outcome is not known.
func (s *state) countAttempt() {
	if s.attempt == "" {
		return
	}
	if s.shown++; s.shownSince == 0 {
		s.shownSince = s.began
	}
	s.attempt = ""
}

// held locks the grant of a lease that is not over.
func (g *Grants) held(ctx context.Context, tx *sql.Tx, l grant.Lease) (*row, error) {
	r, err := g.lockByID(ctx, tx, l.ID)
	if errors.Is(err, grant.ErrNotFound) || err == nil && (r.Generation != l.Generation ||
		r.attempt != l.Attempt || r.attempt == "" || r.until <= r.now.UnixMilli()) {
		return nil, refusal{grant.ErrFenced}
	}
	return r, err
}

// Renew implements grant.Store.
func (g *Grants) Renew(ctx context.Context, l grant.Lease) (grant.Lease, error) {
	renewed := l
	err := g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		r, err := g.held(ctx, tx, l)
		if err != nil {
			return err
		}
		r.until = r.now.Add(grant.LeaseTime).UnixMilli()
		renewed.Until = timeOf(r.until)
		return putState(ctx, tx, r.ID, r.state)
	})
	if err != nil {
		return l, answered(err)
	}
	return renewed, nil
}

// Commit implements grant.Store.
func (g *Grants) Commit(ctx context.Context, l grant.Lease, result grant.Record, seal grant.Seal) (
	grant.Record, error) {
	return g.commit(ctx, result, seal, func(ctx context.Context, tx *sql.Tx) (*row, error) {
		return g.held(ctx, tx, l)
	})
}

// Late implements grant.Store.
func (g *Grants) Late(ctx context.Context, l grant.Lease, result grant.Record, seal grant.Seal) (
	grant.Record, error) {
	return g.commit(ctx, result, seal, func(ctx context.Context, tx *sql.Tx) (*row, error) {
		r, err := g.lockByID(ctx, tx, l.ID)
		if errors.Is(err, grant.ErrNotFound) || err == nil && r.Generation != l.Generation {
			return nil, refusal{grant.ErrFenced}
		}
		return r, err
	})
}

// commit stores a result with the grant that waits for it.
func (g *Grants) commit(ctx context.Context, result grant.Record, seal grant.Seal,
	waits func(context.Context, *sql.Tx) (*row, error)) (next grant.Record, err error) {
	result = plainRecord(result)
	err = g.change(ctx, g.s.d.Durable, true, func(ctx context.Context, tx *sql.Tx) error {
		r, err := waits(ctx, tx)
		if err != nil {
			return err
		}
		if r.Key != result.Key || r.Generation != r.newest {
			return refusal{grant.ErrFenced}
		}
		next = r.Record
		next.Scopes, next.Status, next.Reason = result.Scopes, result.Status, result.Reason
		next.AccessExpires, next.Reconsent = result.AccessExpires, result.Reconsent
		next.RefreshedAt, next.RetryAt = result.RefreshedAt, result.RetryAt
		next.Generation++
		next.Version++
		sealed, err := seal(next)
		if err != nil {
			return refusal{err}
		}
		next = withSealed(next, sealed)
		if err := g.notice(ctx, tx, r, next.Status); err != nil {
			return err
		}
		return putNewest(ctx, tx, next)
	})
	if err != nil {
		return grant.Record{}, answered(err)
	}
	return asKept(next), nil
}

// Abandon implements grant.Store.
func (g *Grants) Abandon(ctx context.Context, l grant.Lease, known bool, s grant.Status, reason string,
	retryAt time.Time) error {
	return answered(g.change(ctx, g.s.d.Durable, true, func(ctx context.Context, tx *sql.Tx) error {
		r, err := g.held(ctx, tx, l)
		if err != nil {
			return err
		}
		if !known {
			r.countAttempt()
		}
		r.attempt = ""
		if s != "" {
			if err := g.setStatus(ctx, tx, r, s, reason, retryAt); err != nil {
				return err
			}
		}
		return putState(ctx, tx, r.ID, r.state)
	}))
}

// keepable refuses what is a name to us and would be kept as another one.
func keepable(names ...string) error {
	for _, name := range names {
		if plain(name) != name {
			return errors.New("store: a name of a grant is too long, or no text")
		}
	}
	return nil
}

// plainRecord has what others chose be text that both databases can keep.
func plainRecord(r grant.Record) grant.Record {
	for _, text := range [...]*string{&r.Account.ID, &r.Account.Name, &r.Account.Region, &r.Account.Chain, &r.ClientID,
		&r.Reason} {
		*text = plain(*text)
	}
	return r
}

// asKept is r as it will be read.
func asKept(r grant.Record) grant.Record {
	for _, t := range [...]*time.Time{&r.AccessExpires, &r.Reconsent, &r.ConnectedAt, &r.RefreshedAt, &r.RetryAt} {
		*t = timeOf(msOf(*t))
	}
	return r
}

// msOf is how a time is kept; 0 is none.
func msOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func flag(is bool) int64 {
	if is {
		return 1
	}
	return 0
}
