package granttest

import (
	"context"
	"slices"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
)

// notice is one that is kept, and when somebody may have it.
type notice struct {
	grant.Notice
	due time.Time
}

// notice notes what apps are to be told when the status of r becomes is.
func (s *Store) notice(r *row, is grant.Status) {
	kind := grant.NoticeOf(r.Status, is)
	if kind == "" {
		return
	}
	for _, c := range r.consents {
		s.put(r.Key, c.App, kind, is)
	}
}

func (s *Store) put(k grant.Key, app string, kind grant.NoticeKind, is grant.Status) {
	s.lastNotice++
	now := s.Now()
	s.notices = append(s.notices, notice{grant.Notice{ID: s.lastNotice, App: app, Kind: kind, Key: k, Status: is,
		At: now}, now})
}

// Notices implements grant.Store.
func (s *Store) Notices(ctx context.Context, app string, most int) ([]grant.Notice, error) {
	if err := s.begin(ctx, "Notices"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	now := s.Now()
	if slices.ContainsFunc(s.notices, func(n notice) bool {
		return n.App == app && n.due.After(now) && !n.due.After(now.Add(grant.NoticeWait+grant.ClocksApart))
	}) {
		return nil, nil
	}
	var list []grant.Notice
	for i := range s.notices {
		if n := &s.notices[i]; n.App == app && n.At.After(now.Add(-grant.NoticeLife)) && len(list) < most {
			n.due = now.Add(grant.NoticeLease)
			list = append(list, n.Notice)
		}
	}
	return list, nil
}

// Noticed implements grant.Store.
func (s *Store) Noticed(ctx context.Context, was grant.Notice) error {
	if err := s.begin(ctx, "Noticed"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.notices = slices.DeleteFunc(s.notices, func(n notice) bool { return n.ID == was.ID })
	return nil
}

// NoticesLater implements grant.Store.
func (s *Store) NoticesLater(ctx context.Context, was grant.Notice, failed bool, until time.Time) error {
	if err := s.begin(ctx, "NoticesLater"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	now := s.Now()
	for i := range s.notices {
		n := &s.notices[i]
		if n.App != was.App || !n.due.After(now) {
			continue
		}
		n.due = ms(until)
		if failed && n.ID == was.ID {
			n.Tries++
		}
	}
	return nil
}

// ForgetNotices implements grant.Store.
func (s *Store) ForgetNotices(ctx context.Context, age time.Duration) (map[string]int, error) {
	if err := s.begin(ctx, "ForgetNotices"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	lost, before := map[string]int{}, s.Now().Add(-age)
	s.notices = slices.DeleteFunc(s.notices, func(n notice) bool {
		if n.At.Before(before) {
			lost[n.App]++
			return true
		}
		return false
	})
	return lost, nil
}
