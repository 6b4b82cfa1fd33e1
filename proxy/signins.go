package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

// signIns begins sign-ins and answers those that fail.
type signIns struct {
	process   *Process
	site      *site
	sessions  *session.Manager
	providers providers
	maxFlows  int           // sign-ins that may wait for providers at one time
	flowTime  time.Duration // for all calls to a provider of one step
	peers     peers
	keepCache bool // the browser's cache is left alone
}

// redirectToProvider sends the browser to the provider.
func (b *signIns) redirectToProvider(
	w http.ResponseWriter, r *http.Request, ev *event, provider Provider, f session.Flow, hint string,
) error {
	ctx, cancel := context.WithTimeout(r.Context(), b.flowTime)
	defer cancel()
	if !discovered(provider) {
		release, err := b.slot(r, ev, provider, f.ReturnTo)
		if err != nil {
			return err
		}
		defer release()
	}
	h, err := b.sessions.Begin(w, r, b.site.packed(f))
	if err != nil {
		return &failure{Status: http.StatusInternalServerError, Cause: err}
	}
	location, err := provider.Login.AuthURL(ctx, h, authParams(b.proofOf(f), prompt(f), hint))
	if err != nil {
		return b.countedFailure(provider, err, f.ReturnTo)
	}
	redirect(w, http.StatusFound, location)
	return nil
}

// authParams are what a provider is asked for.
func authParams(proof identity.Proof, prompt, hint string) identity.AuthParams {
	return identity.AuthParams{Prompt: prompt, LoginHint: hint, ACR: strings.Join(proof.ACR, " "),
		MaxAge: proof.MaxAge}
}

// redirectAgain sends the browser to the provider once more, and counts that.
func (b *signIns) redirectAgain(
	w http.ResponseWriter, r *http.Request, ev *event, provider Provider, f session.Flow,
) error {
	f.Restarts++
	f.ReturnTo = b.site.returnOf(f)
	return b.redirectToProvider(w, r, ev, provider, f, "")
}

// slot takes one of provider's slots for a request. Each provider has an equal
// share, rounded up so that none goes without: one that hangs keeps nobody from
// signing in with another.
func (b *signIns) slot(r *http.Request, ev *event, provider Provider, returnTo string) (func(), error) {
	share := (b.maxFlows + len(b.providers) - 1) / len(b.providers)
	release, err := b.process.slotsOf(provider.ID).take(share, b.holders(r, ev)...)
	if err == nil {
		return release, nil
	}
	return nil, b.site.tryAgain(&failure{Status: http.StatusServiceUnavailable, RetryAfter: 5,
		Cause:    fmt.Errorf("sign-in with %s: %w", provider.ID, err),
		Title:    "Too many people are signing in",
		Sentence: "Signing in with " + provider.Name + " is busy at the moment.",
		Advice:   "Try again in a few seconds."}, returnTo)
}

// holders are those whose slots a sign-in takes: the browser by its flow cookie,
// whether or not the cookie is valid, and the address if that can be one machine's.
//
// An address that sends X-Forwarded-For and is not on the list of proxies may have a
// whole company behind it, so it gets more slots. But any client can send that
// header, so a quarter is left for everybody else.
func (b *signIns) holders(r *http.Request, ev *event) []holder {
	var all []holder
	if browser := b.sessions.BrowserID(r); browser != "" {
		all = append(all, holder{fmt.Sprintf("browser %x", browser), 1})
	}
	if network, ok := b.peers.machine(ev.Client); ok {
		quarters := 1
		if ev.forwards {
			quarters = 3
		}
		all = append(all, holder{"client " + network, quarters})
	}
	return all
}

// loopPage is for a browser that comes back without a session again and again. At is
// the site that did not get one.
func (b *signIns) loopPage(at *site, ev *event, found error, returnTo string) error {
	seen := ev.facts.Scheme + "://" + ev.facts.Authority
	if found == nil {
		found = session.ErrNone
	}
	return &failure{Status: http.StatusBadRequest, Cause: fmt.Errorf("sign-in loop: %w", found),
		Page: &pages.Page{Template: "loop", Data: pages.Loop{
			PublicURL: at.origin, SeenURL: seen, Causes: at.loopCauses(seen, found), StartURL: at.login(returnTo)}}}
}

// startAgainPage is the page with a button that begins the sign-in again.
func (b *signIns) startAgainPage(f session.Flow, cause error) error {
	return &failure{Status: http.StatusBadRequest, Cause: cause,
		Refused:  !errors.Is(cause, session.ErrNoFlow), // that one anybody can send
		Title:    "This sign-in cannot be completed here",
		Sentence: "The sign-in was not begun in this browser, or it is over.",
		Page: &pages.Page{Template: "startagain",
			Data: pages.StartAgain{StartURL: b.site.login(b.site.returnOf(f)), Cause: flowWords(cause)}}}
}

// errMixUp means that one provider's flow came back to another's callback (RFC 9700
// §4.4).
var errMixUp = errors.New("the callback is not that of the provider the sign-in was begun with")

// errPurpose means that the flow was begun for something else than a sign-in.
var errPurpose = errors.New("the callback belongs to no sign-in")

