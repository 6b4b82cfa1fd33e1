// Package upstream is where requests go: the address of an app, the transport
// that reaches it, and the tunnels that are left when a protocol was switched.
//
// It owns connections: their pool, their certificates, how long connecting may
// take, and what an error on one means. It never looks at who is asking, never
// rewrites a message and never decides how long an answer may take; relay does
// that around it. All that it says itself is the close frame of a tunnel that must end.
package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/attempt"
	"github.com/sallyport-proxy/sallyport/internal/lean"
)

// The ways in which an app fails to answer. Front doors turn them into 502 and 504.
var (
	ErrUnreachable = errors.New("the app could not be reached")
	ErrTimeout     = errors.New("the app did not answer in time")
)

// Options configure an Upstream. Only URL is required.
type Options struct {
	// URL is http://host:port, https://host:port, h2c://host:port (HTTP/2 without
	// TLS, by prior knowledge) or unix:/path/of.sock, and nothing else.
	URL *url.URL
	// Roots verify an https app instead of the system's authorities; ServerName
	// is the name its certificate must have instead of the URL's host.
	Roots      *x509.CertPool
	ServerName string
	// ConnectTimeout bounds dialing and, again, the TLS handshake. Default 5 s.
	ConnectTimeout time.Duration
	// KeepAlive is how long a connection is kept for a next request. It should be
	// shorter than the app's own idle timeout. Default 4 s.
	KeepAlive time.Duration
	// Standard has every request sent by net/http's transport. Else GET and HEAD without
	// a body go to http and unix by internal/lean, which takes less of the processor's time,
	// on connections of their own.
	Standard bool
}

// Upstream is one app. It is an http.RoundTripper for requests whose URL has its
// Scheme and Host, and safe for concurrent use.
type Upstream struct {
	scheme, host string
	address      string // as the configuration has it, for errors
	transport    *attempt.Transport
	upgrades     *attempt.Transport // HTTP/1.1 only: RFC 9113 §8.6 has no Upgrade
	lean         *lean.Transport    // nil: none
}

const (
	idlePerApp         = 256
	maxResponseHeader  = 256 << 10
	defaultConnectTime = 5 * time.Second
	defaultKeepAlive   = 4 * time.Second // under the 5 s after which Node and Apache hang up
	// pingAfter notices that an HTTP/2 connection is dead before requests pile up on it.
	pingAfter, pingTimeout = 30 * time.Second, 15 * time.Second
)

// New checks the options. It does not connect: an app may start after us.
func New(o Options) (*Upstream, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	u := &Upstream{scheme: o.URL.Scheme, host: o.URL.Host, address: o.URL.Scheme + "://" + o.URL.Host}
	var protocols http.Protocols
	switch o.URL.Scheme {
	case "http":
		protocols.SetHTTP1(true)
	case "https":
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
	case "h2c":
		u.scheme = "http"
		protocols.SetUnencryptedHTTP2(true)
	case "unix":
		u.scheme, u.host, u.address = "http", "unix", "unix:"+o.URL.Path
		protocols.SetHTTP1(true)
	}
	if o.KeepAlive <= 0 {
		o.KeepAlive = defaultKeepAlive
	}
	pool := attempt.Options{Idle: o.KeepAlive, MaxIdle: idlePerApp}
	u.transport = attempt.New(newTransport(o, &protocols), pool)
	u.upgrades = u.transport
	if o.URL.Scheme == "h2c" || o.URL.Scheme == "https" {
		var one http.Protocols
		one.SetHTTP1(true)
		u.upgrades = attempt.New(newTransport(o, &one), pool)
	}
	if u.scheme == "http" && o.URL.Scheme != "h2c" && lean.Supported && !o.Standard {
		address := o.URL.Host
		if o.URL.Port() == "" {
			address = net.JoinHostPort(o.URL.Hostname(), "80")
		}
		dial := dialer(o)
		u.lean = lean.New(lean.Options{Idle: o.KeepAlive, MaxIdle: idlePerApp, MaxHeader: maxResponseHeader,
			Dial: func(ctx context.Context) (net.Conn, error) { return dial(ctx, "tcp", address) }})
	}
	return u, nil
}

