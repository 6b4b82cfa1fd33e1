package extauthz

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/session"
)

// signIn knows where people sign in for each host. Those addresses are the front door's
// for browsers: the proxy that asks routes the prefix of each of its hosts there.
type signIn struct {
	scheme, host, port string // of the public URL
	prefix             string
	table              *authz.Table
}

func newSignIn(public *url.URL, prefix string, table *authz.Table) (*signIn, error) {
	host, err := authz.CanonicalHost(public.Host)
	if err != nil {
		return nil, fmt.Errorf("public URL: %w", err)
	}
	return &signIn{scheme: public.Scheme, host: host, port: strings.TrimPrefix(public.Host, host), prefix: prefix,
		table: table}, nil
}

// origin is the site of a host as browsers have it. What the proxy says of scheme and port
// does not count: cookies are only kept at the origins that public_url implies.
func (s *signIn) origin(host string) string {
	if !s.table.SignsIn(host) {
		host = s.host
	}
	return s.scheme + "://" + host + s.port
}

// isPageOf reports whether origin is that of pages of the host of f, as browsers have it where
// TLS ends before the proxy, which names http then. A page of https may do what one of the
// same host and http may.
func (s *signIn) isPageOf(f authz.Facts, origin string) bool {
	return s.scheme == "https" && origin == s.scheme+"://"+f.Host+s.port
}

// login is where somebody signs in for the host of f, to be sent back to a path of it. Of
// another host than the public one it is that host's own, which hands a session over from
// there. A path that is too long to be returned to is left out.
func (s *signIn) login(f authz.Facts, returnTo string) string {
	origin := s.origin(f.Host)
	if returnTo = session.ReturnTo(returnTo, origin, s.prefix); returnTo == "/" {
		return origin + s.prefix + "/login"
	}
	return origin + s.prefix + "/login?return_to=" + url.QueryEscape(returnTo)
}

// stepUp is where somebody who is signed in proves again who they are, for a route, to be
// sent back to a path of the host of f.
func (s *signIn) stepUp(f authz.Facts, route, returnTo string) string {
	return admission.StepUpAt(s.login(f, returnTo), route)
}

// referer is the page of the same host that a request came from, else "/".
func (s *signIn) referer(q *question) string {
	return admission.PageOf(session.ReturnTo(q.header.Get("Referer"), s.origin(q.facts.Host), s.prefix))
}

// framers are the origins whose frames may show a page that leads out of the frame.
func (s *signIn) framers(f authz.Facts) []string {
	return []string{s.origin(f.Host), s.origin(s.host)}
}
