// Package sqlite opens a store in one file of this machine, for one process or for
// several on the same machine.
//
// It owns the driver and how the file is opened: durable before a call returns,
// readable by its owner alone. The tables, and everything that is done with them,
// are package store's; databases on a network are store/postgres's.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"time"

	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/sallyport-proxy/sallyport/store"
)

// mostLog is how many pages of 4 KiB the log has before it is moved into the database. The
// pages that the database has to grow by for it must find room in the reserve: on a full
// disk the log could otherwise never be emptied.
const mostLog = reserveSize / 4096 / 2

// pollInterval is how often a replica asks whether another one has written.
const pollInterval = 250 * time.Millisecond

// ErrReplaced is what a store returns whose file was removed or replaced while it
// was open: what it wrote would be lost.
var ErrReplaced = errors.New("the database file was removed or replaced: restart")

// Open opens the file at path, and makes it if there is none and o is not Brief.
func Open(ctx context.Context, path string, o store.Options) (*store.Store, error) {
	return openWith(ctx, path, o, func(*sql.DB) {})
}

// openWith shows the handles to opened before anything is read.
func openWith(ctx context.Context, path string, o store.Options, opened func(*sql.DB)) (*store.Store, error) {
	flags := os.O_RDWR | os.O_CREATE
	if o.Brief { // what a command makes could be another user's
		flags = os.O_RDWR
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if o.Brief && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", store.ErrNoTables, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	file, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if !o.Brief { // a command ends somebody's sessions all the same
		if err := closedToOthers(path); err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
	}
	// With one connection for each purpose this process's own calls wait for each other
	// by their contexts, not by SQLite's polling; and who reads waits for no writer,
	// because the log of SQLite (WAL) lets both do so at once.
	var handles [3]*sql.DB
	for i := range handles {
		if handles[i], err = sql.Open("sqlite", address(path)); err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
		handles[i].SetMaxOpenConns(1)
		opened(handles[i])
	}
	s, err := store.New(ctx, database(handles[0], handles[1], handles[2], path, file), o)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return s, nil
}

// closedToOthers refuses a database that somebody made, or put back from a copy, for everybody
// on this machine, as files with secrets are refused. SQLite makes what it keeps beside the
// database with the database's own mode.
func closedToOthers(path string) error {
	for _, name := range [...]string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if mode := info.Mode().Perm(); mode&0o006 != 0 {
			return fmt.Errorf("everybody on this machine can read or write file %s (mode %04o): run chmod o-rwx %s",
				name, mode, name)
		}
	}
	return nil
}

// address has every transaction take the lock for writing as it begins, so that
// none fails in its middle; and rw, so that a file that has gone is not made anew.
func address(path string) string {
	q := url.Values{"mode": {"rw"}, "_txlock": {"immediate"}, "_pragma": {"busy_timeout(4000)", "journal_mode(WAL)",
		"synchronous(FULL)", fmt.Sprintf("wal_autocheckpoint(%d)", mostLog)}}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

func database(db, follow, lists *sql.DB, path string, opened os.FileInfo) store.Database {
	sameFile := func() error {
		if now, err := os.Stat(path); err != nil || !os.SameFile(opened, now) {
			return errors.Join(ErrReplaced, err)
		}
		return nil
	}
	version := int64(-1)
	return store.Database{
		DB: db, Follow: follow, Lists: lists, Embedded: true, Every: pollInterval,
		Bytes: "blob", Serial: "integer primary key autoincrement",
		Last:   `select coalesce((select seq from sqlite_sequence where name = 'sallyport_ended'), 0)`,
		Usable: sameFile, Refuses: refuses,
		Room: (&reserve{path: path + ".reserve"}).room(db),
		// No Begin: what the driver's immediate transaction has locked is enough.
		Changed: func(ctx context.Context) (bool, error) {
			was := version
			if err := follow.QueryRowContext(ctx, `pragma data_version`).Scan(&version); err != nil {
				version = -1
				return false, fmt.Errorf("ask for changes: %w", err)
			}
			return version != was, nil
		},
	}
}

// refuses reports whether an error is about a value and not about the file.
func refuses(err error) bool {
	failed, ok := errors.AsType[*driver.Error](err)
	if !ok {
		return false
	}
	switch failed.Code() & 0xff {
	case codes.SQLITE_CONSTRAINT, codes.SQLITE_TOOBIG, codes.SQLITE_MISMATCH:
		return true
	}
	return false
}
