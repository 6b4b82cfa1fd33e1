package login

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/sallyport-proxy/sallyport/identity"
)

const maxCode = 4 << 10

// readCallback returns the code of an authorization response that is meant for
// this provider and this handshake.
func (p *Provider) readCallback(q url.Values, h identity.Handshake, m *metadata) (string, error) {
	for _, values := range q {
		if len(values) > 1 { // RFC 6749 §3.1: it would not be clear which of them counts
			return "", fail(identity.Rejected, "a parameter comes twice in the callback")
		}
	}
	if h.State != "" && subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(h.State)) != 1 {
		return "", fail(identity.Rejected, "the callback's state is not this sign-in's")
	}
	iss, present := q["iss"]
	if present && !p.callbackIssuer(iss[0]) {
		return "", fail(identity.Rejected, "the callback's iss is not this provider's issuer: "+
			"expected %q, got %.200q; another provider's answer, or issuer is not what the provider calls itself",
			p.issuer, iss[0])
	}
	missing := m.issParameter && !present
	if _, failed := q["error"]; failed {
		// An error signs nobody in, so it is reported even without iss. Keycloak and
		// others leave iss out of errors.
		err := callbackError(q.Get("error"), q.Get("error_description"))
		if missing {
			err.Err = fmt.Errorf("%w (without iss, which the provider announces)", err.Err)
		}
		return "", err
	}
	if missing {
		return "", fail(identity.Rejected, "the callback has no iss, although the provider's discovery document "+
			"announces one (authorization_response_iss_parameter_supported)")
	}
	code := q.Get("code")
	if code == "" || len(code) > maxCode {
		return "", fail(identity.Rejected, "the callback has no code, or an endless one")
	}
	return code, nil
}

// callbackIssuer reports whether a callback with this iss is an answer of this provider
// (RFC 9207 §2.4): the answer of another provider must not be redeemed here. iss is
// compared even if the discovery document did not announce it. There is nothing to
// compare it with only if the operator could not find out the issuer (the quirk
// unchecked_issuer, and no issuer). Then the redirect URI, which each provider has its
// own of, tells the providers apart (RFC 9700 §4.4.2.2).
func (p *Provider) callbackIssuer(iss string) bool {
	return p.dialect.anyIssuer && p.issuer == "" || p.dialect.issuedBy(iss)
}

// CallbackError says what an error code in a callback means. It is for callbacks
// without a state, for which Redeem cannot be called.
func (p *Provider) CallbackError(code, description string) error {
	return callbackError(code, description)
}

// providerError says what an error code means that providers send in a callback.
type providerError struct {
	failure identity.SignInFailure
	means   string // what it means and what to do about it, for the log
}

// providerErrors are the codes of RFC 6749 §4.1.2.1, OIDC Core §3.1.2.6,
// RFC 8707 §2, RFC 9101 and RFC 9470 §3, and some that vendors have added.
func providerErrors() map[string]providerError {
	const scopes = "look at scopes, and at what the client is allowed there"
	return map[string]providerError{
		"access_denied": {identity.Declined,
			"the person cancelled, or may not use this client; see whether they are assigned to it there"},
		// Sign in with LinkedIn, and Sign in with Apple, say it in words of their own.
		"user_cancelled_login": {identity.Declined,
			"the person cancelled at the password"},
		"user_cancelled_authorize": {identity.Declined,
			"the person did not consent"},
		"consent_required": {identity.Interaction,
			"consent is missing; give it for everybody there, if people cannot"},
		"login_required": {identity.Interaction,
			"nobody is signed in there, and the provider showed no page to do so"},
		"interaction_required": {identity.Interaction,
			"the provider wanted to ask the person something, and did not; its policies for this client may forbid it"},
		"account_selection_required": {identity.Interaction,
			"the person has to choose an account there, and was not asked"},
		"insufficient_user_authentication": {identity.Declined,
			"the provider wants the person to sign in more strongly"},
		"unmet_authentication_requirements": {identity.Declined,
			"the person cannot sign in as strongly as was asked"},

		"server_error": {identity.ProviderFault,
			"something failed at the provider; its own log knows what"},
		"temporarily_unavailable": {identity.ProviderFault,
			"the provider is overloaded or being maintained; trying again later helps"},

		"invalid_request": {identity.Misconfigured,
			"the provider cannot read the request; see whether the redirect URI is registered there, " +
				"and whether it wants PKCE left out (quirk no_pkce)"},
		"unauthorized_client": {identity.Misconfigured,
			"the client may not ask this way; allow it the authorization code flow there"},
		"invalid_client": {identity.Misconfigured,
			"the provider does not know client_id, or has disabled it"},
		"unsupported_response_type": {identity.Misconfigured,
			"the client may not ask for a code; allow it the authorization code flow there"},
		"unsupported_response_mode": {identity.Misconfigured,
			"the client may not be answered in the query; allow it the authorization code flow there"},
		"invalid_scope": {identity.Misconfigured,
			"a scope is unknown, or not for this client; " + scopes},
		"invalid_target": {identity.Misconfigured,
			"the provider wants to know for which API; no resource is asked for here, so set its default there"},
		"invalid_resource": {identity.Misconfigured,
			"a scope names an API that the provider does not know; " + scopes},
		"redirect_uri_mismatch": {identity.Misconfigured,
			"the redirect URI is not registered there; sallyport check prints it"},
		"invalid_request_uri": {identity.Misconfigured,
			"the provider wants pushed or signed requests, which are not supported; switch that off for the client"},
		"invalid_request_object": {identity.Misconfigured,
			"the provider wants signed requests, which are not supported; switch that off for the client"},
		"request_not_supported": {identity.Misconfigured,
			"the provider read a request object, and none was sent"},
		"request_uri_not_supported": {identity.Misconfigured,
			"the provider read a request_uri, and none was sent"},
		"registration_not_supported": {identity.Misconfigured,
			"the provider read a registration, and none was sent"},
	}
}

// callbackError makes a sign-in error from an error of a callback. The code is logged
// if it is listed above or a plain word. The description is never logged: providers
// write names and addresses of people into it.
func callbackError(code, description string) *identity.SignInError {
	known, listed := providerErrors()[code]
	switch {
	case code == "temporarily_unavailable" && description == "authentication_expired":
		// Keycloak sends this to somebody who is signed in there, but whose sign-in page
		// was open for too long. Clients should begin again at once
		// (keycloak/keycloak#24112).
		return &identity.SignInError{Failure: identity.Expired,
			Err: errors.New("the provider answered temporarily_unavailable, authentication_expired: " +
				"its sign-in page was open for too long; begin again")}
	case listed:
		return &identity.SignInError{Failure: known.failure,
			Err: fmt.Errorf("the provider answered %s: %s", code, known.means)}
	case code == "":
		return &identity.SignInError{Failure: identity.Misconfigured,
			Err: errors.New("the provider answered with an empty error code")}
	case len(code) <= 64 && strings.Trim(strings.ToLower(code), "abcdefghijklmnopqrstuvwxyz0123456789_-.") == "":
		return &identity.SignInError{Failure: identity.Misconfigured,
			Err: fmt.Errorf("the provider answered %s, an error code of its own: "+
				"its documentation says what that means", code)}
	}
	return &identity.SignInError{Failure: identity.Misconfigured,
		Err: errors.New("the provider answered with an error code that is no plain word, and is not logged")}
}
