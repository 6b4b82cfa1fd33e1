// Package grant is what people lend to the apps behind Sallyport: the broker that lets
// them connect an account at a third party, keeps what they lent sealed, refreshes it,
// lends it to the apps they agreed to, and ends it.
//
// It owns what a grant is and what may become of it (Status), the rules of a consent, how
// credentials are sealed, and who may refresh when (Broker), and what people who run
// Sallyport can do with grants (Operator). It never speaks HTTP with a browser or an app: the
// pages are in proxy, the listener for apps is in gateway. What is not standard about a third
// party is in its folder below connector, and where rows are kept is store's; both come to the
// broker as interfaces.
package grant

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"
)

// OwnerKind says whose grants of a connector are.
type OwnerKind string

const (
	OwnedByUser OwnerKind = "user" // each person's own
	OwnedByOrg  OwnerKind = "org"  // one for all of an organization
)

// Owner is whose a grant is. ID is identity.Identity.ID of a person, or the id of an
// organization as the configuration has it when the grant is made.
type Owner struct {
	Kind OwnerKind
	ID   string
}

// Key is what a grant is found by: an owner has one grant of a connector at most.
type Key struct {
	Connector string // its id in the configuration
	Owner     Owner
}

// Account is who the grant acts as, at the third party.
type Account struct {
	ID   string // never changes there; "": the third party does not tell
	Name string // for people: an address, or the name of a workspace
	// Region selects the origin of the API, in the connector's own words; "" where there is
	// one only.
	Region string
	// Chain names what shares one chain of refresh tokens, such as a workspace, where that
	// is not the owner alone; "": nothing else does. No two grants of a connector have the
	// same.
	Chain string
}

// Status is what has become of a grant. The names are those that apps and people see.
type Status string

const (
	Active          Status = "active"
	Degraded        Status = "degraded"         // the last refresh failed, and trying again may help
	NeedsReconnect  Status = "needs_reconnect"  // the person has to connect it again
	NeedsAdmin      Status = "needs_admin"      // an administrator of the third party has to agree
	TooNarrow       Status = "too_narrow"       // what is granted is no longer enough for its access
	RevokedUpstream Status = "revoked_upstream" // it was ended at the third party
	OperatorError   Status = "operator_error"   // our client is refused; no person can help
	Disconnected    Status = "disconnected"     // ended here; only a tombstone is left
	NotConnected    Status = "not_connected"    // there is none; never in a Record
)

// Usable reports whether the credential of a grant with this status may be used while it
// has not expired.
func (s Status) Usable() bool { return s == Active || s == Degraded || s == OperatorError }

// Tokens are the credential of a grant. It prints as "<tokens>", whatever the verb.
type Tokens struct {
	// Access is what requests carry: an access token, or a pasted key.
	Access        string
	AccessExpires time.Time // zero: it does not expire, or nobody said so
	AccessIssued  time.Time
	// Refresh gets the next Access; "": there is none.
	Refresh        string
	RefreshExpires time.Time // when it is forgotten unless it is used; zero: nobody said so
	// Reusable: a refresh with this Refresh brought no other one, so that showing it once
	// more is harmless even where About.Resend is false. The broker notes it.
	Reusable bool
	// Reconsent is when the third party asks the person again whatever we do; zero: never,
	// or nobody said so.
	Reconsent time.Time
	// Extra is what else a connector must remember and may not be seen by others.
	Extra map[string]string
	// Destinations are where the credential may be sent: those of the connector when the grant
	// was connected. The Broker notes them; none: it is from before they were noted.
	Destinations []Destination
}

// Format implements fmt.Formatter: no verb prints a token.
func (Tokens) Format(s fmt.State, _ rune) { io.WriteString(s, "<tokens>") }

// LogValue implements slog.LogValuer.
func (Tokens) LogValue() slog.Value { return slog.StringValue("<tokens>") }

// MarshalJSON implements json.Marshaler: what is written as JSON by mistake tells nothing.
func (Tokens) MarshalJSON() ([]byte, error) { return []byte(`"<tokens>"`), nil }

// Record is a grant as a store keeps it. What is secret of it is sealed; the rest may be
// read by who can read the database.
type Record struct {
	// ID is random, and made anew when a grant that was disconnected is connected again.
	// Reconnecting one that is there keeps it.
	ID string
	Key
	Account    Account
	ClientID   string   // About.ClientID, for which it was granted
	Access     []string // what it was connected for, in the connector's words
	Requested  []string // the scopes that were asked for
	Scopes     []string // the scopes that were granted
	Offline    bool     // it can be refreshed while the person is away
	Status     Status
	Reason     string // why, from a closed list; "" with Active
	Generation int64  // grows with each credential; the store gives it
	// Version grows with each change of the row; the store gives it.
	Version int64

	// Sealed are the Tokens, sealed with a key of this grant alone, which is Wrapped with
	// the key of the ring that KeyID names. All are empty after Disconnect.
	Sealed, Wrapped []byte
	KeyID           string

	AccessExpires, Reconsent time.Time // as in Tokens, for lists and sweeps
	// Destinations are as in Tokens, for lists; nothing is sent by them where Tokens has some.
	Destinations             []Destination
	ConnectedBy              string // identity.Identity.ID
	ConnectedAt, RefreshedAt time.Time
	RetryAt                  time.Time // no refresh before; zero: now
}

// Consent is what an app may do with a grant. Rules follow from it alone, never from what
// the grant could do.
type Consent struct {
	App    string
	Access []string // of the connector, of those that the app is configured for
	// Offline says that the app may use the grant while the person is away, until Until.
	Offline bool
	Until   time.Time
	Lapses  time.Time // an offline consent ends then too: some time after the newest sign-in of By
	By      string    // identity.Identity.ID of who agreed
	At      time.Time // when; sessions that ended afterwards end an offline consent
	UsedAt  time.Time // when the app last did; written now and then
}

// OfflineUntil is when an offline consent ends unless By signs in again; zero where it is none.
func (c *Consent) OfflineUntil() time.Time {
	switch {
	case !c.Offline:
		return time.Time{}
	case c.Lapses.Before(c.Until):
		return c.Lapses
	}
	return c.Until
}

// Kept is a Record with its consents, as lists have it.
type Kept struct {
	Record
	Consents []Consent // by App
}

// Consent returns the consent of an app, false where there is none.
func (k *Kept) Consent(app string) (Consent, bool) {
	i := slices.IndexFunc(k.Consents, func(c Consent) bool { return c.App == app })
	if i < 0 {
		return Consent{}, false
	}
	return k.Consents[i], true
}

// organization is whose the grant is; "" where it is a person's.
func (k *Kept) organization() string {
	if k.Owner.Kind == OwnedByOrg {
		return k.Owner.ID
	}
	return ""
}
