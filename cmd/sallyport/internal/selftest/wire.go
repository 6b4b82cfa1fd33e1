package selftest

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// request is one request of HTTP/1.1, byte by byte. The Host of the URL goes first, unless
// a line of the request has another one. With fields it is one of HTTP/2, and nothing else
// of it counts.
type request struct {
	method, target string
	lines          []string // of the header, without their ends
	body           string
	fields         []field
}

// answer is what is looked at of an answer.
type answer struct {
	status int
	header http.Header
	body   []byte // its beginning
}

// The most that is read of an answer. What comes after is left.
const (
	maxAnswerHeader = 256 << 10
	maxAnswerBody   = 64 << 10
	maxInterim      = 8
)

// wire sends requests to the front, each on a connection of its own.
type wire struct {
	url     *url.URL
	address string // to connect to
	roots   *x509.CertPool
	timeout time.Duration
}

func newWire(o Options) wire {
	w := wire{url: o.URL, address: o.Connect, roots: o.Roots, timeout: o.Timeout}
	if w.address == "" {
		w.address = net.JoinHostPort(o.URL.Hostname(), cmp.Or(o.URL.Port(), o.URL.Scheme))
	}
	return w
}

// reach connects, and says what to do if that fails.
func (w wire) reach(ctx context.Context) error {
	conn, err := w.dial(ctx, "http/1.1")
	if err != nil {
		var unknown x509.UnknownAuthorityError
		if errors.As(err, &unknown) {
			return fmt.Errorf("%w (name the certificate of its authority with --ca)", err)
		}
		return err
	}
	return conn.Close()
}

// dial connects to the front, for a protocol by its name in ALPN.
func (w wire) dial(ctx context.Context, protocol string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", w.address)
	if err != nil || w.url.Scheme != "https" {
		return conn, err
	}
	secure := tls.Client(conn, &tls.Config{ServerName: w.url.Hostname(), RootCAs: w.roots,
		NextProtos: []string{protocol}})
	err = secure.HandshakeContext(ctx)
	if agreed := secure.ConnectionState().NegotiatedProtocol; err == nil && protocol == "h2" && agreed != "h2" {
		err = errors.New("the front does not speak HTTP/2")
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

// exchange sends one request and reads the beginning of its answer.
func (w wire) exchange(ctx context.Context, q request) (answer, error) {
	if q.fields != nil {
		return w.exchangeHTTP2(ctx, q.fields)
	}
	conn, err := w.dial(ctx, "http/1.1")
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	// A front that breaks off or drips is given up at this moment, whatever it does.
	if err := conn.SetDeadline(time.Now().Add(w.timeout)); err != nil {
		return answer{}, err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := io.WriteString(conn, q.text(w.url.Host)); err != nil {
		return answer{}, err
	}
	return readAnswer(conn, q.method)
}

// text is the request as it goes over the wire.
func (q request) text(host string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", q.method, q.target)
	if !strings.HasPrefix(strings.Join(q.lines, "\n"), "Host:") {
		fmt.Fprintf(&b, "Host: %s\r\n", host)
	}
	closes := true
	for _, line := range q.lines {
		closes = closes && !strings.HasPrefix(line, "Connection:")
		b.WriteString(line + "\r\n")
	}
	if closes {
		b.WriteString("Connection: close\r\n")
	}
	if q.body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(q.body))
	}
	b.WriteString("\r\n" + q.body)
	return b.String()
}

// readAnswer reads the final answer; those in between are passed over.
func readAnswer(conn io.Reader, method string) (answer, error) {
	in := bufio.NewReader(io.LimitReader(conn, maxAnswerHeader+maxAnswerBody))
	for range maxInterim {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return answer{}, fmt.Errorf("no answer: %w", err)
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			a := answer{status: resp.StatusCode, header: resp.Header}
			if resp.StatusCode != http.StatusSwitchingProtocols {
				// How it ends does not matter: the header has been seen.
				a.body, _ = io.ReadAll(io.LimitReader(resp.Body, maxAnswerBody))
			}
			return a, nil
		}
	}
	return answer{}, errors.New("no answer: interim answers without end")
}
