package server

import (
	"errors"
	"io/fs"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

const peersAreKnown = true

// peerUID is the user who connected, as the kernel wrote it down then (SO_PEERCRED, unix(7)).
func peerUID(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	var who *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, failed); err != nil {
		return -1, err
	}
	return int(who.Uid), nil
}

// presetMode gives a socket the mode that its file gets when it is bound, without what umask
// takes away: so there is no moment in which others may connect.
func presetMode(c syscall.RawConn, mode fs.FileMode) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), uint32(mode.Perm())) })
	return errors.Join(err, failed)
}
