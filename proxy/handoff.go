package proxy

import (
	"encoding/base64"
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

// A session cookie belongs to one host. People sign in at the public host, and every
// other host gets a cookie of its own by a hand-off:
//
//	another host   navigation without a session   → 302 public/handoff?want=…
//	public host    nobody signed in?              → provider, and back here
//	public host    handoff?want=…                 → 303 other/handoff?grant=…
//	another host   handoff?grant=…                → 303 the page, with a session cookie
//
// What is sealed in want and grant, and to what it is bound, session says.
//
// Hosts that share the cookie of a domain need none of that. Only to sign in, and to have
// the provider asked again, do they send the browser to the public host, which sends it
// back without a grant.

// handOffs is the part of the hosts where people do not sign in.
type handOffs struct {
	*signIns
	admission *admission.Admission
	once      session.Once
	signOut   signOutEndpoint // of the public host
	own       mounted         // likewise
	maxAge    time.Duration   // how old what is known of ended sessions may be
}

// endpoints are those of another host than the public one.
func (h *handOffs) endpoints(at *site) mounted {
	away := &awayEndpoints{handOffs: h, site: at,
		own: &ownSessions{process: h.process, site: at, admission: h.admission, sessions: h.sessions,
			maxAge: h.maxAge}}
	signOut := h.signOut
	signOut.own, signOut.site = away.own, at
	all := []endpoint{
		{path: "login", get: away.login},
		{path: "handoff", get: away.take, leadsOn: true},
		{path: "logout", get: signOut.confirm, post: signOut.do},
		{path: "account", get: away.account},
		{path: "organization", get: away.organization},
		{path: "session", get: (&sessionEndpoint{own: away.own, site: at}).serve},
		{path: "renew", get: (&renewEndpoint{own: away.own, handOffs: h}).serve, leadsOn: true},
	}
	for _, same := range [...]string{"jwks.json", pages.MarkPath, "logo"} {
		if e, ok := h.own.whole[same]; ok {
			all = append(all, e)
		}
	}
	return mount(all)
}

// begin sends the browser to the public host for a session. found is why there is none.
func (h *handOffs) begin(
	w http.ResponseWriter, r *http.Request, ev *event, at *site, want session.Want, found error,
) error {
	if ev.dotted || ev.facts.Scheme != at.scheme {
		// The cookie that this hand-off is bound to would not be there at its end.
		w.Header().Set("Cache-Control", "no-store")
		redirect(w, http.StatusFound, at.login(want.ReturnTo))
		return nil
	}
	if key := h.browserAt(r, at); key != "" && h.process.handOffs.looping(key) {
		return h.loopPage(at, ev, found, want.ReturnTo)
	}
	return h.leave(w, r, at, want, http.StatusFound, at.public.handOff)
}

// leave goes to a place on the public host that is given the sealed want.
func (h *handOffs) leave(
	w http.ResponseWriter, r *http.Request, at *site, want session.Want, status int, place func(sealed string) string,
) error {
	want.Host = at.host
	hopHeaders(w)
	sealed, err := h.sessions.SealWant(w, r, want)
	if err != nil {
		return &failure{Status: http.StatusInternalServerError, Cause: err}
	}
	redirect(w, status, at.public.origin+place(sealed))
	return nil
}

// due reports whether the session of a page's request is to be handed over anew first, or,
// where all hosts have one, confirmed by the provider. The browser comes back to here.
// Nothing but a page waits for that, and none whose address is too long to come back to. A
// browser that did not keep what it was handed a few times in a row goes on with what it
// has.
//
// A scheme of https counts for nothing: browsers send the session cookie of such a site over
// https only, so that of who has one a proxy says http where TLS ends before it, as
// ingress-nginx does behind a load balancer.
func (h *handOffs) due(r *http.Request, ev *event, at *site, s *session.Session, here string) bool {
	if !opensPage(r) || at.scheme == "http" && ev.facts.Scheme != at.scheme {
		return false
	}
	if h.sessions.Shared(at.host) {
		_, asks := h.asksAgain(r, ev, at, s, here)
		return asks
	}
	key := h.browserAt(r, at)
	if !h.sessions.HandOverDue(s) {
		h.process.handOffs.sessionKept(key)
		return false
	}
	return !ev.dotted && at.returnTo(here) == here &&
		(key == "" || !h.process.handOffs.looping(key))
}

// again has s handed over anew, and tells the public host that it was in use.
func (h *handOffs) again(
	w http.ResponseWriter, r *http.Request, at *site, s *session.Session, returnTo string,
) error {
	want := session.Want{ReturnTo: returnTo, Root: s.Root, Seen: s.Seen}
	return h.leave(w, r, at, want, http.StatusFound, at.public.handOff)
}

// browserAt is a name for a browser on a host, for counting; "" if it has none.
func (h *handOffs) browserAt(r *http.Request, at *site) string {
	if browser := h.sessions.BrowserID(r); browser != "" {
		return browser + " " + at.host
	}
	return ""
}

// hopHeaders keep a step of a hand-off, whose address is sealed but no secret to the
// sites it could be told to, out of caches and Referer headers.
func hopHeaders(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
}

// handOff is the path of the endpoint that answers a want.
func (s *site) handOff(sealed string) string { return s.path("handoff") + "?want=" + sealed }

// wantIn is what is sealed in the path of a hand-off from the site where people sign
// in. That it is ours, only the endpoint tells.
func (s *site) wantIn(path string) ([]byte, bool) {
	sealed, ok := strings.CutPrefix(path, s.handOff(""))
	if !ok || s.public != nil || strings.ContainsAny(sealed, "\r\n") {
		return nil, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(sealed)
	return raw, err == nil && len(raw) > 0 && len(raw) <= session.MaxWant
}

// packed is f with a hand-off in its detail: as an address to return to it may be too
// long. returnOf unpacks it.
func (s *site) packed(f session.Flow) session.Flow {
	raw, ok := s.wantIn(f.ReturnTo)
	switch {
	case ok && signIn(f):
		f.ReturnTo, f.Detail = "/", string(raw)
	case ok && f.Purpose == purposeStepUp:
		f.ReturnTo, f.Detail = "/", f.Detail+string(raw)
	}
	return f
}

// leadsTo are the origins, beside our own, to which returnTo leads: Chromium applies
// form-action to all the redirects that follow a form.
func (s *site) leadsTo(sessions *session.Manager, returnTo string) []string {
	if _, ok := s.wantIn(returnTo); !ok {
		return nil
	}
	want, err := sessions.OpenWant(strings.TrimPrefix(returnTo, s.handOff("")))
	if err != nil {
		return nil
	}
	return []string{s.at(want.Host).origin}
}

// notForThisBrowser is the page for a step of a hand-off that cannot be taken here.
func (s *site) notForThisBrowser(cause error) error {
	return &failure{Status: http.StatusBadRequest, Refused: true, Cause: fmt.Errorf("hand-off: %w", cause),
		Page: &pages.Page{Template: "message", Data: pages.Message{
			Title: "This address is not for this browser",
			Sentence: "It is a step of a sign-in that was begun in another browser, or that was used before or is " +
				"over. Nobody was signed in with it.",
			Advice: "Open the site itself. If somebody sent you this address, do not use it: " +
				"it works only for the person who began.",
			ActionURL: s.origin + "/", ActionText: "Go to " + s.host}}}
}

// handOffEndpoint is the part of the public host: it gives other hosts what they want.
type handOffEndpoint struct {
	signIn *signInEndpoint
	own    *ownSessions
	orgs   *identity.Organizations
}

// serve answers a want with a grant, if somebody is signed in, and lets them sign in
// if not. It answers only hosts of routes.
func (e *handOffEndpoint) serve(w http.ResponseWriter, r *http.Request, ev *event) error {
	at := e.own.site
	hopHeaders(w)
	if admission.KindOf(r) != admission.Navigation {
		return at.unauthorized(w, r, ev)
	}
	q, _ := readQuery(ev.facts.RawQuery)
	want, err := e.own.sessions.OpenWant(q.Get("want"))
	switch {
	case err != nil && !errors.Is(err, session.ErrLate):
		return at.notForThisBrowser(err)
	case want.Host == at.host || !at.routes.SignsIn(want.Host):
		return at.notForThisBrowser(fmt.Errorf("no route has the host %q", want.Host))
	case err != nil: // with a button, so that clocks that differ make no circle
		return e.tookTooLong(at.at(want.Host), want.ReturnTo, err)
	}
	s, renew, err := e.session(r, ev, want)
	here := at.handOff(q.Get("want"))
	if err != nil {
		return e.letSignIn(w, r, ev, want, here, q, err)
	}
	if route := e.signIn.unproven(at, &s, q.Get("step_up"), here); route != nil { // it comes back here
		return e.stepUp(w, r, ev, s, renew, route, here)
	}
	e.signIn.process.stepUps.sessionKept(e.own.sessions.BrowserID(r))
	if provider, due := e.signIn.reauthDue(r, ev, &s, ev.facts.Target()); due { // it comes back here
		return e.signIn.leaveForReauth(w, r, ev, provider, &s, ev.facts.Target())
	}
	if e.own.sessions.Shared(want.Host) {
		return e.back(w, ev, want, here, s, renew)
	}
	return e.grant(w, ev, want, here, s, renew)
}

// back sends the browser to a host that has the same cookie. If that host wanted to have
// the provider asked again, and it is not asked now, it is not to want that again before
// the next time: the browser would go to and fro.
func (e *handOffEndpoint) back(
	w http.ResponseWriter, ev *event, want session.Want, here string, s session.Session, renew bool,
) error {
	at := e.own.site
	other := at.at(want.Host)
	if s.Identity.MustPick() {
		redirect(w, http.StatusSeeOther, at.origin+at.choice(here))
		return nil
	}
	write := e.own.sessions.Write
	switch {
	case want.Root != "":
		write, renew = e.own.sessions.Leave, true
	default: // the other host saw no session
		key := s.SID() + " " + want.Host
		if e.signIn.process.handOffs.looping(key) {
			return e.signIn.loopPage(other, ev, session.ErrTwice, want.ReturnTo)
		}
		e.signIn.process.handOffs.completed(key)
	}
	if renew {
		if err := write(w, at.host, s); err != nil {
			return &failure{Status: http.StatusInternalServerError, Cause: err}
		}
	}
	redirect(w, http.StatusSeeOther, other.origin+want.ReturnTo)
	return nil
}

// session reads the session, and reports whether its cookie is to be renewed: to open
// a page on another host is to use it. One that has idled out counts where the want
// proves that it was in use on another host.
func (e *handOffEndpoint) session(r *http.Request, ev *event, want session.Want) (
	s session.Session, renew bool, err error,
) {
	if s, err = e.own.read(r, ev); err == nil {
		s, renew = e.own.sessions.Renew(s)
		return s, renew, nil
	}
	kept, ok := e.own.sessions.KeptInUse(s, want)
	if _, known := e.signIn.providers.find(s.Identity.Provider); !ok || !known || !errors.Is(err, session.ErrExpired) {
		return s, false, err
	}
	ev.sessionErr = nil
	ev.identify(&kept.Identity)
	return kept, true, nil
}

// stepUp has somebody step up for a route of another host. The session counts when they
// come back, also if it had idled out here while it was in use there.
func (e *handOffEndpoint) stepUp(w http.ResponseWriter, r *http.Request, ev *event, s session.Session, renew bool,
	route *authz.Route, here string) error {
	if renew {
		if err := e.own.sessions.Write(w, e.own.site.host, s); err != nil {
			return &failure{Status: http.StatusInternalServerError, Cause: err}
		}
	}
	return e.signIn.stepUp(w, r, ev, s, route, here)
}

// letSignIn begins a sign-in that comes back here, in a window.
func (e *handOffEndpoint) letSignIn(w http.ResponseWriter, r *http.Request, ev *event,
	want session.Want, here string, q url.Values, found error) error {
	if admission.InFrame(r) {
		err := e.own.site.openWindow(r, here)
		if f, ok := errors.AsType[*failure](err); ok {
			f.Page.FramedBy = append(f.Page.FramedBy, e.own.site.at(want.Host).origin)
		}
		return err
	}
	purpose := purposeLogin
	if want.Switch {
		purpose = purposeSwitch
	}
	return e.signIn.begin(w, r, ev, session.Flow{Purpose: purpose, ReturnTo: here}, q, found)
}

// grant sends the browser back with what its host wants.
func (e *handOffEndpoint) grant(
	w http.ResponseWriter, ev *event, want session.Want, here string, s session.Session, renew bool,
) error {
	at := e.own.site
	org := at.routes.OrgOf(want.Host)
	if org == "" && s.Identity.MustPick() {
		redirect(w, http.StatusSeeOther, at.origin+at.choice(here))
		return nil
	}
	sealed, err := e.own.sessions.SealGrant(want, s, org)
	switch {
	case errors.Is(err, session.ErrNotTheirs):
		ev.Action = observe.HandOff
		e.own.process.metrics.handOffs.WithLabelValues("not_theirs").Inc()
		return e.notTheirs(want.Host, org, &s)
	case err != nil:
		return &failure{Status: http.StatusInternalServerError, Cause: err}
	}
	if renew {
		if err := e.own.sessions.Write(w, at.host, s); err != nil {
			return &failure{Status: http.StatusInternalServerError, Cause: err}
		}
	}
	redirect(w, http.StatusSeeOther, at.at(want.Host).url("handoff")+"?grant="+sealed)
	return nil
}

// notTheirs is the page for somebody who does not belong to the organization whose own
// a host is. It names the hosts of those they belong to.
func (e *handOffEndpoint) notTheirs(host, org string, s *session.Session) error {
	name := org
	if o, ok := e.orgs.Find(org); ok {
		name = o.DisplayName()
	}
	f := &failure{Status: http.StatusForbidden, Session: s,
		Cause:    fmt.Errorf("%s is for the organization %q, and %s does not belong to it", host, org, s.Identity.ID()),
		Sentence: host + " is for " + name + ", and your account does not belong to it."}
	theirs := s.Identity.Orgs
	if len(theirs) == 0 {
		theirs = []identity.Org{s.Identity.Org}
	}
	for _, o := range theirs {
		other := o.ID + strings.TrimPrefix(host, org)
		if o.ID != "" && e.own.site.routes.OrgOf(other) == o.ID {
			f.Places = append(f.Places, pages.Place{Name: o.DisplayName(), URL: e.own.site.at(other).origin + "/"})
		}
	}
	return f
}

func (e *handOffEndpoint) tookTooLong(at *site, returnTo string, cause error) error {
	return &failure{Status: http.StatusBadRequest, Cause: fmt.Errorf("hand-off: %w", cause),
		Page: &pages.Page{Template: "message", Data: pages.Message{
			Title: "This took too long", Sentence: "The way to " + at.host + " was begun more than ten minutes ago.",
			Advice: "Go on from here.", ActionURL: at.origin + returnTo, ActionText: "Go to " + at.host}}}
}

// awayEndpoints are those of a host where people do not sign in.
type awayEndpoints struct {
	*handOffs
	site *site
	own  *ownSessions
}

// login begins a hand-off, for pages only. With the value of its page it is for a
// sign-in as somebody else, on all hosts.
func (e *awayEndpoints) login(w http.ResponseWriter, r *http.Request, ev *event) error {
	if admission.KindOf(r) != admission.Navigation {
		return e.site.unauthorized(w, r, ev)
	}
	w.Header().Set("Cache-Control", "no-store")
	q, _ := readQuery(ev.facts.RawQuery)
	want := session.Want{ReturnTo: e.site.returnTo(q.Get("return_to"))}
	s, err := e.own.read(r, ev)
	switch {
	case err == nil && q.Get("switch") == switchValue(&s): // CVE-2026-34454, as at the public host
		e.own.signOut(w, r, ev, s)
		clearCache(w, r, e.keepCache)
		want.Switch = true
	case err == nil && e.unproven(e.site, &s, q.Get("step_up"), want.ReturnTo) != nil:
		// The public host's session may have stepped up already.
		want.Root, want.Seen = s.Root, s.Seen
	case err == nil:
		redirect(w, http.StatusSeeOther, e.site.origin+want.ReturnTo)
		return nil
	}
	if key := e.browserAt(r, e.site); key != "" && e.process.handOffs.looping(key) {
		return e.loopPage(e.site, ev, err, want.ReturnTo)
	}
	return e.leave(w, r, e.site, want, http.StatusFound, func(sealed string) string {
		return e.site.public.handOff(sealed) + chosen(q)
	})
}

// chosen are the parameters with which an app chooses a provider, and the route for
// which somebody has to step up.
func chosen(q url.Values) string {
	all := ""
	for _, name := range [...]string{"provider", "login_hint", "step_up"} {
		if q.Get(name) != "" {
			all += "&" + name + "=" + url.QueryEscape(q.Get(name))
		}
	}
	return all
}

// account is at the public host.
func (e *awayEndpoints) account(w http.ResponseWriter, _ *http.Request, _ *event) error {
	w.Header().Set("Cache-Control", "no-store")
	redirect(w, http.StatusSeeOther, e.site.public.url("account"))
	return nil
}

// organization leads to the choice at the public host, and back.
func (e *awayEndpoints) organization(w http.ResponseWriter, r *http.Request, ev *event) error {
	q, _ := readQuery(ev.facts.RawQuery)
	want := session.Want{ReturnTo: e.site.returnTo(q.Get("return_to"))}
	return e.leave(w, r, e.site, want, http.StatusSeeOther, func(sealed string) string {
		return e.site.public.choice(e.site.public.handOff(sealed))
	})
}

// take ends a hand-off: with a grant that is good for this host and browser, and was
// not used before, this host has a session.
func (e *awayEndpoints) take(w http.ResponseWriter, r *http.Request, ev *event) error {
	hopHeaders(w)
	if admission.KindOf(r) != admission.Navigation {
		return e.site.unauthorized(w, r, ev)
	}
	q, _ := readQuery(ev.facts.RawQuery)
	g, err := e.sessions.OpenGrant(r, e.site.host, q.Get("grant"))
	if err == nil {
		err = session.ConsumeGrant(r.Context(), e.once, g)
	}
	ev.Action = observe.HandOff
	e.process.metrics.handOffs.WithLabelValues(handOffResult(err)).Inc()
	switch {
	case err == nil:
		return e.handedOver(w, r, ev, g)
	case errors.Is(err, session.ErrGrant):
		return e.site.notForThisBrowser(err)
	case refused(err):
		// Whose it was is known, and who came with it need not be the same.
		ev.Note = "a session of " + g.Session.Identity.ID() + " was not taken, " + handOffResult(err)
		return e.notTaken(w, r, ev, g, err)
	}
	return &failure{Status: http.StatusServiceUnavailable, Cause: err, RetryAfter: 5}
}

// handOffResult is the metric's word for how a hand-off went.
func handOffResult(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, session.ErrLate):
		return "late"
	case errors.Is(err, session.ErrConsumed):
		return "used"
	case errors.Is(err, session.ErrOtherBrowser), errors.Is(err, session.ErrNoFlow):
		return "other_browser"
	case errors.Is(err, session.ErrGrant):
		return "forged"
	case errors.Is(err, session.ErrEnded):
		return "ended"
	}
	return "store"
}

