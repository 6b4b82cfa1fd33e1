package login

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// defaultReauth is how long a sign-in is believed at providers that are known to answer
	// prompt=none (OIDC Core §3.1.2.1).
	defaultReauth = time.Hour
	// answeredLately is how old the last answer of a provider may be for a browser to be
	// sent there without anybody having asked for it: at a provider that does not answer,
	// the person would be stuck.
	answeredLately = time.Minute
	// probeEvery is how often a provider is asked for nothing but whether it answers.
	probeEvery = 10 * time.Second
)

// NoReauth says that people are never asked to prove again who they are.
const NoReauth time.Duration = -1

// ReauthAfter is how long a sign-in is believed before the provider is asked again, without
// the person, whether it is still true; 0: for as long as the session lasts. For type oidc
// it is known once the provider's discovery document is.
func (p *Provider) ReauthAfter() time.Duration {
	switch {
	case p.reauthAfter == NoReauth:
		return 0
	case p.reauthAfter > 0:
		return p.reauthAfter
	case p.kind == TypeGoogle, p.kind == TypeMicrosoft:
		return defaultReauth
	}
	if m := p.disco.current(); m != nil && m.promptNone {
		return defaultReauth
	}
	return 0
}

// pulse is when a provider last answered, and when it was last asked only for that; nil: never.
// The moments are kept whole, so that a clock that is set changes nothing in between.
type pulse struct{ answered, probed atomic.Pointer[time.Time] }

// isOver reports whether wait has passed since then.
func isOver(now time.Time, then *time.Time, wait time.Duration) bool {
	return then == nil || elapsed(now, *then, wait)
}

// Answering reports whether the provider has answered a request of ours within the last
// minute. If it has not, it is asked in the background, and Answering says so later.
func (p *Provider) Answering(ctx context.Context) bool {
	now := p.now()
	if !isOver(now, p.pulse.answered.Load(), answeredLately) {
		return true
	}
	probed := p.pulse.probed.Load()
	if isOver(now, probed, probeEvery) && p.pulse.probed.CompareAndSwap(probed, &now) {
		go p.probe(context.WithoutCancel(ctx))
	}
	return false
}

// probe asks for a document that the provider publishes. Where none is known to be
// published, only sign-ins tell whether it answers.
func (p *Provider) probe(ctx context.Context) {
	m, err := p.metadata(ctx)
	switch {
	case err != nil:
		return
	case p.dialect.account != nil:
		err = p.probePage(ctx, m.AuthorizationURL)
	case p.disco.static == nil:
		_, err = p.fetchDocument(ctx)
	case m.keys != nil && m.keys.url != "":
		_, err = m.keys.read(ctx, m.keys.url)
	default:
		return
	}
	if err == nil {
		p.noteAnswer()
	}
}

// probePage asks for the page that browsers are sent to, without its parameters. Any answer
// but that of a server that fails is a sign of life.
func (p *Provider) probePage(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "sallyport")
	resp, _, err := p.client.Answer(req, "probe")
	if err == nil && resp.StatusCode >= http.StatusInternalServerError {
		err = errNotAnswered
	}
	return err
}

// noteAnswer is called when the provider has answered as it should.
func (p *Provider) noteAnswer() {
	now := p.now()
	p.pulse.answered.Store(&now)
}
