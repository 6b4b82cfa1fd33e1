package grant_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sallyport-proxy/sallyport/grant"
)

// listener is an app that is told of grants. It answers with fails, one after the other, and
// takes the rest.
type listener struct {
	counts *prometheus.Registry

	mu    sync.Mutex
	fails []error
	heard []string
	at    []time.Time
}

func (l *listener) notify(ctx context.Context, n grant.Notice) error {
	err := l.hear(n)
	if errors.Is(err, errHangs) {
		<-ctx.Done()
	}
	return err
}

func (l *listener) hear(n grant.Notice) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = append(l.heard, fmt.Sprint(n.App, " ", n.Kind, " ", n.Status))
	l.at = append(l.at, time.Now())
	if len(l.fails) > 0 {
		err, l.fails = l.fails[0], l.fails[1:]
	}
	return err
}

var errHangs = errors.New("it does not answer")

// told has app a be told of grants.
func (l *listener) told(r *rig) {
	r.options.Apps[0].Told = true
	r.options.Notify = l.notify
	l.counts = prometheus.NewRegistry()
	r.options.Metrics = grant.NewMetrics(l.counts)
}

func (r *rig) lose() {
	r.Helper()
	k := r.kept()
	err := r.store.SetStatus(r.Context(), k.ID, k.Generation, grant.NeedsReconnect, "x", time.Time{})
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (l *listener) want(r *rig, want ...string) {
	r.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.heard, want) {
		r.Errorf("told %q, want %q", l.heard, want)
	}
}

const (
	lostText  = "a needs_reconnect needs_reconnect"
	foundText = "a recovered active"
	endedText = "a disconnected disconnected"
)

func TestAnAppIsToldWhatBecameOfAGrant(t *testing.T) {
	l := &listener{}
	inBubble(t, l.told, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.connect(r.ask("b", "events")) // which wants to be told nothing
		r.after(2 * time.Second)
		l.want(r)
		r.lose()
		r.after(2 * time.Second)
		l.want(r, lostText)
		r.connect(r.ask("a", "freebusy"))
		if _, err := r.store.Disconnect(r.Context(), r.kept().ID); err != nil {
			r.Fatal(err)
		}
		r.after(2 * time.Second)
		l.want(r, lostText, foundText, endedText)
		r.after(time.Hour)
		l.want(r, lostText, foundText, endedText)
	})
}

// The first one that an app does not take holds up the others, for longer and longer, and
// not for ever.
func TestAnAppThatFailsIsToldAgainInOrder(t *testing.T) {
	down := errors.New("it answered 503")
	l := &listener{fails: []error{down, errHangs, down}}
	inBubble(t, l.told, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.lose()
		r.connect(r.ask("a", "freebusy"))
		r.after(time.Minute)
		l.want(r, lostText, lostText, lostText, lostText, foundText)
		for i, least := range []time.Duration{750 * time.Millisecond, 10 * time.Second, 3 * time.Second} {
			if took := l.at[i+1].Sub(l.at[i]); took < least {
				t.Errorf("attempt %d came %v after the one before", i+2, took)
			}
		}
	})
}

func TestAnAppThatRefusesANoticeIsToldTheNext(t *testing.T) {
	l := &listener{fails: []error{fmt.Errorf("%w: 400", grant.ErrNoticeRefused)}}
	inBubble(t, l.told, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.lose()
		r.connect(r.ask("a", "freebusy"))
		r.after(5 * time.Second)
		l.want(r, lostText, foundText)
		if !strings.Contains(r.log.String(), "refused what it was told") {
			t.Errorf("the log: %s", r.log)
		}
	})
}

func TestWhatAnAppDoesNotTakeWithinADayIsGivenUp(t *testing.T) {
	l := &listener{}
	for range 1000 {
		l.fails = append(l.fails, errors.New("it answered 503"))
	}
	inBubble(t, l.told, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.lose()
		r.after(23 * time.Hour)
		l.mu.Lock()
		before := len(l.heard)
		l.mu.Unlock()
		if before < 100 || before > 250 { // every 7.5 to 10 minutes, after the first ones
			t.Errorf("%d attempts in 23 hours", before)
		}
		r.after(90 * time.Minute)
		l.mu.Lock()
		after := len(l.heard)
		l.fails = nil
		l.mu.Unlock()
		r.after(24 * time.Hour)
		if len(l.heard) != after {
			t.Errorf("it was told %d times after a day", len(l.heard)-after)
		}
		if !strings.Contains(r.log.String(), "is not told any more") {
			t.Error("nobody was told that it was given up")
		}
		const metric = "sallyport_grant_notices_total"
		n, err := testutil.GatherAndCount(l.counts, metric)
		if n != 2 || err != nil { // failed, lost
			t.Errorf("%d rows of %s, %v", n, metric, err)
		}
	})
}

// A store that does not answer for a while loses nothing, and fills no log.
func TestAStoreThatFailsDelaysWhatAnAppIsTold(t *testing.T) {
	l := &listener{}
	inBubble(t, l.told, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.lose()
		r.store.SetUnavailable(true)
		r.after(90 * time.Second)
		l.want(r)
		if n := strings.Count(r.log.String(), "could not be read or noted"); n != 2 {
			t.Errorf("told %d times in a minute and a half", n)
		}
		r.store.SetUnavailable(false)
		r.after(2 * time.Second)
		l.want(r, lostText)
	})
}

// Of several replicas one tells, and the next one goes on where it stops.
func TestOneReplicaTellsAnApp(t *testing.T) {
	l := &listener{fails: []error{errHangs}}
	inBubble(t, l.told, func(r *rig) {
		second := r.another()
		r.connect(r.ask("a", "freebusy"))
		r.lose()
		r.connect(r.ask("a", "freebusy"))
		r.after(2 * time.Second) // one of them waits for an answer
		l.want(r, lostText)
		r.broker.Close()
		second.Close()
		r.after(time.Second)
		l.want(r, lostText)
		r.another()
		r.after(5 * time.Second)
		l.want(r, lostText, lostText, foundText) // not after the lease of who stopped
	})
}
