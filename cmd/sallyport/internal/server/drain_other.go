//go:build !linux

package server

import (
	"errors"
	"net"
)

func holdOff(*net.TCPListener) error { return errors.ErrUnsupported }

func hasUnread(*net.TCPConn) bool { return false }
