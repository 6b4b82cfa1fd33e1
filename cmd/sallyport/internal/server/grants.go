package server

import (
	"log/slog"
	"net/http"
	"time"
)

// grantsHeader bounds a request's header: the assertion, and what the app sends on.
const grantsHeader = 64 << 10

// NewGrantsHTTP is for apps that ask for what people lent. A body may be long and slow, as
// what is sent on to a third party is, and so may an answer: what bounds them is the gateway's.
// With TLS it speaks HTTP/2 too.
func NewGrantsHTTP(h http.Handler, keepAlive time.Duration, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: keepAlive, MaxHeaderBytes: grantsHeader,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: 250, WriteByteTimeout: 30 * time.Second},
		DisableGeneralOptionsHandler: true,
	}
}
