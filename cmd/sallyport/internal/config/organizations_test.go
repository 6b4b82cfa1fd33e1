package config

import (
	"strings"
	"testing"
)

// P21: what is insecure is named, and said again at every start.
func TestP21_FlatGroupsAreWarnedOf(t *testing.T) {
	c := parse(t, string(read(t, "testdata/good/organizations.yaml")))
	if !c.Routes[0].Allow.Any[0].InsecureFlatGroups || c.Routes[0].Allow.Any[1].InsecureFlatGroups {
		t.Errorf("rules: %+v", c.Routes[0].Allow.Any)
	}
	w := c.Warnings()
	if len(w) != 1 || w[0].Path != "routes[0].allow[0].insecure_flat_groups" || w[0].Line != 23 ||
		!strings.Contains(w[0].Message, "in any of their organizations") {
		t.Errorf("warnings: %v", w)
	}
}

// A host asks for an organization just as `orgs` does. Protected routes of such
// hosts come with a later release; the rule about groups is there already.
func TestP01_FlatGroupsOnAnOrganizationsHostAreRefused(t *testing.T) {
	text := with(t, "    client_secret: env:CLIENT_SECRET\n", "    client_secret: env:CLIENT_SECRET\n    claims: {orgs: tenants}\n"+
		"organizations:\n  - {id: acme, name: Acme, match: {org_ids: [\"main:7\"]}}\n",
		"path: /\n", "path: /\n    host: \"{org}.example.com\"\n", "allow: authenticated", "allow: [{groups: [admins]}]")
	_, faults := Parse("config.yaml", []byte(text))
	if len(faults) != 2 || faults[0].Path != "routes[0].host" || faults[1].Path != "routes[0].allow[0].groups" ||
		!strings.Contains(faults[1].Message, "insecure_flat_groups") {
		t.Errorf("%v", faults)
	}
}
