// Package oauth is the back channel: the one HTTP client that talks to
// identity providers and token endpoints.
//
// It owns what every such call needs and what libraries leave out: a deadline
// for the whole call, a cap on the answer, no redirects, errors that can be
// logged, and a token request that reaches the provider once. What it did not
// look at, and a document, may be asked for once more (package attempt). It never
// logs, and never decides what a token is worth: ID tokens are checked in login.
package oauth

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/attempt"
	"github.com/sallyport-proxy/sallyport/internal/egress"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

const (
	defaultTimeout = 10 * time.Second
	defaultMaxBody = 1 << 20
	maxHeader      = 64 << 10
)

// Options are what a Client needs.
type Options struct {
	Provider  string            // the metric's label
	Transport http.RoundTripper // nil: a transport of its own; of an *http.Transport only the way to dial is used
	Roots     *x509.CertPool    // who may vouch for the provider; nil: whom the system trusts. Not with Transport
	Timeout   time.Duration     // for a whole call, body included; 0: 10 s
	MaxBody   int64             // of an answer, decompressed; 0: 1 MiB
	Metrics   *Metrics          // nil: not measured
}

// Client makes back-channel calls to one provider. It is safe for concurrent use.
type Client struct {
	provider  string
	transport http.RoundTripper
	roots     *x509.CertPool
	timeout   time.Duration
	maxBody   int64
	metrics   *Metrics
}

// NewClient returns a Client. It does no I/O.
func NewClient(o Options) (*Client, error) {
	if o.Provider == "" {
		return nil, errors.New("oauth: Options.Provider is empty")
	}
	if o.Timeout < 0 || o.MaxBody < 0 {
		return nil, errors.New("oauth: Options.Timeout and MaxBody cannot be negative")
	}
	if o.Transport != nil && o.Roots != nil {
		return nil, errors.New("oauth: Options.Roots would not reach Options.Transport")
	}
	c := &Client{
		provider: o.Provider, transport: o.Transport, roots: o.Roots, timeout: o.Timeout, maxBody: o.MaxBody,
		metrics: o.Metrics,
	}
	switch base := o.Transport.(type) {
	case nil:
		c.transport = attempt.New(newTransport(o.Roots), attempt.Options{})
	case *http.Transport: // left to itself, it sends again without end
		c.transport = attempt.New(base, attempt.Options{})
	}
	if c.timeout == 0 {
		c.timeout = defaultTimeout
	}
	if c.maxBody == 0 {
		c.maxBody = defaultMaxBody
	}
	return c, nil
}

// Guarded returns a client for hosts that the operator did not choose. It connects to public
// addresses only, as package egress has it, with connections of its own.
func (c *Client) Guarded() *Client {
	guarded := *c
	t := newTransport(c.roots)
	egress.Guard(t, c.timeout)
	guarded.transport = attempt.New(t, attempt.Options{})
	return &guarded
}

// WithMaxBody returns a client that accepts answers of n bytes at most.
func (c *Client) WithMaxBody(n int64) *Client {
	other := *c
	other.maxBody = n
	return &other
}

// WithTimeout returns a client whose calls may take d.
func (c *Client) WithTimeout(d time.Duration) *Client {
	other := *c
	other.timeout = d
	return &other
}

func newTransport(roots *x509.CertPool) *http.Transport {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{}).DialContext}
	if std, ok := http.DefaultTransport.(*http.Transport); ok {
		t = std.Clone()
	}
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	t.ForceAttemptHTTP2 = true
	t.MaxResponseHeaderBytes = maxHeader
	t.DialContext = dialLocalhost(t.DialContext)
	t.Proxy = proxyButForLoopback(t.Proxy)
	return t
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// dialLocalhost connects to names below "localhost" on this machine, as browsers
// do: a configuration may name them with plain http because they cannot be
// another one, and a DNS server could say otherwise (RFC 6761 §6.3).
func dialLocalhost(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil || !hostname.IsLocalhost(host) {
			return dial(ctx, network, address)
		}
		conn, err := dial(ctx, network, net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			conn, err = dial(ctx, network, net.JoinHostPort("::1", port))
		}
		return conn, err
	}
}

// proxyButForLoopback keeps what is for this machine from a forward proxy of the
// environment.
func proxyButForLoopback(proxy func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(req *http.Request) (*url.URL, error) {
		if proxy == nil || hostname.IsLoopback(req.URL.Hostname()) {
			return nil, nil
		}
		return proxy(req)
	}
}

// CloseIdleConnections closes what is kept for further calls. Those that are under way
// are left alone.
func (c *Client) CloseIdleConnections() {
	if idle, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		idle.CloseIdleConnections()
	}
}

