package identity

import "cmp"

// Exclusion is the closed list of reasons for which a configuration does not admit somebody
// whom a provider has proved. The front door chooses its words by it.
type Exclusion string

const (
	// OtherOrganization: the account is of another organization than those that may come in.
	OtherOrganization Exclusion = "other_organization"
	// PersonalAccount: the account is of no organization, and one has to be.
	PersonalAccount Exclusion = "personal_account"
	// NoMember: the person is a member of none of the organizations that may come in, or
	// the provider does not say so.
	NoMember Exclusion = "no_member"
	// UnverifiedAddress: the provider wants the person to verify their address there first.
	UnverifiedAddress Exclusion = "unverified_address"
	// TooManyMemberships: more organizations, or groups in them, than can be kept.
	TooManyMemberships Exclusion = "too_many_memberships"
)

// NotAdmittedError is inside a SignInError with NotAdmitted, and says who is not admitted
// and why. Its text is that of Err, which is for the log and does not name the person.
type NotAdmittedError struct {
	Who Identity // the id, and how the person knows the account; the organization only where it is the reason
	Why Exclusion
	Err error
}

func (e *NotAdmittedError) Error() string { return e.Err.Error() }
func (e *NotAdmittedError) Unwrap() error { return e.Err }

// Account is how the person knows the account they signed in with: for their own eyes,
// as nobody may have verified it. "" where the provider says nothing of the kind.
func (e *NotAdmittedError) Account() string { return cmp.Or(e.Who.Email, e.Who.Username, e.Who.Name) }
