package login

import (
	"crypto/subtle"
	"net/url"

	"github.com/sallyport-proxy/sallyport/identity"
)

const maxCode = 4 << 10

// readCallback returns the code of an authorization response that is meant for
// this provider and this handshake.
func (p *Provider) readCallback(q url.Values, h identity.Handshake, m *metadata) (string, error) {
	for _, values := range q {
		if len(values) > 1 { // RFC 6749 §3.1; which of two would count? (security.md 85)
			return "", fail(identity.Rejected, "a parameter comes twice in the callback")
		}
	}
	if h.State != "" && subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(h.State)) != 1 {
		return "", fail(identity.Rejected, "the callback's state is not this sign-in's")
	}
	// RFC 9207 §2.4: another provider's answer must not be redeemed here, and an
	// attacker's must not be believed. Compared even if it was not announced.
	if iss, present := q["iss"]; (present || m.issParameter) && (len(iss) != 1 || !p.policy.issuedBy(iss[0])) {
		return "", fail(identity.Rejected, "the callback's iss is not this provider's issuer")
	}
	if _, present := q["error"]; present {
		return "", callbackError(q.Get("error"))
	}
	code := q.Get("code")
	if code == "" || len(code) > maxCode {
		return "", fail(identity.Rejected, "the callback has no code, or an endless one")
	}
	return code, nil
}

// callbackError classes an error of RFC 6749 §4.1.2.1 or OIDC Core §3.1.2.6.
// The codes are listed so that nothing from the address bar gets into the log.
func callbackError(code string) error {
	switch code {
	case "access_denied", "login_required", "interaction_required", "consent_required",
		"account_selection_required", "unmet_authentication_requirements":
		return fail(identity.Declined, "the provider answered %s", code)
	case "server_error", "temporarily_unavailable":
		return fail(identity.Unavailable, "the provider answered %s", code)
	case "invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope",
		"invalid_request_uri", "invalid_request_object", "request_not_supported", "request_uri_not_supported",
		"registration_not_supported", "invalid_target":
		return fail(identity.Misconfigured, "the provider answered %s", code)
	}
	return fail(identity.Misconfigured, "the provider answered with an error code that is not registered")
}
