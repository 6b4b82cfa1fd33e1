package config

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/login"
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
	if c := parse(t, with2(", discovery_token: \"file:/var/run/token\"", jobs)); c.Providers[1].Use != "tokens" ||
		c.Providers[0].Use != "sign_in" {
		t.Errorf("%+v", c.Providers)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"a client": {with2(", client_id: x", jobs), "providers[1].client_id: has a meaning for signing in only"},
		"a secret": {with2(", client_secret: \"env:X\"", jobs), "providers[1].client_secret: has a meaning for " +
			"signing in only"},
		"no route": {with2("", "allow: authenticated"), "providers[1].use: is tokens, and nothing takes " +
			"tokens of cluster"},
		"another word": {with2(", use: signin", jobs), "providers[1].use"},
		"no client":    {with(t, "    client_id: sallyport\n", ""), "providers[0].client_id: is required"},
		"no sign-in": {with(t, "    client_id: sallyport\n", "    use: tokens\n", "    client_secret: "+
			"env:CLIENT_SECRET\n", "", "allow: authenticated", strings.ReplaceAll(jobs, "cluster", "main")),
			"providers: are all for tokens"},
		"a bare token": {with2(", discovery_token: \"eyJh\"", jobs), "providers[1].discovery_token"},
		"token, sign-in": {with(t, "    client_id: sallyport\n", "    client_id: sallyport\n    discovery_token: "+
			"file:/x\n"), "providers[0].discovery_token: has a meaning with `use: tokens` only"},
	} {
		if got := faultOf(t, tt.text); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// How long a sign-in is believed is a time, or a word that no YAML takes for something else.
func TestP15_HowLongASignInIsBelievedIsATimeOrNever(t *testing.T) {
	set := func(v string) string {
		return with(t, "    client_id: sallyport\n", "    client_id: sallyport\n    reauth_after: "+v+"\n")
	}
	for v, want := range map[string]time.Duration{"never": login.NoReauth, "30m": 30 * time.Minute,
		"1h30m": 90 * time.Minute} {
		if c := parse(t, set(v)); c.Providers[0].ReauthAfter != want {
			t.Errorf("%s: %v", v, c.Providers[0].ReauthAfter)
		}
	}
	for v, want := range map[string]string{
		"off": "must be a duration such as 30m or 1h, or never", "false": "must be a duration such as 30m or 1h, or " +
			"never",
		"0s": "must be a duration such as 30m or 1h, or never, from 1s to 720h", "3600": "must be a duration",
		"13h": "is longer than sessions last (session.absolute_timeout is 12h)",
	} {
		if got := faultOf(t, set(v)); !strings.Contains(got, "providers[0].reauth_after: "+want) {
			t.Errorf("%s: %s", v, got)
		}
	}
}
