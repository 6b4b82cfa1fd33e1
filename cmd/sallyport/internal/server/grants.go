package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Grants is where apps use what people lent them.
type Grants struct {
	Key         string       // of the configuration: listen.grants
	Address     string       // "": apps have sockets only
	Certificate *Certificate // nil: in the clear, which is for loopback
	Sockets     []AppSocket
	KeepAlive   time.Duration
	Handler     http.Handler
	// OnSocket marks the connections of an app's socket: gateway.WithSocket.
	OnSocket func(ctx context.Context, app string) context.Context
}

// AppSocket is the unix socket of one app, on which it needs no token.
type AppSocket struct {
	Key string // of the configuration
	App string
	Socket
}

// Listeners are one for the address, and one for each socket. In the log they are "grants"
// and "grants_" with the app.
func (g Grants) Listeners(log *slog.Logger) (all []*Listener) {
	if g.Address != "" {
		l := &Listener{Key: g.Key, Name: "grants", Address: g.Address, HTTP: newGrantsHTTP(g.Handler, g.KeepAlive, log)}
		if g.Certificate != nil {
			l.HTTP.TLSConfig = g.Certificate.Config()
		}
		all = append(all, l)
	}
	for _, s := range g.Sockets {
		l := &Listener{Key: s.Key, Name: "grants_" + s.App, Socket: &s.Socket,
			HTTP: newGrantsHTTP(g.Handler, g.KeepAlive, log)}
		l.HTTP.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return g.OnSocket(ctx, s.App) }
		all = append(all, l)
	}
	return all
}

// grantsHeader is the largest header of an app's request: an address of 16 KiB, an
// assertion with many groups, and what an app passes on.
const grantsHeader = 64 << 10

// newGrantsHTTP is for apps. They speak HTTP/1.1, and with TLS HTTP/2. Bodies and answers
// may take hours; the gateway limits how long one stands still, and how large one is.
func newGrantsHTTP(h http.Handler, keepAlive time.Duration, log *slog.Logger) *http.Server {
	return NewPublicHTTP(h, Limits{Header: grantsHeader, KeepAlive: keepAlive}, log)
}
