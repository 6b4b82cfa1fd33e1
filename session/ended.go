package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"math"
	"time"
)

// Cut says which sessions are over before their time. A session is over if it
// matches all that the Cut names: a person and a time match the sessions of that
// person that began by then. A Cut names a sign-in (Root or SID), a session at the
// provider (Provider and ProviderSID, and Person where it is that one's only), a person
// or an organization, or only a time.
type Cut struct {
	// Root is a sign-in. Person and Before say whose it is and when it began, so
	// that it can be merged with others.
	Root string
	// SID is a sign-in too, by the name that apps and lists have for it: Session.SID.
	SID string
	// Below, with Root, spares the sessions of this generation and later ones: to
	// switch the organization ends the session before it and not the next. 0: all.
	Below uint64

	Provider, ProviderSID string
	Person                string // identity.Identity.ID
	Org                   string // one of theirs, active or not

	// Before is the last moment at which a sign-in is matched. Only with Root or SID
	// may it be left out.
	Before time.Time
	// Until is when everything that is matched is over in any case, so that the Cut
	// need not be kept any longer.
	Until time.Time
}

// ErrCut is what End and Supersede return for a Cut that names nothing that it
// could match, or too much.
var ErrCut = errors.New("a cut names one of a sign-in, a session at a provider, a person and an organization, " +
	"or a time alone")

// ErrStore is what a list returns that is kept outside this process when it could
// not write there. What was to be ended is over in this process all the same, as
// far as End was told to.
var ErrStore = errors.New("the store cannot be reached or written")

// Ended remembers what ended before its time, on all replicas that share it.
// Implementations are safe for concurrent use, and forget nothing before its
// Until: where they have too much to remember they end more, never less.
type Ended interface {
	// End returns when what c matches is over for good. With an error it is over in
	// this process only.
	End(ctx context.Context, c Cut) error
	// Supersede is End for a Cut of which only one caller may make something new: of
	// all that ask with the same Root and Below, on all replicas, one is told so.
	// With an error nobody is, and perhaps nothing has ended.
	Supersede(ctx context.Context, c Cut) (first bool, err error)
	// EndOnce is End for a message that counts once, such as a logout token: value is
	// consumed as Once does it, and c ends, both or neither. Where value has been
	// consumed before, first is false, and nothing ends. With an error value is not
	// consumed, so that the message can come again, and what c matches is over in this
	// process.
	EndOnce(ctx context.Context, c Cut, value string, until time.Time) (first bool, err error)
	// Ended reports whether s is over. It is answered from memory.
	Ended(s Session) bool
	// Earliest is the first moment at which the person of s can sign in so that no
	// cut matches the new session; zero if any moment will do. It is answered from
	// memory.
	Earliest(s Session) time.Time
	// Heard counts what this process has come to know so far that can end several sign-ins.
	Heard() uint32
	// EndedSince reports whether s is over by something that this process came to know
	// after Heard had returned heard. It is answered from memory.
	EndedSince(s Session, heard uint32) bool
	// Fresh is when this process last knew all that was ended elsewhere.
	Fresh() time.Time
	// Age is how long ago that was: 0 where there is nobody else to hear of, and the
	// longest of all times where it has never been known.
	Age() time.Duration
}

// Once remembers values that count once, such as the salt of a hand-over from one
// host to another. Implementations are safe for concurrent use.
type Once interface {
	// Consume reports whether value is consumed for the first time. Of all that ask,
	// on all replicas, one is told so. A value begins with its purpose and a slash,
	// and is forgotten some time after until. An error means that it is not known:
	// refuse.
	Consume(ctx context.Context, value string, until time.Time) (first bool, err error)
}

// Kind is what a Cut matches by.
type Kind byte

// The kinds of a Cut. Stores keep these numbers.
const (
	KindAll    Kind = iota // everybody
	KindRoot               // a sign-in
	KindSID                // a session at the provider
	KindPerson             // a person
	KindOrg                // an organization
	kinds
)

func (k Kind) String() string {
	if k >= kinds {
		return "unknown"
	}
	return [...]string{"all", "root", "sid", "person", "org"}[k]
}

// Kinds are all kinds of cuts of which several can be kept.
func Kinds() []Kind { return []Kind{KindRoot, KindSID, KindPerson, KindOrg} }

// Valid reports whether k is a kind that this program knows.
func (k Kind) Valid() bool { return k < kinds }

// CutKey stands for what a Cut names. It is a hash: neither memory nor a store
// tells from it who somebody is, nor what would open a session.
type CutKey [16]byte

