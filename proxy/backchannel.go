package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/session"
)

// LogoutVerifier verifies the logout tokens of a provider. Errors are
// *identity.SignInError: Rejected and ClockSkew are about the token, and with every
// other failure it could not be checked now.
type LogoutVerifier interface {
	Verify(ctx context.Context, token string) (identity.ProviderLogout, error)
}

const (
	maxLogoutForm = 16 << 10
	// logoutTime is how long a provider waits for its answer at most: keys may have to
	// be fetched, and the store may be slow.
	logoutTime = 15 * time.Second
	// logoutsChecked is how many logout tokens of a provider are checked at one time. To
	// check one takes no time, unless its keys have to be fetched.
	logoutsChecked = 64
	// logoutRate is how many logouts of a provider are written in a second.
	logoutRate = 50
)

// backchannelEndpoint is where providers say who signed out there (OpenID Connect
// Back-Channel Logout 1.0). No browser takes part: no cookie is read, and none is set.
type backchannelEndpoint struct {
	process   *Process
	sessions  *session.Manager
	receivers map[string]*logoutReceiver // by the provider's id
}

// logoutReceiver takes the logout tokens of one provider.
type logoutReceiver struct {
	verifier LogoutVerifier
	checking chan struct{} // has an entry for each token that is being checked
	rate     rate
}

func newBackchannelEndpoint(p *Process, sessions *session.Manager, all providers) *backchannelEndpoint {
	e := &backchannelEndpoint{process: p, sessions: sessions, receivers: map[string]*logoutReceiver{}}
	for _, provider := range all {
		if provider.Logouts != nil {
			e.receivers[provider.ID] = &logoutReceiver{verifier: provider.Logouts,
				checking: make(chan struct{}, logoutsChecked), rate: rate{perSecond: logoutRate, now: p.now}}
		}
	}
	return e
}

// serve answers 200 once it is written that the sessions are over, also where there
// are none; 400 to what no sender can mend by sending it again, without a reason,
// which is in the log; and 503 to what may come again.
func (e *backchannelEndpoint) serve(w http.ResponseWriter, r *http.Request, ev *event) error {
	w.Header().Set("Cache-Control", "no-store") // Back-Channel Logout §2.8
	id := r.PathValue("provider")
	receiver := e.receivers[id]
	if receiver == nil {
		return &failure{Status: http.StatusNotFound, Cause: errors.New("no provider of this name sends logout tokens " +
			"here")}
	}
	ev.Provider = id
	token, status, err := logoutTokenOf(w, r)
	if err != nil {
		return refuseLogout(w, r, ev, status, err)
	}
	// A provider that hangs up has said all the same who signed out.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), logoutTime)
	defer cancel()
	logout, err := receiver.verify(ctx, token)
	if err != nil {
		status := statusOfLogout(err)
		ev.Refused = status == http.StatusBadRequest
		return refuseLogout(w, r, ev, status, fmt.Errorf("logout token: %w", err))
	}
	// Only now, so that strangers cannot spend what the provider may send.
	if !receiver.rate.allow() {
		return refuseLogout(w, r, ev, http.StatusTooManyRequests,
			fmt.Errorf("more than %d logouts in a second", logoutRate))
	}
	first, err := e.sessions.EndFromProvider(ctx, id, logout)
	switch {
	case err != nil:
		return refuseLogout(w, r, ev, http.StatusServiceUnavailable, err)
	case !first:
		ev.Refused = true
		return refuseLogout(w, r, ev, http.StatusBadRequest, errors.New("logout token: its jti was used before"))
	}
	ev.User, ev.Action = logout.Person, observe.SessionsEnded
	kind := session.KindPerson
	ev.Ended = "all sessions of the person"
	if logout.ProviderSID != "" {
		kind = session.KindSID
		ev.Ended = "sessions of the session at the provider " + id + ":" + logout.ProviderSID
	}
	e.process.metrics.ended.WithLabelValues(kind.String(), "provider").Inc()
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
	return nil
}

// logoutTokenOf reads the one parameter that the form must have, and which status to
// answer if it does not.
func logoutTokenOf(w http.ResponseWriter, r *http.Request) (token string, status int, err error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return "", http.StatusBadRequest, errors.New("logout: the content is not a form " +
			"(application/x-www-form-urlencoded)")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLogoutForm))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return "", http.StatusRequestEntityTooLarge, fmt.Errorf("logout: more than %d KiB", maxLogoutForm>>10)
	}
	if err != nil {
		return "", http.StatusBadRequest, errors.New("logout: the content broke off")
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form["logout_token"]) != 1 {
		return "", http.StatusBadRequest, errors.New("logout: the form does not have exactly one logout_token")
	}
	return form.Get("logout_token"), 0, nil
}

// verify checks a token, if not too many are being checked.
func (r *logoutReceiver) verify(ctx context.Context, token string) (identity.ProviderLogout, error) {
	select {
	case r.checking <- struct{}{}:
		defer func() { <-r.checking }()
	default:
		return identity.ProviderLogout{}, &identity.SignInError{Failure: identity.Unavailable,
			Err: fmt.Errorf("%d others wait for the provider's keys", logoutsChecked)}
	}
	return r.verifier.Verify(ctx, token)
}

func statusOfLogout(err error) int {
	switch identity.FailureOf(err) {
	case identity.Rejected, identity.ClockSkew:
		return http.StatusBadRequest
	}
	return http.StatusServiceUnavailable
}

// refuseLogout says no more than that: who sends tokens must not learn from the
// answer what is wrong with them. The reason is for the log.
func refuseLogout(w http.ResponseWriter, r *http.Request, ev *event, status int, cause error) error {
	ev.Err = cause
	code := "invalid_request"
	switch status {
	case http.StatusServiceUnavailable:
		code = "temporarily_unavailable"
		w.Header().Set("Retry-After", "5")
	case http.StatusTooManyRequests:
		code = "temporarily_unavailable"
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, r, status, map[string]string{"error": code})
	return nil
}

// rate allows so many in a second, and as many at once.
type rate struct {
	perSecond float64
	now       func() time.Time

	mu   sync.Mutex // guards what follows
	used float64
	last time.Time
}

func (r *rate) allow() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	r.used = max(r.used-max(now.Sub(r.last).Seconds(), 0)*r.perSecond, 0)
	r.last = now
	if r.used+1 > r.perSecond {
		return false
	}
	r.used++
	return true
}
