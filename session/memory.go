package session

import (
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

// endedMax bounds how many endings a Memory keeps apart.
const endedMax = 1 << 17

// Memory is the list of what ended before its time where there is no store: in
// this process only, and lost at its restart.
//
// It keeps one entry for each sign-in that ended, however often its organization
// was switched. At its bound nothing is forgotten: the older half of the entries
// becomes one cut, and everybody who signed in at or before that moment signs in
// again. To forget an entry would sign in again who had signed out.
type Memory struct {
	now    func() time.Time
	max    int
	merged func(before time.Time, entries int)

	mu      sync.RWMutex // guards what follows
	entries map[string]ended
	before  int64 // sign-ins of this second and earlier are over
}

// ended is what is over of one sign-in. Times are seconds since 1970.
type ended struct {
	below           uint64 // generations below this one
	signedIn, until int64
}

var _ Ended = (*Memory)(nil)

// NewMemory returns an empty list; nil now means time.Now. merged, if there is
// one, is told each time that entries become a cut.
func NewMemory(now func() time.Time, merged func(before time.Time, entries int)) *Memory {
	if now == nil {
		now = time.Now
	}
	if merged == nil {
		merged = func(time.Time, int) {}
	}
	return &Memory{now: now, max: endedMax, merged: merged, entries: map[string]ended{}, before: math.MinInt64}
}

// End ends all sessions of the sign-in.
func (m *Memory) End(s Ending) { m.end(s, math.MaxUint64) }

// Supersede ends s and the sessions before it, and reports whether s was alive.
func (m *Memory) Supersede(s Ending) bool { return m.end(s, uint64(s.Generation)+1) }

// end ends the generations below the given one, and reports whether s was alive.
func (m *Memory) end(s Ending, below uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	signedIn := s.SignedIn.Unix()
	was, known := m.entries[s.Root]
	alive := signedIn > m.before && uint64(s.Generation) >= was.below
	if signedIn <= m.before || below <= was.below || s.Until.Before(m.now()) {
		return alive
	}
	if !known && len(m.entries) >= m.max {
		m.makeRoom()
	}
	m.entries[s.Root] = ended{below: below, signedIn: signedIn, until: s.Until.Unix()}
	return alive
}

// Ended reports whether s is over.
func (m *Memory) Ended(s Ending) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return s.SignedIn.Unix() <= m.before || uint64(s.Generation) < m.entries[s.Root].below
}

func (m *Memory) makeRoom() {
	now := m.now().Unix()
	maps.DeleteFunc(m.entries, func(_ string, e ended) bool { return e.until < now })
	if len(m.entries) < m.max-m.max/8 { // enough room that sweeping stays rare
		return
	}
	times := make([]int64, 0, len(m.entries))
	for _, e := range m.entries {
		times = append(times, e.signedIn)
	}
	slices.Sort(times)
	m.before = times[len(times)/2]
	kept := len(m.entries)
	maps.DeleteFunc(m.entries, func(_ string, e ended) bool { return e.signedIn <= m.before })
	m.merged(time.Unix(m.before, 0).UTC(), kept-len(m.entries))
}

// spentMax is how many names a spent remembers at least.
const spentMax = 1 << 16

// spent is a set of names that count once each. Beyond its bound the oldest are
// forgotten: it is for sign-ins that came back, where the provider's code counts
// once as well, and strangers could use up any bound.
type spent struct {
	max int

	mu         sync.Mutex // guards young and old
	young, old map[string]struct{}
}

func newSpent() *spent { return &spent{max: spentMax, young: map[string]struct{}{}} }

// take reports whether name is taken for the first time.
func (s *spent) take(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.knows(name) {
		return false
	}
	if len(s.young) >= s.max {
		s.old, s.young = s.young, map[string]struct{}{}
	}
	s.young[name] = struct{}{}
	return true
}

// has reports whether name was taken.
func (s *spent) has(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.knows(name)
}

func (s *spent) knows(name string) bool {
	_, young := s.young[name]
	_, old := s.old[name]
	return young || old
}
