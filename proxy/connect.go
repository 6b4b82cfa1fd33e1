package proxy

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

// People connect accounts that they have elsewhere, for apps to use:
//
//	connect/ID?app=…        → our page: which app asks, for what, for how long
//	POST to the same place  → agreed, and no trip is needed: 303 return_to
//	                        · else 303 the third party, with a state of this session
//	connect/ID/callback     → the same session, once: redeemed, 303 return_to
//	                        · else a page; the code is not redeemed, and nothing begins again
//
// Nothing leaves before the POST, and no script can send it from a page of another origin.
const purposeConnect = "connect"

const (
	// connectTime bounds what is read before a third party is asked. The Lender bounds the
	// rest, and goes on with it though the browser leaves.
	connectTime = time.Minute
	// grantsTime is how long the account page waits for the list of grants.
	grantsTime = 2 * time.Second
	// signedInTime is how long a sign-in waits for what follows from it for grants.
	signedInTime = 2 * time.Second
)

// Lender keeps what people lend to apps. See grant.Broker.
type Lender interface {
	Prepare(ctx context.Context, who identity.Identity, a grant.Ask) (grant.Proposal, error)
	AuthURL(p grant.Proposal, h identity.Handshake) (string, error)
	Agree(ctx context.Context, who identity.Identity, p grant.Proposal) error
	Connect(ctx context.Context, who identity.Identity, a grant.Ask, callback url.Values, h identity.Handshake,
		confirm bool) (grant.Kept, error)
	ConnectKey(ctx context.Context, who identity.Identity, a grant.Ask, key string, confirm bool) (grant.Kept, error)
	Look(ctx context.Context, who identity.Identity)
	View(ctx context.Context, who identity.Identity) ([]grant.View, error)
	Name(connector string) string
	Withdraw(ctx context.Context, who identity.Identity, connector, app string) error
	End(ctx context.Context, who identity.Identity, connector string) (grant.Revocation, error)
	SignedIn(ctx context.Context, who identity.Identity) error
}

// connectEndpoint lets people connect an account for an app.
type connectEndpoint struct {
	own       *ownSessions
	site      *site
	providers providers
	pages     *pages.Pages
	lender    Lender
	once      session.Once
}

// connectAsk is what the address of our page asks for.
type connectAsk struct {
	grant.Ask
	target   string // the address, for a return and for the form
	returnTo string
}

// agreed is what the detail of a flow has: what somebody agreed to, and in which session.
type agreed struct {
	App     string   `json:"a,omitempty"`
	Access  []string `json:"x,omitempty"`
	Offline bool     `json:"o,omitempty"`
	Days    int      `json:"d,omitempty"`
	Confirm bool     `json:"c,omitempty"`
	inSession
}

// ask shows what somebody is asked to agree to. It is for a page that a person opens: what
// scripts fetch or frames show has no form.
func (e *connectEndpoint) ask(w http.ResponseWriter, r *http.Request, ev *event) error {
	if !opensWindow(r) {
		return &failure{Status: http.StatusForbidden, Cause: errors.New("a consent page that is no page of a window"),
			Title:    "Open this page by itself",
			Sentence: "What apps may use can only be agreed to on a page of its own.",
			Advice:   "Follow the link in a window of its own."}
	}
	w.Header().Set("Cache-Control", "no-store")
	s, err := e.own.read(r, ev)
	if err != nil {
		return e.signInFirst(w, ev)
	}
	if err := e.own.verifiable(); err != nil {
		return err
	}
	a, err := e.asked(r, ev, &s)
	if err != nil {
		return err
	}
	if s.Identity.MustPick() {
		return e.pickFirst(w, a)
	}
	p, err := e.lender.Prepare(r.Context(), s.Identity, a.Ask)
	if errors.Is(err, grant.ErrNoApp) && a.App == "" {
		return e.chooseApp(w, r, ev, &s, a)
	}
	if err != nil {
		return e.refused(err, a.Connector)
	}
	return e.show(w, r, ev, &s, a, p, nil, 0)
}

// signInFirst sends somebody to a sign-in that leads back to the page.
func (e *connectEndpoint) signInFirst(w http.ResponseWriter, ev *event) error {
	target := ev.facts.Target()
	if e.site.returnTo(target) == target {
		redirect(w, http.StatusFound, e.site.login(target))
		return nil
	}
	const title, advice = "Sign in first", "Sign in, and then follow the link of the app again."
	return &failure{Status: http.StatusUnauthorized, Cause: errors.New("a link to connect that cannot be returned to"),
		Page: &pages.Page{Template: "message", Data: pages.Message{Title: title,
			Sentence: "The address of this page is too long for us to bring you back here by ourselves.",
			Advice:   advice, ActionURL: e.site.login("/"), ActionText: "Sign in"}}}
}

