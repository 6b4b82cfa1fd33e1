package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/session"
)

// orgsMost bounds the list of organizations that are known by a directory.
const orgsMost = 10_000

// KeepOrg keeps what a directory says of an organization, in the place of what it said before.
// identity.ErrOtherCustomer: that was of another customer of the provider, and stays.
func (s *Store) KeepOrg(ctx context.Context, d identity.OrgDetails) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	var kept int64
	err := s.transact(ctx, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, `insert into sallyport_orgs (id, customer_id, name, domain, read_by, read_ms)
			values ($1, $2, $3, $4, $5, $6)
			on conflict (id) do update set name = excluded.name, domain = excluded.domain,
				read_by = excluded.read_by, read_ms = excluded.read_ms
			where sallyport_orgs.customer_id = excluded.customer_id`,
			d.OrgID, d.CustomerID, plain(d.Name), d.Domain, plain(d.ReadBy), d.ReadAt.UnixMilli())
		if err == nil {
			kept, err = done.RowsAffected()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: keep the details of an organization: %w", session.ErrStore, err)
	}
	if kept == 0 {
		return identity.ErrOtherCustomer
	}
	return nil
}

// OrgDetails returns what is kept of the organization with an id; false: nothing is.
func (s *Store) OrgDetails(ctx context.Context, id string) (identity.OrgDetails, bool, error) {
	list, err := s.orgs(ctx, `where id = $2`, id)
	if err != nil || len(list) == 0 {
		return identity.OrgDetails{}, false, err
	}
	return list[0], true, nil
}

// OrgsDetails returns what is kept of all organizations, in the order of their ids.
func (s *Store) OrgsDetails(ctx context.Context) ([]identity.OrgDetails, error) {
	return s.orgs(ctx, ``)
}

// orgs waits for nobody who writes.
func (s *Store) orgs(ctx context.Context, where string, args ...any) (list []identity.OrgDetails, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	failed := func(err error) error {
		return fmt.Errorf("%w: read the details of organizations: %w", session.ErrStore, err)
	}
	if err := s.usable(); err != nil {
		return nil, failed(err)
	}
	rows, err := s.d.Lists.QueryContext(ctx, `select id, customer_id, name, domain, read_by, read_ms
		from sallyport_orgs `+where+` order by id limit $1`, append([]any{orgsMost}, args...)...)
	if err != nil {
		return nil, failed(err)
	}
	defer rows.Close()
	for rows.Next() {
		var d identity.OrgDetails
		var at int64
		if err := rows.Scan(&d.OrgID, &d.CustomerID, &d.Name, &d.Domain, &d.ReadBy, &at); err != nil {
			return nil, failed(err)
		}
		d.ReadAt = time.UnixMilli(at).UTC()
		list = append(list, d)
	}
	if err := rows.Err(); err != nil {
		return nil, failed(err)
	}
	return list, nil
}

// ErrNoOrg is what ForgetOrg returns where nothing is kept of the organization.
var ErrNoOrg = errors.New("store: nothing is kept of this organization")

// ForgetOrg deletes what is kept of an organization, and returns what that was.
func (s *Store) ForgetOrg(ctx context.Context, id string) (was identity.OrgDetails, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	var at int64
	err = s.transact(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `delete from sallyport_orgs where id = $1
			returning id, customer_id, name, domain, read_by, read_ms`, id).
			Scan(&was.OrgID, &was.CustomerID, &was.Name, &was.Domain, &was.ReadBy, &at)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return identity.OrgDetails{}, ErrNoOrg
	}
	if err != nil {
		return identity.OrgDetails{}, fmt.Errorf("%w: forget an organization: %w", session.ErrStore, err)
	}
	was.ReadAt = time.UnixMilli(at).UTC()
	return was, nil
}
