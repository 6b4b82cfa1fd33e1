package upstream

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Buffered is c with bytes that were read from it before.
type Buffered struct {
	net.Conn
	Head []byte
}

// buffer is what one piece passes through.
type buffer [tunnelBuffer]byte

// source is what a direction of a tunnel reads. It takes a buffer when there is something
// to put in it, where that can be found out: on a socket, and on TLS above a socket. Else it
// has one while it waits.
type source struct {
	from    io.Reader
	buffers *sync.Pool
	head    []byte // was read before

	socket *socket   // of from; nil: there is no access to one
	secure deadliner // from is TLS, and the socket tells only that something came; nil: from is the socket
}

type deadliner interface{ SetReadDeadline(time.Time) error }

// open takes a side of a tunnel: what to write to and to close, and what to read.
func (ts *Tunnels) open(side io.ReadWriteCloser) (io.ReadWriteCloser, source) {
	var head []byte
	switch b := side.(type) {
	case *Buffered:
		side, head = b.Conn, b.Head
	case interface {
		Bare() (io.ReadWriteCloser, []byte)
	}:
		side, head = b.Bare()
	}
	s := source{from: side, buffers: &ts.buffers, head: head}
	if bare, ok := side.(syscall.Conn); ok {
		s.socket = newSocket(bare, &ts.buffers)
		s.drain()
	} else if over, ok := side.(interface{ NetConn() net.Conn }); ok {
		if bare, ok := over.NetConn().(syscall.Conn); ok {
			if s.secure, ok = side.(deadliner); ok {
				s.socket = newSocket(bare, &ts.buffers)
			}
		}
	}
	return side, s
}

// past is a deadline that is over: a read returns what was read before, and takes nothing
// from the socket.
var past = time.Unix(1, 0)

// drain takes what a connection that is more than its socket has read and not given away
// yet: from here on it is read past it.
func (s *source) drain() {
	switch s.from.(type) {
	case *net.TCPConn, *net.UnixConn:
		return
	}
	c, ok := s.from.(deadliner)
	if s.socket == nil || !ok || c.SetReadDeadline(past) != nil {
		return
	}
	b := s.lend()
	defer s.done(b)
	for {
		n, err := s.from.Read(b[:])
		s.head = append(s.head, b[:n]...)
		if err != nil {
			break // in the end the deadline's; another one comes again
		}
	}
	_ = c.SetReadDeadline(time.Time{})
}

// read waits for bytes, and returns them in a buffer that goes back with done. Without
// bytes there is no buffer.
func (s *source) read() (b *buffer, n int, err error) {
	switch {
	case len(s.head) > 0:
		b = s.lend()
		n = copy(b[:], s.head)
		if s.head = s.head[n:]; len(s.head) == 0 {
			s.head = nil
		}
		return b, n, nil
	case s.socket == nil:
		return s.fill()
	case s.secure == nil:
		return s.socket.read()
	}
	// The socket does not tell of what TLS has taken from it: whole records, its end.
	if err = s.secure.SetReadDeadline(past); err != nil {
		return nil, 0, err
	}
	b, n, err = s.fill()
	if again := s.secure.SetReadDeadline(time.Time{}); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		return b, n, err
	} else if again != nil {
		return nil, 0, again
	}
	if err = s.socket.wait(); err != nil {
		return nil, 0, err
	}
	return s.fill()
}

// fill reads into a buffer.
func (s *source) fill() (*buffer, int, error) {
	b := s.lend()
	n, err := s.from.Read(b[:])
	if n == 0 {
		s.done(b)
		b = nil
	}
	return b, n, err
}

func (s *source) lend() *buffer { return lend(s.buffers) }

func (s *source) done(b *buffer) { s.buffers.Put(b) }

func lend(buffers *sync.Pool) *buffer {
	if b, ok := buffers.Get().(*buffer); ok {
		return b
	}
	return new(buffer)
}
