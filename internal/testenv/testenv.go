// Package testenv has what tests put around Sallyport: providers, apps and clients that
// behave badly, and tools that record what happens.
//
// Faults makes the strict provider of internal/demo answer wrongly. Attacker is a server
// to which nothing may ever be sent. RawUpstream is an app that records bytes. Browser goes
// through a sign-in as a person does. Clock, Eventually and Check are the time and the
// waits of all packages' tests.
//
// Only tests link it, never product code. It does not decide what is right: tests do.
package testenv

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
)

// TB is the part of *testing.T and *testing.F that the helpers need.
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

// record copies r, and leaves its body readable. After the body is read, net/http notices
// when the client disconnects.
func record(r *http.Request) (Request, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRecorded))
	if err != nil {
		return Request{}, fmt.Errorf("read the request: %w", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return Request{r.Method, r.Host, r.RequestURI, r.Header.Clone(), body}, nil
}

// Attacker is a server that an attacker wants us to connect to. It records all requests.
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
	_, _ = io.WriteString(w, "{}") // an error means that the client has gone
}

// Requests returns every request that arrived.
func (a *Attacker) Requests() []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]Request(nil), a.requests...)
}
