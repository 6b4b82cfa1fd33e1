package config

import (
	"strings"
	"testing"
)

// A provider that is for tokens only has nothing of what signing in needs, and is there
// for a route.
func TestP15_WhatAProviderIsForAndWhatItHasGoTogether(t *testing.T) {
	const (
		cluster = "  - {id: cluster, type: oidc, use: tokens, issuer: \"https://kubernetes.default.svc\"MORE}\nroutes:"
		jobs    = "allow: authenticated\n    bearer: {provider: cluster, audiences: [jobs], quirks: [any_typ]}"
	)
	with2 := func(more, route string) string {
		return with(t, "routes:", strings.Replace(cluster, "MORE", more, 1), "allow: authenticated", route)
	}
	if c := parse(t, with2(", discovery_token: \"file:/var/run/token\"", jobs)); c.Providers[1].Use != "tokens" || c.Providers[0].Use != "sign_in" {
		t.Errorf("%+v", c.Providers)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"a client":       {with2(", client_id: x", jobs), "providers[1].client_id: has a meaning for signing in only"},
		"a secret":       {with2(", client_secret: \"env:X\"", jobs), "providers[1].client_secret: has a meaning for signing in only"},
		"no route":       {with2("", "allow: authenticated"), "providers[1].use: is tokens, and no route takes tokens of cluster"},
		"another word":   {with2(", use: signin", jobs), "providers[1].use"},
		"no client":      {with(t, "    client_id: sallyport\n", ""), "providers[0].client_id: is required"},
		"no sign-in":     {with(t, "    client_id: sallyport\n", "    use: tokens\n", "    client_secret: env:CLIENT_SECRET\n", "", "allow: authenticated", strings.ReplaceAll(jobs, "cluster", "main")), "providers: are all for tokens"},
		"a bare token":   {with2(", discovery_token: \"eyJh\"", jobs), "providers[1].discovery_token"},
		"token, sign-in": {with(t, "    client_id: sallyport\n", "    client_id: sallyport\n    discovery_token: file:/x\n"), "providers[0].discovery_token: has a meaning with `use: tokens` only"},
	} {
		if got := faultOf(t, tt.text); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
}
