package main

import (
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/identity"
)

// fold is what a sign-in makes of who, for explain. An organization of the
// configuration can be asked for by its id, as rules name it.
func fold(cfg *config.Config, who identity.Identity) (identity.Identity, error) {
	orgs, faults := assemble.NewOrganizations(cfg)
	if len(faults) > 0 {
		return who, configFaults(faults)
	}
	if strings.Contains(who.Org.ID, ":") || who.Org.ID == "" {
		return orgs.Fold(who), nil
	}
	i := slices.IndexFunc(cfg.Organizations, func(o config.Organization) bool { return o.ID == who.Org.ID })
	if i < 0 {
		return who, usage("--org: no organization is called %q; an id at a provider is \"%s:…\"", who.Org.ID, who.Provider)
	}
	o := cfg.Organizations[i]
	who.Org = identity.Org{ID: o.ID, Name: o.Name, Domain: o.Domain, Source: identity.SourceConfig}
	return who, nil
}
