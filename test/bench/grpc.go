package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// checkPath is the method by which Envoy asks.
const checkPath = "/envoy.service.auth.v3.Authorization/Check"

// checkRequest is what Envoy asks about a request with some header fields.
func checkRequest(host, path string, header map[string]string) ([]byte, error) {
	header[":method"], header[":path"], header[":scheme"], header[":authority"] = "GET", path, "http", host
	header["x-forwarded-proto"] = "http"
	return proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "192.0.2.9"}}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: path, Host: host, Scheme: "http", Protocol: "HTTP/1.1", Headers: header}}}})
}

// passes reports whether Envoy is told to let a request pass.
func passes(message []byte) error {
	var answer authv3.CheckResponse
	if err := proto.Unmarshal(message, &answer); err != nil {
		return err
	}
	if answer.GetOkResponse() == nil {
		return fmt.Errorf("the check was answered with %v", &answer)
	}
	return nil
}

// grpcConn is a connection of HTTP/2 with some calls at a time, of one message each.
type grpcConn struct {
	fd      int
	message []byte                    // with its prefix of five bytes
	first   []byte                    // the header block of the first call
	further []byte                    // and of those that follow, for which the peer has a table
	judge   func(msg []byte) error    // of the first answer; the others have to be as long
	length  int                       // of an answer's message; -1: none was there yet
	streams map[uint32]*grpcStream    // by the id of the call that is under way
	id      uint32                    // of the next call
	in      []byte                    // of a frame that is not whole
	out     []byte                    // a request that is put together
	unacked uint32                    // bytes for which the peer was given no new window
	decoder *hpack.Decoder            // of the header blocks of answers
	fields  func(f hpack.HeaderField) // told of each field
}

// grpcStream is one of the calls that are under way.
type grpcStream struct {
	conn    *grpcConn
	ld      *load
	begun   int64
	http    bool // :status was 200
	grpc    bool // grpc-status was 0
	message []byte
}

const windowGrowth = 1 << 30

// dialGRPC opens n connections with some calls at a time, for a load.
func dialGRPC(l *loop, ld *load, address string, message []byte, judge func([]byte) error, n, calls int) error {
	for range n {
		fd, err := dial(address)
		if err != nil {
			return err
		}
		c := newGRPCConn(fd, address, message, judge)
		if _, err := unix.Write(fd, c.preface()); err != nil {
			return err
		}
		l.do(func() { err = l.add(fd, c, unix.EPOLLIN) })
		if err != nil {
			return err
		}
		for range calls {
			ld.talkers = append(ld.talkers, &grpcStream{conn: c, ld: ld})
		}
	}
	return nil
}

func newGRPCConn(fd int, address string, message []byte, judge func([]byte) error) *grpcConn {
	c := &grpcConn{fd: fd, judge: judge, length: -1, streams: map[uint32]*grpcStream{}, id: 1}
	c.message = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encode := func() []byte {
		block.Reset()
		for _, f := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
			{Name: ":path", Value: checkPath}, {Name: ":authority", Value: address}, {Name: "te", Value: "trailers"},
			{Name: "content-type", Value: "application/grpc"}, {Name: "grpc-timeout", Value: "200m"},
			{Name: "user-agent", Value: "bench"}} {
			_ = encoder.WriteField(f) // into memory
		}
		return bytes.Clone(block.Bytes())
	}
	c.first, c.further = encode(), encode()
	c.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) { c.fields(f) })
	return c
}

func (c *grpcConn) preface() []byte {
	var out bytes.Buffer
	out.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&out, nil)
	_ = framer.WriteSettings() // into memory, like the next
	_ = framer.WriteWindowUpdate(0, windowGrowth)
	return out.Bytes()
}

func (s *grpcStream) ask(l *loop, begun int64) {
	c := s.conn
	s.begun, s.http, s.grpc, s.message = begun, false, false, s.message[:0]
	block := c.further
	if c.id == 1 {
		block = c.first
	}
	c.streams[c.id] = s
	c.out = appendFrame(c.out[:0], http2.FrameHeaders, http2.FlagHeadersEndHeaders, c.id, block)
	c.out = appendFrame(c.out, http2.FrameData, http2.FlagDataEndStream, c.id, c.message)
	c.id += 2
	c.send(l, c.out)
}

