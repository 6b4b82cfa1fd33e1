package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/internal/useragent"
	"github.com/sallyport-proxy/sallyport/session"
)

// callbackEndpoint is where providers send browsers back to.
type callbackEndpoint struct {
	*signIns
	own     *ownSessions
	orgs    *identity.Organizations
	listing session.Listing // nil: sign-ins are not listed
	lender  Lender          // nil: nothing is lent
}

// serve ends a sign-in. With a live session it changes nothing: a repeated
// callback, the back button and thirty tabs all land where they wanted to go,
// and somebody else's callback URL does not replace who is signed in (P6).
func (e *callbackEndpoint) serve(w http.ResponseWriter, r *http.Request, ev *event) error {
	w.Header().Set("Cache-Control", "no-store")
	q, err := readQuery(ev.facts.RawQuery, "code", "state", "iss", "error")
	if err != nil || len(q["state"]) > 1 {
		return &failure{Status: http.StatusBadRequest,
			Cause: errors.New("malformed callback: a parameter that counts cannot be read, or comes twice")}
	}
	trip, flowErr := e.sessions.Return(r, q.Get("state"))
	flow, returnTo := trip.Flow, e.site.returnOf(trip.Flow)
	s, err := e.own.read(r, ev)
	if flowErr == nil && flow.Purpose == purposeReauth {
		return e.reauthenticated(w, r, ev, q, trip, s, err)
	}
	if flowErr == nil && flow.Purpose == purposeStepUp {
		return e.steppedUp(w, r, ev, q, trip, s, err)
	}
	if flowErr == nil && !signIn(flow) { // begun for something else than a sign-in
		e.process.redeemed.spend(trip)
		return e.startAgainPage(flow, errPurpose)
	}
	if err == nil {
		if flowErr == nil {
			e.process.redeemed.spend(trip)
		}
		redirect(w, http.StatusSeeOther, e.site.origin+e.site.afterSignIn(&s, returnTo))
		return nil
	}
	if errors.Is(err, session.ErrEnded) {
		// The session has ended, but not by this browser: somebody with a stolen cookie
		// may have switched to the next session of the sign-in. End all of its sessions.
		if err := e.sessions.EndSignIn(r.Context(), s); err != nil {
			e.process.log.Error("a sign-out reached this process only", "request_id", ev.RequestID, "error", err)
		}
	}
	provider, ok := e.providers.find(r.PathValue("provider"))
	ev.Provider = provider.ID
	reader, reads := provider.Login.(CallbackErrorReader)
	if reads && q.Has("error") && errors.Is(flowErr, session.ErrNoFlow) {
		err := fmt.Errorf("a callback with an error, and with no state that this browser could prove: %w",
			reader.CallbackError(q.Get("error"), q.Get("error_description")))
		f := e.failureWords(provider, err, e.site.returnOf(flow)) // not counted: anybody can send such a callback
		f.Hearsay = true
		return f
	}
	if errors.Is(flowErr, session.ErrNoFlow) && !admission.InFrame(r) {
		// The cookie is lost when a blocker removes it or the browser was closed. The
		// page keeps the deep link; its button begins a new sign-in.
		lost, _ := e.sessions.Lost(q.Get("state"))
		return e.startAgainPage(lost, flowErr)
	}
	if flowErr != nil {
		return e.flowBroken(w, r, ev, flow, flowErr)
	}
	if !ok || flow.Provider != provider.ID { // mix-up: RFC 9700 §4.4
		ev.Action = observe.SignInFailed
		e.process.redeemed.spend(trip)
		return e.startAgainPage(flow, errMixUp)
	}
	if q.Get("error") == "invalid_request" && prompt(flow) == "select_account" {
		e.process.redeemed.spend(trip)
		return e.redirectAgain(w, r, ev, provider, flow)
	}
	return e.redeem(w, r, ev, provider, q, trip, &s)
}

