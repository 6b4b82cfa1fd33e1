package config

import (
	"slices"
	"strings"
	"testing"
)

// Who has the same name at another provider would be the same person to the app.
func TestP02_AnAppThatCannotTellProvidersApartIsWarnedOf(t *testing.T) {
	const one = `version: 1
public_url: https://app.example.com
session: {keys: [file:/run/secrets/session-key]}
providers:
  - {id: main, type: oidc, issuer: https://sso.example.com, client_id: sallyport, client_secret: env:CLIENT_SECRET, email_domains: [example.com]}
routes: [{name: app, path: /, upstream: "http://127.0.0.1:8080", allow: authenticated, headers: HEADERS}]
`
	const two = "routes:"
	second := "  - {id: other, type: oidc, issuer: https://id.example.org, client_id: sallyport, client_secret: env:OTHER, email_domains: [example.org]}\n"
	for headers, want := range map[string]string{
		`{preset: forwarded}`:                                                       "",
		`{preset: gitea}`:                                                           "a username and not the claim user",
		`{preset: gitea, set: {x-webauth-user: user}}`:                              "",
		`{preset: none, set: {X-Login: email}}`:                                     "",
		`{preset: none, set: {X-Login: subject}}`:                                   "a subject and not",
		`{preset: none, set: {X-Login: subject, X-From: provider}}`:                 "",
		`{basic: {username: username, password: file:/run/secrets/app}}`:            "a username and not",
		`{preset: none, basic: {username: email, password: file:/run/secrets/app}}`: "",
	} {
		file := strings.Replace(one, "HEADERS", headers, 1)
		for _, both := range []bool{false, true} {
			text := file
			if both {
				text = strings.Replace(file, two, second+two, 1)
			}
			c, faults := Parse("c.yaml", []byte(text))
			if len(faults) > 0 {
				t.Fatal(headers, faults)
			}
			warned := slices.ContainsFunc(c.Warnings(), func(f Fault) bool {
				return strings.Contains(f.Error(), "of different providers") && strings.Contains(f.Error(), want)
			})
			if warned != (both && want != "") {
				t.Errorf("%s, two providers %v: warned %v", headers, both, warned)
			}
		}
	}
}
