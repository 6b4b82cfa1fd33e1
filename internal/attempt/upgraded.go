package attempt

import (
	"errors"
	"io"
	"net"
	"time"
)

// Upgraded is the body of a 101: the connection, which is the caller's from there on. What
// net/http has read behind the answer comes first.
type Upgraded struct {
	io.ReadWriteCloser
	wire   *wire
	secure bool // the wire is below TLS
}

// CloseWrite tells the peer that nothing more comes.
func (u *Upgraded) CloseWrite() error {
	half, ok := u.ReadWriteCloser.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// Bare is the connection without what was around it for the sake of requests, and what was
// read from it already. It is for before anything else was read; u is no longer used then.
func (u *Upgraded) Bare() (io.ReadWriteCloser, []byte) {
	if u.secure {
		return &secured{u}, nil
	}
	var read []byte
	buf := make([]byte, 512)
	_ = u.wire.SetReadDeadline(time.Unix(1, 0)) // nothing is taken from the socket
	for {
		n, err := u.Read(buf)
		read = append(read, buf[:n]...)
		if err != nil {
			break // in the end the deadline's; another one comes again
		}
	}
	_ = u.wire.SetReadDeadline(time.Time{})
	return u.wire.Conn, read
}

// secured is TLS above a connection.
type secured struct{ *Upgraded }

// SetReadDeadline sets that of the connection below TLS.
func (s *secured) SetReadDeadline(t time.Time) error { return s.wire.Conn.SetReadDeadline(t) }

// NetConn is the connection below TLS.
func (s *secured) NetConn() net.Conn { return s.wire.Conn }
