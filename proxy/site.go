package proxy

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

// site is the host name at which people sign in, and where on it Sallyport's own
// endpoints are. Addresses to return to are paths on a site.
type site struct {
	origin string // scheme://host, with the port if it is not the scheme's own
	host   string // canonical, without the port
	scheme string
	prefix string

	// public is the site where people sign in; nil on that site itself.
	public *site
	routes *authz.Table
}

// newSite is the site of a public URL.
func newSite(public *url.URL, prefix string, routes *authz.Table) (*site, error) {
	host, err := authz.CanonicalHost(public.Host)
	if err != nil {
		return nil, fmt.Errorf("public URL: %w", err)
	}
	return &site{origin: public.Scheme + "://" + public.Host, host: host, scheme: public.Scheme, prefix: prefix,
		routes: routes}, nil
}

// at is the same site by the name of another host, which has its own endpoints and
// cookies. All hosts have the scheme and the port of the public URL.
func (s *site) at(host string) *site {
	if host == s.host {
		return s
	}
	port := strings.TrimPrefix(strings.TrimPrefix(s.origin, s.scheme+"://"), s.host)
	return &site{origin: s.scheme + "://" + host + port, host: host, scheme: s.scheme, prefix: s.prefix,
		public: s, routes: s.routes}
}

// home is the site where people sign in.
func (s *site) home() *site {
	if s.public != nil {
		return s.public
	}
	return s
}

// origins are those where forms of this site may end up.
func (s *site) origins() []string {
	if s.public == nil {
		return nil
	}
	return []string{s.public.origin}
}

// start is where our own pages send people who want to go on: "/", or the first
// address of an app on this host where nothing is at "/".
func (s *site) start() string {
	first := "/"
	for _, route := range s.routes.Routes() {
		switch {
		case route.Host != s.host:
		case route.Path == "/":
			return "/"
		case first == "/":
			first = route.Path
		}
	}
	return first
}

// path is that of an own endpoint.
func (s *site) path(endpoint string) string { return s.prefix + "/" + endpoint }

// url is that of an own endpoint.
func (s *site) url(endpoint string) string { return s.origin + s.prefix + "/" + endpoint }

// returnTo is a path of this site that somebody asked to be sent back to, or "/". On
// the site where people sign in that may be a hand-off to another host.
func (s *site) returnTo(asked string) string {
	if _, ok := s.wantIn(asked); ok {
		return asked
	}
	if path, ok := s.connectReturn(asked); ok {
		return path
	}
	return session.ReturnTo(asked, s.origin, s.prefix)
}

// login is where a sign-in begins. It is always on the public origin: the flow
// cookie of a sign-in that began at http://, or at a host with a dot at its end,
// would not be there when the provider sends the browser back.
//
// It leaves out an address too long to be returned to: escaped, it could make the
// link longer than a target may be, and nobody could sign in from it.
func (s *site) login(returnTo string) string {
	if _, handOff := s.wantIn(returnTo); returnTo == "/" || len(returnTo) > session.MaxReturnTo && !handOff {
		return s.url("login")
	}
	return s.url("login") + "?return_to=" + url.QueryEscape(returnTo)
}

// switchURL leads to a sign-in as somebody else, which ends who.
func (s *site) switchURL(who *session.Session, returnTo string) string {
	return s.switchTo(switchValue(who), returnTo)
}

// switchAccount leads to a sign-in, for a browser without a session, whose person the
// provider asks for the account. It ends no session.
func (s *site) switchAccount(returnTo string) string { return s.switchTo("account", returnTo) }

func (s *site) switchTo(value, returnTo string) string {
	u := s.path("login") + "?switch=" + value
	if returnTo != "/" {
		u += "&return_to=" + url.QueryEscape(returnTo)
	}
	return u
}

// switchValue is what only a page that s was shown has in its links. Where a link
// is, browsers cannot be asked: for a request that a service worker passes on,
// Firefox and WebKit say "Sec-Fetch-Site: same-origin" wherever the link was. The
// value does nothing but end s, and tells nothing about it.
func switchValue(s *session.Session) string {
	sum := sha256.Sum256([]byte("sign in as someone else\x00" + s.Root))
	return hex.EncodeToString(sum[:16])
}

// afterSignIn is where somebody with a session goes: to where they wanted, but
// first to the choice if they have not said for which organization they are here. A
// hand-off asks for that itself, where the name of the host does not say it.
func (s *site) afterSignIn(who *session.Session, returnTo string) string {
	if _, handOff := s.wantIn(returnTo); handOff || !who.Identity.MustPick() {
		return returnTo
	}
	return s.choice(returnTo)
}

// choice is the page where people choose an organization before they go on.
func (s *site) choice(returnTo string) string {
	if returnTo == "/" {
		return s.path("organization")
	}
	return s.path("organization") + "?return_to=" + url.QueryEscape(returnTo)
}

// returnHere is the page that was asked for, or "/" where it cannot be returned to.
func (s *site) returnHere(ev *event, r *http.Request) string {
	if admission.KindOf(r) != admission.Navigation {
		return "/"
	}
	return s.returnTo(ev.facts.Target())
}

// referer is the page of ours that a request came from, else "/".
func (s *site) referer(r *http.Request) string {
	return admission.PageOf(s.returnTo(r.Header.Get("Referer")))
}

