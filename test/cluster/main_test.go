package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
)

// server is the control plane of all tests. It is set once, before any test runs.
var server *plane

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "sallyport-cluster-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server = &plane{dir: dir}
	defer server.stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := server.start(ctx); err != nil {
		return 0, err
	}
	return m.Run(), nil
}
