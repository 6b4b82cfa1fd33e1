package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/internal/useragent"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

const (
	// listTime is how long a page waits for the list of sessions.
	listTime = 2 * time.Second
	// endTime is how long a person who ends a session waits for its line of the list.
	endTime = 5 * time.Second
	// maxListed is how many sessions a person sees, and maxFound among how many one is
	// looked for that is to be ended.
	maxListed = 50
	maxFound  = 1000
	// maxForm bounds the forms that end sessions, or have to do with grants.
	maxForm = 4 << 10
)

// personList is the list of a person's own sessions.
type personList struct {
	process *Process
	listing session.Listing // nil: there is none
}

// of returns what the list has of the person of s, the newest first. What it has of
// others, or twice, and what is over, is left out.
func (l *personList) of(ctx context.Context, s *session.Session, most int) ([]session.Entry, error) {
	who := s.Identity.ID()
	all, err := l.listing.Sessions(ctx, session.Which{Person: who, Most: most})
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	now, seen := l.process.now(), map[string]bool{}
	all = slices.DeleteFunc(slices.Clone(all), func(e session.Entry) bool {
		_, ok := session.KeyOfSID(e.SID)
		leave := !ok || seen[e.SID] || e.Person != who || !now.Before(e.Until)
		seen[e.SID] = true
		return leave
	})
	slices.SortStableFunc(all, func(a, b session.Entry) int { return b.Since.Compare(a.Since) })
	return all, nil
}

// find returns the line of one session, nil where the person has none of this name.
func (l *personList) find(ctx context.Context, s *session.Session, sid string) (*session.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	all, err := l.of(ctx, s, maxFound)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(e session.Entry) bool { return e.SID == sid }); i >= 0 {
		return &all[i], nil
	}
	return nil, nil
}

// show returns what the account page says of the person's sessions, s among them
// although its line may not be written yet. Where the list cannot be read the page
// says so, and err is for the log.
func (l *personList) show(r *http.Request, s *session.Session) (_ pages.Sessions, err error) {
	if l.listing == nil {
		return pages.Sessions{}, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), listTime)
	defer cancel()
	all, err := l.of(ctx, s, maxListed+1)
	if err != nil {
		return pages.Sessions{Listed: true, Unknown: true}, err
	}
	this := s.SID()
	isThis := func(e session.Entry) bool { return e.SID == this }
	if !slices.ContainsFunc(all, isThis) {
		all = append(all, s.Entry("", useragent.Words(r.UserAgent())))
		slices.SortStableFunc(all, func(a, b session.Entry) int { return b.Since.Compare(a.Since) })
	}
	out := pages.Sessions{Listed: true, More: len(all) > maxListed}
	if out.More {
		if i := slices.IndexFunc(all, isThis); i >= maxListed {
			all[maxListed-1] = all[i]
		}
		all = all[:maxListed]
	}
	for _, e := range all {
		out.List = append(out.List, pages.SessionLine{SID: e.SID, Since: e.Since, From: e.From, Browser: e.Browser,
			This: e.SID == this})
	}
	return out, nil
}

// endSessionEndpoint ends one of a person's own sessions, on all servers.
type endSessionEndpoint struct {
	own     *ownSessions
	site    *site
	list    *personList
	signOut *signOutEndpoint
}

// serve answers alike whether the session was theirs, somebody else's, or none:
// nobody learns from it which sessions there are.
func (e *endSessionEndpoint) serve(w http.ResponseWriter, r *http.Request, ev *event) error {
	if !admission.FromPagesOf(r, e.site.origin) {
		return &failure{Status: http.StatusForbidden, Cause: errors.New("end of a session from another site"),
			Title: "Nothing was ended", Sentence: "The request to end a session came from another site.",
			Advice: "If you want to end a session, do it on your account page.", Account: e.site.url("account")}
	}
	form, err := readForm(w, r)
	if _, ok := session.KeyOfSID(form.Get("session")); err != nil || !ok || len(form["session"]) != 1 {
		return &failure{Status: http.StatusBadRequest, Cause: errors.New("malformed request to end a session"),
			Title: "Nothing was ended", Sentence: "What was sent does not name a session.",
			Advice: "Open your account page again, and end it there.", Account: e.site.url("account")}
	}
	sid := form.Get("session")
	s, err := e.own.read(r, ev)
	if sid == s.SID() && (err == nil || errors.Is(err, session.ErrEnded)) { // the form may be sent twice
		return e.signOut.leave(w, r, ev, s)
	}
	if err != nil {
		return e.site.askToSignIn(w, r, ev)
	}
	found, err := e.list.find(r.Context(), &s, sid)
	if err != nil {
		return e.unavailable(err, "The session was not ended",
			"The list of your sessions cannot be read at the moment.",
			"Try again in a minute. If it cannot wait, choose “Sign out everywhere” on your account page, "+
				"and tell the people who run this site.")
	}
	if found != nil {
		ev.Action, ev.Ended = observe.SessionsEnded, fmt.Sprintf("the session %s, since %s from %s, %s", found.SID,
			found.Since.UTC().Format(time.RFC3339), cmp.Or(found.From, "an unknown address"), found.Browser)
		e.own.process.metrics.ended.WithLabelValues(session.KindRoot.String(), "person").Inc()
		if err := e.own.sessions.EndListed(r.Context(), found); err != nil {
			return e.unavailable(err, "The session is not over everywhere yet",
				"This server has ended it. Other servers of this site could not be told yet: they learn of it as "+
					"soon as they can.",
				"Look at your account page in a minute. If the session is still listed then, end it once more.")
		}
	}
	redirect(w, http.StatusSeeOther, e.site.url("account")+"#sessions")
	return nil
}

// unavailable is the answer where the list or the store was away.
func (e *endSessionEndpoint) unavailable(cause error, title, sentence, advice string) error {
	return &failure{Status: http.StatusServiceUnavailable, RetryAfter: 5, Cause: cause, Title: title,
		Sentence: sentence, Advice: advice, Page: &pages.Page{Template: "message", Data: pages.Message{Title: title,
			Sentence: sentence, Advice: advice, ActionURL: e.site.path("account"), ActionText: "Your account"}}}
}

// readForm reads what a form of ours sends, in either encoding that scripts and browsers
// choose for one. A request without a form has no values.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	// PostForm has nothing of the query.
	if err := r.ParseMultipartForm(maxForm); err != nil && !errors.Is(err, http.ErrNotMultipart) {
		return nil, err
	}
	return r.PostForm, nil
}
