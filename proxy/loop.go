package proxy

import (
	"errors"
	"sync"
	"time"

	"github.com/sallyport-proxy/sallyport/session"
)

const (
	loopLimit  = 3 // sign-ins of one browser within loopWindow that did not stick
	loopWindow = time.Minute
	loopMax    = 1 << 13 // browsers remembered
)

// loops counts, per browser, completed sign-ins that were followed by a request
// to sign in. Somebody who signs in and is asked again, and again, is in a
// redirect loop that a browser would end with an error that explains nothing.
// Thirty tabs that sign in at once are not: they complete without asking again.
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

// stuck notes that browser came back with a session: signing in does stick.
// Who signs in and out a few times within a minute is in no loop.
func (l *loops) stuck(browser string) {
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

// loopCauses names what keeps a session from sticking, the likeliest first, by
// what was found where the session should have been. Seen is the address that
// the browser used.
func (p *Proxy) loopCauses(seen string, found error) []string {
	switch {
	case errors.Is(found, session.ErrExpired):
		return []string{"The session was over as soon as it began: the clock of this server, or session.idle_timeout and session.absolute_timeout, may be wrong."}
	case errors.Is(found, session.ErrForged):
		return []string{"The session cookie was made with a key this server does not have. If several copies of it run, they must share their session keys. If another site on the same host name, at another port or path, signs people in with Sallyport too, each needs a session.cookie_name of its own."}
	case errors.Is(found, session.ErrTwice):
		return []string{"The browser sends two session cookies. Another site under the same domain may have set one; clear the cookies of this site."}
	case errors.Is(found, session.ErrOutdated):
		return []string{"The session was begun where other groups are kept. If several copies of this server run, they must share groups.keep and the rules of their routes."}
	case errors.Is(found, session.ErrEnded):
		return []string{"The session was ended right after it began."}
	}
	causes := []string{"The browser did not keep the session cookie. It may block cookies, or a proxy in between may remove them."}
	if p.scheme == "https" {
		causes = append(causes, "The page may be open over plain http: the cookie is only kept over https.")
	}
	if seen != p.origin {
		causes = append(causes, "public_url may not be the address people use: it is "+p.origin+".")
	}
	return causes
}
