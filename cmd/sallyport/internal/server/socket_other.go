//go:build !linux

package server

import (
	"errors"
	"io/fs"
	"net"
	"syscall"
)

const peersAreKnown = false

func peerUID(*net.UnixConn) (int, error) { return -1, errors.ErrUnsupported }

// presetMode does nothing: until the mode is set, right after it is made, a socket has what
// umask leaves of it.
func presetMode(syscall.RawConn, fs.FileMode) error { return nil }
