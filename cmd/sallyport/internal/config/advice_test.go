package config

import (
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
)

func TestWhatPeopleWriteAtFirstGetsTheRightForm(t *testing.T) {
	for name, c := range map[string]struct {
		text, want string
	}{
		"path for the public URL": {with(t, "https://app.example.com", "https://example.com/tools"),
			"public_url: must be a URL without path, query and fragment, not \"https://example.com/tools\"; Sallyport " +
				"answers for whole hosts: what is below \"/tools\" is a route with that path, and Sallyport's own " +
				"addresses are below `prefix` (did you mean \"https://example.com\"?)"},
		"query in the public URL": {with(t, "https://app.example.com", "https://example.com/?a"),
			"public_url: must be a URL without path, query and fragment, not \"https://example.com/?a\""},
		"a name as people type it": {with(t, "https://app.example.com", "https://b\u00fccher.example"),
			"public_url: must name the host as it stands in DNS, in ASCII: a label with other letters begins with xn-- " +
				"there, not \"https://b\u00fccher.example\""},
		"group for a rule": {with(t, "allow: authenticated", "allow: [staff]"),
			"routes[0].allow[0]: must be a mapping, not \"staff\" (did you mean `{groups: [staff]}`?)"},
		"address for a rule": {with(t, "allow: authenticated", "allow: [ann@example.com]"),
			"(did you mean `{emails: [ann@example.com]}`?)"},
		"organization for a rule": {with(t, "allow: authenticated", `allow: ["main:7"]`),
			"(did you mean `{orgs: [\"main:7\"]}`?)"},
		"group for rules": {with(t, "allow: authenticated", "allow: staff"), "(did you mean `[{groups: [staff]}]`?)"},
		"authenticated in a list": {with(t, "allow: authenticated", "allow: [authenticated]"),
			`the word stands alone, and not in a list (did you mean "authenticated"?)`},
		"a URL for a host": {valid + "    host: https://Wiki.example.com:8443/x\n",
			`(did you mean "wiki.example.com"?)`},
		"a header beside set": {valid + "    headers: {X-Remote-User: email}\n",
			"headers.X-Remote-User: unknown field; the name of a header stands in set: headers: {set: {X-Remote-User: email}}"},
		"an endpoint of Keycloak": {with(t, "https://sso.example.com",
			"https://sso.example.com/auth/realms/x/protocol/openid-connect/auth"),
			`(did you mean "https://sso.example.com/auth/realms/x"?)`},
		"slip of authenticated": {with(t, "allow: authenticated", "allow: authentcated"),
			`(did you mean "authenticated"?)`},
		"everyone": {with(t, "allow: authenticated", "allow: everyone"),
			"write `public: true` instead of allow"},
		"groups as text": {with(t, "allow: authenticated", "allow: [{groups: staff}]"), "(did you mean `[staff]`?)"},
		"scopes as in a URL": {with(t, "client_id:", "scopes: openid email\n    client_id:"),
			"(did you mean `[openid, email]`?)"},
		"version in quotes":      {with(t, "version: 1", "version: '1'"), "must be the number 1, without quotes"},
		"version of the product": {with(t, "version: 1", "version: 2"), "must be the number 1, not the number 2"},
		"address for listen": {valid + "listen: ':4380'\n", "listen: must be a mapping, not \":4380\" (did you mean " +
			"`{http: \":4380\"}`?)"},
		"port for listen": {valid + "listen: 4380\n", "listen: must be a mapping, not the number 4380 (did you " +
			"mean `{http: \":4380\"}`?)"},
		"port for listen.http": {valid + "listen: {http: 4380}\n", "must be an address such as :4180 or " +
			"127.0.0.1:4180, not a port alone (did you mean \":4380\"?)"},
		"port in quotes":     {valid + "listen: {http: '4380'}\n", `(did you mean ":4380"?)`},
		"vendor for a type":  {with(t, "type: oidc", "type: keycloak"), `not "keycloak" (did you mean "oidc"?)`},
		"Azure for a type":   {with(t, "type: oidc", "type: azure"), `(did you mean "microsoft"?)`},
		"level for log":      {valid + "log: debug\n", "(did you mean `{level: debug}`?)"},
		"word for groups":    {valid + "groups: all\n", "(did you mean `{keep: all}`?)"},
		"preset for headers": {valid + "    headers: auth-request\n", "(did you mean `{preset: auth-request}`?)"},
		"path for a reference": {with(t, "env:CLIENT_SECRET", "/run/secrets/client"),
			`(did you mean "file:/run/secrets/client"?)`},
		"shell for a reference": {with(t, "env:CLIENT_SECRET", "${CLIENT_SECRET}"),
			`(did you mean "env:CLIENT_SECRET"?)`},
		"path for keys": {with(t, "[file:/run/secrets/session-key]", "/run/secrets/session-key"),
			"session.keys: must be a list, not \"/run/secrets/session-key\""},
	} {
		if got := faultOf(t, c.text); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s\nwant %s", name, got, c.want)
		}
	}
}

