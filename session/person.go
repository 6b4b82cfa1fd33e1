package session

import (
	"context"
	"fmt"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// EndPerson ends all sign-ins of the person of s that began until now, with s. With an
// error they are over in this process, and perhaps not in others. Who signs in right
// after it is signed in: see Ended.Earliest.
func (m *Manager) EndPerson(ctx context.Context, s *Session) error {
	before := m.now()
	if s.SignedIn.After(before) { // stamped after an earlier cut, by a clock that was ahead
		before = s.SignedIn
	}
	// What began before now is over by then, and so is s, whose end may be later if the
	// timeout was made shorter.
	until := before.Add(m.absolute)
	if end := m.endOf(s); end.After(until) {
		until = end
	}
	if err := m.ended.End(ctx, Cut{Person: s.Identity.ID(), Before: before, Until: until}); err != nil {
		return fmt.Errorf("end all sessions of a person: %w", err)
	}
	return nil
}

// lately is how long ago somebody signed out everywhere whose browser asks for it again.
const lately = time.Minute

// LeftEverywhere reports whether all sessions of the person of s were ended a moment ago.
func (m *Manager) LeftEverywhere(s *Session) bool {
	person := Session{Identity: identity.Identity{Provider: s.Identity.Provider, Subject: s.Identity.Subject}}
	return m.ended.Earliest(person).After(m.now().Add(-lately))
}

// EndListed ends the sign-in that a line of the list tells of. With an error it is
// over in this process, and perhaps not in others.
func (m *Manager) EndListed(ctx context.Context, e *Entry) error {
	if err := m.ended.End(ctx, e.Cut(e.Until)); err != nil {
		return fmt.Errorf("end a listed session: %w", err)
	}
	return nil
}
