package authz

import (
	"fmt"
	"slices"
	"strings"
)

// orgLabel is the first label of a Host that gives each organization its own.
const orgLabel = "{org}"

// hosts are the names that Host stands for.
func (r *Route) hosts() []string {
	below, bound := strings.CutPrefix(r.Host, orgLabel)
	if !bound {
		return []string{r.Host}
	}
	names := make([]string, len(r.Orgs))
	for i, org := range r.Orgs {
		names[i] = org + below
	}
	return names
}

// owner is the organization to which host belongs, if r gives each its own. It
// is "" for a host that r does not have.
func (r *Route) owner(host string) (org string, bound bool) {
	below, bound := strings.CutPrefix(r.Host, orgLabel)
	org, _ = strings.CutSuffix(host, below)
	if !bound || !slices.Contains(r.Orgs, org) {
		return "", bound
	}
	return org, true
}

// hostFault says what is wrong with Host or Orgs; "" if nothing is.
func (r *Route) hostFault() string {
	below, bound := strings.CutPrefix(r.Host, orgLabel)
	if bound && (len(r.Orgs) == 0 || !strings.HasPrefix(below, ".")) {
		return fmt.Sprintf("%q needs organizations, and a dot after %s", r.Host, orgLabel)
	}
	for i, name := range r.hosts() {
		if bound && strings.ContainsAny(r.Orgs[i], ".*") { // it would be two labels, or a wildcard
			return fmt.Sprintf("the organization %q cannot be the label of a host", r.Orgs[i])
		}
		name, _ = strings.CutPrefix(name, "*.")
		if host, err := CanonicalHost(name); err != nil || host != name {
			return fmt.Sprintf("%q is not a host name in lower case without a port", name)
		}
	}
	return ""
}
