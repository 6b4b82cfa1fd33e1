package proxy

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/session"
)

// serveOwn answers requests under the prefix; path is what follows it.
func (p *Proxy) serveOwn(w http.ResponseWriter, r *http.Request, ev *event, path string) error {
	if ev.dotted && admission.KindOf(r) == admission.Navigation { // a sign-in that begins there could not end at the public origin
		w.Header().Set("Cache-Control", "no-store")
		redirect(w, http.StatusFound, p.origin+ev.facts.Target())
		return nil
	}
	if id, ok := strings.CutPrefix(path, "callback/"); ok {
		return get(r, func() error { return p.callback(w, r, ev, id) })
	}
	switch path {
	case "login":
		return get(r, func() error { return p.login(w, r, ev) })
	case "logout":
		if r.Method == http.MethodPost {
			return p.signOut(w, r, ev)
		}
		return get(r, func() error { return p.confirmSignOut(w, r, ev) })
	case "account":
		return get(r, func() error { return p.account(w, r, ev) })
	case "organization":
		if r.Method == http.MethodPost {
			return p.switchOrg(w, r, ev)
		}
		return get(r, func() error { return p.chooseOrg(w, r, ev) })
	case "session":
		return get(r, func() error { return p.sessionInfo(w, r, ev) })
	case "jwks.json":
		return get(r, func() error { return p.jwks(w, r) })
	case markPath:
		return get(r, func() error { return servePicture(w, r, "image/svg+xml", p.mark) })
	case "logo":
		if p.branding.Logo != nil {
			return get(r, func() error { return servePicture(w, r, p.branding.LogoType, p.branding.Logo) })
		}
	}
	return &failure{Status: http.StatusNotFound, Cause: errors.New("no such endpoint")}
}

// get lets GET and HEAD through.
func get(r *http.Request, serve func() error) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return serve()
	}
	return &failure{Status: http.StatusMethodNotAllowed, Allow: "GET, HEAD", Cause: errors.New("method refused")}
}

// askToSignIn answers a request that needs a session and has none.
func (p *Proxy) askToSignIn(w http.ResponseWriter, r *http.Request, ev *event) error {
	switch admission.KindOf(r) {
	case admission.Navigation:
		if admission.InFrame(r) {
			return p.openWindow(r, p.returnHere(ev, r))
		}
		w.Header().Set("Cache-Control", "no-store")
		redirect(w, http.StatusFound, p.loginURL(ev.facts.Target()))
		return nil
	case admission.Form:
		// A redirect would turn the POST into a GET and lose what was typed.
		return &failure{Status: http.StatusUnauthorized, Cause: errors.New("form without a session"),
			Page: &page{Template: "formlost", KeepsForm: true, FramedBy: p.framers(r), Data: formlostData{SignInURL: p.loginURL(p.referer(r))}}}
	}
	return p.unauthorized(w, r, ev)
}

// unauthorized tells a program where people sign in. The challenge names the
// cookie scheme: Basic would make browsers ask for a password.
func (p *Proxy) unauthorized(w http.ResponseWriter, r *http.Request, ev *event) error {
	login := p.loginURL(p.referer(r))
	w.Header().Add("WWW-Authenticate", `Cookie realm="sallyport", form-action="`+login+`"`)
	writeError(w, r, http.StatusUnauthorized, map[string]string{
		"error": "login_required", "message": "Sign in at login_url, then try again.",
		"login_url": login, "request_id": ev.requestID})
	return nil
}

// loginURL is always on the public origin: the flow cookie of a sign-in that
// began at http://, or at a host with a dot at its end, would not be there when
// the provider sends the browser back.
//
// It leaves out an address too long to be returned to: escaped, it could make the
// link longer than a target may be, and nobody could sign in from it.
func (p *Proxy) loginURL(returnTo string) string {
	if returnTo == "/" || len(returnTo) > session.MaxReturnTo {
		return p.origin + p.prefix + "/login"
	}
	return p.origin + p.prefix + "/login?return_to=" + url.QueryEscape(returnTo)
}

// readQuery reads a query as browsers and providers write it: pairs between "&",
// in which ";" is a letter like any other (URL Standard, form-urlencoded). What
// cannot be decoded stands as it came: a bare "%" in a text for people must not
// hide the parameters beside it. Those named in exact must be right.
func readQuery(raw string, exact ...string) (url.Values, error) {
	q := url.Values{}
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		if pair == "" {
			continue
		}
		plain, err := url.QueryUnescape(value)
		if err != nil && slices.Contains(exact, name) {
			return nil, err
		}
		if err == nil {
			value = plain
		}
		q.Add(name, value)
	}
	return q, nil
}

// referer is the page of ours that a request came from, else "/". What a worker
// fetches, and what a style sheet loads, has the script or the style sheet for
// its Referer: that is no place to bring somebody back to.
func (p *Proxy) referer(r *http.Request) string {
	from := session.ReturnTo(r.Header.Get("Referer"), p.origin, p.prefix)
	path, _, _ := strings.Cut(from, "?")
	path, _, _ = strings.Cut(path, "#")
	for _, ending := range [...]string{".js", ".mjs", ".cjs", ".css", ".wasm"} {
		if strings.HasSuffix(strings.ToLower(path), ending) {
			return "/"
		}
	}
	return from
}

// openWindow answers a page in a frame that needs a sign-in: it has a link that
// signs in with the whole window. That comes back to the page around the frame if
// it is one of ours, else to returnTo.
func (p *Proxy) openWindow(r *http.Request, returnTo string) error {
	if around := p.referer(r); around != "/" {
		returnTo = around
	}
	return &failure{Status: http.StatusUnauthorized, Cause: errors.New("framed page without a session"),
		Page: &page{Template: "framed", FramedBy: p.framers(r), Data: framedData{SignInURL: p.loginURL(returnTo)}}}
}

// framers are the origins whose frames may show the page that answers r. Only
// pages that know nobody and whose links lead out of the frame are shown so.
func (p *Proxy) framers(r *http.Request) []string {
	if !admission.InFrame(r) {
		return nil
	}
	return []string{p.origin}
}

// redirect writes the Location as it is; http.Redirect would clean paths.
func redirect(w http.ResponseWriter, status int, location string) {
	w.Header().Set("Location", location)
	w.WriteHeader(status)
}

// jwks is public. Five minutes is well under the ten that a new key rests.
func (p *Proxy) jwks(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "application/jwk-set+json")
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodHead {
		return nil
	}
	_, _ = w.Write(p.assertions.JWKS()) // the client is gone if this fails
	return nil
}

// servePicture serves our mark or the operator's logo. An SVG that is opened by
// itself must not run scripts.
func servePicture(w http.ResponseWriter, r *http.Request, kind string, picture []byte) error {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "public, max-age=3600")
	if r.Method == http.MethodHead {
		return nil
	}
	_, _ = w.Write(picture) // the client is gone if this fails
	return nil
}
