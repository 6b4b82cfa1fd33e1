package authz

import (
	"errors"
	"reflect"
	"slices"
	"strings"
)

// NamesDestination reports whether a request with this method acts on a second
// resource, which its Destination header names (RFC 4918 §9.8, §9.9). Some apps
// do not look at the case of a method.
func NamesDestination(method string) bool {
	return strings.EqualFold(method, "COPY") || strings.EqualFold(method, "MOVE")
}

// ErrOtherOrigin: a Destination on another site than the request's. It is
// answered with 502 (RFC 4918 §9.9.4).
var ErrOtherOrigin = errors.New("the Destination is on another origin")

// Destination are the facts of the resource that a Destination header names, as
// an absolute URI or as a path (RFC 4918 §10.3). It is read as a request for it
// would be, and is to be judged like one.
func (f Facts) Destination(value string) (Facts, error) {
	scheme, host := f.Scheme, f.Authority
	if before, rest, absolute := strings.Cut(value, "://"); absolute && !strings.HasPrefix(value, "/") {
		scheme, host = strings.ToLower(before), rest
		if end := strings.IndexAny(rest, "/?#"); end >= 0 {
			host = rest[:end]
		}
	}
	d, err := NewFacts(f.Method, scheme, host, value)
	d.At = f.At
	switch {
	case err != nil:
		return Facts{}, err
	case d.OwnOrigin() != f.OwnOrigin():
		return Facts{}, ErrOtherOrigin
	}
	d.Client = f.Client // and the method is that of f: COPY, MOVE
	return d, nil
}

// CarriedAlong returns a route with another rule than r's that governs something
// at or below the path of f, which is r's; nil if there is none. A COPY or MOVE of
// a folder takes all of it along, and what it overwrites is deleted with all below
// (RFC 4918 §9.8.3, §9.8.4, §9.9.2). sameApp tells whether a route leads to the
// app of r.
func (t *Table) CarriedAlong(f Facts, r *Route, sameApp func(*Route) bool) *Route {
	s := t.forHost(f.Host)
	if s == nil {
		return nil
	}
	top := lenientPath(f.Path)
	found := []*Route{s.lenient.findBelow(top)} // whose the children are, if r is for one path only
	for _, routes := range []map[string]*Route{s.lenient.exact, s.lenient.below} {
		for path, other := range routes {
			if top == "/" || path == top || strings.HasPrefix(path, top+"/") {
				found = append(found, other)
			}
		}
	}
	found = slices.DeleteFunc(found, func(other *Route) bool {
		return other == nil || other == r || !sameApp(other) || other.admitsAs(r)
	})
	if len(found) == 0 {
		return nil
	}
	return slices.MinFunc(found, func(a, b *Route) int { return strings.Compare(a.Path, b.Path) })
}

// Below reports whether other governs something below r that r does not: what
// reaches below a path of r, such as the DELETE of a folder, reaches it.
func (r *Route) Below(other *Route) bool {
	top, path := lenientPath(r.Path), lenientPath(other.Path)
	isBelow := top == "/" || path == top || strings.HasPrefix(path, top+"/")
	return r != other && !r.Exact && r.Host == other.Host && isBelow &&
		(!other.Access.Public || !other.Access.PublicIf.none()) && !other.admitsAs(r)
}

// admitsAs reports whether r and other ask the same.
func (r *Route) admitsAs(other *Route) bool {
	return reflect.DeepEqual(r.Access, other.Access) && reflect.DeepEqual(r.Proof, other.Proof)
}
