package config

import (
	"fmt"
	"strings"
	"testing"
)

// A Slack app is installed once for a workspace: two connectors with one client would end the
// tokens of each other.
func TestTwoSlackConnectorsWithOneClientAreWarnedOf(t *testing.T) {
	of := func(second string) []Fault {
		return parse(t, valid+fmt.Sprintf(`store: sqlite:/tmp/db
listen: {grants: "127.0.0.1:4184"}
grants:
  encryption_keys: [env:K]
  connectors:
    - {id: slack, type: slack, client_id: "1.2", client_secret: env:S, owner: org,
        managed_by: [{emails: [ann@example.com]}]}
    - {id: chat, type: slack, client_id: %q, client_secret: env:S, owner: org,
        managed_by: [{emails: [ann@example.com]}]}
  apps:
    - {id: planner, token: env:T, routes: [app], connectors: [slack, chat]}
`, second)).Warnings()
	}
	if w := of("3.4"); len(w) != 0 {
		t.Errorf("clients of their own: %v", w)
	}
	if w := of("1.2"); len(w) != 1 || w[0].Path != "grants.connectors[1].client_id" ||
		!strings.Contains(w[0].Error(), "is the client of slack too") {
		t.Errorf("one client: %v", w)
	}
}

// PagerDuty's events end no grant: without an app that is told of them nothing comes of them.
// Slack's do.
func TestEventsThatGoToNobodyAreWarnedOf(t *testing.T) {
	of := func(connector, events string) []Fault {
		return parse(t, valid+fmt.Sprintf(`store: sqlite:/tmp/db
listen: {grants: "127.0.0.1:4184"}
grants:
  encryption_keys: [env:K]
  connectors:
    - {id: theirs, %s, owner: org, managed_by: [{emails: [ann@example.com]}], signing_secrets: [env:W]}
    - {id: other, type: jira, base_url: https://jira.example.com}
  apps:
    - {id: planner, token: env:T, routes: [app], connectors: [theirs, other]%s}
`, connector, events)).Warnings()
	}
	const there = `, events_url: "http://127.0.0.1:8081/events"`
	for name, tt := range map[string]struct {
		connector, events, warns string
	}{
		"nobody": {"type: pagerduty_key", "", "grants.connectors[0].signing_secrets"},
		"an app": {"type: pagerduty_key", there, ""},
		"Slack":  {`type: slack, client_id: "1.2", client_secret: env:S`, "", ""},
	} {
		var got string
		for _, w := range of(tt.connector, tt.events) {
			got += w.Path
		}
		if got != tt.warns {
			t.Errorf("%s: warned of %q", name, got)
		}
	}
}

// A name that is like none that there is says which there are; one that is a slip says which
// was meant.
func TestANameThatThereIsNotSaysWhichThereAre(t *testing.T) {
	of := func(route, connector string) string {
		_, faults := Parse("config.yaml", []byte(valid+fmt.Sprintf(`store: sqlite:/tmp/db
listen: {grants: "127.0.0.1:4184"}
grants:
  encryption_keys: [env:K]
  connectors: [{id: jira, type: jira, base_url: "https://jira.example.com"}]
  apps: [{id: planner, token: env:T, routes: [%s], connectors: [%s]}]
`, route, connector)))
		return fmt.Sprint(faults)
	}
	for _, tt := range [][3]string{
		{"planning", "jira", `there is no route "planning"; there is app`},
		{"ap", "jira", `there is no route "ap" (did you mean "app"?)`},
		{"app", "pagerduty", `there is no connector "pagerduty"; there is jira`},
	} {
		if got := of(tt[0], tt[1]); !strings.Contains(got, tt[2]) {
			t.Errorf("%s: %s", tt[2], got)
		}
	}
}

// `allow: authenticated` is right for routes. Where only rules will do, a list of that word is no
// advice.
func TestAWordInThePlaceOfRulesIsNotAdvisedToBecomeAList(t *testing.T) {
	_, faults := Parse("config.yaml", []byte(valid+`store: sqlite:/tmp/db
listen: {grants: "127.0.0.1:4184"}
grants:
  encryption_keys: [env:K]
  connectors:
    - {id: jira, type: jira, base_url: "https://jira.example.com", owner: org, managed_by: authenticated}
  apps: [{id: planner, token: env:T, routes: [app], connectors: [jira]}]
`))
	got := fmt.Sprint(faults)
	if !strings.Contains(got, "managed_by: must be a list") || strings.Contains(got, "did you mean") {
		t.Error(got)
	}
}
