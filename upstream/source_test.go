package upstream

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// held is a connection that can hold back what is written to it, so that much of it goes
// out as one packet.
type held struct {
	net.Conn
	mu     sync.Mutex
	holds  bool
	behind []byte
}

func (h *held) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holds {
		h.behind = append(h.behind, p...)
		return len(p), nil
	}
	return h.Conn.Write(p)
}

// SetWriteDeadline does nothing: after its goodbye TLS sets one that is over.
func (h *held) SetWriteDeadline(time.Time) error { return nil }

func (h *held) hold() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holds = true
}

func (h *held) release(tb testing.TB) {
	tb.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holds = false
	_, err := h.Conn.Write(h.behind)
	testenv.Check(tb, err)
	h.behind = nil
}

// far is the far end of one side of a tunnel.
type far struct {
	net.Conn
	wire *held // below TLS, if there is TLS
}

func (f far) says(tb testing.TB, text string) {
	tb.Helper()
	_, err := io.WriteString(f.Conn, text)
	testenv.Check(tb, err)
}

func (f far) hears(tb testing.TB, text string) {
	tb.Helper()
	testenv.Check(tb, f.SetReadDeadline(time.Now().Add(10*time.Second)))
	got := make([]byte, len(text))
	if n, err := io.ReadFull(f.Conn, got); err != nil || string(got) != text {
		tb.Fatalf("heard %q, not %q: %v", got[:n], text, err)
	}
}

// leaves says that nothing more comes. Of TLS the connection below stays open.
func (f far) leaves(tb testing.TB) {
	tb.Helper()
	testenv.Check(tb, f.Conn.(interface{ CloseWrite() error }).CloseWrite())
}

func (f far) hearsTheEnd(tb testing.TB) {
	tb.Helper()
	testenv.Check(tb, f.SetReadDeadline(time.Now().Add(10*time.Second)))
	if rest, err := io.ReadAll(f.Conn); err != nil || len(rest) > 0 {
		tb.Fatalf("at the end it heard %q, %v", rest, err)
	}
}

// ahead has read more from its socket than it has given away, as who looks at the beginning
// of a connection may have.
type ahead struct {
	*net.TCPConn
	head *strings.Reader
}

func (a ahead) Read(p []byte) (int, error) {
	if a.head.Len() > 0 {
		return a.head.Read(p)
	}
	return a.TCPConn.Read(p)
}

func connect(tb testing.TB, network, address string) (out, in net.Conn) {
	tb.Helper()
	l, err := net.Listen(network, address)
	testenv.Check(tb, err)
	defer l.Close()
	out, err = net.Dial(network, l.Addr().String())
	testenv.Check(tb, err)
	in, err = l.Accept()
	testenv.Check(tb, err)
	tb.Cleanup(func() { out.Close(); in.Close() })
	return out, in
}

// secure is connect over TLS of a version.
func secure(tb testing.TB, version uint16) (far, net.Conn) {
	tb.Helper()
	vouched := httptest.NewTLSServer(nil)
	defer vouched.Close()
	out, in := connect(tb, "tcp", "127.0.0.1:0")
	wire := &held{Conn: out}
	client := tls.Client(wire, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
	server := tls.Server(in, &tls.Config{Certificates: vouched.TLS.Certificates, MinVersion: version})
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	testenv.Check(tb, client.Handshake())
	testenv.Check(tb, <-shaken)
	return far{client, wire}, server
}

// sides are the ways in which one side of a tunnel may be connected.
func sides(t *testing.T, test func(t *testing.T, open func(testing.TB) (far, io.ReadWriteCloser))) {
	for name, open := range map[string]func(testing.TB) (far, io.ReadWriteCloser){
		"TCP": func(tb testing.TB) (far, io.ReadWriteCloser) {
			out, in := connect(tb, "tcp", "127.0.0.1:0")
			return far{Conn: out}, in
		},
		"a unix socket": func(tb testing.TB) (far, io.ReadWriteCloser) {
			out, in := connect(tb, "unix", filepath.Join(tb.TempDir(), "s"))
			return far{Conn: out}, in
		},
		"TLS 1.2": func(tb testing.TB) (far, io.ReadWriteCloser) {
			f, in := secure(tb, tls.VersionTLS12)
			return f, &Buffered{Conn: in}
		},
		"TLS 1.3": func(tb testing.TB) (far, io.ReadWriteCloser) {
			f, in := secure(tb, tls.VersionTLS13)
			return f, &Buffered{Conn: in}
		},
		"no socket": func(tb testing.TB) (far, io.ReadWriteCloser) {
			out, in := connect(tb, "tcp", "127.0.0.1:0")
			return far{Conn: out}, struct {
				net.Conn
				half
			}{struct{ net.Conn }{in}, in.(half)}
		},
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, open) })
	}
}

