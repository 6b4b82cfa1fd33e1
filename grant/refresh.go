package grant

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

const (
	mostMargin  = 15 * time.Minute
	pollHeld    = 250 * time.Millisecond // how often a lease of somebody else is asked for
	callMargin  = 2 * time.Second        // after CallTime, until a call of somebody else is over
	beforeAgain = time.Second            // between a lost answer and the second attempt
	mostUnsent  = 3
	mostShown   = 2 // how often a refresh token is shown whose answers are lost

	probeEvery  = time.Second // of a connector whose client is refused
	mostBackoff = 5 * time.Minute
	mostRetry   = time.Hour // of what a third party asks for

	saveEvery  = time.Second
	shoutEvery = 10 * time.Second
)

// Reasons of ours, beside those of connectors.
const (
	ReasonLostResponse = "lost_response"
	ReasonRolledBack   = "rolled_back"
	ReasonOtherAccount = "other_account" // a refresh brought the credential of another account
	ReasonRejected     = "rejected"      // the API refused a credential that cannot be refreshed
	ReasonOver         = "over_already"  // a refresh brought a credential that had expired when it came
)

var (
	errClosed  = errors.New("the broker is closed")
	errCrowd   = errors.New("too many wait for a refresh")
	errSlow    = errors.New("a refresh takes long")
	errRetry   = errors.New("the last refresh failed a moment ago")
	errTrouble = errors.New("the third party refuses the client of the connector")
	errUnheld  = errors.New("the lease does not last as long as a call")
)

// flight is a refresh in this process: whatever the number of those who wait, there is one
// for each grant. Callers read the grant again after it, so that nobody gets what is not
// committed.
type flight struct {
	done chan struct{}
	err  error // nil: something changed; read again
}

// trouble is a connector whose client the third party refuses.
type trouble struct{ next time.Time }

// due reports whether it is time to refresh: the smaller of 15 minutes and a fifth of the
// life is left, and less with some grants, so that those that were connected together are
// not refreshed together.
func due(r Record, t Tokens, now time.Time) bool {
	if t.AccessExpires.IsZero() || t.Refresh == "" {
		return false
	}
	issued := t.AccessIssued
	if issued.IsZero() {
		issued = r.RefreshedAt
	}
	margin := min(mostMargin, max(0, t.AccessExpires.Sub(issued))/5)
	margin -= time.Duration(float64(margin) * jitter(r) / 4)
	return !now.Before(t.AccessExpires.Add(-margin))
}

// jitter is between 0 and 1, and stays the same for a credential.
func jitter(r Record) float64 {
	h := fnv.New32a()
	h.Write([]byte(r.ID + strconv.FormatInt(r.Generation, 10)))
	return float64(h.Sum32()) / (1 << 32)
}

// startRefresh joins the refresh that is under way, or begins one. A *LaterError says why
// none is begun.
func (b *Broker) startRefresh(r Record, now time.Time) (*flight, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.flights[r.ID]; f != nil {
		return f, nil
	}
	if b.closed {
		return nil, &LaterError{time.Second, errClosed}
	}
	if wait := leftAlone(r, now); wait > 0 {
		return nil, &LaterError{wait, errRetry}
	}
	if t := b.trouble[r.Connector]; t != nil {
		if wait := time.Until(t.next); wait > 0 {
			return nil, &LaterError{wait, errTrouble}
		}
		t.next = time.Now().Add(probeEvery) // this one asks for all of the connector
	}
	f := &flight{done: make(chan struct{})}
	b.flights[r.ID] = f
	b.work.Add(1)
	go func() {
		defer b.work.Done()
		// Whoever waited may go away: what was begun with a third party is brought to its end.
		f.err = b.refresh(context.Background(), r)
		b.mu.Lock()
		delete(b.flights, r.ID)
		b.mu.Unlock()
		close(f.done)
	}()
	return f, nil
}

// leftAlone is for how long a grant is still left alone after a refresh that failed; 0: it is
// not. A time that is further away than any that is noted is from before the clock was set back.
func leftAlone(r Record, now time.Time) time.Duration {
	most := mostRetry
	if r.Status == OperatorError {
		most = probeEvery
	}
	if wait := r.RetryAt.Sub(now); wait > 0 && wait <= most {
		return wait
	}
	return 0
}

func (b *Broker) inTrouble(connector string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trouble[connector] != nil
}

