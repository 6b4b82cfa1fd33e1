package recent

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

func TestGivesWhatWasPutLast(t *testing.T) {
	c := New[string, int](10)
	if v, ok := c.Get("a"); ok || v != 0 {
		t.Errorf("nothing was put, and there is %d", v)
	}
	for i := range 3 {
		c.Put("a", i, 1)
		if v, ok := c.Get("a"); !ok || v != i {
			t.Errorf("got %d %v, want %d", v, ok, i)
		}
	}
	if _, ok := c.Get("b"); ok {
		t.Error("gives what nobody put")
	}
}

// A replaced value must not come back: not from the older generation, and not
// where the new one is too large to be kept.
func TestReplacedValueIsGone(t *testing.T) {
	for cost := 1; cost <= 6; cost++ {
		for turns := range 6 {
			c := New[string, string](10)
			c.Put("a", "before", 2)
			for i := range turns {
				c.Put(fmt.Sprint(i), "", 1)
			}
			c.Put("a", "after", cost)
			if v, ok := c.Get("a"); ok != (cost <= 5) || (ok && v != "after") {
				t.Errorf("cost %d, after %d others: %q %v", cost, turns, v, ok)
			}
		}
	}
}

// costs adds up what both generations hold.
func costs[K comparable, V any](c *Cache[K, V]) (young, old int) {
	for _, e := range c.young {
		young += e.cost
	}
	for _, e := range c.old {
		old += e.cost
	}
	return young, old
}

// Whatever is put and asked for, in whatever order, the bound holds.
func TestP17_RecentIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, limit := range []int{0, 1, 2, 10, 1000} {
		c := New[int, int](limit)
		for range 20_000 {
			if key := r.IntN(3 + limit); r.IntN(2) == 0 {
				c.Put(key, key, 1+r.IntN(1+limit))
			} else if v, ok := c.Get(key); ok && v != key {
				t.Fatalf("got %d for %d", v, key)
			}
			young, old := costs(c)
			if young > limit/2 || old > limit/2 || young != c.cost {
				t.Fatalf("at most %d: %d young (counted as %d) and %d old", limit, young, c.cost, old)
			}
		}
	}
}

// What is in use stays, however much passes by.
func TestWhatIsAskedForStays(t *testing.T) {
	c := New[int, int](100)
	c.Put(-1, 7, 1)
	for i := range 10_000 {
		c.Put(i, i, 1)
		if i%40 == 0 {
			if v, ok := c.Get(-1); !ok || v != 7 {
				t.Fatalf("forgotten after %d others", i)
			}
		}
	}
	if _, ok := c.Get(9_000); ok {
		t.Error("nothing is ever forgotten")
	}
	if _, ok := c.Get(9_999); !ok {
		t.Error("the newest is forgotten")
	}
}

func TestRecentIsSafeForConcurrentUse(t *testing.T) {
	c := New[int, string](50)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 5_000 {
				key := (i * (g + 1)) % 60
				if v, ok := c.Get(key); !ok {
					c.Put(key, fmt.Sprint(key), 1)
				} else if v != fmt.Sprint(key) {
					t.Errorf("%q for %d", v, key)
				}
			}
		})
	}
	wg.Wait()
	if young, old := costs(c); young+old > 50 {
		t.Errorf("%d kept", young+old)
	}
}

// cookieLike is a key as session has them: a host and 700 bytes.
type cookieLike struct{ host, value string }

func BenchmarkGet(b *testing.B) {
	c, keys := full()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, ok := c.Get(keys[i%len(keys)]); !ok {
			b.Fatal("forgotten")
		}
		i++
	}
}

func BenchmarkGetParallel(b *testing.B) {
	c, keys := full()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := rand.IntN(len(keys)); pb.Next(); i++ {
			if _, ok := c.Get(keys[i%len(keys)]); !ok {
				b.Fatal("forgotten")
			}
		}
	})
}

func full() (*Cache[cookieLike, *int], []cookieLike) {
	c := New[cookieLike, *int](4000)
	var keys []cookieLike
	for i := range 1000 {
		key := cookieLike{"app.example.com", fmt.Sprintf("%04d", i) + strings.Repeat("A", 696)}
		keys = append(keys, key)
		c.Put(key, &i, 1)
	}
	return c, keys
}
