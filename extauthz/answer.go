package extauthz

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
)

// answer is what a proxy is told, whatever the dialect. It is an http.ResponseWriter, so
// that pages can be written into it.
type answer struct {
	status int
	header http.Header
	body   bytes.Buffer
	remove []string // headers that the proxy is to remove, where it may pass the request on
}

// noStore is shared by all answers, which replace it or leave it.
var noStore = []string{"no-store"}

// event is what is told of a question, with the header that its answer fills.
type event struct {
	observe.Event
	header http.Header
}

// again takes out of the header what an answer that is not sent has put there.
func (ev *event) again() *event {
	for name := range ev.header {
		if name != "Connection" { // limitConnection's
			delete(ev.header, name)
		}
	}
	return ev
}

func newAnswer(status int, ev *event) *answer {
	h := ev.header
	h["Cache-Control"], h["X-Request-Id"] = noStore, []string{ev.RequestID}
	return &answer{status: status, header: h}
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
func (a *answer) WriteHeader(status int)      { a.status = status }

// writeTo sends the answer, whose header is w's, with a length: some fronts cannot read chunks.
func (a *answer) writeTo(w http.ResponseWriter, r *http.Request) {
	if a.status != http.StatusNoContent { // RFC 9110 §8.6
		a.header["Content-Length"] = []string{strconv.Itoa(a.body.Len())}
	}
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead && a.body.Len() > 0 {
		_, _ = w.Write(a.body.Bytes()) // the proxy is gone if this fails
	}
}

// forward says that the request may pass, and what the app is to be told.
func (d *Door) forward(ev *event, by *dialect, q *question, admitted *admission.Answer) *answer {
	a := newAnswer(http.StatusOK, ev)
	admitted.SetHeaders(q.header)
	if by == compatDialect {
		d.setCompat(q.header, admitted)
	}
	d.set.write(a.header, q.header)
	if !by.removes && by != grpcDialect {
		return a
	}
	a.remove = append(d.set.absent(q.header), q.toRemove...)
	if admitted.Route.Access.AsksMethod() {
		a.remove = append(a.remove, q.overrides...)
	}
	if by.removes && len(a.remove) > 0 {
		a.header["X-Envoy-Auth-Headers-To-Remove"] = []string{strings.Join(a.remove, ",")}
	}
	return a
}

// The kinds of X-Sallyport-Asker, which says what can be done with a 401.
const (
	askerNavigation = "navigation" // the browser can be sent to Location
	askerForm       = "form"
	askerProgram    = "program"
)

// askToSignIn says that nobody is signed in, and where people do that. Only a page that is
// opened in a window can be sent there: a redirect would break a program and lose a form.
func (d *Door) askToSignIn(ev *event, by *dialect, q *question, admitted *admission.Answer) *answer {
	challenge := ""
	if admitted.TakesToken {
		challenge = admitted.Route.Challenge(q.facts, "")
	}
	return d.sendToLogin(ev, by, q, signInAsk{challenge: challenge, body: admission.AskToSignIn,
		login: func(returnTo string) string { return d.signIn.login(q.facts, returnTo) }})
}

// askToStepUp says to somebody who is signed in that the route wants a sign-in that is more
// recent or by other means. As in askToSignIn, only a page in a window is sent there. An
// access token cannot sign in again: its program has to get another one.
func (d *Door) askToStepUp(ev *event, by *dialect, q *question, admitted *admission.Answer) *answer {
	route := admitted.Verdict.StepUp
	ev.Note = admitted.Verdict.Detail
	challenge := admitted.Route.ChallengeStepUp(q.facts, route.Proof)
	if who := admitted.Principal; who != nil && who.Session == nil {
		return d.refuseToken(ev, q, challenge, admission.AskToStepUp("", ev.RequestID))
	}
	return d.sendToLogin(ev, by, q, signInAsk{challenge: challenge, body: admission.AskToStepUp, again: true,
		login: func(returnTo string) string { return d.signIn.stepUp(q.facts, route.Name, returnTo) }})
}

// signInAsk is what askToSignIn and askToStepUp differ in.
type signInAsk struct {
	login     func(returnTo string) string                    // where the person signs in
	challenge string                                          // for programs, beside that of a session; "": none
	body      func(login, requestID string) map[string]string // for programs
	again     bool                                            // they are signed in
}

func (d *Door) sendToLogin(ev *event, by *dialect, q *question, ask signInAsk) *answer {
	r := q.request()
	kind := admission.KindOf(r)
	if kind == admission.Navigation && !admission.InFrame(r) {
		if !ask.again || q.method == http.MethodGet { // HEAD does not begin a step-up
			return d.redirect(ev, by, ask.login(q.facts.Target()))
		}
		kind = admission.Program
	}
	a := newAnswer(http.StatusUnauthorized, ev)
	from := d.signIn.referer(q)
	login := ask.login(from)
	a.header.Set("X-Sallyport-Asker", askerProgram)
	if ask.challenge != "" {
		a.header.Add("WWW-Authenticate", ask.challenge)
	}
	a.header.Add("WWW-Authenticate", admission.CookieChallenge(login))
	switch {
	case kind == admission.Form:
		a.header.Set("X-Sallyport-Asker", askerForm)
		other := !ask.again && admission.FromOtherSite(r)
		if other {
			ev.Note = admission.ErrFormOfOtherSite.Error()
		}
		d.page(a, ev, r, pages.Page{Template: "formlost", KeepsForm: true,
			Data: pages.FormLost{SignInURL: login, Again: ask.again, OtherSite: other}})
	case kind == admission.Navigation: // in a frame, where no sign-in can begin
		if from == "/" {
			login = ask.login(q.facts.Target())
		}
		d.page(a, ev, r, pages.Page{Template: "framed", FramedBy: d.signIn.framers(q.facts),
			Data: pages.Framed{SignInURL: login, Again: ask.again}})
	default:
		writeJSON(a, r, ask.body(login, ev.RequestID))
	}
	if by.leads {
		a.header.Set("Location", login)
	}
	return a
}

// redirect sends a page elsewhere first, if the proxy passes that on.
func (d *Door) redirect(ev *event, by *dialect, to string) *answer {
	a := newAnswer(http.StatusUnauthorized, ev)
	a.header.Set("X-Sallyport-Asker", askerNavigation)
	if by.leads || by.redirects {
		a.header.Set("Location", to)
	}
	if by.redirects {
		a.status = http.StatusFound
	}
	return a
}

// unauthorizedBearer refuses an access token. To sign in would not help a program.
func (d *Door) unauthorizedBearer(ev *event, q *question, route *admission.Route) *answer {
	return d.refuseToken(ev, q, route.Challenge(q.facts, "invalid_token"), admission.TokenRefused(ev.RequestID))
}

func (d *Door) refuseToken(ev *event, q *question, challenge string, body map[string]string) *answer {
	a := newAnswer(http.StatusUnauthorized, ev)
	a.header.Set("X-Sallyport-Asker", askerProgram)
	a.header.Set("WWW-Authenticate", challenge)
	writeJSON(a, q.request(), body)
	return a
}

// deny refuses a request, with a sentence for the person; "" will do where the cause has
// one, or none can be said.
func (d *Door) deny(ev *event, q *question, cause error, public string) *answer {
	a := newAnswer(http.StatusForbidden, ev)
	message := pages.Message{Title: "This is not for you", Sentence: cmp.Or(public, "You may not do this."),
		Advice: "If you think you should, ask the people who run this site and tell them the request id."}
	if target, ok := errors.AsType[*authz.TargetError](cause); ok {
		message = pages.Message{Title: "This address cannot be used", Sentence: target.Public, Advice: target.Advice}
	}
	r := q.request()
	if admission.KindOf(r) == admission.Program {
		writeJSON(a, r, map[string]string{"error": "forbidden", "message": message.Sentence,
			"request_id": ev.RequestID})
		return a
	}
	message.ActionURL, message.ActionText = "/", "Go to the start page"
	d.page(a, ev, r, pages.Page{Template: "message", Data: message})
	return a
}

// page writes a page of ours. The status is the answer's.
func (d *Door) page(a *answer, ev *event, r *http.Request, pg pages.Page) {
	pg.Status, pg.RequestID = a.status, ev.RequestID
	if err := d.pages.Write(a, r, pg); err != nil {
		ev.Err, ev.Failed = errors.Join(ev.Err, err), true
		a.status = pg.Status // a page that could not be shown is no 500 here
	}
}

// writeJSON is the body for a program, none for a download: a browser would save it as
// the file.
func writeJSON(a *answer, r *http.Request, body map[string]string) {
	if admission.IsDownload(r) {
		return
	}
	a.header.Set("Content-Type", "application/json")
	a.header.Set("X-Content-Type-Options", "nosniff")
	_ = json.NewEncoder(&a.body).Encode(body) // strings can be written to memory
}

// request is the question as KindOf and its like read it.
func (q *question) request() *http.Request {
	return &http.Request{Method: q.method, Header: q.header}
}
