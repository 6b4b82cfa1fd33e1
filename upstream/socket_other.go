//go:build !unix

package upstream

import (
	"sync"
	"syscall"
)

// socket is not to be had on this system: a tunnel has its buffers while it waits.
type socket struct{}

func newSocket(syscall.Conn, *sync.Pool) *socket { return nil }

func (s *socket) read() (*buffer, int, error) { panic("there is no socket") }

func (s *socket) wait() error { panic("there is no socket") }
