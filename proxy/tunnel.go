package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/relay"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// tunnel is the front door's part of a WebSocket: what it asks as long as one is open, and
// what it tells at its end. It has nothing of the request and its handler, which has
// returned: there may be thousands of these, idle for hours.
type tunnel struct {
	p            *Proxy
	ev           *event
	who          *admission.Principal
	route        *admission.Route
	method, host string
}

var _ relay.Tunnel = (*tunnel)(nil)

// tunnel has the request go on as a tunnel: what is told at its end is not the handler's to
// tell any more.
func (x *forwarding) tunnel() relay.Tunnel {
	x.ev.tunnelled = true
	x.p.holder.Hold()
	return &tunnel{p: x.p, ev: x.ev, who: x.admitted.Principal, route: x.admitted.Route,
		method: x.in.Method, host: x.in.Host}
}

// Over implements relay.Tunnel.
func (t *tunnel) Over() error { return t.p.over(t.ev, t.who, t.route) }

// CloseFrame implements relay.Tunnel.
func (t *tunnel) CloseFrame(why error) upstream.CloseFrame { return endingOf(why).frame }

// Ended implements relay.Tunnel.
func (t *tunnel) Ended(why error, bytes int64) {
	defer t.p.holder.Release()
	defer t.p.metrics.inFlight.Dec()
	defer func() { // as net/http does for what a handler does
		if v := recover(); v != nil {
			t.p.log.Error("the end of a WebSocket", "request_id", t.ev.RequestID,
				"error", fmt.Sprintf("panic: %v\n%s", v, debug.Stack()))
		}
	}()
	if why != nil {
		t.ev.Note = "tunnel ended: " + why.Error()
		t.p.metrics.tunnelClosed(why)
		t.ev.ended(why)
	}
	t.p.observe(context.Background(), t.ev,
		answered{method: t.method, host: t.host, status: http.StatusSwitchingProtocols, bytes: bytes})
}

// ending is why a stream or tunnel that was let in must not go on: the reason that is
// counted, and what a WebSocket's client reads.
type ending struct {
	reason string
	frame  upstream.CloseFrame
}

// Codes of close frames (RFC 6455 §7.4.1 and its registry).
const (
	closePolicyViolation = 1008
	closeTryAgainLater   = 1013
)

func endingOf(why error) ending {
	switch {
	case errors.Is(why, admission.ErrExpired), errors.Is(why, session.ErrExpired):
		return ending{"expired", upstream.CloseFrame{Code: closePolicyViolation, Reason: "signed in too long ago"}}
	case errors.Is(why, admission.ErrRulesChanged):
		return ending{"rules", upstream.CloseFrame{Code: closePolicyViolation, Reason: "the rules have changed"}}
	case errors.Is(why, admission.ErrSwitched):
		return ending{"switched", upstream.CloseFrame{Code: closePolicyViolation,
			Reason: "another organization was chosen"}}
	case errors.Is(why, admission.ErrUnverifiable):
		return ending{"unverifiable", upstream.CloseFrame{Code: closeTryAgainLater, Reason: "try again later"}}
	}
	return ending{"ended", upstream.CloseFrame{Code: closePolicyViolation, Reason: "signed out"}}
}
