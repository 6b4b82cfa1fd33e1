package admission

import (
	"errors"
	"net/http"

	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/session"
)

// renderedBytes bounds the rendered headers that are kept: about 1 KiB for a
// session on a route.
const renderedBytes = 16 << 20

type renderKey struct {
	principal string
	route     *Route
}

// renderHeaders renders the headers and signs the assertion that tell the app who
// asks. The identity of a session or a token never changes, so its headers are
// rendered once. Where they come to more than most bytes (0: there is no limit), they are
// made anew as if the groups were not known: to leave out some would be to tell less than
// there is.
func (a *Admission) renderHeaders(ans *Answer, most int) error {
	p := ans.Principal
	if p == nil {
		return nil
	}
	if err := a.render(ans, p.Key, p.Identity); err != nil {
		return err
	}
	if most == 0 || ans.size() <= most {
		return nil
	}
	short := *p.Identity
	short.Groups, short.GroupsUnknown, short.GroupsDropped = nil, true, true
	if err := a.render(ans, p.Key+" without groups", &short); err != nil {
		return err
	}
	if ans.size() > most {
		return errTooMuchToTell
	}
	return nil
}

var errTooMuchToTell = errors.New("what the app is to be told about a person is too long")

// render fills ans with what the app is told about id, which is known by key.
func (a *Admission) render(ans *Answer, key string, id *identity.Identity) (err error) {
	about := assertion.Caller{Key: key, Identity: id, End: ans.Principal.Expires}
	if s := ans.Principal.Session; s != nil {
		about.SID, about.Since = s.SID(), s.SignedIn
	}
	if ans.assertion, err = a.assertions.Sign(about, ans.Route.Name); err != nil {
		return err
	}
	at := renderKey{key, ans.Route}
	rendered, ok := a.rendered.Get(at)
	if !ok {
		rendered = ans.Route.Headers.Render(id)
		a.rendered.Put(at, rendered, rendered.Size()+200) // 200: the key and its place in the map, about
	}
	ans.headers = rendered
	return nil
}

// size is about how many bytes the app is told.
func (ans *Answer) size() int { return ans.headers.Size() + len(ans.assertion[0]) }

// SetHeaders writes into h, which Admit has stripped, what the app is told, and
// takes out what was meant for Sallyport alone: its cookies, and an access token. Where the
// app is given credentials of ours, a client's own go too.
func (ans *Answer) SetHeaders(h http.Header) {
	if lines := h["Cookie"]; lines != nil {
		if lines = session.StripCookies(lines); len(lines) == 0 {
			delete(h, "Cookie")
		} else {
			h["Cookie"] = lines
		}
	}
	if ans.TakesToken || ans.Route.Headers.DropsAuthorization() {
		delete(h, "Authorization")
	}
	if ans.Principal != nil {
		ans.headers.Set(h)
		h[identity.AssertionHeader] = ans.assertion
	}
}
