package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

// signOutTime is how long the page for those who are signed out waits to learn
// where the provider's own sign-out is. It is nearly always known.
const signOutTime = 2 * time.Second

// signOutEndpoint signs people out, and tells them where they can sign out further.
type signOutEndpoint struct {
	own       *ownSessions
	site      *site
	providers providers
	pages     *pages.Pages
	keepCache bool
	durable   bool // what ends sessions is kept in a store
}

// do ends the session, in this process at once, and all of the person's if the form
// says so.
func (e *signOutEndpoint) do(w http.ResponseWriter, r *http.Request, ev *event) error {
	if !admission.FromPagesOf(r, e.site.origin) {
		return &failure{Status: http.StatusForbidden, Cause: errors.New("sign-out from another site"),
			Title: "You were not signed out", Sentence: "The request to sign out came from another site.",
			Advice: "If you want to sign out, do it on your account page.", Account: e.site.url("account")}
	}
	form, err := readForm(w, r)
	everywhere := form.Get("everywhere") == "1"
	if values := form["everywhere"]; err != nil || len(values) > 1 || len(values) == 1 && !everywhere {
		// Not taken for a sign-out of this browser only: who meant all would not notice.
		return &failure{Status: http.StatusBadRequest, Cause: errors.New("malformed sign-out"),
			Title: "You were not signed out", Sentence: "What was sent is not a request to sign out.",
			Advice: "Sign out on your account page.", Account: e.site.url("account")}
	}
	s, err := e.own.read(r, ev) // without one there may still be a cookie to take away
	switch {
	case err == nil && everywhere:
		return e.leaveEverywhere(w, r, ev, s)
	case admission.ThroughWorker(r) && errors.Is(err, session.ErrNone):
		// A form of another site brings no cookie, whatever a service worker makes the
		// browser say about it. The answer must not take away what was not sent.
		clearCache(w, r, e.keepCache)
		return e.signedOut(w, s, "", "")
	case everywhere:
		return e.leaveTooLate(w, r, ev, s)
	}
	return e.leave(w, r, ev, s)
}

// leave ends s, of which there may be only the cookie.
func (e *signOutEndpoint) leave(w http.ResponseWriter, r *http.Request, ev *event, s session.Session) error {
	known := e.own.signOut(w, r, ev, s)
	clearCache(w, r, e.keepCache)
	if !known {
		return e.signedOut(w, s, "elsewhere", "later")
	}
	return e.signedOut(w, s, "", "")
}

// leaveEverywhere ends s, and all other sessions of its person that began before now.
func (e *signOutEndpoint) leaveEverywhere(w http.ResponseWriter, r *http.Request, ev *event, s session.Session) error {
	err := e.own.signOutEverywhere(w, r, ev, s)
	clearCache(w, r, e.keepCache)
	if err == nil {
		return e.signedOut(w, s, "everywhere", "1")
	}
	const title = "You are signed out here, but perhaps not everywhere"
	const sentence = "This server has ended your sessions, the one in this browser among them. " +
		"Other servers of this site could not be told yet, so other browsers may still be signed in there."
	const advice = "This server tells them as soon as it can. If it matters, sign in again in a few minutes, " +
		"sign out everywhere once more, and tell the people who run this site."
	return &failure{Status: http.StatusServiceUnavailable, RetryAfter: 5, Cause: err, Title: title, Sentence: sentence,
		Advice: advice, Page: &pages.Page{Template: "message", Data: pages.Message{Title: title, Sentence: sentence,
			Advice: advice, ActionURL: e.site.login("/"), ActionText: "Sign in again"}}}
}

// leaveTooLate answers a sign-out everywhere from a browser whose session is over. It
// proves no longer whose sessions are to end, so others are left. If the form was sent
// twice, the first time has ended them.
func (e *signOutEndpoint) leaveTooLate(w http.ResponseWriter, r *http.Request, ev *event, s session.Session) error {
	twice := errors.Is(ev.sessionErr, session.ErrEnded) && e.own.sessions.LeftEverywhere(&s)
	e.own.signOut(w, r, ev, s)
	clearCache(w, r, e.keepCache)
	if twice {
		return e.signedOut(w, s, "everywhere", "1")
	}
	return e.signedOut(w, s, "everywhere", "late")
}

