package config

import (
	"slices"

	"github.com/sallyport-proxy/sallyport/login"
)

// Bearer says which access tokens of programs a route takes.
type Bearer struct {
	Provider  string // "": none
	Audiences []string
	Claims    Claims
	Quirks    []string
}

func bearerShape() shape[Bearer] {
	var quirks []string
	for _, q := range login.BearerQuirks() {
		quirks = append(quirks, q.Name)
	}
	return object[Bearer]{keys: []key[Bearer]{
		field("provider", "The id of the provider that issues the tokens.", idText(), func(b *Bearer) *string { return &b.Provider }).required(),
		field("audiences", "What a token must be for: one of these in its claim aud. Never the client id of a sign-in.",
			list(exact("an audience"), 1), func(b *Bearer) *[]string { return &b.Audiences }).required(),
		field("claims", "The names under which access tokens tell things, where they are not those of the provider's ID tokens.", claimsShape(),
			func(b *Bearer) *Claims { return &b.Claims }).or("{}"),
		field("quirks", "Deviations from RFC 9068 that are allowed. any_typ: tokens need not say that they are access tokens.",
			list(oneOf("", quirks...), 1), func(b *Bearer) *[]string { return &b.Quirks }),
	}}.shape()
}

// BearerOptions are what login needs to know of a route that takes access
// tokens. Client ids that are references count only after Resolve.
func (c *Config) BearerOptions(r Route) login.BearerOptions {
	o := login.BearerOptions{Audiences: r.Bearer.Audiences, Claims: login.ClaimNames(r.Bearer.Claims), Quirks: r.Bearer.Quirks}
	for _, p := range c.Providers {
		if p.ClientID != "" {
			o.ClientIDs = append(o.ClientIDs, p.ClientID)
		}
	}
	return o
}

// BearerFaults is what keeps routes from taking access tokens that Parse could
// not see: after Resolve, client ids are known.
func (c *Config) BearerFaults() Faults { return c.src.open().finish(c.checkBearers()) }

func (c *Config) checkBearers() Faults {
	var faults Faults
	for i, r := range c.Routes {
		if r.Bearer.Provider == "" {
			continue
		}
		where := index("routes", i) + ".bearer."
		at := slices.IndexFunc(c.Providers, func(p Provider) bool { return p.ID == r.Bearer.Provider })
		if at < 0 {
			faults = append(faults, c.src.open().faultAt(where+"provider", "no provider has this id"))
			continue
		}
		for _, conflict := range c.Providers[at].Options().BearerConflicts(c.BearerOptions(r)) {
			faults = append(faults, c.src.open().faultAt(where+conflict.Key, "%s", conflict.Why))
		}
	}
	return faults
}
