package relay

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// exchangeDouble is what a watch sees of an exchange.
type exchangeDouble struct {
	isOver, client, clientGone atomic.Bool
	ended                      atomic.Pointer[ending]
	slow                       func() error
}

type ending struct {
	cause error
	at    time.Time
}

var errSignedOut = errors.New("signed out")

func (x *exchangeDouble) over() error {
	if x.isOver.Load() {
		return errSignedOut
	}
	return nil
}
func (x *exchangeDouble) asks() func() error   { return x.slow }
func (x *exchangeDouble) gone() bool           { return x.clientGone.Load() }
func (x *exchangeDouble) waitsForClient() bool { return x.client.Load() }
func (x *exchangeDouble) end(cause error)      { x.ended.Store(&ending{cause, time.Now()}) }

func TestAWatchEndsExchangesThatAreLateIdleOrOver(t *testing.T) {
	for name, tt := range map[string]struct {
		limits limits
		during func(*watch, *exchangeDouble)
		want   error
		after  time.Duration
	}{
		"a right that ends": {limits{Header: time.Hour, Idle: time.Hour}, func(_ *watch, x *exchangeDouble) {
			time.Sleep(2500 * time.Millisecond)
			x.isOver.Store(true)
		}, ErrOver, 3 * time.Second},
		"a late header": {limits{Header: 5 * time.Second, Idle: time.Second},
			func(w *watch, _ *exchangeDouble) { w.sent() }, errNoHeader, 5 * time.Second},
		"a late header, below a poll": {limits{Header: 100 * time.Millisecond, Idle: time.Hour},
			func(w *watch, _ *exchangeDouble) { w.sent() }, errNoHeader, 100 * time.Millisecond},
		"a late header, between polls": {limits{Header: 1300 * time.Millisecond, Idle: time.Hour},
			func(w *watch, _ *exchangeDouble) { w.sent() }, errNoHeader, 1300 * time.Millisecond},
		"nothing moves, below a poll": {limits{Idle: 300 * time.Millisecond},
			func(w *watch, _ *exchangeDouble) { w.sent() }, errSilent, 300 * time.Millisecond},
		"sent twice": {limits{Header: 5 * time.Second, Idle: time.Second}, func(w *watch, _ *exchangeDouble) {
			w.sent()
			time.Sleep(4 * time.Second)
			w.sent()
		}, errNoHeader, 5 * time.Second},
		"no limit for the header": {limits{Idle: 10 * time.Second},
			func(w *watch, _ *exchangeDouble) { w.sent() }, errSilent, 10 * time.Second},
		"a header that came, then nothing": {limits{Header: time.Second, Idle: 3 * time.Second},
			func(w *watch, _ *exchangeDouble) { w.sent(); w.answered() }, errSilent, 3 * time.Second},
		"a header that came before the request's end": {limits{Header: time.Second, Idle: 3 * time.Second},
			func(w *watch, _ *exchangeDouble) { w.answered(); w.sent() }, errSilent, 3 * time.Second},
		"a client that sends nothing": {limits{Header: time.Second, Idle: 3 * time.Second},
			func(_ *watch, x *exchangeDouble) { x.client.Store(true) }, ErrClientSlow, 3 * time.Second},
		"a client that is gone": {limits{Header: time.Hour, Idle: time.Hour}, func(_ *watch, x *exchangeDouble) {
			time.Sleep(250 * time.Millisecond)
			x.clientGone.Store(true)
		}, ErrClientGone, 400 * time.Millisecond},
		"something moved": {limits{Header: time.Hour, Idle: 2 * time.Second}, func(w *watch, _ *exchangeDouble) {
			for range 10 {
				time.Sleep(1900 * time.Millisecond)
				w.moved()
			}
		}, errSilent, 21 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var w watch
				x := &exchangeDouble{}
				begin := time.Now()
				w.start(&sweeper{}, x, tt.limits)
				tt.during(&w, x)
				time.Sleep(time.Minute)
				e := x.ended.Load()
				if e == nil {
					t.Fatal("it goes on")
				}
				if took := e.at.Sub(begin); !errors.Is(e.cause, tt.want) || took != tt.after {
					t.Errorf("ended with %v after %v, want %v after %v", e.cause, took, tt.want, tt.after)
				}
			})
		})
	}
}

// One sweeper looks at all: each ends at its own limit, the nearer one of a later exchange too,
// and one that was stopped takes no other one with it.
func TestExchangesThatShareASweeperEndEachAtItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sweeper
		begin := time.Now()
		idle := []time.Duration{10 * time.Second, 5 * time.Second, 50 * time.Millisecond, 330 * time.Millisecond, time.Second}
		watches, exchanges := make([]watch, len(idle)), make([]exchangeDouble, len(idle))
		for i, limit := range idle {
			watches[i].start(&s, &exchanges[i], limits{Idle: limit})
		}
		watches[1].stop()
		time.Sleep(time.Minute)
		for i, limit := range idle {
			switch e := exchanges[i].ended.Load(); {
			case i == 1 && e != nil:
				t.Errorf("one that was stopped ended with %v", e.cause)
			case i != 1 && (e == nil || e.at.Sub(begin) != limit):
				t.Errorf("with a limit of %v: %+v", limit, e)
			}
		}
		for i := range watches {
			if i != 1 {
				watches[i].stop()
			}
		}
		time.Sleep(time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.watches) != 0 || s.runs {
			t.Errorf("%d are looked at, and the timer runs: %t", len(s.watches), s.runs)
		}
	})
}

func TestAWatchThatWasStoppedEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watch
		x := &exchangeDouble{}
		x.isOver.Store(true)
		w.start(&sweeper{}, x, limits{Header: 100 * time.Millisecond, Idle: time.Second})
		w.stop()
		w.sent()
		w.check()
		time.Sleep(time.Minute)
		if e := x.ended.Load(); e != nil {
			t.Errorf("ended with %v", e.cause)
		}
	})
}

// What may have to be waited for is asked once at a time and aside: others end at their own limits
// meanwhile, and an exchange that has ended is not ended again by what comes of it.
func TestAQuestionThatWaitsDelaysNoOtherExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sweeper
		var asked atomic.Int32
		begin := time.Now()
		slow := func() error {
			asked.Add(1)
			time.Sleep(10 * time.Second)
			return errSignedOut
		}
		asking, over, other := &exchangeDouble{slow: slow}, &exchangeDouble{slow: slow}, &exchangeDouble{}
		var watches [3]watch
		watches[0].start(&s, asking, limits{Idle: time.Hour})
		watches[1].start(&s, over, limits{Idle: time.Hour})
		watches[2].start(&s, other, limits{Idle: 2 * time.Second})
		time.Sleep(3 * time.Second)
		watches[1].stop()
		if e := other.ended.Load(); e == nil || e.at.Sub(begin) != 2*time.Second {
			t.Errorf("the other one: %+v", e)
		}
		time.Sleep(20 * time.Second)
		if e := asking.ended.Load(); e == nil || !errors.Is(e.cause, ErrOver) || !errors.Is(e.cause, errSignedOut) ||
			e.at.Sub(begin) != 11*time.Second {
			t.Errorf("the one that was asked about: %+v", e)
		}
		if e := over.ended.Load(); e != nil || asked.Load() != 2 {
			t.Errorf("one that had ended: %+v, %d questions", e, asked.Load())
		}
	})
}
