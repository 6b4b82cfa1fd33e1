package extauthz

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
)

// Proxies that were set up for oauth2-proxy ask at its paths, and send browsers to others
// of them, which are one listener's there (compatpaths.go):
//
//	/oauth2/auth         one more dialect: 200, 401 without Location, 403
//	/oauth2/start, …     lead to our own endpoints, and set no cookie
//
// What such a set-up does not say, a client can: it passes on the headers that the proxy
// does not overwrite. So the method, which oauth2-proxy does not ask for, is not known
// here, and a target counts only if all that name one agree (CVE-2026-40575).
var compatDialect = &dialect{name: "oauth2-proxy"}

// compatPath is what follows /oauth2/ in a request target, if that is one of oauth2-proxy's
// paths.
func compatPath(target string) (path string, ok bool) {
	path, _, _ = strings.Cut(target, "?")
	if path, ok = strings.CutPrefix(path, "/oauth2/"); !ok {
		return "", false
	}
	switch path {
	case "auth", "start", "sign_in", "sign_out", "userinfo", "callback":
		return path, true
	}
	return "", false
}

// errNoTarget is answered with 401, as oauth2-proxy would answer whom it does not know.
var errNoTarget = errors.New("the proxy does not say which address is asked for: let it set X-Original-URL to " +
	"$scheme://$http_host$request_uri")

// askCompat reads a question at /oauth2/auth.
func (d *Door) askCompat(r *http.Request) (q question, err error) {
	_, query, _ := strings.Cut(r.RequestURI, "?")
	demands, err := readDemands(query)
	if err != nil {
		return q, err
	}
	l, err := d.compatLine(r)
	if err != nil {
		return q, err
	}
	said := l.method
	l.method = cmp.Or(said, likelyMethod(r.Header))
	if q, err = compatDialect.question(d, l, r.Header); err != nil {
		return q, err
	}
	if authz.NamesDestination(said) || q.header[identity.DestinationHeader] != nil {
		return q, errors.New("COPY and MOVE cannot be judged where the method is not known: ask at /verify or /forward")
	}
	q.demands, q.facts.Method = demands, ""
	_, q.ownCompat = compatPath(q.facts.Path)
	return q, nil
}

// likelyMethod is what a request of which the method is not known may be. It decides which
// words are answered, and whether a page is sent to renew its session.
func likelyMethod(h http.Header) string {
	if h["Content-Type"] != nil || h["Origin"] != nil { // as forms have
		return http.MethodPost
	}
	return http.MethodGet
}

// compatLine is the request line, as far as the proxy tells it.
//
//	X-Original-URL                        nginx, ingress-nginx
//	X-Forwarded-Uri, X-Forwarded-Host     Traefik, Caddy
//	X-Forwarded-Uri, Host                 nginx as oauth2-proxy documents it
//	X-Original-URI, Host                  nginx as it was documented before
//
// A proxy of one of these kinds may pass on what a client says in the words of another, so
// all that are there must name the same host and the same target. Host counts among them
// only if it is a route's: it can be the name of this listener, too.
func (d *Door) compatLine(r *http.Request) (l line, err error) {
	h := r.Header
	var said []line
	if h["X-Original-Url"] != nil {
		if err := l.readAddress(h); err != nil {
			return l, err
		}
		said = append(said, line{host: l.host, target: l.target})
	}
	for _, name := range [...]string{"X-Forwarded-Uri", "X-Original-Uri"} {
		if h[name] == nil {
			continue
		}
		var other line
		if other.target, err = one(h, name); err != nil {
			return l, err
		}
		if name == "X-Forwarded-Uri" && h["X-Forwarded-Host"] != nil {
			if other.host, err = single(h, "X-Forwarded-Host"); err != nil {
				return l, err
			}
		}
		said = append(said, other)
		if host, err := authz.CanonicalHost(r.Host); err == nil && d.signIn.table.Serves(host) {
			said = append(said, line{host: r.Host, target: other.target})
		}
	}
	if len(said) == 0 {
		return l, errNoTarget
	}
	if l.host, err = agreed(said); err != nil {
		return l, err
	}
	l.host, l.target = d.withPort(cmp.Or(l.host, r.Host)), said[0].target
	l.scheme = cmp.Or(l.scheme, optional(h, "X-Forwarded-Proto"), d.signIn.scheme)
	l.client = optional(h, "X-Real-Ip") // which all of these set
	l.method, err = claimedMethod(h)
	return l, err
}

// agreed is the host that all that was said names, "" if none was named.
func agreed(said []line) (string, error) {
	first, canonical := "", ""
	for _, l := range said {
		if l.target != said[0].target {
			return "", errors.New("the proxy, or a client whose headers it passes on, names two targets")
		}
		if l.host == "" {
			continue
		}
		host, err := authz.CanonicalHost(l.host)
		if err != nil {
			return "", err
		}
		if canonical != "" && host != canonical {
			return "", fmt.Errorf("the proxy, or a client whose headers it passes on, names two hosts, %.100q and "+
				"%.100q", canonical, host)
		}
		if canonical = host; first == "" {
			first = l.host
		}
	}
	return first, nil
}

