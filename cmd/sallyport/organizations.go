package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/identity"
)

// newOrganizations gives each fault that identity finds its place in the file.
func newOrganizations(cfg *config.Config) (*identity.Organizations, config.Faults) {
	var list []identity.Organization
	for _, o := range cfg.Organizations {
		list = append(list, identity.Organization{ID: o.ID, Name: o.Name, Domain: o.Domain,
			OrgIDs: o.Match.OrgIDs, EmailDomains: o.Match.EmailDomains})
	}
	orgs, err := identity.NewOrganizations(list)
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return orgs, nil
	}
	var faults config.Faults
	for _, err := range joined.Unwrap() {
		var fault *identity.OrganizationError
		if !errors.As(err, &fault) {
			faults = append(faults, cfg.Fault("organizations", "%v", err))
			continue
		}
		path := fmt.Sprintf("organizations[%d].%s", fault.Organization, fault.Field)
		if fault.Field != "id" {
			path = fmt.Sprintf("organizations[%d].match.%s[%d]", fault.Organization, fault.Field, fault.Index)
		}
		faults = append(faults, cfg.Fault(path, "%s", fault.Why))
	}
	return nil, faults
}

// fold is what a sign-in makes of who, for explain. An organization of the
// configuration can be asked for by its id, as rules name it.
func fold(cfg *config.Config, who identity.Identity) (identity.Identity, error) {
	orgs, faults := newOrganizations(cfg)
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

// orgIDs are what {org} in a host may stand for.
func orgIDs(cfg *config.Config) []string {
	var ids []string
	for _, o := range cfg.Organizations {
		ids = append(ids, o.ID)
	}
	return ids
}
