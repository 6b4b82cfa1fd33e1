package login

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/oauth"
)

// beyondPath stands for a claim whose path leads through something that is no
// object. It is not JSON, so nothing can read a value out of it, and the claim
// is not taken for absent either.
const beyondPath = "?"

// follow returns c with the claims that paths of the configuration lead to, such
// as realm_access.roles, under the whole path as their name. A claim that is
// literally called so goes before: names with dots are common (RFC 7519 §4.2
// recommends URLs).
func (p *Provider) follow(c claims) claims {
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

// walk returns what a path leads to, nil if that is absent. At each step the
// longest name goes first, because names have dots too.
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

// all are the names and paths of claims about a person.
func (n ClaimNames) all() []string {
	return slices.DeleteFunc([]string{n.OrgID, n.OrgName, n.OrgDomain, n.Orgs, n.Groups, n.Username, n.Name, n.Email},
		func(name string) bool { return name == "" })
}
