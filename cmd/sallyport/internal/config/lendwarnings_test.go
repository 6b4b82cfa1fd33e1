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