func (o Options) check() error {
	u := o.URL
	if u == nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return errAddress
	}
	switch u.Scheme {
	case "http", "https", "h2c":
		if u.Hostname() == "" || (u.Path != "" && u.Path != "/") {
			return errAddress
		}
	case "unix":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") || path.Clean(u.Path) != u.Path || u.Path == "/" {
			return errAddress
		}
	default:
		return errAddress
	}
	if u.Scheme != "https" && (o.Roots != nil || o.ServerName != "") {
		return errors.New("upstream: only https has certificates to check")
	}
	return nil
}

var errAddress = errors.New("upstream: the address must be http://, https:// or h2c:// with host and port, " +
	"or unix: with an absolute path, and nothing else")

func newTransport(o Options, protocols *http.Protocols) *http.Transport {
	connect := connectTime(o)
	t := &http.Transport{
		// No Proxy: HTTP_PROXY is about the way out, and an app is next door.
		Protocols:              protocols,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		TLSHandshakeTimeout:    connect,
		ExpectContinueTimeout:  time.Second, // 0 would send 100 before the app decided
		MaxResponseHeaderBytes: maxResponseHeader,
		// Else the transport would ask for gzip on its own and unpack it.
		DisableCompression: true,
	}
	if o.URL.Scheme == "https" {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots, ServerName: o.ServerName}
	}
	t.DialContext = dialer(o)
	return t
}

// dialer connects to the app, whatever the address that is asked for where it has a path.
func dialer(o Options) func(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{Timeout: connectTime(o)}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if o.URL.Scheme == "unix" {
			network, address = "unix", o.URL.Path
		}
		return d.DialContext(ctx, network, address)
	}
}

func connectTime(o Options) time.Duration {
	if o.ConnectTimeout <= 0 {
		return defaultConnectTime
	}
	return o.ConnectTimeout
}

// Scheme and Host are what the URL of a request for this app must have. They say
// nothing about the Host header.
func (u *Upstream) Scheme() string { return u.scheme }

// Host is described at Scheme.
func (u *Upstream) Host() string { return u.host }

// RoundTrip sends r and returns the answer. Errors wrap ErrTimeout,
// ErrUnreachable or the context's. The comment of attempt.Transport says when r is
// sent once more; its body comes from GetBody then.
func (u *Upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	var t http.RoundTripper = u.transport
	switch {
	case u.Takes(r):
		t = u.lean
	case r.Header.Get("Upgrade") != "":
		t = u.upgrades
	}
	res, err := t.RoundTrip(r)
	if err != nil {
		return nil, u.classify(err)
	}
	return res, nil
}

// Takes reports whether r may be sent by Do.
func (u *Upstream) Takes(r *http.Request) bool { return u.lean != nil && lean.Takes(r) }

// Do is RoundTrip for a request that u takes, in the goroutine of the caller. It is ended
// through call, and not by r's context; the error is then what ended it.
func (u *Upstream) Do(r *http.Request, call *lean.Call) (*http.Response, error) {
	res, err := u.lean.Do(r, call)
	if err == nil {
		return res, nil
	}
	if call.Cause() != nil {
		return nil, call.Cause()
	}
	return nil, u.classify(err)
}

// Close drops idle connections.
func (u *Upstream) Close() {
	u.transport.CloseIdleConnections()
	u.upgrades.CloseIdleConnections()
	if u.lean != nil {
		u.lean.CloseIdleConnections()
	}
}

func (u *Upstream) classify(err error) error {
	var timeout interface{ Timeout() bool }
	var op *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &op) && op.Op == "dial": // also when dialing timed out: nobody is there
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %s: %w", ErrTimeout, u.address, err)
	}
	return fmt.Errorf("%w: %s: %w%s", ErrUnreachable, u.address, err, advice(err))
}

// advice says what to look at where TLS with an app fails; "" for all else.
func advice(err error) string {
	var (
		plain tls.RecordHeaderError
		root  x509.UnknownAuthorityError
		name  x509.HostnameError
	)
	switch {
	case errors.As(err, &plain):
		return "; the app does not speak TLS there: is it http:// in upstream?"
	case errors.As(err, &root):
		return "; upstream.ca says who may vouch for it"
	case errors.As(err, &name):
		return "; upstream.server_name says which name it has"
	}
	return ""
}
