//go:build unix

package attempt

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// socket returns access to the socket of c, or nil.
func socket(c net.Conn) syscall.RawConn {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// socketCall has the arguments and results of one call of read, or of pending. It is part of
// the wire, so that a call allocates no memory.
type socketCall struct {
	p    []byte
	n    int
	err  error
	take func(fd uintptr) bool

	one   [1]byte
	there bool
	peek  func(fd uintptr)
}

// read reads from the socket and changes the state in one step.
func (w *wire) read(p []byte) (int, error) {
	if w.raw == nil {
		n, err := w.Conn.Read(p)
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.took(p, n, err)
	}
	if len(p) == 0 {
		return 0, nil
	}
	t := &w.call
	t.p, t.n, t.err = p, 0, nil
	if err := w.raw.Read(t.take); err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			op.Op = "read" // and not raw-read
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.took(p, 0, err)
	}
	t.p = nil
	return t.n, t.err
}

// take reads what is in the socket. It returns false if that is nothing, so that the reader
// waits.
func (w *wire) take(fd uintptr) bool {
	t := &w.call
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := syscall.Read(int(fd), t.p)
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), t.p)
	}
	switch {
	case err == syscall.EAGAIN:
		return false
	case err != nil:
		n, err = 0, &net.OpError{Op: "read", Net: w.LocalAddr().Network(), Source: w.LocalAddr(), Addr: w.RemoteAddr(),
			Err: os.NewSyscallError("read", err)}
	case n == 0:
		err = io.EOF
	}
	t.n, t.err = w.took(t.p, n, err)
	return true
}

// pending reports whether there are bytes, the end or an error to read in the socket.
func (w *wire) pending() bool {
	if w.raw == nil {
		return false
	}
	err := w.raw.Control(w.call.peek)
	return err != nil || w.call.there
}

// peek looks whether there is something in the socket, and does not read it. It does not
// block, because Go's sockets never do.
func (w *wire) peek(fd uintptr) {
	_, _, err := syscall.Recvfrom(int(fd), w.call.one[:], syscall.MSG_PEEK)
	w.call.there = err != syscall.EAGAIN && err != syscall.EINTR
}
