package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/session"
)

// BearerVerifier is what the front door needs to admit programs by access token.
// It takes one and has no way to hand one out (P8).
type BearerVerifier interface {
	// Verify returns whom the token is about, and when it ends. Errors are
	// *identity.SignInError; Unavailable and Misconfigured say that it could not
	// be judged.
	Verify(ctx context.Context, token string) (identity.Identity, time.Time, error)
}

// takesBearer: a public route asks for nothing, so Authorization is the app's.
func (p *Proxy) takesBearer(route *authz.Route) bool {
	return p.backends[route].Bearer != nil && !route.Access.Public
}

// serveBearer answers a request with an Authorization header on a route that
// takes access tokens. That header alone decides: a bad token is not forgiven
// for the sake of a cookie that a browser may have added.
func (p *Proxy) serveBearer(w *client, r *http.Request, ev *event, route *authz.Route) error {
	s, err := p.readBearer(r, p.backends[route].Bearer)
	switch kind := identity.FailureOf(err); {
	case err == nil:
	case kind == identity.Unavailable, kind == identity.Misconfigured:
		ev.decide("deny", authz.ReasonBearerUnavailable)
		return &failure{Status: http.StatusServiceUnavailable, RetryAfter: 5, Cause: err,
			Sentence: "The access token cannot be checked at the moment."}
	default:
		ev.decide("deny", authz.ReasonBearerInvalid)
		return p.unauthorizedBearer(w, r, ev, err)
	}
	ev.identify(&s)
	verdict := authz.Decide(ev.facts, route, &s.Identity)
	ev.rule = verdict.Rule
	if verdict.Outcome == authz.Forward {
		ev.decide(verdict.Outcome.String(), verdict.Reason)
		return p.forward(w, r, ev, route, &s)
	}
	ev.decide(authz.Deny.String(), verdict.Reason) // there is nobody to send to a sign-in
	return &failure{Status: http.StatusForbidden, Cause: errors.New(verdict.Detail), Sentence: verdict.Public}
}

// readBearer returns what stands for a session where a token is shown: it has no
// id, for there is nothing to renew, to write or to sign out of, and ends when
// the token does.
func (p *Proxy) readBearer(r *http.Request, verifier BearerVerifier) (session.Session, error) {
	token, err := bearerToken(r.Header["Authorization"])
	if err != nil {
		return session.Session{}, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), flowTime)
	defer cancel()
	who, expires, err := verifier.Verify(ctx, token)
	if err != nil {
		return session.Session{}, err
	}
	return session.Session{Identity: p.sessions.Keep(p.orgs.Fold(who)), Expires: expires}, nil
}

// bearerToken is what follows Bearer in the one Authorization header (RFC 6750
// §2.1); what a token looks like, the verifier knows. Of a second header or
// another scheme nobody could say which counts (security.md 44).
func bearerToken(lines []string) (string, error) {
	if len(lines) != 1 {
		return "", errors.New("bearer: several Authorization headers")
	}
	scheme, token, _ := strings.Cut(lines[0], " ")
	if !strings.EqualFold(scheme, "Bearer") { // RFC 9110 §11.1: in any case
		return "", errors.New("bearer: the Authorization header has another scheme")
	}
	return strings.TrimLeft(token, " "), nil
}

// Who shows no token gets no error code, who shows a bad one does: RFC 6750 §3.1.
const (
	bearerChallenge = `Bearer realm="sallyport"`
	bearerRefused   = `Bearer error="invalid_token"`
)

// unauthorizedBearer does not say why: that is for the log, and whoever shows a
// forged token need not learn how far it came.
func (p *Proxy) unauthorizedBearer(w *client, r *http.Request, ev *event, cause error) error {
	ev.cause = cause
	w.answerWithoutBody(r)
	w.Header().Set("WWW-Authenticate", bearerRefused)
	writeJSON(w, r, http.StatusUnauthorized, map[string]string{
		"error": "invalid_token", "message": "The access token is not good here, or not any more. Get a new one, then try again.", "request_id": ev.requestID})
	return nil
}

// byBearer reports whether a session is none, but an access token.
func byBearer(s *session.Session) bool { return s.ID == "" }

// callerKey is under what is kept that was made for the caller of r: two tokens
// of one person are two, and may say different things.
func callerKey(s *session.Session, r *http.Request) string {
	if !byBearer(s) {
		return s.ID
	}
	sum := sha256.Sum256([]byte(r.Header["Authorization"][0]))
	return "bearer " + string(sum[:])
}
