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
	"github.com/sallyport-proxy/sallyport/session"
)

// callback ends a sign-in. With a live session it changes nothing: a repeated
// callback, the back button and thirty tabs all land where they wanted to go,
// and somebody else's callback URL does not replace who is signed in (P6).
func (p *Proxy) callback(w http.ResponseWriter, r *http.Request, ev *event, id string) error {
	w.Header().Set("Cache-Control", "no-store")
	q, err := readQuery(ev.facts.RawQuery, "code", "state", "iss", "error")
	if err != nil || len(q["state"]) > 1 {
		return &failure{Status: http.StatusBadRequest, Cause: errors.New("malformed callback: a parameter that counts cannot be read, or comes twice")}
	}
	trip, flowErr := p.sessions.Return(r, q.Get("state"))
	flow, returnTo := trip.Flow, p.returnOf(trip.Flow)
	s, err := p.ownSession(r, ev)
	if err == nil {
		if flowErr == nil {
			p.redeemed.spend(trip)
		}
		redirect(w, http.StatusSeeOther, p.origin+p.afterSignIn(&s, returnTo))
		return nil
	}
	if errors.Is(err, session.ErrEnded) {
		// This browser did not end its session and signs in again: a stolen copy may
		// have switched to the sign-in's next session. Nothing of it may live on.
		if err := p.sessions.EndSignIn(r.Context(), s); err != nil {
			p.log.Error("a sign-out reached this process only", "request_id", ev.requestID, "error", err)
		}
	}
	provider, ok := p.provider(id)
	ev.provider = provider.ID
	if reader, reads := provider.Login.(readsErrors); reads && q.Has("error") && errors.Is(flowErr, session.ErrNoFlow) {
		err := fmt.Errorf("a callback with an error, and with no state that this browser could prove: %w", reader.CallbackError(q.Get("error"), q.Get("error_description")))
		return p.signInFailure(provider, err, p.returnOf(flow)) // not counted: anybody can send such a callback
	}
	if errors.Is(flowErr, session.ErrNoFlow) && !admission.InFrame(r) {
		// Blockers and closed browsers lose the cookie, and the deep link need not go
		// with it. The button begins a new sign-in, so this proves nothing of the old one.
		lost, _ := p.sessions.Lost(q.Get("state"))
		return p.startAgain(lost, flowErr)
	}
	if flowErr != nil {
		return p.flowBroken(w, r, ev, flow, flowErr)
	}
	if !ok || !signIn(flow) || flow.Provider != provider.ID { // mix-up: RFC 9700 §4.4
		p.redeemed.spend(trip)
		return p.startAgain(flow, errMixUp)
	}
	if q.Get("error") == "invalid_request" && prompt(flow) == "select_account" {
		p.redeemed.spend(trip)
		return p.beginAfresh(w, r, ev, provider, flow)
	}
	return p.redeem(w, r, ev, provider, q, trip)
}

// readsErrors is a LoginProvider that says what an error code in a callback means.
type readsErrors interface {
	CallbackError(code, description string) error
}

// returnOf is where f wanted to go, if f is a sign-in.
func (p *Proxy) returnOf(f session.Flow) string {
	if !signIn(f) {
		return "/"
	}
	return session.ReturnTo(f.ReturnTo, p.origin, p.prefix)
}

// redeem turns the code into a session. Browsers ask twice for one callback:
// Safari cancels the first request and sends another, and people reload. The code
// works once, so the redemption goes on without the request that began it, and
// who signed in is told to the latest request for the same callback. Nothing says
// that they are signed in before that: not the log, the metrics or the loop count.
func (p *Proxy) redeem(w http.ResponseWriter, r *http.Request, ev *event, provider Provider, q url.Values, trip session.Trip) error {
	returnTo := p.returnOf(trip.Flow)
	fetch, err := p.redeemed.join(trip, p.sessions.BrowserID(r), p.maxFlows, func() (redeemFunc, error) {
		return p.redemption(r, ev, provider, q, trip)
	}, func(err error) { p.unseenFailure(provider, ev.requestID, err) })
	var who identity.Identity
	if err == nil {
		who, err = fetch(r.Context())
	}
	var answered *failure
	switch {
	case err == nil:
	case errors.As(err, &answered):
		return answered
	case errors.Is(err, session.ErrConsumed):
		return p.flowBroken(w, r, ev, trip.Flow, err)
	case errors.Is(err, errLeft):
		return &failure{Status: statusClientGone, Cause: err}
	case identity.FailureOf(err) == identity.Expired && trip.Restarts == 0 && admission.KindOf(r) == admission.Navigation:
		return p.beginAfresh(w, r, ev, provider, trip.Flow)
	default:
		ev.action = observe.SignInFailed
		return p.signInFailed(provider, err, returnTo)
	}
	s := p.sessions.Start(p.orgs.Fold(who)) // here, and where a token stands for a session: headers, rules and assertion see one organization
	if err := p.sessions.Write(w, p.publicHost, s); err != nil {
		ev.action = observe.SignInFailed
		return p.notKept(provider, &s, err, returnTo)
	}
	ev.identify(&s.Identity)
	ev.action = observe.SignIn
	p.metrics.logins.WithLabelValues(provider.ID, "ok").Inc()
	p.loops.completed(p.sessions.BrowserID(r))
	redirect(w, http.StatusSeeOther, p.origin+p.afterSignIn(&s, returnTo)) // the code leaves the address bar (security.md C14)
	return nil
}

