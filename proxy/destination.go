package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/session"
)

// judgeDestination judges the second resource of a COPY or MOVE, which its
// Destination header names, as if it had been asked for by itself, and writes the
// header in the form that was judged. What forwards must have called it: an app
// acts on the header as on the request line (RFC 4918 §10.3). On other methods
// the header goes, unless the route keeps it; then it is judged there too.
func (p *Proxy) judgeDestination(r *http.Request, ev *event, route *authz.Route, s *session.Session) error {
	lines, named := r.Header[identity.DestinationHeader], authz.NamesDestination(r.Method)
	switch {
	case lines == nil && !named: // the usual case
		return nil
	case !named && !slices.Contains(p.backends[route].Keep.From(false), identity.DestinationHeader):
		delete(r.Header, identity.DestinationHeader)
		return nil
	case len(lines) > 1:
		return refuseDestination(ev, http.StatusBadRequest, authz.ReasonAmbiguous, errors.New("several Destination headers"),
			"The request names several places to put something.", "")
	}
	if named {
		if err := p.checkCarried(ev, ev.facts, route); err != nil {
			return err
		}
	}
	if lines == nil {
		return nil // the app will say what it thinks of that
	}
	to, route2, err := p.lookUpDestination(ev, route, lines[0])
	if err != nil {
		return err
	}
	if err := p.decideDestination(r, ev, to, route2, s); err != nil {
		return err
	}
	if named {
		if err := p.checkCarried(ev, to, route2); err != nil {
			return err
		}
	}
	r.Header[identity.DestinationHeader] = []string{p.destinationValue(to, p.backends[route].Host, strings.HasPrefix(lines[0], "/"))}
	return nil
}

// lookUpDestination reads the header like a request line, and finds the route.
func (p *Proxy) lookUpDestination(ev *event, from *authz.Route, value string) (authz.Facts, *authz.Route, error) {
	to, err := ev.facts.Destination(value)
	if errors.Is(err, authz.ErrOtherOrigin) {
		return to, nil, refuseDestination(ev, http.StatusBadGateway, authz.ReasonDestination, err,
			"It was to be put on another site than this one.", "Choose a place on this site.")
	}
	var route *authz.Route
	if err == nil {
		if _, own := p.ownPath(to); own {
			err = errors.New("below the prefix of Sallyport itself")
		} else {
			route, err = p.routes.Lookup(to)
		}
	}
	switch {
	case errors.Is(err, authz.ErrTarget):
		return to, nil, refuseDestination(ev, http.StatusBadRequest, authz.ReasonAmbiguous, err, "", "")
	case err != nil:
		return to, nil, refuseDestination(ev, http.StatusForbidden, authz.ReasonDestination, fmt.Errorf("%s: %w", to.Path, err),
			"Nothing can be put at that address.", "Choose another place.")
	case p.backends[route].App != p.backends[from].App:
		return to, nil, refuseDestination(ev, http.StatusBadGateway, authz.ReasonDestination,
			fmt.Errorf("%s is route %s's, which leads to another app than route %s", to.Path, route.Name, from.Name),
			"It was to be put into another app of this site.", "Choose a place in the same app.")
	}
	return to, route, nil
}

// decideDestination asks whether the caller may have what the header names. Who
// they are is found out as it would be there; two credentials of two people,
// each good for one end, are not put together.
func (p *Proxy) decideDestination(r *http.Request, ev *event, to authz.Facts, route *authz.Route, s *session.Session) error {
	caller, err := p.callerAt(r, to.Host, route)
	if err == nil && s != nil && caller != nil && caller.Identity.ID() != s.Identity.ID() {
		err = errors.New("the session and the access token are of two people")
	}
	if err != nil {
		return refuseDestination(ev, http.StatusForbidden, authz.ReasonDestination, fmt.Errorf("%s: %w", to.Path, err),
			"You may not put anything there.", "Choose another place.")
	}
	if v := authz.Decide(to, route, identityOf(caller)); v.Outcome != authz.Forward {
		return refuseDestination(ev, http.StatusForbidden, authz.ReasonDestination, fmt.Errorf("%s: %s", to.Path, v.Detail),
			"You may not put anything there. "+v.Public, "Choose another place.")
	}
	return nil
}

// callerAt is who asks, as a request for route would find out; nil is nobody.
func (p *Proxy) callerAt(r *http.Request, host string, route *authz.Route) (*session.Session, error) {
	if route.Access.Public {
		return nil, nil
	}
	if p.takesBearer(route) && r.Header["Authorization"] != nil {
		s, err := p.readBearer(r, p.backends[route].Bearer)
		return &s, err
	}
	s, err := p.readSession(r, host)
	if err != nil {
		return nil, nil // nobody is signed in
	}
	return &s, nil
}

// checkCarried refuses to copy, move or overwrite a folder in which another rule
// holds for a part: the app would take all of it along.
func (p *Proxy) checkCarried(ev *event, f authz.Facts, route *authz.Route) error {
	app := p.backends[route].App
	other := p.routes.CarriedAlong(f, route, func(r *authz.Route) bool { return p.backends[r].App == app })
	if other == nil {
		return nil
	}
	return refuseDestination(ev, http.StatusForbidden, authz.ReasonCarriedAlong,
		fmt.Errorf("%s has route %s below it, for which another rule holds", f.Path, other.Name),
		"A part of what would be copied, moved or overwritten is not open to the same people as the rest.", "Take the parts one by one.")
}

// destinationValue is the header in the form that was judged: a path stays a path,
// and a URI names the host that the app is asked for.
func (p *Proxy) destinationValue(to authz.Facts, host string, asPath bool) string {
	switch value := target(to); {
	case asPath:
		return value
	case host != "":
		return to.Scheme + "://" + host + value
	default:
		return to.Scheme + "://" + to.Authority + value
	}
}

func refuseDestination(ev *event, status int, reason authz.Reason, cause error, sentence, advice string) error {
	ev.decide(authz.Deny.String(), reason)
	ev.rule = 0 // the rule that matched was for the request line
	return &failure{Status: status, Cause: fmt.Errorf("destination: %w", cause), Title: "This cannot be put there", Sentence: sentence, Advice: advice}
}
