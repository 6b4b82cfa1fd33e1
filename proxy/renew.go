package proxy

import (
	"net/http"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/session"
)

// renewEndpoint gives a browser its session cookie anew, and leads it back to the page
// that it came from. Where another proxy asks Sallyport before each request, no answer of
// ours reaches the browser, so this is where such a page is sent now and then. What is
// otherwise done before a page is opened is done here too: the provider is asked again,
// and another host than the public one has its session handed over anew.
type renewEndpoint struct {
	own      *ownSessions
	handOffs *handOffs
}

// serve is for pages that are opened: a script would follow the redirects and not the
// person. It leads to a path of its own host that is none of our endpoints,
// so never back here.
func (e *renewEndpoint) serve(w http.ResponseWriter, r *http.Request, ev *event) error {
	at := e.own.site
	hopHeaders(w)
	if admission.KindOf(r) != admission.Navigation {
		return at.unauthorized(w, r, ev)
	}
	q, _ := readQuery(ev.facts.RawQuery)
	returnTo := session.ReturnTo(q.Get("return_to"), at.origin, at.prefix)
	s, err := e.own.read(r, ev)
	if err != nil {
		redirect(w, http.StatusFound, at.login(returnTo))
		return nil
	}
	if s.Identity.MustPick() || e.handOffs.unproven(at, &s, "", returnTo) != nil {
		// Not every proxy that asks passes on what is missing; the sign-in knows, and a page
		// that came here for that must not be led back to where it is missing.
		redirect(w, http.StatusFound, at.login(returnTo))
		return nil
	}
	s, renewed := e.own.sessions.Renew(s)
	if at.public == nil {
		if provider, due := e.handOffs.reauthDue(r, ev, &s, returnTo); due {
			return e.handOffs.leaveForReauth(w, r, ev, provider, &s, returnTo)
		}
	} else if e.handOffs.due(r, ev, at, &s, returnTo) {
		return e.handOffs.again(w, r, at, &s, returnTo)
	}
	if renewed {
		if err := e.own.sessions.Write(w, at.host, s); err != nil {
			ev.Note = "the cookie was not renewed: " + err.Error()
		}
	}
	redirect(w, http.StatusSeeOther, at.origin+returnTo)
	return nil
}
