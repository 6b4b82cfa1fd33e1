package reload

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/systemd"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/watch"
)

// Options are what a Loop needs. Manager may be nil.
type Options struct {
	Path  string
	Types config.Types // further ones, of connectors
	Env   func(string) (string, bool)
	First *Reading // what the process began with
	// Apply takes next into use in place of old, as a whole or, with an error, not at
	// all. Its errors are config.Faults, or say what could not be made.
	Apply      func(ctx context.Context, old, next *Reading) error
	Watcher    *watch.Watcher
	Again      time.Duration // after which Apply is tried again where it has refused; 0: watch.Look
	Manager    *systemd.Notifier
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Loop reads the configuration again when it is told to. It is for one goroutine.
type Loop struct {
	Options
	metrics    *metrics
	running    *Reading
	last       [sha256.Size]byte // of what was read last, whether it could be used or not
	outside    string            // why Apply refused that; "": it did not
	generation int
}

// NewLoop registers the metrics.
func NewLoop(o Options) *Loop {
	if o.Again <= 0 {
		o.Again = watch.Look
	}
	l := &Loop{Options: o, metrics: newMetrics(o.Registerer), running: o.First, last: o.First.sum, generation: 1}
	l.metrics.applied(l.generation)
	return l
}

// Run reads the configuration at once on each signal, and once more for those that come
// while it is being read, and when its files have changed, until ctx is done. What was
// refused for something that is not in the files, as by a database that does not know a new
// password yet, is tried again: no change of a file would tell that it is otherwise by now.
// signals has room for one.
func (l *Loop) Run(ctx context.Context, signals <-chan os.Signal) {
	l.follow(ctx, l.First)
	for {
		asked, again := false, (<-chan time.Time)(nil)
		if l.outside != "" && l.running.Config.Reload.Watch {
			again = time.After(l.Again)
		}
		select {
		case <-ctx.Done():
			return
		case <-signals:
			asked = true
		case <-l.Watcher.Changed():
		case <-again:
		}
		l.follow(ctx, l.reload(ctx, asked))
	}
}

// follow follows the files of what was read last, be it in use or not.
func (l *Loop) follow(ctx context.Context, last *Reading) {
	how, files := l.running.Config.Reload, last.files
	if !how.Watch {
		files = nil
	}
	l.Watcher.Follow(ctx, files, how.Debounce)
}

// reload reads the configuration once, and takes it into use if there is nothing wrong
// with it. Somebody who asked for it is always answered. It returns what was read.
func (l *Loop) reload(ctx context.Context, asked bool) *Reading {
	begun := time.Now()
	if asked {
		l.Manager.Reloading()
	}
	next, err := l.read()
	news, outside := next.sum != l.last, l.outside
	l.last, l.outside = next.sum, ""
	switch {
	case !news && !asked && outside == "":
		return next
	case !asked && news:
		l.Manager.Reloading()
	}
	defer func() { l.Manager.Ready(l.status(err)) }()
	if err == nil && next.sum == l.running.sum {
		l.metrics.unchanged()
		l.Log.Info("config unchanged", "generation", l.generation)
		return next
	}
	if err == nil {
		err = l.apply(ctx, next)
	}
	if err != nil {
		if news || asked || l.outside != outside { // else that was told
			l.metrics.refused()
			l.refuse(err)
		}
		return next
	}
	changed := next.Config.Changed(l.running.Config)
	l.running = next
	l.generation++
	l.metrics.applied(l.generation)
	l.metrics.result("ok")
	l.Log.Info("config reloaded", "generation", l.generation, "changed", changed,
		"took_ms", float64(time.Since(begun).Microseconds())/1000)
	return next
}

// read is for a file that may have become something else since the start.
func (l *Loop) read() (*Reading, error) {
	info, err := os.Stat(l.Path)
	if err == nil && !info.Mode().IsRegular() {
		return unread(l.running.paths()), fmt.Errorf("%s is not a regular file", l.Path)
	}
	return read(l.Path, l.Types, l.Env, l.running.paths())
}

// apply is Apply with two more ways to refuse: what needs a restart, and a bug of ours,
// which must not end what runs well.
func (l *Loop) apply(ctx context.Context, next *Reading) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	if faults := next.Config.NeedsRestart(l.running.Config); len(faults) > 0 {
		return faults
	}
	if err = l.Apply(ctx, l.running, next); err != nil {
		l.outside = err.Error()
	}
	return err
}

// refuse tells why what is there now is not used. Excerpts show no secrets.
func (l *Loop) refuse(err error) {
	attrs := []any{"generation", l.generation}
	faults, ok := errors.AsType[config.Faults](err)
	if !ok || len(faults) == 0 {
		l.Log.Error("config reload refused", append(attrs, "error", err.Error(), "file", l.Path)...)
		return
	}
	first := faults[0]
	attrs = append(attrs, "error", first.Error(), "file", first.File, "line", first.Line, "column", first.Column,
		"excerpt", first.Excerpt)
	var further []string
	for _, f := range faults[1:] {
		further = append(further, f.Error())
	}
	if further != nil {
		attrs = append(attrs, "further", further)
	}
	l.Log.Error("config reload refused", attrs...)
}

// status is one line for the service manager.
func (l *Loop) status(err error) string {
	if err == nil {
		return fmt.Sprintf("serving, generation %d of the configuration", l.generation)
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return fmt.Sprintf("serving, generation %d of the configuration; what is there now was refused: %s",
		l.generation, first)
}
