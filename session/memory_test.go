package session

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

func TestMemoryRemembersUntilAsked(t *testing.T) {
	c := newClock()
	m := NewMemory(c.now)
	if m.Ended("a") {
		t.Error("remembers what it was not told")
	}
	if !m.Add("a", c.t.Add(time.Hour)) || m.Add("a", c.t.Add(time.Hour)) {
		t.Error("Add does not tell new from known")
	}
	m.End("b", c.t.Add(time.Hour))
	if !m.Ended("a") || !m.Ended("b") || m.Ended("c") {
		t.Error("forgot")
	}
}

// The set cannot be made to grow: an attacker begins and ends flows for free.
func TestP17_MemoryIsBounded(t *testing.T) {
	c := newClock()
	m := NewMemory(c.now)
	m.max = 100
	for i := range 10_000 {
		m.Add(fmt.Sprint(i), c.t.Add(time.Hour)) // nothing runs out
		if n := len(m.young) + len(m.old); n > 2*m.max {
			t.Fatalf("%d names after %d", n, i)
		}
		if i >= m.max && !m.Ended(fmt.Sprint(i-m.max/2)) {
			t.Fatalf("the name of %d ago is forgotten", m.max/2)
		}
	}
	if NewMemory(nil).max != 1<<16 {
		t.Error("the bound is not the one that is promised")
	}
}

// What has run out goes first: the living are not pushed out by the dead.
func TestP10_ManyFinishedSessionsPushOutNoEndedOne(t *testing.T) {
	c := newClock()
	m := NewMemory(c.now)
	m.max = 100
	m.End("ended", c.t.Add(12*time.Hour))
	for i := range 10_000 {
		m.Add(fmt.Sprint(i), c.t.Add(time.Minute))
		c.add(2 * time.Second)
		if !m.Ended("ended") {
			t.Fatalf("forgotten after %d flows", i)
		}
	}
}

func TestMemoryIsSafeForConcurrentUse(t *testing.T) {
	m := NewMemory(nil)
	m.max = 10
	var wg sync.WaitGroup
	var mu sync.Mutex
	first := map[string]int{}
	for range 8 {
		wg.Go(func() {
			for i := range 9 {
				id := fmt.Sprint(i)
				if m.Add(id, time.Now().Add(time.Hour)) {
					mu.Lock()
					first[id]++
					mu.Unlock()
				}
				m.Ended(id)
			}
		})
	}
	wg.Wait()
	for id, n := range first {
		if n != 1 {
			t.Errorf("%s was new %d times", id, n)
		}
	}
}
