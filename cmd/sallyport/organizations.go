package main

import (
	"errors"
	"fmt"

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

// orgIDs are what {org} in a host may stand for.
func orgIDs(cfg *config.Config) []string {
	var ids []string
	for _, o := range cfg.Organizations {
		ids = append(ids, o.ID)
	}
	return ids
}
