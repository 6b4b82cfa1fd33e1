package server

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// holdOff drops every packet to l that would open a connection. Handshakes under
// way end as usual. The filter is classic BPF on the socket itself, which needs
// no privilege.
func holdOff(l *net.TCPListener) error {
	const flags, syn = 13, 0x02 // RFC 9293 §3.1: offset of the control bits in the header, and ours
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jt: 0, Jf: 1, K: syn},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},      // drop
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff}, // keep
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	return errors.Join(err, failed)
}

// hasUnread tells whether bytes have arrived that nobody has read.
func hasUnread(c syscall.Conn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, _ = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return err == nil && n > 0
}
