package session

import (
	"context"
	"fmt"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// logoutSkew is how far a provider's clock may be from ours (as for ID tokens). It
// bounds two things that a logout token says: which sign-ins it can be about, and how
// long it can be sent again.
const logoutSkew = time.Minute

// EndFromProvider ends what l, which provider has signed, says is over, and uses l up:
// both or neither. first is false for a message that was used before; then nothing
// ends. With an error l is not used up, so that the provider can send it again.
func (m *Manager) EndFromProvider(ctx context.Context, provider string, l identity.ProviderLogout) (
	first bool, err error) {
	// A message that arrives late must not end a sign-in that came after it. Nobody is
	// left signed in for it: what was there when it was issued began before.
	before := m.now()
	if latest := l.Issued.Add(logoutSkew); latest.Before(before) {
		before = latest
	}
	c := Cut{Person: l.Person, Before: before, Until: before.Add(m.absolute)}
	if l.ProviderSID != "" {
		c.Provider, c.ProviderSID = provider, l.ProviderSID
	}
	first, err = m.ended.EndOnce(ctx, c, "jti/"+provider+"/"+l.ID, l.Until.Add(logoutSkew))
	if err != nil {
		return false, fmt.Errorf("end sessions for the provider: %w", err)
	}
	return first, nil
}
