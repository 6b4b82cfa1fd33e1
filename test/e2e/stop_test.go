package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// load is what clients meet while Sallyport stops.
type load struct {
	answered, refused atomic.Int64 // refused: the listener was closed, which is no drop
	mu                sync.Mutex   // guards dropped
	dropped           []string
}

func (l *load) drop(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped = append(l.dropped, fmt.Sprintf(format, args...))
}

// Until it is refused, every client has each of its requests answered: those who
// keep a connection, those who open one for each request, and those of HTTP/2.
func TestP16_StopUnderLoadDropsNothingThatWasAccepted(t *testing.T) {
	rounds := 2
	if long() {
		rounds = 40
	}
	for _, row := range []struct {
		name string
		over func(string) setup
	}{{"plain", overH2C}, {"TLS", overTLS}} {
		t.Run(row.name, func(t *testing.T) {
			for range rounds {
				stopUnderLoad(t, row.over)
			}
		})
	}
}

func stopUnderLoad(t *testing.T, over func(string) setup) {
	t.Helper()
	c := ownFront(t, over)
	cookie := c.signIn(t, "mira")
	l := &load{}
	var clients sync.WaitGroup
	transport := newTransport(t, http2)
	for i := range 8 {
		// Who thinks for longer than the grace for idle connections may find its
		// own closed: no request was sent on it.
		think := []time.Duration{10 * time.Millisecond, 100 * time.Millisecond}[i%2]
		clients.Go(func() { l.keep(c, transport.TLSClientConfig, cookie, think) })
		clients.Go(func() { l.keep(c, transport.TLSClientConfig, cookie, 0) })
	}
	for range 16 {
		clients.Go(func() { l.ask(c, transport, cookie) })
	}
	eventually(t, "the load", func() bool { return l.answered.Load() >= 300 })
	time.Sleep(rand.N(50 * time.Millisecond)) // at any moment of it
	if err := c.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	select {
	case <-c.process.done:
	case <-time.After(patience):
		t.Fatal("still running")
	}
	took := time.Since(begun)
	clients.Wait()
	t.Logf("%d requests answered, ended %v after SIGTERM", l.answered.Load(), took.Round(time.Millisecond))
	if len(l.dropped) > 0 || l.refused.Load() == 0 {
		t.Errorf("%d answered, %d clients refused at the end, %d dropped:\n%s", l.answered.Load(), l.refused.Load(),
			len(l.dropped), strings.Join(l.dropped, "\n"))
	}
	if code := c.process.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// someWait is a path whose answer takes up to 20 ms.
func someWait() string { return fmt.Sprintf("/http/wait?for=%dms", rand.IntN(20)) }

// keep is a client that hides nothing: it sends a request, reads the answer,
// thinks for up to a time, and connects anew only after an answer that said so.
// Without a time to think it connects for each request.
func (l *load) keep(c *corp, trust *tls.Config, cookie string, think time.Duration) {
	scheme, host, _ := strings.Cut(c.url, "://")
	for {
		conn, err := net.Dial("tcp", "127.0.0.1"+portOf(c.url))
		if err != nil {
			l.end(err)
			return
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if scheme == "https" {
			conn = tls.Client(conn, &tls.Config{RootCAs: trust.RootCAs, ServerName: publicHost})
		}
		if !l.converse(conn, host, cookie, think) {
			return
		}
	}
}

// converse reports whether another connection is to follow.
func (l *load) converse(conn net.Conn, host, cookie string, think time.Duration) bool {
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for n := 1; ; n++ {
		if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nContent-Length: 4\r\n\r\nbody",
			someWait(), host, cookie); err != nil {
			l.drop("sending request %d of a connection: %v", n, err)
			return false
		}
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			l.drop("no answer to request %d of a connection: %v", n, err)
			return false
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || string(body) != "waited" {
			l.drop("request %d of a connection: %s %q %v", n, resp.Status, body, err)
			return false
		}
		l.answered.Add(1)
		if resp.Close || think == 0 {
			return true
		}
		time.Sleep(rand.N(think))
	}
}

// ask is a client with net/http's pool, which sends again what the server has
// said that it did not look at (RFC 9113 §6.8).
func (l *load) ask(c *corp, transport http.RoundTripper, cookie string) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+someWait(), nil)
		if err != nil {
			l.drop("%v", err)
			cancel()
			return
		}
		r.Header.Set("Cookie", cookie)
		resp, err := transport.RoundTrip(r)
		if err != nil {
			l.end(err)
			cancel()
			return
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		cancel()
		if err != nil || resp.StatusCode != http.StatusOK || string(body) != "waited" {
			l.drop("HTTP/2: %s %q %v", resp.Status, body, err)
			return
		}
		l.answered.Add(1)
	}
}

// end is for a client that gets no connection any more, as it must come.
func (l *load) end(err error) {
	if errors.Is(err, syscall.ECONNREFUSED) {
		l.refused.Add(1)
		return
	}
	l.drop("%v", err)
}
