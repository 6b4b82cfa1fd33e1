// Package attempt sends a request to a peer at most once, or once more where the
// peer has done nothing with it or its method is safe.
//
// net/http's own Transport sends again by itself, and without end over HTTP/2: a
// peer that answers RST_STREAM PROTOCOL_ERROR got one POST thousands of times.
// So connections are pooled here, each one an http.ClientConn, which is one
// attempt by construction; whether there is a second one is decided in one
// place. The package knows nothing of routes, people or tokens.
package attempt

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
)

// RoundTrip implements http.RoundTripper. There are two attempts at most. The
// second one follows if nothing of the first was written, if the peer says that
// it did nothing (RFC 9113 §8.7), or if the method is safe and the connection
// broke off before an answer, and only if the body can be had again: there is
// none, or GetBody gives it. A header such as Idempotency-Key changes nothing:
// it is the client's word for what the peer does. The trace's GotConn is called
// for each attempt. The body may be closed while it is being read, and the read
// must then end: else RoundTrip waits for it after the peer has hung up.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	res, first, err := t.try(r, false)
	if err == nil || first.link == nil || r.Context().Err() != nil || !first.harmless(r.Method, err) {
		return res, err
	}
	again, ok := rewind(r)
	if !ok {
		return nil, err
	}
	res, _, err = t.try(again, true)
	return res, err
}

// try is one attempt. The link is nil if there was no connection to make it on.
func (t *Transport) try(r *http.Request, fresh bool) (*http.Response, hold, error) {
	ctx := r.Context()
	p, err := t.peer(r.URL)
	if err != nil {
		return nil, hold{}, err
	}
	h, err := t.acquire(ctx, p, fresh)
	if err != nil {
		return nil, hold{}, err
	}
	if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{Conn: h.link.wire, Reused: h.reused})
	}
	if r.Body != nil && r.Body != http.NoBody && !h.link.shared {
		h.link.wire.atEnd(func() { h.lost(r.Body) })
		defer h.link.wire.atEnd(nil)
	}
	res, err := h.link.RoundTrip(r)
	if err != nil {
		t.changed(h.link)
		return nil, h, err
	}
	if body, ok := res.Body.(io.ReadWriteCloser); ok && res.StatusCode == http.StatusSwitchingProtocols {
		res.Body = &Upgraded{body, h.link.wire, p.scheme == "https"}
	}
	return res, h, nil
}

// hold is a link that is ours for one request.
type hold struct {
	link   *link
	reused bool
}

// lost closes a body whose connection has ended. net/http does so itself over HTTP/2, but
// over HTTP/1 it first waits for the next piece of the body, which may never come. Where a
// second attempt may follow, the body is left alone.
func (h hold) lost(body io.Closer) {
	if !h.reused || h.link.wire.begun() {
		_ = body.Close()
	}
}

// harmless reports whether an attempt that ended with err may be followed by
// another one.
func (h hold) harmless(method string, err error) bool {
	lost := !errors.Is(err, context.Canceled) && !isTimeout(err)
	if !h.link.shared {
		// On a fresh connection there is no race with a peer that has just hung up.
		unanswered := !h.link.wire.heard.Load() || noAnswer(err)
		return h.reused && lost && (!h.link.wire.begun() || (safe(method) && unanswered))
	}
	var reset streamError
	if errors.As(err, &reset) {
		if reset.Cause == nil || reset.Cause.Error() != "received from peer" {
			return false
		}
		return reset.Code == refusedStream || (reset.Code == protocolError && safe(method))
	}
	return didNothing(err) || (h.reused && lost && safe(method) && brokeOff(err))
}

// streamError has the fields of net/http's error for a stream that was reset,
// which converts itself to a type that has them.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "the stream was reset" }

// RFC 9113 §7.
const (
	protocolError = 0x1
	refusedStream = 0x7
)

// didNothing: net/http has no exported errors for these. Should it word them
// otherwise one day, there is one attempt less, and the tests say so.
func didNothing(err error) bool {
	switch text := err.Error(); {
	case text == "http2: Transport received Server's graceful shutdown GOAWAY", // above its last stream
		strings.HasPrefix(text, "http2: Transport received GOAWAY from server"), // the same for the first stream
		text == "http2: client conn not usable":                                 // nothing was written
		return true
	}
	return false
}

// noAnswer: HTTP/1 read no byte of an answer, though TLS may have said goodbye.
func noAnswer(err error) bool {
	text := err.Error()
	return strings.HasPrefix(text, "net/http: Transport failed to read from server:") ||
		text == "http: server closed idle connection"
}

func brokeOff(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op)
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// safe is RFC 9110 §9.2.1.
func safe(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// rewind is r with its body from the beginning.
func rewind(r *http.Request) (*http.Request, bool) {
	if r.Body == nil || r.Body == http.NoBody {
		return r, true
	}
	if r.GetBody == nil {
		return nil, false
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, false
	}
	again := *r
	again.Body = body
	return &again, true
}
