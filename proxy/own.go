package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
)

// handler answers requests for one own endpoint.
type handler func(w http.ResponseWriter, r *http.Request, ev *event) error

// endpoint is one of our own, with what answers GET and HEAD, and what answers
// POST; nil: nothing does. A path may end in a "{name}" for the last segments, or have one
// in its middle for one segment.
type endpoint struct {
	path      string
	get, post handler
	leadsOn   bool // takes GET alone: what else a request brings would be lost on its way
	absent    bool // there is none: see ErrNotMounted
}

// ErrNotMounted is why an address of ours is answered with 404 that other configurations, or
// the same with its store, have.
var ErrNotMounted = errors.New("an address of Sallyport's own that needs the store, or what is not configured")

// allow is the header that goes with 405.
func (e endpoint) allow() string {
	switch {
	case e.leadsOn:
		return "GET"
	case e.post == nil:
		return "GET, HEAD"
	case e.get == nil:
		return "POST"
	}
	return "GET, HEAD, POST"
}

// mounted are the endpoints by path; those that end in a "{name}" by the path before it.
type mounted struct {
	whole    map[string]endpoint
	prefixed map[string]endpoint
	around   []aroundName // those that go on behind the name
}

// aroundName is an endpoint whose path has a name between before and after.
type aroundName struct {
	before, name, after string
	endpoint
}

func mount(all []endpoint) mounted {
	m := mounted{whole: map[string]endpoint{}, prefixed: map[string]endpoint{}}
	for _, e := range all {
		before, rest, named := strings.Cut(e.path, "{")
		name, after, _ := strings.Cut(rest, "}")
		switch {
		case !named:
			m.whole[e.path] = e
		case after == "":
			m.prefixed[before] = e
		default:
			m.around = append(m.around, aroundName{before, name, after, e})
		}
	}
	return m
}

// find returns the endpoint at a path, and sets the value of its name in r.
func (m mounted) find(r *http.Request, path string) (endpoint, bool) {
	if e, ok := m.whole[path]; ok {
		return e, true
	}
	for _, e := range m.around {
		rest, begins := strings.CutPrefix(path, e.before)
		value, ends := strings.CutSuffix(rest, e.after)
		if begins && ends && value != "" && !strings.Contains(value, "/") {
			r.SetPathValue(e.name, value)
			return e.endpoint, true
		}
	}
	for before, e := range m.prefixed {
		if rest, ok := strings.CutPrefix(path, before); ok {
			r.SetPathValue(strings.Trim(e.path[len(before):], "{}"), rest)
			return e, true
		}
	}
	return endpoint{}, false
}

