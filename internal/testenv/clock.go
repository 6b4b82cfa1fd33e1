package testenv

import (
	"sync/atomic"
	"time"
)

// Clock is the time of a test: it goes on by itself, as sockets and deadlines do
// beside it, or stands still; and it can be moved. It is safe for concurrent use.
type Clock struct {
	stands time.Time    // where it stood at first; zero: it goes on
	moved  atomic.Int64 // by how much it was moved
}

// NewClock returns a clock that shows what the real one does until it is moved.
func NewClock() *Clock { return &Clock{} }

// StandingClock returns a clock that shows at until it is moved.
func StandingClock(at time.Time) *Clock { return &Clock{stands: at} }

// Now is what the clock shows.
func (c *Clock) Now() time.Time {
	now := c.stands
	if now.IsZero() {
		now = time.Now()
	}
	return now.Add(time.Duration(c.moved.Load()))
}

// Advance moves the clock, backwards if d is negative.
func (c *Clock) Advance(d time.Duration) { c.moved.Add(int64(d)) }
