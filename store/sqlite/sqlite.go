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
	"net/url"
	"os"
	"time"

	_ "modernc.org/sqlite" // the driver

	"github.com/sallyport-proxy/sallyport/store"
)

// look is how often a replica asks whether another one has written.
const look = 250 * time.Millisecond

// ErrReplaced is what a store returns whose file was removed or replaced while it
// was open: what it wrote would be lost.
var ErrReplaced = errors.New("the database file was removed or replaced: restart")

// Open opens the file at path, and makes it if there is none.
func Open(ctx context.Context, path string, o store.Options) (*store.Store, error) {
	return openWith(ctx, path, o, func(*sql.DB) {})
}

// openWith shows the handle to opened before anything is read.
func openWith(ctx context.Context, path string, o store.Options, opened func(*sql.DB)) (*store.Store, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	file, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	db, err := sql.Open("sqlite", address(path))
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	// With one connection this process's own calls wait for each other by their
	// contexts, not by SQLite's polling, and data_version leaves its own writes out.
	db.SetMaxOpenConns(1)
	opened(db)
	s, err := store.New(ctx, database(db, path, file), o)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return s, nil
}

// address has every transaction take the lock for writing as it begins, so that
// none fails in its middle; and rw, so that a file that has gone is not made anew.
func address(path string) string {
	q := url.Values{"mode": {"rw"}, "_txlock": {"immediate"},
		"_pragma": {"busy_timeout(2000)", "journal_mode(WAL)", "synchronous(FULL)"}}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

func database(db *sql.DB, path string, opened os.FileInfo) store.Database {
	sameFile := func() error {
		if now, err := os.Stat(path); err != nil || !os.SameFile(opened, now) {
			return errors.Join(ErrReplaced, err)
		}
		return nil
	}
	version := int64(-1)
	return store.Database{
		DB: db, Embedded: true, Bytes: "blob", Serial: "integer primary key autoincrement", Every: look,
		Last: `select coalesce((select seq from sqlite_sequence where name = 'sallyport_ended'), 0)`,
		// What the driver's immediate transaction has locked is enough.
		Begin: func(context.Context, *sql.Tx) error { return sameFile() },
		Changed: func(ctx context.Context) (bool, error) {
			if err := sameFile(); err != nil {
				return false, err
			}
			was := version
			if err := db.QueryRowContext(ctx, `pragma data_version`).Scan(&version); err != nil {
				version = -1
				return false, fmt.Errorf("ask for changes: %w", err)
			}
			return version != was, nil
		},
	}
}