// redemption redeems the code of q, in flowTime at most, with a slot of provider
// until it ends. The answer to an error, such as a sign-in that was cancelled,
// is known without asking anybody and needs no slot.
func (p *Proxy) redemption(r *http.Request, ev *event, provider Provider, q url.Values, trip session.Trip) (redeemFunc, error) {
	release := func() {}
	if !q.Has("error") || !discovered(provider) {
		var err error
		if release, err = p.slot(r, ev, provider, p.returnOf(trip.Flow)); err != nil {
			return nil, err
		}
	}
	detached := context.WithoutCancel(r.Context())
	return func(stopped context.Context) (who identity.Identity, err error) {
		defer release()
		ctx, cancel := context.WithTimeout(detached, flowTime)
		defer cancel()
		defer context.AfterFunc(stopped, cancel)()
		defer func() { // no request is there whose recovery could do it
			if v := recover(); v != nil {
				who, err = identity.Identity{}, &failure{Status: http.StatusInternalServerError, Cause: fmt.Errorf("panic: %v\n%s", v, debug.Stack())}
			}
		}()
		return provider.Login.Redeem(ctx, q, trip.Handshake, identity.AuthParams{})
	}, nil
}

// unseenFailure counts and logs a sign-in that failed after its browser had left.
// If that comes back, it begins afresh.
func (p *Proxy) unseenFailure(provider Provider, requestID string, err error) {
	p.metrics.logins.WithLabelValues(provider.ID, string(identity.FailureOf(err))).Inc()
	p.log.Warn("a sign-in failed after its browser had left", "provider", provider.ID, "callback", requestID, "error", err)
}

// notKept is for a session that cannot be written. What a provider tells of
// organizations is the only part of one that can grow beyond a cookie.
func (p *Proxy) notKept(provider Provider, s *session.Session, err error, returnTo string) error {
	if !errors.Is(err, session.ErrTooLarge) || len(s.Identity.Orgs) == 0 {
		return p.signInFailed(provider, err, returnTo)
	}
	p.metrics.logins.WithLabelValues(provider.ID, string(identity.Rejected)).Inc()
	return &failure{Status: http.StatusBadGateway, Cause: fmt.Errorf("sign-in with %s: %d organizations: %w", provider.ID, len(s.Identity.Orgs), err),
		Title: "You belong to too many organizations", Sentence: provider.Name + " tells of more organizations than this site can keep, so you were not signed in.",
		Advice: "Tell the people who run this site, and give them the request id. They can have " + provider.Name + " tell of fewer."}
}

// flowBroken answers a callback that is not this browser's, or not any more.
// What this browser could have begun itself starts afresh, a few times; a page
// with a button ends what could go round in circles.
func (p *Proxy) flowBroken(w http.ResponseWriter, r *http.Request, ev *event, f session.Flow, cause error) error {
	if admission.InFrame(r) {
		return p.openWindow(r, p.returnOf(f))
	}
	provider, known := p.provider(f.Provider)
	restart := f.Restarts < maxRestarts && errors.Is(cause, session.ErrOtherBrowser) ||
		f.Restarts == 0 && (errors.Is(cause, session.ErrLate) || errors.Is(cause, session.ErrConsumed))
	if restart && known && signIn(f) && admission.KindOf(r) == admission.Navigation {
		return p.beginAfresh(w, r, ev, provider, f)
	}
	return p.startAgain(f, cause)
}

