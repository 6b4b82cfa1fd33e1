package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/sallyport-proxy/sallyport/upstream"
)

// tunnel turns the client's connection and the upstream's into one, after the
// upstream has agreed to speak WebSocket. Until then nothing of what the client sent
// behind its request has been passed on: where the upstream refuses, those bytes
// would be a request that nobody has checked. Why the tunnel ended is not its error:
// that one is about its beginning.
func (r *Relay) tunnel(ctx context.Context, a *answer, res *http.Response) (ended, err error) {
	app, ok := res.Body.(io.ReadWriteCloser)
	if !ok || !a.order.WebSocket || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") {
		return nil, &Error{ErrProtocol, errors.New("the app switched to a protocol that nobody asked for")}
	}
	if r.tunnels.Closed() {
		return nil, upstream.ErrClosed
	}
	a.clean(res.Header)
	a.order.Hooks.RewriteAnswer(res.Header)
	delete(res.Header, "Content-Length") // RFC 9110 §8.6: none in a 101, and no reader may look for a body
	setWebSocket(res.Header)
	r.open.Add(1)
	defer r.open.Add(-1)
	conn, err := a.client.switchProtocols(res.Header)
	if err != nil {
		return nil, fmt.Errorf("answer the upgrade: %w", err)
	}
	_, a.client.bytes, err = r.tunnels.Carry(ctx, upstream.Ends{Client: conn, Upstream: app, Moved: a.watch.moved,
		CloseFrame: a.closeFrame})
	if err != nil && !errors.Is(err, io.EOF) {
		return unquoted(err), nil
	}
	return nil, nil
}

// closeFrame is what the client of a tunnel is told when the watch ends it.
func (a *answer) closeFrame(cause error) upstream.CloseFrame {
	if errors.Is(cause, ErrOver) {
		return a.order.Hooks.CloseFrame(cause)
	}
	return upstream.CloseFrame{Code: upstream.CloseGoingAway, Reason: "nothing was sent for too long"}
}
