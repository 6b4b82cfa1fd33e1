//go:build !unix

package lane

import "net"

// Supported: on this system it cannot be found out whether a client is gone.
const Supported = false

type socket struct{}

func newSocket(net.Conn) socket { return socket{} }

func (socket) ok() bool        { return false }
func (socket) gone() bool      { return true }
func (socket) awaitGone() bool { return true }
