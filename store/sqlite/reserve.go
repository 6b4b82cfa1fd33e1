package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/sallyport-proxy/sallyport/store"
)

const (
	// reserveSize is enough for the results of some forty refreshes.
	reserveSize = 1 << 20
	// reserveAgain is how long to wait until the reserve is made once more: on a full disk
	// that takes for a moment what others may just have freed.
	reserveAgain = time.Second
)

// reserve is a file beside the database, as large as what it keeps free. All processes
// that have the database open share it.
type reserve struct {
	path string

	mu     sync.Mutex
	failed time.Time
	err    error
}

// room is what the store asks for it.
func (r *reserve) room(db *sql.DB) *store.Room {
	return &store.Room{Hold: r.hold, Release: r.release, Full: full,
		Compact: func(ctx context.Context) error {
			_, err := db.ExecContext(ctx, `pragma wal_checkpoint(truncate)`)
			return err
		}}
}

// hold makes the file where it is not there, or is not whole.
func (r *reserve) hold() error {
	if info, err := os.Stat(r.path); err == nil && info.Size() >= reserveSize {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil && time.Since(r.failed) < reserveAgain {
		return r.err
	}
	r.err = r.fill()
	r.failed = time.Now()
	return r.err
}

// fill writes every byte, and none that a file system could leave out or compress.
func (r *reserve) fill() error {
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("reserve room on the disk: %w", err)
	}
	bytes := make([]byte, reserveSize)
	_, _ = rand.Read(bytes) // never fails
	_, err = f.WriteAt(bytes, 0)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		err = errors.Join(err, f.Truncate(0))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("reserve room on the disk: %w", err)
	}
	return nil
}

// release empties the file.
func (r *reserve) release() error {
	r.mu.Lock() // what is being made would otherwise begin with a hole
	defer r.mu.Unlock()
	if err := os.Truncate(r.path, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("release the room on the disk: %w", err)
	}
	return nil
}

// full reports whether an error says that the disk is full.
func full(err error) bool {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return true
	}
	failed, ok := errors.AsType[*driver.Error](err)
	// The index of the log (shm) has an error of its own where it cannot grow.
	return ok && (failed.Code() == codes.SQLITE_IOERR_SHMSIZE || failed.Code()&0xff == codes.SQLITE_FULL)
}
