package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// upstream answers every GET with 200 and some bytes: as many as /bytes/N says, or else size.
// WebSockets are opened at /live, and nothing is said there.
type upstream struct {
	size    int
	answer  []byte // head and body, for size
	address string
	fd      int

	// What follows belongs to the thread of the loop.
	requests int
	unread   int    // what came that is no request
	last     []byte // the head of the newest request
	keep     bool   // copy the next head to last
}

func newUpstream(l *loop, address string, size int) (*upstream, error) {
	u := &upstream{size: size, answer: append(head(size), filler(size)...)}
	at, err := sockaddr(address)
	if err != nil {
		return nil, err
	}
	u.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	_ = unix.SetsockoptInt(u.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err := unix.Bind(u.fd, at); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	if err := unix.Listen(u.fd, 4096); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	bound, err := unix.Getsockname(u.fd)
	if err != nil {
		return nil, err
	}
	u.address = "127.0.0.1:" + strconv.Itoa(bound.(*unix.SockaddrInet4).Port)
	l.do(func() { err = l.add(u.fd, u, unix.EPOLLIN) })
	return u, err
}

// head is the header of an answer. The date is that of the start.
func head(size int) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: text/plain; charset=utf-8\r\n"+
		"Content-Length: %d\r\nCache-Control: no-store\r\nVary: Accept-Encoding\r\n\r\n",
		time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), size)
}

func filler(size int) []byte { return bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size] }

func (u *upstream) ready(l *loop, _ uint32) {
	for {
		fd, _, err := unix.Accept4(u.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return // EAGAIN; whatever else it is, the client sees it
		}
		_ = settle(fd)
		if err := l.add(fd, &upstreamConn{u: u, fd: fd}, unix.EPOLLIN); err != nil {
			l.remove(fd)
		}
	}
}

// upstreamConn is a connection of a proxy.
type upstreamConn struct {
	u        *upstream
	fd       int
	in       []byte // of a request that is not whole
	head     []byte // of an answer, that has to be written yet
	left     int    // bytes of its body that have to be written yet
	upgraded bool
}

func (c *upstreamConn) ready(l *loop, events uint32) {
	if events&unix.EPOLLOUT != 0 {
		c.write(l)
		return
	}
	n, err := unix.Read(c.fd, l.buf[:])
	switch {
	case err == unix.EAGAIN:
		return
	case n <= 0:
		l.remove(c.fd)
		return
	case c.upgraded:
		return
	}
	in := l.buf[:n]
	if len(c.in) > 0 {
		c.in = append(c.in, in...)
		in = c.in
	}
	end := bytes.Index(in, []byte("\r\n\r\n"))
	switch {
	case end < 0:
		c.in = append(c.in[:0], in...)
		return
	case end+4 != len(in) || !bytes.HasPrefix(in, []byte("GET ")):
		c.u.unread++
		l.remove(c.fd)
		return
	}
	c.in = c.in[:0]
	c.serve(l, in)
}

func (c *upstreamConn) serve(l *loop, request []byte) {
	u := c.u
	u.requests++
	if u.keep {
		u.last, u.keep = append(u.last[:0], request...), false
	}
	switch {
	case bytes.HasPrefix(request, []byte("GET /live ")):
		c.upgrade(l, request)
	case bytes.HasPrefix(request, []byte("GET /bytes/")):
		text, _, _ := bytes.Cut(request[len("GET /bytes/"):], []byte(" "))
		n, _ := strconv.Atoi(string(text)) // what is no number has no bytes
		c.head, c.left = head(n), n
		c.write(l)
	default:
		if n, _ := unix.Write(c.fd, u.answer); n != len(u.answer) {
			l.remove(c.fd) // it has a kilobyte or so, and the proxy has read all before it
		}
	}
}

// write goes on with an answer.
func (c *upstreamConn) write(l *loop) {
	for len(c.head) > 0 || c.left > 0 {
		out := c.head
		if len(out) == 0 {
			out = pieces[:min(c.left, len(pieces))]
		}
		n, err := unix.Write(c.fd, out)
		switch {
		case err == unix.EAGAIN:
			l.want(c.fd, unix.EPOLLOUT)
			return
		case err != nil:
			l.remove(c.fd)
			return
		case len(c.head) > 0:
			c.head = c.head[n:]
		default:
			c.left -= n
		}
	}
	l.want(c.fd, unix.EPOLLIN)
}

var pieces = filler(256 << 10)

// upgrade agrees to a WebSocket (RFC 6455 §4.2.2).
func (c *upstreamConn) upgrade(l *loop, request []byte) {
	sum := sha1.Sum([]byte(headerValue(request, "Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	answer := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n"
	if n, _ := unix.Write(c.fd, []byte(answer)); n != len(answer) {
		l.remove(c.fd)
		return
	}
	c.upgraded = true
}
