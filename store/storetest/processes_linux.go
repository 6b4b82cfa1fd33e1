package storetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/store"
)

// Shared is an empty database that several processes use. The package that has it also has
// a TestWorker, which is Worker.
type Shared struct {
	Address string
	// Open opens the database at an address for the process of that name.
	Open func(address, name string) (*store.Store, error)
	// Exec runs a statement without using a store.
	Exec func(t *testing.T, statement string)
	// Gone waits until the database does nothing any more for a process that was killed.
	Gone func(t *testing.T, name string)

	rows *store.Grants
}

var handshake identity.Handshake

func campaign() bool { return os.Getenv("SALLYPORT_CAMPAIGN") != "" }

// KilledProcesses kills processes that refresh grants together, fifty times, a thousand
// times with SALLYPORT_CAMPAIGN=1, at points of a refresh that are aimed at and some time
// after them. Others go on, and what they find is: nothing that a client was lent is lost;
// a token is shown again only where who showed it is gone, and never a third time; a
// grant is given up only where that is the contract. The thirty seconds of a lease that
// nobody ends are not waited for: the test makes it older in the database.
func KilledProcesses(t *testing.T, s Shared) {
	kills := 50
	if campaign() {
		kills = 1000
	}
	p := newParty(t, 100*time.Millisecond)
	b := p.connect(&s)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	n := 0
	more := func() {
		n++
		p.start(s, orders{Name: fmt.Sprint("worker-", n), Connectors: connectors, Clients: 1})
	}
	for range 3 {
		more()
	}
	points := [...]point{anywhere, toLease, asked, answers, toCommit, ended}
	for i := range kills {
		at, connector := points[i%len(points)], connectors[i/len(points)%len(connectors)]
		after := time.Duration(0)
		if i%4 != 0 {
			after = time.Duration(random.Int64N(int64(15 * time.Millisecond)))
		}
		caught := make(chan string, 1)
		strike := func(name string) {
			p.strike(name)
			caught <- name
		}
		if at == anywhere { // also while it starts
			time.Sleep(10 * after)
			strike(p.names()[random.IntN(3)])
		} else {
			p.trap(trap{at, connector, after, strike})
		}
		select {
		case name := <-caught:
			p.bury(s, name)
		case <-time.After(time.Minute):
			t.Fatalf("nobody came to %q of %s; clients were put off: %v", at, connector, p.whys)
		}
		p.recover(s, b)
		if t.Failed() {
			t.Fatalf("kill %d, at %q of %s and %v later", i+1, at, connector, after)
		}
		more()
		if (i+1)%100 == 0 {
			p.tell(fmt.Sprint("after ", i+1, " kills"))
		}
	}
	p.end()
	p.tell("at the end")
	for kind, reason := range map[string]string{strict: "invalid_grant", onceOnly: grant.ReasonLostResponse} {
		if p.ends[kind+" "+reason] == 0 {
			t.Errorf("no grant that is %s ended with %s, so that the kills hit nothing", kind, reason)
		}
	}
	if p.twice(graceful) == 0 {
		t.Error("no token was shown a second time, so that the kills hit nothing")
	}
}

// recover lets the time of leases pass and waits until clients have newer credentials than
// there were. What ended as it may is connected again.
func (p *party) recover(s Shared, b *grant.Broker) {
	p.Helper()
	newest := map[string]int{}
	p.atRest(func() {
		s.Exec(p.T, older(45 * time.Second)[0])
		for _, c := range connectors {
			newest[c] = p.look(c).issued
		}
	})
	for _, c := range connectors {
		testenv.Within(p, 5*time.Minute, c+" is lent again", func() bool {
			if p.look(c).used > newest[c] {
				return true
			}
			time.Sleep(10 * time.Millisecond)
			kept, err := s.rows.Get(p.Context(), keyOf(c))
			if err != nil || kept.Status != grant.NeedsReconnect {
				return false
			}
			p.judge(kept)
			p.connectOne(b, c)
			newest[c] = p.look(c).issued - 1
			return false
		})
	}
}

// judge reports whether a grant ended as it may.
func (p *party) judge(k grant.Kept) {
	p.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	lost, want := p.lost[lostAttempt{k.Connector, k.Generation}], 2
	if k.Connector == onceOnly {
		want = 1
	}
	switch {
	case k.Reason == grant.ReasonLostResponse && lost >= want:
	case k.Reason == "invalid_grant" && k.Connector == strict && p.chains[strict].ended:
	default:
		p.Errorf("%s: %s (%s) after %d processes went that had or may have had the lease of generation %d", k.Connector,
			k.Status, k.Reason, lost, k.Generation)
	}
	p.ends[k.Connector+" "+k.Reason]++
}

// twice counts refresh tokens that were shown twice.
func (p *party) twice(connector string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, shown := range p.chains[connector].shown {
		if len(shown) == 2 {
			n++
		}
	}
	return n
}

// tell writes down what has happened so far.
func (p *party) tell(when string) {
	for _, c := range connectors {
		twice := p.twice(c)
		p.mu.Lock()
		chain := p.chains[c]
		p.Logf("%s: %s: %d tokens, of which %d were shown and %d shown twice; the newest that was lent is %d", when, c,
			chain.issued, len(chain.shown), twice, chain.used)
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Logf("%s: ended: %v; clients were put off: %v", when, p.ends, p.whys)
}
