package main

import (
	"fmt"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// loop serves all sockets of the load and of the upstream in one thread. Two goroutines for
// each connection would take more of their core than a proxy takes of its own, and then that
// would idle, and be measured while it does.
type loop struct {
	epoll    int
	socks    []sock      // by file descriptor
	commands chan func() // are run between two rounds of events
	each     func()      // if not nil: is called all the time, and nobody waits for events
	buf      [64 << 10]byte
	ended    chan struct{}
	closed   bool
	others   others // what else the machine did while this was at work
}

// sock is told what epoll says of its socket.
type sock interface {
	ready(l *loop, events uint32)
}

func newLoop() (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	l := &loop{epoll: fd, commands: make(chan func()), ended: make(chan struct{})}
	go l.run()
	return l, nil
}

// do runs f in the thread of the loop, and waits for it.
func (l *loop) do(f func()) {
	done := make(chan struct{})
	l.commands <- func() { f(); close(done) }
	<-done
}

func (l *loop) close() {
	l.do(func() { l.closed = true })
	<-l.ended
}

func (l *loop) run() {
	runtime.LockOSThread()
	defer close(l.ended)
	var events [256]unix.EpollEvent
	for !l.closed {
		wait := 5 // milliseconds, until commands are looked at
		if l.each != nil {
			wait = 0
			l.each()
		}
		n, err := unix.EpollWait(l.epoll, events[:], wait)
		if err != nil && err != unix.EINTR {
			panic(fmt.Sprintf("epoll: %v", err)) // nothing of a run would be true
		}
		for _, e := range events[:max(n, 0)] {
			if s := l.socks[e.Fd]; s != nil {
				s.ready(l, e.Events)
			}
		}
		select {
		case f := <-l.commands:
			f()
		default:
		}
	}
	for fd, s := range l.socks {
		if s != nil {
			l.remove(fd)
		}
	}
	_ = unix.Close(l.epoll)
}

func (l *loop) add(fd int, s sock, events uint32) error {
	for len(l.socks) <= fd {
		l.socks = append(l.socks, nil)
	}
	l.socks[fd] = s
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

func (l *loop) want(fd int, events uint32) {
	// It can only fail for a socket that is not ours.
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

func (l *loop) remove(fd int) {
	l.socks[fd] = nil
	_ = unix.Close(fd)
}

// dial connects to an address of IPv4 and port.
func dial(address string) (int, error) {
	to, err := sockaddr(address)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	if err = unix.Connect(fd, to); err == nil {
		err = settle(fd)
	}
	if err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("connect to %s: %w", address, err)
	}
	return fd, nil
}

func settle(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	return unix.SetNonblock(fd, true)
}

func sockaddr(address string) (*unix.SockaddrInet4, error) {
	at, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return nil, err
	}
	return &unix.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())}, nil
}

// now is the monotonic clock, in nanoseconds.
func now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // there is no Linux without it
	return t.Nano()
}

// patience is for how long something is waited for that has to come: the end of a gigabyte, on a
// machine that has other work to do.
const patience = 2 * time.Minute

// eventually waits until ok.
func eventually(what string, ok func() bool) error {
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited in vain for %s", what)
		}
	}
	return nil
}
