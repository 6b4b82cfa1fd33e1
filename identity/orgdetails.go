package identity

import (
	"cmp"
	"errors"
	"time"
)

// SourceDirectory is the Source of an Org whose name is from the provider's directory.
const SourceDirectory = "directory"

// OrgDetails are what the directory of a provider says of an organization, which an
// administrator of it has had read. They add to an Org and never say who belongs to it.
type OrgDetails struct {
	OrgID string // that of the Org: "<provider id>:<id there>"
	// CustomerID is what the provider itself calls the organization: it stays where a domain is
	// sold, or another domain becomes the primary one.
	CustomerID string
	Name       string // for people; "": the directory has none
	Domain     string // the primary one
	ReadAt     time.Time
	ReadBy     string // Identity.ID of the administrator
}

// ErrOtherCustomer is what keeping OrgDetails fails with where details of the same Org are kept
// that have another CustomerID: its domain has changed hands.
var ErrOtherCustomer = errors.New("the organization's domain was another customer's of the provider before")

// Of is org as the details have it: the id is that of the Org, whatever they say.
func (d OrgDetails) Of(org Org) Org {
	if d.OrgID != org.ID {
		return org
	}
	org.Name, org.Domain, org.Source = cmp.Or(d.Name, org.Name), cmp.Or(d.Domain, org.Domain), SourceDirectory
	return org
}
