package relay

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"time"
)

// answer is what an upstream says to one request, on its way to the client.
type answer struct {
	client  *Client
	request *http.Request // the client's
	order   *Order
	watch   *watch
	buffers *bufferPool
}

// interim takes a 1xx to be passed on. 100 is not among them: the client is
// told when the body is first read, which the transport does once the upstream has
// said 100. Nor is 101, which nobody may say within HTTP/2 (RFC 9113 §8.6).
//
// The caller is the transport's reader, over HTTP/2 for everybody whose requests
// share the connection: it must not wait for this client to read.
func (a *answer) interim(code int, header textproto.MIMEHeader) error {
	switch code {
	case http.StatusContinue:
		return nil
	case http.StatusSwitchingProtocols:
		return errors.New("a switch of protocols in HTTP/2")
	}
	a.watch.moved()
	if !a.request.ProtoAtLeast(1, 1) { // RFC 9110 §15.2
		return nil
	}
	h := http.Header(header)
	a.clean(h)
	a.order.Hooks.RewriteInterim(h)
	return a.client.queueInterim(code, h)
}

// clean takes out of an answer's header what is about one connection, what no
// upstream may say for the whole site, and the name under which the client finds
// our own id of its request.
func (a *answer) clean(h http.Header) {
	dropHopByHop(h)
	dropSiteHeaders(h, a.order.SiteHeaders)
	delete(h, "X-Request-Id")
}

// pass passes an answer on. If the upstream breaks off in the middle, pass returns an
// error and the handler must abort: a short answer must never look complete (RFC 9112
// §8). Unread says that the request's body is not read to its end.
func (a *answer) pass(res *http.Response, unread bool) error {
	a.clean(res.Header)
	a.order.Hooks.RewriteAnswer(res.Header)
	h := a.client.Header()
	for name, values := range res.Header {
		h[name] = values
	}
	if res.Header["Content-Type"] == nil {
		h["Content-Type"] = nil // else net/http guesses one
	}
	a.announceTrailers(h, res)
	if unread {
		a.client.closeAfter() // the rest of the body is in the way of a next request
	}
	a.client.passAnswer()
	a.client.WriteHeader(res.StatusCode)
	if err := a.copyBody(res); err != nil {
		if unread { // net/http reads on before it closes, for as long as the client likes
			_ = a.client.SetReadDeadline(time.Now())
		}
		return err
	}
	sendTrailers(h, res)
	// net/http sends the last bytes when the handler has returned and the watch is stopped, so
	// they get a deadline of their own.
	a.client.readWithin(a.order.Idle)
	return nil
}

// copyBody sends on what arrives as it arrives.
func (a *answer) copyBody(res *http.Response) error {
	if res.Body == http.NoBody {
		return nil
	}
	if ready, ok := res.Body.(interface{ Ready() bool }); !ok || !ready.Ready() {
		a.client.holdHeader()
		defer a.client.headerDone()
	}
	buf := a.buffers.Get()
	defer a.buffers.Put(buf)
	left := res.ContentLength // negative: unknown
	for {
		n, err := res.Body.Read(buf)
		if n > 0 {
			left -= int64(n)
			a.watch.moved()
			if err := a.client.writePiece(buf[:n], left != 0); err != nil {
				return fmt.Errorf("write to the client: %w", err)
			}
			a.watch.moved()
		}
		switch {
		case err == io.EOF:
			if len(res.Trailer) > 0 {
				a.client.flush() // else a short answer gets a length, and has no place for trailers
			}
			return nil
		case err != nil:
			return &Error{ErrBrokenOff, unquoted(fmt.Errorf("read from the app: %w", err))}
		}
	}
}

// announceTrailers names those that the upstream has announced.
func (a *answer) announceTrailers(h http.Header, res *http.Response) {
	for name := range res.Trailer {
		if badTrailer(name) {
			delete(res.Trailer, name)
			continue
		}
		h["Trailer"] = append(h["Trailer"], name)
	}
	r := a.request
	if h["Trailer"] != nil && r.ProtoMajor == 1 && r.ProtoMinor > 0 && r.Method != http.MethodHead {
		// HTTP/2 has trailers after a body of known length, HTTP/1.1 only after
		// chunks (RFC 9112 §7.1.2).
		delete(h, "Content-Length")
	}
}

// sendTrailers adds what came after the body, announced or not (gRPC's status
// never is).
func sendTrailers(h http.Header, res *http.Response) {
	announced := h["Trailer"]
	for name, values := range res.Trailer {
		if badTrailer(name) {
			continue
		}
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}
