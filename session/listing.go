package session

import (
	"context"
	"encoding/base64"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// Entry is a line in the list of sign-ins: what a person sees of their own sessions,
// and an operator of everybody's. It says nothing that would open a session.
type Entry struct {
	SID    string // Session.SID
	Person string // identity.Identity.ID
	// Org is the organization that was active at the sign-in, and Orgs all of theirs:
	// the active one may have been switched since.
	Org  string
	Orgs []string

	Provider, ProviderSID string

	Since, Until time.Time // in whole milliseconds
	From         string    // the address that the sign-in came from
	Browser      string    // in words, never the header: see internal/useragent
}

// Which says which sign-ins to list: those of a person, of an organization, of a
// person as a member of an organization, or all.
type Which struct {
	Person, Org string
	Most        int // how many at most; 0: 50
}

// Listing is the list of the sign-ins that last, on all replicas that share it.
// Implementations are safe for concurrent use.
type Listing interface {
	// NoteSignIn puts a sign-in on the list. It does not wait until that is written:
	// nobody signs in slower, or fails to, because of a list. Too many that wait are
	// left out.
	NoteSignIn(e Entry)
	// Sessions returns those that are neither over nor ended, the newest first.
	Sessions(ctx context.Context, which Which) ([]Entry, error)
}

// Entry returns the line of the list for a session that has just begun.
func (s *Session) Entry(from, browser string) Entry {
	id := &s.Identity
	e := Entry{SID: s.SID(), Person: id.ID(), Org: id.Org.ID, Provider: id.Provider, ProviderSID: id.ProviderSID,
		Since: s.SignedIn.UTC(), Until: s.Expires.UTC(), From: from, Browser: browser}
	for i := range id.Orgs {
		e.Orgs = append(e.Orgs, id.Orgs[i].ID)
	}
	return e
}

// Cut ends what e tells of, and nothing else. until is when the cut may be forgotten
// at the earliest; the end of e where that is later.
func (e *Entry) Cut(until time.Time) Cut {
	if e.Until.After(until) {
		until = e.Until
	}
	return Cut{SID: e.SID, Person: e.Person, Before: e.Since, Until: until}
}

// Matches reports whether which asks for e.
func (w Which) Matches(e *Entry) bool {
	if w.Person != "" && e.Person != w.Person {
		return false
	}
	if w.Org == "" || e.Org == w.Org {
		return true
	}
	for _, org := range e.Orgs {
		if org == w.Org {
			return true
		}
	}
	return false
}

// identity is as much of whose session it is as cuts can match.
func (e *Entry) identity() identity.Identity {
	id := identity.Identity{Provider: e.Provider, Subject: strings.TrimPrefix(e.Person, e.Provider+":"),
		ProviderSID: e.ProviderSID, Org: identity.Org{ID: e.Org}}
	for _, org := range e.Orgs {
		id.Orgs = append(id.Orgs, identity.Org{ID: org})
	}
	return id
}

// KeyOfSID returns the key of the cut that ends the sign-in of a sid. ok is false
// for what is no sid.
func KeyOfSID(sid string) (key CutKey, ok bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(sid)
	if err != nil || len(raw) != len(key) || len(sid) != base64.RawURLEncoding.EncodedLen(len(key)) {
		return key, false
	}
	return CutKey(raw), true
}

// SID returns the sid whose cut has this key.
func (k CutKey) SID() string { return base64.RawURLEncoding.EncodeToString(k[:]) }
