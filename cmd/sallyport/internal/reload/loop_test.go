package reload

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/watch"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// A file that the database refuses, because it does not know the new password yet, is taken up
// once it does, although the file does not change again: whoever replaces a password does so in
// two places, and not always in the database first. It is told once that it was refused.
func TestWhatWasRefusedFromOutsideIsTriedAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	text := strings.ReplaceAll(strings.Replace(runs, "env:KEY", "literal:"+session.NewKey(time.Now()).Text(), 1),
		"env:SECRET", "literal:0123456789abcdef") + "reload: {debounce: 100ms}\n"
	testenv.Check(t, os.WriteFile(file, []byte(text), 0o600))
	first, err := Read(file, nil, os.LookupEnv)
	testenv.Check(t, err)
	testenv.Check(t, os.WriteFile(file, []byte(text+"pages: {name: New}\n"), 0o600))

	var tried atomic.Int32
	log := &bytes.Buffer{} // read when the loop has ended
	logger := slog.New(slog.NewTextHandler(log, nil))
	ctx, end := context.WithCancel(t.Context())
	l := NewLoop(Options{Path: file, Env: os.LookupEnv, First: first, Log: logger, Again: 10 * time.Millisecond,
		Watcher: watch.Start(ctx, time.Hour, logger), Registerer: prometheus.NewRegistry(),
		Apply: func(_ context.Context, _, next *Reading) error {
			if next.Config.Pages.Name != "New" {
				t.Errorf("applied: %q", next.Config.Pages.Name)
			}
			if tried.Add(1) < 4 {
				return errors.New("the database refuses it")
			}
			return nil
		}})
	ended := make(chan struct{})
	go func() { l.Run(ctx, nil); close(ended) }()
	testenv.Eventually(t, "the file is in use", func() bool { return testutil.ToFloat64(l.metrics.generation) == 2 })
	end()
	<-ended
	if n := tried.Load(); n != 4 || testutil.ToFloat64(l.metrics.successful) != 1 ||
		testutil.ToFloat64(l.metrics.reloads.WithLabelValues("refused")) != 1 ||
		strings.Count(log.String(), "refused") != 1 || !strings.Contains(log.String(), "config reloaded") {
		t.Errorf("tried %d times, and it is told: %s", n, log)
	}
}
