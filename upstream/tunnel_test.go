package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// owner has a tunnel, and keeps what it is told.
type owner struct {
	moved atomic.Int64
	done  chan carried
}

func newOwner() *owner                       { return &owner{done: make(chan carried, 2)} }
func (o *owner) Moved()                      { o.moved.Add(1) }
func (o *owner) CloseFrame(error) CloseFrame { return signedOut }
func (o *owner) Ended(toUpstream, toClient int64, err error) {
	o.done <- carried{toUpstream, toClient, err}
}

// ends makes both sides of a tunnel; what is written to one end of a pair is
// read at the other.
func ends(t *testing.T) (e Ends, client, app net.Conn) {
	t.Helper()
	pair := func() (net.Conn, net.Conn) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { out.Close(); in.Close() })
		return out, in
	}
	client, e.Client = pair()
	app, e.Upstream = pair()
	return e, client, app
}

var signedOut = CloseFrame{1008, "signed out"}

type carried struct {
	toUpstream, toClient int64
	err                  error
}

// carry has a tunnel end with ctx.
func carry(ctx context.Context, ts *Tunnels, e Ends) chan carried {
	o, ok := e.Owner.(*owner)
	if !ok {
		o = newOwner()
		e.Owner = o
	}
	t := ts.New(e)
	context.AfterFunc(ctx, func() { t.End(context.Cause(ctx)) })
	t.Carry()
	return o.done
}

func ended(t *testing.T, done chan carried) carried {
	t.Helper()
	select {
	case c := <-done:
		return c
	case <-time.After(5 * time.Second):
		t.Fatal("the tunnel goes on")
		return carried{}
	}
}

func TestATunnelCarriesBothWaysAndItsHalfClose(t *testing.T) {
	var ts Tunnels
	o := newOwner()
	e, client, app := ends(t)
	e.Owner = o
	e.Client = &Buffered{Conn: e.Client.(net.Conn), Head: []byte("early ")}
	done := carry(t.Context(), &ts, e)
	up, down := make([]byte, 300000), make([]byte, 200000)
	for i := range up {
		up[i] = byte(rand.Uint32())
	}
	go func() { _, _ = client.Write(up); _ = client.(*net.TCPConn).CloseWrite() }()
	got, err := io.ReadAll(app)
	if err != nil || !bytes.Equal(got, append([]byte("early "), up...)) {
		t.Errorf("%d bytes at the app, %v", len(got), err)
	}
	go func() { _, _ = app.Write(down); app.Close() }() // after the client's half is closed
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, down) {
		t.Errorf("%d bytes at the client, %v", len(got), err)
	}
	if c := ended(t, done); c.toUpstream != int64(len(up)+6) || c.toClient != int64(len(down)) || c.err != nil ||
		o.moved.Load() < 2 {
		t.Errorf("%+v, moved %d", c, o.moved.Load())
	}
	testenv.Eventually(t, "nothing is live", func() bool { return ts.Len() == 0 })
}

func TestATunnelEndsWithItsContext(t *testing.T) {
	var ts Tunnels
	why := errors.New("the session is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	e, client, app := ends(t)
	done := carry(ctx, &ts, e)
	cancel(why)
	told := signedOut.forClient()
	got := make([]byte, len(told))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, told) {
		t.Errorf("the client is told % x, %v", got, err)
	}
	_, err := client.Write(frame(closing, 2, true))
	testenv.Check(t, err)
	if c := ended(t, done); !errors.Is(c.err, why) {
		t.Errorf("%v", c.err)
	}
	if rest, _ := io.ReadAll(app); len(rest) != len(CloseFrame{}.forServer()) {
		t.Errorf("the app is told % x", rest)
	}
	if n, err := client.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("the client's end is open")
	}
}

func TestClosedTunnelsEndAndStayClosed(t *testing.T) {
	var ts Tunnels
	ts.Close(t.Context()) // nothing to wait for
	ts = Tunnels{}
	var all []chan carried
	for range 20 {
		e, _, _ := ends(t)
		all = append(all, carry(t.Context(), &ts, e))
	}
	testenv.Eventually(t, "all are carried", func() bool { return ts.Len() == 20 })
	if ts.Closed() {
		t.Error("closed before Close")
	}
	both := make(chan struct{})
	go func() { ts.Close(t.Context()); close(both) }() // twice at once, as a second signal would
	ts.Close(t.Context())
	<-both
	if ts.Len() != 0 || !ts.Closed() {
		t.Errorf("%d are left", ts.Len())
	}
	for _, done := range all {
		ended(t, done)
	}
	e, client, _ := ends(t)
	if c := ended(t, carry(t.Context(), &ts, e)); !errors.Is(c.err, ErrClosed) {
		t.Errorf("%v", c.err)
	}
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the connection of a tunnel that is not carried stays open")
	}
}

// stuck cannot be closed: Close must not wait for it beyond its context.
type stuck struct{ release chan struct{} }

func (s stuck) Read([]byte) (int, error)    { <-s.release; return 0, io.EOF }
func (s stuck) Write(b []byte) (int, error) { return len(b), nil }
func (s stuck) Close() error                { <-s.release; return nil }

func TestCloseWaitsNoLongerThanItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ts Tunnels
		s := stuck{make(chan struct{})}
		done := carry(t.Context(), &ts, Ends{Client: s, Upstream: s})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		ts.Close(ctx)
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("waited %v", took)
		}
		close(s.release)
		<-done
	})
}

// A peer that cannot close one half, or never ends the other, holds nothing. It is
// told at once that the other side has gone.
func TestOneHalfDoesNotOutliveTheOtherForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ts Tunnels
		client, inner := net.Pipe()
		app, outer := net.Pipe()
		begin, told := time.Now(), make(chan time.Time, 1)
		done := carry(t.Context(), &ts, Ends{Client: inner, Upstream: halfCloser{outer, told}})
		client.Close() // the app says nothing to that
		if at := <-told; !at.Equal(begin) {
			t.Errorf("the app is told after %v", at.Sub(begin))
		}
		c := <-done
		if took := time.Since(begin); took != tunnelLinger {
			t.Errorf("ended after %v, %v", took, c.err)
		}
		app.Close()
	})
}

type halfCloser struct {
	net.Conn
	told chan time.Time // when
}

func (h halfCloser) CloseWrite() error { h.told <- time.Now(); return nil }
