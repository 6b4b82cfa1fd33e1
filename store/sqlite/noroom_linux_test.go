package sqlite

import (
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// noRoom has every write fail that would make a file longer than the one at path
// is. It stands for a full disk, which a test cannot have everywhere.
func noRoom(t *testing.T, path string) (heal func(*testing.T)) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ) // the write fails with EFBIG then
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(info.Size()), Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	lift := func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was) }
	t.Cleanup(func() { _ = lift() })
	return func(t *testing.T) {
		if err := lift(); err != nil {
			t.Fatal(err)
		}
	}
}
