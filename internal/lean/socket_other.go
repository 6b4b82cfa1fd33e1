//go:build !unix

package lean

import "net"

// Supported: on this system it cannot be found out what is in a socket.
const Supported = false

type socket struct{}

func newSocket(net.Conn) socket { return socket{} }

func (s *socket) pending() bool { return true }
