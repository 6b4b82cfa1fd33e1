package server

import (
	"log/slog"
	"net/http"
	"time"
)

// grantsHeader is the largest header of an app's request: an address of 16 KiB, an
// assertion with many groups, and what an app passes on.
const grantsHeader = 64 << 10

// NewGrantsHTTP is for apps. They speak HTTP/1.1, and with TLS HTTP/2. Bodies and answers
// may take hours; the gateway limits how long one stands still, and how large one is.
func NewGrantsHTTP(h http.Handler, keepAlive time.Duration, log *slog.Logger) *http.Server {
	return NewPublicHTTP(h, Limits{Header: grantsHeader, KeepAlive: keepAlive}, log)
}
