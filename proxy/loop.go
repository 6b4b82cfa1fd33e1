package proxy

import (
	"sync"
	"time"
)

const (
	loopLimit  = 3 // sign-ins of one browser within loopWindow that left no session
	loopWindow = time.Minute
	loopMax    = 1 << 13 // browsers remembered
)

// loops counts, per browser, completed sign-ins that were followed by a request
// to sign in. A browser that signs in and is asked to sign in again and again is in
// a redirect loop, which it would end with an error that explains nothing. Thirty
// tabs that sign in at once are not: they complete without asking again.
type loops struct {
	now func() time.Time

	mu   sync.Mutex // guards seen
	seen map[string]rounds
}

type rounds struct {
	count     int
	completed bool // and not asked again yet
	since     time.Time
}

func newLoops(now func() time.Time) *loops { return &loops{now: now, seen: map[string]rounds{}} }

// completed notes a sign-in that browser has just completed.
func (l *loops) completed(browser string) {
	if browser == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	c := l.seen[browser]
	if now.Sub(c.since) > loopWindow {
		c = rounds{since: now}
	}
	c.completed = true
	if len(l.seen) >= loopMax {
		clear(l.seen) // a loop that goes on will be counted again
	}
	l.seen[browser] = c
}

// sessionKept notes that browser came back with a session, so it is not in a loop:
// somebody who signs in and out a few times within a minute is not in one.
func (l *loops) sessionKept(browser string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.seen, browser)
}

// looping notes that browser asks to sign in, and reports whether it is in a
// loop. Then it is forgotten: after the page that says so, it may try again.
func (l *loops) looping(browser string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.seen[browser]
	if !c.completed || l.now().Sub(c.since) > loopWindow {
		return false
	}
	c.count++
	c.completed = false
	if c.count < loopLimit {
		l.seen[browser] = c
		return false
	}
	delete(l.seen, browser)
	return true
}