// pickFirst sends somebody to the choice of an organization, which leads back to the page.
func (e *connectEndpoint) pickFirst(w http.ResponseWriter, a connectAsk) error {
	redirect(w, http.StatusSeeOther, e.site.origin+e.site.choice(e.site.returnTo(a.target)))
	return nil
}

// asked reads the address. A link that was made for somebody else stops here.
func (e *connectEndpoint) asked(r *http.Request, ev *event, s *session.Session) (connectAsk, error) {
	q, err := readQuery(ev.facts.RawQuery, "app", "access", "return_to", "for")
	if err != nil || anyTwice(q, "app", "return_to", "for") {
		return connectAsk{}, &failure{Status: http.StatusBadRequest,
			Cause: errors.New("link to connect: a parameter cannot be read, or comes twice")}
	}
	if q.Has("for") {
		if err := e.isFor(q.Get("for"), s.Identity); err != nil {
			return connectAsk{}, err
		}
	}
	a := connectAsk{Ask: grant.Ask{Connector: r.PathValue("connector"), App: q.Get("app")}, target: ev.facts.Target(),
		returnTo: e.site.lentReturn(q.Get("return_to"))}
	for _, value := range q["access"] {
		for name := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ',' || r == ' ' }) {
			if !slices.Contains(a.Access, name) {
				a.Access = append(a.Access, name)
			}
		}
	}
	return a, nil
}

// isFor refuses a link that was made for another person, or for the people of another
// organization. Who has yet to choose theirs is asked for that first.
func (e *connectEndpoint) isFor(sealed string, who identity.Identity) error {
	refused := &failure{Status: http.StatusForbidden, Title: "This link is not for you",
		Sentence: "It was made for somebody else, or it is too old. You are signed in as " + who.DisplayName() + ".",
		Advice:   "Open the app again, and follow its own link."}
	if org, err := e.own.sessions.OpenOrg(sealed); err == nil {
		if who.MustPick() || org == who.Org.ID {
			return nil
		}
		refused.Cause = errors.New("link to connect: it was made for another organization")
		refused.Sentence = "It was made for people of another organization."
		refused.Advice = "If you belong to it too, choose it on your account page, and follow the link again."
		refused.Account = e.site.url("account")
		return refused
	}
	person, err := e.own.sessions.OpenPerson(sealed)
	if err == nil && person == who.ID() {
		return nil
	}
	if err == nil {
		err = errors.New("it was made for somebody else")
	}
	refused.Cause = fmt.Errorf("link to connect: %w", err)
	return refused
}

// answer is what somebody says on the page.
func (e *connectEndpoint) answer(w http.ResponseWriter, r *http.Request, ev *event) error {
	if !fromOwnPage(r, e.site.origin) {
		return &failure{Status: http.StatusForbidden, Cause: errors.New("consent that was not sent from our page"),
			Title: "Nothing was connected", Sentence: "The request did not come from our own page.",
			Advice: "Open the app again, and follow its own link."}
	}
	r = asCaller(r, ev)
	w.Header().Set("Cache-Control", "no-store")
	s, err := e.own.read(r, ev)
	if err != nil {
		return e.site.askToSignIn(w, r, ev)
	}
	if err := e.own.verifiable(); err != nil {
		return err
	}
	a, err := e.asked(r, ev, &s)
	if err != nil {
		return err
	}
	if s.Identity.MustPick() {
		return e.pickFirst(w, a)
	}
	form, err := readForm(w, r)
	answer := form.Get("answer")
	if err != nil || answer != "yes" && answer != "no" ||
		anyTwice(form, "form", "answer", "offline", "days", "user", "key", "confirm") {
		return &failure{Status: http.StatusBadRequest, Cause: errors.New("malformed answer on a consent page"),
			Title: "Nothing was connected", Sentence: "What was sent is not an answer.",
			Advice: "Go back and choose again."}
	}
	if answer == "no" {
		redirect(w, http.StatusSeeOther, e.site.absolute(a.returnTo))
		return nil
	}
	p, err := e.lender.Prepare(r.Context(), s.Identity, a.Ask)
	if err != nil {
		return e.refused(err, a.Connector)
	}
	confirm := form.Get("confirm") == "1"
	if !hmac.Equal([]byte(form.Get("form")), []byte(formSecret(&s, a, p, confirm))) {
		return e.show(w, r, ev, &s, a, p, &pages.Notice{Title: "Please look at this again",
			Text: "Nothing was connected. The page that you answered was of another session, or what it asks for " +
				"has changed meanwhile."}, http.StatusConflict)
	}
	if a.Offline = form.Get("offline") == "1"; a.Offline {
		if days := form.Get("days"); days != "" {
			if a.Days, err = strconv.Atoi(days); err != nil {
				return e.refused(grant.ErrDays, a.Connector)
			}
		}
		if p, err = e.lender.Prepare(r.Context(), s.Identity, a.Ask); err != nil {
			return e.refused(err, a.Connector)
		}
	}
	return e.carryOut(w, r, ev, &s, a, p, keyOf(p, form), confirm)
}

