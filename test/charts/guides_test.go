package charts

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestTheFilterIsExperimental: a cluster with the standard channel of Gateway API does not
// take what the chart renders for it.
func TestTheFilterIsExperimental(t *testing.T) {
	files, err := renderWith3(t, parseValues(t, waysOfUse(t)["external-auth-filter"]), false)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for doc := range documents(files) {
		if kind, text := kindOf(t, doc); kind == "gateway.networking.k8s.io/v1/HTTPRoute" {
			n++
			_, err := structured(custom[kind], text)
			if err == nil || !strings.Contains(err.Error(), "does not have spec.rules[1].filters[0].externalAuth") {
				t.Error(err)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d routes", n)
	}
}

// TestTheManifestsOfGuidesAreValid: those that people copy for gateways that ask.
func TestTheManifestsOfGuidesAreValid(t *testing.T) {
	n := 0
	for _, guide := range []string{"envoy", "ingress-nginx", "gateway-api"} {
		text, err := os.ReadFile("../../docs/fronts/" + guide + ".md")
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range manifests.FindAllSubmatch(text, -1) {
			all, err := decode(map[string]string{guide + ".yaml": string(block[1])})
			if err != nil {
				t.Error(err)
			}
			n += len(all)
		}
	}
	if n < 11 {
		t.Errorf("%d manifests", n)
	}
}

var manifests = regexp.MustCompile("(?s)```kubernetes(?:-experimental)?\n(.*?)```")
