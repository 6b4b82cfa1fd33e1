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
	if d.OrgID == "" || d.OrgID != org.ID {
		return org
	}
	org.Name, org.Domain, org.Source = cmp.Or(d.Name, org.Name), cmp.Or(d.Domain, org.Domain), SourceDirectory
	return org
}

// DirectoryReason is the closed list of reasons for which a directory is not read. The front
// door chooses the page by it; operators count it.
type DirectoryReason string

const (
	// DirectoryDeclined: the person said no, or has to sign in at the provider first.
	DirectoryDeclined DirectoryReason = "declined"
	// DirectoryNotGranted: the person came back without having granted the scope.
	DirectoryNotGranted DirectoryReason = "not_granted"
	// DirectoryOtherAccount: the account is not the one that is signed in here.
	DirectoryOtherAccount DirectoryReason = "other_account"
	// DirectoryOtherDomain: the account belongs to another organization than at the sign-in.
	DirectoryOtherDomain DirectoryReason = "other_domain"
	// DirectorySecondary: the organization's primary domain is not that of the account.
	DirectorySecondary DirectoryReason = "secondary_domain"
	// DirectoryNotAdmin: the provider does not show it to this account.
	DirectoryNotAdmin DirectoryReason = "not_admin"
	// DirectoryNotEnabled: the API is not enabled for our client. The operator must act.
	DirectoryNotEnabled DirectoryReason = "not_enabled"
	// DirectoryOtherCustomer: see ErrOtherCustomer. The operator must look at it.
	DirectoryOtherCustomer DirectoryReason = "other_customer"
	// DirectoryUnavailable: no answer, or not now. Trying again helps.
	DirectoryUnavailable DirectoryReason = "unavailable"
	// DirectoryUnusable: the directory's answer has not what is asked for, or in no form for us.
	DirectoryUnusable DirectoryReason = "unusable"
	// DirectoryMisconfigured: the provider refuses our client or request.
	DirectoryMisconfigured DirectoryReason = "misconfigured"
	// DirectoryRejected: what came back failed a check.
	DirectoryRejected DirectoryReason = "rejected"
)

// DirectoryError is how reading a directory fails. Err is for the log; by contract its text
// holds no token, code, secret or response body.
type DirectoryError struct {
	Reason DirectoryReason
	Err    error
}

func (e *DirectoryError) Error() string { return string(e.Reason) + ": " + e.Err.Error() }
func (e *DirectoryError) Unwrap() error { return e.Err }

// DirectoryReasonOf classifies err. An error without a reason counts as DirectoryRejected.
func DirectoryReasonOf(err error) DirectoryReason {
	var d *DirectoryError
	switch {
	case errors.As(err, &d):
		return d.Reason
	case errors.Is(err, ErrOtherCustomer):
		return DirectoryOtherCustomer
	}
	return DirectoryRejected
}
