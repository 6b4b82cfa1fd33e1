package authz

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/identity"
)

// Route is a part of a site and who may have it.
type Route struct {
	Name string
	// Host is a canonical name, "*.example.com" for the names one or more labels
	// below, or "{org}.example.com" for one name for each of Orgs, whose own it is.
	Host string
	Orgs []string // organizations by id
	// Path is canonical. It covers itself and the segments below it ("/admin"
	// covers "/admin/x", not "/administrator"), or only itself if Exact.
	Path  string
	Exact bool
	// Encoded lets an escaped "/", "%", "#", "?" or ";" in a path pass, and letters
	// that are not UTF-8; Doubled lets two slashes in a row pass.
	Encoded, Doubled bool

	Access    Access
	WebSocket WebSocket
	// Proof is how recently, and by which means, whom Access admits must have proved
	// who they are.
	Proof identity.Proof

	place int
}

// Place is where in Table.Routes the route is, for what others keep about each.
func (r *Route) Place() int { return r.place }

// WebSocket says whether a route carries WebSockets, and from which pages beside
// those of its own origin.
type WebSocket struct {
	Allowed bool
	Origins []string // scheme://host[:port], lower case
}

// ErrNoRoute is what Lookup finds instead of a route. It denies.
var ErrNoRoute = errors.New("no route")

// ErrAmbiguous: a more lenient reader than we are would see another route.
var ErrAmbiguous error = &TargetError{"it could be read as another route's",
	"The address is nearly that of another part of this site. Some programs would take it for that: " +
		"those that ignore capital letters, or blanks, dots and other signs.",
	"Capital letters count here. " + adviceLinks}

// ConflictError names two routes, by their place in the list, that claim the
// same requests.
type ConflictError struct {
	First, Second int
	Why           string
}

func (e *ConflictError) Error() string { return e.Why }

// RouteError is a fault in one route.
type RouteError struct {
	Route int    // its place in the list
	Field string // "host" or "path"
	Why   string
}

func (e *RouteError) Error() string { return e.Why }

// Table finds the route of a request. It is immutable and safe for concurrent use.
type Table struct {
	routes []Route
	hosts  map[string]*site
	wild   []*site // longest suffix first
}

// site is the routes of one host.
type site struct {
	suffix  string // of a wildcard: ".example.com"
	exact   map[string]*Route
	below   map[string]*Route
	lenient *site // the same, keyed by the lenient reading
	ascii   bool  // so are the paths of all routes

	signsIn bool   // a route asks who somebody is
	org     string // whose own the host is; "": nobody's
}

// NewTable checks routes and builds their table. All faults are returned at
// once, joined; each is a *RouteError or a *ConflictError.
func NewTable(routes []Route) (*Table, error) {
	t := &Table{routes: slices.Clone(routes), hosts: map[string]*site{}}
	var faults []error
	owners := map[string]int{}
	for i := range t.routes {
		r := &t.routes[i]
		r.place = i
		if err := checkRoute(i, r); err != nil {
			faults = append(faults, err)
			continue
		}
		for _, host := range r.hosts() {
			// One key for what a lenient reader takes for the same: /Admin and /admin.
			key := fmt.Sprint(host, " ", r.Exact, " ", lenientPath(r.Path))
			if first, taken := owners[key]; taken {
				faults = append(faults, &ConflictError{First: first, Second: i, Why: fmt.Sprintf(
					"route %q and route %q are for the same requests (%s)", t.routes[first].Name, r.Name, r.where())})
				break
			}
			owners[key] = i
			t.site(host).add(r)
			t.site(host).note(host, r)
		}
	}
	t.wild = slices.SortedFunc(maps.Values(t.hosts), func(a, b *site) int { return len(b.suffix) - len(a.suffix) })
	t.wild = slices.DeleteFunc(t.wild, func(s *site) bool { return s.suffix == "" })
	return t, errors.Join(faults...)
}

