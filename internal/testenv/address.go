package testenv

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
)

// UnusedAddress is a loopback address that nobody listens on at the moment. It is below the
// ports that kernels give to outgoing connections, of which tests make thousands: one of
// those could take the port before a program listens there. No two calls in a process return
// the same until all have been given.
func UnusedAddress() (string, error) {
	const first, ports = 12000, 20000
	portsBegin.Do(func() { nextPort.Store(rand.Int32N(ports)) }) // other processes have theirs
	for range ports {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+nextPort.Add(1)%ports))
		if err != nil {
			continue
		}
		defer func() { _ = l.Close() }()
		return l.Addr().String(), nil
	}
	return "", errors.New("no port is free")
}

var (
	portsBegin sync.Once
	nextPort   atomic.Int32
)
