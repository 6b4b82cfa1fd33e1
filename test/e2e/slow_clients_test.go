package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// needDescriptors is for tests with thousands of connections.
func needDescriptors(t *testing.T, n uint64) {
	t.Helper()
	need(t, func() (struct{}, error) {
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < n {
			return struct{}{}, fmt.Errorf("a limit of %d open files is %w: it is %d, raise it with ulimit -n", n,
				errMissing, limit.Cur)
		}
		return struct{}{}, nil
	})
}

// connect opens a plain connection to c.
func (c *corp) connect(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1"+portOf(c.url))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// pace is what a normal client meets: n requests, one after the other.
type pace struct{ median, p99 time.Duration }

func (c *corp) pace(t *testing.T, cookie string, n int) pace {
	t.Helper()
	client := newClient(t, http1)
	took := make([]time.Duration, 0, n)
	for range n {
		begun := time.Now()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+"/http/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Cookie", cookie)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("a normal request: %s, %v", resp.Status, err)
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	return pace{took[n/2].Round(time.Microsecond), took[n*99/100].Round(time.Microsecond)}
}

// slowClientsMemory is what all slow clients together may cost in all, in MiB. Measured
// is about half of it.
const slowClientsMemory = 128.0

// Half of them are slow with their header, the others with their body: a byte
// now and then.
func TestP17_SlowClientsKeepNobodyWaiting(t *testing.T) {
	const clients = 2000
	needDescriptors(t, 3*clients+1000)
	c := ownFront(t, overHTTP)
	cookie := c.signIn(t, "mira")
	const requests = 1000
	c.pace(t, cookie, requests/4) // warm
	before, idle := c.pace(t, cookie, requests), c.process.residentMiB(t)

	ctx, leave := context.WithCancel(t.Context())
	var slow sync.WaitGroup
	begun := make(chan struct{}, clients)
	for i := range clients {
		conn := c.connect(t)
		slow.Go(func() {
			defer conn.Close()
			text := "GET /http/ HTTP/1.1\r\nHost: localhost\r\nCookie: " + strings.Repeat("x", 2000)
			first := 10
			if i%2 == 1 {
				text = "POST /open-http/up HTTP/1.1\r\nHost: " + strings.TrimPrefix(c.url, "http://") +
					"\r\nContent-Length: 2000\r\n\r\n" + strings.Repeat("x", 2000)
				first = len(text) - 1990
			}
			_, err := io.WriteString(conn, text[:first])
			begun <- struct{}{}
			for _, b := range []byte(text[first:]) {
				select {
				case <-time.After(100*time.Millisecond + rand.N(400*time.Millisecond)):
				case <-ctx.Done():
					return
				}
				if err != nil {
					return
				}
				_, err = conn.Write([]byte{b})
			}
		})
	}
	for range clients {
		<-begun
	}
	// The kernel has taken what they wrote; the server has yet to accept them, and to connect to
	// the app for those with a body. Counted before the normal client begins: a header has 10 s,
	// which that may take on a busy machine.
	open := 0
	eventually(t, "the slow clients to be there", func() bool {
		open = c.process.descriptors(t)
		return open >= clients*5/4
	})
	stop := c.process.peak(t)
	with := c.pace(t, cookie, requests)
	most := stop()
	leave()
	slow.Wait()
	t.Logf("a normal client: median %v, 99th percentile %v; beside %d slow ones (%d descriptors open): %v and %v; "+
		"memory %.1f MiB before, %.1f at most",
		before.median, before.p99, clients, open, with.median, with.p99, idle, most)
	if most-idle > slowClientsMemory {
		t.Errorf("memory grew by %.1f MiB", most-idle)
	}
}

// An idle WebSocket is two connections and two small buffers. When all have
// gone, nothing of them is left.
func TestP17_IdleWebSocketsAreSmallAndLeaveNothingBehind(t *testing.T) {
	const sockets = 1000
	needDescriptors(t, 4*sockets+1000)
	c := ownFront(t, overHTTP)
	cookie := c.signIn(t, "mira")
	c.pace(t, cookie, 100)
	before, files := c.process.residentMiB(t), c.process.descriptors(t)
	var open []net.Conn
	_, host, _ := strings.Cut(c.url, "://")
	hello := "GET /http/tunnel HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: " + cookie + "\r\n\r\n"
	for range sockets {
		conn := c.connect(t)
		open = append(open, conn)
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, hello); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 12)
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "HTTP/1.1 101" {
			t.Fatalf("%q, %v", answer, err)
		}
	}
	after := c.process.residentMiB(t)
	kib := (after - before) * 1024 / sockets
	t.Logf("%d WebSockets: memory %.1f MiB before, %.1f after, %.1f KiB each; descriptors %d before, %d after", sockets,
		before, after, kib, files, c.process.descriptors(t))
	if kib > 32 {
		t.Errorf("an idle WebSocket takes %.1f KiB", kib)
	}
	for _, conn := range open {
		conn.Close()
	}
	eventually(t, "the descriptors of closed WebSockets to be closed",
		func() bool { return c.process.descriptors(t) <= files+4 })
}