type half interface{ CloseWrite() error }

// A tunnel has no buffer while it waits, so nothing may be left behind of what was read in
// one piece with something else: the next read would wait for what has come already.
func TestATunnelPassesOnWhatCameAtOnce(t *testing.T) {
	t.Parallel()
	sides(t, func(t *testing.T, open func(testing.TB) (far, io.ReadWriteCloser)) {
		for _, size := range []int{1, 200, tunnelBuffer - 1, tunnelBuffer, tunnelBuffer + 1, 16 << 10, 17 << 10} {
			for _, whoTalks := range []string{"client", "app"} {
				var ts Tunnels
				talker, at := open(t)
				out, in := connect(t, "tcp", "127.0.0.1:0")
				hearer, e := far{Conn: out}, Ends{Client: at, Upstream: in}
				if whoTalks == "app" {
					e = Ends{Client: in, Upstream: at}
				}
				done := carry(t.Context(), &ts, e)
				talker.says(t, "one")
				hearer.hears(t, "one")
				if talker.wire != nil {
					talker.wire.hold()
				}
				piece := strings.Repeat("x", size)
				for range 5 { // over TLS each is a record of its own, or more
					talker.says(t, piece)
				}
				if talker.wire != nil {
					talker.wire.release(t)
				}
				hearer.hears(t, strings.Repeat(piece, 5))
				hearer.says(t, "heard")
				talker.hears(t, "heard")
				if talker.wire != nil { // the end comes in one packet with what is before it
					talker.wire.hold()
				}
				talker.says(t, "last")
				talker.leaves(t)
				if talker.wire != nil {
					talker.wire.release(t)
				}
				hearer.hears(t, "last")
				hearer.hearsTheEnd(t)
				hearer.says(t, "and mine")
				hearer.leaves(t)
				talker.hears(t, "and mine")
				talker.hearsTheEnd(t)
				if c := ended(t, done); c.err != nil {
					t.Errorf("pieces of %d bytes of the %s: %v", size, whoTalks, c.err)
				}
			}
		}
	})
}

func TestATunnelPassesOneByteAtATime(t *testing.T) {
	t.Parallel()
	sides(t, func(t *testing.T, open func(testing.TB) (far, io.ReadWriteCloser)) {
		var ts Tunnels
		client, atClient := open(t)
		app, atApp := open(t)
		done := carry(t.Context(), &ts, Ends{Client: atClient, Upstream: atApp})
		for _, b := range "byte by byte, and back again" {
			client.says(t, string(b))
			app.hears(t, string(b))
			app.says(t, string(b))
			client.hears(t, string(b))
		}
		client.leaves(t)
		app.hearsTheEnd(t)
		app.leaves(t)
		client.hearsTheEnd(t)
		if c := ended(t, done); c.err != nil || c.toUpstream != 28 || c.toClient != 28 {
			t.Errorf("%+v", c)
		}
	})
}

