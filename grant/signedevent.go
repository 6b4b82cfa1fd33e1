package grant

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// WebhookReceiver is a connector whose third party sends signed events; optional.
type WebhookReceiver interface {
	Connector
	// JudgeEvent says what a message is, whose body is as it came, byte for byte. One of the
	// secrets has to have signed it. It does no I/O, and compares in constant time. Its errors
	// wrap ErrEventSignature, ErrEventTooOld or ErrEventGarbled, and quote nothing of the
	// message. Of what has no signature it says ErrEventUnsigned: for the log, where a secret
	// that is missing at the third party and one that is another need not look alike.
	JudgeEvent(secrets []string, h http.Header, body []byte, now time.Time) (SignedEvent, error)
}

// OneSignature is the value of a header that signs a message. A second one would be what an app
// could read instead. Its errors are ErrEventUnsigned and ErrEventTwice.
func OneSignature(values []string) (string, error) {
	switch {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return "", ErrEventUnsigned
	case len(values) > 1:
		return "", ErrEventTwice
	}
	return values[0], nil
}

// What is wrong with a message. Who sent it is told of none of these which it was.
var (
	ErrEventSignature = errors.New("none of the signing secrets has signed it")
	ErrEventUnsigned  = fmt.Errorf("%w: it has no signature", ErrEventSignature)
	ErrEventTwice     = fmt.Errorf("%w: it has more than one header for that", ErrEventSignature)
	ErrEventTooOld    = errors.New("it is too old, or from the future")
	ErrEventGarbled   = errors.New("it is signed, and is no event")
)

// SignedEvent is what a third party tells, after its signature was verified.
type SignedEvent struct {
	// Answer is what has to be answered, with its media type, to a message that is for
	// Sallyport alone; nil: it is an event.
	Answer     []byte
	AnswerType string

	ID string // the same whenever the event is sent again
	At time.Time
	// Keep is until when the ID is remembered: until a repetition would be refused as too
	// old, or is not to be expected any more.
	Keep time.Time
	// Accounts are the Account.ID of the grants that it is about. Without any it is about all
	// of the connector's.
	Accounts []string
	// Access are names of accesses: an app gets the event only where one of them is lent to it.
	// Without any, each consent will do.
	Access []string
	// Ended is the Record.Reason of grants that have ended with it; "": none has, and the
	// event is for apps. With Ended there have to be Accounts.
	Ended string
	// Lag, with Ended, is how long after a connection or a refresh such an event may be about
	// the credential that was replaced with it.
	Lag time.Duration
	// Header is what apps need of the message's header to verify it themselves.
	Header http.Header
}

// Relayed is a signed event on its way to an app.
type Relayed struct {
	Connector string
	Header    http.Header // SignedEvent.Header
	Body      []byte      // as it came
}

// Received is what became of a message that was good.
type Received struct {
	Answer     []byte // SignedEvent.Answer
	AnswerType string
	Note       string // in words, for the log
}

// becameOf says in words what became of a message that was good.
var becameOf = map[string]string{
	eventAnswered: "the event: it asked whether this is the address, and was answered",
	eventEnded:    "the event: the grants that it says have ended there are marked",
	eventRelayed:  "the event: all apps that it is for have taken it",
	eventRepeated: "the event: it came before, and all apps that it is for had taken it",
	eventNobody: "the event: it is for no app: what it is about is not connected, or lent to no app that has an " +
		"events_url and an access for it",
}

// What becomes of a signed event, for metrics.
const (
	eventAnswered = "answered" // it was for Sallyport alone
	eventEnded    = "ended"    // what it says of grants is noted, or was known
	eventRelayed  = "relayed"  // all apps that it is for have taken it
	eventRepeated = "repeated" // the same, some time before
	eventNobody   = "nobody"   // no app has a consent to what it is about
	eventFailed   = "failed"   // it could not be noted or handed on, and has to come again
	eventRefused  = "refused"  // its signature is wrong, it is too old, or no event
)

const (
	// relayTime is how long apps have for an answer: Slack wants one from us within three
	// seconds (https://api.slack.com/apis/events-api), PagerDuty within five.
	relayTime = 2500 * time.Millisecond
	// claimTime is how long an app is left to the replica that hands it an event.
	claimTime = 2 * relayTime
	// eventStoreTime is how long it may take to note what an app has taken, after relayTime.
	eventStoreTime = 2 * time.Second
	claimEvery     = 200 * time.Millisecond
	eventPage      = 100
)

