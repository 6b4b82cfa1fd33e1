package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
)

// putNotice ends with what the apps are chosen by.
const putNotice = `insert into sallyport_grant_notices
	(app, kind, connector, owner_kind, owner_id, status, at_ms, due_ms, tries) `

// notice notes what the apps that have a consent to r are to be told when its status becomes
// s.
func (g *Grants) notice(ctx context.Context, tx *sql.Tx, r *row, s grant.Status) error {
	kind := grant.NoticeOf(r.Status, s)
	if kind == "" {
		return nil
	}
	now := g.s.Now().UnixMilli()
	_, err := tx.ExecContext(ctx, putNotice+`select app, $1, $2, $3, $4, $5, $6, $6, 0
		from sallyport_grant_consents where grant_id = $7 order by app`,
		string(kind), r.Connector, string(r.Owner.Kind), r.Owner.ID, string(s), now, r.ID)
	if err != nil {
		return fmt.Errorf("note what apps are to be told: %w", err)
	}
	return nil
}

// noticeOne notes that the consent of an app has ended.
func (g *Grants) noticeOne(ctx context.Context, tx *sql.Tx, r *row, app string) error {
	now := g.s.Now().UnixMilli()
	_, err := tx.ExecContext(ctx, putNotice+`values ($1, $2, $3, $4, $5, $6, $7, $7, 0)`, app,
		string(grant.NoticeDisconnected), r.Connector, string(r.Owner.Kind), r.Owner.ID, string(grant.Disconnected),
		now)
	if err != nil {
		return fmt.Errorf("note what an app is to be told: %w", err)
	}
	return nil
}

// Notices implements grant.Store. Most of the time there are none, so that it looks before
// it writes.
func (g *Grants) Notices(ctx context.Context, app string, most int) (list []grant.Notice, err error) {
	looked, cancel := context.WithTimeout(ctx, g.s.o.Timeout)
	defer cancel()
	if err := g.s.usable(); err != nil {
		return nil, answered(err)
	}
	var due int64
	err = g.s.d.Lists.QueryRowContext(looked, `select due_ms from sallyport_grant_notices where app = $1
		order by seq limit 1`, app).Scan(&due)
	if now := g.s.Now(); errors.Is(err, sql.ErrNoRows) || err == nil && due > now.UnixMilli() && due <= tooFar(now) {
		return nil, nil
	}
	if err != nil {
		return nil, answered(fmt.Errorf("look for notices: %w", err))
	}
	err = g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		list = nil
		now, err := g.s.timeIn(ctx, tx)
		if err != nil {
			return fmt.Errorf("take notices: %w", err)
		}
		// due_ms is asked for once more by itself: who waited for a row sees what it is now.
		rows, err := tx.QueryContext(ctx, `update sallyport_grant_notices set due_ms = $1
			where seq in (select seq from sallyport_grant_notices where app = $2 and at_ms > $3 order by seq limit $4)
				and (due_ms <= $5 or due_ms > $6) and not exists (select 1 from sallyport_grant_notices other
					where other.app = $2 and other.due_ms > $5 and other.due_ms <= $6)
			returning seq, app, kind, connector, owner_kind, owner_id, status, at_ms, tries`,
			now.Add(grant.NoticeLease).UnixMilli(), app, now.Add(-grant.NoticeLife).UnixMilli(), most, now.UnixMilli(),
			tooFar(now))
		if err != nil {
			return fmt.Errorf("take notices: %w", err)
		}
		defer rows.Close()
		for rows.Next() {
			var n grant.Notice
			var at int64
			if err := rows.Scan(&n.ID, &n.App, &n.Kind, &n.Connector, &n.Owner.Kind, &n.Owner.ID, &n.Status, &at,
				&n.Tries); err != nil {
				return fmt.Errorf("read a notice: %w", err)
			}
			n.At = timeOf(at)
			list = append(list, n)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, answered(err)
	}
	slices.SortFunc(list, func(a, b grant.Notice) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// tooFar is later than a notice can be due, unless that is from before the clock was set back.
func tooFar(now time.Time) int64 { return now.Add(grant.NoticeWait + grant.ClocksApart).UnixMilli() }

// Noticed implements grant.Store.
func (g *Grants) Noticed(ctx context.Context, n grant.Notice) error {
	return g.noticeChange(ctx, `delete from sallyport_grant_notices where seq = $1`, n.ID)
}

// NoticesLater implements grant.Store.
func (g *Grants) NoticesLater(ctx context.Context, n grant.Notice, failed bool, until time.Time) error {
	return g.noticeChange(ctx, `update sallyport_grant_notices set due_ms = $1,
		tries = tries + case when seq = $2 then $3 else 0 end where app = $4 and due_ms > $5`,
		until.UnixMilli(), n.ID, flag(failed), n.App, g.s.Now().UnixMilli())
}

func (g *Grants) noticeChange(ctx context.Context, statement string, args ...any) error {
	return answered(g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, statement, args...); err != nil {
			return fmt.Errorf("change notices: %w", err)
		}
		return nil
	}))
}

// ForgetNotices implements grant.Store.
func (g *Grants) ForgetNotices(ctx context.Context, age time.Duration) (lost map[string]int, err error) {
	err = g.change(ctx, g.s.d.Durable, false, func(ctx context.Context, tx *sql.Tx) error {
		lost = map[string]int{}
		now, err := g.s.timeIn(ctx, tx)
		if err != nil {
			return err
		}
		apps, err := texts(ctx, tx, `delete from sallyport_grant_notices where at_ms < $1 returning app`,
			now.Add(-age).UnixMilli())
		for _, app := range apps {
			lost[app]++
		}
		return err
	})
	if err != nil {
		return nil, answered(err)
	}
	return lost, nil
}
