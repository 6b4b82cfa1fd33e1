package extauthz

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

// leadOn answers a browser that was sent to a path of oauth2-proxy: it goes on to an
// endpoint of ours, which is on the public listener. Nothing is asked or changed here.
func (d *Door) leadOn(w http.ResponseWriter, r *http.Request, path string, from netip.Addr) {
	ev := &event{Event: observe.Event{Start: d.now(), Door: compatDialect.name, RequestID: observe.NewRequestID(),
		Client: from.String(), Method: r.Method, Host: r.Host, Path: "/oauth2/" + path, Route: observe.RouteOwn},
		header: w.Header()}
	if client := parseClient(optional(r.Header, "X-Real-Ip")); client.IsValid() {
		ev.Client = client.String()
	}
	a := newAnswer(http.StatusFound, ev)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		a.status = http.StatusSeeOther
	}
	to := d.signIn.leadsOn(path, r)
	a.header.Set("Location", to)
	a.header.Set("Referrer-Policy", "no-referrer")
	if path == "start" || path == "sign_in" {
		d.offerSignIn(a, ev, r, to)
	}
	a.writeTo(w, r)
	d.observe(r.Context(), ev, a)
}

// offerSignIn is for proxies that show this answer with another status, 401 or 403, with
// which browsers go nowhere by themselves.
func (d *Door) offerSignIn(a *answer, ev *event, r *http.Request, to string) {
	asked := &http.Request{Method: http.MethodGet, Header: r.Header}
	d.page(a, ev, asked, pages.Page{Template: "message", Data: pages.Message{Title: "This page needs a sign-in",
		Sentence:  "Sign in to go on. If you have just done that, this page is not for your account.",
		Advice:    "If you think it should be, ask the people who run this site and tell them the request id.",
		ActionURL: to, ActionText: "Sign in"}})
}

// leadsOn is the endpoint of ours for a path of oauth2-proxy. To sign in leads through
// renew, which gives a session that is still good a new cookie, and signs in who has none:
// the answer to a proxy that asks could not.
func (s *signIn) leadsOn(path string, r *http.Request) string {
	host, err := authz.CanonicalHost(r.Host)
	if err != nil {
		host = s.host
	}
	switch own := s.origin(host) + s.prefix; path {
	case "sign_out": // which asks first, and knows where the provider signs people out
		return own + "/logout"
	case "userinfo":
		return own + "/session"
	case "callback": // of a sign-in that oauth2-proxy began, which it cannot end any more
		return own + "/login"
	}
	origin, returnTo := s.comesBack(host, r)
	if returnTo == "/" {
		return origin + s.prefix + "/renew"
	}
	return origin + s.prefix + "/renew?return_to=" + url.QueryEscape(returnTo)
}

// comesBack is where a browser that was on host is to be sent back to: by the parameter rd,
// else by the header that nginx sets.
func (s *signIn) comesBack(host string, r *http.Request) (origin, path string) {
	_, query, _ := strings.Cut(r.RequestURI, "?")
	asked := redirects(query)
	if asked == nil {
		asked = r.Header["X-Auth-Request-Redirect"]
	}
	for _, rd := range asked {
		if origin, path, ok := s.place(host, rd); ok {
			return origin, path
		}
	}
	return s.origin(host), "/"
}

// place is where rd leads, by the rule for all addresses to which a browser is sent back
// (session.ReturnTo): a path of host, or of another host for which people sign in here,
// whose own login judges it once more. Of an address with a host, only its name counts:
// $scheme and $host of a proxy need not have the public scheme and port.
func (s *signIn) place(host, rd string) (origin, path string, ok bool) {
	if scheme, rest, absolute := strings.Cut(rd, "://"); absolute && (strings.EqualFold(scheme, "https") ||
		strings.EqualFold(scheme, "http")) {
		end := strings.IndexAny(rest, `/\?#`)
		if end < 0 {
			rest, end = rest+"/", len(rest)
		}
		other, err := authz.CanonicalHost(rest[:end])
		if err != nil || other != s.host && !s.table.SignsIn(other) {
			return "", "", false
		}
		host, rd = other, rest[end:]
	}
	origin = s.origin(host)
	if path = session.ReturnTo(rd, origin, s.prefix); path != rd {
		return "", "", false
	}
	if before, _, _ := strings.Cut(path, "#"); leadsHere(before) {
		return "", "", false
	}
	return origin, path, true
}

// leadsHere reports whether a path is one from which a browser would be sent on again.
func leadsHere(path string) bool {
	_, is := compatPath(path)
	return is
}

// redirects are the readings of the parameter rd in a query, the likelier one first; nil
// if there is none. Many proxies write an address into it as it stands, and its own query
// is then the rest of this one. Others escape all of it, or its path.
func redirects(query string) []string {
	for rest := query; rest != ""; {
		pair, after, _ := strings.Cut(rest, "&")
		name, value, _ := strings.Cut(pair, "=")
		if name != "rd" {
			rest = after
			continue
		}
		if strings.Contains(value, "?") {
			return []string{rest[len("rd="):]}
		}
		plain, err := url.QueryUnescape(value)
		if err != nil || plain == value {
			return []string{value}
		}
		return []string{plain, value}
	}
	return nil
}
