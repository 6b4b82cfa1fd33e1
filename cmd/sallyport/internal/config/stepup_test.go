package config

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRoutesSayHowPeopleProveWhoTheyAre(t *testing.T) {
	c := parse(t, valid+"    max_age: 15m\n    acr: [phr, \"urn:x:mfa\"]\n"+
		"  - {name: two, path: /two, upstream: \"http://127.0.0.1:8080\", allow: authenticated, acr: [phr, pwd]}\n")
	r := c.Routes[0]
	if r.Proof.MaxAge != 15*time.Minute || !slices.Equal(r.Proof.ACR, []string{"phr", "urn:x:mfa"}) {
		t.Errorf("read as %+v", r.Proof)
	}
	if got := c.ACR(); !slices.Equal(got, []string{"phr", "urn:x:mfa", "pwd"}) {
		t.Errorf("all values: %q", got)
	}
	if got := parse(t, valid).ACR(); got == nil || len(got) != 0 { // nil would keep any
		t.Errorf("without a route that asks: %#v", got)
	}
	if w := c.Warnings(); len(w) != 0 {
		t.Errorf("warnings without a reason: %v", w)
	}
}

// A provider that is known never to say what a route asks for is warned of.
func TestP21_AProofThatAProviderNeverGivesIsWarnedOf(t *testing.T) {
	for name, tt := range map[string]struct {
		provider, asked, path, want string
	}{
		"acr at Google": {"{id: g, type: google, client_id: x, client_secret: \"env:G\"}", "acr: [phr]",
			"routes[0].acr", "provider g gets in: type google never sends acr"},
		"acr at Microsoft": {"{id: m, type: microsoft, tenant: 6f9619ff-8b86-d011-b42d-00cf4fc964ff, client_id: x, " +
			"client_secret: \"env:M\"}", "acr: [phr]", "routes[0].acr", "type microsoft never sends acr"},
		"max_age at Slack": {"{id: s, type: slack, client_id: x, client_secret: \"env:S\"}", "max_age: 1h",
			"routes[0].max_age", "proves nothing"},
		"max_age at Google": {"{id: g, type: google, client_id: x, client_secret: \"env:G\"}", "max_age: 1h", "", ""},
	} {
		from, to, _ := strings.Cut(valid, "providers:\n")
		_, to, _ = strings.Cut(to, "routes:\n")
		text := from + "providers:\n  - " + tt.provider + "\nroutes:\n" + to + "    " + tt.asked + "\n"
		w := parse(t, text).Warnings()
		if tt.want == "" {
			if len(w) != 0 {
				t.Errorf("%s: %v", name, w)
			}
			continue
		}
		if len(w) != 1 || w[0].Path != tt.path || !strings.Contains(w[0].Error(), tt.want) || w[0].Line == 0 {
			t.Errorf("%s: %v", name, w)
		}
	}
}
