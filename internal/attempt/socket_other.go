//go:build !unix

package attempt

import (
	"net"
	"syscall"
)

// Elsewhere the socket cannot be looked into. What the reader has taken is known
// still; what waits in the socket is not.
func socket(net.Conn) syscall.RawConn { return nil }

type taking struct {
	take func(uintptr) bool
	peek func(uintptr)
}

func (w *wire) take(uintptr) bool { return true }

func (w *wire) peek(uintptr) {}

func (w *wire) pending() bool { return false }

func (w *wire) read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.took(p, n, err)
}
