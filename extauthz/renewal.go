package extauthz

import (
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/session"
)

// renewal returns where a page is sent first, so that its session is renewed or handed
// over anew; "" if that is not due. No answer to a proxy reaches the browser, so this is
// the only way for a cookie. Nothing but a page that is opened can take it. The scheme that
// the proxy names counts for nothing: where TLS ends before it, that is http, as ingress-nginx
// always says then, and a session that is never renewed ends while it is in use.
func (d *Door) renewal(q *question, who *admission.Principal) string {
	if who == nil || who.Session == nil || q.method != http.MethodGet || !opensWindow(q) {
		return ""
	}
	here := q.facts.Target()
	origin := d.signIn.origin(q.facts.Host)
	if session.ReturnTo(here, origin, d.signIn.prefix) != here || !d.renewalDue(q, who.Session) ||
		!d.renewals.once(who.Session.ID, d.now()) {
		return ""
	}
	return origin + d.signIn.prefix + "/renew?return_to=" + url.QueryEscape(here)
}

// opensWindow is a page without any doubt: it says so, or comes from a browser that says
// nothing of the kind.
func opensWindow(q *question) bool {
	r := q.request()
	dest := q.header.Get("Sec-Fetch-Dest")
	return admission.KindOf(r) == admission.Navigation && (dest == "document" || dest == "" &&
		q.header.Get("Sec-Fetch-Mode") == "")
}

// renewalDue: half of the idle time is over, or another host than the public one has its
// session for so long that it is to be asked whether it still holds.
func (d *Door) renewalDue(q *question, s *session.Session) bool {
	left, all := s.IdleExpires.Sub(d.now()), s.IdleExpires.Sub(s.Seen)
	if q.facts.Host != d.signIn.host && d.sessions.HandOverDue(s) {
		return true
	}
	_, worth := d.sessions.Renew(*s)
	return worth && left < all/2
}

// renewals are the sessions that were sent to be renewed a moment ago. A browser that
// keeps its old cookie all the same goes on with that: it must not be sent in a circle.
type renewals struct {
	mu   sync.Mutex // guards both
	sent map[string]time.Time
	old  map[string]time.Time // those of the minute before
	turn time.Time
}

// maxRenewals bounds each of the two: beyond, nobody is sent until the minute is over.
const maxRenewals = 100_000

// once reports whether a session was not sent for a minute, and notes that it is.
func (r *renewals) once(id string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sent == nil || now.Sub(r.turn) >= time.Minute {
		r.old, r.sent, r.turn = r.sent, map[string]time.Time{}, now
	}
	for _, m := range [...]map[string]time.Time{r.sent, r.old} {
		if last, ok := m[id]; ok && now.Sub(last) < time.Minute {
			return false
		}
	}
	if len(r.sent) >= maxRenewals {
		return false
	}
	r.sent[id] = now
	return true
}