func (e *awayEndpoints) handedOver(w http.ResponseWriter, r *http.Request, ev *event, g session.Grant) error {
	if err := e.sessions.Write(w, e.site.host, g.Session); err != nil {
		return &failure{Status: http.StatusInternalServerError, Cause: err}
	}
	ev.identify(&g.Session.Identity)
	before, _ := e.sessions.Read(strings.Join(r.Header["Cookie"], "; "), e.site.host) // it may be over
	if isForOther(&before, &g.Session) {
		clearCache(w, r, e.keepCache)
	}
	if key := e.browserAt(r, e.site); key != "" {
		e.process.handOffs.completed(key)
	}
	redirect(w, http.StatusSeeOther, e.site.origin+g.ReturnTo)
	return nil
}

// refused reports whether err says that a grant is not good; else nobody can tell.
func refused(err error) bool {
	for _, why := range [...]error{session.ErrNoFlow, session.ErrOtherBrowser, session.ErrLate, session.ErrConsumed,
		session.ErrEnded} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}

// notTaken answers a grant of ours that signs nobody in. Who has a session goes on
// with that: a second tab, or a browser that asked twice. What this browser began is
// begun afresh: once if it was late or the session ended meanwhile, and a few times if
// another tab, which began at the same moment, set the cookie that it was bound to.
func (e *awayEndpoints) notTaken(
	w http.ResponseWriter, r *http.Request, ev *event, g session.Grant, cause error,
) error {
	if _, err := e.own.read(r, ev); err == nil {
		redirect(w, http.StatusSeeOther, e.site.origin+g.ReturnTo)
		return nil
	}
	restart := g.Restarts < maxRestarts && errors.Is(cause, session.ErrOtherBrowser) ||
		g.Restarts == 0 && (errors.Is(cause, session.ErrLate) || errors.Is(cause, session.ErrEnded))
	if restart {
		return e.begin(w, r, ev, e.site, session.Want{ReturnTo: g.ReturnTo, Restarts: g.Restarts + 1}, cause)
	}
	return e.site.notForThisBrowser(cause)
}
