package storetest

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// RotatedTogether has three processes with fifty clients each use one grant whose refresh
// token is new with each refresh, for thirty expirations, five hundred with
// SALLYPORT_CAMPAIGN=1: each token is shown once, by whichever process, and no client is
// lent a credential that has expired. Some may be told to try again: credentials live for
// less than half a second here.
func RotatedTogether(t *testing.T, s Shared) {
	expirations := 30
	if campaign() {
		expirations = 500
	}
	p := newParty(t, 400*time.Millisecond)
	p.connect(&s)
	for i := range 3 {
		p.start(s, orders{Name: fmt.Sprint("worker-", i), Connectors: []string{strict}, Clients: 50,
			Pause: 100 * time.Millisecond})
	}
	testenv.Within(t, time.Duration(expirations)*10*time.Second, "the credential expired often enough",
		func() bool { return p.look(strict).used > expirations || t.Failed() })
	p.end()
	p.tell("at the end")
	c := p.look(strict)
	for n := 1; n < c.issued; n++ {
		if by := c.shown[n]; len(by) != 1 {
			t.Errorf("refresh token %d was shown %d times, by %v", n, len(by), by)
		}
	}
	if c.ended {
		t.Error("the grant has ended")
	}
}

// StoppedHolder stops a process whose refresh the third party has answered, before it stores
// what came, for longer than its lease lasts, and then has it go on: it has the only good
// token. Another process gave the grant up meanwhile; it is alive again, and its next
// refreshes work. With SALLYPORT_CAMPAIGN=1 the 45 seconds pass; else the test makes the
// lease older in the database.
func StoppedHolder(t *testing.T, s Shared) {
	p := newParty(t, 100*time.Millisecond)
	p.connect(&s)
	for i := range 2 {
		p.start(s, orders{Name: fmt.Sprint("worker-", i), Connectors: []string{onceOnly}, Clients: 5})
	}
	name := p.stopHolder(s)
	issued := p.look(onceOnly).issued
	if campaign() {
		time.Sleep(45 * time.Second)
	}
	testenv.Within(t, 5*time.Minute, "another process gives the grant up", func() bool {
		if !campaign() {
			// Only the lease of who stands still: a slow process would lose its own, again and again.
			s.Exec(t, older(45 * time.Second)[0]+" where shown = 0")
		}
		time.Sleep(100 * time.Millisecond)
		kept, err := s.rows.Get(t.Context(), keyOf(onceOnly))
		return err == nil && kept.Status == grant.NeedsReconnect && kept.Reason == grant.ReasonLostResponse
	})
	if now := p.look(onceOnly).issued; now != issued {
		t.Errorf("%d tokens were given out while the holder stood still", now-issued)
	}
	p.signal(name, syscall.SIGCONT)
	testenv.Within(t, 5*time.Minute, "the grant is alive, and is refreshed again and again", func() bool {
		return p.look(onceOnly).used >= issued+3
	})
	p.end()
	p.tell("at the end")
	kept, err := s.rows.Get(t.Context(), keyOf(onceOnly))
	late := kept.Status == grant.Degraded && kept.Reason == grant.ReasonOver // on a slow machine
	if err != nil || kept.Status != grant.Active && !late {
		t.Errorf("the grant is %s (%s), %v", kept.Status, kept.Reason, err)
	}
}

// signal sends a signal to a process that runs.
func (p *party) signal(name string, sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.processes[name]; w != nil {
		p.stood[name] = p.stood[name] || sig == syscall.SIGSTOP
		_ = w.cmd.Process.Signal(sig)
	}
}

// stopHolder stops a process that is about to store the result of a refresh. One that is in
// the middle of writing something else is let go on and another one is waited for: what it
// has locked keeps all others from writing, in SQLite.
func (p *party) stopHolder(s Shared) (name string) {
	p.Helper()
	kept, err := s.rows.Get(p.Context(), keyOf(onceOnly))
	testenv.Check(p, err)
	for range 20 {
		caught := make(chan string, 1)
		p.trap(trap{toCommit, onceOnly, 0, func(name string) {
			p.signal(name, syscall.SIGSTOP)
			caught <- name
		}})
		select {
		case name = <-caught:
		case <-time.After(time.Minute):
			p.Fatalf("nobody came to store a result; clients were put off: %v", p.whys)
		}
		ctx, cancel := context.WithTimeout(p.Context(), 5*time.Second)
		err = s.rows.Used(ctx, kept.ID, "app", time.Now())
		cancel()
		if err == nil {
			return name
		}
		p.Logf("%s was stopped while it wrote: %v", name, err)
		p.signal(name, syscall.SIGCONT)
	}
	p.Fatal("nobody can be stopped that writes nothing")
	return ""
}