var errNotTaken = errors.New("an app did not take the event")

// Receives reports whether a connector has signed events.
func (b *Broker) Receives(connector string) bool {
	_, ok := b.receiver(connector)
	return ok
}

func (b *Broker) receiver(connector string) (WebhookReceiver, bool) {
	offer := b.offers[connector]
	if offer == nil || len(offer.SigningSecrets) == 0 {
		return nil, false
	}
	receiver, ok := offer.Connector.(WebhookReceiver)
	return receiver, ok
}

// Receive takes a message of a third party: it marks the grants that have ended, or hands the
// event on to the apps that it is for, byte for byte. It returns nil once that is done, by
// this call or an earlier one; a *LaterError where the message has to come again; else
// ErrNoConnector or what JudgeEvent said, before anything was read from the store. It goes on
// if the sender leaves.
func (b *Broker) Receive(ctx context.Context, connector string, h http.Header, body []byte) (Received, error) {
	receiver, ok := b.receiver(connector)
	if !ok {
		return Received{}, ErrNoConnector
	}
	e, err := receiver.JudgeEvent(b.offers[connector].SigningSecrets, h, body, b.Store.Now())
	switch {
	case err != nil:
		b.Metrics.received(connector, eventRefused)
		return Received{}, fmt.Errorf("a message for %s: %w", connector, err)
	case e.Answer != nil:
		b.Metrics.received(connector, eventAnswered)
		return Received{e.Answer, e.AnswerType, becameOf[eventAnswered]}, nil
	case e.ID == "" || e.Ended != "" && len(e.Accounts) == 0:
		b.Metrics.received(connector, eventRefused)
		return Received{}, fmt.Errorf("a message for %s: %w: it does not say what it is about", connector,
			ErrEventGarbled)
	}
	if !b.begin() {
		return Received{}, &LaterError{time.Second, errClosed}
	}
	defer b.work.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), relayTime)
	defer cancel()
	outcome := eventEnded
	if e.Ended != "" {
		err = b.endedThere(ctx, connector, e)
	} else {
		outcome, err = b.relay(ctx, connector, e, body)
	}
	if err != nil {
		b.Metrics.received(connector, eventFailed)
		return Received{}, &LaterError{time.Second, err}
	}
	b.Metrics.received(connector, outcome)
	return Received{Note: becameOf[outcome]}, nil
}

// endedThere marks the grants of the accounts of e, each once, whatever else is known of
// their end and in whatever order that comes.
func (b *Broker) endedThere(ctx context.Context, connector string, e SignedEvent) error {
	return b.eachAbout(ctx, connector, e.Accounts, func(k Kept) (bool, error) {
		return true, b.endThere(ctx, k.Key, k.Record, e)
	})
}

// endThere marks one grant, unless the event is from before it was connected or refreshed
// last: with that the third party has said that it lives. Third parties tell the time of
// events in whole seconds, so that in the same second it is not known what came first; then
// the grant stays, and its next refresh tells.
func (b *Broker) endThere(ctx context.Context, k Key, r Record, e SignedEvent) error {
	for {
		if r.Status == RevokedUpstream || !e.At.Add(-e.Lag).After(r.RefreshedAt) { // or connected
			return nil
		}
		err := b.Store.SetStatus(ctx, r.ID, r.Generation, RevokedUpstream, e.Ended, time.Time{})
		switch {
		case err == nil:
			b.changed(ctx, r, RevokedUpstream, e.Ended)
			return nil
		case errors.Is(err, ErrNotFound):
			return nil
		case !errors.Is(err, ErrHeld) && !errors.Is(err, ErrChanged):
			return fmt.Errorf("note that a grant has ended: %w", err)
		}
		if err := pause(ctx, pollHeld); err != nil {
			return fmt.Errorf("note that a grant has ended: it is being refreshed: %w", err)
		}
		kept, err := b.Store.Get(ctx, k)
		switch {
		case errors.Is(err, ErrNotFound), err == nil && kept.ID != r.ID:
			return nil // it was disconnected, and may have been connected again
		case err != nil:
			return fmt.Errorf("read the grant: %w", err)
		}
		r = kept.Record
	}
}

