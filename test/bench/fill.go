package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store"
	"github.com/sallyport-proxy/sallyport/store/sqlite"
)

// fillStore makes a store in which n sign-ins have ended. They are written as the store does it,
// but all at once: a million transactions would take hours.
func fillStore(file string, n int) error {
	ctx := context.Background()
	s, err := sqlite.Open(ctx, file, store.Options{})
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return err
	}
	return errors.Join(insert(ctx, db, n), db.Close())
}

func insert(ctx context.Context, db *sql.DB, n int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	one, err := tx.PrepareContext(ctx, `insert into sallyport_ended
		(kind, key, whose, below, before_ms, until_ms, created_ms) values ($1, $2, $3, $4, $5, $6, $7)`)
	if err != nil {
		return err
	}
	now := time.Now()
	for i := range n {
		r, err := session.Cut{Root: fmt.Sprintf("%022d", i), Person: fmt.Sprint("sso:person-", i),
			Before: now.Add(-time.Hour), Until: now.Add(11 * time.Hour)}.Record(now)
		if err != nil {
			return err
		}
		if _, err := one.ExecContext(ctx, int64(r.Kind), r.Key[:], r.Whose[:], int64(r.Below), r.Before, r.Until,
			now.UnixMilli()); err != nil {
			return err
		}
	}
	return tx.Commit()
}
