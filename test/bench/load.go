package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// expected is what every answer has to be.
type expected struct {
	status string // such as "200"
	length int    // of the body
}

// talker is a connection over which requests are sent, one after the other or side by side.
type talker interface {
	ask(l *loop, begun int64) // sends a request that counts from begun on
	hangUp(l *loop)
}

// load is requests over some connections, and what became of them. With a rate they come at
// random moments, so many a second, whatever becomes of those before; without one each
// connection sends the next once the last is answered.
type load struct {
	rate    float64 // requests a second; 0: as fast as they are answered
	talkers []talker
	idle    []talker // with a rate: who waits for a request
	waiting []int64  // with a rate: when those began for whom nobody is idle
	next    int64    // with a rate: when the next begins
	gaps    *rand.Rand

	ending bool // no more are sent
	out    int  // requests without an answer
	count  int
	faults int
	fault  error // the first
	times  histogram
	last   int64 // when the newest answer was there
}

// begin sends a request, unless the load ends.
func (ld *load) begin(l *loop, t talker, begun int64) {
	ld.out++
	t.ask(l, begun)
}

// answered is called once for every request that was begun.
func (ld *load) answered(l *loop, t talker, begun int64, err error) {
	ld.out--
	if err != nil {
		ld.failed(err)
		return
	}
	ld.last = now()
	ld.count++
	ld.times.add(ld.last - begun)
	switch {
	case ld.rate > 0 && len(ld.waiting) > 0:
		from := ld.waiting[0]
		ld.waiting = ld.waiting[1:]
		ld.begin(l, t, from)
	case ld.rate > 0:
		ld.idle = append(ld.idle, t)
	case !ld.ending:
		ld.begin(l, t, ld.last)
	}
}

func (ld *load) failed(err error) {
	ld.faults++
	if ld.fault == nil {
		ld.fault = err
	}
}

// pace begins what is due. The gaps are those of a Poisson process: a proxy sees as many come
// at once as it would of people who know nothing of each other.
func (ld *load) pace(l *loop) {
	for t := now(); !ld.ending && ld.next <= t; ld.next += int64(ld.gaps.ExpFloat64() / ld.rate * 1e9) {
		if n := len(ld.idle); n > 0 {
			who := ld.idle[n-1]
			ld.idle = ld.idle[:n-1]
			ld.begin(l, who, ld.next)
		} else {
			ld.waiting = append(ld.waiting, ld.next)
		}
	}
}

// run keeps the load up for a time, and waits until every request has its answer.
func (ld *load) run(l *loop, d time.Duration) (took time.Duration, err error) {
	var begun int64
	l.do(func() {
		ld.ending, ld.count, ld.times = false, 0, histogram{}
		ld.faults, ld.fault = 0, nil
		begun = now()
		if ld.rate > 0 {
			ld.gaps, ld.next = rand.New(rand.NewPCG(1, 2)), begun
			ld.idle = append(ld.idle[:0], ld.talkers...)
			l.each = func() { ld.pace(l) }
			return
		}
		for _, t := range ld.talkers {
			ld.begin(l, t, begun)
		}
	})
	time.Sleep(d)
	l.do(func() { ld.ending, l.each = true, nil })
	err = eventually("the last answers", func() (none bool) {
		l.do(func() { none = ld.out == 0 && len(ld.waiting) == 0 || ld.faults > 0 })
		return none
	})
	if ld.faults > 0 {
		return 0, fmt.Errorf("%d of %d answers were wrong, such as: %w", ld.faults, ld.count+ld.faults, ld.fault)
	}
	if ld.count == 0 {
		return 0, errors.Join(err, errors.New("there was no answer at all"))
	}
	return time.Duration(ld.last - begun), err
}

// httpConn sends one request of HTTP/1.1 again and again.
type httpConn struct {
	ld      *load
	fd      int
	request []byte
	want    expected

	begun int64
	in    []byte // of an answer whose head is not whole
	left  int    // bytes of its body that have not come yet; -1: its head has not
	err   error  // what is wrong with it
}

// dialHTTP opens n connections for a load.
func dialHTTP(l *loop, ld *load, address string, request []byte, want expected, n int) error {
	for range n {
		fd, err := dial(address)
		if err != nil {
			return err
		}
		c := &httpConn{ld: ld, fd: fd, request: request, want: want, left: -1}
		l.do(func() { err = l.add(fd, c, unix.EPOLLIN) })
		if err != nil {
			return err
		}
		ld.talkers = append(ld.talkers, c)
	}
	return nil
}

func (c *httpConn) ask(l *loop, begun int64) {
	c.begun = begun
	if n, err := unix.Write(c.fd, c.request); n != len(c.request) {
		c.end(l, fmt.Errorf("only %d bytes of a request were taken: %w", n, err))
	}
}

// end is for a connection that is of no use any more.
func (c *httpConn) end(l *loop, err error) {
	l.remove(c.fd)
	c.ld.answered(l, c, c.begun, err)
}

func (c *httpConn) ready(l *loop, _ uint32) {
	n, err := unix.Read(c.fd, l.buf[:])
	if err == unix.EAGAIN {
		return
	}
	if n <= 0 {
		c.end(l, fmt.Errorf("a connection was closed: %w", errors.Join(err, c.err)))
		return
	}
	in := l.buf[:n]
	if c.left < 0 {
		if len(c.in) > 0 {
			c.in = append(c.in, in...)
			in = c.in
		}
		end := bytes.Index(in, []byte("\r\n\r\n"))
		if end < 0 {
			c.in = append(c.in[:0], in...)
			return
		}
		c.left, c.err = c.want.check(in[:end+2])
		in = in[end+4:]
		c.in = c.in[:0]
	}
	if c.left -= len(in); c.left < 0 {
		c.err = errors.Join(c.err, errors.New("more came than the answer has"))
	}
	if c.err != nil {
		c.end(l, c.err)
		return
	}
	if c.left == 0 {
		c.left = -1
		c.ld.answered(l, c, c.begun, nil)
	}
}

var lengthField = []byte("\r\ncontent-length: ")

// check reads the head of an answer, with the end of its last line, and says how long its body is.
func (want expected) check(head []byte) (length int, err error) {
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 "+want.status)) {
		return 0, fmt.Errorf("answered %q", head)
	}
	at := indexFold(head, lengthField)
	if at < 0 {
		return 0, fmt.Errorf("no Content-Length in %q", head)
	}
	text, _, _ := bytes.Cut(head[at+len(lengthField):], []byte("\r"))
	if length, err = strconv.Atoi(string(text)); err == nil && length != want.length {
		err = fmt.Errorf("%d bytes instead of %d: %q", length, want.length, head)
	}
	return length, err
}

// indexFold is bytes.Index for a line whose name may have capitals; name begins with CR LF.
func indexFold(head, name []byte) int {
	for from := 0; ; {
		i := bytes.IndexByte(head[from:], '\r')
		if i < 0 || from+i+len(name) > len(head) {
			return -1
		}
		from += i
		if bytes.EqualFold(head[from:from+len(name)], name) {
			return from
		}
		from++
	}
}

// close ends the connections of a load that has ended.
func (ld *load) close(l *loop) {
	l.do(func() {
		for _, t := range ld.talkers {
			t.hangUp(l)
		}
	})
	ld.talkers = nil
}

func (c *httpConn) hangUp(l *loop) { l.drop(c.fd, c) }

// drop removes a socket, unless it has been.
func (l *loop) drop(fd int, s sock) {
	if l.socks[fd] == s {
		l.remove(fd)
	}
}
