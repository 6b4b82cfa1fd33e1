package proxy

import (
	"net/http"

	"github.com/sallyport-proxy/sallyport/relay"
)

// The challenge to a request without a token has no error code, the one to a
// request with a bad token has (RFC 6750 §3.1).
const (
	bearerChallenge = `Bearer realm="sallyport"`
	bearerRefused   = `Bearer error="invalid_token"`
)

// unauthorizedBearer does not say why: that is for the log, and a client with a
// forged token need not learn which check refused it.
func (p *Proxy) unauthorizedBearer(w *relay.Client, r *http.Request, ev *event, cause error) error {
	ev.cause = cause
	w.AnswerWithoutBody(r)
	w.Header().Set("WWW-Authenticate", bearerRefused)
	writeJSON(w, r, http.StatusUnauthorized, map[string]string{
		"error": "invalid_token", "request_id": ev.requestID,
		"message": "The access token is not good here, or not any more. Get a new one, then try again."})
	return nil
}
