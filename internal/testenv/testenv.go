// Package testenv is the bad weather: what tests put around Sallyport to see
// that it holds.
//
// Faults makes the demo provider (internal/demo, next door and strict) answer
// wrongly; Attacker is where nothing may ever arrive; RawUpstream sees the
// bytes an app would see; Browser walks through a sign-in like a person; Clock,
// Eventually and Check are the time and the waits of all packages' tests. It is
// linked by tests only and never by product code. It has no opinion about what
// is right: tests assert, this package bends and records.
package testenv

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
)

// TB is what the helpers need of a *testing.T or *testing.F.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Request is one request as a server saw it.
type Request struct {
	Method, Host string
	Target       string // path and query as sent
	Header       http.Header
	Body         []byte
}

const maxRecorded = 1 << 20

// record copies r and leaves its body readable. Reading the body also lets the
// server notice when the client gives up.
func record(r *http.Request) (Request, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRecorded))
	if err != nil {
		return Request{}, fmt.Errorf("read the request: %w", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return Request{r.Method, r.Host, r.RequestURI, r.Header.Clone(), body}, nil
}

// Attacker is a server somebody wants us to talk to. It writes down who came.
type Attacker struct {
	URL string

	mu       sync.Mutex // guards requests
	requests []Request
}

// NewAttacker starts an Attacker that answers everything with 200 and {}.
func NewAttacker(tb TB) *Attacker {
	a := &Attacker{}
	srv := httptest.NewServer(a)
	tb.Cleanup(srv.Close)
	a.URL = srv.URL
	return a
}

func (a *Attacker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, err := record(r)
	a.mu.Lock()
	a.requests = append(a.requests, req)
	a.mu.Unlock()
	if err != nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}") // whoever called has gone
}

// Requests returns every request that arrived.
func (a *Attacker) Requests() []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]Request(nil), a.requests...)
}