// signedOut leads to the page for those who are signed out, with a name and a value
// that say how it went.
func (e *signOutEndpoint) signedOut(w http.ResponseWriter, s session.Session, name, value string) error {
	q := url.Values{}
	if s.Identity.Provider != "" {
		q.Set("provider", s.Identity.Provider)
	}
	if name != "" {
		q.Set(name, value)
	}
	target := e.site.home().url("logout")
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	redirect(w, http.StatusSeeOther, target)
	return nil
}

// clearCache has the browser forget what an app let it keep: it must not come
// back with the back button, nor be seen for another organization. Sites whose
// apps let nothing personal be kept can spare their people the seconds that it
// takes in a large cache. Nor is it done through a service worker: WebKit never
// loads the next page if the header comes that way.
func clearCache(w http.ResponseWriter, r *http.Request, keep bool) {
	if !keep && !admission.ThroughWorker(r) {
		w.Header().Set("Clear-Site-Data", `"cache"`)
	}
}

// isForOther reports whether now is of another person than before, or for another organization: what
// the browser keeps of before's pages is not theirs to see. Who has yet to choose an organization is
// asked, and the cache is cleared then.
func isForOther(before, now *session.Session) bool {
	if before.Root == "" {
		return false // nothing is known of who was here before
	}
	was, is := &before.Identity, &now.Identity
	return was.ID() != is.ID() || was.Org.ID != is.Org.ID && !is.MustPick()
}

// confirm asks before it signs out: a link must not be able to. Without
// a session it is the page to land on afterwards.
func (e *signOutEndpoint) confirm(w http.ResponseWriter, r *http.Request, ev *event) error {
	s, err := e.own.read(r, ev)
	if err == nil {
		show(e.pages, w, r, ev, pages.Page{Template: "confirmlogout", FormAction: e.site.origins(),
			Data: pages.ConfirmSignOut{Name: s.Identity.DisplayName(),
				LogoutURL: e.site.path("logout"), BackURL: e.site.path("account")}})
		return nil
	}
	if e.site.public != nil {
		redirect(w, http.StatusSeeOther, e.site.public.url("logout"))
		return nil
	}
	// Signing out on another host leads here, where the cookie of that sign-in is left.
	// One that ended by a switch is still needed: to sign out what it was switched to.
	if errors.Is(err, session.ErrEnded) && e.own.sessions.SignInEnded(s) {
		clearCache(w, r, e.keepCache)
		e.own.sessions.Clear(w)
	}
	q, _ := readQuery(ev.facts.RawQuery)
	data := pages.SignedOut{SignInURL: e.site.login("/"), Provider: e.atProvider(r.Context(), ev.facts.RawQuery),
		Later: q.Get("elsewhere") == "later", Everywhere: q.Get("everywhere") == "1",
		TooLate: q.Get("everywhere") == "late", OnlyHere: !e.durable}
	pg := pages.Page{Template: "signedout", Data: data}
	if data.Provider != nil && data.Provider.Post {
		pg.FormAction = []string{data.Provider.URL}
	}
	show(e.pages, w, r, ev, pg)
	return nil
}

// atProvider is where somebody who was signed in with the provider of the
// query can sign out there too. It is offered, not done: we keep no token that
// would prove whose request it is, so a provider may well ask, and on its own
// page people see what they end.
func (e *signOutEndpoint) atProvider(ctx context.Context, query string) *pages.ProviderSignOut {
	q, err := url.ParseQuery(query)
	if err != nil {
		return nil
	}
	provider, ok := e.providers.find(q.Get("provider"))
	if !ok {
		return nil
	}
	ends, ok := provider.Login.(LogoutProvider)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, signOutTime)
	defer cancel()
	address, form, post, err := ends.Logout(ctx, e.site.url("logout"), "")
	if err != nil || address == "" {
		return nil
	}
	out := &pages.ProviderSignOut{Name: provider.Name, URL: address, Post: post, Form: form}
	if !post {
		out.URL += map[bool]string{false: "?", true: "&"}[strings.Contains(address, "?")] + form.Encode()
	}
	return out
}
