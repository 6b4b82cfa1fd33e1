package session

import (
	"maps"
	"sync"
	"time"
)

// memoryMax bounds one of the two generations of a Memory.
const memoryMax = 1 << 16

// Memory is a bounded set of short names, each with a time after which it may
// be forgotten. It serves as the list of ended sessions where there is no store
// (this process only, lost at restart) and as the list of consumed flows.
//
// When it overflows, the older half is forgotten early. That takes 65,536 names
// alive at once: so many real sign-ins within one session's life.
type Memory struct {
	now func() time.Time
	max int

	mu         sync.RWMutex // guards young and old
	young, old map[string]time.Time
}

var _ Ended = (*Memory)(nil)

// NewMemory returns an empty set; nil now means time.Now.
func NewMemory(now func() time.Time) *Memory {
	if now == nil {
		now = time.Now
	}
	return &Memory{now: now, max: memoryMax, young: map[string]time.Time{}}
}

// End remembers id until the given time.
func (m *Memory) End(id string, until time.Time) { m.Add(id, until) }

// Ended reports whether id is remembered.
func (m *Memory) Ended(id string) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.has(id)
}

func (m *Memory) has(id string) bool {
	_, young := m.young[id]
	_, old := m.old[id]
	return young || old
}

// Add remembers id until the given time and reports whether it was new.
func (m *Memory) Add(id string, until time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.has(id) {
		return false
	}
	if len(m.young) >= m.max {
		m.makeRoom()
	}
	m.young[id] = until
	return true
}

func (m *Memory) makeRoom() {
	now := m.now()
	maps.DeleteFunc(m.young, func(_ string, until time.Time) bool { return now.After(until) })
	if len(m.young) >= m.max/2 { // else sweeping was enough, and will be rare
		m.old, m.young = m.young, map[string]time.Time{}
	}
}
