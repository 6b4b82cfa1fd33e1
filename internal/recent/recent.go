// Package recent is a bounded memory of what was worked out a moment ago: an
// opened cookie, a signature, a rendered header.
//
// It owns two generations of a map and the rule by which the older one is
// forgotten. It knows no time and never says whether a value still holds: its
// users ask that at every Get. It keeps nothing that they have not put in.
package recent

import "sync"

// Cache keeps values under their keys until newer ones need the room. What is
// asked for now and then stays. It is safe for concurrent use.
type Cache[K comparable, V any] struct {
	half int // of the bound: what one generation may cost

	// Readers share the lock: they are nearly all, and among many cores a plain
	// Mutex would queue them. It guards all below.
	mu         sync.RWMutex
	young, old map[K]entry[V]
	cost       int // of the young ones
}

type entry[V any] struct {
	value V
	cost  int
}

// New returns a Cache whose entries cost at most limit together, in the unit that
// its user chooses for Put: bytes, or one for each.
func New[K comparable, V any](limit int) *Cache[K, V] {
	return &Cache[K, V]{half: limit / 2, young: map[K]entry[V]{}}
}

// Get returns what was put under key last, unless it is forgotten.
func (c *Cache[K, V]) Get(key K) (V, bool) {
	c.mu.RLock()
	e, ok := c.young[key]
	if !ok {
		if e, ok = c.old[key]; ok {
			c.mu.RUnlock()
			return c.rejuvenate(key)
		}
	}
	c.mu.RUnlock()
	return e.value, ok
}

// rejuvenate lets what is in use outlive the next turn. Between the two locks
// another may have done so, or forgotten or replaced the value.
func (c *Cache[K, V]) rejuvenate(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.young[key]
	if !ok {
		if e, ok = c.old[key]; ok {
			c.keep(key, e)
		}
	}
	return e.value, ok
}

// Put keeps value under key, in the place of what was there. Cost is above zero
// and counts against the bound; above half of it, nothing is kept.
func (c *Cache[K, V]) Put(key K, value V, cost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cost -= c.young[key].cost
	delete(c.young, key)
	delete(c.old, key)
	if cost <= c.half {
		c.keep(key, entry[V]{value, cost})
	}
}

// keep adds to the young ones, who become the old ones where there is no room.
func (c *Cache[K, V]) keep(key K, e entry[V]) {
	if c.cost+e.cost > c.half {
		c.old, c.young, c.cost = c.young, map[K]entry[V]{}, 0
	}
	c.young[key] = e
	c.cost += e.cost
}

// Clear forgets all.
func (c *Cache[K, V]) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.young, c.old, c.cost = map[K]entry[V]{}, nil, 0
}
