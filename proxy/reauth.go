package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/session"
)

// purposeReauth is to ask the provider again, without the person, whether somebody is
// still who they were when they signed in.
const purposeReauth = "reauth"

// Reauthenticator is a LoginProvider that can be asked again, without the person, who
// somebody is (prompt=none, OpenID Connect Core §3.1.2.1).
type Reauthenticator interface {
	// ReauthAfter is how long a sign-in is believed; 0: for as long as the session lasts.
	ReauthAfter() time.Duration
	// Answering reports whether the provider answered a request of ours a moment ago. If it
	// did not, it is asked in the background.
	Answering(ctx context.Context) bool
}

// reauthDue returns the provider that is to be asked again who s belongs to, before this
// request is answered.
//
// The browser goes there and comes back, so only what opens a page can wait for it, and
// nothing that sends a form. A provider that may not answer would keep the person, so
// nobody is sent there without a sign of life. The browser comes back to returnTo.
func (b *signIns) reauthDue(r *http.Request, ev *event, s *session.Session, returnTo string) (Provider, bool) {
	if ev.facts.Host != b.site.host {
		return Provider{}, false
	}
	return b.asksAgain(r, ev, b.site, s, returnTo)
}

// asksAgain is reauthDue on any host, which is at. What is looked at first is what says
// no most often.
func (b *signIns) asksAgain(
	r *http.Request, ev *event, at *site, s *session.Session, returnTo string,
) (Provider, bool) {
	if !opensPage(r) || ev.dotted || len(returnTo) > session.MaxReturnTo || admission.InFrame(r) {
		return Provider{}, false
	}
	provider, _ := b.providers.find(s.Identity.Provider)
	asked, ok := provider.Login.(Reauthenticator)
	if !ok {
		return Provider{}, false
	}
	after := asked.ReauthAfter()
	if after <= 0 || !b.sessions.Due(s, after) {
		return Provider{}, false
	}
	return provider, at.returnTo(returnTo) == returnTo && discovered(provider) && asked.Answering(r.Context())
}

// opensPage reports whether a request is for a page that a browser opens: it can be sent
// elsewhere first, and come back.
func opensPage(r *http.Request) bool {
	return r.Method == http.MethodGet && admission.KindOf(r) == admission.Navigation
}

// leaveForReauth sends the browser to the provider. That it was sent is in its cookie
// before it leaves: a browser that does not come back goes on at its next request.
func (b *signIns) leaveForReauth(w http.ResponseWriter, r *http.Request, ev *event, provider Provider,
	s *session.Session, returnTo string) error {
	if err := b.sessions.Leave(w, b.site.host, *s); err != nil {
		return &failure{Status: http.StatusInternalServerError, Cause: err}
	}
	ev.Note = "the provider is asked again who this is"
	return b.redirectToProvider(w, r, ev, provider, session.Flow{Purpose: purposeReauth, Provider: provider.ID,
		ReturnTo: returnTo, Detail: s.Root}, hintFor(&s.Identity))
}

// hintFor is what tells the provider whom to look for among several people who are signed
// in there.
func hintFor(id *identity.Identity) string {
	if id.Email != "" {
		return id.Email
	}
	return id.Username
}