// redeem turns the code into a session. Browsers ask twice for one callback:
// Safari cancels the first request and sends another, and people reload. The code
// works once, so the redemption goes on without the request that began it, and the
// latest request for the same callback gets the result. Log, metrics and loop count
// say that the person is signed in only then. Before is the session that the browser had, which is
// over.
func (e *callbackEndpoint) redeem(w http.ResponseWriter, r *http.Request, ev *event, provider Provider, q url.Values,
	trip session.Trip, before *session.Session) error {
	returnTo := e.site.returnOf(trip.Flow)
	fetch, err := e.process.redeemed.join(trip, e.sessions.BrowserID(r), e.maxFlows, func() (redeemFunc, error) {
		return e.redemption(r, ev, provider, q, trip)
	}, e.unseenFailure(r, ev, observe.SignInFailed, func(err error) {
		e.process.metrics.logins.WithLabelValues(provider.ID, string(identity.FailureOf(err))).Inc()
	}))
	var result redeemed
	if err == nil {
		result, err = fetch(r.Context())
	}
	var answered *failure
	switch {
	case err == nil:
	case errors.As(err, &answered):
		return answered
	case errors.Is(err, session.ErrConsumed):
		return e.flowBroken(w, r, ev, trip.Flow, err)
	case errors.Is(err, errLeft):
		return &failure{Status: statusClientGone, Cause: err}
	case identity.FailureOf(err) == identity.Expired && trip.Restarts == 0 &&
		admission.KindOf(r) == admission.Navigation:
		return e.redirectAgain(w, r, ev, provider, trip.Flow)
	default:
		ev.Action = observe.SignInFailed
		ev.refused(err)
		return e.countedFailure(provider, err, returnTo)
	}
	// Organizations are folded here and where an access token is read, so that headers,
	// rules and assertion all see the same one.
	s, err := e.sessions.StartFrom(result.began, e.orgs.Fold(result.who))
	if err != nil {
		ev.Action = observe.SignInFailed
		return e.endedMeanwhile(provider, &s, err, returnTo)
	}
	if err := e.sessions.Write(w, e.site.host, s); err != nil {
		ev.Action = observe.SignInFailed
		return e.notKept(ev, provider, &s, err, returnTo)
	}
	ev.identify(&s.Identity)
	if isForOther(before, &s) {
		clearCache(w, r, e.keepCache)
	}
	if e.listing != nil {
		e.listing.NoteSignIn(s.Entry(ev.Client, useragent.Words(r.UserAgent())))
	}
	e.process.tellLender(r, ev, e.lender, &s)
	ev.Action = observe.SignIn
	e.process.metrics.logins.WithLabelValues(provider.ID, resultOK).Inc()
	e.process.loops.completed(e.sessions.BrowserID(r))
	// The redirect takes the code out of the address bar (RFC 9700 §4.2.4).
	redirect(w, http.StatusSeeOther, e.site.origin+e.site.afterSignIn(&s, returnTo))
	return nil
}

// redemption redeems the code of q, in flowTime at most, with a slot of provider
// until it ends. The answer to an error, such as a sign-in that was cancelled,
// is known without asking the provider and needs no slot.
func (e *callbackEndpoint) redemption(
	r *http.Request, ev *event, provider Provider, q url.Values, trip session.Trip,
) (redeemFunc, error) {
	release := func() {}
	if !q.Has("error") || !discovered(provider) {
		var err error
		if release, err = e.slot(r, ev, provider, e.site.returnOf(trip.Flow)); err != nil {
			return nil, err
		}
	}
	var asked identity.Proof // and checked in the answer
	if trip.Purpose == purposeStepUp {
		asked = e.proofOf(trip.Flow)
	}
	detached, began := context.WithoutCancel(r.Context()), e.sessions.Beginning()
	return func(stopped context.Context) (result redeemed, err error) {
		defer release()
		ctx, cancel := context.WithTimeout(detached, e.flowTime)
		defer cancel()
		defer context.AfterFunc(stopped, cancel)()
		defer func() { // this runs outside a request, so nothing else recovers
			if v := recover(); v != nil {
				result, err = redeemed{}, &failure{Status: http.StatusInternalServerError,
					Cause: fmt.Errorf("panic: %v\n%s", v, debug.Stack())}
			}
		}()
		who, err := provider.Login.Redeem(ctx, q, trip.Handshake, authParams(asked, "", ""))
		return redeemed{who, began}, err
	}, nil
}