// openWindow answers a page in a frame that needs a sign-in: it has a link that
// signs in with the whole window. That comes back to the page around the frame if
// it is one of ours, else to returnTo.
func (s *site) openWindow(r *http.Request, returnTo string) error {
	if around := s.referer(r); around != "/" {
		returnTo = around
	}
	return &failure{Status: http.StatusUnauthorized, Cause: errors.New("framed page without a session"),
		Page: &pages.Page{Template: "framed", FramedBy: s.framers(r), Data: pages.Framed{SignInURL: s.login(returnTo)}}}
}

// framers are the origins whose frames may show the page that answers r. Only
// pages that know nobody and whose links lead out of the frame are shown so.
func (s *site) framers(r *http.Request) []string {
	if !admission.InFrame(r) {
		return nil
	}
	return append(s.origins(), s.origin)
}

// tryAgain gives a failure a page with a button that begins a sign-in.
func (s *site) tryAgain(f *failure, returnTo string) *failure {
	f.Page = &pages.Page{Template: "message", Data: pages.Message{Title: f.Title, Sentence: f.Sentence,
		Advice: f.Advice, ActionURL: s.login(returnTo), ActionText: "Try again"}}
	return f
}

// otherAccount gives a failure a page with a button that lets somebody choose with which
// account they sign in.
func (s *site) otherAccount(f *failure, returnTo string) *failure {
	f.Page = &pages.Page{Template: "message", Data: pages.Message{Title: f.Title, Sentence: f.Sentence,
		Advice: f.Advice, ActionURL: s.switchAccount(returnTo), ActionText: "Sign in with another account"}}
	return f
}

// loopCauses names what may keep the browser from having a session after a sign-in,
// the likeliest cause first. Found is what was read instead of a session, and seen
// the address that the browser used.
func (s *site) loopCauses(seen string, found error) []string {
	switch {
	case errors.Is(found, session.ErrExpired):
		return []string{"The session was over as soon as it began: " +
			"the clock of this server, or session.idle_timeout and session.absolute_timeout, may be wrong."}
	case errors.Is(found, session.ErrForged):
		return []string{"The session cookie was made with a key this server does not have. " +
			"If several copies of it run, they must share their session keys. " +
			"If another site on the same host name, at another port or path, signs people in with Sallyport too, " +
			"each needs a session.cookie_name of its own."}
	case errors.Is(found, session.ErrTwice):
		return []string{"The browser sends two session cookies. " +
			"Another site under the same domain may have set one; clear the cookies of this site."}
	case errors.Is(found, session.ErrOutdated):
		return []string{"The session was begun where other groups are kept. " +
			"If several copies of this server run, they must share groups.keep and the rules of their routes."}
	case errors.Is(found, session.ErrEnded):
		return []string{"The session was ended right after it began."}
	}
	causes := []string{"The browser did not keep the session cookie. " +
		"It may block cookies, or a proxy in between may remove them."}
	if s.scheme == "https" {
		causes = append(causes, "The page may be open over plain http: the cookie is only kept over https.")
	}
	if seen != s.origin {
		causes = append(causes, "public_url may not be the address people use: it is "+s.origin+".")
	}
	return causes
}

// returnOf is where the browser goes after f, "/" if f is for none of what brings one back.
func (s *site) returnOf(f session.Flow) string {
	want := ""
	switch {
	case signIn(f):
		want = f.Detail
	case f.Purpose == purposeStepUp:
		want = stepUpWant(f)
	case f.Purpose != purposeReauth:
		return "/"
	}
	if want != "" {
		return s.handOff(base64.RawURLEncoding.EncodeToString([]byte(want)))
	}
	return s.returnTo(f.ReturnTo)
}

// askToSignIn answers a request that needs a session and has none.
func (s *site) askToSignIn(w http.ResponseWriter, r *http.Request, ev *event) error {
	switch admission.KindOf(r) {
	case admission.Navigation:
		if admission.InFrame(r) {
			return s.openWindow(r, s.returnHere(ev, r))
		}
		w.Header().Set("Cache-Control", "no-store")
		redirect(w, http.StatusFound, s.login(ev.facts.Target()))
		return nil
	case admission.Form:
		// A redirect would turn the POST into a GET and lose what was typed.
		cause, other := errors.New("form without a session"), admission.FromOtherSite(r)
		if other {
			cause = admission.ErrFormOfOtherSite
		}
		return &failure{Status: http.StatusUnauthorized, Cause: cause,
			Page: &pages.Page{Template: "formlost", KeepsForm: true, FramedBy: s.framers(r),
				Data: pages.FormLost{SignInURL: s.login(s.referer(r)), OtherSite: other}}}
	}
	return s.unauthorized(w, r, ev)
}

// unauthorized tells a program where people sign in.
func (s *site) unauthorized(w http.ResponseWriter, r *http.Request, ev *event) error {
	login := s.login(s.referer(r))
	w.Header().Add("WWW-Authenticate", admission.CookieChallenge(login))
	writeError(w, r, http.StatusUnauthorized, admission.AskToSignIn(login, ev.RequestID))
	return nil
}

// orgChoices is the form with which a page offers orgs, nil if there are none.
func (s *site) orgChoices(orgs []identity.Org, returnTo string) *pages.OrgChoices {
	if len(orgs) == 0 {
		return nil
	}
	choices := &pages.OrgChoices{PostURL: s.path("organization"), ReturnTo: returnTo}
	for _, o := range orgs {
		note := o.Domain
		if note == "" && o.Name != "" {
			note = o.ID
		}
		choices.Orgs = append(choices.Orgs, pages.OrgChoice{ID: o.ID, Name: o.DisplayName(), Note: note})
	}
	return choices
}
