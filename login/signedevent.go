package login

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// eventKind is a kind of signed event (a security event token, RFC 8417): a JWT by
// which a provider tells, without a browser in between, that something happened.
// Each kind has demands of its own on top of verifyEvent, as logouttoken.go has.
type eventKind struct {
	name   string        // in messages
	event  string        // the member of `events` that it must have
	types  []string      // what typ may be, in lower case and without "application/"
	oldest time.Duration // since iat
}

// signedEvent is an event that passed what all kinds of them must pass.
type signedEvent struct {
	claims
	id     string // jti
	issued time.Time
	until  time.Time // from then on it is too old
}

const maxTokenID = 255 // bytes of a jti

// unverifiableEvents is why events of the provider cannot be verified here.
func (o Options) unverifiableEvents() string {
	o = o.complete()
	switch {
	case o.has(quirkHS256): // anybody who shares the secret could make them
		return "signs with the client secret (quirk hs256_id_token), and events need keys that the provider alone has"
	case o.has(quirkIgnoreIDToken):
		return "has no public keys to verify events with"
	case o.has(quirkUncheckedIssuer):
		return "is allowed unchecked_issuer, and an event must say who issued it"
	}
	return ""
}

// verifyEvent checks an event with the keys, the clock and the parties of a sign-in.
// Only the sender of a good one learns anything: a refusal with the failure
// Unavailable means that it could not be checked now, and every other that it is
// refused for good.
func (p *Provider) verifyEvent(ctx context.Context, token string, kind eventKind) (signedEvent, error) {
	event, err := p.openEvent(ctx, token, kind)
	if err != nil {
		return signedEvent{}, aboutToken(kind.name, err)
	}
	return event, nil
}

func (p *Provider) openEvent(ctx context.Context, token string, kind eventKind) (signedEvent, error) {
	m, err := p.metadata(ctx)
	if err != nil {
		return signedEvent{}, err
	}
	content, err := p.verify(ctx, m, token, func(s *keySet) *budget { return s.events })
	if err != nil {
		return signedEvent{}, err
	}
	members, err := oauth.Object(content.payload)
	if err != nil {
		return signedEvent{}, fail(identity.Rejected, "ID token: claims: %w", err)
	}
	event := signedEvent{claims: members}
	for _, check := range []func() error{
		func() error { return kind.checkType(content) },
		func() error { return p.checkIssuedFor(event.claims) },
		func() error { return p.checkValidity(event.claims) },
		func() error { return p.checkAge(event.claims, kind.oldest) },
		func() error { return event.readID() },
		func() error { return kind.checkEvents(event.claims) },
	} {
		if err := check(); err != nil {
			return signedEvent{}, err
		}
	}
	event.issued, _ = event.time("iat")
	exp, _ := event.time("exp")
	event.until = exp.Add(leeway)
	if old := event.issued.Add(kind.oldest); old.Before(event.until) {
		event.until = old
	}
	return event, nil
}

// checkType keeps tokens of another kind out: ID tokens and access tokens are from
// the same issuer, by the same keys, about the same people (RFC 8725 §2.8). Not every
// provider says what its events are.
func (k eventKind) checkType(content signed) error {
	typ := strings.TrimPrefix(identity.LowerASCII(content.typ), "application/") // RFC 7515 §4.1.9: a media type
	if content.typed && !slices.Contains(k.types, typ) {
		return fail(identity.Rejected, "ID token: typ is %s, and must be %s if it is there",
			quoted(content.typ), strings.Join(k.types, " or "))
	}
	return nil
}

func (p *Provider) checkAge(c claims, oldest time.Duration) error {
	iat, _ := c.time("iat")
	if age := p.now().Sub(iat).Round(time.Second); age > oldest {
		return skewError("was issued %s ago: our clock is ahead of the provider's", age)
	}
	return nil
}

// readID: without a name an event could not be told from another one, and would
// count as often as somebody sends it.
func (e *signedEvent) readID() error {
	id, _ := e.text("jti")
	if id == "" || len(id) > maxTokenID {
		return fail(identity.Rejected, "ID token: jti is missing, or not a string of 1 to %d bytes: it is %s",
			maxTokenID, e.form("jti"))
	}
	e.id = id
	return nil
}

// checkEvents: the token is about this kind of event (RFC 8417 §2.2).
func (k eventKind) checkEvents(c claims) error {
	events, err := oauth.Object(c["events"])
	if err != nil {
		return fail(identity.Rejected, "ID token: events is missing, or not a mapping: it is %s", c.form("events"))
	}
	if _, err := oauth.Object(events[k.event]); err != nil {
		return fail(identity.Rejected, "ID token: events has no mapping %s", k.event)
	}
	return nil
}
