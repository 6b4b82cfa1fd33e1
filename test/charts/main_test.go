package charts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is sallyport's, and scratch a folder that ends with the tests. Both are set once,
// before any test runs.
var binary, scratch string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "sallyport-charts-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	scratch = dir
	if binary, err = build(dir); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// build makes the binary, unless SALLYPORT_BINARY names one to test.
func build(dir string) (string, error) {
	if name := os.Getenv("SALLYPORT_BINARY"); name != "" {
		return name, nil
	}
	name := filepath.Join(dir, "sallyport")
	cmd := exec.Command("go", "build", "-o", name, "./cmd/sallyport")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return name, nil
}
