package postgres

import (
	"net"
	"sync"
	"testing"
)

// wire is a way to the server that can be broken.
type wire struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	moved *sync.Cond
	state state
	conns map[net.Conn]bool
}

type state int

const (
	passing state = iota
	broken        // connections are closed
	hanging       // connections are accepted, and nothing passes
)

func newWire(t *testing.T, target string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, target: target, conns: map[net.Conn]bool{}}
	w.moved = sync.NewCond(&w.mu)
	t.Cleanup(func() {
		_ = l.Close()
		w.set(broken)
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

func (w *wire) address() string {
	return w.listener.Addr().String()
}

func (w *wire) set(s state) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
	if s == broken {
		for c := range w.conns {
			_ = c.Close()
		}
	}
	w.moved.Broadcast()
}

func (w *wire) connect(client net.Conn) {
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
func (w *wire) pass(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c] = true
	for w.state == hanging {
		w.moved.Wait()
	}
	if w.state == broken {
		_ = c.Close()
		delete(w.conns, c)
	}
	return w.state == passing
}

func (w *wire) carry(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || !w.pass(from) {
			break
		}
		if _, err := to.Write(buf[:n]); err != nil {
			break
		}
	}
	_, _ = to.Close(), from.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, from)
}
