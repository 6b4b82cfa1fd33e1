package admission

import (
	"errors"
	"net/url"
	"strings"
)

// CookieChallenge is the WWW-Authenticate of an answer to a program that needs a session:
// login is where people sign in. Basic would make browsers ask for a password.
func CookieChallenge(login string) string {
	return `Cookie realm="sallyport", form-action="` + login + `"`
}

// ErrFormOfOtherSite is why a form has no session whose person may well be signed in.
var ErrFormOfOtherSite = errors.New("a form of another site: browsers send no session cookie with it (SameSite=Lax)")

// AskToSignIn is the JSON of the same answer.
func AskToSignIn(login, requestID string) map[string]string {
	return map[string]string{"error": "login_required", "message": "Sign in at login_url, then try again.",
		"login_url": login, "request_id": requestID}
}

// AskToStepUp is the JSON for a program whose session or access token does not prove what
// the route asks for, with the code of RFC 9470 §3; login is where the person steps up,
// "" for an access token.
func AskToStepUp(login, requestID string) map[string]string {
	body := map[string]string{"error": "insufficient_user_authentication", "request_id": requestID,
		"message": "Get an access token of a sign-in such as the challenge asks for, then try again."}
	if login != "" {
		body["login_url"] = login
		body["message"] = "Open login_url, where the person signs in again, then try again."
	}
	return body
}

// StepUpAt is login, an address where people sign in, for somebody who steps up there for a
// route.
func StepUpAt(login, route string) string {
	if strings.Contains(login, "?") {
		return login + "&step_up=" + url.QueryEscape(route)
	}
	return login + "?step_up=" + url.QueryEscape(route)
}

// TokenRefused is the JSON for a program whose access token is refused. It does not say
// why: a client with a forged token need not learn which check refused it.
func TokenRefused(requestID string) map[string]string {
	return map[string]string{"error": "invalid_token", "request_id": requestID,
		"message": "The access token is not good here, or not any more. Get a new one, then try again."}
}

// PageOf is the path of a page that a request came from, or "/". What a worker fetches,
// and what a style sheet loads, has the script or the style sheet for its Referer: that
// is no place to bring somebody back to.
func PageOf(from string) string {
	path, _, _ := strings.Cut(from, "?")
	path, _, _ = strings.Cut(path, "#")
	for _, ending := range [...]string{".js", ".mjs", ".cjs", ".css", ".wasm"} {
		if strings.HasSuffix(strings.ToLower(path), ending) {
			return "/"
		}
	}
	return from
}
