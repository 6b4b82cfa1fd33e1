package sqlite

import (
	"errors"
	"io/fs"
	"syscall"

	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"
)

// Advice says what to do about an error of Open, for people; "" if it is not clear.
func Advice(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "make the directory, owned by the user that Sallyport runs as"
	case errors.Is(err, fs.ErrPermission):
		return "let the user that Sallyport runs as write to the file and to its directory"
	case errors.Is(err, syscall.EROFS):
		return "the file system is read-only: give it another directory"
	case errors.Is(err, syscall.ENOSPC):
		return diskFull
	}
	failed, ok := errors.AsType[*driver.Error](err)
	if !ok {
		return ""
	}
	if failed.Code() == codes.SQLITE_IOERR_SHMSIZE { // the index of the log cannot grow, whatever the error's name
		return diskFull
	}
	switch failed.Code() & 0xff { // the rest says more exactly where it failed
	case codes.SQLITE_FULL:
		return diskFull
	case codes.SQLITE_READONLY, codes.SQLITE_CANTOPEN, codes.SQLITE_PERM:
		return "let the user that Sallyport runs as write to the file and to its directory, where files are made " +
			"beside it"
	case codes.SQLITE_NOTADB, codes.SQLITE_CORRUPT:
		return "the file is no database, or damaged: restore a copy, or move it away; with a new one, " +
			"whoever signed out may be signed in again, so change session.keys too"
	case codes.SQLITE_BUSY, codes.SQLITE_LOCKED:
		return "another program holds the file: is it a backup that does not end?"
	case codes.SQLITE_IOERR:
		return "the disk fails, or is of a kind that SQLite cannot lock, such as some network file systems"
	}
	return ""
}

const diskFull = "the disk is full: make room"
