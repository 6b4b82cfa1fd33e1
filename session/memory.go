package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"sync"
	"time"
)

const (
	// endedMax bounds how many cuts a Memory keeps apart if nothing else is said.
	endedMax = 1 << 17
	// CrowdMax bounds how many sign-ins of one person, and sessions at the provider, are
	// kept apart, so that nobody fills a list at everybody else's expense by signing in and
	// out, here or there.
	CrowdMax = 100
	// onceMax bounds the values that a Memory remembers as consumed.
	onceMax = 1 << 17
)

// Merge is what happened to a full list: its older half became one cut.
type Merge struct {
	Person  string    // only this one's sign-ins; "": everybody's
	Before  time.Time // who signed in at or before this moment signs in again
	Entries int       // how many became one
}

// ErrFull is what Consume returns when there is no room to remember a value.
var ErrFull = errors.New("too many values that count once are remembered")

// Memory is the list of what ended before its time, and of what was consumed,
// where there is no store: in this process only, and lost at its restart.
//
// It keeps one entry for each sign-in that ended, however often its organization
// was switched. At its bound nothing is forgotten: the older half of the entries
// becomes one cut, and everybody who signed in at or before that moment signs in
// again. To forget an entry would sign in again who had signed out. The entries
// of one person become one cut of that person long before that.
type Memory struct {
	now    func() time.Time
	max    int
	merged func(Merge)
	view   *View

	mu   sync.Mutex // held by who writes
	once map[[32]byte]int64
	room int // values there may be in once
}

var (
	_ Ended = (*Memory)(nil)
	_ Once  = (*Memory)(nil)
)

// MemoryOptions configure a Memory. All of them may be left out.
type MemoryOptions struct {
	Max    int         // cuts that are kept apart; 0: 131,072
	Merged func(Merge) // is told each time that entries become a cut
	Now    func() time.Time
}

// NewMemory returns an empty list.
func NewMemory(o MemoryOptions) *Memory {
	if o.Max <= 0 {
		o.Max = endedMax
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Merged == nil {
		o.Merged = func(Merge) {}
	}
	return &Memory{now: o.Now, max: o.Max, merged: o.Merged, view: NewView(o.Max),
		once: map[[32]byte]int64{}, room: onceMax}
}

// Len is how many cuts of a kind are kept.
func (m *Memory) Len(k Kind) int { return m.view.Count(k) }

// End ends what c matches.
func (m *Memory) End(_ context.Context, c Cut) error {
	_, err := m.add(c)
	return err
}

// Supersede ends what c matches, and reports whether that was not over yet.
func (m *Memory) Supersede(_ context.Context, c Cut) (first bool, err error) { return m.add(c) }

// EndOnce ends what c matches, if value is consumed for the first time.
func (m *Memory) EndOnce(_ context.Context, c Cut, value string, until time.Time) (first bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := sha256.Sum256([]byte(value))
	if _, known := m.once[key]; known {
		return false, nil
	}
	if _, err := m.addLocked(c); err != nil {
		return false, err
	}
	if err := m.consumeLocked(key, until); err != nil {
		return false, err
	}
	return true, nil
}

func (m *Memory) add(c Cut) (news bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.addLocked(c)
}

func (m *Memory) addLocked(c Cut) (news bool, err error) {
	now := m.now()
	r, err := c.Record(now)
	if err != nil {
		return false, err
	}
	if r.Until < now.UnixMilli() {
		return true, nil // it is over in any case
	}
	if merge, full := m.view.MakeRoom(now, m.max); full {
		m.merged(merge)
	}
	news = m.view.Add(r)
	if news && m.view.crowded(r.Whose) {
		m.mergePerson(c.Person, r.Whose)
	}
	return news, nil
}

// Ended reports whether s is over.
func (m *Memory) Ended(s Session) bool { return m.view.Ended(&s) }

// Earliest is the first moment at which the person of s can sign in so that no cut
// matches the new session.
func (m *Memory) Earliest(s Session) time.Time { return m.view.Earliest(&s) }

// Heard counts what came so far that can end several sign-ins.
func (m *Memory) Heard() uint32 { return m.view.Heard() }

// EndedSince reports whether s is over by something that came after heard.
func (m *Memory) EndedSince(s Session, heard uint32) bool { return m.view.EndedSince(&s, heard) }

// Fresh is now: there is nobody else to hear of.
func (m *Memory) Fresh() time.Time { return m.now() }

// Age is 0, for the same reason.
func (m *Memory) Age() time.Duration { return 0 }

// mergePerson makes one cut of the older half of what ended of a person, if that is too
// much and not only of people who share a place in the view.
func (m *Memory) mergePerson(person string, whose CutKey) {
	before, n, until := m.view.half(func(e *entry) bool { return e.whose == whose.short() })
	if n <= CrowdMax {
		return
	}
	kept := m.view.Len()
	m.view.Add(Record{Kind: KindPerson, Key: whose, Before: before, Until: until})
	m.merged(Merge{Person: person, Before: time.UnixMilli(before).UTC(), Entries: kept + 1 - m.view.Len()})
}

// Consume reports whether value is consumed for the first time.
func (m *Memory) Consume(_ context.Context, value string, until time.Time) (first bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := sha256.Sum256([]byte(value))
	if _, known := m.once[key]; known {
		return false, nil
	}
	if err := m.consumeLocked(key, until); err != nil {
		return false, err
	}
	return true, nil
}

// consumeLocked remembers a key that is not known yet.
func (m *Memory) consumeLocked(key [32]byte, until time.Time) error {
	now := m.now().Unix()
	if len(m.once) >= m.room {
		maps.DeleteFunc(m.once, func(_ [32]byte, until int64) bool { return until < now })
	}
	if len(m.once) >= m.room {
		return ErrFull
	}
	m.once[key] = until.Unix()
	return nil
}
