package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
)

// A claim is a row among what counts once: while somebody hands on what it names, and until
// the claim is over. What was handed on is a row of its own, which comes with the end of the
// claim in one transaction.

// claimKeys are the keys of the claim on a value, and of its having been taken.
func claimKeys(value string) (claim, taken [32]byte) {
	return sha256.Sum256([]byte("claim/" + value)), sha256.Sum256([]byte("taken/" + value))
}

// Claim implements grant.Store. The claim comes first: whoever waited there for somebody
// else's end then sees what that one has noted.
func (g *Grants) Claim(ctx context.Context, value string, until time.Time) (taken bool, err error) {
	claim, took := claimKeys(value)
	err = g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		taken = false
		now, err := g.s.timeIn(ctx, tx)
		if err != nil {
			return fmt.Errorf("claim: %w", err)
		}
		done, err := tx.ExecContext(ctx, `insert into sallyport_once (value, until_ms) values ($1, $2)
			on conflict (value) do update set until_ms = excluded.until_ms
			where sallyport_once.until_ms <= $3 or sallyport_once.until_ms > $4`,
			claim[:], until.UnixMilli(), now.UnixMilli(), until.Add(grant.ClocksApart).UnixMilli())
		if err != nil {
			return fmt.Errorf("claim: %w", err)
		}
		n, err := done.RowsAffected()
		if err == nil && n == 0 {
			err = refusal{grant.ErrHeld}
		}
		if err != nil {
			return err
		}
		var rows int
		if err := tx.QueryRowContext(ctx, `select count(*) from sallyport_once where value = $1`, took[:]).
			Scan(&rows); err != nil {
			return fmt.Errorf("look for what was taken: %w", err)
		}
		if taken = rows > 0; taken {
			return deleteClaim(ctx, tx, claim, until)
		}
		return nil
	})
	return taken && err == nil, answered(err)
}

// Taken implements grant.Store.
func (g *Grants) Taken(ctx context.Context, value string, until, keep time.Time) error {
	claim, took := claimKeys(value)
	return answered(g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := insertOnce(ctx, tx, took, keep.UnixMilli()); err != nil {
			return fmt.Errorf("note what was taken: %w", err)
		}
		return deleteClaim(ctx, tx, claim, until)
	}))
}

// Unclaim implements grant.Store.
func (g *Grants) Unclaim(ctx context.Context, value string, until time.Time) error {
	claim, _ := claimKeys(value)
	return answered(g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		return deleteClaim(ctx, tx, claim, until)
	}))
}

// deleteClaim ends the claim that was given until then. One that was given when it was over
// ends later, so that the time names it.
func deleteClaim(ctx context.Context, tx *sql.Tx, claim [32]byte, until time.Time) error {
	_, err := tx.ExecContext(ctx, `delete from sallyport_once where value = $1 and until_ms = $2`, claim[:],
		until.UnixMilli())
	if err != nil {
		return fmt.Errorf("end a claim: %w", err)
	}
	return nil
}
