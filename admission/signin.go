package admission

import "strings"

// CookieChallenge is the WWW-Authenticate of an answer to a program that needs a session:
// login is where people sign in. Basic would make browsers ask for a password.
func CookieChallenge(login string) string {
	return `Cookie realm="sallyport", form-action="` + login + `"`
}

// AskToSignIn is the JSON of the same answer.
func AskToSignIn(login, requestID string) map[string]string {
	return map[string]string{"error": "login_required", "message": "Sign in at login_url, then try again.",
		"login_url": login, "request_id": requestID}
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
