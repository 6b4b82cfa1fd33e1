package proxy

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

const (
	purposeLogin  = "login"
	purposeSwitch = "switch" // a login as somebody else
	// flowTime bounds all calls to a provider for one step of a sign-in.
	flowTime = 15 * time.Second
	// maxRestarts is how often a tab begins afresh that lost the race for the
	// flow cookie. With one restart, one in hundreds of such tabs would be stopped.
	maxRestarts = 3
)

// signInEndpoint begins a sign-in.
type signInEndpoint struct {
	*signIns
	own   *ownSessions
	pages *pages.Pages
}

// serve is for page navigations only.
func (e *signInEndpoint) serve(w http.ResponseWriter, r *http.Request, ev *event) error {
	if admission.KindOf(r) != admission.Navigation {
		return e.site.unauthorized(w, r, ev)
	}
	w.Header().Set("Cache-Control", "no-store") // where it leads is for this browser, this once
	q, _ := readQuery(ev.facts.RawQuery)
	returnTo := e.site.returnTo(q.Get("return_to"))
	s, err := e.own.read(r, ev)
	purpose := purposeLogin
	if q.Get("switch") != "" {
		purpose = purposeSwitch
	}
	switch {
	case err == nil && q.Get("switch") == switchValue(&s):
		// To sign in as somebody else, the first one must be gone: otherwise a
		// cancelled sign-in would leave them there (CVE-2026-34454).
		e.own.signOut(w, r, ev, s)
		clearCache(w, r, e.keepCache)
	case err == nil && !s.Identity.MustPick():
		if route := e.unproven(e.site, &s, q.Get("step_up"), returnTo); route != nil {
			return e.stepUp(w, r, ev, s, route, returnTo)
		}
		fallthrough
	case err == nil: // signed in already: a late tab, or a bookmark
		redirect(w, http.StatusSeeOther, e.site.origin+e.site.afterSignIn(&s, returnTo))
		return nil
	case admission.InFrame(r):
		return e.site.openWindow(r, returnTo)
	}
	return e.begin(w, r, ev, session.Flow{Purpose: purpose, ReturnTo: returnTo}, q, err)
}

// begin sends the browser to the provider that q asks for, or shows those there are.
// found is why there is no session.
func (e *signInEndpoint) begin(
	w http.ResponseWriter, r *http.Request, ev *event, flow session.Flow, q url.Values, found error,
) error {
	if browser := e.sessions.BrowserID(r); browser != "" && e.process.loops.looping(browser) {
		return e.loopPage(e.site, ev, found, flow.ReturnTo)
	}
	hint := loginHint(q.Get("login_hint"))
	provider, ok := e.providers.choose(q.Get("provider"), hint)
	if !ok {
		show(e.pages, w, r, ev, pages.Page{Template: "signin", Data: e.providers.choices(flow.ReturnTo, flow.Purpose)})
		return nil
	}
	flow.Provider = provider.ID
	return e.redirectToProvider(w, r, ev, provider, flow, hint)
}

// signIn reports whether f is for signing in, and not for something else.
func signIn(f session.Flow) bool { return f.Purpose == purposeLogin || f.Purpose == purposeSwitch }

// prompt is what f asks of its provider. To sign in as somebody else means to
// choose, but not every provider knows select_account: one that refused it is
// asked with login instead.
func prompt(f session.Flow) string {
	switch {
	case f.Purpose == purposeReauth:
		return "none"
	case f.Purpose != purposeSwitch:
		return ""
	case f.Restarts == 0:
		return "select_account"
	}
	return "login"
}

// loginHint is an address that an app sends along, so that people need not
// choose or type; "" if it is no plain address. It proves nothing: who signs in
// is what the provider says.
func loginHint(s string) string {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || domain == "" || len(s) > 254 || strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),:;<>[\]&=?#%`, r)
	}) || strings.Contains(domain, "@") {
		return ""
	}
	return s
}
