//go:build !linux

package server

import (
	"errors"
	"net"
	"syscall"
)

func holdOff(*net.TCPListener) error { return errors.ErrUnsupported }

func hasUnread(syscall.Conn) bool { return false }