// withPort gives a host without a port that of the public URL, which all hosts have:
// nginx's $host has none, and without it no Origin would be the page's own.
func (d *Door) withPort(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.Contains(host[i:], "]") {
		return host
	}
	return host + d.signIn.port
}

// claimedMethod is what the header says of the method; "": nothing.
func claimedMethod(h http.Header) (method string, err error) {
	for _, name := range [...]string{"X-Original-Method", "X-Forwarded-Method"} {
		if h[name] == nil {
			continue
		}
		said, err := single(h, name)
		if err != nil {
			return "", err
		}
		if method != "" && said != method {
			return "", errors.New("the proxy, or a client whose headers it passes on, names two methods")
		}
		method = said
	}
	return method, nil
}

// readDemands reads the parameters of /oauth2/auth: each is one more demand, so that what
// a client's query adds to them (Caddy, CVE-2026-41059) can only take away.
func readDemands(query string) (demands []authz.Rule, err error) {
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		if name, err = url.QueryUnescape(name); err != nil {
			return nil, fmt.Errorf("the query: %w", err)
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return nil, fmt.Errorf("the parameter %.40q: %w", name, err)
		}
		rule, err := demand(name, value)
		if err != nil {
			return nil, err
		}
		demands = append(demands, rule)
	}
	return demands, nil
}

// demand is the rule of one parameter. It asks for one of those that the value lists.
func demand(name, value string) (rule authz.Rule, err error) {
	var list []string
	for entry := range strings.SplitSeq(value, ",") {
		if entry != "" {
			list = append(list, entry)
		}
	}
	switch name {
	case "allowed_groups":
		rule.Groups = list
	case "allowed_emails":
		rule.Emails = list
	case "allowed_email_domains":
		rule.EmailDomains = list
		for _, domain := range list {
			if strings.ContainsAny(domain, "*") || domain[0] == '.' {
				return rule, fmt.Errorf("allowed_email_domains: %.100q: name each domain by itself", domain)
			}
		}
	default:
		return rule, fmt.Errorf("the parameter %.40q has no meaning here: what else is to hold belongs in "+
			"routes[].allow (people: subjects). If it is of the client's query, the proxy must leave that out: in "+
			"Caddy end the uri with a question mark", name)
	}
	if len(list) == 0 {
		return rule, fmt.Errorf("%s lists nobody", name)
	}
	return rule, nil
}

// mostTold is how much an app is told about a person, by the headers of its route. The
// names of oauth2-proxy take as much once more.
func (by *dialect) mostTold() int {
	if by == compatDialect {
		return maxTold / 2
	}
	return maxTold
}

// CompatFields are what oauth2-proxy answers a proxy with, in its meaning: the user is the
// subject at the provider, which is one person's only where there is one provider, and
// GAP-Auth is the e-mail address, or the user of whom none is known (see setCompat).
func CompatFields(providers int) []identity.Field {
	user := identity.ClaimSubject
	if providers > 1 {
		user = identity.ClaimUser
	}
	return []identity.Field{
		{Header: compatUser, Claim: user},
		{Header: "X-Auth-Request-Email", Claim: identity.ClaimEmail},
		{Header: "X-Auth-Request-Groups", Claim: identity.ClaimGroups},
		{Header: "X-Auth-Request-Preferred-Username", Claim: identity.ClaimUsername},
		{Header: compatGAP, Claim: identity.ClaimEmail},
	}
}

const compatUser, compatGAP = "X-Auth-Request-User", "Gap-Auth"

// setCompat writes what oauth2-proxy would tell, but for what the route tells itself.
func (d *Door) setCompat(h http.Header, admitted *admission.Answer) {
	if admitted.Principal == nil {
		return
	}
	who := *admitted.Principal.Identity
	rendered := d.compat.Render(&who)
	if rendered.Size() > maxTold/2 {
		who.Groups, who.GroupsUnknown = nil, true
		rendered = d.compat.Render(&who)
	}
	all := http.Header{}
	rendered.Set(all)
	if all[compatGAP] == nil {
		all[compatGAP] = all[compatUser]
	}
	for _, name := range d.compat.Without(admitted.Route.Headers).Names() {
		if lines := all[name]; lines != nil {
			h[name] = lines
		}
	}
}

// nothingAsked is for a question without a target.
func (d *Door) nothingAsked(ev *event) *answer {
	a := newAnswer(http.StatusUnauthorized, ev)
	a.header.Set("X-Sallyport-Asker", askerProgram)
	a.header.Set("WWW-Authenticate",
		admission.CookieChallenge(d.signIn.login(authz.Facts{Host: d.signIn.host}, "/")))
	return a
}
