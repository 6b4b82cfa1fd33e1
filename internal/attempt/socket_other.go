//go:build !unix

package attempt

import (
	"net"
	"syscall"
)

// socket returns nil: on this system it cannot be found out what is in the socket. What the
// reader has read is known all the same.
func socket(net.Conn) syscall.RawConn { return nil }

type socketCall struct {
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
