package admission

import (
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
// rendered once.
func (a *Admission) renderHeaders(ans *Answer) (err error) {
	p := ans.Principal
	if p == nil {
		return nil
	}
	about := assertion.Caller{Key: p.Key, Identity: p.Identity, End: p.Expires}
	if p.Session != nil {
		about.SID = p.Session.SID()
	}
	if ans.assertion, err = a.assertions.Sign(about, ans.Route.Name); err != nil {
		return err
	}
	key := renderKey{p.Key, ans.Route}
	rendered, ok := a.rendered.Get(key)
	if !ok {
		rendered = ans.Route.Headers.Render(p.Identity)
		a.rendered.Put(key, rendered, rendered.Size()+200) // 200: the key and its place in the map, about
	}
	ans.headers = rendered
	return nil
}

// SetHeaders writes into h, which Admit has stripped, what the app is told, and
// takes out what was meant for Sallyport alone: its cookies, and an access token.
func (ans *Answer) SetHeaders(h http.Header) {
	if lines := h["Cookie"]; lines != nil {
		if lines = session.StripCookies(lines); len(lines) == 0 {
			delete(h, "Cookie")
		} else {
			h["Cookie"] = lines
		}
	}
	if ans.TakesToken {
		delete(h, "Authorization")
	}
	if ans.Principal != nil {
		ans.headers.Set(h)
		h[identity.AssertionHeader] = []string{ans.assertion}
	}
}
