package storetest

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// Wire is a way to a server that can be broken.
type Wire struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	moved *sync.Cond
	state State
	conns map[net.Conn]bool
	lag   time.Duration // everything is passed on so much later
	slow  []byte        // the next request with this text
	by    time.Duration // is passed on so much later
}

// State is how a Wire is.
type State int

// The states of a Wire.
const (
	Passing State = iota
	Broken        // connections are closed
	Hanging       // connections are accepted, and nothing passes
)

// NewWire returns a way to target that lasts as long as the test.
func NewWire(t *testing.T, target string) *Wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{listener: l, target: target, conns: map[net.Conn]bool{}}
	w.moved = sync.NewCond(&w.mu)
	t.Cleanup(func() {
		_ = l.Close()
		w.Set(Broken)
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.connect(c)
		}
	}()
	return w
}

// Address is where it begins.
func (w *Wire) Address() string {
	return w.listener.Addr().String()
}

// Set breaks or mends it.
func (w *Wire) Set(s State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
	if s == Broken {
		for c := range w.conns {
			_ = c.Close()
		}
	}
	w.moved.Broadcast()
}

// Lag has everything arrive so much later, in both directions.
func (w *Wire) Lag(by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lag = by
}

// Slow has the next request that holds text arrive later.
func (w *Wire) Slow(text string, by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slow, w.by = []byte(text), by
}

// Slowed reports whether that request has come.
func (w *Wire) Slowed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.slow == nil
}

// lateness is for how long what was read is kept.
func (w *Wire) lateness(read []byte) (by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	by = w.lag
	if w.slow != nil && bytes.Contains(read, w.slow) {
		w.slow, by = nil, by+w.by
	}
	return by
}

func (w *Wire) connect(client net.Conn) {
	if !w.pass(client) {
		return
	}
	server, err := net.Dial("tcp", w.target)
	if err != nil || !w.pass(server) {
		_ = client.Close()
		return
	}
	go w.carry(client, server)
	w.carry(server, client)
}

// pass waits while the wire hangs, and reports whether c is good after it.
func (w *Wire) pass(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c] = true
	for w.state == Hanging {
		w.moved.Wait()
	}
	if w.state == Broken {
		_ = c.Close()
		delete(w.conns, c)
	}
	return w.state == Passing
}

func (w *Wire) carry(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || !w.pass(from) {
			break
		}
		time.Sleep(w.lateness(buf[:n]))
		if _, err := to.Write(buf[:n]); err != nil {
			break
		}
	}
	_, _ = to.Close(), from.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, from)
}
