package config

import (
	"strings"
	"testing"
)

// P12: on the host where people agree, only the app that they agree to may have scripts.
func TestP12_NothingButTheOnlyAppIsWherePeopleAgree(t *testing.T) {
	const route = "  - name: app\n    path: /\n    upstream: http://127.0.0.1:8080\n    allow: authenticated\n"
	const app = "    - {id: planner, token: file:/run/secrets/planner, routes: [app], " +
		"connectors: [{id: jira, access: [read]}]}\n"
	const orgs = "organizations:\n  - {id: app, name: App, match: {org_ids: [\"main:7\"]}}\n" +
		"  - {id: acme, name: Acme, match: {org_ids: [\"main:8\"]}}\n"
	own := strings.Replace(route, "path: /", "host: planner.example.com\n    path: /", 1)
	other := strings.Replace(app, "planner", "other", 2)
	file := func(extra, routes, apps string) string {
		text := string(read(t, "testdata/bad/grants-two-apps.yaml"))
		head, rest, _ := strings.Cut(text, "routes:\n")
		_, rest, _ = strings.Cut(rest, "grants:\n")
		rest, _, _ = strings.Cut(rest, "  apps:\n")
		return head + extra + "routes:\n" + routes + "grants:\n" + rest + "  apps:\n" + apps
	}
	to := func(name, host, upstream, access string) string {
		return "  - {name: " + name + ", host: \"" + host + "\", path: /" + name + ", upstream: \"" + upstream +
			"\", " + access + "}\n"
	}
	const same, elsewhere = "http://127.0.0.1:8080", "http://127.0.0.1:8081"
	const here, people = "app.example.com", "allow: authenticated"
	for _, c := range []struct {
		what, text string
		fault      string // the route that is at the wrong place; "" for none
	}{
		{"the app alone", file("", route, app), ""},
		{"a public page of the app", file("", route+to("logo", here, same, "public: true"), app), ""},
		{"another part of the app", file("", route+to("admin", here, same, people), app), ""},
		{"something else", file("", route+to("blog", here, elsewhere, people), app), "routes[1].host"},
		{"something else that is public", file("", route+to("blog", here, elsewhere, "public: true"), app),
			"routes[1].host"},
		{"something else for a part of a wildcard", file("", own+to("blog", "*.example.com", elsewhere, people), app),
			"routes[1].host"},
		{"something else for a wildcard that does not come to it",
			file("", route+to("blog", "*.example.com", elsewhere, people), app), ""},
		{"something else for a wildcard below", file("", own+to("blog", "*.app.example.com", elsewhere, people), app), ""},
		{"something else for an organization of that name",
			file(orgs, own+to("blog", "{org}.example.com", elsewhere, people), app), "routes[1].host"},
		{"both", file(orgs, route+to("blog", "{org}.example.com", elsewhere, people), app), "routes[1].host"},
		{"two apps with hosts of their own", file("", own, app+other), ""},
		{"two apps, one here", file("", own+to("blog", here, same, people), app+other), "routes[1].host"},
		{"two apps and a wildcard", file("", own+to("blog", "*.example.com", same, people), app+other), "routes[1].host"},
	} {
		_, faults := Parse("config.yaml", []byte(c.text))
		switch text := faults.Error(); {
		case c.fault == "" && faults != nil:
			t.Errorf("%s is refused:\n%s", c.what, text)
		case c.fault == "":
		case len(faults) != 1 || !strings.Contains(text, c.fault+": is on app.example.com, the host of public_url"):
			t.Errorf("%s:\n%s", c.what, text)
		}
	}
}

// P12: an app that names a person asks for what that person lends. "org:ann" would be one of a
// provider called org, and an organization.
func TestP12_NobodyIsNamedAsAnOrganizationIs(t *testing.T) {
	text := string(read(t, "testdata/bad/grants-provider-org.yaml"))
	if c, faults := Parse("config.yaml", []byte(text)); c != nil || len(faults) != 1 ||
		!strings.Contains(faults.Error(), "providers[0].id") {
		t.Errorf("with grants: %v", faults)
	}
	before, _, _ := strings.Cut(strings.Replace(text, `, grants: "127.0.0.1:4184"`, "", 1), "grants:\n")
	if _, faults := Parse("config.yaml", []byte(before)); len(faults) != 0 {
		t.Errorf("without grants no app names anybody: %v", faults)
	}
}