func appendFrame(out []byte, kind http2.FrameType, flags http2.Flags, id uint32, payload []byte) []byte {
	n := len(payload)
	out = append(out, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags))
	return append(binary.BigEndian.AppendUint32(out, id), payload...)
}

func (c *grpcConn) send(l *loop, out []byte) {
	if n, err := unix.Write(c.fd, out); n != len(out) {
		c.end(l, fmt.Errorf("only %d bytes of a call were taken: %w", n, err))
	}
}

func (s *grpcStream) hangUp(l *loop) { l.drop(s.conn.fd, s.conn) }

// end fails all calls of the connection.
func (c *grpcConn) end(l *loop, err error) {
	l.drop(c.fd, c)
	for id, s := range c.streams {
		delete(c.streams, id)
		s.ld.answered(l, s, s.begun, err)
	}
}

func (c *grpcConn) ready(l *loop, _ uint32) {
	n, err := unix.Read(c.fd, l.buf[:])
	if err == unix.EAGAIN {
		return
	}
	if n <= 0 {
		c.end(l, fmt.Errorf("a connection was closed: %w", errors.Join(err, errors.New("end of file"))))
		return
	}
	in := l.buf[:n]
	if len(c.in) > 0 {
		c.in = append(c.in, in...)
		in = c.in
	}
	for len(in) >= 9 {
		size := int(in[0])<<16 | int(in[1])<<8 | int(in[2])
		if len(in) < 9+size {
			break
		}
		id := binary.BigEndian.Uint32(in[5:]) &^ (1 << 31)
		if err := c.frame(l, http2.FrameType(in[3]), http2.Flags(in[4]), id, in[9:9+size]); err != nil {
			c.end(l, err)
			return
		}
		in = in[9+size:]
	}
	c.in = append(c.in[:0], in...) // forwards within the same bytes, or from the loop's
}

// frame takes a frame of the peer. Those that pad are not made by any that we measure.
func (c *grpcConn) frame(l *loop, kind http2.FrameType, flags http2.Flags, id uint32, payload []byte) error {
	s := c.streams[id]
	switch kind {
	case http2.FrameSettings:
		if !flags.Has(http2.FlagSettingsAck) {
			c.send(l, appendFrame(nil, http2.FrameSettings, http2.FlagSettingsAck, 0, nil))
		}
		return nil
	case http2.FramePing:
		if !flags.Has(http2.FlagPingAck) {
			c.send(l, appendFrame(nil, http2.FramePing, http2.FlagPingAck, 0, payload))
		}
		return nil
	case http2.FrameWindowUpdate:
		return nil
	case http2.FrameHeaders:
		if s == nil || !flags.Has(http2.FlagHeadersEndHeaders) || flags.Has(http2.FlagHeadersPadded) {
			return errors.New("a header block that nobody asked for")
		}
		c.fields = s.field
		if _, err := c.decoder.Write(payload); err != nil {
			return fmt.Errorf("read a header block: %w", err)
		}
	case http2.FrameData:
		if s == nil || flags.Has(http2.FlagDataPadded) {
			return errors.New("data that nobody asked for")
		}
		s.message = append(s.message, payload...)
		if c.unacked += uint32(len(payload)); c.unacked > windowGrowth/2 {
			c.send(l, appendFrame(nil, http2.FrameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, c.unacked)))
			c.unacked = 0
		}
	default:
		return fmt.Errorf("an unexpected frame: %v %q", kind, payload)
	}
	if flags.Has(http2.FlagDataEndStream) { // the same bit for HEADERS
		delete(c.streams, id)
		s.ld.answered(l, s, s.begun, s.check())
	}
	return nil
}

func (s *grpcStream) field(f hpack.HeaderField) {
	switch f.Name {
	case ":status":
		s.http = f.Value == "200"
	case "grpc-status":
		s.grpc = f.Value == "0"
	}
}

func (s *grpcStream) check() error {
	c := s.conn
	switch {
	case !s.http || !s.grpc:
		return errors.New("a call failed")
	case len(s.message) < 5 || int(binary.BigEndian.Uint32(s.message[1:])) != len(s.message)-5:
		return fmt.Errorf("not one message: %q", s.message)
	case c.length < 0:
		c.length = len(s.message)
		return c.judge(s.message[5:])
	case len(s.message) != c.length:
		return fmt.Errorf("%d bytes instead of %d: %q", len(s.message), c.length, s.message)
	}
	return nil
}