func TestATunnelPassesMuchBothWaysAtOnce(t *testing.T) {
	t.Parallel()
	sides(t, func(t *testing.T, open func(testing.TB) (far, io.ReadWriteCloser)) {
		const size = 100 << 20
		var ts Tunnels
		client, atClient := open(t)
		app, atApp := open(t)
		done := carry(t.Context(), &ts, Ends{Client: atClient, Upstream: atApp})
		block := make([]byte, 1<<20)
		_, err := rand.Read(block)
		testenv.Check(t, err)
		faults := make(chan error, 4)
		for _, f := range []far{client, app} {
			go func() { faults <- talk(f, block, size) }()
			go func() { faults <- hearken(f, block, size) }()
		}
		for range 4 {
			if err := <-faults; err != nil {
				t.Error(err)
			}
		}
		if c := ended(t, done); c.err != nil || c.toUpstream != size || c.toClient != size {
			t.Errorf("%+v", c)
		}
	})
}

func talk(f far, block []byte, size int) error {
	for range size / len(block) {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return f.Conn.(half).CloseWrite()
}

func hearken(f far, block []byte, size int) error {
	got := make([]byte, len(block))
	for range size / len(block) {
		if _, err := io.ReadFull(f.Conn, got); err != nil {
			return err
		}
		if !bytes.Equal(got, block) {
			return errors.New("other bytes came")
		}
	}
	if n, err := f.Read(got); n > 0 || err != io.EOF {
		return fmt.Errorf("at the end %d bytes more, %w", n, err)
	}
	return nil
}

// What somebody else has read from the socket before comes first, and once.
func TestATunnelBeginsWithWhatWasReadBefore(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, tunnelBuffer, 3*tunnelBuffer + 1} {
		var ts Tunnels
		out, in := connect(t, "tcp", "127.0.0.1:0")
		client := far{Conn: out}
		out, app := connect(t, "tcp", "127.0.0.1:0")
		head := strings.Repeat("h", n)
		client.says(t, "on the wire")
		done := carry(t.Context(), &ts, Ends{Upstream: app, Client: &Buffered{Head: []byte("first "),
			Conn: ahead{in.(*net.TCPConn), strings.NewReader(head)}}})
		far{Conn: out}.hears(t, "first "+head+"on the wire")
		client.says(t, "later")
		far{Conn: out}.hears(t, "later")
		out.Close()
		client.Close()
		ended(t, done)
	}
}

// A tunnel in which a peer does not read is ended in time, over sockets too, and so is one
// whose peer was reset.
func TestP10_ATunnelEndsThoughItsPeersAreStuck(t *testing.T) {
	t.Parallel()
	sides(t, func(t *testing.T, open func(testing.TB) (far, io.ReadWriteCloser)) {
		var ts Tunnels
		client, atClient := open(t)
		app, atApp := open(t)
		o := newOwner()
		tunnel := ts.New(Ends{Client: atClient, Upstream: atApp, Owner: o})
		tunnel.Carry()
		for _, f := range []far{client, app} { // both send without end, and none reads
			go func() { _ = talk(f, make([]byte, 1<<20), 1<<30) }()
		}
		was := int64(-1)
		testenv.Eventually(t, "nothing moves any more", func() bool {
			before := was
			was = o.moved.Load()
			time.Sleep(100 * time.Millisecond)
			return was > 0 && was == before
		})
		begin := time.Now()
		tunnel.End(errOver)
		c := ended(t, o.done)
		if took := time.Since(begin); !errors.Is(c.err, errOver) || took > partingTime+2*time.Second {
			t.Errorf("it took %v, %v", took, c.err)
		}
		testenv.Eventually(t, "nothing is live", func() bool { return ts.Len() == 0 })
	})
}

// faulty is an owner with a bug.
type faulty struct{ *owner }

func (f faulty) Moved() { panic("a bug") }

// One tunnel's bug must not end everybody's.
func TestABugEndsOneTunnelOnly(t *testing.T) {
	t.Parallel()
	var ts Tunnels
	e, client, app := ends(t)
	o := newOwner()
	e.Owner = faulty{o}
	ts.New(e).Carry()
	_, err := client.Write([]byte("x"))
	testenv.Check(t, err)
	if c := ended(t, o.done); c.err == nil || !strings.Contains(c.err.Error(), "panic: a bug") {
		t.Errorf("it ended with %v", c.err)
	}
	for _, conn := range []net.Conn{client, app} {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a side is open")
		}
	}
}