// reauthenticated answers a callback of a trip on which the provider was asked again. The
// session of the browser is what it was asked about, or nothing changes: another one may
// have begun, or this one may have been ended, while the browser was away.
func (e *callbackEndpoint) reauthenticated(w http.ResponseWriter, r *http.Request, ev *event, q url.Values,
	trip session.Trip, s session.Session, readErr error) error {
	returnTo := e.site.returnOf(trip.Flow)
	back := func() error {
		redirect(w, http.StatusSeeOther, e.site.origin+returnTo)
		return nil
	}
	provider, ok := e.providers.find(r.PathValue("provider"))
	ev.Provider = provider.ID
	switch {
	case !ok || trip.Provider != provider.ID: // mix-up: RFC 9700 §4.4
		e.process.redeemed.spend(trip)
		return e.startAgainPage(trip.Flow, errMixUp)
	case readErr != nil || s.Root != trip.Detail:
		e.process.redeemed.spend(trip)
		return back()
	}
	fetch, err := e.process.redeemed.join(trip, e.sessions.BrowserID(r), e.maxFlows, func() (redeemFunc, error) {
		return e.redemption(r, ev, provider, q, trip)
	}, e.unseenFailure(r, ev, observe.Reauth, func(error) { e.countReauth(provider, "failed") }))
	var result redeemed
	if err == nil {
		result, err = fetch(r.Context())
	}
	who := result.who
	switch kind := identity.FailureOf(err); {
	case errors.Is(err, errLeft):
		return &failure{Status: statusClientGone, Cause: err}
	case errors.Is(err, session.ErrConsumed):
		return back()
	case err == nil && who.ID() == s.Identity.ID():
		result, err := e.confirm(w, r, ev, s, withOrgOf(e.orgs.Fold(who), s.Identity), returnTo)
		if result != "" {
			e.countReauth(provider, result)
			ev.Action = observe.Reauth
		}
		return err
	case err == nil:
		e.countReauth(provider, "other_person")
		return e.noLonger(w, r, ev, provider, s, trip, errors.New("somebody else is signed in there now"))
	case kind == identity.Declined, kind == identity.NotAdmitted:
		e.countReauth(provider, "denied")
		return e.noLonger(w, r, ev, provider, s, trip, err)
	case kind == identity.Interaction:
		e.countReauth(provider, "interaction")
		e.own.end(w, r, ev, s, "reauth")
		clearCache(w, r, e.keepCache) // somebody else may sign in
		ev.Action, ev.Note = observe.Reauth, "the session has ended, because the provider has to ask the "+
			"person: "+err.Error()
		return e.redirectToProvider(w, r, ev, provider, session.Flow{Purpose: purposeLogin, Provider: provider.ID,
			ReturnTo: returnTo}, hintFor(&s.Identity))
	}
	// The provider could not say. That is no reason to sign anybody out.
	e.countReauth(provider, "failed")
	ev.Action, ev.Note = observe.Reauth, fmt.Sprintf("%s could not say who this is: %v", provider.ID, err)
	return back()
}

// confirm writes what the provider said into the session, and brings the person back to
// where they were. The result is same, changed, or "" where it was not written.
func (e *callbackEndpoint) confirm(w http.ResponseWriter, r *http.Request, ev *event, s session.Session,
	who identity.Identity, returnTo string) (result string, err error) {
	next, changed, err := e.sessions.Confirm(r.Context(), w, e.site.host, s, who)
	switch {
	case errors.Is(err, session.ErrEnded): // a sign-out was quicker
		redirect(w, http.StatusSeeOther, e.site.origin+returnTo)
		return "", nil
	case errors.Is(err, session.ErrStore):
		return "", &failure{Status: http.StatusServiceUnavailable, Cause: err, RetryAfter: 5}
	case err != nil:
		return "", &failure{Status: http.StatusInternalServerError, Cause: err}
	}
	ev.identify(&next.Identity)
	if isForOther(&s, &next) {
		clearCache(w, r, e.keepCache)
	}
	redirect(w, http.StatusSeeOther, e.site.origin+e.site.afterSignIn(&next, returnTo))
	if changed {
		return "changed", nil
	}
	return "same", nil
}

// withOrgOf keeps the organization that somebody was here for, as long as it is theirs.
func withOrgOf(who, before identity.Identity) identity.Identity {
	if kept, ok := who.WithOrg(before.Org.ID); ok && before.Org.ID != "" {
		return kept
	}
	return who
}

// noLonger ends the sign-in of s, because the provider no longer says that it is theirs.
// Nobody is exchanged for somebody else silently, and no sign-in begins by itself: the
// provider may have its reason.
func (e *callbackEndpoint) noLonger(w http.ResponseWriter, r *http.Request, ev *event, provider Provider,
	s session.Session, trip session.Trip, why error) error {
	e.own.end(w, r, ev, s, "reauth")
	clearCache(w, r, e.keepCache)
	ev.Action = observe.Reauth
	if identity.FailureOf(why) == identity.NotAdmitted {
		_, sentence, advice := notAdmittedWords(provider, why)
		return e.site.otherAccount(&failure{Status: http.StatusForbidden,
			Cause: fmt.Errorf("sign-in with %s: %w", provider.ID, why), Title: "You have been signed out",
			Sentence: sentence, Advice: "Your session here has ended. " + advice}, e.site.returnOf(trip.Flow))
	}
	return e.site.tryAgain(&failure{Status: http.StatusForbidden,
		Cause: fmt.Errorf("%s no longer confirms who this is: %w", provider.ID, why),
		Title: "You have been signed out",
		Sentence: provider.Name + " no longer says that you are " + s.Identity.DisplayName() +
			", so your session here has ended.",
		Advice: "Sign in again, or ask the people who run " + provider.Name + " whether your account may use this " +
			"site.",
	}, e.site.returnOf(trip.Flow))
}

func (e *callbackEndpoint) countReauth(provider Provider, result string) {
	e.process.metrics.reauths.WithLabelValues(provider.ID, result).Inc()
}
