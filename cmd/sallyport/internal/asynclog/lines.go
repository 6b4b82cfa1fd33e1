package asynclog

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// lineWriter takes whole lines and writes them in order from a goroutine of its
// own, many at a time. Write never waits for the reader: when the buffer is full
// lines are dropped and counted, and once writing goes on a line says how many
// are missing in that place. So it is with lines that cannot be written, because
// the disk is full or the reader of a pipe has gone.
type lineWriter struct {
	out     io.Writer
	notices notices
	max     int
	wake    chan struct{} // holds one: there is something to do
	done    chan struct{}
	dropped atomic.Uint64 // ever

	mu      sync.Mutex // guards what follows
	filling []byte
	missing uint64 // dropped after the last line in filling
	closed  bool

	// What follows belongs to run.
	unreported uint64 // lines lost since the last notice that was written
	cause      error  // why the last of them could not be written; nil: the buffer was full
	cut        bool   // the last write ended within a line
	failing    bool   // the last write failed
}

// notices are what is said about lines that are missing.
type notices struct {
	lost    func(n uint64, cause error) []byte // the line in their place
	failing func(error)                        // told once when writing begins to fail; may be nil
}

// flushDelay is how long a line waits for others to share a write with it: waking a
// goroutine and the reader of the log for each costs as much as writing it.
const flushDelay = 2 * time.Millisecond

// startLines begins to write to out; close ends it. At most limit bytes wait.
func startLines(out io.Writer, limit int, words notices) *lineWriter {
	w := &lineWriter{out: out, notices: words, max: limit, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write takes one or more whole lines. It always succeeds, and keeps no part of lines.
func (w *lineWriter) Write(lines []byte) (int, error) {
	w.mu.Lock()
	first := len(w.filling) == 0 && w.missing == 0
	// Once one is missing the next are too, so that the notice stands in the right place.
	if w.closed || w.missing > 0 || len(w.filling)+len(lines) > w.max {
		n := uint64(bytes.Count(lines, []byte("\n")))
		w.missing += n
		w.dropped.Add(n)
	} else {
		w.filling = append(w.filling, lines...)
	}
	w.mu.Unlock()
	if first { // else it was woken, and has not been here yet
		select {
		case w.wake <- struct{}{}:
		default: // it will come anyway
		}
	}
	return len(lines), nil
}

// close writes what is left and returns once it is out, or after patience.
func (w *lineWriter) close(patience time.Duration) {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-w.done:
	case <-late.C:
	}
}

func (w *lineWriter) run() {
	defer close(w.done)
	var batch []byte
	for range w.wake {
		time.Sleep(flushDelay)
		var missing uint64
		var closed bool
		batch, missing, closed = w.swap(batch)
		w.put(batch)
		w.unreported += missing
		w.report()
		if closed {
			return
		}
	}
}

// swap takes what has come and leaves an empty buffer in its place.
func (w *lineWriter) swap(empty []byte) (batch []byte, missing uint64, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	batch, missing, closed = w.filling, w.missing, w.closed
	w.filling, w.missing = empty[:0], 0
	return batch, missing, closed
}

// put writes a batch, after a notice about lines that were lost before it. Of what
// cannot be written the lines count as dropped.
func (w *lineWriter) put(batch []byte) {
	if len(batch) == 0 {
		return
	}
	n := 0
	if w.report() {
		var err error
		if n, err = w.write(batch); err == nil {
			return
		}
	}
	lost := uint64(bytes.Count(batch[n:], []byte("\n")))
	w.dropped.Add(lost)
	w.unreported += lost
}

// report says how many lines are missing, if any are, and whether writing goes on.
func (w *lineWriter) report() bool {
	if w.unreported == 0 {
		return true
	}
	if _, err := w.write(w.notices.lost(w.unreported, w.cause)); err != nil {
		return false
	}
	w.unreported, w.cause = 0, nil
	return true
}

// write ends a line that got out in part before, so that the next one stays whole.
func (w *lineWriter) write(b []byte) (n int, err error) {
	if w.cut {
		if _, err = w.out.Write([]byte("\n")); err == nil {
			w.cut = false
		}
	}
	if err == nil {
		n, err = w.out.Write(b)
		n = min(max(n, 0), len(b))
		w.cut = err != nil && n > 0 && b[n-1] != '\n'
	}
	if err != nil {
		w.cause = err
		if !w.failing && w.notices.failing != nil {
			w.notices.failing(err)
		}
	}
	w.failing = err != nil
	return n, err
}
