package lane_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/lane"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// Close ends everything, as net/http's does: nobody can connect any more, and who waits for the
// end of a request that is being answered learns of it.
func TestCloseEndsRequestsAndTheListener(t *testing.T) {
	t.Parallel()
	begun, over := make(chan struct{}, 1), make(chan error, 1)
	s := newSite(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		done := r.Context().Done()
		begun <- struct{}{}
		select {
		case <-done:
		case <-time.After(10 * time.Second):
		}
		over <- r.Context().Err()
	}))
	for addr, closes := range map[string]func(){s.addr: s.lane.Close, s.bare: func() { _ = s.plain.Close() }} {
		c, _ := dialTo(t, addr)
		send(t, c, get)
		<-begun
		closed := time.Now()
		closes()
		if err := <-over; !errors.Is(err, context.Canceled) || time.Since(closed) > 5*time.Second {
			t.Errorf("lane %t: %v after %v", addr == s.addr, err, time.Since(closed))
		}
		if c, err := net.Dial("tcp", addr); err == nil {
			t.Errorf("lane %t: it accepts", addr == s.addr)
			_ = c.Close()
		}
	}
}

// stopping is a listener whose lane is stopped right after the first connection was accepted.
type stopping struct {
	testenv.Unreading
	accepted *atomic.Int32
	stop     func()
}

// Accept implements net.Listener.
func (l stopping) Accept() (net.Conn, error) {
	if l.accepted.Add(1) == 2 {
		l.stop()
	}
	return l.Unreading.Accept()
}

// When Shutdown has returned, nothing is answered any more: what was accepted a moment before
// counts (golang/go #34163).
func TestNothingIsAnsweredAfterAStop(t *testing.T) {
	t.Parallel()
	for range 20 {
		on, err := net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		c, in := dialTo(t, on.Addr().String())
		send(t, c, get)
		var stopped atomic.Bool
		var l *lane.Lane
		l = lane.New(&http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			if stopped.Load() {
				t.Error("a request is answered after the stop")
			}
		})}, stopping{testenv.Unreading{Listener: on}, new(atomic.Int32), func() {
			check(t, l.Shutdown(t.Context()))
			stopped.Store(true)
			_ = on.Close()
		}})
		if err := l.Serve(); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		_, _ = io.ReadAll(in)
	}
}
