// Package upstream is where requests go: the address of an app and the
// transport that reaches it.
//
// It owns connections: their pool, their timeouts, and what an error on one
// means. It never looks at who is asking and never rewrites a message; proxy
// does that before it hands a request over.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// The ways in which an app fails to answer. proxy turns them into 502 and 504.
var (
	ErrUnreachable = errors.New("the app could not be reached")
	ErrTimeout     = errors.New("the app did not answer in time")
)

// Options configure an Upstream. Only URL is required.
type Options struct {
	URL            *url.URL // http://host:port, nothing else
	ConnectTimeout time.Duration
	HeaderTimeout  time.Duration // from the last byte sent to the response's header
	IdleTimeout    time.Duration // of pooled connections
}

// Upstream is one app. It is an http.RoundTripper and safe for concurrent use.
type Upstream struct {
	host      string
	transport *http.Transport
}

// New checks the options. It does not connect: an app may start after us.
func New(o Options) (*Upstream, error) {
	u := o.URL
	if u == nil || u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") {
		return nil, errors.New("upstream: the address must be http://host:port and nothing else")
	}
	orDefault := func(d, def time.Duration) time.Duration {
		if d <= 0 {
			return def
		}
		return d
	}
	dialer := &net.Dialer{Timeout: orDefault(o.ConnectTimeout, 5*time.Second)}
	return &Upstream{host: u.Host, transport: &http.Transport{
		DialContext: dialer.DialContext,
		// No Proxy: HTTP_PROXY is about the way out, and an app is next door.
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        orDefault(o.IdleTimeout, 90*time.Second),
		ResponseHeaderTimeout:  orDefault(o.HeaderTimeout, 30*time.Second),
		ExpectContinueTimeout:  time.Second, // 0 would send 100 before the app decided
		MaxResponseHeaderBytes: 256 << 10,
		// Else the transport would ask for gzip on its own and unpack it.
		DisableCompression: true,
	}}, nil
}

// Host is the host and port of the app.
func (u *Upstream) Host() string { return u.host }

// RoundTrip sends r, whose URL names this app, and returns the answer. Errors
// wrap ErrTimeout, ErrUnreachable or the context's.
func (u *Upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := u.transport.RoundTrip(r)
	if err != nil {
		return nil, classify(err)
	}
	return res, nil
}

// Close drops idle connections.
func (u *Upstream) Close() { u.transport.CloseIdleConnections() }

func classify(err error) error {
	var timeout interface{ Timeout() bool }
	var op *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &op) && op.Op == "dial": // also when dialing timed out: nobody is there
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}