// HTTPClient returns a client for reading documents (discovery, keys,
// userinfo), also by libraries. Its answers are complete, at most MaxBody long,
// and have status 200; everything else is an *Error. So no library can follow a
// redirect with our secret in hand (RFC 9110 §15.4.8), wait for ever, or put a
// response body in an error text. call is the metric's label.
func (c *Client) HTTPClient(call string) *http.Client {
	return &http.Client{
		Transport:     documents{c, call},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type documents struct {
	client *Client
	call   string
}

// RoundTrip implements http.RoundTripper.
func (d documents) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, body, err := d.client.document(req, d.call)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
	return resp, nil
}

// Document makes one request for a document, as HTTPClient does. The body of an answer with
// another status than 200 comes along with its *Error, for APIs that say there what they mean;
// it belongs in no text.
func (c *Client) Document(req *http.Request, call string) ([]byte, error) {
	_, body, err := c.document(req, call)
	return body, err
}

func (c *Client) document(req *http.Request, call string) (*http.Response, []byte, error) {
	resp, body, err := c.send(req, call, taking{})
	if err == nil && resp.StatusCode != http.StatusOK {
		err = answered(resp, statusError(call, resp.StatusCode))
	}
	if err != nil {
		return nil, body, to(req, err)
	}
	return resp, body, nil
}

// Answer makes one call and returns the answer as a whole, whatever its status: also a
// redirect, which is not followed. Its Body is closed. Errors are *Error, without the URL,
// which may be a secret.
func (c *Client) Answer(req *http.Request, call string) (*http.Response, []byte, error) {
	return c.send(req, call, taking{redirects: true})
}

// Beginning is Answer where the first bytes of the body say enough. All of it has to come, and it
// is no longer than MaxBody; what takes memory are those bytes alone.
func (c *Client) Beginning(req *http.Request, call string, bytes int64) (*http.Response, []byte, error) {
	return c.send(req, call, taking{redirects: true, bytes: bytes})
}

// taking says what of an answer is wanted.
type taking struct {
	redirects bool  // one is an answer like others, and not an error
	bytes     int64 // of its body, from the beginning; 0: all
}

// send makes one round trip and reads the whole answer. It uses the transport
// itself, not an http.Client: there is nothing here that could follow a redirect.
func (c *Client) send(req *http.Request, call string, t taking) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(req.Context(), c.timeout)
	defer cancel()
	defer c.metrics.observe(c.provider, call, time.Now())

	attempts := 0
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { attempts++ }})
	resp, err := c.transport.RoundTrip(named(req.WithContext(ctx)))
	if attempts > 1 {
		c.metrics.retried(c.provider, call)
	}
	if err != nil {
		return nil, nil, c.unreachable(ctx, call, c.sent(attempts), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 && resp.StatusCode < 400 && !t.redirects {
		return nil, nil, answered(resp, statusError(call, resp.StatusCode))
	}
	body, length, err := c.read(resp.Body, t.bytes)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, nil, c.unreachable(ctx, call, Answered, err)
	case err != nil:
		err = errors.New("the answer was cut off")
	case length > c.maxBody:
		err = fmt.Errorf("the answer is longer than %d bytes", c.maxBody)
	}
	if err != nil {
		return nil, nil, answered(resp, &Error{Kind: Rejected, Call: call, Status: resp.StatusCode, Err: err})
	}
	return resp, body, nil
}

// read reads a body to its end, or until it is too long, and returns what is wanted of it.
func (c *Client) read(from io.Reader, wanted int64) (body []byte, length int64, err error) {
	from = io.LimitReader(from, c.maxBody+1)
	if wanted == 0 {
		body, err = io.ReadAll(from)
		return body, int64(len(body)), err
	}
	if body, err = io.ReadAll(io.LimitReader(from, wanted)); err != nil {
		return body, 0, err
	}
	rest, err := io.Copy(io.Discard, from)
	return body, int64(len(body)) + rest, err
}

// agent is what we call ourselves. There are servers, and what stands before them, that refuse
// requests without a User-Agent and those with the one of Go's library.
const agent = "sallyport"

// named returns a request that says whose it is, if it does not. req itself stays.
func named(req *http.Request) *http.Request {
	if req.Header["User-Agent"] != nil {
		return req
	}
	r := *req
	if r.Header = req.Header.Clone(); r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("User-Agent", agent)
	return &r
}

// sent tells what a call that got no answer came to. Only our own transport tells
// each connection that it used.
func (c *Client) sent(attempts int) Sent {
	if _, ours := c.transport.(*attempt.Transport); ours && attempts == 0 {
		return Never
	}
	return Maybe
}

func (c *Client) unreachable(ctx context.Context, call string, sent Sent, err error) error {
	e := &Error{Kind: Unavailable, Call: call, Sent: sent}
	switch cause := ctx.Err(); {
	case errors.Is(cause, context.DeadlineExceeded):
		e.Err = fmt.Errorf("no complete answer in time: %w", cause)
	case cause != nil:
		e.Err = fmt.Errorf("given up: %w", cause)
	case errors.Is(err, egress.ErrNotPublic):
		e.Err = egress.ErrNotPublic
	default:
		e.Err = errors.New(describe(err))
	}
	return e
}
