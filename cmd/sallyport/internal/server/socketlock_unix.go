//go:build linux || darwin

package server

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockDirectory keeps other processes that open a socket in a directory out of it, so that
// of two that begin at once, one does not remove what the other has just made. It ends with
// the process at the latest.
func lockDirectory(ctx context.Context, path string) (unlock func(), err error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockedFor)
	defer cancel()
	for {
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = d.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(err, d.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(errors.New("another process has locked it"), d.Close())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
