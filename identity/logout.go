package identity

import "time"

// ProviderLogout is what a provider tells of somebody who signed out there (OpenID
// Connect Back-Channel Logout 1.0). It names a person, a session at the provider, or
// both: then only that session of that person is meant.
type ProviderLogout struct {
	Person      string // an Identity.ID; "": the session names its own
	ProviderSID string // as in Identity; "": all sessions of the person

	ID     string    // the provider's name for this message, which counts once
	Issued time.Time // by the provider's clock
	Until  time.Time // from then on the message is refused for its age
}