func flowWords(cause error) string {
	switch {
	case errors.Is(cause, errMixUp):
		return "The answer came from another provider than the one it was begun with."
	case errors.Is(cause, errPurpose):
		return "It was begun for something else than to sign in."
	case errors.Is(cause, session.ErrLate):
		return "It took longer than ten minutes."
	case errors.Is(cause, session.ErrConsumed):
		return "The address of a sign-in works once, and this one was used before."
	case errors.Is(cause, session.ErrOtherBrowser):
		return "It was begun in another browser, or in another tab at the same moment."
	}
	return "" // the page has a sentence of its own for that
}

// refused notes in the event of a callback that somebody may not come in, and who.
func (ev *event) refused(err error) {
	if identity.FailureOf(err) != identity.NotAdmitted {
		return
	}
	ev.decide(authz.Deny.String(), authz.ReasonNotAdmitted)
	var e *identity.NotAdmittedError
	if errors.As(err, &e) && e.Who.Subject != "" {
		ev.User = e.Who.ID()
	}
}

// countedFailure counts a failure at the provider and puts it into words.
func (b *signIns) countedFailure(provider Provider, err error, returnTo string) error {
	b.process.metrics.logins.WithLabelValues(provider.ID, string(identity.FailureOf(err))).Inc()
	return b.failureWords(provider, err, returnTo)
}

// notAdmittedWords are for somebody who proved who they are, and may not come in.
func notAdmittedWords(provider Provider, err error) (title, sentence, advice string) {
	title = "Your account may not use this site"
	advice = "Sign in with another account, or ask the people who run this site."
	why := "it is none of those that may come in"
	account := "You signed in with " + provider.Name
	var e *identity.NotAdmittedError
	if !errors.As(err, &e) {
		return title, account + ", but this site does not admit that account: " + why + ".", advice
	}
	if name := e.Account(); name != "" {
		account += " as " + name
	}
	switch e.Why {
	case identity.OtherOrganization:
		why = "its organization is none of those that may come in"
		if domain := e.Who.Org.Domain; domain != "" {
			why = "accounts of " + domain + " are none of those that may come in"
		}
	case identity.PersonalAccount:
		why = "it is a personal account, and only accounts of certain organizations may come in"
	case identity.NoMember:
		why = "it belongs to none of the organizations that may come in, or " + provider.Name + " does not say so"
		advice += " If you do belong to one, its owners may have to let this site see its members."
	case identity.UnverifiedAddress:
		why = provider.Name + " says that you have not verified your e-mail address there"
		advice = "Verify it at " + provider.Name + ", then sign in again, or use another account."
	case identity.TooManyMemberships:
		title = "You belong to too many organizations"
		why = provider.Name + " tells of more organizations, or teams in them, than this site can keep"
		advice = "Tell the people who run this site, and give them the request id. They can have " + provider.Name +
			" tell of fewer."
	}
	return title, account + ", but this site does not admit that account: " + why + ".", advice
}

// failureWords puts a failure at the provider into words. The provider's own text is
// not shown: anybody could put text on our page with a link.
func (b *signIns) failureWords(provider Provider, err error, returnTo string) *failure {
	f := &failure{Cause: fmt.Errorf("sign-in with %s: %w", provider.ID, err), Status: http.StatusBadGateway}
	switch identity.FailureOf(err) {
	case identity.Unavailable:
		f.Status, f.RetryAfter = http.StatusServiceUnavailable, 5
		f.Title = "Signing in is not possible right now"
		f.Sentence = provider.Name + " is not answering. If you are signed in already, you stay signed in."
		f.Advice = "Try again in a moment. Nothing is wrong with your account."
	case identity.ProviderFault:
		f.Status, f.RetryAfter = http.StatusServiceUnavailable, 5
		f.Title = "Signing in is not possible right now"
		f.Sentence = provider.Name + " says that it cannot sign anybody in at the moment. " +
			"If you are signed in already, you stay signed in."
		f.Advice = "Try again in a moment. Nothing is wrong with your account."
	case identity.Expired:
		f.Status = http.StatusBadRequest
		f.Title = "The sign-in took too long"
		f.Sentence = provider.Name + " says that its sign-in page was open for too long, so nobody was signed in."
		f.Advice = "Try again, in one tab."
	case identity.Declined, identity.Interaction:
		f.Status = http.StatusForbidden
		f.Title = "You were not signed in"
		f.Sentence = provider.Name + " says that the sign-in was cancelled or refused there."
		f.Advice = "Try again, or ask the people who run " + provider.Name + " whether your account may use this site."
	case identity.NotAdmitted:
		f.Status = http.StatusForbidden
		f.Title, f.Sentence, f.Advice = notAdmittedWords(provider, err)
		return b.site.otherAccount(f, returnTo)
	case identity.ClockSkew:
		f.Title = "The clocks do not agree"
		f.Sentence = "What " + provider.Name + " sent is not valid at this server's time, so nobody was signed in."
		f.Advice = "Tell the people who run this site to check the server's clock, and give them the request id."
	case identity.Misconfigured:
		f.Title = "Signing in is not set up right"
		f.Sentence = provider.Name + " and this site are not set up to work together, so nobody can sign in there."
		f.Advice = "Tell the people who run this site, and give them the request id."
	default:
		f.Title = "The sign-in could not be trusted"
		f.Sentence = "What " + provider.Name + " sent did not pass a check, so nobody was signed in."
		f.Advice = "Try once more. If it happens again, tell the people who run this site and give them the request id."
	}
	return b.site.tryAgain(f, returnTo)
}
