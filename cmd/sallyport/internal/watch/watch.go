package watch

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Look is how often files are looked at although no event told of a change. Network
// file systems tell of none, and neither does a directory that was not there before.
const Look = 30 * time.Second

// atMost is how many times the debounce may be put off: files that are written again
// and again are read all the same.
const atMost = 5

// Watcher tells when followed files have changed.
type Watcher struct {
	follow  chan order
	changed chan struct{}
	log     *slog.Logger
}

// order is what to follow.
type order struct {
	files    map[string]Digest
	debounce time.Duration
}

// Start begins to watch, until ctx is done; Follow says what. every is Look.
func Start(ctx context.Context, every time.Duration, log *slog.Logger) *Watcher {
	w := &Watcher{follow: make(chan order), changed: make(chan struct{}, 1), log: log}
	events, err := fsnotify.NewWatcher()
	if err != nil { // the system's limit of watches, most likely
		log.Warn("changes of files are not told by the system; they are looked at from time to time",
			"every", every.String(), "error", err.Error())
		events = nil
	}
	f := &following{Watcher: w, events: events}
	go f.run(ctx, every)
	return w
}

// Follow says which files to follow from here on, by absolute path, and what was in
// them when they were read: what has changed since then is told as well. They must
// have been left alone for as long as debounce.
func (w *Watcher) Follow(ctx context.Context, files map[string]Digest, debounce time.Duration) {
	select {
	case w.follow <- order{maps.Clone(files), debounce}:
	case <-ctx.Done():
	}
}

// Changed receives when a followed file holds something else than before.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// following is the goroutine's side of a Watcher.
type following struct {
	*Watcher
	events *fsnotify.Watcher // nil: there are none

	order
	dirs  map[string]names
	quiet *time.Timer // runs while files must be left alone
	since time.Time   // when that began; zero: it does not run
}

// names are those that matter in a directory; nil: all.
type names map[string]bool

func (f *following) run(ctx context.Context, every time.Duration) {
	f.quiet = time.NewTimer(time.Hour)
	f.quiet.Stop()
	poll := time.NewTicker(every)
	defer poll.Stop()
	var events <-chan fsnotify.Event
	var errs <-chan error
	if f.events != nil {
		defer f.events.Close()
		events, errs = f.events.Events, f.events.Errors
	}
	for {
		select {
		case <-ctx.Done():
			return
		case f.order = <-f.follow:
			f.watch()
			f.lookForChange() // of what happened before there was a watch
		case e := <-events:
			if f.matters(e.Name) {
				f.wait()
			}
		case <-errs: // events were lost
			f.wait()
		case <-poll.C:
			f.watch() // a directory may have been replaced
			f.lookForChange()
		case <-f.quiet.C:
			f.notify()
		}
	}
}

// lookForChange waits until files are left alone, if they have changed.
func (f *following) lookForChange() {
	if f.since.IsZero() && f.differ() {
		f.wait()
	}
}

// wait begins to wait until files are left alone, or waits on.
func (f *following) wait() {
	now := time.Now()
	if f.since.IsZero() {
		f.since = now
	}
	left := f.since.Add(atMost * f.debounce).Sub(now)
	f.quiet.Reset(max(0, min(f.debounce, left)))
}

// notify says once that there is a change, if there is one.
func (f *following) notify() {
	f.since = time.Time{}
	if !f.differ() {
		return
	}
	f.watch() // links may lead elsewhere now
	for path := range f.files {
		f.files[path] = Of(path)
	}
	select {
	case f.changed <- struct{}{}:
	default: // it was told and not yet heard
	}
}

func (f *following) differ() bool {
	for path, was := range f.files {
		if Of(path) != was {
			return true
		}
	}
	return false
}

// watch watches the directories of the followed files, and those that links lead to.
func (f *following) watch() {
	dirs := map[string]names{}
	for path := range f.files {
		add(dirs, filepath.Clean(path))
		if target, err := filepath.EvalSymlinks(path); err == nil {
			add(dirs, target)
		}
	}
	if f.events != nil {
		for dir := range f.dirs {
			if _, still := dirs[dir]; !still {
				_ = f.events.Remove(dir) // it may be gone
			}
		}
		for dir := range dirs {
			_ = f.events.Add(dir) // it may not be there yet; the next look tries again
		}
	}
	f.dirs = dirs
}

// add adds what must be watched for the sake of a path: its directory, and where it is
// a directory itself, all in it.
func add(dirs map[string]names, path string) {
	dir := filepath.Dir(path)
	if all, known := dirs[dir]; !known || all != nil {
		if dirs[dir] == nil {
			dirs[dir] = names{}
		}
		dirs[dir][filepath.Base(path)] = true
	}
	if isDir(path) {
		dirs[path] = nil
	}
}

// matters reports whether an event is about something that is followed. What begins
// with two dots are the links that Kubernetes swaps.
func (f *following) matters(path string) bool {
	path = filepath.Clean(path)
	base := filepath.Base(path)
	if _, watched := f.dirs[path]; watched || strings.HasPrefix(base, "..") {
		return true
	}
	wanted, watched := f.dirs[filepath.Dir(path)]
	return watched && (wanted == nil || wanted[base])
}
