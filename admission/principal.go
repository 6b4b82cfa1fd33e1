package admission

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

// Principal is who asks, by what they have shown: a session or an access token.
type Principal struct {
	Identity *identity.Identity
	// Key is the cache key: a session id, or a hash of the access token. Two tokens of
	// one person may carry different claims, so they have different keys.
	Key     string
	Expires time.Time
	Session *session.Session // nil: an access token
}

// identity is nil where nobody asks.
func (p *Principal) identity() *identity.Identity {
	if p == nil {
		return nil
	}
	return p.Identity
}

func (p *Principal) byToken() bool { return p != nil && p.Session == nil }

// Why something that was let in must not go on.
var (
	ErrExpired  = errors.New("the session or access token has expired")
	ErrEnded    = errors.New("the session was ended")
	ErrSwitched = errors.New("another organization was chosen")
	// ErrNoProvider: the provider was taken out of the configuration, and with it
	// everybody who signed in there.
	ErrNoProvider = errors.New("the session's provider is not configured any more")
	// ErrRulesChanged: the configuration was changed, and its rules or routes do not let
	// in what those of before have let in.
	ErrRulesChanged = errors.New("the configuration has changed")
	// ErrUnverifiable: the store has not been read for longer than the route allows.
	ErrUnverifiable = errors.New("whether the session was ended on another server is not known")
)

// Over says why what p was let in for, on route, must not go on; nil if it may.
func (a *Admission) Over(p *Principal, route *Route) error {
	switch s := p.Session; {
	case !a.now().Before(p.Expires):
		return ErrExpired
	case s == nil:
		return nil
	case !a.providers[s.Identity.Provider]:
		return ErrNoProvider
	case a.sessions.HasEnded(s):
		if a.sessions.SignInEnded(*s) {
			return ErrEnded
		}
		return ErrSwitched
	}
	return a.Verifiable(route.MaxAge)
}

// Verifiable returns ErrUnverifiable if what is known of sessions that ended
// elsewhere is older than most; 0 asks for nothing.
func (a *Admission) Verifiable(most time.Duration) error {
	if most > 0 && a.sessions.Age() > most {
		return ErrUnverifiable
	}
	return nil
}

// unverifiable is the refusal of a session that may have been ended elsewhere.
// Nobody is sent to sign in: their session is as good as a new one would be.
func unverifiable(err error) *Refusal {
	return &Refusal{Status: http.StatusServiceUnavailable, Reason: authz.ReasonUnverifiable, RetryAfter: 5, Err: err,
		Title: "Your sign-in cannot be checked right now", Advice: "Try again in a moment. You are still signed in.",
		Public: "Whether you signed out elsewhere is not known at the moment, so this is closed until it is."}
}

// TokenVerifier is what is needed to admit programs by access token. It takes one
// and has no way to hand one out (P8).
type TokenVerifier interface {
	// Verify returns whom the token is about, and when it ends. Errors are
	// *identity.SignInError; Unavailable and Misconfigured say that it could not
	// be judged.
	Verify(ctx context.Context, token string) (identity.Identity, time.Time, error)
}

// Tokens are the access tokens that a route takes.
type Tokens struct {
	TokenVerifier
	Provider string // the id of whose tokens they are; it need not be one where people sign in
	Issuer   string // where programs get them (RFC 9728 §2, authorization_servers)
}

// tokenTime bounds the calls to a provider for one token.
const tokenTime = 15 * time.Second

// asksWho reports whether it matters for a request who makes it.
func (r *Route) asksWho(f authz.Facts) bool { return r.Access.AsksWho() && !r.Access.OpenTo(f) }

// principal finds out who asks for f, which is of a route; nil is nobody. For what is
// public no session is read, and no identity is told. The error is a *Refusal for a
// bad access token, and for a session of which it is not known whether it was ended
// elsewhere; else why there is no session.
//
// Where the route takes access tokens, an Authorization header alone decides: a
// bad token is not forgiven for the sake of a cookie that a browser may have added.
func (a *Admission) principal(ctx context.Context, h http.Header, f authz.Facts, route *Route) (*Principal, error) {
	if !route.asksWho(f) {
		return nil, nil
	}
	if tokens := route.Tokens; tokens != nil && h["Authorization"] != nil {
		return a.byToken(ctx, h["Authorization"], tokens)
	}
	s, err := a.Session(h, f.Host)
	if err != nil {
		return nil, err
	}
	p := &Principal{Identity: &s.Identity, Key: s.ID, Expires: s.Expires, Session: s}
	if err := a.Verifiable(route.MaxAge); err != nil {
		return p, unverifiable(err)
	}
	return p, nil
}

// Session reads the session out of the header of a request for host, which is
// canonical. Errors are those of session.Manager.Read, or say that its provider
// is not configured any more.
func (a *Admission) Session(h http.Header, host string) (*session.Session, error) {
	s, err := a.sessions.Read(cookieHeader(h), host)
	if err == nil && !a.providers[s.Identity.Provider] {
		err = ErrNoProvider
	}
	return &s, err
}

func cookieHeader(h http.Header) string {
	lines := h["Cookie"]
	if len(lines) == 1 {
		return lines[0]
	}
	return strings.Join(lines, "; ")
}

// byToken reads the access token in the lines of an Authorization header.
func (a *Admission) byToken(ctx context.Context, lines []string, tokens TokenVerifier) (*Principal, error) {
	p, err := a.verify(ctx, lines, tokens)
	switch kind := identity.FailureOf(err); {
	case err == nil:
		return p, nil
	case kind == identity.Unavailable, kind == identity.Misconfigured:
		return nil, &Refusal{Status: http.StatusServiceUnavailable, Reason: authz.ReasonBearerUnavailable,
			RetryAfter: 5, Err: err, Public: "The access token cannot be checked at the moment."}
	}
	return nil, &Refusal{Status: http.StatusUnauthorized, Reason: authz.ReasonBearerInvalid, Err: err}
}

func (a *Admission) verify(ctx context.Context, lines []string, tokens TokenVerifier) (*Principal, error) {
	token, err := bearerToken(lines)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	who, expires, err := tokens.Verify(ctx, token)
	if err != nil {
		return nil, err
	}
	who = a.sessions.Keep(a.orgs.Fold(who))
	sum := sha256.Sum256([]byte(lines[0]))
	return &Principal{Identity: &who, Key: "bearer " + string(sum[:]), Expires: expires}, nil
}

// bearerToken is what follows Bearer in the one Authorization header (RFC 6750
// §2.1); the verifier checks what it looks like. A second header is refused, because
// the field is not a list (RFC 9110 §5.3) and nothing says which one counts.
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
