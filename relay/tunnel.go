package relay

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/sallyport-proxy/sallyport/upstream"
)

// tunnel is what is left of an exchange whose connections became a tunnel: nothing of the
// request and of the answer, because there may be thousands that are idle for hours.
type tunnel struct {
	relay   *Relay
	caller  Tunnel
	watch   watch
	carried *upstream.Tunnel
}

// switchOver turns the client's connection and the upstream's into one, after the
// upstream has agreed to speak WebSocket. Until then nothing of what the client sent
// behind its request has been passed on: where the upstream refuses, those bytes
// would be a request that nobody has checked. An error is about the beginning of the
// tunnel: then res is still the caller's. Else the tunnel goes on by itself.
func (r *Relay) switchOver(x *exchange, res *http.Response) error {
	app, ok := res.Body.(io.ReadWriteCloser)
	if !ok || x.order.WebSocket == nil || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") {
		return &Error{ErrProtocol, errors.New("the app switched to a protocol that nobody asked for")}
	}
	if r.tunnels.Closed() {
		return upstream.ErrClosed
	}
	x.answer.clean(res.Header)
	x.order.Hooks.RewriteAnswer(res.Header)
	delete(res.Header, "Content-Length") // RFC 9110 §8.6: none in a 101, and no reader may look for a body
	setWebSocket(res.Header)
	r.open.Add(1) // before the client can know
	client, err := x.client.switchProtocols(res.Header)
	if err != nil {
		r.open.Add(-1)
		return fmt.Errorf("answer the upgrade: %w", err)
	}
	t := &tunnel{relay: r, caller: x.order.WebSocket()}
	t.carried = r.tunnels.New(upstream.Ends{Client: client, Upstream: app, Owner: t})
	x.watch.stop() // from here on the tunnel is watched in its place
	t.watch.start(&r.sweeper, t, limits{Idle: x.order.Idle})
	if cause := x.ended(); cause != nil {
		t.end(cause)
	}
	t.carried.Carry()
	return nil
}

// Moved implements upstream.Owner.
func (t *tunnel) Moved() { t.watch.moved() }

// CloseFrame implements upstream.Owner: what the client is told when the watch ends the tunnel.
func (t *tunnel) CloseFrame(cause error) upstream.CloseFrame {
	if errors.Is(cause, ErrOver) {
		return t.caller.CloseFrame(cause)
	}
	return upstream.CloseFrame{Code: upstream.CloseGoingAway, Reason: "nothing was sent for too long"}
}

// Ended implements upstream.Owner.
func (t *tunnel) Ended(_, toClient int64, why error) {
	t.watch.stop()
	t.relay.open.Add(-1)
	switch {
	case errors.Is(why, io.EOF):
		why = nil
	case why != nil:
		why = unquoted(why)
	}
	t.caller.Ended(why, toClient)
}

// over implements watched.
func (t *tunnel) over() error { return t.caller.Over() }

// asks implements watched.
func (t *tunnel) asks() func() error { return nil }

// gone implements watched: who is gone is noticed by reading.
func (t *tunnel) gone() bool { return false }

// waitsForClient implements watched.
func (t *tunnel) waitsForClient() bool { return false }

// end implements watched.
func (t *tunnel) end(cause error) { t.carried.End(cause) }
