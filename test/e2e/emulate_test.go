package e2e

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"testing"
)

var emulateServes = regexp.MustCompile(`emulate serves`)

// startEmulate runs a third party of npm emulate on the Node.js of npm node, which says that it
// is at baseURL, and at its own address where that is "".
func startEmulate(t *testing.T, service, baseURL string, seed map[string]any) (address string) {
	t.Helper()
	node := need(t, func() (string, error) { return npmPackage("node", "bin/node") })
	need(t, func() (string, error) { return npmPackage("emulate", "package.json") })
	address = need(t, freeAddress)
	options, err := json.Marshal(map[string]any{"service": service, "port": json.Number(portOf(address)[1:]),
		"baseUrl": baseURL, "seed": seed})
	if err != nil {
		t.Fatal(err)
	}
	if node, err = filepath.Abs(node); err != nil {
		t.Fatal(err)
	}
	p, err := start(".", node, "emulate.mjs", string(options))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	p.showIfFailed(t)
	if _, err := p.says(emulateServes); err != nil {
		t.Fatal(err)
	}
	return address
}
