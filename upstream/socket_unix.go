//go:build unix

package upstream

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// socket reads a socket into buffers that are taken only when there is something to read.
// It is for one goroutine.
type socket struct {
	raw     syscall.RawConn
	conn    net.Conn // names what failed
	buffers *sync.Pool

	// The results of a call of take. It and look are made once, so that a read allocates
	// no memory.
	b          *buffer
	n          int
	err        error
	take, peek func(fd uintptr) bool
	one        [1]byte
}

// newSocket returns nil if there is no access to the socket of c.
func newSocket(c syscall.Conn, buffers *sync.Pool) *socket {
	conn, ok := c.(net.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{raw: raw, conn: conn, buffers: buffers}
	s.take, s.peek = s.tryRead, s.tryPeek
	return s
}

// read waits for bytes and reads them.
func (s *socket) read() (*buffer, int, error) {
	if err := s.raw.Read(s.take); err != nil {
		return nil, 0, readError(err)
	}
	b, n, err := s.b, s.n, s.err
	s.b, s.err = nil, nil
	return b, n, err
}

// wait waits until there are bytes, the end or an error to read.
func (s *socket) wait() error {
	if err := s.raw.Read(s.peek); err != nil {
		return readError(err)
	}
	return nil
}

// tryRead reads what is in the socket, and returns false if that is nothing, so that the
// caller waits.
func (s *socket) tryRead(fd uintptr) bool {
	b := lend(s.buffers)
	n, err := syscall.Read(int(fd), b[:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), b[:])
	}
	if n > 0 && err == nil {
		s.b, s.n, s.err = b, n, nil
		return true
	}
	s.buffers.Put(b)
	if err == syscall.EAGAIN {
		return false
	}
	if s.b, s.n, s.err = nil, 0, io.EOF; err != nil {
		s.err = &net.OpError{Op: "read", Net: s.conn.LocalAddr().Network(), Source: s.conn.LocalAddr(),
			Addr: s.conn.RemoteAddr(), Err: os.NewSyscallError("read", err)}
	}
	return true
}

// tryPeek looks whether there is something in the socket. It does not block, because Go's
// sockets never do.
func (s *socket) tryPeek(fd uintptr) bool {
	_, _, err := syscall.Recvfrom(int(fd), s.one[:], syscall.MSG_PEEK)
	for err == syscall.EINTR {
		_, _, err = syscall.Recvfrom(int(fd), s.one[:], syscall.MSG_PEEK)
	}
	return err != syscall.EAGAIN
}

// readError says read, and not raw-read.
func readError(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		op.Op = "read"
	}
	return err
}
