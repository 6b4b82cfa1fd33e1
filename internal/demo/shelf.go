package demo

import "time"

// shelf keeps values for a fixed time and never more than capacity of them: the
// oldest makes room. Everything lives equally long, so the order in which
// values came is the order in which they go. Its owner does the locking.
type shelf[V any] struct {
	capacity int
	life     time.Duration
	items    map[string]*shelved[V]
	order    []string
}

type shelved[V any] struct {
	value V
	until time.Time
}

func newShelf[V any](capacity int, life time.Duration) *shelf[V] {
	return &shelf[V]{capacity: capacity, life: life, items: map[string]*shelved[V]{}}
}

func (s *shelf[V]) put(now time.Time, key string, v V) {
	for len(s.order) > 0 && (len(s.order) >= s.capacity || s.gone(now, s.order[0])) {
		delete(s.items, s.order[0])
		s.order = s.order[1:]
	}
	s.items[key] = &shelved[V]{v, now.Add(s.life)}
	s.order = append(s.order, key)
}

// get returns the value in place, so that its owner can change it.
func (s *shelf[V]) get(now time.Time, key string) (*V, bool) {
	if s.gone(now, key) {
		return nil, false
	}
	return &s.items[key].value, true
}

func (s *shelf[V]) drop(key string) { delete(s.items, key) }

func (s *shelf[V]) gone(now time.Time, key string) bool {
	item, ok := s.items[key]
	return !ok || !now.Before(item.until)
}
