package lane_test

import (
	"io"
	"net/http"
	"runtime"
	"testing"
	"time"
	"weak"
)

// A connection waits for its next request as long as it is said to, counted from the last
// answer: a load balancer that keeps it a little shorter meets no end of it.
func TestAnIdleConnectionIsNotClosedEarly(t *testing.T) {
	t.Parallel()
	const idle = 1600 * time.Millisecond
	s := newSite(t, echo, func(s *http.Server) { s.IdleTimeout = idle })
	for _, addr := range []string{s.addr, s.bare} {
		c, in := dialTo(t, addr)
		send(t, c, get)
		receive(t, in)
		time.Sleep(idle / 10)
		asked := time.Now() // it is answered later
		send(t, c, get)
		receive(t, in)
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("%q %v", rest, err)
		}
		if took := time.Since(asked); took < idle {
			t.Errorf("lane %t: closed after %v", addr == s.addr, took)
		}
	}
}

// Where there is no limit, none that was there before goes on to hold.
func TestAMissingLimitIsNone(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*http.Server){
		"for heads":             func(s *http.Server) { s.ReadHeaderTimeout, s.IdleTimeout = 0, time.Second },
		"for heads, negative":   func(s *http.Server) { s.ReadHeaderTimeout, s.IdleTimeout = -1, time.Second },
		"between requests":      func(s *http.Server) { s.ReadHeaderTimeout, s.IdleTimeout = time.Minute, -1 },
		"for answers, negative": func(s *http.Server) { s.WriteTimeout = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, echo, change)
			for _, addr := range []string{s.addr, s.bare} {
				c, in := dialTo(t, addr)
				for range 2 {
					send(t, c, get[:20])
					time.Sleep(1500 * time.Millisecond)
					send(t, c, get[20:])
					if _, err := in.Peek(1); err != nil {
						t.Fatalf("lane %t: %v", addr == s.addr, err)
					}
					receive(t, in)
				}
			}
		})
	}
}

// A head has one time, whoever reads it: it is not prolonged where the lane leaves the rest of it
// to net/http.
func TestP17_AHeadHasOneTimeAlsoWhereItIsHandedOver(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Second
	s := newSite(t, echo, func(s *http.Server) { s.ReadHeaderTimeout = limit })
	for _, addr := range []string{s.addr, s.bare} {
		for _, before := range []string{"", get} {
			begun := time.Now()
			c, in := dialTo(t, addr)
			if before != "" {
				send(t, c, before)
				receive(t, in)
				begun = time.Now()
			}
			send(t, c, "GET / HTTP/1.1\r\nHost: a\r\n")
			time.Sleep(limit * 3 / 4)
			send(t, c, "X-Y: z\n") // no line for the lane
			if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
				t.Errorf("%q %v", rest, err)
			}
			if took := time.Since(begun); took < limit || took > limit*3/2 {
				t.Errorf("lane %t, after a request %t: %v", addr == s.addr, before != "", took)
			}
		}
	}
	c, in := s.dial(t) // a next head has its own time
	send(t, c, "GET / HTTP/1.1\nHost: a\n")
	time.Sleep(limit / 2)
	send(t, c, "\n")
	receive(t, in)
	send(t, c, "GET / HTTP/1.1\nHost: a\n")
	time.Sleep(limit * 3 / 4)
	send(t, c, "\n")
	receive(t, in)
}

// A connection that waits keeps nothing of the last request and its answer: each may be many
// times what a connection takes, and there may be thousands that wait for minutes.
func TestP17_AConnectionThatWaitsKeepsNothingOfItsRequests(t *testing.T) {
	t.Parallel()
	requests, values := make(chan weak.Pointer[http.Request], 1), make(chan weak.Pointer[string], 1)
	s := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value := []string{r.URL.Query().Get("x")}
		w.Header()["X-Value"] = value
		requests <- weak.Make(r)
		values <- weak.Make(&value[0])
	}))
	for _, addr := range []string{s.addr, s.bare} {
		c, in := dialTo(t, addr)
		send(t, c, "GET /?x=y HTTP/1.1\r\nHost: a\r\n\r\n")
		if res, _ := receive(t, in); res.Header.Get("X-Value") != "y" {
			t.Error(res.Header)
		}
		request, value := <-requests, <-values
		kept := func() bool { return request.Value() != nil || value.Value() != nil }
		for begun := time.Now(); kept() && time.Since(begun) < 5*time.Second; time.Sleep(time.Millisecond) {
			runtime.GC()
		}
		if kept() {
			t.Errorf("lane %t: request %v, a value of the answer %v", addr == s.addr, request.Value(), value.Value())
		}
		send(t, c, get) // it is still open
		receive(t, in)
		<-requests
		<-values
	}
}
