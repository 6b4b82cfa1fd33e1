package config

import (
	"slices"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/login"
)

// Bearer says which access tokens of programs a route takes.
type Bearer struct {
	Provider  string // "": none
	Audiences []string
	Claims    Claims
	Quirks    []string
}

func bearerShape() yamltable.Shape[Bearer] {
	var quirks []string
	for _, q := range login.BearerQuirks() {
		quirks = append(quirks, q.Name)
	}
	return yamltable.Object[Bearer]{Keys: []yamltable.Entry[Bearer]{
		yamltable.Field("provider", "The id of the provider that issues the tokens.", idText(),
			func(b *Bearer) *string { return &b.Provider }).Required(),
		yamltable.Field("audiences", "What a token must be for: one of these in its claim aud. Never the client id "+
			"of a sign-in.",
			yamltable.List(exact("an audience"), 1), func(b *Bearer) *[]string { return &b.Audiences }).Required(),
		yamltable.Field("claims", "The names under which access tokens tell things, where they are not those of the "+
			"provider's ID tokens.", claimsShape(),
			func(b *Bearer) *Claims { return &b.Claims }).Or("{}"),
		yamltable.Field("quirks", "Deviations from RFC 9068 that are allowed. any_typ: tokens need not say that they "+
			"are access tokens.",
			yamltable.List(yamltable.OneOf("", quirks...), 1), func(b *Bearer) *[]string { return &b.Quirks }),
	}}.Shape()
}

// BearerOptions are what login needs to know of a route that takes access
// tokens. Client ids that are references count only after Resolve.
func (c *Config) BearerOptions(r Route) login.BearerOptions {
	o := login.BearerOptions{Audiences: r.Bearer.Audiences, Claims: login.ClaimNames(r.Bearer.Claims),
		Quirks: r.Bearer.Quirks}
	for _, p := range c.Providers {
		if p.ClientID != "" {
			o.ClientIDs = append(o.ClientIDs, p.ClientID)
		}
	}
	return o
}

// BearerFaults is what keeps routes from taking access tokens that Parse could
// not see: after Resolve, client ids are known.
func (c *Config) BearerFaults() Faults { return c.doc.Finish(c.checkBearers()) }

func (c *Config) checkBearers() Faults {
	var faults Faults
	for i, r := range c.Routes {
		if r.Bearer.Provider == "" {
			continue
		}
		where := yamltable.Index("routes", i) + ".bearer."
		at := slices.IndexFunc(c.Providers, func(p Provider) bool { return p.ID == r.Bearer.Provider })
		if at < 0 {
			faults = append(faults, c.doc.FaultAt(where+"provider", "no provider has this id"))
			continue
		}
		for _, conflict := range c.Providers[at].Options().BearerConflicts(c.BearerOptions(r)) {
			faults = append(faults, c.doc.FaultAt(where+conflict.Key, "%s", conflict.Why))
		}
	}
	return faults
}
