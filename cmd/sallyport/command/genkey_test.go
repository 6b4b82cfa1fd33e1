package command

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

var keyMade = time.Date(2026, 11, 28, 10, 22, 5, 999, time.FixedZone("CET", 3600))

// keysIn reads a directory as dir: does.
func keysIn(t *testing.T, dir string) (keys []session.Key) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	testenv.Check(t, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		testenv.Check(t, err)
		key, err := session.ParseKey(string(text))
		if err != nil {
			t.Fatalf("%s of %d bytes: %v", e.Name(), len(text), err)
		}
		keys = append(keys, key)
	}
	return keys
}

func TestGenkeyIntoADirectorySaysWhenTheKeySigns(t *testing.T) {
	dir := t.TempDir()
	var stdout bytes.Buffer
	c := &console{stdout: &stdout, stderr: &stdout}
	testenv.Check(t, addKey(c, dir, keyMade))
	testenv.Check(t, addKey(c, dir, keyMade.Add(time.Hour)))
	want := dir + "/key-20261128T092205Z.key signs from 2026-11-28T09:32:05Z, or at once while it is the only key\n" +
		dir + "/key-20261128T102205Z.key signs from 2026-11-28T10:32:05Z\n"
	if stdout.String() != want {
		t.Errorf("printed\n%swant\n%s", &stdout, want)
	}
	info, err := os.Stat(dir + "/key-20261128T092205Z.key")
	testenv.Check(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	ring, err := session.NewKeyring(keysIn(t, dir))
	testenv.Check(t, err)
	for at, want := range map[string]int{"2026-11-28T10:32:04Z": 0, "2026-11-28T10:32:05Z": 1} {
		now, err := time.Parse(time.RFC3339, at)
		testenv.Check(t, err)
		if got := ring.Signing(now); got != want {
			t.Errorf("at %s key %d signs, not %d", at, got, want)
		}
	}
	if names, _ := filepath.Glob(dir + "/.*"); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

// Two operators, or two pods, make a key in the same second; and somebody reads the
// directory all the time.
func TestGenkeyByManyAtOnceGivesEachAKeyAndReadersNoHalfOne(t *testing.T) {
	dir := t.TempDir()
	const many = 20
	var writers, reader sync.WaitGroup
	written := make(chan struct{})
	paths := make([]string, many)
	for i := range many {
		writers.Go(func() {
			path, _, err := writeKey(dir, keyMade)
			if err != nil {
				t.Error(err)
			}
			paths[i] = path
		})
	}
	reader.Go(func() {
		for {
			keysIn(t, dir)
			select {
			case <-written:
				return
			default:
			}
		}
	})
	writers.Wait()
	close(written)
	reader.Wait()
	slices.Sort(paths)
	if n := len(slices.Compact(paths)); n != many {
		t.Errorf("%d files of %d", n, many)
	}
	ring, err := session.NewKeyring(keysIn(t, dir))
	testenv.Check(t, err)
	if n := len(ring.All()); n != many {
		t.Errorf("%d keys of %d", n, many)
	}
}

// A genkey that was killed, or another program, has files there: none is lost.
func TestGenkeyTouchesNoFileThatIsThere(t *testing.T) {
	dir := t.TempDir()
	before := map[string]string{"key-20261128T092205Z.key": "a", ".key-20261128T092206Z.key": "b", "other": "c"}
	for name, text := range before {
		testenv.Check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	testenv.Check(t, os.Symlink("nowhere", filepath.Join(dir, "key-20261128T092207Z.key")))
	path, key, err := writeKey(dir, keyMade)
	testenv.Check(t, err)
	if filepath.Base(path) != "key-20261128T092208Z.key" || key.Created().Second() != 8 {
		t.Errorf("wrote %s, of %v", path, key.Created())
	}
	for name, text := range before {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != text {
			t.Errorf("%s is %q: %v", name, got, err)
		}
	}
	if to, err := os.Readlink(filepath.Join(dir, "key-20261128T092207Z.key")); to != "nowhere" {
		t.Errorf("the link leads to %q: %v", to, err)
	}
}

func TestGenkeyThatCannotWriteLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := writeNew(filepath.Join(dir, strings.Repeat("x", 300)), "text"); err == nil {
		t.Error("a name that is too long is written")
	}
	path := filepath.Join(dir, "there")
	testenv.Check(t, os.WriteFile(path, nil, 0o600))
	if err := writeNew(path, "text"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file that is there: %v", err)
	}
	if entries, err := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

// What an operator reads before removing a key.
func TestCheckSaysWhenAKeyCanBeRemoved(t *testing.T) {
	at := func(text string) time.Time {
		m, err := time.Parse(time.RFC3339, "2026-11-28T"+text+"Z")
		testenv.Check(t, err)
		return m
	}
	var never time.Time
	for _, tt := range []struct {
		from, until time.Time
		now, says   string
	}{
		{never, never, "09:00:00", "signs now"},
		{at("10:00:00"), never, "09:59:59", "signs from 2026-11-28T10:00:00Z"},
		{at("10:00:00"), at("11:00:00"), "09:59:59", "signs from 2026-11-28T10:00:00Z"},
		{at("10:00:00"), never, "10:00:00", "signs now"},
		{never, at("11:00:00"), "10:59:59",
			"signs now, until 2026-11-28T11:00:00Z, and opens what it signed until 2026-11-28T12:00:00Z"},
		{never, at("11:00:00"), "11:00:00", "opens what it signed until 2026-11-28T12:00:00Z; then it can be removed"},
		{at("10:00:00"), at("11:00:00"), "12:00:00", "has not been needed since 2026-11-28T12:00:00Z: remove it"},
	} {
		if got := keyUse(tt.from, tt.until, time.Hour, at(tt.now)); got != tt.says {
			t.Errorf("at %s: %q, want %q", tt.now, got, tt.says)
		}
	}
}

// TestAKeyThatRootMakesIsForTheOwnerOfItsDirectory, who is the user that Sallyport runs as: the
// key would otherwise be a fault of the configuration, and nothing would start any more.
func TestAKeyThatRootMakesIsForTheOwnerOfItsDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a file for somebody else")
	}
	dir := t.TempDir()
	testenv.Check(t, os.Chown(dir, 4242, 4243))
	var out bytes.Buffer
	if code := run([]string{"genkey", "--into", dir}, &console{stdout: &out, stderr: &out}); code != exitOK {
		t.Fatalf("it ends with %d: %s", code, out.String())
	}
	path, _, _ := strings.Cut(out.String(), " ")
	if owner, err := exec.Command("stat", "-c", "%u:%g %a", path).Output(); err != nil ||
		string(owner) != "4242:4243 600\n" {
		t.Errorf("the key's owner and mode are %q, %v", owner, err)
	}
}