// refresh takes the lease and shows the refresh token, a second time where the answer was
// lost and the connector allows it.
func (b *Broker) refresh(ctx context.Context, r Record) error {
	lost := 0 // answers that this process itself saw getting lost
	for {
		lease, record, err := b.lease(ctx, r)
		if err != nil || lease.ID == "" {
			return err
		}
		if !record.Status.Usable() || leftAlone(record, b.Store.Now()) > 0 {
			// Who had the lease before has found that out, and the generation is still the same.
			return b.abandon(ctx, lease, record, true, "", "", time.Time{})
		}
		again, err := b.attempt(ctx, lease, record, lost)
		if !again {
			return err
		}
		lost++
		time.Sleep(beforeAgain)
	}
}

// lease waits for the right to refresh. A Lease without an ID and no error say that the
// grant has changed meanwhile.
func (b *Broker) lease(ctx context.Context, r Record) (Lease, Record, error) {
	for begun := time.Now(); ; time.Sleep(pollHeld) {
		asked, cancel := context.WithTimeout(ctx, CallTime)
		lease, record, err := b.Store.Lease(asked, r.ID, r.Generation)
		cancel()
		switch {
		case err == nil:
			return lease, record, nil
		case errors.Is(err, ErrHeld) && time.Since(begun) < waitTime:
			continue
		case errors.Is(err, ErrHeld):
			return Lease{}, Record{}, &LaterError{time.Second, err}
		case errors.Is(err, ErrChanged), errors.Is(err, ErrNotFound):
			return Lease{}, Record{}, nil
		case errors.Is(err, ErrRolledBack):
			b.Log.Error("a grant is older than it was: its row was restored from a copy, or swapped",
				"connector", r.Connector, "grant", r.ID)
			err := b.Store.SetStatus(ctx, r.ID, r.Generation, NeedsReconnect, ReasonRolledBack, time.Time{})
			if err != nil {
				return Lease{}, Record{}, &LaterError{time.Second, err}
			}
			b.changed(ctx, r, NeedsReconnect, ReasonRolledBack)
			return Lease{}, Record{}, nil
		case errors.Is(err, ErrNoRoom):
			b.report("no grant is refreshed: the store has no room for the result", r)
			return Lease{}, Record{}, &LaterError{time.Second, err}
		default:
			b.report("the store of grants does not answer", r, "error", err.Error())
			if lease.Attempt != "" { // it may have been given: nothing was shown, and nobody must count it
				_ = b.abandon(ctx, lease, r, true, "", "", time.Time{}) // which tells where that fails
			}
			return Lease{}, Record{}, &LaterError{time.Second, err}
		}
	}
}

// attempt shows the refresh token once. It returns true where that may be done once more.
func (b *Broker) attempt(ctx context.Context, l Lease, r Record, lost int) (bool, error) {
	held := b.hold(ctx, l)
	defer held.stop()
	offer := b.offers[r.Connector]
	connector, ok := offer.Connector.(OAuth)
	if !ok {
		return false, b.abandon(ctx, l, r, true, "", "", time.Time{})
	}
	tokens, err := b.open(r)
	if err != nil {
		return false, errors.Join(err, b.abandon(ctx, l, r, true, "", "", time.Time{}))
	}
	tokens, err = b.bound(ctx, r, tokens)
	if errors.Is(err, ErrChanged) {
		return false, b.abandon(ctx, l, r, true, "", "", time.Time{}) // it is read again
	}
	if err != nil {
		return false, errors.Join(err, b.abandon(ctx, l, r, true, "", "", time.Time{}))
	}
	resend := tokens.Reusable || offer.Connector.About().Resend
	if l.Shown > lost {
		// The call of who held the lease before may still be under way, for so long at most,
		// also where the clock was set back since it began.
		time.Sleep(min(l.Since.Add(CallTime+callMargin).Sub(b.Store.Now()), CallTime+callMargin))
	}
	if l.Shown >= mostShown || l.Shown > 0 && !resend {
		return false, b.abandon(ctx, l, r, true, NeedsReconnect, ReasonLostResponse, time.Time{})
	}
	result, err := b.call(ctx, held, connector, tokens, r.Scopes)
	if errors.Is(err, errUnheld) {
		b.Metrics.refreshed(r.Connector, string(Unsent))
		b.Log.Warn("a refresh was not sent: this process was stopped, or could not renew its lease",
			"connector", r.Connector, "grant", r.ID)
		return false, b.abandon(ctx, l, r, true, "", "", time.Time{})
	}
	if err == nil && isOtherAccount(r.Account, result.Account) {
		b.Log.Error("a refresh brought the credential of another account, which was dropped",
			"connector", r.Connector, "grant", r.ID)
		return false, b.abandon(ctx, l, r, true, NeedsReconnect, ReasonOtherAccount, time.Time{})
	}
	if err == nil {
		b.Metrics.refreshed(r.Connector, "ok")
		b.recovered(r)
		return false, b.save(ctx, l, r, tokens, result)
	}
	b.Metrics.refreshed(r.Connector, string(ClassOf(err)))
	return b.failed(ctx, l, r, err, resend && l.Shown+1 < mostShown)
}

