package grant

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

const (
	// mostAnswered is how many keys are remembered in answered, at least half of it.
	mostAnswered = 20_000
	// showTime is how long an account page waits for keys that are asked about once more.
	showTime = time.Second
)

// A key may have been refused for what an operator had written, such as another header than the
// third party reads, or a probe that the key may not see. So what was refused is asked about once
// more with each configuration, because there is a Broker for each, and for each change of the
// grant: another replica may have another configuration. It is asked when an app wants to use the
// grant, or when somebody looks at it, and then works again if the third party says so now.

// mayAskAgain reports whether the third party may be asked once more about a credential that it
// has refused: it is a key, would be sent where it was pasted for, and nothing but an answer of
// the third party ended it. Who looks asks each minute at most; an app only what was not answered.
func (b *Broker) mayAskAgain(r Record, looks bool) bool {
	offer := b.offers[r.Connector]
	if offer == nil || isOther(r, offer.Connector.About()) || b.moved(r) != nil {
		return false
	}
	if _, keyed := offer.Connector.(Keyed); !keyed {
		return false
	}
	switch r.Status {
	case NeedsReconnect, NeedsAdmin, TooNarrow, RevokedUpstream:
	default:
		return false
	}
	switch r.Reason {
	case ReasonRolledBack, ReasonOtherAccount, ReasonLostResponse:
		return false
	}
	version, known := b.answered.Get(r.ID)
	return (looks || !known || version != r.Version) && b.mayProbe(r)
}

// askAgain asks, and returns true where the grant has to be read again.
func (b *Broker) askAgain(ctx context.Context, r Record, looks bool) bool {
	if !b.mayAskAgain(r, looks) || !b.begin() {
		return false
	}
	defer b.work.Done()
	ctx = context.WithoutCancel(ctx) // whoever asked may go away: another one finds the answer
	tokens, err := b.open(r)
	if err == nil && tokens.Refresh == "" {
		tokens, err = b.bound(ctx, r, tokens)
	}
	if err != nil || tokens.Refresh != "" {
		return false
	}
	asked, cancel := context.WithTimeout(ctx, CallTime)
	defer cancel()
	result, err := b.offers[r.Connector].Connector.(Keyed).Accept(asked, tokens.Access,
		Request{Access: r.Access, Scopes: r.Requested})
	if err != nil {
		if _, ended := endBy(ClassOf(err)); ended {
			b.answered.Put(r.ID, r.Version, 1)
		}
		return false
	}
	if result.Tokens.Access != tokens.Access || isOtherAccount(r.Account, result.Account) ||
		len(without(r.Scopes, result.Scopes)) > 0 {
		b.answered.Put(r.ID, r.Version, 1)
		return false
	}
	err = b.Store.SetStatus(ctx, r.ID, r.Generation, Active, "", time.Time{})
	switch {
	case err == nil:
		b.Log.Info("a key that was refused is accepted again", "connector", r.Connector, "grant", r.ID)
		b.changed(ctx, r, Active, "")
		return true
	case errors.Is(err, ErrChanged), errors.Is(err, ErrNotFound):
		return true
	}
	b.Log.Warn("a key is accepted again, and that could not be stored", "connector", r.Connector, "grant", r.ID,
		"error", err.Error())
	return false
}

// askAgainFor is askAgain for the use of an app, if a person lets it use the grant now.
func (b *Broker) askAgainFor(ctx context.Context, u Use, k Kept) bool {
	consent, agreed := k.Consent(u.App)
	app := b.apps[u.App]
	return agreed && len(b.effective(k, consent)) > 0 &&
		(u.Who.Session != nil || app.Offline && b.offlineNow(k, consent)) && b.askAgain(ctx, k.Record, false)
}

// Look asks about the refused keys of somebody who looks at what is connected, before View shows
// it. It waits for showTime: a third party that is slow is no reason to show nothing.
func (b *Broker) Look(ctx context.Context, who identity.Identity) {
	var all sync.WaitGroup
	for id, offer := range b.offers {
		owner, err := offer.ownerFor(who)
		if err != nil {
			continue
		}
		if _, keyed := offer.Connector.(Keyed); !keyed {
			continue
		}
		if offer.Owner == OwnedByOrg && !offer.ManagedBy(who) {
			continue
		}
		kept, err := b.Store.Get(ctx, Key{id, owner})
		if err == nil && !kept.Status.Usable() {
			all.Go(func() { b.askAgain(ctx, kept.Record, true) })
		}
	}
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	timer := time.NewTimer(showTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
	}
}
