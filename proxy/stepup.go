package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

// A step-up: a route asks for a more recent sign-in, or for one by other means, than the
// one that somebody has. They keep what they have, and prove to the same provider again
// who they are.
//
//	page of the route      → 302 login?step_up=ROUTE&return_to=…
//	login?step_up=ROUTE    → provider, with max_age and acr_values (on another host by the
//	                         hand-off, which does it at the public host)
//	callback               → the same person, who has proved it: into the session, 303 the page
//	                         · else a page that says what is missing, and nothing has changed
//
// That somebody has done so is in the new cookie only: a copy of the old one is worth
// what it was.
const purposeStepUp = "step_up"

// stepUpDetail is the detail of a flow that has somebody step up for a route. packed
// adds a hand-off to it.
func stepUpDetail(route string) string { return route + "\x00" }

// stepUpRoute is the route in the detail of a flow, and stepUpWant the hand-off.
func stepUpRoute(f session.Flow) string { name, _, _ := strings.Cut(f.Detail, "\x00"); return name }
func stepUpWant(f session.Flow) string  { _, want, _ := strings.Cut(f.Detail, "\x00"); return want }

// stepUpLogin is where somebody steps up for a route, and comes back to returnTo.
func (s *site) stepUpLogin(route, returnTo string) string {
	return admission.StepUpAt(s.login(returnTo), route)
}

// askToStepUp answers somebody who may have what they ask for once they have proved
// again who they are.
func (s *site) askToStepUp(w http.ResponseWriter, r *http.Request, ev *event, answer *admission.Answer) error {
	verdict := &answer.Verdict
	ev.Note = verdict.Detail
	kind, who := admission.KindOf(r), answer.Principal
	byToken := who != nil && who.Session == nil
	login := func(returnTo string) string { return s.stepUpLogin(verdict.StepUp.Name, returnTo) }
	switch {
	case byToken:
	case kind == admission.Navigation && admission.InFrame(r):
		returnTo := s.returnHere(ev, r)
		if around := s.referer(r); around != "/" {
			returnTo = around
		}
		return &failure{Status: http.StatusUnauthorized, Cause: errors.New(verdict.Detail),
			Page: &pages.Page{Template: "framed", FramedBy: s.framers(r),
				Data: pages.Framed{SignInURL: login(returnTo), Again: true}}}
	case opensPage(r):
		w.Header().Set("Cache-Control", "no-store")
		redirect(w, http.StatusFound, login(ev.facts.Target()))
		return nil
	case kind == admission.Form:
		return &failure{Status: http.StatusUnauthorized, Cause: errors.New(verdict.Detail),
			Page: &pages.Page{Template: "formlost", KeepsForm: true, FramedBy: s.framers(r),
				Data: pages.FormLost{SignInURL: login(s.referer(r)), Again: true}}}
	}
	w.Header().Add("WWW-Authenticate", answer.Route.ChallengeStepUp(ev.facts, verdict.StepUp.Proof))
	at := ""
	if !byToken {
		at = login(s.referer(r))
		w.Header().Add("WWW-Authenticate", admission.CookieChallenge(at))
	}
	writeError(w, r, http.StatusUnauthorized, admission.AskToStepUp(at, ev.RequestID))
	return nil
}

// unproven is the route for which s, a session of a site, has to step up: the one that
// is named, or the one at returnTo there, because not every front door names it. It is
// nil where s has proved what both ask for.
func (b *signIns) unproven(at *site, s *session.Session, name, returnTo string) *authz.Route {
	if named := b.site.routes.Named(name); named != nil {
		// No leeway: the clock of the replica that sent the browser here may be ahead of ours,
		// and to send it back there would be a circle.
		strict := b.process.now().Add(identity.ClockLeeway)
		if named.Proof.Check(s.Identity.AuthTime, s.Identity.ACR, strict) != nil {
			return named
		}
	}
	facts, route := b.placeOf(at, returnTo)
	if route == nil {
		return nil
	}
	who := s.Identity
	if org := b.site.routes.OrgOf(facts.Host); org != "" {
		who, _ = who.WithOrg(org)
	}
	return authz.Decide(facts, route, &who).StepUp
}

// placeOf is the route at an address of a site to return to, which may be a hand-off to
// another host; nil where there is none, as for our own pages.
func (b *signIns) placeOf(at *site, returnTo string) (authz.Facts, *authz.Route) {
	if _, ok := at.wantIn(returnTo); ok {
		want, err := b.sessions.OpenWant(strings.TrimPrefix(returnTo, at.handOff("")))
		if err != nil {
			return authz.Facts{}, nil
		}
		at, returnTo = at.at(want.Host), want.ReturnTo
	}
	facts, err := authz.NewFacts(http.MethodGet, at.scheme, strings.TrimPrefix(at.origin, at.scheme+"://"), returnTo)
	if err != nil || facts.Path == at.prefix || strings.HasPrefix(facts.Path, at.prefix+"/") {
		return authz.Facts{}, nil
	}
	facts.At = b.process.now()
	route, err := at.routes.Lookup(facts)
	if err != nil {
		return authz.Facts{}, nil
	}
	return facts, route
}