// keyOf is what was pasted, behind a user name where the connector needs one. A name with a
// colon would be read as another one (RFC 7617 §2), so nothing is left of it.
func keyOf(p grant.Proposal, form url.Values) string {
	key, user := form.Get("key"), form.Get("user")
	if p.About.UserHint == "" || key == "" {
		return key
	}
	if strings.Contains(user, ":") {
		user = ""
	}
	return user + ":" + key
}

// carryOut does what somebody agreed to.
func (e *connectEndpoint) carryOut(w http.ResponseWriter, r *http.Request, ev *event, s *session.Session, a connectAsk,
	p grant.Proposal, key string, confirm bool) error {
	var err error
	switch {
	case !p.Trip:
		err = e.lender.Agree(r.Context(), s.Identity, p)
	case key != "" || p.About.Authorize == "":
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), connectTime)
		defer cancel()
		_, err = e.lender.ConnectKey(ctx, s.Identity, a.Ask, key, confirm)
	default:
		return e.leave(w, r, s, a, p, confirm)
	}
	if err != nil {
		return e.failed(w, r, ev, s, a, err)
	}
	redirect(w, http.StatusSeeOther, e.site.absolute(a.returnTo))
	return nil
}

// leave sends the browser to the third party.
func (e *connectEndpoint) leave(w http.ResponseWriter, r *http.Request, s *session.Session, a connectAsk,
	p grant.Proposal, confirm bool) error {
	detail, err := json.Marshal(agreed{App: a.App, Access: p.Access, Offline: a.Offline, Days: a.Days,
		Confirm: confirm, inSession: begunIn(s)})
	if err != nil {
		return &failure{Status: http.StatusInternalServerError, Cause: err}
	}
	h, err := e.own.sessions.Begin(w, r, session.Flow{Purpose: purposeConnect, Provider: a.Connector,
		ReturnTo: a.returnTo, Detail: string(detail)})
	if err != nil {
		return &failure{Status: http.StatusInternalServerError, Cause: err}
	}
	location, err := e.lender.AuthURL(p, h)
	if err != nil {
		return e.refused(err, a.Connector)
	}
	redirect(w, http.StatusSeeOther, location)
	return nil
}

// callback takes what a browser brings back from a third party. The code is redeemed
// within the request, whether or not the browser waits: some live for half a minute.
func (e *connectEndpoint) callback(w http.ResponseWriter, r *http.Request, ev *event) error {
	r = asCaller(r, ev)
	w.Header().Set("Cache-Control", "no-store")
	connector := r.PathValue("connector")
	q, err := callbackQuery(ev)
	if err != nil {
		return err
	}
	if q.Has("admin_consent") && !q.Has("code") && !q.Has("state") { // the link of Approver, which has no state
		return e.approved(w, r, ev, q)
	}
	var did agreed
	trip, s, err := e.own.returned(r, ev, returning{q.Get("state"), purposeConnect, connector, &did, &did.inSession})
	if err != nil {
		return notConnectedHere(err)
	}
	if err := e.own.verifiable(); err != nil {
		return err
	}
	first, err := e.once.Consume(r.Context(), "connect/"+trip.Name, e.own.process.now().Add(session.FlowTime))
	if err != nil {
		return &failure{Status: http.StatusServiceUnavailable, Cause: fmt.Errorf("connect: %w", err), RetryAfter: 5,
			Title: "Nothing was connected", Sentence: "Whether this was done before is not known at the moment.",
			Advice: "Reload this page in a moment."}
	}
	a := connectAsk{Ask: grant.Ask{Connector: connector, App: did.App, Access: did.Access, Offline: did.Offline,
		Days: did.Days}, returnTo: e.site.lentReturn(trip.ReturnTo)}
	a.target = e.site.connectPath(a)
	if first { // else it is a reload, or the back button
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), connectTime)
		defer cancel()
		_, err = e.lender.Connect(ctx, s.Identity, a.Ask, q, trip.Handshake, did.Confirm)
	}
	if class := grant.ClassOf(err); err != nil && q.Has("error") && (class == grant.Yours || class == grant.Later) {
		return e.declined(err, class, a)
	}
	if err != nil {
		return e.failed(w, r, ev, &s, a, err)
	}
	redirect(w, http.StatusSeeOther, e.site.absolute(a.returnTo))
	return nil
}

// asCaller has the audit of what the Lender does say in which request it was.
func asCaller(r *http.Request, ev *event) *http.Request {
	return r.WithContext(grant.WithCaller(r.Context(), grant.Caller{RequestID: ev.RequestID, Client: ev.Client}))
}

