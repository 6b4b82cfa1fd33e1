package watch

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

const never = time.Hour // no look

func start(t *testing.T, every time.Duration) *Watcher {
	t.Helper()
	return Start(t.Context(), every, slog.New(slog.DiscardHandler))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	testenv.Check(t, os.WriteFile(path, []byte(text), 0o600))
}

// replace is write at one blow: nobody sees the file empty.
func replace(t *testing.T, path, text string) {
	t.Helper()
	aside := filepath.Join(t.TempDir(), "aside")
	write(t, aside, text)
	testenv.Check(t, os.Rename(aside, path))
}

func (w *Watcher) tells(t *testing.T, of string) {
	t.Helper()
	select {
	case <-w.Changed():
	case <-time.After(20 * time.Second):
		t.Fatalf("nothing is told of %s", of)
	}
}

// restsUntil shows that nothing else was told: what happens next is told once.
func (w *Watcher) restsUntil(t *testing.T, next func()) {
	t.Helper()
	next()
	w.tells(t, "the next change")
	select {
	case <-w.Changed():
		t.Error("told twice")
	case <-time.After(50 * time.Millisecond):
	}
}

// What changes between the reading and the watching is told as well.
func TestNothingFallsBetweenReadingAndFollowing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	write(t, file, "read")
	read := All([]string{file})
	write(t, file, "changed since")
	w := start(t, never)
	w.Follow(t.Context(), read, time.Millisecond)
	w.tells(t, "a change before there was a watch")
}

// Where no event comes, as with NFS, a look finds the change; also where the directory
// was not there when the watch began.
func TestALookFindsWhatNoEventToldOf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	file := filepath.Join(dir, "f")
	w := start(t, 20*time.Millisecond)
	w.Follow(t.Context(), All([]string{file}), time.Millisecond)
	testenv.Check(t, os.Mkdir(dir, 0o755))
	write(t, file, "there")
	w.tells(t, "a file in a new directory")
	w.restsUntil(t, func() { // another directory under the name: its inode was never watched
		other := dir + "~"
		testenv.Check(t, os.Mkdir(other, 0o755))
		write(t, filepath.Join(other, "f"), "another")
		testenv.Check(t, os.Rename(dir, dir+".old"))
		testenv.Check(t, os.Rename(other, dir))
	})
}

// Events alone do, without a look: a directory with its files, a link that leads
// elsewhere, a mode that changes what may be read.
func TestEventsTellOfDirectoriesLinksAndModes(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	keys, link := filepath.Join(dir, "keys"), filepath.Join(dir, "link")
	testenv.Check(t, os.Mkdir(keys, 0o755))
	write(t, filepath.Join(elsewhere, "target"), "first")
	testenv.Check(t, os.Symlink(filepath.Join(elsewhere, "target"), link))
	w := start(t, never)
	w.Follow(t.Context(), All([]string{keys, link}), time.Millisecond)
	replace(t, filepath.Join(keys, "one"), "key")
	w.tells(t, "a file in a directory")
	replace(t, filepath.Join(elsewhere, "target"), "second")
	w.tells(t, "what a link leads to")
	testenv.Check(t, os.Chmod(filepath.Join(keys, "one"), 0o644))
	w.tells(t, "a mode")
	testenv.Check(t, os.Remove(filepath.Join(keys, "one")))
	w.tells(t, "a file that was removed")
	w.restsUntil(t, func() {
		write(t, filepath.Join(dir, "nobodys"), "x")
		write(t, filepath.Join(keys, ".hidden"), "x")
		replace(t, filepath.Join(elsewhere, "target"), "third")
	})
}

// The same bytes, written again, are no change.
func TestTheSameBytesAreNoChange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	write(t, file, "same")
	w := start(t, never)
	w.Follow(t.Context(), All([]string{file}), time.Millisecond)
	replace(t, file, "same")
	w.restsUntil(t, func() { replace(t, file, "other") })
}

// A file that is written again and again is told of all the same, and not before it was
// left alone where it is.
func TestFilesThatNeverRestAreTold(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	write(t, file, "begin")
	w := start(t, never)
	w.Follow(t.Context(), All([]string{file}), 200*time.Millisecond)
	busy := time.NewTicker(10 * time.Millisecond) // faster than the debounce: it would wait for ever
	defer busy.Stop()
	for writes := 0; ; writes++ {
		select {
		case <-busy.C:
			write(t, file, time.Now().String())
		case <-w.Changed():
			if writes < 10 {
				t.Errorf("told after %d writes, while the file was being written", writes)
			}
			return
		case <-t.Context().Done():
			t.Fatal("never told")
		}
		if writes > 2000 {
			t.Fatal("never told")
		}
	}
}

func TestADigestOpensNoPipe(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{"missing": filepath.Join(dir, "none"), "device": os.DevNull,
		"directory": dir} {
		if first, second := Of(path), Of(path); first != second {
			t.Errorf("%s: two digests differ", name)
		}
	}
	if Of(dir) == Of(filepath.Join(dir, "none")) || Of(os.DevNull) == Of(dir) {
		t.Error("different things have one digest")
	}
}
