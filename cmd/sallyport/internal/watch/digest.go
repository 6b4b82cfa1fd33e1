// Package watch tells when files have changed, by what is in them.
//
// It owns the watching of directories (a Kubernetes volume changes by a link that is
// swapped, and editors replace files, so a watch of the file itself would see
// nothing), how long files must have been left alone, and a look from time to time for
// what no event told of, as with NFS. It knows no configuration and reads files only to
// compare them; what a change means is its caller's, reload.
package watch

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Digest stands for what is at a path: the content of a file, of all files of a
// directory, or what keeps it from being read.
type Digest [sha256.Size]byte

// maxFile is more than any file of a configuration may have.
const maxFile = 1<<20 + 1

// Of is the digest of what is at a path. Links are followed. Nothing but a regular file
// is opened: a pipe would keep us waiting. Whether everybody may read it counts too,
// because a secret that everybody may read is refused.
func Of(path string) Digest {
	h := sha256.New()
	info, err := os.Stat(path)
	switch {
	case err != nil:
		sumError(h, err)
	case info.IsDir():
		sumDir(h, path)
	default:
		sumFile(h, path, info)
	}
	return Digest(h.Sum(nil))
}

// All are the digests of several paths.
func All(paths []string) map[string]Digest {
	all := make(map[string]Digest, len(paths))
	for _, path := range paths {
		all[path] = Of(path)
	}
	return all
}

func sumError(h hash.Hash, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		io.WriteString(h, "missing")
	case errors.Is(err, fs.ErrPermission):
		io.WriteString(h, "not permitted")
	default:
		io.WriteString(h, "unreadable")
	}
}

func sumFile(h hash.Hash, path string, info fs.FileInfo) {
	if !info.Mode().IsRegular() {
		fmt.Fprintf(h, "no file: %s", info.Mode().Type())
		return
	}
	f, err := os.Open(path)
	if err != nil {
		sumError(h, err)
		return
	}
	defer f.Close()
	fmt.Fprintf(h, "file %t\n", info.Mode().Perm()&0o004 != 0)
	if _, err := io.Copy(h, io.LimitReader(f, maxFile)); err != nil {
		sumError(h, err)
	}
}

// sumDir passes over names that begin with a dot, as the reader of the configuration
// does: they are Kubernetes' own.
func sumDir(h hash.Hash, path string) {
	entries, err := os.ReadDir(path)
	if err != nil {
		sumError(h, err)
		return
	}
	io.WriteString(h, "directory\n")
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		below := filepath.Join(path, e.Name())
		fmt.Fprintf(h, "%q ", e.Name())
		switch info, err := os.Stat(below); {
		case err != nil:
			sumError(h, err)
		case info.IsDir():
			io.WriteString(h, "directory")
		default:
			sum := Of(below)
			h.Write(sum[:])
		}
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
