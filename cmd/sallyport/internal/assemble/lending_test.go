package assemble

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// What the file may name there is a constructor for, and the other way round.
func TestEveryTypeOfConnectorHasAConstructor(t *testing.T) {
	named, made := slices.Sorted(slices.Values(config.ConnectorTypes())), slices.Sorted(maps.Keys(ConnectorTypes()))
	if !slices.Equal(named, made) {
		t.Errorf("the file may name %v, and there are constructors of %v", named, made)
	}
}

// What only the type of a connector knows, and what only its parts together say, is said
// with its place in the file, and what was probably meant.
func TestFaultsOfConnectorsHaveTheirPlace(t *testing.T) {
	const head = `version: 1
public_url: https://app.example.com
listen: {grants: "127.0.0.1:4184"}
store: sqlite:/s.db
session: {keys: ["env:KEY"]}
providers: [{id: sso, type: oidc, issuer: "https://sso.example.com", client_id: c, client_secret: "env:SECRET"}]
routes: [{name: app, path: /, upstream: "http://127.0.0.1:1", allow: authenticated}]
grants:
  encryption_keys: ["env:GRANT_KEY"]
  connectors: [{id: k, `
	for name, tt := range map[string]struct{ connector, use, want string }{
		"an access that the type has not": {`type: google_calendar, client_id: c, client_secret: "env:S", access: [event]`,
			"k", `c.yaml:10:94: grants.connectors[0].access[0]: is none of freebusy, events (did you mean "events"?)`},
		"an access that is not offered": {`type: google_calendar, client_id: c, client_secret: "env:S"`,
			"{id: k, access: [events]}",
			"c.yaml:11:83: grants.apps[0].connectors[0].access[0]: is not offered by k, which offers freebusy"},
		"an access that is not the narrowest": {`type: outlook_calendar, tenant: t, client_id: c, client_secret: "env:S"`,
			"{id: k, access: [basic]}",
			"c.yaml:11:83: grants.apps[0].connectors[0].access[0]: is not offered by k, which offers freebusy"},
		"a parameter of ours": {`type: oauth2, client_id: c, client_secret: "env:S", base_url: "https://a", ` +
			`endpoints: {authorization: "https://a", token: "https://a"}, scopes: {r: [s]}, rules: {r: [GET /*]}, ` +
			"authorization_params: {state: x}", "k", "c.yaml:10:230: grants.connectors[0].authorization_params.state: " +
			"is set by Sallyport; leave it out"},
		"a format without a place": {`type: api_key, base_url: "https://a", probe: GET /me, rules: {r: [GET /*]}, ` +
			`inject: {format: "Bearer"}`, "k", ""},
		"a header that is ours": {`type: api_key, base_url: "https://a", probe: GET /me, rules: {r: [GET /*]}, ` +
			`forward_headers: [Cookie]`, "k", "c.yaml:10:117: grants.connectors[0].forward_headers: must not have Cookie: it " +
			"is not for apps to send"},
		"an address that is no host": {`type: ics, allow_hosts: ["https://dav.example.com"]`, "k", "c.yaml:10:48: " +
			"grants.connectors[0].allow_hosts: must be exact names of hosts in lower case, as in dav.example.com or " +
			"dav.example.com:8443"},
	} {
		cfg, faults := config.Parse("c.yaml", []byte(head+tt.connector+`}]
  apps: [{id: a, token: "env:TOKEN", routes: [app], connectors: [`+tt.use+"]}]\n"))
		if len(faults) == 0 {
			_, faults = NewPolicy(cfg)
		}
		if len(faults) != 1 || tt.want != "" && faults[0].Error() != tt.want {
			t.Errorf("%s: %v", name, faults)
		}
	}
}

// What people paste is called what it is.
func TestWhatIsPastedHasItsName(t *testing.T) {
	for connector, want := range map[string]string{
		"type: pagerduty_key": "API key",
		"type: ics":           "secret address",
		`type: caldav, base_url: "https://dav.example.com"`: "app password",
	} {
		cfg, faults := config.Parse("c.yaml", []byte(`version: 1
public_url: https://app.example.com
listen: {grants: "127.0.0.1:4184"}
store: sqlite:/s.db
session: {keys: ["env:KEY"]}
providers: [{id: sso, type: oidc, issuer: "https://sso.example.com", client_id: c, client_secret: "env:SECRET"}]
routes: [{name: app, path: /, upstream: "http://127.0.0.1:1", allow: authenticated}]
grants:
  encryption_keys: ["env:GRANT_KEY"]
  connectors: [{id: k, `+connector+`}]
  apps: [{id: a, token: "env:TOKEN", routes: [app], connectors: [{id: k, access: [read]}]}]
`))
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		all := ConnectorPermissions(cfg)
		if len(all) != 1 || len(all[0].Scopes) != 1 || all[0].Scopes[0].Name != want {
			t.Errorf("%s: %+v", connector, all)
		}
	}
}

