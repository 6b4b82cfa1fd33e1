package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// webSockets are connections that were upgraded and say nothing.
type webSockets struct {
	loop            *loop
	address, cookie string
	conns           []*webSocket
}

// webSocket is one of them.
type webSocket struct {
	fd   int
	in   []byte
	open bool
	err  error
}

// grow opens more, until there are n.
func (w *webSockets) grow(n int) error {
	request := []byte("GET /live HTTP/1.1\r\nHost: " + w.address + "\r\nCookie: " + w.cookie +
		"\r\nOrigin: http://" + w.address + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	for len(w.conns) < n {
		fd, err := dial(w.address)
		if err != nil {
			return err
		}
		c := &webSocket{fd: fd}
		w.conns = append(w.conns, c)
		w.loop.do(func() {
			if err = w.loop.add(fd, c, unix.EPOLLIN); err == nil {
				_, err = unix.Write(fd, request)
			}
		})
		if err != nil {
			return err
		}
		if len(w.conns)%100 == 0 || len(w.conns) == n { // so that no backlog runs over
			if err := w.settled(); err != nil {
				return err
			}
		}
	}
	return nil
}

// settled waits until all are open.
func (w *webSockets) settled() error {
	var failed error
	err := eventually("WebSockets to open", func() (all bool) {
		w.loop.do(func() {
			all = true
			for _, c := range w.conns {
				all = all && (c.open || c.err != nil)
				failed = cmp.Or(failed, c.err)
			}
		})
		return all || failed != nil
	})
	return errors.Join(err, failed)
}

// lost is how many were closed since.
func (w *webSockets) lost() (n int) {
	w.loop.do(func() {
		for _, c := range w.conns {
			if c.err != nil {
				n++
			}
		}
	})
	return n
}

func (w *webSockets) close() {
	w.loop.do(func() {
		for _, c := range w.conns {
			w.loop.drop(c.fd, c)
		}
	})
}

func (c *webSocket) ready(l *loop, _ uint32) {
	n, err := unix.Read(c.fd, l.buf[:])
	if err == unix.EAGAIN {
		return
	}
	if n <= 0 {
		c.err = fmt.Errorf("a WebSocket was closed after %q: %w", c.in, errors.Join(err, errors.New("end of file")))
		l.remove(c.fd)
		return
	}
	c.in = append(c.in, l.buf[:n]...)
	switch {
	case !bytes.Contains(c.in, []byte("\r\n\r\n")):
	case bytes.HasPrefix(c.in, []byte("HTTP/1.1 101 ")):
		c.open, c.in = true, nil
	default:
		c.err = fmt.Errorf("a WebSocket was answered with %q", c.in)
	}
}
