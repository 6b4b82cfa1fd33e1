package config

import (
	"slices"
	"strings"
	"testing"
)

const askedAbout = `version: 1
public_url: https://app.example.com
session: {keys: [file:/run/secrets/session-key]}
providers:
  - {id: main, type: oidc, issuer: https://sso.example.com, client_id: sallyport, client_secret: env:CLIENT_SECRET}
routes: [{name: app, path: /, upstream: "http://127.0.0.1:8080", allow: authenticated}]
listen: {external_auth: OFF}
`

// Off unless asked for; the short form is for this machine alone, and asks nobody else in.
func TestP15_WhoMayAskIsSaidByTheFile(t *testing.T) {
	for listen, want := range map[string]struct {
		address, peers string
		warns          bool
	}{
		`""`:               {"", "[]", false},
		`"127.0.0.1:4182"`: {"127.0.0.1:4182", "[127.0.0.0/8 ::1/128]", false},
		`"[::1]:4182"`:     {"[::1]:4182", "[127.0.0.0/8 ::1/128]", false},
		`localhost:4182`:   {"localhost:4182", "[127.0.0.0/8 ::1/128]", false},
		`{address: "127.0.0.1:4182", peers: [127.0.0.2]}`:                          {"127.0.0.1:4182", "[127.0.0.2/32]", false},
		`{address: ":4182", peers: [10.0.0.0/8]}`:                                  {":4182", "[10.0.0.0/8]", true},
		`{address: ":4182", peers: [10.0.0.0/8], cert: file:/c.crt, key: file:/k}`: {":4182", "[10.0.0.0/8]", false},
		`{grpc: ":4183", peers: [10.0.0.0/8]}`:                                     {" :4183", "[10.0.0.0/8]", true},
		`{grpc: ":4183", peers: [10.0.0.0/8], cert: file:/c.crt, key: file:/k}`:    {" :4183", "[10.0.0.0/8]", false},
		`{grpc: "127.0.0.1:4183", address: ":4182", peers: [10.0.0.1]}`:            {":4182 127.0.0.1:4183", "[10.0.0.1/32]", true},
	} {
		c, faults := Parse("c.yaml", []byte(strings.Replace(askedAbout, "OFF", listen, 1)))
		if len(faults) > 0 {
			t.Errorf("%s: %v", listen, faults)
			continue
		}
		e := c.Listen.ExternalAuth
		var peers []string
		for _, p := range e.Peers {
			peers = append(peers, p.String())
		}
		if got := "[" + strings.Join(peers, " ") + "]"; strings.TrimSuffix(e.Address+" "+e.GRPC, " ") != want.address ||
			got != want.peers || e.On() != (want.address != "") {
			t.Errorf("%s: %q, %q, %s", listen, e.Address, e.GRPC, got)
		}
		warned := slices.ContainsFunc(c.Warnings(), func(f Fault) bool {
			return strings.Contains(f.Error(), "cross the network")
		})
		if warned != want.warns {
			t.Errorf("%s: warned %v", listen, warned)
		}
	}
}