// beginAfresh sends the browser to the provider once more, and counts that.
func (p *Proxy) beginAfresh(w http.ResponseWriter, r *http.Request, ev *event, provider Provider, f session.Flow) error {
	f.Restarts++
	f.ReturnTo = p.returnOf(f)
	return p.begin(w, r, ev, provider, f, "")
}

// startAgain is the page with the button.
func (p *Proxy) startAgain(f session.Flow, cause error) error {
	return &failure{Status: http.StatusBadRequest, Cause: cause, Title: "This sign-in cannot be completed here",
		Sentence: "The sign-in was not begun in this browser, or it is over.",
		Page: &page{Template: "startagain", FormAction: p.providerOrigins(),
			Data: startagainData{StartURL: p.loginURL(p.returnOf(f)), Cause: flowWords(cause)}}}
}

// errMixUp: one provider's flow came back to another's callback.
var errMixUp = errors.New("the callback is not that of the provider the sign-in was begun with")

func flowWords(cause error) string {
	switch {
	case errors.Is(cause, errMixUp):
		return "The answer came from another provider than the one it was begun with."
	case errors.Is(cause, session.ErrLate):
		return "It took longer than ten minutes."
	case errors.Is(cause, session.ErrConsumed):
		return "The address of a sign-in works once, and this one was used before."
	case errors.Is(cause, session.ErrOtherBrowser):
		return "It was begun in another browser, or in another tab at the same moment."
	}
	return "" // the page has words for a browser that began nothing
}

// signInFailed counts a failure at the provider and puts it into words.
func (p *Proxy) signInFailed(provider Provider, err error, returnTo string) error {
	p.metrics.logins.WithLabelValues(provider.ID, string(identity.FailureOf(err))).Inc()
	return p.signInFailure(provider, err, returnTo)
}

// signInFailure puts a failure at the provider into words. What the provider
// wrote is not repeated: it is somebody else's text on our page.
func (p *Proxy) signInFailure(provider Provider, err error, returnTo string) error {
	f := &failure{Cause: fmt.Errorf("sign-in with %s: %w", provider.ID, err), Status: http.StatusBadGateway}
	switch identity.FailureOf(err) {
	case identity.Unavailable:
		f.Status, f.RetryAfter = http.StatusServiceUnavailable, 5
		f.Title, f.Sentence = "Signing in is not possible right now", provider.Name+" is not answering. If you are signed in already, you stay signed in."
		f.Advice = "Try again in a moment. Nothing is wrong with your account."
	case identity.ProviderFault:
		f.Status, f.RetryAfter = http.StatusServiceUnavailable, 5
		f.Title, f.Sentence = "Signing in is not possible right now", provider.Name+" says that it cannot sign anybody in at the moment. If you are signed in already, you stay signed in."
		f.Advice = "Try again in a moment. Nothing is wrong with your account."
	case identity.Expired:
		f.Status = http.StatusBadRequest
		f.Title, f.Sentence = "The sign-in took too long", provider.Name+" says that its sign-in page was open for too long, so nobody was signed in."
		f.Advice = "Try again, in one tab."
	case identity.Declined:
		f.Status = http.StatusForbidden
		f.Title, f.Sentence = "You were not signed in", provider.Name+" says that the sign-in was cancelled or refused there."
		f.Advice = "Try again, or ask the people who run " + provider.Name + " whether your account may use this site."
	case identity.ClockSkew:
		f.Title, f.Sentence = "The clocks do not agree", "What "+provider.Name+" sent is not valid at this server's time, so nobody was signed in."
		f.Advice = "Tell the people who run this site to check the server's clock, and give them the request id."
	case identity.Misconfigured:
		f.Title, f.Sentence = "Signing in is not set up right", provider.Name+" does not accept this site's request."
		f.Advice = "Tell the people who run this site, and give them the request id."
	default:
		f.Title, f.Sentence = "The sign-in could not be trusted", "What "+provider.Name+" sent did not pass a check, so nobody was signed in."
		f.Advice = "Try once more. If it happens again, tell the people who run this site and give them the request id."
	}
	return p.tryAgain(f, returnTo)
}

// tryAgain gives a failure a page with a button that begins a sign-in.
func (p *Proxy) tryAgain(f *failure, returnTo string) *failure {
	f.Page = &page{Template: "message", Data: messageData{Title: f.Title, Sentence: f.Sentence, Advice: f.Advice,
		ActionURL: p.loginURL(returnTo), ActionText: "Try again"}}
	return f
}
