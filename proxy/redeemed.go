package proxy

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/session"
)

// resultTime is how long the result of a redemption is kept for a browser that has
// left. Browsers ask again at once, and people reload within seconds.
const resultTime = 30 * time.Second

// errLeft means that the browser hung up before its code was redeemed.
var errLeft = errors.New("the browser left while its code was being redeemed")

// redeemed is who a provider says that somebody is.
type redeemed struct {
	who   identity.Identity
	began session.Beginning // when the provider was asked
}

// redeemFunc redeems one code. It ends early, with an error, once stopped is done.
type redeemFunc func(stopped context.Context) (redeemed, error)

// redemptions are the codes that are being redeemed, and the people whose code
// was redeemed for a browser that had left.
//
// A redemption belongs to a trip: to one state and the flow cookie that proves
// it. Only the latest request for it waits: the browser has given up the earlier
// ones. Its result is handed out once; a failure that no request waits for is not
// kept. What is kept is bounded in number and time.
type redemptions struct {
	trips   *session.Trips // used up only here
	now     func() time.Time
	stopped context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex             // guards what follows, and all redemptions
	byTrip map[string]*redemption // running, or with a result
	kept   list.List              // those with a result, the oldest first
	closed bool                   // nothing begins any more
}

// redemption is one code that is being redeemed, or was.
type redemption struct {
	trip, browser string
	done          chan struct{} // closed when it has ended
	unseen        func(error)   // told of a failure that nobody waits for
	maxKept       int           // results that wait for browsers, of all redemptions

	latest  chan struct{} // closed when a later request takes over; nil: nobody waits
	result  redeemed
	err     error
	expires time.Time
	expiry  *time.Timer
	element *list.Element // in kept; nil: it runs
}

func newRedemptions(now func() time.Time) *redemptions {
	m := &redemptions{trips: session.NewTrips(), now: now, byTrip: map[string]*redemption{}}
	m.stopped, m.stop = context.WithCancel(context.Background())
	return m
}

// join makes the caller the one who waits for the redemption of trip, and returns
// how to wait. If there is none, it uses up the trip and begins what begin
// returns; all that is one step, so that of many requests at once one begins. If
// begin fails, the trip is not used up: the same request may come again. Of a trip
// that was used up it returns session.ErrConsumed. At most maxKept results wait
// for browsers that have left.
func (m *redemptions) join(trip session.Trip, browser string, maxKept int, begin func() (redeemFunc, error),
	unseen func(error)) (func(context.Context) (redeemed, error), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.byTrip[trip.Name]
	if d != nil && d.element != nil && !m.now().Before(d.expires) {
		m.drop(d)
		d = nil
	}
	if d == nil {
		if m.trips.Used(trip) {
			return nil, session.ErrConsumed
		}
		if m.closed {
			return nil, &identity.SignInError{Failure: identity.Unavailable, Err: errors.New("this server is stopping")}
		}
		redeem, err := begin()
		if err != nil {
			return nil, err
		}
		_ = m.trips.Use(trip) // it was not consumed a moment ago, under this lock
		d = &redemption{trip: trip.Name, browser: browser, done: make(chan struct{}), unseen: unseen, maxKept: maxKept}
		m.byTrip[trip.Name] = d
		m.running.Go(func() { m.run(d, redeem) })
	}
	if d.latest != nil {
		close(d.latest)
	}
	superseded := make(chan struct{})
	d.latest = superseded
	return func(ctx context.Context) (redeemed, error) { return m.wait(ctx, d, superseded) }, nil
}

// run redeems, and keeps the result for the request that waits or will come back.
func (m *redemptions) run(d *redemption, redeem redeemFunc) {
	result, err := redeem(m.stopped)
	if unseen := m.finish(d, result, err); unseen {
		d.unseen(err)
	}
	close(d.done)
}

// finish stores the result, and reports whether err is a failure that no request will
// get.
func (m *redemptions) finish(d *redemption, result redeemed, err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byTrip[d.trip] != d { // forgotten meanwhile
		return err != nil
	}
	if err != nil && d.latest == nil {
		m.drop(d)
		return true
	}
	d.result, d.err, d.expires = result, err, m.now().Add(resultTime)
	d.element = m.kept.PushBack(d)
	d.expiry = time.AfterFunc(resultTime, func() { m.expire(d) })
	for m.kept.Len() > d.maxKept {
		m.drop(m.kept.Front().Value.(*redemption))
	}
	return false
}

// wait returns the result to the request that waits last. The others, which a
// later one has taken over from, find the trip used up.
func (m *redemptions) wait(ctx context.Context, d *redemption, superseded chan struct{}) (redeemed, error) {
	select {
	case <-d.done:
	case <-superseded:
	case <-ctx.Done():
	}
	result, err, unseen := m.take(d, superseded, ctx.Err() != nil)
	if unseen != nil {
		d.unseen(unseen)
	}
	return result, err
}

// take is the part of wait that needs the lock. unseen is a failure that nobody will get.
func (m *redemptions) take(d *redemption, superseded chan struct{}, left bool) (r redeemed, err, unseen error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch current := d.latest == superseded && m.byTrip[d.trip] == d; {
	case !current && left:
		return redeemed{}, errLeft, nil
	case !current:
		return redeemed{}, session.ErrConsumed, nil
	case left:
		d.latest = nil
		if d.err != nil {
			m.drop(d)
		}
		return redeemed{}, errLeft, d.err
	}
	r, err = d.result, d.err
	m.drop(d) // and with it the person
	return r, err, nil
}

// spend uses up a trip without redeeming anything. What waits for it is dropped,
// unless a request is about to fetch it.
func (m *redemptions) spend(trip session.Trip) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.trips.Use(trip) // another request may have used it up already
	if d := m.byTrip[trip.Name]; d != nil && d.latest == nil {
		m.drop(d)
	}
}

// forget drops what waits for browser, or would.
func (m *redemptions) forget(browser string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.byTrip {
		if d.browser == browser {
			m.drop(d)
		}
	}
}

func (m *redemptions) expire(d *redemption) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byTrip[d.trip] == d {
		m.drop(d)
	}
}

// drop forgets d and the person in it. Who waits for it is told that the trip is
// used up.
func (m *redemptions) drop(d *redemption) {
	delete(m.byTrip, d.trip)
	d.result = redeemed{}
	if d.element != nil {
		m.kept.Remove(d.element)
		d.expiry.Stop()
	}
}

// end stops all that runs, forgets all that waits, and returns when nothing runs
// or ctx is done.
func (m *redemptions) end(ctx context.Context) {
	m.mu.Lock()
	m.closed = true
	for _, d := range m.byTrip {
		m.drop(d)
	}
	m.mu.Unlock()
	m.stop()
	ended := make(chan struct{})
	go func() {
		m.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}
