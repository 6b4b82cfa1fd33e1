package proxy

import (
	"net/http"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/session"
)

// ownSessions reads and ends sessions for own endpoints.
type ownSessions struct {
	process   *Process
	site      *site
	admission *admission.Admission
	sessions  *session.Manager
	maxAge    time.Duration
}

// read reads the session. Side effects: it sets the event's user and clears the
// browser's loop count.
func (o *ownSessions) read(r *http.Request, ev *event) (session.Session, error) {
	s, err := o.admission.Session(r.Header, o.site.host)
	if err != nil {
		ev.sessionErr = err
		return *s, err
	}
	ev.identify(&s.Identity)
	o.process.loops.sessionKept(o.sessions.BrowserID(r))
	return *s, nil
}

// verifiable returns a failure where it is not known whether sessions were ended elsewhere. Endpoints
// that show or change what is a person's own ask it, once they have read a session; those that only
// end sessions, or lead to where the session is judged, do not.
func (o *ownSessions) verifiable() error {
	if err := o.admission.Verifiable(o.maxAge); err != nil {
		return unverifiable(err)
	}
	return nil
}

// signOut ends s, of which there may be only the cookie, and what this browser has
// not fetched yet: it must not sign it in again. The event says so also where s had
// ended already: its sign-in may have lived on, in a copy that went to a later session.
// It reports whether other servers know: if not, they learn of it as soon as they can.
func (o *ownSessions) signOut(w http.ResponseWriter, r *http.Request, ev *event, s session.Session) (everywhere bool) {
	return o.end(w, r, ev, s, "person")
}

// end is signOut on behalf of by, as the metric has it.
func (o *ownSessions) end(w http.ResponseWriter, r *http.Request, ev *event, s session.Session, by string) bool {
	if s.Root != "" {
		ev.identify(&s.Identity)
		ev.Action = observe.SignOut
	}
	err := o.sessions.SignOut(r.Context(), w, s)
	if err != nil {
		o.process.log.Error("a sign-out reached this process only, for now", "request_id", ev.RequestID, "error", err)
	}
	if s.Root != "" {
		o.process.metrics.ended.WithLabelValues(session.KindRoot.String(), by).Inc()
	}
	o.process.redeemed.forget(o.sessions.BrowserID(r))
	return err == nil
}

// signOutEverywhere ends s and all other sessions of its person that began before now.
// With an error other servers may not know yet.
func (o *ownSessions) signOutEverywhere(w http.ResponseWriter, r *http.Request, ev *event, s session.Session) error {
	ev.Action, ev.Ended = observe.SessionsEnded, "all sessions of the person"
	err := o.sessions.EndPerson(r.Context(), &s)
	o.process.metrics.ended.WithLabelValues(session.KindPerson.String(), "person").Inc()
	o.sessions.Clear(w)
	o.process.redeemed.forget(o.sessions.BrowserID(r))
	return err
}

// sessionEndpoint tells single-page apps who is signed in, and until when.
type sessionEndpoint struct {
	own  *ownSessions
	site *site
}

// serve is the contract with single-page apps.
func (e *sessionEndpoint) serve(w http.ResponseWriter, r *http.Request, ev *event) error {
	s, err := e.own.read(r, ev)
	if err != nil || s.Identity.MustPick() { // login_url leads to what is missing
		return e.site.unauthorized(w, r, ev)
	}
	if err := e.own.verifiable(); err != nil {
		return err
	}
	if renewed, due := e.own.sessions.Renew(s); due {
		if err := e.own.sessions.Write(w, e.site.host, renewed); err == nil {
			s = renewed
		}
	}
	type user struct {
		ID       string   `json:"id"`
		Email    string   `json:"email,omitempty"`
		Name     string   `json:"name,omitempty"`
		Username string   `json:"username,omitempty"`
		Groups   []string `json:"groups,omitempty"`
	}
	type org struct {
		ID     string `json:"id"`
		Name   string `json:"name,omitempty"`
		Domain string `json:"domain,omitempty"`
	}
	body := struct {
		User        user      `json:"user"`
		Org         *org      `json:"org"`
		Expires     time.Time `json:"expires_at"`
		IdleExpires time.Time `json:"idle_expires_at"`
	}{User: user{s.Identity.ID(), s.Identity.VerifiedEmail(), s.Identity.Name, s.Identity.Username, s.Identity.Groups},
		Expires: s.Expires, IdleExpires: s.IdleExpires}
	if o := s.Identity.Org; o.ID != "" {
		body.Org = &org{o.ID, o.Name, o.Domain}
	}
	w.Header().Set("Cache-Control", "private, no-store")
	writeJSON(w, r, http.StatusOK, body)
	return nil
}