// anyTwice reports whether one of names comes more than once.
func anyTwice(values url.Values, names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return len(values[name]) > 1 })
}

// opensWindow reports whether a page is opened, or a form sent, in a window, where the
// browser says so.
func opensWindow(r *http.Request) bool {
	return admission.KindOf(r) != admission.Program &&
		fetchedAs(r, "Sec-Fetch-Mode", "navigate") && fetchedAs(r, "Sec-Fetch-Dest", "document")
}

// fromOwnPage reports whether a form was sent from a page of origin, as a page and not by
// a script. Unlike admission.FromPagesOf it wants the Origin, and takes nothing that a
// service worker passes on: an app on the same host could have written that.
func fromOwnPage(r *http.Request, origin string) bool {
	from := r.Header["Origin"]
	return len(from) == 1 && from[0] == origin && opensWindow(r) && fetchedAs(r, "Sec-Fetch-Site", "same-origin")
}

// fetchedAs reports whether a header of Fetch Metadata has a value, or is not there.
func fetchedAs(r *http.Request, name, value string) bool {
	sent := r.Header[name]
	return len(sent) == 0 || len(sent) == 1 && sent[0] == value
}

// formSecret ties a form to the session that it was shown to, and to what it said. Root is
// sealed in the cookie, so no page and no script knows it.
func formSecret(s *session.Session, a connectAsk, p grant.Proposal, confirm bool) string {
	h := hmac.New(sha256.New, []byte("sallyport consent form\x00"+s.Root))
	// JSON tells these lists and texts apart however they are cut.
	said := []any{s.ID, a.target, p.Connector, p.App, p.Owner, p.Trip, p.Scopes, p.OfflinePossible, p.Events, confirm}
	for _, access := range p.Accesses {
		said = append(said, access.Name)
	}
	_ = json.NewEncoder(h).Encode(said) // a hash takes everything
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// connectPath is the address of the page for what was asked.
func (s *site) connectPath(a connectAsk) string {
	q := url.Values{}
	if a.App != "" {
		q.Set("app", a.App)
	}
	if len(a.Access) > 0 {
		q.Set("access", strings.Join(a.Access, ","))
	}
	if a.returnTo != "" {
		q.Set("return_to", a.returnTo)
	}
	path := s.path("connect/" + url.PathEscape(a.Connector))
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return path
}

// lentReturn is where an app asked that people be sent back to after they connected: a
// path of this host, or an address on the host of a route, byte for byte. Anything else
// becomes the account page.
func (s *site) lentReturn(raw string) string {
	account := s.path("account") + "#grants"
	at, path := s, raw
	if scheme, rest, ok := strings.Cut(raw, "://"); ok && scheme == s.scheme {
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		at = s.routeSite(rest[:end])
		if at == nil {
			return account
		}
		path = strings.TrimPrefix(raw, at.origin)
	}
	checked := path
	if path == "" && raw != "" {
		checked = "/"
	}
	if !strings.HasPrefix(checked, "/") || session.ReturnTo(checked, at.origin, at.prefix) != checked {
		return account
	}
	return raw
}

// routeSite is the site by an authority as our own addresses have it; nil where it is that
// of no route.
func (s *site) routeSite(authority string) *site {
	host, err := authz.CanonicalHost(authority)
	if err != nil || host != s.host && !s.routes.Serves(host) {
		return nil
	}
	if at := s.at(host); at.origin == s.scheme+"://"+authority {
		return at
	}
	return nil
}

// absolute is an address as a browser is sent there.
func (s *site) absolute(returnTo string) string {
	if strings.HasPrefix(returnTo, "/") {
		return s.origin + returnTo
	}
	return returnTo
}

// connectReturn is the path of our page for connecting, if raw is one: a link that was
// opened before the sign-in leads back to it. It shows a page and does nothing.
func (s *site) connectReturn(raw string) (string, bool) {
	path := strings.TrimPrefix(raw, s.origin)
	rest, ok := strings.CutPrefix(path, s.prefix+"/connect/")
	if !ok || s.public != nil {
		return "", false
	}
	id, _, _ := strings.Cut(rest, "?")
	if id == "" || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return "", false
	}
	// Our own prefix is allowed here, so none is refused: no path begins with a NUL.
	return path, session.ReturnTo(path, s.origin, "\x00") == path
}

// tellLender says that somebody is signed in, and as whom: what apps may do while they are
// away lasts from then. Where that cannot be written they are signed in all the same, and
// it ends sooner, never later.
func (p *Process) tellLender(r *http.Request, ev *event, lender Lender, s *session.Session) {
	if lender == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(asCaller(r, ev).Context()), signedInTime)
	defer cancel()
	if err := lender.SignedIn(ctx, s.Identity); err != nil {
		p.log.Error("what apps may do while somebody is away was not prolonged", "request_id", ev.RequestID,
			"error", err)
	}
}
