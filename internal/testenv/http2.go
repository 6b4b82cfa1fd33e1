package testenv

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"net"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
)

// Frames of HTTP/2 that an HTTP2Peer answers with (RFC 9113 §6).
var (
	// Answer200 is a header block that says 200, and the end of the stream.
	Answer200 = func(stream uint32) []byte { return http2Frame(1, 0x4|0x1, stream, []byte{0x88}) }
	// Reset is RST_STREAM.
	Reset = func(code uint32) func(uint32) []byte {
		return func(stream uint32) []byte { return http2Frame(3, 0, stream, binary.BigEndian.AppendUint32(nil, code)) }
	}
	// GoAway names the last stream that the peer will process: that of this request, or
	// the one before it.
	GoAway = func(own bool, code uint32) func(uint32) []byte {
		return func(stream uint32) []byte {
			if !own {
				stream = max(stream, 2) - 2
			}
			return http2Frame(7, 0, 0, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, stream), code))
		}
	}
	// Header2 is a header block, or trailers, with these fields and their values in turn.
	Header2 = func(ends bool, pairs ...string) func(uint32) []byte {
		var fields []byte // RFC 7541 §6.2.2, without Huffman codes
		for i, text := range pairs {
			if i%2 == 0 {
				fields = append(fields, 0)
			}
			if n := len(text); n < 127 { // §5.1
				fields = append(fields, byte(n))
			} else {
				fields = binary.AppendUvarint(append(fields, 127), uint64(n-127))
			}
			fields = append(fields, text...)
		}
		return func(stream uint32) []byte { return http2Frame(1, 0x4|endOf(ends), stream, fields) }
	}
	// Data2 is a piece of a body.
	Data2 = func(ends bool, text string) func(uint32) []byte {
		return func(stream uint32) []byte { return http2Frame(0, endOf(ends), stream, []byte(text)) }
	}
	// Frames2 are several of these, one after another.
	Frames2 = func(frames ...func(uint32) []byte) func(uint32) []byte {
		return func(stream uint32) (all []byte) {
			for _, frame := range frames {
				all = append(all, frame(stream)...)
			}
			return all
		}
	}
	// HangUp closes the connection.
	HangUp = func(uint32) []byte { return nil }
)

// HTTP2Peer is a server that answers each request with given frames, also such as no
// server library would send. It counts requests and connections.
type HTTP2Peer struct {
	URL string // https or http, the latter with prior knowledge
	TLS *tls.Config

	early    atomic.Bool
	mu       sync.Mutex
	got      int
	conns    int
	open     int
	settings []byte
	answer   func(n int) func(stream uint32) []byte
}

// StartHTTP2PeerWithLimit is StartHTTP2Peer with a peer that announces how many streams it
// accepts at a time (RFC 9113 §6.5.2).
func StartHTTP2PeerWithLimit(tb testing.TB, encrypted bool, streams uint32,
	answer func(n int) func(stream uint32) []byte) *HTTP2Peer {
	tb.Helper()
	return startHTTP2Peer(tb, encrypted, binary.BigEndian.AppendUint32([]byte{0, 3}, streams), answer)
}

// StartHTTP2Peer starts a peer. answer returns what to send to the n-th request; the first
// is 1.
func StartHTTP2Peer(tb testing.TB, encrypted bool, answer func(n int) func(stream uint32) []byte) *HTTP2Peer {
	tb.Helper()
	return startHTTP2Peer(tb, encrypted, nil, answer)
}

func startHTTP2Peer(tb testing.TB, encrypted bool, settings []byte,
	answer func(n int) func(stream uint32) []byte) *HTTP2Peer {
	tb.Helper()
	p := &HTTP2Peer{answer: answer, settings: settings}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p.URL = "http://" + l.Addr().String()
	if encrypted {
		p.URL = "https://" + l.Addr().String()
		vouched := httptest.NewTLSServer(nil) // it has a certificate for 127.0.0.1
		roots := x509.NewCertPool()
		roots.AddCert(vouched.Certificate())
		p.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		l = tls.NewListener(l, &tls.Config{Certificates: vouched.TLS.Certificates,
			NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
		vouched.Close()
	}
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

// Got returns the number of requests.
func (p *HTTP2Peer) Got() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got
}

// AnswerEarly has the peer answer a request when its header is there, and not at its end.
func (p *HTTP2Peer) AnswerEarly() { p.early.Store(true) }

// Connections returns how many connections with HTTP/2 have been opened.
func (p *HTTP2Peer) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns
}

// Open returns how many of them are open now.
func (p *HTTP2Peer) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

func (p *HTTP2Peer) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	if _, err := in.Discard(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err != nil {
		return
	}
	p.mu.Lock()
	p.conns++
	p.open++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.open--
		p.mu.Unlock()
	}()
	_, _ = c.Write(http2Frame(4, 0, 0, p.settings))
	head := make([]byte, 9)
	for {
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		size, kind, flags := int(head[0])<<16|int(head[1])<<8|int(head[2]), head[3], head[4]
		payload := make([]byte, size)
		if _, err := io.ReadFull(in, payload); err != nil {
			return
		}
		switch {
		case kind == 4 && flags&1 == 0:
			_, _ = c.Write(http2Frame(4, 1, 0, nil))
		case kind == 6 && flags&1 == 0:
			_, _ = c.Write(http2Frame(6, 1, 0, payload))
		case p.early.Load() && kind == 1, !p.early.Load() && (kind == 0 || kind == 1) && flags&1 != 0:
			p.mu.Lock()
			p.got++
			answer := p.answer(p.got)
			p.mu.Unlock()
			frames := answer(binary.BigEndian.Uint32(head[5:]))
			if frames == nil {
				return
			}
			_, _ = c.Write(frames)
		}
	}
}

func endOf(ends bool) byte {
	if ends {
		return 0x1
	}
	return 0
}

func http2Frame(kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	out := append(make([]byte, 0, 9+n), byte(n>>16), byte(n>>8), byte(n), kind, flags)
	return append(binary.BigEndian.AppendUint32(out, stream), payload...)
}
