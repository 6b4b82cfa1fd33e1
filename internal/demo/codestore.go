package demo

import (
	"maps"
	"time"
)

// codeStore stores values by code, access token or assertion id, all for the same time, so
// they expire in the order in which they were added. When it is full, the oldest value is
// dropped for a new one. The caller does the locking.
type codeStore[V any] struct {
	capacity int
	life     time.Duration
	items    map[string]*stored[V]
	order    []string
}

type stored[V any] struct {
	value V
	until time.Time
}

func newCodeStore[V any](capacity int, life time.Duration) *codeStore[V] {
	return &codeStore[V]{capacity: capacity, life: life, items: map[string]*stored[V]{}}
}

func (s *codeStore[V]) put(now time.Time, key string, v V) {
	for len(s.order) > 0 && (len(s.order) >= s.capacity || s.gone(now, s.order[0])) {
		delete(s.items, s.order[0])
		s.order = s.order[1:]
	}
	s.items[key] = &stored[V]{v, now.Add(s.life)}
	s.order = append(s.order, key)
}

// get returns a pointer to the stored value, so that the caller can change it.
func (s *codeStore[V]) get(now time.Time, key string) (*V, bool) {
	if s.gone(now, key) {
		return nil, false
	}
	return &s.items[key].value, true
}

func (s *codeStore[V]) drop(key string) { delete(s.items, key) }

// dropIf drops every value that f reports true for.
func (s *codeStore[V]) dropIf(f func(V) bool) {
	maps.DeleteFunc(s.items, func(_ string, item *stored[V]) bool { return f(item.value) })
}

func (s *codeStore[V]) gone(now time.Time, key string) bool {
	item, ok := s.items[key]
	return !ok || !now.Before(item.until)
}