func TestKeysOfOtherProxiesLeadToOurs(t *testing.T) {
	provider := func(key string) string {
		return with(t, "client_id: sallyport", "client_id: sallyport\n    "+key+": x")
	}
	top := func(key string) string { return valid + key + ": x\n" }
	route := func(key string) string { return valid + "    " + key + ": x\n" }
	for text, want := range map[string]string{
		provider("issuer_url"):                `providers[0].issuer_url: unknown field (did you mean "issuer"?)`,
		provider("oidc_issuer_url"):           "what you want is providers[].issuer",
		provider("redirect_url"):              "public_url, from which each provider's redirect URI is made",
		provider("jwks_url"):                  "what you want is providers[].endpoints.jwks",
		top("oidc_issuer_url"):                "(did you mean `providers[].issuer`?)",
		top("oidc-issuer-url"):                "(did you mean `providers[].issuer`?)",
		top("cookie_secret"):                  "what you want is session.keys",
		top("cookie-expire"):                  `(did you mean "session.absolute_timeout"?)`,
		top("tls"):                            "what you want is listen.https, with address, cert and key",
		top("upstreams"):                      "what you want is routes, each with a path and an upstream",
		top("client_secret"):                  "it belongs at providers[].client_secret",
		top("upstream"):                       "it belongs at routes[].upstream",
		top("email_domains"):                  "it belongs at providers[].email_domains",
		top("allowed_groups"):                 "routes[].allow: [{groups: [...]}]",
		top("skip_auth_routes"):               "routes with `public: true`",
		top("reverse-proxy"):                  "trusted_proxies, by address",
		top("ssl_insecure_skip_verify"):       "nothing skips the verification of certificates",
		route("to"):                           `routes[0].to: unknown field (did you mean "upstream"?)`,
		route("policy"):                       `(did you mean "allow"?)`,
		route("allow_websockets"):             `(did you mean "websocket"?)`,
		route("allow_any_authenticated_user"): "what you want is allow: authenticated",
		route("timeout"):                      "what you want is routes[].upstream.timeouts",
		route("strip_path"):                   "the app is asked for the path that the browser asked for",
		route("websocets"):                    `(did you mean "websocket"?)`,
	} {
		if got := faultOf(t, text); !strings.Contains(got, want) {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	// What the advice names is there.
	known := map[string]bool{}
	for _, k := range Keys() {
		known[k.Path], known[k.Name()] = true, true
	}
	for from, to := range foreign {
		word, _, _ := strings.Cut(to, ",")
		word, _, _ = strings.Cut(word, ": ")
		if yamltable.OneWord(from) != from {
			t.Errorf("%s is never looked up", from)
		}
		if !known[word] && !strings.HasPrefix(to, "nothing") && !strings.HasPrefix(to, "routes with") {
			t.Errorf("%s: there is no %s", from, word)
		}
	}
}

// What is no secret is shown, and behind what is one the line goes on, so that
// the caret stands where the fault is.
func TestExcerptsShowWhatIsNoSecret(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"behind a literal secret": {with(t, "session:\n  keys: [file:/run/secrets/session-key]",
			`session: {keys: ["literal:hunter2 hunter2"], idle_timout: 1h}`),
			"session: {keys: [<secret>], idle_timout: 1h}\n       |                             ^\n"},
		"behind a literal value": {with(t, "client_id: sallyport\n    client_secret: env:CLIENT_SECRET",
			"\"client_id\": {a: 'literal:hunter2', b: x}\n    client_secret: env:CLIENT_SECRET"),
			"\"client_id\": {a: 'literal:<secret>', b: x}\n"},
		"behind a password": {with(t, "upstream: http://127.0.0.1:8080\n    allow: authenticated",
			"upstream: {url: 'http://127.0.0.1:8080', host: 'ann:hunter2@b', hots: x}\n    allow: authenticated"),
			"hots: x}\n"},
		"endpoints.token": {with(t, "client_id: sallyport", "endpoints: {token: 'https://a.example/t', jwkss: x}\n    "+
			"client_id: sallyport"),
			"endpoints: {token: 'https://a.example/t', jwkss: x}\n"},
		"listen": {valid + "listen: ':4380'\n", "listen: ':4380'\n       |         ^"},
		// Its name begins like that of a secret, and its port is none.
		"an internal address": {with(t, "issuer: https://sso.example.com", "issuer: http://keycloak:8080/realms/a"),
			"not \"http://keycloak:8080/realms/a\"\n"},
		"an internal address in the line": {with(t, "issuer: https://sso.example.com",
			"issuer: http://sso-tokens.corp:8080/"), "issuer: http://sso-tokens.corp:8080/\n"},
		"a reference without file:": {with(t, "env:CLIENT_SECRET", "/run/secrets/client"),
			"client_secret: /run/secrets/client\n       |                    ^\n"},
	} {
		_, faults := Parse("config.yaml", []byte(c.text))
		if got := faults.Error(); !strings.Contains(got, c.want) || strings.Contains(got, canary) {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
		}
	}
	for _, secret := range []string{"/hunter2", "/aB3/hunter2", "/run", "/etc/a+hunter2=", "$hunter2", "${hunter2!}",
		"listen"} {
		if yamltable.MeantReference(secret) != "" {
			t.Errorf("%s is taken for a place", secret)
		}
	}
}