// isOtherAccount reports whether a refresh told of another account than was connected, or of one in
// another region, to whose API the credential would be sent.
func isOtherAccount(connected, told Account) bool {
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	return differ(connected.ID, told.ID) || differ(connected.Region, told.Region)
}

// call makes one call to the third party, and up to mostUnsent where nothing was sent. A
// call ends before the lease does, so that it is over when somebody else begins one: it
// has been given its time before the lease is looked at, and a process that is stopped
// after that finds that the time is over when it goes on.
func (b *Broker) call(ctx context.Context, held *holding, connector OAuth, t Tokens, scopes []string) (
	Result, error) {
	for n := 1; ; n++ {
		called, cancel := context.WithTimeout(ctx, CallTime)
		if !b.Store.Now().Add(CallTime).Before(held.until()) {
			cancel()
			return Result{}, errUnheld
		}
		result, err := connector.Refresh(called, t, scopes)
		cancel()
		if err == nil || ClassOf(err) != Unsent || n == mostUnsent {
			return result, err
		}
	}
}

// holding is a lease that is renewed until stop is called.
type holding struct {
	stop func()

	mu   sync.Mutex
	last time.Time // guarded by mu; the newest Until
}

// until is when the lease ends, as far as is known.
func (h *holding) until() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

func (h *holding) renewed(until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = until
}

// hold renews a lease.
func (b *Broker) hold(ctx context.Context, l Lease) *holding {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	h := &holding{last: l.Until, stop: func() {
		cancel()
		<-done
	}}
	go func() {
		defer close(done)
		ticker := time.NewTicker(RenewEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			renewed, err := b.Store.Renew(ctx, l)
			switch {
			case err == nil:
				h.renewed(renewed.Until)
			case errors.Is(err, ErrFenced):
				h.renewed(time.Time{})
				return
			} // else the store may answer again before the lease is over
		}
	}()
	return h
}

// endBy is what becomes of a grant by the class of an error that is its end, until a person
// does something; false: it is no end.
func endBy(c Class) (Status, bool) {
	switch c {
	case Yours:
		return NeedsReconnect, true
	case Gone:
		return RevokedUpstream, true
	case AdminTheir:
		return NeedsAdmin, true
	case Narrow:
		return TooNarrow, true
	}
	return "", false
}

// failed ends an attempt by the class of its error. It returns true where the token may
// be shown once more.
func (b *Broker) failed(ctx context.Context, l Lease, r Record, err error, again bool) (bool, error) {
	now, reason, after := b.Store.Now(), "unclassified", time.Duration(0)
	if e, ok := errors.AsType[*Error](err); ok {
		reason, after = e.Reason, e.RetryAfter
	}
	log := b.Log.With("connector", r.Connector, "grant", r.ID, "class", string(ClassOf(err)), "reason", reason)
	if status, ok := endBy(ClassOf(err)); ok {
		b.recovered(r) // it judged the grant, so it accepts our client
		return false, b.abandon(ctx, l, r, true, status, reason, time.Time{})
	}
	switch ClassOf(err) {
	case Ours:
		b.mu.Lock()
		first := b.trouble[r.Connector] == nil
		b.trouble[r.Connector] = &trouble{next: time.Now().Add(probeEvery)}
		b.mu.Unlock()
		if first {
			log.Error("the third party refuses our client: no grant of the connector is refreshed until an operator " +
				"mends it, and none is lost")
		}
		return false, b.abandon(ctx, l, r, true, OperatorError, reason, now.Add(probeEvery))
	case Later, Unsent:
		delay := max(b.backoff(r.ID), min(after, mostRetry))
		log.Warn("a refresh failed, and is tried again", "after", delay.String())
		return false, b.abandon(ctx, l, r, true, Degraded, reason, now.Add(delay))
	}
	log.Warn("the answer to a refresh was lost", "again", again)
	if again {
		return true, b.abandon(ctx, l, r, false, "", "", time.Time{})
	}
	return false, b.abandon(ctx, l, r, false, NeedsReconnect, ReasonLostResponse, time.Time{})
}

