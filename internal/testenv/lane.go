package testenv

import (
	"context"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/lane"
)

// InLane reports whether the tests are to be served by lane.Lane: `make test` runs those of
// the data path in both ways.
func InLane() bool { return os.Getenv("SALLYPORT_TEST_LANE") != "" }

// ServeInLane answers on l by a lane.Lane in front of s. Close waits for handlers, for a while.
func ServeInLane(s *http.Server, l net.Listener) (in *lane.Lane, closeAll func()) {
	in = lane.New(s, Unreading{l})
	go func() { _ = in.Serve() }() // ends with the listener
	return in, func() {
		_ = l.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = in.Shutdown(ctx)
		}()
		_ = s.Shutdown(ctx)
		<-ended
		in.Close()
		_ = s.Close()
	}
}

// Unreading is a listener of TCP whose connections take bytes back, as lane.Conn asks for.
type Unreading struct{ net.Listener }

// Accept implements net.Listener.
func (u Unreading) Accept() (net.Conn, error) {
	c, err := u.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &unreadConn{TCPConn: c.(*net.TCPConn)}, nil
}

type unreadConn struct {
	*net.TCPConn
	unread []byte
	by     time.Time // of the next read deadline, at the latest
}

func (c *unreadConn) Unread(p []byte, by time.Time) { c.unread, c.by = p, by }

func (c *unreadConn) SetReadDeadline(t time.Time) error {
	if by := c.by; !by.IsZero() {
		c.by = time.Time{}
		if by.Before(t) || t.IsZero() {
			t = by
		}
	}
	return c.TCPConn.SetReadDeadline(t)
}

func (c *unreadConn) Read(p []byte) (int, error) {
	if len(c.unread) > 0 {
		n := copy(p, c.unread)
		c.unread = c.unread[n:]
		return n, nil
	}
	return c.TCPConn.Read(p)
}
