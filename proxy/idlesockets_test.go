//go:build unix

package proxy

import (
	"bytes"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// mostIdle is what an idle WebSocket may take, in bytes. It takes a third of that: what the
// bound is for is a buffer, a request or a large stack that comes back.
const mostIdle = 24 << 10

// Ten thousand idle WebSockets are the usual state of a chat or a dashboard.
func TestP17_AnIdleWebSocketTakesLittleMemory(t *testing.T) {
	const many = 500
	listener := bareListener(t)
	up, err := upstream.New(upstream.Options{URL: &url.URL{Scheme: "http", Host: listener.address(t)}})
	testenv.Check(t, err)
	t.Cleanup(up.Close)
	s := wsSite(t, setup{App: up})
	request := handshake("/x", s.host, "Cookie: "+s.mint(t, alice()), "Origin: "+s.url)
	for range 20 { // what is made once
		openBare(t, s.addr, request, listener)
	}
	before := inUse()
	for range many {
		openBare(t, s.addr, request, listener)
	}
	each := (inUse() - before) / many
	t.Logf("%d bytes each", each)
	if each > mostIdle {
		t.Errorf("an idle WebSocket takes %d bytes, more than %d", each, mostIdle)
	}
	if n := s.tunnels(t); n != many+20 {
		t.Errorf("%v tunnels are counted", n)
	}
}

// inUse is the memory of heap and stacks after a collection.
func inUse() int64 {
	var m runtime.MemStats
	for range 3 { // pools are emptied by the second, stacks are given back by the next
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// bare is a socket that takes none of the memory that is counted.
type bare int

func bareSocket(tb testing.TB) bare {
	tb.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	testenv.Check(tb, err)
	tb.Cleanup(func() { _ = syscall.Close(fd) })
	return bare(fd)
}

func bareListener(tb testing.TB) bare {
	tb.Helper()
	l := bareSocket(tb)
	testenv.Check(tb, syscall.Bind(int(l), &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	testenv.Check(tb, syscall.Listen(int(l), 10))
	return l
}

func (b bare) address(tb testing.TB) string {
	tb.Helper()
	at, err := syscall.Getsockname(int(b))
	testenv.Check(tb, err)
	inet := at.(*syscall.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(inet.Addr), uint16(inet.Port)).String()
}

// openBare opens a WebSocket from one bare socket to another one.
func openBare(tb testing.TB, address, request string, listener bare) (client, app bare) {
	tb.Helper()
	to := netip.MustParseAddrPort(address)
	client = bareSocket(tb)
	testenv.Check(tb, syscall.Connect(int(client), &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}))
	client.write(tb, request)
	fd, _, err := syscall.Accept(int(listener))
	testenv.Check(tb, err)
	tb.Cleanup(func() { _ = syscall.Close(fd) })
	app = bare(fd)
	if head := app.head(tb); !strings.Contains(head, "Upgrade: websocket\r\n") {
		tb.Fatalf("the app was asked %q", head)
	}
	app.write(tb, switched+"\r\n")
	if head := client.head(tb); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		tb.Fatalf("answered %q", head)
	}
	return client, app
}

func (b bare) write(tb testing.TB, text string) {
	tb.Helper()
	_, err := syscall.Write(int(b), []byte(text))
	testenv.Check(tb, err)
}

func (b bare) head(tb testing.TB) string {
	tb.Helper()
	var head []byte
	buf := make([]byte, 4096)
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		n, err := syscall.Read(int(b), buf)
		testenv.Check(tb, err)
		if n == 0 {
			tb.Fatalf("it ended after %q", head)
		}
		head = append(head, buf[:n]...)
	}
	return string(head)
}
