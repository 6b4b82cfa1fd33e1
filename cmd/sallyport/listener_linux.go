package main

import (
	"net"
	"syscall"
	"unsafe"
)

// holdOff drops every packet to l that would open a connection. Handshakes under
// way end as usual. The filter is classic BPF on the socket itself, which needs
// no privilege.
func holdOff(l *net.TCPListener) error {
	const flags, syn = 13, 0x02 // RFC 9293 §3.1: offset of the control bits in the header, and ours
	program := []syscall.SockFilter{
		{Code: syscall.BPF_LD | syscall.BPF_B | syscall.BPF_ABS, K: flags},
		{Code: syscall.BPF_JMP | syscall.BPF_JSET | syscall.BPF_K, Jt: 0, Jf: 1, K: syn},
		{Code: syscall.BPF_RET | syscall.BPF_K, K: 0},      // drop
		{Code: syscall.BPF_RET | syscall.BPF_K, K: 0xffff}, // keep
	}
	filter := syscall.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var failed syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, failed = syscall.Syscall6(syscall.SYS_SETSOCKOPT, fd, syscall.SOL_SOCKET, syscall.SO_ATTACH_FILTER,
			uintptr(unsafe.Pointer(&filter)), unsafe.Sizeof(filter), 0)
	})
	if err == nil && failed != 0 {
		err = failed
	}
	return err
}

// hasUnread tells whether bytes have arrived that nobody has read.
func hasUnread(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, _ = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err == nil && n > 0
}
