package connector

import (
	"errors"
	"net/http"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// The reasons of a grant.Error that connectors share. Those of one third party are in its
// folder.
const (
	GrantRefused   = "grant_refused"    // the third party no longer accepts the refresh token, or the code
	Denied         = "denied"           // the person said no
	ClientRefused  = "client_refused"   // our client id or secret is not accepted
	RequestRefused = "request_refused"  // our request is not what the third party accepts from this client
	WrongEndpoint  = "wrong_endpoint"   // there is no token endpoint at that address
	Busy           = "busy"             // 429, 5xx, or a code that says so
	UnknownCode    = "unknown_code"     // a refusal that this connector has no word for
	Garbled        = "garbled"          // an answer that is not whole, or cannot be used
	NoAnswer       = "no_answer"        // none in time, or the connection broke
	Unreachable    = "unreachable"      // no connection, so nothing was sent
	ScopesMissing  = "scopes_missing"   // less was granted than was asked for
	NoRefreshToken = "no_refresh_token" // there was to be one
	NoAccount      = "no_account"       // who the account is was not told
)

// Meaning is what a code of a third party means for a grant.
type Meaning struct {
	Class  grant.Class
	Reason string
}

// Codes says what a third party's own codes mean, those of the token endpoint and those
// that come back with the browser. A code that is not in it means what the standard says.
type Codes map[string]Meaning

// standard are the codes of RFC 6749 §4.1.2.1 and §5.2, and RFC 8707 §2, and those for
// which package oauth has a Kind of its own. GitHub's, among these, come with status 200;
// bad_refresh_token is the one that its pages do not list.
func standard(code string) (Meaning, bool) {
	switch code {
	case "invalid_grant", "invalid_code", "code_already_used", "bad_verification_code", "bad_refresh_token":
		return Meaning{grant.Yours, GrantRefused}, true
	case "access_denied", "consent_required", "interaction_required", "login_required":
		return Meaning{grant.Yours, Denied}, true
	case "invalid_client", "bad_client_secret", "invalid_client_id", "incorrect_client_credentials":
		return Meaning{grant.Ours, ClientRefused}, true
	case "invalid_request", "unauthorized_client", "unsupported_grant_type", "unsupported_response_type",
		"invalid_scope", "invalid_target", "bad_redirect_uri", "redirect_uri_mismatch":
		return Meaning{grant.Ours, RequestRefused}, true
	case "server_error", "temporarily_unavailable", "slow_down":
		return Meaning{grant.Later, Busy}, true
	}
	return Meaning{}, false
}

// meaning looks up the first of codes that means something.
func (c Codes) meaning(codes ...string) (Meaning, bool) {
	for _, code := range codes {
		if m, ok := c[code]; ok {
			return m, true
		}
	}
	for _, code := range codes {
		if m, ok := standard(code); ok {
			return m, true
		}
	}
	return Meaning{}, false
}

// Refused is the error of a callback whose error parameter is code. A code that is not
// known is nobody's to mend; the text does not quote it, because a browser brought it.
func (c Codes) Refused(code string) *grant.Error {
	m, ok := c.meaning(code)
	if !ok {
		m = Meaning{grant.Later, UnknownCode}
	}
	return &grant.Error{Class: m.Class, Reason: m.Reason, Err: errors.New("the third party answered with an error")}
}

// Failed is what a failed call to a token or revocation endpoint means. err is nil, or one
// of package oauth; any other is grant.Lost, as grant.ClassOf has it. What decides is
// whether a refresh token that can be used once may have been used up:
//
//   - nothing was sent: grant.Unsent.
//   - no answer, or not a whole one, or a success that cannot be read: grant.Lost.
//   - 429 and 5xx, whatever the body says: grant.Later. They are answers, and a third party
//     that is down for an hour answers so to everybody; the tokens are kept meanwhile.
//   - a refusal with a code: what Codes or the standard says.
//   - a refusal with another code: grant.Later. One person's grant must neither end nor stop
//     those of all others by a word that nobody here knows.
//   - a refusal without a code: grant.Ours where the address or our client is not accepted
//     (3xx, 401, 404, 405, 410), else grant.Later.
func (c Codes) Failed(err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*oauth.Error](err)
	if !ok {
		return &grant.Error{Class: grant.Lost, Reason: NoAnswer, Err: err}
	}
	m := c.means(e)
	return &grant.Error{Class: m.Class, Reason: m.Reason, RetryAfter: e.RetryAfter, Err: e}
}

func (c Codes) means(e *oauth.Error) Meaning {
	switch {
	case e.Sent == oauth.Never && e.Kind == oauth.Misconfigured: // it could not even be written
		return Meaning{grant.Ours, RequestRefused}
	case e.Sent == oauth.Never:
		return Meaning{grant.Unsent, Unreachable}
	case e.Status == 0:
		return Meaning{grant.Lost, NoAnswer}
	case e.Status >= 500, e.Status == http.StatusTooManyRequests, e.Status == http.StatusRequestTimeout:
		return Meaning{grant.Later, Busy}
	}
	if m, ok := c.meaning(append(append([]string{}, e.SubCodes...), e.OwnCode, e.Code)...); ok {
		return m
	}
	switch {
	case e.OwnCode != "":
		return Meaning{grant.Later, UnknownCode}
	case e.Status < 300:
		return Meaning{grant.Lost, Garbled}
	case e.Status < 400, e.Status == http.StatusNotFound, e.Status == http.StatusMethodNotAllowed,
		e.Status == http.StatusGone:
		return Meaning{grant.Ours, WrongEndpoint}
	case e.Status == http.StatusUnauthorized:
		return Meaning{grant.Ours, ClientRefused}
	}
	return Meaning{grant.Later, UnknownCode}
}

// Ended is what a call to a revocation endpoint (RFC 7009) came to. A token that the third
// party does not know is one that is over there.
func (c Codes) Ended(err error) (grant.Revocation, error) {
	if err == nil {
		return grant.Revoked, nil
	}
	if e, ok := errors.AsType[*oauth.Error](err); ok && e.Sent == oauth.Answered && e.Status < 500 {
		switch {
		case e.Status >= 200 && e.Status < 300: // its body is not needed (RFC 7009 §2.2), nor its end
			return grant.Revoked, nil
		case e.OwnCode == "invalid_token", e.OwnCode == "invalid_grant":
			return grant.Revoked, nil
		case e.OwnCode == "unsupported_token_type":
			return grant.NotSupported, nil
		}
	}
	return grant.RevokeFailed, c.Failed(err)
}
