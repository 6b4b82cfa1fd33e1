package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/internal/fileowner"
	"github.com/sallyport-proxy/sallyport/session"
)

func genkeyCommand(c *console) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "genkey",
		Short: "Print a new session key, or put it beside those of a directory",
		Long: "Print a new session key, to be kept in a file that session.keys names. With --into, write\n" +
			"it into a new file of a directory that session.keys has as dir:, and say when it will sign.\n\n" +
			"To rotate, add the new key and keep the old one until the longest session is over: all keys\n" +
			"open sessions, and a new one seals them once it is ten minutes old. `sallyport check --values`\n" +
			"says when the old one can go. No key is ever removed by this command.",
		Example: "  sallyport genkey > session-key && chmod 600 session-key\n" +
			"  sudo -u sallyport sallyport genkey --into /etc/sallyport/keys",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("into") {
				return addKey(c, dir, time.Now())
			}
			_, err := fmt.Fprintln(c.stdout, session.NewKey(time.Now()).Text())
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "into", "", "the directory to write a new file into")
	_ = cmd.MarkFlagDirname("into") // only for completion
	return cmd
}

// addKey puts a new key into a directory and says when it signs.
func addKey(c *console, dir string, now time.Time) error {
	alone, err := holdsNoKeys(dir)
	if err != nil {
		return err
	}
	path, key, err := writeKey(dir, now)
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s cannot be written to; where it is a Kubernetes volume, print a key with `sallyport "+
			"genkey` and add it to the Secret under a name of its own", dir)
	case err != nil:
		return fmt.Errorf("write a key into %s: %w", dir, err)
	}
	says := "signs from " + key.SignsFrom().Format(time.RFC3339)
	if alone {
		says += ", or at once while it is the only key"
	}
	_, err = fmt.Fprintf(c.stdout, "%s %s\n", path, says)
	return err
}

// holdsNoKeys reports whether a directory has none of the files that dir: stands for.
func holdsNoKeys(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	switch {
	case dir == "":
		return false, usage("--into needs the path of a directory")
	case errors.Is(err, fs.ErrNotExist):
		return false, usage("directory %s does not exist; make it, as the user that runs Sallyport: "+
			"install -d -m 0700 %s",
			dir, dir)
	case errors.Is(err, syscall.ENOTDIR):
		return false, usage("%s is not a directory; --into writes a new file into one", dir)
	case err != nil:
		return false, fmt.Errorf("read directory %s: %w", dir, errors.Unwrap(err))
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			return false, nil
		}
	}
	return true, nil
}

// writeKey makes a key and writes it into a file that is named by the key's date. Of
// two that are made in one second the later one is a second younger.
func writeKey(dir string, now time.Time) (path string, key session.Key, err error) {
	for range 100 {
		key = session.NewKey(now)
		path = filepath.Join(dir, "key-"+key.Created().Format("20060102T150405Z")+".key")
		if err = writeNew(path, key.Text()+"\n"); !errors.Is(err, fs.ErrExist) {
			return path, key, err
		}
		now = now.Add(time.Second)
	}
	return "", session.Key{}, err
}

// writeNew writes a file that does not exist yet, so that who reads the
// directory finds all of it or nothing: it is written under a name that begins with
// a dot, and then renamed. Of several at once with one path, only the one that has
// that other name may go on, until the path exists; fs.ErrExist is for the rest.
func writeNew(path, text string) error {
	dir, name := filepath.Dir(path), filepath.Base(path)
	hidden := filepath.Join(dir, "."+name)
	f, err := os.OpenFile(hidden, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	// Chmod: whatever the umask is.
	err = errors.Join(err, f.Chmod(0o600), fileowner.OfDirectory(f), f.Sync(), f.Close())
	if err == nil {
		err = errIfThere(path)
	}
	if err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(hidden))
	}
	return syncDirectory(dir)
}

func errIfThere(path string) error {
	switch _, err := os.Lstat(path); {
	case err == nil:
		return fs.ErrExist
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return err
	}
}

// syncDirectory makes a rename last. Some network file systems cannot do that for a
// directory, and say so with EINVAL.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err = d.Sync(); errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