// unseenFailure counts and tells of what failed after its browser had left, whose request is r:
// a sign-in, or that a provider was asked again. If the browser comes back, it begins afresh.
func (e *callbackEndpoint) unseenFailure(r *http.Request, ev *event, action observe.Action,
	count func(error)) func(error) {
	late := event{Event: ev.Event}
	late.Door, late.Method, late.Host, late.Path = observe.DoorProxy, r.Method, ev.facts.Authority, ev.facts.Path
	late.Status, late.Action = statusClientGone, action
	return func(err error) {
		late.refused(err)
		late.Err = fmt.Errorf("after its browser had left: %w", err)
		for _, o := range e.process.observers {
			if o, ok := o.(observe.LateObserver); ok {
				o.ObserveLate(context.Background(), &late.Event)
			}
		}
		e.process.log.Warn("a sign-in failed after its browser had left",
			"provider", late.Provider, "callback", late.RequestID, "action", string(action), "error", err)
		count(err)
	}
}

// endedMeanwhile answers a sign-in whose person was signed out, here or at the provider,
// while the code was being redeemed. Nothing begins again by itself: to be signed out is
// what somebody wanted a moment ago.
func (e *callbackEndpoint) endedMeanwhile(provider Provider, s *session.Session, err error, returnTo string) error {
	e.process.metrics.logins.WithLabelValues(provider.ID, string(identity.Rejected)).Inc()
	return e.site.tryAgain(&failure{Status: http.StatusForbidden,
		Cause: fmt.Errorf("sign-in of %s with %s: somebody ended their sessions meanwhile: %w",
			s.Identity.ID(), provider.ID, err),
		Title:    "You were signed out while you were signing in",
		Sentence: "All your sessions were ended before this sign-in was done, so this one has ended too.",
		Advice:   "If that was you, sign in again.",
	}, returnTo)
}

// notKept answers a sign-in whose session cannot be written. Only the list of
// organizations can make a session larger than a cookie.
func (e *callbackEndpoint) notKept(
	ev *event, provider Provider, s *session.Session, err error, returnTo string,
) error {
	if n := len(s.Identity.Orgs); errors.Is(err, session.ErrTooLarge) && n > 0 {
		err = &identity.SignInError{Failure: identity.NotAdmitted, Err: &identity.NotAdmittedError{Who: s.Identity,
			Why: identity.TooManyMemberships, Err: fmt.Errorf("%d organizations: %w", n, err)}}
		ev.refused(err)
	}
	return e.countedFailure(provider, err, returnTo)
}

// flowBroken answers a callback whose flow this browser did not begin, or that is no
// longer valid. A flow that this browser may have begun starts afresh, a few times;
// after that a page with a button prevents a redirect loop.
func (e *callbackEndpoint) flowBroken(
	w http.ResponseWriter, r *http.Request, ev *event, f session.Flow, cause error,
) error {
	if admission.InFrame(r) {
		return e.site.openWindow(r, e.site.returnOf(f))
	}
	provider, known := e.providers.find(f.Provider)
	restart := f.Restarts < maxRestarts && errors.Is(cause, session.ErrOtherBrowser) ||
		f.Restarts == 0 && (errors.Is(cause, session.ErrLate) || errors.Is(cause, session.ErrConsumed))
	if restart && known && signIn(f) && admission.KindOf(r) == admission.Navigation {
		return e.redirectAgain(w, r, ev, provider, f)
	}
	return e.startAgainPage(f, cause)
}
