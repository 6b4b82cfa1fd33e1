//go:build unix

package lane

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// Supported: on this system it can be found out whether a client is gone.
const Supported = true

// socket looks into a socket without reading. Its methods may be called by several
// goroutines.
type socket struct{ raw syscall.RawConn } // nil: there is no access

func newSocket(c net.Conn) socket {
	var s socket
	if sc, ok := c.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn()
	}
	return s
}

func (s socket) ok() bool { return s.raw != nil }

// gone reports whether the client has closed its side, or the connection is broken.
func (s socket) gone() bool {
	var found state
	if err := s.raw.Control(func(fd uintptr) { found = peek(fd) }); err != nil {
		return true
	}
	return found == over
}

// awaitGone returns whether the client is gone, or the connection closed, when that is known, or
// something has come from it, or the read deadline.
func (s socket) awaitGone() bool {
	var found state
	err := s.raw.Read(func(fd uintptr) bool {
		found = peek(fd)
		return found != silent
	})
	if err != nil {
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
	return found == over
}

// state is what peek found.
type state int

const (
	silent state = iota
	bytesCame
	over
)

// peek does not block, because Go's sockets never do.
func peek(fd uintptr) state {
	var one [1]byte
	for {
		switch n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK); {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return silent
		case err != nil || n == 0:
			return over
		default:
			return bytesCame
		}
	}
}
