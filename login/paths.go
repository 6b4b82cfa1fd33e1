package login

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/oauth"
)

// beyondPath is the value of a claim whose path leads through something that is not an
// object. It is not JSON, so no value can be read from it, but the claim does not count as
// absent either.
const beyondPath = "?"

// resolvePaths returns c with further claims: those that the configuration names by path,
// such as realm_access.roles. Their name is then the whole path. If c has a claim of that
// very name, that one is used: names with dots are common (RFC 7519 §4.2 recommends URLs).
func (p *Provider) resolvePaths(c claims) claims {
	var out claims
	for _, path := range p.claims.all() {
		if !strings.Contains(path, ".") || c.has(path) {
			continue
		}
		raw := c.walk(path)
		if raw == nil {
			continue
		}
		if out == nil {
			out = make(claims, len(c)+1)
			for name, value := range c {
				out[name] = value
			}
		}
		out[path] = raw
	}
	if out == nil {
		return c
	}
	return out
}

// walk returns the value that a path leads to; nil if there is none. At each step the
// longest name is tried first, because a name can have dots, too.
func (c claims) walk(path string) json.RawMessage {
	var found json.RawMessage
	for i := len(path) - 1; i > 0; i-- {
		if path[i] != '.' || !c.has(path[:i]) {
			continue
		}
		members, err := oauth.Object(c[path[:i]])
		if err != nil {
			found = json.RawMessage(beyondPath)
			continue
		}
		inner, rest := claims(members), path[i+1:]
		if inner.has(rest) {
			return inner[rest]
		}
		if deeper := inner.walk(rest); deeper != nil && string(deeper) != beyondPath {
			return deeper
		} else if deeper != nil {
			found = deeper
		}
	}
	return found
}

// all returns the names and paths of the claims about a person.
func (n ClaimNames) all() []string {
	return slices.DeleteFunc([]string{n.OrgID, n.OrgName, n.OrgDomain, n.Orgs, n.Groups, n.Username, n.Name, n.Email},
		func(name string) bool { return name == "" })
}