// Record is a Cut as it is kept.
type Record struct {
	Kind   Kind
	Key    CutKey // zero for KindAll
	Whose  CutKey // of KindRoot and KindSID: the key of its person, or zero
	Below  uint32 // of KindRoot: generations below this one; 0: all
	Before int64  // the last sign-in that is matched, in milliseconds since 1970
	Until  int64  // in milliseconds since 1970
}

// Record returns what is kept of c. now stands for a time of sign-in that is not
// known.
func (c Cut) Record(now time.Time) (Record, error) {
	r := Record{Before: c.Before.UnixMilli(), Until: c.Until.UnixMilli()}
	sid, isSID := KeyOfSID(c.SID)
	named := 0
	for _, by := range [...]struct {
		named bool
		kind  Kind
		key   func() CutKey
	}{
		{c.Root != "", KindRoot, func() CutKey { return rootKey(c.Root) }},
		{c.SID != "", KindRoot, func() CutKey { return sid }},
		{c.ProviderSID != "" && c.Person == "", KindSID, func() CutKey { return sidKey(c.Provider, c.ProviderSID) }},
		{c.ProviderSID != "" && c.Person != "", KindSID,
			func() CutKey { return personSIDKey(c.Person, c.ProviderSID) }},
		{c.Person != "" && c.Root == "" && c.SID == "" && c.ProviderSID == "", KindPerson,
			func() CutKey { return personKey(c.Person) }},
		{c.Org != "", KindOrg, func() CutKey { return orgKey(c.Org) }},
	} {
		if by.named {
			named++
			r.Kind, r.Key = by.kind, by.key()
		}
	}
	if c.Before.IsZero() {
		r.Before = now.UnixMilli()
	}
	if c.Person != "" && (r.Kind == KindRoot || r.Kind == KindSID) {
		r.Whose = personKey(c.Person)
	}
	if c.Below <= math.MaxUint32 { // no generation is beyond, so that all are below
		r.Below = uint32(c.Below)
	}
	if named > 1 || c.SID != "" && !isSID || c.Until.IsZero() || c.Before.IsZero() && r.Kind != KindRoot ||
		c.Below > 0 && r.Kind != KindRoot ||
		(c.ProviderSID == "") != (c.Provider == "") {
		return Record{}, ErrCut
	}
	return r, nil
}

// Wider reports whether r ends something that old, of the same key, does not.
func (r Record) Wider(old Record) bool {
	if r.Kind == KindRoot {
		return r.Below-1 > old.Below-1 // 0, for all, becomes the greatest
	}
	return r.Before > old.Before
}

// Join returns what r and old, of the same key, end together.
func (r Record) Join(old Record) Record {
	if !r.Wider(old) {
		r.Below = old.Below
	}
	r.Before, r.Until = max(r.Before, old.Before), max(r.Until, old.Until)
	return r
}

// SID names the sign-in to apps: the key of the cut that ends it, so that it can be
// asked for what has ended, and says nothing about the secret Root. All sessions of
// a sign-in have the same.
func (s *Session) SID() string { return s.names().sid }

// names are what a sign-in is called where its secret Root must not be known. They are
// worked out once for all requests of a session, or stand alone: see Asserted.
type names struct {
	key CutKey
	sid string
}

func namesOf(root string) *names {
	key := rootKey(root)
	return &names{key, key.SID()}
}

func (s *Session) names() *names {
	if s.named == nil { // not read, and not of somebody who signs in
		return namesOf(s.Root)
	}
	return s.named
}

func rootKey(root string) CutKey         { return hashed("sallyport sid", root, "") }
func sidKey(provider, sid string) CutKey { return hashed("sallyport provider sid\x00", provider, sid) }
func personKey(id string) CutKey         { return hashed("sallyport person\x00", id, "") }
func orgKey(id string) CutKey            { return hashed("sallyport organization\x00", id, "") }

// personSIDKey is the key of a session at the provider that ends only where it is the
// person's. What a sign-in keeps of either has no NUL.
func personSIDKey(id, sid string) CutKey {
	text := append(make([]byte, 0, 256), "sallyport provider sid of a person\x00"...)
	text = append(append(append(text, id...), 0), sid...)
	sum := sha256.Sum256(text)
	return CutKey(sum[:16])
}

// hashed needs no memory of its own where the texts are of the usual length. No
// provider's id has a colon, so that a and b cannot be read in two ways.
func hashed(purpose, a, b string) CutKey {
	text := append(make([]byte, 0, 160), purpose...)
	text = append(text, a...)
	if b != "" {
		text = append(append(text, ':'), b...)
	}
	sum := sha256.Sum256(text)
	return CutKey(sum[:16])
}