// endpoints are all that there are, below the prefix; docs/reference.md lists them.
func (p *Proxy) endpoints(o *Options) ([]endpoint, error) {
	mark, err := pages.Mark()
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	own := &ownSessions{process: p.Process, site: p.site, admission: o.Admission, sessions: o.Sessions,
		maxAge: o.MaxAge}
	p.signIns = &signIns{process: p.Process, site: p.site, sessions: o.Sessions, providers: o.Providers,
		maxFlows: o.MaxFlows, flowTime: flowTime, peers: p.peers, keepCache: o.KeepCache}
	signIns := p.signIns
	signIn := &signInEndpoint{signIns: signIns, own: own, pages: p.pages}
	callback := &callbackEndpoint{signIns: signIns, own: own, orgs: o.Orgs, listing: o.Listing, lender: o.Lender}
	signOut := &signOutEndpoint{own: own, site: p.site, providers: o.Providers, pages: p.pages, keepCache: o.KeepCache,
		durable: o.Durable}
	list := &personList{process: p.Process, listing: o.Listing}
	directory := &directoryEndpoint{own: own, site: p.site, providers: o.Providers, pages: p.pages, kept: o.OrgKeeper,
		once: o.Once}
	account := &accountEndpoint{own: own, directory: directory, site: p.site, providers: o.Providers,
		pages: p.pages, list: list, durable: o.Durable, permission: o.Permission, lender: o.Lender,
		operators: &authz.Route{Name: "operators", Access: authz.Access{Rules: o.Operators}}}
	organization := &organizationEndpoint{own: own, site: p.site, providers: o.Providers, pages: p.pages,
		keepCache: o.KeepCache, lender: o.Lender}
	handOff := &handOffEndpoint{signIn: signIn, own: own, orgs: o.Orgs}
	p.handOffs = &handOffs{signIns: signIns, admission: o.Admission, once: o.Once, signOut: *signOut,
		maxAge: o.MaxAge}
	connect := &connectEndpoint{own: own, site: p.site, providers: o.Providers, pages: p.pages, lender: o.Lender,
		once: o.Once}
	disconnect := &disconnectEndpoint{own: own, site: p.site, pages: p.pages, lender: o.Lender}
	webhooks := &webhookEndpoint{process: p.Process, webhooks: o.Webhooks, peers: p.peers}
	noDirectory := o.OrgKeeper == nil ||
		!slices.ContainsFunc(o.Providers, func(p Provider) bool { return p.Directory != nil })
	all := []endpoint{
		{path: "login", get: signIn.serve},
		{path: "callback/{provider}", get: callback.serve},
		{path: "logout", get: signOut.confirm, post: signOut.do},
		{path: "account", get: account.serve},
		{path: "organization", get: organization.ask, post: organization.pick},
		{path: "handoff", get: handOff.serve, leadsOn: true},
		{path: "session", get: (&sessionEndpoint{own: own, site: p.site}).serve},
		{path: "renew", get: (&renewEndpoint{own: own, handOffs: p.handOffs}).serve, leadsOn: true},
		{path: "jwks.json", get: (&keysEndpoint{o.Assertions}).serve},
		{path: pages.MarkPath, get: (&picture{"image/svg+xml", mark}).serve},
		{path: "backchannel-logout/{provider}", post: newBackchannelEndpoint(p.Process, o.Sessions, o.Providers).serve,
			absent: !o.Durable},
		{path: "sessions/end", post: (&endSessionEndpoint{own: own, site: p.site, list: list, signOut: signOut}).serve,
			absent: o.Listing == nil},
		{path: "connect/{connector}", get: connect.ask, post: connect.answer, absent: o.Lender == nil},
		{path: "connect/{connector}/callback", get: connect.callback, leadsOn: true, absent: o.Lender == nil},
		{path: "disconnect/{connector}", post: disconnect.serve, absent: o.Lender == nil},
		{path: "directory/{provider}", post: directory.ask, absent: noDirectory},
		{path: "directory/{provider}/callback", get: directory.callback, leadsOn: true, absent: noDirectory},
		{path: "webhooks/{connector}", post: webhooks.serve, absent: o.Webhooks == nil},
	}
	if o.Branding.Logo != nil {
		all = append(all, endpoint{path: "logo", get: (&picture{o.Branding.LogoType, o.Branding.Logo}).serve})
	}
	return all, nil
}

// serveOwn answers requests under the prefix of a site; path is what follows it.
func (p *Proxy) serveOwn(w http.ResponseWriter, r *http.Request, ev *event, path string, at *site) error {
	if ev.dotted && admission.KindOf(r) == admission.Navigation {
		// A sign-in that begins at the dotted name could not end at the public origin.
		w.Header().Set("Cache-Control", "no-store")
		redirect(w, http.StatusFound, at.origin+ev.facts.Target())
		return nil
	}
	own := p.own
	if at.public != nil {
		own = p.handOffs.endpoints(at)
	}
	e, ok := own.find(r, path)
	switch {
	case !ok:
		return &failure{Status: http.StatusNotFound, Cause: errors.New("no such endpoint")}
	case e.absent:
		return &failure{Status: http.StatusNotFound, Cause: ErrNotMounted}
	case e.get != nil && (r.Method == http.MethodGet || r.Method == http.MethodHead && !e.leadsOn):
		return e.get(w, r, ev)
	case e.post != nil && r.Method == http.MethodPost:
		return e.post(w, r, ev)
	}
	return &failure{Status: http.StatusMethodNotAllowed, Allow: e.allow(), Cause: errors.New("method refused")}
}

// readQuery reads a query as browsers and providers write it: pairs between "&",
// in which ";" has no meaning (URL Standard, form-urlencoded). A value that cannot
// be decoded is kept as it came: a bare "%" in a text for people must not hide the
// other parameters. Parameters named in exact must be valid.
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

// keysEndpoint serves the public keys of assertions. They may be cached for five
// minutes; a new key signs only ten minutes after it was published.
type keysEndpoint struct{ assertions *assertion.Signer }

func (e *keysEndpoint) serve(w http.ResponseWriter, r *http.Request, _ *event) error {
	h := w.Header()
	h.Set("Content-Type", "application/jwk-set+json")
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodHead {
		return nil
	}
	_, _ = w.Write(e.assertions.JWKS()) // the client is gone if this fails
	return nil
}

// picture is our mark or the operator's logo. An SVG that is opened by itself must
// not run scripts.
type picture struct {
	kind  string // its media type
	bytes []byte
}

func (e *picture) serve(w http.ResponseWriter, r *http.Request, _ *event) error {
	h := w.Header()
	h.Set("Content-Type", e.kind)
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "public, max-age=3600")
	if r.Method == http.MethodHead {
		return nil
	}
	_, _ = w.Write(e.bytes) // the client is gone if this fails
	return nil
}
