package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/sallyport-proxy/sallyport/session"
)

// inSession is the part of a flow's detail that ties it to the session in which it was begun:
// in another one, of the same browser too, nothing comes of it (P6).
type inSession struct {
	Person string `json:"p"`
	Org    string `json:"g,omitempty"`
	SID    string `json:"s"`
}

func begunIn(s *session.Session) inSession {
	return inSession{Person: s.Identity.ID(), Org: s.Identity.Org.ID, SID: s.SID()}
}

// callbackQuery reads what a third party sends a browser back with.
func callbackQuery(ev *event) (url.Values, error) {
	q, err := readQuery(ev.facts.RawQuery, "code", "state", "iss", "error")
	if err != nil || anyTwice(q, "code", "state", "iss", "error") {
		return nil, &failure{Status: http.StatusBadRequest,
			Cause: errors.New("malformed callback: a parameter that counts cannot be read, or comes twice")}
	}
	return q, nil
}

// returning is what a callback is for. Its flow's detail is read into detail, of which in is
// a part.
type returning struct {
	state, purpose, provider string
	detail                   any
	in                       *inSession
}

// returned finds the flow that comes back, and the session in which it was begun. An error
// says in words for the log why this is not so; nothing must be redeemed then.
func (o *ownSessions) returned(r *http.Request, ev *event, back returning) (session.Trip, session.Session, error) {
	trip, err := o.sessions.Return(r, back.state)
	switch {
	case err != nil:
		return session.Trip{}, session.Session{}, err
	case trip.Purpose != back.purpose || json.Unmarshal([]byte(trip.Detail), back.detail) != nil:
		return session.Trip{}, session.Session{}, errors.New("it was begun for something else")
	case trip.Provider != back.provider: // mix-up: RFC 9700 §4.4
		return session.Trip{}, session.Session{}, errMixUp
	}
	s, err := o.read(r, ev)
	switch {
	case err != nil:
		return session.Trip{}, session.Session{}, fmt.Errorf("nobody is signed in: %w", err)
	case begunIn(&s) != *back.in:
		return session.Trip{}, session.Session{}, errors.New("it was begun in another session")
	}
	return trip, s, nil
}
