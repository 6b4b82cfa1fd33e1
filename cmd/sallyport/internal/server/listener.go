package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/internal/lane"
)

// Listener is one address of the configuration, and what answers there.
type Listener struct {
	Key     string // of the configuration, such as listen.http: what a reader changes if the address is taken
	Name    string // in the log; "": listen, or admin if Last
	Address string
	Socket  *Socket      // instead of Address; not if Last
	HTTP    *http.Server // with a TLSConfig it speaks TLS
	Last    bool         // it answers until all others have stopped; of no use to clients who sign in

	// Proxies are peers, such as a load balancer, whose connections begin with a PROXY
	// header; its address stands for theirs. Others may not send one. Not if Last.
	Proxies []netip.Prefix

	// Lane is whether plain requests are answered by lane.Lane; not with TLS, and not if Last.
	Lane bool

	refused *prometheus.CounterVec // connections, for their PROXY header; nil: they are not counted

	on    streamListener            // nil until it is open
	drain *drainListener            // nil if Last
	lane  atomic.Pointer[lane.Lane] // nil if there is none
	http2 *http2OverTLS             // nil without TLS
	ended chan error                // why it stopped serving; nil if it was asked to
}

func (l *Listener) open(ctx context.Context, log *slog.Logger) error {
	if l.Socket != nil {
		on, err := l.Socket.listen(ctx, l.Key, log)
		if err == nil {
			l.on = on
		}
		return err
	}
	on, err := Listen(ctx, l.Key, l.Address)
	if err == nil {
		l.on = on
	}
	return err
}

// Listen opens the address that key of the configuration names, and says in words
// what is in the way.
func Listen(ctx context.Context, key, address string) (*net.TCPListener, error) {
	lc := &net.ListenConfig{}
	lc.SetMultipathTCP(false) // its sockets take no filter (holdOff), and one path is enough here
	l, err := lc.Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		return l.(*net.TCPListener), nil
	case IsAddrInUse(err):
		return nil, fmt.Errorf("cannot listen on %s: another program has it; stop that, or change %s", address, key)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("cannot listen on %s: no permission; ports below 1024 need a privilege, or change %s",
			address, key)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("cannot listen on %s: this machine has no such address; change %s, and for all its "+
			"addresses write the port alone, such as :4180", address, key)
	}
	return nil, fmt.Errorf("cannot listen on %s (%s): %w", address, key, err)
}

// IsAddrInUse tells that another program listens on an address.
func IsAddrInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// label names it in metrics: the key of its configuration.
func (l *Listener) label() string { return strings.TrimSuffix(l.Key, ".address") }

// Addr is where it listens, once it is open.
func (l *Listener) Addr() net.Addr { return l.on.Addr() }

// serve begins to answer, and sends to first why it ended.
func (l *Listener) serve(first chan<- error, log *slog.Logger) {
	var from net.Listener = l.on
	if !l.Last {
		from = l.drained(log)
	}
	l.ended = make(chan error, 1)
	go func() {
		err := l.answer(from)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		} else {
			err = fmt.Errorf("serve %s: %w", from.Addr(), err)
		}
		l.ended <- err
		first <- err
	}()
}

// answer serves what is accepted from from, and returns why it ended.
func (l *Listener) answer(from net.Listener) error {
	if in := l.lane.Load(); in != nil {
		return in.Serve()
	}
	return l.HTTP.Serve(from)
}

// drained is what is accepted from on, and known until it ends.
func (l *Listener) drained(log *slog.Logger) net.Listener {
	l.drain = newDrainListener(l.on)
	l.drain.proxies, l.drain.proxyLimit = l.Proxies, proxyHeaderTime
	if l.Socket == nil {
		l.drain.refusals = newRefusals(log, l)
	}
	l.HTTP.ConnState = l.drain.note
	switch {
	case l.HTTP.TLSConfig != nil:
		front := tls.NewListener(l.drain, l.HTTP.TLSConfig)
		l.http2 = newHTTP2OverTLS(l.HTTP, l.drain.Addr())
		return front
	case l.HTTP.Protocols.UnencryptedHTTP2():
		l.drain.blockLimit = l.HTTP.ReadHeaderTimeout
	}
	if l.Lane && l.HTTP.TLSConfig == nil && lane.Supported {
		l.lane.Store(lane.New(l.HTTP, l.drain))
	}
	return l.drain
}

// finish accepts no more and waits for what was accepted, until ctx is done.
func (l *Listener) finish(ctx context.Context, patience time.Duration) error {
	l.drain.finish()
	err := <-l.ended
	l.drain.settle(ctx)
	if late := l.shutdown(ctx); late != nil {
		err = errors.Join(err, fmt.Errorf("stop: requests were still running after %s: %w", patience, late))
	}
	return err
}

// shutdown ends the connections of both who serve them.
func (l *Listener) shutdown(ctx context.Context) error {
	in := l.lane.Load()
	if in == nil {
		return l.HTTP.Shutdown(ctx)
	}
	ended := make(chan error, 1)
	go func() { ended <- in.Shutdown(ctx) }()
	return errors.Join(l.HTTP.Shutdown(ctx), <-ended)
}

func (l *Listener) close() {
	if in := l.lane.Load(); in != nil {
		in.Close()
	}
	_ = l.HTTP.Close()
	if l.http2 != nil {
		_ = l.http2.Close()
	}
}
