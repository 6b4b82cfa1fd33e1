package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/session"
)

// endsSessions is a LoginProvider at which people can sign out too (OpenID
// Connect RP-Initiated Logout): by going to address with form as its query, or
// by posting form there. Without an address there is no such place. returnTo goes
// along where it is registered there, which is for the LoginProvider to know.
type endsSessions interface {
	Logout(ctx context.Context, returnTo, state string) (address string, form url.Values, post bool, err error)
}

// signOutTime is how long the page for those who are signed out waits to learn
// where the provider's own sign-out is. It is nearly always known.
const signOutTime = 2 * time.Second

// signOut ends the session, in this process at once.
func (p *Proxy) signOut(w http.ResponseWriter, r *http.Request, ev *event) error {
	if !admission.FromPagesOf(r, p.origin) {
		return &failure{Status: http.StatusForbidden, Cause: errors.New("sign-out from another site"),
			Title: "You were not signed out", Sentence: "The request to sign out came from another site.",
			Advice: "If you want to sign out, do it on your account page: " + p.origin + p.prefix + "/account"}
	}
	s, err := p.ownSession(r, ev) // without one there may still be a cookie to take away
	if err == nil {
		ev.action = observe.SignOut
	}
	// A form of another site brings no cookie, whatever a service worker makes the
	// browser say about it. The answer must not take away what was not sent.
	if !admission.ThroughWorker(r) || !errors.Is(err, session.ErrNone) {
		if err := p.sessions.SignOut(r.Context(), w, s); err != nil {
			p.log.Error("a sign-out reached this process only", "request_id", ev.requestID, "error", err)
		}
		p.redeemed.forget(p.sessions.BrowserID(r)) // what this browser has not fetched yet must not sign it in again
	}
	p.clearCache(w, r)
	target := p.origin + p.prefix + "/logout"
	if s.Identity.Provider != "" {
		target += "?provider=" + url.QueryEscape(s.Identity.Provider)
	}
	redirect(w, http.StatusSeeOther, target)
	return nil
}

// clearCache has the browser forget what an app let it keep: it must not come
// back with the back button, nor be seen for another organization. Sites whose
// apps let nothing personal be kept can spare their people the seconds that it
// takes in a large cache. Nor is it done through a service worker: WebKit never
// loads the next page if the header comes that way.
func (p *Proxy) clearCache(w http.ResponseWriter, r *http.Request) {
	if !p.keepCache && !admission.ThroughWorker(r) {
		w.Header().Set("Clear-Site-Data", `"cache"`)
	}
}

// confirmSignOut asks before it signs out: a link must not be able to. Without
// a session it is the page to land on afterwards.
func (p *Proxy) confirmSignOut(w http.ResponseWriter, r *http.Request, ev *event) error {
	if s, err := p.ownSession(r, ev); err == nil {
		p.show(w, r, ev, page{Template: "confirmlogout",
			Data: confirmData{Name: displayName(&s.Identity), LogoutURL: p.prefix + "/logout", BackURL: p.prefix + "/account"}})
		return nil
	}
	data := signedoutData{SignInURL: p.loginURL("/"), Provider: p.providerSignOut(r.Context(), ev.facts.RawQuery)}
	pg := page{Template: "signedout", Data: data}
	if data.Provider != nil && data.Provider.Post {
		pg.FormAction = []string{data.Provider.URL}
	}
	p.show(w, r, ev, pg)
	return nil
}

// providerSignOut is where somebody who was signed in with the provider of the
// query can sign out there too. It is offered, not done: we keep no token that
// would prove whose request it is, so a provider may well ask, and on its own
// page people see what they end.
func (p *Proxy) providerSignOut(ctx context.Context, query string) *providerSignOut {
	q, err := url.ParseQuery(query)
	if err != nil {
		return nil
	}
	provider, ok := p.provider(q.Get("provider"))
	if !ok {
		return nil
	}
	ends, ok := provider.Login.(endsSessions)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, signOutTime)
	defer cancel()
	address, form, post, err := ends.Logout(ctx, p.origin+p.prefix+"/logout", "")
	if err != nil || address == "" {
		return nil
	}
	out := &providerSignOut{Name: provider.Name, URL: address, Post: post, Form: form}
	if !post {
		out.URL += map[bool]string{false: "?", true: "&"}[strings.Contains(address, "?")] + form.Encode()
	}
	return out
}
