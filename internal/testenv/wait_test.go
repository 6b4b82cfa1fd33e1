package testenv

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// fakeTB remembers the first failure instead of ending the test.
type fakeTB struct{ failed string }

func (*fakeTB) Helper()        {}
func (*fakeTB) Cleanup(func()) {}
func (f *fakeTB) Fatalf(format string, args ...any) {
	if f.failed == "" {
		f.failed = fmt.Sprintf(format, args...)
	}
}

// A wait ends as soon as what is waited for is there, and a test that waits in
// vain fails and says for what. The time is a fake one: no machine is late in it.
func TestWaitingEndsInTimeAndSaysForWhat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		tb := &fakeTB{}
		Eventually(tb, "later", func() bool { return time.Since(began) >= 300*time.Millisecond })
		if took := time.Since(began); took != 300*time.Millisecond || tb.failed != "" {
			t.Errorf("after %v: %q", took, tb.failed)
		}
		Within(tb, time.Second, "the moon", func() bool { return false })
		if took := time.Since(began); took > 1302*time.Millisecond || tb.failed != "not within 1s: the moon" {
			t.Errorf("after %v: %q", took, tb.failed)
		}
	})
	tb := &fakeTB{}
	if Check(tb, nil); tb.failed != "" {
		t.Errorf("failed with %q", tb.failed)
	}
	if Check(tb, errors.New("broken")); tb.failed != "broken" {
		t.Errorf("failed with %q", tb.failed)
	}
}

// A clock shows what its test says: one goes on by itself, the other stands still,
// and both can be moved, also backwards.
func TestAClockIsMovedByItsTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
		goes, stands := NewClock(), StandingClock(at)
		if !goes.Now().Equal(time.Now()) || !stands.Now().Equal(at) {
			t.Errorf("they begin at %v and %v", goes.Now(), stands.Now())
		}
		time.Sleep(time.Minute)
		goes.Advance(time.Hour)
		stands.Advance(time.Hour)
		stands.Advance(-2 * time.Hour)
		if !goes.Now().Equal(time.Now().Add(time.Hour)) || !stands.Now().Equal(at.Add(-time.Hour)) {
			t.Errorf("moved, they show %v and %v", goes.Now(), stands.Now())
		}
	})
}
