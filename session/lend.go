package session

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// What apps carry for people: the person whom a link is made for, and a lease, with which
// an app asks for what somebody lends while it has no new assertion of theirs. Both are
// sealed, and apps can read or change neither.
const (
	lendVersion = 2
	// MaxLend is the longest of them as text, in bytes.
	MaxLend = 2048
)

// ErrLend: this was not sealed here, or not for this.
var ErrLend = errors.New("this was not sealed here, or not for this use")

// Asserted is a session as far as an assertion tells: who is there, for which
// organization, and what it is called. IssuedAt is the assertion's.
type Asserted struct {
	Person   string // identity.Identity.ID
	Org      string // the active organization; "": none
	SID      string // Session.SID
	IssuedAt time.Time
}

// Lease is an app's proof that somebody was there.
type Lease struct {
	App string
	Asserted
	// Idle is when the lease ends unless an assertion is shown, End when it ends in any
	// case: with the session.
	Idle, End time.Time

	generation uint32 // the first one of the sign-in that had not ended then
}

func newLendKeys(k Key) carriedKeys { return newCarriedKeys(k, "lending", "lending secrets") }

// SealPerson seals the id of the person whom a link is made for: other people are to be
// told that it is not theirs, and nobody is to read from the link who that is. It proves
// nothing of who follows it.
func (m *Manager) SealPerson(person string) string { return m.sealLend("person", []byte(person)) }

// OpenPerson opens what SealPerson made.
func (m *Manager) OpenPerson(sealed string) (person string, err error) {
	b, err := m.openLend("person", sealed)
	return string(b), err
}

// SealOrg seals, in the same way, the id of the organization for whose people a link is made.
func (m *Manager) SealOrg(org string) string { return m.sealLend("org", []byte(org)) }

// OpenOrg opens what SealOrg made.
func (m *Manager) OpenOrg(sealed string) (org string, err error) {
	b, err := m.openLend("org", sealed)
	return string(b), err
}

// SealLease seals a lease. It begins now: what has ended of the sign-in until now, such as
// the session before a switch of the organization, does not end it, and what ends later does.
func (m *Manager) SealLease(l Lease) (string, error) {
	s, ok := l.session()
	if !ok || l.App == "" || l.Person == "" {
		return "", fmt.Errorf("seal lease: %w", errCodec)
	}
	first, ok := m.firstAlive(s)
	if !ok {
		return "", fmt.Errorf("seal lease: %w", ErrEnded)
	}
	b := binary.BigEndian.AppendUint32([]byte{lendVersion}, first)
	for _, t := range [...]time.Time{l.IssuedAt, l.Idle, l.End} {
		b = binary.BigEndian.AppendUint64(b, uint64(t.UnixMilli()))
	}
	sealed := m.sealLend("lease", appendTexts(b, l.App, l.Person, l.Org, l.SID))
	if len(sealed) > MaxLend {
		return "", fmt.Errorf("seal lease: %w", ErrTooLarge)
	}
	return sealed, nil
}

// firstAlive returns the first generation of a sign-in that has not ended; false where all
// have. Where one has ended, so have those before it.
func (m *Manager) firstAlive(s Session) (uint32, bool) {
	low, high := uint64(0), uint64(math.MaxUint32)
	for low < high {
		middle := (low + high) / 2
		if s.generation = uint32(middle); m.ended.Ended(s) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return uint32(low), low < math.MaxUint32
}

// OpenLease opens what SealLease made, on any replica. ErrExpired and ErrEnded come with
// the lease that is over.
func (m *Manager) OpenLease(sealed string) (Lease, error) {
	b, err := m.openLend("lease", sealed)
	if err != nil {
		return Lease{}, err
	}
	l, ok := parseLease(b)
	if !ok {
		return Lease{}, ErrLend
	}
	if now := m.now(); !now.Before(l.Idle) || !now.Before(l.End) {
		return l, ErrExpired
	}
	s, ok := l.session()
	if s.generation = l.generation; !ok || m.ended.Ended(s) {
		return l, ErrEnded
	}
	return l, nil
}

// AssertionEnded reports whether the sign-in that an assertion tells of has ended since. That
// the person has switched the organization is not seen: which generations of the sign-in have
// ended is known here, and no claim of an assertion says of which one it is.
func (m *Manager) AssertionEnded(a Asserted) bool {
	s, ok := a.session()
	s.generation = math.MaxUint32
	return !ok || m.ended.Ended(s)
}

// session is what is asked of Ended. When the sign-in began is not told; that it lasted
// when the assertion was made says that no cut before that moment is for it. An assertion
// tells it in whole minutes, in the first one by the second of the sign-in, so a cut of earlier
// in the same minute, or second, counts against it. Nor is it told of which session at the
// provider it is, nor of which other organizations they are: what ends sessions by these alone
// ends no lease before it idles out, and no assertion.
func (a *Asserted) session() (Session, bool) {
	provider, subject, _ := strings.Cut(a.Person, ":")
	key, ok := KeyOfSID(a.SID)
	return Session{named: &names{key, a.SID}, SignedIn: a.IssuedAt, Identity: identity.Identity{Provider: provider,
		Subject: subject, Org: identity.Org{ID: a.Org}}}, ok
}

// EndedAfter reports whether something that began at a time, such as a consent, has ended
// with the sessions of a person, or of an organization ("": none is asked for). What ends one
// sign-in, or a session at the provider, does not. The answer is no again when the cut is
// forgotten: once the sessions that it ended would be over.
func EndedAfter(ended Ended, person, org string, at time.Time) bool {
	provider, subject, _ := strings.Cut(person, ":")
	return ended.Ended(Session{SignedIn: at, Identity: identity.Identity{Provider: provider, Subject: subject,
		Org: identity.Org{ID: org}}})
}

func parseLease(b []byte) (l Lease, ok bool) {
	const head = 1 + 4 + 3*8
	if len(b) < head || b[0] != lendVersion {
		return Lease{}, false
	}
	l.generation = binary.BigEndian.Uint32(b[1:])
	for i, t := range [...]*time.Time{&l.IssuedAt, &l.Idle, &l.End} {
		*t = time.UnixMilli(int64(binary.BigEndian.Uint64(b[5+8*i:]))).UTC()
	}
	ok = cutTexts(b[head:], &l.App, &l.Person, &l.Org, &l.SID)
	return l, ok
}

func (m *Manager) sealLend(purpose string, b []byte) string {
	keys := m.lends[m.ring.Signing(m.now())]
	return base64.RawURLEncoding.EncodeToString(keys.seal.Seal(nil, nil, b, m.sealedFor(purpose)))
}

func (m *Manager) openLend(purpose, sealed string) ([]byte, error) {
	_, b, ok := openCarried(m.lends, sealed, m.sealedFor(purpose), MaxLend)
	if !ok {
		return nil, ErrLend
	}
	return b, nil
}
