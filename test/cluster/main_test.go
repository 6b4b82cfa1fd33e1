package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	kube3 "helm.sh/helm/v3/pkg/kube"
	kube4 "helm.sh/helm/v4/pkg/kube"
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
	// Helm writes fields under the name that its program has.
	kube3.ManagedFieldsManager, kube4.ManagedFieldsManager = "helm", "helm"
	runtime.LockOSThread() // the thread that starts the programs is there to the end
	server = &plane{dir: dir}
	defer server.stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := server.start(ctx); err != nil {
		return 0, err
	}
	return m.Run(), nil
}
