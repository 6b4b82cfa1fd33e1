package auditfile

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func write(t *testing.T, w io.Writer, line string) {
	t.Helper()
	if _, err := io.WriteString(w, line); err != nil {
		t.Fatal(err)
	}
}

func holds(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s holds %q (%v), want %q", filepath.Base(path), got, err, want)
	}
}

// Rotation renames the file, and the next line begins a new one; what was there
// before a start stays.
func TestTheFileCanBeRotatedByRenaming(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write(t, f, "one\n")
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not rename open files")
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(t, f, "two\n")
	holds(t, path+".1", "before\none\n")
	holds(t, path, "two\n")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, f, "three\n")
	holds(t, path, "three\n")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others can read it: %v %v", info.Mode(), err)
	}
}

// A folder that is gone for a while loses the lines of that while, and says so.
func TestAFolderThatComesBackIsWrittenAgain(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not rename open files")
	}
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "audit.log")
	f, err := Open(path, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "lost\n"); err == nil {
		t.Error("a line that is nowhere was written")
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	write(t, f, "kept\n")
	holds(t, path, "kept\n")
}

func TestStreamsOfTheProcessStayOpen(t *testing.T) {
	var out, aside bytes.Buffer
	for target, buffer := range map[string]*bytes.Buffer{Stdout: &out, Stderr: &aside} {
		w, err := Open(target, &out, &aside)
		if err != nil {
			t.Fatal(err)
		}
		write(t, w, target+"\n")
		if err := w.Close(); err != nil || buffer.String() != target+"\n" {
			t.Errorf("%s: %q, %v", target, buffer, err)
		}
	}
}

func TestAFileThatCannotBeOpenedIsAnError(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none", "audit.log"), nil, nil); err == nil {
		t.Error("opened")
	}
}
