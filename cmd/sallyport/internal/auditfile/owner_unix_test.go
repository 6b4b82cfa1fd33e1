//go:build linux || darwin

package auditfile

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestWhatRootRecordsBesideStaysTheServicesFile: a command that root runs just after the file was
// rotated makes it anew, and the process that serves, which is another user's, must be able to
// append to it.
func TestWhatRootRecordsBesideStaysTheServicesFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a file for somebody else")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 4242, 4243); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "audit.jsonl")
	for range 2 { // made, and found
		out, err := OpenBeside(path, io.Discard, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte("line\n")); err != nil {
			t.Error(err)
		}
		if err := out.Close(); err != nil {
			t.Error(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if of := info.Sys().(*syscall.Stat_t); of.Uid != 4242 || of.Gid != 4243 || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is of user %d and group %d, mode %s", of.Uid, of.Gid, info.Mode())
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "line\nline\n" {
		t.Errorf("it holds %q, %v", text, err)
	}
	if _, err := OpenBeside(filepath.Join(dir, "none", "audit.jsonl"), nil, nil); err == nil {
		t.Error("a directory that is not there was made")
	}
}