// eachAbout goes through the grants of accounts, or without any through all of a connector,
// as long as do wants more. Those of another client are no matter of this one's events.
func (b *Broker) eachAbout(ctx context.Context, connector string, accounts []string,
	do func(Kept) (more bool, err error)) error {
	if len(accounts) == 0 {
		accounts = []string{""}
	}
	about := b.offers[connector].Connector.About()
	for _, account := range accounts {
		f := Filter{Connector: connector, Account: account, Most: eventPage}
		for {
			list, err := b.Store.List(ctx, f)
			if err != nil {
				return fmt.Errorf("read grants: %w", err)
			}
			for _, k := range list {
				if isOther(k.Record, about) {
					continue
				}
				if more, err := do(k); err != nil || !more {
					return err
				}
			}
			if len(list) < eventPage {
				break
			}
			f.After = list[len(list)-1].ID
		}
	}
	return nil
}

// relay hands an event to all apps that it is for, at the same time.
func (b *Broker) relay(ctx context.Context, connector string, e SignedEvent, body []byte) (string, error) {
	apps, err := b.appsFor(ctx, connector, e)
	if err != nil || len(apps) == 0 {
		return eventNobody, err
	}
	repeated, failed := make([]bool, len(apps)), make([]error, len(apps))
	var all sync.WaitGroup
	for i, app := range apps {
		all.Go(func() { repeated[i], failed[i] = b.handOn(ctx, app, connector, e, body) })
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		return "", err
	}
	if !slices.Contains(repeated, false) {
		return eventRepeated, nil
	}
	return eventRelayed, nil
}

// appsFor are the apps that are told of events and that somebody has agreed to lend such a
// grant to, with an access that covers the event.
func (b *Broker) appsFor(ctx context.Context, connector string, e SignedEvent) (apps []string, err error) {
	var asked []string
	for id, app := range b.apps {
		if app.Told && b.Relay != nil && len(app.Connectors[connector]) > 0 {
			asked = append(asked, id)
		}
	}
	if asked == nil {
		return nil, nil
	}
	err = b.eachAbout(ctx, connector, e.Accounts, func(k Kept) (bool, error) {
		for _, id := range asked {
			consent, agreed := k.Consent(id)
			covers := len(e.Access) == 0 || slices.ContainsFunc(b.effective(k, consent), func(a Access) bool {
				return slices.Contains(e.Access, a.Name)
			})
			if agreed && covers && !slices.Contains(apps, id) {
				apps = append(apps, id)
			}
		}
		return len(apps) < len(asked), nil
	})
	return apps, err
}

// handOn hands an event to one app, unless that has it. Of several replicas one does, and the
// others wait for what becomes of it. It is noted as taken only when it is: a process that is
// killed in between may have handed over what is handed over again.
func (b *Broker) handOn(ctx context.Context, app, connector string, e SignedEvent, body []byte) (bool, error) {
	value := "event/" + connector + "/" + app + "/" + e.ID
	var until time.Time
	for {
		until = b.Store.Now().Add(claimTime)
		taken, err := b.Store.Claim(ctx, value, until)
		if taken || err == nil {
			if taken {
				return true, nil
			}
			break
		}
		if !errors.Is(err, ErrHeld) {
			return false, fmt.Errorf("claim an event: %w", err)
		}
		if err := pause(ctx, claimEvery); err != nil {
			return false, fmt.Errorf("an app is being handed the event elsewhere: %w", err)
		}
	}
	err := b.Relay(ctx, app, Relayed{connector, e.Header, body})
	noted, cancel := context.WithTimeout(context.WithoutCancel(ctx), eventStoreTime)
	defer cancel()
	if err != nil {
		b.Log.Warn("an app did not take an event of a third party, which has to send it again", "app", app,
			"connector", connector, "error", err.Error())
		if err := b.Store.Unclaim(noted, value, until); err != nil {
			b.Log.Warn("a claim on an event could not be given back, and ends by itself", "error", err.Error())
		}
		return false, fmt.Errorf("%w: %s", errNotTaken, app)
	}
	if err := b.Store.Taken(noted, value, until, e.Keep); err != nil {
		// The app has it. To have it sent again would do it no good.
		b.Log.Warn("it could not be noted that an app has taken an event: it may get it twice", "app", app,
			"connector", connector, "error", err.Error())
	}
	return false, nil
}

// pause waits, but not longer than ctx lasts.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
