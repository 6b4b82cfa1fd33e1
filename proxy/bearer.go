package proxy

import (
	"errors"
	"net/http"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/relay"
)

// unauthorizedBearer refuses an access token. Why is for the log alone.
func (p *Proxy) unauthorizedBearer(w *relay.Client, r *http.Request, ev *event, route *admission.Route,
	cause error) error {
	ev.Err = cause
	w.AnswerWithoutBody(r)
	w.Header().Set("WWW-Authenticate", route.Challenge(ev.facts, "invalid_token"))
	writeJSON(w, r, http.StatusUnauthorized, admission.TokenRefused(ev.RequestID))
	return nil
}

// resourceMetadata is what a program reads before it asks for an access token
// (RFC 9728 §2).
type resourceMetadata struct {
	Resource string   `json:"resource"`
	Issuers  []string `json:"authorization_servers"`
	Methods  []string `json:"bearer_methods_supported"`
}

// serveResource says who issues the access tokens of a route. Nothing in it is
// secret, so programs on pages of other sites may read it too.
func (p *Proxy) serveResource(w http.ResponseWriter, r *http.Request, ev *event, route *admission.Route) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return &failure{Status: http.StatusMethodNotAllowed, Allow: "GET, HEAD", Cause: errors.New("method refused")}
	}
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Cache-Control", "public, max-age=300")
	writeJSON(w, r, http.StatusOK, resourceMetadata{Resource: route.Resource(ev.facts),
		Issuers: []string{route.Tokens.Issuer}, Methods: []string{"header"}})
	return nil
}
