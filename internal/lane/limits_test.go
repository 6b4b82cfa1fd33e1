package lane_test

import (
	"io"
	"net/http"
	"testing"
	"time"
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
		send(t, c, get)
		receive(t, in)
		answered := time.Now()
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("%q %v", rest, err)
		}
		if took := time.Since(answered); took < idle-10*time.Millisecond {
			t.Errorf("lane %t: closed after %v", addr == s.addr, took)
		}
	}
}

// Where there is no limit, none that was there before goes on to hold.
func TestAMissingLimitIsNone(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*http.Server){
		"for heads":             func(s *http.Server) { s.ReadHeaderTimeout, s.IdleTimeout = 0, 300*time.Millisecond },
		"for heads, negative":   func(s *http.Server) { s.ReadHeaderTimeout, s.IdleTimeout = -1, 300*time.Millisecond },
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
					time.Sleep(600 * time.Millisecond)
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
