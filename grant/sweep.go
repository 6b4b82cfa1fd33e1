package grant

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	sweepEvery = 10 * time.Minute
	// idleTime is after how long a grant is refreshed that nothing else refreshed: some
	// third parties forget refresh tokens that were not used for 30 days.
	idleTime = 7 * 24 * time.Hour
	// unusedTime is after how long without any use a grant is left to age.
	unusedTime = 30 * 24 * time.Hour
	sweepMost  = 4 // refreshes of a sweep at the same time
)

// sweep refreshes the grants that apps use now and then before the third party forgets
// them, until ctx ends.
func (b *Broker) sweep(ctx context.Context) {
	for {
		timer := time.NewTimer(sweepEvery - rand.N(sweepEvery/4))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
			b.sweepOnce(ctx)
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
	wait := idleTime - time.Duration(jitter(k.Record)*float64(idleTime)/4)
	return now.Sub(k.RefreshedAt) >= wait && slices.ContainsFunc(k.Consents, func(c Consent) bool {
		return now.Sub(c.UsedAt) < unusedTime
	})
}