// proofOf is what the provider is asked for on a trip. Who signs in because of a
// route is asked for what that wants at once. Whether they have given it is then the
// verdict's to say: they are signed in in any case.
func (b *signIns) proofOf(f session.Flow) identity.Proof {
	var route *authz.Route
	switch {
	case f.Purpose == purposeStepUp:
		route = b.site.routes.Named(stepUpRoute(f))
	case signIn(f):
		_, route = b.placeOf(b.site, f.ReturnTo)
	}
	if route == nil {
		return identity.Proof{}
	}
	return route.Proof
}

// stepUp sends the browser to the provider of s, for what route asks. The session is in
// use: it must not idle out meanwhile because of when it was used before.
func (e *signInEndpoint) stepUp(w http.ResponseWriter, r *http.Request, ev *event, s session.Session,
	route *authz.Route, returnTo string) error {
	browser := e.sessions.BrowserID(r)
	switch {
	case r.Method != http.MethodGet:
		return &failure{Status: http.StatusMethodNotAllowed, Allow: "GET", Cause: errors.New("a step-up is a GET")}
	case admission.InFrame(r):
		return &failure{Status: http.StatusUnauthorized, Cause: errors.New("framed step-up"),
			Page: &pages.Page{Template: "framed", FramedBy: e.site.framers(r),
				Data: pages.Framed{SignInURL: e.site.stepUpLogin(route.Name, returnTo), Again: true}}}
	case browser != "" && e.process.stepUps.looping(browser):
		return e.loopPage(e.site, ev, nil, returnTo)
	}
	provider, ok := e.providers.find(s.Identity.Provider)
	if !ok {
		return &failure{Status: http.StatusInternalServerError, Cause: admission.ErrNoProvider}
	}
	if renewed, due := e.sessions.Renew(s); due {
		if err := e.sessions.Write(w, e.site.host, renewed); err != nil {
			return &failure{Status: http.StatusInternalServerError, Cause: err}
		}
	}
	ev.Note = "route " + route.Name + " asks for another sign-in"
	return e.redirectToProvider(w, r, ev, provider, session.Flow{Purpose: purposeStepUp, Provider: provider.ID,
		ReturnTo: returnTo, Detail: stepUpDetail(route.Name)}, hintFor(&s.Identity))
}

// steppedUp answers the callback of a step-up. The session is changed only if the
// provider says that the same person has proved what was asked. Whatever else it says
// gets a page, and nothing begins by itself, so that no provider can keep a browser
// going round.
func (e *callbackEndpoint) steppedUp(w http.ResponseWriter, r *http.Request, ev *event, q url.Values,
	trip session.Trip, s session.Session, readErr error) error {
	returnTo := e.site.returnOf(trip.Flow)
	provider, ok := e.providers.find(r.PathValue("provider"))
	ev.Provider = provider.ID
	switch {
	case !ok || trip.Provider != provider.ID: // mix-up: RFC 9700 §4.4
		e.process.redeemed.spend(trip)
		return e.startAgainPage(trip.Flow, errMixUp)
	case readErr != nil || s.Identity.Provider != provider.ID: // who is here now is another, or nobody
		e.process.redeemed.spend(trip)
		redirect(w, http.StatusSeeOther, e.site.origin+returnTo)
		return nil
	}
	fetch, err := e.process.redeemed.join(trip, e.sessions.BrowserID(r), e.maxFlows, func() (redeemFunc, error) {
		return e.redemption(r, ev, provider, q, trip)
	}, e.unseenFailure(r, ev, observe.StepUpFailed, func(error) { e.countStepUp(provider, "failed") }))
	var result redeemed
	if err == nil {
		result, err = fetch(r.Context())
	}
	who := result.who
	var answered *failure
	switch {
	case errors.As(err, &answered):
		return answered
	case errors.Is(err, errLeft):
		return &failure{Status: statusClientGone, Cause: err}
	case errors.Is(err, session.ErrConsumed): // the page says what there is
		redirect(w, http.StatusSeeOther, e.site.origin+returnTo)
		return nil
	case err != nil:
		return e.notSteppedUp(ev, provider, trip, err)
	case who.ID() != s.Identity.ID():
		return e.otherPerson(ev, provider, &s, who, returnTo)
	}
	if confirmed, err := e.confirm(w, r, ev, s, withOrgOf(e.orgs.Fold(who), s.Identity), returnTo); confirmed == "" {
		return err
	}
	e.countStepUp(provider, "met")
	e.process.stepUps.completed(e.sessions.BrowserID(r))
	ev.Action = observe.StepUp
	return nil
}

