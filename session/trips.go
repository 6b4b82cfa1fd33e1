package session

import "sync"

// tripsMax is how many trips are remembered at least.
const tripsMax = 1 << 16

// Trips remembers which trips were used up: each counts once in this process;
// across processes and restarts it is the provider's code that works only once.
// It outlives a Manager, so that a changed configuration revives no callback.
//
// Beyond its bound the oldest are forgotten, because strangers could fill up any
// bound. It is safe for concurrent use.
type Trips struct {
	max int

	mu         sync.Mutex // guards young and old
	young, old map[string]struct{}
}

// NewTrips returns an empty list of trips.
func NewTrips() *Trips { return &Trips{max: tripsMax, young: map[string]struct{}{}} }

// Use uses up a trip that Return found to be good; ErrConsumed: it was used before.
func (t *Trips) Use(trip Trip) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.knows(trip.Name) {
		return ErrConsumed
	}
	if len(t.young) >= t.max {
		t.old, t.young = t.young, map[string]struct{}{}
	}
	t.young[trip.Name] = struct{}{}
	return nil
}

// Used reports whether a trip was used up.
func (t *Trips) Used(trip Trip) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.knows(trip.Name)
}

func (t *Trips) knows(name string) bool {
	_, young := t.young[name]
	_, old := t.old[name]
	return young || old
}
