package grant

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	sweepEvery = 10 * time.Minute
	// idleTime is after how long at most a grant is refreshed that nothing else refreshed: some
	// third parties forget refresh tokens that were not used for 30 days, and do not say so.
	idleTime = 7 * 24 * time.Hour
	// unusedTime is after how long without any use a grant is left to age.
	unusedTime = 30 * 24 * time.Hour
	sweepMost  = 4 // refreshes of a sweep at the same time
)

// sweep goes through all grants now and then, until ctx ends: it refreshes those that apps
// use before the third party forgets them, and has ended for good what ended with sessions.
func (b *Broker) sweep(ctx context.Context) {
	for wait := rand.N(sweepEvery / 4); ; wait = sweepEvery - rand.N(sweepEvery/4) {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
			b.sweepOnce(ctx)
			b.forgetNotices(ctx)
		}
	}
}

func (b *Broker) sweepOnce(ctx context.Context) {
	places := make(chan struct{}, sweepMost)
	var all sync.WaitGroup
	defer all.Wait()
	for f := (Filter{Most: 200}); ; {
		page, err := b.Store.List(ctx, f)
		if err != nil {
			b.Log.Warn("grants could not be listed to refresh them", "error", err.Error())
			return
		}
		for _, k := range page {
			f.After = k.ID
			b.endOffline(ctx, k)
			b.bindOld(ctx, k.Record)
			if !b.idle(k) {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case places <- struct{}{}:
			}
			flight, err := b.startRefresh(k.Record, b.Store.Now())
			if err != nil {
				<-places
				continue
			}
			all.Go(func() {
				<-flight.done
				<-places
			})
		}
		if len(page) < f.Most {
			return
		}
	}
}

// endOffline takes back what apps may do while the person is away where their sessions have
// been ended since they agreed. Lend refuses that at once; but what ended is remembered for
// as long as a session lasts, and such a consent lasts longer.
func (b *Broker) endOffline(ctx context.Context, k Kept) {
	for {
		i := slices.IndexFunc(k.Consents, func(c Consent) bool {
			return c.Offline && b.Ended(c.By, k.organization(), c.At)
		})
		if i < 0 {
			return
		}
		c := k.Consents[i]
		c.Offline, c.Until, c.Lapses = false, time.Time{}, time.Time{}
		if err := b.Store.Agree(ctx, k.ID, c, k.Version); err != nil {
			if !errors.Is(err, ErrChanged) && !errors.Is(err, ErrNotFound) {
				b.Log.Warn("an app may not use a grant any more while the person is away, and that could not be stored",
					"connector", k.Connector, "grant", k.ID, "error", err.Error())
			}
			return // the next sweep goes on with it
		}
		b.emit(ctx, Event{Name: EventWithdrawn, Connector: k.Connector, Owner: k.Owner, App: c.App,
			Detail: "sessions_ended"})
		var err error
		if k, err = keptByID(ctx, b.Store, k.ID); err != nil {
			return
		}
	}
}

// bindOld notes where a grant may be sent that is from before that was noted, so that it need
// not be used for that; and tells the log of those that are not lent for their address.
func (b *Broker) bindOld(ctx context.Context, r Record) {
	offer := b.offers[r.Connector]
	if offer == nil || !r.Status.Usable() || isOther(r, offer.Connector.About()) {
		return
	}
	if e := b.moved(r); e != nil {
		_ = b.elsewhere(r, e) // which tells it; nobody asks here
		return
	}
	if len(r.Destinations) > 0 {
		return
	}
	tokens, err := b.open(r)
	if err == nil {
		_, err = b.bound(ctx, r, tokens)
	}
	if later, ok := errors.AsType[*LaterError](err); ok && ctx.Err() == nil {
		b.Log.Warn("it could not be noted where a grant may be sent", "connector", r.Connector, "grant", r.ID,
			"error", later.Error())
	}
}

// idle reports whether a grant is to be refreshed although nobody asks for it.
func (b *Broker) idle(k Kept) bool {
	offer := b.offers[k.Connector]
	if offer == nil || !k.Offline || k.AccessExpires.IsZero() || !b.statusOf(k.Record).Usable() {
		return false
	}
	if _, ok := offer.Connector.(OAuth); !ok {
		return false
	}
	now := b.Store.Now()
	wants := func(c Consent) bool { return now.Sub(c.UsedAt) < unusedTime }
	return slices.ContainsFunc(k.Consents, wants) && now.Sub(k.RefreshedAt) >= b.idleTime(k.Record)
}

// idleTime is after how long without a refresh r is refreshed: earlier where the third party says
// that it forgets the refresh token earlier, and not for an end that no refresh moves. Tokens that
// cannot be opened are told of where they are needed.
func (b *Broker) idleTime(r Record) time.Duration {
	wait := idleTime
	t, err := b.Keys.Open(r)
	if left := t.RefreshExpires.Sub(r.RefreshedAt); err == nil && left > 0 &&
		(t.Reconsent.IsZero() || t.RefreshExpires.Before(t.Reconsent)) {
		wait = min(wait, left/2)
	}
	return wait - time.Duration(jitter(r)*float64(wait)/4)
}