func checkRoute(i int, r *Route) error {
	if why := r.hostFault(); why != "" {
		return &RouteError{i, "host", why}
	}
	path, err := CanonicalPath(r.Path)
	if err != nil {
		return &RouteError{i, "path", fmt.Sprintf("no request can have this path: %v", err)}
	}
	if path != r.Path {
		return &RouteError{i, "path", fmt.Sprintf("requests are matched in their normal form; write %q", path)}
	}
	if !r.Exact && r.Path != "/" && strings.HasSuffix(r.Path, "/") {
		return &RouteError{i, "path", fmt.Sprintf("a path covers all below it without a slash at its end; write %q",
			strings.TrimRight(r.Path, "/"))}
	}
	return nil
}

func (t *Table) site(host string) *site {
	s := t.hosts[host]
	if s == nil {
		s = newSite()
		s.lenient, s.ascii = newSite(), true
		if rest, wild := strings.CutPrefix(host, "*"); wild {
			s.suffix = rest
		}
		t.hosts[host] = s
	}
	return s
}

func newSite() *site { return &site{exact: map[string]*Route{}, below: map[string]*Route{}} }

func (s *site) add(r *Route) {
	s.ascii = s.ascii && isASCII(decodeAll(r.Path))
	if r.Exact {
		s.exact[r.Path], s.lenient.exact[lenientPath(r.Path)] = r, r
	} else {
		s.below[r.Path], s.lenient.below[lenientPath(r.Path)] = r, r
	}
}

func (s *site) note(host string, r *Route) {
	s.signsIn = s.signsIn || r.Access.AsksWho()
	if org, bound := r.owner(host); bound {
		s.org = org
	}
}

// Routes returns the routes in the order they were given.
func (t *Table) Routes() []*Route {
	out := make([]*Route, len(t.routes))
	for i := range t.routes {
		out[i] = &t.routes[i]
	}
	return out
}

// Named returns the route of a name, nil if there is none.
func (t *Table) Named(name string) *Route {
	for i := range t.routes {
		if t.routes[i].Name == name {
			return &t.routes[i]
		}
	}
	return nil
}

// Serves reports whether any route is for host.
func (t *Table) Serves(host string) bool { return t.forHost(host) != nil }

// SignsIn reports whether people sign in for host: it has a route that asks who
// somebody is.
func (t *Table) SignsIn(host string) bool {
	s := t.forHost(host)
	return s != nil && s.signsIn
}

// OrgOf is the organization whose own host is, "" if it is nobody's.
func (t *Table) OrgOf(host string) string {
	if s := t.forHost(host); s != nil {
		return s.org
	}
	return ""
}

// Lookup returns the route for f: the most specific host, in it the longest
// path. The error is ErrNoRoute, or ErrTarget where the route does not take such a
// path: ErrAmbiguous if a more lenient reading of it leads to another route.
func (t *Table) Lookup(f Facts) (*Route, error) {
	s := t.forHost(f.Host)
	if s == nil || !strings.HasPrefix(f.Path, "/") { // no path: Facts that NewFacts did not make
		return nil, ErrNoRoute
	}
	r := s.find(f.Path)
	// Of letters that are not UTF-8 we cannot tell which of a route's they could be.
	if s.leadsElsewhere(f.Path, r) || (f.NotUTF8 && !s.ascii) {
		return nil, ErrAmbiguous
	}
	if r == nil {
		return nil, ErrNoRoute
	}
	refused := oddities{
		encoded: f.Encoded && !r.Encoded,
		notUTF8: f.NotUTF8 && !r.Encoded,
		doubled: f.Doubled && !r.Doubled,
	}
	if err := refused.fault(); err != nil {
		return nil, err
	}
	return r, nil
}

func (t *Table) forHost(host string) *site {
	if s := t.hosts[host]; s != nil {
		return s
	}
	for _, s := range t.wild {
		if len(host) > len(s.suffix) && strings.HasSuffix(host, s.suffix) {
			return s
		}
	}
	return nil
}

func (s *site) find(path string) *Route {
	if r := s.exact[path]; r != nil {
		return r
	}
	return s.findBelow(path)
}

// findBelow is find among the routes that cover more than one path.
func (s *site) findBelow(path string) *Route {
	for {
		if r := s.below[path]; r != nil {
			return r
		}
		if path == "/" {
			return nil
		}
		path = path[:max(strings.LastIndexByte(path, '/'), 1)]
	}
}

func (r *Route) where() string {
	if r.Exact {
		return "exactly " + r.Host + r.Path
	}
	return r.Host + r.Path
}
