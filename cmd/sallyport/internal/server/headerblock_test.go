package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

func http2Frame(kind, flags byte, stream uint32, payload string) string {
	head := make([]byte, frameHead)
	head[0], head[1], head[2] = byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload))
	head[3], head[4] = kind, flags
	head[5], head[6], head[7], head[8] = byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream)
	return string(head) + payload
}

// The header block of "POST / " in HPACK's static table (RFC 7541 appendix A),
// with the authority "a".
const postBlock = "\x83\x84\x87\x41\x01a"

const (
	frameData, frameSettings = 0x0, 0x4
	flagEndStream            = 0x1
)

// A client that keeps a header block open is cut off in time, whatever else its
// connection carries: an upload beside it, empty CONTINUATIONs, or half a frame.
// One that waits with nothing open, or uploads for long, is left alone. While a
// block is open no other frame may come (RFC 9113 §4.3), so an upload that goes on
// sends its data until the block begins: that does not buy the block more time.
func TestP17_AHalfHeaderBlockEndsInTime(t *testing.T) {
	const limit = 400 * time.Millisecond
	begin := http2Preface + http2Frame(frameSettings, 0, 0, "")
	upload := http2Frame(frameHeaders, flagEndHeaders, 1, postBlock) + http2Frame(frameData, 0, 1, "x")
	more := http2Frame(frameData, 0, 1, "y")
	half := http2Frame(frameHeaders, 0, 3, postBlock[:2])
	long := http2Frame(frameHeaders, flagEndHeaders, 1, strings.Repeat("\x84", 200))
	for _, tc := range []struct {
		name   string
		first  string
		upload string // sent again and again for longer than the limit, before last
		last   string
		then   string // again and again
		cut    bool
	}{
		{name: "half a block", first: begin + half, cut: true},
		{name: "beside an upload", first: begin + upload + half, cut: true},
		{name: "beside an upload that goes on", first: begin + upload, upload: more, last: half, cut: true},
		{name: "half a frame beside an upload that goes on", first: begin + upload, upload: more,
			last: half[:frameHead+1], cut: true},
		{name: "empty continuations", first: begin + half, then: http2Frame(frameContinuation, 0, 3, ""), cut: true},
		{name: "half a frame", first: begin + half[:frameHead+1], cut: true},
		{name: "one byte at a time", first: begin + long[:frameHead], then: "\x84", cut: true},
		{name: "nothing open", first: begin},
		{name: "an upload", first: begin + upload, then: more},
		{name: "blocks that end", first: begin + upload + half +
			http2Frame(frameContinuation, flagEndHeaders, 3, postBlock[2:])},
	} {
		for name, over := range map[string]dialFunc{"h2c": dialPlain, "TLS": overTLS("h2")} {
			t.Run(tc.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				c, err := over(runForBlocks(t, limit, name == "TLS"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				ended := make(chan error, 1)
				go func() {
					_, err := io.Copy(io.Discard, c)
					ended <- err
				}()
				begun := time.Now()
				writeOrFail(t, c, tc.first)
				if tc.upload != "" {
					for until := time.Now().Add(3 * limit / 2); time.Now().Before(until); time.Sleep(limit / 10) {
						writeOrFail(t, c, tc.upload)
					}
					begun = time.Now()
					writeOrFail(t, c, tc.last)
				}
				for tick := time.NewTicker(limit / 10); ; {
					select {
					case <-ended:
						tick.Stop()
						if took := time.Since(begun); !tc.cut || took < limit/2 {
							t.Fatalf("cut after %s", took)
						}
						return
					case <-tick.C:
					}
					if tc.cut && time.Since(begun) > 100*limit { // an upload or an idle client may go on for longer
						t.Fatal("not cut")
					}
					if !tc.cut && time.Since(begun) > 3*limit {
						return
					}
					if tc.then != "" {
						_, _ = io.WriteString(c, tc.then) // fails once it is cut
					}
				}
			})
		}
	}
}

func writeOrFail(t *testing.T, c io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// runForBlocks is serve with another limit for headers.
func runForBlocks(t *testing.T, limit time.Duration, overTLS bool) (address string) {
	t.Helper()
	l, log, e := listenForTest(t), slog.New(slog.DiscardHandler), &echo{}
	s := &Server{Listeners: []*Listener{{on: l, HTTP: NewPublicHTTP(e, limitsWith(true), log)}},
		Front: e, StopTimeout: time.Millisecond, Log: log, Ready: &atomic.Bool{}}
	s.Listeners[0].HTTP.ReadHeaderTimeout = limit
	if overTLS {
		c := &Certificate{}
		c.current.Store(testenv.NewKeyPair(t, "a", time.Now().Add(time.Hour)).TLS(t))
		s.Listeners[0].HTTP.TLSConfig = c.Config()
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case <-ended: // with an error where an upload was still running
		case <-time.After(20 * time.Second):
			t.Error("it does not stop")
		}
	})
	return l.Addr().String()
}

