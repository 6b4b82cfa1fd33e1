package relay

import (
	"sync"
	"time"
)

// sweeper looks at the exchanges that are on their way, all in one turn, so that none needs
// a timer of its own. Its timer runs as long as there are any.
type sweeper struct {
	mu       sync.Mutex // held for moments; nobody is ended with it held
	watches  []*watch
	timer    *time.Timer
	runs     bool      // the timer runs, or sweep does
	sweeping bool      // sweep looks at them now, and sets the timer when it is done
	next     time.Time // when it will look

	turn []*watch // of sweep alone
}

// add has w looked at until it is removed.
func (s *sweeper) add(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.place = len(s.watches)
	s.watches = append(s.watches, w)
	switch {
	case !s.runs:
		s.runs = true
		s.by(w.begun.Add(min(sweepInterval, w.limits.Idle)))
	case w.limits.Idle < sweepInterval:
		s.sooner(w.begun.Add(w.limits.Idle))
	}
}

func (s *sweeper) remove(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.place < 0 {
		return
	}
	last := len(s.watches) - 1
	other := s.watches[last]
	s.watches[w.place], other.place = other, w.place
	s.watches[last] = nil
	s.watches = s.watches[:last]
	w.place = -1
}

// soon is for a limit that is nearer than the next turn may be.
func (s *sweeper) soon(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sooner(time.Now().Add(d))
}

func (s *sweeper) sooner(at time.Time) {
	if at.Before(s.next) {
		s.by(at)
	}
}

// by sets the time of the next turn.
func (s *sweeper) by(at time.Time) {
	s.next = at
	switch {
	case s.sweeping:
	case s.timer == nil:
		s.timer = time.AfterFunc(time.Until(at), s.sweep)
	default:
		s.timer.Reset(time.Until(at))
	}
}

// sweep is one turn. The timer is set at its end, so there is one at a time.
func (s *sweeper) sweep() {
	s.mu.Lock()
	s.sweeping = true
	s.next = time.Now().Add(sweepInterval)
	s.turn = append(s.turn[:0], s.watches...)
	s.mu.Unlock()
	nearest := sweepInterval
	for _, w := range s.turn {
		nearest = min(nearest, w.check())
	}
	clear(s.turn)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweeping = false
	if s.runs = len(s.watches) > 0; !s.runs {
		return
	}
	if at := time.Now().Add(nearest); at.Before(s.next) {
		s.next = at
	}
	s.by(s.next)
}