// backoff is how long a grant is left alone that failed once more.
func (b *Broker) backoff(id string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.fails[id]
	b.fails[id] = n + 1
	delay := min(mostBackoff, time.Second<<min(n, 10))
	return delay - time.Duration(rand.Int64N(int64(delay)/4+1))
}

// recovered forgets what failed before: the third party accepts our client, and this
// grant.
func (b *Broker) recovered(r Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.fails, r.ID)
	if b.trouble[r.Connector] != nil {
		delete(b.trouble, r.Connector)
		b.Log.Info("the third party accepts our client again", "connector", r.Connector)
	}
}

// abandon ends a lease without a result. What is known is worth some tries: otherwise the
// next one has to count the attempt as one without an answer.
func (b *Broker) abandon(ctx context.Context, l Lease, r Record, known bool, s Status, reason string,
	retryAt time.Time,
) error {
	var err error
	for range 3 {
		if err = b.Store.Abandon(ctx, l, known, s, reason, retryAt); err == nil {
			if s != "" && s != r.Status {
				b.changed(ctx, r, s, reason)
			}
			return nil
		}
		if errors.Is(err, ErrFenced) || errors.Is(err, ErrNotFound) {
			return nil // somebody else goes on with it
		}
		time.Sleep(saveEvery)
	}
	b.Log.Error("the end of a refresh could not be stored", "connector", r.Connector, "error", err.Error())
	return &LaterError{time.Second, err}
}

// changed tells of a status that nobody chose.
func (b *Broker) changed(ctx context.Context, r Record, s Status, reason string) {
	name := EventFailing
	if s == Active {
		name = EventRecovered
	}
	b.emit(ctx, Event{Name: name, Connector: r.Connector, Owner: r.Owner, Detail: fmt.Sprintf("%s: %s", s, reason)})
}

// save commits a result before anybody gets it. Where the store cannot be written the
// result stays here, with the lease, until it can: it may be the only good token.
func (b *Broker) save(ctx context.Context, l Lease, r Record, old Tokens, result Result) error {
	was := r
	tokens := merge(old, b.inStoreTime(result.Tokens), b.Store.Now())
	if result.Scopes != nil {
		r.Scopes = result.Scopes
	}
	r.Status, r.Reason, r.RetryAt, r.RefreshedAt = b.afterRefresh(was, r), "", time.Time{}, b.Store.Now()
	switch over := !tokens.AccessExpires.IsZero() && !r.RefreshedAt.Before(tokens.AccessExpires); {
	case r.Status == TooNarrow:
		r.Reason = "scopes_taken_away"
	case over: // else each use would refresh it, again and again
		r.Status, r.Reason, r.RetryAt = Degraded, ReasonOver, r.RefreshedAt.Add(probeEvery)
	}
	r.AccessExpires, r.Reconsent = tokens.AccessExpires, tokens.Reconsent
	seal := func(r Record) (Record, error) { return b.sealAgain(r, tokens) }
	var shouted time.Time
	for {
		_, err := b.Store.Commit(ctx, l, r, seal)
		switch {
		case err == nil:
			b.Metrics.unsaved(r.Connector, !shouted.IsZero(), false)
			if r.Status != was.Status {
				b.changed(ctx, r, r.Status, r.Reason)
			}
			return nil
		case errors.Is(err, ErrFenced), errors.Is(err, ErrNotFound), errors.Is(err, ErrRolledBack):
			if _, err = b.Store.Late(ctx, l, r, seal); err == nil {
				b.Metrics.unsaved(r.Connector, !shouted.IsZero(), false)
				b.Metrics.refreshed(r.Connector, "late")
				b.changed(ctx, r, r.Status, "late")
				return nil
			}
			if errors.Is(err, ErrFenced) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrRolledBack) {
				var stored, same bool
				if stored, same, err = b.stored(ctx, r, tokens); err != nil {
					break
				}
				b.Metrics.unsaved(r.Connector, !shouted.IsZero(), false)
				if stored {
					if r.Status != was.Status {
						b.changed(ctx, r, r.Status, r.Reason)
					}
					return nil
				}
				b.Metrics.refreshed(r.Connector, "fenced")
				if same {
					b.Log.Warn("the result of a refresh came after that of another, or when the grant had been moved, "+
						"and was dropped", "connector", r.Connector, "grant", r.ID)
					return nil
				}
				became := b.revoking().tokens(ctx, was, tokens)
				b.Log.Warn("the result of a refresh came when the grant had ended or was connected anew, and was "+
					"dropped", "connector", r.Connector, "grant", r.ID, "revocation", string(became))
				return nil
			}
		}
		if now := time.Now(); now.Sub(shouted) >= shoutEvery {
			b.Metrics.unsaved(r.Connector, shouted.IsZero(), true)
			shouted = now
			b.Log.Error("the result of a refresh cannot be stored; it is kept in memory and tried each second. Make "+
				"room, and do not stop this process", "connector", r.Connector, "grant", r.ID, "error", err.Error())
		}
		time.Sleep(saveEvery)
	}
}