// Whatever pieces the bytes come in, the reading is the same, and the same as
// that of a reader who has them all.
func FuzzHeaderBlocks(f *testing.F) {
	f.Add([]byte(http2Preface+http2Frame(frameSettings, 0, 0, "")+http2Frame(frameHeaders, 0, 1, "abc")), uint8(3))
	f.Add([]byte(http2Preface+http2Frame(frameHeaders, 0, 1, "")+
		http2Frame(frameContinuation, flagEndHeaders, 1, "x")+
		http2Frame(frameHeaders, flagEndHeaders, 3, "yz")[:10]), uint8(1))
	f.Add([]byte("POST / HTTP/1.1\r\n\r\n"), uint8(7))
	f.Fuzz(func(t *testing.T, sent []byte, size uint8) {
		h := headerBlocks{limit: time.Hour, expire: func() {}}
		defer h.stop()
		for piece := range slices.Chunk(sent, int(size)+1) {
			h.saw(piece)
			if h.open != h.running && !h.foreign {
				t.Fatalf("open %v, timer %v", h.open, h.running)
			}
		}
		if want := blockIsOpen(sent); !h.foreign && h.open != want {
			t.Fatalf("open %v, want %v", h.open, want)
		}
	})
}

// blockIsOpen reads all frames at once.
func blockIsOpen(sent []byte) (open bool) {
	rest, ok := strings.CutPrefix(string(sent), http2Preface)
	if !ok {
		return false
	}
	for len(rest) >= frameHead {
		length, kind, flags := int(rest[0])<<16|int(rest[1])<<8|int(rest[2]), rest[3], rest[4]
		open = open || kind == frameHeaders
		rest = rest[frameHead:]
		if len(rest) < length {
			return open
		}
		rest = rest[length:]
		if flags&flagEndHeaders != 0 && (kind == frameHeaders || kind == frameContinuation) {
			open = false
		}
	}
	return open
}

// Reading along costs a signed-in request next to nothing.
func BenchmarkHeaderBlocks(b *testing.B) {
	request := []byte(http2Frame(frameHeaders, flagEndHeaders|flagEndStream, 1, strings.Repeat("h", 900)))
	h := headerBlocks{limit: time.Hour, expire: func() {}}
	h.saw([]byte(http2Preface))
	b.ReportAllocs()
	for b.Loop() { // net/http reads the head of a frame and its payload apart
		h.saw(request[:frameHead])
		h.saw(request[frameHead:])
	}
}

// Over TLS, HTTP/2 is read by a server of its own: the address and the protocol
// are still those of the client.
func TestHTTP2OverTLSIsServedAsItsClientSpeaksIt(t *testing.T) {
	seen := make(chan *http.Request, 1)
	l, log := listenForTest(t), slog.New(slog.DiscardHandler)
	front := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r })
	s := &Server{Listeners: []*Listener{{on: l, HTTP: NewPublicHTTP(front, usualLimits, log)}},
		StopTimeout: 5 * time.Second, Log: log, Ready: &atomic.Bool{}}
	c := &Certificate{}
	c.current.Store(testenv.NewKeyPair(t, "a", time.Now().Add(time.Hour)).TLS(t))
	s.Listeners[0].HTTP.TLSConfig = c.Config()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	conn, err := overTLS("h2")(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	writeOrFail(t, conn, http2Preface+http2Frame(frameSettings, 0, 0, "")+
		http2Frame(frameHeaders, flagEndHeaders|flagEndStream, 1, "\x82\x84\x87\x41\x01a"))
	select {
	case r := <-seen:
		if r.ProtoMajor != 2 || r.RemoteAddr != conn.LocalAddr().String() || r.Host != "a" {
			t.Errorf("%s from %s for %s", r.Proto, r.RemoteAddr, r.Host)
		}
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if local == nil || local.String() != l.Addr().String() {
			t.Errorf("local address %v", local)
		}
		if r.TLS == nil || r.TLS.NegotiatedProtocol != "h2" { // or addresses of ours would begin with "http:"
			t.Errorf("of the handshake is known %+v", r.TLS)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no request")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open after the stop")
	}
}
