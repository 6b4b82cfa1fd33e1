package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store"
	"github.com/sallyport-proxy/sallyport/store/storetest"
)

func TestContract(t *testing.T) { storetest.Run(t, fresh) }

// fresh is a new file, and its faults.
func fresh(t *testing.T) storetest.Database {
	path := filepath.Join(t.TempDir(), "a folder #1?", "sallyport.db")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var handles []*sql.DB
	open := func(o store.Options) (*store.Store, error) {
		mu.Lock()
		defer mu.Unlock()
		return openWith(t.Context(), path, o, func(db *sql.DB) { handles = append(handles, db) })
	}
	exec := func(t *testing.T, statement string) {
		t.Helper()
		if statement == storetest.ResetKeys {
			statement = `update sqlite_sequence set seq = 0`
		}
		db := raw(t, path)
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	number := func(t *testing.T, question string) (n int64) {
		t.Helper()
		if err := raw(t, path).QueryRow(question).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	pragma := func(t *testing.T, text string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		for _, db := range handles {
			if _, err := db.Exec("pragma " + text); err != nil {
				t.Fatal(err)
			}
		}
	}
	if os.Getenv(fullDisk) != "" { // a limit of the whole process, so in one of its own
		return storetest.Database{TryOpen: open, Exec: exec, Number: number, Open: opener(open),
			Faults: []storetest.Fault{{
				Name: "the disk takes nothing more", Readable: true,
				Break: func(t *testing.T) func(*testing.T) { return noRoom(t, path+"-wal") }}}}
	}
	return storetest.Database{TryOpen: open, Exec: exec, Number: number, Open: opener(open),
		Faults: []storetest.Fault{
			{Name: "another program holds the lock and hangs", Readable: true,
				Break: func(t *testing.T) func(*testing.T) {
					tx, err := raw(t, path).Begin()
					if err != nil {
						t.Fatal(err)
					}
					return func(*testing.T) { _ = tx.Rollback() }
				}},
			{Name: "it became read-only", Readable: true, Break: func(t *testing.T) func(*testing.T) {
				pragma(t, "query_only = 1")
				return func(t *testing.T) { pragma(t, "query_only = 0") }
			}},
			{Name: "the file is gone, and comes back", Break: func(t *testing.T) func(*testing.T) {
				if err := os.Rename(path, path+".away"); err != nil {
					t.Fatal(err)
				}
				return func(t *testing.T) {
					if err := os.Rename(path+".away", path); err != nil {
						t.Fatal(err)
					}
				}
			}},
		}}
}

// opener opens for as long as a test lasts.
func opener(open func(store.Options) (*store.Store, error)) func(*testing.T, store.Options) *store.Store {
	return func(t *testing.T, o store.Options) *store.Store {
		t.Helper()
		s, err := open(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
}

// fullDisk is set in the process in which the disk takes nothing more.
const fullDisk = "SALLYPORT_TEST_FULL_DISK"

// The contracts hold on a full disk too. The go command's own record of a test would
// not fit either, so a process of its own goes through it.
func TestContractWhereTheDiskIsFull(t *testing.T) {
	if os.Getenv(fullDisk) != "" {
		return
	}
	if runtime.GOOS != "linux" {
		t.Skip("only Linux is asked to refuse writes")
	}
	for _, what := range []string{
		"TestContract/the_view_grows_old_where_nobody_can_be_reached/the_disk_takes_nothing_more",
		"TestContractOfGrants/P15_a_result_outlives_a_database_that_fails/the_disk_takes_nothing_more",
	} {
		cmd := exec.Command(os.Args[0], "-test.v", "-test.run", "^"+strings.ReplaceAll(what, "/", "$/^")+"$")
		cmd.Env = append(os.Environ(), fullDisk+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS: "+what)) {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

func raw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", address(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestTheFileIsTheOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sallyport.db")
	s, err := Open(t.Context(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.End(t.Context(), session.Cut{Root: "r", Before: time.Now(), Until: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, info.Mode(), err)
		}
	}
}

// What other files with secrets must be, so must the database that somebody made, or put back
// from a copy: people stand in it, and who can write it can sign in again who has signed out.
func TestP10_AFileThatIsOpenToEverybodyIsRefused(t *testing.T) {
	for name, open := range map[string]struct {
		behind string
		mode   os.FileMode
	}{"readable": {"", 0o644}, "writable": {"", 0o602}, "its log": {"-wal", 0o644}} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sallyport.db")
			for _, file := range []string{path, path + open.behind} {
				testenv.Check(t, os.WriteFile(file, nil, 0o600))
			}
			testenv.Check(t, os.Chmod(path+open.behind, open.mode))
			s, err := Open(t.Context(), path, store.Options{})
			if err == nil {
				_ = s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "chmod o-rwx "+path+open.behind) {
				t.Errorf("opened with mode %04o: %v", open.mode, err)
			}
			testenv.Check(t, os.Chmod(path+open.behind, 0o660)) // a group for backups
			s, err = Open(t.Context(), path, store.Options{})
			testenv.Check(t, err)
			testenv.Check(t, s.Close())
		})
	}
}

// The list of sign-ins names people, but who reads the file learns nothing that would
// open a session.
func TestP18_TheListHoldsNothingThatOpensASession(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sallyport.db")
	s, err := Open(t.Context(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	signedIn := session.Session{Root: "root-4711", ID: "root-4711.2", SignedIn: time.Now(),
		Expires: time.Now().Add(time.Hour),
		Identity: identity.Identity{Provider: "google", Subject: "subject", Email: "mail-4711@example.com",
			Name: "name-4711"}}
	s.NoteSignIn(signedIn.Entry("192.0.2.1", "Firefox on Linux"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(b, []byte("google:subject")) || bytes.Contains(b, []byte("4711")) {
		t.Errorf("the list holds %q: %v", b[max(0, bytes.Index(b, []byte("4711"))-40):][:80], err)
	}
}

// P18: who reads the table of what ended learns neither who somebody is nor what would
// open a session.
func TestP18_TheFileNamesNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sallyport.db")
	s, err := Open(t.Context(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	who := identity.Identity{Provider: "google", Subject: "subject-4711", ProviderSID: "there-4711",
		Org: identity.Org{ID: "org-4711"}}
	until := time.Now().Add(time.Hour)
	for _, c := range []session.Cut{
		{Root: "root-4711", Person: who.ID(), Before: time.Now(), Until: until},
		{Person: who.ID(), Before: time.Now(), Until: until},
		{Org: who.Org.ID, Before: time.Now(), Until: until},
		{Provider: who.Provider, ProviderSID: who.ProviderSID, Before: time.Now(), Until: until},
	} {
		if err := s.End(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Consume(t.Context(), "handoff/salt-4711", until); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(path + "*")
	read := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if read += len(b); bytes.Contains(b, []byte("4711")) || bytes.Contains(b, []byte("google")) {
			t.Errorf("%s names somebody", f)
		}
	}
	if err := s.Close(); err != nil || read == 0 {
		t.Fatal(err, read)
	}
}

func TestWhatIsNoDatabaseIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	good := func(name string) string {
		s, err := Open(t.Context(), path(name), store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if _, err := s.Consume(t.Context(), time.Now().String(), time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return path(name)
	}
	garbage := path("garbage")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	corrupt := good("corrupt")
	b, err := os.ReadFile(corrupt)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096; i < len(b); i++ { // all pages but the first
		b[i] = 0xa5
	}
	if err := os.WriteFile(corrupt, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"garbage": garbage, "corrupt": corrupt, "a folder": dir,
		"no folder": path("none/db")} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		s, err := Open(ctx, path, store.Options{})
		cancel()
		if err == nil {
			_ = s.Close()
			t.Errorf("%s is opened", name)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s is tried again and again", name)
		}
		t.Logf("%s: %v", name, err)
	}
}

// A file that was put in the place of ours is another one: what we wrote would be
// lost, so nothing is written and the view stands still.
func TestAFileThatWasReplacedIsNotWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sallyport.db")
	s, err := Open(t.Context(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.End(t.Context(), session.Cut{Root: "r", Before: time.Now(), Until: time.Now().Add(time.Hour)}); !errors.Is(err, ErrReplaced) || !errors.Is(err, session.ErrStore) {
		t.Errorf("end: %v", err)
	}
	if _, err := s.Consume(context.Background(), "test/1", time.Now().Add(time.Hour)); !errors.Is(err, ErrReplaced) {
		t.Errorf("consume: %v", err)
	}
	testenv.Eventually(t, "the store to be known not to be writable", func() bool { return !s.Writable() })
}

// SIGKILL, or a power cut: what was told to have ended is in the file.
func TestWhatWasToldIsInTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sallyport.db")
	s, err := Open(t.Context(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cut := session.Cut{Root: "r", Before: time.Now(), Until: time.Now().Add(time.Hour)}
	if err := s.End(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db") // what a crash leaves: the files as they are
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied+suffix, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	after, err := Open(t.Context(), copied, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	if !after.Ended(session.Session{Root: "r", SignedIn: cut.Before}) {
		t.Error("lost")
	}
	var mode string
	var sync int
	db := raw(t, path)
	if err := errors.Join(db.QueryRow("pragma journal_mode").Scan(&mode), db.QueryRow("pragma synchronous").Scan(&sync)); err != nil || mode != "wal" || sync != 2 {
		t.Errorf("%s, synchronous %d: %v", mode, sync, err)
	}
}

func TestContractOfGrants(t *testing.T) { storetest.RunGrants(t, fresh) }

func TestWhatAGrantTakes(t *testing.T) {
	storetest.SizeOfGrants(t, func(t *testing.T) (*store.Store, func() int64) {
		path := filepath.Join(t.TempDir(), "sallyport.db")
		s, err := Open(t.Context(), path, store.Options{})
		testenv.Check(t, err)
		t.Cleanup(func() { _ = s.Close() })
		db := raw(t, path)
		return s, func() (bytes int64) {
			t.Helper()
			testenv.Check(t, db.QueryRow(`select page_count * page_size from pragma_page_count, pragma_page_size`).
				Scan(&bytes))
			return bytes
		}
	})
}
