package config

import (
	"fmt"
	"strings"
	"testing"
)

// To find the place of a key among many routes was to try them one after the other, for each
// key of each route: a minute for a file of the greatest length. Allocations tell, and unlike
// times they are always the same.
func TestALongListOfRoutesTakesWhatItsLengthSays(t *testing.T) {
	allocations := func(routes int) float64 {
		var text strings.Builder
		text.WriteString(`version: 1
public_url: https://app.example.com
session: {keys: [env:KEY]}
providers: [{id: sso, type: oidc, issuer: "https://sso.example.com", client_id: x, client_secret: env:SECRET}]
routes:
`)
		for i := range routes {
			fmt.Fprintf(&text, "  - {name: r%d, path: /sites/%[1]d, upstream: \"http://app:8080\", allow: authenticated}\n", i)
		}
		return testing.AllocsPerRun(1, func() {
			if cfg, faults := Parse("config.yaml", []byte(text.String())); len(faults) > 0 || len(cfg.Routes) != routes {
				t.Error(faults)
			}
		})
	}
	few, many := allocations(100), allocations(1000)
	if many > 13*few {
		t.Errorf("%.0f allocations for 100 routes, and %.0f for 1,000", few, many)
	}
}
