package granttest

import (
	"context"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
)

// claim is one value of Store.Claim.
type claim struct {
	until time.Time // of who has it; zero: nobody
	taken bool
}

func (s *Store) claimOf(value string) *claim {
	if s.claims == nil {
		s.claims = map[string]*claim{}
	}
	if s.claims[value] == nil {
		s.claims[value] = &claim{}
	}
	return s.claims[value]
}

// Claim implements grant.Store.
func (s *Store) Claim(ctx context.Context, value string, until time.Time) (bool, error) {
	if err := s.begin(ctx, "Claim"); err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	c := s.claimOf(value)
	switch {
	case c.until.After(s.Now()) && !c.until.After(until.Add(grant.ClocksApart)):
		return false, grant.ErrHeld
	case c.taken:
		return true, nil
	}
	c.until = ms(until)
	return false, nil
}

// Taken implements grant.Store. It forgets nothing.
func (s *Store) Taken(ctx context.Context, value string, until, _ time.Time) error {
	if err := s.begin(ctx, "Taken"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	c := s.claimOf(value)
	c.taken = true
	if c.until.Equal(ms(until)) {
		c.until = time.Time{}
	}
	return nil
}

// Unclaim implements grant.Store.
func (s *Store) Unclaim(ctx context.Context, value string, until time.Time) error {
	if err := s.begin(ctx, "Unclaim"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if c := s.claimOf(value); c.until.Equal(ms(until)) {
		c.until = time.Time{}
	}
	return nil
}
