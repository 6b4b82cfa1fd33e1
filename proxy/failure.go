package proxy

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/relay"
	"github.com/sallyport-proxy/sallyport/session"
)

// statusClientGone is for the log only: the client is gone and gets no answer.
const statusClientGone = 499

// failure is an error as an answer. Title, Sentence and Advice are for the person;
// Cause is for the log and is never part of a response.
type failure struct {
	Status                  int
	Title, Sentence, Advice string
	Cause                   error
	Session                 *session.Session // who was refused, for 403
	SwitchTo                []identity.Org   // with which of their organizations they would not be
	Places                  []pages.Place    // where they would not be
	Account                 string           // the account page, where that is where to go on
	Page                    *pages.Page      // a page of its own, instead of the general one
	RetryAfter              int              // seconds; 0: no header
	Allow                   string           // for 405
	Code                    string           // the error of the JSON, instead of the status' text
	Refused                 bool             // observe.Event's; every 403 of an own endpoint is, but Hearsay
	Hearsay                 bool             // that somebody was refused elsewhere is only said, by anybody
}

func (f *failure) Error() string {
	if f.Cause == nil {
		return f.Title
	}
	return f.Cause.Error()
}

func (f *failure) Unwrap() error { return f.Cause }

// malformed is the failure of a request whose framing contradicts itself, nil for
// no error.
func malformed(why error) error {
	if why == nil {
		return nil
	}
	return &failure{Status: http.StatusBadRequest, Cause: fmt.Errorf("%w: %w", authz.ErrTarget, why),
		Title: "This request cannot be used", Sentence: "Its header contradicts itself, so it was not passed on.",
		Advice: "Try again, or with another program."}
}

// unverifiable is the failure of an own endpoint, or of a stream, for a session that
// may have been ended elsewhere.
func unverifiable(err error) *failure {
	return &failure{Status: http.StatusServiceUnavailable, Cause: err, RetryAfter: 5,
		Code: string(authz.ReasonUnverifiable), Title: "Your sign-in cannot be checked right now",
		Sentence: "Whether you signed out elsewhere is not known at the moment.",
		Advice:   "Try again in a moment. You are still signed in."}
}

// fail writes all failures except the 401 that asks a program to sign in, which is
// an expected answer.
func (p *Proxy) fail(w *relay.Client, r *http.Request, ev *event, err error) {
	var f *failure
	if !errors.As(err, &f) {
		f = &failure{Status: http.StatusInternalServerError, Cause: err}
	}
	if ev.Err == nil {
		ev.Err = f.Cause
	}
	if f.Refused || ev.Route == observe.RouteOwn && f.Status == http.StatusForbidden && !f.Hearsay {
		ev.Refused = true
	}
	if f.Status == statusClientGone {
		// Half-closed, a client may still read: an empty 200 would look like success.
		ev.clientGone = true
		panic(http.ErrAbortHandler)
	}
	if w.Begun() { // a part of an answer was sent; it can only be aborted
		panic(http.ErrAbortHandler)
	}
	w.AnswerWithoutBody(r)
	ev.cors.SetAnswer(w.Header(), r.Header) // interim answers of the app have cleared it
	f.fillIn()
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	if f.Allow != "" {
		w.Header().Set("Allow", f.Allow)
	}
	if admission.KindOf(r) == admission.Program {
		writeError(w, r, f.Status, map[string]string{
			"error": cmp.Or(f.Code, http.StatusText(f.Status)), "message": f.Sentence, "request_id": ev.RequestID})
		return
	}
	pg := f.Page
	if pg == nil {
		pg = p.siteOf(ev).pageFor(f, ev, r)
		if len(f.SwitchTo) > 0 { // the page of another organization may lead there
			pg.FormAction = p.signIns.providers.origins()
		}
	}
	pg.Status = f.Status
	show(p.pages, w, r, ev, *pg)
}

// show writes a page of ours.
func show(to *pages.Pages, w http.ResponseWriter, r *http.Request, ev *event, pg pages.Page) {
	pg.RequestID = ev.RequestID
	if err := to.Write(w, r, pg); err != nil {
		ev.Err = errors.Join(ev.Err, err)
	}
}

