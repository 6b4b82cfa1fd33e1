package command

import (
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/selftest"
)

// The routes that selftest prints go into a configuration as they are, and are those of
// its page.
func TestRoutesOfSelftestAreValid(t *testing.T) {
	const before = "version: 1\npublic_url: https://app.example.com\nsession: {keys: [file:/k]}\nproviders: [{id: a, " +
		"type: oidc, issuer: \"https://idp.example\", client_id: a, client_secret: env:S}]\n"
	for _, host := range []string{"app.example.com", "wiki.example.net"} {
		if _, _, err := parseConfig("c.yaml", []byte(before+selftest.RouteLines(host, "127.0.0.1:8089"))); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	page := strings.ReplaceAll(read(t, root+"/docs/selftest.md"), "host: app.example.com", `host: "app.example.com"`)
	routes, _ := strings.CutPrefix(selftest.RouteLines("app.example.com", "127.0.0.1:8089"), "routes:\n")
	if !strings.Contains(page, routes) {
		t.Errorf("docs/selftest.md does not have the routes\n%s", routes)
	}
}
