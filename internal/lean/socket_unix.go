//go:build unix

package lean

import (
	"net"
	"syscall"
)

// Supported: on this system it can be found out what is in a socket.
const Supported = true

// socket looks into a socket without reading.
type socket struct {
	raw   syscall.RawConn // nil: there is no access
	state *peeked
	peek  func(fd uintptr)
}

// peeked is what a look found.
type peeked struct {
	one   [1]byte
	there bool
}

func newSocket(c net.Conn) socket {
	s := socket{state: new(peeked)}
	if sc, ok := c.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn()
	}
	state := s.state
	s.peek = func(fd uintptr) {
		// It does not block, because Go's sockets never do.
		_, _, err := syscall.Recvfrom(int(fd), state.one[:], syscall.MSG_PEEK)
		state.there = err != syscall.EAGAIN
	}
	return s
}

// pending reports whether there are bytes, the end or an error to read, and also if that
// cannot be found out.
func (s *socket) pending() bool {
	if s.raw == nil {
		return true
	}
	err := s.raw.Control(s.peek)
	return err != nil || s.state.there
}