// What is known of third parties goes to these addresses, and is noted with these names. Who
// moves one leaves the name, so that nobody has to connect again; a name that changes has
// everybody do that.
func TestWhereCredentialsOfKnownThirdPartiesGo(t *testing.T) {
	const client, org = `client_id: c, client_secret: "env:S"`, `, owner: org, managed_by: [{groups: [a]}]`
	for _, tt := range []struct{ connector, region, want string }{
		{"type: google_calendar, " + client, "", "api https://www.googleapis.com google_calendar, " +
			"refresh https://oauth2.googleapis.com google_calendar, revoke https://oauth2.googleapis.com google_calendar"},
		{"type: outlook_calendar, tenant: common, " + client, "", "api https://graph.microsoft.com outlook_calendar, " +
			"refresh https://login.microsoftonline.com outlook_calendar"},
		{"type: slack, " + client + org, "", "api https://slack.com slack, refresh https://slack.com slack, " +
			"revoke https://slack.com slack"},
		{"type: pagerduty, " + client, "us", "api https://api.pagerduty.com pagerduty/us, " +
			"refresh https://identity.pagerduty.com pagerduty"},
		{"type: pagerduty, " + client, "eu", "api https://api.eu.pagerduty.com pagerduty/eu, " +
			"refresh https://identity.pagerduty.com pagerduty"},
		{"type: pagerduty_key", "", "api https://api.pagerduty.com pagerduty_key/us"},
		{"type: pagerduty_key, region: eu", "", "api https://api.eu.pagerduty.com pagerduty_key/eu"},
		{"type: incidentio_key", "", "api https://api.incident.io incidentio_key"},
		{"type: rootly_key", "", "api https://api.rootly.com rootly_key"},
		{"type: github", "", "api https://api.github.com github"},
		{`type: github, base_url: "https://github.acme.example/api/v3"`, "", "api https://github.acme.example"},
		{`type: jira, base_url: "https://acme.atlassian.net"`, "", "api https://acme.atlassian.net"},
		{`type: grafana_irm_key, base_url: "https://oncall.example.com"`, "", "api https://oncall.example.com"},
		{`type: slack, base_url: "http://127.0.0.1:1/x", ` + client + org, "", "api http://127.0.0.1:1, " +
			"refresh http://127.0.0.1:1, revoke http://127.0.0.1:1"},
		{`type: pagerduty, base_url: "http://127.0.0.1:1", ` + client, "eu", "api http://127.0.0.1:1, " +
			"refresh http://127.0.0.1:1"},
		{"type: ics", "", ""}, // the credential itself says where
		{`type: caldav, base_url: "https://dav.example.com"`, "", ""},
	} {
		cfg, faults := config.Parse("c.yaml", []byte(`version: 1
public_url: https://app.example.com
listen: {grants: "127.0.0.1:4184"}
store: sqlite:/s.db
session: {keys: ["env:KEY"]}
providers: [{id: sso, type: oidc, issuer: "https://sso.example.com", client_id: c, client_secret: "env:SECRET"}]
routes: [{name: app, path: /, upstream: "http://127.0.0.1:1", allow: authenticated}]
grants:
  encryption_keys: ["env:GRANT_KEY"]
  connectors: [{id: k, `+tt.connector+`}]
  apps: [{id: a, token: "env:TOKEN", routes: [app], connectors: [k]}]
`))
		if len(faults) > 0 {
			t.Errorf("%s: %v", tt.connector, faults)
			continue
		}
		made, err := Connectors(cfg)
		testenv.Check(t, err)
		var texts []string
		for _, d := range grant.Destinations(made[0], grant.Account{Region: tt.region}) {
			texts = append(texts, d.String())
		}
		if got := strings.Join(texts, ", "); got != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.connector, got, tt.want)
		}
	}
}