// pageFor is the general page, or the page for people who may not have a route.
func (s *site) pageFor(f *failure, ev *event, r *http.Request) *pages.Page {
	if f.Status == http.StatusForbidden && f.Session != nil {
		id := &f.Session.Identity
		data := pages.Denied{Name: id.DisplayName(), Email: id.VerifiedEmail(), Org: id.Org.DisplayName(),
			Sentence: f.Sentence, AccountURL: s.path("account"), SwitchURL: s.switchURL(f.Session, s.returnHere(ev, r)),
			Places: f.Places}
		if s.public == nil {
			data.Switch = s.orgChoices(f.SwitchTo, s.returnHere(ev, r))
		} else if len(f.SwitchTo) > 0 {
			data.ChooseURL = s.choice(s.returnHere(ev, r))
		}
		return &pages.Page{Template: "denied", Data: data}
	}
	data := pages.Message{Title: f.Title, Sentence: f.Sentence, Advice: f.Advice, ActionURL: s.start(),
		ActionText: "Go to the start page"}
	if f.Account != "" {
		data.ActionURL, data.ActionText = f.Account, "Your account"
	}
	return &pages.Page{Template: "message", Data: data}
}

// fillIn gives a failure the words of its status where it has none of its own.
func (f *failure) fillIn() {
	title, sentence, advice := wordsFor(f.Status)
	var target *authz.TargetError
	if f.Status == http.StatusBadRequest && errors.As(f.Cause, &target) {
		sentence, advice = target.Public, target.Advice
	}
	for _, w := range [...]struct {
		have *string
		word string
	}{{&f.Title, title}, {&f.Sentence, sentence}, {&f.Advice, advice}} {
		if *w.have == "" {
			*w.have = w.word
		}
	}
}

func wordsFor(status int) (title, sentence, advice string) {
	switch status {
	case http.StatusBadRequest:
		return "This address cannot be used", "Parts of it could mean two things, so it was not passed on.",
			"Check the address, or start again from the site's first page."
	case http.StatusForbidden:
		return "This is not for you", "You may not do this.",
			"If you think you should, ask the people who run this site and tell them the request id."
	case http.StatusNotFound:
		return "Nothing is here", "There is no page at this address.",
			"Check the address, or start again from the site's first page."
	case http.StatusMethodNotAllowed:
		return "This cannot be done here", "This address does not take this kind of request.",
			"Go back and try another way."
	case http.StatusRequestURITooLong:
		return "This address is too long", "The address is longer than this site accepts.",
			"If a form made it, tell the people who run this site."
	case http.StatusRequestHeaderFieldsTooLarge:
		return "Your browser sends too much", "The cookies and other headers of the request are more than this site " +
				"accepts.",
			"Delete the cookies of this site in your browser, and open it again. If it stays like this, tell the " +
				"people who run this site and give them the request id."
	case http.StatusBadGateway:
		return "The app is not answering", "You reached this site, but the app behind it could not be reached.",
			"Try again in a moment. If it stays like this, tell the people who run this site and give them the " +
				"request id."
	case http.StatusServiceUnavailable:
		return "Not available right now", "This cannot be done at the moment.", "Try again in a moment."
	case http.StatusGatewayTimeout:
		return "The app is taking too long", "You reached this site, but the app behind it did not answer in time.",
			"Try again in a moment. If it stays like this, tell the people who run this site and give them the " +
				"request id."
	}
	return "Something went wrong", "This is our fault, not yours.",
		"Try again. If it stays like this, tell the people who run this site and give them the request id."
}

// writeError tells a program what went wrong. A download gets the status without a
// body: the browser then says that it failed, and does not save our error message
// as the file.
func writeError(w http.ResponseWriter, r *http.Request, status int, body map[string]string) {
	if admission.IsDownload(r) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(status)
		return
	}
	writeJSON(w, r, status, body)
}

// writeJSON answers a program. No cache may store the answer.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, body any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // they are ours, and of plain values
	}
	text = append(text, '\n')
	h.Set("Content-Length", strconv.Itoa(len(text))) // else the end of it waits for TakeIn
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(text) // fails only if the client is gone
	}
}

// redirect writes the Location as it is; http.Redirect would clean paths.
func redirect(w http.ResponseWriter, status int, location string) {
	w.Header().Set("Location", location)
	w.WriteHeader(status)
}
