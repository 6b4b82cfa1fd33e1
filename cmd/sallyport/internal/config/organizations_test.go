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

// A host asks for an organization just as `orgs` does.
func TestP01_FlatGroupsOnAnOrganizationsHostAreRefused(t *testing.T) {
	text := with(t, "    client_secret: env:CLIENT_SECRET\n", "    client_secret: env:CLIENT_SECRET\n    claims: "+
		"{orgs: tenants}\n"+
		"organizations:\n  - {id: acme, name: Acme, match: {org_ids: [\"main:7\"]}}\n",
		"path: /\n", "path: /\n    host: \"{org}.example.com\"\n", "allow: authenticated", "allow: [{groups: "+
			"[admins]}]")
	_, faults := Parse("config.yaml", []byte(text))
	if len(faults) != 1 || faults[0].Path != "routes[0].allow[0].groups" ||
		!strings.Contains(faults[0].Message, "insecure_flat_groups") {
		t.Errorf("%v", faults)
	}
}

// With two providers a bare group is whatever either of them says, whoever the
// rule is for.
func TestP21_ABareGroupIsWarnedOfEverywhere(t *testing.T) {
	second := "  - {id: other, type: oidc, issuer: \"https://sso.other.example\", client_id: x, client_secret: " +
		"\"env:X\", email_domains: [other.example]}\nroutes:"
	c := parse(t, with(t, "routes:", second, "client_secret: env:CLIENT_SECRET\n",
		"client_secret: env:CLIENT_SECRET\n    email_domains: [example.com]\n",
		"allow: authenticated", "allow: [{groups: [a]}, {groups: [a], email_domains: [example.com]}]")+
		"operators:\n  - {groups: [platform]}\n  - {groups: [platform], orgs: [\"main:7\"]}\n")
	var got []string
	for _, w := range c.Warnings() {
		got = append(got, w.Path)
	}
	if strings.Join(got, " ") != "routes[0].allow[0] operators[0]" {
		t.Errorf("warnings at %q", got)
	}
	if w := parse(t, valid+"operators: [{groups: [platform]}]\n").Warnings(); len(w) != 0 {
		t.Errorf("one provider: %v", w)
	}
}

// The rules of operators are held to what those of routes are.
func TestP01_RulesOfOperatorsAreJudgedAsThoseOfRoutes(t *testing.T) {
	text := with(t, "    client_secret: env:CLIENT_SECRET\n", "    client_secret: env:CLIENT_SECRET\n    claims: "+
		"{orgs: tenants}\n"+
		"organizations:\n  - {id: acme, name: Acme, match: {org_ids: [\"main:7\"]}}\n")
	for rule, want := range map[string]string{
		`{orgs: [acme], groups: [admins]}`: "operators[0].groups: provider main tells of several " +
			"organizations",
		`{orgs: ["main:7"]}`: "operators[0].orgs[0]: is folded into acme, so this never " +
			"matches",
		`{groups: [admins], insecure_flat_groups: true}`: "operators[0].insecure_flat_groups: has no meaning here",
	} {
		if got := faultOf(t, text+"operators: ["+rule+"]\n"); !strings.Contains(got, want) {
			t.Errorf("%s: %s", rule, got)
		}
	}
}
