package identity

import (
	"errors"
	"time"
)

// Handshake holds the secrets of one authorization-code round trip. session
// derives them, login sends and checks them.
type Handshake struct {
	State    string // RFC 6749 §10.12: binds the callback to this browser
	Nonce    string // OIDC Core §3.1.2.1: binds the ID token to this round trip
	Verifier string // RFC 7636: binds the code to this round trip
}

// AuthParams is what a front door may ask of a provider for one sign-in.
type AuthParams struct {
	Prompt    string        // OIDC Core §3.1.2.1: "", "none", "login", "select_account"
	LoginHint string        // an address or name to prefill
	ACR       string        // the acr_values wanted, blanks between; checked in the answer
	MaxAge    time.Duration // 0: as old as the provider likes; checked in the answer
}

// SignInFailure is the closed list of ways in which a sign-in fails. The front
// door chooses the page by it; operators count it.
type SignInFailure string

const (
	// Unavailable: the provider did not answer, or not in time. Trying again helps.
	Unavailable SignInFailure = "unavailable"
	// ProviderFault: the provider answered that something failed there. Trying
	// again later helps.
	ProviderFault SignInFailure = "provider_fault"
	// Expired: the provider's own sign-in page was open for too long, and the
	// provider asks to begin again.
	Expired SignInFailure = "expired"
	// Declined: the provider told us no, or the person cancelled there.
	Declined SignInFailure = "declined"
	// NotAdmitted: the person proved who they are, and is none of those whom the
	// configuration admits.
	NotAdmitted SignInFailure = "not_admitted"
	// Interaction: the provider would have to ask the person something, and was told not to
	// (OIDC Core §3.1.2.6), or the person has to sign in more strongly.
	Interaction SignInFailure = "interaction"
	// ClockSkew: the token is not valid yet or not any more, by our clock.
	ClockSkew SignInFailure = "clock_skew"
	// Rejected: what came back failed a check. Nobody is signed in.
	Rejected SignInFailure = "rejected"
	// Misconfigured: the provider refuses our client id, secret or request.
	Misconfigured SignInFailure = "misconfigured"
)

// SignInFailures is that list.
func SignInFailures() []SignInFailure {
	return []SignInFailure{Unavailable, ProviderFault, Expired, Declined, NotAdmitted, Interaction, ClockSkew, Rejected,
		Misconfigured}
}

// SignInError is how a login provider reports a failed sign-in. Err is for the
// log; by contract its text holds no token, code, secret or response body.
type SignInError struct {
	Failure SignInFailure
	Err     error
}

func (e *SignInError) Error() string { return string(e.Failure) + ": " + e.Err.Error() }
func (e *SignInError) Unwrap() error { return e.Err }

// FailureOf classifies err. An error without a class counts as Rejected: an
// unforeseen failure must not look like one where trying again helps.
func FailureOf(err error) SignInFailure {
	var s *SignInError
	if errors.As(err, &s) {
		return s.Failure
	}
	return Rejected
}
