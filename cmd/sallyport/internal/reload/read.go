// Package reload lets a running process follow its configuration.
//
// It owns when that is read again (SIGHUP, changed files), the order in which a
// configuration is read, judged and taken into use, what is told about it (log,
// metrics, service manager), and that anything wrong leaves what runs as it was. How a
// configuration is read is config's, what is made of it assemble's, and how a command
// takes it into use is the command's: it hands in a function for that.
package reload

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/watch"
)

// Reading is a configuration file as it was read, with all that it refers to.
type Reading struct {
	Config  *config.Config    // nil: there is none without faults
	Secrets *assemble.Secrets // nil: not all references could be resolved

	files map[string]watch.Digest // the file and what it refers to, by absolute path
	sum   [sha256.Size]byte       // of files
}

// ErrRestless says that files were changed again and again while they were read.
var ErrRestless = errors.New("the configuration was changed again and again while it was read")

// attempts is how often a configuration is read that changes meanwhile.
const attempts = 3

// Read reads and judges a configuration as `check --values` does, for a program that has
// further types of connectors. The Reading comes
// with an error too; it then says which files it was that are wrong. The error is
// config.Faults, or says why the file cannot be read.
func Read(path string, types config.Types, env func(string) (string, bool)) (*Reading, error) {
	return read(path, types, env, nil)
}

// read takes the files as a whole: what changed while they were read is read once more,
// so that no certificate comes with the key of another. known is what the file is taken
// to refer to as long as it has faults.
func read(path string, types config.Types, env func(string) (string, bool), known []string) (*Reading, error) {
	at, err := filepath.Abs(path)
	if err != nil {
		return &Reading{}, err
	}
	for range attempts {
		before := watch.Of(at)
		cfg, err := parse(path, types)
		r, refers := &Reading{}, known
		if cfg != nil {
			refers = cfg.Files()
		}
		r.files = watch.All(refers)
		r.files[at] = before
		if err == nil {
			r.Secrets, err = assemble.Resolve(cfg, env)
		}
		if err == nil {
			r.Config = cfg
		}
		if r.stillThere() {
			r.sum = sumOf(r.files)
			return r, err
		}
	}
	return &Reading{files: map[string]watch.Digest{at: {}}}, ErrRestless // so that the next look finds a change
}

// unread is what is told of files that were only looked at.
func unread(paths []string) *Reading {
	files := watch.All(paths)
	return &Reading{files: files, sum: sumOf(files)}
}

// parse finds what is wrong in the file alone. The configuration comes with faults too
// that lie between its parts.
func parse(path string, types config.Types) (*config.Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	cfg, faults := types.Parse(path, data)
	if len(faults) > 0 {
		return nil, faults
	}
	if _, faults := assemble.NewPolicy(cfg); len(faults) > 0 {
		return cfg, faults
	}
	return cfg, nil
}

func (r *Reading) stillThere() bool {
	for path, was := range r.files {
		if watch.Of(path) != was {
			return false
		}
	}
	return true
}

// paths are the files that r was made of.
func (r *Reading) paths() []string {
	var paths []string
	for path := range r.files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

func sumOf(files map[string]watch.Digest) [sha256.Size]byte {
	h := sha256.New()
	for _, path := range (&Reading{files: files}).paths() {
		fmt.Fprintf(h, "%q %x\n", path, files[path])
	}
	return [sha256.Size]byte(h.Sum(nil))
}
