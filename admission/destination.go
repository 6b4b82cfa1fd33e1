package admission

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
)

// judgeDestination judges the second resource of a COPY or MOVE, which its
// Destination header names, as if it had been asked for by itself, and writes the
// header in the form that was judged. An app acts on the header as on the request
// line (RFC 4918 §10.3). On other methods the header is removed, unless the route
// keeps it; then it is judged there too.
func (a *Admission) judgeDestination(ctx context.Context, r Request, ans *Answer) *Refusal {
	lines, named := r.Header[identity.DestinationHeader], authz.NamesDestination(r.Facts.Method)
	switch {
	case lines == nil && !named: // the usual case
		return nil
	case !named && !slices.Contains(ans.Route.Keep.From(false), identity.DestinationHeader):
		delete(r.Header, identity.DestinationHeader)
		return nil
	case len(lines) > 1:
		return refuseDestination(http.StatusBadRequest, authz.ReasonAmbiguous,
			errors.New("several Destination headers"),
			"The request names several places to put something.", "")
	}
	if named {
		if refusal := a.checkCarried(r.Facts, ans.Route); refusal != nil {
			return refusal
		}
	}
	if lines == nil {
		return nil // the app will say what it thinks of that
	}
	to, route, refusal := a.lookUpDestination(r.Facts, ans.Route, lines[0])
	if refusal != nil {
		return refusal
	}
	if refusal := a.decideDestination(ctx, r, to, route, ans.Principal); refusal != nil {
		return refusal
	}
	if named {
		if refusal := a.checkCarried(to, route); refusal != nil {
			return refusal
		}
	}
	r.Header[identity.DestinationHeader] = []string{destinationValue(to, ans.Route.AppHost,
		strings.HasPrefix(lines[0], "/"))}
	return nil
}

// lookUpDestination reads the header like a request line, and finds the route.
func (a *Admission) lookUpDestination(
	f authz.Facts, from *Route, value string,
) (authz.Facts, *Route, *Refusal) {
	to, err := f.Destination(value)
	if errors.Is(err, authz.ErrOtherOrigin) {
		return to, nil, refuseDestination(http.StatusBadGateway, authz.ReasonDestination, err,
			"It was to be put on another site than this one.", "Choose a place on this site.")
	}
	var route *Route
	if err == nil {
		if _, own := a.OwnPath(to); own {
			err = errors.New("below the prefix of Sallyport itself")
		} else {
			route, err = a.lookup(to)
		}
	}
	switch {
	case errors.Is(err, authz.ErrTarget):
		return to, nil, refuseDestination(http.StatusBadRequest, authz.ReasonAmbiguous, err, "", "")
	case err != nil:
		return to, nil, refuseDestination(http.StatusForbidden, authz.ReasonDestination,
			fmt.Errorf("%s: %w", to.Path, err),
			"Nothing can be put at that address.", "Choose another place.")
	case route.App != from.App:
		return to, nil, refuseDestination(http.StatusBadGateway, authz.ReasonDestination,
			fmt.Errorf("%s is route %s's, which leads to another app than route %s", to.Path, route.Name, from.Name),
			"It was to be put into another app of this site.", "Choose a place in the same app.")
	}
	return to, route, nil
}

// decideDestination asks whether the principal may have what the header names. The
// route there may read another credential than the route here. If the two belong to
// two people, the request is refused.
func (a *Admission) decideDestination(
	ctx context.Context, r Request, to authz.Facts, route *Route, p *Principal,
) *Refusal {
	there, err := a.principal(ctx, r.Header, to, route)
	refusal, ok := errors.AsType[*Refusal](err)
	if ok && refusal.Reason == authz.ReasonUnverifiable {
		return refusal
	}
	if !ok {
		err = nil // nobody is signed in there
	}
	if err == nil && p != nil && there != nil && there.Identity.ID() != p.Identity.ID() {
		err = errors.New("the session and the access token are of two people")
	}
	if err != nil {
		return refuseDestination(http.StatusForbidden, authz.ReasonDestination, fmt.Errorf("%s: %w", to.Path, err),
			"You may not put anything there.", "Choose another place.")
	}
	v := authz.Decide(to, route.Route, there.identity())
	if v.StepUp != nil {
		return &Refusal{Status: http.StatusUnauthorized, Reason: v.Reason, Public: v.Public, StepUp: v.StepUp,
			Err: fmt.Errorf("destination: %s: %s", to.Path, v.Detail)}
	}
	if v.Outcome != authz.Forward {
		return refuseDestination(http.StatusForbidden, authz.ReasonDestination, fmt.Errorf("%s: %s", to.Path, v.Detail),
			"You may not put anything there. "+v.Public, "Choose another place.")
	}
	return nil
}

// checkCarried refuses to copy, move or overwrite a folder if another rule holds for
// a part of it: the app would copy, move or overwrite that part too.
func (a *Admission) checkCarried(f authz.Facts, route *Route) *Refusal {
	sameApp := func(r *authz.Route) bool {
		app := a.routes[r.Place()].App
		return app == route.App || app == "" || route.App == ""
	}
	other := a.table.CarriedAlong(f, route.Route, sameApp)
	if other == nil {
		return nil
	}
	return refuseDestination(http.StatusForbidden, authz.ReasonCarriedAlong,
		fmt.Errorf("%s has route %s below it, for which another rule holds", f.Path, other.Name),
		"A part of what would be copied, moved or overwritten is not open to the same people as the rest.",
		"Take the parts one by one.")
}

// destinationValue is the header in the form that was judged: a path stays a path,
// and a URI names the host that the app is asked for.
func destinationValue(to authz.Facts, host string, asPath bool) string {
	switch value := to.Target(); {
	case asPath:
		return value
	case host != "":
		return to.Scheme + "://" + host + value
	default:
		return to.Scheme + "://" + to.Authority + value
	}
}

func refuseDestination(status int, reason authz.Reason, cause error, public, advice string) *Refusal {
	return &Refusal{Status: status, Reason: reason, Err: fmt.Errorf("destination: %w", cause),
		Title: "This cannot be put there", Public: public, Advice: advice}
}