// stored reports whether a grant has these tokens. Where the store's answer was lost, what
// it stored refuses itself, and would otherwise be revoked. same: the grant is there, and of
// the same connection, whoever owns it now. What another refresh of it brought may have the
// same refresh token, or come from the same one, so that to revoke these tokens would end
// those too.
func (b *Broker) stored(ctx context.Context, r Record, tokens Tokens) (stored, same bool, err error) {
	kept, err := keptByID(ctx, b.Store, r.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, false, nil
	case err != nil:
		return false, false, fmt.Errorf("look what was stored: %w", err)
	}
	there, err := b.Keys.Open(kept.Record)
	return err == nil && there.Access == tokens.Access && there.Refresh == tokens.Refresh,
		kept.ConnectedAt.Equal(r.ConnectedAt), nil
}

// sealAgain seals tokens, with a new key where the grant's own does not open any more, or was wrapped
// meanwhile with one of the ring that only this process lacks: what is kept so others can open too.
func (b *Broker) sealAgain(r Record, t Tokens) (Record, error) {
	sealed, err := b.Keys.Seal(r, t)
	if errors.Is(err, ErrSealed) || errors.Is(err, ErrKeyUnknown) {
		r.Wrapped = nil
		return b.Keys.Seal(r, t)
	}
	return sealed, err
}

// afterRefresh is the status of a grant by the scopes that it had, and has now. That an access
// needs others by now is no status: a configuration that is put back mends that.
func (b *Broker) afterRefresh(was, r Record) Status {
	status := Active
	for _, a := range b.offers[r.Connector].accesses(r.Access) {
		if len(without(a.Scopes, r.Scopes)) == 0 {
			return Active
		}
		if len(without(a.Scopes, was.Scopes)) == 0 {
			status = TooNarrow
		}
	}
	return status
}

// inStoreTime moves the times of a credential that just came from this machine's clock, by
// which connectors tell them, to that of the store, by which all replicas judge them: where
// the clocks are apart it would else be refreshed with each use, or lent after its end.
// Clocks that are less than a second apart are one.
func (b *Broker) inStoreTime(t Tokens) Tokens {
	apart := time.Until(b.Store.Now()).Round(time.Second)
	for _, at := range [...]*time.Time{&t.AccessExpires, &t.AccessIssued, &t.RefreshExpires, &t.Reconsent} {
		if !at.IsZero() {
			*at = at.Add(apart)
		}
	}
	return t
}

// merge is old with what a refresh brought: what is not said anew still holds.
func merge(old, next Tokens, now time.Time) Tokens {
	if next.Refresh == "" {
		next.Refresh, next.Reusable = old.Refresh, true
		if next.RefreshExpires.IsZero() {
			next.RefreshExpires = old.RefreshExpires
		}
	}
	if next.AccessIssued.IsZero() {
		next.AccessIssued = now
	}
	if next.Reconsent.IsZero() {
		next.Reconsent = old.Reconsent
	}
	if next.Extra == nil {
		next.Extra = old.Extra
	}
	next.Destinations = old.Destinations
	return next
}
