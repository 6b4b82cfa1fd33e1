package config

import (
	"regexp"
	"slices"
	"strings"

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

func bearerQuirks() (names []string) {
	for _, q := range login.BearerQuirks() {
		names = append(names, q.Name)
	}
	return names
}

func bearerShape() yamltable.Shape[Bearer] {
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
			yamltable.List(yamltable.OneOf("", bearerQuirks()...), 1), func(b *Bearer) *[]string { return &b.Quirks }),
	}}.Shape()
}

// BearerOptions are what login needs to know of access tokens that are taken. Client ids
// that are references count only after Resolve.
func (c *Config) BearerOptions(b Bearer) login.BearerOptions {
	o := login.BearerOptions{Audiences: b.Audiences, Claims: login.ClaimNames(b.Claims), Quirks: b.Quirks}
	for _, p := range c.Providers {
		if p.ClientID != "" {
			o.ClientIDs = append(o.ClientIDs, p.ClientID)
		}
	}
	return o
}

// BearerFaults is what keeps access tokens from being taken that Parse could not see: after
// Resolve, client ids are known.
func (c *Config) BearerFaults() Faults { return c.doc.Finish(c.checkBearers()) }

func (c *Config) checkBearers() (faults Faults) {
	for _, b := range c.bearers() {
		at := slices.IndexFunc(c.Providers, func(p Provider) bool { return p.ID == b.Provider })
		switch {
		case at < 0:
			nearest, others := yamltable.Meant(b.Provider, c.ProviderIDs())
			f := c.doc.FaultAt(b.path+".provider", "no provider has this id%s", others)
			f.Suggestion = nearest
			faults = append(faults, f)
			continue
		case b.app && c.Providers[at].Use != login.UseTokens:
			faults = append(faults, c.doc.FaultAt(b.path+".provider", "is %s, at which people sign in; apps are "+
				"proved by tokens of a provider with `use: tokens`, at which nobody does", b.Provider))
			continue
		}
		for _, conflict := range c.Providers[at].Options().BearerConflicts(c.BearerOptions(b.Bearer)) {
			faults = append(faults, c.doc.FaultAt(b.path+"."+conflict.Key, "%s", conflict.Why))
		}
	}
	return append(faults, c.checkSubjects()...)
}

// ProviderIDs are those of all providers, in their order.
func (c *Config) ProviderIDs() (ids []string) {
	for _, p := range c.Providers {
		ids = append(ids, p.ID)
	}
	return ids
}

// checkSubjects: a token proves one app. Two providers may have one issuer, so that counts,
// where it is known.
func (c *Config) checkSubjects() (faults Faults) {
	owner := map[[2]string]int{} // apps by issuer and subject
	names := regexp.MustCompile(accountNames)
	for i, a := range c.Grants.Apps {
		issuer := a.Bearer.Provider
		for _, p := range c.Providers {
			if p.ID == a.Bearer.Provider && p.Issuer != "" {
				issuer = p.Issuer
			}
		}
		list := yamltable.Index("grants.apps", i) + ".bearer.subjects"
		for n, subject := range a.Bearer.Subjects {
			fault := func(meant, format string, args ...any) {
				f := c.doc.FaultAt(yamltable.Index(list, n), format, args...)
				f.Suggestion = meant
				faults = append(faults, f)
			}
			bare, named := strings.CutPrefix(subject, a.Bearer.Provider+":"+serviceAccount)
			rest, account := strings.CutPrefix(subject, serviceAccount)
			of := [2]string{issuer, subject}
			first, taken := owner[of]
			switch {
			case named:
				fault(serviceAccount+bare, "must be the claim sub alone, without the provider's id")
			case account && !names.MatchString(rest):
				fault("", "must be %sNAMESPACE:NAME, the whole subject of a service account", serviceAccount)
			case taken && first == i:
				fault("", "is there twice")
			case taken:
				fault("", "is a subject of app %s too, and a token proves one app; give each a service account of "+
					"its own", c.Grants.Apps[first].ID)
			default:
				owner[of] = i
			}
		}
	}
	return faults
}

// The subject of a Kubernetes service account is serviceAccount, its namespace, a colon and its
// name (Kubernetes documentation, "Authenticating", Service account tokens): a label and a
// subdomain of DNS (ibid., "Object Names and IDs").
const (
	serviceAccount = "system:serviceaccount:"
	accountNames   = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?:[a-z0-9]([-.a-z0-9]*[a-z0-9])?$`
)

// placedBearer is a Bearer and its place in the file.
type placedBearer struct {
	Bearer
	path string
	app  bool // it proves an app
}

// bearers are all of the file: those of routes and of apps.
func (c *Config) bearers() (all []placedBearer) {
	for i, r := range c.Routes {
		if r.Bearer.Provider != "" {
			all = append(all, placedBearer{r.Bearer, yamltable.Index("routes", i) + ".bearer", false})
		}
	}
	for i, a := range c.Grants.Apps {
		if a.Bearer.Provider != "" {
			all = append(all, placedBearer{a.Bearer.Bearer, yamltable.Index("grants.apps", i) + ".bearer", true})
		}
	}
	return all
}
