package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/session"
)

const (
	// announceEvery is how often a replica says that it is there.
	announceEvery = time.Minute
	// replicaKept is how long the row of a replica that is gone stays, where that of
	// another one says all that it says.
	replicaKept = 10 * time.Minute
	// untilMargin is how much longer than a session the cut is kept that ends it.
	untilMargin = 2 * time.Minute
)

// replica is what this process tells the others of itself.
type replica struct {
	id       string
	absolute time.Duration
	told     time.Time
}

// SetAbsolute says that sessions which begin here from now on last for d. What was
// said before goes on to count as long as its sessions can.
func (s *Store) SetAbsolute(d time.Duration) {
	s.mu.Lock()
	if s.self.absolute != d {
		s.self = replica{id: rand.Text(), absolute: d}
	}
	s.longest = max(s.longest, d)
	s.mu.Unlock()
	s.wake()
}

// Until is until when a cut must be kept that ends sessions which began by before.
// It goes by the longest absolute timeout of all replicas whose sessions can still
// be there: one that has stopped counts too, since its cookies are good again when
// it comes back.
func (s *Store) Until(before time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return before.Add(s.longest + untilMargin)
}

// lasting has r be kept for as long as what it ends, by what this process knows. A
// sign-in has its own end.
func (s *Store) lasting(r session.Record) session.Record {
	if r.Kind != session.KindRoot {
		r.Until = max(r.Until, s.Until(time.UnixMilli(r.Before)).UnixMilli())
	}
	return r
}

// longestOf asks q for the longest absolute timeout that counts.
func (s *Store) longestOf(ctx context.Context, q querier) (time.Duration, error) {
	var seconds int64
	err := q.QueryRowContext(ctx, `select coalesce(max(absolute_s), 0) from sallyport_replicas
		where seen_ms + absolute_s * 1000 > $1`, s.Now().Add(-grant.ClocksApart).UnixMilli()).Scan(&seconds)
	if err != nil {
		return 0, fmt.Errorf("read the replicas: %w", err)
	}
	return time.Duration(seconds) * time.Second, nil
}

// readReplicas brings longest up to date.
func (s *Store) readReplicas(ctx context.Context) error {
	longest, err := s.longestOf(ctx, s.d.Follow)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.longest = max(longest, s.self.absolute)
	return nil
}

// announce says that this replica is there, and deletes what says no more than that.
func (s *Store) announce(ctx context.Context) error {
	now := s.o.Now()
	s.mu.Lock()
	self := s.self
	s.mu.Unlock()
	if self.absolute <= 0 || now.Sub(self.told) < announceEvery {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	seen, seconds := s.Now(), int64((self.absolute+time.Second-1)/time.Second)
	err := s.transact(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `insert into sallyport_replicas (id, version, absolute_s, seen_ms)
			values ($1, $2, $3, $4) on conflict (id) do update set seen_ms = excluded.seen_ms`,
			self.id, plain(s.o.Version), seconds, seen.UnixMilli())
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `delete from sallyport_replicas where id <> $1 and seen_ms < $2
			and (absolute_s <= $3 or seen_ms + absolute_s * 1000 < $2)`,
			self.id, seen.Add(-replicaKept).UnixMilli(), seconds)
		return err
	})
	if err != nil {
		return fmt.Errorf("write the replicas: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.self.id == self.id {
		s.self.told = now
	}
	return nil
}
