package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/sallyport-proxy/sallyport/upstream"
)

// tunnel turns the client's connection and the app's into one, after the app has
// agreed to speak WebSocket. Until then nothing of what the client sent behind
// its request has been passed on (security.md 114).
func (x *exchange) tunnel(ctx context.Context, res *http.Response) error {
	app, ok := res.Body.(io.ReadWriteCloser)
	if !ok || !x.ev.facts.WebSocket || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") {
		x.p.metrics.upstream(x.route.Name, "protocol")
		return &failure{Status: http.StatusBadGateway, Cause: errors.New("the app switched to a protocol that nobody asked for")}
	}
	if x.p.tunnels.Closed() {
		return &failure{Status: http.StatusServiceUnavailable, Cause: upstream.ErrClosed, RetryAfter: 1}
	}
	dropHopByHop(res.Header)
	x.amend(res.Header)
	delete(res.Header, "Content-Length") // RFC 9110 §8.6: none in a 101, and no reader may look for a body
	res.Header["Connection"], res.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	res.Header["X-Request-Id"] = []string{x.ev.requestID}
	x.p.metrics.tunnels.Inc()
	defer x.p.metrics.tunnels.Dec()
	conn, err := x.client.switchProtocols(res.Header)
	if err != nil {
		err = fmt.Errorf("answer the upgrade: %w", err)
		if !x.client.hasSwitched() {
			return &failure{Status: http.StatusInternalServerError, Cause: err}
		}
		x.ev.cause = err
		return nil
	}
	_, x.client.bytes, err = x.p.tunnels.Carry(ctx, upstream.Ends{Client: conn, App: app, Moved: x.watch.moved})
	if err != nil && !errors.Is(err, io.EOF) {
		x.ev.note = "tunnel ended: " + unquoted(err).Error()
	}
	return nil
}
