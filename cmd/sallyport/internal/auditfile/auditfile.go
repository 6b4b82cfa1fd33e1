// Package auditfile is where the audit stream is written: standard output or error,
// or a file.
//
// It owns the file: it is opened for appending, by its owner alone, and opened anew
// where something else has its name, so that it can be rotated by renaming. What a
// line says is internal/observe's; the request log is asynclog's.
package auditfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/sallyport-proxy/sallyport/internal/fileowner"
)

// The targets that are no files.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Open opens a target: Stdout, Stderr, or the path of a file. Whoever opens it
// closes it. Each Write is to be one line.
func Open(target string, stdout, stderr io.Writer) (io.WriteCloser, error) {
	switch target {
	case Stdout:
		return keptOpen{stdout}, nil
	case Stderr:
		return keptOpen{stderr}, nil
	}
	f := &file{path: target}
	if err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

// OpenBeside is Open for a command beside the process that serves. Where root runs it, and the
// file is not there, it is made for the owner of its directory: the process that serves would
// otherwise append to it no more, and not start again.
func OpenBeside(target string, stdout, stderr io.Writer) (io.WriteCloser, error) {
	if target != Stdout && target != Stderr {
		if err := makeFor(target); err != nil {
			return nil, err
		}
	}
	return Open(target, stdout, stderr)
}

// makeFor makes the file where it is not there.
func makeFor(path string) error {
	made, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil // it is there, or Open says what is wrong
	}
	if err := errors.Join(fileowner.OfDirectory(made), made.Close()); err != nil {
		return fmt.Errorf("open the audit stream: %w", err)
	}
	return nil
}

// keptOpen is a stream of the process, which is not ours to close.
type keptOpen struct{ io.Writer }

func (keptOpen) Close() error { return nil }

// file is a file that may be renamed or removed while it is written.
type file struct {
	path string

	mu  sync.Mutex // guards what follows
	f   *os.File   // nil: it could not be opened again
	cut bool       // the last write ended within a line
}

func (f *file) open() error {
	opened, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the audit stream: %w%s", err, advice(err))
	}
	f.f, f.cut = opened, false
	return nil
}

// advice says what to do about a file that cannot be opened; "" if the error says it.
func advice(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return " (make the directory, owned by the user that Sallyport runs as)"
	case errors.Is(err, fs.ErrPermission):
		return " (let the user that Sallyport runs as write to the file and to its directory)"
	}
	return ""
}

// Write appends a line. A line that was cut, because the disk was full, does not
// spoil the next one.
func (f *file) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.follow(); err != nil {
		return 0, err
	}
	if f.cut {
		if _, err := f.f.Write([]byte("\n")); err != nil {
			return 0, err
		}
		f.cut = false
	}
	n, err := f.f.Write(line)
	f.cut = err != nil && n > 0
	return n, err
}

// follow opens the file anew if another one has its name, or none.
func (f *file) follow() error {
	if f.f != nil {
		has, err1 := f.f.Stat()
		named, err2 := os.Stat(f.path)
		if err1 == nil && err2 == nil && os.SameFile(has, named) {
			return nil
		}
		_ = f.f.Close()
		f.f = nil
	}
	return f.open()
}

// Close closes the file.
func (f *file) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		return nil
	}
	return f.f.Close()
}