// notSteppedUp says what the provider answered instead of what was asked.
func (e *callbackEndpoint) notSteppedUp(ev *event, provider Provider, trip session.Trip, err error) error {
	ev.Action = observe.StepUpFailed
	again := e.site.stepUpLogin(stepUpRoute(trip.Flow), e.site.returnOf(trip.Flow))
	var unproven *identity.UnprovenError
	f := &failure{Status: http.StatusForbidden, Cause: fmt.Errorf("step-up with %s: %w", provider.ID, err)}
	result := "failed"
	switch kind := identity.FailureOf(err); {
	case errors.As(err, &unproven):
		result = "unmet"
		f.Title = "This sign-in is not enough for this page"
		f.Sentence, f.Advice = unprovenWords(provider, unproven)
	case kind == identity.NotAdmitted:
		result = "denied"
		f.Title = "You did not sign in again"
		_, f.Sentence, f.Advice = notAdmittedWords(provider, err)
		f.Advice += " You are still signed in as before."
	case kind == identity.Declined, kind == identity.Interaction:
		result = "denied"
		f.Title = "You did not sign in again"
		f.Sentence = "This page asks you to sign in again, and " + provider.Name +
			" says that this was cancelled or refused there. You are still signed in for everything else."
		f.Advice = "Try again, or ask the people who run " + provider.Name + " whether your account can sign in as " +
			"this page asks."
	default:
		f = e.failureWords(provider, err, "/")
		f.Advice += " You are still signed in as before."
	}
	e.countStepUp(provider, result)
	f.Page = &pages.Page{Template: "message", Data: pages.Message{Title: f.Title, Sentence: f.Sentence,
		Advice: f.Advice, ActionURL: again, ActionText: "Try again"}}
	return f
}

// otherPerson is for an answer about somebody else. Nobody is exchanged for somebody
// else silently.
func (e *callbackEndpoint) otherPerson(ev *event, provider Provider, s *session.Session, who identity.Identity,
	returnTo string) error {
	ev.Action = observe.StepUpFailed
	e.countStepUp(provider, "other_person")
	return &failure{Status: http.StatusForbidden,
		Cause: fmt.Errorf("step-up with %s: the answer is about %s, and %s is signed in here", provider.ID, who.ID(),
			s.Identity.ID()),
		Page: &pages.Page{Template: "message", Data: pages.Message{Title: "You signed in as somebody else",
			Sentence: "You are signed in here as " + s.Identity.DisplayName() + ", and " + provider.Name +
				" says that it was somebody else who signed in again. So nothing has changed here.",
			Advice: "Try again with the account that you are signed in with here. To go on with the other one, sign " +
				"in as someone else.",
			ActionURL: e.site.switchURL(s, returnTo), ActionText: "Sign in as someone else"}}}
}

// unprovenWords say what was asked, what came, and what to do.
func unprovenWords(provider Provider, e *identity.UnprovenError) (sentence, advice string) {
	const tell = "tell the people who run this site, and give them the request id."
	asked := "This page asks for a sign-in that was at most " + inWords(e.Asked.MaxAge) + " ago"
	switch e.Shortfall {
	case identity.AgeUnknown:
		setting := provider.Name + " has to tell it when asked (auth_time)."
		if adviser, ok := provider.Login.(AuthTimeAdviser); ok {
			setting = adviser.AuthTimeAdvice()
		}
		return asked + ", and " + provider.Name + " does not tell when yours was.", "Please " + tell + " " + setting
	case identity.TooOld:
		return asked + ", and " + provider.Name + " says that yours was " + inWords(e.Age) + " ago.",
			"Sign out at " + provider.Name + ", then try again. If you are not asked to sign in there, " + tell
	case identity.InFuture:
		return asked + ", and " + provider.Name + " says that yours will be in " + inWords(-e.Age) + ".",
			"Please " + tell + " The clock of this server or of " + provider.Name + " is wrong."
	}
	came := provider.Name + " does not tell how you signed in"
	if e.ACR != "" {
		came = provider.Name + " says that you signed in in the way it calls “" + identity.CutText(e.ACR, 100) + "”"
	}
	return "This page asks for a sign-in in a way that is called “" + strings.Join(e.Asked.ACR, "” or “") + "”, and " +
			came + ".",
		"If " + provider.Name + " lets you choose how to sign in, such as with a second factor, try again and choose " +
			"that. Else " + tell
}

// inWords is a duration for people, in one unit that is exact enough.
func inWords(d time.Duration) string {
	d = d.Round(time.Second)
	for _, unit := range [...]struct {
		is   time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		n := int64(d / unit.is)
		switch {
		case n == 1 && d%unit.is == 0:
			return "1 " + unit.name
		case n > 0 && d%unit.is == 0, n > 3: // of 90 minutes the hour alone would be wrong
			return fmt.Sprint(n, " ", unit.name, "s")
		}
	}
	return "a moment"
}

func (e *callbackEndpoint) countStepUp(provider Provider, result string) {
	e.process.metrics.stepUps.WithLabelValues(provider.ID, result).Inc()
}
