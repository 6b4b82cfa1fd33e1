package testenv

import (
	"sync/atomic"
	"time"
)

// Clock is the clock of a test. It can be moved, and otherwise runs like the real one, on
// which sockets and deadlines depend, or stands still. It is safe for concurrent use.
type Clock struct {
	stands time.Time    // what it showed at first, if it stands still; zero: it runs
	moved  atomic.Int64 // by how much it was moved
}

// NewClock returns a clock that shows what the real one does until it is moved.
func NewClock() *Clock { return &Clock{} }

// StandingClock returns a clock that shows at until it is moved.
func StandingClock(at time.Time) *Clock { return &Clock{stands: at} }

// Now returns what the clock shows.
func (c *Clock) Now() time.Time {
	now := c.stands
	if now.IsZero() {
		now = time.Now()
	}
	return now.Add(time.Duration(c.moved.Load()))
}

// Advance moves the clock, backwards if d is negative.
func (c *Clock) Advance(d time.Duration) { c.moved.Add(int64(d)) }
